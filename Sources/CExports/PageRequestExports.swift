// SPDX-License-Identifier: MIT OR Apache-2.0

// C: include/dmacore/page_request.h

import Addressing
import CDMACore
import Domains
import Primitives
import Translation

@implementation @c(dmacore_view_request_page)
public func dmacore_view_request_page(
  _ view: OpaquePointer!, _ request: UnsafePointer<dmacore_page_request>!
) -> CInt {
  status { () throws(Failure) in
    let view = unsafe try value(view, as: View.self)
    guard let request = unsafe request?.pointee else { throw .invalidArgument }
    // Of the others only memory has.
    let access = try Access(
      checking: request.access, among: [.read, .write, .execute, .privileged])
    try require(
      access.isPermission && request.flags & ~DMACORE_PAGE_REQUEST_LAST.rawValue == 0
        && request.reserved == 0)
    try unsafe view.pointee.requestPage(request)
  }
}

@implementation @c(dmacore_page_request_group_read)
public func dmacore_page_request_group_read(
  _ group: OpaquePointer!, _ out: UnsafeMutablePointer<dmacore_page_request_group_info>!
) -> CInt {
  status { () throws(Failure) in
    let group = unsafe try value(group, as: PageRequestGroup.self)
    unsafe try fill(out) { () throws(Failure) in
      unsafe dmacore_page_request_group_info(
        struct_size: 0, device: OpaquePointer(group.pointee.device),
        requests: group.pointee.requests, count: group.pointee.count,
        pasid: group.pointee.pasid, group_index: group.pointee.index)
    }
  }
}

@implementation @c(dmacore_page_request_group_respond)
public func dmacore_page_request_group_respond(
  _ group: OpaquePointer!, _ response: UInt32
) -> CInt {
  status { () throws(Failure) in
    let group = unsafe try value(group, as: PageRequestGroup.self)
    try require(
      response <= DMACORE_PAGE_RESPONSE_INVALID.rawValue
        || response == DMACORE_PAGE_RESPONSE_FAILURE.rawValue)
    unsafe try PageRequestGroup.respond(to: group, with: response)
  }
}
