// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Testing

@testable import PageTables

// Formats that no hardware has, made to break whatever the algorithm may take for granted about those
// that there are.

/// What the mocks have in common: one word for a leaf by itself, no features, no notes of writes.
protocol MockFormat: PageTableFormat {
  static var levelCounts: ClosedRange<Int> { get }
  static var outputBits: Int { get }
  static func inputBits(_ levels: Int) -> Int

  init(geometry: PageTableGeometry)
}

extension MockFormat {
  init(_ options: PageTableOptions) throws(Failure) {
    let levels = options.levels == 0 ? Self.levelCounts.upperBound : options.levels
    guard Self.levelCounts ~= levels else { throw .invalidArgument }
    guard options.features.isEmpty else { throw .notSupported }
    self.init(
      geometry: PageTableGeometry(
        levels: levels, inputBits: Self.inputBits(levels), outputBits: Self.outputBits))
  }

  var notesDirty: Bool { false }

  func isDirty(_ word: UInt64) -> Bool { true }

  func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 { word }
}

/// An 11-bit granule, tables of 256 words, one to three levels, no leaf in the middle level, runs of 2
/// and 8 words of which each says where its own part leads, the address at the bottom of the word,
/// permission by a bit that forbids, and no way to forbid reads.
struct OddFormat: MockFormat {
  var granule: Granule { Granule(shift: 11) }
  var indexBits: Int { 8 }
  var repeatsLeaf: Bool { false }
  static var levelCounts: ClosedRange<Int> { 1...3 }
  static var outputBits: Int { 52 }

  static func inputBits(_ levels: Int) -> Int { 11 + 8 * levels }
  let geometry: PageTableGeometry

  private static var present: UInt64 { 1 << 63 }
  private static var isLeaf: UInt64 { 1 << 62 }
  private static var noWrite: UInt64 { 1 << 61 }
  // The order of the run.
  private static var orderShift: UInt64 { 59 }
  private static var numberBits: UInt64 { (1 << 41) - 1 }

  func leafOrders(at level: Int) -> UInt32 { level == 0 ? 0b1011 : level == 2 ? 1 : 0 }

  func canExpress(_ access: Access) -> Bool {
    access.contains(.read) && access.isSubset(of: .transfers)
  }

  func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    Self.present | Self.isLeaf | (access.contains(.write) ? 0 : Self.noWrite)
      | UInt64(order) << Self.orderShift
  }

  func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    output.rawValue >> 11 | attributes
  }

  func table(_ next: PhysicalAddress, at level: Int) -> UInt64 {
    next.rawValue >> 11 | Self.present
  }

  var plainWords: PlainWords {
    PlainWords(
      addressBits: Self.numberBits << 11, addressShift: 11, presentBits: Self.present,
      accessBits: Self.noWrite, shifts: (0, 0))
  }

  func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    guard word & Self.present != 0 else { return .empty }
    let order = Int(word >> Self.orderShift & 3)
    guard word & (3 << 57 | 0xFFFF << 41) == 0 else { return .reserved }
    let address = (word & Self.numberBits) << 11
    if word & Self.isLeaf == 0 {
      return level == 0 || order != 0 || word & Self.noWrite != 0
        ? .reserved : .table(PhysicalAddress(address))
    }
    let span = UInt64(1) << UInt64(11 + 8 * level)
    guard leafOrders(at: level) >> UInt32(order) & 1 != 0, address % span == 0,
      (address / span) % (1 << UInt64(order)) == UInt64(index) % (1 << UInt64(order))
    else { return .reserved }
    return .leaf(
      TableLeaf(
        PhysicalAddress(address), word & Self.noWrite == 0 ? [.read, .write] : .read, order: order))
  }
}

/// Tables of four words in pages of 4096 bytes: a page need not be full. A leaf at every level, none of
/// them a run, and every permission to read and write.
struct TinyFormat: MockFormat {
  var granule: Granule { Granule(shift: 12) }
  var indexBits: Int { 2 }
  var repeatsLeaf: Bool { false }
  static var levelCounts: ClosedRange<Int> { 1...4 }
  static var outputBits: Int { 52 }

  static func inputBits(_ levels: Int) -> Int { 12 + 2 * levels }
  let geometry: PageTableGeometry

  func leafOrders(at level: Int) -> UInt32 { 1 }

  func canExpress(_ access: Access) -> Bool {
    !access.isEmpty && access.isSubset(of: .transfers)
  }

  func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 { UInt64(access.rawValue) }

  func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    output.rawValue | attributes
  }

  func table(_ next: PhysicalAddress, at level: Int) -> UInt64 { next.rawValue | 4 }

  var plainWords: PlainWords {
    PlainWords(
      addressBits: 0x000F_FFFF_FFFF_F000, presentBits: 3, accessBits: 3, shifts: (62, 62))
  }

  func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    let address = word & 0x000F_FFFF_FFFF_F000
    switch word & 7 {
    case 0: return .empty
    case 4: return level == 0 ? .reserved : .table(PhysicalAddress(address))
    case let bits where bits < 4:
      guard address & spanMask(at: level) == 0 else { return .reserved }
      return .leaf(TableLeaf(PhysicalAddress(address), Access(rawValue: UInt32(bits))))
    default: return .reserved
    }
  }
}

/// Pages of 64 KiB, half full, exactly all 64 bits of input at four levels, and runs of 4 and 4096 words
/// that are all the same.
struct FullFormat: MockFormat {
  var granule: Granule { Granule(shift: 16) }
  var indexBits: Int { 12 }
  var repeatsLeaf: Bool { true }
  static var levelCounts: ClosedRange<Int> { 2...4 }
  static var outputBits: Int { 52 }

  static func inputBits(_ levels: Int) -> Int { 16 + 12 * levels }
  let geometry: PageTableGeometry

  // Bit 3: the order is in the bits from 4 on.
  private static var orderShift: UInt64 { 4 }

  func leafOrders(at level: Int) -> UInt32 {
    level == 0 ? 0b101 : level == 1 ? 0b1000_0000_0001 : 0
  }

  func canExpress(_ access: Access) -> Bool {
    !access.isEmpty && access.isSubset(of: .transfers)
  }

  func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    UInt64(access.rawValue) | UInt64(order) << Self.orderShift
  }

  func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    output.rawValue | attributes
  }

  func table(_ next: PhysicalAddress, at level: Int) -> UInt64 { next.rawValue | 4 }

  var plainWords: PlainWords {
    PlainWords(
      addressBits: 0x000F_FFFF_FFFF_0000, presentBits: 3, accessBits: 3, shifts: (62, 62))
  }

  func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    let address = word & 0x000F_FFFF_FFFF_0000
    let access = Access(rawValue: UInt32(truncatingIfNeeded: word & 3))
    if word & 4 != 0 { return level == 0 ? .reserved : .table(PhysicalAddress(address)) }
    if access.isEmpty { return .empty }
    let order = Int(word >> Self.orderShift & 15)
    let inside = runMask(at: level, order: order)
    guard leafOrders(at: level) >> UInt32(order) & 1 != 0, address & inside == 0 else {
      return .reserved
    }
    let place = UInt64(index) << UInt64(shift(at: level)) & inside
    return .leaf(TableLeaf(PhysicalAddress(address | place), access, order: order))
  }
}

/// A format with options, as an argument of a test.
struct FormatCase: @unchecked Sendable, CustomTestStringConvertible {
  // A type has no state that threads could share.
  let type: any PageTableFormat.Type
  let options: PageTableOptions

  init(
    _ type: any PageTableFormat.Type, shift: Int = 12, isSecondStage: Bool = false,
    levels: Int = 0, inputBits: Int = 0, _ features: PageTableFeatures = []
  ) {
    self.type = type
    let options = PageTableOptions(levels: levels, inputBits: inputBits, features: features)
      .withPages(of: shift)
    self.options = isSecondStage ? options.ofSecondStage : options
  }

  var testDescription: String {
    "\(type) (\(options.granule.bytes) bytes, second: \(options.isSecondStage)), \(options.levels) levels, \(options.inputBits) bits, features \(options.features.rawValue)"
  }

  func format() throws -> any PageTableFormat { try type.init(options) }

  /// All formats. A format that is added to the library is added here, and is tested by that.
  static let all =
    [
      FormatCase(VTdSecondStage.self, levels: 3), FormatCase(VTdSecondStage.self, levels: 4),
      FormatCase(VTdSecondStage.self, levels: 5, [.coherence, .dirty]),
      FormatCase(X86_64.self, levels: 4), FormatCase(X86_64.self, levels: 5, .signedInput),
      FormatCase(X86_64.self, levels: 4, [.signedInput, .dirty]),
      FormatCase(AMDv1.self, levels: 3), FormatCase(AMDv1.self, levels: 6, .dirty),
      FormatCase(AMDv1.self, levels: 4, inputBits: 48, .coherence),
      FormatCase(RISCV.self, levels: 3),
      FormatCase(RISCV.self, levels: 5, [.runs, .dirty, .memoryTypes]),
      FormatCase(RISCV.self, isSecondStage: true, levels: 4),
      FormatCase(RISCV.self, isSecondStage: true, levels: 3, .runs),
      FormatCase(ARM64Stage1.self),
      FormatCase(ARM64Stage1.self, inputBits: 39, [.runs, .dirty]),
      FormatCase(ARM64Stage1.self, shift: 14, .runs),
      FormatCase(ARM64Stage1.self, shift: 16, inputBits: 52, .runs),
      FormatCase(ARM64Stage2.self),
      FormatCase(ARM64Stage2.self, inputBits: 40, .runs),
      FormatCase(ARM64Stage2.self, shift: 14, .runs),
      FormatCase(ARM64Stage2.self, shift: 16, .dirty),
    ] + (1...3).map { FormatCase(OddFormat.self, levels: $0) }
    + (1...4).map { FormatCase(TinyFormat.self, levels: $0) }
    + (2...4).map { FormatCase(FullFormat.self, levels: $0) }
}
