// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import TestSupport
import Testing

@testable import IOVAAllocation

@Suite("IOVARequest")
struct IOVARequestTests {
  private static let extent: UInt64 = 15

  /// What a request asks for besides its direction and its limits.
  private struct Shape {
    let size: UInt64
    let alignment: UInt64
    let skew: UInt64
    let boundary: UInt64
  }

  private static let shapes: [Shape] = {
    var shapes: [Shape] = []
    for size: UInt64 in [1, 2, 3, 5, 8] {
      for alignment: UInt64 in [1, 2, 4, 8] {
        for skew in 0..<alignment {
          for boundary: UInt64 in [0, 1, 2, 4, 8, 16] where boundary == 0 || boundary >= size {
            shapes.append(Shape(size: size, alignment: alignment, skew: skew, boundary: boundary))
          }
        }
      }
    }
    return shapes
  }()

  /// Calls `body` with every gap in 16 granules.
  private func withEveryGap(from base: UInt64, _ body: (IOVAGap) throws -> Void) rethrows {
    for first in 0...Self.extent {
      for last in first...Self.extent {
        try body(IOVAGap(first: base + first, last: base + last))
      }
    }
  }

  @Test(arguments: [0, 0x1_0000, UInt64.max - 15])
  func thePlaceIsTheFurthestThatTheConstraintsLeave(base: UInt64) throws {
    let limits = [(base, base + 15), (base + 3, base + 12)]
    for shape in Self.shapes {
      for ((lowest, highest), isBottomUp) in limits.flatMap({ [($0, false), ($0, true)] }) {
        let request: IOVARequest
        do throws(Failure) {
          request = try IOVARequest(
            size: shape.size, alignment: shape.alignment, skew: shape.skew,
            boundary: shape.boundary, lowest: lowest, highest: highest, isBottomUp: isBottomUp)
        } catch {
          let gap = IOVAGap(first: lowest, last: highest)
          try demandSame(places(shape, gap), [], "places of a request that is refused, \(shape)")
          continue
        }
        try withEveryGap(from: base) { gap in
          let (first, last) = (max(gap.first, lowest), min(gap.last, highest))
          let all = first <= last ? places(shape, IOVAGap(first: first, last: last)) : []
          try demandSame(
            request.place(in: gap), isBottomUp ? all.min() : all.max(),
            "place for \(shape) in \(gap), \(lowest)...\(highest)")
        }
      }
    }
  }

  private func places(_ shape: Shape, _ gap: IOVAGap) -> [UInt64] {
    IOVAAllocationTests.places(
      size: shape.size, alignment: shape.alignment, skew: shape.skew, boundary: shape.boundary,
      in: gap)
  }

  @Test func whatIsSureHasAPlaceAndWhatIsExactlySureHasOneOnlyThen() throws {
    for shape in Self.shapes {
      let request = try? IOVARequest(
        size: shape.size, alignment: shape.alignment, skew: shape.skew, boundary: shape.boundary,
        lowest: 0, highest: UInt64.max)
      guard let request else { continue }
      try withEveryGap(from: 0) { gap in
        let hasPlace = !places(shape, gap).isEmpty
        let isSure = request.mayFit(gap, isSure: true)
        try demand(!isSure || hasPlace, "\(shape) is sure to fit in \(gap) and does not")
        try demand(
          !request.isSureExact || isSure == hasPlace, "\(shape) fits in \(gap) and is not sure to")
        try demand(!hasPlace || request.mayFit(gap, isSure: false), "\(shape) fits in \(gap)")
        // Of a part of the tree with this gap alone, as much is known.
        let summary = summary(of: [gap])
        try demand(!isSure || request.mayFit(summary, isSure: true), "\(shape) in \(summary)")
        try demand(!hasPlace || request.mayFit(summary, isSure: false), "\(shape) in \(summary)")
      }
    }
  }

  /// Twice the length is what it takes when a boundary may lie anywhere.
  @Test func aGapLongEnoughIsSureHoweverItLies() throws {
    let request = try IOVARequest(
      size: 3, alignment: 2, skew: 1, boundary: 8, lowest: 0, highest: 99)
    #expect(request.mayFit(IOVAGap(first: 1, last: 8), isSure: true))
    #expect(!request.mayFit(IOVAGap(first: 1, last: 7), isSure: true))
  }

  @Test func whatNoSpaceHoldsIsRefusedAtOnce() {
    #expect(throws: Failure.noSpace) {
      try IOVARequest(size: 5, alignment: 1, lowest: 3, highest: 6)
    }
    #expect(throws: Failure.noSpace) {
      try IOVARequest(size: 1, alignment: 1, lowest: 7, highest: 6)
    }
    #expect(throws: Failure.noSpace) {
      try IOVARequest(size: 3, alignment: 4, skew: 2, boundary: 4, lowest: 0, highest: 99)
    }
    #expect(throws: Failure.noSpace) {
      try IOVARequest(size: 3, alignment: 16, skew: 6, boundary: 4, lowest: 0, highest: 99)
    }
  }

  @Test func theLargestNumbersDoNotWrap() throws {
    let half: UInt64 = 1 << 63
    let request = try IOVARequest(
      size: half, alignment: half, lowest: 0, highest: UInt64.max)
    #expect(request.place(in: IOVAGap(first: 0, last: UInt64.max)) == half)
    #expect(request.place(in: IOVAGap(first: 0, last: UInt64.max - 1)) == 0)
    #expect(request.place(in: IOVAGap(first: 1, last: UInt64.max - 1)) == nil)
    let long = try IOVARequest(
      size: half + 1, alignment: half, skew: half - 1, lowest: 0, highest: UInt64.max)
    #expect(long.place(in: IOVAGap(first: 0, last: UInt64.max)) == half - 1)
    #expect(long.mayFit(IOVAGap(first: 0, last: UInt64.max), isSure: false))
  }
}
