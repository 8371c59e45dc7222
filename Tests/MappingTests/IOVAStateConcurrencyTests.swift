// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import Foundation
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

private struct Shared: @unchecked Sendable {
  let domain: UnsafeMutablePointer<Domain>
  let device: UnsafeMutablePointer<Device>
}

@Suite("Two-step mapping on several threads")
struct IOVAStateConcurrencyTests {
  private static let pages: UInt64 = 6

  /// Reserves a range, links pages of memory into it, and ends all of that again.
  private static func use(
    _ device: UnsafeMutablePointer<Device>, thread: Int, _ generator: inout SeededGenerator
  ) throws {
    let state = UnsafeMutablePointer<IOVAState>.allocate(capacity: 1)
    defer { state.deallocate() }
    memset(state, 0, MemoryLayout<IOVAState>.size)
    let base = UInt64(thread + 1) << 32
    let links: UInt32 = generator.onceIn(2) ? 2 : 0
    try Device.reserve(
      device, base, pages << 12,
      IOVAStateReserves(links: links, spares: 0, hasTables: generator.onceIn(2)), state)
    let address = state.pointee.address
    for page in 0..<pages where !generator.onceIn(3) {
      let memory = try physical(base + (page << 20), size: 4096)
      try device.pointee.link(state, page << 12, memory, .bidirectional, [])
      try device.pointee.sync(state, page << 12, 4096)
      try demandSame(
        try arrival(of: address + page << 12, .read, by: device), memory.first.rawValue,
        "where page \(page) of thread \(thread) leads")
      if generator.onceIn(2) {
        try device.pointee.sync(state, page << 12, 4096, forCPU: true)
        try device.pointee.unlink(state, page << 12, 4096)
      }
    }
    try Device.free(state, "a destroy", endingLinks: true)
  }

  /// Strict and lazy by turns, beside single mappings, and ticks.
  @Test func statesOfADeviceAreOfNoOtherThreadsConcern() throws {
    try withMachines { machine in
      let domain = try machine.domain(.dma, isLazy: true)
      let shared = Shared(domain: domain, device: try machine.device())
      try shared.device.pointee.attach(domain)
      let (seed, isOver) = (RunSettings.seed, Flag())
      try onThreads(4) { thread in
        var generator = SeededGenerator(seed: seed &+ UInt64(thread))
        switch thread {
        case 0:
          var now: UInt64 = 0
          while !isOver.isSet {
            machine.system.pointee.tick(now)
            now += 5_000_000
            try shared.domain.pointee.setLazy(generator.onceIn(2))
          }
        case 1:
          while !isOver.isSet {
            let address = try shared.device.pointee.map(physical(1 << 40, size: 4096), .toDevice)
            try shared.device.pointee.unmap(dma(address.rawValue, size: 4096), .toDevice)
          }
        default:
          defer { if thread == 2 { isOver.set() } }
          var step = 0
          while thread == 2 ? step < RunSettings.steps(600) : !isOver.isSet {
            try Self.use(shared.device, thread: thread, &generator)
            step += 1
          }
        }
      }
      try domain.pointee.setLazy(false)
      #expect(domain.pointee.statistics.mappingCount == 0)
      #expect(domain.pointee.statistics.mappedBytes == 0)
      #expect(machine.reports.all == [])
    }
  }
}
