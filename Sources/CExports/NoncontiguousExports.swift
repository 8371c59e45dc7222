// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/noncontiguous.h

import Addressing
import CDMACore
import Domains
import Mapping
import Primitives

@implementation @c(dmacore_alloc_noncontiguous)
public func dmacore_alloc_noncontiguous(
  _ device: OpaquePointer!, _ size: UInt64, _ direction: UInt32, _ attributes: UInt32,
  _ outDMA: UnsafeMutablePointer<dmacore_dma_t>!,
  _ outSegments: UnsafeMutablePointer<UnsafePointer<dmacore_memory_segment>?>!,
  _ outCount: UnsafeMutablePointer<Int>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let direction = try Direction(checking: direction)
    let attributes = try MappingAttributes(
      checking: attributes, among: MappingAttributes.all.subtracting(.mmio))
    let outDMA = unsafe try output(outDMA)
    let outSegments = unsafe try output(outSegments)
    let outCount = unsafe try output(outCount)
    let (allocation, address) = unsafe try device.pointee.allocateNoncontiguous(
      size: size, direction, attributes)
    unsafe outDMA.pointee = address.rawValue
    // SAFETY: they live as long as the allocation, and C reads them alone.
    unsafe outSegments.pointee = UnsafePointer(allocation.pointee.segments)
    unsafe outCount.pointee = allocation.pointee.count
  }
}

@implementation @c(dmacore_free_noncontiguous)
public func dmacore_free_noncontiguous(
  _ device: OpaquePointer!, _ size: UInt64, _ dma: dmacore_dma_t
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    try unsafe device.pointee.freeNoncontiguous(DMAAddress(dma), size: size)
  }
}
