// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// Which way bytes go between memory and a buffer of this process, and where that is.
@safe
public enum MemoryTransfer {
  case read(into: UnsafeMutableRawPointer)
  case write(from: UnsafeRawPointer)

  public var access: Access {
    switch self {
    case .read: .read
    case .write: .write
    }
  }

  /// Moves bytes of memory that has a host pointer.
  ///
  /// - Parameter offset: where they are in the buffer.
  public func copy(_ host: UnsafeMutableRawPointer, offset: Int, size: Int) {
    switch self {
    case .read(let buffer): unsafe (buffer + offset).copyMemory(from: host, byteCount: size)
    case .write(let buffer): unsafe host.copyMemory(from: buffer + offset, byteCount: size)
    }
  }

  /// Moves bytes of a region that has callbacks, and is pinned; no read section is open.
  ///
  /// - Throws: what the callback fails with.
  public func callBack(
    _ region: PhysicalMemory.Region, at regionOffset: UInt64, offset: Int, size: Int
  ) throws(Failure) {
    switch self {
    case .read(let buffer):
      try unsafe region.pointee.read(offset: regionOffset, into: buffer + offset, size: size)
    case .write(let buffer):
      try unsafe region.pointee.write(offset: regionOffset, from: buffer + offset, size: size)
    }
  }
}
