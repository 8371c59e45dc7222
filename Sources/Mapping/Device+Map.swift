// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CPlatform
import Domains
import PageTables
import Primitives

// Theory of operation: DMA mapping.
//
// 1. Concepts
// A driver maps memory for a device and gets the address that the device uses for it. Which path a
// mapping takes is decided once, when it is made, and written into its record (MappingTable); undoing
// and syncing go by the record.
//
//   device without an IOMMU, or attached to an identity domain:   direct, by its DMA ranges
//   device attached to a DMA domain:                              IOVA space + page table
//   device attached to a hybrid domain:                           direct where it reaches the memory,
//                                                                 else as in a DMA domain
//   device with mapping functions:                                direct where those are bypassed, else
//                                                                 as they say (Device+Ops.swift)
//   device behind an IOMMU, attached to anything else or nothing: refused
//   memory of a peer, by bus address:                             as the bus has it, in none of these
//                                                                 but the last
//
// What the device does not reach directly, and pages at the ends of a buffer that a device may not have
// whole, are copied (Device+Bounce.swift).
//
// Policy.swift has the decision.
//
// 2. Implementation
// 2.1 A mapping call takes a cell for its record first, and with it pins the device's domain; then
// it makes the mapping; then it enters the record. Each step that can fail comes before the step
// that would have to be undone without memory.
// 2.2 An unmapping call takes the record out first: of two calls for one mapping, one finds it. Then
// it undoes the mapping, and gives the cell back last, which lets go of the domain.
// 2.3 A direct mapping needs no record: its address is the record. Devices that track direct
// mappings keep one all the same, to find misuse. One that is copied has a record, or what it needs is kept
// at its slots.
//
// 3. Locking
// The mapping table's lock (rank 4) twice a call, those of the IOVA space (ranks 8 and 9) or the
// flush queue's (rank 7) once, none of them while anything is allocated or called back.
//
// 4. What this does not do
// It does not look for other memory: what can neither be reached nor copied is refused.

extension Device {
  /// Maps memory for the device: for Swift what `mapPage` and `mapAny` are together. C's functions also have
  /// `mapKeptAtOnce`, and likewise where mappings end.
  ///
  /// - Throws: `noMask`, `notPermitted` when the device is blocked, `outOfRange` when it cannot
  ///   reach the memory, `notSupported` when it must not need syncing and does, `noSpace`, `noMemory`.
  @inline(__always)
  public func map(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes = []
  ) throws(Failure) -> DMAAddress {
    let first = memory.first.rawValue
    let size = memory.extent &+ 1
    if mappings.mayTag,
      let tag = pageTag(first, size, direction.rawValue, attributes.rawValue),
      let address = mapPage(first, tag)
    {
      return DMAAddress(address)
    }
    return try mapAny(memory, direction, attributes)
  }

  /// As `map`, of what is no page, or needs more than is at hand.
  @inline(never)
  public func mapAny(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes
  ) throws(Failure) -> DMAAddress {
    let limit = try limit(for: .streaming)
    if isUntracked, unsafe system.pointee.peers.isEmpty,
      let range = reached(memory, under: limit.highest)
    {
      if attributes.contains(.mmio) { mappings.note(registers: range) }
      return range.first
    }
    if let address = mapTagged(memory, direction, attributes, limit) { return address }
    if let address = mapKept(memory, direction, attributes) { return address }
    return try mapRecorded(memory, direction, attributes, limit).address
  }

  /// As `map`, where a record may have to be kept.
  @inline(never)
  func mapRecorded(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit
  ) throws(Failure) -> (address: DMAAddress, path: MappingPath) {
    let (cell, domain) = unsafe try mappings.take()
    do throws(Failure) {
      let translating = unsafe translating(domain)
      let stamp = unsafe withPins(of: translating) { $0.stamp }
      let access = direction.access.union(attributes.access)
      let decision = unsafe decide(memory, attributes, limit: limit, in: domain)
      let range: DMARange
      var (path, bounce) = unsafe (decision.path, nil as UnsafeMutablePointer<BounceRun>?)
      if path == .bounced || path == .iommuBounced {
        unsafe (range, bounce) = try placeBounced(
          memory, direction, attributes, in: domain, limit, path)
      } else {
        unsafe (range, path) = try place(memory, access, attributes, in: domain, limit, decision)
        if !isCoherent { maintainCaches(of: memory, direction, attributes, forCPU: false) }
      }
      if path == .direct && leavesDirectUnrecorded {
        if attributes.contains(.mmio) { mappings.note(registers: range) }
        unsafe mappings.giveBack(cell)
        return (range.first, path)
      }
      if path == .iommu, let domain = unsafe domain,
        unsafe keepTag(of: range, direction, attributes, in: domain, limit)
      {
        unsafe mappings.giveBack(cell)
        return (range.first, path)
      }
      let record = unsafe MappingRecord(
        kind: .streaming, path: path, direction: direction, attributes: attributes,
        domain: translating, memory: nil, target: memory.first.rawValue, bounce: bounce,
        stamp: stamp)
      try unsafe enter(cell, range, record)
      return (range.first, path)
    } catch {
      unsafe mappings.giveBack(cell)
      throw error
    }
  }

  /// Ends a mapping in one page that is kept as a tag. Returns whether there was one, and it could be ended by what
  /// was at hand.
  @inline(__always)
  public func unmapPage(_ first: UInt64, _ tag: MappingTag) -> Bool {
    switch endPage(first, tag) {
    case .undecided: return false
    case .ended: break
    case .unfinished(let call, let domain, let queue):
      unsafe endRestOfPage(call, domain, queue, first, tag.size)
    }
    return true
  }

  @inline(never)
  private func endRestOfPage(
    _ call: Int, _ domain: UnsafeMutablePointer<Domain>, _ queue: UnsafeMutablePointer<FlushQueue>,
    _ first: UInt64, _ size: UInt64
  ) {
    if unsafe endRest(call, domain, queue, first, size) {
      reportHeld(DMARange(DMAAddress(first), through: DMAAddress(first &+ (size &- 1))))
    }
  }

  /// Ends a mapping, as strictly as its domain wants it: for Swift what `unmapPage` and `unmapAny` are together.
  ///
  /// - Throws: `invalidArgument` when the device has no such mapping. That is reported too.
  @inline(__always)
  public func unmap(
    _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes = []
  ) throws(Failure) {
    let first = range.first.rawValue
    let size = range.extent &+ 1
    if mappings.hasTags,
      let tag = pageTag(first, size, direction.rawValue, attributes.rawValue),
      unmapPage(first, tag)
    {
      return
    }
    try unmapAny(range, direction, attributes)
  }

  /// As `unmap`, of what is no page, or needs more than is at hand.
  @inline(never)
  public func unmapAny(
    _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes
  ) throws(Failure) {
    if endWholeTagged(range, direction, attributes) { return }
    if unmapKept(range, direction, attributes) { return }
    if !isUntracked || mappings.mayBeBounced(at: range.first.rawValue) {
      try unmapRecorded(range, direction, attributes)
    }
  }

  /// Ends a mapping that is kept as a tag. Returns whether there was one.
  @inline(never)
  func endWholeTagged(
    _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes
  ) -> Bool {
    while true {
      switch unmapTagged(range, direction, attributes) {
      case .ended: return true
      case .endedWhileHeld:
        reportHeld(range)
        return true
      case .delayed: cplatform_sleep()
      case .absent: return false
      }
    }
  }

  /// What memory needs that is handed over, of a device that does not see the caches.
  @inline(never)
  func maintainCaches(
    of memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes = [],
    forCPU: Bool
  ) {
    guard attributes.isDisjoint(with: [.skipCPUSync, .mmio]) else { return }
    // What the device only reads stays good in the caches.
    guard !forCPU || direction.access.contains(.write) else { return }
    // Nobody caches what is another device's.
    if unsafe !system.pointee.peers.isEmpty, peerRoute(to: memory, isHolding: false) != nil {
      return
    }
    unsafe system.pointee.maintainCaches(of: memory, direction, forCPU: forCPU)
  }

  /// As `maintainCaches`, of what a range of the device leads to, `target` and what follows.
  private func maintainCaches(
    at target: UInt64, _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes,
    forCPU: Bool
  ) {
    // It was memory when it was mapped, so that it does not wrap.
    guard !isCoherent,
      let memory = try? PhysicalRange(
        first: PhysicalAddress(target), last: PhysicalAddress(target &+ range.extent))
    else { return }
    maintainCaches(of: memory, direction, attributes, forCPU: forCPU)
  }

  /// As `unmap`, where a record may be kept.
  @inline(never)
  func unmapRecorded(
    _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes
  ) throws(Failure) {
    guard let node = unsafe claim(range, direction, attributes) else {
      if endsWithoutRecord(range) { return }
      reportMisuse("unmap", of: range, direction, attributes)
      throw .invalidArgument
    }
    let (target, path) = unsafe (node.pointee.payload.target, node.pointee.payload.path)
    if unsafe node.pointee.payload.bounce != nil {
      if unsafe undoBounced(node) { reportHeld(range) }
      return
    }
    if unsafe undo(node) { reportHeld(range) }
    if path != .busAddress {
      maintainCaches(at: target, range, direction, attributes, forCPU: true)
    }
  }

  /// Takes the record of a mapping out, or looks whether there is one.
  ///
  /// - Parameters:
  ///   - ignored: attributes that may be others.
  ///   - digest: what the segments of a list amount to, for the record of a list that is translated.
  @inline(never)
  @_optimize(speed)
  func claim(
    _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes,
    ignoring ignored: MappingAttributes = [], digest: UInt64? = nil, isTaking: Bool = true
  ) -> MappingTable.Link? {
    unsafe mappings.claim(range, isTaking: isTaking) { record in
      unsafe record.kind == .streaming && record.memory == nil
        && record.direction == direction
        && record.attributes.symmetricDifference(attributes).isSubset(of: ignored)
        && (!attributes.contains(.list) || record.path.isTranslated == (digest != nil))
        && (digest == nil || record.target == digest)
    }
  }

  /// Whether a range that is in no record that is asked for was a direct mapping, which ends.
  @inline(never)
  func endsWithoutRecord(_ range: DMARange) -> Bool {
    guard isOfNoRecord(range) else { return false }
    // What is there by a record is none, and is counted as what it is.
    return isDirect || (mappings.describe(range.first.rawValue) == nil && leaveWindow(range))
  }

  /// Hands a part of a mapping from the device to the CPU or back.
  ///
  /// - Throws: `invalidArgument` when the range lies in no mapping of this direction, which is reported
  ///   too; and what the callback of a memory region that is copied fails with.
  ///
  /// - Parameter isOfList: whether it may be of a list.
  public func sync(
    _ range: DMARange, _ direction: Direction, forCPU: Bool, isOfList: Bool = false
  ) throws(Failure) {
    var found:
      (target: UInt64, attributes: MappingAttributes, path: MappingPath, isBounced: Bool)? = nil
    if !isUntracked || mappings.mayBeBounced(at: range.first.rawValue) {
      found = mappings.find(covering: range, .streaming, direction)
      guard
        found.map({ isOfList || $0.attributes.isDisjoint(with: .marks) })
          ?? isWithoutRecord(range)
      else {
        reportMisuse("sync", of: range, direction)
        throw .invalidArgument
      }
    }
    // The device's thread and the CPU see each other's writes in the order of the hand-overs; the
    // processor keeps caches coherent by itself.
    cplatform_hand_over()
    guard let found else { return }
    if found.isBounced { return try syncBounced(range, direction, forCPU: forCPU) }
    // The caches lie between the CPU and what the functions do.
    let ops = unsafe found.path == .ops ? ops : nil
    if forCPU { try unsafe ops?.pointee.sync(range, direction, to: found.target, forCPU: true) }
    maintainCaches(
      at: found.target, range, direction, found.attributes.intersection(.mmio), forCPU: forCPU)
    if !forCPU { try unsafe ops?.pointee.sync(range, direction, to: found.target, forCPU: false) }
  }

  /// Whether a range that is in no record that is asked for can be in a direct mapping.
  @inline(never)
  func isWithoutRecord(_ range: DMARange) -> Bool {
    isOfNoRecord(range) && (isDirect || isInWindow(range))
  }

  /// Whether no record is kept of a direct mapping at an address, where nothing is copied.
  private func isOfNoRecord(_ range: DMARange) -> Bool {
    leavesDirectUnrecorded && !mappings.isBounced(at: range.first.rawValue)
  }

  /// Whether syncing does anything for a mapping.
  public func needsSync(_ address: DMAAddress) -> Bool {
    if !isCoherent || mappings.isBounced(at: address.rawValue) { return true }
    guard let ops = unsafe ops, unsafe ops.pointee.syncs else { return false }
    return mappings.describe(address.rawValue)?.record.path == .ops
  }

  /// Whether unmapping does anything for mappings.
  public var needsUnmap: Bool { !isUntracked || mappings.hasBounced }

  /// Whether mappings are direct and leave no record, but for those that are copied.
  @inline(__always)
  var isUntracked: Bool { mappings.isUntracked && !meetsPeers }

  /// Whether no record is kept of a direct mapping.
  @inline(__always)
  var leavesDirectUnrecorded: Bool { !mappings.recordsDirect }

  /// Whether all memory is mapped directly, but that of peers.
  @inline(__always)
  private var isDirect: Bool { unsafe iommu == nil || mappings.hasIdentity }

  /// The domain if it translates: what a record remembers.
  func translating(_ domain: UnsafeMutablePointer<Domain>?) -> UnsafeMutablePointer<Domain>? {
    guard let domain = unsafe domain, unsafe domain.pointee.translation != nil else { return nil }
    return unsafe domain
  }

  /// - Throws: `notPermitted` when the device is blocked, or its domain's owner maps by itself, which is
  ///   reported.
  func requireMappingCalls(
    in domain: UnsafeMutablePointer<Domain>?, _ attributes: MappingAttributes = []
  ) throws(Failure) {
    switch unsafe path(with: domain) {
    case .direct: return
    case .translated(_, let domain) where unsafe domain.pointee.kind.isForMappingCalls: return
    case .blocked: throw .notPermitted
    case .translated, .nested:
      if !attributes.contains(.noWarn) { reportRefusal() }
      throw .notPermitted
    }
  }

  /// Gives memory an address of the device, on the path that the policy chooses for what may not be copied.
  @inline(never)
  func place(
    _ memory: PhysicalRange, _ access: Access, _ attributes: MappingAttributes = [],
    in domain: UnsafeMutablePointer<Domain>?, limit: AddressLimit,
    _ kind: MappingRecord.Kind = .streaming
  ) throws(Failure) -> (DMARange, MappingPath) {
    let decision = unsafe decide(
      memory, attributes, limit: limit, in: domain, isStreaming: false, kind)
    return try unsafe place(memory, access, attributes, in: domain, limit, decision)
  }

  /// As above, on a path that has been chosen, and that copies nothing.
  @inline(never)
  private func place(
    _ memory: PhysicalRange, _ access: Access, _ attributes: MappingAttributes,
    in domain: UnsafeMutablePointer<Domain>?, _ limit: AddressLimit, _ decision: PathDecision
  ) throws(Failure) -> (DMARange, MappingPath) {
    switch decision.path {
    case .direct:
      guard var range = ranges.bus(of: memory) else { throw .outOfRange }
      if decision.offset != 0 {
        // It does not wrap, as the policy says.
        let first = range.first.rawValue &+ decision.offset
        range = DMARange(DMAAddress(first), through: DMAAddress(first &+ memory.extent))
      }
      if let domain = unsafe domain, unsafe domain.pointee.kind == .hybrid,
        unsafe !domain.pointee.enterWindow(memory)
      {
        // The window has changed since.
        return (try unsafe placeTranslated(memory, access, in: domain, limit), .iommu)
      }
      return (range, .direct)
    case .busAddress:
      // It may have changed its mind.
      guard let bus = peerRoute(to: memory, isHolding: true)?.bus else { throw .notReachable }
      return (bus, .busAddress)
    case .iommu:
      let access = decision.reasons.contains(.peer) ? access.union(.mmio) : access
      return (try unsafe placeTranslated(memory, access, in: domain!, limit), .iommu)
    case .ops:
      return (try placeByOps(memory, access, attributes, limit, decision.kind), .ops)
    default:
      if decision.reasons.contains(.owned) && !attributes.contains(.noWarn) { reportRefusal() }
      throw decision.failure
    }
  }

  /// Gives memory an address that the domain translates.
  private func placeTranslated(
    _ memory: PhysicalRange, _ access: Access, in domain: UnsafeMutablePointer<Domain>,
    _ limit: AddressLimit
  ) throws(Failure) -> DMARange {
    // The policy says that there is one.
    guard let translation = unsafe domain.pointee.translation else { throw .notPermitted }
    let pages = memory.rounded(to: Self.granule)
    let range = try unsafe domain.pointee.takingTables { () throws(Failure) in
      unsafe try translation.pointee.map(
        pages, access: access, limit: limit.highest, in: ranges, alignMask: limits.minAlignMask)
    }
    // The cell of the call keeps the domain while its listeners are told.
    unsafe domain.pointee.notifiers.tell(
      .mapped(range, to: pages.first, translation.pointee.table.expressible(access)))
    // The memory lies in the pages, at the same offset on both sides.
    let first = range.first.rawValue &+ (memory.first.rawValue & Self.granule.mask)
    return try DMARange(first: DMAAddress(first), last: DMAAddress(first &+ memory.extent))
  }
}
