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
    _: F.Type, _ inputBits: Int, _ outputBits: Int, levels: Int = 0
  ) throws -> PageTableGeometry {
    try F(PageTableOptions(levels: levels, inputBits: inputBits, outputBits: outputBits)).geometry
  }

  @Test func tablesFillOnePageOfTheGranule() {
    func check<G: ARM64Granule>(_: G.Type, _ shift: Int) {
      #expect(ARM64Stage1<G>.standard.granule == Granule(shift: shift))
      #expect(ARM64Stage1<G>.standard.indexBits == shift - 3)
      #expect(!ARM64Stage1<G>.standard.repeatsLeaf)
      #expect(ARM64Stage2<G>.standard.granule == Granule(shift: shift))
      #expect(ARM64Stage2<G>.standard.indexBits == shift - 3)
      #expect(!ARM64Stage2<G>.standard.repeatsLeaf)
    }
    check(Granule4K.self, 12)
    check(Granule16K.self, 14)
    check(Granule64K.self, 16)
  }

  @Test func inputsAndOutputsOf48BitsAreTheDefault() throws {
    let expected = PageTableGeometry(levels: 4, inputBits: 48, outputBits: 48)
    #expect(try ARM64Stage1<Granule4K>(PageTableOptions()).geometry == expected)
    #expect(try ARM64Stage2<Granule4K>(PageTableOptions()).geometry == expected)
    #expect(try ARM64Stage1<Granule16K>(PageTableOptions()).geometry.levels == 4)
    #expect(try ARM64Stage1<Granule64K>(PageTableOptions()).geometry.levels == 3)
  }

  @Test func theWidthOfInputsSaysHowManyLevelsTheFirstStageHas() throws {
    func check<G: ARM64Granule>(_: G.Type, _ levelsOf: [Int: Int]) throws {
      for (inputBits, levels) in levelsOf {
        for asked in [0, levels] {
          let found = try geometry(ARM64Stage1<G>.self, inputBits, 40, levels: asked)
          #expect(found == PageTableGeometry(levels: levels, inputBits: inputBits, outputBits: 40))
        }
        for other in [-1, levels - 1, levels + 1] where other != 0 {
          #expect(throws: Failure.invalidArgument) {
            try geometry(ARM64Stage1<G>.self, inputBits, 40, levels: other)
          }
        }
      }
    }
    try check(Granule4K.self, [32: 3, 39: 3, 40: 4, 48: 4])
    try check(Granule16K.self, [32: 2, 36: 2, 37: 3, 47: 3, 48: 4])
    try check(Granule64K.self, [32: 2, 42: 2, 43: 3, 48: 3, 52: 3])
  }

  /// By the pseudocode `AArch64.S2InvalidSL`.
  @Test func theSecondStageHasOneLevelLessWhereHardwareHasNoMore() throws {
    func check<G: ARM64Granule>(_: G.Type, _ inputBits: Int, _ outputBits: Int, _ levels: Int)
      throws
    {
      let found = try geometry(ARM64Stage2<G>.self, inputBits, outputBits)
      #expect(found.levels == levels)
      #expect(throws: Failure.invalidArgument) {
        try geometry(ARM64Stage2<G>.self, inputBits, outputBits, levels: levels + 1)
      }
    }
    try check(Granule4K.self, 39, 40, 3)
    try check(Granule4K.self, 40, 40, 3)
    try check(Granule4K.self, 42, 42, 3)
    try check(Granule4K.self, 43, 44, 4)
    try check(Granule4K.self, 48, 48, 4)
    try check(Granule16K.self, 40, 40, 2)
    try check(Granule16K.self, 40, 42, 3)
    try check(Granule16K.self, 48, 48, 3)
    try check(Granule64K.self, 42, 42, 2)
    try check(Granule64K.self, 43, 42, 2)
    try check(Granule64K.self, 43, 44, 3)
    try check(Granule64K.self, 52, 52, 3)
  }

  @Test func theSecondStageMayDoWithOneLevelLessIfItsRootIsAtMost16Tables() throws {
    func check<G: ARM64Granule>(_: G.Type, _ inputBits: Int, _ levels: Int) throws {
      #expect(try geometry(ARM64Stage2<G>.self, inputBits, 48, levels: levels).levels == levels)
      for (bits, count) in [(inputBits + 1, levels), (inputBits, levels - 1)] where count != 0 {
        #expect(throws: Failure.invalidArgument) {
          try geometry(ARM64Stage2<G>.self, bits, 48, levels: count)
        }
      }
    }
    try check(Granule4K.self, 34, 2)
    try check(Granule4K.self, 43, 3)
    try check(Granule16K.self, 40, 2)
    try check(Granule64K.self, 33, 1)
    try check(Granule64K.self, 46, 2)
  }

  @Test func aSecondStageThatNeedsMoreTablesAtItsRootIsRefused() {
    #expect(throws: Failure.invalidArgument) {
      try geometry(ARM64Stage2<Granule4K>.self, 44, 42)
    }
    #expect(throws: Failure.invalidArgument) {
      try geometry(ARM64Stage2<Granule16K>.self, 48, 40)
    }
    #expect(throws: Failure.invalidArgument) {
      try geometry(ARM64Stage2<Granule64K>.self, 52, 48)
    }
  }

  @Test func whatHardwareDoesNotHaveIsRefused() {
    func check<F: PageTableFormat>(_: F.Type, is64K: Bool = false) {
      let refused = [
        PageTableOptions(inputBits: 31), PageTableOptions(inputBits: is64K ? 53 : 49),
        PageTableOptions(inputBits: -1), PageTableOptions(outputBits: 31),
        PageTableOptions(outputBits: 33), PageTableOptions(outputBits: 47),
        PageTableOptions(outputBits: is64K ? 51 : 52), PageTableOptions(outputBits: -1),
        PageTableOptions(levels: 5), PageTableOptions(levels: -1), PageTableOptions(levels: .max),
        PageTableOptions(levels: .min),
      ]
      for options in refused {
        #expect(throws: Failure.invalidArgument) { try F(options) }
      }
      for bit in [1, 8, 16, 32, 1 << 31] as [UInt32] {
        let options = PageTableOptions(features: PageTableFeatures(rawValue: bit | 4))
        #expect(throws: Failure.notSupported) { try F(options) }
      }
    }
    check(ARM64Stage1<Granule4K>.self)
    check(ARM64Stage1<Granule16K>.self)
    check(ARM64Stage1<Granule64K>.self, is64K: true)
    check(ARM64Stage2<Granule4K>.self)
    check(ARM64Stage2<Granule16K>.self)
    check(ARM64Stage2<Granule64K>.self, is64K: true)
  }

  /// Orders of leaves, per level, without runs and with them.
  @Test func leavesArePagesAndBlocksAndRuns() throws {
    func check<G: ARM64Granule>(
      _: G.Type, outputBits: Int = 48, _ plain: [UInt32], _ runs: [UInt32]
    ) throws {
      var options = PageTableOptions(outputBits: outputBits)
      let stage1 = try ARM64Stage1<G>(options)
      let stage2 = try ARM64Stage2<G>(options)
      #expect(plain.indices.map { stage1.leafOrders(at: $0) } == plain)
      #expect(plain.indices.map { stage2.leafOrders(at: $0) } == plain)
      options.features = .runs
      let stage1Runs = try ARM64Stage1<G>(options)
      #expect(plain.indices.map { stage1Runs.leafOrders(at: $0) } == runs)
    }
    try check(Granule4K.self, [1, 1, 1, 0], [0x11, 0x11, 0x11, 0])
    try check(Granule16K.self, [1, 1, 0, 0], [0x81, 0x21, 0, 0])
    try check(Granule64K.self, [1, 1, 0], [0x21, 0x21, 0])
    try check(Granule64K.self, outputBits: 52, [1, 1, 1], [0x21, 0x21, 1])
    let sizes = (0...2).map { ARM64Stage1<Granule4K>.standard.spanMask(at: $0) + 1 }
    #expect(sizes == [1 << 12, 1 << 21, 1 << 30])
    #expect(ARM64Stage1<Granule16K>.standard.spanMask(at: 1) + 1 == 1 << 25)
    #expect(ARM64Stage1<Granule64K>.standard.spanMask(at: 1) + 1 == 1 << 29)
    #expect(ARM64Stage1<Granule64K>.standard.spanMask(at: 2) + 1 == 1 << 42)
  }

  /// Type 3, and in the large granule the highest digit of the address in bits 12 to 15.
  @Test func aTableEntryIsItsAddressAndRestrictsNothing() throws {
    let small = try ARM64Stage1<Granule4K>(PageTableOptions())
    #expect(small.table(PhysicalAddress(0xFFFF_1234_5000), at: 0) == 0xFFFF_1234_5003)
    let large = try ARM64Stage2<Granule64K>(PageTableOptions(outputBits: 52))
    #expect(large.table(PhysicalAddress(0xA_FFFF_1234_0000), at: 0) == 0xFFFF_1234_A003)
    #expect(large.decode(0xFFFF_1234_A003, at: 1) == .table(0xA_FFFF_1234_0000))
  }

  @Test func anEntryThatIsNotValidIsEmptyWhateverElseItHas() throws {
    let format = try ARM64Stage1<Granule64K>(PageTableOptions(outputBits: 52))
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
    try check(ARM64Stage1<Granule4K>(options), blocks: [false, true, true, false])
    try check(ARM64Stage2<Granule4K>(options), blocks: [false, true, true, false])
    try check(ARM64Stage1<Granule16K>(options), blocks: [false, true, false, false])
    try check(ARM64Stage1<Granule64K>(options), blocks: [false, true, false])
    try check(ARM64Stage1<Granule64K>(wide), blocks: [false, true, true])
  }

  @Test func withoutTheAccessFlagALeafIsReservedUnlessHardwareSetsIt() throws {
    let plain = PageTableOptions()
    let tracking = PageTableOptions(features: .dirty)
    for word in [0x43, 0x45] as [UInt64] {
      let level = word == 0x43 ? 0 : 1
      #expect(try ARM64Stage1<Granule4K>(plain).decode(word, at: level) == .reserved)
      #expect(try ARM64Stage2<Granule4K>(plain).decode(word, at: level) == .reserved)
      #expect(try ARM64Stage1<Granule4K>(tracking).decode(word, at: level) != .reserved)
      #expect(try ARM64Stage2<Granule4K>(tracking).decode(word, at: level) != .reserved)
    }
  }

  /// In pages, blocks and tables.
  @Test func anAddressBeyondThatOfHardwareIsReserved() throws {
    func check<G: ARM64Granule>(_: G.Type, _ outputBits: Int) throws {
      let format = try ARM64Stage2<G>(PageTableOptions(inputBits: 40, outputBits: outputBits))
      for bit in 32..<48 as Range<UInt64> {
        for (word, level) in [(0x443, 0), (0x441, 1), (0x443, 1)] as [(UInt64, Int)] {
          try demandSame(
            format.decode(1 << bit | word, at: level) == .reserved, bit >= outputBits,
            "bit \(bit) of \(outputBits)")
        }
      }
    }
    for outputBits in [32, 36, 40, 42, 44, 48] {
      try check(Granule4K.self, outputBits)
      try check(Granule64K.self, outputBits)
      if outputBits >= 40 { try check(Granule16K.self, outputBits) }
    }
  }

  @Test func bits12To15OfTheLargeGranuleAreReservedWithoutOutputsOf52Bits() throws {
    let narrow = try ARM64Stage2<Granule64K>(PageTableOptions(outputBits: 48))
    let wide = try ARM64Stage2<Granule64K>(PageTableOptions(outputBits: 52))
    for bit in 12...15 as ClosedRange<UInt64> {
      for (word, level) in [(0x443, 0), (0x441, 1), (0x443, 1)] as [(UInt64, Int)] {
        try demandSame(narrow.decode(1 << bit | word, at: level), .reserved, "bit \(bit)")
        try demand(wide.decode(1 << bit | word, at: level) != .reserved, "bit \(bit)")
      }
    }
  }

  /// RES0 is ignored, not a fault.
  @Test func addressBitsBelowALeafsSizeAreIgnored() throws {
    let small = try ARM64Stage2<Granule4K>(PageTableOptions())
    #expect(small.decode(0x401F_F441 | 0x1F_F000, at: 1) == .leaf(0x4000_0000, stage2Plain))
    let medium = try ARM64Stage2<Granule16K>(PageTableOptions())
    #expect(medium.decode(0x4000_3443, at: 0) == .leaf(0x4000_0000, stage2Plain))
    #expect(medium.decode(0x4000_3003, at: 1) == .table(0x4000_0000))
  }

  private var stage2Plain: Access { [.read, .execute, .mmio] }

  /// The input says which of a run it is, whatever the leaf has there.
  @Test func runsAreReadAsHardwareReadsThem() throws {
    let run: UInt64 = 1 << 52 | 0x443
    let format = try ARM64Stage2<Granule4K>(PageTableOptions(features: .runs))
    let access = stage2Plain
    #expect(
      format.decode(run | 0x4000_3000, at: 0, index: 3) == .leaf(0x4000_3000, access, order: 4))
    #expect(
      format.decode(run | 0x4000_3000, at: 0, index: 0x15) == .leaf(0x4000_5000, access, order: 4))
    let plain = try ARM64Stage2<Granule4K>(PageTableOptions())
    #expect(plain.decode(run | 0x4000_3000, at: 0, index: 0x15) == .leaf(0x4000_3000, access))
    // A level of blocks that has no runs.
    let wide = try ARM64Stage2<Granule64K>(PageTableOptions(outputBits: 52, features: .runs))
    #expect(wide.decode(run & ~2 | 1 << 42, at: 2, index: 5) == .leaf(1 << 42, access))
  }

  @Test func theCodecsKeepWhatAllFormatsKeep() throws {
    func check<G: ARM64Granule>(_: G.Type, _ outputBits: Int) throws {
      for features in [[], .dirty, .runs, [.dirty, .runs]] as [PageTableFeatures] {
        let options = PageTableOptions(outputBits: outputBits, features: features)
        let first = try ARM64Stage1<G>(options)
        let second = try ARM64Stage2<G>(options)
        try checkCodec(of: first)
        try checkCodec(of: second)
        try checkDirty(of: first, isNoted: features.contains(.dirty))
        try checkDirty(of: second, isNoted: features.contains(.dirty))
      }
    }
    try check(Granule4K.self, 48)
    try check(Granule16K.self, 48)
    try check(Granule64K.self, 52)
    let narrow = PageTableOptions(inputBits: 36, outputBits: 36, features: .runs)
    try checkCodec(of: ARM64Stage1<Granule64K>(narrow))
    try checkCodec(of: ARM64Stage2<Granule4K>(narrow))
  }
}
