// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport
import Testing

@Suite("AddressRange")
struct AddressRangeTests {
  private func range(_ first: UInt64, _ last: UInt64) throws -> IOVARange {
    try IOVARange(first: IOVA(first), last: IOVA(last))
  }

  @Test func aSizeOfZeroIsRefused() {
    #expect(throws: Failure.invalidArgument) { try IOVARange(first: IOVA(5), size: 0) }
    #expect(throws: Failure.invalidArgument) {
      try IOVARange(first: IOVA(5), size: 0, wrap: .outOfRange)
    }
  }

  @Test func aRangeThatWrapsIsTheFailureThatIsAskedFor() {
    #expect(throws: Failure.invalidArgument) { try IOVARange(first: IOVA(2), size: UInt64.max) }
    #expect(throws: Never.self) { try IOVARange(first: IOVA(1), size: UInt64.max) }
    #expect(throws: Failure.outOfRange) {
      try IOVARange(first: IOVA(UInt64.max), size: 2, wrap: .outOfRange)
    }
  }

  @Test func endsTheWrongWayRoundAreRefused() {
    #expect(throws: Failure.invalidArgument) { try self.range(6, 5) }
  }

  @Test func aRangeMayEndAtTheLastAddress() throws {
    let one = try IOVARange(first: IOVA(UInt64.max), size: 1)
    #expect(one.last == IOVA(UInt64.max))
    #expect(one.extent == 0)
    let all = try IOVARange(first: IOVA(0), size: UInt64.max)
    #expect(all.last == IOVA(UInt64.max - 1))
    #expect(try range(0, UInt64.max).extent == UInt64.max)
  }

  /// Every pair of ranges of a small world, by what sets of numbers say.
  @Test func containingAndOverlappingAreThoseOfSets() throws {
    try withEvery("first", in: UInt64(0)...3) { first in
      try withEvery("last", in: first...3) { last in
        try withEvery("other first", in: UInt64(0)...3) { otherFirst in
          try withEvery("other last", in: otherFirst...3) { otherLast in
            let (one, other) = (try range(first, last), try range(otherFirst, otherLast))
            let (numbers, others) = (Set(first...last), Set(otherFirst...otherLast))
            try demandSame(one.contains(other), numbers.isSuperset(of: others), "contains")
            try demandSame(one.overlaps(other), !numbers.isDisjoint(with: others), "overlaps")
          }
        }
      }
    }
  }

  @Test func anAlignedRangeIsWholeGranules() throws {
    let granule = Granule(shift: 2)
    try withEvery("first", in: UInt64(0)...9) { first in
      try withEvery("last", in: first...9) { last in
        let isWhole = first % 4 == 0 && (last + 1) % 4 == 0
        try demandSame(try range(first, last).isAligned(to: granule), isWhole, "isAligned")
      }
    }
    #expect(try range(0, UInt64.max).isAligned(to: Granule(shift: 63)))
    #expect(try !range(1 << 62, UInt64.max).isAligned(to: Granule(shift: 63)))
  }

  @Test func roundingTakesInTheGranulesThatAreTouched() throws {
    let granule = Granule(shift: 2)
    try withEvery("first", in: UInt64(0)...9) { first in
      try withEvery("last", in: first...9) { last in
        let rounded = try range(first, last).rounded(to: granule)
        try demandSame(rounded, try range(first / 4 * 4, last / 4 * 4 + 3), "rounded")
      }
    }
    let top = try range(UInt64.max - 5, UInt64.max - 5).rounded(to: Granule(shift: 12))
    #expect(top.last == IOVA(UInt64.max))
  }
}
