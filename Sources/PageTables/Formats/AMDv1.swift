// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// The host ("v1") page tables of AMD IOMMUs, of one level that may grow to six.
///
/// An entry says which level it leads to, so hardware may be led past levels whose input bits are 0.
/// Tables of this library never do that, and such entries are taken for reserved ones: a walker of
/// tables that others make follows them (`farTable`).
///
/// Source: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section "I/O Page Tables for
/// Host Translations", with its tables "Example Page Size Encodings" and "Page Table Level
/// Parameters".
public struct AMDv1: PageTableFormat {
  public var granule: Granule { Granule(shift: 12) }
  public var indexBits: Int { 9 }
  public var repeatsLeaf: Bool { true }

  public let geometry: PageTableGeometry
  // The bits of an address that are above what hardware can address.
  private let unreachableBits: UInt64
  // What leaves are made of that are to be coherent, and have been written through: 0 without the
  // feature.
  private let coherent: UInt64
  private let dirty: UInt64

  public init(_ options: PageTableOptions) throws(Failure) {
    guard options.features.isSubset(of: [.coherence, .dirty]) else { throw .notSupported }
    let inputBits = options.inputBits == 0 ? 64 : options.inputBits
    let outputBits = options.outputBits == 0 ? 52 : options.outputBits
    guard 21...64 ~= inputBits, 32...52 ~= outputBits else { throw .invalidArgument }
    // Six levels resolve more than all 64 bits: the highest has 7 of them.
    let levelsMax = (inputBits &- 12 &+ 8) / 9
    let levels = options.levels == 0 ? min(3, levelsMax) : options.levels
    guard levels >= 1, levels <= levelsMax else { throw .invalidArgument }
    geometry = PageTableGeometry(
      levels: levels, levelsMax: levelsMax, inputBits: inputBits, outputBits: outputBits)
    unreachableBits = Self.addressBits & (UInt64.max &<< UInt64(truncatingIfNeeded: outputBits))
    coherent = options.features.contains(.coherence) ? Self.forceCoherent : 0
    dirty = options.features.contains(.dirty) ? Self.dirtyBit : 0
  }

  // Bit 0, PR: the entry is present.
  private static var present: UInt64 { 1 }
  // Bit 5, A: hardware has used the entry, where it notes that.
  private static var accessed: UInt64 { 1 &<< 5 }
  // Bit 6, D: hardware has written through the leaf, where it notes that.
  private static var dirtyBit: UInt64 { 1 &<< 6 }
  // Bits 9 to 11, Next Level: the level of a table, counted from 1. 0 is a leaf of the size of its
  // level, 7 a leaf that has its size in its address.
  private static var nextLevelShift: UInt64 { 9 }
  private static var nextLevelBits: UInt64 { 7 &<< 9 }
  // Address fields reach up to bit 51.
  private static var addressBits: UInt64 { 0x000F_FFFF_FFFF_F000 }
  // Bits 52 to 58 are reserved in every entry, and those of leaves in the entries of tables. Bit 63
  // is ignored.
  private static var reservedBits: UInt64 { 0x07F0_0000_0000_0000 }
  // Bit 59, U: for addresses that a device has not translated itself. It permits nothing more.
  private static var untranslated: UInt64 { 1 &<< 59 }
  // Bit 60, FC: accesses snoop the caches of processors.
  private static var forceCoherent: UInt64 { 1 &<< 60 }
  // Bits 61 and 62, IR and IW: reads and writes are permitted.
  private static var accessShift: UInt64 { 61 }
  private static var accessBits: UInt64 { 3 &<< 61 }

  /// Leaves of each power of two from 4 KiB to 2 PiB (2^51), but for 512 GiB, which hardware gets
  /// wrong. The highest level has none.
  public func leafOrders(at level: Int) -> UInt32 {
    switch level {
    case 0...2: 0x1FF
    case 3: 0x1FE
    case 4: 0x00F
    default: 0
    }
  }

  public func canExpress(_ access: Access) -> Bool {
    let permissions = access.subtracting(.cacheable)
    return !permissions.isEmpty && permissions.isSubset(of: [.read, .write])
      && (permissions == access || coherent != 0)
  }

  @inline(__always)
  public func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    // The lowest 0 in the address is one below the bit of the size: 8 KiB has none of these ones.
    let sizeBit = UInt64(truncatingIfNeeded: shift(at: level) &+ order &- 1)
    let size = maskIfPositive(order) & (Self.nextLevelBits | ((1 &<< sizeBit) &- 0x1000))
    return Self.present | size | (UInt64(access.rawValue) &<< Self.accessShift) & Self.accessBits
      | access.mask(.cacheable) & coherent
  }

  public func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    output.rawValue | attributes
  }

  // A table permits everything: the leaf decides, because permissions of all levels are combined.
  public func table(_ next: PhysicalAddress, at level: Int) -> UInt64 {
    next.rawValue | Self.accessBits | Self.present
      | UInt64(truncatingIfNeeded: level &+ 1) &<< Self.nextLevelShift
  }

  public var plainWords: PlainWords {
    PlainWords(
      addressBits: Self.addressBits, presentBits: Self.present,
      leafNotes: Self.accessed | Self.dirtyBit,
      // Bits 60 to 62 go to the top.
      accessBits: Self.accessBits | coherent, shifts: (1, 1))
  }

  // What is reserved in the entries of tables alone.
  private var wrongInTables: UInt64 { Self.untranslated | Self.forceCoherent | unreachableBits }

  @inline(__always)
  public func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    if word & Self.present == 0 { return .empty }
    if word & Self.reservedBits != 0 { return .reserved }
    let address = word & Self.addressBits
    let nextLevel = word & Self.nextLevelBits
    if nextLevel != 0 && nextLevel != Self.nextLevelBits {
      let isNext = nextLevel &>> Self.nextLevelShift == UInt64(truncatingIfNeeded: level)
      return isNext && word & wrongInTables == 0 ? .table(PhysicalAddress(address)) : .reserved
    }
    var output = address
    var order = 0
    if nextLevel == 0 {
      // What an output in the midst of a leaf would be is not said: reserved, to be safe.
      guard leafOrders(at: level) & 1 != 0, address & spanMask(at: level) == 0 else {
        return .reserved
      }
    } else {
      // The ones from bit 12 on and the lowest 0: all the bits of an output that are below its size.
      let inside = address ^ (address &+ 0x1000)
      order = 64 &- inside.leadingZeroBitCount &- shift(at: level)
      // The size is greater than that of the level, and smaller than that of the next.
      guard 1...8 ~= order, leafOrders(at: level) &>> UInt32(truncatingIfNeeded: order) & 1 != 0
      else { return .reserved }
      let shift = UInt64(truncatingIfNeeded: shift(at: level))
      let place = UInt64(truncatingIfNeeded: index) &<< shift
      output = address & ~inside | place & inside
    }
    guard output & unreachableBits == 0 else { return .reserved }
    let access = Access(
      rawValue: UInt32(truncatingIfNeeded: (word & Self.accessBits) &>> Self.accessShift)
    ).union(.part(.cacheable, if: word & coherent, has: Self.forceCoherent))
    return .leaf(TableLeaf(PhysicalAddress(output), access, order: order))
  }

  // Section "I/O Page Tables for Host Translations": IR and IW of all levels are combined by a logical and.
  func restrictions(ofTable word: UInt64) -> UInt64 { ~word & Self.accessBits }

  func access(ofLeaf word: UInt64, _ access: Access, restrictions: UInt64) -> Access {
    access.subtracting(
      Access(rawValue: UInt32(truncatingIfNeeded: restrictions &>> Self.accessShift)))
  }

  // The same section, of Next Level: levels may be skipped, and the bits of the input that they would
  // have resolved must be 0 then, or hardware faults. It has to be lower than the entry's own level.
  func farTable(_ word: UInt64, at level: Int) -> (PhysicalAddress, level: Int)? {
    let nextLevel = Int(truncatingIfNeeded: (word & Self.nextLevelBits) &>> Self.nextLevelShift)
    // All else is as in an entry that skips none.
    guard nextLevel >= 1, nextLevel < level, word & Self.present != 0,
      word & (Self.reservedBits | wrongInTables) == 0
    else { return nil }
    return (PhysicalAddress(word & Self.addressBits), nextLevel &- 1)
  }

  public var notesDirty: Bool { dirty != 0 }

  public func isDirty(_ word: UInt64) -> Bool { dirty == 0 || word & dirty != 0 }

  public func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 {
    isDirty ? word | dirty : word & ~dirty
  }
}
