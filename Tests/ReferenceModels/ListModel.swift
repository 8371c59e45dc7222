// SPDX-License-Identifier: MIT OR Apache-2.0

/// What becomes of a list on the direct path, entry by entry.
public enum ListModel {
  public struct Part: Equatable, Sendable {
    public var first: UInt64
    public var size: UInt64
    public var isMMIO: Bool

    public init(first: UInt64, size: UInt64, isMMIO: Bool) {
      self.first = first
      self.size = size
      self.isMMIO = isMMIO
    }
  }

  /// Whether a segment may be so.
  public static func fits(
    _ first: UInt64, _ size: UInt64, sizeMax: UInt64, boundary: UInt64
  ) -> Bool {
    size <= sizeMax && first & ~boundary == (first + size - 1) & ~boundary
  }

  /// - Parameter boundary: a power of two less one.
  public static func segments(
    of entries: [Part], sizeMax: UInt64, boundary: UInt64
  ) -> [Part] {
    var segments: [Part] = []
    for entry in entries {
      var rest = entry
      while rest.size > 0 {
        let toBoundary = boundary - (rest.first & boundary)
        // As much as reaches a boundary, or fits; what fits in whole is whole.
        var taken = rest.size
        if let last = segments.last, last.first + last.size == rest.first,
          !last.isMMIO, !rest.isMMIO
        {
          if fits(last.first, last.size + rest.size, sizeMax: sizeMax, boundary: boundary) {
            segments[segments.count - 1].size += rest.size
            break
          }
          if toBoundary < taken {
            taken = toBoundary + 1
            if fits(last.first, last.size + taken, sizeMax: sizeMax, boundary: boundary) {
              segments[segments.count - 1].size += taken
              rest.first += taken
              rest.size -= taken
              continue
            }
          }
        }
        taken = rest.size
        if toBoundary < taken { taken = toBoundary + 1 }
        if taken > sizeMax {
          taken = sizeMax >= 4096 ? sizeMax / 4096 * 4096 : 1
          while taken * 2 <= min(sizeMax, 4095) { taken *= 2 }
        }
        segments.append(Part(first: rest.first, size: taken, isMMIO: rest.isMMIO))
        rest.first += taken
        rest.size -= taken
      }
    }
    return segments
  }
}
