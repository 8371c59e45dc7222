// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What the owner of a domain and a device of it do. Pages are counted from the first of the window.
enum DirtyStep {
  case map(page: Int)
  case unmap(Range<Int>)
  case write(offset: Int, size: Int)
  case pin(offset: Int, size: Int, isForWriting: Bool)
  case unpin(Int)
  case track(Bool)
  case read(Range<Int>, clearing: Bool)
}

/// An unmanaged domain that notes writes, beside sets of pages. Pages are mapped one by one, so that each
/// is a leaf.
final class DirtyWorld: World {
  static let pageCount = 100
  private static let base: UInt64 = 0x4567_8000

  private let memory = UnsafeMutableRawPointer.allocate(
    byteCount: pageCount * 4096, alignment: 4096)
  private let buffer = [UInt8](repeating: 0xA5, count: pageCount * 4096)
  private var system: OpaquePointer?
  private var iommu: OpaquePointer?
  private var domain: OpaquePointer?
  private var device: OpaquePointer?
  private var view: OpaquePointer?
  private var held: [OpaquePointer?] = []
  private var model = DirtyModel()

  init(format: UInt32) throws {
    var systemOptions = dmacore_system_options()
    systemOptions.struct_size = MemoryLayout.size(ofValue: systemOptions)
    systemOptions.flags = DMACORE_SYSTEM_FLAT.rawValue
    try demandSame(dmacore_system_create(&systemOptions, &system), 0, "create a system")
    var tables = dmacore_pagetable_options()
    tables.struct_size = MemoryLayout.size(ofValue: tables)
    tables.format = format
    tables.features = DMACORE_PAGETABLE_DIRTY.rawValue
    try withUnsafePointer(to: &tables) { tables in
      var options = dmacore_iommu_options()
      options.struct_size = MemoryLayout.size(ofValue: options)
      options.pagetable = tables
      try demandSame(dmacore_iommu_create(system, &options, &iommu), 0, "create an IOMMU")
    }
    var domainOptions = dmacore_domain_options()
    domainOptions.struct_size = MemoryLayout.size(ofValue: domainOptions)
    domainOptions.type = DMACORE_DOMAIN_UNMANAGED.rawValue
    try demandSame(dmacore_domain_create(iommu, &domainOptions, &domain), 0, "create a domain")
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.iommu = iommu
    try demandSame(dmacore_device_create(system, &options, &device), 0, "create a device")
    try demandSame(dmacore_domain_attach(domain, device), 0, "attach")
    try demandSame(dmacore_view_create(device, &view), 0, "create a view")
  }

  deinit {
    for pin in held { dmacore_view_unmap(pin) }
    dmacore_view_destroy(view)
    dmacore_device_destroy(device)
    dmacore_domain_destroy(domain)
    dmacore_iommu_destroy(iommu)
    dmacore_system_destroy(system)
    memory.deallocate()
  }

  private func address(_ page: Int) -> UInt64 { Self.base + UInt64(page) * 4096 }

  private func pages(_ offset: Int, _ size: Int) -> Range<Int> {
    offset / 4096..<(offset + size - 1) / 4096 + 1
  }

  func take(_ step: DirtyStep, _ log: inout StepLog) throws {
    log.note("\(step)")
    switch step {
    case .map(let page):
      // Memory in reverse, so that pages are no larger leaves.
      let physical = UInt64(UInt(bitPattern: memory)) + UInt64(Self.pageCount - 1 - page) * 4096
      try demandSame(
        dmacore_domain_map(domain, address(page), physical, 4096, 3),
        model.map(page) ? 0 : -EEXIST, "map")
    case .unmap(let pages):
      var size: UInt64 = 0
      try demandSame(
        dmacore_domain_unmap(
          domain, address(pages.lowerBound), UInt64(pages.count) * 4096,
          DMACORE_UNMAP_CROSS_HOLES.rawValue, &size), 0, "unmap")
      try demandSame(size, UInt64(model.unmap(pages)) * 4096, "size")
    case .write(let offset, let size):
      try demandSame(
        dmacore_view_write(view, Self.base + UInt64(offset), buffer, size),
        model.write(pages(offset, size)) ? 0 : -ENOENT, "write")
    case .pin(let offset, let size, let isForWriting):
      var pin: OpaquePointer?
      var segments: UnsafePointer<dmacore_view_segment>?
      var count = 0
      try demandSame(
        dmacore_view_map(
          view, Self.base + UInt64(offset), UInt64(size), isForWriting ? 3 : 1, &pin, &segments,
          &count), model.pin(pages(offset, size), isForWriting: isForWriting) ? 0 : -ENOENT, "pin")
      if let pin { held.append(pin) }
    case .unpin(let number):
      guard !held.isEmpty else { return }
      dmacore_view_unmap(held.remove(at: number % held.count))
      model.unpin(number % model.pinCount)
    case .track(let isOn):
      try demandSame(dmacore_domain_set_dirty_tracking(domain, isOn), 0, "track")
      model.track(isOn)
    case .read(let pages, let clearing):
      try read(pages, clearing)
    }
  }

  private func read(_ pages: Range<Int>, _ clearing: Bool) throws {
    var bitmap: [UInt64] = [0, 0]
    try demandSame(
      dmacore_domain_read_dirty(
        domain, address(pages.lowerBound), UInt64(pages.count) * 4096,
        clearing ? DMACORE_DIRTY_CLEAR.rawValue : 0, &bitmap), 0, "read")
    let found = (0..<128).filter { bitmap[$0 / 64] >> ($0 % 64) & 1 != 0 }
    try demandSame(
      found.map { $0 + pages.lowerBound }, model.read(pages, clearing: clearing).sorted(),
      "pages written")
  }

  func compare() throws { try read(0..<Self.pageCount, false) }

  func end() throws {}
}
