// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/fault.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_fault_take)
public func dmacore_fault_take(
  _ device: OpaquePointer!, _ faults: UnsafeMutablePointer<dmacore_fault>!, _ countMax: Int,
  _ outCount: UnsafeMutablePointer<Int>!, _ outLost: UnsafeMutablePointer<UInt64>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let outCount = unsafe try output(outCount)
    try require(unsafe faults != nil || countMax == 0)
    // C's size_t comes as a signed number here; one above its range means room without end.
    let room = countMax < 0 ? Int.max : countMax
    let (count, lost) = unsafe device.pointee.faults.take(into: faults, countMax: room)
    unsafe outCount.pointee = count
    if let outLost = unsafe outLost { unsafe outLost.pointee = lost }
  }
}
