// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives
import Synchronization

// Theory of operation: peer to peer.
//
// 1. Concepts
// A peer is memory of a device that other devices may reach: a range of physical memory, and as many bus
// addresses. `peer.h` says by which route. A request that goes by bus address comes to no IOMMU, so devices
// between which that is a route are always in one group: they have a bridge in common that does not isolate,
// or share a slot, or are one device (Topology.swift).
//
// 2. Implementation
// 2.1 Routes are worked out from the places of two devices whenever somebody asks, and kept nowhere, so
// that there is nothing to correct when access control changes.
// 2.2 A system has a list of its peers. Who makes one marks the devices of the provider's group, which is
// the only ones that may reach it by bus address: they alone have a longer way through their views, and
// have all mappings by bus address recorded. The mark stays.
// 2.3 Bus addresses are nobody else's while there is a peer. It is in the list before the group is looked at
// for mappings that are in its way; a mapping call that does not find it there has begun before, so that it
// is seen under way or by its record. All other calls keep clear of it.
// 2.4 A mapping by bus address holds the peer until it ends. So a peer that was destroyed stays in the list,
// closed, where it leads nowhere and keeps its addresses.
//
// 3. Locking
// Changes of the list take its lock (rank 16), in which no other is taken. It is read without one, inside a
// read section.
//
// 4. What this does not do
// It does not keep a device from physical memory that happens to be a peer's, but by mapping calls.

/// How a device reaches a peer. The values are those of `peer.h`.
public enum PeerRoute: UInt32, Sendable {
  case unreachable = 0
  case busAddress = 1
  case hostBridge = 2
}

/// Memory of a device that others may reach. Lock-free read.
@safe
public struct Peer: ~Copyable, Held {
  public typealias Link = UnsafeMutablePointer<Peer>

  let provider: UnsafeMutablePointer<Device>
  /// Where the bus has it, and where it is.
  let window: DMARanges.Window
  private let wasDestroyed = Atomic<Bool>(false)
  // The list's: the address of the one that was added before.
  private let nextAddress = Atomic<UInt>(0)
  private let uses = UseCount()

  /// A new peer.
  ///
  /// - Throws: `invalidArgument` for ranges that are empty, wrap or are not of whole pages, `exists` when
  ///   they overlap another peer's, `busy` when the bus addresses are in use, `noMemory`.
  public static func place(
    _ provider: UnsafeMutablePointer<Device>, _ options: dmacore_peer_options
  ) throws(Failure) -> Link {
    let window = try DMARanges.Window(
      dmacore_dma_range(
        bus: options.bus == 0 ? options.phys : options.bus, phys: options.phys, size: options.size))
    let peer = unsafe try Box<Peer>.place { () throws(Failure) in
      unsafe Peer(provider: provider, window: window)
    }
    do throws(Failure) {
      try unsafe provider.pointee.system.pointee.peers.add(peer)
      try unsafe provider.pointee.group.pointee.keepClear(of: window.bus)
    } catch {
      unsafe letGo(peer)
      throw error
    }
    return unsafe peer
  }

  /// Holds the provider until it ends.
  private init(provider: UnsafeMutablePointer<Device>, window: DMARanges.Window) {
    unsafe Box.hold(provider)
    unsafe self.provider = provider
    self.window = window
  }

  deinit { unsafe Box.letGo(provider) }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  fileprivate var next: Link? {
    // SAFETY: only the list sets this, to the address of one that is in it and freed when no read section
    // that found it is open.
    // Acquiring: pairs with the release in `setNext`, so that the peer is made whole.
    unsafe UnsafeMutablePointer(bitPattern: nextAddress.load(ordering: .acquiring))
  }

  fileprivate func setNext(_ next: Link?) {
    nextAddress.store(UInt(bitPattern: next), ordering: .releasing)
  }

  /// Gives the handle back: when this returns no access by a bus address is in flight.
  public static func close(_ peer: Link) {
    unsafe peer.pointee.wasDestroyed.store(true, ordering: .relaxed)
    unsafe peer.pointee.system.pointee.readers.waitForReaders()
    unsafe letGo(peer)
  }

  /// The last holder takes it out of the list.
  fileprivate static func letGo(_ peer: Link) {
    guard unsafe peer.pointee.withUses({ $0.decrement() }) == 0 else { return }
    let system = unsafe peer.pointee.system
    unsafe system.pointee.peers.remove(peer)
    unsafe system.pointee.readers.waitForReaders()
    unsafe Box.destroy(peer)
  }

  public var system: UnsafeMutablePointer<System> { unsafe provider.pointee.system }

  // MARK: - Routes

  /// Whether its handle was given back.
  fileprivate var isClosed: Bool { wasDestroyed.load(ordering: .relaxed) }

  /// How a device of the system reaches it, and over how many bridges.
  public func route(from client: borrowing Device) -> (route: PeerRoute, distance: UInt32) {
    if unsafe isClosed || provider.pointee.isGone { return (.unreachable, 0) }
    let (from, to) = unsafe (client.seat, provider.pointee.seat)
    let goesUp = client.isUntrusted
    if unsafe client.member == provider.pointee.member || (!goesUp && from.sharesSlot(with: to)) {
      return (.busAddress, 0)
    }
    let (first, otherFirst) = unsafe (from.bridge, to.bridge)
    var common = unsafe first
    while let bridge = unsafe common, unsafe !to.isBelow(bridge) {
      unsafe common = bridge.pointee.parent
    }
    if let common = unsafe common, !goesUp {
      var way = Way()
      unsafe way.pass(common)
      _ = unsafe (way.goUp(first, until: common), way.goUp(otherFirst, until: common))
      if !way.isIsolated { return (.busAddress, way.bridgeCount) }
    }
    var way = Way()
    let tops = unsafe (way.goUp(first, until: nil), way.goUp(otherFirst, until: nil))
    guard let top = unsafe tops.0, let otherTop = unsafe tops.1 else { return (.unreachable, 0) }
    let passes =
      unsafe top == otherTop
      ? top.pointee.hostPasses != .nothing
      : top.pointee.hostPasses == .across && otherTop.pointee.hostPasses == .across
    return passes ? (.hostBridge, way.bridgeCount) : (.unreachable, 0)
  }

  /// Bridges that requests pass.
  private struct Way {
    var bridgeCount: UInt32 = 0
    var isIsolated = false

    mutating func pass(_ bridge: UnsafeMutablePointer<Bridge>) {
      bridgeCount &+= 1
      if unsafe bridge.pointee.isolates { isIsolated = true }
    }

    /// Returns the last bridge on the way.
    @inline(never)
    mutating func goUp(
      _ first: UnsafeMutablePointer<Bridge>?, until end: UnsafeMutablePointer<Bridge>?
    ) -> UnsafeMutablePointer<Bridge>? {
      var (last, next) = unsafe (UnsafeMutablePointer<Bridge>?.none, first)
      while let bridge = unsafe next, unsafe bridge != end {
        unsafe pass(bridge)
        unsafe (last, next) = (bridge, bridge.pointee.parent)
      }
      return unsafe last
    }
  }
}

/// The peers of a system. Locked, rank 16.
@safe
public struct PeerList: ~Copyable {
  private let lock: Lock
  // The address of the one that was added last.
  private let newestAddress = Atomic<UInt>(0)

  init() throws(Failure) { lock = try Lock(.peers) }

  /// Whether there are none. A call that has to see one has taken a lock since that was added.
  @inline(__always)
  public var isEmpty: Bool { newestAddress.load(ordering: .relaxed) == 0 }

  private var newest: Peer.Link? {
    // SAFETY: as in `Peer.next`.
    // Acquiring: pairs with the release in `setNewest`, so that the peer is made whole.
    unsafe UnsafeMutablePointer(bitPattern: newestAddress.load(ordering: .acquiring))
  }

  private func setNewest(_ peer: Peer.Link?) {
    newestAddress.store(UInt(bitPattern: peer), ordering: .releasing)
  }

  /// - Throws: `exists`.
  fileprivate func add(_ peer: Peer.Link) throws(Failure) {
    lock.lock()
    defer { lock.unlock() }
    let window = unsafe peer.pointee.window
    guard unsafe first(where: { unsafe $0.pointee.window.overlaps(window) }) == nil else {
      throw .exists
    }
    unsafe peer.pointee.setNext(newest)
    unsafe setNewest(peer)
  }

  /// Takes a peer out, if it was added.
  fileprivate func remove(_ peer: Peer.Link) {
    lock.lock()
    defer { lock.unlock() }
    let next = unsafe peer.pointee.next
    if unsafe newest == peer { return unsafe setNewest(next) }
    let before = unsafe first { unsafe $0.pointee.next == peer }
    if let before = unsafe before { unsafe before.pointee.setNext(next) }
  }

  /// The first in the list that passes. The caller is inside a read section, or has the lock.
  fileprivate func first(where passes: (Peer.Link) -> Bool) -> Peer.Link? {
    var next = unsafe newest
    while let peer = unsafe next, unsafe !passes(peer) { unsafe next = peer.pointee.next }
    return unsafe next
  }
}

// MARK: - The device's side

extension Device {
  /// What an address means before a domain translates it.
  public enum Detour {
    /// It leads to a peer.
    case peer
    /// The bus passes it on.
    case none
    /// The bus does not have it.
    case hole
  }

  /// What an address means, and addresses around it that mean the same, with where they lead directly.
  ///
  /// The caller is inside a read section.
  ///
  /// - Parameter isGoingUp: whether the request never leads to a peer.
  @inline(never)
  public func detour(
    at address: UInt64, isGoingUp: Bool
  ) -> (kind: Detour, window: DMARanges.Window) {
    var (first, last) = (UInt64(0), UInt64.max)
    let found = unsafe system.pointee.peers.first { peer in
      guard unsafe !isGoingUp && peer.pointee.route(from: self).route == .busAddress else {
        return false
      }
      let bus = unsafe peer.pointee.window.bus
      if bus.first.rawValue > address {
        // It starts above an address, so there is one before it.
        last = min(last, bus.first.rawValue &- 1)
      } else if bus.last.rawValue < address {
        first = max(first, bus.last.rawValue &+ 1)
      } else {
        return true
      }
      return false
    }
    if let found = unsafe found { return unsafe (.peer, found.pointee.window) }
    if ranges.isEmpty { return (.none, DMARanges.Window(first, last)) }
    let (window, holeLast) = ranges.find(address)
    guard let window else { return (.hole, DMARanges.Window(address, min(holeLast, last))) }
    return (.none, window.part(from: first, through: last))
  }
}

// MARK: - The driver's side

extension Device {
  /// How the device reaches memory that is a peer's, or in part; nil if none of it is. By bus address also
  /// at which addresses, and the peer is held, if that is wanted, until `System.endMapping`.
  @inline(never)
  public func peerRoute(
    to memory: PhysicalRange, isHolding: Bool
  ) -> (route: PeerRoute, bus: DMARange?)? {
    let token = unsafe system.pointee.readers.enter()
    defer { unsafe system.pointee.readers.leave(token) }
    let found = unsafe system.pointee.peers.first {
      unsafe !$0.pointee.isClosed && $0.pointee.window.physical.overlaps(memory)
    }
    guard let peer = unsafe found else { return nil }
    let window = unsafe peer.pointee.window
    guard window.physical.contains(memory) else { return (.unreachable, nil) }
    let route = unsafe peer.pointee.route(from: self).route
    guard route == .busAddress else { return (route, nil) }
    // Not one that is just ending.
    if isHolding, unsafe !peer.pointee.withUses({ $0.add(1, ifAbove: 0) }) {
      return (.unreachable, nil)
    }
    // Inside the window on the other side too.
    let first =
      window.bus.first.rawValue &+ (memory.first.rawValue &- window.physical.first.rawValue)
    return (route, DMARange(DMAAddress(first), through: DMAAddress(first &+ memory.extent)))
  }
}

extension System {
  /// Ends what a mapping by bus address has of a peer.
  public func endMapping(byBusAddress address: UInt64) {
    let token = readers.enter()
    // The mapping holds it.
    let peer = unsafe peers.first {
      unsafe $0.pointee.window.bus.first.rawValue <= address
        && address <= $0.pointee.window.bus.last.rawValue
    }
    readers.leave(token)
    if let peer = unsafe peer { unsafe Peer.letGo(peer) }
  }

  /// The bus addresses of a peer that has some in a range, the highest if there are several; of one whose
  /// provider is in a group, if that is said.
  @inline(never)
  public func peerBus(
    _ first: UInt64, _ last: UInt64, of group: UnsafeMutablePointer<Group>? = nil
  ) -> (first: UInt64, last: UInt64)? {
    let token = readers.enter()
    defer { readers.leave(token) }
    var found: (first: UInt64, last: UInt64)? = nil
    _ = unsafe peers.first { peer in
      let bus = unsafe peer.pointee.window.bus
      let (busFirst, busLast) = (bus.first.rawValue, bus.last.rawValue)
      if busFirst <= last && first <= busLast && busFirst >= found?.first ?? 0,
        unsafe group == nil || group == peer.pointee.provider.pointee.group
      {
        found = (busFirst, busLast)
      }
      return false
    }
    return found
  }
}
