// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives
import Testing
import TestSupport

@testable import PageTables

/// A mapping as text: `0x1000+0x2000 -> 0x8000 rw` maps 0x2000 bytes at 0x1000.
struct MappingText {
  let input: IOVARange
  let output: PhysicalAddress
  let access: Access

  init(_ text: String) throws {
    let words = text.split(separator: " ")
    let ends = words[0].split(separator: "+").map(Self.number)
    input = try IOVARange(first: IOVA(ends[0]), size: ends[1])
    output = PhysicalAddress(Self.number(words[2]))
    access = Self.access(words[3])
  }

  private static func number(_ text: Substring) -> UInt64 { UInt64(text.dropFirst(2), radix: 16)! }

  private static func access(_ text: Substring) -> Access {
    var access: Access = []
    if text.contains("r") { access.insert(.read) }
    if text.contains("w") { access.insert(.write) }
    return access
  }
}

extension PageTable where Format: PageTableFormat {
  /// A table without features, of so many levels.
  init(levels: Int, allocator: dmacore_table_allocator?) throws(Failure) {
    try self.init(PageTableOptions(levels: levels), allocator: allocator)
  }

  var rootAddress: PhysicalAddress { facts.root }

  /// Every leaf, one a line, with the index at each level that leads there; of a run its first.
  func leafLines() -> [String] { lines(of: root, path: "") }

  private func lines(of node: TableNode, path: String) -> [String] {
    (0..<entryCount(node)).flatMap { index -> [String] in
      let (found, child) = entry(of: node, at: index)
      let place = "\(path)L\(node.level)[\(index)] "
      if let child { return lines(of: child, path: place) }
      guard case .leaf(let leaf) = found, index & ((1 << leaf.order) - 1) == 0 else { return [] }
      let letters =
        (leaf.access.contains(.read) ? "r" : "") + (leaf.access.contains(.write) ? "w" : "")
      let run = leaf.order == 0 ? "" : " x\(1 << leaf.order)"
      return ["\(place)\(hex(leaf.output.rawValue)) \(letters)\(run)"]
    }
  }

  /// Every leaf with the addresses that it covers.
  func leaves() -> [PageTableLookup] { leaves(of: root, first: 0) }

  private func leaves(of node: TableNode, first: UInt64) -> [PageTableLookup] {
    (0..<entryCount(node)).flatMap { index -> [PageTableLookup] in
      let start = first + UInt64(index) << node.shift
      let (found, child) = entry(of: node, at: index)
      if let child { return leaves(of: child, first: start) }
      guard case .leaf(let leaf) = found, index & ((1 << leaf.order) - 1) == 0 else { return [] }
      let inside = node.runMask(order: leaf.order)
      return [
        PageTableLookup(
          first: geometry.input(start), last: geometry.input(start | inside),
          target: leaf.output.rawValue,
          access: leaf.access)
      ]
    }
  }
}

/// Maps, and compares all leaves of the table with the lines.
func check<F: PageTableFormat>(
  _: F.Type, levels: Int = 4, map mappings: [String], yields expected: String,
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let table = try PageTable<F>(levels: levels, allocator: nil)
  for mapping in try mappings.map(MappingText.init) {
    try table.map(mapping.input, to: mapping.output, access: mapping.access)
  }
  let found = table.leafLines().joined(separator: "\n")
  #expect(found == expected, sourceLocation: sourceLocation)
}
