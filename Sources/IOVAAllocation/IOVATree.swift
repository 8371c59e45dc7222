// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// The ranges of an IOVA space that are in use, and with them the gaps between.
///
/// Confined: the owner's lock guards it. Numbers are granules. `docs/IOVA.md` has the algorithm and
/// its bounds.
///
/// A B+ tree: the leaves have the ranges in order, each with the gap behind it, and every node above
/// has for each child the summary of its gaps. A slot of no length stands before all ranges, where
/// the space starts, so that each gap has a slot in front of it.
@safe
struct IOVATree: ~Copyable {
  /// A range in use.
  struct Range: Equatable {
    let first: UInt64
    let size: UInt64
    let isReserved: Bool
  }

  /// A node on the way from the root to a leaf, and the slot of it that the way goes through.
  @safe
  struct Step {
    var node: IOVANode
    var slot: Int
  }

  /// More levels than memory has room for: all but the nodes at the edges have 15 children, and 15^14
  /// is more than 2^54.
  static var levelsMax: Int { 16 }

  let first: UInt64
  /// The highest granule.
  let last: UInt64
  /// The leaf of the lowest keys. It stays the same: nodes join the one before them and split off
  /// one behind.
  let lowestLeaf: IOVANode
  var root: IOVANode
  /// The root's level; leaves are on level 0.
  var height = 0
  /// Ranges in use.
  private(set) var count = 0

  /// The way that was taken last, by level. While `hasPath`, it leads to a leaf of this tree as it
  /// is.
  let path: UnsafeMutablePointer<Step>
  var hasPath = false
  /// What has become of the gaps of the path's leaf since the nodes above took note.
  var unsettled = IOVAUnsettledGaps()

  // Nodes ready for use: those that an insertion may need, which allocates nothing, and those that
  // removals left over, which free nothing.
  var spareLeaves = IOVANodePool()
  var spareInners = IOVANodePool()
  /// Nodes in the tree, spare ones not counted.
  var leafCount = 1
  var innerCount = 0

  /// Gaps that were long enough, looked at by searches whose bound is their number.
  var searchedGaps: UInt64 = 0

  @_optimize(size)
  init(first: UInt64, last: UInt64) throws(Failure) {
    let pathSize = Self.levelsMax * MemoryLayout<Step>.stride
    let pathMemory = unsafe try RawMemory.allocate(pathSize, alignment: 16)
    let leaf: IOVANode
    do throws(Failure) {
      leaf = unsafe IOVANode(try RawMemory.allocate(IOVANode.leafSize, alignment: 16))
    } catch {
      unsafe RawMemory.free(pathMemory)
      throw error
    }
    leaf.clear()
    leaf.openSlot(0, isLeaf: true)
    leaf.setKey(0, first)
    // Of 2^64 granules the number is 0, and the largest number stands for it.
    leaf.setGap(0, last &- first == UInt64.max ? UInt64.max : last &- first &+ 1)
    leaf.end = last &+ 1
    self.first = first
    self.last = last
    lowestLeaf = leaf
    root = leaf
    // SAFETY: the allocation is `levelsMax` steps long, and is initialized here.
    unsafe path = pathMemory.bindMemory(to: Step.self, capacity: Self.levelsMax)
    unsafe path.initialize(repeating: Step(node: leaf, slot: 0), count: Self.levelsMax)
  }

  deinit {
    Self.freeNodes(below: root, level: height)
    unsafe RawMemory.free(path)
  }

  private static func freeNodes(below node: IOVANode, level: Int) {
    if level > 0 {
      for slot in 0..<node.count { freeNodes(below: node.child(slot), level: level &- 1) }
    }
    unsafe RawMemory.free(node.raw)
  }

  /// The memory of all nodes.
  var byteCount: Int {
    (leafCount &+ spareLeaves.count) &* IOVANode.leafSize
      &+ (innerCount &+ spareInners.count) &* IOVANode.innerSize
  }

  // MARK: - Gaps

  /// The gap behind a slot of a leaf; there is one.
  func gap(_ leaf: IOVANode, _ slot: Int) -> IOVAGap {
    let next = leaf.nextKey(slot)
    // The first gap starts where the space does, however long it is. Its length may be more than a
    // number holds; every other one is behind a range and shorter.
    let start = slot == 0 && leaf == lowestLeaf ? first : next &- leaf.gap(slot)
    return IOVAGap(first: start, last: next &- 1)
  }

  /// The range of a slot of a leaf, which is not the first slot of all.
  @inline(__always)
  func range(_ leaf: IOVANode, _ slot: Int) -> Range {
    let first = leaf.key(slot)
    return Range(
      first: first, size: leaf.nextKey(slot) &- leaf.gap(slot) &- first,
      isReserved: leaf.mark(slot))
  }

  func summary(of node: IOVANode, level: Int) -> GapSummary {
    // Gaps or-ed have the highest bit of the longest; those that have this bit are all that matter.
    let all = node.gapsOred
    guard all != 0 else { return GapSummary(longest: 0, isAligned: false) }
    let order = 63 &- all.leadingZeroBitCount
    var candidates = node.gaps(havingBit: order)
    var longest: UInt64 = 0
    var isAligned = level > 0 && candidates & node.marks != 0
    while candidates != 0 {
      let slot = candidates.trailingZeroBitCount
      longest = max(longest, node.gap(slot))
      if level == 0 && !isAligned { isAligned = gap(node, slot).holdsBlock(order: order) }
      candidates &= candidates &- 1
    }
    return GapSummary(longest: longest, isAligned: isAligned)
  }

  /// What a node above the leaves has noted of a child.
  static func summary(_ node: IOVANode, _ slot: Int) -> GapSummary {
    GapSummary(longest: node.gap(slot), isAligned: node.mark(slot))
  }

  static func setSummary(_ node: IOVANode, _ slot: Int, _ summary: GapSummary) {
    node.setGap(slot, summary.longest)
    node.setMark(slot, summary.isAligned)
  }

  // MARK: - The way to a leaf

  var leaf: IOVANode { unsafe path[0].node }
  var slot: Int { unsafe path[0].slot }

  /// Goes to the slot with the last key that is not above `key`, which is not below the space.
  mutating func descend(to key: UInt64) {
    settle()
    var node = root
    var level = height
    while true {
      if level == 0 { node.prefetchLeaf() }
      let slot = node.keysNotAbove(key) &- 1
      unsafe path[level] = Step(node: node, slot: slot)
      guard level > 0 else { break }
      node = node.child(slot)
      level = level &- 1
    }
    hasPath = true
  }

  /// Goes to the last slot before the leaf that the path leads to, or to the first behind it, unless
  /// there is none.
  @inline(never)
  @_optimize(size)
  mutating func stepAside(_ direction: Int) -> Bool {
    var level = 1
    while level <= height {
      let step = unsafe path[level]
      let slot = step.slot &+ direction
      if slot >= 0 && slot < step.node.count {
        unsafe path[level].slot = slot
        break
      }
      level = level &+ 1
    }
    guard level <= height else { return false }
    while level > 0 {
      let step = unsafe path[level]
      let node = step.node.child(step.slot)
      level = level &- 1
      unsafe path[level] = Step(node: node, slot: direction < 0 ? node.count &- 1 : 0)
    }
    return true
  }

  // MARK: - Ranges

  /// Whether an insertion may need more nodes than there are.
  @inline(__always)
  var isShortOfNodes: Bool {
    // A leaf may split, and so may every node above it, up to a root, which then gets one above.
    isShortOfLeaves || spareInners.count < height &+ 1
  }

  var isShortOfLeaves: Bool { spareLeaves.count < 1 }

  /// Enters a range that lies in the gap that the path leads to. The tree is not short of nodes.
  mutating func insert(_ range: Range) {
    if !unsettled.isFresh && leaf.count == IOVANode.capacity {
      settle()
      makeRoom(level: 0)
    }
    let leaf = leaf
    let slot = slot
    let gap = gap(leaf, slot)
    let below = range.first &- gap.first
    let above = gap.last &- (range.first &+ (range.size &- 1))
    // A hollow slot behind a fresh gap is there to be used.
    if !unsettled.isFresh { leaf.openSlot(slot &+ 1, isLeaf: true) }
    unsettled.didTake(leaf.gap(slot), leaving: below, above)
    leaf.setGap(slot, below)
    leaf.setKey(slot &+ 1, range.first)
    leaf.setGap(slot &+ 1, above)
    leaf.setMark(slot &+ 1, range.isReserved)
    unsafe path[0].slot = slot &+ 1
    count = count &+ 1
  }

  /// Takes the range out that the path leads to, which has just been descended to. Needs no memory.
  mutating func remove() {
    count = count &- 1
    let leaf = leaf
    let slot = slot
    let next = leaf.nextKey(slot)
    // The range and the gap behind it. Of all of 2^64 it is 0, which `widen` sees to.
    let freed = next &- leaf.key(slot)
    unsettled.didChange(leaf.gap(slot))
    if slot > 0 {
      // The slot stays for now, hollow: a range of nothing at the next one's key, with no gap.
      leaf.setKey(slot, next)
      leaf.setGap(slot, 0)
      leaf.setMark(slot, false)
      unsafe path[0].slot = slot &- 1
      widen(by: freed)
      unsettled.isFresh = true
      return
    }
    // The gap to grow is in the leaf before. There is one: the first slot of the lowest leaf is no
    // range.
    leaf.closeSlot(slot, isLeaf: true)
    setFirstKey(next)
    settle()
    _ = stepAside(-1)
    self.leaf.end = next
    unsettled.didChange(self.leaf.gap(self.slot))
    widen(by: freed)
    unsettled.didChange(self.leaf.gap(self.slot))
    if leaf.count < IOVANode.fewest {
      settle()
      _ = stepAside(1)
      fill(level: 0)
    }
  }

  /// Notes the key that the path's leaf starts with now in all nodes that know it.
  private mutating func setFirstKey(_ key: UInt64) {
    var level = 1
    while level <= height {
      let step = unsafe path[level]
      step.node.setKey(step.slot, key)
      if step.slot > 0 { return }
      level = level &+ 1
    }
  }

  /// Makes the gap longer that the path leads to.
  private mutating func widen(by freed: UInt64) {
    let (leaf, slot) = (leaf, slot)
    let old = leaf.gap(slot)
    let sum = old &+ freed
    // No gap of nothing grows out of something: this is 2^64.
    leaf.setGap(slot, sum == 0 ? UInt64.max : sum)
    unsettled.didChange(old)
  }

  /// Puts the leaf and the nodes above it in order before the path is left.
  ///
  /// Not sooner: mostly what is freed is allocated again at once, and the leaf has to offer what it
  /// had.
  @inline(__always)
  mutating func settle() {
    if unsettled.isAny { settleSlowly() }
  }

  @inline(never)
  private mutating func settleSlowly() {
    noteGaps()
    let isHollow = unsettled.isFresh
    unsettled = IOVAUnsettledGaps()
    guard isHollow else { return }
    leaf.closeSlot(slot &+ 1, isLeaf: true)
    if leaf.count < IOVANode.fewest { fill(level: 0) }
  }

  /// Lets the nodes above the path's leaf take note of its gaps.
  private mutating func noteGaps() {
    guard height > 0 else { return }
    let parent = unsafe path[1]
    var old = Self.summary(parent.node, parent.slot)
    guard var new = settled(old) else { return }
    var level = 1
    while new != old {
      let step = unsafe path[level]
      Self.setSummary(step.node, step.slot, new)
      level = level &+ 1
      guard level <= height else { return }
      let above = unsafe path[level]
      let oldAbove = Self.summary(above.node, above.slot)
      new = oldAbove.replacing(old, by: new) ?? summary(of: step.node, level: level &- 1)
      old = oldAbove
    }
  }

  /// The summary of the path's leaf, of which the nodes above have an old one; nil if that still holds.
  private func settled(_ old: GapSummary) -> GapSummary? {
    // The gap that freeing made is looked at by itself; the others are shorter than the blocks that
    // the summary speaks of, or else all are looked at.
    guard unsettled.isShorter(thanBlocksOf: old) else { return summary(of: leaf, level: 0) }
    guard unsettled.isFresh else { return nil }
    let length = leaf.gap(slot)
    let order = 63 &- length.leadingZeroBitCount
    return old.adding(
      GapSummary(longest: length, isAligned: gap(leaf, slot).holdsBlock(order: order)))
  }

  /// Lets the path lead to another slot of its leaf, whose gap is there; false if that takes more.
  mutating func turn(to other: Int) -> Bool {
    if unsettled.isFresh {
      guard leaf.count > IOVANode.fewest || height == 0 else { return false }
      let hollow = slot &+ 1
      unsettled.didChange(leaf.gap(slot))
      unsettled.isFresh = false
      leaf.closeSlot(hollow, isLeaf: true)
      unsafe path[0].slot = other > hollow ? other &- 1 : other
    } else {
      unsafe path[0].slot = other
    }
    return true
  }
}

/// What has become of the gaps of a leaf since the nodes above it took note.
struct IOVAUnsettledGaps {
  private(set) var isAny = false
  /// Whether the gap that the path leads to is one that freeing made, which is not counted below, with
  /// a hollow slot behind it.
  var isFresh = false
  /// The longest gap that was there and is not, or was not there and is.
  private var longest: UInt64 = 0

  func isShorter(thanBlocksOf summary: GapSummary) -> Bool {
    longest.leadingZeroBitCount > summary.longest.leadingZeroBitCount
  }

  /// A gap of this length has come or gone.
  mutating func didChange(_ length: UInt64) {
    isAny = true
    longest = max(longest, length)
  }

  /// The path's gap was taken, and two were left of it.
  mutating func didTake(_ length: UInt64, leaving below: UInt64, _ above: UInt64) {
    isAny = true
    // A gap that came and went again between two notes does not matter.
    longest = max(max(longest, isFresh ? 0 : length), max(below, above))
    isFresh = false
  }
}
