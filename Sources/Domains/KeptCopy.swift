// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CPlatform
import Primitives

// Theory of operation: copies that are kept at their slots.
//
// 1. Concepts
// Most buffers that are copied are a page or less. All that undoing such a mapping needs stands at the first of
// its slots: the word that whoever unmaps knows, a tag as for pages that a domain translates (MappingTag.swift),
// and where the original starts. So neither a record is made nor anything searched. And slots whose mapping has
// ended stay taken, at hand for the next call on the same processor: single ones, and two that are a page.
//
// 2. Implementation
// 2.1 Where a process's addresses are physical, and those of the device's bus, an address in a chunk of the pool
// says which slot it is. Only there are copies kept so, and not for a device that does not see the caches, or
// whose direct mappings are tracked. Views do not reach what is kept: so no access has to be waited for.
// 2.2 A call that makes or ends such a mapping does it in a section (CallSections), but for the copying. Whoever
// changes the domain, the pool or the peers of the device waits for sections.
// 2.3 A mapping is counted until its slots are given back. Slots that are at hand are not: whoever finds the pool
// full takes them first, and so does whoever lets go of the pool.
//
// 3. Locking
// A section; in it, where no slots are at hand, the locks of the pool, and where the pool is not the one that the
// device uses by now, that of all chunks (rank 18).
//
// 4. What this does not do
// It grows no pool: that is left to what makes a record. Lists have records.

extension Device {
  /// What the slots must be like for a copy of memory that is mapped directly.
  ///
  /// - Throws: `noSpace` for a size that no memory has.
  public func slots(for memory: PhysicalRange) throws(Failure) -> BounceRequest {
    let (size, low, boundary) = (
      memory.extent &+ 1, memory.first.rawValue, limits.segmentBoundaryMask
    )
    let mask = alignment(of: size)
    // Where those low bits make it cross a boundary, it does so as its memory does.
    let crosses = (low & mask & boundary) &+ memory.extent > boundary
    return try BounceRequest(
      size: size, low: low, mask: mask, boundary: crosses ? UInt64.max : boundary)
  }

  /// The bits of an address that its copy keeps.
  @inline(__always)
  private func alignment(of size: UInt64) -> UInt64 {
    // What is as large as a page may be described to the device by pages.
    limits.minAlignMask | (size > Self.granule.mask ? Self.granule.mask : 0)
  }

  /// The pool that its mappings are copied to. The caller is in a section of `calls`.
  @inline(__always)
  private var poolInUse: UnsafeMutablePointer<BouncePool>? {
    unsafe bouncePool ?? system.pointee.currentBouncePool
  }

  /// Maps memory that the device reaches by a copy alone, if that can be kept at slots that are at hand.
  ///
  /// - Parameters: as C gives them.
  @inline(__always)
  public func mapKeptAtOnce(
    _ first: UInt64, _ size: UInt64, _ direction: UInt32, _ attributes: UInt32,
    _ out: UnsafeMutablePointer<UInt64>
  ) -> Bool {
    guard let address = keepCopy(first, size, direction, attributes, atOnce: true) else {
      return false
    }
    copyKept(address, first, size, forCPU: false)
    unsafe out.pointee = address
    return true
  }

  /// As above, if it can be kept at slots that are there.
  @inline(never)
  public func mapKept(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes
  ) -> DMAAddress? {
    let (first, size) = (memory.first.rawValue, memory.extent &+ 1)
    guard
      let address = keepCopy(first, size, direction.rawValue, attributes.rawValue, atOnce: false)
    else { return nil }
    copyKept(address, first, size, forCPU: false)
    return DMAAddress(address)
  }

  /// Does all of it but the copying. Returns the address.
  ///
  /// - Parameter atOnce: whether nobody may be waited for, and nothing used but what is at hand.
  @inline(__always)
  private func keepCopy(
    _ first: UInt64, _ size: UInt64, _ direction: UInt32, _ attributes: UInt32, atOnce: Bool
  ) -> UInt64? {
    let last = first &+ (size &- 1)
    guard let empty = MappingTag(mappings.tagBase, inPage: 0, size, direction, attributes),
      last >= first, mappings.copies(last),
      let call = unsafe atOnce ? mappings.calls.enterAtOnce() : system.pointee.calls.enter()
    else { return nil }
    let mask = alignment(of: size)
    // In the section: whoever adds a peer or changes the domain waits for it before looking at what is mapped.
    guard mappings.leadsDirectly, unsafe system.pointee.peers.isEmpty,
      let pool = unsafe poolInUse,
      let (slot, address) = unsafe pool.pointee.takeAtHand(
        call, first, size, mask, mappings.copyLimit)
        ?? (atOnce ? nil : takeSlots(for: first, size, of: pool))
    else {
      mappings.calls.leave(call)
      return nil
    }
    slot.keep(empty.at(address), first)
    mappings.count(call, extent: size &- 1)
    mappings.noteKept()
    mappings.calls.leave(call)
    return address
  }

  /// Slots for a copy that are there, of which none is at hand.
  private func takeSlots(
    for first: UInt64, _ size: UInt64, of pool: UnsafeMutablePointer<BouncePool>
  ) -> (slot: BounceSlot, address: UInt64)? {
    guard let memory = try? PhysicalRange(first: PhysicalAddress(first), size: size),
      let request = try? slots(for: memory),
      let run = unsafe try? pool.pointee.take(request, memory, DMARanges(), mappings.copyLimit)
    else { return nil }
    return unsafe BouncePool.place(of: run)
  }

  /// Ends a mapping that is kept at slots of the pool that the device uses. Returns whether there was one.
  ///
  /// - Parameters: as C gives them.
  @inline(__always)
  public func unmapKeptAtOnce(
    _ first: UInt64, _ size: UInt64, _ direction: UInt32, _ attributes: UInt32
  ) -> Bool {
    guard mappings.hasEverKept,
      unsafe system.pointee.bounceChunks.mayHave(first, through: first),
      let tag = MappingTag(mappings.tagBase, inPage: 0, size, direction, attributes),
      let call = mappings.calls.enterAtOnce()
    else { return false }
    guard let pool = unsafe poolInUse, let chunk = unsafe pool.pointee.chunk(with: first),
      case let slot = unsafe chunk.pointee.slot(at: first), slot.take(tag.at(first))
    else {
      mappings.calls.leave(call)
      return false
    }
    if direction != Direction.toDevice.rawValue {
      unsafe copyBack(call, first, slot, tag, to: pool)
    } else {
      unsafe giveBack(call, slot, tag, to: pool, inUse: true)
    }
    return true
  }

  /// Ends a mapping that is kept at its slots. Returns whether there was one.
  @inline(never)
  public func unmapKept(
    _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes
  ) -> Bool {
    let first = range.first.rawValue
    guard mappings.hasEverKept, unsafe system.pointee.bounceChunks.mayHave(first, through: first),
      let tag = MappingTag(
        mappings.tagBase, inPage: 0, range.extent &+ 1, direction.rawValue, attributes.rawValue)
    else { return false }
    return endKept(first, tag.at(first), copiesBack: direction != .toDevice)
  }

  /// - Parameter copiesBack: whether what the device wrote is wanted, but for mappings that leave that out.
  @inline(never)
  func endKept(_ first: UInt64, _ tag: MappingTag, copiesBack: Bool) -> Bool {
    let call = unsafe system.pointee.calls.enter()
    let known = unsafe poolInUse?.pointee.chunk(with: first)
    guard let chunk = unsafe known ?? system.pointee.bounceChunks.hold(with: first) else {
      mappings.calls.leave(call)
      return false
    }
    let pool = unsafe chunk.pointee.pool
    defer { if unsafe known == nil { unsafe Box.letGo(pool) } }
    let slot = unsafe chunk.pointee.slot(at: first)
    guard slot.take(tag) else {
      mappings.calls.leave(call)
      return false
    }
    // The slots hold the pool, until they are given back.
    if copiesBack {
      unsafe copyBack(call, first, slot, tag, to: pool)
    } else {
      unsafe giveBack(call, slot, tag, to: pool, inUse: poolInUse == pool)
    }
    return true
  }

  /// Copies what the device wrote, unless the mapping leaves that out, and gives the slots back, as `giveBack`.
  @inline(never)
  private func copyBack(
    _ call: Int, _ first: UInt64, _ slot: BounceSlot, _ tag: MappingTag,
    to pool: UnsafeMutablePointer<BouncePool>
  ) {
    var call = call
    if !tag.attributes.contains(.skipCPUSync) {
      // The mapping is counted, and so keeps the domain.
      mappings.calls.leave(call)
      copyKept(first, slot.original, tag.size, forCPU: true)
      call = unsafe mappings.calls.enterAtOnce() ?? system.pointee.calls.enter()
      unsafe pool.pointee.count(call, copied: tag.size, out: true)
    }
    unsafe giveBack(call, slot, tag, to: pool, inUse: poolInUse == pool)
  }

  /// Counts a mapping out and gives its slots back, so that they are at hand if their pool is in use, and leaves the
  /// call's section.
  @inline(__always)
  private func giveBack(
    _ call: Int, _ slot: BounceSlot, _ tag: MappingTag, to pool: UnsafeMutablePointer<BouncePool>,
    inUse: Bool
  ) {
    mappings.uncount(call, extent: tag.extent)
    let isAtHand = unsafe inUse && pool.pointee.put(call, slot)
    mappings.calls.leave(call)
    if !isAtHand { unsafe BouncePool.giveBack(slot.run) }
  }

  /// Copies between a copy and its original, where both addresses are those of the process.
  private func copyKept(_ copy: UInt64, _ original: UInt64, _ size: UInt64, forCPU: Bool) {
    // SAFETY: the slots are the mapping's, and who maps memory says that it is some.
    guard let original = unsafe UnsafeMutableRawPointer(bitPattern: UInt(original)) else { return }
    let copy = unsafe UnsafeMutableRawPointer(bitPattern: UInt(copy)).unsafelyUnwrapped
    let (target, source) = unsafe forCPU ? (original, copy) : (copy, original)
    unsafe cplatform_copy_page(
      target, source, Int(truncatingIfNeeded: size), system.pointee.copiesWide)
  }

  /// Hands over a part of a mapping that is kept at its slots. Returns whether there is one.
  @inline(never)
  public func syncKept(_ range: DMARange, forCPU: Bool) -> Bool {
    let (first, size) = (range.first.rawValue, range.extent &+ 1)
    // Somebody may unmap it by mistake meanwhile: the pool stays, and what is copied is or was mapped.
    guard mappings.hasEverKept,
      let chunk = unsafe system.pointee.bounceChunks.hold(with: first)
    else { return false }
    let pool = unsafe chunk.pointee.pool
    defer { unsafe Box.letGo(pool) }
    guard let kept = unsafe chunk.pointee.next(first, first, mappings.tagBase),
      kept.first &+ kept.tag.extent >= range.last.rawValue
    else { return false }
    copyKept(first, kept.original &+ (first &- kept.first), size, forCPU: forCPU)
    let call = unsafe system.pointee.calls.enter()
    unsafe pool.pointee.count(call, copied: size, out: forCPU)
    mappings.calls.leave(call)
    return true
  }
}
