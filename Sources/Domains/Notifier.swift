// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import PageTables
import Primitives
import Synchronization

// Theory of operation: notifiers.
//
// 1. Concepts
// A notifier calls back for what is mapped and unmapped in a domain. A replay tells what is mapped
// already.
//
// 2. Implementation
// 2.1 Whoever has changed the domain tells its list, which finds one notifier after another under its
// lock, holds it, and calls it when the lock is free. So callbacks may add and remove notifiers. Each
// has a greater number than those before it and stands in front of them: a search goes on below the
// number of the last one, which may be gone by then, and never comes to one that was added meanwhile.
// 2.2 Who destroys a notifier takes it out of the list and lets go of it. Who calls it holds it. The
// last to let go calls the release callback; nobody waits.
// 2.3 A domain without notifiers is changed at the cost of a load that orders nothing. So a change that
// runs beside the adding of a notifier may not see it.
// 2.4 A replay looks runs up, each look-up in a read section of its own, and calls back in none. What it
// has told may be gone, and those who unmapped it may have said so before. So it looks at the run
// again, tells the unmap of what is not there any more, and goes on where the run is another.
//
// 3. Locking
// The list's lock (rank 13), under which nothing else is done than to go through it.
//
// 4. What this does not do
// It does not order the events of several threads, and does not keep any.

/// A change of what is mapped in a domain.
public struct DomainChange {
  let type: dmacore_notify_flags
  let first: UInt64
  let last: UInt64
  /// Where `first` leads, if it is mapped.
  let target: UInt64
  let access: Access

  public static func mapped(
    _ range: IOVARange, to output: PhysicalAddress, _ access: Access
  ) -> DomainChange {
    DomainChange(
      type: DMACORE_NOTIFY_MAP, first: range.first.rawValue, last: range.last.rawValue,
      target: output.rawValue, access: access)
  }

  /// - Parameters first, last: in order.
  static func unmapped(_ first: UInt64, _ last: UInt64) -> DomainChange {
    DomainChange(type: DMACORE_NOTIFY_UNMAP, first: first, last: last, target: 0, access: [])
  }
}

/// Who is told of a domain's changes.
@safe
public struct Notifier: ~Copyable, Held {
  typealias Link = UnsafeMutablePointer<Notifier>

  private let domain: UnsafeMutablePointer<Domain>
  private let options: dmacore_notifier_options
  // Whether its maker has given it back, so that no call need start.
  private let isEnded = Atomic<Bool>(false)
  private let uses = UseCount()
  // The list's: the one that was added before, and a number that is greater than that one's.
  var next: Link? = nil
  var number: UInt64 = 0

  /// A new notifier of a domain, which holds that until it ends.
  ///
  /// - Throws: `invalidArgument`, `noMemory`.
  public static func place(
    _ domain: UnsafeMutablePointer<Domain>, _ options: dmacore_notifier_options
  ) throws(Failure) -> UnsafeMutablePointer<Notifier> {
    let notifier = unsafe try Box<Notifier>.place { () throws(Failure) in
      unsafe try Notifier(domain, options)
    }
    unsafe domain.pointee.notifiers.add(notifier)
    return unsafe notifier
  }

  private init(
    _ domain: UnsafeMutablePointer<Domain>, _ options: dmacore_notifier_options
  ) throws(Failure) {
    let types = DMACORE_NOTIFY_MAP.rawValue | DMACORE_NOTIFY_UNMAP.rawValue
    let flags = unsafe options.flags
    var options = unsafe options
    if unsafe options.last == 0 { unsafe options.last = UInt64.max }
    guard flags & types != 0, flags & ~(types | DMACORE_NOTIFY_ALIGNED.rawValue) == 0,
      unsafe options.reserved == 0 && options.notify != nil && options.first <= options.last
    else { throw .invalidArgument }
    unsafe Box.hold(domain)
    unsafe self.domain = domain
    unsafe self.options = options
  }

  deinit {
    if let release = unsafe options.release {
      ThreadRules.willCallBack()
      unsafe release(options.opaque)
    }
    unsafe Box.letGo(domain)
  }

  public func withUses<Result>(_ body: (borrowing UseCount) -> Result) -> Result { body(uses) }

  /// Ends a notifier for its maker. Calls that are under way may go on.
  public static func end(_ notifier: UnsafeMutablePointer<Notifier>) {
    unsafe notifier.pointee.isEnded.store(true, ordering: .relaxed)
    unsafe notifier.pointee.domain.pointee.notifiers.remove(notifier)
    unsafe Box.letGo(notifier)
  }

  private func has(_ flag: dmacore_notify_flags) -> Bool {
    unsafe options.flags & flag.rawValue != 0
  }

  func wants(_ change: DomainChange) -> Bool {
    unsafe has(change.type) && change.first <= options.last && change.last >= options.first
  }

  /// Calls back for a change that is wanted. The caller holds the notifier, and no lock.
  @inline(never)
  func tell(_ change: DomainChange) {
    var first = unsafe max(change.first, options.first)
    let last = unsafe min(change.last, options.last)
    let isMap = change.type == DMACORE_NOTIFY_MAP
    let offset = isMap ? change.first &- change.target : 0
    while !isEnded.load(ordering: .relaxed) {
      var eventLast = last
      if has(DMACORE_NOTIFY_ALIGNED) {
        // It starts with `first`, because nothing below may be in it.
        eventLast = first | AlignedBlock.mask(around: first, within: first, last, offset: offset)
      }
      var event = dmacore_notifier_event(
        struct_size: MemoryLayout<dmacore_notifier_event>.size, type: change.type.rawValue,
        access: change.access.rawValue, first: first, last: eventLast,
        phys: isMap ? first &- offset : 0)
      ThreadRules.willCallBack()
      unsafe options.notify(&event, options.opaque)
      guard eventLast < last else { return }
      first = eventLast &+ 1
    }
  }

  /// Calls back for all that is mapped.
  ///
  /// - Throws: `invalidArgument` when that is not wanted.
  public static func replay(_ notifier: UnsafeMutablePointer<Notifier>) throws(Failure) {
    guard unsafe notifier.pointee.has(DMACORE_NOTIFY_MAP) else { throw .invalidArgument }
    unsafe Box.hold(notifier)
    unsafe notifier.pointee.replay()
    unsafe Box.letGo(notifier)
  }

  private func replay() {
    let last = unsafe options.last
    var address = unsafe options.first
    while let run = unsafe domain.pointee.firstRun(from: address, through: last, unless: isEnded) {
      tell(run)
      guard !isEnded.load(ordering: .relaxed) else { return }
      var runLast = run.last
      if has(DMACORE_NOTIFY_UNMAP) {
        let now = unsafe domain.pointee.firstRun(
          from: run.first, through: run.last, unless: isEnded)
        guard let now, now.first == run.first, now.target == run.target, now.access == run.access
        else {
          tell(.unmapped(run.first, run.last))
          address = run.first
          continue
        }
        runLast = now.last
        if runLast < run.last { tell(.unmapped(runLast &+ 1, run.last)) }
      }
      guard runLast < last else { return }
      address = runLast &+ 1
    }
  }
}

extension Domain {
  /// The first addresses of a range that lead to contiguous memory with the same access.
  @inline(never)
  fileprivate func firstRun(
    from first: UInt64, through last: UInt64, unless isEnded: borrowing Atomic<Bool>
  ) -> DomainChange? {
    guard kind != .blocked else { return nil }
    var address = first
    var found = lookUp(IOVA(address))
    while !found.isMapped {
      // A guest's tables may have holes without end.
      guard found.last < last, !isEnded.load(ordering: .relaxed) else { return nil }
      address = found.last &+ 1
      found = lookUp(IOVA(address))
    }
    // Outputs have fewer than 64 bits, but for the run of all addresses, which nothing follows.
    let target = found.target &+ (address &- found.first)
    var runLast = found.last
    while runLast < last {
      let next = lookUp(IOVA(runLast &+ 1))
      guard next.access == found.access,
        next.target &- next.first == target &- address, next.first > runLast
      else { break }
      runLast = next.last
    }
    return DomainChange(
      type: DMACORE_NOTIFY_MAP, first: address, last: min(runLast, last), target: target,
      access: found.access)
  }
}
