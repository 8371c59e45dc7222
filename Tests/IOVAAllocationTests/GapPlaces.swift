// SPDX-License-Identifier: MIT OR Apache-2.0

@testable import IOVAAllocation

// What gaps hold, found out place by place.

/// All places for a range in a gap.
func places(
  size: UInt64, alignment: UInt64, skew: UInt64, boundary: UInt64, in gap: IOVAGap
) -> [UInt64] {
  (gap.first...gap.last).filter { place in
    guard gap.last - place >= size - 1, place % alignment == skew else { return false }
    return boundary == 0 || place / boundary == (place + (size - 1)) / boundary
  }
}

func holdsBlock(_ gap: IOVAGap, order: Int) -> Bool {
  !places(size: 1 << UInt64(order), alignment: 1 << UInt64(order), skew: 0, boundary: 0, in: gap)
    .isEmpty
}

/// The summary of some gaps, none of which is all of 2^64 granules.
func summary(of gaps: [IOVAGap]) -> GapSummary {
  let longest = gaps.map { $0.extent + 1 }.max() ?? 0
  let order = 63 - longest.leadingZeroBitCount
  return GapSummary(
    longest: longest, isAligned: longest > 0 && gaps.contains { holdsBlock($0, order: order) })
}
