// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Primitives
import Synchronization

// Theory of operation: PASIDs.
//
// 1. Concepts
// A request may carry a process address space ID. Then not the domain of the group translates it, but
// the one that the owner of the group has attached to the PASID; and none if there is none.
//
// 2. Implementation
// A group has a slot for each PASID that somebody has asked for, which lives as long as the group. So a
// view knows its slot by its address, and reads the domain from it, inside a read section. Only the
// group changes it, under its lock. One call at a time takes domains from slots: it waits for readers and
// lets go of them without the lock, and all that would do the same is refused meanwhile.
//
// 3. Locking
// The group's.
//
// 4. What this does not do
// Slots are searched one after another: who attaches many thousands of PASIDs to one group waits for
// that. Mapping calls know no PASIDs: their domains are unmanaged or nested.

/// What one PASID of a group's devices leads to.
@safe
public struct PASIDSlot: ~Copyable {
  let pasid: UInt32
  // Guarded by the group's lock.
  var next: UnsafeMutablePointer<PASIDSlot>? = nil
  /// What it led to until a moment ago, and is let go of when nobody is inside.
  var left: UnsafeMutablePointer<Domain>? = nil
  private let published = Atomic<UInt>(0)

  init(pasid: UInt32) { self.pasid = pasid }

  // The group has ended, and with it all views.
  deinit { if let domain = unsafe domain { unsafe Box.letGo(domain) } }

  /// The domain at this moment, which the slot holds. The caller holds the group's lock, or is inside a
  /// read section while it uses the answer.
  var domain: UnsafeMutablePointer<Domain>? {
    // SAFETY: only `set` writes this, with the address of a domain that is held until no read section
    // that found it is open.
    // Acquiring: pairs with the release in `set`, so that the domain is made whole.
    unsafe UnsafeMutablePointer<Domain>(bitPattern: published.load(ordering: .acquiring))
  }

  func set(_ domain: UnsafeMutablePointer<Domain>?) {
    published.store(UInt(bitPattern: domain), ordering: .releasing)
  }
}

extension Group {
  /// The slot of a PASID, which lives as long as the group.
  ///
  /// - Throws: `noMemory`.
  public func slot(of pasid: UInt32) throws(Failure) -> UnsafeMutablePointer<PASIDSlot> {
    if let slot = unsafe state.withLock({ unsafe Self.find(pasid, in: $0) }) { return unsafe slot }
    let new = unsafe try Box<PASIDSlot>.place { () throws(Failure) in PASIDSlot(pasid: pasid) }
    let slot = unsafe state.withLock { state in
      // Somebody else may have been faster.
      if let other = unsafe Self.find(pasid, in: state) { return unsafe other }
      unsafe new.pointee.next = state.slots
      unsafe state.slots = new
      return unsafe new
    }
    if unsafe slot != new { unsafe Box.destroy(new) }
    return unsafe slot
  }

  private static func find(
    _ pasid: UInt32, in state: borrowing State
  ) -> UnsafeMutablePointer<PASIDSlot>? {
    var next = unsafe state.slots
    while let slot = unsafe next, unsafe slot.pointee.pasid != pasid {
      unsafe next = slot.pointee.next
    }
    return unsafe next
  }

  /// The domain of a PASID, if it has one, held.
  func holdDomain(of pasid: UInt32) -> UnsafeMutablePointer<Domain>? {
    unsafe state.withLock { state in
      let domain = unsafe Self.find(pasid, in: state)?.pointee.domain
      if let domain = unsafe domain { unsafe Box.hold(domain) }
      return unsafe domain
    }
  }

  /// Attaches a domain to a PASID of all devices.
  ///
  /// - Throws: `notPermitted` when this is not the owner, or the domain is none for this or for one of the
  ///   devices; `invalidArgument` for a PASID that one of them cannot have, or a domain of another IOMMU;
  ///   `busy` when the PASID has a domain, or another call takes domains from PASIDs; `notFound` when it
  ///   has none that could be replaced; `notSupported` when the IOMMU knows no PASIDs; `noMemory`; what
  ///   the backend fails with.
  @inline(never)
  public func attach(
    _ domain: UnsafeMutablePointer<Domain>, to pasid: UInt32, of device: borrowing Device,
    by token: UnsafeRawPointer, replacing: Bool
  ) throws(Failure) {
    guard device.has(pasid) else { throw .invalidArgument }
    if let backend = unsafe device.iommu?.pointee.backend,
      unsafe !backend.pointee.has(DMACORE_IOMMU_PASIDS)
    {
      throw .notSupported
    }
    let slot = unsafe try slot(of: pasid)
    let hasLeft = try state.withLock { (state) throws(Failure) -> Bool in
      guard unsafe state.owner == token else { throw .notPermitted }
      guard
        unsafe Self.first(in: state, where: { unsafe !$0.pointee.attached.pointee.allows(pasid) })
          == nil
      else { throw .invalidArgument }
      unsafe try Self.check(domain, state)
      guard unsafe domain.pointee.isOwners else { throw .notPermitted }
      if replacing {
        guard unsafe slot.pointee.domain != nil else { throw .notFound }
      } else {
        guard unsafe slot.pointee.domain == nil else { throw .busy }
      }
      try Self.requireNoChange(state)
      guard unsafe domain != slot.pointee.domain else { return false }
      try unsafe Self.tellBackend(state, pasid, of: domain, insteadOf: slot.pointee.domain)
      unsafe Box.hold(domain)
      if let old = unsafe slot.pointee.domain { unsafe Self.leave(old, slot, &state) }
      unsafe slot.pointee.set(domain)
      return replacing
    }
    letGoOfPASIDs(hasLeft)
  }

  /// Takes the domain from a PASID, if it has one.
  ///
  /// - Throws: `notPermitted` when this is not the owner, `busy` while another call takes domains from
  ///   PASIDs.
  public func detach(_ pasid: UInt32, by token: UnsafeRawPointer) throws(Failure) {
    let hasLeft = try state.withLock { (state) throws(Failure) -> Bool in
      guard unsafe state.owner == token else { throw .notPermitted }
      try Self.requireNoChange(state)
      guard let slot = unsafe Self.find(pasid, in: state), let old = unsafe slot.pointee.domain
      else {
        return false
      }
      Self.blockInBackend(state, pasid)
      unsafe slot.pointee.set(nil)
      unsafe Self.leave(old, slot, &state)
      return true
    }
    letGoOfPASIDs(hasLeft)
  }

  static func requireNoChange(_ state: borrowing State) throws(Failure) {
    guard !state.isLeavingPASIDs else { throw .busy }
  }

  private static func leave(
    _ domain: UnsafeMutablePointer<Domain>, _ slot: UnsafeMutablePointer<PASIDSlot>,
    _ state: inout State
  ) {
    unsafe slot.pointee.left = domain
    unsafe takePageRequests(
      of: slot.pointee.pasid, from: state.members, into: &state.leftPageRequests)
    state.isLeavingPASIDs = true
  }

  /// Takes the domains from all PASIDs, while no other call does. Returns whether there was one, which
  /// `letGoOfPASIDs` lets go of when the lock is free.
  static func detachPASIDs(_ state: inout State) -> Bool {
    var next = unsafe state.slots
    while let slot = unsafe next {
      if let old = unsafe slot.pointee.domain {
        unsafe blockInBackend(state, slot.pointee.pasid)
        unsafe slot.pointee.set(nil)
        unsafe leave(old, slot, &state)
      }
      unsafe next = slot.pointee.next
    }
    return state.isLeavingPASIDs
  }

  /// Waits until nobody is inside the domains that PASIDs have left, lets go of them, and answers what was
  /// pending there.
  ///
  /// - Parameter hasLeft: whether the caller has taken one, and so is the only one to do this.
  func letGoOfPASIDs(_ hasLeft: Bool) {
    var hasLeft = hasLeft
    while hasLeft {
      unsafe system.pointee.readers.waitForReaders()
      while let domain = unsafe state.withLock({ unsafe Self.takeLeft(&$0) }) {
        unsafe Box.letGo(domain)
      }
      var pageRequests: PageRequestGroup.Link? = nil
      hasLeft = state.withLock { state in
        state.isLeavingPASIDs = false
        unsafe swap(&pageRequests, &state.leftPageRequests)
        // The last device may have gone meanwhile, and with it whoever owned the group.
        return unsafe state.owner == nil && Self.detachPASIDs(&state)
      }
      unsafe PageRequestGroup.answer(
        pageRequests, with: DMACORE_PAGE_RESPONSE_INVALID.rawValue)
    }
  }

  private static func takeLeft(_ state: inout State) -> UnsafeMutablePointer<Domain>? {
    var next = unsafe state.slots
    while let slot = unsafe next {
      if let domain = unsafe slot.pointee.left {
        unsafe slot.pointee.left = nil
        return unsafe domain
      }
      unsafe next = slot.pointee.next
    }
    return nil
  }

  /// Calls `body` with each PASID that has a domain.
  static func forEachAttachedPASID<Stop: Error>(
    _ state: borrowing State,
    _ body: (UInt32, UnsafeMutablePointer<Domain>) throws(Stop) -> Void
  ) throws(Stop) {
    var next = unsafe state.slots
    while let slot = unsafe next {
      if let domain = unsafe slot.pointee.domain { try unsafe body(slot.pointee.pasid, domain) }
      unsafe next = slot.pointee.next
    }
  }

  /// Whether a device may be attached to what the PASIDs of the group lead to.
  static func suitsPASIDs(
    _ device: UnsafeMutablePointer<Device>, in state: borrowing State
  ) -> Bool {
    var suitsAll = true
    unsafe forEachAttachedPASID(state) { (_, domain) in
      suitsAll = unsafe suitsAll && suits(domain, device)
    }
    return suitsAll
  }

  /// How many PASIDs have a domain.
  static func countPASIDs(_ state: borrowing State) -> UInt64 {
    var count: UInt64 = 0
    unsafe forEachAttachedPASID(state) { (_, _) in count += 1 }
    return count
  }
}
