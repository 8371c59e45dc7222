// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

/// Maps and unmaps lists of memory of the thread's own, beside single mappings, and looks where they lead.
private func work(
  _ device: UnsafeMutablePointer<Device>, thread: Int, seed: UInt64
) throws {
  let count = 12
  var generator = SeededGenerator(seed: seed &+ UInt64(thread))
  let list = UnsafeMutablePointer<dmacore_sg>.allocate(capacity: count)
  defer { list.deallocate() }
  for _ in 0..<RunSettings.steps(300) {
    dmacore_sg_init(list, count)
    for index in 0..<count {
      // Neighbours adjoin, or not; each thread has its own memory.
      let first = UInt64(thread + 1) << 32 + UInt64(index) * 0x4000
      dmacore_sg_set(
        list + index, first + UInt64(generator.below(2)) * 0x2000,
        UInt64(1 + generator.below(0x2000)), 0)
    }
    let segments = try device.pointee.map(
      list, count: count, .bidirectional, [], most: 0)
    let memory = try physical(UInt64(thread + 1) << 48, size: UInt64(1 + generator.below(9000)))
    let single = try device.pointee.map(memory, .bidirectional)
    var (entry, offset) = (0, UInt64(0))
    for index in 0..<segments {
      let segment = list[index]
      // The first byte of a segment is that of what is left of an entry.
      try demandSame(
        try arrival(of: segment.dma, .write, by: device), list[entry].phys + offset, "first byte")
      offset += segment.dma_size
      while entry < count, offset >= list[entry].size {
        offset -= list[entry].size
        entry += 1
      }
    }
    try demandSame(entry, count, "entries in segments")
    try device.pointee.sync(list, count: count, 0, 0, .bidirectional, forCPU: true)
    try device.pointee.unmap(dma(single.rawValue, size: memory.extent + 1), .bidirectional)
    try device.pointee.unmap(list, count: count, .bidirectional, .list)
  }
}

@Suite("Lists on several threads")
struct ListConcurrencyTests {
  @Test(arguments: Path.allCases)
  func threadsMapListsForOneDevice(_ path: Path) throws {
    try withMachine { machine in
      nonisolated(unsafe) let shared = try machine.device(on: path)
      let seed = RunSettings.seed
      try onThreads(3) { try work(shared, thread: $0, seed: seed) }
      #expect(shared.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  /// A list that two threads unmap is unmapped by one of them.
  @Test func aListEndsOnce() throws {
    try withMachine { machine in
      nonisolated(unsafe) let shared = try machine.device(on: .translated)
      for round in 0..<RunSettings.steps(20) {
        nonisolated(unsafe) let list = UnsafeMutablePointer<dmacore_sg>.allocate(capacity: 2)
        defer { list.deallocate() }
        dmacore_sg_init(list, 2)
        dmacore_sg_set(list, 0x1000 * UInt64(round), 0x1000, 0)
        dmacore_sg_set(list + 1, 0x9_0000_0000, 7, 0)
        _ = try shared.pointee.map(list, count: 2, .toDevice, [], most: 0)
        nonisolated(unsafe) let results = UnsafeMutablePointer<Int32>.allocate(capacity: 2)
        defer { results.deallocate() }
        try onThreads(2) { thread in
          results[thread] = 0
          do throws(Failure) {
            try shared.pointee.unmap(list, count: 2, .toDevice, [.list])
          } catch { results[thread] = error.code }
        }
        #expect(Set([results[0], results[1]]) == [0, 22])
      }
      #expect(shared.pointee.statistics.mappingCount == 0)
    }
  }

  /// A list that is mapped while its device gets a domain is mapped once.
  @Test func aListIsMappedOnceWhenTheDomainComesMeanwhile() throws {
    try withMachines { machine in
      nonisolated(unsafe) let domain = try machine.domain(.dma)
      nonisolated(unsafe) let device = try machine.device()
      try device.pointee.attach(domain)
      let isOver = Flag()
      try onThreads(3) { thread in
        guard thread > 0 else {
          while !isOver.isSet {
            do throws(Failure) {
              try device.pointee.detach(domain)
            } catch {
              try demandSame(error, .busy, "why the domain stays")
              continue
            }
            try device.pointee.attach(domain)
          }
          return
        }
        defer { if thread == 1 { isOver.set() } }
        var step = 0
        let list = UnsafeMutablePointer<dmacore_sg>.allocate(capacity: 2)
        defer { list.deallocate() }
        while thread == 1 ? step < RunSettings.steps(6_000) : !isOver.isSet {
          step += 1
          dmacore_sg_init(list, 2)
          dmacore_sg_set(list, UInt64(thread) << 32, 100, 0)
          dmacore_sg_set(list + 1, UInt64(thread) << 40, 0x2000, 0)
          do throws(Failure) {
            _ = try device.pointee.map(list, count: 2, .toDevice, [], most: 0)
          } catch {
            try demandSame(error, .notPermitted, "why nothing is mapped")
            continue
          }
          try device.pointee.unmap(list, count: 2, .toDevice, .list)
        }
      }
      #expect(device.pointee.statistics.mappingCount == 0)
      #expect(domain.pointee.statistics.mappedBytes == 0)
      #expect(machine.reports.all == [])
    }
  }
}
