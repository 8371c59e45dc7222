// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import Foundation
import PageTables
import Primitives
import TestSupport

/// A system, flat unless it is said, and an IOMMU, and what is made from them, which all ends with the test.
package final class Machine: @unchecked Sendable {
  package let reports = Reports()
  package let memory = CoherentPages()
  package let tables = TablePages()
  package let system: UnsafeMutablePointer<System>
  package let iommu: UnsafeMutablePointer<IOMMU>
  private var domains: [UnsafeMutablePointer<Domain>] = []
  private var devices: [UnsafeMutablePointer<Device>] = []

  /// - Parameter onHeap: whether page tables are not of `tables`. Then small mappings are kept as tags.
  package init(notesDirty: Bool = false, onHeap: Bool = false, isFlat: Bool = true) throws {
    let (reports, memory, tables) = (reports, memory, tables)
    let system = try Box<System>.place { () throws(Failure) in
      try System(isFlat: isFlat, reporter: reports.reporter, allocator: memory.allocator)
    }
    self.system = system
    iommu = try Box<IOMMU>.place { () throws(Failure) in
      try IOMMU(
        system: system,
        IOMMUDescription(
          try PageTableConfiguration(
            kind: .vtdSecondStage, options: PageTableOptions(features: notesDirty ? .dirty : []),
            allocator: onHeap ? nil : tables.allocator)))
    }
  }

  package func domain(
    _ kind: Domain.Kind, first: UInt64 = 0, last: UInt64 = 0, isLazy: Bool = false,
    _ limits: FlushQueue.Limits = FlushQueue.Limits()
  ) throws -> UnsafeMutablePointer<Domain> {
    let domain = try Domain.place(
      iommu, DomainDescription(kind, first: first, last: last, isLazy: isLazy, limits))
    domains.append(domain)
    return domain
  }

  /// A device that reaches all addresses, unless `change` says otherwise.
  package func device(
    behindIOMMU: Bool = true, in group: UnsafeMutablePointer<Group>? = nil,
    _ change: (inout dmacore_device_options) -> Void = { _ in }
  ) throws -> UnsafeMutablePointer<Device> {
    var options = dmacore_device_options()
    options.streaming_mask = UInt64.max
    options.coherent_mask = UInt64.max
    change(&options)
    let description = try DeviceDescription(
      options, iommu: behindIOMMU ? iommu : nil, group: group,
      bridge: options.bridge.map { UnsafeMutablePointer($0) }, system: system)
    let device = try Device.place(system: system, description)
    devices.append(device)
    return device
  }

  package func end() {
    for device in devices {
      Device.close(device)
      Box.letGo(device)
    }
    for domain in domains { Box.letGo(domain) }
    Box.letGo(iommu)
    Box.letGo(system)
  }
}

/// Runs a test with a machine of its own, and looks for what is left of it.
package func withMachine(
  notesDirty: Bool = false, onHeap: Bool = false, isFlat: Bool = true,
  _ body: (Machine) throws -> Void
) throws {
  let machine = try Machine(notesDirty: notesDirty, onHeap: onHeap, isFlat: isFlat)
  do {
    defer { machine.end() }
    try body(machine)
  }
  try demandSame(machine.memory.misuses, 0, "wrong frees of coherent memory")
  try demandSame(machine.memory.liveCount, 0, "coherent memory that is left")
  try demandSame(machine.tables.misuses, [], "misuses of table pages")
  try demandSame(machine.tables.liveCount, 0, "table pages that are left")
}

/// As `withMachine`, with each kind of page tables: so with mappings that have records, and with tags.
package func withMachines(_ body: (Machine) throws -> Void) throws {
  for onHeap in [false, true] { try withMachine(onHeap: onHeap, body) }
}

/// The messages of a system.
package final class Reports: @unchecked Sendable {
  package struct Report: Equatable {
    package let level: UInt32
    package let error: Int32
    package let object: String
    package let text: String

    package init(level: UInt32, error: Int32, object: String, text: String) {
      self.level = level
      self.error = error
      self.object = object
      self.text = text
    }
  }

  private let lock = NSLock()
  private var kept: [Report] = []

  package init() {}

  /// For a system; this object must outlive it.
  package var reporter: Reporter {
    Reporter(
      callback: { report, opaque in
        let report = report!.pointee
        Unmanaged<Reports>.fromOpaque(opaque!).takeUnretainedValue().keep(
          Report(
            level: report.level, error: report.error, object: String(cString: report.object),
            text: String(cString: report.text)))
      }, opaque: Unmanaged.passUnretained(self).toOpaque())
  }

  package var all: [Report] { lock.withLock { kept } }

  private func keep(_ report: Report) { lock.withLock { kept.append(report) } }
}

/// A caller's allocator of coherent memory, which counts. Pages come full of ones.
package final class CoherentPages: @unchecked Sendable {
  private let lock = NSLock()
  private var sizes: [UnsafeMutableRawPointer: UInt64] = [:]
  private var wrongFrees = 0

  /// For a system; this object must outlive it.
  package var allocator: dmacore_memory_allocator {
    dmacore_memory_allocator(
      struct_size: MemoryLayout<dmacore_memory_allocator>.size,
      allocate: { size, alignment, _, opaque in
        CoherentPages.from(opaque).allocate(size, alignment)
      },
      free: { host, size, opaque in CoherentPages.from(opaque).free(host!, size) },
      opaque: Unmanaged.passUnretained(self).toOpaque())
  }

  /// Allocations that the library has.
  package var liveCount: Int { lock.withLock { sizes.count } }

  /// Frees of what was not allocated like that.
  package var misuses: Int { lock.withLock { wrongFrees } }

  private static func from(_ opaque: UnsafeMutableRawPointer?) -> CoherentPages {
    Unmanaged<CoherentPages>.fromOpaque(opaque!).takeUnretainedValue()
  }

  private func allocate(_ size: UInt64, _ alignment: UInt64) -> UnsafeMutableRawPointer {
    let host = UnsafeMutableRawPointer.allocate(byteCount: Int(size), alignment: Int(alignment))
    memset(host, 0xFF, Int(size))
    lock.withLock { sizes[host] = size }
    return host
  }

  private func free(_ host: UnsafeMutableRawPointer, _ size: UInt64) {
    lock.withLock {
      guard sizes.removeValue(forKey: host) == size else {
        wrongFrees += 1
        return
      }
      host.deallocate()
    }
  }
}

package func physical(_ first: UInt64, size: UInt64) throws -> PhysicalRange {
  try PhysicalRange(first: PhysicalAddress(first), size: size)
}

package func dma(_ first: UInt64, size: UInt64) throws -> DMARange {
  try DMARange(first: DMAAddress(first), size: size)
}
