// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

/// The formats a caller can choose at run time. The values are those of `pagetable.h`.
public enum PageTableKind: UInt32, Sendable {
  case vtdSecondStage = 1
}

/// What a page table is made from.
@safe
public struct PageTableConfiguration {
  public let kind: PageTableKind
  public let levels: Int
  public let allocator: dmacore_table_allocator?

  /// - Parameter levels: 0 for 4.
  /// - Throws: `invalidArgument` for a table that the format does not have.
  public init(
    kind: PageTableKind, levels: Int, allocator: dmacore_table_allocator?
  ) throws(Failure) {
    let levels = levels == 0 ? 4 : levels
    let counts =
      switch kind {
      case .vtdSecondStage: VTdSecondStage.levelCounts
      }
    guard counts.contains(levels) else { throw .invalidArgument }
    self.kind = kind
    self.levels = levels
    unsafe self.allocator = allocator
  }
}

/// A page table whose format was chosen at run time: the one `switch` between C and the formats.
@safe
public struct AnyPageTable: ~Copyable, @unchecked Sendable {
  private let kind: PageTableKind
  private let table: UnsafeMutableRawPointer

  public init(_ configuration: PageTableConfiguration) throws(Failure) {
    let table =
      switch configuration.kind {
      case .vtdSecondStage: unsafe try Self.make(VTdSecondStage.self, configuration)
      }
    kind = configuration.kind
    unsafe self.table = table
  }

  private static func make<F: PageTableFormat>(
    _: F.Type, _ configuration: PageTableConfiguration
  ) throws(Failure) -> UnsafeMutableRawPointer {
    unsafe UnsafeMutableRawPointer(
      try Box<PageTable<F>>.place { () throws(Failure) in
        unsafe try PageTable<F>(levels: configuration.levels, allocator: configuration.allocator)
      })
  }

  private func typed<F: PageTableFormat>(_: F.Type) -> UnsafeMutablePointer<PageTable<F>> {
    // SAFETY: `init` is the only writer of `table` and stores a `PageTable<F>` for exactly the
    // `kind` that each `switch` below pairs with `F`.
    unsafe table.assumingMemoryBound(to: PageTable<F>.self)
  }

  deinit {
    switch kind {
    case .vtdSecondStage: unsafe Box.destroy(typed(VTdSecondStage.self))
    }
  }

  public func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access, isKnownFree: Bool = false
  ) throws(Failure) {
    switch kind {
    case .vtdSecondStage:
      try unsafe typed(VTdSecondStage.self).pointee.map(
        input, to: output, access: access, isKnownFree: isKnownFree)
    }
  }

  public func unmap(_ input: IOVARange, crossingHoles: Bool) throws(Failure) -> UInt64 {
    switch kind {
    case .vtdSecondStage:
      try unsafe typed(VTdSecondStage.self).pointee.unmap(input, crossingHoles: crossingHoles)
    }
  }

  public func lookUp(_ input: IOVA) -> PageTableLookup {
    switch kind {
    case .vtdSecondStage: unsafe typed(VTdSecondStage.self).pointee.lookUp(input)
    }
  }

  public func reclaim(after wait: () -> Void) {
    switch kind {
    case .vtdSecondStage: unsafe typed(VTdSecondStage.self).pointee.reclaim(after: wait)
    }
  }

  public var retiredTables: UInt64 {
    switch kind {
    case .vtdSecondStage: unsafe typed(VTdSecondStage.self).pointee.retiredTables
    }
  }

  public var statistics: PageTableStatistics {
    switch kind {
    case .vtdSecondStage: unsafe typed(VTdSecondStage.self).pointee.statistics
    }
  }

  public var lastInput: IOVA {
    switch kind {
    case .vtdSecondStage: unsafe typed(VTdSecondStage.self).pointee.lastInput
    }
  }

  public var lastOutput: PhysicalAddress {
    switch kind {
    case .vtdSecondStage: unsafe typed(VTdSecondStage.self).pointee.lastOutput
    }
  }

  public var rootAddress: PhysicalAddress {
    switch kind {
    case .vtdSecondStage: unsafe typed(VTdSecondStage.self).pointee.rootAddress
    }
  }
}
