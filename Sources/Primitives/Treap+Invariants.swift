// SPDX-License-Identifier: MIT OR Apache-2.0

extension Treap {
  #if DMACORE_INTERNAL_CHECKS
    /// Traps unless order, priorities and the count are as they must be.
    public func checkInvariants() {
      precondition(unsafe Self.checkedCount(root) == count, "The count is not that of the nodes.")
    }

    private static func checkedCount(_ node: Link?) -> Int {
      guard let node = unsafe node else { return 0 }
      if let left = unsafe node.pointee.left {
        precondition(unsafe precedes(left, node), "A left child is not before its parent.")
        precondition(unsafe priority(left) <= priority(node), "A left child is above its parent.")
      }
      if let right = unsafe node.pointee.right {
        precondition(unsafe precedes(node, right), "A right child is not behind its parent.")
        precondition(
          unsafe priority(right) <= priority(node), "A right child is above its parent.")
      }
      return unsafe 1 + checkedCount(node.pointee.left) + checkedCount(node.pointee.right)
    }
  #else
    public func checkInvariants() {}
  #endif
}
