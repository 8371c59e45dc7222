// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// Memory without a type.
public enum RawMemory {
  /// Uninitialized memory, given back with `free`.
  ///
  /// - Parameter alignment: a power of two; that of a pointer at least.
  /// - Throws: `noMemory`.
  public static func allocate(
    _ size: Int, alignment: Int
  ) throws(Failure) -> UnsafeMutableRawPointer {
    ThreadRules.willAllocate()
    guard let memory = unsafe cplatform_allocate(size, alignment) else { throw .noMemory }
    return unsafe memory
  }

  /// As `allocate`, and every byte is 0.
  @inline(never)
  public static func allocateCleared(
    _ size: Int, alignment: Int
  ) throws(Failure) -> UnsafeMutableRawPointer {
    let memory = unsafe try allocate(size, alignment: alignment)
    unsafe clear(memory, size: size)
    return unsafe memory
  }

  public static func free(_ memory: UnsafeMutableRawPointer) { unsafe cplatform_free(memory) }

  public static func clear(_ bytes: UnsafeMutableRawPointer, size: Int) {
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0, count: size)
  }

  /// Whether all bytes of a range of offsets are zero.
  public static func isZero(_ bytes: UnsafeRawPointer, _ range: Range<Int>) -> Bool {
    for offset in range where unsafe bytes.load(fromByteOffset: offset, as: UInt8.self) != 0 {
      return false
    }
    return true
  }
}
