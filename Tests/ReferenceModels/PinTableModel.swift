// SPDX-License-Identifier: MIT OR Apache-2.0

/// The ranges that zero-copy mappings hold, as two arrays.
public struct PinTableModel: Sendable {
  private var pinned: [ClosedRange<UInt64>] = []
  private var closed: [ClosedRange<UInt64>] = []

  public init() {}

  /// Whether a range can be pinned, and is then.
  public mutating func pin(_ range: ClosedRange<UInt64>) -> Bool {
    guard !closed.contains(where: range.overlaps) else { return false }
    pinned.append(range)
    return true
  }

  /// Whether a range can be closed, and is then.
  public mutating func close(_ range: ClosedRange<UInt64>) -> Bool {
    guard !(pinned + closed).contains(where: range.overlaps) else { return false }
    closed.append(range)
    return true
  }

  public mutating func unpin(_ range: ClosedRange<UInt64>) {
    pinned.remove(at: pinned.firstIndex(of: range)!)
  }

  public mutating func open(_ range: ClosedRange<UInt64>) {
    closed.remove(at: closed.firstIndex(of: range)!)
  }

  public func holds(_ range: ClosedRange<UInt64>) -> Bool { pinned.contains(where: range.overlaps) }
}
