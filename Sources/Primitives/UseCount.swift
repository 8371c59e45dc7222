// SPDX-License-Identifier: MIT OR Apache-2.0

import Synchronization

/// How many holders keep an object alive: its C handle, and each object made from it.
///
/// Counted when objects are created, attached and destroyed, never while data moves.
public struct UseCount: ~Copyable, Sendable {
  private let count = Atomic<Int>(1)

  public init() {}

  public func increment() {
    count.wrappingAdd(1, ordering: .relaxed)
  }

  /// Counts one more holder or one less, if there are more than `lowest`. Returns whether it did.
  public func add(_ change: Int, ifAbove lowest: Int) -> Bool {
    var holders = count.load(ordering: .relaxed)
    while holders > lowest {
      let (isDone, found) = count.weakCompareExchange(
        expected: holders, desired: holders &+ change, ordering: .acquiringAndReleasing)
      if isDone { return true }
      holders = found
    }
    return false
  }

  /// Returns how many holders are left.
  public func decrement() -> Int {
    // Acquiring and releasing: whatever any holder did happens before the object's end.
    count.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue
  }

  /// Counts so many holders more, or less, and returns how many there are then.
  public func add(_ change: Int) -> Int {
    // As in decrement.
    count.wrappingAdd(change, ordering: .acquiringAndReleasing).newValue
  }

  public var current: Int { count.load(ordering: .relaxed) }

  /// Whether anybody but the caller, who is a holder, and so many others hold the object.
  public func isShared(beside others: Int = 0) -> Bool {
    count.load(ordering: .relaxed) > 1 + others
  }
}

/// An object in a heap cell that lives until its last holder lets go.
public protocol Held: ~Copyable {
  borrowing func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result
}

extension Box where Value: Held & ~Copyable {
  public static func hold(_ cell: UnsafeMutablePointer<Value>) {
    unsafe cell.pointee.withUses { $0.increment() }
  }

  // Objects are let go of in many places, and never while data moves.
  @inline(never)
  public static func letGo(_ cell: UnsafeMutablePointer<Value>) {
    if unsafe cell.pointee.withUses({ $0.decrement() }) == 0 { unsafe destroy(cell) }
  }

  public static func isShared(_ cell: UnsafeMutablePointer<Value>) -> Bool {
    unsafe cell.pointee.withUses { $0.isShared() }
  }
}
