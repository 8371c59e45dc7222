// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// The codec, bit by bit, as the manuals' tables of paging-structure entries have it. The names of
/// levels are the library's: 0 has the leaves of 4 KiB.
@Suite("X86_64")
struct X86_64Tests {
  private let format: X86_64
  private let tracking: X86_64
  private let deep: X86_64

  init() throws {
    format = try X86_64(PageTableOptions())
    tracking = try X86_64(PageTableOptions(outputBits: 46, features: [.dirty]))
    deep = try X86_64(PageTableOptions(levels: 5, features: [.signedInput]))
  }

  @Test func tablesAre512WordsOfOnePage() {
    #expect(X86_64.standard.granule == Granule(shift: 12))
    #expect(X86_64.standard.indexBits == 9)
    #expect(!X86_64.standard.repeatsLeaf)
  }

  @Test(arguments: [(4, false, 47), (4, true, 48), (5, false, 56), (5, true, 57)])
  func inputsAreTheLowerHalfUnlessTheyAreSigned(levels: Int, isSigned: Bool, bits: Int) throws {
    let features: PageTableFeatures = isSigned ? .signedInput : []
    let expected = PageTableGeometry(
      levels: levels, inputBits: bits, isSigned: isSigned, outputBits: 52)
    for inputBits in [0, bits] {
      let options = PageTableOptions(levels: levels, inputBits: inputBits, features: features)
      #expect(try X86_64(options).geometry == expected)
    }
  }

  @Test func fourLevelsAnd52BitsAreTheDefault() {
    #expect(format.geometry == PageTableGeometry(levels: 4, inputBits: 47, outputBits: 52))
    #expect(tracking.geometry.outputBits == 46)
  }

  @Test func whatHardwareDoesNotHaveIsRefused() {
    let refused = [
      PageTableOptions(levels: 3), PageTableOptions(levels: 6), PageTableOptions(levels: -1),
      PageTableOptions(inputBits: 48), PageTableOptions(inputBits: 39),
      PageTableOptions(inputBits: 47, features: .signedInput), PageTableOptions(outputBits: 53),
      PageTableOptions(outputBits: 31), PageTableOptions(outputBits: -1),
    ]
    for options in refused {
      #expect(throws: Failure.invalidArgument) { try X86_64(options) }
    }
  }

  @Test(arguments: [4, 16, 64, 1 << 31])
  func featuresOfOtherFormatsAreRefused(bit: UInt32) {
    let coherence = PageTableOptions(features: .coherence)
    #expect(throws: Failure.notSupported) { try X86_64(coherence) }
    let options = PageTableOptions(features: PageTableFeatures(rawValue: bit | 2))
    #expect(throws: Failure.notSupported) { try X86_64(options) }
  }

  @Test func leavesAre4KiBAnd2MiBAnd1GiB() {
    #expect((0...4).map { deep.leafOrders(at: $0) } == [1, 1, 1, 0, 0])
    #expect((0...2).map { X86_64.standard.spanMask(at: $0) + 1 } == [1 << 12, 1 << 21, 1 << 30])
  }

  @Test func whatCanBeExpressedHasReadsAndIsNotCacheable() throws {
    for access in allAccesses {
      let expected = access.contains(.read) && !access.contains(.cacheable)
      try demandSame(format.canExpress(access), expected, "\(access)")
    }
    #expect(!format.canExpress([.read, Access(rawValue: 64)]))
  }

  /// P, A, U/S and XD make 0x25 and bit 63; R/W and D add 0x42; page size adds 0x80.
  @Test func workedExamplesOfLeaves() {
    let output: UInt64 = 0x000F_FFFF_C000_0000
    #expect(format.leaf(output, .read, at: 0) == 0x800F_FFFF_C000_0025)
    #expect(format.leaf(output, [.read, .write], at: 0) == 0x800F_FFFF_C000_0067)
    #expect(format.leaf(output, [.read, .execute], at: 0) == 0x000F_FFFF_C000_0025)
    #expect(format.leaf(output, [.read, .privileged], at: 0) == 0x800F_FFFF_C000_0021)
    #expect(format.leaf(output, [.read, .write, .mmio], at: 0) == 0x800F_FFFF_C000_007F)
    #expect(format.leaf(output, [.read, .write], at: 1) == 0x800F_FFFF_C000_00E7)
    #expect(format.leaf(output, [.read, .execute], at: 2) == 0x000F_FFFF_C000_00A5)
  }

  @Test func aWritableLeafIsCleanWhereHardwareNotesWrites() {
    #expect(tracking.leaf(0x5000, [.read, .write], at: 0) == 0x8000_0000_0000_5027)
    #expect(tracking.leaf(0x20_0000, [.read, .write], at: 1) == 0x8000_0000_0020_00A7)
  }

  @Test func aTableEntryPermitsEverything() {
    for level in 0...3 {
      #expect(deep.table(PhysicalAddress(0x1234_5000), at: level) == 0x1234_5027)
    }
  }

  @Test func anEntryThatIsNotPresentIsEmptyWhateverElseItHas() throws {
    for level in 0...4 {
      for bit in 1..<64 as Range<UInt64> {
        try demandSame(deep.decode(1 << bit, at: level), .empty, "bit \(bit) at \(level)")
      }
      try demandSame(deep.decode(~1, at: level), .empty, "all other bits at \(level)")
    }
  }

  /// Each bit of a present word of the lowest level: what it adds to a leaf that permits all.
  @Test func atTheLowestLevelNoBitIsReserved() throws {
    for bit in 0..<64 as Range<UInt64> {
      let word: UInt64 = 1 << bit
      let expected: TableEntry =
        switch bit {
        case 4: .leaf(0, [.read, .write, .execute, .mmio])
        case 12...51: .leaf(word, [.read, .write, .execute])
        case 63: .leaf(0, [.read, .write])
        default: .leaf(0, [.read, .write, .execute])
        }
      try demandSame(format.decode(word | 7, at: 0), expected, "bit \(bit)")
    }
    #expect(format.decode(5, at: 0) == .leaf(0, [.read, .execute]))
    #expect(format.decode(3, at: 0) == .leaf(0, [.read, .write, .execute, .privileged]))
  }

  @Test func withoutThePageSizeBitAnUpperEntryIsATable() throws {
    for level in 1...4 {
      for bit in [1, 2, 3, 4, 5, 6] + Array(8..<64) as [UInt64] {
        let address: UInt64 = 12...51 ~= bit ? 1 << bit : 0
        try demandSame(
          deep.decode(1 << bit | 1, at: level), .table(address), "bit \(bit) at \(level)")
      }
    }
  }

  /// With page size set, the bits between 13 and the leaf's own size must be 0. Bit 12 is PAT.
  @Test func anAddressThatIsNotAMultipleOfTheLeafIsReserved() throws {
    for level in 1...2 {
      for bit in 12...51 as ClosedRange<UInt64> {
        let access: Access = [.read, .execute]
        let expected: TableEntry =
          switch bit {
          case 12: .leaf(0, access)
          case ..<UInt64(12 + 9 * level): .reserved
          default: .leaf(1 << bit, access)
          }
        try demandSame(
          format.decode(1 << bit | 0x85, at: level), expected, "bit \(bit) at \(level)")
      }
    }
  }

  @Test func thePageSizeBitIsReservedWhereNoLeafIs() {
    #expect(deep.decode(0x87, at: 3) == .reserved)
    #expect(deep.decode(0x87, at: 4) == .reserved)
  }

  @Test func addressBitsBeyondThoseOfHardwareAreReserved() throws {
    for level in 0...3 {
      for bit in 30...51 as ClosedRange<UInt64> {
        for word in [0x87, 0x07] as [UInt64] {
          let entry = tracking.decode(1 << bit | word, at: level)
          let isReserved = bit >= 46 || (level == 3 && word == 0x87)
          try demandSame(entry == .reserved, isReserved, "bit \(bit) at \(level)")
        }
      }
    }
  }

  /// PCD alone is uncacheable as well, PWT alone is not, and PAT changes neither.
  @Test func memoryTypesAreThoseOfThePowerOnTable() {
    let all: Access = [.read, .write, .execute]
    #expect(format.decode(0x07 | 0x08, at: 0) == .leaf(0, all))
    #expect(format.decode(0x07 | 0x10, at: 0) == .leaf(0, all.union(.mmio)))
    #expect(format.decode(0x07 | 0x90, at: 0) == .leaf(0, all.union(.mmio)))
    #expect(format.decode(0x1087, at: 1) == .leaf(0, all))
  }

  @Test func theCodecKeepsWhatAllFormatsKeep() throws {
    try checkCodec(of: format)
    try checkCodec(of: tracking)
    try checkCodec(of: deep)
  }

  @Test func writesAreNotedInBit6() throws {
    try checkDirty(of: format, isNoted: false)
    try checkDirty(of: tracking, isNoted: true)
    #expect(tracking.settingDirty(0x27, true) == 0x67)
    #expect(tracking.isDirty(0x67))
  }
}
