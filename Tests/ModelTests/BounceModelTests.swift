// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Bounced mappings against a model")
struct BounceModelTests {
  private static func step(_ generator: inout SeededGenerator) -> BounceStep {
    let number = generator.below(100)
    let offset = generator.below(BounceWorld.memorySize - 1)
    let size = 1 + generator.below(generator.onceIn(3) ? 3 * 4096 : 200)
    let value = UInt8(1 + generator.below(255))
    switch generator.below(24) {
    case 0...4:
      let isWhole = generator.onceIn(4)
      return .map(
        offset: isWhole ? offset & ~4095 : offset, size: isWhole ? (size + 4095) & ~4095 : size,
        direction: UInt32(generator.below(3)), skips: generator.onceIn(6))
    case 5...8: return .unmap(number)
    case 9...12: return .sync(number, offset: offset, size: size, forCPU: generator.onceIn(2))
    case 13...15: return .writeByCPU(offset: offset, count: size, value: value)
    case 16...19: return .read(number, offset: offset, count: size)
    default: return .write(number, offset: offset, count: size, value: value)
    }
  }

  @Test(arguments: BounceWorld.Kind.allCases)
  func everyByteIsWhereAModelHasIt(kind: BounceWorld.Kind) throws {
    try explore("bounced mappings, \(kind)", steps: RunSettings.steps(6_000)) {
      try BounceWorld(kind)
    } by: { generator in
      Self.step(&generator)
    }
  }
}
