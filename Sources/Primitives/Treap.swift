// SPDX-License-Identifier: MIT OR Apache-2.0

// Theory of operation: the treap.
//
// A binary search tree by key that is at the same time a heap by priority. The priority of a node
// is a hash of its address: it needs no room in the node, no generator, and nobody outside of the
// process can choose it. The shape is that of a tree built in random order, so the expected depth
// is below 3 log2(n) and every operation is O(log n) expected. It is the simplest balanced tree
// that can carry a summary of each subtree: after every change the summaries on the path to the
// root are computed anew by `summarize`, which looks at a node and its two children alone.
//
// Nodes belong to the caller; the tree links them and allocates nothing.
//
// References: Seidel and Aragon, "Randomized Search Trees", Algorithmica 1996.

/// A node that a treap links. It lies in memory that does not move while it is linked.
public protocol TreapNode {
  var left: UnsafeMutablePointer<Self>? { get set }
  var right: UnsafeMutablePointer<Self>? { get set }
  /// The key that orders nodes; several nodes may have the same.
  var key: UInt64 { get }
  /// Computes the summary of the subtree below this node from itself and its children.
  mutating func summarize()
}

/// An ordered set of nodes with a summary of every subtree.
///
/// Confined: the owner's lock guards it.
@safe
public struct Treap<Node: TreapNode>: ~Copyable {
  public typealias Link = UnsafeMutablePointer<Node>

  // Invariant: keys grow from left to right, nodes of one key by address; priorities fall from the
  // root to the leaves; each node's summary is that of its subtree.
  public private(set) var root: Link?
  public private(set) var count = 0

  public init() { unsafe root = nil }

  /// Links a node that is in no tree.
  public mutating func insert(_ node: Link) {
    unsafe node.pointee.left = nil
    unsafe node.pointee.right = nil
    unsafe root = Self.inserting(node, below: root)
    count &+= 1
    checkInvariants()
  }

  /// Unlinks a node that is in this tree.
  public mutating func remove(_ node: Link) {
    unsafe root = Self.removing(node, below: root)
    count &-= 1
    checkInvariants()
  }

  /// The node with the lowest key.
  public var first: Link? {
    var node = unsafe root
    while let next = unsafe node?.pointee.left { unsafe node = next }
    return unsafe node
  }

  /// The node with the lowest key above `key`.
  public func first(above key: UInt64) -> Link? {
    var node = unsafe root
    var best: Link? = nil
    while let current = unsafe node {
      if unsafe current.pointee.key > key {
        unsafe best = current
        unsafe node = current.pointee.left
      } else {
        unsafe node = current.pointee.right
      }
    }
    return unsafe best
  }

  /// A node with exactly this key.
  public func node(at key: UInt64) -> Link? {
    var node = unsafe root
    while let current = unsafe node {
      let currentKey = unsafe current.pointee.key
      if currentKey == key { return unsafe current }
      unsafe node = key < currentKey ? current.pointee.left : current.pointee.right
    }
    return nil
  }

  private static func inserting(_ node: Link, below root: Link?) -> Link {
    guard let root = unsafe root else {
      unsafe node.pointee.summarize()
      return unsafe node
    }
    if unsafe priority(node) > priority(root) {
      let (low, high) = unsafe splitting(root, at: node)
      unsafe node.pointee.left = low
      unsafe node.pointee.right = high
      unsafe node.pointee.summarize()
      return unsafe node
    }
    if unsafe precedes(node, root) {
      unsafe root.pointee.left = inserting(node, below: root.pointee.left)
    } else {
      unsafe root.pointee.right = inserting(node, below: root.pointee.right)
    }
    unsafe root.pointee.summarize()
    return unsafe root
  }

  private static func removing(_ node: Link, below root: Link?) -> Link? {
    guard let root = unsafe root else { return nil }
    if unsafe root == node { return unsafe merging(node.pointee.left, node.pointee.right) }
    if unsafe precedes(node, root) {
      unsafe root.pointee.left = removing(node, below: root.pointee.left)
    } else {
      unsafe root.pointee.right = removing(node, below: root.pointee.right)
    }
    unsafe root.pointee.summarize()
    return unsafe root
  }

  /// The nodes before and behind `pivot`, which is not among them.
  private static func splitting(_ root: Link?, at pivot: Link) -> (Link?, Link?) {
    guard let root = unsafe root else { return (nil, nil) }
    if unsafe precedes(root, pivot) {
      let (low, high) = unsafe splitting(root.pointee.right, at: pivot)
      unsafe root.pointee.right = low
      unsafe root.pointee.summarize()
      return unsafe (root, high)
    }
    let (low, high) = unsafe splitting(root.pointee.left, at: pivot)
    unsafe root.pointee.left = high
    unsafe root.pointee.summarize()
    return unsafe (low, root)
  }

  /// One tree of two, of which all nodes of the first precede those of the second.
  private static func merging(_ low: Link?, _ high: Link?) -> Link? {
    guard let low = unsafe low else { return unsafe high }
    guard let high = unsafe high else { return unsafe low }
    if unsafe priority(low) > priority(high) {
      unsafe low.pointee.right = merging(low.pointee.right, high)
      unsafe low.pointee.summarize()
      return unsafe low
    }
    unsafe high.pointee.left = merging(low, high.pointee.left)
    unsafe high.pointee.summarize()
    return unsafe high
  }

  static func precedes(_ a: Link, _ b: Link) -> Bool {
    let (aKey, bKey) = unsafe (a.pointee.key, b.pointee.key)
    return unsafe aKey < bKey || (aKey == bKey && a < b)
  }

  /// A hash of the address: multiply, fold, multiply, so that every bit of it counts.
  static func priority(_ node: Link) -> UInt64 {
    var hash = UInt64(truncatingIfNeeded: UInt(bitPattern: node))
    // 2^64 divided by the golden ratio, made odd: Knuth's multiplicative hashing.
    hash = hash &* 0x9E37_79B9_7F4A_7C15
    hash ^= hash >> 32
    return hash &* 0x9E37_79B9_7F4A_7C15
  }
}
