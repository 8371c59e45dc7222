// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

extension FormatCase {
  /// What C would ask for this format with; nil for the mocks.
  fileprivate var kind: (PageTableKind, granule: UInt64)? {
    switch type {
    case is VTdSecondStage.Type: (.vtdSecondStage, 4096)
    case is X86_64.Type: (.x86_64, 4096)
    case is AMDv1.Type: (.amdV1, 4096)
    case is ARM64Stage1.Type: (.arm64Stage1, options.granule.bytes)
    case is ARM64Stage2.Type: (.arm64Stage2, options.granule.bytes)
    case is RISCV.Type:
      (options.isSecondStage ? .riscvSecondStage : .riscvFirstStage, 4096)
    default: nil
    }
  }

  fileprivate static let walked = all.filter { $0.kind != nil }

  fileprivate func table(
    in memory: ForeignMemory, root: UInt64, levels: Int? = nil
  ) throws -> ForeignTable {
    var options = options
    if let levels { options.levels = levels }
    return try memory.table(kind!.0, granule: kind!.granule, options, root: root)
  }
}

/// Walks of tables that this library made, and of words that nobody made.
@Suite("TableWalk: random tables")
struct TableWalkRandomTests {
  @Test func allFormatsAreWalked() {
    let kinds = Set(FormatCase.walked.map { "\($0.kind!)" })
    #expect(kinds.count == 11)
  }

  /// A foreign walk of the pages of a table gives what the table says.
  @Test(arguments: FormatCase.walked)
  func aWalkFindsWhatTheLibraryMapped(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      var generator = SeededGenerator(seed: RunSettings.seed)
      let pages = TablePages()
      let table = try PageTable<F>(test.options, allocator: pages.allocator)
      let memory = ForeignMemory { pages.word(at: $0) }
      let accesses = allAccesses.filter(format.canExpress)
      let sizes = (0..<format.geometry.levelsMax).flatMap { level in
        format.orders(at: level).map { UInt64(1) << UInt64(format.shift(at: level) + $0) }
      }
      var edges: [UInt64] = []
      for _ in 0..<RunSettings.steps(60) {
        // Few places, so that mappings lie side by side; mostly small ones.
        let size = generator.one(of: generator.onceIn(3) ? sizes : Array(sizes.prefix(3)))
        var first = (generator.next() & 7) &* size
        if generator.onceIn(4) { first = first &+ (table.lastInput.rawValue &+ 1) / 2 }
        if format.geometry.isSigned && generator.onceIn(4) { first = ~first & ~(size - 1) }
        guard let input = try? IOVARange(first: IOVA(first), size: size) else { continue }
        let target = generator.next() & format.lastOutput & ~(size - 1)
        try? table.map(input, to: PhysicalAddress(target), access: generator.one(of: accesses))
        edges += [first &- 1, first, first &+ size / 2, first &+ (size &- 1), first &+ size]
      }
      edges += [0, UInt64.max, 1 << 47, generator.next()]
      let walk = TableWalk(
        try test.table(in: memory, root: table.rootAddress.rawValue, levels: table.facts.levels))
      var found = 0
      for address in edges {
        let expected = table.lookUp(IOVA(address))
        switch WalkOutcome(walk, address) {
        case .fault(let fault):
          try demand(!expected.isMapped, "\(hex(address)): \(fault)")
          try demand([.notPresent, .inputWidth].contains(fault.reason), "\(fault)")
        case .leaf(let first, let last, let target, let access):
          found += 1
          try demandSame(access, expected.access, "access at \(hex(address))")
          let offset = table.geometry.offset(of: address)
          let node = table.find(try #require(offset), from: table.root).0
          if format.repeatsLeaf {
            try demandSame([first, last], [expected.first, expected.last], "leaf")
          } else {
            // Of a run that one word.
            try demandSame(
              [first, last], [address & ~node.spanMask, address | node.spanMask], "leaf")
          }
          try demandSame(target, expected.target + (first - expected.first), "\(hex(address))")
        }
      }
      try demand(found > 20, "\(found) leaves")
    }
    try check(test.format())
  }

  /// Words of all sorts that follow from their addresses, so that a walk is led anywhere: tables mostly.
  private func chaos<F: PageTableFormat>(_ format: F, seed: UInt64) -> (UInt64) -> UInt64? {
    { address in
      var generator = SeededGenerator(seed: seed ^ address &* 0x9E37_79B9_7F4A_7C15)
      let level = generator.below(format.geometry.levelsMax)
      switch generator.below(16) {
      case 0: return nil
      case 1: return generator.next()
      case 2: return generator.next() & 0xFFFF_FFFF
      case 3:
        let orders = format.orders(at: level)
        guard !orders.isEmpty else { return 0 }
        let order = generator.one(of: orders)
        let output = generator.next() & format.lastOutput & ~format.runMask(at: level, order: order)
        let access = generator.one(of: allAccesses.filter(format.canExpress))
        return format.leaf(output, access, at: level, order: order) ^ generator.next() << 60
      default:
        let next = generator.next() & format.lastOutput & ~format.granule.mask
        return format.table(PhysicalAddress(next), at: level)
      }
    }
  }

  /// Each word that is read lies in the table that the word before it leads to, and there is at most one
  /// for each level.
  @Test(arguments: FormatCase.walked)
  func whateverTheWordsAreAWalkEndsAndReadsNothingElse(_ test: FormatCase) throws {
    func check<F: PageTableFormat>(_ format: F) throws {
      var generator = SeededGenerator(seed: RunSettings.seed)
      let levels = format.geometry.levels
      let rootBits = format.geometry.inputBits - format.shift(at: levels - 1)
      let rootSize = max(UInt64(8) << UInt64(min(rootBits, 20)), format.granule.bytes)
      var deepest = 0
      for _ in 0..<RunSettings.steps(2_000) {
        let content = chaos(format, seed: generator.next())
        let memory = ForeignMemory(content)
        let root = generator.next() & format.lastOutput & ~(rootSize - 1)
        let walk = TableWalk(try test.table(in: memory, root: root))
        let input = generator.next() >> UInt64(generator.below(64))
        let outcome = WalkOutcome(walk, input, for: Access(rawValue: UInt32(generator.below(16))))
        try demand(memory.reads.count <= levels, "\(memory.reads.count) reads")
        deepest = max(deepest, memory.reads.count)
        var table = root
        var size = rootSize
        var level = levels - 1
        for address in memory.reads {
          try demand(address % 8 == 0, hex(address))
          try demand(address >= table && address - table < size, "\(hex(address)): \(outcome)")
          guard let word = content(address) else { break }
          if let (next, far) = format.farTable(word, at: level) {
            (table, level) = (next.rawValue, far)
          } else if case .table(let next) = format.decode(word, at: level) {
            (table, level) = (next.rawValue, level - 1)
          }
          size = format.granule.bytes
        }
      }
      // Few random words of AMD lead to the next level of many.
      try demand(deepest >= min(levels, 4), "\(deepest) levels reached")
    }
    try check(test.format())
  }

  @Test func whateverTheWordsAreAWalkOfTwoStagesEnds() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    var most = 0
    for _ in 0..<RunSettings.steps(20_000) {
      let cases = [generator.one(of: FormatCase.walked), generator.one(of: FormatCase.walked)]
      let seed = generator.next()
      func content<F: PageTableFormat>(_ format: F) -> (UInt64) -> UInt64? {
        chaos(format, seed: seed)
      }
      let memories = try cases.map { ForeignMemory(content(try $0.format())) }
      let roots = (0..<2).map { _ in generator.next() & 0x7FFF_FFE0_0000 }
      let walk = TableWalk(
        try cases[0].table(in: memories[0], root: roots[0] & 0xFFE0_0000),
        behind: try cases[1].table(in: memories[1], root: roots[1] & 0xFFE0_0000))
      let input = generator.next() >> UInt64(generator.below(64))
      _ = WalkOutcome(walk, input, for: Access(rawValue: UInt32(generator.below(16))))
      let levels = try cases.map { try $0.format().geometry.levels }
      try demand(memories[0].reads.count <= levels[0], "reads of the first stage")
      let most2 = (levels[0] + 1) * levels[1]
      try demand(memories[1].reads.count <= most2, "reads of the second stage")
      most = max(most, memories[0].reads.count)
    }
    try demand(most >= 2, "tables of the first stage reached")
  }
}
