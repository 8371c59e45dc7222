// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

extension PageTable {
  /// Calls `body` with the ranges of inputs, in order, whose leaves were written through.
  ///
  /// A run counts as a whole: hardware may note in any of its words what was done through all of them.
  /// Leaves are cut to the range.
  ///
  /// - Parameter clearing: whether they count as not written through from here on. A write between this
  ///   and the end of cached translations is not noted.
  /// - Throws: `invalidArgument`, `outOfRange`, as `unmap`; `notSupported` when the table's hardware
  ///   notes nothing.
  func forEachDirty(
    _ input: IOVARange, clearing: Bool, _ body: (_ first: UInt64, _ last: UInt64) -> Void
  ) throws(Failure) {
    try forEachLeaf(input) { node, indexes, first, last in
      guard isDirty(node, indexes) else { return }
      if clearing { setDirty(node, indexes, false) }
      body(geometry.input(first), geometry.input(last))
    }
  }

  /// Whether any word of a run says that it was written through.
  func isDirty(_ node: TableNode, _ indexes: Range<Int>) -> Bool {
    var isDirty = false
    for index in indexes {
      let word = unsafe cplatform_load_relaxed(node.page.words + index)
      isDirty = isDirty || format.isDirty(word)
    }
    return isDirty
  }

  /// Lets leaves count as written through, or not.
  ///
  /// Of leaves that do, hardware has nothing to note: so this switches the noting off and on.
  ///
  /// - Throws: as `forEachDirty`.
  func setDirty(_ input: IOVARange, _ isDirty: Bool) throws(Failure) {
    try forEachLeaf(input) { node, indexes, _, _ in setDirty(node, indexes, isDirty) }
  }

  /// Lets no leaf of the whole table count as written through. The caller sees to it that no table is
  /// freed meanwhile.
  ///
  /// - Throws: `notSupported`, as `forEachDirty`.
  func clearDirty() throws(Failure) {
    guard format.notesDirty else { throw .notSupported }
    let root = root
    forEachLeaf(root, 0, lastOffset(root)) { node, indexes, _, _ in setDirty(node, indexes, false) }
  }

  @inline(never)
  private func setDirty(_ node: TableNode, _ indexes: Range<Int>, _ isDirty: Bool) {
    for index in indexes {
      let place = unsafe node.page.words + index
      while true {
        let word = unsafe cplatform_load_relaxed(place)
        guard case .leaf = format.decode(word, at: node.level, index: index) else { break }
        let new = format.settingDirty(word, isDirty)
        // Hardware may change the word meanwhile.
        if unsafe new == word || cplatform_replace_release(place, word, new) { break }
      }
    }
  }

  /// Calls `body` for each leaf in a range, in order: with the node and the words of the whole run, and
  /// the offsets of it that lie in the range.
  private func forEachLeaf(
    _ input: IOVARange, _ body: (TableNode, Range<Int>, UInt64, UInt64) -> Void
  ) throws(Failure) {
    guard input.isAligned(to: granule) else { throw .invalidArgument }
    guard format.notesDirty else { throw .notSupported }
    let (first, last) = try offsets(of: input)
    let root = root
    let end = lastOffset(root)
    if first <= end { forEachLeaf(root, first, min(last, end), body) }
  }

  private func forEachLeaf(
    _ node: TableNode, _ first: UInt64, _ last: UInt64,
    _ body: (TableNode, Range<Int>, UInt64, UInt64) -> Void
  ) {
    let mask = node.spanMask
    var offset = first
    while true {
      let index = node.index(of: offset)
      let (found, child) = entry(of: node, at: index)
      var entryLast = offset | mask
      if let child {
        forEachLeaf(child, offset, min(last, entryLast), body)
      } else if case .leaf(let leaf) = found {
        let count = 1 &<< leaf.order
        let start = index & ~(count &- 1)
        entryLast = offset | node.runMask(order: leaf.order)
        body(
          node, unsafe Range(uncheckedBounds: (start, start &+ count)), offset,
          min(last, entryLast))
      }
      guard entryLast < last else { return }
      offset = entryLast &+ 1
    }
  }
}
