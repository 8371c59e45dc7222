// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import PageTables
import Primitives
import Synchronization

// What devices have written, as the domain's page table notes it.

extension Domain {
  /// The translation of a domain whose table, or backend, notes writes.
  ///
  /// - Throws: `notSupported`.
  private func trackable() throws(Failure) -> UnsafeMutablePointer<Translation> {
    guard let translation = unsafe translation,
      unsafe translation.pointee.table.notesDirty || backend.tracksDirty
    else { throw .notSupported }
    return unsafe translation
  }

  /// Starts noting what devices write, with nothing noted; or stops.
  ///
  /// - Throws: `notSupported`, and what the backend fails with.
  public func setDirtyTracking(_ isOn: Bool) throws(Failure) {
    let translation = unsafe try trackable()
    // Relaxed: who must see it waits for readers.
    guard unsafe translation.pointee.tracksDirty.load(ordering: .relaxed) != isOn else { return }
    try backend.setDirtyTracking(isOn)
    unsafe translation.pointee.tracksDirty.store(isOn, ordering: .relaxed)
    if isOn, unsafe translation.pointee.table.notesDirty {
      try readingTable { () throws(Failure) in try unsafe translation.pointee.table.clearDirty() }
    }
    // A write that did not see it has ended.
    settle()
  }

  /// Sets a bit for each granule that was written, as `AnyPageTable.readDirty`. What zero-copy mappings
  /// hold for writing counts too.
  ///
  /// - Throws: as there, and what the backend fails with.
  public func readDirty(
    _ range: IOVARange, into bitmap: UnsafeMutablePointer<UInt64>, clearing: Bool
  ) throws(Failure) {
    let translation = unsafe try trackable()
    try unsafe translation.pointee.table.check(range)
    // First what may fail with nothing changed.
    unsafe try backend.readDirty(range, into: bitmap, clearing: clearing)
    if unsafe translation.pointee.table.notesDirty {
      try readingTable { () throws(Failure) in
        try unsafe translation.pointee.table.readDirty(range, into: bitmap, clearing: clearing)
      }
    }
    let start = range.first.rawValue
    var next = start
    while let held = pins.firstWritten(from: next, through: range.last.rawValue) {
      unsafe translation.pointee.table.mark(
        held.first &- start, held.last &- start, in: bitmap)
      guard held.last < range.last.rawValue else { break }
      next = held.last &+ 1
    }
    // A write that found its leaf written through before it was cleared has ended, so that the memory
    // has all that the bits stand for.
    if clearing { settle(start, range.last.rawValue) }
  }

  /// Walks tables that nobody may free meanwhile.
  private func readingTable(_ body: () throws(Failure) -> Void) throws(Failure) {
    let token = unsafe iommu.pointee.system.pointee.readers.enter()
    defer { unsafe iommu.pointee.system.pointee.readers.leave(token) }
    try body()
  }
}

extension Domain.Translation {
  /// Notes a write of a device, if writes are noted. The caller is inside the read section in which it
  /// found what is mapped there and wrote.
  @inline(__always)
  public func noteWrite(_ first: UInt64, _ last: UInt64) {
    if tracksDirty.load(ordering: .relaxed) { note(first, last) }
  }

  @inline(never)
  private func note(_ first: UInt64, _ last: UInt64) {
    guard table.notesDirty, let range = try? IOVARange(first: IOVA(first), last: IOVA(last)) else {
      return
    }
    // It fails for no write that the table has led. A callback may have ended the domain of one, and this
    // may have been made where that was: then the table may be too narrow.
    try? table.setDirty(range.rounded(to: table.facts.granule), true)
  }
}
