// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import Synchronization
import TestSupport
import Testing

/// A published value that a writer replaces, and frees when no reader can be inside it.
private final class Published: Sendable {
  let sections: ReadSections
  private let current = Atomic<UInt>(0)
  private let turn: Lock

  init() throws {
    sections = try ReadSections()
    turn = try Lock(.memoryMap)
    current.store(UInt(bitPattern: Self.make(0)), ordering: .releasing)
  }

  deinit { UnsafeMutablePointer<[Int]>(bitPattern: current.load(ordering: .relaxed))!.end() }

  private static func make(_ number: Int) -> UnsafeMutablePointer<[Int]> {
    let cell = UnsafeMutablePointer<[Int]>.allocate(capacity: 1)
    cell.initialize(to: [number, number])
    return cell
  }

  func read() -> [Int] {
    let token = sections.enter()
    defer { sections.leave(token) }
    let cell = UnsafeMutablePointer<[Int]>(bitPattern: current.load(ordering: .acquiring))!
    // Twice, so that a value that ends in between is met.
    let first = cell.pointee[0]
    let second = cell.pointee[1]
    return [first, second]
  }

  func replace(by number: Int) {
    let old = current.exchange(
      UInt(bitPattern: Self.make(number)), ordering: .acquiringAndReleasing)
    sections.waitForReaders()
    UnsafeMutablePointer<[Int]>(bitPattern: old)!.end()
  }
}

extension UnsafeMutablePointer<[Int]> {
  /// Ends the value and spoils its memory.
  fileprivate func end() {
    pointee[0] = -1
    deinitialize(count: 1)
    deallocate()
  }
}

@Suite("ReadSections")
struct ReadSectionsTests {
  @Test func aWriterWithoutReadersDoesNotWait() throws {
    let sections = try ReadSections()
    sections.waitForReaders()
    let token = sections.enter()
    sections.leave(token)
    sections.waitForReaders()
  }

  @Test func aWriterWaitsForTheReaderThatIsInside() throws {
    final class Stage: Sendable {
      let sections: ReadSections
      let isInside = Atomic<Bool>(false)
      let isLeaving = Atomic<Bool>(false)

      init() throws { sections = try ReadSections() }
    }
    let stage = try Stage()
    try onThreads(2) { index in
      if index == 0 {
        let token = stage.sections.enter()
        stage.isInside.store(true, ordering: .releasing)
        // Long enough for a writer that does not wait to be found out.
        for _ in 0..<200_000 { _ = stage.isInside.load(ordering: .relaxed) }
        stage.isLeaving.store(true, ordering: .releasing)
        stage.sections.leave(token)
      } else {
        while !stage.isInside.load(ordering: .acquiring) {}
        stage.sections.waitForReaders()
        try demand(stage.isLeaving.load(ordering: .acquiring), "the reader is still inside")
      }
    }
  }

  @Test func sectionsOfOneThreadNest() throws {
    let sections = try ReadSections()
    let outer = sections.enter()
    let inner = sections.enter()
    sections.leave(inner)
    sections.leave(outer)
    sections.waitForReaders()
  }

  /// Sections that never all end at once would starve a writer that waits for that.
  @Test func aStreamOfOverlappingReadersLetsWritersThrough() throws {
    let published = try Published()
    let isOver = Flag()
    try onThreads(3) { index in
      if index == 0 {
        for number in 1...200 { published.replace(by: number) }
        isOver.set()
      } else {
        while !isOver.isSet {
          let first = published.sections.enter()
          let second = published.sections.enter()
          published.sections.leave(first)
          published.sections.leave(second)
        }
      }
    }
    #expect(published.read() == [200, 200])
  }

  /// What a writer frees after the wait no reader may be inside: readers would find spoilt values,
  /// and the sanitizers would find them.
  @Test(arguments: [1, 2])
  func nobodyReadsWhatIsFreedAfterTheWait(writers: Int) throws {
    let published = try Published()
    let writersLeft = Atomic<Int>(writers)
    try onThreads(writers + 2) { index in
      if index < writers {
        for number in 1...RunSettings.steps(1_000) { published.replace(by: number) }
        writersLeft.subtract(1, ordering: .releasing)
      } else {
        repeat {
          let values = published.read()
          try demand(values[0] >= 0 && values[0] == values[1], "a value that has ended: \(values)")
        } while writersLeft.load(ordering: .acquiring) > 0
      }
    }
  }
}
