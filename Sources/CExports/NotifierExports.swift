// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/notifier.h

import CDMACore
import Domains
import Primitives

@implementation @c(dmacore_notifier_create)
public func dmacore_notifier_create(
  _ domain: OpaquePointer!, _ given: UnsafePointer<dmacore_notifier_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!
) -> CInt {
  status { () throws(Failure) in
    unsafe try handOver(out) { () throws(Failure) in
      let domain = unsafe try value(domain, as: Domain.self)
      // The defaults lack a callback.
      let options = unsafe try options(given, defaults: dmacore_notifier_options())
      return unsafe try Notifier.place(domain, options)
    }
  }
}

@implementation @c(dmacore_notifier_destroy)
public func dmacore_notifier_destroy(_ notifier: OpaquePointer!) {
  guard let notifier = unsafe notifier else { return }
  // SAFETY: see `value`.
  unsafe Notifier.end(UnsafeMutablePointer<Notifier>(notifier))
}

@implementation @c(dmacore_notifier_replay)
public func dmacore_notifier_replay(_ notifier: OpaquePointer!) -> CInt {
  status { () throws(Failure) in
    unsafe try Notifier.replay(try value(notifier, as: Notifier.self))
  }
}
