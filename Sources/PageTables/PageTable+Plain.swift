// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

// What is done most: leaves of one size, all in one table, are mapped, unmapped or looked up, and the
// tables are there. It goes by the numbers of `PlainTable`, and each function does all or nothing: what
// it does not do is for the functions that go by the format, which also find out what is wrong.
//
// The first three do it for a single leaf of one of the two smallest sizes, in a table that the directory
// has. They call nothing, so that they need hardly a register.

/// An entry that does not lead to a table in a plain way.
@safe
struct PlainPlace {
  let entry: UnsafeMutablePointer<UInt64>
  let level: UnsafePointer<PlainLevel>
  let word: UInt64
}

extension PageTable {
  @inline(__always)
  func mapLeaf(_ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32) -> Bool {
    guard let place = leafPlace(first, size), place.word == 0 else { return false }
    let level = unsafe place.level.pointee
    let attributes = level.attributes(access)
    guard output & level.noOutput == 0, attributes != 0 else { return false }
    // Release: pairs with the acquire of walks, so that one that finds the leaf finds the memory as it was
    // when it was mapped.
    unsafe cplatform_store_release(
      place.entry, output &>> plain.words.addressShift | attributes)
    return true
  }

  @inline(__always)
  func unmapLeaf(_ first: UInt64, _ size: UInt64) -> Bool {
    guard let place = leafPlace(first, size), unsafe place.level.pointee.isLeaf(place.word) else {
      return false
    }
    // Release: a walk that starts after this call finds the entry empty.
    unsafe cplatform_store_release(place.entry, 0)
    return true
  }

  @inline(__always)
  func lookUpLeaf(_ input: UInt64) -> PageTableLookup? {
    guard
      let place = unsafe directoryPlace(input, plain.level(0))
        ?? directoryPlace(input, plain.level(1))
    else { return nil }
    return lookUp(input, in: place)
  }

  /// The entry for a range that a leaf of one of the two smallest sizes could be.
  @inline(__always)
  private func leafPlace(_ first: UInt64, _ size: UInt64) -> PlainPlace? {
    let lowest = unsafe plain.level(0)
    let level = unsafe size == lowest.pointee.spanMask &+ 1 ? lowest : plain.level(1)
    guard unsafe size == level.pointee.spanMask &+ 1, unsafe first & level.pointee.spanMask == 0
    else { return nil }
    return unsafe directoryPlace(first, level)
  }

  /// The entry for an offset in the table on a level, if the directory has that.
  ///
  /// The offset may be any number: roles are those of tables that there are.
  @inline(__always)
  private func directoryPlace(
    _ offset: UInt64, _ place: UnsafePointer<PlainLevel>
  ) -> PlainPlace? {
    let level = unsafe place.pointee
    let (role, index) = level.role(offset)
    let address = unsafe cplatform_load_acquire(level.directory + index)
    // SAFETY: addresses in the directory are of labels, which live as long as the page table.
    let label = unsafe TableLabel(
      role: UnsafeMutablePointer(bitPattern: UInt(address)).unsafelyUnwrapped)
    // Acquire: pairs with the release in announce, so that the table is the one that has the role. It
    // keeps it until it is retired, and is there until it is reclaimed.
    guard unsafe cplatform_load_acquire(label.role) == role else { return nil }
    let entry =
      unsafe label.words
      + Int(
        truncatingIfNeeded: (offset &>> level.shift) & plain.indexMask)
    return unsafe PlainPlace(entry: entry, level: place, word: cplatform_load_acquire(entry))
  }

  @inline(__always)
  private func lookUp(_ input: UInt64, in place: PlainPlace) -> PageTableLookup? {
    let level = unsafe place.level.pointee
    let access = plain.access(ofLeaf: place.word)
    // What permits nothing is no leaf.
    guard place.word & level.leafMask == level.leaf, access != 0 else { return nil }
    return PageTableLookup(
      first: input & ~level.spanMask, last: input | level.spanMask,
      target: plain.output(ofLeaf: place.word), access: Access(rawValue: access))
  }

  // MARK: - Pages of the caller, and rows of leaves

  func lookUpPlain(_ input: UInt64) -> PageTableLookup? {
    guard let place = place(input) else { return nil }
    return lookUp(input, in: place)
  }

  func mapPlain(_ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32) -> Bool {
    let extent = size &- 1
    guard let place = place(first), place.word == 0 else { return false }
    let level = unsafe place.level.pointee
    let attributes = level.attributes(access)
    guard attributes != 0, isRow(first, extent, place), output & level.noOutput == 0,
      extent <= plain.lastOutput &- output,
      // No larger leaf fits.
      extent < level.largerMask || (first ^ output) & level.largerMask != 0
    else { return false }
    let count = Int(truncatingIfNeeded: extent &>> level.shift) &+ 1
    guard unsafe cplatform_row_differences(place.entry, count, 0) == 0 else { return false }
    unsafe cplatform_row_store(
      place.entry, count, output &>> plain.words.addressShift | attributes,
      (level.spanMask &+ 1) &>> plain.words.addressShift)
    return true
  }

  /// - Returns: whether all was mapped, and now isn't.
  func unmapPlain(_ first: UInt64, _ size: UInt64) -> Bool {
    let extent = size &- 1
    guard let place = place(first) else { return false }
    let level = unsafe place.level.pointee
    guard isRow(first, extent, place), extent < level.tableSpanMask else { return false }
    let count = Int(truncatingIfNeeded: extent &>> level.shift) &+ 1
    guard unsafe areLeavesAlike(place.entry, count, level) else { return false }
    unsafe cplatform_row_store(place.entry, count, 0, 0)
    return true
  }

  /// Whether a range is some entries side by side, of which the first is the one in a place.
  @inline(__always)
  private func isRow(_ first: UInt64, _ extent: UInt64, _ place: PlainPlace) -> Bool {
    let level = unsafe place.level.pointee
    let (last, isBeyond) = first.addingReportingOverflow(extent)
    return !isBeyond && last <= lastPlainOffset && (first ^ last) & ~level.tableSpanMask == 0
      && first & level.spanMask == 0 && ~last & level.spanMask == 0
      // In a page of the caller a word of 0 may be above a table, but not the one that the walk ended at.
      && (isOnHeap || level.shift == granule.shift || extent == level.spanMask)
  }

  @inline(__always)
  private var lastPlainOffset: UInt64 {
    unsafe plain.level(Int(rootNumber.load(ordering: .relaxed) & 7)).pointee.lastOffset
  }

  @inline(__always)
  private func place(_ offset: UInt64) -> PlainPlace? {
    unsafe directoryPlace(offset, plain.level(0))
      ?? (isOnHeap ? heapPlace(offset) : recordedPlace(offset))
  }

  // MARK: - Walks

  private func heapPlace(_ offset: UInt64) -> PlainPlace? {
    // Acquire: pairs with the release in grow.
    let root = rootNumber.load(ordering: .acquiring)
    let top = unsafe plain.level(Int(truncatingIfNeeded: root & 7))
    guard unsafe offset <= top.pointee.lastOffset else { return nil }
    var table = root & ~7
    var level = unsafe top
    // A root may have more entries than other tables.
    var mask = UInt64.max
    while true {
      let index = unsafe (offset &>> level.pointee.shift) & mask
      // SAFETY: the address is that of the root or one that `install` or `replace` wrote, and those
      // write to pages of the heap what tables have in other pages of it. The offset is one of the tree's.
      let words = unsafe UnsafeMutablePointer<UInt64>(bitPattern: table).unsafelyUnwrapped
      let entry = unsafe words + Int(truncatingIfNeeded: index)
      // Acquire: pairs with the release stores of words.
      let word = unsafe cplatform_load_acquire(entry)
      // Of a plain table this leaves the address. There is none on level 0.
      let next = unsafe word ^ level.pointee.table
      guard next & plain.tableMask == 0 else {
        return unsafe PlainPlace(entry: entry, level: level, word: word)
      }
      table = UInt(truncatingIfNeeded: next &<< plain.words.addressShift)
      unsafe level -= 1
      mask = plain.indexMask
    }
  }

  /// In pages of the caller the walk is led by records, never by words.
  private func recordedPlace(_ offset: UInt64) -> PlainPlace? {
    // Acquire: as in heapPlace.
    let root = rootNumber.load(ordering: .acquiring)
    var level = unsafe plain.level(Int(truncatingIfNeeded: root & 7))
    guard unsafe offset <= level.pointee.lastOffset else { return nil }
    // SAFETY: the number is that of the root, the address of its record.
    var record =
      unsafe UnsafeMutablePointer<TableRecord>(bitPattern: root & ~7).unsafelyUnwrapped
    var mask = UInt64.max
    while true {
      let index = unsafe Int(truncatingIfNeeded: (offset &>> level.pointee.shift) & mask)
      guard let below = unsafe record.pointee.shownChild(at: index) else {
        let entry = unsafe record.pointee.words + index
        return unsafe PlainPlace(entry: entry, level: level, word: cplatform_load_acquire(entry))
      }
      unsafe record = below
      unsafe level -= 1
      mask = plain.indexMask
    }
  }
}
