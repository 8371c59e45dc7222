// SPDX-License-Identifier: MIT OR Apache-2.0

/// The ranges that zero-copy mappings hold, as two arrays, and a clock that tells which pins a
/// mapping is older than.
public struct PinTableModel: Sendable {
  private struct Pin: Sendable {
    let name: Int
    let range: ClosedRange<UInt64>
    /// When all that it holds had been found, if it has been.
    var settled: UInt64?

    /// Whether it may have been made through a mapping of that time.
    func isOf(_ range: ClosedRange<UInt64>, madeAt time: UInt64) -> Bool {
      self.range.overlaps(range) && settled.map { $0 > time } ?? true
    }
  }

  private var pins: [Pin] = []
  private var closed: [Int: ClosedRange<UInt64>] = [:]
  /// How many pins have been settled so far.
  public private(set) var clock: UInt64 = 0

  public init() {}

  /// Whether a range can be pinned, and is then.
  public mutating func pin(_ range: ClosedRange<UInt64>, named name: Int) -> Bool {
    guard !closed.values.contains(where: range.overlaps) else { return false }
    pins.append(Pin(name: name, range: range, settled: nil))
    return true
  }

  public mutating func settle(_ name: Int) {
    clock += 1
    pins[pins.firstIndex { $0.name == name }!].settled = clock
  }

  /// Whether the range of a mapping that was made at some time can be closed, and is then.
  public mutating func close(
    _ range: ClosedRange<UInt64>, madeAt time: UInt64, named name: Int
  ) -> Bool {
    guard !holds(range, madeAt: time) else { return false }
    closed[name] = range
    return true
  }

  /// Takes a pin away, or opens what was closed.
  public mutating func remove(_ name: Int) {
    closed[name] = nil
    pins.removeAll { $0.name == name }
  }

  /// Whether a mapping that was made at some time is pinned.
  public func holds(_ range: ClosedRange<UInt64>, madeAt time: UInt64) -> Bool {
    pins.contains { $0.isOf(range, madeAt: time) }
  }
}
