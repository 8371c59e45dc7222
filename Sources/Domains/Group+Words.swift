// SPDX-License-Identifier: MIT OR Apache-2.0

import Primitives

extension Group {
  /// Says who has the group.
  public func describe(_ text: inout TextBuffer) {
    state.withLock { state in
      if unsafe state.owner != nil {
        text.append("owned by ")
        unsafe text.append(cString: state.holderName.cString)
        text.append(state.ownerKind == .user ? " (user space), " : " (a driver), ")
        text.append(decimal: state.claims)
        text.append(state.claims == 1 ? " claim" : " claims")
        Self.describeOrigin(state, &text)
      } else if state.uses > 0 {
        text.append("in use by the DMA API, ")
        text.append(decimal: state.uses)
        text.append(state.uses == 1 ? " use" : " uses")
        Self.describeOrigin(state, &text)
        if unsafe state.holderName.cString[0] != 0 {
          text.append(" by ")
          unsafe text.append(cString: state.holderName.cString)
        }
      } else {
        text.append("free (")
        text.append(decimal: UInt64(state.memberCount))
        text.append(state.memberCount == 1 ? " device)" : " devices)")
      }
      text.append("; ")
      unsafe text.append(state.domain?.pointee.words ?? "attached to no domain")
      let pasids = Self.countPASIDs(state)
      if pasids > 0 {
        text.append(", ")
        text.append(decimal: pasids)
        text.append(pasids == 1 ? " PASID in another" : " PASIDs in others")
      }
      Self.describeMappings(state, &text)
    }
  }

  private static func describeOrigin(_ state: borrowing State, _ text: inout TextBuffer) {
    text.append(" since ")
    text.append(state.since)
    text.append("(")
    unsafe text.append(cString: state.deviceName.cString)
    text.append(")")
  }

  private static func describeMappings(_ state: borrowing State, _ text: inout TextBuffer) {
    var next = unsafe state.members
    while let member = unsafe next {
      let device = unsafe member.pointee.attached
      let count = unsafe device.pointee.mappings.totals.count
      if count > 0 {
        text.append("; ")
        text.append(decimal: count)
        text.append(count == 1 ? " live mapping of " : " live mappings of ")
        unsafe text.append(cString: device.pointee.name)
      }
      unsafe next = member.pointee.next
    }
  }
}

extension Domain {
  fileprivate var words: StaticString {
    switch kind {
    case .identity: "in an identity domain"
    case .dma: isLazy ? "in a lazy DMA domain" : "in a DMA domain"
    case .blocked: "in a blocked domain"
    case .hybrid: "in a hybrid domain"
    case .unmanaged: "in an unmanaged domain"
    case .nested: "in a nested domain"
    }
  }
}
