/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/asker.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE

#define CAPACITY 8

/* A device that may ask for CAPACITY pages, attached to an unmanaged domain with a handler. */
struct bench {
	struct machine machine;
	struct asker asker;
	struct handler handler;
	struct dmacore_domain *domain;
};

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));

	assert_non_null(bench);
	machine_start(&bench->machine, TRANSLATED);
	asker_start(&bench->asker, &bench->machine, CAPACITY);
	bench->domain = make_handled(&bench->machine, DMACORE_DOMAIN_UNMANAGED, &bench->handler);
	assert_ok(dmacore_domain_attach(bench->domain, bench->asker.device));
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	assert_untold(&bench->handler);
	asker_stop(&bench->asker);
	dmacore_domain_destroy(bench->domain);
	machine_stop(&bench->machine);
	free(bench);
	return 0;
}

static void detach(struct bench *bench)
{
	assert_ok(dmacore_domain_detach(bench->domain, bench->asker.device));
}

static void attach(struct bench *bench)
{
	assert_ok(dmacore_domain_attach(bench->domain, bench->asker.device));
}

/* Arguments. */

static void view_request_page__checks_its_arguments(void **state)
{
	struct bench *bench = *state;
	struct dmacore_page_request good = { .dma = PAGE, .access = READ, .flags = LAST }, bad;

	assert_fails(dmacore_view_request_page(NULL, &good), EINVAL);
	assert_fails(dmacore_view_request_page(bench->asker.view, NULL), EINVAL);
#define refuse(change)                                                                    \
	do {                                                                              \
		bad = good;                                                               \
		change;                                                                   \
		assert_fails(dmacore_view_request_page(bench->asker.view, &bad), EINVAL); \
	} while (0)
	refuse(bad.access = 0);
	refuse(bad.access = DMACORE_ACCESS_PRIVILEGED);
	refuse(bad.access = READ | DMACORE_ACCESS_MMIO);
	refuse(bad.access = READ | DMACORE_ACCESS_CACHEABLE);
	refuse(bad.access = READ | UINT32_C(1) << 31);
	refuse(bad.flags = 2);
	refuse(bad.flags = LAST | UINT32_C(1) << 31);
	refuse(bad.reserved = 1);
	assert_untold(&bench->handler);
	assert_unanswered(&bench->asker);
}

static void view_request_page__takes_all_addresses_indexes_and_accesses(void **state)
{
	static const struct dmacore_page_request requests[] = {
		{ .dma = 0, .access = READ, .group_index = 0 },
		{ .dma = UINT64_MAX, .access = WRITE, .group_index = UINT32_MAX },
		{ .dma = 1, .access = DMACORE_ACCESS_EXECUTE, .group_index = 1 },
		{ .dma = 2,
		  .access = READ | WRITE | DMACORE_ACCESS_EXECUTE | DMACORE_ACCESS_PRIVILEGED },
	};
	struct bench *bench = *state;

	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		struct dmacore_page_request request = requests[i];
		struct dmacore_page_request_group *group;
		struct dmacore_page_request_group_info info;

		request.flags = LAST;
		assert_ok(dmacore_view_request_page(bench->asker.view, &request));
		group = handler_take(&bench->handler);
		info = group_info(group);
		assert_int_equal(info.count, 1);
		assert_int_equal(info.group_index, request.group_index);
		assert_memory_equal(info.requests, &request, sizeof(request));
		assert_ok(respond(group, SUCCESS));
		assert_answered(&bench->asker, 0, request.group_index, SUCCESS);
	}
}

static void view_request_page__needs_a_device_that_can_wait(void **state)
{
	struct bench *bench = *state;

	assert_fails(ask_by(bench->machine.view, PAGE, 0, 0), EOPNOTSUPP);
	assert_fails(ask_by(bench->machine.view, PAGE, 0, LAST), EOPNOTSUPP);
}

static void device_create__wants_somebody_to_hear_the_answers(void **state)
{
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;
	struct dmacore_device_options options = asker_options(machine, &bench->asker, 1);
	struct dmacore_device *device;

	options.page_response = NULL;
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);
	options = asker_options(machine, &bench->asker, DMACORE_PAGE_REQUESTS_MAX + 1);
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);
	options.page_request_capacity = UINT32_MAX;
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);
	options.page_request_capacity = DMACORE_PAGE_REQUESTS_MAX;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	dmacore_device_destroy(device);
	options.page_request_capacity = 0;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	dmacore_device_destroy(device);
}

static void domain_create__lets_no_blocked_domain_handle_requests(void **state)
{
	static const uint32_t types[] = { DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
					  DMACORE_DOMAIN_DMA_LAZY, DMACORE_DOMAIN_UNMANAGED };
	struct bench *bench = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	options.type = DMACORE_DOMAIN_BLOCKED;
	options.page_request = handler_hear;
	assert_creates_nothing(dmacore_domain_create(bench->machine.iommu, &options, &domain),
			       EINVAL, domain);
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		options.type = types[i];
		assert_ok(dmacore_domain_create(bench->machine.iommu, &options, &domain));
		dmacore_domain_destroy(domain);
	}
}

static void page_request_group_read__checks_its_arguments(void **state)
{
	struct bench *bench = *state;
	struct dmacore_page_request_group *group;

	assert_ok(ask(&bench->asker, PAGE, 3, LAST));
	group = handler_take(&bench->handler);
	assert_fails(dmacore_page_request_group_read(group, NULL), EINVAL);
	check_statistics_size(struct dmacore_page_request_group_info,
			      dmacore_page_request_group_read(group, options));
	{
		struct dmacore_page_request_group_info info = { .struct_size = sizeof(info) };

		assert_fails(dmacore_page_request_group_read(NULL, &info), EINVAL);
		assert_null(info.requests);
	}
	assert_ok(respond(group, SUCCESS));
	assert_answered(&bench->asker, 0, 3, SUCCESS);
}

static void page_request_group_respond__keeps_the_group_when_it_is_refused(void **state)
{
	static const uint32_t unknown[] = { 2, 14, 16, UINT32_MAX };
	struct bench *bench = *state;
	struct dmacore_page_request_group *group;

	assert_fails(dmacore_page_request_group_respond(NULL, 0), EINVAL);
	assert_ok(ask(&bench->asker, PAGE, 3, LAST));
	group = handler_take(&bench->handler);
	for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		assert_fails(dmacore_page_request_group_respond(group, unknown[i]), EINVAL);
	assert_unanswered(&bench->asker);
	assert_int_equal(group_info(group).count, 1);
	assert_ok(respond(group, FAILURE));
	assert_answered(&bench->asker, 0, 3, FAILURE);
}

/* From a request to its answer. */

static void group__is_told_once_when_it_is_whole(void **state)
{
	static const unsigned pages[] = { 3, 1, 2 };
	struct bench *bench = *state;
	struct dmacore_page_request_group *group;
	struct dmacore_page_request_group_info info;

	assert_ok(ask(&bench->asker, pages[0] * PAGE, 7, 0));
	assert_ok(ask(&bench->asker, pages[1] * PAGE, 7, 0));
	/* Another one, in between. */
	assert_ok(ask(&bench->asker, 5 * PAGE, 8, LAST));
	group = handler_take(&bench->handler);
	assert_untold(&bench->handler);
	assert_int_equal(group_info(group).group_index, 8);
	assert_ok(respond(group, INVALID));
	assert_answered(&bench->asker, 0, 8, INVALID);

	assert_ok(ask(&bench->asker, pages[2] * PAGE, 7, LAST));
	group = handler_take(&bench->handler);
	assert_untold(&bench->handler);
	info = group_info(group);
	assert_ptr_equal(info.device, bench->asker.device);
	assert_int_equal(info.pasid, 0);
	assert_int_equal(info.group_index, 7);
	assert_int_equal(info.count, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(info.requests[i].dma, pages[i] * PAGE);
		assert_int_equal(info.requests[i].access, READ);
		assert_int_equal(info.requests[i].group_index, 7);
		assert_int_equal(info.requests[i].flags, i == 2 ? LAST : 0);
		assert_int_equal(info.requests[i].reserved, 0);
	}
	assert_unanswered(&bench->asker);
	assert_ok(respond(group, SUCCESS));
	assert_answered(&bench->asker, 0, 7, SUCCESS);
	/* The number means another group from here on. */
	assert_ok(ask(&bench->asker, PAGE, 7, LAST));
	group = handler_take(&bench->handler);
	assert_int_equal(group_info(group).count, 1);
	assert_ok(respond(group, SUCCESS));
	assert_answered(&bench->asker, 0, 7, SUCCESS);
}

static void groups__are_answered_in_any_order(void **state)
{
	struct bench *bench = *state;
	struct dmacore_page_request_group *groups[4];

	for (unsigned i = 0; i < 4; i++) {
		assert_ok(ask(&bench->asker, PAGE, i, LAST));
		groups[i] = handler_take(&bench->handler);
	}
	for (unsigned i = 0; i < 4; i++) {
		unsigned j = (3 * i + 2) % 4;

		assert_ok(respond(groups[j], SUCCESS));
		assert_answered(&bench->asker, 0, j, SUCCESS);
	}
}

static void map_and_respond(struct handler *handler, struct dmacore_page_request_group *group)
{
	struct dmacore_page_request_group_info info = group_info(group);
	struct bench *bench = handler->other;

	handler->taken++;
	for (size_t i = 0; i < info.count; i++)
		assert_ok(dmacore_domain_map(bench->domain, info.requests[i].dma & ~(PAGE - 1),
					     LOW_BASE + i * PAGE, PAGE, READ | WRITE));
	assert_ok(respond(group, SUCCESS));
}

static void handler__maps_in_the_callback_and_the_device_tries_again(void **state)
{
	struct bench *bench = *state;
	uint8_t byte;

	bench->handler.react = map_and_respond;
	bench->handler.other = bench;
	bench->machine.low[PAGE + 5] = 42;
	assert_ok(ask(&bench->asker, 0x10000, 1, 0));
	assert_ok(ask(&bench->asker, 0x20005, 1, LAST));
	assert_answered(&bench->asker, 0, 1, SUCCESS);
	assert_ok(dmacore_view_read(bench->asker.view, 0x20005, &byte, 1));
	assert_int_equal(byte, 42);
}

static void ask_again(struct asker *asker, const struct answer *answer)
{
	if (answer->index < 3)
		assert_ok(ask(asker, PAGE, answer->index + 1, LAST));
}

static void respond_at_once(struct handler *handler, struct dmacore_page_request_group *group)
{
	handler->taken++;
	assert_ok(respond(group, SUCCESS));
}

static void device__asks_again_in_its_callback(void **state)
{
	struct bench *bench = *state;
	struct asker *asker = &bench->asker;

	bench->handler.react = respond_at_once;
	asker->react = ask_again;
	/* What the group had is free by then. */
	for (unsigned i = 0; i < CAPACITY - 1; i++)
		assert_ok(ask(asker, PAGE, 0, 0));
	assert_ok(ask(asker, PAGE, 0, LAST));
	assert_int_equal(asker->count, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(asker->answers[i].index, i);
	asker->taken = 4;
}

static void view_request_page__stops_at_the_capacity_until_there_is_an_answer(void **state)
{
	struct bench *bench = *state;
	struct dmacore_page_request_group *group;

	/* Collected and unanswered requests count alike, in one group or in several. */
	for (unsigned i = 0; i < CAPACITY - 2; i++)
		assert_ok(ask(&bench->asker, i * PAGE, 0, 0));
	assert_ok(ask(&bench->asker, PAGE, 1, 0));
	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_fails(ask(&bench->asker, PAGE, 0, LAST), ENOSPC);
	assert_fails(ask(&bench->asker, PAGE, 2, 0), ENOSPC);
	group = handler_take(&bench->handler);
	assert_int_equal(group_info(group).count, 2);
	assert_ok(respond(group, SUCCESS));
	assert_answered(&bench->asker, 0, 1, SUCCESS);
	/* Nothing of what was refused is in it. */
	assert_ok(ask(&bench->asker, PAGE, 0, 0));
	assert_ok(ask(&bench->asker, PAGE, 0, LAST));
	group = handler_take(&bench->handler);
	assert_int_equal(group_info(group).count, CAPACITY);
	assert_fails(ask(&bench->asker, PAGE, 2, LAST), ENOSPC);
	assert_ok(respond(group, SUCCESS));
	assert_answered(&bench->asker, 0, 0, SUCCESS);
}

/* Who is not told. */

static void group__is_invalid_where_nobody_handles_it(void **state)
{
	static const uint32_t types[] = { DMACORE_DOMAIN_BLOCKED, DMACORE_DOMAIN_UNMANAGED };
	struct bench *bench = *state;
	struct asker direct;

	detach(bench);
	assert_ok(ask(&bench->asker, PAGE, 1, 0));
	assert_unanswered(&bench->asker);
	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_answered(&bench->asker, 0, 1, INVALID);
	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_domain *domain = make_domain(&bench->machine, types[i], 0, 0);

		assert_ok(dmacore_domain_attach(domain, bench->asker.device));
		/* More than it may have at once. */
		for (unsigned j = 0; j < 2 * CAPACITY; j++) {
			assert_ok(ask(&bench->asker, PAGE, j, LAST));
			assert_answered(&bench->asker, 0, j, INVALID);
		}
		assert_ok(dmacore_domain_detach(domain, bench->asker.device));
		dmacore_domain_destroy(domain);
	}
	/* Behind no IOMMU. */
	memset(&direct, 0, sizeof(direct));
	{
		struct dmacore_device_options options = asker_options(&bench->machine, &direct, 1);

		options.iommu = NULL;
		assert_ok(dmacore_device_create(bench->machine.system, &options, &direct.device));
		assert_ok(dmacore_view_create(direct.device, &direct.view));
	}
	assert_ok(ask(&direct, PAGE, 0, LAST));
	assert_answered(&direct, 0, 0, INVALID);
	asker_stop(&direct);
}

static void group__belongs_to_the_domain_at_its_last_request(void **state)
{
	struct bench *bench = *state;
	struct handler other = { .count = 0 };
	struct dmacore_domain *domain =
		make_handled(&bench->machine, DMACORE_DOMAIN_IDENTITY, &other);

	assert_ok(ask(&bench->asker, PAGE, 1, 0));
	detach(bench);
	assert_ok(ask(&bench->asker, PAGE, 1, 0));
	assert_ok(dmacore_domain_attach(domain, bench->asker.device));
	assert_unanswered(&bench->asker);
	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_int_equal(group_info(handler_take(&other)).count, 3);
	assert_ok(respond(other.groups[0], SUCCESS));
	assert_answered(&bench->asker, 0, 1, SUCCESS);
	assert_ok(dmacore_domain_detach(domain, bench->asker.device));
	dmacore_domain_destroy(domain);
}

/* The domain leaves. */

static void domain_that_leaves__is_answered_for(void **state)
{
	struct bench *bench = *state;
	struct dmacore_domain *other = make_domain(&bench->machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	struct dmacore_page_request_group *groups[2];

	for (unsigned i = 0; i < 2; i++) {
		assert_ok(ask(&bench->asker, PAGE, i, LAST));
		groups[i] = handler_take(&bench->handler);
	}
	assert_ok(ask(&bench->asker, PAGE, 5, 0));
	assert_ok(dmacore_domain_replace(other, bench->asker.device));
	/* The oldest first, and not what is collected. */
	assert_int_equal(bench->asker.count, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(bench->asker.answers[i].index, i);
		assert_int_equal(bench->asker.answers[i].response, DMACORE_PAGE_RESPONSE_INVALID);
	}
	bench->asker.taken = 2;
	/* Its capacity is free again, also while the handler has not answered. */
	for (unsigned i = 0; i < CAPACITY - 1; i++)
		assert_ok(ask(&bench->asker, PAGE, 6, 0));
	assert_ok(dmacore_domain_replace(bench->domain, bench->asker.device));
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(group_info(groups[i]).group_index, i);
		assert_fails(respond(groups[i], SUCCESS), ENOENT);
	}
	assert_unanswered(&bench->asker);
	assert_ok(dmacore_domain_detach(bench->domain, bench->asker.device));
	assert_ok(dmacore_domain_attach(other, bench->asker.device));
	assert_ok(dmacore_domain_detach(other, bench->asker.device));
	dmacore_domain_destroy(other);
}

static void domain_that_leaves__is_answered_for_all_devices_of_the_group(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device_options options;
	struct asker second;

	memset(&second, 0, sizeof(second));
	options = asker_options(&bench->machine, &second, 1);
	assert_ok(dmacore_device_group(bench->asker.device, &options.group));
	assert_ok(dmacore_device_create(bench->machine.system, &options, &second.device));
	dmacore_group_destroy(options.group);
	assert_ok(dmacore_view_create(second.device, &second.view));
	/* The numbers are each device's own. */
	assert_ok(ask(&bench->asker, PAGE, 1, 0));
	assert_ok(ask(&second, PAGE, 1, LAST));
	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_int_equal(group_info(bench->handler.groups[0]).count, 1);
	assert_int_equal(group_info(bench->handler.groups[1]).count, 2);
	assert_unanswered(&second);
	detach(bench);
	assert_answered(&second, 0, 1, INVALID);
	assert_answered(&bench->asker, 0, 1, INVALID);
	for (unsigned i = 0; i < 2; i++)
		assert_fails(respond(handler_take(&bench->handler), SUCCESS), ENOENT);
	/* A device that leaves alone takes its own with it. */
	attach(bench);
	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_ok(ask(&second, PAGE, 1, LAST));
	dmacore_view_destroy(second.view);
	dmacore_device_destroy(second.device);
	assert_reported(&bench->machine, DMACORE_REPORT_WARNING);
	assert_answered(&second, 0, 1, INVALID);
	assert_unanswered(&bench->asker);
	assert_ok(respond(handler_take(&bench->handler), SUCCESS));
	assert_answered(&bench->asker, 0, 1, SUCCESS);
	assert_fails(respond(handler_take(&bench->handler), SUCCESS), ENOENT);
}

static void owner__takes_the_domain_away_and_brings_another(void **state)
{
	struct bench *bench = *state;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct handler own = { .count = 0 };
	struct dmacore_domain *domain =
		make_handled(&bench->machine, DMACORE_DOMAIN_UNMANAGED, &own);
	struct dmacore_device *device = bench->asker.device;

	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_ok(dmacore_device_claim_dma_owner(device, &owner));
	assert_answered(&bench->asker, 0, 1, INVALID);
	assert_fails(respond(handler_take(&bench->handler), SUCCESS), ENOENT);
	assert_ok(ask(&bench->asker, PAGE, 2, LAST));
	assert_answered(&bench->asker, 0, 2, INVALID);
	assert_ok(dmacore_device_attach(device, domain, &owner));
	assert_ok(ask(&bench->asker, PAGE, 3, LAST));
	assert_ok(dmacore_device_detach(device, &owner));
	assert_answered(&bench->asker, 0, 3, INVALID);
	assert_ok(dmacore_device_attach(device, domain, &owner));
	assert_ok(ask(&bench->asker, PAGE, 4, LAST));
	assert_ok(dmacore_device_release_dma_owner(device, &owner));
	assert_answered(&bench->asker, 0, 4, INVALID);
	for (unsigned i = 0; i < 2; i++)
		assert_fails(respond(handler_take(&own), FAILURE), ENOENT);
	dmacore_domain_destroy(domain);
}

static void change_that_is_refused__answers_nothing(void **state)
{
	struct bench *bench = *state;
	struct dmacore_domain *other = make_domain(&bench->machine, DMACORE_DOMAIN_DMA, 0, 0);

	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_fails(dmacore_domain_attach(other, bench->asker.device), EBUSY);
	assert_ok(dmacore_domain_replace(bench->domain, bench->asker.device));
	assert_ok(dmacore_device_use_default_domain(bench->asker.device));
	assert_fails(dmacore_domain_replace(other, bench->asker.device), EBUSY);
	assert_ok(dmacore_device_unuse_default_domain(bench->asker.device));
	assert_unanswered(&bench->asker);
	assert_ok(respond(handler_take(&bench->handler), SUCCESS));
	assert_answered(&bench->asker, 0, 1, SUCCESS);
	dmacore_domain_destroy(other);
}

static void replace_domain(struct handler *handler, struct dmacore_page_request_group *group)
{
	struct bench *bench = handler->other;

	handler->taken++;
	detach(bench);
	assert_answered(&bench->asker, 0, 1, INVALID);
	assert_fails(respond(group, SUCCESS), ENOENT);
	attach(bench);
}

static void handler__may_take_the_domain_away(void **state)
{
	struct bench *bench = *state;

	bench->handler.react = replace_domain;
	bench->handler.other = bench;
	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	assert_unanswered(&bench->asker);
}

/* Ends. */

static void device_destroy__answers_what_is_pending_and_forgets_what_is_collected(void **state)
{
	struct bench *bench = *state;
	struct asker *asker = &bench->asker;
	struct dmacore_page_request_group *group;

	assert_ok(ask(asker, PAGE, 1, LAST));
	assert_ok(ask(asker, PAGE, 2, 0));
	group = handler_take(&bench->handler);
	dmacore_device_destroy(asker->device);
	/* The view and the handler hold it. */
	assert_reported(&bench->machine, DMACORE_REPORT_WARNING);
	assert_answered(asker, 0, 1, INVALID);
	assert_fails(ask(asker, PAGE, 2, LAST), ENODEV);
	assert_fails(ask(asker, PAGE, 3, 0), ENODEV);
	dmacore_view_destroy(asker->view);
	asker->view = NULL;
	assert_int_equal(group_info(group).group_index, 1);
	assert_fails(respond(group, SUCCESS), ENOENT);
	assert_unanswered(asker);
	asker->device = NULL;
}

static void device_destroy__warns_of_no_collected_request(void **state)
{
	struct bench *bench = *state;
	struct asker other;

	asker_start(&other, &bench->machine, 2);
	assert_ok(ask(&other, PAGE, 1, 0));
	assert_ok(ask(&other, PAGE, 2, 0));
	asker_stop(&other);
	assert_no_reports(&bench->machine.reports);
}

static void group__holds_its_domain(void **state)
{
	struct bench *bench = *state;
	struct dmacore_page_request_group *group;
	unsigned live;

	assert_ok(ask(&bench->asker, PAGE, 1, LAST));
	group = handler_take(&bench->handler);
	detach(bench);
	assert_answered(&bench->asker, 0, 1, INVALID);
	live = bench->machine.tables.live;
	dmacore_domain_destroy(bench->domain);
	bench->domain = NULL;
	assert_reported(&bench->machine, DMACORE_REPORT_WARNING);
	assert_int_equal(bench->machine.tables.live, live);
	assert_fails(respond(group, SUCCESS), ENOENT);
	assert_true(bench->machine.tables.live < live);
}

/* PASIDs. */

static void pasids__have_groups_and_domains_of_their_own(void **state)
{
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct handler own = { .count = 0 };
	struct dmacore_domain *domain = make_handled(machine, DMACORE_DOMAIN_UNMANAGED, &own);
	struct dmacore_view *views[2];
	struct asker asker;
	struct dmacore_device_options options;

	memset(&asker, 0, sizeof(asker));
	options = asker_options(machine, &asker, CAPACITY);
	options.pasid_count = 8;
	assert_ok(dmacore_device_create(machine->system, &options, &asker.device));
	assert_ok(dmacore_view_create(asker.device, &asker.view));
	for (unsigned i = 0; i < 2; i++)
		assert_ok(dmacore_view_create_pasid(asker.device, 6 + i, &views[i]));
	assert_ok(dmacore_device_claim_dma_owner(asker.device, &owner));
	assert_ok(dmacore_device_attach(asker.device, bench->domain, &owner));
	/* A PASID without a domain has nobody, whatever the device has. */
	assert_ok(ask_by(views[1], PAGE, 1, LAST));
	assert_answered(&asker, 7, 1, INVALID);
	assert_ok(dmacore_device_attach_pasid(asker.device, 7, domain, &owner));
	/* One number, three groups. */
	assert_ok(ask(&asker, PAGE, 1, 0));
	assert_ok(ask_by(views[0], PAGE, 1, 0));
	assert_ok(ask_by(views[1], PAGE, 1, LAST));
	assert_int_equal(group_info(handler_take(&own)).count, 1);
	assert_int_equal(group_info(own.groups[0]).pasid, 7);
	assert_ok(ask(&asker, PAGE, 1, LAST));
	assert_int_equal(group_info(handler_take(&bench->handler)).pasid, 0);
	assert_ok(ask_by(views[0], PAGE, 1, LAST));
	assert_answered(&asker, 6, 1, INVALID);
	/* What has its domain already does not leave it. */
	assert_ok(dmacore_device_replace_pasid(asker.device, 7, domain, &owner));
	assert_unanswered(&asker);
	/* Each ends with its own domain. */
	assert_ok(dmacore_device_replace_pasid(asker.device, 7, bench->domain, &owner));
	assert_answered(&asker, 7, 1, INVALID);
	assert_fails(respond(own.groups[0], SUCCESS), ENOENT);
	assert_ok(ask_by(views[1], PAGE, 2, LAST));
	assert_ok(dmacore_device_detach(asker.device, &owner));
	assert_answered(&asker, 0, 1, INVALID);
	assert_ok(dmacore_device_detach_pasid(asker.device, 7, &owner));
	assert_answered(&asker, 7, 2, INVALID);
	assert_fails(respond(bench->handler.groups[0], SUCCESS), ENOENT);
	assert_fails(respond(handler_take(&bench->handler), SUCCESS), ENOENT);
	/* The last release, and the last device, detach PASIDs too. */
	assert_ok(dmacore_device_attach_pasid(asker.device, 7, domain, &owner));
	assert_ok(ask_by(views[1], PAGE, 3, LAST));
	assert_ok(dmacore_device_release_dma_owner(asker.device, &owner));
	assert_answered(&asker, 7, 3, INVALID);
	assert_fails(respond(handler_take(&own), SUCCESS), ENOENT);
	assert_ok(dmacore_device_claim_dma_owner(asker.device, &owner));
	assert_ok(dmacore_device_attach_pasid(asker.device, 7, domain, &owner));
	assert_ok(ask_by(views[1], PAGE, 4, LAST));
	for (unsigned i = 0; i < 2; i++)
		dmacore_view_destroy(views[i]);
	dmacore_view_destroy(asker.view);
	dmacore_device_destroy(asker.device);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_answered(&asker, 7, 4, INVALID);
	assert_fails(respond(handler_take(&own), SUCCESS), ENOENT);
	dmacore_domain_destroy(domain);
}

/* What goes with a device that leaves others goes with all its PASIDs, whose domains stay. */
static void device_destroy__answers_what_is_pending_of_its_pasids(void **state)
{
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_device_options options;
	struct asker askers[2];
	struct dmacore_view *views[2];
	struct dmacore_group *group;

	memset(askers, 0, sizeof(askers));
	assert_ok(dmacore_group_create(machine->system, &group));
	for (unsigned i = 0; i < 2; i++) {
		options = asker_options(machine, &askers[i], CAPACITY);
		options.pasid_count = 8;
		options.group = group;
		assert_ok(dmacore_device_create(machine->system, &options, &askers[i].device));
		assert_ok(dmacore_view_create_pasid(askers[i].device, 7, &views[i]));
	}
	dmacore_group_destroy(group);
	assert_ok(dmacore_device_claim_dma_owner(askers[0].device, &owner));
	assert_ok(dmacore_device_attach_pasid(askers[0].device, 7, bench->domain, &owner));
	for (unsigned i = 0; i < 2; i++)
		assert_ok(ask_by(views[i], PAGE, i, LAST));
	dmacore_view_destroy(views[1]);
	dmacore_device_destroy(askers[1].device);
	/* The handler holds it. */
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_answered(&askers[1], 7, 1, INVALID);
	assert_unanswered(&askers[0]);
	assert_ok(respond(handler_take(&bench->handler), SUCCESS));
	assert_answered(&askers[0], 7, 0, SUCCESS);
	assert_fails(respond(handler_take(&bench->handler), SUCCESS), ENOENT);
	assert_ok(dmacore_device_release_dma_owner(askers[0].device, &owner));
	dmacore_view_destroy(views[0]);
	dmacore_device_destroy(askers[0].device);
}

#define test(function)                                     \
	{                                                  \
#function, function, setup, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(view_request_page__checks_its_arguments),
		test(view_request_page__takes_all_addresses_indexes_and_accesses),
		test(view_request_page__needs_a_device_that_can_wait),
		test(device_create__wants_somebody_to_hear_the_answers),
		test(domain_create__lets_no_blocked_domain_handle_requests),
		test(page_request_group_read__checks_its_arguments),
		test(page_request_group_respond__keeps_the_group_when_it_is_refused),
		test(group__is_told_once_when_it_is_whole),
		test(groups__are_answered_in_any_order),
		test(handler__maps_in_the_callback_and_the_device_tries_again),
		test(device__asks_again_in_its_callback),
		test(view_request_page__stops_at_the_capacity_until_there_is_an_answer),
		test(group__is_invalid_where_nobody_handles_it),
		test(group__belongs_to_the_domain_at_its_last_request),
		test(domain_that_leaves__is_answered_for),
		test(domain_that_leaves__is_answered_for_all_devices_of_the_group),
		test(owner__takes_the_domain_away_and_brings_another),
		test(change_that_is_refused__answers_nothing),
		test(handler__may_take_the_domain_away),
		test(device_destroy__answers_what_is_pending_and_forgets_what_is_collected),
		test(device_destroy__warns_of_no_collected_request),
		test(group__holds_its_domain),
		test(pasids__have_groups_and_domains_of_their_own),
		test(device_destroy__answers_what_is_pending_of_its_pasids),
	};

	return run_group("page requests", tests);
}
