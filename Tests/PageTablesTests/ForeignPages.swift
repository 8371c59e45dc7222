// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives
import TestSupport

@testable import PageTables

/// Physical memory that a test fills with words, and the reads of it.
final class ForeignMemory {
  private let content: (UInt64) -> UInt64?
  /// The addresses that were read, in order.
  private(set) var reads: [UInt64] = []
  /// What reads where there is no memory give.
  var error: Int32 = -5

  /// - Parameter content: the word at an address, nil where there is no memory.
  init(_ content: @escaping (UInt64) -> UInt64?) { self.content = content }

  /// Memory of these words; all others are 0.
  convenience init(_ words: [UInt64: UInt64]) { self.init { words[$0] ?? 0 } }

  func table(
    _ kind: PageTableKind, granule: UInt64 = 0, _ options: PageTableOptions = PageTableOptions(),
    root: UInt64
  ) throws(Failure) -> ForeignTable {
    try ForeignTable(
      kind: kind, granule: granule, options: options, root: PhysicalAddress(root),
      read: { address, out, opaque in
        let memory = Unmanaged<ForeignMemory>.fromOpaque(opaque!).takeUnretainedValue()
        memory.reads.append(address)
        guard let word = memory.content(address) else { return memory.error }
        out!.pointee = word.littleEndian
        return 0
      },
      opaque: Unmanaged.passUnretained(self).toOpaque())
  }
}

/// What came of a walk. Which other addresses end alike is for other tests.
enum WalkOutcome: Equatable, CustomStringConvertible {
  case leaf(UInt64, UInt64, to: UInt64, Access)
  case fault(WalkFault)

  init(_ walk: TableWalk, _ input: UInt64, for wanted: Access = []) {
    do throws(WalkFault) {
      let found = try walk.translate(IOVA(input), for: wanted)
      self = .leaf(found.first, found.last, to: found.target, found.access)
    } catch {
      var fault = error
      (fault.first, fault.last) = (0, UInt64.max)
      self = .fault(fault)
    }
  }

  static func fault(
    _ reason: WalkFault.Reason, _ input: UInt64, level: Int, word: UInt64
  ) -> WalkOutcome {
    .fault(WalkFault(reason, input: input, level: level, word: PhysicalAddress(word)))
  }

  var description: String {
    switch self {
    case .leaf(let first, let last, let target, let access):
      "\(hex(first))...\(hex(last)) -> \(hex(target)), access \(access.rawValue)"
    case .fault(let fault): "\(fault)"
    }
  }
}
