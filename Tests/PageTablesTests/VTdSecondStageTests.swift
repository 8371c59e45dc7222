// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// The codec, bit by bit, as the specification's tables of second-stage entries have it. The names
/// of levels are the library's: 0 has the leaves of 4 KiB.
@Suite("VTdSecondStage")
struct VTdSecondStageTests {
  private static let addressBits: UInt64 = 0x000F_FFFF_FFFF_F000

  private func format(
    levels: Int = 5, _ features: PageTableFeatures = []
  ) throws -> VTdSecondStage {
    try VTdSecondStage(PageTableOptions(levels: levels, features: features))
  }

  private func decode(_ word: UInt64, at level: Int) throws -> TableEntry {
    try format().decode(word, at: level)
  }

  @Test func tablesAre512WordsOfOnePage() {
    #expect(VTdSecondStage.standard.granule == Granule(shift: 12))
    #expect(VTdSecondStage.standard.indexBits == 9)
  }

  @Test func widthsAre39And48And57Bits() throws {
    #expect(try (3...5).map { try format(levels: $0).geometry.inputBits } == [39, 48, 57])
    #expect(try (3...5).map { try format(levels: $0).geometry.levelsMax } == [3, 4, 5])
    #expect(try format().geometry.outputBits == 52)
    #expect(try VTdSecondStage(PageTableOptions()).geometry.levels == 4)
  }

  @Test func whatTheFormatLacksIsRefused() {
    for options in [
      PageTableOptions(levels: 2), PageTableOptions(levels: 6), PageTableOptions(inputBits: 47),
      PageTableOptions(outputBits: 53), PageTableOptions(outputBits: 31),
    ] {
      #expect(throws: Failure.invalidArgument) { try VTdSecondStage(options) }
    }
    for bit in [4, 8, 16, 1 << 31] as [UInt32] {
      let features = PageTableFeatures(rawValue: bit)
      #expect(throws: Failure.notSupported) { try self.format(features) }
    }
  }

  @Test func leavesAre4KiBAnd2MiBAnd1GiB() throws {
    #expect(try (0...4).map { try format().leafOrders(at: $0) } == [1, 1, 1, 0, 0])
    #expect(
      (0...2).map { VTdSecondStage.standard.spanMask(at: $0) + 1 } == [1 << 12, 1 << 21, 1 << 30])
  }

  @Test func aLeafIsItsAddressItsPermissionsAndThePageSizeBit() throws {
    let output: UInt64 = 0x000F_FFFF_C000_0000
    let format = try format()
    #expect(format.leaf(output, .read, at: 0) == 0x000F_FFFF_C000_0001)
    #expect(format.leaf(output, .write, at: 0) == 0x000F_FFFF_C000_0002)
    #expect(format.leaf(output, [.read, .write], at: 0) == 0x000F_FFFF_C000_0003)
    #expect(format.leaf(output, [.read, .write], at: 1) == 0x000F_FFFF_C000_0083)
    #expect(format.leaf(output, .read, at: 2) == 0x000F_FFFF_C000_0081)
  }

  @Test func aCoherentLeafSnoops() throws {
    let format = try format(.coherence)
    #expect(format.leaf(0, [.read, .cacheable], at: 0) == 0x801)
    #expect(format.decode(0x801, at: 0) == .leaf(0, [.read, .cacheable]))
    // Without the feature the bit says nothing.
    #expect(try decode(0x801, at: 0) == .leaf(0, .read))
  }

  @Test func whereItIsNotedBit9SaysThatALeafWasWrittenThrough() throws {
    let format = try format(.dirty)
    #expect(!format.isDirty(3))
    #expect(format.isDirty(0x203))
    #expect(format.settingDirty(3, true) == 0x203)
    #expect(format.settingDirty(0x203, false) == 3)
    try checkDirty(of: format, isNoted: true)
    try checkDirty(of: self.format(), isNoted: false)
  }

  @Test func aTableEntryPermitsEverything() throws {
    #expect(try format().table(PhysicalAddress(0x1234_5000), at: 0) == 0x1234_5003)
  }

  @Test func anEntryWithoutPermissionsIsEmptyWhateverElseItHas() throws {
    try withEvery("level", in: 0...4) { level in
      try withEvery("bit", in: 2..<64) { bit in
        try demandSame(decode(1 << UInt64(bit), at: level), .empty, "entry")
      }
      try demandSame(decode(UInt64.max << 2, at: level), .empty, "entry of all other bits")
    }
  }

  @Test func theLowestTwoBitsPermit() throws {
    #expect(try decode(1, at: 0) == .leaf(0, .read))
    #expect(try decode(2, at: 0) == .leaf(0, .write))
    #expect(try decode(3, at: 0) == .leaf(0, [.read, .write]))
  }

  /// Each bit of a word of the lowest level: part of the address, or of no effect.
  @Test func atTheLowestLevelBits12To51AreTheAddressAndTheOthersAreIgnored() throws {
    try withEvery("bit", in: 2..<64) { bit in
      let word = UInt64(1) << UInt64(bit)
      let address = (12...51).contains(bit) ? word : 0
      try demandSame(
        decode(word | 1, at: 0), .leaf(address, .read), "entry")
    }
  }

  @Test func withoutThePageSizeBitAnUpperEntryIsATable() throws {
    try withEvery("level", in: 1...4) { level in
      try withEvery("bit", in: [2, 3, 4, 5, 6] + Array(8..<64)) { bit in
        let word = UInt64(1) << UInt64(bit)
        let address = (12...51).contains(bit) ? word : 0
        try demandSame(
          decode(word | 3, at: level), .table(address), "entry")
      }
    }
  }

  /// With page size set, the bits between 12 and the leaf's own size must be zero.
  @Test func anAddressThatIsNotAMultipleOfTheLeafIsReserved() throws {
    try withEvery("level", in: 1...2) { level in
      try withEvery("bit", in: 12...51) { bit in
        let word = UInt64(1) << UInt64(bit)
        let expected: TableEntry =
          bit < 12 + 9 * level ? .reserved : .leaf(word, .write)
        try demandSame(decode(word | 1 << 7 | 2, at: level), expected, "entry")
      }
    }
  }

  @Test func addressBitsAboveTheHostAddressWidthAreReservedInPresentEntriesOfEveryLevel() throws {
    try withEvery("host address width", in: [32, 39, 46, 51, 52]) { outputBits in
      let format = try VTdSecondStage(PageTableOptions(levels: 5, outputBits: outputBits))
      try withEvery("level", in: 0...4) { level in
        try withEvery("bit", in: outputBits..<64) { bit in
          let word = UInt64(1) << UInt64(bit)
          let isReserved = format.decode(word | 1, at: level) == .reserved
          try demandSame(isReserved, bit < 52, "entry")
          try demandSame(format.decode(word, at: level), .empty, "entry that is not present")
        }
      }
      try checkCodec(of: format)
    }
  }

  @Test func thePageSizeBitIsReservedWhereNoLeafIs() throws {
    #expect(try decode(0x83, at: 3) == .reserved)
    #expect(try decode(0x83, at: 4) == .reserved)
    #expect(try decode(0x81 | Self.addressBits, at: 3) == .reserved)
  }

  @Test func whatCanBeExpressedIsReadOrWriteOrBoth() throws {
    for access in allAccesses {
      let isTransfer = !access.isEmpty && access.isSubset(of: .transfers)
      #expect(try format().canExpress(access) == isTransfer)
      let isCoherent =
        !access.subtracting(.cacheable).isEmpty
        && access.isSubset(of: [.read, .write, .cacheable])
      #expect(try format(.coherence).canExpress(access) == isCoherent)
    }
  }

  @Test func theCodecKeepsWhatEveryFormatHasToKeep() throws {
    try checkCodec(of: format())
    try checkCodec(of: format(levels: 3, [.coherence, .dirty]))
  }
}
