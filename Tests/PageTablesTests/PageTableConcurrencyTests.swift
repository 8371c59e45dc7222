// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization
import TestSupport
import Testing

@testable import PageTables

/// Ranges of a shared table, each of which a mapper and an unmapper have in turns.
private final class Slots: Sendable {
  /// A part of a slot that is mapped by one call.
  struct Piece: Sendable {
    let offset: UInt64
    let size: UInt64
  }

  let shared: SharedTable
  private let size: UInt64
  private let pieces: [Piece]
  private let mappersLeft = Atomic<Int>(2)
  // Which piece of the slot is mapped, counted from 1; 0: none.
  private let states: [State]

  private final class State: Sendable {
    let piece = Atomic<Int>(0)
  }

  init(_ shared: SharedTable, count: Int, size: UInt64, pieces: [Piece]) {
    self.shared = shared
    self.size = size
    self.pieces = pieces
    states = (0..<count).map { _ in State() }
  }

  private var areMapped: Bool { mappersLeft.load(ordering: .acquiring) > 0 }

  private func bounds(_ slot: Int) -> ClosedRange<UInt64> {
    let first = shared.family.base + UInt64(slot) * size
    return first...(first + (size - 1))
  }

  /// Neighbours permit different things.
  private func access(_ slot: Int) -> Access { slot % 2 == 0 ? .read : [.read, .write] }

  private func check(_ slot: Int, _ piece: Piece, isMapped: Bool) throws {
    let first = bounds(slot).lowerBound + piece.offset
    for address in [first, first + (piece.size - 1)] {
      try shared.check(address, isMapped: isMapped, in: bounds(slot), access(slot))
    }
  }

  /// Maps a piece of one of the slots with an even or an odd number, so many times.
  func map(parity: Int, times: Int, _ generator: inout SeededGenerator) throws {
    defer { mappersLeft.subtract(1, ordering: .acquiringAndReleasing) }
    for _ in 0..<times {
      let slot = generator.below(states.count / 2) * 2 + parity
      // Acquiring: pairs with the release in unmap.
      guard states[slot].piece.load(ordering: .acquiring) == 0 else { continue }
      let number = generator.below(pieces.count)
      let piece = pieces[number]
      try shared.map(bounds(slot).lowerBound + piece.offset, piece.size, access(slot))
      try check(slot, piece, isMapped: true)
      states[slot].piece.store(number + 1, ordering: .releasing)
    }
  }

  /// Unmaps what is mapped in these slots, until nothing is and nothing comes.
  func unmap(parity: Int) throws {
    var isLast = false
    while !isLast {
      isLast = !areMapped
      for slot in stride(from: parity, to: states.count, by: 2) {
        // Acquiring: pairs with the release in map.
        let number = states[slot].piece.load(ordering: .acquiring)
        guard number > 0 else { continue }
        let piece = pieces[number - 1]
        try shared.unmap(bounds(slot).lowerBound + piece.offset, piece.size)
        try check(slot, piece, isMapped: false)
        states[slot].piece.store(0, ordering: .releasing)
      }
      shared.reclaim()
    }
  }

  /// Looks addresses up while there are mappers.
  func walk(byWords: Bool, _ generator: inout SeededGenerator) throws {
    while areMapped {
      let slot = generator.below(states.count)
      let address = bounds(slot).lowerBound + UInt64(generator.below(Int(size)))
      _ = try shared.find(address, byWords: byWords, in: bounds(slot), access(slot))
    }
  }

  /// Two mappers, two unmappers, and a walker of each kind at once.
  func run(times: Int) throws {
    try onThreads(6) { index in
      var generator = SeededGenerator(seed: RunSettings.seed &+ UInt64(index))
      switch index {
      case 0, 1: try self.map(parity: index, times: times, &generator)
      case 2, 3: try self.unmap(parity: index - 2)
      default: try self.walk(byWords: index == 5, &generator)
      }
    }
    try shared.checkEmpty()
  }
}

@Suite("PageTable on several threads")
struct PageTableConcurrencyTests {
  /// Ranges that share every table, down to the lowest one.
  @Test(arguments: TableFamily.all, [true, false])
  func neighbouringPagesDoNotDisturbEachOther(_ family: TableFamily, isOnHeap: Bool) throws {
    let slots = Slots(
      try SharedTable(family, isOnHeap: isOnHeap), count: 256, size: family.granule,
      pieces: [Slots.Piece(offset: 0, size: family.granule)])
    try slots.run(times: RunSettings.steps(200))
  }

  /// Stretches that are mapped by pages, by runs and as a whole in turns, so that leaves replace tables
  /// that walkers are inside, and the tables are reclaimed beside them.
  @Test(arguments: TableFamily.all, [true, false])
  func leavesOfAllSizesDoNotDisturbEachOther(_ family: TableFamily, isOnHeap: Bool) throws {
    let (granule, large) = (family.granule, family.large)
    var pieces = family.leafSizes.flatMap { size in
      [0, (large - size) / 2 & ~(size - 1), large - size].map {
        Slots.Piece(offset: $0, size: size)
      }
    }
    // More than one leaf, to the middle of what could be one.
    pieces.append(Slots.Piece(offset: large - 40 * granule, size: 39 * granule))
    let slots = Slots(
      try SharedTable(family, isOnHeap: isOnHeap), count: 8, size: large, pieces: pieces)
    try slots.run(times: RunSettings.steps(100))
  }

  /// Tables that several threads want at the same moment are put in place once, and none is lost; and
  /// what a thread has mapped is there for hardware, whoever put the tables above in place.
  @Test(arguments: TableFamily.all, [true, false])
  func threadsThatNeedTheSameTableShareOne(_ family: TableFamily, isOnHeap: Bool) throws {
    let (granule, large) = (family.granule, family.large)
    // Each needs a table of its own at the lowest level.
    let firsts = (0..<8).map { family.base + UInt64($0) * large }
    for _ in 0..<2 {
      let alone = try SharedTable(family, isOnHeap: isOnHeap)
      for first in firsts { try alone.map(first, granule) }
      let shared = try SharedTable(family, isOnHeap: isOnHeap)
      try onThreads(4) { index in
        for first in firsts {
          let own = first + UInt64(index) * granule
          try shared.map(own, granule)
          try shared.check(own, isMapped: true, in: own...(own + (granule - 1)))
        }
      }
      for own in firsts.flatMap({ first in (0..<4).map { first + $0 * granule } }) {
        try shared.check(own, isMapped: true, in: own...(own + (granule - 1)))
        try shared.unmap(own, granule)
      }
      #expect(shared.table.statistics.tableCount == alone.table.statistics.tableCount)
      try shared.checkEmpty()
    }
  }

  /// Of a leaf that is split, what stays mapped is mapped at every moment.
  @Test(arguments: TableFamily.all, [true, false])
  func whatIsLeftOfASplitLeafIsAlwaysMapped(_ family: TableFamily, isOnHeap: Bool) throws {
    let shared = try SharedTable(family, isOnHeap: isOnHeap)
    let (granule, large) = (family.granule, family.large)
    for round in 0..<3 {
      for size in family.leafSizes.dropFirst() {
        let first = family.base + UInt64(round) % 8 * large
        let leaf = first...(first + (size - 1))
        try shared.map(first, size)
        let count = Int(size / granule)
        let isOver = Flag()
        try onThreads(3) { index in
          var generator = SeededGenerator(seed: RunSettings.seed &+ UInt64(round * 3 + index))
          if index == 0 {
            defer { isOver.set() }
            // The odd pages of a few, from anywhere on.
            let start = generator.below(max(1, count / 8)) * 8
            for page in stride(from: start + 1, to: min(start + 8, count), by: 2) {
              try shared.unmap(first + UInt64(page) * granule, granule, splitting: true)
            }
          } else {
            while !isOver.isSet {
              let page = generator.below(count / 2) * 2
              let isMapped = try shared.find(
                first + UInt64(page) * granule + 8, byWords: index == 2, in: leaf)
              try demand(isMapped, "page \(page) of a leaf of \(hex(size)) bytes is mapped")
            }
          }
        }
        _ = try shared.table.unmap(
          IOVARange(first: IOVA(first), size: size), crossingHoles: true)
        shared.reclaim()
      }
    }
    try shared.checkEmpty()
  }

  /// Statistics may be read at any time; they are sums of what the threads do.
  @Test func countsAreExactWhenTheThreadsHaveEnded() throws {
    let shared = try TinyTable()
    try onThreads(4) { index in
      for round in 0..<16 {
        // Sixteen granules each, of the 256 that there are: a table's worth, or four.
        let first = UInt64(index * 64 + round % 4 * 16) << 12
        let range = try IOVARange(first: IOVA(first), size: 16 << 12)
        try shared.table.map(range, to: PhysicalAddress(first), access: .read)
        _ = shared.table.statistics
        guard round < 12 else { continue }
        let unmapped = try shared.table.unmap(range, crossingHoles: false)
        try demandSame(unmapped, 16 << 12, "bytes unmapped at \(hex(first))")
      }
    }
    #expect(shared.table.statistics.mappedBytes == 256 << 12)
    let leafCount = shared.table.leaves().count
    #expect(leafCount == 16)
    #expect(shared.table.statistics.tableCount == UInt64(shared.pages.liveCount))
  }

  private final class TinyTable: @unchecked Sendable {
    let pages = TablePages()
    let table: PageTable<TinyFormat>

    init() throws { table = try PageTable(levels: 4, allocator: pages.allocator) }
  }
}
