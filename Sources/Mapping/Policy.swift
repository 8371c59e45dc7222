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
// bus limit, the device's DMA ranges, the bits that addresses have to keep, whether it is coherent and trusted, and
// the domain that it has.
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
  static var bounceForced: PathReasons { PathReasons(rawValue: 8192) }
  static var noBounce: PathReasons { PathReasons(rawValue: 16384) }
  static var peer: PathReasons { PathReasons(rawValue: 1 << 15) }
  static var peerUnreachable: PathReasons { PathReasons(rawValue: 1 << 16) }
  static var noBypass: PathReasons { PathReasons(rawValue: 1 << 17) }

  static var ops: PathReasons { PathReasons(rawValue: 1 << 18) }
  static var notConfigured: PathReasons { PathReasons(rawValue: 1 << 19) }

  static var misaligned: PathReasons { PathReasons(rawValue: 1 << 20) }

  static var all: PathReasons { PathReasons(rawValue: (1 << 21) - 1) }

  /// One of them in words, which go on behind "because ".
  private func append(to text: inout TextBuffer) {
    switch self {
    case .noIOMMU: text.append("the device is behind no IOMMU")
    case .identity: text.append("its domain is an identity domain")
    case .translates: text.append("its domain translates")
    case .inWindow: text.append("the memory is in the window of what bypasses")
    case .outsideWindow: text.append("the memory is not in that window")
    case .aboveLimit: text.append("it ends above the mask or the bus limit")
    case .outsideRanges: text.append("the DMA ranges do not have it in a row")
    case .tooWide: text.append("its addresses are too wide for the page table")
    case .noMask: text.append("the device has no mask for it")
    case .blocked: text.append("the device is attached to nothing, or blocked")
    case .owned: text.append("the owner of its domain maps by itself")
    case .incoherent: text.append("the device is not coherent")
    case .untrustedPage:
      text.append("the device is not trusted, and the memory has neighbours on its pages")
    case .bounceForced: text.append("all that is mapped for the device is bounced")
    case .noBounce: text.append("there is no bounce pool")
    case .peer: text.append("it is memory of a peer, or has bus addresses of one")
    case .peerUnreachable:
      text.append("the device does not reach the peer, or only a part is of it")
    case .noBypass: text.append("bypass is turned off, or not offered")
    case .ops: text.append("the device has mapping functions")
    case .misaligned: text.append("it has other low bits there than the device asks for")
    default: text.append("nobody has configured the device")
    }
  }

  /// All of them in words.
  func describe(_ text: inout TextBuffer) {
    var isFirst = true
    for bit in 0..<UInt32(32) {
      let one = PathReasons(rawValue: 1 &<< bit)
      guard contains(one), Self.all.contains(one) else { continue }
      text.append(isFirst ? " because " : ", ")
      one.append(to: &text)
      isFirst = false
    }
  }
}

/// The path of a mapping, and why.
struct PathDecision {
  let path: MappingPath
  let reasons: PathReasons
  /// Of a path that is refused.
  let failure: Failure
  /// How much further on memory is for the device, if it bypasses mapping functions; and for those.
  let offset: UInt64
  let kind: MappingRecord.Kind

  init(
    _ path: MappingPath, _ reasons: PathReasons, offset: UInt64 = 0,
    _ kind: MappingRecord.Kind = .streaming
  ) {
    self.path = path
    self.reasons = reasons
    failure = .notPermitted
    self.offset = offset
    self.kind = kind
  }

  static func refused(_ failure: Failure, _ reasons: PathReasons) -> PathDecision {
    PathDecision(failure, reasons)
  }

  private init(_ failure: Failure, _ reasons: PathReasons) {
    path = .refused
    self.reasons = reasons
    self.failure = failure
    offset = 0
    kind = .streaming
  }
}

extension MappingPath {
  private var words: StaticString {
    switch self {
    case .refused: "refused"
    case .direct: "direct"
    case .bounced: "direct, through a bounce buffer"
    case .iommu: "through the IOMMU"
    case .iommuBounced: "through the IOMMU, with ends in a bounce buffer"
    case .busAddress: "at a bus address of its peer"
    case .ops: "as the device's mapping functions say"
    }
  }

  /// A decision in words.
  public func describe(_ reasons: UInt32, _ error: Int32, _ text: inout TextBuffer) {
    text.append(words)
    if error > 0 {
      text.append(" with error ")
      text.append(decimal: UInt64(error))
    }
    PathReasons(rawValue: reasons).describe(&text)
  }
}

extension Device {
  /// The path that a mapping call of this kind would take now, and why. Of one that is refused, also the
  /// error.
  @inline(never)
  public func explain(
    _ memory: PhysicalRange, _ kind: MappingRecord.Kind, _ attributes: MappingAttributes
  ) -> (path: MappingPath, reasons: UInt32, failure: Failure?, limit: UInt64) {
    let limit: AddressLimit
    do throws(Failure) {
      limit = try self.limit(for: kind)
    } catch {
      let reasons: PathReasons = error == .noMask ? .noMask : [.ops, .notConfigured]
      return (.refused, reasons.rawValue, error, 0)
    }
    let token = unsafe system.pointee.readers.enter()
    defer { unsafe system.pointee.readers.leave(token) }
    let decision = unsafe decide(
      memory, attributes, limit: limit, in: mappings.domain, isStreaming: kind == .streaming, kind)
    return (
      decision.path, decision.reasons.rawValue,
      decision.path == .refused ? decision.failure : nil, limit.highest
    )
  }

  /// The path of memory in a domain, under a limit.
  ///
  /// - Parameters:
  ///   - isStreaming: whether it is a buffer, which may be copied.
  ///   - kind: which mask the limit is of.
  @inline(never)
  func decide(
    _ memory: PhysicalRange, _ attributes: MappingAttributes, limit: AddressLimit,
    in domain: UnsafeMutablePointer<Domain>?, isStreaming: Bool = true,
    _ kind: MappingRecord.Kind = .streaming
  ) -> PathDecision {
    if attributes.contains(.requireCoherent) && !isCoherent {
      return .refused(.notSupported, .incoherent)
    }
    var known: PathReasons = []
    if unsafe !system.pointee.peers.isEmpty,
      let decision = unsafe decide(aboutPeer: memory, limit, in: domain, &known)
    {
      return decision
    }
    switch unsafe path(with: domain) {
    case .blocked:
      return .refused(.notPermitted, .blocked)
    case .nested:
      return .refused(.notPermitted, .owned)
    case .direct where unsafe ops != nil:
      guard !isStreaming || !isUntrusted || memory.isAligned(to: Self.granule) else {
        return .refused(.outOfRange, known.union([.ops, .untrustedPage, .noBounce]))
      }
      return decideByOps(memory, attributes, limit, kind, known)
    case .direct:
      let reasons = known.union(unsafe iommu == nil ? .noIOMMU : .identity)
      let reach = reach(of: memory, limit, known, isStreaming)
      if bouncesAll && isStreaming {
        // Memory of a peer is as its registers are.
        return bounced(
          .bounced, known.isEmpty ? attributes : attributes.union(.mmio),
          reasons.union(reach).union(.bounceForced))
      }
      guard !reach.isEmpty else { return PathDecision(.direct, reasons) }
      // Memory of a peer is that device's, and is not read for a copy.
      guard isStreaming && known.isEmpty else { return .refused(.outOfRange, reasons.union(reach)) }
      return bounced(.bounced, attributes, reasons.union(reach))
    case .translated(let translation, let domain):
      guard unsafe domain.pointee.kind.isForMappingCalls else {
        return .refused(.notPermitted, .owned)
      }
      var reasons = known.union(.translates)
      if unsafe domain.pointee.kind == .hybrid {
        // A bus that moves addresses has no window on them.
        var against = ranges.isEmpty ? reach(of: memory, limit, known, isStreaming) : .outsideRanges
        if unsafe !domain.pointee.isInWindow(memory) { against.insert(.outsideWindow) }
        if unsafe !domain.pointee.bypasses { against.insert(.noBypass) }
        if bouncesAll && isStreaming && known.isEmpty { against.insert(.bounceForced) }
        if against.isEmpty { return PathDecision(.direct, known.union(.inWindow)) }
        reasons.formUnion(against)
      }
      guard unsafe memory.last <= translation.pointee.table.facts.lastOutput else {
        return .refused(.outOfRange, reasons.union(.tooWide))
      }
      guard isStreaming, isUntrusted || (bouncesAll && known.isEmpty),
        !memory.isAligned(to: Self.granule)
      else {
        return PathDecision(.iommu, reasons)
      }
      reasons.insert(isUntrusted ? .untrustedPage : .bounceForced)
      // A part of a page of a peer's: the rest would be in reach.
      guard known.isEmpty else { return .refused(.notReachable, reasons) }
      return bounced(.iommuBounced, attributes, reasons)
    }
  }

  /// A path by which memory is copied, if it may be and there is a pool. Whether that has room, and where
  /// the device reaches it, is for the call to find out.
  private func bounced(
    _ path: MappingPath, _ attributes: MappingAttributes, _ reasons: PathReasons
  ) -> PathDecision {
    guard hasBouncePool else { return .refused(.outOfRange, reasons.union(.noBounce)) }
    if attributes.contains(.requireCoherent) { return .refused(.notSupported, reasons) }
    // Registers are no memory, and are not read for a copy.
    if attributes.contains(.mmio) { return .refused(.outOfRange, reasons) }
    return PathDecision(path, reasons)
  }

  /// The decision about memory of a peer; nil if it is like that about other memory.
  @inline(never)
  private func decide(
    aboutPeer memory: PhysicalRange, _ limit: AddressLimit,
    in domain: UnsafeMutablePointer<Domain>?, _ known: inout PathReasons
  ) -> PathDecision? {
    switch unsafe path(with: domain) {
    case .direct: break
    case .translated(_, let domain) where unsafe domain.pointee.kind.isForMappingCalls: break
    case .translated, .nested, .blocked: return nil
    }
    guard let (route, bus) = peerRoute(to: memory, isHolding: false) else { return nil }
    known = .peer
    if route == .hostBridge { return nil }
    guard let bus else { return .refused(.notReachable, .peerUnreachable) }
    return bus.last.rawValue <= limit.highest
      ? PathDecision(.busAddress, .peer) : .refused(.outOfRange, [.peer, .aboveLimit])
  }

  /// Why the device does not reach memory by itself; nothing if it does.
  private func reach(
    of memory: PhysicalRange, _ limit: AddressLimit, _ known: PathReasons, _ isStreaming: Bool
  ) -> PathReasons {
    guard let range = ranges.bus(of: memory) else { return .outsideRanges }
    // Other memory at the bus addresses of a peer would lead the device to that.
    if meetsPeers && !known.contains(.peer),
      unsafe system.pointee.peerBus(range.first.rawValue, range.last.rawValue, of: group) != nil
    {
      return [.outsideRanges, .peer]
    }
    guard range.last.rawValue <= limit.highest else { return .aboveLimit }
    return !isStreaming || keepsBits(memory.first.rawValue ^ range.first.rawValue)
      ? [] : .misaligned
  }
}
