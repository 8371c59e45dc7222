// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import MachineSupport
import ReferenceModels
import TestSupport
import Testing

@testable import Domains

@Suite("FaultRing")
struct FaultRingTests {
  /// What the model knows of a fault.
  private struct Numbered: Equatable {
    let sequence: UInt64
    let address: UInt64

    init(sequence: UInt64, address: UInt64) {
      self.sequence = sequence
      self.address = address
    }

    init(_ fault: FaultRingModel.Fault) {
      self.init(sequence: fault.sequence, address: fault.address)
    }
  }

  private func take(
    _ ring: borrowing FaultRing, _ count: Int
  ) -> (faults: [Numbered], lost: UInt64) {
    var taken = Array(repeating: dmacore_fault(), count: count)
    let result = ring.take(into: &taken, countMax: count)
    let faults = taken.prefix(result.count).map {
      Numbered(sequence: $0.sequence, address: $0.first)
    }
    return (faults, result.lost)
  }

  private func record(_ ring: borrowing FaultRing, _ address: UInt64) {
    var fault = dmacore_fault()
    fault.first = address
    ring.record(&fault)
  }

  @Test func aFaultIsNumberedWhereTheCallerSeesIt() throws {
    let ring = try FaultRing(capacity: 1)
    for sequence in UInt64(0)..<3 {
      var fault = dmacore_fault()
      ring.record(&fault)
      #expect(fault.sequence == sequence)
    }
  }

  @Test func theOldestFaultsAreKeptAndTheOthersCounted() throws {
    let ring = try FaultRing(capacity: 2)
    for address in UInt64(10)..<15 { record(ring, address) }
    let taken = take(ring, 8)
    #expect(taken.faults.map(\.address) == [10, 11])
    #expect(taken.lost == 3)
    record(ring, 99)
    #expect(take(ring, 8).faults == [Numbered(sequence: 5, address: 99)])
  }

  @Test func whoTakesNoFaultsLearnsHowManyAreLost() throws {
    let ring = try FaultRing(capacity: 1)
    for address in UInt64(0)..<4 { record(ring, address) }
    let result = ring.take(into: nil, countMax: 0)
    #expect(result.count == 0)
    #expect(result.lost == 3)
    #expect(take(ring, 4).faults.count == 1)
  }

  @Test(arguments: [1, 2, 7, 64])
  func aRingIsAnArrayOfBoundedLength(capacity: Int) throws {
    var generator = SeededGenerator(seed: RunSettings.seed)
    let ring = try FaultRing(capacity: capacity)
    var model = FaultRingModel(capacity: capacity)
    for _ in 0..<RunSettings.steps(1_000) {
      if generator.onceIn(4) {
        let count = generator.below(capacity + 2)
        let taken = take(ring, count)
        try demandSame(taken.faults, model.take(count).map(Numbered.init), "faults")
        try demandSame(taken.lost, model.lost, "lost faults")
      } else {
        let address = generator.next()
        record(ring, address)
        model.record(address)
      }
      let totals = ring.totals
      try demandSame(totals.total, model.total, "total of faults")
      try demandSame(totals.lost, model.lost, "total of lost faults")
    }
  }

  @Test func aDeviceRecordsAFaultBeforeItsCallbackIsCalled() throws {
    final class Seen { var counts: [Int] = [] }
    let seen = Seen()
    try withMachine { machine in
      let device = try machine.device { options in
        options.fault_opaque = Unmanaged.passUnretained(seen).toOpaque()
        options.fault = { device, fault, opaque in
          let device = UnsafeMutablePointer<Device>(device!)
          var taken = dmacore_fault()
          let count = device.pointee.faults.take(into: &taken, countMax: 1).count
          let seen = Unmanaged<Seen>.fromOpaque(opaque!).takeUnretainedValue()
          seen.counts.append(taken.first == fault!.pointee.first ? count : -1)
        }
      }
      for address in UInt64(1)...2 {
        var fault = dmacore_fault()
        fault.first = address
        device.pointee.report(fault, from: OpaquePointer(device))
      }
      #expect(device.pointee.statistics.faultTotal == 2)
    }
    #expect(seen.counts == [1, 1])
  }

  @Test func aDeviceKeeps64FaultsUnlessToldOtherwise() throws {
    try withMachine { machine in
      for (asked, kept) in [(UInt32(0), UInt64(64)), (3, 3)] {
        let device = try machine.device { $0.fault_capacity = asked }
        for _ in 0..<70 { device.pointee.report(dmacore_fault(), from: OpaquePointer(device)) }
        #expect(device.pointee.statistics.faultLost == 70 - kept)
      }
    }
  }
}
