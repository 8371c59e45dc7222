// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import CDMACore
import Domains
import MachineSupport
import Mapping
import Primitives
import Translation

/// Pages of this process that a device is to reach, page by page at addresses of their own.
final class Pages: @unchecked Sendable {
  static let size = 4096

  let bytes: UnsafeMutableRawPointer
  let count: Int

  init(count: Int) {
    self.count = count
    bytes = UnsafeMutableRawPointer.allocate(byteCount: count * Self.size, alignment: Self.size)
    bytes.initializeMemory(as: UInt8.self, repeating: 0, count: count * Self.size)
  }

  deinit { bytes.deallocate() }

  func page(_ index: Int) -> UnsafeMutableRawPointer { bytes + index * Self.size }

  func range(_ index: Int, count: Int = 1) throws -> PhysicalRange {
    try physical(UInt64(UInt(bitPattern: page(index))), size: UInt64(count * Self.size))
  }
}

/// Runs `body` with a view of a device, which ends with it.
func withView(
  of device: UnsafeMutablePointer<Device>, _ body: (UnsafeMutablePointer<View>) throws -> Void
) throws {
  let view = try Box<View>.place { () throws(Failure) in View(device: device) }
  defer { Box.destroy(view) }
  try body(view)
}

/// What an attempt fails with; nil when it succeeds.
func failure(of attempt: () throws -> Void) -> Failure? {
  do {
    try attempt()
    return nil
  } catch {
    return error as? Failure
  }
}

/// The faults of a device, which are then out of its ring.
func takeFaults(_ device: UnsafeMutablePointer<Device>) -> [dmacore_fault] {
  var faults = [dmacore_fault](repeating: dmacore_fault(), count: 64)
  let (count, _) = device.pointee.faults.take(into: &faults, countMax: faults.count)
  return Array(faults[..<count])
}
