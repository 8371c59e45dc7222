// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import Synchronization
import TestSupport
import Testing
import Translation

/// What the threads of a test share: devices below one bridge, in a domain that has few addresses beside
/// those of the peer.
private final class Shared: @unchecked Sendable {
  let provider: UnsafeMutablePointer<Device>
  let bridge: UnsafeMutablePointer<Bridge>
  let devices: [UnsafeMutablePointer<Device>]
  let views: [UnsafeMutablePointer<View>]
  let bar = Pages(count: Shared.pageCount)
  let memory: [Pages]
  let isOver = Atomic<Int>(0)

  static let pageCount = 4
  static let bus: UInt64 = 0x4000_0000
  /// Of the domain: the peer's, and as many on either side.
  static let first = bus - UInt64(pageCount) * 4096
  static let last = bus + 2 * UInt64(pageCount) * 4096 - 1

  init(
    _ provider: UnsafeMutablePointer<Device>, _ bridge: UnsafeMutablePointer<Bridge>,
    _ devices: [UnsafeMutablePointer<Device>], _ views: [UnsafeMutablePointer<View>]
  ) {
    self.provider = provider
    self.bridge = bridge
    self.devices = devices
    self.views = views
    memory = devices.map { _ in Pages(count: 1) }
  }

  func options() throws -> dmacore_peer_options {
    dmacore_peer_options(
      struct_size: 0, flags: 0, reserved: 0, phys: try bar.range(0).first.rawValue,
      size: UInt64(Self.pageCount) * 4096, bus: Self.bus)
  }
}

@Suite("Peers on several threads")
struct PeerConcurrencyTests {
  /// Maps memory of its own, which the device must reach whatever peers there are, and the peer's.
  private static func map(_ shared: Shared, _ thread: Int, _ seed: UInt64) throws {
    defer { shared.isOver.add(1, ordering: .relaxed) }
    var generator = SeededGenerator(seed: seed &+ UInt64(thread))
    let (device, view) = (shared.devices[thread], shared.views[thread])
    let own = try shared.memory[thread].range(0)
    for round in 0..<RunSettings.steps(600) {
      let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 32)
      if generator.onceIn(2) {
        let address = try device.pointee.map(own, .bidirectional).rawValue
        try view.pointee.write(dma(address, size: 32), from: bytes)
        try demandSame(
          shared.memory[thread].page(0).load(as: UInt8.self), bytes[0],
          "what the device wrote at \(address)")
        try device.pointee.unmap(dma(address, size: 4096), .bidirectional)
      } else {
        // Not where the other one writes.
        let page = try shared.bar.range(2 * thread + generator.below(2))
        var address: UInt64 = 0
        // It may not be reachable at the moment.
        let refusal = failure { address = try device.pointee.map(page, .bidirectional).rawValue }
        guard refusal == nil else {
          try demandSame(refusal, .notReachable, "why a peer cannot be mapped")
          continue
        }
        // By its bus address it may be gone at any time.
        _ = failure { try view.pointee.write(dma(address, size: 32), from: bytes) }
        try device.pointee.unmap(dma(address, size: 4096), .bidirectional)
      }
    }
  }

  /// Lets the peer come and go, and access control change.
  private static func change(_ shared: Shared) throws {
    var isolates = false
    var made = 0
    while shared.isOver.load(ordering: .relaxed) < shared.devices.count || made == 0 {
      var peer: Peer.Link?
      let refusal = failure { peer = try Peer.place(shared.provider, shared.options()) }
      guard let peer else {
        try demand(refusal == .busy || refusal == .exists, "\(refusal!) instead of a peer")
        continue
      }
      made += 1
      for _ in 0..<20 {
        isolates.toggle()
        try Bridge.setIsolation(of: shared.bridge, isolates)
        _ = peer.pointee.route(from: shared.devices[0].pointee)
      }
      Peer.close(peer)
    }
  }

  @Test(arguments: [false, true]) func devicesReachTheirOwnMemoryWhateverPeersThereAre(
    tracks: Bool
  ) throws {
    try withMachine { machine in
      let bridge = try Box<Bridge>.place { () throws(Failure) in
        try Bridge(system: machine.system, parent: nil, isolates: false, hostPasses: .below)
      }
      defer { Box.letGo(bridge) }
      let domain = try machine.domain(.dma, first: Shared.first, last: Shared.last)
      let devices = try (0..<3).map { _ in
        try machine.device { options in
          options.bridge = OpaquePointer(bridge)
          options.flags = tracks ? DMACORE_DEVICE_TRACK_DIRECT.rawValue : 0
        }
      }
      try devices[0].pointee.attach(domain)
      let views = try devices.map { device in
        try Box<View>.place { () throws(Failure) in View(device: device) }
      }
      defer { for view in views { Box.destroy(view) } }
      let shared = Shared(devices[2], bridge, Array(devices[..<2]), Array(views[..<2]))
      let seed = RunSettings.seed
      try onThreads(3) { thread in
        if thread < 2 {
          try Self.map(shared, thread, seed)
        } else {
          try Self.change(shared)
        }
      }
      #expect(domain.pointee.statistics.mappingCount == 0)
      #expect(machine.reports.all == [])
    }
  }
}
