// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// RISC-V paging, of 3, 4 or 5 levels: Sv39, Sv48 and Sv57 with virtual addresses, which are signed, or
/// Sv39x4, Sv48x4 and Sv57x4 with guest physical addresses, with two more bits, which the root resolves, and
/// no sign.
///
/// Source: The RISC-V Instruction Set Manual, volume II, Privileged Architecture, sections "Sv39:
/// Page-Based 39-bit Virtual-Memory System", "Virtual Address Translation Process", "Guest Physical
/// Address Translation", and those of the extensions Svnapot and Svpbmt. The RISC-V IOMMU
/// Architecture Specification takes all of it for the tables of an IOMMU.
public struct RISCV: PageTableFormat {
  public var granule: Granule { Granule(shift: 12) }
  public var indexBits: Int { 9 }
  public var repeatsLeaf: Bool { true }

  public let geometry: PageTableGeometry
  // What must be 0 in every word, by what hardware does not have and what it cannot address.
  private let reservedBits: UInt64
  // The bits that make a run, or 0 without runs.
  private let run: UInt64
  // The dirty bit where hardware sets it and A, and where it must find both set: one of them is 0.
  private let dirty: UInt64
  private let preset: UInt64
  // What a leaf has to have, or every access faults: A where hardware does not set it, and U in the
  // second stage.
  private let needed: UInt64
  private let hasMemoryTypes: Bool

  public init(_ options: PageTableOptions) throws(Failure) {
    geometry = try riscvGeometry(options)
    run = options.features.contains(.runs) ? Self.napot | Self.napotSize : 0
    dirty = options.features.contains(.dirty) ? Self.dirtyBit : 0
    preset = Self.dirtyBit ^ dirty
    needed = (dirty == 0 ? Self.accessed : 0) | (options.isSecondStage ? Self.user : 0)
    hasMemoryTypes = options.features.contains(.memoryTypes)
    let unreachableBits = UInt64.max &<< UInt64(truncatingIfNeeded: geometry.outputBits &- 2)
    reservedBits =
      Self.futureBits | Self.numberBits & unreachableBits
      | (hasMemoryTypes ? 0 : Self.memoryType) | (Self.napot & ~run)
  }

  // Bit 0, V: the entry is valid.
  private static var valid: UInt64 { 1 }
  // Bits 1, 2 and 3, R, W and X: what is permitted. An entry with none of them leads to a table; W
  // without R is reserved.
  private static var readable: UInt64 { 1 &<< 1 }
  private static var writable: UInt64 { 1 &<< 2 }
  private static var executable: UInt64 { 1 &<< 3 }
  // Bit 4, U: for requests without privilege, and only for them. To the second stage all are such.
  private static var user: UInt64 { 1 &<< 4 }
  // Bits 6 and 7, A and D: hardware sets them, or faults where it would.
  private static var accessed: UInt64 { 1 &<< 6 }
  private static var dirtyBit: UInt64 { 1 &<< 7 }
  // Bits 10 to 53: the number of the page. Bits 8 and 9 are for software.
  private static var numberBits: UInt64 { 0x003F_FFFF_FFFF_FC00 }
  // Bits 54 to 60: reserved for future use.
  private static var futureBits: UInt64 { 0x1FC0_0000_0000_0000 }
  // Bits 61 and 62, PBMT: 0 leaves the memory's own attributes, 1 is non-cacheable, 2 is I/O, 3 is
  // reserved.
  private static var memoryType: UInt64 { 3 &<< 61 }
  private static var memoryTypeIO: UInt64 { 2 &<< 61 }
  // Bit 63, N: the leaf is a run of the size that the low bits of its page number encode. 1000 is the
  // one that is defined, for 16 leaves of the lowest level.
  private static var napot: UInt64 { 1 &<< 63 }
  private static var napotSize: UInt64 { 8 &<< 10 }
  private static var napotSizeBits: UInt64 { 15 &<< 10 }

  /// Leaves of 4 KiB, 2 MiB, 1 GiB, 512 GiB and 256 TiB, and runs of 64 KiB.
  public func leafOrders(at level: Int) -> UInt32 { level == 0 && run != 0 ? 1 | 1 &<< 4 : 1 }

  public func canExpress(_ access: Access) -> Bool {
    var known: Access = [.read, .write, .execute]
    if needed & Self.user == 0 { known.insert(.privileged) }
    if hasMemoryTypes { known.insert(.mmio) }
    return access.isSubset(of: known) && !access.isDisjoint(with: [.read, .execute])
      && (access.contains(.read) || !access.contains(.write))
  }

  @inline(__always)
  public func attributes(_ access: Access, order: Int, at level: Int) -> UInt64 {
    Self.valid | Self.accessed | maskIfPositive(order) & run
      | access.mask(.read) & Self.readable
      | access.mask(.write) & (Self.writable | preset)
      | access.mask(.execute) & Self.executable
      | ~access.mask(.privileged) & Self.user
      | access.mask(.mmio) & Self.memoryTypeIO
  }

  // The bits of a run's size are 0 in the number of its first page.
  public func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64 {
    output.rawValue &>> 2 | attributes
  }

  // A table permits everything: there is nothing in the word to forbid it with.
  public func table(_ next: PhysicalAddress, at level: Int) -> UInt64 {
    next.rawValue &>> 2 | Self.valid
  }

  public var plainWords: PlainWords {
    PlainWords(
      addressBits: Self.numberBits &<< 2, addressShift: 2, presentBits: Self.valid,
      leafNotes: dirty,
      // Bits 61 and 62 go to the top, and bits 1 to 4, and 7, behind them.
      accessBits: Self.memoryType | 0x1E | preset, shifts: (1, 54))
  }

  @inline(__always)
  public func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry {
    if word & Self.valid == 0 { return .empty }
    if word & reservedBits != 0 { return .reserved }
    let address = (word & Self.numberBits) &<< 2
    let permissions = word & (Self.readable | Self.writable | Self.executable)
    if permissions == 0 {
      // "Virtual Address Translation Process", step 4: below the lowest level there is no table. In an
      // entry that leads to one, A, D and U are reserved, and what only leaves have is.
      let leafBits = Self.user | Self.accessed | Self.dirtyBit | Self.memoryType | Self.napot
      return level == 0 || word & leafBits != 0 ? .reserved : .table(PhysicalAddress(address))
    }
    // Step 3, and the faults of every access.
    guard permissions & (Self.readable | Self.writable) != Self.writable, word & needed == needed,
      word & Self.memoryType != Self.memoryType
    else { return .reserved }
    // Where hardware does not set D, writes fault until software has done so.
    let isWritable = word & (word | ~preset) &>> 5 & Self.writable
    let access = Access.part(.read, if: word, has: Self.readable)
      .union(.part(.write, if: isWritable, has: Self.writable))
      .union(.part(.execute, if: word, has: Self.executable))
      .union(.part(.privileged, if: ~word, has: Self.user))
      .union(.part(.mmio, if: word, has: Self.memoryTypeIO))
    if word & Self.napot != 0 {
      guard level == 0, word & Self.napotSizeBits == Self.napotSize else { return .reserved }
      let place = UInt64(truncatingIfNeeded: index) & 15
      let output = address & ~(Self.napotSizeBits &<< 2) | place &<< 12
      return .leaf(TableLeaf(PhysicalAddress(output), access, order: 4))
    }
    // Step 6: a superpage that is misaligned faults.
    guard address & (spanMask(at: level) & ~granule.mask) == 0 else { return .reserved }
    return .leaf(TableLeaf(PhysicalAddress(address), access))
  }

  // Software that relies on hardware to set A, where that does not, has to set it itself.
  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason {
    if case .leaf = decode(word | Self.accessed, at: level, index: 0) { return .notAccessed }
    return .reserved
  }

  public var notesDirty: Bool { dirty != 0 }

  public func isDirty(_ word: UInt64) -> Bool { dirty == 0 || word & dirty != 0 }

  public func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64 {
    isDirty ? word | dirty : word & ~dirty
  }
}

/// The geometry of tables of a stage, checked.
private func riscvGeometry(_ options: PageTableOptions) throws(Failure) -> PageTableGeometry {
  guard options.features.isSubset(of: [.dirty, .memoryTypes, .runs]) else { throw .notSupported }
  let levels = options.levels == 0 ? 4 : options.levels
  guard 3...5 ~= levels else { throw .invalidArgument }
  let inputBits = 12 &+ 9 &* levels &+ (options.isSecondStage ? 2 : 0)
  let outputBits = options.outputBits == 0 ? 56 : options.outputBits
  guard options.inputBits == 0 || options.inputBits == inputBits, 32...56 ~= outputBits else {
    throw .invalidArgument
  }
  return PageTableGeometry(
    levels: levels, inputBits: inputBits, isSigned: !options.isSecondStage, outputBits: outputBits)
}
