// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Coherent pools against a model")
struct CoherentPoolModelTests {
  private static func step(_ generator: inout SeededGenerator) -> CoherentPoolStep {
    switch generator.below(100) {
    case 0..<45: return .take
    case 45..<80: return .give(generator.below(1000))
    case 80..<92:
      let offsets = [0, 0, 1, 8, -8, 64, 4096, -4096, 4095]
      return .giveWrongly(
        generator.below(1000), cpuOffset: generator.one(of: offsets),
        addressOffset: generator.one(of: offsets))
    case 92..<99: return .scribble(generator.below(1000))
    default:
      let size = UInt64(1 + generator.below(generator.onceIn(2) ? 128 : 4096))
      // Powers of two.
      let lowest = 64 - (size - 1).leadingZeroBitCount
      return .change(
        size: size, alignment: generator.onceIn(3) ? 0 : 1 << generator.below(13),
        boundary: generator.onceIn(2) ? 0 : 1 << UInt64(lowest + generator.below(60 - lowest)))
    }
  }

  @Test(arguments: [false, true])
  func objectsAreWhereAModelHasThem(_ isTranslated: Bool) throws {
    try explore("coherent pool", steps: RunSettings.steps(3_000)) {
      try CoherentPoolWorld(isTranslated: isTranslated)
    } by: { generator in
      Self.step(&generator)
    }
  }
}
