// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import MachineSupport
import Primitives
import TestSupport
import Testing

@Suite("Wrong frees of IOVAs")
struct WrongFreesTests {
  private func report(_ first: UInt64, _ bytes: UInt64) -> Reports.Report {
    Reports.Report(
      level: 0, error: 22, object: "IOVA space",
      text: "free of 0x\(String(first, radix: 16)), \(bytes) bytes: "
        + "no range is allocated that starts there and has this size")
  }

  private func allocate(_ space: borrowing IOVASpace, pages count: UInt64 = 1) throws -> UInt64 {
    try space.allocate(size: count * page, alignment: 0, limit: UInt64.max).rawValue
  }

  /// Frees pages of a space with caches, wrongly; the cache may take them or not.
  private func free(_ space: borrowing IOVASpace, _ first: UInt64, pages count: UInt64 = 1) {
    try? space.free(first: IOVA(first), size: count * page)
  }

  private func expectCounts(
    _ space: borrowing IOVASpace, allocated: UInt64, pages count: UInt64, refused: UInt64,
    total: UInt64 = 64
  ) {
    let statistics = space.statistics
    #expect(statistics.allocatedCount == allocated)
    #expect(statistics.allocatedBytes == count * page)
    #expect(statistics.freeBytes == (total - count) * page)
    #expect(statistics.refusedFrees == refused)
  }

  @Test func aCheckedSpaceRefusesEveryWrongFreeAtOnce() throws {
    let reports = Reports()
    let space = try checkedSpace(pages(0, 63), reports: reports)
    let first = try allocate(space, pages: 4)
    let wrong =
      [
        (first, 3), (first, 5), (first + page, 1), (first - page, 4), (first + 1, 4), (0, 1),
        (64 * page, 1), (first, 0),
      ] as [(UInt64, UInt64)]
    for (number, (address, count)) in wrong.enumerated() {
      #expect(throws: Failure.invalidArgument) {
        try space.free(first: IOVA(address), size: count * page)
      }
      expectCounts(space, allocated: 1, pages: 4, refused: UInt64(number + 1))
    }
    #expect(reports.all == wrong.map { report($0, $1 * page) })
    try space.free(first: IOVA(first), size: 4 * page)
    #expect(throws: Failure.invalidArgument) {
      try space.free(first: IOVA(first), size: 4 * page)
    }
    expectCounts(space, allocated: 0, pages: 0, refused: UInt64(wrong.count + 1))
  }

  @Test func aSecondFreeIsRefusedWhenItComesBack() throws {
    let reports = Reports()
    let space = try cachedSpace(pages(0, 63), reports: reports)
    let first = try allocate(space)
    free(space, first)
    free(space, first)
    space.drain()
    expectCounts(space, allocated: 0, pages: 0, refused: 1)
    #expect(space.statistics.largestFreeBytes == 64 * page)
    #expect(reports.all == [report(first, page)])
  }

  @Test func aRangeThatWasNeverAllocatedIsRefusedWhenItComesBack() throws {
    let reports = Reports()
    let space = try cachedSpace(pages(0, 63), reports: reports)
    let first = try allocate(space)
    free(space, 5 * page)
    space.drain()
    expectCounts(space, allocated: 1, pages: 1, refused: 1)
    #expect(reports.all == [report(5 * page, page)])
    try space.free(first: IOVA(first), size: page)
    expectCounts(space, allocated: 0, pages: 0, refused: 1)
  }

  @Test(arguments: [(0, 2), (0, 1), (1, 1), (2, 2), (3, 1), (0, 8)] as [(UInt64, UInt64)])
  func aPartOfARangeOrMoreThanItIsRefusedWhenItComesBack(skipped: UInt64, count: UInt64) throws {
    let reports = Reports()
    let space = try cachedSpace(pages(0, 63), reports: reports)
    _ = try allocate(space)
    _ = try allocate(space, pages: 2)
    _ = try allocate(space, pages: 8)
    let first = try allocate(space, pages: 4)
    let start = first & ~(count * page - 1) + skipped * page
    free(space, start, pages: count)
    space.drain()
    expectCounts(space, allocated: 4, pages: 15, refused: 1)
    #expect(reports.all == [report(start, count * page)])
    try space.free(first: IOVA(first), size: 4 * page)
    space.drain()
    expectCounts(space, allocated: 3, pages: 11, refused: 1)
  }

  @Test func whatNoCacheTakesIsRefusedAtOnce() throws {
    let reports = Reports()
    let space = try cachedSpace(pages(1, 64), reports: reports)
    _ = try allocate(space)
    let wrong = [(6, 3), (3, 2), (0, 1), (65, 1), (64, 2), (5, 0)] as [(UInt64, UInt64)]
    for (start, count) in wrong {
      #expect(throws: Failure.invalidArgument) {
        try space.free(first: IOVA(start * page), size: count * page)
      }
    }
    #expect(throws: Failure.invalidArgument) {
      try space.free(first: IOVA(6 * page + 1), size: page)
    }
    expectCounts(space, allocated: 1, pages: 1, refused: UInt64(wrong.count + 1))
    #expect(
      reports.all == wrong.map { report($0 * page, $1 * page) } + [report(6 * page + 1, page)])
  }

  @Test func aReservationIsNotFreed() throws {
    let reports = Reports()
    let space = try cachedSpace(pages(0, 63), reports: reports)
    try space.reserve(pages(3, 3))
    _ = try allocate(space)
    free(space, 3 * page)
    space.drain()
    #expect(reports.all == [report(3 * page, page)])
    #expect(space.statistics.reservedCount == 1)
    #expect(throws: Failure.busy) { try space.reserve(pages(3, 3)) }
  }

  /// Two got the same range because of a second free; when both have freed it, one is refused.
  @Test func whatTwoWereGivenIsRefusedOnce() throws {
    let reports = Reports()
    let space = try cachedSpace(pages(0, 63), reports: reports)
    let first = try allocate(space)
    free(space, first)
    free(space, first)
    let both = [try allocate(space), try allocate(space)]
    for address in both { free(space, address) }
    space.drain()
    expectCounts(space, allocated: 0, pages: 0, refused: 1)
    #expect(reports.all == [report(first, page)])
  }

  @Test func aWrongFreeIsRefusedUnderPressureToo() throws {
    let reports = Reports()
    let space = try cachedSpace(pages(0, 63), reports: reports)
    let first = try allocate(space)
    free(space, first)
    free(space, first)
    #expect(try allocate(space, pages: 64) == 0)
    expectCounts(space, allocated: 1, pages: 64, refused: 1)
    #expect(reports.all == [report(first, page)])
  }

  @Test func ofManyAtOnceAFewAreReportedAndTheRestAreCounted() throws {
    let reports = Reports()
    let space = try cachedSpace(pages(0, 63), reports: reports)
    _ = try allocate(space)
    for number in UInt64(0)..<10 { free(space, number * page) }
    space.drain()
    expectCounts(space, allocated: 1, pages: 1, refused: 10)
    #expect(reports.all.count == 5)
    #expect(
      reports.all.last?.text
        == "6 more frees of ranges that are not allocated were refused at the same time")
  }
}
