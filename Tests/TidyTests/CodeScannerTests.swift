// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

@Suite("CodeScanner")
struct CodeScannerTests {
  /// What is left of a text, without the blanks.
  private func words(_ text: String, _ language: CodeScanner.Language = .swift) -> String {
    CodeScanner.code(of: text, in: language).split(whereSeparator: \.isWhitespace)
      .joined(separator: " ")
  }

  @Test func codeStays() {
    #expect(words("let a = b / c") == "let a = b / c")
  }

  @Test func commentsGo() {
    #expect(words("a // b\nc /* d\n e */ f") == "a c f")
  }

  @Test func commentsNestInSwiftAndNotInC() {
    #expect(words("a /* b /* c */ d */ e") == "a e")
    #expect(words("a /* b /* c */ d", .c) == "a d")
  }

  @Test func literalsGo() {
    #expect(words(#"a "b // c" d"#) == "a d")
    #expect(words(#"a "b \" c" d"#) == "a d")
    #expect(words("a \"\"\"\n b \" c\n\"\"\" d") == "a d")
    #expect(words(##"a #"b " c"# d"##) == "a d")
    #expect(words(#"a '"' b '\'' c"#, .c) == "a b c")
  }

  @Test func interpolationsGoWithTheirLiteral() {
    #expect(words(#"a "b \(c("d")) e" f"#) == "a f")
  }

  @Test func linesKeepTheirNumbers() {
    let code = CodeScanner.code(of: "/* a\nb */ c\n\"\"\"\nd\n\"\"\"\ne", in: .swift)
    #expect(code.split(separator: "\n", omittingEmptySubsequences: false).count == 6)
    #expect(code.hasSuffix("\ne"))
  }
}
