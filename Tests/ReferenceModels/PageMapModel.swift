// SPDX-License-Identifier: MIT OR Apache-2.0

/// An address space as a dictionary of pages, by their numbers.
public struct PageMapModel: Equatable {
  /// Where a page leads, by number, and what is permitted there.
  public struct Page: Equatable {
    public let target: UInt64
    public let access: UInt32

    public init(target: UInt64, access: UInt32) {
      self.target = target
      self.access = access
    }
  }

  public private(set) var pages: [UInt64: Page] = [:]

  public init() {}

  /// Maps pages to pages, unless one is mapped.
  public mutating func map(_ first: UInt64, to target: UInt64, count: UInt64, _ access: UInt32)
    -> Bool
  {
    guard !(first..<first + count).contains(where: { pages[$0] != nil }) else { return false }
    for index in 0..<count {
      pages[first + index] = Page(target: target + index, access: access)
    }
    return true
  }

  /// Unmaps pages, up to the first hole if they are not to be crossed, and says which there were.
  public mutating func unmap(_ first: UInt64, count: UInt64, crossingHoles: Bool) -> [UInt64] {
    var gone: [UInt64] = []
    for page in first..<first + count {
      if pages.removeValue(forKey: page) != nil {
        gone.append(page)
      } else if !crossingHoles {
        break
      }
    }
    return gone
  }

  /// What lies in a range of pages.
  public func part(_ range: ClosedRange<UInt64>) -> PageMapModel {
    var part = PageMapModel()
    part.pages = pages.filter { range.contains($0.key) }
    return part
  }
}
