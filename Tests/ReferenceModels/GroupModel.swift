// SPDX-License-Identifier: MIT OR Apache-2.0

import Glibc

/// The naive twin of a group of devices behind one IOMMU, by the words of `group.h` and `domain.h`.
/// Each call gives what the library's has to give: 0 or a negated `errno`.
public struct GroupModel {
  /// What kinds of domains there are, by what the rules tell apart.
  public enum Domain: Equatable {
    case dma(Int)
    case identity
    case unmanaged
    case foreign

    var isForUsers: Bool { self == .unmanaged }
    var isForMappingCalls: Bool { self != .unmanaged }
  }

  public struct Device {
    public var uses = 0
    public var mappings = 0
  }

  public private(set) var devices: [Int: Device] = [:]
  public private(set) var domain: Domain?
  public private(set) var standard: Domain?
  public private(set) var owner: Int?
  public private(set) var claims = 0
  // The owners that are user space.
  private let users: Set<Int>

  public init(users: Set<Int>) { self.users = users }

  public var uses: Int { devices.values.reduce(0) { $0 + $1.uses } }
  private var isBusy: Bool { devices.values.contains { $0.mappings > 0 } }

  private mutating func change(to new: Domain?) -> Bool {
    if domain != new && isBusy { return false }
    domain = new
    return true
  }

  // MARK: - Devices

  public mutating func add(_ device: Int) { devices[device] = Device() }

  public mutating func remove(_ device: Int) {
    devices[device] = nil
    if devices.isEmpty { (domain, standard, owner, claims) = (nil, nil, nil, 0) }
  }

  public mutating func map(_ device: Int) -> Int32 {
    guard let domain, domain.isForMappingCalls else { return -EPERM }
    devices[device]!.mappings += 1
    return 0
  }

  public mutating func unmap(_ device: Int) { devices[device]!.mappings -= 1 }

  // MARK: - The default domain

  public mutating func attach(_ new: Domain, replacing: Bool) -> Int32 {
    if new == .foreign { return -EINVAL }
    if owner != nil { return -EPERM }
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
    }
    claims -= 1
    return 0
  }

  public mutating func attach(_ new: Domain?, by who: Int) -> Int32 {
    if owner != who { return -EPERM }
    if new == .foreign { return -EINVAL }
    if let new, new == standard || (users.contains(who) && !new.isForUsers) { return -EPERM }
    return change(to: new) ? 0 : -EBUSY
  }
}
