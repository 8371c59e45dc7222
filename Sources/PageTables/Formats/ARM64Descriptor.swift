// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// What the descriptors of both stages of VMSAv8-64 have in common.
///
/// Source: Arm Architecture Reference Manual for A-profile architecture, DDI 0487, section "VMSAv8-64
/// descriptor formats"; Arm System Memory Management Unit Architecture Specification, IHI 0070, which
/// takes the format for the tables of an SMMU. What follows from the size of a page: DDI 0487, sections
/// "The VMSAv8-64 translation process" and "The Contiguous bit", and the pseudocode `ContiguousSize`,
/// `AArch64.BlockDescSupported` and `AArch64.S2InvalidSL`.
struct ARM64Descriptor: Sendable {
  let geometry: PageTableGeometry
  let granule: Granule
  /// Bit 51, DBM, if hardware notes accesses and writes, and otherwise 0: it may make the leaf
  /// writable, which notes that it was written through.
  let dirtyModifier: UInt64
  // The bits of an address that are above what hardware can address.
  private let unreachableBits: UInt64
  // The highest level with blocks.
  private let lastBlockLevel: Int
  // The orders of the runs of all levels, four bits for each; 0 for one that has none.
  private let runOrders: UInt64

  init(_ options: PageTableOptions, isFirstStage: Bool) throws(Failure) {
    granule = options.granule
    let outputBits = options.outputBits == 0 ? 48 : options.outputBits
    let lastBlockLevel: Int
    let runOrders: UInt64
    // The most levels of a second stage, by what hardware can address.
    let levelsMax: Int
    switch granule.shift {
    // Blocks of 32 MiB, and runs of 128 pages or 32 blocks.
    case 14: (lastBlockLevel, runOrders, levelsMax) = (1, 0x57, outputBits < 42 ? 2 : 3)
    // Blocks of 512 MiB, and with outputs of 52 bits, of 4 TiB; runs of 32.
    case 16: (lastBlockLevel, runOrders, levelsMax) = (1, 0x55, outputBits < 44 ? 2 : 3)
    // Blocks of 2 MiB and 1 GiB, and runs of 16.
    default: (lastBlockLevel, runOrders, levelsMax) = (2, 0x444, outputBits < 44 ? 3 : 4)
    }
    geometry = try arm64Geometry(
      options, isFirstStage: isFirstStage, outputBits: outputBits, secondStageLevelsMax: levelsMax)
    dirtyModifier = options.features.contains(.dirty) ? 1 &<< 51 : 0
    unreachableBits = UInt64.max &<< UInt64(truncatingIfNeeded: outputBits)
    self.lastBlockLevel = lastBlockLevel &+ (outputBits == 52 ? 1 : 0)
    self.runOrders = options.features.contains(.runs) ? runOrders : 0
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
  private var addressBits: UInt64 { (1 &<< 48) &- granule.bytes }
  private var highAddressBits: UInt64 { granule.shift == 16 ? 0xF000 : 0 }

  var indexBits: Int { granule.shift &- 3 }

  private func runOrder(at level: Int) -> UInt64 {
    runOrders &>> UInt64(truncatingIfNeeded: 4 &* level) & 15
  }

  func leafOrders(at level: Int) -> UInt32 {
    level > lastBlockLevel ? 0 : 1 | 1 &<< UInt32(truncatingIfNeeded: runOrder(at: level))
  }

  @inline(__always)
  func attributes(order: Int, at level: Int) -> UInt64 {
    Self.valid | Self.accessed | ~maskIfPositive(level) & Self.isTableOrPage
      | maskIfPositive(order) & Self.contiguous
  }

  // Addresses of more than 48 bits are not plain. Software makes SH what the kind of memory demands.
  var plainWords: PlainWords {
    PlainWords(
      addressBits: addressBits, presentBits: Self.valid, leafNotes: Self.innerShareable,
      // Bits 51, 53 and 54 go to the top, and bits 2 to 7 behind them.
      accessBits: 0xFC | 13 &<< 51, shifts: (9, 52))
  }

  func word(_ address: PhysicalAddress) -> UInt64 {
    address.rawValue & addressBits | (address.rawValue &>> 36) & highAddressBits
  }

  private func address(_ word: UInt64) -> UInt64 {
    word & addressBits | (word & highAddressBits) &<< 36
  }

  // A table restricts nothing: the leaf decides.
  func table(_ next: PhysicalAddress) -> UInt64 {
    word(next) | Self.valid | Self.isTableOrPage
  }

  /// - Parameter access: what the word permits if it is a leaf.
  @inline(never)
  func decode(_ word: UInt64, at level: Int, index: Int, access: Access) -> TableEntry {
    if word & Self.valid == 0 { return .empty }
    let address = self.address(word)
    // An address that is too wide is an address size fault in every descriptor.
    if address & unreachableBits != 0 { return .reserved }
    let isBlock = word & Self.isTableOrPage == 0
    if !isBlock && level > 0 { return .table(PhysicalAddress(address)) }
    guard isBlock == (level > 0), level <= lastBlockLevel,
      (word & Self.accessed) | dirtyModifier != 0
    else { return .reserved }
    // The bits below a block's size are not a part of its address, and are ignored.
    let shift = UInt64(truncatingIfNeeded: granule.shift &+ level &* indexBits)
    let order = word & Self.contiguous != 0 ? runOrder(at: level) : 0
    // As in the pseudocode `StageOA`, the input says which of a run it is, and the bits that a leaf
    // has for that are ignored: they are the same, unless the run was not made as it should be.
    let size = UInt64.max &<< (shift &+ order)
    let place = UInt64(truncatingIfNeeded: index) &<< shift
    let output = address & size | place & ~size
    return .leaf(TableLeaf(PhysicalAddress(output), access, order: Int(truncatingIfNeeded: order)))
  }

  /// "Types of MMU faults": an address size fault, an access flag fault, or a translation fault.
  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason {
    if address(word) & unreachableBits != 0 { return .outputWidth }
    let accessed = decode(word | Self.accessed, at: level, index: 0, access: [])
    if case .leaf = accessed { return .notAccessed }
    return .reserved
  }
}

/// The geometry of tables with pages of this size, checked.
private func arm64Geometry(
  _ options: PageTableOptions, isFirstStage: Bool, outputBits: Int, secondStageLevelsMax: Int
) throws(Failure) -> PageTableGeometry {
  guard options.features.isSubset(of: [.dirty, .runs]) else { throw .notSupported }
  let pageShift = options.granule.shift
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
