// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import TestSupport

@testable import PageTables

// What the codec of every format has to keep, whatever its bits are. The suites of the formats call
// these for each set of options that they have.

/// All that a format can be asked to permit.
let allAccesses = (0..<64 as Range<UInt32>).map { Access(rawValue: $0) }

extension PageTableOptions {
  /// These, with pages of 2^shift bytes.
  func withPages(of shift: Int) -> PageTableOptions {
    var options = self
    options.granule = Granule(shift: shift)
    return options
  }

  /// These, for the second stage.
  var ofSecondStage: PageTableOptions {
    var options = self
    options.isSecondStage = true
    return options
  }
}

extension PageTableFormat {
  /// The format without any options.
  static var standard: Self { try! Self(PageTableOptions()) }

  /// The orders of the leaves of a level.
  func orders(at level: Int) -> [Int] {
    (0..<32).filter { leafOrders(at: level) >> UInt32($0) & 1 != 0 }
  }

  var lastOutput: UInt64 { UInt64.max >> UInt64(64 - geometry.outputBits) }

  /// The word of a leaf by itself.
  func leaf(_ output: UInt64, _ access: Access, at level: Int, order: Int = 0) -> UInt64 {
    leaf(PhysicalAddress(output), attributes: attributes(access, order: order, at: level))
  }

  func decode(_ word: UInt64, at level: Int) -> TableEntry { decode(word, at: level, index: 0) }
}

extension TableEntry {
  /// A leaf, in fewer letters.
  static func leaf(_ output: UInt64, _ access: Access, order: Int = 0) -> TableEntry {
    .leaf(TableLeaf(PhysicalAddress(output), access, order: order))
  }

  static func table(_ next: UInt64) -> TableEntry { .table(PhysicalAddress(next)) }
}

/// Leaves of each access, level and order say what was put into them, in each place of a run; and
/// tables where they are.
func checkRoundTrips<F: PageTableFormat>(of format: F) throws {
  var generator = SeededGenerator(seed: RunSettings.seed)
  let last = format.lastOutput
  for level in 0..<format.geometry.levelsMax {
    let size = format.spanMask(at: level) &+ 1
    for order in format.orders(at: level) {
      let inside = (size << UInt64(order)) &- 1
      for output in [0, last, generator.next() & last].map({ $0 & ~inside }) {
        for access in allAccesses where format.canExpress(access) {
          let attributes = format.attributes(access, order: order, at: level)
          for place in Set([0, 1, (1 << order) / 2, (1 << order) - 1]) where place < 1 << order {
            let own = output + UInt64(place) * size
            let word = format.leaf(
              PhysicalAddress(format.repeatsLeaf ? output : own), attributes: attributes)
            try demand(word != 0, "\(hex(word)) is empty")
            let index = (generator.below(format.entryCount >> order) << order) + place
            try demandSame(
              format.decode(word, at: level, index: index), .leaf(own, access, order: order),
              "\(hex(word)) at \(level)[\(index)]")
          }
        }
      }
    }
    for _ in 0..<20 where level > 0 {
      let next = generator.next() & last & ~format.granule.mask
      let word = format.table(PhysicalAddress(next), at: level - 1)
      try demand(word != 0, "\(hex(word)) is empty")
      try demandSame(format.decode(word, at: level), .table(next), "\(hex(word)) at \(level)")
    }
  }
}

/// No word traps, and none says what cannot be: a table below the lowest level, a leaf where the format
/// has none, an address that is too wide or in the midst of a span.
func checkRandomWords<F: PageTableFormat>(of format: F) throws {
  var generator = SeededGenerator(seed: RunSettings.seed)
  for level in 0..<format.geometry.levelsMax {
    for _ in 0..<RunSettings.steps(500) {
      // Few bits set, and many.
      var word = generator.next()
      if generator.onceIn(2) { word &= generator.next() }
      if generator.onceIn(2) { word &= generator.next() }
      if generator.onceIn(4) { word |= generator.next() }
      // Mostly within what can be addressed, or little would be left.
      if generator.onceIn(2) { word &= 0x0000_0000_FFFF_FFFF }
      let index = generator.below(format.entryCount)
      let place = "\(hex(word)) at \(level)[\(index)]"
      switch format.decode(word, at: level, index: index) {
      case .empty, .reserved: break
      case .table(let next):
        try demand(level > 0, "\(place) is a table")
        try demand(next.rawValue <= format.lastOutput, "\(place) leads to \(next)")
        try demand(next.isAligned(to: format.granule), "\(place) leads to \(next)")
      case .leaf(let leaf):
        try demand(format.orders(at: level).contains(leaf.order), "\(place) is a leaf of \(leaf)")
        try demand(leaf.output.rawValue <= format.lastOutput, "\(place) leads to \(leaf)")
        try demand(
          leaf.output.rawValue & format.spanMask(at: level) == 0, "\(place) leads to \(leaf)")
        try demandSame(
          leaf.output.rawValue >> UInt64(format.shift(at: level)) & ((1 << UInt64(leaf.order)) - 1),
          UInt64(index) & ((1 << UInt64(leaf.order)) - 1), "\(place) in its run")
      }
      _ = format.isDirty(word)
      _ = format.settingDirty(word, generator.onceIn(2))
    }
  }
}

/// A leaf that is made is clean, is dirty when that is set, and clean when it is unset; it stays the same
/// leaf. Where nothing is noted, it may be dirty and nothing changes.
func checkDirty<F: PageTableFormat>(of format: F, isNoted: Bool) throws {
  try demandSame(format.notesDirty, isNoted, "whether writes are noted")
  for level in 0..<format.geometry.levelsMax {
    for order in format.orders(at: level) {
      for access in allAccesses where format.canExpress(access) {
        let word = format.leaf(0, access, at: level, order: order)
        let what = "\(hex(word)) at \(level)"
        let dirty = format.settingDirty(word, true)
        let clean = format.settingDirty(dirty, false)
        if !isNoted {
          try demand(format.isDirty(word), what)
          try demandSame([dirty, format.settingDirty(word, false)], [word, word], what)
          continue
        }
        try demand(!format.isDirty(word), what)
        try demandSame([clean, format.settingDirty(word, false)], [word, word], what)
        try demandSame(format.settingDirty(dirty, true), dirty, what)
        try demandSame(format.decode(dirty, at: level), format.decode(word, at: level), what)
        if access.contains(.write) { try demand(format.isDirty(dirty), what) }
      }
    }
  }
}

/// All of the above.
func checkCodec<F: PageTableFormat>(of format: F) throws {
  try checkRoundTrips(of: format)
  try checkRandomWords(of: format)
}
