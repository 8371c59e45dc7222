// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Testing

@testable import PageTables

@Suite("PageTable: translate")
struct PageTableTranslateTests {
  private static let large: UInt64 = 1 << 21
  private static let huge: UInt64 = 1 << 30

  private func makeTable() throws -> PageTable<VTdSecondStage> {
    let table = try PageTable<VTdSecondStage>(levels: 4, allocator: nil)
    try table.map(
      IOVARange(first: IOVA(0x1000), size: 0x1000), to: PhysicalAddress(0x9000), access: .read)
    try table.map(
      IOVARange(first: IOVA(Self.large), size: Self.large), to: PhysicalAddress(3 * Self.large),
      access: .write)
    try table.map(
      IOVARange(first: IOVA(Self.huge), size: Self.huge), to: PhysicalAddress(5 * Self.huge),
      access: [.read, .write])
    return table
  }

  private func expect(
    _ found: PageTableLookup, _ first: UInt64, _ last: UInt64, to target: UInt64, _ access: Access,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(
      [found.first, found.last, found.target] == [first, last, target],
      sourceLocation: sourceLocation)
    #expect(found.access == access, sourceLocation: sourceLocation)
    #expect(found.isMapped == !access.isEmpty, sourceLocation: sourceLocation)
  }

  @Test func anAddressFindsTheWholeLeafThatItLiesIn() throws {
    let table = try makeTable()
    for address in [0x1000, 0x1234, 0x1FFF] as [UInt64] {
      expect(table.lookUp(IOVA(address)), 0x1000, 0x1FFF, to: 0x9000, .read)
    }
    for address in [Self.large, Self.large + 0x12345, 2 * Self.large - 1] {
      expect(
        table.lookUp(IOVA(address)), Self.large, 2 * Self.large - 1, to: 3 * Self.large, .write)
    }
    for address in [Self.huge, 2 * Self.huge - 1] {
      expect(
        table.lookUp(IOVA(address)), Self.huge, 2 * Self.huge - 1, to: 5 * Self.huge,
        [.read, .write])
    }
  }

  @Test func anAddressThatIsNotMappedFindsTheHoleOfItsEntry() throws {
    let table = try makeTable()
    expect(table.lookUp(IOVA(0)), 0, 0xFFF, to: 0, [])
    expect(table.lookUp(IOVA(2 * Self.large)), 2 * Self.large, 3 * Self.large - 1, to: 0, [])
    expect(table.lookUp(IOVA(2 * Self.huge)), 2 * Self.huge, 3 * Self.huge - 1, to: 0, [])
    expect(table.lookUp(IOVA(1 << 40)), 1 << 40, (1 << 40) + (1 << 39) - 1, to: 0, [])
  }

  @Test func addressesAboveTheTableAreOneHole() throws {
    let table = try makeTable()
    expect(table.lookUp(IOVA(1 << 48)), 1 << 48, UInt64.max, to: 0, [])
    expect(table.lookUp(IOVA(UInt64.max)), 1 << 48, UInt64.max, to: 0, [])
  }
}
