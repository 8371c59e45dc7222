// SPDX-License-Identifier: MIT OR Apache-2.0

/// What an allocation asks of a gap, in bytes of twice the bits.
struct SortedRangesRequest {
  private let size: UInt128
  private let granule: UInt128
  private let alignment: UInt128
  private let skew: UInt128
  // Without a boundary, one that is as long as all addresses.
  private let boundary: UInt128
  private let start: UInt128
  private let end: UInt128
  private let isBottomUp: Bool
  private let hasBoundary: Bool

  /// nil if the constraints make no sense.
  init?(size: UInt128, granule: UInt128, _ constraints: IOVAConstraintsModel) {
    alignment = max(UInt128(constraints.alignment), granule)
    skew = UInt128(constraints.skew)
    hasBoundary = constraints.boundary != 0
    boundary = hasBoundary ? UInt128(constraints.boundary) : UInt128(1) << 64
    start = UInt128(constraints.first)
    guard constraints.alignment.nonzeroBitCount <= 1, boundary.nonzeroBitCount == 1,
      boundary >= size, skew < alignment, skew % granule == 0,
      constraints.first <= constraints.last,
      constraints.placement != .exact || start % granule == 0
    else { return nil }
    let last = UInt128(constraints.last) + 1
    end = constraints.placement == .exact ? min(last, start + size) : last
    isBottomUp = constraints.placement == .bottomUp
    self.size = size
    self.granule = granule
  }

  /// The place that is furthest in the request's direction, in the part of a gap within the limits.
  func place(_ gapStart: UInt128, _ gapEnd: UInt128) -> UInt128? {
    let (low, high) = (max(gapStart, start), min(gapEnd, end))
    guard low + size <= high else { return nil }
    if alignment > boundary {
      // All places lie alike between boundaries.
      return skew % boundary + size <= boundary ? aligned(low, high) : nil
    }
    // Piece by piece between boundaries. A whole piece holds it or none does, so the second or third
    // decides.
    let pieces = (low / boundary, (high - 1) / boundary)
    for turn in 0...min(2, pieces.1 - pieces.0) {
      let piece = isBottomUp ? pieces.0 + turn : pieces.1 - turn
      let place = aligned(max(low, piece * boundary), min(high, (piece + 1) * boundary))
      if let place { return place }
    }
    guard pieces.1 > pieces.0 + 2 else { return nil }
    let piece = isBottomUp ? pieces.1 : pieces.0
    return aligned(max(low, piece * boundary), min(high, (piece + 1) * boundary))
  }

  /// The furthest aligned place between two addresses.
  private func aligned(_ low: UInt128, _ high: UInt128) -> UInt128? {
    guard low + size <= high else { return nil }
    // The multiples of the alignment are counted from one below 0, so that nothing is negative.
    let bias = alignment - skew
    let place: UInt128
    if isBottomUp {
      place = (low + bias + alignment - 1) / alignment * alignment - bias
    } else {
      let multiple = (high - size + bias) / alignment * alignment
      guard multiple >= bias else { return nil }
      place = multiple - bias
    }
    return place >= low && place + size <= high ? place : nil
  }

  /// Whether a gap has room for it whichever way it lies, by the rule that `iova.h` hints at.
  func isSure(_ gapStart: UInt128, _ gapEnd: UInt128) -> Bool {
    let length = gapEnd - gapStart
    if alignment == granule && !hasBoundary { return length >= size }
    func holdsBlock(_ block: UInt128) -> Bool {
      (gapStart + block - 1) / block * block + block <= gapEnd
    }
    if alignment == size && skew == 0 { return holdsBlock(size) }
    var block = granule
    while block < max(size, alignment) { block *= 2 }
    if skew == 0 && holdsBlock(block) { return true }
    let room = size + alignment - granule
    if hasBoundary && alignment <= boundary {
      return length >= min(2 * room, 2 * boundary - granule)
    }
    return length >= room
  }
}
