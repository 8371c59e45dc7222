// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What drivers and owners do with a group. Devices, domains and owners are counted around those there
/// are.
enum GroupStep {
  case add(pasidCount: UInt32)
  case remove(Int)
  case attach(Int, domain: Int, replacing: Bool)
  case detach(Int, domain: Int)
  case use(Int)
  case unuse(Int)
  case claim(Int, owner: Int)
  case release(Int, owner: Int)
  case attachOwned(Int, domain: Int, owner: Int)
  case detachOwned(Int, owner: Int)
  case attachPASID(Int, pasid: UInt32, domain: Int, owner: Int, replacing: Bool)
  case detachPASID(Int, pasid: UInt32, owner: Int)
  case map(Int)
  case unmap(Int)
}

/// A group of up to four devices beside its naive twin.
final class GroupWorld: World {
  private static let devicesMax = 4
  // An address that each unmanaged domain maps elsewhere.
  private static let spot: UInt64 = 0x10000
  private static let ownerNames = ["gpu-driver", "vm1", "vm2"]

  private struct Device {
    let number: Int
    let handle: OpaquePointer
    var mappings: [UInt64] = []
  }

  /// What requests of a device with a PASID see.
  private struct PASIDView {
    let device: Int
    let pasid: UInt32
    let handle: OpaquePointer
  }

  private let domains: [(GroupModel.Domain, OpaquePointer)]
  private let owners: UnsafeMutablePointer<dmacore_dma_owner>
  private let names: [UnsafeMutablePointer<CChar>]
  private let system: OpaquePointer
  private let iommus: [OpaquePointer]
  private let group: OpaquePointer
  private var devices: [Device] = []
  // Those of devices that have gone are kept for a while, the oldest first.
  private var views: [PASIDView] = []
  private var model = GroupModel(users: [1, 2])
  private var nextNumber = 0

  init() throws {
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags = DMACORE_SYSTEM_FLAT.rawValue
    let system = try makeObject { dmacore_system_create(&options, &$0) }
    let iommus = try (0..<2).map { _ in try makeObject { dmacore_iommu_create(system, nil, &$0) } }
    func domain(_ type: dmacore_domain_type, of iommu: Int) throws -> OpaquePointer {
      var options = dmacore_domain_options()
      options.struct_size = MemoryLayout.size(ofValue: options)
      options.type = type.rawValue
      return try makeObject { dmacore_domain_create(iommus[iommu], &options, &$0) }
    }
    domains = [
      (.dma(0), try domain(DMACORE_DOMAIN_DMA, of: 0)),
      (.dma(1), try domain(DMACORE_DOMAIN_DMA, of: 0)),
      (.identity, try domain(DMACORE_DOMAIN_IDENTITY, of: 0)),
      (.unmanaged(0), try domain(DMACORE_DOMAIN_UNMANAGED, of: 0)),
      (.unmanaged(1), try domain(DMACORE_DOMAIN_UNMANAGED, of: 0)),
      (.blocked, try domain(DMACORE_DOMAIN_BLOCKED, of: 0)),
      (.foreign, try domain(DMACORE_DOMAIN_DMA, of: 1)),
    ]
    group = try makeObject { dmacore_group_create(system, &$0) }
    self.system = system
    self.iommus = iommus
    names = Self.ownerNames.map { strdup($0) }
    owners = .allocate(capacity: names.count)
    for (index, name) in names.enumerated() {
      (owners + index).initialize(
        to: dmacore_dma_owner(
          struct_size: MemoryLayout<dmacore_dma_owner>.size,
          kind: index == 0 ? DMACORE_OWNER_DRIVER.rawValue : DMACORE_OWNER_USER.rawValue,
          reserved: 0, name: name))
    }
    for case (.unmanaged(let number), let handle) in domains {
      try demandSame(
        dmacore_domain_map(handle, Self.spot, Self.target(number), 4096, 3), 0, "map the spot")
    }
    try add(pasidCount: 0)
  }

  private static func target(_ number: Int) -> UInt64 { 0x100_0000 << number }

  deinit {
    for name in names { free(name) }
    owners.deallocate()
  }

  private func add(pasidCount: UInt32) throws {
    guard devices.count < Self.devicesMax else { return }
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags = DMACORE_DEVICE_TRACK_DIRECT.rawValue
    options.iommu = iommus[0]
    options.group = group
    options.streaming_mask = UInt64.max
    options.pasid_count = pasidCount
    var device: OpaquePointer?
    try demandSame(
      dmacore_device_create(system, &options, &device),
      model.add(nextNumber, pasidCount: pasidCount), "create")
    devices.append(Device(number: nextNumber, handle: device!))
    for pasid in 0..<pasidCount where pasid > 0 {
      var view: OpaquePointer?
      try demandSame(dmacore_view_create_pasid(device, pasid, &view), 0, "create a view")
      views.append(PASIDView(device: nextNumber, pasid: pasid, handle: view!))
    }
    nextNumber += 1
  }

  private func remove(_ index: Int) {
    let device = devices.remove(at: index)
    dmacore_device_destroy(device.handle)
    model.remove(device.number)
    while let view = views.first, device.number - view.device > Self.devicesMax,
      model.devices[view.device] == nil
    {
      dmacore_view_destroy(view.handle)
      views.removeFirst()
    }
  }

  /// Each view of a PASID reaches what the PASID leads to, and nothing once its device has gone.
  private func compareViews() throws {
    for view in views {
      var found = dmacore_translation()
      let result = dmacore_view_translate(view.handle, Self.spot, 0, &found)
      let domain = model.domain(of: view.pasid, for: view.device)
      let name = "PASID \(view.pasid) of device \(view.device)"
      guard case .unmanaged(let number) = domain else {
        try demandSame(result, -EPERM, name)
        continue
      }
      try demandSame(result, 0, name)
      try demandSame(found.target, Self.target(number), "where \(name) leads")
    }
  }

  private func map(_ index: Int) throws {
    var dma: UInt64 = 0
    try demandSame(
      dmacore_map_phys(
        devices[index].handle, 0x10000, 4096, DMACORE_TO_DEVICE.rawValue, 0, &dma),
      model.map(devices[index].number), "map")
    if model.devices[devices[index].number]!.mappings > devices[index].mappings.count {
      devices[index].mappings.append(dma)
    }
  }

  private func unmap(_ index: Int) throws {
    guard let dma = devices[index].mappings.popLast() else { return }
    try demandSame(
      dmacore_unmap(devices[index].handle, dma, 4096, DMACORE_TO_DEVICE.rawValue, 0), 0, "unmap")
    model.unmap(devices[index].number)
  }

  func take(_ step: GroupStep, _ log: inout StepLog) throws {
    log.note("\(step)")
    if devices.isEmpty { try add(pasidCount: 5) }
    try make(step)
    try compareViews()
  }

  private func make(_ step: GroupStep) throws {
    func at(_ number: Int) -> Int { number % devices.count }
    func device(_ number: Int) -> OpaquePointer { devices[at(number)].handle }
    func number(_ number: Int) -> Int { devices[at(number)].number }
    func domain(_ number: Int) -> (GroupModel.Domain, OpaquePointer) {
      domains[number % domains.count]
    }
    func owner(_ number: Int) -> Int { number % names.count }
    switch step {
    case .add(let pasidCount): try add(pasidCount: pasidCount)
    case .remove(let index): remove(at(index))
    case .map(let index): try map(at(index))
    case .unmap(let index): try unmap(at(index))
    case .attach(let index, let which, let replacing):
      let (kind, handle) = domain(which)
      let result =
        replacing
        ? dmacore_domain_replace(handle, device(index))
        : dmacore_domain_attach(handle, device(index))
      try demandSame(result, model.attach(kind, replacing: replacing), "attach")
    case .detach(let index, let which):
      let (kind, handle) = domain(which)
      try demandSame(
        dmacore_domain_detach(handle, device(index)), model.detach(kind), "detach")
    case .use(let index):
      try demandSame(
        dmacore_device_use_default_domain(device(index)), model.use(number(index)), "use")
    case .unuse(let index):
      try demandSame(
        dmacore_device_unuse_default_domain(device(index)), model.unuse(number(index)), "unuse")
    case .claim(let index, let who):
      try demandSame(
        dmacore_device_claim_dma_owner(device(index), owners + owner(who)),
        model.claim(owner(who)), "claim")
    case .release(let index, let who):
      try demandSame(
        dmacore_device_release_dma_owner(device(index), owners + owner(who)),
        model.release(owner(who)), "release")
    case .attachOwned(let index, let which, let who):
      let (kind, handle) = domain(which)
      try demandSame(
        dmacore_device_attach(device(index), handle, owners + owner(who)),
        model.attach(kind, by: owner(who)), "attach by an owner")
    case .detachOwned(let index, let who):
      try demandSame(
        dmacore_device_detach(device(index), owners + owner(who)),
        model.attach(nil, by: owner(who)), "detach by an owner")
    case .attachPASID(let index, let pasid, let which, let who, let replacing):
      let (kind, handle) = domain(which)
      let attach = replacing ? dmacore_device_replace_pasid : dmacore_device_attach_pasid
      try demandSame(
        attach(device(index), pasid, handle, owners + owner(who)),
        model.attach(
          kind, to: pasid, of: number(index), by: owner(who), replacing: replacing),
        "attach to a PASID")
    case .detachPASID(let index, let pasid, let who):
      try demandSame(
        dmacore_device_detach_pasid(device(index), pasid, owners + owner(who)),
        model.detach(pasid, by: owner(who)), "detach from a PASID")
    }
  }

  func compare() throws {
    for (kind, handle) in domains {
      var statistics = dmacore_domain_statistics()
      statistics.struct_size = MemoryLayout.size(ofValue: statistics)
      try demandSame(dmacore_domain_statistics(handle, &statistics), 0, "statistics")
      try demandSame(
        statistics.device_count, model.domain == kind ? UInt64(devices.count) : 0,
        "devices attached to \(kind)")
    }
    var text = [CChar](repeating: 1, count: Int(DMACORE_DESCRIPTION_SIZE))
    try demandSame(dmacore_group_describe(group, &text, text.count), 0, "describe")
    let words = String(cString: text)
    let expected =
      if let owner = model.owner {
        "owned by \(Self.ownerNames[owner]) "
      } else if model.uses > 0 {
        "in use by the DMA API, \(model.uses) "
      } else {
        "free (\(devices.count) "
      }
    try demand(words.hasPrefix(expected), "\(words): not \(expected)")
    let pasids = model.pasids.count
    try demandSame(
      words.contains(", \(pasids) PASID\(pasids == 1 ? " in another" : "s in others")"),
      pasids > 0, "\(pasids) PASIDs in \(words)")
    try demandSame(words.contains("PASID"), pasids > 0, "PASIDs in \(words)")
    let isLive = words.contains("live mapping")
    try demandSame(isLive, devices.contains { !$0.mappings.isEmpty }, "live mappings in \(words)")
  }

  func end() throws {
    while !devices.isEmpty { remove(0) }
    try compare()
    try compareViews()
    for view in views { dmacore_view_destroy(view.handle) }
    for (_, handle) in domains { dmacore_domain_destroy(handle) }
    dmacore_group_destroy(group)
    for iommu in iommus { dmacore_iommu_destroy(iommu) }
    dmacore_system_destroy(system)
  }
}
