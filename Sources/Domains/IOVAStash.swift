// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import IOVAAllocation
import Primitives
import Synchronization

/// Addresses of single pages that a domain's space has given out, and that no mapping has: a few for each
/// processor, for mapping calls that are in a section of the system's `calls`, which guards them.
///
/// So most calls lock nothing but their section. And the leaves of mappings that processors make beside each
/// other lie in lines of the cache of their own, because what one of them gets comes in a row.
@safe
struct IOVAStash: ~Copyable {
  static var capacity: Int { CallWords.count - 1 }
  /// A space that is smaller has nothing to spare.
  private static var leastSpace: UInt64 { 1 << 28 }

  // A count, and as many addresses behind it.
  private let words: CallWords
  // Calls that find no address, and look for one after they have drained this: until then nothing is put in,
  // so that each address is where they look.
  private let searches = Atomic<Int>(0)

  init(for calls: borrowing CallSections) throws(Failure) { words = try CallWords(for: calls) }

  /// Takes the address of a page that ends at or below a limit. Who reaches high addresses gets one of
  /// those, as from the space, so that low ones are left to others.
  @inline(__always)
  func take(_ call: Int, limit: UInt64, of space: UnsafePointer<IOVASpace>) -> UInt64? {
    guard let address = unsafe next(call, limit: limit, of: space) else { return nil }
    takeNext(call)
    return address
  }

  /// What `take` would take.
  @inline(__always)
  func next(_ call: Int, limit: UInt64, of space: UnsafePointer<IOVASpace>) -> UInt64? {
    let line = unsafe words.of(call)
    let count = unsafe cplatform_load_relaxed(line)
    guard count > 0 else { return nil }
    let address = unsafe line[Int(truncatingIfNeeded: count)]
    guard address | Device.granule.mask <= limit,
      unsafe space.pointee.isHigh(address)
        || !space.pointee.isHigh(min(limit, space.pointee.bounds.last.rawValue))
    else { return nil }
    return address
  }

  /// Takes what `next` has returned in the same section.
  @inline(__always)
  func takeNext(_ call: Int) {
    let line = unsafe words.of(call)
    unsafe cplatform_store_release(line, cplatform_load_relaxed(line) &- 1)
  }

  /// Puts an address in, if there is room.
  @inline(__always)
  func put(_ call: Int, _ address: UInt64) -> Bool {
    let line = unsafe words.of(call)
    let count = unsafe cplatform_load_relaxed(line)
    guard count < UInt64(Self.capacity), !isSearched else { return false }
    unsafe line[Int(truncatingIfNeeded: count &+ 1)] = address
    unsafe cplatform_store_release(line, count &+ 1)
    return true
  }

  /// Takes an address out of the caches of a space, and where the stash is empty, some more for it: none but what
  /// ends at or below a limit.
  @inline(never)
  func takeCached(
    _ call: Int, from space: UnsafePointer<IOVASpace>, limit: UInt64
  ) -> UInt64? {
    let line = unsafe words.of(call)
    guard unsafe cplatform_load_relaxed(line) == 0, !isSearched else {
      return unsafe IOVASpace.takeCached(space, Device.granule.bytes, limit)
    }
    // Some stay for others, and room for what is given back.
    let count = unsafe space.pointee.takeCached(
      bytes: Device.granule.bytes, limit: limit,
      UnsafeMutableBufferPointer(start: line + 1, count: Self.capacity / 2 + 1))
    guard count > 0 else { return nil }
    unsafe cplatform_store_release(line, UInt64(count &- 1))
    return unsafe line[count]
  }

  /// Gets some more addresses ready for whoever maps next where this call does, from a large space that has
  /// just given one.
  @inline(never)
  func fill(from space: UnsafePointer<IOVASpace>, limit: UInt64, _ calls: borrowing CallSections) {
    guard unsafe space.pointee.bounds.extent >= Self.leastSpace else { return }
    var call = calls.enter()
    let isEmpty = unsafe cplatform_load_relaxed(words.of(call)) == 0
    calls.leave(call)
    guard isEmpty else { return }
    // Their leaves fill a line of the cache; and there stays room for what is given back.
    let wanted = Self.capacity / 2
    unsafe withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.capacity) { addresses in
      var count = 0
      while count < wanted {
        let code = unsafe IOVASpace.allocateSlowly(
          space, Device.granule.bytes, 0, limit, addresses.baseAddress! + count)
        guard code == 0 else { break }
        count &+= 1
      }
      call = calls.enter()
      // What the space gave first is to go first.
      while count > 0, unsafe put(call, addresses[count &- 1]) { count &-= 1 }
      calls.leave(call)
      while count > 0 {
        count &-= 1
        unsafe giveBack(addresses[count], to: space)
      }
    }
  }

  /// Whether calls look for addresses.
  var isSearched: Bool { searches.load(ordering: .relaxed) != 0 }

  /// Says that a call has begun to look for addresses, or has ended that.
  func countSearch(_ change: Int) {
    // What is put in by calls that have not seen this is found by a drain, which comes to their cells later.
    searches.wrappingAdd(change, ordering: .relaxed)
  }

  /// Gives all back to the space. Returns how many there were.
  @inline(never)
  func drain(to space: UnsafePointer<IOVASpace>, _ calls: borrowing CallSections) -> UInt64 {
    var drained: UInt64 = 0
    // Calls are searching: after this a cell that is empty stays so.
    calls.waitForCalls()
    var call = 0
    while call < calls.end {
      let line = unsafe words.of(call)
      if unsafe cplatform_load_acquire(line) > 0 {
        calls.close(call)
        let count = unsafe cplatform_load_relaxed(line)
        for index in 0..<Int(truncatingIfNeeded: count) {
          unsafe giveBack(line[index &+ 1], to: space)
        }
        unsafe cplatform_store_release(line, 0)
        calls.reopen(call)
        drained &+= count
      }
      call &+= CallSections.cellSize
    }
    return drained
  }

  private func giveBack(_ address: UInt64, to space: UnsafePointer<IOVASpace>) {
    try? unsafe space.pointee.free(first: IOVA(address), size: Device.granule.bytes)
  }

  /// How many addresses there are, at a moment at which no call is under way.
  var count: UInt64 { words.sum(0) }
}
