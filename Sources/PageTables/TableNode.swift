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
    var node = table
    while node.level > 0 {
      let index = node.index(of: offset)
      if unsafe node.page.record == nil {
        // Acquire: as in entry.
        let word = unsafe cplatform_load_acquire(node.page.words + index)
        guard case .table(let address) = decode(word, at: node.level, index: index),
          let page = TablePage(heap: address)
        else { break }
        node = TableNode(page, below: node, indexBits: indexBits)
      } else {
        guard let page = node.page.recordedChild(at: index) else { break }
        node = TableNode(page, below: node, indexBits: indexBits)
      }
    }
    let (found, _) = entry(of: node, at: node.index(of: offset))
    return (node, found)
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
