// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
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
  /// Every leaf, one a line, with the index at each level that leads there.
  func leafLines() -> [String] { lines(of: root, level: topLevel, path: "") }

  private func lines(of page: TablePage, level: Int, path: String) -> [String] {
    (0..<Format.entryCount).flatMap { index -> [String] in
      let (found, child) = entry(of: page, at: index, level: level)
      let place = "\(path)L\(level)[\(index)] "
      if let child { return lines(of: child, level: level - 1, path: place) }
      guard case .leaf(let output, let access) = found else { return [] }
      let letters = (access.contains(.read) ? "r" : "") + (access.contains(.write) ? "w" : "")
      return ["\(place)\(hex(output.rawValue)) \(letters)"]
    }
  }

  /// Every leaf with the addresses that it covers.
  func leaves() -> [PageTableLookup] { leaves(of: root, level: topLevel, first: 0) }

  private func leaves(of page: TablePage, level: Int, first: UInt64) -> [PageTableLookup] {
    (0..<Format.entryCount).flatMap { index -> [PageTableLookup] in
      let start = first + UInt64(index) << UInt64(Format.shift(at: level))
      let (found, child) = entry(of: page, at: index, level: level)
      if let child { return leaves(of: child, level: level - 1, first: start) }
      guard case .leaf(let output, let access) = found else { return [] }
      return [
        PageTableLookup(
          first: start, last: start | Format.spanMask(at: level), target: output.rawValue,
          access: access)
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
