// SPDX-License-Identifier: MIT OR Apache-2.0

/// Bytes that C describes by an address and a size.
public enum RawBytes {
  /// Whether all bytes of a range of offsets are zero.
  public static func areZero(_ bytes: UnsafeRawPointer, _ range: Range<Int>) -> Bool {
    for offset in range where unsafe bytes.load(fromByteOffset: offset, as: UInt8.self) != 0 {
      return false
    }
    return true
  }
}
