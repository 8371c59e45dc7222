// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

/// A device in a small lazy domain, and a mark for each page of it.
private final class Shared: @unchecked Sendable {
  static let pages: UInt64 = 24
  let system: UnsafeMutablePointer<System>
  let domain: UnsafeMutablePointer<Domain>
  let device: UnsafeMutablePointer<Device>
  let isOver = Flag()
  private let marks: UnsafeMutableBufferPointer<Int>

  init(_ machine: Machine, _ entries: UInt32 = 4) throws {
    system = machine.system
    // So few pages that a mapping call often finds no free address; batches of four, or more than there are,
    // of which processors keep up to seven.
    domain = try machine.domain(
      .dma, last: (Self.pages + 1) * 4096 - 1, isLazy: true,
      FlushQueue.Limits(entries: entries, age: 3))
    device = try machine.device()
    try device.pointee.attach(domain)
    marks = .allocate(capacity: Int(Self.pages) + 1)
    marks.initialize(repeating: 0)
  }

  deinit { marks.deallocate() }

  /// Maps up to four pages and unmaps them. Nobody else may have them meanwhile, which plain stores
  /// and loads show: there is nothing but the library to order those of two threads.
  func mapAndUnmap(thread: Int, pages: Int) throws {
    let memory = try physical(1 << 32, size: UInt64(pages) << 12)
    let address = try device.pointee.map(memory, .toDevice).rawValue
    let numbers = Int(address >> 12)..<Int(address >> 12) + pages
    for number in numbers { marks[number] = thread }
    try demandSame(
      try arrival(of: address, .read, by: device), memory.first.rawValue, "where it leads")
    for number in numbers { try demandSame(marks[number], thread, "whose the page is") }
    try device.pointee.unmap(try dma(address, size: UInt64(pages) << 12), .toDevice)
  }
}

@Suite("Lazy unmapping on several threads")
struct LazyConcurrencyTests {
  @Test(arguments: [4, 64] as [UInt32])
  func noAddressIsGivenOutTwiceWhateverFlushes(entries: UInt32) throws {
    try withMachines { machine in
      let shared = try Shared(machine, entries)
      let seed = RunSettings.seed
      try onThreads(5) { thread in
        var generator = SeededGenerator(seed: seed &+ UInt64(thread))
        switch thread {
        case 0:
          var now: UInt64 = 0
          while !shared.isOver.isSet {
            shared.system.pointee.tick(now)
            now += 1
          }
        case 1:
          while !shared.isOver.isSet {
            try shared.domain.pointee.setLazy(generator.onceIn(2))
            if generator.onceIn(2) { try shared.domain.pointee.flush() }
          }
        default:
          defer { if thread == 2 { shared.isOver.set() } }
          // The one that ends it has the others beside it all the time.
          var step = 0
          while thread == 2 ? step < RunSettings.steps(3_000) : !shared.isOver.isSet {
            try shared.mapAndUnmap(thread: thread, pages: 1 + generator.below(4))
            step += 1
          }
        }
      }
      try shared.domain.pointee.setLazy(false)
      let statistics = shared.domain.pointee.statistics
      #expect(statistics.mappingCount == 0)
      #expect(statistics.mappedBytes == 0)
      #expect(statistics.queued.count == 0)
      #expect(statistics.queued.flushes > 0)
      #expect(machine.reports.all == [])
    }
  }
}
