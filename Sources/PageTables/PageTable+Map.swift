// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

extension PageTable {
  /// Maps a range with the largest leaves that fit.
  ///
  /// - Parameter isKnownFree: whether the caller knows that nothing in the range is mapped. Then the
  ///   table is not asked, so that words which somebody else wrote to it are in nobody's way.
  /// - Throws: `invalidArgument` when something is not aligned or the access cannot be expressed,
  ///   `outOfRange` when a range is too wide for the table, `exists` when a part is mapped,
  ///   `noMemory`. Then everything is as before.
  public func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access, isKnownFree: Bool = false
  ) throws(Failure) {
    let granule = Format.granule
    guard input.isAligned(to: granule), output.isAligned(to: granule), Format.canExpress(access)
    else { throw .invalidArgument }
    guard input.last <= lastInput, output <= lastOutput,
      input.extent <= lastOutput.rawValue &- output.rawValue
    else { throw .outOfRange }
    let whole = Part(
      first: input.first.rawValue, last: input.last.rawValue, output: output.rawValue)

    let (page, level) = narrowestTable(for: whole)
    if !isKnownFree && hasLeaf(in: page, level: level, whole) { throw .exists }
    var stock = Stock()
    do throws(Failure) {
      try gather(page, level: level, whole, &stock)
    } catch {
      discard(&stock)
      throw error
    }
    store(page, level: level, whole, access, &stock)
    discard(&stock)
    mapped.wrappingAdd(input.extent &+ 1, ordering: .relaxed)
  }

  /// A part of a range being mapped that lies in one table or in one entry of it, and its output.
  ///
  /// Unchecked arithmetic on parts depends on the checks in `map`: neither side wraps.
  private struct Part {
    let first: UInt64
    let last: UInt64
    let output: UInt64

    /// The part of this one in the entry at `level` that `address` lies in.
    func entry(at address: UInt64, level: Int) -> Part {
      Part(
        first: address, last: min(last, address | Format.spanMask(at: level)),
        output: output &+ (address &- first))
    }

    /// Whether this part, of one entry at `level`, can be a leaf there.
    func fitsLeaf(at level: Int) -> Bool {
      let mask = Format.spanMask(at: level)
      return Format.hasLeaf(at: level) && (first | output) & mask == 0 && last == first | mask
    }
  }

  /// All that `store` needs: tables that are missing, and nodes for tables that leaves replace.
  @safe
  private struct Stock: ~Copyable {
    // A table at level 0 has no tables below, and so no room to know of any.
    private var lowest = TableList()
    private var upper = TableList()
    // Nodes in the order in which they were added, because both passes go the same way.
    private var first: UnsafeMutablePointer<Retired>?
    private var last: UnsafeMutablePointer<Retired>?

    init() {
      unsafe first = nil
      unsafe last = nil
    }

    deinit {
      var next = unsafe first
      while let current = unsafe next {
        unsafe next = current.pointee.next
        unsafe Box.destroy(current)
      }
    }

    mutating func add(_ page: TablePage, level: Int) {
      if level == 0 { lowest.push(page) } else { upper.push(page) }
    }

    mutating func takeTable(level: Int) -> TablePage? {
      level == 0 ? lowest.pop() : upper.pop()
    }

    mutating func addNode(for page: TablePage, level: Int) throws(Failure) {
      let node = unsafe try Box<Retired>.place { () throws(Failure) in
        unsafe Retired(page: page, level: level, count: 0, next: nil)
      }
      if let last = unsafe last {
        unsafe last.pointee.next = node
      } else {
        unsafe first = node
      }
      unsafe last = node
    }

    /// The node for a table, or nil for a table that `addNode` was not told of.
    mutating func takeNode(for page: TablePage) -> UnsafeMutablePointer<Retired>? {
      guard let node = unsafe first, unsafe node.pointee.page.words == page.words else {
        return nil
      }
      unsafe first = node.pointee.next
      return unsafe node
    }
  }

  /// Frees the tables that were not needed after all.
  private func discard(_ stock: inout Stock) {
    while let page = stock.takeTable(level: 0) { memory.free(page) }
    while let page = stock.takeTable(level: 1) { memory.free(page) }
  }

  /// The lowest table that is there and that the whole part goes through. The passes start there.
  private func narrowestTable(for part: Part) -> (TablePage, level: Int) {
    var page = root
    var level = topLevel
    while level > 0, part.last <= part.first | Format.spanMask(at: level),
      !part.fitsLeaf(at: level),
      let child = child(of: page, at: Format.index(of: part.first, at: level), level: level)
    {
      page = child
      level &-= 1
    }
    return (page, level)
  }

  /// The table below an entry, if there is one. Whoever maps below it can rely on its word.
  private func child(of page: TablePage, at index: Int, level: Int) -> TablePage? {
    guard let child = entry(of: page, at: index, level: level).1 else { return nil }
    memory.show(below: page, at: index, word: Format.table(memory.physical(child)))
    return child
  }

  /// Whether anything in the part is mapped.
  private func hasLeaf(in page: TablePage, level: Int, _ part: Part) -> Bool {
    if level == 0 {
      for index in Self.lowestIndexes(part.first, part.last) {
        let word = unsafe cplatform_load_acquire(page.words + index)
        if case .leaf = Format.decode(word, at: 0) { return true }
      }
      return false
    }
    var address = part.first
    while true {
      let entryPart = part.entry(at: address, level: level)
      let (found, child) = entry(
        of: page, at: Format.index(of: address, at: level), level: level)
      if case .leaf = found { return true }
      if let child, hasLeaf(in: child, level: level - 1, entryPart) { return true }
      guard entryPart.last < part.last else { return false }
      address = entryPart.last &+ 1
    }
  }

  /// Makes every table that `store` will need, and a node for each one that it will replace.
  private func gather(
    _ page: TablePage, level: Int, _ part: Part, _ stock: inout Stock
  ) throws(Failure) {
    guard level > 0 else { return }
    var address = part.first
    while true {
      let entryPart = part.entry(at: address, level: level)
      let index = Format.index(of: address, at: level)
      let child = entry(of: page, at: index, level: level).1
      if entryPart.fitsLeaf(at: level) {
        if let child { try stock.addNode(for: child, level: level - 1) }
      } else if let child {
        try gather(child, level: level - 1, entryPart, &stock)
      } else {
        try gatherMissing(level: level - 1, entryPart, &stock)
      }
      guard entryPart.last < part.last else { return }
      address = entryPart.last &+ 1
    }
  }

  /// Makes the table at `level` for the part, and those that it will need below.
  private func gatherMissing(
    level: Int, _ part: Part, _ stock: inout Stock
  ) throws(Failure) {
    stock.add(try memory.allocate(level: level), level: level)
    guard level > 0 else { return }
    var address = part.first
    while true {
      let entryPart = part.entry(at: address, level: level)
      if !entryPart.fitsLeaf(at: level) {
        try gatherMissing(level: level - 1, entryPart, &stock)
      }
      guard entryPart.last < part.last else { return }
      address = entryPart.last &+ 1
    }
  }

  /// Puts the tables in place and stores the leaves.
  private func store(
    _ page: TablePage, level: Int, _ part: Part, _ access: Access, _ stock: inout Stock
  ) {
    if level == 0 {
      var output = part.output
      for index in Self.lowestIndexes(part.first, part.last) {
        storeLeaf(in: page, at: index, level: 0, output, access)
        output &+= Format.granule.bytes
      }
      return
    }
    var address = part.first
    while true {
      let entryPart = part.entry(at: address, level: level)
      let index = Format.index(of: address, at: level)
      if !entryPart.fitsLeaf(at: level) {
        if let child = table(below: page, at: index, level: level, &stock) {
          store(child, level: level - 1, entryPart, access, &stock)
        }
      } else if let child = entry(of: page, at: index, level: level).1 {
        // Without a node the table is that of an overlapping call, and stays.
        if let node = unsafe stock.takeNode(for: child) {
          memory.unlink(below: page, at: index)
          storeLeaf(in: page, at: index, level: level, entryPart.output, access)
          unsafe retire(node)
        }
      } else {
        storeLeaf(in: page, at: index, level: level, entryPart.output, access)
      }
      guard entryPart.last < part.last else { return }
      address = entryPart.last &+ 1
    }
  }

  /// The table below an entry, put there from the stock if there is none.
  ///
  /// Nil when overlapping calls have left neither, which costs them their range and nothing else.
  private func table(
    below page: TablePage, at index: Int, level: Int, _ stock: inout Stock
  ) -> TablePage? {
    if let child = child(of: page, at: index, level: level) { return child }
    guard let made = stock.takeTable(level: level - 1) else { return nil }
    let word = Format.table(memory.physical(made))
    if memory.install(made, below: page, at: index, word: word) { return made }
    // Another thread put a table there meanwhile.
    stock.add(made, level: level - 1)
    return child(of: page, at: index, level: level)
  }

  private func storeLeaf(
    in page: TablePage, at index: Int, level: Int, _ output: UInt64, _ access: Access
  ) {
    let word = Format.leaf(PhysicalAddress(output), access, at: level)
    // Release: pairs with the acquire in entry, so that a walker that finds the leaf finds the
    // memory as it was when it was mapped.
    unsafe cplatform_store_release(page.words + index, word)
  }
}
