// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import Primitives

extension Device {
  /// Allocates zeroed pages that the device and the CPU share.
  ///
  /// - Throws: `invalidArgument` for a size of zero or near 2^64, `noMask`, `notPermitted` when the
  ///   device is blocked, `outOfRange` when it cannot reach the memory, `noSpace`, `noMemory`, and
  ///   what `System.allocateMemory` throws.
  public func allocateCoherent(
    size: UInt64
  ) throws(Failure) -> (cpu: UnsafeMutableRawPointer, address: DMAAddress) {
    guard let size = Self.granule.roundedUp(size) else { throw .invalidArgument }
    let limit = try limit(for: .coherent)
    let (cell, domain) = unsafe try mappings.take()
    do throws(Failure) {
      var memoryLimit = UInt64.max
      unsafe try requireMappingCalls(in: domain)
      if unsafe path(with: domain).isDirect {
        guard let last = ranges.lastPhysical(under: limit.highest) else { throw .outOfRange }
        memoryLimit = last
      }
      let memory = unsafe try system.pointee.allocateMemory(
        size: size, limit: memoryLimit, isCoherent: isCoherent)
      do throws(Failure) {
        let translating = unsafe translating(domain)
        let stamp = unsafe withPins(of: translating) { $0.stamp }
        let (range, path) = unsafe try place(
          memory.range, [.read, .write], in: domain, limit: limit)
        let record = unsafe MappingRecord(
          kind: .coherent, path: path, direction: .bidirectional, domain: translating,
          memory: memory, stamp: stamp)
        unsafe mappings.insert(cell, range, record)
        return unsafe (memory.host, range.first)
      } catch {
        unsafe system.pointee.freeMemory(memory)
        throw error
      }
    } catch {
      unsafe mappings.giveBack(cell)
      throw error
    }
  }

  /// Frees what `allocateCoherent` returned, strictly.
  ///
  /// - Throws: `invalidArgument` when the device has no such allocation, which is reported too;
  ///   `busy` when a zero-copy mapping holds it.
  public func freeCoherent(
    _ cpu: UnsafeMutableRawPointer, _ address: DMAAddress, size: UInt64
  ) throws(Failure) {
    guard let size = Self.granule.roundedUp(size) else { throw .invalidArgument }
    let range = try DMARange(first: address, size: size)
    // While the range is closed no view can pin it, so that nobody is left with a pointer to memory
    // that is free. The node lives as long as this call. The range is opened before the addresses
    // are anybody else's.
    let memory = try unsafe withUnsafeTemporaryAllocation(of: PinTable.Node.self, capacity: 1) {
      (storage) throws(Failure) -> CoherentMemory? in
      let node = storage.baseAddress!
      let record = unsafe try claimCoherent(range, cpu, closing: node)
      let memory = unsafe record.pointee.payload.memory
      _ = unsafe end(record)
      unsafe withPins(of: record.pointee.payload.domain) { unsafe $0.remove(node) }
      unsafe release(record)
      return memory
    }
    if let memory { unsafe system.pointee.freeMemory(memory) }
  }

  /// Takes the record of an allocation out, and closes its range to views.
  private func claimCoherent(
    _ range: DMARange, _ cpu: UnsafeMutableRawPointer,
    closing node: UnsafeMutablePointer<PinTable.Node>
  ) throws(Failure) -> MappingTable.Link {
    var isHeld = false
    let claimed = unsafe mappings.claim(range) { record in
      guard let memory = record.memory, unsafe memory.host == cpu else { return false }
      unsafe node.initialize(
        to: PinTable.Node(
          first: range.first.rawValue, last: range.last.rawValue,
          payload: .closed(of: record.stamp)))
      isHeld = unsafe withPins(of: record.domain) { unsafe !$0.add(node) }
      return !isHeld
    }
    guard let record = unsafe claimed else {
      if isHeld { throw .busy }
      reportMisuse("free of coherent memory", of: range, nil)
      throw .invalidArgument
    }
    return unsafe record
  }
}
