// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// The place of a lock in the order in which locks are taken: a lock is taken only while every lock
/// that the thread holds has a lower rank. ARCHITECTURE.md has the table.
public enum LockRank: UInt32, Sendable {
  case readSections = 1
  case memoryMap = 2
  case group = 3
  case deviceMappings = 4
  case pins = 5
  case lazyDomains = 6
  case flushQueue = 7
  case iovaCache = 8
  case iovaStore = 9
  case faultRing = 10
  case bindings = 11
  case topology = 12
  case notifiers = 13
  case windows = 14
  case bounceArea = 15
  case peers = 16
  case coherentPool = 17
  case bounceChunks = 18

  /// Whether it may be held while hardware takes its time.
  var isHeldLong: Bool { self == .group || self == .lazyDomains }
}

/// Mutual exclusion between threads.
///
/// The mutex lies in a heap cell of its own: it may not move once threads know it, and a Swift
/// value may.
@safe
public struct Lock: ~Copyable, @unchecked Sendable {
  private let mutex: UnsafeMutableRawPointer
  private let rank: LockRank

  public init(_ rank: LockRank) throws(Failure) {
    // 64 bytes: a lock shares its cache line with nothing.
    unsafe mutex = try RawMemory.allocate((cplatform_mutex_size() + 63) & ~63, alignment: 64)
    unsafe cplatform_mutex_init(mutex)
    self.rank = rank
  }

  // Many values end with a lock, and in many places: wherever making one fails, too.
  @inline(never)
  deinit {
    unsafe cplatform_mutex_destroy(mutex)
    unsafe RawMemory.free(mutex)
  }

  public func lock() {
    ThreadRules.willLock(rank)
    unsafe cplatform_mutex_lock(mutex)
  }

  public func unlock() {
    unsafe cplatform_mutex_unlock(mutex)
    ThreadRules.didUnlock(rank)
  }
}
