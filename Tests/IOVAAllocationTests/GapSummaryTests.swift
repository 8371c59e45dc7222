// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@testable import IOVAAllocation

@Suite("GapSummary")
struct GapSummaryTests {
  /// All gaps in 20 granules.
  private static let gaps = (UInt64(0)..<20).flatMap { first in
    (first..<20).map { IOVAGap(first: first, last: $0) }
  }

  @Test func aGapHoldsABlockIfThereIsAnAlignedPlaceForIt() throws {
    for gap in Self.gaps {
      try withEvery("order", in: 0...5) { order in
        try demandSame(gap.holdsBlock(order: order), holdsBlock(gap, order: order), "\(gap)")
      }
    }
  }

  @Test func theLastBlockOfAllIsABlock() {
    let last = IOVAGap(first: UInt64.max - 7, last: UInt64.max)
    #expect(last.holdsBlock(order: 3))
    #expect(!last.holdsBlock(order: 4))
    let short = IOVAGap(first: UInt64.max - 6, last: UInt64.max)
    #expect(!short.holdsBlock(order: 3))
    #expect(short.holdsBlock(order: 2))
    #expect(IOVAGap(first: 0, last: UInt64.max).holdsBlock(order: 63))
    #expect(IOVAGap(first: 1, last: UInt64.max).holdsBlock(order: 63))
    #expect(!IOVAGap(first: 1, last: UInt64.max - 1).holdsBlock(order: 63))
  }

  @Test func aSummaryTellsEveryBlockThatThereIs() throws {
    for one in Self.gaps {
      for other in Self.gaps {
        let both = summary(of: [one]).adding(summary(of: [other]))
        try demandSame(both, summary(of: [one, other]), "\(one) and \(other)")
        for order in 0...5 {
          let isThere = one.holdsBlock(order: order) || other.holdsBlock(order: order)
          try demandSame(
            both.hasBlock(order: order), isThere, "block of order \(order) in \(one) or \(other)")
        }
      }
    }
  }

  @Test func nothingAddsNothing() {
    let none = summary(of: [])
    let some = summary(of: [IOVAGap(first: 4, last: 7)])
    #expect(none == GapSummary(longest: 0, isAligned: false))
    #expect(none.adding(some) == some && some.adding(none) == some)
    #expect(!none.hasBlock(order: 0) && !some.hasBlock(order: 64))
  }

  @Test func whatReplacesAPartIsWhatTheWholeWouldBeWithIt() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    var toldCount = 0
    for _ in 0..<20_000 {
      func some(_ most: Int) -> [IOVAGap] {
        (0..<generator.below(most)).map { _ in generator.one(of: Self.gaps) }
      }
      let (rest, old, new) = (some(3), some(3), some(3))
      let whole = summary(of: rest + old)
      let told = whole.replacing(summary(of: old), by: summary(of: new))
      guard let told else { continue }
      toldCount += 1
      try demandSame(told, summary(of: rest + new), "\(rest) with \(new) for \(old)")
    }
    #expect(toldCount > 5_000)
  }
}
