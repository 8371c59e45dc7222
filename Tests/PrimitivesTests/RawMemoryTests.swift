// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import Testing

@Suite("RawMemory")
struct RawMemoryTests {
  @Test(arguments: [16, 64, 4096])
  func memoryIsAligned(_ alignment: Int) throws {
    let memory = try RawMemory.allocate(100, alignment: alignment)
    #expect(UInt(bitPattern: memory) % UInt(alignment) == 0)
    memory.initializeMemory(as: UInt8.self, repeating: 0xA5, count: 100)
    RawMemory.free(memory)
  }

  @Test func anyByteThatIsNotZeroIsFound() {
    var bytes = [UInt8](repeating: 0, count: 40)
    #expect(RawMemory.isZero(bytes, 0..<40))
    for place in 0..<40 {
      bytes[place] = 1
      #expect(!RawMemory.isZero(bytes, 0..<40))
      bytes[place] = 0
    }
  }

  @Test func bytesOutsideOfTheRangeDoNotCount() {
    let bytes: [UInt8] = [1, 0, 0, 1]
    #expect(RawMemory.isZero(bytes, 1..<3))
    #expect(!RawMemory.isZero(bytes, 0..<3))
    #expect(!RawMemory.isZero(bytes, 1..<4))
    #expect(RawMemory.isZero(bytes, 0..<0))
  }
}
