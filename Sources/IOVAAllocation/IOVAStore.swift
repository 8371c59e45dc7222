// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

/// What the lock of an IOVA space's store guards: the tree of ranges in use, and the depot of
/// magazines between the processors' caches.
///
/// Confined: the space's lock guards it. Addresses in magazines are bytes, all others granules.
@safe
struct IOVAStore: ~Copyable {
  /// Magazines of one kind that are full, and when they were last used.
  struct Shelf {
    var top: IOVAMagazine? = nil
    var count = 0
    /// Uses of the kind by all processors when the shelf was last looked at.
    var usesSeen: UInt64 = 0
  }

  /// What was freed wrongly and is to be reported when no lock is held.
  struct Refusals {
    static var capacity: Int { 4 }
    private(set) var count = 0
    private(set) var lost: UInt64 = 0
    private var first: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    private var size: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    mutating func add(first address: UInt64, size bytes: UInt64) {
      switch count {
      case 0: (first.0, size.0) = (address, bytes)
      case 1: (first.1, size.1) = (address, bytes)
      case 2: (first.2, size.2) = (address, bytes)
      case 3: (first.3, size.3) = (address, bytes)
      default:
        lost &+= 1
        return
      }
      count &+= 1
    }

    subscript(index: Int) -> (first: UInt64, size: UInt64) {
      switch index {
      case 0: (first.0, size.0)
      case 1: (first.1, size.1)
      case 2: (first.2, size.2)
      default: (first.3, size.3)
      }
    }
  }

  /// Empty magazines that allocation sees to. It makes one at a time, so this is how many fill up by
  /// frees between two allocations that find none to take.
  static var emptiesWanted: Int { 4 }

  var tree: IOVATree
  private let shift: UInt64

  // Ranges in the tree. Of bytes, modulo 2^64.
  private(set) var allocatedBytes: UInt64 = 0
  private(set) var reservedCount = 0
  private(set) var reservedBytes: UInt64 = 0
  private(set) var takenCountMax = 0
  private(set) var takenBytesMax: UInt64 = 0
  private(set) var allocations: UInt64 = 0
  private(set) var frees: UInt64 = 0
  private(set) var refusedFrees: UInt64 = 0
  var drains: UInt64 = 0
  /// What racks counted until they went out of use.
  private(set) var cacheAllocations: UInt64 = 0
  private(set) var cacheFrees: UInt64 = 0
  /// How often something became free: what was not found before can only be found if this has grown.
  private(set) var vacancies: UInt64 = 0
  var refusals = Refusals()

  // The depot. nil in a space without caches.
  private let shelves: UnsafeMutablePointer<Shelf>?
  private var fullMagazines = 0
  /// A magazine of a kind that nobody uses any more, whose ranges go back to the tree bit by bit.
  private var retiring: IOVAMagazine? = nil
  private var retiringKind = IOVAKind(index: 0)
  private var retiringCount = 0
  private var operations: UInt64 = 0
  // The kinds that have magazines, by their order, and the one to look at next.
  private var usedLow: UInt64 = 0
  private var usedHigh: UInt64 = 0
  private var nextKind = IOVAKind(index: 0)
  private var empty: IOVAMagazine? = nil
  private(set) var emptyCount = 0
  /// Magazines of the space, wherever they are.
  private(set) var magazineCount = 0

  @_optimize(size)
  init(first: UInt64, last: UInt64, shift: Int, hasCaches: Bool) throws(Failure) {
    let tree = try IOVATree(first: first, last: last)
    var shelves: UnsafeMutablePointer<Shelf>? = nil
    if hasCaches {
      let raw = unsafe try RawMemory.allocate(
        IOVAKind.count * MemoryLayout<Shelf>.stride, alignment: 16)
      // SAFETY: the allocation has room for a shelf of each kind, and is initialized here.
      unsafe shelves = raw.bindMemory(to: Shelf.self, capacity: IOVAKind.count)
      unsafe shelves?.initialize(repeating: Shelf(), count: IOVAKind.count)
    }
    self.tree = tree
    self.shift = UInt64(shift)
    unsafe self.shelves = shelves
  }

  deinit {
    Self.freeMagazines(from: retiring)
    Self.freeMagazines(from: empty)
    if let shelves = unsafe shelves {
      for index in 0..<IOVAKind.count { unsafe Self.freeMagazines(from: shelves[index].top) }
      unsafe RawMemory.free(shelves)
    }
  }

  static func freeMagazines(from first: IOVAMagazine?) {
    var next = first
    while let magazine = next {
      next = magazine.next
      unsafe RawMemory.free(magazine.raw)
    }
  }

  // MARK: - Ranges

  var allocatedCount: Int { tree.count &- reservedCount }

  /// Enters a range at the place that the tree's last search found.
  @inline(__always)
  mutating func insert(first: UInt64, size: UInt64, isReserved: Bool) {
    tree.insert(IOVATree.Range(first: first, size: size, isReserved: isReserved))
    if isReserved {
      reservedCount = reservedCount &+ 1
      reservedBytes = reservedBytes &+ size &<< shift
    } else {
      allocations = allocations &+ 1
      allocatedBytes = allocatedBytes &+ size &<< shift
      takenCountMax = max(takenCountMax, allocatedCount)
      // Of 2^64 bytes, which are 0 here, the highest number is what the reader gets.
      takenBytesMax = max(takenBytesMax, allocatedBytes == 0 ? UInt64.max : allocatedBytes)
    }
    tree.checkInvariants()
  }

  /// Takes out a range that is exactly this one.
  @inline(__always)
  mutating func remove(first: UInt64, size: UInt64, isReserved: Bool) -> Bool {
    guard let range = tree.findRange(at: first), range.size == size,
      range.isReserved == isReserved
    else { return false }
    tree.remove()
    vacancies = vacancies &+ 1
    if isReserved {
      reservedCount = reservedCount &- 1
      reservedBytes = reservedBytes &- size &<< shift
    } else {
      allocatedBytes = allocatedBytes &- size &<< shift
    }
    tree.checkInvariants()
    return true
  }

  /// Frees an allocated range, or notes that there is none like this.
  @inline(__always)
  mutating func free(first: UInt64, size: UInt64) -> Bool {
    if remove(first: first, size: size, isReserved: false) {
      frees = frees &+ 1
      return true
    }
    refusedFrees = refusedFrees &+ 1
    refusals.add(first: first &<< shift, size: size &<< shift)
    return false
  }

  /// Takes over what a rack has counted that goes out of use.
  mutating func takeCounts(of rack: inout IOVARack) {
    let counts = rack.takeCounts()
    cacheAllocations = cacheAllocations &+ counts.allocations
    cacheFrees = cacheFrees &+ counts.frees
  }

  mutating func takeRefusals() -> Refusals? {
    guard refusals.count > 0 else { return nil }
    let taken = refusals
    refusals = Refusals()
    return taken
  }

  // MARK: - Depot

  /// A full magazine of a kind.
  mutating func takeFull(_ kind: IOVAKind) -> IOVAMagazine? {
    guard let shelves = unsafe shelves, let magazine = unsafe shelves[kind.index].top else {
      return nil
    }
    unsafe shelves[kind.index].top = magazine.next
    unsafe shelves[kind.index].count &-= 1
    fullMagazines = fullMagazines &- 1
    return magazine
  }

  func fullCount(_ kind: IOVAKind) -> Int {
    guard let shelves = unsafe shelves else { return 0 }
    return unsafe shelves[kind.index].count
  }

  mutating func addFull(_ magazine: IOVAMagazine, _ kind: IOVAKind) {
    guard let shelves = unsafe shelves else { return }
    magazine.next = unsafe shelves[kind.index].top
    unsafe shelves[kind.index].top = magazine
    unsafe shelves[kind.index].count &+= 1
    fullMagazines = fullMagazines &+ 1
  }

  mutating func takeEmpty() -> IOVAMagazine? {
    guard let magazine = empty else { return nil }
    empty = magazine.next
    emptyCount = emptyCount &- 1
    return magazine
  }

  mutating func addEmpty(_ magazine: IOVAMagazine) {
    magazine.next = empty
    empty = magazine
    emptyCount = emptyCount &+ 1
  }

  /// Adds a magazine that was just made.
  mutating func addNew(_ magazine: IOVAMagazine) {
    magazineCount = magazineCount &+ 1
    addEmpty(magazine)
  }

  /// Whether one should be made, so that what is freed can be cached.
  func isShortOfMagazines(_ most: Int) -> Bool {
    emptyCount < Self.emptiesWanted && magazineCount < most
  }

  /// Takes all empty magazines but some out, to be freed.
  mutating func takeSurplus(beyond kept: Int) -> IOVAMagazine? {
    var surplus: IOVAMagazine? = nil
    while emptyCount > kept, let magazine = takeEmpty() {
      magazine.next = surplus
      surplus = magazine
      magazineCount = magazineCount &- 1
    }
    return surplus
  }

  // MARK: - Giving back

  /// Frees the ranges of a magazine, from the last on, until `kept` are left.
  @inline(never)
  @_optimize(size)
  mutating func giveBack(_ magazine: IOVAMagazine, _ kind: IOVAKind, count: Int, kept: Int) {
    var index = count
    while index > kept {
      index = index &- 1
      _ = free(first: magazine.address(index) &>> shift, size: 1 &<< UInt64(kind.order))
    }
  }

  /// Frees the ranges of all magazines that are in the store.
  @_optimize(size)
  mutating func giveBackAll() {
    if let magazine = retiring {
      giveBack(magazine, retiringKind, count: retiringCount, kept: 0)
      retiring = nil
      retiringCount = 0
      addEmpty(magazine)
    }
    guard fullMagazines > 0, let shelves = unsafe shelves else { return }
    for index in 0..<IOVAKind.count where unsafe shelves[index].count > 0 {
      let kind = IOVAKind(index: index)
      while let magazine = takeFull(kind) {
        giveBack(magazine, kind, count: IOVAMagazine.capacity, kept: 0)
        addEmpty(magazine)
      }
    }
  }

  /// Ranges in magazines that are in the store, and the bytes in them.
  var cached: (count: UInt64, bytes: UInt64) {
    var (count, bytes) = (UInt64(retiringCount), UInt64(0))
    bytes = UInt64(retiringCount) &<< (UInt64(retiringKind.order) &+ shift)
    guard let shelves = unsafe shelves else { return (count, bytes) }
    for index in 0..<IOVAKind.count {
      let ranges = unsafe UInt64(shelves[index].count &* IOVAMagazine.capacity)
      count = count &+ ranges
      bytes = bytes &+ ranges &<< (UInt64(index / 2) &+ shift)
    }
    return (count, bytes)
  }

  /// Whether it is time to look for kinds that are not used any more: now and then, when operations
  /// have gone to the tree and no magazine is being retired.
  var isDueToAge: Bool {
    operations & 255 == 0 && retiringCount == 0 && magazineCount > 0
  }

  /// Counts an operation, and says whether it has left nothing to do.
  @inline(__always)
  mutating func isDone(_ emptiesKept: Int) -> Bool {
    operations = operations &+ 1
    return operations & 255 != 0 && (retiringCount == 0 || operations & 31 != 0)
      && refusals.count == 0
      && emptyCount <= emptiesKept && !tree.hasSurplus
  }

  /// Notes that racks have magazines of a kind.
  mutating func noteUse(_ kind: IOVAKind) {
    let bit: UInt64 = 1 &<< UInt64(kind.order)
    if kind.isHigh { usedHigh |= bit } else { usedLow |= bit }
  }

  private func isUsed(_ kind: IOVAKind) -> Bool {
    (kind.isHigh ? usedHigh : usedLow) & (1 &<< UInt64(kind.order)) != 0
  }

  /// The kind to look at next, of those that have magazines.
  var ageingKind: IOVAKind? {
    guard usedLow | usedHigh != 0 else { return nil }
    var kind = nextKind
    while !isUsed(kind) { kind = kind.next }
    return kind
  }

  /// Goes on to the next kind, unless there may be more of this one.
  mutating func didLookAt(_ kind: IOVAKind, hasRetired: Bool) {
    nextKind = hasRetired ? kind : kind.next
  }

  /// Whether a kind has not been used since this was last asked, now that `uses` have been made of it.
  mutating func isIdle(_ kind: IOVAKind, uses: UInt64) -> Bool {
    guard let shelves = unsafe shelves else { return false }
    defer { unsafe shelves[kind.index].usesSeen = uses }
    return unsafe shelves[kind.index].usesSeen == uses
  }

  /// Lets a magazine of a rack or of the depot go back to the tree, a range with every 32nd operation
  /// from here on. Whether there was one.
  mutating func retireOne(_ rack: inout IOVARack, _ kind: IOVAKind) -> Bool {
    if retiringCount > 0 { return false }
    if let full = takeFull(kind) {
      retire(full, kind, count: IOVAMagazine.capacity)
    } else if let given = rack.giveOne() {
      retire(given.magazine, kind, count: given.count)
    } else {
      return false
    }
    return true
  }

  private mutating func retire(_ magazine: IOVAMagazine, _ kind: IOVAKind, count: Int) {
    guard count > 0 else { return addEmpty(magazine) }
    // It is in no list, and its link is from the last one.
    magazine.next = nil
    retiring = magazine
    retiringKind = kind
    retiringCount = count
  }

  /// Gives a range of the magazine that is being retired back, if it is time.
  @_optimize(size)
  mutating func retireSome() {
    guard retiringCount > 0, let magazine = retiring else { return }
    // One at a time, and with few operations: it goes to a part of the tree that nobody else is at, and
    // costs more than the operation itself.
    guard operations & 31 == 0 else { return }
    let kept = retiringCount &- 1
    giveBack(magazine, retiringKind, count: retiringCount, kept: kept)
    retiringCount = kept
    if kept == 0 {
      retiring = nil
      addEmpty(magazine)
    }
  }
}
