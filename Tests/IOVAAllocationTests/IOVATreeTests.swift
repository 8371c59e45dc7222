// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@testable import IOVAAllocation

@Suite("IOVATree")
struct IOVATreeTests {
  @Test func anEmptyTreeIsOneGap() throws {
    let both = try TreeBesideArray(first: 5, last: 20)
    try both.compare()
    #expect(both.tree.longestGap(from: 5, to: 20) == 16)
    #expect(both.tree.longestGap(from: 7, to: 9) == 3)
    #expect(both.tree.findRange(at: 5) == nil)
  }

  /// From one end it grows several levels high, and from either end it shrinks to nothing.
  @Test(arguments: [false, true], [false, true])
  func itGrowsFromEitherEndAndShrinksFromEither(growsUp: Bool, shrinksUp: Bool) throws {
    let count = 8_000
    let both = try TreeBesideArray(last: UInt64(count) * 3 - 1)
    for number in 0..<count {
      let slot = UInt64(growsUp ? number : count - 1 - number)
      // Every other range has a gap behind it.
      try both.insert(slot * 3, size: slot % 2 == 0 ? 3 : 2, isReserved: slot % 5 == 0)
      if number % 500 == 0 { try both.compare() }
    }
    try both.compare()
    #expect(both.tree.height >= 2)
    for number in 0..<count {
      try both.remove(at: shrinksUp ? 0 : count - 1 - number)
      if number % 500 == 0 { try both.compare() }
    }
    try both.compare()
    #expect(both.tree.height == 0 && both.tree.leafCount == 1 && both.tree.innerCount == 0)
  }

  @Test func rangesAtRandomComeAndGo() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let both = try TreeBesideArray(first: 1_000, last: 60_999)
    // It fills and empties in turns.
    for phase in 0..<4 {
      for step in 0..<RunSettings.steps(4_000) {
        let isGrowing = phase % 2 == 0
        if generator.below(4) != 0 ? isGrowing : !isGrowing {
          let size = UInt64(generator.below(8) + 1)
          guard let gap = freeGap(both, size: size, &generator) else { continue }
          let first = gap.first + UInt64(generator.below(Int(gap.extent - (size - 1)) + 1))
          try both.insert(first, size: size, isReserved: generator.onceIn(4))
        } else if !both.ranges.isEmpty {
          try both.remove(at: generator.below(both.ranges.count))
        }
        if step % 400 == 0 { try both.compare() }
      }
      try both.compare()
    }
    while !both.ranges.isEmpty { try both.remove(at: generator.below(both.ranges.count)) }
    try both.compare()
    #expect(both.tree.height == 0)
  }

  /// The gap around a random granule, if it is long enough.
  private func freeGap(
    _ both: TreeBesideArray, size: UInt64, _ generator: inout SeededGenerator
  ) -> IOVAGap? {
    let extent = Int(both.tree.last - both.tree.first)
    let place = both.tree.first + UInt64(generator.below(extent + 1))
    let (last, use) = both.tree.use(at: place)
    return use == .free && last - place >= size - 1 ? IOVAGap(first: place, last: last) : nil
  }

  @Test func whatItFindsIsWhatLookingAtAllGapsFinds() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let last: UInt64 = 4_095
    let both = try TreeBesideArray(last: last)
    for step in 0..<RunSettings.steps(5_000) {
      if generator.onceIn(3), both.ranges.count > 500 || generator.onceIn(2), !both.ranges.isEmpty {
        try both.remove(at: generator.below(both.ranges.count))
        continue
      }
      guard let request = request(last: last, &generator) else { continue }
      let expected = both.placeByLooking(request)
      // Near the last change any place will do; elsewhere it is that one.
      let nearby = generator.onceIn(4) ? both.tree.findNearby(request) : nil
      if nearby == nil {
        try demandSame(both.tree.find(request), expected, "place of \(request) at step \(step)")
      }
      guard let place = nearby ?? expected else { continue }
      try demand(
        isPlace(place, request, in: both.gaps), "\(place) is none for \(request) at step \(step)")
      try both.insertFound(IOVATree.Range(first: place, size: request.size, isReserved: false))
      if step % 100 == 0 { try both.compare() }
    }
    try both.compare()
    #expect(both.tree.height >= 1)
  }

  private func isPlace(_ place: UInt64, _ request: IOVARequest, in gaps: [IOVAGap]) -> Bool {
    let end = place + (request.size - 1)
    guard place >= request.lowest, end <= request.highest,
      gaps.contains(where: { $0.first <= place && end <= $0.last }),
      place % request.alignment == request.skew % request.alignment
    else { return false }
    return request.boundary == 0 || place / request.boundary == end / request.boundary
  }

  private func request(last: UInt64, _ generator: inout SeededGenerator) -> IOVARequest? {
    let size = UInt64(generator.below(generator.onceIn(8) ? 64 : 9) + 1)
    let alignment: UInt64 = generator.onceIn(2) ? 1 : 1 << UInt64(generator.below(6))
    let skew = generator.onceIn(2) ? 0 : generator.next() & (alignment - 1)
    let boundary: UInt64 = generator.onceIn(3) ? 1 << UInt64(3 + generator.below(6)) : 0
    guard boundary == 0 || boundary >= size else { return nil }
    var (lowest, highest) = (UInt64(0), last)
    if generator.onceIn(2) { lowest = UInt64(generator.below(Int(last))) }
    if generator.onceIn(2) { highest = UInt64(generator.below(Int(last))) }
    return try? IOVARequest(
      size: size, alignment: alignment, skew: skew, boundary: boundary, lowest: lowest,
      highest: highest, isBottomUp: generator.onceIn(2))
  }

  @Test func theLongestGapWithinLimitsIsCutByThem() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let both = try TreeBesideArray(last: 9_999)
    for slot in 0..<1_500 where !generator.onceIn(5) {
      try both.insert(UInt64(slot) * 6, size: UInt64(generator.below(6) + 1))
    }
    for _ in 0..<500 {
      let limits = [UInt64(generator.below(10_000)), UInt64(generator.below(10_000))].sorted()
      let expected =
        both.gaps.map { gap -> UInt64 in
          let (first, last) = (max(gap.first, limits[0]), min(gap.last, limits[1]))
          return first <= last ? last - first + 1 : 0
        }.max() ?? 0
      try demandSame(
        both.tree.longestGap(from: limits[0], to: limits[1]), expected, "between \(limits)")
    }
  }

  @Test func theLastGranuleOfAllIsAnOrdinaryOne() throws {
    let both = try TreeBesideArray(last: UInt64.max)
    try both.compare()
    try both.insert(UInt64.max, size: 1)
    try both.compare()
    try both.insert(0, size: 1)
    try both.compare()
    try both.insert(1, size: UInt64.max - 1)
    try both.compare()
    #expect(both.tree.longestGap(from: 0, to: UInt64.max) == 0)
    try both.remove(at: 1)
    try both.remove(at: 1)
    try both.compare()
    try both.remove(at: 0)
    try both.compare()
  }

  @Test func allOf2To64GranulesCanBeOneRange() throws {
    let both = try TreeBesideArray(last: UInt64.max)
    // Their number is 0 modulo 2^64.
    try both.insert(0, size: 0, isReserved: true)
    #expect(both.tree.use(at: 77).last == UInt64.max)
    #expect(both.tree.use(at: 77).use == .reserved)
    #expect(both.tree.longestGap(from: 0, to: UInt64.max) == 0)
    try both.remove(at: 0)
    try both.compare()
    #expect(both.tree.longestGap(from: 0, to: UInt64.max) == UInt64.max)
  }
}
