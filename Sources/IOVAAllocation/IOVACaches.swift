// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform
import Primitives

/// A stack of first addresses of free ranges of one size.
///
/// Confined to whoever has it: a rack, or the store.
@safe
struct IOVAMagazine {
  /// 127 addresses and a link fill 1024 bytes.
  static var capacity: Int { 127 }
  static var size: Int { 1024 }
  static var stride: Int { MemoryLayout<UInt64>.stride }

  private let words: UnsafeMutablePointer<UInt64>

  /// Uses memory of `size`, whose contents do not matter.
  init(_ memory: UnsafeMutableRawPointer) {
    // SAFETY: the memory is 128 words long, and nobody else uses it.
    unsafe words = memory.bindMemory(to: UInt64.self, capacity: 128)
  }

  /// The memory, to be freed.
  var raw: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(words) }

  // The caller keeps the count, and `index` below it.

  func address(_ index: Int) -> UInt64 { unsafe words[index] }

  func setAddress(_ index: Int, _ address: UInt64) { unsafe words[index] = address }

  /// The next magazine of the list that it is in.
  var next: IOVAMagazine? {
    get {
      // SAFETY: the last word is the link, the address of a magazine's memory or 0.
      let link = unsafe UnsafeMutableRawPointer(bitPattern: UInt(words[Self.capacity]))
      guard let link = unsafe link else { return nil }
      return unsafe IOVAMagazine(link)
    }
    nonmutating set {
      unsafe words[Self.capacity] = newValue.map { unsafe UInt64(UInt(bitPattern: $0.raw)) } ?? 0
    }
  }
}

/// What one processor has of one kind of range: a magazine to push to and pop from, and another.
///
/// The other is mostly full or empty. So whoever frees and allocates in turns at an end of the first
/// exchanges the two once for 127 ranges at least, and never goes to the store.
///
/// Locked, by the word before it that says where the next address goes (`IOVARackPlace`). A rack
/// that may hold ranges has a magazine to push to, and is noted in its cell; both begin and end while
/// the store is locked too. A rack that does not may keep an empty magazine aside.
@safe
struct IOVARack {
  // Where the next address goes, for the holder of the lock.
  private var top: UInt64 = 0
  // Where addresses start, and where none goes any more. Without a magazine all of these are 0: so it
  // is both empty and full, and asks for one.
  fileprivate private(set) var start: UInt64 = 0
  fileprivate private(set) var end: UInt64 = 0
  private var other: IOVAMagazine? = nil
  private var otherCount = 0
  /// Ranges that went out to callers.
  fileprivate(set) var allocations: UInt64 = 0
  /// Ranges that went elsewhere otherwise, less those that came from there.
  private var moved: UInt64 = 0

  // All of what follows is for the holder of the lock.

  /// Ranges that came in from callers: what went out and what is here.
  var frees: UInt64 { allocations &+ moved &+ UInt64(bitPattern: Int64(count)) }

  var uses: UInt64 { allocations &+ frees }

  private var loaded: IOVAMagazine? {
    // SAFETY: the start is 0 or the address of a magazine's memory: `load` put it there.
    let memory = unsafe UnsafeMutableRawPointer(bitPattern: UInt(start))
    guard let memory = unsafe memory else { return nil }
    return unsafe IOVAMagazine(memory)
  }

  private var loadedCount: Int { Int(bitPattern: UInt(top &- start)) / IOVAMagazine.stride }

  var count: Int { loadedCount &+ otherCount }

  /// Whether it may hold ranges.
  var isInUse: Bool { start != 0 }

  /// Whether an address can be put in, be it after exchanging the magazines.
  mutating func hasRoom() -> Bool {
    if isInUse && top == end && other != nil && otherCount < IOVAMagazine.capacity { exchange() }
    return top != end
  }

  /// Makes the magazine that was kept aside, if any, the one to push to. The store is locked.
  mutating func resume() {
    if !isInUse && other != nil { exchange() }
  }

  /// Puts an address in; there is room.
  mutating func put(_ address: UInt64) {
    loaded?.setAddress(loadedCount, address)
    top = top &+ UInt64(IOVAMagazine.stride)
  }

  /// Takes an address out whose range, of `extent` + 1 bytes, ends at or below a limit, whichever it
  /// is.
  mutating func take(extent: UInt64, limit: UInt64) -> UInt64? {
    if let address = takeFromLoaded(extent: extent, limit: limit) { return address }
    guard otherCount > 0 else { return nil }
    exchange()
    return takeFromLoaded(extent: extent, limit: limit)
  }

  private mutating func takeFromLoaded(extent: UInt64, limit: UInt64) -> UInt64? {
    guard let loaded else { return nil }
    let last = loadedCount &- 1
    var index = last
    while index >= 0 {
      let address = loaded.address(index)
      // It does not wrap: it was in the space when it was put in.
      if address &+ extent <= limit {
        loaded.setAddress(index, loaded.address(last))
        top = top &- UInt64(IOVAMagazine.stride)
        allocations = allocations &+ 1
        return address
      }
      index = index &- 1
    }
    return nil
  }

  private mutating func exchange() {
    let (magazine, count) = (other, otherCount)
    (other, otherCount) = (loaded, loadedCount)
    load(magazine, count: count)
  }

  private mutating func load(_ magazine: IOVAMagazine?, count: Int) {
    guard let magazine else {
      (start, top, end) = (0, 0, 0)
      return
    }
    start = unsafe UInt64(UInt(bitPattern: magazine.raw))
    top = start &+ UInt64(count &* IOVAMagazine.stride)
    end = start &+ UInt64(IOVAMagazine.capacity &* IOVAMagazine.stride)
  }

  /// Takes a full magazine in, and gives the empty one out that was there, if any.
  mutating func takeFull(_ full: IOVAMagazine) -> IOVAMagazine? {
    let empty = loaded
    load(full, count: IOVAMagazine.capacity)
    moved = moved &- UInt64(IOVAMagazine.capacity)
    return empty
  }

  /// Whether both magazines are there; both of them are full when there is no room.
  var hasBoth: Bool { start != 0 && other != nil }

  /// Takes an empty magazine in, and gives the full one out that was there, if there were two.
  mutating func takeEmpty(_ empty: IOVAMagazine) -> IOVAMagazine? {
    let full = hasBoth ? other : nil
    if full != nil { moved = moved &+ UInt64(IOVAMagazine.capacity) }
    (other, otherCount) = (loaded, loadedCount)
    load(empty, count: 0)
    return full
  }

  /// Gives a magazine out with what is in it: the other first.
  @_optimize(size)
  @inline(never)
  mutating func giveOne() -> (magazine: IOVAMagazine, count: Int)? {
    if let magazine = other {
      let count = otherCount
      (other, otherCount) = (nil, 0)
      moved = moved &+ UInt64(count)
      return (magazine, count)
    }
    guard let magazine = loaded else { return nil }
    let count = loadedCount
    load(nil, count: 0)
    moved = moved &+ UInt64(count)
    return (magazine, count)
  }

  /// Gives out what is in both magazines, keeps one of them aside, and gives the other out, if there
  /// are two.
  mutating func giveAll(_ body: (IOVAMagazine, Int) -> Void) -> IOVAMagazine? {
    moved = moved &+ UInt64(count)
    if let loaded { body(loaded, loadedCount) }
    if let other { body(other, otherCount) }
    let surplus = other == nil ? nil : loaded
    if other == nil { other = loaded }
    otherCount = 0
    load(nil, count: 0)
    return surplus
  }

  /// What was counted so far, from here on counted by the taker. Nothing is in the rack.
  mutating func takeCounts() -> (allocations: UInt64, frees: UInt64) {
    defer { (allocations, moved) = (0, 0) }
    return (allocations, frees)
  }

  // MARK: - Lock

  fileprivate mutating func didLock(_ number: UInt64) { top = number }

  fileprivate var numberToPutBack: UInt64 { top }
}

/// Where a rack lies: a line of the cache, of which the first word is its lock.
@safe
struct IOVARackPlace {
  /// The rack's seven words and the lock's.
  static var size: Int { 64 }

  private let memory: UnsafeMutableRawPointer

  /// Uses memory where `initialize` has been or is called.
  init(_ memory: UnsafeMutableRawPointer) { unsafe self.memory = memory }

  /// Makes an empty rack here.
  func initialize() {
    // SAFETY: the memory is a line of the cache, and nobody else knows it yet.
    unsafe memory.bindMemory(to: UInt64.self, capacity: 1).initialize(to: 0)
    unsafe (memory + 8).bindMemory(to: IOVARack.self, capacity: 1).initialize(to: IOVARack())
  }

  @inline(__always)
  private var lock: BriefLock {
    // SAFETY: `initialize` put a word here, which lies before the rack and not in it: what the
    // thread sanitizer takes for an access to the rack is one by the holder alone.
    unsafe BriefLock(memory.assumingMemoryBound(to: UInt64.self), .iovaCache)
  }

  @inline(__always)
  private var rack: UnsafeMutablePointer<IOVARack> {
    // SAFETY: `initialize` put a rack here.
    unsafe (memory + 8).assumingMemoryBound(to: IOVARack.self)
  }

  /// Puts an address in if that is done at once.
  @inline(__always)
  func push(_ address: UInt64) -> Bool {
    guard let top = lock.tryTake() else { return false }
    guard unsafe top != rack.pointee.end else {
      lock.putBack(top)
      return false
    }
    // SAFETY: the number is the address of a word of the magazine, as it is not the end.
    unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(top)).unsafelyUnwrapped.pointee = address
    lock.putBack(top &+ UInt64(IOVAMagazine.stride))
    return true
  }

  /// Takes the last address out if that is done at once, and its range, of `extent` + 1 bytes, ends
  /// at or below a limit.
  @inline(__always)
  func pop(extent: UInt64, limit: UInt64) -> UInt64? {
    guard let top = lock.tryTake() else { return nil }
    if unsafe top != rack.pointee.start {
      let place = top &- UInt64(IOVAMagazine.stride)
      // SAFETY: below the number there is a word of the magazine, as it is not the start.
      let address =
        unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(place)).unsafelyUnwrapped.pointee
      // It does not wrap: it was in the space when it was put in.
      if address &+ extent <= limit {
        unsafe rack.pointee.allocations &+= 1
        lock.putBack(place)
        return address
      }
    }
    lock.putBack(top)
    return nil
  }

  /// The result of `body`, which has the rack to itself.
  func withLock<Result>(_ body: (inout IOVARack) -> Result) -> Result {
    unsafe rack.pointee.didLock(lock.take())
    let result = unsafe body(&rack.pointee)
    unsafe lock.putBack(rack.pointee.numberToPutBack)
    return result
  }

  // Of all racks at once, in order, by a thread that holds a lock of this rank.

  func lockAnother() { unsafe rack.pointee.didLock(lock.takeAnother()) }

  func unlockAnother() { unsafe lock.putBackAnother(rack.pointee.numberToPutBack) }

  /// The rack, which the caller has locked by `lockAnother`, or which no other thread knows.
  func use<Result>(_ body: (inout IOVARack) -> Result) -> Result {
    unsafe body(&rack.pointee)
  }
}

/// The kind of a cached range: a power of two of granules, below 4 GiB or not.
struct IOVAKind: Equatable {
  /// 64 sizes, and two zones for each.
  static var count: Int { 128 }

  let index: Int

  init(index: Int) { self.index = index }

  init(order: Int, isHigh: Bool) { index = order &* 2 &+ (isHigh ? 1 : 0) }

  /// The next one, after the last the first.
  var next: IOVAKind { IOVAKind(index: (index &+ 1) & (Self.count &- 1)) }

  var order: Int { index / 2 }
  var isHigh: Bool { index & 1 != 0 }
}

/// The caches in front of the store: a cell for each processor, with a rack for each kind of range.
///
/// A thread uses the cell of the processor it runs on; it may have been moved to another one meanwhile,
/// and nothing depends on that.
@safe
struct IOVACaches: ~Copyable {
  /// What a cell starts with: two words of bits, for the kinds whose racks are in use, and two for
  /// those that `lockEverything` has locked. The racks follow, each in a line of its own.
  private static var headSize: Int { 64 }

  private let memory: UnsafeMutableRawPointer
  private let cells = ProcessorCells()
  private let cellSize: Int
  private let kindCount: Int
  private let placed = Placed()

  var cellCount: Int { cells.count }

  /// - Parameter orderCount: how many powers of two of granules there are in the space.
  @_optimize(size)
  init(orderCount: Int) throws(Failure) {
    // Two lines at once: a processor that reads one fetches its neighbour too.
    let cellSize = (Self.headSize + orderCount * 2 * IOVARackPlace.size + 127) & ~127
    let cellCount = cells.count
    // Two lines at the end for the locks of the store and of `lockEverything`.
    let size = cellSize * cellCount + 2 * Self.headSize
    let memory = unsafe try RawMemory.allocateCleared(size, alignment: 128)
    unsafe self.memory = memory
    self.cellSize = cellSize
    kindCount = orderCount * 2
    for cell in 0..<cellCount {
      for index in 0..<kindCount { rack(cell, IOVAKind(index: index)).initialize() }
    }
  }

  deinit {
    for cell in 0..<cellCount {
      for index in 0..<kindCount {
        rack(cell, IOVAKind(index: index)).use { rack in
          while let given = rack.giveOne() { unsafe RawMemory.free(given.magazine.raw) }
        }
      }
    }
    unsafe RawMemory.free(memory)
  }

  var byteCount: Int { cellSize * cellCount }

  /// The rack of the processor that the thread runs on, if that can be told at once.
  @inline(__always)
  func likelyRack(_ kind: IOVAKind) -> IOVARackPlace? {
    guard let cell = cells.likely else { return nil }
    return rack(cell, kind)
  }

  /// The cell of the processor that the thread runs on.
  var current: Int { cells.current }

  @inline(__always)
  func rack(_ cell: Int, _ kind: IOVAKind) -> IOVARackPlace {
    // Kinds are below their number, as the space's sizes are.
    let offset = cell &* cellSize &+ Self.headSize &+ kind.index &* IOVARackPlace.size
    return unsafe IOVARackPlace(memory + offset)
  }

  /// The lock of the store that the caches stand in front of.
  var storeLock: BriefLock { lock(0, .iovaStore) }

  /// The lock that is taken before all others are.
  private var allLock: BriefLock { lock(1, .iovaCache) }

  private func lock(_ line: Int, _ rank: LockRank) -> BriefLock {
    // SAFETY: the memory ends with two lines, each for a lock, which were cleared.
    let word = unsafe (memory + (cellCount &* cellSize &+ line &* Self.headSize))
      .assumingMemoryBound(to: UInt64.self)
    return unsafe BriefLock(word, rank)
  }

  // MARK: - Racks in use

  /// The bits of a cell for half of the kinds: in words 0 and 1 those in use, in words 2 and 3 those
  /// that are locked.
  private func bits(_ cell: Int, _ word: Int) -> UnsafeMutablePointer<UInt64> {
    // SAFETY: a cell starts with these words, which were cleared with it.
    unsafe (memory + (cell &* cellSize &+ word &* 8)).assumingMemoryBound(to: UInt64.self)
  }

  /// Notes whether a rack is in use. The store is locked.
  func note(_ cell: Int, _ kind: IOVAKind, inUse: Bool) {
    let word = unsafe bits(cell, kind.index / 64)
    let bit: UInt64 = 1 &<< UInt64(kind.index & 63)
    let old = unsafe cplatform_load_relaxed(word)
    // Release: pairs with the acquire in lockEverything.
    unsafe cplatform_store_release(word, inUse ? old | bit : old & ~bit)
  }

  /// Takes the locks of all racks that are in use, and the store's.
  ///
  /// Use begins and ends under the store's lock; so once that is taken, no rack is in use that is not
  /// locked, or else this starts again.
  @_optimize(size)
  func lockEverything() {
    allLock.lock()
    while true {
      for cell in 0..<cellCount {
        for word in 0...1 {
          // Acquire: pairs with the release in note.
          unsafe bits(cell, word &+ 2).pointee = cplatform_load_acquire(bits(cell, word))
        }
      }
      var next = 0
      while let (cell, kind) = nextLocked(&next) { rack(cell, kind).lockAnother() }
      storeLock.lock()
      if isEverythingLocked { return }
      storeLock.unlock()
      unlockRacks()
    }
  }

  private var isEverythingLocked: Bool {
    for cell in 0..<cellCount {
      for word in 0...1 {
        let used = unsafe cplatform_load_relaxed(bits(cell, word))
        if unsafe used & ~bits(cell, word &+ 2).pointee != 0 { return false }
      }
    }
    return true
  }

  /// Leaves the racks; the store stays locked.
  func unlockRacksOnly() {
    unlockRacks()
    allLock.unlock()
  }

  private func unlockRacks() {
    var next = 0
    while let (cell, kind) = nextLocked(&next) { rack(cell, kind).unlockAnother() }
  }

  /// Calls `body` with each rack that was in use at `lockEverything`.
  func forEachRack(_ body: (Int, IOVAKind, inout IOVARack) -> Void) {
    var next = 0
    while let (cell, kind) = nextLocked(&next) {
      rack(cell, kind).use { body(cell, kind, &$0) }
    }
  }

  /// The first rack from `next` on, counted through all cells, that `lockEverything` locks or has locked.
  /// The one behind it is next then.
  @inline(never)
  private func nextLocked(_ next: inout Int) -> (cell: Int, kind: IOVAKind)? {
    while next < cellCount &* IOVAKind.count {
      let cell = next &>> 7
      let index = next & (IOVAKind.count &- 1)
      let locked = unsafe bits(cell, index &>> 6 &+ 2).pointee &>> UInt64(index & 63)
      guard locked == 0 else {
        let skipped = locked.trailingZeroBitCount
        next = next &+ skipped &+ 1
        return (cell, IOVAKind(index: index &+ skipped))
      }
      next = (next | 63) &+ 1
    }
    return nil
  }
}
