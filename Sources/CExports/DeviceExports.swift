// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/device.h

import Addressing
import CDMACore
import Domains
import Mapping
import Primitives

@implementation @c(dmacore_device_create)
public func dmacore_device_create(
  _ system: OpaquePointer!, _ given: UnsafePointer<dmacore_device_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try handOver(out) { () throws(Failure) in
      let system = unsafe try value(system, as: System.self)
      let options = unsafe try options(given, defaults: dmacore_device_options())
      let known =
        DMACORE_DEVICE_TRACK_DIRECT.rawValue | DMACORE_DEVICE_UNTRUSTED.rawValue
        | DMACORE_DEVICE_SHARES_SLOT.rawValue | DMACORE_DEVICE_NONCOHERENT.rawValue
        | DMACORE_DEVICE_FORCE_BOUNCE.rawValue
      try require(unsafe options.flags & ~known == 0)
      // A PASID has 20 bits (PCI Express 5.0, 6.20).
      try require(unsafe options.pasid_count <= 1 << 20)
      // SAFETY: see `value`.
      let iommu = unsafe options.iommu.map { unsafe UnsafeMutablePointer<IOMMU>($0) }
      // SAFETY: see `value`.
      let group = unsafe options.group.map { unsafe UnsafeMutablePointer<Group>($0) }
      // SAFETY: see `value`.
      let bridge = unsafe options.bridge.map { unsafe UnsafeMutablePointer<Bridge>($0) }
      _ = unsafe try CExports.options(options.mapping_ops, defaults: dmacore_mapping_ops())
      let description = unsafe try DeviceDescription(
        options, iommu: iommu, group: group, bridge: bridge, system: system)
      return unsafe try Device.place(system: system, description)
    }
  }
}

@implementation @c(dmacore_device_destroy)
public func dmacore_device_destroy(_ device: OpaquePointer!) {
  guard let device = unsafe device else { return }
  // SAFETY: see `value`.
  let cell = unsafe UnsafeMutablePointer<Device>(device)
  if unsafe Box.isShared(cell) { unsafe cell.pointee.reportEarlyDestroy() }
  unsafe Device.close(cell)
  unsafe Box.letGo(cell)
}

@implementation @c(dmacore_device_set_mask)
public func dmacore_device_set_mask(
  _ device: OpaquePointer!, _ mask: dmacore_dma_t, _ out: UnsafeMutablePointer<dmacore_beyond>!
) -> CInt {
  unsafe change(device, [.streaming, .coherent], mask, out)
}

@implementation @c(dmacore_device_set_streaming_mask)
public func dmacore_device_set_streaming_mask(
  _ device: OpaquePointer!, _ mask: dmacore_dma_t, _ out: UnsafeMutablePointer<dmacore_beyond>!
) -> CInt {
  unsafe change(device, .streaming, mask, out)
}

@implementation @c(dmacore_device_set_coherent_mask)
public func dmacore_device_set_coherent_mask(
  _ device: OpaquePointer!, _ mask: dmacore_dma_t, _ out: UnsafeMutablePointer<dmacore_beyond>!
) -> CInt {
  unsafe change(device, .coherent, mask, out)
}

@implementation @c(dmacore_device_set_bus_limit)
public func dmacore_device_set_bus_limit(
  _ device: OpaquePointer!, _ limit: dmacore_dma_t, _ out: UnsafeMutablePointer<dmacore_beyond>!
) -> CInt {
  unsafe change(device, .bus, limit, out)
}

/// Changes what a device reaches, and says what is mapped above that.
@inline(never)
private func change(
  _ device: OpaquePointer?, _ reach: Device.Reach, _ highest: UInt64,
  _ out: UnsafeMutablePointer<dmacore_beyond>?
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    guard let out = unsafe out else {
      return try unsafe device.pointee.setMask(reach, to: highest)
    }
    unsafe try fill(out) { () throws(Failure) in
      try unsafe device.pointee.setMask(reach, to: highest)
      let beyond = unsafe device.pointee.beyond(reach, highest)
      return dmacore_beyond(
        struct_size: 0, count: beyond.count, first: beyond.first, last: beyond.last,
        is_complete: unsafe device.pointee.mayHaveUntracked ? 0 : 1, reserved: 0)
    }
  }
}

@implementation @c(dmacore_device_set_ranges)
public func dmacore_device_set_ranges(
  _ device: OpaquePointer!, _ ranges: UnsafePointer<dmacore_dma_range>!, _ count: Int
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.setRanges(ranges, count: count)
  }
}

@implementation @c(dmacore_device_list_mappings)
public func dmacore_device_list_mappings(
  _ device: OpaquePointer!, _ first: dmacore_dma_t, _ last: dmacore_dma_t,
  _ out: UnsafeMutablePointer<dmacore_mapping_info>!, _ capacity: Int,
  _ outCount: UnsafeMutablePointer<Int>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let outCount = unsafe try output(outCount)
    try require(unsafe last >= first && (out != nil || capacity == 0))
    var count = 0
    unsafe device.pointee.mappings.visit(first, last) { (first, last, record) in
      if UInt(bitPattern: count) < UInt(bitPattern: capacity) {
        unsafe out[count] = dmacore_mapping_info(
          first: first, last: last, kind: record.kind == .coherent ? 1 : 0,
          path: record.path.rawValue, direction: record.direction.rawValue,
          attributes: record.attributes.subtracting(.marks).rawValue)
      }
      count &+= 1
    }
    unsafe outCount.pointee = count
  }
}

@implementation @c(dmacore_device_explain)
public func dmacore_device_explain(
  _ device: OpaquePointer!, _ phys: dmacore_phys_t, _ size: UInt64, _ kind: UInt32,
  _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_explanation>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let memory = try PhysicalRange(first: PhysicalAddress(phys), size: size)
    let attributes = try MappingAttributes(checking: attributes)
    try require(kind <= DMACORE_COHERENT.rawValue)
    unsafe try fill(out) { () throws(Failure) in
      let found = unsafe device.pointee.explain(
        memory, kind == DMACORE_COHERENT.rawValue ? .coherent : .streaming, attributes)
      return dmacore_explanation(
        struct_size: 0, path: found.path.rawValue, reasons: found.reasons,
        error: found.failure?.code ?? 0, reserved: 0, limit: found.limit)
    }
  }
}

@implementation @c(dmacore_explanation_describe)
public func dmacore_explanation_describe(
  _ explanation: UnsafePointer<dmacore_explanation>!, _ out: UnsafeMutablePointer<CChar>!,
  _ size: Int
) -> CInt {
  status { () throws(Failure) in
    let out = unsafe try output(out)
    guard let explanation = unsafe explanation, size != 0 else { throw .invalidArgument }
    let given = unsafe try options(explanation, defaults: dmacore_explanation())
    guard let path = MappingPath(rawValue: given.path) else { throw .invalidArgument }
    var text = TextBuffer()
    path.describe(given.reasons, given.error, &text)
    unsafe text.copy(to: out, size: UInt(bitPattern: size))
  }
}

@implementation @c(dmacore_device_mapping_limits)
public func dmacore_device_mapping_limits(
  _ device: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_mapping_limits>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try fill(out) { () throws(Failure) in
      let limits = unsafe device.pointee.mappingLimits
      return dmacore_mapping_limits(
        struct_size: 0, max_size: limits.maxSize, optimal_size: limits.optimalSize,
        merge_boundary_mask: limits.mergeBoundaryMask, required_mask: limits.requiredMask,
        is_addressing_limited: limits.isAddressingLimited ? 1 : 0, reserved: 0)
    }
  }
}

@implementation @c(dmacore_device_set_limits)
public func dmacore_device_set_limits(
  _ device: OpaquePointer!, _ given: UnsafePointer<dmacore_device_limits>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    guard let given = unsafe given else { throw .invalidArgument }
    unsafe try device.pointee.setLimits(
      try options(given, defaults: dmacore_device_limits()))
  }
}

@implementation @c(dmacore_device_statistics)
public func dmacore_device_statistics(
  _ device: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_device_statistics>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try fill(out) { () throws(Failure) in
      let statistics = unsafe device.pointee.statistics
      return dmacore_device_statistics(
        struct_size: 0, mapping_count: statistics.mappingCount,
        mapping_bytes: statistics.mappingBytes, map_total: statistics.mapTotal,
        fault_total: statistics.faultTotal, fault_lost: statistics.faultLost)
    }
  }
}
