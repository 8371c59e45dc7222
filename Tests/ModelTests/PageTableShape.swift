// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import ReferenceModels
import Testing

/// What a page table is made for, with all that the header says of such a table.
struct PageTableShape: Sendable, CustomTestStringConvertible {
  let name: String
  let format: UInt32
  /// Levels of a table in which nothing is mapped, and those that it may grow to.
  let levels: Int
  var levelsMax: Int?
  let features: UInt32
  let inputBits: Int
  let outputBits: Int
  let isSigned: Bool
  /// The sizes of leaves as exponents, the smallest first.
  let leafShifts: [UInt64]
  /// What a leaf can permit.
  let expressible: [UInt32]

  var testDescription: String { name }

  var granule: UInt64 { 1 << leafShifts[0] }
  var leafSizes: [UInt64] { leafShifts.map { 1 << $0 } }
  /// A table has a granule's worth of words.
  var spans: [UInt64] {
    (0..<UInt64(levelsMax ?? levels)).map { 1 << (leafShifts[0] + $0 * (leafShifts[0] - 3)) }
  }
  var lastOutput: UInt64 { (1 << UInt64(outputBits)) - 1 }

  /// The root has as many words as its inputs need, but at least a granule's worth.
  var rootSize: UInt64 {
    let bits = UInt64(inputBits) - UInt64(spans.last!.trailingZeroBitCount)
    return max(granule, 8 << bits)
  }

  /// What can be mapped: signed inputs have an upper half at the end of all.
  var inputs: [ClosedRange<UInt64>] {
    let last = UInt64.max >> UInt64(64 - inputBits + (isSigned ? 1 : 0))
    return isSigned ? [0...last, ~last...UInt64.max] : [0...last]
  }

  var model: PageTableModel {
    PageTableModel(
      spans: spans, leafSizes: leafSizes, inputs: inputs, lastOutput: lastOutput, levels: levels,
      expressible: Set(expressible))
  }

  var options: dmacore_pagetable_options {
    var options = dmacore_pagetable_options()
    options.struct_size = MemoryLayout<dmacore_pagetable_options>.size
    options.format = format
    options.levels = UInt32(levels)
    options.input_bits = UInt32(inputBits)
    options.output_bits = UInt32(outputBits)
    options.granule = UInt32(granule)
    options.features = features
    return options
  }

  /// Each format, with features and without, and each way in which tables of one format differ.
  static let all = [
    vtd(levels: 3), vtd(levels: 4), vtd(levels: 5, coherence | dirty),
    x86(levels: 4), x86(levels: 5, dirty), x86(levels: 4, signedInput | dirty),
    amd(levels: 6, inputBits: 64), amd(levels: 1, inputBits: 64), amd(levels: 3, inputBits: 50),
    amd(levels: 4, inputBits: 48, coherence | dirty),
    arm(1, levels: 4, inputBits: 48, granule4K), arm(1, levels: 3, inputBits: 39, granule4K, runs),
    arm(1, levels: 4, inputBits: 48, granule16K, runs | dirty),
    arm(1, levels: 3, inputBits: 52, outputBits: 52, granule64K, runs),
    // The roots of these are of 2, 2 and 8 tables side by side.
    arm(2, levels: 3, inputBits: 40, granule4K, dirty),
    arm(2, levels: 3, inputBits: 48, granule16K, runs),
    arm(2, levels: 2, inputBits: 45, granule64K, runs | dirty),
    arm(2, levels: 4, inputBits: 48, granule4K, runs),
    riscv(1, levels: 3), riscv(1, levels: 5, runs | dirty | memoryTypes),
    riscv(2, levels: 4, runs), riscv(2, levels: 3, dirty),
  ]

  // MARK: - Features and kinds of access

  private static let coherence = DMACORE_PAGETABLE_COHERENCE.rawValue
  private static let dirty = DMACORE_PAGETABLE_DIRTY.rawValue
  private static let runs = DMACORE_PAGETABLE_RUNS.rawValue
  private static let signedInput = DMACORE_PAGETABLE_SIGNED_INPUT.rawValue
  private static let memoryTypes = DMACORE_PAGETABLE_MEMORY_TYPES.rawValue

  private static let read = DMACORE_ACCESS_READ.rawValue
  private static let write = DMACORE_ACCESS_WRITE.rawValue
  private static let execute = DMACORE_ACCESS_EXECUTE.rawValue
  private static let privileged = DMACORE_ACCESS_PRIVILEGED.rawValue
  private static let mmio = DMACORE_ACCESS_MMIO.rawValue
  private static let cacheable = DMACORE_ACCESS_CACHEABLE.rawValue

  /// All of these that permit something and of which a format does not forbid the combination.
  private static func accesses(
    of bits: UInt32..., where isFine: (UInt32) -> Bool = { _ in true }
  ) -> [UInt32] {
    let known = bits.reduce(0, |)
    return (0..<64).filter { $0 & ~known == 0 && $0 & (read | write | execute) != 0 && isFine($0) }
  }

  // MARK: - Formats

  private static func vtd(levels: Int, _ features: UInt32 = 0) -> PageTableShape {
    PageTableShape(
      name: "VT-d, \(levels) levels, features \(features)",
      format: DMACORE_PAGETABLE_VTD_SECOND_STAGE.rawValue, levels: levels, features: features,
      inputBits: 12 + 9 * levels, outputBits: 52, isSigned: false, leafShifts: [12, 21, 30],
      expressible: accesses(of: read, write, features & coherence == 0 ? 0 : cacheable))
  }

  private static func x86(levels: Int, _ features: UInt32 = 0) -> PageTableShape {
    let isSigned = features & signedInput != 0
    return PageTableShape(
      name: "x86-64, \(levels) levels, features \(features)",
      format: DMACORE_PAGETABLE_X86_64.rawValue, levels: levels, features: features,
      inputBits: 12 + 9 * levels - (isSigned ? 0 : 1), outputBits: 52, isSigned: isSigned,
      leafShifts: [12, 21, 30],
      expressible: accesses(of: read, write, execute, privileged, mmio) { $0 & read != 0 })
  }

  private static func amd(levels: Int, inputBits: Int, _ features: UInt32 = 0) -> PageTableShape {
    let levelsMax = (inputBits - 12 + 8) / 9
    return PageTableShape(
      name: "AMD v1, \(levels) levels, \(inputBits) bits, features \(features)",
      format: DMACORE_PAGETABLE_AMD_V1.rawValue, levels: levels,
      levelsMax: levelsMax,
      features: features,
      inputBits: inputBits, outputBits: 52, isSigned: false,
      // A leaf is less than a whole table, if a root is one.
      leafShifts: (12...51).filter { $0 != 39 && $0 <= inputBits && $0 < 12 + 9 * levelsMax },
      expressible: accesses(of: read, write, features & coherence == 0 ? 0 : cacheable))
  }

  private static let granule4K: [UInt64] = [12, 21, 30]
  private static let granule16K: [UInt64] = [14, 25]
  private static let granule64K: [UInt64] = [16, 29]

  private static func arm(
    _ stage: Int, levels: Int, inputBits: Int, outputBits: Int = 48, _ leafShifts: [UInt64],
    _ features: UInt32 = 0
  ) -> PageTableShape {
    let runShifts: [UInt64] =
      switch leafShifts[0] {
      case 12: [16, 25, 34]
      case 14: [21, 30]
      default: [21, 34]
      }
    var all = leafShifts + (features & runs == 0 ? [] : runShifts)
    if outputBits == 52 { all.append(42) }
    let forbidden = mmio | cacheable
    return PageTableShape(
      name:
        "ARM stage \(stage), \(1 << (leafShifts[0] - 10)) KiB, \(inputBits) bits, features \(features)",
      format: (stage == 1 ? DMACORE_PAGETABLE_ARM64_STAGE1 : DMACORE_PAGETABLE_ARM64_STAGE2)
        .rawValue,
      levels: levels, features: features, inputBits: inputBits, outputBits: outputBits,
      isSigned: false, leafShifts: all.sorted(),
      expressible: accesses(
        of: read, write, execute, mmio, cacheable, stage == 1 ? privileged : 0
      ) { $0 & forbidden != forbidden && (stage == 2 || $0 & read != 0) })
  }

  private static func riscv(
    _ stage: Int, levels: Int, _ features: UInt32 = 0
  ) -> PageTableShape {
    var leafShifts = (0..<UInt64(levels)).map { 12 + 9 * $0 }
    if features & runs != 0 { leafShifts.insert(16, at: 1) }
    return PageTableShape(
      name: "RISC-V stage \(stage), \(levels) levels, features \(features)",
      format: (stage == 1
        ? DMACORE_PAGETABLE_RISCV_FIRST_STAGE : DMACORE_PAGETABLE_RISCV_SECOND_STAGE).rawValue,
      levels: levels, features: features, inputBits: 12 + 9 * levels + (stage == 1 ? 0 : 2),
      outputBits: 56, isSigned: stage == 1, leafShifts: leafShifts,
      expressible: accesses(
        of: read, write, execute, stage == 1 ? privileged : 0,
        features & memoryTypes == 0 ? 0 : mmio
      ) { $0 & (read | write) != write })
  }
}
