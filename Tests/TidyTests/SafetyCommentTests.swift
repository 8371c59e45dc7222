// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// An expression that says what memory holds, where the compiler cannot know, has a comment that
/// says who made it so, at most six lines above.
///
/// These are all the `unsafe` expressions that are more than a call of a wrapper of ours or a use
/// of a pointer whose type was established elsewhere.
private func safetyViolations(in file: SourceFile) -> [Violation] {
  let claim =
    /unsafeBitCast|assumingMemoryBound|bindMemory|withMemoryRebound|Unmanaged\b|\bUnsafe(?:Mutable)?Pointer(?:<[^()]*>)?\(|\bUnsafe(?:Mutable)?RawPointer\(bitPattern:/
  let lines = file.lines
  return file.codeLines.enumerated().compactMap { number, line in
    guard line.contains(claim) else { return nil }
    let above = lines[max(0, number - 6)..<number]
    if above.contains(where: { $0.contains("// SAFETY: ") }) { return nil }
    return Violation(file, line: number + 1, "there is no `// SAFETY:` above")
  }
}

@Suite("Safety comments")
struct SafetyCommentTests {
  private func violations(_ text: String) -> Int {
    safetyViolations(in: SourceFile(path: "Sources/A/A.swift", text: text)).count
  }

  private let claims = [
    "let a = unsafe raw.bindMemory(to: A.self, capacity: 1)",
    "let a = unsafe raw.assumingMemoryBound(to: A.self)",
    "let a = unsafe UnsafeMutablePointer<A>(handle)",
    "let a = unsafe UnsafePointer(handle)",
    "let a = unsafe UnsafeMutableRawPointer(bitPattern: address)",
    "let a = unsafe unsafeBitCast(b, to: A.self)",
    "let a = unsafe b.withMemoryRebound(to: A.self, capacity: 1) { $0 }",
  ]

  @Test func aClaimWithoutACommentIsRefused() {
    for claim in claims {
      #expect(violations(claim) == 1, "\(claim)")
      #expect(violations("// SAFETY: too far.\n\n\n\n\n\n\n\(claim)") == 1, "\(claim)")
    }
  }

  @Test func aClaimWithACommentIsAccepted() {
    for claim in claims {
      #expect(violations("// SAFETY: `create` made it, and\n// nobody else.\n\(claim)") == 0)
    }
  }

  @Test func typesAndNumbersAreNoClaims() {
    #expect(violations("func f(_ a: UnsafeMutablePointer<A>) -> UInt { UInt(bitPattern: a) }") == 0)
  }

  @Test func theCoreExplainsEachClaim() throws {
    expectNone(try Project.files(under: "Sources", ".swift").flatMap(safetyViolations))
  }
}
