// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

// Theory of operation: walks of foreign tables.
//
// 1. Concepts
// A foreign table is one that a guest or other software makes. It may change at any time and hold
// anything. A walk goes through it as hardware does, and ends with a leaf or a fault. With a second
// stage, all addresses of the first are inputs of the second: those of its tables and its outputs. The
// second may be a table of the library's own.
//
// 2. Implementation
// 2.1 Words are read by a callback of the caller, which knows where physical memory is. A word is read
// once, and all that it says is taken from that one copy: words that change meanwhile make a walk give
// what was never there as a whole, as hardware does, and nothing worse.
// 2.2 The formats are those of the library's own tables (PageTableFormat). Three more questions are put
// to them, because other software may use what this library does not: restrictions in the words of
// tables, and tables past some levels.
// 2.3 The format's value is made for each walk, on the stack, so that walks need no memory. The walk is
// compiled once, for a format that is chosen at run time.
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

  public fileprivate(set) var reason: Reason
  /// The address that the stage could not translate.
  public let input: UInt64
  /// The level of the word, or of the root if there is no word.
  public fileprivate(set) var level: Int
  /// Where the word is, as the tables of the stage have it. 0 if the input is too wide.
  public fileprivate(set) var word: PhysicalAddress
  /// What the callback returned, if it failed.
  public var error: Int32 = 0
  /// 1 or 2.
  public var stage = 1
  /// Whether the second stage was to lead to a word of the first.
  public var isTableAccess = false
  /// The addresses around that of the walk which end it alike. All, if a foreign second stage ended it.
  public var first: UInt64 = 0
  public var last = UInt64.max

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

  fileprivate let kind: PageTableKind
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
    self.kind = kind
    self.options = try options.of(kind, granule: granule)
    self.root = root
    unsafe self.read = read
    unsafe self.opaque = opaque
    let isAligned = try AnyFormat.with(kind, self.options) { format in
      let words = format.lastOffset &>> UInt64(format.shift(at: format.geometry.levels &- 1)) &+ 1
      return root.rawValue & (8 &* words &- 1) == 0
    }
    guard isAligned else { throw .invalidArgument }
  }

  fileprivate func word(at address: PhysicalAddress) -> (word: UInt64, error: CInt) {
    var word: UInt64 = 0
    let error = unsafe read(address.rawValue, &word, opaque)
    return (UInt64(littleEndian: word), error)
  }

  /// The leaf that an input leads to through this stage alone.
  ///
  /// - Parameters:
  ///   - second: what the addresses in the tables are translated by.
  ///   - isSecond: whether this is the second stage, and not the first or only one.
  @inline(never)
  @_optimize(size)
  fileprivate func find(
    _ input: UInt64, for wanted: Access, behind second: ForeignTable? = nil, isSecond: Bool = false
  ) throws(WalkFault) -> FoundLeaf {
    var walk = Walk(table: self, second: second, isSecond: isSecond, input)
    // Does not throw: `init` has made the same.
    try? AnyFormat.with(kind, options) { walk.find($0) }
    let found = walk.found
    if !walk.hasFailed {
      if found.permits(wanted, isSecond: isSecond) {
        return FoundLeaf(
          leaf: found, level: walk.fault.level, word: walk.fault.word,
          saysCacheable: walk.saysCacheable)
      }
      walk.fault.reason = .denied
    }
    if isSecond {
      walk.fault.stage = 2
    } else if walk.fault.stage == 1 {
      (walk.fault.first, walk.fault.last) = (found.first, found.last)
    }
    throw walk.fault
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
    let middle = found.output(of: input)
    return try found.joined(
      with: try second.find(middle, for: wanted, isSecond: true), at: input, middle)
  }
}

extension ForeignTable {
  /// As `TableWalk.translate`, where the second stage is a table of the library's own; and where the first
  /// stage leads.
  ///
  /// The words come from the callback that this was made with: as the second stage lets it read them.
  public func translate(
    _ input: UInt64, for wanted: Access, behind second: borrowing AnyPageTable
  ) throws(WalkFault) -> (PageTableLookup, middle: UInt64) {
    let found = try find(input, for: wanted)
    let middle = found.output(of: input)
    let end = FoundLeaf(
      leaf: second.lookUpAsSecond(middle), level: 0, word: PhysicalAddress(0),
      saysCacheable: second.saysCacheable)
    guard end.leaf.permits(wanted, isSecond: true) else {
      var fault = WalkFault(
        end.leaf.isMapped ? .denied : .notPresent, input: middle, level: 0, word: end.word)
      fault.stage = 2
      (fault.first, fault.last) = found.common(with: end, at: input, middle)
      throw fault
    }
    return (try found.joined(with: end, at: input, middle), middle)
  }
}

extension PageTableLookup {
  /// Whether a leaf of a stage permits anything, and what is wanted.
  @inline(never)
  fileprivate func permits(_ wanted: Access, isSecond: Bool) -> Bool {
    let transfers = wanted.intersection([.read, .write, .execute])
    guard access.isPermission, access.isSuperset(of: transfers) else { return false }
    guard access.contains(.privileged) else { return true }
    // To a second stage no request has privilege.
    return !isSecond && (transfers.isEmpty || wanted.contains(.privileged))
  }
}

/// A leaf that a walk came to.
private struct FoundLeaf {
  let leaf: PageTableLookup
  let level: Int
  let word: PhysicalAddress
  /// Whether leaves of the format say if they are cacheable.
  let saysCacheable: Bool

  /// Where an input that lies in it leads. Outputs have 56 bits at the most.
  func output(of input: UInt64) -> UInt64 { leaf.target &+ (input &- leaf.first) }

  /// The inputs around one that lie in this and lead, from `middle` on, to another leaf or hole.
  @inline(never)
  func common(
    with second: FoundLeaf, at input: UInt64, _ middle: UInt64
  ) -> (first: UInt64, last: UInt64) {
    (
      input &- min(input &- leaf.first, middle &- second.leaf.first),
      input &+ min(leaf.last &- input, second.leaf.last &- middle)
    )
  }

  /// What this, of a first stage, and the leaf of a second stage that it leads to come to.
  func joined(
    with second: FoundLeaf, at input: UInt64, _ middle: UInt64
  ) throws(WalkFault) -> PageTableLookup {
    let access = combined(with: second)
    let (first, last) = common(with: second, at: input, middle)
    guard access.isPermission else {
      // Each permits something, and both together nothing. The second one has the last word.
      var fault = WalkFault(.denied, input: middle, level: second.level, word: second.word)
      fault.stage = 2
      (fault.first, fault.last) = (first, last)
      throw fault
    }
    return PageTableLookup(
      first: first, last: last,
      target: second.leaf.target &+ (middle &- second.leaf.first) &- (input &- first),
      access: access)
  }

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

/// Where a walk is, and how it has ended.
private struct Walk {
  let table: ForeignTable
  let second: ForeignTable?
  let isSecond: Bool
  var geometry = PageTableGeometry(levels: 1, inputBits: 1, outputBits: 1)
  var lastOffset: UInt64 = 0
  var offset: UInt64 = 0
  /// The bytes of input that are alike, less one.
  var mask = UInt64.max
  /// Whether there is no leaf.
  var hasFailed = true
  /// With the level and the place of the last word, be it one or not.
  var fault: WalkFault
  // Of a leaf: where the first of those inputs leads, and what it permits.
  var output: UInt64 = 0
  var access: Access = []
  var saysCacheable = false

  init(table: ForeignTable, second: ForeignTable?, isSecond: Bool, _ input: UInt64) {
    self.table = table
    self.second = second
    self.isSecond = isSecond
    fault = WalkFault(.notPresent, input: input, level: 0, word: PhysicalAddress(0))
  }

  /// Starts at the root. Returns whether there is a way for the input.
  private mutating func start(_ format: AnyFormat) -> Bool {
    geometry = format.geometry
    lastOffset = format.lastOffset
    fault.level = geometry.levels &- 1
    offset = fault.input & geometry.inputMask
    if geometry.offset(of: fault.input) == nil || offset > lastOffset { fault.reason = .inputWidth }
    return fault.reason != .inputWidth
  }

  /// The inputs that are alike.
  var found: PageTableLookup {
    if fault.reason == .inputWidth {
      // There is such an input, so that the number has a next one.
      let last = geometry.lastLowInput
      return PageTableLookup(
        first: min(last, lastOffset) &+ 1, last: geometry.isSigned ? ~last &- 1 : UInt64.max,
        target: 0, access: [])
    }
    return PageTableLookup(
      first: geometry.input(offset & ~mask), last: geometry.input(min(offset | mask, lastOffset)),
      target: output, access: access)
  }

  /// Goes from the root to where it ends.
  mutating func find(_ format: AnyFormat) {
    guard start(format) else { return }
    var next = table.root
    // A root may have more words than other tables, and an offset leads to one of them.
    var indexMask = UInt64.max
    var restrictions: UInt64 = 0
    while true {
      let level = fault.level
      let span = format.spanMask(at: level)
      mask = span
      let index = (offset &>> UInt64(format.shift(at: level))) & indexMask
      guard let word = read(index, of: next) else { return }
      switch format.decode(word, at: level, index: Int(truncatingIfNeeded: index)) {
      case .empty: return
      case .leaf(let leaf):
        end(
          format.access(ofLeaf: word, leaf.access, restrictions: restrictions),
          knowsFetches: format.canExpress([.read, .write, .execute]))
        saysCacheable = format.canExpress([.read, .write, .cacheable])
        // The words of a run that differ are not looked at.
        mask = format.runMask(at: level, order: format.repeatsLeaf ? leaf.order : 0)
        output = leaf.output.rawValue &- (offset & mask & ~span)
        return
      case .table(let table) where level > 0:
        next = table
        fault.level = level &- 1
      case .table, .reserved:
        guard let far = format.farTable(word, at: level) else {
          fault.reason = format.reason(ofReserved: word, at: level)
          return
        }
        guard offset & span & ~format.spanMask(at: far.level &+ 1) == 0 else { return }
        (next, fault.level) = far
      }
      indexMask = (1 &<< UInt64(format.indexBits)) &- 1
      restrictions |= format.restrictions(ofTable: word)
    }
  }

  /// Says what a leaf permits. A second stage that knows no fetches takes them for reads.
  private mutating func end(_ access: Access, knowsFetches: Bool) {
    hasFailed = false
    let isFetchable = isSecond && !knowsFetches && access.contains(.read)
    self.access = isFetchable ? access.union(.execute) : access
  }

  /// A word of a table; nil if the walk ends there.
  @inline(never)
  @_optimize(size)
  private mutating func read(_ index: UInt64, of next: PhysicalAddress) -> UInt64? {
    // Tables are aligned to their sizes.
    let place = PhysicalAddress(next.rawValue | index &<< 3)
    fault.word = place
    // Of the addresses in words `decode` has seen to that.
    guard next.rawValue & ~geometry.outputMask == 0 else {
      fault.reason = .outputWidth
      return nil
    }
    var physical = place
    if let second {
      do throws(WalkFault) {
        let found = try second.find(place.rawValue, for: .read, isSecond: true).leaf
        physical = PhysicalAddress(found.target &+ (place.rawValue &- found.first))
      } catch {
        fault = error
        fault.isTableAccess = true
        return nil
      }
    }
    let (word, error) = table.word(at: physical)
    guard error == 0 else {
      fault.reason = .tableRead
      fault.error = error
      return nil
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
