// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import MachineSupport
import PageTables
import Primitives
import TestSupport
import Testing

@testable import Domains

@Suite("Device")
struct DeviceTests {
  // MARK: - Making

  @Test func aNameIsCutNowhereAndRefusedWhenTooLong() throws {
    try withMachine { machine in
      let longest = String(repeating: "n", count: Int(DMACORE_DEVICE_NAME_SIZE) - 1)
      let device = try longest.withCString { name in try machine.device { $0.name = name } }
      #expect(String(cString: device.pointee.name) == longest)
      #expect(throws: Failure.invalidArgument) {
        try (longest + "n").withCString { name in try machine.device { $0.name = name } }
      }
      #expect(String(cString: try machine.device().pointee.name) == "device")
    }
  }

  @Test func aRingOfMoreThan65536FaultsIsRefused() throws {
    try withMachine { machine in
      _ = try machine.device { $0.fault_capacity = 65536 }
      #expect(throws: Failure.invalidArgument) {
        try machine.device { $0.fault_capacity = 65537 }
      }
    }
  }

  @Test func anIOMMUOfAnotherSystemIsRefused() throws {
    try withMachine { machine in
      try withMachine { other in
        #expect(throws: Failure.invalidArgument) {
          try DeviceDescription(
            dmacore_device_options(), iommu: other.iommu, system: machine.system)
        }
      }
    }
  }

  // MARK: - Limits

  @Test func aLimitIsTheMaskOfItsKindAndTheBus() throws {
    try withMachine { machine in
      let device = try machine.device { options in
        options.streaming_mask = 0xFFFF_FFFF
        options.coherent_mask = 0xFF_FFFF
        options.bus_limit = 0xFFF_FFFF
      }
      #expect(try device.pointee.limit(for: .streaming).highest == 0xFFF_FFFF)
      #expect(try device.pointee.limit(for: .coherent).highest == 0xFF_FFFF)
      device.pointee.set(.coherent, to: 0)
      #expect(throws: Failure.noMask) { try device.pointee.limit(for: .coherent) }
      device.pointee.set(.streaming, to: 0xFFFF)
      #expect(try device.pointee.limit(for: .streaming).highest == 0xFFFF)
    }
  }

  // MARK: - Attachment

  /// The path of a device in a word.
  private func path(_ device: UnsafeMutablePointer<Device>) -> String {
    switch device.pointee.currentPath {
    case .direct: "direct"
    case .translated: "translated"
    case .blocked: "blocked"
    case .nested: "nested"
    }
  }

  @Test func aDevicesPathFollowsFromItsIOMMUAndItsDomain() throws {
    try withMachine { machine in
      let free = try machine.device(behindIOMMU: false)
      #expect(path(free) == "direct")
      let device = try machine.device()
      #expect(path(device) == "blocked")
      for (kind, expected) in [(Domain.Kind.dma, "translated"), (.identity, "direct")] {
        let domain = try machine.domain(kind)
        try device.pointee.attach(domain)
        #expect(path(device) == expected)
        try device.pointee.detach(domain)
        #expect(path(device) == "blocked")
      }
    }
  }

  @Test func aDomainOfAnotherIOMMUIsRefused() throws {
    try withMachine { machine in
      try withMachine { other in
        let domain = try other.domain(.dma)
        let device = try machine.device()
        #expect(throws: Failure.invalidArgument) { try device.pointee.attach(domain) }
        #expect(!Box.isShared(domain))
        let free = try machine.device(behindIOMMU: false)
        #expect(throws: Failure.invalidArgument) { try free.pointee.attach(domain) }
      }
    }
  }

  @Test func attachedDevicesAreCountedAndHoldTheDomain() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let devices = [try machine.device(), try machine.device()]
      for device in devices { try device.pointee.attach(domain) }
      #expect(domain.pointee.statistics.deviceCount == 2)
      #expect(Box.isShared(domain))
      #expect(throws: Failure.busy) { try devices[0].pointee.attach(domain) }
      #expect(domain.pointee.statistics.deviceCount == 2)
      for device in devices { try device.pointee.detach(domain) }
      #expect(throws: Failure.invalidArgument) { try devices[0].pointee.detach(domain) }
      #expect(domain.pointee.statistics.deviceCount == 0)
      #expect(!Box.isShared(domain))
    }
  }

  // MARK: - Lifetime

  @Test func objectsLiveUntilTheLastThatWasMadeFromThemEnds() throws {
    let tables = TablePages()
    let system = try Box<System>.place { () throws(Failure) in
      try System(
        isFlat: true, reporter: Reporter(callback: nil, opaque: nil), allocator: nil)
    }
    let iommu = try Box<IOMMU>.place { () throws(Failure) in
      try IOMMU(
        system: system,
        IOMMUDescription(
          try PageTableConfiguration(
            kind: .vtdSecondStage, allocator: tables.allocator)))
    }
    let domain = try Box<Domain>.place { () throws(Failure) in
      try Domain(iommu: iommu, DomainDescription(.dma))
    }
    let description = try DeviceDescription(
      dmacore_device_options(), iommu: iommu, system: system)
    let device = try Device.place(system: system, description)
    try device.pointee.attach(domain)
    for isShared in [Box.isShared(system), Box.isShared(iommu), Box.isShared(domain)] {
      #expect(isShared)
    }
    Box.letGo(system)
    Box.letGo(iommu)
    Box.letGo(domain)
    #expect(tables.liveCount == 1)
    #expect(domain.pointee.statistics.tableCount == 1)
    Device.close(device)
    #expect(tables.liveCount == 0)
    Box.letGo(device)
    #expect(tables.misuses == [])
  }

  // MARK: - Closing

  /// Maps a page of memory for a device in a domain, as a mapping call does.
  private func map(
    _ device: UnsafeMutablePointer<Device>, at physicalFirst: UInt64,
    memory: Allocation.Link? = nil
  ) throws -> IOVARange {
    let (cell, domain) = try device.pointee.mappings.take()
    let translation = domain!.pointee.translation!
    let stamp = domain!.pointee.pins.stamp
    let range = try translation.pointee.map(
      try physical(physicalFirst, size: 4096), access: .read, limit: UInt64.max, in: DMARanges())
    let record = MappingRecord(
      kind: memory == nil ? .streaming : .coherent, path: .iommu, direction: .toDevice,
      domain: domain, memory: memory, stamp: stamp)
    device.pointee.mappings.insert(cell, try dma(range.first.rawValue, size: 4096), record)
    return range
  }

  @Test func closingUnmapsWhatIsLeftAndReportsIt() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let device = try machine.device()
      try device.pointee.attach(domain)
      for page in UInt64(1)...3 { _ = try map(device, at: page << 12) }
      let memory = try machine.system.pointee.allocateMemory(size: 4096, limit: UInt64.max)
      _ = try map(device, at: memory.pointee.segments.pointee.phys, memory: memory)
      Device.close(device)
      #expect(domain.pointee.statistics.mappingCount == 0)
      #expect(domain.pointee.statistics.mappedBytes == 0)
      #expect(domain.pointee.statistics.deviceCount == 0)
      #expect(machine.memory.liveCount == 0)
      #expect(
        machine.reports.all == [
          Reports.Report(
            level: 1, error: 16, object: "device",
            text: "destroyed with 4 live mappings of 16384 bytes, which are unmapped now")
        ])
    }
  }

  @Test func oneMappingIsReportedAsOne() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let device = try machine.device()
      try device.pointee.attach(domain)
      _ = try map(device, at: 4096)
      Device.close(device)
      #expect(
        machine.reports.all.map(\.text) == [
          "destroyed with 1 live mapping of 4096 bytes, which are unmapped now"
        ])
    }
  }

  @Test func memoryThatAZeroCopyMappingHoldsIsNeverFreed() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let device = try machine.device()
      try device.pointee.attach(domain)
      let memory = try machine.system.pointee.allocateMemory(size: 4096, limit: UInt64.max)
      let host = memory.pointee.segments.pointee.cpu
      let range = try map(device, at: memory.pointee.segments.pointee.phys, memory: memory)
      let node = UnsafeMutablePointer<PinTable.Node>.allocate(capacity: 1)
      defer { node.deallocate() }
      let first = range.first.rawValue
      node.initialize(to: PinTable.Node(first: first, last: first, payload: .pinned(.read)))
      #expect(domain.pointee.pins.add(node) == true)
      Device.close(device)
      #expect(machine.memory.liveCount == 1)
      #expect(
        machine.reports.all.map(\.text) == [
          "destroyed with 1 live mapping of 4096 bytes, which are unmapped now; a zero-copy "
            + "mapping holds coherent memory among them, and 4096 bytes are never freed"
        ])
      domain.pointee.pins.remove(node)
      let allocator = machine.memory.allocator
      allocator.free(host, 4096, allocator.opaque)
    }
  }

  @Test func closingADeviceThatHasNothingMappedIsSilent() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let device = try machine.device()
      try device.pointee.attach(domain)
      Device.close(device)
      Device.close(device)
      #expect(machine.reports.all == [])
      #expect(domain.pointee.statistics.deviceCount == 0)
    }
  }
}
