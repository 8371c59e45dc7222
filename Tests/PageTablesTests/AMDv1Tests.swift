// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// The codec, bit by bit, as the specification's figures of I/O page entries have it. The names of
/// levels are the library's: 0 has the leaves of 4 KiB, and is level 1 of the specification.
@Suite("AMDv1")
struct AMDv1Tests {
  private let format: AMDv1
  private let rich: AMDv1

  init() throws {
    format = try AMDv1(PageTableOptions())
    rich = try AMDv1(PageTableOptions(outputBits: 48, features: [.coherence, .dirty]))
  }

  @Test func tablesAre512WordsOfOnePage() {
    #expect(AMDv1.standard.granule == Granule(shift: 12))
    #expect(AMDv1.standard.indexBits == 9)
    #expect(AMDv1.standard.repeatsLeaf)
  }

  @Test func threeLevelsThatGrowToSixAreTheDefault() throws {
    let expected = PageTableGeometry(levels: 3, levelsMax: 6, inputBits: 64, outputBits: 52)
    #expect(format.geometry == expected)
    for levels in 1...6 {
      let found = try AMDv1(PageTableOptions(levels: levels)).geometry
      #expect(
        found == PageTableGeometry(levels: levels, levelsMax: 6, inputBits: 64, outputBits: 52))
    }
  }

  @Test(arguments: [(21, 1), (22, 2), (30, 2), (39, 3), (40, 4), (48, 4), (57, 5), (58, 6)])
  func inputsLimitGrowth(inputBits: Int, levelsMax: Int) throws {
    let geometry = try AMDv1(PageTableOptions(inputBits: inputBits)).geometry
    let expected = PageTableGeometry(
      levels: min(3, levelsMax), levelsMax: levelsMax, inputBits: inputBits, outputBits: 52)
    #expect(geometry == expected)
    #expect(throws: Failure.invalidArgument) {
      try AMDv1(PageTableOptions(levels: levelsMax + 1, inputBits: inputBits))
    }
  }

  @Test func whatHardwareDoesNotHaveIsRefused() {
    let refused = [
      PageTableOptions(levels: 7), PageTableOptions(levels: -1), PageTableOptions(inputBits: 65),
      PageTableOptions(inputBits: 20), PageTableOptions(inputBits: -1),
      PageTableOptions(outputBits: 53), PageTableOptions(outputBits: 31),
    ]
    for options in refused {
      #expect(throws: Failure.invalidArgument) { try AMDv1(options) }
    }
  }

  @Test(arguments: [4, 8, 16, 32, 1 << 31] as [UInt32])
  func featuresOfOtherFormatsAreRefused(bit: UInt32) {
    let options = PageTableOptions(features: PageTableFeatures(rawValue: bit | 1))
    #expect(throws: Failure.notSupported) { try AMDv1(options) }
  }

  @Test func leavesAreEveryPowerOfTwoBelow2To52But512GiB() {
    var sizes: [Int] = []
    for level in 0...5 {
      for order in format.orders(at: level) {
        sizes.append(AMDv1.standard.shift(at: level) + order)
      }
    }
    #expect(sizes == (12...51).filter { $0 != 39 })
  }

  @Test func whatCanBeExpressedIsReadOrWriteOrBothAndCoherenceWithTheFeature() throws {
    for access in allAccesses {
      let plain = !access.isEmpty && access.isSubset(of: [.read, .write])
      let permissions = access.subtracting(.cacheable)
      let coherent = !permissions.isEmpty && permissions.isSubset(of: [.read, .write])
      try demandSame(format.canExpress(access), plain, "\(access)")
      try demandSame(rich.canExpress(access), coherent, "\(access)")
    }
    #expect(!rich.canExpress([.read, Access(rawValue: 64)]))
  }

  /// IR is 2 and IW 4 in the highest digit, FC 1.
  @Test func workedExamplesOfLeavesOfALevelsSize() {
    let output: UInt64 = 0x000F_FFFF_C000_0000
    #expect(format.leaf(output, .read, at: 0) == 0x200F_FFFF_C000_0001)
    #expect(format.leaf(output, .write, at: 1) == 0x400F_FFFF_C000_0001)
    #expect(format.leaf(output, [.read, .write], at: 2) == 0x600F_FFFF_C000_0001)
    #expect(rich.leaf(0, [.read, .write, .cacheable], at: 0) == 0x7000_0000_0000_0001)
    #expect(rich.leaf(0, [.read, .cacheable], at: 0) == 0x3000_0000_0000_0001)
    #expect(format.leaf(1 << 48, .read, at: 4) == 0x2001_0000_0000_0001)
  }

  /// Next Level 7 is 0xE00. 8 KiB ends in 0, 16 KiB in 01, 32 KiB in 011, and so on from bit 12; 4 MiB
  /// has nine ones.
  @Test func workedExamplesOfLeavesOfOtherSizes() {
    let output: UInt64 = 0x0000_0080_0000_0000
    #expect(format.leaf(output, .read, at: 0, order: 1) == 0x2000_0080_0000_0E01)
    #expect(format.leaf(output, .read, at: 0, order: 2) == 0x2000_0080_0000_1E01)
    #expect(format.leaf(output, .read, at: 0, order: 3) == 0x2000_0080_0000_3E01)
    #expect(format.leaf(output, .read, at: 0, order: 8) == 0x2000_0080_0007_FE01)
    #expect(format.leaf(output, .read, at: 1, order: 1) == 0x2000_0080_001F_FE01)
    #expect(format.leaf(0, .write, at: 3, order: 1) == 0x4000_007F_FFFF_FE01)
    #expect(format.leaf(0, .write, at: 4, order: 3) == 0x4003_FFFF_FFFF_FE01)
  }

  @Test func inARunTheIndexSaysWhereAnEntryLeads() {
    let word: UInt64 = 0x2000_0080_0000_3E01
    #expect(format.decode(word, at: 0, index: 0x10) == .leaf(0x80_0000_0000, .read, order: 3))
    #expect(format.decode(word, at: 0, index: 0x15) == .leaf(0x80_0000_5000, .read, order: 3))
    let large: UInt64 = 0x2000_0080_001F_FE01
    #expect(format.decode(large, at: 1, index: 0x1FF) == .leaf(0x80_0020_0000, .read, order: 1))
  }

  /// The level of a table is counted from 1: the one with leaves of 4 KiB is 0x200.
  @Test func aTableEntryPermitsEverythingAndSaysTheLevel() {
    for level in 0...4 {
      let expected = 0x6000_0000_1234_5001 | UInt64(level + 1) << 9
      #expect(format.table(PhysicalAddress(0x1234_5000), at: level) == expected)
    }
    #expect(format.table(PhysicalAddress(0x1234_5000), at: 4) == 0x6000_0000_1234_5A01)
  }

  @Test func anEntryThatIsNotPresentIsEmptyWhateverElseItHas() throws {
    for level in 0...5 {
      for bit in 1..<64 as Range<UInt64> {
        try demandSame(rich.decode(1 << bit, at: level), .empty, "bit \(bit) at \(level)")
      }
      try demandSame(rich.decode(~1, at: level), .empty, "all other bits at \(level)")
    }
  }

  /// Each bit but those of the next level, in a leaf of the lowest level that permits nothing.
  @Test func eachBitOfALeaf() throws {
    for bit in Array(1..<9) + Array(12..<64) as [UInt64] {
      let word: UInt64 = 1 << bit
      let plain: TableEntry =
        switch bit {
        case 12...51: .leaf(word, [])
        case 52...58: .reserved
        case 61: .leaf(0, .read)
        case 62: .leaf(0, .write)
        default: .leaf(0, [])
        }
      try demandSame(format.decode(word | 1, at: 0), plain, "bit \(bit)")
      let withFeatures: TableEntry =
        switch bit {
        case 48...51: .reserved
        case 60: .leaf(0, .cacheable)
        default: plain
        }
      try demandSame(rich.decode(word | 1, at: 0), withFeatures, "bit \(bit)")
    }
  }

  /// Each bit but those of the next level, in the entry of a table.
  @Test func eachBitOfATableEntry() throws {
    for level in 1...5 {
      for bit in Array(1..<9) + Array(12..<64) as [UInt64] {
        let word: UInt64 = 1 << bit | UInt64(level) << 9 | 1
        let expected: TableEntry =
          switch bit {
          case 12...51: .table(1 << bit)
          case 52...60: .reserved
          default: .table(0)
          }
        try demandSame(format.decode(word, at: level), expected, "bit \(bit) at \(level)")
        let isUnreachable = 48...60 ~= bit
        try demandSame(
          rich.decode(word, at: level) == .reserved, isUnreachable, "bit \(bit) at \(level)")
      }
    }
  }

  /// Up the levels and past levels, of which hardware follows the second.
  @Test func aTableOfAnyButTheNextLevelIsReserved() throws {
    for level in 0...5 {
      for next in 1...6 {
        let entry = format.decode(0x6000_0000_1234_5001 | UInt64(next) << 9, at: level)
        try demandSame(entry, next == level ? .table(0x1234_5000) : .reserved, "\(next)")
      }
    }
  }

  @Test func aLeafOfALevelsSizeIsReservedWhereThereIsNone() {
    #expect(format.decode(0x6000_0000_0000_0001, at: 3) == .reserved)
    #expect(format.decode(0x6000_0000_0000_0001, at: 4) == .leaf(0, [.read, .write]))
    #expect(format.decode(0x6000_0000_0000_0001, at: 5) == .reserved)
  }

  @Test func aLeafOfALevelsSizeThatIsMisalignedIsReserved() throws {
    for level in [1, 2, 4] {
      for bit in 12...51 as ClosedRange<UInt64> {
        let expected: TableEntry = bit < 12 + 9 * level ? .reserved : .leaf(1 << bit, .read)
        let word: UInt64 = 0x2000_0000_0000_0001 | 1 << bit
        try demandSame(format.decode(word, at: level), expected, "bit \(bit) at \(level)")
      }
    }
  }

  /// Each size at each level: those between the level's own and the next's are leaves.
  @Test func aSizeThatDoesNotFitTheLevelIsReserved() throws {
    for level in 0...5 {
      for size in 13...53 {
        let ones: UInt64 = ((1 << UInt64(size - 1)) - 1) & 0x000F_FFFF_FFFF_F000
        let order = size - (12 + 9 * level)
        let fits = 1...8 ~= order && size <= 51
        let expected: TableEntry = fits ? .leaf(0, .read, order: order) : .reserved
        let word = ones | 0x2000_0000_0000_0E01
        try demandSame(format.decode(word, at: level), expected, "2^\(size) at \(level)")
      }
    }
  }

  @Test func anOutputBeyondWhatHardwareAddressesIsReserved() {
    // 2^49 bytes at 0, of which the first half can be addressed.
    let word: UInt64 = 0x2000_FFFF_FFFF_FE01
    #expect(rich.decode(word, at: 4, index: 0) == .leaf(0, .read, order: 1))
    #expect(rich.decode(word, at: 4, index: 1) == .reserved)
  }

  @Test func theCodecKeepsWhatAllFormatsKeep() throws {
    try checkCodec(of: format)
    try checkCodec(of: AMDv1(PageTableOptions(features: [.coherence, .dirty])))
    try checkRandomWords(of: rich)
  }

  @Test func writesAreNotedInBit6() throws {
    try checkDirty(of: format, isNoted: false)
    try checkDirty(of: rich, isNoted: true)
    #expect(rich.settingDirty(0x2000_0000_0000_0001, true) == 0x2000_0000_0000_0041)
    #expect(rich.isDirty(0x2000_0000_0000_0041))
  }
}
