// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

extension PageTable {
  /// Makes leaves of which an end of a range cuts one in two into smaller ones that it does not cut.
  ///
  /// What is mapped stays the same at every moment, and is known to have been written through as before.
  ///
  /// - Throws: `noMemory`; then nothing has changed.
  @_optimize(size)
  func split(_ first: UInt64, _ last: UInt64) throws(Failure) {
    var stock = Stock()
    let cutsLast = isLeafCut(behind: last)
    do throws(Failure) {
      try gatherSplit(before: first, &stock)
      if cutsLast { try gatherSplit(before: last &+ 1, &stock) }
    } catch {
      discard(&stock)
      throw error
    }
    stock.isForHidden = true
    split(before: first, &stock)
    if cutsLast { split(before: last &+ 1, &stock) }
    discard(&stock)
  }

  /// Whether the leaf that an offset lies in goes on behind it. If not, what lies there is another's,
  /// whose tables may be freed at any moment.
  private func isLeafCut(behind offset: UInt64) -> Bool {
    let root = root
    guard offset <= lastOffset(root) else { return false }
    let found = lookUp(offset, from: root)
    return found.isMapped && found.last > offset
  }

  /// A leaf that reaches over a border.
  private struct Cut {
    let node: TableNode
    /// The leaf, its output and what it permits.
    let first: UInt64
    let last: UInt64
    let output: UInt64
    let content: LeafContent
    /// The entry behind whose start the border is; nil when the border lies between two entries of the
    /// run.
    let entry: (first: UInt64, last: UInt64)?

    func part(_ first: UInt64, _ last: UInt64) -> Part {
      Part(first: first, last: last, output: output &+ (first &- self.first))
    }
  }

  /// The leaf that has the offset and the one before it.
  @_optimize(size)
  private func cut(before border: UInt64) -> Cut? {
    var node = root
    guard border > 0, border <= lastOffset(node) else { return nil }
    while true {
      let index = node.index(of: border)
      let (found, child) = entry(of: node, at: index)
      if let child {
        node = child
        continue
      }
      guard case .leaf(let leaf) = found else { return nil }
      let mask = node.spanMask
      let whole = node.runMask(order: leaf.order)
      guard border & whole != 0 else { return nil }
      let count = 1 &<< leaf.order
      let start = index & ~(count &- 1)
      return Cut(
        node: node, first: border & ~whole, last: border | whole,
        output: leaf.output.rawValue &- (border & whole & ~mask),
        content: LeafContent(
          access: leaf.access,
          isDirty: isDirty(node, unsafe Range(uncheckedBounds: (start, start &+ count)))),
        entry: border & mask == 0 ? nil : (border & ~mask, border | mask))
    }
  }

  private func gatherSplit(before border: UInt64, _ stock: inout Stock) throws(Failure) {
    guard let cut = cut(before: border) else { return }
    let (low, high) = cut.entry ?? (border, border &- 1)
    if cut.first < low {
      try gatherEntries(level: cut.node.level, cut.part(cut.first, low &- 1), &stock)
    }
    if high < cut.last {
      try gatherEntries(level: cut.node.level, cut.part(high &+ 1, cut.last), &stock)
    }
    guard let entry = cut.entry else { return }
    // Both sides want the tables that the border goes through: one more than needed of each.
    let level = cut.node.level &- 1
    try gatherMissing(level: level, cut.part(entry.first, border &- 1), &stock)
    try gatherMissing(level: level, cut.part(border, entry.last), &stock)
  }

  @_optimize(size)
  private func split(before border: UInt64, _ stock: inout Stock) {
    guard let cut = cut(before: border) else { return }
    let node = cut.node
    // The other entries of a run, as smaller ones.
    let (low, high) = cut.entry ?? (border, border &- 1)
    if cut.first < low { storeBeside(node, cut.part(cut.first, low &- 1), cut.content, &stock) }
    if high < cut.last { storeBeside(node, cut.part(high &+ 1, cut.last), cut.content, &stock) }
    guard let entry = cut.entry, let page = takeTable(level: node.level &- 1, from: &stock) else {
      return
    }
    let child = TableNode(page, below: node, indexBits: format.indexBits)
    put(child, below: node, of: border, cut.content) { content in
      store(child, cut.part(entry.first, border &- 1), content, &stock)
      store(child, cut.part(border, entry.last), content, &stock)
    }
  }

  /// Puts a table in place of a leaf.
  ///
  /// - Parameter fill: stores leaves in it that lead to the same places.
  @inline(never)
  private func put(
    _ child: TableNode, below node: TableNode, of offset: UInt64, _ content: LeafContent,
    fill: (LeafContent) -> Void
  ) {
    let index = node.index(of: offset)
    let word = format.table(memory.physical(child.page), at: child.level)
    var content = content
    while true {
      let leaf = unsafe cplatform_load_acquire(node.page.words + index)
      guard case .leaf = format.decode(leaf, at: node.level, index: index) else { break }
      // Hardware may have noted a write meanwhile.
      content = LeafContent(
        access: content.access, isDirty: content.isDirty || format.isDirty(leaf))
      fill(content)
      if memory.replace(leaf: leaf, below: node.page, at: index, by: child.page, word: word) {
        announceTables(below: node, offset)
        return
      }
      if self.child(of: node, at: index) != nil { break }
    }
    // An overlapping call has split or unmapped the leaf.
    freeTables(child)
  }

  /// Lets all tables be found that lead to an offset, from an entry on.
  @_optimize(size)
  private func announceTables(below node: TableNode, _ offset: UInt64) {
    var node = node
    while let child = child(of: node, at: node.index(of: offset)) {
      announce(child.page, level: child.level, offset)
      node = child
    }
  }

  /// Stores smaller leaves in place of a part of a run, of which some may need tables.
  private func storeBeside(
    _ node: TableNode, _ part: Part, _ content: LeafContent, _ stock: inout Stock
  ) {
    guard let output = part.output else { return }
    var offset = part.first
    while true {
      let last: UInt64
      if let order = leafOrder(at: offset, of: part, level: node.level) {
        storeLeaf(
          node, at: node.index(of: offset), output &+ (offset &- part.first), content, order: order,
          inPlaceOfLeaf: true)
        last = offset | node.runMask(order: order)
      } else {
        let entryPart = part.entry(at: offset, spanMask: node.spanMask)
        if let page = takeTable(level: node.level &- 1, from: &stock) {
          let child = TableNode(page, below: node, indexBits: format.indexBits)
          put(child, below: node, of: offset, content) { content in
            store(child, entryPart, content, &stock)
          }
        }
        last = entryPart.last
      }
      guard last < part.last else { return }
      offset = last &+ 1
    }
  }
}
