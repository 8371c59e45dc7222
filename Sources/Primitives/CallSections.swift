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
  public let cellCount: Int
  // As in the caches of an IOVA space.
  private let processorOffset: Int
  private let likelyCellCount: UInt

  public init() throws(Failure) {
    // Those of more processors share cells.
    cellCount = max(1, min(64, Int(cplatform_cpu_count())))
    unsafe words = try RawMemory.allocate(cellCount * Self.cellSize, alignment: Self.cellSize)
    unsafe RawMemory.clear(words, size: cellCount * Self.cellSize)
    processorOffset = cplatform_cpu_offset()
    likelyCellCount = processorOffset == 0 ? 0 : UInt(bitPattern: cellCount)
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
    let cpu = UInt(UInt32(bitPattern: cplatform_likely_cpu(processorOffset)))
    let cell = cpu < likelyCellCount ? Int(bitPattern: cpu) : askForCell()
    // It has no place in the order of locks: nobody holds another one who takes this.
    _ = lock(cell).takeAnother()
    ThreadRules.didEnter()
    return cell
  }

  /// Starts a section in a cell that need not be the processor's.
  public func enter(at cell: Int) {
    _ = lock(cell).takeAnother()
    ThreadRules.didEnter()
  }

  @inline(never)
  private func askForCell() -> Int {
    let cpu = Int(cplatform_current_cpu())
    // No number, or one of a processor that was added: any cell will do.
    return cpu < 0 ? 0 : cpu % cellCount
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
