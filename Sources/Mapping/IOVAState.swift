// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CPlatform
import Domains
import PageTables
import Primitives
import Synchronization

// Theory of operation: two-step mapping.
//
// 1. Concepts
// A range of a domain's addresses is reserved, and memory is linked into it later. `iova_state.h` has the
// rules. The range has one record in the device's mapping table, which keeps the domain and which no call for
// single mappings or lists takes for its own.
//
// 2. Implementation
// 2.1 Links are an array of the state's, in the order of their offsets (LinkArray). The record has its address,
// and leads to the pages that are bounced, of all links in order; pages that are kept ready come behind those.
// So when a driver goes, all ends with the record, and the state is told by the device's generation.
// 2.2 A link fills a part of the range as a list does. What can fail comes first: the record's array has
// room, then pages are copied, then the table is filled.
// 2.3 An unlink clears the table's words, waits once for accesses, copies back what was written, link by link
// with the direction of each, and takes the links out last.
// 2.4 Bounced pages that an unlink frees are kept, up to the number that was asked for.
//
// 3. Locking
// None of its own: calls for one state come one after another. The mapping table's lock (rank 4) while the
// record's pages change, which a sync of somebody else's may look at.
//
// 4. What this does not do
// It knows no limits of segments: whoever tells the device of a range cuts it. It fills in no hole.

/// A reserved range, in memory of the caller's (`struct dmacore_iova_state`).
@safe
public struct IOVAState {
  /// The device, while the state is in use.
  fileprivate(set) var device: UnsafeMutablePointer<Device>?
  /// The record of the range; nil if none is needed.
  fileprivate var node: MappingTable.Link?
  // The device's, when the range was reserved.
  fileprivate var generation: UInt64 = 0
  fileprivate var first: UInt64 = 0
  fileprivate var size: UInt64 = 0
  fileprivate var count: UInt32 = 0
  fileprivate var capacity: UInt32 = 0
  // Bounced pages to be kept, and those that are.
  fileprivate var spareMax: UInt32 = 0
  fileprivate var spareCount: UInt32 = 0

  /// One that is not in use.
  init() {}

  fileprivate init(
    node: MappingTable.Link, generation: UInt64, first: UInt64, size: UInt64,
    _ reserves: IOVAStateReserves
  ) {
    unsafe self.node = node
    self.generation = generation
    self.first = first
    self.size = size
    capacity = reserves.links
    spareMax = reserves.spares
    spareCount = reserves.spares
  }

  public static var linksMax: UInt32 { 1 << 20 }
  public static var sparesMax: UInt32 { 65536 }

  public var isReserved: Bool { unsafe node != nil }

  /// The device's address of offset 0, or 0.
  public var address: UInt64 { first }

  fileprivate var links: LinkArray? {
    unsafe node.flatMap { unsafe LinkArray(of: $0.pointee.payload) }
  }

  fileprivate func check(_ offset: UInt64, _ size: UInt64) throws(Failure) -> UInt64 {
    guard size > 0 else { throw .invalidArgument }
    guard offset < self.size, size <= self.size &- offset else { throw .tooBig }
    return offset &+ (size &- 1)
  }

  /// The links that cover all bytes from one offset to another.
  ///
  /// - Throws: `invalidArgument` when a byte is not linked.
  @inline(never)
  fileprivate func links(covering offset: UInt64, _ last: UInt64) throws(Failure) -> Range<Int> {
    guard let links, count > 0 else { throw .invalidArgument }
    // One that starts at the offset, or the one before it.
    let behind = links.count(before: offset &+ 1, of: Int(count))
    guard behind > 0 else { throw .invalidArgument }
    var (index, next) = (behind &- 1, offset)
    while index < Int(count), links[index].first <= next, links[index].last >= next {
      if links[index].last >= last { return behind &- 1..<index &+ 1 }
      next = links[index].last &+ 1
      index &+= 1
    }
    throw .invalidArgument
  }

  /// The links that start at an offset, or behind it, and end at another, or before it.
  ///
  /// - Throws: `invalidArgument` when none starts, or ends, just there.
  fileprivate func links(from offset: UInt64, through last: UInt64) throws(Failure) -> Range<Int> {
    guard let links else { throw .invalidArgument }
    let from = links.count(before: offset, of: Int(count))
    let end = links.count(before: last &+ 1, of: Int(count))
    guard from < end, links[from].first == offset, links[end &- 1].last == last else {
      throw .invalidArgument
    }
    return from..<end
  }
}

/// What is to be ready before memory is linked.
public struct IOVAStateReserves {
  let links: UInt32
  let spares: UInt32
  let hasTables: Bool

  /// - Throws: `invalidArgument` for numbers that are too large.
  public init(links: UInt32, spares: UInt32, hasTables: Bool) throws(Failure) {
    guard links <= IOVAState.linksMax, spares <= IOVAState.sparesMax else { throw .invalidArgument }
    self.links = links
    self.spares = spares
    self.hasTables = hasTables
  }
}

extension Device {
  public typealias State = UnsafeMutablePointer<IOVAState>

  // MARK: - Reserving

  /// Reserves a range, if memory has other addresses for the device than its own.
  ///
  /// - Throws: `invalidArgument` when the state is in use or the size none, and as `map`.
  public static func reserve(
    _ device: UnsafeMutablePointer<Device>, _ phys: UInt64, _ size: UInt64,
    _ reserves: IOVAStateReserves, _ state: State
  ) throws(Failure) {
    guard unsafe state.pointee.device == nil, size > 0 else { throw .invalidArgument }
    try unsafe device.pointee.reserve(phys, size, reserves, state)
    unsafe state.pointee.device = device
  }

  private func reserve(
    _ phys: UInt64, _ size: UInt64, _ reserves: IOVAStateReserves, _ state: State
  ) throws(Failure) {
    let mask = Self.granule.mask
    let (sum, overflow) = size.addingReportingOverflow(phys & mask &+ mask)
    guard !overflow else { throw .invalidArgument }
    let extent = (sum & ~mask) &- 1
    let page = phys & ~mask
    let lead = try PhysicalRange(
      first: PhysicalAddress(page),
      last: PhysicalAddress(page &+ min(extent, UInt64.max &- page)))
    let limit = try limit(for: .streaming)
    let (cell, domain) = unsafe try mappings.take()
    var made = Made()
    do throws(Failure) {
      unsafe try requireMappingCalls(in: domain)
      guard case .translated(let translation, let domain) = unsafe path(with: domain),
        unsafe !domain.pointee.bypasses
      else {
        unsafe mappings.giveBack(cell)
        return
      }
      let range = try unsafe translation.pointee.allocate(
        extent, for: lead, limit.highest, ranges, limits.minAlignMask)
      made.range = range
      unsafe try make(reserves, for: range, in: domain, &made)
      let first = range.first.rawValue &+ (phys & mask)
      let stamp = unsafe withPins(of: domain) { $0.stamp }
      try unsafe mappings.insert(
        cell, DMARange(first: DMAAddress(first), size: size),
        MappingRecord(
          kind: .streaming, path: .iommu, direction: .bidirectional, attributes: .reservation,
          domain: domain, target: made.links?.address ?? 0, bounce: made.spares, stamp: stamp))
      unsafe state.pointee = IOVAState(
        node: cell, generation: generation.load(ordering: .relaxed), first: first, size: size,
        reserves)
    } catch {
      made.links?.free()
      unsafe BouncePool.giveBackAll(made.spares)
      if let range = made.range {
        unsafe translating(domain)?.pointee.abandon(range, before: range.first.rawValue)
      }
      unsafe mappings.giveBack(cell)
      throw error
    }
  }

  /// What has been made of a range that may fail yet.
  @safe
  private struct Made {
    var range: IOVARange? = nil
    var links: LinkArray? = nil
    var spares: UnsafeMutablePointer<BounceRun>? = nil
  }

  private func make(
    _ reserves: IOVAStateReserves, for range: IOVARange,
    in domain: UnsafeMutablePointer<Domain>, _ made: inout Made
  ) throws(Failure) {
    // The path says that there is a table.
    guard let translation = unsafe domain.pointee.translation else { throw .notPermitted }
    if reserves.hasTables {
      try unsafe domain.pointee.takingTables { () throws(Failure) in
        try unsafe translation.pointee.table.reserve(range)
      }
    }
    if reserves.links > 0 { made.links = try LinkArray(capacity: Int(reserves.links)) }
    for _ in 0..<reserves.spares {
      let spare = unsafe try sparePage(last: translation.pointee.table.facts.lastOutput)
      unsafe spare.pointee.next = made.spares
      unsafe made.spares = spare
    }
  }

  /// The device of a state, if it has a range, and that is still there.
  ///
  /// - Throws: `invalidArgument` when there is none. If the device's driver has gone since, that is
  ///   reported.
  @inline(never)
  public static func device(
    of state: State, _ call: StaticString
  ) throws(Failure) -> UnsafeMutablePointer<Device> {
    guard let device = unsafe state.pointee.device, unsafe state.pointee.node != nil else {
      throw .invalidArgument
    }
    guard unsafe state.pointee.generation == device.pointee.generation.load(ordering: .relaxed)
    else {
      if let range = try? unsafe DMARange(
        first: DMAAddress(state.pointee.first), size: state.pointee.size)
      {
        unsafe device.pointee.reportMisuse(call, of: range, nil)
      }
      throw .invalidArgument
    }
    return unsafe device
  }

  // MARK: - Linking

  /// Maps memory into the range of a state.
  ///
  /// - Throws: `tooBig`, `badAddress`, `exists`, `notReachable`, and as `map`.
  @_optimize(speed)
  public func link(
    _ state: State, _ offset: UInt64, _ memory: PhysicalRange, _ direction: Direction,
    _ attributes: MappingAttributes
  ) throws(Failure) {
    let mask = Self.granule.mask
    let last = try unsafe state.pointee.check(offset, memory.extent &+ 1)
    let start = unsafe state.pointee.first &+ offset
    guard (start ^ memory.first.rawValue) & mask == 0 else { throw .badAddress }
    let index = unsafe try place(state, offset, last)
    guard let node = unsafe state.pointee.node, let domain = unsafe node.pointee.payload.domain
    else {
      throw .invalidArgument
    }
    let limit = try limit(for: .streaming)
    if unsafe state.pointee.count == state.pointee.capacity { unsafe try grow(state) }
    var isBounced = false
    let pages = memory.rounded(to: Self.granule)
    if unsafe !mapUntagged(start & ~mask, pages, direction, attributes, in: domain) {
      isBounced = unsafe try fill(state, offset, memory, direction, attributes, limit, in: domain)
    }
    let link = MemoryLink(
      first: offset, memory, direction, attributes, isBounced: isBounced)
    unsafe state.pointee.links?.insert(link, at: index, of: Int(state.pointee.count))
    unsafe state.pointee.count &+= 1
  }

  /// Fills a part of the range as the policy decides. Returns whether ends of it are bounced.
  @inline(never)
  private func fill(
    _ state: State, _ offset: UInt64, _ memory: PhysicalRange, _ direction: Direction,
    _ attributes: MappingAttributes, _ limit: AddressLimit,
    in domain: UnsafeMutablePointer<Domain>
  ) throws(Failure) -> Bool {
    let decision = unsafe decide(memory, attributes, limit: limit, in: domain)
    switch decision.path {
    // In a hybrid domain, too, it is to be where the caller wants it.
    case .iommu, .direct: break
    case .iommuBounced:
      unsafe try fillBounced(state, offset, memory, direction, attributes, in: domain)
      return true
    case .busAddress: throw .notReachable
    default: throw decision.failure
    }
    var access = direction.access.union(attributes.access)
    if decision.reasons.contains(.peer) { access.insert(.mmio) }
    if !isCoherent { maintainCaches(of: memory, direction, attributes, forCPU: false) }
    let page = unsafe (state.pointee.first &+ offset) & ~Self.granule.mask
    try unsafe domain.pointee.fill(page, memory.rounded(to: Self.granule), access)
    return false
  }

  /// Where a link would be among the others.
  ///
  /// - Throws: `exists` when it would share a page with one.
  @inline(__always)
  private func place(_ state: State, _ offset: UInt64, _ last: UInt64) throws(Failure) -> Int {
    guard let links = unsafe state.pointee.links else { return 0 }
    let (count, base) = unsafe (Int(state.pointee.count), state.pointee.first)
    let page = { (offset: UInt64) in (base &+ offset) & ~Self.granule.mask }
    let index = links.count(before: offset, of: count)
    guard index == 0 || page(links[index &- 1].last) < page(offset),
      index == count || page(links[index].first) > page(last)
    else { throw .exists }
    return index
  }

  /// Makes records for more links.
  @inline(never)
  private func grow(_ state: State) throws(Failure) {
    let (count, node) = unsafe (state.pointee.count, state.pointee.node)
    guard let node = unsafe node else { throw .invalidArgument }
    // More than a range has pages of is never asked for, and would not fit the count.
    guard count < UInt32.max / 2 else { throw .noMemory }
    let capacity = max(32, count * 2)
    let (old, new) = unsafe (state.pointee.links, try LinkArray(capacity: Int(capacity)))
    if let old { new.take(Int(count), from: old) }
    unsafe mappings.change(node) { record in record.target = new.address }
    old?.free()
    unsafe state.pointee.capacity = capacity
  }

  @inline(never)
  private func fillBounced(
    _ state: State, _ offset: UInt64, _ memory: PhysicalRange, _ direction: Direction,
    _ attributes: MappingAttributes, in domain: UnsafeMutablePointer<Domain>
  ) throws(Failure) {
    let start = unsafe state.pointee.first &+ offset
    var (spare, runs) = unsafe (takeSpares(state), nil as UnsafeMutablePointer<BounceRun>?)
    defer { unsafe keep(spare, of: state) }
    do throws(Failure) {
      unsafe try copyEnds(memory, direction, offset, in: domain, &runs, &spare)
      let page = start & ~Self.granule.mask
      var (next, run) = unsafe (page, runs)
      do throws(Failure) {
        unsafe try fillCut(memory, direction, attributes, in: domain, start, &next, &run)
      } catch {
        unsafe domain.pointee.withdraw(page, before: next)
        throw error
      }
      unsafe enter(runs, of: state)
    } catch {
      unsafe keep(runs, of: state)
      throw error
    }
  }

  // MARK: - Bounced pages

  /// Takes out those that are kept ready.
  private func takeSpares(_ state: State) -> UnsafeMutablePointer<BounceRun>? {
    let spares = unsafe take(from: UInt64.max, through: UInt64.max, of: state)
    unsafe state.pointee.spareCount = 0
    return unsafe spares
  }

  /// Takes those out of the record that lie between two offsets.
  @inline(never)
  private func take(
    from first: UInt64, through last: UInt64, of state: State
  ) -> UnsafeMutablePointer<BounceRun>? {
    guard let node = unsafe state.pointee.node, unsafe node.pointee.payload.bounce != nil else {
      return nil
    }
    var taken: UnsafeMutablePointer<BounceRun>? = nil
    unsafe mappings.change(node) { record in
      var before: UnsafeMutablePointer<BounceRun>? = nil
      var run = unsafe record.bounce
      while let this = unsafe run, unsafe this.pointee.offset < first {
        unsafe before = this
        unsafe run = this.pointee.next
      }
      unsafe taken = run
      var end: UnsafeMutablePointer<BounceRun>? = nil
      while let this = unsafe run, unsafe this.pointee.offset <= last {
        unsafe end = this
        unsafe run = this.pointee.next
      }
      guard let end = unsafe end else { return unsafe taken = nil }
      unsafe end.pointee.next = nil
      if let before = unsafe before {
        unsafe before.pointee.next = run
      } else {
        unsafe record.bounce = run
      }
    }
    return unsafe taken
  }

  /// Puts some that come one behind the other in their order.
  private func enter(_ runs: UnsafeMutablePointer<BounceRun>?, of state: State) {
    guard let first = unsafe runs, let node = unsafe state.pointee.node else { return }
    unsafe mappings.change(node) { record in
      var last = unsafe first
      while let next = unsafe last.pointee.next { unsafe last = next }
      var before: UnsafeMutablePointer<BounceRun>? = nil
      var run = unsafe record.bounce
      while let this = unsafe run, unsafe this.pointee.offset < first.pointee.offset {
        unsafe before = this
        unsafe run = this.pointee.next
      }
      unsafe last.pointee.next = run
      if let before = unsafe before {
        unsafe before.pointee.next = first
      } else {
        unsafe record.bounce = first
      }
    }
  }

  /// Keeps pages that nothing leads to any more, as many as are to be, and gives the others back.
  @inline(never)
  private func keep(_ runs: UnsafeMutablePointer<BounceRun>?, of state: State) {
    var run = unsafe runs
    while let this = unsafe run {
      unsafe run = this.pointee.next
      unsafe this.pointee.next = nil
      guard unsafe state.pointee.spareCount < state.pointee.spareMax else {
        unsafe BouncePool.giveBackAll(this)
        continue
      }
      unsafe this.pointee.host -= Int(
        this.pointee.original.first.rawValue & Self.granule.mask)
      let page = unsafe this.pointee.original.first.rawValue & ~Self.granule.mask
      if let nothing = try? PhysicalRange(first: PhysicalAddress(page), size: 1) {
        unsafe this.pointee.original = nothing
      }
      unsafe this.pointee.offset = UInt64.max
      unsafe enter(this, of: state)
      unsafe state.pointee.spareCount &+= 1
    }
  }

  // MARK: - Syncing

  /// Whether all bytes are linked, which the device sees when it is told of them.
  ///
  /// - Throws: `invalidArgument`, `tooBig`.
  public func sync(_ state: State, _ offset: UInt64, _ size: UInt64) throws(Failure) {
    let last = try unsafe state.pointee.check(offset, size)
    _ = try unsafe state.pointee.links(covering: offset, last)
    cplatform_hand_over()
  }

  /// Hands bytes that are linked from the device to the CPU or back.
  ///
  /// - Throws: `invalidArgument`, `tooBig`, and what the callback of a memory region fails with.
  @inline(never)
  public func sync(
    _ state: State, _ offset: UInt64, _ size: UInt64, forCPU: Bool
  ) throws(Failure) {
    let last = try unsafe state.pointee.check(offset, size)
    let range = try unsafe state.pointee.links(covering: offset, last)
    cplatform_hand_over()
    guard let links = unsafe state.pointee.links else { return }
    for index in range {
      let link = links[index]
      unsafe try handOver(
        link, max(offset, link.first), min(last, link.last), of: state, nil, forCPU: forCPU)
    }
  }

  /// Hands what lies between two offsets of a link from the device to the CPU or back.
  ///
  /// - Parameter claimed: the link's bounced pages, if they have been taken out.
  @inline(never)
  private func handOver(
    _ link: MemoryLink, _ first: UInt64, _ last: UInt64, of state: State,
    _ claimed: UnsafeMutablePointer<BounceRun>?, forCPU: Bool
  ) throws(Failure) {
    guard !forCPU || link.direction.access.contains(.write) else { return }
    guard link.isBounced else {
      let target = link.target &+ (first &- link.first)
      guard !isCoherent,
        let memory = try? PhysicalRange(first: PhysicalAddress(target), size: last &- first &+ 1)
      else { return }
      maintainCaches(
        of: memory, link.direction, link.attributes.intersection(.mmio), forCPU: forCPU)
      return
    }
    let live =
      unsafe claimed == nil
      ? try DMARange(
        first: DMAAddress(state.pointee.first &+ first), size: last &- first &+ 1) : nil
    // What is not copied of a link is found in the page table; once that is cleared, by the pages that are.
    try unsafe handOverAll(
      first, last, of: live, claimed, link.direction, forCPU: forCPU,
      list: live == nil ? nil : state.pointee.first)
  }

  // MARK: - Unlinking

  /// Ends links, strictly.
  ///
  /// - Throws: `invalidArgument`, `tooBig`.
  public func unlink(_ state: State, _ offset: UInt64, _ size: UInt64) throws(Failure) {
    let last = try unsafe state.pointee.check(offset, size)
    try unsafe end(state.pointee.links(from: offset, through: last), of: state)
  }

  @inline(never)
  private func end(_ range: Range<Int>, of state: State) {
    guard let links = unsafe state.pointee.links, let node = unsafe state.pointee.node,
      let domain = unsafe node.pointee.payload.domain
    else { return }
    let mask = Self.granule.mask
    let first = unsafe (state.pointee.first &+ links[range.lowerBound].first) & ~mask
    let last = unsafe (state.pointee.first &+ links[range.upperBound &- 1].last) | mask
    unsafe domain.pointee.withdraw(first, before: last &+ 1)
    let isHeld = unsafe withPins(of: domain) { pins in
      unsafe pins.holds(first: first, last: last, since: node.pointee.payload.stamp)
    }
    unsafe handBack(range, links, of: state)
    unsafe links.remove(range, of: Int(state.pointee.count))
    unsafe state.pointee.count &-= UInt32(range.count)
    if isHeld { reportHeld(DMARange(DMAAddress(first), through: DMAAddress(last))) }
  }

  /// Hands what was linked back to the CPU, when no access through it is under way any more.
  @inline(never)
  private func handBack(_ range: Range<Int>, _ links: LinkArray, of state: State) {
    // Of the others there is nothing to hand over.
    for index in range where !isCoherent || links[index].isBounced {
      let link = links[index]
      let runs =
        unsafe link.isBounced ? take(from: link.first, through: link.last, of: state) : nil
      if !link.attributes.contains(.skipCPUSync) {
        do throws(Failure) {
          unsafe try handOver(link, link.first, link.last, of: state, runs, forCPU: true)
        } catch {
          reportLoss(error)
        }
      }
      unsafe keep(runs, of: state)
    }
  }

  // MARK: - Freeing

  /// Frees the range of a state, as strictly as its domain wants it, and empties the state.
  ///
  /// - Throws: `busy` when something is linked and not to be ended; `invalidArgument`.
  public static func free(
    _ state: State, _ call: StaticString, endingLinks: Bool
  ) throws(Failure) {
    if unsafe state.pointee.device != nil && state.pointee.node == nil {
      return unsafe empty(state)
    }
    let device = unsafe try device(of: state, call)
    guard unsafe endingLinks || state.pointee.count == 0 else { throw .busy }
    unsafe device.pointee.endRange(of: state)
    unsafe empty(state)
  }

  private static func empty(_ state: State) {
    unsafe RawMemory.clear(UnsafeMutableRawPointer(state), size: MemoryLayout<IOVAState>.size)
  }

  private func endRange(of state: State) {
    guard let node = unsafe state.pointee.node else { return }
    unsafe state.pointee.spareMax = 0
    unsafe BouncePool.giveBackAll(takeSpares(state))
    // What is copied back must be whole.
    if unsafe node.pointee.payload.bounce != nil {
      unsafe end(0..<Int(state.pointee.count), of: state)
    }
    let links = unsafe state.pointee.links
    let range = unsafe DMARange(
      DMAAddress(node.pointee.first), through: DMAAddress(node.pointee.last))
    // It is there, as it is of the device's generation.
    guard let node = unsafe mappings.claim(range, isWanted: { $0.attributes == .reservation })
    else {
      return
    }
    var isHeld = false
    if unsafe state.pointee.count > 0 {
      isHeld = unsafe undo(node)
    } else {
      unsafe release(node)
    }
    // None is bounced any more.
    if let links { unsafe handBack(0..<Int(state.pointee.count), links, of: state) }
    links?.free()
    if isHeld { reportHeld(range) }
  }
}
