// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// The highest address that a device reaches: its mask and what the bus in between passes.
public struct AddressLimit: Equatable, Sendable {
  /// The address, inclusive.
  public let highest: UInt64

  /// - Parameter mask: zero for a device that has none.
  /// - Parameter busLimit: zero for a bus that passes everything.
  /// - Throws: `noMask`.
  public init(mask: UInt64, busLimit: UInt64) throws(Failure) {
    guard mask != 0 else { throw .noMask }
    highest = Self.highest(mask: mask, busLimit: busLimit)
  }

  /// The address, or 0 for a device that has no mask.
  @inline(__always)
  public static func highest(mask: UInt64, busLimit: UInt64) -> UInt64 {
    busLimit == 0 ? mask : min(mask, busLimit)
  }
}
