// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// A range in use, as a node of the space's tree.
///
/// The summary of a subtree is where it starts, where it ends, and its longest gap: the free bytes
/// between two of its ranges that follow each other. Gaps before its first and behind its last
/// range belong to a subtree further up.
@safe
struct IOVANode: TreapNode {
  var left: UnsafeMutablePointer<IOVANode>?
  var right: UnsafeMutablePointer<IOVANode>?
  let range: IOVARange
  let isReserved: Bool
  private(set) var subtreeFirst: UInt64
  private(set) var subtreeLast: UInt64
  private(set) var longestGap: UInt64

  init(_ range: IOVARange, isReserved: Bool) {
    unsafe left = nil
    unsafe right = nil
    self.range = range
    self.isReserved = isReserved
    subtreeFirst = range.first.rawValue
    subtreeLast = range.last.rawValue
    longestGap = 0
  }

  var key: UInt64 { range.first.rawValue }

  /// The free bytes between the left subtree and this range. Ranges do not overlap and lie in
  /// order, so that no subtraction wraps.
  var gapBefore: UInt64 {
    guard let left = unsafe left else { return 0 }
    return unsafe range.first.rawValue &- left.pointee.subtreeLast &- 1
  }

  /// The free bytes between this range and the right subtree.
  var gapBehind: UInt64 {
    guard let right = unsafe right else { return 0 }
    return unsafe right.pointee.subtreeFirst &- range.last.rawValue &- 1
  }

  mutating func summarize() {
    subtreeFirst = range.first.rawValue
    subtreeLast = range.last.rawValue
    longestGap = max(gapBefore, gapBehind)
    if let left = unsafe left {
      subtreeFirst = unsafe left.pointee.subtreeFirst
      longestGap = unsafe max(longestGap, left.pointee.longestGap)
    }
    if let right = unsafe right {
      subtreeLast = unsafe right.pointee.subtreeLast
      longestGap = unsafe max(longestGap, right.pointee.longestGap)
    }
  }
}
