// SPDX-License-Identifier: MIT OR Apache-2.0

import Glibc

/// The naive twin of the reserved regions of a group, page by page, by the words of `reserved.h`.
///
/// A page is known by its number; the last number stands for all pages from there on.
public struct ReservedModel {
  public enum Kind: UInt32, CaseIterable {
    case direct = 1
    case relaxable = 2
    case never = 3
    case msi = 4
    case softwareMSI = 5
  }

  public struct Region: Equatable, CustomStringConvertible {
    public let pages: ClosedRange<Int>
    public let kind: Kind

    public var description: String { "\(kind) \(pages)" }

    public init(_ pages: ClosedRange<Int>, _ kind: Kind) {
      self.pages = pages
      self.kind = kind
    }
  }

  /// What is reserved at each page.
  public struct Map: Equatable {
    private var kinds: [Int: Set<Kind>] = [:]

    public init(_ regions: [Region] = []) {
      for region in regions {
        for page in region.pages { kinds[page, default: []].insert(region.kind) }
      }
    }

    public subscript(page: Int) -> Set<Kind> { kinds[page] ?? [] }

    /// By address and then type, with regions of one type that belong together as one.
    public var listing: [Region] {
      var regions: [Region] = []
      for (page, found) in kinds.sorted(by: { $0.key < $1.key }) {
        for kind in found.sorted(by: { $0.rawValue < $1.rawValue })
        where !self[page - 1].contains(kind) {
          var last = page
          while self[last + 1].contains(kind) { last += 1 }
          regions.append(Region(page...last, kind))
        }
      }
      return regions
    }

    var hasDirect: Bool { kinds.values.contains { $0.contains(.direct) } }

    mutating func add(_ other: Map) { kinds.merge(other.kinds) { $0.union($1) } }

    /// Whether each page has what it has in the other map, and perhaps more.
    func covers(_ other: Map, but exception: Kind? = nil) -> Bool {
      other.kinds.allSatisfy { page, found in
        found.filter { $0 != exception }.isSubset(of: self[page])
      }
    }
  }

  public struct Domain {
    public enum Kind {
      case identity, dma, blocked, unmanaged
    }

    public let kind: Kind
    public let reserved: Map
    /// What an owner has mapped.
    public fileprivate(set) var mapped: Set<Int> = []

    /// Whether a device with these regions may be attached.
    func honours(_ map: Map) -> Bool {
      switch kind {
      case .identity: true
      case .dma: reserved.covers(map)
      case .blocked: !map.hasDirect
      case .unmanaged: !map.hasDirect && reserved.covers(map, but: .relaxable)
      }
    }

    /// Whether a page leads to where it is.
    public func mapsDirectly(_ page: Int) -> Bool {
      switch kind {
      case .identity: true
      case .dma: !reserved[page].isDisjoint(with: [.direct, .relaxable])
      case .blocked: false
      case .unmanaged: mapped.contains(page)
      }
    }
  }

  public private(set) var devices: [Int: Map] = [:]
  public private(set) var domains: [Int: Domain] = [:]
  /// What the group is in, what it goes back to, and what its PASID leads to.
  public private(set) var domain: Int?
  private var standard: Int?
  private var domainOfPASID: Int?
  public private(set) var isOwned = false
  private var nextDomain = 0
  // Of the page number that stands for many, which no page table has.
  private let lastPage: Int

  public init(lastPage: Int) { self.lastPage = lastPage }

  /// What is reserved for the devices of the group.
  public var reserved: Map { devices.values.reduce(into: Map()) { $0.add($1) } }

  private func suits(_ domain: Int) -> Bool {
    devices.values.allSatisfy { domains[domain]!.honours($0) }
  }

  // MARK: - Domains

  /// The number of the new domain, or why there is none.
  public mutating func makeDomain(_ kind: Domain.Kind, isForGroup: Bool) -> (Int, Int32) {
    let domain = Domain(kind: kind, reserved: isForGroup ? reserved : Map())
    if kind == .dma && domain.mapsDirectly(lastPage) { return (0, -ERANGE) }
    nextDomain += 1
    domains[nextDomain] = domain
    return (nextDomain, 0)
  }

  public mutating func map(_ pages: ClosedRange<Int>, in domain: Int) -> Int32 {
    let given = domains[domain]!
    if given.kind != .unmanaged { return -EOPNOTSUPP }
    if pages.contains(where: { !given.reserved[$0].subtracting([.relaxable]).isEmpty }) {
      return -EPERM
    }
    if !given.mapped.isDisjoint(with: pages) { return -EEXIST }
    domains[domain]!.mapped.formUnion(pages)
    return 0
  }

  public mutating func unmapAll(in domain: Int) -> Int32 {
    if domains[domain]!.kind != .unmanaged { return -EOPNOTSUPP }
    domains[domain]!.mapped = []
    return 0
  }

  // MARK: - Devices

  public mutating func add(_ device: Int, _ map: Map) -> Int32 {
    let all = [domain, standard, domainOfPASID].compactMap { $0 }
    guard all.allSatisfy({ domains[$0]!.honours(map) }), !(isOwned && map.hasDirect) else {
      return -EPERM
    }
    devices[device] = map
    return 0
  }

  public mutating func remove(_ device: Int) {
    devices[device] = nil
    if devices.isEmpty { (domain, standard, domainOfPASID, isOwned) = (nil, nil, nil, false) }
  }

  // MARK: - The default domain

  public mutating func attach(_ new: Int, replacing: Bool) -> Int32 {
    if isOwned || !suits(new) { return -EPERM }
    if standard != nil && !replacing { return -EBUSY }
    (domain, standard) = (new, new)
    return 0
  }

  public mutating func detach(_ old: Int) -> Int32 {
    if standard != old { return -EINVAL }
    if isOwned || reserved.hasDirect { return -EPERM }
    (domain, standard) = (nil, nil)
    return 0
  }

  public mutating func setDefault(_ kind: Domain.Kind) -> Int32 {
    if let standard, domains[standard]!.kind == kind { return 0 }
    if isOwned { return -EPERM }
    let (new, result) = makeDomain(kind, isForGroup: true)
    if result == 0 { (domain, standard) = (new, new) }
    return result
  }

  // MARK: - The owner

  public mutating func claim() -> Int32 {
    if reserved.hasDirect { return -EPERM }
    (domain, isOwned) = (nil, true)
    return 0
  }

  public mutating func release() -> Int32 {
    if !isOwned { return -EPERM }
    (domain, domainOfPASID, isOwned) = (standard, nil, false)
    return 0
  }

  public mutating func attachOwned(_ new: Int?) -> Int32 {
    if !isOwned { return -EPERM }
    if let new, new == standard || !suits(new) { return -EPERM }
    domain = new
    return 0
  }

  public mutating func attachPASID(_ new: Int) -> Int32 {
    guard isOwned, suits(new), [.unmanaged, .blocked].contains(domains[new]!.kind) else {
      return -EPERM
    }
    if domainOfPASID != nil { return -EBUSY }
    domainOfPASID = new
    return 0
  }

  public mutating func detachPASID() -> Int32 {
    if !isOwned { return -EPERM }
    domainOfPASID = nil
    return 0
  }
}
