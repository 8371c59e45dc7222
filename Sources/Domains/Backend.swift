// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import PageTables
import Primitives

// Theory of operation: backends.
//
// 1. Concepts
// A backend is what must be told of changes in an IOMMU (sys/backend.h). A software IOMMU has one with
// nothing in it, so that there is one way to do everything: do it here, and tell the backend.
//
// 2. Implementation
// 2.1 What can fail is asked when all else is done that can, and undone by what cannot fail: a map by an
// unmap, an attachment by one to what was there, or else by blocking.
// 2.2 Cached translations are forgotten together with the wait for readers: the one is for hardware what
// the other is for views. So a flush comes before each such wait that is about a domain's table.
//
// 3. Locking
// None of its own. Attaching and blocking happen under the group's lock (rank 3), all else under none.

/// The functions of a backend, checked.
@safe
public struct Backend {
  let ops: dmacore_backend_ops
  let opaque: UnsafeMutableRawPointer?

  private static var known: UInt32 {
    DMACORE_IOMMU_DEFERRED_FLUSH.rawValue | DMACORE_IOMMU_PASIDS.rawValue
      | DMACORE_IOMMU_ENFORCED_COHERENCY.rawValue
  }

  /// That of a software IOMMU.
  public init() {
    var none = dmacore_backend_ops()
    none.capabilities = Self.known
    ops = none
    unsafe opaque = nil
  }

  /// - Throws: `invalidArgument` for an unknown capability, or a function without another that it needs.
  public init(
    _ ops: dmacore_backend_ops, opaque: UnsafeMutableRawPointer?
  ) throws(Failure) {
    guard ops.capabilities & ~Self.known == 0 && ops.reserved == 0,
      unsafe (ops.attach == nil) == (ops.block == nil),
      unsafe (ops.set_dirty_tracking == nil) == (ops.read_dirty == nil)
    else { throw .invalidArgument }
    self.ops = ops
    unsafe self.opaque = opaque
  }

  /// Bits of `dmacore_iommu_capability_flags`.
  public var capabilities: UInt32 { ops.capabilities }

  func has(_ capability: dmacore_iommu_capability_flags) -> Bool {
    capabilities & capability.rawValue != 0
  }

  public var tracksDirty: Bool { unsafe ops.read_dirty != nil }

  /// nil if nothing has to be told of attachments.
  var attachment:
    (
      attach:
        @convention(c) (
          UnsafeMutableRawPointer?, UnsafePointer<dmacore_backend_device>?, UInt32,
          UnsafeMutableRawPointer?
        ) -> CInt,
      block:
        @convention(c) (
          UnsafePointer<dmacore_backend_device>?, UInt32, UnsafeMutableRawPointer?
        ) -> Void
    )?
  {
    guard let attach = unsafe ops.attach, let block = unsafe ops.block else { return nil }
    return unsafe (attach, block)
  }

  func release() { unsafe ops.release?(opaque) }
}

/// What the backend of an IOMMU knows a domain by.
@safe
struct BackendDomain {
  // The IOMMU's, which the domain holds.
  private let backend: UnsafePointer<Backend>
  private(set) var handle: UnsafeMutableRawPointer? = nil

  /// A domain that the backend does not know yet.
  init(_ backend: UnsafePointer<Backend>) { unsafe self.backend = backend }

  /// Makes it known, with what it translates by.
  ///
  /// - Throws: what the backend fails with.
  mutating func create(
    _ description: DomainDescription, _ translation: UnsafeMutablePointer<Domain.Translation>?
  ) throws(Failure) {
    guard let create = unsafe backend.pointee.ops.domain_create else { return }
    // The table is the first thing that is stored in a translation, and so lies at its address.
    var domain = unsafe dmacore_backend_domain(
      struct_size: MemoryLayout<dmacore_backend_domain>.size, type: description.type, reserved: 0,
      pagetable: OpaquePointer(translation), parent: description.parent?.pointee.backend.handle,
      guest_table: description.guestOptions)
    try unsafe Failure.check(create(&domain, &handle, backend.pointee.opaque))
  }

  func destroy() { unsafe backend.pointee.ops.domain_destroy?(handle, backend.pointee.opaque) }

  /// - Throws: what the backend fails with.
  @inline(__always)
  func map(
    _ input: IOVARange, to output: PhysicalAddress, _ access: Access
  ) throws(Failure) {
    guard let map = unsafe backend.pointee.ops.map else { return }
    try unsafe Failure.check(
      map(
        handle, input.first.rawValue, output.rawValue, input.extent &+ 1, access.rawValue,
        backend.pointee.opaque))
  }

  @inline(__always)
  func unmap(_ first: UInt64, _ last: UInt64) {
    unsafe backend.pointee.ops.unmap?(handle, first, last, backend.pointee.opaque)
  }

  /// Forgets what is cached of a range. Where it matters that nothing is under way, `settle` is meant.
  @inline(__always)
  func flush(_ first: UInt64 = 0, _ last: UInt64 = UInt64.max) {
    unsafe backend.pointee.ops.flush?(handle, first, last, backend.pointee.opaque)
  }

  /// Returns when no access is under way through what was unmapped in a range, nor through a copy of it.
  @inline(__always)
  func settle(
    _ system: UnsafeMutablePointer<System>, _ first: UInt64 = 0, _ last: UInt64 = UInt64.max
  ) {
    flush(first, last)
    unsafe system.pointee.readers.waitForReaders()
  }

  /// Whether it is told of no mapping.
  var hearsNoMappings: Bool {
    unsafe backend.pointee.ops.map == nil && backend.pointee.ops.unmap == nil
  }

  /// Whether it has nothing to forget.
  @inline(__always)
  var cachesNothing: Bool { unsafe backend.pointee.ops.flush == nil }

  var tracksDirty: Bool { unsafe backend.pointee.tracksDirty }

  var defersFlush: Bool { unsafe backend.pointee.has(DMACORE_IOMMU_DEFERRED_FLUSH) }

  /// - Throws: what the backend fails with.
  func setDirtyTracking(_ isOn: Bool) throws(Failure) {
    guard let set = unsafe backend.pointee.ops.set_dirty_tracking else { return }
    try unsafe Failure.check(set(handle, isOn, backend.pointee.opaque))
  }

  /// - Throws: what the backend fails with.
  func readDirty(
    _ range: IOVARange, into bitmap: UnsafeMutablePointer<UInt64>, clearing: Bool
  ) throws(Failure) {
    guard let read = unsafe backend.pointee.ops.read_dirty else { return }
    let flags = clearing ? DMACORE_DIRTY_CLEAR.rawValue : 0
    try unsafe Failure.check(
      read(
        handle, range.first.rawValue, range.extent &+ 1, flags, bitmap, backend.pointee.opaque))
  }
}

// Attaching devices, under the group's lock.
extension Group {
  /// Tells the backend what the requests of a device go through, with a PASID or without one (0); or that
  /// they are blocked.
  ///
  /// - Throws: what the backend fails with, never if they are blocked.
  @inline(never)
  private static func tell(
    _ member: UnsafeMutablePointer<Member>, _ pasid: UInt32,
    of domain: UnsafeMutablePointer<Domain>?
  ) throws(Failure) {
    guard let device = unsafe member.pointee.device,
      let backend = unsafe device.pointee.iommu?.pointee.backend,
      let (attach, block) = unsafe backend.pointee.attachment,
      unsafe pasid == 0 || device.pointee.has(pasid)
    else { return }
    var result: CInt = 0
    unsafe member.pointee.place.withIDs { ids in
      var description = unsafe dmacore_backend_device(
        struct_size: MemoryLayout<dmacore_backend_device>.size, device: OpaquePointer(device),
        name: device.pointee.name, ids: ids.baseAddress, id_count: ids.count)
      if let domain = unsafe domain {
        unsafe result = attach(
          domain.pointee.backend.handle, &description, pasid, backend.pointee.opaque)
      } else {
        unsafe block(&description, pasid, backend.pointee.opaque)
      }
    }
    try Failure.check(result)
  }

  /// As `tell`, where nothing may fail: what cannot be attached is blocked.
  @inline(never)
  private static func tellAnyway(
    _ member: UnsafeMutablePointer<Member>, _ pasid: UInt32,
    of domain: UnsafeMutablePointer<Domain>?
  ) {
    if (try? unsafe tell(member, pasid, of: domain)) == nil {
      try? unsafe tell(member, pasid, of: nil)
    }
  }

  /// Lets the backend attach all devices, or block them, in place of what they have: all of them, or
  /// none.
  ///
  /// - Throws: what the backend fails with.
  static func tellBackend(
    _ state: borrowing State, _ pasid: UInt32 = 0, of domain: UnsafeMutablePointer<Domain>?,
    insteadOf old: UnsafeMutablePointer<Domain>?
  ) throws(Failure) {
    var next = unsafe state.members
    do throws(Failure) {
      while let member = unsafe next {
        try unsafe tell(member, pasid, of: domain)
        unsafe next = member.pointee.next
      }
    } catch {
      var done = unsafe state.members
      while let member = unsafe done, unsafe member != next {
        unsafe tellAnyway(member, pasid, of: old)
        unsafe done = member.pointee.next
      }
      throw error
    }
  }

  /// Lets the backend block a PASID of all devices.
  static func blockInBackend(_ state: borrowing State, _ pasid: UInt32) {
    try? unsafe tellBackend(state, pasid, of: nil, insteadOf: nil)
  }

  /// Lets the backend attach a device that joins the others, and its PASIDs.
  ///
  /// - Throws: what the backend fails with. Then the device is blocked.
  static func tellBackend(
    ofJoining member: UnsafeMutablePointer<Member>, _ state: borrowing State
  ) throws(Failure) {
    do throws(Failure) {
      if let domain = unsafe state.domain { try unsafe tell(member, 0, of: domain) }
      try unsafe forEachAttachedPASID(state) { (pasid, domain) throws(Failure) in
        try unsafe tell(member, pasid, of: domain)
      }
    } catch {
      unsafe tellBackend(ofLeaving: member, state)
      throw error
    }
  }

  /// Lets the backend block a device that leaves the others.
  static func tellBackend(
    ofLeaving member: UnsafeMutablePointer<Member>, _ state: borrowing State
  ) {
    if unsafe state.domain != nil { unsafe tellAnyway(member, 0, of: nil) }
    unsafe forEachAttachedPASID(state) { (pasid, _) in unsafe tellAnyway(member, pasid, of: nil) }
  }
}
