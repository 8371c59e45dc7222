// SPDX-License-Identifier: MIT OR Apache-2.0

extension IOVATree {
  #if DMACORE_INTERNAL_CHECKS
    /// Traps unless the ranges are in order, apart and inside the space, every gap, key and summary
    /// is what it should be, and no node but those at the edges is too empty.
    func checkInvariants() {
      var end = first
      var ranges = -1
      var nodes = (leaves: 0, inners: 0)
      check(root, level: height, isEdge: true, &end, &ranges, &nodes)
      precondition(end == last &+ 1 || count == 0, "The gaps do not reach the end of the space.")
      precondition(ranges == count, "The count is not that of the ranges.")
      precondition(
        nodes.leaves == leafCount && nodes.inners == innerCount, "Nodes are miscounted.")
    }

    /// - Parameter end: where the last gap ended.
    private func check(
      _ node: IOVANode, level: Int, isEdge: Bool, _ end: inout UInt64, _ ranges: inout Int,
      _ nodes: inout (leaves: Int, inners: Int)
    ) {
      precondition(
        node.count >= (isEdge ? 1 : IOVANode.fewest) && node.count <= IOVANode.capacity,
        "A node has too few slots or too many.")
      precondition(level == 0 || level < height || node.count > 1, "A root has one child.")
      if level == 0 { nodes.leaves += 1 } else { nodes.inners += 1 }
      for slot in 0..<node.count {
        if level > 0 {
          let child = node.child(slot)
          let isFirst = slot == 0
          let isLast = slot == node.count - 1
          precondition(node.key(slot) == child.key(0), "A key is not that of the child.")
          let isStale =
            unsafe unsettled.isAny && path[level].node == node && path[level].slot == slot
          precondition(
            isStale || Self.summary(node, slot) == summary(of: child, level: level - 1),
            "A summary is not that of the child.")
          check(
            child, level: level - 1, isEdge: isEdge && (isFirst || isLast), &end, &ranges, &nodes)
          continue
        }
        let isHollow = unsettled.isFresh && node == leaf && slot == self.slot + 1
        if isHollow {
          precondition(node.gap(slot) == 0 && node.key(slot) == node.nextKey(slot))
          continue
        }
        precondition(node.key(slot) == end || ranges == -1, "A range does not follow its gap.")
        ranges &+= 1
        let isSentinel = slot == 0 && node == lowestLeaf
        precondition(isSentinel == (ranges == 0), "The lowest leaf is not the first.")
        if !isSentinel {
          let range = range(node, slot)
          precondition(
            range.first >= first && range.first &+ (range.size &- 1) <= last
              && range.first <= range.first &+ (range.size &- 1), "A range leaves the space.")
        }
        end = node.nextKey(slot)
      }
    }
  #else
    func checkInvariants() {}
  #endif
}
