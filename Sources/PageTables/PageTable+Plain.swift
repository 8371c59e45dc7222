// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

// What `PlainTable` does in tables that its directory has, in all that the walks here come to.

extension PageTable {
  func lookUpPlain(_ input: UInt64) -> PageTableLookup? {
    guard let place = place(input, 1) else { return nil }
    return unsafe plain.lookUp(input, 0, place.word, place.level)
  }

  func mapPlain(_ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32) -> Bool {
    guard let place = place(first, size) else { return false }
    return plain.mapRowApart(first, size, to: output, access, in: place)
  }

  /// - Returns: whether all was mapped, and now isn't.
  func unmapPlain(_ first: UInt64, _ size: UInt64) -> Bool {
    guard let place = place(first, size) else { return false }
    return plain.unmapRowApart(first, size, in: place)
  }

  /// The entry where a range starts that the tree reaches.
  @inline(__always)
  private func place(_ first: UInt64, _ size: UInt64) -> PlainPlace? {
    if let place = plain.place(first, level: 0) { return place }
    // Acquire: pairs with the release in grow.
    let root = rootNumber.load(ordering: .acquiring)
    let top = unsafe plain.level(Int(truncatingIfNeeded: root & 7))
    let (last, isBeyond) = first.addingReportingOverflow(size &- 1)
    guard !isBeyond, unsafe last <= top.pointee.lastOffset else { return nil }
    if isOnHeap { return unsafe heapPlace(first, root & ~7, top) }
    let place = unsafe recordedPlace(first, root & ~7, top)
    // In a page of the caller a word of 0 may be above a table, but not the one that the walk ended at.
    let level = unsafe place.level.pointee
    return level.shift == granule.shift || size &- 1 <= level.spanMask ? place : nil
  }

  // MARK: - Walks

  private func heapPlace(
    _ offset: UInt64, _ root: UInt, _ top: UnsafeMutablePointer<PlainLevel>
  ) -> PlainPlace {
    var table = root
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
      table = UInt(truncatingIfNeeded: next &<< plain.addressShift)
      unsafe level -= 1
      mask = plain.indexMask
    }
  }

  /// In pages of the caller the walk is led by records, never by words.
  private func recordedPlace(
    _ offset: UInt64, _ root: UInt, _ top: UnsafeMutablePointer<PlainLevel>
  ) -> PlainPlace {
    // SAFETY: the number is that of the root, the address of its record.
    var record = unsafe UnsafeMutablePointer<TableRecord>(bitPattern: root).unsafelyUnwrapped
    var level = unsafe top
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
