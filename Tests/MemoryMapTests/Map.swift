// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import MemoryMap
import Primitives

/// A physical memory and its readers. Each look-up is a read section of its own.
final class Map: Sendable {
  let memory: PhysicalMemory
  let readers: ReadSections

  init(isFlat: Bool = false) throws {
    memory = try PhysicalMemory(isFlat: isFlat)
    readers = try ReadSections()
  }

  func add(
    _ base: UInt64, size: UInt64, isReadOnly: Bool = false,
    _ backing: MemoryRegionDescription.Backing
  ) throws(Failure) {
    let range = try PhysicalRange(first: PhysicalAddress(base), size: size)
    try memory.add(
      MemoryRegionDescription(range: range, isReadOnly: isReadOnly, backing: backing),
      readers: readers)
  }

  func remove(_ base: UInt64, size: UInt64) throws(Failure) {
    try memory.remove(
      PhysicalRange(first: PhysicalAddress(base), size: size), readers: readers)
  }

  /// What `body` makes of the region that an address lies in, inside the read section.
  func look<Result>(
    _ address: UInt64, _ body: (PhysicalMemory.Region?, _ holeLast: UInt64) throws -> Result
  ) rethrows -> Result {
    let token = readers.enter()
    defer { readers.leave(token) }
    let (region, holeLast) = memory.find(PhysicalAddress(address))
    return try body(region, holeLast)
  }

  func base(at address: UInt64) -> UInt64? {
    look(address) { region, _ in region?.pointee.range.first.rawValue }
  }

  /// The end of the hole that an address lies in, or nil inside a region.
  func holeLast(at address: UInt64) -> UInt64? {
    look(address) { region, holeLast in region == nil ? holeLast : nil }
  }

  func host(of base: UInt64, size: UInt64) throws(Failure) -> UInt64 {
    let range = try PhysicalRange(first: PhysicalAddress(base), size: size)
    return UInt64(UInt(bitPattern: try memory.host(of: range)))
  }

  func physical(of host: UInt64, size: UInt64) throws(Failure) -> UInt64 {
    try memory.range(of: pointer(host), size: size).first.rawValue
  }
}

/// A pointer that nobody follows, unless there is memory.
func pointer(_ address: UInt64) -> UnsafeMutableRawPointer {
  UnsafeMutableRawPointer(bitPattern: UInt(address))!
}

/// A backing by callbacks that fail.
var failingCallbacks: MemoryRegionDescription.Backing {
  .callbacks(read: { _, _, _, _ in -5 }, write: { _, _, _, _ in -5 }, opaque: nil)
}
