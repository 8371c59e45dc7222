// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import TestSupport

/// Memory by its place on the board.
struct TransferRange {
  var place: Int
  var size: Int
  var isMMIO: Bool
}

/// What a transfer is to be like.
struct TransferWish {
  var ranges: [TransferRange] = []
  var direction: UInt32 = 0
  var attributes: UInt32 = 0
  var isReplaceable = false
  var isByCallback = false
  var segmentsMax: UInt64 = 0
  var sizeMax: UInt64 = 0
  var boundary: UInt64 = 0
}

enum TransferMistake: CaseIterable { case size, offset, alignment, wraps, nothingThere }

/// What the driver, the CPU and the device do. Numbers of transfers count around those that live.
enum TransferStep {
  case limit(size: UInt64, boundary: UInt64)
  case map(TransferWish)
  /// The same memory as a transfer, range by range, which the device sees alike.
  case mapApart(Int)
  case iterate(Int, offset: Int, capacity: Int)
  case read(Int, offset: Int, count: Int)
  case write(Int, offset: Int, count: Int, value: UInt8)
  case poke(place: Int, count: Int, value: UInt8)
  case sync(Int, offset: Int, size: Int, forCPU: Bool)
  case replace(Int, range: Int, place: Int, TransferMistake?)
  case unmap(Int, twice: Bool)
  /// Calls that are not for it.
  case misuse(Int, Int)
}

/// A part of a transfer that lies in memory in a row, or is a copy of such.
private struct Piece {
  let offset: Int
  let place: Int
  let size: Int
  let isMMIO: Bool
  /// What the device has instead of memory.
  var copy: [UInt8]? = nil
}

/// A transfer, and which bytes are where.
private final class Live {
  let wish: TransferWish
  let ranges: UnsafeMutablePointer<dmacore_phys_range>
  var transfer = dmacore_transfer()
  /// Ranges that have bytes, with their offsets.
  var parts: [(offset: Int, place: Int, size: Int, isMMIO: Bool)] = []
  var pieces: [Piece] = []
  /// From the first byte to the last.
  var segments: [(offset: Int, dma: UInt64, size: Int)] = []
  var records: UInt64 = 0
  var isMisread = false

  init(_ wish: TransferWish) {
    self.wish = wish
    ranges = .allocate(capacity: max(wish.ranges.count, 1))
    var offset = 0
    for (index, range) in wish.ranges.enumerated() {
      (ranges + index).initialize(
        to: dmacore_phys_range(
          phys: TransferBoard.phys(range.place), size: UInt64(range.size),
          flags: range.isMMIO ? UInt32(DMACORE_RANGE_MMIO.rawValue) : 0, reserved: 0))
      guard range.size > 0 else { continue }
      parts.append((offset, range.place, range.size, range.isMMIO))
      offset += range.size
    }
  }

  deinit { ranges.deallocate() }

  var size: Int { parts.last.map { $0.offset + $0.size } ?? 0 }
  var reads: Bool { wish.direction != 2 }
  var writes: Bool { wish.direction != 1 }
  var skips: Bool { wish.attributes & UInt32(DMACORE_ATTR_SKIP_CPU_SYNC.rawValue) != 0 }
  var hasCopies: Bool { pieces.contains { $0.copy != nil } }

  var request: dmacore_transfer_request {
    var request = dmacore_transfer_request()
    request.struct_size = MemoryLayout<dmacore_transfer_request>.size
    if wish.isByCallback {
      request.next = { cursor, range, opaque in
        Unmanaged<Live>.fromOpaque(opaque!).takeUnretainedValue().next(cursor!, range!)
      }
      request.opaque = Unmanaged.passUnretained(self).toOpaque()
    } else {
      request.ranges = UnsafePointer(ranges)
      request.count = wish.ranges.count
    }
    request.direction = wish.direction
    request.attributes = wish.attributes
    request.flags = wish.isReplaceable ? UInt32(DMACORE_TRANSFER_REPLACEABLE.rawValue) : 0
    request.max_segments = wish.segmentsMax
    request.max_segment_size = wish.sizeMax
    request.segment_boundary_mask = wish.boundary
    return request
  }

  private func next(
    _ cursor: UnsafeMutablePointer<UInt64>, _ range: UnsafeMutablePointer<dmacore_phys_range>
  ) -> Bool {
    // Both words are kept.
    if cursor[1] != cursor[0] &* 7 { isMisread = true }
    guard cursor[0] < UInt64(wish.ranges.count) else { return false }
    range.pointee = ranges[Int(cursor[0])]
    cursor[0] += 1
    cursor[1] = cursor[0] &* 7
    return true
  }
}

/// A device and its transfers beside a model of bytes: those in memory, and those that were copied.
final class TransferWorld: World {
  private let path: TransferPath
  private let board: TransferBoard
  private var model = [UInt8](repeating: 0, count: TransferBoard.size)
  private var lives: [Live] = []
  private var sizeMax: UInt64 = 65536
  private var boundary = UInt64.max
  private var noted = CacheNotes()
  /// Of memory that has its own addresses in the domain.
  private let windowBytes: UInt64
  private static let page = TransferBoard.page

  init(_ path: TransferPath) throws {
    self.path = path
    board = try TransferBoard(path)
    windowBytes = try board.mappedBytes()
  }

  private func live(_ number: Int) -> Live? {
    lives.isEmpty ? nil : lives[number % lives.count]
  }

  func take(_ step: TransferStep, _ log: inout StepLog) throws {
    log.note("/* \(step) */")
    board.notes = CacheNotes()
    noted = CacheNotes()
    let (reports, before) = (board.reportCount, try counts())
    var mistakes = 0
    switch step {
    case .limit(let size, let boundary):
      var limits = dmacore_device_limits()
      limits.struct_size = MemoryLayout<dmacore_device_limits>.size
      (limits.max_segment_size, limits.segment_boundary_mask) = (size, boundary)
      try demandSame(dmacore_device_set_limits(board.device, &limits), 0, "result of set_limits")
      (sizeMax, self.boundary) = (size, boundary)
    case .map(let wish): try map(wish)
    case .mapApart(let number): if let live = live(number) { try mapApart(live) }
    case .iterate(let number, let offset, let capacity):
      if let live = live(number) { try iterate(live, offset, capacity) }
    case .read(let number, let offset, let count):
      if let live = live(number) { try access(live, offset, count, nil) }
    case .write(let number, let offset, let count, let value):
      if let live = live(number) { try access(live, offset, count, value) }
    case .poke(let place, let count, let value):
      for index in place..<min(place + count, TransferBoard.size) {
        model[index] = value
        board.memory.storeBytes(of: value, toByteOffset: index, as: UInt8.self)
      }
    case .sync(let number, let offset, let size, let forCPU):
      if let live = live(number) { try sync(live, offset, size, forCPU) }
    case .replace(let number, let range, let place, let mistake):
      if let live = live(number) { try replace(live, range, place, mistake) }
    case .unmap(let number, let twice):
      guard !lives.isEmpty else { break }
      let live = lives.remove(at: number % lives.count)
      try unmap(live)
      if twice {
        try demandSame(
          dmacore_transfer_unmap(board.device, &live.transfer), -22, "result of another unmap")
      }
    case .misuse(let number, let kind):
      guard let live = live(number) else { break }
      mistakes = try misuse(live, kind)
      try demand(before == counts(), "a call that failed changed something")
    }
    try demandSame(board.notes, noted, "what the caches were told")
    try demandSame(board.reportCount - reports, mistakes, "reports")
    try demandSame(
      try board.mappingCount(), lives.reduce(0) { $0 + $1.records }, "mappings of the device")
    try compare()
  }

  private func counts() throws -> [UInt64] {
    [try board.mappingCount(), try board.mappedBytes(), try board.usedSlots()]
  }

  // MARK: - What is where

  private func isOver(_ place: Int) -> Bool {
    board.path == .masked ? TransferBoard.isHigh(place) : false
  }

  /// The pieces of a range that takes its path alone.
  private func pieces(_ offset: Int, _ place: Int, _ size: Int, _ isMMIO: Bool) -> [Piece] {
    func piece(_ first: Int, _ end: Int, isCopy: Bool) -> Piece {
      Piece(
        offset: offset + first - place, place: first, size: end - first, isMMIO: isMMIO,
        copy: isCopy ? Array(model[first..<end]) : nil)
    }
    let (end, page) = (place + size, Self.page)
    if board.isPeer(place) { return [piece(place, end, isCopy: false)] }
    if isOver(place) || path.isForced { return [piece(place, end, isCopy: true)] }
    guard path.isUntrusted, (place | size) % page != 0 else {
      return [piece(place, end, isCopy: false)]
    }
    var result: [Piece] = []
    var next = place
    while next < end {
      var stop = min(next / page * page + page, end)
      let isWhole = next % page == 0 && stop - next == page
      if isWhole { stop = end / page * page }
      result.append(piece(next, stop, isCopy: !isWhole))
      next = stop
    }
    return result
  }

  /// What becomes of a transfer. Ranges that meet in memory fill pages together, but in registrations.
  private func pieces(of live: Live) -> [Piece] {
    var result: [Piece] = []
    var index = 0
    let isMMIO = { (part: Int) in live.parts[part].isMMIO || self.isMMIO(live) }
    while index < live.parts.count {
      let first = live.parts[index]
      var (end, next) = (first.place + first.size, index + 1)
      while !isMMIO(index), next < live.parts.count, !isMMIO(next),
        live.parts[next].place == end, TransferBoard.room(at: end - 1) > 1
      {
        end += live.parts[next].size
        next += 1
      }
      if live.wish.isReplaceable || isOver(first.place) || path.isForced {
        for part in index..<next {
          let range = live.parts[part]
          result += pieces(range.offset, range.place, range.size, isMMIO(part))
        }
      } else {
        result += pieces(first.offset, first.place, end - first.place, isMMIO(index))
      }
      index = next
    }
    return result
  }

  private func isMMIO(_ live: Live) -> Bool {
    live.wish.attributes & UInt32(DMACORE_ATTR_MMIO.rawValue) != 0
  }

  /// What mapping comes to by the rules, but for room and the number of segments.
  private func expected(_ live: Live) -> Int32 {
    let parts = live.parts
    guard !parts.isEmpty else { return -22 }
    if live.wish.isReplaceable {
      for (index, part) in parts.enumerated() {
        if index > 0 && part.place % Self.page != 0 { return -22 }
        if index < parts.count - 1 && (part.place + part.size) % Self.page != 0 { return -22 }
      }
    }
    let needsCoherence = live.wish.attributes & UInt32(DMACORE_ATTR_REQUIRE_COHERENT.rawValue) != 0
    if needsCoherence && !path.isCoherent { return -95 }
    for piece in pieces(of: live) {
      if path == .peerOutOfReach && board.isPeer(piece.place) { return -121 }
      guard piece.copy != nil else { continue }
      // One of each range's pieces that is copied is enough.
      if needsCoherence { return -95 }
      if piece.isMMIO { return -34 }
    }
    return 0
  }

  // MARK: - Mapping

  private func map(_ wish: TransferWish) throws {
    var wish = wish
    for index in wish.ranges.indices {
      let room = TransferBoard.room(at: wish.ranges[index].place)
      wish.ranges[index].size = min(wish.ranges[index].size, room)
      if path == .incoherentDirect {
        wish.ranges[index].isMMIO = TransferBoard.isLast(wish.ranges[index].place)
      }
    }
    // Without addresses of their own, memory and registers are apart.
    if path == .incoherentDirect { wish.attributes &= ~UInt32(DMACORE_ATTR_MMIO.rawValue) }
    let live = Live(wish)
    let (expected, before) = (expected(live), try counts())
    var request = live.request
    let result = dmacore_transfer_map(board.device, &request, &live.transfer)
    try demand(!live.isMisread, "the words of a callback are not kept")
    guard result == 0 else {
      // The pool may be full before it comes to what cannot be copied, if something is copied before that.
      let isCopiedFirst = pieces(of: live).first { $0.copy != nil }?.isMMIO == false
      if result == -28 && (expected == 0 || expected == -34 && isCopiedFirst) {
        try demand(before[2] > 100, "a pool is full that is not")
      } else if expected == 0 && result == -7 {
        try demandTooMany(live)
      } else {
        try demandSame(result, expected, "result of map")
      }
      try demand(live.transfer.opaque == (0, 0), "a transfer that failed is in use")
      try demand(before == counts(), "a map that failed changed something")
      board.notes = CacheNotes()
      return
    }
    try demandSame(result, expected, "result of map")
    live.pieces = pieces(of: live)
    live.records = try board.mappingCount() - before[0]
    try enter(live)
    if wish.segmentsMax > 0 {
      let count = try segments(live, 0, 7).count
      try demand(count <= wish.segmentsMax, "there are \(count) segments")
    }
    note(live.pieces, live, forCPU: false, isUnlessSkipped: true)
    var again = live.request
    try demandSame(
      dmacore_transfer_map(board.device, &again, &live.transfer), -22,
      "result of map of a transfer that is mapped")
    lives.append(live)
    try checkRecords(live)
  }

  /// A transfer without the limit of how many segments there are has more.
  private func demandTooMany(_ live: Live) throws {
    var wish = live.wish
    let most = wish.segmentsMax
    wish.segmentsMax = 0
    let other = Live(wish)
    var request = other.request
    try demandSame(
      dmacore_transfer_map(board.device, &request, &other.transfer), 0,
      "result of map without a limit of segments")
    let count = try segments(other, 0, 5).count
    try demandSame(
      dmacore_transfer_unmap(board.device, &other.transfer), 0, "result of unmap")
    // Through an IOMMU boundaries may lie elsewhere.
    try demand(
      most > 0 && count + (path.isTranslated ? 4 : 0) > most, "\(count) segments are too many")
  }

  private func checkRecords(_ live: Live) throws {
    let records = live.records
    let hasPeers = live.parts.contains { board.isPeer($0.place) }
    switch path {
    case .direct: try demandSame(records, 0, "records of a direct transfer")
    case .trackedDirect: try demand(records > 0, "a direct transfer is not tracked")
    case .hybrid: break
    case .masked where !live.hasCopies: try demandSame(records, 0, "records of a direct transfer")
    default:
      guard path.isTranslated, !hasPeers || path == .peerByHostTranslated else { break }
      try demandSame(records, 1, "records of a transfer that is translated")
    }
  }

  private func note(
    _ pieces: [Piece], _ live: Live, forCPU: Bool, isUnlessSkipped: Bool, _ bytes: Range<Int>? = nil
  ) {
    guard !path.isCoherent, !forCPU || live.writes else { return }
    for piece in pieces {
      let part = (piece.offset..<piece.offset + piece.size).clamped(to: bytes ?? 0..<Int.max)
      guard !part.isEmpty else { continue }
      if piece.copy != nil {
        // What is copied when it is mapped is handed over whatever the attributes say.
        if isUnlessSkipped && live.skips && forCPU { continue }
        // Through an IOMMU the device gets the zeroes around it, too.
        let isPage = path.isTranslated && isUnlessSkipped && !forCPU
        noted.addCopied(
          isPage ? TransferBoard.page : part.count, live.wish.direction, forCPU: forCPU)
      } else if !piece.isMMIO && !board.isPeer(piece.place) && !(isUnlessSkipped && live.skips) {
        noted.add(
          piece.place + part.lowerBound - piece.offset, part.count, live.wish.direction,
          forCPU: forCPU)
      }
    }
  }

  // MARK: - Segments

  private func segments(
    _ live: Live, _ offset: Int, _ capacity: Int
  ) throws -> [(offset: Int, dma: UInt64, size: Int)] {
    var iterator = dmacore_transfer_iterator()
    var request = live.request
    try demandSame(
      dmacore_transfer_begin(board.device, &request, &live.transfer, UInt64(offset), &iterator),
      0, "result of begin")
    var found = [dmacore_segment](repeating: dmacore_segment(), count: capacity)
    var result: [(offset: Int, dma: UInt64, size: Int)] = []
    var (next, count) = (offset, 0)
    repeat {
      try demandSame(
        dmacore_transfer_next(&iterator, &found, capacity, &count), 0, "result of next")
      for segment in found.prefix(count) {
        try demand(
          segment.size > 0 && segment.size <= UInt64(live.size - next), "size of a segment")
        result.append((next, segment.dma, Int(segment.size)))
        next += Int(segment.size)
      }
    } while count == capacity
    try demandSame(next, live.size, "bytes in segments")
    try demandSame(
      dmacore_transfer_next(&iterator, &found, 1, &count), 0, "result of next at the end")
    try demandSame(count, 0, "segments behind the last")
    return result
  }

  /// Looks at the segments of a transfer that was mapped just now.
  private func enter(_ live: Live) throws {
    live.segments = try segments(live, 0, 16)
    try checkLimits(live, live.segments)
    for piece in live.pieces {
      for byte in [piece.offset, piece.offset + piece.size / 2, piece.offset + piece.size - 1] {
        var found = dmacore_translation()
        let access: UInt32 = live.wish.direction == 1 ? 1 : live.wish.direction == 2 ? 2 : 3
        let address = address(live, byte)
        try demandSame(
          dmacore_view_translate(board.view, address, access, &found), 0, "result of translate")
        let target = found.target &+ (address - found.first)
        if piece.copy == nil {
          try demandSame(
            target, TransferBoard.phys(piece.place + byte - piece.offset), "where byte \(byte) is")
        } else {
          try demandSame(TransferBoard.place(of: target), nil, "where a copy of byte \(byte) is")
        }
      }
    }
  }

  private func address(_ live: Live, _ offset: Int) -> UInt64 {
    var (low, high) = (0, live.segments.count - 1)
    while low < high {
      let middle = (low + high + 1) / 2
      if live.segments[middle].offset <= offset { low = middle } else { high = middle - 1 }
    }
    return live.segments[low].dma + UInt64(offset - live.segments[low].offset)
  }

  private func limits(_ live: Live) -> (size: UInt64, boundary: UInt64) {
    let wish = live.wish
    return (
      min(wish.sizeMax == 0 ? UInt64.max : wish.sizeMax, sizeMax == 0 ? 65536 : sizeMax),
      min(
        wish.boundary == 0 ? UInt64.max : wish.boundary, boundary == 0 ? UInt64.max : boundary)
    )
  }

  private func checkLimits(
    _ live: Live, _ segments: [(offset: Int, dma: UInt64, size: Int)]
  ) throws {
    let (most, mask) = limits(live)
    // As many whole pages as there are room for.
    let whole = most >= 4096 ? most / 4096 * 4096 : most
    for (index, segment) in segments.enumerated() {
      let last = segment.dma + UInt64(segment.size - 1)
      try demand(segment.size <= whole, "segment \(index) has \(segment.size) bytes")
      try demand(segment.dma & ~mask == last & ~mask, "segment \(index) crosses a boundary")
      try checkApart(live, segment.offset..<segment.offset + segment.size, index)
      guard index > 0 else { continue }
      let before = segments[index - 1]
      // What adjoins is cut where it must be, where there are registers or copies, or another's memory.
      guard before.dma + UInt64(before.size) == segment.dma, before.size < whole,
        segment.dma & mask != 0, !live.wish.isReplaceable || path.isTranslated
      else { continue }
      try demand(
        isAlone(live, segment.offset - 1) || isAlone(live, segment.offset),
        "segments \(index - 1) and \(index) could be one")
    }
  }

  /// Registers and memory of a peer share no segment with another range.
  private func checkApart(_ live: Live, _ bytes: Range<Int>, _ index: Int) throws {
    for part in live.parts {
      let own = part.offset..<part.offset + part.size
      guard own.overlaps(bytes), own.clamped(to: bytes) != bytes else { continue }
      let isPeer = board.isPeer(part.place) && !live.wish.isReplaceable
      let isNext = live.parts.contains { other in
        // Those of a peer that follow on each other may be one.
        isPeer && !part.isMMIO && !other.isMMIO && board.isPeer(other.place)
          && (other.offset == part.offset + part.size
            || part.offset == other.offset + other.size)
      }
      try demand(!part.isMMIO && !isPeer || isNext, "segment \(index) has registers, and more")
    }
  }

  /// Whether what a byte is in may be a segment of its own.
  private func isAlone(_ live: Live, _ offset: Int) -> Bool {
    let piece = piece(live, offset)
    return piece.isMMIO || board.isPeer(piece.place) || (piece.copy != nil && !path.isUntrusted)
      || path == .hybrid || path == .trackedDirect
  }

  private func piece(_ live: Live, _ offset: Int) -> Piece {
    live.pieces.last { $0.offset <= offset }!
  }

  private func iterate(_ live: Live, _ offset: Int, _ capacity: Int) throws {
    var iterator = dmacore_transfer_iterator()
    var request = live.request
    try demandSame(
      dmacore_transfer_begin(
        board.device, &request, &live.transfer, UInt64(live.size + offset % 3), &iterator), -7,
      "result of begin behind the end")
    let offset = offset % live.size
    let found = try segments(live, offset, capacity)
    try checkLimits(live, found)
    for segment in found {
      // The limits may have changed since the others were cut.
      try demandSame(segment.dma, address(live, segment.offset), "address of \(segment.offset)")
      try demandSame(
        segment.dma + UInt64(segment.size - 1), address(live, segment.offset + segment.size - 1),
        "last address of the segment at \(segment.offset)")
    }
    try demandSame(
      dmacore_transfer_size(&live.transfer), UInt64(live.size), "size of a transfer")
  }

  // MARK: - Bytes

  /// The parts of pieces between two offsets.
  private func visit(_ live: Live, _ bytes: Range<Int>, _ body: (Int, Range<Int>) throws -> Void)
    rethrows
  {
    for index in live.pieces.indices {
      let piece = live.pieces[index]
      let part = (piece.offset..<piece.offset + piece.size).clamped(to: bytes)
      if !part.isEmpty { try body(index, part) }
    }
  }

  private func access(_ live: Live, _ offset: Int, _ count: Int, _ value: UInt8?) throws {
    let offset = offset % live.size
    let bytes = offset..<min(offset + count, live.size)
    guard value == nil ? live.reads : live.writes else {
      // At addresses of its own nobody else's mapping permits it.
      guard path.isTranslated, path != .hybrid, !board.path.hasPeer else { return }
      var byte: UInt8 = 0
      let result =
        value == nil
        ? dmacore_view_read(board.view, address(live, offset), &byte, 1)
        : dmacore_view_write(board.view, address(live, offset), &byte, 1)
      return try demandSame(result, -13, "result of an access that is not permitted")
    }
    var data = [UInt8](repeating: 0, count: bytes.count)
    if let value {
      for index in data.indices { data[index] = value &+ UInt8(truncatingIfNeeded: index) }
    }
    for segment in live.segments {
      let part = (segment.offset..<segment.offset + segment.size).clamped(to: bytes)
      guard !part.isEmpty else { continue }
      let address = segment.dma + UInt64(part.lowerBound - segment.offset)
      let result = data.withUnsafeMutableBytes { data in
        let place = data.baseAddress! + (part.lowerBound - offset)
        return value == nil
          ? dmacore_view_read(board.view, address, place, part.count)
          : dmacore_view_write(board.view, address, place, part.count)
      }
      try demandSame(result, 0, "result of an access")
    }
    try visit(live, bytes) { index, part in
      let piece = live.pieces[index]
      let (inPiece, inData) = (part.lowerBound - piece.offset, part.lowerBound - offset)
      let chosen = inData..<inData + part.count
      if value != nil {
        if piece.copy != nil {
          live.pieces[index].copy!.replaceSubrange(
            inPiece..<inPiece + part.count, with: data[chosen])
        } else {
          model.replaceSubrange(
            piece.place + inPiece..<piece.place + inPiece + part.count, with: data[chosen])
        }
        return
      }
      // Where memory is in it more than once, it is read after all is written.
      let expected =
        piece.copy.map { $0[inPiece..<inPiece + part.count] }
        ?? model[piece.place + inPiece..<piece.place + inPiece + part.count]
      try demand(data[chosen].elementsEqual(expected), "what the device reads at \(part)")
    }
  }

  private func copyBack(_ pieces: [Piece], _ bytes: Range<Int>? = nil) {
    for piece in pieces {
      guard let copy = piece.copy else { continue }
      let part = (piece.offset..<piece.offset + piece.size).clamped(to: bytes ?? 0..<Int.max)
      guard !part.isEmpty else { continue }
      let first = part.lowerBound - piece.offset
      model.replaceSubrange(
        piece.place + first..<piece.place + first + part.count,
        with: copy[first..<first + part.count])
    }
  }

  private func sync(_ live: Live, _ offset: Int, _ size: Int, _ forCPU: Bool) throws {
    let before = try counts()
    let result =
      forCPU
      ? dmacore_transfer_sync_for_cpu(board.device, &live.transfer, UInt64(offset), UInt64(size))
      : dmacore_transfer_sync_for_device(
        board.device, &live.transfer, UInt64(offset), UInt64(size))
    try demand(before == counts(), "a sync changed something")
    guard offset < live.size, offset + size <= live.size else {
      return try demandSame(result, -7, "result of sync of too much")
    }
    try demandSame(result, 0, "result of sync")
    let bytes = offset..<(size == 0 ? live.size : offset + size)
    note(live.pieces, live, forCPU: forCPU, isUnlessSkipped: false, bytes)
    if forCPU {
      if live.writes { copyBack(live.pieces, bytes) }
    } else {
      copyIn(live, bytes)
    }
  }

  private func copyIn(_ live: Live, _ bytes: Range<Int>) {
    visit(live, bytes) { index, part in
      let piece = live.pieces[index]
      guard piece.copy != nil else { return }
      let first = part.lowerBound - piece.offset
      live.pieces[index].copy!.replaceSubrange(
        first..<first + part.count,
        with: model[piece.place + first..<piece.place + first + part.count])
    }
  }

  // MARK: - Replacing and ending

  private func replace(
    _ live: Live, _ range: Int, _ place: Int, _ mistake: TransferMistake?
  ) throws {
    let part = live.parts[range % live.parts.count]
    let new = place / Self.page * Self.page + part.place % Self.page
    var (offset, phys, size) = (part.offset, TransferBoard.phys(new), part.size)
    switch mistake {
    case .size: size += place % 2 == 0 ? 1 : -1
    case .offset: offset += 1 + place % 5000
    case .alignment: phys += 1 + UInt64(place % 4095)
    case .wraps: phys = 0 &- UInt64(4096 - part.place % Self.page)
    case .nothingThere: offset += live.size
    case nil: break
    }
    if mistake == .wraps && size <= 4096 - part.place % Self.page { return }
    // Some other range may start there, and be as large.
    if mistake == .offset,
      live.parts.contains(where: { $0.offset == offset && $0.size == size })
    {
      return
    }
    if mistake == nil && new + part.size > TransferBoard.size { return }
    if mistake == nil && TransferBoard.room(at: new) < part.size { return }
    if path == .incoherentDirect && TransferBoard.isLast(new) != part.isMMIO { return }
    let before = try counts()
    let result = dmacore_transfer_replace(
      board.device, &live.transfer, UInt64(offset), phys, UInt64(size))
    guard live.wish.isReplaceable && mistake == nil else {
      try demandSame(result, -22, "result of replace that is wrong")
      return try demand(before == counts(), "a replace that failed changed something")
    }
    let old = live.pieces.filter { $0.offset >= offset && $0.offset < offset + size }
    let others = live.pieces.filter { $0.offset < offset || $0.offset >= offset + size }
    let isMMIO = old[0].isMMIO
    // The old memory is the CPU's, with what the device wrote.
    note(old, live, forCPU: true, isUnlessSkipped: true)
    if live.writes && !live.skips { copyBack(old) }
    var made = pieces(offset, new, size, isMMIO)
    var expected: Int32 = 0
    if path == .peerOutOfReach && board.isPeer(new) {
      expected = -121
    } else if made.contains(where: { $0.copy != nil }) {
      let needsCoherence =
        live.wish.attributes & UInt32(DMACORE_ATTR_REQUIRE_COHERENT.rawValue) != 0
      expected = needsCoherence ? -95 : isMMIO ? -34 : 0
    }
    try demandSame(result, expected, "result of replace")
    if expected != 0 { made = pieces(offset, old[0].place, size, isMMIO) }
    note(made, live, forCPU: false, isUnlessSkipped: true)
    live.pieces = (others + made).sorted { $0.offset < $1.offset }
    if expected == 0 {
      let index = live.parts.firstIndex { $0.offset == offset }!
      live.parts[index].place = new
      live.records = live.records + (try board.mappingCount()) - before[0]
    } else {
      try demandSame(try board.mappingCount(), before[0], "mappings behind a failed replace")
    }
    let kept = [0, offset - 1, offset, offset + size - 1, offset + size, live.size - 1]
      .filter { $0 >= 0 && $0 < live.size }.map { ($0, address(live, $0)) }
    try enter(live)
    let isInPlace =
      path.isTranslated && path != .hybrid && !path.isByBus || expected != 0 && !path.isTranslated
    for (byte, address) in kept
    where isInPlace && path.isTranslated || byte < offset
      || byte >= offset + size
    {
      try demandSame(self.address(live, byte), address, "address of byte \(byte)")
    }
  }

  private func unmap(_ live: Live) throws {
    try demandSame(dmacore_transfer_unmap(board.device, &live.transfer), 0, "result of unmap")
    try demand(live.transfer.opaque == (0, 0), "a transfer that was unmapped is in use")
    try demandSame(dmacore_transfer_size(&live.transfer), 0, "size of what is not mapped")
    note(live.pieces, live, forCPU: true, isUnlessSkipped: true)
    if live.writes && !live.skips { copyBack(live.pieces) }
  }

  /// Returns how often something is to be reported.
  private func misuse(_ live: Live, _ kind: Int) throws -> Int {
    // Of what is direct nothing is known.
    let isKnown = live.wish.isReplaceable || live.hasCopies || path != .direct && path != .masked
    guard isKnown else { return 0 }
    let before = live.transfer.opaque
    var calls: [(String, () -> Int32)] = [
      ("unmap for another device", { dmacore_transfer_unmap(self.board.other, &live.transfer) }),
      (
        "sync for the CPU by another device",
        { dmacore_transfer_sync_for_cpu(self.board.other, &live.transfer, 0, 0) }
      ),
      (
        "sync for another device",
        { dmacore_transfer_sync_for_device(self.board.other, &live.transfer, 0, 1) }
      ),
    ]
    if live.wish.isReplaceable {
      calls.append(
        (
          "replace for another device",
          {
            dmacore_transfer_replace(
              self.board.other, &live.transfer, 0, TransferBoard.phys(live.parts[0].place),
              UInt64(live.parts[0].size))
          }
        ))
    }
    // Segments are no mappings of their own.
    let segment = live.segments[kind % live.segments.count]
    if path.isTranslated && path != .hybrid && !path.hasPeer {
      let (dma, size) = (live.segments[0].dma, UInt64(live.size))
      let wish = live.wish
      calls.append(
        (
          "unmap of a transfer as a mapping",
          { dmacore_unmap(self.board.device, dma, size, wish.direction, wish.attributes) }
        ))
      calls.append(
        (
          "sync of a transfer as a mapping",
          {
            dmacore_sync_for_cpu(
              self.board.device, segment.dma, UInt64(segment.size), wish.direction)
          }
        ))
      calls.append(
        (
          "unmap of a transfer as a list",
          {
            var list = dmacore_sg()
            dmacore_sg_init(&list, 1)
            (list.dma, list.dma_size) = (dma, size)
            list.path = UInt16(DMACORE_PATH_IOMMU.rawValue)
            return dmacore_unmap_list(
              self.board.device, &list, 1, wish.direction, wish.attributes)
          }
        ))
    }
    let (what, call) = calls[kind % calls.count]
    try demandSame(call(), -22, "result of \(what)")
    try demand(live.transfer.opaque == before, "\(what) changed the transfer")
    return 1
  }

  /// Maps the ranges of a transfer one by one beside it.
  private func mapApart(_ live: Live) throws {
    let wish = live.wish
    var made: [(part: Int, dma: UInt64, attributes: UInt32)] = []
    for (index, part) in live.parts.enumerated() {
      let attributes =
        wish.attributes | (part.isMMIO ? UInt32(DMACORE_ATTR_MMIO.rawValue) : 0)
        | UInt32(DMACORE_ATTR_SKIP_CPU_SYNC.rawValue)
      var dma: UInt64 = 0
      let result = dmacore_map_phys(
        board.device, TransferBoard.phys(part.place), UInt64(part.size), wish.direction,
        attributes, &dma)
      // What fills its pages with others is copied alone, and there may be no room or it may not be.
      if result != 0 {
        try demand(
          result == -28 || path.isUntrusted && (result == -34 || result == -95),
          "result of map_phys is \(result)")
        continue
      }
      made.append((index, dma, attributes))
    }
    // What is copied was copied when it was mapped.
    if live.reads {
      for (index, dma, _) in made {
        let part = live.parts[index]
        guard !live.hasCopies else { continue }
        var found = [UInt8](repeating: 0, count: part.size)
        try demandSame(
          dmacore_view_read(board.view, dma, &found, part.size), 0, "result of view_read")
        try demand(
          found.elementsEqual(model[part.place..<part.place + part.size]), "what is read apart")
      }
      try access(live, 0, live.size, nil)
    }
    for (index, dma, attributes) in made {
      let part = live.parts[index]
      try demandSame(
        dmacore_unmap(board.device, dma, UInt64(part.size), wish.direction, attributes), 0,
        "result of unmap of a range alone")
    }
    board.notes = CacheNotes()
  }

  func compare() throws {
    let isSame = model.withUnsafeBytes { memcmp($0.baseAddress!, board.memory, $0.count) == 0 }
    guard !isSame else { return }
    let found = Array(UnsafeRawBufferPointer(start: board.memory, count: model.count))
    let place = zip(found, model).enumerated().first { $1.0 != $1.1 }!.offset
    throw Divergence("byte \(place): found \(found[place]), expected \(model[place])")
  }

  func end() throws {
    while let live = lives.popLast() { try unmap(live) }
    try compare()
    try board.demandNothingMapped(but: windowBytes)
  }
}
