// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Written pages against a model")
struct DirtyModelTests {
  private static func step(_ generator: inout SeededGenerator) -> DirtyStep {
    let count = DirtyWorld.pageCount
    let first = generator.below(count)
    let pages = first..<min(count, first + 1 + generator.below(generator.onceIn(4) ? count : 8))
    let offset = generator.below((count - 8) * 4096)
    let size = 1 + generator.below(generator.onceIn(2) ? 64 : 6 * 4096)
    switch generator.below(24) {
    case 0...7: return .map(page: first)
    case 8: return .unmap(pages)
    case 9...13: return .write(offset: offset, size: size)
    case 14, 15: return .pin(offset: offset, size: size, isForWriting: generator.onceIn(2))
    case 16, 17: return .unpin(first)
    case 18: return .track(!generator.onceIn(4))
    default: return .read(pages, clearing: generator.onceIn(2))
    }
  }

  /// Each format notes writes in another way.
  @Test(arguments: UInt32(1)...7)
  func everyReadTellsThePagesThatAModelHas(_ format: UInt32) throws {
    try explore("written pages, format \(format)", steps: RunSettings.steps(4_000)) {
      try DirtyWorld(format: format)
    } by: { generator in
      Self.step(&generator)
    }
  }
}
