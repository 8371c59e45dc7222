// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import PageTables
import Primitives

/// A naturally aligned power of two of a device's addresses which are translated alike, or lead nowhere.
public struct DeviceBlock: Sendable {
  public let first: UInt64
  /// The size less one.
  public let mask: UInt64
  /// Where `first` leads. 0, if nowhere.
  public let target: UInt64
  /// What is permitted. Nothing, if what was wanted is not.
  public let access: Access
}

extension View {
  /// The largest block around an address that one look-up tells of. It records no fault.
  public func block(around address: DMAAddress, _ access: Access) -> DeviceBlock {
    let address = address.rawValue
    let token = unsafe device.pointee.system.pointee.readers.enter()
    let path = currentPath
    var found = lookUp(address, access, by: path)
    if unsafe device.pointee.hasDetours { found = withDetours(found, address, access, by: path) }
    unsafe device.pointee.system.pointee.readers.leave(token)
    let isPermitted = found.isMapped && found.access.permits(access)
    let offset = isPermitted ? found.first &- found.target : 0
    let mask = AlignedBlock.mask(
      around: address, within: found.first, found.last, offset: offset)
    let first = address & ~mask
    return DeviceBlock(
      first: first, mask: mask, target: isPermitted ? first &- offset : 0,
      access: isPermitted ? found.access : [])
  }

  /// What is known of an address and those around it. The caller is inside a read section.
  private func lookUp(
    _ address: UInt64, _ access: Access, by path: DevicePath, byBusAddress: Bool = false
  ) -> PageTableLookup {
    switch path {
    case .blocked:
      return PageTableLookup(first: 0, last: UInt64.max, target: 0, access: [])
    case .translated(let translation, _):
      return unsafe translation.pointee.table.lookUp(IOVA(address))
    case .nested(let nesting, _):
      return unsafe nesting.pointee.lookUp(address, for: access)
    case .direct where unsafe device.pointee.tracksDirect:
      // A look-up of records does not tell what lies below an address that is in none.
      switch unsafe device.pointee.mappings.permission(
        at: address, access, byBusAddress: byBusAddress)
      {
      case .permitted(let first, let last, let target, let granted):
        return PageTableLookup(
          first: first, last: last, target: unsafe device.pointee.ops == nil ? first : target,
          access: granted)
      case .denied(let last), .unmapped(let last):
        return PageTableLookup(first: address, last: last, target: 0, access: [])
      }
    case .direct:
      return PageTableLookup(first: 0, last: UInt64.max, target: 0, access: .transfers)
    }
  }

  /// What becomes of that where the bus passes some addresses alone, or leads some to peers.
  private func withDetours(
    _ found: PageTableLookup, _ address: UInt64, _ access: Access, by path: DevicePath
  ) -> PageTableLookup {
    if case .blocked = path { return found }
    let (kind, window) = unsafe device.pointee.detour(at: address, isGoingUp: slot != nil)
    var found = found
    switch kind {
    case .hole:
      return PageTableLookup(
        first: address, last: window.bus.last.rawValue, target: 0, access: [])
    case .none: break
    case .peer: found = unsafe lookUp(address, access, by: .direct(nil), byBusAddress: true)
    }
    let part = window.part(
      found.first, found.last, to: found.target, isDirect: kind == .peer || leadsDirectly(by: path))
    return PageTableLookup(
      first: part.first, last: part.last, target: part.target, access: found.access)
  }
}
