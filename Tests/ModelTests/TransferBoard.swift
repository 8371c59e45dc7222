// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import TestSupport

/// How the device of a board of transfers reaches memory.
enum TransferPath: CaseIterable, Sendable {
  case direct, trackedDirect
  /// With a mask of 32 bits, and all.
  case masked, forced
  /// With page tables of the library's own, and of the caller's, where all mappings have records.
  case strict, strictOfCaller, lazy, hybrid, untrusted
  case incoherentDirect, incoherent, incoherentForced, incoherentUntrusted
  /// The last region is a peer's, by bus address, through the host bridge, or not to be reached.
  case peerByBus, peerByBusTranslated, peerByHost, peerByHostTranslated, peerOutOfReach

  var isTranslated: Bool {
    switch self {
    case .direct, .trackedDirect, .masked, .forced, .incoherentDirect, .incoherentForced,
      .peerByBus, .peerByHost, .peerOutOfReach:
      false
    default: true
    }
  }
  var isUntrusted: Bool { self == .untrusted || self == .incoherentUntrusted }
  var isCoherent: Bool {
    switch self {
    case .incoherentDirect, .incoherent, .incoherentForced, .incoherentUntrusted: false
    default: true
    }
  }
  var isForced: Bool { self == .forced || self == .incoherentForced }
  var hasPeer: Bool {
    switch self {
    case .peerByBus, .peerByBusTranslated, .peerByHost, .peerByHostTranslated, .peerOutOfReach:
      true
    default: false
    }
  }
  var isByBus: Bool { self == .peerByBus || self == .peerByBusTranslated }

  fileprivate var domainType: UInt32? {
    guard isTranslated else { return nil }
    switch self {
    case .lazy: return DMACORE_DOMAIN_DMA_LAZY.rawValue
    case .hybrid: return DMACORE_DOMAIN_HYBRID.rawValue
    default: return DMACORE_DOMAIN_DMA.rawValue
    }
  }

  fileprivate var deviceFlags: UInt32 {
    var flags: UInt32 = 0
    if self == .trackedDirect { flags |= UInt32(DMACORE_DEVICE_TRACK_DIRECT.rawValue) }
    if isForced { flags |= UInt32(DMACORE_DEVICE_FORCE_BOUNCE.rawValue) }
    if isUntrusted { flags |= UInt32(DMACORE_DEVICE_UNTRUSTED.rawValue) }
    if !isCoherent { flags |= UInt32(DMACORE_DEVICE_NONCOHERENT.rawValue) }
    return flags
  }
}

/// What the caches were told, as where ranges begin, less how many end there: by place in memory.
struct CacheNotes: Equatable {
  struct Key: Hashable {
    let direction: UInt32
    let forCPU: Bool
    let place: Int
  }
  private(set) var edges: [Key: Int] = [:]
  /// Bytes of the pool, under no place.
  private(set) var copied: [Key: Int] = [:]

  mutating func add(_ place: Int, _ size: Int, _ direction: UInt32, forCPU: Bool) {
    change(&edges, Key(direction: direction, forCPU: forCPU, place: place), 1)
    change(&edges, Key(direction: direction, forCPU: forCPU, place: place + size), -1)
  }

  mutating func addCopied(_ size: Int, _ direction: UInt32, forCPU: Bool) {
    change(&copied, Key(direction: direction, forCPU: forCPU, place: 0), size)
  }

  private func change(_ counts: inout [Key: Int], _ key: Key, _ by: Int) {
    let count = counts[key, default: 0] + by
    counts[key] = count == 0 ? nil : count
  }
}

/// A system with memory in three places, and two devices with views, of which the second is there for
/// mistakes.
final class TransferBoard {
  static let page = 4096
  /// Pages in reach of a mask of 32 bits, above it, and those that may be a peer's.
  static let regions: [(base: UInt64, pages: Int)] = [
    (0x1000_0000, 16), (0x1_0000_0000, 16), (0x38_0000_0000, 6),
  ]
  static let size = regions.reduce(0) { $0 + $1.pages * page }
  private static let bus: UInt64 = 0xC000_0000
  private static let poolBase: UInt64 = 0x8000_0000
  static let poolPages = 512

  let path: TransferPath
  let memory: UnsafeMutableRawPointer
  private let poolMemory: UnsafeMutableRawPointer
  private let tables = TablePages()
  private var bridges: [OpaquePointer?] = []
  private var provider: OpaquePointer?
  private var peer: OpaquePointer?
  private(set) var system: OpaquePointer?
  private var iommu: OpaquePointer?
  private var domain: OpaquePointer?
  private(set) var pool: OpaquePointer?
  private(set) var device: OpaquePointer?
  private(set) var other: OpaquePointer?
  private(set) var view: OpaquePointer?
  /// Reports of errors.
  var reportCount = 0
  var notes = CacheNotes()

  init(_ path: TransferPath) throws {
    self.path = path
    memory = .allocate(byteCount: Self.size, alignment: Self.page)
    memset(memory, 0, Self.size)
    poolMemory = .allocate(byteCount: Self.poolPages * Self.page, alignment: Self.page)
    try makeSystem()
    var offset = 0
    for region in Self.regions {
      try addRegion(to: system, region.base, region.pages * Self.page, memory + offset)
      offset += region.pages * Self.page
    }
    try addRegion(to: system, Self.poolBase, Self.poolPages * Self.page, poolMemory)
    var poolOptions = dmacore_bounce_pool_options()
    poolOptions.struct_size = MemoryLayout<dmacore_bounce_pool_options>.size
    poolOptions.size = UInt64(Self.poolPages * Self.page)
    poolOptions.size_max = poolOptions.size
    pool = try makeObject { dmacore_bounce_pool_create(system, &poolOptions, &$0) }
    if let type = path.domainType { try makeDomain(type) }
    if path.hasPeer { try makePeer() }
    device = try makeDevice()
    other = try makeDevice()
    view = try makeObject { dmacore_view_create(device, &$0) }
  }

  deinit {
    dmacore_view_destroy(view)
    dmacore_device_destroy(device)
    dmacore_device_destroy(other)
    dmacore_peer_destroy(peer)
    dmacore_device_destroy(provider)
    for bridge in bridges.reversed() { dmacore_bridge_destroy(bridge) }
    dmacore_domain_destroy(domain)
    dmacore_iommu_destroy(iommu)
    dmacore_bounce_pool_destroy(pool)
    dmacore_system_destroy(system)
    memory.deallocate()
    poolMemory.deallocate()
  }

  private static func from(_ opaque: UnsafeMutableRawPointer?) -> TransferBoard {
    Unmanaged<TransferBoard>.fromOpaque(opaque!).takeUnretainedValue()
  }

  private func makeSystem() throws {
    var allocator = dmacore_memory_allocator()
    allocator.struct_size = MemoryLayout<dmacore_memory_allocator>.size
    // The pool asks once.
    allocator.allocate = { _, _, _, opaque in opaque }
    allocator.free = { _, _, _ in }
    allocator.opaque = poolMemory
    let own = Unmanaged.passUnretained(self).toOpaque()
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout<dmacore_system_options>.size
    options.report = { _, opaque in TransferBoard.from(opaque).reportCount += 1 }
    options.report_opaque = own
    options.cache = { phys, size, direction, forCPU, opaque in
      TransferBoard.from(opaque).note(phys, Int(size), direction, forCPU)
    }
    options.cache_opaque = own
    try withUnsafePointer(to: allocator) { allocator in
      options.memory_allocator = allocator
      system = try makeObject { dmacore_system_create(&options, &$0) }
    }
  }

  private func note(_ phys: UInt64, _ size: Int, _ direction: UInt32, _ forCPU: Bool) {
    guard let place = Self.place(of: phys) else {
      return notes.addCopied(size, direction, forCPU: forCPU)
    }
    notes.add(place, size, direction, forCPU: forCPU)
  }

  private func makeDomain(_ type: UInt32) throws {
    var options = dmacore_iommu_options()
    options.struct_size = MemoryLayout<dmacore_iommu_options>.size
    var table = dmacore_pagetable_options()
    table.struct_size = MemoryLayout<dmacore_pagetable_options>.size
    table.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE.rawValue
    var allocator = tables.allocator
    try withUnsafePointer(to: &allocator) { allocator in
      table.allocator = allocator
      try withUnsafePointer(to: &table) { table in
        if path == .strictOfCaller { options.pagetable = table }
        iommu = try makeObject { dmacore_iommu_create(system, &options, &$0) }
      }
    }
    var domainOptions = dmacore_domain_options()
    domainOptions.struct_size = MemoryLayout<dmacore_domain_options>.size
    domainOptions.type = type
    domain = try makeObject { dmacore_domain_create(iommu, &domainOptions, &$0) }
  }

  private func addBridge(_ parent: OpaquePointer?, _ flags: UInt32) throws {
    var options = dmacore_bridge_options()
    options.struct_size = MemoryLayout<dmacore_bridge_options>.size
    options.flags = flags
    options.parent = parent
    bridges.append(try makeObject { dmacore_bridge_create(system, &options, &$0) })
  }

  /// The provider is below the same bridge, or another, whose requests the host passes on or not.
  private func makePeer() throws {
    if path.isByBus {
      try addBridge(nil, 0)
    } else {
      let passes =
        path == .peerOutOfReach ? 0 : UInt32(DMACORE_BRIDGE_HOST_PASSES_ACROSS.rawValue)
      for _ in 0..<2 {
        try addBridge(nil, UInt32(DMACORE_BRIDGE_ISOLATES.rawValue) | passes)
      }
    }
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout<dmacore_device_options>.size
    options.bridge = bridges.last!
    if path.isByBus { options.iommu = iommu }
    provider = try makeObject { dmacore_device_create(system, &options, &$0) }
    var peerOptions = dmacore_peer_options()
    peerOptions.struct_size = MemoryLayout<dmacore_peer_options>.size
    let region = Self.regions[2]
    (peerOptions.phys, peerOptions.size) = (region.base, UInt64(region.pages * Self.page))
    peerOptions.bus = Self.bus
    peer = try makeObject { dmacore_peer_create(provider, &peerOptions, &$0) }
  }

  private func makeDevice() throws -> OpaquePointer {
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout<dmacore_device_options>.size
    let is32 = path == .masked || path == .hybrid
    options.streaming_mask = is32 ? UInt64(UInt32.max) : UInt64.max
    options.flags = path.deviceFlags
    options.iommu = iommu
    options.bounce_pool = pool
    options.bridge = bridges.first ?? nil
    let device = try makeObject { dmacore_device_create(system, &options, &$0) }
    if domain != nil {
      let result = dmacore_domain_attach(domain, device)
      // Devices of one group are attached together.
      try demand(result == 0 || (path.isByBus && result == -16), "attach gives \(result)")
    }
    return device
  }

  // MARK: - Places

  static func phys(_ place: Int) -> UInt64 {
    var first = 0
    for region in regions {
      if place < first + region.pages * page { return region.base + UInt64(place - first) }
      first += region.pages * page
    }
    return regions[2].base + UInt64(place - first)
  }

  /// Where a physical address is in memory, nil for one of the pool.
  static func place(of phys: UInt64) -> Int? {
    var first = 0
    for region in regions {
      let size = region.pages * page
      if phys >= region.base && phys < region.base + UInt64(size) {
        return first + Int(phys - region.base)
      }
      first += size
    }
    return nil
  }

  /// How many bytes there are from a place to the end of its region.
  static func room(at place: Int) -> Int {
    var end = 0
    for region in regions {
      end += region.pages * page
      if place < end { return end - place }
    }
    return 0
  }

  static func isHigh(_ place: Int) -> Bool { place >= regions[0].pages * page }
  static func isLast(_ place: Int) -> Bool {
    place >= (regions[0].pages + regions[1].pages) * page
  }
  func isPeer(_ place: Int) -> Bool { path.hasPeer && Self.isLast(place) }

  // MARK: - Counts

  func mappingCount() throws -> UInt64 {
    var statistics = dmacore_device_statistics()
    statistics.struct_size = MemoryLayout<dmacore_device_statistics>.size
    try demandSame(dmacore_device_statistics(device, &statistics), 0, "device_statistics")
    return statistics.mapping_count
  }

  /// Bytes that the page table leads to, or 0.
  func mappedBytes() throws -> UInt64 {
    guard domain != nil else { return 0 }
    var statistics = dmacore_domain_statistics()
    statistics.struct_size = MemoryLayout<dmacore_domain_statistics>.size
    try demandSame(dmacore_domain_statistics(domain, &statistics), 0, "domain_statistics")
    return statistics.mapped_bytes
  }

  func usedSlots() throws -> UInt64 {
    var statistics = dmacore_bounce_pool_statistics()
    statistics.struct_size = MemoryLayout<dmacore_bounce_pool_statistics>.size
    try demandSame(dmacore_bounce_pool_statistics(pool, &statistics), 0, "pool_statistics")
    return statistics.used_count
  }

  func demandNothingMapped(but bytes: UInt64) throws {
    try demandSame(try mappingCount(), 0, "mappings left")
    try demandSame(try usedSlots(), 0, "slots left")
    guard domain != nil else { return }
    try demandSame(dmacore_domain_flush(domain), 0, "result of flush")
    try demandSame(try mappedBytes(), bytes, "bytes left mapped")
    var left = dmacore_domain_statistics()
    left.struct_size = MemoryLayout<dmacore_domain_statistics>.size
    try demandSame(dmacore_domain_statistics(domain, &left), 0, "result of domain_statistics")
    try demandSame(left.mapping_count, 0, "ranges left")
    try demandSame(tables.misuses, [], "misuses of table pages")
  }
}
