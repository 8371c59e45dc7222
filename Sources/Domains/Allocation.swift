// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import PageTables
import Primitives

/// Memory that was allocated for a device: whole pages, in one segment or in several.
///
/// It lies in a heap cell, with its segments behind it, to which the record of the allocation leads. Who
/// has claimed the record has the allocation to itself.
@safe
public struct Allocation {
  public typealias Link = UnsafeMutablePointer<Allocation>

  /// Whether it is a pool's, which alone may free it.
  public let isOfPool: Bool
  /// What was declared for the device and has the memory, held; nil if that is from the system.
  fileprivate let declared: UnsafeMutablePointer<DeclaredMemory>?
  /// The mapping functions that gave the memory, and its address of the device's; nil if none did.
  public let ops: UnsafeMutablePointer<MappingOps>?
  public fileprivate(set) var address: UInt64 = 0
  public fileprivate(set) var count: Int
  fileprivate let capacity: Int
  public let segments: UnsafeMutablePointer<dmacore_memory_segment>

  /// Where a segment is.
  ///
  /// - Throws: nothing: it was made of such a range.
  public func memory(_ index: Int) throws(Failure) -> PhysicalRange {
    let segment = unsafe segments[index]
    return try unsafe PhysicalRange(first: PhysicalAddress(segment.phys), size: segment.size)
  }

  /// Bytes in all segments, which are as many as somebody asked for.
  var size: UInt64 {
    var size: UInt64 = 0
    for index in 0..<count { unsafe size &+= segments[index].size }
    return size
  }

  /// One with room for so many segments, and with those of another, whose cell is freed.
  ///
  /// - Throws: `noMemory`. Then the other is as it was.
  @inline(never)
  fileprivate static func place(
    capacity: Int, isOfPool: Bool, _ declared: UnsafeMutablePointer<DeclaredMemory>?,
    _ ops: UnsafeMutablePointer<MappingOps>?, replacing old: Link? = nil
  ) throws(Failure) -> Link {
    let header = MemoryLayout<Allocation>.stride
    let raw = unsafe try RawMemory.allocate(
      header &+ capacity &* MemoryLayout<dmacore_memory_segment>.stride, alignment: 16)
    // SAFETY: the memory is one `Allocation` long and then `capacity` segments, both aligned.
    let cell = unsafe raw.bindMemory(to: Allocation.self, capacity: 1)
    // SAFETY: likewise.
    let segments = unsafe (raw + header).bindMemory(
      to: dmacore_memory_segment.self, capacity: capacity)
    var count = 0
    if let old = unsafe old {
      count = unsafe old.pointee.count
      unsafe segments.initialize(from: old.pointee.segments, count: count)
      unsafe RawMemory.free(old)
    }
    unsafe cell.initialize(
      to: Allocation(
        isOfPool: isOfPool, declared: declared, ops: ops, count: count, capacity: capacity,
        segments: segments))
    return unsafe cell
  }
}

extension System {
  /// Zeroed pages for a device: of memory that was declared for it, which is held for this, or from its
  /// mapping functions, or else of the system's. In one segment if it is to be whole, else in as few as
  /// there are.
  ///
  /// - Throws: `notSupported` when nobody can say where the memory comes from, `noMemory`, `badAddress`
  ///   when the caller's allocator gave memory that is not the system's, not writable or not whole
  ///   pages. Then the declared memory has been let go of.
  @_optimize(size)
  public func allocateMemory(
    size: UInt64, limit: UInt64, isCoherent: Bool = true, isWhole: Bool = true,
    isOfPool: Bool = false, from declared: UnsafeMutablePointer<DeclaredMemory>? = nil,
    by ops: UnsafeMutablePointer<MappingOps>? = nil
  ) throws(Failure) -> Allocation.Link {
    var allocation: Allocation.Link
    do throws(Failure) {
      unsafe allocation = try Allocation.place(
        capacity: 1, isOfPool: isOfPool, declared, ops)
    } catch {
      if let declared = unsafe declared { unsafe Box.letGo(declared) }
      throw error
    }
    do throws(Failure) {
      var left = size
      var most = size
      while left > 0 {
        // Of a size that fits the process there are not so many pages that a count of them overflows.
        let count = unsafe allocation.pointee.count
        if unsafe count == allocation.pointee.capacity {
          unsafe allocation = try Allocation.place(
            capacity: count &* 2, isOfPool: isOfPool, declared, ops, replacing: allocation)
        }
        let wanted = min(left, most)
        do throws(Failure) {
          unsafe allocation.pointee.segments[count] = try segment(
            wanted, limit, isCoherent, allocation)
          unsafe allocation.pointee.count = count &+ 1
          left &-= wanted
        } catch {
          // The process's heap is no better at halves.
          guard error == .noMemory && !isWhole && canBeAsked, wanted > Device.granule.bytes else {
            throw error
          }
          most = (wanted >> 1 &+ Device.granule.mask) & ~Device.granule.mask
        }
      }
      return unsafe allocation
    } catch {
      unsafe freeMemory(allocation)
      throw error
    }
  }

  private func segment(
    _ size: UInt64, _ limit: UInt64, _ isCoherent: Bool,
    _ allocation: Allocation.Link
  ) throws(Failure) -> dmacore_memory_segment {
    guard let bytes = Int(exactly: size) else { throw .noMemory }
    let segment =
      if let declared = unsafe allocation.pointee.declared {
        unsafe try declared.pointee.allocate(size, limit)
      } else if let ops = unsafe allocation.pointee.ops {
        unsafe try ops.pointee.allocate(size, limit, &allocation.pointee.address, in: self)
      } else {
        unsafe try takePages(size: size, limit: limit, isCoherent: isCoherent)
      }
    unsafe RawMemory.clear(segment.cpu, size: bytes)
    if !isCoherent {
      let memory = try unsafe PhysicalRange(first: PhysicalAddress(segment.phys), size: size)
      maintainCaches(of: memory, .bidirectional, forCPU: false)
    }
    return unsafe segment
  }

  /// Frees an allocation; or what is known of it alone, when somebody holds its pages, who then has them
  /// for good.
  @inline(never)
  public func freeMemory(_ allocation: Allocation.Link, isHeld: Bool = false) {
    let declared = unsafe allocation.pointee.declared
    for index in unsafe 0..<(isHeld ? 0 : allocation.pointee.count) {
      let segment = unsafe allocation.pointee.segments[index]
      if let declared = unsafe declared {
        unsafe declared.pointee.free(segment)
      } else if let ops = unsafe allocation.pointee.ops {
        unsafe ops.pointee.free(segment, allocation.pointee.address)
        unsafe unpin(segment)
      } else {
        unsafe givePagesBack(segment)
      }
    }
    unsafe RawMemory.free(allocation)
    if let declared = unsafe declared { unsafe Box.letGo(declared) }
  }
}

// MARK: - Translated

extension Domain {
  /// Maps the segments of an allocation one behind the other, at addresses of the domain's choice, and tells
  /// the listeners.
  ///
  /// - Throws: as `Translation.map`. Then nothing has changed.
  public func map(
    _ allocation: Allocation.Link, access: Access, limit: UInt64, in ranges: borrowing DMARanges
  ) throws(Failure) -> IOVARange {
    guard let translation = unsafe translation else { throw .notPermitted }
    let range = try unsafe translation.pointee.allocate(
      allocation.pointee.size &- 1, for: allocation.pointee.memory(0), limit, ranges)
    var next = range.first.rawValue
    do throws(Failure) {
      for index in unsafe 0..<allocation.pointee.count {
        let memory = try unsafe allocation.pointee.memory(index)
        try fill(next, memory, access)
        next = next &+ memory.extent &+ 1
      }
      return range
    } catch {
      abandon(range, before: next)
      throw error
    }
  }

  /// Maps whole pages into a part of a range of the domain's choice, and tells the listeners.
  ///
  /// The caller keeps the domain, by a cell of a mapping table.
  ///
  /// - Throws: as `Translation.map`. Then nothing has changed.
  @inline(never)
  public func fill(_ first: UInt64, _ pages: PhysicalRange, _ access: Access) throws(Failure) {
    guard let translation = unsafe translation else { throw .notPermitted }
    let part = try IOVARange(first: IOVA(first), size: pages.extent &+ 1)
    try takingTables { () throws(Failure) in
      try unsafe translation.pointee.fill(part, pages, access)
    }
    notifiers.tell(
      .mapped(part, to: pages.first, unsafe translation.pointee.table.expressible(access)))
  }

  /// Unmaps what `fill` has mapped of a range below an address, strictly, and tells the listeners.
  @inline(never)
  public func withdraw(_ first: UInt64, before next: UInt64) {
    guard let done = try? IOVARange(first: IOVA(first), size: next &- first) else { return }
    unsafe translation?.pointee.undo(done)
    notifiers.tell(.unmapped(done.first.rawValue, done.last.rawValue))
  }

  /// As `withdraw`, and lets others have the whole range.
  @inline(never)
  public func abandon(_ range: IOVARange, before next: UInt64) {
    withdraw(range.first.rawValue, before: next)
    unsafe translation?.pointee.free(range)
  }
}
