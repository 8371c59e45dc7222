// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CPlatform
import Primitives
import Synchronization

/// Memory that a bounce pool was given in one piece, and its slots.
@safe
struct BounceChunk: ~Copyable {
  let memory: Allocation.Link
  let range: PhysicalRange
  let pool: UnsafeMutablePointer<BouncePool>
  var slots: BounceSlots
  /// The chunk that was added before this one. Set before anybody knows this one.
  var next: UnsafeMutablePointer<BounceChunk>?
  /// The one behind it in the system's list.
  var nextOfSystem: UnsafeMutablePointer<BounceChunk>? = nil

  /// Whether a physical address is in it.
  @inline(__always)
  func has(_ address: UInt64) -> Bool { address &- range.first.rawValue <= range.extent }

  /// The slot at an address that is in it.
  @inline(__always)
  func slot(at address: UInt64) -> BounceSlot {
    let slot = Int(
      truncatingIfNeeded: (address &- range.first.rawValue) &>> UInt64(BounceSlots.granule.shift))
    return unsafe BounceSlot(run: slots.run(at: slot), kept: slots.kept(at: slot))
  }

  /// The first of a device's mappings that are kept at slots here, and of which something lies in a range.
  @inline(never)
  func next(_ first: UInt64, _ last: UInt64, _ base: UInt64) -> KeptCopy? {
    let (granule, reach) = (BounceSlots.granule, Device.granule.mask)
    // One that starts before the range may reach into it.
    var address = max(first > reach ? first &- reach : 0, range.first.rawValue) & ~granule.mask
    while address <= last && has(address) {
      let slot = slot(at: address)
      let (tag, original) = (slot.tag, slot.original)
      let start = address | tag.offset & granule.mask
      // Somebody may unmap it, and map something else there: the two words are of one mapping if the tag is still
      // the same, or of two of the same size.
      if tag.isOf(base) && start <= last && start &+ tag.extent >= first
        && slot.tag.word == tag.word
      {
        return KeptCopy(first: start, tag: tag, original: original)
      }
      // Machines without a map of memory have none so high that this wraps, and others keep nothing here.
      address &+= granule.bytes
    }
    return nil
  }
}

/// The first slot of a copy.
@safe
struct BounceSlot {
  let run: UnsafeMutablePointer<BounceRun>
  /// Two words: the tag of a mapping that is kept there, 0 if none is, and where its original starts.
  let kept: UnsafeMutablePointer<UInt64>

  var tag: MappingTag {
    // Acquire: pairs with the release in `keep`, so that the other word is of that mapping or a later one.
    MappingTag(word: unsafe cplatform_load_acquire(kept))
  }

  // Acquire: the tag that is looked at behind it is not an older one.
  var original: UInt64 { unsafe cplatform_load_acquire(kept + 1) }

  /// Keeps a mapping there. The slot is the caller's.
  @inline(__always)
  func keep(_ tag: MappingTag, _ original: UInt64) {
    unsafe cplatform_store_release(kept + 1, original)
    unsafe cplatform_store_release(kept, tag.word)
  }

  /// Takes a mapping out, so that the slot is the caller's. Returns whether it was there.
  @inline(__always)
  func take(_ tag: MappingTag) -> Bool {
    // Acquire and release, and more: where the original starts is looked at behind it.
    unsafe cplatform_replace_fenced(kept, tag.word, 0)
  }
}

/// All chunks of a system, whosever they are. Locked, rank 18.
///
/// So a copy that is kept at its slots is found by its address, though its pool is no longer the one that its
/// device uses.
@safe
struct BounceChunkList: ~Copyable {
  typealias Link = UnsafeMutablePointer<BounceChunk>

  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State {
    var first: Link? = nil
  }

  private let state: Guarded<State>
  // The lowest and the highest address of all that ever were.
  private let lowest = Atomic<UInt64>(UInt64.max)
  private let highest = Atomic<UInt64>(0)

  init() throws(Failure) {
    state = try Guarded<State>(.bounceChunks) { () throws(Failure) in State() }
  }

  /// Whether some of a range may be in one: mostly other memory is not.
  @inline(__always)
  func mayHave(_ first: UInt64, through last: UInt64) -> Bool {
    last >= lowest.load(ordering: .relaxed) && first <= highest.load(ordering: .relaxed)
  }

  func add(_ chunk: Link) {
    state.withLock { state in
      let range = unsafe chunk.pointee.range
      lowest.store(
        min(range.first.rawValue, lowest.load(ordering: .relaxed)), ordering: .relaxed)
      highest.store(
        max(range.last.rawValue, highest.load(ordering: .relaxed)), ordering: .relaxed)
      unsafe chunk.pointee.nextOfSystem = state.first
      unsafe state.first = chunk
    }
  }

  /// The memory of one of all chunks.
  func memory(of index: Int) -> PhysicalRange? {
    state.withLock { state in
      var chunk = unsafe state.first
      for _ in 0..<index { unsafe chunk = chunk?.pointee.nextOfSystem }
      return unsafe chunk?.pointee.range
    }
  }

  func remove(_ chunk: Link) {
    state.withLock { state in
      guard unsafe state.first != chunk else {
        unsafe state.first = chunk.pointee.nextOfSystem
        return
      }
      var other = unsafe state.first
      while let this = unsafe other, unsafe this.pointee.nextOfSystem != chunk {
        unsafe other = this.pointee.nextOfSystem
      }
      unsafe other?.pointee.nextOfSystem = chunk.pointee.nextOfSystem
    }
  }

  /// The chunk that an address is in, and its pool held.
  @inline(never)
  func hold(with address: UInt64) -> Link? {
    unsafe state.withLock { state -> Link? in
      var next = unsafe state.first
      while let chunk = unsafe next {
        if unsafe chunk.pointee.has(address) {
          return unsafe chunk.pointee.pool.pointee.holdIfHeld() ? chunk : nil
        }
        unsafe next = chunk.pointee.nextOfSystem
      }
      return nil
    }
  }

  /// The first of a device's mappings that are kept at slots, and of which something lies in a range.
  @inline(never)
  func next(_ first: UInt64, _ last: UInt64, _ base: UInt64) -> KeptCopy? {
    state.withLock { state in
      var (end, found) = (last, nil as KeptCopy?)
      var next = unsafe state.first
      while let chunk = unsafe next {
        if let kept = unsafe chunk.pointee.next(first, end, base) {
          found = kept
          end = kept.first
        }
        unsafe next = chunk.pointee.nextOfSystem
      }
      return found
    }
  }
}

/// A mapping that is kept at its slots.
struct KeptCopy {
  let first: UInt64
  let tag: MappingTag
  let original: UInt64
}
