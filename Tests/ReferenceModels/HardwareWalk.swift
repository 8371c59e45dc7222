// SPDX-License-Identifier: MIT OR Apache-2.0

/// A walk of VT-d second-stage tables as hardware does it: by physical addresses, from words alone.
///
/// Written from the specification's tables and apart from the library's codec, in its labels: the
/// lowest level is 1.
public struct HardwareWalk {
  public enum Outcome: Equatable, Sendable {
    case translated(UInt64, canRead: Bool, canWrite: Bool)
    case notPresent(level: Int)
    case reservedBit(level: Int)
    case noTable(UInt64)
  }

  private let root: UInt64
  private let levels: Int
  private let read: (UInt64) -> UInt64?

  /// - Parameter read: the word at a physical address, or nil where no memory is.
  public init(root: UInt64, levels: Int, read: @escaping (UInt64) -> UInt64?) {
    self.root = root
    self.levels = levels
    self.read = read
  }

  public func translate(_ address: UInt64) -> Outcome {
    var table = root
    var canRead = true
    var canWrite = true
    for level in stride(from: levels, through: 1, by: -1) {
      let pageBits = 12 + 9 * (level - 1)
      let index = (address >> pageBits) & 0x1FF
      let place = table + 8 * index
      guard let word = read(place) else { return .noTable(place) }
      guard word & 0b11 != 0 else { return .notPresent(level: level) }
      canRead = canRead && word & 0b01 != 0
      canWrite = canWrite && word & 0b10 != 0
      // Bits 51 down to 12 are an address; bits 63 down to 52 are ignored or not used here.
      let field = word & 0x000F_FFFF_FFFF_F000
      let isPageSize = word & (1 << 7) != 0
      if level == 1 || isPageSize {
        guard level <= 3 else { return .reservedBit(level: level) }
        let inside = (UInt64(1) << pageBits) - 1
        guard field & inside == 0 else { return .reservedBit(level: level) }
        return .translated(field | (address & inside), canRead: canRead, canWrite: canWrite)
      }
      table = field
    }
    return .notPresent(level: 1)
  }
}
