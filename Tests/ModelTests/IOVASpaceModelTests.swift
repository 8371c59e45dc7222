// SPDX-License-Identifier: MIT OR Apache-2.0

import ReferenceModels
import TestSupport
import Testing

@Suite("IOVA space against models")
struct IOVASpaceModelTests {
  private static let shapes = [
    IOVASpaceShape(first: 0x1000, last: 0xFFFF_FFFF, granule: 4096),
    IOVASpaceShape(first: 0, last: UInt64.max, granule: 4096),
    IOVASpaceShape(first: 0, last: 0xFFFF, granule: 0x1000),
    IOVASpaceShape(first: 0x7F, last: 0x17E, granule: 1),
    IOVASpaceShape(first: UInt64.max - 0xF_FFFF, last: UInt64.max, granule: 0x800),
    IOVASpaceShape(first: 0, last: UInt64.max, granule: 1 << 62),
  ]

  @Test(arguments: shapes)
  func everyStepGivesWhatASortedArrayGives(_ shape: IOVASpaceShape) throws {
    let maker = IOVASpaceStepMaker(shape: shape, crowd: 24)
    let name = "IOVA space \(hex(shape.first))...\(hex(shape.last)) by \(hex(shape.granule))"
    try explore(name, steps: RunSettings.steps(10_000)) {
      try IOVASpaceWorld(shape, model: model(shape))
    } by: { generator in
      maker.step(&generator)
    }
  }

  private func model(_ shape: IOVASpaceShape) -> SortedRangesModel {
    SortedRangesModel(first: shape.first, last: shape.last, granule: shape.granule)
  }

  /// Every history of a space of eight granules: each step of a small alphabet at each place.
  @Test func everyShortHistoryOfATinySpaceHolds() throws {
    let shape = IOVASpaceShape(first: 0x1000, last: 0x8FFF, granule: 0x1000)
    let alphabet: [IOVASpaceStep] = [
      .allocate(size: 0x1000, alignment: 0, limit: UInt64.max),
      .allocate(size: 0x3000, alignment: 0, limit: UInt64.max),
      .allocate(size: 0x2000, alignment: 0x2000, limit: UInt64.max),
      .allocate(size: 0x1000, alignment: 0x4000, limit: 0x6FFF),
      .free(0),
      .free(1),
      .reserve(first: 0x4000, last: 0x4FFF),
      .unreserve(0),
    ]
    try withEverySequence(of: alphabet, length: RunSettings.historyLength) { history in
      try follow(history) {
        try IOVASpaceWorld(
          shape, model: GranuleMapModel(first: 0x1000, last: 0x8FFF, granule: 0x1000))
      }
    }
  }

  /// The two models share nothing, so that a mistake in one of them shows.
  @Test func theModelsAgree() throws {
    var sorted = SortedRangesModel(first: 0x1000, last: 0x20FFF, granule: 0x1000)
    var map = GranuleMapModel(first: 0x1000, last: 0x20FFF, granule: 0x1000)
    var generator = SeededGenerator(seed: RunSettings.seed)
    for _ in 0..<2_000 {
      if generator.onceIn(2), let range = sorted.ranges.randomElement(using: &generator) {
        if range.isReserved {
          try sorted.unreserve(first: range.first, last: range.last)
          try map.unreserve(first: range.first, last: range.last)
        } else {
          try sorted.free(first: range.first, size: UInt64(range.size))
          try map.free(first: range.first, size: UInt64(range.size))
        }
      } else {
        let size = UInt64(generator.below(0x5000) + 1)
        let alignment = UInt64(0x800) << UInt64(generator.below(5))
        let limit = UInt64(generator.below(0x24000))
        let one = try? sorted.allocate(size: size, alignment: alignment, limit: limit)
        let other = try? map.allocate(size: size, alignment: alignment, limit: limit)
        #expect(one == other)
      }
      try #require(sorted.ranges == map.ranges)
      try #require(sorted.free == map.free && sorted.largestFree == map.largestFree)
    }
  }
}
