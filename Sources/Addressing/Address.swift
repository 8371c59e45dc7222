// SPDX-License-Identifier: MIT OR Apache-2.0

/// A place in one address space.
///
/// There are no operators on addresses: arithmetic goes through `AddressRange`, which checks it, or
/// through `rawValue`, where the surrounding code says why it cannot overflow.
public protocol Address: Comparable, Sendable {
  var rawValue: UInt64 { get }
  init(_ rawValue: UInt64)
}

extension Address {
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

  public func isAligned(to granule: Granule) -> Bool { rawValue & granule.mask == 0 }
}

/// An input address of a page table, or an address of an IOVA space.
public struct IOVA: Address {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// An address of the machine's memory.
public struct PhysicalAddress: Address {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// An address as a device uses it: an IOVA behind an IOMMU, a physical address without one.
public struct DMAAddress: Address {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// A page size: a power of two, kept as its exponent.
public struct Granule: Equatable, Sendable {
  public let shift: Int

  /// The granule of this many bytes, if it is a power of two.
  public init?(bytes: UInt64) {
    guard bytes != 0, bytes & (bytes &- 1) == 0 else { return nil }
    shift = bytes.trailingZeroBitCount
  }

  public init(shift: Int) {
    precondition(shift >= 0 && shift < 64, "A granule is a power of two below 2^64.")
    self.shift = shift
  }

  public var bytes: UInt64 { 1 &<< UInt64(shift) }

  /// A size rounded up to whole granules, or nil when it is zero or the result does not fit.
  public func roundedUp(_ size: UInt64) -> UInt64? {
    let (sum, overflow) = size.addingReportingOverflow(mask)
    return size > 0 && !overflow ? sum & ~mask : nil
  }

  /// The bits of an address that lie inside a granule.
  public var mask: UInt64 { bytes &- 1 }
}
