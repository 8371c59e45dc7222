// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform
import Foundation
import Synchronization
import TestSupport
import Testing

/// Cells that a thread and a handler of signals, which interrupts it, take from each other.
private enum Contended {
  static let count = Int(cplatform_cpu_count())
  static let offset = cplatform_cpu_offset()
  nonisolated(unsafe) static let words = UnsafeMutablePointer<UInt64>.allocate(
    capacity: count * wordsInCell)
  static var wordsInCell: Int { Int(CPLATFORM_CELL_SIZE) / 8 }
  /// The cell that the handler has taken, or -1.
  static let held = Atomic<Int64>(-1)
  static let taken = Atomic<Int>(0)
  static let handled = Atomic<Int>(0)

  static func take() -> Int64 { cplatform_take_cell(words, UInt32(count), offset) }

  static func putBack(_ cell: Int64) {
    cplatform_store_release(words + Int(cell) / 8, 0)
  }

  /// Where the kernel tells no processor, there is nothing to be taken.
  static var isAvailable: Bool { offset != 0 && cplatform_likely_cpu(offset) >= 0 }
}

@Suite("cplatform_take_cell", .enabled(if: Contended.isAvailable))
struct TakeCellTests {
  @Test func aCellThatIsTakenIsNotTakenAgain() throws {
    let words = UnsafeMutablePointer<UInt64>.allocate(
      capacity: Contended.count * Contended.wordsInCell)
    defer { words.deallocate() }
    words.initialize(repeating: 1, count: Contended.count * Contended.wordsInCell)
    #expect(cplatform_take_cell(words, UInt32(Contended.count), Contended.offset) == -1)
    words.update(repeating: 0, count: Contended.count * Contended.wordsInCell)
    let cell = cplatform_take_cell(words, UInt32(Contended.count), Contended.offset)
    for number in 0..<Contended.count * Contended.wordsInCell {
      let isTaken = number == Int(cell) / 8
      #expect(words[number] == (isTaken ? 1 : 0))
    }
  }

  @Test func ofNoCellsNoneIsTaken() {
    #expect(cplatform_take_cell(Contended.words, 0, 0) == -1)
  }

  @Test func aSequenceThatIsInterruptedStartsAgain() throws {
    Contended.words.initialize(
      repeating: 0, count: Contended.count * Contended.wordsInCell)
    signal(SIGUSR1) { _ in
      defer { Contended.handled.wrappingAdd(1, ordering: .releasing) }
      guard Contended.held.load(ordering: .relaxed) < 0 else { return }
      let cell = Contended.take()
      Contended.held.store(cell, ordering: .relaxed)
      if cell >= 0 { Contended.taken.wrappingAdd(1, ordering: .relaxed) }
    }
    defer { signal(SIGUSR1, SIG_DFL) }
    let target = Target()
    let steps = RunSettings.steps(2000)
    try onThreads(2) { index in
      guard index == 0 else {
        target.signalUntilItIsOver()
        return
      }
      target.begin()
      defer { target.end() }
      while Contended.taken.load(ordering: .relaxed) < steps {
        let cell = Contended.take()
        let held = Contended.held.load(ordering: .relaxed)
        // The handler has come either before, and the cell is taken, or later, and takes nothing.
        if cell >= 0 {
          try demandSame(held == cell, false, "both have the cell")
          Contended.putBack(cell)
        }
        if held >= 0 {
          Contended.putBack(held)
          Contended.held.store(-1, ordering: .relaxed)
        }
      }
    }
  }
}

/// A thread that gets signals from another one.
private final class Target: @unchecked Sendable {
  private var thread = pthread_t()
  private let state = Atomic<Int>(0)

  func begin() {
    // A thread inherits what its maker does not want to be interrupted by.
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGUSR1)
    pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    thread = pthread_self()
    state.store(1, ordering: .releasing)
  }

  func end() { state.store(2, ordering: .releasing) }

  func signalUntilItIsOver() {
    while state.load(ordering: .acquiring) < 1 { sched_yield() }
    var rest = 0
    while state.load(ordering: .acquiring) < 2 {
      let handled = Contended.handled.load(ordering: .acquiring)
      pthread_kill(thread, SIGUSR1)
      while Contended.handled.load(ordering: .acquiring) == handled,
        state.load(ordering: .acquiring) < 2
      { sched_yield() }
      // The thread gets on for a while, a different one each time.
      rest = (rest + 7) % 64
      for _ in 0..<rest { cplatform_pause() }
    }
  }
}
