// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Foundation
import MachineSupport
import Primitives
import TestSupport
import Testing

@testable import Translation

/// A device that asks, handlers that answer later on another thread, and what each was told.
private final class Shared: @unchecked Sendable {
  let machine: Machine
  private(set) var device: UnsafeMutablePointer<Device>! = nil
  private(set) var view: UnsafeMutablePointer<View>! = nil
  private let token = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
  private let lock = NSLock()
  private var waiting: [UnsafeMutablePointer<PageRequestGroup>] = []
  private var whole: Set<UInt32> = []
  private var answers: [UInt32: [UInt32]] = [:]
  private var askers = 2
  private var wrongFaults = 0
  private var faults = 0

  init(_ machine: Machine) throws {
    self.machine = machine
    let opaque = Unmanaged.passUnretained(self).toOpaque()
    device = try machine.device { options in
      options.page_request_capacity = 8
      options.page_response = { _, _, index, response, opaque in
        let shared = Shared.from(opaque)
        shared.lock.withLock { shared.answers[index, default: []].append(response) }
      }
      options.page_response_opaque = opaque
    }
    let device = device!
    view = try Box<View>.place { () throws(Failure) in View(device: device) }
    try group.pointee.claim(Owner(token: token, kind: 1, name: nil), through: nil)
  }

  deinit {
    if let view { Box.destroy(view) }
    token.deallocate()
  }

  private static func from(_ opaque: UnsafeMutableRawPointer?) -> Shared {
    Unmanaged<Shared>.fromOpaque(opaque!).takeUnretainedValue()
  }

  private var group: UnsafeMutablePointer<Group> { device.pointee.group }

  func attach(_ domain: UnsafeMutablePointer<Domain>?) throws {
    try group.pointee.attach(domain, by: token)
  }

  /// Attaches a domain with a handler that nobody else holds.
  func attachAnother() throws {
    var options = dmacore_domain_options()
    options.type = DMACORE_DOMAIN_UNMANAGED.rawValue
    options.opaque = Unmanaged.passUnretained(self).toOpaque()
    options.page_request = { group, opaque in
      let shared = Shared.from(opaque)
      shared.lock.withLock { shared.waiting.append(UnsafeMutablePointer(group!)) }
    }
    options.fault = { domain, _, fault, opaque in
      let shared = Shared.from(opaque)
      // The domain is there, whatever becomes of it.
      let isThere = UnsafeMutablePointer<Domain>(domain!).pointee.kind == .unmanaged
      let isRight = isThere && fault!.pointee.reason == DMACORE_FAULT_NOT_MAPPED.rawValue
      shared.lock.withLock {
        shared.faults += 1
        shared.wrongFaults += isRight ? 0 : 1
      }
    }
    let domain = try Box<Domain>.place { () throws(Failure) in
      try Domain(iommu: machine.iommu, DomainDescription(options, for: nil))
    }
    defer { Box.letGo(domain) }
    try attach(domain)
  }

  /// Asks for pages, more than the device may have at once, and faults in between.
  func ask(thread: Int) throws {
    let steps = UInt32(RunSettings.steps(1_000))
    var round: UInt32 = 0
    // On a busy machine nobody else may have had a turn by then.
    while round < steps || (!hasSeenAll && round < 20 * steps) {
      defer { round += 1 }
      let index = UInt32(thread) << 24 | round
      let count = 1 + round % 3
      var request = dmacore_page_request(
        dma: 0x1000, access: DMACORE_ACCESS_READ.rawValue, group_index: index, flags: 0,
        reserved: 0)
      for number in 1...count {
        if number == count { request.flags = DMACORE_PAGE_REQUEST_LAST.rawValue }
        while let failure = failure(of: { try view.pointee.requestPage(request) }) {
          try demandSame(failure, .noSpace, "why a request is refused")
          sched_yield()
        }
      }
      lock.withLock { _ = whole.insert(index) }
      var byte: UInt8 = 0
      _ = failure { try view.pointee.read(dma(0x1000, size: 1), into: &byte) }
    }
    lock.withLock { askers -= 1 }
  }

  /// Whether each thing has happened that threads may do to each other.
  private var hasSeenAll: Bool {
    lock.withLock {
      faults > 0 && answers.values.contains([0]) && answers.values.contains([1])
    }
  }

  /// Whether anybody may ask still.
  var isAsking: Bool { lock.withLock { askers > 0 } }

  /// Answers what is waiting, the newest first.
  func answerAll() throws {
    while true {
      let isLast = !isAsking
      while let group = lock.withLock({ waiting.popLast() }) {
        try demand(group.pointee.count >= 1, "a group has no requests")
        // Or the library has answered.
        let failure = failure { try PageRequestGroup.respond(to: group, with: 0) }
        try demand(failure == nil || failure == .notFound, "an answer is refused")
      }
      if isLast { return }
      sched_yield()
    }
  }

  /// Every group was answered once.
  func check() throws {
    try demandSame(Set(answers.keys), whole, "groups that were answered")
    for (index, responses) in answers {
      try demandSame(responses.count, 1, "answers to \(index)")
    }
    try demandSame(wrongFaults, 0, "faults that a domain was told wrongly")
    try demand(faults > 0, "no domain was told of a fault")
    try demand(answers.values.contains([0]), "no handler was in time")
    try demand(answers.values.contains([1]), "no domain left in time")
  }
}

@Suite("Page requests: threads")
struct PageRequestConcurrencyTests {
  @Test func everyGroupIsAnsweredOnceWhoeverTakesTheDomainAway() throws {
    try withMachine { machine in
      let shared = try Shared(machine)
      try shared.attachAnother()
      try onThreads(4) { thread in
        switch thread {
        case 0, 1: try shared.ask(thread: thread)
        case 2: try shared.answerAll()
        default:
          var round = 0
          while shared.isAsking {
            if round % 4 == 3 { try shared.attach(nil) } else { try shared.attachAnother() }
            round += 1
          }
        }
      }
      try shared.attach(nil)
      try shared.check()
    }
  }
}
