// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

/// Table pages of the heap, taken from it in chunks.
///
/// Lock-free. A page that is given back stays here until the pool ends. Each page has a word outside
/// of it, for a list: a table that walkers may still be inside can so wait in a list, whatever becomes
/// of its own words.
///
/// ```
///   a chunk:  | words of the pages | page 1 | page 2 | ...
/// ```
///
/// The first chunk is small, as most tables are. The others lie at multiples of their size, by which the
/// chunk of a page is found; they are so large that the page for the words hardly counts, and what is
/// not used of them takes no memory.
@safe
struct TablePool: ~Copyable {
  private static var firstCount: Int { 16 }
  private static var chunkSize: Int { 2 << 20 }

  private let shift: Int
  // nil in a pool that is not used.
  private let firstChunk: UnsafeMutablePointer<UInt64>?
  // The address of the last chunk but the first; the first word of a chunk leads to the one before it.
  private let chunks = Atomic<UInt64>(0)
  // A stack of free pages: the number of the first, and above it a count of changes, so that a page that
  // is first again is not taken for one that has been all along.
  private let free = Atomic<UInt64>(0)

  // Addresses that the heap has are below 2^52: the kernel gives no others unless it is asked for them.
  private var numberBits: UInt64 { UInt64(truncatingIfNeeded: 52 &- shift) }

  /// The address of the first page of a stack, or 0.
  private func first(_ stack: UInt64) -> UInt64 {
    (stack & ((1 &<< numberBits) &- 1)) &<< UInt64(truncatingIfNeeded: shift)
  }

  private func changed(_ stack: UInt64, toStartAt page: UInt64) -> UInt64 {
    ((stack &>> numberBits) &+ 1) &<< numberBits | page &>> UInt64(truncatingIfNeeded: shift)
  }

  /// A pool of which no page is asked for.
  init() {
    shift = 0
    unsafe firstChunk = nil
  }

  /// - Throws: `noMemory`.
  init(granule: Granule) throws(Failure) {
    let size = Self.firstCount &<< granule.shift
    let raw = unsafe try RawMemory.allocate(size, alignment: 1 &<< granule.shift)
    shift = granule.shift
    // SAFETY: the chunk is just allocated, and starts with words of its own.
    let chunk = unsafe raw.bindMemory(to: UInt64.self, capacity: size &>> 3)
    unsafe firstChunk = chunk
    unsafe fill(chunk, count: Self.firstCount)
  }

  deinit {
    if let chunk = unsafe firstChunk { unsafe RawMemory.free(chunk) }
    var next = chunks.load(ordering: .relaxed)
    // SAFETY: `addChunk` stored the addresses of chunks there.
    while let chunk = unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(next)) {
      next = unsafe chunk.pointee
      unsafe RawMemory.free(chunk)
    }
  }

  /// The word of a page.
  private func word(_ page: UInt64) -> UnsafeMutablePointer<UInt64> {
    let offset = page &- UInt64(UInt(bitPattern: unsafe firstChunk))
    if offset < UInt64(Self.firstCount) &<< UInt64(shift) {
      return unsafe firstChunk.unsafelyUnwrapped + Int(offset &>> UInt64(shift))
    }
    let mask = UInt64(Self.chunkSize &- 1)
    // SAFETY: pages are those of chunks, which start with a word for each.
    let chunk = unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(page & ~mask))
    return unsafe chunk.unsafelyUnwrapped + Int((page & mask) &>> UInt64(shift))
  }

  /// Links a page, which is in nobody else's list, to another one or to 0.
  func link(_ page: UInt, to next: UInt) {
    unsafe cplatform_store_release(word(UInt64(page)), UInt64(next))
  }

  /// What a page is linked to.
  func next(_ page: UInt) -> UInt { unsafe UInt(cplatform_load_acquire(word(UInt64(page)))) }

  /// The address of a page whose contents do not matter.
  ///
  /// - Throws: `noMemory`.
  func take() throws(Failure) -> UInt {
    while true {
      var old = free.load(ordering: .acquiring)
      while first(old) != 0 {
        let page = first(old)
        // Another thread may have taken it; then this is not what is stored.
        let next = UInt64(next(UInt(page)))
        let (done, now) = free.weakCompareExchange(
          expected: old, desired: changed(old, toStartAt: next), ordering: .acquiringAndReleasing)
        if done { return UInt(page) }
        old = now
      }
      try addChunk()
    }
  }

  /// Takes a page back.
  func give(_ page: UInt) { put(first: page, last: page) }

  private func put(first: UInt, last: UInt) {
    var old = free.load(ordering: .relaxed)
    while true {
      link(last, to: UInt(self.first(old)))
      let (done, now) = free.weakCompareExchange(
        expected: old, desired: changed(old, toStartAt: UInt64(first)), ordering: .releasing)
      if done { return }
      old = now
    }
  }

  private func addChunk() throws(Failure) {
    let raw = unsafe try RawMemory.allocate(Self.chunkSize, alignment: Self.chunkSize)
    // SAFETY: the chunk is just allocated, and starts with words of its own.
    let words = unsafe raw.bindMemory(to: UInt64.self, capacity: Self.chunkSize &>> shift)
    var old = chunks.load(ordering: .relaxed)
    while true {
      unsafe words.pointee = old
      let (done, now) = chunks.weakCompareExchange(
        expected: old, desired: UInt64(UInt(bitPattern: raw)), ordering: .relaxed)
      if done { break }
      old = now
    }
    unsafe fill(words, count: Self.chunkSize &>> shift)
  }

  /// Takes in the pages of a chunk, all but the first.
  private func fill(_ chunk: UnsafeMutablePointer<UInt64>, count: Int) {
    let base = UInt(bitPattern: chunk)
    for index in 1..<(count &- 1) {
      unsafe chunk[index] = UInt64(base &+ UInt(index &+ 1) &<< UInt(shift))
    }
    put(first: base &+ 1 &<< UInt(shift), last: base &+ UInt(count &- 1) &<< UInt(shift))
  }
}
