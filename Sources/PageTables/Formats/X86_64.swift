// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// The paging of x86-64 processors, of 4 or 5 levels, as Intel's first stage and AMD's guest ("v2")
/// tables have it.
///
/// Hardware has to be told to honour bit 63, which is reserved where no-execute is off (NXE in an
/// entry of a VT-d PASID table).
///
/// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, section "4-Level
/// Paging and 5-Level Paging"; Intel Virtualization Technology for Directed I/O, Architecture
/// Specification, section "First-Stage Paging Entries"; AMD64 Architecture Programmer's Manual,
/// volume 2, section "Long-Mode Page Translation".
public struct X86_64: PageTableFormat {
  public var granule: Granule { Granule(shift: 12) }
  public var indexBits: Int { 9 }
  public var repeatsLeaf: Bool { false }

  public let geometry: PageTableGeometry
  // The bits of an address that are above what hardware can address: reserved.
  private let unreachableBits: UInt64
  // The dirty bit where hardware sets it, and where it must find it set: one of them is 0.
  private let dirty: UInt64
  private let preset: UInt64

  public init(_ options: PageTableOptions) throws(Failure) {
    guard options.features.isSubset(of: [.dirty, .signedInput]) else { throw .notSupported }
    let isSigned = options.features.contains(.signedInput)
    let levels = options.levels == 0 ? 4 : options.levels
    guard 4...5 ~= levels else { throw .invalidArgument }
    // Hardware walks canonical addresses alone. Without signed inputs there is only the half of them
    // in which bit 47 or 56 is 0, and so are the bits above it.
    let inputBits = 12 &+ 9 &* levels &- (isSigned ? 0 : 1)
    let outputBits = options.outputBits == 0 ? 52 : options.outputBits
    guard options.inputBits == 0 || options.inputBits == inputBits, 32...52 ~= outputBits else {
      throw .invalidArgument
    }
    geometry = PageTableGeometry(
      levels: levels, inputBits: inputBits, isSigned: isSigned, outputBits: outputBits)
    unreachableBits = Self.addressBits & (UInt64.max &<< UInt64(truncatingIfNeeded: outputBits))
    dirty = options.features.contains(.dirty) ? Self.dirtyBit : 0
    preset = Self.dirtyBit ^ dirty
  }

  // Bit 0, P: the entry is present.
  private static var present: UInt64 { 1 }
  // Bit 1, R/W: writes are permitted. Reads always are.
  private static var writable: UInt64 { 1 &<< 1 }
  // Bit 2, U/S: requests without privilege are permitted.
  private static var user: UInt64 { 1 &<< 2 }
  // Bits 3 and 4, PWT and PCD, with PAT choose an entry of the page attribute table. As it is after
  // power-on, the four entries with PCD are uncacheable, and the one with neither is write-back.
  private static var writeThrough: UInt64 { 1 &<< 3 }
  private static var cacheDisable: UInt64 { 1 &<< 4 }
  // Bit 5, A: set by software, so that hardware does not have to write it.
  private static var accessed: UInt64 { 1 &<< 5 }
  // Bit 6, D: the leaf was written through.
  private static var dirtyBit: UInt64 { 1 &<< 6 }
  // Bit 7, PS: the entry is a leaf. At level 0 every entry is one, and the bit is PAT.
  private static var pageSize: UInt64 { 1 &<< 7 }
  // Bit 12 is PAT in the leaves of the other levels, not a part of their address.
  private static var leafPAT: UInt64 { 1 &<< 12 }
  // Bit 63, XD or NX: nothing is executed from here.
  private static var noExecute: UInt64 { 1 &<< 63 }
  // Address fields reach up to bit 51.
  private static var addressBits: UInt64 { 0x000F_FFFF_FFFF_F000 }

  /// Leaves of 4 KiB, 2 MiB and 1 GiB.
  public func leafOrders(at level: Int) -> UInt32 { level <= 2 ? 1 : 0 }

  public func canExpress(_ access: Access) -> Bool {
    access.contains(.read) && access.isSubset(of: [.read, .write, .execute, .privileged, .mmio])
  }

  @inline(__always)
  public func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    Self.present | Self.accessed | maskIfPositive(level) & Self.pageSize
      | access.mask(.write) & (Self.writable | preset)
      | ~access.mask(.privileged) & Self.user
      | access.mask(.mmio) & (Self.cacheDisable | Self.writeThrough)
      | ~access.mask(.execute) & Self.noExecute
  }

  public func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    output.rawValue | attributes
  }

  // A table permits everything: the leaf decides, because permissions of all levels are combined.
  public func table(_ next: PhysicalAddress, at level: Int) -> UInt64 {
    next.rawValue | Self.present | Self.writable | Self.user | Self.accessed
  }

  public var plainWords: PlainWords {
    PlainWords(
      addressBits: Self.addressBits, presentBits: Self.present,
      leafNotes: Self.accessed | Self.dirtyBit,
      // Bit 63 stays at the top, and bits 1 to 4 go behind it.
      accessBits: Self.noExecute | 0x1E, shifts: (0, 58))
  }

  @inline(__always)
  public func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    if word & Self.present == 0 { return .empty }
    if word & unreachableBits != 0 { return .reserved }
    var address = word & Self.addressBits
    if level > 0 {
      if word & Self.pageSize == 0 { return .table(PhysicalAddress(address)) }
      address &= ~Self.leafPAT
      // Page size is reserved where there is no leaf of that size, and so are the address bits below
      // the leaf's own size.
      guard level <= 2, address & spanMask(at: level) == 0 else { return .reserved }
    }
    let access = Access.read
      .union(.part(.write, if: word, has: Self.writable))
      .union(.part(.privileged, if: ~word, has: Self.user))
      .union(.part(.mmio, if: word, has: Self.cacheDisable))
      .union(.part(.execute, if: ~word, has: Self.noExecute))
    return .leaf(TableLeaf(PhysicalAddress(address), access))
  }

  // "Access Rights": writes and requests without privilege need R/W and U/S in the entries of all levels,
  // and XD in one of them forbids fetches.
  func restrictions(ofTable word: UInt64) -> UInt64 {
    ~word & (Self.writable | Self.user) | word & Self.noExecute
  }

  func access(ofLeaf word: UInt64, _ access: Access, restrictions: UInt64) -> Access {
    access.subtracting(.part(.write, if: restrictions, has: Self.writable))
      .subtracting(.part(.execute, if: restrictions, has: Self.noExecute))
      .union(.part(.privileged, if: restrictions, has: Self.user))
  }

  public var notesDirty: Bool { dirty != 0 }

  public func isDirty(_ word: UInt64) -> Bool { dirty == 0 || word & dirty != 0 }

  public func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 {
    isDirty ? word | dirty : word & ~dirty
  }
}
