// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import MachineSupport
import Mapping
import Primitives
import TestSupport
import Testing

/// Who may access a byte of memory at the moment, and what it holds: one entry a byte.
private struct OwnershipModel {
  /// A mapping, by its number, whose device owns the byte; nil for the CPU.
  var owners: [Int?]
  var values: [UInt8]

  init(size: Int) {
    owners = Array(repeating: nil, count: size)
    values = Array(repeating: 0, count: size)
  }
}

/// A live mapping of a part of the arena.
private struct Mapped {
  let number: Int
  let part: Range<Int>
  let address: UInt64
  let direction: Direction

  func range(_ bytes: Range<Int>) throws -> DMARange {
    try dma(address + UInt64(bytes.lowerBound - part.lowerBound), size: UInt64(bytes.count))
  }
}

/// Memory that a device and the CPU hand to each other, beside the model of it.
private final class Arena {
  static let size = 5 * 4096

  private let device: UnsafeMutablePointer<Device>
  private let bytes: UnsafeMutablePointer<UInt8>
  private var model = OwnershipModel(size: Arena.size)
  private var live: [Mapped] = []
  private var nextNumber = 0
  /// What was read and refused, which is the same on all paths.
  private(set) var trace: [Int] = []

  init(_ device: UnsafeMutablePointer<Device>) {
    self.device = device
    bytes = .allocate(capacity: Self.size)
    bytes.initialize(repeating: 0, count: Self.size)
  }

  deinit { bytes.deallocate() }

  /// A random step. It draws the same numbers on every path.
  func step(_ generator: inout SeededGenerator) throws {
    let part = Self.part(of: 0..<Self.size, &generator)
    let direction = generator.one(of: [Direction.bidirectional, .toDevice, .fromDevice])
    let value = UInt8(truncatingIfNeeded: generator.next())
    let choice = generator.below(8)
    guard let mapped = live.isEmpty ? nil : generator.one(of: live) else {
      return try choice < 4 ? map(part, direction) : accessByCPU(part.lowerBound, value)
    }
    let inside = Self.part(of: mapped.part, &generator)
    switch choice {
    case 0: try map(part, direction)
    case 1: try unmap(mapped)
    case 2: try sync(mapped, inside, to: nil)
    case 3: try sync(mapped, inside, to: mapped.number)
    case 4, 5: try accessByDevice(mapped, inside.lowerBound, value)
    default: try accessByCPU(part.lowerBound, value)
    }
  }

  func end() throws {
    while let mapped = live.first { try unmap(mapped) }
    try demandSame(
      Array(UnsafeBufferPointer(start: bytes, count: Self.size)), model.values, "memory")
    trace += model.values.map(Int.init)
  }

  private static func part(
    of whole: Range<Int>, _ generator: inout SeededGenerator
  ) -> Range<Int> {
    let first = whole.lowerBound + generator.below(whole.count)
    let count = 1 + generator.below(min(whole.upperBound - first, 1 << (1 + generator.below(13))))
    return first..<(first + count)
  }

  private func map(_ part: Range<Int>, _ direction: Direction) throws {
    // Memory that is mapped already is its device's, and nobody else may hand it over.
    guard !live.contains(where: { $0.part.overlaps(part) }) else { return }
    let memory = try physical(
      UInt64(UInt(bitPattern: bytes + part.lowerBound)), size: UInt64(part.count))
    let address = try device.pointee.map(memory, direction)
    live.append(
      Mapped(number: nextNumber, part: part, address: address.rawValue, direction: direction))
    for place in part { model.owners[place] = nextNumber }
    nextNumber += 1
  }

  private func unmap(_ mapped: Mapped) throws {
    try device.pointee.unmap(mapped.range(mapped.part), mapped.direction)
    live.removeAll { $0.number == mapped.number }
    for place in mapped.part { model.owners[place] = nil }
    if device.pointee.iommu != nil, device.pointee.mappings.hasIdentity == false {
      let access = mapped.direction.access
      let arrived = try? arrival(of: mapped.address, access, by: device)
      try demand(arrived == nil, "what is unmapped leads to \(hex(arrived ?? 0))")
    }
  }

  private func sync(_ mapped: Mapped, _ part: Range<Int>, to owner: Int?) throws {
    try device.pointee.sync(mapped.range(part), mapped.direction, forCPU: true)
    for place in part { model.owners[place] = owner }
  }

  private func accessByDevice(_ mapped: Mapped, _ place: Int, _ value: UInt8) throws {
    guard model.owners[place] == mapped.number else { return }
    let address = try mapped.range(place..<(place + 1)).first.rawValue
    let access = mapped.direction.access
    let arrived = try arrival(of: address, access, by: device)
    try demandSame(arrived, UInt64(UInt(bitPattern: bytes + place)), "place of the byte")
    let byte = UnsafeMutablePointer<UInt8>(bitPattern: UInt(arrived))!
    if access.contains(.read) { try check(byte.pointee, place) }
    if access.contains(.write) {
      byte.pointee = value
      model.values[place] = value
    }
  }

  private func accessByCPU(_ place: Int, _ value: UInt8) throws {
    guard model.owners[place] == nil else { return }
    try check(bytes[place], place)
    bytes[place] = value
    model.values[place] = value
  }

  private func check(_ found: UInt8, _ place: Int) throws {
    trace.append(Int(found))
    try demandSame(found, model.values[place], "byte \(place)")
  }
}

@Suite("Ownership of mapped memory")
struct OwnershipTests {
  @Test func whoeverOwnsAByteSeesWhatTheOthersWroteOnEveryPath() throws {
    let seed = RunSettings.seed
    let steps = RunSettings.steps(3_000)
    var traces: [[Int]] = []
    for path in Path.allCases {
      try withMachines { machine in
        let device = try machine.device(on: path)
        let arena = Arena(device)
        var generator = SeededGenerator(seed: seed)
        do {
          for _ in 0..<steps { try arena.step(&generator) }
          try arena.end()
        } catch {
          throw Divergence("\(path), DMACORE_SEED=\(hex(seed)): \(error)")
        }
        traces.append(arena.trace)
        #expect(device.pointee.statistics.mappingCount == 0)
        #expect(machine.reports.all == [])
      }
    }
    #expect(Set(traces).count == 1, "paths differ with DMACORE_SEED=\(hex(seed))")
    #expect(traces[0].count > Arena.size)
  }
}
