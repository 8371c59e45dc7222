// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import MemoryMap
import PageTables
import Primitives
import TestSupport
import Testing

@testable import Domains

@Suite struct IdentityWindowTests {
  private static let base: UInt64 = 1 << 32
  private static let size: UInt64 = 16 * 4096

  /// A machine with regions of memory that come and go, and hybrid domains.
  private final class Stage: @unchecked Sendable {
    let system: UnsafeMutablePointer<System>
    let iommu: UnsafeMutablePointer<IOMMU>
    private let tables = TablePages()
    private let memory = UnsafeMutableRawPointer.allocate(
      byteCount: 4 * Int(IdentityWindowTests.size), alignment: 4096)

    init() throws {
      let tables = tables
      let system = try Box<System>.place { () throws(Failure) in
        try System(
          isFlat: false, reporter: Reporter(callback: nil, opaque: nil), allocator: nil)
      }
      self.system = system
      iommu = try Box<IOMMU>.place { () throws(Failure) in
        try IOMMU(
          system: system,
          IOMMUDescription(
            try PageTableConfiguration(kind: .vtdSecondStage, allocator: tables.allocator)))
      }
    }

    deinit {
      Box.letGo(iommu)
      Box.letGo(system)
      memory.deallocate()
    }

    func range(_ bank: Int) throws -> PhysicalRange {
      try PhysicalRange(
        first: PhysicalAddress(IdentityWindowTests.base * UInt64(bank + 1)),
        size: IdentityWindowTests.size)
    }

    func add(_ bank: Int) throws {
      let host = memory + bank * Int(IdentityWindowTests.size)
      try system.pointee.add(
        try MemoryRegionDescription(range: range(bank), isReadOnly: false, backing: .host(host)))
    }

    func domain() throws -> UnsafeMutablePointer<Domain> {
      try Domain.place(iommu, DomainDescription(.hybrid))
    }

    func has(_ bank: Int, _ domain: UnsafeMutablePointer<Domain>) throws -> Bool {
      let range = try range(bank)
      let found = domain.pointee.lookUp(IOVA(range.first.rawValue))
      let isMapped = found.isMapped
      try demandSame(domain.pointee.isInWindow(range), isMapped, "what the window says")
      return isMapped
    }
  }

  @Test func aWindowIsWhatMemoryThereIs() throws {
    let stage = try Stage()
    let early = try stage.domain()
    try stage.add(1)
    let late = try stage.domain()
    for domain in [early, late] {
      #expect(try stage.has(1, domain))
      #expect(try !stage.has(0, domain))
    }
    try stage.system.pointee.remove(stage.range(1))
    for domain in [early, late] {
      #expect(try !stage.has(1, domain))
      #expect(domain.pointee.statistics.mappedBytes == 0)
      Box.letGo(domain)
    }
  }

  @Test func windowsFollowMemoryThatComesAndGoesOnSeveralThreads() throws {
    let stage = try Stage()
    let rounds = 60
    try onThreads(4) { index in
      for _ in 0..<rounds {
        if index < 2 {
          try stage.add(index)
          try stage.system.pointee.remove(stage.range(index))
        } else {
          let domain = try stage.domain()
          _ = domain.pointee.isInWindow(try stage.range(0))
          Box.letGo(domain)
        }
      }
      if index < 2 { try stage.add(index) }
    }
    let domain = try stage.domain()
    for bank in 0..<2 { #expect(try stage.has(bank, domain)) }
    Box.letGo(domain)
  }

  @Test func aDomainThatIsThereAllTheTimeHasWhatWasAddedLast() throws {
    let stage = try Stage()
    let domain = try stage.domain()
    try onThreads(3) { index in
      for _ in 0..<60 {
        try stage.add(index)
        try stage.system.pointee.remove(stage.range(index))
      }
      if index == 1 { try stage.add(index) }
    }
    for bank in 0..<3 { #expect(try stage.has(bank, domain) == (bank == 1)) }
    Box.letGo(domain)
  }
}
