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
    size: UInt64, alignment: UInt64, limit: UInt64
  ) throws(Refusal) -> UInt64 {
    guard let count = granuleCount(size), alignment.nonzeroBitCount <= 1 else { throw .invalid }
    for index in owners.indices.reversed() {
      let place = address(index)
      guard alignment == 0 || place % Int(alignment) == 0, index + count <= owners.count,
        UInt64(address(index + count) - 1) <= limit,
        owners[index..<index + count].allSatisfy({ $0 == nil })
      else { continue }
      occupy(index..<index + count, isReserved: false)
      return UInt64(place)
    }
    throw .noSpace
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
