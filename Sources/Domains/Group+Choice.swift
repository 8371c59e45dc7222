// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Primitives

// How a group chooses its default domain. What devices and drivers demand is looked at under the group's
// lock, where nothing can be allocated; so a choice that takes a new domain is put off until there is
// one, and made anew.

/// What a default domain is made as.
public struct DefaultType: Sendable {
  let kind: Domain.Kind
  let isLazy: Bool

  /// The one of a group with a device that is not trusted, or of a system that says nothing.
  public static var strict: DefaultType { DefaultType(kind: .dma, isLazy: false) }

  private init(kind: Domain.Kind, isLazy: Bool) {
    self.kind = kind
    self.isLazy = isLazy
  }

  /// What C says; nil for anything.
  ///
  /// - Throws: `invalidArgument`.
  public init?(checking value: UInt32) throws(Failure) {
    switch value {
    case 0: return nil
    case DMACORE_DOMAIN_IDENTITY.rawValue: self.init(kind: .identity, isLazy: false)
    case DMACORE_DOMAIN_HYBRID.rawValue: self.init(kind: .hybrid, isLazy: false)
    case DMACORE_DOMAIN_DMA.rawValue: self = .strict
    case DMACORE_DOMAIN_DMA_LAZY.rawValue: self.init(kind: .dma, isLazy: true)
    default: throw .invalidArgument
    }
  }

  var isTrusting: Bool { kind != .dma || isLazy }

  func isOf(_ domain: UnsafeMutablePointer<Domain>) -> Bool {
    unsafe domain.pointee.kind == kind && domain.pointee.isLazy == isLazy
  }
}

extension Group {
  /// What choosing a default domain comes to.
  @safe
  private enum Choice {
    case settled(Left)
    /// Not without a new domain.
    case needs(DefaultType)
    /// The device, which is held, stands against it.
    case refused(Failure, UnsafeMutablePointer<Device>?)
  }

  /// What a default domain is chosen for.
  @safe
  private enum Demand {
    case driver(Driver, of: UnsafeMutablePointer<Member>)
    case type(DefaultType)
  }

  /// Meets a demand, for which it looks at the group, and again with a domain as it needs it.
  ///
  /// - Throws: what `Domain.init` throws.
  @inline(never)
  private static func choose(
    for group: UnsafeMutablePointer<Group>, _ iommu: UnsafeMutablePointer<IOMMU>?, _ demand: Demand
  ) throws(Failure) -> (Failure, UnsafeMutablePointer<Device>?)? {
    var new: UnsafeMutablePointer<Domain>? = nil
    defer { if let new = unsafe new { unsafe Box.letGo(new) } }
    while true {
      let choice = unsafe group.pointee.state.withLock { state in
        switch demand {
        case .driver(let driver, let member): unsafe use(member, for: driver, &state, new)
        case .type(let type): unsafe turn(&state, to: type, iommu, new)
        }
      }
      switch choice {
      case .settled(let left):
        unsafe group.pointee.letGo(of: left)
        return nil
      case .refused(let failure, let device): return unsafe (failure, device)
      case .needs(let type):
        guard let iommu = unsafe iommu else { return (.noDevice, nil) }
        // One of another kind, if the group has changed meanwhile.
        if let old = unsafe new { unsafe Box.letGo(old) }
        unsafe new = nil
        unsafe new = try make(type, iommu, for: group)
      }
    }
  }

  @inline(never)
  private static func make(
    _ type: DefaultType, _ iommu: UnsafeMutablePointer<IOMMU>,
    for group: UnsafeMutablePointer<Group>
  ) throws(Failure) -> UnsafeMutablePointer<Domain> {
    let domain = unsafe try Domain.place(
      iommu, DomainDescription(type.kind, isLazy: type.isLazy, for: group))
    do throws(Failure) {
      try unsafe group.pointee.clear(domain)
    } catch {
      unsafe Box.letGo(domain)
      throw error
    }
    return unsafe domain
  }

  /// Makes a domain the default domain that the group has chosen, if it is of the kind.
  @inline(never)
  private static func take(
    _ domain: UnsafeMutablePointer<Domain>?, _ type: DefaultType, _ state: inout State
  ) -> Choice {
    guard let domain = unsafe domain, unsafe type.isOf(domain),
      unsafe suitsAll(domain, in: state)
    else { return .needs(type) }
    do throws(Failure) {
      var left = unsafe try change(&state, to: domain)
      unsafe setDefault(domain, &state, &left)
      state.isDefaultChosen = true
      return .settled(left)
    } catch {
      return unsafe .refused(error, nil)
    }
  }

  private static func refuse(
    _ failure: Failure, _ device: UnsafeMutablePointer<Device>?
  ) -> Choice {
    if let device = unsafe device { unsafe Box.hold(device) }
    return unsafe .refused(failure, device)
  }

  /// Counts the use of a driver, and chooses a default domain first if there is none that suits.
  ///
  /// - Throws: `busy` when the group is owned, or in use with another kind of default domain than the
  ///   driver asks for, or what it would leave has mappings; `notPermitted` when the driver asks for an
  ///   identity domain and a device of the group is not trusted; what `Domain.init` throws. Demands that
  ///   contradict each other are reported.
  static func use(_ device: borrowing Device, for driver: Driver) throws(Failure) {
    let refusal = unsafe try choose(
      for: device.group, device.iommu, .driver(driver, of: device.member))
    guard let (failure, other) = unsafe refusal else { return }
    if let other = unsafe other {
      unsafe device.reportContradiction(failure, to: other, by: driver)
      unsafe Box.letGo(other)
    }
    throw failure
  }

  private static func use(
    _ member: UnsafeMutablePointer<Member>, for driver: Driver, _ state: inout State,
    _ new: UnsafeMutablePointer<Domain>?
  ) -> Choice {
    guard let device = unsafe member.pointee.device else { return unsafe refuse(.noDevice, nil) }
    guard unsafe state.owner == nil else { return unsafe refuse(.busy, nil) }
    var choice = Choice.settled(Left())
    if unsafe device.pointee.iommu != nil {
      let untrusted = unsafe untrusted(in: state)
      if driver.wish?.isTrusting == true, driver.wish?.isLazy == false,
        let untrusted = unsafe untrusted
      {
        return unsafe refuse(.notPermitted, untrusted)
      }
      // One that is there contains devices that are not trusted: else they could not have come.
      let current = unsafe state.defaultDomain?.pointee.kind
      if current == nil || (driver.wish != nil && current != driver.wish?.kind) {
        let user = unsafe first(in: state) {
          unsafe $0.pointee.uses > 0 || $0.pointee.isUsedByDriver
        }
        guard state.uses == 0, current == nil || state.isDefaultChosen else {
          return unsafe refuse(.busy, user)
        }
        var type = unsafe driver.wish ?? device.pointee.system.pointee.defaultType
        // What would make it faster, and is not there, is no reason to fail.
        if unsafe untrusted != nil || type.isLazy && !device.pointee.defersFlush { type = .strict }
        unsafe choice = take(new, type, &state)
        guard case .settled = choice else { return choice }
      }
    }
    unsafe countUse(&state, device, "dmacore_device_bind", by: driver)
    unsafe member.pointee.isUsedByDriver = true
    return choice
  }

  /// Ends the use that `use(_:for:)` counted, if it did.
  func unuseOfDriver(_ member: UnsafeMutablePointer<Member>) {
    state.withLock { state in
      guard unsafe member.pointee.isUsedByDriver else { return }
      unsafe member.pointee.isUsedByDriver = false
      state.uses &-= 1
    }
  }

  /// Gives the group a default domain of another type, if it has none of that. One that the group has
  /// chosen becomes lazy or strict at any time.
  ///
  /// - Throws: `noDevice` when there is no device behind an IOMMU, `notPermitted` when the group is owned
  ///   or a device that is not trusted must not have such a domain, `busy` when it is in use or in the way
  ///   is a mapping; what `Domain.init` throws. What the group is held by is reported.
  public static func setDefaultType(
    of group: UnsafeMutablePointer<Group>, _ type: DefaultType
  ) throws(Failure) {
    if let domain = unsafe group.pointee.state.withLock({ unsafe turnable($0, to: type) }) {
      defer { unsafe Box.letGo(domain) }
      try unsafe domain.pointee.setLazy(type.isLazy)
      // A device that is not trusted may have come meanwhile.
      if unsafe !type.isLazy || group.pointee.state.withLock({ unsafe untrusted(in: $0) == nil }) {
        return
      }
      try unsafe domain.pointee.setLazy(false)
    }
    // The IOMMU stays while it has a device in the group, or until this has a domain of it.
    let iommu = unsafe group.pointee.state.withLock { state -> UnsafeMutablePointer<IOMMU>? in
      let iommu = unsafe state.members?.pointee.device?.pointee.iommu
      if let iommu = unsafe iommu { unsafe Box.hold(iommu) }
      return unsafe iommu
    }
    guard let iommu = unsafe iommu else { throw .noDevice }
    defer { unsafe Box.letGo(iommu) }
    let refusal = unsafe try choose(for: group, iommu, .type(type))
    guard let (failure, _) = unsafe refusal else { return }
    unsafe group.pointee.system.pointee.reporter.report(.error, failure, object: "group") { text in
      text.append("its default domain stays as it is; the group is ")
      unsafe group.pointee.describe(&text)
    }
    throw failure
  }

  private static func turn(
    _ state: inout State, to type: DefaultType, _ iommu: UnsafeMutablePointer<IOMMU>?,
    _ new: UnsafeMutablePointer<Domain>?
  ) -> Choice {
    guard unsafe state.members?.pointee.device?.pointee.iommu == iommu else {
      return unsafe refuse(.noDevice, nil)
    }
    if let domain = unsafe state.defaultDomain, unsafe type.isOf(domain) { return .settled(Left()) }
    do throws(Failure) { try requireFree(state) } catch { return unsafe refuse(error, nil) }
    guard unsafe !type.isTrusting || untrusted(in: state) == nil else {
      return unsafe refuse(.notPermitted, nil)
    }
    return unsafe take(new, type, &state)
  }

  /// The default domain, which is held, if it can become of this type as it is.
  private static func turnable(
    _ state: borrowing State, to type: DefaultType
  ) -> UnsafeMutablePointer<Domain>? {
    guard let domain = unsafe state.defaultDomain, state.isDefaultChosen, type.kind == .dma,
      unsafe domain.pointee.kind == .dma, unsafe !type.isLazy || untrusted(in: state) == nil
    else { return nil }
    unsafe Box.hold(domain)
    return unsafe domain
  }
}
