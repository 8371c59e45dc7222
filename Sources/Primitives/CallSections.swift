// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// Brackets for calls that take a few steps and may not be in the middle of them while something changes.
///
/// A cell for each processor has a word that a call locks: so calls on different processors write to no
/// common line of the cache, and what else belongs to a cell is the call's alone meanwhile. Who changes
/// something first keeps calls from starting, or from finding it, and then waits for those that have
/// begun: `waitForCalls` takes each word once.
///
/// As in a read section, nothing is waited for inside, nor allocated or called back; locks may be taken.
@safe
public struct CallSections: ~Copyable, @unchecked Sendable {
  // Two lines of the cache: a processor that reads one fetches its neighbour too.
  private static var cellSize: Int { 128 }

  private let words: UnsafeMutableRawPointer
  private let cells = ProcessorCells(most: 64)

  public var cellCount: Int { cells.count }

  public init() throws(Failure) {
    let size = cells.count * Self.cellSize
    unsafe words = try RawMemory.allocate(size, alignment: Self.cellSize)
    unsafe RawMemory.clear(words, size: size)
  }

  deinit { unsafe RawMemory.free(words) }

  @inline(__always)
  private func lock(_ cell: Int) -> BriefLock {
    // SAFETY: each cell starts with a word that was cleared.
    let word = unsafe (words + cell &* Self.cellSize).assumingMemoryBound(to: UInt64.self)
    return unsafe BriefLock(word, .readSections)
  }

  /// Starts a section and returns its cell. The caller leaves on the same path, whatever happens.
  @inline(__always)
  public func enter() -> Int {
    let cell = cells.current
    // It has no place in the order of locks: nobody holds another one who takes this.
    _ = lock(cell).takeAnother()
    ThreadRules.didEnter()
    return cell
  }

  /// As `enter`, if nobody has to be waited for or asked.
  @inline(__always)
  public func enterAtOnce() -> Int? {
    guard let cell = cells.likely, lock(cell).tryTakeAnother() else { return nil }
    ThreadRules.didEnter()
    return cell
  }

  /// Starts a section in a cell that need not be the processor's.
  public func enter(at cell: Int) {
    _ = lock(cell).takeAnother()
    ThreadRules.didEnter()
  }

  @inline(__always)
  public func leave(_ cell: Int) {
    lock(cell).putBackAnother(0)
    ThreadRules.didLeave()
  }

  /// Returns when every section that was open at the call has ended.
  @inline(never)
  public func waitForCalls() {
    for cell in 0..<cellCount {
      _ = lock(cell).takeAnother()
      lock(cell).putBackAnother(0)
    }
  }
}

/// A few words of a thing's own for each cell of the system's calls: those of the call that is in the cell.
/// Others may read them.
@safe
public struct CallWords: ~Copyable {
  // Two lines of the cache: a processor that reads one fetches its neighbour too.
  public static var count: Int { 16 }

  private let words: UnsafeMutablePointer<UInt64>
  public let cellCount: Int

  /// Words of 0.
  @inline(never)
  public init(for calls: borrowing CallSections) throws(Failure) {
    cellCount = calls.cellCount
    let size = cellCount * Self.count * MemoryLayout<UInt64>.stride
    let raw = unsafe try RawMemory.allocate(size, alignment: 128)
    unsafe RawMemory.clear(raw, size: size)
    // SAFETY: the allocation has so many words for each cell, and was cleared.
    unsafe words = raw.bindMemory(to: UInt64.self, capacity: cellCount * Self.count)
  }

  @inline(never)
  deinit { unsafe RawMemory.free(words) }

  /// The words of a cell.
  @inline(__always)
  public func of(_ cell: Int) -> UnsafeMutablePointer<UInt64> { unsafe words + cell &* Self.count }

  /// What one of the words is in all cells together. One that changes meanwhile may be as before or after.
  @inline(never)
  public func sum(_ word: Int) -> UInt64 {
    var sum: UInt64 = 0
    for cell in 0..<cellCount { unsafe sum &+= cplatform_load_acquire(of(cell) + word) }
    return sum
  }
}
