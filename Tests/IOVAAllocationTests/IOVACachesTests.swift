// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import IOVAAllocation

// A thread may be moved to another processor at any time, whose cache is another one. So these tests
// say how much the caches do at least, not exactly what.

@Suite("IOVACaches")
struct IOVACachesTests {
  private func allocate(_ shared: SharedSpace, _ count: Int) throws -> [IOVA] {
    try (0..<count).map { _ in try #require(try shared.allocate()) }
  }

  private func space(pages last: UInt64 = 0xFFFF) throws -> SharedSpace {
    try SharedSpace(pages(1, last), isChecked: false)
  }

  @Test func whatWasFreedIsFoundAgain() throws {
    let shared = try space()
    var first: Set<UInt64> = []
    for _ in 0..<200 {
      let address = try #require(try shared.allocate())
      first.insert(address.rawValue)
      try shared.free(address)
    }
    let statistics = shared.space.statistics
    #expect(statistics.cacheFrees == 200)
    #expect(statistics.cacheAllocations >= 150)
    #expect(statistics.storeAllocations == 200 - statistics.cacheAllocations)
    #expect(first.count == Int(statistics.storeAllocations))
    #expect(statistics.cachedCount == statistics.storeAllocations)
    #expect(statistics.freeBytes == 0xFFFF * page)
  }

  @Test func onlyPowersOfTwoAlignedToThemselvesAreCached() throws {
    let shared = try space()
    let three = try #require(try shared.allocate(pages: 3))
    try shared.free(three, pages: 3)
    #expect(shared.space.statistics.cacheFrees == 0)
    let skewed = try shared.space.allocate(
      size: 2 * page, IOVAConstraints(alignment: 2 * page, skew: page))
    _ = try shared.allocate(pages: 2)
    try shared.free(skewed, pages: 2)
    #expect(shared.space.statistics.cacheFrees == 0)
    #expect(shared.space.statistics.storeFrees == 2)
  }

  @Test func aFullRackSpillsToTheDepotForOthers() throws {
    let shared = try space()
    let capacity = IOVAMagazine.capacity
    let all = try allocate(shared, 6 * capacity)
    for address in all { try shared.free(address) }
    // As many magazines were made as allocations leave, and no more while ranges are freed.
    let statistics = shared.space.statistics
    let cached = IOVAStore.emptiesWanted * capacity
    #expect(statistics.cachedCount <= UInt64(cached))
    #expect(statistics.cachedCount > UInt64(cached - 2 * capacity))
    #expect(statistics.cachedCount == statistics.cacheFrees)
    #expect(statistics.storeFrees == UInt64(6 * capacity) - statistics.cacheFrees)
    shared.space.lock.lock()
    let full = shared.space.store.pointee.fullCount(IOVAKind(order: 0, isHigh: false))
    shared.space.lock.unlock()
    #expect(full >= 1)
    // Another thread, wherever it runs, gets the depot's at least.
    try onThreads(1) { _ in
      for _ in 0..<full * capacity { _ = try shared.allocate() }
    }
    #expect(shared.space.statistics.cacheAllocations >= UInt64(full * capacity))
  }

  @Test func whatAnotherThreadFreedIsFoundAgain() throws {
    let shared = try space()
    for _ in 0..<10 {
      let mine = try allocate(shared, 500)
      try onThreads(1) { _ in for address in mine { try shared.free(address) } }
    }
    let statistics = shared.space.statistics
    #expect(statistics.cacheAllocations > 1_000)
    #expect(statistics.allocatedCount == 0 && statistics.freeBytes == 0xFFFF * page)
    shared.space.drain()
    #expect(shared.space.statistics.refusedFrees == 0)
    #expect(shared.space.statistics.largestFreeBytes == 0xFFFF * page)
  }

  @Test func aCachedRangeAboveTheLimitIsPassedOver() throws {
    let shared = try space(pages: 8)
    // The highest is freed last, and so is the first to be looked at.
    for address in try allocate(shared, 8).reversed() { try shared.free(address) }
    for limit in 1...8 {
      let found = try shared.space.allocate(
        size: page, alignment: 0, limit: UInt64(limit) * page + (page - 1))
      #expect(found.rawValue <= UInt64(limit) * page)
    }
    #expect(shared.space.statistics.freeBytes == 0)
  }

  @Test func underPressureEverythingComesBack() throws {
    let shared = try space(pages: 600)
    let all = try allocate(shared, 600)
    for address in all { try shared.free(address) }
    #expect(shared.space.statistics.cachedCount > 0)
    #expect(try shared.allocate(pages: 600) == IOVA(page))
    let statistics = shared.space.statistics
    #expect(statistics.drains == 1 && statistics.cachedCount == 0 && statistics.freeBytes == 0)
    try shared.free(IOVA(page), pages: 600)
    for address in try allocate(shared, 600) { try shared.free(address) }
    try shared.space.reserve(pages(1, 600))
    #expect(shared.space.statistics.freeBytes == 0)
  }

  @Test func aCachedRangeIsFreeForConstraintsAndReservations() throws {
    let shared = try space(pages: 4)
    for address in try allocate(shared, 4) { try shared.free(address) }
    #expect(
      try shared.space.allocate(size: page, IOVAConstraints(placement: .exact, first: 2 * page))
        == IOVA(2 * page))
    try shared.space.reserve(pages(3, 4))
    #expect(try shared.allocate() == IOVA(page))
    #expect(try shared.allocate() == nil)
  }

  @Test func aKindThatNobodyUsesIsRetiredAndOneInUseIsNot() throws {
    let shared = try space()
    for address in try allocate(shared, 600) { try shared.free(address) }
    #expect(shared.space.statistics.cachedCount > 200)
    var rounds = 0
    while shared.space.statistics.cachedCount > 8, rounds < 40 {
      for _ in 0..<256 {
        let two = try #require(try shared.allocate(pages: 2))
        let three = try #require(try shared.allocate(pages: 3))
        try shared.free(three, pages: 3)
        try shared.free(two, pages: 2)
      }
      rounds += 1
    }
    // What is left are those of two pages.
    let statistics = shared.space.statistics
    #expect(statistics.cachedCount <= 8 && statistics.cachedBytes <= 16 * page)
    #expect(statistics.cacheAllocations > UInt64(rounds * 200))
    #expect(statistics.drains == 0 && statistics.freeBytes == 0xFFFF * page)
  }

  @Test func drainingGivesTheMemoryBack() throws {
    let shared = try space()
    let before = shared.space.statistics.metadataBytes
    for address in try allocate(shared, 2_000) { try shared.free(address) }
    let full = shared.space.statistics.metadataBytes
    shared.space.drain()
    let statistics = shared.space.statistics
    #expect(full >= before + UInt64(IOVAStore.emptiesWanted * IOVAMagazine.size))
    // A few nodes for the next insertions stay.
    let spare = UInt64(5 * IOVANode.leafSize + 6 * IOVANode.innerSize)
    #expect(statistics.metadataBytes <= before + spare)
    #expect(shared.space.store.pointee.magazineCount == 0)
    #expect(statistics.cachedCount == 0 && statistics.largestFreeBytes == 0xFFFF * page)
    #expect(statistics.drains == 1)
  }

  @Test func inASteadyStateNoMagazinesAreMade() throws {
    let shared = try space()
    func round(_ count: Int) throws {
      for address in try allocate(shared, count) { try shared.free(address) }
    }
    for _ in 0..<20 { try round(300) }
    let settled = shared.space.store.pointee.magazineCount
    for _ in 0..<200 { try round(300) }
    // A processor that was not met before may want its own.
    let most = settled + 4 * shared.space.caches.cellCount
    #expect(shared.space.store.pointee.magazineCount <= most)
    #expect(shared.space.store.pointee.magazineCount <= shared.space.magazinesMax)
  }

  @Test func magazinesAreBoundedHoweverManyKindsThereAre() throws {
    let shared = try SharedSpace(pages(0, 0xFF_FFFF), isChecked: false)
    for order in 0..<12 {
      let count = UInt64(1) << UInt64(order)
      let all = try (0..<400).map { _ in try #require(try shared.allocate(pages: count)) }
      for address in all { try shared.free(address, pages: count) }
    }
    #expect(shared.space.store.pointee.magazineCount <= shared.space.magazinesMax)
    #expect(shared.space.statistics.freeBytes == 0x100_0000 * page)
  }
}
