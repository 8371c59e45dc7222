// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Foundation
import MachineSupport
import Mapping
import Primitives
import Synchronization
import TestSupport
import Testing

/// Devices that several threads use.
private struct SharedDevices: @unchecked Sendable {
  let devices: [UnsafeMutablePointer<Device>]

  subscript(thread: Int) -> UnsafeMutablePointer<Device> { devices[thread % devices.count] }
}

private final class Tally: Sendable {
  let count = Atomic<Int>(0)

  func note() { count.add(1, ordering: .relaxed) }
}

@Suite("Mapping on several threads")
struct MappingConcurrencyTests {
  /// Maps and unmaps memory of the thread's own, and looks where each mapping leads.
  private static func work(
    _ device: UnsafeMutablePointer<Device>, thread: Int, seed: UInt64
  ) throws {
    var generator = SeededGenerator(seed: seed &+ UInt64(thread))
    var live: [(address: UInt64, memory: PhysicalRange)] = []
    for _ in 0..<RunSettings.steps(400) {
      if live.count < 6, generator.onceIn(2) {
        let first = UInt64(thread + 1) << 32 + UInt64(generator.below(1 << 20))
        let memory = try physical(first, size: UInt64(1 + generator.below(20_000)))
        live.append((try device.pointee.map(memory, .bidirectional).rawValue, memory))
      } else if !live.isEmpty {
        let (address, memory) = live.remove(at: generator.below(live.count))
        let range = try dma(address, size: memory.extent + 1)
        try demandSame(
          try arrival(of: range.first.rawValue, .write, by: device), memory.first.rawValue,
          "first byte")
        try demandSame(
          try arrival(of: range.last.rawValue, .read, by: device), memory.last.rawValue,
          "last byte")
        try device.pointee.sync(range, .bidirectional, forCPU: true)
        try device.pointee.unmap(range, .bidirectional)
      }
    }
    for (address, memory) in live {
      try device.pointee.unmap(try dma(address, size: memory.extent + 1), .bidirectional)
    }
  }

  @Test(arguments: [Path.trackedDirect, .trackedIdentity, .translated])
  func threadsMapForOneDevice(_ path: Path) throws {
    try withMachines { machine in
      let shared = SharedDevices(devices: [try machine.device(on: path)])
      let seed = RunSettings.seed
      try onThreads(3) { try Self.work(shared[$0], thread: $0, seed: seed) }
      #expect(shared[0].pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  @Test func threadsMapForDevicesOfOneDomain() throws {
    try withMachines { machine in
      let domain = try machine.domain(.dma)
      let shared = SharedDevices(devices: try (0..<3).map { _ in try machine.device() })
      for device in shared.devices { try device.pointee.attach(domain) }
      let seed = RunSettings.seed
      try onThreads(3) { try Self.work(shared[$0], thread: $0, seed: seed) }
      #expect(domain.pointee.statistics.mappingCount == 0)
      #expect(domain.pointee.statistics.mappedBytes == 0)
      #expect(machine.reports.all == [])
    }
  }

  @Test(arguments: Path.allCases)
  func coherentMemoryIsNeverRefusedToThreads(_ path: Path) throws {
    try withMachines { machine in
      let shared = SharedDevices(devices: [try machine.device(on: path)])
      try onThreads(3) { thread in
        for step in 0..<RunSettings.steps(200) {
          let size = UInt64(1 + (thread + step) % 3) << 12
          let (cpu, address) = try shared[0].pointee.allocateCoherent(size: size)
          try demandSame(cpu.load(as: UInt64.self), 0, "first word")
          cpu.storeBytes(of: UInt64(thread + 1), as: UInt64.self)
          let arrived = try arrival(of: address.rawValue, .read, by: shared[0])
          try demandSame(arrived, UInt64(UInt(bitPattern: cpu)), "place of the memory")
          try demandSame(cpu.load(as: UInt64.self), UInt64(thread + 1), "own word")
          try shared[0].pointee.freeCoherent(cpu, address, size: size)
        }
      }
      #expect(machine.memory.liveCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  /// An address that goes from one thread to another, 0 for none.
  private final class Hand: Sendable {
    let address = Atomic<UInt64>(0)
  }

  // One thread maps and another unmaps, so that processors count more in than out, and out than in.
  @Test func aMappingThatLivesIsFoundWhileOthersComeAndGo() throws {
    try withMachines { machine in
      let shared = SharedDevices(devices: [try machine.device(on: .translated)])
      let memory = try physical(1 << 32, size: 4096)
      let range = try dma(shared[0].pointee.map(memory, .toDevice).rawValue, size: 4096)
      let (hand, flag) = (Hand(), Flag())
      try onThreads(3) { thread in
        let device = shared[0]
        switch thread {
        case 0:
          defer { flag.set() }
          for _ in 0..<RunSettings.steps(20_000) {
            try device.pointee.sync(range, .toDevice, forCPU: false)
          }
        case 1:
          while !flag.isSet {
            guard hand.address.load(ordering: .relaxed) == 0 else { continue }
            let address = try device.pointee.map(memory, .bidirectional).rawValue
            hand.address.store(address, ordering: .releasing)
          }
        default:
          while true {
            let isLast = flag.isSet
            let address = hand.address.load(ordering: .acquiring)
            if address != 0 {
              try device.pointee.unmap(dma(address, size: 4096), .bidirectional)
              hand.address.store(0, ordering: .releasing)
            } else if isLast {
              return
            }
          }
        }
      }
      let left = hand.address.load(ordering: .relaxed)
      if left != 0 { try shared[0].pointee.unmap(dma(left, size: 4096), .bidirectional) }
      try shared[0].pointee.unmap(range, .toDevice)
      #expect(shared[0].pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  @Test func ofThreadsThatUnmapOneMappingOneSucceeds() throws {
    try withMachines { machine in
      let shared = SharedDevices(devices: [try machine.device(on: .translated)])
      for _ in 0..<50 {
        let address = try shared[0].pointee.map(try physical(0x1000, size: 4096), .toDevice)
        let range = try dma(address.rawValue, size: 4096)
        let succeeded = Tally()
        try onThreads(3) { _ in
          do throws(Failure) {
            try shared[0].pointee.unmap(range, .toDevice)
            succeeded.note()
          } catch {
            try demandSame(error, .invalidArgument, "why it is not unmapped")
          }
        }
        #expect(succeeded.count.load(ordering: .relaxed) == 1)
      }
    }
  }

  /// Of a page whose address was at hand, too: nothing is waited for in a section of calls.
  @Test func anUnmapWaitsForAccessesThatAreInFlight() throws {
    try withMachines { machine in
      let shared = SharedDevices(devices: [try machine.device(on: .translated)])
      let memory = try physical(0x1000, size: 4096)
      for _ in 0..<3 {
        let address = try shared[0].pointee.map(memory, .toDevice)
        let range = try dma(address.rawValue, size: 4096)
        let step = Atomic<Int>(0)
        try onThreads(2) { thread in
          if thread == 0 {
            let readers = shared[0].pointee.system
            let token = readers.pointee.readers.enter()
            step.store(1, ordering: .relaxed)
            Thread.sleep(forTimeInterval: 0.02)
            step.store(2, ordering: .relaxed)
            readers.pointee.readers.leave(token)
          } else {
            while step.load(ordering: .relaxed) == 0 { sched_yield() }
            try shared[0].pointee.unmap(range, .toDevice)
            try demandSame(step.load(ordering: .relaxed), 2, "step of the access")
          }
        }
      }
    }
  }

  @Test func aDomainNeverChangesUnderAMapping() throws {
    try withMachines { machine in
      let domains = SharedDomains(
        domains: [try machine.domain(.dma), try machine.domain(.identity)])
      let shared = SharedDevices(devices: [try machine.device { $0.flags = 1 }])
      let isOver = Flag()
      try onThreads(3) { thread in
        guard thread > 0 else {
          for step in 0..<RunSettings.steps(200) {
            let domain = domains.domains[step % 2]
            try shared[0].pointee.attach(domain)
            while true {
              do throws(Failure) {
                try shared[0].pointee.detach(domain)
                break
              } catch { try demandSame(error, .busy, "why the domain stays") }
            }
          }
          isOver.set()
          return
        }
        let first = UInt64(thread) << 20
        while !isOver.isSet {
          do throws(Failure) {
            let memory = try PhysicalRange(first: PhysicalAddress(first), size: 4096)
            let address = try shared[0].pointee.map(memory, .toDevice)
            let range = try DMARange(first: address, size: 4096)
            try shared[0].pointee.sync(range, .toDevice, forCPU: true)
            try shared[0].pointee.unmap(range, .toDevice)
          } catch {
            try demandSame(error, .notPermitted, "why nothing is mapped")
          }
        }
      }
      #expect(shared[0].pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
      for domain in domains.domains {
        #expect(domain.pointee.statistics.deviceCount == 0)
        #expect(domain.pointee.statistics.mappedBytes == 0)
      }
    }
  }
}

/// Domains that several threads use.
private struct SharedDomains: @unchecked Sendable {
  let domains: [UnsafeMutablePointer<Domain>]
}
