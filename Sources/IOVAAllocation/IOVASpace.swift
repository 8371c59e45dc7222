// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization

// Theory of operation: IOVA allocation.
//
// 1. Concepts
// An IOVA space is the set of addresses first...last, cut into granules. Each granule is free,
// allocated or reserved. Allocation finds a free range of a size under constraints: where it may
// lie, how it is aligned, what it may not cross. A gap is a free range between two in use.
//
// 2. Implementation
// 2.1 The store has the ranges in use, allocated and reserved, in a B+ tree that knows of every part
// of the space its longest gap and its largest aligned block (IOVATree.swift; docs/IOVA.md has the
// algorithm and the proof of its bounds). Gaps have no records of their own, so that freeing needs
// no memory: it makes a gap longer.
// 2.2 In front of it, ranges of a power of two of granules that were freed are kept for the next who
// wants such a one: in the cell of the processor (IOVACaches.swift), and between the cells in a
// depot of full magazines (IOVAStore.swift). A cached range is free for the callers and in use for
// the tree. Ranges come to the caches by being freed, never otherwise. They are naturally aligned:
// what else is freed goes to the store.
// 2.3 An allocation that finds nothing takes all the locks, lets every cache give back what it has,
// and looks again. With all the locks there is one moment at which nothing is free that fits; so the
// failure is exact, whatever other threads do. Reserving goes the same way.
// 2.4 Ranges below 4 GiB are kept for devices that reach no others: whoever reaches above gets what
// lies below only when nothing above is left, in the caches neither. The two zones are cached apart.
// Above, where there is plenty, a place near the last change will do, which the processor has at
// hand; below, the highest place is taken, which keeps what is free together.
// 2.5 A kind of range that nobody has asked for or freed for a while is retired: its magazines give
// their ranges back to the tree, one with every 32nd operation of the store.
// 2.6 A checked space has no caches. Every free is compared with what is allocated.
//
// 3. Locking
// A rack's lock (rank 8) for a few loads and stores; the store's lock (rank 9) for one operation on
// the tree, or for exchanging magazines. A thread that has a rack may take the store; all racks are
// taken in order, by one thread at a time. Nodes and magazines are allocated before any lock is taken;
// so an operation that finds too few of them gives its locks back and comes again.
//
// 4. What this does not do
// It does not know which ranges are mapped, nor whether a device still has a translation of a range
// cached: the caller frees a range once it has not. It starts no thread and reads no clock: caches
// that nobody uses while the store is not used either stay as they are.
//
// References: Bonwick and Adams, "Magazines and Vmem", USENIX 2001.

/// A set of I/O virtual addresses of which ranges are allocated and freed.
///
/// Locked: any thread may call anything at any time.
@safe
public struct IOVASpace: ~Copyable, @unchecked Sendable {
  /// The addresses of the space.
  public let bounds: IOVARange
  let granule: Granule
  /// The bits of an address that lie inside a granule, and how many there are.
  let mask: UInt64
  let shift: UInt64
  /// Whether every free is checked at once, for which there are no caches.
  public let isChecked: Bool

  // The highest address of the lower zone; of a space that ends there, the highest there is.
  let lowZoneLast: UInt64
  /// Powers of two of granules that are cached; 0 in a checked space.
  let orderCount: UInt64
  let caches: IOVACaches
  /// Frees that were refused without a look at the store.
  ///
  /// An atomic has an address. So the space has one as well, and is never copied for a call.
  let refusedOutside = Atomic<UInt64>(0)
  let lock: BriefLock
  let store: UnsafeMutablePointer<IOVAStore>
  let reporter: Reporter

  /// - Throws: `invalidArgument` when the bounds are not aligned to the granule, `noMemory`.
  @inline(never)
  @_optimize(size)
  public init(
    bounds: IOVARange, granule: Granule, isChecked: Bool, reporter: Reporter
  ) throws(Failure) {
    guard bounds.isAligned(to: granule) else { throw .invalidArgument }
    let shift = UInt64(granule.shift)
    let (first, last) = (bounds.first.rawValue &>> shift, bounds.last.rawValue &>> shift)
    // The largest power of two up to last - first + 1, which may be one more than a number holds.
    let extent = last &- first
    let largest = extent == UInt64.max ? 63 : 63 &- (extent &+ 1).leadingZeroBitCount
    let orderCount = isChecked ? 0 : largest &+ 1
    let caches = try IOVACaches(orderCount: orderCount)
    let store = unsafe try Box<IOVAStore>.place { () throws(Failure) in
      try IOVAStore(first: first, last: last, shift: granule.shift, hasCaches: !isChecked)
    }
    let below4G = UInt64(UInt32.max)
    self.bounds = bounds
    self.granule = granule
    mask = granule.mask
    self.shift = shift
    self.isChecked = isChecked
    lowZoneLast = bounds.last.rawValue <= below4G ? UInt64.max : below4G
    self.orderCount = UInt64(orderCount)
    lock = caches.storeLock
    self.caches = caches
    unsafe self.store = store
    self.reporter = reporter
  }

  deinit { unsafe Box.destroy(store) }

  // MARK: - Allocating and freeing

  // What a cache serves takes no call, so that nothing need be kept across one: the rest is left to
  // a function of the same arguments that does it all. Their results are those of C: 0, or a negated
  // `errno` value.

  /// Allocates a free range of `size` bytes, rounded up to the granule, that starts at a multiple of
  /// `alignment` and has no byte above `limit`.
  ///
  /// - Parameter alignment: a power of two, or 0 for the granule's.
  /// - Returns: 0, or that of `invalidArgument`, `noSpace` when there is no such range, or `noMemory`;
  ///   `address` is written on success only.
  @inline(__always)
  public static func allocate(
    _ space: UnsafePointer<IOVASpace>, _ size: UInt64, _ alignment: UInt64, _ limit: UInt64,
    _ address: UnsafeMutablePointer<UInt64>
  ) -> Int32 {
    let extent = size &- 1
    // Of a size of 0, or less than the granule, this is more than there are.
    let order =
      unsafe UInt64(truncatingIfNeeded: size.trailingZeroBitCount) &- space.pointee.shift
    if unsafe size & extent == 0 && order < space.pointee.orderCount
      && alignment & (alignment &- 1) == 0 && alignment <= size
    {
      let kind = unsafe IOVAKind(
        order: Int(bitPattern: UInt(order)), isHigh: limit > space.pointee.lowZoneLast)
      if let rack = unsafe space.pointee.caches.likelyRack(kind),
        let found = rack.pop(extent: extent, limit: limit)
      {
        unsafe address.pointee = found
        return 0
      }
    }
    return unsafe allocateSlowly(space, size, alignment, limit, address)
  }

  /// Whether an address is in the higher of two zones, from which those are served that reach it.
  @inline(__always)
  public func isHigh(_ address: UInt64) -> Bool { address > lowZoneLast }

  /// The lowest address that may be given to who reaches up to one of the space's.
  public func lowest(upTo last: UInt64) -> UInt64 { isHigh(last) ? lowZoneLast &+ 1 : 0 }

  /// Takes a range of a power of two of granules out of a cache, if that is done at once.
  @inline(__always)
  public static func takeCached(
    _ space: UnsafePointer<IOVASpace>, _ size: UInt64, _ limit: UInt64
  ) -> UInt64? {
    let order =
      unsafe UInt64(truncatingIfNeeded: size.trailingZeroBitCount) &- space.pointee.shift
    guard unsafe size & (size &- 1) == 0 && order < space.pointee.orderCount else { return nil }
    let kind = unsafe IOVAKind(
      order: Int(bitPattern: UInt(order)), isHigh: limit > space.pointee.lowZoneLast)
    return unsafe space.pointee.caches.likelyRack(kind)?.pop(extent: size &- 1, limit: limit)
  }

  /// Frees a range that `allocate` returned; `size` is rounded up as it was there.
  ///
  /// - Returns: 0, or that of `invalidArgument` when it is seen that there is no such allocation: in a
  ///   checked space, for a range that is not a power of two of granules, naturally aligned, and when
  ///   the caches are full. It is reported.
  @inline(__always)
  public static func free(
    _ space: UnsafePointer<IOVASpace>, _ first: UInt64, _ size: UInt64
  ) -> Int32 {
    let extent = size &- 1
    let order =
      unsafe UInt64(truncatingIfNeeded: size.trailingZeroBitCount) &- space.pointee.shift
    // A range that is aligned to its size has its extent in the bits that its address lacks.
    if unsafe (size | first) & extent == 0 && order < space.pointee.orderCount
      && first >= space.pointee.bounds.first.rawValue
      && first | extent <= space.pointee.bounds.last.rawValue
    {
      let kind = unsafe IOVAKind(
        order: Int(bitPattern: UInt(order)), isHigh: first > space.pointee.lowZoneLast)
      if let rack = unsafe space.pointee.caches.likelyRack(kind), rack.push(first) { return 0 }
    }
    return unsafe freeSlowly(space, first, size)
  }

  /// Frees ranges that `allocate` returned, of whole granules.
  @inline(never)
  public static func free(
    _ space: UnsafePointer<IOVASpace>, _ ranges: UnsafeBufferPointer<IOVARange>
  ) {
    var index = 0
    while index < ranges.count {
      unsafe index &+= space.pointee.putCached(UnsafeBufferPointer(rebasing: ranges[index...]))
      guard index < ranges.count else { return }
      let (first, extent) = unsafe (ranges[index].first.rawValue, ranges[index].extent)
      // The cache has no room for it, or it is of no kind.
      _ = unsafe freeSlowly(space, first, extent &+ 1)
      index &+= 1
    }
  }

  /// As `allocate`, once in the library.
  @inline(never)
  public static func allocateSlowly(
    _ space: UnsafePointer<IOVASpace>, _ size: UInt64, _ alignment: UInt64, _ limit: UInt64,
    _ address: UnsafeMutablePointer<UInt64>
  ) -> Int32 {
    do throws(Failure) {
      unsafe address.pointee = try space.pointee.allocateSlowly(
        size: size, alignment: alignment, limit: limit
      ).rawValue
      return 0
    } catch {
      return 0 &- error.code
    }
  }

  @inline(__always)
  private func allocateSlowly(
    size: UInt64, alignment: UInt64, limit: UInt64
  ) throws(Failure) -> IOVA {
    guard let bytes = granule.roundedUp(size), alignment & (alignment &- 1) == 0 else {
      throw .invalidArgument
    }
    if let kind = kind(of: bytes, isHigh: limit > lowZoneLast), alignment <= bytes,
      let address = takeCached(kind, bytes: bytes, limit: limit)
    {
      return IOVA(address)
    }
    return try place(bytes: bytes, alignment: alignment, limit: limit)
  }

  @inline(never)
  static func freeSlowly(
    _ space: UnsafePointer<IOVASpace>, _ first: UInt64, _ size: UInt64
  ) -> Int32 {
    do throws(Failure) {
      unsafe try space.pointee.freeSlowly(first: first, size: size)
      return 0
    } catch {
      return 0 &- error.code
    }
  }

  @inline(__always)
  private func freeSlowly(first: UInt64, size: UInt64) throws(Failure) {
    guard let bytes = granule.roundedUp(size) else { throw refuse(first, size) }
    if let kind = kind(toFree: first, bytes), putCached(kind, first) { return }
    try freeInStore(first, bytes: bytes)
  }

  /// The kind of a range that may be freed into a cache.
  @inline(__always)
  func kind(toFree first: UInt64, _ bytes: UInt64) -> IOVAKind? {
    let extent = bytes &- 1
    guard let kind = kind(of: bytes, isHigh: first > lowZoneLast), first & extent == 0,
      first >= bounds.first.rawValue, first | extent <= bounds.last.rawValue
    else { return nil }
    return kind
  }

  /// The kind of ranges of this size, if they are cached.
  @inline(__always)
  func kind(of bytes: UInt64, isHigh: Bool) -> IOVAKind? {
    let order = UInt64(truncatingIfNeeded: bytes.trailingZeroBitCount) &- shift
    guard bytes & (bytes &- 1) == 0, order < orderCount else { return nil }
    return IOVAKind(order: Int(truncatingIfNeeded: order), isHigh: isHigh)
  }

  // MARK: - As Swift has it

  /// Allocates a free range, as above.
  ///
  /// - Throws: `invalidArgument`, `noSpace`, `noMemory`.
  @inline(never)
  public func allocate(
    size: UInt64, alignment: UInt64, limit: UInt64
  ) throws(Failure) -> IOVA {
    var address: UInt64 = 0
    let code = unsafe withUnsafePointer(to: self) { space in
      unsafe Self.allocate(space, size, alignment, limit, &address)
    }
    guard code == 0 else { throw Failure(code: 0 &- code) }
    return IOVA(address)
  }

  /// Allocates a free range of `size` bytes, rounded up to the granule, under constraints.
  ///
  /// - Throws: `invalidArgument` when they make no sense, `noSpace` when there is no such range,
  ///   `noMemory`.
  @inline(never)
  public func allocate(
    size: UInt64, _ constraints: IOVAConstraints
  ) throws(Failure) -> IOVA {
    if constraints.placement == .anywhere && constraints.skew == 0 && constraints.boundary == 0
      && constraints.first <= bounds.first.rawValue
    {
      guard constraints.first <= constraints.last else { throw .invalidArgument }
      return try allocate(
        size: size, alignment: constraints.alignment, limit: constraints.last)
    }
    guard let bytes = granule.roundedUp(size) else { throw .invalidArgument }
    if constraints.areMetByCached(bytes: bytes, from: bounds.first.rawValue),
      let kind = kind(of: bytes, isHigh: constraints.last > lowZoneLast),
      let address = takeCached(kind, bytes: bytes, limit: constraints.last)
    {
      return IOVA(address)
    }
    return try place(bytes: bytes, constraints)
  }

  /// Frees a range, as above.
  ///
  /// - Throws: `invalidArgument`.
  @inline(never)
  public func free(first: IOVA, size: UInt64) throws(Failure) {
    let code = unsafe withUnsafePointer(to: self) { space in
      unsafe Self.free(space, first.rawValue, size)
    }
    guard code == 0 else { throw Failure(code: 0 &- code) }
  }
}
