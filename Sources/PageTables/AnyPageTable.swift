// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

/// What a page table is made from.
@safe
public struct PageTableConfiguration {
  let kind: PageTableKind
  let options: PageTableOptions
  let allocator: dmacore_table_allocator?
  public let capabilities: PageTableCapabilities

  /// - Parameter granule: the size of the smallest leaf, for formats that have several; 0 for 4 KiB.
  /// - Throws: `invalidArgument` for a table that the format does not have, `notSupported` for a feature
  ///   that it does not have, `noMemory`.
  public init(
    kind: PageTableKind, granule: UInt64 = 0, options: PageTableOptions = PageTableOptions(),
    allocator: dmacore_table_allocator?
  ) throws(Failure) {
    // Then the heap, whose addresses have up to 48 bits, has no page that the table could have.
    guard unsafe allocator != nil || options.outputBits == 0 || options.outputBits >= 48 else {
      throw .invalidArgument
    }
    self.kind = kind
    self.options = try options.of(kind, granule: granule)
    unsafe self.allocator = allocator
    capabilities = try AnyFormat.with(kind, self.options) { PageTableCapabilities($0) }
  }

  func format() throws(Failure) -> AnyFormat { try AnyFormat(kind, options) }
}

/// What tables can do that are made from one configuration.
public struct PageTableCapabilities: Sendable {
  /// A bit for each size of a leaf, which is a power of two.
  public let leafSizes: UInt64
  public let granule: Granule
  /// The highest address that can be mapped, of those that are not negative.
  public let lastInput: UInt64
  public let lastOutput: UInt64
  public let isSigned: Bool
  public let notesDirty: Bool
  /// All that a leaf can be asked to permit, by itself or beside something else.
  public let access: Access

  @_optimize(size)
  init(_ format: AnyFormat) {
    let geometry = format.geometry
    // A leaf is not larger than what it maps, or leads to.
    let largest = min(geometry.lastLowInput, geometry.outputMask)
    var sizes: UInt64 = 0
    for level in 0..<geometry.levelsMax {
      let orders = UInt64(format.leafOrders(at: level))
      for order in 0..<32 where orders &>> UInt64(order) & 1 != 0 {
        let mask = format.runMask(at: level, order: order)
        if mask <= largest { sizes |= mask &+ 1 }
      }
    }
    var access: Access = []
    for bits in 1...Access.all.rawValue where format.canExpress(Access(rawValue: bits)) {
      access.formUnion(Access(rawValue: bits))
    }
    leafSizes = sizes
    granule = format.granule
    lastInput = geometry.lastLowInput
    lastOutput = geometry.outputMask
    isSigned = geometry.isSigned
    notesDirty = format.notesDirty
    self.access = access
  }
}

/// A page table whose format was chosen at run time.
@safe
public struct AnyPageTable: ~Copyable, @unchecked Sendable {
  /// What does most of what C mostly asks for: it says whether it is done. Otherwise nothing has changed,
  /// and the functions below are to be called.
  public let plain: PlainTable
  // Not in place: other modules can't end a value of a generic type.
  let table: UnsafeMutablePointer<PageTable<AnyFormat>>
  private let format: AnyFormat
  let kind: PageTableKind

  /// - Parameter hasTags: whether its smallest leaves have tags, if its pages are of the heap.
  public init(_ configuration: PageTableConfiguration, hasTags: Bool = false) throws(Failure) {
    let format = try configuration.format()
    do throws(Failure) {
      unsafe table = try Box<PageTable<AnyFormat>>.place { () throws(Failure) in
        try unsafe PageTable(format, allocator: configuration.allocator, hasTags: hasTags)
      }
    } catch {
      format.destroy()
      throw error
    }
    unsafe plain = table.pointee.plain
    self.format = format
    kind = configuration.kind
  }

  @inline(never)
  deinit {
    unsafe Box.destroy(table)
    format.destroy()
  }

  var inputBits: UInt32 { UInt32(truncatingIfNeeded: unsafe table.pointee.geometry.inputBits) }
  var outputBits: UInt32 { UInt32(truncatingIfNeeded: unsafe table.pointee.geometry.outputBits) }
  public var notesDirty: Bool { format.notesDirty }

  public var facts: PageTableFacts { unsafe table.pointee.facts }

  public var statistics: PageTableStatistics { unsafe table.pointee.statistics }

  @inline(never)
  public func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access, isKnownFree: Bool = false
  ) throws(Failure) {
    try unsafe table.pointee.map(input, to: output, access: access, isKnownFree: isKnownFree)
  }

  /// What a leaf can permit that permits this: the same, or reading as well, which some formats can't
  /// forbid; and without what the format cannot say of privilege and registers.
  @inline(never)
  public func expressible(_ access: Access) -> Access {
    let format = unsafe table.pointee.format
    if format.canExpress(access) { return access }
    var known = access.intersection([.read, .write, .execute])
    if !format.canExpress(known) { known.insert(.read) }
    if access.contains(.mmio), format.canExpress(known.union(.mmio)) { known.insert(.mmio) }
    if access.contains(.privileged), format.canExpress(known.union(.privileged)) {
      known.insert(.privileged)
    }
    return known
  }

  @inline(never)
  public func reserve(_ input: IOVARange) throws(Failure) {
    try unsafe table.pointee.reserve(input)
  }

  public func unmap(
    _ input: IOVARange, crossingHoles: Bool, splitting: Bool = false
  ) throws(Failure) -> UInt64 {
    try unsafe table.pointee.unmap(input, crossingHoles: crossingHoles, splitting: splitting)
  }

  public func trim(_ input: IOVARange) throws(Failure) { try unsafe table.pointee.trim(input) }

  public func lookUp(_ input: IOVA) -> PageTableLookup { unsafe table.pointee.lookUp(input) }

  /// As `lookUp`, as the second stage of other tables: formats that know no fetches take them for reads.
  func lookUpAsSecond(_ input: UInt64) -> PageTableLookup {
    let found = lookUp(IOVA(input))
    guard found.access.contains(.read), !format.canExpress([.read, .write, .execute]) else {
      return found
    }
    return PageTableLookup(
      first: found.first, last: found.last, target: found.target,
      access: found.access.union(.execute))
  }

  /// Whether leaves of the format say if they are cacheable.
  var saysCacheable: Bool { format.canExpress([.read, .write, .cacheable]) }

  /// Sets a bit for each granule of a range that was written through: the lowest of the first word is for
  /// the first granule. There are as many bits as there are granules.
  ///
  /// - Parameter clearing: whether they count as not written through from here on.
  public func readDirty(
    _ input: IOVARange, into bitmap: UnsafeMutablePointer<UInt64>, clearing: Bool
  ) throws(Failure) {
    let start = input.first.rawValue
    try unsafe table.pointee.forEachDirty(input, clearing: clearing) { first, last in
      unsafe mark(first &- start, last &- start, in: bitmap)
    }
  }

  /// Sets the bits of granules, by offsets from where the bitmap starts.
  public func mark(_ first: UInt64, _ last: UInt64, in bitmap: UnsafeMutablePointer<UInt64>) {
    let shift = unsafe UInt64(truncatingIfNeeded: table.pointee.granule.shift)
    for granule in first &>> shift...last &>> shift {
      unsafe bitmap[Int(truncatingIfNeeded: granule &>> 6)] |= 1 &<< (granule & 63)
    }
  }

  /// - Throws: `invalidArgument`, `outOfRange`, for a range that the table cannot have.
  public func check(_ input: IOVARange) throws(Failure) {
    guard unsafe input.isAligned(to: table.pointee.granule) else { throw .invalidArgument }
    _ = try unsafe table.pointee.offsets(of: input)
  }

  public func setDirty(_ input: IOVARange, _ isDirty: Bool) throws(Failure) {
    try unsafe table.pointee.setDirty(input, isDirty)
  }

  public func clearDirty() throws(Failure) { try unsafe table.pointee.clearDirty() }

  /// How many tables wait for `reclaim`.
  public var retiredTables: UInt64 { unsafe table.pointee.retiredTables }

  /// Frees the tables that nothing leads to any more.
  ///
  /// - Parameter wait: returns when every walk that began before it was called has ended.
  public func reclaim(after wait: () -> Void) { unsafe table.pointee.reclaim(after: wait) }
}
