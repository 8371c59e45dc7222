// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import IOVAAllocation
import MemoryMap
import PageTables
import Primitives
import Synchronization

/// What a domain is made from, checked.
@safe
public struct DomainDescription {
  let kind: Domain.Kind
  /// The kind and whether it is lazy, as `domain.h` has it.
  var type: UInt32 { isLazy ? DMACORE_DOMAIN_DMA_LAZY.rawValue : kind.rawValue }
  /// The addresses to give out; 0 for the default.
  let first: UInt64
  let last: UInt64
  /// Whether unmaps are lazy at first, and how lazy they are when they are.
  let isLazy: Bool
  let limits: FlushQueue.Limits
  /// Whose reserved regions it honours.
  let group: UnsafeMutablePointer<Group>?
  /// What is in front of which domain, if it is nested; and as C has it.
  let guest: ForeignTable?
  let parent: UnsafeMutablePointer<Domain>?
  private(set) var guestOptions: UnsafePointer<dmacore_walk_options>? = nil
  private(set) var fault: dmacore_domain_fault_fn? = nil
  private(set) var pageRequest: dmacore_page_request_fn? = nil
  private(set) var opaque: UnsafeMutableRawPointer? = nil

  /// - Throws: `invalidArgument` for what the kind has no use for, or cannot do without.
  @inline(never)
  public init(
    _ kind: Domain.Kind, first: UInt64 = 0, last: UInt64 = 0, isLazy: Bool = false,
    _ limits: FlushQueue.Limits = FlushQueue.Limits(),
    for group: UnsafeMutablePointer<Group>? = nil, guest: ForeignTable? = nil,
    behind parent: UnsafeMutablePointer<Domain>? = nil
  ) throws(Failure) {
    guard kind.isForMappingCalls || (first == 0 && last == 0), kind == .dma || !isLazy,
      (kind == .nested) == (guest != nil), unsafe (kind == .nested) == (parent != nil),
      unsafe kind != .nested || group == nil
    else { throw .invalidArgument }
    self.kind = kind
    self.first = first
    self.last = last
    self.isLazy = isLazy
    self.limits = limits
    unsafe self.group = group
    self.guest = guest
    unsafe self.parent = parent
  }

  /// - Throws: `invalidArgument`.
  public init(
    _ options: dmacore_domain_options, for group: UnsafeMutablePointer<Group>?,
    guest: ForeignTable? = nil, behind parent: UnsafeMutablePointer<Domain>? = nil
  ) throws(Failure) {
    let isLazy = unsafe options.type == DMACORE_DOMAIN_DMA_LAZY.rawValue
    guard let kind = unsafe isLazy ? .dma : Domain.Kind(rawValue: options.type),
      unsafe options.flags == 0 && options.reserved == 0,
      unsafe kind != .blocked || options.page_request == nil,
      unsafe isLazy || (options.flush_entries == 0 && options.flush_age == 0)
    else { throw .invalidArgument }
    unsafe try self.init(
      kind, first: options.first, last: options.last, isLazy: isLazy,
      FlushQueue.Limits(entries: options.flush_entries, age: options.flush_age), for: group,
      guest: guest, behind: parent)
    unsafe guestOptions = options.guest_table
    unsafe fault = options.fault
    unsafe pageRequest = options.page_request
    unsafe opaque = options.opaque
  }
}

/// One address space of an IOMMU.
@safe
public struct Domain: ~Copyable, Held {
  /// What a domain has in which addresses are translated.
  @safe
  public struct Translation: ~Copyable {
    // First, so that it lies at the address of the whole; see `BackendDomain`.
    public let table: AnyPageTable
    /// Of a DMA domain: the addresses that mapping calls may take, and those that they may not take
    /// yet. In an unmanaged domain the caller chooses.
    let queue: UnsafeMutablePointer<FlushQueue>?
    // What a leaf of each direction permits, a byte each; 0 if mappings keep no tags.
    let tagAccess: UInt64
    // Whether writes of devices are noted in the table.
    let tracksDirty = Atomic<Bool>(false)

    var space: UnsafeMutablePointer<IOVASpace>? { unsafe queue?.pointee.space }

    deinit { if let queue = unsafe queue { unsafe Box.letGo(queue) } }
  }

  /// What kind of domain to make. The values are those of `domain.h`.
  public enum Kind: UInt32, Sendable {
    case identity = 1
    case dma = 2
    case blocked = 3
    case unmanaged = 4
    case nested = 6
    case hybrid = 7

    /// Whether mapping calls map in it.
    public var isForMappingCalls: Bool { self == .dma || self == .hybrid }
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
  // nil where addresses stay as they are, lead nowhere, or are for a guest's tables to translate.
  public let translation: UnsafeMutablePointer<Translation>?
  /// Of a nested domain alone.
  public let nesting: UnsafeMutablePointer<Nesting>?
  let reserved: ReservedRegions
  let backend: BackendDomain
  /// Of a hybrid domain.
  let window: UnsafeMutablePointer<IdentityWindow>?
  let fault: dmacore_domain_fault_fn?
  let pageRequest: dmacore_page_request_fn?
  let opaque: UnsafeMutableRawPointer?
  private let deviceCount = Atomic<UInt64>(0)
  private let uses = UseCount()

  /// Holds the IOMMU until it ends.
  ///
  /// - Throws: `invalidArgument`, also for a parent that cannot be one; `tryAgain` until the IOMMU is
  ///   there; `notSupported` for a DMA domain of large granules, a lazy one where flushes cannot be
  ///   deferred, or a hybrid one of a flat system; `outOfRange` when the last address is above what the
  ///   page table can translate; `noMemory`; what the backend fails with.
  @inline(never)
  public init(
    iommu: UnsafeMutablePointer<IOMMU>, _ description: DomainDescription
  ) throws(Failure) {
    let kind = description.kind
    let configuration = unsafe try iommu.pointee.description().tables
    guard unsafe kind != .hybrid || !iommu.pointee.system.pointee.memory.isFlat else {
      throw .notSupported
    }
    var backend = unsafe BackendDomain(iommu.pointee.backend!)
    guard !description.isLazy || backend.defersFlush else { throw .notSupported }
    let pins = try PinTable()
    let reserved = unsafe try Self.reserved(of: description.group, in: iommu.pointee.system)
    let notifiers = try NotifierList()
    var translation: UnsafeMutablePointer<Translation>? = nil
    var nesting: UnsafeMutablePointer<Nesting>? = nil
    switch kind {
    case .identity, .blocked: break
    case .nested:
      unsafe nesting = try Box<Nesting>.place { () throws(Failure) in
        // The description has both.
        unsafe try Nesting(description.guest!, behind: description.parent!, of: iommu)
      }
    case .unmanaged, .dma, .hybrid:
      unsafe translation = try Box<Translation>.place { () throws(Failure) in
        let table = try AnyPageTable(
          configuration, hasTags: kind == .dma && backend.hearsNoMappings)
        let queue =
          unsafe kind.isForMappingCalls
          ? try Self.queue(description, table.facts, iommu.pointee.system, backend) : nil
        let tagAccess = MappingTag.prepare(table)
        return unsafe Translation(table: table, queue: queue, tagAccess: tagAccess)
      }
    }
    var window: IdentityWindow.Link? = nil
    do throws(Failure) {
      if kind == .hybrid {
        unsafe window = try Box<IdentityWindow>.place { () throws(Failure) in IdentityWindow() }
      }
      unsafe try backend.create(description, translation)
    } catch {
      unsafe Self.destroy(translation, nesting, window, nil)
      throw error
    }
    if let translation = unsafe translation, let queue = unsafe translation.pointee.queue {
      unsafe queue.pointee.backend = backend
      do throws(Failure) {
        try unsafe translation.pointee.honour(reserved, backend)
      } catch {
        unsafe Self.destroy(translation, nesting, window, backend)
        throw error
      }
    }
    unsafe Box.hold(iommu)
    unsafe self.iommu = iommu
    self.kind = kind
    self.pins = pins
    self.notifiers = notifiers
    unsafe self.translation = translation
    unsafe self.nesting = nesting
    self.reserved = reserved
    self.backend = backend
    unsafe self.window = window
    unsafe fault = description.fault
    unsafe pageRequest = description.pageRequest
    unsafe opaque = description.opaque
  }

  /// The addresses that mapping calls have, and what is freed of them.
  private static func queue(
    _ description: DomainDescription, _ facts: PageTableFacts,
    _ system: UnsafeMutablePointer<System>, _ backend: BackendDomain
  ) throws(Failure) -> UnsafeMutablePointer<FlushQueue> {
    guard facts.granule == Device.granule else { throw .notSupported }
    let highest = facts.lastInput.rawValue
    let (first, last) = (description.first, description.last)
    let bounds = try IOVARange(
      first: IOVA(first == 0 ? Device.granule.bytes : first),
      last: IOVA(last == 0 ? highest : last))
    guard bounds.isAligned(to: Device.granule) else { throw .invalidArgument }
    guard bounds.last.rawValue <= highest else { throw .outOfRange }
    let queue = unsafe try Box<FlushQueue>.place { () throws(Failure) in
      unsafe try FlushQueue(bounds, description.limits, system: system, backend)
    }
    do throws(Failure) {
      if description.isLazy { unsafe try FlushQueue.setLazy(queue, true) }
    } catch {
      unsafe Box.letGo(queue)
      throw error
    }
    return unsafe queue
  }

  deinit {
    if let window = unsafe window { unsafe iommu.pointee.system.pointee.windows.remove(window) }
    unsafe Self.destroy(translation, nesting, window, backend)
    unsafe Box.letGo(iommu)
  }

  @inline(never)
  private static func destroy(
    _ translation: UnsafeMutablePointer<Translation>?, _ nesting: UnsafeMutablePointer<Nesting>?,
    _ window: IdentityWindow.Link?, _ backend: BackendDomain?
  ) {
    if let queue = unsafe translation?.pointee.queue { unsafe FlushQueue.withdraw(queue) }
    // The backend may look at the table, and knows a parent, until then.
    backend?.destroy()
    if let translation = unsafe translation { unsafe Box.destroy(translation) }
    if let nesting = unsafe nesting { unsafe Box.destroy(nesting) }
    if let window = unsafe window { unsafe Box.destroy(window) }
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
    case .dma, .hybrid: reserved.cover(regions, butRelaxable: false)
    case .blocked: regions.direct == nil
    case .unmanaged: regions.direct == nil && reserved.cover(regions, butRelaxable: true)
    // What the guest does with such addresses ends at the parent.
    case .nested: unsafe nesting!.pointee.parent.pointee.honours(regions)
    }
  }

  /// Whether mapping calls do not know it. Then it can be attached to a PASID, and user space may have it:
  /// it is given no physical addresses, and no addresses that the mapping calls give out.
  var isOwners: Bool { kind == .unmanaged || kind == .blocked || kind == .nested }

  /// Whether nothing of it is pinned, and nobody wants to be told of changes.
  @inline(__always)
  var isUnwatched: Bool { notifiers.notifierCount | pins.rangeCount == 0 }

  /// Returns whether none is attached afterwards.
  func count(devices: Int) -> Bool {
    deviceCount.wrappingAdd(UInt64(bitPattern: Int64(devices)), ordering: .relaxed).newValue == 0
  }

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
    // Of the space's ranges these are nobody's. Calls that are under way move some meanwhile.
    let (count, bytes) = (space?.allocatedCount ?? 0, space?.allocatedBytes ?? 0)
    let stashed = unsafe min(translation.pointee.queue?.pointee.stash.addresses.count() ?? 0, count)
    return Statistics(
      deviceCount: devices, mappingCount: count &- stashed,
      iovaBytes: bytes &- min(bytes, stashed &* Device.granule.bytes),
      mappedBytes: table.mappedBytes,
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
  /// - Throws: `notSupported` when this is no DMA domain, or the IOMMU cannot defer flushes; `noMemory`
  ///   when it is to be lazy for the first time.
  public func setLazy(_ isLazy: Bool) throws(Failure) {
    guard !isLazy || backend.defersFlush else { throw .notSupported }
    unsafe try FlushQueue.setLazy(ownQueue(), isLazy)
  }

  var isLazy: Bool { unsafe translation?.pointee.queue?.pointee.isLazy ?? false }

  /// Whether it lets devices reach memory that is not, or no longer, mapped for them: nothing for those
  /// that are not trusted.
  var isTrusting: Bool { kind == .identity || kind == .hybrid || isLazy }

  /// Returns when everything that was queued at the call is free.
  ///
  /// - Throws: `notSupported` when this is no DMA domain.
  public func flush() throws(Failure) { unsafe try ownQueue().pointee.flush() }
}

// MARK: - Table pages

extension Domain {
  /// Tables that may wait to be freed: freeing them waits for readers.
  private static var retiredTablesMax: UInt64 { 64 }

  @inline(never)
  func waitForReaders() {
    unsafe iommu.pointee.system.pointee.readers.waitForReaders()
  }

  /// As `BackendDomain.settle`.
  func settle(_ first: UInt64 = 0, _ last: UInt64 = UInt64.max) {
    unsafe backend.settle(iommu.pointee.system, first, last)
  }

  @inline(never)
  private func reclaimTables() {
    let (system, backend) = unsafe (iommu.pointee.system, backend)
    unsafe translation?.pointee.table.reclaim(after: {
      unsafe backend.settle(system)
      unsafe system.pointee.calls.waitForCalls()
    })
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
        try takeTables(after: error, retiredTables)
      }
    }
  }

  @inline(never)
  private func takeTables(after failure: Failure, _ retiredTables: UInt64) throws(Failure) {
    guard failure == .noMemory && retiredTables > 0 else { throw failure }
    reclaimTables()
    // Another thread may have them by now, which waits for readers too before it frees them.
    waitForReaders()
  }
}
