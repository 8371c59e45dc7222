// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// Mutual exclusion between threads.
///
/// The mutex lies in a heap cell of its own: it may not move once threads know it, and a Swift
/// value may.
@safe
public struct Lock: ~Copyable, @unchecked Sendable {
  private let mutex: UnsafeMutableRawPointer

  public init() throws(Failure) {
    // 64 bytes: a lock shares its cache line with nothing.
    let size = cplatform_mutex_size()
    guard let mutex = unsafe cplatform_allocate((size + 63) & ~63, 64) else { throw .noMemory }
    unsafe cplatform_mutex_init(mutex)
    unsafe self.mutex = mutex
  }

  deinit {
    unsafe cplatform_mutex_destroy(mutex)
    unsafe cplatform_free(mutex)
  }

  public func lock() { unsafe cplatform_mutex_lock(mutex) }

  public func unlock() { unsafe cplatform_mutex_unlock(mutex) }
}
