// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

/// Walks of foreign tables of which the addresses are translated by others.
@Suite("TableWalk: two stages")
struct TwoStageWalkTests {
  private static let all: Access = [.read, .write, .execute]

  /// A first stage of x86-64 with its root at 0x1000, and a second of VT-d of 3 levels with its root at
  /// 0x10_0000 that leads each page up to 2 MiB to one 0x100_0000 higher.
  private struct Machine {
    var first: [UInt64: UInt64] = [
      0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4028: 0x9007,
    ]
    var second: [UInt64: UInt64] = [0x10_0000: 0x10_1003, 0x10_1000: 0x10_2003]
    var secondKind = PageTableKind.vtdSecondStage
    var secondOptions = PageTableOptions(levels: 3)

    init() {
      for page in 0..<512 as Range<UInt64> {
        second[0x10_2000 + 8 * page] = (0x100_0000 + page * 4096) | 3
      }
    }

    func memory() -> ForeignMemory {
      ForeignMemory { address in
        if let word = self.second[address] { return word }
        // The words of the first stage are where the second one has put them.
        return address < 0x100_0000 ? 0 : self.first[address - 0x100_0000] ?? 0
      }
    }

    func walk(_ memory: ForeignMemory) throws -> TableWalk {
      TableWalk(
        try memory.table(.x86_64, root: 0x1000),
        behind: try memory.table(secondKind, secondOptions, root: 0x10_0000))
    }

    func outcome(_ input: UInt64, for wanted: Access = []) throws -> WalkOutcome {
      let memory = memory()
      return WalkOutcome(try walk(memory), input, for: wanted)
    }
  }

  private func fault(
    _ reason: WalkFault.Reason, _ input: UInt64, level: Int, word: UInt64, isTableAccess: Bool
  ) -> WalkOutcome {
    var fault = WalkFault(reason, input: input, level: level, word: PhysicalAddress(word))
    fault.stage = 2
    fault.isTableAccess = isTableAccess
    return .fault(fault)
  }

  @Test func theAddressesOfTablesAndOfTheResultAreTranslated() throws {
    let machine = Machine()
    let memory = machine.memory()
    let outcome = WalkOutcome(try machine.walk(memory), 0x5678)
    #expect(outcome == .leaf(0x5000, 0x5FFF, to: 0x100_9000, Self.all))
    let upper: [UInt64] = [0x10_0000, 0x10_1000]
    let read: [[UInt64]] = [0x1000, 0x2000, 0x3000, 0x4028].map {
      upper + [0x10_2000 + ($0 >> 12) * 8, 0x100_0000 + $0]
    }
    let expected = read.flatMap { $0 } + upper + [0x10_2048]
    #expect(memory.reads == expected)
  }

  @Test func aFaultOfTheFirstStageHasTheAddressOfItsWordAsItsTablesHaveIt() throws {
    var machine = Machine()
    machine.first[0x3000] = 0
    #expect(try machine.outcome(0x5678) == .fault(.notPresent, 0x5678, level: 1, word: 0x3000))
  }

  @Test func aFaultOfTheSecondStageHasTheAddressThatItWasGiven() throws {
    var machine = Machine()
    machine.second[0x10_2048] = 0
    #expect(
      try machine.outcome(0x5678)
        == fault(.notPresent, 0x9678, level: 0, word: 0x10_2048, isTableAccess: false))
    machine.second[0x10_2020] = 0
    #expect(
      try machine.outcome(0x5678)
        == fault(.notPresent, 0x4028, level: 0, word: 0x10_2020, isTableAccess: true))
    machine.first[0x3000] = 1 << 40 | 7
    #expect(
      try machine.outcome(0x5678)
        == fault(.inputWidth, 1 << 40 | 0x28, level: 2, word: 0, isTableAccess: true))
  }

  @Test func whatCannotBeReadIsAFaultOfTheStageWhoseWordItIs() throws {
    let machine = Machine()
    let second = ForeignMemory { $0 == 0x10_1000 ? nil : machine.second[$0] ?? 0 }
    var expected = WalkFault(
      .tableRead, input: 0x1000, level: 1, word: PhysicalAddress(0x10_1000))
    expected.error = -5
    expected.stage = 2
    expected.isTableAccess = true
    #expect(WalkOutcome(try machine.walk(second), 0x5678) == .fault(expected))
    let first = ForeignMemory { $0 > 0x100_0000 ? nil : machine.second[$0] ?? 0 }
    expected = WalkFault(.tableRead, input: 0x5678, level: 3, word: PhysicalAddress(0x1000))
    expected.error = -5
    #expect(WalkOutcome(try machine.walk(first), 0x5678) == .fault(expected))
  }

  @Test func bothStagesHaveToPermit() throws {
    var machine = Machine()
    machine.second[0x10_2048] = 0x100_9001
    #expect(
      try machine.outcome(0x5000) == .leaf(0x5000, 0x5FFF, to: 0x100_9000, [.read, .execute]))
    #expect(
      try machine.outcome(0x5000, for: .write)
        == fault(.denied, 0x9000, level: 0, word: 0x10_2048, isTableAccess: false))
    // The first stage is asked first.
    machine.first[0x4028] = 0x9005
    #expect(
      try machine.outcome(0x5000, for: .write)
        == .fault(.denied, 0x5000, level: 0, word: 0x4028))
  }

  @Test func whatTheStagesDoNotPermitTogetherIsDeniedInTheSecond() throws {
    var machine = Machine()
    machine.first[0x4028] = 0x9005 | 1 << 63
    machine.second[0x10_2048] = 0x100_9002
    #expect(
      try machine.outcome(0x5000)
        == fault(.denied, 0x9000, level: 0, word: 0x10_2048, isTableAccess: false))
  }

  @Test func tablesOfTheFirstStageHaveToBeReadable() throws {
    var machine = Machine()
    machine.second[0x10_2018] = 0x100_3002
    #expect(
      try machine.outcome(0x5000)
        == fault(.denied, 0x3000, level: 0, word: 0x10_2018, isTableAccess: true))
    machine.second[0x10_2018] = 0x100_3001
    #expect(try machine.outcome(0x5000, for: .write) != .fault(.denied, 0x5000, level: 0, word: 0))
  }

  @Test func whatLiesInTheLeavesOfBothIsTranslated() throws {
    // A large leaf of the first stage over small ones of the second.
    var machine = Machine()
    machine.first[0x3000] = 0x87
    #expect(
      try machine.outcome(0x5678) == .leaf(0x5000, 0x5FFF, to: 0x100_5000, Self.all))
    // Small ones over a large one.
    machine = Machine()
    machine.second[0x10_1000] = 0x100_0083
    #expect(
      try machine.outcome(0x5678) == .leaf(0x5000, 0x5FFF, to: 0x100_9000, Self.all))
    // 2 MiB over 1 GiB, from 64 MiB on.
    machine.first[0x3000] = 0x400_0087
    machine.second[0x10_0000] = 0x8000_0083
    machine.second[0x10_1000] = nil
    let memory = ForeignMemory { address in
      if let word = machine.second[address] { return word }
      return address < 0x8000_0000 ? 0 : machine.first[address - 0x8000_0000] ?? 0
    }
    #expect(
      WalkOutcome(try machine.walk(memory), 0x12_3456)
        == .leaf(0, 0x1F_FFFF, to: 0x8400_0000, Self.all))
  }

  @Test func privilegeIsOfTheFirstStageAlone() throws {
    var machine = Machine()
    machine.first[0x4028] = 0x9003
    let all: Access = [.read, .write, .execute, .privileged]
    #expect(
      try machine.outcome(0x5000, for: [.read, .privileged])
        == .leaf(0x5000, 0x5FFF, to: 0x100_9000, all))
    // To a second stage of x86-64 all requests are those of users.
    machine.secondKind = .x86_64
    machine.secondOptions = PageTableOptions(levels: 4)
    machine.second[0x10_0000] = 0x10_3007
    machine.second[0x10_3000] = 0x10_1007
    machine.second[0x10_1000] = 0x10_2007
    for page in 0..<512 as Range<UInt64> { machine.second[0x10_2000 + 8 * page]! |= 4 }
    #expect(
      try machine.outcome(0x5000, for: [.read, .privileged])
        == .leaf(0x5000, 0x5FFF, to: 0x100_9000, all))
    machine.second[0x10_2048]! &= ~4
    for wanted in [[], [.read, .privileged]] as [Access] {
      #expect(
        try machine.outcome(0x5000, for: wanted)
          == fault(.denied, 0x9000, level: 0, word: 0x10_2048, isTableAccess: false))
    }
    machine.second[0x10_2008]! &= ~4
    #expect(
      try machine.outcome(0x5000, for: [.read, .privileged])
        == fault(.denied, 0x1000, level: 0, word: 0x10_2008, isTableAccess: true))
  }

  @Test func aFetchIsAReadToASecondStageThatKnowsNone() throws {
    var machine = Machine()
    machine.second[0x10_2048] = 0x100_9001
    #expect(
      try machine.outcome(0x5000, for: .execute)
        == .leaf(0x5000, 0x5FFF, to: 0x100_9000, [.read, .execute]))
    machine.second[0x10_2048] = 0x100_9002
    #expect(
      try machine.outcome(0x5000, for: .execute)
        == fault(.denied, 0x9000, level: 0, word: 0x10_2048, isTableAccess: false))
    #expect(try machine.outcome(0x5000) == .leaf(0x5000, 0x5FFF, to: 0x100_9000, .write))
  }

  /// The kind of memory of a first and a second stage of ARM, as attributes of leaves.
  private func kind(_ first: UInt64, _ second: UInt64) throws -> Access {
    let memory = ForeignMemory([
      0x1000: 0x8000_0441 | first << 2, 0x10_0010: 0x8000_04C1 | second << 2,
      0x10_0000: 0x4D5,
    ])
    let options = PageTableOptions(levels: 3, inputBits: 39)
    let walk = TableWalk(
      try memory.table(.arm64Stage1, options, root: 0x1000),
      behind: try memory.table(.arm64Stage2, options, root: 0x10_0000))
    return try walk.translate(IOVA(0), for: []).access.subtracting(Self.all)
  }

  @Test func memoryIsOfRegistersIfOneStageSaysSoAndCacheableIfAllSayThatCan() throws {
    #expect(try kind(1, 15) == .cacheable)
    #expect(try kind(0, 15) == [])
    #expect(try kind(1, 5) == [])
    #expect(try kind(2, 5) == .mmio)
    #expect(try kind(0, 1) == .mmio)
    // x86-64 does not say, and VT-d's second stage does.
    var machine = Machine()
    machine.secondOptions.features = .coherence
    machine.second[0x10_2048]! |= 1 << 11
    #expect(
      try machine.outcome(0x5000)
        == .leaf(0x5000, 0x5FFF, to: 0x100_9000, [.read, .write, .execute, .cacheable]))
  }
}
