// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/mapping.h

import Addressing
import CDMACore
import Domains
import Mapping
import MemoryMap
import Primitives

// What the direct path does most is done by functions that call none, so that nothing need be kept across a
// call. The rest is left to functions of the same arguments: to those that map and unmap single pages through an
// IOMMU, or by copies that are kept at their slots, as the device may have one or the other; and from these to those
// that do it all.

@inline(__always)
private func atOnce(_ device: OpaquePointer?) -> UnsafePointer<Device>? {
  guard let device = unsafe device else { return nil }
  // SAFETY: see `value`.
  return unsafe UnsafePointer(device)
}

@_optimize(speed)
@implementation @c(dmacore_map_single)
public func dmacore_map_single(
  _ device: OpaquePointer!, _ buffer: UnsafeMutableRawPointer!, _ size: UInt64,
  _ direction: UInt32, _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>!
) -> CInt {
  let known = MappingAttributes.all.subtracting(.mmio)
  if let out = unsafe out, let buffer = unsafe buffer, attributes & ~known.rawValue == 0,
    let flat = unsafe atOnce(device), unsafe flat.pointee.system.pointee.memory.isFlat
  {
    // There the addresses of the process are physical.
    return unsafe map(
      flat, UInt64(UInt(bitPattern: buffer)), size, direction, attributes, out)
  }
  return unsafe mapSingle(device, buffer, size, direction, attributes, out)
}

@_optimize(speed)
@implementation @c(dmacore_map_phys)
public func dmacore_map_phys(
  _ device: OpaquePointer!, _ phys: dmacore_phys_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>!
) -> CInt {
  if let out = unsafe out, attributes & ~MappingAttributes.all.rawValue == 0,
    let device = unsafe atOnce(device)
  {
    return unsafe map(device, phys, size, direction, attributes, out)
  }
  return unsafe mapPhys(device, phys, size, direction, attributes, out)
}

@inline(__always)
private func map(
  _ device: UnsafePointer<Device>, _ phys: dmacore_phys_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>
) -> CInt {
  // Where registers are mapped is noted.
  if let address = unsafe device.pointee.directAddress(phys, size, direction),
    attributes & MappingAttributes.mmio.rawValue == 0
  {
    unsafe out.pointee = address
    return 0
  }
  return unsafe device.pointee.mappings.mayTag
    ? mapPage(device, phys, size, direction, attributes, out)
    : mapCopy(device, phys, size, direction, attributes, out)
}

@_optimize(speed)
@inline(never)
private func mapPage(
  _ device: UnsafePointer<Device>, _ phys: dmacore_phys_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>
) -> CInt {
  guard let tag = unsafe device.pointee.pageTag(phys, size, direction, attributes) else {
    return unsafe mapPhys(OpaquePointer(device), phys, size, direction, attributes, out)
  }
  if let address = unsafe device.pointee.mapPage(phys, tag) {
    unsafe out.pointee = address
    return 0
  }
  return unsafe mapPhys(
    OpaquePointer(device), phys, tag.size, tag.rawDirection, tag.rawAttributes, out)
}

@_optimize(speed)
@inline(never)
private func mapCopy(
  _ device: UnsafePointer<Device>, _ phys: dmacore_phys_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>
) -> CInt {
  if unsafe device.pointee.mapKeptAtOnce(phys, size, direction, attributes, out) { return 0 }
  return unsafe mapPhys(OpaquePointer(device), phys, size, direction, attributes, out)
}

@inline(never)
private func mapSingle(
  _ device: OpaquePointer?, _ buffer: UnsafeMutableRawPointer?, _ size: UInt64,
  _ direction: UInt32, _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>?
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let out = unsafe try output(out)
    let direction = try Direction(checking: direction)
    // Registers have no address in the process that would say which they are.
    let attributes = try MappingAttributes(
      checking: attributes, among: MappingAttributes.all.subtracting(.mmio))
    guard let buffer = unsafe buffer, size > 0 else { throw .invalidArgument }
    // Without a mask it fails alike wherever the buffer is.
    _ = unsafe try device.pointee.limit(for: .streaming)
    let memory = unsafe try device.pointee.system.pointee.physicalRange(of: buffer, size: size)
    unsafe out.pointee = try device.pointee.mapAny(memory, direction, attributes).rawValue
  }
}

@inline(never)
private func mapPhys(
  _ device: OpaquePointer?, _ phys: dmacore_phys_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>?
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let out = unsafe try output(out)
    let direction = try Direction(checking: direction)
    let attributes = try MappingAttributes(checking: attributes)
    let memory = try PhysicalRange(first: PhysicalAddress(phys), size: size)
    unsafe out.pointee = try device.pointee.mapAny(memory, direction, attributes).rawValue
  }
}

@implementation @c(dmacore_map_resource)
public func dmacore_map_resource(
  _ device: OpaquePointer!, _ phys: dmacore_phys_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32, _ out: UnsafeMutablePointer<dmacore_dma_t>!
) -> CInt {
  unsafe dmacore_map_phys(
    device, phys, size, direction, attributes | MappingAttributes.mmio.rawValue, out)
}

@_optimize(speed)
@implementation @c(dmacore_unmap)
public func dmacore_unmap(
  _ device: OpaquePointer!, _ dma: dmacore_dma_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32
) -> CInt {
  guard attributes & ~MappingAttributes.all.rawValue == 0, let known = unsafe atOnce(device) else {
    return unsafe unmap(device, dma, size, direction, attributes)
  }
  if unsafe known.pointee.endsAtOnce(dma, size, direction) { return 0 }
  return unsafe known.pointee.mappings.hasTags
    ? unmapPage(known, dma, size, direction, attributes)
    : unmapCopy(known, dma, size, direction, attributes)
}

@_optimize(speed)
@inline(never)
private func unmapPage(
  _ device: UnsafePointer<Device>, _ dma: dmacore_dma_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32
) -> CInt {
  guard let tag = unsafe device.pointee.pageTag(dma, size, direction, attributes) else {
    return unsafe unmap(OpaquePointer(device), dma, size, direction, attributes)
  }
  return unsafe device.pointee.unmapPage(dma, tag)
    ? 0 : unmap(OpaquePointer(device), dma, tag.size, tag.rawDirection, tag.rawAttributes)
}

@_optimize(speed)
@inline(never)
private func unmapCopy(
  _ device: UnsafePointer<Device>, _ dma: dmacore_dma_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32
) -> CInt {
  if unsafe device.pointee.unmapKeptAtOnce(dma, size, direction, attributes) { return 0 }
  return unsafe unmap(OpaquePointer(device), dma, size, direction, attributes)
}

@inline(never)
private func unmap(
  _ device: OpaquePointer?, _ dma: dmacore_dma_t, _ size: UInt64, _ direction: UInt32,
  _ attributes: UInt32
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let direction = try Direction(checking: direction)
    let attributes = try MappingAttributes(checking: attributes)
    try unsafe device.pointee.unmapAny(
      DMARange(first: DMAAddress(dma), size: size), direction, attributes)
  }
}

@_optimize(speed)
@implementation @c(dmacore_sync_for_cpu)
public func dmacore_sync_for_cpu(
  _ device: OpaquePointer!, _ dma: dmacore_dma_t, _ size: UInt64, _ direction: UInt32
) -> CInt {
  unsafe sync(device, dma, size, direction, forCPU: true)
}

@_optimize(speed)
@implementation @c(dmacore_sync_for_device)
public func dmacore_sync_for_device(
  _ device: OpaquePointer!, _ dma: dmacore_dma_t, _ size: UInt64, _ direction: UInt32
) -> CInt {
  unsafe sync(device, dma, size, direction, forCPU: false)
}

@inline(never)
private func sync(
  _ device: OpaquePointer?, _ dma: dmacore_dma_t, _ size: UInt64, _ direction: UInt32,
  forCPU: Bool
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let direction = try Direction(checking: direction)
    try unsafe device.pointee.sync(
      DMARange(first: DMAAddress(dma), size: size), direction, forCPU: forCPU)
  }
}

@implementation @c(dmacore_need_sync)
public func dmacore_need_sync(_ device: OpaquePointer!, _ dma: dmacore_dma_t) -> Bool {
  guard let device = unsafe try? value(device, as: Device.self) else { return false }
  return unsafe device.pointee.needsSync(DMAAddress(dma))
}

@implementation @c(dmacore_need_unmap)
public func dmacore_need_unmap(_ device: OpaquePointer!) -> Bool {
  guard let device = unsafe try? value(device, as: Device.self) else { return false }
  return unsafe device.pointee.needsUnmap
}
