// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import ReferenceModels
import TestSupport

/// The shape of an IOVA space and of the requests made to it.
struct IOVASpaceShape: Sendable {
  let first: UInt64
  let last: UInt64
  let granule: UInt64
}

/// What is done to an IOVA space. Numbers of ranges count around those that are in use.
enum IOVASpaceStep {
  case allocate(size: UInt64, alignment: UInt64, limit: UInt64)
  case free(Int)
  /// With a first address and a size that are off by so much.
  case freeWrongly(Int, firstOff: UInt64, sizeOff: UInt64)
  case reserve(first: UInt64, last: UInt64)
  case unreserve(Int)
  case unreserveWrongly(Int, lastOff: UInt64)
}

/// An IOVA space, through the functions that C calls, beside a model.
final class IOVASpaceWorld<Model: IOVASpaceModel>: World {
  // nil when it has ended.
  private var space: OpaquePointer?
  private var model: Model

  init(_ shape: IOVASpaceShape, model: Model) throws {
    var options = dmacore_iova_space_options()
    options.struct_size = MemoryLayout<dmacore_iova_space_options>.size
    options.granule = shape.granule
    options.first = shape.first
    options.last = shape.last
    var space: OpaquePointer?
    try demandSame(dmacore_iova_space_create(&options, &space), 0, "create")
    self.space = space
    self.model = model
  }

  deinit { dmacore_iova_space_destroy(space) }

  func take(_ step: IOVASpaceStep, _ log: inout StepLog) throws {
    switch step {
    case .allocate(let size, let alignment, let limit):
      try allocate(size: size, alignment: alignment, limit: limit, &log)
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
    try demandSame(found, expected.code, "result of allocate")
    try demandSame(iova, expected.value ?? untouched, "place")
  }

  private func free(_ first: UInt64, size: UInt64, _ log: inout StepLog) throws {
    let found = dmacore_iova_space_free(space, first, size)
    let expected = result { model throws(Refusal) in try model.free(first: first, size: size) }
    log.note("dmacore_iova_space_free(space, \(hex(first)), \(hex(size)))", gives: expected.code)
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
    var statistics = dmacore_iova_space_statistics()
    statistics.struct_size = MemoryLayout<dmacore_iova_space_statistics>.size
    try demandSame(dmacore_iova_space_statistics(space, &statistics), 0, "result of statistics")
    let reserved = model.ranges.filter(\.isReserved)
    let allocated = model.ranges.filter { !$0.isReserved }
    try demandSame(statistics.allocated_count, UInt64(allocated.count), "allocated_count")
    try demandSame(statistics.reserved_count, UInt64(reserved.count), "reserved_count")
    try demandSame(statistics.allocated_bytes, saturated(allocated), "allocated_bytes")
    try demandSame(statistics.reserved_bytes, saturated(reserved), "reserved_bytes")
    try demandSame(statistics.free_bytes, saturated(model.free), "free_bytes")
    try demandSame(
      statistics.largest_free_bytes, saturated(model.largestFree), "largest_free_bytes")
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

/// Makes random steps that often meet what is there already.
struct IOVASpaceStepMaker {
  let shape: IOVASpaceShape
  /// How many ranges a run holds, more or less.
  let crowd: Int

  private var granuleCount: UInt128 {
    (UInt128(shape.last) + 1 - UInt128(shape.first)) / UInt128(shape.granule)
  }

  func step(_ generator: inout SeededGenerator) -> IOVASpaceStep {
    switch generator.below(20) {
    case 0..<8:
      return .allocate(
        size: size(&generator), alignment: alignment(&generator), limit: limit(&generator))
    case 8..<14:
      return .free(generator.below(crowd))
    case 14:
      return .freeWrongly(
        generator.below(crowd), firstOff: off(&generator), sizeOff: off(&generator))
    case 15, 16:
      let first = place(&generator)
      return .reserve(first: first, last: first &+ (size(&generator) &- 1))
    case 17, 18:
      return .unreserve(generator.below(crowd))
    default:
      return .unreserveWrongly(generator.below(crowd), lastOff: off(&generator))
    }
  }

  /// Mostly whole granules, some of them too many.
  private func size(_ generator: inout SeededGenerator) -> UInt64 {
    if generator.onceIn(50) { return generator.one(of: [0, 1, UInt64.max, UInt64.max - 4094]) }
    let typical = max(1, Int(clamping: granuleCount / UInt128(crowd)))
    let count = UInt64(generator.below(generator.onceIn(10) ? typical * crowd : typical) + 1)
    let size = count.multipliedReportingOverflow(by: shape.granule)
    guard !size.overflow else { return UInt64.max }
    return generator.onceIn(8) ? max(1, size.partialValue - 1) : size.partialValue
  }

  private func alignment(_ generator: inout SeededGenerator) -> UInt64 {
    if generator.onceIn(50) { return 3 }
    guard generator.onceIn(3) else { return 0 }
    return shape.granule << UInt64(generator.below(6))
  }

  private func limit(_ generator: inout SeededGenerator) -> UInt64 {
    generator.onceIn(3) ? place(&generator) &- UInt64(generator.below(2)) : UInt64.max
  }

  /// Where a granule starts, in the space or next to it.
  private func place(_ generator: inout SeededGenerator) -> UInt64 {
    let index = UInt64.random(in: 0...UInt64(clamping: granuleCount), using: &generator)
    return shape.first &+ index &* shape.granule
  }

  private func off(_ generator: inout SeededGenerator) -> UInt64 {
    generator.one(of: [0, shape.granule, 1, UInt64.max, 0 &- shape.granule])
  }
}
