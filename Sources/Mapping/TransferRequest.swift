// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Primitives

/// What is to be transferred, and what the device takes (`struct dmacore_transfer_request`).
@safe
public struct TransferRequest {
  let direction: Direction
  let attributes: MappingAttributes
  let isReplaceable: Bool
  /// The most segments, 0 for any number.
  let most: UInt64
  // The most bytes of a segment, and the mask of the blocks that none reaches out of: all bits if it is not
  // said.
  private let sizeMax: UInt64
  private let boundary: UInt64
  /// The ranges, from the first on.
  let reader: RangeReader

  /// - Throws: `invalidArgument`.
  public init(_ given: dmacore_transfer_request) throws(Failure) {
    let boundary = unsafe given.segment_boundary_mask
    guard unsafe (given.ranges == nil) != (given.next == nil), unsafe given.reserved == 0,
      unsafe given.flags & ~DMACORE_TRANSFER_REPLACEABLE.rawValue == 0,
      boundary & (boundary &+ 1) == 0
    else { throw .invalidArgument }
    direction = unsafe try Direction(checking: given.direction)
    attributes = unsafe try MappingAttributes(checking: given.attributes)
    isReplaceable = unsafe given.flags != 0
    most = unsafe given.max_segments
    sizeMax = unsafe given.max_segment_size == 0 ? UInt64.max : given.max_segment_size
    self.boundary = boundary == 0 ? UInt64.max : boundary
    reader = unsafe RangeReader(
      ranges: given.ranges, left: given.count, next: given.next, opaque: given.opaque)
  }

  /// The limits of segments: the request's and the device's.
  func limits(of device: borrowing Device) -> (extentMax: UInt64, boundary: UInt64) {
    var size = min(sizeMax, device.limits.maxSegmentSize)
    // Where there are pages in it, none is cut but at the ends.
    if size > Device.granule.mask { size &= ~Device.granule.mask }
    return (size &- 1, min(boundary, device.limits.segmentBoundaryMask))
  }
}
