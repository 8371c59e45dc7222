// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import IOVAAllocation
import PageTables
import Primitives
import Synchronization

/// One address space of an IOMMU.
@safe
public struct Domain: ~Copyable, Held {
  /// What a domain has in which addresses are translated.
  @safe
  public struct Translation: ~Copyable {
    public let table: AnyPageTable
    /// Of a DMA domain: the addresses that mapping calls may take, and those that they may not take
    /// yet. In an unmanaged domain the caller chooses.
    let queue: UnsafeMutablePointer<FlushQueue>?
    // Whether writes of devices are noted in the table.
    fileprivate let tracksDirty = Atomic<Bool>(false)

    var space: UnsafeMutablePointer<IOVASpace>? { unsafe queue?.pointee.space }

    deinit { if let queue = unsafe queue { unsafe FlushQueue.end(queue) } }
  }

  /// What kind of domain to make. The values are those of `domain.h`.
  public enum Kind: UInt32, Sendable {
    case identity = 1
    case dma = 2
    case blocked = 3
    case unmanaged = 4
  }

  /// The numbers that `domain.h` explains.
  public struct Statistics {
    public let deviceCount: UInt64
    public let mappingCount: UInt64
    public let iovaBytes: UInt64
    public let mappedBytes: UInt64
    public let tableCount: UInt64
    public let tableBytes: UInt64
    public let queued: FlushQueue.Counts
  }

  public let iommu: UnsafeMutablePointer<IOMMU>
  public let kind: Kind
  public let pins: PinTable
  public let notifiers: NotifierList
  // nil where addresses stay as they are, or lead nowhere.
  public let translation: UnsafeMutablePointer<Translation>?
  private let reserved: ReservedRegions
  private let deviceCount = Atomic<UInt64>(0)
  private let uses = UseCount()

  /// Holds the IOMMU until it ends.
  ///
  /// - Parameters:
  ///   - first, last: the addresses to give out; 0 for the default.
  ///   - isLazy: whether unmaps are lazy at first, and `limits` how lazy they are when they are.
  ///   - group: whose reserved regions it honours.
  /// - Throws: `invalidArgument`, `tryAgain` until the IOMMU is there, `notSupported` for a DMA domain of
  ///   large granules, `outOfRange` when `last` is above what the page table can translate, `noMemory`.
  @inline(never)
  public init(
    iommu: UnsafeMutablePointer<IOMMU>, kind: Kind, first: UInt64, last: UInt64,
    isLazy: Bool = false, _ limits: FlushQueue.Limits = FlushQueue.Limits(),
    for group: UnsafeMutablePointer<Group>? = nil
  ) throws(Failure) {
    guard kind == .dma || (first == 0 && last == 0 && !isLazy) else { throw .invalidArgument }
    let configuration = unsafe try iommu.pointee.configuration()
    let pins = try PinTable()
    let reserved = unsafe try Self.reserved(of: group, in: iommu.pointee.system)
    let notifiers = try NotifierList()
    var translation: UnsafeMutablePointer<Translation>? = nil
    switch kind {
    case .identity, .blocked: break
    case .unmanaged:
      unsafe translation = try Box<Translation>.place { () throws(Failure) in
        unsafe Translation(table: try AnyPageTable(configuration), queue: nil)
      }
    case .dma:
      unsafe translation = try Box<Translation>.place { () throws(Failure) in
        let table = try AnyPageTable(configuration)
        let facts = table.facts
        guard facts.granule == Device.granule else { throw .notSupported }
        let highest = facts.lastInput.rawValue
        let bounds = try IOVARange(
          first: IOVA(first == 0 ? Device.granule.bytes : first),
          last: IOVA(last == 0 ? highest : last))
        guard bounds.isAligned(to: Device.granule) else { throw .invalidArgument }
        guard bounds.last.rawValue <= highest else { throw .outOfRange }
        let system = unsafe iommu.pointee.system
        let queue = unsafe try Box<FlushQueue>.place { () throws(Failure) in
          unsafe try FlushQueue(bounds, limits, system: system)
        }
        do throws(Failure) {
          if isLazy { unsafe try FlushQueue.setLazy(queue, true) }
        } catch {
          unsafe Box.letGo(queue)
          throw error
        }
        return unsafe Translation(table: table, queue: queue)
      }
      do throws(Failure) {
        try unsafe translation!.pointee.honour(reserved)
      } catch {
        unsafe Box.destroy(translation!)
        throw error
      }
    }
    unsafe Box.hold(iommu)
    unsafe self.iommu = iommu
    self.kind = kind
    self.pins = pins
    self.notifiers = notifiers
    unsafe self.translation = translation
    self.reserved = reserved
  }

  deinit {
    if let translation = unsafe translation { unsafe Box.destroy(translation) }
    unsafe Box.letGo(iommu)
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  private static func reserved(
    of group: UnsafeMutablePointer<Group>?, in system: UnsafeMutablePointer<System>
  ) throws(Failure) -> ReservedRegions {
    guard let group = unsafe group else { return try ReservedRegions(capacity: 0) }
    guard unsafe group.pointee.system == system else { throw .invalidArgument }
    return try unsafe group.pointee.reservedRegions()
  }

  /// Whether a device with these reserved regions may be attached.
  func honours(_ regions: borrowing ReservedRegions) -> Bool {
    switch kind {
    case .identity: true
    case .dma: reserved.cover(regions, butRelaxable: false)
    case .blocked: regions.direct == nil
    case .unmanaged: regions.direct == nil && reserved.cover(regions, butRelaxable: true)
    }
  }

  /// Whether it can be attached to a PASID: mapping calls know none.
  var isForPASIDs: Bool { kind == .unmanaged || kind == .blocked }

  func countDevice() { deviceCount.wrappingAdd(1, ordering: .relaxed) }

  func uncountDevice() { deviceCount.wrappingSubtract(1, ordering: .relaxed) }

  public var statistics: Statistics {
    let devices = deviceCount.load(ordering: .relaxed)
    guard let translation = unsafe translation else {
      return Statistics(
        deviceCount: devices, mappingCount: 0, iovaBytes: 0, mappedBytes: 0, tableCount: 0,
        tableBytes: 0, queued: FlushQueue.Counts())
    }
    let space = unsafe translation.pointee.space?.pointee.statistics
    // It walks the tables, which nobody may free meanwhile.
    let token = unsafe iommu.pointee.system.pointee.readers.enter()
    let table = unsafe translation.pointee.table.statistics
    unsafe iommu.pointee.system.pointee.readers.leave(token)
    return Statistics(
      deviceCount: devices, mappingCount: space?.allocatedCount ?? 0,
      iovaBytes: space?.allocatedBytes ?? 0, mappedBytes: table.mappedBytes,
      tableCount: table.tableCount, tableBytes: table.tableBytes,
      queued: unsafe translation.pointee.queue?.pointee.counts ?? FlushQueue.Counts())
  }
}

// MARK: - Laziness

extension Domain {
  /// - Throws: `notSupported` when this is no DMA domain.
  private func ownQueue() throws(Failure) -> UnsafeMutablePointer<FlushQueue> {
    guard let queue = unsafe translation?.pointee.queue else { throw .notSupported }
    return unsafe queue
  }

  /// Makes the unmaps of a DMA domain lazy or strict from here on, beside any mapping calls. When
  /// this returns from making them strict nothing is queued, and nothing will be.
  ///
  /// - Throws: `notSupported` when this is no DMA domain; `noMemory` when it is to be lazy for the
  ///   first time.
  public func setLazy(_ isLazy: Bool) throws(Failure) {
    unsafe try FlushQueue.setLazy(ownQueue(), isLazy)
  }

  var isLazy: Bool { unsafe translation?.pointee.queue?.pointee.isLazy ?? false }

  /// Whether it lets devices reach memory that is not, or no longer, mapped for them: nothing for those
  /// that are not trusted.
  var isTrusting: Bool { kind == .identity || isLazy }

  /// Returns when everything that was queued at the call is free.
  ///
  /// - Throws: `notSupported` when this is no DMA domain.
  public func flush() throws(Failure) { unsafe try ownQueue().pointee.flush() }
}

// MARK: - Table pages

extension Domain {
  /// Tables that may wait to be freed: freeing them waits for readers.
  private static var retiredTablesMax: UInt64 { 64 }

  private func waitForReaders() {
    unsafe iommu.pointee.system.pointee.readers.waitForReaders()
  }

  private func reclaimTables() {
    let system = unsafe iommu.pointee.system
    unsafe translation?.pointee.table.reclaim(
      after: { unsafe system.pointee.readers.waitForReaders() })
  }

  private var retiredTables: UInt64 { unsafe translation?.pointee.table.retiredTables ?? 0 }

  /// Does what may take table pages; again, if there are too few, when those have come back that
  /// wait for readers.
  public func takingTables<Result>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    if retiredTables >= Self.retiredTablesMax { reclaimTables() }
    while true {
      let retiredTables = retiredTables
      do throws(Failure) {
        return try body()
      } catch {
        guard error == .noMemory && retiredTables > 0 else { throw error }
      }
      reclaimTables()
      // Another thread may have them by now, which waits for readers too before it frees them.
      waitForReaders()
    }
  }
}

// MARK: - Mappings of the caller's choice

extension Domain {
  /// The translation of an unmanaged domain.
  ///
  /// - Throws: `notSupported` for other domains.
  private func ownTranslation() throws(Failure) -> UnsafeMutablePointer<Translation> {
    guard kind == .unmanaged, let translation = unsafe translation else { throw .notSupported }
    return unsafe translation
  }

  /// Maps a range where the caller says.
  ///
  /// - Throws: `notSupported` when the domain is not for this or cannot express the access,
  ///   `notPermitted` when a part is reserved, and what `AnyPageTable.map` throws.
  public func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access
  ) throws(Failure) {
    let translation = unsafe try ownTranslation()
    guard reserved.count == 0 || !reserved.forbid(input) else { throw .notPermitted }
    try takingTables { () throws(Failure) in
      try unsafe translation.pointee.table.map(input, to: output, access: access)
    }
    notifiers.tell(.mapped(input, to: output, access))
  }

  /// Unmaps a range, strictly: when this returns no access through it is under way, but for those of
  /// zero-copy mappings, which are reported unless a listener ends them, and inside callbacks of memory
  /// regions.
  ///
  /// - Returns: how many bytes were mapped.
  /// - Throws: as `AnyPageTable.unmap`, and `notSupported` when the domain is not for this.
  public func unmap(
    _ input: IOVARange, crossingHoles: Bool, splitting: Bool
  ) throws(Failure) -> UInt64 {
    let translation = unsafe try ownTranslation()
    let size = try takingTables { () throws(Failure) in
      try unsafe translation.pointee.table.unmap(
        input, crossingHoles: crossingHoles, splitting: splitting)
    }
    waitForReaders()
    if size > 0 {
      let first = input.first.rawValue
      // What lies behind a hole that stopped it is still mapped.
      let last = crossingHoles ? input.last.rawValue : first &+ (size &- 1)
      notifiers.tell(.unmapped(first, last))
      reportHeld(first, last)
    }
    return size
  }

  private func reportHeld(_ first: UInt64, _ last: UInt64) {
    // There is no record that says since when: any pin of these addresses may be meant.
    guard pins.holds(first: first, last: last, since: 0) else { return }
    unsafe iommu.pointee.system.pointee.reporter.report(.warning, .busy, object: "domain") { text in
      text.append("unmap of ")
      text.append(hexadecimal: first)
      text.append(" to ")
      text.append(hexadecimal: last)
      text.append(": a zero-copy mapping of a device still holds a part")
    }
  }

  /// Looks an address up, for a request as a device's.
  ///
  /// - Throws: `notPermitted` in a domain that blocks, `notFound`, `accessDenied`.
  public func translate(_ address: IOVA, _ access: Access) throws(Failure) -> PageTableLookup {
    guard kind != .blocked else { throw .notPermitted }
    let found = lookUp(address)
    guard found.isMapped else { throw .notFound }
    guard found.access.permits(access) else { throw .accessDenied }
    return found
  }

  /// What an address leads to, in a domain that does not block.
  @inline(never)
  func lookUp(_ address: IOVA) -> PageTableLookup {
    guard let translation = unsafe translation else {
      return PageTableLookup(first: 0, last: UInt64.max, target: 0, access: .transfers)
    }
    let token = unsafe iommu.pointee.system.pointee.readers.enter()
    let found = unsafe translation.pointee.table.lookUp(address)
    unsafe iommu.pointee.system.pointee.readers.leave(token)
    return found
  }
}

// MARK: - Lists

extension Domain {
  /// Maps runs of memory one behind the other from an address on, all of them or none.
  ///
  /// - Throws: as `map`.
  public func map(
    _ segments: UnsafeBufferPointer<dmacore_domain_segment>, at start: IOVA, access: Access
  ) throws(Failure) {
    let table = unsafe try ownTranslation()
    let granule = unsafe table.pointee.table.facts.granule
    var next = start.rawValue
    do throws(Failure) {
      var index = 0
      while index < segments.count {
        // As long as can be, for large leaves.
        var run = try unsafe Self.memory(segments[index], granule)
        index += 1
        while index < segments.count {
          let memory = try unsafe Self.memory(segments[index], granule)
          guard memory.first > run.last, memory.first.rawValue &- 1 == run.last.rawValue else {
            break
          }
          run = try PhysicalRange(first: run.first, last: memory.last)
          index += 1
        }
        let (last, overflow) = next.addingReportingOverflow(run.extent)
        guard !overflow, last != UInt64.max || index == segments.count else { throw .outOfRange }
        try map(IOVARange(first: IOVA(next), last: IOVA(last)), to: run.first, access: access)
        next = last &+ 1
      }
    } catch {
      if next > start.rawValue {
        // Whole leaves that no one else maps, so that this can't fail.
        let done = try IOVARange(first: start, last: IOVA(next &- 1))
        _ = try unmap(done, crossingHoles: true, splitting: false)
      }
      throw error
    }
  }

  private static func memory(
    _ segment: dmacore_domain_segment, _ granule: Granule
  ) throws(Failure) -> PhysicalRange {
    let memory = try PhysicalRange(
      first: PhysicalAddress(segment.phys), size: segment.size, wrap: .outOfRange)
    guard memory.isAligned(to: granule) else { throw .invalidArgument }
    return memory
  }
}

// MARK: - What was written

extension Domain {
  /// The translation of a domain whose table has a place to note writes.
  ///
  /// - Throws: `notSupported`.
  private func trackable() throws(Failure) -> UnsafeMutablePointer<Translation> {
    guard let translation = unsafe translation, unsafe translation.pointee.table.notesDirty else {
      throw .notSupported
    }
    return unsafe translation
  }

  /// Starts noting what devices write, with nothing noted; or stops.
  ///
  /// - Throws: `notSupported`.
  public func setDirtyTracking(_ isOn: Bool) throws(Failure) {
    let translation = unsafe try trackable()
    // Relaxed: who must see it waits for readers.
    guard unsafe translation.pointee.tracksDirty.exchange(isOn, ordering: .relaxed) != isOn else {
      return
    }
    if isOn {
      try readingTable { () throws(Failure) in try unsafe translation.pointee.table.clearDirty() }
    }
    // A write that did not see it has ended.
    waitForReaders()
  }

  /// Sets a bit for each granule that was written, as `AnyPageTable.readDirty`. What zero-copy mappings
  /// hold for writing counts too.
  ///
  /// - Throws: as there.
  public func readDirty(
    _ range: IOVARange, into bitmap: UnsafeMutablePointer<UInt64>, clearing: Bool
  ) throws(Failure) {
    let translation = unsafe try trackable()
    try readingTable { () throws(Failure) in
      try unsafe translation.pointee.table.readDirty(range, into: bitmap, clearing: clearing)
    }
    let start = range.first.rawValue
    var next = start
    while let held = pins.firstWritten(from: next, through: range.last.rawValue) {
      unsafe translation.pointee.table.mark(
        held.first &- start, held.last &- start, in: bitmap)
      guard held.last < range.last.rawValue else { break }
      next = held.last &+ 1
    }
    // A write that found its leaf written through before it was cleared has ended, so that the memory
    // has all that the bits stand for.
    if clearing { waitForReaders() }
  }

  /// Walks tables that nobody may free meanwhile.
  private func readingTable(_ body: () throws(Failure) -> Void) throws(Failure) {
    let token = unsafe iommu.pointee.system.pointee.readers.enter()
    defer { unsafe iommu.pointee.system.pointee.readers.leave(token) }
    try body()
  }
}

extension Domain.Translation {
  /// Notes a write of a device, if writes are noted. The caller is inside the read section in which it
  /// found what is mapped there and wrote.
  @inline(__always)
  public func noteWrite(_ first: UInt64, _ last: UInt64) {
    if tracksDirty.load(ordering: .relaxed) { note(first, last) }
  }

  @inline(never)
  private func note(_ first: UInt64, _ last: UInt64) {
    do throws(Failure) {
      let range = try IOVARange(first: IOVA(first), last: IOVA(last))
      try table.setDirty(range.rounded(to: table.facts.granule), true)
    } catch {
      assertionFailure("A write went where the table maps nothing.")
    }
  }
}

// MARK: - Mappings of the domain's choice

extension Domain.Translation {
  /// Keeps reserved regions from being given out, and maps those 1:1 that must be.
  ///
  /// - Throws: `outOfRange` when one of those is too wide for the page table, `noMemory`.
  func honour(_ regions: borrowing ReservedRegions) throws(Failure) {
    guard regions.count > 0, let space = unsafe space else { return }
    unsafe try regions.visit(space.pointee.bounds, where: { _ in true }) { range throws(Failure) in
      try unsafe space.pointee.reserve(range)
    }
    let all = try IOVARange(first: IOVA(0), last: IOVA(UInt64.max))
    try regions.visit(all, where: { $0 == .direct || $0 == .relaxable }) { range throws(Failure) in
      try table.map(
        range, to: PhysicalAddress(range.first.rawValue), access: table.expressible(.transfers))
    }
  }

  /// The alignment of an IOVA that lets a range of memory have the largest leaves it can: the
  /// largest leaf size that fits the range and that it starts at a multiple of.
  private func preferredAlignment(for pages: PhysicalRange) -> UInt64 {
    func fits(_ size: UInt64) -> Bool {
      pages.first.rawValue & (size &- 1) == 0 && pages.extent >= size &- 1
    }
    if fits(1 << 30) { return 1 << 30 }
    if fits(2 << 20) { return 2 << 20 }
    return Device.granule.bytes
  }

  /// Allocates an IOVA range for whole pages of memory and maps them there.
  ///
  /// - Parameters limit, ranges: highest address that the device reaches, and which of them its bus
  ///   passes.
  /// - Throws: `notPermitted` in an unmanaged domain, `outOfRange` when no addresses of the space in a
  ///   row are so many, lie under the limit and are passed by the bus, or the memory is too wide for
  ///   the page table; `noSpace`, `noMemory`. Then nothing has changed.
  public func map(
    _ pages: PhysicalRange, access: Access, limit: UInt64, in ranges: borrowing DMARanges
  ) throws(Failure) -> IOVARange {
    guard let queue = unsafe queue else { throw .notPermitted }
    guard pages.last <= table.facts.lastOutput else { throw .outOfRange }
    let space = unsafe queue.pointee.space
    let alignment = preferredAlignment(for: pages)
    let range = try unsafe queue.pointee.retrying { () throws(Failure) in
      do throws(Failure) {
        return try unsafe Self.allocate(pages.extent, alignment, limit, ranges, from: space)
      } catch {
        guard error == .noSpace, alignment > Device.granule.bytes else { throw error }
        // Small leaves at a place that is not aligned are better than no place.
        return try unsafe Self.allocate(pages.extent, 0, limit, ranges, from: space)
      }
    }
    do throws(Failure) {
      // The space says that the range is free, whatever somebody wrote to the table's pages.
      try table.map(
        range, to: pages.first, access: table.expressible(access), isKnownFree: true)
      return range
    } catch {
      free(range)
      throw error
    }
  }

  /// Allocates from the highest run of bus addresses that has room.
  ///
  /// - Parameter extent: the size less one. It fits a page table's output, so that it has a next number.
  private static func allocate(
    _ extent: UInt64, _ alignment: UInt64, _ limit: UInt64, _ ranges: borrowing DMARanges,
    from space: UnsafeMutablePointer<IOVASpace>
  ) throws(Failure) -> IOVARange {
    let bounds = unsafe space.pointee.bounds
    var failure = Failure.outOfRange
    var index = ranges.runCount
    while index > 0 {
      index -= 1
      let run = ranges.run(index)
      let lowest = max(run.first, bounds.first.rawValue)
      let highest = min(run.last, limit, bounds.last.rawValue)
      guard highest >= lowest, highest &- lowest >= extent else { continue }
      do throws(Failure) {
        let size = extent &+ 1
        let first = try unsafe space.pointee.allocate(
          size: size, IOVAConstraints(alignment: alignment, first: run.first, last: highest))
        return try IOVARange(first: first, size: size)
      } catch {
        guard error == .noSpace else { throw error }
        failure = error
      }
    }
    throw failure
  }

  /// Frees a range that `map` returned, when no translation of it is left.
  func free(_ range: IOVARange) { unsafe queue?.pointee.free(range) }

  /// Unmaps a range that `map` returned.
  func unmap(_ range: IOVARange) {
    do throws(Failure) {
      _ = try table.unmap(range, crossingHoles: true)
    } catch {
      // The range is whole pages, and no leaf of another mapping reaches into it.
      assertionFailure("A mapping's range cannot be unmapped.")
    }
  }
}
