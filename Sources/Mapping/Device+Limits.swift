// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import MemoryMap
import PageTables
import Primitives

// What mapping calls of a device can do.

extension Device {
  /// The numbers that `device.h` explains.
  public struct MappingLimits {
    public var maxSize: UInt64 = 0
    public var optimalSize: UInt64 = 0
    public var mergeBoundaryMask: UInt64 = 0
    public var requiredMask: UInt64 = 0
    public var isAddressingLimited = false
  }

  public var mappingLimits: MappingLimits {
    var limits = MappingLimits()
    let highest = (try? limit(for: .streaming).highest) ?? 0
    if unsafe ops != nil { return limitsByOps(under: highest) }
    let (mask, isReached) = needs(highest)
    // All addresses of 64 bits are more than there is a number for.
    let direct = max(highest, highest &+ 1)
    let token = unsafe system.pointee.readers.enter()
    defer { unsafe system.pointee.readers.leave(token) }
    switch currentPath {
    case .direct:
      limits.requiredMask = mask
      limits.isAddressingLimited = !isReached
      guard highest > 0 else { break }
      let copied = most(in: longestCopy(under: highest))
      let isCopied = bouncesAll || (!isReached && copied > 0)
      limits.maxSize = isCopied ? copied : direct
    case .translated(let translation, let domain)
    where unsafe domain.pointee.kind.isForMappingCalls:
      limits.requiredMask = unsafe domain.pointee.kind == .hybrid ? mask : UInt64(UInt32.max)
      // What is mapped directly in between stays where it is.
      if unsafe domain.pointee.kind != .hybrid { limits.mergeBoundaryMask = keptMask }
      let isDirect = unsafe isReached && ranges.isEmpty && domain.pointee.bypasses && !bouncesAll
      limits.maxSize =
        isDirect
        ? direct : most(in: unsafe translation.pointee.room(under: highest, in: ranges))
    case .translated, .nested, .blocked:
      break
    }
    // Freed addresses of every size are kept at hand.
    limits.optimalSize = limits.maxSize
    return limits
  }

  /// The bits of addresses that whole pages keep.
  private var keptMask: UInt64 { limits.minAlignMask | Self.granule.mask }

  /// The size that has room in a run of addresses wherever it starts, as far as these keep bits.
  private func most(in run: UInt64) -> UInt64 {
    let pages = run & ~Self.granule.mask
    return pages > keptMask ? pages &- keptMask : 0
  }

  /// The mask that all memory with bytes in this process needs directly, and whether a limit is enough.
  private func needs(_ limit: UInt64) -> (mask: UInt64, isReached: Bool) {
    guard unsafe !system.pointee.memory.isFlat else {
      // What processes have on x86-64 and ARM unless they ask for more.
      let mask = UInt64.max >> 16
      return (mask, limit >= mask && ranges.isEmpty)
    }
    var (highest, isReached) = (UInt64(0), limit > 0)
    var memory: PhysicalRange? = nil
    while let (there, _, _) = unsafe system.pointee.memory(after: memory, isHost: true) {
      memory = there
      guard let range = ranges.bus(of: there) else {
        isReached = false
        continue
      }
      highest = max(highest, range.last.rawValue)
      if range.last.rawValue > limit { isReached = false }
    }
    return (Self.mask(to: highest), isReached)
  }

  /// All bits up to the highest one of an address.
  static func mask(to address: UInt64) -> UInt64 {
    address == 0 ? 0 : UInt64.max &>> UInt64(address.leadingZeroBitCount)
  }
}
