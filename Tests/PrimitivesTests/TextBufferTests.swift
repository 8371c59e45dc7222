// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives
import Testing

@Suite("TextBuffer")
struct TextBufferTests {
  private func text(_ write: (inout TextBuffer) -> Void) -> String {
    var buffer = TextBuffer()
    write(&buffer)
    return buffer.withCString { String(cString: $0) }
  }

  @Test func aNewTextIsEmpty() {
    #expect(text { _ in } == "")
  }

  @Test func piecesFollowEachOther() {
    let found = text { buffer in
      buffer.append("unmap of ")
      buffer.append(decimal: 4096)
      buffer.append(" bytes at ")
      buffer.append(hexadecimal: 0xFEED)
    }
    #expect(found == "unmap of 4096 bytes at 0xfeed")
  }

  @Test(arguments: [0, 1, 9, 10, 15, 16, 99, 100, UInt64(1) << 32, UInt64.max - 1, UInt64.max])
  func numbersAreThoseOfTheStandardLibrary(_ number: UInt64) {
    #expect(text { $0.append(decimal: number) } == String(number))
    #expect(text { $0.append(hexadecimal: number) } == "0x" + String(number, radix: 16))
  }

  @Test func textOfCIsAppendedUpToItsEnd() {
    let found = text { buffer in
      "nvme0\u{0}hidden".withCString { buffer.append(cString: $0) }
    }
    #expect(found == "nvme0")
  }

  @Test(arguments: [254, 255, 256, 400])
  func whatDoesNotFitIsCutOff(_ count: Int) {
    let found = text { buffer in
      for _ in 0..<count { buffer.append("x") }
    }
    #expect(found == String(repeating: "x", count: min(count, 255)))
  }

  @Test func aNumberIsCutOffWhereTheRoomEnds() {
    let found = text { buffer in
      for _ in 0..<252 { buffer.append("x") }
      buffer.append(decimal: 123_456)
    }
    #expect(found.hasSuffix("x123"))
    #expect(found.utf8.count == 255)
  }
}
