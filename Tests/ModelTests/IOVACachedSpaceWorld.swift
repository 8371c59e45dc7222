// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// An IOVA space with caches, through the functions that C calls, beside the ranges that are live.
///
/// Which address an allocation gets, nobody can tell; whether it is one that it may get, and whether
/// there is one at all, the live ranges tell: what is cached is free.
final class IOVACachedSpaceWorld: World {
  // nil when it has ended.
  private var space: OpaquePointer?
  private let shape: IOVASpaceShape
  private var live: SortedRangesModel
  private var refusals: UInt64 = 0

  init(_ shape: IOVASpaceShape) throws {
    space = try shape.space(flags: 0)
    self.shape = shape
    live = SortedRangesModel(first: shape.first, last: shape.last, granule: shape.granule)
  }

  deinit { dmacore_iova_space_destroy(space) }

  func take(_ step: IOVASpaceStep, _ log: inout StepLog) throws {
    switch step {
    case .allocate(let size, let alignment, let limit):
      var iova = Self.untouched
      let found = dmacore_iova_space_allocate(space, size, alignment, limit, &iova)
      log.note(
        "dmacore_iova_space_allocate(space, \(hex(size)), \(hex(alignment)), \(hex(limit)), &iova)",
        gives: found)
      let constraints = IOVAConstraintsModel(alignment: alignment, last: limit)
      try didAllocate(found, iova, size: size, constraints, &log)
    case .allocateWith(let size, let constraints):
      var iova = Self.untouched
      var given = dmacore_iova_constraints(constraints)
      let found = dmacore_iova_space_allocate_with(space, size, &given, &iova)
      log.note(constraints.assignment)
      log.note(
        "dmacore_iova_space_allocate_with(space, \(hex(size)), &constraints, &iova)", gives: found)
      try didAllocate(found, iova, size: size, constraints, &log)
    case .free(let number):
      guard let range = range(number, isReserved: false) else { return }
      let size = UInt64(range.size)
      let found = dmacore_iova_space_free(space, range.first, size)
      log.note("dmacore_iova_space_free(space, \(hex(range.first)), \(hex(size)))", gives: found)
      try demandSame(found, 0, "result of free")
      try live.free(first: range.first, size: size)
    case .freeWrongly(let number, let firstOff, let sizeOff):
      guard let range = range(number, isReserved: nil) else { return }
      try freeWrongly(
        range.first &+ firstOff, UInt64(truncatingIfNeeded: range.size) &+ sizeOff, &log)
    case .reserve, .unreserve, .unreserveWrongly:
      try takeReservation(step, &log)
    case .largestFree(let first, let last):
      try largestFree(first: first, last: last, &log)
    case .drain:
      try drain(&log)
      try compareDrained()
    case .visit:
      log.note("dmacore_iova_space_visit(space, visit, NULL)", gives: 0)
      try demandSame(visitedRanges(of: space), shape.pieces(live.ranges), "ranges")
    }
  }

  private static var untouched: UInt64 { 0x5A5A }

  private func range(_ number: Int, isReserved: Bool?) -> IOVARangeModel? {
    let ranges = live.ranges.filter { isReserved == nil || $0.isReserved == isReserved }
    return ranges.isEmpty ? nil : ranges[number % ranges.count]
  }

  /// The `errno` value that a call of the model leaves, negated.
  private func code(
    _ model: inout SortedRangesModel, _ call: (inout SortedRangesModel) throws(Refusal) -> Void
  ) -> Int32 {
    do throws(Refusal) {
      try call(&model)
      return 0
    } catch {
      return -error.code
    }
  }

  // MARK: - Allocating

  private func didAllocate(
    _ found: Int32, _ iova: UInt64, size: UInt64, _ constraints: IOVAConstraintsModel,
    _ log: inout StepLog
  ) throws {
    var copy = live
    let expected = code(&copy) { model throws(Refusal) in
      _ = try model.allocate(size: size, constraints)
    }
    try demandSame(found, expected, "result of allocate")
    guard found == 0 else { return try demandSame(iova, Self.untouched, "what is not written") }
    log.note("assert_int_equal(iova, \(hex(iova)));")
    try demand(
      iova >= constraints.first && (constraints.placement != .exact || iova == constraints.first),
      "\(hex(iova)) lies below the first address")
    var here = constraints
    here.placement = .exact
    here.first = iova
    let before = live
    let isGood = code(&live) { model throws(Refusal) in
      _ = try model.allocate(size: size, here)
    }
    try demandSame(isGood, 0, "whether \(hex(iova)) is a place for \(hex(size)) bytes")
    try demandHigh(iova, size: size, constraints, before)
  }

  /// Throws if an address below 4 GiB was given while there is one above.
  private func demandHigh(
    _ iova: UInt64, size: UInt64, _ constraints: IOVAConstraintsModel, _ before: SortedRangesModel
  ) throws {
    let (above, below) = (UInt64(1) << 32, UInt64(1) << 32 - 1)
    guard constraints.placement == .anywhere, iova <= below, constraints.last > below else {
      return
    }
    var high = constraints
    high.first = max(constraints.first, above)
    var copy = before
    let other = code(&copy) { model throws(Refusal) in _ = try model.allocate(size: size, high) }
    try demandSame(other, -ENOSPC, "whether there was a place above 4 GiB")
  }

  // MARK: - Freeing and the rest

  /// Frees what is not allocated, and lets it come back from the caches at once: nobody can tell what
  /// happens to the caller who gets it.
  private func freeWrongly(_ first: UInt64, _ size: UInt64, _ log: inout StepLog) throws {
    var copy = live
    let expected = code(&copy) { model throws(Refusal) in try model.free(first: first, size: size) }
    guard expected != 0 else { return }
    let found = dmacore_iova_space_free(space, first, size)
    log.note("dmacore_iova_space_free(space, \(hex(first)), \(hex(size)))", gives: found)
    let bytes = (size &+ (shape.granule - 1)) & ~(shape.granule - 1)
    let mayBeCached =
      bytes.nonzeroBitCount == 1 && first & (bytes - 1) == 0 && first >= shape.first
      && first | (bytes - 1) <= shape.last
    try demand(found == -EINVAL || found == 0, "result of a wrong free: \(found)")
    // A range that is cached is there for the store until it comes back; so what no cache takes may
    // be refused for what is cached.
    if !mayBeCached { try demandSame(found, -EINVAL, "result of a wrong free past the caches") }
    refusals += 1
    try drain(&log)
    try compareDrained()
  }

  private func takeReservation(_ step: IOVASpaceStep, _ log: inout StepLog) throws {
    let (found, expected, name): (Int32, Int32, String)
    switch step {
    case .reserve(let first, let last):
      name = "reserve(space, \(hex(first)), \(hex(last)))"
      found = dmacore_iova_space_reserve(space, first, last)
      expected = code(&live) { model throws(Refusal) in
        try model.reserve(first: first, last: last)
      }
    case .unreserve(let number):
      guard let range = range(number, isReserved: true) else { return }
      (found, expected, name) = unreserve(range.first, range.last)
    case .unreserveWrongly(let number, let lastOff):
      guard let range = range(number, isReserved: nil) else { return }
      (found, expected, name) = unreserve(range.first, range.last &+ lastOff)
    default: return
    }
    log.note("dmacore_iova_space_\(name)", gives: expected)
    try demandSame(found, expected, "result of \(name)")
  }

  private func unreserve(_ first: UInt64, _ last: UInt64) -> (Int32, Int32, String) {
    let found = dmacore_iova_space_unreserve(space, first, last)
    let expected = code(&live) { model throws(Refusal) in
      try model.unreserve(first: first, last: last)
    }
    return (found, expected, "unreserve(space, \(hex(first)), \(hex(last)))")
  }

  private func largestFree(first: UInt64, last: UInt64, _ log: inout StepLog) throws {
    var bytes: UInt64 = 0
    let found = dmacore_iova_space_largest_free(space, first, last, &bytes)
    log.note(
      "dmacore_iova_space_largest_free(space, \(hex(first)), \(hex(last)), &bytes)", gives: found)
    try demandSame(found, first <= last ? 0 : -EINVAL, "result of largest_free")
    guard found == 0 else { return }
    let most = shape.largestFree(live.ranges, first: first, last: last)
    try demand(bytes <= saturated(most), "\(bytes) bytes are free, \(most) at most")
  }

  private func drain(_ log: inout StepLog) throws {
    log.note("dmacore_iova_space_drain(space)", gives: 0)
    try demandSame(dmacore_iova_space_drain(space), 0, "result of drain")
  }

  // MARK: - Comparing

  func compare() throws { _ = try compareCounts() }

  private func compareCounts() throws -> dmacore_iova_space_statistics {
    let statistics = try statistics(of: space)
    let allocated = live.ranges.filter { !$0.isReserved }
    let reserved = live.ranges.filter(\.isReserved)
    try demandSame(statistics.allocated_count, UInt64(allocated.count), "allocated_count")
    try demandSame(statistics.reserved_count, UInt64(reserved.count), "reserved_count")
    try demandSame(statistics.allocated_bytes, saturated(allocated), "allocated_bytes")
    try demandSame(statistics.reserved_bytes, saturated(reserved), "reserved_bytes")
    try demandSame(statistics.free_bytes, saturated(live.free), "free_bytes")
    try demandSame(statistics.refused_frees, refusals, "refused_frees")
    try demand(
      statistics.largest_free_bytes <= saturated(live.largestFree),
      "largest_free_bytes is too high")
    return statistics
  }

  /// Compares what is exact while nothing is cached.
  private func compareDrained() throws {
    let statistics = try compareCounts()
    try demandSame(statistics.cached_count, 0, "cached_count after a drain")
    try demandSame(statistics.cached_bytes, 0, "cached_bytes after a drain")
    try demandSame(
      statistics.largest_free_bytes, saturated(live.largestFree), "largest_free_bytes")
    try demandSame(visitedRanges(of: space), shape.pieces(live.ranges), "ranges")
  }

  func end() throws {
    var silent = StepLog(isKept: false)
    try drain(&silent)
    try compareDrained()
    dmacore_iova_space_destroy(space)
    space = nil
  }

  private func saturated(_ ranges: [IOVARangeModel]) -> UInt64 {
    saturated(ranges.map(\.size).reduce(0, +))
  }

  private func saturated(_ bytes: UInt128) -> UInt64 { UInt64(clamping: bytes) }
}
