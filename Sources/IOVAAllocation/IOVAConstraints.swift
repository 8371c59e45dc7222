// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// Where a range may be, in bytes. What is not said leaves everything open.
public struct IOVAConstraints {
  /// What to do where there are several places. The values are those of `iova.h`.
  public enum Placement: UInt32 {
    /// Any place, but above 4 GiB while there is one; below, the highest.
    case anywhere = 0
    case topDown = 1
    case bottomUp = 2
    /// At the first address and nowhere else.
    case exact = 3

    /// - Throws: `invalidArgument` for a value that has no meaning.
    public init(checking value: UInt32) throws(Failure) {
      guard let placement = Placement(rawValue: value) else { throw .invalidArgument }
      self = placement
    }
  }

  let placement: Placement
  /// A power of two, or 0 for the granule.
  let alignment: UInt64
  /// What the address leaves when it is divided by the alignment.
  let skew: UInt64
  /// A power of two of which the range may cross no multiple, or 0.
  let boundary: UInt64
  /// The lowest and the highest address that the range may have.
  let first: UInt64
  let last: UInt64

  public init(
    placement: Placement = .anywhere, alignment: UInt64 = 0, skew: UInt64 = 0,
    boundary: UInt64 = 0, first: UInt64 = 0, last: UInt64 = UInt64.max
  ) {
    self.placement = placement
    self.alignment = alignment
    self.skew = skew
    self.boundary = boundary
    self.first = first
    self.last = last
  }

  /// Whether any range of a power of two of bytes that is aligned to its size will do, as long as it
  /// lies between the lowest address of the space and `last`.
  func areMetByCached(bytes: UInt64, from lowest: UInt64) -> Bool {
    // Such a range crosses no boundary that is not less than its size.
    placement == .anywhere && skew == 0 && first <= lowest && first <= last
      && alignment & (alignment &- 1) == 0 && alignment <= bytes
      && boundary & (boundary &- 1) == 0 && (boundary == 0 || boundary >= bytes)
  }
}
