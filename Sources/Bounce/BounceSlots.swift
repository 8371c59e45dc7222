// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives

// Theory of operation: slots of a bounce pool.
//
// 1. Concepts
// A device that does not reach a buffer is given a copy of it, in memory that it reaches. That memory is
// cut into slots of 2 KiB; a copy takes slots in a row. Where it starts in the first of them follows from
// what its address must have in common with the buffer's.
//
// 2. Implementation
// 2.1 A bit for each slot says whether it is in use. Slots in a row are looked for by words of 64 bits:
// all places in a word at which enough free slots start are found at once, so that full and half-full
// words cost a few instructions each. Runs longer than a word are found by skipping what is in use.
// 2.2 The bits are cut into areas, one or more words each, about one for each processor. A processor
// starts in its own area, where it was last, so that it gets slots that it has just given back. Then it
// tries the others. What fits into no area may lie across several: last, all areas are locked at once.
// So it fails only if there is a moment within the call at which nothing fits.
// 2.3 What belongs to the slots in use, a run, is kept in a row of its own beside them, at the first of
// its slots: neither taking slots nor giving them back needs memory.
// 2.4 There are also two words of the owner's for the first slot of a run, with which it finds a run by the
// address of the copy.
//
// 3. Locking
// Each area has a lock (rank 15); its bits and numbers are changed under it. Several are taken in order.
// A run is its taker's, until it is given back.
//
// 4. What this does not do
// It copies nothing, and knows no devices, and not where its memory is from.

/// What the slots of a copy must be like.
public struct BounceRequest: Sendable {
  /// Bytes of the copy.
  let size: UInt64
  /// The low bits that its address has in common with `low`, as a mask.
  let mask: UInt64
  let low: UInt64
  /// The mask of the block that it may not reach out of.
  let boundary: UInt64
  /// Where it starts in its first slot, and how many slots it takes.
  let offset: UInt64
  let count: UInt64

  /// - Parameters:
  ///   - mask: bits of the address of the copy that are those of `low`; all below the highest count.
  ///   - boundary: a power of two less one.
  /// - Throws: `noSpace` for a size that no memory has.
  public init(
    size: UInt64, low: UInt64 = 0, mask: UInt64 = 0, boundary: UInt64 = UInt64.max
  ) throws(Failure) {
    // More than a page table translates, and less than would wrap below.
    guard size &- 1 < 1 << 60 else { throw .noSpace }
    self.size = size
    self.mask = mask == 0 ? 0 : UInt64.max >> UInt64(mask.leadingZeroBitCount)
    self.low = low
    self.boundary = boundary
    offset = low & self.mask & BounceSlots.granule.mask
    count =
      (offset &+ size &+ BounceSlots.granule.mask) &>> UInt64(BounceSlots.granule.shift)
  }

  /// Bytes in which there is room for it, at whichever multiple of 4096 they start.
  public var room: UInt64 {
    // How far from there the first slot can be.
    let distance = mask <= 4095 ? low & mask & BounceSlots.granule.bytes : min(mask, 1 << 60)
    return count &* BounceSlots.granule.bytes &+ distance
  }
}

/// Slots in a row that are in use, and what is copied there: a part of a mapping.
@safe
public struct BounceRun {
  /// Whose slots they are, for whoever made these.
  public let owner: UnsafeMutableRawPointer?
  /// Where the device finds the first slot's part of the copy, as the taker counts.
  public let address: UInt64
  fileprivate let first: Int
  /// How many slots.
  public let count: Int

  // The taker's.

  /// What is copied, and where its first byte is in the copy.
  public var original: PhysicalRange
  public var host: UnsafeMutableRawPointer
  /// Where that starts in its mapping.
  public var offset: UInt64 = 0
  /// Another part of the same mapping.
  public var next: UnsafeMutablePointer<BounceRun>? = nil
}

/// The slots of a run of memory.
@safe
public struct BounceSlots: ~Copyable, @unchecked Sendable {
  public static var granule: Granule { Granule(shift: 11) }

  // What follows a lock's word, which is not in it: others exchange that while this is changed.
  struct Area {
    var free = 0
    // The word in which slots were taken or given back last.
    var hint: Int
    // Bytes that were copied into slots, and out of them.
    var copiedIn: UInt64 = 0
    var copiedOut: UInt64 = 0
  }

  // Two lines at once: a processor that reads one fetches its neighbour too.
  private static var areaStride: Int { 128 }
  private static var lockSize: Int { MemoryLayout<UInt64>.size }

  private let host: UnsafeMutableRawPointer
  /// What runs say whose they are; set before there are any.
  public var owner: UnsafeMutableRawPointer? = nil
  public let count: Int
  // One allocation has the areas, the runs, the words and what is kept for the owner.
  private let memory: UnsafeMutableRawPointer
  // Two for each slot; 0 at first.
  private let kept: UnsafeMutablePointer<UInt64>
  private let areaCount: Int
  // An area has so many words, as an exponent of two; the last may have fewer.
  private let areaShift: Int
  // Invariant: a bit is set while the slot is in use, and where there is no slot.
  private let words: UnsafeMutablePointer<UInt64>
  private let wordCount: Int
  private let runs: UnsafeMutablePointer<BounceRun>
  private let placed = Placed()

  /// - Parameters:
  ///   - size: bytes from `host` on, a multiple of a slot, not 0.
  ///   - areas: how many there are to be at most; nil: as many as processors.
  /// - Throws: `noMemory`.
  public init(
    _ host: UnsafeMutableRawPointer, size: Int, areas: Int? = nil
  ) throws(Failure) {
    // Nothing wraps: no pool is larger than 2^41 bytes.
    let count = size &>> Self.granule.shift
    let wordCount = (count &+ 63) &>> 6
    let wanted = max(1, areas ?? Int(cplatform_cpu_count()))
    var shift = 0
    while (wordCount &+ (1 &<< shift) &- 1) &>> shift > wanted { shift &+= 1 }
    let areaCount = (wordCount &+ (1 &<< shift) &- 1) &>> shift
    let runsOffset = areaCount &* Self.areaStride
    let wordsOffset = runsOffset &+ count &* MemoryLayout<BounceRun>.stride
    let keptOffset = wordsOffset &+ wordCount &* MemoryLayout<UInt64>.stride
    let byteCount = keptOffset &+ 2 &* count &* MemoryLayout<UInt64>.stride
    let memory = unsafe try RawMemory.allocate(byteCount, alignment: Self.areaStride)
    unsafe self.host = host
    self.count = count
    unsafe self.memory = memory
    self.areaCount = areaCount
    areaShift = shift
    self.wordCount = wordCount
    // SAFETY: the allocation has room for areas, then `count` runs, then the words, then two more for each
    // slot, all of which are aligned to a word.
    unsafe runs = (memory + runsOffset).bindMemory(to: BounceRun.self, capacity: count)
    unsafe words = (memory + wordsOffset).bindMemory(to: UInt64.self, capacity: wordCount)
    unsafe kept = (memory + keptOffset).bindMemory(to: UInt64.self, capacity: 2 &* count)
    // Those that are kept follow.
    unsafe RawMemory.clear(memory + wordsOffset, size: byteCount &- wordsOffset)
    if count & 63 != 0 {
      unsafe words[wordCount &- 1] = UInt64.max &<< UInt64(truncatingIfNeeded: count)
    }
    var index = 0
    while index < areaCount {
      // SAFETY: the allocation has room for the areas at its start, each of which fits its stride behind
      // a lock's word.
      let start = unsafe memory + index &* Self.areaStride
      unsafe start.bindMemory(to: UInt64.self, capacity: 1).initialize(to: 0)
      // SAFETY: as above.
      unsafe (start + Self.lockSize).bindMemory(to: Area.self, capacity: 1)
        .initialize(to: Area(hint: index &<< shift))
      let end = min((index &+ 1) &<< (shift &+ 6), count)
      unsafe area(index).pointee.free = end &- index &<< (shift &+ 6)
      index &+= 1
    }
  }

  deinit { unsafe RawMemory.free(memory) }

  private func area(_ index: Int) -> UnsafeMutablePointer<Area> {
    // SAFETY: the initializer put an area there.
    unsafe (memory + (index &* Self.areaStride &+ Self.lockSize)).assumingMemoryBound(
      to: Area.self)
  }

  private func lock(of index: Int) -> BriefLock {
    // SAFETY: a stride starts with the lock's word, which nobody else touches.
    unsafe BriefLock(
      (memory + index &* Self.areaStride).assumingMemoryBound(to: UInt64.self), .bounceArea)
  }

  // MARK: - Taking and giving back

  /// Takes slots for a copy, or says that nowhere so many are free in a row.
  ///
  /// - Parameter base: the address of the first byte of the memory, for the device.
  public func take(
    _ request: BounceRequest, original: PhysicalRange, base: UInt64
  ) -> UnsafeMutablePointer<BounceRun>? {
    guard request.count <= UInt64(count) else { return nil }
    let cpu = Int(cplatform_current_cpu())
    // No number, or that of a processor that was added: any area will do.
    var index = cpu < 0 ? 0 : cpu % areaCount
    for _ in 0..<areaCount {
      if let run = unsafe take(request, original, base, from: index, through: index) {
        return unsafe run
      }
      index = index &+ 1 == areaCount ? 0 : index &+ 1
    }
    guard areaCount > 1 else { return nil }
    return unsafe take(request, original, base, from: 0, through: areaCount &- 1)
  }

  @inline(never)
  @_optimize(speed)
  private func take(
    _ request: BounceRequest, _ original: PhysicalRange, _ base: UInt64, from low: Int,
    through high: Int
  ) -> UnsafeMutablePointer<BounceRun>? {
    // More than one area only in the order of their numbers.
    lock(of: low).lock()
    if low < high { for index in low &+ 1...high { _ = lock(of: index).takeAnother() } }
    defer {
      if low < high { for index in low &+ 1...high { lock(of: index).putBackAnother(0) } }
      lock(of: low).unlock()
    }
    let needed = Int(truncatingIfNeeded: request.count)
    if low == high, unsafe area(low).pointee.free < needed { return nil }
    let end = min((high &+ 1) &<< areaShift, wordCount)
    let hint = unsafe area(low).pointee.hint
    let place = BouncePlaces(request, base: base)
    guard
      let slot = find(place, from: hint, to: end, end: end)
        ?? find(place, from: low &<< areaShift, to: hint, end: end)
    else { return nil }
    unsafe area(low).pointee.hint = low == high ? slot &>> 6 : hint
    unsafe mark(slot, needed, isUsed: true) { area, count in
      unsafe area.pointee.free = area.pointee.free &- count
    }
    unsafe area(slot &>> (areaShift &+ 6)).pointee.copiedIn &+= original.extent &+ 1
    let start = slot &<< Self.granule.shift &+ Int(truncatingIfNeeded: request.offset)
    let run = unsafe runs + slot
    unsafe run.initialize(
      to: BounceRun(
        owner: owner, address: base &+ UInt64(start), first: slot, count: needed,
        original: original, host: host + start))
    return unsafe run
  }

  /// Gives slots back.
  @_optimize(speed)
  public func giveBack(_ run: UnsafeMutablePointer<BounceRun>) {
    let (first, last) = unsafe (run.pointee.first, run.pointee.first &+ run.pointee.count &- 1)
    var slot = first
    while slot <= last {
      let index = slot &>> (areaShift &+ 6)
      let end = min(last &+ 1, (index &+ 1) &<< (areaShift &+ 6))
      let lock = lock(of: index)
      lock.lock()
      unsafe mark(slot, end &- slot, isUsed: false) { area, count in
        unsafe area.pointee.free = area.pointee.free &+ count
      }
      unsafe area(index).pointee.hint = slot &>> 6
      lock.unlock()
      slot = end
    }
  }

  /// Changes the bits of slots, whose areas are locked, and calls `note` with how many of each word.
  @inline(__always)
  private func mark(
    _ first: Int, _ count: Int, isUsed: Bool,
    _ note: (UnsafeMutablePointer<Area>, Int) -> Void
  ) {
    var slot = first
    let end = first &+ count
    while slot < end {
      let word = slot &>> 6
      let bits = min(end &- slot, 64 &- slot & 63)
      let mask = (UInt64.max &>> UInt64(64 &- bits)) &<< UInt64(slot & 63)
      assert(unsafe words[word] & mask == (isUsed ? 0 : mask), "Slots are in use, or are not.")
      // A plain load and a store: others change their words meanwhile.
      unsafe words[word] = words[word] ^ mask
      unsafe note(area(word &>> areaShift), bits)
      slot = slot &+ bits
    }
  }

  /// The run that starts at a slot in use.
  @inline(__always)
  public func run(at slot: Int) -> UnsafeMutablePointer<BounceRun> { unsafe runs + slot }

  /// The owner's words of a slot.
  @inline(__always)
  public func kept(at slot: Int) -> UnsafeMutablePointer<UInt64> { unsafe kept + 2 &* slot }

  // MARK: - Looking

  /// The first of free slots in a row for a copy that starts in a word from `start` on, before `stop`, and
  /// ends before the word `end`.
  @inline(never)
  @_optimize(speed)
  private func find(_ place: BouncePlaces, from start: Int, to stop: Int, end: Int) -> Int? {
    let needed = place.count
    guard needed <= 64 else { return findLong(place, from: start, to: stop, end: end) }
    var word = start
    while word < stop {
      defer { word = word &+ 1 }
      var free = unsafe ~words[word]
      guard free != 0 else { continue }
      var next = unsafe word &+ 1 < end ? ~words[word &+ 1] : 0
      // A bit stays where so many slots are free from there on.
      var length = 1
      while length < needed {
        let step = UInt64(min(length, needed &- length))
        free &= free &>> step | next &<< (64 &- step)
        next &= next &>> step
        length = length &+ Int(step)
      }
      var starts = free & place.starts(in: word)
      while starts != 0 {
        let slot = word &<< 6 &+ starts.trailingZeroBitCount
        if place.isWithinBoundary(slot) { return slot }
        starts &= starts &- 1
      }
    }
    return nil
  }

  /// As `find`, of more slots than a word has.
  @inline(never)
  private func findLong(_ place: BouncePlaces, from start: Int, to stop: Int, end: Int) -> Int? {
    var slot = place.next(from: start &<< 6)
    while slot < stop &<< 6, slot &+ place.count <= end &<< 6 {
      if let used = lastUsed(slot, place.count) {
        slot = place.next(from: used &+ 1)
      } else if place.isWithinBoundary(slot) {
        return slot
      } else {
        slot = place.next(from: slot &+ 1)
      }
    }
    return nil
  }

  /// The last of slots in a row, of which there is one, that is in use.
  @inline(__always)
  private func lastUsed(_ first: Int, _ count: Int) -> Int? {
    var word = (first &+ count &- 1) &>> 6
    var mask = UInt64.max &>> UInt64(63 &- (first &+ count &- 1) & 63)
    while word >= first &>> 6 {
      if word == first &>> 6 { mask &= UInt64.max &<< UInt64(first & 63) }
      let used = unsafe words[word] & mask
      if used != 0 { return word &<< 6 &+ 63 &- used.leadingZeroBitCount }
      word = word &- 1
      mask = UInt64.max
    }
    return nil
  }

  // MARK: - Numbers

  /// Counts bytes that were copied after the slots were taken.
  public func count(copied size: UInt64, out: Bool, of run: BounceRun) {
    let index = run.first &>> (areaShift &+ 6)
    let lock = lock(of: index)
    lock.lock()
    if out {
      unsafe area(index).pointee.copiedOut &+= size
    } else {
      unsafe area(index).pointee.copiedIn &+= size
    }
    lock.unlock()
  }

  /// Bytes that were copied into slots, and out of them.
  public var copied: (into: UInt64, out: UInt64) {
    var copied: (into: UInt64, out: UInt64) = (0, 0)
    for index in 0..<areaCount {
      let lock = lock(of: index)
      lock.lock()
      unsafe copied.into &+= area(index).pointee.copiedIn
      unsafe copied.out &+= area(index).pointee.copiedOut
      lock.unlock()
    }
    return copied
  }
}

/// Where the first slot of a copy may be.
struct BouncePlaces {
  let count: Int
  private let request: BounceRequest
  private let base: UInt64
  // In slots: what a place is a multiple of, less one, and the first place.
  private let mask: UInt64
  private let first: UInt64
  // The places in a word, from the first on.
  private let pattern: UInt64

  init(_ request: BounceRequest, base: UInt64) {
    let shift = UInt64(BounceSlots.granule.shift)
    self.request = request
    self.base = base
    count = Int(truncatingIfNeeded: request.count)
    mask = request.mask &>> shift
    first = ((request.low &>> shift) &- (base &>> shift)) & mask
    // All ones divided by so many leave a one for each.
    pattern =
      mask == 0 ? UInt64.max : mask < 63 ? UInt64.max / (UInt64.max &>> (63 &- mask)) : 1
  }

  /// The first place from a slot on.
  @inline(__always)
  func next(from slot: Int) -> Int {
    let distance = (first &- UInt64(slot)) & mask
    // Further away than there are slots.
    return distance < 1 << 60 ? slot &+ Int(distance) : Int.max / 2
  }

  /// The places in a word, as bits.
  @inline(__always)
  func starts(in word: Int) -> UInt64 {
    guard mask != 0 else { return pattern }
    let distance = (first &- UInt64(word) &<< 6) & mask
    return distance < 64 ? pattern &<< distance : 0
  }

  /// Whether a copy there reaches out of no block that it may not reach out of.
  @inline(__always)
  func isWithinBoundary(_ slot: Int) -> Bool {
    let start =
      base &+ UInt64(slot) &<< UInt64(BounceSlots.granule.shift) &+ request.offset
    return (start ^ (start &+ (request.size &- 1))) & ~request.boundary == 0
  }
}
