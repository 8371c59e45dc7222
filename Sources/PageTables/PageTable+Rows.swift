// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives

// Leaves side by side in a lowest table: the loops that large ranges spend their time in. Plain words are
// known by their numbers, all others by the format.

extension PageTable {
  func attributes(_ content: LeafContent, order: Int, level: Int) -> UInt64 {
    format.settingDirty(
      format.attributes(content.access, order: order, at: level), content.isDirty)
  }

  private func row(_ node: TableNode, _ indexes: ClosedRange<Int>) -> PlainRow {
    unsafe PlainRow(node.page.words + indexes.lowerBound, count: indexes.count)
  }

  /// Whether a range of offsets inside a lowest table has a leaf.
  func hasLeaf(inLowest node: TableNode, _ first: UInt64, _ last: UInt64) -> Bool {
    let indexes = node.indexes(first, last)
    return !PlainTable.isEmpty(row(node, indexes))
      && indexes.contains { isLeaf(inLowest: node, at: $0) }
  }

  private func isLeaf(inLowest node: TableNode, at index: Int) -> Bool {
    let word = unsafe cplatform_load_acquire(node.page.words + index)
    if unsafe plain.level(0).pointee.isLeaf(word) { return true }
    if case .leaf = format.decode(word, at: 0, index: index) { return true }
    return false
  }

  /// Stores leaves of the smallest size for a range of offsets inside a lowest table.
  func storeLeaves(
    _ node: TableNode, _ first: UInt64, _ last: UInt64, to output: UInt64, _ content: LeafContent
  ) {
    let attributes = attributes(content, order: 0, level: 0)
    let indexes = node.indexes(first, last)
    let row = row(node, indexes)
    if output &+ (last &- first) <= plain.lastOutput {
      PlainTable.store(
        row, output &>> plain.addressShift | attributes,
        unsafe plain.step(plain.level(0).pointee))
      return
    }
    for index in 0..<row.count {
      let output = PhysicalAddress(output &+ UInt64(index) &<< UInt64(granule.shift))
      // Release: as in PlainRow.
      unsafe cplatform_store_release(
        row.words + index, format.leaf(output, attributes: attributes))
    }
  }

  /// Clears the leaves of a range of offsets inside a lowest table, as far as the first hole or over all
  /// holes; says how many bytes they were, and whether it stopped at a hole.
  func clearLeaves(
    _ node: TableNode, _ first: UInt64, _ last: UInt64, crossingHoles: Bool
  ) -> (size: UInt64, isStopped: Bool) {
    let indexes = node.indexes(first, last)
    let row = row(node, indexes)
    if plain.areLeavesAlike(row) {
      PlainTable.store(row, 0, 0)
      return (last &- first &+ 1, false)
    }
    var size: UInt64 = 0
    for index in indexes {
      if isLeaf(inLowest: node, at: index) {
        // Release: as in PlainRow.
        unsafe cplatform_store_release(node.page.words + index, 0)
        size &+= granule.bytes
      } else if !crossingHoles {
        return (size, true)
      }
    }
    return (size, false)
  }
}
