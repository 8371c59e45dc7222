// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// Who wants to own a group, checked.
@safe
public struct Owner {
  /// The values are those of `group.h`.
  public enum Kind: UInt32, Sendable {
    case driver = 1
    case user = 2
  }

  let token: UnsafeRawPointer
  let kind: Kind
  let name: UnsafePointer<CChar>?

  /// - Throws: `invalidArgument`.
  public init(
    token: UnsafeRawPointer, kind: UInt32, name: UnsafePointer<CChar>?
  ) throws(Failure) {
    guard let kind = Kind(rawValue: kind), unsafe Name.fits(name) else { throw .invalidArgument }
    unsafe self.token = token
    self.kind = kind
    unsafe self.name = name
  }
}

extension Group {
  /// Makes somebody the owner, or counts another claim of the owner.
  ///
  /// - Parameter name: of the device that the claim is made through; nil if it is that of the group.
  /// - Throws: `noDevice` when there is no IOMMU that could block, `notPermitted` when somebody else is
  ///   the owner or a device must reach some memory at all times, which is reported, `busy` when the group
  ///   is in use, and as `change`.
  public func claim(_ owner: Owner, through name: UnsafePointer<CChar>?) throws(Failure) {
    var direct: UnsafeMutablePointer<Device>? = nil
    defer {
      if let device = unsafe direct {
        unsafe device.pointee.reportDirect()
        unsafe Box.letGo(device)
      }
    }
    let left = try state.withLock { (state) throws(Failure) -> Left in
      guard unsafe state.members?.pointee.device?.pointee.iommu != nil else { throw .noDevice }
      if let holder = unsafe state.owner {
        guard unsafe holder == owner.token else { throw .notPermitted }
        state.claims &+= 1
        return Left()
      }
      guard state.uses == 0 else { throw .busy }
      try Self.requireNoChange(state)
      if let device = unsafe Self.direct(in: state) {
        unsafe Box.hold(device)
        unsafe direct = device
        throw .notPermitted
      }
      let left = unsafe try Self.change(&state, to: nil)
      unsafe state.owner = owner.token
      state.ownerKind = owner.kind
      unsafe Self.note(
        &state,
        name != nil ? "dmacore_device_claim_dma_owner" : "dmacore_group_claim_dma_owner", name,
        by: owner.name, orBy: "owner")
      state.claims = 1
      return left
    }
    letGo(of: left)
  }

  /// Ends a claim; with the last the devices go back to the default domain.
  ///
  /// - Throws: `notPermitted` when this is not the owner, and as `change`.
  public func release(_ token: UnsafeRawPointer) throws(Failure) {
    let next = unsafe state.withLock { state in
      let domain = unsafe state.owner == token ? state.defaultDomain : nil
      if let domain = unsafe domain { unsafe Box.hold(domain) }
      return unsafe domain
    }
    defer { if let next = unsafe next { unsafe Box.letGo(next) } }
    // Where there is no memory for it the domain is busy.
    if let next = unsafe next { try? unsafe clear(next) }
    let left = try state.withLock { (state) throws(Failure) -> Left in
      guard unsafe state.owner == token else { throw .notPermitted }
      if state.claims > 1 {
        state.claims &-= 1
        return Left()
      }
      try Self.requireNoChange(state)
      var left = unsafe try Self.change(&state, to: state.defaultDomain)
      left.hasPASIDs = Self.detachPASIDs(&state)
      unsafe state.owner = nil
      state.claims = 0
      return left
    }
    letGo(of: left)
  }

  /// Attaches the devices to a domain of the owner's, or blocks them.
  ///
  /// - Throws: `notPermitted` when this is not the owner or may not have such a domain,
  ///   `invalidArgument` for a domain of another IOMMU, and as `change`.
  @inline(never)
  public func attach(
    _ domain: UnsafeMutablePointer<Domain>?, by token: UnsafeRawPointer
  ) throws(Failure) {
    if let domain = unsafe domain, state.withLock({ unsafe $0.owner == token }) {
      try unsafe clear(domain)
    }
    let left = try state.withLock { (state) throws(Failure) -> Left in
      guard unsafe state.owner == token else { throw .notPermitted }
      if let domain = unsafe domain {
        unsafe try Self.check(domain, state)
        guard unsafe domain != state.defaultDomain,
          unsafe state.ownerKind == .driver || domain.pointee.isOwners
        else { throw .notPermitted }
      }
      return unsafe try Self.change(&state, to: domain)
    }
    letGo(of: left)
  }
}
