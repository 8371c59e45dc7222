// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What is done with peers. Bridges, devices and mappings are counted around those there are; nil is a root
/// bus.
enum PeerStep {
  case addBridge(below: Int?, isolates: Bool, passing: Int)
  case setIsolation(bridge: Int, Bool)
  case add(bridge: Int?, slot: Int?, isUntrusted: Bool, tracks: Bool)
  case remove(Int)
  case provide(Int, peer: Int)
  case withdraw(Int)
  case map(Int, peer: Int, page: Int)
  case unmap(Int)
}

/// Devices that reach each other's memory beside naive twins. Each of a few peers has memory and bus addresses
/// of its own, and no two mappings are at one address.
final class PeerWorld: World {
  private static let bridgesMax = 8
  private static let devicesMax = 8
  static let peerCount = 4
  static let pageCount = 4

  private struct Device {
    let number: Int
    let handle: OpaquePointer
    let view: OpaquePointer
    let tracks: Bool
  }

  private struct Mapping {
    let device: Int
    let peer: Int
    let page: Int
    let isByBus: Bool
    let address: UInt64
  }

  private let system: OpaquePointer
  private var bridges: [OpaquePointer] = []
  private var devices: [Device] = []
  private var peers: [Int: (handle: OpaquePointer, provider: Int)] = [:]
  /// In whose group a peer is, or was last.
  private var groups: [Int: Int] = [:]
  private var mappings: [Mapping] = []
  private var topology = TopologyModel(groupCount: 0)
  private var model = PeerModel()
  private var nextNumber = 0

  init() throws {
    system = try makeObject { dmacore_system_create(nil, &$0) }
  }

  private static func phys(_ peer: Int) -> UInt64 { 0x38_0000_0000 + UInt64(peer) << 20 }
  /// Those of every second peer are its physical ones.
  private static func bus(_ peer: Int) -> UInt64 {
    peer % 2 == 0 ? phys(peer) : 0xC000_0000 + UInt64(peer) << 20
  }

  private func bridge(_ index: Int?) -> Int? {
    index.flatMap { bridges.isEmpty ? nil : $0 % bridges.count }
  }

  private func device(_ index: Int) -> Device? {
    devices.isEmpty ? nil : devices[index % devices.count]
  }

  func take(_ step: PeerStep, _ log: inout StepLog) throws {
    log.note("\(step)")
    switch step {
    case .addBridge(let below, let isolates, let passing):
      guard bridges.count < Self.bridgesMax else { return }
      let parent = bridge(below)
      let passing = parent == nil ? passing : 0
      var options = dmacore_bridge_options()
      options.struct_size = MemoryLayout.size(ofValue: options)
      options.flags =
        (isolates ? DMACORE_BRIDGE_ISOLATES.rawValue : 0)
        | [
          0, DMACORE_BRIDGE_HOST_PASSES.rawValue, DMACORE_BRIDGE_HOST_PASSES_ACROSS.rawValue,
        ][passing]
      options.parent = parent.map { bridges[$0] }
      bridges.append(try makeObject { dmacore_bridge_create(system, &options, &$0) })
      _ = topology.addBridge(below: parent, isolates: isolates)
      model.bridges.append(
        PeerModel.Bridge(
          parent: parent, isolates: isolates, passing: [.nothing, .below, .across][passing]))
    case .setIsolation(let index, let isolates):
      guard let bridge = bridge(index) else { return }
      let expected = topology.setIsolation(of: bridge, isolates)
      try demandSame(
        dmacore_bridge_set_isolation(bridges[bridge], isolates), expected, "set isolation")
      if expected == 0 { model.bridges[bridge].isolates = isolates }
    case .add(let below, let slot, let isUntrusted, let tracks):
      try add(bridge(below), slot, isUntrusted, tracks)
    case .remove(let index):
      guard let device = device(index),
        !peers.values.contains(where: { $0.provider == device.number }),
        !mappings.contains(where: { $0.device == device.number })
      else { return }
      devices.removeAll { $0.number == device.number }
      dmacore_view_destroy(device.view)
      dmacore_device_destroy(device.handle)
      topology.remove(device.number)
      model.devices[device.number] = nil
    case .provide(let index, let peer):
      guard let device = device(index) else { return }
      try provide(device, peer)
    case .withdraw(let peer):
      dmacore_peer_destroy(peers.removeValue(forKey: peer)?.handle)
    case .map(let index, let peer, let page):
      guard let device = device(index) else { return }
      try map(device, peer, page)
    case .unmap(let index):
      guard !mappings.isEmpty else { return }
      try unmap(mappings.remove(at: index % mappings.count))
    }
    try compareRoutes()
    try compareViews()
  }

  private func add(_ bridge: Int?, _ slot: Int?, _ isUntrusted: Bool, _ tracks: Bool) throws {
    guard devices.count < Self.devicesMax else { return }
    var ids = [UInt32]()
    if let slot { ids.append(UInt32(slot * 8 + nextNumber % 8)) }
    var options = dmacore_device_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags =
      (slot == nil ? 0 : DMACORE_DEVICE_SHARES_SLOT.rawValue)
      | (isUntrusted ? DMACORE_DEVICE_UNTRUSTED.rawValue : 0)
      | (tracks ? DMACORE_DEVICE_TRACK_DIRECT.rawValue : 0)
    options.streaming_mask = UInt64.max
    options.bridge = bridge.map { bridges[$0] }
    let expected = topology.add(
      nextNumber,
      TopologyModel.Device(bridge: bridge, ids: ids, sharesSlot: slot != nil, iommu: nil),
      givenGroup: nil)
    var made: OpaquePointer?
    let result = ids.withUnsafeBufferPointer { ids in
      options.ids = ids.baseAddress
      options.id_count = ids.count
      return dmacore_device_create(system, &options, &made)
    }
    try demandSame(result, expected, "create a device")
    guard let made else { return }
    let view = try makeObject { dmacore_view_create(made, &$0) }
    devices.append(Device(number: nextNumber, handle: made, view: view, tracks: tracks))
    model.devices[nextNumber] = PeerModel.Device(
      bridge: bridge, slot: slot, isUntrusted: isUntrusted)
    nextNumber += 1
  }

  private func provide(_ device: Device, _ peer: Int) throws {
    var options = dmacore_peer_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.phys = Self.phys(peer)
    options.size = UInt64(Self.pageCount) * 4096
    options.bus = peer % 2 == 0 ? 0 : Self.bus(peer)
    var made: OpaquePointer?
    let result = dmacore_peer_create(device.handle, &options, &made)
    let group = topology.devices[device.number]!.group
    let isThere = peers[peer] != nil || mappings.contains { $0.peer == peer && $0.isByBus }
    // A mapping from when it was plain memory, or one through the host bridge.
    let isInTheWay = mappings.contains { mapping in
      mapping.address & ~0xF_FFFF == Self.bus(peer)
        && topology.devices[mapping.device]!.group == group && self.isRecorded(mapping)
    }
    try demandSame(result, isThere ? -EEXIST : isInTheWay ? -EBUSY : 0, "create a peer")
    if let made {
      peers[peer] = (made, device.number)
      groups[peer] = group
    }
  }

  private func isRecorded(_ mapping: Mapping) -> Bool {
    mapping.isByBus || model.devices[mapping.device]!.isUntrusted
      || devices.first { $0.number == mapping.device }!.tracks
  }

  private func route(_ device: Device, _ peer: Int) -> PeerModel.Route? {
    peers[peer].map { model.route(from: device.number, to: $0.provider).0 }
  }

  private func map(_ device: Device, _ peer: Int, _ page: Int) throws {
    let route = route(device, peer)
    let isByBus = route == .busAddress
    let address = (isByBus ? Self.bus(peer) : Self.phys(peer)) + UInt64(page) * 4096
    // Two mappings at one address could not be told apart.
    guard !mappings.contains(where: { $0.device == device.number && $0.address == address }) else {
      return
    }
    // It is plain memory, at addresses that are those of a peer which is still mapped.
    // And for devices that nobody trusts all is copied, for which there is no pool, but what is at a bus
    // address.
    let isKept =
      !isByBus && model.devices[device.number]!.isUntrusted
      || route == nil && Self.bus(peer) == Self.phys(peer)
        && groups[peer] == topology.devices[device.number]!.group
        && mappings.contains { $0.peer == peer && $0.isByBus }
    var dma: UInt64 = 0
    try demandSame(
      dmacore_map_phys(
        device.handle, Self.phys(peer) + UInt64(page) * 4096, 4096,
        DMACORE_BIDIRECTIONAL.rawValue, 0, &dma),
      route == .unreachable ? -EREMOTEIO : isKept ? -ERANGE : 0, "map")
    guard route != .unreachable && !isKept else { return }
    try demandSame(dma, address, "address of a mapping")
    mappings.append(
      Mapping(
        device: device.number, peer: peer, page: page, isByBus: isByBus, address: address))
  }

  private func unmap(_ mapping: Mapping) throws {
    let device = devices.first { $0.number == mapping.device }!
    try demandSame(
      dmacore_unmap(device.handle, mapping.address, 4096, DMACORE_BIDIRECTIONAL.rawValue, 0), 0,
      "unmap")
  }

  private func compareRoutes() throws {
    for (number, peer) in peers {
      for device in devices {
        var (route, distance) = (UInt32.max, UInt32.max)
        try demandSame(
          dmacore_peer_route(peer.handle, device.handle, &route, &distance), 0, "route")
        let expected = model.route(from: device.number, to: peer.provider)
        try demandSame(route, expected.0.rawValue, "route from \(device.number) to \(number)")
        try demandSame(
          distance, expected.distance, "distance from \(device.number) to \(number)")
      }
    }
  }

  /// Where each device's requests to bus and to physical addresses lead.
  private func compareViews() throws {
    for device in devices {
      for peer in 0..<Self.peerCount {
        let isByBus = route(device, peer) == .busAddress
        for page in 0..<Self.pageCount {
          let offset = UInt64(page) * 4096
          try compare(
            device, Self.bus(peer) + offset, to: isByBus ? Self.phys(peer) + offset : nil)
          // The other addresses of a peer that has two kinds.
          if peer % 2 == 1 { try compare(device, Self.phys(peer) + offset, to: nil) }
        }
      }
    }
  }

  private func compare(_ device: Device, _ address: UInt64, to target: UInt64?) throws {
    let isMapped = mappings.contains { mapping in
      mapping.device == device.number && mapping.address == address
        && mapping.isByBus == (target != nil)
    }
    var found = dmacore_translation()
    let result = dmacore_view_translate(
      device.view, address + 8, DMACORE_ACCESS_READ.rawValue, &found)
    try demandSame(result, isMapped || !device.tracks ? 0 : -ENOENT, "translate \(address)")
    guard result == 0 else { return }
    try demandSame(
      found.target &+ (address - found.first), target ?? address, "target of \(address)")
  }

  func compare() throws {}

  func end() throws {
    for mapping in mappings { try unmap(mapping) }
    for peer in peers.values { dmacore_peer_destroy(peer.handle) }
    for device in devices {
      dmacore_view_destroy(device.view)
      dmacore_device_destroy(device.handle)
    }
    for bridge in bridges { dmacore_bridge_destroy(bridge) }
    dmacore_system_destroy(system)
  }
}
