// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/memory.h

import Addressing
import CDMACore
import Domains
import MemoryMap
import Primitives

@implementation @c(dmacore_memory_add)
public func dmacore_memory_add(
  _ system: OpaquePointer!, _ given: UnsafePointer<dmacore_memory_region>!
) -> CInt {
  status { () throws(Failure) in
    let system = unsafe try value(system, as: System.self)
    try require(unsafe given != nil)
    let description = unsafe try MemoryRegionDescription(
      options(given, defaults: dmacore_memory_region()))
    try unsafe system.pointee.add(description)
  }
}

extension MemoryRegionDescription {
  fileprivate init(_ region: dmacore_memory_region) throws(Failure) {
    try require(unsafe region.flags & ~DMACORE_MEMORY_READ_ONLY.rawValue == 0)
    let range = unsafe try PhysicalRange(first: PhysicalAddress(region.base), size: region.size)
    let backing: Backing
    switch unsafe region.backing {
    case DMACORE_MEMORY_HOST.rawValue:
      guard let host = unsafe region.host else { throw .invalidArgument }
      backing = unsafe .host(host)
    case DMACORE_MEMORY_FD.rawValue:
      backing = unsafe .file(descriptor: region.fd, offset: region.fd_offset)
    case DMACORE_MEMORY_CALLBACKS.rawValue:
      guard let read = unsafe region.read else { throw .invalidArgument }
      backing = unsafe .callbacks(read: read, write: region.write, opaque: region.opaque)
    default:
      throw .invalidArgument
    }
    try self.init(
      range: range, isReadOnly: unsafe region.flags & DMACORE_MEMORY_READ_ONLY.rawValue != 0,
      backing: backing)
  }
}

@implementation @c(dmacore_memory_remove)
public func dmacore_memory_remove(
  _ system: OpaquePointer!, _ base: dmacore_phys_t, _ size: UInt64
) -> CInt {
  status { () throws(Failure) in
    let system = unsafe try value(system, as: System.self)
    try require(size > 0)
    // A range that wraps is that of no region.
    let range = try PhysicalRange(first: PhysicalAddress(base), size: size, wrap: .notFound)
    try unsafe system.pointee.remove(range)
  }
}

@implementation @c(dmacore_memory_phys_to_host)
public func dmacore_memory_phys_to_host(
  _ system: OpaquePointer!, _ phys: dmacore_phys_t, _ size: UInt64,
  _ out: UnsafeMutablePointer<UnsafeMutableRawPointer?>!
) -> CInt {
  status { () throws(Failure) in
    let system = unsafe try value(system, as: System.self)
    let out = unsafe try output(out)
    let range = try PhysicalRange(first: PhysicalAddress(phys), size: size)
    unsafe out.pointee = try system.pointee.host(of: range)
  }
}

@implementation @c(dmacore_memory_host_to_phys)
public func dmacore_memory_host_to_phys(
  _ system: OpaquePointer!, _ host: UnsafeRawPointer!, _ size: UInt64,
  _ out: UnsafeMutablePointer<dmacore_phys_t>!
) -> CInt {
  status { () throws(Failure) in
    let system = unsafe try value(system, as: System.self)
    let out = unsafe try output(out)
    guard let host = unsafe host else { throw .invalidArgument }
    unsafe out.pointee = try system.pointee.physicalRange(of: host, size: size).first.rawValue
  }
}
