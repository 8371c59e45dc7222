// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// Where the name of each public function has to be.
private struct SymbolTable {
  /// Declared in include/.
  var headers: Set<String>
  /// Listed in exports.map.
  var exports: Set<String>
  /// Used by a test in ctests/test_*.c.
  var ctests: Set<String>
  /// Named in CHANGELOG.md.
  var changelog: Set<String>

  var violations: [String] {
    let known = headers.union(exports).union(ctests)
    return known.sorted().flatMap { name in
      [
        headers.contains(name) ? nil : "\(name) is declared in no header",
        exports.contains(name) ? nil : "\(name) is not in exports.map",
        ctests.contains(name) ? nil : "\(name) is in no ctests/test_*.c",
        changelog.contains(name) ? nil : "\(name) is not in CHANGELOG.md",
      ].compactMap { $0 }
    }
  }
}

/// The functions that a version script exports.
private func exports(in script: String) -> [String] {
  script.matches(of: /(?m)^\t(dmacore_[a-z0-9_]+);$/).map { String($0.1) }
}

/// The functions of ours that C code calls or takes the address of.
private func uses(in file: SourceFile, of functions: Set<String>) -> Set<String> {
  functions.intersection(file.code.identifiers)
}

@Suite("Symbols")
struct SymbolTests {
  private let complete = SymbolTable(
    headers: ["dmacore_a"], exports: ["dmacore_a"], ctests: ["dmacore_a"],
    changelog: ["dmacore_a"])

  @Test func aFunctionThatIsEverywhereIsAccepted() {
    #expect(complete.violations.isEmpty)
  }

  @Test(arguments: [\SymbolTable.headers, \.exports, \.ctests, \.changelog])
  private func aFunctionThatIsMissingSomewhereIsRefused(
    _ place: WritableKeyPath<SymbolTable, Set<String>> & Sendable
  ) {
    var table = complete
    table[keyPath: place] = []
    #expect(table.violations.count == 1)
  }

  @Test func exportsAreTheLinesOfTheScript() {
    #expect(
      exports(in: "DMACORE_0.1 {\nglobal:\n\tdmacore_a;\n\tdmacore_b;\nlocal:\n\t*;\n};\n")
        == ["dmacore_a", "dmacore_b"])
  }

  @Test func aUseIsCodeAndNotAComment() {
    let file = SourceFile(path: "ctests/a.c", text: "/* dmacore_a() */ dmacore_b(0); dmacore_ac();")
    #expect(uses(in: file, of: ["dmacore_a", "dmacore_b"]) == ["dmacore_b"])
  }

  @Test func everyFunctionIsEverywhere() throws {
    let all = try CHeader.all()
    let headers = all.flatMap { $0.functions.map(\.name) }
    let exported = exports(in: try Project.file("exports.map").text)
    #expect(Set(headers).count == headers.count, "a function is declared twice")
    #expect(exported == exported.sorted(), "exports.map is not sorted")
    let names = Set(headers).union(exported)
    let table = SymbolTable(
      headers: Set(headers),
      exports: Set(exported).union(all.flatMap(\.inlines)),
      ctests: try Project.files(under: "ctests", ".c")
        .filter { $0.path.hasPrefix("ctests/test_") }
        .reduce(into: []) { $0.formUnion(uses(in: $1, of: names)) },
      changelog: Set(try Project.file("CHANGELOG.md").text.identifiers))
    #expect(!names.isEmpty)
    expectNone(table.violations)
  }

  /// Who comes from Linux looks names up there.
  @Test func theTableOfLinuxCallsNamesWhatThereIs() throws {
    let headers = try Project.files(under: "include", ".h").reduce(into: Set<String>()) {
      $0.formUnion($1.text.identifiers)
    }
    let named = Set(try Project.file("docs/LINUX.md").text.identifiers)
      .filter { $0.lowercased().hasPrefix("dmacore_") }
    #expect(named.count > 50)
    expectNone(named.subtracting(headers).sorted())
  }

  @Test func everyHeaderIsIncludedByTheOneForAllAndByTheModule() throws {
    let all = try Project.file("include/dmacore.h").text
    let module = try Project.file("include/module.modulemap").text
    for header in try Project.files(under: "include/dmacore", ".h") {
      let path = header.path.dropFirst("include/".count)
      #expect(all.contains("#include \"\(path)\"\n"), "dmacore.h includes \(path)")
      #expect(module.contains("header \"\(path)\"\n"), "module.modulemap names \(path)")
    }
  }
}
