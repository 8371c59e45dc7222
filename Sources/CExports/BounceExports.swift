// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/bounce.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_bounce_pool_create)
public func dmacore_bounce_pool_create(
  _ system: OpaquePointer!, _ given: UnsafePointer<dmacore_bounce_pool_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try handOver(out) { () throws(Failure) in
      let system = unsafe try value(system, as: System.self)
      let options = unsafe try options(given, defaults: dmacore_bounce_pool_options())
      return unsafe try BouncePool.place(system: system, options)
    }
  }
}

@implementation @c(dmacore_bounce_pool_destroy)
public func dmacore_bounce_pool_destroy(_ pool: OpaquePointer!) {
  guard let pool = unsafe pool else { return }
  // SAFETY: see `value`.
  let cell = unsafe UnsafeMutablePointer<BouncePool>(pool)
  if unsafe Box.isShared(cell) {
    unsafe cell.pointee.system.pointee.reporter.reportEarlyDestroy(object: "bounce pool")
  }
  unsafe Box.letGo(cell)
}

@implementation @c(dmacore_bounce_pool_statistics)
public func dmacore_bounce_pool_statistics(
  _ pool: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_bounce_pool_statistics>!
) -> CInt {
  status { () throws(Failure) in
    let pool = unsafe try value(pool, as: BouncePool.self)
    unsafe try fill(out) { () throws(Failure) in
      let counts = unsafe pool.pointee.counts
      return dmacore_bounce_pool_statistics(
        struct_size: 0, slot_count: counts.slots, used_count: counts.used,
        used_count_max: counts.usedMax, chunk_count: counts.chunks, full_count: counts.full,
        copied_to_pool: counts.copiedIn, copied_from_pool: counts.copiedOut)
    }
  }
}

@implementation @c(dmacore_bounce_pool_reset_high_water)
public func dmacore_bounce_pool_reset_high_water(_ pool: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    unsafe try value(pool, as: BouncePool.self).pointee.resetUsedMax()
  }
}
