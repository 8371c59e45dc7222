// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import MemoryMap
import Primitives
import Testing

@Suite("PhysicalMemory")
struct PhysicalMemoryTests {
  private let host = UInt64(0x7000_0000)

  @Test func anEmptyMemoryIsOneHole() throws {
    let map = try Map()
    #expect(map.holeLast(at: 0) == UInt64.max)
    #expect(map.holeLast(at: UInt64.max) == UInt64.max)
    #expect(throws: Failure.badAddress) { try map.host(of: 0, size: 1) }
    #expect(throws: Failure.badAddress) { try map.physical(of: host, size: 1) }
    #expect(throws: Failure.notFound) { try map.remove(0, size: 1) }
  }

  @Test func aRegionIsFoundFromItsFirstToItsLastByte() throws {
    let map = try Map()
    try map.add(0x1000, size: 0x234, .host(pointer(host)))
    #expect(map.base(at: 0xfff) == nil)
    #expect(map.base(at: 0x1000) == 0x1000)
    #expect(map.base(at: 0x1233) == 0x1000)
    #expect(map.base(at: 0x1234) == nil)
  }

  @Test func aHoleEndsBeforeTheNextRegion() throws {
    let map = try Map()
    try map.add(0x1000, size: 0x1000, .host(pointer(host)))
    try map.add(0x8000, size: 0x1000, failingCallbacks)
    #expect(map.holeLast(at: 0) == 0xfff)
    #expect(map.holeLast(at: 0x2000) == 0x7fff)
    #expect(map.holeLast(at: 0x7fff) == 0x7fff)
    #expect(map.holeLast(at: 0x9000) == UInt64.max)
    try map.remove(0x8000, size: 0x1000)
    #expect(map.holeLast(at: 0x2000) == UInt64.max)
  }

  @Test func aRegionMayEndWithTheSpace() throws {
    let map = try Map()
    let base = UInt64.max - 0xfff
    try map.add(base, size: 0x1000, .host(pointer(host)))
    #expect(map.base(at: UInt64.max) == base)
    #expect(map.holeLast(at: 0) == base - 1)
    #expect(try map.host(of: UInt64.max, size: 1) == host + 0xfff)
    #expect(try map.physical(of: host + 0xfff, size: 1) == UInt64.max)
    #expect(throws: Failure.invalidArgument) { try map.host(of: UInt64.max, size: 2) }
    #expect(throws: Failure.badAddress) { try map.physical(of: host + 0xfff, size: 2) }
    try map.remove(base, size: 0x1000)
    #expect(map.holeLast(at: UInt64.max) == UInt64.max)
  }

  @Test func aRegionMayBeTheWholeSpace() throws {
    let map = try Map()
    let whole = try MemoryRegionDescription(
      range: .init(first: .init(0), last: .init(UInt64.max)), isReadOnly: false,
      backing: failingCallbacks)
    try map.memory.add(whole, readers: map.readers)
    #expect(map.base(at: 0) == 0)
    #expect(map.base(at: UInt64.max) == 0)
    #expect(throws: Failure.exists) { try map.add(0x1000, size: 1, failingCallbacks) }
  }

  @Test(
    arguments: [
      (0x0fff, 2), (0x1000, 1), (0x1000, 0x1000), (0x1800, 0x10), (0x1fff, 0x1000), (0, 0x10000),
    ] as [(UInt64, UInt64)])
  func physicalAddressesOfRegionsDoNotOverlap(base: UInt64, size: UInt64) throws {
    let map = try Map()
    try map.add(0x1000, size: 0x1000, .host(pointer(host)))
    #expect(throws: Failure.exists) { try map.add(base, size: size, failingCallbacks) }
    #expect(map.holeLast(at: 0x2000) == UInt64.max)
    #expect(map.base(at: 0x1000) == 0x1000)
  }

  @Test func hostAddressesOfRegionsDoNotOverlap() throws {
    let map = try Map()
    try map.add(0x1000, size: 0x1000, .host(pointer(host)))
    for other in [host - 0xfff, host, host + 0xfff] {
      #expect(throws: Failure.exists) {
        try map.add(0x10000, size: 0x1000, .host(pointer(other)))
      }
    }
    try map.add(0x10000, size: 0x1000, .host(pointer(host + 0x1000)))
    try map.add(0x20000, size: 0x1000, .host(pointer(host - 0x1000)))
    // Addresses that touch in the process are still those of two regions.
    #expect(throws: Failure.badAddress) { try map.physical(of: host + 0xfff, size: 2) }
  }

  @Test func aRangeIsTranslatedInsideOneRegionOnly() throws {
    let map = try Map()
    try map.add(0x1000, size: 0x1000, .host(pointer(host)))
    try map.add(0x2000, size: 0x1000, .host(pointer(host + 0x1000)))
    #expect(try map.host(of: 0x1010, size: 0xff0) == host + 0x10)
    #expect(throws: Failure.badAddress) { try map.host(of: 0x1010, size: 0xff1) }
    #expect(throws: Failure.badAddress) { try map.host(of: 0xfff, size: 2) }
    #expect(throws: Failure.invalidArgument) { try map.host(of: 0x1000, size: 0) }
    #expect(throws: Failure.invalidArgument) { try map.physical(of: host, size: 0) }
    #expect(throws: Failure.invalidArgument) { try map.physical(of: UInt64.max, size: 2) }
  }

  @Test func whatCallbacksBackHasNoHostAddress() throws {
    let map = try Map()
    try map.add(0x1000, size: 0x1000, failingCallbacks)
    #expect(throws: Failure.notSupported) { try map.host(of: 0x1000, size: 1) }
    #expect(throws: Failure.badAddress) { try map.host(of: 0x1fff, size: 2) }
  }

  @Test func aRegionIsRemovedByItsExactRange() throws {
    let map = try Map()
    try map.add(0x1000, size: 0x1000, failingCallbacks)
    for (base, size) in [(0x1000, 0xfff), (0x1001, 0xfff), (0x1000, 0x1001)] as [(UInt64, UInt64)] {
      #expect(throws: Failure.notFound) { try map.remove(base, size: size) }
    }
    try map.remove(0x1000, size: 0x1000)
    #expect(throws: Failure.notFound) { try map.remove(0x1000, size: 0x1000) }
  }

  @Test func moreRegionsThanASnapshotStartsWithAreKept() throws {
    let map = try Map()
    let bases = (UInt64(0)..<40).map { ($0 * 17 % 40) << 12 }
    for base in bases { try map.add(base, size: 0x800, failingCallbacks) }
    for base in bases {
      #expect(map.base(at: base + 0x7ff) == base)
      #expect(map.base(at: base + 0x800) == nil)
    }
    for base in bases.dropLast() { try map.remove(base, size: 0x800) }
    #expect(map.base(at: bases.last!) == bases.last!)
  }

  @Test func aFlatMemoryIsThatOfTheProcess() throws {
    let map = try Map(isFlat: true)
    #expect(try map.host(of: host, size: 1) == host)
    #expect(try map.physical(of: host, size: 0x1000) == host)
    #expect(throws: Failure.badAddress) { try map.host(of: 0, size: 1) }
    #expect(throws: Failure.notSupported) { try map.add(0x1000, size: 1, failingCallbacks) }
    #expect(throws: Failure.notFound) { try map.remove(0x1000, size: 1) }
  }
}
