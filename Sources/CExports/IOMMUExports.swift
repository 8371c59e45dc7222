// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/iommu.h

import Addressing
import CDMACore
import Domains
import PageTables
import Primitives

@implementation @c(dmacore_iommu_create)
public func dmacore_iommu_create(
  _ system: OpaquePointer!, _ given: UnsafePointer<dmacore_iommu_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      let system = unsafe try value(system, as: System.self)
      return unsafe try IOMMU(system: system, description(given))
    }
  }
}

private func description(
  _ given: UnsafePointer<dmacore_iommu_options>?
) throws(Failure) -> IOMMUDescription {
  let options = unsafe try options(given, defaults: dmacore_iommu_options())
  try require(unsafe options.flags == 0 && options.reserved == 0)
  let tables = unsafe try pageTableConfiguration(options.pagetable)
  guard let given = unsafe options.backend else { return IOMMUDescription(tables) }
  let ops = unsafe try CExports.options(given, defaults: dmacore_backend_ops())
  return unsafe IOMMUDescription(tables, try Backend(ops, opaque: options.backend_opaque))
}

@implementation @c(dmacore_iommu_announce)
public func dmacore_iommu_announce(
  _ system: OpaquePointer!, _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      unsafe IOMMU(system: try value(system, as: System.self))
    }
  }
}

@implementation @c(dmacore_iommu_start)
public func dmacore_iommu_start(
  _ iommu: OpaquePointer!, _ given: UnsafePointer<dmacore_iommu_options>!
) -> CInt {
  status { () throws(Failure) in
    let iommu = unsafe try value(iommu, as: IOMMU.self)
    try unsafe iommu.pointee.start(description(given))
  }
}

@implementation @c(dmacore_iommu_capabilities)
public func dmacore_iommu_capabilities(
  _ iommu: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_iommu_capabilities>!
) -> CInt {
  status { () throws(Failure) in
    let iommu = unsafe try value(iommu, as: IOMMU.self)
    unsafe try fill(out) { () throws(Failure) in
      let description = unsafe try iommu.pointee.description()
      let (found, backend) = (description.tables.capabilities, description.backend)
      let flags =
        (found.notesDirty || backend.tracksDirty ? DMACORE_IOMMU_DIRTY_TRACKING.rawValue : 0)
        | (found.granule == Device.granule ? DMACORE_IOMMU_DMA_DOMAINS.rawValue : 0)
        | (found.isSigned ? DMACORE_IOMMU_SIGNED_INPUT.rawValue : 0)
        | backend.capabilities
      return dmacore_iommu_capabilities(
        struct_size: 0, leaf_sizes: found.leafSizes, granule: found.granule.bytes,
        last_input: found.lastInput, last_output: found.lastOutput,
        access: found.access.rawValue, flags: flags)
    }
  }
}

@implementation @c(dmacore_iommu_destroy)
public func dmacore_iommu_destroy(_ iommu: OpaquePointer!) {
  guard let iommu = unsafe iommu else { return }
  // SAFETY: see `value`.
  let cell = unsafe UnsafeMutablePointer<IOMMU>(iommu)
  if unsafe Box.isShared(cell) {
    unsafe cell.pointee.system.pointee.reporter.reportEarlyDestroy(object: "iommu")
  }
  unsafe Box.letGo(cell)
}
