// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives
import Testing

@Suite("Access")
struct AccessTests {
  @Test(arguments: UInt32(0)..<4)
  func knownBitsAreTaken(_ bits: UInt32) throws {
    #expect(try Access(checking: bits).rawValue == bits)
  }

  @Test(arguments: [4, 7, 8, UInt32(1) << 31, UInt32.max])
  func unknownBitsAreRefused(_ bits: UInt32) {
    #expect(throws: Failure.invalidArgument) { try Access(checking: bits) }
  }

  @Test func whatPermitsAnybodyPermitsWithPrivilegeAndWithout() {
    for granted in UInt32(0)..<64 {
      for request in UInt32(0)..<64 {
        let granted = Access(rawValue: granted)
        let request = Access(rawValue: request)
        let anybody =
          granted.permits(request.subtracting(.privileged))
          && granted.permits(request.union(.privileged)) && !granted.contains(.privileged)
        #expect(granted.permitsAnybody(request) == anybody)
      }
    }
    #expect(!Access.all.subtracting(.privileged).permitsAnybody(Access(rawValue: 64)))
  }

  @Test func theBitsAreThoseOfTheHeader() {
    #expect(Access.read.rawValue == 1)
    #expect(Access.write.rawValue == 2)
  }
}

@Suite("Direction")
struct DirectionTests {
  @Test func aDirectionPermitsWhatTheDeviceDoes() throws {
    #expect(try Direction(checking: 0).access == [.read, .write])
    #expect(try Direction(checking: 1).access == .read)
    #expect(try Direction(checking: 2).access == .write)
  }

  @Test(arguments: [3, UInt32.max])
  func unknownValuesAreRefused(_ value: UInt32) {
    #expect(throws: Failure.invalidArgument) { try Direction(checking: value) }
  }
}
