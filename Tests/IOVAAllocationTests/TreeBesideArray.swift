// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import TestSupport

@testable import IOVAAllocation

extension IOVATree {
  /// Adds what an insertion may need.
  mutating func addNodesIfShort() throws {
    while isShortOfNodes {
      spareLeaves.add(IOVANode(try RawMemory.allocate(IOVANode.leafSize, alignment: 16)))
      spareInners.add(IOVANode(try RawMemory.allocate(IOVANode.innerSize, alignment: 16)))
    }
  }

  mutating func freeSurplus() {
    _ = takeSurplus()
  }
}

/// A tree of ranges beside a sorted array of them.
final class TreeBesideArray {
  var tree: IOVATree
  private(set) var ranges: [IOVATree.Range] = []

  init(first: UInt64 = 0, last: UInt64) throws { tree = try IOVATree(first: first, last: last) }

  /// Where a range starts in the array, or would.
  private func index(_ first: UInt64) -> Int {
    var (low, high) = (0, ranges.count)
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].first < first { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private func request(_ range: IOVATree.Range) throws -> IOVARequest {
    try IOVARequest(
      size: range.size, alignment: 1, lowest: range.first,
      highest: range.first &+ (range.size &- 1))
  }

  /// Enters a range where there is room for it.
  func insert(_ first: UInt64, size: UInt64, isReserved: Bool = false) throws {
    let range = IOVATree.Range(first: first, size: size, isReserved: isReserved)
    try demandSame(tree.find(request(range)), first, "where a range can go")
    try insertFound(range)
  }

  /// Enters a range at the place that was found last.
  func insertFound(_ range: IOVATree.Range) throws {
    try tree.addNodesIfShort()
    tree.insert(range)
    ranges.insert(range, at: index(range.first))
  }

  /// Takes a range out by its number.
  func remove(at index: Int) throws {
    let range = ranges.remove(at: index)
    try demandSame(tree.findRange(at: range.first), range, "the range to remove")
    tree.remove()
    tree.freeSurplus()
  }

  var gaps: [IOVAGap] {
    var gaps: [IOVAGap] = []
    var start = tree.first
    for range in ranges {
      if start < range.first { gaps.append(IOVAGap(first: start, last: range.first - 1)) }
      start = range.first &+ range.size
      if start == 0 { return gaps }
    }
    if start <= tree.last { gaps.append(IOVAGap(first: start, last: tree.last)) }
    return gaps
  }

  /// Throws unless the tree has the same ranges and gaps, and knows the longest gap.
  func compare() throws {
    tree.checkInvariants()
    try demandSame(tree.count, ranges.count, "count")
    var seen: [IOVATree.Range] = []
    var seenGaps: [IOVAGap] = []
    var next = tree.first
    while true {
      let (last, use) = tree.use(at: next)
      if use == .free {
        seenGaps.append(IOVAGap(first: next, last: last))
      } else {
        seen.append(
          IOVATree.Range(first: next, size: last &- next &+ 1, isReserved: use == .reserved))
      }
      if last == tree.last { break }
      next = last + 1
    }
    try demandSame(seen, ranges, "ranges")
    try demandSame("\(seenGaps)", "\(gaps)", "gaps")
    tree.settle()
    let whole = tree.summary(of: tree.root, level: tree.height)
    let longest = gaps.map { $0.extent == UInt64.max ? UInt64.max : $0.extent + 1 }.max() ?? 0
    try demandSame(whole.longest, longest, "the longest gap")
    try demandSame(tree.longestGap(from: tree.first, to: tree.last), longest, "longestGap")
    let order = 63 - longest.leadingZeroBitCount
    try demandSame(
      whole.isAligned, longest > 0 && gaps.contains { $0.holdsBlock(order: order) },
      "whether there is an aligned block of order \(order)")
  }

  /// The place that `find` is to find: in the first gap in its direction that surely fits, and if
  /// none does, in the first that fits.
  func placeByLooking(_ request: IOVARequest) -> UInt64? {
    let ordered = request.isBottomUp ? gaps : gaps.reversed()
    for isSure in [true, false] {
      for gap in ordered where request.mayFit(gap, isSure: isSure) {
        if let place = request.place(in: gap) { return place }
      }
    }
    return nil
  }
}
