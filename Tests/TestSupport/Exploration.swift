// SPDX-License-Identifier: MIT OR Apache-2.0

// Theory of operation: exploration.
//
// 1. Concepts
// A world holds a part of the library and a naive twin of it. A step does the same to both and
// throws when they differ. A step is a value that means something in every state of the world ("free
// the third live range, counted around"), so that a run from which steps were taken out is a run as
// well.
//
// 2. Implementation
// A run makes its steps from a seed. When one fails, the steps up to it are replayed with fewer and
// fewer of them for as long as they still fail; what is left is replayed once more with a log. The
// error has the seed, the message, and the log as calls of C.
//
// 3. What this does not do
// It does not find the shortest run. It takes out halves, quarters and so on down to single steps,
// and stops when none can go, or when it has taken `shorteningTime`.

/// A part of the library beside its naive twin.
public protocol World {
  associatedtype Step

  /// Makes a step in both and compares what it gives.
  func take(_ step: Step, _ log: inout StepLog) throws

  /// Compares all that there is to compare. Called now and then, and at the end.
  func compare() throws

  /// Ends the library's part and looks for what it left behind. Nothing is called afterwards.
  func end() throws
}

/// A failed run.
public struct Counterexample: Error, CustomStringConvertible {
  public let seed: UInt64
  public let message: String
  public let stepCount: Int
  public let program: String

  public var description: String {
    "\(message), after \(stepCount) steps (DMACORE_SEED=\(hex(seed))):\n\(program)"
  }
}

/// Takes random steps in a world.
///
/// - Parameter name: of the run, for the line that it prints.
/// - Throws: `Counterexample`.
public func explore<W: World>(
  _ name: String, steps count: Int, seed: UInt64 = RunSettings.seed,
  in makeWorld: () throws -> W, by makeStep: (inout SeededGenerator) -> W.Step
) throws {
  print("\(name): \(count) steps, DMACORE_SEED=\(hex(seed))")
  var generator = SeededGenerator(seed: seed)
  let steps = (0..<count).map { _ in makeStep(&generator) }
  var silent = StepLog(isKept: false)
  guard let first = failure(of: steps, in: makeWorld, comparingEach: 64, &silent) else { return }
  let shortened = shorten(Array(steps.prefix(first.stepCount))) { candidate in
    failure(of: candidate, in: makeWorld, comparingEach: 1, &silent) != nil
  }
  var log = StepLog(isKept: true)
  let last = failure(of: shortened, in: makeWorld, comparingEach: 1, &log) ?? first
  throw Counterexample(
    seed: seed, message: last.message, stepCount: last.stepCount, program: log.program)
}

/// Takes the same steps in a world of its own, and throws what fails.
public func follow<W: World>(_ steps: [W.Step], in makeWorld: () throws -> W) throws {
  var silent = StepLog(isKept: false)
  guard failure(of: steps, in: makeWorld, comparingEach: 1, &silent) != nil else { return }
  var log = StepLog(isKept: true)
  let last = failure(of: steps, in: makeWorld, comparingEach: 1, &log)
  throw Divergence("\(last?.message ?? "it fails only once"):\n\(log.program)")
}

private struct RunFailure {
  let message: String
  let stepCount: Int
}

/// What goes wrong when these steps are taken in a world made for them, if anything does.
private func failure<W: World>(
  of steps: [W.Step], in makeWorld: () throws -> W, comparingEach interval: Int,
  _ log: inout StepLog
) -> RunFailure? {
  var taken = 0
  do {
    let world = try makeWorld()
    for step in steps {
      taken += 1
      try world.take(step, &log)
      if taken % interval == 0 { try world.compare() }
    }
    try world.compare()
    try world.end()
    return nil
  } catch {
    return RunFailure(message: "\(error)", stepCount: taken)
  }
}

/// The same steps without those that can go while `fails` stays true.
func shorten<Step>(_ steps: [Step], while fails: ([Step]) -> Bool) -> [Step] {
  let shorteningTime = Duration.seconds(20)
  let start = ContinuousClock.now
  var isLate: Bool { start.duration(to: .now) > shorteningTime }
  var steps = steps
  var chunk = max(1, steps.count / 2)
  while true {
    var place = 0
    var hasChanged = false
    while place < steps.count, !isLate {
      var candidate = steps
      candidate.removeSubrange(place..<min(place + chunk, steps.count))
      if fails(candidate) {
        steps = candidate
        hasChanged = true
      } else {
        place += chunk
      }
    }
    if isLate || (chunk == 1 && !hasChanged) { return steps }
    if !hasChanged || chunk > steps.count { chunk = max(1, chunk / 2) }
  }
}
