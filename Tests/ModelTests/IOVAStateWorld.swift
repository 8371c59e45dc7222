// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import TestSupport

/// What the driver and the device do with a reserved range.
enum IOVAStateStep {
  case reserve(low: Int, size: Int, isReady: Bool)
  case link(offset: Int, place: Int, size: Int, direction: UInt32, attributes: UInt32)
  case unlink(offset: Int, size: Int)
  /// Just what the links from one to another are.
  case unlinkLinks(Int, Int)
  case sync(offset: Int, size: Int, forCPU: Bool)
  case poke(place: Int, value: UInt8)
  case read(offset: Int)
  case write(offset: Int, value: UInt8)
  case free
  case destroy
}

/// A device and a reserved range beside a model: which byte of memory, or of a copy, each address leads to.
final class IOVAStateWorld: World {
  private static let memoryBase: UInt64 = 0x1_0000_0000
  static let pages = 8
  /// Where ranges are as large as memory, links meet.
  static let size = pages * 4096

  private struct Link {
    let offset: Int
    let place: Int
    let size: Int
    let direction: UInt32
    let attributes: UInt32
    /// By offset of the page: what the device has instead of it.
    var copies: [Int: [UInt8]] = [:]

    var end: Int { offset + size }
    var reads: Bool { direction != 2 }
    var writes: Bool { direction != 1 }
  }

  private let isUntrusted: Bool
  private let board: ModelBoard
  private var memory = Array(repeating: UInt8(0), count: size)
  private var state = dmacore_iova_state()
  private var size: Int? = nil
  private var low = 0
  private var links: [Link] = []

  init(isUntrusted: Bool, isLazy: Bool) throws {
    self.isUntrusted = isUntrusted
    var flags: UInt32 = 0
    if isUntrusted { flags |= UInt32(DMACORE_DEVICE_UNTRUSTED.rawValue) }
    board = try ModelBoard(
      base: Self.memoryBase, pages: Self.pages, poolPages: 32,
      domainType: isLazy ? DMACORE_DOMAIN_DMA_LAZY.rawValue : DMACORE_DOMAIN_DMA.rawValue,
      flags: flags)
  }

  /// The first offset of a page, which is below 0 for that in which the range starts.
  private func page(_ offset: Int) -> Int { ((offset + low) & ~4095) - low }

  func take(_ step: IOVAStateStep, _ log: inout StepLog) throws {
    log.note("/* \(step) */")
    switch step {
    case .reserve(let low, let size, let isReady): try reserve(low, size, isReady)
    case .link(let offset, let place, let size, let direction, let attributes):
      // Mostly where it may be.
      let place = place % 5 == 0 ? place : place & ~4095 | (offset + low) & 4095
      guard place + size <= Self.size else { return }
      try link(offset, place, size, direction, attributes)
    case .unlink(let offset, let size): try unlink(offset, size)
    case .unlinkLinks(let from, let to):
      guard !links.isEmpty else { return }
      let (from, to) = (min(from, to) % links.count, max(from, to) % links.count)
      guard from <= to else { return }
      try unlink(links[from].offset, links[to].end - links[from].offset)
    case .sync(let offset, let size, let forCPU): try sync(offset, size, forCPU)
    case .poke(let place, let value):
      memory[place] = value
      board.memory.storeBytes(of: value, toByteOffset: place, as: UInt8.self)
    case .read(let offset): try access(offset, nil)
    case .write(let offset, let value): try access(offset, value)
    case .free:
      let expected: Int32 = size == nil ? -22 : links.isEmpty ? 0 : -16
      try demandSame(dmacore_iova_state_free(&state), expected, "result of free")
      if expected == 0 { size = nil }
    case .destroy:
      try demandSame(
        dmacore_iova_state_destroy(&state), size == nil ? -22 : 0, "result of destroy")
      for link in links { copyBack(link) }
      links = []
      size = nil
    }
  }

  private func reserve(_ low: Int, _ size: Int, _ isReady: Bool) throws {
    var options = dmacore_iova_state_options()
    options.struct_size = MemoryLayout<dmacore_iova_state_options>.size
    if isReady {
      (options.links, options.bounced_pages, options.flags) = (
        3, 2, UInt32(DMACORE_IOVA_STATE_PAGE_TABLES.rawValue)
      )
    }
    let result = dmacore_iova_state_reserve(
      board.device, Self.memoryBase + UInt64(low), UInt64(size), &options, &state)
    guard self.size == nil else { return try demandSame(result, -22, "result of reserve") }
    try demandSame(result, 0, "result of reserve")
    try demand(dmacore_iova_state_is_reserved(&state), "nothing is reserved")
    (self.low, self.size) = (low, size)
    try demandSame(
      Int(dmacore_iova_state_address(&state) & 4095), low, "place of the range in its page")
  }

  /// What a link comes to.
  private func expected(
    _ offset: Int, _ place: Int, _ size: Int, _ direction: UInt32, _ attributes: UInt32
  ) -> Int32 {
    guard let all = self.size, direction < 3, size > 0 else { return -22 }
    guard offset + size <= all else { return -7 }
    guard (offset + low) & 4095 == place & 4095 else { return -14 }
    let pages = page(offset)...page(offset + size - 1)
    if links.contains(where: { pages.overlaps(page($0.offset)...page($0.end - 1)) }) { return -17 }
    let isWhole = (place | size) & 4095 == 0
    guard isUntrusted && !isWhole else { return 0 }
    if attributes & UInt32(DMACORE_ATTR_REQUIRE_COHERENT.rawValue) != 0 { return -95 }
    return attributes & UInt32(DMACORE_ATTR_MMIO.rawValue) != 0 ? -34 : 0
  }

  private func link(
    _ offset: Int, _ place: Int, _ size: Int, _ direction: UInt32, _ attributes: UInt32
  ) throws {
    let expected = expected(offset, place, size, direction, attributes)
    try demandSame(
      dmacore_iova_state_link(
        &state, UInt64(offset), Self.memoryBase + UInt64(place), UInt64(size), direction,
        attributes), expected, "result of link")
    guard expected == 0 else { return }
    var link = Link(
      offset: offset, place: place, size: size, direction: direction, attributes: attributes)
    if isUntrusted {
      for start in stride(from: page(offset), to: link.end, by: 4096)
      where start < offset || start + 4096 > link.end {
        var copy = Array(repeating: UInt8(0), count: 4096)
        for byte in max(start, offset)..<min(start + 4096, link.end) {
          copy[byte - start] = memory[place + byte - offset]
        }
        link.copies[start] = copy
      }
    }
    links.append(link)
    links.sort { $0.offset < $1.offset }
  }

  private func copyBack(_ link: Link, _ bytes: Range<Int>? = nil) {
    let isSync = bytes != nil
    guard link.writes,
      isSync || link.attributes & UInt32(DMACORE_ATTR_SKIP_CPU_SYNC.rawValue) == 0
    else { return }
    for (start, copy) in link.copies {
      let part = (max(start, link.offset)..<min(start + 4096, link.end))
        .clamped(to: bytes ?? link.offset..<link.end)
      for byte in part { memory[link.place + byte - link.offset] = copy[byte - start] }
    }
  }

  private func unlink(_ offset: Int, _ size: Int) throws {
    let result = dmacore_iova_state_unlink(&state, UInt64(offset), UInt64(size))
    guard let all = self.size, size > 0 else {
      return try demandSame(result, -22, "result of unlink")
    }
    guard offset + size <= all else { return try demandSame(result, -7, "result of unlink") }
    let ended = links.filter { $0.offset >= offset && $0.offset < offset + size }
    guard let first = ended.first, let last = ended.last, first.offset == offset,
      last.end == offset + size
    else { return try demandSame(result, -22, "result of unlink") }
    try demandSame(result, 0, "result of unlink")
    for link in ended { copyBack(link) }
    links.removeAll { $0.offset >= offset && $0.offset < offset + size }
  }

  private func sync(_ offset: Int, _ size: Int, _ forCPU: Bool) throws {
    let results = [
      dmacore_iova_state_sync(&state, UInt64(offset), UInt64(size)),
      forCPU
        ? dmacore_iova_state_sync_for_cpu(&state, UInt64(offset), UInt64(size))
        : dmacore_iova_state_sync_for_device(&state, UInt64(offset), UInt64(size)),
    ]
    var expected: Int32 = 0
    if self.size == nil || size == 0 {
      expected = -22
    } else if offset + size > self.size! {
      expected = -7
    } else {
      var next = offset
      for link in links where link.offset <= next && link.end > next { next = link.end }
      if next < offset + size { expected = -22 }
    }
    for result in results { try demandSame(result, expected, "result of sync") }
    guard expected == 0 else { return }
    let bytes = offset..<offset + size
    for index in links.indices {
      let link = links[index]
      let part = bytes.clamped(to: link.offset..<link.end)
      guard !part.isEmpty else { continue }
      if forCPU {
        copyBack(link, part)
      } else {
        for start in link.copies.keys {
          for byte in part where byte >= start && byte < start + 4096 {
            links[index].copies[start]![byte - start] = memory[link.place + byte - link.offset]
          }
        }
      }
    }
  }

  /// The device reads or writes a byte.
  private func access(_ offset: Int, _ value: UInt8?) throws {
    guard size != nil else { return }
    let address = dmacore_iova_state_address(&state) &+ UInt64(bitPattern: Int64(offset))
    var byte: UInt8 = value ?? 0
    let result =
      value == nil
      ? dmacore_view_read(board.view, address, &byte, 1)
      : dmacore_view_write(board.view, address, &byte, 1)
    guard
      let index = links.firstIndex(where: {
        page(offset) >= page($0.offset) && page(offset) <= page($0.end - 1)
      })
    else { return try demandSame(result, -2, "result of an access to a hole") }
    let link = links[index]
    guard value == nil ? link.reads : link.writes else {
      return try demandSame(result, -13, "result of an access that is not permitted")
    }
    try demandSame(result, 0, "result of an access")
    let (start, place) = (page(offset), link.place + offset - link.offset)
    if let copy = link.copies[start] {
      if let value {
        links[index].copies[start]![offset - start] = value
      } else {
        try demandSame(byte, copy[offset - start], "what the device reads of a copy")
      }
    } else if let value {
      memory[place] = value
    } else {
      try demandSame(byte, memory[place], "what the device reads")
    }
  }

  func compare() throws { try board.demandMemory(memory) }

  func end() throws {
    if size != nil { try demandSame(dmacore_iova_state_destroy(&state), 0, "result of destroy") }
    for link in links { copyBack(link) }
    try compare()
    try board.demandNothingMapped()
  }
}
