// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import TestSupport
import Testing

/// A number that nothing but a lock keeps from being counted wrongly.
private final class Counter: @unchecked Sendable {
  let lock: Lock
  var count = 0

  init() throws { lock = try Lock(.faultRing) }
}

private final class GuardedCounter: Sendable {
  let count: Guarded<Int>

  init(_ rank: LockRank = .faultRing) throws {
    count = try Guarded<Int>(rank) { () throws(Failure) in 0 }
  }
}

@Suite("Lock and Guarded")
struct LockTests {
  @Test func oneThreadAtATimeHasTheLock() throws {
    let counter = try Counter()
    try onThreads(3) { _ in
      for _ in 0..<2_000 {
        counter.lock.lock()
        counter.count += 1
        counter.lock.unlock()
      }
    }
    #expect(counter.count == 6_000)
  }

  /// Behind a word, and behind a mutex.
  @Test(arguments: [LockRank.faultRing, .group])
  func oneThreadAtATimeHasTheState(_ rank: LockRank) throws {
    let counter = try GuardedCounter(rank)
    try onThreads(3) { _ in
      for _ in 0..<2_000 { counter.count.withLock { $0 += 1 } }
    }
    #expect(counter.count.withLock { $0 } == 6_000)
  }

  @Test func aFailureInsideLetsTheLockGo() throws {
    let counter = try GuardedCounter()
    #expect(throws: Failure.busy) {
      try counter.count.withLock { (count: inout Int) throws(Failure) in
        count = 5
        throw .busy
      }
    }
    #expect(counter.count.withLock { $0 } == 5)
  }

  @Test func theStateEndsWithItsLock() throws {
    final class Witness {}
    var witness: Witness? = Witness()
    weak let observer = witness
    do {
      let guarded = try Guarded<Witness>(.faultRing) { () throws(Failure) in witness! }
      witness = nil
      #expect(observer != nil)
      guarded.withLock { _ in }
    }
    #expect(observer == nil)
  }

  @Test func aStateThatCannotBeMadeIsTheGuardedsFailure() {
    #expect(throws: Failure.noMemory) {
      _ = try Guarded<Int>(.faultRing) { () throws(Failure) in throw .noMemory }
    }
  }
}
