// SPDX-License-Identifier: MIT OR Apache-2.0

import Glibc

/// The naive twin of what the devices of one group ask for, by the words of `page_request.h`.
public struct PageRequestModel {
  /// What a response is; the numbers are those of the header.
  public static let invalid: UInt32 = 1

  public struct Key: Hashable {
    public let device: Int
    public let pasid: UInt32
    public let index: UInt32

    public init(device: Int, pasid: UInt32, index: UInt32) {
      self.device = device
      self.pasid = pasid
      self.index = index
    }
  }

  public struct Group: Equatable {
    public let key: Key
    public let domain: Int
    public let addresses: [UInt64]

    public init(key: Key, domain: Int, addresses: [UInt64]) {
      self.key = key
      self.domain = domain
      self.addresses = addresses
    }
  }

  public struct Answer: Equatable {
    public let key: Key
    public let response: UInt32

    public init(key: Key, response: UInt32) {
      self.key = key
      self.response = response
    }
  }

  private let handled: Set<Int>
  private var capacities: [Int: Int] = [:]
  private var domains: [UInt32: Int] = [:]
  private var collected: [Key: [UInt64]] = [:]
  private var pending: [Int: Group] = [:]
  private var nextNumber = 0
  /// What handlers were told, and what devices were told, since these were emptied.
  public var told: [Group] = []
  public var answers: [Answer] = []

  /// - Parameter handled: the domains that have a handler.
  public init(handled: Set<Int>) { self.handled = handled }

  public mutating func add(_ device: Int, capacity: Int) { capacities[device] = capacity }

  public mutating func remove(_ device: Int) {
    capacities[device] = nil
    collected = collected.filter { $0.key.device != device }
    end { $0.key.device == device }
  }

  /// The device, for 0, or the PASID is in another domain from here on.
  public mutating func set(_ domain: Int?, of pasid: UInt32) {
    domains[pasid] = domain
    end { $0.key.pasid == pasid }
  }

  public func domain(of pasid: UInt32) -> Int? { domains[pasid] }

  private mutating func end(_ isConcerned: (Group) -> Bool) {
    for (number, group) in pending.sorted(by: { $0.key < $1.key }) where isConcerned(group) {
      pending[number] = nil
      answers.append(Answer(key: group.key, response: Self.invalid))
    }
  }

  private func count(of device: Int) -> Int {
    collected.filter { $0.key.device == device }.values.reduce(0) { $0 + $1.count }
      + pending.values.filter { $0.key.device == device }.reduce(0) { $0 + $1.addresses.count }
  }

  public mutating func ask(_ key: Key, _ address: UInt64, isLast: Bool) -> Int32 {
    guard count(of: key.device) < capacities[key.device]! else { return -ENOSPC }
    collected[key, default: []].append(address)
    guard isLast else { return 0 }
    let addresses = collected.removeValue(forKey: key)!
    guard let domain = domains[key.pasid], handled.contains(domain) else {
      answers.append(Answer(key: key, response: Self.invalid))
      return 0
    }
    let group = Group(key: key, domain: domain, addresses: addresses)
    pending[nextNumber] = group
    nextNumber += 1
    told.append(group)
    return 0
  }

  /// - Parameter number: how many groups handlers were told of before this one.
  public mutating func respond(_ number: Int, _ response: UInt32) -> Int32 {
    guard let group = pending.removeValue(forKey: number) else { return -ENOENT }
    answers.append(Answer(key: group.key, response: response))
    return 0
  }
}
