// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives

/// A table in the tree.
struct TableNode {
  let page: TablePage
  let level: Int
  /// The exponent of what an entry spans.
  let shift: UInt64
  /// The bits of an index: of a root, all that there may be.
  let indexMask: UInt64

  init(_ page: TablePage, level: Int, shift: UInt64, indexMask: UInt64) {
    self.page = page
    self.level = level
    self.shift = shift
    self.indexMask = indexMask
  }

  /// A table one level below one that uses `indexBits` of an input.
  @inline(__always)
  init(_ page: TablePage, below node: TableNode, indexBits: Int) {
    self.page = page
    level = node.level &- 1
    shift = node.shift &- UInt64(truncatingIfNeeded: indexBits)
    indexMask = (1 &<< UInt64(truncatingIfNeeded: indexBits)) &- 1
  }

  var isRoot: Bool { indexMask == UInt64.max }

  /// The bytes of input that an entry spans, less one.
  var spanMask: UInt64 { (1 &<< shift) &- 1 }

  /// The bytes of input that a leaf of 2^order entries spans, less one.
  func runMask(order: Int) -> UInt64 {
    let bits = shift &+ UInt64(truncatingIfNeeded: order)
    return bits >= 64 ? UInt64.max : (1 &<< bits) &- 1
  }

  /// Where the word for an offset is. The offset is one of the tree's.
  func index(of offset: UInt64) -> Int {
    Int(truncatingIfNeeded: (offset &>> shift) & indexMask)
  }

  /// The entries that a range of offsets inside the table touches.
  func indexes(_ first: UInt64, _ last: UInt64) -> ClosedRange<Int> {
    unsafe ClosedRange(uncheckedBounds: (index(of: first), index(of: last)))
  }
}

/// What is stored in leaves besides where they lead.
struct LeafContent {
  let access: Access
  /// Whether it is noted that they were written through.
  let isDirty: Bool
}
