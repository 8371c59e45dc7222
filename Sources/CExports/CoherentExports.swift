// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/coherent.h

import Addressing
import CDMACore
import Domains
import Mapping
import Primitives

@implementation @c(dmacore_alloc_coherent)
public func dmacore_alloc_coherent(
  _ device: OpaquePointer!, _ size: UInt64,
  _ outCPU: UnsafeMutablePointer<UnsafeMutableRawPointer?>!,
  _ outDMA: UnsafeMutablePointer<dmacore_dma_t>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let outCPU = unsafe try output(outCPU)
    let outDMA = unsafe try output(outDMA)
    let (cpu, address) = unsafe try device.pointee.allocateCoherent(size: size)
    unsafe outCPU.pointee = cpu
    unsafe outDMA.pointee = address.rawValue
  }
}

@implementation @c(dmacore_free_coherent)
public func dmacore_free_coherent(
  _ device: OpaquePointer!, _ size: UInt64, _ cpu: UnsafeMutableRawPointer!, _ dma: dmacore_dma_t
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    guard let cpu = unsafe cpu else { throw .invalidArgument }
    try unsafe device.pointee.freeCoherent(cpu, DMAAddress(dma), size: size)
  }
}

@implementation @c(dmacore_declare_coherent_memory)
public func dmacore_declare_coherent_memory(
  _ device: OpaquePointer!, _ phys: dmacore_phys_t, _ size: UInt64
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    try unsafe device.pointee.declareMemory(
      PhysicalRange(first: PhysicalAddress(phys), size: size))
  }
}

@implementation @c(dmacore_release_coherent_memory)
public func dmacore_release_coherent_memory(_ device: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    try unsafe value(device, as: Device.self).pointee.releaseMemory()
  }
}
