// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import PageTables
import Primitives
import Synchronization

/// One address space of an IOMMU.
@safe
public struct Domain: ~Copyable, Held {
  /// What a DMA domain has and an identity domain lacks.
  public struct Translation: ~Copyable {
    public let table: AnyPageTable
    public let space: IOVASpace
  }

  /// What kind of domain to make. The values are those of `domain.h`.
  public enum Kind: UInt32 {
    case identity = 1
    case dma = 2
  }

  /// The numbers that `domain.h` explains.
  public struct Statistics {
    public let deviceCount: UInt64
    public let mappingCount: UInt64
    public let iovaBytes: UInt64
    public let mappedBytes: UInt64
    public let tableCount: UInt64
    public let tableBytes: UInt64
  }

  public let iommu: UnsafeMutablePointer<IOMMU>
  public let pins: PinTable
  // nil in an identity domain.
  public let translation: UnsafeMutablePointer<Translation>?
  private let deviceCount = Atomic<UInt64>(0)
  private let uses = UseCount()

  /// Holds the IOMMU until it ends.
  ///
  /// - Parameters first, last: the addresses to give out; 0 for the default.
  /// - Throws: `invalidArgument`, `outOfRange` when `last` is above what the page table can
  ///   translate, `noMemory`.
  public init(
    iommu: UnsafeMutablePointer<IOMMU>, kind: Kind, first: UInt64, last: UInt64
  ) throws(Failure) {
    let pins = try PinTable()
    var translation: UnsafeMutablePointer<Translation>? = nil
    switch kind {
    case .identity:
      guard first == 0, last == 0 else { throw .invalidArgument }
    case .dma:
      unsafe translation = try Box<Translation>.place { () throws(Failure) in
        let table = try AnyPageTable(unsafe iommu.pointee.configuration)
        let facts = table.facts
        guard facts.granule == Device.granule else { throw .notSupported }
        let highest = facts.lastInput.rawValue
        let bounds = try IOVARange(
          first: IOVA(first == 0 ? Device.granule.bytes : first),
          last: IOVA(last == 0 ? highest : last))
        guard bounds.isAligned(to: Device.granule) else { throw .invalidArgument }
        guard bounds.last.rawValue <= highest else { throw .outOfRange }
        let reporter = unsafe iommu.pointee.system.pointee.reporter
        return Translation(
          table: table,
          space: try IOVASpace(
            bounds: bounds, granule: Device.granule, isChecked: false, reporter: reporter))
      }
    }
    unsafe Box.hold(iommu)
    unsafe self.iommu = iommu
    self.pins = pins
    unsafe self.translation = translation
  }

  deinit {
    if let translation = unsafe translation { unsafe Box.destroy(translation) }
    unsafe Box.letGo(iommu)
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  func countDevice() { deviceCount.wrappingAdd(1, ordering: .relaxed) }

  func uncountDevice() { deviceCount.wrappingSubtract(1, ordering: .relaxed) }

  public var statistics: Statistics {
    let devices = deviceCount.load(ordering: .relaxed)
    guard let translation = unsafe translation else {
      return Statistics(
        deviceCount: devices, mappingCount: 0, iovaBytes: 0, mappedBytes: 0, tableCount: 0,
        tableBytes: 0)
    }
    let space = unsafe translation.pointee.space.statistics
    // It walks the tables, which nobody may free meanwhile.
    let token = unsafe iommu.pointee.system.pointee.readers.enter()
    let table = unsafe translation.pointee.table.statistics
    unsafe iommu.pointee.system.pointee.readers.leave(token)
    return Statistics(
      deviceCount: devices, mappingCount: space.allocatedCount, iovaBytes: space.allocatedBytes,
      mappedBytes: table.mappedBytes, tableCount: table.tableCount, tableBytes: table.tableBytes)
  }
}

extension Domain.Translation {
  /// The alignment of an IOVA that lets a range of memory have the largest leaves it can: the
  /// largest leaf size that fits the range and that it starts at a multiple of.
  private func preferredAlignment(for pages: PhysicalRange) -> UInt64 {
    func fits(_ size: UInt64) -> Bool {
      pages.first.rawValue & (size &- 1) == 0 && pages.extent >= size &- 1
    }
    if fits(1 << 30) { return 1 << 30 }
    if fits(2 << 20) { return 2 << 20 }
    return Device.granule.bytes
  }

  /// Allocates an IOVA range for whole pages of memory and maps them there.
  ///
  /// - Parameter limit: highest address that the device reaches.
  /// - Throws: `outOfRange` when no address of the space lies under the limit or the memory is too
  ///   wide for the page table, `noSpace`, `noMemory`. Then nothing has changed.
  public func map(
    _ pages: PhysicalRange, access: Access, limit: UInt64
  ) throws(Failure) -> IOVARange {
    let lowest = space.bounds.first.rawValue
    let highest = min(limit, space.bounds.last.rawValue)
    // What fits a page table's output is less than 2^64 bytes, so that its extent has a next number.
    guard pages.last <= table.facts.lastOutput, highest >= lowest, highest &- lowest >= pages.extent
    else { throw .outOfRange }
    let size = pages.extent &+ 1
    let first = try allocate(size: size, alignment: preferredAlignment(for: pages), limit: limit)
    let range = try IOVARange(first: first, size: size)
    do throws(Failure) {
      // The space says that the range is free, whatever somebody wrote to the table's pages.
      try table.map(
        range, to: pages.first, access: table.expressible(access), isKnownFree: true)
      return range
    } catch {
      free(range)
      throw error
    }
  }

  private func allocate(
    size: UInt64, alignment: UInt64, limit: UInt64
  ) throws(Failure) -> IOVA {
    do throws(Failure) {
      return try space.allocate(size: size, alignment: alignment, limit: limit)
    } catch {
      guard error == .noSpace, alignment > Device.granule.bytes else { throw error }
      // Small leaves at a place that is not aligned are better than no place.
      return try space.allocate(size: size, alignment: 0, limit: limit)
    }
  }

  /// Frees a range that `map` returned, when no translation of it is left.
  func free(_ range: IOVARange) {
    do throws(Failure) {
      try space.free(first: range.first, size: range.extent &+ 1)
    } catch {
      // The record of the mapping has the range as the space gave it, so this cannot happen.
      assertionFailure("A mapping's range is not allocated.")
    }
  }

  /// Unmaps a range that `map` returned.
  func unmap(_ range: IOVARange) {
    do throws(Failure) {
      _ = try table.unmap(range, crossingHoles: true)
    } catch {
      // The range is whole pages, and no leaf of another mapping reaches into it.
      assertionFailure("A mapping's range cannot be unmapped.")
    }
  }
}
