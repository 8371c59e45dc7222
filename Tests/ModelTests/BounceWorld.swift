// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What the driver, the CPU and the device do. Numbers of mappings count around those that live.
enum BounceStep {
  case map(offset: Int, size: Int, direction: UInt32, skips: Bool)
  case unmap(Int)
  case sync(Int, offset: Int, size: Int, forCPU: Bool)
  case writeByCPU(offset: Int, count: Int, value: UInt8)
  case read(Int, offset: Int, count: Int)
  case write(Int, offset: Int, count: Int, value: UInt8)
}

/// A device whose buffers are copied beside a model that has each byte twice: that of the CPU, and that of
/// the device, which the model copies when the library says that it does.
final class BounceWorld: World {
  /// Where copies are: in a pool, with a record of each; there, and kept at their slots, as on a flat system; or
  /// through an IOMMU, of the pages at the ends.
  enum Kind: CaseIterable { case recorded, kept, translated }

  static let memoryBase: UInt64 = 0x1_0000_0000
  static let memorySize = 8 * 4096

  /// What the device finds from the first page of a mapping on, and which bytes are the CPU's own.
  private struct Mapping {
    let address: UInt64
    let offset: Int
    let size: Int
    let direction: UInt32
    let skips: Bool
    // Of the pages around it through an IOMMU, else of it alone; where the CPU has them, nil for copies.
    var bytes: [UInt8]
    let isOwn: [Bool]
    /// What the buffer starts at in `bytes`.
    let start: Int
  }

  private let isTranslated: Bool
  // Then the device's addresses are those of the process, and no view reaches what is mapped.
  private let isKept: Bool
  private var model = Array(repeating: UInt8(0), count: memorySize)
  private var mappings: [Mapping] = []
  private let board: ModelBoard
  private var memory: UnsafeMutableRawPointer { board.memory }
  private var device: OpaquePointer? { board.device }
  private var view: OpaquePointer? { board.view }

  init(_ kind: Kind) throws {
    isTranslated = kind == .translated
    isKept = kind == .kept
    let flags =
      switch kind {
      case .recorded: DMACORE_DEVICE_TRACK_DIRECT
      case .kept: DMACORE_DEVICE_FORCE_BOUNCE
      case .translated: DMACORE_DEVICE_UNTRUSTED
      }
    board = try ModelBoard(
      base: isKept ? nil : Self.memoryBase, pages: Self.memorySize / 4096, poolPages: 12,
      domainType: isTranslated ? DMACORE_DOMAIN_DMA.rawValue : nil, flags: UInt32(flags.rawValue),
      streamingMask: kind == .recorded ? UInt64(UInt32.max) : UInt64.max)
  }

  func take(_ step: BounceStep, _ log: inout StepLog) throws {
    log.note("\(step)")
    switch step {
    case .map(let offset, let size, let direction, let skips):
      try map(offset, min(size, Self.memorySize - offset), direction, skips)
    case .unmap(let number):
      guard !mappings.isEmpty else { return }
      try unmap(mappings.remove(at: number % mappings.count))
    case .sync(let number, let offset, let size, let forCPU):
      try sync(number, offset, size, forCPU: forCPU)
    case .writeByCPU(let offset, let count, let value):
      for index in offset..<min(offset + count, Self.memorySize) {
        model[index] = value
        memory.storeBytes(of: value, toByteOffset: index, as: UInt8.self)
      }
    case .read(let number, let offset, let count):
      try access(number, offset, count) { mapping, range, address in
        guard mapping.direction != 2 else { return }
        var found = Array(repeating: UInt8(0), count: range.count)
        if isKept {
          memcpy(&found, UnsafeRawPointer(bitPattern: UInt(address))!, range.count)
        } else {
          try demandSame(
            dmacore_view_read(view, address, &found, range.count), 0, "result of view_read")
        }
        let expected = range.map { index in
          mapping.isOwn[index]
            ? model[mapping.offset - mapping.start + index] : mapping.bytes[index]
        }
        try demandSame(found, expected, "what the device reads")
      }
    case .write(let number, let offset, let count, let value):
      try access(number, offset, count) { mapping, range, address in
        guard mapping.direction != 1 else { return }
        let bytes = range.map { UInt8(truncatingIfNeeded: $0) &+ value }
        if isKept {
          memcpy(UnsafeMutableRawPointer(bitPattern: UInt(address))!, bytes, range.count)
        } else {
          try demandSame(
            dmacore_view_write(view, address, bytes, range.count), 0, "result of view_write")
        }
        for (index, byte) in zip(range, bytes) {
          mapping.bytes[index] = byte
          if mapping.isOwn[index] { model[mapping.offset - mapping.start + index] = byte }
        }
      }
    }
  }

  private func map(_ offset: Int, _ size: Int, _ direction: UInt32, _ skips: Bool) throws {
    let first = isTranslated ? offset & ~4095 : offset
    let end = isTranslated ? (offset + size + 4095) & ~4095 : offset + size
    let buffer = offset..<offset + size
    let isOwn = (first..<end).map { index in
      let page = index & ~4095..<(index & ~4095) + 4096
      return isTranslated && buffer.contains(page.lowerBound)
        && buffer.contains(page.upperBound - 1)
    }
    var address: UInt64 = 0
    let attributes = skips ? DMACORE_ATTR_SKIP_CPU_SYNC.rawValue : 0
    let result = dmacore_map_single(
      device, memory + offset, UInt64(size), direction, UInt32(attributes), &address)
    guard result != -28 else { return try demand(!mappings.isEmpty, "an empty pool is full") }
    try demandSame(result, 0, "result of map_single")
    if size >= 4096 || isTranslated {
      try demandSame(Int(address & 4095), offset & 4095, "offset within the page")
    }
    mappings.append(
      Mapping(
        address: address, offset: offset, size: size, direction: direction, skips: skips,
        bytes: (first..<end).map { buffer.contains($0) ? model[$0] : 0 }, isOwn: isOwn,
        start: offset - first))
  }

  private func unmap(_ mapping: Mapping) throws {
    let attributes = mapping.skips ? DMACORE_ATTR_SKIP_CPU_SYNC.rawValue : 0
    try demandSame(
      dmacore_unmap(
        device, mapping.address, UInt64(mapping.size), mapping.direction, UInt32(attributes)), 0,
      "result of unmap")
    if mapping.direction != 1 && !mapping.skips { copyBack(mapping, 0..<mapping.size) }
  }

  private func copyBack(_ mapping: Mapping, _ range: Range<Int>) {
    for index in range where !mapping.isOwn[mapping.start + index] {
      model[mapping.offset + index] = mapping.bytes[mapping.start + index]
    }
  }

  private func sync(_ number: Int, _ offset: Int, _ size: Int, forCPU: Bool) throws {
    guard !mappings.isEmpty else { return }
    let place = number % mappings.count
    let mapping = mappings[place]
    let start = offset % mapping.size
    let range = start..<min(start + size, mapping.size)
    let address = mapping.address + UInt64(start)
    let result =
      forCPU
      ? dmacore_sync_for_cpu(device, address, UInt64(range.count), mapping.direction)
      : dmacore_sync_for_device(device, address, UInt64(range.count), mapping.direction)
    try demandSame(result, 0, "result of sync")
    if !forCPU {
      for index in range {
        mappings[place].bytes[mapping.start + index] = model[mapping.offset + index]
      }
    } else if mapping.direction != 1 {
      copyBack(mapping, range)
    }
  }

  private func access(
    _ number: Int, _ offset: Int, _ count: Int,
    _ body: (inout Mapping, Range<Int>, UInt64) throws -> Void
  ) throws {
    guard !mappings.isEmpty else { return }
    let place = number % mappings.count
    let start = offset % mappings[place].bytes.count
    let range = start..<min(start + count, mappings[place].bytes.count)
    let address = mappings[place].address &+ UInt64(start) &- UInt64(mappings[place].start)
    var mapping = mappings[place]
    try body(&mapping, range, address)
    mappings[place] = mapping
  }

  func compare() throws { try board.demandMemory(model) }

  func end() throws {
    while let mapping = mappings.popLast() { try unmap(mapping) }
    try compare()
    var statistics = dmacore_bounce_pool_statistics()
    statistics.struct_size = MemoryLayout<dmacore_bounce_pool_statistics>.size
    try demandSame(
      dmacore_bounce_pool_statistics(board.pool, &statistics), 0, "result of statistics")
    try demandSame(statistics.used_count, 0, "slots in use")
  }
}
