// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import IOVAAllocation
import Primitives

/// Memory of the system that is one device's own: its coherent allocations come from there.
///
/// The device holds it, and each allocation. The region that it lies in stays meanwhile.
@safe
public struct DeclaredMemory: ~Copyable, Held {
  private let system: UnsafeMutablePointer<System>
  private let range: PhysicalRange
  private let host: UnsafeMutableRawPointer
  // Which pages are allocated: it is a set of ranges, whatever they are addresses of.
  private let pages: UnsafeMutablePointer<IOVASpace>
  private let uses = UseCount()

  /// - Throws: `badAddress` when it is not whole pages in one writable region, `notSupported` when
  ///   callbacks back that, `noMemory`.
  init(
    _ range: PhysicalRange, of system: UnsafeMutablePointer<System>
  ) throws(Failure) {
    let host = try unsafe system.pointee.host(of: range)
    let pages = unsafe try Box<IOVASpace>.place { () throws(Failure) in
      try unsafe IOVASpace(
        bounds: IOVARange(first: IOVA(range.first.rawValue), last: IOVA(range.last.rawValue)),
        granule: Device.granule, isChecked: true, reporter: system.pointee.reporter)
    }
    do throws(Failure) {
      let claimed = try unsafe system.pointee.claim(host, size: range.extent &+ 1)
      // The region may have been another by then.
      guard claimed == range else {
        unsafe system.pointee.unpin(claimed)
        throw .badAddress
      }
    } catch {
      unsafe Box.destroy(pages)
      throw error
    }
    unsafe self.system = system
    self.range = range
    unsafe self.host = host
    unsafe self.pages = pages
  }

  deinit {
    unsafe Box.destroy(pages)
    unsafe system.pointee.unpin(range)
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  /// - Throws: `noMemory`, also when what is free lies above the limit.
  func allocate(_ size: UInt64, _ limit: UInt64) throws(Failure) -> dmacore_memory_segment {
    guard let first = try? unsafe pages.pointee.allocate(size: size, alignment: 0, limit: limit)
    else { throw .noMemory }
    // Inside the range, which fits the process.
    let offset = Int(truncatingIfNeeded: first.rawValue &- range.first.rawValue)
    return unsafe dmacore_memory_segment(cpu: host + offset, phys: first.rawValue, size: size)
  }

  func free(_ segment: dmacore_memory_segment) {
    try? unsafe pages.pointee.free(first: IOVA(segment.phys), size: segment.size)
  }
}

extension Device {
  /// Makes memory the device's own, from which its coherent allocations come from here on.
  ///
  /// - Throws: `busy` when it has some, and as `DeclaredMemory`.
  public func declareMemory(_ range: PhysicalRange) throws(Failure) {
    guard range.isAligned(to: Self.granule) else { throw .invalidArgument }
    let memory = unsafe try Box<DeclaredMemory>.place { () throws(Failure) in
      unsafe try DeclaredMemory(range, of: system)
    }
    guard unsafe mappings.declare(memory) else {
      unsafe Box.letGo(memory)
      throw .busy
    }
  }

  /// Ends that.
  ///
  /// - Throws: `notFound` when it has none, `busy` while allocations live.
  public func releaseMemory() throws(Failure) {
    unsafe Box.letGo(try mappings.releaseDeclared(evenIfUsed: false))
  }
}
