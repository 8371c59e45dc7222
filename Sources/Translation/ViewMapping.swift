// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MemoryMap
import Primitives

/// Memory that a device reaches without a copy, held where it is until this ends.
///
/// It pins the memory regions, so that they cannot be removed, and enters its range in the pin table
/// of the domain (or of a directly mapped device), so that an unmap of the range finds it. Through a
/// nested domain it enters each run in the pin table of the parent too, by guest-physical addresses.
@safe
public struct ViewMapping: ~Copyable {
  /// How many of each a range needs.
  private struct Counts: Equatable {
    var segments = 0
    var regions = 0
    /// Of a nested domain.
    var runs = 0
  }

  private let device: UnsafeMutablePointer<Device>
  // The domain that the range is pinned in; nil for the device's own pins.
  private let domain: UnsafeMutablePointer<Domain>?
  private let node: UnsafeMutablePointer<PinTable.Node>
  private let lists: Lists

  // SAFETY: all of them were filled in before the mapping was made, and they live as long as it.
  public var segments: UnsafePointer<dmacore_view_segment> { unsafe UnsafePointer(lists.segments) }

  public var segmentCount: Int { lists.counts.segments }

  // A range that keeps changing between the pass that counts and the pass that fills in is given
  // up after so many tries.
  private static var tries: Int { 8 }

  /// - Throws: a refusal, after it has been made a fault; `notSupported`, `tryAgain`, `noMemory`.
  public init(
    view: UnsafeMutablePointer<View>, _ range: DMARange, _ access: Access
  ) throws(Failure) {
    let device = unsafe view.pointee.device
    let node = unsafe try Box<PinTable.Node>.place { () throws(Failure) in
      PinTable.Node(
        first: range.first.rawValue, last: range.last.rawValue, payload: .pinned(access))
    }
    do throws(Failure) {
      let (lists, domain) = unsafe try Self.make(view, range, access, node)
      unsafe Box.hold(device)
      unsafe self.device = device
      unsafe self.domain = domain.pointer
      unsafe self.node = node
      self.lists = lists
    } catch {
      unsafe Box.destroy(node)
      throw error
    }
  }

  deinit {
    noteWrite()
    unsafe lists.unpinAndFree(in: domain)
    unsafe Self.unpin(node, device, domain)
    unsafe Box.destroy(node)
    unsafe Box.letGo(device)
  }

  /// Lets the domain know what may have been written, while the range is still pinned there: who reads
  /// what was written finds the one or the other.
  private func noteWrite() {
    guard unsafe node.pointee.payload.isForWriting, let domain = unsafe domain else { return }
    let token = unsafe device.pointee.system.pointee.readers.enter()
    if let nesting = unsafe domain.pointee.nesting {
      for index in 0..<lists.counts.runs {
        unsafe nesting.pointee.translation.pointee.noteWrite(
          lists.runs[index].first, lists.runs[index].last)
      }
    } else {
      unsafe domain.pointee.translation?.pointee.noteWrite(node.pointee.first, node.pointee.last)
    }
    unsafe device.pointee.system.pointee.readers.leave(token)
  }

  /// A domain that is held, or the knowledge that none is needed.
  @safe
  private struct HeldDomain {
    let pointer: UnsafeMutablePointer<Domain>?
  }

  /// Counts, allocates, pins, and then fills in what was counted, unless it has changed since.
  private static func make(
    _ view: UnsafeMutablePointer<View>, _ range: DMARange, _ access: Access,
    _ node: UnsafeMutablePointer<PinTable.Node>
  ) throws(Failure) -> (Lists, HeldDomain) {
    for _ in 0..<tries {
      let isNested = unsafe view.pointee.isNested
      var counter = Collector(lists: nil)
      try unsafe view.pointee.forEachRun(of: range, access) { (step, size) throws(Failure) in
        guard counter.add(step, size: size) else { throw .notSupported }
        if isNested { counter.counts.runs += 1 }
      }
      let lists = try Lists(room: counter.counts)
      guard let domain = unsafe pin(node, view) else {
        lists.free()
        continue
      }
      let device = unsafe view.pointee.device
      let (filled, isWhole) = unsafe fill(lists, view, range, access, domain)
      if isWhole && filled.counts == lists.counts {
        unsafe device.pointee.withPins(of: domain.pointer) { unsafe $0.settle(node) }
        return (filled, domain)
      }
      unsafe filled.unpinAndFree(in: domain.pointer)
      unsafe unpin(node, device, domain.pointer)
    }
    throw .tryAgain
  }

  /// Pins the range where the device's path leads at this moment; nil when it is closed there, or
  /// the device is blocked.
  ///
  /// From here on nobody frees coherent memory in the range, whatever is resolved after this.
  private static func pin(
    _ node: UnsafeMutablePointer<PinTable.Node>, _ view: UnsafeMutablePointer<View>
  ) -> HeldDomain? {
    let device = unsafe view.pointee.device
    let token = unsafe device.pointee.system.pointee.readers.enter()
    defer { unsafe device.pointee.system.pointee.readers.leave(token) }
    switch unsafe view.pointee.currentPath {
    case .blocked:
      return nil
    case .direct:
      return unsafe device.pointee.pins.add(node) ? HeldDomain(pointer: nil) : nil
    case .translated(_, let domain), .nested(_, let domain):
      guard unsafe domain.pointee.pins.add(node) else { return nil }
      unsafe Box.hold(domain)
      return unsafe HeldDomain(pointer: domain)
    }
  }

  @inline(never)
  private static func unpin(
    _ node: UnsafeMutablePointer<PinTable.Node>, _ device: UnsafeMutablePointer<Device>,
    _ domain: UnsafeMutablePointer<Domain>?
  ) {
    unsafe device.pointee.withPins(of: domain) { unsafe $0.remove(node) }
    if let domain = unsafe domain { unsafe Box.letGo(domain) }
  }

  /// Resolves the range again, by the domain that it is pinned in, and fills in what there is room
  /// for. Says whether that was all.
  private static func fill(
    _ lists: Lists, _ view: UnsafeMutablePointer<View>, _ range: DMARange, _ access: Access,
    _ domain: HeldDomain
  ) -> (Lists, isWhole: Bool) {
    var collector = Collector(lists: lists)
    var address = range.first.rawValue
    while let last = unsafe fillRun(
      &collector, view, from: address, through: range.last.rawValue, access, domain)
    {
      if last == range.last.rawValue { return (lists.with(collector.counts), true) }
      address = last &+ 1
    }
    return (lists.with(collector.counts), false)
  }

  /// Fills in one run, in a read section of its own, and returns where it ends.
  private static func fillRun(
    _ collector: inout Collector, _ view: UnsafeMutablePointer<View>, from address: UInt64,
    through last: UInt64, _ access: Access, _ domain: HeldDomain
  ) -> UInt64? {
    let device = unsafe view.pointee.device
    let token = unsafe device.pointee.system.pointee.readers.enter()
    defer { unsafe device.pointee.system.pointee.readers.leave(token) }
    let path = unsafe view.pointee.currentPath
    var pathDomain: UnsafeMutablePointer<Domain>? = nil
    switch path {
    case .translated(_, let found), .nested(_, let found): unsafe pathDomain = found
    case .direct, .blocked: break
    }
    guard unsafe pathDomain == domain.pointer else { return nil }
    let step = unsafe view.pointee.step(from: address, through: last, access, by: path)
    guard case .memory(_, _, let runLast, let noteOffset) = step,
      collector.add(step, size: runLast &- address &+ 1)
    else { return nil }
    if case .nested(let nesting, _) = path {
      let isPinned = unsafe collector.addRun(
        address &+ noteOffset, runLast &+ noteOffset, access, in: nesting.pointee.parent)
      guard isPinned else { return nil }
    }
    return runLast
  }

  // MARK: - Lists

  /// The segments of a mapping and the regions that it pins, in one allocation.
  @safe
  private struct Lists {
    let segments: UnsafeMutablePointer<dmacore_view_segment>
    let regions: UnsafeMutablePointer<PhysicalMemory.Region>
    let runs: UnsafeMutablePointer<PinTable.Node>
    let counts: Counts

    init(room: Counts) throws(Failure) {
      let segmentBytes = unsafe room.segments * MemoryLayout<dmacore_view_segment>.stride
      let regionBytes = room.regions * MemoryLayout<UInt>.stride
      let runBytes = room.runs * MemoryLayout<PinTable.Node>.stride
      let raw = unsafe try RawMemory.allocate(
        segmentBytes + regionBytes + runBytes, alignment: 16)
      // SAFETY: the allocation is so many segments long, then so many pointers, and then so many nodes;
      // the strides are multiples of a pointer's alignment.
      unsafe segments = raw.bindMemory(to: dmacore_view_segment.self, capacity: room.segments)
      unsafe regions = (raw + segmentBytes).bindMemory(
        to: PhysicalMemory.Region.self, capacity: room.regions)
      unsafe runs = (raw + segmentBytes + regionBytes).bindMemory(
        to: PinTable.Node.self, capacity: room.runs)
      counts = room
    }

    private init(_ other: Lists, counts: Counts) {
      unsafe segments = other.segments
      unsafe regions = other.regions
      unsafe runs = other.runs
      self.counts = counts
    }

    /// The same lists of which so much is filled in.
    func with(_ counts: Counts) -> Lists { Lists(self, counts: counts) }

    private func unpin(in domain: UnsafeMutablePointer<Domain>?) {
      for index in 0..<counts.regions { unsafe regions[index].pointee.unpin() }
      guard let nesting = unsafe domain?.pointee.nesting else { return }
      for index in 0..<counts.runs {
        unsafe nesting.pointee.parent.pointee.pins.remove(runs + index)
      }
    }

    func free() { unsafe RawMemory.free(segments) }

    @inline(never)
    func unpinAndFree(in domain: UnsafeMutablePointer<Domain>?) {
      unsafe unpin(in: domain)
      free()
    }
  }

  /// Turns runs into as few segments as can be. Without lists it only counts.
  @safe
  private struct Collector {
    let lists: Lists?
    var counts = Counts()
    private var end: UnsafeMutableRawPointer? = nil
    private var region: PhysicalMemory.Region? = nil

    init(lists: Lists?) { self.lists = lists }

    /// Pins where a run lies in the parent of a nested domain; false when there is no room.
    mutating func addRun(
      _ first: UInt64, _ last: UInt64, _ access: Access, in parent: UnsafeMutablePointer<Domain>
    ) -> Bool {
      guard let lists, counts.runs < lists.counts.runs else { return false }
      let node = unsafe lists.runs + counts.runs
      unsafe node.initialize(to: PinTable.Node(first: first, last: last, payload: .pinned(access)))
      guard unsafe parent.pointee.pins.add(node) else { return false }
      counts.runs &+= 1
      return true
    }

    /// Adds a run; false when it has no bytes to point to, does not fit, or is going away.
    mutating func add(_ step: View.Step, size: UInt64) -> Bool {
      guard case .memory(let host, let owner, _, _) = step else { return false }
      if let owner = unsafe owner, unsafe region != owner {
        if let lists {
          guard counts.regions < lists.counts.regions, unsafe owner.pointee.pin() else {
            return false
          }
          unsafe lists.regions[counts.regions] = owner
        }
        counts.regions &+= 1
        unsafe region = owner
      }
      if let end = unsafe end, unsafe host == end {
        if let lists { unsafe lists.segments[counts.segments - 1].size &+= size }
      } else {
        if let lists {
          guard counts.segments < lists.counts.segments else { return false }
          unsafe lists.segments[counts.segments] = dmacore_view_segment(host: host, size: size)
        }
        counts.segments &+= 1
      }
      // A run may be longer than half the space, where bytes are not really there.
      unsafe end = host + Int(truncatingIfNeeded: size)
      return true
    }
  }
}
