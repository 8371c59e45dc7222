// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives
import Synchronization

/// The DMA ranges of a device: which physical memory its bus has, and at which addresses.
///
/// A device without any has all of it, where it is. The table never changes, so that any thread may
/// read it.
@safe
public struct DMARanges: ~Copyable {
  /// A range, or several that adjoin on both sides.
  public struct Window: Sendable {
    /// As large as `physical`.
    public let bus: DMARange
    public let physical: PhysicalRange

    /// The part in the window of addresses that lead to `target` and what follows; directly, to where the
    /// window has them.
    public func part(
      _ first: UInt64, _ last: UInt64, to target: UInt64, isDirect: Bool
    ) -> (first: UInt64, last: UInt64, target: UInt64) {
      let start = max(first, bus.first.rawValue)
      let target =
        isDirect
        ? physical.first.rawValue &+ (start &- bus.first.rawValue) : target &+ (start &- first)
      return (start, min(last, bus.last.rawValue), target)
    }

    /// - Throws: `invalidArgument` for a range that is empty, wraps or is not of whole pages.
    init(_ range: dmacore_dma_range) throws(Failure) {
      bus = try DMARange(first: DMAAddress(range.bus), size: range.size)
      physical = try PhysicalRange(first: PhysicalAddress(range.phys), size: range.size)
      guard bus.isAligned(to: Device.granule), physical.isAligned(to: Device.granule) else {
        throw .invalidArgument
      }
    }

    private init(bus: DMARange, physical: PhysicalRange) {
      self.bus = bus
      self.physical = physical
    }

    /// Addresses that lead to themselves, of which there are some.
    @inline(never)
    init(_ first: UInt64, _ last: UInt64) {
      bus = DMARange(DMAAddress(first), through: DMAAddress(last))
      physical = PhysicalRange(PhysicalAddress(first), through: PhysicalAddress(last))
    }

    /// The part of it that lies between two bus addresses, of which there is some.
    func part(from lowest: UInt64, through highest: UInt64) -> Window {
      let part = part(lowest, highest, to: 0, isDirect: true)
      return Window(
        bus: DMARange(DMAAddress(part.first), through: DMAAddress(part.last)),
        physical: PhysicalRange(
          PhysicalAddress(part.target),
          through: PhysicalAddress(part.target &+ (part.last &- part.first))))
    }

    func overlaps(_ other: Window) -> Bool {
      bus.overlaps(other.bus) || physical.overlaps(other.physical)
    }

    /// This window with one behind it, if that adjoins on both sides.
    fileprivate func joined(with next: Window) -> Window? {
      // What starts above the end of another has an address before its first.
      guard next.bus.first > bus.last, next.bus.first.rawValue &- 1 == bus.last.rawValue,
        next.physical.first > physical.last,
        next.physical.first.rawValue &- 1 == physical.last.rawValue,
        let bus = try? DMARange(first: bus.first, last: next.bus.last),
        let physical = try? PhysicalRange(first: physical.first, last: next.physical.last)
      else { return nil }
      return Window(bus: bus, physical: physical)
    }
  }

  // Invariant: sorted by bus address; no two overlap, or adjoin on both sides. Nil if there are none.
  private let windows: UnsafeMutablePointer<Window>?
  private let count: Int
  // Of those that a device ever had, the first ones; nil if these are no device's. And the address of those
  // that came next, 0 for none.
  var first: UnsafeMutablePointer<DMARanges>? = nil
  private let nextAddress = Atomic<UInt>(0)

  /// All memory, where it is.
  public init() {
    unsafe windows = nil
    count = 0
  }

  /// - Throws: `invalidArgument` when there are too many, one is no range of whole pages, or two
  ///   overlap on either side; `noMemory`.
  init(_ given: UnsafePointer<dmacore_dma_range>?, count: Int) throws(Failure) {
    guard count != 0 else {
      unsafe self.windows = nil
      self.count = 0
      return
    }
    guard let given = unsafe given, 0...Int(DMACORE_DMA_RANGES_MAX) ~= count else {
      throw .invalidArgument
    }
    let raw = unsafe try RawMemory.allocate(
      count * MemoryLayout<Window>.stride, alignment: MemoryLayout<UInt64>.alignment)
    // SAFETY: the allocation is so many windows long.
    let windows = unsafe raw.bindMemory(to: Window.self, capacity: count)
    do throws(Failure) {
      for index in 0..<count {
        unsafe try Self.insert(try Window(given[index]), into: windows, count: index)
      }
    } catch {
      unsafe RawMemory.free(raw)
      throw error
    }
    unsafe self.windows = windows
    self.count = unsafe Self.join(windows, count: count)
  }

  deinit { if let windows = unsafe windows { unsafe RawMemory.free(windows) } }

  private static func insert(
    _ new: Window, into windows: UnsafeMutablePointer<Window>, count: Int
  ) throws(Failure) {
    var place = 0
    for index in 0..<count {
      let other = unsafe windows[index]
      if other.overlaps(new) { throw .invalidArgument }
      if other.bus.first < new.bus.first { place = index + 1 }
    }
    unsafe (windows + place + 1).moveInitialize(from: windows + place, count: count - place)
    unsafe (windows + place).initialize(to: new)
  }

  /// Makes one of windows that adjoin, and returns how many there are then.
  private static func join(_ windows: UnsafeMutablePointer<Window>, count: Int) -> Int {
    var last = 0
    for index in 1..<max(count, 1) {
      if let joined = unsafe windows[last].joined(with: windows[index]) {
        unsafe windows[last] = joined
      } else {
        last &+= 1
        unsafe windows[last] = windows[index]
      }
    }
    return last + 1
  }

  func isEqual(to other: borrowing DMARanges) -> Bool {
    guard count == other.count else { return false }
    for index in 0..<count {
      let (own, their) = unsafe (windows![index], other.windows![index])
      guard own.bus == their.bus, own.physical == their.physical else { return false }
    }
    return true
  }

  /// Whether there are none, so that bus addresses are physical ones.
  @inline(__always)
  public var isEmpty: Bool { unsafe windows == nil }

  // MARK: - Looking up

  /// The bus addresses of memory, if they are in a row.
  @inline(__always)
  public func bus(of memory: PhysicalRange) -> DMARange? {
    isEmpty
      ? try? DMARange(
        first: DMAAddress(memory.first.rawValue), last: DMAAddress(memory.last.rawValue))
      : findBus(of: memory)
  }

  @inline(never)
  private func findBus(of memory: PhysicalRange) -> DMARange? {
    for index in 0..<count {
      let window = unsafe windows![index]
      guard window.physical.contains(memory) else { continue }
      // Inside the window on the other side too.
      let first =
        window.bus.first.rawValue &+ (memory.first.rawValue &- window.physical.first.rawValue)
      return try? DMARange(
        first: DMAAddress(first), last: DMAAddress(first &+ memory.extent))
    }
    return nil
  }

  /// The bus addresses of memory in a run, if it has some there.
  @inline(never)
  func run(_ index: Int, of memory: PhysicalRange) -> (first: UInt64, last: UInt64)? {
    guard let windows = unsafe windows else { return (memory.first.rawValue, memory.last.rawValue) }
    let window = unsafe windows[index]
    let (first, last) = (
      max(memory.first, window.physical.first), min(memory.last, window.physical.last)
    )
    // Inside the window on the other side too.
    let bus = window.bus.first.rawValue &- window.physical.first.rawValue
    return first <= last ? (first.rawValue &+ bus, last.rawValue &+ bus) : nil
  }

  /// The window that a bus address lies in; or the last address of the hole that it lies in. There are
  /// windows.
  public func find(_ address: UInt64) -> (window: Window?, holeLast: UInt64) {
    for index in 0..<count {
      let window = unsafe windows![index]
      guard window.bus.last.rawValue >= address else { continue }
      if window.bus.first.rawValue <= address { return (window, 0) }
      // It starts above an address, so there is one before it.
      return (nil, window.bus.first.rawValue &- 1)
    }
    return (nil, UInt64.max)
  }

  /// The highest physical address that has a bus address up to `limit`.
  public func lastPhysical(under limit: UInt64) -> UInt64? {
    if isEmpty { return limit }
    var highest: UInt64? = nil
    for index in 0..<count {
      let window = unsafe windows![index]
      guard window.bus.first.rawValue <= limit else { break }
      let extent = min(window.bus.extent, limit &- window.bus.first.rawValue)
      highest = max(highest ?? 0, window.physical.first.rawValue &+ extent)
    }
    return highest
  }

  // MARK: - Those that a device ever had

  /// Those that the device had next.
  var next: UnsafeMutablePointer<DMARanges>? {
    // SAFETY: only `append` writes this, with the address of ranges that live as long as the device.
    // Acquiring: pairs with the release there.
    unsafe UnsafeMutablePointer(bitPattern: nextAddress.load(ordering: .acquiring))
  }

  /// Lets others be the next ones, if there are none. Returns those that are.
  func append(_ new: UnsafeMutablePointer<DMARanges>) -> UnsafeMutablePointer<DMARanges> {
    // Releasing: so that who finds them finds them whole. Acquiring: so do we.
    _ = nextAddress.compareExchange(
      expected: 0, desired: UInt(bitPattern: new), ordering: .acquiringAndReleasing)
    return unsafe next!
  }

  /// Whether direct mappings may be where memory has its bus address now: of other memory, which the bus had
  /// there at another time.
  func mayClash(
    _ memory: PhysicalRange, at base: UInt64, in system: UnsafeMutablePointer<System>
  ) -> Bool {
    guard let first = unsafe first, unsafe first.pointee.next != nil else { return false }
    return unsafe Self.mayClash(from: first, memory, at: base, in: system)
  }

  @inline(never)
  private static func mayClash(
    from first: UnsafeMutablePointer<DMARanges>, _ memory: PhysicalRange, at base: UInt64,
    in system: UnsafeMutablePointer<System>
  ) -> Bool {
    var next: UnsafeMutablePointer<DMARanges>? = unsafe first
    while let ranges = unsafe next {
      if unsafe ranges.pointee.hasOther(than: memory, at: base, in: system) { return true }
      unsafe next = ranges.pointee.next
    }
    return false
  }

  /// Whether they have other memory where copies may be by older ranges of a device.
  @inline(never)
  func putMemory(
    whereCopiesAreBy older: UnsafeMutablePointer<DMARanges>,
    in system: UnsafeMutablePointer<System>
  ) -> Bool {
    var index = 0
    while let copies = unsafe system.pointee.bounceChunks.memory(of: index) {
      var old: UnsafeMutablePointer<DMARanges>? = unsafe older
      while let ranges = unsafe old {
        if let base = unsafe ranges.pointee.base(of: copies, under: UInt64.max),
          unsafe hasOther(than: copies, at: base, in: system)
        {
          return true
        }
        unsafe old = ranges.pointee.next
      }
      index &+= 1
    }
    return false
  }

  /// Whether they have other memory at the bus address of some by other ranges.
  @inline(never)
  func hasOther(
    than memory: PhysicalRange, at base: UInt64, in system: UnsafeMutablePointer<System>
  ) -> Bool {
    if self.base(of: memory, under: UInt64.max) == base { return false }
    var other: PhysicalRange? = nil
    while let (there, _, _) = unsafe system.pointee.memory(after: other, isHost: false) {
      other = there
      for index in 0..<runCount {
        if let run = run(index, of: there), run.last >= base, run.first <= base &+ memory.extent {
          return true
        }
      }
    }
    return false
  }

  /// How many runs of bus addresses there are; all of them are one where there are no ranges.
  var runCount: Int { isEmpty ? 1 : count }

  /// The ends of a run of bus addresses, the lowest first.
  func run(_ index: Int) -> (first: UInt64, last: UInt64) {
    guard let windows = unsafe windows else { return (0, UInt64.max) }
    let bus = unsafe windows[index].bus
    return (bus.first.rawValue, bus.last.rawValue)
  }
}
