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
  @inline(never)
  public func report(
    _ level: Level, _ failure: Failure?, object: UnsafePointer<CChar>,
    _ write: (inout TextBuffer) -> Void
  ) {
    ThreadRules.willCallBack()
    guard unsafe callback != nil else { return }
    TextBuffer.with { text in
      write(&text)
      unsafe handOver(level, failure?.code ?? 0, object: object, text.cString)
    }
  }

  @inline(never)
  private func handOver(
    _ level: Level, _ error: Int32, object: UnsafePointer<CChar>, _ text: UnsafePointer<CChar>
  ) {
    var report = unsafe dmacore_report(
      struct_size: MemoryLayout<dmacore_report>.size, level: level.rawValue, error: error,
      object: object, text: text)
    unsafe callback?(&report, opaque)
  }

  /// Reports that an object was destroyed while others hold it.
  public func reportEarlyDestroy(object: UnsafePointer<CChar>) {
    unsafe report(.warning, .busy, object: object) { text in
      text.append("destroyed while other objects hold it; it ends with the last of them")
    }
  }

  /// As above, for an object that has no name.
  public func reportEarlyDestroy(object: StaticString) {
    TextBuffer.with { name in
      name.append(object)
      unsafe reportEarlyDestroy(object: name.cString)
    }
  }
}
