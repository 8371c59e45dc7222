// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// The codec, bit by bit, as the privileged architecture has it. The names of levels are those of the
/// manual too: 0 has the leaves of 4 KiB.
@Suite("RISCV")
struct RISCVTests {

  private let first: RISCV
  private let second: RISCV
  /// With all that there is.
  private let rich: RISCV
  private let richSecond: RISCV

  init() throws {
    let all = PageTableOptions(levels: 5, features: [.dirty, .memoryTypes, .runs])
    first = try RISCV(PageTableOptions(levels: 5))
    second = try RISCV(PageTableOptions(levels: 5).ofSecondStage)
    rich = try RISCV(all)
    richSecond = try RISCV(all.ofSecondStage)
  }

  @Test func tablesAre512WordsOfOnePage() {
    #expect(RISCV.standard.granule == Granule(shift: 12))
    #expect(RISCV.standard.indexBits == 9)
    #expect(RISCV.standard.repeatsLeaf)
  }

  @Test(arguments: [(3, 39), (4, 48), (5, 57)])
  func theFirstStageIsSigned(levels: Int, bits: Int) throws {
    let expected = PageTableGeometry(
      levels: levels, inputBits: bits, isSigned: true, outputBits: 56)
    for inputBits in [0, bits] {
      let options = PageTableOptions(levels: levels, inputBits: inputBits)
      #expect(try RISCV(options).geometry == expected)
    }
  }

  @Test(arguments: [(3, 41), (4, 50), (5, 59)])
  func theSecondStageHasTwoBitsMoreAndNoSign(levels: Int, bits: Int) throws {
    let expected = PageTableGeometry(levels: levels, inputBits: bits, outputBits: 44)
    for inputBits in [0, bits] {
      let options = PageTableOptions(levels: levels, inputBits: inputBits, outputBits: 44)
      #expect(try RISCV(options.ofSecondStage).geometry == expected)
    }
  }

  @Test func fourLevelsAreTheDefault() throws {
    #expect(try RISCV(PageTableOptions()).geometry.levels == 4)
    #expect(try RISCV(PageTableOptions().ofSecondStage).geometry.inputBits == 50)
  }

  @Test func whatHardwareDoesNotHaveIsRefused() {
    let refused = [
      PageTableOptions(levels: 2), PageTableOptions(levels: 6), PageTableOptions(levels: -1),
      PageTableOptions(levels: 3, inputBits: 40), PageTableOptions(outputBits: 57),
      PageTableOptions(outputBits: 31), PageTableOptions(outputBits: -1),
    ]
    for options in refused {
      #expect(throws: Failure.invalidArgument) { try RISCV(options) }
      #expect(throws: Failure.invalidArgument) { try RISCV(options.ofSecondStage) }
    }
    #expect(throws: Failure.invalidArgument) { try RISCV(PageTableOptions(inputBits: 50)) }
    #expect(throws: Failure.invalidArgument) {
      try RISCV(PageTableOptions(inputBits: 48).ofSecondStage)
    }
  }

  @Test(arguments: [1, 8, 32, 1 << 31] as [UInt32])
  func featuresOfOtherFormatsAreRefused(bit: UInt32) {
    let options = PageTableOptions(features: PageTableFeatures(rawValue: bit | 4))
    #expect(throws: Failure.notSupported) { try RISCV(options) }
    #expect(throws: Failure.notSupported) { try RISCV(options.ofSecondStage) }
  }

  @Test func leavesAreAtEveryLevelAndRunsOf16AtTheLowest() {
    #expect((0...4).map { first.leafOrders(at: $0) } == [1, 1, 1, 1, 1])
    #expect((0...4).map { rich.leafOrders(at: $0) } == [0x11, 1, 1, 1, 1])
    let sizes: [UInt64] = [1 << 12, 1 << 21, 1 << 30, 1 << 39, 1 << 48]
    #expect((0...4).map { RISCV.standard.spanMask(at: $0) + 1 } == sizes)
  }

  @Test func whatCanBeExpressedHasReadsOrExecutesAndReadsWithWrites() throws {
    for access in allAccesses {
      let permitted =
        access.contains(.read) || (access.contains(.execute) && !access.contains(.write))
      let fits = permitted && !access.contains(.cacheable)
      let isPlain = access.isDisjoint(with: [.mmio, .privileged])
      try demandSame(first.canExpress(access), fits && !access.contains(.mmio), "\(access)")
      try demandSame(rich.canExpress(access), fits, "\(access)")
      try demandSame(second.canExpress(access), fits && isPlain, "\(access)")
      let isForAll = !access.contains(.privileged)
      try demandSame(richSecond.canExpress(access), fits && isForAll, "\(access)")
    }
    #expect(!rich.canExpress([.read, Access(rawValue: 64)]))
  }

  /// V, A and U are 0x51; R 2, W and D 0x84, X 8. The page number is the address, two bits lower.
  @Test func workedExamplesOfLeaves() {
    let output: UInt64 = 0x00FF_FFFF_C000_0000
    #expect(first.leaf(output, .read, at: 0) == 0x003F_FFFF_F000_0053)
    #expect(first.leaf(output, [.read, .write], at: 0) == 0x003F_FFFF_F000_00D7)
    #expect(first.leaf(output, .execute, at: 1) == 0x003F_FFFF_F000_0059)
    #expect(first.leaf(output, [.read, .privileged], at: 2) == 0x003F_FFFF_F000_0043)
    #expect(second.leaf(output, [.read, .write, .execute], at: 2) == 0x003F_FFFF_F000_00DF)
    #expect(rich.leaf(0x8000_0000, [.read, .write], at: 0) == 0x2000_0057)
    #expect(rich.leaf(0x8000_0000, [.read, .mmio], at: 0) == 0x4000_0000_2000_0053)
  }

  /// The number of the run's first page is 0x80010; the 8 in it is its size.
  @Test func workedExampleOfARun() {
    let word = rich.leaf(0x8001_0000, .read, at: 0, order: 4)
    #expect(word == 0x8000_0000_2000_6053)
    #expect(rich.decode(word, at: 0, index: 0x13) == .leaf(0x8001_3000, .read, order: 4))
    #expect(rich.decode(word, at: 0, index: 0x1FF) == .leaf(0x8001_F000, .read, order: 4))
  }

  @Test func aTableEntryIsValidAndNothingElse() {
    #expect(first.table(PhysicalAddress(0x8000_1000), at: 2) == 0x2000_0401)
    #expect(second.table(PhysicalAddress(0x00FF_FFFF_FFFF_F000), at: 0) == 0x003F_FFFF_FFFF_FC01)
  }

  @Test func anEntryThatIsNotValidIsEmptyWhateverElseItHas() throws {
    for level in 0...4 {
      for bit in 1..<64 as Range<UInt64> {
        try demandSame(rich.decode(1 << bit, at: level), .empty, "bit \(bit) at \(level)")
      }
      try demandSame(rich.decode(~1, at: level), .empty, "all other bits at \(level)")
    }
  }

  /// Each bit, in a leaf of the lowest level that permits reads.
  @Test func eachBitOfALeaf() throws {
    for bit in 0..<64 as Range<UInt64> {
      let word: UInt64 = 1 << bit
      let plain: TableEntry =
        switch bit {
        case 3: .leaf(0, [.read, .execute])
        case 10...53: .leaf(word << 2, .read)
        case 54...: .reserved
        default: .leaf(0, .read)
        }
      try demandSame(first.decode(word | 0x53, at: 0), plain, "bit \(bit)")
      try demandSame(second.decode(word | 0x53, at: 0), plain, "bit \(bit)")
      let withFeatures: TableEntry =
        switch bit {
        case 2: .leaf(0, [.read, .write])
        case 61: .leaf(0, .read)
        case 62: .leaf(0, [.read, .mmio])
        default: plain
        }
      try demandSame(rich.decode(word | 0x53, at: 0), withFeatures, "bit \(bit)")
    }
  }

  @Test func writesWithoutReadsAreReserved() throws {
    for level in 0...4 {
      #expect(first.decode(0xD5, at: level) == .reserved)
      #expect(second.decode(0xDD, at: level) == .reserved)
    }
  }

  @Test func bits54To60AreReservedInLeavesAndTables() throws {
    for bit in 54...60 as ClosedRange<UInt64> {
      try demandSame(rich.decode(1 << bit | 0x53, at: 1), .reserved, "bit \(bit)")
      try demandSame(rich.decode(1 << bit | 0x01, at: 1), .reserved, "bit \(bit)")
    }
  }

  @Test func memoryTypesAreReservedWithoutTheFeatureAndTheThirdAlways() {
    for type in 1...3 as ClosedRange<UInt64> {
      #expect(first.decode(type << 61 | 0x53, at: 0) == .reserved)
      #expect((rich.decode(type << 61 | 0x53, at: 0) == .reserved) == (type == 3))
    }
  }

  @Test func runsAreReservedWithoutTheFeatureAboveTheLowestLevelAndInOtherSizes() throws {
    let run: UInt64 = 1 << 63
    #expect(first.decode(run | 0x2053, at: 0) == .reserved)
    for level in 1...4 { #expect(rich.decode(run | 0x2053, at: level) == .reserved) }
    for size in 0...15 as ClosedRange<UInt64> where size != 8 {
      try demandSame(rich.decode(run | size << 10 | 0x53, at: 0), .reserved, "\(size)")
    }
  }

  @Test func aTableBelowTheLowestLevelIsReserved() {
    #expect(first.decode(0x2000_0401, at: 0) == .reserved)
    #expect(second.decode(0x2000_0401, at: 0) == .reserved)
  }

  @Test func inATableEntryUAndAAndDAndMemoryTypesAndRunsAreReserved() throws {
    for bit in [4, 6, 7, 61, 62, 63] as [UInt64] {
      for level in 1...4 {
        try demandSame(rich.decode(1 << bit | 1, at: level), .reserved, "bit \(bit)")
        try demandSame(richSecond.decode(1 << bit | 1, at: level), .reserved, "bit \(bit)")
      }
    }
    for bit in [5, 8, 9] as [UInt64] {
      try demandSame(rich.decode(1 << bit | 1, at: 1), .table(0), "bit \(bit)")
    }
  }

  @Test func misalignedSuperpagesAreReserved() throws {
    for level in 1...4 {
      for bit in 12...55 as ClosedRange<UInt64> {
        let address: UInt64 = 1 << bit
        let expected: TableEntry = bit < 12 + 9 * level ? .reserved : .leaf(address, .read)
        try demandSame(
          first.decode(address >> 2 | 0x53, at: level), expected, "bit \(bit) at \(level)")
      }
    }
  }

  @Test func pageNumbersBeyondWhatHardwareAddressesAreReserved() throws {
    let narrow = try RISCV(PageTableOptions(outputBits: 40))
    for bit in 30...55 as ClosedRange<UInt64> {
      let number: UInt64 = 1 << (bit - 2)
      try demandSame(
        narrow.decode(number | 0x53, at: 1) == .reserved, bit >= 40, "bit \(bit) of a leaf")
      try demandSame(
        narrow.decode(number | 1, at: 1) == .reserved, bit >= 40, "bit \(bit) of a table")
    }
  }

  @Test func withoutTheDirtyFeatureALeafWithoutAIsReservedAndWithoutDIsReadOnly() {
    #expect(first.decode(0x97, at: 0) == .reserved)
    #expect(rich.decode(0x97, at: 0) == .leaf(0, [.read, .write]))
    #expect(first.decode(0x57, at: 0) == .leaf(0, .read))
    #expect(rich.decode(0x57, at: 0) == .leaf(0, [.read, .write]))
    #expect(first.decode(0xD7, at: 0) == .leaf(0, [.read, .write]))
  }

  @Test func withoutUALeafIsForPrivilegedRequestsAndReservedInTheSecondStage() {
    #expect(first.decode(0x43, at: 0) == .leaf(0, [.read, .privileged]))
    #expect(second.decode(0x43, at: 0) == .reserved)
    #expect(richSecond.decode(0x43, at: 3) == .reserved)
  }

  @Test func theCodecKeepsWhatAllFormatsKeep() throws {
    try checkCodec(of: first)
    try checkCodec(of: second)
    try checkCodec(of: rich)
    try checkCodec(of: richSecond)
    try checkCodec(of: RISCV(PageTableOptions(levels: 3, outputBits: 38, features: .runs)))
  }

  @Test func writesAreNotedInBit7() throws {
    try checkDirty(of: first, isNoted: false)
    try checkDirty(of: second, isNoted: false)
    try checkDirty(of: rich, isNoted: true)
    try checkDirty(of: richSecond, isNoted: true)
    #expect(rich.settingDirty(0x57, true) == 0xD7)
    #expect(rich.isDirty(0xD7))
  }
}
