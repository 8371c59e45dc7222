// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import MachineSupport
import PageTables
import Primitives
import TestSupport
import Testing

@testable import Domains

@Suite("Domain")
struct DomainTests {
  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 2 << 20
  private static let huge: UInt64 = 1 << 30

  // MARK: - Options

  @Test(arguments: [Domain.Kind.identity, .blocked, .unmanaged])
  func onlyADMADomainHasBounds(_ kind: Domain.Kind) throws {
    try withMachine { machine in
      #expect(throws: Failure.invalidArgument) { try machine.domain(kind, first: 4096) }
      #expect(throws: Failure.invalidArgument) { try machine.domain(kind, last: 4095) }
      #expect(machine.tables.liveCount == 0)
      let translation = try machine.domain(kind).pointee.translation
      #expect((translation == nil) == (kind != .unmanaged))
    }
  }

  @Test(arguments: [(1, 0xFFFF), (4096, 0x1_0000), (0x2000, 0x1FFF), (0, 0x10_0800)])
  func boundsAreWholePagesInOrder(_ first: UInt64, _ last: UInt64) throws {
    try withMachine { machine in
      #expect(throws: Failure.invalidArgument) {
        try machine.domain(.dma, first: first, last: last)
      }
    }
  }

  @Test func boundsLieWithinWhatThePageTableTranslates() throws {
    try withMachine { machine in
      #expect(throws: Failure.outOfRange) {
        try machine.domain(.dma, last: (1 << 48) + 4095)
      }
      let bounds = try machine.domain(.dma, last: (1 << 48) - 1).pointee.translation!.pointee
        .space!.pointee.bounds
      #expect(bounds.last.rawValue == (1 << 48) - 1)
    }
  }

  @Test func theDefaultBoundsAreAllButTheFirstPage() throws {
    try withMachine { machine in
      let bounds = try machine.domain(.dma).pointee.translation!.pointee.space!.pointee.bounds
      #expect(bounds.first.rawValue == 4096)
      #expect(bounds.last.rawValue == (1 << 48) - 1)
    }
  }

  @Test func aDomainThatCannotBeMadeLeavesNothing() throws {
    try withMachine { machine in
      machine.tables.failAfter(0)
      #expect(throws: Failure.noMemory) { try machine.domain(.dma) }
      #expect(!Box.isShared(machine.iommu))
    }
  }

  // MARK: - Mapping

  /// Maps memory and checks that each end leads where it must.
  private func map(
    _ domain: UnsafeMutablePointer<Domain>, _ first: UInt64, _ size: UInt64,
    limit: UInt64 = UInt64.max, in ranges: borrowing DMARanges = DMARanges()
  ) throws -> (range: IOVARange, leafSize: UInt64) {
    let translation = domain.pointee.translation!
    let range = try translation.pointee.map(
      try physical(first, size: size), access: [.read, .write], limit: limit, in: ranges)
    #expect(range.extent == size - 1)
    for offset in [0, size - 1] {
      let iova = range.first.rawValue + offset
      let leaf = translation.pointee.table.lookUp(IOVA(iova))
      #expect(leaf.isMapped)
      #expect(leaf.target + (iova - leaf.first) == first + offset)
    }
    let leaf = translation.pointee.table.lookUp(range.first)
    return (range, leaf.last - leaf.first + 1)
  }

  private func unmap(_ domain: UnsafeMutablePointer<Domain>, _ range: IOVARange) {
    domain.pointee.translation!.pointee.unmap(range)
    domain.pointee.translation!.pointee.free(range)
  }

  @Test(arguments: [
    (DomainTests.huge, DomainTests.huge, DomainTests.huge),
    (DomainTests.large, DomainTests.large, DomainTests.large),
    (DomainTests.huge, DomainTests.huge - DomainTests.page, DomainTests.large),
    (DomainTests.large, DomainTests.huge, DomainTests.large),
    (DomainTests.page, DomainTests.large, DomainTests.page),
    (DomainTests.large, DomainTests.large - DomainTests.page, DomainTests.page),
    (DomainTests.large, DomainTests.large + DomainTests.page, DomainTests.large),
  ])
  func memoryThatIsAlignedHasTheLargestLeavesThatFit(
    _ first: UInt64, _ size: UInt64, _ leafSize: UInt64
  ) throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      _ = try map(domain, 0x7000, 0x1000)
      #expect(try map(domain, first, size).leafSize == leafSize)
    }
  }

  @Test func smallLeavesServeWhereNoAlignedPlaceIsFree() throws {
    try withMachine { machine in
      // One large leaf has one aligned place here. A page in it leaves its bytes room elsewhere.
      func makeDomain() throws -> UnsafeMutablePointer<Domain> {
        try machine.domain(
          .dma, first: Self.large - Self.page, last: 2 * Self.large + Self.page - 1)
      }
      let aligned = try map(makeDomain(), Self.large, Self.large)
      #expect(aligned.leafSize == Self.large)
      #expect(aligned.range.first.rawValue == Self.large)
      let domain = try makeDomain()
      _ = try map(domain, 0x7000, Self.page)
      let inside = try map(domain, 0x7000, Self.page)
      #expect(inside.range.first.rawValue == 2 * Self.large - Self.page)
      let small = try map(domain, Self.large, Self.large)
      #expect(small.leafSize == Self.page)
      #expect(small.range.first.rawValue == Self.large - Self.page)
      #expect(throws: Failure.noSpace) { try map(domain, Self.large, Self.large) }
    }
  }

  @Test func mappingsStayUnderTheDevicesLimit() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let range = try map(domain, 0x5000_0000_0000, 0x2000, limit: 0xFFFF).range
      #expect(range.last.rawValue <= 0xFFFF)
      #expect(throws: Failure.outOfRange) { try map(domain, 0x1000, 0x1000, limit: 0xFFF) }
      #expect(throws: Failure.outOfRange) { try map(domain, 0x1000, 0x1000, limit: 0x1FFE) }
      #expect(throws: Failure.noSpace) { try map(domain, 0x1000, 0xE000, limit: 0xFFFF) }
    }
  }

  @Test func memoryThatThePageTableCannotNameIsOutOfRange() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      #expect(try map(domain, (1 << 52) - 4096, 4096).leafSize == 4096)
      #expect(throws: Failure.outOfRange) { try map(domain, 1 << 52, 4096) }
      #expect(throws: Failure.outOfRange) { try map(domain, (1 << 52) - 4096, 8192) }
    }
  }

  @Test func aMappingThatFailsChangesNothing() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      for count in 0..<3 {
        machine.tables.failAfter(count)
        #expect(throws: Failure.noMemory) { try map(domain, 0x1000, 0x3000) }
        let statistics = domain.pointee.statistics
        #expect(statistics.mappingCount == 0)
        #expect(statistics.iovaBytes == 0)
        #expect(statistics.mappedBytes == 0)
      }
      machine.tables.failAfter(nil)
      _ = try map(domain, 0x1000, 0x3000)
    }
  }

  private static let below4G: UInt64 = 1 << 32 - 1

  /// The bounds of a domain, the limit of a mapping and its pages, and those that it takes.
  private static let taken:
    [(first: UInt64, last: UInt64, limit: UInt64, pages: UInt64, taken: UInt64)] =
      [
        (0, 0, UInt64.max, 1, 1), (0, 0, UInt64.max, 3, 4), (0, 0, UInt64.max, 4, 4),
        (0, 0, UInt64.max, 33, 64), (0, 0, UInt64.max, 64, 64), (0, 0, UInt64.max, 65, 65),
        (0, 0, below4G, 3, 3), (0, (2 << 32) - 0x1001, UInt64.max, 3, 3),
        (0, (2 << 32) - 1, UInt64.max, 3, 4), (1 << 40, (1 << 40) + 0x2FFF, UInt64.max, 3, 3),
        (1 << 40, (1 << 40) + (1 << 32) - 1, UInt64.max, 3, 4),
      ]

  @Test(arguments: taken)
  func aFewPagesAbove4GiBTakeAPowerOfTwoIfThereAreEnough(
    _ first: UInt64, _ last: UInt64, _ limit: UInt64, _ pages: UInt64, _ taken: UInt64
  ) throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma, first: first, last: last)
      // The second is of what the first has left in the caches.
      for _ in 0..<2 {
        let range = try map(domain, 0, pages * Self.page, limit: limit).range
        #expect((range.first.rawValue > Self.below4G) == (limit > Self.below4G))
        #expect(domain.pointee.statistics.iovaBytes == taken * Self.page)
        unmap(domain, range)
        #expect(domain.pointee.statistics.iovaBytes == 0)
      }
    }
  }

  @Test(arguments: [0, 0x1_0000] as [UInt64])
  func aFewPagesThatHaveToHaveOtherBitsTakeWhatTheyAre(_ boundary: UInt64) throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma, first: 1 << 32)
      let translation = domain.pointee.translation!
      // Three pages at the end of a block of 16, which they may not reach out of.
      let range = try translation.pointee.allocate(
        0x2FFF, for: PhysicalRange(first: PhysicalAddress(0xD000), size: 0x3000), UInt64.max,
        DMARanges(), 0xFFFF, boundary: boundary)
      #expect(range.first.rawValue & 0xFFFF == 0xD000)
      #expect(domain.pointee.statistics.iovaBytes == 0x3000)
      translation.pointee.free(range)
      #expect(domain.pointee.statistics.iovaBytes == 0)
    }
  }

  @Test func aFewPagesWhereNoMoreAreFreeTakeWhatTheyAre() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma, first: 1 << 32)
      let space = domain.pointee.translation!.pointee.space!
      // Three are free from an odd page on. Those above start with an even one.
      let taken: [(UInt64, UInt64)] = [
        (1 << 32, 1 << 40 + 0xFFF), (1 << 40 + 0x4000, 1 << 41 - 1),
        (1 << 41 + 0x3000, space.pointee.bounds.last.rawValue),
      ]
      for (first, last) in taken {
        try space.pointee.reserve(IOVARange(first: IOVA(first), last: IOVA(last)))
      }
      for _ in 0..<2 {
        let range = try map(domain, 0, 3 * Self.page).range
        #expect(range.first.rawValue == 1 << 40 + 0x1000)
        #expect(domain.pointee.statistics.iovaBytes == 0x3000)
        unmap(domain, range)
        #expect(domain.pointee.statistics.iovaBytes == 0)
      }
    }
  }

  @Test func aFewPagesThatFindNoRoomAbove4GiBTakeWhatTheyAreBelow() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let space = domain.pointee.translation!.pointee.space!
      try space.pointee.reserve(
        IOVARange(first: IOVA(Self.below4G + 1), last: space.pointee.bounds.last))
      let range = try map(domain, 0, 3 * Self.page).range
      #expect(range.last.rawValue <= Self.below4G)
      #expect(domain.pointee.statistics.iovaBytes == 3 * Self.page)
      unmap(domain, range)
      #expect(domain.pointee.statistics.iovaBytes == 0)
      #expect(space.pointee.statistics.refusedFrees == 0)
    }
  }

  @Test func statisticsCountWhatIsMapped() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let range = try map(domain, 0x1000, 0x3000).range
      let statistics = domain.pointee.statistics
      #expect(statistics.mappingCount == 1)
      #expect(statistics.iovaBytes == 0x4000)
      #expect(statistics.mappedBytes == 0x3000)
      #expect(statistics.tableCount == 4)
      #expect(statistics.tableBytes == 4 * 4096)
      unmap(domain, range)
      #expect(domain.pointee.statistics.mappedBytes == 0)
      #expect(try machine.domain(.identity).pointee.statistics.tableCount == 0)
    }
  }

  // MARK: - Mappings of the caller's choice

  private func iova(_ first: UInt64, size: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first), size: size)
  }

  @Test func anUnmanagedDomainGivesNoAddresses() throws {
    try withMachine { machine in
      let domain = try machine.domain(.unmanaged)
      #expect(throws: Failure.notPermitted) { try map(domain, 0x7000, 0x1000) }
      #expect(domain.pointee.statistics.tableCount == 1)
    }
  }

  @Test func tablesThatAreRetiredAreReclaimedBeforeTheyAreMany() throws {
    try withMachine { machine in
      let domain = try machine.domain(.unmanaged)
      let table = domain.pointee.translation!
      var mostRetired: UInt64 = 0
      for step in 0..<200 {
        let first = UInt64(step) * Self.large
        try domain.pointee.map(
          iova(first, size: Self.large), to: PhysicalAddress(Self.page), access: .read)
        _ = try domain.pointee.unmap(
          iova(first, size: Self.large), crossingHoles: false, splitting: false)
        mostRetired = max(mostRetired, table.pointee.table.retiredTables)
      }
      // A call that finds so many frees them first.
      #expect(mostRetired == 64)
      #expect(machine.tables.liveCount == Int(domain.pointee.statistics.tableCount))
    }
  }

  @Test func unmappingReclaimsTooWhenTablesAreMany() throws {
    try withMachine { machine in
      let domain = try machine.domain(.unmanaged)
      let table = domain.pointee.translation!
      try domain.pointee.map(
        iova(0, size: 65 * Self.large), to: PhysicalAddress(Self.page), access: .read)
      _ = try domain.pointee.unmap(
        iova(0, size: 65 * Self.large), crossingHoles: false, splitting: false)
      #expect(table.pointee.table.retiredTables == 65)
      _ = try domain.pointee.unmap(
        iova(0, size: Self.page), crossingHoles: false, splitting: false)
      #expect(table.pointee.table.retiredTables == 0)
      // The root, and one on each level that the range did not cover.
      #expect(machine.tables.liveCount == 3)
    }
  }

  @Test func mappingGetsRetiredTablesBackBeforeItFails() throws {
    try withMachine { machine in
      let domain = try machine.domain(.unmanaged)
      let range = try iova(0, size: Self.large)
      try domain.pointee.map(range, to: PhysicalAddress(Self.page), access: .read)
      _ = try domain.pointee.unmap(range, crossingHoles: false, splitting: false)
      #expect(domain.pointee.translation!.pointee.table.retiredTables == 1)
      machine.tables.failAfter(0)
      #expect(throws: Failure.noMemory) {
        try domain.pointee.map(range, to: PhysicalAddress(Self.page), access: .read)
      }
      #expect(domain.pointee.translation!.pointee.table.retiredTables == 0)
      machine.tables.failAfter(1)
      try domain.pointee.map(range, to: PhysicalAddress(Self.page), access: .read)
    }
  }

  @Test func aSplitThatFailsChangesNothing() throws {
    try withMachine { machine in
      let domain = try machine.domain(.unmanaged)
      try domain.pointee.map(
        iova(0, size: Self.huge), to: PhysicalAddress(Self.huge), access: .read)
      let middle = try iova(Self.page, size: Self.huge - 2 * Self.page)
      let before = machine.tables.liveCount
      // Tables of large leaves and of pages at the first end, and of pages at the last one.
      for count in 0..<3 {
        machine.tables.failAfter(count)
        #expect(throws: Failure.noMemory) {
          try domain.pointee.unmap(middle, crossingHoles: false, splitting: true)
        }
        #expect(machine.tables.liveCount == before)
        #expect(try domain.pointee.translate(IOVA(Self.page), .read).last == Self.huge - 1)
      }
      machine.tables.failAfter(nil)
      let unmapped = try domain.pointee.unmap(middle, crossingHoles: false, splitting: true)
      #expect(unmapped == Self.huge - 2 * Self.page)
      #expect(domain.pointee.statistics.mappedBytes == 2 * Self.page)
    }
  }
}
