// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization

// Theory of operation: the memory map.
//
// 1. Concepts
// The memory of a machine is a set of regions that overlap neither in physical nor, where they have
// them, in process addresses, so that a look-up either way has one answer. A flat memory has no
// regions: physical addresses are process addresses, and all of them count as memory.
//
// 2. Implementation
// Readers look regions up in a snapshot: an array sorted by physical address, never changed once it
// is published. A change builds the next snapshot, publishes it, waits until no reader is inside
// the old one (Primitives/ReadSections.swift), and frees it. Look-up by process address is a scan:
// a driver's mapping call does it, a device's access never does.
//
// 3. Locking
// Look-ups take no lock; the caller is inside a read section. Changes take the map's lock (rank 2)
// while they choose and publish a snapshot. What a change needs is allocated before it, sized by a
// count that is checked again under the lock.
//
// 4. What this does not do
// It does not know who accesses memory, nor from where. It does not bracket its readers: they hold
// what they find for as long as their own section lasts, or pin it.

/// The physical memory of a system.
@safe
public struct PhysicalMemory: ~Copyable, @unchecked Sendable {
  public typealias Region = UnsafeMutablePointer<MemoryRegion>

  /// A published array of regions.
  @safe
  private struct Snapshot {
    let count: Int
    // Invariant: sorted by address; no two regions overlap.
    let regions: UnsafeMutablePointer<Region>
  }

  public let isFlat: Bool
  private let lock: Lock
  // The address of a `Snapshot`, 0 for the empty one.
  private let published = Atomic<UInt>(0)
  private let lastNumber = Atomic<UInt64>(0)

  @_optimize(size)
  public init(isFlat: Bool) throws(Failure) {
    let lock = try Lock(.memoryMap)
    self.isFlat = isFlat
    self.lock = lock
  }

  deinit {
    let snapshot = unsafe Self.snapshot(at: published.load(ordering: .relaxed))
    guard let snapshot = unsafe snapshot else { return }
    for index in unsafe 0..<snapshot.pointee.count {
      unsafe Box.destroy(snapshot.pointee.regions[index])
    }
    unsafe Self.free(snapshot)
  }

  // MARK: - Look-up

  /// The region that an address lies in; or nil, and the last address of the hole it lies in.
  ///
  /// The caller is inside a read section, and outside of a flat memory.
  @inline(never)
  public func find(_ address: PhysicalAddress) -> (region: Region?, holeLast: UInt64) {
    guard let snapshot = unsafe current else { return (nil, UInt64.max) }
    let next = unsafe Self.firstIndex(behind: address, in: snapshot)
    if next > 0 {
      let region = unsafe snapshot.pointee.regions[next - 1]
      if unsafe address <= region.pointee.range.last { return unsafe (region, 0) }
    }
    guard unsafe next < snapshot.pointee.count else { return (nil, UInt64.max) }
    // A region starts above `address`, so its first address is not 0.
    return unsafe (nil, snapshot.pointee.regions[next].pointee.range.first.rawValue &- 1)
  }

  /// Where a range lies in this process.
  ///
  /// - Throws: `badAddress` when it is not inside one region, `notSupported` when callbacks back it.
  public func host(of range: PhysicalRange) throws(Failure) -> UnsafeMutableRawPointer {
    if isFlat {
      // SAFETY: in a flat memory a physical address is one of this process; whether there is memory
      // is the caller's to know.
      guard let host = unsafe UnsafeMutableRawPointer(bitPattern: UInt(range.first.rawValue)) else {
        throw .badAddress
      }
      return unsafe host
    }
    guard let region = unsafe find(range.first).region, unsafe region.pointee.range.contains(range)
    else { throw .badAddress }
    guard let host = unsafe region.pointee.host else { throw .notSupported }
    // The range is inside the region, whose size fits the process.
    return unsafe host
      + Int(truncatingIfNeeded: range.first.rawValue &- region.pointee.range.first.rawValue)
  }

  /// The physical addresses of bytes of this process.
  ///
  /// - Throws: `invalidArgument` when `size` is zero or the range wraps, `badAddress` when it is not
  ///   inside one region.
  public func range(of host: UnsafeRawPointer, size: UInt64) throws(Failure) -> PhysicalRange {
    let bytes = try PhysicalRange(
      first: PhysicalAddress(UInt64(UInt(bitPattern: host))), size: size)
    if isFlat { return bytes }
    guard let snapshot = unsafe current else { throw .badAddress }
    for index in unsafe 0..<snapshot.pointee.count {
      let region = unsafe snapshot.pointee.regions[index]
      guard let hostFirst = unsafe region.pointee.hostFirst else { continue }
      let regionRange = unsafe region.pointee.range
      guard bytes.first.rawValue >= hostFirst else { continue }
      let offset = bytes.first.rawValue &- hostFirst
      guard offset <= regionRange.extent else { continue }
      guard bytes.extent <= regionRange.extent &- offset else { throw .badAddress }
      return try PhysicalRange(
        first: PhysicalAddress(regionRange.first.rawValue &+ offset), size: size)
    }
    throw .badAddress
  }

  /// The index of the first region that starts behind an address.
  private static func firstIndex(
    behind address: PhysicalAddress, in snapshot: UnsafeMutablePointer<Snapshot>
  ) -> Int {
    var low = 0
    var high = unsafe snapshot.pointee.count
    while low < high {
      let middle = low &+ (high &- low) / 2
      if unsafe snapshot.pointee.regions[middle].pointee.range.first <= address {
        low = middle &+ 1
      } else {
        high = middle
      }
    }
    return low
  }

  // MARK: - Change

  /// Adds a region, visible to readers when this returns.
  ///
  /// - Throws: `exists` when it overlaps another, `notSupported` in a flat memory, `noMemory`, and
  ///   what mapping a file fails with.
  @_optimize(size)
  public func add(
    _ description: MemoryRegionDescription, readers: borrowing ReadSections
  ) throws(Failure) {
    guard !isFlat else { throw .notSupported }
    let region = unsafe try Box<MemoryRegion>.place { () throws(Failure) in
      let number = lastNumber.wrappingAdd(1, ordering: .relaxed).newValue
      return try MemoryRegion(description, number: number)
    }
    do throws(Failure) {
      try unsafe change(readers: readers) { (old, regions) throws(Failure) -> Int in
        let count = unsafe old?.pointee.count ?? 0
        var place = 0
        for index in 0..<count {
          let other = unsafe old!.pointee.regions[index]
          guard unsafe !Self.overlap(region, other) else { throw .exists }
          if unsafe other.pointee.range.first < region.pointee.range.first { place = index + 1 }
        }
        for index in 0..<count {
          unsafe regions[index < place ? index : index + 1] = old!.pointee.regions[index]
        }
        unsafe regions[place] = region
        return count + 1
      }
    } catch {
      unsafe Box.destroy(region)
      throw error
    }
  }

  /// Removes the region of exactly this range; no reader is inside it when this returns.
  ///
  /// - Throws: `notFound`, `busy` when it is pinned, `noMemory`.
  @_optimize(size)
  public func remove(_ range: PhysicalRange, readers: borrowing ReadSections) throws(Failure) {
    var removed: Region? = nil
    try unsafe change(readers: readers) { (old, regions) throws(Failure) -> Int in
      let count = unsafe old?.pointee.count ?? 0
      var kept = 0
      for index in 0..<count {
        let region = unsafe old!.pointee.regions[index]
        if unsafe region.pointee.range == range {
          unsafe removed = region
        } else {
          unsafe regions[kept] = region
          kept &+= 1
        }
      }
      guard let region = unsafe removed else { throw .notFound }
      guard unsafe region.pointee.close() else { throw .busy }
      return kept
    }
    if let region = unsafe removed { unsafe Box.destroy(region) }
  }

  private static func overlap(_ a: Region, _ b: Region) -> Bool {
    if unsafe a.pointee.range.overlaps(b.pointee.range) { return true }
    guard let aHost = unsafe a.pointee.hostFirst, let bHost = unsafe b.pointee.hostFirst else {
      return false
    }
    // The ends do not wrap: the description's initializer saw to it.
    return unsafe aHost <= bHost &+ b.pointee.range.extent
      && bHost <= aHost &+ a.pointee.range.extent
  }

  /// Publishes the snapshot that `build` makes of the current one, and frees that when nobody reads
  /// it.
  ///
  /// `build` fills in an array with room for one region more than there are and returns how many
  /// there are then. It runs under the lock.
  private func change(
    readers: borrowing ReadSections,
    _ build: (
      UnsafeMutablePointer<Snapshot>?, UnsafeMutablePointer<Region>
    ) throws(Failure) -> Int
  ) throws(Failure) {
    let next = unsafe try beginChange()
    let old = unsafe current
    do throws(Failure) {
      let regions = unsafe next.pointee.regions
      unsafe next.pointee = Snapshot(count: try build(old, regions), regions: regions)
    } catch {
      lock.unlock()
      unsafe Self.free(next)
      throw error
    }
    unsafe publish(next, readers: readers)
  }

  /// Makes a snapshot with room for one region more than there are, and takes the lock.
  @inline(never)
  @_optimize(size)
  private func beginChange() throws(Failure) -> UnsafeMutablePointer<Snapshot> {
    var room = 8
    while true {
      let next = unsafe try Self.makeSnapshot(room: room)
      lock.lock()
      let count = unsafe current?.pointee.count ?? 0
      if count < room { return unsafe next }
      // Others have added regions since; make room for twice as many.
      lock.unlock()
      unsafe Self.free(next)
      room = (count + 1) * 2
    }
  }

  @inline(never)
  @_optimize(size)
  private func publish(
    _ next: UnsafeMutablePointer<Snapshot>, readers: borrowing ReadSections
  ) {
    let old = unsafe current
    // Releasing: pairs with the acquire in current, so that the array is filled in.
    published.store(UInt(bitPattern: next), ordering: .releasing)
    lock.unlock()
    readers.waitForReaders()
    if let old = unsafe old { unsafe Self.free(old) }
  }

  private var current: UnsafeMutablePointer<Snapshot>? {
    unsafe Self.snapshot(at: published.load(ordering: .acquiring))
  }

  private static func snapshot(at address: UInt) -> UnsafeMutablePointer<Snapshot>? {
    // SAFETY: only `change` publishes an address, that of a `Snapshot` it made.
    unsafe UnsafeMutablePointer<Snapshot>(bitPattern: address)
  }

  /// A snapshot and its array, in one allocation.
  private static func makeSnapshot(
    room: Int
  ) throws(Failure) -> UnsafeMutablePointer<Snapshot> {
    let header = MemoryLayout<Snapshot>.stride
    let size = header + room * MemoryLayout<UInt>.stride
    let raw = unsafe try RawMemory.allocate(size, alignment: 16)
    // SAFETY: the allocation is a `Snapshot` long and then `room` pointers, both aligned.
    let regions = unsafe (raw + header).bindMemory(to: Region.self, capacity: room)
    let snapshot = unsafe raw.bindMemory(to: Snapshot.self, capacity: 1)
    unsafe snapshot.initialize(to: Snapshot(count: 0, regions: regions))
    return unsafe snapshot
  }

  private static func free(_ snapshot: UnsafeMutablePointer<Snapshot>) {
    unsafe RawMemory.free(snapshot)
  }
}
