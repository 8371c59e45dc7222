// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@testable import Primitives

/// A node whose summary is all that lies below it: how many nodes, and the sum of their keys.
private struct SumNode: TreapNode {
  var left: UnsafeMutablePointer<SumNode>?
  var right: UnsafeMutablePointer<SumNode>?
  let key: UInt64
  var count = 1
  var sum: UInt64

  init(key: UInt64) {
    self.key = key
    sum = key
  }

  mutating func summarize() {
    count = 1 + (left?.pointee.count ?? 0) + (right?.pointee.count ?? 0)
    sum = key + (left?.pointee.sum ?? 0) + (right?.pointee.sum ?? 0)
  }

  mutating func include(_ node: borrowing SumNode) {
    count += 1
    sum += node.key
  }

  func owes(_ node: borrowing SumNode) -> Bool { true }
}

/// A treap, the cells of its nodes, and which of them are linked.
private final class Forest {
  typealias Link = UnsafeMutablePointer<SumNode>

  var tree = Treap<SumNode>()
  private let cells: Link
  private let keys: [UInt64]
  private(set) var linked: [Bool]

  init(keys: [UInt64]) {
    self.keys = keys
    cells = .allocate(capacity: keys.count)
    for (index, key) in keys.enumerated() { (cells + index).initialize(to: SumNode(key: key)) }
    linked = keys.map { _ in false }
  }

  deinit { cells.deallocate() }

  /// Links a cell, or unlinks it if it is linked.
  func toggle(_ index: Int) {
    if linked[index] {
      tree.remove(cells + index)
    } else {
      tree.insert(cells + index)
    }
    linked[index].toggle()
  }

  var linkedKeys: [UInt64] { keys.indices.filter { linked[$0] }.map { keys[$0] }.sorted() }

  /// Throws unless the tree is a search tree, a heap, and summed up, with exactly the linked cells.
  func check() throws {
    tree.checkInvariants()
    var found: [Link] = []
    try check(tree.root, &found)
    try demandSame(found.map(\.pointee.key), linkedKeys, "keys in order")
    try demandSame(found.count, Set(found).count, "different cells")
    try demandSame(tree.count, found.count, "count")
    for (low, high) in zip(found, found.dropFirst()) {
      try demand(Treap<SumNode>.precedes(low, high), "nodes of one key are in order of address")
    }
  }

  private func check(_ node: Link?, _ found: inout [Link]) throws {
    guard let node else { return }
    let start = found.count
    try check(node.pointee.left, &found)
    found.append(node)
    try check(node.pointee.right, &found)
    for child in [node.pointee.left, node.pointee.right].compactMap({ $0 }) {
      try demand(
        Treap<SumNode>.priority(child) <= Treap<SumNode>.priority(node), "a child is on top")
    }
    let below = found[start...]
    try demandSame(node.pointee.count, below.count, "count of a subtree")
    try demandSame(node.pointee.sum, below.map(\.pointee.key).reduce(0, +), "sum of a subtree")
  }
}

@Suite("Treap")
struct TreapTests {
  @Test func anEmptyTreeHasNothing() {
    let tree = Treap<SumNode>()
    #expect(tree.count == 0)
    #expect(tree.root == nil)
    #expect(tree.first == nil)
    #expect(tree.first(above: 0) == nil)
    #expect(tree.node(at: 0) == nil)
  }

  @Test func everyShortHistoryKeepsOrderHeapAndSummaries() throws {
    try withEverySequence(of: [0, 1, 2, 3, 4], length: 6) { history in
      let forest = Forest(keys: [10, 20, 20, 30, 5])
      for index in history {
        forest.toggle(index)
        try forest.check()
      }
    }
  }

  @Test func aLongRandomHistoryKeepsOrderHeapAndSummaries() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let forest = Forest(keys: (0..<300).map { _ in UInt64(generator.below(200)) })
    for step in 0..<RunSettings.steps(4_000) {
      forest.toggle(generator.below(300))
      if step % 16 == 0 { try forest.check() }
    }
  }

  @Test func searchesFindWhatAnArrayFinds() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let forest = Forest(keys: (0..<64).map { _ in UInt64(generator.below(100)) })
    for _ in 0..<200 {
      forest.toggle(generator.below(64))
      let keys = forest.linkedKeys
      try demandSame(forest.tree.first?.pointee.key, keys.first, "first")
      for key in stride(from: UInt64(0), through: 101, by: 7) {
        let above = forest.tree.first(above: key)?.pointee.key
        try demandSame(above, keys.first { $0 > key }, "first above \(key)")
        let at = forest.tree.node(at: key)?.pointee.key
        try demandSame(at, keys.contains(key) ? key : nil, "node at \(key)")
      }
    }
  }

  @Test func nodesOfOneKeyAreToldApart() throws {
    let forest = Forest(keys: Array(repeating: 7, count: 20))
    for index in 0..<20 { forest.toggle(index) }
    try forest.check()
    for index in stride(from: 0, to: 20, by: 3) {
      forest.toggle(index)
      try forest.check()
    }
  }

  /// Nodes that come in order of their keys are the worst case of a tree without balance.
  @Test func theTreeStaysShallowWhenKeysComeInOrder() {
    let count = 4096
    let cells = UnsafeMutablePointer<SumNode>.allocate(capacity: count)
    defer { cells.deallocate() }
    var tree = Treap<SumNode>()
    for index in 0..<count {
      (cells + index).initialize(to: SumNode(key: UInt64(index)))
      tree.insert(cells + index)
    }
    func depth(_ node: UnsafeMutablePointer<SumNode>?) -> Int {
      guard let node else { return 0 }
      return 1 + max(depth(node.pointee.left), depth(node.pointee.right))
    }
    // A random tree of so many nodes is some 27 levels deep; a list would be 4096.
    #expect(depth(tree.root) < 60)
  }
}
