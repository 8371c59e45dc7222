// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import IOVAAllocation
import PageTables
import Primitives

// Theory of operation: mappings that are kept as tags.
//
// 1. Concepts
// Most mappings are small buffers that a DMA domain translates. All that undoing one needs fits into one
// word: a tag, which is kept beside the leaf of its first page (PageTable+Tags.swift). Whoever unmaps
// knows the word that must be there, and takes the leaf out by one exchange; so of two calls for one mapping
// one goes on, and nothing is searched. What does not fit, or meets a table without tags, has a record in the
// device's mapping table, as all mappings of other paths have.
//
//   63    62        40  39   32  31  30  29         12  11          0
//   live  device's no.  attrib.  direct. size less one  offset in page
//
// 2. Implementation
// 2.1 A call that makes or ends such a mapping does it in a section (CallSections) of the processor that it
// is on, whose numbers of the device it changes. A change of the domain first keeps calls from entering, by
// a bit beside the domain's address, then waits for sections, and then looks at the numbers: so it never
// happens under a call or a mapping.
// 2.2 A mapping is counted until the last has been done that needs its domain.
// 2.3 A leaf is stored before its tag, and taken out before it. Its addresses are given back after both: so
// nobody maps or retires a table where one of the two is left.
// 2.4 Tables are freed only when sections have been waited for, so that a tag can be looked at which
// somebody has made an address up for.
// 2.5 What is done most, mapping and unmapping one page, has a path of its own, which C's functions have
// compiled in: it takes nothing but what is at hand, waits for nobody and calls nothing. Everything else
// goes the way of all mappings.
//
// 3. Locking
// A section, and in it the locks of the IOVA space and of the flush queue. Calls on different processors
// write to no common memory, but once for eight pages that are unmapped in a lazy domain.
//
// 4. What this does not do
// It copies nothing, maintains no caches, knows no peers, no DMA ranges and no backend that hears of
// mappings.

/// What is known of a mapping beside its addresses, in one word: one that is not 0, for a device that may have
/// tags.
public struct MappingTag {
  let word: UInt64

  init(word: UInt64) { self.word = word }

  private static var live: UInt64 { 1 &<< 63 }
  private static var deviceShift: UInt64 { 40 }
  // The bits of attributes that there is room for, and those of them that are for callers.
  private static var attributeBits: UInt32 { 0x1fe }
  private static var callerBits: UInt32 { attributeBits & MappingAttributes.all.rawValue }
  /// The most bytes from the start of the first page on, less one: 64 pages.
  private static var lastMax: UInt64 { 1 &<< 18 &- 1 }
  /// How far a mapping reaches at most.
  static var reach: UInt64 { lastMax }

  /// What is the same in all tags of a device; 0 if there is no room for its number.
  static func base(device number: UInt64) -> UInt64 {
    number < 1 &<< 23 ? live | number &<< deviceShift : 0
  }

  /// The word for a mapping, if all of it has room.
  @inline(__always)
  init?(
    _ base: UInt64, offset: UInt64, extent: UInt64, _ direction: Direction,
    _ attributes: MappingAttributes
  ) {
    guard extent <= Self.lastMax &- offset, attributes.rawValue & ~Self.attributeBits == 0 else {
      return nil
    }
    self.init(base, fitting: offset, extent, direction.rawValue, attributes.rawValue)
  }

  /// The word for a mapping in one page, as C describes it, if it is one and all of it has room.
  @inline(__always)
  init?(
    _ base: UInt64, inPage first: UInt64, _ size: UInt64, _ direction: UInt32,
    _ attributes: UInt32
  ) {
    let (offset, extent) = (first & Device.granule.mask, size &- 1)
    // Of no bytes there is none.
    guard extent <= Device.granule.mask &- offset, direction <= Direction.fromDevice.rawValue,
      attributes & ~Self.callerBits == 0
    else { return nil }
    self.init(base, fitting: offset, extent, direction, attributes)
  }

  @inline(__always)
  private init(
    _ base: UInt64, fitting offset: UInt64, _ extent: UInt64, _ direction: UInt32,
    _ attributes: UInt32
  ) {
    let what = UInt64(direction) | UInt64(attributes) &<< 1
    word = base | what &<< 30 | extent &<< 12 | offset
  }

  /// The word for a mapping at an address, of one for a mapping that starts with a page.
  @inline(__always)
  func at(_ address: UInt64) -> MappingTag {
    MappingTag(word: word | address & Device.granule.mask)
  }

  func isOf(_ base: UInt64) -> Bool {
    base != 0 && word &>> Self.deviceShift == base &>> Self.deviceShift
  }

  var offset: UInt64 { word & Device.granule.mask }
  var extent: UInt64 { word &>> 12 & Self.lastMax }
  // The word was made from one.
  var direction: Direction { Direction(rawValue: rawDirection) ?? .bidirectional }
  var attributes: MappingAttributes { MappingAttributes(rawValue: rawAttributes) }

  public var size: UInt64 { extent &+ 1 }
  public var rawDirection: UInt32 { UInt32(truncatingIfNeeded: word &>> 30) & 3 }
  public var rawAttributes: UInt32 {
    UInt32(truncatingIfNeeded: word &>> 31) & Self.attributeBits
  }

  /// Tells a table by which leaves pages are mapped in each direction. Returns what these permit, a byte for each
  /// direction; 0 for a table without tags.
  static func prepare(_ table: borrowing AnyPageTable) -> UInt64 {
    guard table.hasTags else { return 0 }
    var word: UInt64 = 0
    for direction in [Direction.bidirectional, .toDevice, .fromDevice] {
      let access = table.expressible(direction.access).rawValue
      table.plain.setPageLeaf(direction.rawValue, access)
      word |= UInt64(access) &<< (8 &* UInt64(direction.rawValue))
    }
    return word
  }

  /// That for a direction.
  @inline(__always)
  static func access(_ word: UInt64, _ direction: UInt32) -> UInt32 {
    UInt32(truncatingIfNeeded: word &>> (8 &* UInt64(direction)) & 255)
  }
}

extension Device {
  /// How far a mapping that is kept as a tag reaches at most, from the start of its first page on.
  public static var taggedReach: UInt64 { MappingTag.reach }

  // MARK: - Single pages

  // What drivers do most, in as few steps as there can be, and calling no function, so that nothing has to be kept
  // across a call. What meets anything unusual is left to what follows.

  /// What is asked for, if that is memory in one page and has room in a tag. The tag says as much, so that nothing
  /// else need be kept for what follows.
  ///
  /// - Parameters: as C gives them.
  @inline(__always)
  public func pageTag(
    _ first: UInt64, _ size: UInt64, _ direction: UInt32, _ attributes: UInt32
  ) -> MappingTag? {
    MappingTag(mappings.tagBase, inPage: first, size, direction, attributes)
  }

  /// Maps memory in one page, as `mapTagged`, with an address that the processor has at hand; for a device that may
  /// have tags.
  @inline(__always)
  public func mapPage(_ start: UInt64, _ tag: MappingTag) -> UInt64? {
    let mask = Self.granule.mask
    guard let call = mappings.calls.enterAtOnce() else { return nil }
    defer { mappings.calls.leave(call) }
    // In the section: as in `mapTagged`.
    guard unsafe system.pointee.peers.isEmpty,
      let (domain, queue, table) = unsafe mappings.taggingParts,
      unsafe domain.pointee.isUnwatched,
      let page = unsafe queue.pointee.stash.addresses.next(call), mappings.mayGive(page),
      table.mapPage(page, to: start & ~mask, leaf: tag.rawDirection, tag: tag.word)
    else { return nil }
    unsafe queue.pointee.stash.addresses.takeNext(call)
    mappings.count(call, extent: tag.extent)
    return page | start & mask
  }

  /// What became of a mapping in one page that was to be ended.
  @safe
  public enum PageEnd {
    /// There is no such mapping that is kept as a tag, or its end needs more than is at hand.
    case undecided
    case ended
    /// Nothing leads to it any more; `endRest` does the rest, in the call's section.
    case unfinished(Int, UnsafeMutablePointer<Domain>, UnsafeMutablePointer<FlushQueue>)
  }

  /// Ends a mapping in one page that is kept as a tag, of a device that may have some.
  @inline(__always)
  public func endPage(_ first: UInt64, _ tag: MappingTag) -> PageEnd {
    guard let call = mappings.calls.enterAtOnce() else { return .undecided }
    let page = first & ~Self.granule.mask
    guard let (domain, queue, table) = unsafe mappings.taggingParts,
      table.takePage(page, tag: tag.word)
    else {
      mappings.calls.leave(call)
      return .undecided
    }
    guard unsafe isOverAtOnce(call, domain, queue, page) else {
      return unsafe .unfinished(call, domain, queue)
    }
    mappings.uncount(call, extent: tag.extent)
    mappings.calls.leave(call)
    return .ended
  }

  /// Gives the address of a page back that nothing leads to any more, if nobody has to be told of it or waited
  /// for. The call is in its section.
  @inline(__always)
  private func isOverAtOnce(
    _ call: Int, _ domain: UnsafeMutablePointer<Domain>, _ queue: UnsafeMutablePointer<FlushQueue>,
    _ page: UInt64
  ) -> Bool {
    if unsafe queue.pointee.isLazy {
      return unsafe domain.pointee.isUnwatched && queue.pointee.arrive(call, page)
    }
    return unsafe isUnreached(domain, queue) && queue.pointee.stash.addresses.put(call, page)
  }

  /// Whether no access can be under way to what this call has unmapped, and the domain is not watched.
  @inline(__always)
  private func isUnreached(
    _ domain: UnsafeMutablePointer<Domain>, _ queue: UnsafeMutablePointer<FlushQueue>
  ) -> Bool {
    // Taking the tag was a fence, and nothing was unmapped after it. Pins are looked at last: whoever pins is in a
    // section of readers until the pin can be seen.
    unsafe queue.pointee.backend.cachesNothing && system.pointee.readers.areNone
      && domain.pointee.isUnwatched
  }

  /// Ends the rest of a mapping in one page that nothing leads to any more, and leaves the call's section. Returns
  /// whether it is held.
  @inline(never)
  public func endRest(
    _ call: Int, _ domain: UnsafeMutablePointer<Domain>, _ queue: UnsafeMutablePointer<FlushQueue>,
    _ first: UInt64, _ size: UInt64
  ) -> Bool {
    let (page, pageSize) = (first & ~Self.granule.mask, Self.granule.bytes)
    let isLazy = unsafe queue.pointee.isLazy
    if unsafe isLazy
      ? domain.pointee.isUnwatched && queue.pointee.arriveOrQueue(call, page)
      : isUnreached(domain, queue)
    {
      if !isLazy { unsafe Self.giveBack(call, page, pageSize, queue) }
      mappings.uncount(call, extent: size &- 1)
      unsafe system.pointee.calls.leave(call)
      return false
    }
    return unsafe conclude(call, domain, queue, page, pageSize, extent: size &- 1)
  }

  /// Gives addresses back that nothing leads to any more, and at which no reader is.
  @inline(never)
  private static func giveBack(
    _ call: Int, _ first: UInt64, _ size: UInt64, _ queue: UnsafeMutablePointer<FlushQueue>
  ) {
    if size == granule.bytes, unsafe queue.pointee.stash.addresses.put(call, first) { return }
    _ = unsafe queue.pointee.free(first, size)
  }

  // MARK: - All that has room in a tag

  /// Maps memory of which nothing is to be asked but that the domain translates it, if a tag has room for it
  /// and all that is needed is at hand.
  @inline(__always)
  public func mapTagged(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit
  ) -> DMAAddress? {
    guard mappings.mayTag, !hasDetours else { return nil }
    return unsafe mapTagged(
      memory.first.rawValue, memory.extent, UnsafeBufferPointer(start: nil, count: 0), direction,
      attributes, limit)
  }

  /// As above, for a device that has no detours and may have tags, and memory that may lie in several places.
  ///
  /// - Parameters:
  ///   - first, extent: where it starts, and its size less one.
  ///   - runs: its pages, if they lie in several places.
  @inline(never)
  public func mapTagged(
    _ start: UInt64, _ extent: UInt64, _ runs: UnsafeBufferPointer<PhysicalRange>,
    _ direction: Direction, _ attributes: MappingAttributes, _ limit: AddressLimit
  ) -> DMAAddress? {
    let mask = Self.granule.mask
    let offset = start & mask
    guard limits.minAlignMask <= mask,
      let tag = MappingTag(
        mappings.tagBase, offset: offset, extent: extent, direction, attributes)
    else { return nil }
    let call = unsafe system.pointee.calls.enter()
    // In the section: whoever adds a peer waits for it before looking at what is mapped.
    guard unsafe system.pointee.peers.isEmpty,
      let (domain, queue, plain) = unsafe mappings.taggingParts,
      let translation = unsafe domain.pointee.translation
    else {
      unsafe system.pointee.calls.leave(call)
      return nil
    }
    let space = unsafe queue.pointee.space
    let size = (offset &+ extent | mask) &+ 1
    let access = unsafe MappingTag.access(translation.pointee.tagAccess, direction.rawValue)
    let highest = unsafe min(limit.highest, space.pointee.bounds.last.rawValue)
    guard
      let first = unsafe size == Self.granule.bytes
        ? takeAtHand(call, queue)
          ?? queue.pointee.stash.takeCached(call, from: space, limit: highest)
        : IOVASpace.takeCached(space, queue.pointee.takenMost(size, under: highest), highest)
    else {
      unsafe system.pointee.calls.leave(call)
      return nil
    }
    guard unsafe !domain.pointee.pins.holds(first: first, last: first &+ (size &- 1), since: 0),
      runs.isEmpty
        ? plain.mapRow(first, size, to: start &- offset, access, tag: tag.word)
        : unsafe plain.mapRow(first, size, to: runs, access, tag: tag.word)
    else {
      // Not to the stash, for whoever comes next to find it again.
      _ = unsafe queue.pointee.free(first, size)
      unsafe system.pointee.calls.leave(call)
      return nil
    }
    mappings.count(call, extent: extent)
    unsafe system.pointee.calls.leave(call)
    // The mapping keeps the domain.
    if unsafe !domain.pointee.notifiers.isEmpty {
      unsafe tellMapped(domain, first, size, to: start &- offset, runs, access)
    }
    return DMAAddress(first &+ offset)
  }

  /// The address of a page that the processor has at hand, if the device may be given it.
  private func takeAtHand(
    _ call: Int, _ queue: UnsafeMutablePointer<FlushQueue>
  ) -> UInt64? {
    guard let page = unsafe queue.pointee.stash.addresses.next(call), mappings.mayGive(page) else {
      return nil
    }
    unsafe queue.pointee.stash.addresses.takeNext(call)
    return page
  }

  /// Maps a few pages in a range of the domain's addresses that the caller has, as `mapTagged` would, without a
  /// tag. Returns whether that is done at once.
  ///
  /// It needs no section: the range's record keeps the domain, and it is in the way of a peer and of whoever
  /// retires a table.
  @inline(never)
  @_optimize(speed)
  public func mapUntagged(
    _ first: UInt64, _ pages: PhysicalRange, _ direction: Direction,
    _ attributes: MappingAttributes, in domain: UnsafeMutablePointer<Domain>
  ) -> Bool {
    guard mappings.mayTag, !hasDetours, pages.extent <= MappingTag.reach,
      attributes.access.isEmpty, unsafe system.pointee.peers.isEmpty,
      let translation = unsafe domain.pointee.translation
    else { return false }
    let (size, output) = (pages.extent &+ 1, pages.first.rawValue)
    let access = unsafe MappingTag.access(translation.pointee.tagAccess, direction.rawValue)
    guard unsafe translation.pointee.table.plain.mapFew(first, size, to: output, access) else {
      return false
    }
    if unsafe !domain.pointee.notifiers.isEmpty {
      unsafe tellMapped(
        domain, first, size, to: output, UnsafeBufferPointer(start: nil, count: 0), access)
    }
    return true
  }

  @inline(never)
  private func tellMapped(
    _ domain: UnsafeMutablePointer<Domain>, _ first: UInt64, _ size: UInt64, to output: UInt64,
    _ runs: UnsafeBufferPointer<PhysicalRange>, _ access: UInt32
  ) {
    var (next, index) = (first, 0)
    repeat {
      let run = unsafe runs.isEmpty ? nil : runs[index]
      guard let range = try? IOVARange(first: IOVA(next), size: run.map { $0.extent &+ 1 } ?? size)
      else { return }
      unsafe domain.pointee.notifiers.tell(
        .mapped(
          range, to: run?.first ?? PhysicalAddress(output), Access(rawValue: access)))
      next &+= range.extent &+ 1
      index &+= 1
    } while index < runs.count
  }

  /// Keeps a mapping that a DMA domain translates as a tag, if there is room for it: else it needs a
  /// record. The caller keeps the domain.
  @inline(never)
  public func keepTag(
    of range: DMARange, _ direction: Direction, _ attributes: MappingAttributes,
    in domain: UnsafeMutablePointer<Domain>, _ limit: AddressLimit
  ) -> Bool {
    let (first, mask) = (range.first.rawValue, Self.granule.mask)
    guard mappings.mayTag, let translation = unsafe domain.pointee.translation,
      unsafe translation.pointee.table.plain.isInOneTable(first, range.last.rawValue),
      let tag = MappingTag(
        mappings.tagBase, offset: first & mask, extent: range.extent, direction, attributes),
      unsafe !domain.pointee.pins.holds(first: first & ~mask, last: range.last.rawValue, since: 0)
    else { return false }
    if range.extent <= mask, let queue = unsafe translation.pointee.queue {
      let highest = unsafe min(limit.highest, queue.pointee.space.pointee.bounds.last.rawValue)
      unsafe queue.pointee.stash.fill(
        from: queue.pointee.space, limit: highest, system.pointee.calls)
    }
    let call = unsafe system.pointee.calls.enter()
    let isKept = unsafe translation.pointee.table.keepTag(tag.word, first)
    if isKept { mappings.count(call, extent: range.extent) }
    unsafe system.pointee.calls.leave(call)
    return isKept
  }

  /// What became of a mapping that was to be ended.
  public enum TagEnd {
    /// There is no such mapping that is kept as a tag.
    case absent
    /// Somebody tries to change the domain, while which there is nothing to be found.
    case delayed
    case ended
    /// Likewise, and a zero-copy mapping still holds it.
    case endedWhileHeld
  }

  /// Ends a mapping that is kept as a tag, as strictly as its domain wants it.
  @inline(__always)
  public func unmapTagged(
    _ range: DMARange, _ direction: Direction, _ attributes: MappingAttributes
  ) -> TagEnd {
    guard mappings.hasTags,
      let tag = MappingTag(
        mappings.tagBase, offset: range.first.rawValue & Self.granule.mask, extent: range.extent,
        direction, attributes)
    else { return .absent }
    return endTagged(range, tag)
  }

  @inline(never)
  func endTagged(_ range: DMARange, _ tag: MappingTag) -> TagEnd {
    let mask = Self.granule.mask
    let first = range.first.rawValue & ~mask
    let size = (range.last.rawValue | mask) &- first &+ 1
    let call = unsafe system.pointee.calls.enter()
    let (domain, isFrozen) = unsafe mappings.taggingDomain
    guard let domain = unsafe domain,
      let translation = unsafe domain.pointee.translation,
      let queue = unsafe translation.pointee.queue
    else {
      unsafe system.pointee.calls.leave(call)
      return isFrozen ? .delayed : .absent
    }
    guard let place = unsafe translation.pointee.table.takeTag(tag.word, first) else {
      unsafe system.pointee.calls.leave(call)
      return .absent
    }
    if size == Self.granule.bytes {
      let isHeld = unsafe endRest(call, domain, queue, first, range.extent &+ 1)
      return isHeld ? .endedWhileHeld : .ended
    }
    unsafe translation.pointee.table.plain.unmapRest(size, behind: place)
    if unsafe queue.pointee.isLazy && domain.pointee.isUnwatched
      && queue.pointee.queueAtOnce(first, size)
    {
      mappings.uncount(call, extent: range.extent)
      unsafe system.pointee.calls.leave(call)
      return .ended
    }
    let isHeld = unsafe conclude(call, domain, queue, first, size, extent: range.extent)
    return isHeld ? .endedWhileHeld : .ended
  }

  /// Ends what is left of a mapping that nothing leads to any more. Returns whether it is held.
  ///
  /// - Parameter call: the section, which this leaves.
  @inline(never)
  private func conclude(
    _ call: Int, _ domain: UnsafeMutablePointer<Domain>, _ queue: UnsafeMutablePointer<FlushQueue>,
    _ first: UInt64, _ size: UInt64, extent: UInt64
  ) -> Bool {
    // The mapping is counted, and so keeps the domain.
    unsafe system.pointee.calls.leave(call)
    let isLazy = unsafe queue.pointee.isLazy
    let isHeld = unsafe finish(domain, queue, first, size, isLazy)
    let call = unsafe system.pointee.calls.enter()
    if !isLazy { unsafe Self.giveBack(call, first, size, queue) }
    mappings.uncount(call, extent: extent)
    unsafe system.pointee.calls.leave(call)
    return isHeld
  }

  /// Ends what is left of a mapping that nothing leads to any more, but for giving its addresses back where
  /// that is not to be done lazily. Returns whether it is held.
  @inline(never)
  private func finish(
    _ domain: UnsafeMutablePointer<Domain>, _ queue: UnsafeMutablePointer<FlushQueue>,
    _ first: UInt64, _ size: UInt64, _ isLazy: Bool
  ) -> Bool {
    // The addresses are those of a mapping.
    guard let range = try? IOVARange(first: IOVA(first), size: size) else { return false }
    let last = range.last.rawValue
    if !isLazy { unsafe queue.pointee.settle(range) }
    unsafe domain.pointee.notifiers.tell(.unmapped(first, last))
    // Looked at while the addresses are nobody else's.
    let isHeld = unsafe domain.pointee.pins.holds(first: first, last: last, since: 0)
    if isLazy { unsafe queue.pointee.freeLater(range) }
    return isHeld
  }
}
