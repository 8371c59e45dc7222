// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import Synchronization
import TestSupport
import Testing

/// An object that says when it ends.
private struct Mortal: ~Copyable, Held {
  private let uses = UseCount()
  private let end: () -> Void

  init(end: @escaping () -> Void) { self.end = end }

  deinit { end() }

  func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }
}

private final class Deaths: Sendable {
  let count = Atomic<Int>(0)
}

@Suite("UseCount")
struct UseCountTests {
  private func mortal(_ deaths: Deaths) throws -> UnsafeMutablePointer<Mortal> {
    try Box<Mortal>.place { () throws(Failure) in
      Mortal { deaths.count.add(1, ordering: .relaxed) }
    }
  }

  @Test func theMakerIsTheFirstHolder() throws {
    let count = UseCount()
    let isShared = count.isShared()
    #expect(!isShared)
    let left = count.decrement()
    #expect(left == 0)
  }

  @Test func holdersAreCounted() {
    let count = UseCount()
    count.increment()
    let isShared = count.isShared()
    let left = count.decrement()
    #expect(isShared)
    #expect(left == 1)
    let isSharedStill = count.isShared()
    #expect(!isSharedStill)
  }

  @Test func whoIsNotSureOfBeingAHolderIsCountedWhileThereAreOthers() {
    let count = UseCount()
    let came = count.add(1, ifAbove: 0)
    let isShared = count.isShared()
    let isSharedByMore = count.isShared(beside: 1)
    #expect(came && isShared && !isSharedByMore)
    let went = count.add(-1, ifAbove: 1)
    let wentAgain = count.add(-1, ifAbove: 1)
    #expect(went && !wentAgain)
    let left = count.decrement()
    let cameLate = count.add(1, ifAbove: 0)
    #expect(left == 0 && !cameLate)
  }

  @Test func anObjectEndsWithItsLastHolder() throws {
    let deaths = Deaths()
    let object = try mortal(deaths)
    Box.hold(object)
    #expect(Box.isShared(object))
    Box.letGo(object)
    #expect(deaths.count.load(ordering: .relaxed) == 0)
    #expect(!Box.isShared(object))
    Box.letGo(object)
    #expect(deaths.count.load(ordering: .relaxed) == 1)
  }

  @Test func ofManyThreadsThatLetGoOneEndsTheObject() throws {
    for _ in 0..<50 {
      let deaths = Deaths()
      let address = UInt(bitPattern: try mortal(deaths))
      let object = UnsafeMutablePointer<Mortal>(bitPattern: address)!
      for _ in 0..<2 { Box.hold(object) }
      try onThreads(3) { _ in Box.letGo(UnsafeMutablePointer<Mortal>(bitPattern: address)!) }
      #expect(deaths.count.load(ordering: .relaxed) == 1)
    }
  }
}
