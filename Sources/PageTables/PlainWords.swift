// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives

/// What the words of a format look like mostly, in numbers.
///
/// A plain word leads to a table or is a leaf by itself, as the library writes it. What is done most,
/// the code of `PlainTable.swift`, knows words by these numbers alone, and is so the same for all
/// formats. Everything else is left to the format, so that nothing is lost where this is narrow: only
/// time.
public struct PlainWords: Sendable {
  /// Where an address is: (word << addressShift) & addressBits. Addresses with other bits are not plain.
  let addressBits: UInt64
  let addressShift: UInt64
  /// A word with none of these is no leaf.
  let presentBits: UInt64
  /// Bits of leaves that say nothing, or nothing but that the leaf was used.
  let leafNotes: UInt64
  /// The bits of a leaf that tell what it permits: two groups of them.
  let accessBits: UInt64
  // What brings both to the highest bits of a word.
  private let accessFactor: UInt64

  /// - Parameters:
  ///   - accessBits: those of a leaf that tell what it permits.
  ///   - shifts: by how many bits those are shifted up, and shifted up again, so that all of them, those
  ///     that are shifted out excepted, are somewhere in the highest ten bits, each once.
  public init(
    addressBits: UInt64, addressShift: Int = 0, presentBits: UInt64, leafNotes: UInt64 = 0,
    accessBits: UInt64, shifts: (Int, Int)
  ) {
    self.addressBits = addressBits
    self.addressShift = UInt64(truncatingIfNeeded: addressShift)
    self.presentBits = presentBits
    self.leafNotes = leafNotes
    self.accessBits = accessBits
    accessFactor =
      1 &<< UInt64(truncatingIfNeeded: shifts.0) | 1 &<< UInt64(truncatingIfNeeded: shifts.1)
  }

  /// The number, below 1024, that the access of a leaf's word is known by.
  @inline(__always)
  func accessNumber(_ word: UInt64) -> Int {
    Int(truncatingIfNeeded: ((word & accessBits) &* accessFactor) &>> 54)
  }
}
