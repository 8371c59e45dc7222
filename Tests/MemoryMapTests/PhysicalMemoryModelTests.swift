// SPDX-License-Identifier: MIT OR Apache-2.0

import MemoryMap
import Primitives
import ReferenceModels
import TestSupport
import Testing

@Suite("PhysicalMemory and its model")
struct PhysicalMemoryModelTests {
  /// What a call gave: a value, or the code of its failure.
  private enum Outcome: Equatable {
    case value(UInt64)
    case failure(Int32)

    init(core body: () throws -> UInt64) throws {
      do { self = .value(try body()) } catch let error as Failure { self = .failure(error.code) }
    }

    init(model body: () throws -> UInt64) throws {
      do { self = .value(try body()) } catch let error as Refusal { self = .failure(error.code) }
    }
  }

  private static let hostFirst = UInt64(0x7000_0000)

  /// An address near the start of the space or near its end, where ranges often meet.
  private func address(_ generator: inout SeededGenerator) -> UInt64 {
    let offset = UInt64(generator.below(0x1000))
    // Half of all addresses are multiples, so that exact fits and neighbours are common.
    let place = generator.onceIn(2) ? offset : offset & ~0xff
    return generator.onceIn(3) ? UInt64.max - 0xfff + place : place
  }

  @Test func aMemoryIsAnArrayOfRegions() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let map = try Map()
    var model = MemoryMapModel()
    for step in 0..<RunSettings.steps(4_000) {
      let base = address(&generator)
      // No range goes past the end of the space.
      let size = 1 + min(UInt64(1 + generator.below(4)) << 8 - 1, UInt64.max - base)
      let host = Self.hostFirst + UInt64(generator.below(0x20)) << 8
      let what = "step \(step), seed \(hex(RunSettings.seed))"
      switch generator.below(6) {
      case 0, 1:
        let isCallbacks = generator.onceIn(3)
        let found = try Outcome(core: {
          try map.add(base, size: size, isCallbacks ? failingCallbacks : .host(pointer(host)))
          return 0
        })
        let expected = try Outcome(model: {
          try model.add(.init(base: base, size: size, host: isCallbacks ? nil : host))
          return 0
        })
        try demandSame(found, expected, "add, \(what)")
      case 2 where !model.regions.isEmpty:
        let region = generator.one(of: model.regions)
        // Sometimes a byte less than a region, which is the range of none.
        let size = region.size - (region.size > 1 && generator.onceIn(4) ? 1 : 0)
        try demandSame(
          try Outcome(core: {
            try map.remove(region.base, size: size)
            return 0
          }),
          try Outcome(model: {
            try model.remove(base: region.base, size: size)
            return 0
          }), "remove, \(what)")
      default:
        try demandSame(map.base(at: base), model.region(at: base)?.base, "find, \(what)")
        if model.region(at: base) == nil {
          try demandSame(map.holeLast(at: base), model.holeLast(at: base), "hole, \(what)")
        }
        try demandSame(
          try Outcome(core: { try map.host(of: base, size: size) }),
          try Outcome(model: { try model.host(of: base, size: size) }), "host, \(what)")
        try demandSame(
          try Outcome(core: { try map.physical(of: host, size: size) }),
          try Outcome(model: { try model.physical(of: host, size: size) }), "physical, \(what)")
      }
    }
  }
}
