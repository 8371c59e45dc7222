// SPDX-License-Identifier: MIT OR Apache-2.0

import Glibc

/// The naive twin of a system's topology, by the words of `topology.h`: of a new device it asks for each
/// that is there whether the two can be kept apart.
public struct TopologyModel {
  public struct Device {
    public let bridge: Int?
    public let ids: [UInt32]
    public let sharesSlot: Bool
    public let iommu: Int?
    public fileprivate(set) var group = 0

    public init(bridge: Int?, ids: [UInt32], sharesSlot: Bool, iommu: Int?) {
      self.bridge = bridge
      self.ids = ids
      self.sharesSlot = sharesSlot
      self.iommu = iommu
    }
  }

  private struct Bridge {
    let parent: Int?
    var isolates: Bool
  }

  // All that there were: devices and bridges may be below one that was given back.
  private var bridges: [Bridge] = []
  public private(set) var devices: [Int: Device] = [:]
  private var nextGroup: Int

  /// - Parameter groupCount: of the groups that devices can be made with, whose numbers are below this.
  public init(groupCount: Int) { nextGroup = groupCount }

  /// The number of the new bridge.
  public mutating func addBridge(below parent: Int?, isolates: Bool) -> Int {
    bridges.append(Bridge(parent: parent, isolates: isolates))
    return bridges.count - 1
  }

  /// Says whether a bridge isolates from now on: not if two groups had to become one.
  public mutating func setIsolation(of bridge: Int, _ isolates: Bool) -> Int32 {
    let before = bridges[bridge].isolates
    bridges[bridge].isolates = isolates
    if isSound { return 0 }
    bridges[bridge].isolates = before
    return -EBUSY
  }

  public mutating func remove(_ device: Int) { devices[device] = nil }

  public mutating func add(_ number: Int, _ device: Device, givenGroup: Int?) -> Int32 {
    if device.sharesSlot && device.ids.isEmpty { return -EINVAL }
    var groups = Set(devices.values.filter { cannotKeepApart($0, device) }.map(\.group))
    if groups.count > 1 { return -EBUSY }
    if let givenGroup { groups.insert(givenGroup) }
    if groups.count > 1 { return -EINVAL }
    let group = groups.first ?? nextGroup
    if devices.values.contains(where: { $0.group == group && $0.iommu != device.iommu }) {
      return -EINVAL
    }
    devices[number] = device
    devices[number]!.group = group
    nextGroup += 1
    return 0
  }

  /// Whether all devices that cannot be kept apart share a group.
  public var isSound: Bool {
    devices.values.allSatisfy { one in
      devices.values.allSatisfy { one.group == $0.group || !cannotKeepApart(one, $0) }
    }
  }

  private func cannotKeepApart(_ one: Device, _ other: Device) -> Bool {
    let passing = bridgesAbove(one).filter { !bridges[$0].isolates }
    if !Set(passing).isDisjoint(with: bridgesAbove(other)) { return true }
    if let iommu = one.iommu, iommu == other.iommu,
      !Set(one.ids).isDisjoint(with: other.ids)
    {
      return true
    }
    return one.sharesSlot && other.sharesSlot && one.bridge == other.bridge
      && one.ids[0] / 8 == other.ids[0] / 8
  }

  private func bridgesAbove(_ device: Device) -> [Int] {
    Array(
      sequence(state: device.bridge) { next in
        let bridge = next
        next = bridge.flatMap { bridges[$0].parent }
        return bridge
      })
  }
}
