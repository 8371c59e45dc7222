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

/// A transfer of memory of the thread's own, and what it was mapped by.
private final class Job {
  private let transfer = UnsafeMutablePointer<Transfer>.allocate(capacity: 1)
  private let ranges = UnsafeMutablePointer<dmacore_phys_range>.allocate(capacity: 80)
  private let device: UnsafeMutablePointer<Device>
  private let isReplaceable: Bool
  private var count = 0

  init(
    _ device: UnsafeMutablePointer<Device>, thread: Int, _ generator: inout SeededGenerator
  ) {
    self.device = device
    isReplaceable = generator.onceIn(3)
    memset(transfer, 0, MemoryLayout<Transfer>.size)
    // One range, a few, or more than a small mapping has.
    let most = generator.one(of: [1, 4, 80])
    let isOfPages = isReplaceable || generator.onceIn(2)
    for index in 0..<1 + generator.below(most) {
      var phys = UInt64(thread + 1) << 32 + UInt64(index) * 0x4000
      if generator.onceIn(2) { phys += 0x1000 }
      let size = isOfPages ? 0x1000 : UInt64(1 + generator.below(0x2000))
      if !isOfPages { phys += UInt64(generator.below(0x800)) }
      ranges[index] = dmacore_phys_range(phys: phys, size: size, flags: 0, reserved: 0)
      count = index + 1
    }
  }

  deinit {
    transfer.deallocate()
    ranges.deallocate()
  }

  private func request() throws -> TransferRequest {
    var request = dmacore_transfer_request()
    request.ranges = UnsafePointer(ranges)
    request.count = count
    request.flags = isReplaceable ? UInt32(DMACORE_TRANSFER_REPLACEABLE.rawValue) : 0
    return try TransferRequest(request)
  }

  func map() throws { try Device.map(device, request(), transfer) }

  func unmap() throws { try Device.unmap(device, transfer) }

  /// Looks where the first byte of each segment leads, and syncs.
  func use(_ isThere: Bool, _ generator: inout SeededGenerator) throws {
    var iterator = try TransferIterator(device, request(), transfer.pointee, from: 0)
    var segment = dmacore_segment()
    var (index, offset) = (0, UInt64(0))
    while try iterator.next(&segment, capacity: 1) == 1 {
      if isThere {
        try demandSame(
          try arrival(of: segment.dma, .write, by: device), ranges[index].phys + offset,
          "where byte \(offset) of range \(index) is")
      }
      offset += segment.size
      while index < count, offset >= ranges[index].size {
        offset -= ranges[index].size
        index += 1
      }
    }
    try demandSame(index, count, "ranges in segments")
    let part = UInt64(generator.below(Int(transfer.pointee.size)))
    try Device.sync(device, transfer.pointee, part, 0, forCPU: true)
    try Device.sync(device, transfer.pointee, part, 1, forCPU: false)
  }

  /// Lets other memory take the place of some range.
  func replace(_ generator: inout SeededGenerator) throws {
    guard isReplaceable else { return }
    let index = generator.below(count)
    ranges[index].phys ^= 0x2000
    try Device.replace(
      device, transfer.pointee, UInt64(index) * 0x1000, ranges[index].phys, 0x1000)
  }
}

/// Maps, uses and ends transfers until somebody says that it is over, or so many times.
private func work(
  _ device: UnsafeMutablePointer<Device>, thread: Int, seed: UInt64, steps: Int?,
  until isOver: Flag,
  mayBeRefused: Bool = false, isTranslated: Bool = true
) throws {
  var generator = SeededGenerator(seed: seed &+ UInt64(thread))
  var step = 0
  while steps.map({ step < $0 }) ?? !isOver.isSet {
    step += 1
    let job = Job(device, thread: thread, &generator)
    do {
      try job.map()
    } catch let refusal as Failure where mayBeRefused {
      try demandSame(refusal, .notPermitted, "why a transfer cannot be mapped")
      continue
    }
    try job.use(isTranslated, &generator)
    if generator.onceIn(2) {
      try job.replace(&generator)
      try job.use(isTranslated, &generator)
    }
    try job.unmap()
  }
}

@Suite("Transfers on several threads")
struct TransferConcurrencyTests {
  @Test(arguments: Path.allCases)
  func threadsMapTransfersForOneDevice(_ path: Path) throws {
    try withMachines { machine in
      nonisolated(unsafe) let shared = try machine.device(on: path)
      let (seed, isOver) = (RunSettings.seed, Flag())
      try onThreads(3) { thread in
        try work(shared, thread: thread, seed: seed, steps: RunSettings.steps(150), until: isOver)
      }
      #expect(shared.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  /// Strict and lazy by turns, beside single mappings, and ticks.
  @Test func transfersOfTwoDevicesAreOfNoOtherThreadsConcern() throws {
    try withMachines { machine in
      let domain = try machine.domain(.dma, isLazy: true)
      nonisolated(unsafe) let devices = [try machine.device(), try machine.device()]
      nonisolated(unsafe) let shared = domain
      for device in devices { try device.pointee.attach(domain) }
      let (seed, isOver) = (RunSettings.seed, Flag())
      try onThreads(5) { thread in
        var generator = SeededGenerator(seed: seed &+ UInt64(thread))
        switch thread {
        case 0:
          var now: UInt64 = 0
          while !isOver.isSet {
            machine.system.pointee.tick(now)
            now += 5_000_000
            try shared.pointee.setLazy(generator.onceIn(2))
            if generator.onceIn(4) { try shared.pointee.flush() }
          }
        case 1:
          while !isOver.isSet {
            let address = try devices[0].pointee.map(physical(1 << 40, size: 4096), .toDevice)
            try devices[0].pointee.unmap(dma(address.rawValue, size: 4096), .toDevice)
          }
        default:
          defer { if thread == 2 { isOver.set() } }
          try work(
            devices[thread % 2], thread: thread, seed: seed,
            steps: thread == 2 ? RunSettings.steps(250) : nil, until: isOver)
        }
      }
      try domain.pointee.setLazy(false)
      #expect(domain.pointee.statistics.mappingCount == 0)
      #expect(domain.pointee.statistics.mappedBytes == 0)
      #expect(machine.reports.all == [])
    }
  }

  /// A device leaves its domain only while nothing is mapped for it.
  @Test func aTransferKeepsItsDomain() throws {
    try withMachines { machine in
      let domain = try machine.domain(.dma)
      nonisolated(unsafe) let device = try machine.device()
      nonisolated(unsafe) let shared = domain
      try device.pointee.attach(domain)
      let (seed, isOver) = (RunSettings.seed, Flag())
      try onThreads(3) { thread in
        guard thread == 0 else {
          defer { if thread == 1 { isOver.set() } }
          return try work(
            device, thread: thread, seed: seed, steps: thread == 1 ? RunSettings.steps(250) : nil,
            until: isOver, mayBeRefused: true)
        }
        while !isOver.isSet {
          do throws(Failure) {
            try device.pointee.detach(shared)
          } catch {
            try demandSame(error, .busy, "why a device cannot leave")
            continue
          }
          try device.pointee.attach(shared)
        }
      }
      #expect(device.pointee.statistics.mappingCount == 0)
      #expect(domain.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }

  /// While there is a peer, nothing is said in two words that it could concern.
  @Test func transfersAreMappedWhateverPeersThereAre() throws {
    try withMachines { machine in
      let domain = try machine.domain(.dma)
      nonisolated(unsafe) let device = try machine.device()
      nonisolated(unsafe) let direct = try machine.device(behindIOMMU: false)
      nonisolated(unsafe) let provider = try machine.device(behindIOMMU: false)
      try device.pointee.attach(domain)
      let (seed, isOver) = (RunSettings.seed, Flag())
      try onThreads(3) { thread in
        guard thread == 0 else {
          defer { if thread == 1 { isOver.set() } }
          return try work(
            thread == 1 ? device : direct, thread: thread, seed: seed,
            steps: thread == 1 ? RunSettings.steps(250) : nil, until: isOver)
        }
        var options = dmacore_peer_options()
        (options.phys, options.size) = (0x38_0000_0000, 0x1_0000)
        while !isOver.isSet {
          do throws(Failure) {
            Peer.close(try Peer.place(provider, options))
          } catch {
            try demand(error == .busy || error == .exists, "\(error) instead of a peer")
          }
        }
      }
      #expect(device.pointee.statistics.mappingCount == 0)
      #expect(domain.pointee.statistics.mappingCount == 0)
      #expect(direct.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }
}
