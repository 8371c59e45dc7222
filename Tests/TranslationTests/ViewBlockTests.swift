// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Domains
import MachineSupport
import Mapping
import Primitives
import Synchronization
import TestSupport
import Testing
import Translation

/// What threads share.
private final class Shared: @unchecked Sendable {
  let domain: UnsafeMutablePointer<Domain>
  let view: UnsafeMutablePointer<View>
  let isOver = Atomic<Bool>(false)

  init(_ domain: UnsafeMutablePointer<Domain>, _ view: UnsafeMutablePointer<View>) {
    self.domain = domain
    self.view = view
  }
}

@Suite("Blocks of a view")
struct ViewBlockTests {
  private static let large: UInt64 = 2 << 20

  @Test func aBlockThatPermitsLessIsNowhere() throws {
    try withMachine { machine in
      let device = try machine.device()
      let domain = try machine.domain(.unmanaged)
      try device.pointee.attach(domain)
      try domain.pointee.map(
        IOVARange(first: IOVA(Self.large), size: Self.large),
        to: PhysicalAddress(3 * Self.large), access: .read)
      try withView(of: device) { view in
        let read = view.pointee.block(around: DMAAddress(Self.large + 5), .read)
        #expect(read.first == Self.large && read.mask == Self.large - 1)
        #expect(read.target == 3 * Self.large && read.access == .read)
        let written = view.pointee.block(around: DMAAddress(Self.large + 5), .write)
        #expect(written.first == Self.large && written.mask == Self.large - 1)
        #expect(written.target == 0 && written.access.isEmpty)
        #expect(takeFaults(device).isEmpty)
      }
    }
  }

  /// A large leaf and pages take turns in one place, each contiguous with what is beside it.
  @Test func aBlockIsOfOneMomentWhileOthersMap() throws {
    try withMachine { machine in
      let device = try machine.device()
      let domain = try machine.domain(.unmanaged)
      try device.pointee.attach(domain)
      try withView(of: device) { view in
        let shared = Shared(domain, view)
        try onThreads(2) { thread in
          let range = try IOVARange(first: IOVA(0), size: Self.large)
          if thread == 0 {
            for step in 0..<RunSettings.steps(200) {
              let target = step % 2 == 0 ? 4 * Self.large : 8 * Self.large + 4096
              try shared.domain.pointee.map(range, to: PhysicalAddress(target), access: .read)
              _ = try shared.domain.pointee.unmap(range, crossingHoles: false, splitting: false)
            }
            shared.isOver.store(true, ordering: .relaxed)
            return
          }
          while !shared.isOver.load(ordering: .relaxed) {
            let block = shared.view.pointee.block(around: DMAAddress(0x5123), .read)
            let isPage = block.mask == 4095 && block.first == 0x5000
            let isLarge = block.mask == Self.large - 1 && block.first == 0
            switch block.target {
            case 0: try demandSame(block.access.isEmpty, true, "nowhere")
            case 4 * Self.large: try demandSame(isLarge, true, "a large leaf")
            default:
              try demandSame(block.target, 8 * Self.large + 0x6000, "target")
              try demandSame(isPage, true, "a page")
            }
          }
        }
      }
    }
  }
}
