// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// Intel VT-d second-stage paging.
///
/// Source: Intel Virtualization Technology for Directed I/O, Architecture Specification, sections
/// "Second-Stage Translation" and "Second-Stage Paging Entries".
public struct VTdSecondStage: PageTableFormat {
  public var granule: Granule { Granule(shift: 12) }
  public var indexBits: Int { 9 }
  public var repeatsLeaf: Bool { false }

  public let geometry: PageTableGeometry
  // The bits of an address that are above what hardware can address: reserved.
  private let unreachableBits: UInt64
  // What leaves are made of that are to be coherent, and have been written through: 0 without the
  // feature.
  private let snoop: UInt64
  private let dirty: UInt64

  public init(_ options: PageTableOptions) throws(Failure) {
    let levels = options.levels == 0 ? 4 : options.levels
    // Adjusted guest address widths of 39, 48 and 57 bits.
    guard 3...5 ~= levels else { throw .invalidArgument }
    // ... truncated by the host address width, which is what hardware reports.
    let inputBits = 12 + 9 * levels
    let outputBits = options.outputBits == 0 ? 52 : options.outputBits
    guard options.inputBits == 0 || options.inputBits == inputBits, 32...52 ~= outputBits else {
      throw .invalidArgument
    }
    guard options.features.isSubset(of: [.coherence, .dirty]) else { throw .notSupported }
    geometry = PageTableGeometry(levels: levels, inputBits: inputBits, outputBits: outputBits)
    unreachableBits = Self.addressBits & (UInt64.max &<< UInt64(truncatingIfNeeded: outputBits))
    snoop = options.features.contains(.coherence) ? Self.snoopBit : 0
    dirty = options.features.contains(.dirty) ? Self.dirtyBit : 0
  }

  // Bit 0: reads are permitted. Bit 1: writes are permitted. With both clear the entry is not
  // present, whatever its other bits are.
  private static var accessBits: UInt64 { 3 }
  // Bit 7, page size: the entry is a leaf. At level 0 every entry is one, and the bit is ignored.
  private static var pageSize: UInt64 { 1 &<< 7 }
  // Bit 8: hardware has used the entry, where those bits are on.
  private static var accessed: UInt64 { 1 &<< 8 }
  // Bit 9: hardware has written through the leaf, where second-stage accessed and dirty bits are on.
  private static var dirtyBit: UInt64 { 1 &<< 9 }
  // Bit 11: accesses snoop the caches of processors.
  private static var snoopBit: UInt64 { 1 &<< 11 }
  // Address fields reach up to bit 51.
  private static var addressBits: UInt64 { 0x000F_FFFF_FFFF_F000 }

  /// Leaves of 4 KiB, 2 MiB and 1 GiB.
  public func leafOrders(at level: Int) -> UInt32 { level <= 2 ? 1 : 0 }

  public func canExpress(_ access: Access) -> Bool {
    let permissions = access.subtracting(.cacheable)
    return !permissions.isEmpty && permissions.isSubset(of: [.read, .write])
      && (permissions == access || snoop != 0)
  }

  @inline(__always)
  public func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    UInt64(access.rawValue) & Self.accessBits | (level == 0 ? 0 : Self.pageSize)
      | (access.contains(.cacheable) ? snoop : 0)
  }

  public func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    output.rawValue | attributes
  }

  // A table permits everything: the leaf decides, because permissions of all levels are combined.
  public func table(_ next: PhysicalAddress, at level: Int) -> UInt64 {
    next.rawValue | Self.accessBits
  }

  public var plainWords: PlainWords {
    PlainWords(
      addressBits: Self.addressBits, presentBits: Self.accessBits,
      leafNotes: Self.accessed | Self.dirtyBit,
      // Bit 11 goes to the top, and bits 0 and 1 behind it.
      accessBits: Self.accessBits | snoop, shifts: (52, 54))
  }

  @inline(__always)
  public func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    if word & Self.accessBits == 0 { return .empty }
    // Of present entries alone: "Second-Stage Paging Entries", the bits from the host address width up
    // to 51 must be 0.
    if word & unreachableBits != 0 { return .reserved }
    let address = word & Self.addressBits
    if level > 0 {
      if word & Self.pageSize == 0 { return .table(PhysicalAddress(address)) }
      // Page size is reserved where there is no leaf of that size, and so are the address bits below
      // the leaf's own size.
      guard level <= 2, address & spanMask(at: level) == 0 else { return .reserved }
    }
    var access = Access(rawValue: UInt32(truncatingIfNeeded: word & Self.accessBits))
    if word & snoop != 0 { access.insert(.cacheable) }
    return .leaf(TableLeaf(PhysicalAddress(address), access))
  }

  // "Second-Stage Translation": what is permitted is the logical and of the bits of all levels.
  func restrictions(ofTable word: UInt64) -> UInt64 { ~word & Self.accessBits }

  func access(ofLeaf word: UInt64, _ access: Access, restrictions: UInt64) -> Access {
    access.subtracting(Access(rawValue: UInt32(truncatingIfNeeded: restrictions)))
  }

  public var notesDirty: Bool { dirty != 0 }

  public func isDirty(_ word: UInt64) -> Bool { dirty == 0 || word & dirty != 0 }

  public func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 {
    isDirty ? word | dirty : word & ~dirty
  }
}
