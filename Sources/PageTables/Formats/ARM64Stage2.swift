// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// The second stage of VMSAv8-64, as processors and SMMUs of Arm have it.
///
/// Its root may be up to 16 tables side by side instead of one more level. It is where hardware has no
/// such level, for what it can address; elsewhere when fewer levels are asked for.
///
/// Source: Arm Architecture Reference Manual for A-profile architecture, DDI 0487, section "VMSAv8-64
/// descriptor formats", stage 2, and sections "Concatenated translation tables", "Stage 2 memory
/// region type and Cacheability attributes", "Hardware management of the Access flag and dirty
/// state".
public struct ARM64Stage2: PageTableFormat {
  public var granule: Granule { descriptor.granule }
  public var indexBits: Int { descriptor.indexBits }
  public var repeatsLeaf: Bool { false }

  private let descriptor: ARM64Descriptor
  // What makes a writable leaf: where hardware notes writes, it is made clean, which is not writable.
  private let clean: UInt64

  public init(_ options: PageTableOptions) throws(Failure) {
    descriptor = try ARM64Descriptor(options, isFirstStage: false)
    clean = descriptor.dirtyModifier == 0 ? Self.writable : descriptor.dirtyModifier
  }

  public var geometry: PageTableGeometry { descriptor.geometry }

  // Bits 2 to 5, MemAttr: outer write-back, inner write-back; both not cached; a device (nGnRE). With
  // 0 in the upper two bits all four are devices.
  private static var memoryKindOuter: UInt64 { 12 &<< 2 }
  private static var writeBack: UInt64 { 15 &<< 2 }
  private static var notCached: UInt64 { 5 &<< 2 }
  private static var device: UInt64 { 1 &<< 2 }
  // Bits 6 and 7, S2AP: reads and writes are permitted.
  private static var readable: UInt64 { 1 &<< 6 }
  private static var writable: UInt64 { 1 &<< 7 }
  // Bits 53 and 54, XN: 2 is that nothing is executed from here, 0 that all is; 1 and 3 permit it to
  // some requests.
  private static var executeNever: UInt64 { 2 &<< 53 }

  public func leafOrders(at level: Int) -> UInt32 { descriptor.leafOrders(at: level) }

  public func canExpress(_ access: Access) -> Bool {
    !access.isDisjoint(with: [.read, .write, .execute])
      && access.isSubset(of: [.read, .write, .execute, .mmio, .cacheable])
      && !access.isSuperset(of: [.mmio, .cacheable])
  }

  @inline(__always)
  public func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    // A device is what is left of memory that is not cached, and write-back is more of it.
    let memory =
      Self.notCached & ~(access.mask(.mmio) & ~Self.device) | ARM64Descriptor.outerShareable
    return descriptor.attributes(order: order, at: level) | memory
      | access.mask(.cacheable) & (Self.writeBack | ARM64Descriptor.innerShareable)
      | access.mask(.read) & Self.readable | access.mask(.write) & clean
      | ~access.mask(.execute) & Self.executeNever
  }

  public func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    descriptor.word(output) | attributes
  }

  public func table(_ next: PhysicalAddress, at level: Int) -> UInt64 { descriptor.table(next) }

  public var plainWords: PlainWords { descriptor.plainWords }

  @inline(__always)
  public func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    descriptor.decode(
      word, at: level, index: index, access: Self.access(word, descriptor.dirtyModifier))
  }

  /// What a leaf permits.
  @inline(never)
  private static func access(_ word: UInt64, _ dirtyModifier: UInt64) -> Access {
    // Bit 51 makes up for bit 7.
    let isWritable = word | (word & dirtyModifier) &>> (51 - 7)
    let isWriteBack = word & (word &>> 1) & (word &>> 2) & (word &>> 3)
    return Access.part(.read, if: word, has: readable)
      .union(.part(.write, if: isWritable, has: writable))
      .union(.part(.execute, if: ~(word | word &<< 1), has: executeNever))
      .union(.part(.mmio, if: ~(word | word &>> 1), has: memoryKindOuter))
      .union(.part(.cacheable, if: isWriteBack, has: writeBack))
  }

  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason {
    descriptor.reason(ofReserved: word, at: level)
  }

  public var notesDirty: Bool { descriptor.dirtyModifier != 0 }

  public func isDirty(_ word: UInt64) -> Bool { !notesDirty || word & Self.writable != 0 }

  public func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 {
    guard word & descriptor.dirtyModifier != 0 else { return word }
    return isDirty ? word | Self.writable : word & ~Self.writable
  }
}
