// SPDX-License-Identifier: MIT OR Apache-2.0

import Foundation
import Primitives
import Testing

@Suite("Failure")
struct FailureTests {
  @Test func codesAreThoseOfTheSystem() {
    #expect(Failure.notPermitted.code == EPERM)
    #expect(Failure.notFound.code == ENOENT)
    #expect(Failure.noMask.code == ENXIO)
    #expect(Failure.tooBig.code == E2BIG)
    #expect(Failure.tryAgain.code == EAGAIN)
    #expect(Failure.noMemory.code == ENOMEM)
    #expect(Failure.accessDenied.code == EACCES)
    #expect(Failure.badAddress.code == EFAULT)
    #expect(Failure.busy.code == EBUSY)
    #expect(Failure.exists.code == EEXIST)
    #expect(Failure.invalidArgument.code == EINVAL)
    #expect(Failure.noSpace.code == ENOSPC)
    #expect(Failure.outOfRange.code == ERANGE)
    #expect(Failure.notSupported.code == EOPNOTSUPP)
  }
}
