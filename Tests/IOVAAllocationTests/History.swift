// SPDX-License-Identifier: MIT OR Apache-2.0

// Theory of operation: histories.
//
// 1. Concepts
// A history is what several threads did to a space of a few granules: each call with its result, and
// the moments before and after it, by a clock that all share. It is linearizable if there is an order
// of the calls in which each has its effect at one moment between these two, such that the space,
// doing one call after another, would have given the same results.
//
// 2. Implementation
// By trying (Wing and Gong, "Testing and Verifying Concurrent Objects", 1993): of the calls that are
// left, one that began before any of the others ended may come next; if the space could have given
// its result, go on with the rest. Pairs of the calls taken and the granules in use that led nowhere
// are remembered.
//
// The space that does one call after another is a set of granules in use. Allocation may give any
// place that is free and aligned; it gives none only if there is none.

/// What a thread did to a space of up to 64 granules, and what it got.
struct HistoryCall: Equatable, CustomStringConvertible {
  enum Action: Equatable {
    /// With no place when there was no space.
    case allocate(count: Int, limit: Int, place: Int?)
    case free(place: Int, count: Int)
    case reserve(place: Int, count: Int, isBusy: Bool)
    case unreserve(place: Int, count: Int)
    /// Gives back what is cached, which changes nothing.
    case drain
  }

  let thread: Int
  let start: Int
  let end: Int
  let action: Action

  var description: String { "thread \(thread), \(start)...\(end): \(action)" }
}

struct History {
  let granules: Int
  /// The granules in use before the first call, a bit each.
  let inUse: UInt64
  let calls: [HistoryCall]

  /// Whether some order of the calls explains all results.
  var isLinearizable: Bool {
    var deadEnds: Set<Position> = []
    return canEnd(from: Position(taken: 0, inUse: inUse), &deadEnds)
  }

  private struct Position: Hashable {
    // A bit for each call.
    let taken: UInt64
    let inUse: UInt64
  }

  private func canEnd(from position: Position, _ deadEnds: inout Set<Position>) -> Bool {
    let left = calls.indices.filter { position.taken & (1 << UInt64($0)) == 0 }
    if left.isEmpty { return true }
    if deadEnds.contains(position) { return false }
    let firstEnd = left.map { calls[$0].end }.min() ?? 0
    for index in left where calls[index].start <= firstEnd {
      guard let inUse = after(calls[index].action, position.inUse) else { continue }
      let next = Position(taken: position.taken | (1 << UInt64(index)), inUse: inUse)
      if canEnd(from: next, &deadEnds) { return true }
    }
    deadEnds.insert(position)
    return false
  }

  private func mask(_ place: Int, _ count: Int) -> UInt64 {
    ((1 << UInt64(count)) - 1) << UInt64(place)
  }

  /// The granules in use after a call, or nil if it cannot have this result.
  private func after(_ action: HistoryCall.Action, _ inUse: UInt64) -> UInt64? {
    switch action {
    case .allocate(let count, let limit, let place?):
      let mask = mask(place, count)
      let fits = place >= 0 && place + count <= min(granules, limit + 1)
      return fits && inUse & mask == 0 ? inUse | mask : nil
    case .allocate(let count, let limit, nil):
      let end = min(granules, limit + 1)
      let hasPlace = (0..<granules).contains { $0 + count <= end && inUse & mask($0, count) == 0 }
      return hasPlace ? nil : inUse
    case .free(let place, let count), .unreserve(let place, let count):
      let mask = mask(place, count)
      return inUse & mask == mask ? inUse & ~mask : nil
    case .reserve(let place, let count, let isBusy):
      let mask = mask(place, count)
      if isBusy { return inUse & mask != 0 ? inUse : nil }
      return inUse & mask == 0 ? inUse | mask : nil
    case .drain:
      return inUse
    }
  }
}
