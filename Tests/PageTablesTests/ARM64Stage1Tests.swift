// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// What a leaf of the first stage permits, bit by bit, as the manual's descriptor formats have it.
@Suite("ARM64Stage1")
struct ARM64Stage1Tests {
  private let format: ARM64Stage1
  private let rich: ARM64Stage1

  init() throws {
    format = try ARM64Stage1(PageTableOptions())
    rich = try ARM64Stage1(PageTableOptions(features: [.dirty, .runs]))
  }

  @Test func whatCanBeExpressedHasReadsAndOneKindOfMemory() throws {
    for access in allAccesses {
      let isOneKind = !(access.contains(.mmio) && access.contains(.cacheable))
      try demandSame(format.canExpress(access), access.contains(.read) && isOneKind, "\(access)")
    }
    #expect(!format.canExpress([.read, Access(rawValue: 64)]))
  }

  /// A page is 3, AF 0x400, nG 0x800, AP[1] 0x40: 0xC43, and 0x80 if it is read-only. Write-back adds
  /// index 1 and inner shareable, 0x304; a device index 2 and outer shareable, 0x208. Bits 53 and 54
  /// are 0x0060 at the top.
  @Test func workedExamplesOfLeaves() {
    let output: UInt64 = 0xFFFF_C000_0000
    let cacheable: Access = [.read, .cacheable]
    #expect(format.leaf(output, cacheable, at: 0) == 0x0060_FFFF_C000_0FC7)
    #expect(format.leaf(output, [.write, .read, .cacheable], at: 0) == 0x0060_FFFF_C000_0F47)
    #expect(format.leaf(output, [.read, .cacheable, .execute], at: 0) == 0x0000_FFFF_C000_0FC7)
    #expect(format.leaf(output, [.read, .cacheable, .privileged], at: 0) == 0x0060_FFFF_C000_0F87)
    #expect(format.leaf(output, [.read, .write, .mmio], at: 0) == 0x0060_FFFF_C000_0E4B)
    #expect(format.leaf(output, [.read, .write], at: 0) == 0x0060_FFFF_C000_0E43)
    #expect(format.leaf(output, cacheable, at: 1) == 0x0060_FFFF_C000_0FC5)
    #expect(format.leaf(output, cacheable, at: 2) == 0x0060_FFFF_C000_0FC5)
  }

  /// The highest digit of an address is in bits 12 to 15.
  @Test func workedExampleOfTheLargeGranule() throws {
    let large = try ARM64Stage1(PageTableOptions(outputBits: 52).withPages(of: 16))
    let word = large.leaf(0x000A_1234_5678_0000, [.read, .write, .cacheable], at: 0)
    #expect(word == 0x0060_1234_5678_AF47)
    #expect(large.decode(word, at: 0) == .leaf(0xA_1234_5678_0000, [.read, .write, .cacheable]))
  }

  /// Bit 52 marks each word of a run; the words differ in their addresses.
  @Test func workedExampleOfARun() {
    let attributes = rich.attributes([.read, .cacheable], order: 4, at: 0)
    let word = rich.leaf(PhysicalAddress(0x8001_3000), attributes: attributes)
    #expect(word == 0x0070_0000_8001_3FC7)
    let expected = TableEntry.leaf(0x8001_3000, [.read, .cacheable], order: 4)
    #expect(rich.decode(word, at: 0, index: 0x13) == expected)
  }

  /// What each bit of a readable page of non-cacheable memory changes.
  @Test func eachBitOfALeaf() throws {
    for bit in Array(2..<10) + Array(11..<64) as [UInt64] {
      let word: UInt64 = 1 << bit
      let plain: Access = [.read, .write, .execute, .privileged]
      let expected: TableEntry =
        switch bit {
        case 2: .leaf(0, plain.union(.cacheable))
        case 3: .leaf(0, plain.union(.mmio))
        case 6: .leaf(0, [.read, .write, .execute])
        case 7: .leaf(0, [.read, .execute, .privileged])
        case 12..<48: .leaf(word, plain)
        case 53: .leaf(0, [.read, .write, .privileged])
        default: .leaf(0, plain)
        }
      try demandSame(format.decode(word | 0x403, at: 0), expected, "bit \(bit)")
    }
    // Without privilege it is the other bit that forbids execution.
    #expect(format.decode(1 << 54 | 0x443, at: 0) == .leaf(0, [.read, .write]))
    #expect(format.decode(1 << 53 | 0x443, at: 0) == .leaf(0, [.read, .write, .execute]))
  }

  @Test func memoryOfOtherIndexesIsNeitherCacheableNorADevice() throws {
    for index in [0, 3, 4, 5, 6, 7] as [UInt64] {
      let word = index << 2 | 0x443
      try demandSame(format.decode(word, at: 0), .leaf(0, [.read, .write, .execute]), "\(index)")
    }
  }

  /// A clean leaf is read-only with bit 51, a dirty one is not read-only.
  @Test func writesAreNotedByMakingALeafWritable() {
    let clean = rich.leaf(0x8000_0000, [.read, .write, .cacheable], at: 0)
    let dirty: UInt64 = 0x0068_0000_8000_0F47
    #expect(clean == 0x0068_0000_8000_0FC7)
    #expect(rich.settingDirty(clean, true) == dirty)
    #expect(rich.settingDirty(dirty, false) == clean)
    #expect(!rich.isDirty(clean))
    #expect(rich.isDirty(dirty))
    let expected = TableEntry.leaf(0x8000_0000, [.read, .write, .cacheable])
    #expect(rich.decode(clean, at: 0) == expected)
    #expect(rich.decode(dirty, at: 0) == expected)
    // Where hardware does not do that, the leaf is read-only.
    #expect(format.decode(clean, at: 0) == .leaf(0x8000_0000, [.read, .cacheable]))
  }

  @Test func aReadOnlyLeafCannotBeMadeDirty() {
    let word = rich.leaf(0x8000_0000, .read, at: 0)
    #expect(rich.settingDirty(word, true) == word)
    #expect(!rich.isDirty(word))
  }

  @Test func aLeafThatIsAlwaysWritableMayHaveBeenWritten() {
    let word: UInt64 = 0x8000_0F47
    #expect(rich.isDirty(word))
    #expect(rich.settingDirty(word, false) == word)
  }
}
