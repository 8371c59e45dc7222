// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// The licence stands in the first line, or the second where the first belongs to a tool.
private func licenceViolations(in file: SourceFile) -> [Violation] {
  let licence = "SPDX-License-Identifier: MIT OR Apache-2.0"
  if file.lines.prefix(2).contains(where: { $0.contains(licence) }) { return [] }
  return [Violation(file, "the licence line is missing")]
}

/// Work that is left to do is no comment.
private func leftoverViolations(in file: SourceFile) -> [Violation] {
  // In two parts, so that this file has none.
  let leftovers = ["FIX" + "ME", "TO" + "DO", "XX" + "X"]
  return file.lines.enumerated().compactMap { number, line in
    guard let word = line.identifiers.first(where: leftovers.contains) else { return nil }
    return Violation(file, line: number + 1, "\(word) in the text")
  }
}

@Suite("Source text")
struct SourceTextTests {
  private func file(_ text: String) -> SourceFile {
    SourceFile(path: "Sources/A/A.swift", text: text)
  }

  private func sources() throws -> [SourceFile] {
    try Project.files(under: "Sources", ".swift", ".h", ".c")
      + Project.files(under: "Tests", ".swift")
      + Project.files(under: "include", ".h")
      + Project.files(under: "ctests", ".h", ".c")
      + Project.files(under: "examples", ".h", ".c")
      + Project.files(under: "scripts", "")
      + ["Package.swift", "Makefile", ".ci/run"].map(Project.file)
  }

  @Test func aLicenceLineIsFirstOrSecond() {
    let licence = "// SPDX-License-Identifier: MIT OR Apache-2.0\n"
    #expect(licenceViolations(in: file(licence)).isEmpty)
    #expect(licenceViolations(in: file("#!/usr/bin/env bash\n" + licence)).isEmpty)
    #expect(licenceViolations(in: file("import A\n\n" + licence)).count == 1)
    #expect(licenceViolations(in: file("import A\n")).count == 1)
  }

  @Test func leftoversAreRefused() {
    #expect(leftoverViolations(in: file("a\n// FIX" + "ME: later.")).count == 1)
    #expect(leftoverViolations(in: file("// TO" + "DO(b) c")).count == 1)
    #expect(leftoverViolations(in: file("// The todo list; mktemp new.XX" + "XXXX")).isEmpty)
  }

  @Test func everySourceHasItsLicence() throws {
    expectNone(try sources().flatMap(licenceViolations))
  }

  @Test func nothingIsLeftToDo() throws {
    expectNone(try sources().flatMap(leftoverViolations))
    expectNone(try Project.files(under: "docs", ".md").flatMap(leftoverViolations))
  }
}
