// SPDX-License-Identifier: MIT OR Apache-2.0

import ReferenceModels
import TestSupport
import Testing

@Suite("Page table against a dictionary")
struct PageTableModelTests {
  @Test(arguments: PageTableShape.all, [true, false])
  func everyStepGivesWhatADictionaryGives(_ shape: PageTableShape, isOnHeap: Bool) throws {
    let maker = PageTableStepMaker(shape: shape)
    let memory = isOnHeap ? "heap" : "caller's pages"
    try explore("page table, \(shape.name), \(memory)", steps: RunSettings.steps(500)) {
      try PageTableWorld(shape, isOnHeap: isOnHeap)
    } by: { generator in
      maker.step(&generator)
    }
  }

  /// Every history around the border of two tables, of the calls that can get in each other's way.
  @Test func everyShortHistoryAroundATableHolds() throws {
    let large: UInt64 = 1 << 21
    let alphabet: [PageTableStep] = [
      .map(first: 0, target: large, size: 4096, access: 3),
      .map(first: 0, target: large, size: large, access: 1),
      .map(first: large - 4096, target: 8 * large - 4096, size: 8192, access: 2),
      .unmap(first: 0, size: 4096, flags: 0),
      .unmap(first: 0, size: 2 * large, flags: 1),
      .unmap(first: large - 4096, size: 8192, flags: 0),
      .mapShortOfTables(first: large, target: large, size: 4096, tables: 0),
      .reclaim,
    ]
    try withEverySequence(of: alphabet, length: RunSettings.historyLength) { history in
      try follow(history) { try PageTableWorld(PageTableShape.all[0], isOnHeap: false) }
    }
  }
}
