// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport

/// The object that a call of C's makes.
///
/// - Throws: what says that it made none.
func makeObject(_ call: (inout OpaquePointer?) -> Int32) throws -> OpaquePointer {
  var made: OpaquePointer?
  try demandSame(call(&made), 0, "making an object")
  return made!
}
