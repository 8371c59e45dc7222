// SPDX-License-Identifier: MIT OR Apache-2.0

import ReferenceModels
import TestSupport

/// Makes random steps that often meet what is there already.
struct IOVASpaceStepMaker {
  let shape: IOVASpaceShape
  /// How many ranges a run holds, more or less.
  let crowd: Int
  /// Whether most sizes are powers of two.
  var prefersPowers = false
  /// Whether ranges are as long as the space divided by the crowd, or a few granules.
  var isRoomy = false

  private var granuleCount: UInt128 {
    (UInt128(shape.last) + 1 - UInt128(shape.first)) / UInt128(shape.granule)
  }

  func step(_ generator: inout SeededGenerator) -> IOVASpaceStep {
    switch generator.below(26) {
    case 0..<6:
      return .allocate(
        size: size(&generator), alignment: alignment(&generator), limit: limit(&generator))
    case 6..<10:
      let size = size(&generator)
      return .allocateWith(size: size, constraints(size, &generator))
    case 10..<18:
      return .free(generator.below(crowd))
    case 18:
      return .freeWrongly(
        generator.below(crowd), firstOff: off(&generator), sizeOff: off(&generator))
    case 19, 20:
      let first = place(&generator)
      return .reserve(first: first, last: first &+ (size(&generator) &- 1))
    case 21, 22:
      return .unreserve(generator.below(crowd))
    case 23:
      return .unreserveWrongly(generator.below(crowd), lastOff: off(&generator))
    case 24:
      return .largestFree(first: address(&generator), last: address(&generator))
    default:
      return generator.onceIn(8) ? .visit : generator.onceIn(4) ? .drain : .free(0)
    }
  }

  /// Constraints of which most are those of a sound mind, and some contradict themselves.
  func constraints(
    _ size: UInt64, _ generator: inout SeededGenerator
  ) -> IOVAConstraintsModel {
    var constraints = IOVAConstraintsModel(placement: generator.one(of: Self.placements))
    constraints.alignment = generator.onceIn(2) ? 0 : alignment(&generator)
    if generator.onceIn(3), constraints.alignment > shape.granule {
      let bits = constraints.alignment - (generator.onceIn(20) ? 0 : shape.granule)
      constraints.skew = generator.next() & bits & ~(shape.granule - 1)
    }
    if generator.onceIn(3) {
      let shift = min(63, 64 - (max(size, shape.granule) - 1).leadingZeroBitCount)
      constraints.boundary = 1 << UInt64(min(63, max(0, shift + generator.below(5) - 1)))
    }
    if generator.onceIn(3) || constraints.placement == .exact {
      constraints.first = generator.onceIn(8) ? address(&generator) : place(&generator)
    }
    if generator.onceIn(3) {
      let reach = shape.granule.multipliedReportingOverflow(by: UInt64(generator.below(40)))
      constraints.last = generator.onceIn(2) ? address(&generator) : constraints.first &+ reach.0
    }
    return constraints
  }

  private static let placements: [IOVAConstraintsModel.Placement] =
    IOVAConstraintsModel.Placement.allCases

  /// Mostly whole granules, some of them too many.
  private func size(_ generator: inout SeededGenerator) -> UInt64 {
    if generator.onceIn(50) { return generator.one(of: [0, 1, UInt64.max, UInt64.max - 4094]) }
    if prefersPowers && !generator.onceIn(4) {
      let orders = isRoomy ? 3 : max(1, 127 - (granuleCount / 2).leadingZeroBitCount)
      let order = generator.below(min(4, max(1, orders)))
      return shape.granule << UInt64(min(order, shape.granule.leadingZeroBitCount))
    }
    let typical = isRoomy ? 6 : max(1, Int(clamping: min(granuleCount, 1 << 62) / UInt128(crowd)))
    let count = UInt64(generator.below(generator.onceIn(10) ? typical * crowd : typical) + 1)
    let size = count.multipliedReportingOverflow(by: shape.granule)
    guard !size.overflow else { return UInt64.max }
    return generator.onceIn(8) ? max(1, size.partialValue - 1) : size.partialValue
  }

  private func alignment(_ generator: inout SeededGenerator) -> UInt64 {
    if generator.onceIn(50) { return 3 }
    guard generator.onceIn(3) else { return 0 }
    return shape.granule << UInt64(generator.below(6))
  }

  private func limit(_ generator: inout SeededGenerator) -> UInt64 {
    generator.onceIn(3) ? place(&generator) &- UInt64(generator.below(2)) : UInt64.max
  }

  /// Where a granule starts, in the space or next to it.
  private func place(_ generator: inout SeededGenerator) -> UInt64 {
    let index = UInt64.random(in: 0...UInt64(clamping: granuleCount), using: &generator)
    return shape.first &+ index &* shape.granule
  }

  /// Any address, in the space or next to it.
  private func address(_ generator: inout SeededGenerator) -> UInt64 {
    switch generator.below(8) {
    case 0: generator.one(of: [0, UInt64.max, UInt64(UInt32.max), 1 << 32])
    case 1: place(&generator) &+ UInt64(generator.below(4096))
    case 2..<5: place(&generator) &- 1
    default: place(&generator)
    }
  }

  private func off(_ generator: inout SeededGenerator) -> UInt64 {
    generator.one(of: [0, shape.granule, 1, UInt64.max, 0 &- shape.granule])
  }
}
