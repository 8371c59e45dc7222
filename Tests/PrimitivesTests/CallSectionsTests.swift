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

extension CallSections {
  fileprivate var all: StrideTo<Int> { stride(from: 0, to: end, by: Self.cellSize) }
}

@Suite("CallSections")
struct CallSectionsTests {
  @Test func aSectionThatCannotStartAtOnceIsLeftToTheCaller() throws {
    let sections = try CallSections()
    for cell in sections.all { sections.close(cell) }
    for _ in 0..<2 {
      let isEntered = sections.enterAtOnce() != nil
      #expect(!isEntered)
    }
    for cell in sections.all { sections.reopen(cell) }
    let cell = sections.enter()
    sections.leave(cell)
    // Where the kernel does not say which processor it is, none ever starts so.
    if let cell = sections.enterAtOnce() { sections.leave(cell) }
    sections.waitForCalls()
  }

  @Test func aWaitEndsWithTheSectionsThatItMet() throws {
    try demandWait(
      for: { $0.enter() }, until: { $0.leave($1) }, by: { $0.waitForCalls() })
  }

  @Test func whoComesToACellWaitsForTheSectionThatItMeets() throws {
    try demandWait(for: { $0.enter() }, until: { $0.leave($1) }) { sections in
      for cell in sections.all {
        sections.close(cell)
        sections.reopen(cell)
      }
    }
  }

  @Test func aWaitEndsWithTheVisitThatItMet() throws {
    try demandWait(
      for: { sections in
        sections.close(0)
        return 0
      }, until: { $0.reopen($1) }, by: { $0.waitForCalls() })
  }

  /// Demands that a wait ends no sooner than what begins before it on another thread.
  private func demandWait(
    for begin: @escaping @Sendable (borrowing CallSections) -> Int,
    until end: @escaping @Sendable (borrowing CallSections, Int) -> Void,
    by wait: @escaping @Sendable (borrowing CallSections) -> Void
  ) throws {
    let calls = try Calls()
    try onThreads(2) { index in
      if index == 0 {
        let cell = begin(calls.sections)
        calls.reach(1)
        // Long enough for a wait that waits for nothing to be over.
        Thread.sleep(forTimeInterval: 0.02)
        calls.reach(2)
        end(calls.sections, cell)
      } else {
        calls.wait(for: 1)
        wait(calls.sections)
        try demandSame(calls.step.load(ordering: .relaxed), 2, "step")
      }
    }
  }

  @Test func whatBelongsToACellIsOneCallsAtATime() throws {
    let calls = try Calls()
    let words = try Shared(calls)
    let steps = RunSettings.steps(200_000)
    // More threads than processors, so that they interrupt each other, wherever they are.
    try onThreads(4) { index in
      var visits: UInt64 = 0
      for step in 0..<steps {
        let cell =
          index & 1 == 0
          ? calls.sections.enterAtOnce() ?? calls.sections.enter()
          : calls.sections.enter()
        try words.use(cell, index)
        calls.sections.leave(cell)
        if step % 512 == 0 { calls.sections.waitForCalls() }
        guard index == 3, step % 8 == 0 else { continue }
        for cell in calls.sections.all {
          calls.sections.close(cell)
          try words.use(cell, index)
          calls.sections.reopen(cell)
          visits += 1
        }
      }
      words.visits.wrappingAdd(visits, ordering: .relaxed)
    }
    #expect(words.sum == UInt64(4 * steps) + words.visits.load(ordering: .relaxed))
  }
}

/// What belongs to cells, and nothing else guards.
private final class Shared: @unchecked Sendable {
  private let words: CallWords
  let visits = Atomic<UInt64>(0)

  init(_ calls: Calls) throws { words = try CallWords(for: calls.sections) }

  /// Counts, and looks whether anybody comes in between.
  func use(_ cell: Int, _ user: Int) throws {
    let line = words.of(cell)
    line[1] = UInt64(user)
    line[0] += 1
    try demandSame(line[1], UInt64(user), "who uses the cell")
  }

  var sum: UInt64 { words.sum(0) }
}
