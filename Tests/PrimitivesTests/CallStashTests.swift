// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import TestSupport
import Testing

@Suite("Call stashes")
struct CallStashTests {
  @Test func whatWasPutInLastComesOutFirst() throws {
    let calls = try CallSections()
    let stash = try CallStash(for: calls)
    let call = calls.enter()
    defer { calls.leave(call) }
    try demand(stash.next(call) == nil && stash.isEmpty(call), "it is empty")
    for thing in 1...UInt64(CallStash.capacity) {
      try demand(stash.put(call, thing), "there is room for \(thing)")
    }
    try demand(!stash.put(call, 99), "it is full")
    for thing in (1...UInt64(CallStash.capacity)).reversed() {
      try demandSame(stash.next(call), thing, "the last")
      stash.takeNext(call)
    }
    try demand(stash.next(call) == nil, "it is empty again")
  }

  @Test func ofMoreThanThereIsRoomForTheFirstHalfAtLeastIsPutIn() throws {
    let calls = try CallSections()
    let stash = try CallStash(for: calls)
    let call = calls.enter()
    defer { calls.leave(call) }
    let things = Array(UInt64(1)...10)
    let room = CallStash.capacity - 10
    try things.withUnsafeBufferPointer { things in
      try demandSame(stash.put(call, things), 10, "how many were put in")
      stash.countSearch(1)
      try demandSame(stash.put(call, things), 0, "how many were put in while it is searched")
      stash.countSearch(-1)
      try demand(stash.put(call, 11), "there is room for one more")
      try demandSame(
        stash.put(call, things), 0, "how many of which there is room for less than half")
      stash.takeNext(call)
      try demandSame(stash.put(call, things), room, "how many there was room for")
      try demandSame(stash.put(call, things), 0, "how many there was room for")
    }
    for thing in (1...UInt64(room)).reversed() + (1...10).reversed() {
      try demandSame(stash.next(call), thing, "the last")
      stash.takeNext(call)
    }
    try demand(stash.next(call) == nil, "it is empty again")
  }

  @Test func kindsAndTheOwnersWordsAreKeptApart() throws {
    let calls = try CallSections()
    let stash = try CallStash(for: calls, kinds: 2, hasLine: true)
    let call = calls.enter()
    let second = stash.place(of: 1, call)
    try demandSame(stash.place(of: 0, call), call, "the place of the first kind")
    try demand(
      stash.put(call, 5) && stash.put(second, 6) && stash.put(second, 7), "there is room")
    stash.add(40, to: 0, of: call)
    stash.add(50, to: 1, of: call)
    try demand(stash.next(call) == 5 && stash.next(second) == 7, "each kind has its last")
    calls.leave(call)
    try demand(stash.count(of: 0) == 1 && stash.count(of: 1) == 2, "kinds are counted apart")
    try demand(stash.sum(0) == 40 && stash.sum(1) == 50, "the owner's words are as they were")
    var drained: [UInt64] = []
    try demandSame(stash.drain(calls) { drained.append($0) }, 3, "how many were drained")
    #expect(drained.sorted() == [5, 6, 7])
    try demand(stash.count(of: 0) == 0 && stash.count(of: 1) == 0, "nothing is left")
    try demand(stash.sum(0) == 40 && stash.sum(1) == 50, "the owner's words are as they were")
  }

  @Test func nothingIsPutInWhileSomebodySearches() throws {
    let calls = try CallSections()
    let stash = try CallStash(for: calls)
    let call = calls.enter()
    defer { calls.leave(call) }
    stash.countSearch(1)
    stash.countSearch(1)
    try demand(stash.isSearched && !stash.put(call, 1), "it is searched")
    stash.countSearch(-1)
    try demand(stash.isSearched && !stash.put(call, 1), "it is searched")
    stash.countSearch(-1)
    try demand(!stash.isSearched && stash.put(call, 1), "it is not searched any more")
  }

  @Test func aStashIsFilledUpToHalfAndKeepsTheRest() throws {
    let calls = try CallSections()
    let stash = try CallStash(for: calls)
    let call = calls.enter()
    defer { calls.leave(call) }
    let taken = stash.take(call) { room in
      #expect(room.count == CallStash.capacity / 2 + 1)
      for index in room.indices { room[index] = UInt64(index + 1) }
      return room.count
    }
    #expect(taken == UInt64(CallStash.capacity / 2 + 1))
    try demandSame(stash.next(call), UInt64(CallStash.capacity / 2), "the next")
    try demand(stash.take(call) { _ in 0 } == nil, "nothing was found")
  }

  @Test func aDrainTakesWhatThreadsPutInAndTakeOutOnceOrNever() throws {
    let calls = try CallSections()
    let stash = try CallStash(for: calls)
    let things: UInt64 = 30
    nonisolated(unsafe) var owned = [Bool](repeating: false, count: Int(things))
    let flag = Flag()
    // Each thing is a thread's, the drain's or the stash's. A thread has ten to begin with.
    try withUnsafeTemporaryAllocation(of: Int.self, capacity: Int(things)) { holders in
      holders.initialize(repeating: 1)
      let base = holders.baseAddress!
      nonisolated(unsafe) let shared = base
      try onThreads(4) { thread in
        if thread == 3 {
          for _ in 0..<RunSettings.steps(200) {
            stash.countSearch(1)
            _ = stash.drain(calls) { shared[Int($0)] += 1 }
            stash.countSearch(-1)
          }
          return flag.set()
        }
        var mine = (0..<10).map { UInt64(thread * 10 + $0) }
        for thing in mine { shared[Int(thing)] -= 1 }
        while !flag.isSet {
          let call = calls.enter()
          if let thing = mine.last, stash.put(call, thing) {
            mine.removeLast()
          } else if let thing = stash.next(call) {
            stash.takeNext(call)
            mine.append(thing)
          }
          calls.leave(call)
        }
        for thing in mine { shared[Int(thing)] += 1 }
      }
      stash.countSearch(1)
      _ = stash.drain(calls) { base[Int($0)] += 1 }
      for index in 0..<Int(things) { owned[index] = base[index] == 1 }
    }
    #expect(owned.allSatisfy { $0 })
  }
}
