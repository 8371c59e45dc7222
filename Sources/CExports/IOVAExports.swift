// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/iova.h

import Addressing
import CDMACore
import IOVAAllocation
import Primitives

@implementation @_cdecl("dmacore_iova_space_create")
public func dmacore_iova_space_create(
  _ given: UnsafePointer<dmacore_iova_space_options>!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      let options = unsafe try options(given, defaults: dmacore_iova_space_options())
      try require(options.flags == 0 && options.reserved == 0)
      guard let granule = Granule(bytes: options.granule == 0 ? 4096 : options.granule) else {
        throw .invalidArgument
      }
      let bounds = try IOVARange(
        first: IOVA(options.first), last: IOVA(options.last == 0 ? UInt64.max : options.last))
      return try IOVASpace(bounds: bounds, granule: granule)
    }
  }
}

@implementation @_cdecl("dmacore_iova_space_destroy")
public func dmacore_iova_space_destroy(_ space: OpaquePointer!) {
  guard let space = unsafe space else { return }
  // SAFETY: see `value`.
  unsafe Box.destroy(UnsafeMutablePointer<IOVASpace>(space))
}

@implementation @_cdecl("dmacore_iova_space_allocate")
public func dmacore_iova_space_allocate(
  _ space: OpaquePointer!, _ size: UInt64, _ alignment: UInt64, _ limit: dmacore_iova_t,
  _ out: UnsafeMutablePointer<dmacore_iova_t>!
) -> CInt {
  status { () throws(Failure) in
    let space = unsafe try value(space, as: IOVASpace.self)
    let out = unsafe try output(out)
    unsafe out.pointee = try space.pointee.allocate(
      size: size, alignment: alignment, limit: limit
    ).first.rawValue
  }
}

@implementation @_cdecl("dmacore_iova_space_free")
public func dmacore_iova_space_free(
  _ space: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64
) -> CInt {
  status { () throws(Failure) in
    try unsafe value(space, as: IOVASpace.self).pointee.free(first: IOVA(iova), size: size)
  }
}

@implementation @_cdecl("dmacore_iova_space_reserve")
public func dmacore_iova_space_reserve(
  _ space: OpaquePointer!, _ first: dmacore_iova_t, _ last: dmacore_iova_t
) -> CInt {
  status { () throws(Failure) in
    let range = try IOVARange(first: IOVA(first), last: IOVA(last))
    try unsafe value(space, as: IOVASpace.self).pointee.reserve(range)
  }
}

@implementation @_cdecl("dmacore_iova_space_unreserve")
public func dmacore_iova_space_unreserve(
  _ space: OpaquePointer!, _ first: dmacore_iova_t, _ last: dmacore_iova_t
) -> CInt {
  status { () throws(Failure) in
    let range = try IOVARange(first: IOVA(first), last: IOVA(last))
    try unsafe value(space, as: IOVASpace.self).pointee.unreserve(range)
  }
}

@implementation @_cdecl("dmacore_iova_space_statistics")
public func dmacore_iova_space_statistics(
  _ space: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_iova_space_statistics>!
) -> CInt {
  status { () throws(Failure) in
    let space = unsafe try value(space, as: IOVASpace.self)
    unsafe try fill(out) { () throws(Failure) in
      let statistics = unsafe space.pointee.statistics
      return dmacore_iova_space_statistics(
        struct_size: 0, allocated_count: statistics.allocatedCount,
        allocated_bytes: statistics.allocatedBytes, reserved_count: statistics.reservedCount,
        reserved_bytes: statistics.reservedBytes, free_bytes: statistics.freeBytes,
        largest_free_bytes: statistics.largestFreeBytes)
    }
  }
}
