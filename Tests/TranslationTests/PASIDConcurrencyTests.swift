// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Primitives
import TestSupport
import Testing

@testable import Translation

@Suite("PASIDs: threads")
struct PASIDConcurrencyTests {
  private static let address: UInt64 = 0x10000
  private static let pasid: UInt32 = 7

  /// Two devices of one group, and a view of what the PASID of each reaches.
  private final class Shared: @unchecked Sendable {
    let machine: Machine
    let devices: [UnsafeMutablePointer<Device>]
    let views: [UnsafeMutablePointer<View>]
    let tokens: UnsafeMutablePointer<UInt8>

    init(_ machine: Machine) throws {
      self.machine = machine
      let group = try Box<Group>.place { () throws(Failure) in try Group(system: machine.system) }
      defer { Box.letGo(group) }
      devices = try (0..<2).map { _ in try machine.device(in: group) { $0.pasid_count = 16 } }
      views = try devices.map { device in
        try Box<View>.place { () throws(Failure) in
          try View(device: device, pasid: PASIDConcurrencyTests.pasid)
        }
      }
      tokens = .allocate(capacity: 2)
      tokens.initialize(repeating: 0, count: 2)
    }

    deinit {
      for view in views { Box.destroy(view) }
      tokens.deallocate()
    }

    func target(of device: Int) throws -> UInt64? {
      do throws(Failure) {
        return try views[device].pointee.translate(
          DMAAddress(PASIDConcurrencyTests.address), .read
        ).target
      } catch {
        try demandSame(error, .notPermitted, "why nothing is translated")
        return nil
      }
    }

    /// A domain that ends with its last use, as the caller lets go of it at once.
    func withDomain(
      to target: UInt64, _ body: (UnsafeMutablePointer<Domain>) throws -> Void
    ) throws {
      let domain = try Box<Domain>.place { () throws(Failure) in
        try Domain(iommu: machine.iommu, DomainDescription(.unmanaged))
      }
      defer { Box.letGo(domain) }
      try domain.pointee.map(
        IOVARange(first: IOVA(PASIDConcurrencyTests.address), size: 4096),
        to: PhysicalAddress(target), access: .read)
      try body(domain)
    }
  }

  private func own(_ number: Int, _ shared: Shared) throws {
    let device = shared.devices[number]
    let group = device.pointee.group
    let token = UnsafeRawPointer(shared.tokens + number)
    do throws(Failure) {
      try group.pointee.claim(
        Owner(token: token, kind: 1, name: nil), through: device.pointee.name)
    } catch {
      try demand(error == .notPermitted || error == .busy, "a claim is refused with \(error.code)")
      return
    }
    for step in 0..<2 {
      let target = UInt64(1 + 2 * number + step) << 20
      try shared.withDomain(to: target) { domain in
        try group.pointee.attach(
          domain, to: Self.pasid, of: device.pointee, by: token, replacing: step > 0)
      }
      // It lives on, and both devices are in it.
      for device in 0..<2 {
        let found = try shared.target(of: device)
        try demand(found == target, "the owner's domain is not there")
      }
    }
    if number == 0 { try group.pointee.detach(Self.pasid, by: token) }
    try group.pointee.release(token)
  }

  @Test func noTranslationComesFromADomainThatThePASIDHasLeft() throws {
    try withMachine { machine in
      let shared = try Shared(machine)
      let rounds = RunSettings.steps(1_000)
      try onThreads(4) { thread in
        for _ in 0..<rounds {
          if thread < 2 {
            try own(thread, shared)
          } else {
            let target = try shared.target(of: thread - 2)
            try demand(
              target == nil || (1...4).contains { target == UInt64($0) << 20 },
              "translated to nowhere")
          }
        }
      }
      for device in 0..<2 {
        let target = try shared.target(of: device)
        #expect(target == nil)
      }
    }
  }
}
