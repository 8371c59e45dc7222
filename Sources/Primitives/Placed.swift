// SPDX-License-Identifier: MIT OR Apache-2.0

import Synchronization

/// What makes a value that has it stay in one place: its functions get its address, and not a copy of what it
/// consists of, which would be put together wherever one is called.
public struct Placed: ~Copyable, Sendable {
  // The address of an atomic value is part of what it is.
  private let byte = Atomic<UInt8>(0)

  public init() {}
}
