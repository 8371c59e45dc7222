// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Foundation
import MemoryMap
import Primitives
import TestSupport
import Testing

/// Pages that are regions by turns. A page holds its number while it is one, and ones while not.
private final class Pages: @unchecked Sendable {
  static let size = UInt64(4096)

  let map: Map
  private let bytes: UnsafeMutableRawPointer

  init(count: Int) throws {
    map = try Map()
    bytes = .allocate(byteCount: count << 12, alignment: 4096)
    memset(bytes, 0xff, count << 12)
  }

  deinit { bytes.deallocate() }

  func host(_ page: Int) -> UnsafeMutablePointer<UInt64> {
    (bytes + page << 12).assumingMemoryBound(to: UInt64.self)
  }

  func add(_ page: Int) throws {
    host(page).pointee = UInt64(page)
    try map.add(UInt64(page) << 12, size: Self.size, .host(host(page)))
  }

  func remove(_ page: Int) throws(Failure) {
    try map.remove(UInt64(page) << 12, size: Self.size)
    // Nobody is inside the page any more, so this meets no read of it.
    host(page).pointee = UInt64.max
  }

  /// Reads a page through the map, and says whether it is there.
  func check(_ page: Int) throws -> Bool {
    try map.look(UInt64(page) << 12) { region, holeLast in
      guard let region else {
        try demand(holeLast >= UInt64(page) << 12, "a hole ends before it starts")
        return false
      }
      let word = region.pointee.host!.load(as: UInt64.self)
      try demandSame(word, UInt64(page), "word of page \(page)")
      return true
    }
  }
}

@Suite("PhysicalMemory on several threads")
struct PhysicalMemoryConcurrencyTests {
  @Test func nobodyReadsARegionAfterItsRemoval() throws {
    let pages = try Pages(count: 13)
    try pages.add(12)
    let seed = RunSettings.seed
    let isOver = Flag()
    try onThreads(3) { thread in
      guard thread == 0 else {
        var generator = SeededGenerator(seed: seed &+ UInt64(thread))
        while !isOver.isSet {
          _ = try pages.check(generator.below(12))
          try demand(try pages.check(12), "a region that stays is not found")
        }
        return
      }
      defer { isOver.set() }
      var generator = SeededGenerator(seed: seed)
      var isThere = Array(repeating: false, count: 12)
      for _ in 0..<RunSettings.steps(1_500) {
        let page = generator.below(12)
        if isThere[page] { try pages.remove(page) } else { try pages.add(page) }
        isThere[page].toggle()
        try demandSame(try pages.check(page), isThere[page], "presence of page \(page)")
      }
    }
  }

  @Test func nobodyReadsARegionThatIsPinnedAfterItsRemoval() throws {
    let pages = try Pages(count: 1)
    try pages.add(0)
    let isOver = Flag()
    try onThreads(3) { thread in
      guard thread == 0 else {
        while !isOver.isSet {
          let pinned = pages.map.look(0) { region, _ -> PhysicalMemory.Region? in
            guard let region, region.pointee.pin() else { return nil }
            return region
          }
          guard let pinned else { continue }
          try demandSame(pages.host(0).pointee, 0, "word of a pinned page")
          pinned.pointee.unpin()
        }
        return
      }
      defer { isOver.set() }
      for _ in 0..<RunSettings.steps(500) {
        do throws(Failure) {
          try pages.remove(0)
        } catch {
          try demandSame(error, .busy, "why a region stays")
          continue
        }
        try pages.add(0)
      }
    }
    #expect(try pages.check(0))
  }

  @Test func changesOfManyThreadsAreAllKept() throws {
    let pages = try Pages(count: 96)
    try onThreads(3) { thread in
      let mine = (0..<32).map { $0 * 3 + thread }
      for page in mine { try pages.add(page) }
      for page in mine where page % 2 == 0 { try pages.remove(page) }
    }
    for page in 0..<96 { #expect(try pages.check(page) == (page % 2 == 1)) }
  }
}
