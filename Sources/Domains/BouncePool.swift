// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CDMACore
import Primitives
import Synchronization

/// Memory for copies of what devices do not reach.
///
/// It grows by the chunk, which it keeps. What takes slots holds it, so that it may be taken from a device
/// or a system whose mappings live. A processor keeps a few slots at hand, which then are taken and not in use:
/// whoever finds no others takes these first, and whoever lets go of the pool gives them back.
@safe
public struct BouncePool: ~Copyable, Held {
  /// The numbers that `bounce.h` explains.
  public struct Counts {
    public var slots: UInt64 = 0
    public var used: UInt64 = 0
    public var usedMax: UInt64 = 0
    public var chunks: UInt64 = 0
    public var full: UInt64 = 0
    public var copiedIn: UInt64 = 0
    public var copiedOut: UInt64 = 0
  }

  public let system: UnsafeMutablePointer<System>
  // The highest physical address, and bytes.
  private let limit: UInt64
  private let step: UInt64
  private let sizeMax: UInt64
  // Bytes of the chunks, and of those that are about to be added.
  private let size = Atomic<UInt64>(0)
  // The address of the chunk that was added last, 0 for none.
  private let newest = Atomic<UInt>(0)
  private let usedMax = Atomic<Int>(0)
  private let full = Atomic<UInt64>(0)
  // A holder counts 1; slots that are taken are one, and each of them counts `slotHolder` beside.
  private let uses = UseCount()
  // Slots that are taken, and that no mapping has, by their addresses: first single ones, then two that are a page.
  // Beside them, the bytes that calls copied into slots that were at hand, and out of kept copies.
  private let atHand: CallStash

  private static var slotHolder: Int { 1 << 32 }

  // What it starts with and grows by, and what it grows to, where nobody says.
  private static var sizeDefault: UInt64 { 1 << 20 }
  private static var sizeMaxDefault: UInt64 { 64 << 20 }

  /// A new pool with its first chunk, which holds the system.
  ///
  /// - Throws: `invalidArgument` for sizes that are none, `outOfRange` when the memory lies above the
  ///   limit, what `System.allocateMemory` throws.
  public static func place(
    system: UnsafeMutablePointer<System>, _ options: dmacore_bounce_pool_options
  ) throws(Failure) -> UnsafeMutablePointer<BouncePool> {
    let size = options.size == 0 ? sizeDefault : options.size
    let sizeMax = options.size_max == 0 ? max(size, sizeMaxDefault) : options.size_max
    // Slots are counted in 31 bits.
    guard options.flags == 0, options.reserved == 0, size <= sizeMax, sizeMax <= 1 << 41,
      (size | sizeMax) & Device.granule.mask == 0
    else { throw .invalidArgument }
    let pool = unsafe try Box<BouncePool>.place { () throws(Failure) in
      unsafe try BouncePool(
        system: system, limit: options.limit == 0 ? UInt64.max : options.limit, step: size,
        sizeMax: sizeMax)
    }
    do throws(Failure) {
      unsafe try grow(pool, by: size, DMARanges(), UInt64.max)
    } catch {
      unsafe Box.letGo(pool)
      throw error
    }
    return unsafe pool
  }

  private init(
    system: UnsafeMutablePointer<System>, limit: UInt64, step: UInt64, sizeMax: UInt64
  ) throws(Failure) {
    atHand = unsafe try CallStash(for: system.pointee.calls, kinds: 2, hasLine: true)
    unsafe Box.hold(system)
    unsafe self.system = system
    self.limit = limit
    self.step = step
    self.sizeMax = sizeMax
  }

  deinit {
    var chunk = unsafe Self.chunk(newest.load(ordering: .acquiring))
    while let last = unsafe chunk {
      unsafe chunk = last.pointee.next
      unsafe system.pointee.bounceChunks.remove(last)
      let memory = unsafe last.pointee.memory
      unsafe Box.destroy(last)
      unsafe system.pointee.freeMemory(memory)
    }
    unsafe Box.letGo(system)
  }

  /// Holds the pool, if anybody does.
  func holdIfHeld() -> Bool { uses.add(1, ifAbove: 0) }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  private static func chunk(_ address: UInt) -> UnsafeMutablePointer<BounceChunk>? {
    // SAFETY: only `add` publishes an address, that of a chunk that lives as long as the pool.
    unsafe UnsafeMutablePointer(bitPattern: address)
  }

  /// The most bytes that it has room for in a row while nothing is mapped, or can grow by: where it is in reach,
  /// as far as that can be known.
  @inline(never)
  fileprivate func longest(_ ranges: borrowing DMARanges, _ highest: UInt64) -> UInt64 {
    // Without a page, as a new chunk begins and ends at pages beside what it is needed for.
    let room = sizeMax &- size.load(ordering: .relaxed)
    let growth = room &- min(room, 4096)
    var longest: UInt64 = 0
    var chunk = unsafe Self.chunk(newest.load(ordering: .acquiring))
    while let this = unsafe chunk {
      if unsafe ranges.base(of: this.pointee.range, under: highest) != nil {
        longest = max(longest, max(unsafe this.pointee.range.extent &+ 1, growth))
      }
      unsafe chunk = this.pointee.next
    }
    return longest
  }

  // MARK: - Slots at hand

  /// The chunk that an address is in.
  @inline(__always)
  func chunk(with address: UInt64) -> UnsafeMutablePointer<BounceChunk>? {
    // Acquiring: as in `take`.
    var chunk = unsafe Self.chunk(newest.load(ordering: .acquiring))
    while let this = unsafe chunk {
      if unsafe this.pointee.has(address) { return unsafe this }
      unsafe chunk = this.pointee.next
    }
    return nil
  }

  /// Slots for a copy of those that the processor of a call in its section has at hand, and where it starts. The
  /// bits of a mask are those of `low`.
  @inline(__always)
  func takeAtHand(
    _ call: Int, _ low: UInt64, _ size: UInt64, _ mask: UInt64, _ highest: UInt64
  ) -> (slot: BounceSlot, address: UInt64)? {
    let slotMask = BounceSlots.granule.mask
    let offset = low & mask & slotMask
    let place = atHand.place(of: offset &+ size > slotMask &+ 1 ? 1 : 0, call)
    // Two slots that are a page have no more room.
    guard offset &+ size <= Device.granule.bytes, let first = atHand.next(place),
      (first ^ low) & mask & ~slotMask == 0, first &+ offset &+ (size &- 1) <= highest,
      let chunk = unsafe chunk(with: first)
    else { return nil }
    atHand.takeNext(place)
    count(call, copied: size, out: false)
    return unsafe (chunk.pointee.slot(at: first), first &+ offset)
  }

  /// Where slots and the copy in them start.
  static func place(
    of run: UnsafeMutablePointer<BounceRun>
  ) -> (slot: BounceSlot, address: UInt64) {
    let address = unsafe run.pointee.address
    return unsafe (chunk(of: run.pointee).pointee.slot(at: address), address)
  }

  /// Keeps slots at hand that were taken and that no mapping has any more, if there is room.
  @inline(__always)
  func put(_ call: Int, _ slot: BounceSlot) -> Bool {
    let run = unsafe slot.run
    let count = unsafe run.pointee.count
    let first = unsafe run.pointee.address & ~BounceSlots.granule.mask
    guard count == 1 || (count == 2 && first & Device.granule.mask == 0) else { return false }
    return atHand.put(atHand.place(of: count &- 1, call), first)
  }

  /// Counts bytes that a call in its section has copied.
  @inline(__always)
  func count(_ call: Int, copied size: UInt64, out: Bool) {
    atHand.add(size, to: out ? 1 : 0, of: call)
  }

  /// Gives back all slots that are at hand. The caller holds the pool. Returns how many runs there were.
  @inline(never)
  private func drain() -> UInt64 {
    atHand.countSearch(1)
    defer { atHand.countSearch(-1) }
    return unsafe atHand.drain(system.pointee.calls) { first in
      guard let chunk = unsafe chunk(with: first) else { return }
      unsafe Self.giveBack(chunk.pointee.slot(at: first).run)
    }
  }

  /// Lets go of a pool for those that keep slots of it at hand.
  static func leave(_ pool: UnsafeMutablePointer<BouncePool>) {
    _ = unsafe pool.pointee.drain()
    unsafe Box.letGo(pool)
  }

  // MARK: - Slots

  /// Slots for a copy, in memory that is there. What takes them holds the pool.
  ///
  /// - Parameter ranges, highest: where the bus has memory, and the highest address that is in reach there.
  /// - Throws: `noSpace`, or `outOfRange` if no memory of the pool is in reach.
  @inline(never)
  @_optimize(speed)
  func take(
    _ request: BounceRequest, _ original: PhysicalRange, _ ranges: borrowing DMARanges,
    _ highest: UInt64
  ) throws(Failure) -> UnsafeMutablePointer<BounceRun> {
    var isInReach = false
    var found: UnsafeMutablePointer<BounceRun>? = nil
    // Acquiring: pairs with the release in `publish`, so that the chunk is made whole.
    var chunk = unsafe Self.chunk(newest.load(ordering: .acquiring))
    while let this = unsafe chunk, unsafe found == nil {
      if let base = unsafe base(of: this.pointee.range, ranges, highest) {
        isInReach = true
        unsafe found = this.pointee.slots.take(request, original: original, base: base)
      }
      unsafe chunk = this.pointee.next
    }
    guard let run = unsafe found else { throw isInReach ? .noSpace : .outOfRange }
    let used = unsafe uses.add(run.pointee.count &* Self.slotHolder &+ 1) &>> 32
    var most = usedMax.load(ordering: .relaxed)
    while used > most {
      let (isDone, now) = usedMax.weakCompareExchange(
        expected: most, desired: used, ordering: .relaxed)
      if isDone { break }
      most = now
    }
    return unsafe run
  }

  /// The bus address of memory of the pool, if all of it is in reach and nothing else can be mapped there.
  @inline(__always)
  private func base(
    of memory: PhysicalRange, _ ranges: borrowing DMARanges, _ highest: UInt64
  ) -> UInt64? {
    guard let base = ranges.base(of: memory, under: highest),
      unsafe !ranges.mayClash(memory, at: base, in: system)
    else { return nil }
    return base
  }

  /// As `take`, after having grown. The caller holds the pool.
  ///
  /// - Throws: `noSpace` when it may not grow so much, or others were faster; `outOfRange` when what it
  ///   has and gets is not in reach; `noMemory`.
  @inline(never)
  static func takeGrowing(
    _ pool: UnsafeMutablePointer<BouncePool>, _ request: BounceRequest,
    _ original: PhysicalRange, _ ranges: borrowing DMARanges, _ highest: UInt64
  ) throws(Failure) -> UnsafeMutablePointer<BounceRun> {
    // From here on what is given back is free for others.
    unsafe pool.pointee.atHand.countSearch(1)
    defer { unsafe pool.pointee.atHand.countSearch(-1) }
    if unsafe pool.pointee.drain() > 0,
      let run = unsafe try? pool.pointee.take(request, original, ranges, highest)
    {
      return unsafe run
    }
    do throws(Failure) {
      unsafe try grow(pool, by: request.room, ranges, highest)
    } catch {
      // What is wrong with the memory that an allocator gave is no business of a mapping's.
      guard error == .noSpace else { throw error == .outOfRange ? error : .noMemory }
    }
    do throws(Failure) {
      return unsafe try pool.pointee.take(request, original, ranges, highest)
    } catch {
      if error == .noSpace { unsafe pool.pointee.full.wrappingAdd(1, ordering: .relaxed) }
      throw error
    }
  }

  /// Gives slots back, and ends the pool if nobody else holds it.
  @inline(never)
  static func giveBack(_ run: UnsafeMutablePointer<BounceRun>) {
    let chunk = unsafe chunk(of: run.pointee)
    let pool = unsafe chunk.pointee.pool
    let holders = unsafe run.pointee.count &* slotHolder &+ 1
    unsafe chunk.pointee.slots.giveBack(run)
    if unsafe pool.pointee.uses.add(-holders) == 0 { unsafe Box.destroy(pool) }
  }

  private static func chunk(of run: BounceRun) -> UnsafeMutablePointer<BounceChunk> {
    // SAFETY: `grow` made the slots' owner the chunk that they are in.
    unsafe run.owner!.assumingMemoryBound(to: BounceChunk.self)
  }

  /// Gives back all parts of a mapping.
  public static func giveBackAll(_ first: UnsafeMutablePointer<BounceRun>?) {
    var run = unsafe first
    while let this = unsafe run {
      unsafe run = this.pointee.next
      unsafe giveBack(this)
    }
  }

  /// The first part of a mapping that does not end before an offset.
  public static func part(
    of first: UnsafeMutablePointer<BounceRun>?, from offset: UInt64
  ) -> BounceRun? {
    var run = unsafe first
    while let this = unsafe run {
      if unsafe this.pointee.offset &+ this.pointee.original.extent >= offset {
        return unsafe this.pointee
      }
      unsafe run = this.pointee.next
    }
    return nil
  }

  /// The physical address of a copy.
  public static func physical(of run: BounceRun) -> UInt64 {
    let chunk = unsafe chunk(of: run)
    let base = unsafe chunk.pointee.memory.pointee.segments.pointee.cpu!
    return unsafe chunk.pointee.range.first.rawValue
      &+ UInt64(
        bitPattern: Int64(run.host - base))
  }

  /// The pool whose slots these are, which they hold.
  public static func pool(of run: BounceRun) -> UnsafeMutablePointer<BouncePool> {
    unsafe chunk(of: run).pointee.pool
  }

  /// Counts bytes that were copied after the slots were taken.
  public static func count(copied size: UInt64, out: Bool, of run: BounceRun) {
    unsafe chunk(of: run).pointee.slots.count(copied: size, out: out, of: run)
  }

  // MARK: - Chunks

  /// Adds a chunk of so many bytes, or of more.
  private static func grow(
    _ pool: UnsafeMutablePointer<BouncePool>, by room: UInt64, _ ranges: borrowing DMARanges,
    _ highest: UInt64
  ) throws(Failure) {
    guard let room = Device.granule.roundedUp(room) else { throw .noSpace }
    guard let limit = ranges.lastPhysical(under: highest) else { throw .outOfRange }
    let bytes = unsafe try pool.pointee.reserve(room)
    do throws(Failure) {
      unsafe try add(bytes, to: pool, limit: min(limit, pool.pointee.limit), ranges, highest)
    } catch {
      unsafe pool.pointee.size.wrappingSubtract(bytes, ordering: .relaxed)
      throw error
    }
  }

  /// Counts bytes as the pool's that are yet to be allocated: so many, or more.
  private func reserve(_ room: UInt64) throws(Failure) -> UInt64 {
    var have = size.load(ordering: .relaxed)
    while true {
      let left = sizeMax &- have
      guard room <= left else { throw .noSpace }
      let bytes = min(max(room, step), left)
      let (isDone, now) = size.weakCompareExchange(
        expected: have, desired: have &+ bytes, ordering: .relaxed)
      if isDone { return bytes }
      have = now
    }
  }

  private static func add(
    _ bytes: UInt64, to pool: UnsafeMutablePointer<BouncePool>, limit: UInt64,
    _ ranges: borrowing DMARanges, _ highest: UInt64
  ) throws(Failure) {
    let system = unsafe pool.pointee.system
    let memory = unsafe try system.pointee.allocateMemory(size: bytes, limit: limit)
    do throws(Failure) {
      let range = try unsafe memory.pointee.memory(0)
      guard range.last.rawValue <= limit,
        unsafe pool.pointee.base(of: range, ranges, highest) != nil
      else { throw .outOfRange }
      let chunk = unsafe try Box<BounceChunk>.place { () throws(Failure) in
        unsafe BounceChunk(
          memory: memory, range: range, pool: pool,
          slots: try BounceSlots(
            memory.pointee.segments.pointee.cpu, size: Int(truncatingIfNeeded: bytes)), next: nil)
      }
      unsafe chunk.pointee.slots.owner = UnsafeMutableRawPointer(chunk)
      unsafe system.pointee.bounceChunks.add(chunk)
      unsafe pool.pointee.publish(chunk)
    } catch {
      unsafe system.pointee.freeMemory(memory)
      throw error
    }
  }

  private func publish(_ chunk: UnsafeMutablePointer<BounceChunk>) {
    var last = newest.load(ordering: .relaxed)
    while true {
      unsafe chunk.pointee.next = Self.chunk(last)
      // Releasing: pairs with the acquire in `take`.
      let (isDone, now) = newest.weakCompareExchange(
        expected: last, desired: UInt(bitPattern: chunk),
        successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if isDone { return }
      last = now
    }
  }

  // MARK: - Numbers

  // Slots that are at hand are taken, and not in use.
  private var used: Int {
    let free = atHand.count(of: 0) &+ 2 &* atHand.count(of: 1)
    return max(0, uses.current &>> 32 &- Int(truncatingIfNeeded: free))
  }

  public var counts: Counts {
    var counts = Counts()
    // Acquiring: as in `take`.
    var chunk = unsafe Self.chunk(newest.load(ordering: .acquiring))
    while let this = unsafe chunk {
      let copied = unsafe this.pointee.slots.copied
      counts.chunks &+= 1
      unsafe counts.slots &+= UInt64(this.pointee.slots.count)
      counts.copiedIn &+= copied.into
      counts.copiedOut &+= copied.out
      unsafe chunk = this.pointee.next
    }
    counts.copiedIn &+= atHand.sum(0)
    counts.copiedOut &+= atHand.sum(1)
    counts.used = UInt64(used)
    // Slots are counted before the most of them.
    counts.usedMax = UInt64(max(used, usedMax.load(ordering: .relaxed)))
    counts.full = full.load(ordering: .relaxed)
    return counts
  }

  /// Lets the most slots that were in use be those that are in use now.
  public func resetUsedMax() {
    // Those that are at hand are counted when they are taken. Some may be at hand again.
    _ = drain()
    usedMax.store(uses.current &>> 32, ordering: .relaxed)
  }
}

extension DMARanges {
  /// The bus address of memory, if all of it is in reach.
  @inline(__always)
  func base(of memory: PhysicalRange, under highest: UInt64) -> UInt64? {
    guard let range = bus(of: memory), range.last.rawValue <= highest else { return nil }
    return range.first.rawValue
  }
}

extension System {
  /// The pool at this moment. The caller is inside a read section, or a section of `calls`, while it uses the
  /// answer.
  var currentBouncePool: UnsafeMutablePointer<BouncePool>? {
    // SAFETY: only `setBouncePool` stores this, with the address of a pool that the system holds until no
    // section is open that found it.
    // Acquiring: pairs with the release there, so that the pool is made whole.
    unsafe UnsafeMutablePointer(bitPattern: bouncePool.load(ordering: .acquiring))
  }

  /// Gives the system's devices another pool, or none.
  public func setBouncePool(_ pool: UnsafeMutablePointer<BouncePool>?) {
    if let pool = unsafe pool { unsafe Box.hold(pool) }
    // SAFETY: as in `currentBouncePool`.
    // Acquiring and releasing: pairs with itself, and the acquire there.
    let old = unsafe UnsafeMutablePointer<BouncePool>(
      bitPattern: bouncePool.exchange(
        UInt(bitPattern: pool), ordering: .acquiringAndReleasing))
    guard let old = unsafe old else { return }
    readers.waitForReaders()
    // Which waits for calls.
    unsafe BouncePool.leave(old)
  }
}

extension Device {
  /// Whether there is a pool for what it does not reach.
  public var hasBouncePool: Bool {
    unsafe bouncePool != nil || system.pointee.bouncePool.load(ordering: .relaxed) != 0
  }

  /// The most bytes that can be copied in a row. The caller is inside a read section.
  public func longestCopy(under highest: UInt64) -> UInt64 {
    unsafe (bouncePool ?? system.pointee.currentBouncePool)?.pointee.longest(ranges, highest) ?? 0
  }

  /// Slots for a copy of memory in the device's pool, or the system's.
  ///
  /// - Parameter ranges, highest: as in `BouncePool.take`.
  /// - Throws: `outOfRange` when there is no pool in reach, `noSpace` when it is full and may not grow,
  ///   `noMemory`.
  @inline(never)
  @_optimize(speed)
  public func bounce(
    _ request: BounceRequest, _ original: PhysicalRange, _ ranges: borrowing DMARanges,
    under highest: UInt64
  ) throws(Failure) -> UnsafeMutablePointer<BounceRun> {
    // The section keeps the system's pool, which may be taken away at the same time.
    let token = unsafe bouncePool == nil ? system.pointee.readers.enter() : nil
    let pool = unsafe bouncePool ?? system.pointee.currentBouncePool
    var found: UnsafeMutablePointer<BounceRun>? = nil
    if let pool = unsafe pool {
      unsafe found = try? pool.pointee.take(request, original, ranges, highest)
      if unsafe found == nil { unsafe Box.hold(pool) }
    }
    if let token { unsafe system.pointee.readers.leave(token) }
    if let found = unsafe found { return unsafe found }
    guard let pool = unsafe pool else { throw .outOfRange }
    defer { unsafe Box.letGo(pool) }
    return unsafe try BouncePool.takeGrowing(pool, request, original, ranges, highest)
  }
}
