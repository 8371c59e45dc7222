// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import MemoryMap
import PageTables
import Primitives
import Synchronization

/// What a device is made from, checked.
@safe
public struct DeviceDescription {
  let tracksDirect: Bool
  let isUntrusted: Bool
  let isCoherent: Bool
  let pasidCount: UInt32
  let faultCapacity: Int
  let name: UnsafePointer<CChar>?
  let iommu: UnsafeMutablePointer<IOMMU>?
  let group: UnsafeMutablePointer<Group>?
  let streamingMask: UInt64
  let coherentMask: UInt64
  let busLimit: UInt64
  let ranges: UnsafePointer<dmacore_dma_range>?
  let rangeCount: Int
  let fault: dmacore_fault_fn?
  let faultOpaque: UnsafeMutableRawPointer?
  let regions: UnsafePointer<ReservedRegions.Region>?
  let regionCount: Int
  let topology: Place
  let pageRequestCapacity: Int
  let pageResponse: dmacore_page_response_fn?
  let pageResponseOpaque: UnsafeMutableRawPointer?
  let bouncePool: UnsafeMutablePointer<BouncePool>?
  let bouncesAll: Bool
  /// Checked for its size.
  let mappingOps: UnsafePointer<dmacore_mapping_ops>?
  let mappingOpsOpaque: UnsafeMutableRawPointer?

  /// - Throws: `invalidArgument` for an IOMMU, a group or a pool of another system, a name or a ring that is
  ///   too long, page requests that are too many or whose answers nobody receives, mapping functions
  ///   beside something that does not go with them.
  public init(
    _ options: dmacore_device_options, iommu: UnsafeMutablePointer<IOMMU>?,
    group: UnsafeMutablePointer<Group>? = nil, bridge: UnsafeMutablePointer<Bridge>? = nil,
    system: UnsafeMutablePointer<System>
  ) throws(Failure) {
    if unsafe options.mapping_ops != nil {
      let other = DMACORE_DEVICE_FORCE_BOUNCE.rawValue
      guard
        unsafe iommu == nil && options.range_count == 0 && options.bounce_pool == nil
          && options.flags & other == 0
      else { throw .invalidArgument }
    }
    unsafe mappingOps = options.mapping_ops
    unsafe mappingOpsOpaque = options.mapping_ops_opaque
    let capacity = unsafe Int(options.fault_capacity)
    pageRequestCapacity = unsafe Int(options.page_request_capacity)
    guard capacity <= 65536, unsafe Name.fits(options.name),
      pageRequestCapacity <= Int(DMACORE_PAGE_REQUESTS_MAX),
      unsafe pageRequestCapacity == 0 || options.page_response != nil
    else { throw .invalidArgument }
    if let iommu = unsafe iommu {
      guard unsafe iommu.pointee.system == system else { throw .invalidArgument }
    }
    let topology = unsafe try Place(options, bridge: bridge, iommu: iommu, system: system)
    let group = unsafe group ?? (topology.isKnown ? nil : system.pointee.askedGroup(for: options))
    if let group = unsafe group {
      guard unsafe group.pointee.system == system else { throw .invalidArgument }
    }
    // SAFETY: a handle that C gives for a pool is the address of one.
    unsafe bouncePool = options.bounce_pool.map { unsafe UnsafeMutablePointer($0) }
    if let pool = unsafe bouncePool {
      guard unsafe pool.pointee.system == system else { throw .invalidArgument }
    }
    bouncesAll = unsafe options.flags & DMACORE_DEVICE_FORCE_BOUNCE.rawValue != 0
    self.topology = topology
    tracksDirect = unsafe options.flags & DMACORE_DEVICE_TRACK_DIRECT.rawValue != 0
    isUntrusted = unsafe options.flags & DMACORE_DEVICE_UNTRUSTED.rawValue != 0
    isCoherent = unsafe options.flags & DMACORE_DEVICE_NONCOHERENT.rawValue == 0
    guard unsafe isCoherent || system.pointee.maintainsCaches else { throw .invalidArgument }
    faultCapacity = capacity == 0 ? 64 : capacity
    pasidCount = unsafe options.pasid_count
    unsafe name = options.name
    unsafe self.iommu = iommu
    unsafe self.group = group
    streamingMask = unsafe options.streaming_mask
    coherentMask = unsafe options.coherent_mask
    busLimit = unsafe options.bus_limit
    unsafe ranges = options.ranges
    rangeCount = unsafe options.range_count
    unsafe fault = options.fault
    unsafe faultOpaque = options.fault_opaque
    unsafe pageResponse = options.page_response
    unsafe pageResponseOpaque = options.page_response_opaque
    unsafe regions = options.reserved_regions
    unsafe regionCount = Int(clamping: options.reserved_region_count)
  }
}

/// How a device's addresses reach memory.
@safe
public enum DevicePath {
  /// Addresses are those of the device's bus. The domain is an identity domain, if there is one.
  case direct(UnsafeMutablePointer<Domain>?)
  /// The domain translates them.
  case translated(UnsafeMutablePointer<Domain.Translation>, UnsafeMutablePointer<Domain>)
  /// A guest's tables translate them, and then the domain in which they are nested.
  case nested(UnsafeMutablePointer<Nesting>, UnsafeMutablePointer<Domain>)
  /// They reach nothing. The domain is a blocked one, if there is one.
  case blocked(UnsafeMutablePointer<Domain>?)

  public var isDirect: Bool { if case .direct = self { true } else { false } }

  /// Where writes are noted: a nested domain's parent has the table.
  @inline(__always)
  public var noting: UnsafeMutablePointer<Domain.Translation>? {
    switch self {
    case .translated(let translation, _): unsafe translation
    case .nested(let nesting, _): unsafe nesting.pointee.translation
    case .direct, .blocked: nil
    }
  }

  /// The domain, held, if it wants to know of faults. The caller is still inside the read section that it
  /// read the path in.
  public func holdListener() -> UnsafeMutablePointer<Domain>? {
    let domain: UnsafeMutablePointer<Domain>? =
      switch self {
      case .direct(let domain), .blocked(let domain): unsafe domain
      case .translated(_, let domain), .nested(_, let domain): unsafe domain
      }
    guard let domain = unsafe domain, unsafe domain.pointee.fault != nil else { return nil }
    unsafe Box.hold(domain)
    return unsafe domain
  }
}

/// Something that reads and writes memory by itself.
@safe
public struct Device: ~Copyable, Held {
  /// What coherent allocations and IOVA ranges are multiples of: the smallest page of every format.
  public static var granule: Granule { Granule(shift: 12) }

  public let system: UnsafeMutablePointer<System>
  public let iommu: UnsafeMutablePointer<IOMMU>?
  public let group: UnsafeMutablePointer<Group>
  /// The functions that map memory for it; nil if there are none.
  public let ops: UnsafeMutablePointer<MappingOps>?
  public let tracksDirect: Bool
  public let isUntrusted: Bool
  /// Whether it sees the processors' caches.
  public let isCoherent: Bool
  private let pasidCount: UInt32
  /// How often all that was mapped has been undone at once: what is of an earlier generation is gone.
  public let generation = Atomic<UInt64>(0)
  // Whether it has left its group.
  private let hasLeft = Atomic<Bool>(false)
  public let mappings: MappingTable
  public let faults: FaultRing
  public let reserved: ReservedRegions
  /// The zero-copy mappings of a device that is mapped directly.
  public let pins: PinTable
  // The address of the DMA ranges that hold now, and the first ones. All that were ever made are there until the
  // device ends: who reads them takes no lock.
  private let currentRanges: Atomic<UInt>
  let firstRanges: UnsafeMutablePointer<DMARanges>
  let seat: Seat
  // How addresses may lead elsewhere than its path says; `DetourBits`.
  private let detours: Atomic<UInt8>
  private let busLimit: Atomic<UInt64>
  /// A pool of its own, and the only one that it uses then.
  let bouncePool: UnsafeMutablePointer<BouncePool>?
  /// Whether all that is mapped for it is bounced.
  public let bouncesAll: Bool
  /// What its hardware can be told in one piece.
  public let limits = DeviceLimits()
  let streamingMask: Atomic<UInt64>
  let coherentMask: Atomic<UInt64>
  private let ownName: Name
  // The group's record of the device.
  let member: UnsafeMutablePointer<Group.Member>
  private let fault: dmacore_fault_fn?
  private let faultOpaque: UnsafeMutableRawPointer?
  /// How many page requests may be collected or pending.
  let pageRequestCapacity: Int
  let pageResponse: dmacore_page_response_fn?
  let pageResponseOpaque: UnsafeMutableRawPointer?
  private let uses = UseCount()

  /// A new device, in its group.
  ///
  /// - Throws: what `Topology.add` and `Group.add` throw, `invalidArgument` when the DMA ranges, reserved
  ///   regions or mapping functions are none, `noMemory`, and what those fail with.
  public static func place(
    system: UnsafeMutablePointer<System>, _ description: DeviceDescription
  ) throws(Failure) -> UnsafeMutablePointer<Device> {
    let device = unsafe try Box<Device>.place { () throws(Failure) in
      unsafe try Device(system: system, description)
    }
    do throws(Failure) {
      try unsafe startOps(device)
      try unsafe device.pointee.group.pointee.add(device, device.pointee.member)
    } catch {
      unsafe Box.letGo(device)
      throw error
    }
    return unsafe device
  }

  /// Holds the system, the IOMMU and the group until it ends.
  private init(
    system: UnsafeMutablePointer<System>, _ description: DeviceDescription
  ) throws(Failure) {
    let reserved = unsafe try ReservedRegions.checked(
      description.regions, count: description.regionCount)
    let name = unsafe try Name(description.name, fallback: "device")
    let faults = try FaultRing(capacity: description.faultCapacity)
    let pins = try PinTable()
    // Without an IOMMU a device that is not trusted gets nothing but copies.
    let bouncesAll =
      unsafe description.bouncesAll
      || (description.isUntrusted && description.iommu == nil && description.mappingOps == nil)
    let mappings = unsafe try MappingTable(
      system: system,
      tagging: description.iommu != nil && description.isCoherent && !description.isUntrusted
        && !bouncesAll,
      isDirect: description.iommu == nil,
      recordsDirect: description.tracksDirect || !description.isCoherent || bouncesAll
        || description.mappingOps != nil,
      keepsCopies: system.pointee.memory.isFlat && description.isCoherent
        && !description.tracksDirect && description.mappingOps == nil)
    let ranges = unsafe try Box<DMARanges>.place { () throws(Failure) in
      unsafe try DMARanges(description.ranges, count: description.rangeCount)
    }
    var ops: UnsafeMutablePointer<MappingOps>? = nil
    var placed: UnsafeMutablePointer<Group.Member>? = nil
    let group: UnsafeMutablePointer<Group>
    let member: UnsafeMutablePointer<Group.Member>
    do throws(Failure) {
      unsafe ops = try MappingOps.place(description)
      unsafe member = try Box<Group.Member>.place { () throws(Failure) in
        unsafe Group.Member(place: description.topology)
      }
      unsafe placed = member
      unsafe group = try Self.group(for: member, given: description.group, in: system)
    } catch {
      if let member = unsafe placed { unsafe Box.destroy(member) }
      if let ops = unsafe ops { unsafe Box.destroy(ops) }
      unsafe Box.destroy(ranges)
      throw error
    }
    if let bridge = unsafe description.topology.bridge { unsafe Box.hold(bridge) }
    unsafe Box.hold(system)
    if let iommu = unsafe description.iommu { unsafe Box.hold(iommu) }
    if let pool = unsafe description.bouncePool { unsafe Box.hold(pool) }
    unsafe self.system = system
    unsafe iommu = description.iommu
    unsafe self.group = group
    unsafe self.ops = ops
    tracksDirect = unsafe description.tracksDirect || ops != nil
    isUntrusted = description.isUntrusted
    isCoherent = description.isCoherent
    pasidCount = description.pasidCount
    self.mappings = mappings
    self.faults = faults
    self.reserved = reserved
    self.pins = pins
    currentRanges = Atomic(UInt(bitPattern: ranges))
    unsafe firstRanges = ranges
    unsafe ranges.pointee.first = ranges
    seat = description.topology.seat
    detours = Atomic(unsafe ranges.pointee.isEmpty ? 0 : DetourBits.ranges)
    busLimit = Atomic(description.busLimit)
    unsafe bouncePool = description.bouncePool
    self.bouncesAll = bouncesAll
    streamingMask = Atomic(description.streamingMask)
    coherentMask = Atomic(description.coherentMask)
    ownName = name
    unsafe self.member = member
    unsafe fault = description.fault
    unsafe faultOpaque = description.faultOpaque
    pageRequestCapacity = description.pageRequestCapacity
    unsafe pageResponse = description.pageResponse
    unsafe pageResponseOpaque = description.pageResponseOpaque
    noteLimits()
  }

  /// The group that a device is made in, which is held: the one that is given, the one that it belongs to,
  /// or one of its own.
  private static func group(
    for member: UnsafeMutablePointer<Group.Member>, given: UnsafeMutablePointer<Group>?,
    in system: UnsafeMutablePointer<System>
  ) throws(Failure) -> UnsafeMutablePointer<Group> {
    let candidate: UnsafeMutablePointer<Group>
    if let given = unsafe given {
      unsafe Box.hold(given)
      unsafe candidate = given
    } else {
      unsafe candidate = try Box<Group>.place { () throws(Failure) in
        unsafe try Group(system: system)
      }
    }
    guard unsafe member.pointee.place.isKnown else { return unsafe candidate }
    defer { unsafe Box.letGo(candidate) }
    return unsafe try system.pointee.topology.add(member, candidate, isGiven: given != nil)
  }

  deinit {
    unsafe system.pointee.topology.remove(member)
    unsafe member.pointee.pageRequests.end()
    if let bridge = unsafe member.pointee.place.bridge { unsafe Box.letGo(bridge) }
    unsafe Box.destroy(member)
    unsafe Box.letGo(group)
    if let iommu = unsafe iommu { unsafe Box.letGo(iommu) }
    if let pool = unsafe bouncePool { unsafe BouncePool.leave(pool) }
    if let ops = unsafe ops { unsafe Box.destroy(ops) }
    unsafe Box.letGo(system)
    var next: UnsafeMutablePointer<DMARanges>? = unsafe firstRanges
    while let ranges = unsafe next {
      unsafe next = ranges.pointee.next
      unsafe Box.destroy(ranges)
    }
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  // MARK: - Detours

  private enum DetourBits {
    static var ranges: UInt8 { 1 }
    static var peers: UInt8 { 2 }
  }

  /// Whether its bus passes some addresses alone, or may lead some to peers.
  @inline(__always)
  public var hasDetours: Bool { detours.load(ordering: .relaxed) != 0 }

  /// Whether its bus may lead addresses to peers.
  @inline(__always)
  public var meetsPeers: Bool { detours.load(ordering: .relaxed) & DetourBits.peers != 0 }

  /// Says that from now on it may.
  func meetPeers() { addDetour(DetourBits.peers) }

  private func addDetour(_ bit: UInt8) {
    detours.bitwiseOr(bit, ordering: .relaxed)
    noteLimits()
  }

  /// Whether it was destroyed.
  var isGone: Bool { hasLeft.load(ordering: .relaxed) }

  public var name: UnsafePointer<CChar> { unsafe ownName.cString }

  // MARK: - Limits

  /// What a mapping of this kind must stay under.
  ///
  /// - Throws: `noMask`; `notPermitted` when there is none because nobody has configured the device.
  public func limit(for kind: MappingRecord.Kind) throws(Failure) -> AddressLimit {
    let mask =
      switch kind {
      case .streaming: streamingMask.load(ordering: .relaxed)
      case .coherent: coherentMask.load(ordering: .relaxed)
      }
    if mask == 0, let ops = unsafe ops, unsafe ops.pointee.isEmpty { throw .notPermitted }
    return try AddressLimit(mask: mask, busLimit: busLimit.load(ordering: .relaxed))
  }

  /// The highest address that a streaming mapping may have; 0 for a device that has no mask.
  @inline(__always)
  var highestStreaming: UInt64 {
    AddressLimit.highest(
      mask: streamingMask.load(ordering: .relaxed), busLimit: busLimit.load(ordering: .relaxed))
  }

  /// What says how high a device reaches.
  public struct Reach: OptionSet {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static var streaming: Reach { Reach(rawValue: 1) }
    public static var coherent: Reach { Reach(rawValue: 2) }
    public static var bus: Reach { Reach(rawValue: 4) }
  }

  /// For `setMask`, which takes note of it.
  func set(_ reach: Reach, to highest: UInt64) {
    if reach.contains(.streaming) { streamingMask.store(highest, ordering: .relaxed) }
    if reach.contains(.coherent) { coherentMask.store(highest, ordering: .relaxed) }
    if reach.contains(.bus) { busLimit.store(highest, ordering: .relaxed) }
  }

  /// - Throws: as `DeviceLimits.set`.
  public func setLimits(_ new: dmacore_device_limits) throws(Failure) {
    try limits.set(new)
    noteLimits()
  }

  /// Lets calls for single pages know. With detours none is over in a moment. No page is mapped at once whose address has
  /// to keep more bits than a page has; and no copy is kept at slots if it might cross a boundary.
  func noteLimits() {
    mappings.noteLimits {
      let highest = highestStreaming
      let pages = !hasDetours && limits.minAlignMask <= Self.granule.mask
      let copies = !hasDetours && limits.segmentBoundaryMask >= Self.granule.mask
      return (
        page: pages ? highest : 0, copy: highest,
        above: !copies ? UInt64.max : bouncesAll ? 0 : highest
      )
    }
  }

  /// The device's address of memory for which nothing has to be asked but whether it is in reach, and
  /// nothing kept; nil if there is more to it.
  ///
  /// - Parameters: as C gives them.
  @inline(__always)
  public func directAddress(_ first: UInt64, _ size: UInt64, _ direction: UInt32) -> UInt64? {
    guard mappings.isUntracked, !hasDetours, direction <= Direction.fromDevice.rawValue,
      unsafe system.pointee.peers.isEmpty
    else { return nil }
    let (last, isBeyond) = first.addingReportingOverflow(size &- 1)
    let busLimit = busLimit.load(ordering: .relaxed)
    guard size > 0, !isBeyond, last <= streamingMask.load(ordering: .relaxed),
      busLimit == 0 || last <= busLimit, last != 0
    else { return nil }
    return first
  }

  /// Whether nothing has to be done to end a mapping.
  ///
  /// - Parameters: as C gives them.
  @inline(__always)
  public func endsAtOnce(_ first: UInt64, _ size: UInt64, _ direction: UInt32) -> Bool {
    mappings.isUntracked && !meetsPeers && !mappings.hasEverBounced
      && direction <= Direction.fromDevice.rawValue && size > 0
      && !first.addingReportingOverflow(size &- 1).overflow
  }

  /// The live mappings that such a reach concerns and that lie above it: how many, and from where to where.
  public func beyond(
    _ reach: Reach, _ highest: UInt64
  ) -> (count: UInt64, first: UInt64, last: UInt64) {
    // A bus without a limit passes everything.
    if reach == .bus && highest == 0 { return (0, 0, 0) }
    return mappings.beyond(
      highest, reach == .streaming ? .streaming : reach == .coherent ? .coherent : nil)
  }

  /// Whether mappings may live that no record is kept of.
  public var mayHaveUntracked: Bool {
    unsafe !tracksDirect && isCoherent && (iommu == nil || mappings.wasDirect)
  }

  // MARK: - DMA ranges

  /// Where the bus has memory, if it is in reach there, with the low bits that the device asks for.
  @inline(never)
  public func reached(_ memory: PhysicalRange, under highest: UInt64) -> DMARange? {
    guard let range = ranges.bus(of: memory), range.last.rawValue <= highest,
      keepsBits(memory.first.rawValue ^ range.first.rawValue)
    else { return nil }
    return range
  }

  /// Whether memory may be moved by as much: see `DeviceLimits.minAlignMask`.
  public func keepsBits(_ difference: UInt64) -> Bool { difference & limits.minAlignMask == 0 }

  /// Which physical memory the bus has now, and where.
  @inline(__always)
  public var ranges: DMARanges {
    unsafeAddress {
      // SAFETY: the ranges live as long as the device, which is borrowed meanwhile.
      // Acquiring: pairs with the release in `setRanges`.
      unsafe UnsafePointer(Self.ranges(at: currentRanges.load(ordering: .acquiring))!)
    }
  }

  private static func ranges(at address: UInt) -> UnsafeMutablePointer<DMARanges>? {
    // SAFETY: the words that this is for have addresses of ranges that live as long as the device.
    unsafe UnsafeMutablePointer(bitPattern: address)
  }

  /// - Throws: as `DMARanges.init`, and `invalidArgument` for a device with mapping functions; `busy` when
  ///   other memory would be where copies may be that are mapped.
  public func setRanges(
    _ given: UnsafePointer<dmacore_dma_range>?, count: Int
  ) throws(Failure) {
    guard unsafe ops == nil else { throw .invalidArgument }
    let new = unsafe try Box<DMARanges>.place { () throws(Failure) in
      unsafe try DMARanges(given, count: count)
    }
    if mappings.hasBounced,
      unsafe new.pointee.putMemory(whereCopiesAreBy: firstRanges, in: system)
    {
      unsafe Box.destroy(new)
      throw .busy
    }
    unsafe new.pointee.first = firstRanges
    // It stays, whatever comes later.
    if unsafe !new.pointee.isEmpty { addDetour(DetourBits.ranges) }
    var last = unsafe firstRanges
    while unsafe last != new && !last.pointee.isEqual(to: new.pointee) {
      unsafe last = last.pointee.append(new)
    }
    if unsafe last != new { unsafe Box.destroy(new) }
    // Releasing: pairs with the acquire in `ranges`.
    currentRanges.store(UInt(bitPattern: last), ordering: .releasing)
  }

  // MARK: - Attachment

  /// The path of a device with this domain.
  public func path(with domain: UnsafeMutablePointer<Domain>?) -> DevicePath {
    guard unsafe iommu != nil else { return unsafe .direct(nil) }
    guard let domain = unsafe domain else { return unsafe .blocked(nil) }
    guard let translation = unsafe domain.pointee.translation else {
      if unsafe domain.pointee.kind == .identity { return unsafe .direct(domain) }
      return unsafe domain.pointee.nesting.map { unsafe .nested($0, domain) } ?? .blocked(domain)
    }
    return unsafe .translated(translation, domain)
  }

  /// The path at this moment. The caller is inside a read section while it uses the answer.
  public var currentPath: DevicePath { unsafe path(with: mappings.domain) }

  /// The path of the device's requests with a PASID at this moment, in the same way.
  public func path(of slot: UnsafeMutablePointer<PASIDSlot>) -> DevicePath {
    // Acquiring: pairs with the release in `leaveGroup`, after which readers are waited for.
    if hasLeft.load(ordering: .acquiring) { return unsafe .blocked(nil) }
    return unsafe path(with: slot.pointee.domain)
  }

  /// Whether its requests can carry a PASID.
  public func has(_ pasid: UInt32) -> Bool { pasid > 0 && pasid < pasidCount }

  /// Whether a PASID may mean something in its group.
  func allows(_ pasid: UInt32) -> Bool { pasidCount == 0 || has(pasid) }

  /// Whether unmaps can be lazy behind its IOMMU.
  var defersFlush: Bool {
    unsafe iommu?.pointee.backend.map { unsafe $0.pointee.has(DMACORE_IOMMU_DEFERRED_FLUSH) }
      ?? true
  }

  // The device's group is attached as a whole: see `Group`.

  public func attach(_ domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    unsafe try group.pointee.setDefault(domain, replacing: false)
  }

  public func replace(by domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    unsafe try group.pointee.setDefault(domain, replacing: true)
  }

  public func detach(_ domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    unsafe try group.pointee.clearDefault(domain)
  }

  /// Says that the device's driver uses the DMA API.
  public func useDefaultDomain() throws(Failure) {
    try unsafe group.pointee.use(member)
  }

  public func unuseDefaultDomain() throws(Failure) {
    try unsafe group.pointee.unuse(member)
  }

  // MARK: - Undoing

  /// The pin table of a mapping.
  public func withPins<Result>(
    of domain: UnsafeMutablePointer<Domain>?, _ body: (borrowing PinTable) -> Result
  ) -> Result {
    if let domain = unsafe domain { return unsafe body(domain.pointee.pins) }
    return body(pins)
  }

  /// Ends a mapping whose record has been claimed, as strictly as its domain wants it, lets others
  /// have its addresses, and gives the record back. Returns whether a zero-copy mapping still holds
  /// it.
  @inline(never)
  public func undo(_ node: MappingTable.Link) -> Bool {
    // What is copied back must be whole.
    guard unsafe node.pointee.payload.memory == nil && node.pointee.payload.bounce == nil,
      let (translation, pages) = unsafe translated(node),
      let queue = unsafe translation.pointee.queue, unsafe queue.pointee.isLazy
    else {
      let isHeld = unsafe end(node)
      unsafe release(node)
      return isHeld
    }
    let (first, last) = (pages.first.rawValue, pages.last.rawValue)
    unsafe translation.pointee.unmap(pages)
    // The record's cell keeps the domain while its listeners are told.
    unsafe node.pointee.payload.domain?.pointee.notifiers.tell(.unmapped(first, last))
    // Looked at while the addresses are nobody else's.
    let isHeld = unsafe isHeld(node, first: first, last: last)
    unsafe queue.pointee.freeLater(pages)
    unsafe mappings.giveBack(node)
    return isHeld
  }

  /// Ends a mapping whose record has been claimed, strictly: when this returns no access through it
  /// is under way, but for those of zero-copy mappings and inside callbacks of memory regions.
  /// Returns whether a zero-copy mapping still holds it. The addresses stay taken.
  @inline(never)
  public func end(_ node: MappingTable.Link) -> Bool {
    var (first, last) = unsafe (node.pointee.first, node.pointee.last)
    if let (translation, pages) = unsafe translated(node) {
      (first, last) = (pages.first.rawValue, pages.last.rawValue)
      unsafe translation.pointee.unmap(pages)
      unsafe translation.pointee.queue?.pointee.settle(pages)
      // The record's cell keeps the domain while its listeners are told.
      unsafe node.pointee.payload.domain?.pointee.notifiers.tell(.unmapped(first, last))
    } else {
      // A direct mapping is out of the table already, so that a view finds it no more. The domain is as
      // it was.
      unsafe system.pointee.readers.waitForReaders()
    }
    return unsafe isHeld(node, first: first, last: last)
  }

  @inline(never)
  private func isHeld(_ node: MappingTable.Link, first: UInt64, last: UInt64) -> Bool {
    unsafe withPins(of: node.pointee.payload.domain) { pins in
      unsafe pins.holds(first: first, last: last, since: node.pointee.payload.stamp)
    }
  }

  /// Lets others have the addresses of a mapping that `end` was called for, and gives its record
  /// back.
  @inline(never)
  public func release(_ node: MappingTable.Link) {
    if let (translation, pages) = unsafe translated(node) {
      unsafe translation.pointee.free(pages)
    } else if unsafe node.pointee.payload.path == .direct {
      // The record's cell keeps the domain.
      unsafe node.pointee.payload.domain?.pointee.leaveWindow(
        node.pointee.first, node.pointee.last)
    } else if unsafe node.pointee.payload.path == .busAddress {
      unsafe system.pointee.endMapping(byBusAddress: node.pointee.first)
    } else if unsafe node.pointee.payload.path == .ops {
      unsafe ops?.pointee.unmap(
        node.pointee.first, node.pointee.last &- node.pointee.first, node.pointee.payload)
    }
    unsafe BouncePool.giveBackAll(node.pointee.payload.bounce)
    unsafe mappings.giveBack(node)
  }

  private func translated(
    _ node: MappingTable.Link
  ) -> (UnsafeMutablePointer<Domain.Translation>, IOVARange)? {
    guard unsafe node.pointee.payload.path.isTranslated,
      let translation = unsafe node.pointee.payload.domain?.pointee.translation,
      let range = try? unsafe IOVARange(
        first: IOVA(node.pointee.first), last: IOVA(node.pointee.last))
    else { return nil }
    return unsafe (translation, range.rounded(to: Self.granule))
  }

  /// Undoes all that is mapped, and reports it as left by a driver, or by whoever destroys the device.
  ///
  /// No mapping call is under way.
  func endMappings(of driver: Driver?) {
    var count: UInt64 = 0
    var bytes: UInt64 = 0
    var keptBytes: UInt64 = 0
    generation.wrappingAdd(1, ordering: .relaxed)
    while let node = unsafe mappings.claimAny() {
      let record = unsafe node.pointee.payload
      let size = unsafe node.pointee.last &- node.pointee.first &+ 1
      let isHeld = unsafe undo(node)
      count &+= 1
      bytes &+= size
      if record.attributes.contains(.reservation) { LinkArray(of: record)?.free() }
      guard let allocation = unsafe record.memory else { continue }
      if isHeld { keptBytes &+= size }
      unsafe system.pointee.freeMemory(allocation, isHeld: isHeld)
    }
    var next: UInt64 = 0
    while let found = mappings.nextTagged(next, UInt64.max),
      let range = try? DMARange(first: DMAAddress(found.first), last: DMAAddress(found.last))
    {
      if mappings.hasTags {
        switch endTagged(range, found.tag) {
        // No other call is under way, but somebody may try to change the domain.
        case .absent, .delayed: continue
        case .ended, .endedWhileHeld: break
        }
      } else {
        // Nobody else should end it, and nothing is copied to who knows whose memory.
        guard endKept(found.first, found.tag, copiesBack: false) else { break }
      }
      next = found.last
      count &+= 1
      bytes &+= range.extent &+ 1
    }
    guard count > 0 else { return }
    unsafe system.pointee.reporter.report(.warning, .busy, object: name) { text in
      if let driver {
        text.append("left by driver ")
        unsafe text.append(cString: driver.name)
      } else {
        text.append("destroyed")
      }
      text.append(" with ")
      text.append(decimal: count)
      text.append(count == 1 ? " live mapping of " : " live mappings of ")
      text.append(decimal: bytes)
      text.append(" bytes, which are unmapped now")
      if keptBytes > 0 {
        text.append("; a zero-copy mapping holds coherent memory among them, and ")
        text.append(decimal: keptBytes)
        text.append(" bytes are never freed")
      }
    }
  }

  /// Ends what the device has, as it is destroyed.
  func endMemory() {
    endMappings(of: nil)
    if let declared = unsafe try? mappings.releaseDeclared(evenIfUsed: true) {
      unsafe Box.letGo(declared)
    }
  }

  func leaveGroup() {
    hasLeft.store(true, ordering: .releasing)
    unsafe group.pointee.remove(member)
    if pasidCount > 0 { unsafe system.pointee.readers.waitForReaders() }
  }

  /// Reports that the device's group cannot be owned.
  func reportDirect() {
    guard let region = reserved.direct else { return }
    unsafe system.pointee.reporter.report(.error, .notPermitted, object: name) { text in
      text.append("its group cannot be owned: the device must reach ")
      text.append(hexadecimal: region.first)
      text.append(" to ")
      text.append(hexadecimal: region.last)
      text.append(" at all times")
    }
  }

  /// Reports that the device was destroyed while others hold it.
  public func reportEarlyDestroy() {
    unsafe system.pointee.reporter.reportEarlyDestroy(object: name)
  }

  // MARK: - Faults

  /// Records a fault and hands it to the callback of the domain that refused the access, which the caller
  /// holds, and to the device's. Called under no lock and in no read section.
  public func report(
    _ fault: dmacore_fault, from device: OpaquePointer,
    in domain: UnsafeMutablePointer<Domain>? = nil
  ) {
    var fault = fault
    fault.time = unsafe system.pointee.lastTick.load(ordering: .relaxed)
    faults.record(&fault)
    ThreadRules.willCallBack()
    if let domain = unsafe domain {
      unsafe domain.pointee.fault?(OpaquePointer(domain), device, &fault, domain.pointee.opaque)
    }
    if let callback = unsafe self.fault { unsafe callback(device, &fault, faultOpaque) }
  }

  /// The numbers that `device.h` explains.
  public var statistics:
    (
      mappingCount: UInt64, mappingBytes: UInt64, mapTotal: UInt64, faultTotal: UInt64,
      faultLost: UInt64
    )
  {
    let mapped = mappings.totals
    let faulted = faults.totals
    return (mapped.count, mapped.bytes, mapped.total, faulted.total, faulted.lost)
  }
}
