// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/reserved.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_device_reserved_regions)
public func dmacore_device_reserved_regions(
  _ device: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_reserved_region>!,
  _ capacity: Int, _ outCount: UnsafeMutablePointer<Int>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.reserved.copy(to: room(out, capacity), count: output(outCount))
  }
}

@implementation @c(dmacore_group_reserved_regions)
public func dmacore_group_reserved_regions(
  _ group: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_reserved_region>!,
  _ capacity: Int, _ outCount: UnsafeMutablePointer<Int>!
) -> CInt {
  status { () throws(Failure) in
    let group = unsafe try value(group, as: Group.self)
    let (room, outCount) = unsafe try (room(out, capacity), output(outCount))
    let regions = unsafe try group.pointee.reservedRegions()
    unsafe regions.copy(to: room, count: outCount)
  }
}

/// Room for so many; C gives its size as an unsigned number, of which Swift sees a signed one.
private func room(
  _ out: UnsafeMutablePointer<dmacore_reserved_region>?, _ capacity: Int
) throws(Failure) -> UnsafeMutableBufferPointer<dmacore_reserved_region> {
  try require(unsafe out != nil || capacity == 0)
  return unsafe UnsafeMutableBufferPointer(start: out, count: capacity < 0 ? Int.max : capacity)
}
