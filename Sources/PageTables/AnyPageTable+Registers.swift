// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

// What hardware has to be told of a table: the structures of `pagetable.h`, whose sizes C fills in.

extension AnyPageTable {
  /// - Throws: `notSupported` for a table of another format, as all of these.
  public func vtd() throws(Failure) -> dmacore_pagetable_vtd {
    let facts = try facts(of: .vtdSecondStage)
    // VT-d, "Scalable-Mode PASID Table Entry" and "Context Entry", AW: 1 is 39 bits, 2 is 48, 3 is 57.
    return dmacore_pagetable_vtd(
      struct_size: 0, root: facts.root.rawValue, levels: facts.levels32,
      address_width: facts.levels32 &- 2, host_address_bits: outputBits, reserved: 0)
  }

  public func x86_64() throws(Failure) -> dmacore_pagetable_x86_64 {
    let facts = try facts(of: .x86_64)
    // VT-d, "Scalable-Mode PASID Table Entry", FSPM: 0 is 4 levels, 1 is 5; as CR4.LA57 and AMD's
    // GuestPagingMode.
    return dmacore_pagetable_x86_64(
      struct_size: 0, root: facts.root.rawValue, levels: facts.levels32,
      paging_mode: facts.levels32 &- 4, no_execute_enable: 1, write_protect_enable: 1)
  }

  public func amdV1() throws(Failure) -> dmacore_pagetable_amd_v1 {
    // Root and level are of one moment.
    let facts = try facts(of: .amdV1)
    let had: UInt64 = notesDirty ? 3 : 0
    // AMD IOMMU, "Device Table Entry Field Definitions": bit 0 V, bit 1 TV, bits 7 and 8 HAD (3: access
    // and dirty bits), bits 9 to 11 Mode, bits 12 to 51 the root, bit 61 IR, bit 62 IW.
    let entry =
      3 | had &<< 7 | UInt64(facts.levels32) &<< 9 | facts.root.rawValue | 3 &<< 61
    return dmacore_pagetable_amd_v1(
      struct_size: 0, root: facts.root.rawValue, mode: facts.levels32, read: 1, write: 1,
      host_access_dirty: UInt32(truncatingIfNeeded: had), device_table_entry: entry)
  }

  public func arm64Stage1() throws(Failure) -> dmacore_pagetable_arm64_stage1 {
    let facts = try facts(of: .arm64Stage1)
    let common = ARM64Fields(facts, inputBits: inputBits, outputBits: outputBits)
    let notes: UInt32 = notesDirty ? 1 : 0
    // TCR_EL1: bit 23, EPD1: there is no table for the upper half; bits 32 to 34 IPS, bit 39 HA, bit 40
    // HD. MAIR_EL1: as `ARM64Stage1` has it.
    return dmacore_pagetable_arm64_stage1(
      struct_size: 0, ttbr0: common.base,
      tcr: common.control | 1 &<< 23 | UInt64(common.ps) &<< 32 | UInt64(notes) &<< 39
        | UInt64(notes) &<< 40,
      mair: 0x04FF44, t0sz: common.t0sz, tg0: common.tg0, sh0: ARM64Fields.innerShareable,
      irgn0: ARM64Fields.writeBack, orgn0: ARM64Fields.writeBack, ips: common.ps, ha: notes,
      hd: notes)
  }

  public func arm64Stage2() throws(Failure) -> dmacore_pagetable_arm64_stage2 {
    let facts = try facts(of: .arm64Stage2)
    let common = ARM64Fields(facts, inputBits: inputBits, outputBits: outputBits)
    let notes: UInt32 = notesDirty ? 1 : 0
    let startLevel = 4 &- facts.levels32
    // VTCR_EL2, SL0: with 4 KiB 2, 1 and 0 are the levels 0, 1 and 2, and 3 is level 3; with the others
    // 0 to 3 are the levels 3 to 0.
    let is4K = facts.granule.shift == 12
    let sl0 = is4K && startLevel < 3 ? 2 &- startLevel : is4K ? 3 : 3 &- startLevel
    let indexBits = facts.granule.shift &- 3
    let resolved = facts.granule.shift &+ facts.levels &* indexBits
    let more = max(0, Int(inputBits) &- resolved)
    // VTCR_EL2: bits 6 and 7 SL0, bits 16 to 18 PS, bit 21 HA, bit 22 HD, bit 31 is always 1.
    return dmacore_pagetable_arm64_stage2(
      struct_size: 0, vttbr: common.base,
      vtcr: common.control | UInt64(sl0) &<< 6 | UInt64(common.ps) &<< 16 | UInt64(notes) &<< 21
        | UInt64(notes) &<< 22 | 1 &<< 31,
      t0sz: common.t0sz, sl0: sl0, tg0: common.tg0, sh0: ARM64Fields.innerShareable,
      irgn0: ARM64Fields.writeBack, orgn0: ARM64Fields.writeBack, ps: common.ps, ha: notes,
      hd: notes, start_level: startLevel, table_count: 1 &<< UInt32(truncatingIfNeeded: more),
      reserved: 0)
  }

  public func riscv() throws(Failure) -> dmacore_pagetable_riscv {
    let isSecond = kind == .riscvSecondStage
    let facts = try facts(of: isSecond ? .riscvSecondStage : .riscvFirstStage)
    // Privileged Architecture, satp and hgatp, and the same fields of the RISC-V IOMMU's contexts: 8, 9
    // and 10 are Sv39, Sv48 and Sv57, and those with x4. The number of the page is below bit 44.
    let mode = facts.levels32 &+ 5
    let number = facts.root.rawValue &>> 12
    return dmacore_pagetable_riscv(
      struct_size: 0, page_number: number, value: UInt64(mode) &<< 60 | number, mode: mode,
      is_second_stage: isSecond ? 1 : 0)
  }

  private func facts(of kind: PageTableKind) throws(Failure) -> PageTableFacts {
    guard self.kind == kind else { throw .notSupported }
    return facts
  }
}

extension PageTableFacts {
  fileprivate var levels32: UInt32 { UInt32(truncatingIfNeeded: levels) }
}

/// The fields that TCR_EL1 and VTCR_EL2 have in common, and TTBR0_EL1 and VTTBR_EL2.
///
/// Source: Arm Architecture Reference Manual for A-profile architecture, DDI 0487, the descriptions of
/// these registers. Context descriptors and stream table entries of an SMMU have the fields too
/// (IHI 0070).
private struct ARM64Fields {
  // Walks read tables as other code does that caches them: inner shareable, and write-back that
  // allocates on reads and writes.
  static var innerShareable: UInt32 { 3 }
  static var writeBack: UInt32 { 1 }

  let base: UInt64
  let t0sz: UInt32
  let tg0: UInt32
  let ps: UInt32

  init(_ facts: PageTableFacts, inputBits: UInt32, outputBits: UInt32) {
    let root = facts.root.rawValue
    // Bits 48 to 51 of an address go to bits 2 to 5.
    base = root & 0xFFFF_FFFF_FFFF | (root &>> 48 & 15) &<< 2
    t0sz = 64 &- inputBits
    // TG0: 0 is 4 KiB, 1 is 64 KiB, 2 is 16 KiB.
    tg0 = facts.granule.shift == 12 ? 0 : facts.granule.shift == 16 ? 1 : 2
    switch outputBits {
    case 32: ps = 0
    case 36: ps = 1
    case 40: ps = 2
    case 42: ps = 3
    case 44: ps = 4
    case 48: ps = 5
    default: ps = 6
    }
  }

  /// Bits 0 to 5 T0SZ, 8 and 9 IRGN0, 10 and 11 ORGN0, 12 and 13 SH0, 14 and 15 TG0.
  var control: UInt64 {
    UInt64(t0sz) | UInt64(Self.writeBack) &<< 8 | UInt64(Self.writeBack) &<< 10
      | UInt64(Self.innerShareable) &<< 12 | UInt64(tg0) &<< 14
  }
}
