// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import PageTables
import Primitives
import Synchronization

// Theory of operation: mapping functions of the caller's.
//
// 1. Concepts
// A device may have functions that say at which addresses it has memory (sys/mapping_ops.h). It has no
// IOMMU then, and no DMA ranges; the policy asks which memory bypasses the functions, and they map the rest.
//
// 2. Implementation
// 2.1 A record is kept of every mapping of such a device, direct or not. It is what unmapping and syncing
// go by, and what its views reach memory by: an address alone does not say where it leads.
// 2.2 What the functions say is an allegation, as all that C gives. Addresses are held against the limit, the
// memory and the other mappings when the record is entered, under the table's lock.
// 2.3 A window of bypass belongs to a mask, and the two change together. Of a call that reads them meanwhile
// one may be the old one; it obeys both.
//
// 3. Locking
// The windows are read and written under a lock of the rank of the mapping table's (4), never with that. The
// functions are called under none.
//
// 4. What this does not do
// It hands no list over as a whole: each range has a record of its own. Functions that want to do all of
// a list at once collect what they are asked between its begin and its end.

/// The mapping functions of a device, and which memory bypasses them.
@safe
public struct MappingOps: ~Copyable {
  /// Which memory a device has directly: at its own address and an offset.
  public struct Window: Sendable {
    public var isOffered = false
    public var offset: UInt64 = 0
    /// The highest of the device's addresses in it.
    public var limit = UInt64.max

    public init() {}

    /// The highest physical address in the window that is the device's up to a limit.
    public func lastPhysical(under highest: UInt64) -> UInt64? {
      let last = min(limit, highest)
      return isOffered && last >= offset ? last &- offset : nil
    }
  }

  private let ops: dmacore_mapping_ops
  private let opaque: UnsafeMutableRawPointer?
  // Set before anybody else knows the device.
  fileprivate var device: OpaquePointer? = nil
  private let lock: Lock
  // By kinds. An offset is a multiple of a page; its lowest bit says whether there is a window.
  private let streamingOffset = Atomic<UInt64>(0)
  private let streamingLimit = Atomic<UInt64>(0)
  private let coherentOffset = Atomic<UInt64>(0)
  private let coherentLimit = Atomic<UInt64>(0)

  /// - Throws: `invalidArgument` for an unknown flag, or a function without another that it needs;
  ///   `noMemory`.
  @_optimize(size)
  init(_ ops: dmacore_mapping_ops, opaque: UnsafeMutableRawPointer?) throws(Failure) {
    let hasOthers =
      unsafe ops.flags != 0 || ops.sync != nil || ops.supported != nil || ops.required_mask != nil
      || ops.limits != nil || ops.alloc != nil || ops.begin_list != nil
    guard ops.flags & ~DMACORE_OPS_BYPASS.rawValue == 0 && ops.reserved == 0,
      unsafe (ops.map == nil) == (ops.unmap == nil),
      unsafe (ops.alloc == nil) == (ops.free == nil),
      unsafe (ops.begin_list == nil) == (ops.end_list == nil),
      unsafe ops.map != nil || !hasOthers
    else { throw .invalidArgument }
    lock = try Lock(.deviceMappings)
    self.ops = ops
    unsafe self.opaque = opaque
  }

  /// Those that a device is made with, if there are any.
  ///
  /// - Throws: as `init`, and `invalidArgument` when one that is not trusted would bypass them.
  static func place(
    _ description: DeviceDescription
  ) throws(Failure) -> UnsafeMutablePointer<MappingOps>? {
    guard let given = unsafe description.mappingOps else { return nil }
    return unsafe try Box<MappingOps>.place { () throws(Failure) in
      let ops = unsafe try MappingOps(given.pointee, opaque: description.mappingOpsOpaque)
      if ops.bypasses && description.isUntrusted { throw .invalidArgument }
      return ops
    }
  }

  /// Whether nobody has configured the device: there is no function.
  public var isEmpty: Bool { unsafe ops.map == nil }

  var bypasses: Bool { ops.flags & DMACORE_OPS_BYPASS.rawValue != 0 }

  public var syncs: Bool { unsafe ops.sync != nil }

  public var allocates: Bool { unsafe ops.alloc != nil }

  // MARK: - Windows

  /// Which memory bypasses the functions at this moment, in mappings of a kind.
  @inline(never)
  public func window(_ kind: MappingRecord.Kind) -> Window {
    lock.lock()
    defer { lock.unlock() }
    var window = Window()
    let isStreaming = kind == .streaming
    let word =
      isStreaming
      ? streamingOffset.load(ordering: .relaxed) : coherentOffset.load(ordering: .relaxed)
    window.isOffered = word & 1 != 0
    window.offset = word & ~1
    window.limit =
      isStreaming ? streamingLimit.load(ordering: .relaxed) : coherentLimit.load(ordering: .relaxed)
    return window
  }

  /// Asks for the window that goes with a mask.
  ///
  /// - Throws: `notPermitted` when there is no function, `ioError` when the answer is none, and what the
  ///   function fails with.
  @inline(never)
  @_optimize(size)
  fileprivate func ask(_ kind: UInt32, _ mask: UInt64) throws(Failure) -> Window {
    if isEmpty { throw .notPermitted }
    var window = Window()
    window.isOffered = bypasses
    guard let supported = unsafe ops.supported else { return window }
    var answer = dmacore_ops_bypass()
    answer.struct_size = MemoryLayout<dmacore_ops_bypass>.size
    ThreadRules.willCallBack()
    try unsafe Failure.check(supported(device, kind, mask, &answer, opaque))
    guard bypasses && answer.is_offered != 0 else { return Window() }
    guard answer.offset & Device.granule.mask == 0 else { throw .ioError }
    window.offset = answer.offset
    if answer.limit != 0 { window.limit = answer.limit }
    return window
  }

  /// Changes masks, together with the windows that go with them; nil for what stays.
  fileprivate func enter(_ streaming: Window?, _ coherent: Window?, _ setMasks: () -> Void) {
    lock.lock()
    defer { lock.unlock() }
    setMasks()
    if let streaming {
      streamingOffset.store(streaming.word, ordering: .relaxed)
      streamingLimit.store(streaming.limit, ordering: .relaxed)
    }
    if let coherent {
      coherentOffset.store(coherent.word, ordering: .relaxed)
      coherentLimit.store(coherent.limit, ordering: .relaxed)
    }
  }

  // MARK: - Calls

  /// What the functions are told of a mapping, or of a part of one.
  @inline(never)
  private func describe(
    _ first: UInt64, _ extent: UInt64, _ record: borrowing MappingRecord
  ) -> dmacore_ops_mapping {
    unsafe dmacore_ops_mapping(
      struct_size: MemoryLayout<dmacore_ops_mapping>.size, dma: first, phys: record.target,
      size: extent &+ 1, cpu: nil, limit: 0, align_mask: 0,
      kind: record.kind == .coherent ? DMACORE_COHERENT.rawValue : DMACORE_STREAMING.rawValue,
      direction: record.direction.rawValue, attributes: record.attributes.rawValue, reserved: 0)
  }

  /// An address for memory; whether it is one that there may be is for the caller to see.
  ///
  /// - Throws: what the function fails with.
  public func map(
    _ record: borrowing MappingRecord, _ extent: UInt64, limit: UInt64, alignMask: UInt64
  ) throws(Failure) -> UInt64 {
    var mapping = unsafe describe(0, extent, record)
    unsafe mapping.limit = limit
    unsafe mapping.align_mask = alignMask
    var address: UInt64 = 0
    ThreadRules.willCallBack()
    // The policy refuses where there is none.
    guard let map = unsafe ops.map else { throw .notPermitted }
    try unsafe Failure.check(map(device, &mapping, &address, opaque))
    return address
  }

  /// Ends what `map` gave an address.
  public func unmap(_ first: UInt64, _ extent: UInt64, _ record: borrowing MappingRecord) {
    // That is for `free`.
    if unsafe record.memory?.pointee.ops != nil { return }
    var mapping = unsafe describe(first, extent, record)
    ThreadRules.willCallBack()
    unsafe ops.unmap?(device, &mapping, opaque)
  }

  /// Says that a list is about to be mapped or unmapped.
  @inline(never)
  public func beginList(isMapping: Bool) {
    ThreadRules.willCallBack()
    unsafe ops.begin_list?(device, isMapping, opaque)
  }

  /// Says that there is no more of it.
  ///
  /// - Throws: what the function fails with.
  @inline(never)
  public func endList(isMapping: Bool) throws(Failure) {
    ThreadRules.willCallBack()
    if let endList = unsafe ops.end_list {
      try unsafe Failure.check(endList(device, isMapping, opaque))
    }
  }

  /// - Throws: what the function fails with.
  @inline(never)
  @_optimize(size)
  public func sync(
    _ range: DMARange, _ direction: Direction, to target: UInt64, forCPU: Bool
  ) throws(Failure) {
    guard let sync = unsafe ops.sync else { return }
    var mapping = unsafe describe(
      range.first.rawValue, range.extent,
      MappingRecord(
        kind: .streaming, path: .ops, direction: direction, domain: nil, target: target, stamp: 0))
    ThreadRules.willCallBack()
    try unsafe Failure.check(sync(device, &mapping, forCPU, opaque))
  }

  /// Coherent memory in whole pages of the system's, pinned, and its address.
  ///
  /// - Throws: what the function fails with, `badAddress`.
  @inline(never)
  @_optimize(size)
  func allocate(
    _ size: UInt64, _ limit: UInt64, _ address: inout UInt64, in system: borrowing System
  ) throws(Failure) -> dmacore_memory_segment {
    var mapping = unsafe describe(0, size &- 1, Self.coherent)
    unsafe mapping.limit = limit
    unsafe mapping.align_mask = Device.granule.mask
    var cpu: UnsafeMutableRawPointer? = nil
    ThreadRules.willCallBack()
    guard let allocate = unsafe ops.alloc else { throw .notSupported }
    try unsafe Failure.check(allocate(device, &mapping, &cpu, &address, opaque))
    do throws(Failure) {
      guard let cpu = unsafe cpu else { throw .badAddress }
      let memory = unsafe try system.claim(cpu, size: size)
      return unsafe dmacore_memory_segment(cpu: cpu, phys: memory.first.rawValue, size: size)
    } catch {
      unsafe free(dmacore_memory_segment(cpu: cpu, phys: 0, size: size), address)
      throw error
    }
  }

  /// Frees what `allocate` gave, which is pinned no more.
  @inline(never)
  @_optimize(size)
  func free(_ segment: dmacore_memory_segment, _ address: UInt64) {
    var mapping = unsafe describe(address, segment.size &- 1, Self.coherent)
    unsafe mapping.phys = segment.phys
    unsafe mapping.cpu = segment.cpu
    ThreadRules.willCallBack()
    unsafe ops.free?(device, &mapping, opaque)
  }

  private static var coherent: MappingRecord {
    unsafe MappingRecord(
      kind: .coherent, path: .ops, direction: .bidirectional, domain: nil, stamp: 0)
  }

  // MARK: - Limits

  /// What there is to say of sizes, and the mask that is required.
  @_optimize(size)
  public func limits() -> (dmacore_ops_limits, requiredMask: UInt64) {
    var limits = dmacore_ops_limits()
    limits.struct_size = MemoryLayout<dmacore_ops_limits>.size
    ThreadRules.willCallBack()
    unsafe ops.limits?(device, &limits, opaque)
    return (limits, unsafe ops.required_mask?(device, opaque) ?? UInt64(UInt32.max))
  }
}

extension MappingOps.Window {
  fileprivate var word: UInt64 { offset | (isOffered ? 1 : 0) }
}

extension Device {
  /// Lets the mapping functions know whose they are, and asks them about the masks that it is made with.
  ///
  /// - Throws: as `setMask`.
  static func startOps(_ device: UnsafeMutablePointer<Device>) throws(Failure) {
    guard let ops = unsafe device.pointee.ops else { return }
    unsafe ops.pointee.device = OpaquePointer(device)
    // One that nobody has configured has none.
    if unsafe ops.pointee.isEmpty {
      return try unsafe device.pointee.setMask([.streaming, .coherent], to: 0)
    }
    try unsafe device.pointee.setMask(
      .streaming, to: device.pointee.streamingMask.load(ordering: .relaxed))
    try unsafe device.pointee.setMask(
      .coherent, to: device.pointee.coherentMask.load(ordering: .relaxed))
  }

  /// Sets what says how high the device reaches; masks only if its mapping functions agree.
  ///
  /// - Throws: what those fail with, `notPermitted` when there are none and should be, `ioError`.
  @_optimize(size)
  public func setMask(_ reach: Reach, to highest: UInt64) throws(Failure) {
    defer { noteLimits() }
    guard let ops = unsafe ops, reach != .bus, highest != 0 else {
      return set(reach, to: highest)
    }
    var (streaming, coherent) = (nil as MappingOps.Window?, nil as MappingOps.Window?)
    if reach.contains(.streaming) {
      streaming = try unsafe ops.pointee.ask(DMACORE_STREAMING.rawValue, highest)
    }
    if reach.contains(.coherent) {
      coherent = try unsafe ops.pointee.ask(DMACORE_COHERENT.rawValue, highest)
    }
    unsafe ops.pointee.enter(streaming, coherent) { set(reach, to: highest) }
  }
}
