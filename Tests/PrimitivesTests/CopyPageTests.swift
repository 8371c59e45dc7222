// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform
import Glibc
import Testing

/// The ways to copy that this processor has.
private let ways = cplatform_copies_wide() ? [false, true] : [false]

@Suite("cplatform_copy_page")
struct CopyPageTests {
  /// Places that are aligned to 64, and such that one of them or both are not.
  private static let offsets = [(0, 0), (64, 128), (0, 8), (1, 0), (33, 33)]

  @Test(arguments: ways)
  func justTheBytesOfTheSizeAreCopied(isWide: Bool) {
    let room = 4096 + 256
    let places = (0..<3).map { _ in
      UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 64)
    }
    defer { for place in places { place.deallocate() } }
    let (from, to, expected) = (places[0], places[1], places[2])
    // No byte is 0 or as the one that is 256 behind it.
    from.copyMemory(from: (0..<room).map { UInt8($0 % 251 + 1) }, byteCount: room)
    for size in 0...4096 {
      for (source, target) in Self.offsets {
        memset(to, 0, room)
        memset(expected, 0, room)
        memcpy(expected + target, from + source, size)
        cplatform_copy_page(to + target, from + source, size, isWide)
        #expect(memcmp(to, expected, room) == 0, "\(size) bytes from \(source) to \(target)")
      }
    }
  }
}
