// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/iova_state.h

import Addressing
import CDMACore
import Domains
import Mapping
import Primitives

/// What the library has in the caller's memory.
private func state(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>?
) throws(Failure) -> UnsafeMutablePointer<IOVAState> {
  let pointer = unsafe try output(pointer)
  // SAFETY: it starts as zeroes, which are a state without a device, and nobody but the library writes to
  // it. It has as many words, aligned as these (a test says so).
  return unsafe UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: IOVAState.self)
}

private func peek(_ pointer: UnsafePointer<dmacore_iova_state>?) -> UnsafeMutablePointer<IOVAState>?
{
  // SAFETY: nothing is written to it.
  unsafe try? state(UnsafeMutablePointer(mutating: pointer))
}

@implementation @c(dmacore_iova_state_reserve)
public func dmacore_iova_state_reserve(
  _ device: OpaquePointer!, _ phys: dmacore_phys_t, _ size: UInt64,
  _ given: UnsafePointer<dmacore_iova_state_options>!,
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let state = unsafe try state(pointer)
    let options = unsafe try options(given, defaults: dmacore_iova_state_options())
    let flags = DMACORE_IOVA_STATE_PAGE_TABLES.rawValue
    try require(options.flags & ~flags == 0 && options.reserved == 0)
    unsafe try Device.reserve(
      device, phys, size,
      IOVAStateReserves(
        links: options.links, spares: options.bounced_pages, hasTables: options.flags != 0),
      state)
  }
}

@implementation @c(dmacore_iova_state_is_reserved)
public func dmacore_iova_state_is_reserved(
  _ pointer: UnsafePointer<dmacore_iova_state>!
) -> Bool {
  unsafe peek(pointer)?.pointee.isReserved ?? false
}

@implementation @c(dmacore_iova_state_address)
public func dmacore_iova_state_address(
  _ pointer: UnsafePointer<dmacore_iova_state>!
) -> dmacore_dma_t {
  unsafe peek(pointer)?.pointee.address ?? 0
}

@_optimize(speed)
@implementation @c(dmacore_iova_state_link)
public func dmacore_iova_state_link(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!, _ offset: UInt64,
  _ phys: dmacore_phys_t, _ size: UInt64, _ direction: UInt32, _ attributes: UInt32
) -> CInt {
  unsafe with(pointer, "a link") { (device, state) throws(Failure) in
    let direction = try Direction(checking: direction)
    let attributes = try MappingAttributes(checking: attributes)
    guard size > 0 else { throw .invalidArgument }
    let memory = try PhysicalRange(first: PhysicalAddress(phys), size: size, wrap: .outOfRange)
    unsafe try device.pointee.link(state, offset, memory, direction, attributes)
  }
}

@implementation @c(dmacore_iova_state_sync)
public func dmacore_iova_state_sync(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!, _ offset: UInt64, _ size: UInt64
) -> CInt {
  unsafe with(pointer, "a sync of links") { (device, state) throws(Failure) in
    unsafe try device.pointee.sync(state, offset, size)
  }
}

@implementation @c(dmacore_iova_state_sync_for_cpu)
public func dmacore_iova_state_sync_for_cpu(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!, _ offset: UInt64, _ size: UInt64
) -> CInt {
  unsafe sync(pointer, offset, size, forCPU: true)
}

@implementation @c(dmacore_iova_state_sync_for_device)
public func dmacore_iova_state_sync_for_device(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!, _ offset: UInt64, _ size: UInt64
) -> CInt {
  unsafe sync(pointer, offset, size, forCPU: false)
}

private func sync(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>?, _ offset: UInt64, _ size: UInt64,
  forCPU: Bool
) -> CInt {
  unsafe with(pointer, "a sync of links") { (device, state) throws(Failure) in
    unsafe try device.pointee.sync(state, offset, size, forCPU: forCPU)
  }
}

@implementation @c(dmacore_iova_state_unlink)
public func dmacore_iova_state_unlink(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!, _ offset: UInt64, _ size: UInt64
) -> CInt {
  unsafe with(pointer, "an unlink") { (device, state) throws(Failure) in
    unsafe try device.pointee.unlink(state, offset, size)
  }
}

@implementation @c(dmacore_iova_state_free)
public func dmacore_iova_state_free(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try Device.free(state(pointer), "a free", endingLinks: false)
  }
}

@implementation @c(dmacore_iova_state_destroy)
public func dmacore_iova_state_destroy(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try Device.free(state(pointer), "a destroy", endingLinks: true)
  }
}

/// Calls the core with a state that has a range, and its device.
private func with(
  _ pointer: UnsafeMutablePointer<dmacore_iova_state>?, _ call: StaticString,
  _ body: (UnsafeMutablePointer<Device>, UnsafeMutablePointer<IOVAState>) throws(Failure) -> Void
) -> CInt {
  status { () throws(Failure) in
    let state = unsafe try state(pointer)
    unsafe try body(Device.device(of: state, call), state)
  }
}
