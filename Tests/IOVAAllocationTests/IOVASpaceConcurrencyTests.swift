// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import Primitives
import Synchronization
import TestSupport
import Testing

/// One word for each page of a space, by which threads claim what they were given.
private final class Claims: Sendable {
  private let owners: [Owner]

  private final class Owner: Sendable {
    let thread = Atomic<Int>(0)
  }

  init(pages count: Int) { owners = (0..<count).map { _ in Owner() } }

  /// Throws when a page of the range is somebody's already.
  func claim(_ first: IOVA, pages count: UInt64, by thread: Int) throws {
    try change(first, count, from: 0, to: thread)
  }

  func disclaim(_ first: IOVA, pages count: UInt64, by thread: Int) throws {
    try change(first, count, from: thread, to: 0)
  }

  private func change(_ first: IOVA, _ count: UInt64, from old: Int, to new: Int) throws {
    let start = Int(first.rawValue / page)
    for index in start..<start + Int(count) {
      let found = owners[index].thread.exchange(new, ordering: .acquiringAndReleasing)
      try demandSame(found, old, "owner of page \(index)")
    }
  }
}

/// Ranges that threads leave for each other.
private final class Basket: Sendable {
  private let ranges = Mutex<[(first: IOVA, pages: UInt64)]>([])

  func put(_ more: [(first: IOVA, pages: UInt64)]) { ranges.withLock { $0 += more } }

  func takeAll() -> [(first: IOVA, pages: UInt64)] {
    ranges.withLock { ranges in
      defer { ranges = [] }
      return ranges
    }
  }
}

@Suite("IOVASpace on several threads")
struct IOVASpaceConcurrencyTests {
  @Test(arguments: [2, 4], [false, true])
  func noPageIsGivenToTwoThreads(threads: Int, isChecked: Bool) throws {
    let total = 128
    let shared = try SharedSpace(pages(0, UInt64(total) - 1), isChecked: isChecked)
    let claims = Claims(pages: total)
    let seed = RunSettings.seed
    try onThreads(threads) { index in
      var generator = SeededGenerator(seed: seed &+ UInt64(index))
      var mine: [(first: IOVA, pages: UInt64)] = []
      for _ in 0..<RunSettings.steps(1_500) {
        if generator.onceIn(2), mine.count < 12 {
          let count = generator.one(of: [1, 1, 1, 2, 2, 3, 4, 5, 8] as [UInt64])
          guard let first = try shared.allocate(pages: count) else { continue }
          mine.append((first, count))
          try claims.claim(first, pages: count, by: index + 1)
        } else if !mine.isEmpty {
          let range = mine.remove(at: generator.below(mine.count))
          try claims.disclaim(range.first, pages: range.pages, by: index + 1)
          try shared.free(range.first, pages: range.pages)
        }
        if generator.onceIn(64) { shared.space.drain() }
        if generator.onceIn(16) {
          let statistics = shared.space.statistics
          try demandSame(
            statistics.allocatedBytes + statistics.freeBytes, UInt64(total) * page,
            "bytes of one moment")
        }
      }
      for range in mine {
        try claims.disclaim(range.first, pages: range.pages, by: index + 1)
        try shared.free(range.first, pages: range.pages)
      }
    }
    shared.space.drain()
    #expect(shared.space.statistics.allocatedCount == 0)
    #expect(shared.space.statistics.refusedFrees == 0)
    #expect(shared.space.statistics.largestFreeBytes == UInt64(total) * page)
  }

  @Test(arguments: [false, true])
  func rangesAndReservationsOfManyThreadsAreAllKept(isChecked: Bool) throws {
    let shared = try SharedSpace(pages(0, 0xF_FFFF), isChecked: isChecked)
    try onThreads(4) { index in
      // A quarter of the space each, from its bottom; allocations come from the top.
      let base = UInt64(index) << 28
      for index in UInt64(0)..<100 {
        try shared.space.reserve(IOVARange(first: IOVA(base + index << 13), size: page))
        _ = try shared.allocate()
      }
    }
    let statistics = shared.space.statistics
    #expect(statistics.reservedCount == 400)
    #expect(statistics.allocatedCount == 400)
    #expect(statistics.freeBytes == UInt64(1) << 32 - UInt64(800) << 12)
  }

  /// Whoever takes the last page gets it, wherever it is cached, and nobody fails while one is free.
  @Test(arguments: [false, true])
  func allIsAllocatedAndFreedByOthersAndAllocatedAgain(isChecked: Bool) throws {
    let (threads, total) = (4, UInt64(1024))
    let shared = try SharedSpace(pages(0, total - 1), isChecked: isChecked)
    let baskets = (0..<threads).map { _ in Basket() }
    for round in 0..<6 {
      let count: UInt64 = round % 3 == 2 ? 2 : 1
      try onThreads(threads) { index in
        var mine: [(first: IOVA, pages: UInt64)] = []
        while let first = try shared.allocate(pages: count) { mine.append((first, count)) }
        baskets[index].put(mine)
      }
      let statistics = shared.space.statistics
      #expect(statistics.allocatedBytes == total * page)
      #expect(statistics.freeBytes == 0 && statistics.cachedCount == 0)
      try onThreads(threads) { index in
        for range in baskets[(index + 1) % threads].takeAll() {
          try shared.free(range.first, pages: range.pages)
        }
      }
      #expect(shared.space.statistics.freeBytes == total * page)
    }
    shared.space.drain()
    #expect(shared.space.statistics.largestFreeBytes == total * page)
    #expect(shared.space.statistics.refusedFrees == 0)
  }

  @Test func threadsThatEndedLeaveNothingLost() throws {
    let shared = try SharedSpace(pages(1, 512), isChecked: false)
    for _ in 0..<20 {
      try onThreads(3) { _ in
        let mine = try (0..<100).compactMap { _ in try shared.allocate() }
        for first in mine { try shared.free(first) }
      }
    }
    #expect(shared.space.statistics.allocatedCount == 0)
    #expect(try shared.allocate(pages: 512) == IOVA(page))
  }
}
