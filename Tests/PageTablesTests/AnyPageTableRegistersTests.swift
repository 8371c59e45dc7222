// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import PageTables
import Primitives
import TestSupport
import Testing

/// What hardware has to be told of tables, against values that were worked out by hand from the
/// descriptions of the registers.
@Suite("AnyPageTable: registers")
struct AnyPageTableRegistersTests {
  private static let root: UInt64 = 0x50_0000_0000

  private func table(
    _ kind: PageTableKind, granule: UInt64 = 0, levels: Int = 0, inputBits: Int = 0,
    outputBits: Int = 0, _ features: PageTableFeatures = [], root: UInt64 = Self.root
  ) throws -> AnyPageTable {
    let pages = TablePages(firstPhysical: root)
    // From its first page on the table keeps them alive.
    defer { withExtendedLifetime(pages) {} }
    return try AnyPageTable(
      PageTableConfiguration(
        kind: kind, granule: granule,
        options: PageTableOptions(
          levels: levels, inputBits: inputBits, outputBits: outputBits, features: features),
        allocator: pages.allocator))
  }

  @Test(arguments: [(3, 1), (4, 2), (5, 3)])
  func theAddressWidthOfVTdIsTwoLessThanTheLevels(levels: Int, width: UInt32) throws {
    let told = try table(.vtdSecondStage, levels: levels, outputBits: 46).vtd()
    #expect(told.address_width == width)
    #expect(told.root == Self.root)
    #expect(told.host_address_bits == 46)
  }

  @Test(arguments: [(4, 0), (5, 1)])
  func thePagingModeOfX86IsTheFifthLevel(levels: Int, mode: UInt32) throws {
    let told = try table(.x86_64, levels: levels, .signedInput).x86_64()
    #expect(told.paging_mode == mode)
    #expect(told.root == Self.root)
  }

  @Test(arguments: 1...6)
  func theModeOfAMDIsTheLevels(levels: Int) throws {
    let told = try table(.amdV1, levels: levels).amdV1()
    #expect(told.mode == UInt32(levels))
    #expect(told.device_table_entry == 0x6000_0050_0000_0003 | UInt64(levels) << 9)
  }

  @Test(arguments: [(32, 0), (36, 1), (40, 2), (42, 3), (44, 4), (48, 5), (52, 6)])
  func theWidthOfARMsOutputsIsEncoded(bits: Int, code: UInt32) throws {
    // One that the narrowest can address.
    let root: UInt64 = 0x5000_0000
    let first = try table(.arm64Stage1, granule: 65536, outputBits: bits, root: root)
      .arm64Stage1()
    #expect(first.ips == code)
    #expect(first.tcr >> 32 == UInt64(code))
    let second = try table(
      .arm64Stage2, granule: 65536, inputBits: 32, outputBits: bits, root: root
    )
    .arm64Stage2()
    #expect(second.ps == code)
    #expect(second.vtcr >> 16 & 7 == UInt64(code))
  }

  @Test(arguments: [
    // Granule, levels, bits of input; SL0, the level of the root, its tables.
    (4096, 4, 48, 2, 0, 1), (4096, 3, 39, 1, 1, 1), (4096, 3, 40, 1, 1, 2), (4096, 3, 43, 1, 1, 16),
    (4096, 2, 32, 0, 2, 4), (16384, 3, 47, 2, 1, 1), (16384, 3, 48, 2, 1, 2),
    (16384, 2, 40, 1, 2, 16), (65536, 3, 48, 2, 1, 1), (65536, 2, 42, 1, 2, 1),
    (65536, 2, 46, 1, 2, 16),
  ])
  func theRootOfARMsSecondStageIsEncoded(
    granule: UInt64, levels: Int, bits: Int, code: UInt32, start: UInt32, tables: UInt32
  ) throws {
    let told = try table(.arm64Stage2, granule: granule, levels: levels, inputBits: bits)
      .arm64Stage2()
    #expect(told.sl0 == code)
    #expect(told.vtcr >> 6 & 3 == UInt64(code))
    #expect(told.start_level == start)
    #expect(told.table_count == tables)
    #expect(told.t0sz == UInt32(64 - bits))
    #expect(told.vttbr == Self.root)
  }

  @Test func ARMNotesAccessesAndWritesWhereTheTableReliesOnThat() throws {
    #expect(try table(.arm64Stage1, .dirty).arm64Stage1().tcr >> 39 == 3)
    #expect(try table(.arm64Stage1).arm64Stage1().tcr >> 39 == 0)
    #expect(try table(.arm64Stage2, .dirty).arm64Stage2().vtcr >> 21 & 3 == 3)
    #expect(try table(.arm64Stage2).arm64Stage2().vtcr >> 21 & 3 == 0)
    #expect(try table(.amdV1, .dirty).amdV1().host_access_dirty == 3)
  }

  @Test(arguments: [(3, 8), (4, 9), (5, 10)])
  func theModeOfRISCVCountsLevels(levels: Int, mode: UInt32) throws {
    let value = UInt64(mode) << 60 | 0x500_0000
    #expect(try table(.riscvFirstStage, levels: levels).riscv().value == value)
    let second = try table(.riscvSecondStage, levels: levels).riscv()
    #expect(second.value == value)
    #expect(second.is_second_stage == 1)
  }

  @Test func tablesOfOtherFormatsAreNotSupported() throws {
    #expect(throws: Failure.notSupported) { try self.table(.amdV1).vtd() }
    #expect(throws: Failure.notSupported) { try self.table(.vtdSecondStage).riscv() }
    #expect(throws: Failure.notSupported) { try self.table(.arm64Stage1).arm64Stage2() }
  }
}
