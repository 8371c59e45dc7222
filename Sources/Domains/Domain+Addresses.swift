// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import PageTables
import Primitives

// Mappings of the domain's choice: what mapping calls make, at addresses of its IOVA space.

extension Domain.Translation {
  /// Keeps reserved regions from being given out, and maps those 1:1 that must be.
  ///
  /// - Throws: `outOfRange` when one of those is too wide for the page table, `noMemory`, and what the
  ///   backend fails with.
  func honour(
    _ regions: borrowing ReservedRegions, _ backend: BackendDomain
  ) throws(Failure) {
    guard regions.count > 0, let space = unsafe space else { return }
    let bounds = unsafe space.pointee.bounds
    var next: UInt64? = bounds.first.rawValue
    while let from = next, let part = regions.part(from: from, through: bounds.last.rawValue) {
      try unsafe space.pointee.reserve(IOVARange(first: IOVA(part.first), last: IOVA(part.last)))
      next = part.last < bounds.last.rawValue ? part.last &+ 1 : nil
    }
    next = 0
    while let from = next,
      let part = regions.part(from: from, through: UInt64.max, areMapped: true)
    {
      let range = try IOVARange(first: IOVA(part.first), last: IOVA(part.last))
      let (output, access) = (PhysicalAddress(part.first), table.expressible(.transfers))
      try table.map(range, to: output, access: access)
      try backend.map(range, to: output, access)
      next = part.last < UInt64.max ? part.last &+ 1 : nil
    }
  }

  /// Keeps addresses from being given out that direct mappings of a device may have without a record.
  ///
  /// - Parameter reserving: false: looks whether they are.
  /// - Throws: `busy` when one of them is given out, or could be; `noMemory`.
  @inline(never)
  func keepClear(of device: borrowing Device, reserving: Bool) throws(Failure) {
    guard unsafe queue != nil, device.mappings.wasDirect && !device.mappings.recordsDirect
    else { return }
    if let registers = device.mappings.registers {
      try keep(pagesOf: registers.first.rawValue, registers.last.rawValue, reserving)
    }
    var memory: PhysicalRange? = nil
    while let (there, _, _) = unsafe device.system.pointee.memory(after: memory, isHost: false) {
      memory = there
      var next: UnsafeMutablePointer<DMARanges>? = unsafe device.firstRanges
      while let ranges = unsafe next {
        for index in 0..<(unsafe ranges.pointee.runCount) {
          if let run = unsafe ranges.pointee.run(index, of: there) {
            try keep(pagesOf: run.first, run.last, reserving)
          }
        }
        unsafe next = ranges.pointee.next
      }
    }
  }

  /// Keeps the pages of bus addresses, or looks whether they are kept.
  ///
  /// - Throws: as `keepClear`.
  @inline(never)
  private func keep(
    pagesOf first: UInt64, _ last: UInt64, _ reserving: Bool
  ) throws(Failure) {
    let mask = Device.granule.mask
    let pages = try IOVARange(first: IOVA(first & ~mask), last: IOVA(last | mask))
    if reserving {
      try keep(pages)
    } else if unkept(of: pages, isFree: true) != nil {
      throw .busy
    }
  }

  /// Keeps a range from being given out, as far as it can be and is not kept already.
  ///
  /// - Throws: `busy` when a part of it is given out; `noMemory`, and then another part may be kept.
  @inline(never)
  func keep(_ range: IOVARange) throws(Failure) {
    guard let queue = unsafe queue else { return }
    // It may be free but for what is queued.
    if unkept(of: range, isFree: false) != nil { unsafe queue.pointee.giveBackAll() }
    while let rest = unkept(of: range, isFree: true) {
      guard unkept(of: range, isFree: false) == nil else { throw .busy }
      do throws(Failure) {
        try unsafe queue.pointee.space.pointee.reserve(rest)
      } catch {
        // Somebody else may keep it at the same time.
        guard error == .busy else { throw error }
      }
    }
  }

  /// The first part of a range that could be given out, or is; or the first that is.
  @inline(never)
  private func unkept(of range: IOVARange, isFree: Bool) -> IOVARange? {
    guard let space = unsafe space, let part = unsafe range.part(in: space.pointee.bounds) else {
      return nil
    }
    return unsafe space.pointee.unreserved(in: part, isFree: isFree)
  }

  /// The alignment of an IOVA that lets a range of memory have the largest leaves it can: the
  /// largest leaf size that fits the range and that it starts at a multiple of.
  private func preferredAlignment(for pages: PhysicalRange) -> UInt64 {
    func fits(_ size: UInt64) -> Bool {
      pages.first.rawValue & (size &- 1) == 0 && pages.extent >= size &- 1
    }
    if fits(1 << 30) { return 1 << 30 }
    if fits(2 << 20) { return 2 << 20 }
    return Device.granule.bytes
  }

  /// Allocates an IOVA range for whole pages of memory and maps them there.
  ///
  /// - Parameters:
  ///   - limit, ranges: highest address that the device reaches, and which of them its bus passes.
  ///   - alignMask: bits of the memory's address that the IOVA has too, a power of two less one.
  /// - Throws: `notPermitted` in an unmanaged domain, `outOfRange` when no addresses of the space in a
  ///   row are so many, lie under the limit and are passed by the bus, or the memory is too wide for
  ///   the page table; `noSpace`, `noMemory`, what the backend fails with. Then nothing has changed.
  public func map(
    _ pages: PhysicalRange, access: Access, limit: UInt64, in ranges: borrowing DMARanges,
    alignMask: UInt64 = 0
  ) throws(Failure) -> IOVARange {
    guard pages.last <= table.facts.lastOutput else { throw .outOfRange }
    let range = try allocate(pages.extent, for: pages, limit, ranges, alignMask)
    do throws(Failure) {
      try fill(range, pages, access)
      return range
    } catch {
      free(range)
      throw error
    }
  }

  /// Maps an IOVA range that `allocate` returned, or a part of it.
  ///
  /// - Throws: as `map`.
  @inline(never)
  func fill(
    _ range: IOVARange, _ pages: PhysicalRange, _ access: Access
  ) throws(Failure) {
    guard let queue = unsafe queue, pages.last <= table.facts.lastOutput else {
      throw .outOfRange
    }
    // The space says that the range is free, whatever somebody wrote to the table's pages.
    let access = table.expressible(access)
    try table.map(range, to: pages.first, access: access, isKnownFree: true)
    do throws(Failure) {
      try unsafe queue.pointee.backend.map(range, to: pages.first, access)
    } catch {
      undo(range)
      throw error
    }
  }

  /// Unmaps what `fill` has mapped. The device may have used it already.
  func undo(_ range: IOVARange) {
    unmap(range)
    unsafe queue?.pointee.settle(range)
  }

  /// Allocates an IOVA range to map memory in that starts with these pages.
  ///
  /// - Parameters:
  ///   - alignMask: bits of the memory's address that the IOVA has too, a power of two less one.
  ///   - boundary: a power of two of which the range crosses no multiple, 0 for none.
  /// - Throws: as `map`.
  @inline(never)
  public func allocate(
    _ extent: UInt64, for pages: PhysicalRange, _ limit: UInt64, _ ranges: borrowing DMARanges,
    _ alignMask: UInt64 = 0, boundary: UInt64 = 0
  ) throws(Failure) -> IOVARange {
    guard let queue = unsafe queue else { throw .notPermitted }
    // Of all bits, the highest can be given up: no table translates it.
    let required =
      alignMask <= Device.granule.mask ? 0 : min(alignMask, UInt64.max &>> 1) &+ 1
    let preferred = max(preferredAlignment(for: pages), required)
    let first = pages.first.rawValue
    let range = try unsafe queue.pointee.retrying { () throws(Failure) in
      var alignment = preferred
      while true {
        do throws(Failure) {
          return try unsafe queue.pointee.allocate(
            extent, first, alignment, boundary, 0, limit, ranges)
        } catch {
          guard error == .noSpace, alignment > max(Device.granule.bytes, required) else {
            throw error
          }
          // Small leaves at a place that is not aligned are better than no place.
          alignment = required
        }
      }
    }
    if unsafe queue.pointee.system.pointee.peers.isEmpty { return range }
    return try unsafe queue.pointee.clearOfPeers(
      range, first, required, boundary, limit, ranges)
  }

  /// The most addresses in a row that `map` can find while nothing is mapped.
  public func room(under limit: UInt64, in ranges: borrowing DMARanges) -> UInt64 {
    guard let space = unsafe space else { return 0 }
    let bounds = unsafe space.pointee.bounds
    var most: UInt64 = 0
    for index in 0..<ranges.runCount {
      let run = ranges.run(index)
      let lowest = max(run.first, bounds.first.rawValue)
      let highest = min(run.last, min(limit, bounds.last.rawValue))
      var (first, next) = (lowest, lowest)
      while next <= highest {
        let (part, use) = unsafe space.pointee.use(at: IOVA(next))
        next = min(part.last.rawValue, highest) &+ 1
        // The space has not all addresses: its lowest page is never given out.
        if use == .reserved { first = next } else { most = max(most, next &- first) }
        if next == 0 { break }
      }
    }
    return most
  }

  /// Frees a range that `map` returned, when no translation of it is left.
  func free(_ range: IOVARange) { unsafe queue?.pointee.free(range) }

  /// Unmaps a range that `map` returned.
  func unmap(_ range: IOVARange) {
    do throws(Failure) {
      _ = try table.unmap(range, crossingHoles: true)
      unsafe queue?.pointee.backend.unmap(range.first.rawValue, range.last.rawValue)
    } catch {
      // The range is whole pages, and no leaf of another mapping reaches into it.
      assertionFailure("A mapping's range cannot be unmapped.")
    }
  }
}

extension FlushQueue {
  /// Allocates from the highest run of bus addresses that has room.
  ///
  /// - Parameters:
  ///   - extent: the size less one. It fits the space, so that it has a next number.
  ///   - target, alignment: an address, and the power of two to which the range's first is congruent with it;
  ///     0: to none.
  @inline(never)
  fileprivate func allocate(
    _ extent: UInt64, _ target: UInt64, _ alignment: UInt64, _ boundary: UInt64, _ lowest: UInt64,
    _ limit: UInt64, _ ranges: borrowing DMARanges
  ) throws(Failure) -> IOVARange {
    let bounds = unsafe space.pointee.bounds
    let skew = alignment == 0 ? 0 : target & (alignment &- 1)
    var failure = Failure.outOfRange
    var index = ranges.runCount
    while index > 0 {
      index &-= 1
      let run = ranges.run(index)
      let start = max(run.first, lowest)
      let highest = min(run.last, min(limit, bounds.last.rawValue))
      guard highest >= max(start, bounds.first.rawValue),
        highest &- max(start, bounds.first.rawValue) >= extent
      else { continue }
      do throws(Failure) {
        return try allocate(extent &+ 1, alignment, skew, boundary, start, highest)
      } catch {
        guard error == .noSpace else { throw error }
        failure = error
      }
    }
    throw failure
  }

  /// Allocates what a range takes between two addresses.
  private func allocate(
    _ size: UInt64, _ alignment: UInt64, _ skew: UInt64, _ boundary: UInt64, _ lowest: UInt64,
    _ highest: UInt64
  ) throws(Failure) -> IOVARange {
    func range(
      taking bytes: UInt64, _ alignment: UInt64, _ skew: UInt64, through highest: UInt64
    ) throws(Failure) -> IOVARange? {
      guard lowest <= highest else { return nil }
      do throws(Failure) {
        let first = try unsafe space.pointee.allocate(
          size: bytes,
          IOVAConstraints(
            alignment: alignment, skew: skew, boundary: boundary, first: lowest, last: highest))
        return try IOVARange(first: first, size: size)
      } catch {
        guard error == .noSpace else { throw error }
        return nil
      }
    }
    let most = takenMost(size, under: highest)
    var highest = highest
    if most != size {
      // Nothing of what it takes behind its end is ever reached.
      let behind = unsafe min(most &- size, space.pointee.bounds.last.rawValue &- highest)
      if skew & (most &- 1) == 0,
        let range = try range(
          taking: most, max(alignment, most), skew, through: highest &+ behind)
      {
        if unsafe space.pointee.isHigh(range.first.rawValue) { return range }
        try unsafe space.pointee.free(first: range.first, size: most)
      }
      // At an odd page it takes no more than it is, nor below 4 GiB.
      let page = Device.granule.bytes
      let isAnywhere = alignment <= page
      if isAnywhere || skew & (most &- 1) != 0,
        let range = try range(
          taking: size, max(alignment, 2 &* page), isAnywhere ? page : skew, through: highest)
      {
        return range
      }
      highest = unsafe space.pointee.lowest(upTo: highest) &- 1
    }
    guard let range = try range(taking: size, alignment, skew, through: highest) else {
      throw .noSpace
    }
    return range
  }

  /// The same range that was just allocated, if no part of it is a peer's by bus address; else another.
  ///
  /// - Throws: `noSpace` when there is none.
  @inline(never)
  fileprivate func clearOfPeers(
    _ range: IOVARange, _ target: UInt64, _ alignment: UInt64, _ boundary: UInt64,
    _ limit: UInt64, _ ranges: borrowing DMARanges
  ) throws(Failure) -> IOVARange {
    let bounds = unsafe space.pointee.bounds
    guard let bus = unsafe system.pointee.peerBus(range.first.rawValue, range.last.rawValue) else {
      return range
    }
    free(range)
    // So that it does not come again. Where that is too late, each call looks beside it.
    if let part = try? IOVARange(
      first: max(IOVA(bus.first), bounds.first), last: min(IOVA(bus.last), bounds.last))
    {
      unsafe try? space.pointee.reserve(part)
    }
    return try retrying { () throws(Failure) in
      try allocateBesidePeers(range.extent, target, alignment, boundary, limit, ranges)
    }
  }

  /// - Throws: `noSpace`, `noMemory`.
  @inline(never)
  private func allocateBesidePeers(
    _ extent: UInt64, _ target: UInt64, _ alignment: UInt64, _ boundary: UInt64,
    _ limit: UInt64, _ ranges: borrowing DMARanges
  ) throws(Failure) -> IOVARange {
    var highest = limit
    while true {
      let bus = unsafe system.pointee.peerBus(0, highest)
      // What is left above those, if they do not go up to the highest.
      if bus == nil || bus!.last < highest {
        do throws(Failure) {
          return try allocate(
            extent, target, alignment, boundary, bus.map { $0.last &+ 1 } ?? 0, highest, ranges)
        } catch {
          guard error == .noSpace || error == .outOfRange else { throw error }
        }
      }
      guard let below = bus?.first, below > 0 else { throw .noSpace }
      highest = below &- 1
    }
  }
}

extension IOVARange {
  fileprivate func part(in bounds: IOVARange) -> IOVARange? {
    try? IOVARange(first: max(first, bounds.first), last: min(last, bounds.last))
  }
}
