// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization
import TestSupport
import Testing

@testable import PageTables

/// A page table that threads share, its readers, and the pages it is made of.
private final class SharedTable<F: PageTableFormat>: @unchecked Sendable {
  let pages = TablePages()
  let table: PageTable<F>
  let readers: ReadSections

  init(levels: Int, isOnHeap: Bool) throws {
    readers = try ReadSections()
    table = try PageTable<F>(levels: levels, allocator: isOnHeap ? nil : pages.allocator)
  }

  func map(_ first: UInt64, _ size: UInt64, to target: UInt64) throws {
    try table.map(
      IOVARange(first: IOVA(first), size: size), to: PhysicalAddress(target), access: .read)
  }

  func unmap(_ first: UInt64, _ size: UInt64) throws {
    let range = try IOVARange(first: IOVA(first), size: size)
    let found = try table.unmap(range, crossingHoles: false)
    try demandSame(found, size, "bytes unmapped at \(hex(first))")
  }

  /// Looks an address up as a reader who may be inside a table that a leaf replaces.
  func lookUp(_ address: UInt64) -> PageTableLookup {
    let token = readers.enter()
    defer { readers.leave(token) }
    return table.lookUp(IOVA(address))
  }

  func reclaim() { table.reclaim(after: { readers.waitForReaders() }) }
}

@Suite("PageTable on several threads")
struct PageTableConcurrencyTests {
  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 1 << 21

  /// What addresses of a thread's range lead to.
  private static func target(of address: UInt64) -> UInt64 { address + (1 << 40) }

  private static func checkFound(_ found: PageTableLookup, _ address: UInt64) throws {
    try demand(found.first <= address && address <= found.last, "an entry around the address")
    guard found.isMapped else { return }
    try demandSame(found.target, target(of: found.first), "target of \(hex(found.first))")
    try demandSame(found.access, .read, "access")
  }

  /// Ranges that share every table, down to the lowest one.
  @Test(arguments: [true, false])
  func mappersOfNeighbouringPagesAndReadersDoNotDisturbEachOther(isOnHeap: Bool) throws {
    let shared = try SharedTable<VTdSecondStage>(levels: 4, isOnHeap: isOnHeap)
    let isOver = Flag()
    let mappersLeft = Atomic<Int>(2)
    try onThreads(4) { index in
      if index < 2 {
        var generator = SeededGenerator(seed: RunSettings.seed &+ UInt64(index))
        for _ in 0..<RunSettings.steps(800) {
          // Every other page is this thread's.
          let first = (UInt64(generator.below(256)) * 2 + UInt64(index)) * Self.page
          try shared.map(first, Self.page, to: Self.target(of: first))
          try demand(shared.lookUp(first).isMapped, "a thread finds what it has mapped")
          try shared.unmap(first, Self.page)
          try demand(!shared.lookUp(first).isMapped, "a thread finds what it has unmapped")
        }
        if mappersLeft.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { isOver.set() }
      } else {
        var generator = SeededGenerator(seed: RunSettings.seed &+ UInt64(index))
        while !isOver.isSet {
          let address = UInt64(generator.below(512)) * Self.page + 8
          try Self.checkFound(shared.lookUp(address), address)
        }
      }
    }
    let leafCount = shared.table.leaves().count
    #expect(leafCount == 0)
    #expect(shared.table.statistics.mappedBytes == 0)
    #expect(shared.table.statistics.tableCount == 4)
  }

  /// Tables that several threads want at the same moment are put in place once, and none is lost.
  @Test(arguments: [true, false])
  func threadsThatNeedTheSameTableShareOne(isOnHeap: Bool) throws {
    for round in UInt64(0)..<40 {
      let shared = try SharedTable<VTdSecondStage>(levels: 5, isOnHeap: isOnHeap)
      let base = round << 40
      try onThreads(4) { index in
        try shared.map(base + UInt64(index) * Self.page, Self.page, to: UInt64(index) << 12)
      }
      for index in UInt64(0)..<4 {
        #expect(shared.table.lookUp(IOVA(base + index * Self.page)).target == index << 12)
      }
      #expect(shared.table.statistics.tableCount == 5)
      if !isOnHeap { #expect(shared.pages.liveCount == 5) }
    }
  }

  /// Each mapper owns a stretch of large leaves and maps it by pages and as a whole in turns, so that
  /// leaves replace tables that readers are inside, and the tables are reclaimed beside them.
  @Test(arguments: [true, false])
  func tablesAreReplacedAndReclaimedBesideReaders(isOnHeap: Bool) throws {
    let shared = try SharedTable<VTdSecondStage>(levels: 3, isOnHeap: isOnHeap)
    let isOver = Flag()
    let mappersLeft = Atomic<Int>(2)
    try onThreads(4) { index in
      var generator = SeededGenerator(seed: RunSettings.seed &+ UInt64(index))
      if index < 2 {
        for _ in 0..<RunSettings.steps(150) {
          let first = (UInt64(generator.below(4)) * 2 + UInt64(index)) * Self.large
          let inside = first + UInt64(generator.below(512)) * Self.page
          try shared.map(inside, Self.page, to: Self.target(of: inside))
          try shared.unmap(inside, Self.page)
          try shared.map(first, Self.large, to: Self.target(of: first))
          try demand(shared.lookUp(inside).isMapped, "a thread finds what it has mapped")
          shared.reclaim()
          try shared.unmap(first, Self.large)
        }
        if mappersLeft.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { isOver.set() }
      } else {
        while !isOver.isSet {
          let address = UInt64(generator.below(8)) * Self.large + UInt64(generator.below(1 << 21))
          try Self.checkFound(shared.lookUp(address), address)
        }
      }
    }
    shared.reclaim()
    #expect(shared.table.statistics.retiredCount == 0)
    #expect(shared.table.statistics.mappedBytes == 0)
    // Root and level 1 are left, and no table below.
    #expect(shared.table.statistics.tableCount == 2)
    if !isOnHeap { #expect(shared.pages.liveCount == 2) }
    #expect(shared.pages.misuses.isEmpty)
  }

  /// Statistics may be read at any time; they are sums of what the threads do.
  @Test func countsAreExactWhenTheThreadsHaveEnded() throws {
    let shared = try SharedTable<TinyFormat>(levels: 4, isOnHeap: false)
    try onThreads(4) { index in
      for round in 0..<16 {
        // Sixteen granules each, of the 256 that there are: a table's worth, or four.
        let first = UInt64(index * 64 + round % 4 * 16) << 12
        try shared.map(first, 16 << 12, to: first)
        _ = shared.table.statistics
        if round < 12 { try shared.unmap(first, 16 << 12) }
      }
    }
    #expect(shared.table.statistics.mappedBytes == 256 << 12)
    let leafCount = shared.table.leaves().count
    #expect(leafCount == 16)
    #expect(shared.table.statistics.tableCount == UInt64(shared.pages.liveCount))
  }
}
