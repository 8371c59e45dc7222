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
  case trim(first: UInt64, size: UInt64)
  case reclaim
}

/// A page table, through the functions that C calls, beside a model.
final class PageTableWorld: World {
  // nil when it has ended.
  private var table: OpaquePointer?
  // nil for a table on the heap.
  private let pages: TablePages?
  private let shape: PageTableShape
  private var model: PageTableModel

  init(_ shape: PageTableShape, isOnHeap: Bool) throws {
    self.shape = shape
    let pages = isOnHeap ? nil : TablePages()
    self.pages = pages
    model = shape.model
    var options = shape.options
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
    case .trim(let first, let size):
      try trim(first, size, &log)
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
    try checkGrowth(found)
  }

  /// Levels are added before a call can fail for other reasons, and stay.
  private func checkGrowth(_ result: Int32) throws {
    let levels = levels
    if result != 0, levels > model.levels { model.grow(toLevels: levels) }
    try demandSame(levels, model.levels, "levels")
  }

  private var levels: Int {
    guard shape.format == DMACORE_PAGETABLE_AMD_V1.rawValue else { return shape.levels }
    var amd = dmacore_pagetable_amd_v1()
    amd.struct_size = MemoryLayout<dmacore_pagetable_amd_v1>.size
    guard dmacore_pagetable_amd_v1(table, &amd) == 0 else { return 0 }
    return Int(amd.mode)
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
      try checkGrowth(found)
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
    try checkGrowth(found)
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
      expected = try model.unmap(
        first, size: size, crossingHoles: flags & 1 != 0, splitting: flags & 2 != 0)
    } catch {
      code = -error.code
    }
    log.note(
      "dmacore_pagetable_unmap(table, \(hex(first)), \(hex(size)), \(flags), &size)", gives: code)
    if code == 0 { log.note("assert_int_equal(size, \(hex(expected)));") }
    try demandSame(found, code, "result of unmap")
    try demandSame(unmapped, expected, "bytes unmapped")
  }

  private func trim(_ first: UInt64, _ size: UInt64, _ log: inout StepLog) throws {
    // The call takes an end, which an empty range has not where there is nothing before it.
    guard size > 0 || first > 0 else { return }
    let last = first &+ size &- 1
    let found = dmacore_pagetable_trim(table, first, last)
    var code: Int32 = 0
    do throws(Refusal) {
      // A range that ends before it starts is refused as an empty one is.
      try model.trim(first, size: last < first ? 0 : size)
    } catch {
      code = -error.code
    }
    log.note("dmacore_pagetable_trim(table, \(hex(first)), \(hex(last)))", gives: code)
    try demandSame(found, code, "result of trim")
  }

  private func translate(_ address: UInt64, _ access: UInt32, _ log: inout StepLog) throws {
    var translation = dmacore_translation()
    let found = dmacore_pagetable_translate(table, address, access, &translation)
    let leaf = model.leaf(at: address)
    let code = leaf == nil ? -ENOENT : Self.permits(leaf!, access) ? 0 : -EACCES
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

  private static func permits(_ leaf: PageTableModel.Leaf, _ wanted: UInt32) -> Bool {
    let privileged = DMACORE_ACCESS_PRIVILEGED.rawValue
    guard wanted & ~privileged & ~leaf.access == 0 else { return false }
    // Who only asks what is permitted says nothing of privilege.
    return leaf.access & privileged == 0 || wanted & privileged != 0 || wanted & 7 == 0
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
    try demandSame(
      statistics.table_bytes, (statistics.table_count - 1) * shape.granule + shape.rootSize,
      "table_bytes")
    try demandSame(statistics.table_count, UInt64(model.tableCount), "table_count")
    try demandSame(statistics.retired_count, UInt64(model.retiredCount), "retired_count")
    try demandSame(pages?.misuses ?? [], [], "frees of pages")
    var silent = StepLog(isKept: false)
    let walks = try walks()
    for leaf in model.leaves.values {
      for address in [leaf.first, leaf.last] {
        try translate(address, 0, &silent)
        for walk in walks {
          let found = walk(address)
          try demand(
            found == WalkOutcome(leaf, address), "hardware's walk of \(hex(address)): \(found)")
        }
      }
      for address in [leaf.first &- 1, leaf.last &+ 1] { try translate(address, 0, &silent) }
    }
  }

  // MARK: - Hardware

  /// Where hardware gets, and what is permitted there.
  private struct WalkOutcome: Equatable {
    var target: UInt64?
    var access: UInt32 = 0

    init() {}

    init(_ leaf: PageTableModel.Leaf, _ address: UInt64) {
      target = leaf.target + (address - leaf.first)
      access = leaf.access
    }
  }

  /// The walkers there are: the library's own of tables that others make, and one that knows VT-d alone
  /// and nothing of the library.
  private func walks() throws -> [(UInt64) -> WalkOutcome] {
    var root: UInt64 = 0
    try demandSame(dmacore_pagetable_root(table, &root), 0, "result of root")
    let walks = [{ (address: UInt64) in self.walk(address, root: root) }]
    guard shape.format == DMACORE_PAGETABLE_VTD_SECOND_STAGE.rawValue, shape.features == 0 else {
      return walks
    }
    let hardware = HardwareWalk(root: root, levels: shape.levels, read: read)
    return walks + [
      { address in
        var outcome = WalkOutcome()
        guard case .translated(let target, let canRead, let canWrite) = hardware.translate(address)
        else { return outcome }
        outcome.target = target
        outcome.access = (canRead ? 1 : 0) | (canWrite ? 2 : 0)
        return outcome
      }
    ]
  }

  private func walk(_ address: UInt64, root: UInt64) -> WalkOutcome {
    let wanted = shape.options
    var options = dmacore_walk_options()
    options.struct_size = MemoryLayout<dmacore_walk_options>.size
    options.format = wanted.format
    options.levels = UInt32(levels)
    options.input_bits = wanted.input_bits
    options.output_bits = wanted.output_bits
    options.granule = wanted.granule
    options.features = wanted.features
    options.root = root
    options.read = { place, out, opaque in
      let world = Unmanaged<PageTableWorld>.fromOpaque(opaque!).takeUnretainedValue()
      guard let word = world.read(place) else { return -EIO }
      out!.pointee = word
      return 0
    }
    options.opaque = Unmanaged.passUnretained(self).toOpaque()
    var found = dmacore_translation()
    var outcome = WalkOutcome()
    if dmacore_pagetable_walk(&options, address, 0, &found, nil) == 0 {
      outcome.target = found.target + (address - found.first)
      outcome.access = found.access
    }
    return outcome
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
