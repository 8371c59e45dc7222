// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Foundation
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

/// Mapping functions that threads call: they have each page at an address that nothing else has.
private final class Grants: @unchecked Sendable {
  private let lock = NSLock()
  private var next: UInt64 = 1 << 20
  private var live: [UInt64: UInt64] = [:]
  private var wrongs = 0

  var liveCount: Int { lock.withLock { live.count } }
  var wrongCount: Int { lock.withLock { wrongs } }

  static func from(_ opaque: UnsafeMutableRawPointer?) -> Grants {
    Unmanaged<Grants>.fromOpaque(opaque!).takeUnretainedValue()
  }

  private func map(_ mapping: dmacore_ops_mapping) -> UInt64 {
    lock.withLock {
      let address = next + mapping.phys % 4096
      next += (mapping.size + 0x2000) & ~0xFFF
      live[address] = mapping.phys
      return address
    }
  }

  private func look(_ mapping: dmacore_ops_mapping, isEnding: Bool) {
    lock.withLock {
      let target = isEnding ? live.removeValue(forKey: mapping.dma) : live[mapping.dma]
      if target != mapping.phys { wrongs += 1 }
    }
  }

  /// With a window for masks above 32 bits.
  static var ops: dmacore_mapping_ops {
    var ops = dmacore_mapping_ops()
    ops.struct_size = MemoryLayout<dmacore_mapping_ops>.size
    ops.flags = DMACORE_OPS_BYPASS.rawValue
    ops.map = { _, mapping, address, opaque in
      address!.pointee = Grants.from(opaque).map(mapping!.pointee)
      return 0
    }
    ops.unmap = { _, mapping, opaque in
      Grants.from(opaque).look(mapping!.pointee, isEnding: true)
    }
    ops.sync = { _, mapping, _, opaque in
      Grants.from(opaque).look(mapping!.pointee, isEnding: false)
      return 0
    }
    ops.supported = { _, _, mask, bypass, _ in
      bypass!.pointee.is_offered = mask > UInt64(UInt32.max) ? 1 : 0
      bypass!.pointee.offset = 1 << 59
      return 0
    }
    return ops
  }
}

private struct SharedDevice: @unchecked Sendable {
  let device: UnsafeMutablePointer<Device>
}

@Suite("Mapping functions on several threads")
struct MappingOpsTests {
  /// Where the device's record of an address leads.
  private static func target(
    of address: UInt64, _ device: UnsafeMutablePointer<Device>
  ) throws -> UInt64 {
    guard
      case .permitted(let first, _, let target, _) = device.pointee.mappings.permission(
        at: address, .write)
    else { throw Divergence("\(hex(address)) is not mapped") }
    return target + (address - first)
  }

  private static func work(
    _ device: UnsafeMutablePointer<Device>, thread: Int, _ generator: inout SeededGenerator
  ) throws {
    for step in 0..<RunSettings.steps(300) {
      let first = UInt64(thread + 1) << 32 + UInt64(generator.below(1 << 20))
      let size = UInt64(1 + generator.below(20_000))
      let address = try device.pointee.map(physical(first, size: size), .bidirectional)
      let range = try dma(address.rawValue, size: size)
      try demandSame(try target(of: range.last.rawValue, device), first + size - 1, "last byte")
      try device.pointee.sync(range, .bidirectional, forCPU: true)
      if step % 8 == 0 {
        let (cpu, queue) = try device.pointee.allocateCoherent(size: 4096)
        try demandSame(
          try target(of: queue.rawValue, device), UInt64(UInt(bitPattern: cpu)), "memory")
        try device.pointee.freeCoherent(cpu, queue, size: 4096)
      }
      try device.pointee.unmap(range, .bidirectional)
    }
  }

  @Test func threadsMapWhileTheMaskChanges() throws {
    let grants = Grants()
    try withExtendedLifetime(grants) {
      try withMachine { machine in
        let shared = SharedDevice(
          device: try withUnsafePointer(to: Grants.ops) { ops in
            try machine.device(behindIOMMU: false) { options in
              options.mapping_ops = ops
              options.mapping_ops_opaque = Unmanaged.passUnretained(grants).toOpaque()
            }
          })
        let seed = RunSettings.seed
        try onThreads(3) { thread in
          var generator = SeededGenerator(seed: seed &+ UInt64(thread))
          guard thread > 0 else {
            for step in 0..<RunSettings.steps(300) {
              let mask = step % 2 == 0 ? UInt64(UInt32.max) : UInt64.max
              try shared.device.pointee.setMask(
                step % 3 == 0 ? .streaming : [.streaming, .coherent], to: mask)
            }
            return
          }
          try Self.work(shared.device, thread: thread, &generator)
        }
        #expect(shared.device.pointee.statistics.mappingCount == 0)
        #expect(machine.reports.all == [])
      }
      #expect(grants.liveCount == 0)
      #expect(grants.wrongCount == 0)
    }
  }
}
