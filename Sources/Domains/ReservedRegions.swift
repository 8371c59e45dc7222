// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Primitives

/// A list of addresses that are not free to be mapped: of a device, of a group, or what a domain
/// honours.
///
/// It never changes once it is made. Sorted by address, and regions of one kind that overlap or adjoin
/// are one.
@safe
public struct ReservedRegions: ~Copyable {
  public typealias Region = dmacore_reserved_region

  /// The values are those of `reserved.h`.
  enum Kind: UInt32 {
    case direct = 1
    case relaxable = 2
    case never = 3
    case msi = 4
    case softwareMSI = 5
  }

  private let regions: UnsafeMutablePointer<Region>?
  private let capacity: Int
  public private(set) var count = 0

  /// An empty list with room for so many.
  ///
  /// - Throws: `noMemory`.
  init(capacity: Int) throws(Failure) {
    self.capacity = capacity
    guard capacity > 0 else {
      unsafe regions = nil
      return
    }
    // A system has not so many devices that this overflows.
    let raw = unsafe try RawMemory.allocate(
      capacity * MemoryLayout<Region>.stride, alignment: MemoryLayout<UInt64>.alignment)
    // SAFETY: the allocation is that long and holds nothing else.
    unsafe regions = raw.bindMemory(to: Region.self, capacity: capacity)
  }

  /// What C says of a device.
  ///
  /// - Throws: `invalidArgument` for a region that is none, or too many; `noMemory`.
  static func checked(
    _ given: UnsafePointer<Region>?, count: Int
  ) throws(Failure) -> ReservedRegions {
    guard
      unsafe count >= 0 && count <= Int(DMACORE_RESERVED_REGIONS_MAX)
        && (given != nil || count == 0)
    else { throw .invalidArgument }
    var regions = try ReservedRegions(capacity: count)
    for index in 0..<count {
      let region = unsafe given![index]
      let range = try DMARange(first: DMAAddress(region.first), last: DMAAddress(region.last))
      guard range.isAligned(to: Device.granule), Kind(rawValue: region.type) != nil,
        region.reserved == 0
      else { throw .invalidArgument }
      regions.append(region)
    }
    regions.merge()
    return regions
  }

  deinit { if let regions = unsafe regions { unsafe RawMemory.free(regions) } }

  /// - Precondition: there are more.
  public private(set) subscript(index: Int) -> Region {
    get { unsafe regions.unsafelyUnwrapped[index] }
    set { unsafe regions.unsafelyUnwrapped[index] = newValue }
  }

  var isFull: Bool { count == capacity }

  mutating func append(_ region: Region) {
    precondition(count < capacity, "There is no room.")
    unsafe (regions! + count).initialize(to: region)
    count &+= 1
  }

  /// Makes one of the regions that belong together, and brings all into order.
  @inline(never)
  mutating func merge() {
    sort(byKind: true)
    var kept = 0
    for index in 0..<count {
      let region = self[index]
      if kept > 0, self[kept - 1].type == region.type,
        region.first == 0 || self[kept - 1].last >= region.first &- 1
      {
        self[kept - 1].last = max(self[kept - 1].last, region.last)
      } else {
        self[kept] = region
        kept &+= 1
      }
    }
    count = kept
    sort(byKind: false)
  }

  /// By insertion: lists are short, and what is put together is mostly in order.
  ///
  /// - Parameter byKind: whether addresses decide between regions of one kind only; else kinds decide
  ///   between those of one address.
  @inline(never)
  private mutating func sort(byKind: Bool) {
    func key(_ region: Region) -> (UInt64, UInt64) {
      byKind ? (UInt64(region.type), region.first) : (region.first, UInt64(region.type))
    }
    for end in 0..<count {
      let region = self[end]
      var place = end
      while place > 0, key(region) < key(self[place - 1]) {
        self[place] = self[place - 1]
        place &-= 1
      }
      self[place] = region
    }
  }

  /// Copies as many as fit to C, and says how many there are.
  public func copy(
    to room: UnsafeMutableBufferPointer<Region>, count out: UnsafeMutablePointer<Int>
  ) {
    for index in 0..<min(count, room.count) { unsafe room[index] = self[index] }
    unsafe out.pointee = count
  }

  // MARK: - Questions

  /// A region of the device must be mapped 1:1 at all times.
  var direct: Region? {
    for index in 0..<count where self[index].type == Kind.direct.rawValue { return self[index] }
    return nil
  }

  /// Whether each region of the other list, but for relaxable ones if that is said, lies in one of this
  /// of the same kind.
  @inline(never)
  func cover(_ others: borrowing ReservedRegions, butRelaxable: Bool) -> Bool {
    for index in 0..<others.count {
      let other = others[index]
      if butRelaxable && other.type == Kind.relaxable.rawValue { continue }
      var isCovered = false
      for own in 0..<count {
        let region = self[own]
        isCovered =
          isCovered
          || (region.type == other.type && region.first <= other.first && region.last >= other.last)
      }
      guard isCovered else { return false }
    }
    return true
  }

  /// Whether a mapping of an owner's would reach into a region.
  func forbid(_ range: IOVARange) -> Bool {
    for index in 0..<count {
      let region = self[index]
      if region.type != Kind.relaxable.rawValue && region.first <= range.last.rawValue
        && region.last >= range.first.rawValue
      {
        return true
      }
    }
    return false
  }

  /// The first part of a region that starts at an address or above, and ends at another or below.
  ///
  /// - Parameter areMapped: whether regions count only that are mapped 1:1.
  @inline(never)
  func part(
    from lowest: UInt64, through highest: UInt64, areMapped: Bool = false
  ) -> (first: UInt64, last: UInt64)? {
    for index in 0..<count {
      let region = self[index]
      let isMapped =
        region.type == Kind.direct.rawValue || region.type == Kind.relaxable.rawValue
      if areMapped && !isMapped { continue }
      let first = max(lowest, region.first)
      let last = min(region.last, highest)
      if first <= last { return (first, last) }
    }
    return nil
  }
}
