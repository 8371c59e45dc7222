// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Foundation
import MachineSupport
import Mapping
import Primitives
import Synchronization
import TestSupport
import Testing

@testable import Translation

/// A driver of one device at a time, which looks at each call whether it was due.
private final class Site: @unchecked Sendable {
  let take: (UnsafeMutablePointer<Device>) throws -> Void
  let giveBack: (UnsafeMutablePointer<Device>) throws -> Void
  private let isTaken = Atomic<Bool>(false)
  private let lock = NSLock()
  private var problems: [String] = []
  private let descriptor = UnsafeMutablePointer<dmacore_driver>.allocate(capacity: 1)
  private let name = strdup("driver")

  init(
    flags: UInt32 = 0, domainType: UInt32 = 0,
    take: @escaping (UnsafeMutablePointer<Device>) throws -> Void,
    giveBack: @escaping (UnsafeMutablePointer<Device>) throws -> Void
  ) {
    self.take = take
    self.giveBack = giveBack
    descriptor.initialize(
      to: dmacore_driver(
        struct_size: MemoryLayout<dmacore_driver>.size, flags: flags, domain_type: domainType,
        name: name,
        probe: { device, opaque in Site.from(opaque).probe(UnsafeMutablePointer(device!)) },
        remove: { device, opaque in Site.from(opaque).remove(UnsafeMutablePointer(device!)) },
        opaque: Unmanaged.passUnretained(self).toOpaque()))
  }

  deinit {
    descriptor.deallocate()
    free(name)
  }

  private static func from(_ opaque: UnsafeMutableRawPointer?) -> Site {
    Unmanaged<Site>.fromOpaque(opaque!).takeUnretainedValue()
  }

  var driver: Driver {
    get throws { try Driver(descriptor, descriptor.pointee) }
  }

  func check() throws {
    try demand(problems.isEmpty, problems.first ?? "")
    try demand(!isTaken.load(ordering: .acquiring), "remove was not called")
  }

  private func note(_ problem: String) { lock.withLock { problems.append(problem) } }

  private func probe(_ device: UnsafeMutablePointer<Device>) -> Int32 {
    if isTaken.exchange(true, ordering: .acquiringAndReleasing) {
      note("probe is called for a device that is taken")
    }
    do {
      try take(device)
      return 0
    } catch {
      isTaken.store(false, ordering: .releasing)
      guard let failure = error as? Failure else {
        note("\(error)")
        return -EIO
      }
      return -failure.code
    }
  }

  private func remove(_ device: UnsafeMutablePointer<Device>) {
    do { try giveBack(device) } catch { note("\(error)") }
    if !isTaken.exchange(false, ordering: .acquiringAndReleasing) {
      note("remove is called for a device that is not taken")
    }
  }
}

@Suite("Driver: threads")
struct DriverConcurrencyTests {
  private static let address: UInt64 = 0x10000

  /// Two devices of a group, and domains for two owners, in each of which the address leads elsewhere.
  private final class Shared: @unchecked Sendable {
    let machine: Machine
    let devices: [UnsafeMutablePointer<Device>]
    let domains: [UnsafeMutablePointer<Domain>]
    let views: [UnsafeMutablePointer<View>]
    let tokens: UnsafeMutablePointer<UInt8>
    let pages = Pages(count: 1)
    // Of the driver that has the first device.
    var mapped = DMAAddress(0)
    var mapping: Site!
    var owning: Site!

    init(_ machine: Machine) throws {
      self.machine = machine
      let group = try Box<Group>.place { () throws(Failure) in try Group(system: machine.system) }
      defer { Box.letGo(group) }
      devices = try (0..<2).map { _ in try machine.device(in: group) }
      domains = try (0..<2).map { _ in try machine.domain(.unmanaged) }
      for (index, domain) in domains.enumerated() {
        try domain.pointee.map(
          IOVARange(first: IOVA(DriverConcurrencyTests.address), size: 4096),
          to: PhysicalAddress(Shared.target(index)), access: .read)
      }
      views = try devices.map { device in
        try Box<View>.place { () throws(Failure) in View(device: device) }
      }
      tokens = .allocate(capacity: 2)
      tokens.initialize(repeating: 0, count: 2)
      mapping = Site(
        domainType: DMACORE_DOMAIN_DMA.rawValue, take: { [unowned self] in try self.map($0) },
        giveBack: { [unowned self] in try self.unmap($0) })
      owning = Site(
        flags: DMACORE_DRIVER_MANAGES_DMA.rawValue, take: { [unowned self] _ in try self.own(1) },
        giveBack: { [unowned self] _ in try self.disown(1) })
    }

    deinit {
      for view in views { Box.destroy(view) }
      tokens.deallocate()
    }

    static func target(_ domain: Int) -> UInt64 { UInt64(domain + 1) << 20 }

    private func map(_ device: UnsafeMutablePointer<Device>) throws {
      mapped = try device.pointee.map(pages.range(0), .toDevice)
      try look()
    }

    private func unmap(_ device: UnsafeMutablePointer<Device>) throws {
      try look()
      try device.pointee.unmap(dma(mapped.rawValue, size: 4096), .toDevice)
    }

    /// While a driver has the device, its mapping stays, and nobody else's domain is there.
    private func look() throws {
      let found = try views[0].pointee.translate(mapped, .read)
      try demandSame(
        found.target, try pages.range(0).first.rawValue, "where the driver's mapping leads")
      do {
        _ = try views[0].pointee.translate(DMAAddress(DriverConcurrencyTests.address), .read)
        throw Divergence("a driver's device is in an owner's domain")
      } catch let error as Failure {
        try demandSame(error, .notFound, "why the address leads nowhere")
      }
    }

    /// Takes the group, if nobody has it.
    func own(_ number: Int) throws {
      let token = UnsafeRawPointer(tokens + number)
      let group = devices[0].pointee.group
      try group.pointee.claim(Owner(token: token, kind: 1, name: nil), through: nil)
      try group.pointee.attach(domains[number], by: token)
      try demandOwned(number)
    }

    func disown(_ number: Int) throws {
      try demandOwned(number)
      try devices[0].pointee.group.pointee.release(UnsafeRawPointer(tokens + number))
    }

    private func demandOwned(_ number: Int) throws {
      for view in views {
        let found = try view.pointee.translate(DMAAddress(DriverConcurrencyTests.address), .read)
        try demandSame(found.target, Shared.target(number), "where the owner's address leads")
      }
    }
  }

  /// Binds and unbinds; others may be faster in both.
  private func bind(
    _ device: UnsafeMutablePointer<Device>, _ site: Site, _ isUnbound: Bool
  ) throws {
    do {
      if isUnbound { try Device.unbind(device) } else { try Device.bind(device, to: site.driver) }
    } catch let error as Failure {
      try demand(
        [.busy, .notFound, .notPermitted].contains(error), "a driver is refused with \(error.code)")
    }
  }

  private func owned(_ shared: Shared, _ round: Int) throws {
    do {
      if round % 4 == 0 {
        // Only a free group takes another kind; lazy or strict it becomes at any time.
        let kinds = [DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA, DMACORE_DOMAIN_DMA_LAZY]
        let type = try DefaultType(checking: kinds[round / 4 % 3].rawValue)!
        try Group.setDefaultType(of: shared.devices[0].pointee.group, type)
      } else {
        try shared.own(0)
        try shared.disown(0)
      }
    } catch let error as Failure {
      try demand([.busy, .notPermitted].contains(error), "refused with \(error.code)")
    }
  }

  /// From a domain that there is, and never a torn one.
  private func translate(_ shared: Shared) throws {
    do {
      let found = try shared.views[1].pointee.translate(DMAAddress(Self.address), .read)
      try demand(
        found.target == found.first || (0..<2).contains { found.target == Shared.target($0) },
        "translated to \(found.target)")
    } catch let error as Failure {
      try demand([.notFound, .notPermitted].contains(error), "translated with \(error.code)")
    }
  }

  /// Makes a device whose driver defers, and ends it, while others have it probed again.
  private func come(_ shared: Shared, _ round: Int) throws {
    let machine = shared.machine
    var options = dmacore_device_options()
    options.streaming_mask = UInt64.max
    let device = try Device.place(
      system: machine.system,
      DeviceDescription(options, iommu: machine.iommu, system: machine.system))
    let probes = Atomic<Int>(0)
    let site = Site(
      take: { device in
        let mapped = try device.pointee.map(shared.pages.range(0), .toDevice)
        try device.pointee.unmap(dma(mapped.rawValue, size: 4096), .toDevice)
        if probes.wrappingAdd(1, ordering: .relaxed).oldValue < 2 { throw Failure.tryAgain }
      }, giveBack: { _ in })
    do { try Device.bind(device, to: site.driver) } catch let error as Failure {
      try demandSame(error, .tryAgain, "why the bind is put off")
    }
    for _ in 0..<round % 64 { sched_yield() }
    if round % 2 == 0 {
      // Who wants the driver's structure back unbinds first, until it is not busy.
      while failure(of: { try Device.unbind(device) }) == .busy { sched_yield() }
      Device.close(device)
      Box.letGo(device)
      try site.check()
      return
    }
    Device.close(device)
    // Another thread's probe may be under way: the device ends after it.
    while Box.isShared(device) { sched_yield() }
    Box.letGo(device)
    try site.check()
  }

  @Test func driversHaveTheirDevicesToThemselves() throws {
    try withMachine { machine in
      let shared = try Shared(machine)
      let rounds = RunSettings.steps(1_500)
      try onThreads(6) { thread in
        for round in 0..<rounds {
          switch thread {
          case 0, 1: try bind(shared.devices[0], shared.mapping, round % 2 == 1)
          case 2: try bind(shared.devices[1], shared.owning, round % 2 == 1)
          case 3: try owned(shared, round)
          case 4: try translate(shared)
          default: try come(shared, round)
          }
        }
      }
      for device in shared.devices { try? Device.unbind(device) }
      try shared.mapping.check()
      try shared.owning.check()
      #expect(machine.reports.all.allSatisfy { $0.text.contains("default domain") })
      for domain in shared.domains { #expect(domain.pointee.statistics.deviceCount == 0) }
    }
  }
}
