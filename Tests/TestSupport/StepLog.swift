// SPDX-License-Identifier: MIT OR Apache-2.0

/// The steps of a run as calls of C, ready to paste into a test under ctests.
public struct StepLog {
  // Composing text takes longer than the steps themselves, so that only a replay does it.
  private let isKept: Bool
  public private(set) var lines: [String] = []

  public init(isKept: Bool) { self.isKept = isKept }

  public mutating func note(_ line: @autoclosure () -> String) {
    if isKept { lines.append(line()) }
  }

  /// Notes a call with its result: 0, or the negated `errno`, which the C side writes by name.
  public mutating func note(_ call: @autoclosure () -> String, gives result: Int32) {
    guard isKept else { return }
    if result == 0 {
      lines.append("assert_ok(\(call()));")
    } else {
      lines.append("assert_fails(\(call()), \(errnoName(-result)));")
    }
  }

  public var program: String { lines.map { "\t\($0)\n" }.joined() }
}

/// A number as C writes it.
public func hex(_ number: UInt64) -> String { "0x" + String(number, radix: 16) }

/// The name of an `errno` value that the library uses, or else its number.
public func errnoName(_ code: Int32) -> String {
  let names: [Int32: String] = [
    1: "EPERM", 2: "ENOENT", 5: "EIO", 6: "ENXIO", 7: "E2BIG", 9: "EBADF", 11: "EAGAIN",
    12: "ENOMEM", 13: "EACCES", 14: "EFAULT", 16: "EBUSY", 17: "EEXIST", 19: "ENODEV",
    22: "EINVAL", 28: "ENOSPC", 34: "ERANGE", 95: "EOPNOTSUPP",
  ]
  return names[code] ?? String(code)
}
