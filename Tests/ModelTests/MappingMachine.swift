// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// How the device of a machine reaches memory.
enum MachinePath: CaseIterable, Sendable {
  case trackedDirect
  case trackedIdentity
  case translated
  case lazy
  // The same with DMA ranges.
  case rangedDirect
  case rangedIdentity
  case rangedTranslated
  // By functions of the caller's, with a window for half of the memory.
  case functions

  var isBehindIOMMU: Bool {
    self != .trackedDirect && self != .rangedDirect && self != .functions
  }
  var isTranslated: Bool { self == .translated || self == .lazy || self == .rangedTranslated }
}

/// A machine made by the functions that C calls: memory of every backing, and one device with a view.
final class MappingMachine {
  // Two regions that adjoin in physical memory and not in the process, a hole, one that devices may
  // not write, and one that callbacks serve. All are reached from one run of pages.
  static let page: UInt64 = 4096
  static let windowBase: UInt64 = 0x8000_0000
  static let windowPages = 16
  static let poolBase: UInt64 = 0x9000_0000
  static let poolPages = 6
  static let faultCapacity = 16
  static let flushEntries = 5
  static let flushAge: UInt64 = 100

  static let regions = [
    DeviceModel.Region(base: windowBase, size: 5 * 4096),
    DeviceModel.Region(base: windowBase + 5 * page, size: 5 * 4096),
    // A hole of two pages.
    DeviceModel.Region(base: windowBase + 12 * page, isReadOnly: true, size: 2 * 4096),
    DeviceModel.Region(base: windowBase + 14 * page, isHost: false, size: 2 * 4096),
    DeviceModel.Region(base: poolBase, size: poolPages * 4096),
  ]

  // Two that adjoin on both sides, one that adjoins the memory before it alone, and the pool's, which
  // adjoins on the bus alone.
  static let directRanges = [
    dmacore_dma_range(bus: poolBus + 6 * page, phys: windowBase + 10 * page, size: 6 * page),
    dmacore_dma_range(bus: poolBus - 3 * page, phys: windowBase + 7 * page, size: 3 * page),
    dmacore_dma_range(bus: poolBus, phys: poolBase, size: 6 * page),
    dmacore_dma_range(bus: poolBus - 10 * page, phys: windowBase, size: 7 * page),
  ]
  static let poolBus: UInt64 = 0x1_2345_6000

  static let translatedRanges = [
    dmacore_dma_range(bus: 0x4000_0000, phys: 0x1000, size: 0x10_0000),
    dmacore_dma_range(bus: 0x20_0000_0000, phys: 0x100_0000, size: 0x3000),
  ]

  // Where the device has what is in the window, how far that goes, and where the functions have the rest.
  static let bypassOffset: UInt64 = 1 << 40
  static let bypassLimit = bypassOffset + windowBase + 8 * page - 1
  static let functionsOffset: UInt64 = 1 << 44

  /// What the library calls back, apart from the machine, which its calls come from.
  private final class Host {
    var memories: [UnsafeMutableRawPointer] = []
    var usedPages = Array(repeating: false, count: poolPages)
    var errorCount = 0
    var warningCount = 0
    var faultCount: UInt64 = 0
    // What the functions have mapped, by the device's addresses.
    var mapped: [UInt64: UInt64] = [:]
    var wrongUnmaps = 0

    init() {
      for region in MappingMachine.regions {
        let memory = UnsafeMutableRawPointer.allocate(
          byteCount: region.bytes.count, alignment: 4096)
        memset(memory, 0, region.bytes.count)
        memories.append(memory)
      }
    }

    deinit { for memory in memories { memory.deallocate() } }

    var opaque: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

    static func from(_ opaque: UnsafeMutableRawPointer?) -> Host {
      Unmanaged<Host>.fromOpaque(opaque!).takeUnretainedValue()
    }

    func allocate(pages count: Int) -> UnsafeMutableRawPointer? {
      for start in 0..<max(0, poolPages - count + 1) {
        let indexes = start..<start + count
        guard usedPages[indexes].allSatisfy({ !$0 }) else { continue }
        for index in indexes { usedPages[index] = true }
        return memories.last! + start * 4096
      }
      return nil
    }

    func free(_ memory: UnsafeMutableRawPointer, pages count: Int) {
      let start = (memory - memories.last!) / 4096
      for index in start..<start + count { usedPages[index] = false }
    }
  }

  private let host = Host()
  private let tables = TablePages()
  private(set) var system: OpaquePointer?
  private var iommu: OpaquePointer?
  private(set) var domain: OpaquePointer?
  private(set) var device: OpaquePointer?
  private(set) var view: OpaquePointer?
  let path: MachinePath

  init(_ path: MachinePath) throws {
    self.path = path
    try makeSystem()
    for (index, region) in Self.regions.enumerated() { try add(region, index) }
    if path.isBehindIOMMU { try makeIOMMU() }
    try makeDevice()
    if path.isBehindIOMMU {
      try demandSame(dmacore_domain_attach(domain, device), 0, "attach")
    }
    try demandSame(dmacore_view_create(device, &view), 0, "create a view")
  }

  private func makeSystem() throws {
    var allocator = dmacore_memory_allocator(
      struct_size: MemoryLayout<dmacore_memory_allocator>.size,
      allocate: { size, _, _, opaque in Host.from(opaque).allocate(pages: Int(size / 4096)) },
      free: { memory, size, opaque in Host.from(opaque).free(memory!, pages: Int(size / 4096)) },
      opaque: host.opaque)
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout<dmacore_system_options>.size
    options.report = { report, opaque in
      let host = Host.from(opaque)
      if report!.pointee.level == DMACORE_REPORT_ERROR.rawValue {
        host.errorCount += 1
      } else {
        host.warningCount += 1
      }
    }
    options.report_opaque = host.opaque
    try withUnsafePointer(to: &allocator) { allocator in
      options.memory_allocator = allocator
      try demandSame(dmacore_system_create(&options, &system), 0, "create a system")
    }
  }

  private func add(_ model: DeviceModel.Region, _ index: Int) throws {
    var region = dmacore_memory_region()
    region.struct_size = MemoryLayout<dmacore_memory_region>.size
    region.base = model.base
    region.size = UInt64(model.bytes.count)
    region.flags = model.isReadOnly ? DMACORE_MEMORY_READ_ONLY.rawValue : 0
    if model.isHost {
      region.backing = DMACORE_MEMORY_HOST.rawValue
      region.host = host.memories[index]
    } else {
      region.backing = DMACORE_MEMORY_CALLBACKS.rawValue
      region.read = { offset, buffer, size, memory in
        memcpy(buffer!, memory! + Int(offset), size)
        return 0
      }
      region.write = { offset, buffer, size, memory in
        memcpy(memory! + Int(offset), buffer!, size)
        return 0
      }
      region.opaque = host.memories[index]
    }
    try demandSame(dmacore_memory_add(system, &region), 0, "add region \(index)")
  }

  private func makeIOMMU() throws {
    var allocator = tables.allocator
    try withUnsafePointer(to: &allocator) { allocator in
      var pagetable = dmacore_pagetable_options()
      pagetable.struct_size = MemoryLayout<dmacore_pagetable_options>.size
      pagetable.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE.rawValue
      pagetable.allocator = allocator
      try withUnsafePointer(to: &pagetable) { pagetable in
        var options = dmacore_iommu_options()
        options.struct_size = MemoryLayout<dmacore_iommu_options>.size
        options.pagetable = pagetable
        try demandSame(dmacore_iommu_create(system, &options, &iommu), 0, "create an IOMMU")
      }
    }
    var options = dmacore_domain_options()
    options.struct_size = MemoryLayout<dmacore_domain_options>.size
    switch path {
    case .lazy:
      options.type = DMACORE_DOMAIN_DMA_LAZY.rawValue
      options.flush_entries = UInt32(Self.flushEntries)
      options.flush_age = Self.flushAge
    case .translated, .rangedTranslated: options.type = DMACORE_DOMAIN_DMA.rawValue
    default: options.type = DMACORE_DOMAIN_IDENTITY.rawValue
    }
    try demandSame(dmacore_domain_create(iommu, &options, &domain), 0, "create a domain")
  }

  private var functions: dmacore_mapping_ops {
    var ops = dmacore_mapping_ops()
    ops.struct_size = MemoryLayout<dmacore_mapping_ops>.size
    ops.flags = DMACORE_OPS_BYPASS.rawValue
    ops.map = { _, mapping, address, opaque in
      address!.pointee = mapping!.pointee.phys + MappingMachine.functionsOffset
      Host.from(opaque).mapped[address!.pointee] = mapping!.pointee.size
      return 0
    }
    ops.unmap = { _, mapping, opaque in
      let host = Host.from(opaque)
      if host.mapped.removeValue(forKey: mapping!.pointee.dma) != mapping!.pointee.size {
        host.wrongUnmaps += 1
      }
    }
    ops.supported = { _, _, _, bypass, _ in
      bypass!.pointee.is_offered = 1
      bypass!.pointee.offset = MappingMachine.bypassOffset
      bypass!.pointee.limit = MappingMachine.bypassLimit
      return 0
    }
    return ops
  }

  private func makeDevice() throws {
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout<dmacore_device_options>.size
    options.flags = DMACORE_DEVICE_TRACK_DIRECT.rawValue
    options.fault_capacity = UInt32(Self.faultCapacity)
    options.iommu = iommu
    options.streaming_mask = UInt64.max
    options.coherent_mask = UInt64.max
    options.fault = { _, _, opaque in Host.from(opaque).faultCount += 1 }
    options.fault_opaque = host.opaque
    try withUnsafePointer(to: functions) { functions in
      if path == .functions {
        options.mapping_ops = functions
        options.mapping_ops_opaque = host.opaque
      }
      try ranges.withUnsafeBufferPointer { ranges in
        options.ranges = ranges.baseAddress
        options.range_count = ranges.count
        try demandSame(dmacore_device_create(system, &options, &device), 0, "create a device")
      }
    }
  }

  private var ranges: [dmacore_dma_range] {
    switch path {
    case .trackedDirect, .trackedIdentity, .translated, .lazy, .functions: []
    case .rangedDirect, .rangedIdentity: Self.directRanges
    case .rangedTranslated: Self.translatedRanges
    }
  }

  /// The address of memory that is mapped directly; nil if the bus does not have it in a row.
  func directAddress(of physical: UInt64, count: Int) -> UInt64? {
    if path == .functions {
      let direct = physical + Self.bypassOffset
      return direct + UInt64(count) - 1 <= Self.bypassLimit
        ? direct : physical + Self.functionsOffset
    }
    if ranges.isEmpty { return physical }
    let addresses = (0..<UInt64(count)).map { offset in
      ranges.first { $0.phys <= physical + offset && physical + offset - $0.phys < $0.size }
        .map { $0.bus + (physical + offset - $0.phys) }
    }
    guard let first = addresses[0] else { return nil }
    return addresses.enumerated().allSatisfy { $1 == first + UInt64($0) } ? first : nil
  }

  /// Whether the bus passes an address to the IOMMU.
  func passes(_ address: UInt64) -> Bool {
    ranges.isEmpty || ranges.contains { $0.bus <= address && address - $0.bus < $0.size }
  }

  deinit { destroy() }

  /// Ends what the library has of the machine.
  private func destroy() {
    dmacore_view_destroy(view)
    dmacore_device_destroy(device)
    dmacore_domain_destroy(domain)
    dmacore_iommu_destroy(iommu)
    dmacore_system_destroy(system)
    (view, device, domain, iommu, system) = (nil, nil, nil, nil, nil)
  }

  /// Ends the machine, in which nothing is mapped, and looks for what it left behind.
  func end() throws {
    let reportCount = host.errorCount + host.warningCount
    destroy()
    try demandSame(host.errorCount + host.warningCount, reportCount, "reports at the end")
    try demand(host.usedPages.allSatisfy { !$0 }, "coherent memory is left behind")
    try demandSame(host.mapped, [:], "mappings that the functions are left with")
    try demandSame(host.wrongUnmaps, 0, "unmaps of what the functions have not mapped")
    try demandSame(tables.liveCount, 0, "table pages left behind")
    try demandSame(tables.misuses, [], "frees of table pages")
  }

  // MARK: - What the machine knows

  var errorCount: Int { host.errorCount }
  var warningCount: Int { host.warningCount }
  var faultCount: UInt64 { host.faultCount }

  /// Where a place of the model lies in the process.
  func host(of place: DeviceModel.Place) -> UnsafeMutableRawPointer {
    host.memories[place.region] + place.offset
  }

  /// Where physical memory lies in the process, if all of it lies in one region.
  func host(of physical: UInt64, count: Int) -> UnsafeMutableRawPointer? {
    for (index, region) in Self.regions.enumerated()
    where physical >= region.base
      && physical - region.base + UInt64(count) <= UInt64(region.bytes.count)
    {
      return host.memories[index] + Int(physical - region.base)
    }
    return nil
  }

  /// The physical address of memory of the pool.
  func poolPhysical(of memory: UnsafeMutableRawPointer) -> UInt64 {
    Self.poolBase + UInt64(memory - host.memories.last!)
  }

  /// The most pages that the pool can give at once.
  var longestPoolRun: Int {
    host.usedPages.split(separator: true).map(\.count).max() ?? 0
  }

  func checkMemory(_ model: DeviceModel) throws {
    for (index, region) in model.regions.enumerated() {
      let found = UnsafeRawBufferPointer(start: host.memories[index], count: region.bytes.count)
      let isSame = region.bytes.withUnsafeBytes { expected in
        memcmp(found.baseAddress!, expected.baseAddress!, region.bytes.count) == 0
      }
      try demand(isSame, "memory of region \(index) differs")
    }
  }

  func domainStatistics() throws -> dmacore_domain_statistics {
    var statistics = dmacore_domain_statistics()
    statistics.struct_size = MemoryLayout<dmacore_domain_statistics>.size
    try demandSame(dmacore_domain_statistics(domain, &statistics), 0, "domain statistics")
    return statistics
  }
}
