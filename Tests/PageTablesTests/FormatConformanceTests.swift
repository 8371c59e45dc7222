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
  func aWordSaysWhatWasPutIntoItAndNoWordSaysWhatCannotBe(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      try checkRoundTrips(of: format)
      try checkRandomWords(of: format)
      for level in 0..<format.geometry.levelsMax {
        #expect(format.decode(0, at: level, index: 0) == .empty)
      }
    }
    try check(test.format())
  }

  @Test(arguments: FormatCase.all)
  func writesAreNotedInLeavesOrNot(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      try checkDirty(of: format, isNoted: test.options.features.contains(.dirty))
    }
    try check(test.format())
  }

  @Test(arguments: FormatCase.all)
  func aTableFitsItsPage(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) {
      #expect(8 << UInt64(format.indexBits) <= format.granule.bytes)
    }
    check(try test.format())
  }

  @Test(arguments: FormatCase.all)
  func theSmallestPageIsALeafAndNothingIsNoPermission(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) {
      #expect(format.leafOrders(at: 0) & 1 != 0)
      #expect(!format.canExpress([]))
      #expect(
        format.canExpress([.read, .write]) || format.canExpress([.read, .write, .cacheable]))
    }
    check(try test.format())
  }

  // MARK: - The algorithm

  /// One leaf of each size, where the space starts, where it ends, and in between.
  @Test(arguments: FormatCase.all)
  func aRangeOfOneLeafIsOneLeaf(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      for half in test.halves(format) {
        for inside in test.leafSizes(format).map({ $0 - 1 }) {
          for first in [
            half.first, half.last &- inside, (half.first + (half.last - half.first) / 2) & ~inside,
          ] {
            let table = try PageTable<F>(test.options, allocator: nil)
            let range = try IOVARange(first: IOVA(first), last: IOVA(first + inside))
            let target = PhysicalAddress(format.lastOutput & ~inside)
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
    try check(test.format())
  }

  @Test(arguments: FormatCase.all)
  func nothingIsMappedOutsideOfTheTablesWidth(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      let table = try PageTable<F>(test.options, allocator: nil)
      let halves = test.halves(format)
      guard halves[0].last < UInt64.max else { return }
      let beyond = try IOVARange(first: IOVA(halves[0].last + 1), size: format.granule.bytes)
      let across = try IOVARange(
        first: IOVA(halves[0].last + 1 - format.granule.bytes), size: 2 * format.granule.bytes)
      for range in [beyond, across] {
        #expect(throws: Failure.outOfRange) {
          try table.map(range, to: PhysicalAddress(0), access: .read)
        }
        #expect(throws: Failure.outOfRange) { try table.unmap(range, crossingHoles: true) }
      }
      let found = table.lookUp(IOVA(halves[0].last + 1))
      #expect(!found.isMapped)
      let end = halves.count == 2 ? halves[1].first - 1 : UInt64.max
      #expect([found.first, found.last] == [halves[0].last + 1, end])
    }
    try check(test.format())
  }

  @Test(arguments: FormatCase.all)
  func whatTheFormatCannotExpressIsRefused(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      let table = try PageTable<F>(test.options, allocator: nil)
      let range = try IOVARange(first: IOVA(0), size: format.granule.bytes)
      for access in allAccesses where !format.canExpress(access) {
        #expect(throws: access.isPermission ? Failure.notSupported : .invalidArgument) {
          try table.map(range, to: PhysicalAddress(0), access: access)
        }
      }
      let isMapped = table.lookUp(IOVA(0)).isMapped
      #expect(!isMapped)
    }
    try check(test.format())
  }

  /// A leaf of each size, cut at each border of smaller leaves near its ends and in its middle.
  @Test(arguments: FormatCase.all)
  func splittingALeafLeavesTheRestAsItWas(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      let granule = format.granule.bytes
      for size in test.leafSizes(format) where size > granule && size <= 1 << 26 {
        let cuts: [(UInt64, UInt64)] = [
          (0, granule), (granule, granule), (size - granule, granule), (size / 2, granule),
          (granule, size - 2 * granule), (size / 2 - granule, 2 * granule),
        ]
        for (offset, length) in cuts where offset + length <= size && length > 0 {
          let table = try PageTable<F>(test.options, allocator: nil)
          let whole = try IOVARange(first: IOVA(size), size: size)
          let cut = try IOVARange(first: IOVA(size + offset), size: length)
          let target = size * 4
          try table.map(whole, to: PhysicalAddress(target), access: .read)
          if length < size {
            #expect(throws: Failure.notSupported) {
              try table.unmap(cut, crossingHoles: false)
            }
          }
          let unmapped = try table.unmap(cut, crossingHoles: false, splitting: true)
          try demandSame(unmapped, length, "bytes unmapped of \(hex(size)) at \(hex(offset))")
          for address in [0, offset &- 1, offset + length, size - 1]
          where address < size && !(offset..<offset + length ~= address) {
            let found = table.lookUp(IOVA(size + address))
            try demandSame(
              found.target &+ (size + address &- found.first), target + address,
              "where \(hex(size + address)) leads")
          }
          let hole = table.lookUp(IOVA(size + offset)).isMapped
          try demand(!hole, "the cut is mapped")
          let mapped = table.statistics.mappedBytes
          try demandSame(mapped, size - length, "bytes mapped")
        }
      }
    }
    try check(test.format())
  }

  @Test(arguments: FormatCase.all)
  func whatIsReservedNeedsNoMemoryToBeMapped(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      let pages = TablePages()
      let table = try PageTable<F>(test.options, allocator: pages.allocator)
      let unit = format.spanMask(at: 1) + 1
      let range = try IOVARange(
        first: IOVA(unit - format.granule.bytes), size: 2 * format.granule.bytes)
      guard range.last <= table.lastInput else { return }
      try table.reserve(range)
      let mapped = table.statistics.mappedBytes
      #expect(mapped == 0)
      pages.failAfter(0)
      try table.map(range, to: PhysicalAddress(0), access: .read)
      #expect(try table.unmap(range, crossingHoles: false) == range.extent + 1)
    }
    try check(test.format())
  }

  @Test(arguments: FormatCase.all)
  func whatHardwareNotesIsReadForAllOfALeafAndOnlyOnce(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      let table = try PageTable<F>(test.options, allocator: nil)
      let all = try IOVARange(first: IOVA(0), size: 1 << 32)
      guard format.notesDirty, all.last <= table.lastInput else {
        #expect(throws: Failure.notSupported) {
          try table.forEachDirty(all, clearing: false) { _, _ in }
        }
        return
      }
      var dirty: [[UInt64]] = []
      for size in test.leafSizes(format) where size <= 1 << 30 {
        let leaf = try IOVARange(first: IOVA(size), size: size)
        try table.map(leaf, to: PhysicalAddress(0), access: [.read, .write])
        try table.forEachDirty(all, clearing: false) { dirty.append([$0, $1]) }
        #expect(dirty == [], "a leaf of \(size) bytes starts as written through")
        // As hardware does, in one of the words of the leaf: the last.
        writeThrough(table, leaf.last.rawValue)
        try table.forEachDirty(all, clearing: true) { dirty.append([$0, $1]) }
        #expect(dirty == [[size, 2 * size - 1]])
        dirty = []
        try table.forEachDirty(all, clearing: false) { dirty.append([$0, $1]) }
        #expect(dirty == [], "what was read counts again")
        try table.setDirty(leaf, true)
        let half = try IOVARange(first: leaf.first, size: max(size / 2, format.granule.bytes))
        try table.forEachDirty(half, clearing: false) { dirty.append([$0, $1]) }
        #expect(dirty == [[size, half.last.rawValue]])
        dirty = []
        _ = try table.unmap(leaf, crossingHoles: false)
      }
    }
    try check(test.format())
  }

  private func writeThrough<F: PageTableFormat>(_ table: borrowing PageTable<F>, _ offset: UInt64) {
    var node = table.root
    while let child = table.child(of: node, at: node.index(of: offset)) { node = child }
    let place = node.page.words + node.index(of: offset)
    place.pointee = table.format.settingDirty(place.pointee, true)
  }

  /// Random changes on the heap and in a caller's pages, beside a dictionary of leaves.
  @Test(arguments: FormatCase.all, [true, false])
  func randomChangesLeaveWhatADictionaryHas(_ test: FormatCase, isOnHeap: Bool) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      // Tables that grow are counted otherwise; they have tests of their own.
      guard format.geometry.levels == format.geometry.levelsMax else { return }
      for half in test.halves(format) {
        let pages = TablePages()
        var run = FormatRun<F>(test, format, half)
        let table = try PageTable<F>(test.options, allocator: isOnHeap ? nil : pages.allocator)
        for _ in 0..<RunSettings.steps(150) { try run.step(table) }
        try run.compare(table)
      }
    }
    try check(test.format())
  }
}

extension FormatCase {
  /// The inputs that can be mapped: of a signed input two ranges.
  func halves(_ format: some PageTableFormat) -> [(first: UInt64, last: UInt64)] {
    let geometry = format.geometry
    let bits = geometry.isSigned ? geometry.inputBits - 1 : geometry.inputBits
    let last = UInt64.max >> UInt64(64 - bits)
    let lower = (first: UInt64(0), last: last)
    return geometry.isSigned ? [lower, (first: ~last, last: UInt64.max)] : [lower]
  }

  /// All sizes of leaves that fit both sides, the smallest first.
  func leafSizes<F: PageTableFormat>(_ format: F) -> [UInt64] {
    let last = min(halves(format)[0].last, format.lastOutput)
    let masks = (0..<format.geometry.levels).flatMap { level -> [UInt64] in
      format.orders(at: level).map { format.runMask(at: level, order: $0) }
    }
    return masks.filter { $0 <= last / 2 }.map { $0 + 1 }.sorted()
  }
}

/// A page table's run beside a model, with numbers that follow from a format.
private struct FormatRun<F: PageTableFormat> {
  private var generator = SeededGenerator(seed: RunSettings.seed)
  private var model: PageTableModel
  /// What the model knows as 0.
  private let base: UInt64
  private let lastInput: UInt64
  private let lastOutput: UInt64
  private let leafSizes: [UInt64]

  init(_ test: FormatCase, _ format: F, _ half: (first: UInt64, last: UInt64)) {
    base = half.first
    lastInput = half.last - half.first
    lastOutput = format.lastOutput
    leafSizes = test.leafSizes(format)
    model = PageTableModel(
      spans: (0..<format.geometry.levels).map { format.spanMask(at: $0) + 1 }, leafSizes: leafSizes,
      lastInput: lastInput, lastOutput: lastOutput)
  }

  mutating func step(_ table: borrowing PageTable<F>) throws {
    let (first, size) = place()
    let range = try IOVARange(first: IOVA(base + first), size: size)
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
    if generator.onceIn(10) {
      try table.trim(range)
      try model.trim(first, size: size)
    }
    for address in [first, first + (size - 1), first &- 1] where address <= lastInput {
      let found = table.lookUp(IOVA(base + address))
      let leaf = model.leaf(at: address)
      try demandSame(found.isMapped, leaf != nil, "whether \(hex(address)) is mapped")
      if let leaf {
        try demandSame(
          [found.first - base, found.last - base, found.target],
          [leaf.first, leaf.last, leaf.target], "leaf at \(hex(address))")
      }
    }
  }

  func compare(_ table: borrowing PageTable<F>) throws {
    let found = table.leaves().map { [$0.first - base, $0.last - base, $0.target] }
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
    let congruent = first & (lastOutput >> 1)
    return size <= 64 * leafSizes[0] && generator.onceIn(4) ? congruent + leafSizes[0] : congruent
  }
}
