// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Mapping
import TestSupport
import Testing

@Suite("Two-step mapping against a model")
struct IOVAStateModelTests {
  private static func offset(_ generator: inout SeededGenerator) -> Int {
    let page = generator.below(IOVAStateWorld.pages) * 4096
    return generator.onceIn(3) ? page + generator.below(4096) : page
  }

  private static func size(_ generator: inout SeededGenerator) -> Int {
    switch generator.below(4) {
    case 0: generator.below(300)
    case 1: generator.below(3 * 4096)
    default: (1 + generator.below(3)) * 4096
    }
  }

  private static func step(_ generator: inout SeededGenerator) -> IOVAStateStep {
    let attributes: [UInt32] = [
      0, 0, 0, 0, UInt32(DMACORE_ATTR_SKIP_CPU_SYNC.rawValue),
      UInt32(DMACORE_ATTR_REQUIRE_COHERENT.rawValue), UInt32(DMACORE_ATTR_MMIO.rawValue),
    ]
    switch generator.below(40) {
    case 0: return .free
    case 1: return generator.onceIn(3) ? .destroy : .free
    case 2, 3:
      let low = generator.onceIn(2) ? generator.below(4096) : 0
      return .reserve(
        low: low, size: IOVAStateWorld.size - generator.below(2 * 4096),
        isReady: generator.onceIn(2))
    case 4...15:
      return .link(
        offset: offset(&generator), place: offset(&generator), size: size(&generator),
        direction: UInt32(generator.onceIn(50) ? 3 : generator.below(3)),
        attributes: attributes[generator.below(attributes.count)])
    case 16: return .unlink(offset: offset(&generator), size: size(&generator))
    case 17...20: return .unlinkLinks(generator.below(8), generator.below(8))
    case 21...25:
      return .sync(
        offset: offset(&generator), size: size(&generator), forCPU: generator.onceIn(2))
    case 26...29:
      return .poke(
        place: generator.below(IOVAStateWorld.size), value: UInt8(generator.below(256)))
    case 30...34: return .read(offset: generator.below(IOVAStateWorld.size))
    default:
      return .write(
        offset: generator.below(IOVAStateWorld.size), value: UInt8(generator.below(256)))
    }
  }

  @Test(arguments: [false, true], [false, true])
  func rangesAreAsAModelHasThem(isUntrusted: Bool, isLazy: Bool) throws {
    if isUntrusted && isLazy { return }
    try explore(
      "a reserved range\(isUntrusted ? ", not trusted" : "")\(isLazy ? ", lazy" : "")",
      steps: RunSettings.steps(20_000)
    ) {
      try IOVAStateWorld(isUntrusted: isUntrusted, isLazy: isLazy)
    } by: { generator in
      Self.step(&generator)
    }
  }

  @Test func aStateHasRoomInWhatCHasForIt() {
    #expect(MemoryLayout<IOVAState>.size <= MemoryLayout<dmacore_iova_state>.size)
    #expect(MemoryLayout<IOVAState>.alignment <= MemoryLayout<dmacore_iova_state>.alignment)
  }
}
