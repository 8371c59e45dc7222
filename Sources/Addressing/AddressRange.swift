// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// A nonempty range of addresses, both ends included.
///
/// Having one tells you that `first <= last`, so its size is at least one and it does not wrap.
/// It does not tell you that the range is aligned, allocated or mapped.
///
/// Inclusive, because the range that ends at the last byte of the space has no exclusive end.
public struct AddressRange<A: Address>: Equatable, Sendable {
  public let first: A
  public let last: A

  // Unchecked arithmetic elsewhere depends on the checks of these two initializers.

  /// - Throws: `invalidArgument` when `size` is zero, `wrap` when the range goes past the last
  ///   address.
  public init(
    first: A, size: UInt64, wrap: Failure = .invalidArgument
  ) throws(Failure) {
    guard size > 0 else { throw .invalidArgument }
    let (last, overflow) = first.rawValue.addingReportingOverflow(size &- 1)
    guard !overflow else { throw wrap }
    self.first = first
    self.last = A(last)
  }

  /// - Throws: `invalidArgument` when the ends are the wrong way round.
  public init(first: A, last: A) throws(Failure) {
    guard first <= last else { throw .invalidArgument }
    self.first = first
    self.last = last
  }

  /// The size less one, which unlike the size always fits.
  public var extent: UInt64 { last.rawValue &- first.rawValue }

  public func contains(_ other: Self) -> Bool { first <= other.first && other.last <= last }

  public func overlaps(_ other: Self) -> Bool { first <= other.last && other.first <= last }

  /// Whether the range starts and ends where granules do.
  public func isAligned(to granule: Granule) -> Bool {
    first.rawValue & granule.mask == 0 && (last.rawValue &+ 1) & granule.mask == 0
  }

  /// The smallest range of whole granules around this one. It cannot wrap: a last address rounds up
  /// within its granule.
  public func rounded(to granule: Granule) -> Self {
    Self(
      checkedFirst: A(first.rawValue & ~granule.mask), last: A(last.rawValue | granule.mask))
  }

  private init(checkedFirst first: A, last: A) {
    self.first = first
    self.last = last
  }

  /// - Precondition: the ends are the right way round.
  public init(_ first: A, through last: A) {
    precondition(first <= last, "The ends are the wrong way round.")
    self.first = first
    self.last = last
  }
}

public typealias IOVARange = AddressRange<IOVA>
public typealias PhysicalRange = AddressRange<PhysicalAddress>
public typealias DMARange = AddressRange<DMAAddress>
