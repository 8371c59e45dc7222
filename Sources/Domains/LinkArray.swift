// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// Memory that is linked into a reserved range.
public struct MemoryLink {
  /// Where it starts in the range, and how many bytes follow its first.
  public let first: UInt64
  public let extent: UInt64
  public let target: UInt64
  public let attributes: MappingAttributes
  public let direction: Direction
  /// Whether the pages at its ends are copied.
  public let isBounced: Bool

  public init(
    first: UInt64, _ memory: PhysicalRange, _ direction: Direction,
    _ attributes: MappingAttributes, isBounced: Bool
  ) {
    self.first = first
    extent = memory.extent
    target = memory.first.rawValue
    self.attributes = attributes
    self.direction = direction
    self.isBounced = isBounced
  }

  public var last: UInt64 { first &+ extent }
}

/// The links of a reserved range, in order. Confined to the range's owner; the record of the range knows where
/// they are, so that they end with it.
///
/// An array, as links mostly come one behind the other: then each is added at the end, and found by halves.
@safe
public struct LinkArray {
  private let links: UnsafeMutablePointer<MemoryLink>

  /// - Throws: `noMemory`.
  public init(capacity: Int) throws(Failure) {
    let raw = unsafe try RawMemory.allocate(
      capacity * MemoryLayout<MemoryLink>.stride, alignment: MemoryLayout<MemoryLink>.alignment)
    // SAFETY: the allocation has room for so many and holds nothing else.
    unsafe links = raw.bindMemory(to: MemoryLink.self, capacity: capacity)
  }

  /// Those of a record, nil if there are none.
  public init?(of record: MappingRecord) {
    // SAFETY: the target of such a record is what `address` returned, or 0.
    guard let links = unsafe UnsafeMutablePointer<MemoryLink>(bitPattern: UInt(record.target))
    else {
      return nil
    }
    unsafe self.links = links
  }

  public func free() { unsafe RawMemory.free(UnsafeMutableRawPointer(links)) }

  /// For the record.
  public var address: UInt64 { unsafe UInt64(UInt(bitPattern: links)) }

  // The caller keeps the count, and `index` below it.

  public subscript(_ index: Int) -> MemoryLink { unsafe links[index] }

  public func insert(_ link: MemoryLink, at index: Int, of count: Int) {
    if index < count { unsafe move(links + index, to: index &+ 1, count &- index) }
    unsafe links[index] = link
  }

  public func remove(_ range: Range<Int>, of count: Int) {
    unsafe move(links + range.upperBound, to: range.lowerBound, count &- range.upperBound)
  }

  /// The links of another array, which there is room for.
  public func take(_ count: Int, from other: LinkArray) { unsafe move(other.links, to: 0, count) }

  private func move(_ first: UnsafeMutablePointer<MemoryLink>, to index: Int, _ count: Int) {
    unsafe UnsafeMutableRawPointer(links + index).copyMemory(
      from: first, byteCount: count &* MemoryLayout<MemoryLink>.stride)
  }

  /// How many links of so many start before an offset.
  public func count(before offset: UInt64, of count: Int) -> Int {
    guard count > 0, unsafe links[count &- 1].first >= offset else { return count }
    var (low, high) = (0, count &- 1)
    while low < high {
      let middle = (low &+ high) >> 1
      if unsafe links[middle].first < offset { low = middle &+ 1 } else { high = middle }
    }
    return low
  }
}
