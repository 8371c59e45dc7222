// SPDX-License-Identifier: MIT OR Apache-2.0

import Testing

/// Each function has one comment of five parts: what it does, its parameters, and the paragraphs
/// that say when it may be called, who owns what, and what it returns.
private func commentViolations(in header: CHeader) -> [Violation] {
  var violations: [Violation] = []
  for function in header.functions {
    func refuse(_ message: String) {
      violations.append(Violation(header.file, "\(function.name)(): \(message)"))
    }

    let own = header.comments.filter { $0.hasPrefix("\(function.name)() - ") }
    guard own.count == 1, let lines = own.first?.split(separator: "\n") else {
      refuse("\(own.count) comments start with its name and a dash, not one")
      continue
    }
    let described = lines.filter { $0.hasPrefix("@") }.compactMap { $0.identifiers.first }
    if described != function.parameters {
      refuse("the comment describes \(described), and the parameters are \(function.parameters)")
    }
    let parts = ["Context: ", "Ownership: ", "Return: "]
    let found = lines.compactMap { line in parts.first { line.hasPrefix($0) } }
    if found != parts {
      refuse("the comment has \(found), not \(parts)")
    }
  }
  let names = header.functions.map(\.name)
  for comment in header.comments {
    guard let named = comment.prefixMatch(of: #/(dmacore_[a-z0-9_]+)\(\) - /#) else { continue }
    if !names.contains(String(named.1)) {
      violations.append(Violation(header.file, "a comment is about \(named.1)(), not declared"))
    }
  }
  return violations
}

@Suite("Comments of header functions")
struct HeaderCommentTests {
  private func violations(_ text: String) -> Int {
    commentViolations(in: CHeader(SourceFile(path: "include/dmacore/a.h", text: text))).count
  }

  private let good = """
    /**
     * dmacore_a_take() - take it
     * @a: the thing
     * @out_b: receives what was taken,
     *   as it is
     *
     * Takes it.
     *
     * Context: any thread.
     * Ownership: nothing changes hands.
     * Return: 0, or
     *   -EINVAL  @a is NULL.
     */
    DMACORE_MUST_CHECK
    int dmacore_a_take(struct dmacore_a *a,
    \t\t   struct dmacore_b *out_b);
    """

  @Test func allFivePartsAreAccepted() {
    #expect(violations(good) == 0)
  }

  @Test(arguments: [
    " * dmacore_a_take() - take it\n",
    " * @a: the thing\n", " * @out_b: receives what was taken,\n",
    " * Context: any thread.\n", " * Ownership: nothing changes hands.\n", " * Return: 0, or\n",
  ])
  func aMissingPartIsRefused(_ part: String) throws {
    let line = try #require(good.firstRange(of: part))
    #expect(violations(good.replacingCharacters(in: line, with: "")) == 1)
  }

  @Test func aDescriptionOfNoParameterIsRefused() {
    #expect(violations(good.replacing(" * @a:", with: " * @c: none\n * @a:")) == 1)
  }

  @Test func partsInAnotherOrderAreRefused() {
    let swapped = good.replacing("Context:", with: "X").replacing("Ownership:", with: "Context:")
      .replacing("X", with: "Ownership:")
    #expect(violations(swapped) == 1)
  }

  @Test func aFunctionWithoutACommentIsRefused() {
    #expect(violations("void dmacore_b_destroy(struct dmacore_b *b);") == 1)
  }

  @Test func aCommentOnNoFunctionIsRefused() {
    #expect(violations(good.replacing("int dmacore_a_take", with: "int dmacore_a_steal")) == 2)
  }

  @Test func callbackTypesAndMacrosAreNoFunctions() {
    #expect(
      violations(
        """
        typedef int (*dmacore_a_fn)(void *opaque);
        #define DMACORE_A(a) \\
        \tdmacore_a_take(a)
        """) == 0)
  }

  @Test func everyFunctionHasAllParts() throws {
    let headers = try CHeader.all()
    #expect(headers.contains { !$0.functions.isEmpty })
    expectNone(headers.flatMap(commentViolations))
  }
}
