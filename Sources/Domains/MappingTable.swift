// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CPlatform
import Primitives
import Synchronization

/// How a mapping reaches what it leads to. The values are those of `mapping.h`.
public enum MappingPath: UInt32, Sendable {
  case refused = 0
  case direct = 1
  case bounced = 2
  case iommu = 3
  case iommuBounced = 4
  case busAddress = 5
  case ops = 6

  /// Whether its addresses are those of a page table.
  public var isTranslated: Bool { self == .iommu || self == .iommuBounced }
}

/// Everything about a mapping that undoing and syncing it needs.
@safe
public struct MappingRecord {
  public enum Kind: UInt8 {
    case streaming
    case coherent
  }

  public let kind: Kind
  public let path: MappingPath
  public let direction: Direction
  public let attributes: MappingAttributes
  /// The domain that the device's accesses go through, if it translates.
  public let domain: UnsafeMutablePointer<Domain>?
  /// The memory of an allocation. One that is streaming is of noncontiguous memory.
  public let memory: Allocation.Link?
  /// The physical address of its first byte.
  public let target: UInt64
  /// The parts of it that are copied, in order; nil if none is.
  public let bounce: UnsafeMutablePointer<BounceRun>?
  /// The pin table's stamp from before the mapping was made.
  public let stamp: UInt64

  public init(
    kind: Kind, path: MappingPath, direction: Direction, attributes: MappingAttributes = [],
    domain: UnsafeMutablePointer<Domain>?, memory: Allocation.Link? = nil, target: UInt64 = 0,
    bounce: UnsafeMutablePointer<BounceRun>? = nil, stamp: UInt64
  ) {
    self.kind = kind
    self.path = path
    self.direction = direction
    self.attributes = attributes
    unsafe self.domain = domain
    unsafe self.memory = memory
    self.target = target
    unsafe self.bounce = bounce
    self.stamp = stamp
  }
}

/// What a device has mapped, by its own addresses, and the domain that it is attached to.
///
/// The two belong under one lock: a mapping is made in the domain that the device has, and the
/// domain stays while there are mappings. Only the device's group changes it. Locked, rank 4.
@safe
public struct MappingTable: ~Copyable {
  public typealias Node = IntervalNode<MappingRecord>
  public typealias Link = UnsafeMutablePointer<Node>

  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State: ~Copyable {
    var tree = Treap<Node>()
    var cells = Slab<Node>()
    var domain: UnsafeMutablePointer<Domain>? = nil
    // Cells with a mapping call: mappings being made or undone.
    var pending = 0
    // Whether the domain is about to change: then no mapping call starts.
    var isFrozen = false
    var bytes: UInt64 = 0
    var total: UInt64 = 0
    /// The memory that is the device's own.
    var declared: UnsafeMutablePointer<DeclaredMemory>? = nil
  }

  private let state: Guarded<State>
  // The address of the domain, 0 for none, and its lowest bit set if that is an identity domain: a
  // copy for those that take no lock.
  private let published = Atomic<UInt>(0)
  // Whether the domain was ever one in which mappings may be direct.
  private let hasBeenDirect = Atomic<Bool>(false)
  // Live mappings that are bounced. Changed under the lock, read without it by whoever made one.
  private let bounced = Atomic<Int>(0)

  init() throws(Failure) {
    state = try Guarded<State>(.deviceMappings) { () throws(Failure) in State() }
  }

  // MARK: - Making and undoing

  /// A cell for the record of a new mapping, and the domain to make it in. The cell pins the domain
  /// until it goes to `insert` or `giveBack`.
  ///
  /// - Throws: `noMemory`.
  public func take() throws(Failure) -> (cell: Link, domain: UnsafeMutablePointer<Domain>?) {
    while true {
      var isFrozen = false
      let taken = unsafe state.withLock { state -> (Link, UnsafeMutablePointer<Domain>?)? in
        isFrozen = state.isFrozen
        guard !isFrozen, let cell = unsafe state.cells.take() else { return nil }
        state.pending += 1
        return unsafe (cell, state.domain)
      }
      if let taken = unsafe taken { return unsafe (taken.0, taken.1) }
      if isFrozen {
        // A backend may take its time to attach the devices of the group.
        cplatform_sleep()
        continue
      }
      let chunk = try Slab<Node>.makeChunk()
      state.withLock { state in state.cells.add(chunk) }
    }
  }

  /// Ends a call by entering its mapping.
  public func insert(_ cell: Link, _ range: DMARange, _ record: MappingRecord) {
    state.withLock { state in
      unsafe cell.initialize(
        to: Node(first: range.first.rawValue, last: range.last.rawValue, payload: record))
      unsafe state.tree.insert(cell)
      if unsafe record.bounce != nil { bounced.wrappingAdd(1, ordering: .relaxed) }
      state.pending -= 1
      state.bytes &+= range.extent &+ 1
      state.total &+= 1
    }
  }

  /// Ends a call whose mapping does not exist, or no longer.
  public func giveBack(_ cell: Link) {
    state.withLock { state in
      unsafe state.cells.giveBack(cell)
      state.pending -= 1
    }
  }

  /// Takes the record out that agrees with all of this, so that its mapping can be undone by this
  /// call alone. Ends with `giveBack`.
  ///
  /// `isWanted` runs under the table's lock; it may take a lock of a higher rank.
  public func claim(_ range: DMARange, isWanted: (MappingRecord) -> Bool) -> Link? {
    unsafe state.withLock { state -> Link? in
      guard let node = unsafe Self.find(in: state.tree, range, isWanted) else { return nil }
      unsafe remove(node, &state)
      return unsafe node
    }
  }

  /// Takes any record out, to clean up.
  func claimAny() -> Link? {
    unsafe state.withLock { state -> Link? in
      guard let node = unsafe state.tree.root else { return nil }
      unsafe remove(node, &state)
      return unsafe node
    }
  }

  private func remove(_ node: Link, _ state: inout State) {
    unsafe state.tree.remove(node)
    if unsafe node.pointee.payload.bounce != nil { bounced.wrappingSubtract(1, ordering: .relaxed) }
    state.pending += 1
    unsafe state.bytes &-= node.pointee.last &- node.pointee.first &+ 1
  }

  private static func find(
    in tree: borrowing Treap<Node>, _ range: DMARange, _ isWanted: (MappingRecord) -> Bool
  ) -> Link? {
    var found: Link? = nil
    let first = range.first.rawValue
    unsafe tree.visitOverlapping(first: first, last: first) { node in
      if unsafe node.pointee.first == first && node.pointee.last == range.last.rawValue
        && isWanted(node.pointee.payload)
      {
        unsafe found = node
      }
      return unsafe found == nil
    }
    return unsafe found
  }

  // MARK: - Looking up

  /// Whether there are mappings that are bounced. Whoever has the address of one knows that there are.
  @inline(__always)
  public var hasBounced: Bool { bounced.load(ordering: .relaxed) != 0 }

  /// Whether an address lies in a mapping that is bounced.
  public func isBounced(at address: UInt64) -> Bool {
    unsafe hasBounced && describe(address)?.record.bounce != nil
  }

  /// Of the mapping that covers a range, the first part that is copied and does not end before `offset`;
  /// and the mapping's first address. Holds the pool.
  public func holdBounce(
    of range: DMARange, from offset: UInt64
  ) -> (run: BounceRun, first: UInt64)? {
    state.withLock { state in
      var found: (run: BounceRun, first: UInt64)? = nil
      unsafe state.tree.visitOverlapping(
        first: range.first.rawValue, last: range.first.rawValue
      ) { node in
        guard unsafe node.pointee.last >= range.last.rawValue else { return true }
        if let run = unsafe BouncePool.part(of: node.pointee.payload.bounce, from: offset) {
          found = unsafe (run, node.pointee.first)
          unsafe Box.hold(BouncePool.pool(of: run))
        }
        return found == nil
      }
      return found
    }
  }

  /// What a record of a kind and direction says of a range that lies in it: its physical address, the
  /// mapping's attributes, and whether any of it is copied. What is mapped by bus address is MMIO.
  @inline(never)
  public func find(
    covering range: DMARange, _ kind: MappingRecord.Kind, _ direction: Direction
  ) -> (target: UInt64, attributes: MappingAttributes, isBounced: Bool)? {
    state.withLock { state in
      var found: (UInt64, MappingAttributes, Bool)? = nil
      let first = range.first.rawValue
      unsafe state.tree.visitOverlapping(first: first, last: first) { node in
        guard unsafe node.pointee.last >= range.last.rawValue,
          unsafe node.pointee.payload.kind == kind,
          unsafe node.pointee.payload.direction == direction
        else { return true }
        found = unsafe (
          node.pointee.payload.target &+ (first &- node.pointee.first),
          // What is allocated for a device that does not see the caches is not cached.
          node.pointee.payload.path == .busAddress || node.pointee.payload.memory != nil
            ? .mmio : node.pointee.payload.attributes,
          node.pointee.payload.bounce != nil
        )
        return false
      }
      return found
    }
  }

  /// Whether nothing is mapped in a range, and no call is under way that maps or unmaps something.
  func isClear(of range: DMARange) -> Bool {
    state.withLock { state in
      var isClear = state.pending == 0
      unsafe state.tree.visitOverlapping(
        first: range.first.rawValue, last: range.last.rawValue
      ) { _ in
        isClear = false
        return false
      }
      return isClear
    }
  }

  /// A record that an address lies in, for a message about it.
  public func describe(_ address: UInt64) -> (first: UInt64, last: UInt64, record: MappingRecord)? {
    state.withLock { state in
      var found: (UInt64, UInt64, MappingRecord)? = nil
      unsafe state.tree.visitOverlapping(first: address, last: address) { node in
        found = unsafe (node.pointee.first, node.pointee.last, node.pointee.payload)
        // One that starts there is what the caller means.
        return unsafe node.pointee.first != address
      }
      return found
    }
  }

  /// What an access to a directly mapped address meets.
  public enum Permission {
    /// It is permitted from `first` to `last` by one mapping.
    case permitted(first: UInt64, last: UInt64, Access)
    /// Mappings are there, and none permits it, up to `last`.
    case denied(last: UInt64)
    /// Nothing is mapped, up to `last`.
    case unmapped(last: UInt64)
  }

  /// Whether the device may access an address that is mapped directly; or by bus address, for one that
  /// leads to a peer.
  public func permission(
    at address: UInt64, _ access: Access, byBusAddress: Bool = false
  ) -> Permission {
    state.withLock { state in
      var permitted: (first: UInt64, last: UInt64, access: Access)? = nil
      var deniedLast: UInt64? = nil
      unsafe state.tree.visitOverlapping(first: address, last: address) { node in
        let (first, last) = unsafe (node.pointee.first, node.pointee.last)
        if unsafe (node.pointee.payload.path == .busAddress) != byBusAddress { return true }
        let granted = unsafe node.pointee.payload.direction.access
        if granted.isSuperset(of: access) {
          if permitted == nil || last > permitted!.last { permitted = (first, last, granted) }
        } else {
          deniedLast = min(deniedLast ?? last, last)
        }
        return true
      }
      if let permitted {
        return .permitted(first: permitted.first, last: permitted.last, permitted.access)
      }
      let next = unsafe state.tree.first(above: address)
      // The next mapping starts above an address, so there is one before it.
      let gapLast = unsafe next.map { unsafe $0.pointee.first &- 1 } ?? UInt64.max
      if let deniedLast { return .denied(last: min(deniedLast, gapLast)) }
      return .unmapped(last: gapLast)
    }
  }

  /// Which live mappings reach above an address: how many of a kind, or of any, and from where to where.
  public func beyond(
    _ mask: UInt64, _ kind: MappingRecord.Kind?
  ) -> (count: UInt64, first: UInt64, last: UInt64) {
    guard mask != UInt64.max else { return (0, 0, 0) }
    return state.withLock { state in
      var (count, first, last) = (UInt64(0), UInt64.max, UInt64(0))
      unsafe state.tree.visitOverlapping(first: mask &+ 1, last: UInt64.max) { node in
        guard unsafe kind == nil || node.pointee.payload.kind == kind else { return true }
        count += 1
        first = unsafe min(first, node.pointee.first)
        last = unsafe max(last, node.pointee.last)
        return true
      }
      return count == 0 ? (0, 0, 0) : (count, first, last)
    }
  }

  /// Shows the mappings that overlap a range, in order, under the table's lock.
  public func visit(
    _ first: UInt64, _ last: UInt64, _ body: (UInt64, UInt64, MappingRecord) -> Void
  ) {
    state.withLock { state in
      unsafe state.tree.visitOverlapping(first: first, last: last) { node in
        unsafe body(node.pointee.first, node.pointee.last, node.pointee.payload)
        return true
      }
    }
  }

  var totals: (count: UInt64, bytes: UInt64, total: UInt64) {
    state.withLock { state in (UInt64(state.tree.count), state.bytes, state.total) }
  }

  // MARK: - Declared memory

  /// The memory that is the device's own, held for an allocation; nil if there is none.
  public func holdDeclared() -> UnsafeMutablePointer<DeclaredMemory>? {
    unsafe state.withLock { state in
      if let declared = unsafe state.declared { unsafe Box.hold(declared) }
      return unsafe state.declared
    }
  }

  /// Returns whether it is: not if there is some.
  func declare(_ memory: UnsafeMutablePointer<DeclaredMemory>) -> Bool {
    state.withLock { state in
      guard unsafe state.declared == nil else { return false }
      unsafe state.declared = memory
      return true
    }
  }

  /// Takes it out, for the caller to let go of.
  ///
  /// - Throws: `notFound`, `busy` when allocations hold it.
  func releaseDeclared(
    evenIfUsed: Bool
  ) throws(Failure) -> UnsafeMutablePointer<DeclaredMemory> {
    try unsafe state.withLock { (state) throws(Failure) in
      guard let declared = unsafe state.declared else { throw .notFound }
      guard unsafe evenIfUsed || !Box.isShared(declared) else { throw .busy }
      unsafe state.declared = nil
      return unsafe declared
    }
  }

  // MARK: - Attachment

  /// The domain at this moment. The caller is inside a read section while it uses the answer.
  public var domain: UnsafeMutablePointer<Domain>? {
    // SAFETY: only `setDomain` writes this, with the address of a domain that the device holds; the
    // device lets go of it when no read section that found it is open.
    // Acquiring: pairs with the release in setDomain, so that the domain is made whole.
    unsafe UnsafeMutablePointer<Domain>(bitPattern: published.load(ordering: .acquiring) & ~1)
  }

  /// Whether the domain at this moment is an identity domain.
  public var hasIdentity: Bool { published.load(ordering: .relaxed) & 1 != 0 }

  /// Whether the domain is or was one in which mappings may be direct.
  var wasDirect: Bool { hasBeenDirect.load(ordering: .relaxed) }

  /// Keeps mapping calls from starting, until `setDomain` or `thaw`. Returns whether it does: not while
  /// there are mappings in the domain, or calls that make or undo some.
  func freeze() -> Bool {
    state.withLock { state in
      // Without a domain all calls that are under way will fail.
      guard unsafe state.domain == nil || (state.tree.count == 0 && state.pending == 0) else {
        return false
      }
      state.isFrozen = true
      return true
    }
  }

  func thaw() { state.withLock { state in state.isFrozen = false } }

  /// Changes the domain of a device whose table is frozen, or which is not known to anybody, and thaws
  /// it.
  func setDomain(_ domain: UnsafeMutablePointer<Domain>?) {
    state.withLock { state in
      unsafe state.domain = domain
      if let domain = unsafe domain,
        unsafe domain.pointee.kind == .identity || domain.pointee.kind == .hybrid
      {
        hasBeenDirect.store(true, ordering: .relaxed)
      }
      let isIdentity = unsafe domain.map { unsafe $0.pointee.kind == .identity } ?? false
      published.store(
        UInt(bitPattern: domain) | (isIdentity ? 1 : 0), ordering: .releasing)
      state.isFrozen = false
    }
  }
}
