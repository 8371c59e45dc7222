// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// Tables whose root gets another root above it when an address is out of its reach.
@Suite("PageTable: growing")
struct PageTableGrowthTests {
  private typealias Table = PageTable<AMDv1>

  private static let page: UInt64 = 1 << 12

  private func range(_ first: UInt64, _ size: UInt64 = page) throws -> IOVARange {
    try IOVARange(first: IOVA(first), size: size)
  }

  /// The first address that so many levels do not reach.
  private func end(levels: Int) -> UInt64 { 1 << UInt64(12 + 9 * levels) }

  @Test func theRootGrowsToWhatIsMappedAndNoFurther() throws {
    let table = try Table(levels: 1, allocator: nil)
    try table.map(range(0), to: PhysicalAddress(0x9000), access: .read)
    for levels in 1...5 {
      let before = table.facts.levels
      #expect(before == levels)
      try table.map(range(end(levels: levels)), to: PhysicalAddress(0xA000), access: .read)
      let after = table.facts.levels
      #expect(after == levels + 1)
    }
    let last = try range(UInt64.max - 4095)
    try table.map(last, to: PhysicalAddress(0xB000), access: .write)
    let places: [(UInt64, UInt64)] = [
      (0, 0x9000), (1 << 57, 0xA000), (UInt64.max - 5, 0xBFFA),
    ]
    for (address, target) in places {
      let found = table.lookUp(IOVA(address))
      #expect(found.target + (address - found.first) == target)
    }
    let levels = table.facts.levels
    #expect(levels == 6)
  }

  @Test func whatWasMappedStaysWhereItWas() throws {
    let table = try Table(levels: 2, allocator: nil)
    try table.map(range(0x5000, 1 << 20), to: PhysicalAddress(0x10_0000), access: .read)
    let before = table.leafLines().map { $0.suffix(20) }
    try table.map(range(1 << 50), to: PhysicalAddress(0), access: .read)
    #expect(try table.unmap(range(1 << 50), crossingHoles: false) == Self.page)
    let after = table.leafLines().map { $0.suffix(20) }
    #expect(after == before)
  }

  @Test func beyondTheRootNothingIsMapped() throws {
    let table = try Table(levels: 3, allocator: nil)
    let found = table.lookUp(IOVA(1 << 39))
    #expect(!found.isMapped)
    #expect([found.first, found.last] == [1 << 39, UInt64.max])
    #expect(try table.unmap(range(1 << 39, 1 << 40), crossingHoles: true) == 0)
    try table.trim(range(1 << 39, 1 << 40))
    let levels = table.facts.levels
    #expect(levels == 3)
  }

  @Test func aRangeOverTheEndOfTheRootIsMappedWhole() throws {
    let table = try Table(levels: 3, allocator: nil)
    let across = try range((1 << 39) - Self.page, 2 * Self.page)
    try table.map(across, to: PhysicalAddress(0x7000), access: .read)
    #expect(table.lookUp(IOVA(1 << 39)).target == 0x8000)
    #expect(try table.unmap(across, crossingHoles: false) == 2 * Self.page)
  }

  @Test func aRangeThatMeetsALeafIsRefusedThoughThereIsNoMemoryToGrow() throws {
    let pages = TablePages()
    let table = try Table(levels: 1, allocator: pages.allocator)
    let last = end(levels: 1) - Self.page
    try table.map(range(last), to: PhysicalAddress(0x9000), access: .read)
    let across = try range(last, 2 * Self.page)
    pages.failAfter(0)
    #expect(throws: Failure.exists) {
      try table.map(across, to: PhysicalAddress(0x7000), access: .read)
    }
    let beside = try range(end(levels: 1))
    #expect(throws: Failure.noMemory) {
      try table.map(beside, to: PhysicalAddress(0x7000), access: .read)
    }
    let levels = table.facts.levels
    #expect(levels == 1)
  }

  @Test func withoutMemoryNothingIsMapped() throws {
    for left in 0..<8 {
      let pages = TablePages()
      let table = try Table(levels: 1, allocator: pages.allocator)
      try table.map(range(0), to: PhysicalAddress(0x9000), access: .read)
      pages.failAfter(left)
      #expect(throws: Failure.noMemory) {
        try table.map(range(1 << 57), to: PhysicalAddress(0), access: .read)
      }
      let first = table.lookUp(IOVA(0)).target
      #expect(first == 0x9000)
      let isMapped = table.lookUp(IOVA(1 << 57)).isMapped
      #expect(!isMapped)
      pages.failAfter(nil)
      try table.map(range(1 << 57), to: PhysicalAddress(0), access: .read)
      let count = table.statistics.tableCount
      #expect(count == UInt64(pages.liveCount))
    }
  }

  @Test func theWidthBoundsTheGrowth() throws {
    let table = try Table(PageTableOptions(inputBits: 48), allocator: nil)
    try table.map(range((1 << 48) - Self.page), to: PhysicalAddress(0), access: .read)
    let levels = table.facts.levels
    #expect(levels == 4)
    #expect(throws: Failure.outOfRange) {
      try table.map(self.range(1 << 48), to: PhysicalAddress(0), access: .read)
    }
  }

  /// Threads that make the root grow beside each other, and one that reads.
  @Test func threadsThatGrowTheRootLoseNothing() throws {
    for _ in 0..<RunSettings.steps(20) {
      let table = SharedTable(try Table(levels: 1, allocator: nil))
      try onThreads(3) { thread in
        for level in 1...5 {
          let first = UInt64(1) << UInt64(12 + 9 * level) + UInt64(thread) << 12
          let range = try IOVARange(first: IOVA(first), size: 4096)
          try table.value.map(range, to: PhysicalAddress(UInt64(thread + 1) << 12), access: .read)
          let found = table.value.lookUp(IOVA(first))
          #expect(found.target == UInt64(thread + 1) << 12)
        }
      }
      let statistics = table.value.statistics
      #expect(statistics.mappedBytes == 15 * 4096)
    }
  }

  private final class SharedTable: @unchecked Sendable {
    let value: Table

    init(_ table: consuming Table) { value = table }
  }
}
