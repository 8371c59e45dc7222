// SPDX-License-Identifier: MIT OR Apache-2.0

import PageTables
import Primitives

/// A software IOMMU: what its domains' page tables are made from.
@safe
public struct IOMMU: ~Copyable, Held {
  public let system: UnsafeMutablePointer<System>
  let configuration: PageTableConfiguration
  private let uses = UseCount()

  /// Holds the system until it ends.
  public init(system: UnsafeMutablePointer<System>, configuration: PageTableConfiguration) {
    unsafe Box.hold(system)
    unsafe self.system = system
    self.configuration = configuration
  }

  deinit { unsafe Box.letGo(system) }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }
}
