// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// The formats a caller can choose at run time. The values are those of `pagetable.h`.
public enum PageTableKind: UInt32, Sendable {
  case vtdSecondStage = 1
  case x86_64 = 2
  case amdV1 = 3
  case arm64Stage1 = 4
  case arm64Stage2 = 5
  case riscvFirstStage = 6
  case riscvSecondStage = 7
}

extension PageTableKind {
  /// Does something for the format: the one `switch` over formats.
  @inline(__always)
  fileprivate func with<Use: FormatUse>(_ use: Use) throws(Use.Fault) -> Use.Result {
    switch self {
    case .vtdSecondStage: try use.with(VTdSecondStage.self)
    case .x86_64: try use.with(X86_64.self)
    case .amdV1: try use.with(AMDv1.self)
    case .arm64Stage1: try use.with(ARM64Stage1.self)
    case .arm64Stage2: try use.with(ARM64Stage2.self)
    case .riscvFirstStage, .riscvSecondStage: try use.with(RISCV.self)
    }
  }
}

extension PageTableOptions {
  /// These, with what a kind and the size that C gives for its smallest leaf say; 0 is 4 KiB.
  ///
  /// - Throws: `invalidArgument` when the format lacks it.
  func of(_ kind: PageTableKind, granule: UInt64) throws(Failure) -> PageTableOptions {
    var options = self
    options.isSecondStage = kind == .riscvSecondStage
    switch granule {
    case 0, 4096: options.granule = Granule(shift: 12)
    case 16384 where kind == .arm64Stage1 || kind == .arm64Stage2:
      options.granule = Granule(shift: 14)
    case 65536 where kind == .arm64Stage1 || kind == .arm64Stage2:
      options.granule = Granule(shift: 16)
    default: throw .invalidArgument
    }
    return options
  }
}

/// A format that was chosen at run time.
///
/// The algorithm is compiled for this one, so that it is in the library once.
@safe
struct AnyFormat: PageTableFormat, @unchecked Sendable {
  private let kind: PageTableKind
  // The value of the format.
  private let cell: FormatCell
  private let facts: FormatFacts

  /// The bytes of memory that the value of any format has room in.
  static var cellSize: Int { 128 }

  /// - Throws: `invalidArgument` when the format has no such table, `notSupported` for a feature that it
  ///   does not have, `noMemory`.
  init(_ kind: PageTableKind, _ options: PageTableOptions) throws(Failure) {
    let memory = unsafe try RawMemory.allocate(Self.cellSize, alignment: MemoryLayout<UInt>.size)
    do throws(Failure) {
      try unsafe self.init(kind, options, in: memory)
    } catch {
      unsafe RawMemory.free(memory)
      throw error
    }
  }

  /// - Parameter memory: `cellSize` bytes, which are there for as long as this is used.
  /// - Throws: as above, but for `noMemory`.
  @inline(never)
  @_optimize(size)
  private init(
    _ kind: PageTableKind, _ options: PageTableOptions, in memory: UnsafeMutableRawPointer
  ) throws(Failure) {
    self.kind = kind
    cell = try unsafe kind.with(Make(options: options, memory: memory))
    facts = kind.with(Describe(cell: cell))
  }

  /// The result of `body` for a format whose value is on the stack, so that no memory is needed.
  ///
  /// - Throws: as above, but for `noMemory`, and what `body` throws.
  static func with<Result>(
    _ kind: PageTableKind, _ options: PageTableOptions,
    _ body: (AnyFormat) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try unsafe withUnsafeTemporaryAllocation(
      byteCount: cellSize, alignment: MemoryLayout<UInt>.alignment
    ) { (memory) throws(Failure) in
      // SAFETY: memory of more than no bytes has an address.
      try unsafe body(AnyFormat(kind, options, in: memory.baseAddress.unsafelyUnwrapped))
    }
  }

  // There is no table without a kind.
  init(_ options: PageTableOptions) throws(Failure) { throw .invalidArgument }

  /// Frees the memory of a value that was given none. There may be copies: none is used any more.
  func destroy() { cell.free() }

  var geometry: PageTableGeometry { kind.with(Geometry(cell: cell)) }
  var plainWords: PlainWords { kind.with(Plain(cell: cell)) }
  var granule: Granule { facts.granule }
  var indexBits: Int { facts.indexBits }
  var repeatsLeaf: Bool { facts.repeatsLeaf }
  var notesDirty: Bool { facts.notesDirty }

  @inline(never)
  func leafOrders(at level: Int) -> UInt32 { kind.with(LeafOrders(cell: cell, level: level)) }

  @inline(never)
  func canExpress(_ access: Access) -> Bool { kind.with(CanExpress(cell: cell, access: access)) }

  func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    kind.with(Attributes(cell: cell, access: access, order: order, level: level))
  }

  func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    kind.with(LeafWord(cell: cell, output: output, attributes: attributes))
  }

  @inline(never)
  func table(_ next: PhysicalAddress, at level: Int) -> UInt64 {
    kind.with(TableWord(cell: cell, next: next, level: level))
  }

  @inline(never)
  func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    kind.with(Decode(cell: cell, word: word, level: level, index: index))
  }

  @inline(never)
  func isDirty(_ word: UInt64) -> Bool { kind.with(IsDirty(cell: cell, word: word)) }

  @inline(never)
  func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 {
    kind.with(SetDirty(cell: cell, word: word, isDirty: isDirty))
  }

  func restrictions(ofTable word: UInt64) -> UInt64 {
    kind.with(Restrictions(cell: cell, word: word))
  }

  func access(ofLeaf word: UInt64, _ access: Access, restrictions: UInt64) -> Access {
    kind.with(
      RestrictedAccess(cell: cell, word: word, access: access, restrictions: restrictions))
  }

  func farTable(_ word: UInt64, at level: Int) -> (PhysicalAddress, level: Int)? {
    kind.with(FarTable(cell: cell, word: word, level: level))
  }

  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason {
    kind.with(Reason(cell: cell, word: word, level: level))
  }
}

/// Where the value of a format is whose type is known elsewhere.
@safe
private struct FormatCell {
  private let address: UnsafeMutableRawPointer

  init<Format: PageTableFormat>(_ format: UnsafeMutablePointer<Format>) {
    unsafe address = UnsafeMutableRawPointer(format)
  }

  func free() { unsafe RawMemory.free(address) }

  @inline(__always)
  func format<Format: PageTableFormat>(_: Format.Type) -> UnsafeMutablePointer<Format> {
    // SAFETY: `Make` placed a value of the type that the kind beside the cell stands for, and every
    // use goes by that kind.
    unsafe address.assumingMemoryBound(to: Format.self)
  }
}

private struct FormatFacts {
  let granule: Granule
  let indexBits: Int
  let repeatsLeaf: Bool
  let notesDirty: Bool
}

/// Something to be done for a format.
protocol FormatUse {
  associatedtype Result
  associatedtype Fault: Error

  func with<Format: PageTableFormat>(_: Format.Type) throws(Fault) -> Result
}

@safe
private struct Make: FormatUse {
  let options: PageTableOptions
  let memory: UnsafeMutableRawPointer

  // Formats are numbers, whose memory is all that has to be given back.
  func with<Format: PageTableFormat>(_: Format.Type) throws(Failure) -> FormatCell {
    precondition(MemoryLayout<Format>.size <= AnyFormat.cellSize)
    return unsafe FormatCell(memory.initializeMemory(as: Format.self, to: try Format(options)))
  }
}

private struct Describe: FormatUse {
  let cell: FormatCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> FormatFacts {
    let format = unsafe cell.format(format).pointee
    return FormatFacts(
      granule: format.granule, indexBits: format.indexBits, repeatsLeaf: format.repeatsLeaf,
      notesDirty: format.notesDirty)
  }
}

private struct Geometry: FormatUse {
  let cell: FormatCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> PageTableGeometry {
    unsafe cell.format(format).pointee.geometry
  }
}

private struct Plain: FormatUse {
  let cell: FormatCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> PlainWords {
    unsafe cell.format(format).pointee.plainWords
  }
}

private struct LeafOrders: FormatUse {
  let cell: FormatCell
  let level: Int

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt32 {
    unsafe cell.format(format).pointee.leafOrders(at: level)
  }
}

private struct CanExpress: FormatUse {
  let cell: FormatCell
  let access: Access

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> Bool {
    unsafe cell.format(format).pointee.canExpress(access)
  }
}

private struct Attributes: FormatUse {
  let cell: FormatCell
  let access: Access
  let order: Int
  let level: Int

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt64 {
    unsafe cell.format(format).pointee.attributes(access, order: order, at: level)
  }
}

private struct LeafWord: FormatUse {
  let cell: FormatCell
  let output: PhysicalAddress
  let attributes: UInt64

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt64 {
    unsafe cell.format(format).pointee.leaf(output, attributes: attributes)
  }
}

private struct TableWord: FormatUse {
  let cell: FormatCell
  let next: PhysicalAddress
  let level: Int

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt64 {
    unsafe cell.format(format).pointee.table(next, at: level)
  }
}

private struct Decode: FormatUse {
  let cell: FormatCell
  let word: UInt64
  let level: Int
  let index: Int

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> TableEntry {
    unsafe cell.format(format).pointee.decode(word, at: level, index: index)
  }
}

private struct IsDirty: FormatUse {
  let cell: FormatCell
  let word: UInt64

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> Bool {
    unsafe cell.format(format).pointee.isDirty(word)
  }
}

private struct SetDirty: FormatUse {
  let cell: FormatCell
  let word: UInt64
  let isDirty: Bool

  @inline(__always)
  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt64 {
    unsafe cell.format(format).pointee.settingDirty(word, isDirty)
  }
}

// What is asked of the words of foreign tables.

private struct Restrictions: FormatUse {
  let cell: FormatCell
  let word: UInt64

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt64 {
    unsafe cell.format(format).pointee.restrictions(ofTable: word)
  }
}

private struct RestrictedAccess: FormatUse {
  let cell: FormatCell
  let word: UInt64
  let access: Access
  let restrictions: UInt64

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> Access {
    unsafe cell.format(format).pointee.access(ofLeaf: word, access, restrictions: restrictions)
  }
}

private struct FarTable: FormatUse {
  let cell: FormatCell
  let word: UInt64
  let level: Int

  func with<Format: PageTableFormat>(
    _ format: Format.Type
  ) throws(Never) -> (PhysicalAddress, level: Int)? {
    unsafe cell.format(format).pointee.farTable(word, at: level)
  }
}

private struct Reason: FormatUse {
  let cell: FormatCell
  let word: UInt64
  let level: Int

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> WalkFault.Reason {
    unsafe cell.format(format).pointee.reason(ofReserved: word, at: level)
  }
}
