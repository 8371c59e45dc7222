// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// What a leaf of the second stage permits, bit by bit, as the manual's descriptor formats have it.
@Suite("ARM64Stage2")
struct ARM64Stage2Tests {
  private let format: ARM64Stage2
  private let rich: ARM64Stage2

  init() throws {
    format = try ARM64Stage2(PageTableOptions())
    rich = try ARM64Stage2(PageTableOptions(features: [.dirty, .runs]))
  }

  @Test func whatCanBeExpressedIsForAllAndOfOneKindOfMemory() throws {
    for access in allAccesses {
      let isOneKind = !(access.contains(.mmio) && access.contains(.cacheable))
      let permits = !access.isDisjoint(with: [.read, .write, .execute])
      let expected = isOneKind && permits && !access.contains(.privileged)
      try demandSame(format.canExpress(access), expected, "\(access)")
    }
    #expect(!format.canExpress([.read, Access(rawValue: 64)]))
  }

  /// A page is 3 and AF 0x400; reads 0x40, writes 0x80. Write-back and inner shareable are 0x33C, a
  /// device and outer shareable 0x204, neither 0x214. XN is 0x0040 at the top.
  @Test func workedExamplesOfLeaves() {
    let output: UInt64 = 0xFFFF_C000_0000
    #expect(format.leaf(output, [.read, .write, .cacheable], at: 0) == 0x0040_FFFF_C000_07FF)
    #expect(format.leaf(output, [.read, .cacheable], at: 1) == 0x0040_FFFF_C000_077D)
    #expect(format.leaf(output, [.write, .cacheable], at: 0) == 0x0040_FFFF_C000_07BF)
    #expect(format.leaf(output, [.read, .mmio], at: 0) == 0x0040_FFFF_C000_0647)
    #expect(format.leaf(output, [.read, .write, .execute], at: 0) == 0x0000_FFFF_C000_06D7)
    #expect(format.leaf(output, [.read, .write], at: 2) == 0x0040_FFFF_C000_06D5)
  }

  /// What each bit of a page that permits nothing but execution changes. With MemAttr 0 it is a device.
  @Test func eachBitOfALeaf() throws {
    for bit in Array(2..<10) + Array(11..<64) as [UInt64] {
      let word: UInt64 = 1 << bit
      let plain: Access = [.execute, .mmio]
      let expected: TableEntry =
        switch bit {
        case 4, 5: .leaf(0, .execute)
        case 6: .leaf(0, [.read, .execute, .mmio])
        case 7: .leaf(0, [.write, .execute, .mmio])
        case 12..<48: .leaf(word, plain)
        case 53, 54: .leaf(0, .mmio)
        default: .leaf(0, plain)
        }
      try demandSame(format.decode(word | 0x403, at: 0), expected, "bit \(bit)")
    }
  }

  @Test func onlyWriteBackInBothIsCacheableAndOnlyOuterDevicesAreDevices() throws {
    for kind in 0...15 as ClosedRange<UInt64> {
      var expected: Access = [.read, .execute]
      if kind == 15 { expected.insert(.cacheable) }
      if kind < 4 { expected.insert(.mmio) }
      try demandSame(format.decode(kind << 2 | 0x443, at: 0), .leaf(0, expected), "\(kind)")
    }
  }

  /// A clean leaf is not writable but has bit 51, a dirty one is writable.
  @Test func writesAreNotedByMakingALeafWritable() {
    let clean = rich.leaf(0x8000_0000, [.read, .write, .cacheable], at: 0)
    let dirty: UInt64 = 0x0048_0000_8000_07FF
    #expect(clean == 0x0048_0000_8000_077F)
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
}
