// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives
import Synchronization

// Theory of operation: topology.
//
// 1. Concepts
// Devices that cannot be kept apart are one group; `topology.h` has the rules. Groups are found when
// devices are made, one after another: a new device belongs to the group of those it cannot be kept
// apart from.
//
// 2. Implementation
// A system lists the places of its devices that have one. Looking for the group of a new one and
// entering its place is one step under the lock, so that of two new devices the second finds the first.
// Only devices that are listed are a reason for a group: a creation that fails leaves nothing behind.
//
// 3. Locking
// One lock a system (rank 12), in which no other is taken. Whether a bridge isolates changes under it, and
// who asks which way a request goes (Peer.swift) reads that without.
//
// 4. What this does not do
// Groups that exist are never joined into one: a device, or a bridge that no longer isolates, that would
// need that is refused. Nor are they ever split.

/// A bridge between buses. Only whether it isolates changes.
@safe
public struct Bridge: ~Copyable, Held {
  public let system: UnsafeMutablePointer<System>
  let parent: UnsafeMutablePointer<Bridge>?
  /// What the host bridge passes that it is on.
  let hostPasses: HostPasses
  private let isIsolating: Atomic<Bool>
  private let uses = UseCount()

  public enum HostPasses: UInt8, Sendable {
    case nothing
    case below
    case across
  }

  /// Holds the system and the parent until it ends.
  ///
  /// - Throws: `invalidArgument` for a parent of another system, or for one below a host bridge alone.
  public init(
    system: UnsafeMutablePointer<System>, parent: UnsafeMutablePointer<Bridge>?, isolates: Bool,
    hostPasses: HostPasses = .nothing
  ) throws(Failure) {
    if let parent = unsafe parent {
      guard unsafe parent.pointee.system == system, hostPasses == .nothing else {
        throw .invalidArgument
      }
      unsafe Box.hold(parent)
    }
    unsafe Box.hold(system)
    unsafe self.system = system
    unsafe self.parent = parent
    isIsolating = Atomic(isolates)
    self.hostPasses = hostPasses
  }

  deinit {
    if let parent = unsafe parent { unsafe Box.letGo(parent) }
    unsafe Box.letGo(system)
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  // Relaxed: nothing else follows from it.
  var isolates: Bool { isIsolating.load(ordering: .relaxed) }

  fileprivate func setIsolating(_ isolates: Bool) {
    isIsolating.store(isolates, ordering: .relaxed)
  }

  /// Says whether a bridge isolates from now on.
  ///
  /// - Throws: `busy` when devices in several groups would belong to one.
  public static func setIsolation(
    of bridge: UnsafeMutablePointer<Bridge>, _ isolates: Bool
  ) throws(Failure) {
    unsafe try bridge.pointee.system.pointee.topology.setIsolation(of: bridge, isolates)
  }
}

/// Where a device is. While the device is listed nothing of it changes but the anchor.
@safe
struct Place {
  var bridge: UnsafeMutablePointer<Bridge>? = nil
  /// The topmost bridge above it that does not isolate.
  private var anchor: UnsafeMutablePointer<Bridge>? = nil
  var iommu: UnsafeMutablePointer<IOMMU>? = nil
  var group: UnsafeMutablePointer<Group>? = nil
  var sharesSlot = false
  // 16: DMACORE_DEVICE_IDS_MAX.
  private var ids = InlineArray<16, UInt32>(repeating: 0)
  private var idCount = 0
  /// Its neighbours in the list.
  var next: UnsafeMutablePointer<Group.Member>? = nil
  var previous: UnsafeMutablePointer<Group.Member>? = nil
  var isListed = false

  /// - Throws: `invalidArgument` for too many IDs, a bridge of another system, or a function of a slot
  ///   that has no ID.
  init(
    _ options: dmacore_device_options, bridge: UnsafeMutablePointer<Bridge>?,
    iommu: UnsafeMutablePointer<IOMMU>?, system: UnsafeMutablePointer<System>
  ) throws(Failure) {
    unsafe sharesSlot = options.flags & DMACORE_DEVICE_SHARES_SLOT.rawValue != 0
    let count = unsafe options.id_count
    guard count >= 0 && count <= Int(DMACORE_DEVICE_IDS_MAX),
      unsafe count == 0 ? !sharesSlot : options.ids != nil
    else { throw .invalidArgument }
    if let bridge = unsafe bridge {
      guard unsafe bridge.pointee.system == system else { throw .invalidArgument }
    }
    unsafe self.bridge = bridge
    unsafe self.iommu = iommu
    idCount = count
    for index in 0..<count { ids[index] = unsafe options.ids[index] }
  }

  init() {}

  func withIDs(_ body: (UnsafeBufferPointer<UInt32>) -> Void) {
    unsafe withUnsafePointer(to: ids) { first in
      // SAFETY: an inline array is its elements, one behind the other.
      let start = unsafe UnsafeRawPointer(first).assumingMemoryBound(to: UInt32.self)
      unsafe body(UnsafeBufferPointer(start: start, count: idCount))
    }
  }

  /// Whether there is anything to find a group by.
  var isKnown: Bool { unsafe bridge != nil || idCount > 0 }

  /// Called under the topology's lock.
  fileprivate mutating func findAnchor() {
    unsafe anchor = nil
    var next = unsafe bridge
    while let bridge = unsafe next {
      if unsafe !bridge.pointee.isolates { unsafe anchor = bridge }
      unsafe next = bridge.pointee.parent
    }
  }

  /// What of it never changes.
  var seat: Seat { unsafe Seat(bridge: bridge, slot: sharesSlot ? ids[0] >> 3 : nil) }

  /// Whether the two devices cannot be kept apart.
  func isLike(_ other: Place) -> Bool {
    if unsafe anchor != nil && anchor == other.anchor { return true }
    if unsafe iommu != nil && iommu == other.iommu {
      for own in 0..<idCount {
        for index in 0..<other.idCount where ids[own] == other.ids[index] { return true }
      }
    }
    return seat.sharesSlot(with: other.seat)
  }
}

/// Where a device is, as far as requests to another one go by it. It never changes: who asks for their way
/// takes no lock.
@safe
struct Seat {
  let bridge: UnsafeMutablePointer<Bridge>?
  /// Of a function that may reach others of its slot. A requester ID has the function in its lowest three
  /// bits (PCI Express 5.0, 2.2.4.2).
  let slot: UInt32?

  func isBelow(_ bridge: UnsafeMutablePointer<Bridge>) -> Bool {
    var next = unsafe self.bridge
    while let other = unsafe next, unsafe other != bridge { unsafe next = other.pointee.parent }
    return unsafe next != nil
  }

  /// Whether the two are functions of one slot that may reach each other.
  func sharesSlot(with other: Seat) -> Bool {
    unsafe slot != nil && slot == other.slot && bridge == other.bridge
  }
}

/// The places of a system's devices. Locked, rank 12.
@safe
struct Topology: ~Copyable {
  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State: ~Copyable {
    var first: UnsafeMutablePointer<Group.Member>? = nil
  }

  private let state: Guarded<State>

  init() throws(Failure) {
    state = try Guarded<State>(.topology) { () throws(Failure) in State() }
  }

  /// Lists a device at its place, in the group that it belongs to.
  ///
  /// - Parameters:
  ///   - candidate: the group to be in if it belongs to none.
  ///   - isGiven: whether it must be that.
  /// - Returns: the group, which is held.
  /// - Throws: `busy` when it belongs to two groups, `invalidArgument` when it belongs to another than
  ///   the one that is given.
  func add(
    _ member: UnsafeMutablePointer<Group.Member>, _ candidate: UnsafeMutablePointer<Group>,
    isGiven: Bool
  ) throws(Failure) -> UnsafeMutablePointer<Group> {
    try unsafe state.withLock { (state) throws(Failure) -> UnsafeMutablePointer<Group> in
      unsafe member.pointee.place.findAnchor()
      var found: UnsafeMutablePointer<Group>? = nil
      var next = unsafe state.first
      while let other = unsafe next {
        if unsafe member.pointee.place.isLike(other.pointee.place) {
          guard unsafe found == nil || found == other.pointee.place.group else { throw .busy }
          unsafe found = other.pointee.place.group
        }
        unsafe next = other.pointee.place.next
      }
      guard unsafe !isGiven || found == nil || found == candidate else { throw .invalidArgument }
      let group = unsafe found ?? candidate
      unsafe Box.hold(group)
      unsafe member.pointee.place.group = group
      unsafe member.pointee.place.isListed = true
      unsafe member.pointee.place.next = state.first
      unsafe state.first?.pointee.place.previous = member
      unsafe state.first = member
      return unsafe group
    }
  }

  /// Takes a device out of the list, if it is there.
  func remove(_ member: UnsafeMutablePointer<Group.Member>) {
    state.withLock { state in
      guard unsafe member.pointee.place.isListed else { return }
      unsafe member.pointee.place.isListed = false
      let (previous, next) = unsafe (member.pointee.place.previous, member.pointee.place.next)
      unsafe next?.pointee.place.previous = previous
      if let previous = unsafe previous {
        unsafe previous.pointee.place.next = next
      } else {
        unsafe state.first = next
      }
    }
  }

  /// - Throws: as `Bridge.setIsolation`.
  fileprivate func setIsolation(
    of bridge: UnsafeMutablePointer<Bridge>, _ isolates: Bool
  ) throws(Failure) {
    try state.withLock { (state) throws(Failure) in
      var group: UnsafeMutablePointer<Group>? = nil
      var next = unsafe state.first
      while let member = unsafe next, !isolates {
        if unsafe member.pointee.place.seat.isBelow(bridge) {
          guard unsafe group == nil || group == member.pointee.place.group else { throw .busy }
          unsafe group = member.pointee.place.group
        }
        unsafe next = member.pointee.place.next
      }
      unsafe bridge.pointee.setIsolating(isolates)
      unsafe next = state.first
      while let member = unsafe next {
        unsafe member.pointee.place.findAnchor()
        unsafe next = member.pointee.place.next
      }
    }
  }
}
