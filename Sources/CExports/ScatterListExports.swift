// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/scatterlist.h

import Addressing
import CDMACore
import Domains
import Mapping
import Primitives

/// A list that is there and has entries.
private func entries(
  _ list: UnsafeMutablePointer<dmacore_sg>?, _ count: Int
) throws(Failure) -> UnsafeMutablePointer<dmacore_sg> {
  guard count > 0 else { throw .invalidArgument }
  return unsafe try output(list)
}

@implementation @c(dmacore_map_list)
public func dmacore_map_list(
  _ device: OpaquePointer!, _ list: UnsafeMutablePointer<dmacore_sg>!, _ count: Int,
  _ direction: UInt32, _ attributes: UInt32, _ most: Int, _ out: UnsafeMutablePointer<Int>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let out = unsafe try output(out)
    let list = unsafe try entries(list, count)
    let direction = try Direction(checking: direction)
    let attributes = try MappingAttributes(checking: attributes)
    unsafe out.pointee = try device.pointee.map(
      list, count: count, direction, attributes, most: most)
  }
}

@implementation @c(dmacore_unmap_list)
public func dmacore_unmap_list(
  _ device: OpaquePointer!, _ list: UnsafeMutablePointer<dmacore_sg>!, _ count: Int,
  _ direction: UInt32, _ attributes: UInt32
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let list = unsafe try entries(list, count)
    let direction = try Direction(checking: direction)
    let attributes = try MappingAttributes(checking: attributes)
    unsafe try device.pointee.unmap(list, count: count, direction, attributes.union(.list))
  }
}

@implementation @c(dmacore_sync_list_for_cpu)
public func dmacore_sync_list_for_cpu(
  _ device: OpaquePointer!, _ list: UnsafeMutablePointer<dmacore_sg>!, _ count: Int,
  _ offset: UInt64, _ size: UInt64, _ direction: UInt32
) -> CInt {
  unsafe sync(device, list, count, offset, size, direction, forCPU: true)
}

@implementation @c(dmacore_sync_list_for_device)
public func dmacore_sync_list_for_device(
  _ device: OpaquePointer!, _ list: UnsafeMutablePointer<dmacore_sg>!, _ count: Int,
  _ offset: UInt64, _ size: UInt64, _ direction: UInt32
) -> CInt {
  unsafe sync(device, list, count, offset, size, direction, forCPU: false)
}

private func sync(
  _ device: OpaquePointer?, _ list: UnsafeMutablePointer<dmacore_sg>?, _ count: Int,
  _ offset: UInt64, _ size: UInt64, _ direction: UInt32, forCPU: Bool
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let list = unsafe try entries(list, count)
    let direction = try Direction(checking: direction)
    unsafe try device.pointee.sync(
      list, count: count, offset, size, direction, forCPU: forCPU)
  }
}
