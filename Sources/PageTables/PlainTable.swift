// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives

/// The plain words of one level of one table.
@safe
struct PlainLevel {
  /// The exponent of what an entry spans, and masks: the span less one, that of a table, and that of the
  /// smallest leaf which is larger than an entry.
  var shift: UInt64 = 63
  var spanMask: UInt64 = 0
  // Of a level that the tree does not have, a table that no label has.
  var tableSpanMask: UInt64 = UInt64.max
  var largerMask: UInt64 = UInt64.max
  /// The highest offset of a tree whose root is on this level.
  var lastOffset: UInt64 = 0
  /// What brings the number of an entry to the highest bits of a product, with an input: one multiplication
  /// takes less time than a shift by a number that is not known to the compiler. For levels that a
  /// directory has.
  var numberFactor: UInt64 = 0
  /// What the words of tables have besides their address. Those of level 0 have what none has.
  var table: UInt64 = UInt64.max
  /// What the words of leaves have, of the bits that are the same in all of them; among those are the
  /// bits of addresses that are not aligned to the span.
  var leafMask: UInt64 = 0
  var leaf: UInt64 = UInt64.max
  /// The same of the leaf that most are: that which may be read and written through, with the bits that
  /// tell so.
  var usualMask: UInt64 = 0
  var usual: UInt64 = UInt64.max
  let presentBits: UInt64
  /// The bits that outputs do not have.
  var noOutput: UInt64 = UInt64.max
  /// For each access the word of a leaf to 0; 0 if that is not plain.
  let attributes: UnsafeMutablePointer<UInt64>

  @inline(__always)
  func isLeaf(_ word: UInt64) -> Bool {
    word & leafMask == leaf && word & presentBits != 0
  }

  /// The role of the table that an input leads through on this level, which has this number: the last
  /// input that leads through it, with bits that tell the levels apart.
  @inline(__always)
  func role(_ input: UInt64, level number: Int) -> UInt64 {
    (input | tableSpanMask) ^ UInt64(truncatingIfNeeded: number) &<< 1
  }

  /// The number of the entry for an input, modulo 2^18.
  @inline(__always)
  func entryNumber(_ input: UInt64) -> UInt64 { (input &* numberFactor) &>> 46 }

  /// How many entries of one table a range is: none if it is not such a range.
  @inline(__always)
  func entryCount(_ first: UInt64, _ size: UInt64) -> Int {
    guard (first | size) & spanMask == 0, size &- 1 <= ~first & tableSpanMask else { return 0 }
    return Int(truncatingIfNeeded: size &>> shift)
  }

  /// Whether leaves of an entry each can lead there from an aligned range, and no larger leaf fits.
  @inline(__always)
  func fits(_ first: UInt64, _ extent: UInt64, _ output: UInt64) -> Bool {
    output & noOutput == 0 && (extent < largerMask || (first ^ output) & largerMask != 0)
  }

  @inline(__always)
  func attributes(_ access: UInt32) -> UInt64 {
    // SAFETY: there are 64.
    access < 64 ? unsafe attributes[Int(access)] : 0
  }
}

/// An entry that does not lead to a table in a plain way.
@safe
public struct PlainPlace {
  let entry: UnsafeMutablePointer<UInt64>
  let level: UnsafeMutablePointer<PlainLevel>
  public let word: UInt64
}

/// Some entries of one table.
@safe
struct PlainRow {
  let words: UnsafeMutablePointer<UInt64>
  // At least one.
  let count: Int

  init(_ words: UnsafeMutablePointer<UInt64>, count: Int) {
    unsafe self.words = words
    self.count = count
  }

  var isEmpty: Bool { unsafe cplatform_row_differences(words, count, 0) == 0 }

  /// Stores words of which each is larger than the one before.
  func store(_ first: UInt64, step: UInt64) {
    // Release: pairs with the acquire of walks, so that one that finds a leaf finds the memory as it was
    // when it was mapped.
    unsafe cplatform_row_store(words, count, first, step)
  }

  func clear() {
    // Release: a walk that starts after this call finds the entries empty.
    unsafe cplatform_row_store(words, count, 0, 0)
  }
}

/// The plain words of one table of pages, and a directory of the tables in its tree.
///
/// What is done most goes by this alone: a leaf, or some side by side, is mapped, unmapped or looked up in
/// a table that the directory has. Each function does all or nothing: what it does not do is for those that
/// go by the format, which also find out what is wrong.
///
/// The directory has the labels of pages that were made tables on the two lowest levels, by where in the
/// space of inputs those are: one label for all that are some power of two apart, of the last that was
/// made. An index of the directory stands for 512 entries, whatever a table has: 512 is what it mostly
/// has, and one shift less to find it. It is a hint: what is there may be a table no more, which its label
/// tells. So nothing is ever taken out of it.
///
/// All of it is one piece of memory, so that hardly anything has to be looked for:
///
/// ```
///   | numbers | levels | attributes of the levels | directories | label of nothing | refusals | leaves of pages |
/// ```
@safe
public struct PlainTable {
  private struct Numbers {
    let words: PlainWords
    let indexMask: UInt64
    /// The bits of words of tables that are not of their address.
    let tableMask: UInt64
    /// The bits of an output in a leaf, which may be fewer than those of a table's address.
    let outputBits: UInt64
    let lastOutput: UInt64
    /// What brings an address in a word to its place: a product is faster here than a shift.
    let addressFactor: UInt64
    let isCommon: Bool
  }

  private let numbers: UnsafeMutablePointer<Numbers>

  private static var levelCount: Int { 8 }
  // Leaves are plain on so many levels.
  private static var leafLevelCount: Int { 3 }
  private static var accessCount: Int { 64 }
  /// What a leaf refuses that permits this, with privilege and without: all unknown accesses too, but one,
  /// which is refused where nothing is permitted, so that this refuses even to be looked up.
  private static func refused(_ access: Access) -> Int8 {
    access.isEmpty || access.contains(.privileged)
      ? -1 : ~Int8(truncatingIfNeeded: access.rawValue | nothing)
  }
  private static var nothing: UInt32 { 64 }
  private static var usualAccess: Access { [.read, .write] }
  private static var numberCount: Int { 1024 }
  private static var pageLeafCount: Int { 4 }
  private static var directoryLevelCount: Int { 2 }

  /// With 4 KiB pages these are 1 GiB of the smallest leaves and 64 GiB of those of 2 MiB.
  private static func directoryCount(_ level: Int) -> Int { level == 0 ? 512 : 64 }
  private static var directoryEntries: UInt64 { 512 }

  // Where in the memory what is, in bytes.
  private static var levelsStart: Int { MemoryLayout<Numbers>.stride }
  private static var attributesStart: Int {
    levelsStart + levelCount * MemoryLayout<PlainLevel>.stride
  }
  private static func directoryStart(_ level: Int) -> Int {
    // The levels above those that have leaves share attributes, which are all 0.
    let first = attributesStart + 8 * (leafLevelCount + 1) * accessCount
    return level == 0 ? first : first + 8 * directoryCount(0)
  }
  private static var nothingStart: Int { directoryStart(1) + 8 * directoryCount(1) }
  private static var refusalsStart: Int { nothingStart + TableLabel.size }
  private static var pageLeavesStart: Int { refusalsStart + numberCount }
  private static var size: Int { pageLeavesStart + 8 * pageLeafCount }

  /// - Throws: `noMemory`.
  @_optimize(size)
  init<Format: PageTableFormat>(_ format: Format) throws(Failure) {
    let raw = unsafe try RawMemory.allocateCleared(Self.size, alignment: 64)
    let words = format.plainWords
    let outputBits = words.addressBits & format.geometry.outputMask
    // SAFETY: the memory has room for all that the type's comment says, where it says it.
    unsafe numbers = raw.bindMemory(to: Numbers.self, capacity: 1)
    unsafe numbers.initialize(
      to: Numbers(
        words: words, indexMask: (1 &<< UInt64(format.indexBits)) &- 1,
        tableMask: ~(words.addressBits &>> words.addressShift), outputBits: outputBits,
        lastOutput: outputBits | format.granule.mask, addressFactor: 1 &<< words.addressShift,
        isCommon: format.shift(at: 0) == Int(Self.commonShift)
          && Self.directoryEntries == 1 &<< UInt64(format.indexBits)))
    for number in 0..<Self.levelCount {
      let attributes = min(number, Self.leafLevelCount) * Self.accessCount
      unsafe level(number).initialize(
        to: PlainLevel(
          presentBits: words.presentBits,
          attributes: pointer(Self.attributesStart, UInt64.self) + attributes))
    }
    let nothing = unsafe TableLabel(role: pointer(Self.nothingStart, UInt64.self))
    for level in 0..<Self.directoryLevelCount {
      unsafe pointer(Self.directoryStart(level), UInt64.self).update(
        repeating: nothing.address, count: Self.directoryCount(level))
    }
    unsafe pointer(Self.refusalsStart, Int8.self).update(
      repeating: Self.refused([]), count: Self.numberCount)
    for level in 0..<min(format.geometry.levelsMax, Self.levelCount) { describe(level, format) }
  }

  /// What `init(at:)` makes it again of, while it is not destroyed; never 0.
  public var address: UInt { unsafe UInt(bitPattern: numbers) }

  /// - Parameter address: that of one.
  @inline(__always)
  public init(at address: UInt) {
    // SAFETY: it was the address of numbers, as `address` says.
    unsafe numbers = UnsafeMutablePointer(bitPattern: address).unsafelyUnwrapped
  }

  /// Ends the value, of which there may be copies: none is used any more.
  func destroy() { unsafe RawMemory.free(numbers) }

  @inline(__always)
  private func pointer<Element>(_ start: Int, _: Element.Type) -> UnsafeMutablePointer<Element> {
    // SAFETY: what is at each start is said above, and `init` put it there.
    unsafe (UnsafeMutableRawPointer(numbers) + start).assumingMemoryBound(to: Element.self)
  }

  /// - Parameter number: of a level of the tree.
  @inline(__always)
  func level(_ number: Int) -> UnsafeMutablePointer<PlainLevel> {
    // SAFETY: no format has more than the 8 levels that there are here, and the number of a root's level
    // has three bits.
    unsafe pointer(Self.levelsStart, PlainLevel.self) + number
  }

  /// The words of leaves to 0 by which single pages are mapped, told by number; 0 for one that is not plain.
  @inline(__always)
  var pageLeaves: UnsafeMutablePointer<UInt64> { unsafe pointer(Self.pageLeavesStart, UInt64.self) }

  /// Says what one of these permits, before anybody maps a page. There are four.
  public func setPageLeaf(_ number: UInt32, _ access: UInt32) {
    unsafe pageLeaves[Int(number)] = level(0).pointee.attributes(access)
  }

  static var commonCount: Int { Int(directoryEntries) }

  var addressShift: UInt64 { unsafe numbers.pointee.words.addressShift }
  var indexMask: UInt64 { unsafe numbers.pointee.indexMask }
  var tableMask: UInt64 { unsafe numbers.pointee.tableMask }
  var lastOutput: UInt64 { unsafe numbers.pointee.lastOutput }

  @_optimize(size)
  private func describe<Format: PageTableFormat>(_ level: Int, _ format: Format) {
    let numbers = unsafe self.numbers.pointee
    let words = numbers.words
    let geometry = format.geometry
    let isHighest = level &+ 1 == geometry.levelsMax
    var new = unsafe self.level(level).pointee
    new.shift = UInt64(truncatingIfNeeded: format.shift(at: level))
    // Of the formats none has a level below the third with larger entries than 2^46 bytes.
    new.numberFactor = format.shift(at: level) <= 46 ? 1 &<< (46 &- new.shift) : 0
    new.spanMask = format.spanMask(at: level)
    new.tableSpanMask = format.spanMask(at: level &+ 1)
    new.lastOffset = geometry.lastLowInput
    if !isHighest { new.lastOffset = min(new.lastOffset, new.tableSpanMask) }
    if level > 0 {
      new.table = format.table(PhysicalAddress(0), at: level &- 1) & numbers.tableMask
    }
    new.largerMask = smallestLeafMask(above: level, format)
    new.usualMask =
      ~((numbers.outputBits & ~new.spanMask) &>> words.addressShift | words.leafNotes)
    new.leafMask = new.usualMask & ~words.accessBits
    new.noOutput = ~(numbers.outputBits & ~new.spanMask)
    if level < Self.leafLevelCount && format.leafOrders(at: level) & 1 != 0 {
      for bits in 0..<Access.all.rawValue &+ 1 where format.canExpress(Access(rawValue: bits)) {
        describeLeaf(Access(rawValue: bits), level, &new, format)
      }
    }
    unsafe self.level(level).pointee = new
  }

  /// Takes the leaf that permits this for plain, if its words are what they have to be then.
  @_optimize(size)
  private func describeLeaf<Format: PageTableFormat>(
    _ access: Access, _ level: Int, _ new: inout PlainLevel, _ format: Format
  ) {
    let word = format.leaf(
      PhysicalAddress(0), attributes: format.attributes(access, order: 0, at: level))
    let words = unsafe numbers.pointee.words
    if new.leaf == UInt64.max { new.leaf = word & new.leafMask }
    for bit in 0..<2 {
      let variant = format.settingDirty(word, bit != 0)
      let number = words.accessNumber(variant)
      guard new.isLeaf(variant),
        case .leaf(TableLeaf(PhysicalAddress(0), access)) = format.decode(
          variant, at: level, index: 0)
      else { return }
      unsafe pointer(Self.refusalsStart, Int8.self)[number] = Self.refused(access)
    }
    unsafe new.attributes[Int(access.rawValue)] = word
    if access == Self.usualAccess { new.usual = word & new.usualMask }
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

  // MARK: - The directory

  /// Puts a table of the tree into the directory, if there is one for its level.
  ///
  /// - Parameter input: one that leads through it.
  func announce(_ table: TableLabel, level number: Int, _ input: UInt64) {
    guard number < Self.directoryLevelCount else { return }
    let level = unsafe level(number).pointee
    let role = level.role(input, level: number)
    // If it is retired by now, which takes an overlapping call, it is linked.
    guard unsafe cplatform_replace_release(table.role, 0, role) else { return }
    var first = input & ~level.tableSpanMask
    repeat {
      unsafe cplatform_store_release(
        directoryPlace(level.entryNumber(first), level: number), table.address)
      first &+= Self.directoryEntries &<< level.shift
    } while first & level.tableSpanMask != 0
  }

  @inline(__always)
  private func directoryPlace(_ entryNumber: UInt64, level: Int) -> UnsafeMutablePointer<UInt64> {
    let index = Int(truncatingIfNeeded: entryNumber / Self.directoryEntries)
    return unsafe pointer(Self.directoryStart(level), UInt64.self)
      + (index & (Self.directoryCount(level) &- 1))
  }

  private static var commonShift: UInt64 { 12 }
  private static var commonMask: UInt64 { 1 &<< commonShift &- 1 }
  private static var commonTableMask: UInt64 { directoryEntries &<< commonShift &- 1 }

  /// Whether pages have 4 KiB and tables 512 entries, as in most formats: what the compiler knows need not be
  /// loaded.
  @inline(__always)
  public var isCommon: Bool { unsafe numbers.pointee.isCommon }

  /// The entry for an input in the table on a level, if the directory has that.
  ///
  /// The input may be any number: roles are made from inputs that tables can map.
  ///
  /// - Parameter isCommon: whether the tables are known to be, and the level is 0.
  @inline(__always)
  public func place(_ input: UInt64, level number: Int, isCommon: Bool = false) -> PlainPlace? {
    guard let entry = unsafe entry(input, level: number, isCommon: isCommon) else { return nil }
    return unsafe PlainPlace(
      entry: entry, level: level(number), word: cplatform_load_acquire(entry))
  }

  /// The entry alone, whose word may be anything.
  @inline(__always)
  func entry(
    _ input: UInt64, level number: Int, isCommon: Bool = false
  ) -> UnsafeMutablePointer<UInt64>? {
    let level = unsafe level(number).pointee
    let entryNumber = isCommon ? input &>> Self.commonShift : level.entryNumber(input)
    let address = unsafe cplatform_load_acquire(directoryPlace(entryNumber, level: number))
    // SAFETY: addresses in the directory are of labels, which live as long as the page table.
    let label = unsafe TableLabel(
      role: UnsafeMutablePointer(bitPattern: UInt(address)).unsafelyUnwrapped)
    // Acquire: pairs with the release in announce, so that the table is the one that has the role. It
    // keeps it until it is retired, and is there until it is reclaimed.
    guard
      unsafe cplatform_load_acquire(label.role)
        == (isCommon ? input | Self.commonTableMask : level.role(input, level: number))
    else { return nil }
    let indexMask = isCommon ? Self.directoryEntries &- 1 : self.indexMask
    return unsafe label.words + Int(truncatingIfNeeded: entryNumber & indexMask)
  }

  // MARK: - Single leaves

  @inline(__always)
  public func mapLeaf(_ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32) -> Bool
  {
    if unsafe size == level(0).pointee.spanMask &+ 1 {
      return mapLeaf(first, to: output, access, level: 0)
    }
    return unsafe size == level(1).pointee.spanMask &+ 1
      && mapLeaf(first, to: output, access, level: 1)
  }

  @inline(__always)
  private func mapLeaf(
    _ first: UInt64, to output: UInt64, _ access: UInt32, level number: Int
  ) -> Bool {
    guard let place = place(first, level: number) else { return false }
    return mapLeaf(first, to: output, access, in: place)
  }

  @inline(__always)
  func mapLeaf(
    _ first: UInt64, to output: UInt64, _ access: UInt32, in place: PlainPlace
  ) -> Bool {
    guard place.word == 0 else { return false }
    let level = unsafe place.level.pointee
    let attributes = level.attributes(access)
    guard first & level.spanMask == 0, output & level.noOutput == 0, attributes != 0 else {
      return false
    }
    // Release: pairs with the acquire of walks, so that one that finds the leaf finds the memory as it was
    // when it was mapped.
    unsafe cplatform_store_release(place.entry, output &>> addressShift | attributes)
    return true
  }

  @inline(__always)
  public func unmapLeaf(_ first: UInt64, _ size: UInt64) -> Bool {
    if unsafe size == level(0).pointee.spanMask &+ 1 { return unmapLeaf(first, level: 0) }
    return unsafe size == level(1).pointee.spanMask &+ 1 && unmapLeaf(first, level: 1)
  }

  @inline(__always)
  private func unmapLeaf(_ first: UInt64, level number: Int) -> Bool {
    guard let place = place(first, level: number) else { return false }
    return unmapLeaf(first, in: place)
  }

  @inline(__always)
  func unmapLeaf(_ first: UInt64, in place: PlainPlace) -> Bool {
    let level = unsafe place.level.pointee
    guard level.isLeaf(place.word), first & level.spanMask == 0 else { return false }
    // Release: a walk that starts after this call finds the entry empty.
    unsafe cplatform_store_release(place.entry, 0)
    return true
  }

  /// What the leaf of a place is, if it permits a request and is what most leaves are.
  ///
  /// One comparison for two, and nothing to look for.
  ///
  /// - Parameter request: of any bits.
  @inline(__always)
  public func lookUpUsual(
    _ input: UInt64, _ request: UInt32, in place: PlainPlace, isCommon: Bool = false
  ) -> PageTableLookup? {
    let level = unsafe place.level.pointee
    // A usual word leaves bits of its address and such that say nothing.
    let rest = place.word ^ level.usual
    guard _fastPath(rest & level.usualMask == 0),
      _fastPath(request & ~Self.usualAccess.rawValue == 0)
    else { return nil }
    return leaf(input, rest, Self.usualAccess, isCommon ? Self.commonMask : level.spanMask)
  }

  /// What a leaf of a level is, if it permits a request, with privilege and without.
  ///
  /// - Parameter request: of any bits.
  @inline(__always)
  public func lookUp(
    _ input: UInt64, _ request: UInt32, _ word: UInt64, level number: Int
  ) -> PageTableLookup? {
    unsafe lookUp(input, request, word, level(number))
  }

  @inline(__always)
  func lookUp(
    _ input: UInt64, _ request: UInt32, _ word: UInt64, _ level: UnsafeMutablePointer<PlainLevel>
  ) -> PageTableLookup? {
    let level = unsafe level.pointee
    guard word & level.leafMask == level.leaf else { return nil }
    let numbers = unsafe self.numbers.pointee
    // SAFETY: there is one for each access number.
    let refused = unsafe Int64(
      pointer(Self.refusalsStart, Int8.self)[numbers.words.accessNumber(word)])
    // The sum has an unknown bit if the request has.
    guard refused & (Int64(request) &+ Int64(Self.nothing)) == 0 else { return nil }
    return leaf(
      input, word, Access(rawValue: ~UInt32(truncatingIfNeeded: refused) ^ Self.nothing),
      level.spanMask)
  }

  @inline(__always)
  private func leaf(
    _ input: UInt64, _ word: UInt64, _ access: Access, _ mask: UInt64
  ) -> PageTableLookup {
    let numbers = unsafe self.numbers.pointee
    let last = input | mask
    return PageTableLookup(
      first: last ^ mask, last: last,
      target: (word &* numbers.addressFactor) & numbers.outputBits, access: access)
  }

  // MARK: - Leaves side by side

  /// Maps leaves of the smallest size in one lowest table, if the directory has it.
  @inline(__always)
  public func mapRow(_ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32) -> Bool {
    guard let place = place(first, level: 0) else { return false }
    return mapRow(first, size, to: output, access, in: place)
  }

  /// - Returns: whether all was mapped, and now isn't.
  @inline(__always)
  public func unmapRow(_ first: UInt64, _ size: UInt64) -> Bool {
    guard let place = place(first, level: 0) else { return false }
    return unmapRow(first, size, in: place)
  }

  /// Maps leaves of one size in one table.
  ///
  /// - Parameter place: that of the first; the tree reaches the last.
  @inline(__always)
  func mapRow(
    _ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32, in place: PlainPlace
  ) -> Bool {
    let level = unsafe place.level.pointee
    guard let word = leaf(first, size &- 1, output, access, level),
      let row = row(first, size, in: place), row.isEmpty
    else { return false }
    row.store(word, step: step(level))
    return true
  }

  /// - Returns: whether all was mapped, and now isn't.
  @inline(__always)
  func unmapRow(_ first: UInt64, _ size: UInt64, in place: PlainPlace) -> Bool {
    guard let row = row(first, size, in: place),
      unsafe !isTable(row) && areLeavesAlike(row, place.level.pointee)
    else { return false }
    row.clear()
    return true
  }

  /// Maps as `mapRow` does, in two tables side by side.
  @inline(never)
  public func mapTwoRows(
    _ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32
  ) -> Bool {
    let level = unsafe self.level(0).pointee
    guard let word = leaf(first, size &- 1, output, access, level),
      let (row, next) = twoRows(first, size), Self.isEmpty(row), Self.isEmpty(next)
    else { return false }
    let step = step(level)
    Self.store(row, word, step)
    Self.store(next, word &+ UInt64(truncatingIfNeeded: row.count) &* step, step)
    return true
  }

  /// - Returns: whether all was mapped, and now isn't.
  @inline(never)
  public func unmapTwoRows(_ first: UInt64, _ size: UInt64) -> Bool {
    guard let (row, next) = twoRows(first, size), isUnmappable(row), isUnmappable(next) else {
      return false
    }
    Self.store(row, 0, 0)
    Self.store(next, 0, 0)
    return true
  }

  // Once in the library each, for those who do not do this most.

  @inline(never)
  static func isEmpty(_ row: PlainRow) -> Bool { row.isEmpty }

  @inline(never)
  static func store(_ row: PlainRow, _ first: UInt64, _ step: UInt64) {
    row.store(first, step: step)
  }

  /// Whether a row is plain leaves of the smallest size which permit the same.
  @inline(never)
  func areLeavesAlike(_ row: PlainRow) -> Bool {
    unsafe areLeavesAlike(row, level(0).pointee)
  }

  /// Whether a row of the smallest leaves is not a whole table, and leaves alike.
  private func isUnmappable(_ row: PlainRow) -> Bool { !isTable(row) && areLeavesAlike(row) }

  @inline(never)
  func mapRowApart(
    _ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32, in place: PlainPlace
  ) -> Bool {
    mapRow(first, size, to: output, access, in: place)
  }

  /// As `mapRow`, mostly of one page.
  @inline(__always)
  public func mapFew(_ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32) -> Bool {
    guard let place = place(first, level: 0) else { return false }
    return mapFew(first, size, to: output, access, in: place)
  }

  @inline(__always)
  func mapFew(
    _ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32, in place: PlainPlace
  ) -> Bool {
    unsafe size == place.level.pointee.spanMask &+ 1
      ? mapLeaf(first, to: output, access, in: place)
      : mapRowApart(first, size, to: output, access, in: place)
  }

  @inline(never)
  func unmapRowApart(_ first: UInt64, _ size: UInt64, in place: PlainPlace) -> Bool {
    unmapRow(first, size, in: place)
  }

  @inline(__always)
  private func twoRows(_ first: UInt64, _ size: UInt64) -> (PlainRow, PlainRow)? {
    let level = unsafe self.level(0).pointee
    let firstSize = (~first & level.tableSpanMask) &+ 1
    let second = first &+ firstSize
    // At the end of all inputs it is 0.
    guard size > firstSize, second != 0, let place = place(first, level: 0),
      let row = row(first, firstSize, in: place), let next = self.place(second, level: 0),
      let nextRow = self.row(second, size &- firstSize, in: next)
    else { return nil }
    return (row, nextRow)
  }

  /// The entries for a range, if it is some of one table.
  @inline(__always)
  func row(_ first: UInt64, _ size: UInt64, in place: PlainPlace) -> PlainRow? {
    let count = unsafe place.level.pointee.entryCount(first, size)
    return unsafe count == 0 ? nil : PlainRow(place.entry, count: count)
  }

  /// The first word of leaves that are an entry of this level each, unless larger leaves fit.
  @inline(__always)
  private func leaf(
    _ first: UInt64, _ extent: UInt64, _ output: UInt64, _ access: UInt32, _ level: PlainLevel
  ) -> UInt64? {
    let attributes = level.attributes(access)
    guard attributes != 0, level.fits(first, extent, output), extent <= lastOutput &- output else {
      return nil
    }
    return output &>> addressShift | attributes
  }

  /// By how much the words of leaves side by side differ.
  @inline(__always)
  func step(_ level: PlainLevel) -> UInt64 { (level.spanMask &+ 1) &>> addressShift }

  /// Whether a row is a whole table, which is to be retired when nothing is left in it.
  @inline(__always)
  private func isTable(_ row: PlainRow) -> Bool { row.count > Int(truncatingIfNeeded: indexMask) }

  /// Whether a row is plain leaves which permit the same.
  @inline(__always)
  func areLeavesAlike(_ row: PlainRow, _ level: PlainLevel) -> Bool {
    let first = unsafe cplatform_load_relaxed(row.words)
    guard level.isLeaf(first) else { return false }
    let differences = unsafe cplatform_row_differences(row.words, row.count, first)
    return unsafe differences & (level.leafMask | numbers.pointee.words.accessBits) == 0
  }
}
