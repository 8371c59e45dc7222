// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation
import Testing

// Theory of operation: tidy tests.
//
// 1. Concepts
// A rule is a function from the text of the project to what it objects to. It is pure, so that its
// suite can show it a text that it accepts and one that it refuses, and then shows it the project.
//
// 2. Implementation
// Rules read text. Comments and string literals are blanked first where a rule is about code (see
// CodeScanner); that, and looking for words, is all the parsing there is. The compiler has seen the
// same text, so a rule need not understand what could not compile.
//
// 3. What this does not do
// It judges no taste: layout is the formatters', names and sizes are the reader's.

/// A file of the project.
struct SourceFile {
  /// Relative to the project's root.
  let path: String
  let text: String

  var name: String { (path as NSString).lastPathComponent }
  var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }

  /// The text with comments and string literals blanked; lines keep their numbers.
  var code: String { CodeScanner.code(of: text, in: path.hasSuffix(".swift") ? .swift : .c) }
  var codeLines: [Substring] { code.split(separator: "\n", omittingEmptySubsequences: false) }
}

/// What a rule objects to.
struct Violation: CustomStringConvertible {
  let description: String

  init(_ file: SourceFile, line: Int? = nil, _ message: String) {
    description = "\(file.path)\(line.map { ":\($0)" } ?? ""): \(message)"
  }
}

/// The text files of the project.
enum Project {
  private static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  static func file(_ path: String) throws -> SourceFile {
    let text = try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    return SourceFile(path: path, text: text)
  }

  /// The files below a folder whose names have one of the endings; there is at least one.
  static func files(under folder: String, _ endings: String...) throws -> [SourceFile] {
    let below = FileManager.default.enumerator(atPath: root.appendingPathComponent(folder).path)
    let paths = (below?.compactMap { $0 as? String } ?? [])
      .filter { path in endings.contains { path.hasSuffix($0) } }
    try #require(!paths.isEmpty, "there is nothing to check in \(folder)")
    return try paths.sorted().map { try file("\(folder)/\($0)") }
  }
}

/// Reports each violation as an issue of its own.
func expectNone(
  _ violations: [some CustomStringConvertible], sourceLocation: SourceLocation = #_sourceLocation
) {
  for violation in violations {
    Issue.record("\(violation)", sourceLocation: sourceLocation)
  }
}
