// SPDX-License-Identifier: MIT OR Apache-2.0

/// A state that is reached under its lock only.
///
/// Both lie in one piece of memory: neither may move once threads know them, and a Swift value may; and who
/// takes the lock has the state's first line in its cache.
@safe
public struct Guarded<State: ~Copyable>: ~Copyable, @unchecked Sendable {
  private let memory: UnsafeMutableRawPointer
  private let rank: LockRank

  // Behind the lock's word.
  private static var stateOffset: Int { 16 }

  public init(
    _ rank: LockRank, _ make: () throws(Failure) -> State
  ) throws(Failure) {
    assert(MemoryLayout<State>.alignment <= Self.stateOffset)
    // Whole lines of the cache, which are shared with nothing.
    let size = (Self.stateOffset + MemoryLayout<State>.size + 63) & ~63
    let memory = unsafe try RawMemory.allocate(size, alignment: 64)
    do throws(Failure) {
      let state = try make()
      // SAFETY: the allocation has room for a word, and behind it for the state.
      unsafe memory.bindMemory(to: UInt64.self, capacity: 1).initialize(to: 0)
      // SAFETY: as above.
      unsafe (memory + Self.stateOffset).bindMemory(to: State.self, capacity: 1)
        .initialize(to: state)
    } catch {
      unsafe RawMemory.free(memory)
      throw error
    }
    unsafe self.memory = memory
    self.rank = rank
  }

  // Many values end with one, and in many places: wherever making one fails, too.
  @inline(never)
  deinit {
    unsafe state.deinitialize(count: 1)
    unsafe RawMemory.free(memory)
  }

  private var lock: BriefLock {
    // SAFETY: the initializer put the word there.
    unsafe BriefLock(memory.assumingMemoryBound(to: UInt64.self), rank)
  }

  private var state: UnsafeMutablePointer<State> {
    // SAFETY: the initializer put the state there.
    unsafe (memory + Self.stateOffset).assumingMemoryBound(to: State.self)
  }

  /// The result of `body`, which has the state to itself.
  ///
  /// `body` may not allocate memory, call back into C, or take a lock of a lower rank.
  public func withLock<Result>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    lock.lockApart()
    defer { lock.unlock() }
    return try unsafe body(&state.pointee)
  }

  public func withLock<Result>(_ body: (inout State) -> Result) -> Result {
    lock.lockApart()
    defer { lock.unlock() }
    return unsafe body(&state.pointee)
  }
}
