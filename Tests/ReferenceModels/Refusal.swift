// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation

/// Why a model refuses a call: the `errno` value that the library gives.
public struct Refusal: Error, Equatable {
  public let code: Int32

  static var busy: Refusal { Refusal(code: EBUSY) }
  static var exists: Refusal { Refusal(code: EEXIST) }
  static var invalid: Refusal { Refusal(code: EINVAL) }
  static var noSpace: Refusal { Refusal(code: ENOSPC) }
  static var notFound: Refusal { Refusal(code: ENOENT) }
  static var notSupported: Refusal { Refusal(code: EOPNOTSUPP) }
  static var outOfRange: Refusal { Refusal(code: ERANGE) }
}
