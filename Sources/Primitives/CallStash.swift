// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform
import Synchronization

/// Things that nobody uses, told by a word each: a few for each processor, for calls in a section of the system's
/// `calls`, which guards them. So most calls that need one lock nothing but their section.
@safe
public struct CallStash: ~Copyable, @unchecked Sendable {
  public static var capacity: Int { CallWords.count - 1 }

  // A count, and as many things behind it, in a line for each kind; then the owner's line, if it has one.
  private let words: CallWords
  /// How far the line of a kind is behind that of the one before.
  private let lineSize: Int
  // Where the last kind's lines end.
  private let end: Int
  // Calls that find nothing, and look for something after they have drained this: until then nothing is put in,
  // so that each thing is where they look.
  private let searches = Atomic<Int>(0)

  /// - Parameters:
  ///   - kinds: how many kinds of things there are, which are kept apart.
  ///   - hasLine: whether there is a line of words for the owner.
  public init(
    for calls: borrowing CallSections, kinds: Int = 1, hasLine: Bool = false
  ) throws(Failure) {
    words = try CallWords(for: calls, lines: kinds + (hasLine ? 1 : 0))
    lineSize = calls.end
    end = kinds * lineSize
  }

  /// Adds to one of the owner's words of a cell, as `CallWords.add`.
  @inline(__always)
  public func add(_ number: UInt64, to word: Int, of call: Int) {
    unsafe CallWords.add(number, to: words.of(end &+ call) + word)
  }

  /// What one of these is in all cells together: see `CallWords.sum`.
  public func sum(_ word: Int) -> UInt64 { words.sum(word, from: end, to: words.end) }

  /// The place of a kind in a cell. Of the first kind it is the cell itself.
  @inline(__always)
  public func place(of kind: Int, _ call: Int) -> Int { call &+ kind &* lineSize }

  /// What was put in last.
  @inline(__always)
  public func next(_ call: Int) -> UInt64? {
    let line = unsafe words.of(call)
    let count = unsafe cplatform_load_relaxed(line)
    return unsafe count > 0 ? line[Int(truncatingIfNeeded: count)] : nil
  }

  /// Takes what `next` has returned in the same section.
  @inline(__always)
  public func takeNext(_ call: Int) {
    let line = unsafe words.of(call)
    unsafe cplatform_store_release(line, cplatform_load_relaxed(line) &- 1)
  }

  /// Puts a thing in, if there is room.
  @inline(__always)
  public func put(_ call: Int, _ thing: UInt64) -> Bool {
    let line = unsafe words.of(call)
    let count = unsafe cplatform_load_relaxed(line)
    guard count < UInt64(Self.capacity), !isSearched else { return false }
    unsafe line[Int(truncatingIfNeeded: count &+ 1)] = thing
    unsafe cplatform_store_release(line, count &+ 1)
    return true
  }

  /// Puts in as many of some things as there is room for, from the first on: none if that is less than half of them, or
  /// while somebody searches. Returns how many.
  @inline(__always)
  public func put(_ call: Int, _ things: UnsafeBufferPointer<UInt64>) -> Int {
    let line = unsafe words.of(call)
    let count = unsafe Int(truncatingIfNeeded: cplatform_load_relaxed(line))
    let putCount = min(things.count, Self.capacity &- count)
    guard putCount &* 2 >= things.count, !isSearched else { return 0 }
    for index in 0..<putCount {
      unsafe line[count &+ index &+ 1] = things[index]
    }
    unsafe cplatform_store_release(line, UInt64(count &+ putCount))
    return putCount
  }

  /// Lets `fill` put up to half of what there is room for into a cell that is empty, and takes the last of it.
  @inline(__always)
  public func take(
    _ call: Int, filling fill: (UnsafeMutableBufferPointer<UInt64>) -> Int
  ) -> UInt64? {
    let line = unsafe words.of(call)
    // Some stay for others, and room for what is given back.
    let count = unsafe fill(
      UnsafeMutableBufferPointer(start: line + 1, count: Self.capacity / 2 + 1))
    guard count > 0 else { return nil }
    unsafe cplatform_store_release(line, UInt64(count &- 1))
    return unsafe line[count]
  }

  public func isEmpty(_ call: Int) -> Bool { unsafe cplatform_load_relaxed(words.of(call)) == 0 }

  /// Whether calls look for things.
  @inline(__always)
  public var isSearched: Bool { searches.load(ordering: .relaxed) != 0 }

  /// Says that a call has begun to look for things, or has ended that.
  public func countSearch(_ change: Int) {
    // What is put in by calls that have not seen this is found by a drain, which comes to their cells later.
    searches.wrappingAdd(change, ordering: .relaxed)
  }

  /// Takes all out, for `giveBack`, which runs as in a section. Returns how many there were.
  @inline(never)
  public func drain(_ calls: borrowing CallSections, _ giveBack: (UInt64) -> Void) -> UInt64 {
    var drained: UInt64 = 0
    // Calls are searching: after this a place that is empty stays so.
    calls.waitForCalls()
    var place = 0
    while place < end {
      let line = unsafe words.of(place)
      if unsafe cplatform_load_acquire(line) > 0 {
        let call = place % lineSize
        calls.close(call)
        let count = unsafe cplatform_load_relaxed(line)
        for index in 0..<Int(truncatingIfNeeded: count) { giveBack(unsafe line[index &+ 1]) }
        unsafe cplatform_store_release(line, 0)
        calls.reopen(call)
        drained &+= count
      }
      place &+= CallSections.cellSize
    }
    return drained
  }

  /// How many things of a kind there are, at a moment at which no call is under way.
  public func count(of kind: Int = 0) -> UInt64 {
    words.sum(0, from: kind &* lineSize, to: (kind &+ 1) &* lineSize)
  }
}
