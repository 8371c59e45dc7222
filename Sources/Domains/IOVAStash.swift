// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import Primitives

/// Addresses of single pages that a domain's space has given out, and that no mapping has: what mapping calls
/// have at hand.
///
/// The leaves of mappings that processors make beside each other lie in lines of the cache of their own, because
/// what one of them gets comes in a row.
@safe
struct IOVAStash: ~Copyable {
  /// A space that is smaller has nothing to spare.
  private static var leastSpace: UInt64 { 1 << 28 }

  let addresses: CallStash

  init(for calls: borrowing CallSections) throws(Failure) {
    addresses = try CallStash(for: calls)
  }

  /// Takes an address out of the caches of a space, and where the stash is empty, some more for it: none but what
  /// ends at or below a limit.
  @inline(never)
  func takeCached(
    _ call: Int, from space: UnsafePointer<IOVASpace>, limit: UInt64
  ) -> UInt64? {
    guard addresses.isEmpty(call), !addresses.isSearched else {
      return unsafe IOVASpace.takeCached(space, Device.granule.bytes, limit)
    }
    return unsafe addresses.take(call) { room in
      unsafe space.pointee.takeCached(bytes: Device.granule.bytes, limit: limit, room)
    }
  }

  /// Gets some more addresses ready for whoever maps next where this call does, from a large space that has
  /// just given one.
  @inline(never)
  func fill(from space: UnsafePointer<IOVASpace>, limit: UInt64, _ calls: borrowing CallSections) {
    guard unsafe space.pointee.bounds.extent >= Self.leastSpace else { return }
    var call = calls.enter()
    let isEmpty = addresses.isEmpty(call)
    calls.leave(call)
    guard isEmpty else { return }
    // With the one that was given, their leaves fill two lines of the cache, which processors fetch together.
    let wanted = CallStash.capacity
    unsafe withUnsafeTemporaryAllocation(of: UInt64.self, capacity: CallStash.capacity) { found in
      var count = 0
      while count < wanted {
        let code = unsafe IOVASpace.allocateSlowly(
          space, Device.granule.bytes, 0, limit, found.baseAddress! + count)
        guard code == 0 else { break }
        count &+= 1
      }
      // One of them goes to the caches of this processor, so that there is room for what is given back first. Without it
      // the next processor would start in these lines.
      if count == wanted {
        count &-= 1
        unsafe giveBack(found[count], to: space)
      }
      call = calls.enter()
      // What the space gave first is to go first.
      while count > 0, unsafe addresses.put(call, found[count &- 1]) { count &-= 1 }
      calls.leave(call)
      while count > 0 {
        count &-= 1
        unsafe giveBack(found[count], to: space)
      }
    }
  }

  /// Gives all back to the space. Returns how many there were.
  @inline(never)
  func drain(to space: UnsafePointer<IOVASpace>, _ calls: borrowing CallSections) -> UInt64 {
    addresses.drain(calls) { unsafe giveBack($0, to: space) }
  }

  private func giveBack(_ address: UInt64, to space: UnsafePointer<IOVASpace>) {
    try? unsafe space.pointee.free(first: IOVA(address), size: Device.granule.bytes)
  }
}
