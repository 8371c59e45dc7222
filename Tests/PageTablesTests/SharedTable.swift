// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Foundation
import Primitives
import Synchronization
import TestSupport
import Testing

@testable import PageTables

/// A format with options, of those that differ in what threads can meet in: how a leaf is made of words,
/// how wide the root is, whether it grows, whether inputs are signed.
struct TableFamily: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let kind: PageTableKind
  let granule: UInt64
  let options: PageTableOptions
  /// Where the inputs start that threads use.
  let base: UInt64
  /// The sizes of leaves up to that of an entry of the second level.
  let leafSizes: [UInt64]

  private init(
    _ name: String, _ kind: PageTableKind, base: UInt64 = 0, leafShifts: [UInt64],
    levels: Int = 0, inputBits: Int = 0, _ features: PageTableFeatures = []
  ) {
    testDescription = name
    self.kind = kind
    granule = 1 << leafShifts[0]
    self.base = base
    options = PageTableOptions(levels: levels, inputBits: inputBits, features: features)
    leafSizes = leafShifts.map { 1 << $0 }
  }

  /// What an entry of the second level spans, which is a leaf in each of these.
  var large: UInt64 { leafSizes.last! }

  static let all = [
    TableFamily("VT-d", .vtdSecondStage, leafShifts: [12, 21], levels: 3),
    TableFamily(
      "x86-64, upper half", .x86_64, base: UInt64.max << 47, leafShifts: [12, 21],
      [.signedInput, .dirty]),
    // So far up that the root has to grow, from one level to five.
    TableFamily("AMD v1", .amdV1, base: 1 << 47, leafShifts: Array(12...21), levels: 1),
    TableFamily(
      "ARM stage 1, 4 KiB", .arm64Stage1, leafShifts: [12, 16, 21], [.runs, .dirty]),
    TableFamily(
      "ARM stage 1, 64 KiB", .arm64Stage1, leafShifts: [16, 21, 29], inputBits: 52, .runs),
    // Of two tables side by side.
    TableFamily("ARM stage 2, 16 KiB", .arm64Stage2, leafShifts: [14, 21, 25], .runs),
    TableFamily(
      "RISC-V", .riscvFirstStage, base: 1 << 37, leafShifts: [12, 16, 21], levels: 3, .runs),
  ]
}

/// A caller's pages whose physical addresses are their addresses here, so that a walker can read them
/// without a lock.
private final class FlatPages: Sendable {
  let liveCount = Atomic<Int>(0)

  var allocator: dmacore_table_allocator {
    dmacore_table_allocator(
      struct_size: MemoryLayout<dmacore_table_allocator>.size,
      allocate: { size, page, opaque in
        let pages = Unmanaged<FlatPages>.fromOpaque(opaque!).retain().takeUnretainedValue()
        let host = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: size)
        memset(host, 0xFF, size)
        page!.pointee = dmacore_table_page(host: host, phys: UInt64(UInt(bitPattern: host)))
        pages.liveCount.add(1, ordering: .relaxed)
        return 0
      },
      free: { page, _, opaque in
        page!.pointee.host.deallocate()
        let pages = Unmanaged<FlatPages>.fromOpaque(opaque!)
        pages.takeUnretainedValue().liveCount.subtract(1, ordering: .relaxed)
        pages.release()
      },
      opaque: Unmanaged.passUnretained(self).toOpaque())
  }
}

/// A page table that threads share, its readers, and the pages it is made of.
///
/// An address leads to where the address itself says, so that any thread can tell whether a leaf is right.
final class SharedTable: @unchecked Sendable {
  let family: TableFamily
  let table: AnyPageTable
  // nil for the heap.
  private let pages: FlatPages?
  private let readers: ReadSections

  init(_ family: TableFamily, isOnHeap: Bool) throws {
    self.family = family
    readers = try ReadSections()
    let pages = isOnHeap ? nil : FlatPages()
    self.pages = pages
    table = try AnyPageTable(
      PageTableConfiguration(
        kind: family.kind, granule: family.granule, options: family.options,
        allocator: pages?.allocator))
  }

  /// Where an address leads: within what each format can address, and in the same place of all leaves.
  static func target(of address: UInt64) -> UInt64 { address & ((1 << 38) - 1) | 1 << 40 }

  func map(_ first: UInt64, _ size: UInt64, _ access: Access = .read) throws {
    try table.map(
      IOVARange(first: IOVA(first), size: size), to: PhysicalAddress(Self.target(of: first)),
      access: access)
  }

  func unmap(_ first: UInt64, _ size: UInt64, splitting: Bool = false) throws {
    let range = try IOVARange(first: IOVA(first), size: size)
    let found = try table.unmap(range, crossingHoles: false, splitting: splitting)
    try demandSame(found, size, "bytes unmapped at \(hex(first))")
  }

  func reclaim() { table.reclaim(after: { readers.waitForReaders() }) }

  /// What is mapped at an address, if anything is: by the library, which may be inside a table that
  /// nothing leads to any more, and by hardware, which has only the words.
  ///
  /// - Throws: when it is mapped otherwise than it may ever be. Leaves lie in `bounds`.
  func find(
    _ address: UInt64, byWords: Bool, in bounds: ClosedRange<UInt64>, _ access: Access = .read
  ) throws -> Bool {
    let token = readers.enter()
    defer { readers.leave(token) }
    guard let found = byWords ? try walk(address) : table.lookUp(IOVA(address)) else {
      return false
    }
    var what: String { "\(hex(found.first))...\(hex(found.last)) at \(hex(address))" }
    try demand(found.first <= address && address <= found.last, what)
    guard found.isMapped else { return false }
    try demand(bounds.contains(found.first) && bounds.contains(found.last), what)
    try demandSame(found.target, Self.target(of: found.first), "target of \(what)")
    try demandSame(found.access, access, "access to \(what)")
    return true
  }

  /// As `find`, by both, of what cannot change meanwhile.
  func check(
    _ address: UInt64, isMapped: Bool, in bounds: ClosedRange<UInt64>, _ access: Access = .read
  ) throws {
    for byWords in [false, true] {
      let found = try find(address, byWords: byWords, in: bounds, access)
      try demandSame(found, isMapped, "\(hex(address)) is mapped, by \(byWords ? "words" : "call")")
    }
  }

  private func walk(_ address: UInt64) throws -> PageTableLookup? {
    let facts = table.facts
    var options = family.options
    options.levels = facts.levels
    let tables = try ForeignTable(
      kind: family.kind, granule: family.granule, options: options, root: facts.root,
      read: { address, out, _ in
        let place = UnsafeRawPointer(bitPattern: UInt(address))!
        // Acquiring: pairs with the release of the library, as a read of hardware does.
        out!.pointee = place.assumingMemoryBound(to: Atomic<UInt64>.self).pointee
          .load(ordering: .acquiring)
        return 0
      }, opaque: nil)
    do throws(WalkFault) {
      return try TableWalk(tables).translate(IOVA(address), for: [])
    } catch {
      // A table of fewer levels does not reach the address yet.
      guard error.reason == .notPresent || error.reason == .inputWidth else { throw error }
      return nil
    }
  }

  /// What must be left when everything is unmapped, and empty tables have gone.
  func checkEmpty() throws {
    try demandSame(table.statistics.mappedBytes, 0, "bytes mapped")
    try trim()
    reclaim()
    let statistics = table.statistics
    try demandSame(statistics.retiredCount, 0, "retired tables")
    try demandSame(statistics.tableCount, 1, "tables")
    if let pages { try demandSame(pages.liveCount.load(ordering: .relaxed), 1, "pages") }
  }

  private func trim() throws {
    let last = table.facts.lastInput.rawValue
    try table.trim(IOVARange(first: IOVA(0), last: IOVA(last)))
    guard family.base > last else { return }
    try table.trim(IOVARange(first: IOVA(~last), last: IOVA(UInt64.max)))
  }
}
