// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MemoryMap
import PageTables
import Primitives

// Theory of operation: views.
//
// 1. Concepts
// A view is the bus as a device sees it. An access names a range of the device's addresses; the
// view finds out, run by run, where each part of it leads: through the device's path to a physical
// address, and through the memory map to bytes of this process or to a region's callbacks. A run
// is as long as one table entry, one mapping and one region allow.
//
// 2. Implementation
// `step` resolves one run. It is called inside a read section and its answer is used in the same
// section: nothing that it found can be unmapped strictly, removed or freed before the section is
// left. Callbacks run outside, with their region pinned.
// 2.1 An access that one run covers is resolved and copied in one section. A longer one is resolved
// twice: the first pass looks for a fault, so that an access that is refused moves no byte; the
// second moves them. What is unmapped between the two ends the access there.
// 2.2 A section copies at most `copySize` bytes, so that whoever waits for readers waits for that.
// 2.3 A fault names the addresses in a row that its reason holds for, as far as a bounded search
// finds them.
//
// 3. Locking
// None, but for devices whose direct mappings are tracked: those ask the mapping table (rank 4).
// Faults are recorded and handed over outside of read sections.
//
// 4. What this does not do
// It keeps no translation between two accesses, and orders no access against another.

/// A device's view of memory.
@safe
public struct View: ~Copyable {
  let device: UnsafeMutablePointer<Device>
  /// What the PASID of its requests leads to; nil if they carry none. It lives as long as the device's
  /// group.
  let slot: UnsafeMutablePointer<PASIDSlot>?
  private let pasid: UInt32

  /// Holds the device until it ends.
  public init(device: UnsafeMutablePointer<Device>) {
    unsafe Box.hold(device)
    unsafe self.device = device
    unsafe slot = nil
    pasid = 0
  }

  /// A view of the device's requests with a PASID. Holds the device until it ends.
  ///
  /// - Throws: `invalidArgument` when they cannot carry it, `noMemory`.
  public init(device: UnsafeMutablePointer<Device>, pasid: UInt32) throws(Failure) {
    guard unsafe device.pointee.has(pasid) else { throw .invalidArgument }
    unsafe slot = try device.pointee.group.pointee.slot(of: pasid)
    unsafe Box.hold(device)
    unsafe self.device = device
    self.pasid = pasid
  }

  /// The path at this moment. The caller is inside a read section while it uses the answer.
  @inline(__always)
  var currentPath: DevicePath {
    guard let slot = unsafe slot else { return unsafe device.pointee.currentPath }
    return unsafe device.pointee.path(of: slot)
  }

  var isNested: Bool {
    let token = unsafe device.pointee.system.pointee.readers.enter()
    defer { unsafe device.pointee.system.pointee.readers.leave(token) }
    if case .nested = currentPath { return true }
    return false
  }

  deinit { unsafe Box.letGo(device) }

  /// Asks for a page as the device.
  ///
  /// - Throws: as `PageRequestGroup.add`.
  public func requestPage(_ request: dmacore_page_request) throws(Failure) {
    unsafe try PageRequestGroup.add(request, from: device, slot)
  }

  /// The most bytes that one read section copies: long enough for the section's cost not to matter,
  /// short enough for a waiting writer.
  static var copySize: UInt64 { 64 << 10 }

  /// The most runs that a fault looks for the end of its reason in. A device chooses how long an
  /// access is, and should not choose how long refusing it takes.
  static var refusedRuns: Int { 64 }
}

/// Why an access is refused, and which stage of a nested domain refuses it. The values are those of
/// `fault.h`: the reason in the lowest byte, and the stage above.
public enum FaultReason: UInt32, Sendable {
  case notMapped = 0x001
  case denied = 0x002
  case noMemory = 0x003
  case blocked = 0x004
  case notMappedByGuest = 0x101
  case deniedByGuest = 0x102
  case badTable = 0x105
  case notMappedByParent = 0x201
  case deniedByParent = 0x202
  case unreadableTable = 0x205

  fileprivate init(_ fault: WalkFault) {
    let isSecond = fault.stage == 2
    switch fault.reason {
    case .notPresent, .inputWidth: self = isSecond ? .notMappedByParent : .notMappedByGuest
    case .denied: self = isSecond ? .deniedByParent : .deniedByGuest
    case .tableRead: self = .unreadableTable
    case .reserved, .outputWidth, .notAccessed: self = .badTable
    }
  }

  var reason: UInt32 { rawValue & 0xff }
  var stage: UInt32 { rawValue >> 8 }

  var failure: Failure {
    switch self {
    case .notMapped, .notMappedByGuest, .notMappedByParent: .notFound
    case .denied, .deniedByGuest, .deniedByParent: .accessDenied
    case .noMemory, .badTable, .unreadableTable: .badAddress
    case .blocked: .notPermitted
    }
  }
}

/// Where a range of a device's addresses leads.
public struct DeviceTranslation: Sendable {
  public let first: UInt64
  public let last: UInt64
  /// Physical address of `first`.
  public let target: UInt64
  public let access: Access
}

extension View {
  enum Translated {
    case found(DeviceTranslation)
    case refused(FaultReason, last: UInt64)
  }

  /// Translates one address by a path that was read in the read section the caller is inside.
  @inline(__always)
  private func translated(
    _ address: UInt64, _ access: Access, by path: DevicePath
  ) -> Translated {
    let found = allTranslated(address, access, by: path)
    if unsafe !device.pointee.hasDetours { return found }
    return withDetours(found, address, access, by: path)
  }

  /// What becomes of a translation where the bus passes some addresses alone, or leads some to peers.
  @inline(never)
  private func withDetours(
    _ found: Translated, _ address: UInt64, _ access: Access, by path: DevicePath
  ) -> Translated {
    if case .blocked = path { return found }
    let (kind, window) = unsafe device.pointee.detour(at: address, isGoingUp: slot != nil)
    if kind == .hole { return .refused(.notMapped, last: window.bus.last.rawValue) }
    let isPeer = kind == .peer
    switch isPeer ? direct(address, access, byBusAddress: true) : found {
    case .refused(let reason, let last):
      return .refused(reason, last: min(last, window.bus.last.rawValue))
    case .found(let whole):
      let part = window.part(
        whole.first, whole.last, to: whole.target, isDirect: isPeer || leadsDirectly(by: path))
      return .found(
        DeviceTranslation(
          first: part.first, last: part.last, target: part.target, access: whole.access))
    }
  }

  /// Whether where an address leads is the bus's to say.
  func leadsDirectly(by path: DevicePath) -> Bool {
    unsafe path.isDirect && device.pointee.ops == nil
  }

  /// As `translated`, where the bus passes all addresses.
  private func allTranslated(
    _ address: UInt64, _ access: Access, by path: DevicePath
  ) -> Translated {
    switch path {
    case .blocked:
      return .refused(.blocked, last: UInt64.max)
    case .direct:
      return direct(address, access)
    case .translated(let translation, _):
      let found = unsafe translation.pointee.table.lookUp(IOVA(address))
      guard found.isMapped else { return .refused(.notMapped, last: found.last) }
      guard found.access.permits(access) else { return .refused(.denied, last: found.last) }
      return .found(
        DeviceTranslation(
          first: found.first, last: found.last, target: found.target, access: found.access))
    case .nested(let nesting, _):
      return unsafe nested(address, access, nesting, by: path).0
    }
  }

  /// As `translated`, by a path that is nested, and where stage 1 leads the address.
  @inline(never)
  private func nested(
    _ address: UInt64, _ access: Access, _ nesting: UnsafeMutablePointer<Nesting>,
    by path: DevicePath
  ) -> (Translated, middle: UInt64) {
    var found: Translated
    var middle: UInt64 = 0
    do throws(WalkFault) {
      let (whole, output) = unsafe try nesting.pointee.translate(address, for: access)
      middle = output
      found = .found(
        DeviceTranslation(
          first: whole.first, last: whole.last, target: whole.target, access: whole.access))
    } catch {
      found = .refused(FaultReason(error), last: error.last)
    }
    if unsafe device.pointee.hasDetours { found = withDetours(found, address, access, by: path) }
    return (found, middle)
  }

  private func direct(
    _ address: UInt64, _ access: Access, byBusAddress: Bool = false
  ) -> Translated {
    guard unsafe device.pointee.tracksDirect else {
      return .found(
        DeviceTranslation(first: 0, last: UInt64.max, target: 0, access: [.read, .write]))
    }
    switch unsafe device.pointee.mappings.permission(
      at: address, access, byBusAddress: byBusAddress)
    {
    case .permitted(let first, let last, let target, let granted):
      return .found(
        DeviceTranslation(
          first: first, last: last, target: unsafe device.pointee.ops == nil ? first : target,
          access: granted))
    case .denied(let last):
      return .refused(.denied, last: last)
    case .unmapped(let last):
      return .refused(.notMapped, last: last)
    }
  }

  /// Looks an address up without recording a fault.
  ///
  /// - Throws: the failure that stands for the reason of a refusal.
  public func translate(_ address: DMAAddress, _ access: Access) throws(Failure)
    -> DeviceTranslation
  {
    let token = unsafe device.pointee.system.pointee.readers.enter()
    let found = translated(
      address.rawValue, access, by: currentPath)
    unsafe device.pointee.system.pointee.readers.leave(token)
    switch found {
    case .found(let translation): return translation
    case .refused(let reason, _): throw reason.failure
    }
  }

  // MARK: - Runs

  /// One run of an access: what its addresses up to `last` are.
  @safe
  enum Step {
    case memory(UnsafeMutableRawPointer, PhysicalMemory.Region?, last: UInt64, noteOffset: UInt64)
    case callbacks(PhysicalMemory.Region, offset: UInt64, last: UInt64, noteOffset: UInt64)
    case refused(FaultReason, last: UInt64)
    /// Nothing tells what is memory there.
    case unknown
  }

  /// Resolves the run that starts at `address` and goes no further than `last`, by a path that was
  /// read in the read section the caller is inside.
  @inline(never)
  func step(
    from address: UInt64, through last: UInt64, _ access: Access, by path: DevicePath
  ) -> Step {
    if case .nested(let nesting, _) = path {
      return unsafe nestedStep(from: address, through: last, access, nesting, by: path)
    }
    return step(
      translated(address, access, by: path), from: address, through: last, access, by: path,
      noteOffset: 0)
  }

  @inline(never)
  private func nestedStep(
    from address: UInt64, through last: UInt64, _ access: Access,
    _ nesting: UnsafeMutablePointer<Nesting>, by path: DevicePath
  ) -> Step {
    let (found, middle) = unsafe nested(address, access, nesting, by: path)
    return step(
      found, from: address, through: last, access, by: path, noteOffset: middle &- address)
  }

  /// As `step`, of an address that has been translated.
  @inline(__always)
  private func step(
    _ found: Translated, from address: UInt64, through last: UInt64, _ access: Access,
    by path: DevicePath, noteOffset: UInt64
  ) -> Step {
    let translation: DeviceTranslation
    switch found {
    case .refused(let reason, let refusedLast):
      return .refused(reason, last: min(last, refusedLast))
    case .found(let found):
      translation = found
    }
    let runLast = min(last, translation.last)
    // `address` is inside the translation, whose target range does not wrap.
    let physical = translation.target &+ (address &- translation.first)
    let system = unsafe device.pointee.system
    if unsafe system.pointee.memory.isFlat {
      if case .direct = path, unsafe !device.pointee.tracksDirect { return .unknown }
      // SAFETY: a flat system's addresses are those of this process, and this one lies in memory that
      // the driver has mapped: its record or its page-table entry was found in this section.
      guard let host = unsafe UnsafeMutableRawPointer(bitPattern: UInt(physical)) else {
        return .refused(.noMemory, last: runLast)
      }
      return unsafe .memory(host, nil, last: runLast, noteOffset: noteOffset)
    }
    let (found, holeLast) = unsafe system.pointee.memory.find(PhysicalAddress(physical))
    guard let region = unsafe found else {
      return .refused(.noMemory, last: Self.bounded(runLast, address, by: holeLast &- physical))
    }
    let range = unsafe region.pointee.range
    let stepLast = Self.bounded(runLast, address, by: range.last.rawValue &- physical)
    if unsafe region.pointee.isReadOnly && access.contains(.write) {
      return .refused(.denied, last: stepLast)
    }
    let offset = physical &- range.first.rawValue
    if let host = unsafe region.pointee.host {
      return unsafe .memory(
        host + Int(truncatingIfNeeded: offset), region, last: stepLast,
        noteOffset: noteOffset)
    }
    return unsafe .callbacks(
      region, offset: offset, last: stepLast, noteOffset: noteOffset)
  }

  /// `last`, or the address `extent` behind `address` if that comes first.
  private static func bounded(_ last: UInt64, _ address: UInt64, by extent: UInt64) -> UInt64 {
    last &- address <= extent ? last : address &+ extent
  }

  /// `step` in a read section of its own, for an answer that is used as a number only; and the domain that
  /// refuses, held, if it wants to know and `isTelling`.
  @inline(never)
  private func probe(
    from address: UInt64, through last: UInt64, _ access: Access, isTelling: Bool
  ) -> (step: Step, domain: UnsafeMutablePointer<Domain>?) {
    let token = unsafe device.pointee.system.pointee.readers.enter()
    defer { unsafe device.pointee.system.pointee.readers.leave(token) }
    let path = currentPath
    let found = step(from: address, through: last, access, by: path)
    guard isTelling, case .refused = found else { return (found, nil) }
    return unsafe (found, path.holdListener())
  }

  /// Calls `body` with each run of a range and its size, resolved in read sections of their own.
  ///
  /// - Throws: a refusal, after it has been made a fault; `notSupported`.
  func forEachRun(
    of range: DMARange, _ access: Access, _ body: (Step, UInt64) throws(Failure) -> Void
  ) throws(Failure) {
    var address = range.first.rawValue
    let last = range.last.rawValue
    while true {
      let (found, domain) = unsafe probe(
        from: address, through: last, access, isTelling: true)
      let runLast: UInt64
      switch found {
      case .memory(_, _, let end, _): runLast = end
      case .callbacks(_, _, let end, _): runLast = end
      case .refused(let reason, let end):
        throw unsafe refuse(reason, first: address, known: end, last: last, access, by: domain)
      case .unknown: throw .notSupported
      }
      try body(found, runLast &- address &+ 1)
      guard runLast < last else { return }
      address = runLast &+ 1
    }
  }

  /// Makes a refusal a fault, and returns the failure that stands for it.
  ///
  /// - Parameters:
  ///   - known, last: the reason holds up to `known`; the access goes up to `last`.
  ///   - domain: the one that refuses, if it wants to know; it was held for this, which lets go of it.
  @inline(never)
  func refuse(
    _ reason: FaultReason, first: UInt64, known: UInt64, last: UInt64, _ access: Access,
    by domain: UnsafeMutablePointer<Domain>?
  ) -> Failure {
    var end = known
    var runs = 0
    while end < last, runs < Self.refusedRuns,
      case .refused(reason, let next) = unsafe probe(
        from: end &+ 1, through: last, access, isTelling: false
      ).step
    {
      end = next
      runs &+= 1
    }
    unsafe device.pointee.report(
      dmacore_fault(
        first: first, last: end, sequence: 0, time: 0, access: access.rawValue,
        reason: reason.reason, pasid: pasid, stage: reason.stage),
      from: OpaquePointer(device), in: domain)
    if let domain = unsafe domain { unsafe Box.letGo(domain) }
    return reason.failure
  }
}
