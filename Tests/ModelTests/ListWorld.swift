// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What the driver and the device do. Numbers of lists count around those that live.
enum ListStep {
  case limit(size: UInt64, boundary: UInt64)
  /// Entries at offsets in memory, of which each `chainedEvery`-th is behind a chain.
  case map(entries: [ListModel.Part], spare: Int, chainedEvery: Int, direction: UInt32)
  case unmap(Int)
  case sync(Int, offset: Int, forCPU: Bool)
  case alter(Int, entry: Int, by: UInt64)
  case read(Int, byte: Int)
  case write(Int, byte: Int, value: UInt8)
}

/// A device and its lists beside a model of memory, and of what segments become of a list directly.
final class ListWorld: World {
  private static let memoryBase: UInt64 = 0x8000_0000
  static let memorySize = 16 * 4096

  private final class List {
    var entries: [UnsafeMutablePointer<dmacore_sg>] = []
    var storage: [UnsafeMutablePointer<dmacore_sg>] = []
    var direction: UInt32 = 0
    /// Where each byte is in memory, and its address for the device.
    var places: [Int] = []
    var addresses: [UInt64] = []

    var first: UnsafeMutablePointer<dmacore_sg> { entries[0] }
    deinit { for storage in storage { storage.deallocate() } }
  }

  private let isTranslated: Bool
  private var model = Array(repeating: UInt8(0), count: memorySize)
  private var lists: [List] = []
  private var sizeMax: UInt64 = 65536
  private var boundary = UInt64.max
  private let board: ModelBoard
  private var device: OpaquePointer? { board.device }
  private var view: OpaquePointer? { board.view }

  init(isTranslated: Bool) throws {
    self.isTranslated = isTranslated
    board = try ModelBoard(
      base: Self.memoryBase, pages: Self.memorySize / 4096,
      domainType: isTranslated ? DMACORE_DOMAIN_DMA.rawValue : nil,
      flags: isTranslated ? 0 : UInt32(DMACORE_DEVICE_TRACK_DIRECT.rawValue))
  }

  func take(_ step: ListStep, _ log: inout StepLog) throws {
    log.note("/* \(step) */")
    switch step {
    case .limit(let size, let boundary):
      var limits = dmacore_device_limits()
      limits.struct_size = MemoryLayout<dmacore_device_limits>.size
      (limits.max_segment_size, limits.segment_boundary_mask) = (size, boundary)
      try demandSame(dmacore_device_set_limits(device, &limits), 0, "result of set_limits")
      (sizeMax, self.boundary) = (size, boundary)
    case .map(let entries, let spare, let every, let direction):
      try map(entries, spare, every, direction)
    case .unmap(let number):
      guard !lists.isEmpty else { return }
      try unmap(lists.remove(at: number % lists.count))
    case .sync(let number, let offset, let forCPU):
      guard !lists.isEmpty else { return }
      let list = lists[number % lists.count]
      let start = UInt64(offset % list.places.count)
      let result =
        forCPU
        ? dmacore_sync_list_for_cpu(
          device, list.first, list.entries.count, start, 0, list.direction)
        : dmacore_sync_list_for_device(
          device, list.first, list.entries.count, start, UInt64(list.places.count) - start,
          list.direction)
      try demandSame(result, 0, "result of sync_list")
    case .alter(let number, let entry, let change):
      guard !lists.isEmpty else { return }
      let list = lists[number % lists.count]
      let segment = list.entries[entry % list.entries.count]
      guard segment.pointee.dma_size > 0 else { return }
      segment.pointee.dma &+= change
      try demandSame(
        dmacore_unmap_list(device, list.first, list.entries.count, list.direction, 0), -22,
        "result of unmap_list of a list that was altered")
      segment.pointee.dma &-= change
    case .read(let number, let byte):
      guard !lists.isEmpty else { return }
      let list = lists[number % lists.count]
      let index = byte % list.places.count
      var found: UInt8 = 0
      let result = dmacore_view_read(view, list.addresses[index], &found, 1)
      // Another list may permit it directly, at the same address.
      if list.direction != 2 {
        try demandSame(result, 0, "result of view_read")
        try demandSame(found, model[list.places[index]], "what the device reads")
      } else if isTranslated {
        try demandSame(result, -13, "result of view_read")
      }
    case .write(let number, let byte, let value):
      guard !lists.isEmpty else { return }
      let list = lists[number % lists.count]
      let index = byte % list.places.count
      guard list.direction != 1 else { return }
      try demandSame(
        dmacore_view_write(view, list.addresses[index], [value], 1), 0, "result of view_write")
      model[list.places[index]] = value
    }
  }

  /// A list in one array or several.
  private func make(_ entries: [ListModel.Part], _ spare: Int, _ every: Int) -> List {
    let list = List()
    let count = entries.count + spare
    var made = 0
    while made < count {
      let here = min(every, count - made)
      let storage = UnsafeMutablePointer<dmacore_sg>.allocate(capacity: here + 1)
      dmacore_sg_init(storage, here + 1)
      storage[here].flags = 0
      if let last = list.entries.last { dmacore_sg_chain(last + 1, storage) }
      for index in 0..<here { list.entries.append(storage + index) }
      list.storage.append(storage)
      made += here
    }
    for (entry, part) in zip(list.entries, entries) {
      dmacore_sg_set(
        entry, Self.memoryBase + part.first, part.size,
        part.isMMIO ? DMACORE_SG_MMIO.rawValue : 0)
      list.places += (Int(part.first)..<Int(part.first + part.size)).map { $0 }
    }
    list.entries.last!.pointee.flags |= DMACORE_SG_LAST.rawValue
    return list
  }

  private func map(
    _ entries: [ListModel.Part], _ spare: Int, _ every: Int, _ direction: UInt32
  ) throws {
    let list = make(entries, isTranslated ? 32 : spare, every)
    list.direction = direction
    let expected = ListModel.segments(
      of: entries.map {
        ListModel.Part(first: Self.memoryBase + $0.first, size: $0.size, isMMIO: $0.isMMIO)
      }, sizeMax: sizeMax, boundary: boundary)
    var count = 0
    let result = dmacore_map_list(
      device, list.first, list.entries.count, direction, 0, 0, &count)
    if !isTranslated && expected.count > list.entries.count {
      try demandSame(result, -7, "result of map_list with too many segments")
      return try demand(
        list.entries.allSatisfy { $0.pointee.dma_size == 0 }, "a list that failed has segments")
    }
    // Through an IOMMU there is room for all of them but where they are very short.
    if isTranslated && result == -7 {
      return try demand(
        min(sizeMax, boundary) < 4096 && expected.count > 20, "segments are too many")
    }
    try demandSame(result, 0, "result of map_list")
    let segments = list.entries.prefix(count).map { $0.pointee }
    if !isTranslated {
      try demandSame(
        segments.map {
          ListModel.Part(first: $0.dma, size: $0.dma_size, isMMIO: $0.dma_flags != 0)
        }, expected, "segments")
    }
    for (index, segment) in segments.enumerated() {
      try demand(
        ListModel.fits(segment.dma, segment.dma_size, sizeMax: sizeMax, boundary: boundary),
        "segment \(index) is too long, or crosses a boundary")
      list.addresses += (0..<segment.dma_size).map { segment.dma + $0 }
      // No two could be one, but where an entry is longer than a segment.
      guard index > 0, entries.allSatisfy({ $0.size <= sizeMax }) else { continue }
      let before = segments[index - 1]
      if before.dma + before.dma_size == segment.dma && before.dma_flags == 0
        && segment.dma_flags == 0
      {
        try demand(
          !ListModel.fits(
            before.dma, before.dma_size + segment.dma_size, sizeMax: sizeMax, boundary: boundary),
          "segments \(index - 1) and \(index) could be one")
      }
    }
    try demandSame(list.addresses.count, list.places.count, "bytes in segments")
    if count < list.entries.count {
      try demandSame(list.entries[count].pointee.dma_size, 0, "size behind the last segment")
    }
    // Each page is where its memory is.
    for index in stride(from: 0, to: list.places.count, by: 509) {
      var found = dmacore_translation()
      let access: UInt32 = direction == 1 ? 1 : direction == 2 ? 2 : 3
      try demandSame(
        dmacore_view_translate(view, list.addresses[index], access, &found), 0,
        "result of translate")
      try demandSame(
        found.target + (list.addresses[index] - found.first),
        Self.memoryBase + UInt64(list.places[index]), "where byte \(index) is")
    }
    lists.append(list)
  }

  private func unmap(_ list: List) throws {
    try demandSame(
      dmacore_unmap_list(device, list.first, list.entries.count, list.direction, 0), 0,
      "result of unmap_list")
    // Twice is once too often, unless another list has the same segments directly.
    if isTranslated {
      try demandSame(
        dmacore_unmap_list(device, list.first, list.entries.count, list.direction, 0), -22,
        "result of another unmap_list")
    }
  }

  func compare() throws { try board.demandMemory(model) }

  func end() throws {
    while let list = lists.popLast() { try unmap(list) }
    try compare()
    try board.demandNothingMapped()
  }
}
