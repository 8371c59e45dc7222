// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

@Suite("Device.allocateCoherent")
struct CoherentTests {
  @Test(arguments: Path.allCases)
  func theDeviceAndTheCPUShareZeroedPages(_ path: Path) throws {
    try withMachine { machine in
      let device = try machine.device(on: path)
      let (cpu, address) = try device.pointee.allocateCoherent(size: 5000)
      #expect(address.rawValue & 0xFFF == 0)
      for offset in [0, 4095, 4096, 8191] {
        #expect(cpu.load(fromByteOffset: offset, as: UInt8.self) == 0)
        let arrived = try arrival(
          of: address.rawValue + UInt64(offset), [.read, .write], by: device)
        #expect(arrived == UInt64(UInt(bitPattern: cpu + offset)))
      }
      #expect(device.pointee.statistics.mappingBytes == 8192)
      try device.pointee.freeCoherent(cpu, address, size: 5000)
      #expect(machine.memory.liveCount == 0)
      #expect(device.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  @Test(arguments: [0, UInt64.max])
  func aSizeThatIsNoNumberOfPagesIsInvalid(_ size: UInt64) throws {
    try withMachine { machine in
      let device = try machine.device(on: .direct)
      #expect(throws: Failure.invalidArgument) {
        try device.pointee.allocateCoherent(size: size)
      }
    }
  }

  @Test(arguments: Path.allCases)
  func memoryThatTheDeviceCannotReachGoesBackToItsAllocator(_ path: Path) throws {
    try withMachine { machine in
      // Under a mask of a page there is no IOVA, and no memory of a process either.
      let device = try machine.device(on: path) { $0.coherent_mask = 0xFFF }
      #expect(throws: Failure.outOfRange) { try device.pointee.allocateCoherent(size: 1) }
      #expect(machine.memory.liveCount == 0)
      try device.pointee.setMask(.coherent, to: 0)
      #expect(throws: Failure.noMask) { try device.pointee.allocateCoherent(size: 1) }
      #expect(device.pointee.statistics.mappingCount == 0)
    }
  }

  @Test(arguments: Path.allCases)
  func anAllocationIsFreedByItsPointerItsAddressAndItsSize(_ path: Path) throws {
    try withMachine { machine in
      let device = try machine.device(on: path)
      let (cpu, address) = try device.pointee.allocateCoherent(size: 4096)
      let next = DMAAddress(address.rawValue + 4096)
      #expect(throws: Failure.invalidArgument) {
        try device.pointee.freeCoherent(cpu + 1, address, size: 4096)
      }
      #expect(throws: Failure.invalidArgument) {
        try device.pointee.freeCoherent(cpu, next, size: 4096)
      }
      #expect(throws: Failure.invalidArgument) {
        try device.pointee.freeCoherent(cpu, address, size: 4097)
      }
      #expect(machine.reports.all.count == 3)
      // One byte is rounded up to the page that was allocated.
      try device.pointee.freeCoherent(cpu, address, size: 1)
      #expect(throws: Failure.invalidArgument) {
        try device.pointee.freeCoherent(cpu, address, size: 1)
      }
    }
  }

  @Test(arguments: [Path.direct, .identity, .translated])
  func memoryThatIsPinnedIsNotFreed(_ path: Path) throws {
    try withMachine { machine in
      let device = try machine.device(on: path)
      let (cpu, address) = try device.pointee.allocateCoherent(size: 4096)
      let record = try #require(device.pointee.mappings.describe(address.rawValue)?.record)
      let node = UnsafeMutablePointer<PinTable.Node>.allocate(capacity: 1)
      defer { node.deallocate() }
      let last = address.rawValue + 4095
      node.initialize(to: PinTable.Node(first: last, last: last, payload: .pinned(.read)))
      device.pointee.withPins(of: record.domain) { pins in
        #expect(pins.add(node) == true)
        pins.settle(node)
      }
      #expect(throws: Failure.busy) {
        try device.pointee.freeCoherent(cpu, address, size: 4096)
      }
      #expect(device.pointee.statistics.mappingCount == 1)
      device.pointee.withPins(of: record.domain) { $0.remove(node) }
      try device.pointee.freeCoherent(cpu, address, size: 4096)
      #expect(machine.reports.all == [])
    }
  }
}
