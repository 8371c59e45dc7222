// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation

/// The regions of a machine as an array that every question scans.
public struct MemoryMapModel: Sendable {
  public struct Region: Equatable, Sendable {
    public let base: UInt64
    public let size: UInt64
    /// Where it lies in the process, unless callbacks back it.
    public let host: UInt64?

    public init(base: UInt64, size: UInt64, host: UInt64?) {
      self.base = base
      self.size = size
      self.host = host
    }

    fileprivate func holdsPhysical(_ first: UInt128, _ end: UInt128) -> Bool {
      first >= UInt128(base) && end <= UInt128(base) + UInt128(size)
    }
  }

  public private(set) var regions: [Region] = []

  public init() {}

  public mutating func add(_ region: Region) throws(Refusal) {
    for other in regions {
      if Self.overlap(region.base, other.base, region.size, other.size) { throw .exists }
      if let host = region.host, let otherHost = other.host,
        Self.overlap(host, otherHost, region.size, other.size)
      {
        throw .exists
      }
    }
    regions.append(region)
  }

  public mutating func remove(base: UInt64, size: UInt64) throws(Refusal) {
    guard let index = regions.firstIndex(where: { $0.base == base && $0.size == size }) else {
      throw .notFound
    }
    regions.remove(at: index)
  }

  public func region(at physical: UInt64) -> Region? {
    regions.first { $0.holdsPhysical(UInt128(physical), UInt128(physical) + 1) }
  }

  /// The last address of the hole that an address lies in.
  public func holeLast(at physical: UInt64) -> UInt64 {
    regions.map(\.base).filter { $0 > physical }.min().map { $0 - 1 } ?? UInt64.max
  }

  public func host(of physical: UInt64, size: UInt64) throws(Refusal) -> UInt64 {
    let (first, end) = (UInt128(physical), UInt128(physical) + UInt128(size))
    guard let region = regions.first(where: { $0.holdsPhysical(first, end) }) else {
      throw Refusal(code: EFAULT)
    }
    guard let host = region.host else { throw .notSupported }
    return host + (physical - region.base)
  }

  public func physical(of host: UInt64, size: UInt64) throws(Refusal) -> UInt64 {
    let (first, end) = (UInt128(host), UInt128(host) + UInt128(size))
    for region in regions {
      guard let start = region.host else { continue }
      if first >= UInt128(start), end <= UInt128(start) + UInt128(region.size) {
        return region.base + (host - start)
      }
    }
    throw Refusal(code: EFAULT)
  }

  private static func overlap(_ a: UInt64, _ b: UInt64, _ aSize: UInt64, _ bSize: UInt64) -> Bool {
    UInt128(a) < UInt128(b) + UInt128(bSize) && UInt128(b) < UInt128(a) + UInt128(aSize)
  }
}
