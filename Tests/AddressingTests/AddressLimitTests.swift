// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Testing

@Suite("AddressLimit")
struct AddressLimitTests {
  @Test func aDeviceWithoutAMaskHasNoLimitButAFailure() {
    #expect(throws: Failure.noMask) { try AddressLimit(mask: 0, busLimit: 0) }
    #expect(throws: Failure.noMask) { try AddressLimit(mask: 0, busLimit: 0xFFFF) }
  }

  @Test func theLowerOfMaskAndBusLimitCounts() throws {
    #expect(try AddressLimit(mask: 0xFFFF, busLimit: 0xFFF).highest == 0xFFF)
    #expect(try AddressLimit(mask: 0xFFF, busLimit: 0xFFFF).highest == 0xFFF)
  }

  @Test func aBusLimitOfZeroIsNone() throws {
    #expect(try AddressLimit(mask: UInt64.max, busLimit: 0).highest == UInt64.max)
  }
}
