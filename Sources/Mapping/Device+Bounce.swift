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
// addresses the device gets. On a flat system a copy of a page or less is mostly kept at its slots, and is not of
// what follows (KeptCopy.swift). Through an IOMMU, the pages at the ends of a buffer are copied that the device
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
// 2.3 The caches are maintained for the copy, not for the original, which only processors touch; for all
// of a page that is copied in part, when the device gets it.
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
    let run = unsafe try bounce(slots(for: memory), memory, ranges, under: limit.highest)
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
    var runs: UnsafeMutablePointer<BounceRun>? = nil
    do throws(Failure) {
      var spare: UnsafeMutablePointer<BounceRun>? = nil
      unsafe try copyEnds(memory, direction, 0, in: domain, &runs, &spare)
      let range = try unsafe translation.pointee.allocate(
        pages.extent, for: pages, limit.highest, ranges, limits.minAlignMask)
      let first = range.first.rawValue &+ (memory.first.rawValue & Self.granule.mask)
      var (next, run) = unsafe (range.first.rawValue, runs)
      do throws(Failure) {
        unsafe try fillCut(memory, direction, attributes, in: domain, first, &next, &run)
      } catch {
        unsafe domain.pointee.abandon(range, before: next)
        throw error
      }
      return unsafe (
        try DMARange(first: DMAAddress(first), last: DMAAddress(first &+ memory.extent)), runs
      )
    } catch {
      unsafe BouncePool.giveBackAll(runs)
      throw error
    }
  }

  /// The part of memory from an offset on that is a page which it does not fill, or all whole pages.
  private func piece(
    of memory: PhysicalRange, from offset: UInt64
  ) throws(Failure) -> (memory: PhysicalRange, isWhole: Bool) {
    let mask = Self.granule.mask
    let start = memory.first.rawValue &+ offset
    let isWhole = start & mask == 0 && start | mask <= memory.last.rawValue
    let last =
      isWhole
      ? ((memory.last.rawValue &+ 1) & ~mask) &- 1 : min(start | mask, memory.last.rawValue)
    return (
      try PhysicalRange(first: PhysicalAddress(start), last: PhysicalAddress(last)), isWhole
    )
  }

  /// Copies the pages at the ends of memory that it does not fill.
  ///
  /// - Parameters:
  ///   - first: where its first byte is in the mapping.
  ///   - runs: the parts of the mapping that are copied, to which those of this are added.
  ///   - spare: pages that `sparePage` made, of which those are taken out that are needed.
  @inline(never)
  func copyEnds(
    _ memory: PhysicalRange, _ direction: Direction, _ first: UInt64,
    in domain: UnsafeMutablePointer<Domain>, _ runs: inout UnsafeMutablePointer<BounceRun>?,
    _ spare: inout UnsafeMutablePointer<BounceRun>?
  ) throws(Failure) {
    // The policy says that there is a table.
    let lastOutput =
      unsafe domain.pointee.translation?.pointee.table.facts.lastOutput ?? PhysicalAddress(0)
    var last = unsafe runs
    while let this = unsafe last, let behind = unsafe this.pointee.next { unsafe last = behind }
    var offset: UInt64 = 0
    while true {
      let (part, isWhole) = try piece(of: memory, from: offset)
      if !isWhole {
        let run = unsafe try copyPage(part, direction, last: lastOutput, &spare)
        unsafe run.pointee.offset = first &+ offset
        if let last = unsafe last { unsafe last.pointee.next = run } else { unsafe runs = run }
        unsafe last = run
      }
      guard part.last < memory.last else { return }
      offset = part.last.rawValue &- memory.first.rawValue &+ 1
    }
  }

  /// Fills addresses with memory, and with the copies of the pages at its ends.
  ///
  /// - Parameters:
  ///   - first: where its first byte is to be.
  ///   - next: what lies behind the pages that are filled.
  ///   - run: the copy that comes next.
  @inline(never)
  func fillCut(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes,
    in domain: UnsafeMutablePointer<Domain>, _ first: UInt64, _ next: inout UInt64,
    _ run: inout UnsafeMutablePointer<BounceRun>?
  ) throws(Failure) {
    let access = direction.access.union(attributes.access)
    var offset: UInt64 = 0
    while true {
      let (part, _) = try piece(of: memory, from: offset)
      var pages = part
      if let copy = unsafe run, unsafe copy.pointee.original == part {
        pages = try unsafe PhysicalRange(
          first: PhysicalAddress(copy.pointee.address), size: Self.granule.bytes)
        unsafe run = copy.pointee.next
      } else if !isCoherent {
        maintainCaches(of: part, direction, attributes, forCPU: false)
      }
      let place = (first &+ offset) & ~Self.granule.mask
      try unsafe domain.pointee.fill(place, pages, access)
      next = place &+ pages.extent &+ 1
      guard part.last < memory.last else { return }
      offset = part.last.rawValue &- memory.first.rawValue &+ 1
    }
  }

  /// A page for a copy. It is that of nothing so far, and lies behind all that there is in a mapping.
  @inline(never)
  func sparePage(
    last lastOutput: PhysicalAddress
  ) throws(Failure) -> UnsafeMutablePointer<BounceRun> {
    var none: UnsafeMutablePointer<BounceRun>? = nil
    let run = unsafe try takePage(
      for: PhysicalRange(first: PhysicalAddress(0), size: 1), last: lastOutput, &none)
    // Which counts as copied, and is not.
    unsafe BouncePool.count(copied: UInt64.max, out: false, of: run.pointee)
    unsafe run.pointee.offset = UInt64.max
    return unsafe run
  }

  private func takePage(
    for part: PhysicalRange, last lastOutput: PhysicalAddress,
    _ spare: inout UnsafeMutablePointer<BounceRun>?
  ) throws(Failure) -> UnsafeMutablePointer<BounceRun> {
    if let page = unsafe spare {
      unsafe spare = page.pointee.next
      unsafe page.pointee.next = nil
      return unsafe page
    }
    let size = Self.granule.bytes
    return unsafe try bounce(
      BounceRequest(size: size, mask: size &- 1), part, DMARanges(), under: lastOutput.rawValue)
  }

  /// A page of zeroes in which a part of a page is copied, where it is there.
  private func copyPage(
    _ part: PhysicalRange, _ direction: Direction, last lastOutput: PhysicalAddress,
    _ spare: inout UnsafeMutablePointer<BounceRun>?
  ) throws(Failure) -> UnsafeMutablePointer<BounceRun> {
    let size = Self.granule.bytes
    let (isSpare, run) = unsafe (spare != nil, try takePage(for: part, last: lastOutput, &spare))
    unsafe run.pointee.original = part
    unsafe RawMemory.clear(run.pointee.host, size: Int(size))
    unsafe run.pointee.host += Int(part.first.rawValue & (size &- 1))
    do throws(Failure) {
      try unsafe system.pointee.copy(part, .read(into: run.pointee.host))
    } catch {
      unsafe BouncePool.giveBackAll(run)
      throw error
    }
    // With the zeroes: what was there before is nothing for the device either.
    unsafe maintain(run.pointee.address, 0, size &- 1, direction, forCPU: false)
    if isSpare { unsafe BouncePool.count(copied: part.extent &+ 1, out: false, of: run.pointee) }
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
        if record.attributes.contains(.list) {
          // What is not copied was seen to by who claimed it.
          var run = unsafe record.bounce
          while let this = unsafe run {
            try unsafe handOver(
              this.pointee, 0, this.pointee.original.extent, record.direction, forCPU: true,
              isCounted: false)
            unsafe run = this.pointee.next
          }
        } else {
          try unsafe handOverAll(
            0, node.pointee.last &- node.pointee.first, of: nil, record.bounce, record.direction,
            forCPU: true)
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
    guard !forCPU || direction.access.contains(.write), !syncKept(range, forCPU: forCPU) else {
      return
    }
    // Nobody should unmap it meanwhile. If somebody does, what is left is left alone.
    guard let mapping = mappings.holdBounce(of: range, from: 0) else { return }
    unsafe Box.letGo(BouncePool.pool(of: mapping.run))
    let first = range.first.rawValue &- mapping.first
    unsafe try handOverAll(
      first, first &+ range.extent, of: range, nil, direction, forCPU: forCPU)
  }

  /// Hands over what lies between two offsets of a mapping.
  ///
  /// - Parameters:
  ///   - live: addresses in the mapping, if it is live. Its parts that are copied are held one by one.
  ///   - claimed: those parts, of a mapping whose record has been claimed.
  ///   - list: the first address of the mapping, if it is a list's: the page table says where that is.
  ///   - isCopying: whether what is copied is handed over too.
  @inline(never)
  func handOverAll(
    _ first: UInt64, _ last: UInt64, of live: DMARange?,
    _ claimed: UnsafeMutablePointer<BounceRun>?, _ direction: Direction, forCPU: Bool,
    list: UInt64? = nil, isCopying: Bool = true
  ) throws(Failure) {
    @inline(never)
    func find(_ offset: UInt64) -> BounceRun? {
      guard let live else { return unsafe BouncePool.part(of: claimed, from: offset) }
      return mappings.holdBounce(of: live, from: offset)?.run
    }
    var next = first
    var base = list
    while next <= last || base == nil {
      // Any part tells where the original is.
      guard let run = find(next) ?? (base == nil ? find(0) : nil) else { break }
      defer { if live != nil { unsafe Box.letGo(BouncePool.pool(of: run)) } }
      if list == nil { base = run.original.first.rawValue &- run.offset }
      let runLast = run.offset &+ run.original.extent
      guard runLast >= next else { break }
      let start = max(next, run.offset)
      if start > next {
        maintain(
          base!, next, min(last, start &- 1), direction, forCPU: forCPU, isList: list != nil)
      }
      next = start
      guard start <= last else { return }
      let end = min(last, runLast)
      if isCopying {
        try handOver(
          run, start &- run.offset, end &- run.offset, direction, forCPU: forCPU, isCounted: false)
      }
      next = end &+ 1
    }
    if let base, next <= last {
      maintain(base, next, last, direction, forCPU: forCPU, isList: list != nil)
    }
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

  /// Has caches maintained for memory between two offsets, if the device does not see them: from a physical
  /// address on, or for a list an address that its domain translates.
  @inline(__always)
  private func maintain(
    _ base: UInt64, _ first: UInt64, _ last: UInt64, _ direction: Direction, forCPU: Bool,
    isList: Bool = false
  ) {
    if isCoherent { return }
    maintainPart(base &+ first, base &+ last, direction, forCPU: forCPU, isList: isList)
  }

  @inline(never)
  private func maintainPart(
    _ first: UInt64, _ last: UInt64, _ direction: Direction, forCPU: Bool, isList: Bool
  ) {
    var next = first
    while true {
      var (target, partLast) = (next, last)
      if isList {
        guard let found = lookUp(next) else { return }
        target = found.target &+ (next &- found.first)
        partLast = min(last, found.last)
      }
      if let range = try? PhysicalRange(
        first: PhysicalAddress(target), last: PhysicalAddress(target &+ (partLast &- next)))
      {
        maintainCaches(of: range, direction, forCPU: forCPU)
      }
      guard partLast < last else { return }
      next = partLast &+ 1
    }
  }

  /// What the device's domain has at an address, nil if nothing.
  private func lookUp(_ address: UInt64) -> PageTableLookup? {
    let token = unsafe system.pointee.readers.enter()
    defer { unsafe system.pointee.readers.leave(token) }
    guard case .translated(let translation, _) = currentPath else { return nil }
    let found = unsafe translation.pointee.table.lookUp(IOVA(address))
    return found.isMapped ? found : nil
  }
}
