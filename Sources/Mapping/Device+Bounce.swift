// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import Domains
import MemoryMap
import PageTables
import Primitives

// Theory of operation: mappings that are copied.
//
// 1. Concepts
// What a device does not reach directly is copied whole, to slots of a bounce pool in a row, whose bus
// addresses the device gets. Through an IOMMU, the pages at the ends of a buffer are copied that the device
// may not have whole, each to a page of its own in which all else is zero; what lies between them is mapped
// as it is, and all of it has addresses in a row.
//
// 2. Implementation
// 2.1 A mapping is copied to the pool whatever its direction, so that what the device leaves alone comes
// back as it was. It is copied back when no access through it is under way any more, and before the slots
// are given back.
// 2.2 A record leads to the runs of its mapping. An unmap has them to itself. A sync may meet an unmap of
// the same mapping, by mistake: it looks each run up under the table's lock, copies with the lock released,
// and holds the pool meanwhile.
// 2.3 The caches are maintained for the copy, not for the original, which only processors touch.
//
// 3. Locking
// None beside those of the mapping table and the pool. Nothing is copied under a lock.
//
// 4. What this does not do
// It does not keep slots for a zero-copy mapping that still holds a mapping which is unmapped. That is
// reported, as for all memory.

extension Device {
  /// Copies memory to where the device reaches it, and gives it addresses there.
  ///
  /// - Throws: `outOfRange` when no pool is in reach, `noSpace`, `noMemory`, and what the callback of a
  ///   memory region fails with.
  @inline(never)
  @_optimize(speed)
  func placeBounced(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes,
    in domain: UnsafeMutablePointer<Domain>?, _ limit: AddressLimit, _ path: MappingPath
  ) throws(Failure) -> (DMARange, UnsafeMutablePointer<BounceRun>?) {
    if path == .iommuBounced {
      return unsafe try placeEnds(memory, direction, attributes, in: domain, limit)
    }
    // What is as large as a page may be described to the device by pages.
    let mask = limits.minAlignMask | (memory.extent >= Self.granule.mask ? Self.granule.mask : 0)
    let boundary = limits.segmentBoundaryMask
    let request = try BounceRequest(
      size: memory.extent &+ 1, low: memory.first.rawValue, mask: mask,
      boundary: memory.extent <= boundary ? boundary : UInt64.max)
    let run = unsafe try bounce(request, memory, ranges, under: limit.highest)
    do throws(Failure) {
      unsafe try handOver(run.pointee, 0, memory.extent, direction, forCPU: false, isCounted: true)
      let first = unsafe run.pointee.address
      // The slots have the memory's size.
      return unsafe (
        try DMARange(first: DMAAddress(first), last: DMAAddress(first &+ memory.extent)), run
      )
    } catch {
      unsafe BouncePool.giveBackAll(run)
      throw error
    }
  }

  /// As `placeBounced`, where the domain translates, and only the ends are copied.
  @inline(never)
  private func placeEnds(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes,
    in domain: UnsafeMutablePointer<Domain>?, _ limit: AddressLimit
  ) throws(Failure) -> (DMARange, UnsafeMutablePointer<BounceRun>?) {
    // The policy says that there are.
    guard let domain = unsafe domain, let translation = unsafe domain.pointee.translation else {
      throw .notPermitted
    }
    let pages = memory.rounded(to: Self.granule)
    let access = direction.access.union(attributes.access)
    var runs: UnsafeMutablePointer<BounceRun>? = nil
    do throws(Failure) {
      let range = try unsafe withUnsafeTemporaryAllocation(of: PhysicalRange.self, capacity: 3) {
        (parts) throws(Failure) -> IOVARange in
        let count = unsafe try cut(
          memory, direction, attributes, last: translation.pointee.table.facts.lastOutput,
          into: parts, &runs)
        let parts = unsafe UnsafeBufferPointer(rebasing: parts[..<count])
        let range = try unsafe domain.pointee.takingTables { () throws(Failure) in
          unsafe try translation.pointee.map(
            parts, for: pages, access: access, limit: limit.highest, in: ranges,
            alignMask: limits.minAlignMask)
        }
        // The cell of the call keeps the domain while its listeners are told.
        var first = range.first.rawValue
        for index in 0..<count {
          let part = unsafe parts[index]
          let target = try IOVARange(first: IOVA(first), size: part.extent &+ 1)
          unsafe domain.pointee.notifiers.tell(
            .mapped(target, to: part.first, translation.pointee.table.expressible(access)))
          first = first &+ part.extent &+ 1
        }
        return range
      }
      let first = range.first.rawValue &+ (memory.first.rawValue & Self.granule.mask)
      return unsafe (
        try DMARange(first: DMAAddress(first), last: DMAAddress(first &+ memory.extent)), runs
      )
    } catch {
      unsafe BouncePool.giveBackAll(runs)
      throw error
    }
  }

  /// Cuts memory into the pages at its ends that it does not fill, of which copies stand for them, and what
  /// lies between. Returns how many parts there are.
  private func cut(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes,
    last lastOutput: PhysicalAddress, into parts: UnsafeMutableBufferPointer<PhysicalRange>,
    _ runs: inout UnsafeMutablePointer<BounceRun>?
  ) throws(Failure) -> Int {
    let mask = Self.granule.mask
    var count = 0
    var last: UnsafeMutablePointer<BounceRun>? = nil
    var next = memory.first.rawValue
    while true {
      let pageLast = next | mask
      let part: PhysicalRange
      if next & mask == 0 && pageLast <= memory.last.rawValue {
        // Whole pages, up to the last that is one.
        let end = (memory.last.rawValue &+ 1) & ~mask
        part = try PhysicalRange(
          first: PhysicalAddress(next), last: PhysicalAddress(end &- 1))
        unsafe parts.initializeElement(at: count, to: part)
        if !isCoherent { maintainCaches(of: part, direction, attributes, forCPU: false) }
      } else {
        part = try PhysicalRange(
          first: PhysicalAddress(next),
          last: PhysicalAddress(min(pageLast, memory.last.rawValue)))
        let run = unsafe try copyPage(part, direction, last: lastOutput)
        unsafe run.pointee.offset = next &- memory.first.rawValue
        if let last = unsafe last { unsafe last.pointee.next = run } else { unsafe runs = run }
        unsafe last = run
        let page = try unsafe PhysicalRange(
          first: PhysicalAddress(run.pointee.address), size: Self.granule.bytes)
        unsafe parts.initializeElement(at: count, to: page)
      }
      count = count &+ 1
      guard part.last < memory.last else { return count }
      next = part.last.rawValue &+ 1
    }
  }

  /// A page of zeroes in which a part of a page is copied, where it is there.
  private func copyPage(
    _ part: PhysicalRange, _ direction: Direction, last lastOutput: PhysicalAddress
  ) throws(Failure) -> UnsafeMutablePointer<BounceRun> {
    let size = Self.granule.bytes
    let request = try BounceRequest(size: size, mask: size &- 1)
    let run = unsafe try bounce(request, part, DMARanges(), under: lastOutput.rawValue)
    unsafe RawMemory.clear(run.pointee.host, size: Int(size))
    unsafe run.pointee.host += Int(part.first.rawValue & (size &- 1))
    do throws(Failure) {
      unsafe try handOver(run.pointee, 0, part.extent, direction, forCPU: false, isCounted: true)
    } catch {
      unsafe BouncePool.giveBackAll(run)
      throw error
    }
    return unsafe run
  }

  /// Ends a mapping whose record has been claimed, strictly, and copies back what the device wrote.
  /// Returns whether a zero-copy mapping still holds it.
  @inline(never)
  func undoBounced(_ node: MappingTable.Link) -> Bool {
    let record = unsafe node.pointee.payload
    let isHeld = unsafe end(node)
    if record.direction.access.contains(.write) && !record.attributes.contains(.skipCPUSync) {
      do throws(Failure) {
        try unsafe handOverAll(
          0, node.pointee.last &- node.pointee.first, record.direction, forCPU: true,
          isHeld: false
        ) { offset in
          unsafe BouncePool.part(of: record.bounce, from: offset)
        }
      } catch {
        reportLoss(error)
      }
    }
    unsafe release(node)
    return isHeld
  }

  /// Hands a part of a mapping that is copied from the device to the CPU or back.
  ///
  /// - Throws: what the callback of a memory region fails with.
  @inline(never)
  func syncBounced(
    _ range: DMARange, _ direction: Direction, forCPU: Bool
  ) throws(Failure) {
    guard !forCPU || direction.access.contains(.write) else { return }
    // Nobody should unmap it meanwhile. If somebody does, what is left is left alone.
    guard let mapping = mappings.holdBounce(of: range, from: 0) else { return }
    unsafe Box.letGo(BouncePool.pool(of: mapping.run))
    let first = range.first.rawValue &- mapping.first
    try handOverAll(
      first, first &+ range.extent, direction, forCPU: forCPU, isHeld: true
    ) { offset in
      mappings.holdBounce(of: range, from: offset)?.run
    }
  }

  /// Hands over what lies between two offsets of a mapping, of which `find` has the first part that is
  /// copied and does not end before an offset.
  @inline(never)
  private func handOverAll(
    _ first: UInt64, _ last: UInt64, _ direction: Direction, forCPU: Bool, isHeld: Bool,
    _ find: (UInt64) -> BounceRun?
  ) throws(Failure) {
    var next = first
    var base: UInt64? = nil
    while next <= last || base == nil {
      // Any part tells where the original is.
      guard let run = find(next) ?? (base == nil ? find(0) : nil) else { break }
      defer { if isHeld { unsafe Box.letGo(BouncePool.pool(of: run)) } }
      base = run.original.first.rawValue &- run.offset
      let runLast = run.offset &+ run.original.extent
      guard runLast >= next else { break }
      let start = max(next, run.offset)
      if start > next { maintain(base!, next, min(last, start &- 1), direction, forCPU: forCPU) }
      next = start
      guard start <= last else { return }
      let end = min(last, runLast)
      try handOver(
        run, start &- run.offset, end &- run.offset, direction, forCPU: forCPU, isCounted: false)
      next = end &+ 1
    }
    if let base, next <= last { maintain(base, next, last, direction, forCPU: forCPU) }
  }

  /// Copies a part of what is copied, and has caches maintained for the copy.
  @inline(never)
  @_optimize(speed)
  private func handOver(
    _ run: BounceRun, _ first: UInt64, _ last: UInt64, _ direction: Direction, forCPU: Bool,
    isCounted: Bool
  ) throws(Failure) {
    let host = unsafe run.host + Int(truncatingIfNeeded: first)
    let original = run.original.first.rawValue
    let part = try PhysicalRange(
      first: PhysicalAddress(original &+ first), last: PhysicalAddress(original &+ last))
    if forCPU {
      maintain(BouncePool.physical(of: run), first, last, direction, forCPU: true)
      try unsafe system.pointee.copy(part, .write(from: host))
    } else {
      try unsafe system.pointee.copy(part, .read(into: host))
      maintain(BouncePool.physical(of: run), first, last, direction, forCPU: false)
    }
    if !isCounted { BouncePool.count(copied: part.extent &+ 1, out: forCPU, of: run) }
  }

  /// Has caches maintained for memory between two offsets, if the device does not see them.
  @inline(__always)
  private func maintain(
    _ base: UInt64, _ first: UInt64, _ last: UInt64, _ direction: Direction, forCPU: Bool
  ) {
    guard !isCoherent,
      let range = try? PhysicalRange(
        first: PhysicalAddress(base &+ first), last: PhysicalAddress(base &+ last))
    else { return }
    maintainCaches(of: range, direction, forCPU: forCPU)
  }
}
