// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import MachineSupport
import Primitives
import TestSupport
import Testing

@testable import Translation

@Suite("Group: threads")
struct GroupConcurrencyTests {
  private static let address: UInt64 = 0x10000

  /// What threads share. In each domain the address leads somewhere else.
  private final class Shared: @unchecked Sendable {
    let devices: [UnsafeMutablePointer<Device>]
    let domains: [UnsafeMutablePointer<Domain>]
    let views: [UnsafeMutablePointer<View>]
    let tokens: UnsafeMutablePointer<UInt8>

    init(_ machine: Machine) throws {
      let group = try Box<Group>.place { () throws(Failure) in try Group(system: machine.system) }
      defer { Box.letGo(group) }
      devices = try (0..<2).map { _ in try machine.device(in: group) }
      domains = try (0..<3).map { _ in try machine.domain(.unmanaged) }
      for (index, domain) in domains.enumerated() {
        try domain.pointee.map(
          IOVARange(first: IOVA(GroupConcurrencyTests.address), size: 4096),
          to: PhysicalAddress(Shared.target(index)), access: .read)
      }
      views = try devices.map { device in
        try Box<View>.place { () throws(Failure) in View(device: device) }
      }
      tokens = .allocate(capacity: 2)
      tokens.initialize(repeating: 0, count: 2)
      try devices[0].pointee.attach(domains[0])
    }

    deinit {
      for view in views { Box.destroy(view) }
      tokens.deallocate()
    }

    static func target(_ domain: Int) -> UInt64 { UInt64(domain + 1) << 20 }

    /// Where the address leads a device at this moment; nil where it is blocked.
    func target(of device: Int) throws -> UInt64? {
      do throws(Failure) {
        return try views[device].pointee.translate(
          DMAAddress(GroupConcurrencyTests.address), .read
        ).target
      } catch {
        try demandSame(error, .notPermitted, "why nothing is translated")
        return nil
      }
    }

    func owner(_ number: Int) throws -> Owner {
      try Owner(token: UnsafeRawPointer(tokens + number), kind: 1, name: nil)
    }
  }

  /// Between its claim and its release an owner never sees a domain of anybody else's.
  private func own(_ number: Int, _ shared: Shared) throws {
    let device = shared.devices[number]
    let group = device.pointee.group
    let owner = try shared.owner(number)
    do throws(Failure) {
      try group.pointee.claim(owner, through: device.pointee.name)
    } catch {
      try demand(error == .notPermitted || error == .busy, "a claim is refused with \(error.code)")
      return
    }
    for device in 0..<2 {
      let target = try shared.target(of: device)
      try demand(target == nil, "the claimed group is not blocked")
    }
    try group.pointee.attach(
      shared.domains[number + 1], by: UnsafeRawPointer(shared.tokens + number))
    for device in 0..<2 {
      let target = try shared.target(of: device)
      try demand(target == Shared.target(number + 1), "the owner's domain is not there")
    }
    try group.pointee.release(UnsafeRawPointer(shared.tokens + number))
  }

  /// While the DMA API uses the group the default domain stays.
  private func use(_ shared: Shared) throws {
    let device = shared.devices[0]
    do throws(Failure) {
      try device.pointee.useDefaultDomain()
    } catch {
      try demandSame(error, .busy, "why a use is refused")
      return
    }
    for device in 0..<2 {
      let target = try shared.target(of: device)
      try demand(target == Shared.target(0), "the default domain is not there")
    }
    try device.pointee.unuseDefaultDomain()
  }

  @Test func noTranslationComesFromADomainThatTheGroupIsNotAttachedTo() throws {
    try withMachine { machine in
      let shared = try Shared(machine)
      let rounds = RunSettings.steps(4_000)
      try onThreads(4) { thread in
        for _ in 0..<rounds {
          switch thread {
          case 0, 1: try own(thread, shared)
          case 2: try use(shared)
          default:
            // From any domain, and never a torn one.
            let target = try shared.target(of: 1)
            try demand(
              target == nil || (0..<3).contains { target == Shared.target($0) },
              "translated to nowhere")
          }
        }
      }
      for device in 0..<2 {
        let target = try shared.target(of: device)
        #expect(target == Shared.target(0))
      }
      #expect(shared.domains[0].pointee.statistics.deviceCount == 2)
      #expect(shared.domains[1].pointee.statistics.deviceCount == 0)
    }
  }
}
