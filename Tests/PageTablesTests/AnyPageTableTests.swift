// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import PageTables
import Primitives
import TestSupport
import Testing

@Suite("AnyPageTable")
struct AnyPageTableTests {
  private func configuration(
    levels: Int, pages: TablePages? = nil
  ) throws -> PageTableConfiguration {
    try PageTableConfiguration(
      kind: .vtdSecondStage, options: PageTableOptions(levels: levels), allocator: pages?.allocator)
  }

  @Test func zeroLevelsAreFour() throws {
    let facts = try AnyPageTable(configuration(levels: 0)).facts
    #expect(facts.levels == 4)
  }

  @Test(arguments: [1, 2, 6, Int(UInt32.max)])
  func numbersOfLevelsThatTheFormatLacksAreRefused(_ levels: Int) {
    #expect(throws: Failure.invalidArgument) { try self.configuration(levels: levels) }
  }

  @Test func theFormatsHaveTheNumbersOfTheHeader() {
    #expect(PageTableKind(rawValue: 1) == .vtdSecondStage)
    #expect(PageTableKind(rawValue: 0) == nil)
    #expect(PageTableKind(rawValue: 7) == .riscvSecondStage)
    #expect(PageTableKind(rawValue: 8) == nil)
  }

  /// Each call reaches the table behind it.
  @Test func everyCallIsThatOfTheTable() throws {
    let pages = TablePages(firstPhysical: 0x50_0000_0000)
    do {
      let table = try AnyPageTable(configuration(levels: 3, pages: pages))
      let large: UInt64 = 1 << 21
      let page = try IOVARange(first: IOVA(0), size: 4096)
      let facts = table.facts
      #expect(facts.lastInput == IOVA((1 << 39) - 1))
      #expect(facts.lastOutput == PhysicalAddress((1 << 52) - 1))
      #expect(facts.granule == Granule(shift: 12))
      #expect(facts.root == PhysicalAddress(0x50_0000_0000))
      #expect(facts.levels == 3)
      try table.map(page, to: PhysicalAddress(0x9000), access: .write)
      #expect(table.lookUp(IOVA(0x123)).target == 0x9000)
      #expect(throws: Failure.exists) {
        try table.map(page, to: PhysicalAddress(0), access: .read)
      }
      try table.map(page, to: PhysicalAddress(0xA000), access: .read, isKnownFree: true)
      #expect(table.lookUp(IOVA(0)).target == 0xA000)
      #expect(try table.unmap(page, crossingHoles: false) == 4096)
      try table.map(
        IOVARange(first: IOVA(0), size: large), to: PhysicalAddress(0), access: .read)
      #expect(table.retiredTables == 1)
      #expect(table.statistics.tableCount == 3)
      table.reclaim(after: {})
      #expect(table.statistics.tableCount == 2)
    }
    #expect(pages.liveCount == 0)
  }
}
