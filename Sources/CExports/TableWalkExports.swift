// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/pagetable.h

import Addressing
import CDMACore
import PageTables
import Primitives

@implementation @c(dmacore_pagetable_walk)
public func dmacore_pagetable_walk(
  _ given: UnsafePointer<dmacore_walk_options>!, _ iova: dmacore_iova_t, _ access: UInt32,
  _ out: UnsafeMutablePointer<dmacore_translation>!,
  _ outFault: UnsafeMutablePointer<dmacore_walk_fault>!
) -> CInt {
  status { () throws(Failure) in
    let out = unsafe try output(out)
    let walk = unsafe try tableWalk(given)
    let access = try Access(checking: access, among: [.read, .write, .execute, .privileged])
    do throws(WalkFault) {
      let found = try walk.translate(IOVA(iova), for: access)
      unsafe out.pointee = dmacore_translation(
        first: found.first, last: found.last, target: found.target, access: found.access.rawValue,
        reserved: 0)
    } catch {
      if let outFault = unsafe outFault { unsafe outFault.pointee = dmacore_walk_fault(error) }
      throw Failure.badAddress
    }
  }
}

private func tableWalk(
  _ given: UnsafePointer<dmacore_walk_options>?
) throws(Failure) -> TableWalk {
  try require(unsafe given != nil)
  let first = unsafe try walkOptions(given)
  guard let given = unsafe first.second_stage else {
    return unsafe TableWalk(try foreignTable(first, read: first.read, opaque: first.opaque))
  }
  let second = unsafe try walkOptions(given)
  try require(unsafe second.second_stage == nil)
  return unsafe TableWalk(
    try foreignTable(first, read: first.read, opaque: first.opaque),
    behind: try foreignTable(second, read: second.read, opaque: second.opaque))
}

@inline(never)
func walkOptions(
  _ given: UnsafePointer<dmacore_walk_options>?
) throws(Failure) -> dmacore_walk_options {
  unsafe try options(given, defaults: dmacore_walk_options())
}

@inline(never)
func foreignTable(
  _ options: dmacore_walk_options, read: ForeignTable.Read?, opaque: UnsafeMutableRawPointer?
) throws(Failure) -> ForeignTable {
  guard let kind = PageTableKind(rawValue: unsafe options.format), let read = unsafe read else {
    throw .invalidArgument
  }
  return unsafe try ForeignTable(
    kind: kind, granule: UInt64(options.granule),
    options: PageTableOptions(
      levels: Int(options.levels), inputBits: Int(options.input_bits),
      outputBits: Int(options.output_bits),
      features: PageTableFeatures(rawValue: options.features)),
    root: PhysicalAddress(options.root), read: read, opaque: opaque)
}

extension dmacore_walk_fault {
  fileprivate init(_ fault: WalkFault) {
    self.init(
      input: fault.input, word: fault.word.rawValue, reason: fault.reason.rawValue,
      stage: UInt32(truncatingIfNeeded: fault.stage),
      level: UInt32(truncatingIfNeeded: fault.level), error: fault.error,
      is_table_access: fault.isTableAccess ? 1 : 0, reserved: 0)
  }
}
