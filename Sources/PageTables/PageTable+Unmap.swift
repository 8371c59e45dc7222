// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

extension PageTable {
  /// Unmaps a range and returns how many bytes of it were mapped.
  ///
  /// Stops at the first hole, unless told to cross them.
  ///
  /// - Throws: `invalidArgument` when the range is not aligned, `outOfRange` when it is too wide for
  ///   the table, `notSupported` when an end cuts through a leaf. Then nothing was unmapped.
  public func unmap(_ input: IOVARange, crossingHoles: Bool) throws(Failure) -> UInt64 {
    guard input.isAligned(to: Format.granule) else { throw .invalidArgument }
    guard input.last <= lastInput else { throw .outOfRange }
    let (first, last) = (input.first.rawValue, input.last.rawValue)
    var page = root
    var level = topLevel
    // Down to the lowest table that the whole range lies in.
    while level > 0, last <= first | Format.spanMask(at: level) {
      let (found, child) = entry(of: page, at: Format.index(of: first, at: level), level: level)
      if let child {
        page = child
        level &-= 1
        continue
      }
      // The range lies in one leaf, and cuts it unless it is all of it; or in a hole.
      if case .leaf = found { break }
      return 0
    }
    guard !cutsLeaf(at: first, from: page, level: level, first, last),
      !cutsLeaf(at: last, from: page, level: level, first, last)
    else { throw .notSupported }
    var clearing = Clearing(last: last, crossesHoles: crossingHoles)
    clear(page, level: level, from: first, &clearing)
    mapped.wrappingSubtract(clearing.size, ordering: .relaxed)
    return clearing.size
  }

  /// Whether an end of a range lies in a leaf that reaches out of the range.
  private func cutsLeaf(
    at address: UInt64, from page: TablePage, level: Int, _ first: UInt64, _ last: UInt64
  ) -> Bool {
    let found = lookUp(address, from: page, level: level)
    return found.isMapped && (found.first < first || found.last > last)
  }

  private struct Clearing {
    let last: UInt64
    let crossesHoles: Bool
    var size: UInt64 = 0
    var isStopped = false
  }

  /// Clears the leaves of this table from `first` on, as far as the clearing goes.
  private func clear(
    _ page: TablePage, level: Int, from first: UInt64, _ clearing: inout Clearing
  ) {
    let tableLast = first | Format.spanMask(at: level + 1)
    if level == 0 {
      clearLowest(page, first, min(clearing.last, tableLast), &clearing)
      return
    }
    let mask = Format.spanMask(at: level)
    var address = first
    while true {
      let index = Format.index(of: address, at: level)
      let (found, child) = entry(of: page, at: index, level: level)
      let entryLast = address | mask
      if let child {
        clear(child, level: level - 1, from: address, &clearing)
      } else if case .leaf = found, address & mask == 0, entryLast <= clearing.last {
        // Release: a walk that starts after this call finds the entry empty.
        unsafe cplatform_store_release(page.words + index, 0)
        clearing.size &+= mask &+ 1
      } else {
        // A hole; or a leaf that an overlapping call stored meanwhile, which is not this call's.
        clearing.isStopped = clearing.isStopped || !clearing.crossesHoles
      }
      guard !clearing.isStopped, entryLast < min(clearing.last, tableLast) else { return }
      address = entryLast &+ 1
    }
  }

  /// `clear` in a table that has nothing below.
  private func clearLowest(
    _ page: TablePage, _ first: UInt64, _ last: UInt64, _ clearing: inout Clearing
  ) {
    var size: UInt64 = 0
    for index in Self.lowestIndexes(first, last) {
      let word = unsafe cplatform_load_relaxed(page.words + index)
      if case .leaf = Format.decode(word, at: 0) {
        // Release: a walk that starts after this call finds the entry empty.
        unsafe cplatform_store_release(page.words + index, 0)
        size &+= Format.granule.bytes
      } else if !clearing.crossesHoles {
        clearing.isStopped = true
        break
      }
    }
    clearing.size &+= size
  }
}
