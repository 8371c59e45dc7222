// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation
import Primitives
import Synchronization
import TestSupport
import Testing

/// What threads do in sections, and how far they are.
private final class Calls: Sendable {
  let sections: CallSections
  let step = Atomic<Int>(0)

  init() throws { sections = try CallSections() }

  func reach(_ number: Int) { step.store(number, ordering: .releasing) }

  func wait(for number: Int) {
    while step.load(ordering: .acquiring) < number { sched_yield() }
  }
}

@Suite("CallSections")
struct CallSectionsTests {
  @Test func aSectionThatCannotStartAtOnceIsLeftToTheCaller() throws {
    let sections = try CallSections()
    for cell in 0..<sections.cellCount { sections.enter(at: cell) }
    for _ in 0..<2 {
      let isEntered = sections.enterAtOnce() != nil
      #expect(!isEntered)
    }
    for cell in 0..<sections.cellCount { sections.leave(cell) }
    let cell = sections.enter()
    sections.leave(cell)
    // Where the kernel does not say which processor it is, none ever starts so.
    if let cell = sections.enterAtOnce() { sections.leave(cell) }
    sections.waitForCalls()
  }

  @Test func aWaitEndsWithTheSectionsThatItMet() throws {
    let calls = try Calls()
    try onThreads(2) { index in
      if index == 0 {
        let cell = calls.sections.enter()
        calls.reach(1)
        // Long enough for a wait that waits for nothing to be over.
        Thread.sleep(forTimeInterval: 0.02)
        calls.reach(2)
        calls.sections.leave(cell)
      } else {
        calls.wait(for: 1)
        calls.sections.waitForCalls()
        try demandSame(calls.step.load(ordering: .relaxed), 2, "step")
      }
    }
  }

  @Test func whatBelongsToACellIsOneCallsAtATime() throws {
    let calls = try Calls()
    let words = try Shared(calls)
    try onThreads(4) { index in
      for count in 0..<RunSettings.steps(20000) {
        let cell =
          index & 1 == 0
          ? calls.sections.enterAtOnce() ?? calls.sections.enter()
          : calls.sections.enter()
        words.increment(cell)
        calls.sections.leave(cell)
        if count % 512 == 0 { calls.sections.waitForCalls() }
      }
    }
    #expect(words.sum == UInt64(4 * RunSettings.steps(20000)))
  }
}

/// A number for each cell, that nothing else guards.
private final class Shared: @unchecked Sendable {
  private let words: CallWords

  init(_ calls: Calls) throws { words = try CallWords(for: calls.sections) }

  func increment(_ cell: Int) { words.of(cell).pointee += 1 }

  var sum: UInt64 { words.sum(0) }
}
