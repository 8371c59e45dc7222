// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import MemoryMap
import Primitives

extension View {
  /// Reads a range of the device's addresses.
  ///
  /// - Throws: a refusal, after it has been made a fault; `notSupported`; what a callback fails with.
  public func read(
    _ range: DMARange, into buffer: UnsafeMutableRawPointer
  ) throws(Failure) {
    try unsafe transfer(range, .read(into: buffer))
  }

  /// Writes a range of the device's addresses.
  ///
  /// - Throws: a refusal, after it has been made a fault; `notSupported`; what a callback fails with.
  public func write(_ range: DMARange, from buffer: UnsafeRawPointer) throws(Failure) {
    try unsafe transfer(range, .write(from: buffer))
  }

  private func transfer(_ range: DMARange, _ transfer: MemoryTransfer) throws(Failure) {
    if moveAtOnce(range, transfer) { return }
    try forEachRun(of: range, transfer.access) { (_, _) throws(Failure) in }
    var address = range.first.rawValue
    while true {
      let runLast = try move(from: address, through: range.last.rawValue, range, transfer)
      guard runLast < range.last.rawValue else { return }
      address = runLast &+ 1
    }
  }

  /// Moves the bytes of an access that one run of memory covers; or moves none.
  private func moveAtOnce(_ range: DMARange, _ transfer: MemoryTransfer) -> Bool {
    guard range.extent < Self.copySize else { return false }
    let token = unsafe device.pointee.system.pointee.readers.enter()
    defer { unsafe device.pointee.system.pointee.readers.leave(token) }
    let path = currentPath
    let found = step(
      from: range.first.rawValue, through: range.last.rawValue, transfer.access, by: path)
    guard case .memory(let host, _, let last, let noteOffset) = found,
      last == range.last.rawValue
    else {
      return false
    }
    unsafe transfer.copy(host, offset: 0, size: Int(range.extent) + 1)
    note(transfer, range.first.rawValue &+ noteOffset, last &+ noteOffset, by: path)
    return true
  }

  /// Lets the domain know what was written, once it is; a nested domain's parent, at its addresses.
  @inline(__always)
  private func note(
    _ transfer: MemoryTransfer, _ first: UInt64, _ last: UInt64, by path: DevicePath
  ) {
    guard case .write = transfer, let translation = unsafe path.noting else { return }
    unsafe translation.pointee.noteWrite(first, last)
  }

  /// The same outside of the section in which the addresses were found, and where they are to be noted;
  /// to another domain they mean nothing.
  @inline(never)
  private func noteLate(
    _ transfer: MemoryTransfer, _ first: UInt64, _ last: UInt64,
    in noting: UnsafeMutablePointer<Domain.Translation>?
  ) {
    let token = unsafe device.pointee.system.pointee.readers.enter()
    let path = currentPath
    if unsafe path.noting == noting { note(transfer, first, last, by: path) }
    unsafe device.pointee.system.pointee.readers.leave(token)
  }

  /// Moves the first run of what is left of an access and returns where it ends.
  private func move(
    from address: UInt64, through last: UInt64, _ range: DMARange, _ transfer: MemoryTransfer
  ) throws(Failure) -> UInt64 {
    // The buffer has the range's bytes, so that offsets and sizes fit a pointer's difference.
    let offset = Int(truncatingIfNeeded: address &- range.first.rawValue)
    let token = unsafe device.pointee.system.pointee.readers.enter()
    let boundedLast =
      last &- address < Self.copySize ? last : address &+ (Self.copySize &- 1)
    let path = currentPath
    switch step(from: address, through: boundedLast, transfer.access, by: path) {
    case .memory(let host, _, let runLast, let noteOffset):
      unsafe transfer.copy(host, offset: offset, size: Int(runLast &- address) + 1)
      note(transfer, address &+ noteOffset, runLast &+ noteOffset, by: path)
      unsafe device.pointee.system.pointee.readers.leave(token)
      return runLast
    case .callbacks(let region, let regionOffset, let runLast, let noteOffset):
      let isPinned = unsafe region.pointee.pin()
      let domain = unsafe isPinned ? nil : path.holdListener()
      let noting = unsafe path.noting
      unsafe device.pointee.system.pointee.readers.leave(token)
      guard isPinned else {
        throw unsafe refuse(
          .noMemory, first: address, known: runLast, last: last, transfer.access, by: domain)
      }
      defer {
        unsafe region.pointee.unpin()
        // Also what a callback that failed may have written.
        unsafe noteLate(transfer, address &+ noteOffset, runLast &+ noteOffset, in: noting)
      }
      try unsafe transfer.callBack(
        region, at: regionOffset, offset: offset, size: Int(runLast &- address) + 1)
      return runLast
    case .refused(let reason, let known):
      let domain = unsafe path.holdListener()
      unsafe device.pointee.system.pointee.readers.leave(token)
      throw unsafe refuse(
        reason, first: address, known: known, last: last, transfer.access, by: domain)
    case .unknown:
      unsafe device.pointee.system.pointee.readers.leave(token)
      throw .notSupported
    }
  }
}
