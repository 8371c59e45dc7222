// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What is done to a page table. Numbers of leaves count around those that are mapped.
enum PageTableStep {
  case map(first: UInt64, target: UInt64, size: UInt64, access: UInt32)
  /// With a table allocator that fails after so many pages; on the heap as `map`.
  case mapShortOfTables(first: UInt64, target: UInt64, size: UInt64, tables: Int)
  case unmap(first: UInt64, size: UInt64, flags: UInt32)
  case unmapLeaf(Int)
  case translate(UInt64, access: UInt32)
  case translateLeaf(Int, access: UInt32)
  case reclaim
}

/// A VT-d second-stage page table, through the functions that C calls, beside a model.
final class PageTableWorld: World {
  // nil when it has ended.
  private var table: OpaquePointer?
  // nil for a table on the heap.
  private let pages: TablePages?
  private let levels: Int
  private var model: PageTableModel

  init(levels: Int, isOnHeap: Bool) throws {
    self.levels = levels
    let pages = isOnHeap ? nil : TablePages()
    self.pages = pages
    let spans = (0..<levels).map { UInt64(1) << UInt64(12 + 9 * $0) }
    model = PageTableModel(
      spans: spans, leafSizes: Array(spans.prefix(3)), lastInput: (spans.last! << 9) - 1,
      lastOutput: (1 << 52) - 1)
    var options = dmacore_pagetable_options()
    options.struct_size = MemoryLayout<dmacore_pagetable_options>.size
    options.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE.rawValue
    options.levels = UInt32(levels)
    var table: OpaquePointer?
    if let pages {
      try withUnsafePointer(to: pages.allocator) { allocator in
        options.allocator = allocator
        try demandSame(dmacore_pagetable_create(&options, &table), 0, "create")
      }
    } else {
      try demandSame(dmacore_pagetable_create(&options, &table), 0, "create")
    }
    self.table = table
  }

  deinit { dmacore_pagetable_destroy(table) }

  func take(_ step: PageTableStep, _ log: inout StepLog) throws {
    switch step {
    case .map(let first, let target, let size, let access):
      try map(first, target, size, access, &log)
    case .mapShortOfTables(let first, let target, let size, let tables):
      try mapShortOfTables(first, target, size, tables, &log)
    case .unmap(let first, let size, let flags):
      try unmap(first, size, flags, &log)
    case .unmapLeaf(let number):
      guard let leaf = leaf(number) else { return }
      try unmap(leaf.first, leaf.size, 0, &log)
    case .translate(let address, let access):
      try translate(address, access, &log)
    case .translateLeaf(let number, let access):
      guard let leaf = leaf(number) else { return }
      try translate(leaf.last, access, &log)
    case .reclaim:
      log.note("dmacore_pagetable_reclaim(table)", gives: 0)
      try demandSame(dmacore_pagetable_reclaim(table), 0, "result of reclaim")
      model.reclaim()
    }
    if let pages { try demandSame(pages.liveCount, model.tableCount, "table pages") }
  }

  private func leaf(_ number: Int) -> PageTableModel.Leaf? {
    let firsts = model.leaves.keys.sorted()
    return firsts.isEmpty ? nil : model.leaves[firsts[number % firsts.count]]
  }

  private func map(
    _ first: UInt64, _ target: UInt64, _ size: UInt64, _ access: UInt32, _ log: inout StepLog
  ) throws {
    let found = dmacore_pagetable_map(table, first, target, size, access)
    var code: Int32 = 0
    do throws(Refusal) {
      try model.map(first, to: target, size: size, access: access)
    } catch {
      code = -error.code
    }
    log.note(Self.mapCall(first, target, size, access), gives: code)
    try demandSame(found, code, "result of map")
  }

  private static func mapCall(
    _ first: UInt64, _ target: UInt64, _ size: UInt64, _ access: UInt32
  ) -> String {
    "dmacore_pagetable_map(table, \(hex(first)), \(hex(target)), \(hex(size)), \(access))"
  }

  private func mapShortOfTables(
    _ first: UInt64, _ target: UInt64, _ size: UInt64, _ tables: Int, _ log: inout StepLog
  ) throws {
    pages?.failAfter(tables)
    let found = dmacore_pagetable_map(table, first, target, size, 3)
    pages?.failAfter(nil)
    // How many tables a call needs is the library's affair, but not what comes of it.
    if found == -ENOMEM, pages != nil {
      log.note("pool.left = \(tables);")
      log.note(Self.mapCall(first, target, size, 3), gives: found)
      log.note("pool.left = -1;")
      var attempt = model
      try demand(
        (try? attempt.map(first, to: target, size: size, access: 3)) != nil,
        "-ENOMEM for a call that is refused anyhow")
      return
    }
    var code: Int32 = 0
    do throws(Refusal) {
      try model.map(first, to: target, size: size, access: 3)
    } catch {
      code = -error.code
    }
    log.note(Self.mapCall(first, target, size, 3), gives: code)
    try demandSame(found, code, "result of map")
  }

  private func unmap(
    _ first: UInt64, _ size: UInt64, _ flags: UInt32, _ log: inout StepLog
  ) throws {
    let untouched: UInt64 = 0x5A5A
    var unmapped = untouched
    let found = dmacore_pagetable_unmap(table, first, size, flags, &unmapped)
    var code: Int32 = 0
    var expected = untouched
    do throws(Refusal) {
      expected = try model.unmap(first, size: size, crossingHoles: flags != 0)
    } catch {
      code = -error.code
    }
    log.note(
      "dmacore_pagetable_unmap(table, \(hex(first)), \(hex(size)), \(flags), &size)", gives: code)
    if code == 0 { log.note("assert_int_equal(size, \(hex(expected)));") }
    try demandSame(found, code, "result of unmap")
    try demandSame(unmapped, expected, "bytes unmapped")
  }

  private func translate(_ address: UInt64, _ access: UInt32, _ log: inout StepLog) throws {
    var translation = dmacore_translation()
    let found = dmacore_pagetable_translate(table, address, access, &translation)
    let leaf = model.leaf(at: address)
    let code = leaf == nil ? -ENOENT : access & ~8 & ~leaf!.access != 0 ? -EACCES : 0
    log.note(
      "dmacore_pagetable_translate(table, \(hex(address)), \(access), &translation)", gives: code)
    try demandSame(found, code, "result of translate")
    guard let leaf, code == 0 else { return }
    log.note("assert_int_equal(translation.target, \(hex(leaf.target)));")
    try demandSame(
      [translation.first, translation.last, translation.target],
      [leaf.first, leaf.last, leaf.target], "translation of \(hex(address))")
    try demandSame(translation.access, leaf.access, "access at \(hex(address))")
  }

  private func statistics() throws -> dmacore_pagetable_statistics {
    var statistics = dmacore_pagetable_statistics()
    statistics.struct_size = MemoryLayout<dmacore_pagetable_statistics>.size
    try demandSame(dmacore_pagetable_statistics(table, &statistics), 0, "result of statistics")
    return statistics
  }

  func compare() throws {
    let statistics = try statistics()
    try demandSame(statistics.mapped_bytes, model.mappedBytes, "mapped_bytes")
    try demandSame(statistics.table_bytes, statistics.table_count * 4096, "table_bytes")
    try demandSame(statistics.table_count, UInt64(model.tableCount), "table_count")
    try demandSame(statistics.retired_count, UInt64(model.retiredCount), "retired_count")
    try demandSame(pages?.misuses ?? [], [], "frees of pages")
    var root: UInt64 = 0
    try demandSame(dmacore_pagetable_root(table, &root), 0, "result of root")
    let walk = HardwareWalk(root: root, levels: levels, read: read)
    var silent = StepLog(isKept: false)
    for leaf in model.leaves.values {
      for address in [leaf.first, leaf.last] {
        try translate(address, 0, &silent)
        try demandSame(
          walk.translate(address),
          .translated(
            leaf.target + (address - leaf.first), canRead: leaf.access & 1 != 0,
            canWrite: leaf.access & 2 != 0), "hardware's walk of \(hex(address))")
      }
      for address in [leaf.first &- 1, leaf.last + 1] { try translate(address, 0, &silent) }
    }
  }

  private var read: (UInt64) -> UInt64? {
    if let pages { return pages.word }
    return { UnsafePointer<UInt64>(bitPattern: UInt($0))?.pointee }
  }

  func end() throws {
    dmacore_pagetable_destroy(table)
    table = nil
    try demandSame(pages?.liveCount ?? 0, 0, "pages left behind")
    try demandSame(pages?.misuses ?? [], [], "frees of pages")
  }
}

/// Makes random steps around the borders of tables, where they meet and mix sizes of leaves.
struct PageTableStepMaker {
  let levels: Int

  private static let page: UInt64 = 1 << 12
  private static let large: UInt64 = 1 << 21
  private static let huge: UInt64 = 1 << 30

  private var lastInput: UInt64 { (1 << (12 + 9 * UInt64(levels))) - 1 }

  func step(_ generator: inout SeededGenerator) -> PageTableStep {
    switch generator.below(24) {
    case 0..<7:
      let (first, size) = range(&generator)
      return .map(
        first: first, target: target(for: first, size, &generator), size: size,
        access: generator.onceIn(20) ? UInt32(generator.below(5)) : UInt32(1 + generator.below(3)))
    case 7:
      let (first, size) = range(&generator)
      return .mapShortOfTables(
        first: first, target: target(for: first, size, &generator), size: size,
        tables: generator.below(4))
    case 8..<14:
      let (first, size) = range(&generator)
      return .unmap(first: first, size: size, flags: UInt32(generator.below(2)))
    case 14:
      // A whole stretch, so that tables become empty and larger leaves can take their place.
      return .unmap(first: base(&generator), size: Self.huge, flags: 1)
    case 15..<18:
      return .unmapLeaf(generator.below(1 << 16))
    case 18, 19:
      let address = range(&generator).first &+ UInt64(generator.below(1 << 13))
      return .translate(address, access: UInt32(generator.below(4)))
    case 20..<22:
      return .translateLeaf(generator.below(1 << 16), access: UInt32(generator.below(4)))
    default:
      return .reclaim
    }
  }

  /// Where the space starts and ends, and where entries of the upper levels meet.
  private func base(_ generator: inout SeededGenerator) -> UInt64 {
    generator.one(of: [0, Self.huge, (1 << 38) - Self.huge, lastInput - Self.huge + 1])
  }

  private func range(_ generator: inout SeededGenerator) -> (first: UInt64, size: UInt64) {
    let base = base(&generator)
    switch generator.below(10) {
    case 0..<5:
      let offset = UInt64(generator.below(3)) * Self.large + UInt64(generator.below(6)) * Self.page
      return (base &+ offset, UInt64(1 + generator.below(6)) * Self.page)
    case 5..<8:
      let offset = UInt64(generator.below(4)) * Self.large
      let size = UInt64(1 + generator.below(3)) * Self.large
      return (base &+ offset, size + UInt64(generator.below(2)) * Self.page)
    case 8:
      return (base, Self.huge * UInt64(1 + generator.below(2)))
    default:
      // Somewhere near, aligned or not, perhaps empty.
      return (
        base &- UInt64(generator.below(3)) * (Self.page / 2),
        UInt64(generator.below(5)) * (Self.page / 2)
      )
    }
  }

  /// Mostly at the same place within the largest leaf as the input is.
  private func target(
    for first: UInt64, _ size: UInt64, _ generator: inout SeededGenerator
  ) -> UInt64 {
    let inside = first & (Self.huge - 1)
    let withinLarge = (first & (Self.large - 1)) + Self.large * UInt64(generator.below(3))
    let withinHuge = inside + Self.huge * UInt64(1 + generator.below(1 << 20))
    // A gigabyte of the smallest leaves would be all that a run does.
    guard size < Self.huge else { return generator.onceIn(2) ? withinLarge : withinHuge }
    switch generator.below(12) {
    case 0: return withinLarge
    case 1: return inside &+ Self.page * UInt64(generator.below(3))
    case 2: return (1 << 52) - Self.page * UInt64(1 + generator.below(6))
    default: return withinHuge
    }
  }
}
