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
    let count = indexes.count
    if unsafe Row.isEmpty(node.page.words + indexes.lowerBound, count) { return false }
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
      unsafe Row.store(
        entry, indexes.count, output &>> plain.words.addressShift | attributes, step: step)
      return
    }
    for index in 0..<indexes.count {
      let output = PhysicalAddress(output &+ UInt64(index) &<< UInt64(granule.shift))
      // Release: as in Row.
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
    if unsafe Row.isAllLeaves(node.page.words + indexes.lowerBound, indexes.count, of: level) {
      unsafe Row.clear(node.page.words + indexes.lowerBound, indexes.count)
      return (last &- first &+ 1, false)
    }
    var size: UInt64 = 0
    for index in indexes {
      let word = unsafe cplatform_load_relaxed(node.page.words + index)
      var isLeaf = level.isLeaf(word)
      if !isLeaf, case .leaf = format.decode(word, at: 0, index: index) { isLeaf = true }
      if isLeaf {
        // Release: as in Row.
        unsafe cplatform_store_release(node.page.words + index, 0)
        size &+= granule.bytes
      } else if !crossingHoles {
        return (size, true)
      }
    }
    return (size, false)
  }
}

/// Loops over words side by side, four at a time where there are as many.
enum Row {
  static func isEmpty(_ words: UnsafeMutablePointer<UInt64>, _ count: Int) -> Bool {
    var all: UInt64 = 0
    var index = 0
    while index &+ 4 <= count {
      let word = unsafe words + index
      unsafe all |= cplatform_load_relaxed(word) | cplatform_load_relaxed(word + 1)
      unsafe all |= cplatform_load_relaxed(word + 2) | cplatform_load_relaxed(word + 3)
      index = index &+ 4
    }
    while index < count {
      unsafe all |= cplatform_load_relaxed(words + index)
      index = index &+ 1
    }
    return all == 0
  }

  /// Whether all are plain leaves.
  static func isAllLeaves(
    _ words: UnsafeMutablePointer<UInt64>, _ count: Int, of level: PlainLevel
  ) -> Bool {
    var wrong: UInt64 = 0
    var areSet = true
    for index in 0..<count {
      let word = unsafe cplatform_load_relaxed(words + index)
      wrong |= word & level.leafMask ^ level.leaf
      areSet = areSet && word != 0
    }
    return wrong == 0 && areSet
  }

  /// Stores a word, and after it others of which each is larger by `step`.
  ///
  /// Release: pairs with the acquire of walks, so that one that finds a leaf finds the memory as it was
  /// when it was mapped.
  static func store(
    _ words: UnsafeMutablePointer<UInt64>, _ count: Int, _ first: UInt64, step: UInt64
  ) {
    var word = first
    var index = 0
    while index &+ 4 <= count {
      let entry = unsafe words + index
      unsafe cplatform_store_release(entry, word)
      unsafe cplatform_store_release(entry + 1, word &+ step)
      unsafe cplatform_store_release(entry + 2, word &+ 2 &* step)
      unsafe cplatform_store_release(entry + 3, word &+ 3 &* step)
      word = word &+ 4 &* step
      index = index &+ 4
    }
    while index < count {
      unsafe cplatform_store_release(words + index, word)
      word = word &+ step
      index = index &+ 1
    }
  }

  /// Release: a walk that starts after this finds them empty.
  static func clear(_ words: UnsafeMutablePointer<UInt64>, _ count: Int) {
    unsafe store(words, count, 0, step: 0)
  }
}
