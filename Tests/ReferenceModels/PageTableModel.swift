// SPDX-License-Identifier: MIT OR Apache-2.0

/// A page table as a dictionary of leaves by their first addresses, and a set of tables.
public struct PageTableModel {
  /// What one leaf maps.
  public struct Leaf: Equatable, Sendable {
    public let first: UInt64
    public let size: UInt64
    public let target: UInt64
    public let access: UInt32

    public var last: UInt64 { first + (size - 1) }
  }

  /// A table other than the root: its level, and which of that level's it is.
  private struct Table: Hashable {
    let level: Int
    let number: UInt64
  }

  // What an entry covers, from the lowest level up; and those of them that a leaf can cover.
  private let spans: [UInt64]
  private let leafSizes: [UInt64]
  // What can be mapped: a range lies in one of them.
  private let inputs: [ClosedRange<UInt64>]
  private let lastOutput: UInt64
  private let expressible: Set<UInt32>
  /// How many levels there are, of those that the table may grow to.
  public private(set) var levels: Int
  private var tables: Set<Table> = []
  public private(set) var leaves: [UInt64: Leaf] = [:]
  /// Tables that nothing needed any more since the last reclaim.
  public private(set) var retiredCount = 0

  /// - Parameter levels: how many there are at first; nil: one for each span.
  /// - Parameter expressible: all that a leaf can say of access.
  public init(
    spans: [UInt64], leafSizes: [UInt64], inputs: [ClosedRange<UInt64>], lastOutput: UInt64,
    levels: Int? = nil, expressible: Set<UInt32> = [1, 2, 3]
  ) {
    self.levels = levels ?? spans.count
    self.spans = spans
    self.leafSizes = leafSizes
    self.inputs = inputs
    self.lastOutput = lastOutput
    self.expressible = expressible
  }

  public init(spans: [UInt64], leafSizes: [UInt64], lastInput: UInt64, lastOutput: UInt64) {
    self.init(
      spans: spans, leafSizes: leafSizes, inputs: [0...lastInput], lastOutput: lastOutput)
  }

  private var granule: UInt64 { leafSizes[0] }

  /// Tables in use, the root and the retired ones included.
  public var tableCount: Int { 1 + tables.count + retiredCount }

  public var mappedBytes: UInt64 { leaves.values.map(\.size).reduce(0, +) }

  public func leaf(at address: UInt64) -> Leaf? {
    for size in leafSizes {
      if let leaf = leaves[address / size * size], leaf.size == size { return leaf }
    }
    return nil
  }

  /// The leaves of a mapping: at each place the largest that starts there on both sides and fits.
  public static func leaves(
    from first: UInt64, to target: UInt64, size: UInt64, access: UInt32, sizes: [UInt64]
  ) -> [Leaf] {
    var leaves: [Leaf] = []
    var offset: UInt64 = 0
    while offset < size {
      let fitting = sizes.last {
        (first + offset) % $0 == 0 && (target + offset) % $0 == 0 && size - offset >= $0
      }!
      leaves.append(
        Leaf(first: first + offset, size: fitting, target: target + offset, access: access))
      offset += fitting
    }
    return leaves
  }

  public mutating func map(
    _ first: UInt64, to target: UInt64, size: UInt64, access: UInt32
  ) throws(Refusal) {
    try checkWrap(first, size)
    guard first % granule == 0, target % granule == 0, size % granule == 0,
      access & 7 != 0, access < 64
    else { throw .invalid }
    guard expressible.contains(access) else { throw .notSupported }
    guard isInput(first, size), UInt128(target) + UInt128(size) <= UInt128(lastOutput) + 1
    else { throw .outOfRange }
    guard overlapping(first, first + (size - 1)).isEmpty else { throw .exists }
    grow(to: first + (size - 1))
    // A table grows for an address, not for a leaf that only a higher level has.
    let sizes = leafSizes.filter { levels == spans.count || $0 < spans[levels] }
    let made = Self.leaves(from: first, to: target, size: size, access: access, sizes: sizes)
    for leaf in made { store(leaf) }
  }

  private mutating func grow(to last: UInt64) {
    while levels < spans.count, last >= spans[levels] { grow(toLevels: levels + 1) }
  }

  /// Puts roots above the root, each with the one before it as its first table.
  public mutating func grow(toLevels count: Int) {
    for level in levels..<max(levels, count) {
      tables.insert(Table(level: level - 1, number: 0))
      levels = level + 1
    }
  }

  /// Stores a leaf with the tables above it, and retires those in its place.
  private mutating func store(_ leaf: Leaf) {
    add(leaf)
    retire(leaf.first, leaf.last)
  }

  private mutating func add(_ leaf: Leaf) {
    leaves[leaf.first] = leaf
    // A run lies in the table whose entries are its parts.
    let lowest = spans.lastIndex { $0 <= leaf.size }!
    for level in 0..<(levels - 1) where level >= lowest {
      tables.insert(Table(level: level, number: leaf.first / spans[level + 1]))
    }
  }

  /// Retires the tables all of whose inputs lie in a range.
  private mutating func retire(_ first: UInt64, _ last: UInt64) {
    let covered = tables.filter { table in
      let span = spans[table.level + 1]
      return table.number * span >= first && table.number * span + (span - 1) <= last
    }
    tables.subtract(covered)
    retiredCount += covered.count
  }

  public mutating func reclaim() { retiredCount = 0 }

  /// Returns how many bytes were unmapped.
  ///
  /// - Parameter splitting: whether leaves that the ends cut through are made into smaller ones.
  public mutating func unmap(
    _ first: UInt64, size: UInt64, crossingHoles: Bool, splitting: Bool = false
  ) throws(Refusal) -> UInt64 {
    try checkRange(first, size)
    let last = first + (size - 1)
    if splitting {
      split(before: first)
      if last < UInt64.max { split(before: last + 1) }
    }
    let touched = overlapping(first, last)
    guard touched.allSatisfy({ $0.first >= first && $0.last <= last }) else {
      throw .notSupported
    }
    var next = first
    var unmapped: UInt64 = 0
    for leaf in touched {
      guard crossingHoles || leaf.first == next else { break }
      leaves[leaf.first] = nil
      unmapped += leaf.size
      // The last leaf of the space has no next address, and nothing comes behind it.
      next = leaf.last &+ 1
    }
    if crossingHoles {
      retire(first, last)
    } else if unmapped > 0 {
      retire(first, next &- 1)
    }
    return unmapped
  }

  /// Makes a leaf that reaches over a border into the largest that do not.
  private mutating func split(before border: UInt64) {
    guard border > 0, let leaf = leaf(at: border), leaf.first < border else { return }
    leaves[leaf.first] = nil
    let offset = border - leaf.first
    let pieces = [
      (leaf.first, leaf.target, offset), (border, leaf.target + offset, leaf.size - offset),
    ].flatMap {
      Self.leaves(from: $0, to: $1, size: $2, access: leaf.access, sizes: leafSizes)
    }
    for piece in pieces { add(piece) }
  }

  /// Retires the tables of a range in which nothing is mapped.
  public mutating func trim(_ first: UInt64, size: UInt64) throws(Refusal) {
    try checkRange(first, size)
    let last = first + (size - 1)
    let empty = tables.filter { table in
      let span = spans[table.level + 1]
      let start = table.number * span
      return start >= first && start + (span - 1) <= last
        && overlapping(start, start + (span - 1)).isEmpty
    }
    tables.subtract(empty)
    retiredCount += empty.count
  }

  /// A range that wraps is refused before anything else is looked at.
  private func checkWrap(_ first: UInt64, _ size: UInt64) throws(Refusal) {
    guard size > 0 else { throw .invalid }
    guard !first.addingReportingOverflow(size - 1).overflow else { throw .outOfRange }
  }

  private func isInput(_ first: UInt64, _ size: UInt64) -> Bool {
    inputs.contains { $0.contains(first) && size - 1 <= $0.upperBound - first }
  }

  private func checkRange(_ first: UInt64, _ size: UInt64) throws(Refusal) {
    try checkWrap(first, size)
    guard first % granule == 0, size % granule == 0 else { throw .invalid }
    guard isInput(first, size) else { throw .outOfRange }
  }

  /// The leaves that touch a range, in order.
  private func overlapping(_ first: UInt64, _ last: UInt64) -> [Leaf] {
    leaves.values.filter { $0.first <= last && $0.last >= first }.sorted { $0.first < $1.first }
  }
}
