// SPDX-License-Identifier: MIT OR Apache-2.0

#if DMACORE_INTERNAL_CHECKS

  import Primitives
  import Testing

  /// The rules themselves must trap, or all that the other tests prove of them is nothing.
  @Suite("Thread rules")
  struct ThreadRulesTests {
    @Test func locksAreTakenInOrder() async {
      await #expect(processExitsWith: .success) {
        let low = try Lock(.deviceMappings)
        let high = try Lock(.pins)
        low.lock()
        high.lock()
        high.unlock()
        low.unlock()
      }
      await #expect(processExitsWith: .failure) {
        let low = try Lock(.deviceMappings)
        let high = try Lock(.pins)
        high.lock()
        low.lock()
      }
    }

    @Test func twoLocksOfOneRankAreNotHeldAtOnce() async {
      await #expect(processExitsWith: .failure) {
        let one = try Lock(.pins)
        let other = try Lock(.pins)
        one.lock()
        other.lock()
      }
    }

    @Test func nothingIsAllocatedUnderALock() async {
      await #expect(processExitsWith: .failure) {
        let guarded = try Guarded<Int>(.pins) { () throws(Failure) in 0 }
        guarded.withLock { _ in _ = try? RawMemory.allocate(16, alignment: 16) }
      }
    }

    @Test func readersAreNotWaitedForUnderALockOrInsideASection() async {
      await #expect(processExitsWith: .failure) {
        let sections = try ReadSections()
        let lock = try Lock(.pins)
        lock.lock()
        sections.waitForReaders()
      }
      await #expect(processExitsWith: .failure) {
        let sections = try ReadSections()
        _ = sections.enter()
        sections.waitForReaders()
      }
    }

    @Test func nothingIsCalledBackUnderALockOrInsideASection() async {
      await #expect(processExitsWith: .success) { ThreadRules.willCallBack() }
      await #expect(processExitsWith: .failure) {
        let lock = try Lock(.pins)
        lock.lock()
        ThreadRules.willCallBack()
      }
      await #expect(processExitsWith: .failure) {
        let sections = try ReadSections()
        _ = sections.enter()
        ThreadRules.willCallBack()
      }
    }
  }

#endif
