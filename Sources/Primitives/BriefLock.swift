// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// Mutual exclusion for a few loads and stores, in a word of the owner's memory.
///
/// The word holds a number of the owner's while nobody has the lock; whoever takes it gets the number
/// and puts one back. So what is looked at first comes with the lock, and it costs an exchange and a
/// store where a `Lock` costs two calls. A thread that finds it taken gives its processor away, as the
/// holder may be waiting for it.
@safe
public struct BriefLock: @unchecked Sendable {
  /// What is in the word while somebody has the lock. Numbers of the owner's are even.
  private static var taken: UInt64 { 1 }

  private let word: UnsafeMutablePointer<UInt64>
  private let rank: LockRank

  public init(_ word: UnsafeMutablePointer<UInt64>, _ rank: LockRank) {
    unsafe self.word = word
    self.rank = rank
  }

  /// Takes the lock and gets the number, unless somebody has it.
  @inline(__always)
  public func tryTake() -> UInt64? {
    // Acquire: pairs with the release in putBackAnother, so that what the last holder did is seen.
    let number = unsafe cplatform_exchange_acquire(word, Self.taken)
    guard number != Self.taken else { return nil }
    ThreadRules.willLock(rank)
    return number
  }

  /// Takes the lock and gets the number.
  public func take() -> UInt64 {
    ThreadRules.willLock(rank)
    return takeAnother()
  }

  /// Leaves the lock, with a number for the next holder.
  @inline(__always)
  public func putBack(_ number: UInt64) {
    putBackAnother(number)
    ThreadRules.didUnlock(rank)
  }

  /// Takes one more lock of a rank that the thread holds already. All who hold several take them in
  /// the same order.
  @inline(__always)
  public func takeAnother() -> UInt64 {
    // Acquire: as in tryTake.
    let number = unsafe cplatform_exchange_acquire(word, Self.taken)
    return number != Self.taken ? number : wait()
  }

  /// Whether somebody has the lock, at this moment.
  @inline(__always)
  var isTaken: Bool {
    // Acquire: as in tryTake.
    unsafe cplatform_load_acquire(word) == Self.taken
  }

  /// Leaves a lock that `takeAnother` took.
  @inline(__always)
  public func putBackAnother(_ number: UInt64) {
    // Release: pairs with the acquire in tryTake, takeAnother and wait.
    unsafe cplatform_store_release(word, number)
  }

  /// Takes the lock where there is no number.
  @inline(__always)
  public func lock() {
    ThreadRules.willLock(rank)
    _ = takeAnother()
  }

  @inline(__always)
  public func unlock() { putBack(0) }

  @inline(never)
  private func wait() -> UInt64 {
    var backoff = Backoff()
    while true {
      backoff.rest()
      guard unsafe cplatform_load_relaxed(word) != Self.taken else { continue }
      let number = unsafe cplatform_exchange_acquire(word, Self.taken)
      if number != Self.taken { return number }
    }
  }
}
