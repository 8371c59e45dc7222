// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import ReferenceModels
import TestSupport
import Testing

@testable import PageTables

@Suite("Leaf sizing")
struct LeafSizingTests {
  /// The fewest leaves that cover a range of granules, by trying every way to cover it.
  private func fewestLeaves(first: Int, target: Int, count: Int, sizes: [Int]) -> Int {
    var fewest = [0] + Array(repeating: Int.max, count: count)
    for end in 1...count {
      for size in sizes where size <= end {
        let start = end - size
        guard (first + start) % size == 0, (target + start) % size == 0, fewest[start] != .max
        else { continue }
        fewest[end] = min(fewest[end], fewest[start] + 1)
      }
    }
    return fewest[count]
  }

  /// Every range of a small space to every place: as few leaves as can be, and all in their places.
  @Test func everyRangeOfASmallSpaceHasAsFewLeavesAsCanBe() throws {
    let page = Int(TinyFormat.standard.granule.bytes)
    try withEvery("first", in: 0..<18) { first in
      try withEvery("target", in: [0, 1, 4, 5, 16, 20, 21].map { first + $0 }) { target in
        try withEvery("count", in: 1...24) { count in
          let table = try PageTable<TinyFormat>(levels: 3, allocator: nil)
          try table.map(
            IOVARange(first: IOVA(UInt64(first * page)), size: UInt64(count * page)),
            to: PhysicalAddress(UInt64(target * page)), access: .read)
          let leaves = table.leaves()
          let fewest = fewestLeaves(first: first, target: target, count: count, sizes: [1, 4, 16])
          try demandSame(leaves.count, fewest, "leaves")
          var next = UInt64(first * page)
          for leaf in leaves {
            try demandSame(leaf.first, next, "where a leaf starts")
            try demandSame(
              leaf.target, UInt64(target * page) + (leaf.first - UInt64(first * page)), "target")
            next = leaf.last + 1
          }
          try demandSame(next, UInt64((first + count) * page), "where the last leaf ends")
        }
      }
    }
  }

  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 1 << 21
  private static let huge: UInt64 = 1 << 30

  @Test func aRangeGrowsToLargerLeavesAndShrinksAgain() throws {
    let first = Self.huge - Self.large - Self.page
    let size = Self.page + Self.large + Self.huge + Self.large + Self.page
    let table = try PageTable<VTdSecondStage>(levels: 3, allocator: nil)
    try table.map(
      IOVARange(first: IOVA(first), size: size), to: PhysicalAddress(first + 5 * Self.huge),
      access: .read)
    let sizes = table.leaves().map { $0.last - $0.first + 1 }
    #expect(sizes == [Self.page, Self.large, Self.huge, Self.large, Self.page])
  }

  @Test func thePhysicalAddressDecidesAsWellAsTheInput() throws {
    let table = try PageTable<VTdSecondStage>(levels: 3, allocator: nil)
    try table.map(
      IOVARange(first: IOVA(0), size: Self.huge), to: PhysicalAddress(Self.large), access: .read)
    #expect(table.leaves().count == 512)
    try table.map(
      IOVARange(first: IOVA(Self.huge), size: Self.large), to: PhysicalAddress(Self.page),
      access: .read)
    #expect(table.leaves().count == 1024)
  }

  /// Around the borders of large and huge leaves, by the model's reckoning.
  @Test func leavesAroundTheirBordersAreThoseOfTheModel() throws {
    let sizes = [Self.page, Self.large, Self.huge]
    let offsets = [0, Self.page, Self.large - Self.page]
    try withEvery("first", in: offsets) { first in
      try withEvery("target", in: offsets) { target in
        try withEvery("size", in: [Self.large, 2 * Self.large, Self.large + Self.page]) { size in
          let table = try PageTable<VTdSecondStage>(levels: 3, allocator: nil)
          try table.map(
            IOVARange(first: IOVA(first), size: size), to: PhysicalAddress(target), access: .write)
          let found = table.leaves().map { [$0.first, $0.last, $0.target] }
          let expected = PageTableModel.leaves(
            from: first, to: target, size: size, access: 2, sizes: sizes)
          try demandSame(found, expected.map { [$0.first, $0.last, $0.target] }, "leaves")
        }
      }
    }
  }
}
