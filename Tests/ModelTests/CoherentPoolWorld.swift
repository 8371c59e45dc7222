// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import ReferenceModels
import TestSupport

enum CoherentPoolStep {
  case take
  case give(Int)
  /// So far from where an object is, or was.
  case giveWrongly(Int, cpuOffset: Int, addressOffset: Int)
  /// The device writes to all that is free of the page of an object.
  case scribble(Int)
  /// Another pool instead, of this shape.
  case change(size: UInt64, alignment: UInt64, boundary: UInt64)
}

/// A pool of a device, its view, and what a model has of the pool.
final class CoherentPoolWorld: World {
  private let system: OpaquePointer
  private let iommu: OpaquePointer
  private let domain: OpaquePointer
  private let device: OpaquePointer
  private let view: OpaquePointer
  private var pool: OpaquePointer
  private var model: CoherentPoolModel
  /// What the CPU has of each object that is out, and wrote to it.
  private var objects: [UInt64: (cpu: UnsafeMutableRawPointer, value: UInt8)] = [:]
  /// One that was given back.
  private var last: (cpu: UnsafeMutableRawPointer, address: UInt64)?
  private var next: UInt8 = 1
  // Pages of pools before this one, in which objects were out.
  private var keptPages = 0

  init(isTranslated: Bool) throws {
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags = DMACORE_SYSTEM_FLAT.rawValue
    system = try makeObject { dmacore_system_create(&options, &$0) }
    let system = system
    iommu = try makeObject { dmacore_iommu_create(system, nil, &$0) }
    let iommu = iommu
    var kind = dmacore_domain_options()
    kind.struct_size = MemoryLayout.size(ofValue: kind)
    kind.type = DMACORE_DOMAIN_DMA.rawValue
    domain = try makeObject { dmacore_domain_create(iommu, &kind, &$0) }
    var given = dmacore_device_options()
    given.struct_size = MemoryLayout.size(ofValue: given)
    given.flags = DMACORE_DEVICE_TRACK_DIRECT.rawValue
    given.coherent_mask = UInt64.max
    given.iommu = isTranslated ? iommu : nil
    device = try makeObject { dmacore_device_create(system, &given, &$0) }
    let device = device
    if isTranslated { try demandSame(dmacore_domain_attach(domain, device), 0, "attach") }
    view = try makeObject { dmacore_view_create(device, &$0) }
    model = CoherentPoolModel(size: 64, alignment: 0, boundary: 0)
    pool = try Self.makePool(device, model)
  }

  private static func makePool(
    _ device: OpaquePointer, _ model: CoherentPoolModel
  ) throws -> OpaquePointer {
    var options = dmacore_coherent_pool_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.size = model.size
    options.alignment = model.alignment
    options.boundary = model.boundary
    return try makeObject { dmacore_coherent_pool_create(device, &options, &$0) }
  }

  func take(_ step: CoherentPoolStep, _ log: inout StepLog) throws {
    switch step {
    case .take:
      guard model.live.count < 200 else { return }
      try takeObject(&log)
    case .give(let index):
      guard let address = pick(index), let object = objects.removeValue(forKey: address) else {
        return
      }
      try demandSame(give(object.cpu, address, &log), 0, "free")
      try demand(model.give(address), "the model had it")
      last = (object.cpu, address)
    case .giveWrongly(let index, let cpuOffset, let addressOffset):
      try giveWrongly(index, cpuOffset, addressOffset, &log)
    case .scribble(let index):
      guard let address = pick(index) else { return }
      try scribble(address & ~4095)
    case .change(let size, let alignment, let boundary):
      keptPages += model.pagesInUse
      dmacore_coherent_pool_destroy(pool)
      log.note("dmacore_coherent_pool_destroy(pool);")
      model = CoherentPoolModel(size: size, alignment: alignment, boundary: boundary)
      pool = try Self.makePool(device, model)
      log.note("pool = make_pool(machine, \(size), \(alignment), \(boundary));")
      objects = [:]
      last = nil
    }
  }

  private func pick(_ index: Int) -> UInt64? {
    model.live.isEmpty ? nil : model.live[index % model.live.count]
  }

  private func takeObject(_ log: inout StepLog) throws {
    var cpu: UnsafeMutableRawPointer?
    var address: UInt64 = 0
    let result = dmacore_coherent_pool_alloc(pool, &cpu, &address)
    log.note("dmacore_coherent_pool_alloc(pool, &cpu, &dma) /* \(hex(address)) */", gives: result)
    try demandSame(result, 0, "alloc")
    if let complaint = model.take(address) { throw Divergence(complaint) }
    for offset in 0..<Int(model.size) {
      try demandSame(cpu!.load(fromByteOffset: offset, as: UInt8.self), 0, "a byte of an object")
    }
    next = next == UInt8.max ? 1 : next + 1
    cpu!.initializeMemory(as: UInt8.self, repeating: next, count: Int(model.size))
    objects[address] = (cpu!, next)
  }

  private func give(
    _ cpu: UnsafeMutableRawPointer, _ address: UInt64, _ log: inout StepLog
  ) -> Int32 {
    let result = dmacore_coherent_pool_free(pool, cpu, address)
    log.note("dmacore_coherent_pool_free(pool, cpu, \(hex(address)))", gives: result)
    return result
  }

  private func giveWrongly(
    _ index: Int, _ cpuOffset: Int, _ addressOffset: Int, _ log: inout StepLog
  ) throws {
    if cpuOffset == 0 && addressOffset == 0 {
      // Twice, unless it is out again.
      guard let last, !model.live.contains(last.address) else { return }
      try demandSame(give(last.cpu, last.address, &log), -22, "a second free")
      return
    }
    guard let address = pick(index), let object = objects[address] else { return }
    let wrong = address &+ UInt64(bitPattern: Int64(addressOffset))
    // Another object's address is right, if the pointer is that one's too.
    let cpu = object.cpu + cpuOffset
    if let other = objects[wrong], other.cpu == cpu { return }
    try demandSame(give(cpu, wrong, &log), -22, "a wrong free")
  }

  private func scribble(_ page: UInt64) throws {
    var bytes = [UInt8](repeating: 0xEE, count: 4096)
    for (address, object) in objects where address & ~4095 == page {
      for offset in 0..<Int(model.size) { bytes[Int(address - page) + offset] = object.value }
    }
    try demandSame(dmacore_view_write(view, page, &bytes, 4096), 0, "a write of the device")
  }

  func compare() throws {
    var statistics = dmacore_device_statistics()
    statistics.struct_size = MemoryLayout.size(ofValue: statistics)
    try demandSame(dmacore_device_statistics(device, &statistics), 0, "statistics")
    try demandSame(
      statistics.mapping_count, UInt64(model.pages.count + keptPages), "pages of the device")
    for (address, object) in objects {
      var bytes = [UInt8](repeating: 0, count: Int(model.size))
      try demandSame(dmacore_view_read(view, address, &bytes, bytes.count), 0, "a read")
      try demand(bytes.allSatisfy { $0 == object.value }, "an object has changed")
      try demandSame(object.cpu.load(as: UInt8.self), object.value, "the CPU's side")
    }
  }

  func end() throws {
    dmacore_coherent_pool_destroy(pool)
    dmacore_view_destroy(view)
    dmacore_device_destroy(device)
    dmacore_domain_destroy(domain)
    dmacore_iommu_destroy(iommu)
    dmacore_system_destroy(system)
  }
}
