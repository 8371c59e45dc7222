/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_ASKER_H
#define SUPPORT_ASKER_H

/*
 * A device that asks for pages, and a handler of domains that keeps what it is given until a test
 * answers. Each keeps a record of what it was told.
 */

#include "machine.h"

#define ANSWERS_MAX 64
#define LAST DMACORE_PAGE_REQUEST_LAST

struct answer {
	uint32_t pasid;
	uint32_t index;
	uint32_t response;
};

struct asker {
	struct dmacore_device *device;
	struct dmacore_view *view;
	struct answer answers[ANSWERS_MAX];
	unsigned count;
	unsigned taken;
	/* Called in the callback. */
	void (*react)(struct asker *asker, const struct answer *answer);
};

struct handler {
	struct dmacore_page_request_group *groups[ANSWERS_MAX];
	unsigned count;
	unsigned taken;
	/* Called in the callback. */
	void (*react)(struct handler *handler, struct dmacore_page_request_group *group);
	void *other;
};

static inline void asker_hear(struct dmacore_device *device, uint32_t pasid, uint32_t index,
			      uint32_t response, void *opaque)
{
	struct asker *asker = opaque;
	struct answer *answer = &asker->answers[asker->count++ % ANSWERS_MAX];

	if (asker->device)
		assert_ptr_equal(device, asker->device);
	*answer = (struct answer){ pasid, index, response };
	if (asker->react)
		asker->react(asker, answer);
}

static inline void handler_hear(struct dmacore_page_request_group *group, void *opaque)
{
	struct handler *handler = opaque;

	handler->groups[handler->count++ % ANSWERS_MAX] = group;
	if (handler->react)
		handler->react(handler, group);
}

/* The options of a machine's device that asks. */
static inline struct dmacore_device_options asker_options(struct machine *machine,
							  struct asker *asker, uint32_t capacity)
{
	struct dmacore_device_options options = device_options(machine);

	options.page_request_capacity = capacity;
	options.page_response = asker_hear;
	options.page_response_opaque = asker;
	return options;
}

static inline void asker_start(struct asker *asker, struct machine *machine, uint32_t capacity)
{
	struct dmacore_device_options options = asker_options(machine, asker, capacity);

	memset(asker, 0, sizeof(*asker));
	assert_ok(dmacore_device_create(machine->system, &options, &asker->device));
	assert_ok(dmacore_view_create(asker->device, &asker->view));
}

static inline void asker_stop(struct asker *asker)
{
	dmacore_view_destroy(asker->view);
	dmacore_device_destroy(asker->device);
	assert_int_equal(asker->taken, asker->count);
}

static inline struct dmacore_domain *make_handled(struct machine *machine, uint32_t type,
						  struct handler *handler)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	options.type = type;
	options.page_request = handler_hear;
	options.opaque = handler;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &domain));
	return domain;
}

static inline int ask_by(struct dmacore_view *view, uint64_t dma, uint32_t index, uint32_t flags)
{
	struct dmacore_page_request request = {
		.dma = dma,
		.access = DMACORE_ACCESS_READ,
		.group_index = index,
		.flags = flags,
	};

	return dmacore_view_request_page(view, &request);
}

static inline int ask(struct asker *asker, uint64_t dma, uint32_t index, uint32_t flags)
{
	return ask_by(asker->view, dma, index, flags);
}

/* Exactly one more answer. */
#define assert_answered(asker, pasid_, index_, response_)                               \
	do {                                                                            \
		const struct answer *answer_ = &(asker)->answers[(asker)->taken];       \
                                                                                        \
		assert_int_equal((asker)->count, (asker)->taken + 1);                   \
		assert_int_equal(answer_->pasid, pasid_);                               \
		assert_int_equal(answer_->index, index_);                               \
		assert_int_equal(answer_->response, DMACORE_PAGE_RESPONSE_##response_); \
		(asker)->taken++;                                                       \
	} while (0)

#define assert_unanswered(asker) assert_int_equal((asker)->count, (asker)->taken)

/* The oldest group that the handler was given and that was not taken yet. */
static inline struct dmacore_page_request_group *handler_take(struct handler *handler)
{
	if (handler->taken == handler->count)
		fail_msg("the handler was told nothing");
	return handler->groups[handler->taken++];
}

static inline void assert_untold(const struct handler *handler)
{
	assert_int_equal(handler->taken, handler->count);
}

#define respond(group, response) \
	dmacore_page_request_group_respond(group, DMACORE_PAGE_RESPONSE_##response)

static inline struct dmacore_page_request_group_info
group_info(struct dmacore_page_request_group *group)
{
	struct dmacore_page_request_group_info info = { .struct_size = sizeof(info) };

	assert_ok(dmacore_page_request_group_read(group, &info));
	return info;
}

#endif /* SUPPORT_ASKER_H */
