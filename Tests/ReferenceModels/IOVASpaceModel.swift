// SPDX-License-Identifier: MIT OR Apache-2.0

/// What an IOVA space does, for tests that run against several models.
///
/// Errors are the `errno` values of `iova.h`, thrown as `Refusal`.
public protocol IOVASpaceModel {
  /// The ranges in use, by their first addresses.
  var ranges: [IOVARangeModel] { get }
  var largestFree: UInt128 { get }
  var free: UInt128 { get }

  mutating func allocate(size: UInt64, alignment: UInt64, limit: UInt64) throws(Refusal) -> UInt64
  mutating func free(first: UInt64, size: UInt64) throws(Refusal)
  mutating func reserve(first: UInt64, last: UInt64) throws(Refusal)
  mutating func unreserve(first: UInt64, last: UInt64) throws(Refusal)
}

/// A range in use. Sizes and ends have twice the bits of an address, so that nothing here wraps.
public struct IOVARangeModel: Equatable, Sendable {
  public let start: UInt128
  public let end: UInt128
  public let isReserved: Bool

  public var first: UInt64 { UInt64(start) }
  public var last: UInt64 { UInt64(end - 1) }
  public var size: UInt128 { end - start }
}

/// An IOVA space as a sorted array of the ranges in use.
public struct SortedRangesModel: IOVASpaceModel {
  private let start: UInt128
  private let end: UInt128
  private let granule: UInt128
  public private(set) var ranges: [IOVARangeModel] = []

  public init(first: UInt64, last: UInt64, granule: UInt64) {
    start = UInt128(first)
    end = UInt128(last) + 1
    self.granule = UInt128(granule)
  }

  private var gaps: [(start: UInt128, end: UInt128)] {
    let starts = [start] + ranges.map(\.end)
    let ends = ranges.map(\.start) + [end]
    return zip(starts, ends).filter { $0 < $1 }.map { ($0, $1) }
  }

  public var largestFree: UInt128 { gaps.map { $0.end - $0.start }.max() ?? 0 }
  public var free: UInt128 { gaps.map { $0.end - $0.start }.reduce(0, +) }

  public mutating func allocate(
    size: UInt64, alignment: UInt64, limit: UInt64
  ) throws(Refusal) -> UInt64 {
    guard let size = wholeGranules(size), alignment.nonzeroBitCount <= 1 else { throw .invalid }
    let alignment = max(UInt128(alignment), granule)
    for gap in gaps.reversed() {
      let top = min(gap.end, UInt128(limit) + 1)
      guard top >= size else { continue }
      let place = (top - size) / alignment * alignment
      guard place >= gap.start else { continue }
      insert(IOVARangeModel(start: place, end: place + size, isReserved: false))
      return UInt64(place)
    }
    throw .noSpace
  }

  public mutating func free(first: UInt64, size: UInt64) throws(Refusal) {
    guard let size = wholeGranules(size) else { throw .invalid }
    try remove(start: UInt128(first), end: UInt128(first) + size, isReserved: false)
  }

  public mutating func reserve(first: UInt64, last: UInt64) throws(Refusal) {
    let (low, high) = (UInt128(first), UInt128(last) + 1)
    guard low < high, low % granule == 0, high % granule == 0 else { throw .invalid }
    guard low >= start, high <= end else { throw .outOfRange }
    guard ranges.allSatisfy({ $0.end <= low || $0.start >= high }) else { throw .busy }
    insert(IOVARangeModel(start: low, end: high, isReserved: true))
  }

  public mutating func unreserve(first: UInt64, last: UInt64) throws(Refusal) {
    guard first <= last else { throw .invalid }
    try remove(start: UInt128(first), end: UInt128(last) + 1, isReserved: true)
  }

  private func wholeGranules(_ size: UInt64) -> UInt128? {
    let rounded = (UInt128(size) + granule - 1) / granule * granule
    return size > 0 && rounded <= UInt128(UInt64.max) ? rounded : nil
  }

  private mutating func insert(_ range: IOVARangeModel) {
    ranges.append(range)
    ranges.sort { $0.start < $1.start }
  }

  private mutating func remove(
    start: UInt128, end: UInt128, isReserved: Bool
  ) throws(Refusal) {
    let range = IOVARangeModel(start: start, end: end, isReserved: isReserved)
    guard let index = ranges.firstIndex(of: range) else { throw .invalid }
    ranges.remove(at: index)
  }
}
