// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

// What the caches do when a magazine is empty or full, and how they give back what they have.

extension IOVASpace {
  /// Full magazines of a kind in the depot at most. Two racks' worth for each processor: so much can
  /// be on its way from processors that free to those that allocate.
  private var fullMax: Int { 4 &* caches.cellCount &+ 4 }

  /// Magazines at most: what a few busy kinds need. A range that finds none is freed in the store.
  var magazinesMax: Int { 16 &* fullMax }

  /// Empty magazines that stay when others are freed.
  var emptiesKept: Int { 2 &* IOVAStore.emptiesWanted &+ caches.cellCount }

  /// Takes a range of a kind from the rack, or gets a full magazine for it from the depot.
  @inline(never)
  func takeCached(_ kind: IOVAKind, bytes: UInt64, limit: UInt64) -> UInt64? {
    let cell = caches.current
    return caches.rack(cell, kind).withLock { rack in
      if let found = rack.take(extent: bytes &- 1, limit: limit) { return found }
      guard rack.count == 0 else { return nil }
      lock.lock()
      if let full = unsafe store.pointee.takeFull(kind) {
        if let empty = rack.takeFull(full) { unsafe store.pointee.addEmpty(empty) }
        caches.note(cell, kind, inUse: true)
      }
      lock.unlock()
      return rack.take(extent: bytes &- 1, limit: limit)
    }
  }

  /// Takes ranges of a power of two of granules from the rack, as many as there is room for and it has.
  /// Returns how many.
  @inline(never)
  public func takeCached(
    bytes: UInt64, limit: UInt64, _ addresses: UnsafeMutableBufferPointer<UInt64>
  ) -> Int {
    guard let kind = kind(of: bytes, isHigh: isHigh(limit)) else { return 0 }
    return caches.rack(caches.current, kind).withLock { rack in
      var count = 0
      while count < addresses.count, let found = rack.take(extent: bytes &- 1, limit: limit) {
        unsafe addresses[count] = found
        count &+= 1
      }
      return count
    }
  }

  /// Puts those of some ranges that come first and are of one kind into the rack, as far as it has room.
  /// Returns how many.
  @inline(never)
  @_optimize(speed)
  func putCached(_ ranges: UnsafeBufferPointer<IOVARange>) -> Int {
    guard let range = unsafe ranges.first, let kind = kind(toFree: range) else { return 0 }
    return caches.rack(caches.current, kind).withLock { rack in
      var count = 0
      while count < ranges.count, unsafe self.kind(toFree: ranges[count]) == kind,
        rack.hasRoom()
      {
        unsafe rack.put(ranges[count].first.rawValue)
        count &+= 1
      }
      return count
    }
  }

  private func kind(toFree range: IOVARange) -> IOVAKind? {
    kind(toFree: range.first.rawValue, range.extent &+ 1)
  }

  /// Puts a range into the rack, for which the depot takes a full magazine and gives an empty one.
  /// Needs no memory: false if there is no room.
  @inline(never)
  func putCached(_ kind: IOVAKind, _ address: UInt64) -> Bool {
    let cell = caches.current
    return caches.rack(cell, kind).withLock { rack in
      if !rack.hasRoom() {
        lock.lock()
        makeRoom(cell, kind, &rack)
        lock.unlock()
      }
      guard rack.hasRoom() else { return false }
      rack.put(address)
      return true
    }
  }

  /// Gives a rack, whose magazines are full, an empty one to fill, if there is one; both locks are
  /// taken.
  private func makeRoom(_ cell: Int, _ kind: IOVAKind, _ rack: inout IOVARack) {
    rack.resume()
    if rack.hasRoom() {
      caches.note(cell, kind, inUse: true)
      return
    }
    if unsafe rack.hasBoth && store.pointee.fullCount(kind) >= fullMax { return }
    guard let empty = unsafe store.pointee.takeEmpty() else { return }
    if let full = rack.takeEmpty(empty) { unsafe store.pointee.addFull(full, kind) }
    unsafe store.pointee.noteUse(kind)
    caches.note(cell, kind, inUse: true)
  }

  // MARK: - Giving back

  /// Gives all that is cached back to the tree; everything is locked.
  @_optimize(size)
  func giveBackCaches(to store: inout IOVAStore) {
    store.drains = store.drains &+ 1
    caches.forEachRack { cell, kind, rack in
      let surplus = rack.giveAll { magazine, count in
        store.giveBack(magazine, kind, count: count, kept: 0)
      }
      if let surplus { store.addEmpty(surplus) }
      store.takeCounts(of: &rack)
      caches.note(cell, kind, inUse: false)
    }
    store.giveBackAll()
  }

  /// Gives all that is cached back to the tree, and the caches' memory to the heap.
  @_optimize(size)
  public func drain() {
    guard !isChecked else { return }
    caches.lockEverything()
    unsafe giveBackCaches(to: &store.pointee)
    caches.unlockRacksOnly()
    unlockStore()
    for cell in 0..<caches.cellCount {
      for index in 0..<Int(orderCount) * 2 {
        let kind = IOVAKind(index: index)
        caches.rack(cell, kind).withLock { rack in
          lockStore()
          while !rack.isInUse, let given = rack.giveOne() {
            unsafe store.pointee.addEmpty(given.magazine)
          }
          unlockStore()
        }
      }
    }
    lockStore()
    let magazines = unsafe store.pointee.takeSurplus(beyond: 0)
    finishApart()
    IOVAStore.freeMagazines(from: magazines)
  }

  /// Looks at a kind of range, and retires a magazine of it if nobody uses it any more.
  @_optimize(size)
  func age() {
    lockStore()
    let kind = unsafe store.pointee.ageingKind
    unlockStore()
    guard let kind else { return }
    var uses: UInt64 = 0
    for cell in 0..<caches.cellCount {
      uses = uses &+ caches.rack(cell, kind).withLock { $0.uses }
    }
    var hasRetired = false
    var isIdle = true
    for cell in 0..<caches.cellCount where isIdle && !hasRetired {
      caches.rack(cell, kind).withLock { rack in
        lockStore()
        isIdle = unsafe store.pointee.isIdle(kind, uses: uses)
        hasRetired = unsafe isIdle && store.pointee.retireOne(&rack, kind)
        if !rack.isInUse {
          unsafe store.pointee.takeCounts(of: &rack)
          caches.note(cell, kind, inUse: false)
        }
        unlockStore()
      }
    }
    lockStore()
    unsafe store.pointee.didLookAt(kind, hasRetired: hasRetired)
    unlockStore()
  }
}
