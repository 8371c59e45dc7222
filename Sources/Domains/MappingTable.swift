// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CPlatform
import IOVAAllocation
import PageTables
import Primitives
import Synchronization

/// How a mapping reaches what it leads to. The values are those of `mapping.h`.
public enum MappingPath: UInt32, Sendable {
  case refused = 0
  case direct = 1
  case bounced = 2
  case iommu = 3
  case iommuBounced = 4
  case busAddress = 5
  case ops = 6

  /// Whether its addresses are those of a page table.
  public var isTranslated: Bool { self == .iommu || self == .iommuBounced }
}

/// Everything about a mapping that undoing and syncing it needs.
@safe
public struct MappingRecord {
  public enum Kind: UInt8 {
    case streaming
    case coherent
  }

  public let kind: Kind
  public let path: MappingPath
  public let direction: Direction
  public let attributes: MappingAttributes
  /// The domain that the device's accesses go through, if it translates.
  public let domain: UnsafeMutablePointer<Domain>?
  /// The memory of an allocation. One that is streaming is of noncontiguous memory.
  public let memory: Allocation.Link?
  /// The physical address of its first byte; of a list that is translated, what its segments amount to; of a
  /// range that memory is linked into, where its owner's memory is that ends with the record, 0 for none.
  public var target: UInt64
  /// The parts of it that are copied, in order; nil if none is.
  public var bounce: UnsafeMutablePointer<BounceRun>?
  /// The pin table's stamp from before the mapping was made.
  public let stamp: UInt64

  public init(
    kind: Kind, path: MappingPath, direction: Direction, attributes: MappingAttributes = [],
    domain: UnsafeMutablePointer<Domain>?, memory: Allocation.Link? = nil, target: UInt64 = 0,
    bounce: UnsafeMutablePointer<BounceRun>? = nil, stamp: UInt64
  ) {
    self.kind = kind
    self.path = path
    self.direction = direction
    self.attributes = attributes
    unsafe self.domain = domain
    unsafe self.memory = memory
    self.target = target
    unsafe self.bounce = bounce
    self.stamp = stamp
  }
}

/// What a device has mapped, by its own addresses, and the domain that it is attached to.
///
/// The two belong under one lock: a mapping is made in the domain that the device has, and the
/// domain stays while there are mappings. Only the device's group changes it. Locked, rank 4.
@safe
public struct MappingTable: ~Copyable {
  public typealias Node = IntervalNode<MappingRecord>
  public typealias Link = UnsafeMutablePointer<Node>

  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State: ~Copyable {
    var tree = Treap<Node>()
    var cells = Slab<Node>()
    var domain: UnsafeMutablePointer<Domain>? = nil
    // Cells with a mapping call: mappings being made or undone.
    var pending = 0
    // Whether the domain is about to change: then no mapping call starts.
    var isFrozen = false
    var bytes: UInt64 = 0
    var total: UInt64 = 0
    /// The highest address that a page may have which is mapped at once; 0 if there is none.
    var highest: UInt64 = 0
    /// The memory that is the device's own.
    var declared: UnsafeMutablePointer<DeclaredMemory>? = nil
  }

  private let state: Guarded<State>
  // The address of the domain, 0 for none, with bits that say more of it: a copy for those that take no
  // lock.
  private let published = Atomic<UInt>(0)
  // The addresses of the domain's queue and of its plain table, if mappings in it may be kept as tags. Beside the
  // domain's, so that calls that are over in a moment come to all three at once.
  private let publishedQueue = Atomic<UInt>(0)
  private let publishedTable = Atomic<UInt>(0)
  // The lowest and the highest page of its that the device may be given at once: none where more than a look says so.
  private let lowestPage = Atomic<UInt64>(1)
  private let highestPage = Atomic<UInt64>(0)
  // See `noteLimits`.
  private let copiedAbove = Atomic<UInt64>(UInt64.max)
  private let highestCopy = Atomic<UInt64>(0)

  private enum DomainBits {
    static var identity: UInt { 1 }
    /// Mappings in it may be kept as tags.
    static var tagging: UInt { 2 }
    /// It is about to change.
    static var frozen: UInt { 4 }
    /// All memory is mapped directly and leaves no record, but for what is copied and what is a peer's.
    static var untracked: UInt { 8 }
    static var all: UInt { 15 }
  }

  private let isDirect: Bool
  /// Whether a record is kept of each direct mapping. Of one for a device that does not see the caches it is
  /// what they are maintained by, and a device for which all is bounced has few of them.
  public let recordsDirect: Bool
  /// What the tags of the device have in common; 0 if it has none.
  let tagBase: UInt64
  // Whether mappings in a page table may be kept as tags.
  private let tagging: Bool
  // Whether a copy of a page or less may be kept at its slots.
  private let keepsCopies: Bool
  // Of mappings that are kept as tags: how many were made, how many of them have ended, and
  // the bytes of the others but one each.
  private let numbers: CallWords
  // The device holds it.
  private let system: UnsafeMutablePointer<System>
  /// Of the system's calls.
  let calls: CallEntrance
  // Whether the domain was ever one in which mappings may be direct.
  private let hasBeenDirect = Atomic<Bool>(false)
  // Between which pages of addresses registers were mapped directly without a record, by number; none if the
  // first is above the last. (Not as UInt64, of which an atomic takes the greatest as signed numbers.)
  private let firstRegisters = Atomic<Int>(Int.max)
  private let lastRegisters = Atomic<Int>(0)
  // Twice the records of live mappings that are bounced, and 1 if copies were ever kept at their slots.
  private let bounced = Atomic<Int>(0)

  /// - Parameters:
  ///   - tagging: whether mappings in a page table may be kept as tags.
  ///   - isDirect: whether there is no IOMMU.
  ///   - recordsDirect: whether there are records of direct mappings.
  ///   - keepsCopies: whether a copy of a page or less may be kept at its slots.
  init(
    system: UnsafeMutablePointer<System>, tagging: Bool = false, isDirect: Bool = true,
    recordsDirect: Bool = true, keepsCopies: Bool = false
  ) throws(Failure) {
    let state = try Guarded<State>(.deviceMappings) { () throws(Failure) in State() }
    numbers = unsafe try CallWords(for: system.pointee.calls)
    self.state = state
    unsafe self.system = system
    unsafe calls = system.pointee.calls.entrance
    let number = unsafe system.pointee.deviceCount.wrappingAdd(1, ordering: .relaxed).newValue
    tagBase = tagging || keepsCopies ? MappingTag.base(device: number) : 0
    self.tagging = tagging
    self.keepsCopies = keepsCopies && tagBase != 0
    self.isDirect = isDirect
    self.recordsDirect = recordsDirect
    unsafe setDomain(nil)
  }

  // MARK: - Tags

  /// Counts a mapping that is kept as a tag, by the call that makes it.
  @inline(__always)
  func count(_ call: Int, extent: UInt64) {
    count(call, 0, extent)
  }

  /// Counts a mapping out, by the call that ends it.
  @inline(__always)
  func uncount(_ call: Int, extent: UInt64) {
    count(call, 1, 0 &- extent)
  }

  @inline(__always)
  private func count(_ call: Int, _ word: Int, _ extent: UInt64) {
    let line = unsafe numbers.of(call)
    unsafe CallWords.add(1, to: line + word)
    unsafe CallWords.add(extent, to: line + 2)
  }

  /// How many mappings are kept as tags: no fewer than those that live throughout.
  @inline(never)
  private var keptCount: UInt64 {
    // Both only grow. So what ends meanwhile is not counted out, and what is made may be counted in.
    let ended = numbers.sum(1)
    return numbers.sum(0) &- ended
  }

  /// Whether there may be mappings that are kept as tags.
  @inline(__always)
  public var hasTags: Bool { published.load(ordering: .relaxed) & DomainBits.tagging != 0 }

  /// Whether mappings can be kept as tags at the moment.
  @inline(__always)
  public var mayTag: Bool {
    published.load(ordering: .relaxed) & DomainBits.all == DomainBits.tagging
  }

  /// The domain, if mappings in it can be kept as tags and it is not about to change; and whether it is. The
  /// caller is in a section of `calls`.
  @inline(__always)
  var taggingDomain: (domain: UnsafeMutablePointer<Domain>?, isFrozen: Bool) {
    // Acquiring: as in `domain`.
    let word = published.load(ordering: .acquiring)
    guard word & DomainBits.all == DomainBits.tagging else {
      return (nil, word & DomainBits.frozen != 0)
    }
    // SAFETY: as in `domain`; it does not change before the caller has left.
    return unsafe (UnsafeMutablePointer<Domain>(bitPattern: word & ~DomainBits.all), false)
  }

  /// The domain as `taggingDomain` says it, its queue, and its table, which is a common one. The caller is in a section
  /// of `calls`.
  @inline(__always)
  var taggingParts:
    (
      domain: UnsafeMutablePointer<Domain>, queue: UnsafeMutablePointer<FlushQueue>,
      table: PlainTable
    )?
  {
    // Acquiring: as in `domain`.
    let word = published.load(ordering: .acquiring)
    guard word & DomainBits.all == DomainBits.tagging else { return nil }
    // SAFETY: only `setDomain` stores these: with that bit the addresses of a domain and of what it keeps. They do not
    // change before the caller has left.
    return unsafe (
      UnsafeMutablePointer(bitPattern: word & ~DomainBits.all).unsafelyUnwrapped,
      UnsafeMutablePointer(bitPattern: publishedQueue.load(ordering: .relaxed)).unsafelyUnwrapped,
      PlainTable(at: publishedTable.load(ordering: .relaxed))
    )
  }

  /// Whether the device may be given a page of the domain's that is at hand: one that it reaches, and if it reaches high
  /// ones, one of those, as from the space, so that low ones are left to others.
  @inline(__always)
  func mayGive(_ page: UInt64) -> Bool {
    page >= lowestPage.load(ordering: .relaxed) && page <= highestPage.load(ordering: .relaxed)
  }

  /// Whether memory that ends there is to be copied, as far as limits say it, and may be kept at slots.
  @inline(__always)
  func copies(_ last: UInt64) -> Bool { last > copiedAbove.load(ordering: .relaxed) }

  /// The highest address that a copy may have.
  @inline(__always)
  var copyLimit: UInt64 { highestCopy.load(ordering: .relaxed) }

  /// Takes note of what limits mean for calls that are over in a moment.
  ///
  /// - Parameter limits: asked under the lock, so that of two calls the last takes note of what both changed. `page` is
  ///   the highest address that a page may have which is mapped at once, 0 for none; `copy` that of a copy which is kept
  ///   at its slots; and `above` the highest address of memory that is not copied so, the highest of all if none is.
  @inline(never)
  func noteLimits(_ limits: () -> (page: UInt64, copy: UInt64, above: UInt64)) {
    state.withLock { state in
      let limits = limits()
      state.highest = limits.page
      setPages(limits.page)
      highestCopy.store(limits.copy, ordering: .relaxed)
      copiedAbove.store(keepsCopies ? limits.above : UInt64.max, ordering: .relaxed)
    }
  }

  // Under the lock. Who looks at both meanwhile finds no page that neither what was there has nor what will be.
  private func setPages(_ highest: UInt64) {
    let mask = Device.granule.mask
    // SAFETY: only `setDomain` stores this, under the lock too: the address of what the domain keeps, or 0.
    guard highest >= mask,
      let queue = unsafe UnsafeMutablePointer<FlushQueue>(
        bitPattern: publishedQueue.load(ordering: .relaxed))
    else {
      highestPage.store(0, ordering: .relaxed)
      lowestPage.store(1, ordering: .relaxed)
      return
    }
    let last = unsafe min(highest, queue.pointee.space.pointee.bounds.last.rawValue)
    unsafe lowestPage.store(queue.pointee.space.pointee.lowest(upTo: last), ordering: .relaxed)
    highestPage.store(last &- mask, ordering: .relaxed)
  }

  /// Whether all memory is mapped directly at the moment, or copied. The caller is in a section of `calls`.
  @inline(__always)
  var leadsDirectly: Bool {
    // Acquiring: as in `domain`.
    let word = published.load(ordering: .acquiring)
    return word & DomainBits.frozen == 0 && (isDirect || word & DomainBits.identity != 0)
  }

  /// The first mapping that is kept as a tag and of which something lies in a range.
  func nextTagged(
    _ first: UInt64, _ last: UInt64
  ) -> (first: UInt64, last: UInt64, tag: MappingTag)? {
    guard hasTags else {
      guard hasEverKept, unsafe system.pointee.bounceChunks.mayHave(first, through: last),
        keptCount != 0
      else { return nil }
      return unsafe system.pointee.bounceChunks.next(first, last, tagBase).map {
        ($0.first, $0.first &+ $0.tag.extent, $0.tag)
      }
    }
    guard keptCount != 0 else { return nil }
    let token = unsafe system.pointee.readers.enter()
    defer { unsafe system.pointee.readers.leave(token) }
    guard let translation = unsafe domain?.pointee.translation else { return nil }
    // Mostly there is one that starts in the first page, and so is the first.
    let page = first & ~Device.granule.mask
    let there = MappingTag(word: unsafe translation.pointee.table.plain.tag(of: page))
    if there.isOf(tagBase) && page &+ there.offset <= first
      && page &+ there.offset &+ there.extent >= first
    {
      return (page &+ there.offset, page &+ there.offset &+ there.extent, there)
    }
    // One that starts before the range may reach into it.
    let reach = MappingTag.reach
    var start = (first > reach ? first &- reach : 0) & ~Device.granule.mask
    while let (input, word) = unsafe translation.pointee.table.nextTag(start, last) {
      let tag = MappingTag(word: word)
      let tagFirst = input &+ tag.offset
      let tagLast = tagFirst &+ tag.extent
      if tag.isOf(tagBase) && tagFirst <= last && tagLast >= first {
        return (tagFirst, tagLast, tag)
      }
      guard input < UInt64.max &- Device.granule.mask else { return nil }
      start = input &+ Device.granule.bytes
    }
    return nil
  }

  /// Whether just a range is a mapping that is kept as a tag, with this direction and mark.
  @inline(never)
  public func isTagged(
    _ range: DMARange, _ direction: Direction, _ mark: MappingAttributes
  ) -> Bool {
    guard let found = nextTagged(range.first.rawValue, range.last.rawValue) else { return false }
    return found.first == range.first.rawValue && found.last == range.last.rawValue
      && found.tag.direction == direction
      && found.tag.attributes.intersection(.marks) == mark
  }

  /// The record that a mapping which is kept as a tag would have.
  private func record(_ first: UInt64, _ tag: MappingTag) -> MappingRecord {
    guard hasTags else {
      return unsafe MappingRecord(
        kind: .streaming, path: .bounced, direction: tag.direction, attributes: tag.attributes,
        domain: nil, target: system.pointee.bounceChunks.next(first, first, tagBase)?.original ?? 0,
        stamp: 0)
    }
    let token = unsafe system.pointee.readers.enter()
    defer { unsafe system.pointee.readers.leave(token) }
    let domain = unsafe self.domain
    let found = unsafe domain?.pointee.translation?.pointee.table.lookUp(IOVA(first))
    return unsafe MappingRecord(
      kind: .streaming, path: .iommu, direction: tag.direction, attributes: tag.attributes,
      domain: domain, target: found.map { $0.target &+ (first &- $0.first) } ?? 0, stamp: 0)
  }

  // MARK: - Making and undoing

  /// A cell for the record of a new mapping, and the domain to make it in. The cell pins the domain
  /// until it goes to `insert` or `giveBack`.
  ///
  /// - Throws: `noMemory`.
  public func take() throws(Failure) -> (cell: Link, domain: UnsafeMutablePointer<Domain>?) {
    while true {
      var isFrozen = false
      let taken = unsafe state.withLock { state -> (Link, UnsafeMutablePointer<Domain>?)? in
        isFrozen = state.isFrozen
        guard !isFrozen, let cell = unsafe state.cells.take() else { return nil }
        state.pending &+= 1
        return unsafe (cell, state.domain)
      }
      if let taken = unsafe taken { return unsafe (taken.0, taken.1) }
      if isFrozen {
        // A backend may take its time to attach the devices of the group.
        cplatform_sleep()
        continue
      }
      let chunk = try Slab<Node>.makeChunk()
      state.withLock { state in state.cells.add(chunk) }
    }
  }

  /// Ends a call by entering its mapping; or, if it may not be where others are that lead elsewhere,
  /// returns false when there are some, and the cell is still the caller's.
  @discardableResult
  public func insert(
    _ cell: Link, _ range: DMARange, _ record: MappingRecord, ifClear: Bool = false
  ) -> Bool {
    state.withLock { state in
      if ifClear, Self.isObstructed(state.tree, range, record) { return false }
      unsafe cell.initialize(
        to: Node(first: range.first.rawValue, last: range.last.rawValue, payload: record))
      unsafe state.tree.insert(cell)
      if unsafe record.bounce != nil { countBounced(1) }
      state.pending &-= 1
      state.bytes &+= range.extent &+ 1
      state.total &+= 1
      return true
    }
  }

  /// Whether mappings are in a range, and not all of them directly where a record's leads directly.
  @inline(never)
  private static func isObstructed(
    _ tree: borrowing Treap<Node>, _ range: DMARange, _ record: MappingRecord
  ) -> Bool {
    var isObstructed = false
    let offset = record.target &- range.first.rawValue
    unsafe tree.visitOverlapping(
      first: range.first.rawValue, last: range.last.rawValue
    ) { node in
      // What has bus addresses of a peer is elsewhere.
      isObstructed =
        unsafe node.pointee.payload.path != .busAddress
        && (record.path != .direct || node.pointee.payload.path != .direct
          || node.pointee.payload.target &- node.pointee.first != offset)
      return !isObstructed
    }
    return isObstructed
  }

  /// Ends a call whose mapping does not exist, or no longer.
  public func giveBack(_ cell: Link) {
    state.withLock { state in
      unsafe state.cells.giveBack(cell)
      state.pending &-= 1
    }
  }

  /// Takes the record out that agrees with all of this, so that its mapping can be undone by this
  /// call alone. Ends with `giveBack`.
  ///
  /// `isWanted` runs under the table's lock; it may take a lock of a higher rank. If `isTaking` is false the
  /// record stays, and its address says no more than that it is there.
  public func claim(
    _ range: DMARange, isTaking: Bool = true, isWanted: (MappingRecord) -> Bool
  ) -> Link? {
    unsafe state.withLock { state -> Link? in
      guard let node = unsafe Self.find(in: state.tree, range, isWanted) else { return nil }
      if isTaking { unsafe remove(node, &state) }
      return unsafe node
    }
  }

  /// Changes what a record leads to that others may look at meanwhile. Its owner alone does.
  @inline(never)
  public func change(_ node: Link, _ body: (inout MappingRecord) -> Void) {
    state.withLock { _ in
      let wasBounced = unsafe node.pointee.payload.bounce != nil
      unsafe body(&node.pointee.payload)
      let isBounced = unsafe node.pointee.payload.bounce != nil
      if isBounced != wasBounced { countBounced(isBounced ? 1 : -1) }
    }
  }

  /// Takes any record out, to clean up.
  func claimAny() -> Link? {
    unsafe state.withLock { state -> Link? in
      guard let node = unsafe state.tree.root else { return nil }
      unsafe remove(node, &state)
      return unsafe node
    }
  }

  private func remove(_ node: Link, _ state: inout State) {
    unsafe state.tree.remove(node)
    if unsafe node.pointee.payload.bounce != nil { countBounced(-1) }
    state.pending &+= 1
    unsafe state.bytes &-= node.pointee.last &- node.pointee.first &+ 1
  }

  private func countBounced(_ change: Int) {
    bounced.wrappingAdd(2 &* change, ordering: .relaxed)
  }

  /// Says that copies are kept at their slots.
  @inline(__always)
  func noteKept() {
    if !hasEverKept { bounced.bitwiseOr(1, ordering: .relaxed) }
  }

  private static func find(
    in tree: borrowing Treap<Node>, _ range: DMARange, _ isWanted: (MappingRecord) -> Bool
  ) -> Link? {
    var found: Link? = nil
    let first = range.first.rawValue
    unsafe tree.visitOverlapping(first: first, last: first) { node in
      if unsafe node.pointee.first == first && node.pointee.last == range.last.rawValue
        && isWanted(node.pointee.payload)
      {
        unsafe found = node
      }
      return unsafe found == nil
    }
    return unsafe found
  }

  // MARK: - Looking up

  /// Whether copies were ever kept at their slots.
  @inline(__always)
  var hasEverKept: Bool { bounced.load(ordering: .relaxed) & 1 != 0 }

  /// Whether mappings may have been bounced. Whoever has the address of one knows that they may.
  @inline(__always)
  var hasEverBounced: Bool { bounced.load(ordering: .relaxed) != 0 }

  /// Whether there are records of mappings that are bounced. Likewise.
  private var hasBouncedRecords: Bool { bounced.load(ordering: .relaxed) > 1 }

  /// Whether an address may lie in a mapping that is bounced. Likewise.
  @inline(never)
  public func mayBeBounced(at address: UInt64) -> Bool {
    let bounced = bounced.load(ordering: .relaxed)
    guard bounced == 1 else { return bounced != 0 }
    return unsafe system.pointee.bounceChunks.mayHave(address, through: address)
  }

  /// Whether there are mappings that are bounced. Likewise.
  @inline(never)
  public var hasBounced: Bool { hasBouncedRecords || (hasEverKept && keptCount != 0) }

  /// Whether an address lies in a mapping that is bounced.
  public func isBounced(at address: UInt64) -> Bool {
    guard mayBeBounced(at: address), let record = describe(address)?.record else { return false }
    return unsafe record.bounce != nil || record.path == .bounced
  }

  /// Of the mapping that covers a range, the first part that is copied and does not end before `offset`;
  /// and the mapping's first address. Holds the pool.
  public func holdBounce(
    of range: DMARange, from offset: UInt64
  ) -> (run: BounceRun, first: UInt64)? {
    state.withLock { state in
      var found: (run: BounceRun, first: UInt64)? = nil
      unsafe state.tree.visitOverlapping(
        first: range.first.rawValue, last: range.first.rawValue
      ) { node in
        guard unsafe node.pointee.last >= range.last.rawValue else { return true }
        if let run = unsafe BouncePool.part(of: node.pointee.payload.bounce, from: offset) {
          found = unsafe (run, node.pointee.first)
          unsafe Box.hold(BouncePool.pool(of: run))
        }
        return found == nil
      }
      return found
    }
  }

  /// What a record of a kind and direction says of a range that lies in it: its physical address, the
  /// mapping's attributes and path, and whether any of it is copied. What is mapped by bus address is MMIO.
  @inline(never)
  public func find(
    covering range: DMARange, _ kind: MappingRecord.Kind, _ direction: Direction
  ) -> (target: UInt64, attributes: MappingAttributes, path: MappingPath, isBounced: Bool)? {
    if kind == .streaming, let found = nextTagged(range.first.rawValue, range.last.rawValue),
      found.first <= range.first.rawValue, found.last >= range.last.rawValue,
      found.tag.direction == direction
    {
      // There are no caches to maintain, so that nobody needs to know what it leads to.
      return (0, found.tag.attributes, hasTags ? .iommu : .bounced, !hasTags)
    }
    return state.withLock { state in
      var found: (UInt64, MappingAttributes, MappingPath, Bool)? = nil
      let first = range.first.rawValue
      unsafe state.tree.visitOverlapping(first: first, last: first) { node in
        guard unsafe node.pointee.last >= range.last.rawValue,
          unsafe node.pointee.payload.kind == kind,
          unsafe node.pointee.payload.direction == direction
        else { return true }
        found = unsafe (
          node.pointee.payload.target &+ (first &- node.pointee.first),
          // What is allocated for a device that does not see the caches is not cached.
          node.pointee.payload.path == .busAddress || node.pointee.payload.memory != nil
            ? .mmio : node.pointee.payload.attributes,
          node.pointee.payload.path, node.pointee.payload.bounce != nil
        )
        return false
      }
      return found
    }
  }

  /// Whether nothing is mapped in a range, and no call is under way that maps or unmaps something.
  func isClear(of range: DMARange) -> Bool {
    unsafe system.pointee.calls.waitForCalls()
    // What calls did that are over by now is seen then.
    var isClear = state.withLock { state in state.pending == 0 }
    visit(range.first.rawValue, range.last.rawValue) { _, _, _ in isClear = false }
    return isClear
  }

  /// A record that an address lies in, for a message about it.
  public func describe(_ address: UInt64) -> (first: UInt64, last: UInt64, record: MappingRecord)? {
    if let found = nextTagged(address, address) {
      return (found.first, found.last, record(found.first, found.tag))
    }
    return state.withLock { state in
      var found: (UInt64, UInt64, MappingRecord)? = nil
      unsafe state.tree.visitOverlapping(first: address, last: address) { node in
        found = unsafe (node.pointee.first, node.pointee.last, node.pointee.payload)
        // One that starts there is what the caller means.
        return unsafe node.pointee.first != address
      }
      return found
    }
  }

  /// What an access to a directly mapped address meets.
  public enum Permission {
    /// It is permitted from `first` to `last` by one mapping, of what is at `target`.
    case permitted(first: UInt64, last: UInt64, target: UInt64, Access)
    /// Mappings are there, and none permits it, up to `last`.
    case denied(last: UInt64)
    /// Nothing is mapped, up to `last`.
    case unmapped(last: UInt64)
  }

  /// Whether the device may access an address that is mapped directly; or by bus address, for one that
  /// leads to a peer.
  public func permission(
    at address: UInt64, _ access: Access, byBusAddress: Bool = false
  ) -> Permission {
    state.withLock { state in
      var permitted: (first: UInt64, last: UInt64, target: UInt64, access: Access)? = nil
      var deniedLast: UInt64? = nil
      unsafe state.tree.visitOverlapping(first: address, last: address) { node in
        let (first, last) = unsafe (node.pointee.first, node.pointee.last)
        if unsafe (node.pointee.payload.path == .busAddress) != byBusAddress { return true }
        let granted = unsafe node.pointee.payload.direction.access
        if granted.isSuperset(of: access) {
          if permitted == nil || last > permitted!.last {
            permitted = unsafe (first, last, node.pointee.payload.target, granted)
          }
        } else {
          deniedLast = min(deniedLast ?? last, last)
        }
        return true
      }
      if let permitted {
        return .permitted(
          first: permitted.first, last: permitted.last, target: permitted.target, permitted.access)
      }
      let next = unsafe state.tree.first(above: address)
      // The next mapping starts above an address, so there is one before it.
      let gapLast = unsafe next.map { unsafe $0.pointee.first &- 1 } ?? UInt64.max
      if let deniedLast { return .denied(last: min(deniedLast, gapLast)) }
      return .unmapped(last: gapLast)
    }
  }

  /// Which live mappings reach above an address: how many of a kind, or of any, and from where to where.
  public func beyond(
    _ mask: UInt64, _ kind: MappingRecord.Kind?
  ) -> (count: UInt64, first: UInt64, last: UInt64) {
    guard mask != UInt64.max else { return (0, 0, 0) }
    var (count, lowest, highest) = (UInt64(0), UInt64.max, UInt64(0))
    visit(mask &+ 1, UInt64.max) { first, last, record in
      guard kind == nil || record.kind == kind else { return }
      count &+= 1
      lowest = min(lowest, first)
      highest = max(highest, last)
    }
    return count == 0 ? (0, 0, 0) : (count, lowest, highest)
  }

  /// Shows the mappings that overlap a range, in order, under the table's lock.
  @inline(never)
  public func visit(
    _ first: UInt64, _ last: UInt64, _ body: (UInt64, UInt64, MappingRecord) -> Void
  ) {
    state.withLock { state in
      var next = first
      unsafe state.tree.visitOverlapping(first: first, last: last) { node in
        if unsafe node.pointee.first > next {
          visitTagged(next, unsafe node.pointee.first &- 1, body)
        }
        unsafe body(node.pointee.first, node.pointee.last, node.pointee.payload)
        unsafe next = max(next, node.pointee.last)
        return true
      }
      visitTagged(next, last, body)
    }
  }

  private func visitTagged(
    _ first: UInt64, _ last: UInt64, _ body: (UInt64, UInt64, MappingRecord) -> Void
  ) {
    var next = first
    while let found = nextTagged(next, last) {
      body(found.first, found.last, record(found.first, found.tag))
      guard found.last < last else { return }
      next = found.last &+ 1
    }
  }

  var totals: (count: UInt64, bytes: UInt64, total: UInt64) {
    let kept = state.withLock { state in (UInt64(state.tree.count), state.bytes, state.total) }
    let count = keptCount
    // A sum of differences: what is unmapped meanwhile may be taken from it, and not be in it.
    let extents = UInt64(max(0, Int64(bitPattern: numbers.sum(2))))
    return (kept.0 &+ count, kept.1 &+ extents &+ count, kept.2 &+ numbers.sum(0))
  }

  // MARK: - Declared memory

  /// The memory that is the device's own, held for an allocation; nil if there is none.
  public func holdDeclared() -> UnsafeMutablePointer<DeclaredMemory>? {
    unsafe state.withLock { state in
      if let declared = unsafe state.declared { unsafe Box.hold(declared) }
      return unsafe state.declared
    }
  }

  /// Returns whether it is: not if there is some.
  func declare(_ memory: UnsafeMutablePointer<DeclaredMemory>) -> Bool {
    state.withLock { state in
      guard unsafe state.declared == nil else { return false }
      unsafe state.declared = memory
      return true
    }
  }

  /// Takes it out, for the caller to let go of.
  ///
  /// - Throws: `notFound`, `busy` when allocations hold it.
  func releaseDeclared(
    evenIfUsed: Bool
  ) throws(Failure) -> UnsafeMutablePointer<DeclaredMemory> {
    try unsafe state.withLock { (state) throws(Failure) in
      guard let declared = unsafe state.declared else { throw .notFound }
      guard unsafe evenIfUsed || !Box.isShared(declared) else { throw .busy }
      unsafe state.declared = nil
      return unsafe declared
    }
  }

  // MARK: - Attachment

  /// The domain at this moment. The caller is inside a read section while it uses the answer.
  public var domain: UnsafeMutablePointer<Domain>? {
    // SAFETY: only `setDomain` writes this, with the address of a domain that the device holds; the
    // device lets go of it when no read section that found it is open.
    // Acquiring: pairs with the release in setDomain, so that the domain is made whole.
    unsafe UnsafeMutablePointer<Domain>(
      bitPattern: published.load(ordering: .acquiring) & ~DomainBits.all)
  }

  /// Whether the domain at this moment is an identity domain.
  public var hasIdentity: Bool {
    published.load(ordering: .relaxed) & DomainBits.identity != 0
  }

  /// Whether all memory is mapped directly at this moment and leaves no record, but for what is copied and
  /// what is a peer's.
  @inline(__always)
  public var isUntracked: Bool {
    published.load(ordering: .relaxed) & DomainBits.untracked != 0
  }

  /// Whether the domain is or was one in which mappings may be direct.
  var wasDirect: Bool { hasBeenDirect.load(ordering: .relaxed) }

  /// Notes where registers are mapped directly without a record.
  @inline(never)
  public func note(registers range: DMARange) {
    firstRegisters.min(Int(range.first.rawValue &>> 12), ordering: .relaxed)
    lastRegisters.max(Int(range.last.rawValue &>> 12), ordering: .relaxed)
  }

  /// Where registers may be mapped directly without a record.
  var registers: DMARange? {
    let first = firstRegisters.load(ordering: .relaxed)
    let last = lastRegisters.load(ordering: .relaxed)
    return try? DMARange(
      first: DMAAddress(UInt64(bitPattern: Int64(first)) &<< 12),
      last: DMAAddress(UInt64(bitPattern: Int64(last)) &<< 12))
  }

  /// Keeps mapping calls from starting, until `setDomain` or `thaw`. Returns whether it does: not while
  /// there are mappings in the domain, or calls that make or undo some.
  func freeze() -> Bool {
    let isFree = state.withLock { state in
      // Without a domain all calls that are under way will fail.
      guard unsafe state.domain == nil || (state.tree.count == 0 && state.pending == 0) else {
        return false
      }
      state.isFrozen = true
      published.bitwiseOr(DomainBits.frozen, ordering: .sequentiallyConsistent)
      return true
    }
    guard isFree else { return false }
    unsafe system.pointee.calls.waitForCalls()
    if keptCount == 0 { return true }
    thaw()
    return false
  }

  func thaw() {
    state.withLock { state in
      state.isFrozen = false
      // Releasing: pairs with the acquire in `domain`, so that who finds it thawed finds the domain of the
      // group's other devices too.
      published.bitwiseAnd(~DomainBits.frozen, ordering: .releasing)
    }
  }

  /// Changes the domain of a device whose table is frozen, and stays so, or which is not known to anybody.
  func setDomain(_ domain: UnsafeMutablePointer<Domain>?) {
    state.withLock { state in
      unsafe state.domain = domain
      if let domain = unsafe domain,
        unsafe domain.pointee.kind == .identity || domain.pointee.kind == .hybrid
      {
        hasBeenDirect.store(true, ordering: .relaxed)
      }
      var (word, queue) = (UInt(bitPattern: domain), UInt(0))
      if isDirect && !recordsDirect { word |= DomainBits.untracked }
      if let domain = unsafe domain {
        if unsafe domain.pointee.kind == .identity {
          word |= DomainBits.identity | (recordsDirect ? 0 : DomainBits.untracked)
        }
        if let translation = unsafe domain.pointee.translation, tagging, tagBase != 0,
          unsafe translation.pointee.tagAccess != 0,
          unsafe translation.pointee.table.plain.isCommon
        {
          word |= DomainBits.tagging
          unsafe queue = UInt(bitPattern: translation.pointee.queue)
          unsafe publishedTable.store(translation.pointee.table.plain.address, ordering: .relaxed)
        }
      }
      publishedQueue.store(queue, ordering: .relaxed)
      setPages(state.highest)
      if state.isFrozen { word |= DomainBits.frozen }
      published.store(word, ordering: .releasing)
    }
  }
}
