// SPDX-License-Identifier: MIT OR Apache-2.0

extension Character {
  var isIdentifier: Bool { isLetter || isNumber || self == "_" }
}

extension StringProtocol {
  /// Whether the text has `word`, and not as the end of a longer identifier.
  func containsWord(_ word: String) -> Bool {
    ranges(of: word).contains { range in
      range.lowerBound == startIndex || !self[index(before: range.lowerBound)].isIdentifier
    }
  }

  /// The identifiers in the text, in order.
  var identifiers: [String] {
    let words: [SubSequence] = split { !$0.isIdentifier }
    return words.map { String($0) }
  }
}
