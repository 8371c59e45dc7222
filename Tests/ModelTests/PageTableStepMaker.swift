// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport

/// Makes random steps around the borders of tables, where they meet and mix sizes of leaves.
struct PageTableStepMaker {
  let shape: PageTableShape
  private let page: UInt64
  /// Leaves whose places steps are made of: of a few pages to some hundreds, and of many of those.
  private let large: UInt64
  private let huge: UInt64
  /// Where the space starts and ends, and where entries of the upper levels meet.
  private let bases: [UInt64]

  init(shape: PageTableShape) {
    self.shape = shape
    let sizes = shape.leafSizes
    let page = sizes[0]
    self.page = page
    large = sizes.last { $0 <= 512 * page }!
    let huge = sizes.last { $0 <= 1 << 30 }!
    self.huge = huge
    // Some ranges make a table grow from three levels to four.
    let border = shape.levels < shape.spans.count ? shape.spans[3] : shape.spans.last!
    bases = shape.inputs.flatMap { half in
      [0, huge, border - huge, half.upperBound - half.lowerBound - huge + 1].map {
        half.lowerBound + $0
      }
    }
  }

  func step(_ generator: inout SeededGenerator) -> PageTableStep {
    switch generator.below(26) {
    case 0..<7:
      let (first, size) = range(&generator)
      return .map(
        first: first, target: target(for: first, size, &generator), size: size,
        access: generator.onceIn(20)
          ? UInt32(generator.below(66)) : generator.one(of: shape.expressible))
    case 7:
      let (first, size) = range(&generator)
      return .mapShortOfTables(
        first: first, target: target(for: first, size, &generator), size: size,
        tables: generator.below(4))
    case 8..<14:
      let (first, size) = range(&generator)
      return .unmap(
        first: first, size: size, flags: UInt32(generator.below(generator.onceIn(2) ? 4 : 2)))
    case 14:
      // A whole stretch, so that tables become empty and larger leaves can take their place.
      return .unmap(first: generator.one(of: bases), size: huge, flags: 1)
    case 15..<18:
      return .unmapLeaf(generator.below(1 << 16))
    case 18, 19:
      let address = range(&generator).first &+ UInt64(generator.below(1 << 13))
      return .translate(address, access: access(&generator))
    case 20..<22:
      return .translateLeaf(generator.below(1 << 16), access: access(&generator))
    case 22, 23:
      let (first, size) = range(&generator)
      return .trim(first: first, size: size)
    default:
      return .reclaim
    }
  }

  /// What a request wants.
  private func access(_ generator: inout SeededGenerator) -> UInt32 {
    UInt32(generator.below(generator.onceIn(4) ? 64 : 4))
  }

  private func range(_ generator: inout SeededGenerator) -> (first: UInt64, size: UInt64) {
    let base = generator.one(of: bases)
    switch generator.below(11) {
    case 0..<4:
      let offset = UInt64(generator.below(3)) * large + UInt64(generator.below(6)) * page
      return (base &+ offset, UInt64(1 + generator.below(6)) * page)
    case 4..<7:
      let offset = UInt64(generator.below(4)) * large
      let size = UInt64(1 + generator.below(3)) * large
      return (base &+ offset, size + UInt64(generator.below(2)) * page)
    case 7, 8:
      // Around a leaf of any size.
      let leaf = generator.one(of: shape.leafSizes)
      let first = base & ~(leaf - 1) &+ UInt64(generator.below(3)) * leaf
      return (first, leaf * UInt64(1 + generator.below(2)))
    case 9:
      return (base, huge * UInt64(1 + generator.below(2)))
    default:
      // Somewhere near, aligned or not, perhaps empty.
      return (
        base &- UInt64(generator.below(3)) * (page / 2), UInt64(generator.below(5)) * (page / 2)
      )
    }
  }

  /// Mostly at the same place within the largest leaf as the input is.
  private func target(
    for first: UInt64, _ size: UInt64, _ generator: inout SeededGenerator
  ) -> UInt64 {
    let largest = min(shape.leafSizes.last!, (shape.lastOutput >> 2) + 1)
    let withinLargest =
      (first & (largest - 1)) + largest * UInt64(generator.below(Int(shape.lastOutput / largest)))
    // All that fits in a hole of the largest leaf, by the smallest, would be all that a run does.
    guard size <= 4 * large else { return withinLargest }
    switch generator.below(12) {
    case 0: return (first & (large - 1)) + large * UInt64(generator.below(3))
    case 1: return first & (huge - 1) &+ page * UInt64(generator.below(3))
    case 2: return shape.lastOutput + 1 - page * UInt64(1 + generator.below(6))
    default: return withinLargest
    }
  }
}
