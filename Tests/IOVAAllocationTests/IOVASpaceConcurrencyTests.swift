// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import Primitives
import Synchronization
import TestSupport
import Testing

/// An IOVA space of 128 pages, and one word a page by which threads claim what they were given.
private final class SharedSpace: Sendable {
  static let pageCount = 128

  let space: IOVASpace
  private let owners = (0..<SharedSpace.pageCount).map { _ in Owner() }

  private final class Owner: Sendable {
    let thread = Atomic<Int>(0)
  }

  init() throws {
    let bounds = try IOVARange(first: IOVA(0), size: UInt64(Self.pageCount) << 12)
    space = try IOVASpace(bounds: bounds, granule: Granule(shift: 12))
  }

  /// Throws when a page of the range is somebody's already.
  func claim(_ range: IOVARange, by thread: Int) throws { try change(range, from: 0, to: thread) }

  func disclaim(_ range: IOVARange, by thread: Int) throws {
    try change(range, from: thread, to: 0)
  }

  private func change(_ range: IOVARange, from old: Int, to new: Int) throws {
    for page in Int(range.first.rawValue >> 12)...Int(range.last.rawValue >> 12) {
      let found = owners[page].thread.exchange(new, ordering: .acquiringAndReleasing)
      try demandSame(found, old, "owner of page \(page)")
    }
  }
}

@Suite("IOVASpace on several threads")
struct IOVASpaceConcurrencyTests {
  @Test(arguments: [2, 4])
  func noPageIsGivenToTwoThreads(threads: Int) throws {
    let shared = try SharedSpace()
    let seed = RunSettings.seed
    try onThreads(threads) { index in
      var generator = SeededGenerator(seed: seed &+ UInt64(index))
      var mine: [IOVARange] = []
      for _ in 0..<RunSettings.steps(1_500) {
        if generator.onceIn(2), mine.count < 8 {
          let size = UInt64(1 + generator.below(5)) << 12
          let alignment = UInt64(1) << UInt64(12 + generator.below(3))
          do throws(Failure) {
            let range = try shared.space.allocate(
              size: size, alignment: alignment, limit: UInt64.max)
            mine.append(range)
          } catch {
            try demandSame(error, .noSpace, "why there is no range")
            continue
          }
          try shared.claim(mine.last!, by: index + 1)
        } else if !mine.isEmpty {
          let range = mine.remove(at: generator.below(mine.count))
          try shared.disclaim(range, by: index + 1)
          try shared.space.free(first: range.first, size: range.extent + 1)
        }
        if generator.onceIn(16) {
          let statistics = shared.space.statistics
          try demandSame(
            statistics.allocatedBytes + statistics.freeBytes, UInt64(SharedSpace.pageCount) << 12,
            "bytes of one moment")
        }
      }
      for range in mine {
        try shared.disclaim(range, by: index + 1)
        try shared.space.free(first: range.first, size: range.extent + 1)
      }
    }
    #expect(shared.space.statistics.allocatedCount == 0)
    #expect(shared.space.statistics.largestFreeBytes == UInt64(SharedSpace.pageCount) << 12)
  }

  /// More threads than cells in a chunk's rest meet where the space's own memory is refilled.
  @Test func rangesAndReservationsOfManyThreadsAreAllKept() throws {
    let bounds = try IOVARange(first: IOVA(0), size: 1 << 32)
    final class Holder: Sendable {
      let space: IOVASpace
      init(_ bounds: IOVARange) throws {
        space = try IOVASpace(bounds: bounds, granule: Granule(shift: 12))
      }
    }
    let holder = try Holder(bounds)
    try onThreads(4) { index in
      // A quarter of the space each, from its bottom; allocations come from the top.
      let base = UInt64(index) << 28
      for page in UInt64(0)..<100 {
        try holder.space.reserve(IOVARange(first: IOVA(base + page << 13), size: 4096))
        _ = try holder.space.allocate(size: 4096, alignment: 0, limit: UInt64.max)
      }
    }
    let statistics = holder.space.statistics
    #expect(statistics.reservedCount == 400)
    #expect(statistics.allocatedCount == 400)
    #expect(statistics.freeBytes == UInt64(1) << 32 - UInt64(800) << 12)
  }
}
