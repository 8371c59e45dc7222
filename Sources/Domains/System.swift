// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import CPlatform
import MemoryMap
import Primitives
import Synchronization

// Theory of operation: systems, IOMMUs, domains, devices.
//
// 1. Concepts
// A system is a machine: memory, IOMMUs, devices. A domain is an address space of an IOMMU. A
// device behind an IOMMU uses the domain it is attached to and is blocked while it has none; a
// device without an IOMMU reaches memory directly.
//
//            attach, through its group
//   blocked ------------------------------> attached
//           <------------------------------
//            detach (no live mapping, no mapping call under way)
//
// 2. Implementation
// 2.1 Lifetime. Each object holds what it was made from, a device holds its domain while attached,
// and the C handle is one holder more (Primitives/UseCount.swift). The last to let go ends the
// object. The counts change when objects are made and ended, never while data moves.
// 2.2 Attachment. A device's domain changes under the lock of its mapping table, which also knows
// of every live mapping and of every mapping call under way; so it never changes under one of
// them. Views read it without a lock, inside a read section, and a change waits for them.
// 2.3 Records. What a device has mapped is a tree of records (MappingTable), each with all that
// undoing needs: undoing never asks what the device's masks or domain are by now.
// 2.4 Strictness. Unmapping stores the table words, then waits for the views' sections; so when it
// returns no access is under way through what was unmapped, but those of zero-copy mappings, which
// the pin tables know of. In a lazy domain the wait comes later, once for many (FlushQueue).
//
// 3. Locking
// Ranks are in ARCHITECTURE.md. No lock is taken while another is held, but for freeing a coherent
// allocation: under the mapping table's lock (rank 4) it closes the range in a pin table (rank 5);
// for those of a group's devices; and for those of the flush queues that a tick looks at.
//
// 4. What this does not do
// Groups are in Group.swift, drivers in Driver.swift, what devices ask for in PageRequests.swift, what
// hardware is told in Backend.swift.

/// One machine.
@safe
public struct System: ~Copyable, Held {
  public let memory: PhysicalMemory
  public let readers: ReadSections
  /// The mapping calls that keep a tag.
  let calls: CallSections
  public let reporter: Reporter
  /// What default domain groups get when nobody asks for another.
  let defaultType: DefaultType
  let bindings: Bindings
  let topology: Topology
  public let peers: PeerList
  private let findGroup: dmacore_find_group_fn?
  private let findGroupOpaque: UnsafeMutableRawPointer?
  private let cache: dmacore_cache_fn?
  private let cacheOpaque: UnsafeMutableRawPointer?
  let lazyDomains: FlushQueueList
  let windows: WindowList
  /// The time of the last tick.
  let lastTick = Atomic<UInt64>(0)
  /// How many devices there have been.
  let deviceCount = Atomic<UInt64>(0)
  /// The address of the pool of devices that have none of their own, 0 for none.
  let bouncePool = Atomic<UInt>(0)
  let bounceChunks: BounceChunkList
  /// Whether pages are copied 64 bytes at once: asked here, because the answer takes long.
  let copiesWide = cplatform_copies_wide()
  private let allocator: dmacore_memory_allocator?
  private let uses = UseCount()

  /// - Throws: `notSupported` for default domains that a flat system cannot have, `noMemory`.
  public init(
    isFlat: Bool, reporter: Reporter, allocator: dmacore_memory_allocator?,
    defaultType: DefaultType = .strict, findGroup: dmacore_find_group_fn? = nil,
    findGroupOpaque: UnsafeMutableRawPointer? = nil, cache: dmacore_cache_fn? = nil,
    cacheOpaque: UnsafeMutableRawPointer? = nil
  ) throws(Failure) {
    guard !isFlat || defaultType.kind != .hybrid else { throw .notSupported }
    let memory = try PhysicalMemory(isFlat: isFlat)
    let readers = try ReadSections()
    let calls = try CallSections()
    let bindings = try Bindings()
    let topology = try Topology()
    let peers = try PeerList()
    let lazyDomains = try FlushQueueList()
    let windows = try WindowList()
    let bounceChunks = try BounceChunkList()
    self.memory = memory
    self.readers = readers
    self.calls = calls
    self.bindings = bindings
    self.topology = topology
    self.peers = peers
    unsafe self.findGroup = findGroup
    unsafe self.findGroupOpaque = findGroupOpaque
    unsafe self.cache = cache
    unsafe self.cacheOpaque = cacheOpaque
    self.defaultType = defaultType
    self.reporter = reporter
    self.lazyDomains = lazyDomains
    self.windows = windows
    self.bounceChunks = bounceChunks
    unsafe self.allocator = allocator
  }

  /// Adds memory.
  ///
  /// - Throws: as `PhysicalMemory.add`.
  public func add(_ description: consuming MemoryRegionDescription) throws(Failure) {
    try memory.add(description, readers: readers)
    windows.follow()
  }

  /// Removes memory. When this returns no device reaches it.
  ///
  /// - Throws: as `PhysicalMemory.remove`.
  public func remove(_ range: PhysicalRange) throws(Failure) {
    try memory.remove(range, readers: readers)
    windows.follow()
  }

  /// Whether somebody but the caller holds a domain, other than for a moment.
  public func isShared(_ domain: UnsafeMutablePointer<Domain>) -> Bool {
    unsafe windows.isShared(domain)
  }

  /// The physical addresses of bytes of this process.
  ///
  /// - Throws: as `PhysicalMemory.range`.
  public func physicalRange(
    of host: UnsafeRawPointer, size: UInt64
  ) throws(Failure) -> PhysicalRange {
    // A flat memory has no snapshot that could go away.
    if memory.isFlat { return unsafe try memory.range(of: host, size: size) }
    let token = readers.enter()
    defer { readers.leave(token) }
    return unsafe try memory.range(of: host, size: size)
  }

  /// Where physical memory lies in this process.
  ///
  /// - Throws: as `PhysicalMemory.host`.
  public func host(of range: PhysicalRange) throws(Failure) -> UnsafeMutableRawPointer {
    if memory.isFlat { return unsafe try memory.host(of: range) }
    let token = readers.enter()
    defer { readers.leave(token) }
    return unsafe try memory.host(of: range)
  }

  /// The first region that ends at an address or above.
  ///
  /// - Parameter isHost: with bytes of this process.
  @inline(never)
  public func memory(
    from address: UInt64, isHost: Bool
  ) -> (PhysicalRange, Access, number: UInt64)? {
    let token = readers.enter()
    defer { readers.leave(token) }
    var next = address
    while true {
      let (region, holeLast) = unsafe memory.find(PhysicalAddress(next))
      var last = holeLast
      if let region = unsafe region {
        if unsafe !isHost || region.pointee.host != nil {
          return unsafe (
            region.pointee.range, region.pointee.isReadOnly ? .read : [.read, .write],
            region.pointee.number
          )
        }
        last = unsafe region.pointee.range.last.rawValue
      }
      guard last < UInt64.max else { return nil }
      next = last &+ 1
    }
  }

  /// The first such region; or the next one behind another.
  public func memory(
    after last: PhysicalRange?, isHost: Bool
  ) -> (PhysicalRange, Access, number: UInt64)? {
    // It wraps behind the highest address of all.
    let first = last.map { $0.last.rawValue &+ 1 } ?? 0
    return last != nil && first == 0 ? nil : memory(from: first, isHost: isHost)
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  /// The group that whoever made the system puts a device into, if it knows one.
  func askedGroup(for options: dmacore_device_options) -> UnsafeMutablePointer<Group>? {
    guard let findGroup = unsafe findGroup else { return nil }
    ThreadRules.willCallBack()
    var options = unsafe options
    // SAFETY: a handle that C gives for a group is the address of one.
    return unsafe findGroup(&options, findGroupOpaque).map { unsafe UnsafeMutablePointer($0) }
  }

  /// Whether something lets caches and memory agree.
  var maintainsCaches: Bool { unsafe cache != nil }

  /// Lets caches and memory agree about a range that a device gets, or the processors.
  public func maintainCaches(of memory: PhysicalRange, _ direction: Direction, forCPU: Bool) {
    guard let cache = unsafe cache else { return }
    ThreadRules.willCallBack()
    unsafe cache(
      memory.first.rawValue, memory.extent &+ 1, direction.rawValue, forCPU, cacheOpaque)
  }

  /// Flushes the lazy domains in which something has been queued for long enough, at a time that
  /// the caller says.
  public func tick(_ now: UInt64) {
    lastTick.store(now, ordering: .relaxed)
    guard let due = unsafe lazyDomains.beginFlushes(now) else { return }
    readers.waitForReaders()
    unsafe lazyDomains.endFlushes(due)
  }

  /// Whether there is an allocator to ask, beside the process's heap.
  var canBeAsked: Bool { unsafe allocator != nil }

  /// Whole pages, for a device that need not be coherent.
  ///
  /// - Throws: as `allocateMemory`.
  func takePages(
    size: UInt64, limit: UInt64, isCoherent: Bool
  ) throws(Failure) -> dmacore_memory_segment {
    // The heap is cached.
    if unsafe allocator == nil && (!memory.isFlat || !isCoherent) { throw .notSupported }
    guard let allocator = unsafe allocator else {
      guard let bytes = Int(exactly: size) else { throw .noMemory }
      let host = unsafe try RawMemory.allocate(bytes, alignment: Int(Device.granule.bytes))
      // The memory is flat.
      return unsafe dmacore_memory_segment(
        cpu: host, phys: UInt64(UInt(bitPattern: host)), size: size)
    }
    ThreadRules.willCallBack()
    guard
      let host = unsafe allocator.allocate(size, Device.granule.bytes, limit, allocator.opaque)
    else { throw .noMemory }
    do throws(Failure) {
      let memory = unsafe try claim(host, size: size)
      return unsafe dmacore_memory_segment(cpu: host, phys: memory.first.rawValue, size: size)
    } catch {
      ThreadRules.willCallBack()
      unsafe allocator.free(host, size, allocator.opaque)
      throw error
    }
  }

  /// Checks that bytes of the process are whole pages of the system's that devices may write, and pins the
  /// region that they lie in.
  ///
  /// - Throws: `badAddress`.
  func claim(_ host: UnsafeMutableRawPointer, size: UInt64) throws(Failure) -> PhysicalRange {
    let token = readers.enter()
    defer { readers.leave(token) }
    let range = unsafe try memory.range(of: host, size: size)
    guard range.isAligned(to: Device.granule),
      UInt64(UInt(bitPattern: host)) & Device.granule.mask == 0
    else { throw .badAddress }
    if memory.isFlat { return range }
    guard let region = unsafe memory.find(range.first).region,
      unsafe !region.pointee.isReadOnly && region.pointee.pin()
    else { throw .badAddress }
    return range
  }

  /// Lets go of the region that `claim` pinned for a range. It is there, as it is pinned.
  func unpin(_ range: PhysicalRange) {
    if memory.isFlat { return }
    let token = readers.enter()
    defer { readers.leave(token) }
    unsafe memory.find(range.first).region?.pointee.unpin()
  }

  /// As `unpin`, of a segment.
  @inline(never)
  func unpin(_ segment: dmacore_memory_segment) {
    if let range = try? unsafe PhysicalRange(
      first: PhysicalAddress(segment.phys), size: segment.size)
    {
      unpin(range)
    }
  }

  func givePagesBack(_ segment: dmacore_memory_segment) {
    guard let allocator = unsafe allocator else { return unsafe RawMemory.free(segment.cpu) }
    ThreadRules.willCallBack()
    unsafe allocator.free(segment.cpu, segment.size, allocator.opaque)
    unsafe unpin(segment)
  }
}
