// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import MachineSupport
import Mapping
import Primitives
import Synchronization
import TestSupport
import Testing
import Translation

/// What the threads of a test share. Writes are numbered from 1.
private final class Shared: @unchecked Sendable {
  let domain: UnsafeMutablePointer<Domain>
  let view: UnsafeMutablePointer<View>
  let pages = Pages(count: pageCount + 1)
  /// The last write that has begun, and the last that has ended.
  let begun = Atomic<Int>(0)
  let ended = Atomic<Int>(0)
  let isOver = Atomic<Bool>(false)

  static let pageCount = 8
  static let first: UInt64 = 0x10000

  init(domain: UnsafeMutablePointer<Domain>, view: UnsafeMutablePointer<View>) {
    self.domain = domain
    self.view = view
  }

  func map(_ page: Int) throws {
    let address = Self.first + UInt64(page) * 4096
    try domain.pointee.map(
      IOVARange(first: IOVA(address), size: 4096), to: pages.range(page).first,
      access: [.read, .write])
  }

  func write(_ page: Int) throws {
    let ones = [UInt8](repeating: 0xFF, count: 64)
    try view.pointee.write(dma(Self.first + UInt64(page) * 4096 + 100, size: 64), from: ones)
  }

  func readAndClear() throws -> UInt64 {
    var bits: UInt64 = 0
    try domain.pointee.readDirty(
      IOVARange(first: IOVA(Self.first), size: UInt64(Self.pageCount) * 4096), into: &bits,
      clearing: true)
    return bits
  }

  /// The last write of a page up to one of all writes.
  func last(of page: Int, upTo number: Int) -> Int {
    number - (number - page + Self.pageCount) % Self.pageCount
  }
}

@Suite("Written pages on several threads")
struct DirtyConcurrencyTests {
  @Test func noWriteThatHasEndedIsMissed() throws {
    try withMachine(notesDirty: true) { machine in
      let device = try machine.device()
      let domain = try machine.domain(.unmanaged)
      try device.pointee.attach(domain)
      try withView(of: device) { view in
        let shared = Shared(domain: domain, view: view)
        for page in 0..<Shared.pageCount { try shared.map(page) }
        try domain.pointee.setDirtyTracking(true)
        try onThreads(3) { index in
          switch index {
          case 0: try Self.read(shared)
          case 1: try Self.write(shared)
          default: try Self.comeAndGo(shared)
          }
        }
      }
    }
  }

  private static func write(_ shared: Shared) throws {
    // Nobody waits for a writer that failed.
    defer { shared.isOver.store(true, ordering: .relaxed) }
    var number = 0
    while !shared.isOver.load(ordering: .relaxed) {
      number += 1
      shared.begun.store(number, ordering: .releasing)
      try shared.write(number % Shared.pageCount)
      shared.ended.store(number, ordering: .releasing)
      // One that may be refused.
      _ = failure { try shared.write(Shared.pageCount) }
    }
  }

  private static func read(_ shared: Shared) throws {
    defer { shared.isOver.store(true, ordering: .relaxed) }
    // For each page the last write that may have begun before the end of a call that told of it.
    var told = Array(repeating: 0, count: Shared.pageCount)
    for _ in 0..<RunSettings.steps(1_000) {
      let ended = shared.ended.load(ordering: .acquiring)
      let bits = try shared.readAndClear()
      let begun = shared.begun.load(ordering: .acquiring)
      for page in 0..<Shared.pageCount {
        let number = shared.last(of: page, upTo: ended)
        if bits >> UInt64(page) & 1 != 0 {
          told[page] = begun
        } else if number > 0 {
          try demand(number <= told[page], "write \(number) is missed")
        }
      }
    }
  }

  /// Maps and unmaps a page beside the others.
  private static func comeAndGo(_ shared: Shared) throws {
    let address = Shared.first + UInt64(Shared.pageCount) * 4096
    while !shared.isOver.load(ordering: .relaxed) {
      try shared.map(Shared.pageCount)
      _ = try shared.domain.pointee.unmap(
        IOVARange(first: IOVA(address), size: 4096), crossingHoles: false, splitting: false)
    }
  }

  @Test func everyWriteAfterTrackingIsSwitchedOnIsNoted() throws {
    try withMachine(notesDirty: true) { machine in
      let device = try machine.device()
      let domain = try machine.domain(.unmanaged)
      try device.pointee.attach(domain)
      try withView(of: device) { view in
        let shared = Shared(domain: domain, view: view)
        for page in 0..<Shared.pageCount { try shared.map(page) }
        try onThreads(2) { index in
          if index == 1 { return try Self.write(shared) }
          defer { shared.isOver.store(true, ordering: .relaxed) }
          for _ in 0..<RunSettings.steps(100) {
            try shared.domain.pointee.setDirtyTracking(true)
            let first = shared.begun.load(ordering: .acquiring)
            var last = first
            while last < first + 2, !shared.isOver.load(ordering: .relaxed) {
              last = shared.ended.load(ordering: .acquiring)
            }
            let bits = try shared.readAndClear()
            let page = (first + 1) % Shared.pageCount
            try demand(bits >> UInt64(page) & 1 != 0, "write \(first + 1) is not noted")
            try shared.domain.pointee.setDirtyTracking(false)
          }
        }
      }
    }
  }
}
