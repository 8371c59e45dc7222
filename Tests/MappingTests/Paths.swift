// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import PageTables
import Primitives
import TestSupport

/// The ways that a device's mappings can take.
enum Path: CaseIterable, Sendable {
  case direct
  case trackedDirect
  case identity
  case trackedIdentity
  case translated

  var isTracked: Bool { self == .trackedDirect || self == .trackedIdentity || self == .translated }

  var isTranslated: Bool { self == .translated }
}

extension Machine {
  /// A device whose mappings go this way.
  func device(
    on path: Path, _ change: (inout dmacore_device_options) -> Void = { _ in }
  ) throws -> UnsafeMutablePointer<Device> {
    let isFree = path == .direct || path == .trackedDirect
    let device = try device(behindIOMMU: !isFree) { options in
      if path == .trackedDirect || path == .trackedIdentity {
        options.flags = UInt32(DMACORE_DEVICE_TRACK_DIRECT.rawValue)
      }
      change(&options)
    }
    if !isFree { try device.pointee.attach(domain(path.isTranslated ? .dma : .identity)) }
    return device
  }
}

/// Where an access of a device arrives, as a walk of its page table says.
///
/// - Throws: `Divergence` when the device may not access the address like this.
func arrival(
  of address: UInt64, _ access: Access, by device: UnsafeMutablePointer<Device>
) throws -> UInt64 {
  switch device.pointee.currentPath {
  case .blocked, .nested: throw Divergence("the device is blocked, or has tables of its own")
  case .direct:
    guard device.pointee.tracksDirect else { return address }
    guard case .permitted = device.pointee.mappings.permission(at: address, access) else {
      throw Divergence("\(hex(address)) is not permitted")
    }
    return address
  case .translated(let translation, _):
    let leaf = translation.pointee.table.lookUp(IOVA(address))
    try demand(leaf.access.isSuperset(of: access), "\(hex(address)) is not permitted")
    return leaf.target + (address - leaf.first)
  }
}
