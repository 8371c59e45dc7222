// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import CPlatform
import MemoryMap
import PageTables
import Primitives

// Theory of operation: nested domains.
//
// 1. Concepts
// A nested domain is a guest's own translation behind that of an unmanaged domain, its parent: tables of
// the guest lead device addresses to guest-physical ones (stage 1), and the parent leads those to memory
// (stage 2). The guest's tables lie in guest-physical memory too.
//
// 2. Implementation
// 2.1 An address is looked up by a walk of the guest's tables (TableWalk), whose words are read through
// the parent's table and the memory map, and then by the parent's table. All of it is one read section:
// so nothing that the parent unmaps strictly is reached afterwards, whatever the guest's tables say.
// 2.2 Nothing is cached, and nothing is written to the guest's tables.
// 2.3 The walk says where in guest-physical memory an access goes. By that, not by the device's address,
// the parent notes writes and knows of zero-copy mappings, because the guest may change its tables at any
// time.
//
// 3. Locking
// None.
//
// 4. What this does not do
// It sets no accessed and no dirty bits, and does not read tables by callbacks of memory regions.

/// The two stages of a nested domain.
@safe
public struct Nesting: ~Copyable {
  public let parent: UnsafeMutablePointer<Domain>
  private let guest: ForeignTable
  /// The parent's.
  public let translation: UnsafeMutablePointer<Domain.Translation>
  private let placed = Placed()

  /// Holds the parent until it ends.
  ///
  /// - Throws: `invalidArgument` when the parent is no unmanaged domain of the IOMMU.
  init(
    _ guest: ForeignTable, behind parent: UnsafeMutablePointer<Domain>,
    of iommu: UnsafeMutablePointer<IOMMU>
  ) throws(Failure) {
    guard unsafe parent.pointee.iommu == iommu,
      let translation = unsafe try? parent.pointee.ownTranslation()
    else { throw .invalidArgument }
    unsafe Box.hold(parent)
    unsafe self.parent = parent
    unsafe self.translation = translation
    self.guest = guest
  }

  deinit { unsafe Box.letGo(parent) }

  /// Where an address leads, and where stage 1 leads it. The caller is inside a read section while it
  /// uses the answer.
  ///
  /// - Parameter wanted: what is to be permitted; nothing to find out.
  public func translate(
    _ address: UInt64, for wanted: Access
  ) throws(WalkFault) -> (PageTableLookup, middle: UInt64) {
    try unsafe guest.translate(address, for: wanted, behind: translation.pointee.table)
  }

  /// As `translate`, for who asks what is permitted and not why nothing is.
  public func lookUp(_ address: UInt64, for wanted: Access) -> PageTableLookup {
    do throws(WalkFault) {
      return try translate(address, for: wanted).0
    } catch {
      return PageTableLookup(first: error.first, last: error.last, target: 0, access: [])
    }
  }
}

extension Domain {
  /// Reads a word of tables that lie in what a domain maps, for `ForeignTable`, with the domain as its
  /// opaque pointer.
  public static var readWord: ForeignTable.Read {
    { address, out, opaque in
      // SAFETY: whoever makes a nested domain passes the parent, which lives as long as the tables are
      // walked; `out` is a variable of the walk's.
      unsafe opaque!.assumingMemoryBound(to: Domain.self).pointee.readWord(address, out!)
    }
  }

  /// Reads a word where an unmanaged domain leads an address, which is a multiple of 8, as a device would.
  /// The caller is inside a read section.
  ///
  /// - Returns: 0, or something else if there is no memory of this process that may be read.
  private func readWord(_ address: UInt64, _ out: UnsafeMutablePointer<UInt64>) -> CInt {
    let unreadable: CInt = -1
    guard let translation = unsafe translation else { return unreadable }
    let found = unsafe translation.pointee.table.lookUp(IOVA(address))
    // The word lies in one leaf.
    let physical = PhysicalAddress(found.target &+ (address &- found.first))
    // A second stage knows no privilege.
    guard found.access.permits(.read),
      let bytes = try? PhysicalRange(first: physical, size: 8),
      let host = unsafe try? iommu.pointee.system.pointee.memory.host(of: bytes),
      UInt(bitPattern: host) & 7 == 0
    else { return unreadable }
    // SAFETY: eight bytes of memory that the region has, or on a flat system the domain's owner vouches
    // for, at a multiple of 8.
    // Acquiring: pairs with the release of whoever links tables, so that what is linked is seen.
    unsafe out.pointee = cplatform_load_acquire(host.assumingMemoryBound(to: UInt64.self))
    return 0
  }
}

extension Domain {
  /// What an address leads to in an identity domain or a nested one.
  @inline(never)
  func lookUpElsewhere(_ address: IOVA) -> PageTableLookup {
    guard let nesting = unsafe nesting else {
      return PageTableLookup(first: 0, last: UInt64.max, target: 0, access: .transfers)
    }
    let token = unsafe iommu.pointee.system.pointee.readers.enter()
    defer { unsafe iommu.pointee.system.pointee.readers.leave(token) }
    return unsafe nesting.pointee.lookUp(address.rawValue, for: [])
  }
}

// MARK: - Invalidation

extension Domain {
  /// Says that a guest has changed its tables: when this returns no access that they permitted before is
  /// under way, but inside callbacks of memory regions.
  ///
  /// - Throws: `notSupported` when the domain is not nested.
  public func invalidate(_ range: IOVARange) throws(Failure) {
    guard unsafe nesting != nil else { throw .notSupported }
    settle(range.first.rawValue, range.last.rawValue)
    notifiers.tell(.unmapped(range.first.rawValue, range.last.rawValue))
  }
}

extension Device {
  /// The same for the domain that a PASID is attached to.
  ///
  /// - Throws: `invalidArgument` for a PASID that its requests cannot carry, `notFound` when that has no
  ///   domain, and as there.
  public func invalidate(_ pasid: UInt32, _ range: IOVARange) throws(Failure) {
    guard has(pasid) else { throw .invalidArgument }
    guard let domain = unsafe group.pointee.holdDomain(of: pasid) else { throw .notFound }
    defer { unsafe Box.letGo(domain) }
    try unsafe domain.pointee.invalidate(range)
  }
}
