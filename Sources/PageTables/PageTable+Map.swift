// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CPlatform
import Primitives
import Synchronization

extension PageTable {
  /// Maps a range with the largest leaves that fit.
  ///
  /// - Throws: `invalidArgument` when something is not aligned or the access cannot be expressed,
  ///   `outOfRange` when a range is too wide for the table, `exists` when a part is mapped,
  ///   `noMemory`. Then every translation is as before.
  public func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access
  ) throws(Failure) {
    let granule = Format.granule
    guard input.isAligned(to: granule), output.isAligned(to: granule), Format.canExpress(access)
    else { throw .invalidArgument }
    guard input.last <= lastInput, output <= lastOutput,
      input.extent <= lastOutput.rawValue &- output.rawValue
    else { throw .outOfRange }
    let whole = Part(
      first: input.first.rawValue, last: input.last.rawValue, output: output.rawValue)

    let (page, level) = try narrowestTable(for: whole)
    guard !hasLeaf(in: page, level: level, whole) else { throw .exists }
    var spares = Spares()
    try prepare(page, level: level, whole, &spares)
    store(page, level: level, whole, access, &spares)
    mapped.wrappingAdd(input.extent &+ 1, ordering: .relaxed)
  }

  /// A part of a range being mapped that lies in one table or in one entry of it, and its output.
  ///
  /// Unchecked arithmetic on parts depends on the checks in `map`: neither side wraps.
  private struct Part {
    let first: UInt64
    let last: UInt64
    let output: UInt64

    /// The part of this one in the entry at `level` that `address` lies in.
    func entry(at address: UInt64, level: Int) -> Part {
      Part(
        first: address, last: min(last, address | Format.spanMask(at: level)),
        output: output &+ (address &- first))
    }

    /// Whether this part, of one entry at `level`, can be a leaf there.
    func fitsLeaf(at level: Int) -> Bool {
      let mask = Format.spanMask(at: level)
      return Format.hasLeaf(at: level) && (first | output) & mask == 0 && last == first | mask
    }
  }

  /// Nodes for the tables that leaves will replace, made before the first leaf is stored.
  ///
  /// Taken in the order in which they were added, because both passes go the same way.
  @safe
  private struct Spares: ~Copyable {
    private var first: UnsafeMutablePointer<Retired>?
    private var last: UnsafeMutablePointer<Retired>?

    init() {
      unsafe first = nil
      unsafe last = nil
    }

    deinit {
      var next = unsafe first
      while let current = unsafe next {
        unsafe next = current.pointee.next
        unsafe Box.destroy(current)
      }
    }

    mutating func add(_ page: TablePage, level: Int) throws(Failure) {
      let node = unsafe try Box<Retired>.place { () throws(Failure) in
        unsafe Retired(page: page, level: level, next: nil)
      }
      if let last = unsafe last {
        unsafe last.pointee.next = node
      } else {
        unsafe first = node
      }
      unsafe last = node
    }

    /// Takes the node for a table, or nil for a table that `add` was not told of.
    mutating func take(_ page: TablePage) -> UnsafeMutablePointer<Retired>? {
      guard let node = unsafe first, unsafe node.pointee.page.words == page.words else {
        return nil
      }
      unsafe first = node.pointee.next
      return unsafe node
    }
  }

  /// The lowest table that the whole part goes through, with those above it made where they are
  /// missing. The passes start there.
  private func narrowestTable(for part: Part) throws(Failure) -> (TablePage, level: Int) {
    var page = root
    var level = topLevel
    while level > 0, part.last <= part.first | Format.spanMask(at: level),
      !part.fitsLeaf(at: level)
    {
      let index = Format.index(of: part.first, at: level)
      let (found, child) = entry(of: page, at: index, level: level)
      if case .leaf = found { throw .exists }
      page = if let child { child } else { try table(below: page, at: index, level: level) }
      level &-= 1
    }
    return (page, level)
  }

  /// Whether anything in the part is mapped.
  private func hasLeaf(in page: TablePage, level: Int, _ part: Part) -> Bool {
    if level == 0 {
      for index in Self.lowestIndexes(part.first, part.last) {
        let word = unsafe cplatform_load_acquire(page.words + index)
        if case .leaf = Format.decode(word, at: 0) { return true }
      }
      return false
    }
    var address = part.first
    while true {
      let entryPart = part.entry(at: address, level: level)
      let (found, child) = entry(
        of: page, at: Format.index(of: address, at: level), level: level)
      if case .leaf = found { return true }
      if let child, hasLeaf(in: child, level: level - 1, entryPart) { return true }
      guard entryPart.last < part.last else { return false }
      address = entryPart.last &+ 1
    }
  }

  /// Makes every table that `store` will need, and a spare for each one that it will replace.
  private func prepare(
    _ page: TablePage, level: Int, _ part: Part, _ spares: inout Spares
  ) throws(Failure) {
    guard level > 0 else { return }
    var address = part.first
    while true {
      let entryPart = part.entry(at: address, level: level)
      let index = Format.index(of: address, at: level)
      if entryPart.fitsLeaf(at: level) {
        if let child = entry(of: page, at: index, level: level).1 {
          try spares.add(child, level: level - 1)
        }
      } else {
        let child = try table(below: page, at: index, level: level)
        try prepare(child, level: level - 1, entryPart, &spares)
      }
      guard entryPart.last < part.last else { return }
      address = entryPart.last &+ 1
    }
  }

  /// The table below an entry, put there first if there is none.
  private func table(
    below page: TablePage, at index: Int, level: Int
  ) throws(Failure) -> TablePage {
    while true {
      if let child = entry(of: page, at: index, level: level).1 { return child }
      let old = unsafe cplatform_load_relaxed(page.words + index)
      let made = try memory.allocate(level: level - 1)
      let word = Format.table(memory.physical(made))
      if let child = memory.install(made, below: page, at: index, word: word, replacing: old) {
        return child
      }
      // Another thread put a table there meanwhile.
      memory.free(made)
    }
  }

  /// Stores the leaves. Every table that is needed is there.
  private func store(
    _ page: TablePage, level: Int, _ part: Part, _ access: Access, _ spares: inout Spares
  ) {
    if level == 0 {
      var output = part.output
      for index in Self.lowestIndexes(part.first, part.last) {
        storeLeaf(in: page, at: index, level: 0, output, access)
        output &+= Format.granule.bytes
      }
      return
    }
    var address = part.first
    while true {
      let entryPart = part.entry(at: address, level: level)
      let index = Format.index(of: address, at: level)
      let child = entry(of: page, at: index, level: level).1
      if !entryPart.fitsLeaf(at: level) {
        if let child { store(child, level: level - 1, entryPart, access, &spares) }
      } else if let child {
        // Without a spare the table is that of an overlapping call, and stays.
        if let spare = unsafe spares.take(child) {
          memory.unlink(below: page, at: index)
          storeLeaf(in: page, at: index, level: level, entryPart.output, access)
          unsafe retire(spare)
        }
      } else {
        storeLeaf(in: page, at: index, level: level, entryPart.output, access)
      }
      guard entryPart.last < part.last else { return }
      address = entryPart.last &+ 1
    }
  }

  private func storeLeaf(
    in page: TablePage, at index: Int, level: Int, _ output: UInt64, _ access: Access
  ) {
    let word = Format.leaf(PhysicalAddress(output), access, at: level)
    // Release: pairs with the acquire in entry, so that a walker that finds the leaf finds the
    // memory as it was when it was mapped.
    unsafe cplatform_store_release(page.words + index, word)
  }
}
