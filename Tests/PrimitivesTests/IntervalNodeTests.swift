// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import ReferenceModels
import TestSupport
import Testing

@Suite("IntervalNode")
struct IntervalNodeTests {
  private typealias Node = IntervalNode<Int>

  /// A tree of intervals beside an array of them.
  private final class Intervals {
    var tree = Treap<Node>()
    var model = IntervalSetModel<UnsafeMutablePointer<Node>>()
    private var nextNumber = 0

    deinit {
      for interval in model.intervals { interval.payload.deallocate() }
    }

    func insert(_ first: UInt64, _ last: UInt64) {
      let node = UnsafeMutablePointer<Node>.allocate(capacity: 1)
      node.initialize(to: Node(first: first, last: last, payload: nextNumber))
      nextNumber += 1
      tree.insert(node)
      model.insert(first: first, last: last, node)
    }

    func remove(at index: Int) {
      let removed = model.remove(at: index)
      tree.remove(removed.payload)
      removed.payload.deallocate()
    }

    /// The numbers of the intervals that overlap a range, in the order of the visits.
    func visit(_ first: UInt64, _ last: UInt64, atMost count: Int = .max) -> [Int] {
      var visited: [Int] = []
      tree.visitOverlapping(first: first, last: last) { node in
        visited.append(node.pointee.payload)
        return visited.count < count
      }
      return visited
    }

    func check(_ first: UInt64, _ last: UInt64) throws {
      let expected = model.overlapping(first: first, last: last)
      let visited = visit(first, last)
      try demandSame(
        visited.sorted(), expected.map(\.payload.pointee.payload).sorted(),
        "overlapping \(first)...\(last)")
      let firsts = visited.map { number in
        expected.first { $0.payload.pointee.payload == number }!.first
      }
      try demandSame(firsts, firsts.sorted(), "order of visits")
    }
  }

  @Test func everySmallSetIsSearchedAsAnArrayIs() throws {
    let ends: [UInt64] = [0, 1, 2, 3]
    let ranges = ends.flatMap { first in ends.filter { $0 >= first }.map { (first, $0) } }
    try withEverySequence(of: ranges.indices.map { $0 }, length: 3) { chosen in
      let intervals = Intervals()
      for index in chosen { intervals.insert(ranges[index].0, ranges[index].1) }
      for range in ranges { try intervals.check(range.0, range.1) }
    }
  }

  @Test func randomSetsAreSearchedAsAnArrayIs() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let intervals = Intervals()
    for _ in 0..<RunSettings.steps(2_000) {
      if generator.onceIn(2), intervals.model.intervals.count < 60 {
        let first = UInt64(generator.below(500))
        intervals.insert(first, first + UInt64(generator.below(generator.onceIn(5) ? 300 : 20)))
      } else if !intervals.model.intervals.isEmpty {
        intervals.remove(at: generator.below(intervals.model.intervals.count))
      }
      let first = UInt64(generator.below(520))
      try intervals.check(first, first + UInt64(generator.below(40)))
    }
  }

  @Test func aVisitEndsWhenTheVisitorSaysSo() {
    let intervals = Intervals()
    for first in UInt64(0)..<20 { intervals.insert(first, 100) }
    #expect(intervals.visit(0, 200, atMost: 1) == [0])
    #expect(intervals.visit(0, 200, atMost: 3) == [0, 1, 2])
  }

  @Test func theEndsOfTheNumbersAreOrdinaryEnds() {
    let intervals = Intervals()
    intervals.insert(0, UInt64.max)
    intervals.insert(UInt64.max, UInt64.max)
    #expect(intervals.visit(0, 0) == [0])
    #expect(intervals.visit(UInt64.max, UInt64.max) == [0, 1])
  }
}
