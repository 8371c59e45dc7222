// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

/// The formats a caller can choose at run time. The values are those of `pagetable.h`.
public enum PageTableKind: UInt32, Sendable {
  case vtdSecondStage = 1
}

/// A format with all that is a parameter of its type.
enum FormatChoice {
  case vtdSecondStage

  /// - Parameter granule: the size of the smallest leaf in bytes; 0 for the smallest that there is.
  /// - Throws: `invalidArgument` when the format lacks it.
  init(_ kind: PageTableKind, granule: UInt64) throws(Failure) {
    switch (kind, granule) {
    case (.vtdSecondStage, 0), (.vtdSecondStage, 4096): self = .vtdSecondStage
    default: throw .invalidArgument
    }
  }

  /// Does something for the format: the one `switch` between C and the formats.
  @inline(__always)
  func apply<Use: FormatUse>(_ use: Use) throws(Use.Fault) -> Use.Result {
    switch self {
    case .vtdSecondStage: try use.with(VTdSecondStage.self)
    }
  }
}

/// Something to be done for a format that is chosen at run time.
protocol FormatUse {
  associatedtype Result
  associatedtype Fault: Error

  func with<Format: PageTableFormat>(_: Format.Type) throws(Fault) -> Result
}

/// What a page table is made from.
@safe
public struct PageTableConfiguration {
  let choice: FormatChoice
  public let options: PageTableOptions
  public let allocator: dmacore_table_allocator?

  /// - Parameter granule: the size of the smallest leaf, for formats that have several; 0 for 4 KiB.
  /// - Throws: `invalidArgument` for a table that the format does not have, `notSupported` for a feature
  ///   that it does not have.
  public init(
    kind: PageTableKind, granule: UInt64 = 0, options: PageTableOptions = PageTableOptions(),
    allocator: dmacore_table_allocator?
  ) throws(Failure) {
    choice = try FormatChoice(kind, granule: granule)
    self.options = options
    unsafe self.allocator = allocator
    try choice.apply(Check(options: options))
  }

  private struct Check: FormatUse {
    let options: PageTableOptions

    func with<Format: PageTableFormat>(_: Format.Type) throws(Failure) { _ = try Format(options) }
  }
}

/// A page table whose format was chosen at run time.
@safe
public struct AnyPageTable: ~Copyable, @unchecked Sendable {
  private let choice: FormatChoice
  private let cell: PageTableCell

  public init(_ configuration: PageTableConfiguration) throws(Failure) {
    choice = configuration.choice
    cell = try configuration.choice.apply(Make(configuration: configuration))
  }

  deinit { choice.apply(Destroy(cell: cell)) }

  public func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access, isKnownFree: Bool = false
  ) throws(Failure) {
    try choice.apply(
      Map(cell: cell, input: input, output: output, access: access, isKnownFree: isKnownFree))
  }

  public func reserve(_ input: IOVARange) throws(Failure) {
    try choice.apply(Reserve(cell: cell, input: input))
  }

  public func unmap(
    _ input: IOVARange, crossingHoles: Bool, splitting: Bool = false
  ) throws(Failure) -> UInt64 {
    try choice.apply(
      Unmap(cell: cell, input: input, crossingHoles: crossingHoles, splitting: splitting))
  }

  public func trim(_ input: IOVARange) throws(Failure) {
    try choice.apply(Trim(cell: cell, input: input))
  }

  public func lookUp(_ input: IOVA) -> PageTableLookup {
    choice.apply(LookUp(cell: cell, input: input))
  }

  /// Sets the bits of the granules of a range that were written through, from the first granule on.
  public func readDirty(
    _ input: IOVARange, into bitmap: UnsafeMutablePointer<UInt64>, clearing: Bool
  ) throws(Failure) {
    try unsafe choice.apply(
      ReadDirty(cell: cell, input: input, bitmap: bitmap, clearing: clearing))
  }

  public func setDirty(_ input: IOVARange, _ isDirty: Bool) throws(Failure) {
    try choice.apply(SetDirty(cell: cell, input: input, isDirty: isDirty))
  }

  public func reclaim(after wait: () -> Void) {
    let retired = choice.apply(TakeRetired(cell: cell))
    guard retired != 0 else { return }
    // Only after the list was taken: what is retired from here on is not on it.
    wait()
    choice.apply(FreeRetired(cell: cell, first: retired))
  }

  public var statistics: PageTableStatistics { choice.apply(Count(cell: cell)) }

  public var facts: PageTableFacts { choice.apply(Describe(cell: cell)) }

  public var retiredTables: UInt64 { choice.apply(CountRetired(cell: cell)) }
}

/// Where a page table is whose format is known elsewhere.
@safe
private struct PageTableCell {
  private let address: UnsafeMutableRawPointer

  init<Format: PageTableFormat>(_ table: UnsafeMutablePointer<PageTable<Format>>) {
    unsafe address = UnsafeMutableRawPointer(table)
  }

  @inline(__always)
  func table<Format: PageTableFormat>(_: Format.Type) -> UnsafeMutablePointer<PageTable<Format>> {
    // SAFETY: `Make` made a table of the format that the choice beside the cell stands for, and every
    // use goes by that choice.
    unsafe address.assumingMemoryBound(to: PageTable<Format>.self)
  }
}

// MARK: - Uses

private struct Make: FormatUse {
  let configuration: PageTableConfiguration

  func with<Format: PageTableFormat>(_: Format.Type) throws(Failure) -> PageTableCell {
    unsafe PageTableCell(
      try Box<PageTable<Format>>.place { () throws(Failure) in
        unsafe try PageTable(configuration.options, allocator: configuration.allocator)
      })
  }
}

private struct Destroy: FormatUse {
  let cell: PageTableCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) {
    unsafe Box.destroy(cell.table(format))
  }
}

private struct Map: FormatUse {
  let cell: PageTableCell
  let input: IOVARange
  let output: PhysicalAddress
  let access: Access
  let isKnownFree: Bool

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Failure) {
    try unsafe cell.table(format).pointee.map(
      input, to: output, access: access, isKnownFree: isKnownFree)
  }
}

private struct Reserve: FormatUse {
  let cell: PageTableCell
  let input: IOVARange

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Failure) {
    try unsafe cell.table(format).pointee.reserve(input)
  }
}

private struct Unmap: FormatUse {
  let cell: PageTableCell
  let input: IOVARange
  let crossingHoles: Bool
  let splitting: Bool

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Failure) -> UInt64 {
    try unsafe cell.table(format).pointee.unmap(
      input, crossingHoles: crossingHoles, splitting: splitting)
  }
}

private struct Trim: FormatUse {
  let cell: PageTableCell
  let input: IOVARange

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Failure) {
    try unsafe cell.table(format).pointee.trim(input)
  }
}

private struct LookUp: FormatUse {
  let cell: PageTableCell
  let input: IOVA

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> PageTableLookup {
    unsafe cell.table(format).pointee.lookUp(input)
  }
}

@safe
private struct ReadDirty: FormatUse {
  let cell: PageTableCell
  let input: IOVARange
  let bitmap: UnsafeMutablePointer<UInt64>
  let clearing: Bool

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Failure) {
    let start = input.first.rawValue
    let shift = UInt64(Format.granule.shift)
    try unsafe cell.table(format).pointee.forEachDirty(input, clearing: clearing) { first, last in
      for granule in (first &- start) &>> shift...(last &- start) &>> shift {
        unsafe bitmap[Int(granule / 64)] |= 1 &<< (granule & 63)
      }
    }
  }
}

private struct SetDirty: FormatUse {
  let cell: PageTableCell
  let input: IOVARange
  let isDirty: Bool

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Failure) {
    try unsafe cell.table(format).pointee.setDirty(input, isDirty)
  }
}

private struct TakeRetired: FormatUse {
  let cell: PageTableCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt {
    unsafe cell.table(format).pointee.takeRetired()
  }
}

private struct FreeRetired: FormatUse {
  let cell: PageTableCell
  let first: UInt

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) {
    unsafe cell.table(format).pointee.freeRetired(first)
  }
}

private struct CountRetired: FormatUse {
  let cell: PageTableCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> UInt64 {
    unsafe cell.table(format).pointee.retiredTables
  }
}

private struct Count: FormatUse {
  let cell: PageTableCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> PageTableStatistics {
    unsafe cell.table(format).pointee.statistics
  }
}

private struct Describe: FormatUse {
  let cell: PageTableCell

  func with<Format: PageTableFormat>(_ format: Format.Type) throws(Never) -> PageTableFacts {
    unsafe cell.table(format).pointee.facts
  }
}
