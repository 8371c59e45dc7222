// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// What the core may not use: it would trap where it should fail, need a run-time library, or import
/// symbols of a recent glibc.
private let bannedWords = [
  "class ", "any ", "Dictionary", "Set<", "String(", "Foundation", "fatalError", "try!", "as!",
  "print(",
]

private func bannedWordViolations(in file: SourceFile) -> [Violation] {
  file.codeLines.enumerated().flatMap { number, line in
    bannedWords.filter { line.containsWord($0) }.map { word in
      Violation(file, line: number + 1, "the core may not use `\(word)`")
    }
  }
}

@Suite("Banned words")
struct BannedWordsTests {
  private func violations(_ text: String) -> Int {
    bannedWordViolations(in: SourceFile(path: "Sources/A/A.swift", text: text)).count
  }

  @Test(arguments: bannedWords)
  func aBannedWordInCodeIsRefused(_ word: String) {
    #expect(violations("let a = b\n\(word)c") == 1)
  }

  @Test func wordsInCommentsAndStringsAreAccepted() {
    #expect(violations("// No class here.\nlet a = \"any String(x)\"") == 0)
  }

  @Test func longerIdentifiersAreAccepted() {
    #expect(violations("struct A: OptionSet<B> { var subclass = StaticString(many ) }") == 0)
  }

  @Test func theCoreUsesNone() throws {
    expectNone(try Project.files(under: "Sources", ".swift").flatMap(bannedWordViolations))
  }
}
