// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/coherent_pool.h

import Addressing
import CDMACore
import Domains
import Mapping
import Primitives

@implementation @c(dmacore_coherent_pool_create)
public func dmacore_coherent_pool_create(
  _ device: OpaquePointer!, _ given: UnsafePointer<dmacore_coherent_pool_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      let device = unsafe try value(device, as: Device.self)
      let options = unsafe try options(given, defaults: dmacore_coherent_pool_options())
      try require(options.flags == 0 && options.reserved == 0)
      return unsafe try CoherentPool(
        device: device, size: options.size, alignment: options.alignment,
        boundary: options.boundary)
    }
  }
}

@implementation @c(dmacore_coherent_pool_destroy)
public func dmacore_coherent_pool_destroy(_ pool: OpaquePointer!) {
  guard let pool = unsafe pool else { return }
  // SAFETY: see `value`.
  unsafe Box.destroy(UnsafeMutablePointer<CoherentPool>(pool))
}

@_optimize(speed)
@implementation @c(dmacore_coherent_pool_alloc)
public func dmacore_coherent_pool_alloc(
  _ pool: OpaquePointer!, _ outCPU: UnsafeMutablePointer<UnsafeMutableRawPointer?>!,
  _ outDMA: UnsafeMutablePointer<dmacore_dma_t>!
) -> CInt {
  status { () throws(Failure) in
    let pool = unsafe try value(pool, as: CoherentPool.self)
    let outCPU = unsafe try output(outCPU)
    let outDMA = unsafe try output(outDMA)
    let (cpu, address) = unsafe try pool.pointee.allocate()
    unsafe outCPU.pointee = cpu
    unsafe outDMA.pointee = address.rawValue
  }
}

@_optimize(speed)
@implementation @c(dmacore_coherent_pool_free)
public func dmacore_coherent_pool_free(
  _ pool: OpaquePointer!, _ cpu: UnsafeMutableRawPointer!, _ dma: dmacore_dma_t
) -> CInt {
  status { () throws(Failure) in
    let pool = unsafe try value(pool, as: CoherentPool.self)
    guard let cpu = unsafe cpu else { throw .invalidArgument }
    try unsafe pool.pointee.free(cpu, DMAAddress(dma))
  }
}
