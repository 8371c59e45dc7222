// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import PageTables
import Testing

// Formats that no hardware has, made to break whatever the algorithm may take for granted about the
// one that there is.

/// An 11-bit granule, tables of 256 words, one to three levels, no leaf in the middle level, the
/// address at the bottom of the word, permission by a bit that forbids, and no way to forbid reads.
enum OddFormat: PageTableFormat {
  static var granule: Granule { Granule(shift: 11) }
  static var indexBits: Int { 8 }
  static var levelCounts: ClosedRange<Int> { 1...3 }
  static var outputBits: Int { 52 }

  private static var present: UInt64 { 1 << 63 }
  private static var isLeaf: UInt64 { 1 << 62 }
  private static var noWrite: UInt64 { 1 << 61 }
  private static var numberBits: UInt64 { (1 << 41) - 1 }

  static func hasLeaf(at level: Int) -> Bool { level != 1 }

  static func canExpress(_ access: Access) -> Bool { access.contains(.read) }

  static func decode(_ word: UInt64, at level: Int) -> TableEntry {
    guard word & present != 0 else { return .empty }
    guard word & ~(present | isLeaf | noWrite | numberBits) == 0 else { return .reserved }
    let address = PhysicalAddress((word & numberBits) << 11)
    if word & isLeaf == 0 { return level == 0 ? .reserved : .table(address) }
    let span = UInt64(1) << UInt64(11 + 8 * level)
    guard hasLeaf(at: level), address.rawValue % span == 0 else { return .reserved }
    return .leaf(address, word & noWrite == 0 ? [.read, .write] : .read)
  }

  static func leaf(_ output: PhysicalAddress, _ access: Access, at level: Int) -> UInt64 {
    output.rawValue >> 11 | present | isLeaf | (access.contains(.write) ? 0 : noWrite)
  }

  static func table(_ next: PhysicalAddress) -> UInt64 { next.rawValue >> 11 | present }
}

/// Tables of four words in pages of 4096 bytes: a page need not be full. A leaf at every level, and
/// every permission.
enum TinyFormat: PageTableFormat {
  static var granule: Granule { Granule(shift: 12) }
  static var indexBits: Int { 2 }
  static var levelCounts: ClosedRange<Int> { 1...4 }
  static var outputBits: Int { 52 }

  static func hasLeaf(at level: Int) -> Bool { true }

  static func canExpress(_ access: Access) -> Bool { !access.isEmpty }

  static func decode(_ word: UInt64, at level: Int) -> TableEntry {
    let address = PhysicalAddress(word & 0x000F_FFFF_FFFF_F000)
    switch word & 7 {
    case 0: return .empty
    case 4: return level == 0 ? .reserved : .table(address)
    case let bits where bits < 4: return .leaf(address, Access(rawValue: UInt32(bits)))
    default: return .reserved
    }
  }

  static func leaf(_ output: PhysicalAddress, _ access: Access, at level: Int) -> UInt64 {
    output.rawValue | UInt64(access.rawValue)
  }

  static func table(_ next: PhysicalAddress) -> UInt64 { next.rawValue | 4 }
}

/// Pages of 64 KiB, half full, and exactly all 64 bits of input at four levels.
enum FullFormat: PageTableFormat {
  static var granule: Granule { Granule(shift: 16) }
  static var indexBits: Int { 12 }
  static var levelCounts: ClosedRange<Int> { 2...4 }
  static var outputBits: Int { 52 }

  static func hasLeaf(at level: Int) -> Bool { level <= 1 }

  static func canExpress(_ access: Access) -> Bool { !access.isEmpty }

  static func decode(_ word: UInt64, at level: Int) -> TableEntry {
    let address = PhysicalAddress(word & 0x000F_FFFF_FFFF_0000)
    let access = Access(rawValue: UInt32(truncatingIfNeeded: word & 3))
    if word & 4 != 0 { return level == 0 ? .reserved : .table(address) }
    if access.isEmpty { return .empty }
    return hasLeaf(at: level) ? .leaf(address, access) : .reserved
  }

  static func leaf(_ output: PhysicalAddress, _ access: Access, at level: Int) -> UInt64 {
    output.rawValue | UInt64(access.rawValue)
  }

  static func table(_ next: PhysicalAddress) -> UInt64 { next.rawValue | 4 }
}

/// A format as an argument of a test. A type has no state that threads could share.
struct FormatCase: @unchecked Sendable, CustomTestStringConvertible {
  let format: any PageTableFormat.Type

  var testDescription: String { "\(format)" }

  /// All formats. A format that is added to the library is added here, and is tested by that.
  static let all = [
    FormatCase(format: VTdSecondStage.self),
    FormatCase(format: OddFormat.self),
    FormatCase(format: TinyFormat.self),
    FormatCase(format: FullFormat.self),
  ]
}
