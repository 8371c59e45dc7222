// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

extension PageTable {
  /// Unmaps a range and returns how many bytes of it were mapped.
  ///
  /// Stops at the first hole, unless told to cross them. Tables that the range covers are retired, if it
  /// comes to their ends.
  ///
  /// - Parameter splitting: whether a leaf that an end of the range cuts through is made into smaller
  ///   ones.
  /// - Throws: `invalidArgument` when the range is not aligned, `outOfRange` when it is too wide for
  ///   the table, `notSupported` when an end cuts through a leaf and `splitting` is false, `noMemory`
  ///   when it is true. Then nothing was unmapped.
  func unmap(
    _ input: IOVARange, crossingHoles: Bool, splitting: Bool = false
  ) throws(Failure) -> UInt64 {
    let size = input.extent &+ 1
    if unmapPlain(input.first.rawValue, size) { return size }
    guard input.isAligned(to: granule) else { throw .invalidArgument }
    let (first, last) = try offsets(of: input)
    var node = root
    let rootLast = lastOffset(node)
    guard first <= rootLast else { return 0 }
    // Down to the lowest table that the whole range lies in, and does not cover.
    while node.level > 0, last <= first | node.spanMask,
      last &- first < node.spanMask
    {
      let (found, child) = entry(of: node, at: node.index(of: first))
      if let child {
        node = child
        continue
      }
      // The range lies in one leaf, and cuts it; or in a hole.
      if case .leaf = found { break }
      return 0
    }
    if cutsLeaf(at: first, from: node, first, last)
      || cutsLeaf(at: min(last, rootLast), from: node, first, last)
    {
      guard splitting else { throw .notSupported }
      try split(first, last)
      return try unmap(input, crossingHoles: crossingHoles)
    }
    var clearing = Clearing(last: min(last, lastOffset(root)), crossesHoles: crossingHoles)
    clear(node, from: first, &clearing)
    return clearing.size
  }

  /// Whether an end of a range lies in a leaf that reaches out of the range.
  @inline(never)
  private func cutsLeaf(
    at offset: UInt64, from node: TableNode, _ first: UInt64, _ last: UInt64
  ) -> Bool {
    let found = lookUp(offset, from: node)
    return found.isMapped && (found.first < first || found.last > last)
  }

  private struct Clearing {
    let last: UInt64
    let crossesHoles: Bool
    var size: UInt64 = 0
    var isStopped = false
  }

  /// Clears the leaves of this table from `first` on, as far as the clearing goes.
  private func clear(_ node: TableNode, from first: UInt64, _ clearing: inout Clearing) {
    let mask = node.spanMask
    let tableLast =
      node.isRoot ? UInt64.max : first | node.indexMask &<< node.shift | node.spanMask
    if node.level == 0 {
      let (size, isStopped) = clearLeaves(
        node, first, min(clearing.last, tableLast), crossingHoles: clearing.crossesHoles)
      clearing.size &+= size
      clearing.isStopped = isStopped
      return
    }
    var offset = first
    while true {
      let index = node.index(of: offset)
      let (found, child) = entry(of: node, at: index)
      let entryLast = offset | mask
      if let child {
        clear(child, from: offset, &clearing)
        if !clearing.isStopped && offset & mask == 0 && entryLast <= clearing.last {
          replaceTable(child, below: node.page, at: index, by: 0)
        }
      } else if case .leaf = found, offset & mask == 0, entryLast <= clearing.last {
        // Release: a walk that starts after this call finds the entry empty.
        unsafe cplatform_store_release(node.page.words + index, 0)
        clearing.size &+= mask &+ 1
      } else {
        // A hole; or a leaf that an overlapping call stored meanwhile, which is not this call's.
        clearing.isStopped = clearing.isStopped || !clearing.crossesHoles
      }
      guard !clearing.isStopped, entryLast < min(clearing.last, tableLast) else { return }
      offset = entryLast &+ 1
    }
  }

  // MARK: - Empty tables

  /// Retires the tables in a range in which nothing is mapped. No call may change anything in the range
  /// meanwhile.
  ///
  /// - Throws: `invalidArgument`, `outOfRange`, as `unmap`.
  @_optimize(size)
  func trim(_ input: IOVARange) throws(Failure) {
    guard input.isAligned(to: granule) else { throw .invalidArgument }
    let (first, last) = try offsets(of: input)
    let root = root
    let end = lastOffset(root)
    if first <= end { trim(root, first, min(last, end)) }
  }

  @_optimize(size)
  private func trim(_ node: TableNode, _ first: UInt64, _ last: UInt64) {
    guard node.level > 0 else { return }
    let mask = node.spanMask
    var offset = first
    while true {
      let entryLast = offset | mask
      let index = node.index(of: offset)
      if let child = child(of: node, at: index) {
        if offset & mask == 0 && entryLast <= last && !hasLeaf(in: child, offset, entryLast) {
          replaceTable(child, below: node.page, at: index, by: 0)
        } else {
          trim(child, offset, min(last, entryLast))
        }
      }
      guard entryLast < last else { return }
      offset = entryLast &+ 1
    }
  }
}
