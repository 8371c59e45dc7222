// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import IOVAAllocation
import Primitives
import Synchronization

// Theory of operation: lazy unmapping.
//
// 1. Concepts
// An unmap makes three promises (domain.h). The third, that no access is in flight, takes a wait
// for readers. In a lazy domain an unmap clears the words of the table, which makes the first two,
// and queues its range; a flush waits once for all that is queued. The range is not given out again
// before that: else an access that found the old translation would be one through the new mapping.
//
//   in use --unmap--> queued --change over--> flushed --wait for readers--> free
//
// 2. Implementation
// 2.1 There are two batches of ranges, one that is filled and one that is flushed. Who begins a
// flush changes them over, which can be done while nothing is in the flushed one; then it waits for
// readers without a lock, frees the ranges, and says that the batch is empty. Until then it is the
// only one to look into that batch.
// 2.2 The unmap that fills the batch flushes it. One that finds it full, because another thread is
// in the middle of a flush, waits for readers for its own range alone. So an unmap never waits for
// another thread's flush, and needs no memory.
// 2.3 A batch has the time of its first range, which is that of the last tick. A tick flushes all
// that are old enough with one wait; where another thread is in the middle of a flush, the next
// tick does.
// 2.4 Whether a range is queued is decided under the lock. So a domain can become strict at any
// time: an unmap that comes later finds it strict, and one that came before is flushed.
// 2.5 A mapping call that finds no address keeps ranges from being queued while it flushes and
// looks again. So it fails only if there is a moment at which nothing is queued and nothing fits.
// Waiting for the flush of another thread is left to such calls and to those who ask for a flush.
// 2.6 A tick holds the queue, not the domain, which its owner may destroy meanwhile without a word.
// So the space lies here.
// 2.7 A mapping call that ends one page in a section of the system's calls leaves it with the cell of
// that section, as an arrival. The eighth finds no access in flight, mostly, and has them at hand again, as far as
// there is room; else it queues them all. So most lock nothing but their section, and processors do not wait for
// each other. Who flushes, or ticks, comes to each cell first.
//
// 3. Locking
// The lock (rank 7) for a few loads and stores, also in a section; the list's (rank 6) while a tick
// looks at each queue, for which it closes cells of calls: in their sections nobody takes the list's. None of them
// while a range is freed or readers are waited for.
//
// 4. What this does not do
// It knows no page table: the words are cleared before a range comes here. It starts no thread and
// reads no clock: what nobody flushes stays queued.

/// The IOVA space of a DMA domain, and the ranges that were unmapped and are not free yet.
@safe
public struct FlushQueue: ~Copyable, Held {
  /// When a queue is flushed, checked.
  public struct Limits {
    let entries: Int
    let age: UInt64

    /// Pages that a processor queues together. So few more than `entries` may wait, and just as many where
    /// one processor unmaps: of low limits and odd ones each page is queued by itself.
    var together: UInt64 { entries >= 64 && entries % 8 == 0 ? 8 : 1 }

    /// 256 ranges make what a wait costs small beside what their unmaps do; an access takes much
    /// less than 10 ms.
    public init() {
      entries = 256
      age = 10_000_000
    }

    /// - Parameters:
    ///   - entries: the ranges that make a flush; 0 for the default.
    ///   - age: nanoseconds that make one; 0 for the default.
    /// - Throws: `invalidArgument` for more entries than 65536, which take 2 MiB.
    public init(entries: UInt32, age: UInt64) throws(Failure) {
      guard entries <= 65536 else { throw .invalidArgument }
      let defaults = Limits()
      self.entries = entries == 0 ? defaults.entries : Int(entries)
      self.age = age == 0 ? defaults.age : age
    }
  }

  /// The numbers that `domain.h` explains.
  public struct Counts {
    public var count: UInt64 = 0
    public var bytes: UInt64 = 0
    public var flushes: UInt64 = 0
  }

  @safe
  struct Batch {
    var ranges: UnsafeMutablePointer<IOVARange>? = nil
    var count = 0
    var bytes: UInt64 = 0
  }

  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State {
    var filling = Batch()
    var flushed = Batch()
    /// The last tick before the first range of the filling batch was queued.
    var stamp: UInt64 = 0
    var flushes: UInt64 = 0
    /// Calls that keep ranges from being queued.
    var retries = 0
  }

  let space: UnsafeMutablePointer<IOVASpace>
  /// Addresses that the space has given out for mapping calls to come.
  let stash: IOVAStash
  /// The domain's, which is known to it before anybody knows the queue.
  var backend: BackendDomain
  // The domain holds it.
  let system: UnsafeMutablePointer<System>
  private let limits: Limits
  private let together: UInt64
  // Of each cell how many pages have arrived, the last tick before the first of them, and their addresses.
  private let arrivals: CallWords
  // One allocation has the lock's word, the state, and the links. They are no parts of one value,
  // which threads would access as a whole.
  private let memory: UnsafeMutableRawPointer
  private let lock: BriefLock
  private let state: UnsafeMutablePointer<State>
  let links: UnsafeMutablePointer<FlushQueueList.Links>
  let due: UnsafeMutablePointer<FlushQueueList.Due>
  // Changed under the lock.
  private let laziness = Atomic<Bool>(false)
  private let uses = UseCount()

  init(
    _ bounds: IOVARange, _ limits: Limits, system: UnsafeMutablePointer<System>,
    _ backend: BackendDomain
  ) throws(Failure) {
    let reporter = unsafe system.pointee.reporter
    let stash = unsafe try IOVAStash(for: system.pointee.calls)
    let arrivals = unsafe try CallWords(for: system.pointee.calls)
    let memory = unsafe try RawMemory.allocate(256, alignment: 64)
    do throws(Failure) {
      unsafe space = try Box<IOVASpace>.place { () throws(Failure) in
        try IOVASpace(
          bounds: bounds, granule: Device.granule, isChecked: false, reporter: reporter)
      }
    } catch {
      unsafe RawMemory.free(memory)
      throw error
    }
    self.stash = stash
    self.arrivals = arrivals
    unsafe self.system = system
    self.backend = backend
    self.limits = limits
    together = limits.together
    unsafe self.memory = memory
    // SAFETY: of the 256 bytes, which are aligned to 64, the first 128 have room for the word and a
    // state of 9, and the others for links of 2 and 4 words. Nothing else is there.
    let word = unsafe memory.bindMemory(to: UInt64.self, capacity: 1)
    unsafe state = (memory + 8).bindMemory(to: State.self, capacity: 1)
    unsafe links = (memory + 128).bindMemory(to: FlushQueueList.Links.self, capacity: 1)
    unsafe due = (memory + 192).bindMemory(to: FlushQueueList.Due.self, capacity: 1)
    unsafe word.initialize(to: 0)
    unsafe state.initialize(to: State())
    unsafe links.initialize(to: FlushQueueList.Links())
    unsafe due.initialize(to: FlushQueueList.Due())
    unsafe lock = BriefLock(word, .flushQueue)
  }

  deinit {
    // What is still queued ends with the space.
    unsafe Box.destroy(space)
    if let first = unsafe state.pointee.filling.ranges,
      let second = unsafe state.pointee.flushed.ranges
    {
      unsafe RawMemory.free(min(first, second))
    }
    unsafe RawMemory.free(memory)
  }

  /// Lets no tick find the queue, and tell the backend, any more. Its domain, through which no access is
  /// in flight, lets go of it then.
  static func withdraw(_ queue: UnsafeMutablePointer<FlushQueue>) {
    if unsafe queue.pointee.hasBatches {
      unsafe queue.pointee.system.pointee.lazyDomains.remove(queue)
    }
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  // MARK: - Strict and lazy

  /// Whether ranges are to be queued at the moment.
  var isLazy: Bool { laziness.load(ordering: .relaxed) }

  /// - Throws: `noMemory`, for the batches of a queue that has not been lazy before.
  static func setLazy(
    _ queue: UnsafeMutablePointer<FlushQueue>, _ isLazy: Bool
  ) throws(Failure) {
    if isLazy, unsafe !queue.pointee.hasBatches { unsafe try makeBatches(queue) }
    unsafe queue.pointee.change(isLazy)
  }

  private func change(_ isLazy: Bool) {
    lock.lock()
    laziness.store(isLazy, ordering: .relaxed)
    lock.unlock()
    guard !isLazy else { return }
    // So that no page arrives any more.
    unsafe system.pointee.calls.waitForCalls()
    flush()
  }

  private var hasBatches: Bool {
    lock.lock()
    defer { lock.unlock() }
    return unsafe state.pointee.filling.ranges != nil
  }

  private static func makeBatches(_ queue: UnsafeMutablePointer<FlushQueue>) throws(Failure) {
    let (lock, state) = unsafe (queue.pointee.lock, queue.pointee.state)
    let capacity = unsafe queue.pointee.limits.entries
    let raw = unsafe try RawMemory.allocate(
      2 * capacity * MemoryLayout<IOVARange>.stride, alignment: 64)
    // SAFETY: the allocation has room for two batches and holds nothing else.
    let ranges = unsafe raw.bindMemory(to: IOVARange.self, capacity: 2 * capacity)
    lock.lock()
    // Another thread may have been faster.
    let isFirst = unsafe state.pointee.filling.ranges == nil
    if isFirst {
      unsafe state.pointee.filling.ranges = ranges
      unsafe state.pointee.flushed.ranges = ranges + capacity
    }
    lock.unlock()
    if isFirst {
      unsafe queue.pointee.system.pointee.lazyDomains.add(queue)
    } else {
      unsafe RawMemory.free(raw)
    }
  }

  // MARK: - What ranges take

  // A space that has fewer addresses above 4 GiB has none to spare there.
  private static var spareMin: UInt64 { 1 << 32 }

  /// How many bytes of the space a range takes at most that lies below a limit: a power of two of pages if it is small,
  /// and the addresses above 4 GiB can be had. So ranges of most sizes serve each other, and come from the caches.
  func takenMost(_ size: UInt64, under limit: UInt64) -> UInt64 {
    let bounds = unsafe space.pointee.bounds
    guard size &- 1 <= MappingTag.reach, size & (size &- 1) != 0,
      unsafe space.pointee.isHigh(limit),
      bounds.extent >= Self.spareMin &- 1,
      unsafe space.pointee.isHigh(bounds.last.rawValue &- (Self.spareMin &- 1))
    else { return size }
    return 1 &<< UInt64(64 &- size.leadingZeroBitCount)
  }

  /// How many bytes of the space a range takes that starts at an address: that many where the address is a multiple of
  /// them, and no more than it is elsewhere.
  func taken(_ size: UInt64, at first: UInt64) -> UInt64 {
    let most = takenMost(size, under: first)
    return first & (most &- 1) == 0 ? most : size
  }

  /// The range of the space that a range takes, as it was allocated.
  private func taken(_ range: IOVARange) -> IOVARange {
    let size = taken(range.extent &+ 1, at: range.first.rawValue)
    return (try? IOVARange(first: range.first, size: size)) ?? range
  }

  // MARK: - Freeing

  /// Frees what a range takes that nothing leads to and no reader is at any more. Returns what the space does.
  func free(_ first: UInt64, _ size: UInt64) -> Int32 {
    unsafe IOVASpace.free(space, first, taken(size, at: first))
  }

  /// As above, of a mapping.
  func free(_ range: IOVARange) {
    let code = free(range.first.rawValue, range.extent &+ 1)
    // The record of the mapping has the range as the space gave it, so this cannot fail.
    assert(code == 0, "A mapping's range is not allocated.")
  }

  /// Frees a range that nothing leads to any more, when no reader can be at it: with the flush that
  /// it is queued for, or now where it may not be queued.
  @_optimize(speed)
  func freeLater(_ range: IOVARange) {
    lock.lock()
    let isQueued = unsafe takesRanges && state.pointee.filling.count < limits.entries
    if isQueued { queue(range) }
    let batch = unsafe state.pointee.filling.count == limits.entries ? changeOver() : nil
    lock.unlock()
    if isQueued && batch == nil { return }
    if let batch {
      settle()
      endFlush(batch)
    } else {
      settle(range)
    }
    if !isQueued { free(range) }
  }

  /// As `freeLater`, if all that there is to it is to queue the range.
  @inline(never)
  func queueAtOnce(_ first: UInt64, _ size: UInt64) -> Bool {
    guard isLazy, let range = try? IOVARange(first: IOVA(first), size: size) else { return false }
    lock.lock()
    let mayQueue =
      unsafe takesRanges && state.pointee.filling.count &+ 1 < limits.entries
    if mayQueue { queue(range) }
    lock.unlock()
    return mayQueue
  }

  // Whether ranges may be queued, if there is room. Under the lock.
  @inline(__always)
  private var takesRanges: Bool { unsafe isLazy && state.pointee.retries == 0 }

  // Under the lock. What it takes is queued.
  @inline(__always)
  private func queue(_ range: IOVARange) {
    let count = unsafe state.pointee.filling.count
    if count == 0 {
      unsafe state.pointee.stamp = system.pointee.lastTick.load(ordering: .relaxed)
    }
    unsafe state.pointee.filling.ranges![count] = taken(range)
    unsafe state.pointee.filling.count = count &+ 1
    unsafe state.pointee.filling.bytes &+= range.extent &+ 1
  }

  // MARK: - Arrivals

  /// Lets a page wait in the cell of a call for others to be queued with, while the queue is lazy. Returns whether it
  /// has room: if not, `arriveOrQueue` does something about them.
  @inline(__always)
  func arrive(_ call: Int, _ page: UInt64) -> Bool {
    // Looked at in the section, as whether the queue is lazy: who changes one of the two comes to all sections afterwards.
    guard !stash.addresses.isSearched else { return false }
    let line = unsafe arrivals.of(call)
    let count = unsafe cplatform_load_relaxed(line)
    guard count &+ 1 < together else { return false }
    if count == 0 {
      unsafe line[1] = system.pointee.lastTick.load(ordering: .relaxed)
    }
    unsafe line[Int(truncatingIfNeeded: count &+ 2)] = page
    unsafe cplatform_store_release(line, count &+ 1)
    return true
  }

  /// As `arrive`, and where the cell has no room, has its pages at hand again or queues them and this one. Returns
  /// whether it was left to wait, or queued. The caller has just taken the page's words, by a fence.
  @inline(never)
  func arriveOrQueue(_ call: Int, _ page: UInt64) -> Bool {
    guard isLazy else { return false }
    if arrive(call, page) { return true }
    guard !stash.addresses.isSearched else { return false }
    return unsafe settleArrivals(call, page) || queueArrivals(arrivals.of(call), page)
  }

  /// Has pages of a cell and one more at hand again, if there is room for half of them and nobody has to be waited for or
  /// told. Those that there is no room for wait on. Returns whether there is as much.
  @inline(__always)
  private func settleArrivals(_ call: Int, _ page: UInt64) -> Bool {
    let line = unsafe arrivals.of(call)
    let count = unsafe Int(truncatingIfNeeded: cplatform_load_relaxed(line))
    // Each page's words were cleared before it arrived, and so before the caller's fence: a reader that is not seen
    // here does not find them.
    guard count > 0, backend.cachesNothing, unsafe system.pointee.readers.areNone else {
      return false
    }
    // There are not so many that the line has no room for it.
    unsafe line[count &+ 2] = page
    let settled = unsafe stash.addresses.put(
      call, UnsafeBufferPointer(start: line + 2, count: count &+ 1))
    guard settled > 0 else { return false }
    let rest = count &+ 1 &- settled
    for index in 0..<rest { unsafe line[index &+ 2] = line[index &+ 2 &+ settled] }
    unsafe cplatform_store_release(line, UInt64(rest))
    return true
  }

  /// Queues the pages of a cell, as far as the batch has room for all, and one more if it does not fill the
  /// batch. Returns whether that was queued, or if there is none, whether the pages were.
  @inline(never)
  private func queueArrivals(_ line: UnsafeMutablePointer<UInt64>, _ page: UInt64?) -> Bool {
    let count = unsafe Int(truncatingIfNeeded: cplatform_load_relaxed(line))
    lock.lock()
    defer { lock.unlock() }
    let queued = unsafe state.pointee.filling.count
    guard queued &+ count <= limits.entries else { return false }
    if count > 0 {
      let stamp = unsafe line[1]
      for index in 0..<count { unsafe queue(line[index &+ 2]) }
      unsafe cplatform_store_release(line, 0)
      // They came before what has been queued since.
      unsafe state.pointee.stamp = min(stamp, state.pointee.stamp)
    }
    guard let page else { return true }
    guard takesRanges, queued &+ count &+ 1 < limits.entries else { return false }
    queue(page)
    return true
  }

  private func queue(_ page: UInt64) {
    guard let range = try? IOVARange(first: IOVA(page), size: Device.granule.bytes) else { return }
    queue(range)
  }

  /// Queues the pages of all cells. Returns whether there was room for all.
  @inline(never)
  private func queueArrivals() -> Bool {
    var hadRoom = true
    var cell = 0
    while cell < arrivals.end {
      if unsafe cplatform_load_acquire(arrivals.of(cell)) > 0 {
        unsafe system.pointee.calls.close(cell)
        hadRoom = unsafe queueArrivals(arrivals.of(cell), nil) && hadRoom
        unsafe system.pointee.calls.reopen(cell)
      }
      cell &+= CallSections.cellSize
    }
    return hadRoom
  }

  // MARK: - Flushing

  /// Begins a flush of what is queued, unless one is under way. Under the lock.
  private func changeOver() -> Batch? {
    let batch = unsafe state.pointee.filling
    guard batch.count > 0, unsafe state.pointee.flushed.count == 0 else { return nil }
    unsafe state.pointee.filling = state.pointee.flushed
    unsafe state.pointee.flushed = batch
    return batch
  }

  /// Begins a flush if something has been queued for long enough. Then the caller waits for readers
  /// and calls `endFlush`.
  func beginFlush(at now: UInt64) -> Batch? {
    // What finds no room is left to the next tick.
    _ = queueArrivals()
    lock.lock()
    // A clock that went backwards wraps, which makes it late enough.
    let batch = unsafe now &- state.pointee.stamp >= limits.age ? changeOver() : nil
    lock.unlock()
    return batch
  }

  /// Ends a flush after the wait.
  func endFlush(_ batch: Batch) {
    // Nobody else looks into the batch before it is said to be empty.
    unsafe IOVASpace.free(space, UnsafeBufferPointer(start: batch.ranges, count: batch.count))
    lock.lock()
    unsafe state.pointee.flushed.count = 0
    unsafe state.pointee.flushed.bytes = 0
    unsafe state.pointee.flushes &+= 1
    lock.unlock()
  }

  /// Returns when everything that was queued at the call is free.
  func flush() {
    var backoff = Backoff()
    var isAllQueued = false
    var flushesAtFirst: UInt64? = nil
    while true {
      isAllQueued = isAllQueued || queueArrivals()
      lock.lock()
      let flushes = unsafe state.pointee.flushes
      // The first that ends may have begun before the call, the second has not.
      let isOver =
        unsafe isAllQueued
        && (state.pointee.filling.count == 0 && state.pointee.flushed.count == 0
          || flushes &- (flushesAtFirst ?? flushes) >= 2)
      let batch = isOver ? nil : changeOver()
      lock.unlock()
      if isOver { return }
      if let batch {
        settle()
        endFlush(batch)
        if isAllQueued { return }
        continue
      }
      if isAllQueued { flushesAtFirst = flushesAtFirst ?? flushes }
      // Another thread is in the middle of a flush: it waits for readers, or for its processor.
      backoff.rest()
    }
  }

  @inline(never)
  private func settle() { unsafe backend.settle(system) }

  /// As `BackendDomain.settle`.
  func settle(_ range: IOVARange) {
    unsafe backend.settle(system, range.first.rawValue, range.last.rawValue)
  }

  /// Allocates; if nothing is free, again when all that was queued is.
  ///
  /// - Throws: what `allocate` throws.
  func retrying(_ allocate: () throws(Failure) -> IOVARange) throws(Failure) -> IOVARange {
    do throws(Failure) {
      return try allocate()
    } catch {
      guard error == .noSpace else { throw error }
    }
    let hasFlushed = try beginRetry()
    defer { endRetry(hasFlushed) }
    return try allocate()
  }

  /// Frees all that no mapping has.
  func giveBackAll() {
    _ = unsafe stash.drain(to: space, system.pointee.calls)
    if hasBatches { flush() }
    unsafe space.pointee.drain()
  }

  /// Frees what is stashed and what is queued. Returns whether something was queued.
  ///
  /// - Throws: `noSpace` when there is nothing of either.
  @inline(never)
  private func beginRetry() throws(Failure) -> Bool {
    stash.addresses.countSearch(1)
    let drained = unsafe stash.drain(to: space, system.pointee.calls)
    if hasBatches {
      countRetry(1)
      flush()
      return true
    }
    if drained == 0 {
      stash.addresses.countSearch(-1)
      throw .noSpace
    }
    return false
  }

  @inline(never)
  private func endRetry(_ hasFlushed: Bool) {
    if hasFlushed { countRetry(-1) }
    stash.addresses.countSearch(-1)
  }

  private func countRetry(_ change: Int) {
    lock.lock()
    unsafe state.pointee.retries += change
    lock.unlock()
  }

  var counts: Counts {
    let pages = arrivals.sum(0)
    lock.lock()
    defer { lock.unlock() }
    return unsafe Counts(
      count: UInt64(state.pointee.filling.count + state.pointee.flushed.count) &+ pages,
      bytes: state.pointee.filling.bytes &+ state.pointee.flushed.bytes
        &+ pages &* Device.granule.bytes,
      flushes: state.pointee.flushes)
  }
}
