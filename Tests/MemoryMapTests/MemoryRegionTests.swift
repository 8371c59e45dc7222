// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Foundation
import Primitives
import Testing

@testable import MemoryMap

@Suite("MemoryRegion")
struct MemoryRegionTests {
  private func describe(
    _ size: UInt64, isReadOnly: Bool = false, _ backing: MemoryRegionDescription.Backing
  ) throws(Failure) -> MemoryRegionDescription {
    try MemoryRegionDescription(
      range: PhysicalRange(first: PhysicalAddress(0), size: size), isReadOnly: isReadOnly,
      backing: backing)
  }

  // MARK: - Descriptions

  @Test func theHostAddressesOfARegionDoNotWrap() throws {
    let last = pointer(UInt64.max)
    _ = try describe(1, .host(last))
    #expect(throws: Failure.invalidArgument) { try describe(2, .host(last)) }
    #expect(throws: Failure.invalidArgument) { try describe(UInt64.max, .host(pointer(2))) }
  }

  @Test func aFileStartsAtAPageAndEndsWithinWhatOffsetsCount() throws {
    _ = try describe(1, .file(descriptor: 0, offset: 4096))
    let limit = UInt64(Int64.max)
    for (size, offset) in [(1, 1), (1, 2048), (limit + 1, 0), (8192, limit - 4095)]
      as [(UInt64, UInt64)]
    {
      #expect(throws: Failure.invalidArgument) {
        try describe(size, .file(descriptor: 0, offset: offset))
      }
    }
    _ = try describe(4095, .file(descriptor: 0, offset: limit - 4095))
  }

  @Test func whoMayBeWrittenHasAWriteCallback() throws {
    let backing = MemoryRegionDescription.Backing.callbacks(
      read: { _, _, _, _ in 0 }, write: nil, opaque: nil)
    #expect(throws: Failure.invalidArgument) { try describe(1, backing) }
    _ = try describe(1, isReadOnly: true, backing)
  }

  // MARK: - Files

  @Test func aFileIsMappedShared() throws {
    let file = try #require(tmpfile())
    defer { fclose(file) }
    #expect(ftruncate(fileno(file), 8192) == 0)
    #expect(pwrite(fileno(file), "abcd", 4, 4096) == 4)
    let region = try MemoryRegion(
      try describe(100, .file(descriptor: fileno(file), offset: 4096)), number: 1)
    let mapped = region.host
    let host = try #require(mapped)
    #expect(memcmp(host, "abcd", 4) == 0)
    memcpy(host, "wxyz", 4)
    var bytes = [UInt8](repeating: 0, count: 4)
    #expect(pread(fileno(file), &bytes, 4, 4096) == 4)
    #expect(bytes == Array("wxyz".utf8))
  }

  @Test func whatIsNoFileIsRefused() throws {
    let description = try describe(1, .file(descriptor: -1, offset: 0))
    let map = try Map()
    #expect(throws: Failure(code: EBADF)) {
      try map.memory.add(description, readers: map.readers)
    }
    #expect(map.base(at: 0) == nil)
  }

  // MARK: - Pins

  @Test func aPinnedRegionIsNotRemoved() throws {
    let map = try Map()
    try map.add(0x1000, size: 0x1000, failingCallbacks)
    let region = try #require(map.look(0x1000) { region, _ in region })
    let pins = [region.pointee.pin(), region.pointee.pin()]
    #expect(pins == [true, true])
    for _ in pins {
      #expect(throws: Failure.busy) { try map.remove(0x1000, size: 0x1000) }
      #expect(map.base(at: 0x1000) == 0x1000)
      region.pointee.unpin()
    }
    try map.remove(0x1000, size: 0x1000)
  }

  @Test func aClosedRegionIsNotPinned() throws {
    let region = try MemoryRegion(try describe(1, failingCallbacks), number: 1)
    let isClosed = region.close()
    let isPinned = region.pin()
    let isClosedAgain = region.close()
    #expect(isClosed)
    #expect(!isPinned)
    #expect(!isClosedAgain)
  }

  // MARK: - Callbacks

  /// What a callback was called with, and what it returns.
  private final class Port {
    var result: CInt = 0
    var offset: UInt64 = 0
    var size = 0
    var bytes: [UInt8] = []

    static func from(_ opaque: UnsafeMutableRawPointer?) -> Port {
      Unmanaged<Port>.fromOpaque(opaque!).takeUnretainedValue()
    }

    var backing: MemoryRegionDescription.Backing {
      .callbacks(
        read: { offset, buffer, size, opaque in
          let port = Port.from(opaque)
          (port.offset, port.size) = (offset, size)
          memset(buffer!, 0x5a, size)
          return port.result
        },
        write: { offset, buffer, size, opaque in
          let port = Port.from(opaque)
          (port.offset, port.size) = (offset, size)
          port.bytes = Array(UnsafeRawBufferPointer(start: buffer!, count: size))
          return port.result
        }, opaque: Unmanaged.passUnretained(self).toOpaque())
    }
  }

  @Test func callbacksGetWhatTheAccessIs() throws {
    let port = Port()
    let region = try MemoryRegion(try describe(0x1000, port.backing), number: 1)
    var bytes: [UInt8] = [1, 2, 3]
    try region.write(offset: 0x10, from: bytes, size: 3)
    #expect(port.offset == 0x10)
    #expect(port.bytes == [1, 2, 3])
    try region.read(offset: 0xffe, into: &bytes, size: 2)
    #expect(port.offset == 0xffe)
    #expect(port.size == 2)
    #expect(bytes == [0x5a, 0x5a, 3])
    let host = region.host
    #expect(host == nil)
  }

  @Test(
    arguments: [
      (-1, 1), (-EFAULT, EFAULT), (-4095, 4095), (1, EIO), (CInt.max, EIO), (CInt.min, EIO),
    ] as [(CInt, CInt)])
  func aCallbackFailsWithAnyValueButZero(result: CInt, code: CInt) throws {
    let port = Port()
    port.result = result
    let map = try Map()
    try map.add(0, size: 0x1000, port.backing)
    let region = try #require(map.look(0) { region, _ in region })
    var byte: UInt8 = 0
    #expect(throws: Failure(code: code)) {
      try region.pointee.read(offset: 0, into: &byte, size: 1)
    }
    #expect(throws: Failure(code: code)) {
      try region.pointee.write(offset: 0, from: &byte, size: 1)
    }
  }

  @Test func whatHasNoCallbackRefuses() throws {
    let map = try Map()
    var byte: UInt8 = 0
    try map.add(0, size: 1, .host(pointer(0x1000)))
    let region = try #require(map.look(0) { region, _ in region })
    #expect(throws: Failure.notSupported) {
      try region.pointee.read(offset: 0, into: &byte, size: 1)
    }
    #expect(throws: Failure.accessDenied) {
      try region.pointee.write(offset: 0, from: &byte, size: 1)
    }
  }
}
