// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Topology against a model")
struct TopologyModelTests {
  private static func step(_ generator: inout SeededGenerator) -> TopologyStep {
    switch generator.below(12) {
    case 0:
      let below = generator.onceIn(3) ? nil : generator.below(60)
      return .addBridge(below: below, isolates: !generator.onceIn(3))
    case 1: return .giveBack(bridge: generator.below(60))
    case 2...6:
      // Requester IDs of a few slots, so that some are the same.
      let ids = (0..<generator.below(4)).map { _ in UInt32(generator.below(40)) }
      return .add(
        bridge: generator.onceIn(3) ? nil : generator.below(60), ids: ids,
        sharesSlot: generator.onceIn(3),
        iommu: generator.one(of: [0, 0, 0, 0, 1, nil]),
        group: generator.onceIn(4) ? generator.below(2) : nil)
    case 10, 11:
      return .setIsolation(bridge: generator.below(60), generator.onceIn(2))
    default: return .remove(generator.below(60), isHeld: generator.onceIn(3))
    }
  }

  @Test func devicesShareAGroupIfTheyCannotBeKeptApart() throws {
    try explore("topology", steps: RunSettings.steps(10_000)) {
      try TopologyWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
