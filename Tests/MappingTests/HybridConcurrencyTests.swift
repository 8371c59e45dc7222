// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import MemoryMap
import Primitives
import TestSupport
import Testing

@Suite("Hybrid domains on several threads")
struct HybridConcurrencyTests {
  private static let bankSize = 16 * 4096

  /// Memory at multiples of 4 GiB.
  private static func bank(_ index: Int) throws -> PhysicalRange {
    try physical(UInt64(index + 1) << 32, size: UInt64(bankSize))
  }

  private struct Stage: @unchecked Sendable {
    let machine: Machine
    let memory: UnsafeMutableRawPointer
    let domain: UnsafeMutablePointer<Domain>
    let device: UnsafeMutablePointer<Device>

    func add(_ index: Int) throws {
      let host = memory + index * HybridConcurrencyTests.bankSize
      try machine.system.pointee.add(
        try MemoryRegionDescription(range: bank(index), isReadOnly: false, backing: .host(host)))
    }

    /// Where an address leads, whatever path it was made on.
    func check(_ address: UInt64, leadsTo memory: UInt64) throws {
      try demandSame(try arrival(of: address, .write, by: device), memory, "where it leads")
    }

    /// Maps memory of banks that stay, and unmaps it in another order.
    func work(_ thread: Int, _ seed: UInt64) throws {
      var generator = SeededGenerator(seed: seed &+ UInt64(thread))
      var live: [(address: UInt64, memory: PhysicalRange)] = []
      for _ in 0..<RunSettings.steps(4000) {
        if live.count < 6, generator.onceIn(2) {
          let offset = UInt64(generator.below(8 * 4096))
          let memory = try physical(
            bank(generator.below(2)).first.rawValue + offset,
            size: UInt64(1 + generator.below(3 * 4096)))
          live.append((try device.pointee.map(memory, .bidirectional).rawValue, memory))
        } else if !live.isEmpty {
          let (address, memory) = live.remove(at: generator.below(live.count))
          try check(address, leadsTo: memory.first.rawValue)
          try check(address + memory.extent, leadsTo: memory.last.rawValue)
          let range = try dma(address, size: memory.extent + 1)
          try device.pointee.sync(range, .bidirectional, forCPU: true)
          try device.pointee.unmap(range, .bidirectional)
        }
      }
      for (address, memory) in live {
        try check(address, leadsTo: memory.first.rawValue)
        try device.pointee.unmap(try dma(address, size: memory.extent + 1), .bidirectional)
      }
    }
  }

  @Test(arguments: [false, true])
  func noMappingIsLostWhileBypassAndMemoryComeAndGo(isTracked: Bool) throws {
    try withMachine(isFlat: false) { machine in
      let memory = UnsafeMutableRawPointer.allocate(
        byteCount: 3 * Self.bankSize, alignment: 4096)
      defer { memory.deallocate() }
      let stage = Stage(
        machine: machine, memory: memory, domain: try machine.domain(.hybrid),
        device: try machine.device { options in
          if isTracked { options.flags = UInt32(DMACORE_DEVICE_TRACK_DIRECT.rawValue) }
        })
      for bank in 0..<2 { try stage.add(bank) }
      try stage.device.pointee.attach(stage.domain)
      let (seed, flag) = (RunSettings.seed, Flag())
      try onThreads(4) { thread in
        switch thread {
        case 0:
          defer { flag.set() }
          try stage.work(thread, seed)
        case 1: try stage.work(thread, seed)
        case 2:
          var isOn = false
          while !flag.isSet {
            try stage.domain.pointee.setBypass(isOn)
            isOn.toggle()
          }
        default:
          while !flag.isSet {
            try stage.add(2)
            try machine.system.pointee.remove(Self.bank(2))
          }
        }
      }
      #expect(stage.device.pointee.statistics.mappingCount == 0)
      // The window's leftovers go with the last mapping, and all of it comes back.
      try stage.domain.pointee.setBypass(false)
      #expect(stage.domain.pointee.statistics.mappedBytes == 0)
      try stage.domain.pointee.setBypass(true)
      for bank in 0..<2 { #expect(stage.domain.pointee.isInWindow(try Self.bank(bank))) }
      #expect(machine.reports.all == [])
      for bank in 0..<2 { try machine.system.pointee.remove(Self.bank(bank)) }
    }
  }
}
