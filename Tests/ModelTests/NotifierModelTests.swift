// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Notifiers against a model")
struct NotifierModelTests {
  private static func step(_ generator: inout SeededGenerator) -> NotifierStep {
    /// A range of pages, at times of whole large leaves.
    func range(_ generator: inout SeededGenerator) -> (first: UInt64, count: UInt64) {
      if generator.onceIn(4) {
        let first = UInt64(generator.below(4))
        return (first * 512, 512 * (1 + UInt64(generator.below(4 - Int(first)))))
      }
      let first = UInt64(generator.below(Int(NotifierWorld.pages)))
      let most = min(NotifierWorld.pages - first, generator.onceIn(2) ? 8 : 600)
      return (first, 1 + UInt64(generator.below(Int(most))))
    }
    let (first, count) = range(&generator)
    switch generator.below(20) {
    case 0...8:
      // Memory in the same order or shifted, so that runs meet and blocks are small or large.
      let target = generator.onceIn(3) ? UInt64(generator.below(4096)) : first + 512
      return .map(
        first: first, target: target, count: count, access: 1 + UInt32(generator.below(3)))
    case 9...15:
      return .unmap(first: first, count: count, crossingHoles: !generator.onceIn(3))
    case 16, 17:
      let flags = UInt32(1 + generator.below(3)) | (generator.onceIn(2) ? 4 : 0)
      if generator.onceIn(2) {
        return .create(flags: flags, first: 0, last: NotifierWorld.pages - 1)
      }
      return .create(flags: flags, first: first, last: first + count - 1)
    case 18: return .replay(generator.below(4))
    default: return .destroy(generator.below(4))
    }
  }

  @Test func aMirrorIsTheDomainAfterEachStep() throws {
    try explore("notifiers", steps: RunSettings.steps(3_000)) {
      try NotifierWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
