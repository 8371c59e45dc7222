// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/iommu.h

import CDMACore
import Domains
import PageTables
import Primitives

@implementation @_cdecl("dmacore_iommu_create")
public func dmacore_iommu_create(
  _ system: OpaquePointer!, _ given: UnsafePointer<dmacore_iommu_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      let system = unsafe try value(system, as: System.self)
      return unsafe try IOMMU(system: system, configuration: configuration(given))
    }
  }
}

private func configuration(
  _ given: UnsafePointer<dmacore_iommu_options>?
) throws(Failure) -> PageTableConfiguration {
  let options = unsafe try options(given, defaults: dmacore_iommu_options())
  try require(unsafe options.flags == 0 && options.reserved == 0)
  return unsafe try pageTableConfiguration(options.pagetable)
}

@implementation @_cdecl("dmacore_iommu_announce")
public func dmacore_iommu_announce(
  _ system: OpaquePointer!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      unsafe IOMMU(system: try value(system, as: System.self))
    }
  }
}

@implementation @_cdecl("dmacore_iommu_start")
public func dmacore_iommu_start(
  _ iommu: OpaquePointer!, _ given: UnsafePointer<dmacore_iommu_options>!
) -> CInt {
  status { () throws(Failure) in
    let iommu = unsafe try value(iommu, as: IOMMU.self)
    try unsafe iommu.pointee.start(configuration(given))
  }
}

@implementation @_cdecl("dmacore_iommu_destroy")
public func dmacore_iommu_destroy(_ iommu: OpaquePointer!) {
  guard let iommu = unsafe iommu else { return }
  // SAFETY: see `value`.
  let cell = unsafe UnsafeMutablePointer<IOMMU>(iommu)
  if unsafe Box.isShared(cell) {
    unsafe cell.pointee.system.pointee.reporter.reportEarlyDestroy(object: "iommu")
  }
  unsafe Box.letGo(cell)
}
