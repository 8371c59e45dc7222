// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Primitives

extension dmacore_sg {
  /// Makes it a segment; of no bytes: the end of those that there are.
  mutating func set(_ first: UInt64, _ size: UInt64, _ path: MappingPath, isMMIO: Bool = false) {
    unsafe dma = first
    unsafe dma_size = size
    unsafe self.path = UInt16(path.rawValue)
    unsafe dma_flags = isMMIO ? UInt16(DMACORE_SG_MMIO.rawValue) : 0
  }
}

/// Goes through the entries of a list of the caller's, along its chains.
@safe
struct ListWalk {
  private var place: UnsafeMutablePointer<dmacore_sg>
  private var left: Int

  init(_ list: UnsafeMutablePointer<dmacore_sg>, count: Int) {
    unsafe place = list
    left = count
  }

  /// The next entry, nil if there is none.
  ///
  /// A chain leads to an entry, and the last entry is where the caller says, so that no chain that loops is
  /// followed for longer.
  ///
  /// - Throws: `invalidArgument`.
  @inline(__always)
  mutating func step() throws(Failure) -> UnsafeMutablePointer<dmacore_sg>? {
    guard left > 0 else { return nil }
    left &-= 1
    var flags = unsafe place.pointee.flags
    if flags & DMACORE_SG_CHAIN.rawValue != 0 {
      guard flags == DMACORE_SG_CHAIN.rawValue, let next = unsafe place.pointee.next else {
        throw .invalidArgument
      }
      unsafe place = next
      flags = unsafe next.pointee.flags
    }
    let last = left == 0 ? DMACORE_SG_LAST.rawValue : 0
    guard flags & ~DMACORE_SG_MMIO.rawValue == last else { throw .invalidArgument }
    let entry = unsafe place
    unsafe place += 1
    return unsafe entry
  }

  /// Reads a short list that is one array, of memory in whole pages. Returns how many runs there are of what follows on
  /// one another, and how many bytes; nil for any other list.
  ///
  /// - Parameter runs: room for as many entries as a short list has.
  @inline(__always)
  func readPages(
    into runs: UnsafeMutableBufferPointer<PhysicalRange>
  ) -> (count: Int, size: UInt64)? {
    guard left > 0, left <= runs.count else { return nil }
    let mask = Device.granule.mask
    let end = unsafe place + (left &- 1)
    var entry = unsafe place
    var (count, size, last) = (0, UInt64(0), UInt64(0))
    while true {
      // What lies behind a chain, or an end, is not looked at.
      let isEnd = unsafe entry == end
      guard unsafe entry.pointee.flags == (isEnd ? DMACORE_SG_LAST.rawValue : 0) else { return nil }
      let memory = unsafe (first: entry.pointee.phys, size: entry.pointee.size)
      guard (memory.first | memory.size) & mask == 0, memory.size <= Device.taggedReach &+ 1,
        let run = try? PhysicalRange(first: PhysicalAddress(memory.first), size: memory.size)
      else { return nil }
      // What is 0 starts no page, and follows on nothing.
      if memory.first &- 1 == last && memory.first != 0 {
        unsafe runs[count &- 1] = PhysicalRange(runs[count &- 1].first, through: run.last)
      } else {
        unsafe runs[count] = run
        count &+= 1
      }
      last = run.last.rawValue
      size &+= memory.size
      if isEnd { return (count, size) }
      unsafe entry += 1
    }
  }

  /// Passes entries of memory that follows on an address, as far as nothing else is to be said of them.
  /// Returns how many bytes they have, and how many there are.
  @inline(__always)
  mutating func pass(from phys: UInt64, room: UInt64) -> (size: UInt64, count: Int) {
    var (entry, more) = unsafe (place, left)
    var (next, taken) = (phys, UInt64(0))
    while more > 1, unsafe entry.pointee.flags == 0, unsafe entry.pointee.phys == next {
      let size = unsafe entry.pointee.size
      guard size &- 1 < room &- taken, next &+ size > next else { break }
      taken &+= size
      next &+= size
      unsafe entry += 1
      more &-= 1
    }
    defer { unsafe (place, left) = (entry, more) }
    return (taken, left &- more)
  }
}

/// What the segments of a list may be.
struct SegmentLimits {
  /// The most bytes of one, and the mask of the blocks that none reaches out of.
  let sizeMax: UInt64
  let boundary: UInt64
  /// The mask of the blocks that the range of what is translated is not to reach out of, if it fits one.
  let rangeBoundary: UInt64
  /// Whether segments are as long as they can be, for somebody who cuts them.
  let areCutLater: Bool

  init(size: UInt64, boundary: UInt64, areCutLater: Bool) {
    sizeMax = areCutLater ? UInt64.max : size
    self.boundary = areCutLater ? UInt64.max : boundary
    rangeBoundary = boundary
    self.areCutLater = areCutLater
  }
}

/// Reads what a list says of memory, and puts together what is contiguous.
struct ListReader {
  private var walk: ListWalk
  // What is left of the entry that was read last. Its size is 0 behind the last one.
  private var phys: UInt64 = 0
  private var size: UInt64 = 0
  private var isMMIO = false
  /// How many entries with memory were read.
  private(set) var count = 0
  private let sizeMax: UInt64
  // The mask of the blocks that no piece may reach out of, and whether that is known beforehand.
  private let boundary: UInt64

  /// - Parameter boundary: a power of two less one.
  init(_ walk: ListWalk, sizeMax: UInt64, boundary: UInt64) throws(Failure) {
    self.walk = walk
    self.sizeMax = sizeMax
    self.boundary = boundary
    try read()
  }

  var isAtEnd: Bool { size == 0 }

  @inline(__always)
  private mutating func read() throws(Failure) {
    repeat {
      guard let entry = unsafe try walk.step() else { return }
      unsafe (phys, size) = (entry.pointee.phys, entry.pointee.size)
      isMMIO = unsafe entry.pointee.flags & DMACORE_SG_MMIO.rawValue != 0
    } while size == 0
    guard phys <= UInt64.max &- (size &- 1) else { throw .invalidArgument }
    count &+= 1
  }

  /// A part that is contiguous and fits a segment: of entries that are whole, where they can be.
  ///
  /// - Parameters:
  ///   - ranges: where the bus has memory.
  ///   - isAlone: whether it is to be of one entry.
  @_optimize(speed)
  mutating func take(
    in ranges: borrowing DMARanges, isAlone: Bool
  ) throws(Failure) -> (memory: PhysicalRange, isMMIO: Bool, isMerged: Bool) {
    let first = phys
    var room = sizeMax
    var isBounded = false
    if boundary != UInt64.max {
      let byte = try PhysicalRange(first: PhysicalAddress(first), size: 1)
      let bus = ranges.bus(of: byte)?.first.rawValue ?? first
      let ahead = boundary &- (bus & boundary) &+ 1
      isBounded = ahead <= room
      room = min(room, ahead)
    }
    var taken = min(size, room)
    if size > room && !isBounded { taken = Self.cut(room) }
    let isWhole = taken == size
    let isMMIO = isMMIO
    phys &+= taken
    size &-= taken
    guard isWhole else {
      return (try PhysicalRange(first: PhysicalAddress(first), size: taken), isMMIO, false)
    }
    let own = taken
    if !isAlone && !isMMIO {
      let passed = walk.pass(from: phys, room: room &- taken)
      taken &+= passed.size
      phys &+= passed.size
      count &+= passed.count
    }
    try read()
    while size > 0 && phys == first &+ taken && phys != 0 && !isAlone && !isMMIO && !self.isMMIO {
      let more = min(size, room &- taken)
      guard more == size || (isBounded && more > 0) else { break }
      taken &+= more
      phys &+= more
      size &-= more
      guard size == 0 else { break }
      try read()
    }
    return (
      try PhysicalRange(first: PhysicalAddress(first), size: taken), isMMIO, taken > own
    )
  }

  /// How much of an entry is cut off that is longer than a segment may be.
  private static func cut(_ room: UInt64) -> UInt64 {
    room > Device.granule.mask
      ? room & ~Device.granule.mask : 1 &<< UInt64(63 &- room.leadingZeroBitCount)
  }
}

/// A part of a list, which takes one path.
struct ListPart {
  let memory: UInt64
  /// The size less one.
  let extent: UInt64
  /// The device's address. Before there is one, where it will be from the first of the list's on.
  var dma: UInt64
  let path: MappingPath
  /// Whether it is a segment of its own.
  let isAlone: Bool
  let isMMIO: Bool
  let isPeer: Bool

  init(
    _ memory: PhysicalRange, _ dma: UInt64, _ path: MappingPath, isMMIO: Bool, isPeer: Bool
  ) {
    self.memory = memory.first.rawValue
    extent = memory.extent
    self.dma = dma
    self.path = path
    isAlone = isMMIO || isPeer
    self.isMMIO = isMMIO
    self.isPeer = isPeer
  }

  /// Whether a part lies behind it in memory and may share a page with it.
  func adjoins(_ next: ListPart) -> Bool {
    path == .iommu && next.path == .iommu && !isAlone && !next.isAlone
      && next.memory != 0 && memory &+ extent == next.memory &- 1
  }
}

/// The parts of a list that is being mapped: in the caller's storage, or on the heap if they are many.
@safe
struct ListParts: ~Copyable {
  private var base: UnsafeMutablePointer<ListPart>
  private(set) var count = 0
  private var capacity: Int
  private let capacityMax: Int
  private var isOnHeap = false
  /// Whether what was decided does not hold any more.
  var isStale = false
  /// Why a part that is bounced was cut, if one was.
  var shortage: Failure? = nil

  /// - Parameter entries: how many a list has. Parts that are four times as many do not fit into it.
  init(_ storage: UnsafeMutableBufferPointer<ListPart>, entries: Int) {
    // SAFETY: the storage is not empty.
    unsafe base = storage.baseAddress!
    capacity = storage.count
    capacityMax = max(min(entries, 1 << 40) &* 4, capacity)
  }

  deinit { if isOnHeap { unsafe RawMemory.free(base) } }

  /// Makes room for one more.
  ///
  /// - Throws: `tooBig`, `noMemory`.
  @inline(__always)
  mutating func reserve() throws(Failure) {
    if count == capacity { try grow() }
  }

  @inline(never)
  private mutating func grow() throws(Failure) {
    guard capacity < capacityMax else { throw .tooBig }
    let more = min(capacity &* 2, capacityMax)
    let raw = unsafe try RawMemory.allocate(
      more &* MemoryLayout<ListPart>.stride, alignment: MemoryLayout<UInt64>.alignment)
    // SAFETY: the allocation is so many parts long.
    let parts = unsafe raw.bindMemory(to: ListPart.self, capacity: more)
    unsafe parts.initialize(from: base, count: count)
    if isOnHeap { unsafe RawMemory.free(base) }
    unsafe base = parts
    capacity = more
    isOnHeap = true
  }

  /// - Precondition: there is room.
  mutating func append(_ part: ListPart) {
    unsafe (base + count).initialize(to: part)
    count &+= 1
  }

  subscript(index: Int) -> ListPart {
    get { unsafe base[index] }
    set { unsafe base[index] = newValue }
  }

  // MARK: - Segments

  /// What segments amount to: another number for others, most likely.
  static func mix(_ digest: UInt64, _ dma: UInt64, _ size: UInt64, _ kind: UInt64) -> UInt64 {
    var mixed = (digest ^ dma) &* 0x9e37_79b9_7f4a_7c15
    mixed = (mixed ^ (mixed >> 32) ^ size &+ kind << 56) &* 0xbf58_476d_1ce4_e5b9
    return mixed ^ (mixed >> 29)
  }

  /// Makes segments of the parts, of which what is translated may be put together and cut, and writes them
  /// into a list.
  ///
  /// - Parameter list: nil: they are counted alone.
  /// - Throws: `invalidArgument` when the list has not so many entries, or has changed.
  @inline(never)
  func segments(
    sizeMax: UInt64, boundary: UInt64, into list: ListWalk?
  ) throws(Failure) -> (count: Int, digest: UInt64) {
    var (made, digest) = (0, UInt64(0))
    var walk = list
    var current: ListPart? = nil
    var (first, extent) = (UInt64(0), UInt64(0))
    var path = MappingPath.iommu

    @inline(never)
    func close() throws(Failure) {
      guard let part = current else { return }
      made &+= 1
      let kind = UInt64(path.rawValue) << 1 | (part.isMMIO ? 1 : 0)
      digest = Self.mix(digest, first, extent &+ 1, kind)
      if walk == nil { return }
      guard let entry = unsafe try walk!.step() else { throw .invalidArgument }
      unsafe entry.pointee.set(first, extent &+ 1, path, isMMIO: part.isMMIO)
    }

    for index in 0..<count {
      let part = self[index]
      var (dma, left) = (part.dma, part.extent)
      while true {
        // As far as a segment may go that has these bytes.
        let ahead = part.path.isTranslated ? boundary &- (dma & boundary) : UInt64.max
        if let open = current, part.path.isTranslated, open.path.isTranslated,
          !part.isAlone, !open.isAlone, first &+ extent == dma &- 1, dma & boundary != 0
        {
          // What fits whole, or as much as there is up to a boundary.
          let more = min(left, ahead)
          if extent < sizeMax &- 1, more <= sizeMax &- extent &- 2 {
            extent = extent &+ more &+ 1
            if part.path == .iommuBounced { path = .iommuBounced }
            if more == left { break }
            dma = dma &+ more &+ 1
            left = left &- more &- 1
            continue
          }
        }
        try close()
        (current, first, path) = (part, dma, part.path)
        extent = min(left, ahead)
        if extent == left { break }
        dma = dma &+ extent &+ 1
        left = left &- extent &- 1
      }
    }
    try close()
    if walk != nil, let entry = unsafe try walk!.step() {
      unsafe entry.pointee.set(0, 0, .refused)
    }
    return (made, digest)
  }

  // MARK: - Addresses

  /// Gives what is translated addresses one behind the other, from the first page on.
  ///
  /// - Parameters:
  ///   - start: what the address of the first page has in common with `alignMask` and `boundary`.
  ///   - alignMask: bits that addresses have in common with the memory's.
  ///   - boundary: the mask of blocks that parts keep inside of, by gaps; all bits: of none.
  /// - Returns: bytes in all.
  /// - Throws: `outOfRange` for more than there are addresses.
  @inline(never)
  mutating func layOut(
    from start: UInt64, alignMask: UInt64, boundary: UInt64
  ) throws(Failure) -> UInt64 {
    let mask = Device.granule.mask
    // The end of the last part, as a distance from `start`.
    var next: UInt64 = 0
    for index in 0..<count {
      let part = self[index]
      guard part.path.isTranslated else { continue }
      let inPage = part.memory & mask
      var page = (next &+ mask) & ~mask
      let crosses = { (first: UInt64) -> Bool in (first & boundary) &+ part.extent > boundary }
      if index > 0, self[index &- 1].adjoins(part), inPage != 0 || !crosses(start &+ page) {
        page = next &- inPage
      } else {
        if alignMask > mask {
          page = page &+ ((part.memory &- start &- page) & alignMask & ~mask)
        } else if boundary != UInt64.max, crosses(start &+ page &+ inPage) {
          page = page &+ ((0 &- start &- page) & boundary)
        }
      }
      self[index].dma = page &+ inPage
      next = page &+ inPage &+ part.extent &+ 1
      // No part is longer than what a page table translates, so that the sum has not wrapped.
      guard next < 1 << 62, page < 1 << 62 else { throw .outOfRange }
    }
    return (next &+ mask) & ~mask
  }
}
