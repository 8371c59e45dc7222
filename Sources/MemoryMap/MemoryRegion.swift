// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import CPlatform
import Primitives
import Synchronization

/// What a memory region is made from, checked.
@safe
public struct MemoryRegionDescription {
  @safe
  public enum Backing {
    case host(UnsafeMutableRawPointer)
    case file(descriptor: CInt, offset: UInt64)
    case callbacks(
      read: dmacore_memory_read_fn, write: dmacore_memory_write_fn?,
      opaque: UnsafeMutableRawPointer?)
  }

  let range: PhysicalRange
  let isReadOnly: Bool
  let backing: Backing

  /// - Throws: `invalidArgument` when something is missing or a range wraps.
  public init(range: PhysicalRange, isReadOnly: Bool, backing: Backing) throws(Failure) {
    switch backing {
    case .host(let host):
      let first = UInt64(UInt(bitPattern: host))
      guard !first.addingReportingOverflow(range.extent).overflow else { throw .invalidArgument }
    case .file(_, let offset):
      let pageSize = UInt64(cplatform_page_size())
      // The host's size type holds the region, and its file offset type, signed, the region's end.
      guard offset % pageSize == 0, range.extent < UInt64(Int64.max),
        offset <= UInt64(Int64.max) - range.extent - 1
      else { throw .invalidArgument }
    case .callbacks(_, let write, _):
      guard unsafe isReadOnly || write != nil else { throw .invalidArgument }
    }
    self.range = range
    self.isReadOnly = isReadOnly
    self.backing = backing
  }
}

/// A range of physical memory and what backs it.
///
/// It lies in a heap cell, found through the map's snapshots. A pin keeps it there.
@safe
public struct MemoryRegion: ~Copyable {
  public let range: PhysicalRange
  public let isReadOnly: Bool
  /// The bytes, unless callbacks serve them.
  public let host: UnsafeMutableRawPointer?
  /// Which of all regions that were ever added it is, from 1 on.
  public let number: UInt64
  private let isMappedHere: Bool
  private let read: dmacore_memory_read_fn?
  private let write: dmacore_memory_write_fn?
  private let opaque: UnsafeMutableRawPointer?
  // Number of pins; or `closed`, when the region is being removed and cannot be pinned.
  private let pins = Atomic<Int>(0)
  private static var closed: Int { Int.min }

  /// - Throws: what mapping the file fails with.
  init(_ description: MemoryRegionDescription, number: UInt64) throws(Failure) {
    var host: UnsafeMutableRawPointer? = nil
    var read: dmacore_memory_read_fn? = nil
    var write: dmacore_memory_write_fn? = nil
    var opaque: UnsafeMutableRawPointer? = nil
    var isMappedHere = false
    switch description.backing {
    case .host(let pointer):
      unsafe host = pointer
    case .file(let descriptor, let offset):
      // The description's initializer saw to it that the size fits.
      let error = unsafe cplatform_map_file(
        descriptor, offset, Int(description.range.extent) + 1, !description.isReadOnly, &host)
      guard error == 0 else { throw Failure(code: error) }
      isMappedHere = true
    case .callbacks(let readCallback, let writeCallback, let callbackOpaque):
      unsafe read = readCallback
      unsafe write = writeCallback
      unsafe opaque = callbackOpaque
    }
    self.number = number
    range = description.range
    isReadOnly = description.isReadOnly
    unsafe self.host = host
    self.isMappedHere = isMappedHere
    unsafe self.read = read
    unsafe self.write = write
    unsafe self.opaque = opaque
  }

  deinit {
    if isMappedHere, let host = unsafe host { unsafe cplatform_unmap(host, Int(range.extent) + 1) }
  }

  /// The addresses in this process, for a region that has them.
  var hostFirst: UInt64? { unsafe host.map { UInt64(UInt(bitPattern: $0)) } }

  // MARK: - Pins

  /// Keeps the region from being removed. Called in a read section that found the region.
  ///
  /// Returns false when it is being removed already.
  public func pin() -> Bool {
    var count = pins.load(ordering: .relaxed)
    while count != Self.closed {
      let (done, now) = pins.weakCompareExchange(
        expected: count, desired: count + 1, ordering: .acquiring)
      if done { return true }
      count = now
    }
    return false
  }

  public func unpin() {
    // Releasing: pairs with the acquire in close, so that the last access is over by then.
    pins.wrappingSubtract(1, ordering: .releasing)
  }

  /// Makes the region one that cannot be pinned, unless it is.
  func close() -> Bool {
    pins.compareExchange(expected: 0, desired: Self.closed, ordering: .acquiring).exchanged
  }

  // MARK: - Callbacks

  /// Reads by the region's callback; the region is pinned, and no read section is open.
  ///
  /// - Throws: what the callback fails with.
  public func read(
    offset: UInt64, into buffer: UnsafeMutableRawPointer, size: Int
  ) throws(Failure) {
    guard let read = unsafe read else { throw .notSupported }
    ThreadRules.willCallBack()
    try Failure.check(unsafe read(offset, buffer, size, opaque))
  }

  public func write(
    offset: UInt64, from buffer: UnsafeRawPointer, size: Int
  ) throws(Failure) {
    guard let write = unsafe write else { throw .accessDenied }
    ThreadRules.willCallBack()
    try Failure.check(unsafe write(offset, buffer, size, opaque))
  }
}
