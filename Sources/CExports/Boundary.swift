// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

// All that is between a C call and the core: results, handles, options. Each export checks its
// arguments, converts them, calls one function of the core, and converts the result.

/// Runs `body` and gives C its result: 0, or the negated `errno` of the failure.
func status(_ body: () throws(Failure) -> Void) -> CInt {
  do throws(Failure) {
    try body()
    return 0
  } catch {
    return status(error)
  }
}

/// What C gets for a failure: the negated `errno`.
func status(_ failure: Failure) -> CInt { 0 &- failure.code }

/// The value behind a handle. C holds the address of a value that `create` placed.
func value<Value: ~Copyable>(
  _ handle: OpaquePointer?, as _: Value.Type
) throws(Failure) -> UnsafeMutablePointer<Value> {
  guard let handle = unsafe handle else { throw .invalidArgument }
  // SAFETY: a handle that is not null came from `create` with the same `Value`: each C handle type
  // is an incomplete structure of its own, and each is paired with one type of the core.
  return unsafe UnsafeMutablePointer(handle)
}

/// An output argument that must be there.
func output<Value>(
  _ pointer: UnsafeMutablePointer<Value>?
) throws(Failure) -> UnsafeMutablePointer<Value> {
  guard let pointer = unsafe pointer else { throw .invalidArgument }
  return unsafe pointer
}

/// Places a new value and hands its address to C, clearing `out` first.
func create<Value: ~Copyable>(
  _ out: UnsafeMutablePointer<OpaquePointer?>?, _ make: () throws(Failure) -> Value
) throws(Failure) {
  try unsafe handOver(out) { () throws(Failure) in try unsafe Box<Value>.place(make) }
}

/// Hands the address of a value to C, clearing `out` first.
func handOver<Value: ~Copyable>(
  _ out: UnsafeMutablePointer<OpaquePointer?>?,
  _ find: () throws(Failure) -> UnsafeMutablePointer<Value>
) throws(Failure) {
  let out = unsafe try output(out)
  unsafe out.pointee = nil
  unsafe out.pointee = OpaquePointer(try find())
}

/// The options that C gives, by the rule of `types.h`; `defaults` when it gives none.
///
/// Every options structure starts with its size.
func options<Options>(
  _ given: UnsafePointer<Options>?, defaults: Options
) throws(Failure) -> Options {
  guard let given = unsafe given else { return defaults }
  unsafe try checkOptions(UnsafeRawPointer(given), known: UInt(MemoryLayout<Options>.stride))
  return unsafe given.pointee
}

/// Refuses options that say more than is known.
@inline(never)
private func checkOptions(_ bytes: UnsafeRawPointer, known: UInt) throws(Failure) {
  let size = unsafe bytes.load(as: UInt.self)
  guard size >= known else { throw .invalidArgument }
  // No release will know a structure a page longer; a size like that is no size.
  guard size <= known + 4096, unsafe RawMemory.isZero(bytes, Int(known)..<Int(size)) else {
    throw .tooBig
  }
}

/// Fills in a statistics structure of C's, as long as that says it is.
///
/// Every statistics structure starts with its size, which stays what C set it to. What the library
/// does not know is zero.
func fill<Statistics>(
  _ out: UnsafeMutablePointer<Statistics>?, _ make: () throws(Failure) -> Statistics
) throws(Failure) {
  let out = unsafe try output(out)
  let bytes = UnsafeMutableRawPointer(out)
  let size = unsafe bytes.load(as: UInt.self)
  guard size >= UInt(MemoryLayout<Statistics>.stride) else { throw .invalidArgument }
  let known = UInt(MemoryLayout<Statistics>.stride)
  guard size <= known + 4096 else { throw .tooBig }
  let statistics = try make()
  unsafe out.pointee = statistics
  unsafe bytes.storeBytes(of: size, as: UInt.self)
  unsafe RawMemory.clear(bytes + Int(known), size: Int(size - known))
}

/// Refuses what must be zero and is not.
func require(_ condition: Bool) throws(Failure) {
  guard condition else { throw .invalidArgument }
}
