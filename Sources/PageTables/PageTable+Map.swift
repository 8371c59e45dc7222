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
  /// - Throws: `invalidArgument` when something is not aligned or nothing is permitted, `notSupported`
  ///   when the access cannot be expressed, `outOfRange` when a range is too wide for the table,
  ///   `exists` when a part is mapped, `noMemory`. Then everything is mapped as before.
  func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access, isKnownFree: Bool = false
  ) throws(Failure) {
    // All 2^64 inputs have a size of 0, and nothing is said of that.
    if mapPlain(input.first.rawValue, input.extent &+ 1, to: output.rawValue, access.rawValue) {
      return
    }
    guard input.isAligned(to: granule), output.isAligned(to: granule), access.isPermission else {
      throw .invalidArgument
    }
    guard format.canExpress(access) else { throw .notSupported }
    let (first, last) = try offsets(of: input)
    guard output <= lastOutput, input.extent <= lastOutput.rawValue &- output.rawValue else {
      throw .outOfRange
    }
    // First what the tree reaches now: growing may fail for want of memory, and then nobody would hear of it.
    let reach = lastOffset(root)
    if last > reach && first <= reach && !isKnownFree && hasLeaf(in: root, first, reach) {
      throw .exists
    }
    try grow(to: last)
    let whole = Part(first: first, last: last, output: output.rawValue)
    let node = narrowestTable(for: whole)
    if !isKnownFree && hasLeaf(in: node, first, last) { throw .exists }
    try fill(node, whole, LeafContent(access: access, isDirty: false))
  }

  /// Makes the tables of a part, and stores its leaves if it has an output.
  private func fill(_ node: TableNode, _ part: Part, _ content: LeafContent) throws(Failure) {
    var stock = Stock()
    do throws(Failure) {
      try gather(node, part, &stock)
    } catch {
      discard(&stock)
      throw error
    }
    store(node, part, content, &stock)
    discard(&stock)
  }

  /// Makes all tables that mapping a range may need, so that it can't run out of memory.
  ///
  /// They stay until `unmap` covers them, or `trim`.
  ///
  /// - Throws: as `map` does, but for what is said of outputs and access.
  func reserve(_ input: IOVARange) throws(Failure) {
    guard input.isAligned(to: granule) else { throw .invalidArgument }
    let (first, last) = try offsets(of: input)
    try grow(to: last)
    // Without an output nothing is a leaf, and the tables go down to the lowest.
    let whole = Part(first: first, last: last, output: nil)
    try fill(narrowestTable(for: whole), whole, LeafContent(access: [], isDirty: false))
  }

  /// A part of a range being mapped that lies in one table or in one entry of it, and its output; or no
  /// output, of a range whose tables are made and nothing else.
  ///
  /// Unchecked arithmetic on parts depends on the checks in `map`: neither side wraps.
  struct Part {
    let first: UInt64
    let last: UInt64
    let output: UInt64?

    /// The part of this one in the entry with these spans that an offset lies in.
    func entry(at offset: UInt64, spanMask: UInt64) -> Part {
      Part(
        first: offset, last: min(last, offset | spanMask),
        output: output.map { $0 &+ (offset &- first) })
    }
  }

  /// The largest leaf at an offset of a part, in a table on `level`: it is made of 2^order words. Nil if
  /// none fits.
  @inline(never)
  func leafOrder(at offset: UInt64, of part: Part, level: Int) -> Int? {
    let orders = format.leafOrders(at: level)
    guard orders != 0, let output = part.output else { return nil }
    let mask = format.spanMask(at: level)
    let bits = offset | (output &+ (offset &- part.first))
    // Room for so many words, less one.
    let room = (part.last &- offset &- mask) &>> UInt64(truncatingIfNeeded: format.shift(at: level))
    guard bits & mask == 0, part.last &- offset >= mask else { return nil }
    if orders == 1 { return 0 }
    let aligned =
      (bits &>> UInt64(truncatingIfNeeded: format.shift(at: level))).trailingZeroBitCount
    let fitting = min(aligned, min(63 &- (room &+ 1).leadingZeroBitCount, 31))
    let allowed = orders & (UInt32.max &>> UInt32(truncatingIfNeeded: 31 &- fitting))
    return allowed == 0 ? nil : 31 &- allowed.leadingZeroBitCount
  }

  /// The tables that `store` needs and that are missing.
  struct Stock: ~Copyable {
    // Numbers of the first pages of lists. A table at level 0 has no tables below, and so no room to
    // know of any.
    var lowest: UInt = 0
    var upper: UInt = 0
    /// Whether the tables go below one that nobody is led to yet.
    var isForHidden = false
  }

  private func add(_ page: TablePage, level: Int, to stock: inout Stock) {
    let number = memory.number(page)
    if level == 0 {
      memory.link(page, to: stock.lowest)
      stock.lowest = number
    } else {
      memory.link(page, to: stock.upper)
      stock.upper = number
    }
  }

  /// A table of zeroes from the stock.
  @inline(never)
  func takeTable(level: Int, from stock: inout Stock) -> TablePage? {
    guard let page = memory.page(level == 0 ? stock.lowest : stock.upper) else { return nil }
    let next = memory.next(page)
    if level == 0 { stock.lowest = next } else { stock.upper = next }
    memory.link(page, to: 0)
    return page
  }

  /// Makes a table and adds it to the stock.
  @inline(never)
  func makeTable(level: Int, _ stock: inout Stock) throws(Failure) {
    add(try memory.allocate(level: level), level: level, to: &stock)
  }

  /// Frees the tables that were not needed after all.
  @_optimize(size)
  func discard(_ stock: inout Stock) {
    while let page = takeTable(level: 0, from: &stock) { memory.free(page) }
    while let page = takeTable(level: 1, from: &stock) { memory.free(page) }
  }

  /// The lowest table that is there and that the whole part goes through. The passes start there.
  @_optimize(size)
  private func narrowestTable(for part: Part) -> TableNode {
    var node = root
    while node.level > 0, part.last <= part.first | node.spanMask,
      leafOrder(at: part.first, of: part, level: node.level) == nil,
      let child = shownChild(of: node, at: node.index(of: part.first))
    {
      node = child
    }
    return node
  }

  /// The table below an entry, if there is one. Whoever maps below it can rely on its word.
  @inline(never)
  private func shownChild(of node: TableNode, at index: Int) -> TableNode? {
    guard let child = child(of: node, at: index) else { return nil }
    memory.show(
      below: node.page, at: index,
      word: format.table(memory.physical(child.page), at: child.level))
    return child
  }

  /// Whether anything in a range of offsets is mapped.
  func hasLeaf(in node: TableNode, _ first: UInt64, _ last: UInt64) -> Bool {
    if node.level == 0 { return hasLeaf(inLowest: node, first, last) }
    let mask = node.spanMask
    var offset = first
    while true {
      let entryLast = min(last, offset | mask)
      let (found, child) = entry(of: node, at: node.index(of: offset))
      if case .leaf = found { return true }
      if let child, hasLeaf(in: child, offset, entryLast) { return true }
      guard entryLast < last else { return false }
      offset = entryLast &+ 1
    }
  }

  /// Makes every table that `store` will need.
  private func gather(_ node: TableNode, _ part: Part, _ stock: inout Stock) throws(Failure) {
    guard node.level > 0 else { return }
    var offset = part.first
    while true {
      let size: UInt64
      if let order = leafOrder(at: offset, of: part, level: node.level) {
        size = node.runMask(order: order) &+ 1
      } else {
        let entryPart = part.entry(at: offset, spanMask: node.spanMask)
        if let child = child(of: node, at: node.index(of: offset)) {
          try gather(child, entryPart, &stock)
        } else {
          try gatherMissing(level: node.level - 1, entryPart, &stock)
        }
        size = entryPart.last &- offset &+ 1
      }
      guard part.last &- offset >= size else { return }
      offset = offset &+ size
    }
  }

  /// Makes the table at `level` for the part, and those that it will need below.
  func gatherMissing(level: Int, _ part: Part, _ stock: inout Stock) throws(Failure) {
    try makeTable(level: level, &stock)
    if level > 0 { try gatherEntries(level: level, part, &stock) }
  }

  /// Makes the tables that entries on `level` will lead to for the part, where no leaf can be.
  func gatherEntries(level: Int, _ part: Part, _ stock: inout Stock) throws(Failure) {
    var offset = part.first
    while true {
      let size: UInt64
      if let order = leafOrder(at: offset, of: part, level: level) {
        size = format.runMask(at: level, order: order) &+ 1
      } else {
        let entryPart = part.entry(at: offset, spanMask: format.spanMask(at: level))
        try gatherMissing(level: level - 1, entryPart, &stock)
        size = entryPart.last &- offset &+ 1
      }
      guard part.last &- offset >= size else { return }
      offset = offset &+ size
    }
  }

  /// Puts the tables in place and stores the leaves.
  func store(_ node: TableNode, _ part: Part, _ content: LeafContent, _ stock: inout Stock) {
    if node.level == 0 && format.leafOrders(at: 0) == 1 {
      guard let output = part.output else { return }
      storeLeaves(node, part.first, part.last, to: output, content)
      return
    }
    var offset = part.first
    while true {
      let index = node.index(of: offset)
      let size: UInt64
      if let order = leafOrder(at: offset, of: part, level: node.level), let output = part.output {
        storeLeaf(node, at: index, output &+ (offset &- part.first), content, order: order)
        size = node.runMask(order: order) &+ 1
      } else {
        let entryPart = part.entry(at: offset, spanMask: node.spanMask)
        if node.level > 0, let child = table(below: node, of: offset, &stock) {
          store(child, entryPart, content, &stock)
        }
        size = entryPart.last &- offset &+ 1
      }
      guard part.last &- offset >= size else { return }
      offset = offset &+ size
    }
  }

  /// Stores a leaf of 2^order words, also in place of tables.
  ///
  /// - Parameter inPlaceOfLeaf: whether it leads to a part of what a larger leaf leads to. What hardware
  ///   notes meanwhile stays in the words that it is in.
  @inline(never)
  func storeLeaf(
    _ node: TableNode, at first: Int, _ output: UInt64, _ content: LeafContent, order: Int,
    inPlaceOfLeaf: Bool = false
  ) {
    let attributes = attributes(content, order: order, level: node.level)
    var next = output
    for index in first..<(first &+ (1 &<< order)) {
      let word = format.leaf(
        PhysicalAddress(format.repeatsLeaf ? output : next), attributes: attributes)
      if node.level > 0, let child = child(of: node, at: index) {
        // A table that was left empty. One that has leaves is that of an overlapping call.
        replaceTable(child, below: node.page, at: index, by: word)
      } else if inPlaceOfLeaf {
        let place = unsafe node.page.words + index
        while true {
          let old = unsafe cplatform_load_relaxed(place)
          let new = format.settingDirty(word, content.isDirty || format.isDirty(old))
          if unsafe cplatform_replace_release(place, old, new) { break }
        }
      } else {
        // Release: as in storeLeaves.
        unsafe cplatform_store_release(node.page.words + index, word)
      }
      next = next &+ node.spanMask &+ 1
    }
  }

  /// Lets a table be found without a walk. It is in the tree by now.
  @inline(never)
  func announce(_ page: TablePage, level: Int, _ offset: UInt64) {
    // In a page of the caller a word above the lowest level does not say whether there is a table below.
    guard isOnHeap || level == 0 else { return }
    plain.announce(memory.label(page), level: level, geometry.input(offset))
  }

  /// The table below an entry, put there from the stock if there is none.
  ///
  /// Nil when overlapping calls have left neither, which costs them their range and nothing else.
  private func table(below node: TableNode, of offset: UInt64, _ stock: inout Stock) -> TableNode? {
    let index = node.index(of: offset)
    if let child = shownChild(of: node, at: index) { return child }
    // What is mapped stays mapped when tables are reserved around it.
    if case .leaf = entry(of: node, at: index).0 { return nil }
    let level = node.level &- 1
    guard let made = takeTable(level: level, from: &stock) else { return nil }
    let word = format.table(memory.physical(made), at: level)
    if memory.install(made, below: node.page, at: index, word: word) {
      if !stock.isForHidden { announce(made, level: level, offset) }
      return TableNode(made, below: node, indexBits: format.indexBits)
    }
    // Another thread put a table there meanwhile.
    add(made, level: level, to: &stock)
    return shownChild(of: node, at: index)
  }
}
