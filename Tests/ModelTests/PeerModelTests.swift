// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Peers against a model")
struct PeerModelTests {
  private static func step(_ generator: inout SeededGenerator) -> PeerStep {
    func number() -> Int { generator.below(60) }
    let (peer, page) = (generator.below(PeerWorld.peerCount), generator.below(PeerWorld.pageCount))
    switch generator.below(32) {
    case 0...1:
      return .addBridge(
        below: generator.onceIn(4) ? nil : number(), isolates: generator.onceIn(2),
        passing: generator.below(3))
    case 2...5: return .setIsolation(bridge: number(), generator.onceIn(2))
    case 6...8:
      return .add(
        bridge: generator.onceIn(8) ? nil : number(),
        slot: generator.onceIn(4) ? generator.below(2) : nil, isUntrusted: generator.onceIn(6),
        tracks: generator.onceIn(2))
    case 9: return .remove(number())
    case 10...13: return .provide(number(), peer: peer)
    case 14: return .withdraw(peer)
    case 15...23: return .map(number(), peer: peer, page: page)
    default: return .unmap(number())
    }
  }

  // Several, because bridges never go.
  @Test(arguments: 0..<16) func devicesReachWhatTheHeaderSays(run: UInt64) throws {
    try explore(
      "peers", steps: RunSettings.steps(2_000), seed: RunSettings.seed &+ run
    ) {
      try PeerWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
