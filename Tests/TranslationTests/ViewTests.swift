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

@Suite("View")
struct ViewTests {
  private static let page = UInt64(Pages.size)

  /// A device behind a DMA domain.
  private func translatedDevice(_ machine: Machine) throws -> UnsafeMutablePointer<Device> {
    let device = try machine.device()
    try device.pointee.attach(machine.domain(.dma))
    return device
  }

  private func trackedDevice(_ machine: Machine) throws -> UnsafeMutablePointer<Device> {
    try machine.device(behindIOMMU: false) { options in
      options.flags = UInt32(DMACORE_DEVICE_TRACK_DIRECT.rawValue)
    }
  }

  @Test func anAccessGoesFromPageToPageWhereverTheyLie() throws {
    try withMachine { machine in
      let device = try translatedDevice(machine)
      let pages = Pages(count: 3)
      // Allocation goes down, so that page 2 lies above page 0 for the device.
      let high = try device.pointee.map(pages.range(2), .bidirectional)
      let low = try device.pointee.map(pages.range(0), .bidirectional)
      #expect(low.rawValue + Self.page == high.rawValue)
      let bytes = (0..<100).map { UInt8($0) }
      let across = try dma(high.rawValue - 50, size: 100)
      try withView(of: device) { view in
        try view.pointee.write(across, from: bytes)
        #expect(pages.page(0).load(fromByteOffset: 4095, as: UInt8.self) == 49)
        #expect(pages.page(2).load(as: UInt8.self) == 50)
        #expect(pages.page(1).load(as: UInt8.self) == 0)
        var read = [UInt8](repeating: 0, count: 100)
        try view.pointee.read(across, into: &read)
        #expect(read == bytes)
      }
    }
  }

  @Test func aRefusedAccessMovesNoByteAndNamesItsRange() throws {
    try withMachine { machine in
      let device = try translatedDevice(machine)
      let pages = Pages(count: 2)
      let high = try device.pointee.map(pages.range(0), .toDevice).rawValue
      let low = try device.pointee.map(pages.range(1), .bidirectional).rawValue
      let ones = [UInt8](repeating: 1, count: 2 * Pages.size)
      try withView(of: device) { view in
        let range = try dma(low, size: 2 * Self.page)
        #expect(failure { try view.pointee.write(range, from: ones) } == .accessDenied)
        #expect(pages.page(1).load(as: UInt8.self) == 0)
        let faults = takeFaults(device)
        #expect(faults.count == 1)
        #expect(faults[0].first == high)
        #expect(faults[0].last == high + Self.page - 1)
        #expect(faults[0].reason == FaultReason.denied.rawValue)
        #expect(faults[0].access == Access.write.rawValue)
      }
    }
  }

  @Test func aMissIsOneFaultHoweverManyPagesItCovers() throws {
    try withMachine { machine in
      let device = try translatedDevice(machine)
      let bytes = [UInt8](repeating: 0, count: 10 * Pages.size)
      try withView(of: device) { view in
        let range = try dma(0x10_0800, size: 9 * Self.page)
        #expect(failure { try view.pointee.write(range, from: bytes) } == .notFound)
        let faults = takeFaults(device)
        #expect(faults.map(\.first) == [range.first.rawValue])
        #expect(faults.map(\.last) == [range.last.rawValue])
      }
    }
  }

  @Test func lookingForTheEndOfAFaultIsBounded() throws {
    try withMachine { machine in
      let device = try translatedDevice(machine)
      let pages = Pages(count: 1)
      // 4096 separate leaves that may only be read.
      var last: UInt64 = 0
      for _ in 0..<4096 {
        let address = try device.pointee.map(pages.range(0), .toDevice).rawValue
        if last == 0 { last = address + Self.page - 1 }
      }
      let first = last - 4096 * Self.page + 1
      let bytes = [UInt8](repeating: 0, count: 4096 * Pages.size)
      try withView(of: device) { view in
        let range = try dma(first, size: 4096 * Self.page)
        #expect(failure { try view.pointee.write(range, from: bytes) } == .accessDenied)
        let fault = try #require(takeFaults(device).first)
        #expect(fault.first == first)
        #expect(fault.last >= first + 64 * Self.page - 1)
        #expect(fault.last < last)
      }
      Device.close(device)
    }
  }

  @Test func aBlockedDeviceReachesNothing() throws {
    try withMachine { machine in
      let device = try machine.device()
      var byte: UInt8 = 0
      try withView(of: device) { view in
        #expect(
          failure { try view.pointee.read(dma(0x1000, size: 1), into: &byte) } == .notPermitted)
        #expect(takeFaults(device).map(\.reason) == [FaultReason.blocked.rawValue])
        #expect(failure { _ = try view.pointee.translate(DMAAddress(0), []) } == .notPermitted)
        #expect(takeFaults(device).isEmpty)
      }
    }
  }

  @Test func aTrackedDeviceReachesWhatIsMappedForItByteForByte() throws {
    try withMachine { machine in
      let device = try trackedDevice(machine)
      let pages = Pages(count: 1)
      let first = try pages.range(0).first.rawValue
      let buffer = try physical(first + 8, size: 16)
      let address = try device.pointee.map(buffer, .fromDevice)
      #expect(address.rawValue == first + 8)
      let bytes = [UInt8](repeating: 7, count: 17)
      try withView(of: device) { view in
        try view.pointee.write(dma(first + 8, size: 16), from: bytes)
        #expect(
          failure { try view.pointee.write(dma(first + 8, size: 17), from: bytes) } == .notFound)
        #expect(
          failure { try view.pointee.write(dma(first + 7, size: 2), from: bytes) } == .notFound)
        var byte: UInt8 = 0
        #expect(
          failure { try view.pointee.read(dma(first + 8, size: 1), into: &byte) } == .accessDenied)
        let found = try view.pointee.translate(DMAAddress(first + 10), .write)
        #expect(found.first == first + 8 && found.last == first + 23)
      }
      #expect(pages.page(0).load(fromByteOffset: 23, as: UInt8.self) == 7)
      #expect(pages.page(0).load(fromByteOffset: 24, as: UInt8.self) == 0)
      try device.pointee.unmap(dma(address.rawValue, size: 16), .fromDevice)
    }
  }

  @Test func aFlatMemoryWithoutRecordsIsTranslatedAndNotTouched() throws {
    try withMachine { machine in
      let device = try machine.device(behindIOMMU: false)
      var byte: UInt8 = 0
      try withView(of: device) { view in
        let found = try view.pointee.translate(DMAAddress(0x1234), .write)
        #expect(found.first == 0 && found.last == UInt64.max && found.target == 0)
        #expect(
          failure { try view.pointee.read(dma(0x1234, size: 1), into: &byte) } == .notSupported)
        #expect(takeFaults(device).isEmpty)
      }
    }
  }
}
