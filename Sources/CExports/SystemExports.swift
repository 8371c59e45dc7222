// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/system.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_system_create)
public func dmacore_system_create(
  _ given: UnsafePointer<dmacore_system_options>!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      let options = unsafe try options(given, defaults: dmacore_system_options())
      try require(unsafe options.flags & ~DMACORE_SYSTEM_FLAT.rawValue == 0)
      let defaultType = unsafe try DefaultType(checking: options.default_domain)
      let allocator = unsafe try memoryAllocator(options.memory_allocator)
      return unsafe try System(
        isFlat: options.flags & DMACORE_SYSTEM_FLAT.rawValue != 0,
        reporter: Reporter(callback: options.report, opaque: options.report_opaque),
        allocator: allocator, defaultType: defaultType ?? .strict, findGroup: options.find_group,
        findGroupOpaque: options.find_group_opaque, cache: options.cache,
        cacheOpaque: options.cache_opaque)
    }
  }
}

private func memoryAllocator(
  _ given: UnsafePointer<dmacore_memory_allocator>?
) throws(Failure) -> dmacore_memory_allocator? {
  guard let given = unsafe given else { return nil }
  let allocator = unsafe try options(given, defaults: dmacore_memory_allocator())
  try require(unsafe allocator.allocate != nil && allocator.free != nil)
  return unsafe allocator
}

@implementation @c(dmacore_system_destroy)
public func dmacore_system_destroy(_ system: OpaquePointer!) {
  guard let system = unsafe system else { return }
  // SAFETY: see `value`.
  let cell = unsafe UnsafeMutablePointer<System>(system)
  unsafe cell.pointee.setBouncePool(nil)
  if unsafe Box.isShared(cell) {
    unsafe cell.pointee.reporter.reportEarlyDestroy(object: "system")
  }
  unsafe Box.letGo(cell)
}

@implementation @c(dmacore_system_set_bounce_pool)
public func dmacore_system_set_bounce_pool(_ system: OpaquePointer!, _ pool: OpaquePointer!) -> CInt
{
  status { () throws(Failure) in
    let system = unsafe try value(system, as: System.self)
    // SAFETY: see `value`.
    let pool = unsafe pool.map { unsafe UnsafeMutablePointer<BouncePool>($0) }
    if let pool = unsafe pool { try require(unsafe pool.pointee.system == system) }
    unsafe system.pointee.setBouncePool(pool)
  }
}

@implementation @c(dmacore_system_tick)
public func dmacore_system_tick(_ system: OpaquePointer!, _ now: UInt64) -> CInt {
  status { () throws(Failure) in unsafe try value(system, as: System.self).pointee.tick(now) }
}
