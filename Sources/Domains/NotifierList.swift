// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import Synchronization

/// The notifiers of a domain. Locked, rank 13.
public struct NotifierList: ~Copyable {
  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State {
    // Invariant: each has a greater number than the next.
    var newest: Notifier.Link? = nil
  }

  private let state: Guarded<State>
  // How many there are, by which a change passes over the lock when there are none.
  private let count = Atomic<Int>(0)

  init() throws(Failure) {
    state = try Guarded<State>(.notifiers) { () throws(Failure) in State() }
  }

  func add(_ notifier: Notifier.Link) {
    state.withLock { state in
      unsafe notifier.pointee.number = (state.newest?.pointee.number ?? 0) &+ 1
      unsafe notifier.pointee.next = state.newest
      unsafe state.newest = notifier
    }
    count.wrappingAdd(1, ordering: .relaxed)
  }

  func remove(_ notifier: Notifier.Link) {
    state.withLock { state in
      let next = unsafe notifier.pointee.next
      guard let first = unsafe state.newest, unsafe first != notifier else {
        unsafe state.newest = next
        return
      }
      var before = unsafe first
      while let other = unsafe before.pointee.next, unsafe other != notifier {
        unsafe before = other
      }
      unsafe before.pointee.next = next
    }
    count.wrappingSubtract(1, ordering: .relaxed)
  }

  @inline(__always)
  var isEmpty: Bool { notifierCount == 0 }

  @inline(__always)
  var notifierCount: Int { count.load(ordering: .relaxed) }

  /// Calls back those who want to know of a change that has been made.
  ///
  /// The caller keeps the domain until this is called. Without notifiers nothing is made of the change.
  @inline(__always)
  public func tell(_ change: @autoclosure () -> DomainChange) {
    if count.load(ordering: .relaxed) != 0 { tellEach(change()) }
  }

  @inline(never)
  public func tellEach(_ change: DomainChange) {
    var current = unsafe hold(below: UInt64.max, change)
    while let notifier = unsafe current {
      unsafe notifier.pointee.tell(change)
      // The last one that the domain is held by may be let go of, when this is not asked any more.
      unsafe current = hold(below: notifier.pointee.number, change)
      unsafe Box.letGo(notifier)
    }
  }

  /// The next notifier that wants to know, held.
  private func hold(below number: UInt64, _ change: DomainChange) -> Notifier.Link? {
    unsafe state.withLock { state -> Notifier.Link? in
      var found = unsafe state.newest
      while let notifier = unsafe found,
        unsafe notifier.pointee.number >= number || !notifier.pointee.wants(change)
      {
        unsafe found = notifier.pointee.next
      }
      if let notifier = unsafe found { unsafe Box.hold(notifier) }
      return unsafe found
    }
  }
}
