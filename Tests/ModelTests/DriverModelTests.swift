// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation
import TestSupport
import Testing

@Suite("Drivers against a model")
struct DriverModelTests {
  private static func step(_ generator: inout SeededGenerator) -> DriverStep {
    func number(_ count: Int) -> Int { Int(generator.next() % UInt64(count)) }
    let (device, domain, owner, driver) = (number(12), number(3), number(2), number(4))
    switch number(64) {
    case 0, 1: return .add(group: number(2), isTrusted: number(4) > 0)
    case 2: return .remove(device)
    case 3...24: return .bind(device, driver: driver)
    case 25...29: return .unbind(device)
    case 30...37:
      return .answer(driver: driver, result: [0, 0, -EAGAIN, -EAGAIN, -EIO][number(5)])
    case 38: return number(8) == 0 ? .start : .unmap(device)
    case 39, 40: return .setDefault(group: number(2), isIdentity: number(2) == 0)
    case 41: return .use(device)
    case 42...44: return .unuse(device)
    case 45: return .attach(device, domain: domain, replacing: number(2) == 0)
    case 46, 47: return .detach(device, domain: domain)
    case 48: return .claim(device, owner: owner)
    case 49...53: return .release(device, owner: owner)
    case 54: return .attachOwned(device, domain: domain, owner: owner)
    case 55: return .map(device)
    default: return .unmap(device)
    }
  }

  // Several, because an IOMMU starts once.
  @Test(arguments: 0..<8) func everyStepGivesWhatTheHeaderSays(run: UInt64) throws {
    try explore(
      "drivers", steps: RunSettings.steps(10_000), seed: RunSettings.seed &+ run
    ) {
      try DriverWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
