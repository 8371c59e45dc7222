// SPDX-License-Identifier: MIT OR Apache-2.0

/// Blanks what is not code: comments and the contents of string and character literals.
///
/// Code inside an interpolation counts as contents.
struct CodeScanner {
  enum Language { case swift, c }

  private let language: Language
  private let input: [UInt8]
  private var output: [UInt8]
  private var place = 0

  static func code(of text: String, in language: Language) -> String {
    var scanner = CodeScanner(language: language, text: text)
    scanner.scan()
    return String(decoding: scanner.output, as: UTF8.self)
  }

  private init(language: Language, text: String) {
    self.language = language
    input = Array(text.utf8)
    output = input
  }

  private func isAt(_ token: String) -> Bool {
    input[place...].starts(with: token.utf8)
  }

  /// Blanks the next `count` bytes and passes them; line ends stay.
  private mutating func blank(_ count: Int = 1) {
    for next in place..<min(place + count, input.count) where input[next] != UInt8(ascii: "\n") {
      output[next] = UInt8(ascii: " ")
    }
    place += count
  }

  private mutating func scan() {
    while place < input.count {
      switch input[place] {
      case UInt8(ascii: "/") where isAt("//"): blankLine()
      case UInt8(ascii: "/") where isAt("/*"): blankComment()
      case UInt8(ascii: "\""): blankLiteral()
      case UInt8(ascii: "#") where language == .swift && isAt("#\""): blankLiteral()
      case UInt8(ascii: "'") where language == .c: blankLiteral()
      default: place += 1
      }
    }
  }

  private mutating func blankLine() {
    while place < input.count, input[place] != UInt8(ascii: "\n") { blank() }
  }

  /// Comments nest in Swift and do not in C.
  private mutating func blankComment() {
    var depth = 0
    repeat {
      if isAt("/*") && (depth == 0 || language == .swift) {
        depth += 1
        blank(2)
      } else if isAt("*/") {
        depth -= 1
        blank(2)
      } else {
        blank()
      }
    } while depth > 0 && place < input.count
  }

  /// A literal that starts here: `'`, `"`, `"""` or `#"`, each of which ends as it starts.
  private mutating func blankLiteral() {
    let isRaw = isAt("#")
    let end = isAt("'") ? "'" : isRaw ? "\"#" : isAt("\"\"\"") ? "\"\"\"" : "\""
    blank(end.utf8.count)
    while place < input.count, !isAt(end) {
      if isAt(isRaw ? "\\#(" : "\\(") && language == .swift {
        blank(isRaw ? 3 : 2)
        blankInterpolation()
      } else if isAt("\\") && !isRaw {
        blank(2)
      } else {
        blank()
      }
    }
    blank(end.utf8.count)
  }

  /// What is left of an interpolation, which may hold literals of its own.
  private mutating func blankInterpolation() {
    var depth = 1
    while place < input.count, depth > 0 {
      switch input[place] {
      case UInt8(ascii: "\""): blankLiteral()
      case UInt8(ascii: "("):
        depth += 1
        blank()
      case UInt8(ascii: ")"):
        depth -= 1
        blank()
      default: blank()
      }
    }
  }
}
