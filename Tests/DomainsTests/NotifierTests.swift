// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Foundation
import MachineSupport
import Primitives
import TestSupport
import Testing

@testable import Domains

/// Who mirrors a domain, page by page, from what it is told. Several threads may tell it.
private final class Listener: @unchecked Sendable {
  private let lock = NSLock()
  private var mirror: [UInt64: UInt64] = [:]
  private var eventCount = 0
  private var releaseCount = 0
  private var handle: UnsafeMutablePointer<Notifier>?

  var pages: [UInt64: UInt64] { lock.withLock { mirror } }
  var events: Int { lock.withLock { eventCount } }
  var releases: Int { lock.withLock { releaseCount } }

  func start(_ domain: UnsafeMutablePointer<Domain>) throws {
    var options = dmacore_notifier_options()
    options.flags = DMACORE_NOTIFY_MAP.rawValue | DMACORE_NOTIFY_UNMAP.rawValue
    options.opaque = Unmanaged.passUnretained(self).toOpaque()
    options.notify = { event, opaque in
      Unmanaged<Listener>.fromOpaque(opaque!).takeUnretainedValue().hear(event!.pointee)
    }
    options.release = { opaque in
      let listener = Unmanaged<Listener>.fromOpaque(opaque!).takeUnretainedValue()
      listener.lock.withLock { listener.releaseCount += 1 }
    }
    handle = try Notifier.place(domain, options)
  }

  private func hear(_ event: dmacore_notifier_event) {
    lock.withLock {
      eventCount += 1
      for page in event.first / 4096...event.last / 4096 {
        let isMap = event.type == DMACORE_NOTIFY_MAP.rawValue
        mirror[page] = isMap ? event.phys / 4096 + page - event.first / 4096 : nil
      }
    }
  }

  func replay() throws { try Notifier.replay(handle!) }

  func stop() { Notifier.end(handle!) }
}

/// A domain that several threads change.
private struct SharedDomain: @unchecked Sendable {
  let domain: UnsafeMutablePointer<Domain>

  func map(_ page: UInt64, to target: UInt64) throws {
    try domain.pointee.map(
      IOVARange(first: IOVA(page * 4096), size: 4096), to: PhysicalAddress(target * 4096),
      access: .read)
  }

  func unmap(_ page: UInt64) throws {
    _ = try domain.pointee.unmap(
      IOVARange(first: IOVA(page * 4096), size: 4096), crossingHoles: false, splitting: false)
  }

  /// Maps and unmaps pages of the thread's own, beside those of others, and returns what is left.
  func change(thread: Int, seed: UInt64) throws -> [UInt64: UInt64] {
    var generator = SeededGenerator(seed: seed &+ UInt64(thread))
    var left: [UInt64: UInt64] = [:]
    for _ in 0..<RunSettings.steps(600) {
      let page = UInt64(generator.below(24) * 3 + thread)
      if left.removeValue(forKey: page) != nil {
        try unmap(page)
      } else {
        // Often contiguous with the next one, which another thread maps.
        let target = 1000 + page + (generator.onceIn(3) ? 500 : 0)
        try map(page, to: target)
        left[page] = target
      }
    }
    return left
  }
}

/// What threads leave.
private final class Left: @unchecked Sendable {
  private let lock = NSLock()
  private var pages: [UInt64: UInt64] = [:]

  var all: [UInt64: UInt64] { lock.withLock { pages } }

  func add(_ some: [UInt64: UInt64]) { lock.withLock { pages.merge(some) { $1 } } }
}

@Suite("Notifier")
struct NotifierTests {
  @Test func aNotifierHoldsItsDomainAndTheListDoesNotHoldIt() throws {
    try withMachine { machine in
      let domain = try machine.domain(.unmanaged)
      let listener = Listener()
      #expect(!Box.isShared(domain))
      try listener.start(domain)
      #expect(Box.isShared(domain))
      listener.stop()
      #expect(listener.releases == 1)
      #expect(!Box.isShared(domain))
    }
  }

  @Test func notifiersLeaveTheListInAnyOrder() throws {
    // Every order in which four leave.
    func check(_ order: [Int]) throws {
      try withMachine { machine in
        let shared = SharedDomain(domain: try machine.domain(.unmanaged))
        let listeners = (0..<4).map { _ in Listener() }
        for listener in listeners { try listener.start(shared.domain) }
        for (count, index) in order.enumerated() {
          listeners[index].stop()
          try shared.map(1, to: 1)
          try shared.unmap(1)
          for (place, other) in order.enumerated() {
            let heard = place <= count ? place : count + 1
            try demandSame(listeners[other].events, 2 * heard, "events")
          }
        }
      }
    }
    func permute(_ chosen: [Int]) throws {
      if chosen.count == 4 { return try check(chosen) }
      for index in 0..<4 where !chosen.contains(index) { try permute(chosen + [index]) }
    }
    try permute([])
  }

  @Test func threadsTellAMirrorThatIsReplayedAllAlong() throws {
    try withMachine { machine in
      let shared = SharedDomain(domain: try machine.domain(.unmanaged))
      let listener = Listener()
      try listener.start(shared.domain)
      let (left, seed) = (Left(), RunSettings.seed)
      try onThreads(4) { thread in
        if thread < 3 {
          left.add(try shared.change(thread: thread, seed: seed))
        } else {
          for _ in 0..<RunSettings.steps(200) { try listener.replay() }
        }
      }
      try demandSame(listener.pages, left.all, "mirror, DMACORE_SEED=\(hex(seed))")
      listener.stop()
      try demandSame(listener.releases, 1, "releases")
    }
  }

  @Test func notifiersComeAndGoBesideChanges() throws {
    try withMachine { machine in
      let shared = SharedDomain(domain: try machine.domain(.unmanaged))
      let (left, seed) = (Left(), RunSettings.seed)
      try onThreads(4) { thread in
        if thread < 3 {
          left.add(try shared.change(thread: thread, seed: seed))
          return
        }
        var listeners: [Listener] = []
        for index in 0..<RunSettings.steps(200) {
          let listener = Listener()
          try listener.start(shared.domain)
          if index % 4 == 0 { try listener.replay() }
          listeners.append(listener)
          if index >= 3 { listeners[index - 3].stop() }
        }
        for listener in listeners.suffix(3) { listener.stop() }
        // A call of another thread may still be inside one of the last.
        for listener in listeners.dropLast(3) {
          while listener.releases == 0 { sched_yield() }
          try demandSame(listener.releases, 1, "releases")
        }
        while !listeners.allSatisfy({ $0.releases == 1 }) { sched_yield() }
      }
      let listener = Listener()
      try listener.start(shared.domain)
      try listener.replay()
      try demandSame(listener.pages, left.all, "what a replay tells")
      listener.stop()
      #expect(!Box.isShared(shared.domain))
    }
  }
}
