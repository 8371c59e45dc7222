// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization

/// The address ranges that zero-copy mappings hold.
///
/// A range that is about to go can be closed: then nothing in it can be pinned until it is opened
/// again. A pin outlives the mapping it was made through; stamps tell it from one of a later mapping
/// at the same addresses. Locked, rank 5.
public struct PinTable: ~Copyable {
  public typealias Node = IntervalNode<Pin>

  public struct Pin: Sendable {
    enum State: UInt8, Sendable {
      case pinned
      case closed
    }

    let state: State
    /// Whether the memory is written through it.
    public let isForWriting: Bool
    /// For a pin, its own stamp, the greatest until it is settled: it may be of any mapping. For a
    /// closed range, the stamp of the mapping that is about to go: older pins are not of it.
    fileprivate(set) var stamp: UInt64

    public static func pinned(_ access: Access) -> Pin {
      Pin(state: .pinned, isForWriting: access.contains(.write), stamp: UInt64.max)
    }

    public static func closed(of stamp: UInt64) -> Pin {
      Pin(state: .closed, isForWriting: false, stamp: stamp)
    }
  }

  private let ranges: Guarded<Treap<Node>>
  // The number of nodes, by which an unmap passes over the lock when there are none.
  private let count = Atomic<Int>(0)
  private let lastStamp = Atomic<UInt64>(0)

  public init() throws(Failure) {
    ranges = try Guarded<Treap<Node>>(.pins) { () throws(Failure) in Treap<Node>() }
  }

  /// How many ranges are pinned or closed.
  @inline(__always)
  var rangeCount: Int { count.load(ordering: .relaxed) }

  /// The stamp of a mapping that is about to be made: every pin that finds it will have a greater
  /// one, and every pin that is settled has none greater.
  public var stamp: UInt64 { lastStamp.load(ordering: .relaxed) }

  /// Adds a node of the caller's: a pin, unless its range is closed; or the closing of a range,
  /// unless it is pinned.
  public func add(_ node: UnsafeMutablePointer<Node>) -> Bool {
    let wasAdded = ranges.withLock { tree in
      let pin = unsafe node.pointee.payload
      var isFree = true
      unsafe tree.visitOverlapping(first: node.pointee.first, last: node.pointee.last) { other in
        let other = unsafe other.pointee.payload
        switch (pin.state, other.state) {
        case (.pinned, .closed): isFree = false
        case (.closed, .pinned): isFree = other.stamp <= pin.stamp
        default: break
        }
        return isFree
      }
      guard isFree else { return false }
      unsafe tree.insert(node)
      return true
    }
    // The increment comes before the pinning section ends, and an unmap looks after it has waited
    // for sections; so it is seen in time.
    if wasAdded { count.wrappingAdd(1, ordering: .relaxed) }
    return wasAdded
  }

  /// Says that all that a pin holds has been found: mappings made from here on are not of it.
  public func settle(_ node: UnsafeMutablePointer<Node>) {
    ranges.withLock { _ in
      unsafe node.pointee.payload.stamp = lastStamp.wrappingAdd(1, ordering: .relaxed).newValue
    }
  }

  @inline(never)
  public func remove(_ node: UnsafeMutablePointer<Node>) {
    ranges.withLock { tree in unsafe tree.remove(node) }
    count.wrappingSubtract(1, ordering: .relaxed)
  }

  /// The first part of a range that a zero-copy mapping for writing holds.
  func firstWritten(from first: UInt64, through last: UInt64) -> (first: UInt64, last: UInt64)? {
    guard count.load(ordering: .relaxed) != 0 else { return nil }
    return ranges.withLock { tree in
      var found: (UInt64, UInt64)? = nil
      unsafe tree.visitOverlapping(first: first, last: last) { node in
        let isWritten = unsafe node.pointee.payload.isForWriting
        if isWritten {
          found = unsafe (max(node.pointee.first, first), min(node.pointee.last, last))
        }
        return !isWritten
      }
      return found
    }
  }

  /// Whether a zero-copy mapping that was made through a mapping with this stamp holds a part of its
  /// range.
  public func holds(first: UInt64, last: UInt64, since stamp: UInt64) -> Bool {
    guard count.load(ordering: .relaxed) != 0 else { return false }
    return ranges.withLock { tree in
      var isHeld = false
      unsafe tree.visitOverlapping(first: first, last: last) { node in
        let pin = unsafe node.pointee.payload
        isHeld = pin.state == .pinned && pin.stamp > stamp
        return !isHeld
      }
      return isHeld
    }
  }
}
