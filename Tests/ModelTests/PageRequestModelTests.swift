// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Page requests against a model")
struct PageRequestModelTests {
  private static func step(_ generator: inout SeededGenerator) -> PageRequestStep {
    let pasid = UInt32(generator.below(Int(PageRequestWorld.pasids)))
    switch generator.below(20) {
    case 0...10:
      return .ask(
        device: generator.below(2), pasid: pasid, index: UInt32(generator.below(2)),
        address: generator.next(), isLast: generator.onceIn(2))
    case 11...15:
      return .respond(generator.below(16), [0, 1, 15][generator.below(3)])
    case 16, 17, 18:
      return .attach(pasid: pasid, domain: generator.onceIn(5) ? nil : generator.below(4))
    default:
      guard generator.onceIn(3) else { return .respond(generator.below(16), 0) }
      return .replaceDevice(capacity: 1 + UInt32(generator.below(6)))
    }
  }

  @Test func everyGroupIsToldAndAnsweredAsTheHeaderSays() throws {
    try explore("page requests", steps: RunSettings.steps(20_000)) {
      try PageRequestWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
