// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import IOVAAllocation
import MachineSupport
import Primitives
import TestSupport

let page: UInt64 = 4096

/// The addresses of pages `first` to `last`, both included.
func pages(_ first: UInt64, _ last: UInt64) throws -> IOVARange {
  try IOVARange(first: IOVA(first * page), last: IOVA(last * page + (page - 1)))
}

/// A space without caches, in which every place can be foretold.
func checkedSpace(
  _ bounds: IOVARange, granule: Granule = Granule(shift: 12), reports: Reports? = nil
) throws -> IOVASpace {
  try space(bounds, granule, isChecked: true, reports)
}

/// A space with caches.
func cachedSpace(
  _ bounds: IOVARange, granule: Granule = Granule(shift: 12), reports: Reports? = nil
) throws -> IOVASpace {
  try space(bounds, granule, isChecked: false, reports)
}

private func space(
  _ bounds: IOVARange, _ granule: Granule, isChecked: Bool, _ reports: Reports?
) throws -> IOVASpace {
  try IOVASpace(
    bounds: bounds, granule: granule, isChecked: isChecked,
    reporter: reports?.reporter ?? Reporter(callback: nil, opaque: nil))
}

/// A space that several threads share.
final class SharedSpace: Sendable {
  let space: IOVASpace

  init(_ bounds: IOVARange, isChecked: Bool) throws {
    space = isChecked ? try checkedSpace(bounds) : try cachedSpace(bounds)
  }

  /// The first address of a free range of so many pages, or nil if there is none.
  func allocate(pages count: UInt64 = 1) throws -> IOVA? {
    do throws(Failure) {
      return try space.allocate(size: count * page, alignment: 0, limit: UInt64.max)
    } catch {
      try demandSame(error, .noSpace, "why there is no range")
      return nil
    }
  }

  func free(_ first: IOVA, pages count: UInt64 = 1) throws {
    try space.free(first: first, size: count * page)
  }
}
