// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// What both stages have in common: widths, levels, addresses, and the kinds of descriptors. The names
/// of levels are the library's: 0 has the pages, and is level 3 of the manual.
@Suite("ARM64Descriptor")
struct ARM64DescriptorTests {
  private func geometry<F: PageTableFormat>(
    _: F.Type, _ shift: Int, _ inputBits: Int, _ outputBits: Int, levels: Int = 0
  ) throws -> PageTableGeometry {
    let options = PageTableOptions(levels: levels, inputBits: inputBits, outputBits: outputBits)
    return try F(options.withPages(of: shift)).geometry
  }

  @Test func tablesFillOnePageOfTheGranule() throws {
    for shift in [12, 14, 16] {
      let options = PageTableOptions().withPages(of: shift)
      let first = try ARM64Stage1(options)
      let second = try ARM64Stage2(options)
      #expect(first.granule == Granule(shift: shift))
      #expect(first.indexBits == shift - 3)
      #expect(!first.repeatsLeaf)
      #expect(second.granule == Granule(shift: shift))
      #expect(second.indexBits == shift - 3)
      #expect(!second.repeatsLeaf)
    }
  }

  @Test func inputsAndOutputsOf48BitsAreTheDefault() throws {
    let expected = PageTableGeometry(levels: 4, inputBits: 48, outputBits: 48)
    #expect(try ARM64Stage1(PageTableOptions()).geometry == expected)
    #expect(try ARM64Stage2(PageTableOptions()).geometry == expected)
    #expect(try ARM64Stage1(PageTableOptions().withPages(of: 14)).geometry.levels == 4)
    #expect(try ARM64Stage1(PageTableOptions().withPages(of: 16)).geometry.levels == 3)
  }

  @Test func theWidthOfInputsSaysHowManyLevelsTheFirstStageHas() throws {
    func check(_ shift: Int, _ levelsOf: [Int: Int]) throws {
      for (inputBits, levels) in levelsOf {
        for asked in [0, levels] {
          let found = try geometry(ARM64Stage1.self, shift, inputBits, 40, levels: asked)
          #expect(found == PageTableGeometry(levels: levels, inputBits: inputBits, outputBits: 40))
        }
        for other in [-1, levels - 1, levels + 1] where other != 0 {
          #expect(throws: Failure.invalidArgument) {
            try geometry(ARM64Stage1.self, shift, inputBits, 40, levels: other)
          }
        }
      }
    }
    try check(12, [32: 3, 39: 3, 40: 4, 48: 4])
    try check(14, [32: 2, 36: 2, 37: 3, 47: 3, 48: 4])
    try check(16, [32: 2, 42: 2, 43: 3, 48: 3, 52: 3])
  }

  /// By the pseudocode `AArch64.S2InvalidSL`.
  @Test func theSecondStageHasOneLevelLessWhereHardwareHasNoMore() throws {
    func check(_ shift: Int, _ inputBits: Int, _ outputBits: Int, _ levels: Int)
      throws
    {
      let found = try geometry(ARM64Stage2.self, shift, inputBits, outputBits)
      #expect(found.levels == levels)
      #expect(throws: Failure.invalidArgument) {
        try geometry(ARM64Stage2.self, shift, inputBits, outputBits, levels: levels + 1)
      }
    }
    try check(12, 39, 40, 3)
    try check(12, 40, 40, 3)
    try check(12, 42, 42, 3)
    try check(12, 43, 44, 4)
    try check(12, 48, 48, 4)
    try check(14, 40, 40, 2)
    try check(14, 40, 42, 3)
    try check(14, 48, 48, 3)
    try check(16, 42, 42, 2)
    try check(16, 43, 42, 2)
    try check(16, 43, 44, 3)
    try check(16, 52, 52, 3)
  }

  @Test func theSecondStageMayDoWithOneLevelLessIfItsRootIsAtMost16Tables() throws {
    func check(_ shift: Int, _ inputBits: Int, _ levels: Int) throws {
      #expect(try geometry(ARM64Stage2.self, shift, inputBits, 48, levels: levels).levels == levels)
      for (bits, count) in [(inputBits + 1, levels), (inputBits, levels - 1)] where count != 0 {
        #expect(throws: Failure.invalidArgument) {
          try geometry(ARM64Stage2.self, shift, bits, 48, levels: count)
        }
      }
    }
    try check(12, 34, 2)
    try check(12, 43, 3)
    try check(14, 40, 2)
    try check(16, 33, 1)
    try check(16, 46, 2)
  }

  @Test func aSecondStageThatNeedsMoreTablesAtItsRootIsRefused() {
    #expect(throws: Failure.invalidArgument) {
      try geometry(ARM64Stage2.self, 12, 44, 42)
    }
    #expect(throws: Failure.invalidArgument) {
      try geometry(ARM64Stage2.self, 14, 48, 40)
    }
    #expect(throws: Failure.invalidArgument) {
      try geometry(ARM64Stage2.self, 16, 52, 48)
    }
  }

  @Test func whatHardwareDoesNotHaveIsRefused() {
    func check<F: PageTableFormat>(_: F.Type, _ shift: Int) {
      let is64K = shift == 16
      let refused = [
        PageTableOptions(inputBits: 31), PageTableOptions(inputBits: is64K ? 53 : 49),
        PageTableOptions(inputBits: -1), PageTableOptions(outputBits: 31),
        PageTableOptions(outputBits: 33), PageTableOptions(outputBits: 47),
        PageTableOptions(outputBits: is64K ? 51 : 52), PageTableOptions(outputBits: -1),
        PageTableOptions(levels: 5), PageTableOptions(levels: -1), PageTableOptions(levels: .max),
        PageTableOptions(levels: .min),
      ]
      for options in refused {
        #expect(throws: Failure.invalidArgument) { try F(options.withPages(of: shift)) }
      }
      for bit in [1, 8, 16, 32, 1 << 31] as [UInt32] {
        let options = PageTableOptions(features: PageTableFeatures(rawValue: bit | 4))
        #expect(throws: Failure.notSupported) { try F(options.withPages(of: shift)) }
      }
    }
    check(ARM64Stage1.self, 12)
    check(ARM64Stage1.self, 14)
    check(ARM64Stage1.self, 16)
    check(ARM64Stage2.self, 12)
    check(ARM64Stage2.self, 14)
    check(ARM64Stage2.self, 16)
  }

  /// Orders of leaves, per level, without runs and with them.
  @Test func leavesArePagesAndBlocksAndRuns() throws {
    func check(
      _ shift: Int, outputBits: Int = 48, _ plain: [UInt32], _ runs: [UInt32]
    ) throws {
      var options = PageTableOptions(outputBits: outputBits).withPages(of: shift)
      let stage1 = try ARM64Stage1(options.withPages(of: shift))
      let stage2 = try ARM64Stage2(options.withPages(of: shift))
      #expect(plain.indices.map { stage1.leafOrders(at: $0) } == plain)
      #expect(plain.indices.map { stage2.leafOrders(at: $0) } == plain)
      options.features = .runs
      let stage1Runs = try ARM64Stage1(options.withPages(of: shift))
      #expect(plain.indices.map { stage1Runs.leafOrders(at: $0) } == runs)
    }
    try check(12, [1, 1, 1, 0], [0x11, 0x11, 0x11, 0])
    try check(14, [1, 1, 0, 0], [0x81, 0x21, 0, 0])
    try check(16, [1, 1, 0], [0x21, 0x21, 0])
    try check(16, outputBits: 52, [1, 1, 1], [0x21, 0x21, 1])
    let sizes = (0...2).map { ARM64Stage1.standard.spanMask(at: $0) + 1 }
    #expect(sizes == [1 << 12, 1 << 21, 1 << 30])
    #expect(try ARM64Stage1(PageTableOptions().withPages(of: 14)).spanMask(at: 1) + 1 == 1 << 25)
    #expect(try ARM64Stage1(PageTableOptions().withPages(of: 16)).spanMask(at: 1) + 1 == 1 << 29)
    #expect(try ARM64Stage1(PageTableOptions().withPages(of: 16)).spanMask(at: 2) + 1 == 1 << 42)
  }

  /// Type 3, and in the large granule the highest digit of the address in bits 12 to 15.
  @Test func aTableEntryIsItsAddressAndRestrictsNothing() throws {
    let small = try ARM64Stage1(PageTableOptions())
    #expect(small.table(PhysicalAddress(0xFFFF_1234_5000), at: 0) == 0xFFFF_1234_5003)
    let large = try ARM64Stage2(PageTableOptions(outputBits: 52).withPages(of: 16))
    #expect(large.table(PhysicalAddress(0xA_FFFF_1234_0000), at: 0) == 0xFFFF_1234_A003)
    #expect(large.decode(0xFFFF_1234_A003, at: 1) == .table(0xA_FFFF_1234_0000))
  }

  @Test func anEntryThatIsNotValidIsEmptyWhateverElseItHas() throws {
    let format = try ARM64Stage1(PageTableOptions(outputBits: 52).withPages(of: 16))
    for level in 0...2 {
      for bit in 1..<64 as Range<UInt64> {
        try demandSame(format.decode(1 << bit, at: level), .empty, "bit \(bit) at \(level)")
      }
      try demandSame(format.decode(~1, at: level), .empty, "all other bits at \(level)")
    }
  }

  /// Type 1 is reserved where there are no blocks, type 3 is a page or a table.
  @Test func typesSayWhatADescriptorIs() throws {
    func check<F: PageTableFormat>(_ format: F, blocks: [Bool]) throws {
      for level in blocks.indices {
        let entry = format.decode(0x401 | 0x40, at: level)
        guard case .leaf = entry else {
          try demandSame(entry, .reserved, "block at \(level)")
          try demand(!blocks[level], "block at \(level)")
          continue
        }
        try demand(blocks[level], "block at \(level)")
      }
      guard case .leaf = format.decode(0x403, at: 0) else { throw Divergence("no page") }
      for level in 1..<blocks.count {
        try demandSame(format.decode(0x403, at: level), .table(0), "type 3 at \(level)")
      }
    }
    let options = PageTableOptions()
    let wide = PageTableOptions(outputBits: 52)
    try check(ARM64Stage1(options), blocks: [false, true, true, false])
    try check(ARM64Stage2(options), blocks: [false, true, true, false])
    try check(ARM64Stage1(options.withPages(of: 14)), blocks: [false, true, false, false])
    try check(ARM64Stage1(options.withPages(of: 16)), blocks: [false, true, false])
    try check(ARM64Stage1(wide.withPages(of: 16)), blocks: [false, true, true])
  }

  @Test func withoutTheAccessFlagALeafIsReservedUnlessHardwareSetsIt() throws {
    let plain = PageTableOptions()
    let tracking = PageTableOptions(features: .dirty)
    for word in [0x43, 0x45] as [UInt64] {
      let level = word == 0x43 ? 0 : 1
      #expect(try ARM64Stage1(plain).decode(word, at: level) == .reserved)
      #expect(try ARM64Stage2(plain).decode(word, at: level) == .reserved)
      #expect(try ARM64Stage1(tracking).decode(word, at: level) != .reserved)
      #expect(try ARM64Stage2(tracking).decode(word, at: level) != .reserved)
    }
  }

  /// In pages, blocks and tables.
  @Test func anAddressBeyondThatOfHardwareIsReserved() throws {
    func check(_ shift: Int, _ outputBits: Int) throws {
      let format = try ARM64Stage2(
        PageTableOptions(inputBits: 40, outputBits: outputBits).withPages(of: shift))
      for bit in 32..<48 as Range<UInt64> {
        for (word, level) in [(0x443, 0), (0x441, 1), (0x443, 1)] as [(UInt64, Int)] {
          try demandSame(
            format.decode(1 << bit | word, at: level) == .reserved, bit >= outputBits,
            "bit \(bit) of \(outputBits)")
        }
      }
    }
    for outputBits in [32, 36, 40, 42, 44, 48] {
      try check(12, outputBits)
      try check(16, outputBits)
      if outputBits >= 40 { try check(14, outputBits) }
    }
  }

  @Test func bits12To15OfTheLargeGranuleAreReservedWithoutOutputsOf52Bits() throws {
    let narrow = try ARM64Stage2(PageTableOptions(outputBits: 48).withPages(of: 16))
    let wide = try ARM64Stage2(PageTableOptions(outputBits: 52).withPages(of: 16))
    for bit in 12...15 as ClosedRange<UInt64> {
      for (word, level) in [(0x443, 0), (0x441, 1), (0x443, 1)] as [(UInt64, Int)] {
        try demandSame(narrow.decode(1 << bit | word, at: level), .reserved, "bit \(bit)")
        try demand(wide.decode(1 << bit | word, at: level) != .reserved, "bit \(bit)")
      }
    }
  }

  /// RES0 is ignored, not a fault.
  @Test func addressBitsBelowALeafsSizeAreIgnored() throws {
    let small = try ARM64Stage2(PageTableOptions())
    #expect(small.decode(0x401F_F441 | 0x1F_F000, at: 1) == .leaf(0x4000_0000, stage2Plain))
    let medium = try ARM64Stage2(PageTableOptions().withPages(of: 14))
    #expect(medium.decode(0x4000_3443, at: 0) == .leaf(0x4000_0000, stage2Plain))
    #expect(medium.decode(0x4000_3003, at: 1) == .table(0x4000_0000))
  }

  private var stage2Plain: Access { [.read, .execute, .mmio] }

  /// The input says which of a run it is, whatever the leaf has there.
  @Test func runsAreReadAsHardwareReadsThem() throws {
    let run: UInt64 = 1 << 52 | 0x443
    let format = try ARM64Stage2(PageTableOptions(features: .runs))
    let access = stage2Plain
    #expect(
      format.decode(run | 0x4000_3000, at: 0, index: 3) == .leaf(0x4000_3000, access, order: 4))
    #expect(
      format.decode(run | 0x4000_3000, at: 0, index: 0x15) == .leaf(0x4000_5000, access, order: 4))
    let plain = try ARM64Stage2(PageTableOptions())
    #expect(plain.decode(run | 0x4000_3000, at: 0, index: 0x15) == .leaf(0x4000_3000, access))
    // A level of blocks that has no runs.
    let wide = try ARM64Stage2(PageTableOptions(outputBits: 52, features: .runs).withPages(of: 16))
    #expect(wide.decode(run & ~2 | 1 << 42, at: 2, index: 5) == .leaf(1 << 42, access))
  }

  @Test func theCodecsKeepWhatAllFormatsKeep() throws {
    func check(_ shift: Int, _ outputBits: Int) throws {
      for features in [[], .dirty, .runs, [.dirty, .runs]] as [PageTableFeatures] {
        let options = PageTableOptions(outputBits: outputBits, features: features)
        let first = try ARM64Stage1(options.withPages(of: shift))
        let second = try ARM64Stage2(options.withPages(of: shift))
        try checkCodec(of: first)
        try checkCodec(of: second)
        try checkDirty(of: first, isNoted: features.contains(.dirty))
        try checkDirty(of: second, isNoted: features.contains(.dirty))
      }
    }
    try check(12, 48)
    try check(14, 48)
    try check(16, 52)
    let narrow = PageTableOptions(inputBits: 36, outputBits: 36, features: .runs)
    try checkCodec(of: ARM64Stage1(narrow.withPages(of: 16)))
    try checkCodec(of: ARM64Stage2(narrow))
  }
}
