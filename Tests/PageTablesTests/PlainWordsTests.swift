// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// What is known of words by numbers is what the format says of them.
@Suite("Plain words")
struct PlainWordsTests {
  /// Every access at every level that has plain leaves: the numbers serve, and make the format's words.
  @Test(arguments: FormatCase.all, [false, true])
  func whatAFormatWritesMostlyIsPlain(_ test: FormatCase, isOnHeap: Bool) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      let pages = TablePages()
      let table = try PageTable<F>(test.options, allocator: isOnHeap ? nil : pages.allocator)
      for level in 0..<min(3, format.geometry.levels)
      where format.leafOrders(at: level) & 1 != 0 {
        let size = format.spanMask(at: level) + 1
        // Behind a leaf that keeps the tables in place, as far as that is not the end.
        let first = size <= table.lastInput.rawValue ? size : 0
        let beside = try IOVARange(first: IOVA(0), size: first)
        if first != 0 {
          try table.map(beside, to: PhysicalAddress(0), access: .read)
        }
        let output = format.lastOutput & ~(size - 1) & ((1 << 48) - 1)
        for access in allAccesses where format.canExpress(access) {
          let isMapped = table.mapPlain(first, size, to: output, access.rawValue)
          try demand(isMapped, "map \(access) at level \(level)")
          let word = format.leaf(
            PhysicalAddress(output), attributes: format.attributes(access, order: 0, at: level))
          let node = table.find(first, from: table.root).0
          let entry = node.page.words + node.index(of: first)
          try demandSame(entry.pointee, word, "word of \(access) at level \(level)")
          for isDirty in [true, false] {
            entry.pointee = format.settingDirty(word, isDirty)
            let plain = table.lookUpPlain(first)
            // What is for privilege alone is found by the format.
            if access.contains(.privileged) {
              try demand(plain == nil, "\(access) at level \(level)")
              continue
            }
            let found = try #require(plain)
            let expected = table.lookUp(first, from: table.root)
            try demandSame(
              [found.first, found.last, found.target, UInt64(found.access.rawValue)],
              [
                expected.first, expected.last, expected.target,
                UInt64(expected.access.rawValue),
              ], "\(access) at level \(level)")
          }
          let isRefused = !table.mapPlain(first, size, to: output, access.rawValue)
          try demand(isRefused, "mapped twice")
          let isUnmapped = table.unmapPlain(first, size)
          try demand(isUnmapped, "unmap \(access) at level \(level)")
          let isGone = table.lookUpPlain(first) == nil && !table.unmapPlain(first, size)
          try demand(isGone, "unmapped")
        }
        for access in allAccesses where !format.canExpress(access) {
          let isMapped = table.mapPlain(first, size, to: output, access.rawValue)
          try demand(!isMapped, "\(access) cannot be expressed")
        }
        if first != 0 { _ = try table.unmap(beside, crossingHoles: false) }
      }
    }
    try check(test.format())
  }

  /// What the usual leaf is compared with is there at every level that is looked up so.
  @Test(arguments: FormatCase.all)
  func whatIsReadAndWrittenIsTheUsualLeaf(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      let table = try PageTable<F>(test.options, allocator: nil)
      for level in 0..<min(2, format.geometry.levels - 1)
      where format.leafOrders(at: level) & 1 != 0 {
        let size = format.spanMask(at: level) + 1
        // Behind what keeps the table in the directory.
        try table.map(
          IOVARange(first: IOVA(0), size: size), to: PhysicalAddress(0), access: .read)
        try table.map(
          IOVARange(first: IOVA(size), size: size), to: PhysicalAddress(0),
          access: [.read, .write])
        for (first, isUsual) in [(0, false), (size, true)] {
          let place = try #require(table.plain.place(first, level: level), "level \(level)")
          let found = table.plain.lookUpUsual(first, 0, in: place)
          try demandSame(found != nil, isUsual, "\(hex(first)) at level \(level)")
          let leaf = table.plain.lookUpLeaf(first + 1, 0, level: level)
          try demandSame(leaf?.first, first, "where the leaf starts")
          try demandSame(leaf?.last, first + size - 1, "where the leaf ends")
        }
        _ = try table.unmap(
          IOVARange(first: IOVA(0), size: 2 * size), crossingHoles: false)
      }
    }
    try check(test.format())
  }

  /// Words that hardware or somebody else has changed are the format's, whatever they are.
  @Test(arguments: FormatCase.all, [Access.read, [.read, .write]])
  func whatIsTakenForPlainIsWhatTheFormatSays(_ test: FormatCase, access: Access) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      var generator = SeededGenerator(seed: RunSettings.seed)
      let table = try PageTable<F>(test.options, allocator: nil)
      let size = format.granule.bytes
      try table.map(
        IOVARange(first: IOVA(0), size: size), to: PhysicalAddress(0), access: access)
      let entry = table.find(0, from: table.root).0.page.words
      let plain = entry.pointee
      for _ in 0..<4096 {
        // Some bits of a good word, and now and then all of them.
        var word = plain
        for _ in 0...generator.next() % 4 { word ^= 1 << (generator.next() % 64) }
        if generator.next() % 16 == 0 { word = generator.next() }
        entry.pointee = word
        let expected = table.lookUp(0, from: table.root)
        // With and without a look at what is usual.
        for plain in [table.lookUpPlain(0), table.plain.lookUpLeaf(0, 0, level: 0)] {
          guard let found = plain else { continue }
          try demandSame(
            [found.first, found.last, found.target, UInt64(found.access.rawValue)],
            [expected.first, expected.last, expected.target, UInt64(expected.access.rawValue)],
            "\(hex(word))")
        }
      }
      entry.pointee = plain
    }
    try check(test.format())
  }

  // MARK: - The directory

  private static let page: UInt64 = 1 << 12
  private static let row: UInt64 = 1 << 21

  private func range(_ first: UInt64, _ size: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first), size: size)
  }

  /// C's requests come unchecked.
  @Test func whatIsFoundPermitsTheRequestWithPrivilegeAndWithout() throws {
    let table = try PageTable<X86_64>(PageTableOptions(), allocator: nil)
    let permissions: [Access] = [
      .read, [.read, .write], [.read, .execute], [.read, .write, .execute],
      [.read, .privileged], [.read, .write, .privileged],
    ]
    for (index, access) in permissions.enumerated() {
      let input = UInt64(index) * Self.page
      try table.map(range(input, Self.page), to: PhysicalAddress(0x5000), access: access)
      var requests = Array(0..<UInt32(256))
      for bit in UInt32(8)..<32 { requests += [1 << bit, 1 << bit | 1, 0 &- 1 << bit] }
      requests += (UInt32.max - 64...UInt32.max)
      for request in requests {
        let found = table.plain.lookUpLeaf(input, request, level: 0)
        let isPermitted =
          !access.contains(.privileged) && access.isSuperset(of: Access(rawValue: request))
        #expect((found?.access == access) == isPermitted, "\(access) \(request)")
        #expect((found != nil) == isPermitted, "\(access) \(request)")
      }
    }
    let isHoleFound = table.plain.lookUpLeaf(8 * Self.page, 0, level: 0) != nil
    #expect(!isHoleFound)
  }

  @Test(arguments: [false, true])
  func aLeafInATableThatWasMadeIsFoundWithoutAWalk(isOnHeap: Bool) throws {
    let pages = TablePages()
    let table = try PageTable<VTdSecondStage>(
      PageTableOptions(), allocator: isOnHeap ? nil : pages.allocator)
    let isMappedInNoTable = table.plain.mapLeaf(0, Self.page, to: 0x5000, 3)
    #expect(!isMappedInNoTable)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x5000), access: .read)
    let isMapped = table.plain.mapLeaf(Self.page, Self.page, to: 0x9000, 3)
    #expect(isMapped)
    // In a page of the caller the word does not say whether there is a table below.
    let isLargeMapped = table.plain.mapLeaf(Self.row, Self.row, to: Self.row, 3)
    #expect(isLargeMapped == isOnHeap)
    for (address, target) in [(0, 0x5000), (Self.page, 0x9000), (Self.row, Self.row)]
    where address < Self.row || isOnHeap {
      let leaf = table.plain.lookUpLeaf(address)
      let found = try #require(leaf)
      #expect(found.first == address)
      #expect(found.target == target)
    }
    let isUnmapped = table.plain.unmapLeaf(0, Self.page)
    #expect(isUnmapped)
    let isLargeUnmapped = table.plain.unmapLeaf(Self.row, Self.row)
    #expect(isLargeUnmapped == isOnHeap)
    let isFound = table.plain.lookUpLeaf(0) != nil || table.plain.lookUpLeaf(Self.row) != nil
    #expect(!isFound)
  }

  /// A table may have more entries than a place of the directory stands for.
  @Test(arguments: FormatCase.all)
  func everyEntryOfALowestTableIsFoundWithoutAWalk(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      // A root is walked to.
      guard format.geometry.levels > 1 else { return }
      let table = try PageTable<F>(test.options, allocator: nil)
      let size = format.granule.bytes
      let tableSize = format.spanMask(at: 1) + 1
      try demandSame(
        table.plain.isCommon, size == 4096 && tableSize == 1 << 21, "what is common")
      let middle = tableSize / 2
      try table.map(
        IOVARange(first: IOVA(middle), size: size), to: PhysicalAddress(0), access: .read)
      for first in stride(from: 0, to: tableSize, by: Int(tableSize / 32)) {
        let place = try #require(table.plain.place(first, level: 0), "\(hex(first))")
        let node = table.find(first, from: table.root).0
        try demand(place.entry == node.page.words + node.index(of: first), "\(hex(first))")
        guard table.plain.isCommon else { continue }
        let common = try #require(table.plain.place(first, level: 0, isCommon: true))
        try demand(common.entry == place.entry, "\(hex(first)), as in a common table")
      }
    }
    try check(test.format())
  }

  /// Only one of the tables that share a place is in the directory, the other is walked to.
  @Test func tablesThatShareAPlaceAreNotMixedUp() throws {
    let table = try PageTable<VTdSecondStage>(PageTableOptions(), allocator: nil)
    // 1 GiB apart, and 64 GiB, and so far that the numbers of tables have the same low bits.
    let places: [UInt64] = [0, 1 << 30, 1 << 36, 1 << 45]
    for (index, place) in places.enumerated() {
      try table.map(
        range(place, Self.page), to: PhysicalAddress(UInt64(index + 1) << 12), access: .read)
    }
    for (index, place) in places.enumerated() {
      let target = table.lookUp(IOVA(place)).target
      #expect(target == UInt64(index + 1) << 12)
    }
    let found = places.filter { table.plain.lookUpLeaf($0) != nil }
    #expect(found == [1 << 45])
  }

  /// The page of a table that was freed may become any other table.
  @Test(arguments: [false, true])
  func aTableThatIsRetiredIsNotFoundAnyMore(isOnHeap: Bool) throws {
    let pages = TablePages()
    let table = try PageTable<VTdSecondStage>(
      PageTableOptions(), allocator: isOnHeap ? nil : pages.allocator)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x5000), access: .read)
    _ = try table.unmap(range(0, Self.row), crossingHoles: true)
    let isFoundRetired = table.plain.mapLeaf(0, Self.page, to: 0x5000, 3)
    #expect(!isFoundRetired)
    table.reclaim(after: {})
    // The same page, another place.
    try table.map(range(Self.row, Self.page), to: PhysicalAddress(0x6000), access: .read)
    let isFoundElsewhere = table.plain.mapLeaf(0, Self.page, to: 0x5000, 3)
    #expect(!isFoundElsewhere)
    let found = table.lookUp(IOVA(0))
    #expect(!found.isMapped)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x7000), access: .read)
    let targets = [table.lookUp(IOVA(0)).target, table.lookUp(IOVA(Self.row)).target]
    #expect(targets == [0x7000, 0x6000])
  }

  /// Of signed inputs the tree has no copies of the sign, and the directory has.
  @Test(arguments: [false, true])
  func inputsThatAreNotCanonicalAreFoundInNoTable(isOnHeap: Bool) throws {
    let pages = TablePages()
    let table = try PageTable<X86_64>(
      PageTableOptions(levels: 4, features: .signedInput),
      allocator: isOnHeap ? nil : pages.allocator)
    let low: UInt64 = 0x0000_7FFF_FFFF_E000
    let high: UInt64 = 0xFFFF_8000_0000_0000
    try table.map(range(low, Self.page), to: PhysicalAddress(0x5000), access: .read)
    try table.map(range(high, Self.page), to: PhysicalAddress(0x6000), access: .read)
    let found = table.plain.lookUpLeaf(high)?.target
    #expect(found == 0x6000)
    let wrong: UInt64 = 0x0000_8000_0000_0000
    let isFound = table.plain.lookUpLeaf(wrong) != nil
    #expect(!isFound)
    let isMapped =
      table.plain.mapLeaf(wrong + Self.page, Self.page, to: 0x7000, 1)
      || table.plain.mapRow(low + Self.page, 2 * Self.page, to: 0x7000, 1)
      || table.plain.mapTwoRows(low + Self.page, 2 * Self.page, to: 0x7000, 1)
    #expect(!isMapped)
    let isUnmapped =
      table.plain.unmapLeaf(wrong, Self.page) || table.plain.unmapRow(wrong, Self.page)
    #expect(!isUnmapped)
  }

  /// As an overlapping call may do that was slow.
  @Test func aTableThatIsRetiredGetsNoRole() throws {
    let table = try PageTable<VTdSecondStage>(PageTableOptions(), allocator: nil)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x5000), access: .read)
    let page = table.find(0, from: table.root).0.page
    _ = try table.unmap(range(0, Self.row), crossingHoles: true)
    table.announce(page, level: 0, 0)
    let isFound = table.plain.place(0, level: 0) != nil
    #expect(!isFound)
    table.reclaim(after: {})
    let statistics = table.statistics
    #expect(statistics.tableCount == 3)
  }

  /// A word of VT-d that permits nothing is no leaf, whatever its other bits are.
  @Test func whatIsNotPresentIsNotUnmapped() throws {
    let table = try PageTable<VTdSecondStage>(PageTableOptions(), allocator: nil)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x5000), access: .read)
    let words = table.find(0, from: table.root).0.page.words
    words[8] = 0x5000
    let isUnmapped =
      table.plain.unmapLeaf(8 * Self.page, Self.page)
      || table.plain.unmapRow(8 * Self.page, 8 * Self.page)
    #expect(!isUnmapped)
    let size = try table.unmap(range(0, 16 * Self.page), crossingHoles: true)
    #expect(size == Self.page)
  }

  /// Somebody else may have written a leaf over the word of a table in a caller's page.
  @Test func aLeafOverATableOfTheCallersIsNotUnmappedForIt() throws {
    let pages = TablePages()
    let table = try PageTable<VTdSecondStage>(PageTableOptions(), allocator: pages.allocator)
    try table.map(range(0, Self.page), to: PhysicalAddress(0x5000), access: .read)
    let lowest = table.find(0, from: table.root).0
    let physical = table.memory.physical(lowest.page).rawValue
    for words in pages.hosts.values where words[0] == physical | 3 { words[0] = 0x83 }
    let isDone =
      table.plain.unmapLeaf(0, Self.row) || table.plain.mapLeaf(Self.row, Self.row, to: 0, 3)
    #expect(!isDone)
    let size = try table.unmap(range(0, Self.row), crossingHoles: true)
    #expect(size == Self.page)
  }
}

extension PlainTable {
  /// As C's function looks a leaf up.
  fileprivate func lookUpLeaf(
    _ input: UInt64, _ request: UInt32, level: Int
  ) -> PageTableLookup? {
    let isCommon = isCommon && level == 0
    guard let place = place(input, level: level, isCommon: isCommon) else { return nil }
    return lookUpUsual(input, request, in: place, isCommon: isCommon)
      ?? lookUp(input, request, place.word, level: level)
  }

  fileprivate func lookUpLeaf(_ input: UInt64) -> PageTableLookup? {
    lookUpLeaf(input, 0, level: 0) ?? lookUpLeaf(input, 0, level: 1)
  }
}
