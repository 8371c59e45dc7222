// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// A lock at the start of some memory: a word, or a mutex where it may be held long.
@safe
private struct LockPlace {
  // Room for either, and for the rank behind it, in a line of the cache. A mutex of glibc has 40 bytes on
  // x86-64, and 48 on others.
  static var size: Int { 64 }
  private static var rankOffset: Int { 48 }

  let memory: UnsafeMutableRawPointer

  private var rank: LockRank {
    // SAFETY: whoever has the memory called `start`, which put the rank there.
    unsafe (memory + Self.rankOffset).assumingMemoryBound(to: LockRank.self).pointee
  }

  private var word: BriefLock {
    // SAFETY: as above; of a lock that is no mutex this is the word.
    unsafe BriefLock(memory.assumingMemoryBound(to: UInt64.self), rank)
  }

  func start(_ rank: LockRank) {
    assert(cplatform_mutex_size() <= Self.rankOffset)
    // SAFETY: there is room for both, and nothing else is there.
    unsafe (memory + Self.rankOffset).bindMemory(to: LockRank.self, capacity: 1)
      .initialize(to: rank)
    if rank.isHeldLong {
      unsafe cplatform_mutex_init(memory)
    } else {
      // SAFETY: as above.
      unsafe memory.bindMemory(to: UInt64.self, capacity: 1).initialize(to: 0)
    }
  }

  func end() {
    if rank.isHeldLong { unsafe cplatform_mutex_destroy(memory) }
    unsafe RawMemory.free(memory)
  }

  // Once in the library: what they guard takes longer than a call.

  @inline(never)
  func lock() {
    guard rank.isHeldLong else { return word.lock() }
    ThreadRules.willLock(rank)
    unsafe cplatform_mutex_lock(memory)
  }

  @inline(never)
  func unlock() {
    guard rank.isHeldLong else { return word.unlock() }
    unsafe cplatform_mutex_unlock(memory)
    ThreadRules.didUnlock(rank)
  }
}

/// A state that is reached under its lock only.
///
/// Both lie in one piece of memory: neither may move once threads know them, and a Swift value may.
@safe
public struct Guarded<State: ~Copyable>: ~Copyable, @unchecked Sendable {
  private let lock: LockPlace

  public init(
    _ rank: LockRank, _ make: () throws(Failure) -> State
  ) throws(Failure) {
    // Whole lines of the cache, which are shared with nothing.
    let size = (LockPlace.size + MemoryLayout<State>.size + 63) & ~63
    let memory = unsafe try RawMemory.allocate(size, alignment: 64)
    do throws(Failure) {
      let state = try make()
      // SAFETY: the allocation has room for a lock, and behind it for the state.
      unsafe (memory + LockPlace.size).bindMemory(to: State.self, capacity: 1)
        .initialize(to: state)
    } catch {
      unsafe RawMemory.free(memory)
      throw error
    }
    unsafe lock = LockPlace(memory: memory)
    lock.start(rank)
  }

  // Many values end with one, and in many places: wherever making one fails, too.
  @inline(never)
  deinit {
    unsafe state.deinitialize(count: 1)
    lock.end()
  }

  private var state: UnsafeMutablePointer<State> {
    // SAFETY: the initializer put the state there.
    unsafe (lock.memory + LockPlace.size).assumingMemoryBound(to: State.self)
  }

  /// The result of `body`, which has the state to itself.
  ///
  /// `body` may not allocate memory, call back into C, or take a lock of a lower rank.
  public func withLock<Result>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    lock.lock()
    defer { lock.unlock() }
    return try unsafe body(&state.pointee)
  }

  public func withLock<Result>(_ body: (inout State) -> Result) -> Result {
    lock.lock()
    defer { lock.unlock() }
    return unsafe body(&state.pointee)
  }
}
