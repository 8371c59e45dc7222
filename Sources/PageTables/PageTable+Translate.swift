// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// What a page table says about an input address: the entry that it lies in.
public struct PageTableLookup: Sendable {
  /// The input addresses that the entry covers; for a hole all of them are unmapped.
  public let first: UInt64
  public let last: UInt64
  /// Where `first` leads. Nothing, in a hole.
  public let target: UInt64
  /// What is permitted. Nothing, in a hole.
  public let access: Access

  public var isMapped: Bool { !access.isEmpty }
}

extension PageTable {
  /// Looks an input address up, without a lock and beside any change.
  public func lookUp(_ input: IOVA) -> PageTableLookup {
    let address = input.rawValue
    guard input <= lastInput else {
      // `lastInput` is below an address, so that it has a next one.
      return PageTableLookup(
        first: lastInput.rawValue &+ 1, last: UInt64.max, target: 0, access: [])
    }
    return lookUp(address, from: root, level: topLevel)
  }

  /// Looks an input address up from a table that it goes through.
  func lookUp(_ address: UInt64, from table: TablePage, level tableLevel: Int) -> PageTableLookup {
    var page = table
    var level = tableLevel
    while true {
      let (found, child) = entry(
        of: page, at: Format.index(of: address, at: level), level: level)
      if let child {
        page = child
        level &-= 1
        continue
      }
      let mask = Format.spanMask(at: level)
      if case .leaf(let output, let access) = found {
        return PageTableLookup(
          first: address & ~mask, last: address | mask, target: output.rawValue, access: access)
      }
      return PageTableLookup(first: address & ~mask, last: address | mask, target: 0, access: [])
    }
  }
}
