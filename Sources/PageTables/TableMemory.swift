// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import CPlatform
import Primitives
import Synchronization

/// One table page, as this library reaches it.
///
/// A page from the heap is known by its words alone: its physical address is its address here. For
/// a page of the caller's allocator a `TableRecord` says what else must be known.
@safe
struct TablePage {
  let words: UnsafeMutablePointer<UInt64>
  let record: UnsafeMutablePointer<TableRecord>?
}

/// What is known of a table page that the caller allocated.
///
/// Behind the record lies one word an entry, for a table that can have tables below it: the address
/// of the record of that table, or 0. A walk follows these words and never a table address that it
/// reads in the page, which others can write to.
@safe
struct TableRecord {
  let words: UnsafeMutablePointer<UInt64>
  let physical: UInt64
  /// The next one in a list of tables that are not in use yet.
  var nextWords: UnsafeMutablePointer<UInt64>?
  var nextRecord: UnsafeMutablePointer<TableRecord>?
}

/// Tables that are made and not in use yet.
///
/// A page of the heap is linked by its first word, which nobody else can write.
@safe
struct TableList: ~Copyable {
  private var first: TablePage?

  init() { first = nil }

  mutating func push(_ page: TablePage) {
    if let record = unsafe page.record {
      unsafe record.pointee.nextWords = first?.words
      unsafe record.pointee.nextRecord = first?.record
    } else {
      unsafe page.words.pointee = UInt64(UInt(bitPattern: first?.words))
    }
    first = page
  }

  /// A table of zeroes, as it was given.
  mutating func pop() -> TablePage? {
    guard let page = first else { return nil }
    if let record = unsafe page.record {
      if let words = unsafe record.pointee.nextWords {
        first = unsafe TablePage(words: words, record: record.pointee.nextRecord)
      } else {
        first = nil
      }
      return page
    }
    // SAFETY: `push` stored the address of the words of a page that it was given, or 0.
    if let words = unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(page.words.pointee)) {
      first = unsafe TablePage(words: words, record: nil)
    } else {
      first = nil
    }
    unsafe page.words.pointee = 0
    return page
  }
}

/// Where table pages come from, and how one leads to the next.
@safe
struct TableMemory: ~Copyable {
  private let allocator: dmacore_table_allocator?
  private let size: Int
  /// Pages in use.
  let count = Atomic<UInt64>(0)

  /// - Parameter allocator: nil for the heap.
  init(allocator: dmacore_table_allocator?, granule: Granule) {
    unsafe self.allocator = allocator
    size = Int(granule.bytes)
  }

  private var entryCount: Int { size / MemoryLayout<UInt64>.stride }

  // MARK: - Pages

  /// A page of zeroes for a table at `level`.
  ///
  /// - Throws: `noMemory`, also when the caller's allocator gave a page that is not aligned.
  func allocate(level: Int) throws(Failure) -> TablePage {
    let page =
      if let allocator = unsafe allocator {
        unsafe try allocate(from: allocator, level: level)
      } else {
        try allocateFromHeap()
      }
    unsafe page.words.update(repeating: 0, count: entryCount)
    count.wrappingAdd(1, ordering: .relaxed)
    return page
  }

  private func allocateFromHeap() throws(Failure) -> TablePage {
    let raw = unsafe try RawMemory.allocate(size, alignment: size)
    // SAFETY: the allocation is a page, aligned to its size, and holds nothing else.
    return unsafe TablePage(
      words: raw.bindMemory(to: UInt64.self, capacity: entryCount), record: nil)
  }

  private func allocate(
    from allocator: dmacore_table_allocator, level: Int
  ) throws(Failure) -> TablePage {
    let header = MemoryLayout<TableRecord>.stride
    let children = level == 0 ? 0 : size
    let raw = unsafe try RawMemory.allocate(header + children, alignment: 16)
    ThreadRules.willCallBack()
    var page = unsafe dmacore_table_page(host: nil, phys: 0)
    guard unsafe allocator.allocate(size, &page, allocator.opaque) == 0 else {
      unsafe RawMemory.free(raw)
      throw .noMemory
    }
    let mask = UInt64(size - 1)
    let isAligned = unsafe (UInt64(UInt(bitPattern: page.host)) | page.phys) & mask == 0
    guard let host = unsafe page.host, unsafe isAligned && page.phys <= Self.lastPhysical else {
      if unsafe page.host != nil { unsafe allocator.free(&page, size, allocator.opaque) }
      unsafe RawMemory.free(raw)
      throw .noMemory
    }
    // SAFETY: the allocator's contract: a page of `size` bytes, which the table has to itself.
    let words = unsafe host.bindMemory(to: UInt64.self, capacity: entryCount)
    // SAFETY: `raw` has room for the record and, at a level above 0, for one word an entry.
    let record = unsafe raw.bindMemory(to: TableRecord.self, capacity: 1)
    unsafe record.initialize(to: TableRecord(words: words, physical: page.phys))
    if level != 0 { unsafe Self.children(of: record).update(repeating: 0, count: entryCount) }
    return unsafe TablePage(words: words, record: record)
  }

  // No format has a wider field for the address of a table.
  private static var lastPhysical: UInt64 { (1 &<< 52) &- 1 }

  func free(_ page: TablePage) {
    count.wrappingSubtract(1, ordering: .relaxed)
    guard let allocator = unsafe allocator, let record = unsafe page.record else {
      unsafe RawMemory.free(page.words)
      return
    }
    var given = unsafe dmacore_table_page(host: page.words, phys: record.pointee.physical)
    unsafe RawMemory.free(record)
    ThreadRules.willCallBack()
    unsafe allocator.free(&given, size, allocator.opaque)
  }

  func physical(_ page: TablePage) -> PhysicalAddress {
    if let record = unsafe page.record { return unsafe PhysicalAddress(record.pointee.physical) }
    return PhysicalAddress(UInt64(UInt(bitPattern: unsafe page.words)))
  }

  // MARK: - Links

  /// The words behind a record. Only for tables above level 0.
  private static func children(
    of record: UnsafeMutablePointer<TableRecord>
  ) -> UnsafeMutablePointer<UInt64> {
    // SAFETY: `allocate` made room for one word an entry behind the record of such a table; the
    // record's stride is a multiple of a word.
    unsafe UnsafeMutableRawPointer(record + 1).assumingMemoryBound(to: UInt64.self)
  }

  /// The table below an entry, where `entry` is what its word says, or nil when there is none.
  func child(of page: TablePage, at index: Int, entry: TableEntry) -> TablePage? {
    guard let record = unsafe page.record else {
      guard case .table(let address) = entry else { return nil }
      // SAFETY: only `install` writes a table word to a page of the heap, and its address is that
      // of a page that `allocateFromHeap` made.
      let words = unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(address.rawValue))
      return unsafe TablePage(words: words!, record: nil)
    }
    // Acquire: pairs with the release in install, so that the record and its page are filled in.
    let word = unsafe cplatform_load_acquire(Self.children(of: record) + index)
    // SAFETY: only `install` writes these words, with the address of a record or 0.
    guard let below = unsafe UnsafeMutablePointer<TableRecord>(bitPattern: UInt(word)) else {
      return nil
    }
    return unsafe TablePage(words: below.pointee.words, record: below)
  }

  /// Puts a table below an entry that has none, unless another thread is faster.
  func install(
    _ child: TablePage, below page: TablePage, at index: Int, word: UInt64
  ) -> Bool {
    if let record = unsafe page.record {
      let address = UInt64(UInt(bitPattern: unsafe child.record))
      // Release: pairs with the acquire in child, so that the page is zeroed before it is found.
      guard unsafe cplatform_replace_release(Self.children(of: record) + index, 0, address) else {
        return false
      }
      unsafe cplatform_store_release(page.words + index, word)
      return true
    }
    // Release: pairs with the acquire of the walks, so that the page is zeroed before it is found.
    return unsafe cplatform_replace_release(page.words + index, 0, word)
  }

  /// Makes sure that the word above a table says so, before anything below is said to be mapped:
  /// the thread that installed the table may not have come to it yet.
  func show(below page: TablePage, at index: Int, word: UInt64) {
    guard unsafe page.record != nil, unsafe cplatform_load_relaxed(page.words + index) != word
    else { return }
    unsafe cplatform_store_release(page.words + index, word)
  }

  /// Takes the table below an entry out, before a leaf is stored there.
  func unlink(below page: TablePage, at index: Int) {
    guard let record = unsafe page.record else { return }
    unsafe cplatform_store_release(Self.children(of: record) + index, 0)
  }
}
