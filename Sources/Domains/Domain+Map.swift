// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import PageTables
import Primitives

// Mappings of the caller's choice, in unmanaged domains.

extension Domain {
  /// The translation of an unmanaged domain.
  ///
  /// - Throws: `notSupported` for other domains.
  func ownTranslation() throws(Failure) -> UnsafeMutablePointer<Translation> {
    guard kind == .unmanaged, let translation = unsafe translation else { throw .notSupported }
    return unsafe translation
  }

  /// Maps a range where the caller says.
  ///
  /// - Throws: `notSupported` when the domain is not for this or cannot express the access,
  ///   `notPermitted` when a part is reserved, and what `AnyPageTable.map` throws and the backend fails
  ///   with.
  public func map(
    _ input: IOVARange, to output: PhysicalAddress, access: Access
  ) throws(Failure) {
    let translation = unsafe try ownTranslation()
    guard reserved.count == 0 || !reserved.forbid(input) else { throw .notPermitted }
    try takingTables { () throws(Failure) in
      try unsafe translation.pointee.table.map(input, to: output, access: access)
    }
    do throws(Failure) {
      try backend.map(input, to: output, access)
    } catch {
      // Whole leaves that no one else maps, so that this can't fail.
      _ = try unsafe translation.pointee.table.unmap(input, crossingHoles: true)
      settle(input.first.rawValue, input.last.rawValue)
      throw error
    }
    notifiers.tell(.mapped(input, to: output, access))
  }

  /// Unmaps a range, strictly unless it is not syncing: when this returns no access through it is under
  /// way, but for those of zero-copy mappings, which are reported unless a listener ends them, and inside
  /// callbacks of memory regions.
  ///
  /// - Returns: how many bytes were mapped.
  /// - Throws: as `AnyPageTable.unmap`, and `notSupported` when the domain is not for this.
  @inline(never)
  public func unmap(
    _ input: IOVARange, crossingHoles: Bool, splitting: Bool, syncing: Bool = true
  ) throws(Failure) -> UInt64 {
    let translation = unsafe try ownTranslation()
    let size = try takingTables { () throws(Failure) in
      try unsafe translation.pointee.table.unmap(
        input, crossingHoles: crossingHoles, splitting: splitting)
    }
    guard size > 0 else { return 0 }
    let first = input.first.rawValue
    // What lies behind a hole that stopped it is still mapped.
    let last = crossingHoles ? input.last.rawValue : first &+ (size &- 1)
    backend.unmap(first, last)
    if syncing { settle(first, last) }
    notifiers.tell(.unmapped(first, last))
    reportHeld(first, last)
    return size
  }

  /// Returns when no access is under way through what has been unmapped before.
  ///
  /// - Throws: `notSupported` when the domain is not for this.
  public func sync() throws(Failure) {
    _ = unsafe try ownTranslation()
    settle()
  }

  private func reportHeld(_ first: UInt64, _ last: UInt64) {
    // There is no record that says since when: any pin of these addresses may be meant.
    guard pins.holds(first: first, last: last, since: 0) else { return }
    unsafe iommu.pointee.system.pointee.reporter.report(.warning, .busy, object: "domain") { text in
      text.append("unmap of ")
      text.append(hexadecimal: first)
      text.append(" to ")
      text.append(hexadecimal: last)
      text.append(": a zero-copy mapping of a device still holds a part")
    }
  }

  /// Looks an address up, for a request as a device's.
  ///
  /// - Throws: `notPermitted` in a domain that blocks, `notFound`, `accessDenied`.
  public func translate(_ address: IOVA, _ access: Access) throws(Failure) -> PageTableLookup {
    guard kind != .blocked else { throw .notPermitted }
    let found = lookUp(address)
    guard found.isMapped else { throw .notFound }
    guard found.access.permits(access) else { throw .accessDenied }
    return found
  }

  /// What an address leads to, in a domain that does not block.
  @inline(never)
  func lookUp(_ address: IOVA) -> PageTableLookup {
    guard let translation = unsafe translation else { return lookUpElsewhere(address) }
    let token = unsafe iommu.pointee.system.pointee.readers.enter()
    let found = unsafe translation.pointee.table.lookUp(address)
    unsafe iommu.pointee.system.pointee.readers.leave(token)
    return found
  }
}

// MARK: - Lists

extension Domain {
  /// Maps runs of memory one behind the other from an address on, all of them or none.
  ///
  /// - Throws: as `map`.
  public func map(
    _ segments: UnsafeBufferPointer<dmacore_domain_segment>, at start: IOVA, access: Access
  ) throws(Failure) {
    let table = unsafe try ownTranslation()
    let granule = unsafe table.pointee.table.facts.granule
    var next = start.rawValue
    do throws(Failure) {
      var index = 0
      while index < segments.count {
        // As long as can be, for large leaves.
        var run = try unsafe Self.memory(segments[index], granule)
        index &+= 1
        while index < segments.count {
          let memory = try unsafe Self.memory(segments[index], granule)
          guard memory.first > run.last, memory.first.rawValue &- 1 == run.last.rawValue else {
            break
          }
          run = try PhysicalRange(first: run.first, last: memory.last)
          index &+= 1
        }
        let (last, overflow) = next.addingReportingOverflow(run.extent)
        guard !overflow, last != UInt64.max || index == segments.count else { throw .outOfRange }
        try map(IOVARange(first: IOVA(next), last: IOVA(last)), to: run.first, access: access)
        next = last &+ 1
      }
    } catch {
      if next > start.rawValue {
        // Whole leaves that no one else maps, so that this can't fail.
        let done = try IOVARange(first: start, last: IOVA(next &- 1))
        _ = try unmap(done, crossingHoles: true, splitting: false)
      }
      throw error
    }
  }

  private static func memory(
    _ segment: dmacore_domain_segment, _ granule: Granule
  ) throws(Failure) -> PhysicalRange {
    let memory = try PhysicalRange(
      first: PhysicalAddress(segment.phys), size: segment.size, wrap: .outOfRange)
    guard memory.isAligned(to: granule) else { throw .invalidArgument }
    return memory
  }
}
