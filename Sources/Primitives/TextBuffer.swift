// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// A line of text of bounded length for a C reader, built from fixed strings and numbers.
///
/// It holds 255 bytes, the most that a report's text has. What does not fit is cut off, and a null
/// byte always ends the text.
@safe
public struct TextBuffer: ~Copyable {
  private var line = cplatform_line()
  private var count = 0

  /// An empty text.
  @inline(never)
  public init() {}

  /// The result of `body` with the text as C reads it.
  public borrowing func withCString<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
    // SAFETY: nobody writes there, and the line is as long as the pointer is used.
    unsafe _withUnprotectedUnsafePointer(to: line) { line in
      unsafe body(UnsafeRawPointer(line).assumingMemoryBound(to: CChar.self))
    }
  }

  /// Copies the text to C's memory, as much as fits, with a null byte at its end.
  ///
  /// - Parameter size: not 0.
  @_optimize(size)
  public borrowing func copy(to out: UnsafeMutablePointer<CChar>, size: UInt) {
    let length = min(count, Int(min(size, 256)) - 1)
    unsafe withCString { text in
      for index in 0..<length { unsafe out[index] = text[index] }
    }
    unsafe out[length] = 0
  }

  @inline(__always)
  public mutating func append(_ text: StaticString) {
    unsafe append(cString: text.cString)
  }

  /// Appends the bytes up to the null byte that ends them.
  @_optimize(size)
  @inline(never)
  public mutating func append(cString text: UnsafePointer<CChar>) {
    var next = unsafe text
    while unsafe next.pointee != 0 {
      append(byte: UInt8(bitPattern: unsafe next.pointee))
      unsafe next += 1
    }
  }

  @_optimize(size)
  @inline(never)
  public mutating func append(decimal value: UInt64) {
    append(value, radix: 10)
  }

  @_optimize(size)
  @inline(never)
  public mutating func append(hexadecimal value: UInt64) {
    append("0x")
    append(value, radix: 16)
  }

  @_optimize(size)
  private mutating func append(_ value: UInt64, radix: UInt64) {
    if value >= radix { append(value / radix, radix: radix) }
    let digit = UInt8(truncatingIfNeeded: value % radix)
    // "0" to "9", then "a" to "f".
    append(byte: digit < 10 ? 48 + digit : 87 + digit)
  }

  /// Beyond the text all bytes are 0.
  @_optimize(size)
  private mutating func append(byte: UInt8) {
    guard count < MemoryLayout<cplatform_line>.size - 1 else { return }
    // SAFETY: it is within the line.
    unsafe _withUnprotectedUnsafeMutablePointer(to: &line) { line in
      unsafe UnsafeMutableRawPointer(line).storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
    }
    count += 1
  }
}

extension StaticString {
  /// The text of a literal as C reads it: a null byte ends it.
  @inline(__always)
  var cString: UnsafePointer<CChar> {
    // SAFETY: UInt8 and CChar have the same size.
    unsafe UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self)
  }
}
