// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import PageTables
import Primitives

// Theory of operation: the policy.
//
// 1. Concepts
// One decision says which path memory takes to a device: `decide`. Mapping calls act on it, and
// `explain` tells it. It is made for a range of memory, from the mask that concerns the call, the
// bus limit, the device's DMA ranges, whether it is coherent and trusted, and the domain that it has.
//
// 2. Implementation
// The decision has every reason that spoke for it; those of `device.h`. A path that fails only when it is
// tried, because addresses or memory are short, was chosen all the same.
//
// 3. Locking
// None: the caller keeps the domain, by a cell of the mapping table or inside a read section.

/// Why a mapping takes its path. The values are those of `device.h`.
struct PathReasons: OptionSet {
  let rawValue: UInt32

  static var noIOMMU: PathReasons { PathReasons(rawValue: 1) }
  static var identity: PathReasons { PathReasons(rawValue: 2) }
  static var translates: PathReasons { PathReasons(rawValue: 4) }
  static var inWindow: PathReasons { PathReasons(rawValue: 8) }
  static var outsideWindow: PathReasons { PathReasons(rawValue: 16) }
  static var aboveLimit: PathReasons { PathReasons(rawValue: 32) }
  static var outsideRanges: PathReasons { PathReasons(rawValue: 64) }
  static var tooWide: PathReasons { PathReasons(rawValue: 128) }
  static var noMask: PathReasons { PathReasons(rawValue: 256) }
  static var blocked: PathReasons { PathReasons(rawValue: 512) }
  static var owned: PathReasons { PathReasons(rawValue: 1024) }
  static var incoherent: PathReasons { PathReasons(rawValue: 2048) }
  static var untrustedPage: PathReasons { PathReasons(rawValue: 4096) }
}

/// The path of a mapping, and why.
struct PathDecision {
  let path: MappingPath
  let reasons: PathReasons
  /// Of a path that is refused.
  let failure: Failure

  init(_ path: MappingPath, _ reasons: PathReasons) {
    self.path = path
    self.reasons = reasons
    failure = .notPermitted
  }

  static func refused(_ failure: Failure, _ reasons: PathReasons) -> PathDecision {
    PathDecision(failure, reasons)
  }

  private init(_ failure: Failure, _ reasons: PathReasons) {
    path = .refused
    self.reasons = reasons
    self.failure = failure
  }
}

extension Device {
  /// The path of memory in a domain, under a limit.
  @inline(never)
  @_optimize(speed)
  func decide(
    _ memory: PhysicalRange, _ attributes: MappingAttributes, limit: AddressLimit,
    in domain: UnsafeMutablePointer<Domain>?
  ) -> PathDecision {
    if attributes.contains(.requireCoherent) && !isCoherent {
      return .refused(.notSupported, .incoherent)
    }
    switch unsafe path(with: domain) {
    case .blocked:
      return .refused(.notPermitted, .blocked)
    case .nested:
      return .refused(.notPermitted, .owned)
    case .direct:
      let reasons: PathReasons = unsafe iommu == nil ? .noIOMMU : .identity
      let reach = reach(of: memory, limit)
      guard reach.isEmpty else { return .refused(.outOfRange, reasons.union(reach)) }
      return PathDecision(.direct, reasons)
    case .translated(let translation, let domain):
      guard unsafe domain.pointee.kind.isForMappingCalls else {
        return .refused(.notPermitted, .owned)
      }
      var reasons: PathReasons = .translates
      if unsafe domain.pointee.kind == .hybrid {
        // A bus that moves addresses has no window on them.
        let reach = ranges.isEmpty ? reach(of: memory, limit) : .outsideRanges
        let isIn = unsafe domain.pointee.isInWindow(memory)
        if reach.isEmpty && isIn { return PathDecision(.direct, .inWindow) }
        reasons.formUnion(isIn ? reach : reach.union(.outsideWindow))
      }
      guard unsafe memory.last <= translation.pointee.table.facts.lastOutput else {
        return .refused(.outOfRange, reasons.union(.tooWide))
      }
      return PathDecision(.iommu, reasons)
    }
  }

  /// Why the device does not reach memory by itself; nothing if it does.
  private func reach(of memory: PhysicalRange, _ limit: AddressLimit) -> PathReasons {
    guard let range = ranges.bus(of: memory) else { return .outsideRanges }
    return range.last.rawValue <= limit.highest ? [] : .aboveLimit
  }
}
