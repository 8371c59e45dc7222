// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import TestSupport
import Testing

@testable import PageTables

/// The codec, bit by bit, as the specification's tables of second-stage entries have it. The names
/// of levels are the library's: 0 has the leaves of 4 KiB.
@Suite("VTdSecondStage")
struct VTdSecondStageTests {
  private static let addressBits: UInt64 = 0x000F_FFFF_FFFF_F000

  private func decode(_ word: UInt64, at level: Int) -> TableEntry {
    VTdSecondStage.decode(word, at: level)
  }

  @Test func tablesAre512WordsOfOnePage() {
    #expect(VTdSecondStage.granule == Granule(shift: 12))
    #expect(VTdSecondStage.indexBits == 9)
    #expect(VTdSecondStage.levelCounts == 3...5)
    #expect(VTdSecondStage.outputBits == 52)
  }

  @Test func widthsAre39And48And57Bits() {
    #expect(VTdSecondStage.lastInput(levels: 3) == (1 << 39) - 1)
    #expect(VTdSecondStage.lastInput(levels: 4) == (1 << 48) - 1)
    #expect(VTdSecondStage.lastInput(levels: 5) == (1 << 57) - 1)
    #expect(VTdSecondStage.lastOutput == (1 << 52) - 1)
  }

  @Test func leavesAre4KiBAnd2MiBAnd1GiB() {
    #expect((0...4).map { VTdSecondStage.hasLeaf(at: $0) } == [true, true, true, false, false])
    #expect((0...2).map { VTdSecondStage.spanMask(at: $0) + 1 } == [1 << 12, 1 << 21, 1 << 30])
  }

  @Test func aLeafIsItsAddressItsPermissionsAndThePageSizeBit() {
    let output = PhysicalAddress(0x000F_FFFF_C000_0000)
    #expect(VTdSecondStage.leaf(output, .read, at: 0) == 0x000F_FFFF_C000_0001)
    #expect(VTdSecondStage.leaf(output, .write, at: 0) == 0x000F_FFFF_C000_0002)
    #expect(VTdSecondStage.leaf(output, [.read, .write], at: 0) == 0x000F_FFFF_C000_0003)
    #expect(VTdSecondStage.leaf(output, [.read, .write], at: 1) == 0x000F_FFFF_C000_0083)
    #expect(VTdSecondStage.leaf(output, .read, at: 2) == 0x000F_FFFF_C000_0081)
  }

  @Test func aTableEntryPermitsEverything() {
    #expect(VTdSecondStage.table(PhysicalAddress(0x1234_5000)) == 0x1234_5003)
  }

  @Test func anEntryWithoutPermissionsIsEmptyWhateverElseItHas() throws {
    try withEvery("level", in: 0...4) { level in
      try withEvery("bit", in: 2..<64) { bit in
        try demandSame(decode(1 << UInt64(bit), at: level), .empty, "entry")
      }
      try demandSame(decode(UInt64.max << 2, at: level), .empty, "entry of all other bits")
    }
  }

  @Test func theLowestTwoBitsPermit() {
    #expect(decode(1, at: 0) == .leaf(PhysicalAddress(0), .read))
    #expect(decode(2, at: 0) == .leaf(PhysicalAddress(0), .write))
    #expect(decode(3, at: 0) == .leaf(PhysicalAddress(0), [.read, .write]))
  }

  /// Each bit of a word of the lowest level: part of the address, or of no effect.
  @Test func atTheLowestLevelBits12To51AreTheAddressAndTheOthersAreIgnored() throws {
    try withEvery("bit", in: 2..<64) { bit in
      let word = UInt64(1) << UInt64(bit)
      let address = (12...51).contains(bit) ? word : 0
      try demandSame(
        decode(word | 1, at: 0), .leaf(PhysicalAddress(address), .read), "entry")
    }
  }

  @Test func withoutThePageSizeBitAnUpperEntryIsATable() throws {
    try withEvery("level", in: 1...4) { level in
      try withEvery("bit", in: [2, 3, 4, 5, 6] + Array(8..<64)) { bit in
        let word = UInt64(1) << UInt64(bit)
        let address = (12...51).contains(bit) ? word : 0
        try demandSame(
          decode(word | 3, at: level), .table(PhysicalAddress(address)), "entry")
      }
    }
  }

  /// With page size set, the bits between 12 and the leaf's own size must be zero.
  @Test func anAddressThatIsNotAMultipleOfTheLeafIsReserved() throws {
    try withEvery("level", in: 1...2) { level in
      try withEvery("bit", in: 12...51) { bit in
        let word = UInt64(1) << UInt64(bit)
        let expected: TableEntry =
          bit < 12 + 9 * level ? .reserved : .leaf(PhysicalAddress(word), .write)
        try demandSame(decode(word | 1 << 7 | 2, at: level), expected, "entry")
      }
    }
  }

  @Test func thePageSizeBitIsReservedWhereNoLeafIs() {
    #expect(decode(0x83, at: 3) == .reserved)
    #expect(decode(0x83, at: 4) == .reserved)
    #expect(decode(0x81 | Self.addressBits, at: 3) == .reserved)
  }

  @Test func whatCanBeExpressedIsReadOrWriteOrBoth() {
    #expect(!VTdSecondStage.canExpress([]))
    #expect(VTdSecondStage.canExpress(.read))
    #expect(VTdSecondStage.canExpress(.write))
    #expect(VTdSecondStage.canExpress([.read, .write]))
    #expect(!VTdSecondStage.canExpress(Access(rawValue: 4)))
    #expect(!VTdSecondStage.canExpress(Access(rawValue: 5)))
  }
}
