// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import MachineSupport
import Primitives
import TestSupport
import Testing

@testable import Domains

@Suite("Driver")
struct DriverTests {
  // MARK: - What drives

  /// What becomes of a driver that `change` has changed.
  private func driver(
    name: UnsafePointer<CChar>?, _ change: (inout dmacore_driver) -> Void = { _ in }
  ) throws -> Driver {
    var descriptor = dmacore_driver()
    descriptor.name = name
    descriptor.probe = { _, _ in 0 }
    change(&descriptor)
    return try withUnsafePointer(to: descriptor) { try Driver($0, $0.pointee) }
  }

  @Test func aDriverHasANameThatFitsAndAProbe() throws {
    let longest = String(repeating: "n", count: Int(DMACORE_OWNER_NAME_SIZE) - 1)
    _ = try longest.withCString { try driver(name: $0) }
    _ = try "".withCString { try driver(name: $0) }
    #expect(throws: Failure.invalidArgument) {
      try (longest + "n").withCString { try driver(name: $0) }
    }
    #expect(throws: Failure.invalidArgument) { try driver(name: nil) }
    #expect(throws: Failure.invalidArgument) {
      try "nvme".withCString { try driver(name: $0) { $0.probe = nil } }
    }
  }

  @Test func onlyWhatADefaultDomainCanBeIsAskedFor() throws {
    let wishes: [UInt32: Domain.Kind?] = [0: nil, 1: .identity, 2: .dma, 5: .dma, 7: .hybrid]
    try "nvme".withCString { name in
      for type in UInt32(0)..<32 {
        if let wish = wishes[type] {
          let made = try driver(name: name) { $0.domain_type = type }
          #expect(made.wish?.kind == wish)
          #expect((made.wish?.isLazy ?? false) == (type == 5))
        } else {
          #expect(throws: Failure.invalidArgument) {
            try driver(name: name) { $0.domain_type = type }
          }
        }
      }
    }
  }

  // MARK: - What waits

  /// Every history of eight steps of three devices, of which those that are on the list can leave it, and
  /// the others come.
  @Test func whatWaitsIsInTheOrderInWhichItCame() throws {
    try withMachine { machine in
      let devices = try (0..<3).map { _ in try machine.device() }
      try withEverySequence(of: [0, 1, 2], length: 8) { history in
        var state = Bindings.State()
        var model: [UnsafeMutablePointer<Device>] = []
        for device in history.map({ devices[$0] }) {
          if let place = model.firstIndex(of: device) {
            state.remove(device)
            model.remove(at: place)
          } else {
            state.add(device)
            model.append(device)
          }
          var found: [UnsafeMutablePointer<Device>] = []
          var next = state.first
          while let device = next, found.count <= model.count {
            found.append(device)
            next = device.pointee.member.pointee.binding.next
          }
          try demandSame(found, model, "what waits after \(history)")
          try demandSame(state.count, model.count, "how many wait after \(history)")
        }
      }
    }
  }
}
