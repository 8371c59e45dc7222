// SPDX-License-Identifier: MIT OR Apache-2.0

/// Naturally aligned powers of two of addresses, which are told by their mask: their size less one.
public enum AlignedBlock {
  /// The mask of the largest block around `address` that lies within `first...last`, which contains it,
  /// and is one on the other side too, where addresses are less by `offset`, modulo 2^64.
  public static func mask(
    around address: UInt64, within first: UInt64, _ last: UInt64, offset: UInt64
  ) -> UInt64 {
    let extent = last &- first
    // All bits that the extent could have. One less, and there are as many addresses at most.
    let bits = UInt64.max >> UInt64(extent.leadingZeroBitCount)
    // The bits below the lowest that is set in the offset: all of them, if none is.
    var mask = (bits == extent ? bits : bits >> 1) & ~offset & (offset &- 1)
    while address & ~mask < first || address | mask > last { mask >>= 1 }
    return mask
  }
}
