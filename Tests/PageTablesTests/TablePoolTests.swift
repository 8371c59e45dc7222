// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@testable import PageTables

@Suite("TablePool")
struct TablePoolTests {
  private final class SharedPool: @unchecked Sendable {
    let pool: TablePool

    init(shift: Int) throws { pool = try TablePool(shift: shift) }
  }

  @Test(arguments: [11, 12, 14, 16])
  func pagesAreAlignedAndApart(shift: Int) throws {
    let pool = try TablePool(shift: shift)
    var pages: Set<UInt> = []
    // More than a chunk has.
    for _ in 0..<(2 << 20) >> shift {
      let page = try pool.take()
      #expect(page & (1 << UInt(shift) - 1) == 0)
      #expect(page != 0)
      pages.insert(page)
    }
    #expect(pages.count == (2 << 20) >> shift)
  }

  @Test func aPageThatWasGivenBackIsTakenAgain() throws {
    let pool = try TablePool(shift: 12)
    let pages = try (0..<3).map { _ in try pool.take() }
    for page in pages { pool.give(page) }
    let again = try (0..<3).map { _ in try pool.take() }
    #expect(again == pages.reversed())
  }

  @Test func theLinkOfAPageLiesOutsideOfIt() throws {
    let pool = try TablePool(shift: 12)
    let (one, other) = (try pool.take(), try pool.take())
    let words = UnsafeMutablePointer<UInt64>(bitPattern: one)!
    for index in 0..<512 { words[index] = UInt64.max }
    pool.link(one, to: other)
    #expect(pool.next(one) == other)
    #expect((0..<512).allSatisfy { words[$0] == UInt64.max })
  }

  /// Each thread writes its number to the pages that it has, and finds it there.
  @Test func noTwoThreadsHaveTheSamePage() throws {
    let shared = try SharedPool(shift: 12)
    try onThreads(4) { thread in
      var generator = SeededGenerator(seed: RunSettings.seed &+ UInt64(thread))
      var mine: [UInt] = []
      for _ in 0..<RunSettings.steps(5_000) {
        if mine.isEmpty || generator.onceIn(2) {
          let page = try shared.pool.take()
          UnsafeMutablePointer<UInt64>(bitPattern: page)!.pointee = UInt64(thread)
          mine.append(page)
        } else {
          let page = mine.remove(at: generator.below(mine.count))
          let found = UnsafeMutablePointer<UInt64>(bitPattern: page)!.pointee
          try demandSame(found, UInt64(thread), "whose page it is")
          shared.pool.give(page)
        }
      }
    }
  }
}
