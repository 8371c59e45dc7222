// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MemoryMap
import Primitives

/// Memory that a device reaches without a copy, held where it is until this ends.
///
/// It pins the memory regions, so that they cannot be removed, and enters its range in the pin table
/// of the domain (or of a directly mapped device), so that an unmap of the range finds it.
@safe
public struct ViewMapping: ~Copyable {
  /// How many of each a range needs.
  private struct Counts: Equatable {
    var segments = 0
    var regions = 0
  }

  private let device: UnsafeMutablePointer<Device>
  // The domain whose pin table has the node; nil for the device's own.
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
      PinTable.Node(first: range.first.rawValue, last: range.last.rawValue, payload: .pinned)
    }
    do throws(Failure) {
      let (lists, domain) = unsafe try Self.pin(view, range, access, node)
      unsafe Box.hold(device)
      unsafe self.device = device
      unsafe self.domain = domain
      unsafe self.node = node
      self.lists = lists
    } catch {
      unsafe Box.destroy(node)
      throw error
    }
  }

  deinit {
    if let domain = unsafe domain {
      unsafe domain.pointee.pins.remove(node)
      unsafe Box.letGo(domain)
    } else {
      unsafe device.pointee.pins.remove(node)
    }
    unsafe Box.destroy(node)
    lists.unpinAndFree()
    unsafe Box.letGo(device)
  }

  /// Counts, allocates, and then fills in what was counted, unless it has changed since.
  private static func pin(
    _ view: UnsafeMutablePointer<View>, _ range: DMARange, _ access: Access,
    _ node: UnsafeMutablePointer<PinTable.Node>
  ) throws(Failure) -> (Lists, UnsafeMutablePointer<Domain>?) {
    for _ in 0..<tries {
      var counter = Collector(lists: nil)
      try unsafe view.pointee.forEachRun(of: range, access) { (step, size) throws(Failure) in
        guard counter.add(step, size: size) else { throw .notSupported }
      }
      let lists = try Lists(room: counter.counts)
      if let domain = unsafe fill(view, range, access, node, lists) {
        return unsafe (lists.with(counter.counts), domain.pointer)
      }
      lists.free()
    }
    throw .tryAgain
  }

  /// A domain that is held, or the knowledge that none is needed.
  @safe
  private struct HeldDomain {
    let pointer: UnsafeMutablePointer<Domain>?
  }

  /// Pins everything that the range consists of, in one read section; or pins nothing.
  private static func fill(
    _ view: UnsafeMutablePointer<View>, _ range: DMARange, _ access: Access,
    _ node: UnsafeMutablePointer<PinTable.Node>, _ lists: Lists
  ) -> HeldDomain? {
    let device = unsafe view.pointee.device
    let token = unsafe device.pointee.system.pointee.readers.enter()
    defer { unsafe device.pointee.system.pointee.readers.leave(token) }
    var collector = Collector(lists: lists)
    var address = range.first.rawValue
    var isComplete = false
    while !isComplete {
      let step = unsafe view.pointee.step(
        from: address, through: range.last.rawValue, access)
      guard case .memory(_, _, let last) = step,
        collector.add(step, size: last &- address &+ 1)
      else { break }
      isComplete = last == range.last.rawValue
      address = last &+ 1
    }
    isComplete = isComplete && collector.counts == lists.counts
    var domain: UnsafeMutablePointer<Domain>? = nil
    if isComplete {
      if case .translated(_, let attached) = unsafe device.pointee.currentPath {
        isComplete = unsafe attached.pointee.pins.add(node)
        unsafe domain = attached
      } else {
        isComplete = unsafe device.pointee.pins.add(node)
      }
    }
    guard isComplete else {
      lists.with(collector.counts).unpin()
      return nil
    }
    if let domain = unsafe domain { unsafe Box.hold(domain) }
    return unsafe HeldDomain(pointer: domain)
  }

  // MARK: - Lists

  /// The segments of a mapping and the regions that it pins, in one allocation.
  @safe
  private struct Lists {
    let segments: UnsafeMutablePointer<dmacore_view_segment>
    let regions: UnsafeMutablePointer<PhysicalMemory.Region>
    let counts: Counts

    init(room: Counts) throws(Failure) {
      let segmentBytes = unsafe room.segments * MemoryLayout<dmacore_view_segment>.stride
      let regionBytes = room.regions * MemoryLayout<UInt>.stride
      let raw = unsafe try RawMemory.allocate(segmentBytes + regionBytes, alignment: 16)
      // SAFETY: the allocation is so many segments long and then so many pointers; a segment's
      // stride is a multiple of a pointer's alignment.
      unsafe segments = raw.bindMemory(to: dmacore_view_segment.self, capacity: room.segments)
      unsafe regions = (raw + segmentBytes).bindMemory(
        to: PhysicalMemory.Region.self, capacity: room.regions)
      counts = room
    }

    private init(_ other: Lists, counts: Counts) {
      unsafe segments = other.segments
      unsafe regions = other.regions
      self.counts = counts
    }

    /// The same lists of which so much is filled in.
    func with(_ counts: Counts) -> Lists { Lists(self, counts: counts) }

    func unpin() {
      for index in 0..<counts.regions { unsafe regions[index].pointee.unpin() }
    }

    func free() { unsafe RawMemory.free(segments) }

    func unpinAndFree() {
      unpin()
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
    private var position: UInt64 = 0

    init(lists: Lists?) { self.lists = lists }

    /// Adds a run; false when it has no bytes to point to, does not fit, or is going away.
    mutating func add(_ step: View.Step, size: UInt64) -> Bool {
      guard case .memory(let host, let owner, _) = step else { return false }
      if let owner = unsafe owner, unsafe region != owner {
        if let lists {
          guard counts.regions < lists.counts.regions, unsafe owner.pointee.pin() else {
            return false
          }
          unsafe lists.regions[counts.regions] = owner
        }
        counts.regions += 1
        unsafe region = owner
      }
      if let end = unsafe end, unsafe host == end {
        if let lists { unsafe lists.segments[counts.segments - 1].size &+= size }
      } else {
        if let lists {
          guard counts.segments < lists.counts.segments else { return false }
          unsafe lists.segments[counts.segments] = dmacore_view_segment(host: host, size: size)
        }
        counts.segments += 1
      }
      // A run may be longer than half the space, where bytes are not really there.
      unsafe end = host + Int(truncatingIfNeeded: size)
      return true
    }
  }
}
