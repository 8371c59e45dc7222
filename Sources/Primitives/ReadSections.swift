// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

// Theory of operation: read sections.
//
// 1. Concepts
// Readers walk structures that writers change under them: page tables, the memory map, a device's
// attachment. A reader takes no lock; it brackets its walk by `enter` and `leave`. A writer first
// unlinks a thing, so that no reader that starts later can find it, and then calls
// `waitForReaders`, which returns when every reader that was inside has left. After that nobody
// can hold what was unlinked, and it may be freed.
//
// 2. Implementation
// Cells of two counters each, one cell a processor to keep readers off each other's cache lines.
// A reader adds one to the counter of the current phase in the cell of the processor it runs on,
// and subtracts it from that same counter when it leaves, wherever it runs by then.
// 2.1 Nobody inside. When a writer finds all counters zero after a full fence, it is done: a reader
// that it did not see has yet to make its increment visible, which is a full fence as well, so
// that reader's walk starts after the unlinking. This costs no lock and a few loads.
// 2.2 Somebody inside. Waiting for all counters to be zero at once could last forever under a
// stream of readers. So writers, one at a time, turn the phase: new readers count in the other
// column, and the old one drains. A reader that read the phase before it was turned may still
// increment the old column afterwards; it is safe by 2.1, and the next writer must not take the
// column for drained too early: that is why each turn first waits for the column that it is about
// to turn to. A section is short (no callback, no system call, at most one bounded copy), so the
// waiting writer pauses and yields the processor at first, and sleeps when that does not help.
//
// 3. Locking
// `enter` and `leave` take no lock and never wait. `waitForReaders` may wait for readers, so it is
// called inside no read section and under no lock that a reader takes.
//
// 4. What this does not do
// It orders nothing between readers and the data they copy. A reader that copies from memory which
// is not there waits for the kernel to bring it, and writers wait with it: whoever serves such page
// faults (userfaultfd) may not wait for readers meanwhile.
//
// References: McKenney, "Sleepable read-copy update", LWN 2006, has the two-column scheme.

/// Brackets for walks that take no lock, and the wait for all that are under way.
@safe
public struct ReadSections: ~Copyable, @unchecked Sendable {
  // Each cell fills one cache line: 8 words, of which the first two are the counters.
  private static var cellWords: Int { 8 }

  private let words: UnsafeMutablePointer<UInt64>
  private let cellCount: Int
  private let phase: UnsafeMutablePointer<UInt64>
  private let turning: Lock
  private let placed = Placed()

  /// Proof of being inside, to leave by.
  @safe
  public struct Token {
    fileprivate let counter: UnsafeMutablePointer<UInt64>
  }

  public init() throws(Failure) {
    let turning = try Lock(.readSections)
    // More cells than 64 cost a writer more loads than they save readers collisions.
    let count = max(1, min(64, Int(cplatform_cpu_count())))
    let size = (count + 1) * Self.cellWords * MemoryLayout<UInt64>.stride
    let raw = unsafe try RawMemory.allocateCleared(size, alignment: 64)
    // SAFETY: the allocation is `(count + 1) * cellWords` words long, and was cleared.
    unsafe words = raw.bindMemory(to: UInt64.self, capacity: (count + 1) * Self.cellWords)
    cellCount = count
    unsafe self.phase = words + count * Self.cellWords
    self.turning = turning
  }

  deinit { unsafe RawMemory.free(words) }

  /// Starts a section. The caller leaves by the token on the same path, whatever happens.
  @inline(never)
  public func enter() -> Token {
    let cpu = Int(cplatform_current_cpu())
    // No processor number (an old kernel, a sandbox) counts as processor 0.
    let cell = cpu < 0 ? 0 : (cpu < cellCount ? cpu : cpu % cellCount)
    let column = unsafe Int(truncatingIfNeeded: cplatform_load_relaxed(phase) & 1)
    let counter = unsafe words + (cell &* Self.cellWords &+ column)
    // Fenced: pairs with the fence in waitForReaders, so that either the writer sees this reader or
    // this reader sees what the writer has unlinked.
    unsafe cplatform_add_fenced(counter, 1)
    ThreadRules.didEnter()
    return unsafe Token(counter: counter)
  }

  public func leave(_ token: Token) {
    // Release: pairs with the ordered load in isDrained, so that the walk ends before the wait.
    unsafe cplatform_subtract_release(token.counter, 1)
    ThreadRules.didLeave()
  }

  /// Whether no section is open that began before a fence of the caller's, as `waitForReaders` looks at it
  /// first.
  @inline(__always)
  public var areNone: Bool {
    var counters = unsafe words
    while unsafe counters < phase {
      // Ordered: as in isDrained.
      guard unsafe cplatform_load_ordered(counters) | cplatform_load_ordered(counters + 1) == 0
      else { return false }
      unsafe counters += Self.cellWords
    }
    return true
  }

  /// Returns when every section that was open at the call has ended.
  public func waitForReaders() {
    ThreadRules.willWaitForReaders()
    cplatform_fence()
    if areNone { return }
    turning.lock()
    let column = unsafe Int(truncatingIfNeeded: cplatform_load_relaxed(phase) & 1)
    drain(column: 1 - column)
    unsafe cplatform_store_release(phase, UInt64(1 - column))
    cplatform_fence()
    drain(column: column)
    turning.unlock()
  }

  @inline(never)
  private func drain(column: Int) {
    var backoff = Backoff()
    while !isDrained(column: column) { backoff.rest() }
  }

  private func isDrained(column: Int) -> Bool {
    var counter = unsafe words + column
    while unsafe counter < phase {
      // A counter is never below zero, because a reader leaves by the counter it entered by; so no
      // reader hides another one, and the counters can be looked at in turn.
      guard unsafe cplatform_load_ordered(counter) == 0 else { return false }
      unsafe counter += Self.cellWords
    }
    return true
  }
}
