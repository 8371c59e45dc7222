// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/domain.h

import Addressing
import CDMACore
import Domains
import PageTables
import Primitives

@implementation @c(dmacore_domain_create)
public func dmacore_domain_create(
  _ iommu: OpaquePointer!, _ given: UnsafePointer<dmacore_domain_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try handOver(out) { () throws(Failure) in
      let iommu = unsafe try value(iommu, as: IOMMU.self)
      var defaults = unsafe dmacore_domain_options()
      unsafe defaults.type = DMACORE_DOMAIN_DMA.rawValue
      let options = unsafe try options(given, defaults: defaults)
      // SAFETY: see `value`.
      let group = unsafe options.group.map { unsafe UnsafeMutablePointer<Group>($0) }
      // SAFETY: see `value`.
      let parent = unsafe options.parent.map { unsafe UnsafeMutablePointer<Domain>($0) }
      let guest = unsafe try guestTable(options.guest_table, behind: parent)
      return unsafe try Domain.place(
        iommu, DomainDescription(options, for: group, guest: guest, behind: parent))
    }
  }
}

/// The tables of a guest, if there are any. Without a parent they are none.
private func guestTable(
  _ given: UnsafePointer<dmacore_walk_options>?, behind parent: UnsafeMutablePointer<Domain>?
) throws(Failure) -> ForeignTable? {
  guard unsafe given != nil else { return nil }
  let table = unsafe try walkOptions(given)
  guard let parent = unsafe parent,
    unsafe table.read == nil && table.opaque == nil && table.second_stage == nil
  else { throw .invalidArgument }
  return unsafe try foreignTable(table, read: Domain.readWord, opaque: parent)
}

@implementation @c(dmacore_domain_destroy)
public func dmacore_domain_destroy(_ domain: OpaquePointer!) {
  guard let domain = unsafe domain else { return }
  // SAFETY: see `value`.
  let cell = unsafe UnsafeMutablePointer<Domain>(domain)
  if unsafe cell.pointee.iommu.pointee.system.pointee.isShared(cell) {
    unsafe cell.pointee.iommu.pointee.system.pointee.reporter.reportEarlyDestroy(object: "domain")
  }
  unsafe Box.letGo(cell)
}

@implementation @c(dmacore_domain_attach)
public func dmacore_domain_attach(_ domain: OpaquePointer!, _ device: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    try unsafe value(device, as: Device.self).pointee.attach(domain)
  }
}

@implementation @c(dmacore_domain_detach)
public func dmacore_domain_detach(_ domain: OpaquePointer!, _ device: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    try unsafe value(device, as: Device.self).pointee.detach(domain)
  }
}

@implementation @c(dmacore_domain_replace)
public func dmacore_domain_replace(_ domain: OpaquePointer!, _ device: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    try unsafe value(device, as: Device.self).pointee.replace(by: domain)
  }
}

@implementation @c(dmacore_domain_map)
public func dmacore_domain_map(
  _ domain: OpaquePointer!, _ iova: dmacore_iova_t, _ phys: dmacore_phys_t, _ size: UInt64,
  _ access: UInt32
) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    let range = try IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange)
    let access = try Access(checking: access, among: .all)
    try unsafe domain.pointee.map(range, to: PhysicalAddress(phys), access: access)
  }
}

@implementation @c(dmacore_domain_map_list)
public func dmacore_domain_map_list(
  _ domain: OpaquePointer!, _ iova: dmacore_iova_t,
  _ segments: UnsafePointer<dmacore_domain_segment>!, _ count: Int, _ access: UInt32
) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    let access = try Access(checking: access, among: .all)
    guard let segments = unsafe segments, count > 0 else { throw .invalidArgument }
    // SAFETY: so many segments are there, says the caller.
    let list = unsafe UnsafeBufferPointer(start: segments, count: count)
    try unsafe domain.pointee.map(list, at: IOVA(iova), access: access)
  }
}

@implementation @c(dmacore_domain_unmap)
public func dmacore_domain_unmap(
  _ domain: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64, _ flags: UInt32,
  _ out: UnsafeMutablePointer<UInt64>!
) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    let unsynced = DMACORE_UNMAP_UNSYNCED.rawValue
    let unmapped = try unsafe domain.pointee.unmap(
      IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange),
      crossingHoles: unmapFlag(DMACORE_UNMAP_CROSS_HOLES, in: flags & ~unsynced),
      splitting: unmapFlag(DMACORE_UNMAP_SPLIT, in: flags & ~unsynced),
      syncing: flags & unsynced == 0)
    if let out = unsafe out { unsafe out.pointee = unmapped }
  }
}

@implementation @c(dmacore_domain_sync)
public func dmacore_domain_sync(_ domain: OpaquePointer!) -> CInt {
  status { () throws(Failure) in try unsafe value(domain, as: Domain.self).pointee.sync() }
}

@implementation @c(dmacore_domain_set_bypass)
public func dmacore_domain_set_bypass(_ domain: OpaquePointer!, _ isOn: Bool) -> CInt {
  status { () throws(Failure) in
    unsafe try value(domain, as: Domain.self).pointee.setBypass(isOn)
  }
}

@implementation @c(dmacore_domain_flush)
public func dmacore_domain_flush(_ domain: OpaquePointer!) -> CInt {
  status { () throws(Failure) in try unsafe value(domain, as: Domain.self).pointee.flush() }
}

@implementation @c(dmacore_domain_invalidate)
public func dmacore_domain_invalidate(
  _ domain: OpaquePointer!, _ first: dmacore_iova_t, _ last: dmacore_iova_t
) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    try unsafe domain.pointee.invalidate(IOVARange(first: IOVA(first), last: IOVA(last)))
  }
}

@implementation @c(dmacore_domain_translate)
public func dmacore_domain_translate(
  _ domain: OpaquePointer!, _ iova: dmacore_iova_t, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>!
) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    let out = unsafe try output(out)
    let access = try Access(checking: access, among: .all)
    unsafe out.pointee = translation(try domain.pointee.translate(IOVA(iova), access))
  }
}

@implementation @c(dmacore_domain_set_dirty_tracking)
public func dmacore_domain_set_dirty_tracking(
  _ domain: OpaquePointer!, _ isTracked: CBool
) -> CInt {
  status { () throws(Failure) in
    try unsafe value(domain, as: Domain.self).pointee.setDirtyTracking(isTracked)
  }
}

@implementation @c(dmacore_domain_read_dirty)
public func dmacore_domain_read_dirty(
  _ domain: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64, _ flags: UInt32,
  _ bitmap: UnsafeMutablePointer<UInt64>!
) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    let bitmap = unsafe try output(bitmap)
    try require(flags & ~DMACORE_DIRTY_CLEAR.rawValue == 0)
    let range = try IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange)
    try unsafe domain.pointee.readDirty(range, into: bitmap, clearing: flags != 0)
  }
}

@implementation @c(dmacore_domain_statistics)
public func dmacore_domain_statistics(
  _ domain: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_domain_statistics>!
) -> CInt {
  status { () throws(Failure) in
    let domain = unsafe try value(domain, as: Domain.self)
    unsafe try fill(out) { () throws(Failure) in
      let statistics = unsafe domain.pointee.statistics
      return dmacore_domain_statistics(
        struct_size: 0, device_count: statistics.deviceCount,
        mapping_count: statistics.mappingCount, iova_bytes: statistics.iovaBytes,
        mapped_bytes: statistics.mappedBytes, table_count: statistics.tableCount,
        table_bytes: statistics.tableBytes, queued_count: statistics.queued.count,
        queued_bytes: statistics.queued.bytes, flush_count: statistics.queued.flushes)
    }
  }
}
