// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import Primitives
import TestSupport
import Testing

@Suite("IOVASpace")
struct IOVASpaceTests {
  private static let page: UInt64 = 4096

  /// A space of pages `first` to `last`, both included.
  private func space(pages first: UInt64, _ last: UInt64) throws -> IOVASpace {
    try checkedSpace(Self.pages(first, last))
  }

  private static func pages(_ first: UInt64, _ last: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first * page), last: IOVA(last * page + (page - 1)))
  }

  /// The page that an allocation starts at.
  private func allocate(
    _ space: borrowing IOVASpace, pages count: UInt64 = 1, alignedTo alignment: UInt64 = 0,
    below limit: UInt64 = UInt64.max
  ) throws -> UInt64 {
    let place = try space.allocate(
      size: count * Self.page, alignment: alignment * Self.page, limit: limit)
    return place.rawValue / Self.page
  }

  private func free(
    _ space: borrowing IOVASpace, page: UInt64, pages count: UInt64 = 1
  ) throws {
    try space.free(first: IOVA(page * Self.page), size: count * Self.page)
  }

  // MARK: - Allocating

  @Test func allocationGoesFromTheTopDown() throws {
    let space = try space(pages: 1, 4)
    #expect(try allocate(space) == 4)
    #expect(try allocate(space) == 3)
    #expect(try allocate(space, pages: 2) == 1)
  }

  @Test func aFullSpaceHasNoPlace() throws {
    let space = try space(pages: 1, 2)
    _ = try allocate(space, pages: 2)
    #expect(throws: Failure.noSpace) { try self.allocate(space) }
  }

  @Test func whatIsTooLargeForTheSpaceHasNoPlace() throws {
    let space = try space(pages: 1, 2)
    #expect(throws: Failure.noSpace) { try self.allocate(space, pages: 3) }
    #expect(try allocate(space, pages: 2) == 1)
  }

  @Test func aSizeIsRoundedUpToTheGranule() throws {
    let space = try space(pages: 1, 8)
    _ = try space.allocate(size: 1, alignment: 0, limit: UInt64.max)
    #expect(space.statistics.allocatedBytes == 4096)
    _ = try space.allocate(size: 4097, alignment: 0, limit: UInt64.max)
    #expect(space.statistics.allocatedBytes == 3 * 4096)
  }

  @Test(arguments: [0, UInt64.max - 4094, UInt64.max])
  func aSizeOfZeroOrNearTheWholeSpaceIsInvalid(_ size: UInt64) throws {
    let space = try space(pages: 1, 8)
    #expect(throws: Failure.invalidArgument) {
      try space.allocate(size: size, alignment: 0, limit: UInt64.max)
    }
  }

  @Test(arguments: [3, 4097, UInt64.max])
  func anAlignmentThatIsNoPowerOfTwoIsInvalid(_ alignment: UInt64) throws {
    let space = try space(pages: 1, 8)
    #expect(throws: Failure.invalidArgument) {
      try space.allocate(size: 1, alignment: alignment, limit: UInt64.max)
    }
  }

  @Test func anAlignmentBelowTheGranuleIsTheGranules() throws {
    let space = try space(pages: 1, 8)
    #expect(try space.allocate(size: 1, alignment: 2, limit: UInt64.max) == IOVA(8 << 12))
  }

  @Test func aGapThatHoldsNoAlignedPlaceIsPassedOver() throws {
    let space = try space(pages: 1, 16)
    // Free above: pages 13 to 16, of which none but 16 is a multiple of 4, and 16 is too short.
    _ = try space.reserve(Self.pages(12, 12))
    #expect(try allocate(space, pages: 3, alignedTo: 4) == 8)
  }

  @Test func anAlignmentThatNothingInTheSpaceHasHasNoPlace() throws {
    let space = try space(pages: 5, 7)
    #expect(throws: Failure.noSpace) { try self.allocate(space, alignedTo: 4) }
    #expect(throws: Failure.noSpace) { try self.allocate(space, alignedTo: 1 << 51) }
  }

  @Test func noByteLiesAboveTheLimit() throws {
    let space = try space(pages: 1, 8)
    #expect(try allocate(space, below: 0x5FFF) == 5)
    #expect(try allocate(space, below: 0x5FFE) == 4)
    #expect(try allocate(space, pages: 2, below: 0x3FFF) == 2)
    #expect(throws: Failure.noSpace) { try self.allocate(space, pages: 2, below: 0x1FFF) }
    #expect(throws: Failure.noSpace) { try self.allocate(space, below: 0xFFF) }
    #expect(throws: Failure.noSpace) { try self.allocate(space, below: 0) }
  }

  @Test func theWholeSpaceOfA64BitMachineCanBeUsed() throws {
    let space = try checkedSpace(IOVARange(first: IOVA(0), last: IOVA(UInt64.max)))
    #expect(
      try space.allocate(size: 1, alignment: 0, limit: UInt64.max)
        == IOVA(UInt64.max - (Self.page - 1)))
    let rest = try space.allocate(size: 0 &- 2 * Self.page, alignment: 0, limit: UInt64.max)
    #expect(rest == IOVA(Self.page))
    #expect(try allocate(space) == 0)
    #expect(space.statistics.freeBytes == 0)
    #expect(throws: Failure.noSpace) { try self.allocate(space) }
  }

  @Test func allocatingAllFreeingAllAndAllocatingAllAgainWorks() throws {
    let space = try space(pages: 1, 64)
    for _ in 0..<3 {
      for page in (1...64).reversed() { #expect(try allocate(space) == UInt64(page)) }
      for page in stride(from: 1, through: 64, by: 2) { try free(space, page: UInt64(page)) }
      for page in stride(from: 2, through: 64, by: 2) { try free(space, page: UInt64(page)) }
      #expect(try allocate(space, pages: 64) == 1)
      try free(space, page: 1, pages: 64)
    }
  }

  // MARK: - Freeing

  @Test func freeingAMiddleRangeMergesBothNeighbours() throws {
    let space = try space(pages: 1, 3)
    for _ in 0..<3 { _ = try allocate(space) }
    try free(space, page: 1)
    try free(space, page: 3)
    #expect(space.statistics.largestFreeBytes == Self.page)
    try free(space, page: 2)
    #expect(try allocate(space, pages: 3) == 1)
  }

  @Test func onlyExactlyWhatWasAllocatedIsFreed() throws {
    let space = try space(pages: 1, 8)
    #expect(try allocate(space, pages: 3) == 6)
    for (page, count) in [(6, 2), (6, 4), (7, 2), (5, 3), (1, 1)] as [(UInt64, UInt64)] {
      #expect(throws: Failure.invalidArgument) {
        try self.free(space, page: page, pages: count)
      }
    }
    #expect(throws: Failure.invalidArgument) { try space.free(first: IOVA(6 << 12), size: 0) }
    #expect(space.statistics.allocatedBytes == 3 * Self.page)
    try free(space, page: 6, pages: 3)
    #expect(throws: Failure.invalidArgument) { try self.free(space, page: 6, pages: 3) }
  }

  @Test func freeRoundsTheSizeAsAllocateDoes() throws {
    let space = try space(pages: 1, 8)
    let place = try space.allocate(size: 5000, alignment: 0, limit: UInt64.max)
    try space.free(first: place, size: 4097)
    #expect(space.statistics.allocatedCount == 0)
  }

  @Test func aReservedRangeIsNotFreedNorAnAllocatedOneUnreserved() throws {
    let space = try space(pages: 1, 8)
    try space.reserve(Self.pages(1, 2))
    #expect(try allocate(space, pages: 2) == 7)
    #expect(throws: Failure.invalidArgument) { try self.free(space, page: 1, pages: 2) }
    #expect(throws: Failure.invalidArgument) { try space.unreserve(Self.pages(7, 8)) }
    try space.unreserve(Self.pages(1, 2))
    try free(space, page: 7, pages: 2)
  }

  // MARK: - Reserving

  @Test func whatIsReservedIsNotAllocated() throws {
    let space = try space(pages: 1, 4)
    try space.reserve(Self.pages(3, 4))
    #expect(try allocate(space, pages: 2) == 1)
    #expect(throws: Failure.noSpace) { try self.allocate(space) }
    try space.unreserve(Self.pages(3, 4))
    #expect(try allocate(space, pages: 2) == 3)
  }

  @Test func whatIsInUseCannotBeReserved() throws {
    let space = try space(pages: 1, 8)
    try space.reserve(Self.pages(3, 4))
    #expect(try allocate(space, pages: 2) == 7)
    for (first, last) in [(3, 4), (2, 3), (4, 5), (1, 8), (3, 3), (6, 7), (8, 8)] {
      #expect(throws: Failure.busy) {
        try space.reserve(Self.pages(UInt64(first), UInt64(last)))
      }
    }
    try space.reserve(Self.pages(5, 6))
    try space.reserve(Self.pages(1, 2))
    #expect(space.statistics.freeBytes == 0)
  }

  @Test func aRangeOutsideOfTheSpaceCannotBeReserved() throws {
    let space = try space(pages: 2, 5)
    for (first, last) in [(1, 1), (1, 2), (5, 6), (6, 6), (0, 9)] {
      #expect(throws: Failure.outOfRange) {
        try space.reserve(Self.pages(UInt64(first), UInt64(last)))
      }
    }
  }

  @Test func onlyWholeGranulesAreReserved() throws {
    let space = try space(pages: 1, 8)
    #expect(throws: Failure.invalidArgument) {
      try space.reserve(IOVARange(first: IOVA(0x2800), last: IOVA(0x2FFF)))
    }
    #expect(throws: Failure.invalidArgument) {
      try space.reserve(IOVARange(first: IOVA(0x2000), last: IOVA(0x27FF)))
    }
  }

  @Test func onlyExactlyWhatWasReservedIsUnreserved() throws {
    let space = try space(pages: 1, 8)
    try space.reserve(Self.pages(3, 4))
    for (first, last) in [(3, 3), (4, 4), (3, 5), (2, 4), (6, 6)] {
      #expect(throws: Failure.invalidArgument) {
        try space.unreserve(Self.pages(UInt64(first), UInt64(last)))
      }
    }
    #expect(space.statistics.reservedCount == 1)
  }

  // MARK: - Bounds and statistics

  @Test func boundsThatAreNotWholeGranulesAreRefused() throws {
    for (first, last) in [(0x800, 0x1FFF), (0x1000, 0x1800), (0x1000, 0x2000)] {
      #expect(throws: Failure.invalidArgument) {
        let bounds = try IOVARange(first: IOVA(UInt64(first)), last: IOVA(UInt64(last)))
        _ = try checkedSpace(bounds)
      }
    }
  }

  @Test func statisticsCountWhatIsInUse() throws {
    let space = try space(pages: 1, 8)
    try space.reserve(Self.pages(4, 4))
    #expect(try allocate(space, pages: 2) == 7)
    #expect(try allocate(space) == 6)
    let statistics = space.statistics
    #expect(statistics.allocatedCount == 2)
    #expect(statistics.allocatedBytes == 3 * Self.page)
    #expect(statistics.reservedCount == 1)
    #expect(statistics.reservedBytes == Self.page)
    #expect(statistics.freeBytes == 4 * Self.page)
    #expect(statistics.largestFreeBytes == 3 * Self.page)
  }

  @Test func sixteenExbibytesAreTheLargestNumber() throws {
    let all = try IOVARange(first: IOVA(0), last: IOVA(UInt64.max))
    let space = try checkedSpace(all)
    #expect(space.statistics.freeBytes == UInt64.max)
    #expect(space.statistics.largestFreeBytes == UInt64.max)
    try space.reserve(all)
    #expect(space.statistics.reservedBytes == UInt64.max)
    #expect(space.statistics.freeBytes == 0)
    #expect(space.statistics.largestFreeBytes == 0)
    try space.unreserve(all)
    #expect(space.statistics.freeBytes == UInt64.max)
  }

  /// Of whose number the 64 bits are 0.
  @Test(arguments: [false, true])
  func aSpaceMayHave2To64Granules(isChecked: Bool) throws {
    let all = try IOVARange(first: IOVA(0), last: IOVA(UInt64.max))
    let space =
      isChecked
      ? try checkedSpace(all, granule: Granule(shift: 0))
      : try cachedSpace(all, granule: Granule(shift: 0))
    #expect(space.largestFree(in: all) == UInt64.max)
    try space.reserve(all)
    #expect(space.statistics.reservedBytes == UInt64.max && space.statistics.freeBytes == 0)
    #expect(throws: Failure.noSpace) {
      try space.allocate(size: 1, alignment: 0, limit: UInt64.max)
    }
    try space.unreserve(all)
    #expect(
      try space.allocate(size: UInt64.max, IOVAConstraints(placement: .bottomUp)) == IOVA(0))
    #expect(
      try space.allocate(size: 1, alignment: 0, limit: UInt64.max) == IOVA(UInt64.max))
    #expect(space.statistics.allocatedBytes == UInt64.max && space.statistics.freeBytes == 0)
    try space.free(first: IOVA(UInt64.max), size: 1)
    try space.free(first: IOVA(0), size: UInt64.max)
    space.drain()
    #expect(space.largestFree(in: all) == UInt64.max)
  }

  @Test func anAlignmentThatIsNoPowerOfTwoIsInvalidHoweverTheRangeIsPlaced() throws {
    let space = try space(pages: 1, 8)
    for placement in [.anywhere, .topDown, .bottomUp, .exact] as [IOVAConstraints.Placement] {
      #expect(throws: Failure.invalidArgument) {
        try space.allocate(
          size: 1, IOVAConstraints(placement: placement, alignment: 3, first: Self.page))
      }
    }
  }

  @Test func aGranuleOfOneByteIsAnOrdinaryOne() throws {
    let space = try checkedSpace(
      IOVARange(first: IOVA(10), last: IOVA(12)), granule: Granule(shift: 0))
    #expect(try space.allocate(size: 2, alignment: 2, limit: UInt64.max) == IOVA(10))
    #expect(try space.allocate(size: 1, alignment: 0, limit: UInt64.max) == IOVA(12))
    #expect(throws: Failure.noSpace) {
      try space.allocate(size: 1, alignment: 0, limit: UInt64.max)
    }
  }
}
