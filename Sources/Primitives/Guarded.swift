// SPDX-License-Identifier: MIT OR Apache-2.0

/// A state that is reached under its lock only.
@safe
public struct Guarded<State: ~Copyable>: ~Copyable, @unchecked Sendable {
  private let lock: Lock
  private let state: UnsafeMutablePointer<State>

  public init(
    _ rank: LockRank, _ make: () throws(Failure) -> State
  ) throws(Failure) {
    let lock = try Lock(rank)
    let state = unsafe try Box<State>.place(make)
    self.lock = lock
    unsafe self.state = state
  }

  // As that of a lock.
  @inline(never)
  deinit { unsafe Box.destroy(state) }

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
