// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives
import Synchronization

/// What a device is made from, checked.
@safe
public struct DeviceDescription {
  let tracksDirect: Bool
  let faultCapacity: Int
  let name: UnsafePointer<CChar>?
  let iommu: UnsafeMutablePointer<IOMMU>?
  let streamingMask: UInt64
  let coherentMask: UInt64
  let busLimit: UInt64
  let fault: dmacore_fault_fn?
  let faultOpaque: UnsafeMutableRawPointer?

  /// - Throws: `invalidArgument` for an IOMMU of another system, a name or a ring that is too long.
  public init(
    _ options: dmacore_device_options, iommu: UnsafeMutablePointer<IOMMU>?,
    system: UnsafeMutablePointer<System>
  ) throws(Failure) {
    let capacity = unsafe Int(options.fault_capacity)
    guard capacity <= 65536 else { throw .invalidArgument }
    if let name = unsafe options.name {
      var length = 0
      while unsafe name[length] != 0 {
        length += 1
        guard length < Int(DMACORE_DEVICE_NAME_SIZE) else { throw .invalidArgument }
      }
    }
    if let iommu = unsafe iommu {
      guard unsafe iommu.pointee.system == system else { throw .invalidArgument }
    }
    tracksDirect = unsafe options.flags & DMACORE_DEVICE_TRACK_DIRECT.rawValue != 0
    faultCapacity = capacity == 0 ? 64 : capacity
    unsafe name = options.name
    unsafe self.iommu = iommu
    streamingMask = unsafe options.streaming_mask
    coherentMask = unsafe options.coherent_mask
    busLimit = unsafe options.bus_limit
    unsafe fault = options.fault
    unsafe faultOpaque = options.fault_opaque
  }
}

/// How a device's addresses reach memory.
@safe
public enum DevicePath {
  /// Addresses are physical.
  case direct
  /// The domain translates them.
  case translated(UnsafeMutablePointer<Domain.Translation>, UnsafeMutablePointer<Domain>)
  /// They reach nothing.
  case blocked
}

/// Something that reads and writes memory by itself.
@safe
public struct Device: ~Copyable, Held {
  /// What coherent allocations and IOVA ranges are multiples of: the smallest page of every format.
  public static var granule: Granule { Granule(shift: 12) }

  public let system: UnsafeMutablePointer<System>
  public let iommu: UnsafeMutablePointer<IOMMU>?
  public let tracksDirect: Bool
  public let mappings: MappingTable
  public let faults: FaultRing
  /// The zero-copy mappings of a device that is mapped directly.
  public let pins: PinTable
  private let busLimit: UInt64
  private let streamingMask: Atomic<UInt64>
  private let coherentMask: Atomic<UInt64>
  private let nameBytes: UnsafeMutablePointer<CChar>
  private let fault: dmacore_fault_fn?
  private let faultOpaque: UnsafeMutableRawPointer?
  private let uses = UseCount()

  /// Holds the system and the IOMMU until it ends.
  public init(
    system: UnsafeMutablePointer<System>, _ description: DeviceDescription
  ) throws(Failure) {
    let mappings = try MappingTable()
    let faults = try FaultRing(capacity: description.faultCapacity)
    let pins = try PinTable()
    let nameBytes = unsafe try Self.copy(description.name)
    unsafe Box.hold(system)
    if let iommu = unsafe description.iommu { unsafe Box.hold(iommu) }
    unsafe self.system = system
    unsafe iommu = description.iommu
    tracksDirect = description.tracksDirect
    self.mappings = mappings
    self.faults = faults
    self.pins = pins
    busLimit = description.busLimit
    streamingMask = Atomic(description.streamingMask)
    coherentMask = Atomic(description.coherentMask)
    unsafe self.nameBytes = nameBytes
    unsafe fault = description.fault
    unsafe faultOpaque = description.faultOpaque
  }

  deinit {
    unsafe RawMemory.free(nameBytes)
    if let iommu = unsafe iommu { unsafe Box.letGo(iommu) }
    unsafe Box.letGo(system)
  }

  private static func copy(
    _ name: UnsafePointer<CChar>?
  ) throws(Failure) -> UnsafeMutablePointer<CChar> {
    let size = Int(DMACORE_DEVICE_NAME_SIZE)
    let raw = unsafe try RawMemory.allocate(size, alignment: 16)
    // SAFETY: the allocation is `size` bytes and holds nothing else.
    let bytes = unsafe raw.bindMemory(to: CChar.self, capacity: size)
    unsafe bytes.initialize(repeating: 0, count: size)
    if let name = unsafe name {
      // The description's initializer saw to it that the name and its null byte fit.
      var index = 0
      while unsafe name[index] != 0 {
        unsafe bytes[index] = name[index]
        index += 1
      }
    } else {
      let fallback: StaticString = "device"
      fallback.withUTF8Buffer { utf8 in
        for index in 0..<utf8.count { unsafe bytes[index] = CChar(bitPattern: utf8[index]) }
      }
    }
    return unsafe bytes
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  // SAFETY: `copy` ended the bytes with a null byte, and nobody writes them afterwards.
  public var name: UnsafePointer<CChar> { unsafe UnsafePointer(nameBytes) }

  // MARK: - Limits

  /// What a mapping of this kind must stay under.
  ///
  /// - Throws: `noMask`.
  public func limit(for kind: MappingRecord.Kind) throws(Failure) -> AddressLimit {
    let mask =
      switch kind {
      case .streaming: streamingMask.load(ordering: .relaxed)
      case .coherent: coherentMask.load(ordering: .relaxed)
      }
    return try AddressLimit(mask: mask, busLimit: busLimit)
  }

  public func setMask(_ mask: UInt64, for kind: MappingRecord.Kind) {
    switch kind {
    case .streaming: streamingMask.store(mask, ordering: .relaxed)
    case .coherent: coherentMask.store(mask, ordering: .relaxed)
    }
  }

  /// How many live mappings of a kind reach above a mask.
  public func countMappings(_ kind: MappingRecord.Kind, above mask: UInt64) -> UInt64 {
    mappings.count(kind, above: mask)
  }

  // MARK: - Attachment

  /// The path of a device with this domain.
  public func path(with domain: UnsafeMutablePointer<Domain>?) -> DevicePath {
    guard unsafe iommu != nil else { return .direct }
    guard let domain = unsafe domain else { return .blocked }
    guard let translation = unsafe domain.pointee.translation else {
      return unsafe domain.pointee.kind == .identity ? .direct : .blocked
    }
    return unsafe .translated(translation, domain)
  }

  /// The path at this moment. The caller is inside a read section while it uses the answer.
  public var currentPath: DevicePath { unsafe path(with: mappings.domain) }

  /// Lets the device use a domain.
  ///
  /// - Throws: `invalidArgument` for a domain of another IOMMU, `busy` when it has a domain.
  public func attach(_ domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    guard let iommu = unsafe iommu, unsafe domain.pointee.iommu == iommu else {
      throw .invalidArgument
    }
    unsafe Box.hold(domain)
    do throws(Failure) {
      try unsafe mappings.attach(domain)
    } catch {
      unsafe Box.letGo(domain)
      throw error
    }
    unsafe domain.pointee.countDevice()
  }

  /// Ends the device's use of a domain.
  ///
  /// - Throws: `invalidArgument` when it is not attached to this one, `busy` while it has mappings.
  public func detach(_ domain: UnsafeMutablePointer<Domain>) throws(Failure) {
    try unsafe mappings.detach(domain)
    unsafe system.pointee.readers.waitForReaders()
    unsafe domain.pointee.uncountDevice()
    unsafe Box.letGo(domain)
  }

  // MARK: - Undoing

  /// The pin table of a mapping.
  public func withPins<Result>(
    of domain: UnsafeMutablePointer<Domain>?, _ body: (borrowing PinTable) -> Result
  ) -> Result {
    if let domain = unsafe domain { return unsafe body(domain.pointee.pins) }
    return body(pins)
  }

  /// Ends a mapping whose record has been claimed, strictly: when this returns no access through it
  /// is under way, but for those of zero-copy mappings and inside callbacks of memory regions.
  /// Returns whether a zero-copy mapping still holds it. The addresses stay taken.
  public func end(_ node: MappingTable.Link) -> Bool {
    let record = unsafe node.pointee.payload
    var (first, last) = unsafe (node.pointee.first, node.pointee.last)
    if let (translation, pages) = unsafe translated(node) {
      (first, last) = (pages.first.rawValue, pages.last.rawValue)
      unsafe translation.pointee.unmap(pages)
    }
    // A direct mapping is out of the table already, so that a view finds it no more.
    unsafe system.pointee.readers.waitForReaders()
    return unsafe withPins(of: record.domain) { pins in
      pins.holds(first: first, last: last, since: record.stamp)
    }
  }

  /// Lets others have the addresses of a mapping that `end` was called for, and gives its record
  /// back.
  public func release(_ node: MappingTable.Link) {
    if let (translation, pages) = unsafe translated(node) { unsafe translation.pointee.free(pages) }
    unsafe mappings.giveBack(node)
  }

  private func translated(
    _ node: MappingTable.Link
  ) -> (UnsafeMutablePointer<Domain.Translation>, IOVARange)? {
    guard let translation = unsafe node.pointee.payload.domain?.pointee.translation,
      let range = try? unsafe IOVARange(
        first: IOVA(node.pointee.first), last: IOVA(node.pointee.last))
    else { return nil }
    return unsafe (translation, range.rounded(to: Self.granule))
  }

  /// Ends the device for its driver: undoes what is left mapped and ends the attachment. Views of
  /// the device may live on, and reach nothing.
  ///
  /// No mapping call is under way. The caller holds the device, so that what is called back may use
  /// it.
  public func close() {
    var count: UInt64 = 0
    var bytes: UInt64 = 0
    var keptBytes: UInt64 = 0
    while let node = unsafe mappings.claimAny() {
      let record = unsafe node.pointee.payload
      let size = unsafe node.pointee.last &- node.pointee.first &+ 1
      let isHeld = unsafe end(node)
      unsafe release(node)
      count += 1
      bytes &+= size
      guard let memory = record.memory else { continue }
      if isHeld { keptBytes &+= size } else { unsafe system.pointee.freeMemory(memory) }
    }
    if let domain = unsafe mappings.domain {
      // No mapping and no call is left that detaching could be refused for.
      try? unsafe detach(domain)
    }
    if count > 0 { reportLeft(count, bytes: bytes, keptBytes: keptBytes) }
  }

  private func reportLeft(_ count: UInt64, bytes: UInt64, keptBytes: UInt64) {
    unsafe system.pointee.reporter.report(.warning, .busy, object: name) { text in
      text.append("destroyed with ")
      text.append(decimal: count)
      text.append(count == 1 ? " live mapping of " : " live mappings of ")
      text.append(decimal: bytes)
      text.append(" bytes, which are unmapped now")
      if keptBytes > 0 {
        text.append("; a zero-copy mapping holds coherent memory among them, and ")
        text.append(decimal: keptBytes)
        text.append(" bytes are never freed")
      }
    }
  }

  /// Reports that the device was destroyed while others hold it.
  public func reportEarlyDestroy() {
    unsafe system.pointee.reporter.reportEarlyDestroy(object: name)
  }

  // MARK: - Faults

  /// Records a fault and hands it to the device's callback. Called under no lock and in no read
  /// section.
  public func report(_ fault: dmacore_fault, from device: OpaquePointer) {
    var fault = fault
    faults.record(&fault)
    ThreadRules.willCallBack()
    if let callback = unsafe self.fault { unsafe callback(device, &fault, faultOpaque) }
  }

  /// The numbers that `device.h` explains.
  public var statistics:
    (
      mappingCount: UInt64, mappingBytes: UInt64, mapTotal: UInt64, faultTotal: UInt64,
      faultLost: UInt64
    )
  {
    let mapped = mappings.totals
    let faulted = faults.totals
    return (mapped.count, mapped.bytes, mapped.total, faulted.total, faulted.lost)
  }
}
