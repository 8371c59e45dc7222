// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import MemoryMap
import Primitives

extension System {
  /// Copies between memory and a buffer of this process of the same size. What is not there reads as
  /// zeroes; what is not there, or may not be written, is not written.
  ///
  /// - Throws: what the callback of a region fails with.
  @_optimize(speed)
  public func copy(_ range: PhysicalRange, _ transfer: MemoryTransfer) throws(Failure) {
    guard memory.isFlat else { return try copyByRegion(range, transfer) }
    // SAFETY: in a flat memory a physical address is one of this process, and who maps memory says that
    // it is some.
    guard let host = unsafe UnsafeMutableRawPointer(bitPattern: UInt(range.first.rawValue)) else {
      return
    }
    // Memory is less than a pointer's difference.
    unsafe transfer.copy(host, offset: 0, size: Int(truncatingIfNeeded: range.extent &+ 1))
  }

  /// The most bytes that one read section copies: see `View.copySize`.
  private static var copySize: UInt64 { 64 << 10 }

  @inline(never)
  private func copyByRegion(_ range: PhysicalRange, _ transfer: MemoryTransfer) throws(Failure) {
    var next = range.first.rawValue
    while true {
      let last = try copyRun(
        next, through: range.last.rawValue,
        offset: Int(truncatingIfNeeded: next &- range.first.rawValue), transfer)
      guard last < range.last.rawValue else { return }
      next = last &+ 1
    }
  }

  /// Copies what one region has of a range, or a bounded part, and returns the last address.
  private func copyRun(
    _ first: UInt64, through rangeLast: UInt64, offset: Int, _ transfer: MemoryTransfer
  ) throws(Failure) -> UInt64 {
    let token = readers.enter()
    let (found, holeLast) = unsafe memory.find(PhysicalAddress(first))
    var last = rangeLast
    if let region = unsafe found {
      last = unsafe min(last, region.pointee.range.last.rawValue)
      let regionOffset = unsafe first &- region.pointee.range.first.rawValue
      if unsafe !region.pointee.isReadOnly || transfer.access == .read {
        if let host = unsafe region.pointee.host {
          last = min(last, first | (Self.copySize &- 1))
          unsafe transfer.copy(
            host + Int(truncatingIfNeeded: regionOffset), offset: offset,
            size: Int(truncatingIfNeeded: last &- first &+ 1))
          readers.leave(token)
          return last
        }
        if unsafe region.pointee.pin() {
          readers.leave(token)
          defer { unsafe region.pointee.unpin() }
          unsafe try transfer.callBack(
            region, at: regionOffset, offset: offset,
            size: Int(truncatingIfNeeded: last &- first &+ 1))
          return last
        }
      }
    } else {
      last = min(last, holeLast)
    }
    readers.leave(token)
    if case .read(let buffer) = transfer {
      unsafe RawMemory.clear(
        buffer + offset, size: Int(truncatingIfNeeded: last &- first &+ 1))
    }
    return last
  }
}
