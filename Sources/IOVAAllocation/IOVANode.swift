// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform
import Primitives

/// One node of an IOVA tree: up to 30 slots, sorted by key, in memory of its own.
///
/// Having one tells you that the memory is there; it does not tell you whether the node is a leaf.
/// Numbers are granules. A slot has
///
/// - a key: in a leaf where a range in use starts, above it the first key of a child;
/// - a gap: in a leaf the free granules behind the range, above it the longest gap of the child;
/// - a mark: in a leaf whether the range is reserved, above it whether the child is well aligned
///   (see `GapSummary`);
/// - above the leaves, a link to the child.
///
/// ```
///   offset     0      4     8     16          256         496
///              count  marks end   30 keys     30 gaps     30 links
/// ```
///
/// Keys that are not in use are the highest number, and gaps 0, so that all of a node are looked at in
/// the same few steps, however many there are.
///
/// `end`, of a leaf, is the key of the slot that follows its last one, or where the space ends: so
/// a leaf knows by itself how long each of its ranges is. It is 0 where the space ends at 2^64.
@safe
struct IOVANode: Equatable {
  /// 30 slots make a leaf of 496 bytes, which with the 16 that an allocator adds is eight lines of
  /// the cache; and marks that fit a word.
  static var capacity: Int { 30 }

  /// A node below this that is not at an edge of the tree gets slots from a neighbour or joins it.
  /// At half full a range in use costs 512 / 15 bytes of leaf and 752 / 15 / 14 of what is above it
  /// (the highest levels hardly count), 38 bytes in all.
  static var fewest: Int { 15 }

  private static var keysOffset: Int { 16 }
  private static var gapsOffset: Int { 256 }
  private static var linksOffset: Int { 496 }
  static var leafSize: Int { linksOffset }
  static var innerSize: Int { 736 }

  private let memory: UnsafeMutableRawPointer

  /// Uses memory of `leafSize` or `innerSize`, whose contents do not matter.
  init(_ memory: UnsafeMutableRawPointer) { unsafe self.memory = memory }

  /// The memory, to be freed.
  var raw: UnsafeMutableRawPointer { unsafe memory }

  static func == (a: IOVANode, b: IOVANode) -> Bool { unsafe a.memory == b.memory }

  /// Makes it an empty node.
  @_optimize(size)
  func clear() {
    count = 0
    unsafe keys.initialize(repeating: UInt64.max, count: Self.capacity)
    unsafe gaps.initialize(repeating: 0, count: Self.capacity)
    marks = 0
    end = 0
  }

  var count: Int {
    get { Int(truncatingIfNeeded: unsafe memory.load(as: UInt32.self)) }
    nonmutating set {
      unsafe memory.storeBytes(of: UInt32(truncatingIfNeeded: newValue), as: UInt32.self)
    }
  }

  /// The marks of all slots, a bit each.
  private(set) var marks: UInt32 {
    get { unsafe memory.load(fromByteOffset: 4, as: UInt32.self) }
    nonmutating set { unsafe memory.storeBytes(of: newValue, toByteOffset: 4, as: UInt32.self) }
  }

  var end: UInt64 {
    get { unsafe memory.load(fromByteOffset: 8, as: UInt64.self) }
    nonmutating set { unsafe memory.storeBytes(of: newValue, toByteOffset: 8, as: UInt64.self) }
  }

  // The columns. Slots are below `capacity`, as every caller sees to.

  private func column(_ offset: Int) -> UnsafeMutablePointer<UInt64> {
    // SAFETY: the memory is a node's, and a column of 30 words starts at each of the offsets.
    unsafe (memory + offset).assumingMemoryBound(to: UInt64.self)
  }

  private var keys: UnsafeMutablePointer<UInt64> { unsafe column(Self.keysOffset) }
  private var gaps: UnsafeMutablePointer<UInt64> { unsafe column(Self.gapsOffset) }
  private var links: UnsafeMutablePointer<UInt64> { unsafe column(Self.linksOffset) }

  func key(_ slot: Int) -> UInt64 { unsafe keys[slot] }

  func setKey(_ slot: Int, _ key: UInt64) { unsafe keys[slot] = key }

  func gap(_ slot: Int) -> UInt64 { unsafe gaps[slot] }

  func setGap(_ slot: Int, _ gap: UInt64) { unsafe gaps[slot] = gap }

  func mark(_ slot: Int) -> Bool { marks & (1 &<< UInt32(truncatingIfNeeded: slot)) != 0 }

  func setMark(_ slot: Int, _ mark: Bool) {
    let bit: UInt32 = 1 &<< UInt32(truncatingIfNeeded: slot)
    marks = mark ? marks | bit : marks & ~bit
  }

  func child(_ slot: Int) -> IOVANode {
    // SAFETY: a link holds the address of a node's memory: `setChild` put it there.
    unsafe IOVANode(UnsafeMutableRawPointer(bitPattern: UInt(links[slot])).unsafelyUnwrapped)
  }

  func setChild(_ slot: Int, _ child: IOVANode) {
    unsafe links[slot] = UInt64(UInt(bitPattern: child.memory))
  }

  /// The key behind a slot's gap; of a leaf.
  func nextKey(_ slot: Int) -> UInt64 { slot &+ 1 < count ? key(slot &+ 1) : end }

  /// Asks for all of a leaf at once, of which a search would ask for one line after the other.
  func prefetchLeaf() { unsafe cplatform_prefetch(memory, Self.leafSize) }

  /// How many keys are not above `limit`.
  func keysNotAbove(_ limit: UInt64) -> Int {
    // The highest number may be a key, too: so places that are not in use do not count.
    min(count, unsafe cplatform_count_not_above(keys, limit))
  }

  /// The gaps of all slots, or-ed.
  var gapsOred: UInt64 { unsafe cplatform_or(gaps) }

  /// A bit for each slot whose gap has this bit.
  func gaps(havingBit bit: Int) -> UInt32 {
    unsafe cplatform_having_bit(gaps, UInt32(truncatingIfNeeded: bit))
  }

  /// A bit for each slot whose gap is not shorter than this.
  func gaps(atLeast length: UInt64) -> UInt32 {
    unsafe cplatform_not_below(gaps, count, length)
  }

  // MARK: - Slots

  /// Makes room for a slot before `slot`, whose contents are set next. There is room.
  func openSlot(_ slot: Int, isLeaf: Bool) {
    let behind = count &- slot
    unsafe Self.move(keys + slot, to: keys + slot + 1, behind)
    unsafe Self.move(gaps + slot, to: gaps + slot + 1, behind)
    if !isLeaf { unsafe Self.move(links + slot, to: links + slot + 1, behind) }
    let below: UInt32 = (1 &<< UInt32(truncatingIfNeeded: slot)) &- 1
    marks = (marks & below) | ((marks & ~below) &<< 1)
    count = count &+ 1
  }

  /// Takes a slot out.
  func closeSlot(_ slot: Int, isLeaf: Bool) {
    let behind = count &- slot &- 1
    unsafe Self.move(keys + slot + 1, to: keys + slot, behind)
    unsafe Self.move(gaps + slot + 1, to: gaps + slot, behind)
    if !isLeaf { unsafe Self.move(links + slot + 1, to: links + slot, behind) }
    let below: UInt32 = (1 &<< UInt32(truncatingIfNeeded: slot)) &- 1
    marks = (marks & below) | ((marks &>> 1) & ~below)
    drop(from: count &- 1)
  }

  /// Moves slots from `first` on to the end of the node before this one, which has room for them.
  @inline(never)
  func moveSlots(from first: Int, toEndOf other: IOVANode, _ moved: Int, isLeaf: Bool) {
    let at = other.count
    unsafe Self.move(keys + first, to: other.keys + at, moved)
    unsafe Self.move(gaps + first, to: other.gaps + at, moved)
    if !isLeaf { unsafe Self.move(links + first, to: other.links + at, moved) }
    for slot in 0..<moved { other.setMark(at &+ slot, mark(first &+ slot)) }
    other.count = at &+ moved
  }

  /// Takes the slots from `first` on out, which have been moved elsewhere.
  func drop(from first: Int) {
    for slot in first..<count {
      unsafe keys[slot] = UInt64.max
      unsafe gaps[slot] = 0
    }
    count = first
    marks &= (1 &<< UInt32(truncatingIfNeeded: first)) &- 1
  }

  /// Takes the first slots out, which have been moved elsewhere.
  func dropFirst(_ dropped: Int, isLeaf: Bool) {
    let left = count &- dropped
    unsafe Self.move(keys + dropped, to: keys, left)
    unsafe Self.move(gaps + dropped, to: gaps, left)
    if !isLeaf { unsafe Self.move(links + dropped, to: links, left) }
    marks = marks &>> UInt32(truncatingIfNeeded: dropped)
    drop(from: left)
  }

  /// Makes room before the first slot for slots that are moved here from the end of `other`.
  func takeSlots(fromEndOf other: IOVANode, _ moved: Int, isLeaf: Bool) {
    let (at, old) = (other.count &- moved, count)
    unsafe Self.move(keys, to: keys + moved, old)
    unsafe Self.move(gaps, to: gaps + moved, old)
    if !isLeaf { unsafe Self.move(links, to: links + moved, old) }
    marks = marks &<< UInt32(truncatingIfNeeded: moved)
    unsafe Self.move(other.keys + at, to: keys, moved)
    unsafe Self.move(other.gaps + at, to: gaps, moved)
    if !isLeaf { unsafe Self.move(other.links + at, to: links, moved) }
    for slot in 0..<moved { setMark(slot, other.mark(at &+ slot)) }
    count = old &+ moved
    other.drop(from: at)
  }

  /// Copies words that may overlap.
  private static func move(
    _ source: UnsafeMutablePointer<UInt64>, to target: UnsafeMutablePointer<UInt64>, _ count: Int
  ) {
    // Not the typed way, which copies word by word.
    unsafe UnsafeMutableRawPointer(target)
      .copyMemory(from: source, byteCount: count &* MemoryLayout<UInt64>.stride)
  }
}
