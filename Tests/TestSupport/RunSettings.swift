// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation

/// What a person may say about random runs, by environment variables.
public enum RunSettings {
  /// `DMACORE_SEED`, in decimal or after `0x`; without it a seed of its own for each run of the
  /// tests.
  public static let seed: UInt64 = number("DMACORE_SEED") ?? UInt64.random(in: 0...UInt64.max)

  /// `DMACORE_STEPS`; without it what the test finds affordable.
  public static func steps(_ usual: Int) -> Int {
    number("DMACORE_STEPS").flatMap { Int(exactly: $0) } ?? usual
  }

  /// `DMACORE_HISTORY`: how long the histories are that are tried one and all.
  public static let historyLength = number("DMACORE_HISTORY").flatMap { Int(exactly: $0) } ?? 4

  private static func number(_ variable: String) -> UInt64? {
    ProcessInfo.processInfo.environment[variable].flatMap(parse)
  }

  static func parse(_ text: String) -> UInt64? {
    text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
  }
}
