// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/peer.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_peer_create)
public func dmacore_peer_create(
  _ provider: OpaquePointer!, _ given: UnsafePointer<dmacore_peer_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try handOver(out) { () throws(Failure) in
      let provider = unsafe try value(provider, as: Device.self)
      let options = unsafe try options(given, defaults: dmacore_peer_options())
      try require(options.flags == 0 && options.reserved == 0)
      return unsafe try Peer.place(provider, options)
    }
  }
}

@implementation @c(dmacore_peer_destroy)
public func dmacore_peer_destroy(_ peer: OpaquePointer!) {
  guard let peer = unsafe peer else { return }
  // SAFETY: see `value`.
  unsafe Peer.close(UnsafeMutablePointer<Peer>(peer))
}

@implementation @c(dmacore_peer_route)
public func dmacore_peer_route(
  _ peer: OpaquePointer!, _ client: OpaquePointer!, _ out: UnsafeMutablePointer<UInt32>!,
  _ outDistance: UnsafeMutablePointer<UInt32>!
) -> CInt {
  status { () throws(Failure) in
    let peer = unsafe try value(peer, as: Peer.self)
    let client = unsafe try value(client, as: Device.self)
    let out = unsafe try output(out)
    try require(unsafe client.pointee.system == peer.pointee.system)
    let (route, distance) = unsafe peer.pointee.route(from: client.pointee)
    unsafe out.pointee = route.rawValue
    if let outDistance = unsafe outDistance { unsafe outDistance.pointee = distance }
  }
}
