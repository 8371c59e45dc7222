// SPDX-License-Identifier: MIT OR Apache-2.0

import ReferenceModels
import TestSupport
import Testing

@Suite("Reserved regions against a model")
struct ReservedModelTests {
  private static func regions(_ generator: inout SeededGenerator) -> [ReservedModel.Region] {
    // A direct region keeps the group from being owned, so that most devices have none.
    let isDirect = generator.onceIn(4)
    return (0..<generator.below(6)).map { _ in
      let kind = generator.one(of: ReservedModel.Kind.allCases)
      let first = generator.below(ReservedWorld.pageCount)
      let last = min(first + generator.below(6), ReservedWorld.pageCount - 1)
      // What must be mapped is not to be out of reach too often.
      let isWide = generator.onceIn(kind == .direct || kind == .relaxable ? 40 : 8)
      return ReservedModel.Region(
        first...(isWide ? ReservedWorld.pageCount : last),
        kind == .direct && !isDirect ? .never : kind)
    }
  }

  private static func pages(_ generator: inout SeededGenerator) -> ClosedRange<Int> {
    let first = 1 + generator.below(ReservedWorld.pageCount - 1)
    return first...(first + generator.below(ReservedWorld.pageCount - first))
  }

  private static func step(_ generator: inout SeededGenerator) -> ReservedStep {
    let number = generator.below(60)
    switch generator.below(30) {
    case 0...2: return .add(regions(&generator), isPartOfGroup: false)
    case 3, 4: return .add(regions(&generator), isPartOfGroup: true)
    case 5, 6: return .remove(number)
    case 7...10:
      let kind = generator.one(of: [
        ReservedModel.Domain.Kind.dma, .dma, .unmanaged, .unmanaged, .blocked, .identity,
      ])
      return .makeDomain(kind, isForGroup: !generator.onceIn(4), pages: pages(&generator))
    case 11, 12: return .attach(number, replacing: false)
    case 13, 14: return .attach(number, replacing: true)
    case 15: return .detach(number)
    case 16: return .setDefault(isIdentity: generator.onceIn(4))
    case 17, 18: return .claim
    case 19: return .release
    case 20, 21: return .attachOwned(number)
    case 22: return .detachOwned
    case 23, 24: return .attachPASID(number)
    case 25: return .detachPASID
    case 26, 27: return .map(number, pages(&generator))
    case 28: return .unmapAll(number)
    default: return .exhaust
    }
  }

  @Test func domainsHonourTheRegionsOfTheirGroup() throws {
    try explore("reserved regions", steps: RunSettings.steps(10_000)) {
      try ReservedWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
