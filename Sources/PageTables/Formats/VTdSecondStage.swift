// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing

/// Intel VT-d second-stage paging.
///
/// Source: Intel Virtualization Technology for Directed I/O, Architecture Specification, sections
/// "Second-Stage Translation" and "Second-Stage Paging Entries".
public enum VTdSecondStage: PageTableFormat {
  public static var granule: Granule { Granule(shift: 12) }
  public static var indexBits: Int { 9 }
  // Adjusted guest address widths of 39, 48 and 57 bits.
  public static var levelCounts: ClosedRange<Int> { 3...5 }
  // Address fields reach up to bit 51.
  public static var outputBits: Int { 52 }

  // Bit 0: reads are permitted. Bit 1: writes are permitted. With both clear the entry is not
  // present, whatever its other bits are.
  private static var accessBits: UInt64 { 3 }
  // Bit 7, page size: the entry is a leaf. At level 0 every entry is one, and the bit is ignored.
  private static var pageSize: UInt64 { 1 &<< 7 }
  private static var addressBits: UInt64 { 0x000F_FFFF_FFFF_F000 }

  /// Leaves of 4 KiB, 2 MiB and 1 GiB.
  public static func hasLeaf(at level: Int) -> Bool { level <= 2 }

  public static func canExpress(_ access: Access) -> Bool {
    !access.isEmpty && access.isSubset(of: [.read, .write])
  }

  public static func decode(_ word: UInt64, at level: Int) -> TableEntry {
    let access = Access(rawValue: UInt32(truncatingIfNeeded: word & accessBits))
    if access.isEmpty { return .empty }
    let address = word & addressBits
    if level == 0 { return .leaf(PhysicalAddress(address), access) }
    if word & pageSize == 0 { return .table(PhysicalAddress(address)) }
    // Page size is reserved where there is no leaf of that size, and so are the address bits below
    // the leaf's own size.
    guard hasLeaf(at: level), address & spanMask(at: level) == 0 else { return .reserved }
    return .leaf(PhysicalAddress(address), access)
  }

  public static func leaf(
    _ output: PhysicalAddress, _ access: Access, at level: Int
  ) -> UInt64 {
    output.rawValue | UInt64(access.rawValue) | (level == 0 ? 0 : pageSize)
  }

  // A table permits everything: the leaf decides, because permissions of all levels are combined.
  public static func table(_ next: PhysicalAddress) -> UInt64 { next.rawValue | accessBits }
}
