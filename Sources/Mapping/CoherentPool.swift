// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Primitives
import Synchronization

// Theory of operation: coherent pools.
//
// 1. Concepts
// A pool cuts coherent pages into objects of one size. A place is eight bytes of a page at a multiple of
// eight, of which a page has 512; an object starts at one. Which places those are is the same in every page
// of a pool: the shape.
//
// 2. Implementation
// 2.1 What is known of a page lies in a cell outside of it, where the device cannot write: which objects are
// free, a bit for each place. An object is out if the shape has it and its bit is not set, which is how a
// wrong free and a second one are found out. Pages with a free object are a list, of which the first serves
// allocations until it has none: taking an object looks at eight words at the most.
// 2.2 Putting it back finds its page in a tree of all, by the device's address.
// 2.3 A device that loses its mappings all at once, by its driver or its end, begins a new generation; the
// pages of an older one are gone, and the pool with them.
//
// 3. Locking
// One lock a pool (rank 17), in which no other is taken. Pages come while it is not held, so that two threads
// may bring one each.
//
// 4. What this does not do
// A page goes back with the pool, and not before.

/// Objects of one size in coherent memory of a device.
@safe
public struct CoherentPool: ~Copyable {
  /// Places of a page.
  struct Places {
    // Bit n of word m is place 64 m + n.
    private var words = InlineArray<8, UInt64>(repeating: 0)

    func contains(_ place: Int) -> Bool { word(place >> 6) & Self.bit(place) != 0 }

    mutating func flip(_ place: Int) {
      // SAFETY: masked, there are as many.
      unsafe words[unchecked: place >> 6 & 7] ^= Self.bit(place)
    }

    /// The first, if there is one.
    var first: Int? {
      var index = 0
      while index < 8 {
        let word = word(index)
        if word != 0 { return index << 6 | word.trailingZeroBitCount }
        index &+= 1
      }
      return nil
    }

    private func word(_ index: Int) -> UInt64 {
      // SAFETY: masked, there are as many.
      unsafe words[unchecked: index & 7]
    }

    private static func bit(_ place: Int) -> UInt64 { 1 &<< UInt64(truncatingIfNeeded: place) }
  }

  @safe
  struct Page {
    let cpu: UnsafeMutableRawPointer
    /// Those that are no object's are not in it.
    var free: Places
    var liveCount = 0
    /// The next one with a free object.
    var next: Link? = nil
  }

  /// By the device's addresses. As other trees of intervals have it, so that their code is one.
  typealias Link = UnsafeMutablePointer<IntervalNode<Page>>

  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State: ~Copyable {
    var pages = Treap<IntervalNode<Page>>()
    // Invariant: the list has the pages with a free object, each once.
    var firstFree: Link? = nil
  }

  private let device: UnsafeMutablePointer<Device>
  private let generation: UInt64
  private let size: Int
  private let shape: Places
  // Objects of a page: one at least.
  private let objectCount: Int
  private let state: Guarded<State>
  private let placed = Placed()

  /// Holds the device until it ends.
  ///
  /// - Parameters alignment, boundary: powers of two, or 0.
  /// - Throws: `invalidArgument` when they or the size are none, `noMemory`.
  public init(
    device: UnsafeMutablePointer<Device>, size: UInt64, alignment: UInt64, boundary: UInt64
  ) throws(Failure) {
    let page = Device.granule.bytes
    guard size > 0, size <= page, alignment <= page, alignment & (alignment &- 1) == 0,
      boundary & (boundary &- 1) == 0, boundary == 0 || boundary >= size
    else { throw .invalidArgument }
    let state = try Guarded<State>(.coherentPool) { () throws(Failure) in State() }
    let mask = max(alignment, 8) &- 1
    var shape = Places()
    var objectCount = 0
    var first: UInt64 = 0
    // Sums of numbers up to a page.
    while first &+ size <= page {
      let last = first &+ size &- 1
      if boundary == 0 || (first ^ last) & ~(boundary &- 1) == 0 {
        shape.flip(Int(truncatingIfNeeded: first >> 3))
        objectCount &+= 1
        first = (last &+ 1 &+ mask) & ~mask
      } else {
        // It would cross the multiple that its last byte lies behind.
        first = (last & ~(boundary &- 1) &+ mask) & ~mask
      }
    }
    unsafe Box.hold(device)
    unsafe self.device = device
    generation = unsafe device.pointee.generation.load(ordering: .relaxed)
    self.size = Int(truncatingIfNeeded: size)
    self.shape = shape
    self.objectCount = objectCount
    self.state = state
  }

  /// Whether the pages are the device's.
  private var isThere: Bool {
    unsafe device.pointee.generation.load(ordering: .relaxed) == generation
  }

  /// Takes an object out, zeroed.
  ///
  /// - Throws: `noDevice`, and what `Device.allocateCoherent` throws.
  public func allocate() throws(Failure) -> (cpu: UnsafeMutableRawPointer, address: DMAAddress) {
    while true {
      guard isThere else { throw .noDevice }
      let found = unsafe state.withLock { state -> (UnsafeMutableRawPointer, UInt64)? in
        guard let page = unsafe state.firstFree,
          let place = unsafe page.pointee.payload.free.first
        else { return nil }
        unsafe page.pointee.payload.free.flip(place)
        unsafe page.pointee.payload.liveCount &+= 1
        if unsafe page.pointee.payload.liveCount == objectCount {
          unsafe state.firstFree = page.pointee.payload.next
        }
        let offset = place << 3
        return unsafe (
          page.pointee.payload.cpu + offset,
          page.pointee.first &+ UInt64(truncatingIfNeeded: offset)
        )
      }
      if let (cpu, address) = unsafe found {
        // The device may have written to it while it was free.
        unsafe RawMemory.clear(cpu, size: size)
        return unsafe (cpu, DMAAddress(address))
      }
      try addPage()
    }
  }

  @inline(never)
  private func addPage() throws(Failure) {
    let page = unsafe try Box<IntervalNode<Page>>.place { () throws(Failure) in
      let (allocation, address) = unsafe try device.pointee.allocate(
        Device.granule.bytes, .coherent, .bidirectional, [], isOfPool: true)
      return unsafe IntervalNode(
        first: address.rawValue, last: address.rawValue | Device.granule.mask,
        payload: Page(cpu: allocation.pointee.segments.pointee.cpu, free: shape))
    }
    state.withLock { state in
      unsafe state.pages.insert(page)
      unsafe page.pointee.payload.next = state.firstFree
      unsafe state.firstFree = page
    }
  }

  /// Puts an object back.
  ///
  /// - Throws: `noDevice`, and `invalidArgument` when that is none that is out, which is reported too.
  public func free(_ cpu: UnsafeMutableRawPointer, _ address: DMAAddress) throws(Failure) {
    guard isThere else { throw .noDevice }
    let offset = Int(truncatingIfNeeded: address.rawValue & Device.granule.mask)
    let place = offset >> 3
    let isDone = state.withLock { state in
      guard offset & 7 == 0, shape.contains(place),
        let page = unsafe state.pages.node(at: address.rawValue & ~Device.granule.mask),
        unsafe page.pointee.payload.cpu + offset == cpu,
        unsafe !page.pointee.payload.free.contains(place)
      else { return false }
      unsafe page.pointee.payload.free.flip(place)
      if unsafe page.pointee.payload.liveCount == objectCount {
        unsafe page.pointee.payload.next = state.firstFree
        unsafe state.firstFree = page
      }
      unsafe page.pointee.payload.liveCount &-= 1
      return true
    }
    if isDone { return }
    unsafe device.pointee.system.pointee.reporter.report(
      .error, .invalidArgument, object: device.pointee.name
    ) { text in
      text.append("free of what is no live object of a coherent pool, at ")
      text.append(hexadecimal: address.rawValue)
    }
    throw .invalidArgument
  }

  deinit {
    var liveCount: UInt64 = 0
    var isKept = false
    let isThere = isThere
    while let page = unsafe state.withLock({ state in unsafe Self.takeAny(&state) }) {
      if isThere {
        let count = unsafe page.pointee.payload.liveCount
        liveCount &+= UInt64(truncatingIfNeeded: count)
        if unsafe count > 0
          || (try? device.pointee.free(
            DMAAddress(page.pointee.first), Device.granule.bytes, .coherent,
            page.pointee.payload.cpu, isOfPool: true)) == nil
        {
          isKept = true
        }
      }
      unsafe Box.destroy(page)
    }
    if isKept {
      unsafe device.pointee.system.pointee.reporter.report(
        .warning, .busy, object: device.pointee.name
      ) { text in
        text.append("a coherent pool is destroyed, and of its objects are not free: ")
        text.append(decimal: liveCount)
        text.append("; pages in use stay the device's")
      }
    }
    unsafe Box.letGo(device)
  }

  private static func takeAny(_ state: inout State) -> Link? {
    guard let page = unsafe state.pages.root else { return nil }
    unsafe state.pages.remove(page)
    return unsafe page
  }
}
