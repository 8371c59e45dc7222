// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// The queues of a system in which ranges may wait for a tick. Locked, rank 6.
///
/// A queue is here from when its domain becomes lazy for the first time until the domain ends.
@safe
struct FlushQueueList: ~Copyable {
  typealias Link = UnsafeMutablePointer<FlushQueue>

  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State {
    var first: Link? = nil
  }

  /// The neighbours of a queue in the list.
  @safe
  struct Links {
    var next: Link? = nil
    var previous: Link? = nil
  }

  /// What belongs to the tick that has begun a flush of a queue, until that ends.
  @safe
  struct Due {
    var batch = FlushQueue.Batch()
    var next: Link? = nil
  }

  private let state: Guarded<State>

  init() throws(Failure) {
    state = try Guarded<State>(.lazyDomains) { () throws(Failure) in State() }
  }

  func add(_ queue: Link) {
    state.withLock { state in
      unsafe queue.pointee.links.pointee.next = state.first
      unsafe state.first?.pointee.links.pointee.previous = queue
      unsafe state.first = queue
    }
  }

  func remove(_ queue: Link) {
    state.withLock { state in
      let links = unsafe queue.pointee.links.pointee
      let (next, previous) = unsafe (links.next, links.previous)
      unsafe next?.pointee.links.pointee.previous = previous
      if let previous = unsafe previous {
        unsafe previous.pointee.links.pointee.next = next
      } else {
        unsafe state.first = next
      }
    }
  }

  /// Begins the flushes that are due, and holds their queues.
  func beginFlushes(_ now: UInt64) -> Link? {
    var due: Link? = nil
    state.withLock { state in
      var next = unsafe state.first
      while let queue = unsafe next {
        if let batch = unsafe queue.pointee.beginFlush(at: now) {
          // One that is in the list is held by its domain, which may be gone when the lock is free.
          unsafe queue.pointee.backend.flush()
          unsafe Box.hold(queue)
          unsafe queue.pointee.due.pointee = Due(batch: batch, next: due)
          unsafe due = queue
        }
        unsafe next = queue.pointee.links.pointee.next
      }
    }
    return unsafe due
  }

  /// Ends the flushes that `beginFlushes` began, after a wait for readers.
  func endFlushes(_ first: Link) {
    var next: Link? = unsafe first
    while let queue = unsafe next {
      let due = unsafe queue.pointee.due.pointee
      unsafe queue.pointee.endFlush(due.batch)
      unsafe Box.letGo(queue)
      unsafe next = due.next
    }
  }
}
