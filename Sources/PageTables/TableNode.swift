// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives

/// A table in the tree.
struct TableNode {
  let page: TablePage
  let level: Int
  /// The exponent of what an entry spans.
  let shift: UInt64
  /// The bits of an index: of a root, all that there may be.
  let indexMask: UInt64

  init(_ page: TablePage, level: Int, shift: UInt64, indexMask: UInt64) {
    self.page = page
    self.level = level
    self.shift = shift
    self.indexMask = indexMask
  }

  /// A table one level below one that uses `indexBits` of an input.
  @inline(__always)
  init(_ page: TablePage, below node: TableNode, indexBits: Int) {
    self.page = page
    level = node.level &- 1
    shift = node.shift &- UInt64(truncatingIfNeeded: indexBits)
    indexMask = (1 &<< UInt64(truncatingIfNeeded: indexBits)) &- 1
  }

  var isRoot: Bool { indexMask == UInt64.max }

  /// The bytes of input that an entry spans, less one.
  var spanMask: UInt64 { (1 &<< shift) &- 1 }

  /// The bytes of input that a leaf of 2^order entries spans, less one.
  func runMask(order: Int) -> UInt64 {
    let bits = shift &+ UInt64(truncatingIfNeeded: order)
    return bits >= 64 ? UInt64.max : (1 &<< bits) &- 1
  }

  /// Where the word for an offset is. The offset is one of the tree's.
  func index(of offset: UInt64) -> Int {
    Int(truncatingIfNeeded: (offset &>> shift) & indexMask)
  }

  /// The entries that a range of offsets inside the table touches.
  func indexes(_ first: UInt64, _ last: UInt64) -> ClosedRange<Int> {
    unsafe ClosedRange(uncheckedBounds: (index(of: first), index(of: last)))
  }
}

/// What became of a range that may lie in one lowest table.
enum RowResult {
  case done(UInt64)
  /// A part of it is mapped.
  case refused
  /// It does not, or is all of the table, or the table is not there.
  case elsewhere
}

/// What is stored in leaves besides where they lead.
struct LeafContent {
  let access: Access
  /// Whether it is noted that they were written through.
  let isDirty: Bool
}

// The loops that do nearly all the work there is, for each format once; the rest goes by formats that
// are chosen at run time. Those are requirements of the protocol, which the choice fulfils otherwise.

extension PageTableFormat {
  @inline(__always)
  func attributes(_ content: LeafContent, order: Int, level: Int) -> UInt64 {
    settingDirty(attributes(content.access, order: order, at: level), content.isDirty)
  }

  /// What a word says and the table below it, if there is one.
  ///
  /// In a page that the caller allocated, the record of a child counts, not the word: somebody else
  /// may have written there. A table word without a record is such a case too, or a table that is
  /// being put in place, and counts as empty.
  @inline(__always)
  func entry(of node: TableNode, at index: Int) -> (TableEntry, TableNode?) {
    // Acquire: pairs with the release stores of words.
    let word = unsafe cplatform_load_acquire(node.page.words + index)
    let entry = decode(word, at: node.level, index: index)
    guard node.level > 0 else { return (entry, nil) }
    if let child = node.page.child(at: index, entry) {
      return (.table(PhysicalAddress(0)), TableNode(child, below: node, indexBits: indexBits))
    }
    if case .table = entry { return (.empty, nil) }
    return (entry, nil)
  }

  @inline(__always)
  func find(_ offset: UInt64, from table: TableNode) -> (TableNode, TableEntry) {
    guard unsafe table.page.record == nil else { return findRecorded(offset, from: table) }
    var words = unsafe table.page.words
    var level = table.level
    var shift = table.shift
    var mask = table.indexMask
    while true {
      let index = Int(truncatingIfNeeded: (offset &>> shift) & mask)
      // Acquire: as in entry.
      let word = unsafe cplatform_load_acquire(words + index)
      let entry = decode(word, at: level, index: index)
      guard case .table(let address) = entry else {
        let node = unsafe TableNode(
          TablePage(words: words, record: nil), level: level, shift: shift, indexMask: mask)
        return (node, entry)
      }
      // SAFETY: only `install` and `replace` write a table word to a page of the heap, and its address
      // is that of a page of the heap.
      unsafe words =
        UnsafeMutablePointer<UInt64>(bitPattern: UInt(address.rawValue))
        .unsafelyUnwrapped
      level = level &- 1
      shift = shift &- UInt64(truncatingIfNeeded: indexBits)
      mask = (1 &<< UInt64(truncatingIfNeeded: indexBits)) &- 1
    }
  }

  /// `find` in pages that the caller allocated.
  @inline(never)
  private func findRecorded(_ offset: UInt64, from table: TableNode) -> (TableNode, TableEntry) {
    var node = table
    while true {
      let (found, child) = entry(of: node, at: node.index(of: offset))
      guard let child else { return (node, found) }
      node = child
    }
  }

  /// The lowest table that has a range of offsets in it and is not all of it.
  @inline(__always)
  private func row(_ first: UInt64, _ last: UInt64, from root: TableNode) -> TableNode? {
    var words = unsafe root.page.words
    var level = root.level
    var shift = root.shift
    var mask = root.indexMask
    while level > 0 {
      let index = Int(truncatingIfNeeded: (first &>> shift) & mask)
      // Acquire: as in entry.
      let word = unsafe cplatform_load_acquire(words + index)
      guard case .table(let address) = decode(word, at: level, index: index) else { return nil }
      // SAFETY: as in find.
      unsafe words =
        UnsafeMutablePointer<UInt64>(bitPattern: UInt(address.rawValue))
        .unsafelyUnwrapped
      level = level &- 1
      shift = shift &- UInt64(truncatingIfNeeded: indexBits)
      mask = (1 &<< UInt64(truncatingIfNeeded: indexBits)) &- 1
    }
    let inside = (1 &<< (shift &+ UInt64(truncatingIfNeeded: indexBits))) &- 1
    guard (first ^ last) & ~inside == 0, last &- first < inside else { return nil }
    return unsafe TableNode(
      TablePage(words: words, record: nil), level: 0, shift: shift, indexMask: mask)
  }

  @inline(__always)
  func mapRow(
    _ first: UInt64, _ last: UInt64, from root: TableNode, to output: UInt64, _ access: Access,
    isKnownFree: Bool
  ) -> RowResult {
    // More than one may make a run.
    guard leafOrders(at: 0) == 1 || last &- first == granule.mask,
      let row = row(first, last, from: root)
    else { return .elsewhere }
    if !isKnownFree && hasLeaf(row, first, last) { return .refused }
    storeLeaves(row, first, last, to: output, LeafContent(access: access, isDirty: false))
    return .done(last &- first &+ 1)
  }

  @inline(__always)
  func unmapRow(
    _ first: UInt64, _ last: UInt64, from root: TableNode, crossingHoles: Bool
  ) -> RowResult {
    guard leafOrders(at: 0) == 1 || last &- first == granule.mask,
      let row = row(first, last, from: root)
    else { return .elsewhere }
    if leafOrders(at: 0) != 1 {
      // One of a run is not unmapped by itself.
      let index = row.index(of: first)
      let word = unsafe cplatform_load_relaxed(row.page.words + index)
      if case .leaf(let leaf) = decode(word, at: 0, index: index), leaf.order > 0 {
        return .elsewhere
      }
    }
    return .done(clearLeaves(row, first, last, crossingHoles: crossingHoles).size)
  }

  @inline(__always)
  func hasLeaf(_ row: TableNode, _ first: UInt64, _ last: UInt64) -> Bool {
    for index in row.indexes(first, last) {
      let word = unsafe cplatform_load_acquire(row.page.words + index)
      if case .leaf = decode(word, at: 0, index: index) { return true }
    }
    return false
  }

  @inline(__always)
  func storeLeaves(
    _ row: TableNode, _ first: UInt64, _ last: UInt64, to firstOutput: UInt64,
    _ content: LeafContent
  ) {
    let attributes = attributes(content, order: 0, level: 0)
    var output = firstOutput
    for index in row.indexes(first, last) {
      let word = leaf(PhysicalAddress(output), attributes: attributes)
      // Release: pairs with the acquire in entry, so that a walker that finds the leaf finds the
      // memory as it was when it was mapped.
      unsafe cplatform_store_release(row.page.words + index, word)
      output &+= granule.bytes
    }
  }

  @inline(__always)
  func clearLeaves(
    _ row: TableNode, _ first: UInt64, _ last: UInt64, crossingHoles: Bool
  ) -> (size: UInt64, isStopped: Bool) {
    var size: UInt64 = 0
    for index in row.indexes(first, last) {
      let word = unsafe cplatform_load_relaxed(row.page.words + index)
      if case .leaf = decode(word, at: 0, index: index) {
        // Release: a walk that starts after this call finds the entry empty.
        unsafe cplatform_store_release(row.page.words + index, 0)
        size &+= granule.bytes
      } else if !crossingHoles {
        return (size, true)
      }
    }
    return (size, false)
  }
}
