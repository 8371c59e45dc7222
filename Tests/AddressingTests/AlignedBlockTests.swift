// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import TestSupport
import Testing

@Suite("AlignedBlock")
struct AlignedBlockTests {
  /// Every block of a small world, by trying all powers of two.
  @Test func theBlockIsTheLargestThatFits() throws {
    try withEvery("first", in: UInt64(0)...17) { first in
      try withEvery("last", in: first...17) { last in
        try withEvery("address", in: first...last) { address in
          try withEvery("offset", in: UInt64(0)...9) { offset in
            let fitting = [16, 8, 4, 2, 1].map { UInt64($0) }.first { size in
              let start = address / size * size
              return start >= first && start + size - 1 <= last && offset % size == 0
            }
            let mask = AlignedBlock.mask(around: address, within: first, last, offset: offset)
            try demandSame(mask, fitting! - 1, "mask")
          }
        }
      }
    }
  }

  @Test func allAddressesAreABlock() {
    #expect(
      AlignedBlock.mask(around: 5, within: 0, UInt64.max, offset: 0) == UInt64.max)
    #expect(
      AlignedBlock.mask(around: 5, within: 0, UInt64.max - 1, offset: 0) == UInt64.max >> 1)
    #expect(
      AlignedBlock.mask(around: UInt64.max, within: 1, UInt64.max, offset: 0) == UInt64.max >> 1)
    #expect(
      AlignedBlock.mask(around: UInt64.max, within: UInt64.max, UInt64.max, offset: 0) == 0)
  }

  @Test func anOffsetIsOneModuloAllAddresses() {
    // Memory above the input, so that the difference wraps.
    let offset = UInt64(0x1000) &- 0x5000
    #expect(AlignedBlock.mask(around: 0, within: 0, UInt64.max, offset: offset) == 0x3FFF)
    let highest = UInt64(1) << 63
    #expect(
      AlignedBlock.mask(around: 0, within: 0, UInt64.max, offset: highest) == highest - 1)
  }
}
