// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Primitives

/// Where in a transfer somebody is who goes through its segments, in memory of the caller's (`struct
/// dmacore_transfer_iterator`).
@safe
public struct TransferIterator {
  private let device: UnsafeMutablePointer<Device>
  // What a segment has at most, less one, and the mask of the blocks that none reaches out of.
  private var extentMax = UInt64.max
  private var boundary = UInt64.max
  // A run of addresses: the next one, how many are left, and whether it is a segment of its own.
  private var dma: UInt64 = 0
  private var left: UInt64 = 0
  private var isAlone = false
  // How many bytes of the transfer come behind the run.
  private var behind: UInt64
  // What yields the next run: the ranges of a request, or the entries that were allocated.
  private let form: Transfer.Form
  private var reader: RangeReader
  private var entry: UnsafeMutableRawPointer? = nil

  /// - Throws: `invalidArgument` when nothing is mapped, or the request's ranges end before the offset;
  ///   `tooBig` when that is not within the transfer.
  public init(
    _ device: UnsafeMutablePointer<Device>, _ request: TransferRequest, _ transfer: Transfer,
    from offset: UInt64
  ) throws(Failure) {
    guard transfer.form != .none else { throw .invalidArgument }
    _ = try transfer.part(offset, 0)
    unsafe self.device = device
    behind = transfer.size
    form = transfer.form
    reader = request.reader
    var skipped = offset
    switch form {
    case .none, .direct: break
    case .range:
      (dma, left, behind) = (transfer.place, transfer.size, 0)
    case .list:
      unsafe entry = TransferList(of: transfer).map { unsafe UnsafeMutableRawPointer($0.entries) }
    case .registration:
      guard let registration = Registration(of: transfer) else { break }
      let index = registration.index(of: offset)
      unsafe entry = UnsafeMutableRawPointer(registration.entries + index)
      let start = unsafe registration.entries[index].offset
      behind &-= start
      skipped &-= start
    }
    // What is skipped has no limits.
    var segment = dmacore_segment()
    while skipped > 0 {
      extentMax = skipped &- 1
      guard unsafe try next(&segment, capacity: 1) == 1 else { throw .invalidArgument }
      skipped &-= segment.size
    }
    (extentMax, boundary) = unsafe request.limits(of: device.pointee)
  }

  @inline(__always)
  private mutating func take(_ size: UInt64) {
    dma &+= size
    left &-= size
  }

  /// Goes to the next run. Returns whether there is one.
  ///
  /// - Throws: `invalidArgument` when the ranges are not those that were mapped, `badAddress` where nothing
  ///   is mapped any more.
  @inline(__always)
  private mutating func advance() throws(Failure) -> Bool {
    guard form == .direct else { return try advanceAllocated() }
    guard let (memory, isMMIO) = try reader.stepApart() else {
      guard behind == 0 else { throw .invalidArgument }
      return false
    }
    guard let bus = unsafe device.pointee.ranges.bus(of: memory), memory.extent < behind else {
      throw .invalidArgument
    }
    (dma, left, isAlone) = (bus.first.rawValue, memory.extent &+ 1, isMMIO)
    behind &-= left
    return true
  }

  @inline(never)
  private mutating func advanceAllocated() throws(Failure) -> Bool {
    guard behind > 0, let place = unsafe entry else { return false }
    if form == .list {
      // SAFETY: the entries of a list have all bytes of it.
      let segment = unsafe place.assumingMemoryBound(to: dmacore_sg.self)
      // Whoever made it has put together what belongs together.
      (dma, left, isAlone) = unsafe (segment.pointee.dma, segment.pointee.dma_size, true)
      unsafe entry = UnsafeMutableRawPointer(segment + 1)
    } else {
      // SAFETY: likewise.
      let range = unsafe place.assumingMemoryBound(to: RegisteredRange.self)
      guard unsafe range.pointee.isMapped else { throw .badAddress }
      (dma, left, isAlone) = unsafe (
        range.pointee.dma, range.pointee.size, range.pointee.isAlone
      )
      unsafe entry = UnsafeMutableRawPointer(range + 1)
    }
    behind &-= left
    return true
  }

  /// Puts ranges of an array there of which each is a segment, as many as come first and are where the bus has
  /// them. Returns how many.
  @inline(__always)
  private mutating func passWhole(
    _ segments: UnsafeMutablePointer<dmacore_segment>, capacity: Int
  ) -> Int {
    guard form == .direct, left == 0, boundary == UInt64.max, let array = unsafe reader.array,
      unsafe device.pointee.ranges.isEmpty
    else { return 0 }
    let extentMax = extentMax
    // The one behind it says whether it goes on.
    var left = unsafe min(capacity, array.count &- 1)
    guard left > 0 else { return 0 }
    var (from, to, passed) = unsafe (array.ranges, segments, UInt64(0))
    var (phys, size) = unsafe (from.pointee.phys, from.pointee.size)
    repeat {
      let flags = unsafe from.pointee.flags | from.pointee.reserved
      let (nextPhys, nextSize) = unsafe (from[1].phys, from[1].size)
      // The extent of nothing is the largest.
      guard size &- 1 <= extentMax, flags == 0, nextPhys != phys &+ size else { break }
      unsafe to.pointee = dmacore_segment(dma: phys, size: size)
      unsafe from += 1
      unsafe to += 1
      passed &+= size
      (phys, size) = (nextPhys, nextSize)
      left &-= 1
    } while left > 0
    var count = unsafe to - segments
    // What adjoins may come behind nothing.
    if size == 0 && count > 0 {
      count &-= 1
      passed &-= unsafe segments[count].size
    }
    // More than there was when it was mapped: what is wrong is found one by one.
    guard passed <= behind else { return 0 }
    behind &-= passed
    reader.pass(count)
    return count
  }

  /// Puts the next segments where there is room for some, and returns how many: fewer only behind the last.
  ///
  /// - Throws: as `advance`.
  @inline(never)
  @_optimize(speed)
  public mutating func next(
    _ segments: UnsafeMutablePointer<dmacore_segment>, capacity: Int
  ) throws(Failure) -> Int {
    var count = unsafe passWhole(segments, capacity: capacity)
    if count == capacity { return count }
    // The segment that comes next: from where to where, and how much more it may have.
    var (first, last, room) = (UInt64(0), UInt64(0), UInt64(0))
    var isOpen = false
    while true {
      if left == 0 {
        guard try advance() else { break }
      }
      if !isOpen || room == 0 || isAlone || dma == 0 || last != dma &- 1 {
        if isOpen {
          unsafe segments[count] = dmacore_segment(dma: first, size: last &- first &+ 1)
          count &+= 1
          isOpen = false
          if count == capacity { return count }
        }
        // The first byte takes no room.
        first = dma
        last = first &- 1
        room = min(extentMax, boundary &- (first & boundary))
        room = room == UInt64.max ? room : room &+ 1
      }
      let size = min(left, room)
      isOpen = true
      last &+= size
      // What is alone gets no more.
      room = isAlone ? 0 : room &- size
      take(size)
    }
    if isOpen {
      unsafe segments[count] = dmacore_segment(dma: first, size: last &- first &+ 1)
      count &+= 1
    }
    return count
  }

  /// Whether there are no more segments than some number.
  @inline(never)
  func count(upTo most: UInt64) throws(Failure) -> Bool {
    var iterator = self
    return try unsafe withUnsafeTemporaryAllocation(
      of: dmacore_segment.self, capacity: 16
    ) { (segments) throws(Failure) -> Bool in
      var count: UInt64 = 0
      while count <= most {
        let made = unsafe try iterator.next(segments.baseAddress!, capacity: segments.count)
        count &+= UInt64(made)
        if made < segments.count { return count <= most }
      }
      return false
    }
  }
}
