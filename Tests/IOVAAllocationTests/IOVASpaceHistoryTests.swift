// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Foundation
import IOVAAllocation
import Primitives
import Synchronization
import TestSupport
import Testing

/// A place where all threads wait for each other.
private final class MeetingPoint: Sendable {
  private let count: Int
  private let arrivals = Atomic<Int>(0)

  init(_ count: Int) { self.count = count }

  func meet() {
    // Nobody comes a second time before all have come once.
    let number = arrivals.add(1, ordering: .acquiringAndReleasing).newValue
    let full = (number + count - 1) / count * count
    while arrivals.load(ordering: .acquiring) < full { sched_yield() }
  }
}

/// What threads do to a space, round after round, and what it gives.
private final class Recorder: Sendable {
  struct Range {
    let place: Int
    let count: Int
    let isReserved: Bool
  }

  /// Written by its thread between the second and the third meeting of a round, and read by all at
  /// other times.
  final class Notes: @unchecked Sendable {
    var held: [Range] = []
    var calls: [HistoryCall] = []
  }

  static let granules = 6
  static let callCount = 4

  let shared: SharedSpace
  let threads: Int
  let meeting: MeetingPoint
  private let clock = Atomic<Int>(0)
  let notes: [Notes]

  init(threads: Int, isChecked: Bool) throws {
    shared = try SharedSpace(pages(0, UInt64(Self.granules) - 1), isChecked: isChecked)
    self.threads = threads
    meeting = MeetingPoint(threads)
    notes = (0..<threads).map { _ in Notes() }
  }

  private func tick() -> Int { clock.add(1, ordering: .sequentiallyConsistent).newValue }

  func makeCall(
    _ thread: Int, _ held: inout [Range], _ generator: inout SeededGenerator
  ) throws -> HistoryCall {
    // Somebody else may come between.
    if generator.onceIn(3) { sched_yield() }
    let choice = generator.below(10)
    if choice < 4, !held.isEmpty {
      let range = held.remove(at: generator.below(held.count))
      let start = tick()
      if range.isReserved {
        try shared.space.unreserve(addresses(range))
      } else {
        try shared.free(IOVA(UInt64(range.place) * page), pages: UInt64(range.count))
      }
      let end = tick()
      return HistoryCall(
        thread: thread, start: start, end: end,
        action: range.isReserved
          ? .unreserve(place: range.place, count: range.count)
          : .free(place: range.place, count: range.count))
    }
    if choice == 8 { return try reserve(thread, &held, &generator) }
    if choice == 9, generator.onceIn(2) {
      let start = tick()
      shared.space.drain()
      return HistoryCall(thread: thread, start: start, end: tick(), action: .drain)
    }
    let count = generator.one(of: [1, 1, 1, 2, 2, 3, 4])
    let limit = generator.onceIn(4) ? generator.below(Self.granules) : Self.granules - 1
    let start = tick()
    let place: Int?
    do throws(Failure) {
      let found = try shared.space.allocate(
        size: UInt64(count) * page, alignment: 0, limit: UInt64(limit) * page + (page - 1))
      place = Int(found.rawValue / page)
    } catch {
      try demandSame(error, .noSpace, "why there is no range")
      place = nil
    }
    let end = tick()
    if let place { held.append(Range(place: place, count: count, isReserved: false)) }
    return HistoryCall(
      thread: thread, start: start, end: end,
      action: .allocate(count: count, limit: limit, place: place))
  }

  private func addresses(_ range: Range) throws -> IOVARange {
    try pages(UInt64(range.place), UInt64(range.place + range.count - 1))
  }

  private func reserve(
    _ thread: Int, _ held: inout [Range], _ generator: inout SeededGenerator
  ) throws -> HistoryCall {
    let place = generator.below(Self.granules)
    let range = Range(
      place: place, count: 1 + generator.below(min(2, Self.granules - place)), isReserved: true)
    let addresses = try addresses(range)
    var isBusy = false
    let start = tick()
    do throws(Failure) {
      try shared.space.reserve(addresses)
    } catch {
      try demandSame(error, .busy, "why nothing is reserved")
      isBusy = true
    }
    let end = tick()
    if !isBusy { held.append(range) }
    return HistoryCall(
      thread: thread, start: start, end: end,
      action: .reserve(place: range.place, count: range.count, isBusy: isBusy))
  }

  /// Granules that the threads hold, a bit each.
  func inUse() -> UInt64 {
    notes.map(\.held).joined().reduce(0) { bits, range in
      bits | ((1 << UInt64(range.count)) - 1) << UInt64(range.place)
    }
  }
}

@Suite("Histories of an IOVASpace")
struct IOVASpaceHistoryTests {
  @Test(arguments: [2, 3, 4], [false, true])
  func everyShortHistoryIsThatOfCallsOneAfterAnother(threads: Int, isChecked: Bool) throws {
    let recorder = try Recorder(threads: threads, isChecked: isChecked)
    let seed = RunSettings.seed
    print("histories of \(threads) threads: DMACORE_SEED=\(hex(seed))")
    let failed = Flag()
    try onThreads(threads) { thread in
      var generator = SeededGenerator(seed: seed &+ UInt64(thread))
      for round in 0..<RunSettings.steps(2_000) {
        let inUse = recorder.inUse()
        recorder.meeting.meet()
        // What one thread holds, another frees in the next round.
        var held = recorder.notes[(thread + 1) % threads].held
        var calls: [HistoryCall] = []
        var trouble: (any Error)?
        do {
          for _ in 0..<Recorder.callCount {
            calls.append(try recorder.makeCall(thread, &held, &generator))
          }
        } catch {
          trouble = error
          failed.set()
        }
        recorder.meeting.meet()
        recorder.notes[thread].held = held
        recorder.notes[thread].calls = calls
        recorder.meeting.meet()
        if thread == 0, trouble == nil {
          let history = History(
            granules: Recorder.granules, inUse: inUse,
            calls: recorder.notes.flatMap(\.calls).sorted { $0.start < $1.start })
          if !history.isLinearizable {
            failed.set()
            let text = history.calls.map { "  \($0)" }.joined(separator: "\n")
            trouble = Divergence(
              "no order explains round \(round), from \(String(inUse, radix: 2)):\n\(text)")
          }
        }
        recorder.meeting.meet()
        if let trouble { throw trouble }
        if failed.isSet { return }
      }
    }
    recorder.shared.space.drain()
    #expect(recorder.shared.space.statistics.refusedFrees == 0)
  }
}
