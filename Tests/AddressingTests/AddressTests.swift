// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Testing

@Suite("Address")
struct AddressTests {
  @Test func addressesAreOrderedAsNumbersWithoutASign() {
    #expect(IOVA(0) < IOVA(1))
    #expect(IOVA(1 << 63) < IOVA(UInt64.max))
    #expect(PhysicalAddress(5) == PhysicalAddress(5))
    #expect(DMAAddress(1 << 62) < DMAAddress(1 << 63))
  }

  @Test func anAlignedAddressIsAMultiple() {
    let granule = Granule(shift: 12)
    #expect(IOVA(0).isAligned(to: granule))
    #expect(IOVA(0x3000).isAligned(to: granule))
    #expect(!IOVA(0x3001).isAligned(to: granule))
    #expect(!IOVA(0x2800).isAligned(to: granule))
    #expect(!IOVA(UInt64.max).isAligned(to: granule))
    #expect(IOVA(UInt64.max).isAligned(to: Granule(shift: 0)))
  }
}

@Suite("Granule")
struct GranuleTests {
  @Test(arguments: 0..<64)
  func aGranuleIsAPowerOfTwo(_ shift: Int) {
    let granule = Granule(shift: shift)
    #expect(granule.bytes == UInt64(1) << UInt64(shift))
    #expect(granule.mask == granule.bytes - 1)
    #expect(Granule(bytes: granule.bytes) == granule)
  }

  @Test(arguments: [0, 3, 4097, 6144, (UInt64(1) << 63) + 1, UInt64.max])
  func otherNumbersAreNone(_ bytes: UInt64) {
    #expect(Granule(bytes: bytes) == nil)
  }

  @Test func aShiftOutsideOfAWordTraps() async {
    await #expect(processExitsWith: .failure) { _ = Granule(shift: 64) }
    await #expect(processExitsWith: .failure) { _ = Granule(shift: -1) }
  }
}
