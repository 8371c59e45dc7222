// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import ReferenceModels
import TestSupport
import Testing

@testable import Domains

/// A pin table beside its naive twin, with nodes that are known by numbers.
private final class Pins {
  let table: PinTable
  private(set) var model = PinTableModel()
  private var nodes: [Int: UnsafeMutablePointer<PinTable.Node>] = [:]
  private var nextName = 0

  init() throws { table = try PinTable() }

  deinit { for node in nodes.values { node.deallocate() } }

  var names: [Int] { nodes.keys.sorted() }

  /// The name of the new pin, or nil when it is refused.
  func pin(_ range: ClosedRange<UInt64>) throws -> Int? {
    let name = add(range, .pinned(.read))
    try demandSame(name != nil, model.pin(range, named: nextName), "whether \(range) is pinned")
    return name
  }

  func close(_ range: ClosedRange<UInt64>, madeAt stamp: UInt64) throws -> Int? {
    let name = add(range, .closed(of: stamp))
    let isClosed = model.close(range, madeAt: stamp, named: nextName)
    try demandSame(name != nil, isClosed, "whether \(range) of \(stamp) is closed")
    return name
  }

  func settle(_ name: Int) {
    table.settle(nodes[name]!)
    model.settle(name)
  }

  func remove(_ name: Int) {
    let node = nodes.removeValue(forKey: name)!
    table.remove(node)
    node.deallocate()
    model.remove(name)
  }

  func holds(_ range: ClosedRange<UInt64>, madeAt stamp: UInt64 = 0) throws -> Bool {
    let isHeld = table.holds(first: range.lowerBound, last: range.upperBound, since: stamp)
    try demandSame(isHeld, model.holds(range, madeAt: stamp), "whether \(range) is held")
    return isHeld
  }

  func checkStamp() throws { try demandSame(table.stamp, model.clock, "stamp") }

  private func add(_ range: ClosedRange<UInt64>, _ pin: PinTable.Pin) -> Int? {
    let node = UnsafeMutablePointer<PinTable.Node>.allocate(capacity: 1)
    node.initialize(
      to: PinTable.Node(first: range.lowerBound, last: range.upperBound, payload: pin))
    nextName += 1
    guard table.add(node) else {
      node.deallocate()
      return nil
    }
    nodes[nextName] = node
    return nextName
  }
}

@Suite("PinTable")
struct PinTableTests {
  @Test func aPinHoldsEachByteOfItsRangeAndNoOther() throws {
    let pins = try Pins()
    _ = try pins.pin(10...19)
    #expect(try pins.holds(10...10))
    #expect(try pins.holds(19...30))
    #expect(try !pins.holds(0...9))
    #expect(try !pins.holds(20...UInt64.max))
  }

  @Test func pinsOverlap() throws {
    let pins = try Pins()
    let first = try #require(try pins.pin(10...19))
    let second = try #require(try pins.pin(15...24))
    pins.remove(first)
    #expect(try pins.holds(15...15))
    #expect(try !pins.holds(14...14))
    pins.remove(second)
    #expect(try !pins.holds(0...UInt64.max))
  }

  @Test func nothingInAClosedRangeIsPinnedUntilItIsOpened() throws {
    let pins = try Pins()
    let closing = try #require(try pins.close(10...19, madeAt: 0))
    #expect(try pins.pin(19...25) == nil)
    #expect(try pins.pin(20...25) != nil)
    #expect(try !pins.holds(10...19))
    pins.remove(closing)
    #expect(try pins.pin(19...25) != nil)
  }

  @Test func aPinnedRangeIsNotClosed() throws {
    let pins = try Pins()
    let pin = try #require(try pins.pin(10...19))
    #expect(try pins.close(0...10, madeAt: pins.table.stamp) == nil)
    #expect(try pins.close(0...9, madeAt: pins.table.stamp) != nil)
    pins.remove(pin)
    #expect(try pins.close(10...10, madeAt: pins.table.stamp) != nil)
  }

  @Test func aPinThatIsNotSettledIsOfEveryMapping() throws {
    let pins = try Pins()
    _ = try pins.pin(10...19)
    #expect(try pins.holds(10...19, madeAt: pins.table.stamp))
    #expect(try pins.holds(10...19, madeAt: UInt64.max - 1))
  }

  @Test func aSettledPinIsOfNoLaterMapping() throws {
    let pins = try Pins()
    let before = pins.table.stamp
    let pin = try #require(try pins.pin(10...19))
    pins.settle(pin)
    let after = pins.table.stamp
    #expect(try pins.holds(10...19, madeAt: before))
    #expect(try !pins.holds(10...19, madeAt: after))
    #expect(try pins.close(10...19, madeAt: before) == nil)
    #expect(try pins.close(10...19, madeAt: after) != nil)
  }

  @Test func randomPinsAreThoseOfAnArray() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let pins = try Pins()
    for _ in 0..<RunSettings.steps(3_000) {
      let first = UInt64(generator.below(60))
      let range = first...(first + UInt64(generator.below(8)))
      let stamp = UInt64(generator.below(Int(pins.table.stamp) + 1))
      let names = pins.names
      switch generator.below(names.count < 12 ? 6 : 3) {
      case 0 where !names.isEmpty: pins.remove(generator.one(of: names))
      case 1: _ = try pins.holds(range, madeAt: stamp)
      case 2: try pins.checkStamp()
      case 3: _ = try pins.close(range, madeAt: stamp)
      case 4:
        if let name = try pins.pin(range), generator.onceIn(2) { pins.settle(name) }
      default: _ = try pins.pin(range)
      }
    }
  }

  @Test func whatIsHeldForWritingIsFoundInOrder() throws {
    let table = try PinTable()
    let pins: [(ClosedRange<UInt64>, PinTable.Pin)] = [
      (10...19, .pinned(.read)), (15...29, .pinned([.read, .write])), (40...49, .closed(of: 0)),
      (50...UInt64.max, .pinned(.write)), (60...60, .pinned(.read)),
    ]
    let nodes = UnsafeMutablePointer<PinTable.Node>.allocate(capacity: pins.count)
    defer { nodes.deallocate() }
    func found(_ first: UInt64, _ last: UInt64) -> [UInt64] {
      table.firstWritten(from: first, through: last).map { [$0.first, $0.last] } ?? []
    }
    #expect(found(0, UInt64.max) == [])
    for (index, (range, pin)) in pins.enumerated() {
      (nodes + index).initialize(
        to: PinTable.Node(first: range.lowerBound, last: range.upperBound, payload: pin))
      try demandSame(table.add(nodes + index), true, "whether it is added")
    }
    #expect(found(0, 14) == [])
    #expect(found(0, 15) == [15, 15])
    #expect(found(0, UInt64.max) == [15, 29])
    #expect(found(20, 25) == [20, 25])
    #expect(found(30, 49) == [])
    #expect(found(30, UInt64.max) == [50, UInt64.max])
    #expect(found(60, 60) == [60, 60])
    for index in pins.indices { table.remove(nodes + index) }
    #expect(found(0, UInt64.max) == [])
  }
}
