// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing
import Translation

@Suite("ViewMapping")
struct ViewMappingTests {
  private static let page = UInt64(Pages.size)

  private func map(
    _ view: UnsafeMutablePointer<View>, _ range: DMARange, _ access: Access
  ) throws -> UnsafeMutablePointer<ViewMapping> {
    try Box<ViewMapping>.place { () throws(Failure) in
      try ViewMapping(view: view, range, access)
    }
  }

  @Test func pagesThatAdjoinAreOneSegment() throws {
    try withMachine { machine in
      let device = try machine.device()
      try device.pointee.attach(machine.domain(.dma))
      let pages = Pages(count: 4)
      // Mapped from the last to the first: for the device 3, 1, 0 lie in this order from the top.
      let third = try device.pointee.map(pages.range(3), .bidirectional).rawValue
      for index in [1, 0] { _ = try device.pointee.map(pages.range(index), .bidirectional) }
      try withView(of: device) { view in
        let range = try dma(third - 2 * Self.page, size: 3 * Self.page)
        let mapping = try map(view, range, .read)
        #expect(mapping.pointee.segmentCount == 2)
        #expect(mapping.pointee.segments[0].host == pages.page(0))
        #expect(mapping.pointee.segments[0].size == 2 * Self.page)
        #expect(mapping.pointee.segments[1].host == pages.page(3))
        #expect(mapping.pointee.segments[1].size == Self.page)
        Box.destroy(mapping)
      }
      Device.close(device)
    }
  }

  @Test func aMappingOutlivesItsViewItsDomainAndItsDevice() throws {
    let pages = Pages(count: 1)
    try withMachine { machine in
      let device = try machine.device()
      let domain = try machine.domain(.dma)
      try device.pointee.attach(domain)
      let address = try device.pointee.map(pages.range(0), .bidirectional)
      let range = try dma(address.rawValue, size: Self.page)
      var mapping: UnsafeMutablePointer<ViewMapping>?
      try withView(of: device) { view in mapping = try map(view, range, .write) }
      try device.pointee.unmap(range, .bidirectional)
      #expect(machine.reports.all.count == 1)
      try device.pointee.detach(domain)
      try #require(mapping).pointee.segments[0].host.storeBytes(of: 5, as: UInt8.self)
      Box.destroy(try #require(mapping))
    }
    #expect(pages.page(0).load(as: UInt8.self) == 5)
  }

  @Test func coherentMemoryStaysWhileItIsHeld() throws {
    try withMachine { machine in
      let device = try machine.device()
      try device.pointee.attach(machine.domain(.dma))
      let (cpu, address) = try device.pointee.allocateCoherent(size: Self.page)
      try withView(of: device) { view in
        let mapping = try map(view, dma(address.rawValue + 8, size: 8), .read)
        #expect(
          failure { try device.pointee.freeCoherent(cpu, address, size: Self.page) } == .busy)
        Box.destroy(mapping)
      }
      try device.pointee.freeCoherent(cpu, address, size: Self.page)
    }
  }

  @Test func whatIsRefusedIsAFaultAndHoldsNothing() throws {
    try withMachine { machine in
      let device = try machine.device()
      try device.pointee.attach(machine.domain(.dma))
      let pages = Pages(count: 1)
      let address = try device.pointee.map(pages.range(0), .toDevice)
      let range = try dma(address.rawValue, size: Self.page)
      try withView(of: device) { view in
        #expect(failure { _ = try map(view, range, .write) } == .accessDenied)
        #expect(takeFaults(device).count == 1)
      }
      try device.pointee.unmap(range, .toDevice)
      #expect(machine.reports.all.isEmpty)
    }
  }
}
