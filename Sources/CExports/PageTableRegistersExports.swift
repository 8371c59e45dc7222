// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/pagetable.h

import CDMACore
import PageTables
import Primitives

@implementation @c(dmacore_pagetable_vtd)
public func dmacore_pagetable_vtd(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_pagetable_vtd>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try fill(out) { () throws(Failure) in try unsafe table.pointee.vtd() }
  }
}

@implementation @c(dmacore_pagetable_x86_64)
public func dmacore_pagetable_x86_64(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_pagetable_x86_64>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try fill(out) { () throws(Failure) in try unsafe table.pointee.x86_64() }
  }
}

@implementation @c(dmacore_pagetable_amd_v1)
public func dmacore_pagetable_amd_v1(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_pagetable_amd_v1>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try fill(out) { () throws(Failure) in try unsafe table.pointee.amdV1() }
  }
}

@implementation @c(dmacore_pagetable_arm64_stage1)
public func dmacore_pagetable_arm64_stage1(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_pagetable_arm64_stage1>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try fill(out) { () throws(Failure) in try unsafe table.pointee.arm64Stage1() }
  }
}

@implementation @c(dmacore_pagetable_arm64_stage2)
public func dmacore_pagetable_arm64_stage2(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_pagetable_arm64_stage2>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try fill(out) { () throws(Failure) in try unsafe table.pointee.arm64Stage2() }
  }
}

@implementation @c(dmacore_pagetable_riscv)
public func dmacore_pagetable_riscv(
  _ pagetable: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_pagetable_riscv>!
) -> CInt {
  status { () throws(Failure) in
    let table = unsafe try value(pagetable, as: AnyPageTable.self)
    unsafe try fill(out) { () throws(Failure) in try unsafe table.pointee.riscv() }
  }
}
