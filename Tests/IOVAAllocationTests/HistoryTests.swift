// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// The checker of histories, on histories of which one can see what is right.
@Suite("History")
struct HistoryTests {
  private func history(
    _ granules: Int, _ calls: [(start: Int, end: Int, action: HistoryCall.Action)],
    inUse: UInt64 = 0
  ) -> History {
    let calls = calls.enumerated().map { index, call in
      HistoryCall(thread: index, start: call.start, end: call.end, action: call.action)
    }
    return History(granules: granules, inUse: inUse, calls: calls)
  }

  @Test func nothingExplainsItself() {
    #expect(history(4, []).isLinearizable)
  }

  @Test func twoAllocationsOfOnePlaceAreWrongHoweverTheyMeet() {
    for (start, end) in [(1, 2), (0, 1), (0, 3)] {
      let wrong = history(
        2,
        [
          (0, 2, .allocate(count: 1, limit: 1, place: 1)),
          (start, end, .allocate(count: 1, limit: 1, place: 1)),
        ])
      #expect(!wrong.isLinearizable)
    }
  }

  @Test func aFailureIsWrongIfThereWasAPlaceAllTheTime() {
    #expect(!history(2, [(0, 1, .allocate(count: 1, limit: 1, place: nil))]).isLinearizable)
    #expect(
      history(2, [(0, 1, .allocate(count: 1, limit: 0, place: nil))], inUse: 0b01).isLinearizable)
    #expect(
      !history(2, [(0, 1, .allocate(count: 1, limit: 1, place: nil))], inUse: 0b01).isLinearizable)
    #expect(
      history(4, [(0, 1, .allocate(count: 2, limit: 3, place: nil))], inUse: 0b0101).isLinearizable)
  }

  @Test func aFailureIsRightIfItMayHaveComeBeforeTheFree() {
    let free = HistoryCall.Action.free(place: 0, count: 2)
    let failure = HistoryCall.Action.allocate(count: 1, limit: 1, place: nil)
    #expect(history(2, [(0, 3, free), (1, 2, failure)], inUse: 0b11).isLinearizable)
    #expect(history(2, [(2, 3, free), (0, 1, failure)], inUse: 0b11).isLinearizable)
    #expect(!history(2, [(0, 1, free), (2, 3, failure)], inUse: 0b11).isLinearizable)
  }

  /// Two are moved about so that at every moment one of two granules is free, and a third sees none.
  @Test func aFailureIsWrongIfThereWasSomePlaceAtEveryMoment() {
    let calls: [(start: Int, end: Int, action: HistoryCall.Action)] = [
      (0, 9, .allocate(count: 1, limit: 1, place: nil)),
      (1, 2, .free(place: 1, count: 1)),
      (3, 4, .allocate(count: 1, limit: 1, place: 1)),
      (5, 6, .free(place: 1, count: 1)),
    ]
    #expect(!history(2, calls, inUse: 0b10).isLinearizable)
    #expect(history(2, calls, inUse: 0b11).isLinearizable)
  }

  @Test func whatIsNotInUseCannotBeFreedAndWhatIsCannotBeReserved() {
    #expect(!history(2, [(0, 1, .free(place: 0, count: 1))]).isLinearizable)
    #expect(!history(2, [(0, 1, .unreserve(place: 0, count: 2))], inUse: 0b01).isLinearizable)
    #expect(
      !history(2, [(0, 1, .reserve(place: 0, count: 2, isBusy: false))], inUse: 0b01)
        .isLinearizable)
    #expect(!history(2, [(0, 1, .reserve(place: 0, count: 2, isBusy: true))]).isLinearizable)
    #expect(
      history(2, [(0, 1, .reserve(place: 0, count: 2, isBusy: true)), (2, 3, .drain)], inUse: 0b10)
        .isLinearizable)
  }

  @Test func anOrderIsFoundThatGoesBackAndForth() {
    // Each of the first three overlaps with all others; one order alone explains them.
    let calls: [(start: Int, end: Int, action: HistoryCall.Action)] = [
      (0, 9, .allocate(count: 2, limit: 1, place: 0)),
      (1, 8, .reserve(place: 0, count: 1, isBusy: false)),
      (2, 7, .unreserve(place: 0, count: 1)),
      (3, 6, .free(place: 0, count: 2)),
      (4, 5, .reserve(place: 1, count: 1, isBusy: true)),
    ]
    #expect(history(2, calls).isLinearizable)
    #expect(!history(2, Array(calls.dropFirst())).isLinearizable)
  }
}
