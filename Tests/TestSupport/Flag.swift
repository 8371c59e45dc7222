// SPDX-License-Identifier: MIT OR Apache-2.0

import Synchronization

/// A sign that one thread gives to others.
public final class Flag: Sendable {
  private let value = Atomic<Bool>(false)

  public init() {}

  public var isSet: Bool { value.load(ordering: .acquiring) }

  public func set() { value.store(true, ordering: .releasing) }
}
