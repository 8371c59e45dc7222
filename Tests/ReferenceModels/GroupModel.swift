// SPDX-License-Identifier: MIT OR Apache-2.0

import Glibc

/// The naive twin of a group of devices behind one IOMMU, by the words of `group.h` and `domain.h`.
/// Each call gives what the library's has to give: 0 or a negated `errno`.
public struct GroupModel {
  /// What kinds of domains there are, by what the rules tell apart.
  public enum Domain: Equatable {
    case dma(Int)
    case identity
    case unmanaged(Int)
    case blocked
    case foreign
    /// That the group made itself, each another.
    case chosen(isIdentity: Bool, Int)

    var isIdentity: Bool {
      if case .chosen(let isIdentity, _) = self { return isIdentity }
      return self == .identity
    }

    /// Nothing for what no driver can ask for.
    var isIdentityAndNotDMA: Bool? {
      switch self {
      case .dma, .identity, .chosen: isIdentity
      case .unmanaged, .blocked, .foreign: nil
      }
    }

    /// Whether user space may have it; and PASIDs, which mapping calls do not know.
    var isOfItsOwnersMaking: Bool {
      switch self {
      case .unmanaged, .blocked: true
      case .dma, .identity, .foreign, .chosen: false
      }
    }
  }

  public struct Device {
    public var uses = 0
    public var usesOfDriver = 0
    public var mappings = 0
    public var isTrusted = true
    /// It can send those from 1 up to this, which is not included.
    public var pasidCount: UInt32 = 0

    public func canSend(_ pasid: UInt32) -> Bool { pasid > 0 && pasid < pasidCount }
  }

  public private(set) var devices: [Int: Device] = [:]
  public private(set) var domain: Domain?
  public private(set) var standard: Domain?
  public private(set) var owner: Int?
  public private(set) var claims = 0
  /// The PASIDs that have a domain.
  public private(set) var pasids: [UInt32: Domain] = [:]
  private var chosenCount = 0
  // The owners that are user space.
  private let users: Set<Int>

  public init(users: Set<Int>) { self.users = users }

  public var uses: Int { devices.values.reduce(0) { $0 + $1.uses + $1.usesOfDriver } }
  private var isBusy: Bool { devices.values.contains { $0.mappings > 0 } }
  private var isTrusted: Bool { devices.values.allSatisfy(\.isTrusted) }

  private mutating func change(to new: Domain?) -> Bool {
    if domain != new && isBusy { return false }
    domain = new
    return true
  }

  // MARK: - Devices

  public mutating func add(
    _ device: Int, isTrusted: Bool = true, pasidCount: UInt32 = 0
  ) -> Int32 {
    if !isTrusted && (domain?.isIdentity == true || standard?.isIdentity == true) {
      return -EPERM
    }
    devices[device] = Device(isTrusted: isTrusted, pasidCount: pasidCount)
    return 0
  }

  public mutating func remove(_ device: Int) {
    devices[device] = nil
    if devices.isEmpty { (domain, standard, owner, claims, pasids) = (nil, nil, nil, 0, [:]) }
  }

  public mutating func map(_ device: Int) -> Int32 {
    guard let domain, !domain.isOfItsOwnersMaking else { return -EPERM }
    devices[device]!.mappings += 1
    return 0
  }

  public mutating func unmap(_ device: Int) { devices[device]!.mappings -= 1 }

  public mutating func unmapAll(_ device: Int) { devices[device]!.mappings = 0 }

  // MARK: - The default domain

  public mutating func attach(_ new: Domain, replacing: Bool) -> Int32 {
    if new == .foreign { return -EINVAL }
    if owner != nil || (new.isIdentity && !isTrusted) { return -EPERM }
    if uses > 0 || (standard != nil && !replacing) { return -EBUSY }
    guard change(to: new) else { return -EBUSY }
    standard = new
    return 0
  }

  public mutating func detach(_ old: Domain) -> Int32 {
    if standard != old { return -EINVAL }
    if owner != nil { return -EPERM }
    guard uses == 0, change(to: nil) else { return -EBUSY }
    standard = nil
    return 0
  }

  public mutating func use(_ device: Int) -> Int32 {
    if owner != nil { return -EBUSY }
    if standard == nil { return -ENODEV }
    devices[device]!.uses += 1
    return 0
  }

  /// A new default domain, if there is an IOMMU to make it.
  private mutating func choose(isIdentity: Bool, isThere: Bool) -> Int32 {
    guard isThere else { return -EAGAIN }
    let new = Domain.chosen(isIdentity: isIdentity, chosenCount)
    guard change(to: new) else { return -EBUSY }
    chosenCount += 1
    standard = new
    return 0
  }

  /// What a bind does. A driver may ask for an identity domain or for none.
  public mutating func useForDriver(_ device: Int, wantsIdentity: Bool?) -> Int32 {
    if owner != nil { return -EBUSY }
    if wantsIdentity == true && !isTrusted { return -EPERM }
    let suits =
      standard.map { wantsIdentity == nil || $0.isIdentityAndNotDMA == wantsIdentity } ?? false
    if !suits {
      if let standard {
        guard uses == 0, case .chosen = standard else { return -EBUSY }
      }
      let result = choose(isIdentity: wantsIdentity ?? false, isThere: true)
      if result != 0 { return result }
    }
    devices[device]!.usesOfDriver = 1
    return 0
  }

  public mutating func unuseOfDriver(_ device: Int) { devices[device]!.usesOfDriver = 0 }

  public mutating func setDefault(isIdentity: Bool, isThere: Bool) -> Int32 {
    if devices.isEmpty { return -ENODEV }
    if standard?.isIdentityAndNotDMA == isIdentity { return 0 }
    if owner != nil { return -EPERM }
    if uses > 0 { return -EBUSY }
    if isIdentity && !isTrusted { return -EPERM }
    return choose(isIdentity: isIdentity, isThere: isThere)
  }

  public mutating func unuse(_ device: Int) -> Int32 {
    if devices[device]!.uses == 0 { return -EPERM }
    devices[device]!.uses -= 1
    return 0
  }

  // MARK: - Ownership

  public mutating func claim(_ new: Int) -> Int32 {
    if let owner {
      if owner != new { return -EPERM }
    } else {
      guard uses == 0, change(to: nil) else { return -EBUSY }
      owner = new
    }
    claims += 1
    return 0
  }

  public mutating func release(_ old: Int) -> Int32 {
    if owner != old { return -EPERM }
    if claims == 1 {
      guard change(to: standard) else { return -EBUSY }
      owner = nil
      pasids = [:]
    }
    claims -= 1
    return 0
  }

  public mutating func attach(_ new: Domain?, by who: Int) -> Int32 {
    if owner != who { return -EPERM }
    if new == .foreign { return -EINVAL }
    if let new, new.isIdentity && !isTrusted { return -EPERM }
    if let new, new == standard || (users.contains(who) && !new.isOfItsOwnersMaking) {
      return -EPERM
    }
    return change(to: new) ? 0 : -EBUSY
  }

  // MARK: - PASIDs

  public mutating func attach(
    _ new: Domain, to pasid: UInt32, of device: Int, by who: Int, replacing: Bool
  ) -> Int32 {
    if !devices[device]!.canSend(pasid) { return -EINVAL }
    if owner != who { return -EPERM }
    if devices.values.contains(where: { $0.pasidCount > 0 && !$0.canSend(pasid) }) {
      return -EINVAL
    }
    if new == .foreign { return -EINVAL }
    if !new.isOfItsOwnersMaking { return -EPERM }
    if replacing != (pasids[pasid] != nil) { return replacing ? -ENOENT : -EBUSY }
    pasids[pasid] = new
    return 0
  }

  public mutating func detach(_ pasid: UInt32, by who: Int) -> Int32 {
    if owner != who { return -EPERM }
    pasids[pasid] = nil
    return 0
  }

  /// The domain that translates the requests of a device with a PASID, if it is still there.
  public func domain(of pasid: UInt32, for device: Int) -> Domain? {
    devices[device] == nil ? nil : pasids[pasid]
  }
}
