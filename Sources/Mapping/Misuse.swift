// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import Primitives

extension Direction {
  fileprivate var words: StaticString {
    switch self {
    case .bidirectional: "in both directions"
    case .toDevice: "to the device"
    case .fromDevice: "from the device"
    }
  }
}

extension TextBuffer {
  fileprivate mutating func append(_ attributes: MappingAttributes) {
    let attributes = attributes.subtracting(.marks)
    guard !attributes.isEmpty else { return }
    append(" with attributes ")
    append(hexadecimal: UInt64(attributes.rawValue))
  }

  /// Appends how long a range is, and where.
  @inline(never)
  mutating func append(_ first: UInt64, _ last: UInt64) {
    append(decimal: last &- first &+ 1)
    append(" bytes at ")
    append(hexadecimal: first)
  }
}

extension TextBuffer {
  // Apart, so that nothing is asked of a mapping before it is known that there is one.
  @inline(never)
  fileprivate mutating func appendKind(
    _ kind: MappingRecord.Kind, _ attributes: MappingAttributes
  ) {
    if kind == .coherent {
      append(": coherent memory of ")
    } else if attributes.contains(.transfer) {
      append(": a transfer or segment of ")
    } else if attributes.contains(.list) {
      append(": a list or segment of ")
    } else if attributes.contains(.reservation) {
      append(": a reserved range of ")
    } else {
      append(": a mapping of ")
    }
  }
}

extension Device {
  /// Reports a call that names no mapping of the device, and what is mapped there instead.
  @inline(never)
  func reportMisuse(
    _ call: StaticString, of range: DMARange, _ direction: Direction?,
    _ attributes: MappingAttributes = []
  ) {
    let found = mappings.describe(range.first.rawValue)
    unsafe system.pointee.reporter.report(.error, .invalidArgument, object: name) { text in
      text.append(call)
      text.append(" of ")
      text.append(range.first.rawValue, range.last.rawValue)
      if let direction {
        text.append(" ")
        text.append(direction.words)
        text.append(attributes)
      }
      guard let found else {
        text.append(": nothing is mapped there")
        return
      }
      text.appendKind(found.record.kind, found.record.attributes)
      text.append(found.first, found.last)
      if found.record.kind == .streaming {
        text.append(" ")
        text.append(found.record.direction.words)
        text.append(found.record.attributes)
      }
      text.append(" is there")
    }
  }

  /// Reports what is wrong with a transfer.
  @inline(never)
  func reportMisuse(_ what: StaticString) {
    unsafe system.pointee.reporter.report(.error, .invalidArgument, object: name) { text in
      text.append(what)
    }
  }

  /// Reports a mapping call of a device whose domain is not for those.
  @inline(never)
  func reportRefusal() {
    unsafe system.pointee.reporter.report(.error, .notPermitted, object: name) { text in
      text.append("a mapping call is refused: the device is attached to a domain ")
      text.append("in which its owner maps by itself")
    }
  }

  /// Reports that a mapping ended which a zero-copy mapping still holds.
  @inline(never)
  func reportHeld(_ range: DMARange) {
    unsafe system.pointee.reporter.report(.warning, .busy, object: name) { text in
      text.append("unmap of ")
      text.append(range.first.rawValue, range.last.rawValue)
      text.append(": a zero-copy mapping of the device still holds a part")
    }
  }

  /// Reports that neither other memory nor the old could be mapped.
  @inline(never)
  func reportUnreplaced(_ failure: Failure) {
    unsafe system.pointee.reporter.report(.warning, failure, object: name) { text in
      text.append("replacing: the old memory cannot be mapped again")
    }
  }

  /// Reports that what a device wrote was not copied back, because a callback failed.
  @inline(never)
  func reportLoss(_ failure: Failure) {
    unsafe system.pointee.reporter.report(.warning, failure, object: name) { text in
      text.append("unmap: what the device wrote cannot be copied back")
    }
  }
}
