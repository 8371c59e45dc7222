/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_PAGE_REQUEST_H
#define DMACORE_PAGE_REQUEST_H

/**
 * DOC: Page requests
 *
 * A device that can wait for a page asks for it instead of faulting (PCI Express 5.0, 10.4, Page
 * Request Services). It asks for pages in groups, of which the last request is marked as that. Then
 * whoever made the domain that the device is attached to is told once, maps what it likes, and answers:
 *
 *	struct dmacore_page_request_group_info info = { .struct_size = sizeof(info) };
 *
 *	... in the domain's page_request callback, or later on any thread ...
 *	error = dmacore_page_request_group_read(group, &info);
 *	for (size_t i = 0; i < info.count; i++)
 *		... map the page of info.requests[i].dma ...
 *	error = dmacore_page_request_group_respond(group, DMACORE_PAGE_RESPONSE_SUCCESS);
 *
 * The device's side, for a device that was made with a @page_request_capacity (device.h):
 *
 *	struct dmacore_page_request request = {
 *		.dma = dma,
 *		.access = DMACORE_ACCESS_READ,
 *		.flags = DMACORE_PAGE_REQUEST_LAST,
 *	};
 *
 *	error = dmacore_view_request_page(view, &request);
 *	... the device goes on with something else, until its page_response callback is called ...
 *
 * Requests with the same PASID and the same number of a group, @group_index, are one page request group:
 *
 *	                LAST                          respond()
 *	  collected  --------->  pending  ---------------------------->  answered
 *	      |         |        the domain's         by the handler        ^
 *	      |         |        handler is told                            |
 *	      |         |           |    the domain leaves: INVALID         |
 *	      |         |           '---------------------------------------|
 *	      |         |        there is nobody to tell: INVALID           |
 *	      |         '---------------------------------------------------'
 *	      '-> gone with the device
 *
 * - Collected. Nobody is told yet, and whatever becomes of domains meanwhile does not matter.
 * - Pending. The domain that the device, or the PASID, is attached to when LAST comes has it. Without a
 *   domain, or with one that has no handler, the answer is INVALID at once.
 * - Answered. The device has been told, once for each group, through its page_response callback.
 *
 * When the domain leaves, all that is pending there is answered with INVALID by the library: when the
 * device's group changes its domain, when the PASID is detached or replaced, when the device is
 * destroyed. The call that takes the domain away does this before it returns. The handler's handle stays
 * good, and its answer is refused with -ENOENT; it may even be told of such a group afterwards, on the
 * thread that asked. A handler answers every group that it is given, also those: a handle holds on to the
 * device and to the domain. So an emulated IOMMU, which puts requests into a queue of its guest's, keeps
 * handles until the guest answers, and when the guest resets the queue it answers with FAILURE itself.
 *
 * What a device does with an answer: after SUCCESS it tries the access again, and asks again if that is
 * refused, because what was mapped may be gone; after INVALID it ends the access as failed, and may go
 * on with others; after FAILURE it asks no more until it has been reset.
 *
 * Order. The requests of a group are in the order in which they came. Groups are told one by one as they
 * become whole, and answered in any order; answers may come before the call with LAST returns. A device
 * does not use a number again before it has the answer, or does not mind which of the two that is. It
 * keeps room for the last request of each group that it begins: what is collected has no answer to wait
 * for.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_page_request_group;
struct dmacore_view;

enum dmacore_page_request_flags {
	/* The group is whole. */
	DMACORE_PAGE_REQUEST_LAST = 1,
};

/* The most page requests of a device that may wait for an answer. */
#define DMACORE_PAGE_REQUESTS_MAX 1024

/* What a page request group is answered with: the codes of PCI Express 5.0, 10.4.2.1. */
enum dmacore_page_response {
	/* Try again: what could be mapped is. */
	DMACORE_PAGE_RESPONSE_SUCCESS = 0,
	/* A page is not there, and will not be. */
	DMACORE_PAGE_RESPONSE_INVALID = 1,
	/* Nobody can answer requests of this device any more. */
	DMACORE_PAGE_RESPONSE_FAILURE = 15,
};

/**
 * struct dmacore_page_request - what a device asks for
 * @dma: an address in the page
 * @access: what the device wants to do there: bits of enum dmacore_access, of read, write and execute one
 *   at least, and privileged
 * @group_index: the device's number of the page request group
 * @flags: bits of enum dmacore_page_request_flags
 * @reserved: zero
 */
struct dmacore_page_request {
	dmacore_dma_t dma;
	uint32_t access;
	uint32_t group_index;
	uint32_t flags;
	uint32_t reserved;
};

/**
 * struct dmacore_page_request_group_info - what a page request group is
 * @struct_size: set to sizeof(struct dmacore_page_request_group_info) before the call
 * @device: who asks
 * @requests: what for, @count of them
 * @count: at least 1
 * @pasid: the PASID of all of them; 0: none
 * @group_index: the device's number of the group
 */
struct dmacore_page_request_group_info {
	size_t struct_size;
	struct dmacore_device *device;
	const struct dmacore_page_request *requests;
	size_t count;
	uint32_t pasid;
	uint32_t group_index;
};

/**
 * typedef dmacore_page_request_fn - is told of the page request groups of a domain
 * @group: who asks for what; to be answered once, now or later
 * @opaque: as in struct dmacore_domain_options
 *
 * Called on the thread of the request that made the group whole, with no lock held; several threads may
 * call it at once. It may call any function of the library but the destroy functions of the device and
 * of the view.
 */
typedef void (*dmacore_page_request_fn)(struct dmacore_page_request_group *group, void *opaque);

/**
 * typedef dmacore_page_response_fn - tells a device the answer to a page request group
 * @device: the device
 * @pasid: the PASID of the requests; 0: none
 * @group_index: the device's number of the group
 * @response: one of enum dmacore_page_response
 * @opaque: as in struct dmacore_device_options
 *
 * Called with no lock held, on the thread that answers: of the handler, of the request with LAST, or of
 * the call that takes the domain away. Several threads may call it at once. What the group had of the
 * device's capacity is free again. It may call any function of the library, but destroys no object that
 * the call concerns; the device's destroy call makes it too, and then it may ask for nothing.
 */
typedef void (*dmacore_page_response_fn)(struct dmacore_device *device, uint32_t pasid,
					 uint32_t group_index, uint32_t response, void *opaque);

/**
 * dmacore_view_request_page() - ask for a page as the device
 * @view: the view, whose PASID is that of the request
 * @request: what for
 *
 * The device must be able to wait: it was made with a @page_request_capacity (device.h).
 *
 * Context: any thread; locked (group, rank 3); with DMACORE_PAGE_REQUEST_LAST calls the domain's
 *   page_request or the device's page_response callback.
 * Ownership: @request is looked at during the call.
 * Return: 0, or with nothing changed
 *   -EINVAL  a pointer is NULL, a flag is unknown, @request->reserved is not zero, or the access is no
 *            request. Never succeeds if retried.
 *   -EOPNOTSUPP  the device cannot ask. Never.
 *   -ENODEV  the device was destroyed. Never.
 *   -ENOSPC  as many requests as the device may have are collected or wait for an answer. Once a group
 *            has been answered.
 *   -ENOMEM  no memory, for the first request of a group; the others need none. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_view_request_page(struct dmacore_view *view,
			      const struct dmacore_page_request *request);

/**
 * dmacore_page_request_group_read() - look at a page request group
 * @group: the group
 * @out_info: receives what it is; @out_info->struct_size says how much of that there is room for
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the requests live in the group, until it is answered by its handler.
 * Return: 0, also for a group that the library has answered; or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_page_request_group_read(struct dmacore_page_request_group *group,
				    struct dmacore_page_request_group_info *out_info);

/**
 * dmacore_page_request_group_respond() - answer a page request group
 * @group: the group
 * @response: one of enum dmacore_page_response
 *
 * Context: any thread; locked (group, rank 3); calls the device's page_response callback; may end a
 *   device or a domain that was destroyed before, with their callbacks.
 * Ownership: @group may not be used afterwards, unless this returns -EINVAL.
 * Return: 0, or
 *   -EINVAL  @group is NULL, or the response is unknown. Never succeeds if retried.
 *   -ENOENT  the library has answered the group, because the domain has left. Never.
 */
DMACORE_MUST_CHECK
int dmacore_page_request_group_respond(struct dmacore_page_request_group *group, uint32_t response);

DMACORE_END_DECLS

#endif /* DMACORE_PAGE_REQUEST_H */
