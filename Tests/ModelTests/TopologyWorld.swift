// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What is built and taken apart. Bridges, devices and groups are counted around those there are; nil is a
/// root bus, no IOMMU, or a group that is not given.
enum TopologyStep {
  case addBridge(below: Int?, isolates: Bool)
  case giveBack(bridge: Int)
  case setIsolation(bridge: Int, Bool)
  case add(bridge: Int?, ids: [UInt32], sharesSlot: Bool, iommu: Int?, group: Int?)
  /// A view may hold on to the device for a while.
  case remove(Int, isHeld: Bool)
}

/// Devices at random places beside their naive twin.
final class TopologyWorld: World {
  private static let bridgesMax = 6
  private static let devicesMax = 10

  private let system: OpaquePointer
  private let iommus: [OpaquePointer]
  private let groups: [OpaquePointer]
  private var bridges: [(number: Int, handle: OpaquePointer)] = []
  private var devices: [(number: Int, handle: OpaquePointer)] = []
  private var views: [OpaquePointer] = []
  private var model: TopologyModel
  private var nextNumber = 0

  init() throws {
    let system = try makeObject { dmacore_system_create(nil, &$0) }
    iommus = try (0..<2).map { _ in try makeObject { dmacore_iommu_create(system, nil, &$0) } }
    groups = try (0..<2).map { _ in try makeObject { dmacore_group_create(system, &$0) } }
    model = TopologyModel(groupCount: groups.count)
    self.system = system
  }

  private func bridge(_ number: Int?) -> (number: Int, handle: OpaquePointer)? {
    number.flatMap { bridges.isEmpty ? nil : bridges[$0 % bridges.count] }
  }

  func take(_ step: TopologyStep, _ log: inout StepLog) throws {
    log.note("\(step)")
    switch step {
    case .addBridge(let below, let isolates):
      guard bridges.count < Self.bridgesMax else { return }
      let parent = bridge(below)
      var options = dmacore_bridge_options()
      options.struct_size = MemoryLayout.size(ofValue: options)
      options.flags = isolates ? DMACORE_BRIDGE_ISOLATES.rawValue : 0
      options.parent = parent?.handle
      var made: OpaquePointer?
      try demandSame(dmacore_bridge_create(system, &options, &made), 0, "create a bridge")
      bridges.append((model.addBridge(below: parent?.number, isolates: isolates), made!))
    case .giveBack(let index):
      guard !bridges.isEmpty else { return }
      dmacore_bridge_destroy(bridges.remove(at: index % bridges.count).handle)
    case .setIsolation(let index, let isolates):
      guard let bridge = bridge(index) else { return }
      try demandSame(
        dmacore_bridge_set_isolation(bridge.handle, isolates),
        model.setIsolation(of: bridge.number, isolates), "set the isolation")
    case .add(let below, let ids, let sharesSlot, let iommu, let group):
      guard devices.count < Self.devicesMax else { return }
      let bridge = bridge(below)
      let device = TopologyModel.Device(
        bridge: bridge?.number, ids: ids, sharesSlot: sharesSlot, iommu: iommu)
      var options = dmacore_device_options()
      options.struct_size = MemoryLayout.size(ofValue: options)
      options.flags = sharesSlot ? DMACORE_DEVICE_SHARES_SLOT.rawValue : 0
      options.iommu = iommu.map { iommus[$0] }
      options.group = group.map { groups[$0] }
      options.bridge = bridge?.handle
      try add(device, options, group)
    case .remove(let index, let isHeld):
      guard !devices.isEmpty else { return }
      let device = devices.remove(at: index % devices.count)
      if views.count > 2 { dmacore_view_destroy(views.removeFirst()) }
      if isHeld {
        var view: OpaquePointer?
        try demandSame(dmacore_view_create(device.handle, &view), 0, "create a view")
        views.append(view!)
      }
      dmacore_device_destroy(device.handle)
      model.remove(device.number)
    }
    try compareGroups()
  }

  private func add(
    _ device: TopologyModel.Device, _ given: dmacore_device_options, _ group: Int?
  ) throws {
    var made: OpaquePointer?
    let result = device.ids.withUnsafeBufferPointer { ids in
      var options = given
      options.ids = ids.baseAddress
      options.id_count = ids.count
      return dmacore_device_create(system, &options, &made)
    }
    try demandSame(result, model.add(nextNumber, device, givenGroup: group), "create a device")
    if let made {
      devices.append((nextNumber, made))
      nextNumber += 1
    }
  }

  /// Devices share a group where they do in the model, and nobody else is in it.
  private func compareGroups() throws {
    var found: [Int: OpaquePointer] = [:]
    for (number, handle) in devices {
      var group: OpaquePointer?
      try demandSame(dmacore_device_group(handle, &group), 0, "group of a device")
      // The device holds it.
      dmacore_group_destroy(group)
      let expected = model.devices[number]!.group
      try demandSame(group, found[expected] ?? group, "group of device \(number)")
      found[expected] = group
    }
    try demandSame(Set(found.values).count, found.count, "groups")
    for (index, handle) in groups.enumerated() {
      try demandSame(found[index] ?? handle, handle, "a group that was given")
      found[index] = handle
    }
    for (number, handle) in found {
      var text = [CChar](repeating: 0, count: Int(DMACORE_DESCRIPTION_SIZE))
      try demandSame(dmacore_group_describe(handle, &text, text.count), 0, "describe")
      let count = model.devices.values.count { $0.group == number }
      let words = "free (\(count) device\(count == 1 ? "" : "s"));"
      try demand(String(cString: text).hasPrefix(words), "group \(number) has not \(count)")
    }
  }

  func compare() throws {
    try demand(model.isSound, "devices that cannot be kept apart are in different groups")
  }

  func end() throws {
    for (_, handle) in bridges { dmacore_bridge_destroy(handle) }
    for (_, handle) in devices { dmacore_device_destroy(handle) }
    for view in views { dmacore_view_destroy(view) }
    for handle in groups { dmacore_group_destroy(handle) }
    for handle in iommus { dmacore_iommu_destroy(handle) }
    dmacore_system_destroy(system)
  }
}
