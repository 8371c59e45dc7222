// SPDX-License-Identifier: MIT OR Apache-2.0

/// The reason an operation failed: one `errno` value.
///
/// A structure, because a callback of C may fail with a value that the library has no name for.
public struct Failure: Error, Equatable, Sendable {
  /// The `errno` value, positive.
  public let code: Int32

  public init(code: Int32) { self.code = code }

  /// - Throws: what a function of C's failed with: a negative `errno`, or else EIO.
  public static func check(_ result: CInt) throws(Failure) {
    if result == 0 { return }
    // One that breaks its contract with a positive value, or one that cannot be negated, has failed
    // all the same.
    throw result < 0 && result > CInt.min ? Failure(code: -result) : .ioError
  }

  public static var notPermitted: Failure { Failure(code: 1) }  // EPERM
  public static var notFound: Failure { Failure(code: 2) }  // ENOENT
  public static var ioError: Failure { Failure(code: 5) }  // EIO
  public static var noMask: Failure { Failure(code: 6) }  // ENXIO
  public static var tooBig: Failure { Failure(code: 7) }  // E2BIG
  public static var tryAgain: Failure { Failure(code: 11) }  // EAGAIN
  public static var noMemory: Failure { Failure(code: 12) }  // ENOMEM
  public static var accessDenied: Failure { Failure(code: 13) }  // EACCES
  public static var badAddress: Failure { Failure(code: 14) }  // EFAULT
  public static var busy: Failure { Failure(code: 16) }  // EBUSY
  public static var exists: Failure { Failure(code: 17) }  // EEXIST
  public static var noDevice: Failure { Failure(code: 19) }  // ENODEV
  public static var invalidArgument: Failure { Failure(code: 22) }  // EINVAL
  public static var noSpace: Failure { Failure(code: 28) }  // ENOSPC
  public static var outOfRange: Failure { Failure(code: 34) }  // ERANGE
  public static var notSupported: Failure { Failure(code: 95) }  // EOPNOTSUPP
  public static var notReachable: Failure { Failure(code: 121) }  // EREMOTEIO
}
