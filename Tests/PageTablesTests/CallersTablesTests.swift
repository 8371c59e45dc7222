// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Foundation
import Primitives
import ReferenceModels
import TestSupport
import Testing

@testable import PageTables

/// Tables in pages that a caller allocates, and that somebody else may write to.
@Suite("PageTable: caller's tables")
struct CallersTablesTests {
  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 1 << 21
  private static let huge: UInt64 = 1 << 30

  private typealias Table = PageTable<VTdSecondStage>

  private func range(_ first: UInt64, _ size: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first), size: size)
  }

  @Test func theRootIsWhereTheAllocatorPutIt() throws {
    let pages = TablePages(firstPhysical: 0x77_0000_0000)
    let table = try Table(levels: 4, allocator: pages.allocator)
    let root = table.rootAddress
    #expect(root == PhysicalAddress(0x77_0000_0000))
  }

  /// Hardware follows the physical addresses in the words: they lead through the caller's pages, and
  /// every word that was not written is zero.
  @Test(arguments: 3...5)
  func hardwareFindsWhatIsMapped(levels: Int) throws {
    let pages = TablePages()
    let table = try Table(levels: levels, allocator: pages.allocator)
    try table.map(range(0x5000, Self.page), to: PhysicalAddress(0xABC000), access: .read)
    try table.map(range(Self.large, Self.large), to: PhysicalAddress(Self.huge), access: .write)
    try table.map(
      range(Self.huge, Self.huge), to: PhysicalAddress(7 * Self.huge), access: [.read, .write])
    let root = table.rootAddress.rawValue
    let walk = HardwareWalk(root: root, levels: levels, read: pages.word)
    #expect(walk.translate(0x5123) == .translated(0xABC123, canRead: true, canWrite: false))
    #expect(
      walk.translate(Self.large + 0x12345)
        == .translated(Self.huge + 0x12345, canRead: false, canWrite: true))
    #expect(
      walk.translate(2 * Self.huge - 1)
        == .translated(8 * Self.huge - 1, canRead: true, canWrite: true))
    #expect(walk.translate(0x6000) == .notPresent(level: 1))
    #expect(walk.translate(2 * Self.large) == .notPresent(level: 2))
    #expect(walk.translate(2 * Self.huge) == .notPresent(level: 3))
    let words = pages.hosts.values.flatMap { host in (0..<512).map { host[$0] } }
    #expect(words.count { $0 != 0 } == levels - 1 + 3)
  }

  @Test func tablesEndWithEveryPageGivenBackOnce() throws {
    let pages = TablePages()
    do {
      let table = try Table(levels: 5, allocator: pages.allocator)
      try table.map(
        range((1 << 48) - Self.page, 2 * Self.page), to: PhysicalAddress(0), access: .read)
      #expect(pages.liveCount == 9)
    }
    #expect(pages.liveCount == 0)
    #expect(pages.misuses.isEmpty)
  }

  /// An allocator whose every page is skewed, and that counts what it gave and got back.
  private final class SkewedPages: @unchecked Sendable {
    let skew: (host: Int, physical: UInt64)
    var liveCount = 0

    init(host: Int, physical: UInt64) { skew = (host, physical) }

    var allocator: dmacore_table_allocator {
      dmacore_table_allocator(
        struct_size: MemoryLayout<dmacore_table_allocator>.size,
        allocate: { size, page, opaque in
          let pages = Unmanaged<SkewedPages>.fromOpaque(opaque!).takeUnretainedValue()
          pages.liveCount += 1
          let host = UnsafeMutableRawPointer.allocate(byteCount: 2 * size, alignment: size)
          page!.pointee.host = host + pages.skew.host
          page!.pointee.phys = 0x10_0000 + pages.skew.physical
          return 0
        },
        free: { page, _, opaque in
          let pages = Unmanaged<SkewedPages>.fromOpaque(opaque!).takeUnretainedValue()
          pages.liveCount -= 1
          (page!.pointee.host! - pages.skew.host).deallocate()
        },
        opaque: Unmanaged.passUnretained(self).toOpaque())
    }
  }

  @Test(arguments: [(8, 0), (0, 8), (0, 2048), (0, UInt64(1) << 52)])
  func aPageThatCannotBeUsedIsGivenBackAndCountsAsNone(_ skew: (host: Int, physical: UInt64)) {
    let pages = SkewedPages(host: skew.host, physical: skew.physical)
    #expect(throws: Failure.noMemory) {
      _ = try PageTable<VTdSecondStage>(levels: 3, allocator: pages.allocator)
    }
    #expect(pages.liveCount == 0)
  }

  // MARK: - Hostile pages

  /// Overwrites each word of some pages.
  private func scribble(
    _ hosts: some Sequence<UnsafeMutablePointer<UInt64>>, _ word: (Int) -> UInt64
  ) {
    for host in hosts { for index in 0..<512 { host[index] = word(index) } }
  }

  /// Words that would lead a walk that believed them astray: tables at addresses where none is, at
  /// address 0, at the page itself; leaves; reserved bits; nothing.
  private static let hostileWords: [UInt64] = [
    0, UInt64.max, 0x3, 0x0000_7FFF_DEAD_B003, 0x000F_FFFF_FFFF_F083, 0x1000_0001, 0x83,
    0x4000_0083,
    0x81, 0x2,
  ]

  @Test(arguments: hostileWords)
  func whatOthersWriteIntoUpperTablesLeadsNoWalkAstray(_ word: UInt64) throws {
    let pages = TablePages()
    let table = try Table(levels: 4, allocator: pages.allocator)
    let root = table.rootAddress.rawValue
    try table.map(range(Self.huge, Self.page), to: PhysicalAddress(0x5000), access: .read)
    // All tables but that which holds the leaf: its words are the only ones that are not zero and
    // no table's.
    let upper = pages.hosts.filter { physical, host in
      physical == root || !(0..<512).contains { host[$0] == 0x5001 }
    }
    #expect(upper.count == 3)
    scribble(upper.values) { _ in word }
    let found = table.lookUp(IOVA(Self.huge))
    #expect(found.target == 0x5000)
    #expect([found.first, found.last] == [Self.huge, Self.huge + Self.page - 1])
    #expect(try table.unmap(range(Self.huge, Self.page), crossingHoles: false) == Self.page)
    let isMapped = table.lookUp(IOVA(Self.huge)).isMapped
    #expect(!isMapped)
  }

  @Test(arguments: hostileWords)
  func aSpoiltTableSpoilsNoOther(_ word: UInt64) throws {
    let pages = TablePages()
    let table = try Table(levels: 3, allocator: pages.allocator)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x5000), access: .read)
    try table.map(range(Self.huge, Self.page), to: PhysicalAddress(0x6000), access: .read)
    let spoilt = pages.hosts.values.filter { $0[0] == 0x5001 }
    scribble(spoilt) { _ in word }
    let target = table.lookUp(IOVA(Self.huge)).target
    #expect(target == 0x6000)
    // What it says of its own range is its own, and no more than that range.
    let found = table.lookUp(IOVA(0))
    #expect([found.first, found.last] == [0, Self.page - 1])
    _ = try table.unmap(range(0, Self.large), crossingHoles: true)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x7000), access: .read)
    let mapped = table.lookUp(IOVA(0)).target
    #expect(mapped == 0x7000)
  }

  /// Scribbling between random calls: nothing is read or freed that is not the table's, which the
  /// address sanitizer watches, and every page comes back.
  @Test func noScribblingLosesOrFreesAPageWrongly() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    for _ in 0..<8 {
      let pages = TablePages()
      do {
        let table = try Table(levels: 3, allocator: pages.allocator)
        for _ in 0..<RunSettings.steps(120) {
          try step(table, pages, &generator)
          let count = table.statistics.tableCount
          try demandSame(count, UInt64(pages.liveCount), "tables")
        }
      }
      try demandSame(pages.liveCount, 0, "pages left behind")
      try demandSame(pages.misuses, [], "frees of pages")
    }
  }

  private func step(
    _ table: borrowing Table, _ pages: TablePages, _ generator: inout SeededGenerator
  ) throws {
    let unit = generator.one(of: [Self.page, Self.page, Self.large, Self.huge])
    let first = UInt64(generator.below(4)) * unit
    let some = try range(first, unit * UInt64(1 + generator.below(3)))
    // What the calls say is spoilt with the words; that they end well is what counts.
    switch generator.below(8) {
    case 0...2:
      try? table.map(some, to: PhysicalAddress(first), access: .read)
    case 3:
      try? table.map(some, to: PhysicalAddress(first), access: .read, isKnownFree: true)
    case 4:
      _ = try? table.unmap(some, crossingHoles: generator.onceIn(2))
    case 5:
      for place in [first, first + unit, first &- 1] { _ = table.lookUp(IOVA(place)) }
    case 6:
      table.reclaim(after: {})
    default:
      let hosts = pages.hosts
      let host = hosts[generator.one(of: hosts.keys.sorted())]!
      let addresses = hosts.keys.sorted()
      for _ in 0..<64 {
        let index = generator.below(generator.onceIn(2) ? 8 : 512)
        host[index] =
          generator.onceIn(3)
          ? generator.one(of: addresses) | 3 : generator.one(of: Self.hostileWords)
      }
    }
  }
}
