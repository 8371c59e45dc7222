// SPDX-License-Identifier: MIT OR Apache-2.0

/// The ranges of a lazy domain that wait for a flush, in the order in which they were queued.
public struct FlushQueueModel {
  private let entries: Int
  private let age: UInt64
  // The last tick, and the one before the first range was queued.
  private var now: UInt64 = 0
  private var stamp: UInt64 = 0
  public private(set) var ranges: [ClosedRange<UInt64>] = []
  public private(set) var flushCount: UInt64 = 0

  public init(entries: Int, age: UInt64) {
    self.entries = entries
    self.age = age
  }

  public var bytes: UInt64 { ranges.map { $0.upperBound - $0.lowerBound + 1 }.reduce(0, +) }

  public mutating func queue(_ range: ClosedRange<UInt64>) {
    if ranges.isEmpty { stamp = now }
    ranges.append(range)
    if ranges.count == entries { flush() }
  }

  public mutating func tick(_ now: UInt64) {
    self.now = now
    if now < stamp || now - stamp >= age { flush() }
  }

  public mutating func flush() {
    if !ranges.isEmpty { flushCount += 1 }
    ranges = []
  }
}
