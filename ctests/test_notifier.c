/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/listener.h"

#include <pthread.h>
#include <stdatomic.h>

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

#define test_in(type, function)                                                     \
	{                                                                           \
#function " (" #type ")", function, type##_setup, machine_teardown, \
			(void *)(uintptr_t)TRANSLATED                               \
	}

static void map(struct machine *machine, uint64_t iova, uint64_t phys, uint64_t size,
		uint32_t access)
{
	assert_ok(dmacore_domain_map(machine->domain, iova, phys, size, access));
}

static void unmap(struct machine *machine, uint64_t iova, uint64_t size, uint32_t flags)
{
	assert_ok(dmacore_domain_unmap(machine->domain, iova, size, flags, NULL));
}

/* Creation and the end. */

static void notifier_create__checks_its_arguments(void **state)
{
	struct machine *machine = *state;
	struct listener listener = { .machine = machine };
	struct dmacore_notifier_options good = listener_options(&listener), bad;
	struct dmacore_notifier *notifier;

	assert_creates_nothing(dmacore_notifier_create(NULL, &good, &notifier), EINVAL, notifier);
	assert_creates_nothing(dmacore_notifier_create(machine->domain, NULL, &notifier), EINVAL,
			       notifier);
	assert_fails(dmacore_notifier_create(machine->domain, &good, NULL), EINVAL);
#define refuse(change)                                                                            \
	do {                                                                                      \
		bad = good;                                                                       \
		change;                                                                           \
		assert_creates_nothing(dmacore_notifier_create(machine->domain, &bad, &notifier), \
				       EINVAL, notifier);                                         \
	} while (0)
	refuse(bad.flags = 0);
	refuse(bad.flags = DMACORE_NOTIFY_ALIGNED);
	refuse(bad.flags = DMACORE_NOTIFY_MAP | 8);
	refuse(bad.flags |= UINT32_C(1) << 31);
	refuse(bad.reserved = 1);
	refuse(bad.notify = NULL);
	refuse((bad.first = 2, bad.last = 1));
	check_struct_size(struct dmacore_notifier_options, good,
			  dmacore_notifier_create(machine->domain, options, &notifier), notifier,
			  dmacore_notifier_destroy);
	/* Once, by the one that was made. */
	assert_int_equal(listener.releases, 1);
	assert_int_equal(listener.count, 0);
}

static void notifier_create__takes_ranges_at_both_ends(void **state)
{
	static const uint64_t ends[][2] = {
		{ 0, 0 },	   { 0, 1 }, { 0, UINT64_MAX },	    { UINT64_MAX, UINT64_MAX },
		{ UINT64_MAX, 0 }, { 1, 1 }, { 0x1000, UINT64_MAX }
	};
	struct listener listener;

	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		listener_start(&listener, *state, BOTH_EVENTS, ends[i][0], ends[i][1]);
		listener_stop(&listener);
	}
}

static void notifier_destroy__takes_null_and_needs_no_release_callback(void **state)
{
	struct machine *machine = *state;
	struct listener listener = { .machine = machine };
	struct dmacore_notifier_options options = listener_options(&listener);

	dmacore_notifier_destroy(NULL);
	options.release = NULL;
	assert_ok(dmacore_notifier_create(machine->domain, &options, &listener.notifier));
	map(machine, 0x1000, 0, PAGE, READ);
	assert_int_equal(listener.count, 1);
	dmacore_notifier_destroy(listener.notifier);
	unmap(machine, 0x1000, PAGE, 0);
	assert_int_equal(listener.count, 1);
}

static void notifier__holds_its_domain(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	listener_start_all(&listener, machine);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	map(machine, 0x1000, LOW_BASE, PAGE, READ);
	assert_told_map(&listener, 0x1000, PAGE, LOW_BASE, READ);
	dmacore_domain_destroy(machine->domain);
	machine->domain = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, 0x1000, PAGE, LOW_BASE, READ);
	listener_stop(&listener);
}

/* What makes events. */

static void domain_map__tells_of_its_range_once(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	listener_start_all(&listener, machine);
	/* Leaves of several sizes. */
	map(machine, GIB - 2 * PAGE, 2 * GIB - 2 * PAGE, GIB + 2 * MIB + 4 * PAGE, BOTH);
	assert_told_map(&listener, GIB - 2 * PAGE, GIB + 2 * MIB + 4 * PAGE, 2 * GIB - 2 * PAGE,
			BOTH);
	map(machine, 0, 0x5000, PAGE, WRITE);
	assert_told_map(&listener, 0, PAGE, 0x5000, WRITE);
	map(machine, (UINT64_C(1) << 48) - PAGE, 0, PAGE, READ);
	assert_told_map(&listener, (UINT64_C(1) << 48) - PAGE, PAGE, 0, READ);
	listener_stop(&listener);
}

static void domain_unmap__tells_of_what_it_unmapped(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	map(machine, 0x10000, LOW_BASE, 2 * PAGE, READ);
	map(machine, 0x13000, LOW_BASE, PAGE, READ);
	listener_start_all(&listener, machine);
	/* Nothing. */
	unmap(machine, 0x20000, PAGE, 0);
	unmap(machine, 0x20000, PAGE, DMACORE_UNMAP_CROSS_HOLES);
	assert_silent(&listener);
	/* Up to the hole. */
	unmap(machine, 0x10000, 5 * PAGE, 0);
	assert_told_unmap(&listener, 0x10000, 2 * PAGE);
	/* Holes included, and nothing beyond the call's range. */
	map(machine, 0x15000, LOW_BASE, PAGE, READ);
	assert_told_map(&listener, 0x15000, PAGE, LOW_BASE, READ);
	unmap(machine, 0x10000, 5 * PAGE, DMACORE_UNMAP_CROSS_HOLES);
	assert_told_unmap(&listener, 0x10000, 5 * PAGE);
	/* A part of a leaf. */
	map(machine, GIB, GIB, 2 * MIB, READ);
	assert_told_map(&listener, GIB, 2 * MIB, GIB, READ);
	unmap(machine, GIB + PAGE, PAGE, DMACORE_UNMAP_SPLIT);
	assert_told_unmap(&listener, GIB + PAGE, PAGE);
	listener_stop(&listener);
}

static void domain_map__and_unmap_that_fail_tell_nothing(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	map(machine, GIB, GIB, 2 * MIB, READ);
	listener_start_all(&listener, machine);
	assert_fails(dmacore_domain_map(machine->domain, GIB - PAGE, 0, 2 * PAGE, READ), EEXIST);
	assert_fails(dmacore_domain_map(machine->domain, 0, 0, 0, READ), EINVAL);
	assert_fails(dmacore_domain_unmap(machine->domain, GIB, PAGE, 0, NULL), EOPNOTSUPP);
	assert_fails(dmacore_domain_unmap(machine->domain, GIB, 1, 0, NULL), EINVAL);
	listener_stop(&listener);
}

static void mapping_calls__tell_of_whole_pages(void **state)
{
	struct machine *machine = *state;
	struct listener listener;
	dmacore_dma_t dma;
	uint64_t page;
	void *cpu;

	listener_start_all(&listener, machine);
	dma = map_for(machine, machine->low + 0x800, PAGE, DMACORE_TO_DEVICE);
	page = dma - 0x800;
	assert_told_map(&listener, page, 2 * PAGE,
			machine->path & FLAT ? (uintptr_t)machine->low : LOW_BASE, READ);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_told_unmap(&listener, page, 2 * PAGE);

	assert_ok(dmacore_alloc_coherent(machine->device, 2 * PAGE, &cpu, &dma));
	assert_int_equal(listener.at[listener.taken].access, BOTH);
	assert_int_equal(listener_take(&listener).first, dma);
	assert_ok(dmacore_free_coherent(machine->device, 2 * PAGE, cpu, dma));
	assert_told_unmap(&listener, dma, 2 * PAGE);

	/* Misuses change nothing. */
	assert_misuse(machine, dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	listener_stop(&listener);
}

static void mapping_calls__tell_of_a_page_for_which_all_was_at_hand(void **state)
{
	struct machine *machine = *state;
	struct listener listener;
	dmacore_dma_t dma;

	get_ready(machine);
	listener_start_all(&listener, machine);
	for (int i = 0; i < 2; i++) {
		dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
		assert_told_map(&listener, dma, PAGE,
				machine->path & FLAT ? (uintptr_t)machine->low : LOW_BASE, READ);
		assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
		assert_told_unmap(&listener, dma, PAGE);
	}
	listener_stop(&listener);
}

static void device_destroy__tells_of_what_was_left_mapped(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = make_device(machine);
	struct listener listener;
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_map_single(device, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	listener_start_all(&listener, machine);
	dmacore_device_destroy(device);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_told_unmap(&listener, dma, PAGE);
	listener_stop(&listener);
}

static void mapping_calls__tell_what_the_table_permits(void **state)
{
	struct machine *machine = *state;
	struct dmacore_pagetable_options pagetable = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_iommu *iommu, *first = machine->iommu;
	struct listener listener = { .machine = machine };
	struct dmacore_notifier_options notifier = listener_options(&listener);
	dmacore_dma_t dma;

	/* What may be written may be read in this format. */
	pagetable.format = DMACORE_PAGETABLE_X86_64;
	options.pagetable = &pagetable;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	assert_ok(dmacore_domain_create(iommu, NULL, &domain));
	machine->iommu = iommu;
	device = make_device(machine);
	machine->iommu = first;
	assert_ok(dmacore_domain_attach(domain, device));
	assert_ok(dmacore_notifier_create(domain, &notifier, &listener.notifier));
	assert_ok(dmacore_map_single(device, machine->low, PAGE, DMACORE_FROM_DEVICE, 0, &dma));
	assert_told_map(&listener, dma, PAGE, LOW_BASE, BOTH);
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_FROM_DEVICE, 0));
	assert_told_unmap(&listener, dma, PAGE);
	listener_stop(&listener);
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(iommu);
}

static void direct_mappings__tell_nothing(void **state)
{
	struct machine *machine = *state;
	struct listener listener;
	dmacore_dma_t dma;

	listener_start_all(&listener, machine);
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	listener_stop(&listener);
}

static void attaching__tells_nothing(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	map(machine, 0x1000, 0x1000, PAGE, READ);
	listener_start_all(&listener, machine);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	listener_stop(&listener);
}

/* What is told to whom. */

static void notifier__tells_of_what_it_was_asked_for(void **state)
{
	struct machine *machine = *state;
	struct listener maps, unmaps, both;

	listener_start(&maps, machine, DMACORE_NOTIFY_MAP, 0, UINT64_MAX);
	listener_start(&unmaps, machine, DMACORE_NOTIFY_UNMAP, 0, UINT64_MAX);
	listener_start_all(&both, machine);
	map(machine, 0x1000, 0, PAGE, READ);
	unmap(machine, 0x1000, PAGE, 0);
	assert_told_map(&maps, 0x1000, PAGE, 0, READ);
	assert_told_unmap(&unmaps, 0x1000, PAGE);
	assert_told_map(&both, 0x1000, PAGE, 0, READ);
	assert_told_unmap(&both, 0x1000, PAGE);
	/* In an order of their own: the one in the middle, the first, the last. */
	listener_stop(&unmaps);
	map(machine, 0x1000, 0, PAGE, READ);
	assert_told_map(&maps, 0x1000, PAGE, 0, READ);
	assert_told_map(&both, 0x1000, PAGE, 0, READ);
	listener_stop(&maps);
	unmap(machine, 0x1000, PAGE, 0);
	assert_told_unmap(&both, 0x1000, PAGE);
	listener_stop(&both);
	map(machine, 0x1000, 0, PAGE, READ);
}

static void notifier__tells_of_its_own_range_alone(void **state)
{
	struct machine *machine = *state;
	struct listener inner, byte, outside;

	listener_start(&inner, machine, BOTH_EVENTS, 0x12000, 0x13fff);
	listener_start(&byte, machine, BOTH_EVENTS, 0x11fff, 0x11fff);
	listener_start(&outside, machine, BOTH_EVENTS, 0x16000, UINT64_MAX);
	map(machine, 0x10000, LOW_BASE, 6 * PAGE, READ);
	assert_told_map(&inner, 0x12000, 2 * PAGE, LOW_BASE + 2 * PAGE, READ);
	assert_told_map(&byte, 0x11fff, 1, LOW_BASE + 0x1fff, READ);
	unmap(machine, 0x13000, 3 * PAGE, 0);
	assert_told_unmap(&inner, 0x13000, PAGE);
	unmap(machine, 0x10000, 3 * PAGE, 0);
	assert_told_unmap(&inner, 0x12000, PAGE);
	assert_told_unmap(&byte, 0x11fff, 1);
	listener_stop(&inner);
	listener_stop(&byte);
	listener_stop(&outside);
}

static void notifier__splits_events_into_aligned_blocks(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	listener_start(&listener, machine, BOTH_EVENTS | DMACORE_NOTIFY_ALIGNED, 0, 0);
	map(machine, 0x3000, 0x103000, 7 * PAGE, BOTH);
	assert_told_map(&listener, 0x3000, PAGE, 0x103000, BOTH);
	assert_told_map(&listener, 0x4000, 4 * PAGE, 0x104000, BOTH);
	assert_told_map(&listener, 0x8000, 2 * PAGE, 0x108000, BOTH);
	unmap(machine, 0x3000, 7 * PAGE, 0);
	assert_told_unmap(&listener, 0x3000, PAGE);
	assert_told_unmap(&listener, 0x4000, 4 * PAGE);
	assert_told_unmap(&listener, 0x8000, 2 * PAGE);
	/* Memory that is aligned to less. */
	map(machine, 0x8000, 0x6000, 4 * PAGE, BOTH);
	assert_told_map(&listener, 0x8000, 2 * PAGE, 0x6000, BOTH);
	assert_told_map(&listener, 0xa000, 2 * PAGE, 0x8000, BOTH);
	unmap(machine, 0x8000, 4 * PAGE, 0);
	assert_told_unmap(&listener, 0x8000, 4 * PAGE);
	listener_stop(&listener);

	/* Ends that are no page's. */
	listener_start(&listener, machine, BOTH_EVENTS | DMACORE_NOTIFY_ALIGNED, 0x1ffd, 0x2002);
	map(machine, 0x1000, 0x5000, 2 * PAGE, READ);
	assert_told_map(&listener, 0x1ffd, 1, 0x5ffd, READ);
	assert_told_map(&listener, 0x1ffe, 2, 0x5ffe, READ);
	assert_told_map(&listener, 0x2000, 2, 0x6000, READ);
	assert_told_map(&listener, 0x2002, 1, 0x6002, READ);
	listener_stop(&listener);
}

/* Callbacks. */

static void look_at_event(struct listener *listener, const struct dmacore_notifier_event *event)
{
	struct machine *machine = listener->machine;
	struct dmacore_translation found;
	uint8_t byte;
	int error = dmacore_domain_translate(machine->domain, event->first, 0, &found);

	if (event->type == DMACORE_NOTIFY_UNMAP) {
		listener->malformed += error != -ENOENT;
		return;
	}
	listener->malformed += error != 0 || found.access != event->access;
	listener->malformed += !error && found.target + (event->first - found.first) != event->phys;
	/* A device reaches it too. */
	listener->malformed += dmacore_view_read(machine->view, event->first, &byte, 1) != 0;
}

static void event__comes_after_the_change(void **state)
{
	struct machine *machine = *state;
	struct listener listener;
	dmacore_dma_t dma;

	listener_start_all(&listener, machine);
	listener.react = look_at_event;
	dma = map_for(machine, machine->low, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_int_equal(listener.count, 2);
	listener.taken = 2;
	listener_stop(&listener);
}

static void end_view_mapping(struct listener *listener, const struct dmacore_notifier_event *event)
{
	if (event->type == DMACORE_NOTIFY_UNMAP) {
		dmacore_view_unmap(listener->other);
		listener->other = NULL;
	}
}

static void event__lets_a_listener_end_a_zero_copy_mapping_in_time(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct listener listener;
	dmacore_dma_t dma;
	size_t count;

	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_view_map(machine->view, dma, PAGE, READ, &mapping, &segments, &count));
	listener_start_all(&listener, machine);
	listener.react = end_view_mapping;
	listener.other = mapping;
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_null(listener.other);
	assert_no_reports(&machine->reports);
	assert_told_unmap(&listener, dma, PAGE);
	listener_stop(&listener);
}

static void domain_unmap__lets_a_listener_end_a_zero_copy_mapping_in_time(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct listener listener;
	size_t count;

	map(machine, 0x1000, LOW_BASE, PAGE, READ);
	assert_ok(dmacore_view_map(machine->view, 0x1000, PAGE, READ, &mapping, &segments, &count));
	listener_start_all(&listener, machine);
	listener.react = end_view_mapping;
	listener.other = mapping;
	unmap(machine, 0x1000, PAGE, 0);
	assert_no_reports(&machine->reports);
	assert_told_unmap(&listener, 0x1000, PAGE);
	listener_stop(&listener);
}

static void destroy_itself(struct listener *listener, const struct dmacore_notifier_event *event)
{
	(void)event;
	dmacore_notifier_destroy(listener->notifier);
	/* Its callback is running. */
	listener->malformed += listener->releases != 0;
}

static void notifier_destroy__in_its_callback_is_the_last_that_it_hears(void **state)
{
	struct machine *machine = *state;
	struct listener first, listener, last;

	listener_start_all(&first, machine);
	/* Of three blocks it hears one. */
	listener_start(&listener, machine, BOTH_EVENTS | DMACORE_NOTIFY_ALIGNED, 0, 0);
	listener.react = destroy_itself;
	listener_start_all(&last, machine);
	map(machine, 0x3000, 0, 7 * PAGE, READ);
	assert_int_equal(listener.count, 1);
	assert_int_equal(listener.malformed, 0);
	assert_int_equal(listener.releases, 1);
	unmap(machine, 0x3000, 7 * PAGE, 0);
	assert_int_equal(listener.count, 1);
	first.taken = last.taken = 2;
	listener_stop(&first);
	listener_stop(&last);
}

static void destroy_other(struct listener *listener, const struct dmacore_notifier_event *event)
{
	struct listener *other = listener->other;

	(void)event;
	if (!other)
		return;
	dmacore_notifier_destroy(other->notifier);
	listener->malformed += other->releases != 1;
	listener->other = NULL;
}

static void notifier_destroy__of_another_in_a_callback_ends_that(void **state)
{
	struct machine *machine = *state;

	/* Whichever is told first, the other is told of one change less or none. */
	for (unsigned i = 0; i < 3; i++) {
		struct listener listeners[3];

		for (unsigned j = 0; j < 3; j++)
			listener_start_all(&listeners[j], machine);
		listeners[i].react = destroy_other;
		listeners[i].other = &listeners[(i + 1) % 3];
		map(machine, 0x1000, 0, PAGE, READ);
		unmap(machine, 0x1000, PAGE, 0);
		assert_null(listeners[i].other);
		assert_true(listeners[(i + 1) % 3].count <= 1);
		assert_int_equal(listeners[i].count, 2);
		assert_int_equal(listeners[(i + 2) % 3].count, 2);
		for (unsigned j = 0; j < 3; j++) {
			listeners[j].taken = listeners[j].count;
			if (j != (i + 1) % 3)
				listener_stop(&listeners[j]);
		}
	}
}

static void create_another(struct listener *listener, const struct dmacore_notifier_event *event)
{
	struct listener *others = listener->other;

	if (event->type == DMACORE_NOTIFY_MAP)
		listener_start_all(&others[listener->count - 1], listener->machine);
}

static void notifier_create__in_a_callback_is_told_of_later_changes(void **state)
{
	struct machine *machine = *state;
	struct listener listener, others[2];

	listener_start_all(&listener, machine);
	listener.react = create_another;
	listener.other = others;
	map(machine, 0x1000, 0, PAGE, READ);
	assert_int_equal(listener.count, 1);
	assert_silent(&others[0]);
	map(machine, 0x2000, 0, PAGE, READ);
	assert_told_map(&others[0], 0x2000, PAGE, 0, READ);
	assert_silent(&others[1]);
	listener.taken = 2;
	for (unsigned i = 0; i < 2; i++)
		listener_stop(&others[i]);
	listener_stop(&listener);
}

static void map_the_next(struct listener *listener, const struct dmacore_notifier_event *event)
{
	if (event->first < 0x5000)
		listener->malformed +=
			dmacore_domain_map(listener->machine->domain, event->first + 0x1000, 0,
					   PAGE, READ) != 0;
}

static void event__may_map_in_its_domain(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	listener_start_all(&listener, machine);
	listener.react = map_the_next;
	map(machine, 0x1000, 0, PAGE, READ);
	for (uint64_t first = 0x1000; first <= 0x5000; first += 0x1000)
		assert_told_map(&listener, first, PAGE, 0, READ);
	listener_stop(&listener);
}

/* Replay. */

static void notifier_replay__tells_of_contiguous_runs(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	/* Made in pieces, of leaves of two sizes, and with one that permits less. */
	map(machine, 2 * MIB - PAGE, 4 * MIB - PAGE, PAGE, BOTH);
	map(machine, 2 * MIB, 4 * MIB, 2 * MIB, BOTH);
	map(machine, 4 * MIB, 6 * MIB, PAGE, BOTH);
	map(machine, 4 * MIB + PAGE, 6 * MIB + PAGE, PAGE, READ);
	map(machine, 4 * MIB + 2 * PAGE, 6 * MIB + 3 * PAGE, PAGE, READ);
	map(machine, 4 * MIB + 4 * PAGE, 6 * MIB + 4 * PAGE, PAGE, READ);
	map(machine, (UINT64_C(1) << 48) - PAGE, 0, PAGE, READ);
	listener_start_all(&listener, machine);
	assert_silent(&listener);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, 2 * MIB - PAGE, 2 * MIB + 2 * PAGE, 4 * MIB - PAGE, BOTH);
	assert_told_map(&listener, 4 * MIB + PAGE, PAGE, 6 * MIB + PAGE, READ);
	assert_told_map(&listener, 4 * MIB + 2 * PAGE, PAGE, 6 * MIB + 3 * PAGE, READ);
	assert_told_map(&listener, 4 * MIB + 4 * PAGE, PAGE, 6 * MIB + 4 * PAGE, READ);
	assert_told_map(&listener, (UINT64_C(1) << 48) - PAGE, PAGE, 0, READ);
	listener_stop(&listener);

	/* A range that starts and ends in leaves. */
	listener_start(&listener, machine, BOTH_EVENTS, 3 * MIB, 4 * MIB + 2 * PAGE);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, 3 * MIB, MIB + PAGE, 5 * MIB, BOTH);
	assert_told_map(&listener, 4 * MIB + PAGE, PAGE, 6 * MIB + PAGE, READ);
	assert_told_map(&listener, 4 * MIB + 2 * PAGE, 1, 6 * MIB + 3 * PAGE, READ);
	listener_stop(&listener);

	listener_start(&listener, machine, DMACORE_NOTIFY_MAP | DMACORE_NOTIFY_ALIGNED, 3 * MIB,
		       4 * MIB + PAGE - 1);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, 3 * MIB, MIB, 5 * MIB, BOTH);
	assert_told_map(&listener, 4 * MIB, PAGE, 6 * MIB, BOTH);
	listener_stop(&listener);
}

static void notifier_replay__of_an_empty_domain_tells_nothing(void **state)
{
	struct listener listener;

	listener_start_all(&listener, *state);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	listener_stop(&listener);
}

static void notifier_replay__of_an_identity_domain_is_one_event(void **state)
{
	static const uint32_t flags[] = { BOTH_EVENTS, DMACORE_NOTIFY_MAP,
					  BOTH_EVENTS | DMACORE_NOTIFY_ALIGNED };
	struct machine *machine = *state;
	struct listener listener;

	for (unsigned i = 0; i < 3; i++) {
		listener_start(&listener, machine, flags[i], 0, 0);
		assert_ok(dmacore_notifier_replay(listener.notifier));
		assert_told_map(&listener, 0, 0, 0, BOTH);
		listener_stop(&listener);
	}
	listener_start(&listener, machine, BOTH_EVENTS, 0x1234, 0xffff);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, 0x1234, 0xffff - 0x1233, 0x1234, BOTH);
	listener_stop(&listener);
	listener_start(&listener, machine, BOTH_EVENTS | DMACORE_NOTIFY_ALIGNED, UINT64_MAX - 2, 0);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, UINT64_MAX - 2, 1, UINT64_MAX - 2, BOTH);
	assert_told_map(&listener, UINT64_MAX - 1, 2, UINT64_MAX - 1, BOTH);
	listener_stop(&listener);
}

static void notifier_replay__is_for_those_who_want_maps(void **state)
{
	struct listener listener;

	assert_fails(dmacore_notifier_replay(NULL), EINVAL);
	listener_start(&listener, *state, DMACORE_NOTIFY_UNMAP, 0, 0);
	assert_fails(dmacore_notifier_replay(listener.notifier), EINVAL);
	listener_stop(&listener);
}

static void notifier_replay__ends_with_its_notifier(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	map(machine, 0x1000, 0, PAGE, READ);
	map(machine, 0x3000, 0, PAGE, READ);
	listener_start_all(&listener, machine);
	listener.react = destroy_itself;
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_int_equal(listener.count, 1);
	assert_int_equal(listener.malformed, 0);
	assert_int_equal(listener.releases, 1);
}

/* Changes the domain when the first run is told, as another thread could just before. */
static void change_what_is_told(struct listener *listener,
				const struct dmacore_notifier_event *event)
{
	struct dmacore_domain *domain = listener->machine->domain;
	struct listener *first = listener->other;

	if (event->type == DMACORE_NOTIFY_UNMAP || event->first != 0x10000 || !first)
		return;
	listener->other = NULL;
	dmacore_notifier_destroy(first->notifier);
	listener->malformed += dmacore_domain_unmap(domain, 0x12000, PAGE, 0, NULL) != 0;
}

static void notifier_replay__takes_back_what_is_unmapped_meanwhile(void **state)
{
	struct machine *machine = *state;
	struct listener listener, other;

	map(machine, 0x10000, LOW_BASE, 4 * PAGE, READ);
	listener_start_all(&other, machine);
	listener_start_all(&listener, machine);
	listener.react = change_what_is_told;
	listener.other = &other;
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, 0x10000, 4 * PAGE, LOW_BASE, READ);
	/* By the call, and by the replay, which tells of all behind it again. */
	assert_told_unmap(&listener, 0x12000, PAGE);
	assert_told_unmap(&listener, 0x12000, 2 * PAGE);
	assert_told_map(&listener, 0x13000, PAGE, LOW_BASE + 3 * PAGE, READ);
	listener_stop(&listener);
}

/* Puts other memory where the first run is. */
static void remap_what_is_told(struct listener *listener,
			       const struct dmacore_notifier_event *event)
{
	struct dmacore_domain *domain = listener->machine->domain;

	(void)event;
	if (listener->count != 1)
		return;
	listener->malformed += dmacore_domain_unmap(domain, 0x10000, PAGE, 0, NULL) != 0;
	listener->malformed += dmacore_domain_map(domain, 0x10000, NEXT_BASE, PAGE, READ) != 0;
}

static void notifier_replay__tells_of_what_is_there_instead(void **state)
{
	struct machine *machine = *state;
	struct listener listener;

	map(machine, 0x10000, LOW_BASE, PAGE, READ);
	listener_start_all(&listener, machine);
	listener.react = remap_what_is_told;
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, 0x10000, PAGE, LOW_BASE, READ);
	assert_told_unmap(&listener, 0x10000, PAGE);
	assert_told_map(&listener, 0x10000, PAGE, NEXT_BASE, READ);
	assert_told_unmap(&listener, 0x10000, PAGE);
	assert_told_map(&listener, 0x10000, PAGE, NEXT_BASE, READ);
	listener_stop(&listener);
}

/* Threads. */

enum { THREADS = 3, ROUNDS = 300, SLOTS = 16 };

/* A thread's part of the domain, and what a listener believes of it. */
struct part {
	struct machine *machine;
	uint64_t first;
	atomic_uint shadow[SLOTS];
	unsigned wrong;
	pthread_t thread;
};

struct mirror {
	struct part parts[THREADS];
	atomic_uint wrong;
	atomic_uint releases;
};

static void mirror_event(const struct dmacore_notifier_event *event, void *opaque)
{
	struct mirror *mirror = opaque;

	for (uint64_t iova = event->first; iova <= event->last; iova += PAGE) {
		uint64_t part = iova / GIB - 1, slot = iova % GIB / PAGE;

		if (part >= THREADS || slot >= SLOTS) {
			mirror->wrong++;
			return;
		}
		atomic_store(&mirror->parts[part].shadow[slot],
			     event->type == DMACORE_NOTIFY_MAP ?
				     (event->phys + (iova - event->first)) / PAGE :
				     0);
	}
}

static void mirror_release(void *opaque)
{
	struct mirror *mirror = opaque;

	mirror->releases++;
}

/* Maps and unmaps, and looks each time whether the listener knows. */
static void *change_part(void *opaque)
{
	struct part *part = opaque;
	struct dmacore_domain *domain = part->machine->domain;
	uint64_t seed = part->first;
	unsigned phys[SLOTS] = { 0 };

	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned slot = random_next(&seed) % SLOTS, count = 1 + random_next(&seed) % 4;

		if (count > SLOTS - slot)
			count = SLOTS - slot;
		for (unsigned i = slot; i < slot + count; i++) {
			if (phys[i]) {
				part->wrong += dmacore_domain_unmap(domain, part->first + i * PAGE,
								    PAGE, 0, NULL) != 0;
				phys[i] = 0;
			} else {
				phys[i] = 1 + random_next(&seed) % 1000;
				part->wrong += dmacore_domain_map(domain, part->first + i * PAGE,
								  phys[i] * PAGE, PAGE, READ) != 0;
			}
			part->wrong += atomic_load(&part->shadow[i]) != phys[i];
		}
	}
	return NULL;
}

static void notifier__mirrors_what_several_threads_do(void **state)
{
	struct machine *machine = *state;
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
	struct dmacore_notifier *notifier;
	struct mirror mirror = { .wrong = 0 };
	struct listener passing;

	options.notify = mirror_event;
	options.release = mirror_release;
	options.opaque = &mirror;
	assert_ok(dmacore_notifier_create(machine->domain, &options, &notifier));
	for (unsigned i = 0; i < THREADS; i++) {
		struct part *part = &mirror.parts[i];

		part->machine = machine;
		part->first = (i + 1) * GIB;
		assert_ok(pthread_create(&part->thread, NULL, change_part, part));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		assert_ok(pthread_join(mirror.parts[i].thread, NULL));
		assert_int_equal(mirror.parts[i].wrong, 0);
	}
	assert_int_equal(mirror.wrong, 0);

	/* What is left is what a replay tells. */
	listener_start(&passing, machine, DMACORE_NOTIFY_MAP, 0, 0);
	assert_ok(dmacore_notifier_replay(passing.notifier));
	while (passing.taken < passing.count) {
		struct dmacore_notifier_event event = listener_take(&passing);

		for (uint64_t iova = event.first; iova < event.last; iova += PAGE) {
			atomic_uint *slot = &mirror.parts[iova / GIB - 1].shadow[iova % GIB / PAGE];

			assert_int_equal(atomic_exchange(slot, 0) * PAGE,
					 event.phys + (iova - event.first));
		}
	}
	listener_stop(&passing);
	for (unsigned i = 0; i < THREADS * SLOTS; i++)
		assert_int_equal(mirror.parts[i / SLOTS].shadow[i % SLOTS], 0);
	dmacore_notifier_destroy(notifier);
	assert_int_equal(mirror.releases, 1);
}

/* Writes as the device until it is refused. */
struct writer {
	struct dmacore_view *view;
	dmacore_dma_t dma;
	uint8_t bytes[RAM_SIZE];
	int error;
};

static void *write_until_refused(void *opaque)
{
	struct writer *writer = opaque;

	do
		writer->error = dmacore_view_write(writer->view, writer->dma, writer->bytes,
						   sizeof(writer->bytes));
	while (!writer->error);
	return NULL;
}

/* The memory is the listener's when it hears that it is unmapped. */
static void take_memory(struct listener *listener, const struct dmacore_notifier_event *event)
{
	if (event->type == DMACORE_NOTIFY_UNMAP)
		memcpy(listener->machine->high, listener->other, RAM_SIZE);
}

static void check_in_flight(struct machine *machine,
			    dmacore_dma_t (*begin)(struct machine *machine),
			    void (*end)(struct machine *machine, dmacore_dma_t dma))
{
	static uint8_t ours[RAM_SIZE];
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	struct listener listener;
	static struct writer writer;

	/* Without the machine's callback, which looks for faults. */
	options.fault = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_view_create(device, &writer.view));
	memset(writer.bytes, 0xdd, RAM_SIZE);
	memset(ours, 0x11, RAM_SIZE);
	listener_start_all(&listener, machine);
	listener.react = take_memory;
	listener.other = ours;
	for (unsigned round = 0; round < 40; round++) {
		volatile uint8_t *last = machine->high + RAM_SIZE - 1;
		pthread_t thread;

		memset(machine->high, 0, RAM_SIZE);
		writer.dma = begin(machine);
		assert_ok(pthread_create(&thread, NULL, write_until_refused, &writer));
		while (*last == 0)
			sched_yield();
		end(machine, writer.dma);
		assert_ok(pthread_join(thread, NULL));
		assert_int_equal(writer.error, -ENOENT);
		assert_memory_equal(machine->high, ours, RAM_SIZE);
	}
	assert_int_equal(listener.count, 80);
	listener.taken = listener.count;
	listener_stop(&listener);
	dmacore_view_destroy(writer.view);
	dmacore_device_destroy(device);
}

static dmacore_dma_t begin_mapping(struct machine *machine)
{
	return map_for(machine, machine->high, RAM_SIZE, DMACORE_FROM_DEVICE);
}

static void end_mapping(struct machine *machine, dmacore_dma_t dma)
{
	assert_ok(dmacore_unmap(machine->device, dma, RAM_SIZE, DMACORE_FROM_DEVICE, 0));
}

static void unmap__tells_when_accesses_in_flight_have_ended(void **state)
{
	check_in_flight(*state, begin_mapping, end_mapping);
}

static dmacore_dma_t begin_domain_mapping(struct machine *machine)
{
	map(machine, GIB, HIGH_BASE, RAM_SIZE, WRITE);
	return GIB;
}

static void end_domain_mapping(struct machine *machine, dmacore_dma_t dma)
{
	unmap(machine, dma, RAM_SIZE, 0);
}

static void domain_unmap__tells_when_accesses_in_flight_have_ended(void **state)
{
	check_in_flight(*state, begin_domain_mapping, end_domain_mapping);
}

/* A listener that comes and goes while others map. */
struct passer {
	atomic_uint running;
	atomic_uint releases;
	atomic_uint wrong;
};

static void pass_event(const struct dmacore_notifier_event *event, void *opaque)
{
	struct passer *passer = opaque;

	(void)event;
	passer->running++;
	passer->wrong += passer->releases != 0;
	passer->running--;
}

static void pass_release(void *opaque)
{
	struct passer *passer = opaque;

	passer->wrong += passer->running != 0;
	passer->releases++;
}

static void notifier__may_come_and_go_beside_changes(void **state)
{
	static struct passer passers[ROUNDS];
	struct machine *machine = *state;
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
	struct mirror mirror = { .wrong = 0 };
	struct dmacore_notifier *notifier, *passing[ROUNDS];

	memset(passers, 0, sizeof(passers));
	options.notify = mirror_event;
	options.release = mirror_release;
	options.opaque = &mirror;
	assert_ok(dmacore_notifier_create(machine->domain, &options, &notifier));
	options.notify = pass_event;
	options.release = pass_release;
	for (unsigned i = 0; i < THREADS; i++) {
		struct part *part = &mirror.parts[i];

		part->machine = machine;
		part->first = (i + 1) * GIB;
		assert_ok(pthread_create(&part->thread, NULL, change_part, part));
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		options.opaque = &passers[i];
		assert_ok(dmacore_notifier_create(machine->domain, &options, &passing[i]));
		if (i % 8 == 0)
			assert_ok(dmacore_notifier_replay(passing[i]));
		if (i >= 4)
			dmacore_notifier_destroy(passing[i - 4]);
	}
	for (unsigned i = ROUNDS - 4; i < ROUNDS; i++)
		dmacore_notifier_destroy(passing[i]);
	for (unsigned i = 0; i < THREADS; i++) {
		assert_ok(pthread_join(mirror.parts[i].thread, NULL));
		assert_int_equal(mirror.parts[i].wrong, 0);
	}
	dmacore_notifier_destroy(notifier);
	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_int_equal(passers[i].releases, 1);
		assert_int_equal(passers[i].wrong, 0);
	}
}

/* A callback that does not return before it is told to. */
struct gate {
	atomic_bool is_inside;
	atomic_bool is_open;
	atomic_uint releases;
};

static void wait_at_gate(const struct dmacore_notifier_event *event, void *opaque)
{
	struct gate *gate = opaque;

	(void)event;
	atomic_store(&gate->is_inside, true);
	while (!atomic_load(&gate->is_open))
		sched_yield();
}

static void release_gate(void *opaque)
{
	struct gate *gate = opaque;

	gate->releases++;
}

static void *map_a_page(void *opaque)
{
	struct machine *machine = opaque;

	return (void *)(intptr_t)dmacore_domain_map(machine->domain, 0x1000, 0, PAGE, READ);
}

static void notifier_destroy__does_not_wait_for_a_callback(void **state)
{
	struct machine *machine = *state;
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
	struct dmacore_notifier *notifier;
	struct gate gate = { .releases = 0 };
	pthread_t thread;
	void *result;

	options.notify = wait_at_gate;
	options.release = release_gate;
	options.opaque = &gate;
	assert_ok(dmacore_notifier_create(machine->domain, &options, &notifier));
	assert_ok(pthread_create(&thread, NULL, map_a_page, machine));
	while (!atomic_load(&gate.is_inside))
		sched_yield();
	dmacore_notifier_destroy(notifier);
	assert_int_equal(gate.releases, 0);
	atomic_store(&gate.is_open, true);
	assert_ok(pthread_join(thread, &result));
	assert_null(result);
	assert_int_equal(gate.releases, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_in(unmanaged, notifier_create__checks_its_arguments),
		test_in(blocked, notifier_create__takes_ranges_at_both_ends),
		test_in(unmanaged, notifier_destroy__takes_null_and_needs_no_release_callback),
		test_in(unmanaged, notifier__holds_its_domain),
		test_in(unmanaged, domain_map__tells_of_its_range_once),
		test_in(unmanaged, domain_unmap__tells_of_what_it_unmapped),
		test_in(unmanaged, domain_map__and_unmap_that_fail_tell_nothing),
		test_on_translated(mapping_calls__tell_of_whole_pages),
		test_on(FLAT | TRANSLATED, mapping_calls__tell_of_whole_pages),
		test_on_translated(mapping_calls__tell_of_a_page_for_which_all_was_at_hand),
		test_on(FLAT | TRANSLATED | HEAP_TABLES,
			mapping_calls__tell_of_a_page_for_which_all_was_at_hand),
		test_on_translated(device_destroy__tells_of_what_was_left_mapped),
		test_on_translated(mapping_calls__tell_what_the_table_permits),
		test_on(IDENTITY, direct_mappings__tell_nothing),
		test_on(IDENTITY | TRACKED, direct_mappings__tell_nothing),
		test_in(unmanaged, attaching__tells_nothing),
		test_in(unmanaged, notifier__tells_of_what_it_was_asked_for),
		test_in(unmanaged, notifier__tells_of_its_own_range_alone),
		test_in(unmanaged, notifier__splits_events_into_aligned_blocks),
		test_on_translated(event__comes_after_the_change),
		test_on_translated(event__lets_a_listener_end_a_zero_copy_mapping_in_time),
		test_in(unmanaged, domain_unmap__lets_a_listener_end_a_zero_copy_mapping_in_time),
		test_in(unmanaged, notifier_destroy__in_its_callback_is_the_last_that_it_hears),
		test_in(unmanaged, notifier_destroy__of_another_in_a_callback_ends_that),
		test_in(unmanaged, notifier_create__in_a_callback_is_told_of_later_changes),
		test_in(unmanaged, event__may_map_in_its_domain),
		test_in(unmanaged, notifier_replay__tells_of_contiguous_runs),
		test_in(unmanaged, notifier_replay__of_an_empty_domain_tells_nothing),
		test_in(blocked, notifier_replay__of_an_empty_domain_tells_nothing),
		test_on(IDENTITY, notifier_replay__of_an_identity_domain_is_one_event),
		test_in(unmanaged, notifier_replay__is_for_those_who_want_maps),
		test_in(unmanaged, notifier_replay__ends_with_its_notifier),
		test_in(unmanaged, notifier_replay__takes_back_what_is_unmapped_meanwhile),
		test_in(unmanaged, notifier_replay__tells_of_what_is_there_instead),
		test_on_translated(unmap__tells_when_accesses_in_flight_have_ended),
		test_in(unmanaged, domain_unmap__tells_when_accesses_in_flight_have_ended),
		test_in(unmanaged, notifier__mirrors_what_several_threads_do),
		test_in(unmanaged, notifier__may_come_and_go_beside_changes),
		test_in(unmanaged, notifier_destroy__does_not_wait_for_a_callback),
	};

	return cmocka_run_group_tests_name("notifier", tests, NULL, NULL);
}
