// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

@Suite("PageTable: retired tables")
struct RetiredTablesTests {
  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 1 << 21
  private static let huge: UInt64 = 1 << 30

  private typealias Table = PageTable<VTdSecondStage>

  private func range(_ first: UInt64, _ size: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first), size: size)
  }

  /// Maps and unmaps a page, which leaves an empty table there.
  private func leaveTable(at first: UInt64, in table: borrowing Table) throws {
    try table.map(range(first, Self.page), to: PhysicalAddress(0), access: .read)
    _ = try table.unmap(range(first, Self.page), crossingHoles: false)
  }

  @Test func aLargerLeafTakesThePlaceOfAnEmptyTable() throws {
    let pages = TablePages()
    let table = try Table(levels: 3, allocator: pages.allocator)
    try leaveTable(at: 0, in: table)
    try table.map(range(0, Self.large), to: PhysicalAddress(0), access: .read)
    let lines = table.leafLines()
    #expect(lines == ["L2[0] L1[0] 0x0 r"])
    let statistics = table.statistics
    #expect(statistics.tableCount == 3)
    #expect(statistics.retiredCount == 1)
  }

  @Test func aRetiredTableIsFreedByReclaimAfterTheWait() throws {
    let pages = TablePages()
    let table = try Table(levels: 3, allocator: pages.allocator)
    try leaveTable(at: 0, in: table)
    try table.map(range(0, Self.large), to: PhysicalAddress(0), access: .read)
    #expect(pages.liveCount == 3)
    var liveAtTheWait = 0
    table.reclaim(after: { liveAtTheWait = pages.liveCount })
    #expect(liveAtTheWait == 3)
    #expect(pages.liveCount == 2)
    let waiting = table.retiredTables
    #expect(waiting == 0)
  }

  @Test func withoutRetiredTablesReclaimWaitsForNothing() throws {
    let table = try Table(levels: 3, allocator: nil)
    try leaveTable(at: 0, in: table)
    var hasWaited = false
    table.reclaim(after: { hasWaited = true })
    #expect(!hasWaited)
  }

  @Test func whatLiesBelowARetiredTableGoesWithIt() throws {
    let pages = TablePages()
    let table = try Table(levels: 4, allocator: pages.allocator)
    for index in UInt64(0)..<5 { try leaveTable(at: index * Self.large, in: table) }
    #expect(pages.liveCount == 3 + 5)
    try table.map(range(0, Self.huge), to: PhysicalAddress(0), access: .read)
    let waiting = table.statistics.retiredCount
    #expect(waiting == 1 + 5)
    #expect(pages.liveCount == 3 + 5)
    table.reclaim(after: {})
    #expect(pages.liveCount == 2)
    #expect(pages.misuses.isEmpty)
  }

  @Test func aRangeRetiresEveryTableThatItsLeavesReplace() throws {
    let pages = TablePages()
    let table = try Table(levels: 3, allocator: pages.allocator)
    for index in UInt64(1)...3 { try leaveTable(at: index * Self.large, in: table) }
    // The ends are no whole leaves, so that the first table stays and a fourth one is made.
    try table.map(
      range(Self.large + Self.page, 3 * Self.large),
      to: PhysicalAddress(Self.large + Self.page), access: .read)
    let waiting = table.retiredTables
    #expect(waiting == 2)
    table.reclaim(after: {})
    // Root, level 1, and those of the two ends.
    #expect(pages.liveCount == 4)
  }

  @Test func aTableWithSomethingInItIsNotReplaced() throws {
    let table = try Table(levels: 3, allocator: nil)
    try table.map(range(5 * Self.page, Self.page), to: PhysicalAddress(0), access: .read)
    #expect(throws: Failure.exists) {
      try table.map(self.range(0, Self.large), to: PhysicalAddress(0), access: .read)
    }
    let waiting = table.retiredTables
    #expect(waiting == 0)
  }

  @Test func aTableThatEndsFreesWhatWaits() throws {
    let pages = TablePages()
    do {
      let table = try Table(levels: 5, allocator: pages.allocator)
      for index in UInt64(0)..<3 { try leaveTable(at: index * Self.large, in: table) }
      try table.map(range(0, Self.large), to: PhysicalAddress(0), access: .read)
      try table.map(range(Self.huge, Self.page), to: PhysicalAddress(0), access: .read)
      #expect(pages.liveCount > 5)
    }
    #expect(pages.liveCount == 0)
    #expect(pages.misuses.isEmpty)
  }
}
