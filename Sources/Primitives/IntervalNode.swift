// SPDX-License-Identifier: MIT OR Apache-2.0

/// A tree node for a range of numbers, both ends included, that others in the tree may overlap.
///
/// The summary of a subtree is the highest end in it, by which a search passes over subtrees that
/// end before what it looks for.
@safe
public struct IntervalNode<Payload>: TreapNode {
  public var left: UnsafeMutablePointer<Self>?
  public var right: UnsafeMutablePointer<Self>?
  public let first: UInt64
  public let last: UInt64
  private var highestLast: UInt64
  public var payload: Payload

  public init(first: UInt64, last: UInt64, payload: Payload) {
    unsafe left = nil
    unsafe right = nil
    self.first = first
    self.last = last
    self.highestLast = last
    self.payload = payload
  }

  public var key: UInt64 { first }

  public mutating func summarize() {
    highestLast = last
    if let left = unsafe left { highestLast = unsafe max(highestLast, left.pointee.highestLast) }
    if let right = unsafe right { highestLast = unsafe max(highestLast, right.pointee.highestLast) }
  }

  public mutating func include(_ node: borrowing Self) {
    if node.last > highestLast { highestLast = node.last }
  }

  public func owes(_ node: borrowing Self) -> Bool { node.last == highestLast }

  /// Calls `visit` for each node below `node` that overlaps the range, in order, until it says no.
  fileprivate static func visit(
    _ node: UnsafeMutablePointer<Self>?, first: UInt64, last: UInt64,
    _ body: (UnsafeMutablePointer<Self>) -> Bool
  ) -> Bool {
    guard let node = unsafe node, unsafe node.pointee.highestLast >= first else { return true }
    guard unsafe visit(node.pointee.left, first: first, last: last, body) else { return false }
    guard unsafe node.pointee.first <= last else { return true }
    if unsafe node.pointee.last >= first {
      guard unsafe body(node) else { return false }
    }
    return unsafe visit(node.pointee.right, first: first, last: last, body)
  }
}

extension Treap {
  /// Calls `body` for each range that overlaps `first...last`, in order, until it returns false.
  ///
  /// `body` may not change the tree.
  public func visitOverlapping<Payload>(
    first: UInt64, last: UInt64, _ body: (Link) -> Bool
  ) where Node == IntervalNode<Payload> {
    _ = unsafe Node.visit(root, first: first, last: last, body)
  }
}
