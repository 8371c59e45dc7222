// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import TestSupport

/// A system with some memory, a device and its view, through C; behind an IOMMU, if there is a domain.
final class ModelBoard {
  private static let poolBase: UInt64 = 0x8000_0000

  let memorySize: Int
  let memory: UnsafeMutableRawPointer
  // What the pool of the device is made of.
  private let poolMemory: UnsafeMutableRawPointer
  private(set) var system: OpaquePointer?
  private(set) var iommu: OpaquePointer?
  private(set) var domain: OpaquePointer?
  private(set) var device: OpaquePointer?
  private(set) var view: OpaquePointer?
  private(set) var pool: OpaquePointer?

  /// - Parameters:
  ///   - base: the physical address of the memory; nil: that of the process, on a flat system. Of the pool, if
  ///     there is one, it is 2 GiB, or that of the process.
  ///   - poolPages: what the device's pool has; 0: no pool.
  ///   - domainType: that of the domain that the device is attached to; nil: no IOMMU.
  init(
    base: UInt64?, pages: Int, poolPages: Int = 0, domainType: UInt32?, flags: UInt32 = 0,
    streamingMask: UInt64 = UInt64.max
  ) throws {
    memorySize = pages * 4096
    memory = .allocate(byteCount: memorySize, alignment: 4096)
    memset(memory, 0, memorySize)
    poolMemory = .allocate(byteCount: max(poolPages, 1) * 4096, alignment: 4096)
    var allocator = dmacore_memory_allocator()
    allocator.struct_size = MemoryLayout<dmacore_memory_allocator>.size
    // The pool asks once.
    allocator.allocate = { _, _, _, opaque in opaque }
    allocator.free = { _, _, _ in }
    allocator.opaque = poolMemory
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout<dmacore_system_options>.size
    if base == nil { options.flags = UInt32(DMACORE_SYSTEM_FLAT.rawValue) }
    try withUnsafePointer(to: allocator) { allocator in
      options.memory_allocator = allocator
      system = try makeObject { dmacore_system_create(&options, &$0) }
    }
    if let base { try addRegion(to: system, base, memorySize, memory) }
    var deviceOptions = dmacore_device_options()
    deviceOptions.struct_size = MemoryLayout<dmacore_device_options>.size
    deviceOptions.streaming_mask = streamingMask
    deviceOptions.flags = flags
    if let domainType {
      iommu = try makeObject { dmacore_iommu_create(system, nil, &$0) }
      var domainOptions = dmacore_domain_options()
      domainOptions.struct_size = MemoryLayout<dmacore_domain_options>.size
      domainOptions.type = domainType
      domain = try makeObject { dmacore_domain_create(iommu, &domainOptions, &$0) }
      deviceOptions.iommu = iommu
    }
    if poolPages > 0 {
      if base != nil { try addRegion(to: system, Self.poolBase, poolPages * 4096, poolMemory) }
      var poolOptions = dmacore_bounce_pool_options()
      poolOptions.struct_size = MemoryLayout<dmacore_bounce_pool_options>.size
      (poolOptions.size, poolOptions.size_max) = (
        UInt64(poolPages * 4096), UInt64(poolPages * 4096)
      )
      pool = try makeObject { dmacore_bounce_pool_create(system, &poolOptions, &$0) }
      deviceOptions.bounce_pool = pool
    }
    device = try makeObject { dmacore_device_create(system, &deviceOptions, &$0) }
    if domain != nil {
      try demandSame(dmacore_domain_attach(domain, device), 0, "result of attach")
    }
    view = try makeObject { dmacore_view_create(device, &$0) }
  }

  deinit {
    dmacore_view_destroy(view)
    dmacore_device_destroy(device)
    dmacore_domain_destroy(domain)
    dmacore_iommu_destroy(iommu)
    dmacore_bounce_pool_destroy(pool)
    dmacore_system_destroy(system)
    memory.deallocate()
    poolMemory.deallocate()
  }

  func demandMemory(_ expected: [UInt8]) throws {
    let found = Array(UnsafeRawBufferPointer(start: memory, count: memorySize))
    if let place = zip(found, expected).enumerated().first(where: { $1.0 != $1.1 })?.offset {
      throw Divergence("byte \(place): found \(found[place]), expected \(expected[place])")
    }
  }

  func demandNothingMapped() throws {
    var statistics = dmacore_device_statistics()
    statistics.struct_size = MemoryLayout<dmacore_device_statistics>.size
    try demandSame(
      dmacore_device_statistics(device, &statistics), 0, "result of device_statistics")
    try demandSame(statistics.mapping_count, 0, "mappings left")
    guard domain != nil else { return }
    try demandSame(dmacore_domain_flush(domain), 0, "result of flush")
    var left = dmacore_domain_statistics()
    left.struct_size = MemoryLayout<dmacore_domain_statistics>.size
    try demandSame(dmacore_domain_statistics(domain, &left), 0, "result of domain_statistics")
    try demandSame(left.mapped_bytes, 0, "bytes left mapped")
    try demandSame(left.mapping_count, 0, "ranges left")
  }
}

/// Memory of this process becomes memory of a system.
func addRegion(
  to system: OpaquePointer?, _ base: UInt64, _ size: Int, _ host: UnsafeMutableRawPointer
) throws {
  var region = dmacore_memory_region()
  region.struct_size = MemoryLayout<dmacore_memory_region>.size
  region.backing = DMACORE_MEMORY_HOST.rawValue
  region.base = base
  region.size = UInt64(size)
  region.host = host
  try demandSame(dmacore_memory_add(system, &region), 0, "result of memory_add")
}
