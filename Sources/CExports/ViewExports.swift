// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/view.h

import Addressing
import CDMACore
import Domains
import Primitives
import Translation

@implementation @c(dmacore_view_create)
public func dmacore_view_create(
  _ device: OpaquePointer!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      unsafe View(device: try value(device, as: Device.self))
    }
  }
}

@implementation @c(dmacore_view_create_pasid)
public func dmacore_view_create_pasid(
  _ device: OpaquePointer!, _ pasid: UInt32, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      unsafe try View(device: value(device, as: Device.self), pasid: pasid)
    }
  }
}

@implementation @c(dmacore_view_destroy)
public func dmacore_view_destroy(_ view: OpaquePointer!) {
  guard let view = unsafe view else { return }
  // SAFETY: see `value`.
  unsafe Box.destroy(UnsafeMutablePointer<View>(view))
}

@_optimize(speed)
@implementation @c(dmacore_view_translate)
public func dmacore_view_translate(
  _ view: OpaquePointer!, _ dma: dmacore_dma_t, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>!
) -> CInt {
  status { () throws(Failure) in
    let view = unsafe try value(view, as: View.self)
    let out = unsafe try output(out)
    let found = unsafe try view.pointee.translate(DMAAddress(dma), Access(checking: access))
    unsafe out.pointee = dmacore_translation(
      first: found.first, last: found.last, target: found.target, access: found.access.rawValue,
      reserved: 0)
  }
}

@_optimize(speed)
@implementation @c(dmacore_view_translate_block)
public func dmacore_view_translate_block(
  _ view: OpaquePointer!, _ dma: dmacore_dma_t, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_block>!
) -> CInt {
  status { () throws(Failure) in
    let view = unsafe try value(view, as: View.self)
    let out = unsafe try output(out)
    let found = unsafe view.pointee.block(around: DMAAddress(dma), try Access(checking: access))
    unsafe out.pointee = dmacore_block(
      first: found.first, mask: found.mask, phys: found.target, access: found.access.rawValue,
      reserved: 0)
  }
}

@_optimize(speed)
@implementation @c(dmacore_view_read)
public func dmacore_view_read(
  _ view: OpaquePointer!, _ dma: dmacore_dma_t, _ buffer: UnsafeMutableRawPointer!, _ size: Int
) -> CInt {
  status { () throws(Failure) in
    let view = unsafe try value(view, as: View.self)
    guard let buffer = unsafe buffer else { throw .invalidArgument }
    guard size != 0 else { return }
    try unsafe view.pointee.read(transferRange(dma, size), into: buffer)
  }
}

@_optimize(speed)
@implementation @c(dmacore_view_write)
public func dmacore_view_write(
  _ view: OpaquePointer!, _ dma: dmacore_dma_t, _ buffer: UnsafeRawPointer!, _ size: Int
) -> CInt {
  status { () throws(Failure) in
    let view = unsafe try value(view, as: View.self)
    guard let buffer = unsafe buffer else { throw .invalidArgument }
    guard size != 0 else { return }
    try unsafe view.pointee.write(transferRange(dma, size), from: buffer)
  }
}

/// The range of a transfer. C's size_t comes as a signed number here; no buffer is so long that it
/// is negative.
private func transferRange(_ dma: dmacore_dma_t, _ size: Int) throws(Failure) -> DMARange {
  guard size > 0 else { throw .invalidArgument }
  return try DMARange(first: DMAAddress(dma), size: UInt64(size))
}

@implementation @c(dmacore_view_map)
public func dmacore_view_map(
  _ view: OpaquePointer!, _ dma: dmacore_dma_t, _ size: UInt64, _ access: UInt32,
  _ outMapping: UnsafeMutablePointer<OpaquePointer?>!,
  _ outSegments: UnsafeMutablePointer<UnsafePointer<dmacore_view_segment>?>!,
  _ outCount: UnsafeMutablePointer<Int>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(outMapping) { () throws(Failure) in
      let view = unsafe try value(view, as: View.self)
      let outSegments = unsafe try output(outSegments)
      let outCount = unsafe try output(outCount)
      let access = try Access(checking: access)
      try require(!access.isEmpty)
      let mapping = unsafe try ViewMapping(
        view: view, DMARange(first: DMAAddress(dma), size: size), access)
      unsafe outSegments.pointee = mapping.segments
      unsafe outCount.pointee = mapping.segmentCount
      return mapping
    }
  }
}

@implementation @c(dmacore_view_unmap)
public func dmacore_view_unmap(_ mapping: OpaquePointer!) {
  guard let mapping = unsafe mapping else { return }
  // SAFETY: see `value`.
  unsafe Box.destroy(UnsafeMutablePointer<ViewMapping>(mapping))
}
