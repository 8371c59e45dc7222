// SPDX-License-Identifier: MIT OR Apache-2.0

/// Ranges of numbers that may overlap, as an array.
public struct IntervalSetModel<Payload> {
  public struct Interval {
    public let first: UInt64
    public let last: UInt64
    public var payload: Payload
  }

  public private(set) var intervals: [Interval] = []

  public init() {}

  public mutating func insert(first: UInt64, last: UInt64, _ payload: Payload) {
    intervals.append(Interval(first: first, last: last, payload: payload))
  }

  @discardableResult
  public mutating func remove(at index: Int) -> Interval { intervals.remove(at: index) }

  /// The ranges that share a number with `first...last`.
  public func overlapping(first: UInt64, last: UInt64) -> [Interval] {
    intervals.filter { $0.first <= last && $0.last >= first }
  }
}
