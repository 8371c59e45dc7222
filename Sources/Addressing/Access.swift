// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// What an access does, or what a translation permits. The values are those of `types.h`.
public struct Access: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static var read: Access { Access(rawValue: 1) }
  public static var write: Access { Access(rawValue: 2) }
  public static var execute: Access { Access(rawValue: 4) }
  public static var privileged: Access { Access(rawValue: 8) }
  public static var mmio: Access { Access(rawValue: 16) }
  public static var cacheable: Access { Access(rawValue: 32) }

  /// Whether what permits this permits a request. One without privilege, or to know what is permitted,
  /// says nothing of privilege.
  public func permits(_ request: Access) -> Bool {
    isSuperset(of: request.subtracting(.privileged))
      && (!contains(.privileged) || request.contains(.privileged) || !request.isPermission)
  }

  /// Whether what permits this permits a request with privilege and without.
  @inline(__always)
  public func permitsAnybody(_ request: Access) -> Bool {
    !contains(.privileged) && isSuperset(of: request.subtracting(.privileged))
  }

  /// Whether anything is permitted at all.
  public var isPermission: Bool { rawValue & 7 != 0 }

  /// What devices do with memory.
  public static var transfers: Access { [.read, .write] }
  /// All that a page table can be asked to say.
  public static var all: Access { Access(rawValue: 63) }

  /// - Throws: `invalidArgument` for bits that have no meaning there.
  public init(checking bits: UInt32, among known: Access = .transfers) throws(Failure) {
    guard bits & ~known.rawValue == 0 else { throw .invalidArgument }
    self.init(rawValue: bits)
  }
}

/// Who writes a buffer, seen from memory. The values are those of `mapping.h`.
public enum Direction: UInt32, Sendable {
  case bidirectional = 0
  case toDevice = 1
  case fromDevice = 2

  /// - Throws: `invalidArgument` for a value that has no meaning.
  public init(checking value: UInt32) throws(Failure) {
    guard let direction = Direction(rawValue: value) else { throw .invalidArgument }
    self = direction
  }

  /// What the device may do with the buffer.
  public var access: Access {
    switch self {
    case .bidirectional: [.read, .write]
    case .toDevice: .read
    case .fromDevice: .write
    }
  }
}
