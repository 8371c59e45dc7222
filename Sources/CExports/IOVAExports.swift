// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/iova.h

import Addressing
import CDMACore
import IOVAAllocation
import Primitives

@implementation @c(dmacore_iova_space_create)
public func dmacore_iova_space_create(
  _ given: UnsafePointer<dmacore_iova_space_options>!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      let options = unsafe try options(given, defaults: dmacore_iova_space_options())
      let isChecked = unsafe options.flags == DMACORE_IOVA_SPACE_CHECKED.rawValue
      unsafe try require((options.flags == 0 || isChecked) && options.reserved == 0)
      guard let granule = unsafe Granule(bytes: options.granule == 0 ? 4096 : options.granule)
      else {
        throw .invalidArgument
      }
      let bounds = unsafe try IOVARange(
        first: IOVA(options.first), last: IOVA(options.last == 0 ? UInt64.max : options.last))
      return try IOVASpace(
        bounds: bounds, granule: granule, isChecked: isChecked,
        reporter: unsafe Reporter(callback: options.report, opaque: options.report_opaque))
    }
  }
}

@implementation @c(dmacore_iova_space_destroy)
public func dmacore_iova_space_destroy(_ space: OpaquePointer!) {
  guard let space = unsafe space else { return }
  // SAFETY: see `value`.
  unsafe Box.destroy(UnsafeMutablePointer<IOVASpace>(space))
}

@_optimize(speed)
@implementation @c(dmacore_iova_space_allocate)
public func dmacore_iova_space_allocate(
  _ space: OpaquePointer!, _ size: UInt64, _ alignment: UInt64, _ limit: dmacore_iova_t,
  _ out: UnsafeMutablePointer<dmacore_iova_t>!
) -> CInt {
  guard let space = unsafe space, let out = unsafe out else { return status(.invalidArgument) }
  // SAFETY: see `value`.
  return unsafe IOVASpace.allocate(
    UnsafePointer<IOVASpace>(space), size, alignment, limit, out)
}

@implementation @c(dmacore_iova_space_allocate_with)
public func dmacore_iova_space_allocate_with(
  _ space: OpaquePointer!, _ size: UInt64,
  _ constraints: UnsafePointer<dmacore_iova_constraints>!,
  _ out: UnsafeMutablePointer<dmacore_iova_t>!
) -> CInt {
  status { () throws(Failure) in
    let space = unsafe try value(space, as: IOVASpace.self)
    let out = unsafe try output(out)
    let given = unsafe try options(
      constraints,
      defaults: dmacore_iova_constraints(
        struct_size: 0, placement: 0, reserved: 0,
        alignment: 0, skew: 0, boundary: 0, first: 0, last: UInt64.max))
    try require(given.reserved == 0)
    let constraints = IOVAConstraints(
      placement: try IOVAConstraints.Placement(checking: given.placement),
      alignment: given.alignment, skew: given.skew, boundary: given.boundary, first: given.first,
      last: given.last)
    unsafe out.pointee = try space.pointee.allocate(size: size, constraints).rawValue
  }
}

@_optimize(speed)
@implementation @c(dmacore_iova_space_free)
public func dmacore_iova_space_free(
  _ space: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64
) -> CInt {
  guard let space = unsafe space else { return status(.invalidArgument) }
  // SAFETY: see `value`.
  return unsafe IOVASpace.free(UnsafePointer<IOVASpace>(space), iova, size)
}

@implementation @c(dmacore_iova_space_reserve)
public func dmacore_iova_space_reserve(
  _ space: OpaquePointer!, _ first: dmacore_iova_t, _ last: dmacore_iova_t
) -> CInt {
  status { () throws(Failure) in
    let range = try IOVARange(first: IOVA(first), last: IOVA(last))
    try unsafe value(space, as: IOVASpace.self).pointee.reserve(range)
  }
}

@implementation @c(dmacore_iova_space_unreserve)
public func dmacore_iova_space_unreserve(
  _ space: OpaquePointer!, _ first: dmacore_iova_t, _ last: dmacore_iova_t
) -> CInt {
  status { () throws(Failure) in
    let range = try IOVARange(first: IOVA(first), last: IOVA(last))
    try unsafe value(space, as: IOVASpace.self).pointee.unreserve(range)
  }
}

@implementation @c(dmacore_iova_space_drain)
public func dmacore_iova_space_drain(_ space: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    try unsafe value(space, as: IOVASpace.self).pointee.drain()
  }
}

@implementation @c(dmacore_iova_space_largest_free)
public func dmacore_iova_space_largest_free(
  _ space: OpaquePointer!, _ first: dmacore_iova_t, _ last: dmacore_iova_t,
  _ out: UnsafeMutablePointer<UInt64>!
) -> CInt {
  status { () throws(Failure) in
    let space = unsafe try value(space, as: IOVASpace.self)
    let out = unsafe try output(out)
    let range = try IOVARange(first: IOVA(first), last: IOVA(last))
    unsafe out.pointee = space.pointee.largestFree(in: range)
  }
}

@implementation @c(dmacore_iova_space_statistics)
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
        largest_free_bytes: statistics.largestFreeBytes, cached_count: statistics.cachedCount,
        cached_bytes: statistics.cachedBytes, taken_count_max: statistics.takenCountMax,
        taken_bytes_max: statistics.takenBytesMax, cache_allocations: statistics.cacheAllocations,
        cache_frees: statistics.cacheFrees, store_allocations: statistics.storeAllocations,
        store_frees: statistics.storeFrees, refused_frees: statistics.refusedFrees,
        drains: statistics.drains, searched_gaps: statistics.searchedGaps,
        metadata_bytes: statistics.metadataBytes)
    }
  }
}

@implementation @c(dmacore_iova_space_visit)
public func dmacore_iova_space_visit(
  _ space: OpaquePointer!, _ visit: dmacore_iova_visit_fn!, _ opaque: UnsafeMutableRawPointer!
) -> CInt {
  status { () throws(Failure) in
    let space = unsafe try value(space, as: IOVASpace.self)
    guard let visit = unsafe visit else { throw .invalidArgument }
    unsafe space.pointee.visit { range, use in
      unsafe visit(range.first.rawValue, range.last.rawValue, use.rawValue, opaque)
    }
  }
}

@implementation @c(dmacore_iova_space_dump)
public func dmacore_iova_space_dump(
  _ space: OpaquePointer!, _ dump: dmacore_iova_dump_fn!, _ opaque: UnsafeMutableRawPointer!
) -> CInt {
  status { () throws(Failure) in
    let space = unsafe try value(space, as: IOVASpace.self)
    guard let dump = unsafe dump else { throw .invalidArgument }
    unsafe space.pointee.dump(dump, opaque: opaque)
  }
}
