// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore

/// Where messages for people go. The levels are those of `types.h`.
@safe
public struct Reporter {
  public enum Level: UInt32 {
    case error = 0
    case warning = 1
  }

  private let callback: dmacore_report_fn?
  private let opaque: UnsafeMutableRawPointer?

  public init(callback: dmacore_report_fn?, opaque: UnsafeMutableRawPointer?) {
    unsafe self.callback = callback
    unsafe self.opaque = opaque
  }

  /// Hands over one sentence, which `write` composes. Called under no lock.
  @inline(__always)
  public func report(
    _ level: Level, _ failure: Failure?, object: UnsafePointer<CChar>,
    _ write: (inout TextBuffer) -> Void
  ) {
    ThreadRules.willCallBack()
    guard unsafe callback != nil else { return }
    var text = TextBuffer()
    write(&text)
    unsafe handOver(level, failure, object: object, text)
  }

  @inline(never)
  private func handOver(
    _ level: Level, _ failure: Failure?, object: UnsafePointer<CChar>, _ text: borrowing TextBuffer
  ) {
    unsafe text.withCString { text in
      var report = unsafe dmacore_report(
        struct_size: MemoryLayout<dmacore_report>.size, level: level.rawValue,
        error: failure?.code ?? 0, object: object, text: text)
      unsafe callback?(&report, opaque)
    }
  }

  /// Reports that an object was destroyed while others hold it.
  @inline(never)
  public func reportEarlyDestroy(object: UnsafePointer<CChar>) {
    unsafe report(.warning, .busy, object: object) { text in
      text.append("destroyed while other objects hold it; it ends with the last of them")
    }
  }
}
