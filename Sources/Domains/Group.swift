// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

// Theory of operation: groups and ownership.
//
// 1. Concepts
// A group is the devices that share one translation: they are attached to one domain, all or none.
// While the group is free, or in use by the DMA API, that is its default domain. Who owns the group
// has it to itself, blocked or in a domain of the owner's. `group.h` has the diagram.
//
// 2. Implementation
// 2.1 A change of the domain has two steps. First the mapping table of each device is frozen: then it
// has no mapping, no mapping call is under way, and none starts. If one cannot be, those before it are
// thawed, and nothing has changed. Then the IOMMU's backend is told, which may fail and then has gone
// back (Backend.swift). Then each gets the new domain, which cannot fail. So no access sees a third
// domain. The tables are thawed when all have it: so what is mapped for one device leads all of them there.
// 2.2 What was left, a domain that may end with its last device, is let go of when the lock is free and
// no read section that found it is open. Then what was pending there is answered (PageRequests.swift).
// 2.3 A direct mapping may have no record but its address, which nothing else may get then. So before a
// device that may have some goes to a domain that gives out addresses, the bus addresses of memory are
// reserved there. That may take memory, and is done before the lock is taken, under which it is looked at
// again.
// 2.4 An owner is known by an address of the caller's that is never looked at again.
//
// 3. Locking
// One lock a group (rank 3), with each device's mapping table's (rank 4) inside it, one after another.
// Mapping calls do not take it.
//
// 4. What this does not do
// Which devices belong together is found out in Topology.swift, which default domain they get in
// Group+Choice.swift. Who owns a group is Group+Ownership.swift, what PASIDs lead to PASID.swift.

/// Devices that share one translation. Locked, rank 3.
@safe
public struct Group: ~Copyable, Held {
  /// What a group knows of one of its devices.
  @safe
  struct Member {
    var device: UnsafeMutablePointer<Device>? = nil
    /// The device, while the group has it.
    var attached: UnsafeMutablePointer<Device> { unsafe device.unsafelyUnwrapped }
    var next: UnsafeMutablePointer<Member>? = nil
    /// How often somebody said that its driver uses the DMA API.
    var uses: UInt64 = 0
    /// Whether a driver that uses the DMA API is bound to it, or about to be.
    var isUsedByDriver = false
    var pageRequests = PageRequests()
    // Not the group's, but records of the device that do not move; see `Bindings` and `Topology`.
    var binding = Binding()
    var place: Place
  }

  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State: ~Copyable {
    var members: UnsafeMutablePointer<Member>? = nil
    var memberCount = 0
    /// What the devices are attached to.
    var domain: UnsafeMutablePointer<Domain>? = nil
    /// What they are attached to while nobody owns the group, which holds it.
    var defaultDomain: UnsafeMutablePointer<Domain>? = nil
    /// Whether the group has chosen that itself.
    var isDefaultChosen = false
    var uses: UInt64 = 0
    /// The PASIDs that somebody has asked for; see PASID.swift.
    var slots: UnsafeMutablePointer<PASIDSlot>? = nil
    var isLeavingPASIDs = false
    /// Whether one of its devices provides, or provided, memory to others.
    var meetsPeers = false
    /// What was pending in the domains that PASIDs are leaving.
    var leftPageRequests: PageRequestGroup.Link? = nil
    var owner: UnsafeRawPointer? = nil
    var ownerKind = Owner.Kind.driver
    var claims: UInt64 = 0
    /// The call by which it came into its state, through which device, and who called.
    var since: StaticString = ""
    let holderName: Name
    let deviceName: Name

    deinit {
      var next = unsafe slots
      while let slot = unsafe next {
        unsafe next = slot.pointee.next
        unsafe Box.destroy(slot)
      }
    }
  }

  /// What nothing leads to any more, to be let go of.
  @safe
  struct Left {
    var domain: UnsafeMutablePointer<Domain>? = nil
    var devices = 0
    var defaultDomain: UnsafeMutablePointer<Domain>? = nil
    var hasPASIDs = false
    /// What was pending in the domain.
    var pageRequests: PageRequestGroup.Link? = nil
  }

  public let system: UnsafeMutablePointer<System>
  let state: Guarded<State>
  private let uses = UseCount()

  /// Holds the system until it ends.
  public init(system: UnsafeMutablePointer<System>) throws(Failure) {
    let state = try Guarded<State>(.group) { () throws(Failure) in
      unsafe State(
        holderName: try Name(nil, fallback: ""), deviceName: try Name(nil, fallback: ""))
    }
    unsafe Box.hold(system)
    unsafe self.system = system
    self.state = state
  }

  // Its devices have held it, so that there are none, and no domain.
  deinit { unsafe Box.letGo(system) }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  // MARK: - Devices

  /// Adds a device that nobody knows yet. It joins what the others are attached to.
  ///
  /// - Throws: `invalidArgument` when the others are behind another IOMMU, `notPermitted` when they are
  ///   in an identity or a lazy domain, or go back to one, and this device is not trusted; or when what they are
  ///   in, with a PASID or without, or go back to, does not honour the device's reserved regions; and what
  ///   the backend fails with.
  func add(
    _ device: UnsafeMutablePointer<Device>, _ member: UnsafeMutablePointer<Member>
  ) throws(Failure) {
    try state.withLock { (state) throws(Failure) in
      if let first = unsafe state.members?.pointee.device {
        guard unsafe first.pointee.iommu == device.pointee.iommu else { throw .invalidArgument }
      }
      guard unsafe state.domain.map({ unsafe Self.suits($0, device) }) ?? true,
        unsafe state.defaultDomain.map({ unsafe Self.suits($0, device) }) ?? true,
        unsafe Self.suitsPASIDs(device, in: state),
        unsafe state.owner == nil || device.pointee.reserved.direct == nil
      else { throw .notPermitted }
      unsafe member.pointee.device = device
      do throws(Failure) {
        try unsafe Self.tellBackend(ofJoining: member, state)
      } catch {
        unsafe member.pointee.device = nil
        throw error
      }
      if state.meetsPeers { unsafe device.pointee.meetPeers() }
      unsafe member.pointee.next = state.members
      unsafe state.members = member
      state.memberCount &+= 1
      unsafe Self.set(state.domain, of: member)
    }
  }

  /// Takes a device out that has no driver, no mappings and no mapping call; it is blocked from here on.
  /// A group without devices is as it was at first.
  func remove(_ member: UnsafeMutablePointer<Member>) {
    let left = state.withLock { state -> Left in
      guard let device = unsafe member.pointee.device else { return Left() }
      var link = unsafe state.members
      if unsafe link == member {
        unsafe state.members = member.pointee.next
      } else {
        while let other = unsafe link, unsafe other.pointee.next != member {
          unsafe link = other.pointee.next
        }
        unsafe link?.pointee.next = member.pointee.next
      }
      state.memberCount &-= 1
      unsafe Self.tellBackend(ofLeaving: member, state)
      unsafe state.uses -= member.pointee.uses
      unsafe member.pointee.uses = 0
      unsafe member.pointee.device = nil
      unsafe device.pointee.mappings.setDomain(nil)
      var left = unsafe Left(domain: state.domain, devices: 1)
      unsafe Self.takePageRequests(of: member, into: &left.pageRequests) { _ in true }
      if unsafe state.members == nil {
        unsafe left.defaultDomain = state.defaultDomain
        unsafe (state.domain, state.defaultDomain, state.owner) = (nil, nil, nil)
        (state.claims, state.isDefaultChosen) = (0, false)
        // Who is in the middle of that sees that there is no owner any more.
        left.hasPASIDs = !state.isLeavingPASIDs && Self.detachPASIDs(&state)
      }
      return left
    }
    // Until it is blocked, another device with its IDs belongs to the same group.
    unsafe system.pointee.topology.remove(member)
    letGo(of: left)
  }

  /// Says that bus addresses lead to a peer from now on.
  ///
  /// - Throws: `busy` when a device has mapped something there, or a mapping call is under way that has
  ///   begun before.
  func keepClear(of bus: DMARange) throws(Failure) {
    try state.withLock { (state) throws(Failure) in
      state.meetsPeers = true
      let inTheWay = unsafe Self.first(in: state) { member in
        unsafe member.pointee.attached.pointee.meetPeers()
        return unsafe !member.pointee.attached.pointee.mappings.isClear(of: bus)
      }
      guard unsafe inTheWay == nil else { throw .busy }
    }
  }

  /// The reserved regions of all devices.
  ///
  /// - Throws: `noMemory`.
  public func reservedRegions() throws(Failure) -> ReservedRegions {
    var capacity = 0
    while true {
      var regions = try ReservedRegions(capacity: capacity)
      let needed = state.withLock { state in unsafe Self.copyRegions(of: state.members, &regions) }
      if needed <= capacity {
        regions.merge()
        return regions
      }
      capacity = needed
    }
  }

  /// Returns how many there are; if they do not fit, not all are copied.
  private static func copyRegions(
    of members: UnsafeMutablePointer<Member>?, _ regions: inout ReservedRegions
  ) -> Int {
    var needed = 0
    var next = unsafe members
    while let member = unsafe next {
      let device = unsafe member.pointee.attached
      let count = unsafe device.pointee.reserved.count
      for index in 0..<count where !regions.isFull {
        unsafe regions.append(device.pointee.reserved[index])
      }
      needed += count
      unsafe next = member.pointee.next
    }
    return needed
  }

  private static func set(
    _ domain: UnsafeMutablePointer<Domain>?, of member: UnsafeMutablePointer<Member>
  ) {
    if let domain = unsafe domain {
      unsafe Box.hold(domain)
      unsafe domain.pointee.changeDevices(by: 1)
    }
    unsafe member.pointee.attached.pointee.mappings.setDomain(domain)
  }

  // MARK: - The domain

  /// Attaches all devices to another domain, or to none.
  ///
  /// - Returns: what they have left.
  /// - Throws: `busy` when one of them has a mapping, or a call that makes or undoes one, and what the
  ///   backend fails with. Then all are as they were.
  static func change(
    _ state: inout State, to domain: UnsafeMutablePointer<Domain>?
  ) throws(Failure) -> Left {
    guard unsafe domain != state.domain else { return Left() }
    var next = unsafe state.members
    while let member = unsafe next {
      guard unsafe member.pointee.attached.pointee.mappings.freeze() else {
        unsafe thaw(state.members, until: member)
        throw .busy
      }
      unsafe next = member.pointee.next
    }
    do throws(Failure) {
      if let translation = unsafe domain?.pointee.translation {
        unsafe next = state.members
        while let member = unsafe next {
          try unsafe translation.pointee.keepClear(
            of: member.pointee.attached.pointee, reserving: false)
          unsafe next = member.pointee.next
        }
      }
      try unsafe tellBackend(state, of: domain, insteadOf: state.domain)
    } catch {
      unsafe thaw(state.members, until: nil)
      throw error
    }
    unsafe next = state.members
    while let member = unsafe next {
      unsafe set(domain, of: member)
      unsafe next = member.pointee.next
    }
    // What one of them maps from here on leads all of them there.
    unsafe thaw(state.members, until: nil)
    var left = unsafe Left(domain: state.domain, devices: state.memberCount)
    unsafe takePageRequests(of: 0, from: state.members, into: &left.pageRequests)
    unsafe state.domain = domain
    return left
  }

  /// Lets a domain, to which the devices are about to go, give out no address where one of them may have
  /// mapped directly without a record.
  ///
  /// - Throws: as `Translation.keepClear`.
  @inline(never)
  func clear(_ domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    guard let translation = unsafe domain.pointee.translation else { return }
    var index = 0
    // Each of them, as long as none comes or goes; `change` looks whether one has come.
    while let device = unsafe hold(index) {
      defer { unsafe Box.letGo(device) }
      // Another one is refused.
      guard unsafe device.pointee.iommu == domain.pointee.iommu else { return }
      try unsafe translation.pointee.keepClear(of: device.pointee, reserving: true)
      index &+= 1
    }
  }

  private func hold(_ index: Int) -> UnsafeMutablePointer<Device>? {
    unsafe state.withLock { state in
      var left = index
      let device = unsafe Self.first(in: state) { _ in
        left &-= 1
        return left < 0
      }
      if let device = unsafe device { unsafe Box.hold(device) }
      return unsafe device
    }
  }

  private static func thaw(
    _ members: UnsafeMutablePointer<Member>?, until end: UnsafeMutablePointer<Member>?
  ) {
    var next = unsafe members
    while let member = unsafe next, unsafe member != end {
      unsafe member.pointee.attached.pointee.mappings.thaw()
      unsafe next = member.pointee.next
    }
  }

  /// Waits until nobody is inside what was left, lets go of it, and answers what was pending there.
  @inline(never)
  func letGo(of left: Left) {
    if let domain = unsafe left.domain, left.devices > 0 {
      unsafe system.pointee.readers.waitForReaders()
      unsafe domain.pointee.changeDevices(by: -left.devices)
      for _ in 0..<left.devices { unsafe Box.letGo(domain) }
    }
    if let domain = unsafe left.defaultDomain { unsafe Box.letGo(domain) }
    letGoOfPASIDs(left.hasPASIDs)
    unsafe PageRequestGroup.answer(
      left.pageRequests, with: DMACORE_PAGE_RESPONSE_INVALID.rawValue)
  }

  static func check(
    _ domain: UnsafeMutablePointer<Domain>, _ state: borrowing State
  ) throws(Failure) {
    guard let iommu = unsafe state.members?.pointee.device?.pointee.iommu,
      unsafe domain.pointee.iommu == iommu
    else { throw .invalidArgument }
    guard unsafe suitsAll(domain, in: state) else { throw .notPermitted }
  }

  /// Whether a device may be attached to a domain: one that contains it if it is not trusted, and honours
  /// its reserved regions.
  static func suits(
    _ domain: UnsafeMutablePointer<Domain>, _ device: UnsafeMutablePointer<Device>
  ) -> Bool {
    unsafe !(domain.pointee.isTrusting && device.pointee.isUntrusted)
      && domain.pointee.honours(device.pointee.reserved)
  }

  static func suitsAll(
    _ domain: UnsafeMutablePointer<Domain>, in state: borrowing State
  ) -> Bool {
    unsafe first(in: state) { unsafe !suits(domain, $0.pointee.attached) } == nil
  }

  /// The first device that must reach some memory at all times.
  static func direct(in state: borrowing State) -> UnsafeMutablePointer<Device>? {
    unsafe first(in: state) { unsafe $0.pointee.attached.pointee.reserved.direct != nil }
  }

  /// The first device that passes.
  static func first(
    in state: borrowing State, where passes: (UnsafeMutablePointer<Member>) -> Bool
  ) -> UnsafeMutablePointer<Device>? {
    var next = unsafe state.members
    while let member = unsafe next {
      if unsafe passes(member) { return unsafe member.pointee.device }
      unsafe next = member.pointee.next
    }
    return nil
  }

  static func untrusted(in state: borrowing State) -> UnsafeMutablePointer<Device>? {
    unsafe first(in: state) { unsafe $0.pointee.attached.pointee.isUntrusted }
  }

  // MARK: - The default domain

  /// Sets the default domain of a group that nobody owns or uses.
  ///
  /// - Throws: `invalidArgument` for a domain of another IOMMU, `notPermitted` when the group is owned,
  ///   `busy` when it is in use, when it has a default domain unless that is to be replaced, and as
  ///   `clear` and `change`.
  @inline(never)
  public func setDefault(
    _ domain: UnsafeMutablePointer<Domain>, replacing: Bool
  ) throws(Failure) {
    try unsafe clear(domain)
    let left = try state.withLock { (state) throws(Failure) -> Left in
      unsafe try Self.check(domain, state)
      try Self.requireFree(state)
      guard unsafe replacing || state.defaultDomain == nil else { throw .busy }
      guard unsafe domain != state.defaultDomain else { return Left() }
      var left = unsafe try Self.change(&state, to: domain)
      unsafe Self.setDefault(domain, &state, &left)
      return left
    }
    letGo(of: left)
  }

  static func setDefault(
    _ domain: UnsafeMutablePointer<Domain>, _ state: inout State, _ left: inout Left
  ) {
    unsafe left.defaultDomain = state.defaultDomain
    unsafe Box.hold(domain)
    unsafe state.defaultDomain = domain
    state.isDefaultChosen = false
  }

  /// Takes the default domain away from a group that nobody owns or uses.
  ///
  /// - Throws: `invalidArgument` when it is another, and as `setDefault`.
  public func clearDefault(_ domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    let left = try state.withLock { (state) throws(Failure) -> Left in
      guard unsafe state.defaultDomain == domain else { throw .invalidArgument }
      try Self.requireFree(state)
      guard unsafe Self.direct(in: state) == nil else { throw .notPermitted }
      var left = unsafe try Self.change(&state, to: nil)
      unsafe left.defaultDomain = domain
      unsafe state.defaultDomain = nil
      return left
    }
    letGo(of: left)
  }

  static func requireFree(_ state: borrowing State) throws(Failure) {
    guard unsafe state.owner == nil else { throw .notPermitted }
    guard state.uses == 0 else { throw .busy }
  }

  /// - Throws: `busy` when the group is owned, `noDevice` when it has no default domain and its devices
  ///   are behind an IOMMU.
  func use(_ member: UnsafeMutablePointer<Member>) throws(Failure) {
    try state.withLock { (state) throws(Failure) in
      guard unsafe state.owner == nil else { throw .busy }
      guard let device = unsafe member.pointee.device,
        unsafe device.pointee.iommu == nil || state.defaultDomain != nil
      else { throw .noDevice }
      unsafe Self.countUse(&state, device, "dmacore_device_use_default_domain", by: nil)
      unsafe member.pointee.uses &+= 1
    }
  }

  @inline(never)
  static func countUse(
    _ state: inout State, _ device: UnsafeMutablePointer<Device>, _ call: StaticString,
    by driver: Driver?
  ) {
    if state.uses == 0 { unsafe note(&state, call, device.pointee.name, by: driver?.name) }
    state.uses &+= 1
  }

  /// Notes how the group comes into its state.
  @inline(never)
  static func note(
    _ state: inout State, _ call: StaticString, _ device: UnsafePointer<CChar>?,
    by holder: UnsafePointer<CChar>?, orBy fallback: StaticString = ""
  ) {
    state.since = call
    unsafe state.deviceName.set(device, fallback: "")
    unsafe state.holderName.set(holder, fallback: fallback)
  }

  /// - Throws: `notPermitted` when the device has no use.
  func unuse(_ member: UnsafeMutablePointer<Member>) throws(Failure) {
    try state.withLock { (state) throws(Failure) in
      guard unsafe member.pointee.uses > 0 else { throw .notPermitted }
      unsafe member.pointee.uses &-= 1
      state.uses &-= 1
    }
  }
}
