// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives

/// What the words of a format look like mostly, in numbers.
///
/// A plain word leads to a table or is a leaf by itself, as the library writes it. What is done most,
/// the code of `PageTable+Plain.swift`, knows words by these numbers alone, and is so the same for all
/// formats. Everything else is left to the format, so that nothing is lost where this is narrow: only
/// time.
public struct PlainWords: Sendable {
  /// Where an address is: (word << addressShift) & addressBits. Addresses with other bits are not plain.
  let addressBits: UInt64
  let addressShift: UInt64
  /// Bits of leaves that say nothing, or nothing but that the leaf was used.
  let leafNotes: UInt64
  /// The bits of a leaf that tell what it permits, and what brings them, which are two groups, together to
  /// the highest bits of a word.
  let accessBits: UInt64
  private let accessFactor: UInt64

  /// - Parameters:
  ///   - accessBits: those of a leaf that tell what it permits.
  ///   - shifts: by how many bits those are shifted up, and shifted up again, so that all of them, those
  ///     that are shifted out excepted, are somewhere in the highest ten bits, each once.
  public init(
    addressBits: UInt64, addressShift: Int = 0, leafNotes: UInt64 = 0,
    accessBits: UInt64, shifts: (Int, Int)
  ) {
    self.addressBits = addressBits
    self.addressShift = UInt64(truncatingIfNeeded: addressShift)
    self.leafNotes = leafNotes
    self.accessBits = accessBits
    accessFactor =
      1 &<< UInt64(truncatingIfNeeded: shifts.0) | 1 &<< UInt64(truncatingIfNeeded: shifts.1)
  }

  /// The number, below 1024, that the access of a leaf's word is known by.
  @inline(__always)
  func accessNumber(_ word: UInt64) -> Int {
    Int(truncatingIfNeeded: ((word & accessBits) &* accessFactor) &>> 54)
  }
}

/// The plain words of one level of one table.
@safe
struct PlainLevel {
  /// The exponent of what an entry spans, and masks: the span less one, that of a table, and that of the
  /// smallest leaf which is larger than an entry.
  var shift: UInt64 = 63
  var spanMask: UInt64 = 0
  var tableSpanMask: UInt64 = 0
  var largerMask: UInt64 = UInt64.max
  /// The highest offset of a tree whose root is on this level.
  var lastOffset: UInt64 = 0
  /// What the words of tables have besides their address. Those of level 0 have what none has.
  var table: UInt64 = UInt64.max
  /// What the words of leaves have, of the bits that are the same in all of them; among those are the
  /// bits of addresses that are not aligned to the span.
  var leafMask: UInt64 = 0
  var leaf: UInt64 = UInt64.max
  /// The bits that outputs do not have.
  var noOutput: UInt64 = UInt64.max
  /// For each access the word of a leaf to 0; 0 if that is not plain.
  let attributes: UnsafeMutablePointer<UInt64>
  /// Labels of tables on this level; see `PlainTable`.
  let directory: UnsafeMutablePointer<UInt64>
  var directoryMask: UInt64 = 0
  /// The exponent of what a table spans.
  var tableShift: UInt64 = 63
  /// What tells the roles of tables on this level from those on others.
  let role: UInt64

  @inline(__always)
  func isLeaf(_ word: UInt64) -> Bool { word & leafMask == leaf && word != 0 }

  /// The role of the table that an offset leads through, and its place in the directory.
  @inline(__always)
  func role(_ offset: UInt64) -> (UInt64, at: Int) {
    let number = offset &>> tableShift
    return (number &<< 3 | role, Int(truncatingIfNeeded: number & directoryMask))
  }

  @inline(__always)
  func attributes(_ access: UInt32) -> UInt64 {
    // SAFETY: there are 64.
    access < 64 ? unsafe attributes[Int(access)] : 0
  }
}

/// The plain words of one table, and a directory of the tables in its tree.
///
/// The directory has the labels of pages that were made tables on the two lowest levels, by
/// where in the space of inputs those are: one label for all that are a power of two apart, of the last
/// that was made. It is a hint: what is there may be a table no more, which its label tells. So nothing is
/// ever taken out of it.
@safe
struct PlainTable: ~Copyable {
  private static var levelCount: Int { 8 }
  // Leaves are plain on so many levels.
  private static var leafLevelCount: Int { 3 }
  private static var accessCount: Int { 64 }
  private static var numberCount: Int { 1024 }
  // With 4 KiB pages these are 1 GiB of the smallest leaves and 64 GiB of those of 2 MiB.
  private static var lowestDirectoryCount: Int { 512 }
  private static var nextDirectoryCount: Int { 64 }

  let words: PlainWords
  let indexBits: UInt64
  let indexMask: UInt64
  /// The bits of words of tables that are not of their address.
  let tableMask: UInt64
  /// The bits of an output in a leaf, which may be fewer than those of a table's address, and the highest
  /// output.
  let outputBits: UInt64
  let lastOutput: UInt64
  // One piece of memory: the levels; then their attributes, of which those above have none; then their
  // directories, likewise, and the label of nothing that is there at first; then the access for each
  // access number, or 0 if that is of no plain word.
  private let levels: UnsafeMutablePointer<PlainLevel>
  private let accesses: UnsafeMutablePointer<UInt8>

  /// - Throws: `noMemory`.
  init<Format: PageTableFormat>(_ format: Format) throws(Failure) {
    let geometry = format.geometry
    words = format.plainWords
    indexBits = UInt64(truncatingIfNeeded: format.indexBits)
    indexMask = (1 &<< indexBits) &- 1
    tableMask = ~(words.addressBits &>> words.addressShift)
    outputBits = words.addressBits & geometry.outputMask
    lastOutput = outputBits | format.granule.mask
    let attributeCount = (Self.leafLevelCount &+ 1) &* Self.accessCount
    let directoryCount = Self.lowestDirectoryCount &+ Self.nextDirectoryCount &+ 1
    let levelBytes = Self.levelCount &* MemoryLayout<PlainLevel>.stride
    let wordCount = attributeCount &+ directoryCount
    let raw = unsafe try RawMemory.allocate(
      levelBytes + 8 * wordCount + TableLabel.size + Self.numberCount, alignment: 64)
    // SAFETY: the allocation has room for all of them, one behind the other.
    unsafe levels = raw.bindMemory(to: PlainLevel.self, capacity: Self.levelCount)
    let attributes = unsafe (raw + levelBytes).bindMemory(
      to: UInt64.self, capacity: wordCount + 2)
    let directory = unsafe attributes + attributeCount
    let nothing = unsafe TableLabel(role: attributes + wordCount)
    unsafe accesses = UnsafeMutableRawPointer(nothing.role + 2).bindMemory(
      to: UInt8.self, capacity: Self.numberCount)
    unsafe attributes.initialize(repeating: 0, count: wordCount + 2)
    unsafe directory.update(repeating: nothing.address, count: directoryCount)
    unsafe accesses.initialize(repeating: 0, count: Self.numberCount)
    for level in 0..<Self.levelCount {
      let start = min(level, Self.leafLevelCount) &* Self.accessCount
      let (first, count) =
        switch level {
        case 0: (0, Self.lowestDirectoryCount)
        case 1: (Self.lowestDirectoryCount, Self.nextDirectoryCount)
        default: (directoryCount &- 1, 1)
        }
      unsafe (levels + level).initialize(
        to: PlainLevel(
          attributes: attributes + start, directory: directory + first,
          directoryMask: UInt64(count &- 1), role: UInt64(level) &<< 1 | 1))
    }
    for level in 0..<min(geometry.levelsMax, Self.levelCount) { describe(level, format) }
  }

  deinit { unsafe RawMemory.free(levels) }

  private func describe<Format: PageTableFormat>(_ level: Int, _ format: Format) {
    let geometry = format.geometry
    let isHighest = level &+ 1 == geometry.levelsMax
    var new = unsafe levels[level]
    new.shift = UInt64(truncatingIfNeeded: format.shift(at: level))
    new.spanMask = format.spanMask(at: level)
    new.tableSpanMask = format.spanMask(at: level &+ 1)
    new.tableShift = UInt64(truncatingIfNeeded: min(63, format.shift(at: level &+ 1)))
    new.lastOffset = geometry.lastLowInput
    if !isHighest { new.lastOffset = min(new.lastOffset, new.tableSpanMask) }
    if level > 0 { new.table = format.table(PhysicalAddress(0), at: level &- 1) & tableMask }
    new.largerMask = smallestLeafMask(above: level, format)
    new.leafMask =
      ~((outputBits & ~new.spanMask) &>> words.addressShift | words.leafNotes | words.accessBits)
    new.noOutput = ~(outputBits & ~new.spanMask)
    if level < Self.leafLevelCount && format.leafOrders(at: level) & 1 != 0 {
      for bits in 0..<Access.all.rawValue &+ 1 where format.canExpress(Access(rawValue: bits)) {
        describeLeaf(Access(rawValue: bits), level, &new, format)
      }
    }
    unsafe levels[level] = new
  }

  /// Takes the leaf that permits this for plain, if its words are what they have to be then.
  private func describeLeaf<Format: PageTableFormat>(
    _ access: Access, _ level: Int, _ new: inout PlainLevel, _ format: Format
  ) {
    let word = format.leaf(
      PhysicalAddress(0), attributes: format.attributes(access, order: 0, at: level))
    if new.leaf == UInt64.max { new.leaf = word & new.leafMask }
    for variant in [format.settingDirty(word, false), format.settingDirty(word, true)] {
      let number = words.accessNumber(variant)
      guard new.isLeaf(variant),
        case .leaf(TableLeaf(PhysicalAddress(0), access)) = format.decode(
          variant, at: level, index: 0)
      else { return }
      unsafe accesses[number] = UInt8(truncatingIfNeeded: access.rawValue)
    }
    unsafe new.attributes[Int(access.rawValue)] = word
  }

  /// The span less one of the smallest leaf that is larger than an entry of this level.
  private func smallestLeafMask<Format: PageTableFormat>(
    above level: Int, _ format: Format
  ) -> UInt64 {
    let runs = format.leafOrders(at: level) & ~1
    if runs != 0 { return format.runMask(at: level, order: runs.trailingZeroBitCount) }
    for above in level &+ 1..<max(level &+ 1, format.geometry.levelsMax) {
      let orders = format.leafOrders(at: above)
      if orders != 0 { return format.runMask(at: above, order: orders.trailingZeroBitCount) }
    }
    return UInt64.max
  }

  /// - Parameter number: of a level of the table.
  @inline(__always)
  func level(_ number: Int) -> UnsafePointer<PlainLevel> {
    // SAFETY: no format has more than the 8 levels that there are here, and the number of a root's level
    // has three bits.
    unsafe UnsafePointer(levels + number)
  }

  /// Puts a table of the tree into the directory, if there is one for its level.
  ///
  /// - Parameter offset: one that leads through it.
  func announce(_ table: TableLabel, level: Int, _ offset: UInt64) {
    guard level < 2 else { return }
    let level = unsafe levels[level]
    let (role, index) = level.role(offset)
    // It is linked if it is not in the tree any more, which takes an overlapping call.
    guard unsafe cplatform_replace_release(table.role, 0, role) else { return }
    unsafe cplatform_store_release(level.directory + index, table.address)
  }

  @inline(__always)
  func access(ofLeaf word: UInt64) -> UInt32 {
    // SAFETY: access numbers are below 1024.
    UInt32(unsafe accesses[words.accessNumber(word)])
  }

  /// The word of a plain leaf.
  @inline(__always)
  func leaf(_ output: UInt64, _ attributes: UInt64) -> UInt64 {
    output &>> words.addressShift | attributes
  }

  @inline(__always)
  func output(ofLeaf word: UInt64) -> UInt64 { (word &<< words.addressShift) & outputBits }
}
