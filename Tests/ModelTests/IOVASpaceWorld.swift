// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What is done to an IOVA space. Numbers of ranges count around those that are in use.
enum IOVASpaceStep {
  case allocate(size: UInt64, alignment: UInt64, limit: UInt64)
  case allocateWith(size: UInt64, IOVAConstraintsModel)
  case free(Int)
  /// With a first address and a size that are off by so much.
  case freeWrongly(Int, firstOff: UInt64, sizeOff: UInt64)
  case reserve(first: UInt64, last: UInt64)
  case unreserve(Int)
  case unreserveWrongly(Int, lastOff: UInt64)
  case largestFree(first: UInt64, last: UInt64)
  case drain
  case visit
}

/// An IOVA space without caches, through the functions that C calls, beside a model that tells every
/// result and every address.
final class IOVASpaceWorld<Model: IOVASpaceModel>: World {
  // nil when it has ended.
  private var space: OpaquePointer?
  private var model: Model
  private let shape: IOVASpaceShape
  private var allocations: UInt64 = 0
  private var frees: UInt64 = 0
  private var refusals: UInt64 = 0

  init(_ shape: IOVASpaceShape, model: Model) throws {
    space = try shape.space(flags: DMACORE_IOVA_SPACE_CHECKED.rawValue)
    self.shape = shape
    self.model = model
  }

  deinit { dmacore_iova_space_destroy(space) }

  func take(_ step: IOVASpaceStep, _ log: inout StepLog) throws {
    switch step {
    case .allocate(let size, let alignment, let limit):
      try allocate(size: size, alignment: alignment, limit: limit, &log)
    case .allocateWith(let size, let constraints):
      try allocate(size: size, constraints, &log)
    case .free(let number):
      guard let range = range(number, isReserved: false) else { return }
      try free(range.first, size: UInt64(range.size), &log)
    case .freeWrongly(let number, let firstOff, let sizeOff):
      guard let range = range(number, isReserved: nil) else { return }
      try free(
        range.first &+ firstOff, size: UInt64(truncatingIfNeeded: range.size) &+ sizeOff, &log)
    case .reserve(let first, let last):
      try reserve(first: first, last: last, &log)
    case .unreserve(let number):
      guard let range = range(number, isReserved: true) else { return }
      try unreserve(first: range.first, last: range.last, &log)
    case .unreserveWrongly(let number, let lastOff):
      guard let range = range(number, isReserved: nil) else { return }
      try unreserve(first: range.first, last: range.last &+ lastOff, &log)
    case .largestFree(let first, let last):
      try largestFree(first: first, last: last, &log)
    case .drain:
      log.note("dmacore_iova_space_drain(space)", gives: 0)
      try demandSame(dmacore_iova_space_drain(space), 0, "result of drain")
    case .visit:
      try demandSame(visitedRanges(of: space), shape.pieces(model.ranges), "ranges")
    }
  }

  private func range(_ number: Int, isReserved: Bool?) -> IOVARangeModel? {
    let ranges = model.ranges.filter { isReserved == nil || $0.isReserved == isReserved }
    return ranges.isEmpty ? nil : ranges[number % ranges.count]
  }

  /// The result of a model's call as C gives it.
  private func result<Value>(
    _ call: (inout Model) throws(Refusal) -> Value
  ) -> (code: Int32, value: Value?) {
    do throws(Refusal) {
      return (0, try call(&model))
    } catch {
      return (-error.code, nil)
    }
  }

  private func allocate(
    size: UInt64, alignment: UInt64, limit: UInt64, _ log: inout StepLog
  ) throws {
    let untouched: UInt64 = 0x5A5A
    var iova = untouched
    let found = dmacore_iova_space_allocate(space, size, alignment, limit, &iova)
    let expected = result { model throws(Refusal) in
      try model.allocate(size: size, alignment: alignment, limit: limit)
    }
    log.note(
      "dmacore_iova_space_allocate(space, \(hex(size)), \(hex(alignment)), \(hex(limit)), &iova)",
      gives: expected.code)
    if let value = expected.value { log.note("assert_int_equal(iova, \(hex(value)));") }
    allocations += expected.code == 0 ? 1 : 0
    try demandSame(found, expected.code, "result of allocate")
    try demandSame(iova, expected.value ?? untouched, "place")
  }

  private func allocate(
    size: UInt64, _ constraints: IOVAConstraintsModel, _ log: inout StepLog
  ) throws {
    let untouched: UInt64 = 0x5A5A
    var iova = untouched
    var given = dmacore_iova_constraints(constraints)
    let found = dmacore_iova_space_allocate_with(space, size, &given, &iova)
    let expected = result { model throws(Refusal) in
      try model.allocate(size: size, constraints)
    }
    log.note(constraints.assignment)
    log.note(
      "dmacore_iova_space_allocate_with(space, \(hex(size)), &constraints, &iova)",
      gives: expected.code)
    if let value = expected.value { log.note("assert_int_equal(iova, \(hex(value)));") }
    allocations += expected.code == 0 ? 1 : 0
    try demandSame(found, expected.code, "result of allocate_with")
    try demandSame(iova, expected.value ?? untouched, "place")
  }

  private func largestFree(first: UInt64, last: UInt64, _ log: inout StepLog) throws {
    var bytes: UInt64 = 0
    let found = dmacore_iova_space_largest_free(space, first, last, &bytes)
    log.note(
      "dmacore_iova_space_largest_free(space, \(hex(first)), \(hex(last)), &bytes)", gives: found)
    try demandSame(found, first <= last ? 0 : -EINVAL, "result of largest_free")
    guard found == 0 else { return }
    try demandSame(
      bytes, saturated(shape.largestFree(model.ranges, first: first, last: last)), "largest_free")
  }

  private func free(_ first: UInt64, size: UInt64, _ log: inout StepLog) throws {
    let found = dmacore_iova_space_free(space, first, size)
    let expected = result { model throws(Refusal) in try model.free(first: first, size: size) }
    log.note("dmacore_iova_space_free(space, \(hex(first)), \(hex(size)))", gives: expected.code)
    frees += expected.code == 0 ? 1 : 0
    refusals += expected.code == 0 ? 0 : 1
    try demandSame(found, expected.code, "result of free")
  }

  private func reserve(first: UInt64, last: UInt64, _ log: inout StepLog) throws {
    let found = dmacore_iova_space_reserve(space, first, last)
    let expected = result { model throws(Refusal) in try model.reserve(first: first, last: last) }
    log.note("dmacore_iova_space_reserve(space, \(hex(first)), \(hex(last)))", gives: expected.code)
    try demandSame(found, expected.code, "result of reserve")
  }

  private func unreserve(first: UInt64, last: UInt64, _ log: inout StepLog) throws {
    let found = dmacore_iova_space_unreserve(space, first, last)
    let expected = result { model throws(Refusal) in try model.unreserve(first: first, last: last) }
    log.note(
      "dmacore_iova_space_unreserve(space, \(hex(first)), \(hex(last)))", gives: expected.code)
    try demandSame(found, expected.code, "result of unreserve")
  }

  func compare() throws {
    let statistics = try statistics(of: space)
    let reserved = model.ranges.filter(\.isReserved)
    let allocated = model.ranges.filter { !$0.isReserved }
    try demandSame(statistics.allocated_count, UInt64(allocated.count), "allocated_count")
    try demandSame(statistics.reserved_count, UInt64(reserved.count), "reserved_count")
    try demandSame(statistics.allocated_bytes, saturated(allocated), "allocated_bytes")
    try demandSame(statistics.reserved_bytes, saturated(reserved), "reserved_bytes")
    try demandSame(statistics.free_bytes, saturated(model.free), "free_bytes")
    try demandSame(
      statistics.largest_free_bytes, saturated(model.largestFree), "largest_free_bytes")
    try demandSame(statistics.cached_count, 0, "cached_count")
    try demandSame(statistics.cached_bytes, 0, "cached_bytes")
    try demandSame(statistics.cache_allocations, 0, "cache_allocations")
    try demandSame(statistics.store_allocations, allocations, "store_allocations")
    try demandSame(statistics.store_frees, frees, "store_frees")
    try demandSame(statistics.refused_frees, refusals, "refused_frees")
    try demandSame(visitedRanges(of: space), shape.pieces(model.ranges), "ranges")
  }

  /// The space goes with its ranges; the address sanitizer sees what would be lost.
  func end() {
    dmacore_iova_space_destroy(space)
    space = nil
  }

  private func saturated(_ ranges: [IOVARangeModel]) -> UInt64 {
    saturated(ranges.map(\.size).reduce(0, +))
  }

  private func saturated(_ bytes: UInt128) -> UInt64 { UInt64(clamping: bytes) }
}
