// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

@Suite("PageTable: unmap")
struct PageTableUnmapTests {
  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 1 << 21
  private static let huge: UInt64 = 1 << 30

  private typealias Table = PageTable<VTdSecondStage>

  /// A table with a page at 0, a hole, pages 2 and 3, and a large leaf behind the first table.
  private func makeTable() throws -> Table {
    let table = try Table(levels: 4, allocator: nil)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x10000), access: .read)
    try table.map(range(2 * Self.page, 2 * Self.page), to: PhysicalAddress(0), access: .read)
    try table.map(range(Self.large, Self.large), to: PhysicalAddress(0), access: .write)
    return table
  }

  private func range(_ first: UInt64, _ size: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first), size: size)
  }

  private func unmap(
    _ table: borrowing Table, _ first: UInt64, _ size: UInt64, crossingHoles: Bool = false
  ) throws -> UInt64 {
    try table.unmap(range(first, size), crossingHoles: crossingHoles)
  }

  @Test func whatIsUnmappedIsFoundNoMore() throws {
    let table = try makeTable()
    #expect(try unmap(table, 2 * Self.page, Self.page) == Self.page)
    let found = table.leafLines()
    #expect(
      found == [
        "L3[0] L2[0] L1[0] L0[0] 0x10000 r", "L3[0] L2[0] L1[0] L0[3] 0x1000 r",
        "L3[0] L2[0] L1[1] 0x0 w",
      ])
    let isMapped = table.lookUp(IOVA(2 * Self.page)).isMapped
    #expect(!isMapped)
  }

  @Test func unmapStopsAtTheFirstHole() throws {
    let table = try makeTable()
    #expect(try unmap(table, 0, 4 * Self.page) == Self.page)
    #expect(try unmap(table, 0, 4 * Self.page) == 0)
    let isMapped = table.lookUp(IOVA(2 * Self.page)).isMapped
    #expect(isMapped)
  }

  @Test func aHoleInAnUpperTableIsAHoleAsWell() throws {
    let table = try makeTable()
    try table.map(range(3 * Self.large, Self.large), to: PhysicalAddress(0), access: .read)
    #expect(try unmap(table, Self.large, 4 * Self.large) == Self.large)
    #expect(try unmap(table, Self.large, 4 * Self.large, crossingHoles: true) == Self.large)
  }

  @Test func unmapCrossesHolesWhenToldTo() throws {
    let table = try makeTable()
    #expect(
      try unmap(table, 0, 1 << 40, crossingHoles: true) == 3 * Self.page + Self.large)
    let found = table.leafLines()
    #expect(found.isEmpty)
    let mapped = table.statistics.mappedBytes
    #expect(mapped == 0)
  }

  @Test func unmappingNothingIsZeroBytes() throws {
    let table = try makeTable()
    #expect(try unmap(table, 1 << 40, Self.page) == 0)
    #expect(try unmap(table, Self.page, Self.page) == 0)
    #expect(try unmap(table, 1 << 40, 1 << 41, crossingHoles: true) == 0)
  }

  @Test(arguments: [true, false])
  func cuttingALargerLeafIsRefusedAndUnmapsNothing(crossingHoles: Bool) throws {
    let table = try makeTable()
    try table.map(range(Self.huge, Self.huge), to: PhysicalAddress(0), access: .read)
    let before = table.leafLines()
    let cuts: [(UInt64, UInt64)] = [
      (Self.large, Self.page), (Self.large + Self.page, Self.page),
      (2 * Self.large - Self.page, Self.page), (2 * Self.large - Self.page, 2 * Self.page),
      // The cut end is far from where unmapping starts, and behind a hole.
      (0, Self.large + Self.page), (Self.large, Self.large + Self.huge),
      (Self.huge, Self.large), (2 * Self.huge - Self.large, Self.huge),
    ]
    for (first, size) in cuts {
      #expect(throws: Failure.notSupported) {
        try self.unmap(table, first, size, crossingHoles: crossingHoles)
      }
    }
    let after = table.leafLines()
    #expect(after == before)
    let mapped = table.statistics.mappedBytes
    #expect(mapped == 3 * Self.page + Self.large + Self.huge)
  }

  @Test func aWholeLeafIsUnmappedByAnyRangeThatHoldsIt() throws {
    let table = try makeTable()
    #expect(try unmap(table, Self.large, Self.large) == Self.large)
    try table.map(range(Self.large, Self.large), to: PhysicalAddress(0), access: .write)
    #expect(try unmap(table, Self.large, Self.large + Self.page) == Self.large)
    try table.map(range(Self.large, Self.large), to: PhysicalAddress(0), access: .write)
    #expect(try unmap(table, 0, 2 * Self.large, crossingHoles: true) == 3 * Self.page + Self.large)
  }

  @Test func whatIsNotAlignedIsRefused() throws {
    let table = try makeTable()
    for (first, size) in [(1, 4096), (0, 4095), (2048, 4096)] as [(UInt64, UInt64)] {
      #expect(throws: Failure.invalidArgument) { try self.unmap(table, first, size) }
    }
  }

  @Test func unmapFreesNoTable() throws {
    let pages = TablePages()
    let table = try Table(levels: 4, allocator: pages.allocator)
    try table.map(range(0, Self.page), to: PhysicalAddress(0), access: .read)
    pages.failAfter(0)
    #expect(try unmap(table, 0, Self.page) == Self.page)
    #expect(pages.liveCount == 4)
    // The tables serve the next mapping there.
    try table.map(range(Self.page, Self.page), to: PhysicalAddress(0), access: .read)
  }
}
