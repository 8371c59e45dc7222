// SPDX-License-Identifier: MIT OR Apache-2.0

import CPlatform

/// The rules of what a thread may do while it holds a lock or is inside a read section.
///
/// Checked in builds with `DMACORE_INTERNAL_CHECKS`, which trap where a rule is broken. Without it
/// every function is empty.
public enum ThreadRules {
  #if DMACORE_INTERNAL_CHECKS
    static func willLock(_ rank: LockRank) {
      precondition(cplatform_check_lock(rank.rawValue), "A lock is taken out of order.")
    }

    static func didUnlock(_ rank: LockRank) { cplatform_check_unlock(rank.rawValue) }

    static func didEnter() { cplatform_check_enter() }

    static func didLeave() { cplatform_check_leave() }

    static func willAllocate() {
      precondition(!cplatform_check_holds_lock(), "Memory is allocated under a lock.")
    }

    static func willWaitForReaders() {
      precondition(!cplatform_check_holds_lock(), "Readers are waited for under a lock.")
      precondition(!cplatform_check_in_section(), "Readers are waited for inside a section.")
    }

    /// Before code of the caller's is called.
    public static func willCallBack() {
      precondition(!cplatform_check_holds_lock(), "A callback is called under a lock.")
      precondition(!cplatform_check_in_section(), "A callback is called inside a read section.")
    }
  #else
    static func willLock(_ rank: LockRank) {}
    static func didUnlock(_ rank: LockRank) {}
    static func didEnter() {}
    static func didLeave() {}
    static func willAllocate() {}
    static func willWaitForReaders() {}
    public static func willCallBack() {}
  #endif
}
