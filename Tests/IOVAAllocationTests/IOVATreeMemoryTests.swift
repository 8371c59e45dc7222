// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@testable import IOVAAllocation

/// The promise of 40 bytes for each range in use, where there are enough of them that the nodes at the
/// edges do not matter.
@Suite("Memory of an IOVATree")
struct IOVATreeMemoryTests {
  private static let rangeCount = 100_000

  private func bytesPerRange(_ crowd: borrowing Crowd) -> Double {
    Double(crowd.tree.byteCount) / Double(crowd.tree.count)
  }

  /// A tree, and its ranges in any order.
  private struct Crowd: ~Copyable {
    var tree: IOVATree
    var ranges: [IOVATree.Range] = []

    init(last: UInt64) throws { tree = try IOVATree(first: 0, last: last) }

    mutating func allocate(_ request: IOVARequest) throws {
      guard let place = tree.find(request) else { return }
      try tree.addNodesIfShort()
      let range = IOVATree.Range(first: place, size: request.size, isReserved: false)
      tree.insert(range)
      tree.freeSurplus()
      ranges.append(range)
    }

    mutating func free(at index: Int) throws {
      ranges.swapAt(index, ranges.count - 1)
      let range = ranges.removeLast()
      try demandSame(tree.findRange(at: range.first), range, "the range to free")
      tree.remove()
      tree.freeSurplus()
    }
  }

  @Test func aRangeTakes40BytesAtMostWhateverComesAndGoes() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let last = UInt64(Self.rangeCount) * 8
    var crowd = try Crowd(last: last)
    func request(_ generator: inout SeededGenerator) throws -> IOVARequest {
      // Anywhere, so that nodes split in the middle.
      let lowest = UInt64(generator.below(Int(last - 8)))
      return try IOVARequest(
        size: UInt64(generator.below(4) + 1), alignment: 1, lowest: lowest, highest: last,
        isBottomUp: true)
    }
    while crowd.tree.count < Self.rangeCount { try crowd.allocate(request(&generator)) }
    #expect(bytesPerRange(crowd) <= 40)
    for round in 0..<4 {
      for _ in 0..<Self.rangeCount / 4 {
        try crowd.free(at: generator.below(crowd.ranges.count))
        if round % 2 == 0 { try crowd.allocate(request(&generator)) }
      }
      #expect(bytesPerRange(crowd) <= 40)
    }
    crowd.tree.checkInvariants()
    while crowd.tree.count > 5_000 { try crowd.free(at: generator.below(crowd.ranges.count)) }
    #expect(bytesPerRange(crowd) <= 40)
  }

  /// Allocation from one end leaves nodes behind that are nearly full.
  @Test(arguments: [false, true])
  func fillingFromOneEndTakesLess(isBottomUp: Bool) throws {
    let last = UInt64(Self.rangeCount) - 1
    var crowd = try Crowd(last: last)
    let request = try IOVARequest(
      size: 1, alignment: 1, lowest: 0, highest: last, isBottomUp: isBottomUp)
    for _ in 0..<Self.rangeCount { try crowd.allocate(request) }
    #expect(crowd.tree.count == Self.rangeCount)
    #expect(crowd.tree.find(request) == nil)
    #expect(bytesPerRange(crowd) <= 22)
    #expect(crowd.tree.searchedGaps == 0)
  }
}
