// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

// Theory of operation: IOVA allocation.
//
// 1. Concepts
// An IOVA space is the set of addresses first...last, cut into granules. Each granule is free,
// allocated or reserved. Allocation finds a free range of a size, at a multiple of an alignment,
// below a limit, and takes the highest there is.
//
// 2. Implementation
// The ranges in use, allocated and reserved alike, are nodes of one treap ordered by address
// (Primitives/Treap.swift). Free ranges are not stored: they are the gaps between neighbours, the
// gap below the first and the gap above the last. Each subtree knows its longest gap, so a search
// passes over every subtree that cannot hold the size.
// 2.1 Allocation walks from high to low: the gap above the last range, then in each subtree the
// right part, the gap behind the node, the gap before it, the left part. With granule alignment
// the first gap that is long enough and below the limit fits, and the walk is O(log n). With a
// larger alignment a gap may be long enough and hold no aligned place; then the walk goes on, and
// its result is still exact: it fails only when no place exists.
// 2.2 Free finds the node by its first address and unlinks it. It needs no memory, because a gap
// needs no record, and so it cannot fail. It is refused unless the range is exactly one that was
// allocated, so that a wrong free changes nothing.
// 2.3 Reserving inserts a node like an allocation's, marked.
//
// 3. Locking
// One lock a space (rank 5), held for one tree operation. Nodes come from a slab that is refilled
// before the lock is taken.
//
// 4. What this does not do
// It does not know which ranges are mapped, nor whether a device still has a translation of a range
// cached: the caller frees a range once it has not. It keeps no caches in front of the tree.

/// A set of I/O virtual addresses of which ranges are allocated and freed.
///
/// Locked: any thread may call anything at any time.
@safe
public struct IOVASpace: ~Copyable, @unchecked Sendable {
  private typealias Link = UnsafeMutablePointer<IOVANode>

  /// What the space's lock guards.
  private struct Ranges: ~Copyable {
    var tree = Treap<IOVANode>()
    var cells = Slab<IOVANode>()
    var counts = Counts()
  }

  /// Ranges in use and the bytes in them, modulo 2^64.
  private struct Counts {
    var allocatedCount: UInt64 = 0
    var allocatedBytes: UInt64 = 0
    var reservedCount: UInt64 = 0
    var reservedBytes: UInt64 = 0

    // `sign` is 1 or, modulo 2^64, -1.
    mutating func add(_ node: IOVANode, sign: UInt64) {
      let size = (node.range.extent &+ 1) &* sign
      if node.isReserved {
        reservedCount &+= sign
        reservedBytes &+= size
      } else {
        allocatedCount &+= sign
        allocatedBytes &+= size
      }
    }
  }

  /// The numbers that `iova.h` explains.
  public struct Statistics {
    public let allocatedCount: UInt64
    public let allocatedBytes: UInt64
    public let reservedCount: UInt64
    public let reservedBytes: UInt64
    public let freeBytes: UInt64
    public let largestFreeBytes: UInt64
  }

  /// The addresses of the space.
  public let bounds: IOVARange
  private let granule: Granule
  private let lock: Lock
  private let ranges: UnsafeMutablePointer<Ranges>

  /// - Throws: `invalidArgument` when the bounds are not aligned to the granule, `noMemory`.
  public init(bounds: IOVARange, granule: Granule) throws(Failure) {
    guard bounds.isAligned(to: granule) else { throw .invalidArgument }
    let lock = try Lock(.iovaSpace)
    let ranges = unsafe try Box<Ranges>.place { () throws(Failure) in Ranges() }
    self.bounds = bounds
    self.granule = granule
    self.lock = lock
    unsafe self.ranges = ranges
  }

  deinit { unsafe Box.destroy(ranges) }

  /// Allocates the highest free range of `size` bytes, rounded up to the granule, that starts at a
  /// multiple of `alignment` and has no byte above `limit`.
  ///
  /// - Parameter alignment: a power of two, or 0 for the granule's.
  /// - Throws: `invalidArgument`, `noSpace` when there is no such range, `noMemory`.
  public func allocate(
    size: UInt64, alignment: UInt64, limit: UInt64
  ) throws(Failure) -> IOVARange {
    guard let size = granule.roundedUp(size), alignment & (alignment &- 1) == 0 else {
      throw .invalidArgument
    }
    let alignment = max(alignment, granule.bytes)
    let cell = unsafe try takeCell()
    defer { lock.unlock() }
    guard let place = highestPlace(size: size, alignment: alignment, limit: limit) else {
      unsafe ranges.pointee.cells.giveBack(cell)
      throw .noSpace
    }
    // The place lies in a gap, so that the range neither wraps nor leaves the space.
    let range = try IOVARange(first: IOVA(place), size: size)
    unsafe link(IOVANode(range, isReserved: false), in: cell)
    return range
  }

  /// Frees a range that `allocate` returned; `size` is rounded up as it was there.
  ///
  /// - Throws: `invalidArgument` when there is no such allocation.
  public func free(first: IOVA, size: UInt64) throws(Failure) {
    guard let size = granule.roundedUp(size) else { throw .invalidArgument }
    let range = try IOVARange(first: first, size: size)
    try unlink(range, isReserved: false)
  }

  /// Keeps a range of whole granules from being allocated.
  ///
  /// - Throws: `invalidArgument` when it is not aligned, `outOfRange` when it leaves the space,
  ///   `busy` when a part of it is in use, `noMemory`.
  public func reserve(_ range: IOVARange) throws(Failure) {
    guard range.isAligned(to: granule) else { throw .invalidArgument }
    guard bounds.contains(range) else { throw .outOfRange }
    let cell = unsafe try takeCell()
    defer { lock.unlock() }
    guard isFree(range) else {
      unsafe ranges.pointee.cells.giveBack(cell)
      throw .busy
    }
    unsafe link(IOVANode(range, isReserved: true), in: cell)
  }

  /// Lets a range be allocated again that `reserve` was given.
  ///
  /// - Throws: `invalidArgument` when there is no such reservation.
  public func unreserve(_ range: IOVARange) throws(Failure) {
    try unlink(range, isReserved: true)
  }

  public var statistics: Statistics {
    lock.lock()
    defer { lock.unlock() }
    let counts = unsafe ranges.pointee.counts
    // Modulo 2^64 throughout: of a space of 2^64 bytes the sums are 0 both when they are nothing
    // and when they are everything, and the counts tell which.
    let free = bounds.extent &+ 1 &- counts.allocatedBytes &- counts.reservedBytes
    let isAllFree = counts.allocatedCount == 0 && counts.reservedCount == 0
    return Statistics(
      allocatedCount: counts.allocatedCount,
      allocatedBytes: saturated(counts.allocatedBytes, isAll: counts.allocatedCount != 0),
      reservedCount: counts.reservedCount,
      reservedBytes: saturated(counts.reservedBytes, isAll: counts.reservedCount != 0),
      freeBytes: saturated(free, isAll: isAllFree),
      largestFreeBytes: longestFree)
  }

  /// `bytes`, but the largest number where it stands for 2^64 bytes, which are 0 modulo 2^64.
  private func saturated(_ bytes: UInt64, isAll: Bool) -> UInt64 {
    bytes == 0 && isAll ? UInt64.max : bytes
  }

  /// Takes the lock, and a cell for a new node with it.
  ///
  /// - Throws: `noMemory`; then the lock is not taken.
  private func takeCell() throws(Failure) -> Link {
    lock.lock()
    while true {
      if let cell = unsafe ranges.pointee.cells.take() { return unsafe cell }
      lock.unlock()
      let chunk = try Slab<IOVANode>.makeChunk()
      lock.lock()
      unsafe ranges.pointee.cells.add(chunk)
    }
  }

  private func link(_ node: IOVANode, in cell: Link) {
    unsafe cell.initialize(to: node)
    unsafe ranges.pointee.tree.insert(cell)
    unsafe ranges.pointee.counts.add(node, sign: 1)
    checkInvariants()
  }

  private func unlink(_ range: IOVARange, isReserved: Bool) throws(Failure) {
    lock.lock()
    defer { lock.unlock() }
    guard let node = unsafe ranges.pointee.tree.node(at: range.first.rawValue),
      unsafe node.pointee.range == range && node.pointee.isReserved == isReserved
    else { throw .invalidArgument }
    unsafe ranges.pointee.tree.remove(node)
    unsafe ranges.pointee.counts.add(node.pointee, sign: ~0)
    unsafe ranges.pointee.cells.giveBack(node)
    checkInvariants()
  }

  private func isFree(_ range: IOVARange) -> Bool {
    var node = unsafe ranges.pointee.tree.root
    while let current = unsafe node {
      let other = unsafe current.pointee.range
      if range.overlaps(other) { return false }
      unsafe node = range.last < other.first ? current.pointee.left : current.pointee.right
    }
    return true
  }

  // MARK: - Search

  /// What is looked for. All three are multiples of the granule, but for the limit.
  private struct Request {
    let size: UInt64
    let alignment: UInt64
    let limit: UInt64

    /// The highest place for it in the gap of `length` bytes from `first`.
    func place(from first: UInt64, length: UInt64) -> UInt64? {
      // A gap that holds the size, which is not zero, has a last address.
      length >= size ? place(first: first, last: first &+ (length &- 1)) : nil
    }

    /// The highest place for it in the free range from `first` to `last`.
    func place(first: UInt64, last freeLast: UInt64) -> UInt64? {
      guard first <= limit else { return nil }
      let last = min(freeLast, limit)
      guard last &- first >= size &- 1 else { return nil }
      let place = (last &- (size &- 1)) & ~(alignment &- 1)
      return place >= first ? place : nil
    }
  }

  private func highestPlace(size: UInt64, alignment: UInt64, limit: UInt64) -> UInt64? {
    let request = Request(size: size, alignment: alignment, limit: limit)
    guard let root = unsafe ranges.pointee.tree.root else {
      return request.place(first: bounds.first.rawValue, last: bounds.last.rawValue)
    }
    let (first, last) = unsafe (root.pointee.subtreeFirst, root.pointee.subtreeLast)
    // At the end of the 64-bit space `last + 1` wraps to 0; then the gap above is empty.
    return unsafe request.place(from: last &+ 1, length: bounds.last.rawValue &- last)
      ?? Self.highestPlace(for: request, below: root)
      ?? request.place(from: bounds.first.rawValue, length: first &- bounds.first.rawValue)
  }

  private static func highestPlace(for request: Request, below node: Link?) -> UInt64? {
    guard let node = unsafe node,
      unsafe node.pointee.longestGap >= request.size && node.pointee.subtreeFirst <= request.limit
    else { return nil }
    let range = unsafe node.pointee.range
    let before = unsafe node.pointee.gapBefore
    return unsafe highestPlace(for: request, below: node.pointee.right)
      ?? request.place(from: range.last.rawValue &+ 1, length: node.pointee.gapBehind)
      ?? request.place(from: range.first.rawValue &- before, length: before)
      ?? highestPlace(for: request, below: node.pointee.left)
  }

  /// The bytes of the longest free range, where the largest number stands for 2^64 too.
  private var longestFree: UInt64 {
    guard let root = unsafe ranges.pointee.tree.root else {
      return saturated(bounds.extent &+ 1, isAll: true)
    }
    return unsafe max(
      root.pointee.longestGap,
      max(
        root.pointee.subtreeFirst &- bounds.first.rawValue,
        bounds.last.rawValue &- root.pointee.subtreeLast))
  }
}

extension IOVASpace {
  #if DMACORE_INTERNAL_CHECKS
    /// Traps unless the ranges in use are aligned, inside the space, in order and apart.
    private func checkInvariants() {
      var count: UInt64 = 0
      var node = unsafe ranges.pointee.tree.first
      while let current = unsafe node {
        let range = unsafe current.pointee.range
        precondition(range.isAligned(to: granule), "A range is not aligned to the granule.")
        precondition(bounds.contains(range), "A range leaves the space.")
        count += 1
        unsafe node = ranges.pointee.tree.first(above: range.first.rawValue)
        if let next = unsafe node {
          precondition(unsafe range.last < next.pointee.range.first, "Two ranges overlap.")
        }
      }
      let counts = unsafe ranges.pointee.counts
      precondition(
        count == counts.allocatedCount + counts.reservedCount, "The counts are not the tree's.")
    }
  #else
    private func checkInvariants() {}
  #endif
}
