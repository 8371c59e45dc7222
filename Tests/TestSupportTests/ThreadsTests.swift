// SPDX-License-Identifier: MIT OR Apache-2.0

import Synchronization
import TestSupport
import Testing

@Suite("onThreads")
struct ThreadsTests {
  @Test func everyThreadRunsOnceAndHasEndedAfterwards() throws {
    let sum = Atomic<Int>(0)
    try onThreads(4) { index in sum.add(1 << index, ordering: .relaxed) }
    #expect(sum.load(ordering: .relaxed) == 0b1111)
  }

  @Test func allThreadsAreThereBeforeAnyGoesOn() throws {
    let arrived = Atomic<Int>(0)
    try onThreads(3) { _ in
      arrived.add(1, ordering: .sequentiallyConsistent)
      // Ends only if the others run at the same time.
      while arrived.load(ordering: .sequentiallyConsistent) < 3 {}
    }
    #expect(arrived.load(ordering: .relaxed) == 3)
  }

  @Test func anErrorOnAThreadIsThrownWithTheNumberOfTheThread() {
    let error = #expect(throws: Divergence.self) {
      try onThreads(2) { index in try demand(index == 0, "odd") }
    }
    #expect(error?.description == "thread 1: odd")
  }
}
