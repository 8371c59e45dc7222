// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Foundation

/// A caller's table allocator: pages whose physical addresses are not those of this process.
///
/// It notes every page that is freed wrongly, and lives while the library has a page. Pages come full
/// of ones, because an allocator need not zero them. Any thread may use it.
public final class TablePages: @unchecked Sendable {
  private let lock = NSLock()
  private var pages: [UInt64: (host: UnsafeMutableRawPointer, size: Int)] = [:]
  private var nextPhysical: UInt64
  private var allocationsLeft: Int?
  private var wrongFrees: [String] = []

  /// - Parameter firstPhysical: the address of the first page; later ones lie below, with gaps.
  public init(firstPhysical: UInt64 = 0x12_3400_0000) { nextPhysical = firstPhysical }

  /// For the library.
  public var allocator: dmacore_table_allocator {
    dmacore_table_allocator(
      struct_size: MemoryLayout<dmacore_table_allocator>.size,
      allocate: { size, page, opaque in
        let pages = Unmanaged<TablePages>.fromOpaque(opaque!)
        guard pages.takeUnretainedValue().allocate(size, page!) else { return -ENOMEM }
        _ = pages.retain()
        return 0
      },
      free: { page, size, opaque in
        let pages = Unmanaged<TablePages>.fromOpaque(opaque!)
        if pages.takeUnretainedValue().free(page!.pointee, size) { pages.release() }
      },
      opaque: Unmanaged.passUnretained(self).toOpaque())
  }

  /// Lets so many allocations succeed and all after them fail; nil lets all succeed.
  public func failAfter(_ count: Int?) { lock.withLock { allocationsLeft = count } }

  /// Pages that the library has.
  public var liveCount: Int { lock.withLock { pages.count } }

  /// Frees of pages that were not allocated like that.
  public var misuses: [String] { lock.withLock { wrongFrees } }

  /// All pages, by their physical addresses.
  public var hosts: [UInt64: UnsafeMutablePointer<UInt64>] {
    lock.withLock { pages.mapValues { $0.host.assumingMemoryBound(to: UInt64.self) } }
  }

  /// A word of a page, as a walker that knows physical addresses alone reads it.
  public func word(at physical: UInt64) -> UInt64? {
    lock.withLock {
      let page = pages.first { physical >= $0.key && physical - $0.key < UInt64($0.value.size) }
      return page.map {
        $0.value.host.load(fromByteOffset: Int(physical - $0.key), as: UInt64.self)
      }
    }
  }

  private func allocate(_ size: Int, _ out: UnsafeMutablePointer<dmacore_table_page>) -> Bool {
    lock.withLock {
      if let left = allocationsLeft {
        guard left > 0 else { return false }
        allocationsLeft = left - 1
      }
      let host = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: size)
      memset(host, 0xFF, size)
      let physical = nextPhysical & ~UInt64(size - 1)
      nextPhysical = physical - UInt64(3 * size)
      pages[physical] = (host, size)
      out.pointee = dmacore_table_page(host: host, phys: physical)
      return true
    }
  }

  /// Whether the page was there to be freed.
  private func free(_ given: dmacore_table_page, _ size: Int) -> Bool {
    lock.withLock {
      guard let (host, known) = pages[given.phys], host == given.host, size == known else {
        wrongFrees.append("page \(hex(given.phys)) of \(size) bytes")
        return false
      }
      pages[given.phys] = nil
      host.deallocate()
      return true
    }
  }
}
