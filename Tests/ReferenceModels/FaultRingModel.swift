// SPDX-License-Identifier: MIT OR Apache-2.0

/// The faults of a device as an array, each known by the address it is about.
public struct FaultRingModel: Sendable {
  public struct Fault: Equatable, Sendable {
    public let sequence: UInt64
    public let address: UInt64
  }

  private let capacity: Int
  private var kept: [Fault] = []
  public private(set) var total: UInt64 = 0
  public private(set) var lost: UInt64 = 0

  public init(capacity: Int) { self.capacity = capacity }

  public mutating func record(_ address: UInt64) {
    if kept.count < capacity {
      kept.append(Fault(sequence: total, address: address))
    } else {
      lost += 1
    }
    total += 1
  }

  public mutating func take(_ countMax: Int) -> [Fault] {
    let taken = Array(kept.prefix(countMax))
    kept.removeFirst(taken.count)
    return taken
  }
}
