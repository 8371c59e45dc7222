// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// What a mapping call is told beside addresses. The values are those of `mapping.h`.
public struct MappingAttributes: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static var weakOrdering: MappingAttributes { MappingAttributes(rawValue: 1 << 1) }
  public static var skipCPUSync: MappingAttributes { MappingAttributes(rawValue: 1 << 5) }
  public static var noWarn: MappingAttributes { MappingAttributes(rawValue: 1 << 8) }
  public static var privileged: MappingAttributes { MappingAttributes(rawValue: 1 << 9) }
  public static var mmio: MappingAttributes { MappingAttributes(rawValue: 1 << 10) }
  public static var requireCoherent: MappingAttributes { MappingAttributes(rawValue: 1 << 12) }

  /// Not for callers: the mapping is a list's, or a segment of one. There is room for it in a tag.
  public static var list: MappingAttributes { MappingAttributes(rawValue: 1 << 3) }
  /// Not for callers: it is a range that memory is linked into.
  public static var reservation: MappingAttributes { MappingAttributes(rawValue: 1 << 30) }
  /// Not for callers: the mapping is a transfer's, or a part of one. Likewise.
  public static var transfer: MappingAttributes { MappingAttributes(rawValue: 1 << 2) }
  /// All that are not for callers.
  public static var marks: MappingAttributes { [.list, .reservation, .transfer] }

  public static var all: MappingAttributes {
    [.weakOrdering, .skipCPUSync, .noWarn, .privileged, .mmio, .requireCoherent]
  }

  /// - Throws: `invalidArgument` for bits that have no meaning.
  @inline(__always)
  public init(checking bits: UInt32, among known: MappingAttributes = .all) throws(Failure) {
    guard bits & ~known.rawValue == 0 else { throw .invalidArgument }
    self.init(rawValue: bits)
  }

  /// What a page table is to permit besides the direction.
  public var access: Access {
    var access = Access()
    if contains(.privileged) { access.insert(.privileged) }
    if contains(.mmio) { access.insert(.mmio) }
    return access
  }
}
