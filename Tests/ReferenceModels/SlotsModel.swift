// SPDX-License-Identifier: MIT OR Apache-2.0

/// Which slots of a bounce pool are in use, one by one.
public struct SlotsModel {
  public struct Request {
    public var size: UInt64
    public var low: UInt64 = 0
    public var mask: UInt64 = 0
    public var boundary = UInt64.max

    public init(size: UInt64, low: UInt64 = 0, mask: UInt64 = 0, boundary: UInt64 = UInt64.max) {
      self.size = size
      self.low = low
      self.mask = mask
      self.boundary = boundary
    }
  }

  public private(set) var isUsed: [Bool]

  public init(count: Int) { isUsed = Array(repeating: false, count: count) }

  /// Whether a copy may start at this address, which it was given or may be.
  public func suits(_ address: UInt64, _ request: Request, base: UInt64) -> Bool {
    let offset = address - base
    let slots = Self.slots(offset, request.size)
    guard slots.upperBound < isUsed.count, slots.allSatisfy({ !isUsed[$0] }) else { return false }
    let last = address + request.size - 1
    return address & request.mask == request.low & request.mask
      && address & ~request.boundary == last & ~request.boundary
  }

  /// Whether there is any such address, of those that start as early in a slot as they can.
  public func hasPlace(for request: Request, base: UInt64) -> Bool {
    let start = request.low & request.mask & 2047
    return isUsed.indices.contains { slot in
      suits(base + UInt64(slot) * 2048 + start, request, base: base)
    }
  }

  public mutating func set(_ offset: UInt64, _ size: UInt64, isUsed value: Bool) {
    for slot in Self.slots(offset, size) { isUsed[slot] = value }
  }

  public static func slots(_ offset: UInt64, _ size: UInt64) -> ClosedRange<Int> {
    Int(offset / 2048)...Int((offset + size - 1) / 2048)
  }
}
