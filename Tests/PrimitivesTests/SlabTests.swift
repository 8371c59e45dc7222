// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import Testing

@Suite("Slab")
struct SlabTests {
  private struct Wide {
    var words: (UInt64, UInt64, UInt64) = (0, 0, 0)
  }

  @Test func anEmptySlabGivesNothing() {
    var slab = Slab<Wide>()
    #expect(slab.take() == nil)
  }

  @Test func aChunkIs63Cells() throws {
    var slab = Slab<Wide>()
    slab.add(try Slab<Wide>.makeChunk())
    for _ in 0..<63 { #expect(slab.take() != nil) }
    #expect(slab.take() == nil)
  }

  /// Each cell is written to its last byte and read back: overlapping cells would show.
  @Test func cellsNeitherOverlapNorAreGivenTwice() throws {
    var slab = Slab<Wide>()
    var cells: [UnsafeMutablePointer<Wide>] = []
    for _ in 0..<3 { slab.add(try Slab<Wide>.makeChunk()) }
    while let cell = slab.take() { cells.append(cell) }
    #expect(Set(cells).count == 3 * 63)
    for (index, cell) in cells.enumerated() {
      cell.initialize(to: Wide(words: (UInt64(index), UInt64(index), UInt64(index))))
    }
    for (index, cell) in cells.enumerated() {
      #expect(cell.pointee.words == (UInt64(index), UInt64(index), UInt64(index)))
    }
  }

  @Test func aCellGivenBackIsTakenAgain() throws {
    var slab = Slab<Wide>()
    slab.add(try Slab<Wide>.makeChunk())
    var cells: [UnsafeMutablePointer<Wide>] = []
    while let cell = slab.take() { cells.append(cell) }
    for cell in cells { slab.giveBack(cell) }
    var again: Set<UnsafeMutablePointer<Wide>> = []
    while let cell = slab.take() { again.insert(cell) }
    #expect(again == Set(cells))
  }

  @Test func cellsSmallerThanAPointerHaveRoomForTheFreeList() throws {
    var slab = Slab<UInt8>()
    slab.add(try Slab<UInt8>.makeChunk())
    var cells: [UnsafeMutablePointer<UInt8>] = []
    while let cell = slab.take() { cells.append(cell) }
    for (index, cell) in cells.enumerated() { cell.initialize(to: UInt8(index)) }
    #expect(cells.map(\.pointee) == (0..<63).map { UInt8($0) })
  }

  @Test func cellsAreAligned() throws {
    var slab = Slab<SIMD4<UInt64>>()
    slab.add(try Slab<SIMD4<UInt64>>.makeChunk())
    while let cell = slab.take() {
      #expect(UInt(bitPattern: cell) % UInt(MemoryLayout<SIMD4<UInt64>>.alignment) == 0)
    }
  }
}
