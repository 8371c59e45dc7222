// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation
import TestSupport
import Testing

@Suite("Drivers against a model")
struct DriverModelTests {
  private static func step(_ generator: inout SeededGenerator) -> DriverStep {
    func number(_ count: Int) -> Int { Int(generator.next() % UInt64(count)) }
    let (device, domain, owner, driver) = (number(12), number(3), number(2), number(4))
    switch number(48) {
    case 0, 1, 2: return .add(group: number(2), isTrusted: number(3) > 0)
    case 3, 4: return .remove(device)
    case 5...13: return .bind(device, driver: driver)
    case 14...19: return .unbind(device)
    case 20, 21:
      return .answer(driver: driver, result: [0, 0, 0, -EAGAIN, -EAGAIN, -EIO][number(6)])
    case 22: return number(16) == 0 ? .start : .unmap(device)
    case 23, 24: return .setDefault(group: number(2), isIdentity: number(2) == 0)
    case 25: return .use(device)
    case 26, 27: return .unuse(device)
    case 28, 29: return .attach(device, domain: domain, replacing: number(2) == 0)
    case 30, 31: return .detach(device, domain: domain)
    case 32, 33: return .claim(device, owner: owner)
    case 34...38: return .release(device, owner: owner)
    case 39: return .attachOwned(device, domain: domain, owner: owner)
    case 40, 41: return .map(device)
    default: return .unmap(device)
    }
  }

  // Several, because an IOMMU starts once.
  @Test(arguments: 0..<8) func everyStepGivesWhatTheHeaderSays(run: UInt64) throws {
    try explore(
      "drivers", steps: RunSettings.steps(2_500), seed: RunSettings.seed &+ run
    ) {
      try DriverWorld()
    } by: { generator in
      Self.step(&generator)
    }
  }
}
