// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// The rests of a loop that waits for another thread.
public struct Backoff: ~Copyable {
  private var turns = 0

  public init() {}

  @inline(never)
  public mutating func rest() {
    // First the other thread is likely to be on another processor and about to end; then it may need
    // this one; and if it has a lower priority, or waits for a page of its memory, it gets it only while
    // this thread sleeps.
    if turns < 32 {
      cplatform_pause()
    } else if turns < 96 {
      cplatform_yield()
    } else {
      cplatform_sleep()
    }
    turns &+= 1
  }
}
