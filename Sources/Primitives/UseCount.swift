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

  /// Counts one more holder, unless the last has let go. Returns whether it did.
  public func incrementUnlessZero() -> Bool {
    var holders = count.load(ordering: .relaxed)
    while holders > 0 {
      let (isDone, found) = count.weakCompareExchange(
        expected: holders, desired: holders &+ 1, ordering: .relaxed)
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

  /// Whether anybody but the caller, who is a holder, holds the object.
  public var isShared: Bool { count.load(ordering: .relaxed) > 1 }
}

/// An object in a heap cell that lives until its last holder lets go.
public protocol Held: ~Copyable {
  borrowing func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result
}

extension Box where Value: Held & ~Copyable {
  public static func hold(_ cell: UnsafeMutablePointer<Value>) {
    unsafe cell.pointee.withUses { $0.increment() }
  }

  /// Holds an object whose end the caller keeps from going on, but maybe not from beginning.
  public static func holdUnlessEnding(_ cell: UnsafeMutablePointer<Value>) -> Bool {
    unsafe cell.pointee.withUses { $0.incrementUnlessZero() }
  }

  public static func letGo(_ cell: UnsafeMutablePointer<Value>) {
    if unsafe cell.pointee.withUses({ $0.decrement() }) == 0 { unsafe destroy(cell) }
  }

  public static func isShared(_ cell: UnsafeMutablePointer<Value>) -> Bool {
    unsafe cell.pointee.withUses { $0.isShared }
  }
}
