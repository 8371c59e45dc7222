// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

@Suite("Device.map")
struct MapTests {
  @Test(arguments: Path.allCases)
  func whatIsMappedLeadsToTheMemoryUntilItIsUnmapped(_ path: Path) throws {
    try withMachines { machine in
      let device = try machine.device(on: path)
      let address = try device.pointee.map(try physical(0x12_3456, size: 0x2345), .toDevice)
      for offset in [UInt64(0), 0x1000, 0x2344] {
        let arrived = try arrival(of: address.rawValue + offset, .read, by: device)
        #expect(arrived == 0x12_3456 + offset)
      }
      let range = try dma(address.rawValue, size: 0x2345)
      try device.pointee.sync(range, .toDevice, forCPU: true)
      try device.pointee.unmap(range, .toDevice)
      if path.isTracked {
        #expect(throws: Divergence.self) {
          try arrival(of: address.rawValue, .read, by: device)
        }
      }
      #expect(device.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  @Test(arguments: Path.allCases.filter { !$0.isTranslated })
  func aDirectMappingHasThePhysicalAddress(_ path: Path) throws {
    try withMachines { machine in
      let device = try machine.device(on: path)
      let address = try device.pointee.map(try physical(0x12_3456, size: 1), .toDevice)
      #expect(address.rawValue == 0x12_3456)
      #expect(device.pointee.statistics.mappingCount == (path.isTracked ? 1 : 0))
      try device.pointee.unmap(try dma(0x12_3456, size: 1), .toDevice)
    }
  }

  @Test func aTranslatedMappingKeepsTheOffsetInThePage() throws {
    try withMachines { machine in
      let device = try machine.device(on: .translated)
      let address = try device.pointee.map(try physical(0xABC_DEF0, size: 0x200), .fromDevice)
      #expect(address.rawValue & 0xFFF == 0xEF0)
      // It crosses a page, so that its first and last page are mapped whole.
      let domain = try #require(device.pointee.mappings.describe(address.rawValue)?.record.domain)
      #expect(domain.pointee.statistics.iovaBytes == 0x2000)
      try device.pointee.unmap(try dma(address.rawValue, size: 0x200), .fromDevice)
    }
  }

  @Test(arguments: [Path.trackedDirect, .trackedIdentity, .translated])
  func aDeviceDoesOnlyWhatTheDirectionSays(_ path: Path) throws {
    try withMachines { machine in
      let device = try machine.device(on: path)
      for direction in [Direction.bidirectional, .toDevice, .fromDevice] {
        let address = try device.pointee.map(try physical(0x1000, size: 0x1000), direction)
        for access in [Access.read, .write, [.read, .write]] {
          let isPermitted = (try? arrival(of: address.rawValue, access, by: device)) != nil
          #expect(isPermitted == direction.access.isSuperset(of: access))
        }
        try device.pointee.unmap(try dma(address.rawValue, size: 0x1000), direction)
      }
    }
  }

  @Test func aBlockedDeviceMapsNothing() throws {
    try withMachines { machine in
      let device = try machine.device()
      let memory = try physical(0x1000, size: 1)
      #expect(throws: Failure.notPermitted) { try device.pointee.map(memory, .toDevice) }
      #expect(throws: Failure.notPermitted) { try device.pointee.allocateCoherent(size: 1) }
      // The refused calls are over, so that nothing keeps the device from a domain or from none.
      let domain = try machine.domain(.dma)
      try device.pointee.attach(domain)
      try device.pointee.detach(domain)
    }
  }

  @Test(arguments: Path.allCases)
  func aDeviceWithoutAMaskMapsNothing(_ path: Path) throws {
    try withMachines { machine in
      let device = try machine.device(on: path) { $0.streaming_mask = 0 }
      let memory = try physical(0x1000, size: 1)
      #expect(throws: Failure.noMask) { try device.pointee.map(memory, .toDevice) }
    }
  }

  @Test(arguments: Path.allCases)
  func memoryAboveTheMaskIsReachedByTranslationAlone(_ path: Path) throws {
    try withMachines { machine in
      let device = try machine.device(on: path) { $0.streaming_mask = 0xFFFF }
      let reached = try physical(0xF000, size: 0x1000)
      let address = try device.pointee.map(reached, .toDevice)
      try device.pointee.unmap(try dma(address.rawValue, size: 0x1000), .toDevice)
      let memory = try physical(0xF001, size: 0x1000)
      if path.isTranslated {
        let address = try device.pointee.map(memory, .toDevice)
        #expect(address.rawValue + 0xFFF <= 0xFFFF)
        try device.pointee.unmap(try dma(address.rawValue, size: 0x1000), .toDevice)
      } else {
        #expect(throws: Failure.outOfRange) { try device.pointee.map(memory, .toDevice) }
      }
      #expect(device.pointee.statistics.mappingCount == 0)
    }
  }

  @Test func aMappingForWhichThereAreNoTablesChangesNothing() throws {
    try withMachine { machine in
      let device = try machine.device(on: .translated)
      machine.tables.failAfter(0)
      let memory = try physical(0x1000, size: 0x1000)
      #expect(throws: Failure.noMemory) { try device.pointee.map(memory, .toDevice) }
      machine.tables.failAfter(nil)
      #expect(device.pointee.statistics.mapTotal == 0)
      let address = try device.pointee.map(memory, .toDevice)
      try device.pointee.unmap(try dma(address.rawValue, size: 0x1000), .toDevice)
    }
  }

  // MARK: - Records decide

  @Test(arguments: [Path.trackedDirect, .trackedIdentity, .translated])
  func undoingAsksNoMask(_ path: Path) throws {
    try withMachines { machine in
      let device = try machine.device(on: path)
      let address = try device.pointee.map(try physical(0x8000_0000, size: 0x1000), .toDevice)
      let coherent = try device.pointee.allocateCoherent(size: 1)
      for kind in [MappingRecord.Kind.streaming, .coherent] {
        #expect(device.pointee.mappings.beyond(0xFFF, kind).count == 1)
        try device.pointee.setMask(kind == .streaming ? .streaming : .coherent, to: 0)
      }
      let range = try dma(address.rawValue, size: 0x1000)
      try device.pointee.sync(range, .toDevice, forCPU: true)
      try device.pointee.unmap(range, .toDevice)
      try device.pointee.freeCoherent(coherent.cpu, coherent.address, size: 1)
      #expect(device.pointee.statistics.mappingCount == 0)
    }
  }

  @Test func aDomainThatRecordsNameStaysUntilTheyAreGone() throws {
    try withMachines { machine in
      let device = try machine.device()
      let (first, second) = (try machine.domain(.dma), try machine.domain(.identity))
      try device.pointee.attach(first)
      let address = try device.pointee.map(try physical(0x7000, size: 0x1000), .toDevice)
      #expect(throws: Failure.busy) { try device.pointee.detach(first) }
      #expect(throws: Failure.busy) { try device.pointee.attach(second) }
      try device.pointee.unmap(try dma(address.rawValue, size: 0x1000), .toDevice)
      try device.pointee.detach(first)
      try device.pointee.attach(second)
      #expect(try device.pointee.map(try physical(0x7000, size: 1), .toDevice).rawValue == 0x7000)
      // Coherent memory has a record even where mappings have none.
      let coherent = try device.pointee.allocateCoherent(size: 1)
      #expect(throws: Failure.busy) { try device.pointee.detach(second) }
      try device.pointee.freeCoherent(coherent.cpu, coherent.address, size: 1)
      try device.pointee.detach(second)
    }
  }

  @Test func anUnmapThatAPinOutlivesIsReported() throws {
    try withMachines { machine in
      let device = try machine.device(on: .trackedDirect)
      let address = try device.pointee.map(try physical(0x7000, size: 0x1000), .toDevice)
      let node = UnsafeMutablePointer<PinTable.Node>.allocate(capacity: 1)
      defer { node.deallocate() }
      node.initialize(to: PinTable.Node(first: 0x7FFF, last: 0x7FFF, payload: .pinned(.read)))
      #expect(device.pointee.pins.add(node) == true)
      device.pointee.pins.settle(node)
      let range = try dma(address.rawValue, size: 0x1000)
      try device.pointee.unmap(range, .toDevice)
      #expect(
        machine.reports.all == [
          Reports.Report(
            level: 1, error: 16, object: "device",
            text: "unmap of 4096 bytes at 0x7000: a zero-copy mapping of the device still holds a "
              + "part")
        ])
      // The pin is older than a mapping that is made now, so that nothing holds this one.
      _ = try device.pointee.map(try physical(0x7000, size: 0x1000), .toDevice)
      try device.pointee.unmap(range, .toDevice)
      #expect(machine.reports.all.count == 1)
      device.pointee.pins.remove(node)
    }
  }
}
