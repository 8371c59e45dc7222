// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import CPlatform
import Primitives
import Synchronization

// Theory of operation: page tables.
//
// 1. Concepts
// A page table is a tree of pages of words. A format (PageTableFormat) says what a word means; the
// algorithm here is the same for all. An entry is empty, leads to a table one level down, or is a
// leaf that maps the whole span of its level. A run is one leaf of several entries.
//
// 2. Implementation
// 2.1 Map goes down to the lowest table that its whole range lies in, and from there makes three
// passes over the range. The first looks for anything live and refuses the call if it finds any.
// The second makes all tables that are missing, and keeps them to itself; it is the only one that
// can run out of memory, and then frees what it made. The third puts the tables in place and stores
// the leaves, and cannot fail.
// 2.2 Leaves are as large as both addresses and the range allow.
// 2.3 Unmap looks at both ends of its range first, and refuses to cut through a leaf, or splits it when
// that is asked for, with tables that it makes before it changes anything; then it clears leaves.
// 2.4 A table that nothing needs any more is retired: one that a range unmapped covers, one in whose
// place a larger leaf goes, an empty one that is trimmed. A walker may be inside it, so it is freed by
// `reclaim`, when the caller knows that no walker is. Until then it is empty, and those that wait are
// linked to each other. Retiring needs no memory.
// 2.5 Inputs become offsets in the tree before they are used: those of a signed input lose the copies
// of their sign. The tree of a format whose tables know their level can grow: a new root is put above
// the old one.
// 2.6 Mapping, unmapping and looking up first try to go by numbers and a directory instead of formats
// and walks (PlainTable.swift), where nothing but leaves of one size in tables that are there is concerned.
//
// 3. Concurrency
// Walks take no lock and may run beside everything but the freeing of pages. Calls that change
// disjoint ranges may run beside each other: they share tables above the leaves and nothing else,
// and those are put in place with compare-and-swap. A table that is retired is covered wholly by the
// range being changed, so no other caller is inside. Overlapping changes are the caller's to serialize.
// A word is stored with release and loaded with acquire: a walker that finds a table finds it
// zeroed, and one that finds a leaf finds whatever was written before it was mapped.
//
// 4. What this does not do
// It keeps no translation cached and invalidates none. It does not know when walkers are gone.

/// A page table of one format, and the memory that its pages lie in.
@safe
struct PageTable<Format: PageTableFormat>: ~Copyable {
  let format: Format
  let geometry: PageTableGeometry
  let granule: Granule
  /// Whether all pages are of the heap.
  let isOnHeap: Bool
  let plain: PlainTable
  let memory: TableMemory
  /// The number of the root's page, and its level in the lowest bits.
  let rootNumber: Atomic<UInt>
  // The number of the table that was retired last, 0 for none; and how many there are.
  private let retired = Atomic<UInt>(0)
  private let retiredCount = Atomic<UInt64>(0)

  /// - Throws: `invalidArgument` when the format has no such table, `notSupported` when it lacks a
  ///   feature, `noMemory`.
  init(
    _ options: PageTableOptions, allocator: dmacore_table_allocator?
  ) throws(Failure) {
    let format = try Format(options)
    try unsafe self.init(format, allocator: allocator)
  }

  /// - Throws: `noMemory`.
  @_optimize(size)
  init(
    _ format: Format, allocator: dmacore_table_allocator?, hasTags: Bool = false
  ) throws(Failure) {
    let plain = try PlainTable(format)
    do throws(Failure) {
      try unsafe self.init(format, plain, allocator: allocator, hasTags: hasTags)
    } catch {
      plain.destroy()
      throw error
    }
  }

  private init(
    _ format: Format, _ plain: PlainTable, allocator: dmacore_table_allocator?, hasTags: Bool
  ) throws(Failure) {
    let geometry = format.geometry
    // A root may be larger than the pages that have tags.
    let memory = unsafe try TableMemory(
      allocator: allocator, granule: format.granule, outputBits: geometry.outputBits,
      hasTags: hasTags && geometry.levels > 1)
    let top = geometry.levels &- 1
    let root = try memory.allocate(level: top, size: Self.rootSize(format))
    self.format = format
    self.geometry = geometry
    granule = format.granule
    isOnHeap = unsafe allocator == nil
    self.plain = plain
    rootNumber = Atomic(memory.number(root) | UInt(top))
    self.memory = memory
  }

  deinit {
    reclaim(after: {})
    freeTables(root)
    plain.destroy()
  }

  /// The bytes of the root, which may resolve more bits than other tables: then it is larger than they,
  /// and lies at a multiple of that.
  private static func rootSize(_ format: Format) -> Int {
    let geometry = format.geometry
    guard geometry.levels == geometry.levelsMax else { return Int(format.granule.bytes) }
    let bits = geometry.inputBits &- format.shift(at: geometry.levels &- 1)
    return max(Int(format.granule.bytes), 8 &<< max(0, bits))
  }

  // MARK: - Addresses

  /// The highest address that can be mapped, of those that are not negative.
  var lastInput: IOVA { IOVA(geometry.lastLowInput) }

  var lastOutput: PhysicalAddress { PhysicalAddress(geometry.outputMask) }

  /// The offsets of a range.
  ///
  /// - Throws: `outOfRange` when the table can't map all of it.
  @inline(never)
  func offsets(of range: IOVARange) throws(Failure) -> (first: UInt64, last: UInt64) {
    guard let first = geometry.offset(of: range.first.rawValue),
      let last = geometry.offset(of: range.last.rawValue),
      // Not from the lower half of the addresses to the upper.
      last &- first == range.extent
    else { throw .outOfRange }
    return (first, last)
  }

  // MARK: - Root

  var root: TableNode {
    // Acquire: pairs with the release in grow.
    let number = rootNumber.load(ordering: .acquiring)
    let level = Int(number & 7)
    // The number is never 0.
    return unsafe TableNode(
      memory.page(number & ~7).unsafelyUnwrapped, level: level,
      shift: UInt64(truncatingIfNeeded: format.shift(at: level)), indexMask: UInt64.max)
  }

  var facts: PageTableFacts {
    let root = root
    return PageTableFacts(
      lastInput: lastInput, lastOutput: lastOutput, granule: granule,
      root: memory.physical(root.page), levels: root.level &+ 1)
  }

  /// The highest offset that the tree reaches.
  @inline(never)
  func lastOffset(_ root: TableNode) -> UInt64 {
    root.level &+ 1 == geometry.levelsMax
      ? geometry.inputMask : min(geometry.inputMask, format.spanMask(at: root.level &+ 1))
  }

  /// Puts a root above the root until the tree reaches an offset that the format can map.
  ///
  /// - Throws: `noMemory`; the tree has grown as far as there was memory.
  @_optimize(size)
  func grow(to offset: UInt64) throws(Failure) {
    var old = root
    while lastOffset(old) < offset {
      let level = old.level &+ 1
      let page = try memory.allocate(level: level)
      _ = memory.install(
        old.page, below: page, at: 0,
        word: format.table(memory.physical(old.page), at: old.level))
      // Acquiring and releasing: see `root`.
      let (done, _) = rootNumber.compareExchange(
        expected: memory.number(old.page) | UInt(old.level),
        desired: memory.number(page) | UInt(level),
        ordering: .acquiringAndReleasing)
      if !done { memory.free(page) }
      old = root
    }
  }

  // MARK: - Retired tables

  /// Frees the tables that nothing leads to any more.
  ///
  /// - Parameter wait: returns when every walk that began before it was called has ended.
  func reclaim(after wait: () -> Void) {
    guard retired.load(ordering: .relaxed) != 0 else { return }
    // Acquiring: pairs with the release in retire, so that the links are there.
    let first = retired.exchange(0, ordering: .acquiring)
    guard first != 0 else { return }
    // Only after the list was taken: what is retired from here on is not on it.
    wait()
    freeRetired(first)
  }

  @inline(never)
  private func freeRetired(_ first: UInt) {
    var number = first
    while let page = memory.page(number) {
      let next = memory.next(page)
      number = next == number ? 0 : next
      memory.free(page)
      // Not before: who finds none waiting can rely on the pages.
      retiredCount.wrappingSubtract(1, ordering: .releasing)
    }
  }

  /// How many tables wait for `reclaim`.
  var retiredTables: UInt64 { retiredCount.load(ordering: .acquiring) }

  /// Lets a table of zeroes wait for `reclaim`, to which no entry leads.
  private func retire(_ page: TablePage) {
    let number = memory.number(page)
    retiredCount.wrappingAdd(1, ordering: .relaxed)
    var first = retired.load(ordering: .relaxed)
    while true {
      // The last is linked to itself, for a page that is linked to nothing may still be given a role.
      memory.link(page, to: first == 0 ? number : first)
      // Releasing: pairs with the acquire in reclaim. The list is taken whole, so that a table that
      // is first again by the time of the exchange is no other list's.
      let (done, now) = retired.weakCompareExchange(
        expected: first, desired: number, ordering: .releasing)
      if done { return }
      first = now
    }
  }

  /// Puts a word in place of the table below an entry, and retires that and all below. None has a leaf.
  func replaceTable(_ child: TableNode, below page: TablePage, at index: Int, by word: UInt64) {
    memory.replace(below: page, at: index, by: word)
    retireTables(child)
  }

  private func retireTables(_ node: TableNode) {
    if node.level > 0 {
      for index in 0..<format.entryCount {
        if let child = child(of: node, at: index) {
          replaceTable(child, below: node.page, at: index, by: 0)
        }
      }
    }
    retire(node.page)
  }

  // MARK: - Entries

  /// What a word says and the table below it, if there is one.
  ///
  /// In a page that the caller allocated, the record of a child counts, not the word: somebody else
  /// may have written there. A table word without a record is such a case too, or a table that is
  /// being put in place, and counts as empty.
  @inline(never)
  func entry(of node: TableNode, at index: Int) -> (TableEntry, TableNode?) {
    // Acquire: pairs with the release stores of words.
    let word = unsafe cplatform_load_acquire(node.page.words + index)
    let entry = format.decode(word, at: node.level, index: index)
    guard node.level > 0 else { return (entry, nil) }
    if let child = node.page.child(at: index, entry) {
      return (
        .table(PhysicalAddress(0)), TableNode(child, below: node, indexBits: format.indexBits)
      )
    }
    if case .table = entry { return (.empty, nil) }
    return (entry, nil)
  }

  /// The table below an entry, if there is one.
  func child(of node: TableNode, at index: Int) -> TableNode? { entry(of: node, at: index).1 }

  /// The entries that the root has.
  func entryCount(_ node: TableNode) -> Int {
    guard node.isRoot else { return format.entryCount }
    return node.index(of: lastOffset(node)) &+ 1
  }

  func freeTables(_ node: TableNode) {
    if node.level > 0 {
      for index in 0..<entryCount(node) {
        if let child = child(of: node, at: index) { freeTables(child) }
      }
    }
    memory.free(
      node.page, size: node.isRoot ? Self.rootSize(format) : nil)
  }

  // MARK: - Statistics

  /// The caller sees to it that no table is freed meanwhile.
  var statistics: PageTableStatistics {
    let count = memory.count.load(ordering: .relaxed)
    // All but the root are of one size.
    let bytes =
      (count &- 1) &* granule.bytes &+ UInt64(Self.rootSize(format))
    return PageTableStatistics(
      tableCount: count, tableBytes: bytes, retiredCount: retiredTables,
      mappedBytes: mappedBytes(root))
  }

  private func mappedBytes(_ node: TableNode) -> UInt64 {
    var bytes: UInt64 = 0
    for index in 0..<entryCount(node) {
      let (found, child) = entry(of: node, at: index)
      if let child {
        bytes &+= mappedBytes(child)
      } else if case .leaf = found {
        bytes &+= node.spanMask &+ 1
      }
    }
    return bytes
  }
}

/// What is the same for a table whatever is mapped, but for the root of one that grows.
public struct PageTableFacts {
  /// The highest address that can be mapped, of those that are not negative.
  public let lastInput: IOVA
  public let lastOutput: PhysicalAddress
  public let granule: Granule
  public let root: PhysicalAddress
  public let levels: Int
}

/// The numbers that `pagetable.h` explains.
public struct PageTableStatistics {
  public let tableCount: UInt64
  public let tableBytes: UInt64
  public let retiredCount: UInt64
  public let mappedBytes: UInt64
}
