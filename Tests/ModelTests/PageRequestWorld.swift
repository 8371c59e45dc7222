// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import ReferenceModels
import TestSupport

/// What devices of a group, handlers, and the group's owner do. Devices and handles are counted around
/// those that there are.
enum PageRequestStep {
  case ask(device: Int, pasid: UInt32, index: UInt32, address: UInt64, isLast: Bool)
  case respond(Int, UInt32)
  /// Nil: detach.
  case attach(pasid: UInt32, domain: Int?)
  case replaceDevice(capacity: UInt32)
}

/// Two devices of a group, each with two PASIDs, and four domains: two with a handler, one without, and a
/// blocked one; beside their naive twin.
final class PageRequestWorld: World {
  static let pasids: UInt32 = 3

  private struct Asker {
    let number: Int
    let handle: OpaquePointer
    /// Of requests without a PASID, and with each.
    let views: [OpaquePointer]
  }

  /// Who is told, of a domain or a device.
  private final class Site {
    unowned let world: PageRequestWorld
    let number: Int

    init(_ world: PageRequestWorld, _ number: Int) {
      self.world = world
      self.number = number
    }

    static func from(_ opaque: UnsafeMutableRawPointer?) -> Site {
      Unmanaged<Site>.fromOpaque(opaque!).takeUnretainedValue()
    }
  }

  private let system: OpaquePointer
  private let iommu: OpaquePointer
  private let group: OpaquePointer
  private let owner: UnsafeMutablePointer<dmacore_dma_owner>
  private var domains: [OpaquePointer] = []
  private var askers: [Asker] = []
  // All that there were: what was told before a device went may be answered later.
  private var sites: [Site] = []
  private var deviceCount = 0
  private var groupCount = 0
  private var handles: [(number: Int, handle: OpaquePointer)] = []
  private var told: [PageRequestModel.Group] = []
  private var answers: [PageRequestModel.Answer] = []
  private var model = PageRequestModel(handled: [0, 1])

  init() throws {
    system = try makeObject { dmacore_system_create(nil, &$0) }
    let system = system
    iommu = try makeObject { dmacore_iommu_create(system, nil, &$0) }
    group = try makeObject { dmacore_group_create(system, &$0) }
    owner = .allocate(capacity: 1)
    owner.initialize(
      to: dmacore_dma_owner(
        struct_size: MemoryLayout<dmacore_dma_owner>.size, kind: 1, reserved: 0, name: nil))
    for number in 0..<4 { domains.append(try makeDomain(number)) }
    for _ in 0..<2 { try addDevice(capacity: 4) }
    try demandSame(dmacore_group_claim_dma_owner(group, owner), 0, "claim")
  }

  private func site(_ number: Int) -> UnsafeMutableRawPointer {
    let site = Site(self, number)
    sites.append(site)
    return Unmanaged.passUnretained(site).toOpaque()
  }

  private func makeDomain(_ number: Int) throws -> OpaquePointer {
    var options = dmacore_domain_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.type = (number == 3 ? DMACORE_DOMAIN_BLOCKED : DMACORE_DOMAIN_UNMANAGED).rawValue
    if number < 2 {
      options.page_request = { group, opaque in
        let site = Site.from(opaque)
        site.world.hear(of: group!, in: site.number)
      }
    }
    options.opaque = site(number)
    return try makeObject { dmacore_domain_create(iommu, &options, &$0) }
  }

  private func addDevice(capacity: UInt32) throws {
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.iommu = iommu
    options.group = group
    options.pasid_count = Self.pasids
    options.page_request_capacity = capacity
    options.page_response = { _, pasid, index, response, opaque in
      let site = Site.from(opaque)
      site.world.answers.append(
        PageRequestModel.Answer(
          key: .init(device: site.number, pasid: pasid, index: index), response: response))
    }
    options.page_response_opaque = site(deviceCount)
    let handle = try makeObject { dmacore_device_create(system, &options, &$0) }
    let views = try (0..<Self.pasids).map { pasid in
      try makeObject {
        pasid == 0
          ? dmacore_view_create(handle, &$0) : dmacore_view_create_pasid(handle, pasid, &$0)
      }
    }
    askers.append(Asker(number: deviceCount, handle: handle, views: views))
    model.add(deviceCount, capacity: Int(capacity))
    deviceCount += 1
  }

  private func read(_ handle: OpaquePointer) -> dmacore_page_request_group_info {
    var info = dmacore_page_request_group_info()
    info.struct_size = MemoryLayout.size(ofValue: info)
    _ = dmacore_page_request_group_read(handle, &info)
    return info
  }

  private func hear(of handle: OpaquePointer, in domain: Int) {
    let info = read(handle)
    let device = askers.first { $0.handle == info.device }?.number ?? -1
    told.append(
      PageRequestModel.Group(
        key: .init(device: device, pasid: info.pasid, index: info.group_index), domain: domain,
        addresses: (0..<info.count).map { info.requests[$0].dma }))
    handles.append((groupCount, handle))
    groupCount += 1
  }

  func take(_ step: PageRequestStep, _ log: inout StepLog) throws {
    switch step {
    case .ask(let device, let pasid, let index, let address, let isLast):
      try ask(device, pasid, index, address, isLast, &log)
    case .respond(let place, let response):
      guard !handles.isEmpty else { return }
      let (number, handle) = handles.remove(at: place % handles.count)
      let result = dmacore_page_request_group_respond(handle, response)
      log.note("dmacore_page_request_group_respond(groups[\(number)], \(response))", gives: result)
      try demandSame(result, model.respond(number, response), "result of respond")
    case .attach(let pasid, let domain):
      try attach(pasid, domain, &log)
    case .replaceDevice(let capacity):
      // The other keeps the group owned.
      let asker = askers.removeLast()
      for view in asker.views { dmacore_view_destroy(view) }
      dmacore_device_destroy(asker.handle)
      log.note("dmacore_device_destroy(devices[\(asker.number)]); /* and one of \(capacity) */")
      model.remove(asker.number)
      try addDevice(capacity: capacity)
    }
    try compareHeard()
  }

  private func ask(
    _ device: Int, _ pasid: UInt32, _ index: UInt32, _ address: UInt64, _ isLast: Bool,
    _ log: inout StepLog
  ) throws {
    let asker = askers[device % askers.count]
    var request = dmacore_page_request()
    request.dma = address
    request.access = DMACORE_ACCESS_READ.rawValue
    request.group_index = index
    request.flags = isLast ? DMACORE_PAGE_REQUEST_LAST.rawValue : 0
    let result = dmacore_view_request_page(asker.views[Int(pasid)], &request)
    log.note(
      "ask(devices[\(asker.number)], \(pasid), \(index), \(hex(address)), \(isLast))",
      gives: result)
    let expected = model.ask(
      .init(device: asker.number, pasid: pasid, index: index), address, isLast: isLast)
    try demandSame(result, expected, "result of a request")
  }

  private func attach(_ pasid: UInt32, _ domain: Int?, _ log: inout StepLog) throws {
    let device = askers[0].handle
    let result: Int32
    let old = model.domain(of: pasid)
    switch (pasid, domain) {
    case (0, nil): result = dmacore_device_detach(device, owner)
    case (0, let domain?): result = dmacore_device_attach(device, domains[domain], owner)
    case (_, nil): result = dmacore_device_detach_pasid(device, pasid, owner)
    case (_, let domain?) where old == nil:
      result = dmacore_device_attach_pasid(device, pasid, domains[domain], owner)
    case (_, let domain?):
      result = dmacore_device_replace_pasid(device, pasid, domains[domain], owner)
    }
    log.note("attach(\(pasid), \(domain.map { "domains[\($0)]" } ?? "NULL"))", gives: result)
    try demandSame(result, 0, "result of attach")
    // The domain that is there already is left alone.
    if domain != old { model.set(domain, of: pasid) }
  }

  /// What handlers and devices were told is what the model says; the answers of one call in any order.
  private func compareHeard() throws {
    func inOrder(_ answers: [PageRequestModel.Answer]) -> [String] {
      answers.map { "\($0)" }.sorted()
    }
    try demandSame(told, model.told, "what handlers were told")
    try demandSame(inOrder(answers), inOrder(model.answers), "what devices were told")
    (told, answers) = ([], [])
    (model.told, model.answers) = ([], [])
  }

  /// Handles stay as they were told until they are consumed.
  func compare() throws {
    for (_, handle) in handles {
      try demand(read(handle).count >= 1, "a group has no requests")
    }
  }

  func end() throws {
    for asker in askers {
      for view in asker.views { dmacore_view_destroy(view) }
      dmacore_device_destroy(asker.handle)
      model.remove(asker.number)
    }
    try compareHeard()
    for (number, handle) in handles {
      let result = dmacore_page_request_group_respond(handle, 0)
      try demandSame(result, model.respond(number, 0), "result of respond")
    }
    try compareHeard()
    for domain in domains { dmacore_domain_destroy(domain) }
    dmacore_group_destroy(group)
    dmacore_iommu_destroy(iommu)
    dmacore_system_destroy(system)
    owner.deallocate()
  }
}
