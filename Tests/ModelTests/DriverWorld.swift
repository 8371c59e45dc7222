// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What is done with drivers and devices, and beside them with groups. Devices, domains and the like are
/// counted around those there are.
enum DriverStep {
  case add(group: Int, isTrusted: Bool)
  case remove(Int)
  case bind(Int, driver: Int)
  case unbind(Int)
  /// Probe of a driver returns this from now on.
  case answer(driver: Int, result: Int32)
  case start
  case setDefault(group: Int, isIdentity: Bool)
  case use(Int)
  case unuse(Int)
  case attach(Int, domain: Int, replacing: Bool)
  case detach(Int, domain: Int)
  case claim(Int, owner: Int)
  case release(Int, owner: Int)
  case attachOwned(Int, domain: Int, owner: Int)
  case map(Int)
  case unmap(Int)
}

/// Two groups of up to three devices each, the second behind an IOMMU that comes later, and four
/// drivers, beside their naive twin.
final class DriverWorld: World {
  private static let devicesMax = 3
  private static let driverNames = ["any", "identity", "dma", "own"]

  /// A driver, and what it was asked for.
  private final class Site {
    weak var world: DriverWorld?
    var result: Int32 = 0
  }

  private struct Device {
    let number: Int
    let handle: OpaquePointer
    var mappings: [UInt64] = []
  }

  private let system: OpaquePointer
  private let iommus: [OpaquePointer]
  private let groups: [OpaquePointer]
  private let domains: [(GroupModel.Domain, OpaquePointer)]
  private let owners: UnsafeMutablePointer<dmacore_dma_owner>
  private let drivers: UnsafeMutablePointer<dmacore_driver>
  private let names: [UnsafeMutablePointer<CChar>]
  private let sites: [Site]
  private var devices: [Device] = []
  private var calls: [String] = []
  private var model: DriverModel
  private var nextNumber = 0

  init() throws {
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags = DMACORE_SYSTEM_FLAT.rawValue
    let system = try makeObject { dmacore_system_create(&options, &$0) }
    let iommus = [
      try makeObject { dmacore_iommu_create(system, nil, &$0) },
      try makeObject { dmacore_iommu_announce(system, &$0) },
    ]
    func domain(_ type: dmacore_domain_type) throws -> OpaquePointer {
      var options = dmacore_domain_options()
      options.struct_size = MemoryLayout.size(ofValue: options)
      options.type = type.rawValue
      return try makeObject { dmacore_domain_create(iommus[0], &options, &$0) }
    }
    domains = [
      (.dma(0), try domain(DMACORE_DOMAIN_DMA)),
      (.identity, try domain(DMACORE_DOMAIN_IDENTITY)),
      (.unmanaged(0), try domain(DMACORE_DOMAIN_UNMANAGED)),
    ]
    groups = try (0..<2).map { _ in try makeObject { dmacore_group_create(system, &$0) } }
    self.system = system
    self.iommus = iommus
    owners = .allocate(capacity: 2)
    for index in 0..<2 {
      (owners + index).initialize(
        to: dmacore_dma_owner(
          struct_size: MemoryLayout<dmacore_dma_owner>.size, kind: UInt32(index + 1), reserved: 0,
          name: nil))
    }
    names = Self.driverNames.map { strdup($0) }
    sites = names.map { _ in Site() }
    drivers = .allocate(capacity: names.count)
    for (index, name) in names.enumerated() {
      (drivers + index).initialize(
        to: dmacore_driver(
          struct_size: MemoryLayout<dmacore_driver>.size,
          flags: index == 3 ? DMACORE_DRIVER_MANAGES_DMA.rawValue : 0,
          domain_type: [0, DMACORE_DOMAIN_IDENTITY.rawValue, DMACORE_DOMAIN_DMA.rawValue, 0][index],
          name: name,
          probe: { device, opaque in
            let site = DriverWorld.site(opaque)
            site.world!.note("probe", device)
            return site.result
          },
          remove: { device, opaque in DriverWorld.site(opaque).world!.note("remove", device) },
          opaque: Unmanaged.passUnretained(sites[index]).toOpaque()))
    }
    model = DriverModel(
      drivers: [
        .init(wantsIdentity: nil, managesDMA: false), .init(wantsIdentity: true, managesDMA: false),
        .init(wantsIdentity: false, managesDMA: false), .init(wantsIdentity: nil, managesDMA: true),
      ], users: [1])
    for site in sites { site.world = self }
  }

  deinit {
    for name in names { free(name) }
    owners.deallocate()
    drivers.deallocate()
  }

  private static func site(_ opaque: UnsafeMutableRawPointer?) -> Site {
    Unmanaged<Site>.fromOpaque(opaque!).takeUnretainedValue()
  }

  private func note(_ call: String, _ handle: OpaquePointer?) {
    calls.append("\(call) \(devices.first { $0.handle == handle }!.number)")
  }

  private func group(of index: Int) -> Int { model.devices[devices[index].number]!.group }

  private func add(group: Int, isTrusted: Bool) throws {
    guard devices.indices.filter({ self.group(of: $0) == group }).count < Self.devicesMax else {
      return
    }
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags = DMACORE_DEVICE_TRACK_DIRECT.rawValue
    if !isTrusted { options.flags |= DMACORE_DEVICE_UNTRUSTED.rawValue }
    options.iommu = iommus[group]
    options.group = groups[group]
    options.streaming_mask = UInt64.max
    var device: OpaquePointer?
    try demandSame(
      dmacore_device_create(system, &options, &device),
      model.add(nextNumber, group: group, isTrusted: isTrusted), "create")
    if let device {
      devices.append(Device(number: nextNumber, handle: device))
      nextNumber += 1
    }
  }

  private func remove(_ index: Int) {
    model.remove(devices[index].number)
    dmacore_device_destroy(devices[index].handle)
    devices.remove(at: index)
  }

  private func map(_ index: Int) throws {
    var dma: UInt64 = 0
    let expected = model.groups[group(of: index)].map(devices[index].number)
    try demandSame(
      dmacore_map_phys(
        devices[index].handle, 0x10000, 4096, DMACORE_TO_DEVICE.rawValue, 0, &dma), expected, "map")
    if expected == 0 { devices[index].mappings.append(dma) }
  }

  private func unmap(_ index: Int) throws {
    guard let dma = devices[index].mappings.popLast() else { return }
    try demandSame(
      dmacore_unmap(devices[index].handle, dma, 4096, DMACORE_TO_DEVICE.rawValue, 0), 0, "unmap")
    model.groups[group(of: index)].unmap(devices[index].number)
  }

  func take(_ step: DriverStep, _ log: inout StepLog) throws {
    log.note("\(step)")
    if devices.isEmpty { try add(group: 0, isTrusted: true) }
    func at(_ number: Int) -> Int { number % devices.count }
    func device(_ number: Int) -> OpaquePointer { devices[at(number)].handle }
    func number(_ number: Int) -> Int { devices[at(number)].number }
    func group(_ number: Int) -> Int { self.group(of: at(number)) }
    // All domains are of the first group's IOMMU.
    func domain(_ which: Int, for index: Int) -> (GroupModel.Domain, OpaquePointer) {
      let found = domains[which % domains.count]
      return group(index) == 0 ? found : (.foreign, found.1)
    }
    func owner(_ number: Int) -> Int { number % 2 }
    switch step {
    case .add(let group, let isTrusted): try add(group: group % 2, isTrusted: isTrusted)
    case .remove(let index): remove(at(index))
    case .bind(let index, let driver):
      try demandSame(
        dmacore_device_bind(device(index), drivers + driver % names.count),
        model.bind(number(index), to: driver % names.count), "bind")
    case .unbind(let index):
      let expected = model.unbind(number(index))
      try demandSame(dmacore_device_unbind(device(index)), expected, "unbind")
      if expected == 0 && model.groups[group(index)].devices[number(index)]!.mappings == 0 {
        devices[at(index)].mappings = []
      }
    case .answer(let driver, let result):
      sites[driver % names.count].result = result
      model.drivers[driver % names.count].result = result
    case .start: try demandSame(dmacore_iommu_start(iommus[1], nil), model.start(), "start")
    case .setDefault(let group, let isIdentity):
      let type = isIdentity ? DMACORE_DOMAIN_IDENTITY : DMACORE_DOMAIN_DMA
      try demandSame(
        dmacore_group_set_default_type(groups[group % 2], type.rawValue),
        model.setDefault(of: group % 2, isIdentity: isIdentity), "set default type")
    case .use(let index):
      try demandSame(
        dmacore_device_use_default_domain(device(index)),
        model.groups[group(index)].use(number(index)), "use")
    case .unuse(let index):
      try demandSame(
        dmacore_device_unuse_default_domain(device(index)),
        model.groups[group(index)].unuse(number(index)), "unuse")
    case .attach(let index, let which, let replacing):
      let (kind, handle) = domain(which, for: index)
      let result =
        replacing
        ? dmacore_domain_replace(handle, device(index))
        : dmacore_domain_attach(handle, device(index))
      try demandSame(
        result, model.groups[group(index)].attach(kind, replacing: replacing), "attach")
    case .detach(let index, let which):
      let (kind, handle) = domain(which, for: index)
      try demandSame(
        dmacore_domain_detach(handle, device(index)), model.groups[group(index)].detach(kind),
        "detach")
    case .claim(let index, let who):
      try demandSame(
        dmacore_device_claim_dma_owner(device(index), owners + owner(who)),
        model.groups[group(index)].claim(owner(who)), "claim")
    case .release(let index, let who):
      try demandSame(
        dmacore_device_release_dma_owner(device(index), owners + owner(who)),
        model.groups[group(index)].release(owner(who)), "release")
    case .attachOwned(let index, let which, let who):
      let (kind, handle) = domain(which, for: index)
      try demandSame(
        dmacore_device_attach(device(index), handle, owners + owner(who)),
        model.groups[group(index)].attach(kind, by: owner(who)), "attach by an owner")
    case .map(let index): try map(at(index))
    case .unmap(let index): try unmap(at(index))
    }
    try demandSame(calls, model.calls, "what drivers were asked for")
    calls = []
    model.calls = []
  }

  func compare() throws {
    for device in devices {
      var state: UInt32 = 99
      var driver: UnsafePointer<dmacore_driver>?
      try demandSame(dmacore_device_driver(device.handle, &state, &driver), 0, "driver")
      let expected = model.devices[device.number]!
      try demandSame(state, expected.state.rawValue, "the state of \(device.number)")
      try demandSame(
        driver, expected.driver.map { UnsafePointer(drivers + $0) },
        "the driver of \(device.number)")
    }
    for (index, group) in groups.enumerated() {
      var text = [CChar](repeating: 1, count: Int(DMACORE_DESCRIPTION_SIZE))
      try demandSame(dmacore_group_describe(group, &text, text.count), 0, "describe")
      let words = String(cString: text)
      let model = model.groups[index]
      let holder =
        if model.owner != nil {
          "owned by "
        } else if model.uses > 0 {
          "in use by the DMA API, \(model.uses) "
        } else {
          "free (\(model.devices.count) "
        }
      try demand(words.hasPrefix(holder), "\(words): not \(holder)")
      let place =
        switch model.domain {
        case nil: "attached to no domain"
        case .unmanaged: "in an unmanaged domain"
        case .some(let domain):
          domain == .identity || "\(domain)".contains("isIdentity: true")
            ? "in an identity domain" : "in a DMA domain"
        }
      try demand(words.contains(place), "\(words): not \(place)")
    }
    for (kind, handle) in domains {
      var statistics = dmacore_domain_statistics()
      statistics.struct_size = MemoryLayout.size(ofValue: statistics)
      try demandSame(dmacore_domain_statistics(handle, &statistics), 0, "statistics")
      try demandSame(
        statistics.device_count,
        model.groups[0].domain == kind ? UInt64(model.groups[0].devices.count) : 0,
        "devices attached to \(kind)")
    }
  }

  func end() throws {
    while !devices.isEmpty { remove(0) }
    try demandSame(calls, model.calls, "what drivers were asked for at the end")
    model.calls = []
    try compare()
    for (_, handle) in domains { dmacore_domain_destroy(handle) }
    for group in groups { dmacore_group_destroy(group) }
    for iommu in iommus { dmacore_iommu_destroy(iommu) }
    dmacore_system_destroy(system)
  }
}
