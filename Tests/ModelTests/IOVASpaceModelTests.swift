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
    IOVASpaceShape(first: 0x1000, last: 0xFFFF_FFFF_FFFF, granule: 4096),
    IOVASpaceShape(first: 0xFFFE_0000, last: 0x1_0002_FFFF, granule: 4096),
    IOVASpaceShape(first: 0, last: UInt64.max, granule: 1),
  ]

  private static func name(_ shape: IOVASpaceShape) -> String {
    "\(hex(shape.first))...\(hex(shape.last)) by \(hex(shape.granule))"
  }

  @Test(arguments: shapes)
  func everyStepGivesWhatASortedArrayGives(_ shape: IOVASpaceShape) throws {
    let maker = IOVASpaceStepMaker(shape: shape, crowd: 24)
    try explore("IOVA space \(Self.name(shape))", steps: RunSettings.steps(10_000)) {
      try IOVASpaceWorld(shape, model: model(shape))
    } by: { generator in
      maker.step(&generator)
    }
  }

  private func model(_ shape: IOVASpaceShape) -> SortedRangesModel {
    SortedRangesModel(first: shape.first, last: shape.last, granule: shape.granule)
  }

  /// More ranges than a node of the tree has room for.
  @Test(arguments: shapes)
  func everyStepInACrowdGivesWhatASortedArrayGives(_ shape: IOVASpaceShape) throws {
    let maker = IOVASpaceStepMaker(shape: shape, crowd: 300, isRoomy: true)
    try explore("crowded IOVA space \(Self.name(shape))", steps: RunSettings.steps(3_000)) {
      try IOVASpaceWorld(shape, model: model(shape))
    } by: { generator in
      maker.step(&generator)
    }
  }

  @Test(arguments: shapes, [false, true])
  func everyAddressThatACacheGivesIsFreeAndFulfilsTheConstraints(
    _ shape: IOVASpaceShape, isRoomy: Bool
  ) throws {
    let maker = IOVASpaceStepMaker(
      shape: shape, crowd: 24, prefersPowers: true, isRoomy: isRoomy)
    try explore("cached IOVA space \(Self.name(shape))", steps: RunSettings.steps(6_000)) {
      try IOVACachedSpaceWorld(shape)
    } by: { generator in
      maker.step(&generator)
    }
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
      .allocateWith(
        size: 0x2000,
        IOVAConstraintsModel(placement: .bottomUp, alignment: 0x2000, skew: 0x1000)),
      .allocateWith(size: 0x2000, IOVAConstraintsModel(boundary: 0x4000, last: 0x7FFF)),
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
    let maker = IOVASpaceStepMaker(
      shape: IOVASpaceShape(first: 0x1000, last: 0x20FFF, granule: 0x1000), crowd: 12)
    var generator = SeededGenerator(seed: RunSettings.seed)
    for _ in 0..<4_000 {
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
        let constraints = maker.constraints(size, &generator)
        let one = Result { try sorted.allocate(size: size, constraints) }
        let other = Result { try map.allocate(size: size, constraints) }
        #expect("\(one)" == "\(other)", "\(hex(size)) bytes, \(constraints)")
      }
      try #require(sorted.ranges == map.ranges)
      try #require(sorted.free == map.free && sorted.largestFree == map.largestFree)
    }
  }
}
