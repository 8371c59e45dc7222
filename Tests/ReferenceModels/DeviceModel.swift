// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation

/// A device, what is mapped for it, and the memory behind it: every question is asked byte by byte.
public struct DeviceModel {
  /// Physical memory, by what it holds.
  public struct Region: Sendable {
    public let base: UInt64
    public let isReadOnly: Bool
    /// Whether it lies in the process: it can be handed out without a copy.
    public let isHost: Bool
    public var bytes: [UInt8]

    public init(base: UInt64, isReadOnly: Bool = false, isHost: Bool = true, size: Int) {
      self.base = base
      self.isReadOnly = isReadOnly
      self.isHost = isHost
      bytes = Array(repeating: 0, count: size)
    }

    func offset(of physical: UInt64) -> Int? {
      physical >= base && physical - base < UInt64(bytes.count) ? Int(physical - base) : nil
    }
  }

  public struct Mapping: Equatable {
    public let number: Int
    /// As the device and the driver know it.
    public let address: UInt64
    public let physical: UInt64
    public let size: UInt64
    public let access: UInt32
    /// nil for a coherent allocation.
    public let direction: UInt32?

    public var last: UInt64 { address + (size - 1) }
  }

  /// Where a byte lies.
  public struct Place: Equatable {
    public let region: Int
    public let offset: Int
    public let mapping: Int
  }

  /// Why a byte cannot be accessed. The raw values are those of `fault.h`.
  public enum Reason: UInt32, Error {
    case notMapped = 1
    case denied = 2
    case noMemory = 3

    public var code: Int32 {
      switch self {
      case .notMapped: ENOENT
      case .denied: EACCES
      case .noMemory: EFAULT
      }
    }
  }

  public struct Fault: Equatable {
    public let first: UInt64
    public let last: UInt64
    public let sequence: UInt64
    public let access: UInt32
    public let reason: UInt32

    public init(
      first: UInt64, last: UInt64, sequence: UInt64, access: UInt32, reason: UInt32
    ) {
      self.first = first
      self.last = last
      self.sequence = sequence
      self.access = access
      self.reason = reason
    }
  }

  // What is mapped, the device reaches by whole granules: bytes on the direct path, pages through an
  // IOMMU.
  private let granule: UInt64
  private let faultCapacity: Int
  public private(set) var regions: [Region]
  public private(set) var mappings: [Mapping] = []
  public private(set) var faults: [Fault] = []
  public private(set) var faultTotal: UInt64 = 0
  public private(set) var faultLost: UInt64 = 0
  private var nextNumber = 1

  public init(granule: UInt64, faultCapacity: Int, regions: [Region]) {
    self.granule = granule
    self.faultCapacity = faultCapacity
    self.regions = regions
  }

  // MARK: - Mappings

  public mutating func map(
    _ physical: UInt64, size: UInt64, access: UInt32, direction: UInt32?, at address: UInt64
  ) {
    mappings.append(
      Mapping(
        number: nextNumber, address: address, physical: physical, size: size, access: access,
        direction: direction))
    nextNumber += 1
  }

  /// Takes out the mapping that agrees with all of this, if there is one.
  public mutating func unmap(address: UInt64, size: UInt64, direction: UInt32?) -> Mapping? {
    guard
      let index = mappings.firstIndex(where: {
        $0.address == address && $0.size == size && $0.direction == direction
      })
    else { return nil }
    return mappings.remove(at: index)
  }

  /// The streaming mapping that a range lies in.
  public func mapping(around address: UInt64, size: UInt64, direction: UInt32) -> Mapping? {
    mappings.first {
      $0.direction == direction && address >= $0.address && size <= $0.size
        && address - $0.address <= $0.size - size
    }
  }

  /// The addresses by which a device reaches a mapping: granules around it.
  public func reach(of mapping: Mapping) -> ClosedRange<UInt64> {
    (mapping.address / granule * granule)...(mapping.last / granule * granule + (granule - 1))
  }

  /// The mapping that an address of the device leads through, and the physical address it leads to.
  public func translate(_ address: UInt64) -> (mapping: Mapping, physical: UInt64)? {
    guard let mapping = mappings.first(where: { reach(of: $0).contains(address) }) else {
      return nil
    }
    return (mapping, mapping.physical &+ (address &- mapping.address))
  }

  // MARK: - Accesses

  public func place(
    of address: UInt64, _ access: UInt32
  ) throws(Reason) -> Place {
    guard let (mapping, physical) = translate(address) else { throw .notMapped }
    guard access & ~mapping.access == 0 else { throw .denied }
    for (index, region) in regions.enumerated() {
      guard let offset = region.offset(of: physical) else { continue }
      guard !region.isReadOnly || access & 2 == 0 else { throw .denied }
      return Place(region: index, offset: offset, mapping: mapping.number)
    }
    throw .noMemory
  }

  /// Where each byte of an access lies.
  ///
  /// - Throws: the reason of the first byte that has none. It is a fault then.
  public mutating func places(
    of address: UInt64, count: Int, _ access: UInt32
  ) throws(Reason) -> [Place] {
    var places: [Place] = []
    for index in 0..<count {
      do throws(Reason) {
        places.append(try place(of: address + UInt64(index), access))
      } catch {
        record(error, from: address + UInt64(index), to: address + UInt64(count - 1), access)
        throw error
      }
    }
    return places
  }

  /// Records a fault of all bytes in a row that are refused for one reason.
  private mutating func record(
    _ reason: Reason, from first: UInt64, to end: UInt64, _ access: UInt32
  ) {
    var last = first
    while last < end, reasonToRefuse(last + 1, access) == reason { last += 1 }
    if faults.count < faultCapacity {
      faults.append(
        Fault(
          first: first, last: last, sequence: faultTotal, access: access, reason: reason.rawValue))
    } else {
      faultLost += 1
    }
    faultTotal += 1
  }

  private func reasonToRefuse(_ address: UInt64, _ access: UInt32) -> Reason? {
    do throws(Reason) {
      _ = try place(of: address, access)
      return nil
    } catch {
      return error
    }
  }

  public mutating func takeFaults(_ countMax: Int) -> [Fault] {
    let taken = Array(faults.prefix(countMax))
    faults.removeFirst(taken.count)
    return taken
  }

  // MARK: - Memory

  public subscript(place: Place) -> UInt8 {
    get { regions[place.region].bytes[place.offset] }
    set { regions[place.region].bytes[place.offset] = newValue }
  }

  /// Bytes as the CPU writes them.
  public mutating func fill(_ physical: UInt64, count: Int, _ value: UInt8) {
    for index in regions.indices {
      for physical in physical..<physical + UInt64(count) {
        guard let offset = regions[index].offset(of: physical) else { continue }
        regions[index].bytes[offset] = value
      }
    }
  }
}
