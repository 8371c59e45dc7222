// SPDX-License-Identifier: MIT OR Apache-2.0

/// Numbers that follow from a seed, so that a run can be repeated anywhere. The generator is the one
/// called splitmix64.
public struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  /// A number from 0 up to `bound`, which is not included.
  public mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }

  /// True once in `count` times, on average.
  public mutating func onceIn(_ count: Int) -> Bool { below(count) == 0 }

  /// One of some values.
  public mutating func one<Element>(of values: [Element]) -> Element { values[below(values.count)] }
}
