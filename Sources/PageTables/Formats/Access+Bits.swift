// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing

// Between what is permitted and the bits of words without branches: the compiler makes one path for
// each combination out of conditions.

extension Access {
  /// All ones if this has the part, which is one bit, and otherwise 0.
  @inline(__always)
  func mask(_ part: Access) -> UInt64 {
    0 &- (UInt64(rawValue) &>> UInt64(truncatingIfNeeded: part.rawValue.trailingZeroBitCount) & 1)
  }

  /// The part, which is one bit, if the word has the lowest bit of `field`, and otherwise nothing.
  @inline(__always)
  static func part(_ part: Access, if word: UInt64, has field: UInt64) -> Access {
    let isSet = UInt32(
      truncatingIfNeeded: word &>> UInt64(truncatingIfNeeded: field.trailingZeroBitCount) & 1)
    return Access(
      rawValue: isSet &<< UInt32(truncatingIfNeeded: part.rawValue.trailingZeroBitCount))
  }
}

/// All ones for 1 and more, 0 for 0.
@inline(__always)
func maskIfPositive(_ number: Int) -> UInt64 {
  UInt64(bitPattern: Int64(0 &- number) &>> 63)
}
