// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/group.h

import Addressing
import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_group_create)
public func dmacore_group_create(
  _ system: OpaquePointer!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      unsafe try Group(system: value(system, as: System.self))
    }
  }
}

@implementation @c(dmacore_group_destroy)
public func dmacore_group_destroy(_ group: OpaquePointer!) {
  guard let group = unsafe group else { return }
  // SAFETY: see `value`.
  unsafe Box.letGo(UnsafeMutablePointer<Group>(group))
}

@implementation @c(dmacore_device_group)
public func dmacore_device_group(
  _ device: OpaquePointer!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try handOver(out) { () throws(Failure) in
      let group = unsafe try value(device, as: Device.self).pointee.group
      unsafe Box.hold(group)
      return unsafe group
    }
  }
}

@implementation @c(dmacore_device_use_default_domain)
public func dmacore_device_use_default_domain(_ device: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    try unsafe value(device, as: Device.self).pointee.useDefaultDomain()
  }
}

@implementation @c(dmacore_device_unuse_default_domain)
public func dmacore_device_unuse_default_domain(_ device: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    try unsafe value(device, as: Device.self).pointee.unuseDefaultDomain()
  }
}

@implementation @c(dmacore_device_claim_dma_owner)
public func dmacore_device_claim_dma_owner(
  _ device: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.group.pointee.claim(checked(owner), through: device.pointee.name)
  }
}

@implementation @c(dmacore_group_claim_dma_owner)
public func dmacore_group_claim_dma_owner(
  _ group: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try value(group, as: Group.self).pointee.claim(checked(owner), through: nil)
  }
}

@implementation @c(dmacore_group_release_dma_owner)
public func dmacore_group_release_dma_owner(
  _ group: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try value(group, as: Group.self).pointee.release(token(owner))
  }
}

/// What C says of an owner.
private func checked(_ given: UnsafePointer<dmacore_dma_owner>?) throws(Failure) -> Owner {
  let token = unsafe try token(given)
  let owner = unsafe try options(given, defaults: dmacore_dma_owner())
  try require(unsafe owner.reserved == 0)
  return unsafe try Owner(token: token, kind: owner.kind, name: owner.name)
}

@implementation @c(dmacore_device_release_dma_owner)
public func dmacore_device_release_dma_owner(
  _ device: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.group.pointee.release(token(owner))
  }
}

@implementation @c(dmacore_device_attach)
public func dmacore_device_attach(
  _ device: OpaquePointer!, _ domain: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.group.pointee.attach(
      value(domain, as: Domain.self), by: token(owner))
  }
}

@implementation @c(dmacore_device_detach)
public func dmacore_device_detach(
  _ device: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.group.pointee.attach(nil, by: token(owner))
  }
}

@implementation @c(dmacore_group_attach)
public func dmacore_group_attach(
  _ group: OpaquePointer!, _ domain: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try value(group, as: Group.self).pointee.attach(
      value(domain, as: Domain.self), by: token(owner))
  }
}

@implementation @c(dmacore_group_detach)
public func dmacore_group_detach(
  _ group: OpaquePointer!, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try value(group, as: Group.self).pointee.attach(nil, by: token(owner))
  }
}

@implementation @c(dmacore_device_attach_pasid)
public func dmacore_device_attach_pasid(
  _ device: OpaquePointer!, _ pasid: UInt32, _ domain: OpaquePointer!,
  _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  unsafe attach(device, pasid, domain, owner, replacing: false)
}

@implementation @c(dmacore_device_replace_pasid)
public func dmacore_device_replace_pasid(
  _ device: OpaquePointer!, _ pasid: UInt32, _ domain: OpaquePointer!,
  _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  unsafe attach(device, pasid, domain, owner, replacing: true)
}

@inline(never)
private func attach(
  _ device: OpaquePointer?, _ pasid: UInt32, _ domain: OpaquePointer?,
  _ owner: UnsafePointer<dmacore_dma_owner>?, replacing: Bool
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.group.pointee.attach(
      value(domain, as: Domain.self), to: pasid, of: device.pointee, by: token(owner),
      replacing: replacing)
  }
}

@implementation @c(dmacore_device_detach_pasid)
public func dmacore_device_detach_pasid(
  _ device: OpaquePointer!, _ pasid: UInt32, _ owner: UnsafePointer<dmacore_dma_owner>!
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    unsafe try device.pointee.group.pointee.detach(pasid, by: token(owner))
  }
}

@implementation @c(dmacore_device_invalidate_pasid)
public func dmacore_device_invalidate_pasid(
  _ device: OpaquePointer!, _ pasid: UInt32, _ first: dmacore_iova_t, _ last: dmacore_iova_t
) -> CInt {
  status { () throws(Failure) in
    let device = unsafe try value(device, as: Device.self)
    try unsafe device.pointee.invalidate(
      pasid, IOVARange(first: IOVA(first), last: IOVA(last)))
  }
}

@implementation @c(dmacore_group_set_default_type)
public func dmacore_group_set_default_type(_ group: OpaquePointer!, _ type: UInt32) -> CInt {
  status { () throws(Failure) in
    let group = unsafe try value(group, as: Group.self)
    guard let type = try DefaultType(checking: type) else { throw .invalidArgument }
    try unsafe Group.setDefaultType(of: group, type)
  }
}

@implementation @c(dmacore_group_describe)
public func dmacore_group_describe(
  _ group: OpaquePointer!, _ out: UnsafeMutablePointer<CChar>!, _ size: Int
) -> CInt {
  status { () throws(Failure) in
    let group = unsafe try value(group, as: Group.self)
    let out = unsafe try output(out)
    try require(size != 0)
    var text = TextBuffer()
    unsafe group.pointee.describe(&text)
    unsafe text.copy(to: out, size: UInt(bitPattern: size))
  }
}

/// What an owner is known by.
private func token(
  _ owner: UnsafePointer<dmacore_dma_owner>?
) throws(Failure) -> UnsafeRawPointer {
  guard let owner = unsafe owner else { throw .invalidArgument }
  return unsafe UnsafeRawPointer(owner)
}
