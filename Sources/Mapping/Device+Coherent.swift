// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import PageTables
import Primitives

extension Device {
  /// Allocates zeroed pages that the device and the CPU share, from the memory that is the device's own if
  /// there is any.
  ///
  /// - Throws: `invalidArgument` for a size of zero or near 2^64, `noMask`, `notPermitted` when the
  ///   device is blocked, `outOfRange` when it cannot reach the memory, `noSpace`, `noMemory`, and
  ///   what `System.allocateMemory` throws.
  public func allocateCoherent(
    size: UInt64
  ) throws(Failure) -> (cpu: UnsafeMutableRawPointer, address: DMAAddress) {
    let (allocation, address) = unsafe try allocate(
      size, .coherent, .bidirectional, [], isOfPool: false)
    return unsafe (allocation.pointee.segments.pointee.cpu, address)
  }

  /// Allocates memory that is one range for the device, in as few segments as there are, and starts out as
  /// the device's.
  ///
  /// - Throws: as `allocateCoherent`, and `notSupported` when it must not need syncing and does.
  public func allocateNoncontiguous(
    size: UInt64, _ direction: Direction, _ attributes: MappingAttributes
  ) throws(Failure) -> (Allocation.Link, DMAAddress) {
    unsafe try allocate(size, .streaming, direction, attributes, isOfPool: false)
  }

  @inline(never)
  func allocate(
    _ size: UInt64, _ kind: MappingRecord.Kind, _ direction: Direction,
    _ attributes: MappingAttributes, isOfPool: Bool
  ) throws(Failure) -> (Allocation.Link, DMAAddress) {
    guard let size = Self.granule.roundedUp(size) else { throw .invalidArgument }
    let limit = try limit(for: kind)
    let (cell, domain) = unsafe try mappings.take()
    do throws(Failure) {
      unsafe try requireMappingCalls(in: domain, attributes)
      let allocation = unsafe try allocateMemory(size, kind, limit, in: domain, isOfPool: isOfPool)
      do throws(Failure) {
        let translating = unsafe translating(domain)
        let stamp = unsafe withPins(of: translating) { $0.stamp }
        let access = direction.access.union(attributes.access)
        let (range, path) = unsafe try place(
          allocation, access, attributes, in: domain, limit: limit, kind)
        let record = unsafe MappingRecord(
          kind: kind, path: path, direction: direction, attributes: attributes,
          domain: translating, memory: allocation,
          target: allocation.pointee.segments.pointee.phys, stamp: stamp)
        try unsafe enter(cell, range, record)
        return unsafe (allocation, range.first)
      } catch {
        unsafe system.pointee.freeMemory(allocation)
        throw error
      }
    } catch {
      unsafe mappings.giveBack(cell)
      throw error
    }
  }

  /// Memory for the device, in as few segments as there are where it need not be in one.
  private func allocateMemory(
    _ size: UInt64, _ kind: MappingRecord.Kind, _ limit: AddressLimit,
    in domain: UnsafeMutablePointer<Domain>?, isOfPool: Bool
  ) throws(Failure) -> Allocation.Link {
    if unsafe ops != nil {
      return unsafe try allocateForOps(size, kind, limit, isOfPool: isOfPool)
    }
    var memoryLimit = UInt64.max
    let isDirect = unsafe path(with: domain).isDirect
    if isDirect {
      guard let last = ranges.lastPhysical(under: limit.highest) else { throw .outOfRange }
      memoryLimit = last
    }
    return unsafe try system.pointee.allocateMemory(
      size: size, limit: memoryLimit, isCoherent: isCoherent,
      isWhole: isDirect || kind == .coherent, isOfPool: isOfPool,
      from: kind == .coherent ? mappings.holdDeclared() : nil)
  }

  /// Gives an allocation an address of the device. In several segments it is behind an IOMMU.
  private func place(
    _ allocation: Allocation.Link, _ access: Access, _ attributes: MappingAttributes,
    in domain: UnsafeMutablePointer<Domain>?, limit: AddressLimit, _ kind: MappingRecord.Kind
  ) throws(Failure) -> (DMARange, MappingPath) {
    guard unsafe allocation.pointee.count > 1, let domain = unsafe translating(domain) else {
      let memory = try unsafe allocation.pointee.memory(0)
      if unsafe allocation.pointee.ops != nil {
        return (try unsafe check(allocation.pointee.address, of: memory, limit, attributes), .ops)
      }
      return unsafe try place(memory, access, attributes, in: domain, limit: limit, kind)
    }
    if attributes.contains(.requireCoherent) && !isCoherent { throw .notSupported }
    let range = try unsafe domain.pointee.map(
      allocation, access: access, limit: limit.highest, in: ranges)
    return (
      try DMARange(
        first: DMAAddress(range.first.rawValue), last: DMAAddress(range.last.rawValue)), .iommu
    )
  }

  /// Frees what `allocateCoherent` returned, strictly.
  ///
  /// - Throws: `invalidArgument` when the device has no such allocation, which is reported too;
  ///   `busy` when a zero-copy mapping holds it.
  public func freeCoherent(
    _ cpu: UnsafeMutableRawPointer, _ address: DMAAddress, size: UInt64
  ) throws(Failure) {
    unsafe try free(address, size, .coherent, cpu, isOfPool: false)
  }

  /// Frees what `allocateNoncontiguous` returned, likewise.
  public func freeNoncontiguous(_ address: DMAAddress, size: UInt64) throws(Failure) {
    unsafe try free(address, size, .streaming, nil, isOfPool: false)
  }

  /// Frees an allocation.
  ///
  /// - Parameter cpu: where its first segment is, if the caller knows.
  /// - Throws: as `freeCoherent`.
  @inline(never)
  func free(
    _ address: DMAAddress, _ size: UInt64, _ kind: MappingRecord.Kind,
    _ cpu: UnsafeMutableRawPointer?, isOfPool: Bool
  ) throws(Failure) {
    guard let size = Self.granule.roundedUp(size) else { throw .invalidArgument }
    let range = try DMARange(first: address, size: size)
    // While the range is closed no view can pin it, so that nobody is left with a pointer to memory
    // that is free. The node lives as long as this call. The range is opened before the addresses
    // are anybody else's.
    let allocation = try unsafe withUnsafeTemporaryAllocation(
      of: PinTable.Node.self, capacity: 1
    ) { (storage) throws(Failure) -> Allocation.Link? in
      let node = storage.baseAddress!
      var isHeld = false
      let claimed = unsafe mappings.claim(range) { record in
        guard let allocation = unsafe record.memory, record.kind == kind,
          unsafe allocation.pointee.isOfPool == isOfPool,
          unsafe cpu == nil || allocation.pointee.segments.pointee.cpu == cpu
        else { return false }
        unsafe node.initialize(
          to: PinTable.Node(
            first: range.first.rawValue, last: range.last.rawValue,
            payload: .closed(of: record.stamp)))
        isHeld = unsafe withPins(of: record.domain) { unsafe !$0.add(node) }
        return !isHeld
      }
      guard let record = unsafe claimed else {
        if isHeld { throw .busy }
        reportMisuse(
          kind == .coherent ? "free of coherent memory" : "free of noncontiguous memory",
          of: range, nil)
        throw .invalidArgument
      }
      let allocation = unsafe record.pointee.payload.memory
      _ = unsafe end(record)
      unsafe withPins(of: record.pointee.payload.domain) { unsafe $0.remove(node) }
      unsafe release(record)
      return unsafe allocation
    }
    if let allocation = unsafe allocation { unsafe system.pointee.freeMemory(allocation) }
  }
}
