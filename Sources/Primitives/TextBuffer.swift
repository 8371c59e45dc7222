// SPDX-License-Identifier: MIT OR Apache-2.0

/// A line of text of bounded length for a C reader, built from fixed strings and numbers.
///
/// It holds 255 bytes, the most that a report's text has. What does not fit is cut off, and a null
/// byte always ends the text.
@safe
public struct TextBuffer: ~Copyable {
  private let bytes: UnsafeMutableBufferPointer<UInt8>
  private var count = 0

  /// The result of `body` with an empty text.
  public static func with<Result>(_ body: (inout TextBuffer) -> Result) -> Result {
    // The literal keeps the buffer on the stack: the 255 bytes and the null byte.
    unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 256) { bytes in
      var text = unsafe TextBuffer(bytes: bytes)
      return body(&text)
    }
  }

  private init(bytes: UnsafeMutableBufferPointer<UInt8>) {
    unsafe self.bytes = bytes
    unsafe bytes[0] = 0
  }

  /// The text as C reads it, good until the buffer ends.
  public var cString: UnsafePointer<CChar> {
    // SAFETY: UInt8 and CChar have the same size, and the buffer has a byte at least and lives as
    // long as `with` runs.
    unsafe UnsafeRawPointer(bytes.baseAddress!).assumingMemoryBound(to: CChar.self)
  }

  /// Copies the text to C's memory, as much as fits, with a null byte at its end.
  ///
  /// - Parameter size: not 0.
  @_optimize(size)
  public func copy(to out: UnsafeMutablePointer<CChar>, size: UInt) {
    let length = min(count, Int(min(size, 256)) - 1)
    for index in 0..<length { unsafe out[index] = CChar(bitPattern: bytes[index]) }
    unsafe out[length] = 0
  }

  @_optimize(size)
  @inline(never)
  public mutating func append(_ text: StaticString) {
    text.withUTF8Buffer { utf8 in
      for index in utf8.indices { append(byte: unsafe utf8[index]) }
    }
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

  @_optimize(size)
  private mutating func append(byte: UInt8) {
    guard unsafe count + 1 < bytes.count else { return }
    unsafe bytes[count] = byte
    unsafe bytes[count + 1] = 0
    count += 1
  }
}
