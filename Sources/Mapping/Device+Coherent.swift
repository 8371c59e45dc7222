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
    let size = try Self.wholePages(size)
    let limit = try limit(for: .coherent)
    let (cell, domain) = unsafe try mappings.take()
    do throws(Failure) {
      var memoryLimit = UInt64.max
      switch unsafe path(with: domain) {
      case .blocked: throw .notPermitted
      case .direct: memoryLimit = limit.highest
      case .translated: break
      }
      let (cpu, memory) = unsafe try system.pointee.allocateMemory(size: size, limit: memoryLimit)
      do throws(Failure) {
        let range = unsafe try place(memory, [.read, .write], in: domain, limit: limit)
        let record = unsafe MappingRecord(
          kind: .coherent, direction: .bidirectional, domain: translating(domain), cpu: cpu)
        unsafe mappings.insert(cell, range, record)
        return unsafe (cpu, range.first)
      } catch {
        unsafe system.pointee.freeMemory(cpu, size: size)
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
    let size = try Self.wholePages(size)
    let range = try DMARange(first: address, size: size)
    // While the range is closed no view can pin it, so that nobody is left with a pointer to memory
    // that is free. The node lives as long as this call.
    try unsafe withUnsafeTemporaryAllocation(of: PinTable.Node.self, capacity: 1) {
      (storage) throws(Failure) in
      let node = storage.baseAddress!
      unsafe node.initialize(
        to: PinTable.Node(first: range.first.rawValue, last: range.last.rawValue, payload: .closed))
      let record = unsafe try claimCoherent(range, cpu, closing: node)
      _ = unsafe undo(record)
      unsafe open(node, record.pointee.payload.domain)
      unsafe mappings.giveBack(record)
    }
    unsafe system.pointee.freeMemory(cpu, size: size)
  }

  /// Takes the record of an allocation out, and closes its range to views.
  private func claimCoherent(
    _ range: DMARange, _ cpu: UnsafeMutableRawPointer,
    closing node: UnsafeMutablePointer<PinTable.Node>
  ) throws(Failure) -> MappingTable.Link {
    var isHeld = false
    let claimed = unsafe mappings.claim(range) { record in
      guard record.kind == .coherent, unsafe record.cpu == cpu else { return false }
      if let domain = unsafe record.domain {
        isHeld = unsafe !domain.pointee.pins.add(node)
      } else {
        isHeld = unsafe !pins.add(node)
      }
      return !isHeld
    }
    guard let record = unsafe claimed else {
      if isHeld { throw .busy }
      reportMisuse("free of coherent memory", of: range, nil)
      throw .invalidArgument
    }
    return unsafe record
  }

  private func open(
    _ node: UnsafeMutablePointer<PinTable.Node>, _ domain: UnsafeMutablePointer<Domain>?
  ) {
    if let domain = unsafe domain {
      unsafe domain.pointee.pins.remove(node)
    } else {
      unsafe pins.remove(node)
    }
  }

  private static func wholePages(_ size: UInt64) throws(Failure) -> UInt64 {
    let (sum, overflow) = size.addingReportingOverflow(granule.mask)
    guard size > 0, !overflow else { throw .invalidArgument }
    return sum & ~granule.mask
  }
}
