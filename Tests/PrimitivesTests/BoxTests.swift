// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import Testing

@Suite("Box")
struct BoxTests {
  @Test func aPlacedValueStaysWhereItIs() throws {
    let cell = try Box<Int>.place { () throws(Failure) in 17 }
    #expect(cell.pointee == 17)
    Box.destroy(cell)
  }

  @Test func destroyingEndsTheValue() throws {
    final class Witness {}
    var witness: Witness? = Witness()
    weak let observer = witness
    let cell = try Box<Witness>.place { () throws(Failure) in witness! }
    witness = nil
    #expect(observer != nil)
    Box.destroy(cell)
    #expect(observer == nil)
  }

  /// The address sanitizer sees the cell if it is not freed.
  @Test func aValueThatCannotBeMadeIsThePlacesFailure() {
    #expect(throws: Failure.busy) {
      _ = try Box<Int>.place { () throws(Failure) in throw .busy }
    }
  }

  @Test func aCellIsAlignedForItsValue() throws {
    let cell = try Box<SIMD8<UInt64>>.place { () throws(Failure) in SIMD8(repeating: 1) }
    #expect(UInt(bitPattern: cell) % UInt(MemoryLayout<SIMD8<UInt64>>.alignment) == 0)
    Box.destroy(cell)
    let small = try Box<UInt8>.place { () throws(Failure) in 1 }
    #expect(UInt(bitPattern: small) % 8 == 0)
    Box.destroy(small)
  }
}
