// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import CPlatform
import IOVAAllocation
import MemoryMap
import PageTables
import Primitives
import Synchronization

// Theory of operation: identity windows.
//
// 1. Concepts
// A hybrid domain translates the addresses of the machine's memory to themselves; those are its window.
// A mapping call gives memory in it the address that it has, if the device reaches that, and any other
// memory an address outside of it.
//
// 2. Implementation
// 2.1 The window is a set of pieces, each a run of pages in one region of memory. A piece stays for as
// long as the domain, because a direct mapping has no record: its address must never be another
// mapping's. When its memory is removed the piece is empty, and when that comes back it is filled; or if
// that has other ends then, a new piece that is looked at before it, as soon as nobody uses the old one.
// 2.2 Who changes the memory map publishes that first and then lets each window follow it, which looks at
// the map as it is by then. One thread at a time changes a window. So when a removal returns nothing of it
// is in a window, and what was added is in all that have room for it.
// 2.3 What cannot be in a window, for lack of memory or because its addresses are given out, is mapped
// like memory that a device does not reach. For lack of memory some of its addresses may be kept for it all
// the same, so that it finds them the next time.
// 2.4 The list holds a domain while it follows. That is nobody's business: who destroys the domain
// meanwhile has not forgotten anything, so that it is not reported.
// 2.5 A piece counts the direct mappings in it. When bypass is turned off the pieces without any are emptied,
// and each of the others with its last one. Who maps counts itself first and looks whether the piece is filled
// then; who empties marks it empty first and looks whether it counts anybody then.
// When the last devices leave, those that they still have are forgotten. Of one that leaves before others
// nobody knows which they are: they keep their piece filled.
// 2.6 A change is told when the next may be made, so that a listener may change the memory map. Who tells
// looks at the piece again afterwards: the last event of a piece says what it is.
// 2.7 No piece is taken away, so that they are found without a lock: memory that comes back with ends that it
// has not had takes one more each time.
//
// 3. Locking
// The list of windows (rank 14), under which a domain is held. Pieces are found without a lock.

/// The addresses of a hybrid domain that are translated to themselves. Lock-free read.
@safe
public struct IdentityWindow: ~Copyable {
  typealias Link = UnsafeMutablePointer<IdentityWindow>

  @safe
  struct Piece: ~Copyable {
    let first: UInt64
    let last: UInt64
    let next: UnsafeMutablePointer<Piece>?
    /// The number of the region that it is filled with; 0: it is empty. Another one with the same ends is
    /// other memory.
    let filling: Atomic<UInt64>
    /// Direct mappings that lead to it, at least in part.
    let users = Atomic<Int>(0)

    var isFilled: Bool { filling.load(ordering: .sequentiallyConsistent) != 0 }

    var isUsed: Bool { users.load(ordering: .sequentiallyConsistent) > 0 }

    /// Returns whether it was used.
    fileprivate func removeUser() -> Bool {
      var now = users.load(ordering: .relaxed)
      while now > 0 {
        let (isDone, current) = users.compareExchange(
          expected: now, desired: now - 1, ordering: .sequentiallyConsistent)
        if isDone { return true }
        now = current
      }
      return false
    }
  }

  // The address of the newest piece; 0 for none. Only who follows the memory map adds one.
  private let newestPiece = Atomic<UInt>(0)
  private let isFollowing = Atomic<Bool>(false)
  // Whether mapping calls map directly, and memory is to be in the window.
  private let isOpenNow = Atomic<Bool>(true)
  // The list's: the domain that has the window, and a number that is greater than that of the one that was
  // added before. What changes while others look for pieces is atomic.
  var domain: UnsafeMutablePointer<Domain>? = nil
  var number: UInt64 = 0
  /// How often the list holds the domain at the moment.
  let holds = Atomic<Int>(0)
  // The address of the one that was added before.
  private let nextAddress = Atomic<UInt>(0)

  var next: Link? {
    // SAFETY: only the list sets this, to the address of one that is in it.
    unsafe UnsafeMutablePointer(bitPattern: nextAddress.load(ordering: .relaxed))
  }

  func setNext(_ next: Link?) { nextAddress.store(UInt(bitPattern: next), ordering: .relaxed) }

  deinit {
    var next = unsafe pieces
    while let piece = unsafe next {
      unsafe next = piece.pointee.next
      unsafe Box.destroy(piece)
    }
  }

  fileprivate var pieces: UnsafeMutablePointer<Piece>? {
    // SAFETY: only `add` writes this, with the address of a piece that lives as long as the window.
    // Acquiring: pairs with the release there.
    unsafe UnsafeMutablePointer(bitPattern: newestPiece.load(ordering: .acquiring))
  }

  fileprivate func add(_ piece: UnsafeMutablePointer<Piece>) {
    newestPiece.store(UInt(bitPattern: piece), ordering: .releasing)
  }

  /// The newest piece that overlaps a range.
  fileprivate func find(_ first: UInt64, _ last: UInt64) -> UnsafeMutablePointer<Piece>? {
    unsafe Self.find(first, last, in: pieces)
  }

  /// The first such piece of a list.
  private static func find(
    _ first: UInt64, _ last: UInt64, in list: UnsafeMutablePointer<Piece>?
  ) -> UnsafeMutablePointer<Piece>? {
    var next = unsafe list
    while let piece = unsafe next, unsafe piece.pointee.last < first || last < piece.pointee.first {
      unsafe next = piece.pointee.next
    }
    return unsafe next
  }

  /// Whether a piece that overlaps a range is filled, or may be used.
  fileprivate func isTaken(_ first: UInt64, _ last: UInt64) -> Bool {
    var next = unsafe find(first, last)
    while let piece = unsafe next {
      if unsafe piece.pointee.isFilled || piece.pointee.isUsed { return true }
      unsafe next = Self.find(first, last, in: piece.pointee.next)
    }
    return false
  }

  /// The rest of a range whose pieces are looked at in order.
  private struct Rest {
    var first: UInt64
    let last: UInt64
    var isOver = false
  }

  /// The piece that the rest of a range starts in, which the rest is behind then.
  @inline(never)
  private static func next(
    _ rest: inout Rest, in list: UnsafeMutablePointer<Piece>?
  ) -> UnsafeMutablePointer<Piece>? {
    guard !rest.isOver, let piece = unsafe find(rest.first, rest.first, in: list) else {
      return nil
    }
    let pieceLast = unsafe piece.pointee.last
    rest.isOver = pieceLast >= rest.last
    rest.first = pieceLast &+ 1
    return unsafe piece
  }

  /// Whether a range lies in the window; or did once, if it need not be filled.
  @inline(never)
  func covers(_ first: UInt64, _ last: UInt64, filled: Bool) -> Bool {
    let list = unsafe pieces
    var rest = Rest(first: first, last: last)
    while let piece = unsafe Self.next(&rest, in: list) {
      if unsafe filled && !piece.pointee.isFilled { return false }
    }
    return rest.isOver
  }

  var isOpen: Bool { isOpenNow.load(ordering: .sequentiallyConsistent) }

  fileprivate func setOpen(_ isOpen: Bool) {
    isOpenNow.store(isOpen, ordering: .sequentiallyConsistent)
  }

  /// Counts a direct mapping, if it may be one and lies in the window.
  fileprivate func enter(_ first: UInt64, _ last: UInt64) -> Bool {
    guard let list = unsafe pieces, isOpen, covers(first, last, filled: true) else { return false }
    unsafe count(true, first, last, in: list)
    // In this order: a newer piece that is filled by now is in the list by then.
    if unsafe isOpen && covers(first, last, filled: true) && pieces == list { return true }
    unsafe count(false, first, last, in: list)
    return false
  }

  /// Counts a user of each piece of a range, or uncounts it, unless somebody has done so by mistake; those
  /// before one piece, if that is given.
  @inline(never)
  private func count(
    _ isUser: Bool, _ first: UInt64, _ last: UInt64, in list: UnsafeMutablePointer<Piece>?,
    before end: UnsafeMutablePointer<Piece>? = nil
  ) {
    var rest = Rest(first: first, last: last)
    while let piece = unsafe Self.next(&rest, in: list), unsafe piece != end {
      if isUser {
        unsafe piece.pointee.users.wrappingAdd(1, ordering: .sequentiallyConsistent)
      } else {
        _ = unsafe piece.pointee.removeUser()
      }
    }
  }

  /// Uncounts a direct mapping. Returns whether there was one.
  @inline(never)
  fileprivate func leave(_ first: UInt64, _ last: UInt64) -> Bool {
    guard covers(first, last, filled: false) else { return false }
    let list = unsafe pieces
    var rest = Rest(first: first, last: last)
    while let piece = unsafe Self.next(&rest, in: list) {
      if unsafe piece.pointee.removeUser() { continue }
      // Not one mapping: what it was taken from before goes back.
      unsafe count(true, first, last, in: list, before: piece)
      return false
    }
    return true
  }

  /// Whether direct mappings lead to all of a range.
  fileprivate func isUsed(_ first: UInt64, _ last: UInt64) -> Bool {
    let list = unsafe pieces
    var rest = Rest(first: first, last: last)
    while let piece = unsafe Self.next(&rest, in: list) {
      if unsafe !piece.pointee.isUsed { return false }
    }
    return rest.isOver
  }

  /// Whether a piece of a range is to be emptied.
  @inline(never)
  fileprivate func hasLeftover(_ first: UInt64, _ last: UInt64) -> Bool {
    guard !isOpen else { return false }
    let list = unsafe pieces
    var rest = Rest(first: first, last: last)
    while let piece = unsafe Self.next(&rest, in: list) {
      if unsafe piece.pointee.isFilled && !piece.pointee.isUsed { return true }
    }
    return false
  }

  fileprivate func beginFollowing() {
    while isFollowing.exchange(true, ordering: .acquiring) { cplatform_sleep() }
  }

  fileprivate func endFollowing() { isFollowing.store(false, ordering: .releasing) }
}

/// The windows of a system. Locked, rank 14.
@safe
struct WindowList: ~Copyable {
  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State {
    // Invariant: each has a greater number than the next.
    var newest: IdentityWindow.Link? = nil
  }

  private let state: Guarded<State>

  init() throws(Failure) {
    state = try Guarded<State>(.windows) { () throws(Failure) in State() }
  }

  func add(_ window: IdentityWindow.Link, of domain: UnsafeMutablePointer<Domain>) {
    state.withLock { state in
      unsafe window.pointee.domain = domain
      unsafe window.pointee.number = (state.newest?.pointee.number ?? 0) &+ 1
      unsafe window.pointee.setNext(state.newest)
      unsafe state.newest = window
    }
  }

  /// Takes a window out, if it was added.
  func remove(_ window: IdentityWindow.Link) {
    state.withLock { state in
      let next = unsafe window.pointee.next
      if unsafe state.newest == window { return unsafe state.newest = next }
      var before = unsafe state.newest
      while let other = unsafe before, unsafe other.pointee.next != window {
        unsafe before = other.pointee.next
      }
      unsafe before?.pointee.setNext(next)
    }
  }

  /// Counts devices of a domain, and forgets who uses its window if there are none then, as long as none can
  /// come. Returns whether there are none.
  func count(_ devices: Int, in domain: borrowing Domain) -> Bool {
    state.withLock { _ in
      guard domain.count(devices: devices) else { return false }
      var next = unsafe domain.window?.pointee.pieces
      while let piece = unsafe next {
        unsafe piece.pointee.users.store(0, ordering: .sequentiallyConsistent)
        unsafe next = piece.pointee.next
      }
      return true
    }
  }

  /// Lets all windows follow the memory map.
  @inline(never)
  func follow() {
    var number = UInt64.max
    while let domain = unsafe hold(below: &number) {
      // What finds no memory for its tables is mapped without a window.
      try? unsafe domain.pointee.followMemory()
      if unsafe !letGoUnlessLast(domain) { unsafe Box.letGo(domain) }
    }
  }

  /// Whether anybody but the caller, and this list for a moment, holds a domain.
  func isShared(_ domain: UnsafeMutablePointer<Domain>) -> Bool {
    guard let window = unsafe domain.pointee.window else { return unsafe Box.isShared(domain) }
    return state.withLock { _ in
      unsafe domain.pointee.withUses {
        unsafe $0.isShared(beside: window.pointee.holds.load(ordering: .relaxed))
      }
    }
  }

  private func letGoUnlessLast(_ domain: UnsafeMutablePointer<Domain>) -> Bool {
    state.withLock { _ in
      unsafe domain.pointee.window?.pointee.holds.wrappingSubtract(1, ordering: .relaxed)
      return unsafe domain.pointee.withUses { $0.add(-1, ifAbove: 1) }
    }
  }

  /// The next domain with a window, held; not one that is just ending.
  private func hold(below number: inout UInt64) -> UnsafeMutablePointer<Domain>? {
    unsafe state.withLock { state -> UnsafeMutablePointer<Domain>? in
      var next = unsafe state.newest
      while let window = unsafe next {
        if unsafe window.pointee.number < number, let domain = unsafe window.pointee.domain,
          unsafe domain.pointee.withUses({ $0.add(1, ifAbove: 0) })
        {
          unsafe window.pointee.holds.wrappingAdd(1, ordering: .relaxed)
          number = unsafe window.pointee.number
          return unsafe domain
        }
        unsafe next = window.pointee.next
      }
      return nil
    }
  }
}

extension Domain {
  /// A new domain, whose window, if it has one, follows the memory map.
  ///
  /// - Throws: what `Domain.init` throws.
  public static func place(
    _ iommu: UnsafeMutablePointer<IOMMU>, _ description: DomainDescription
  ) throws(Failure) -> UnsafeMutablePointer<Domain> {
    let domain = unsafe try Box<Domain>.place { () throws(Failure) in
      unsafe try Domain(iommu: iommu, description)
    }
    guard let window = unsafe domain.pointee.window else { return unsafe domain }
    unsafe iommu.pointee.system.pointee.windows.add(window, of: domain)
    do throws(Failure) {
      try unsafe domain.pointee.followMemory()
    } catch {
      unsafe Box.letGo(domain)
      throw error
    }
    return unsafe domain
  }

  /// Whether memory has its own addresses here.
  public func isInWindow(_ memory: PhysicalRange) -> Bool {
    unsafe window?.pointee.covers(memory.first.rawValue, memory.last.rawValue, filled: true)
      ?? false
  }

  /// Whether memory may be mapped directly here, if it is in the window.
  public var bypasses: Bool { unsafe window?.pointee.isOpen ?? false }

  /// Turns direct mappings on or off, from here on.
  ///
  /// - Throws: `notSupported` when this is no hybrid domain, and as `followMemory`.
  public func setBypass(_ isOn: Bool) throws(Failure) {
    guard let window = unsafe window else { throw .notSupported }
    unsafe window.pointee.setOpen(isOn)
    try followMemory()
  }

  /// Counts a direct mapping of memory, if it may be one.
  public func enterWindow(_ memory: PhysicalRange) -> Bool {
    let (first, last) = (memory.first.rawValue, memory.last.rawValue)
    if unsafe window?.pointee.enter(first, last) ?? false { return true }
    // Who turned bypass off meanwhile may have seen it used by this call.
    clearWindow(first, last)
    return false
  }

  /// Uncounts a direct mapping, after which the window may be smaller.
  public func leaveWindow(_ first: UInt64, _ last: UInt64) {
    guard let window = unsafe window, unsafe window.pointee.leave(first, last) else { return }
    clearWindow(first, last)
  }

  /// Counts devices that are attached from now on, or are no longer, and have no call under way. With the last
  /// one the direct mappings are forgotten that devices had as they left.
  @inline(never)
  func changeDevices(by change: Int) {
    guard unsafe iommu.pointee.system.pointee.windows.count(change, in: self) else { return }
    // Emptying takes no memory.
    if !bypasses { try? followMemory() }
  }

  /// Empties what the last direct mapping has left, if bypass is off.
  fileprivate func clearWindow(_ first: UInt64, _ last: UInt64) {
    guard let window = unsafe window, unsafe window.pointee.hasLeftover(first, last) else { return }
    // Emptying takes no memory.
    try? followMemory()
  }

  /// Lets the window be what memory there is.
  ///
  /// - Throws: `noMemory`, and what the backend fails with. Then a part is not in the window.
  @inline(never)
  func followMemory() throws(Failure) {
    // Listeners are told between two changes: they may change the memory map themselves.
    var failure: Failure? = nil
    while var change = changeWindow(&failure) {
      notifiers.tell(change)
      // Who has changed it again, a listener or another thread, may have told of that before.
      while let now = contradiction(to: change) {
        change = now
        notifiers.tell(change)
      }
    }
    if let failure { throw failure }
  }

  /// What is to be told after a change of a piece that is not so any more.
  @inline(never)
  private func contradiction(to told: DomainChange) -> DomainChange? {
    let wasMapped = told.type == DMACORE_NOTIFY_MAP
    let found = lookUp(IOVA(told.first))
    // If it is mapped and not filled, somebody has yet to tell.
    let isFilled =
      unsafe found.isMapped
      && window!.pointee.covers(told.first, told.last, filled: true)
    if wasMapped {
      return isFilled && found.access == told.access ? nil : .unmapped(told.first, told.last)
    }
    guard isFilled else { return nil }
    return DomainChange(
      type: DMACORE_NOTIFY_MAP, first: told.first, last: told.last, target: told.first,
      access: found.access)
  }

  /// Makes one change by which the window comes nearer to what memory there is, if one is left to make.
  private func changeWindow(_ failure: inout Failure?) -> DomainChange? {
    guard let window = unsafe window, let translation = unsafe translation else { return nil }
    unsafe window.pointee.beginFollowing()
    defer { unsafe window.pointee.endFollowing() }
    var next = unsafe window.pointee.pieces
    while let piece = unsafe next {
      if unsafe isStale(piece, window), let change = unsafe empty(piece, translation) {
        return change
      }
      unsafe next = piece.pointee.next
    }
    guard unsafe window.pointee.isOpen else { return nil }
    var change: DomainChange? = nil
    var memory: PhysicalRange? = nil
    while change == nil,
      let (there, access, number) = unsafe iommu.pointee.system.pointee.memory(
        after: memory, isHost: true)
    {
      memory = there
      do throws(Failure) {
        try forEachPart(of: there) { (part) throws(Failure) in
          if change != nil { return }
          change = try unsafe add(part, access, number, to: window, translation)
        }
      } catch {
        failure = error
      }
    }
    return change
  }

  /// Whether a piece is filled and its memory is gone, or nobody may use it any more.
  private func isStale(
    _ piece: UnsafeMutablePointer<IdentityWindow.Piece>, _ window: IdentityWindow.Link
  ) -> Bool {
    guard unsafe piece.pointee.isFilled else { return false }
    if unsafe !window.pointee.isOpen && !piece.pointee.isUsed { return true }
    return unsafe hasLostMemory(piece)
  }

  @inline(never)
  private func hasLostMemory(_ piece: UnsafeMutablePointer<IdentityWindow.Piece>) -> Bool {
    guard
      let (_, _, number) = unsafe iommu.pointee.system.pointee.memory(
        from: piece.pointee.first, isHost: true)
    else { return true }
    return unsafe number != piece.pointee.filling.load(ordering: .relaxed)
  }

  /// Empties a piece; not if somebody has begun to use it and its memory is there.
  @inline(never)
  private func empty(
    _ piece: UnsafeMutablePointer<IdentityWindow.Piece>,
    _ translation: UnsafeMutablePointer<Translation>
  ) -> DomainChange? {
    let (first, last) = unsafe (piece.pointee.first, piece.pointee.last)
    let isLost = unsafe hasLostMemory(piece)
    let number = unsafe piece.pointee.filling.exchange(0, ordering: .sequentiallyConsistent)
    if unsafe !isLost && piece.pointee.isUsed {
      unsafe piece.pointee.filling.store(number, ordering: .sequentiallyConsistent)
      return nil
    }
    if let range = try? IOVARange(first: IOVA(first), last: IOVA(last)) {
      unsafe translation.pointee.unmap(range)
    }
    settle(first, last)
    return .unmapped(first, last)
  }

  /// Calls `body` with the runs of whole pages of memory that are not reserved and not too wide.
  private func forEachPart(
    of memory: PhysicalRange, _ body: (IOVARange) throws(Failure) -> Void
  ) throws(Failure) {
    guard let facts = unsafe translation?.pointee.table.facts else { return }
    let mask = Device.granule.mask
    let start = memory.first.rawValue
    let end = min(
      memory.last.rawValue, min(facts.lastInput.rawValue, facts.lastOutput.rawValue))
    // These wrap where no page is whole.
    let first = start & mask == 0 ? start : (start | mask) &+ 1
    let last = end & mask == mask ? end : (end & ~mask) &- 1
    guard start <= first, first <= last, last <= end else { return }
    var next: UInt64? = first
    while let from = next {
      let part = reserved.part(from: from, through: last)
      if part == nil || from < part!.first {
        let end = part.map { $0.first &- 1 } ?? last
        try body(IOVARange(first: IOVA(from), last: IOVA(end)))
      }
      next = part.flatMap { $0.last < last ? $0.last &+ 1 : nil }
    }
  }

  /// Fills a piece, which is new if there is none; not where another piece or mapping is in the way, nor
  /// if it is filled.
  ///
  /// - Throws: `noMemory`, and what the backend fails with. Then all is as it was.
  @inline(never)
  private func add(
    _ range: IOVARange, _ access: Access, _ number: UInt64, to window: IdentityWindow.Link,
    _ translation: UnsafeMutablePointer<Translation>
  ) throws(Failure) -> DomainChange? {
    let (first, last) = (range.first.rawValue, range.last.rawValue)
    if let old = unsafe window.pointee.find(first, last), unsafe old.pointee.first == first,
      unsafe old.pointee.last == last
    {
      if unsafe old.pointee.isFilled { return nil }
      try unsafe mapToItself(range, access, translation)
      unsafe old.pointee.filling.store(number, ordering: .releasing)
    } else {
      // Where memory had other ends, this piece is looked at instead of the old ones from here on.
      if unsafe window.pointee.isTaken(first, last) { return nil }
      let piece = unsafe try Box<IdentityWindow.Piece>.place { () throws(Failure) in
        unsafe IdentityWindow.Piece(
          first: first, last: last, next: window.pointee.pieces, filling: Atomic(number))
      }
      do throws(Failure) {
        // What is reserved stays so if this fails: memory's addresses are wanted for the window later.
        try unsafe translation.pointee.keep(range)
        try unsafe mapToItself(range, access, translation)
      } catch {
        unsafe Box.destroy(piece)
        // Addresses that are given out are no reason to fail.
        if error == .busy { return nil }
        throw error
      }
      unsafe window.pointee.add(piece)
    }
    return .mapped(range, to: PhysicalAddress(first), access)
  }

  /// - Throws: as `add`.
  private func mapToItself(
    _ range: IOVARange, _ access: Access, _ translation: UnsafeMutablePointer<Translation>
  ) throws(Failure) {
    let output = PhysicalAddress(range.first.rawValue)
    let access = unsafe translation.pointee.table.expressible(access)
    try takingTables { () throws(Failure) in
      try unsafe translation.pointee.table.map(range, to: output, access: access)
    }
    do throws(Failure) {
      try backend.map(range, to: output, access)
    } catch {
      unsafe translation.pointee.unmap(range)
      settle(range.first.rawValue, range.last.rawValue)
      throw error
    }
  }
}

extension Device {
  /// Whether direct mappings without a record lead to all of a range of a hybrid domain.
  @inline(never)
  public func isInWindow(_ range: DMARange) -> Bool {
    let token = unsafe system.pointee.readers.enter()
    defer { unsafe system.pointee.readers.leave(token) }
    guard let window = unsafe mappings.domain?.pointee.window else { return false }
    return unsafe window.pointee.isUsed(range.first.rawValue, range.last.rawValue)
  }

  /// Ends a direct mapping without a record in a hybrid domain. Returns whether there can have been one.
  @inline(never)
  public func leaveWindow(_ range: DMARange) -> Bool {
    let (first, last) = (range.first.rawValue, range.last.rawValue)
    var leftover: UnsafeMutablePointer<Domain>? = nil
    let token = unsafe system.pointee.readers.enter()
    let domain = unsafe mappings.domain
    let window = unsafe domain?.pointee.window
    let wasMapped = unsafe window?.pointee.leave(first, last) ?? false
    if wasMapped, unsafe window!.pointee.hasLeftover(first, last) {
      unsafe leftover = domain
      unsafe Box.hold(domain!)
    }
    unsafe system.pointee.readers.leave(token)
    if let leftover = unsafe leftover {
      unsafe leftover.pointee.clearWindow(first, last)
      unsafe Box.letGo(leftover)
    }
    return wasMapped
  }
}
