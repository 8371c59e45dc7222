// SPDX-License-Identifier: MIT OR Apache-2.0

import Glibc

/// The naive twin of drivers and devices in two groups, of which the IOMMU of the second is there from
/// the start, or comes later; by the words of `driver.h`.
public struct DriverModel {
  public enum State: UInt32 {
    case unbound = 0
    case deferred = 1
    case bound = 3
  }

  public struct Driver {
    let wantsIdentity: Bool?
    let managesDMA: Bool
    /// What its probe returns.
    public var result: Int32 = 0

    public init(wantsIdentity: Bool?, managesDMA: Bool) {
      self.wantsIdentity = wantsIdentity
      self.managesDMA = managesDMA
    }
  }

  public struct Device {
    public let group: Int
    public var state = State.unbound
    public var driver: Int?
  }

  public var drivers: [Driver]
  public var groups: [GroupModel]
  public private(set) var devices: [Int: Device] = [:]
  /// What drivers were asked for since this was emptied.
  public var calls: [String] = []
  private var waiting: [Int] = []
  private var isThere = [true, false]

  public init(drivers: [Driver], users: Set<Int>) {
    self.drivers = drivers
    groups = [GroupModel(users: users), GroupModel(users: users)]
  }

  public mutating func add(_ device: Int, group: Int, isTrusted: Bool) -> Int32 {
    let result = groups[group].add(device, isTrusted: isTrusted)
    if result == 0 { devices[device] = Device(group: group) }
    return result
  }

  public mutating func remove(_ device: Int) {
    _ = unbind(device)
    groups[devices[device]!.group].remove(device)
    devices[device] = nil
  }

  // MARK: - Binding

  private mutating func attempt(_ device: Int) -> Int32 {
    let group = devices[device]!.group
    let driver = drivers[devices[device]!.driver!]
    if groups[group].devices[device]!.mappings > 0 { return -EBUSY }
    if !isThere[group] { return -EAGAIN }
    if !driver.managesDMA {
      let result = groups[group].useForDriver(device, wantsIdentity: driver.wantsIdentity)
      if result != 0 { return result }
    }
    calls.append("probe \(device)")
    if driver.result != 0 { groups[group].unuseOfDriver(device) }
    return driver.result
  }

  private mutating func tryToBind(_ device: Int) -> Int32 {
    let result = attempt(device)
    switch result {
    case 0: devices[device]!.state = .bound
    case -EAGAIN:
      devices[device]!.state = .deferred
      waiting.append(device)
    default: (devices[device]!.state, devices[device]!.driver) = (.unbound, nil)
    }
    return result
  }

  private mutating func retry() {
    var left = waiting.count
    while left > 0 {
      left -= 1
      if tryToBind(waiting.removeFirst()) == 0 { left = waiting.count }
    }
  }

  public mutating func bind(_ device: Int, to driver: Int) -> Int32 {
    guard devices[device]!.state == .unbound else { return -EBUSY }
    devices[device]!.driver = driver
    let result = tryToBind(device)
    if result == 0 { retry() }
    return result
  }

  public mutating func unbind(_ device: Int) -> Int32 {
    switch devices[device]!.state {
    case .unbound: return -ENOENT
    case .deferred: waiting.removeAll { $0 == device }
    case .bound:
      calls.append("remove \(device)")
      groups[devices[device]!.group].unmapAll(device)
      groups[devices[device]!.group].unuseOfDriver(device)
    }
    (devices[device]!.state, devices[device]!.driver) = (.unbound, nil)
    return 0
  }

  public mutating func start() -> Int32 {
    if isThere[1] { return -EEXIST }
    isThere[1] = true
    retry()
    return 0
  }

  public mutating func setDefault(of group: Int, isIdentity: Bool) -> Int32 {
    groups[group].setDefault(isIdentity: isIdentity, isThere: isThere[group])
  }
}
