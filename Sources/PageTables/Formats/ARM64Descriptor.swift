// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// The size of a page of VMSAv8-64, and what follows from it.
///
/// Source: Arm Architecture Reference Manual for A-profile architecture, DDI 0487, sections "The
/// VMSAv8-64 translation process" and "The Contiguous bit", and the pseudocode `ContiguousSize`,
/// `AArch64.BlockDescSupported` and `AArch64.S2InvalidSL`.
public protocol ARM64Granule: Sendable {
  static var shift: Int { get }
  /// The highest level that has blocks whatever the width of an output is.
  static var lastBlockLevel: Int { get }
  /// The order of the runs of this level, 0 if it has none.
  static func runOrder(at level: Int) -> Int
  /// The most levels of a second stage, by what hardware can address.
  static func secondStageLevelsMax(outputBits: Int) -> Int
}

/// Pages of 4 KiB, blocks of 2 MiB and 1 GiB, runs of 16.
public enum Granule4K: ARM64Granule {
  public static var shift: Int { 12 }
  public static var lastBlockLevel: Int { 2 }
  public static func runOrder(at level: Int) -> Int { level <= 2 ? 4 : 0 }
  public static func secondStageLevelsMax(outputBits: Int) -> Int { outputBits < 44 ? 3 : 4 }
}

/// Pages of 16 KiB, blocks of 32 MiB, runs of 128 pages or 32 blocks.
public enum Granule16K: ARM64Granule {
  public static var shift: Int { 14 }
  public static var lastBlockLevel: Int { 1 }
  public static func runOrder(at level: Int) -> Int { level == 0 ? 7 : level == 1 ? 5 : 0 }
  public static func secondStageLevelsMax(outputBits: Int) -> Int { outputBits < 42 ? 2 : 3 }
}

/// Pages of 64 KiB, blocks of 512 MiB, runs of 32. With outputs of 52 bits, blocks of 4 TiB.
public enum Granule64K: ARM64Granule {
  public static var shift: Int { 16 }
  public static var lastBlockLevel: Int { 1 }
  public static func runOrder(at level: Int) -> Int { level <= 1 ? 5 : 0 }
  public static func secondStageLevelsMax(outputBits: Int) -> Int { outputBits < 44 ? 2 : 3 }
}

/// What the descriptors of both stages of VMSAv8-64 have in common.
///
/// Source: Arm Architecture Reference Manual for A-profile architecture, DDI 0487, section "VMSAv8-64
/// descriptor formats"; Arm System Memory Management Unit Architecture Specification, IHI 0070, which
/// takes the format for the tables of an SMMU.
struct ARM64Descriptor<G: ARM64Granule>: Sendable {
  let geometry: PageTableGeometry
  /// Bit 51, DBM, if hardware notes accesses and writes, and otherwise 0: it may make the leaf
  /// writable, which notes that it was written through.
  let dirtyModifier: UInt64
  private let hasRuns: Bool
  // The bits of an address that are above what hardware can address.
  private let unreachableBits: UInt64
  // The highest level with blocks.
  private let lastBlockLevel: Int

  init(_ options: PageTableOptions, isFirstStage: Bool) throws(Failure) {
    let outputBits = options.outputBits == 0 ? 48 : options.outputBits
    geometry = try arm64Geometry(
      options, pageShift: G.shift, isFirstStage: isFirstStage, outputBits: outputBits,
      secondStageLevelsMax: G.secondStageLevelsMax(outputBits: outputBits))
    dirtyModifier = options.features.contains(.dirty) ? 1 &<< 51 : 0
    hasRuns = options.features.contains(.runs)
    unreachableBits = UInt64.max &<< UInt64(truncatingIfNeeded: outputBits)
    lastBlockLevel = G.lastBlockLevel &+ (outputBits == 52 ? 1 : 0)
  }

  // Bit 0: the descriptor is valid. Bit 1: it leads to a table, or is a page at the lowest level,
  // where it has to be set; without it, it is a block.
  private static var valid: UInt64 { 1 }
  private static var isTableOrPage: UInt64 { 1 &<< 1 }
  // Bits 8 and 9, SH: outer shareable is what hardware takes for all memory that is not cached.
  static var outerShareable: UInt64 { 2 &<< 8 }
  static var innerShareable: UInt64 { 3 &<< 8 }
  // Bit 10, AF: accesses fault where it is clear and hardware does not set it.
  private static var accessed: UInt64 { 1 &<< 10 }
  // Bit 52, contiguous: the leaf is one of a run. It is ignored where there are no runs.
  private static var contiguous: UInt64 { 1 &<< 52 }
  // Bits 47 down to the granule hold the address. Those of the large granule have its bits 51 to 48 in
  // bits 15 to 12.
  private static var addressBits: UInt64 { (1 &<< 48) &- (1 &<< UInt64(G.shift)) }
  private static var highAddressBits: UInt64 { G.shift == 16 ? 0xF000 : 0 }

  static func shift(at level: Int) -> Int { G.shift &+ level &* (G.shift &- 3) }

  func leafOrders(at level: Int) -> UInt32 {
    let run = UInt32(truncatingIfNeeded: G.runOrder(at: level))
    return level > lastBlockLevel ? 0 : hasRuns ? 1 | 1 &<< run : 1
  }

  @inline(__always)
  func attributes(order: Int, at level: Int) -> UInt64 {
    Self.valid | Self.accessed | ~maskIfPositive(level) & Self.isTableOrPage
      | maskIfPositive(order) & Self.contiguous
  }

  // Addresses of more than 48 bits are not plain. Software makes SH what the kind of memory demands.
  var plainWords: PlainWords {
    PlainWords(
      addressBits: Self.addressBits, presentBits: Self.valid, leafNotes: Self.innerShareable,
      // Bits 51, 53 and 54 go to the top, and bits 2 to 7 behind them.
      accessBits: 0xFC | 13 &<< 51, shifts: (9, 52))
  }

  static func word(_ address: PhysicalAddress) -> UInt64 {
    address.rawValue & addressBits | (address.rawValue &>> 36) & highAddressBits
  }

  @inline(__always)
  private static func address(_ word: UInt64) -> UInt64 {
    word & addressBits | (word & highAddressBits) &<< 36
  }

  // A table restricts nothing: the leaf decides.
  static func table(_ next: PhysicalAddress) -> UInt64 { word(next) | valid | isTableOrPage }

  /// - Parameter access: what the word permits if it is a leaf.
  @inline(never)
  func decode(_ word: UInt64, at level: Int, index: Int, access: Access) -> TableEntry {
    if word & Self.valid == 0 { return .empty }
    let address = Self.address(word)
    // An address that is too wide is an address size fault in every descriptor.
    if address & unreachableBits != 0 { return .reserved }
    let isBlock = word & Self.isTableOrPage == 0
    if !isBlock && level > 0 { return .table(PhysicalAddress(address)) }
    guard isBlock == (level > 0), level <= lastBlockLevel,
      (word & Self.accessed) | dirtyModifier != 0
    else { return .reserved }
    // The bits below a block's size are not a part of its address, and are ignored.
    let shift = UInt64(truncatingIfNeeded: Self.shift(at: level))
    let order = hasRuns && word & Self.contiguous != 0 ? G.runOrder(at: level) : 0
    // As in the pseudocode `StageOA`, the input says which of a run it is, and the bits that a leaf
    // has for that are ignored: they are the same, unless the run was not made as it should be.
    let size = UInt64.max &<< (shift &+ UInt64(truncatingIfNeeded: order))
    let place = UInt64(truncatingIfNeeded: index) &<< shift
    let output = address & size | place & ~size
    return .leaf(TableLeaf(PhysicalAddress(output), access, order: order))
  }

  /// "Types of MMU faults": an address size fault, an access flag fault, or a translation fault.
  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason {
    if Self.address(word) & unreachableBits != 0 { return .outputWidth }
    let accessed = decode(word | Self.accessed, at: level, index: 0, access: [])
    if case .leaf = accessed { return .notAccessed }
    return .reserved
  }
}

/// The geometry of tables with pages of this size, checked.
@inline(never)
private func arm64Geometry(
  _ options: PageTableOptions, pageShift: Int, isFirstStage: Bool, outputBits: Int,
  secondStageLevelsMax: Int
) throws(Failure) -> PageTableGeometry {
  guard options.features.isSubset(of: [.dirty, .runs]) else { throw .notSupported }
  let inputBits = options.inputBits == 0 ? 48 : options.inputBits
  // Addresses of 52 bits are for the large granule, and such inputs of a second stage for hardware
  // that has such outputs.
  let is64K = pageShift == 16
  let inputBitsMax = is64K && (isFirstStage || outputBits == 52) ? 52 : 48
  guard 32...inputBitsMax ~= inputBits else { throw .invalidArgument }
  switch outputBits {
  case 32, 36, 40, 42, 44, 48: break
  case 52 where is64K: break
  default: throw .invalidArgument
  }
  let indexBits = pageShift &- 3
  let natural = (inputBits &- pageShift &+ indexBits &- 1) / indexBits
  let levelsMax =
    isFirstStage ? natural : min(natural, secondStageLevelsMax)
  let levels = options.levels == 0 ? levelsMax : options.levels
  // A second stage may do with one level less, when up to 16 tables side by side make its root, and
  // has to where hardware has no such level.
  let rootBitsMax = isFirstStage ? indexBits : indexBits &+ 4
  guard levels >= 1, levels <= levelsMax,
    inputBits &- (pageShift &+ (levels &- 1) &* indexBits) <= rootBitsMax
  else {
    throw .invalidArgument
  }
  return PageTableGeometry(levels: levels, inputBits: inputBits, outputBits: outputBits)
}
