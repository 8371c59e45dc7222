// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Domains
import PageTables
import Primitives

// Theory of operation: DMA mapping.
//
// 1. Concepts
// A driver maps memory for a device and gets the address that the device uses for it. Which path a
// mapping takes is decided once, when it is made, and written into its record (MappingTable); undoing
// and syncing go by the record.
//
//   device without an IOMMU, or attached to an identity domain:   direct, by its DMA ranges
//   device attached to a DMA domain:                              IOVA space + page table
//   device attached to a hybrid domain:                           direct where it reaches the memory,
//                                                                 else as in a DMA domain
//   device behind an IOMMU, attached to anything else or nothing: refused
//
// 2. Implementation
// 2.1 A mapping call takes a cell for its record first, and with it pins the device's domain; then
// it makes the mapping; then it enters the record. Each step that can fail comes before the step
// that would have to be undone without memory.
// 2.2 An unmapping call takes the record out first: of two calls for one mapping, one finds it. Then
// it undoes the mapping, and gives the cell back last, which lets go of the domain.
// 2.3 A direct mapping needs no record: its address is the record. Devices that track direct
// mappings keep one all the same, to find misuse.
//
// 3. Locking
// The mapping table's lock (rank 4) twice a call, those of the IOVA space (ranks 8 and 9) or the
// flush queue's (rank 7) once, none of them while anything is allocated or called back.
//
// 4. What this does not do
// It does not bounce: memory that a device cannot reach is refused. Syncing orders accesses, has caches
// maintained for a device that does not see them, and moves nothing.

extension Device {
  /// Maps memory for the device.
  ///
  /// - Throws: `noMask`, `notPermitted` when the device is blocked, `outOfRange` when it cannot
  ///   reach the memory, `noSpace`, `noMemory`.
  public func map(_ memory: PhysicalRange, _ direction: Direction) throws(Failure) -> DMAAddress {
    let limit = try limit(for: .streaming)
    let address =
      isUntracked
      ? try bus(of: memory, limit).first : try mapRecorded(memory, direction, limit)
    if !isCoherent { maintainCaches(of: memory, direction, forCPU: false) }
    return address
  }

  /// As `map`, where a record may have to be kept.
  @inline(__always)
  private func mapRecorded(
    _ memory: PhysicalRange, _ direction: Direction, _ limit: AddressLimit
  ) throws(Failure) -> DMAAddress {
    let (cell, domain) = unsafe try mappings.take()
    do throws(Failure) {
      let translating = unsafe translating(domain)
      let stamp = unsafe withPins(of: translating) { $0.stamp }
      let (range, isDirect) = unsafe try place(memory, direction.access, in: domain, limit: limit)
      if isDirect && !tracksDirect {
        unsafe mappings.giveBack(cell)
        return range.first
      }
      let record = unsafe MappingRecord(
        kind: .streaming, direction: direction, domain: translating, isDirect: isDirect,
        memory: nil, stamp: stamp)
      unsafe mappings.insert(cell, range, record)
      return range.first
    } catch {
      unsafe mappings.giveBack(cell)
      throw error
    }
  }

  /// Ends a mapping, as strictly as its domain wants it.
  ///
  /// - Throws: `invalidArgument` when the device has no such mapping. That is reported too.
  public func unmap(_ range: DMARange, _ direction: Direction) throws(Failure) {
    // While it can be found.
    let memory = isCoherent ? nil : memory(of: range)
    if !isUntracked { try unmapRecorded(range, direction) }
    if let memory { maintainCaches(of: memory, direction, forCPU: true) }
  }

  /// What memory needs that is handed over, of a device that does not see the caches.
  @inline(never)
  private func maintainCaches(of memory: PhysicalRange, _ direction: Direction, forCPU: Bool) {
    // What the device only reads stays good in the caches.
    guard !forCPU || direction.access.contains(.write) else { return }
    unsafe system.pointee.maintainCaches(of: memory, direction, forCPU: forCPU)
  }

  /// As `unmap`, where a record may be kept.
  private func unmapRecorded(_ range: DMARange, _ direction: Direction) throws(Failure) {
    let claimed = unsafe mappings.claim(range) { record in
      record.kind == .streaming && record.direction == direction
    }
    guard let node = unsafe claimed else {
      if !tracksDirect && wasInWindow(range) { return }
      reportMisuse("unmap", of: range, direction)
      throw .invalidArgument
    }
    if unsafe undo(node) { reportHeld(range) }
  }

  /// Hands a part of a mapping from the device to the CPU or back.
  ///
  /// - Throws: `invalidArgument` when the range lies in no mapping of this direction. That is
  ///   reported too.
  public func sync(
    _ range: DMARange, _ direction: Direction, forCPU: Bool
  ) throws(Failure) {
    if !isUntracked {
      let isCovered = mappings.covers(range) { record in
        record.kind == .streaming && record.direction == direction
      }
      guard isCovered || (!tracksDirect && wasInWindow(range)) else {
        reportMisuse("sync", of: range, direction)
        throw .invalidArgument
      }
    }
    // The device's thread and the CPU see each other's writes in the order of the hand-overs; the
    // processor keeps caches coherent by itself.
    cplatform_hand_over()
    if !isCoherent, let memory = memory(of: range) {
      maintainCaches(of: memory, direction, forCPU: forCPU)
    }
  }

  /// Whether mappings are direct and leave no record.
  @inline(__always)
  private var isUntracked: Bool {
    unsafe !tracksDirect && (iommu == nil || mappings.hasIdentity)
  }

  /// The addresses of memory that is mapped directly.
  ///
  /// - Throws: `outOfRange` when the bus does not have all of it in a row, or above the limit.
  @inline(__always)
  private func bus(
    of memory: PhysicalRange, _ limit: AddressLimit
  ) throws(Failure) -> DMARange {
    guard let range = ranges.bus(of: memory), range.last.rawValue <= limit.highest else {
      throw .outOfRange
    }
    return range
  }

  /// The domain if it translates: what a record remembers.
  func translating(_ domain: UnsafeMutablePointer<Domain>?) -> UnsafeMutablePointer<Domain>? {
    guard let domain = unsafe domain, unsafe domain.pointee.translation != nil else { return nil }
    return unsafe domain
  }

  /// - Throws: `notPermitted` when the domain's owner maps by itself. That is reported.
  func requireMappingCalls(in domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    guard unsafe domain.pointee.kind.isForMappingCalls else {
      reportRefusal()
      throw .notPermitted
    }
  }

  /// Gives memory an address of the device, on the path that the device has with this domain. Says
  /// whether that is direct.
  func place(
    _ memory: PhysicalRange, _ access: Access, in domain: UnsafeMutablePointer<Domain>?,
    limit: AddressLimit
  ) throws(Failure) -> (DMARange, isDirect: Bool) {
    switch unsafe path(with: domain) {
    case .blocked:
      throw .notPermitted
    case .direct:
      return (try bus(of: memory, limit), true)
    case .nested(_, let domain):
      unsafe try requireMappingCalls(in: domain)
      throw .notPermitted
    case .translated(let translation, let domain):
      unsafe try requireMappingCalls(in: domain)
      // A bus that moves addresses has no window on them.
      if unsafe domain.pointee.kind == .hybrid && ranges.isEmpty,
        memory.last.rawValue <= limit.highest, unsafe domain.pointee.isInWindow(memory)
      {
        return (try bus(of: memory, limit), true)
      }
      let pages = memory.rounded(to: Self.granule)
      let range = try unsafe domain.pointee.takingTables { () throws(Failure) in
        unsafe try translation.pointee.map(
          pages, access: access, limit: limit.highest, in: ranges)
      }
      // The cell of the call keeps the domain while its listeners are told.
      unsafe domain.pointee.notifiers.tell(
        .mapped(range, to: pages.first, translation.pointee.table.expressible(access)))
      // The memory lies in the pages, at the same offset on both sides.
      let first = range.first.rawValue &+ (memory.first.rawValue & Self.granule.mask)
      let last = first &+ memory.extent
      return (try DMARange(first: DMAAddress(first), last: DMAAddress(last)), false)
    }
  }
}
