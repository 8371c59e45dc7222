// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Synchronization

// What a space says of itself: numbers, its ranges, wrong frees.

extension IOVASpace {
  /// The numbers that `iova.h` explains.
  public struct Statistics {
    public var allocatedCount: UInt64 = 0
    public var allocatedBytes: UInt64 = 0
    public var reservedCount: UInt64 = 0
    public var reservedBytes: UInt64 = 0
    public var freeBytes: UInt64 = 0
    public var largestFreeBytes: UInt64 = 0
    public var cachedCount: UInt64 = 0
    public var cachedBytes: UInt64 = 0
    public var takenCountMax: UInt64 = 0
    public var takenBytesMax: UInt64 = 0
    public var cacheAllocations: UInt64 = 0
    public var cacheFrees: UInt64 = 0
    public var storeAllocations: UInt64 = 0
    public var storeFrees: UInt64 = 0
    public var refusedFrees: UInt64 = 0
    public var drains: UInt64 = 0
    public var searchedGaps: UInt64 = 0
    public var metadataBytes: UInt64 = 0
  }

  @_optimize(size)
  public var statistics: Statistics {
    caches.lockEverything()
    defer {
      caches.unlockRacksOnly()
      unlockStore()
    }
    var statistics = Statistics()
    let (cachedCount, cachedBytes) = unsafe store.pointee.cached
    statistics.cachedCount = cachedCount
    statistics.cachedBytes = cachedBytes
    caches.forEachRack { _, kind, rack in
      let count = UInt64(rack.count)
      statistics.cachedCount &+= count
      statistics.cachedBytes &+= count &<< (UInt64(kind.order) &+ shift)
      statistics.cacheAllocations &+= rack.allocations
      statistics.cacheFrees &+= rack.frees
    }
    unsafe fill(&statistics, from: &store.pointee)
    return statistics
  }

  @_optimize(size)
  private func fill(_ statistics: inout Statistics, from store: inout IOVAStore) {
    // What was freed twice is cached twice, until the store finds out.
    let taken = UInt64(store.allocatedCount)
    statistics.cachedCount = min(statistics.cachedCount, taken)
    statistics.allocatedCount = taken &- statistics.cachedCount
    statistics.reservedCount = UInt64(store.reservedCount)
    // Modulo 2^64 throughout: of a space of 2^64 bytes the sums are 0 both when they are nothing and
    // when they are everything, and the counts tell which.
    if statistics.cachedCount == 0 { statistics.cachedBytes = 0 }
    let allocated = store.allocatedBytes &- statistics.cachedBytes
    statistics.allocatedBytes = saturated(allocated, isAll: statistics.allocatedCount != 0)
    statistics.reservedBytes = saturated(store.reservedBytes, isAll: store.reservedCount != 0)
    statistics.freeBytes = saturated(
      bounds.extent &+ 1 &- allocated &- store.reservedBytes,
      isAll: statistics.allocatedCount == 0 && store.reservedCount == 0)
    statistics.largestFreeBytes = bytes(
      store.tree.longestGap(from: store.tree.first, to: store.tree.last))
    statistics.takenCountMax = UInt64(store.takenCountMax)
    statistics.takenBytesMax = store.takenBytesMax
    statistics.cacheAllocations &+= store.cacheAllocations
    statistics.cacheFrees &+= store.cacheFrees
    statistics.storeAllocations = store.allocations
    statistics.storeFrees = store.frees
    statistics.refusedFrees = store.refusedFrees &+ refusedOutside.load(ordering: .relaxed)
    statistics.drains = store.drains
    statistics.searchedGaps = store.tree.searchedGaps
    statistics.metadataBytes = UInt64(
      store.tree.byteCount + store.magazineCount * IOVAMagazine.size + caches.byteCount)
  }

  /// `bytes`, but the largest number where it stands for 2^64 bytes, which are 0 modulo 2^64.
  private func saturated(_ bytes: UInt64, isAll: Bool) -> UInt64 {
    bytes == 0 && isAll ? UInt64.max : bytes
  }

  /// The bytes of so many granules, where the largest number stands for 2^64 too.
  private func bytes(_ granules: UInt64) -> UInt64 {
    granules > UInt64.max &>> shift ? UInt64.max : granules &<< shift
  }

  /// The bytes of the longest free range within a range, where the largest number stands for 2^64
  /// too. What is cached is not free here.
  public func largestFree(in range: IOVARange) -> UInt64 {
    guard
      let (lowest, highest) = granules(from: range.first.rawValue, to: range.last.rawValue)
    else { return 0 }
    lockStore()
    defer { unlockStore() }
    return bytes(unsafe store.pointee.tree.longestGap(from: lowest, to: highest))
  }

  /// What a range is used for. The values are those of `iova.h`.
  public enum Use: UInt32 {
    case free = 0
    case allocated = 1
    case reserved = 2
  }

  /// The range that an address lies in, as far as it reaches up from there; `address` is in the
  /// space.
  ///
  /// Free granules and a range in use end where another begins. A cached range is allocated here.
  @inline(never)
  @_optimize(size)
  public func use(at address: IOVA) -> (range: IOVARange, use: Use) {
    lockStore()
    defer { unlockStore() }
    let (last, use) = unsafe store.pointee.tree.use(at: address.rawValue &>> shift)
    let end = last &<< shift | granule.mask
    // An address of the space is not above the last one of its own range.
    guard let range = try? IOVARange(first: address, last: IOVA(end)) else {
      preconditionFailure("A range ends before an address in it.")
    }
    return (range, use)
  }

  // MARK: - Wrong frees

  /// Reports frees that were refused. Called under no lock.
  @_optimize(size)
  func report(_ refusals: IOVAStore.Refusals) {
    for index in 0..<refusals.count {
      let refusal = refusals[index]
      reportRefusal(refusal.first, refusal.size)
    }
    guard refusals.lost > 0 else { return }
    report { text in
      text.append(decimal: refusals.lost)
      text.append(" more frees of ranges that are not allocated were refused at the same time")
    }
  }

  @_optimize(size)
  func reportRefusal(_ first: UInt64, _ bytes: UInt64) {
    report { text in
      text.append("free of ")
      text.append(hexadecimal: first)
      text.append(", ")
      text.append(decimal: bytes)
      text.append(" bytes: no range is allocated that starts there and has this size")
    }
  }

  @_optimize(size)
  @inline(never)
  private func report(_ write: (inout TextBuffer) -> Void) {
    unsafe reporter.report(.error, .invalidArgument, object: "IOVA space", write)
  }
}
