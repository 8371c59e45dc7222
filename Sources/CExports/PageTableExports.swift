// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/pagetable.h

import Addressing
import CDMACore
import PageTables
import Primitives

@implementation @c(dmacore_pagetable_create)
public func dmacore_pagetable_create(
  _ given: UnsafePointer<dmacore_pagetable_options>!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      try AnyPageTable(unsafe pageTableConfiguration(given))
    }
  }
}

/// What C's options say; the defaults for null. IOMMUs take them too.
@inline(never)
func pageTableConfiguration(
  _ given: UnsafePointer<dmacore_pagetable_options>?
) throws(Failure) -> PageTableConfiguration {
  var defaults = unsafe dmacore_pagetable_options()
  unsafe defaults.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE.rawValue
  let options = unsafe try options(given, defaults: defaults)
  guard let kind = PageTableKind(rawValue: unsafe options.format) else { throw .invalidArgument }
  let allocator = unsafe try tableAllocator(options.allocator)
  return unsafe try PageTableConfiguration(
    kind: kind, granule: UInt64(options.granule),
    options: PageTableOptions(
      levels: Int(options.levels), inputBits: Int(options.input_bits),
      outputBits: Int(options.output_bits),
      features: PageTableFeatures(rawValue: options.features)),
    allocator: allocator)
}

private func tableAllocator(
  _ given: UnsafePointer<dmacore_table_allocator>?
) throws(Failure) -> dmacore_table_allocator? {
  guard let given = unsafe given else { return nil }
  let allocator = unsafe try options(given, defaults: dmacore_table_allocator())
  try require(unsafe allocator.allocate != nil && allocator.free != nil)
  return unsafe allocator
}

@implementation @c(dmacore_pagetable_destroy)
public func dmacore_pagetable_destroy(_ pagetable: OpaquePointer!) {
  guard let pagetable = unsafe pagetable else { return }
  // SAFETY: see `value`.
  unsafe Box.destroy(UnsafeMutablePointer<AnyPageTable>(pagetable))
}

@implementation @c(dmacore_pagetable_root)
public func dmacore_pagetable_root(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_phys_t>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try output(out).pointee = table.pointee.facts.root.rawValue
  }
}

// Mapping, unmapping and translating go from what is mostly done to what is done seldom, each a function
// of its own that ends with the next, so that the one pays for nothing of the other.

@inline(__always)
private func plain(_ pagetable: OpaquePointer?) -> PlainTable? {
  // Expected, so that what follows is a branch of its own, not the half of one.
  guard _fastPath(unsafe pagetable != nil), let pagetable = unsafe pagetable else { return nil }
  // SAFETY: see `value`.
  return unsafe UnsafePointer<AnyPageTable>(pagetable).pointee.plain
}

@_optimize(speed)
@implementation @c(dmacore_pagetable_map)
public func dmacore_pagetable_map(
  _ pagetable: OpaquePointer!, _ iova: dmacore_iova_t, _ phys: dmacore_phys_t, _ size: UInt64,
  _ access: UInt32
) -> CInt {
  if let plain = unsafe plain(pagetable), plain.mapLeaf(iova, size, to: phys, access) { return 0 }
  return unsafe mapRow(pagetable, iova, phys, size, access)
}

@_optimize(speed)
@inline(never)
private func mapRow(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ phys: UInt64, _ size: UInt64, _ access: UInt32
) -> CInt {
  if let plain = unsafe plain(pagetable), plain.mapRow(iova, size, to: phys, access) { return 0 }
  return unsafe mapTwoRows(pagetable, iova, phys, size, access)
}

@inline(never)
private func mapTwoRows(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ phys: UInt64, _ size: UInt64, _ access: UInt32
) -> CInt {
  if let plain = unsafe plain(pagetable), plain.mapTwoRows(iova, size, to: phys, access) {
    return 0
  }
  return unsafe mapSlowly(pagetable, iova, phys, size, access)
}

@inline(never)
private func mapSlowly(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ phys: UInt64, _ size: UInt64, _ access: UInt32
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    let range = try IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange)
    let access = try Access(checking: access, among: .all)
    try unsafe table.pointee.map(range, to: PhysicalAddress(phys), access: access)
  }
}

@_optimize(speed)
@implementation @c(dmacore_pagetable_unmap)
public func dmacore_pagetable_unmap(
  _ pagetable: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64, _ flags: UInt32,
  _ out: UnsafeMutablePointer<UInt64>!
) -> CInt {
  // The flags are about what is not plain.
  if let plain = unsafe plain(pagetable), flags & ~unmapFlags == 0, plain.unmapLeaf(iova, size) {
    if let out = unsafe out { unsafe out.pointee = size }
    return 0
  }
  return unsafe unmapRow(pagetable, iova, size, flags, out)
}

private var unmapFlags: UInt32 {
  DMACORE_UNMAP_CROSS_HOLES.rawValue | DMACORE_UNMAP_SPLIT.rawValue
}

/// Whether a flag is set.
///
/// - Throws: `invalidArgument` when an unknown one is.
func unmapFlag(_ flag: dmacore_unmap_flags, in flags: UInt32) throws(Failure) -> Bool {
  try require(flags & ~unmapFlags == 0)
  return flags & flag.rawValue != 0
}

@_optimize(speed)
@inline(never)
private func unmapRow(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ size: UInt64, _ flags: UInt32,
  _ out: UnsafeMutablePointer<UInt64>?
) -> CInt {
  if let plain = unsafe plain(pagetable), flags & ~unmapFlags == 0, plain.unmapRow(iova, size) {
    if let out = unsafe out { unsafe out.pointee = size }
    return 0
  }
  return unsafe unmapTwoRows(pagetable, iova, size, flags, out)
}

@inline(never)
private func unmapTwoRows(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ size: UInt64, _ flags: UInt32,
  _ out: UnsafeMutablePointer<UInt64>?
) -> CInt {
  if let plain = unsafe plain(pagetable), flags & ~unmapFlags == 0, plain.unmapTwoRows(iova, size) {
    if let out = unsafe out { unsafe out.pointee = size }
    return 0
  }
  return unsafe unmapSlowly(pagetable, iova, size, flags, out)
}

@inline(never)
private func unmapSlowly(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ size: UInt64, _ flags: UInt32,
  _ out: UnsafeMutablePointer<UInt64>?
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    let range = try IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange)
    let unmapped = try unsafe table.pointee.unmap(
      range, crossingHoles: unmapFlag(DMACORE_UNMAP_CROSS_HOLES, in: flags),
      splitting: unmapFlag(DMACORE_UNMAP_SPLIT, in: flags))
    if let out = unsafe out { unsafe out.pointee = unmapped }
  }
}

@_optimize(speed)
@implementation @c(dmacore_pagetable_translate)
public func dmacore_pagetable_translate(
  _ pagetable: OpaquePointer!, _ iova: dmacore_iova_t, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>!
) -> CInt {
  guard let plain = unsafe plain(pagetable), plain.isCommon else {
    return unsafe translatePage(pagetable, iova, access, out)
  }
  guard _fastPath(unsafe out != nil), let out = unsafe out,
    let place = plain.place(iova, level: 0, isCommon: true)
  else { return unsafe translateLarger(pagetable, iova, access, out) }
  // What is not usual is looked at again, which takes less than keeping the word here.
  guard let found = plain.lookUpUsual(iova, access, in: place, isCommon: true) else {
    return unsafe translatePage(pagetable, iova, access, out)
  }
  unsafe out.pointee = translation(found)
  return 0
}

@_optimize(speed)
@inline(never)
private func translatePage(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>?
) -> CInt {
  unsafe translateLeaf(pagetable, iova, access, out, level: 0, else: translateLarger)
}

@_optimize(speed)
@inline(never)
private func translateLarger(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>?
) -> CInt {
  unsafe translateLeaf(pagetable, iova, access, out, level: 1, else: translateSlowly)
}

/// Translates by a leaf of one level, or otherwise if the directory has no table there.
@inline(__always)
private func translateLeaf(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>?, level: Int,
  else other: (
    OpaquePointer?, UInt64, UInt32, UnsafeMutablePointer<dmacore_translation>?
  ) -> CInt
) -> CInt {
  guard let plain = unsafe plain(pagetable), _fastPath(unsafe out != nil), let out = unsafe out,
    let place = plain.place(iova, level: level)
  else { return unsafe other(pagetable, iova, access, out) }
  guard let found = plain.lookUpUsual(iova, access, in: place) else {
    return unsafe translate(pagetable, iova, access, out, place.word, level: level)
  }
  unsafe out.pointee = translation(found)
  return 0
}

/// Translates by a leaf of a level.
@inline(never)
private func translate(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>, _ word: UInt64, level: Int
) -> CInt {
  guard let plain = unsafe plain(pagetable),
    let found = plain.lookUp(iova, access, word, level: level)
  else { return unsafe translateSlowly(pagetable, iova, access, out) }
  unsafe out.pointee = translation(found)
  return 0
}

func translation(_ found: PageTableLookup) -> dmacore_translation {
  dmacore_translation(
    first: found.first, last: found.last, target: found.target, access: found.access.rawValue,
    reserved: 0)
}

@_optimize(speed)
@inline(never)
private func translateSlowly(
  _ pagetable: OpaquePointer?, _ iova: UInt64, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>?
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    let out = unsafe try output(out)
    let access = try Access(checking: access, among: .all)
    let found = unsafe table.pointee.lookUp(IOVA(iova))
    guard found.isMapped else { throw .notFound }
    guard found.access.permits(access) else { throw .accessDenied }
    unsafe out.pointee = translation(found)
  }
}

@implementation @c(dmacore_pagetable_reserve)
public func dmacore_pagetable_reserve(
  _ pagetable: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    try unsafe table.pointee.reserve(
      IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange))
  }
}

@implementation @c(dmacore_pagetable_trim)
public func dmacore_pagetable_trim(
  _ pagetable: OpaquePointer!, _ first: dmacore_iova_t, _ last: dmacore_iova_t
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    try unsafe table.pointee.trim(IOVARange(first: IOVA(first), last: IOVA(last)))
  }
}

@implementation @c(dmacore_pagetable_read_dirty)
public func dmacore_pagetable_read_dirty(
  _ pagetable: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64, _ flags: UInt32,
  _ bitmap: UnsafeMutablePointer<UInt64>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    let bitmap = unsafe try output(bitmap)
    try require(flags & ~DMACORE_DIRTY_CLEAR.rawValue == 0)
    let range = try IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange)
    try unsafe table.pointee.readDirty(range, into: bitmap, clearing: flags != 0)
  }
}

@implementation @c(dmacore_pagetable_track_dirty)
public func dmacore_pagetable_track_dirty(
  _ pagetable: OpaquePointer!, _ iova: dmacore_iova_t, _ size: UInt64, _ isTracked: CBool
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    let range = try IOVARange(first: IOVA(iova), size: size, wrap: .outOfRange)
    try unsafe table.pointee.setDirty(range, !isTracked)
  }
}

@implementation @c(dmacore_pagetable_reclaim)
public func dmacore_pagetable_reclaim(_ pagetable: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    // The caller has waited for walkers.
    unsafe try value(pagetable, as: AnyPageTable.self).pointee.reclaim(after: {})
  }
}

@implementation @c(dmacore_pagetable_statistics)
public func dmacore_pagetable_statistics(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_pagetable_statistics>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try fill(out) { () throws(Failure) in
      let statistics = unsafe table.pointee.statistics
      return dmacore_pagetable_statistics(
        struct_size: 0, table_count: statistics.tableCount, table_bytes: statistics.tableBytes,
        retired_count: statistics.retiredCount, mapped_bytes: statistics.mappedBytes)
    }
  }
}
