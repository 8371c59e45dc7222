// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation
import ReferenceModels
import TestSupport

/// What the driver, the CPU and the device do. Numbers of mappings and of zero-copy mappings count
/// around those that live; offsets are from the start of a mapping, and may lead out of it.
enum MappingStep {
  case map(page: Int, offset: Int, size: Int, direction: UInt32, byPointer: Bool)
  case unmap(Int)
  case unmapWrongly(Int, firstOff: UInt64, sizeOff: UInt64, direction: UInt32)
  case sync(Int, offset: UInt64, size: UInt64, direction: UInt32, forCPU: Bool)
  case writeByCPU(page: Int, offset: Int, count: Int, value: UInt8)
  case read(Int, offset: UInt64, count: Int)
  case write(Int, offset: UInt64, count: Int, value: UInt8)
  case translate(Int, offset: UInt64, access: UInt32)
  case pin(Int, offset: UInt64, size: Int, access: UInt32)
  case unpin(Int)
  case allocateCoherent(size: Int)
  case freeCoherent(Int, sizeOff: UInt64)
  case takeFaults(Int)
  case flush
  case tick(after: UInt64)
}

/// A machine's device beside a model that answers byte by byte, whatever path the device has.
///
/// No page is mapped twice at a time. Through an IOMMU a device reaches the whole pages that a
/// mapping touches, and on the direct path two mappings of one page would share their addresses.
final class MappingWorld: World {
  private typealias Machine = MappingMachine

  /// A zero-copy mapping, the mappings that it goes through, and what it must point to.
  private struct Pin {
    let handle: OpaquePointer?
    let mappings: Set<Int>
  }

  private let machine: MappingMachine
  private var model: DeviceModel
  private var pins: [Pin] = []
  private var coherentHosts: [Int: UnsafeMutableRawPointer] = [:]
  // The mapping that owns each byte of the window, 0 for the CPU.
  private var owners = Array(repeating: 0, count: MappingMachine.windowPages * 4096)
  private var errorCount = 0
  private var warningCount = 0
  private var queue = FlushQueueModel(
    entries: MappingMachine.flushEntries, age: MappingMachine.flushAge)
  private var now: UInt64 = 0

  init(_ path: MachinePath) throws {
    machine = try MappingMachine(path)
    model = DeviceModel(
      granule: path.isTranslated ? 4096 : 1, faultCapacity: MappingMachine.faultCapacity,
      regions: MappingMachine.regions)
  }

  deinit {
    for pin in pins { dmacore_view_unmap(pin.handle) }
  }

  func take(_ step: MappingStep, _ log: inout StepLog) throws {
    switch step {
    case .map(let page, let offset, let size, let direction, let byPointer):
      try map(page, offset, size, direction, byPointer, &log)
    case .unmap(let number):
      guard let mapping = mapping(number), let direction = mapping.direction else { return }
      try unmap(mapping.address, mapping.size, direction, &log)
    case .unmapWrongly(let number, let firstOff, let sizeOff, let direction):
      guard let mapping = mapping(number) else { return }
      try unmap(mapping.address &+ firstOff, mapping.size &+ sizeOff, direction, &log)
    case .sync(let number, let offset, let size, let direction, let forCPU):
      guard let mapping = mapping(number) else { return }
      try sync(mapping.address &+ offset, size, direction, forCPU, &log)
    case .writeByCPU(let page, let offset, let count, let value):
      writeByCPU(page, offset, count, value, &log)
    case .read(let number, let offset, let count):
      try read(address(number, offset), count, &log)
    case .write(let number, let offset, let count, let value):
      try write(address(number, offset), count, value, &log)
    case .translate(let number, let offset, let access):
      try translate(address(number, offset), access, &log)
    case .pin(let number, let offset, let size, let access):
      try pin(address(number, offset), size, access, &log)
    case .unpin(let number):
      guard !pins.isEmpty else { return }
      log.note("dmacore_view_unmap(held[\(number % pins.count)]);")
      dmacore_view_unmap(pins.remove(at: number % pins.count).handle)
    case .allocateCoherent(let size):
      try allocateCoherent(size, &log)
    case .freeCoherent(let number, let sizeOff):
      try freeCoherent(number, sizeOff, &log)
    case .takeFaults(let count):
      try takeFaults(count)
    case .flush:
      try flush(&log)
    case .tick(let time):
      now &+= time
      log.note("dmacore_system_tick(system, \(now))", gives: 0)
      try demandSame(dmacore_system_tick(machine.system, now), 0, "result of tick")
      queue.tick(now)
    }
  }

  private func mapping(_ number: Int) -> DeviceModel.Mapping? {
    model.mappings.isEmpty ? nil : model.mappings[number % model.mappings.count]
  }

  /// Near a mapping, or near where none is.
  private func address(_ number: Int, _ offset: UInt64) -> UInt64 {
    (mapping(number)?.address ?? 0x7000_0000) &+ offset
  }

  // MARK: - The driver

  private func map(
    _ page: Int, _ offset: Int, _ size: Int, _ direction: UInt32, _ byPointer: Bool,
    _ log: inout StepLog
  ) throws {
    let start = page * 4096 + offset
    let pages = (start / 4096)...((start + size - 1) / 4096)
    guard pages.upperBound < Machine.windowPages, isFree(pages) else { return }
    let physical = Machine.windowBase + UInt64(start)
    var address: UInt64 = 0
    let bus = machine.path.isTranslated ? 0 : machine.directAddress(of: physical, count: size)
    let code = bus == nil ? -ERANGE : 0
    if byPointer, let host = machine.host(of: physical, count: size),
      // Memory behind callbacks has no pointer.
      pages.upperBound < 14
    {
      let found = dmacore_map_single(machine.device, host, UInt64(size), direction, 0, &address)
      try demandSame(found, code, "result of map_single")
    } else {
      let found = dmacore_map_phys(machine.device, physical, UInt64(size), direction, 0, &address)
      try demandSame(found, code, "result of map_phys")
    }
    log.note(
      "dmacore_map_phys(device, \(hex(physical)), \(size), \(direction), 0, &dma)", gives: code)
    guard code == 0 else { return }
    log.note("assert_int_equal(dma, \(hex(address)));")
    if machine.path.isTranslated {
      try demandSame(address % 4096, UInt64(offset), "offset within the page")
      try demandPassed(address, size)
    } else {
      try demandSame(address, bus, "address of a direct mapping")
    }
    let access: UInt32 = [3, 1, 2][Int(direction)]
    model.map(physical, size: UInt64(size), access: access, direction: direction, at: address)
    try demandNotQueued(model.mappings.last!)
    setOwner(of: physical, size, model.mappings.last!.number)
  }

  private func demandPassed(_ address: UInt64, _ size: Int) throws {
    for offset in 0..<UInt64(size) {
      try demand(machine.passes(address + offset), "\(hex(address)) is not passed by the bus")
    }
  }

  /// What waits for a flush is not given out.
  private func demandNotQueued(_ mapping: DeviceModel.Mapping) throws {
    let reach = model.reach(of: mapping)
    try demand(
      !queue.ranges.contains { $0.overlaps(reach) }, "\(hex(mapping.address)) waits for a flush")
  }

  private func flush(_ log: inout StepLog) throws {
    let code: Int32 =
      switch machine.path {
      case .trackedDirect, .rangedDirect, .functions: -EINVAL
      case .trackedIdentity, .rangedIdentity: -EOPNOTSUPP
      case .translated, .rangedTranslated, .lazy: 0
      }
    log.note("dmacore_domain_flush(domain)", gives: code)
    try demandSame(dmacore_domain_flush(machine.domain), code, "result of flush")
    queue.flush()
  }

  private func isFree(_ pages: ClosedRange<Int>) -> Bool {
    model.mappings.allSatisfy { mapping in
      guard mapping.direction != nil else { return true }
      let first = Int(mapping.physical - Machine.windowBase)
      return !pages.overlaps(first / 4096...(first + Int(mapping.size) - 1) / 4096)
    }
  }

  private func setOwner(of physical: UInt64, _ size: Int, _ owner: Int) {
    let start = Int(physical - Machine.windowBase)
    for index in start..<start + size { owners[index] = owner }
  }

  private func unmap(
    _ address: UInt64, _ size: UInt64, _ direction: UInt32, _ log: inout StepLog
  ) throws {
    let found = dmacore_unmap(machine.device, address, size, direction, 0)
    let mapping = model.unmap(address: address, size: size, direction: direction)
    let code = mapping == nil ? -EINVAL : 0
    log.note("dmacore_unmap(device, \(hex(address)), \(size), \(direction), 0)", gives: code)
    try demandSame(found, code, "result of unmap")
    if let mapping {
      setOwner(of: mapping.physical, Int(mapping.size), 0)
      if machine.path == .lazy { queue.queue(model.reach(of: mapping)) }
      if pins.contains(where: { $0.mappings.contains(mapping.number) }) { warningCount += 1 }
    } else if isRange(address, size) {
      errorCount += 1
    }
  }

  /// What is no range at all is refused without a word.
  private func isRange(_ address: UInt64, _ size: UInt64) -> Bool {
    size > 0 && !address.addingReportingOverflow(size - 1).overflow
  }

  private func sync(
    _ address: UInt64, _ size: UInt64, _ direction: UInt32, _ forCPU: Bool, _ log: inout StepLog
  ) throws {
    let found =
      forCPU
      ? dmacore_sync_for_cpu(machine.device, address, size, direction)
      : dmacore_sync_for_device(machine.device, address, size, direction)
    let mapping =
      isRange(address, size)
      ? model.mapping(around: address, size: size, direction: direction) : nil
    let code = mapping == nil ? -EINVAL : 0
    log.note(
      "dmacore_sync_for_\(forCPU ? "cpu" : "device")(device, \(hex(address)), \(size), \(direction))",
      gives: code)
    try demandSame(found, code, "result of sync")
    if let mapping {
      let physical = mapping.physical + (address - mapping.address)
      setOwner(of: physical, Int(size), forCPU ? 0 : mapping.number)
    } else if isRange(address, size) {
      errorCount += 1
    }
  }

  private func allocateCoherent(_ size: Int, _ log: inout StepLog) throws {
    let pages = (size + 4095) / 4096
    let code = pages <= machine.longestPoolRun ? 0 : -ENOMEM
    var cpu: UnsafeMutableRawPointer?
    var address: UInt64 = 0
    let found = dmacore_alloc_coherent(machine.device, UInt64(size), &cpu, &address)
    log.note("dmacore_alloc_coherent(device, \(size), &cpu, &dma)", gives: code)
    try demandSame(found, code, "result of alloc_coherent")
    guard code == 0, let cpu else { return }
    let physical = machine.poolPhysical(of: cpu)
    if machine.path.isTranslated {
      try demandPassed(address, pages * 4096)
    } else {
      let bus = machine.directAddress(of: physical, count: pages * 4096)
      try demandSame(address, bus, "address of coherent memory")
    }
    model.map(
      physical, size: UInt64(pages * 4096), access: 3, direction: nil, at: address)
    try demandNotQueued(model.mappings.last!)
    model.fill(physical, count: pages * 4096, 0)
    coherentHosts[model.mappings.last!.number] = cpu
  }

  private func freeCoherent(_ number: Int, _ sizeOff: UInt64, _ log: inout StepLog) throws {
    let allocations = model.mappings.filter { $0.direction == nil }
    guard !allocations.isEmpty else { return }
    let allocation = allocations[number % allocations.count]
    let isHeld = pins.contains { $0.mappings.contains(allocation.number) }
    let code = sizeOff != 0 ? -EINVAL : isHeld ? -EBUSY : 0
    let found = dmacore_free_coherent(
      machine.device, allocation.size + sizeOff, coherentHosts[allocation.number],
      allocation.address)
    log.note(
      "dmacore_free_coherent(device, \(allocation.size + sizeOff), cpu, \(hex(allocation.address)))",
      gives: code)
    try demandSame(found, code, "result of free_coherent")
    if sizeOff != 0 { errorCount += 1 }
    if code == 0 {
      _ = model.unmap(address: allocation.address, size: allocation.size, direction: nil)
      coherentHosts[allocation.number] = nil
    }
  }

  // MARK: - The CPU

  /// Writes what is the CPU's, and leaves what is a device's alone.
  private func writeByCPU(
    _ page: Int, _ offset: Int, _ count: Int, _ value: UInt8, _ log: inout StepLog
  ) {
    let start = page * 4096 + offset
    let physical = Machine.windowBase + UInt64(start)
    guard start + count <= owners.count, owners[start..<start + count].allSatisfy({ $0 == 0 }),
      let host = machine.host(of: physical, count: count)
    else { return }
    log.note("memset(\(hex(physical)) in the process, \(value), \(count));")
    memset(host, Int32(value), count)
    model.fill(physical, count: count, value)
  }

  // MARK: - The device

  /// The places of an access, and the result that C gets for it.
  private func places(
    _ address: UInt64, _ count: Int, _ access: UInt32
  ) -> (code: Int32, places: [DeviceModel.Place]) {
    do throws(DeviceModel.Reason) {
      return (0, try model.places(of: address, count: count, access))
    } catch {
      return (-error.code, [])
    }
  }

  private func read(_ address: UInt64, _ count: Int, _ log: inout StepLog) throws {
    var buffer = [UInt8](repeating: 0xEE, count: count)
    let found = dmacore_view_read(machine.view, address, &buffer, count)
    let expected = places(address, count, 1)
    log.note("dmacore_view_read(view, \(hex(address)), buffer, \(count))", gives: expected.code)
    try demandSame(found, expected.code, "result of view_read")
    let bytes = found == 0 ? expected.places.map { model[$0] } : buffer.map { _ in 0xEE }
    try demandSame(buffer, bytes, "bytes read at \(hex(address))")
  }

  private func write(
    _ address: UInt64, _ count: Int, _ value: UInt8, _ log: inout StepLog
  ) throws {
    let buffer = (0..<count).map { value &+ UInt8(truncatingIfNeeded: $0) }
    let found = dmacore_view_write(machine.view, address, buffer, count)
    let expected = places(address, count, 2)
    log.note("dmacore_view_write(view, \(hex(address)), buffer, \(count))", gives: expected.code)
    try demandSame(found, expected.code, "result of view_write")
    for (place, byte) in zip(expected.places, buffer) { model[place] = byte }
  }

  private func translate(_ address: UInt64, _ access: UInt32, _ log: inout StepLog) throws {
    var translation = dmacore_translation()
    let found = dmacore_view_translate(machine.view, address, access, &translation)
    let expected = model.translate(address)
    let code = expected == nil ? -ENOENT : access & ~expected!.mapping.access != 0 ? -EACCES : 0
    log.note(
      "dmacore_view_translate(view, \(hex(address)), \(access), &translation)", gives: code)
    try demandSame(found, code, "result of view_translate")
    guard code == 0, let (mapping, physical) = expected else { return }
    try demandSame(
      translation.target + (address - translation.first), physical, "where \(hex(address)) leads")
    try demandSame(translation.access, mapping.access, "access")
    let reach = model.reach(of: mapping)
    try demand(
      reach.contains(translation.first) && reach.contains(translation.last)
        && translation.first <= address && address <= translation.last,
      "a translation of \(hex(translation.first))...\(hex(translation.last)) for \(hex(address))")
  }

  private func pin(
    _ address: UInt64, _ size: Int, _ access: UInt32, _ log: inout StepLog
  ) throws {
    var handle: OpaquePointer?
    var segments: UnsafePointer<dmacore_view_segment>?
    var count = 0
    let found = dmacore_view_map(
      machine.view, address, UInt64(size), access, &handle, &segments, &count)
    let (code, expected) = pinnedPlaces(address, size, access)
    log.note(
      "dmacore_view_map(view, \(hex(address)), \(size), \(access), &held, &segments, &count)",
      gives: code)
    try demandSame(found, code, "result of view_map")
    try demandSame(handle != nil, code == 0, "a handle")
    guard code == 0, let segments else { return }
    pins.append(Pin(handle: handle, mappings: Set(expected.map(\.mapping))))
    try demandSame(
      (0..<count).map { "\(segments[$0].host!)+\(segments[$0].size)" },
      runs(of: expected).map { "\($0.host)+\($0.size)" }, "segments")
  }

  /// The places that a zero-copy mapping holds, and the result that C gets for it. The first byte
  /// that cannot be handed out decides: it is no fault if it is only not in the process.
  private func pinnedPlaces(
    _ address: UInt64, _ size: Int, _ access: UInt32
  ) -> (code: Int32, places: [DeviceModel.Place]) {
    for index in 0..<UInt64(size) {
      guard let place = try? model.place(of: address + index, access) else { break }
      if !Machine.regions[place.region].isHost { return (-EOPNOTSUPP, []) }
    }
    return places(address, size, access)
  }

  /// The runs of bytes in the process that places make up.
  private func runs(
    of places: [DeviceModel.Place]
  ) -> [(host: UnsafeMutableRawPointer, size: Int)] {
    var runs: [(host: UnsafeMutableRawPointer, size: Int)] = []
    for place in places {
      let host = machine.host(of: place)
      if let last = runs.last, last.host + last.size == host {
        runs[runs.count - 1].size += 1
      } else {
        runs.append((host, 1))
      }
    }
    return runs
  }

  private func takeFaults(_ countMax: Int) throws {
    var faults = Array(repeating: dmacore_fault(), count: countMax)
    var count = 0
    var lost: UInt64 = 0
    try demandSame(
      dmacore_fault_take(machine.device, &faults, countMax, &count, &lost), 0, "result of take")
    let found = faults.prefix(count).map {
      DeviceModel.Fault(
        first: $0.first, last: $0.last, sequence: $0.sequence, access: $0.access,
        reason: $0.reason)
    }
    try demandSame(found, model.takeFaults(countMax), "faults")
    try demandSame(lost, model.faultLost, "faults lost")
  }

  // MARK: - Comparing

  /// The bytes of addresses that a range takes: a power of two, if they are few pages above 4 GiB at a multiple of that.
  private static func taken(_ range: ClosedRange<UInt64>) -> UInt64 {
    let size = range.upperBound - range.lowerBound + 1
    var taken: UInt64 = 1
    while taken < size { taken *= 2 }
    return range.lowerBound >> 32 == 0 || size > 64 * 4096 || range.lowerBound % taken != 0
      ? size : taken
  }

  func compare() throws {
    try machine.checkMemory(model)
    var statistics = dmacore_device_statistics()
    statistics.struct_size = MemoryLayout<dmacore_device_statistics>.size
    try demandSame(dmacore_device_statistics(machine.device, &statistics), 0, "statistics")
    try demandSame(statistics.mapping_count, UInt64(model.mappings.count), "mapping_count")
    try demandSame(
      statistics.mapping_bytes, model.mappings.map(\.size).reduce(0, +), "mapping_bytes")
    try demandSame(statistics.fault_total, model.faultTotal, "fault_total")
    try demandSame(statistics.fault_lost, model.faultLost, "fault_lost")
    try demandSame(machine.faultCount, model.faultTotal, "faults handed over")
    try demandSame(machine.errorCount, errorCount, "errors reported")
    try demandSame(machine.warningCount, warningCount, "warnings reported")
    guard machine.path.isTranslated else { return }
    let reached = model.mappings.map { mapping in
      let reach = model.reach(of: mapping)
      return reach.upperBound - reach.lowerBound + 1
    }
    let domain = try machine.domainStatistics()
    let queuedCount = UInt64(queue.ranges.count)
    try demandSame(domain.queued_count, queuedCount, "domain's queued_count")
    try demandSame(domain.queued_bytes, queue.bytes, "domain's queued_bytes")
    try demandSame(
      domain.flush_count, machine.path == .lazy ? queue.flushCount : 0, "domain's flush_count")
    try demandSame(
      domain.mapping_count, UInt64(model.mappings.count) + queuedCount, "domain's mappings")
    let taken = (model.mappings.map { model.reach(of: $0) } + queue.ranges).map(Self.taken)
    try demandSame(domain.iova_bytes, taken.reduce(0, +), "domain's iova_bytes")
    try demandSame(domain.mapped_bytes, reached.reduce(0, +), "domain's mapped_bytes")
  }

  func end() throws {
    var silent = StepLog(isKept: false)
    while let pin = pins.popLast() { dmacore_view_unmap(pin.handle) }
    while let mapping = model.mappings.last {
      if let direction = mapping.direction {
        try unmap(mapping.address, mapping.size, direction, &silent)
      } else {
        try freeCoherent(model.mappings.count { $0.direction == nil } - 1, 0, &silent)
      }
    }
    try takeFaults(MappingMachine.faultCapacity)
    try compare()
    try machine.end()
  }
}

/// Makes random steps around the borders of pages and regions.
struct MappingStepMaker {
  func step(_ generator: inout SeededGenerator) -> MappingStep {
    let number = generator.below(64)
    switch generator.below(36) {
    case 0..<6:
      return .map(
        page: generator.below(MappingMachine.windowPages),
        offset: generator.onceIn(2) ? 0 : generator.below(4096), size: size(&generator),
        direction: UInt32(generator.below(3)), byPointer: generator.onceIn(2))
    case 6..<9: return .unmap(number)
    case 9:
      return .unmapWrongly(
        number, firstOff: off(&generator), sizeOff: off(&generator),
        direction: UInt32(generator.below(3)))
    case 10..<13:
      return .sync(
        number, offset: UInt64(generator.below(300)),
        size: generator.onceIn(10) ? 0 : UInt64(1 + generator.below(300)),
        direction: UInt32(generator.below(3)), forCPU: generator.onceIn(2))
    case 13..<16:
      return .writeByCPU(
        page: generator.below(MappingMachine.windowPages), offset: generator.below(4096),
        count: 1 + generator.below(200), value: UInt8(truncatingIfNeeded: generator.next()))
    case 16..<20:
      return .read(number, offset: offset(&generator), count: 1 + generator.below(400))
    case 20..<24:
      return .write(
        number, offset: offset(&generator), count: 1 + generator.below(400),
        value: UInt8(truncatingIfNeeded: generator.next()))
    case 24, 25:
      return .translate(
        number, offset: offset(&generator), access: UInt32(generator.below(4)))
    case 26:
      return .pin(
        number, offset: offset(&generator), size: size(&generator) / 4 + 1,
        access: UInt32(1 + generator.below(3)))
    case 27, 28: return .unpin(number)
    case 29: return .allocateCoherent(size: 1 + generator.below(3 * 4096))
    case 30:
      return .freeCoherent(number, sizeOff: generator.onceIn(5) ? 4096 : 0)
    case 31: return .takeFaults(generator.below(8))
    case 32: return .flush
    default:
      return .tick(after: generator.onceIn(8) ? generator.next() : UInt64(generator.below(150)))
    }
  }

  private func size(_ generator: inout SeededGenerator) -> Int {
    generator.onceIn(3) ? 4096 * (1 + generator.below(3)) : 1 + generator.below(6000)
  }

  /// Inside, across the end of a page, or out of the mapping on either side.
  private func offset(_ generator: inout SeededGenerator) -> UInt64 {
    switch generator.below(6) {
    case 0: return 0 &- UInt64(generator.below(5000))
    case 1: return UInt64(generator.below(13_000))
    case 2: return UInt64(4096 * (1 + generator.below(3)) - generator.below(200))
    default: return UInt64(generator.below(2000))
    }
  }

  private func off(_ generator: inout SeededGenerator) -> UInt64 {
    generator.one(of: [0, 0, 1, UInt64.max, 4096, 0 &- 4096])
  }
}
