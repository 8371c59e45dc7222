// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

@Suite("Misuse of mappings")
struct MisuseTests {
  /// A tracked device that is mapped directly, so that addresses are known beforehand.
  private func misuse(
    _ expected: String, _ body: (borrowing Device) throws -> Void
  ) throws {
    try withMachines { machine in
      let device = try machine.device(on: .trackedDirect)
      #expect(throws: Failure.invalidArgument) { try body(device.pointee) }
      #expect(
        machine.reports.all == [
          Reports.Report(level: 0, error: 22, object: "device", text: expected)
        ])
    }
  }

  @Test func anUnmapOfNothingIsReported() throws {
    try misuse("unmap of 16 bytes at 0x1000 to the device: nothing is mapped there") { device in
      try device.unmap(try dma(0x1000, size: 16), .toDevice)
    }
  }

  @Test func anUnmapOfAPartNamesTheWhole() throws {
    try misuse(
      "unmap of 16 bytes at 0x1010 from the device: "
        + "a mapping of 256 bytes at 0x1000 from the device is there"
    ) { device in
      _ = try device.map(try physical(0x1000, size: 256), .fromDevice)
      try device.unmap(try dma(0x1010, size: 16), .fromDevice)
    }
  }

  @Test func anUnmapInAnotherDirectionNamesBoth() throws {
    try misuse(
      "unmap of 256 bytes at 0x1000 to the device: "
        + "a mapping of 256 bytes at 0x1000 in both directions is there"
    ) { device in
      _ = try device.map(try physical(0x1000, size: 256), .bidirectional)
      try device.unmap(try dma(0x1000, size: 256), .toDevice)
    }
  }

  @Test func aSecondUnmapFindsNothing() throws {
    try misuse("unmap of 1 bytes at 0x1000 to the device: nothing is mapped there") { device in
      let range = try dma(0x1000, size: 1)
      _ = try device.map(try physical(0x1000, size: 1), .toDevice)
      try device.unmap(range, .toDevice)
      try device.unmap(range, .toDevice)
    }
  }

  @Test func aSyncBehindTheEndOfAMappingIsReported() throws {
    try misuse(
      "sync of 257 bytes at 0x1000 to the device: "
        + "a mapping of 256 bytes at 0x1000 to the device is there"
    ) { device in
      _ = try device.map(try physical(0x1000, size: 256), .toDevice)
      try device.sync(try dma(0x1000, size: 257), .toDevice, forCPU: true)
    }
  }

  @Test func aFreeOfAMappingNamesTheMapping() throws {
    try misuse(
      "free of coherent memory of 4096 bytes at 0x1000: "
        + "a mapping of 4096 bytes at 0x1000 to the device is there"
    ) { device in
      _ = try device.map(try physical(0x1000, size: 4096), .toDevice)
      try withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { bytes in
        try device.freeCoherent(bytes.baseAddress!, DMAAddress(0x1000), size: 4096)
      }
    }
  }

  @Test func anUnmapOfCoherentMemoryNamesIt() throws {
    try withMachines { machine in
      let device = try machine.device(on: .direct) { $0.flags = 1 }
      let (cpu, address) = try device.pointee.allocateCoherent(size: 4096)
      #expect(throws: Failure.invalidArgument) {
        try device.pointee.unmap(try dma(address.rawValue, size: 4096), .bidirectional)
      }
      let place = hex(address.rawValue)
      #expect(
        machine.reports.all.map(\.text) == [
          "unmap of 4096 bytes at \(place) in both directions: "
            + "coherent memory of 4096 bytes at \(place) is there"
        ])
      try device.pointee.freeCoherent(cpu, address, size: 4096)
    }
  }

  @Test(arguments: [Path.direct, .identity])
  func whatLeavesNoRecordIsNotChecked(_ path: Path) throws {
    try withMachines { machine in
      let device = try machine.device(on: path)
      try device.pointee.unmap(try dma(0x1000, size: 1), .toDevice)
      try device.pointee.sync(try dma(0x1000, size: 1), .toDevice, forCPU: true)
      #expect(machine.reports.all == [])
    }
  }
}
