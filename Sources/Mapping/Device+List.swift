// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Bounce
import CDMACore
import CPlatform
import Domains
import PageTables
import Primitives

// Theory of operation: mappings of lists.
//
// 1. Concepts
// A list of memory becomes segments for the device, as few as its limits allow. `scatterlist.h` says which.
// A part of a list is contiguous memory of one or more entries that fits a segment and takes one path, that of
// a single mapping. All parts that are translated have one range of IOVAs.
//
// 2. Implementation
// 2.1 The list is read once, into parts of the library's own, so that nobody can change it between a check
// and its use. What is not translated is mapped while it is read, since nothing of that depends on what
// follows. Then what is translated gets its range, and is filled in. Last the segments are written.
// 2.2 What is not translated has a record for each segment, if it has one, like a single mapping. What
// is translated has one record for the list, whose target is a digest of all segments. Attributes of both have
// a bit that no caller's have, so that a list and single mappings are not taken for each other.
// 2.3 Undoing and syncing go by the records and the page table. The list says only which records are
// meant: its segments, the digest, and what it says of memory is not looked at again.
// 2.4 Memory that has left a hybrid domain's window between the decision and the mapping makes the call
// start again.
//
// 3. Locking
// As for single mappings.
//
// 4. What this does not do
// It does not put copies side by side: each part that is bounced directly is a segment.

extension Device {
  public typealias List = UnsafeMutablePointer<dmacore_sg>

  // Parts for which there is room on the stack: 32 of them in 1024 bytes.
  private static var partsOnStack: Int { 32 }

  /// Maps a list. Returns how many segments it has become.
  ///
  /// - Throws: as `map`, `invalidArgument` for what is no list, `tooBig` for more segments than entries, or
  ///   than `most` if that is not 0.
  public func map(
    _ list: List, count: Int, _ direction: Direction, _ attributes: MappingAttributes, most: Int
  ) throws(Failure) -> Int {
    let attributes = attributes.union(.list)
    let segmentLimits = SegmentLimits(
      size: limits.maxSegmentSize, boundary: limits.segmentBoundaryMask, areCutLater: false)
    if mappings.mayTag, !hasDetours,
      unsafe try mapTagged(list, count, direction, attributes, segmentLimits)
    {
      return 1
    }
    return unsafe try map(
      list, count: count, direction, attributes, most: most, segmentLimits)
  }

  /// Maps a list that becomes one segment, if it can be kept as a tag. Returns whether it is.
  ///
  /// - Throws: as `map`.
  @inline(never)
  private func mapTagged(
    _ list: List, _ count: Int, _ direction: Direction, _ attributes: MappingAttributes,
    _ segmentLimits: SegmentLimits
  ) throws(Failure) -> Bool {
    let limit = try limit(for: .streaming)
    var walk = unsafe ListWalk(list, count: count)
    let (extentMax, boundary) = (segmentLimits.sizeMax &- 1, segmentLimits.boundary)
    var found = mapPages(
      walk, direction, attributes, limit, extentMax: min(extentMax, boundary))
    if found == nil {
      found = unsafe try withUnsafeMutablePointer(to: &walk) { (walk) throws(Failure) in
        unsafe try mapTagged(
          RangeReader(walk), direction, attributes, limit, extentMax: extentMax,
          boundary: boundary)
      }
    }
    guard let (address, size) = found else { return false }
    unsafe list.pointee.set(address.rawValue, size, .iommu)
    unsafe second(of: list, count)?.pointee.set(0, 0, .refused)
    return true
  }

  /// As `mapTagged` does with what it reads, for a short list of whole pages, which most lists are.
  @inline(__always)
  private func mapPages(
    _ walk: ListWalk, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit, extentMax: UInt64
  ) -> (address: DMAAddress, size: UInt64)? {
    guard !attributes.contains(.mmio) else { return nil }
    return unsafe withUnsafeTemporaryAllocation(
      of: PhysicalRange.self, capacity: Self.runsMax
    ) { runs in
      guard let (count, size) = unsafe walk.readPages(into: runs), size &- 1 <= extentMax else {
        return nil
      }
      return unsafe mapTagged(
        runs[0].first.rawValue, size &- 1,
        UnsafeBufferPointer(start: runs.baseAddress, count: count), direction, attributes, limit
      ).map { ($0, size) }
    }
  }

  /// The entry behind the first, if there is one.
  @inline(never)
  private func second(of list: List, _ count: Int) -> UnsafeMutablePointer<dmacore_sg>? {
    var walk = unsafe ListWalk(list + 1, count: count &- 1)
    return unsafe (try? walk.step()) ?? nil
  }

  /// The range of the one segment that a list has, if it is translated and not copied.
  private func onlySegment(_ list: List, _ count: Int) -> DMARange? {
    guard unsafe list.pointee.dma_flags == 0,
      unsafe list.pointee.path == UInt16(MappingPath.iommu.rawValue),
      unsafe second(of: list, count)?.pointee.dma_size ?? 0 == 0
    else { return nil }
    return unsafe try? DMARange(
      first: DMAAddress(list.pointee.dma), size: list.pointee.dma_size)
  }

  /// As above, of a list's segments or those that are a transfer's.
  ///
  /// - Parameter attributes: with `list`.
  @inline(never)
  func map(
    _ list: List, count: Int, _ direction: Direction, _ attributes: MappingAttributes, most: Int,
    _ segmentLimits: SegmentLimits
  ) throws(Failure) -> Int {
    let limit = try limit(for: .streaming)
    return try unsafe withUnsafeTemporaryAllocation(
      of: ListPart.self, capacity: Self.partsOnStack
    ) { (storage) throws(Failure) -> Int in
      while true {
        var parts = unsafe ListParts(storage, entries: count)
        do throws(Failure) {
          return try unsafe map(
            ListWalk(list, count: count), most <= 0 ? count : min(count, most), direction,
            attributes, limit, segmentLimits, &parts)
        } catch {
          guard parts.isStale else { throw error }
        }
      }
    }
  }

  /// What a list has in the domain.
  @safe
  private struct Translated {
    var range: IOVARange? = nil
    /// What lies behind the pages that are filled.
    var next: UInt64 = 0
    var mapping: DMARange? = nil
    var runs: UnsafeMutablePointer<BounceRun>? = nil
    var path = MappingPath.iommu
  }

  @inline(never)
  private func map(
    _ list: ListWalk, _ most: Int, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit, _ segmentLimits: SegmentLimits, _ parts: inout ListParts
  ) throws(Failure) -> Int {
    let (cell, domain) = unsafe try mappings.take()
    let translating = unsafe translating(domain)
    let stamp = unsafe withPins(of: translating) { $0.stamp }
    var translated = Translated()
    unsafe ops?.pointee.beginList(isMapping: true)
    var hasEnded = false
    do throws(Failure) {
      unsafe try read(list, direction, attributes, limit, segmentLimits, in: domain, &parts)
      guard parts.count > 0 else { throw .invalidArgument }
      if let domain = unsafe translating {
        unsafe try translate(
          &parts, direction, attributes, limit, segmentLimits, in: domain, &translated)
      }
      let (sizeMax, boundary) = (segmentLimits.sizeMax, segmentLimits.boundary)
      let (count, digest) = try parts.segments(sizeMax: sizeMax, boundary: boundary, into: nil)
      // What had more room another time might become fewer.
      guard count <= most else { throw parts.shortage ?? .tooBig }
      hasEnded = true
      try unsafe ops?.pointee.endList(isMapping: true)
      _ = try parts.segments(sizeMax: sizeMax, boundary: boundary, into: list)
      guard let range = translated.mapping else {
        unsafe mappings.giveBack(cell)
        return count
      }
      let record = unsafe MappingRecord(
        kind: .streaming, path: translated.path, direction: direction, attributes: attributes,
        domain: translating, target: digest, bounce: translated.runs, stamp: stamp)
      unsafe mappings.insert(cell, range, record)
      return count
    } catch {
      if let range = translated.range {
        unsafe translating?.pointee.abandon(range, before: translated.next)
      }
      unsafe BouncePool.giveBackAll(translated.runs)
      undo(parts, direction, attributes)
      if !hasEnded { try? unsafe ops?.pointee.endList(isMapping: true) }
      unsafe mappings.giveBack(cell)
      throw error
    }
  }

  /// Reads a list into parts, and maps those that are not translated.
  @inline(never)
  private func read(
    _ list: ListWalk, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit, _ segmentLimits: SegmentLimits,
    in domain: UnsafeMutablePointer<Domain>?, _ parts: inout ListParts
  ) throws(Failure) {
    let boundary = segmentLimits.boundary
    // What is translated has boundaries in memory inside of pages alone, where its addresses are the same.
    let isUnbounded = unsafe domain?.pointee.kind == .dma && boundary > Self.granule.mask
    var reader = try ListReader(
      list, sizeMax: min(segmentLimits.sizeMax &- 1, boundary) &+ 1,
      boundary: isUnbounded ? UInt64.max : boundary)
    // Entries up to this one are looked at one by one.
    var aloneCount = 0
    while !reader.isAtEnd {
      let before = reader
      let (memory, isMarked, isMerged) = try reader.take(
        in: ranges, isAlone: reader.count <= aloneCount || attributes.contains(.mmio))
      let isMMIO = isMarked || attributes.contains(.mmio)
      let attributes = isMMIO ? attributes.union(.mmio) : attributes
      let decision = unsafe decide(memory, attributes, limit: limit, in: domain)
      let isPeer = decision.reasons.contains(.peer)
      let isPlain = decision.path == .direct || decision.path.isTranslated
      if (!isPlain || isPeer) && isMerged {
        // Another entry may take another path.
        aloneCount = max(before.count, reader.isAtEnd ? reader.count : reader.count &- 1)
        reader = before
        continue
      }
      try parts.reserve()
      var part = ListPart(memory, 0, decision.path, isMMIO: isMMIO, isPeer: isPeer)
      if !decision.path.isTranslated {
        guard decision.path == .direct && leavesDirectUnrecorded else {
          try map(
            memory, direction, attributes, limit, part, &parts)
          continue
        }
        guard let bus = ranges.bus(of: memory) else { throw .outOfRange }
        if let domain = unsafe domain, unsafe domain.pointee.kind == .hybrid,
          unsafe !domain.pointee.enterWindow(memory)
        {
          parts.isStale = true
          throw .busy
        }
        if isMMIO { mappings.note(registers: bus) }
        part.dma = bus.first.rawValue
      }
      parts.append(part)
    }
  }

  /// Maps a part that is not translated, as a single mapping is; what is bounced in several if it finds no
  /// place in one.
  @inline(never)
  private func map(
    _ memory: PhysicalRange, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit, _ part: ListPart, _ parts: inout ListParts
  ) throws(Failure) {
    var (first, extent, mask) = (memory.first.rawValue, memory.extent, UInt64(0))
    while true {
      // As much as before, up to where it may be cut.
      let last = (first &+ min(extent, memory.last.rawValue &- first)) | mask
      let this = try PhysicalRange(
        first: PhysicalAddress(first), last: min(PhysicalAddress(last), memory.last))
      do throws(Failure) {
        try parts.reserve()
        let (address, path) = try mapRecorded(this, direction, attributes, limit)
        if path.isTranslated {
          // The domain has come meanwhile. As a segment of a list it would be in no record.
          parts.isStale = true
          let range = DMARange(
            address, through: DMAAddress(address.rawValue &+ this.extent))
          if !endWholeTagged(range, direction, attributes),
            let node = unsafe claim(range, direction, attributes, digest: this.first.rawValue)
          {
            _ = unsafe undo(node)
          }
          throw .busy
        }
        parts.append(
          ListPart(this, address.rawValue, path, isMMIO: part.isMMIO, isPeer: part.isPeer))
        guard this.last < memory.last else { return }
        first = this.last.rawValue &+ 1
      } catch {
        guard part.path == .bounced && !parts.isStale, error == .noSpace || error == .noMemory
        else { throw error }
        if parts.shortage == nil { parts.shortage = error }
        // Half of it, up to the end of a page; or of a slot, if it is no more than a page.
        let grain = this.extent > Self.granule.mask ? Self.granule.mask : BounceSlots.granule.mask
        mask = max(grain, limits.minAlignMask)
        let half = (this.extent >> 1 &+ first) | mask
        extent = half < this.last.rawValue ? half &- first : (first | mask) &- first
        guard first &+ extent < this.last.rawValue else { throw error }
      }
    }
  }

  /// Gives what is translated its addresses.
  @inline(never)
  private func translate(
    _ parts: inout ListParts, _ direction: Direction, _ attributes: MappingAttributes,
    _ limit: AddressLimit, _ segmentLimits: SegmentLimits,
    in domain: UnsafeMutablePointer<Domain>, _ result: inout Translated
  ) throws(Failure) {
    var index = 0
    while index < parts.count, !parts[index].path.isTranslated { index &+= 1 }
    guard index < parts.count, let translation = unsafe domain.pointee.translation else { return }
    let mask = Self.granule.mask
    var lead = try PhysicalRange(
      first: PhysicalAddress(parts[index].memory & ~mask),
      last: PhysicalAddress((parts[index].memory &+ parts[index].extent) | mask))
    var alignMask = limits.minAlignMask
    let boundaryMask = segmentLimits.rangeBoundary
    var size = try parts.layOut(
      from: lead.first.rawValue, alignMask: alignMask, boundary: UInt64.max)
    var boundary: UInt64 = 0
    if boundaryMask != UInt64.max && boundaryMask > mask {
      if size &- 1 <= boundaryMask {
        boundary = boundaryMask &+ 1
      } else if !segmentLimits.areCutLater {
        // From the start of a block on, or as near as can be, so that there is no gap before the first part.
        let start = alignMask > mask ? lead.first.rawValue & alignMask : 0
        lead = try PhysicalRange(first: PhysicalAddress(start), size: Self.granule.bytes)
        size = try parts.layOut(from: start, alignMask: alignMask, boundary: boundaryMask)
        alignMask = max(alignMask, boundaryMask)
      }
    }
    var spare: UnsafeMutablePointer<BounceRun>? = nil
    for other in index..<parts.count where parts[other].path == .iommuBounced {
      let part = parts[other]
      unsafe try copyEnds(
        try PhysicalRange(
          first: PhysicalAddress(part.memory), last: PhysicalAddress(part.memory &+ part.extent)),
        direction, part.dma &- parts[index].dma, in: domain, &result.runs, &spare)
    }
    let range = try unsafe translation.pointee.allocate(
      size &- 1, for: lead, limit.highest, ranges, alignMask, boundary: boundary)
    let base = range.first.rawValue
    (result.range, result.next) = (range, base)
    let mapping = base &+ parts[index].dma
    var (last, run) = unsafe (mapping, result.runs)
    while index < parts.count {
      defer { index &+= 1 }
      guard parts[index].path.isTranslated else { continue }
      parts[index].dma &+= base
      let part = parts[index]
      // Neighbours are filled in together, so that leaves can be large, and no page twice.
      var extent = part.extent
      try clean(part, direction, attributes)
      while index &+ 1 < parts.count, parts[index].adjoins(parts[index &+ 1]),
        base &+ parts[index &+ 1].dma == part.dma &+ extent &+ 1
      {
        index &+= 1
        parts[index].dma &+= base
        try clean(parts[index], direction, attributes)
        extent = extent &+ parts[index].extent &+ 1
      }
      last = part.dma &+ extent
      let memory = try PhysicalRange(
        first: PhysicalAddress(part.memory), last: PhysicalAddress(part.memory &+ extent))
      if part.path == .iommuBounced {
        result.path = .iommuBounced
        unsafe try fillCut(
          memory, direction, attributes, in: domain, part.dma, &result.next, &run)
      } else {
        var access = direction.access.union(attributes.access)
        if part.isAlone { access.insert(.mmio) }
        try unsafe domain.pointee.fill(
          part.dma & ~mask, memory.rounded(to: Self.granule), access)
        result.next = (last | mask) &+ 1
      }
    }
    result.mapping = try DMARange(first: DMAAddress(mapping), last: DMAAddress(last))
  }

  /// Has caches maintained for a part that is mapped as it is.
  private func clean(
    _ part: ListPart, _ direction: Direction, _ attributes: MappingAttributes
  ) throws(Failure) {
    guard !isCoherent, part.path == .iommu, !part.isMMIO else { return }
    maintainCaches(
      of: try PhysicalRange(
        first: PhysicalAddress(part.memory), last: PhysicalAddress(part.memory &+ part.extent)),
      direction, attributes, forCPU: false)
  }

  /// Undoes what is mapped of a list and not translated. Nothing is copied back.
  @inline(never)
  private func undo(
    _ parts: borrowing ListParts, _ direction: Direction, _ attributes: MappingAttributes
  ) {
    for index in 0..<parts.count {
      let part = parts[index]
      guard !part.path.isTranslated,
        let range = try? DMARange(
          first: DMAAddress(part.dma), last: DMAAddress(part.dma &+ part.extent))
      else { continue }
      let attributes = part.isMMIO ? attributes.union(.mmio) : attributes
      if let node = unsafe claim(range, direction, attributes) {
        _ = unsafe undo(node)
      } else {
        _ = endsWithoutRecord(range)
      }
    }
  }

  // MARK: - Undoing and syncing

  /// Shows the segments of a list.
  ///
  /// - Throws: `invalidArgument` for what is no list with segments, and what `body` throws.
  @inline(never)
  private func visit(
    _ list: List, _ count: Int,
    _ body: (DMARange, _ path: UInt16, _ isMMIO: Bool) throws(Failure) -> Void
  ) throws(Failure) {
    var walk = unsafe ListWalk(list, count: count)
    var isEmpty = true
    while let entry = unsafe try walk.step(), unsafe entry.pointee.dma_size > 0 {
      let range = try unsafe DMARange(
        first: DMAAddress(entry.pointee.dma), size: entry.pointee.dma_size)
      try unsafe body(
        range, entry.pointee.path,
        entry.pointee.dma_flags & UInt16(DMACORE_SG_MMIO.rawValue) != 0)
      isEmpty = false
    }
    guard !isEmpty else { throw .invalidArgument }
  }

  private static func isTranslated(_ path: UInt16) -> Bool {
    MappingPath(rawValue: UInt32(path))?.isTranslated ?? false
  }

  /// Looks whether a list's segments are mapped that are not translated, and says which range the others are
  /// in, if there are any, and what all amount to.
  ///
  /// - Throws: `invalidArgument` when they are not, which is reported too.
  @inline(never)
  private func check(
    _ list: List, _ count: Int, _ call: StaticString, _ direction: Direction,
    _ attributes: MappingAttributes, ignoring ignored: MappingAttributes
  ) throws(Failure) -> (range: DMARange?, digest: UInt64, size: UInt64) {
    var range: DMARange? = nil
    var (digest, size) = (UInt64(0), UInt64(0))
    unsafe try visit(list, count) { (segment, path, isMMIO) throws(Failure) in
      digest = ListParts.mix(
        digest, segment.first.rawValue, segment.extent &+ 1,
        UInt64(path) << 1 | (isMMIO ? 1 : 0))
      let (sum, overflow) = size.addingReportingOverflow(segment.extent &+ 1)
      guard !overflow else { throw .invalidArgument }
      size = sum
      if Self.isTranslated(path) {
        range = try DMARange(first: range?.first ?? segment.first, last: segment.last)
        return
      }
      guard
        unsafe claim(
          segment, direction, isMMIO ? attributes.union(.mmio) : attributes, ignoring: ignored,
          isTaking: false) != nil || isWithoutRecord(segment)
      else {
        reportMisuse(call, of: segment, direction, attributes)
        throw .invalidArgument
      }
    }
    return (range, digest, size)
  }

  /// Ends the mapping of a list.
  ///
  /// - Parameter attributes: with `list`.
  /// - Throws: `invalidArgument` when the device has no such mapping, which is reported too.
  @inline(never)
  public func unmap(
    _ list: List, count: Int, _ direction: Direction, _ attributes: MappingAttributes
  ) throws(Failure) {
    guard !isUntracked || mappings.hasBounced else { return }
    if mappings.hasTags, let range = unsafe onlySegment(list, count),
      endWholeTagged(range, direction, attributes)
    {
      return
    }
    let found = unsafe try check(
      list, count, "unmap of a list", direction, attributes, ignoring: [])
    var node: MappingTable.Link? = nil
    if let range = found.range {
      unsafe node = claim(range, direction, attributes, digest: found.digest)
      guard unsafe node != nil else {
        reportMisuse("unmap of a list", of: range, direction, attributes)
        throw .invalidArgument
      }
    }
    var failure: Failure? = nil
    let isMaintaining = !isCoherent && !attributes.contains(.skipCPUSync)
    unsafe ops?.pointee.beginList(isMapping: false)
    do throws(Failure) {
      unsafe try visit(list, count) { (segment, path, isMMIO) throws(Failure) in
        if !Self.isTranslated(path) {
          do throws(Failure) {
            try unmapRecorded(
              segment, direction, isMMIO ? attributes.union(.mmio) : attributes)
          } catch {
            // Somebody else has ended it meanwhile. What is left ends all the same.
            failure = error
          }
        } else if isMaintaining, !isMMIO, let node = unsafe node {
          unsafe try syncTranslated(
            segment, in: found.range, direction, forCPU: true,
            claimed: node.pointee.payload.bounce, isCopying: false)
        }
      }
    } catch {
      failure = error
    }
    try? unsafe ops?.pointee.endList(isMapping: false)
    if let node = unsafe node {
      let isHeld = unsafe node.pointee.payload.bounce == nil ? undo(node) : undoBounced(node)
      if isHeld, let range = found.range { reportHeld(range) }
    }
    if let failure { throw failure }
  }

  /// Hands bytes of a list from the device to the CPU or back.
  ///
  /// - Parameters:
  ///   - offset, size: which bytes; a size of 0: all that follow.
  ///   - mark: the attributes that are not for callers.
  /// - Throws: `invalidArgument` when the list is not mapped, which is reported too, or has not so many bytes;
  ///   and what the callback of a memory region that is copied fails with.
  @inline(never)
  public func sync(
    _ list: List, count: Int, _ offset: UInt64, _ size: UInt64, _ direction: Direction,
    forCPU: Bool, mark: MappingAttributes = .list
  ) throws(Failure) {
    guard !isUntracked || mappings.hasBounced else { return cplatform_hand_over() }
    let found = unsafe try check(
      list, count, "sync of a list", direction, mark, ignoring: .all.subtracting(.mmio))
    if let range = found.range,
      unsafe claim(
        range, direction, mark, ignoring: .all, digest: found.digest, isTaking: false) == nil,
      !mappings.isTagged(range, direction, mark)
    {
      reportMisuse("sync of a list", of: range, direction)
      throw .invalidArgument
    }
    guard offset < found.size, size <= found.size &- offset else { throw .invalidArgument }
    cplatform_hand_over()
    let last = size == 0 ? found.size &- 1 : offset &+ size &- 1
    var next: UInt64 = 0
    unsafe try visit(list, count) { (segment, path, isMMIO) throws(Failure) in
      let (start, end) = (next, next &+ segment.extent)
      next = end &+ 1
      guard start <= last && offset <= end else { return }
      let first = segment.first.rawValue &+ (max(start, offset) &- start)
      let extent = min(end, last) &- max(start, offset)
      if !Self.isTranslated(path) {
        try syncPart(first, extent, direction, forCPU: forCPU)
      } else if !isMMIO, !isCoherent || mappings.hasBounced {
        unsafe try syncTranslated(
          DMARange(first: DMAAddress(first), last: DMAAddress(first &+ extent)), in: found.range,
          direction, forCPU: forCPU, claimed: nil, isCopying: true)
      }
    }
  }

  /// As `sync`, of a part of a list or transfer that is a mapping of its own.
  @inline(never)
  func syncPart(
    _ first: UInt64, _ extent: UInt64, _ direction: Direction, forCPU: Bool
  ) throws(Failure) {
    try sync(
      DMARange(first: DMAAddress(first), last: DMAAddress(first &+ extent)), direction,
      forCPU: forCPU, isOfList: true)
  }

  private func syncTranslated(
    _ part: DMARange, in range: DMARange?, _ direction: Direction, forCPU: Bool,
    claimed: UnsafeMutablePointer<BounceRun>?, isCopying: Bool
  ) throws(Failure) {
    guard let range, !forCPU || direction.access.contains(.write) else { return }
    let offset = part.first.rawValue &- range.first.rawValue
    unsafe try handOverAll(
      offset, offset &+ part.extent, of: isCopying ? range : nil, claimed, direction,
      forCPU: forCPU, list: range.first.rawValue, isCopying: isCopying)
  }
}
