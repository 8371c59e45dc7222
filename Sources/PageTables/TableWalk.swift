// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

// Theory of operation: walks of foreign tables.
//
// 1. Concepts
// A foreign table is one that a guest or other software makes. It may change at any time and hold
// anything. A walk goes through it as hardware does, and ends with a leaf or a fault. With a second
// stage, all addresses of the first are inputs of the second: those of its tables and its outputs.
//
// 2. Implementation
// 2.1 Words are read by a callback of the caller, which knows where physical memory is. A word is read
// once, and all that it says is taken from that one copy: words that change meanwhile make a walk give
// what was never there as a whole, as hardware does, and nothing worse.
// 2.2 The formats are those of the library's own tables (PageTableFormat). Three more questions are put
// to them, because other software may use what this library does not: restrictions in the words of
// tables, and tables past some levels.
// 2.3 The format's value is made for each walk, on the stack, so that walks need no memory. What the
// formats have in common is compiled for each of them, which is small.
// 2.4 A walk ends: each word of a stage is on a lower level than the one before. It reads one word for
// each level at the most; with two stages, of n and m levels, (n + 1) * (m + 1) - 1.
//
// 3. Concurrency
// There is no state.
//
// 4. What this does not do
// It writes nothing, so it notes neither accesses nor writes. It caches nothing. It knows no modes of
// processors that forbid more than the tables do.

/// Why a walk ended without a leaf, and where.
public struct WalkFault: Error, Equatable, Sendable {
  /// The values are those of `pagetable.h`.
  public enum Reason: UInt32, Sendable {
    case notPresent = 1
    case reserved = 2
    case denied = 3
    case inputWidth = 4
    case outputWidth = 5
    case notAccessed = 6
    case tableRead = 7
  }

  public let reason: Reason
  /// The address that the stage could not translate.
  public let input: UInt64
  /// The level of the word, or of the root if there is no word.
  public let level: Int
  /// Where the word is, as the tables of the stage have it. 0 if the input is too wide.
  public let word: PhysicalAddress
  /// What the callback returned, if it failed.
  public var error: Int32 = 0
  /// 1 or 2.
  public var stage = 1
  /// Whether the second stage was to lead to a word of the first.
  public var isTableAccess = false

  public init(_ reason: Reason, input: UInt64, level: Int, word: PhysicalAddress) {
    self.reason = reason
    self.input = input
    self.level = level
    self.word = word
  }
}

/// The root of tables that others make, and how to read them.
///
/// Having one tells you that the format has such tables, and that the root is aligned. It tells you
/// nothing about what is in them.
@safe
public struct ForeignTable {
  /// As in `pagetable.h`: 0, or what went wrong.
  public typealias Read =
    @convention(c) (
      dmacore_phys_t, UnsafeMutablePointer<UInt64>?, UnsafeMutableRawPointer?
    ) -> CInt

  fileprivate let choice: AnyFormat.Choice
  fileprivate let options: PageTableOptions
  fileprivate let root: PhysicalAddress
  private let read: Read
  private let opaque: UnsafeMutableRawPointer?

  /// - Parameter granule: the size of the smallest leaf in bytes; 0 for 4 KiB.
  /// - Throws: `invalidArgument` for tables that the format does not have and for a root that is not
  ///   aligned to its size, `notSupported` for a feature that the format does not have.
  @_optimize(size)
  public init(
    kind: PageTableKind, granule: UInt64 = 0, options: PageTableOptions, root: PhysicalAddress,
    read: Read, opaque: UnsafeMutableRawPointer?
  ) throws(Failure) {
    choice = try AnyFormat.Choice(kind, granule: granule)
    self.options = options
    self.root = root
    unsafe self.read = read
    unsafe self.opaque = opaque
    try choice.with(CheckRoot(options: options, root: root))
  }

  fileprivate func word(at address: PhysicalAddress) -> (word: UInt64, error: CInt) {
    var word: UInt64 = 0
    let error = unsafe read(address.rawValue, &word, opaque)
    return (UInt64(littleEndian: word), error)
  }

  /// The leaf that an input leads to through this stage alone, as the first or only one.
  ///
  /// - Parameter second: what the addresses in the tables are translated by.
  fileprivate func find(
    _ input: UInt64, for wanted: Access, behind second: ForeignTable?
  ) throws(WalkFault) -> FoundLeaf {
    try choice.with(
      FindLeaf(table: self, second: second, isSecond: false, input: input, wanted: wanted))
  }

  /// As `find`, of a second stage.
  fileprivate func findAsSecond(
    _ input: UInt64, for wanted: Access, isTableAccess: Bool
  ) throws(WalkFault) -> FoundLeaf {
    do throws(WalkFault) {
      return try choice.with(
        FindLeaf(table: self, second: nil, isSecond: true, input: input, wanted: wanted))
    } catch {
      var fault = error
      fault.stage = 2
      fault.isTableAccess = isTableAccess
      throw fault
    }
  }
}

/// Tables that others make, of one stage or of two.
public struct TableWalk {
  private let first: ForeignTable
  private let second: ForeignTable?

  public init(_ first: ForeignTable, behind second: ForeignTable? = nil) {
    self.first = first
    self.second = second
  }

  /// The leaf that an input lies in; of two stages, what lies in the leaves of both.
  ///
  /// - Parameter wanted: what a request does, and whether it has privilege; nothing to find out.
  public func translate(
    _ input: IOVA, for wanted: Access
  ) throws(WalkFault) -> PageTableLookup {
    let input = input.rawValue
    let found = try first.find(input, for: wanted, behind: second)
    guard let second else { return found.leaf }
    let leaf = found.leaf
    // Outputs have 56 bits at the most.
    let middle = leaf.target &+ (input &- leaf.first)
    let end = try second.findAsSecond(middle, for: wanted, isTableAccess: false)
    let access = found.combined(with: end)
    guard access.isPermission else {
      // Each permits something, and both together nothing. The second one has the last word.
      var fault = WalkFault(.denied, input: middle, level: end.level, word: end.word)
      fault.stage = 2
      throw fault
    }
    let before = min(input &- leaf.first, middle &- end.leaf.first)
    let after = min(leaf.last &- input, end.leaf.last &- middle)
    return PageTableLookup(
      first: input &- before, last: input &+ after,
      target: end.leaf.target &+ (middle &- end.leaf.first) &- before, access: access)
  }
}

/// A leaf that a walk came to.
private struct FoundLeaf {
  let leaf: PageTableLookup
  let level: Int
  let word: PhysicalAddress
  /// Whether leaves of the format say if they are cacheable.
  let saysCacheable: Bool

  /// What this, of a first stage, and a leaf of a second stage permit together.
  func combined(with second: FoundLeaf) -> Access {
    let (mine, other) = (leaf.access, second.leaf.access)
    let cacheable: Access
    switch (saysCacheable, second.saysCacheable) {
    case (true, true): cacheable = mine.intersection(other)
    case (true, false): cacheable = mine
    case (false, _): cacheable = other
    }
    return mine.intersection(other).intersection([.read, .write, .execute])
      .union(mine.intersection(.privileged))
      .union(mine.union(other).intersection(.mmio))
      .union(cacheable.intersection(.cacheable))
  }
}

private struct CheckRoot: FormatUse {
  let options: PageTableOptions
  let root: PhysicalAddress

  func with<Format: PageTableFormat>(_: Format.Type) throws(Failure) {
    let format = try Format(options)
    let words = format.lastOffset &>> UInt64(format.shift(at: format.geometry.levels &- 1)) &+ 1
    guard root.rawValue & (8 &* words &- 1) == 0 else { throw .invalidArgument }
  }
}

private struct FindLeaf: FormatUse {
  let table: ForeignTable
  let second: ForeignTable?
  let isSecond: Bool
  let input: UInt64
  let wanted: Access

  // There is one for each format.
  @_optimize(size)
  @inline(never)
  func with<Format: PageTableFormat>(_: Format.Type) throws(WalkFault) -> FoundLeaf {
    guard let format = try? Format(table.options) else {
      // Never: `ForeignTable.init` has made the same.
      throw WalkFault(.reserved, input: input, level: 0, word: PhysicalAddress(0))
    }
    let geometry = format.geometry
    var level = geometry.levels &- 1
    guard let offset = geometry.offset(of: input), offset <= format.lastOffset else {
      throw WalkFault(.inputWidth, input: input, level: level, word: PhysicalAddress(0))
    }
    var next = table.root
    // A root may have more words than other tables, and an offset leads to one of them.
    var indexMask = UInt64.max
    var restrictions: UInt64 = 0
    while true {
      let index = (offset &>> UInt64(format.shift(at: level))) & indexMask
      // Tables are aligned to their sizes.
      let place = PhysicalAddress(next.rawValue | index &<< 3)
      func fault(_ reason: WalkFault.Reason) -> WalkFault {
        WalkFault(reason, input: input, level: level, word: place)
      }
      // Of the addresses in words `decode` has seen to that.
      guard next.rawValue & ~geometry.outputMask == 0 else { throw fault(.outputWidth) }
      let word = try word(at: place, level)
      switch format.decode(word, at: level, index: Int(truncatingIfNeeded: index)) {
      case .empty: throw fault(.notPresent)
      case .leaf(let leaf):
        var permitted = format.access(ofLeaf: word, leaf.access, restrictions: restrictions)
        // To a second stage that knows no fetches they are reads.
        if isSecond && permitted.contains(.read) && !format.canExpress([.read, .write, .execute]) {
          permitted.insert(.execute)
        }
        guard permits(permitted) else { throw fault(.denied) }
        // The words of a run that differ are not looked at.
        let mask = format.runMask(at: level, order: format.repeatsLeaf ? leaf.order : 0)
        let inside = offset & mask & ~format.spanMask(at: level)
        return FoundLeaf(
          leaf: PageTableLookup(
            first: geometry.input(offset & ~mask),
            last: geometry.input(min(offset | mask, format.lastOffset)),
            target: leaf.output.rawValue &- inside, access: permitted),
          level: level, word: place,
          saysCacheable: format.canExpress([.read, .write, .cacheable]))
      case .table(let table) where level > 0:
        next = table
        level &-= 1
      case .table, .reserved:
        guard let far = format.farTable(word, at: level) else {
          throw fault(format.reason(ofReserved: word, at: level))
        }
        guard offset & format.spanMask(at: level) & ~format.spanMask(at: far.level &+ 1) == 0
        else { throw fault(.notPresent) }
        (next, level) = far
      }
      indexMask = (1 &<< UInt64(format.indexBits)) &- 1
      restrictions |= format.restrictions(ofTable: word)
    }
  }

  // What is the same for all formats is compiled once.

  /// Whether a leaf permits anything, and what is wanted.
  @inline(never)
  private func permits(_ access: Access) -> Bool {
    let transfers = wanted.intersection([.read, .write, .execute])
    guard access.isPermission, access.isSuperset(of: transfers) else { return false }
    guard access.contains(.privileged) else { return true }
    // To a second stage no request has privilege.
    return !isSecond && (transfers.isEmpty || wanted.contains(.privileged))
  }

  /// - Parameter place: as the tables of this stage have it.
  @inline(never)
  private func word(at place: PhysicalAddress, _ level: Int) throws(WalkFault) -> UInt64 {
    var physical = place
    if let second {
      let found = try second.findAsSecond(place.rawValue, for: .read, isTableAccess: true).leaf
      physical = PhysicalAddress(found.target &+ (place.rawValue &- found.first))
    }
    let (word, error) = table.word(at: physical)
    guard error == 0 else {
      var fault = WalkFault(.tableRead, input: input, level: level, word: place)
      fault.error = error
      throw fault
    }
    return word
  }
}

extension PageTableFormat {
  /// The highest offset that a root reaches. Below one of fewer levels than it may grow to, all inputs
  /// have to be resolved by the levels that there are.
  fileprivate var lastOffset: UInt64 {
    geometry.levels == geometry.levelsMax
      ? geometry.inputMask : min(geometry.inputMask, spanMask(at: geometry.levels))
  }

  // What most formats answer.

  func restrictions(ofTable word: UInt64) -> UInt64 { 0 }

  func access(ofLeaf word: UInt64, _ access: Access, restrictions: UInt64) -> Access { access }

  func farTable(_ word: UInt64, at level: Int) -> (PhysicalAddress, level: Int)? { nil }

  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason { .reserved }
}
