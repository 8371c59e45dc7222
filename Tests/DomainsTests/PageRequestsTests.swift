// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import MachineSupport
import Primitives
import TestSupport
import Testing

@testable import Domains

@Suite("PageRequests")
struct PageRequestsTests {
  /// What was told to a handler, and to a device: indexes, with responses.
  private final class Heard {
    var groups: [UnsafeMutablePointer<PageRequestGroup>] = []
    var answers: [[UInt32]] = []

    static func from(_ opaque: UnsafeMutableRawPointer?) -> Heard {
      Unmanaged<Heard>.fromOpaque(opaque!).takeUnretainedValue()
    }
  }

  private func withAsker(
    _ body: (UnsafeMutablePointer<Device>, UnsafeMutablePointer<Domain>, Heard) throws -> Void
  ) throws {
    let heard = Heard()
    let opaque = Unmanaged.passUnretained(heard).toOpaque()
    try withMachine { machine in
      let device = try machine.device { options in
        options.page_request_capacity = 4
        options.page_response = { _, _, index, response, opaque in
          Heard.from(opaque).answers.append([index, response])
        }
        options.page_response_opaque = opaque
      }
      var options = dmacore_domain_options()
      options.type = DMACORE_DOMAIN_UNMANAGED.rawValue
      options.opaque = opaque
      options.page_request = { group, opaque in
        Heard.from(opaque).groups.append(UnsafeMutablePointer(group!))
      }
      let domain = try Box<Domain>.place { () throws(Failure) in
        try Domain(iommu: machine.iommu, DomainDescription(options, for: nil))
      }
      defer { Box.letGo(domain) }
      try device.pointee.attach(domain)
      try body(device, domain, heard)
    }
  }

  private func ask(
    _ device: UnsafeMutablePointer<Device>, _ index: UInt32, isLast: Bool = true
  ) throws {
    try PageRequestGroup.add(
      dmacore_page_request(
        dma: 0, access: 1, group_index: index,
        flags: isLast ? DMACORE_PAGE_REQUEST_LAST.rawValue : 0, reserved: 0),
      from: device, nil)
  }

  @Test func whatIsCollectedHoldsNothingAndWhatIsPendingHoldsDeviceAndDomain() throws {
    try withAsker { device, domain, heard in
      func uses() -> [Int] {
        func holders(_ uses: borrowing UseCount) -> Int {
          uses.increment()
          return uses.decrement()
        }
        return [device.pointee.withUses(holders), domain.pointee.withUses(holders)]
      }
      let before = uses()
      try ask(device, 1, isLast: false)
      #expect(uses() == before)
      try ask(device, 1)
      #expect(uses() == before.map { $0 + 1 })
      try PageRequestGroup.respond(to: heard.groups[0], with: 0)
      #expect(uses() == before)
    }
  }

  @Test func theOldestIsAnsweredFirstWhenTheDomainLeaves() throws {
    try withAsker { device, domain, heard in
      for index in UInt32(0)..<3 { try ask(device, index) }
      try ask(device, 9, isLast: false)
      try PageRequestGroup.respond(to: heard.groups[1], with: 15)
      try device.pointee.detach(domain)
      #expect(heard.answers == [[1, 15], [0, 1], [2, 1]])
      for index in [0, 2] {
        #expect(throws: Failure.notFound) {
          try PageRequestGroup.respond(to: heard.groups[index], with: 0)
        }
      }
      #expect(heard.answers.count == 3)
    }
  }

  @Test(arguments: [UInt32(1), 3, 4])
  func aDeviceAsksForAsManyPagesAsItMayHave(perGroup: UInt32) throws {
    try withAsker { device, _, heard in
      var asked = 0
      while true {
        do throws(Failure) {
          try PageRequestGroup.add(
            dmacore_page_request(
              dma: 0, access: 1, group_index: UInt32(asked) / perGroup, flags: 0, reserved: 0),
            from: device, nil)
          asked += 1
        } catch {
          #expect(error == .noSpace)
          break
        }
      }
      #expect(asked == 4)
    }
  }
}
