// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// Which of some cells is that of the processor that a thread runs on: one for each, as far as they go.
///
/// A thread may have been moved to another processor meanwhile, and nothing may depend on that.
public struct ProcessorCells: Sendable {
  public let count: Int
  // Where the kernel keeps the number of the processor that a thread is on, and how many cells can be
  // told by it: none where it does not.
  let processorOffset: Int
  private let likelyCount: UInt

  /// - Parameter most: how many there are to be at most. Where there are more processors, some share one.
  public init(most: Int = Int.max) {
    count = max(1, min(most, Int(cplatform_cpu_count())))
    processorOffset = cplatform_cpu_offset()
    likelyCount = processorOffset == 0 ? 0 : UInt(bitPattern: count)
  }

  /// Whether the kernel tells threads which processor they are on.
  var areTold: Bool { processorOffset != 0 && cplatform_likely_cpu(processorOffset) >= 0 }

  /// The cell, if that can be told at once.
  @inline(__always)
  public var likely: Int? {
    let cpu = UInt(UInt32(bitPattern: cplatform_likely_cpu(processorOffset)))
    return cpu < likelyCount ? Int(bitPattern: cpu) : nil
  }

  /// The cell.
  @inline(__always)
  public var current: Int { likely ?? asked }

  @inline(never)
  var asked: Int {
    let cpu = Int(cplatform_ask_current_cpu())
    // No number, or that of a processor that was added: any cell will do.
    return cpu < 0 ? 0 : cpu % count
  }
}
