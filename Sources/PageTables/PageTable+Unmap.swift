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
    let head = lookUp(input.first)
    let tail = lookUp(input.last)
    guard !head.isMapped || head.first >= input.first.rawValue,
      !tail.isMapped || tail.last <= input.last.rawValue
    else { throw .notSupported }
    var clearing = Clearing(last: input.last.rawValue, crossesHoles: crossingHoles)
    clear(root, level: topLevel, from: input.first.rawValue, &clearing)
    mapped.wrappingSubtract(clearing.size, ordering: .relaxed)
    return clearing.size
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
    let mask = Format.spanMask(at: level)
    let tableLast = first | Format.spanMask(at: level + 1)
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
}
