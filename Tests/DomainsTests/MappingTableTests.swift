// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Foundation
import MachineSupport
import Primitives
import TestSupport
import Testing

@testable import Domains

@Suite("MappingTable")
final class MappingTableTests {
  private let machine: Machine

  init() throws { machine = try Machine() }

  deinit { machine.end() }

  private func insert(
    _ table: borrowing MappingTable, _ first: UInt64, _ last: UInt64,
    _ direction: Direction = .bidirectional, _ kind: MappingRecord.Kind = .streaming
  ) throws {
    let (cell, _) = try table.take()
    let range = try DMARange(first: DMAAddress(first), last: DMAAddress(last))
    let record = MappingRecord(
      kind: kind, path: .iommu, direction: direction, domain: nil, memory: nil, stamp: 0)
    table.insert(cell, range, record)
  }

  private func claim(
    _ table: borrowing MappingTable, _ first: UInt64, _ last: UInt64,
    isWanted: (MappingRecord) -> Bool = { _ in true }
  ) throws -> MappingTable.Link? {
    let range = try DMARange(first: DMAAddress(first), last: DMAAddress(last))
    return table.claim(range, isWanted: isWanted)
  }

  /// A permission in words, which can be compared.
  private func permission(
    _ table: borrowing MappingTable, at address: UInt64, _ access: Access
  ) -> String {
    switch table.permission(at: address, access) {
    case .permitted(let first, let last, _, let granted):
      "\(first) to \(last), access \(granted.rawValue)"
    case .denied(let last): "denied to \(last)"
    case .unmapped(let last): "unmapped to \(last)"
    }
  }

  // MARK: - Making and undoing

  @Test func aRecordIsClaimedOnce() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 19)
    let claimed = try #require(try claim(table, 10, 19))
    let again = try claim(table, 10, 19)
    #expect(again == nil)
    table.giveBack(claimed)
  }

  @Test(arguments: [(9, 19), (11, 19), (10, 18), (10, 20), (10, 10)])
  func aClaimNamesBothEndsOfTheRecord(_ first: UInt64, _ last: UInt64) throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 19)
    let claimed = try claim(table, first, last)
    #expect(claimed == nil)
    #expect(table.totals.count == 1)
  }

  @Test func ofRecordsOfOneRangeTheWantedOneIsClaimed() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 19, .toDevice)
    try insert(table, 10, 19, .fromDevice)
    let claimed = try #require(try claim(table, 10, 19) { $0.direction == .fromDevice })
    #expect(claimed.pointee.payload.direction == .fromDevice)
    let other = try claim(table, 10, 19) { $0.direction == .bidirectional }
    #expect(other == nil)
    table.giveBack(claimed)
  }

  @Test func recordsAndBytesAreCounted() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 19)
    try insert(table, 0, 0)
    let claimed = try #require(try claim(table, 10, 19))
    let (count, bytes, total) = table.totals
    #expect(count == 1)
    #expect(bytes == 1)
    #expect(total == 2)
    table.giveBack(claimed)
  }

  @Test func thereAreCellsForAsManyRecordsAsWanted() throws {
    let table = try MappingTable(system: machine.system)
    for first in UInt64(0)..<500 { try insert(table, first * 10, first * 10 + 4) }
    for first in (UInt64(0)..<500).reversed() {
      let claimed = try #require(try claim(table, first * 10, first * 10 + 4))
      table.giveBack(claimed)
    }
    #expect(table.totals.count == 0)
  }

  @Test func cleaningUpClaimsEachRecordOnce() throws {
    let table = try MappingTable(system: machine.system)
    for first in UInt64(0)..<5 { try insert(table, first, first) }
    var firsts: [UInt64] = []
    while let node = table.claimAny() {
      firsts.append(node.pointee.first)
      table.giveBack(node)
    }
    #expect(firsts.sorted() == [0, 1, 2, 3, 4])
  }

  // MARK: - Looking up

  @Test func aRangeIsCoveredByOneWantedRecordThatHoldsAllOfIt() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 19)
    try insert(table, 20, 29, .toDevice)
    func covers(_ first: UInt64, _ last: UInt64, _ direction: Direction) throws -> Bool {
      let range = try DMARange(first: DMAAddress(first), last: DMAAddress(last))
      return table.find(covering: range, .streaming, direction) != nil
    }
    #expect(try covers(10, 19, .bidirectional))
    #expect(try covers(13, 15, .bidirectional))
    #expect(try covers(29, 29, .toDevice))
    #expect(try !covers(15, 20, .bidirectional))
    #expect(try !covers(9, 12, .bidirectional))
    #expect(try !covers(20, 29, .fromDevice))
  }

  @Test func theRecordThatStartsAtAnAddressIsDescribedBeforeOthersThere() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 39)
    try insert(table, 20, 29)
    let found = table.describe(20)
    #expect(found?.first == 20)
    #expect(found?.last == 29)
    #expect(table.describe(30)?.first == 10)
    #expect(table.describe(40)?.first == nil)
  }

  @Test func recordsAboveAMaskAreCountedByTheirKind() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 0, 99)
    try insert(table, 100, 199)
    try insert(table, 150, 150, .bidirectional, .coherent)
    #expect(table.beyond(198, .streaming).count == 1)
    #expect(table.beyond(199, .streaming).count == 0)
    #expect(table.beyond(98, .streaming).count == 2)
    #expect(table.beyond(99, .streaming).count == 1)
    #expect(table.beyond(149, .coherent).count == 1)
    #expect(table.beyond(150, .coherent).count == 0)
    #expect(table.beyond(UInt64.max, .streaming).count == 0)
  }

  // MARK: - Permission

  @Test func aHoleReachesToTheNextMappingOrTheEnd() throws {
    let table = try MappingTable(system: machine.system)
    #expect(permission(table, at: 0, .read) == "unmapped to \(UInt64.max)")
    try insert(table, 10, 19)
    #expect(permission(table, at: 0, .read) == "unmapped to 9")
    #expect(permission(table, at: 20, .read) == "unmapped to \(UInt64.max)")
  }

  @Test func anAccessIsPermittedOverTheWholeMapping() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 19, .toDevice)
    #expect(permission(table, at: 15, .read) == "10 to 19, access 1")
    #expect(permission(table, at: 15, [.read, .write]) == "denied to 19")
  }

  @Test func ofMappingsThatPermitTheOneThatReachesFarthestAnswers() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 19)
    try insert(table, 12, 39)
    try insert(table, 14, 24)
    #expect(permission(table, at: 15, .write) == "12 to 39, access 3")
  }

  @Test func aDenialEndsWhereAnotherMappingStartsOrTheFirstDenyingOneEnds() throws {
    let table = try MappingTable(system: machine.system)
    try insert(table, 10, 39, .toDevice)
    #expect(permission(table, at: 15, .write) == "denied to 39")
    try insert(table, 12, 29, .toDevice)
    #expect(permission(table, at: 15, .write) == "denied to 29")
    try insert(table, 20, 24, .fromDevice)
    #expect(permission(table, at: 15, .write) == "denied to 19")
    #expect(permission(table, at: 20, .write) == "20 to 24, access 2")
  }

  @Test func everyAddressOfSmallTablesIsPermittedAsAScanSays() throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    for _ in 0..<RunSettings.steps(60) {
      let table = try MappingTable(system: machine.system)
      var mappings: [(ClosedRange<UInt64>, Direction)] = []
      for _ in 0..<generator.below(6) {
        let first = UInt64(generator.below(20))
        let last = first + UInt64(generator.below(8))
        let direction = generator.one(of: [Direction.bidirectional, .toDevice, .fromDevice])
        try insert(table, first, last, direction)
        mappings.append((first...last, direction))
      }
      for address in UInt64(0)..<30 {
        for access in [Access.read, .write, [.read, .write]] {
          func permits(_ address: UInt64) -> Bool {
            mappings.contains {
              $0.0.contains(address) && $0.1.access.isSuperset(of: access)
            }
          }
          let isMapped = mappings.contains { $0.0.contains(address) }
          switch table.permission(at: address, access) {
          case .permitted(let first, let last, _, _):
            try demand((first...last).allSatisfy(permits), "\(mappings) permit too much")
            try demand((first...last).contains(address), "\(address) is outside")
          case .denied(let last):
            try demand(isMapped, "\(address) is not mapped in \(mappings)")
            try demand(!(address...last).contains(where: permits), "\(mappings) deny too much")
          case .unmapped(let last):
            let end = min(last, 40)
            try demand(
              !mappings.contains { $0.0.overlaps(address...end) }, "\(address) in \(mappings)")
          }
        }
      }
    }
  }

  // MARK: - Attachment

  @Test func aTableIsNotFrozenWhileThereAreRecordsOrCallsUnderWay() throws {
    try withMachine { machine in
      let table = try MappingTable(system: machine.system)
      let domain = try machine.domain(.dma)
      table.setDomain(domain)
      let (cell, found) = try table.take()
      #expect(found == domain)
      func expectFrozen(_ expected: Bool) {
        let isFrozen = table.freeze()
        #expect(isFrozen == expected)
      }
      expectFrozen(false)
      let record = MappingRecord(
        kind: .streaming, path: .iommu, direction: .toDevice, domain: domain, memory: nil,
        stamp: 0)
      table.insert(cell, try dma(10, size: 1), record)
      expectFrozen(false)
      let claimed = try #require(try claim(table, 10, 10))
      expectFrozen(false)
      table.giveBack(claimed)
      expectFrozen(true)
      table.setDomain(nil)
      #expect(table.domain == nil)
      table.thaw()
      // And mapping calls go on.
      table.giveBack(try table.take().cell)
    }
  }

  @Test func aFrozenTableKeepsItsDomainAndItsCallsWaitUntilItIsThawed() throws {
    try withMachine { machine in
      let table = SharedTable(table: try MappingTable(system: machine.system))
      let domains = SharedDomains(
        domains: [try machine.domain(.dma), try machine.domain(.identity)])
      table.table.setDomain(domains[0])
      let isFrozen = table.table.freeze()
      #expect(isFrozen)
      #expect(table.table.domain == domains[0])
      let hadIdentity = table.table.hasIdentity
      #expect(!hadIdentity)
      let isThawing = Flag()
      try onThreads(2) { thread in
        if thread == 0 {
          // It gets the domain from after the change.
          let (cell, found) = try table.table.take()
          try demand(found == domains[1], "a call started before the change")
          try demand(isThawing.isSet, "a call started before other devices may have changed")
          table.table.giveBack(cell)
        } else {
          usleep(2000)
          table.table.setDomain(domains[1])
          // Here the group's other devices get theirs.
          usleep(2000)
          isThawing.set()
          table.table.thaw()
        }
      }
      #expect(table.table.domain == domains[1])
      let hasIdentity = table.table.hasIdentity
      #expect(hasIdentity)
    }
  }

  @Test func aTableThatIsThawedIsAsItWas() throws {
    try withMachine { machine in
      let table = try MappingTable(system: machine.system)
      let domain = try machine.domain(.dma)
      table.setDomain(domain)
      _ = table.freeze()
      table.thaw()
      let (cell, found) = try table.take()
      #expect(found == domain)
      table.giveBack(cell)
    }
  }
}

private final class SharedTable: @unchecked Sendable {
  let table: MappingTable
  init(table: consuming MappingTable) { self.table = table }
}

private struct SharedDomains: @unchecked Sendable {
  let domains: [UnsafeMutablePointer<Domain>]
  subscript(index: Int) -> UnsafeMutablePointer<Domain> { domains[index] }
}
