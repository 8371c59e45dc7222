// SPDX-License-Identifier: MIT OR Apache-2.0

import PageTables
import Primitives
import Synchronization

/// What an IOMMU is made from, checked.
public struct IOMMUDescription {
  // First, so that it lies at the address of the whole.
  public let backend: Backend
  public let tables: PageTableConfiguration

  public init(_ tables: PageTableConfiguration, _ backend: Backend = Backend()) {
    self.tables = tables
    self.backend = backend
  }
}

/// An IOMMU: what its domains' page tables are made from, and what is told of changes.
///
/// It may be known before it is there: then devices can be said to be behind it, and it has no domains.
/// The description is published once, when it comes.
@safe
public struct IOMMU: ~Copyable, Held {
  public let system: UnsafeMutablePointer<System>
  // The address of an IOMMUDescription; 0 until the IOMMU is there.
  private let published = Atomic<UInt>(0)
  private let uses = UseCount()

  /// An IOMMU that is not there yet. Holds the system until it ends.
  public init(system: UnsafeMutablePointer<System>) {
    unsafe Box.hold(system)
    unsafe self.system = system
  }

  /// An IOMMU that is there.
  ///
  /// - Throws: `noMemory`.
  public init(
    system: UnsafeMutablePointer<System>, _ description: IOMMUDescription
  ) throws(Failure) {
    unsafe self.init(system: system)
    try publish(description)
  }

  deinit {
    if let cell = unsafe cell {
      unsafe cell.pointee.backend.release()
      unsafe Box.destroy(cell)
    }
    unsafe Box.letGo(system)
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  // Acquiring: pairs with the release in `publish`, so that the configuration is seen whole.
  private var cell: UnsafeMutablePointer<IOMMUDescription>? {
    // SAFETY: only `publish` writes this, with the address of such a cell, which lives as long as the
    // IOMMU.
    unsafe UnsafeMutablePointer(bitPattern: published.load(ordering: .acquiring))
  }

  var isThere: Bool { unsafe cell != nil }

  /// - Throws: `tryAgain` until the IOMMU is there.
  public func description() throws(Failure) -> IOMMUDescription {
    guard let cell = unsafe cell else { throw .tryAgain }
    return unsafe cell.pointee
  }

  /// nil until the IOMMU is there. It stays while the IOMMU does.
  var backend: UnsafePointer<Backend>? {
    // SAFETY: a structure's first stored property lies at its address.
    unsafe cell.map { unsafe UnsafeRawPointer($0).assumingMemoryBound(to: Backend.self) }
  }

  /// Says that the IOMMU is there, and lets those have it who wait.
  ///
  /// - Throws: `exists` when it is there, `noMemory`.
  public func start(_ description: IOMMUDescription) throws(Failure) {
    try publish(description)
    // A probe may destroy the IOMMU.
    let system = unsafe system
    unsafe Box.hold(system)
    unsafe system.pointee.retryDeferred()
    unsafe Box.letGo(system)
  }

  private func publish(_ description: IOMMUDescription) throws(Failure) {
    let new = unsafe try Box<IOMMUDescription>.place { () throws(Failure) in description }
    guard
      published.compareExchange(
        expected: 0, desired: UInt(bitPattern: new), ordering: .acquiringAndReleasing
      ).exchanged
    else {
      unsafe Box.destroy(new)
      throw .exists
    }
  }
}
