// SPDX-License-Identifier: MIT OR Apache-2.0

/// What people call an object: a copy of what C gave, in a cell of its own that does not move.
@safe
public struct Name: ~Copyable {
  /// The longest, its terminating null byte included. `device.h` and `group.h` say the same.
  public static var size: Int { 32 }

  private let bytes: UnsafeMutablePointer<CChar>

  /// A copy of `text`, which fits; of `fallback` if there is none.
  ///
  /// - Throws: `noMemory`.
  public init(_ text: UnsafePointer<CChar>?, fallback: StaticString) throws(Failure) {
    let raw = unsafe try RawMemory.allocate(Self.size, alignment: 16)
    // SAFETY: the allocation is `size` bytes and holds nothing else.
    unsafe bytes = raw.bindMemory(to: CChar.self, capacity: Self.size)
    unsafe bytes.initialize(repeating: 0, count: Self.size)
    unsafe set(text, fallback: fallback)
  }

  deinit { unsafe RawMemory.free(bytes) }

  /// Whether a text is short enough to be a name, or there is none.
  public static func fits(_ text: UnsafePointer<CChar>?) -> Bool {
    guard let text = unsafe text else { return true }
    var length = 0
    while unsafe text[length] != 0 {
      length &+= 1
      guard length < size else { return false }
    }
    return true
  }

  /// Replaces the name. The caller sees to it that nobody reads it meanwhile.
  public func set(_ text: UnsafePointer<CChar>?, fallback: StaticString) {
    let text = unsafe text ?? fallback.cString
    var index = 0
    while index < Self.size - 1, unsafe text[index] != 0 {
      unsafe bytes[index] = text[index]
      index &+= 1
    }
    unsafe bytes[index] = 0
  }

  /// The name as C reads it, good while this lives.
  // SAFETY: a null byte ends it.
  public var cString: UnsafePointer<CChar> { unsafe UnsafePointer(bytes) }
}
