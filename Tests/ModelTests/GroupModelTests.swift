// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Groups against a model")
struct GroupModelTests {
  private static func step(_ generator: inout SeededGenerator) -> GroupStep {
    func number(_ count: Int) -> Int { Int(generator.next() % UInt64(count)) }
    let (device, domain, owner) = (number(12), number(7), number(3))
    let pasid = UInt32(number(7))
    switch number(34) {
    case 0: return .add(pasidCount: [0, 3, 5, 6][number(4)])
    case 1: return .remove(device)
    case 2, 3: return .attach(device, domain: domain, replacing: false)
    case 4, 5: return .attach(device, domain: domain, replacing: true)
    case 6, 7: return .detach(device, domain: domain)
    case 8, 9: return .use(device)
    case 10, 11, 12: return .unuse(device)
    case 13, 14: return .claim(device, owner: owner)
    case 15, 16, 17: return .release(device, owner: owner)
    case 18, 19: return .attachOwned(device, domain: domain, owner: owner)
    case 20: return .detachOwned(device, owner: owner)
    case 21, 22: return .map(device)
    case 23, 24, 25:
      return .attachPASID(device, pasid: pasid, domain: domain, owner: owner, replacing: false)
    case 26, 27:
      return .attachPASID(device, pasid: pasid, domain: domain, owner: owner, replacing: true)
    case 28: return .detachPASID(device, pasid: pasid, owner: owner)
    default: return .unmap(device)
    }
  }

  @Test func everyStepGivesWhatTheHeaderSays() throws {
    try explore("group", steps: RunSettings.steps(20_000)) {
      try GroupWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
