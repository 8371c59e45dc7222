// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// What a page table says about an input address: the leaf or the hole that it lies in.
public struct PageTableLookup: Sendable {
  /// The input addresses that the leaf covers; for a hole all of them are unmapped.
  public let first: UInt64
  public let last: UInt64
  /// Where `first` leads. Nothing, in a hole.
  public let target: UInt64
  /// What is permitted. Nothing, in a hole.
  public let access: Access

  public init(first: UInt64, last: UInt64, target: UInt64, access: Access) {
    self.first = first
    self.last = last
    self.target = target
    self.access = access
  }

  public var isMapped: Bool { !access.isEmpty }
}

extension PageTable {
  /// Looks an input address up, without a lock and beside any change.
  func lookUp(_ input: IOVA) -> PageTableLookup {
    lookUpPlain(input.rawValue) ?? lookUpSlowly(input)
  }

  @inline(never)
  private func lookUpSlowly(_ input: IOVA) -> PageTableLookup {
    guard let offset = geometry.offset(of: input.rawValue) else { return outside }
    let root = root
    let last = lastOffset(root)
    guard offset <= last else {
      // Above what the tree has grown to.
      return PageTableLookup(first: last &+ 1, last: lastInput.rawValue, target: 0, access: [])
    }
    let found = lookUp(offset, from: root)
    return PageTableLookup(
      first: geometry.input(found.first), last: geometry.input(found.last), target: found.target,
      access: found.access)
  }

  /// The addresses that the table can't map. There are some.
  private var outside: PageTableLookup {
    let last = lastInput.rawValue
    return PageTableLookup(
      first: last &+ 1, last: geometry.isSigned ? ~last &- 1 : UInt64.max, target: 0,
      access: [])
  }

  /// Looks an offset up from a table that it goes through, as offsets.
  func lookUp(_ offset: UInt64, from table: TableNode) -> PageTableLookup {
    let (node, found) = find(offset, from: table)
    let mask = node.spanMask
    guard case .leaf(let leaf) = found else {
      return PageTableLookup(first: offset & ~mask, last: offset | mask, target: 0, access: [])
    }
    // The whole run, which starts some spans before this word.
    let whole = node.runMask(order: leaf.order)
    return PageTableLookup(
      first: offset & ~whole, last: offset | whole,
      target: leaf.output.rawValue &- (offset & whole & ~mask), access: leaf.access)
  }
  /// The lowest table that an offset leads through, and what its entry says.
  func find(_ offset: UInt64, from table: TableNode) -> (TableNode, TableEntry) {
    var node = table
    while true {
      let (found, child) = entry(of: node, at: node.index(of: offset))
      guard let child else { return (node, found) }
      node = child
    }
  }
}
