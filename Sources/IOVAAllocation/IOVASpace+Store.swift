// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization

// What goes past the caches: allocating and freeing in the tree, reserving, and doing without the
// caches when space is short.

extension IOVASpace {
  // MARK: - Requests

  /// A request in granules, for a part of the space.
  ///
  /// - Parameter isNatural: whether to align the range to its size, a power of two.
  /// - Parameter aboveLowZone: whether to leave out the zone below 4 GiB.
  /// - Throws: `invalidArgument` when the constraints make no sense, `noSpace` when they leave nothing
  ///   in any space.
  @_optimize(size)
  private func request(
    bytes: UInt64, _ constraints: IOVAConstraints, isNatural: Bool, aboveLowZone: Bool
  ) throws(Failure) -> IOVARequest {
    let alignment = max(constraints.alignment, granule.bytes)
    var (first, last) = (constraints.first, constraints.last)
    guard constraints.alignment & (constraints.alignment &- 1) == 0, constraints.skew < alignment,
      constraints.skew & granule.mask == 0,
      constraints.boundary & (constraints.boundary &- 1) == 0,
      constraints.boundary == 0 || constraints.boundary >= bytes, first <= last
    else { throw .invalidArgument }
    if constraints.placement == .exact {
      guard first & granule.mask == 0 else { throw .invalidArgument }
      guard last &- first >= bytes &- 1 else { throw .noSpace }
      last = first &+ (bytes &- 1)
    }
    if aboveLowZone { first = max(first, lowZoneLast &+ 1) }
    guard let (lowest, highest) = granules(from: first, to: last) else { throw .noSpace }
    return try IOVARequest(
      size: bytes &>> shift, alignment: (isNatural ? bytes : alignment) &>> shift,
      skew: constraints.skew &>> shift, boundary: constraints.boundary &>> shift, lowest: lowest,
      highest: highest, isBottomUp: constraints.placement == .bottomUp)
  }

  /// The whole granules of the space between two addresses, both inside; nil if there is none.
  func granules(from first: UInt64, to last: UInt64) -> (lowest: UInt64, highest: UInt64)? {
    let first = max(first, bounds.first.rawValue)
    let last = min(last, bounds.last.rawValue)
    // Up from the first, down from the last, of which 2^64 - 1 ends a granule.
    let lowest = (first &>> shift) &+ (first & mask == 0 ? 0 : 1)
    let end = (last &+ 1) &>> shift
    guard first <= last, last == UInt64.max || end > lowest else { return nil }
    return (lowest, last == UInt64.max ? UInt64.max &>> shift : end &- 1)
  }

  /// Whether an allocation can do with any place, so that the space has a say in it.
  private func isFree(_ constraints: IOVAConstraints) -> Bool {
    constraints.placement == .anywhere && !isChecked
  }

  /// Whether an allocation is to have a place above 4 GiB if there is one.
  private func wantsHigh(_ constraints: IOVAConstraints) -> Bool {
    isFree(constraints) && min(constraints.last, bounds.last.rawValue) > lowZoneLast
  }

  /// Whether a range is to be aligned to its size, so that it can be cached when it is freed.
  private func wantsNatural(_ bytes: UInt64, _ constraints: IOVAConstraints) -> Bool {
    isFree(constraints) && bytes & (bytes &- 1) == 0 && constraints.skew == 0
      && constraints.alignment <= bytes
  }

  // MARK: - Allocating

  /// Allocates a range that no cache has, without more constraints than most have.
  ///
  /// - Parameter alignment: a power of two or 0.
  @inline(__always)
  func place(bytes: UInt64, alignment: UInt64, limit: UInt64) throws(Failure) -> IOVA {
    let isLarge = limit >= bounds.last.rawValue
    guard isLarge && alignment <= granule.bytes && bytes & (bytes &- 1) != 0 && !isChecked else {
      return try place(bytes: bytes, IOVAConstraints(alignment: alignment, last: limit))
    }
    // What `request` makes of it, but sooner.
    let isHigh = bounds.last.rawValue > lowZoneLast
    let first = isHigh ? max(bounds.first.rawValue, lowZoneLast &+ 1) : bounds.first.rawValue
    guard
      let request = try? IOVARequest(
        size: bytes &>> shift, alignment: 1, lowest: (first &+ mask) &>> shift,
        highest: bounds.last.rawValue &>> shift)
    else {
      return try placeUnderPressure(bytes: bytes, IOVAConstraints(last: limit), searched: nil)
    }
    var vacancies: UInt64 = 0
    if let place = try place(request, bytes: bytes, isHigh: isHigh, isNatural: false, &vacancies) {
      return IOVA(place &<< shift)
    }
    return try placeUnderPressure(
      bytes: bytes, IOVAConstraints(last: limit), searched: isHigh ? nil : vacancies)
  }

  /// Allocates a range that no cache has.
  @inline(never)
  func place(bytes: UInt64, _ constraints: IOVAConstraints) throws(Failure) -> IOVA {
    let isHigh = wantsHigh(constraints)
    let isNatural = wantsNatural(bytes, constraints)
    let request: IOVARequest
    do throws(Failure) {
      request = try self.request(
        bytes: bytes, constraints, isNatural: isNatural, aboveLowZone: isHigh)
    } catch {
      // What makes no sense here does not anywhere; what has no place here may have one elsewhere.
      guard error == .noSpace else { throw error }
      return try placeUnderPressure(bytes: bytes, constraints, searched: nil)
    }
    var vacancies: UInt64 = 0
    if let place = try place(
      request, bytes: bytes, isHigh: isHigh, isNatural: isNatural, &vacancies)
    {
      return IOVA(place &<< shift)
    }
    return try placeUnderPressure(
      bytes: bytes, constraints, searched: isHigh || isNatural ? nil : vacancies)
  }

  @inline(never)
  private func place(
    _ request: IOVARequest, bytes: UInt64, isHigh: Bool, isNatural: Bool,
    _ vacancies: inout UInt64
  ) throws(Failure) -> UInt64? {
    try lockReady(wantsMagazine: isNatural)
    var place: UInt64? = nil
    if isHigh { place = unsafe store.pointee.tree.findNearby(request) }
    if place == nil { place = unsafe store.pointee.tree.find(request) }
    if let place { insert(place, bytes, isReserved: false) }
    vacancies = unsafe store.pointee.vacancies
    finish()
    return place
  }

  /// Allocates a range with the help of what the caches give back, from what is best down to what
  /// will do.
  ///
  /// - Parameter searched: the store's vacancies when the whole space was searched in vain, if it was.
  @inline(never)
  @_optimize(size)
  private func placeUnderPressure(
    bytes: UInt64, _ constraints: IOVAConstraints, searched: UInt64?
  ) throws(Failure) -> IOVA {
    // The checks of `request` are of the constraints alone, but for noSpace.
    let anywhere = try request(bytes: bytes, constraints, isNatural: false, aboveLowZone: false)
    guard !isChecked else { throw .noSpace }
    let isHigh = wantsHigh(constraints)
    let isNatural = wantsNatural(bytes, constraints)
    try lockEverythingReady()
    unsafe giveBackCaches(to: &store.pointee)
    var place: UInt64? = nil
    if isHigh {
      if isNatural { place = find(bytes, constraints, isNatural: true, aboveLowZone: true) }
      if place == nil {
        place = find(bytes, constraints, isNatural: false, aboveLowZone: true)
      }
    }
    if place == nil && isNatural {
      place = find(bytes, constraints, isNatural: true, aboveLowZone: false)
    }
    if unsafe place == nil && searched != store.pointee.vacancies {
      place = unsafe store.pointee.tree.find(anywhere)
    }
    if let place { insert(place, bytes, isReserved: false) }
    caches.unlockRacksOnly()
    finishApart()
    guard let place else { throw .noSpace }
    return IOVA(place &<< shift)
  }

  /// Looks for a place in the store, which is locked.
  private func find(
    _ bytes: UInt64, _ constraints: IOVAConstraints, isNatural: Bool, aboveLowZone: Bool
  ) -> UInt64? {
    guard
      let request = try? request(
        bytes: bytes, constraints, isNatural: isNatural, aboveLowZone: aboveLowZone)
    else { return nil }
    return unsafe store.pointee.tree.find(request)
  }

  @inline(__always)
  private func insert(_ place: UInt64, _ bytes: UInt64, isReserved: Bool) {
    unsafe store.pointee.insert(first: place, size: bytes &>> shift, isReserved: isReserved)
  }

  /// Frees a range past the caches.
  @inline(__always)
  func freeInStore(_ address: UInt64, bytes: UInt64) throws(Failure) {
    guard address & granule.mask == 0, address >= bounds.first.rawValue,
      address <= bounds.last.rawValue
    else { throw refuse(address, bytes) }
    lock.lock()
    let isFreed = unsafe store.pointee.free(first: address &>> shift, size: bytes &>> shift)
    finish()
    guard isFreed else { throw .invalidArgument }
  }

  /// Refuses a free that needs no look at the store.
  @inline(never)
  func refuse(_ address: UInt64, _ size: UInt64) -> Failure {
    refusedOutside.wrappingAdd(1, ordering: .relaxed)
    reportRefusal(address, size)
    return .invalidArgument
  }

  // MARK: - Reserving

  /// Keeps a range of whole granules from being allocated.
  ///
  /// - Throws: `invalidArgument` when it is not aligned, `outOfRange` when it leaves the space,
  ///   `busy` when a part of it is in use, `noMemory`.
  @_optimize(size)
  public func reserve(_ range: IOVARange) throws(Failure) {
    guard range.isAligned(to: granule) else { throw .invalidArgument }
    guard bounds.contains(range) else { throw .outOfRange }
    let (lowest, highest) = (range.first.rawValue &>> shift, range.last.rawValue &>> shift)
    // All of 2^64 granules make a size of 0, which stands for just that in the tree: a range in use
    // is never empty.
    let size = highest &- lowest &+ 1
    let request = try IOVARequest(size: size, alignment: 1, lowest: lowest, highest: highest)
    try lockReady(wantsMagazine: false)
    var isReserved = insertReserved(request)
    finishApart()
    if !isReserved && !isChecked {
      try lockEverythingReady()
      unsafe giveBackCaches(to: &store.pointee)
      isReserved = insertReserved(request)
      caches.unlockRacksOnly()
      finishApart()
    }
    guard isReserved else { throw .busy }
  }

  /// Reserves the one place of a request in the store, which is locked. Returns whether it is free.
  @inline(never)
  @_optimize(size)
  private func insertReserved(_ request: IOVARequest) -> Bool {
    // The size of all of 2^64 granules is 0, for which there seems to be room in the empty gap
    // between two ranges.
    guard unsafe request.size != 0 || store.pointee.tree.count == 0,
      unsafe store.pointee.tree.find(request) != nil
    else { return false }
    unsafe store.pointee.insert(first: request.lowest, size: request.size, isReserved: true)
    return true
  }

  /// The first part of a range that nobody has reserved, and that is all free or all in use.
  ///
  /// - Parameter isFree: whether it may be free.
  @_optimize(size)
  public func unreserved(in range: IOVARange, isFree: Bool) -> IOVARange? {
    var next = range.first
    while true {
      let (found, use) = use(at: next)
      let last = min(found.last, range.last)
      if use == .allocated || (isFree && use == .free) {
        return try? IOVARange(first: next, last: last)
      }
      guard last < range.last else { return nil }
      next = IOVA(last.rawValue &+ 1)
    }
  }

  /// Lets a range be allocated again that `reserve` was given.
  ///
  /// - Throws: `invalidArgument` when there is no such reservation.
  @_optimize(size)
  public func unreserve(_ range: IOVARange) throws(Failure) {
    guard range.isAligned(to: granule), bounds.contains(range) else { throw .invalidArgument }
    let first = range.first.rawValue &>> shift
    let size = (range.extent &>> shift) &+ 1
    lockStore()
    let isRemoved = unsafe store.pointee.remove(first: first, size: size, isReserved: true)
    finishApart()
    guard isRemoved else { throw .invalidArgument }
  }

  // MARK: - Locks and memory

  // Once in the library, for what is done seldom.

  @inline(never)
  @_optimize(size)
  func lockStore() { lock.lock() }

  @inline(never)
  @_optimize(size)
  func unlockStore() { lock.unlock() }

  /// Takes the store's lock, with all that an insertion may need.
  ///
  /// - Parameter wantsMagazine: whether a range is allocated that will want to be cached when it is
  ///   freed, when no memory may be asked for.
  /// - Throws: `noMemory`; then no lock is taken. A magazine is done without.
  @inline(__always)
  private func lockReady(wantsMagazine: Bool) throws(Failure) {
    lock.lock()
    if unsafe store.pointee.tree.isShortOfNodes
      || (wantsMagazine && store.pointee.isShortOfMagazines(magazinesMax))
    {
      try makeReady(wantsMagazine: wantsMagazine)
    }
  }

  /// Gets what is short, for which the store's lock is left and taken again.
  @inline(never)
  @_optimize(size)
  private func makeReady(wantsMagazine: Bool) throws(Failure) {
    var mayMakeMagazine = wantsMagazine && orderCount > 0
    while true {
      if unsafe store.pointee.tree.isShortOfNodes {
        let isLeaf = unsafe store.pointee.tree.isShortOfLeaves
        unlockStore()
        try addNode(isLeaf: isLeaf)
      } else if unsafe mayMakeMagazine && store.pointee.isShortOfMagazines(magazinesMax) {
        unlockStore()
        mayMakeMagazine = addMagazine()
      } else {
        return
      }
      lockStore()
    }
  }

  /// Takes all locks, with all that an insertion may need.
  @inline(never)
  @_optimize(size)
  private func lockEverythingReady() throws(Failure) {
    while true {
      caches.lockEverything()
      guard unsafe store.pointee.tree.isShortOfNodes else { return }
      let isLeaf = unsafe store.pointee.tree.isShortOfLeaves
      caches.unlockRacksOnly()
      unlockStore()
      try addNode(isLeaf: isLeaf)
    }
  }

  /// Allocates a node of a sort that is short, and adds it.
  @inline(never)
  @_optimize(size)
  private func addNode(isLeaf: Bool) throws(Failure) {
    let size = isLeaf ? IOVANode.leafSize : IOVANode.innerSize
    let node = unsafe IOVANode(try RawMemory.allocate(size, alignment: 16))
    lockStore()
    if isLeaf {
      unsafe store.pointee.tree.spareLeaves.add(node)
    } else {
      unsafe store.pointee.tree.spareInners.add(node)
    }
    unlockStore()
  }

  /// Allocates a magazine and adds it, if there is memory for it.
  private func addMagazine() -> Bool {
    guard let memory = unsafe try? RawMemory.allocate(IOVAMagazine.size, alignment: 16) else {
      return false
    }
    lockStore()
    unsafe store.pointee.addNew(IOVAMagazine(memory))
    unlockStore()
    return true
  }

  /// Leaves the store, and does what was put off until no lock is held.
  @inline(__always)
  func finish() {
    if unsafe store.pointee.isDone(emptiesKept) {
      lock.unlock()
    } else {
      finishSlowly()
    }
  }

  /// As `finish`, after what is done seldom.
  @inline(never)
  func finishApart() { finish() }

  @inline(never)
  @_optimize(size)
  private func finishSlowly() {
    unsafe store.pointee.retireSome()
    let refusals = unsafe store.pointee.takeRefusals()
    let nodes = unsafe store.pointee.tree.takeSurplus()
    let magazines = unsafe store.pointee.takeSurplus(beyond: emptiesKept)
    let isDueToAge = unsafe store.pointee.isDueToAge
    unlockStore()
    _ = consume nodes
    IOVAStore.freeMagazines(from: magazines)
    if let refusals { report(refusals) }
    if isDueToAge { age() }
  }
}
