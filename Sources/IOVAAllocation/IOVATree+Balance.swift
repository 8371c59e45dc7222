// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

// Splitting nodes that are full, and joining those that have become too empty. Neither changes a
// range or a gap; so what is noted of a node changes only where slots move.

extension IOVATree {
  /// Splits the path's node on a level, so that it has room for a slot; the path goes where its slot
  /// went.
  mutating func makeRoom(level: Int) {
    let node = unsafe path[level].node
    let slot = unsafe path[level].slot
    guard node.count == IOVANode.capacity else { return }
    if level == height { growRoot() } else { makeRoom(level: level &+ 1) }
    let parent = unsafe path[level &+ 1].node
    let parentSlot = unsafe path[level &+ 1].slot
    let isLeaf = level == 0

    let cut = cut(level: level)
    let other = takeSpare(isLeaf: isLeaf)
    node.moveSlots(from: cut, toEndOf: other, node.count &- cut, isLeaf: isLeaf)
    node.drop(from: cut)
    other.end = node.end
    node.end = other.key(0)

    parent.openSlot(parentSlot &+ 1, isLeaf: false)
    parent.setKey(parentSlot &+ 1, other.key(0))
    parent.setChild(parentSlot &+ 1, other)
    summarize(parent, parentSlot, level: level)
    summarize(parent, parentSlot &+ 1, level: level)
    if slot >= cut {
      unsafe path[level] = Step(node: other, slot: slot &- cut)
      unsafe path[level &+ 1].slot = parentSlot &+ 1
    }
  }

  /// How many slots stay in the path's node on a level when it splits.
  ///
  /// Half, but at the edges of the tree, where allocation from one end splits node after node and
  /// never comes back: there most go into the node that is left behind.
  private func cut(level: Int) -> Int {
    let few = 4
    let slot = unsafe path[level].slot
    var isLowest = slot < few
    var isHighest = slot >= IOVANode.capacity &- few
    var above = level &+ 1
    while above <= height {
      let step = unsafe path[above]
      isLowest = isLowest && step.slot == 0
      isHighest = isHighest && step.slot == step.node.count &- 1
      above = above &+ 1
    }
    if isLowest { return few }
    return isHighest ? IOVANode.capacity &- few : IOVANode.capacity / 2
  }

  /// Puts a root above the root.
  private mutating func growRoot() {
    let old = root
    let new = takeSpare(isLeaf: false)
    new.openSlot(0, isLeaf: false)
    new.setKey(0, first)
    new.setChild(0, old)
    summarize(new, 0, level: height)
    height = height &+ 1
    root = new
    unsafe path[height] = Step(node: new, slot: 0)
  }

  /// Notes what the child in a slot has; the child is on `level`.
  private func summarize(_ parent: IOVANode, _ slot: Int, level: Int) {
    Self.setSummary(parent, slot, summary(of: parent.child(slot), level: level))
  }

  /// Gives the path's node on a level, which has too few slots, some of a neighbour's, or joins the
  /// two. The path leads nowhere afterwards.
  mutating func fill(level: Int) {
    guard level < height else { return }
    hasPath = false
    let isLeaf = level == 0
    let parent = unsafe path[level &+ 1].node
    let slot = unsafe path[level &+ 1].slot
    // With the one before it, or the first with the one behind.
    let lowSlot = slot > 0 ? slot &- 1 : 0
    let low = parent.child(lowSlot)
    let high = parent.child(lowSlot &+ 1)

    guard low.count &+ high.count > IOVANode.capacity else {
      high.moveSlots(from: 0, toEndOf: low, high.count, isLeaf: isLeaf)
      low.end = high.end
      parent.closeSlot(lowSlot &+ 1, isLeaf: false)
      summarize(parent, lowSlot, level: level)
      giveBack(high, isLeaf: isLeaf)
      shrink(level: level &+ 1)
      return
    }
    if low.count < high.count {
      let moved = (high.count &- low.count &+ 1) / 2
      high.moveSlots(from: 0, toEndOf: low, moved, isLeaf: isLeaf)
      high.dropFirst(moved, isLeaf: isLeaf)
    } else {
      high.takeSlots(fromEndOf: low, (low.count &- high.count &+ 1) / 2, isLeaf: isLeaf)
    }
    low.end = high.key(0)
    parent.setKey(lowSlot &+ 1, high.key(0))
    summarize(parent, lowSlot, level: level)
    summarize(parent, lowSlot &+ 1, level: level)
  }

  /// Sees to the path's node on a level, which has lost a slot.
  private mutating func shrink(level: Int) {
    let node = unsafe path[level].node
    if level < height {
      if node.count < IOVANode.fewest { fill(level: level) }
    } else if node.count == 1 {
      root = node.child(0)
      height = height &- 1
      giveBack(node, isLeaf: false)
    }
  }

  // MARK: - Spare nodes

  /// Whether there are more spare nodes than one insertion may need, and a few, so that insertions and
  /// removals in turns neither allocate nor free.
  @inline(__always)
  var hasSurplus: Bool { spareLeaves.count > 4 || spareInners.count > height &+ 4 }

  /// The spare nodes that are not likely to be needed soon. Ending the pool frees them.
  mutating func takeSurplus() -> IOVANodePool {
    var surplus = IOVANodePool()
    while spareLeaves.count > 4 { surplus.add(spareLeaves.take()) }
    while spareInners.count > height &+ 4 { surplus.add(spareInners.take()) }
    return surplus
  }

  private mutating func takeSpare(isLeaf: Bool) -> IOVANode {
    let node: IOVANode
    if isLeaf {
      node = spareLeaves.take()
      leafCount = leafCount &+ 1
    } else {
      node = spareInners.take()
      innerCount = innerCount &+ 1
    }
    node.clear()
    return node
  }

  private mutating func giveBack(_ node: IOVANode, isLeaf: Bool) {
    if isLeaf {
      spareLeaves.add(node)
      leafCount = leafCount &- 1
    } else {
      spareInners.add(node)
      innerCount = innerCount &- 1
    }
  }
}

/// Nodes in no tree, linked by their first words.
@safe
struct IOVANodePool: ~Copyable {
  private var top: UnsafeMutableRawPointer? = nil
  private(set) var count = 0

  init() { unsafe top = nil }

  deinit {
    var next = unsafe top
    while let node = unsafe next {
      unsafe next = node.load(as: UnsafeMutableRawPointer?.self)
      unsafe RawMemory.free(node)
    }
  }

  mutating func add(_ node: IOVANode) {
    unsafe node.raw.storeBytes(of: top, as: UnsafeMutableRawPointer?.self)
    unsafe top = node.raw
    count = count &+ 1
  }

  /// A node; there is one.
  mutating func take() -> IOVANode {
    guard let node = unsafe top else { preconditionFailure("A tree was not ready to insert.") }
    unsafe top = node.load(as: UnsafeMutableRawPointer?.self)
    count = count &- 1
    return unsafe IOVANode(node)
  }
}
