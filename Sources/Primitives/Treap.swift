// SPDX-License-Identifier: MIT OR Apache-2.0

// Theory of operation: the treap.
//
// A binary search tree by key that is at the same time a heap by priority. The priority of a node
// is a hash of its address: it needs no room in the node, no generator, and nobody outside of the
// process can choose it. The shape is that of a tree built in random order, so the expected depth
// is below 3 log2(n) and every operation is O(log n) expected. It is the simplest balanced tree
// that can carry a summary of each subtree: where children change, `summarize` computes it anew, which
// looks at a node and its two children alone. On the way from the root to where a node is linked the
// summaries only take it in; and on the way to one that is unlinked most do not owe it anything.
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
  /// Takes a node into the summary that has come to be below this one.
  mutating func include(_ node: borrowing Self)
  /// Whether the summary may be another one without a node that is below this one.
  func owes(_ node: borrowing Self) -> Bool
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
    let priority = unsafe Self.priority(node)
    var parent: Link? = nil
    var next = unsafe root
    while let current = unsafe next, unsafe Self.priority(current) >= priority {
      unsafe current.pointee.include(node.pointee)
      unsafe parent = current
      unsafe next = Self.child(of: current, toward: node)
    }
    let (low, high) = unsafe Self.splitting(next, at: node)
    unsafe node.pointee.left = low
    unsafe node.pointee.right = high
    unsafe node.pointee.summarize()
    unsafe put(node, below: parent, toward: node)
    count &+= 1
    checkInvariants()
  }

  /// Unlinks a node that is in this tree.
  public mutating func remove(_ node: Link) {
    var parent: Link? = nil
    // The first on the way whose summary may change.
    var debtor: Link? = nil
    var next = unsafe root
    while let current = unsafe next, unsafe current != node {
      if unsafe debtor == nil && current.pointee.owes(node.pointee) { unsafe debtor = current }
      unsafe parent = current
      unsafe next = Self.child(of: current, toward: node)
    }
    let rest = unsafe Self.merging(node.pointee.left, node.pointee.right)
    unsafe put(rest, below: parent, toward: node)
    if let debtor = unsafe debtor, let parent = unsafe parent {
      unsafe Self.summarize(from: debtor, through: parent, toward: node)
    }
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

  /// The child of a node where another one is, or would be.
  private static func child(of parent: Link, toward node: Link) -> Link? {
    unsafe precedes(node, parent) ? parent.pointee.left : parent.pointee.right
  }

  /// Lets a subtree be the child of a node where `node` is or would be; without a node, the whole tree.
  private mutating func put(_ subtree: Link?, below parent: Link?, toward node: Link) {
    guard let parent = unsafe parent else {
      unsafe root = subtree
      return
    }
    if unsafe Self.precedes(node, parent) {
      unsafe parent.pointee.left = subtree
    } else {
      unsafe parent.pointee.right = subtree
    }
  }

  /// Computes the summaries anew on the way from one node through another to where `node` was.
  private static func summarize(from first: Link, through last: Link, toward node: Link) {
    if unsafe first != last, let next = unsafe child(of: first, toward: node) {
      unsafe summarize(from: next, through: last, toward: node)
    }
    unsafe first.pointee.summarize()
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
