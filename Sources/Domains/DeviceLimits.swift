// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Primitives
import Synchronization

/// What a device's hardware can be told in one piece. Lock-free: of a change, others see one number at
/// a time.
public struct DeviceLimits: ~Copyable {
  private let segmentSize = Atomic<UInt64>(65536)
  private let boundaryMask = Atomic<UInt64>(UInt64.max)
  private let alignMask = Atomic<UInt64>(0)

  /// The most bytes of a segment of a list, not 0.
  public var maxSegmentSize: UInt64 { segmentSize.load(ordering: .relaxed) }
  /// No segment of a list crosses a multiple of this plus one, a power of two.
  public var segmentBoundaryMask: UInt64 { boundaryMask.load(ordering: .relaxed) }
  /// The bits that memory's address and the device's have in common, a power of two less one.
  public var minAlignMask: UInt64 { alignMask.load(ordering: .relaxed) }

  /// - Throws: `invalidArgument` for a mask that is no power of two less one.
  public func set(_ new: dmacore_device_limits) throws(Failure) {
    guard new.segment_boundary_mask & (new.segment_boundary_mask &+ 1) == 0,
      new.min_align_mask & (new.min_align_mask &+ 1) == 0
    else { throw .invalidArgument }
    segmentSize.store(new.max_segment_size == 0 ? 65536 : new.max_segment_size, ordering: .relaxed)
    boundaryMask.store(
      new.segment_boundary_mask == 0 ? UInt64.max : new.segment_boundary_mask, ordering: .relaxed)
    alignMask.store(new.min_align_mask, ordering: .relaxed)
  }
}
