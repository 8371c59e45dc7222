// SPDX-License-Identifier: MIT OR Apache-2.0

/// A small IOVA space as one cell a granule, searched cell by cell.
public struct GranuleMapModel: IOVASpaceModel {
  private let first: Int
  private let granule: Int
  // For each granule the number of the range that has it, or nil.
  private var owners: [Int?]
  private var reserved: Set<Int> = []
  private var nextNumber = 0

  public init(first: UInt64, last: UInt64, granule: UInt64) {
    self.first = Int(first)
    self.granule = Int(granule)
    owners = Array(repeating: nil, count: (Int(last) + 1 - Int(first)) / Int(granule))
  }

  private func address(_ index: Int) -> Int { first + index * granule }

  public var ranges: [IOVARangeModel] {
    var ranges: [IOVARangeModel] = []
    for index in owners.indices {
      guard let owner = owners[index], index == 0 || owners[index - 1] != owner else { continue }
      let end = owners[index...].firstIndex { $0 != owner } ?? owners.count
      ranges.append(
        IOVARangeModel(
          start: UInt128(address(index)), end: UInt128(address(end)),
          isReserved: reserved.contains(owner)))
    }
    return ranges
  }

  public var free: UInt128 { UInt128(owners.count { $0 == nil } * granule) }

  public var largestFree: UInt128 {
    var longest = 0
    var current = 0
    for owner in owners {
      current = owner == nil ? current + 1 : 0
      longest = max(longest, current)
    }
    return UInt128(longest * granule)
  }

  public mutating func allocate(
    size: UInt64, _ constraints: IOVAConstraintsModel
  ) throws(Refusal) -> UInt64 {
    guard let count = granuleCount(size), isValid(constraints, count) else { throw .invalid }
    let fitting = owners.indices.filter { fits($0, count, constraints) }
    let sure = fitting.filter { isSure(gap(around: $0), count, constraints) }
    // Of the places in the gap that is furthest up, or down, the one furthest there is in it, too.
    let candidates = sure.isEmpty ? fitting : sure
    let found = constraints.placement == .bottomUp ? candidates.min() : candidates.max()
    guard let found else { throw .noSpace }
    occupy(found..<found + count, isReserved: false)
    return UInt64(address(found))
  }

  private func isValid(_ constraints: IOVAConstraintsModel, _ count: Int) -> Bool {
    let powers = (0..<63).map { UInt64(1) << UInt64($0) }
    let (boundary, skew) = (constraints.boundary, constraints.skew)
    guard constraints.alignment == 0 || powers.contains(constraints.alignment),
      boundary == 0 || powers.contains(boundary) && boundary >= UInt64(count * granule),
      skew % UInt64(granule) == 0,
      skew == 0 || skew < constraints.alignment, constraints.first <= constraints.last
    else { return false }
    return constraints.placement != .exact || constraints.first % UInt64(granule) == 0
  }

  /// Whether so many granules from an index on are free and fulfil the constraints.
  private func fits(_ index: Int, _ count: Int, _ constraints: IOVAConstraintsModel) -> Bool {
    guard index + count <= owners.count,
      owners[index..<index + count].allSatisfy({ $0 == nil })
    else { return false }
    let (place, end) = (address(index), address(index + count))
    let alignment = max(Int(constraints.alignment), granule)
    if place % alignment != Int(constraints.skew) { return false }
    if constraints.boundary != 0 {
      let boundary = Int(constraints.boundary)
      if place / boundary != (end - 1) / boundary { return false }
    }
    if constraints.placement == .exact && UInt64(place) != constraints.first { return false }
    return UInt64(place) >= constraints.first && UInt64(end - 1) <= constraints.last
  }

  /// The free granules around a free one.
  private func gap(around index: Int) -> Range<Int> {
    let start = owners[..<index].lastIndex { $0 != nil }.map { $0 + 1 } ?? 0
    let end = owners[index...].firstIndex { $0 != nil } ?? owners.count
    return start..<end
  }

  /// Whether a gap has room for a request whichever way it lies, by the rule that `iova.h` hints at.
  private func isSure(
    _ gap: Range<Int>, _ count: Int, _ constraints: IOVAConstraintsModel
  ) -> Bool {
    let alignment = max(Int(constraints.alignment), granule) / granule
    // The first granule of the space has a number, too.
    let base = first / granule
    func holdsBlock(_ length: Int) -> Bool {
      gap.contains { (base + $0) % length == 0 && $0 + length <= gap.upperBound }
    }
    if alignment == 1 && constraints.boundary == 0 { return gap.count >= count }
    if alignment == count && constraints.skew == 0 { return holdsBlock(count) }
    var block = 1
    while block < max(count, alignment) { block *= 2 }
    if constraints.skew == 0 && holdsBlock(block) { return true }
    let length = count + alignment - 1
    let boundary = Int(min(constraints.boundary, 1 << 40)) / granule
    guard boundary != 0 && alignment <= boundary else { return gap.count >= length }
    return gap.count >= min(2 * length, 2 * boundary - 1)
  }

  public mutating func free(first: UInt64, size: UInt64) throws(Refusal) {
    guard let count = granuleCount(size), Int(first) % granule == 0 else { throw .invalid }
    try vacate(Int(first), Int(first) + count * granule, isReserved: false)
  }

  public mutating func reserve(first: UInt64, last: UInt64) throws(Refusal) {
    let (start, end) = (Int(first), Int(last) + 1)
    guard start < end, start % granule == 0, end % granule == 0 else { throw .invalid }
    guard start >= self.first, end <= address(owners.count) else { throw .outOfRange }
    let indexes = (start - self.first) / granule..<(end - self.first) / granule
    guard owners[indexes].allSatisfy({ $0 == nil }) else { throw .busy }
    occupy(indexes, isReserved: true)
  }

  public mutating func unreserve(first: UInt64, last: UInt64) throws(Refusal) {
    try vacate(Int(first), Int(last) + 1, isReserved: true)
  }

  private func granuleCount(_ size: UInt64) -> Int? {
    size > 0 && size <= 1 << 40 ? (Int(size) + granule - 1) / granule : nil
  }

  private mutating func occupy(_ indexes: Range<Int>, isReserved: Bool) {
    for index in indexes { owners[index] = nextNumber }
    if isReserved { reserved.insert(nextNumber) }
    nextNumber += 1
  }

  private mutating func vacate(_ start: Int, _ end: Int, isReserved: Bool) throws(Refusal) {
    let range = ranges.first { Int($0.start) == start && Int($0.end) == end }
    guard let range, range.isReserved == isReserved else { throw .invalid }
    for index in (start - first) / granule..<(end - first) / granule { owners[index] = nil }
  }
}
