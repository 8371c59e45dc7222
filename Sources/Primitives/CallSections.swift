// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

// Theory of operation: call sections.
//
// 1. Concepts
// A call of a few steps that may not be in the middle of them while something changes brackets them by `enter`
// and `leave`. Each processor has a cell, which a call has for itself meanwhile, with what else belongs to the
// cell: so calls on different processors write to no common line of the cache. Who changes something first
// keeps calls from starting, or from finding it, and then waits for those that have begun.
//
// 2. Implementation
// A cell has two words: whether it is taken, and a gate.
// 2.1 A call takes the cell of the processor that it is on, by a sequence that the kernel restarts when another
// thread comes in between (cplatform_take_cell); then it looks at the gate, and leaves again if that is shut.
// Neither costs a locked instruction. Others first shut the gate, then have a barrier done on all processors,
// and then look at the word: either they see a call, or the call has seen the gate. Likewise `waitForCalls`,
// whose callers have changed something that calls see.
// 2.2 A thread that the kernel tells no processor, or one that has no cell, takes the cell behind those, by an
// exchange. Where the kernel lacks such sequences or that barrier, all cells are taken so, and nobody looks at
// a gate.
//
// 3. Locking
// As in a read section, nothing is waited for inside, nor allocated or called back; locks may be taken. No call
// holds a lock when it starts a section. Who closes a cell may hold one that calls do not take.
//
// References: Desnoyers and others, rseq(2) and membarrier(2), have the sequences and the barrier.

/// Brackets for calls that take a few steps, and the wait for all that are under way.
@safe
public struct CallSections: ~Copyable, @unchecked Sendable {
  /// A cell is where it starts, in bytes: the first is 0.
  public static var cellSize: Int { Int(CPLATFORM_CELL_SIZE) }

  private let words: UnsafeMutableRawPointer
  private let processors = ProcessorCells(most: 256)
  // How many cells are taken by restartable sequences, which are the first.
  private let restartable: UInt32
  /// What those keep a copy of who come to calls before they come here.
  public let entrance: CallEntrance
  private let placed = Placed()

  /// Where the last cell ends.
  public let end: Int

  public init() throws(Failure) {
    end = (processors.count + 1) * Self.cellSize
    unsafe words = try RawMemory.allocateCleared(end, alignment: Self.cellSize)
    let isRestartable = processors.areTold && cplatform_prepare_barrier()
    restartable = isRestartable ? UInt32(truncatingIfNeeded: processors.count) : 0
    unsafe entrance = CallEntrance(
      words: words, restartable: restartable, processorOffset: processors.processorOffset)
  }

  deinit { unsafe RawMemory.free(words) }

  private func lock(_ cell: Int) -> BriefLock { entrance.lock(cell) }

  private func gate(_ cell: Int) -> BriefLock { entrance.gate(cell) }

  // MARK: - Calls

  /// Starts a section and returns its cell. The caller leaves on the same path, whatever happens.
  @inline(never)
  public func enter() -> Int {
    var backoff = Backoff()
    while restartable > 0, processors.likely != nil {
      if let cell = enterAtOnce() { return cell }
      backoff.rest()
    }
    let cell = (restartable > 0 ? processors.count : processors.asked) &* Self.cellSize
    _ = lock(cell).takeAnother()
    ThreadRules.didEnter()
    return cell
  }

  /// As `enter`, if nobody has to be waited for or asked.
  @inline(__always)
  public func enterAtOnce() -> Int? { entrance.enterAtOnce() }

  @inline(__always)
  public func leave(_ cell: Int) { entrance.leave(cell) }

  // MARK: - Others

  private func isRestartable(_ cell: Int) -> Bool { cell < Int(restartable) &* Self.cellSize }

  /// Keeps calls out of a cell until `reopen`, and waits for the one that is in it. In between all is as in a section.
  @inline(never)
  public func close(_ cell: Int) {
    ThreadRules.didEnter()
    guard isRestartable(cell) else {
      _ = lock(cell).takeAnother()
      return
    }
    _ = gate(cell).takeAnother()
    cplatform_barrier()
    waitWhileTaken(lock(cell))
  }

  @inline(never)
  public func reopen(_ cell: Int) {
    (isRestartable(cell) ? gate(cell) : lock(cell)).putBackAnother(0)
    ThreadRules.didLeave()
  }

  /// Returns when every section that was open at the call has ended.
  @inline(never)
  public func waitForCalls() {
    if restartable > 0 { cplatform_barrier() }
    var cell = 0
    while cell < end {
      if isRestartable(cell) {
        waitWhileTaken(lock(cell))
        waitWhileTaken(gate(cell))
      } else {
        close(cell)
        reopen(cell)
      }
      cell &+= Self.cellSize
    }
  }

  // Between two sections a word is 0 for some time, so sooner or later this comes upon such a moment.
  @inline(never)
  private func waitWhileTaken(_ lock: BriefLock) {
    var backoff = Backoff()
    while lock.isTaken { backoff.rest() }
  }
}

/// What a call needs to begin and end a section, while the sections are there. Of this there may be copies, where calls
/// come first: they are the shorter for each address that they need not load.
@safe
public struct CallEntrance {
  private let words: UnsafeMutableRawPointer
  private let restartable: UInt32
  private let processorOffset: Int

  fileprivate init(words: UnsafeMutableRawPointer, restartable: UInt32, processorOffset: Int) {
    unsafe self.words = words
    self.restartable = restartable
    self.processorOffset = processorOffset
  }

  @inline(__always)
  fileprivate func lock(_ cell: Int) -> BriefLock { lock(word: 0, of: cell) }

  @inline(__always)
  fileprivate func gate(_ cell: Int) -> BriefLock { lock(word: 1, of: cell) }

  @inline(__always)
  private func lock(word: Int, of cell: Int) -> BriefLock {
    // SAFETY: each cell starts with two words that were cleared.
    let words = unsafe (words + cell).assumingMemoryBound(to: UInt64.self)
    // It has no place in the order of locks.
    return unsafe BriefLock(words + word, .readSections)
  }

  /// See `CallSections.enterAtOnce`.
  @inline(__always)
  public func enterAtOnce() -> Int? {
    let cell = unsafe Int(cplatform_take_cell(words, restartable, processorOffset))
    guard cell >= 0 else { return nil }
    ThreadRules.didEnter()
    guard !gate(cell).isTaken else {
      leave(cell)
      return nil
    }
    return cell
  }

  @inline(__always)
  public func leave(_ cell: Int) {
    lock(cell).putBackAnother(0)
    ThreadRules.didLeave()
  }
}

/// A few words of a thing's own for each cell of the system's calls: those of the call that is in the cell.
/// Others may read them.
@safe
public struct CallWords: ~Copyable {
  public static var count: Int { CallSections.cellSize / 8 }

  private let words: UnsafeMutableRawPointer
  /// Where the last cell ends.
  public let end: Int

  /// Words of 0.
  ///
  /// - Parameter lines: how many cells' words there are for each cell; those of the first line come first.
  @inline(never)
  public init(for calls: borrowing CallSections, lines: Int = 1) throws(Failure) {
    end = lines * calls.end
    unsafe words = try RawMemory.allocateCleared(end, alignment: CallSections.cellSize)
  }

  @inline(never)
  deinit { unsafe RawMemory.free(words) }

  /// The words of a cell.
  @inline(__always)
  public func of(_ cell: Int) -> UnsafeMutablePointer<UInt64> {
    // SAFETY: so many words lie there for each cell, and were cleared.
    unsafe (words + cell).assumingMemoryBound(to: UInt64.self)
  }

  /// Adds to one of the words of a cell, by the call that is in it: nobody else writes to it.
  @inline(__always)
  public static func add(_ number: UInt64, to word: UnsafeMutablePointer<UInt64>) {
    unsafe cplatform_store_release(word, cplatform_load_relaxed(word) &+ number)
  }

  /// What one of the words is in all cells together. One that changes meanwhile may be as before or after.
  public func sum(_ word: Int) -> UInt64 { sum(word, from: 0, to: end) }

  @inline(never)
  func sum(_ word: Int, from start: Int, to end: Int) -> UInt64 {
    var (sum, cell) = (UInt64(0), start)
    while cell < end {
      unsafe sum &+= cplatform_load_acquire(of(cell) + word)
      cell &+= CallSections.cellSize
    }
    return sum
  }
}
