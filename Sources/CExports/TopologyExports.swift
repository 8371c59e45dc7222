// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/topology.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_bridge_create)
public func dmacore_bridge_create(
  _ system: OpaquePointer!, _ given: UnsafePointer<dmacore_bridge_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try create(out) { () throws(Failure) in
      let system = unsafe try value(system, as: System.self)
      let options = unsafe try options(given, defaults: dmacore_bridge_options())
      let isolates = DMACORE_BRIDGE_ISOLATES.rawValue
      let (below, across) = (
        DMACORE_BRIDGE_HOST_PASSES.rawValue, DMACORE_BRIDGE_HOST_PASSES_ACROSS.rawValue
      )
      let flags = unsafe options.flags
      try require(unsafe flags & ~(isolates | below | across) == 0 && options.reserved == 0)
      // SAFETY: see `value`.
      let parent = unsafe options.parent.map { unsafe UnsafeMutablePointer<Bridge>($0) }
      return unsafe try Bridge(
        system: system, parent: parent, isolates: flags & isolates != 0,
        hostPasses: flags & across != 0 ? .across : flags & below != 0 ? .below : .nothing)
    }
  }
}

@implementation @c(dmacore_bridge_destroy)
public func dmacore_bridge_destroy(_ bridge: OpaquePointer!) {
  guard let bridge = unsafe bridge else { return }
  // SAFETY: see `value`.
  unsafe Box.letGo(UnsafeMutablePointer<Bridge>(bridge))
}

@implementation @c(dmacore_bridge_set_isolation)
public func dmacore_bridge_set_isolation(_ bridge: OpaquePointer!, _ isolates: Bool) -> CInt {
  status { () throws(Failure) in
    unsafe try Bridge.setIsolation(of: value(bridge, as: Bridge.self), isolates)
  }
}
