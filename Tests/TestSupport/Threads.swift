// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation

/// What the threads of one `onThreads` share.
private final class ThreadGroup: @unchecked Sendable {
  private let condition = NSCondition()
  private var waitingCount: Int
  private var errors: [String] = []
  let body: @Sendable (Int) throws -> Void

  init(count: Int, body: @escaping @Sendable (Int) throws -> Void) {
    waitingCount = count
    self.body = body
  }

  func run(_ index: Int) {
    // Threads that start together meet more often.
    condition.lock()
    waitingCount -= 1
    condition.broadcast()
    while waitingCount > 0 { condition.wait() }
    condition.unlock()
    do {
      try body(index)
    } catch {
      condition.lock()
      errors.append("thread \(index): \(error)")
      condition.unlock()
    }
  }

  func check() throws {
    guard errors.isEmpty else { throw Divergence(errors.joined(separator: "\n")) }
  }
}

private final class ThreadStart {
  let group: ThreadGroup
  let index: Int

  init(group: ThreadGroup, index: Int) {
    self.group = group
    self.index = index
  }
}

/// Runs `body` on so many threads at once, with the number of each, and returns when all have ended.
///
/// The threads are those of pthreads, whose starts and ends the thread sanitizer knows.
///
/// - Throws: what any of them threw.
public func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
  let group = ThreadGroup(count: count, body: body)
  var threads: [pthread_t] = []
  for index in 0..<count {
    let start = Unmanaged.passRetained(ThreadStart(group: group, index: index))
    var thread = pthread_t()
    let error = pthread_create(
      &thread, nil,
      { argument in
        let start = Unmanaged<ThreadStart>.fromOpaque(argument!).takeRetainedValue()
        start.group.run(start.index)
        return nil
      }, start.toOpaque())
    precondition(error == 0, "A thread cannot be started.")
    threads.append(thread)
  }
  for thread in threads { pthread_join(thread, nil) }
  try group.check()
}
