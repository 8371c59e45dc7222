// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// The first stage of VMSAv8-64, as processors and SMMUs of Arm have it.
///
/// Leaves name a kind of memory by an index, and MAIR says what is at the index. The tables of this
/// library demand that 0 is normal memory that is not cached (0x44), 1 is write-back memory (0xFF),
/// and 2 is a device (0x04).
///
/// Source: Arm Architecture Reference Manual for A-profile architecture, DDI 0487, section "VMSAv8-64
/// descriptor formats", stage 1, and sections "Memory access control", "Hardware management of the
/// Access flag and dirty state".
public struct ARM64Stage1: PageTableFormat {
  public var granule: Granule { descriptor.granule }
  public var indexBits: Int { descriptor.indexBits }
  public var repeatsLeaf: Bool { false }

  private let descriptor: ARM64Descriptor
  // What makes a writable leaf: where hardware notes writes, it is made clean, which is read-only.
  private let clean: UInt64

  public init(_ options: PageTableOptions) throws(Failure) {
    descriptor = try ARM64Descriptor(options, isFirstStage: true)
    clean = descriptor.dirtyModifier == 0 ? 0 : descriptor.dirtyModifier | Self.readOnly
  }

  public var geometry: PageTableGeometry { descriptor.geometry }

  // Bits 2 to 4, AttrIndx: an index of MAIR.
  private static var writeBack: UInt64 { 1 &<< 2 }
  private static var device: UInt64 { 2 &<< 2 }
  // Bits 6 and 7, AP: requests without privilege are permitted; writes are not.
  private static var unprivileged: UInt64 { 1 &<< 6 }
  private static var readOnly: UInt64 { 1 &<< 7 }
  // Bit 11, nG: what hardware caches of the leaf is for the address space of the table alone.
  private static var notGlobal: UInt64 { 1 &<< 11 }
  // Bits 53 and 54, PXN and UXN: nothing is executed from here, with privilege and without.
  private static var privilegedExecuteNever: UInt64 { 1 &<< 53 }
  private static var unprivilegedExecuteNever: UInt64 { 1 &<< 54 }

  public func leafOrders(at level: Int) -> UInt32 { descriptor.leafOrders(at: level) }

  public func canExpress(_ access: Access) -> Bool {
    access.contains(.read) && access.rawValue < 64 && !access.isSuperset(of: [.mmio, .cacheable])
  }

  @inline(__always)
  public func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    descriptor.attributes(order: order, at: level) | Self.notGlobal | ARM64Descriptor.outerShareable
      | access.mask(.mmio) & Self.device
      | access.mask(.cacheable) & (Self.writeBack | ARM64Descriptor.innerShareable)
      | ~access.mask(.write) & Self.readOnly | access.mask(.write) & clean
      | ~access.mask(.privileged) & Self.unprivileged
      | ~access.mask(.execute) & (Self.privilegedExecuteNever | Self.unprivilegedExecuteNever)
  }

  public func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    descriptor.word(output) | attributes
  }

  public func table(_ next: PhysicalAddress, at level: Int) -> UInt64 { descriptor.table(next) }

  public var plainWords: PlainWords { descriptor.plainWords }

  @inline(__always)
  public func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    descriptor.decode(
      word, at: level, index: index,
      access: Self.access(word, descriptor.dirtyModifier))
  }

  /// What a leaf permits.
  @inline(never)
  private static func access(_ word: UInt64, _ dirtyModifier: UInt64) -> Access {
    // Bit 51 makes up for bit 7, and bit 54 is in the place of bit 53 where bit 6 is set.
    let isWritable = ~word | (word & dirtyModifier) &>> (51 - 7)
    let mayExecute = ~word &>> (word &>> 6 & 1)
    // Of the three bits of an index, the one that is set in it alone.
    let isWriteBack = word & ~(word &>> 1 | word &>> 2)
    let isDevice = word & ~(word &<< 1 | word &>> 1)
    return Access.read
      .union(.part(.write, if: isWritable, has: readOnly))
      .union(.part(.execute, if: mayExecute, has: privilegedExecuteNever))
      .union(.part(.privileged, if: ~word, has: unprivileged))
      .union(.part(.mmio, if: isDevice, has: device))
      .union(.part(.cacheable, if: isWriteBack, has: writeBack))
  }

  // "Hierarchical control of data access permissions" and "... of instruction fetching": bits 59 and 60
  // of a table, PXNTable and UXNTable, set bits 53 and 54 of all leaves below; bit 61, APTable[0], clears
  // bit 6, and bit 62, APTable[1], sets bit 7, and no write is noted then to make up for it.
  private static var tableExecuteNever: UInt64 { 3 &<< 59 }
  private static var tablePrivileged: UInt64 { 1 &<< 61 }
  private static var tableReadOnly: UInt64 { 1 &<< 62 }

  func restrictions(ofTable word: UInt64) -> UInt64 {
    word & (Self.tableExecuteNever | Self.tablePrivileged | Self.tableReadOnly)
  }

  func access(ofLeaf word: UInt64, _ access: Access, restrictions: UInt64) -> Access {
    var leaf = word | (restrictions & Self.tableExecuteNever) &>> (59 - 53)
    if restrictions & Self.tablePrivileged != 0 { leaf &= ~Self.unprivileged }
    if restrictions & Self.tableReadOnly != 0 {
      leaf = leaf & ~descriptor.dirtyModifier | Self.readOnly
    }
    return Self.access(leaf, descriptor.dirtyModifier)
  }

  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason {
    descriptor.reason(ofReserved: word, at: level)
  }

  public var notesDirty: Bool { clean != 0 }

  public func isDirty(_ word: UInt64) -> Bool { !notesDirty || word & Self.readOnly == 0 }

  public func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 {
    guard word & descriptor.dirtyModifier != 0 else { return word }
    return isDirty ? word & ~Self.readOnly : word | Self.readOnly
  }
}
