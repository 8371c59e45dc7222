// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

/// What is known of a page of a pool outside of it: two words.
@safe
struct TableLabel {
  static var size: Int { 16 }

  /// Which table of a tree the page is, an odd number; or, while it is none, the page that it is linked
  /// to, or 0.
  let role: UnsafeMutablePointer<UInt64>

  var address: UInt64 { UInt64(UInt(bitPattern: unsafe role)) }

  /// The words of the table, while the role is that of one.
  var words: UnsafeMutablePointer<UInt64> {
    // SAFETY: before it gives a role to a table, `TableMemory` has the words set.
    unsafe UnsafeMutablePointer(bitPattern: UInt(role[1])).unsafelyUnwrapped
  }

  func setWords(_ words: UnsafeMutablePointer<UInt64>) {
    unsafe role[1] = UInt64(UInt(bitPattern: words))
  }
}

/// Pages of the heap that are all of one size, taken from it in chunks: for tables, or for records of
/// tables that are elsewhere.
///
/// Lock-free. A page that is given back stays here until the pool ends. Each page has a label outside
/// of it: a table that walkers may still be inside can so wait in a list, whatever becomes of its own
/// words, and whoever has once found a label can look there for what has become of the page.
///
/// ```
///   a chunk:  | labels of the pages | page 1 | page 2 | ...
/// ```
///
/// The first chunk is small, as most tables are. The others lie at multiples of their size, by which the
/// chunk of a page is found; they are so large that the pages for the labels hardly count, and what is
/// not used of them takes no memory.
@safe
struct TablePool: ~Copyable {
  private static var firstCount: Int { 16 }

  private let shift: Int
  private let chunkSize: Int
  private let firstChunk: UnsafeMutablePointer<UInt64>
  // The address of the last chunk but the first; the first label of a chunk, which
  // has no page, is linked to the one before it.
  private let chunks = Atomic<UInt64>(0)
  // A stack of free pages: the number of the first, and above it a count of changes, so that a page that
  // is first again is not taken for one that has been all along.
  private let free = Atomic<UInt64>(0)

  // Addresses that the heap has are below 2^48: the kernel gives no others unless it is asked for them.
  private var numberBits: UInt64 { UInt64(truncatingIfNeeded: 48 &- shift) }

  /// The address of the first page of a stack, or 0.
  private func first(_ stack: UInt64) -> UInt64 {
    (stack & ((1 &<< numberBits) &- 1)) &<< UInt64(truncatingIfNeeded: shift)
  }

  private func changed(_ stack: UInt64, toStartAt page: UInt64) -> UInt64 {
    ((stack &>> numberBits) &+ 1) &<< numberBits | page &>> UInt64(truncatingIfNeeded: shift)
  }

  /// - Parameter shift: the exponent of the size of a page, from 5 on.
  /// - Throws: `noMemory`.
  init(shift: Int) throws(Failure) {
    let size = Self.firstCount &<< shift
    let raw = unsafe try RawMemory.allocate(size, alignment: 1 &<< shift)
    self.shift = shift
    chunkSize = min(2 &<< 20, 512 &<< shift)
    // SAFETY: the chunk is just allocated, and starts with labels.
    let chunk = unsafe raw.bindMemory(to: UInt64.self, capacity: size &>> 3)
    unsafe firstChunk = chunk
    unsafe fill(chunk, count: Self.firstCount)
  }

  deinit {
    unsafe RawMemory.free(firstChunk)
    var next = chunks.load(ordering: .relaxed)
    // SAFETY: `addChunk` stored the addresses of chunks there.
    while let chunk = unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(next)) {
      next = unsafe chunk.pointee
      unsafe RawMemory.free(chunk)
    }
  }

  /// The label of a page.
  @inline(never)
  func label(_ page: UInt) -> TableLabel {
    let page = UInt64(page)
    let offset = page &- UInt64(UInt(bitPattern: unsafe firstChunk))
    if offset < UInt64(Self.firstCount) &<< UInt64(shift) {
      return unsafe TableLabel(
        role: firstChunk + 2 &* Int(offset &>> UInt64(shift)))
    }
    let mask = UInt64(chunkSize &- 1)
    // SAFETY: pages are those of chunks, which start with a label for each.
    let chunk = unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(page & ~mask))
    return unsafe TableLabel(
      role: chunk.unsafelyUnwrapped + 2 &* Int((page & mask) &>> UInt64(shift)))
  }

  /// Links a page, which is in nobody else's list, to another one or to 0.
  func link(_ page: UInt, to next: UInt) {
    unsafe cplatform_store_release(label(page).role, UInt64(next))
  }

  /// What a page is linked to.
  func next(_ page: UInt) -> UInt {
    let role = unsafe cplatform_load_acquire(label(page).role)
    return role & 1 == 0 ? UInt(role) : 0
  }

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
    let raw = unsafe try RawMemory.allocate(chunkSize, alignment: chunkSize)
    // SAFETY: the chunk is just allocated, and starts with labels.
    let labels = unsafe raw.bindMemory(to: UInt64.self, capacity: chunkSize &>> 3)
    var old = chunks.load(ordering: .relaxed)
    while true {
      unsafe labels.pointee = old
      let (done, now) = chunks.weakCompareExchange(
        expected: old, desired: UInt64(UInt(bitPattern: raw)), ordering: .relaxed)
      if done { break }
      old = now
    }
    unsafe fill(labels, count: chunkSize &>> shift)
  }

  /// Takes in the pages of a chunk, all but those of the labels.
  @inline(never)
  private func fill(_ chunk: UnsafeMutablePointer<UInt64>, count: Int) {
    let base = UInt(bitPattern: chunk)
    let labelPages = ((count &* TableLabel.size &- 1) &>> shift) &+ 1
    for index in labelPages..<count {
      let page = base &+ UInt(index) &<< UInt(shift)
      unsafe chunk[2 &* index] = UInt64(page &+ 1 &<< UInt(shift))
    }
    put(
      first: base &+ UInt(labelPages) &<< UInt(shift),
      last: base &+ UInt(count &- 1) &<< UInt(shift))
  }
}
