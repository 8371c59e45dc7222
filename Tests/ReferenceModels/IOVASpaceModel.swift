// SPDX-License-Identifier: MIT OR Apache-2.0

/// What an IOVA space does, for tests that run against several models.
///
/// Errors are the `errno` values of `iova.h`, thrown as `Refusal`.
public protocol IOVASpaceModel {
  /// The ranges in use, by their first addresses.
  var ranges: [IOVARangeModel] { get }
  var largestFree: UInt128 { get }
  var free: UInt128 { get }

  mutating func allocate(
    size: UInt64, _ constraints: IOVAConstraintsModel
  ) throws(Refusal) -> UInt64
  mutating func free(first: UInt64, size: UInt64) throws(Refusal)
  mutating func reserve(first: UInt64, last: UInt64) throws(Refusal)
  mutating func unreserve(first: UInt64, last: UInt64) throws(Refusal)
}

extension IOVASpaceModel {
  public mutating func allocate(
    size: UInt64, alignment: UInt64, limit: UInt64
  ) throws(Refusal) -> UInt64 {
    try allocate(size: size, IOVAConstraintsModel(alignment: alignment, last: limit))
  }
}

/// Where a range may lie, as `iova.h` has it.
public struct IOVAConstraintsModel: Sendable {
  public enum Placement: UInt32, CaseIterable, Sendable {
    case anywhere = 0
    case topDown = 1
    case bottomUp = 2
    case exact = 3
  }

  public var placement: Placement
  public var alignment: UInt64
  public var skew: UInt64
  public var boundary: UInt64
  public var first: UInt64
  public var last: UInt64

  public init(
    placement: Placement = .anywhere, alignment: UInt64 = 0, skew: UInt64 = 0,
    boundary: UInt64 = 0, first: UInt64 = 0, last: UInt64 = UInt64.max
  ) {
    self.placement = placement
    self.alignment = alignment
    self.skew = skew
    self.boundary = boundary
    self.first = first
    self.last = last
  }
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
    size: UInt64, _ constraints: IOVAConstraintsModel
  ) throws(Refusal) -> UInt64 {
    guard let size = wholeGranules(size),
      let request = SortedRangesRequest(size: size, granule: granule, constraints)
    else { throw .invalid }
    let gaps = constraints.placement == .bottomUp ? gaps : gaps.reversed()
    let place =
      gaps.lazy.filter { request.isSure($0.start, $0.end) }
      .compactMap { request.place($0.start, $0.end) }.first
      ?? gaps.lazy.compactMap { request.place($0.start, $0.end) }.first
    guard let place else { throw .noSpace }
    insert(IOVARangeModel(start: place, end: place + size, isReserved: false))
    return UInt64(place)
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
