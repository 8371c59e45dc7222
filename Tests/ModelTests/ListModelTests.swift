// SPDX-License-Identifier: MIT OR Apache-2.0

import ReferenceModels
import TestSupport
import Testing

@Suite("Lists against a model")
struct ListModelTests {
  private static func entries(_ generator: inout SeededGenerator) -> [ListModel.Part] {
    var entries: [ListModel.Part] = []
    for _ in 0..<(1 + generator.below(7)) {
      var first = UInt64(generator.below(ListWorld.memorySize - 1))
      var size = UInt64(1 + generator.below(generator.onceIn(3) ? 5 * 4096 : 1500))
      if generator.onceIn(2) { first &= ~4095 }
      if generator.onceIn(2) { size = (size + 4095) & ~4095 }
      // Behind the last one, often.
      if let last = entries.last, !generator.onceIn(3) { first = last.first + last.size }
      let left = UInt64(ListWorld.memorySize)
      guard first < left else { continue }
      size = min(size, left - first)
      entries.append(
        ListModel.Part(first: first, size: size, isMMIO: generator.onceIn(12)))
    }
    return entries.isEmpty ? [ListModel.Part(first: 5, size: 9, isMMIO: false)] : entries
  }

  private static func step(_ generator: inout SeededGenerator) -> ListStep {
    let number = generator.below(100)
    switch generator.below(32) {
    case 0:
      let sizes: [UInt64] = [700, 4095, 4096, 5000, 3 * 4096, 65536, UInt64.max]
      let boundaries: [UInt64] = [511, 4095, 8191, 16383, UInt64.max, UInt64.max]
      return .limit(
        size: sizes[generator.below(sizes.count)],
        boundary: boundaries[generator.below(boundaries.count)])
    case 1...7:
      return .map(
        entries: entries(&generator), spare: generator.below(20),
        chainedEvery: 1 + generator.below(9), direction: UInt32(generator.below(3)))
    case 8...13: return .unmap(number)
    case 14...16:
      return .sync(number, offset: generator.below(1 << 20), forCPU: generator.onceIn(2))
    case 17:
      // The middle of nothing: no list has a segment there.
      return .alter(number, entry: generator.below(8), by: 1 << 60)
    case 18...24: return .read(number, byte: generator.below(1 << 20))
    default:
      return .write(
        number, byte: generator.below(1 << 20), value: UInt8(generator.below(256)))
    }
  }

  @Test(arguments: [false, true])
  func listsAreAsAModelHasThem(isTranslated: Bool) throws {
    try explore(
      "lists, \(isTranslated ? "through an IOMMU" : "directly")", steps: RunSettings.steps(2_500)
    ) {
      try ListWorld(isTranslated: isTranslated)
    } by: { generator in
      Self.step(&generator)
    }
  }
}
