// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import PageTables
import Primitives

// Mappings of a device that has mapping functions (Domains/MappingOps.swift).

extension Device {
  /// The path of memory that the functions map unless it bypasses them.
  ///
  /// - Parameter known: whether it is memory of a peer.
  @inline(never)
  func decideByOps(
    _ memory: PhysicalRange, _ attributes: MappingAttributes, _ limit: AddressLimit,
    _ kind: MappingRecord.Kind, _ known: PathReasons
  ) -> PathDecision {
    let window = unsafe ops!.pointee.window(kind)
    let first = memory.first.rawValue &+ window.offset
    let last = memory.last.rawValue &+ window.offset
    var against: PathReasons = []
    if !window.isOffered {
      against = .noBypass
    } else if last < window.offset || last > window.limit || !known.isEmpty
      || attributes.contains(.mmio)
    {
      against = .outsideWindow
    } else if last > limit.highest {
      against = .aboveLimit
    } else if kind == .streaming && !keepsBits(window.offset) {
      against = .misaligned
    } else if meetsPeers, unsafe system.pointee.peerBus(first, last, of: group) != nil {
      against = [.outsideWindow, .peer]
    }
    return PathDecision(
      against.isEmpty ? .direct : .ops,
      against.union(known).union(against.isEmpty ? [.ops, .inWindow] : .ops),
      offset: window.offset, kind)
  }

  /// Gives memory an address that the functions say.
  ///
  /// - Throws: what they fail with, `ioError` when the address is none.
  @inline(never)
  @_optimize(size)
  func placeByOps(
    _ memory: PhysicalRange, _ access: Access, _ attributes: MappingAttributes,
    _ limit: AddressLimit, _ kind: MappingRecord.Kind
  ) throws(Failure) -> DMARange {
    let direction: Direction =
      !access.contains(.write) ? .toDevice : access.contains(.read) ? .bidirectional : .fromDevice
    let record = unsafe MappingRecord(
      kind: kind, path: .ops, direction: direction, attributes: attributes, domain: nil,
      target: memory.first.rawValue, stamp: 0)
    let first = try unsafe ops!.pointee.map(
      record, memory.extent, limit: limit.highest,
      alignMask: limits.minAlignMask | Self.granule.mask)
    do throws(Failure) {
      return try check(first, of: memory, limit, attributes)
    } catch {
      unsafe ops!.pointee.unmap(first, memory.extent, record)
      throw error
    }
  }

  /// The addresses from one that the functions gave memory.
  ///
  /// - Throws: `ioError` when they may not, which is reported.
  func check(
    _ first: UInt64, of memory: PhysicalRange, _ limit: AddressLimit,
    _ attributes: MappingAttributes
  ) throws(Failure) -> DMARange {
    let last = first &+ memory.extent
    guard last >= first, last <= limit.highest,
      (first ^ memory.first.rawValue) & (limits.minAlignMask | Self.granule.mask) == 0,
      unsafe !meetsPeers || system.pointee.peerBus(first, last, of: group) == nil
    else { throw wrongAddress(first, memory.extent, attributes) }
    return DMARange(DMAAddress(first), through: DMAAddress(last))
  }

  /// Ends a call by entering its mapping.
  ///
  /// - Throws: `ioError` when others of the device are in the way, which is reported. Then it has been
  ///   undone, but for memory that was allocated.
  @inline(never)
  func enter(
    _ cell: MappingTable.Link, _ range: DMARange, _ record: MappingRecord
  ) throws(Failure) {
    // By bus address it is a peer's, and in nobody's way.
    if unsafe mappings.insert(
      cell, range, record, ifClear: ops != nil && record.path != .busAddress)
    {
      return
    }
    if record.path == .ops { unsafe ops!.pointee.unmap(range.first.rawValue, range.extent, record) }
    throw wrongAddress(range.first.rawValue, range.extent, record.attributes)
  }

  /// Memory for a device that has it from its mapping functions, or from the system, if they can, where it
  /// bypasses them.
  ///
  /// - Throws: as `System.allocateMemory`.
  @inline(never)
  @_optimize(size)
  func allocateForOps(
    _ size: UInt64, _ kind: MappingRecord.Kind, _ limit: AddressLimit, isOfPool: Bool
  ) throws(Failure) -> Allocation.Link {
    let declared = unsafe kind == .coherent ? mappings.holdDeclared() : nil
    var (source, highest) = unsafe (nil as UnsafeMutablePointer<MappingOps>?, UInt64.max)
    if unsafe declared == nil {
      if let last = unsafe ops!.pointee.window(kind).lastPhysical(under: limit.highest),
        let allocation = unsafe try? system.pointee.allocateMemory(
          size: size, limit: last, isCoherent: isCoherent, isOfPool: isOfPool)
      {
        return unsafe allocation
      }
      if kind == .coherent, unsafe ops!.pointee.allocates {
        unsafe (source, highest) = (ops, limit.highest)
      }
    }
    return unsafe try system.pointee.allocateMemory(
      size: size, limit: highest, isCoherent: isCoherent, isOfPool: isOfPool, from: declared,
      by: source)
  }

  /// What there is to say of the sizes of mappings by the functions.
  @inline(never)
  @_optimize(size)
  func limitsByOps(under highest: UInt64) -> MappingLimits {
    let (given, mask) = unsafe ops!.pointee.limits()
    var limits = MappingLimits()
    limits.requiredMask = Self.mask(to: mask)
    guard highest > 0 else { return limits }
    limits.maxSize = given.max_size == 0 ? UInt64.max : given.max_size
    limits.optimalSize =
      given.optimal_size == 0 ? limits.maxSize : min(given.optimal_size, limits.maxSize)
    let boundary = given.merge_boundary_mask
    if boundary & (boundary &+ 1) == 0 { limits.mergeBoundaryMask = boundary }
    return limits
  }

  @inline(never)
  @_optimize(size)
  private func wrongAddress(
    _ first: UInt64, _ extent: UInt64, _ attributes: MappingAttributes
  ) -> Failure {
    if attributes.contains(.noWarn) { return .ioError }
    unsafe system.pointee.reporter.report(.error, .ioError, object: name) { text in
      text.append("its mapping functions have ")
      text.append(first, first &+ extent)
      text.append(", which is out of reach, another's or not aligned")
    }
    return .ioError
  }
}
