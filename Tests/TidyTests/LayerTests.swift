// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// The targets under Sources, lowest layer first. A target imports lower layers alone, never one of
/// its own.
private let layers: [[String]] = [
  ["CDMACore", "CPlatform"],
  ["Primitives"],
  ["Addressing"],
  ["Bounce", "IOVAAllocation", "MemoryMap", "PageTables"],
  ["Domains"],
  ["Mapping", "Translation"],
  ["CExports"],
]

/// Modules of the Swift standard library that Embedded Swift has and that need no run-time library.
private let systemModules = ["Synchronization"]

private func layer(of target: String) -> Int? {
  layers.firstIndex { $0.contains(target) }
}

/// The name of the target that a file belongs to.
private func target(of file: SourceFile) -> String {
  file.path.hasPrefix("include/") ? "CDMACore" : String(file.path.split(separator: "/")[1])
}

private func importViolations(in file: SourceFile) -> [Violation] {
  guard let own = layer(of: target(of: file)) else {
    return [Violation(file, "the target is in no layer")]
  }
  return file.codeLines.enumerated().compactMap { number, line -> Violation? in
    let words = line.identifiers
    guard let keyword = words.firstIndex(of: "import"), keyword + 1 < words.count else {
      return nil
    }
    // `import struct A.B` names its module second.
    let kinds = ["struct", "enum", "protocol", "func", "var", "let", "typealias"]
    let module = words[(keyword + 1)...].first { !kinds.contains($0) } ?? ""
    if systemModules.contains(module) { return nil }
    if let imported = layer(of: module), imported < own { return nil }
    return Violation(file, line: number + 1, "\(target(of: file)) may not import \(module)")
  }
}

/// A libc or Linux header belongs into CPlatform. What the language itself provides may be anywhere.
private func includeViolations(in file: SourceFile) -> [Violation] {
  let language = ["stdbool.h", "stddef.h", "stdint.h"]
  return file.lines.enumerated().compactMap { number, line -> Violation? in
    guard line.hasPrefix("#include <"), target(of: file) != "CPlatform" else { return nil }
    let header = line.dropFirst("#include <".count).prefix { $0 != ">" }
    if language.contains(String(header)) { return nil }
    return Violation(file, line: number + 1, "CPlatform alone includes <\(header)>")
  }
}

@Suite("Layers")
struct LayerTests {
  private func imports(_ path: String, _ text: String) -> Int {
    importViolations(in: SourceFile(path: path, text: text)).count
  }

  private func includes(_ path: String, _ text: String) -> Int {
    includeViolations(in: SourceFile(path: path, text: text)).count
  }

  @Test func aLowerLayerMayBeImported() {
    #expect(imports("Sources/Domains/A.swift", "import PageTables\npublic import Primitives") == 0)
    #expect(imports("Sources/Primitives/A.swift", "import Synchronization") == 0)
  }

  @Test func theSameLayerMayNotBeImported() {
    #expect(imports("Sources/Mapping/A.swift", "import Translation") == 1)
  }

  @Test func aHigherLayerMayNotBeImported() {
    #expect(imports("Sources/Primitives/A.swift", "@testable import struct Domains.Domain") == 1)
  }

  @Test func anUnknownModuleMayNotBeImported() {
    #expect(imports("Sources/CExports/A.swift", "import Glibc") == 1)
  }

  @Test func aTargetWithoutALayerIsRefused() {
    #expect(imports("Sources/Helpers/A.swift", "") == 1)
  }

  @Test func libcIsIncludedByThePlatformAlone() {
    #expect(includes("Sources/CPlatform/include/CPlatform.h", "#include <stdlib.h>") == 0)
    #expect(includes("include/dmacore/types.h", "#include <stdlib.h>") == 1)
    #expect(includes("Sources/Domains/domains.c", "#include <pthread.h>") == 1)
  }

  @Test func headersOfTheLanguageMayBeIncluded() {
    #expect(includes("include/dmacore/types.h", "#include <stdint.h>\n#include \"view.h\"") == 0)
  }

  @Test func theProjectKeepsItsLayers() throws {
    expectNone(try Project.files(under: "Sources", ".swift").flatMap(importViolations))
    expectNone(try Project.files(under: "Sources", ".h", ".c").flatMap(includeViolations))
    expectNone(try Project.files(under: "include", ".h").flatMap(includeViolations))
  }
}
