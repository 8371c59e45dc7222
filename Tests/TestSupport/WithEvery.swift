// SPDX-License-Identifier: MIT OR Apache-2.0

/// Calls `body` with each of some values; an error that it throws is told with the value.
///
/// Nested, it enumerates small worlds, and the error tells all the values that led to it.
public func withEvery<Value>(
  _ name: String, in values: some Sequence<Value>, _ body: (Value) throws -> Void
) throws {
  for value in values {
    do {
      try body(value)
    } catch {
      throw Divergence("\(name) = \(value): \(error)")
    }
  }
}

/// Calls `body` with every sequence of `length` values.
public func withEverySequence<Value>(
  of values: [Value], length: Int, _ body: ([Value]) throws -> Void
) throws {
  // Counts in a number system of as many digits as there are values.
  var digits = Array(repeating: 0, count: length)
  guard !values.isEmpty || length == 0 else { return }
  while true {
    try body(digits.map { values[$0] })
    var place = length - 1
    while place >= 0, digits[place] == values.count - 1 {
      digits[place] = 0
      place -= 1
    }
    guard place >= 0 else { return }
    digits[place] += 1
  }
}
