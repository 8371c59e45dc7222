// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import MachineSupport
import Primitives
import Synchronization
import TestSupport
import Testing

@testable import Domains

/// A queue, a reader that stays inside until it is told to leave, and what it is told.
private final class Stage: @unchecked Sendable {
  let queue: UnsafeMutablePointer<FlushQueue>
  private let readers: UnsafeMutablePointer<System>
  private let isInside = Atomic<Bool>(false)
  private let mayLeave = Atomic<Bool>(false)
  private let isLeaving = Atomic<Bool>(false)

  init(_ machine: Machine, _ domain: UnsafeMutablePointer<Domain>) {
    readers = machine.system
    queue = domain.pointee.translation!.pointee.queue!
  }

  /// Waits until another thread has come so far, unless something is wrong with it.
  func waitFor(_ what: String, _ condition: () -> Bool) throws {
    let start = ContinuousClock.now
    while !condition() {
      guard start.duration(to: .now) < .seconds(10) else {
        letReaderLeave()
        throw Divergence("there is never \(what)")
      }
    }
  }

  /// A thread of its own.
  func read() throws {
    let token = readers.pointee.readers.enter()
    defer { readers.pointee.readers.leave(token) }
    isInside.store(true, ordering: .releasing)
    try waitFor("word that it may leave") { mayLeave.load(ordering: .acquiring) }
    // Long enough for a writer that does not wait to be found out.
    for _ in 0..<200_000 { _ = mayLeave.load(ordering: .relaxed) }
    isLeaving.store(true, ordering: .releasing)
  }

  func awaitReader() throws {
    try waitFor("a reader") { isInside.load(ordering: .acquiring) }
  }

  func letReaderLeave() { mayLeave.store(true, ordering: .releasing) }

  func demandReaderHasLeft() throws {
    try demand(isLeaving.load(ordering: .acquiring), "the reader is still inside")
  }

  func tick(_ now: UInt64) { readers.pointee.tick(now) }

  /// A page, as if it had been mapped and its words were cleared.
  func takePage() throws -> IOVARange {
    let first = try queue.pointee.space.pointee.allocate(
      size: 4096, alignment: 0, limit: UInt64.max)
    return try IOVARange(first: first, size: 4096)
  }

  func freeLater(pages count: Int) throws {
    let pages = try (0..<count).map { _ in try takePage() }
    for page in pages { queue.pointee.freeLater(page) }
  }

  /// Unmaps a page in a section of a cell. Returns whether it arrived.
  func arrive(_ page: IOVARange, at cell: Int = 0) -> Bool {
    readers.pointee.calls.close(cell)
    defer { readers.pointee.calls.reopen(cell) }
    return queue.pointee.arriveOrQueue(cell, page.first.rawValue)
  }

  func demandArrivals(_ count: Int, at cell: Int = 0) throws {
    for _ in 0..<count { try demand(arrive(takePage(), at: cell), "a page does not arrive") }
  }

  /// While an access is in flight: what arrives meanwhile has to wait for it.
  func whileReading(_ body: () throws -> Void) rethrows {
    let token = readers.pointee.readers.enter()
    defer { readers.pointee.readers.leave(token) }
    try body()
  }

  var stashedCount: UInt64 { queue.pointee.stash.addresses.count() }

  var lastCell: Int { readers.pointee.calls.end - CallSections.cellSize }

  var queuedCount: UInt64 { queue.pointee.counts.count }
}

@Suite("FlushQueue")
struct FlushQueueTests {
  private static func limits(_ entries: UInt32) throws -> FlushQueue.Limits {
    try FlushQueue.Limits(entries: entries, age: 100)
  }

  /// A lazy domain whose batches are of four.
  private func withStage(_ body: (Machine, Stage) throws -> Void) throws {
    try withMachine { machine in
      try body(machine, Stage(machine, machine.domain(.dma, isLazy: true, Self.limits(4))))
      #expect(machine.reports.all == [])
    }
  }

  @Test func zeroMeansTheDefaults() throws {
    let limits = try FlushQueue.Limits(entries: 0, age: 0)
    #expect(limits.entries == 256)
    #expect(limits.age == 10_000_000)
    #expect(try FlushQueue.Limits(entries: 65536, age: 1).entries == 65536)
    #expect(throws: Failure.invalidArgument) { try FlushQueue.Limits(entries: 65537, age: 1) }
  }

  @Test func queueingDoesNotWaitForReaders() throws {
    try withStage { machine, stage in
      let token = machine.system.pointee.readers.enter()
      try stage.freeLater(pages: 3)
      #expect(stage.queuedCount == 3)
      machine.system.pointee.readers.leave(token)
    }
  }

  @Test(arguments: [0, 1, 2])
  func whoFlushesWaitsForReaders(_ way: Int) throws {
    try withStage { _, stage in
      try onThreads(2) { index in
        guard index == 1 else { return try stage.read() }
        try stage.awaitReader()
        try stage.freeLater(pages: 3)
        stage.letReaderLeave()
        switch way {
        case 0: stage.queue.pointee.flush()
        case 1: stage.tick(100)
        default: try stage.freeLater(pages: 1)
        }
        try stage.demandReaderHasLeft()
        try demandSame(stage.queuedCount, 0, "what is queued")
      }
    }
  }

  @Test func besideAFlushARangeThatFindsNoRoomIsFreedAlone() throws {
    try withStage { _, stage in
      try onThreads(3) { index in
        switch index {
        case 0: try stage.read()
        case 1:
          try stage.awaitReader()
          try stage.freeLater(pages: 4)
        default:
          try stage.waitFor("a full batch") { stage.queuedCount >= 4 }
          try stage.freeLater(pages: 4)
          // Neither waited, as the reader is inside.
          try demandSame(stage.queuedCount, 8, "what is queued")
          let page = try stage.takePage()
          stage.letReaderLeave()
          stage.queue.pointee.freeLater(page)
          try stage.demandReaderHasLeft()
          try demandSame(try stage.takePage().first, page.first, "what is free")
          stage.queue.pointee.free(page)
        }
      }
      // The second batch came too late for the flush.
      #expect(stage.queuedCount == 4)
      #expect(stage.queue.pointee.counts.flushes == 1)
      // The first that finds it full and no flush under way flushes it, and needs no room.
      try stage.freeLater(pages: 1)
      #expect(stage.queuedCount == 0)
      #expect(stage.queue.pointee.counts.flushes == 2)
      #expect(stage.queue.pointee.space.pointee.statistics.allocatedCount == 0)
    }
  }

  @Test func aFlushWaitsForThatOfAnotherThread() throws {
    try withStage { _, stage in
      try onThreads(3) { index in
        switch index {
        case 0: try stage.read()
        case 1:
          try stage.awaitReader()
          try stage.freeLater(pages: 4)
        default:
          try stage.waitFor("a full batch") { stage.queuedCount >= 4 }
          stage.letReaderLeave()
          stage.queue.pointee.flush()
          try stage.demandReaderHasLeft()
          try demandSame(stage.queuedCount, 0, "what is queued")
        }
      }
      #expect(stage.queue.pointee.counts.flushes == 1)
    }
  }

  @Test func aDomainMayEndInTheMiddleOfATick() throws {
    try withMachine { machine in
      let domain = try Box<Domain>.place { () throws(Failure) in
        try Domain(iommu: machine.iommu, DomainDescription(.dma, isLazy: true))
      }
      let stage = Stage(machine, domain)
      let address = UInt(bitPattern: domain)
      try onThreads(3) { index in
        switch index {
        case 0: try stage.read()
        case 1:
          try stage.awaitReader()
          try stage.freeLater(pages: 3)
          stage.tick(UInt64.max)
          try stage.demandReaderHasLeft()
        default:
          try stage.awaitReader()
          try stage.waitFor("a tick that holds the queue") { Box.isShared(stage.queue) }
          let domain = UnsafeMutablePointer<Domain>(bitPattern: address)!
          try demand(!Box.isShared(domain), "the tick holds the domain")
          Box.letGo(domain)
          // It is in no list any more.
          stage.tick(0)
          stage.letReaderLeave()
        }
      }
      #expect(machine.reports.all == [])
    }
  }

  // MARK: - Arrivals

  /// A lazy domain whose processors queue eight pages together.
  private func withArrivals(_ body: (Machine, Stage) throws -> Void) throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma, isLazy: true, Self.limits(64))
      try body(machine, Stage(machine, domain))
      #expect(machine.reports.all == [])
    }
  }

  @Test(arguments: [(1, 1), (60, 1), (64, 8), (100, 1), (256, 8)] as [(UInt32, UInt64)])
  func pagesAreQueuedTogetherWhereThatDividesTheLimit(_ entries: UInt32, _ together: UInt64) throws
  {
    #expect(try Self.limits(entries).together == together)
  }

  @Test func whatArrivedIsQueuedAndAFlushFreesIt() throws {
    try withArrivals { _, stage in
      try stage.whileReading {
        try stage.demandArrivals(20)
        try stage.demandArrivals(3, at: stage.lastCell)
      }
      #expect(stage.queuedCount == 23)
      #expect(stage.queue.pointee.counts.bytes == 23 * 4096)
      stage.queue.pointee.flush()
      #expect(stage.queuedCount == 0)
      #expect(stage.queue.pointee.counts.flushes == 1)
      #expect(stage.queue.pointee.space.pointee.statistics.allocatedCount == 0)
    }
  }

  @Test func thePageThatFillsTheBatchIsLeftToWhoFlushes() throws {
    try withArrivals { _, stage in
      let page = try stage.takePage()
      try stage.whileReading {
        try stage.demandArrivals(63)
        #expect(!stage.arrive(page))
      }
      #expect(stage.queuedCount == 63)
      stage.queue.pointee.freeLater(page)
      #expect(stage.queuedCount == 0)
      #expect(stage.queue.pointee.counts.flushes == 1)
    }
  }

  @Test func whatArrivedWaitsForRoomBesideAFlush() throws {
    try withArrivals { _, stage in
      try onThreads(3) { index in
        switch index {
        case 0: try stage.read()
        case 1:
          try stage.awaitReader()
          try stage.freeLater(pages: 64)
        default:
          try stage.waitFor("a full batch") { stage.queuedCount >= 64 }
          try stage.demandArrivals(63)
          let last = try stage.takePage()
          try demand(!stage.arrive(last), "a page that fills the batch arrives")
          stage.queue.pointee.freeLater(last)
          try stage.demandArrivals(7)
          let page = try stage.takePage()
          try demand(!stage.arrive(page), "a page arrives for which there is no room")
          try demandSame(stage.queuedCount, 64 + 64 + 7, "what is queued")
          stage.letReaderLeave()
          stage.queue.pointee.free(page)
          stage.queue.pointee.flush()
          try demandSame(stage.queuedCount, 0, "what is queued")
        }
      }
      #expect(stage.queue.pointee.space.pointee.statistics.allocatedCount == 0)
    }
  }

  @Test func whatArrivedIsAtHandWhenNoAccessIsInFlight() throws {
    try withArrivals { _, stage in
      try stage.demandArrivals(7)
      #expect((stage.queuedCount, stage.stashedCount) == (7, 0))
      // The eighth settles them all.
      try stage.demandArrivals(1)
      #expect((stage.queuedCount, stage.stashedCount) == (0, 8))
      try stage.demandArrivals(7)
      #expect((stage.queuedCount, stage.stashedCount) == (7, 8))
      // Seven more fill the place where they are at hand, and then there is no room.
      try stage.demandArrivals(1)
      #expect((stage.queuedCount, stage.stashedCount) == (1, 15))
      try stage.demandArrivals(6)
      #expect((stage.queuedCount, stage.stashedCount) == (7, 15))
      try stage.demandArrivals(1)
      #expect((stage.queuedCount, stage.stashedCount) == (8, 15))
      stage.queue.pointee.flush()
      #expect((stage.queuedCount, stage.stashedCount) == (0, 15))
      #expect(stage.queue.pointee.counts.flushes == 1)
    }
  }

  @Test func whatArrivedIsNotAtHandWhileAnAccessIsInFlight() throws {
    try withArrivals { _, stage in
      try stage.whileReading { try stage.demandArrivals(20) }
      #expect((stage.queuedCount, stage.stashedCount) == (20, 0))
    }
  }

  @Test func aTickFindsWhatArrivedAsLongAgoAsTheLimitSays() throws {
    try withArrivals { _, stage in
      stage.tick(5)
      try stage.demandArrivals(3)
      stage.tick(50)
      try stage.demandArrivals(1)
      try stage.demandArrivals(1, at: stage.lastCell)
      // In the batch before those that are older.
      try stage.freeLater(pages: 1)
      stage.tick(104)
      #expect(stage.queuedCount == 6)
      stage.tick(105)
      #expect(stage.queuedCount == 0)
      try stage.demandArrivals(1)
      stage.tick(204)
      #expect(stage.queuedCount == 1)
      stage.tick(205)
      #expect(stage.queuedCount == 0)
    }
  }

  @Test func nothingArrivesInAStrictDomain() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma, isLazy: true, Self.limits(64))
      let stage = Stage(machine, domain)
      try stage.demandArrivals(3, at: stage.lastCell)
      try domain.pointee.setLazy(false)
      #expect(stage.queuedCount == 0)
      #expect(try !stage.arrive(stage.takePage()))
      #expect(stage.queuedCount == 0)
    }
  }

  @Test func anAllocationThatIsTriedAgainFindsWhatArrived() throws {
    try withArrivals { _, stage in
      try stage.demandArrivals(3)
      let page = try stage.takePage()
      var tries = 0
      let range = try stage.queue.pointee.retrying { () throws(Failure) in
        tries += 1
        guard tries == 2 else { throw .noSpace }
        #expect(stage.queuedCount == 0)
        #expect(!stage.arrive(page))
        return page
      }
      #expect(range == page)
      #expect(stage.arrive(page))
    }
  }

  // MARK: - Strict and lazy

  @Test func aDomainBecomesLazyAndStrictAgain() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let stage = Stage(machine, domain)
      try stage.freeLater(pages: 1)
      #expect(stage.queuedCount == 0)
      for round in 0..<3 {
        try domain.pointee.setLazy(true)
        try domain.pointee.setLazy(true)
        try stage.freeLater(pages: 2)
        #expect(stage.queuedCount == 2)
        // Its ticks come from when it was lazy first.
        stage.tick(UInt64(round) * 10_000_000)
        try stage.freeLater(pages: 1)
        try domain.pointee.setLazy(false)
        #expect(stage.queuedCount == 0)
        try stage.freeLater(pages: 1)
        #expect(stage.queuedCount == 0)
      }
      #expect(domain.pointee.statistics.mappingCount == 0)
    }
  }

  @Test(arguments: [Domain.Kind.identity, .blocked, .unmanaged])
  func onlyADMADomainIsLazy(_ kind: Domain.Kind) throws {
    try withMachine { machine in
      #expect(throws: Failure.invalidArgument) { try machine.domain(kind, isLazy: true) }
      let domain = try machine.domain(kind)
      #expect(throws: Failure.notSupported) { try domain.pointee.setLazy(true) }
      #expect(throws: Failure.notSupported) { try domain.pointee.setLazy(false) }
      #expect(throws: Failure.notSupported) { try domain.pointee.flush() }
    }
  }

  // MARK: - Where space is short

  @Test func nothingIsQueuedWhileAnAllocationIsTriedAgain() throws {
    try withStage { _, stage in
      try stage.freeLater(pages: 3)
      var tries = 0
      let page = try IOVARange(first: IOVA(4096), size: 4096)
      let range = try stage.queue.pointee.retrying { () throws(Failure) in
        tries += 1
        guard tries == 2 else { throw .noSpace }
        #expect(stage.queuedCount == 0)
        #expect(throws: Never.self) { try stage.freeLater(pages: 2) }
        #expect(stage.queuedCount == 0)
        return page
      }
      #expect(range == page)
      try stage.freeLater(pages: 2)
      #expect(stage.queuedCount == 2)
    }
  }

  @Test func anAllocationThatFindsNothingTwiceFails() throws {
    try withStage { _, stage in
      var tries = 0
      func fail(_ failure: Failure) -> Failure? {
        tries = 0
        do throws(Failure) {
          _ = try stage.queue.pointee.retrying { () throws(Failure) in
            tries += 1
            throw failure
          }
          return nil
        } catch { return error }
      }
      #expect(fail(.noSpace) == .noSpace)
      #expect(tries == 2)
      #expect(fail(.noMemory) == .noMemory)
      #expect(tries == 1)
      // Ranges are queued again.
      try stage.freeLater(pages: 1)
      #expect(stage.queuedCount == 1)
    }
  }
}
