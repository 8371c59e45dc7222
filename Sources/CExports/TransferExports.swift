// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/transfer.h

import CDMACore
import Domains
import Mapping
import Primitives

/// What the library has in the caller's memory.
private func transfer(
  _ pointer: UnsafeMutablePointer<dmacore_transfer>?
) throws(Failure) -> UnsafeMutablePointer<Transfer> {
  let pointer = unsafe try output(pointer)
  // SAFETY: it starts as zeroes, which are a transfer that is not mapped, and nobody but the library writes to
  // it. It has as many words, aligned as these (a test says so).
  return unsafe UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: Transfer.self)
}

/// A copy of that.
private func peek(_ pointer: UnsafePointer<dmacore_transfer>?) throws(Failure) -> Transfer {
  // SAFETY: nothing is written to it.
  unsafe try transfer(UnsafeMutablePointer(mutating: pointer)).pointee
}

@inline(never)
private func request(
  _ given: UnsafePointer<dmacore_transfer_request>?
) throws(Failure) -> TransferRequest {
  try require(unsafe given != nil)
  return unsafe try TransferRequest(unsafe options(given, defaults: dmacore_transfer_request()))
}

@implementation @c(dmacore_transfer_map)
public func dmacore_transfer_map(
  _ device: OpaquePointer!, _ given: UnsafePointer<dmacore_transfer_request>!,
  _ pointer: UnsafeMutablePointer<dmacore_transfer>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try Device.map(device, request(given), transfer(pointer))
  }
}

@implementation @c(dmacore_transfer_begin)
public func dmacore_transfer_begin(
  _ device: OpaquePointer!, _ given: UnsafePointer<dmacore_transfer_request>!,
  _ pointer: UnsafePointer<dmacore_transfer>!, _ offset: UInt64,
  _ iterator: UnsafeMutablePointer<dmacore_transfer_iterator>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let iterator = unsafe try output(iterator)
    let made = unsafe try TransferIterator(device, request(given), peek(pointer), from: offset)
    // SAFETY: it has room for one, aligned as it is (a test says so).
    unsafe UnsafeMutableRawPointer(iterator).initializeMemory(
      as: TransferIterator.self, to: made)
  }
}

@_optimize(speed)
@implementation @c(dmacore_transfer_next)
public func dmacore_transfer_next(
  _ iterator: UnsafeMutablePointer<dmacore_transfer_iterator>!,
  _ segments: UnsafeMutablePointer<dmacore_segment>!, _ capacity: Int,
  _ outCount: UnsafeMutablePointer<Int>!
) -> CInt {
  status { () throws(Failure) in
    let iterator = unsafe try output(iterator)
    let segments = unsafe try output(segments)
    let outCount = unsafe try output(outCount)
    try require(capacity != 0)
    // SAFETY: the iterator is one that begin made.
    let place = unsafe UnsafeMutableRawPointer(iterator).assumingMemoryBound(
      to: TransferIterator.self)
    unsafe outCount.pointee = try place.pointee.next(
      segments, capacity: capacity < 0 ? Int.max : capacity)
  }
}

@implementation @c(dmacore_transfer_size)
public func dmacore_transfer_size(_ pointer: UnsafePointer<dmacore_transfer>!) -> UInt64 {
  unsafe (try? peek(pointer))?.size ?? 0
}

@implementation @c(dmacore_transfer_sync_for_cpu)
public func dmacore_transfer_sync_for_cpu(
  _ device: OpaquePointer!, _ pointer: UnsafePointer<dmacore_transfer>!, _ offset: UInt64,
  _ size: UInt64
) -> CInt {
  unsafe sync(device, pointer, offset, size, forCPU: true)
}

@implementation @c(dmacore_transfer_sync_for_device)
public func dmacore_transfer_sync_for_device(
  _ device: OpaquePointer!, _ pointer: UnsafePointer<dmacore_transfer>!, _ offset: UInt64,
  _ size: UInt64
) -> CInt {
  unsafe sync(device, pointer, offset, size, forCPU: false)
}

private func sync(
  _ device: OpaquePointer?, _ pointer: UnsafePointer<dmacore_transfer>?, _ offset: UInt64,
  _ size: UInt64, forCPU: Bool
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try Device.sync(device, peek(pointer), offset, size, forCPU: forCPU)
  }
}

@implementation @c(dmacore_transfer_replace)
public func dmacore_transfer_replace(
  _ device: OpaquePointer!, _ pointer: UnsafeMutablePointer<dmacore_transfer>!, _ offset: UInt64,
  _ phys: dmacore_phys_t, _ size: UInt64
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try Device.replace(device, transfer(pointer).pointee, offset, phys, size)
  }
}

@implementation @c(dmacore_transfer_unmap)
public func dmacore_transfer_unmap(
  _ device: OpaquePointer!, _ pointer: UnsafeMutablePointer<dmacore_transfer>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try Device.unmap(device, transfer(pointer))
  }
}
