// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What is done with a group and domains for it. Devices and domains are counted around those there are.
enum ReservedStep {
  /// The regions as they are, or parts of what is reserved for the group already.
  case add([ReservedModel.Region], isPartOfGroup: Bool)
  case remove(Int)
  case makeDomain(ReservedModel.Domain.Kind, isForGroup: Bool, pages: ClosedRange<Int>)
  case attach(Int, replacing: Bool)
  case detach(Int)
  case setDefault(isIdentity: Bool)
  case claim
  case release
  case attachOwned(Int)
  case detachOwned
  case attachPASID(Int)
  case detachPASID
  case map(Int, ClosedRange<Int>)
  case unmapAll(Int)
  /// Mapping calls take all addresses that the domain of the group gives out.
  case exhaust
}

/// A group of up to three devices with reserved regions, beside its naive twin.
final class ReservedWorld: World {
  /// The pages that are looked at one by one. The number above them stands for all that follow.
  static let pageCount = 24
  private static let devicesMax = 3
  private static let domainsMax = 5

  private struct Domain {
    let number: Int
    let handle: OpaquePointer
    /// The addresses that a DMA domain is to give out.
    let pages: ClosedRange<Int>
  }

  private let system: OpaquePointer
  private let iommu: OpaquePointer
  private let group: OpaquePointer
  private let owner: UnsafeMutablePointer<dmacore_dma_owner>
  private var devices: [(number: Int, handle: OpaquePointer)] = []
  // The oldest first; one that is given back may still be attached.
  private var domains: [Domain] = []
  private var pages: [Int: ClosedRange<Int>] = [:]
  private var model = ReservedModel(lastPage: pageCount)
  private var nextDevice = 0

  init() throws {
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags = DMACORE_SYSTEM_FLAT.rawValue
    let system = try makeObject { dmacore_system_create(&options, &$0) }
    iommu = try makeObject { dmacore_iommu_create(system, nil, &$0) }
    group = try makeObject { dmacore_group_create(system, &$0) }
    self.system = system
    owner = .allocate(capacity: 1)
    owner.initialize(
      to: dmacore_dma_owner(
        struct_size: MemoryLayout<dmacore_dma_owner>.size, kind: DMACORE_OWNER_DRIVER.rawValue,
        reserved: 0, name: nil))
  }

  deinit { owner.deallocate() }

  private static func first(_ pages: ClosedRange<Int>) -> UInt64 {
    UInt64(pages.lowerBound) * 4096
  }

  private static func last(_ pages: ClosedRange<Int>) -> UInt64 {
    pages.upperBound >= pageCount ? UInt64.max : UInt64(pages.upperBound) * 4096 + 4095
  }

  // MARK: - Steps

  func take(_ step: ReservedStep, _ log: inout StepLog) throws {
    log.note("\(step)")
    switch step {
    case .add(let regions, let isPartOfGroup):
      try add(isPartOfGroup ? parts(regions) : regions)
    case .makeDomain(let kind, let isForGroup, let pages):
      try makeDomain(kind, isForGroup, pages)
    default:
      guard let device = devices.first?.handle else { return }
      try take(step, through: device)
    }
    try compareListing(model.reserved, "of the group") {
      dmacore_group_reserved_regions(group, $0, $1, $2)
    }
  }

  private func take(_ step: ReservedStep, through device: OpaquePointer) throws {
    switch step {
    case .remove(let index):
      let device = devices.remove(at: index % devices.count)
      dmacore_device_destroy(device.handle)
      model.remove(device.number)
    case .setDefault(let isIdentity):
      let type = isIdentity ? DMACORE_DOMAIN_IDENTITY : DMACORE_DOMAIN_DMA
      try demandSame(
        dmacore_group_set_default_type(group, type.rawValue),
        model.setDefault(isIdentity ? .identity : .dma), "set the default type")
    case .claim:
      guard !model.isOwned else { return }
      try demandSame(dmacore_device_claim_dma_owner(device, owner), model.claim(), "claim")
    case .release:
      try demandSame(dmacore_device_release_dma_owner(device, owner), model.release(), "release")
    case .detachOwned:
      try demandSame(dmacore_device_detach(device, owner), model.attachOwned(nil), "block")
    case .detachPASID:
      try demandSame(
        dmacore_device_detach_pasid(device, 1, owner), model.detachPASID(), "detach from a PASID")
    case .exhaust: try exhaust()
    default:
      guard !domains.isEmpty else { return }
      try takeWithDomain(step, through: device)
    }
  }

  private func takeWithDomain(_ step: ReservedStep, through device: OpaquePointer) throws {
    func domain(_ index: Int) -> (Int, OpaquePointer) {
      let domain = domains[index % domains.count]
      return (domain.number, domain.handle)
    }
    switch step {
    case .attach(let index, let replacing):
      let (number, handle) = domain(index)
      let attach = replacing ? dmacore_domain_replace : dmacore_domain_attach
      try demandSame(
        attach(handle, device), model.attach(number, replacing: replacing), "attach")
    case .detach(let index):
      let (number, handle) = domain(index)
      try demandSame(dmacore_domain_detach(handle, device), model.detach(number), "detach")
    case .attachOwned(let index):
      let (number, handle) = domain(index)
      try demandSame(
        dmacore_device_attach(device, handle, owner), model.attachOwned(number),
        "attach by the owner")
    case .attachPASID(let index):
      let (number, handle) = domain(index)
      try demandSame(
        dmacore_device_attach_pasid(device, 1, handle, owner), model.attachPASID(number),
        "attach to a PASID")
    case .map(let index, let pages):
      let (number, handle) = domain(index)
      let first = Self.first(pages)
      try demandSame(
        dmacore_domain_map(handle, first, first, UInt64(pages.count) * 4096, 3),
        model.map(pages, in: number), "map")
    case .unmapAll(let index):
      let (number, handle) = domain(index)
      let flags = DMACORE_UNMAP_CROSS_HOLES.rawValue | DMACORE_UNMAP_SPLIT.rawValue
      try demandSame(
        dmacore_domain_unmap(handle, 0, UInt64(Self.pageCount) * 4096, flags, nil),
        model.unmapAll(in: number), "unmap")
    default: break
    }
  }

  private func add(_ regions: [ReservedModel.Region]) throws {
    guard devices.count < Self.devicesMax else { return }
    var given = regions.map { region in
      dmacore_reserved_region(
        first: Self.first(region.pages), last: Self.last(region.pages),
        type: region.kind.rawValue, reserved: 0)
    }
    let map = ReservedModel.Map(regions)
    var device: OpaquePointer?
    let result = given.withUnsafeMutableBufferPointer { given in
      var options = dmacore_device_options()
      options.struct_size = MemoryLayout.size(ofValue: options)
      options.iommu = iommu
      options.group = group
      // Mapping calls take no addresses but those that are looked at.
      options.streaming_mask = UInt64(Self.pageCount) * 4096 - 1
      options.pasid_count = 2
      options.reserved_regions = UnsafePointer(given.baseAddress)
      options.reserved_region_count = given.count
      return dmacore_device_create(system, &options, &device)
    }
    try demandSame(result, model.add(nextDevice, map), "create a device")
    guard let device else { return }
    try compareListing(map, "of a device") { dmacore_device_reserved_regions(device, $0, $1, $2) }
    devices.append((nextDevice, device))
    nextDevice += 1
  }

  /// For each region one that the group has: the first page of it, or all.
  private func parts(_ regions: [ReservedModel.Region]) -> [ReservedModel.Region] {
    let listing = model.reserved.listing
    guard !listing.isEmpty else { return [] }
    return regions.map { region in
      let whole = listing[region.pages.lowerBound % listing.count]
      guard region.pages.count == 1, whole.pages.upperBound < Self.pageCount else { return whole }
      return ReservedModel.Region(
        whole.pages.lowerBound...whole.pages.lowerBound, whole.kind)
    }
  }

  private func makeDomain(
    _ kind: ReservedModel.Domain.Kind, _ isForGroup: Bool, _ pages: ClosedRange<Int>
  ) throws {
    var options = dmacore_domain_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.group = isForGroup ? group : nil
    switch kind {
    case .identity: options.type = DMACORE_DOMAIN_IDENTITY.rawValue
    case .blocked: options.type = DMACORE_DOMAIN_BLOCKED.rawValue
    case .unmanaged: options.type = DMACORE_DOMAIN_UNMANAGED.rawValue
    case .dma:
      options.type = DMACORE_DOMAIN_DMA.rawValue
      (options.first, options.last) = (Self.first(pages), Self.last(pages))
    }
    var made: OpaquePointer?
    let (number, expected) = model.makeDomain(kind, isForGroup: isForGroup)
    try demandSame(dmacore_domain_create(iommu, &options, &made), expected, "create a domain")
    guard let made else { return }
    if domains.count == Self.domainsMax { dmacore_domain_destroy(domains.removeFirst().handle) }
    domains.append(Domain(number: number, handle: made, pages: pages))
    self.pages[number] = pages
    try comparePages(domains.last!)
  }

  private func exhaust() throws {
    guard let number = model.domain, let domain = model.domains[number], domain.kind == .dma else {
      return
    }
    // What a group has chosen itself gives out all but the first page.
    let bounds = pages[number] ?? 1...Self.pageCount - 1
    let expected = bounds.filter { domain.reserved[$0].isEmpty }
    let device = devices.last!.handle
    var found: [UInt64] = []
    while true {
      var dma: UInt64 = 0
      let result = dmacore_map_phys(
        device, 0x10_0000, 4096, DMACORE_TO_DEVICE.rawValue, 0, &dma)
      guard result == 0 else {
        try demandSame(result, -ENOSPC, "map")
        break
      }
      found.append(dma)
      try demand(found.count <= expected.count, "more addresses than are free: \(found)")
    }
    try demandSame(found.sorted(), expected.map { UInt64($0) * 4096 }, "addresses given out")
    for dma in found {
      try demandSame(dmacore_unmap(device, dma, 4096, DMACORE_TO_DEVICE.rawValue, 0), 0, "unmap")
    }
  }

  // MARK: - Looking

  private func compareListing(
    _ map: ReservedModel.Map, _ what: String,
    _ list: (UnsafeMutablePointer<dmacore_reserved_region>?, Int, UnsafeMutablePointer<Int>) ->
      Int32
  ) throws {
    let expected = map.listing
    // One region more than there is room for has to leave the last alone.
    let room = max(0, expected.count - 1)
    for capacity in [room, expected.count + 1] {
      var found = [dmacore_reserved_region](repeating: dmacore_reserved_region(), count: capacity)
      var count = -1
      try demandSame(list(&found, capacity, &count), 0, "regions \(what)")
      try demandSame(count, expected.count, "how many regions \(what)")
      for (region, known) in zip(found, expected) {
        try demand(
          region.first == Self.first(known.pages) && region.last == Self.last(known.pages)
            && region.type == known.kind.rawValue && region.reserved == 0,
          "region \(what): \(region), not \(known)")
      }
    }
  }

  /// What each page leads to.
  private func comparePages(_ domain: Domain) throws {
    for page in 0..<Self.pageCount {
      var found = dmacore_translation()
      let address = UInt64(page) * 4096
      let result = dmacore_domain_translate(domain.handle, address, 3, &found)
      let known = model.domains[domain.number]!
      let isMapped = known.mapsDirectly(page)
      let failure = known.kind == .blocked ? -EPERM : -ENOENT
      try demandSame(result, isMapped ? 0 : failure, "page \(page) of domain \(domain.number)")
      if isMapped {
        try demandSame(found.target &+ (address &- found.first), address, "target of page \(page)")
      }
    }
  }

  func compare() throws {
    for domain in domains {
      try comparePages(domain)
      var statistics = dmacore_domain_statistics()
      statistics.struct_size = MemoryLayout.size(ofValue: statistics)
      try demandSame(dmacore_domain_statistics(domain.handle, &statistics), 0, "statistics")
      try demandSame(
        statistics.device_count, model.domain == domain.number ? UInt64(devices.count) : 0,
        "devices attached to domain \(domain.number)")
    }
    try exhaust()
  }

  func end() throws {
    for (_, handle) in devices { dmacore_device_destroy(handle) }
    for domain in domains { dmacore_domain_destroy(domain.handle) }
    dmacore_group_destroy(group)
    dmacore_iommu_destroy(iommu)
    dmacore_system_destroy(system)
  }
}
