// SPDX-License-Identifier: MIT OR Apache-2.0

/// The DMA ranges of a device as a list of its pages: every question is asked page by page. Pages are
/// known by their numbers, and are few.
public struct DMARangesModel {
  /// The physical page at each bus page that has one.
  private var pages: [UInt64: UInt64] = [:]

  public init() {}

  /// Adds a range, if nothing of it is there on either side.
  public mutating func add(bus: UInt64, physical: UInt64, count: UInt64) -> Bool {
    guard count > 0 else { return false }
    for page in 0..<count where pages[bus + page] != nil || pages.values.contains(physical + page) {
      return false
    }
    for page in 0..<count { pages[bus + page] = physical + page }
    return true
  }

  public func physical(of bus: UInt64) -> UInt64? { pages[bus] }

  /// The bus pages around one that lead to memory in a row.
  public func window(around bus: UInt64) -> ClosedRange<UInt64> {
    var (first, last) = (bus, bus)
    while first > 0, let page = pages[first - 1], page + 1 == pages[first] { first -= 1 }
    while let page = pages[last + 1], pages[last]! + 1 == page { last += 1 }
    return first...last
  }

  /// The first bus page of memory, if it is in a row there.
  public func bus(of physical: ClosedRange<UInt64>) -> UInt64? {
    guard let first = pages.first(where: { $0.value == physical.lowerBound })?.key else {
      return nil
    }
    return physical.allSatisfy { pages[first + ($0 - physical.lowerBound)] == $0 } ? first : nil
  }

  /// The first bus page above one that leads anywhere.
  public func next(above bus: UInt64) -> UInt64? { pages.keys.filter { $0 > bus }.min() }

  public func lastPhysical(under bus: UInt64) -> UInt64? {
    pages.filter { $0.key <= bus }.values.max()
  }
}
