// SPDX-License-Identifier: MIT OR Apache-2.0

/// What a test expected and did not find, thrown where a test cannot record it by itself: on threads
/// that the test started, and inside runs that are repeated.
public struct Divergence: Error, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

/// Throws unless a condition holds.
public func demand(_ condition: Bool, _ message: @autoclosure () -> String) throws {
  guard condition else { throw Divergence(message()) }
}

/// Throws unless two values are the same.
public func demandSame<Value: Equatable>(
  _ found: Value, _ expected: Value, _ what: @autoclosure () -> String
) throws {
  guard found == expected else {
    throw Divergence("\(what()): found \(found), expected \(expected)")
  }
}
