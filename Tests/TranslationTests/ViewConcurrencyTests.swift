// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import Foundation
import MachineSupport
import Mapping
import Primitives
import Synchronization
import TestSupport
import Testing
import Translation

/// What the threads of a test share.
private struct Shared: @unchecked Sendable {
  let device: UnsafeMutablePointer<Device>
  let view: UnsafeMutablePointer<View>
  var domains: [UnsafeMutablePointer<Domain>] = []
}

private final class Signal: Sendable {
  let isOver = Atomic<Bool>(false)
}

@Suite("View on several threads")
struct ViewConcurrencyTests {
  private static let page = UInt64(Pages.size)
  private static let large: UInt64 = 2 << 20

  @Test func readersSeeTheirPageWhileOthersComeAndGo() throws {
    try withMachine { machine in
      let device = try machine.device()
      try device.pointee.attach(machine.domain(.dma))
      let pages = Pages(count: 4)
      pages.page(0).initializeMemory(as: UInt8.self, repeating: 9, count: Pages.size)
      let kept = try device.pointee.map(pages.range(0), .toDevice)
      try withView(of: device) { view in
        let shared = Shared(device: device, view: view)
        let signal = Signal()
        try onThreads(3) { index in
          if index == 0 {
            defer { signal.isOver.store(true, ordering: .relaxed) }
            for step in 0..<RunSettings.steps(2_000) {
              let memory = try pages.range(1 + step % 3)
              let address = try shared.device.pointee.map(memory, .fromDevice)
              try shared.device.pointee.unmap(
                dma(address.rawValue, size: Self.page), .fromDevice)
            }
            return
          }
          var bytes = [UInt8](repeating: 0, count: 64)
          while !signal.isOver.load(ordering: .relaxed) {
            try shared.view.pointee.read(dma(kept.rawValue + 100, size: 64), into: &bytes)
            try demandSame(bytes.allSatisfy { $0 == 9 }, true, "the page that is kept")
          }
        }
      }
      try device.pointee.unmap(dma(kept.rawValue, size: Self.page), .toDevice)
    }
  }

  /// In a lazy domain: after the flush.
  @Test(arguments: [false, true])
  func noWriteArrivesAfterItsUnmap(isLazy: Bool) throws {
    try withMachine { machine in
      let device = try machine.device()
      let domain = try machine.domain(.dma, isLazy: isLazy)
      try device.pointee.attach(domain)
      let pages = Pages(count: 1)
      let current = Signal()
      try withView(of: device) { view in
        let shared = Shared(device: device, view: view, domains: [domain])
        let target = SharedAddress()
        try onThreads(2) { index in
          if index == 0 {
            defer { current.isOver.store(true, ordering: .relaxed) }
            for _ in 0..<RunSettings.steps(2_000) {
              let mapped = try shared.device.pointee.map(pages.range(0), .fromDevice)
              target.set(mapped.rawValue)
              try shared.device.pointee.unmap(dma(mapped.rawValue, size: Self.page), .fromDevice)
              try shared.domains[0].pointee.flush()
              // The memory is the CPU's alone: a plain write and read of it race with nothing.
              pages.page(0).storeBytes(of: 0, as: UInt64.self)
              try demandSame(pages.page(0).load(as: UInt64.self), 0, "the page after its unmap")
            }
            return
          }
          let ones = [UInt8](repeating: 0xFF, count: 64)
          while !current.isOver.load(ordering: .relaxed) {
            _ = failure { try shared.view.pointee.write(dma(target.get(), size: 64), from: ones) }
          }
        }
      }
    }
  }

  @Test func eachReadComesFromOneOfTheDomainsOrIsRefused() throws {
    try withMachine { machine in
      let pages = Pages(count: 2)
      let owners = [try machine.device(), try machine.device()]
      let domains = [try machine.domain(.dma), try machine.domain(.dma)]
      var address: UInt64 = 0
      for index in 0..<2 {
        pages.page(index).initializeMemory(
          as: UInt8.self, repeating: UInt8(index + 1), count: Pages.size)
        try owners[index].pointee.attach(domains[index])
        // Both domains give the same address first.
        address = try owners[index].pointee.map(pages.range(index), .toDevice).rawValue
      }
      let device = try machine.device()
      try withView(of: device) { view in
        let shared = Shared(device: device, view: view, domains: domains)
        let signal = Signal()
        let target = address
        try onThreads(2) { index in
          if index == 0 {
            defer { signal.isOver.store(true, ordering: .relaxed) }
            for step in 0..<RunSettings.steps(1_000) {
              try shared.device.pointee.attach(shared.domains[step % 2])
              try shared.device.pointee.detach(shared.domains[step % 2])
            }
            return
          }
          while !signal.isOver.load(ordering: .relaxed) {
            var bytes = [UInt8](repeating: 0, count: 32)
            let refused = failure {
              try shared.view.pointee.read(dma(target, size: 32), into: &bytes)
            }
            if let refused {
              try demandSame(refused, .notPermitted, "why a detached device is refused")
              continue
            }
            let isWhole = bytes.allSatisfy { $0 == bytes[0] }
            try demandSame(isWhole && (1...2).contains(bytes[0]), true, "bytes of one domain")
          }
        }
      }
      for owner in owners { Device.close(owner) }
    }
  }

  /// Maps large leaves, and splits them where another's tables begin.
  private static func splitLeaves(of domain: UnsafeMutablePointer<Domain>) throws {
    let middle = large / 2 + page
    for _ in 0..<RunSettings.steps(200) {
      try domain.pointee.map(iova(0, size: large), to: PhysicalAddress(large), access: .read)
      let end = try domain.pointee.unmap(
        iova(middle, size: large - middle), crossingHoles: false, splitting: true)
      try demandSame(end, large - middle, "bytes at the end of the leaf")
      _ = try domain.pointee.translate(IOVA(middle - 1), .read)
      let rest = try domain.pointee.unmap(
        iova(0, size: large), crossingHoles: true, splitting: false)
      try demandSame(rest, middle, "bytes of the rest of the leaf")
    }
  }

  /// Maps pages and unmaps them with the whole span of their table, which goes with them.
  private static func fillTables(
    of domain: UnsafeMutablePointer<Domain>, with pages: Pages
  ) throws {
    for step in 0..<RunSettings.steps(1_000) {
      let first = large + UInt64(step % 4) * page
      try domain.pointee.map(
        iova(first, size: page), to: pages.range(1).first, access: .write)
      // Lets writes meet it.
      for _ in 0..<4 { sched_yield() }
      let unmapped = try domain.pointee.unmap(
        iova(large, size: large), crossingHoles: true, splitting: false)
      try demandSame(unmapped, page, "bytes that were mapped")
    }
  }

  /// Reads the page that is kept, and writes and looks where others map and unmap.
  private static func transfer(_ shared: Shared, kept: UInt64, step: UInt64) throws {
    var bytes = [UInt8](repeating: 0, count: 64)
    try shared.view.pointee.read(dma(kept + 100, size: 64), into: &bytes)
    try demandSame(bytes.allSatisfy { $0 == 9 }, true, "the page that is kept")
    let offset = step % 4 * page
    let refused = failure {
      try shared.view.pointee.write(dma(large + offset, size: 64), from: bytes)
    }
    try demandSame(refused == nil || refused == .notFound, true, "why a write is refused")
    _ = try? shared.domains[0].pointee.translate(IOVA(large / 2 + offset), .read)
  }

  @Test func ownersMapBesideEachOtherInAnUnmanagedDomain() throws {
    try withMachine { machine in
      let device = try machine.device()
      let domain = try machine.domain(.unmanaged)
      try device.pointee.attach(domain)
      let pages = Pages(count: 2)
      pages.page(0).initializeMemory(as: UInt8.self, repeating: 9, count: Pages.size)
      let kept = 4 * Self.large
      try domain.pointee.map(
        iova(kept, size: Self.page), to: pages.range(0).first, access: .read)
      try withView(of: device) { view in
        let shared = Shared(device: device, view: view, domains: [domain])
        let running = Running(count: 2)
        try onThreads(3) { index in
          guard index < 2 else {
            var step: UInt64 = 0
            while running.isAny {
              try Self.transfer(shared, kept: kept, step: step)
              step += 1
            }
            return
          }
          defer { running.end() }
          if index == 0 {
            try Self.splitLeaves(of: shared.domains[0])
          } else {
            try Self.fillTables(of: shared.domains[0], with: pages)
          }
        }
      }
      #expect(domain.pointee.statistics.mappedBytes == Self.page)
      #expect(machine.reports.all == [])
    }
  }
}

private func iova(_ first: UInt64, size: UInt64) throws -> IOVARange {
  try IOVARange(first: IOVA(first), size: size)
}

/// How many threads others go on for.
private final class Running: Sendable {
  private let count: Atomic<Int>

  init(count: Int) { self.count = Atomic(count) }

  var isAny: Bool { count.load(ordering: .relaxed) > 0 }

  func end() { count.subtract(1, ordering: .relaxed) }
}

/// An address that one thread tells another.
private final class SharedAddress: @unchecked Sendable {
  private let value = Atomic<UInt64>(0)

  func set(_ address: UInt64) { value.store(address, ordering: .relaxed) }

  func get() -> UInt64 { value.load(ordering: .relaxed) }
}
