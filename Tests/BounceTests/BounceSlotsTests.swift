// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import Primitives
import ReferenceModels
import Synchronization
import TestSupport
import Testing

private typealias Run = UnsafeMutablePointer<BounceRun>

/// Slots of memory that is never touched.
private final class Slots: @unchecked Sendable {
  nonisolated(unsafe) static let host = UnsafeMutableRawPointer(bitPattern: 0x10_0000)!

  let slots: BounceSlots
  let base: UInt64

  init(_ count: Int, areas: Int = 1, base: UInt64 = 0x8000_0000) throws {
    slots = try BounceSlots(Self.host, size: count * 2048, areas: areas)
    self.base = base
  }

  func take(_ request: SlotsModel.Request) throws -> Run? {
    let original = try PhysicalRange(first: PhysicalAddress(0x1000), size: request.size)
    return slots.take(
      try BounceRequest(
        size: request.size, low: request.low, mask: request.mask, boundary: request.boundary),
      original: original, base: base)
  }

  func offset(_ run: Run) -> UInt64 { run.pointee.address - base }

  func take(_ size: UInt64, low: UInt64 = 0, mask: UInt64 = 0) throws -> UInt64? {
    try take(SlotsModel.Request(size: size, low: low, mask: mask)).map(offset)
  }
}

@Suite("BounceSlots")
struct BounceSlotsTests {
  @Test func eachSlotIsGivenOnce() throws {
    let slots = try Slots(128)
    var found: Set<UInt64> = []
    for _ in 0..<64 { found.insert(try #require(try slots.take(4096))) }
    #expect(found.count == 64)
    #expect(try slots.take(1) == nil)
  }

  @Test func slotsThatWereGivenBackAreFree() throws {
    let slots = try Slots(64)
    var runs: [Run] = []
    for _ in 0..<64 { runs.append(try #require(try slots.take(.init(size: 2048)))) }
    slots.slots.giveBack(runs[10])
    slots.slots.giveBack(runs[12])
    #expect(try slots.take(4096) == nil)
    slots.slots.giveBack(runs[11])
    #expect(try slots.take(3 * 2048) == 10 * 2048)
  }

  @Test func whatIsGivenBackIsTakenNext() throws {
    let slots = try Slots(640)
    var runs: [Run] = []
    for _ in 0..<100 { runs.append(try #require(try slots.take(.init(size: 4096)))) }
    let offset = slots.offset(runs[70])
    slots.slots.giveBack(runs[70])
    #expect(try slots.take(4096) == offset)
  }

  @Test func thereAreNoSlotsBehindTheLast() throws {
    for count in [1, 2, 63, 65, 127, 130] {
      let slots = try Slots(count, areas: 4)
      #expect(try slots.take(UInt64(count) * 2048 + 1) == nil)
      for _ in 0..<count { #expect(try slots.take(2048) != nil) }
      #expect(try slots.take(1) == nil)
    }
  }

  @Test func aRunKnowsItsCopy() throws {
    let slots = try Slots(64)
    let run = try #require(try slots.take(.init(size: 3000, low: 0x1234, mask: 0xfff)))
    #expect(run.pointee.address & 0xfff == 0x234)
    #expect(run.pointee.host - Slots.host == Int(slots.offset(run)))
    #expect(run.pointee.count == 2)
    #expect(run.pointee.original.first.rawValue == 0x1000)
    #expect(run.pointee.original.extent == 2999)
  }

  @Test(arguments: [0, 1, 7, 63, 511, 2047, 4095, 65535, 262143] as [UInt64])
  func aCopyHasTheLowBitsOfWhatItIsACopyOf(_ mask: UInt64) throws {
    // No multiple of the mask, and of a page.
    let slots = try Slots(1024, base: 0x8000_3000)
    for low in [0, 1, 2047, 2048, 2049, 4095, 0x3_4567, UInt64.max] as [UInt64] {
      let run = try #require(try slots.take(.init(size: 5000, low: low, mask: mask)))
      #expect(run.pointee.address & mask == low & mask)
      slots.slots.giveBack(run)
    }
  }

  @Test func aMaskThatNoAddressInThereHasIsRefused() throws {
    let slots = try Slots(128)
    #expect(try slots.take(1, low: 0, mask: UInt64.max) == nil)
    #expect(try slots.take(1, low: 0x8000_0800, mask: UInt64.max) == 0x800)
  }

  @Test func bitsBelowTheHighestOfAMaskCount() throws {
    let slots = try Slots(128)
    let offset = try #require(try slots.take(1, low: 0x1fff, mask: 0x1000))
    #expect(offset & 0x1fff == 0x1fff)
  }

  @Test func aCopyReachesOutOfNoBlock() throws {
    let slots = try Slots(64)
    _ = try slots.take(2048)
    let request = SlotsModel.Request(size: 4 * 2048, boundary: 4 * 2048 - 1)
    #expect(slots.offset(try #require(try slots.take(request))) == 4 * 2048)
    #expect(try slots.take(SlotsModel.Request(size: 4096, boundary: 2047)) == nil)
    let large = SlotsModel.Request(size: 4096, boundary: 64 << 10 - 1)
    #expect(try slots.take(large) != nil)
  }

  @Test func whatFitsInNoAreaLiesAcrossSeveral() throws {
    let slots = try Slots(256, areas: 4)
    let most = try #require(try slots.take(.init(size: 256 * 2048)))
    #expect(try slots.take(1) == nil)
    slots.slots.giveBack(most)
    // Half of each area, so that the free half of one goes on in the next.
    var runs: [Run] = []
    while let run = try slots.take(.init(size: 2048)) { runs.append(run) }
    for run in runs where (96..<160).contains(slots.offset(run) / 2048) {
      slots.slots.giveBack(run)
    }
    #expect(try slots.take(65 * 2048) == nil)
    #expect(try slots.take(64 * 2048) == 96 * 2048)
  }

  @Test func sizesThatNoMemoryHasAreRefused() throws {
    for size in [1 << 60 + 1, 1 << 63, UInt64.max] as [UInt64] {
      #expect(throws: Failure.noSpace) { try BounceRequest(size: size) }
    }
    let slots = try Slots(64)
    #expect(try slots.take(.init(size: 1 << 60, low: 0, mask: UInt64.max)) == nil)
  }

  @Test func roomHoldsACopyWhereverItStarts() throws {
    for mask in [0, 511, 4095, 65535] as [UInt64] {
      let request = try BounceRequest(size: 10_000, low: 0xffff, mask: mask)
      for page in 0..<32 as Range<UInt64> {
        let slots = try Slots(Int(request.room / 2048 + 1), base: page * 4096)
        #expect(try slots.take(10_000, low: 0xffff, mask: mask) != nil)
      }
    }
  }

  @Test func bytesAreCounted() throws {
    let slots = try Slots(256, areas: 2)
    let small = try #require(try slots.take(.init(size: 100)))
    _ = try slots.take(.init(size: 100 * 2048))
    slots.slots.count(copied: 7, out: false, of: small.pointee)
    slots.slots.count(copied: 30, out: true, of: small.pointee)
    #expect(slots.slots.copied == (107 + 100 * 2048, 30))
  }
}

private enum Step {
  case take(SlotsModel.Request)
  case giveBack(Int)
}

/// Slots beside a row of flags: what is given suits the request, and nothing is given only where nothing
/// would.
private final class SlotsWorld: World {
  private let slots: Slots
  private var model: SlotsModel
  private var runs: [Run] = []

  init(count: Int, areas: Int, base: UInt64) throws {
    slots = try Slots(count, areas: areas, base: base)
    model = SlotsModel(count: count)
  }

  func take(_ step: Step, _ log: inout StepLog) throws {
    switch step {
    case .take(let request):
      log.note("take(\(request))")
      guard let run = try slots.take(request) else {
        try demand(!model.hasPlace(for: request, base: slots.base), "there is a place")
        return
      }
      try demand(
        model.suits(run.pointee.address, request, base: slots.base),
        "\(hex(run.pointee.address)) does not suit \(request)")
      model.set(slots.offset(run), request.size, isUsed: true)
      runs.append(run)
    case .giveBack(let number):
      guard !runs.isEmpty else { return }
      log.note("giveBack(\(number % runs.count))")
      let run = runs.remove(at: number % runs.count)
      model.set(slots.offset(run), run.pointee.original.extent + 1, isUsed: false)
      slots.slots.giveBack(run)
    }
  }

  func compare() throws {}

  func end() throws {
    for run in runs { slots.slots.giveBack(run) }
    let all = try slots.take(UInt64(model.isUsed.count) * 2048)
    try demandSame(all, 0, "place of a copy that takes all slots")
  }
}

@Suite("BounceSlots beside a model")
struct BounceSlotsModelTests {
  @Test(arguments: [(64, 1), (200, 2), (515, 4), (1024, 64)])
  func slotsAreGivenWhereverTheyAreFree(_ count: Int, _ areas: Int) throws {
    try explore("\(count) slots, \(areas) areas", steps: RunSettings.steps(6_000)) {
      try SlotsWorld(count: count, areas: areas, base: 0x8000_5000)
    } by: { generator in
      if generator.onceIn(generator.onceIn(8) ? 1 : 3) { return .giveBack(generator.below(10_000)) }
      let mostSlots = generator.onceIn(8) ? count : 6
      var request = SlotsModel.Request(
        size: UInt64(1 + generator.below(mostSlots * 2048)),
        low: UInt64(generator.below(1 << 20)))
      if !generator.onceIn(3) { request.mask = 1 << UInt64(generator.below(18)) - 1 }
      if generator.onceIn(4) { request.boundary = 1 << UInt64(11 + generator.below(9)) - 1 }
      return .take(request)
    }
  }
}

@Suite("BounceSlots on several threads")
struct BounceSlotsConcurrencyTests {
  private final class Owner: Sendable {
    let thread = Atomic<Int>(0)
  }

  @Test(arguments: [2, 4])
  func noSlotIsGivenToTwoThreads(_ threads: Int) throws {
    let slots = try Slots(256, areas: 3)
    let owners = (0..<256).map { _ in Owner() }
    let seed = RunSettings.seed
    try onThreads(threads) { thread in
      var generator = SeededGenerator(seed: seed &+ UInt64(thread))
      var runs: [Run] = []
      @Sendable func change(_ run: Run, from old: Int, to new: Int) throws {
        let range = SlotsModel.slots(slots.offset(run), run.pointee.original.extent + 1)
        for slot in range {
          let found = owners[slot].thread.exchange(new, ordering: .relaxed)
          try demandSame(found, old, "owner of slot \(slot)")
        }
      }
      for _ in 0..<RunSettings.steps(4_000) {
        if runs.count > 8 || (generator.onceIn(2) && !runs.isEmpty) {
          let run = runs.remove(at: generator.below(runs.count))
          try change(run, from: thread + 1, to: 0)
          slots.slots.giveBack(run)
        } else if let run = try slots.take(
          .init(size: UInt64(1 + generator.below(generator.onceIn(6) ? 100 * 2048 : 8192))))
        {
          try change(run, from: 0, to: thread + 1)
          runs.append(run)
        }
      }
      for run in runs {
        try change(run, from: thread + 1, to: 0)
        slots.slots.giveBack(run)
      }
    }
    #expect(try slots.take(256 * 2048) == 0)
  }
}
