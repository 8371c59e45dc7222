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

  /// Whether a range of offsets inside a lowest table has a leaf.
  func hasLeaf(inLowest node: TableNode, _ first: UInt64, _ last: UInt64) -> Bool {
    let level = unsafe plain.level(0).pointee
    let indexes = node.indexes(first, last)
    let entry = unsafe node.page.words + indexes.lowerBound
    if unsafe cplatform_row_differences(entry, indexes.count, 0) == 0 { return false }
    for index in indexes {
      let word = unsafe cplatform_load_acquire(node.page.words + index)
      if level.isLeaf(word) { return true }
      if case .leaf = format.decode(word, at: 0, index: index) { return true }
    }
    return false
  }

  /// Stores leaves of the smallest size for a range of offsets inside a lowest table.
  func storeLeaves(
    _ node: TableNode, _ first: UInt64, _ last: UInt64, to output: UInt64, _ content: LeafContent
  ) {
    let attributes = attributes(content, order: 0, level: 0)
    let indexes = node.indexes(first, last)
    let entry = unsafe node.page.words + indexes.lowerBound
    if output &+ (last &- first) <= plain.lastOutput {
      let step = granule.bytes &>> plain.words.addressShift
      unsafe cplatform_row_store(
        entry, indexes.count, output &>> plain.words.addressShift | attributes, step)
      return
    }
    for index in 0..<indexes.count {
      let output = PhysicalAddress(output &+ UInt64(index) &<< UInt64(granule.shift))
      // Release: as in mapLeaf.
      unsafe cplatform_store_release(
        entry + index, format.leaf(output, attributes: attributes))
    }
  }

  /// Clears the leaves of a range of offsets inside a lowest table, as far as the first hole or over all
  /// holes; says how many bytes they were, and whether it stopped at a hole.
  func clearLeaves(
    _ node: TableNode, _ first: UInt64, _ last: UInt64, crossingHoles: Bool
  ) -> (size: UInt64, isStopped: Bool) {
    let level = unsafe plain.level(0).pointee
    let indexes = node.indexes(first, last)
    let entry = unsafe node.page.words + indexes.lowerBound
    if unsafe areLeavesAlike(entry, indexes.count, level) {
      unsafe cplatform_row_store(entry, indexes.count, 0, 0)
      return (last &- first &+ 1, false)
    }
    var size: UInt64 = 0
    for index in indexes {
      let word = unsafe cplatform_load_relaxed(node.page.words + index)
      var isLeaf = level.isLeaf(word)
      if !isLeaf, case .leaf = format.decode(word, at: 0, index: index) { isLeaf = true }
      if isLeaf {
        // Release: as in unmapLeaf.
        unsafe cplatform_store_release(node.page.words + index, 0)
        size &+= granule.bytes
      } else if !crossingHoles {
        return (size, true)
      }
    }
    return (size, false)
  }

  /// Whether words are plain leaves which permit the same.
  func areLeavesAlike(
    _ words: UnsafeMutablePointer<UInt64>, _ count: Int, _ level: PlainLevel
  ) -> Bool {
    let first = unsafe cplatform_load_relaxed(words)
    guard level.isLeaf(first) else { return false }
    let differences = unsafe cplatform_row_differences(words, count, first)
    return differences & (level.leafMask | plain.words.accessBits) == 0
  }
}
