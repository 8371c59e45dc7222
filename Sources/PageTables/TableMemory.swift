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

extension TablePage {
  /// The table below an entry, where `entry` is what its word says, or nil when there is none.
  @inline(__always)
  func child(at index: Int, _ entry: TableEntry) -> TablePage? {
    guard unsafe record == nil else { return recordedChild(at: index) }
    guard case .table(let address) = entry else { return nil }
    // SAFETY: only `install` and `replace` write a table word to a page of the heap, and its address is
    // that of a page that `allocateFromHeap` made.
    let words = unsafe UnsafeMutablePointer<UInt64>(bitPattern: UInt(address.rawValue))
    return unsafe TablePage(words: words.unsafelyUnwrapped, record: nil)
  }

  /// The table below an entry of a page that the caller allocated.
  @inline(__always)
  func recordedChild(at index: Int) -> TablePage? {
    guard let record = unsafe record, let children = unsafe record.pointee.children else {
      return nil
    }
    // Acquire: pairs with the release in install, so that the record and its page are filled in.
    let word = unsafe cplatform_load_acquire(children + index)
    // SAFETY: only `install` and `replace` write these words, with the address of a record or 0.
    guard let below = unsafe UnsafeMutablePointer<TableRecord>(bitPattern: UInt(word & ~isHidden))
    else {
      return nil
    }
    return unsafe TablePage(words: below.pointee.words, record: below)
  }
}

/// What is known of a table page that the caller allocated.
///
/// A walk follows the children and never a table address that it reads in the page, which others can
/// write to.
@safe
struct TableRecord {
  let words: UnsafeMutablePointer<UInt64>
  let physical: UInt64
  /// One word an entry, for a table that can have tables below it: the address of the record of that table,
  /// or 0. Its lowest bit says that the word in the page may not lead there yet.
  let children: UnsafeMutablePointer<UInt64>?

  /// The record below an entry, if there is one and the word in the page leads there by now.
  @inline(__always)
  func shownChild(at index: Int) -> UnsafeMutablePointer<TableRecord>? {
    guard let children = unsafe children else { return nil }
    // Acquire: as in recordedChild.
    let word = unsafe cplatform_load_acquire(children + index)
    // SAFETY: as in recordedChild.
    return word & isHidden == 0 ? unsafe UnsafeMutablePointer(bitPattern: UInt(word)) : nil
  }
}

// The lowest bit of a child.
private var isHidden: UInt64 { 1 }

/// Where table pages come from, and how one leads to the next.
@safe
struct TableMemory: ~Copyable {
  private let allocator: dmacore_table_allocator?
  // Of the pages; or of the records of the caller's.
  private let pool: TablePool
  private let size: Int
  /// Whether a page of the heap has a word beside each entry, which is the caller's: as many words follow.
  let hasTags: Bool
  // The highest byte that what walks the tables can address.
  private let lastPhysical: UInt64
  /// Pages in use.
  let count = Atomic<UInt64>(0)

  /// - Parameters:
  ///   - allocator: nil for the heap.
  ///   - outputBits: of an address.
  /// - Throws: `noMemory`.
  init(
    allocator: dmacore_table_allocator?, granule: Granule, outputBits: Int, hasTags: Bool
  ) throws(Failure) {
    // No format but one has a wider field for the address of a table.
    lastPhysical = UInt64.max &>> UInt64(truncatingIfNeeded: 64 &- min(outputBits, 52))
    // A record and its label take 48 bytes.
    let shift = unsafe allocator == nil ? granule.shift &+ (hasTags ? 1 : 0) : 5
    pool = try TablePool(shift: shift)
    unsafe self.allocator = allocator
    size = Int(granule.bytes)
    self.hasTags = unsafe hasTags && allocator == nil
  }

  private static func entryCount(_ size: Int) -> Int { size / MemoryLayout<UInt64>.stride }

  // MARK: - Pages

  /// A page of zeroes for a table at `level`.
  ///
  /// - Parameter size: in bytes, for a root that is larger than other tables.
  /// - Throws: `noMemory`, also when the caller's allocator gave a page that is not aligned.
  @inline(never)
  func allocate(level: Int, size: Int? = nil) throws(Failure) -> TablePage {
    let size = size ?? self.size
    let page =
      if let allocator = unsafe allocator {
        unsafe try allocate(from: allocator, level: level, size)
      } else {
        try allocateFromHeap(size)
      }
    unsafe RawMemory.clear(page.words, size: hasTags && size == self.size ? 2 * size : size)
    if size == self.size { unsafe label(page).setWords(page.words) }
    count.wrappingAdd(1, ordering: .relaxed)
    return page
  }

  private func allocateFromHeap(_ size: Int) throws(Failure) -> TablePage {
    // SAFETY: a page of the pool is aligned to its size and holds nothing else.
    if size == self.size { return unsafe page(try pool.take()).unsafelyUnwrapped }
    let raw = unsafe try RawMemory.allocate(size, alignment: size)
    // SAFETY: the allocation is a page, aligned to its size, and holds nothing else.
    return unsafe TablePage(
      words: raw.bindMemory(to: UInt64.self, capacity: Self.entryCount(size)), record: nil)
  }

  private func allocate(
    from allocator: dmacore_table_allocator, level: Int, _ size: Int
  ) throws(Failure) -> TablePage {
    let count = Self.entryCount(size)
    // SAFETY: pages of the pool are as large as a record and aligned to that.
    let record = unsafe UnsafeMutablePointer<TableRecord>(bitPattern: try pool.take())
      .unsafelyUnwrapped
    var children: UnsafeMutablePointer<UInt64>?
    do throws(Failure) {
      if level > 0 {
        // SAFETY: the memory is for one word an entry.
        unsafe children = try RawMemory.allocate(size, alignment: 16)
          .bindMemory(to: UInt64.self, capacity: count)
        unsafe children?.initialize(repeating: 0, count: count)
      }
      let page = unsafe try askForPage(allocator, size)
      // SAFETY: the allocator's contract: a page of `size` bytes, which the table has to itself.
      let words = unsafe page.host.bindMemory(to: UInt64.self, capacity: count)
      unsafe record.initialize(
        to: TableRecord(words: words, physical: page.phys, children: children))
      return unsafe TablePage(words: words, record: record)
    } catch {
      if let children = unsafe children { unsafe RawMemory.free(children) }
      pool.give(UInt(bitPattern: record))
      throw error
    }
  }

  private func askForPage(
    _ allocator: dmacore_table_allocator, _ size: Int
  ) throws(Failure) -> dmacore_table_page {
    ThreadRules.willCallBack()
    var page = unsafe dmacore_table_page(host: nil, phys: 0)
    guard unsafe allocator.allocate(size, &page, allocator.opaque) == 0 else { throw .noMemory }
    let mask = UInt64(size - 1)
    let isAligned = unsafe (UInt64(UInt(bitPattern: page.host)) | page.phys) & mask == 0
    guard unsafe page.host != nil, unsafe isAligned && page.phys <= lastPhysical else {
      if unsafe page.host != nil { unsafe allocator.free(&page, size, allocator.opaque) }
      throw .noMemory
    }
    return unsafe page
  }

  @inline(never)
  func free(_ page: TablePage, size: Int? = nil) {
    count.wrappingSubtract(1, ordering: .relaxed)
    guard let allocator = unsafe allocator, let record = unsafe page.record else {
      if (size ?? self.size) == self.size {
        pool.give(number(page))
      } else {
        unsafe RawMemory.free(page.words)
      }
      return
    }
    var given = unsafe dmacore_table_page(host: page.words, phys: record.pointee.physical)
    if let children = unsafe record.pointee.children { unsafe RawMemory.free(children) }
    pool.give(number(page))
    ThreadRules.willCallBack()
    unsafe allocator.free(&given, size ?? self.size, allocator.opaque)
  }

  func physical(_ page: TablePage) -> PhysicalAddress {
    if let record = unsafe page.record { return unsafe PhysicalAddress(record.pointee.physical) }
    return PhysicalAddress(UInt64(UInt(bitPattern: unsafe page.words)))
  }

  // MARK: - Pages as numbers

  /// What a page is known by in one word: an address, a multiple of 16 and not 0.
  func number(_ page: TablePage) -> UInt {
    if let record = unsafe page.record { return UInt(bitPattern: record) }
    return UInt(bitPattern: unsafe page.words)
  }

  /// The page that `number` gave this for, or nil for 0.
  func page(_ number: UInt) -> TablePage? {
    guard number != 0 else { return nil }
    if unsafe allocator == nil {
      // SAFETY: the number of a page of the heap is the address of its words.
      return unsafe TablePage(
        words: UnsafeMutablePointer(bitPattern: number).unsafelyUnwrapped, record: nil)
    }
    // SAFETY: the number of any other page is the address of its record.
    let record = unsafe UnsafeMutablePointer<TableRecord>(bitPattern: number).unsafelyUnwrapped
    return unsafe TablePage(words: record.pointee.words, record: record)
  }

  /// Links a page, to which no entry leads, to another or to 0.
  func link(_ page: TablePage, to next: UInt) { pool.link(number(page), to: next) }

  /// The number of the page that a page is linked to.
  func next(_ page: TablePage) -> UInt { pool.next(number(page)) }

  /// The label of a page. That of a root which is larger than other tables is not to be used.
  func label(_ page: TablePage) -> TableLabel { pool.label(number(page)) }

  // MARK: - Links

  /// Puts a table below an entry that has none, unless another thread is faster.
  func install(
    _ child: TablePage, below page: TablePage, at index: Int, word: UInt64
  ) -> Bool {
    if let record = unsafe page.record {
      let address = UInt64(UInt(bitPattern: unsafe child.record))
      // Release: pairs with the acquire in child, so that the page is zeroed before it is found.
      let place = unsafe record.pointee.children.unsafelyUnwrapped + index
      guard unsafe cplatform_replace_release(place, 0, address | isHidden) else { return false }
      unsafe cplatform_store_release(page.words + index, word)
      // Release: whoever finds the address alone can rely on the word.
      unsafe cplatform_store_release(place, address)
      return true
    }
    // Release: pairs with the acquire of the walks, so that the page is zeroed before it is found.
    return unsafe cplatform_replace_release(page.words + index, 0, word)
  }

  /// Makes sure that the word above a table says so, before anything below is said to be mapped:
  /// the thread that installed the table may not have come to it yet.
  func show(below page: TablePage, at index: Int, word: UInt64) {
    guard let children = unsafe page.record?.pointee.children,
      unsafe cplatform_load_acquire(children + index) & isHidden != 0
    else { return }
    unsafe cplatform_store_release(page.words + index, word)
  }

  /// Puts a table in place of a leaf, unless that has changed.
  func replace(
    leaf: UInt64, below page: TablePage, at index: Int, by child: TablePage, word: UInt64
  ) -> Bool {
    // Release: pairs with the acquire of the walks.
    guard let children = unsafe page.record?.pointee.children else {
      return unsafe cplatform_replace_release(page.words + index, leaf, word)
    }
    let place = unsafe children + index
    let address = UInt64(number(child))
    guard unsafe cplatform_replace_release(place, 0, address | isHidden) else { return false }
    guard unsafe cplatform_replace_release(page.words + index, leaf, word) else {
      unsafe cplatform_store_release(place, 0)
      return false
    }
    unsafe cplatform_store_release(place, address)
    return true
  }

  /// Takes the table below an entry out; `word` is what stands there from now on.
  func replace(below page: TablePage, at index: Int, by word: UInt64) {
    if let children = unsafe page.record?.pointee.children {
      unsafe cplatform_store_release(children + index, 0)
    }
    // Release: pairs with the acquire of the walks.
    unsafe cplatform_store_release(page.words + index, word)
  }
}
