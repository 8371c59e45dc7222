// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Primitives

/// The faults of a device, oldest first, of which it keeps as many as fit and counts the others.
///
/// Locked, rank 10.
@safe
public struct FaultRing: ~Copyable {
  private struct State {
    var start = 0
    var count = 0
    var total: UInt64 = 0
    var lost: UInt64 = 0
  }

  private let state: Guarded<State>
  private let faults: UnsafeMutablePointer<dmacore_fault>
  private let capacity: Int

  public init(capacity: Int) throws(Failure) {
    let state = try Guarded<State>(.faultRing) { () throws(Failure) in State() }
    let stride = MemoryLayout<dmacore_fault>.stride
    let raw = unsafe try RawMemory.allocate(capacity * stride, alignment: 16)
    self.state = state
    // SAFETY: the allocation has room for `capacity` faults and holds nothing else.
    unsafe faults = raw.bindMemory(to: dmacore_fault.self, capacity: capacity)
    self.capacity = capacity
  }

  deinit { unsafe RawMemory.free(faults) }

  // Where in the ring a place is that is at most once around.
  private func place(_ place: Int) -> Int { place < capacity ? place : place &- capacity }

  /// Numbers a fault and keeps it if there is room.
  func record(_ fault: inout dmacore_fault) {
    state.withLock { state in
      fault.sequence = state.total
      state.total &+= 1
      guard state.count < capacity else {
        state.lost &+= 1
        return
      }
      unsafe faults[place(state.start &+ state.count)] = fault
      state.count &+= 1
    }
  }

  /// Moves up to `countMax` faults out, and returns how many they were and how many were lost ever.
  public func take(
    into target: UnsafeMutablePointer<dmacore_fault>?, countMax: Int
  ) -> (count: Int, lost: UInt64) {
    state.withLock { state in
      guard let target = unsafe target else { return (0, state.lost) }
      let count = min(countMax, state.count)
      var index = 0
      while index < count {
        unsafe target[index] = faults[place(state.start &+ index)]
        index &+= 1
      }
      state.start = place(state.start &+ count)
      state.count &-= count
      return (count, state.lost)
    }
  }

  var totals: (total: UInt64, lost: UInt64) {
    state.withLock { state in (state.total, state.lost) }
  }
}
