// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/driver.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_device_bind)
public func dmacore_device_bind(
  _ device: OpaquePointer!, _ driver: UnsafePointer<dmacore_driver>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    guard let driver = unsafe driver else { throw .invalidArgument }
    let checked = unsafe try options(driver, defaults: dmacore_driver())
    try unsafe Device.bind(device, to: Driver(driver, checked))
  }
}

@implementation @c(dmacore_device_unbind)
public func dmacore_device_unbind(_ device: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    try unsafe Device.unbind(value(device, as: Device.self))
  }
}

@implementation @c(dmacore_device_driver)
public func dmacore_device_driver(
  _ device: OpaquePointer!, _ outState: UnsafeMutablePointer<UInt32>!,
  _ outDriver: UnsafeMutablePointer<UnsafePointer<dmacore_driver>?>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    let outState = unsafe try output(outState)
    let binding = unsafe device.pointee.bindingState
    unsafe outState.pointee = binding.state
    if let outDriver = unsafe outDriver { unsafe outDriver.pointee = binding.driver }
  }
}
