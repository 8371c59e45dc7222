// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

extension IOVASpace {
  /// Calls `body` for each range of the space, from the lowest address up, until it says no.
  ///
  /// No lock is held meanwhile. Each range is looked up where the last one ended; so they cover the
  /// space, whatever changes.
  public func visit(_ body: (IOVARange, Use) -> Bool) {
    drain()
    visit(from: bounds.first.rawValue, body)
  }

  private func visit(from first: UInt64, _ body: (IOVARange, Use) -> Bool) {
    var next = IOVA(first)
    while true {
      let (range, use) = use(at: next)
      ThreadRules.willCallBack()
      guard body(range, use), range.last < bounds.last else { return }
      next = IOVA(range.last.rawValue &+ 1)
    }
  }

  /// Calls `callback` with each line of a description for a person. No lock is held meanwhile.
  ///
  /// The numbers come first, then a map, then the free ranges by their lengths.
  @_optimize(size)
  public func dump(_ callback: dmacore_iova_dump_fn, opaque: UnsafeMutableRawPointer?) {
    drain()
    let dump = unsafe IOVADump(callback: callback, opaque: opaque)
    dump.write(statistics, bounds: bounds, granule: granule)
    drawMap(dump)
    countFree(dump)
  }

  // MARK: - Map

  /// Draws the parts of the space that are in use, each as a row of cells, and says how much lies
  /// between.
  ///
  /// A part ends where more is free than it has covered so far, and enough to be worth a line. So
  /// what is close together is drawn large, however far from it the rest is.
  @_optimize(size)
  private func drawMap(_ dump: IOVADump) {
    let leastBetween = granule.bytes > UInt64.max / 64 ? UInt64.max : granule.bytes &* 64
    var isInPart = false
    var first: UInt64 = 0
    var last: UInt64 = 0
    dump.writeLegend()
    visit(from: bounds.first.rawValue) { range, use in
      if use != .free {
        if !isInPart { first = range.first.rawValue }
        isInPart = true
        last = range.last.rawValue
        return true
      }
      let isBetween = range.extent > last &- first && range.extent >= leastBetween
      if isInPart && !isBetween && range.last < bounds.last { return true }
      if isInPart { drawPart(dump, first: first, last: last) }
      isInPart = false
      dump.writeFree(range.extent)
      return true
    }
    if isInPart { drawPart(dump, first: first, last: last) }
  }

  @_optimize(size)
  private func drawPart(_ dump: IOVADump, first: UInt64, last: UInt64) {
    IOVAMapRow.with(first: first, last: last, granule: granule) { row in
      visit(from: first) { range, use in
        if range.first.rawValue <= last {
          row.add(range.first.rawValue, min(range.last.rawValue, last), use)
        }
        return range.last.rawValue < last
      }
      dump.write(row)
    }
  }

  // MARK: - Free ranges

  /// Says how many free ranges there are of each length, by powers of two.
  @_optimize(size)
  private func countFree(_ dump: IOVADump) {
    unsafe withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 64) { counts in
      unsafe counts.initialize(repeating: 0)
      visit(from: bounds.first.rawValue) { range, use in
        if use == .free {
          // The extent is the length less one: of all 2^64 bytes the highest power is 63 as well.
          let length = range.extent == UInt64.max ? UInt64.max : range.extent &+ 1
          let order = 63 &- length.leadingZeroBitCount
          let count = unsafe counts[order]
          unsafe counts[order] = count &+ 1
        }
        return true
      }
      dump.writeFreeHeading()
      for order in 0..<64 where unsafe counts[order] > 0 {
        dump.writeFree(order: order, count: unsafe counts[order])
      }
    }
  }
}

/// Up to 64 cells of a part of a space, and how much of each is in use.
@safe
struct IOVAMapRow: ~Copyable {
  static var cellsMax: Int { 64 }

  let first: UInt64
  let last: UInt64
  let cellSize: UInt64
  let cellCount: Int
  // Bytes in use, and those of them that are reserved, by cell.
  private let used: UnsafeMutableBufferPointer<UInt64>

  static func with(
    first: UInt64, last: UInt64, granule: Granule, _ body: (inout IOVAMapRow) -> Void
  ) {
    unsafe withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 2 * cellsMax) { used in
      unsafe used.initialize(repeating: 0)
      // Whole granules: no more than 2^58 bytes, or one granule.
      let least = (last &- first) / UInt64(cellsMax) &+ 1
      let size = max(granule.bytes, (least &+ granule.mask) & ~granule.mask)
      var row = unsafe IOVAMapRow(
        first: first, last: last, cellSize: size, cellCount: Int((last &- first) / size) + 1,
        used: used)
      body(&row)
    }
  }

  mutating func add(_ first: UInt64, _ last: UInt64, _ use: IOVASpace.Use) {
    guard use != .free else { return }
    var cell = Int((first &- self.first) / cellSize)
    var next = first
    while true {
      let cellLast = self.first &+ UInt64(cell) &* cellSize &+ (cellSize &- 1)
      // The last cell may reach over the end of the space.
      let end = cellLast < next ? last : min(cellLast, last)
      let bytes = end &- next &+ 1
      // Read and then written: the thread sanitizer's compiler fails where `&+=` does both.
      let counted = unsafe used[2 * cell]
      unsafe used[2 * cell] = counted &+ bytes
      if use == .reserved {
        let reserved = unsafe used[2 * cell + 1]
        unsafe used[2 * cell + 1] = reserved &+ bytes
      }
      if end == last { return }
      next = end &+ 1
      cell &+= 1
    }
  }

  /// How a cell is drawn.
  func append(_ cell: Int, to text: inout TextBuffer) {
    let bytes = unsafe used[2 * cell]
    let reserved = unsafe used[2 * cell + 1]
    let isLast = cell == cellCount - 1
    let size = isLast ? (last &- first) % cellSize &+ 1 : cellSize
    if bytes == 0 {
      text.append(".")
    } else if bytes == reserved {
      text.append("r")
    } else if bytes >= size {
      text.append("#")
    } else {
      // A cell is at most 2^58 bytes, or it is one granule and never used in part.
      text.append(decimal: max(1, bytes * 10 / size))
    }
  }
}

/// The lines of a description.
@safe
struct IOVADump {
  private let callback: dmacore_iova_dump_fn
  private let opaque: UnsafeMutableRawPointer?

  init(callback: dmacore_iova_dump_fn, opaque: UnsafeMutableRawPointer?) {
    unsafe self.callback = callback
    unsafe self.opaque = opaque
  }

  @_optimize(size)
  @inline(never)
  private func write(_ text: borrowing TextBuffer) {
    ThreadRules.willCallBack()
    unsafe text.withCString { text in unsafe callback(text, opaque) }
  }

  @_optimize(size)
  func write(_ statistics: IOVASpace.Statistics, bounds: IOVARange, granule: Granule) {
    var text = TextBuffer()
    text.append("IOVA space ")
    Self.append(bounds.first.rawValue, bounds.last.rawValue, to: &text)
    text.append(", granule ")
    text.append(bytes: granule.bytes)
    write(text)
    text = TextBuffer()
    text.append("  allocated: ")
    text.append(decimal: statistics.allocatedCount)
    text.append(statistics.allocatedCount == 1 ? " range, " : " ranges, ")
    text.append(bytes: statistics.allocatedBytes)
    text.append("; reserved: ")
    text.append(decimal: statistics.reservedCount)
    text.append(statistics.reservedCount == 1 ? " range, " : " ranges, ")
    text.append(bytes: statistics.reservedBytes)
    write(text)
    text = TextBuffer()
    text.append("  free: ")
    text.append(bytes: statistics.freeBytes)
    text.append(", the longest range ")
    text.append(bytes: statistics.largestFreeBytes)
    write(text)
  }

  @_optimize(size)
  func writeLegend() {
    var text = TextBuffer()
    text.append("where (# in use, 1 to 9 tenths of it, r reserved, . free):")
    write(text)
  }

  @_optimize(size)
  func write(_ row: borrowing IOVAMapRow) {
    var text = TextBuffer()
    text.append("  ")
    Self.append(row.first, row.last, to: &text)
    text.append(" |")
    for cell in 0..<row.cellCount { row.append(cell, to: &text) }
    text.append("| a cell: ")
    text.append(bytes: row.cellSize)
    write(text)
  }

  @_optimize(size)
  func writeFree(_ extent: UInt64) {
    var text = TextBuffer()
    text.append("  ")
    text.append(bytes: extent == UInt64.max ? extent : extent &+ 1)
    text.append(" free")
    write(text)
  }

  @_optimize(size)
  func writeFreeHeading() {
    var text = TextBuffer()
    text.append("free ranges by length:")
    write(text)
  }

  @_optimize(size)
  func writeFree(order: Int, count: UInt64) {
    var text = TextBuffer()
    text.append("  from ")
    text.append(bytes: 1 &<< UInt64(order))
    text.append(": ")
    text.append(decimal: count)
    write(text)
  }

  private static func append(_ first: UInt64, _ last: UInt64, to text: inout TextBuffer) {
    text.append(hexadecimal: first)
    text.append("...")
    text.append(hexadecimal: last)
  }
}

extension TextBuffer {
  /// Appends a number of bytes in the largest unit of which there is one, with a tenth if there is a
  /// rest. The largest number stands for 2^64.
  @inline(never)
  @_optimize(size)
  mutating func append(bytes: UInt64) {
    let unit = bytes == 0 ? 0 : (63 &- bytes.leadingZeroBitCount) / 10
    if bytes == UInt64.max {
      append("16 EiB")
      return
    }
    let shift = UInt64(unit * 10)
    append(decimal: bytes &>> shift)
    // Ten times the rest of at most 60 bits fits.
    let rest = bytes & ((1 &<< shift) &- 1)
    let tenth = (rest * 10) &>> shift
    if tenth > 0 {
      append(".")
      append(decimal: tenth)
    }
    switch unit {
    case 0: append(" bytes")
    case 1: append(" KiB")
    case 2: append(" MiB")
    case 3: append(" GiB")
    case 4: append(" TiB")
    case 5: append(" PiB")
    default: append(" EiB")
    }
  }
}
