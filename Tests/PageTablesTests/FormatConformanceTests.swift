// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import ReferenceModels
import TestSupport
import Testing

@testable import PageTables

/// What the algorithm relies on in every format, and what it does with every format.
@Suite("Format conformance")
struct FormatConformanceTests {
  // MARK: - The codec

  @Test(arguments: FormatCase.all)
  func zeroIsAnEmptyEntry(_ test: FormatCase) {
    func check<F: PageTableFormat>(_: F.Type) {
      for level in 0..<F.levelCounts.upperBound { #expect(F.decode(0, at: level) == .empty) }
    }
    check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func aTableFitsItsPage(_ test: FormatCase) {
    func check<F: PageTableFormat>(_: F.Type) {
      #expect(8 << UInt64(F.indexBits) <= F.granule.bytes)
    }
    check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func theSmallestPageIsALeafAndNothingIsNoPermission(_ test: FormatCase) {
    func check<F: PageTableFormat>(_: F.Type) {
      #expect(F.hasLeaf(at: 0))
      #expect(!F.canExpress([]))
      #expect(F.canExpress([.read, .write]))
    }
    check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func aLeafSaysWhatWasPutIntoIt(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      var generator = SeededGenerator(seed: RunSettings.seed)
      for level in 0..<F.levelCounts.upperBound where F.hasLeaf(at: level) {
        let inside = F.spanMask(at: level)
        let random = (0..<20).map { _ in generator.next() & F.lastOutput }
        for output in [0, inside + 1, F.lastOutput] + random {
          let address = PhysicalAddress(output & ~inside)
          for access in Self.accesses(of: F.self) {
            let word = F.leaf(address, access, at: level)
            try demandSame(F.decode(word, at: level), .leaf(address, access), "entry \(hex(word))")
          }
        }
      }
    }
    try check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func aTableEntrySaysWhereTheTableIs(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      var generator = SeededGenerator(seed: RunSettings.seed)
      for level in 1..<F.levelCounts.upperBound {
        for address in [0, F.granule.bytes, F.lastOutput] + (0..<20).map({ _ in generator.next() })
        {
          let table = PhysicalAddress(address & F.lastOutput & ~F.granule.mask)
          try demandSame(F.decode(F.table(table), at: level), .table(table), "entry")
        }
      }
    }
    try check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func noWordIsATableAtTheLowestLevelOrALeafWhereNoneIs(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      var generator = SeededGenerator(seed: RunSettings.seed)
      for _ in 0..<5_000 {
        // Few bits set and many: formats tell by few.
        let word =
          generator.next() & generator.next() & (generator.onceIn(2) ? generator.next() : ~0)
        if case .table = F.decode(word, at: 0) { throw Divergence("\(hex(word)) is a table at 0") }
        for level in 0..<F.levelCounts.upperBound {
          guard case .leaf(let output, let access) = F.decode(word, at: level) else { continue }
          try demand(F.hasLeaf(at: level), "\(hex(word)) is a leaf at \(level)")
          try demand(F.canExpress(access), "\(hex(word)) permits \(access)")
          try demand(output.rawValue <= F.lastOutput, "\(hex(word)) leads to \(output)")
        }
      }
    }
    try check(test.format)
  }

  private static func accesses<F: PageTableFormat>(of _: F.Type) -> [Access] {
    [.read, .write, [.read, .write]].filter { F.canExpress($0) }
  }

  // MARK: - The algorithm

  /// One leaf of each size, where the space starts, where it ends, and in between.
  @Test(arguments: FormatCase.all)
  func aRangeOfOneLeafIsOneLeaf(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      for levels in F.levelCounts {
        let lastInput = F.lastInput(levels: levels)
        for level in 0..<levels where F.hasLeaf(at: level) {
          let inside = F.spanMask(at: level)
          for first in [0, lastInput &- inside, (lastInput / 2) & ~inside] {
            let table = try PageTable<F>(levels: levels, allocator: nil)
            let range = try IOVARange(first: IOVA(first), last: IOVA(first + inside))
            let target = PhysicalAddress(F.lastOutput & ~inside)
            try table.map(range, to: target, access: .read)
            for address in [first, first + inside] {
              let found = table.lookUp(IOVA(address))
              try demandSame([found.first, found.last], [first, first + inside], "leaf")
              try demandSame(found.target, target.rawValue, "target")
              try demandSame(found.access, .read, "access")
            }
            let leafCount = table.leaves().count
            try demandSame(leafCount, 1, "leaves")
            let size = try table.unmap(range, crossingHoles: false)
            try demandSame(size, inside + 1, "bytes unmapped")
            let rest = table.leaves().count
            try demandSame(rest, 0, "leaves left")
          }
        }
      }
    }
    try check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func nothingIsMappedOutsideOfTheTablesWidth(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      for levels in F.levelCounts {
        let lastInput = F.lastInput(levels: levels)
        guard lastInput < UInt64.max else { continue }
        let table = try PageTable<F>(levels: levels, allocator: nil)
        let beyond = try IOVARange(first: IOVA(lastInput + 1), size: F.granule.bytes)
        #expect(throws: Failure.outOfRange) {
          try table.map(beyond, to: PhysicalAddress(0), access: .read)
        }
        #expect(throws: Failure.outOfRange) { try table.unmap(beyond, crossingHoles: true) }
        let found = table.lookUp(IOVA(UInt64.max))
        #expect(!found.isMapped)
        #expect([found.first, found.last] == [lastInput + 1, UInt64.max])
      }
    }
    try check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func numbersOfLevelsThatTheFormatLacksAreRefused(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      for levels in [0, F.levelCounts.lowerBound - 1, F.levelCounts.upperBound + 1, -1] {
        #expect(throws: Failure.invalidArgument) {
          _ = try PageTable<F>(levels: levels, allocator: nil)
        }
      }
    }
    try check(test.format)
  }

  @Test(arguments: FormatCase.all)
  func whatTheFormatCannotExpressIsRefused(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      let table = try PageTable<F>(levels: F.levelCounts.upperBound, allocator: nil)
      let range = try IOVARange(first: IOVA(0), size: F.granule.bytes)
      for access in [Access(), .read, .write, [.read, .write]] where !F.canExpress(access) {
        #expect(throws: Failure.invalidArgument) {
          try table.map(range, to: PhysicalAddress(0), access: access)
        }
      }
    }
    try check(test.format)
  }

  /// Random changes on the heap and in a caller's pages, beside a dictionary of leaves.
  @Test(arguments: FormatCase.all, [true, false])
  func randomChangesLeaveWhatADictionaryHas(_ test: FormatCase, isOnHeap: Bool) throws {
    func check<F: PageTableFormat>(_: F.Type) throws {
      for levels in F.levelCounts {
        let pages = TablePages()
        var run = FormatRun<F>(levels: levels)
        let table = try PageTable<F>(levels: levels, allocator: isOnHeap ? nil : pages.allocator)
        for _ in 0..<RunSettings.steps(150) { try run.step(table) }
        try run.compare(table)
      }
    }
    try check(test.format)
  }
}

/// A page table's run beside a model, with numbers that follow from a format.
private struct FormatRun<F: PageTableFormat> {
  private var generator = SeededGenerator(seed: RunSettings.seed)
  private var model: PageTableModel
  private let lastInput: UInt64
  private let leafSizes: [UInt64]

  init(levels: Int) {
    lastInput = F.lastInput(levels: levels)
    leafSizes = (0..<levels).filter { F.hasLeaf(at: $0) }.map { F.spanMask(at: $0) + 1 }
    model = PageTableModel(
      spans: (0..<levels).map { F.spanMask(at: $0) + 1 }, leafSizes: leafSizes,
      lastInput: lastInput, lastOutput: F.lastOutput)
  }

  mutating func step(_ table: borrowing PageTable<F>) throws {
    let (first, size) = place()
    let range = try IOVARange(first: IOVA(first), size: size)
    if generator.onceIn(2) {
      let target = target(for: first, size)
      var expected: Int32 = 0
      do throws(Refusal) {
        try model.map(first, to: target, size: size, access: 1)
      } catch { expected = error.code }
      var found: Int32 = 0
      do throws(Failure) {
        try table.map(range, to: PhysicalAddress(target), access: .read)
      } catch { found = error.code }
      try demandSame(found, expected, "map of \(hex(first))+\(hex(size)) to \(hex(target))")
    } else {
      let crosses = generator.onceIn(2)
      var expected: (Int32, UInt64) = (0, 0)
      do throws(Refusal) {
        expected.1 = try model.unmap(first, size: size, crossingHoles: crosses)
      } catch { expected.0 = error.code }
      var found: (Int32, UInt64) = (0, 0)
      do throws(Failure) {
        found.1 = try table.unmap(range, crossingHoles: crosses)
      } catch { found.0 = error.code }
      try demand(
        found == expected, "unmap of \(hex(first))+\(hex(size)): \(found), not \(expected)")
    }
    if generator.onceIn(10) {
      table.reclaim(after: {})
      model.reclaim()
    }
    for address in [first, first + (size - 1), first &- 1] {
      let found = table.lookUp(IOVA(address))
      let leaf = model.leaf(at: address)
      try demandSame(found.isMapped, leaf != nil, "whether \(hex(address)) is mapped")
      if let leaf {
        try demandSame(
          [found.first, found.last, found.target], [leaf.first, leaf.last, leaf.target],
          "leaf at \(hex(address))")
      }
    }
  }

  func compare(_ table: borrowing PageTable<F>) throws {
    let found = table.leaves().map { [$0.first, $0.last, $0.target] }
    let expected = model.leaves.values.sorted { $0.first < $1.first }
      .map { [$0.first, $0.last, $0.target] }
    try demandSame(found, expected, "leaves")
    let statistics = table.statistics
    try demandSame(statistics.mappedBytes, model.mappedBytes, "mapped bytes")
    try demandSame(statistics.tableCount, UInt64(model.tableCount), "tables")
    try demandSame(statistics.retiredCount, UInt64(model.retiredCount), "retired tables")
  }

  /// A few units of one leaf size, near the start, the end, or the border of entries of the root.
  private mutating func place() -> (first: UInt64, size: UInt64) {
    let unit = generator.one(of: leafSizes.filter { $0 <= lastInput / 16 } + [leafSizes[0]])
    // The smallest space has four units.
    let isSmall = lastInput / unit < 8
    let count = UInt64(1 + generator.below(isSmall ? 2 : 4))
    let index = UInt64(generator.below(isSmall ? 2 : 4))
    let middle = lastInput / 2 + 1
    let first =
      switch generator.below(3) {
      case 0: index * unit
      case 1: middle - (isSmall ? 1 : 3) * unit + index * unit
      default: lastInput - (index + count) * unit + 1
      }
    let extra = generator.onceIn(4) && !isSmall && index > 0 ? leafSizes[0] : 0
    return (first, count * unit + extra)
  }

  /// Mostly congruent to the input; small ranges now and then not.
  private mutating func target(for first: UInt64, _ size: UInt64) -> UInt64 {
    let congruent = first & (F.lastOutput >> 1)
    return size <= 64 * leafSizes[0] && generator.onceIn(4) ? congruent + leafSizes[0] : congruent
  }
}
