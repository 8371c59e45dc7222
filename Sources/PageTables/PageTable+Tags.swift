// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform

// Words that whoever maps keeps beside the smallest leaves: tags.
//
// A table does nothing with them. They are 0 where nothing was stored, and whoever stores one, for a leaf
// that is there, stores 0 before anything else is done with the inputs: so a table is never retired with one
// in it. A page of tags follows the page of words. Where tables are the caller's pages, or the table has no tags, there are none.

// In lowest tables that the directory has, of page tables that have tags.
extension PlainTable {
  @inline(__always)
  func tag(at place: PlainPlace) -> UnsafeMutablePointer<UInt64> {
    unsafe place.entry + Int(truncatingIfNeeded: indexMask &+ 1)
  }

  // Of a common table.
  @inline(__always)
  private static func commonTag(
    beside entry: UnsafeMutablePointer<UInt64>
  ) -> UnsafeMutablePointer<UInt64> {
    unsafe entry + commonCount
  }

  /// As `mapRow`, and keeps a tag beside the first leaf.
  @inline(__always)
  public func mapRow(
    _ first: UInt64, _ size: UInt64, to output: UInt64, _ access: UInt32, tag: UInt64
  ) -> Bool {
    guard let place = place(first, level: 0), mapFew(first, size, to: output, access, in: place)
    else { return false }
    // Release: whoever finds the tag finds the leaf.
    unsafe cplatform_store_release(self.tag(at: place), tag)
    return true
  }

  /// As above, of a row of one page in a common table.
  ///
  /// - Parameter leaf: the number of one that `setPageLeaf` was told.
  @inline(__always)
  public func mapPage(_ page: UInt64, to output: UInt64, leaf: UInt32, tag: UInt64) -> Bool {
    let leaf = unsafe pageLeaves[Int(leaf)]
    guard let place = place(page, level: 0, isCommon: true), place.word == 0, leaf != 0,
      unsafe output & place.level.pointee.noOutput == 0
    else { return false }
    // Release: as in `mapLeaf`, and as above.
    unsafe cplatform_store_release(place.entry, output &>> addressShift | leaf)
    unsafe cplatform_store_release(Self.commonTag(beside: place.entry), tag)
    return true
  }

  /// Takes the leaf of a page in a common table, if this tag is beside it, and the tag: see `takeTag`.
  @inline(__always)
  public func takePage(_ page: UInt64, tag: UInt64) -> Bool {
    guard let entry = unsafe entry(page, level: 0, isCommon: true) else { return false }
    return unsafe Self.takeTag(tag, at: Self.commonTag(beside: entry), beside: entry)
  }

  /// As above, to runs of memory that follow one another.
  ///
  /// - Parameter runs: of whole pages, as many in all as the row has.
  @inline(never)
  @_optimize(speed)
  public func mapRow(
    _ first: UInt64, _ size: UInt64, to runs: UnsafeBufferPointer<PhysicalRange>,
    _ access: UInt32, tag: UInt64
  ) -> Bool {
    guard let place = place(first, level: 0) else { return false }
    let level = unsafe place.level.pointee
    let attributes = level.attributes(access)
    guard attributes != 0, let row = row(first, size, in: place), Self.isEmpty(row) else {
      return false
    }
    // Of short ones no larger leaf can be made. All bits of all ends say that none is too high.
    let isShort = size &- 1 < level.largerMask
    var (next, firsts, lasts) = (first, UInt64(0), UInt64(0))
    for index in runs.indices {
      let run = unsafe runs[index]
      guard isShort || level.fits(next, run.extent, run.first.rawValue) else { return false }
      firsts |= run.first.rawValue
      lasts |= run.last.rawValue
      next &+= run.extent &+ 1
    }
    guard firsts & level.noOutput == 0, lasts & ~lastOutput == 0 else { return false }
    var (entry, index) = unsafe (place.entry, 0)
    repeat {
      let run = unsafe runs[index]
      let word = run.first.rawValue &>> addressShift | attributes
      index &+= 1
      if run.extent == level.spanMask {
        // Release: as in `mapLeaf`.
        unsafe cplatform_store_release(entry, word)
        unsafe entry += 1
      } else {
        let count = Int(truncatingIfNeeded: run.extent &>> level.shift) &+ 1
        unsafe Self.store(PlainRow(entry, count: count), word, step(level))
        unsafe entry += count
      }
    } while index < runs.count
    // Release: as above.
    unsafe cplatform_store_release(self.tag(at: place), tag)
    return true
  }

  /// Takes a tag out that is beside a leaf, and the leaf, so that only this call has them. Others see that before
  /// they see what this thread does later.
  @inline(__always)
  fileprivate static func takeTag(
    _ tag: UInt64, at tagged: UnsafeMutablePointer<UInt64>,
    beside entry: UnsafeMutablePointer<UInt64>
  ) -> Bool {
    while unsafe cplatform_load_acquire(tagged) == tag {
      // Of two calls for one mapping, the exchange of the leaf lets one go on. Should it meanwhile have
      // become the leaf of another mapping, that is just what is asked for.
      let leaf = unsafe cplatform_load_relaxed(entry)
      guard leaf != 0 else { return false }
      if unsafe cplatform_replace_fenced(entry, leaf, 0) {
        unsafe cplatform_store_release(tagged, 0)
        return true
      }
    }
    return false
  }

  /// The tag beside the leaf of an input, or 0.
  @inline(never)
  public func tag(of input: UInt64) -> UInt64 {
    guard let place = place(input, level: 0) else { return 0 }
    return unsafe cplatform_load_acquire(tag(at: place))
  }

  /// Whether the leaves of a range are in one lowest table.
  public func isInOneTable(_ first: UInt64, _ last: UInt64) -> Bool {
    unsafe (first ^ last) & ~level(0).pointee.tableSpanMask == 0
  }

  /// Unmaps the leaves behind the first of a row, of which the tag was taken out.
  @inline(never)
  public func unmapRest(_ size: UInt64, behind place: PlainPlace) {
    let count = unsafe place.level.pointee.entryCount(0, size) &- 1
    if count > 0 { unsafe Self.store(PlainRow(place.entry + 1, count: count), 0, 0) }
  }
}

extension PageTable {
  /// The entry of an input in a lowest table, if there is that.
  func lowestPlace(_ input: UInt64) -> PlainPlace? {
    guard memory.hasTags, let offset = geometry.offset(of: input) else { return nil }
    let root = root
    guard offset <= lastOffset(root) else { return nil }
    let (node, _) = find(offset, from: root)
    guard node.level == 0 else { return nil }
    let entry = unsafe node.page.words + node.index(of: offset)
    return unsafe PlainPlace(
      entry: entry, level: plain.level(0), word: cplatform_load_acquire(entry))
  }

  /// The first input of a range whose tag is not 0, and the tag.
  func nextTag(_ first: UInt64, _ last: UInt64) -> (input: UInt64, tag: UInt64)? {
    guard memory.hasTags, first <= last, let start = geometry.offset(of: first) else { return nil }
    let root = root
    let end = min(geometry.offset(of: last) ?? UInt64.max, lastOffset(root))
    var offset = start
    while offset <= end {
      let (node, _) = find(offset, from: root)
      if node.level == 0 {
        let tag = unsafe cplatform_load_acquire(
          node.page.words + (format.entryCount &+ node.index(of: offset)))
        if tag != 0 { return (geometry.input(offset & ~node.spanMask), tag) }
      }
      let entryLast = offset | node.spanMask
      guard entryLast < end else { return nil }
      offset = entryLast &+ 1
    }
    return nil
  }
}

extension AnyPageTable {
  /// Whether smallest leaves have tags.
  public var hasTags: Bool { unsafe table.pointee.memory.hasTags }

  /// Takes the leaf of an input out, and the tag beside it: as `PlainTable.takeTag`, in any lowest table. The caller
  /// sees to it that none is freed meanwhile.
  @inline(never)
  public func takeTag(_ tag: UInt64, _ first: UInt64) -> PlainPlace? {
    // The directory may not have its table.
    guard let place = unsafe plain.place(first, level: 0) ?? table.pointee.lowestPlace(first),
      unsafe PlainTable.takeTag(tag, at: plain.tag(at: place), beside: place.entry)
    else { return nil }
    return place
  }

  /// Keeps a tag beside a leaf. Returns whether there is room for one.
  @inline(never)
  public func keepTag(_ tag: UInt64, _ first: UInt64) -> Bool {
    guard let place = unsafe table.pointee.lowestPlace(first) else { return false }
    // Release: whoever finds the tag finds the leaf.
    unsafe cplatform_store_release(plain.tag(at: place), tag)
    return true
  }

  /// As `PageTable.nextTag`, likewise.
  @inline(never)
  public func nextTag(_ first: UInt64, _ last: UInt64) -> (input: UInt64, tag: UInt64)? {
    unsafe table.pointee.nextTag(first, last)
  }
}
