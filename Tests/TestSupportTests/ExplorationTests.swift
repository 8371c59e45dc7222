// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

@testable import TestSupport

/// A counter whose library half forgets to count the third addition of seven, and that cannot end
/// at thirteen.
private final class ForgetfulWorld: World {
  private var library = 0
  private var model = 0
  private var sevens = 0

  func take(_ step: Int, _ log: inout StepLog) throws {
    sevens += step == 7 ? 1 : 0
    model += step
    library += step == 7 && sevens == 3 ? 0 : step
    log.note("add(\(step))", gives: 0)
  }

  func compare() throws { try demandSame(library, model, "sum") }

  func end() throws { try demand(model != 13, "it ends at thirteen") }
}

@Suite("explore")
struct ExplorationTests {
  @Test func aFailingRunIsShortenedToWhatItNeeds() {
    let error = #expect(throws: Counterexample.self) {
      try explore("forgetful", steps: 1000, seed: 5) {
        ForgetfulWorld()
      } by: { generator in
        generator.below(10)
      }
    }
    #expect(error?.stepCount == 3)
    #expect(error?.program == "\tassert_ok(add(7));\n\tassert_ok(add(7));\n\tassert_ok(add(7));\n")
    #expect(error?.description.contains("DMACORE_SEED=0x5") == true)
  }

  @Test func aRunThatHoldsThrowsNothing() throws {
    try explore("forgetful", steps: 1000, seed: 5) {
      ForgetfulWorld()
    } by: { generator in
      generator.below(7)
    }
  }

  @Test func aFollowedRunTellsItsSteps() throws {
    try follow([1, 7, 7, 2]) { ForgetfulWorld() }
    let error = #expect(throws: Divergence.self) {
      try follow([7, 7, 1, 7]) { ForgetfulWorld() }
    }
    #expect(error?.description.contains("assert_ok(add(1));") == true)
  }

  @Test func theEndOfAWorldBelongsToItsRun() {
    let error = #expect(throws: Divergence.self) {
      try follow([6, 7]) { ForgetfulWorld() }
    }
    #expect(error?.description.contains("it ends at thirteen") == true)
  }

  @Test func shorteningKeepsTheStepsThatMatter() {
    let steps = Array(0..<257)
    let short = shorten(steps) { $0.contains(13) && $0.contains(200) }
    #expect(short == [13, 200])
  }

  @Test func aLogNamesTheErrorsThatCNames() {
    var log = StepLog(isKept: true)
    log.note("call()", gives: -28)
    log.note("line;")
    #expect(log.program == "\tassert_fails(call(), ENOSPC);\n\tline;\n")
    var silent = StepLog(isKept: false)
    silent.note("call()", gives: 0)
    #expect(silent.program.isEmpty)
  }
}
