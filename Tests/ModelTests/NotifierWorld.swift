// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import ReferenceModels
import TestSupport

/// What is done to a domain and its notifiers. Pages are numbers; notifiers count around those that
/// live.
enum NotifierStep {
  case map(first: UInt64, target: UInt64, count: UInt64, access: UInt32)
  case unmap(first: UInt64, count: UInt64, crossingHoles: Bool)
  case create(flags: UInt32, first: UInt64, last: UInt64)
  case replay(Int)
  case destroy(Int)
}

/// A domain whose notifiers each keep a mirror of it, beside a dictionary of pages.
final class NotifierWorld: World {
  static let pages: UInt64 = 4 * 512
  private static let pageSize: UInt64 = 4096

  /// Who mirrors the domain from what it is told.
  private final class Mirror {
    let flags: UInt32
    let range: ClosedRange<UInt64>
    var handle: OpaquePointer?
    var pages = PageMapModel()
    var events: [dmacore_notifier_event] = []
    var releases = 0
    var complaint: String?

    init(flags: UInt32, range: ClosedRange<UInt64>) {
      self.flags = flags
      self.range = range
    }

    var halfOpen: Range<UInt64> { range.lowerBound..<range.upperBound + 1 }

    func has(_ flag: dmacore_notify_flags) -> Bool { flags & flag.rawValue != 0 }

    func hear(_ event: dmacore_notifier_event) {
      events.append(event)
      let size = event.last - event.first + 1
      let (first, count) = (event.first / pageSize, size / pageSize)
      if has(DMACORE_NOTIFY_ALIGNED) {
        let isBlock = size & (size - 1) == 0 && (event.first | event.phys) & (size - 1) == 0
        if !isBlock { complaint = "an event is no aligned block" }
      }
      if event.first % pageSize != 0 || size % pageSize != 0 || !range.contains(first)
        || !range.contains(event.last / pageSize)
      {
        complaint = "an event is not of whole pages of the range"
      }
      if event.type == DMACORE_NOTIFY_UNMAP.rawValue {
        _ = pages.unmap(first, count: count, crossingHoles: true)
      } else {
        // A replay tells again what is known.
        _ = pages.unmap(first, count: count, crossingHoles: true)
        _ = pages.map(first, to: event.phys / pageSize, count: count, event.access)
      }
    }
  }

  private let system: OpaquePointer?
  private let iommu: OpaquePointer?
  private let domain: OpaquePointer?
  private var model = PageMapModel()
  private var mirrors: [Mirror] = []

  init() throws {
    var options = dmacore_system_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    var system: OpaquePointer?
    try demandSame(dmacore_system_create(&options, &system), 0, "system")
    var iommu: OpaquePointer?
    try demandSame(dmacore_iommu_create(system, nil, &iommu), 0, "IOMMU")
    var kind = dmacore_domain_options()
    kind.struct_size = MemoryLayout.size(ofValue: kind)
    kind.type = DMACORE_DOMAIN_UNMANAGED.rawValue
    var domain: OpaquePointer?
    try demandSame(dmacore_domain_create(iommu, &kind, &domain), 0, "domain")
    (self.system, self.iommu, self.domain) = (system, iommu, domain)
  }

  func take(_ step: NotifierStep, _ log: inout StepLog) throws {
    for mirror in mirrors { mirror.events = [] }
    switch step {
    case .map(let first, let target, let count, let access):
      try map(first, target, count, access, &log)
    case .unmap(let first, let count, let crossingHoles):
      try unmap(first, count, crossingHoles, &log)
    case .create(let flags, let first, let last):
      guard mirrors.count < 4 else { return }
      try create(flags, first...last, &log)
    case .replay(let index):
      guard !mirrors.isEmpty else { return }
      try replay(mirrors[index % mirrors.count], &log)
    case .destroy(let index):
      guard !mirrors.isEmpty else { return }
      let mirror = mirrors.remove(at: index % mirrors.count)
      dmacore_notifier_destroy(mirror.handle)
      log.note("dmacore_notifier_destroy(notifier);")
      try demandSame(mirror.releases, 1, "releases")
    }
    try compareMirrors()
  }

  private func map(
    _ first: UInt64, _ target: UInt64, _ count: UInt64, _ access: UInt32, _ log: inout StepLog
  ) throws {
    let size = Self.pageSize
    let result = dmacore_domain_map(domain, first * size, target * size, count * size, access)
    log.note(
      "dmacore_domain_map(domain, \(hex(first * size)), \(hex(target * size)), "
        + "\(hex(count * size)), \(access))", gives: result)
    let isMapped = model.map(first, to: target, count: count, access)
    try demandSame(result, isMapped ? 0 : -17, "result of map")
    for mirror in mirrors {
      let part = (first..<first + count).clamped(to: mirror.halfOpen)
      try demandTold(mirror, DMACORE_NOTIFY_MAP, isMapped ? part : 0..<0)
    }
  }

  private func unmap(
    _ first: UInt64, _ count: UInt64, _ crossingHoles: Bool, _ log: inout StepLog
  ) throws {
    let size = Self.pageSize
    let flags =
      DMACORE_UNMAP_SPLIT.rawValue | (crossingHoles ? DMACORE_UNMAP_CROSS_HOLES.rawValue : 0)
    var unmapped: UInt64 = 0
    let result = dmacore_domain_unmap(domain, first * size, count * size, flags, &unmapped)
    log.note(
      "dmacore_domain_unmap(domain, \(hex(first * size)), \(hex(count * size)), \(flags), NULL)",
      gives: result)
    try demandSame(result, 0, "result of unmap")
    let gone = model.unmap(first, count: count, crossingHoles: crossingHoles)
    try demandSame(unmapped, UInt64(gone.count) * size, "bytes that were unmapped")
    let told = crossingHoles ? first..<first + count : first..<first + UInt64(gone.count)
    for mirror in mirrors {
      try demandTold(
        mirror, DMACORE_NOTIFY_UNMAP,
        gone.isEmpty ? 0..<0 : told.clamped(to: mirror.halfOpen))
    }
  }

  /// The events of a change are of these pages, one behind the other, or there are none.
  private func demandTold(
    _ mirror: Mirror, _ type: dmacore_notify_flags, _ pages: Range<UInt64>
  ) throws {
    guard mirror.has(type), !pages.isEmpty else {
      try demandSame(mirror.events.count, 0, "events that nobody wants")
      return
    }
    var next = pages.lowerBound * Self.pageSize
    for event in mirror.events {
      try demandSame(event.type, type.rawValue, "type of an event")
      try demandSame(event.first, next, "where an event starts")
      next = event.last + 1
    }
    try demandSame(next, pages.upperBound * Self.pageSize, "where the events end")
    if !mirror.has(DMACORE_NOTIFY_ALIGNED) { try demandSame(mirror.events.count, 1, "events") }
  }

  private func create(_ flags: UInt32, _ range: ClosedRange<UInt64>, _ log: inout StepLog) throws {
    let mirror = Mirror(flags: flags, range: range)
    var options = dmacore_notifier_options()
    options.struct_size = MemoryLayout.size(ofValue: options)
    options.flags = flags
    options.first = range.lowerBound * Self.pageSize
    options.last = range.upperBound * Self.pageSize + Self.pageSize - 1
    options.opaque = Unmanaged.passUnretained(mirror).toOpaque()
    options.notify = { event, opaque in
      Unmanaged<Mirror>.fromOpaque(opaque!).takeUnretainedValue().hear(event!.pointee)
    }
    options.release = { opaque in
      Unmanaged<Mirror>.fromOpaque(opaque!).takeUnretainedValue().releases += 1
    }
    try demandSame(dmacore_notifier_create(domain, &options, &mirror.handle), 0, "create")
    log.note(
      "dmacore_notifier_create(domain, &options, &notifier)  /* \(flags), \(range) */", gives: 0)
    mirrors.append(mirror)
    try demandSame(mirror.events.count, 0, "events of a creation")
    // From here on it knows all.
    if mirror.has(DMACORE_NOTIFY_MAP) { try replay(mirror, &log) }
  }

  private func replay(_ mirror: Mirror, _ log: inout StepLog) throws {
    let result = dmacore_notifier_replay(mirror.handle)
    log.note("dmacore_notifier_replay(notifier)", gives: result)
    guard mirror.has(DMACORE_NOTIFY_MAP) else {
      try demandSame(result, -22, "result of a replay of unmaps")
      return
    }
    try demandSame(result, 0, "result of replay")
    // Each page once, in order; those that are contiguous in one event.
    var told = PageMapModel()
    for event in mirror.events {
      let (first, count) = (
        event.first / Self.pageSize, (event.last - event.first + 1) / Self.pageSize
      )
      let target = event.phys / Self.pageSize
      try demandSame(told.map(first, to: target, count: count, event.access), true, "once")
      if !mirror.has(DMACORE_NOTIFY_ALIGNED), let before = told.pages[first &- 1] {
        let follows = before.target + 1 == target && before.access == event.access
        try demandSame(follows, false, "a run that follows another")
      }
    }
    try demandSame(told == model.part(mirror.range), true, "a replay is all that is mapped")
  }

  private func compareMirrors() throws {
    for mirror in mirrors {
      if let complaint = mirror.complaint { throw Divergence(complaint) }
      try demandSame(mirror.releases, 0, "releases")
      guard mirror.has(DMACORE_NOTIFY_MAP), mirror.has(DMACORE_NOTIFY_UNMAP) else { continue }
      try demandSame(mirror.pages == model.part(mirror.range), true, "the mirror is the domain")
    }
  }

  /// What the domain says of every page.
  func compare() throws {
    for page in 0..<Self.pages {
      var found = dmacore_translation()
      let iova = page * Self.pageSize
      let result = dmacore_domain_translate(domain, iova, 0, &found)
      guard let known = model.pages[page] else {
        try demandSame(result, -2, "result of translate")
        continue
      }
      try demandSame(result, 0, "result of translate")
      try demandSame(
        found.target + (iova - found.first), known.target * Self.pageSize, "where a page leads")
    }
  }

  func end() throws {
    for mirror in mirrors {
      dmacore_notifier_destroy(mirror.handle)
      try demandSame(mirror.releases, 1, "releases")
    }
    dmacore_domain_destroy(domain)
    dmacore_iommu_destroy(iommu)
    dmacore_system_destroy(system)
  }
}
