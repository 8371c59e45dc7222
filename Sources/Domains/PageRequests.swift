// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Primitives

// Theory of operation: page requests.
//
// 1. Concepts
// A device that can wait for pages asks for them in page request groups; `page_request.h` has the states
// of one. Who answers it is the handler of a domain, or the library when there is none or it leaves.
//
// 2. Implementation
// 2.1 Each device has a list of what is collected and one of what is pending, under the lock of its
// group, which is also that of the domains. What is pending is always in the domain that the device, or
// the PASID, has at that moment: who takes the domain away takes it out of the list in the same step.
// 2.2 Whoever has taken a page request group out of the list of those that are pending answers it, when
// the lock is free. So each is answered once, and a handler that comes too late does not find its own.
// 2.3 The list is one holder of a page request group, and the handle of the handler another. One that was
// handed to a handler holds its device and its domain. One that is collected goes with its device.
// 2.4 The first request of a group brings room for as many as the device may have. So the one that makes
// it whole needs no memory, and the requests are one array, which does not change any more when others
// see it.
//
// 3. Locking
// The group's. Its holders do not call back, and no access of a device takes it.
//
// 4. What this does not do
// It looks at no address: whether a page can be mapped is the handler's to know. It has no clock: a
// handler that does not answer is waited for until its domain leaves.

/// What a device asks for at once.
@safe
public struct PageRequestGroup: ~Copyable, Held {
  typealias Link = UnsafeMutablePointer<PageRequestGroup>

  // Held once there is a domain.
  public let device: UnsafeMutablePointer<Device>
  public let pasid: UInt32
  public let index: UInt32
  private let storage: UnsafeMutablePointer<dmacore_page_request>
  public private(set) var count = 0
  // Whose handler has been told.
  private var domain: UnsafeMutablePointer<Domain>? = nil
  fileprivate var next: Link? = nil
  private let uses = UseCount()

  /// - Throws: `noMemory`.
  private init(
    _ device: UnsafeMutablePointer<Device>, pasid: UInt32, index: UInt32
  ) throws(Failure) {
    let capacity = unsafe device.pointee.pageRequestCapacity
    let raw = unsafe try RawMemory.allocate(
      capacity * MemoryLayout<dmacore_page_request>.stride,
      alignment: MemoryLayout<UInt64>.alignment)
    unsafe self.device = device
    self.pasid = pasid
    self.index = index
    // SAFETY: the allocation is so many requests long.
    unsafe storage = raw.bindMemory(to: dmacore_page_request.self, capacity: capacity)
  }

  deinit {
    unsafe RawMemory.free(storage)
    if let domain = unsafe domain {
      unsafe Box.letGo(domain)
      unsafe Box.letGo(device)
    }
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  // SAFETY: so many as `count` says were filled in before anybody else saw the group.
  public var requests: UnsafePointer<dmacore_page_request> { unsafe UnsafePointer(storage) }

  /// Asks for a page. With the last of a group the handler is told, or the answer is given.
  ///
  /// - Parameter slot: that of the request's PASID.
  /// - Throws: `notSupported` when the device cannot ask, `noDevice` when it was destroyed, `noSpace`,
  ///   `noMemory`.
  public static func add(
    _ request: dmacore_page_request, from device: UnsafeMutablePointer<Device>,
    _ slot: UnsafeMutablePointer<PASIDSlot>?
  ) throws(Failure) {
    guard unsafe device.pointee.pageRequestCapacity > 0 else { throw .notSupported }
    var new: Link? = nil
    defer { if let new = unsafe new { unsafe Box.letGo(new) } }
    while true {
      var isMissing = false
      let whole = try unsafe device.pointee.group.pointee.state.withLock {
        (state) throws(Failure) -> Link? in
        guard let group = unsafe try collect(request, device, slot, &new) else {
          isMissing = true
          return nil
        }
        guard request.flags & DMACORE_PAGE_REQUEST_LAST.rawValue != 0 else { return nil }
        unsafe deliver(group, to: slot == nil ? state.domain : slot!.pointee.domain)
        return unsafe group
      }
      if let whole = unsafe whole { unsafe tell(whole) }
      guard isMissing else { return }
      unsafe new = try Box<PageRequestGroup>.place { () throws(Failure) in
        unsafe try PageRequestGroup(
          device, pasid: slot?.pointee.pasid ?? 0, index: request.group_index)
      }
    }
  }

  /// Enters a request in its group; `new` becomes that if there is none. Returns nil when one is missing.
  private static func collect(
    _ request: dmacore_page_request, _ device: UnsafeMutablePointer<Device>,
    _ slot: UnsafeMutablePointer<PASIDSlot>?, _ new: inout Link?
  ) throws(Failure) -> Link? {
    let member = unsafe device.pointee.member
    guard unsafe member.pointee.device != nil else { throw .noDevice }
    guard unsafe member.pointee.pageRequests.count < device.pointee.pageRequestCapacity else {
      throw .noSpace
    }
    let pasid = unsafe slot?.pointee.pasid ?? 0
    var found = unsafe member.pointee.pageRequests.collected
    while let group = unsafe found,
      unsafe group.pointee.index != request.group_index || group.pointee.pasid != pasid
    {
      unsafe found = group.pointee.next
    }
    if unsafe found == nil, let group = unsafe new {
      unsafe group.pointee.next = member.pointee.pageRequests.collected
      unsafe member.pointee.pageRequests.collected = group
      unsafe (found, new) = (group, nil)
    }
    guard let group = unsafe found else { return nil }
    unsafe group.pointee.storage[group.pointee.count] = request
    unsafe group.pointee.count &+= 1
    unsafe member.pointee.pageRequests.count &+= 1
    return unsafe group
  }

  /// Makes a whole group pending in a domain, if that has a handler; else it is in no list and to be
  /// answered.
  private static func deliver(_ group: Link, to domain: UnsafeMutablePointer<Domain>?) {
    let device = unsafe group.pointee.device
    let member = unsafe device.pointee.member
    var taken: Link? = nil
    var collected = unsafe member.pointee.pageRequests.collected
    unsafe collected.move(to: &taken) { unsafe $0 == group }
    unsafe member.pointee.pageRequests.collected = collected
    guard let domain = unsafe domain, unsafe domain.pointee.pageRequest != nil else {
      unsafe member.pointee.pageRequests.count -= group.pointee.count
      return
    }
    unsafe Box.hold(domain)
    unsafe Box.hold(device)
    unsafe group.pointee.domain = domain
    // For the handler.
    unsafe Box.hold(group)
    unsafe group.pointee.next = member.pointee.pageRequests.pending
    unsafe member.pointee.pageRequests.pending = group
  }

  /// Calls the handler, or the device if there is none. Called under no lock.
  private static func tell(_ group: Link) {
    guard let domain = unsafe group.pointee.domain else {
      unsafe answer(group, with: DMACORE_PAGE_RESPONSE_INVALID.rawValue)
      return
    }
    ThreadRules.willCallBack()
    // The handler's handle keeps the domain until the call has been made.
    unsafe domain.pointee.pageRequest?(OpaquePointer(group), domain.pointee.opaque)
  }

  /// Tells the device of each the answer to page request groups that the caller has taken out of the
  /// lists, and lets go of them. Called under no lock.
  static func answer(_ groups: Link?, with response: UInt32) {
    var rest = unsafe groups
    while let group = unsafe rest {
      unsafe rest = group.pointee.next
      let device = unsafe group.pointee.device
      ThreadRules.willCallBack()
      unsafe device.pointee.pageResponse?(
        OpaquePointer(device), group.pointee.pasid, group.pointee.index, response,
        device.pointee.pageResponseOpaque)
      unsafe Box.letGo(group)
    }
  }

  /// Answers for the handler, whose handle this is; that ends with it.
  ///
  /// - Throws: `notFound` when the library has answered.
  public static func respond(
    to group: UnsafeMutablePointer<PageRequestGroup>, with response: UInt32
  ) throws(Failure) {
    let device = unsafe group.pointee.device
    let member = unsafe device.pointee.member
    var taken: Link? = nil
    unsafe device.pointee.group.pointee.state.withLock { _ in
      unsafe Group.takePageRequests(of: member, into: &taken) { unsafe $0 == group }
    }
    let isInTime = unsafe taken != nil
    unsafe answer(taken, with: response)
    unsafe Box.letGo(group)
    guard isInTime else { throw .notFound }
  }
}

/// What a device has asked for. Guarded by the lock of its group.
@safe
struct PageRequests {
  fileprivate(set) var collected: PageRequestGroup.Link? = nil
  fileprivate(set) var pending: PageRequestGroup.Link? = nil
  /// How many requests there are in both.
  fileprivate(set) var count = 0

  /// Takes those that pass, which are then answered.
  mutating func takePending(
    into taken: inout PageRequestGroup.Link?, where passes: (PageRequestGroup.Link) -> Bool
  ) {
    unsafe pending.move(to: &taken) { group in
      guard unsafe passes(group) else { return false }
      unsafe count -= group.pointee.count
      return true
    }
  }

  /// Ends what is collected for a device that has gone.
  func end() {
    var rest = unsafe collected
    while let group = unsafe rest {
      unsafe rest = group.pointee.next
      unsafe Box.letGo(group)
    }
  }
}

extension PageRequestGroup.Link? {
  /// Moves those that pass in front of another list, so that the oldest are first there.
  fileprivate mutating func move(to other: inout Self, where passes: (Wrapped) -> Bool) {
    var rest = self
    var kept: Wrapped? = nil
    self = nil
    while let group = unsafe rest {
      unsafe rest = group.pointee.next
      if unsafe passes(group) {
        unsafe group.pointee.next = other
        unsafe other = group
        continue
      }
      unsafe group.pointee.next = nil
      if let kept = unsafe kept { unsafe kept.pointee.next = group } else { unsafe self = group }
      unsafe kept = group
    }
  }
}

extension Group {
  /// Takes what is pending in the domain of a PASID, or of the devices themselves for 0.
  static func takePageRequests(
    of pasid: UInt32, from members: UnsafeMutablePointer<Member>?,
    into taken: inout PageRequestGroup.Link?
  ) {
    var next = unsafe members
    while let member = unsafe next {
      unsafe takePageRequests(of: member, into: &taken) { unsafe $0.pointee.pasid == pasid }
      unsafe next = member.pointee.next
    }
  }

  /// Takes those of one device that pass, which are then answered.
  static func takePageRequests(
    of member: UnsafeMutablePointer<Member>, into taken: inout PageRequestGroup.Link?,
    where passes: (PageRequestGroup.Link) -> Bool
  ) {
    // A copy: other parts of the member are under other locks.
    var requests = unsafe member.pointee.pageRequests
    unsafe requests.takePending(into: &taken, where: passes)
    unsafe member.pointee.pageRequests = requests
  }
}
