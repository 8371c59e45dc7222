// SPDX-License-Identifier: MIT OR Apache-2.0

/// A public header, read for its functions and their comments.
struct CHeader {
  struct Function {
    let name: String
    let parameters: [String]
  }

  let file: SourceFile
  let functions: [Function]
  /// Those that are defined in the header, so that no library has them.
  let inlines: [String]

  /// The `/** … */` comments, without their frame.
  let comments: [String]

  init(_ file: SourceFile) {
    self.file = file
    // A line that ends with a backslash goes on.
    let declarations = file.code.replacing("\\\n", with: " ").split(separator: "\n")
      .filter { !$0.hasPrefix("#") }.joined(separator: "\n")
    functions = declarations.matches(of: /\b(dmacore_[a-z0-9_]+)\(([^)]*)\)/).map { match in
      let parameters = match.2.split(separator: ",").compactMap { $0.identifiers.last }
      return Function(name: String(match.1), parameters: parameters.filter { $0 != "void" })
    }
    inlines = declarations.matches(
      of: /static inline [a-z_ \n*]*\b(dmacore_[a-z0-9_]+)\(/
    ).map { String($0.1) }
    comments = file.text.matches(of: /(?s)\/\*\*\n(.*?)\n \*\//).map { match in
      match.1.split(separator: "\n", omittingEmptySubsequences: false)
        .map { $0.dropFirst($0.hasPrefix(" * ") ? 3 : 2) }.joined(separator: "\n")
    }
  }

  static func all() throws -> [CHeader] {
    try Project.files(under: "include", ".h").map(CHeader.init)
  }
}
