// SPDX-License-Identifier: MIT OR Apache-2.0

/// What a domain knows of the writes of its devices, as sets of pages, each of which is a leaf.
public struct DirtyModel {
  private struct Pin {
    let pages: Range<Int>
    let isForWriting: Bool
  }

  public private(set) var mapped: Set<Int> = []
  private var written: Set<Int> = []
  private var pins: [Pin] = []
  private var isTracked = false

  public init() {}

  public var pinCount: Int { pins.count }

  /// Whether the page was free.
  public mutating func map(_ page: Int) -> Bool { mapped.insert(page).inserted }

  /// How many pages were mapped.
  public mutating func unmap(_ pages: Range<Int>) -> Int {
    written.subtract(pages)
    let count = mapped.intersection(pages).count
    mapped.subtract(pages)
    return count
  }

  /// Whether all of the pages are mapped.
  public mutating func write(_ pages: Range<Int>) -> Bool {
    guard mapped.isSuperset(of: pages) else { return false }
    if isTracked { written.formUnion(pages) }
    return true
  }

  public mutating func pin(_ pages: Range<Int>, isForWriting: Bool) -> Bool {
    guard mapped.isSuperset(of: pages) else { return false }
    pins.append(Pin(pages: pages, isForWriting: isForWriting))
    return true
  }

  public mutating func unpin(_ index: Int) {
    let pin = pins.remove(at: index)
    if isTracked && pin.isForWriting { written.formUnion(mapped.intersection(pin.pages)) }
  }

  public mutating func track(_ isOn: Bool) {
    if isOn && !isTracked { written = [] }
    isTracked = isOn
  }

  public mutating func read(_ pages: Range<Int>, clearing: Bool) -> Set<Int> {
    var found = written.intersection(pages)
    for pin in pins where pin.isForWriting { found.formUnion(Set(pin.pages).intersection(pages)) }
    if clearing { written.subtract(pages) }
    return found
  }
}
