// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import MachineSupport
import Primitives
import ReferenceModels
import TestSupport
import Testing

@testable import Domains

@Suite("DMARanges")
struct DMARangesTests {
  private func range(_ bus: UInt64, _ physical: UInt64, _ size: UInt64) -> dmacore_dma_range {
    dmacore_dma_range(bus: bus, phys: physical, size: size)
  }

  private func with(
    _ ranges: [dmacore_dma_range], _ body: (borrowing DMARanges) throws -> Void
  ) throws {
    try ranges.withUnsafeBufferPointer { given in
      try body(try DMARanges(given.baseAddress, count: given.count))
    }
  }

  /// The bus address of memory.
  private func bus(_ ranges: borrowing DMARanges, _ first: UInt64, _ size: UInt64) throws
    -> UInt64?
  {
    ranges.bus(of: try physical(first, size: size))?.first.rawValue
  }

  // MARK: - Making

  @Test func withoutRangesAddressesStayAsTheyAre() throws {
    let ranges = DMARanges()
    try demand(ranges.isEmpty, "there are ranges")
    let memory = try PhysicalRange(first: PhysicalAddress(5), last: PhysicalAddress(UInt64.max))
    let found = ranges.bus(of: memory)
    #expect(found?.first.rawValue == 5 && found?.last.rawValue == UInt64.max)
    try demandSame(ranges.lastPhysical(under: 99), 99, "last address")
    try demandSame(ranges.runCount, 1, "runs")
    try demand(ranges.run(0) == (0, UInt64.max), "the run is not all addresses")
  }

  @Test func rangesThatAreNoneAreRefused() throws {
    for bad in [
      range(0, 0, 0), range(1, 0, 4096), range(0, 1, 4096), range(0, 0, 4097),
      range(UInt64.max - 4095, 0, 8192), range(0, UInt64.max - 4095, 8192),
    ] {
      #expect(throws: Failure.invalidArgument) {
        try with([range(0x10000, 0x10000, 4096), bad]) { _ in }
      }
    }
    #expect(throws: Failure.invalidArgument) { try DMARanges(nil, count: 1) }
    let one = [range(0, 0, 4096)]
    for count in [-1, Int.min, Int(DMACORE_DMA_RANGES_MAX) + 1, Int.max] {
      #expect(throws: Failure.invalidArgument) { try DMARanges(one, count: count) }
    }
  }

  @Test func rangesThatAdjoinOnBothSidesAreOne() throws {
    let first = range(0x10000, 0x50000, 0x2000)
    try with([range(0x12000, 0x52000, 0x1000), first, range(0xF000, 0x4F000, 0x1000)]) {
      try demandSame($0.runCount, 1, "runs")
      try demandSame(try bus($0, 0x4F000, 0x4000), 0xF000, "bus address")
    }
    // On one side alone, or the other way round.
    for second in [range(0x12000, 0x53000, 0x1000), range(0x13000, 0x52000, 0x1000)] {
      try with([second, first]) {
        try demandSame($0.runCount, 2, "runs")
        try demandSame(try bus($0, 0x51000, 0x1001), nil, "bus address")
      }
    }
    try with([range(0x12000, 0x4F000, 0x1000), first]) {
      try demandSame(try bus($0, 0x4F000, 0x2000), nil, "bus address")
    }
  }

  @Test func nothingAdjoinsBehindTheLastAddress() throws {
    let end = UInt64.max - 4095
    try with([range(0, end, 4096), range(4096, 0, 4096)]) {
      try demandSame($0.runCount, 2, "runs")
      try demandSame($0.lastPhysical(under: 4095), UInt64.max, "last address")
    }
    try with([range(end, 4096, 4096), range(0, 8192, 4096)]) {
      try demandSame($0.runCount, 2, "runs")
      let found = $0.find(UInt64.max).window?.physical.last.rawValue
      try demandSame(found, 8191, "memory at the end")
      try demandSame($0.find(end - 1).holeLast, end - 1, "last of the hole")
    }
  }

  // MARK: - Against a model

  /// A table of at most six ranges within a few pages.
  private func makeSome(_ generator: inout SeededGenerator) -> [dmacore_dma_range] {
    (0..<generator.below(7)).map { _ in
      range(
        UInt64(generator.below(16)) << 12, UInt64(generator.below(16)) << 12,
        UInt64(generator.below(5)) << 12)
    }
  }

  @Test func everyQuestionIsAnsweredAsByAModelOfPages() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    print("DMA ranges: DMACORE_SEED=\(hex(RunSettings.seed))")
    var goodCount = 0
    for _ in 0..<RunSettings.steps(300) {
      let given = makeSome(&generator)
      var model = DMARangesModel()
      let isGood = given.allSatisfy {
        model.add(bus: $0.bus >> 12, physical: $0.phys >> 12, count: $0.size >> 12)
      }
      do {
        try with(given) { try compare($0, model, given.isEmpty) }
        try demand(isGood, "\(given) are accepted")
        goodCount += 1
      } catch let failure as Failure where failure == .invalidArgument {
        try demand(!isGood, "\(given) are refused")
      } catch {
        throw Divergence("\(given): \(error)")
      }
    }
    try demand(goodCount > 0, "none is good")
  }

  private func compare(
    _ ranges: borrowing DMARanges, _ model: DMARangesModel, _ isEmpty: Bool
  ) throws {
    try demandSame(ranges.isEmpty, isEmpty, "whether there are ranges")
    guard !isEmpty else { return }
    for page in UInt64(0)..<24 {
      for address in [page << 12, page << 12 | 4095] {
        let (window, holeLast) = ranges.find(address)
        if let window {
          let pages = model.window(around: page)
          try demandSame(window.bus.first.rawValue, pages.lowerBound << 12, "first of a window")
          try demandSame(
            window.bus.last.rawValue, pages.upperBound << 12 | 4095, "last of a window")
          try demandSame(
            window.physical.first.rawValue, model.physical(of: pages.lowerBound)! << 12, "target")
          try demandSame(window.physical.extent, window.bus.extent, "size of the target")
        } else {
          try demandSame(model.physical(of: page), nil, "page of a hole")
          let end = model.next(above: page).map { ($0 << 12) - 1 } ?? UInt64.max
          try demandSame(holeLast, end, "last of a hole")
        }
      }
      let under = ranges.lastPhysical(under: page << 12 | 4095)
      try demandSame(under, model.lastPhysical(under: page).map { $0 << 12 | 4095 }, "under")
      for last in page..<24 {
        let memory = try physical((page << 12) + 7, size: ((last - page) << 12) + 1)
        let found = ranges.bus(of: memory)
        let expected = model.bus(of: page...last).map { ($0 << 12) + 7 }
        try demandSame(found?.first.rawValue, expected, "bus address")
        if let found { try demandSame(found.extent, memory.extent, "size on the bus") }
      }
    }
  }

  // MARK: - In a domain

  @Test func addressesAreTakenFromTheHighestRangeThatHasRoom() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let translation = domain.pointee.translation!
      try with([range(0x10000, 0, 0x4000), range(0x1_0000_0000, 0x10000, 0x2000)]) { ranges in
        // A size, the limit, and the address or why there is none.
        let requests: [(UInt64, UInt64, Result<UInt64, Failure>)] = [
          (0x4000, UInt64.max, .success(0x10000)),
          (0x3000, UInt64.max, .failure(.noSpace)),
          (0x5000, UInt64.max, .failure(.outOfRange)),
          (0x1000, 0xFFFF_FFFF, .failure(.noSpace)),
          (0x1000, 0x10FFE, .failure(.outOfRange)),
          (0x2000, UInt64.max, .success(0x1_0000_0000)),
          (0x1000, UInt64.max, .failure(.noSpace)),
        ]
        for (size, limit, expected) in requests {
          try demandSame(
            map(domain, try physical(0x8000_0000, size: size), limit, ranges), expected,
            "address of \(size) bytes up to \(hex(limit))")
        }
        #expect(domain.pointee.statistics.iovaBytes == 0x6000)
        for (first, size) in [(UInt64(0x10000), UInt64(0x4000)), (0x1_0000_0000, 0x2000)] {
          let mapped = try IOVARange(first: IOVA(first), size: size)
          translation.pointee.unmap(mapped)
          translation.pointee.free(mapped)
        }
      }
    }
  }

  private func map(
    _ domain: UnsafeMutablePointer<Domain>, _ memory: PhysicalRange, _ limit: UInt64,
    _ ranges: borrowing DMARanges
  ) -> Result<UInt64, Failure> {
    do throws(Failure) {
      let range = try domain.pointee.translation!.pointee.map(
        memory, access: .read, limit: limit, in: ranges)
      return .success(range.first.rawValue)
    } catch {
      return .failure(error)
    }
  }

  @Test func aLargeLeafIsGivenUpForAPlaceInARange() throws {
    try withMachine { machine in
      let domain = try machine.domain(.dma)
      let large: UInt64 = 2 << 20
      let memory = try physical(0x8000_0000, size: large)
      // The first place is one for a large leaf, and the second is not.
      try with([range(large + 4096, 0, 3 * large - 8192)]) { ranges in
        let expected: [Result<UInt64, Failure>] = [
          .success(2 * large), .failure(.noSpace),
        ]
        for expected in expected {
          try demandSame(map(domain, memory, UInt64.max, ranges), expected, "address")
        }
      }
      try with([range(5 * large + 4096, 0, large)]) { ranges in
        try demandSame(
          map(domain, memory, UInt64.max, ranges), .success(5 * large + 4096), "address")
      }
      for first in [2 * large, 5 * large + 4096] {
        let mapped = try IOVARange(first: IOVA(first), size: large)
        domain.pointee.translation!.pointee.unmap(mapped)
        domain.pointee.translation!.pointee.free(mapped)
      }
    }
  }
}
