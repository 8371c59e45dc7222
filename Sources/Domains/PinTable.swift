// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization

/// The address ranges that zero-copy mappings hold.
///
/// A range that is about to go can be closed: then nothing in it can be pinned until it is opened
/// again. Locked, rank 4.
public struct PinTable: ~Copyable {
  public typealias Node = IntervalNode<State>

  public enum State: UInt8, Sendable {
    case pinned
    case closed
  }

  private let ranges: Guarded<Treap<Node>>
  // The number of nodes, by which an unmap passes over the lock when there are none.
  private let count = Atomic<Int>(0)

  public init() throws(Failure) {
    ranges = try Guarded<Treap<Node>>(.pins) { () throws(Failure) in Treap<Node>() }
  }

  /// Adds a node of the caller's, unless a closed range is in its way or, to close it, any range.
  public func add(_ node: UnsafeMutablePointer<Node>) -> Bool {
    let wasAdded = ranges.withLock { tree in
      let closes = unsafe node.pointee.payload == .closed
      var isFree = true
      unsafe tree.visitOverlapping(first: node.pointee.first, last: node.pointee.last) { other in
        isFree = unsafe !closes && other.pointee.payload == .pinned
        return isFree
      }
      if isFree { unsafe tree.insert(node) }
      return isFree
    }
    // The increment comes before the pinning section ends, and an unmap looks after it has waited
    // for sections; so it is seen in time.
    if wasAdded { count.wrappingAdd(1, ordering: .relaxed) }
    return wasAdded
  }

  public func remove(_ node: UnsafeMutablePointer<Node>) {
    ranges.withLock { tree in unsafe tree.remove(node) }
    count.wrappingSubtract(1, ordering: .relaxed)
  }

  /// Whether a zero-copy mapping holds a part of the range.
  public func holds(first: UInt64, last: UInt64) -> Bool {
    guard count.load(ordering: .relaxed) != 0 else { return false }
    return ranges.withLock { tree in
      var isHeld = false
      unsafe tree.visitOverlapping(first: first, last: last) { node in
        isHeld = unsafe node.pointee.payload == .pinned
        return !isHeld
      }
      return isHeld
    }
  }
}
