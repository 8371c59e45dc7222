// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// A loop in the export layer is work that belongs below it.
private func loopViolations(in file: SourceFile) -> [Violation] {
  file.codeLines.enumerated().compactMap { number, line in
    guard hasLoop(line) else { return nil }
    return Violation(file, line: number + 1, "the export layer may not loop")
  }
}

/// `for` may be an argument label as well; a statement follows nothing, a brace or a semicolon.
private func hasLoop(_ line: Substring) -> Bool {
  if line.containsWord("while ") || line.containsWord("repeat ") { return true }
  if line.containsWord("forEach") { return true }
  return line.ranges(of: "for ").contains { range in
    let before = line[..<range.lowerBound].last { $0 != " " }
    return before == nil || before == "{" || before == "}" || before == ";"
  }
}

@Suite("Export layer")
struct ExportLayerTests {
  private func violations(_ text: String) -> Int {
    loopViolations(in: SourceFile(path: "Sources/CExports/A.swift", text: text)).count
  }

  @Test(arguments: [
    "  for a in b {", "  do { for a in b {} }", "  while a {", "  repeat {", "  a.forEach { b }",
  ])
  func aLoopIsRefused(_ line: String) {
    #expect(violations(line) == 1)
  }

  @Test func labelsAndCommentsAreAccepted() {
    #expect(violations("func limit(for device: Device) {}  // while it lives") == 0)
    #expect(violations("let a = limit(for: b)") == 0)
  }

  @Test func theExportLayerHasNone() throws {
    expectNone(try Project.files(under: "Sources/CExports", ".swift").flatMap(loopViolations))
  }
}
