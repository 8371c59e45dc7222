// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import Primitives

// Theory of operation: registrations.
//
// 1. Concepts
// A transfer whose memory may be replaced: the ranges that it was made of are mapped one by one, and each
// can have other memory of its size in its place. Where an IOMMU translates they are linked into one reserved
// range (IOVAState.swift), at addresses that stay. What cannot be linked, and everything elsewhere, is a
// mapping of its own.
//
// 2. Implementation
// 2.1 A range is unmapped before the other memory is mapped, as both are to have the same addresses. If that
// fails the old memory is mapped again: at the same place the page tables are still there.
// 2.2 Ranges are found by halves, by their offset.
//
// 3. Locking, 4. What this does not do: as for transfers.

/// A range of a registration.
struct RegisteredRange {
  /// Where in the registration it starts.
  let offset: UInt64
  var phys: UInt64
  let size: UInt64
  /// The device's address, while it is mapped.
  var dma: UInt64 = 0
  let isMMIO: Bool
  /// Whether it lies in the reserved range.
  var isLinked = false
  /// Whether it is put together with nothing.
  var isAlone = false
  var isMapped = false

  func memory(at phys: UInt64) throws(Failure) -> PhysicalRange {
    try PhysicalRange(first: PhysicalAddress(phys), size: size)
  }

  /// Those that it is mapped with.
  func attributes(of transfer: Transfer) -> MappingAttributes {
    isMMIO ? transfer.attributes.union(.mmio) : transfer.attributes
  }
}

typealias Registration = TransferEntries<RegisteredRange>

extension Registration {
  /// The range that a byte lies in, which is one of them.
  func index(of offset: UInt64) -> Int {
    var (low, high) = (0, count &- 1)
    while low < high {
      let middle = (low &+ high &+ 1) >> 1
      if unsafe entries[middle].offset <= offset { low = middle } else { high = middle &- 1 }
    }
    return low
  }

  /// Takes the ranges over, which meet at pages, or at larger blocks.
  ///
  /// - Parameter mask: of a block.
  /// - Throws: `invalidArgument` when they do not, or are others than there were before.
  @inline(never)
  fileprivate func fill(
    _ reader: RangeReader, size: UInt64, _ mask: UInt64
  ) throws(Failure) {
    var (reader, offset, index) = (reader, UInt64(0), 0)
    while let (memory, isMMIO) = try reader.stepApart() {
      let isLast = index == count &- 1
      guard index < count, memory.extent < size &- offset,
        index == 0 || memory.first.rawValue & mask == 0,
        isLast || memory.last.rawValue & mask == mask
      else { throw .invalidArgument }
      unsafe (entries + index).initialize(
        to: RegisteredRange(
          offset: offset, phys: memory.first.rawValue, size: memory.extent &+ 1, isMMIO: isMMIO))
      offset &+= memory.extent &+ 1
      index &+= 1
    }
    guard index == count, offset == size else { throw .invalidArgument }
  }
}

extension Device {
  /// The mask of the blocks at which ranges have to meet to have addresses in a row.
  fileprivate var blockMask: UInt64 { Self.granule.mask | limits.minAlignMask }

  /// Maps a registration.
  ///
  /// - Throws: as `map`.
  @inline(never)
  static func register(
    _ device: UnsafeMutablePointer<Device>, _ request: TransferRequest
  ) throws(Failure) -> Transfer {
    let (count, size) = try request.reader.measure()
    guard count <= Int(IOVAState.linksMax) else { throw .tooBig }
    let made = unsafe try Registration(device, count: count)
    let transfer = Transfer(.registration, made.place, size: size, request)
    do throws(Failure) {
      try unsafe made.fill(request.reader, size: size, device.pointee.blockMask)
      let phys = unsafe made.entries.pointee.phys
      unsafe try reserve(
        device, phys, size,
        IOVAStateReserves(links: UInt32(count), spares: 0, hasTables: true), made.state)
      for index in 0..<count {
        do throws(Failure) {
          try unsafe device.pointee.map(made, index, transfer)
        } catch {
          try? unsafe device.pointee.end(made, transfer, count: index)
          throw error
        }
      }
      return transfer
    } catch {
      made.free()
      throw error
    }
  }

  /// Maps a range of a registration.
  ///
  /// - Throws: as `map`.
  @inline(never)
  private func map(
    _ registration: Registration, _ index: Int, _ transfer: Transfer
  ) throws(Failure) {
    var range = unsafe registration.entries[index]
    let memory = try range.memory(at: range.phys)
    let attributes = range.attributes(of: transfer)
    let state = unsafe registration.state
    range.isLinked = unsafe state.pointee.isReserved
    if range.isLinked {
      do throws(Failure) {
        unsafe try link(
          state, range.offset, memory, transfer.direction, attributes.subtracting(.marks))
        range.dma = unsafe state.pointee.address &+ range.offset
      } catch {
        // What has bus addresses leaves a hole.
        guard error == .notReachable else { throw error }
        range.isLinked = false
      }
    }
    range.isAlone = range.isMMIO
    if !range.isLinked {
      let limit = try limit(for: .streaming)
      let (address, path) = try mapRecorded(memory, transfer.direction, attributes, limit)
      range.dma = address.rawValue
      range.isAlone = range.isMMIO || path != .direct
    }
    range.isMapped = true
    unsafe registration.entries[index] = range
  }

  /// Ends the mapping of a range of a registration, strictly if it is linked.
  @inline(never)
  private func unmap(
    _ registration: Registration, _ index: Int, _ transfer: Transfer
  ) throws(Failure) {
    let range = unsafe registration.entries[index]
    guard range.isMapped else { return }
    unsafe registration.entries[index].isMapped = false
    if range.isLinked {
      return unsafe try unlink(registration.state, range.offset, range.size)
    }
    try unmapAny(
      DMARange(first: DMAAddress(range.dma), size: range.size), transfer.direction,
      range.attributes(of: transfer))
  }

  /// Ends a registration.
  ///
  /// - Parameter count: how many of its ranges are mapped, nil for all.
  @inline(never)
  func end(
    _ registration: Registration, _ transfer: Transfer, count: Int? = nil
  ) throws(Failure) {
    var failure: Failure? = nil
    for index in 0..<(count ?? registration.count) {
      // What is linked ends all at once.
      if unsafe registration.entries[index].isLinked { continue }
      do throws(Failure) {
        try unmap(registration, index, transfer)
      } catch {
        failure = error
      }
    }
    unsafe try Device.free(registration.state, "an unmap", endingLinks: true)
    if let failure { throw failure }
  }

  /// Hands bytes of a registration over.
  @inline(never)
  func sync(
    _ registration: Registration, _ transfer: Transfer, _ first: UInt64, _ last: UInt64,
    forCPU: Bool
  ) throws(Failure) {
    var (index, next) = (registration.index(of: first), first)
    while true {
      let range = unsafe registration.entries[index]
      let rangeLast = range.offset &+ (range.size &- 1)
      let partLast = min(last, rangeLast)
      if range.isLinked && range.isMapped {
        unsafe try sync(registration.state, next, partLast &- next &+ 1, forCPU: forCPU)
      } else if range.isMapped {
        try syncPart(
          range.dma &+ (next &- range.offset), partLast &- next, transfer.direction,
          forCPU: forCPU)
      }
      guard partLast < last else { return }
      next = partLast &+ 1
      index &+= 1
    }
  }

  /// Lets other memory take the place of a range of a registration.
  ///
  /// - Throws: as `map`; then the old memory is there again, unless that fails too, which is reported.
  public static func replace(
    _ device: UnsafeMutablePointer<Device>, _ transfer: Transfer, _ offset: UInt64, _ phys: UInt64,
    _ size: UInt64
  ) throws(Failure) {
    guard transfer.form == .registration, let registration = Registration(of: transfer) else {
      throw .invalidArgument
    }
    unsafe try registration.require(device)
    try unsafe registration.requireDriver(of: device.pointee)
    try unsafe device.pointee.replace(registration, transfer, offset, phys, size)
  }

  @inline(never)
  private func replace(
    _ registration: Registration, _ transfer: Transfer, _ offset: UInt64, _ phys: UInt64,
    _ size: UInt64
  ) throws(Failure) {
    let index = registration.index(of: offset)
    let old = unsafe registration.entries[index]
    guard old.offset == offset, old.size == size, (old.phys ^ phys) & blockMask == 0 else {
      throw .invalidArgument
    }
    // What is refused is known before anything changes.
    if let failure = explain(
      try old.memory(at: phys), .streaming, old.attributes(of: transfer).subtracting(.marks)
    ).failure {
      throw failure
    }
    try unmap(registration, index, transfer)
    do throws(Failure) {
      unsafe registration.entries[index].phys = phys
      try map(registration, index, transfer)
    } catch {
      unsafe registration.entries[index].phys = old.phys
      if old.isMapped {
        do throws(Failure) {
          try map(registration, index, transfer)
        } catch {
          reportUnreplaced(error)
        }
      }
      throw error
    }
  }
}
