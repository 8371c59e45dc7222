// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Mapping
import TestSupport
import Testing

@Suite("Transfers against a model")
struct TransferModelTests {
  private static func ranges(_ generator: inout SeededGenerator) -> [TransferRange] {
    let page = TransferBoard.page
    var ranges: [TransferRange] = []
    let most = generator.one(of: [1, 1, 3, 8, 20, 80])
    // Any memory; whole pages; what meets at pages; much of it; single pages.
    let style = generator.onceIn(40) ? 3 : generator.one(of: [0, 0, 1, 1, 2, 2, 4])
    let count = style == 3 ? 40 : 1 + generator.below(most)
    let hasRegisters = generator.onceIn(6)
    for index in 0..<count {
      var place = generator.below(TransferBoard.size)
      var size = 1 + generator.below(generator.onceIn(4) ? 3 * page : 1500)
      switch style {
      case 1: (place, size) = (place / page * page, (1 + generator.below(4)) * page)
      case 2:
        if index > 0 || generator.onceIn(3) { place = place / page * page }
        if index < count - 1 { size = page * (1 + generator.below(3)) - place % page }
      case 3: (place, size) = (place / page * page, 16 * page)
      case 4: (place, size) = (place / page * page, page)
      default: break
      }
      // Behind the last one, often.
      if let last = ranges.last, last.place + last.size < TransferBoard.size,
        style != 4, generator.onceIn(2)
      {
        place = last.place + last.size
      }
      if generator.onceIn(30) { size = 0 }
      ranges.append(
        TransferRange(place: place, size: size, isMMIO: hasRegisters && generator.onceIn(4)))
      ranges[index].size = min(size, TransferBoard.room(at: place))
    }
    return ranges
  }

  private static func wish(_ generator: inout SeededGenerator) -> TransferWish {
    let attributes: [UInt32] = [
      0, 0, 0, 0, 0, UInt32(DMACORE_ATTR_SKIP_CPU_SYNC.rawValue),
      UInt32(DMACORE_ATTR_SKIP_CPU_SYNC.rawValue), UInt32(DMACORE_ATTR_WEAK_ORDERING.rawValue),
      UInt32(DMACORE_ATTR_REQUIRE_COHERENT.rawValue), UInt32(DMACORE_ATTR_MMIO.rawValue),
    ]
    return TransferWish(
      ranges: ranges(&generator), direction: UInt32(generator.below(3)),
      attributes: generator.one(of: attributes), isReplaceable: generator.onceIn(3),
      isByCallback: generator.onceIn(2),
      segmentsMax: generator.onceIn(5) ? UInt64(1 + generator.below(30)) : 0,
      sizeMax: generator.one(of: [0, 0, 0, 512, 4096, 10_000, 1 << 16, 1 << 20]),
      boundary: generator.one(of: [0, 0, 0, 511, 4095, 8191, 65535]))
  }

  private static func step(_ generator: inout SeededGenerator) -> TransferStep {
    let number = generator.below(100)
    let offset = generator.below(1 << 17)
    let count = 1 + generator.below(generator.onceIn(8) ? 1 << 17 : 9000)
    let value = UInt8(generator.below(256))
    switch generator.below(40) {
    case 0:
      return .limit(
        size: generator.one(of: [0, 700, 4096, 5000, 65536, UInt64.max]),
        boundary: generator.one(of: [0, 1023, 4095, 16383, UInt64.max]))
    case 1...8: return .map(wish(&generator))
    case 9...14: return .unmap(number, twice: generator.onceIn(2))
    case 15...18:
      return .iterate(
        number, offset: generator.onceIn(3) ? 0 : offset, capacity: 1 + generator.below(20))
    case 19...22: return .read(number, offset: offset, count: count)
    case 23...27: return .write(number, offset: offset, count: count, value: value)
    case 28...29:
      return .poke(
        place: generator.below(TransferBoard.size), count: 1 + generator.below(300), value: value)
    case 30...33:
      return .sync(
        number, offset: generator.onceIn(3) ? 0 : generator.below(20_000),
        size: generator.onceIn(3) ? 0 : generator.below(20_000), forCPU: generator.onceIn(2))
    case 34, 35, 36:
      return .replace(
        number, range: generator.below(80),
        place: generator.onceIn(3)
          ? TransferBoard.size - 1 - generator.below(6 * TransferBoard.page)
          : generator.below(TransferBoard.size),
        generator.onceIn(3) ? generator.one(of: TransferMistake.allCases) : nil)
    case 37: return .misuse(number, generator.below(60))
    case 38: return .mapApart(number)
    default: return .unmap(number, twice: false)
    }
  }

  @Test(arguments: TransferPath.allCases)
  func everyByteIsWhereAModelHasIt(_ path: TransferPath) throws {
    try explore("transfers, \(path)", steps: RunSettings.steps(1_200)) {
      try TransferWorld(path)
    } by: { generator in
      Self.step(&generator)
    }
  }

  @Test func transfersAndTheirIteratorsHaveRoomInWhatCHasForThem() {
    #expect(MemoryLayout<Transfer>.size == MemoryLayout<dmacore_transfer>.size)
    #expect(MemoryLayout<Transfer>.alignment <= MemoryLayout<dmacore_transfer>.alignment)
    #expect(MemoryLayout<TransferIterator>.size <= MemoryLayout<dmacore_transfer_iterator>.size)
    #expect(
      MemoryLayout<TransferIterator>.alignment
        <= MemoryLayout<dmacore_transfer_iterator>.alignment)
  }
}
