// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Primitives

/// Reads ranges of memory, one after another.
@safe
struct RangeReader {
  // What is left of an array; nil where a callback yields the ranges.
  private var ranges: UnsafePointer<dmacore_phys_range>?
  private var left: Int
  private let next: dmacore_next_range_fn?
  private let opaque: UnsafeMutableRawPointer?
  private var cursor: (UInt64, UInt64) = (0, 0)

  /// Those of a request: of an array, or a callback.
  init(
    ranges: UnsafePointer<dmacore_phys_range>?, left: Int, next: dmacore_next_range_fn?,
    opaque: UnsafeMutableRawPointer?
  ) {
    unsafe self.ranges = ranges
    self.left = left
    unsafe self.next = next
    unsafe self.opaque = opaque
  }

  /// Those of a list, which is read as the walk goes on.
  init(_ walk: UnsafeMutablePointer<ListWalk>) {
    unsafe self.init(
      ranges: nil, left: 0,
      next: { (_, range, opaque) in
        // SAFETY: it is the walk that is given below.
        let walk = unsafe opaque.unsafelyUnwrapped.assumingMemoryBound(to: ListWalk.self)
        do throws(Failure) {
          guard let entry = unsafe try walk.pointee.step() else { return false }
          unsafe range.unsafelyUnwrapped.pointee = dmacore_phys_range(
            phys: entry.pointee.phys, size: entry.pointee.size,
            flags: entry.pointee.flags & DMACORE_SG_MMIO.rawValue, reserved: 0)
        } catch {
          // Which no range has.
          unsafe range.unsafelyUnwrapped.pointee.reserved = 1
        }
        return true
      }, opaque: UnsafeMutableRawPointer(walk))
  }

  /// The next range that has bytes, nil behind the last; and whether it is of registers.
  ///
  /// - Throws: `invalidArgument` for what is no range.
  @inline(__always)
  mutating func step() throws(Failure) -> (memory: PhysicalRange, isMMIO: Bool)? {
    while true {
      var range = dmacore_phys_range()
      if let place = unsafe ranges {
        guard left != 0 else { return nil }
        left &-= 1
        range = unsafe place.pointee
        unsafe ranges = place + 1
      } else if !ask(&range) {
        return nil
      }
      guard range.flags & ~DMACORE_RANGE_MMIO.rawValue == 0, range.reserved == 0 else {
        throw .invalidArgument
      }
      if range.size == 0 { continue }
      return (
        try PhysicalRange(first: PhysicalAddress(range.phys), size: range.size), range.flags != 0
      )
    }
  }

  @inline(never)
  private mutating func ask(_ range: inout dmacore_phys_range) -> Bool {
    guard let next = unsafe next else { return false }
    return unsafe withUnsafeMutablePointer(to: &cursor) { words in
      // SAFETY: a pair of words is two words in memory.
      unsafe next(
        UnsafeMutableRawPointer(words).assumingMemoryBound(to: UInt64.self), &range, opaque)
    }
  }

  /// What is left of an array; nil where a callback yields the ranges.
  @inline(__always)
  var array: (ranges: UnsafePointer<dmacore_phys_range>, count: Int)? {
    unsafe ranges.map { unsafe ($0, left) }
  }

  /// Passes ranges of an array, which has so many.
  @inline(__always)
  mutating func pass(_ count: Int) {
    unsafe ranges = ranges.map { unsafe $0 + count }
    left &-= count
  }

  /// As `step`, once in the library.
  @inline(never)
  mutating func stepApart() throws(Failure) -> (memory: PhysicalRange, isMMIO: Bool)? {
    try step()
  }

  /// How many ranges there are, and how many bytes.
  ///
  /// - Throws: `tooBig` for more than a transfer can have, `invalidArgument` for none.
  func measure() throws(Failure) -> (count: Int, size: UInt64) {
    var (reader, count, size) = (self, 0, UInt64(0))
    while let (memory, _) = try reader.stepApart() {
      size = try Transfer.sum(size, memory)
      count &+= 1
    }
    guard size > 0 else { throw .invalidArgument }
    return (count, size)
  }
}

extension Device {
  // A range that a tag has room for is that many pages.
  static var runsMax: Int { Int(taggedReach &>> 12) &+ 1 }

  /// Maps memory whose ranges meet at pages, if it is little, at addresses in a row. Returns the first, and how
  /// many bytes there are; nil if it is not so mapped.
  ///
  /// - Parameters:
  ///   - attributes: with a mark.
  ///   - extentMax, boundary: the most bytes, less one, and the mask of the block that they are to be in.
  /// - Throws: `invalidArgument` when what is read is no memory.
  @inline(never)
  func mapTagged(
    _ reader: RangeReader, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit, extentMax: UInt64, boundary: UInt64
  ) throws(Failure) -> (address: DMAAddress, size: UInt64)? {
    guard !attributes.contains(.mmio) else { return nil }
    return unsafe try withUnsafeTemporaryAllocation(
      of: PhysicalRange.self, capacity: Self.runsMax
    ) { (runs) throws(Failure) -> (DMAAddress, UInt64)? in
      let mask = Self.granule.mask
      var reader = reader
      var (start, size, count) = (UInt64(0), UInt64(0), 0)
      var run: PhysicalRange? = nil
      while let (memory, isMMIO) = try reader.step() {
        let before = run
        if before == nil { start = memory.first.rawValue }
        let offset = start & mask
        guard !isMMIO, memory.extent <= Self.taggedReach,
          size &+ memory.extent <= min(extentMax, Self.taggedReach &- offset),
          // Addresses in a cache are aligned to their size.
          size &+ memory.extent <= boundary &- (offset & boundary)
        else { return nil }
        size &+= memory.extent &+ 1
        run = memory
        guard let before else { continue }
        if before.last < memory.first && before.last.rawValue == memory.first.rawValue &- 1 {
          run = PhysicalRange(before.first, through: memory.last)
          continue
        }
        // There is room: each run but the last has a page of its own, and all are within reach.
        guard (before.last.rawValue &+ 1 | memory.first.rawValue) & mask == 0 else { return nil }
        unsafe runs[count] = before.rounded(to: Self.granule)
        count &+= 1
      }
      guard let run else { throw .invalidArgument }
      unsafe runs[count] = run.rounded(to: Self.granule)
      return unsafe mapTagged(
        start, size &- 1, UnsafeBufferPointer(start: runs.baseAddress, count: count &+ 1),
        direction, attributes, limit
      ).map { ($0, size) }
    }
  }
}
