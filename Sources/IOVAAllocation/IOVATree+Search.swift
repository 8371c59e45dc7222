// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

extension IOVATree {
  /// Goes to the gap that a request gets a place in, and returns the place.
  ///
  /// It is the highest gap that holds the range wherever it lies ("surely"), or if there is none the
  /// highest that holds it at all; from the bottom up the lowest. Of a request for natural alignment
  /// or for that of the granule, every gap that holds it does so surely.
  ///
  /// - Complexity: O(log n) if there is a gap that surely holds it, or if no other can. Else a step
  ///   for each gap that is long enough; `searchedGaps` counts them.
  mutating func find(_ request: IOVARequest) -> UInt64? {
    settle()
    let isCut = request.isBottomUp ? request.lowest > first : request.highest < last
    var place = search(root, level: height, request, isSure: true, isCut: isCut)
    if place == nil && !request.isSureExact {
      place = search(root, level: height, request, isSure: false, isCut: isCut)
    }
    // A search that finds nothing leaves the path where it was.
    if place != nil { hasPath = true }
    return place
  }

  /// Looks for a place in the leaf that the path leads to, where the last change was.
  @inline(never)
  mutating func findNearby(_ request: IOVARequest) -> UInt64? {
    guard hasPath else { return nil }
    let leaf = leaf
    // Most likely in the very gap.
    if leaf.gap(slot) >= request.size {
      let gap = gap(leaf, slot)
      if request.mayFit(gap, isSure: true), let place = request.place(in: gap) { return place }
    }
    var candidates = leaf.gaps(atLeast: request.leastLength(isSure: true))
    while candidates != 0 {
      let slot = 31 &- candidates.leadingZeroBitCount
      let gap = gap(leaf, slot)
      if request.mayFit(gap, isSure: true), let place = request.place(in: gap) {
        return turn(to: slot) ? place : nil
      }
      candidates ^= 1 &<< UInt32(truncatingIfNeeded: slot)
    }
    return nil
  }

  /// The way below a node, in the direction of the request, over all children that may have a fitting
  /// gap.
  ///
  /// A search for what surely fits comes back empty-handed only from the nodes on the ways to the
  /// lowest and to the highest address, of whose gaps some lie outside: two a level.
  ///
  /// - Parameter isCut: whether gaps of the node may lie behind the end at which the search starts.
  @inline(never)
  private mutating func search(
    _ node: IOVANode, level: Int, _ request: IOVARequest, isSure: Bool, isCut: Bool
  ) -> UInt64? {
    var candidates = node.gaps(atLeast: request.leastLength(isSure: isSure))
    // Down from the last slot whose gap starts below the highest address, or up from the one whose
    // gap may reach over the lowest. What comes before the first key is lower than all of them.
    var start = -1
    if isCut {
      if request.isBottomUp {
        start = max(0, node.keysNotAbove(request.lowest) &- 1)
        candidates &= ~0 &<< UInt32(truncatingIfNeeded: start)
      } else {
        start = node.keysNotAbove(request.highest) &- 1
        candidates &= (2 &<< UInt32(truncatingIfNeeded: start)) &- 1
        if start < 0 { return nil }
      }
    }
    while candidates != 0 {
      let slot =
        request.isBottomUp
        ? candidates.trailingZeroBitCount : 31 &- candidates.leadingZeroBitCount
      candidates ^= 1 &<< UInt32(truncatingIfNeeded: slot)
      // The other end: everything from here on lies outside.
      if request.isBottomUp {
        if node.key(slot) > request.highest { return nil }
      } else if slot &+ 1 < node.count && node.key(slot &+ 1) <= request.lowest {
        return nil
      }
      let place = search(
        node, slot, level: level, request, isSure: isSure, isCut: isCut && slot == start)
      if place != nil { return place }
    }
    return nil
  }

  private mutating func search(
    _ node: IOVANode, _ slot: Int, level: Int, _ request: IOVARequest, isSure: Bool, isCut: Bool
  ) -> UInt64? {
    if level > 0 {
      guard request.mayFit(Self.summary(node, slot), isSure: isSure),
        let place = search(
          node.child(slot), level: level &- 1, request, isSure: isSure, isCut: isCut)
      else { return nil }
      unsafe path[level] = Step(node: node, slot: slot)
      return place
    }
    let gap = gap(node, slot)
    guard request.mayFit(gap, isSure: isSure) else { return nil }
    if !isSure { searchedGaps = searchedGaps &+ 1 }
    guard let place = request.place(in: gap) else { return nil }
    unsafe path[0] = Step(node: node, slot: slot)
    return place
  }

  /// The length of the longest free range between two granules, both inside; 0 if there is none.
  mutating func longestGap(from lowest: UInt64, to highest: UInt64) -> UInt64 {
    settle()
    return longestGap(below: root, level: height, from: lowest, to: highest, endsBelow: false)
  }

  /// - Parameter endsBelow: whether the highest granule lies behind the node's last gap.
  private func longestGap(
    below node: IOVANode, level: Int, from lowest: UInt64, to highest: UInt64, endsBelow: Bool
  ) -> UInt64 {
    let low = node.keysNotAbove(lowest) &- 1
    let high = node.keysNotAbove(highest) &- 1
    var longest: UInt64 = 0
    var slot = high
    while slot >= max(0, low) {
      if node.gap(slot) <= longest {
        // Nothing longer in there.
      } else if slot > low && (slot < high || endsBelow) {
        longest = node.gap(slot)
      } else if level > 0 {
        let inner = longestGap(
          below: node.child(slot), level: level &- 1, from: lowest, to: highest,
          endsBelow: endsBelow || slot < high)
        longest = max(longest, inner)
      } else {
        let gap = gap(node, slot)
        let (first, last) = (max(gap.first, lowest), min(gap.last, highest))
        if first <= last {
          let extent = last &- first
          longest = max(longest, extent == UInt64.max ? extent : extent &+ 1)
        }
      }
      slot = slot &- 1
    }
    return longest
  }

  /// Goes to the range that starts at a granule.
  @inline(__always)
  mutating func findRange(at first: UInt64) -> Range? {
    descend(to: first)
    let (leaf, slot) = (leaf, slot)
    guard leaf.key(slot) == first, slot > 0 || leaf != lowestLeaf else { return nil }
    return range(leaf, slot)
  }

  /// What a granule of the space is used for, and the last granule of what it lies in.
  mutating func use(at granule: UInt64) -> (last: UInt64, use: IOVASpace.Use) {
    descend(to: granule)
    let (leaf, slot) = (leaf, slot)
    let next = leaf.nextKey(slot)
    if slot == 0 && leaf == lowestLeaf { return (next &- 1, .free) }
    let range = range(leaf, slot)
    // Of a range of all 2^64 granules the size is 0, and its last granule is this all the same.
    let last = range.first &+ (range.size &- 1)
    if granule <= last { return (last, range.isReserved ? .reserved : .allocated) }
    return (next &- 1, .free)
  }
}
