// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing

/// What one word of a table says.
public enum TableEntry: Equatable, Sendable {
  /// Nothing is mapped here.
  case empty
  /// A table of the next lower level lies at this address.
  case table(PhysicalAddress)
  /// The word maps the whole span of its level to this address.
  case leaf(PhysicalAddress, Access)
  /// The word has bits that hardware demands to be otherwise: a walk faults here.
  case reserved
}

/// A radix I/O page-table format: how one table word at one level is written and read.
///
/// A format never touches memory. It turns words into meanings and meanings into words, so that
/// the same format can serve tables that this library owns and tables that somebody else does.
///
/// Level 0 holds the smallest leaves; the root is at level `levels - 1`.
public protocol PageTableFormat {
  /// Size of the smallest leaf, and of a table page.
  static var granule: Granule { get }
  /// Bits of input that one level resolves.
  static var indexBits: Int { get }
  /// Numbers of levels that a table may have.
  static var levelCounts: ClosedRange<Int> { get }
  /// Width of output addresses.
  static var outputBits: Int { get }

  static func hasLeaf(at level: Int) -> Bool
  /// Whether a leaf can permit exactly this.
  static func canExpress(_ access: Access) -> Bool
  static func decode(_ word: UInt64, at level: Int) -> TableEntry
  static func leaf(_ output: PhysicalAddress, _ access: Access, at level: Int) -> UInt64
  static func table(_ next: PhysicalAddress) -> UInt64
}

extension PageTableFormat {
  /// The bits of an input address below the index of this level: the exponent of its span.
  static func shift(at level: Int) -> Int { granule.shift &+ level &* indexBits }

  static var entryCount: Int { 1 &<< indexBits }

  static func index(of input: UInt64, at level: Int) -> Int {
    Int(truncatingIfNeeded: input &>> UInt64(shift(at: level))) & (entryCount &- 1)
  }

  /// The bytes of input that one entry of this level covers, less one. An entry above the root covers
  /// the whole table, which may be all 64 bits.
  static func spanMask(at level: Int) -> UInt64 {
    let bits = shift(at: level)
    return bits >= 64 ? UInt64.max : (1 &<< UInt64(bits)) &- 1
  }

  /// The highest input address of a table of so many levels.
  static func lastInput(levels: Int) -> UInt64 { spanMask(at: levels) }

  static var lastOutput: UInt64 {
    outputBits >= 64 ? UInt64.max : (1 &<< UInt64(outputBits)) &- 1
  }
}
