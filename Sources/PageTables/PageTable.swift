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
// leaf that maps the whole span of its level.
//
// 2. Implementation
// 2.1 Map goes down to the lowest table that its whole range lies in, and from there makes three
// passes over the range. The first looks for anything live and refuses the call if it finds any.
// The second makes all tables that are missing, and keeps them to itself; it is the only one that
// can run out of memory, and then frees what it made. The third puts the tables in place and stores
// the leaves, and cannot fail.
// 2.2 Leaves are as large as both addresses and the range allow. Where a larger leaf goes and an
// empty table is in the way, the leaf replaces the table. A walker may be inside that table, so it
// is retired and freed by `reclaim`, when the caller knows that no walker is.
// 2.3 Unmap looks at both ends of its range first, and refuses to cut through a leaf; then it
// clears leaves. It frees nothing and needs no memory.
//
// 3. Concurrency
// Walks take no lock and may run beside everything but the freeing of pages. Calls that change
// disjoint ranges may run beside each other: they share tables above the leaves and nothing else,
// and those are put in place with compare-and-swap. A table that a leaf replaces is covered wholly
// by the range being mapped, so no other caller is inside. Overlapping changes are the caller's to
// serialize.
// A word is stored with release and loaded with acquire: a walker that finds a table finds it
// zeroed, and one that finds a leaf finds whatever was written before it was mapped.
//
// 4. What this does not do
// It keeps no translation cached and invalidates none. It does not know when walkers are gone. It
// does not free tables that unmapping leaves empty until a larger leaf takes their place, or the
// whole page table ends.

/// A page table of one format, and the memory that its pages lie in.
@safe
public struct PageTable<Format: PageTableFormat>: ~Copyable {
  /// An empty table that a leaf has replaced; a list of them waits for `reclaim`.
  @safe
  struct Retired {
    let page: TablePage
    let level: Int
    /// Tables, this one and all below.
    var count: UInt64
    var next: UnsafeMutablePointer<Retired>?
  }

  let memory: TableMemory
  let root: TablePage
  let topLevel: Int
  let mapped = Atomic<UInt64>(0)
  // The address of the last one retired, 0 for none; and how many tables wait with them.
  private let retired = Atomic<UInt>(0)
  private let retiredCount = Atomic<UInt64>(0)

  /// - Parameter levels: number of levels.
  /// - Throws: `invalidArgument` when the format has no such table, `noMemory`.
  public init(levels: Int, allocator: dmacore_table_allocator?) throws(Failure) {
    guard Format.levelCounts.contains(levels) else { throw .invalidArgument }
    let memory = unsafe TableMemory(allocator: allocator, granule: Format.granule)
    let root = try memory.allocate(level: levels - 1)
    self.memory = memory
    self.root = root
    self.topLevel = levels - 1
  }

  deinit {
    reclaim(after: {})
    freeTables(root, level: topLevel)
  }

  /// The highest address that can be mapped.
  public var lastInput: IOVA { IOVA(Format.lastInput(levels: topLevel + 1)) }

  public var lastOutput: PhysicalAddress { PhysicalAddress(Format.lastOutput) }

  public var rootAddress: PhysicalAddress { memory.physical(root) }

  public var statistics: PageTableStatistics {
    let count = memory.count.load(ordering: .relaxed)
    return PageTableStatistics(
      tableCount: count, tableBytes: count &* Format.granule.bytes,
      retiredCount: retiredTables, mappedBytes: mapped.load(ordering: .relaxed))
  }

  // MARK: - Retired tables

  /// Frees the tables that larger leaves have replaced.
  ///
  /// - Parameter wait: returns when every walk that began before it was called has ended.
  public func reclaim(after wait: () -> Void) {
    // Acquiring: pairs with the release in retire, so that the nodes are filled in.
    // SAFETY: only `retire` stores an address there, that of a node it was given.
    var next = unsafe UnsafeMutablePointer<Retired>(
      bitPattern: retired.exchange(0, ordering: .acquiring))
    guard unsafe next != nil else { return }
    // Only after the list was taken: what is retired from here on is not on it.
    wait()
    while let current = unsafe next {
      unsafe next = current.pointee.next
      unsafe retiredCount.wrappingSubtract(current.pointee.count, ordering: .relaxed)
      unsafe freeTables(current.pointee.page, level: current.pointee.level)
      unsafe Box.destroy(current)
    }
  }

  /// How many tables wait for `reclaim`.
  public var retiredTables: UInt64 { retiredCount.load(ordering: .relaxed) }

  func retire(_ node: UnsafeMutablePointer<Retired>) {
    unsafe node.pointee.count = countTables(node.pointee.page, level: node.pointee.level)
    unsafe retiredCount.wrappingAdd(node.pointee.count, ordering: .relaxed)
    var first = retired.load(ordering: .relaxed)
    while true {
      // SAFETY: see `reclaim`.
      unsafe node.pointee.next = UnsafeMutablePointer<Retired>(bitPattern: first)
      // Releasing: pairs with the acquire in reclaim. The list is taken whole, so that a node that
      // is first again by the time of the exchange is no other list's.
      let (done, now) = retired.weakCompareExchange(
        expected: first, desired: UInt(bitPattern: node), ordering: .releasing)
      if done { return }
      first = now
    }
  }

  // MARK: - Pages

  /// The entries of one lowest table that a range of addresses inside it touches. Loops over them
  /// do nearly all the work there is, and have nothing of the levels above in them.
  static func lowestIndexes(_ first: UInt64, _ last: UInt64) -> ClosedRange<Int> {
    unsafe ClosedRange(
      uncheckedBounds: (Format.index(of: first, at: 0), Format.index(of: last, at: 0)))
  }

  /// What a word says and the table below it, if there is one.
  ///
  /// In a page that the caller allocated, the record of a child counts, not the word: somebody else
  /// may have written there. A table word without a record is such a case too, or a table that is
  /// being put in place, and counts as empty.
  func entry(of page: TablePage, at index: Int, level: Int) -> (TableEntry, TablePage?) {
    // Acquire: pairs with the release stores of words.
    let word = unsafe cplatform_load_acquire(page.words + index)
    let entry = Format.decode(word, at: level)
    guard level > 0 else { return (entry, nil) }
    if let child = memory.child(of: page, at: index, entry: entry) {
      return (.table(PhysicalAddress(0)), child)
    }
    if case .table = entry { return (.empty, nil) }
    return (entry, nil)
  }

  private func freeTables(_ page: TablePage, level: Int) {
    if level > 0 {
      for index in 0..<Format.entryCount {
        if let child = entry(of: page, at: index, level: level).1 {
          freeTables(child, level: level - 1)
        }
      }
    }
    memory.free(page)
  }

  private func countTables(_ page: TablePage, level: Int) -> UInt64 {
    var count: UInt64 = 1
    if level > 0 {
      for index in 0..<Format.entryCount {
        if let child = entry(of: page, at: index, level: level).1 {
          count += countTables(child, level: level - 1)
        }
      }
    }
    return count
  }
}

/// The numbers that `pagetable.h` explains.
public struct PageTableStatistics {
  public let tableCount: UInt64
  public let tableBytes: UInt64
  public let retiredCount: UInt64
  public let mappedBytes: UInt64
}
