// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/device.h

import CDMACore
import Domains
import Primitives

@implementation @_cdecl("dmacore_device_create")
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
      try require(unsafe options.flags & ~known == 0)
      // A PASID has 20 bits (PCI Express 5.0, 6.20).
      try require(unsafe options.pasid_count <= 1 << 20)
      // SAFETY: see `value`.
      let iommu = unsafe options.iommu.map { unsafe UnsafeMutablePointer<IOMMU>($0) }
      // SAFETY: see `value`.
      let group = unsafe options.group.map { unsafe UnsafeMutablePointer<Group>($0) }
      // SAFETY: see `value`.
      let bridge = unsafe options.bridge.map { unsafe UnsafeMutablePointer<Bridge>($0) }
      let description = unsafe try DeviceDescription(
        options, iommu: iommu, group: group, bridge: bridge, system: system)
      return unsafe try Device.place(system: system, description)
    }
  }
}

@implementation @_cdecl("dmacore_device_destroy")
public func dmacore_device_destroy(_ device: OpaquePointer!) {
  guard let device = unsafe device else { return }
  // SAFETY: see `value`.
  let cell = unsafe UnsafeMutablePointer<Device>(device)
  if unsafe Box.isShared(cell) { unsafe cell.pointee.reportEarlyDestroy() }
  unsafe Device.close(cell)
  unsafe Box.letGo(cell)
}

@implementation @_cdecl("dmacore_device_set_streaming_mask")
public func dmacore_device_set_streaming_mask(
  _ device: OpaquePointer!, _ mask: dmacore_dma_t, _ out: UnsafeMutablePointer<UInt64>!
) -> CInt {
  unsafe setMask(device, mask, for: .streaming, out)
}

@implementation @_cdecl("dmacore_device_set_coherent_mask")
public func dmacore_device_set_coherent_mask(
  _ device: OpaquePointer!, _ mask: dmacore_dma_t, _ out: UnsafeMutablePointer<UInt64>!
) -> CInt {
  unsafe setMask(device, mask, for: .coherent, out)
}

private func setMask(
  _ device: OpaquePointer?, _ mask: UInt64, for kind: MappingRecord.Kind,
  _ out: UnsafeMutablePointer<UInt64>?
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe device.pointee.setMask(mask, for: kind)
    if let out = unsafe out {
      unsafe out.pointee = device.pointee.countMappings(kind, above: mask)
    }
  }
}

@implementation @_cdecl("dmacore_device_set_limits")
public func dmacore_device_set_limits(
  _ device: OpaquePointer!, _ given: UnsafePointer<dmacore_device_limits>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    guard let given = unsafe given else { throw .invalidArgument }
    unsafe try device.pointee.limits.set(
      try options(given, defaults: dmacore_device_limits()))
  }
}

@implementation @_cdecl("dmacore_device_statistics")
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
