// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

/// A pool that ends with the test.
private func withPool(
  _ device: UnsafeMutablePointer<Device>, size: UInt64, alignment: UInt64 = 0,
  boundary: UInt64 = 0, _ body: (UnsafeMutablePointer<CoherentPool>) throws -> Void
) throws {
  let pool = try Box<CoherentPool>.place { () throws(Failure) in
    try CoherentPool(device: device, size: size, alignment: alignment, boundary: boundary)
  }
  defer { Box.destroy(pool) }
  try body(pool)
}

@Suite("CoherentPool")
struct CoherentPoolTests {
  @Test func everyShapeHasAsManyObjectsAsFitAndNoMore() throws {
    try withMachine { machine in
      let device = try machine.device(on: .direct)
      for size in [1, 7, 8, 24, 63, 64, 65, 511, 1000, 2048, 2049, 4095, 4096] as [UInt64] {
        for alignment in [0, 1, 8, 32, 256, 4096] as [UInt64] {
          for boundary in [0, 32, 64, 1024, 4096, 1 << 40] as [UInt64]
          where boundary == 0 || boundary >= size {
            try withPool(device, size: size, alignment: alignment, boundary: boundary) { pool in
              // All places of a page, by brute force from the lowest on.
              let step = max(alignment, 8)
              var expected: [UInt64] = []
              var next: UInt64 = 0
              for first in stride(from: 0, through: 4096 - size, by: Int(step))
              where first >= next {
                let crosses = boundary != 0 && first / boundary != (first + size - 1) / boundary
                if crosses { continue }
                expected.append(first)
                next = first + size
              }
              var found: [UInt64] = []
              for _ in expected { found.append(try pool.pointee.allocate().address.rawValue) }
              #expect(found.map { $0 & 4095 } == expected)
              #expect(Set(found.map { $0 & ~4095 }).count == 1)
              for address in found {
                let host = UnsafeMutableRawPointer(bitPattern: UInt(address))!
                try pool.pointee.free(host, DMAAddress(address))
              }
            }
          }
        }
      }
      #expect(machine.reports.all == [])
    }
  }

  @Test func theLowestFreeObjectOfAPageIsTakenFirst() throws {
    try withMachine { machine in
      let device = try machine.device(on: .trackedDirect)
      try withPool(device, size: 1024) { pool in
        let objects = try (0..<4).map { _ in try pool.pointee.allocate() }
        for index in [2, 0, 3] { try pool.pointee.free(objects[index].cpu, objects[index].address) }
        for index in [0, 2, 3] {
          #expect(try pool.pointee.allocate().address == objects[index].address)
        }
        #expect(device.pointee.statistics.mappingCount == 1)
        for object in objects { try pool.pointee.free(object.cpu, object.address) }
      }
    }
  }

  @Test func aPageThatWasFullServesAgain() throws {
    try withMachine { machine in
      let device = try machine.device(on: .translated)
      try withPool(device, size: 2048) { pool in
        var objects = try (0..<20).map { _ in try pool.pointee.allocate() }
        #expect(device.pointee.statistics.mappingCount == 10)
        // One of each page, in any order.
        let gone = [0, 7, 2, 19, 12, 4, 9, 14, 16, 11].map { objects[$0] }
        for object in gone { try pool.pointee.free(object.cpu, object.address) }
        objects.removeAll { object in gone.contains { $0.address == object.address } }
        for _ in gone { objects.append(try pool.pointee.allocate()) }
        #expect(device.pointee.statistics.mappingCount == 10)
        #expect(Set(objects.map(\.address.rawValue)).count == 20)
        for object in objects { try pool.pointee.free(object.cpu, object.address) }
      }
    }
  }

  @Test func aPageOfADeviceThatLostItsMappingsIsLeftAlone() throws {
    try withMachine { machine in
      let device = try machine.device(on: .translated)
      try withPool(device, size: 64) { pool in
        let object = try pool.pointee.allocate()
        Device.close(device)
        #expect(machine.memory.liveCount == 0)
        #expect(throws: Failure.noDevice) { try pool.pointee.allocate() }
        #expect(throws: Failure.noDevice) {
          try pool.pointee.free(object.cpu, object.address)
        }
      }
      #expect(machine.reports.all.count == 1)
    }
  }
}

private struct Shared: @unchecked Sendable {
  let pool: UnsafeMutablePointer<CoherentPool>
  let device: UnsafeMutablePointer<Device>
}

@Suite("CoherentPool on several threads")
struct CoherentPoolConcurrencyTests {
  @Test(arguments: [Path.trackedDirect, .translated])
  func objectsAreOneThreadsAtATime(_ path: Path) throws {
    try withMachine { machine in
      let device = try machine.device(on: path)
      try withPool(device, size: 512) { pool in
        let shared = Shared(pool: pool, device: device)
        let seed = RunSettings.seed
        try onThreads(3) { thread in
          var generator = SeededGenerator(seed: seed &+ UInt64(thread))
          var live: [(cpu: UnsafeMutableRawPointer, address: DMAAddress)] = []
          for step in 0..<RunSettings.steps(600) {
            if live.count < 20, generator.onceIn(2) {
              let object = try shared.pool.pointee.allocate()
              let words = object.cpu.assumingMemoryBound(to: UInt64.self)
              for index in 0..<64 { try demandSame(words[index], 0, "a word of an object") }
              // Not atomic: another thread that had it would race.
              for index in 0..<64 { words[index] = UInt64(thread + 1) << 32 | UInt64(step) }
              live.append(object)
            } else if !live.isEmpty {
              let object = live.remove(at: generator.below(live.count))
              let words = object.cpu.assumingMemoryBound(to: UInt64.self)
              let word = words[0]
              try demandSame(word >> 32, UInt64(thread + 1), "whose object it is")
              for index in 1..<64 { try demandSame(words[index], word, "a word of an object") }
              try shared.pool.pointee.free(object.cpu, object.address)
              if generator.onceIn(16) {
                try demand(
                  (try? shared.device.pointee.freeCoherent(
                    UnsafeMutableRawPointer(
                      bitPattern: UInt(bitPattern: object.cpu) & ~4095)!,
                    DMAAddress(object.address.rawValue & ~4095), size: 4096)) == nil,
                  "a page of a pool was freed")
              }
            }
          }
          for object in live { try shared.pool.pointee.free(object.cpu, object.address) }
        }
      }
      #expect(device.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all.allSatisfy { $0.error == 22 })
    }
  }

  @Test func memoryIsDeclaredAndReleasedWhileOthersAllocate() throws {
    try withMachine { machine in
      let device = try machine.device(on: .translated)
      let pages = UnsafeMutableRawPointer.allocate(byteCount: 16 * 4096, alignment: 4096)
      defer { pages.deallocate() }
      let first = UInt64(UInt(bitPattern: pages))
      let shared = Shared(pool: .init(bitPattern: 8)!, device: device)
      try onThreads(3) { thread in
        let device = shared.device
        for _ in 0..<RunSettings.steps(300) {
          if thread == 0 {
            try? device.pointee.declareMemory(try physical(first, size: 16 * 4096))
            try? device.pointee.releaseMemory()
          } else {
            let (cpu, address) = try device.pointee.allocateCoherent(size: 8192)
            let words = cpu.assumingMemoryBound(to: UInt64.self)
            for index in [0, 1023] { try demandSame(words[index], 0, "a word") }
            words[0] = 1
            words[1023] = 1
            try device.pointee.freeCoherent(cpu, address, size: 8192)
          }
        }
      }
      try? device.pointee.releaseMemory()
      #expect(throws: Failure.notFound) { try device.pointee.releaseMemory() }
      #expect(machine.reports.all == [])
    }
  }

  @Test func noncontiguousMemoryComesAndGoesOnManyThreads() throws {
    try withMachine { machine in
      let device = try machine.device(on: .translated)
      let shared = Shared(pool: .init(bitPattern: 8)!, device: device)
      try onThreads(3) { thread in
        for step in 0..<RunSettings.steps(200) {
          let size = UInt64(1 + (step + thread) % 5) << 12
          let (memory, address) = try shared.device.pointee.allocateNoncontiguous(
            size: size, .bidirectional, [])
          try demandSame(memory.pointee.count, 1, "segments")
          let range = try dma(address.rawValue, size: size)
          try shared.device.pointee.sync(range, .bidirectional, forCPU: true)
          try demandSame(
            try arrival(of: range.last.rawValue, .write, by: shared.device),
            memory.pointee.segments[0].phys + size - 1, "last byte")
          try shared.device.pointee.freeNoncontiguous(address, size: size)
        }
      }
      #expect(device.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }
}
