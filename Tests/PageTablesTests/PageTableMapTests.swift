// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

@Suite("PageTable: map")
struct PageTableMapTests {
  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 1 << 21
  private static let huge: UInt64 = 1 << 30

  private func range(_ first: UInt64, _ size: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first), size: size)
  }

  @Test func pagesGoToTheEntriesOfTheirAddresses() throws {
    try check(
      VTdSecondStage.self, map: ["0x1000+0x2000 -> 0x8000 rw"],
      yields: """
        L3[0] L2[0] L1[0] L0[1] 0x8000 rw
        L3[0] L2[0] L1[0] L0[2] 0x9000 rw
        """)
  }

  @Test func everyLevelOfTheAddressIsAnIndex() throws {
    try check(
      VTdSecondStage.self, levels: 5,
      map: ["0x1008040201000+0x1000 -> 0x0 r", "0x1fffffffffff000+0x1000 -> 0x1000 w"],
      yields: """
        L4[1] L3[1] L2[1] L1[1] L0[1] 0x0 r
        L4[511] L3[511] L2[511] L1[511] L0[511] 0x1000 w
        """)
  }

  @Test func alignedStretchesBecomeLargerLeaves() throws {
    try check(
      VTdSecondStage.self, levels: 3, map: ["0x1ff000+0x40002000 -> 0x1ff000 r"],
      yields: (["L2[0] L1[0] L0[511] 0x1ff000 r"]
        + (1..<512).map { "L2[0] L1[\($0)] \(hex(UInt64($0) << 21)) r" }
        + ["L2[1] L1[0] 0x40000000 r", "L2[1] L1[1] L0[0] 0x40200000 r"])
        .joined(separator: "\n"))
  }

  @Test func aRangeMayCrossTables() throws {
    try check(
      VTdSecondStage.self, levels: 3, map: ["0x3ffff000+0x2000 -> 0x7000 rw"],
      yields: """
        L2[0] L1[511] L0[511] 0x7000 rw
        L2[1] L1[0] L0[0] 0x8000 rw
        """)
  }

  @Test func mappingOverSomethingMappedIsRefusedAndChangesNothing() throws {
    let table = try PageTable<VTdSecondStage>(levels: 3, allocator: nil)
    try table.map(range(Self.large, Self.page), to: PhysicalAddress(0x5000), access: .read)
    try table.map(range(4 * Self.large, Self.large), to: PhysicalAddress(0), access: .read)
    let before = table.leafLines()
    let tables = table.statistics.tableCount
    let overlaps: [(UInt64, UInt64)] = [
      // The page itself; ranges that start, end, or lie around there.
      (Self.large, Self.page), (Self.large - Self.page, 2 * Self.page),
      (Self.large, Self.large), (0, Self.huge),
      // The large leaf: whole, in its middle, at its ends.
      (4 * Self.large, Self.large), (4 * Self.large + 7 * Self.page, Self.page),
      (4 * Self.large - Self.page, 2 * Self.page), (5 * Self.large - Self.page, 2 * Self.page),
    ]
    for (first, size) in overlaps {
      #expect(throws: Failure.exists) {
        try table.map(self.range(first, size), to: PhysicalAddress(0), access: .write)
      }
    }
    let after = table.leafLines()
    #expect(after == before)
    let statistics = table.statistics
    #expect(statistics.tableCount == tables)
    #expect(statistics.mappedBytes == Self.page + Self.large)
  }

  @Test func whatIsNotAlignedIsRefused() throws {
    let table = try PageTable<VTdSecondStage>(levels: 3, allocator: nil)
    for (first, size, target) in [(1, 4096, 0), (4096, 4095, 0), (2048, 4096, 0), (0, 4096, 2048)] {
      #expect(throws: Failure.invalidArgument) {
        try table.map(
          self.range(UInt64(first), UInt64(size)), to: PhysicalAddress(UInt64(target)),
          access: .read)
      }
    }
  }

  @Test func theOutputMustFitTheFormat() throws {
    let table = try PageTable<VTdSecondStage>(levels: 5, allocator: nil)
    let end: UInt64 = 1 << 52
    for (size, target) in [(Self.page, end), (2 * Self.page, end - Self.page), (end, end)] {
      #expect(throws: Failure.outOfRange) {
        try table.map(self.range(0, size), to: PhysicalAddress(target), access: .read)
      }
    }
    try table.map(range(0, Self.page), to: PhysicalAddress(end - Self.page), access: .read)
    let target = table.lookUp(IOVA(0)).target
    #expect(target == end - Self.page)
  }

  /// Each number of tables that an allocator may have left: too few change nothing, and enough are
  /// as many as the call needs.
  @Test func aCallWithTooFewTablesChangesNothing() throws {
    let pages = TablePages()
    let table = try PageTable<VTdSecondStage>(levels: 5, allocator: pages.allocator)
    try table.map(range(0, Self.page), to: PhysicalAddress(0), access: .read)
    let before = (table.leafLines(), pages.liveCount)
    // Across the border of two entries of the root: four tables on each side, of which the first
    // four are there already on one.
    let crossing = try range((1 << 48) - Self.page, 2 * Self.page)
    var needed = 0
    while true {
      pages.failAfter(needed)
      do throws(Failure) {
        try table.map(crossing, to: PhysicalAddress(0), access: .write)
        break
      } catch {
        #expect(error == .noMemory)
        let found = table.leafLines()
        #expect(found == before.0)
        #expect(pages.liveCount == before.1)
        needed += 1
      }
    }
    // The first page shares the table of the root's entry 0 alone.
    #expect(needed == 3 + 4)
    #expect(pages.misuses.isEmpty)
  }

  @Test func tablesAreSharedByWhatLiesInThem() throws {
    let pages = TablePages()
    let table = try PageTable<VTdSecondStage>(levels: 4, allocator: pages.allocator)
    try table.map(range(0, Self.page), to: PhysicalAddress(0), access: .read)
    #expect(pages.liveCount == 4)
    try table.map(range(511 * Self.page, Self.page), to: PhysicalAddress(0), access: .read)
    #expect(pages.liveCount == 4)
    try table.map(range(512 * Self.page, Self.page), to: PhysicalAddress(0), access: .read)
    #expect(pages.liveCount == 5)
    let statistics = table.statistics
    #expect(statistics.tableCount == 5)
    #expect(statistics.tableBytes == 5 * 4096)
  }

  @Test func whatTheCallerKnowsToBeFreeIsMappedWithoutAQuestion() throws {
    let table = try PageTable<VTdSecondStage>(levels: 3, allocator: nil)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x1000), access: .read)
    try table.map(
      range(0, Self.page), to: PhysicalAddress(0x2000), access: .write, isKnownFree: true)
    let found = table.leafLines()
    #expect(found == ["L2[0] L1[0] L0[0] 0x2000 w"])
  }
}
