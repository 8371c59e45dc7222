// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// Walks of foreign tables, each made by hand from the words of the manuals.
@Suite("TableWalk")
struct TableWalkTests {
  private static let both: Access = [.read, .write]
  private static let all: Access = [.read, .write, .execute]

  /// Checks what an input leads to, and which words were read for that.
  private func check(
    _ kind: PageTableKind, granule: UInt64 = 0, _ options: PageTableOptions = PageTableOptions(),
    root: UInt64 = 0x1000, words: [UInt64: UInt64], _ input: UInt64, for wanted: Access = [],
    gives expected: WalkOutcome, reading reads: [UInt64]? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let memory = ForeignMemory(words)
    let walk = TableWalk(try memory.table(kind, granule: granule, options, root: root))
    #expect(WalkOutcome(walk, input, for: wanted) == expected, sourceLocation: sourceLocation)
    if let reads { #expect(memory.reads == reads, sourceLocation: sourceLocation) }
  }

  // MARK: - Any format

  // Four levels of VT-d's second stage that lead 0x5000 to 0x9000.
  private let path: [UInt64: UInt64] = [
    0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4028: 0x9003,
  ]
  private let places: [UInt64] = [0x4028, 0x3000, 0x2000, 0x1000]

  @Test func aWalkReadsOneWordOfEachLevelDownToTheLeaf() throws {
    try check(
      .vtdSecondStage, words: path, 0x5678, gives: .leaf(0x5000, 0x5FFF, to: 0x9000, Self.both),
      reading: places.reversed())
  }

  @Test func aLeafAboveTheLowestLevelEndsTheWalk() throws {
    let words: [UInt64: UInt64] = [0x1000: 0x2003, 0x2000: 0x3003, 0x3008: 0x40_0081]
    try check(
      .vtdSecondStage, words: words, 0x20_5678,
      gives: .leaf(0x20_0000, 0x3F_FFFF, to: 0x40_0000, .read),
      reading: [0x1000, 0x2000, 0x3008])
  }

  @Test(arguments: 0...3)
  func nothingThereIsAFaultOfTheWordThatSaysSo(level: Int) throws {
    var words = path
    words[places[level]] = nil
    try check(
      .vtdSecondStage, words: words, 0x5678,
      gives: .fault(.notPresent, 0x5678, level: level, word: places[level]),
      reading: Array(places.reversed().prefix(4 - level)))
  }

  @Test(arguments: 0...3)
  func aReservedBitIsAFaultOfItsWord(level: Int) throws {
    var words = path
    words[places[level]]! |= 1 << 46
    let narrow = PageTableOptions(outputBits: 46)
    try check(
      .vtdSecondStage, narrow, words: words, 0x5678,
      gives: .fault(.reserved, 0x5678, level: level, word: places[level]))
  }

  @Test(arguments: 0...3)
  func whatCannotBeReadIsAFaultOfThatWord(level: Int) throws {
    for error in [-5, 7, Int32.min] {
      let memory = ForeignMemory { $0 == self.places[level] ? nil : self.path[$0] ?? 0 }
      memory.error = error
      let walk = TableWalk(try memory.table(.vtdSecondStage, root: 0x1000))
      var fault = WalkFault(
        .tableRead, input: 0x5678, level: level, word: PhysicalAddress(places[level]))
      fault.error = error
      #expect(WalkOutcome(walk, 0x5678) == .fault(fault))
      #expect(memory.reads.count == 4 - level)
    }
  }

  @Test func anInputThatIsTooWideReadsNothing() throws {
    for input in [1 << 48, UInt64.max] {
      try check(
        .vtdSecondStage, words: path, input,
        gives: .fault(.inputWidth, input, level: 3, word: 0), reading: [])
    }
  }

  @Test func aSignedInputIsCanonical() throws {
    let options = PageTableOptions(features: .signedInput)
    let words: [UInt64: UInt64] = [0x1FF8: 0x2007, 0x2FF8: 0xC000_0087]
    let first: UInt64 = 0xFFFF_FFFF_C000_0000
    try check(
      .x86_64, options, words: words, UInt64.max,
      gives: .leaf(first, UInt64.max, to: 0xC000_0000, Self.all))
    for input in [0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF, 0x7FFF_FFFF_C000_0000] as [UInt64] {
      try check(
        .x86_64, options, words: words, input,
        gives: .fault(.inputWidth, input, level: 3, word: 0), reading: [])
    }
    try check(
      .x86_64, options, words: words, 0x7FFF_FFFF_FFFF,
      gives: .fault(.notPresent, 0x7FFF_FFFF_FFFF, level: 3, word: 0x17F8))
    // Without the feature there is no upper half.
    try check(.x86_64, words: words, first, gives: .fault(.inputWidth, first, level: 3, word: 0))
  }

  @Test func aRootAboveTheOutputWidthIsNotRead() throws {
    let options = PageTableOptions(outputBits: 40)
    let root: UInt64 = 1 << 40
    for kind in [.vtdSecondStage, .x86_64, .amdV1, .arm64Stage1] as [PageTableKind] {
      let levels = kind == .amdV1 ? 3 : 4
      try check(
        kind, options, root: root, words: [:], 0x5678,
        gives: .fault(.outputWidth, 0x5678, level: levels - 1, word: root), reading: [])
    }
  }

  @Test func aRootIsAlignedToItsSize() throws {
    func isRefused(
      _ kind: PageTableKind, _ options: PageTableOptions, _ root: UInt64
    ) -> Bool {
      do throws(Failure) {
        _ = try ForeignMemory([:]).table(kind, options, root: root)
        return false
      } catch {
        return error == .invalidArgument
      }
    }
    let standard = PageTableOptions()
    #expect(isRefused(.vtdSecondStage, standard, 0x1800))
    #expect(isRefused(.amdV1, standard, 0x1800))
    // Sv48x4 has a root of four pages, 32 bits of input one of 4 words.
    #expect(isRefused(.riscvSecondStage, standard, 0x1000))
    #expect(!isRefused(.riscvSecondStage, standard, 0x4000))
    #expect(!isRefused(.arm64Stage1, PageTableOptions(inputBits: 32), 0x1020))
    #expect(isRefused(.arm64Stage1, PageTableOptions(inputBits: 32), 0x1010))
    // 40 bits from the level of 1 GiB on: two tables side by side.
    let wide = PageTableOptions(levels: 3, inputBits: 40)
    #expect(isRefused(.arm64Stage2, wide, 0x1000))
    #expect(!isRefused(.arm64Stage2, wide, 0x2000))
  }

  @Test func tablesThatTheFormatLacksAreRefused() {
    let memory = ForeignMemory([:])
    #expect(throws: Failure.invalidArgument) {
      try memory.table(.vtdSecondStage, PageTableOptions(levels: 6), root: 0)
    }
    #expect(throws: Failure.invalidArgument) {
      try memory.table(.vtdSecondStage, granule: 16384, root: 0)
    }
    #expect(throws: Failure.notSupported) {
      try memory.table(.vtdSecondStage, PageTableOptions(features: .runs), root: 0)
    }
  }

  @Test func aRequestHasToBePermittedWholly() throws {
    var words = path
    words[0x4028] = 0x9001
    let leaf = WalkOutcome.leaf(0x5000, 0x5FFF, to: 0x9000, .read)
    let denied = WalkOutcome.fault(.denied, 0x5000, level: 0, word: 0x4028)
    try check(.vtdSecondStage, words: words, 0x5000, for: .read, gives: leaf)
    try check(.vtdSecondStage, words: words, 0x5000, for: .write, gives: denied)
    try check(.vtdSecondStage, words: words, 0x5000, for: Self.both, gives: denied)
    try check(.vtdSecondStage, words: words, 0x5000, for: .execute, gives: denied)
  }

  @Test func aPrivilegedLeafIsForRequestsWithPrivilege() throws {
    let words: [UInt64: UInt64] = [0x1000: 0x2007, 0x2000: 0x8000_0083]
    let leaf = WalkOutcome.leaf(0, 0x3FFF_FFFF, to: 0x8000_0000, Self.all.union(.privileged))
    try check(.x86_64, words: words, 0, gives: leaf)
    try check(.x86_64, words: words, 0, for: .privileged, gives: leaf)
    try check(.x86_64, words: words, 0, for: [.write, .privileged], gives: leaf)
    try check(
      .x86_64, words: words, 0, for: .read, gives: .fault(.denied, 0, level: 2, word: 0x2000))
    // All others are for those with privilege too.
    let user: [UInt64: UInt64] = [0x1000: 0x2007, 0x2000: 0x8000_0087]
    try check(
      .x86_64, words: user, 0, for: [.read, .privileged],
      gives: .leaf(0, 0x3FFF_FFFF, to: 0x8000_0000, Self.all))
  }

  // MARK: - VT-d

  @Test(arguments: 0...3)
  func inVTdThePermissionsOfAllLevelsAreCombined(level: Int) throws {
    for access in [1, 2, 3] as [UInt64] {
      var words = path
      words[places[level]] = words[places[level]]! & ~3 | access
      try check(
        .vtdSecondStage, words: words, 0x5000,
        gives: .leaf(0x5000, 0x5FFF, to: 0x9000, Access(rawValue: UInt32(access))))
    }
  }

  @Test func whatNoTwoLevelsPermitTogetherIsDeniedAtTheLeaf() throws {
    var words = path
    words[0x2000] = 0x3001
    words[0x4028] = 0x9002
    try check(
      .vtdSecondStage, words: words, 0x5000,
      gives: .fault(.denied, 0x5000, level: 0, word: 0x4028))
  }

  // MARK: - x86-64

  @Test(arguments: 0...3)
  func inX86WritesAndUsersNeedABitInAllLevelsAndNXForbidsInAny(level: Int) throws {
    let path: [UInt64: UInt64] = [
      0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4028: 0x9007,
    ]
    for (change, expected) in [
      (0, Self.all), (2, [.read, .execute]), (4, Self.all.union(.privileged)),
      (1 << 63, Self.both), (6 | 1 << 63, [.read, .privileged]),
    ] as [(UInt64, Access)] {
      var words = path
      words[places[level]]! ^= change
      try check(
        .x86_64, words: words, 0x5000, gives: .leaf(0x5000, 0x5FFF, to: 0x9000, expected))
    }
  }

  // MARK: - AMD

  private let amd: UInt64 = 3 << 61 | 1
  private func next(_ level: UInt64) -> UInt64 { level << 9 }

  @Test(arguments: 0...2)
  func inAMDThePermissionsOfAllLevelsAreCombined(level: Int) throws {
    for access in [1, 2, 3] as [UInt64] {
      var words: [UInt64: UInt64] = [0x3028: 0x9000 | amd]
      words[0x1000] = 0x2000 | amd | next(2)
      words[0x2000] = 0x3000 | amd | next(1)
      let place: UInt64 = [0x3028, 0x2000, 0x1000][level]
      words[place] = words[place]! & ~(3 << 61) | access << 61
      try check(
        .amdV1, words: words, 0x5000,
        gives: .leaf(0x5000, 0x5FFF, to: 0x9000, Access(rawValue: UInt32(access))))
    }
  }

  @Test(arguments: 1...6)
  func anAMDTableHasTheLevelsOfItsModeAndNoInputAbove(mode: Int) throws {
    let options = PageTableOptions(levels: mode)
    var words: [UInt64: UInt64] = [0x1028: 0x9000 | amd]
    if mode > 1 {
      for level in 1..<UInt64(mode) {
        words[0x1000 * (level + 1)] = 0x1000 * level | amd | next(level)
      }
    }
    let root = 0x1000 * UInt64(mode)
    try check(
      .amdV1, options, root: root, words: words, 0x5000,
      gives: .leaf(0x5000, 0x5FFF, to: 0x9000, Self.both))
    let last = mode == 6 ? UInt64.max : 1 << UInt64(12 + 9 * mode) - 1
    let index = mode == 6 ? 127 : UInt64(511)
    let place = root + 8 * index
    try check(
      .amdV1, options, root: root, words: words, last,
      gives: .fault(.notPresent, last, level: mode - 1, word: place), reading: [place])
    guard mode < 6 else { return }
    try check(
      .amdV1, options, root: root, words: words, last + 1,
      gives: .fault(.inputWidth, last + 1, level: mode - 1, word: 0), reading: [])
  }

  @Test func anAMDEntryMayLeadPastLevelsWhoseInputBitsAre0() throws {
    let options = PageTableOptions(levels: 5)
    let far = 0x2000 | amd | next(2)
    let near = 0x3000 | amd | next(1)
    // From level 4 to level 1, and from there to the lowest; from level 4 to the lowest.
    let words: [UInt64: UInt64] = [0x1008: far, 0x2010: near, 0x3018: 0x9000 | amd, 0x1010: near]
    let one = UInt64(1) << 48
    let low = one | 0x40_3000
    try check(
      .amdV1, options, words: words, low | 0x123,
      gives: .leaf(low, low | 0xFFF, to: 0x9000, Self.both),
      reading: [0x1008, 0x2010, 0x3018])
    try check(
      .amdV1, options, words: words, 2 * one | 0x3000,
      gives: .leaf(2 * one | 0x3000, 2 * one | 0x3FFF, to: 0x9000, Self.both),
      reading: [0x1010, 0x3018])
    // Each of the bits that no table resolves.
    for bit in 30..<48 as Range<UInt64> {
      let input = low | 1 << bit
      try check(
        .amdV1, options, words: words, input,
        gives: .fault(.notPresent, input, level: 4, word: 0x1008), reading: [0x1008])
    }
    for bit in 21..<48 as Range<UInt64> {
      let input = 2 * one | 0x3000 | 1 << bit
      try check(
        .amdV1, options, words: words, input,
        gives: .fault(.notPresent, input, level: 4, word: 0x1010), reading: [0x1010])
    }
  }

  @Test func anAMDEntryPastLevelsRestrictsAndIsReservedAsOthersAre() throws {
    let options = PageTableOptions(levels: 4, outputBits: 48)
    let far = 0x2000 | amd | next(1)
    try check(
      .amdV1, options, words: [0x1000: far & ~(1 << 62), 0x2028: 0x9000 | amd], 0x5000,
      gives: .leaf(0x5000, 0x5FFF, to: 0x9000, .read))
    // Reserved bits, bits of leaves, an address that is too wide.
    for bit in [52, 58, 59, 60, 48] as [UInt64] {
      try check(
        .amdV1, options, words: [0x1000: far | 1 << bit, 0x2028: 0x9000 | amd], 0x5000,
        gives: .fault(.reserved, 0x5000, level: 3, word: 0x1000))
    }
  }

  @Test func anAMDEntryThatDoesNotLeadDownIsReserved() throws {
    let options = PageTableOptions(levels: 3)
    for level in 3...6 as ClosedRange<UInt64> {
      try check(
        .amdV1, options, words: [0x1000: 0x1000 | amd | next(level)], 0,
        gives: .fault(.reserved, 0, level: 2, word: 0x1000), reading: [0x1000])
    }
  }

  @Test func aRunOfWordsThatAreAllTheSameIsOneLeaf() throws {
    // 32 KiB, which is three address bits of which two are ones, from the last of its words.
    let run = 0x10_0000 | 0x3000 | amd | next(7)
    try check(
      .amdV1, PageTableOptions(levels: 1), words: [0x1078: run], 0xF123,
      gives: .leaf(0x8000, 0xFFFF, to: 0x10_0000, Self.both), reading: [0x1078])
    // RISC-V, Svnapot: 64 KiB.
    let napot: UInt64 = 1 << 63 | 0x4_20DF
    try check(
      .riscvFirstStage, PageTableOptions(levels: 3, features: .runs),
      words: [0x1000: 0x801, 0x2000: 0xC01, 0x3098: napot], 0x1_3123,
      gives: .leaf(0x1_0000, 0x1_FFFF, to: 0x10_0000, Self.all))
  }

  @Test func aLeafThatIsLargerThanTheInputSpaceEndsWithIt() throws {
    // 2 MiB of 22 bits of input at the level of 4 KiB and 8 MiB at the next.
    let run = 0x3F_F000 | amd | next(7)
    try check(
      .amdV1, PageTableOptions(levels: 2, inputBits: 22), words: [0x1008: run], 0x20_0000,
      gives: .leaf(0, 0x3F_FFFF, to: 0, Self.both))
  }

  // MARK: - ARM

  // A page that permits all, and the path to it.
  private let armPage: UInt64 = 0x9443
  private var armPath: [UInt64: UInt64] {
    [0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4028: armPage]
  }

  @Test(arguments: 1...3)
  func inARMTablesRestrictTheLeavesBelowThem(level: Int) throws {
    for (restriction, leaf, expected) in [
      (0, 0, Self.all),
      // APTable[1]: read-only; APTable[0]: privileged; UXNTable and PXNTable.
      (1 << 62, 0, [.read, .execute]), (1 << 61, 0, Self.all.union(.privileged)),
      (1 << 60, 0, Self.both), (1 << 59, 0, Self.all),
      (3 << 61, 0, [.read, .execute, .privileged]),
      // A leaf that is made privileged, or is that, executes by PXN.
      (1 << 61 | 1 << 60, 0, Self.all.union(.privileged)),
      (1 << 61 | 1 << 59, 0, Self.both.union(.privileged)),
      (1 << 61, 1 << 53, Self.both.union(.privileged)),
      (1 << 59, 1 << 6, Self.both.union(.privileged)),
      (1 << 60, 1 << 6, Self.all.union(.privileged)),
    ] as [(UInt64, UInt64, Access)] {
      var words = armPath
      words[places[level]]! |= restriction
      words[0x4028]! ^= leaf
      try check(
        .arm64Stage1, words: words, 0x5000, gives: .leaf(0x5000, 0x5FFF, to: 0x9000, expected))
    }
  }

  @Test func inARMALeafThatHardwareMayMakeWritableStaysReadOnlyBelowSuchATable() throws {
    let options = PageTableOptions(features: .dirty)
    // DBM, and AP[2] set: clean.
    var words = armPath
    words[0x4028]! |= 1 << 51 | 1 << 7
    try check(
      .arm64Stage1, options, words: words, 0x5000,
      gives: .leaf(0x5000, 0x5FFF, to: 0x9000, Self.all))
    words[0x2000]! |= 1 << 62
    try check(
      .arm64Stage1, options, words: words, 0x5000,
      gives: .leaf(0x5000, 0x5FFF, to: 0x9000, [.read, .execute]))
  }

  @Test func inARMsSecondStageTablesRestrictNothing() throws {
    // S2AP 3, XN 0, memory that is not cached.
    var words = armPath
    words[0x4028] = 0x94D7
    for place in [0x1000, 0x2000, 0x3000] as [UInt64] { words[place]! |= 0xF << 59 }
    try check(
      .arm64Stage2, PageTableOptions(levels: 4), words: words, 0x5000,
      gives: .leaf(0x5000, 0x5FFF, to: 0x9000, Self.all))
  }

  @Test(arguments: 0...3)
  func inARMAnAddressThatIsTooWideIsAFaultOfItsOwn(level: Int) throws {
    var words = armPath
    words[places[level]]! |= 1 << 44
    try check(
      .arm64Stage1, PageTableOptions(outputBits: 44), words: words, 0x5000,
      gives: .fault(.outputWidth, 0x5000, level: level, word: places[level]))
    try check(
      .arm64Stage2, PageTableOptions(levels: 4, outputBits: 44), words: words, 0x5000,
      gives: .fault(.outputWidth, 0x5000, level: level, word: places[level]))
  }

  @Test func aLeafThatWasNotAccessedFaultsWhereHardwareDoesNotNoteThat() throws {
    let stage2 = PageTableOptions(levels: 4, inputBits: 48)
    for (kind, options) in [(.arm64Stage1, PageTableOptions()), (.arm64Stage2, stage2)]
      as [(PageTableKind, PageTableOptions)]
    {
      var words = armPath
      words[0x4028]! &= ~0x400
      try check(
        kind, options, words: words, 0x5000,
        gives: .fault(.notAccessed, 0x5000, level: 0, word: 0x4028))
      var noting = options
      noting.features = .dirty
      let memory = ForeignMemory(words)
      let walk = TableWalk(try memory.table(kind, noting, root: 0x1000))
      let found = try walk.translate(IOVA(0x5000), for: [])
      #expect(found.target == 0x9000)
      // A block at the lowest level has another fault.
      words[0x4028]! &= ~2
      try check(
        kind, options, words: words, 0x5000,
        gives: .fault(.reserved, 0x5000, level: 0, word: 0x4028))
    }
  }

  @Test func aRunOfWordsThatDifferIsTheSpanOfTheWordThatWasRead() throws {
    var words = armPath
    words[0x4028] = 1 << 52 | armPage & 0xFFF | 0x2_5000
    try check(
      .arm64Stage1, PageTableOptions(features: .runs), words: words, 0x5000,
      gives: .leaf(0x5000, 0x5FFF, to: 0x2_5000, Self.all))
  }

  @Test func aRootOfSeveralTablesIsIndexedAsOne() throws {
    let options = PageTableOptions(levels: 3, inputBits: 40)
    let last: UInt64 = 1 << 40 - 1
    try check(
      .arm64Stage2, options, root: 0x4000, words: [0x5FF8: 0xC000_04D5], last,
      gives: .leaf(last & ~0x3FFF_FFFF, last, to: 0xC000_0000, Self.all))
    try check(
      .arm64Stage2, options, root: 0x4000, words: [:], last + 1,
      gives: .fault(.inputWidth, last + 1, level: 2, word: 0))
  }

  // MARK: - RISC-V

  private let sv39: [UInt64: UInt64] = [0x4000: 0x801, 0x2000: 0xC01, 0x3028: 0x24DF]

  @Test func inRISCVTablesRestrictNothingAndBitsThatWouldAreReserved() throws {
    let options = PageTableOptions(levels: 3)
    for kind in [.riscvFirstStage, .riscvSecondStage] as [PageTableKind] {
      try check(
        kind, options, root: 0x4000, words: sv39, 0x5000,
        gives: .leaf(0x5000, 0x5FFF, to: 0x9000, Self.all))
      var words = sv39
      words[0x2000]! |= 1 << 4
      try check(
        kind, options, root: 0x4000, words: words, 0x5000,
        gives: .fault(.reserved, 0x5000, level: 1, word: 0x2000))
    }
  }

  @Test func inRISCVTooALeafThatWasNotAccessedFaults() throws {
    let options = PageTableOptions(levels: 3)
    var words = sv39
    words[0x3028]! ^= 0x40
    for kind in [.riscvFirstStage, .riscvSecondStage] as [PageTableKind] {
      try check(
        kind, options, root: 0x4000, words: words, 0x5000,
        gives: .fault(.notAccessed, 0x5000, level: 0, word: 0x3028))
    }
    // Writable and not readable is reserved, whatever A is.
    words[0x3028]! ^= 2
    try check(
      .riscvFirstStage, options, root: 0x4000, words: words, 0x5000,
      gives: .fault(.reserved, 0x5000, level: 0, word: 0x3028))
  }
}
