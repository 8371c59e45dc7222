// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// Free granules that follow each other. There is at least one.
struct IOVAGap {
  let first: UInt64
  let last: UInt64

  /// The length less one, which unlike the length always fits.
  var extent: UInt64 { last &- first }

  /// Whether an aligned block of 2^order granules lies in it.
  func holdsBlock(order: Int) -> Bool {
    let size: UInt64 = 1 &<< UInt64(truncatingIfNeeded: order)
    // From the first granule to the first multiple of the block's size.
    let skipped = (0 &- first) & (size &- 1)
    return skipped <= extent && extent &- skipped >= size &- 1
  }
}

/// What an allocation asks for, in granules.
///
/// Having one tells you that the numbers make sense together, that `lowest` and `highest` lie in
/// the space, and that no rule of arithmetic forbids a place: only what is in use can.
struct IOVARequest {
  let size: UInt64
  /// A power of two, of which the place less `skew` is a multiple.
  let alignment: UInt64
  let skew: UInt64
  /// A power of two of which no multiple may lie behind the range's first granule and not behind its
  /// last, or 0.
  let boundary: UInt64
  /// The lowest and the highest granule that the range may have.
  let lowest: UInt64
  let highest: UInt64
  let isBottomUp: Bool

  // A gap of this length holds the range wherever the gap lies, and so does one with an aligned
  // block of this order. 64 stands for none.
  private let sureLength: UInt64
  private let sureOrder: Int
  /// Whether a gap that is neither cannot hold the range.
  let isSureExact: Bool

  /// - Throws: `noSpace` when no place can fulfil this in any space.
  @inline(__always)
  init(
    size: UInt64, alignment: UInt64, skew: UInt64 = 0, boundary: UInt64 = 0, lowest: UInt64,
    highest: UInt64, isBottomUp: Bool = false
  ) throws(Failure) {
    guard lowest <= highest, highest &- lowest >= size &- 1 else { throw .noSpace }
    self.size = size
    self.alignment = alignment
    self.skew = skew
    self.lowest = lowest
    self.highest = highest
    self.isBottomUp = isBottomUp
    if alignment == 1 && boundary == 0 {
      self.boundary = 0
      sureLength = size
      sureOrder = 64
      isSureExact = true
      return
    }

    // An aligned block as long as the size and the alignment rounded up to a power of two holds the
    // range at its start, and has no boundary inside that matters.
    let reach = max(size, alignment)
    let order = reach > 1 << 63 ? 64 : 64 &- (reach &- 1).leadingZeroBitCount
    let isNatural = size == alignment && skew == 0
    var boundary = boundary
    var sure = Self.sum(size, alignment &- 1)
    if boundary != 0 && alignment > boundary {
      // Every place lies alike between boundaries.
      guard (skew & (boundary &- 1)) <= boundary &- size else { throw .noSpace }
      boundary = 0
    }
    if boundary != 0 {
      guard skew <= boundary &- size else { throw .noSpace }
      // Twice the length has it on one side of a boundary, or else there are two boundaries, with a
      // whole stretch between them.
      sure = min(Self.sum(sure, sure), Self.sum(boundary, boundary &- 1))
    }
    self.boundary = boundary
    sureLength = isNatural ? UInt64.max : sure
    sureOrder = skew == 0 ? order : 64
    isSureExact = isNatural
  }

  private static func sum(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? UInt64.max : sum
  }

  /// A length that every gap has that may fit.
  func leastLength(isSure: Bool) -> UInt64 {
    // An aligned block as long as the range and its alignment is not shorter than the range.
    isSure && sureOrder == 64 ? sureLength : size
  }

  /// Whether a gap like this may exist in a part of the tree; of a part with a gap that is surely
  /// long enough it is true.
  func mayFit(_ summary: GapSummary, isSure: Bool) -> Bool {
    guard isSure else { return summary.longest >= size }
    return summary.longest >= sureLength || summary.hasBlock(order: sureOrder)
  }

  /// Whether the range fits into the gap whatever else is the matter but the limits; when `isSure`
  /// is false, whether it is long enough at least.
  func mayFit(_ gap: IOVAGap, isSure: Bool) -> Bool {
    guard gap.extent >= size &- 1 else { return false }
    guard isSure else { return true }
    return gap.extent >= sureLength &- 1
      || (sureOrder < 64 && gap.holdsBlock(order: sureOrder))
  }

  /// The place for it in a gap: the highest, or from the bottom up the lowest.
  func place(in gap: IOVAGap) -> UInt64? {
    let first = max(gap.first, lowest)
    let last = min(gap.last, highest)
    guard first <= last, last &- first >= size &- 1 else { return nil }
    let space = IOVAGap(first: first, last: last)
    return isBottomUp ? lowestPlace(in: space) : highestPlace(in: space)
  }

  // Both go on from the boundary that a place crosses. The place found there crosses none: a size
  // up to the boundary fits between two, as the initializer saw to.

  private func highestPlace(in gap: IOVAGap) -> UInt64? {
    // Not below the gap's first granule, as the size fits.
    var highest = gap.last &- (size &- 1)
    while true {
      let skipped = (highest &- skew) & (alignment &- 1)
      guard skipped <= highest &- gap.first else { return nil }
      let place = highest &- skipped
      guard let crossed = crossedBoundary(place) else { return place }
      guard crossed &- gap.first >= size else { return nil }
      highest = crossed &- size
    }
  }

  private func lowestPlace(in gap: IOVAGap) -> UInt64? {
    let highest = gap.last &- (size &- 1)
    var lowest = gap.first
    while true {
      let skipped = (skew &- lowest) & (alignment &- 1)
      guard skipped <= highest &- lowest else { return nil }
      let place = lowest &+ skipped
      guard let crossed = crossedBoundary(place) else { return place }
      guard crossed <= highest else { return nil }
      lowest = crossed
    }
  }

  /// The last boundary inside the range at a place.
  private func crossedBoundary(_ place: UInt64) -> UInt64? {
    guard boundary != 0 else { return nil }
    let stretch = (place &+ (size &- 1)) & ~(boundary &- 1)
    return stretch > place ? stretch : nil
  }
}

/// What the gaps of a part of the tree have to offer.
struct GapSummary: Equatable {
  /// The granules of the longest gap, where the largest number stands for 2^64 too.
  let longest: UInt64

  /// Whether a gap holds an aligned block of the longest gap's size rounded down to a power of two.
  ///
  /// Of half that size the longest gap holds a block wherever it lies. So with this one bit the
  /// summary tells the largest aligned block exactly.
  let isAligned: Bool

  func hasBlock(order: Int) -> Bool {
    guard order < 64 else { return false }
    let blocks = longest &>> UInt64(truncatingIfNeeded: order)
    return blocks > 1 || (blocks == 1 && isAligned)
  }

  /// This and another, together.
  func adding(_ other: GapSummary) -> GapSummary {
    let zeros = longest.leadingZeroBitCount
    let otherZeros = other.longest.leadingZeroBitCount
    if zeros < otherZeros { return self }
    if zeros > otherZeros { return other }
    return GapSummary(
      longest: max(longest, other.longest), isAligned: isAligned || other.isAligned)
  }

  /// What becomes of this when one of its parts changes, if that can be told without the others.
  func replacing(_ old: GapSummary, by new: GapSummary) -> GapSummary? {
    let isSmall = old.longest.leadingZeroBitCount > longest.leadingZeroBitCount
    return isSmall || new.adding(old) == new ? adding(new) : nil
  }
}
