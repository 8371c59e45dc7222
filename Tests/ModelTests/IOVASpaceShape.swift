// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import ReferenceModels
import TestSupport

/// The shape of an IOVA space and of the requests made to it.
struct IOVASpaceShape: Sendable {
  let first: UInt64
  let last: UInt64
  let granule: UInt64

  /// A space of this shape, to be destroyed.
  func space(flags: UInt32) throws -> OpaquePointer? {
    var options = dmacore_iova_space_options()
    options.struct_size = MemoryLayout<dmacore_iova_space_options>.size
    options.flags = flags
    options.granule = granule
    options.first = first
    options.last = last
    var space: OpaquePointer?
    try demandSame(dmacore_iova_space_create(&options, &space), 0, "create")
    return space
  }

  /// What a walk through a space with these ranges in use sees.
  func pieces(_ ranges: [IOVARangeModel]) -> [IOVASpacePiece] {
    var pieces: [IOVASpacePiece] = []
    var start = UInt128(first)
    for range in ranges {
      if start < range.start { pieces.append(IOVASpacePiece(start, range.start, use: 0)) }
      pieces.append(IOVASpacePiece(range.start, range.end, use: range.isReserved ? 2 : 1))
      start = range.end
    }
    let end = UInt128(last) + 1
    if start < end { pieces.append(IOVASpacePiece(start, end, use: 0)) }
    return pieces
  }

  /// The bytes of the most free granules in a row that lie between two addresses.
  func largestFree(_ ranges: [IOVARangeModel], first: UInt64, last: UInt64) -> UInt128 {
    let granule = UInt128(granule)
    let low = (UInt128(first) + granule - 1) / granule * granule
    let high = (UInt128(last) + 1) / granule * granule
    return pieces(ranges).filter { $0.use == 0 }.map { piece in
      let (start, end) = (max(low, UInt128(piece.first)), min(high, UInt128(piece.last) + 1))
      return start < end ? end - start : 0
    }.max() ?? 0
  }
}

/// A range as a walk through a space shows it.
struct IOVASpacePiece: Equatable {
  let first: UInt64
  let last: UInt64
  let use: UInt32

  init(_ start: UInt128, _ end: UInt128, use: UInt32) {
    first = UInt64(start)
    last = UInt64(end - 1)
    self.use = use
  }
}

/// What `dmacore_iova_space_visit` shows.
func visitedRanges(of space: OpaquePointer?) throws -> [IOVASpacePiece] {
  var pieces: [IOVASpacePiece] = []
  let result = withUnsafeMutablePointer(to: &pieces) { pieces in
    dmacore_iova_space_visit(
      space,
      { first, last, use, opaque in
        let pieces = opaque!.assumingMemoryBound(to: [IOVASpacePiece].self)
        pieces.pointee.append(IOVASpacePiece(UInt128(first), UInt128(last) + 1, use: use))
        return true
      }, pieces)
  }
  try demandSame(result, 0, "result of visit")
  return pieces
}

func statistics(of space: OpaquePointer?) throws -> dmacore_iova_space_statistics {
  var statistics = dmacore_iova_space_statistics()
  statistics.struct_size = MemoryLayout<dmacore_iova_space_statistics>.size
  try demandSame(dmacore_iova_space_statistics(space, &statistics), 0, "result of statistics")
  return statistics
}

extension dmacore_iova_constraints {
  init(_ model: IOVAConstraintsModel) {
    self.init()
    struct_size = MemoryLayout<dmacore_iova_constraints>.size
    placement = model.placement.rawValue
    alignment = model.alignment
    skew = model.skew
    boundary = model.boundary
    first = model.first
    last = model.last
  }
}

extension IOVAConstraintsModel {
  /// C that makes `constraints` these.
  var assignment: String {
    "constraints = (struct dmacore_iova_constraints){ sizeof(constraints), "
      + ([UInt64(placement.rawValue), 0, alignment, skew, boundary, first, last].map(hex)
        .joined(separator: ", ")) + " };"
  }
}
