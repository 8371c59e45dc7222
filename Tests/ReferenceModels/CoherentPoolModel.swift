// SPDX-License-Identifier: MIT OR Apache-2.0

/// A coherent pool as its header has it: which objects are out, and how many pages it took for them.
public struct CoherentPoolModel {
  public let size: UInt64
  public let alignment: UInt64
  public let boundary: UInt64
  /// Objects of a page.
  public let perPage: Int
  /// The device's addresses of the objects that are out.
  public private(set) var live: [UInt64] = []
  public private(set) var pages: Set<UInt64> = []

  public init(size: UInt64, alignment: UInt64, boundary: UInt64) {
    self.size = size
    self.alignment = max(alignment, 8)
    self.boundary = boundary
    var count = 0
    var next: UInt64 = 0
    for first in stride(from: 0, through: 4096 - size, by: Int(max(alignment, 8)))
    where first >= next && !Self.crosses(first, size, boundary) {
      count += 1
      next = first + size
    }
    perPage = count
  }

  private static func crosses(_ first: UInt64, _ size: UInt64, _ boundary: UInt64) -> Bool {
    boundary != 0 && first / boundary != (first + size - 1) / boundary
  }

  /// Notes that an object was given. Returns what is wrong with it, if something is.
  public mutating func take(_ address: UInt64) -> String? {
    if address % alignment != 0 { return "an object is not aligned" }
    if Self.crosses(address, size, boundary) { return "an object crosses a boundary" }
    if address / 4096 != (address + size - 1) / 4096 { return "an object is in two pages" }
    let overlaps = live.contains { $0 < address + size && address < $0 + size }
    if overlaps { return "an object overlaps another" }
    let isNew = pages.insert(address / 4096).inserted
    // A page comes when all others are full.
    if isNew && live.count != (pages.count - 1) * perPage { return "a page came too early" }
    live.append(address)
    return nil
  }

  /// Whether an object may be given back, which then it is.
  public mutating func give(_ address: UInt64) -> Bool {
    guard let index = live.firstIndex(of: address) else { return false }
    live.remove(at: index)
    return true
  }

  /// How many pages have an object that is out.
  public var pagesInUse: Int { Set(live.map { $0 / 4096 }).count }
}
