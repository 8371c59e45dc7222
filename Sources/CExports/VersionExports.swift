// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/version.h

import CDMACore

@implementation @c(dmacore_version)
public func dmacore_version() -> UInt32 {
  UInt32(DMACORE_VERSION_MAJOR << 16 | DMACORE_VERSION_MINOR << 8 | DMACORE_VERSION_PATCH)
}
