// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

@testable import TestSupport

@Suite("SeededGenerator")
struct SeededGeneratorTests {
  @Test func theSameSeedGivesTheSameNumbers() {
    var one = SeededGenerator(seed: 7)
    var other = SeededGenerator(seed: 7)
    #expect((0..<100).map { _ in one.next() } == (0..<100).map { _ in other.next() })
  }

  @Test func seedsDiffer() {
    var one = SeededGenerator(seed: 7)
    var other = SeededGenerator(seed: 8)
    #expect(one.next() != other.next())
  }

  @Test func zeroGivesThePublishedSequence() {
    var generator = SeededGenerator(seed: 0)
    #expect(generator.next() == 0xE220_A839_7B1D_CDAF)
    #expect(generator.next() == 0x6E78_9E6A_A1B9_65F4)
  }

  @Test func numbersStayBelowTheirBoundAndReachAllOfThem() {
    var generator = SeededGenerator(seed: 1)
    let numbers = Set((0..<200).map { _ in generator.below(5) })
    #expect(numbers == [0, 1, 2, 3, 4])
  }

  @Test func aSeedIsDecimalOrHexadecimal() {
    #expect(RunSettings.parse("17") == 17)
    #expect(RunSettings.parse("0xffffffffffffffff") == UInt64.max)
    #expect(RunSettings.parse("seventeen") == nil)
  }
}
