// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import CPlatform
import Domains
import Primitives
import Synchronization

// Theory of operation: transfers.
//
// 1. Concepts
// A transfer is memory of any kind that is mapped, on whatever path. `transfer.h` has the rules. What most of
// them are is said in two words:
//
//   direct         nothing is kept; the segments are read from the request again
//   range          one range of the domain's addresses, from a first one on
//   list           what a list of it became (Device+List.swift), in memory that is allocated
//   registration   memory that may be replaced (Registration.swift), likewise
//
// 2. Implementation
// 2.1 Paths are tried from the simplest on. Memory that all is in reach is direct. Small memory whose ranges
// meet at pages is mapped in one call section and kept as a tag. What is neither becomes a list, whose
// segments nobody limits; if that is one segment which is translated and not copied, the list is forgotten,
// and made again when it is needed to sync or end the mapping.
// 2.2 Records and tags of transfers have a mark, so that no other call takes one for its own.
// 2.3 A request is read more than once. Each reading is checked by itself, and against the size.
//
// 3. Locking
// None of its own. Callbacks of requests are called in no section and under no lock.
//
// 4. What this does not do
// It does not look for gaps that ranges could fill, nor put copies side by side.

/// Memory that is mapped, in memory of the caller's (`struct dmacore_transfer`).
public struct Transfer {
  enum Form: UInt64 {
    case none = 0
    case direct = 1
    case range = 2
    case list = 3
    case registration = 4
  }

  /// Of a range the device's address of its first byte, of what was allocated where that is.
  let place: UInt64
  //   63..61  60..59     58..47      46..0
  //   form    direction  attributes  size
  private let info: UInt64

  static var sizeMax: UInt64 { 1 &<< 47 &- 1 }
  private static var attributesShift: UInt64 { 47 }
  // Of attributes, whose lowest bit is the second and whose highest the thirteenth.
  private static var attributesMask: UInt64 { 0xfff }
  private static var directionShift: UInt64 { 59 }
  private static var formShift: UInt64 { 61 }

  static var empty: Transfer { Transfer(place: 0, info: 0) }

  private init(place: UInt64, info: UInt64) {
    self.place = place
    self.info = info
  }

  init(_ form: Form, _ place: UInt64, size: UInt64, _ request: TransferRequest) {
    self.place = place
    info =
      form.rawValue &<< Self.formShift
      | UInt64(request.direction.rawValue) &<< Self.directionShift
      | UInt64(request.attributes.rawValue &>> 1) &<< Self.attributesShift | size
  }

  var form: Form { Form(rawValue: info &>> Self.formShift) ?? .none }
  public var size: UInt64 { info & Self.sizeMax }
  // What was put in is one.
  var direction: Direction {
    Direction(rawValue: UInt32(truncatingIfNeeded: info &>> Self.directionShift & 3))
      ?? .bidirectional
  }
  /// With the marks of its records.
  var attributes: MappingAttributes {
    let bits = info &>> Self.attributesShift & Self.attributesMask
    return MappingAttributes(rawValue: UInt32(truncatingIfNeeded: bits &<< 1)).union(.transfer)
  }

  /// The size of some memory, and more.
  ///
  /// - Throws: `tooBig` for more than a transfer can have.
  @inline(__always)
  static func sum(_ size: UInt64, _ memory: PhysicalRange) throws(Failure) -> UInt64 {
    guard memory.extent < sizeMax &- size else { throw .tooBig }
    return size &+ memory.extent &+ 1
  }

  /// Which bytes are meant by an offset and a size, 0 for all that follow.
  ///
  /// - Throws: `tooBig` when they are not within the transfer.
  func part(_ offset: UInt64, _ size: UInt64) throws(Failure) -> (first: UInt64, last: UInt64) {
    guard offset < self.size, size <= self.size &- offset else { throw .tooBig }
    return (offset, size == 0 ? self.size &- 1 : offset &+ (size &- 1))
  }
}

/// What is allocated for a transfer: what all have in common, and its entries.
@safe
struct TransferEntries<Entry> {
  @safe
  struct Header {
    let device: UnsafeMutablePointer<Device>
    // The device's, when the memory was mapped.
    let generation: UInt64
    let count: Int
    /// The range of a registration.
    var state: IOVAState
  }

  let header: UnsafeMutablePointer<Header>

  /// - Throws: `noMemory`.
  init(_ device: UnsafeMutablePointer<Device>, count: Int) throws(Failure) {
    let raw = unsafe try RawMemory.allocate(
      MemoryLayout<Header>.stride &+ count &* MemoryLayout<Entry>.stride, alignment: 16)
    // SAFETY: the allocation has room for a header, and that many entries behind it.
    unsafe header = raw.bindMemory(to: Header.self, capacity: 1)
    unsafe header.initialize(
      to: Header(
        device: device, generation: device.pointee.generation.load(ordering: .relaxed),
        count: count, state: IOVAState()))
  }

  /// Those of a transfer that has some.
  init?(of transfer: Transfer) {
    // SAFETY: the place of such a transfer is what `place` was for one of its form.
    guard let header = unsafe UnsafeMutablePointer<Header>(bitPattern: UInt(transfer.place)) else {
      return nil
    }
    unsafe self.header = header
  }

  func free() { unsafe RawMemory.free(header) }

  /// For the transfer.
  var place: UInt64 { unsafe UInt64(UInt(bitPattern: header)) }
  var count: Int { unsafe header.pointee.count }
  var state: Device.State {
    // SAFETY: a header is memory, and stays where it is.
    unsafe withUnsafeMutablePointer(to: &header.pointee.state) { unsafe $0 }
  }

  var entries: UnsafeMutablePointer<Entry> {
    // SAFETY: they lie behind the header, which is a multiple of their alignment.
    unsafe UnsafeMutableRawPointer(header + 1).assumingMemoryBound(to: Entry.self)
  }

  /// - Throws: `invalidArgument` for another device than the one that it was mapped for, which is reported.
  func require(_ device: UnsafeMutablePointer<Device>) throws(Failure) {
    guard unsafe header.pointee.device != device else { return }
    unsafe device.pointee.reportMisuse("the transfer is another device's")
    throw .invalidArgument
  }

  /// - Throws: `invalidArgument` when the driver that mapped it has gone, and the mapping with it, which is
  ///   reported.
  func requireDriver(of device: borrowing Device) throws(Failure) {
    guard unsafe header.pointee.generation != device.generation.load(ordering: .relaxed) else {
      return
    }
    device.reportMisuse("the transfer ended with its driver")
    throw .invalidArgument
  }
}

typealias TransferList = TransferEntries<dmacore_sg>

extension Device {
  // MARK: - Mapping

  /// Maps the memory of a request.
  ///
  /// - Throws: as `map`; `invalidArgument` for a transfer that is in use or no memory, `tooBig` for too
  ///   much of it or too many segments.
  public static func map(
    _ device: UnsafeMutablePointer<Device>, _ request: TransferRequest,
    _ transfer: UnsafeMutablePointer<Transfer>
  ) throws(Failure) {
    guard unsafe transfer.pointee.form == .none else { throw .invalidArgument }
    var made = unsafe try map(device, request)
    if request.most > 0 {
      do throws(Failure) {
        guard
          unsafe try TransferIterator(device, request, made, from: 0).count(upTo: request.most)
        else { throw .tooBig }
      } catch {
        unsafe try? unmap(device, &made)
        throw error
      }
    }
    unsafe transfer.pointee = made
  }

  @_optimize(speed)
  private static func map(
    _ device: UnsafeMutablePointer<Device>, _ request: TransferRequest
  ) throws(Failure) -> Transfer {
    let limit = unsafe try device.pointee.limit(for: .streaming)
    if request.isReplaceable { return unsafe try register(device, request) }
    if unsafe device.pointee.isUntracked && device.pointee.system.pointee.peers.isEmpty,
      let size = unsafe try device.pointee.sizeIfDirect(request, limit)
    {
      return Transfer(.direct, 0, size: size, request)
    }
    if unsafe device.pointee.mappings.mayTag && !device.pointee.hasDetours,
      let (address, size) = unsafe try device.pointee.mapTagged(
        request.reader, request.direction, request.attributes.union([.list, .transfer]), limit,
        extentMax: UInt64.max, boundary: UInt64.max)
    {
      return Transfer(.range, address.rawValue, size: size, request)
    }
    return unsafe try mapList(device, request)
  }

  /// How many bytes a request has, if the device reaches all of them directly.
  @inline(never)
  @_optimize(speed)
  private func sizeIfDirect(
    _ request: TransferRequest, _ limit: AddressLimit
  ) throws(Failure) -> UInt64? {
    var (reader, size) = (request.reader, UInt64(0))
    // Most are arrays of what is where it is on the bus. All bits of all numbers say that none is too large,
    // or that each is to be looked at.
    if ranges.isEmpty, let array = unsafe reader.array, unsafe array.count >> 16 == 0 {
      var (firsts, sizes, ends) = (UInt64(0), UInt64(0), UInt64(0))
      var (flags, reserved) = (UInt32(0), UInt32(0))
      var place = unsafe array.ranges
      let behind = unsafe array.ranges + array.count
      while unsafe place < behind {
        let (first, extent) = unsafe (place.pointee.phys, place.pointee.size)
        firsts |= first
        sizes |= extent
        ends |= first &+ extent &- 1
        flags |= unsafe place.pointee.flags
        reserved |= unsafe place.pointee.reserved
        size &+= extent
        unsafe place += 1
      }
      if firsts &>> 62 == 0 && sizes &>> 46 == 0 && ends <= limit.highest
        && flags == 0 && reserved == 0 && !request.attributes.contains(.mmio)
        && size &- 1 < Transfer.sizeMax
      {
        return size
      }
      size = 0
    }
    while let (memory, isMarked) = try reader.stepApart() {
      guard let bus = reached(memory, under: limit.highest) else { return nil }
      if isMarked || request.attributes.contains(.mmio) { mappings.note(registers: bus) }
      size = try Transfer.sum(size, memory)
    }
    guard size > 0 else { throw .invalidArgument }
    return size
  }

  /// Maps memory as a list.
  @inline(never)
  private static func mapList(
    _ device: UnsafeMutablePointer<Device>, _ request: TransferRequest
  ) throws(Failure) -> Transfer {
    let (count, size) = try request.reader.measure()
    var capacity = count
    while true {
      let list = unsafe try TransferList(device, count: capacity)
      do throws(Failure) {
        unsafe try list.fill(request.reader, size: size)
        let attributes = request.attributes.union([.list, .transfer])
        let (_, boundary) = unsafe request.limits(of: device.pointee)
        let made = unsafe try device.pointee.map(
          list.entries, count: capacity, request.direction, attributes, most: 0,
          SegmentLimits(size: UInt64.max, boundary: boundary, areCutLater: true))
        let entry = unsafe list.entries.pointee
        guard made == 1, unsafe entry.path == UInt16(MappingPath.iommu.rawValue),
          unsafe entry.dma_flags == 0
        else { return unsafe Transfer(.list, list.place, size: size, request) }
        unsafe list.free()
        return unsafe Transfer(.range, entry.dma, size: size, request)
      } catch {
        unsafe list.free()
        // What is copied may be cut, down to pages, for want of slots in a row.
        guard error == .tooBig || error == .noSpace, capacity == count else { throw error }
        capacity = count &* 2 &+ Int(truncatingIfNeeded: size &>> 12)
      }
    }
  }

  // MARK: - Ending

  /// Ends a transfer, as strictly as its domain wants it, and empties it.
  ///
  /// - Throws: `invalidArgument` when it is no mapping of the device, which is reported.
  public static func unmap(
    _ device: UnsafeMutablePointer<Device>, _ transfer: UnsafeMutablePointer<Transfer>
  ) throws(Failure) {
    let old = unsafe transfer.pointee
    switch old.form {
    case .none: throw .invalidArgument
    case .direct: break
    case .range:
      var entry = unsafe old.entry
      unsafe try device.pointee.unmap(&entry, count: 1, old.direction, old.attributes.union(.list))
    case .list:
      guard let list = unsafe TransferList(of: old) else { break }
      unsafe try list.require(device)
      unsafe transfer.pointee = .empty
      defer { unsafe list.free() }
      try unsafe list.requireDriver(of: device.pointee)
      return try unsafe device.pointee.unmap(
        list.entries, count: list.count, old.direction, old.attributes.union(.list))
    case .registration:
      guard let registration = Registration(of: old) else { break }
      unsafe try registration.require(device)
      unsafe transfer.pointee = .empty
      defer { registration.free() }
      try unsafe registration.requireDriver(of: device.pointee)
      return try unsafe device.pointee.end(registration, old)
    }
    unsafe transfer.pointee = .empty
  }

  // MARK: - Syncing

  /// Hands bytes of a transfer from the device to the CPU or back.
  ///
  /// - Parameter size: 0 for all from the offset on.
  /// - Throws: `invalidArgument` when it is not mapped, which is reported too, `tooBig`, and what the callback
  ///   of a memory region that is copied fails with.
  public static func sync(
    _ device: UnsafeMutablePointer<Device>, _ transfer: Transfer, _ offset: UInt64, _ size: UInt64,
    forCPU: Bool
  ) throws(Failure) {
    guard transfer.form != .none else { throw .invalidArgument }
    let part = try transfer.part(offset, size)
    let mark: MappingAttributes = [.list, .transfer]
    switch transfer.form {
    case .none, .direct: cplatform_hand_over()
    case .range:
      if unsafe device.pointee.isCoherent {
        return try unsafe device.pointee.syncPart(
          transfer.place &+ part.first, part.last &- part.first, transfer.direction,
          forCPU: forCPU)
      }
      var entry = unsafe transfer.entry
      unsafe try device.pointee.sync(
        &entry, count: 1, offset, size, transfer.direction, forCPU: forCPU, mark: mark)
    case .list:
      guard let list = unsafe TransferList(of: transfer) else { return }
      unsafe try list.require(device)
      unsafe try device.pointee.sync(
        list.entries, count: list.count, offset, size, transfer.direction, forCPU: forCPU,
        mark: mark)
    case .registration:
      guard let registration = Registration(of: transfer) else { return }
      unsafe try registration.require(device)
      try unsafe registration.requireDriver(of: device.pointee)
      try unsafe device.pointee.sync(registration, transfer, part.first, part.last, forCPU: forCPU)
    }
  }
}

extension Transfer {
  /// The list of one segment that a range is, with its record.
  fileprivate var entry: dmacore_sg {
    var entry = unsafe dmacore_sg()
    unsafe entry.flags = DMACORE_SG_LAST.rawValue
    unsafe entry.path = UInt16(MappingPath.iommu.rawValue)
    unsafe entry.dma = place
    unsafe entry.dma_size = size
    return unsafe entry
  }
}

extension TransferList {
  /// Makes the entries a list of some ranges, with room for more segments behind.
  ///
  /// - Throws: `invalidArgument` when there are others than there were before.
  @inline(never)
  fileprivate func fill(_ reader: RangeReader, size: UInt64) throws(Failure) {
    var (reader, left, index) = (reader, size, 0)
    while let (memory, isMMIO) = try reader.stepApart() {
      guard unsafe index < count, memory.extent < left else { throw .invalidArgument }
      var entry = unsafe dmacore_sg()
      unsafe entry.phys = memory.first.rawValue
      unsafe entry.size = memory.extent &+ 1
      unsafe entry.flags = isMMIO ? DMACORE_SG_MMIO.rawValue : 0
      unsafe left &-= entry.size
      unsafe (entries + index).initialize(to: entry)
      index &+= 1
    }
    guard left == 0 else { throw .invalidArgument }
    while unsafe index < count {
      unsafe (entries + index).initialize(to: dmacore_sg())
      index &+= 1
    }
    unsafe entries[count &- 1].flags |= DMACORE_SG_LAST.rawValue
  }
}
