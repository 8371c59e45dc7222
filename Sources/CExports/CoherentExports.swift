// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/coherent.h

import Addressing
import CDMACore
import Domains
import Mapping
import Primitives

@implementation @_cdecl("dmacore_alloc_coherent")
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

@implementation @_cdecl("dmacore_free_coherent")
public func dmacore_free_coherent(
  _ device: OpaquePointer!, _ size: UInt64, _ cpu: UnsafeMutableRawPointer!, _ dma: dmacore_dma_t
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    guard let cpu = unsafe cpu else { throw .invalidArgument }
    try unsafe device.pointee.freeCoherent(cpu, DMAAddress(dma), size: size)
  }
}
