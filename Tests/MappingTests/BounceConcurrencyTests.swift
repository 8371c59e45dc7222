// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

extension Machine {
  fileprivate func pool(pages: UInt64, most: UInt64) throws -> UnsafeMutablePointer<BouncePool> {
    var options = dmacore_bounce_pool_options()
    options.size = pages * 4096
    options.size_max = most * 4096
    return try BouncePool.place(system: system, options)
  }
}

/// Threads that map, as the device writes; on a flat system the device's address is that of the copy.
private func bounce(
  _ device: UnsafeMutablePointer<Device>, thread: Int, seed: UInt64
) throws {
  var generator = SeededGenerator(seed: seed &+ UInt64(thread))
  let size = 3 * 4096
  let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
  defer { buffer.deallocate() }
  for round in 0..<RunSettings.steps(1_500) {
    let (offset, count) = (generator.below(4096), 1 + generator.below(2 * 4096))
    let old = UInt8(truncatingIfNeeded: round)
    buffer.initializeMemory(as: UInt8.self, repeating: old, count: size)
    let memory = try physical(
      UInt64(UInt(bitPattern: buffer)) + UInt64(offset), size: UInt64(count))
    let address: DMAAddress
    do throws(Failure) {
      address = try device.pointee.map(memory, .bidirectional)
    } catch {
      // No pool at the moment, or it is full.
      try demand(error == .outOfRange || error == .noSpace, "map fails with \(error.code)")
      continue
    }
    let copy = UnsafeMutableRawPointer(bitPattern: UInt(address.rawValue))!
    let place = generator.below(count)
    try demandSame(copy.load(fromByteOffset: place, as: UInt8.self), old, "byte of the copy")
    copy.storeBytes(of: old &+ 1, toByteOffset: place, as: UInt8.self)
    let part = try dma(address.rawValue + UInt64(place), size: 1)
    try device.pointee.sync(part, .bidirectional, forCPU: true)
    try demandSame(
      buffer.load(fromByteOffset: offset + place, as: UInt8.self), old &+ 1, "byte that was synced")
    copy.storeBytes(of: old &+ 2, toByteOffset: place, as: UInt8.self)
    try device.pointee.unmap(dma(address.rawValue, size: UInt64(count)), .bidirectional)
    for index in 0..<size {
      let expected = index == offset + place ? old &+ 2 : old
      try demandSame(buffer.load(fromByteOffset: index, as: UInt8.self), expected, "byte \(index)")
    }
  }
}

@Suite("Bounced mappings on several threads")
struct BounceConcurrencyTests {
  @Test(arguments: [false, true])
  func eachThreadGetsBackWhatItsDeviceWrote(isTracked: Bool) throws {
    try withMachine { machine in
      let pool = try machine.pool(pages: 4, most: 12)
      let device = try machine.device(behindIOMMU: false) { options in
        options.flags = UInt32(DMACORE_DEVICE_FORCE_BOUNCE.rawValue)
        if isTracked { options.flags |= UInt32(DMACORE_DEVICE_TRACK_DIRECT.rawValue) }
        options.bounce_pool = OpaquePointer(pool)
      }
      nonisolated(unsafe) let shared = device
      let seed = RunSettings.seed
      try onThreads(3) { thread in try bounce(shared, thread: thread, seed: seed) }
      #expect(pool.pointee.counts.used == 0)
      #expect(pool.pointee.counts.usedMax > 0)
      Box.letGo(pool)
    }
  }

  @Test func poolsMayComeAndGoBesideMappings() throws {
    try withMachine { machine in
      let device = try machine.device(behindIOMMU: false) { options in
        options.flags = UInt32(DMACORE_DEVICE_FORCE_BOUNCE.rawValue)
      }
      nonisolated(unsafe) let shared = device
      let flag = Flag()
      let seed = RunSettings.seed
      try onThreads(3) { thread in
        if thread > 0 {
          defer { if thread == 1 { flag.set() } }
          return try bounce(shared, thread: thread, seed: seed)
        }
        while !flag.isSet {
          let pool = try machine.pool(pages: 4, most: 8)
          machine.system.pointee.setBouncePool(pool)
          _ = pool.pointee.counts
          pool.pointee.resetUsedMax()
          Box.letGo(pool)
          for _ in 0..<20 { _ = shared.pointee.needsSync(DMAAddress(0)) }
          if seed & 1 != 0 { machine.system.pointee.setBouncePool(nil) }
        }
        machine.system.pointee.setBouncePool(nil)
      }
    }
  }
}
