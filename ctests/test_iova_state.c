/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Two-step mapping: a range of addresses is reserved, and memory is linked into it. */

#include "support/drivers.h"
#include "support/pools.h"

#define PAGES 12

static void reserve(struct machine *machine, struct dmacore_iova_state *state, dmacore_phys_t phys,
		    uint64_t size)
{
	const struct dmacore_iova_state empty = DMACORE_IOVA_STATE_EMPTY;

	*state = empty;
	assert_ok(dmacore_iova_state_reserve(machine->device, phys, size, NULL, state));
	assert_true(dmacore_iova_state_is_reserved(state));
	assert_int_equal(dmacore_iova_state_address(state) % PAGE, phys % PAGE);
}

static int link_at(struct dmacore_iova_state *state, uint64_t offset, dmacore_phys_t phys,
		   uint64_t size)
{
	return dmacore_iova_state_link(state, offset, phys, size, DMACORE_BIDIRECTIONAL, 0);
}

static void assert_empty(const struct dmacore_iova_state *state)
{
	const struct dmacore_iova_state empty = DMACORE_IOVA_STATE_EMPTY;

	assert_memory_equal(state, &empty, sizeof(empty));
}

/* The device reads and writes just the memory. */
static void assert_leads(struct machine *machine, const struct dmacore_iova_state *state,
			 uint64_t offset, dmacore_phys_t phys, size_t size)
{
	const dmacore_dma_t dma = dmacore_iova_state_address(state) + offset;
	uint8_t *bytes = malloc(size), *memory = memory_at(machine, phys);

	assert_ok(dmacore_view_read(machine->view, dma, bytes, size));
	assert_memory_equal(bytes, memory, size);
	for (size_t i = 0; i < size; i++)
		bytes[i] = ~bytes[i];
	assert_ok(dmacore_view_write(machine->view, dma, bytes, size));
	assert_memory_equal(bytes, memory, size);
	free(bytes);
}

static void assert_hole(struct machine *machine, const struct dmacore_iova_state *state,
			uint64_t offset)
{
	const dmacore_dma_t dma = dmacore_iova_state_address(state) + offset;
	uint8_t byte;

	assert_fails(dmacore_view_read(machine->view, dma, &byte, 1), ENOENT);
	assert_int_equal(faults_take(machine).first, dma);
}

/* Reserving. */

static void iova_state_reserve__says_where_addresses_mean_nothing(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range = DMACORE_IOVA_STATE_EMPTY;

	assert_ok(dmacore_iova_state_reserve(machine->device, LOW_BASE, PAGE, NULL, &range));
	assert_false(dmacore_iova_state_is_reserved(&range));
	assert_int_equal(dmacore_iova_state_address(&range), 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	/* It is in use all the same. */
	assert_fails(dmacore_iova_state_reserve(machine->device, LOW_BASE, PAGE, NULL, &range),
		     EINVAL);
	assert_fails(link_at(&range, 0, LOW_BASE, PAGE), EINVAL);
	assert_fails(dmacore_iova_state_sync(&range, 0, 1), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, 0, PAGE), EINVAL);
	assert_ok(dmacore_iova_state_destroy(&range));
	assert_empty(&range);
	assert_ok(dmacore_iova_state_reserve(machine->device, LOW_BASE, PAGE, NULL, &range));
	assert_ok(dmacore_iova_state_free(&range));
	assert_empty(&range);
}

static void iova_state_reserve__does_not_in_a_hybrid_domain_that_bypasses(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range = DMACORE_IOVA_STATE_EMPTY;

	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	assert_ok(dmacore_iova_state_reserve(machine->device, LOW_BASE, PAGE, NULL, &range));
	assert_false(dmacore_iova_state_is_reserved(&range));
	assert_ok(dmacore_iova_state_free(&range));
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	fill_memory(machine);
	reserve(machine, &range, LOW_BASE, 2 * PAGE);
	assert_ok(link_at(&range, 0, HIGH_BASE, PAGE));
	/* Turned on again, a link is where its caller wants it all the same. */
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	assert_ok(link_at(&range, PAGE, LOW_BASE, PAGE));
	assert_leads(machine, &range, 0, HIGH_BASE, PAGE);
	assert_leads(machine, &range, PAGE, LOW_BASE, PAGE);
	assert_ok(dmacore_iova_state_destroy(&range));
}

static void iova_state_reserve__checks_its_arguments(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range = DMACORE_IOVA_STATE_EMPTY;
	struct dmacore_iova_state_options options = DMACORE_IOVA_STATE_OPTIONS_INIT;
	struct snapshot before = take_snapshot(machine), after;

	assert_fails(dmacore_iova_state_reserve(NULL, 0, PAGE, NULL, &range), EINVAL);
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, NULL, NULL), EINVAL);
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, 0, NULL, &range), EINVAL);
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, UINT64_MAX, NULL, &range),
		     EINVAL);
	assert_fails(
		dmacore_iova_state_reserve(machine->device, 0, UINT64_C(1) << 60, NULL, &range),
		ERANGE);
	options.flags = 2;
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, &options, &range),
		     EINVAL);
	options.flags = 0;
	options.reserved = 1;
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, &options, &range),
		     EINVAL);
	options.reserved = 0;
	options.links = (1 << 20) + 1;
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, &options, &range),
		     EINVAL);
	options.links = 0;
	options.bounced_pages = 65537;
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, &options, &range),
		     EINVAL);
	/* There is no pool. */
	options.bounced_pages = 1;
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, &options, &range),
		     ERANGE);
	options.struct_size -= 1;
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, &options, &range),
		     EINVAL);
	assert_empty(&range);
	assert_false(dmacore_iova_state_is_reserved(NULL));
	assert_int_equal(dmacore_iova_state_address(NULL), 0);
	after = take_snapshot(machine);
	assert_memory_equal(&before.device, &after.device, sizeof(before.device));
	assert_int_equal(before.domain.iova_bytes, after.domain.iova_bytes);
}

static void iova_state_reserve__refuses_who_may_not_map(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range = DMACORE_IOVA_STATE_EMPTY;

	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, NULL, &range), EPERM);
	reports_forget(&machine->reports);
	assert_ok(dmacore_device_set_mask(machine->device, 0, NULL));
	assert_fails(dmacore_iova_state_reserve(machine->device, 0, PAGE, NULL, &range), ENXIO);
	assert_empty(&range);
}

static void iova_state_reserve__keeps_the_domain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;

	reserve(machine, &range, LOW_BASE, PAGE);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	assert_ok(dmacore_iova_state_free(&range));
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
}

/* Linking. */

static void iova_state_link__maps_at_the_offset_and_leaves_holes(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;

	fill_memory(machine);
	reserve(machine, &range, LOW_BASE + 100, PAGES * PAGE);
	/* In any order: the head, a page behind a hole, one between, and the tail. */
	assert_ok(link_at(&range, 0, LOW_BASE + 100, PAGE - 100));
	assert_ok(link_at(&range, 5 * PAGE - 100, HIGH_BASE + PAGE, 2 * PAGE));
	assert_ok(link_at(&range, 3 * PAGE - 100, LOW_BASE + 7 * PAGE, PAGE));
	assert_ok(link_at(&range, 11 * PAGE - 100, NEXT_BASE, 70));
	assert_ok(dmacore_iova_state_sync(&range, 0, PAGE - 100));
	assert_ok(dmacore_iova_state_sync(&range, 5 * PAGE - 100, 2 * PAGE));
	assert_leads(machine, &range, 0, LOW_BASE + 100, PAGE - 100);
	assert_leads(machine, &range, 5 * PAGE - 100, HIGH_BASE + PAGE, 2 * PAGE);
	assert_leads(machine, &range, 3 * PAGE - 100, LOW_BASE + 7 * PAGE, PAGE);
	assert_leads(machine, &range, 11 * PAGE - 100, NEXT_BASE, 70);
	assert_hole(machine, &range, PAGE - 100);
	assert_hole(machine, &range, 4 * PAGE - 100);
	assert_hole(machine, &range, 7 * PAGE - 100);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	assert_ok(dmacore_iova_state_destroy(&range));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
}

/* What is linked is as it was: two pages at 0, and one at 4. */
static void assert_unchanged(struct machine *machine, struct dmacore_iova_state *range)
{
	assert_leads(machine, range, 0, LOW_BASE, 2 * PAGE);
	assert_leads(machine, range, 4 * PAGE, HIGH_BASE, 100);
	assert_hole(machine, range, 2 * PAGE);
	assert_hole(machine, range, 5 * PAGE);
}

static void iova_state_link__checks_bounds_overlap_and_congruence(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;

	fill_memory(machine);
	reserve(machine, &range, LOW_BASE, 8 * PAGE + 5);
	assert_ok(link_at(&range, 0, LOW_BASE, 2 * PAGE));
	assert_ok(link_at(&range, 4 * PAGE, HIGH_BASE, 100));
	/* Bounds. */
	assert_fails(link_at(&range, 8 * PAGE, LOW_BASE, 6), E2BIG);
	assert_fails(link_at(&range, 8 * PAGE + 5, LOW_BASE + 5, 1), E2BIG);
	assert_fails(link_at(&range, 6 * PAGE, LOW_BASE, UINT64_MAX - LOW_BASE), E2BIG);
	assert_fails(link_at(&range, UINT64_MAX, LOW_BASE + PAGE - 1, 1), E2BIG);
	/* Overlap, by pages. */
	assert_fails(link_at(&range, 0, LOW_BASE, PAGE), EEXIST);
	assert_fails(link_at(&range, PAGE, LOW_BASE, 2 * PAGE), EEXIST);
	assert_fails(link_at(&range, 4 * PAGE + 100, HIGH_BASE + 100, 10), EEXIST);
	assert_fails(link_at(&range, 3 * PAGE, LOW_BASE, 3 * PAGE), EEXIST);
	assert_fails(link_at(&range, 3 * PAGE + 1, LOW_BASE + 1, PAGE), EEXIST);
	/* Congruence. */
	assert_fails(link_at(&range, 2 * PAGE, LOW_BASE + 1, 10), EFAULT);
	assert_fails(link_at(&range, 2 * PAGE + 8, LOW_BASE, 10), EFAULT);
	/* The rest. */
	assert_fails(link_at(&range, 2 * PAGE, LOW_BASE, 0), EINVAL);
	assert_fails(link_at(&range, 2 * PAGE, UINT64_MAX - PAGE + 1, 2 * PAGE), ERANGE);
	assert_fails(link_at(&range, 2 * PAGE, UINT64_C(1) << 60, PAGE), ERANGE);
	assert_fails(dmacore_iova_state_link(&range, 2 * PAGE, LOW_BASE, PAGE, 3, 0), EINVAL);
	assert_fails(dmacore_iova_state_link(&range, 2 * PAGE, LOW_BASE, PAGE, 0, 1), EINVAL);
	assert_fails(link_at(NULL, 0, LOW_BASE, PAGE), EINVAL);
	assert_unchanged(machine, &range);
	assert_ok(link_at(&range, 8 * PAGE, LOW_BASE, 5));
	assert_ok(dmacore_iova_state_destroy(&range));
}

static void iova_state_link__permits_what_the_direction_says(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	dmacore_dma_t dma;
	uint8_t byte = 0;

	reserve(machine, &range, LOW_BASE, 2 * PAGE);
	dma = dmacore_iova_state_address(&range);
	assert_ok(dmacore_iova_state_link(&range, 0, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_iova_state_link(&range, PAGE, LOW_BASE, PAGE, DMACORE_FROM_DEVICE, 0));
	assert_ok(dmacore_view_read(machine->view, dma, &byte, 1));
	assert_ok(dmacore_view_write(machine->view, dma + PAGE, &byte, 1));
	assert_fails(dmacore_view_write(machine->view, dma, &byte, 1), EACCES);
	(void)faults_take(machine);
	assert_ok(dmacore_iova_state_destroy(&range));
}

static void iova_state_link__finds_room_for_many(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	const unsigned many = 1000;

	fill_memory(machine);
	reserve(machine, &range, LOW_BASE, many * PAGE);
	/* Even ones from the end on, odd ones from the start on. */
	for (unsigned i = many; i > 0; i -= 2)
		assert_ok(link_at(&range, (i - 2) * PAGE, LOW_BASE, PAGE));
	for (unsigned i = 1; i < many; i += 2)
		assert_ok(link_at(&range, i * PAGE, HIGH_BASE, PAGE));
	for (unsigned i = 0; i < many; i++)
		assert_fails(link_at(&range, i * PAGE, LOW_BASE, PAGE), EEXIST);
	assert_leads(machine, &range, 998 * PAGE, LOW_BASE, PAGE);
	assert_leads(machine, &range, 999 * PAGE, HIGH_BASE, PAGE);
	assert_ok(dmacore_iova_state_unlink(&range, 0, many * PAGE));
	assert_ok(dmacore_iova_state_free(&range));
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

/* Syncing. */

static void iova_state_sync__demands_that_all_bytes_are_linked(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	int (*const syncs[])(struct dmacore_iova_state *, uint64_t, uint64_t) = {
		dmacore_iova_state_sync,
		dmacore_iova_state_sync_for_cpu,
		dmacore_iova_state_sync_for_device,
	};

	reserve(machine, &range, LOW_BASE, 8 * PAGE);
	assert_fails(dmacore_iova_state_sync(&range, 0, 1), EINVAL);
	assert_ok(link_at(&range, PAGE, LOW_BASE, PAGE));
	assert_ok(link_at(&range, 2 * PAGE, LOW_BASE + 5 * PAGE, 2 * PAGE));
	assert_ok(link_at(&range, 5 * PAGE, LOW_BASE, PAGE));
	for (unsigned i = 0; i < 3; i++) {
		assert_ok(syncs[i](&range, PAGE, 3 * PAGE));
		assert_ok(syncs[i](&range, PAGE + 7, 1));
		assert_ok(syncs[i](&range, 2 * PAGE - 1, 2));
		assert_ok(syncs[i](&range, 5 * PAGE, PAGE));
		assert_fails(syncs[i](&range, PAGE - 1, 2), EINVAL);
		assert_fails(syncs[i](&range, PAGE, 3 * PAGE + 1), EINVAL);
		assert_fails(syncs[i](&range, PAGE, 5 * PAGE), EINVAL);
		assert_fails(syncs[i](&range, 4 * PAGE, 1), EINVAL);
		assert_fails(syncs[i](&range, 6 * PAGE, 1), EINVAL);
		assert_fails(syncs[i](&range, PAGE, 0), EINVAL);
		assert_fails(syncs[i](&range, 8 * PAGE, 1), E2BIG);
		assert_fails(syncs[i](&range, PAGE, UINT64_MAX), E2BIG);
		assert_fails(syncs[i](NULL, 0, 1), EINVAL);
	}
	assert_ok(dmacore_iova_state_destroy(&range));
}

/* Unlinking. */

static void iova_state_unlink__takes_whole_links(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;

	fill_memory(machine);
	reserve(machine, &range, LOW_BASE, 8 * PAGE);
	assert_ok(link_at(&range, 0, LOW_BASE, 2 * PAGE));
	assert_ok(link_at(&range, 4 * PAGE, HIGH_BASE, 100));
	/* Parts, holes, and what is behind. */
	assert_fails(dmacore_iova_state_unlink(&range, 0, PAGE), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, PAGE, PAGE), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, 0, 2 * PAGE + 1), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, 2 * PAGE, PAGE), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, 4 * PAGE, PAGE), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, 0, 8 * PAGE), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, 0, 0), EINVAL);
	assert_fails(dmacore_iova_state_unlink(&range, 0, 8 * PAGE + 1), E2BIG);
	assert_fails(dmacore_iova_state_unlink(NULL, 0, PAGE), EINVAL);
	assert_fails(dmacore_iova_state_free(&range), EBUSY);
	assert_unchanged(machine, &range);
	assert_ok(dmacore_iova_state_unlink(&range, 0, 2 * PAGE));
	assert_hole(machine, &range, 0);
	assert_leads(machine, &range, 4 * PAGE, HIGH_BASE, 100);
	/* The addresses are still there; other memory can be there, and two links go at once. */
	assert_ok(link_at(&range, 0, NEXT_BASE, PAGE));
	assert_leads(machine, &range, 0, NEXT_BASE, PAGE);
	assert_ok(dmacore_iova_state_unlink(&range, 0, 4 * PAGE + 100));
	assert_hole(machine, &range, 0);
	assert_hole(machine, &range, 4 * PAGE);
	assert_ok(dmacore_iova_state_free(&range));
	assert_fails(dmacore_iova_state_free(&range), EINVAL);
	assert_fails(dmacore_iova_state_destroy(&range), EINVAL);
	assert_fails(dmacore_iova_state_destroy(NULL), EINVAL);
}

/* Whatever was linked, what was reserved is freed: the same addresses can be had again, all of them. */
static void iova_state_destroy__frees_what_was_reserved(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	dmacore_dma_t dma;

	machine_narrow(machine, 16 * PAGE, 24 * PAGE - 1);
	reserve(machine, &range, LOW_BASE, 8 * PAGE);
	assert_ok(link_at(&range, 0, LOW_BASE, PAGE));
	assert_fails(dmacore_map_single(machine->device, machine->low, 1, 0, 0, &dma), ENOSPC);
	assert_ok(dmacore_iova_state_destroy(&range));
	reserve(machine, &range, LOW_BASE, 8 * PAGE);
	assert_ok(dmacore_iova_state_free(&range));
	reserve(machine, &range, LOW_BASE, 8 * PAGE);
	assert_ok(link_at(&range, 3 * PAGE, LOW_BASE, 5 * PAGE));
	assert_ok(dmacore_iova_state_unlink(&range, 3 * PAGE, 5 * PAGE));
	assert_ok(dmacore_iova_state_free(&range));
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
}

static void iova_state__is_no_single_mapping(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	dmacore_dma_t dma;

	reserve(machine, &range, LOW_BASE, PAGE);
	assert_ok(link_at(&range, 0, LOW_BASE, PAGE));
	dma = dmacore_iova_state_address(&range);
	assert_fails(dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0), EINVAL);
	assert_non_null(strstr(reports_take(&machine->reports)->text, "a reserved range of 4096"));
	assert_fails(dmacore_sync_for_cpu(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL),
		     EINVAL);
	assert_non_null(strstr(reports_take(&machine->reports)->text, "a reserved range of 4096"));
	assert_leads(machine, &range, 0, LOW_BASE, PAGE);
	assert_ok(dmacore_iova_state_destroy(&range));
}

/* In a lazy domain a destroy is as lazy as an unmap, and an unlink is not. */
static void iova_state_destroy__is_lazy_where_the_domain_is(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	dmacore_dma_t dma;

	machine_use(machine, DMACORE_DOMAIN_DMA_LAZY);
	reserve(machine, &range, LOW_BASE, 4 * PAGE);
	dma = dmacore_iova_state_address(&range);
	assert_ok(link_at(&range, 0, LOW_BASE, PAGE));
	assert_ok(link_at(&range, 2 * PAGE, LOW_BASE, PAGE));
	assert_ok(dmacore_iova_state_unlink(&range, 0, PAGE));
	assert_int_equal(domain_statistics(machine->domain).queued_count, 0);
	assert_ok(dmacore_iova_state_destroy(&range));
	assert_int_equal(domain_statistics(machine->domain).queued_count, 1);
	assert_int_equal(domain_statistics(machine->domain).queued_bytes, 4 * PAGE);
	assert_ok(dmacore_domain_flush(machine->domain));
	reserve(machine, &range, LOW_BASE, 4 * PAGE);
	assert_int_equal(dmacore_iova_state_address(&range), dma);
	assert_ok(dmacore_iova_state_free(&range));
}

/* When the device's driver goes, so does the range; the state says so. */
static void iova_state__ends_with_the_drivers_mappings(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;

	reserve(machine, &range, LOW_BASE, 2 * PAGE);
	assert_ok(link_at(&range, 0, LOW_BASE, PAGE));
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_non_null(strstr(reports_take(&machine->reports)->text, "1 live mapping"));
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

/* The driver has gone, and all that it had mapped: its state is refused, with a report. */
static void iova_state__is_refused_when_the_driver_has_gone(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	struct test_driver driver;

	/* Its remove leaves mappings behind. */
	test_driver_init(&driver, "sd", 0);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_device_bind(machine->device, &driver.descriptor));
	reserve(machine, &range, LOW_BASE, 2 * PAGE);
	assert_ok(link_at(&range, 0, LOW_BASE, PAGE));
	assert_ok(dmacore_device_unbind(machine->device));
	assert_non_null(strstr(reports_take(&machine->reports)->text, "1 live mapping"));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_fails(link_at(&range, PAGE, LOW_BASE, PAGE), EINVAL);
	assert_non_null(strstr(reports_take(&machine->reports)->text, "a link of 8192 bytes"));
	assert_fails(dmacore_iova_state_sync_for_cpu(&range, 0, PAGE), EINVAL);
	assert_non_null(strstr(reports_take(&machine->reports)->text, "nothing is mapped there"));
	assert_fails(dmacore_iova_state_destroy(&range), EINVAL);
	assert_non_null(strstr(reports_take(&machine->reports)->text, "a destroy of 8192 bytes"));
}

/* Bounced ends. */

/* A device that is not trusted, and memory that is not whole pages. */
static void iova_state_link__bounces_what_the_device_may_not_have_whole(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	struct dmacore_bounce_pool *pool;
	uint8_t bytes[2 * PAGE];
	dmacore_dma_t dma;

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 16 * PAGE, &pool);
	reserve(machine, &range, LOW_BASE + 100, 8 * PAGE);
	dma = dmacore_iova_state_address(&range);
	/* Head, middle and tail. */
	assert_ok(link_at(&range, 0, LOW_BASE + 100, 3 * PAGE));
	assert_ok(link_at(&range, 4 * PAGE - 100, HIGH_BASE, PAGE));
	assert_int_equal(used_slots(pool), 2 * 2);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, PAGE));
	assert_memory_equal(bytes, machine->low + 100, PAGE);
	/* The neighbours on its pages are not there. */
	assert_ok(dmacore_view_read(machine->view, dma - 100, bytes, 100));
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(bytes[i], 0);
	assert_ok(dmacore_view_read(machine->view, dma + 3 * PAGE, bytes, PAGE - 100));
	for (unsigned i = 0; i < PAGE - 100; i++)
		assert_int_equal(bytes[i], 0);
	/* The middle is the memory itself, the ends are when they are synced. */
	fill(bytes, sizeof(bytes), 7);
	assert_ok(dmacore_view_write(machine->view, dma + PAGE - 200, bytes, 300));
	assert_memory_equal(machine->low + PAGE, bytes + 100, 200);
	assert_memory_not_equal(machine->low + PAGE - 100, bytes, 100);
	assert_ok(dmacore_iova_state_sync_for_cpu(&range, PAGE - 150, 20));
	assert_memory_equal(machine->low + PAGE - 50, bytes + 50, 20);
	assert_memory_not_equal(machine->low + PAGE - 100, bytes, 50);
	assert_memory_not_equal(machine->low + PAGE - 30, bytes + 70, 30);
	/* And what the CPU changes. */
	memory_at(machine, LOW_BASE + 3 * PAGE + 50)[0] ^= 0xff;
	assert_ok(dmacore_iova_state_sync_for_device(&range, 3 * PAGE - 50, 1));
	assert_ok(dmacore_view_read(machine->view, dma + 3 * PAGE - 50, bytes + PAGE, 1));
	assert_int_equal(bytes[PAGE], machine->low[3 * PAGE + 50]);
	/* The rest comes back with the unlink. */
	assert_ok(dmacore_iova_state_unlink(&range, 0, 3 * PAGE));
	assert_memory_equal(machine->low + PAGE - 100, bytes, 300);
	assert_int_equal(used_slots(pool), 0);
	assert_leads(machine, &range, 4 * PAGE - 100, HIGH_BASE, PAGE);
	/* One page that lies within its page, at the end of the range, and destroyed. */
	assert_ok(link_at(&range, 7 * PAGE, NEXT_BASE + 100, 60));
	assert_ok(dmacore_view_write(machine->view, dma + 7 * PAGE + 3, "abc", 3));
	assert_ok(dmacore_iova_state_destroy(&range));
	assert_memory_equal(machine->next + 103, "abc", 3);
	assert_int_equal(used_slots(pool), 0);
	end_pool(machine, pool);
}

/* Whatever alignment the device asks for, the copy lies at the same place of its page. */
static void iova_state_link__bounces_at_the_same_place_whatever_the_alignment(void **state)
{
	const uint64_t masks[] = { 0, 63, 511, PAGE - 1, 2 * PAGE - 1 };
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 16 * PAGE, &pool);
	for (unsigned i = 0; i < 5; i++) {
		struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
		struct dmacore_iova_state range;
		uint8_t bytes[PAGE];

		limits.min_align_mask = masks[i];
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		reserve(machine, &range, LOW_BASE + 1234, 4 * PAGE);
		assert_ok(link_at(&range, 0, LOW_BASE + 1234, PAGE));
		assert_ok(dmacore_view_read(machine->view, dmacore_iova_state_address(&range),
					    bytes, PAGE));
		assert_memory_equal(bytes, machine->low + 1234, PAGE);
		assert_ok(dmacore_iova_state_destroy(&range));
	}
	end_pool(machine, pool);
}

static void iova_state_link__copies_back_what_may_be_written_alone(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	struct dmacore_bounce_pool *pool;
	uint8_t before = 0;

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 16 * PAGE, &pool);
	for (unsigned way = 0; way < 2; way++) {
		reserve(machine, &range, LOW_BASE, 4 * PAGE);
		assert_ok(
			dmacore_iova_state_link(&range, 8, LOW_BASE + 8, 8, DMACORE_TO_DEVICE, 0));
		assert_ok(dmacore_iova_state_link(&range, PAGE, HIGH_BASE, 8, DMACORE_FROM_DEVICE,
						  DMACORE_ATTR_SKIP_CPU_SYNC));
		assert_ok(dmacore_iova_state_link(&range, 2 * PAGE, NEXT_BASE, 8,
						  DMACORE_FROM_DEVICE, 0));
		assert_ok(dmacore_view_write(
			machine->view, dmacore_iova_state_address(&range) + PAGE, "01234567", 8));
		assert_ok(dmacore_view_write(machine->view,
					     dmacore_iova_state_address(&range) + 2 * PAGE,
					     "01234567", 8));
		/* Of the CPU meanwhile, and no business of the mapping's. */
		machine->low[8] = ++before;
		if (way == 0)
			assert_ok(dmacore_iova_state_unlink(&range, 8, 2 * PAGE));
		assert_ok(dmacore_iova_state_destroy(&range));
		assert_int_equal(machine->low[8], before);
		assert_memory_not_equal(machine->high, "01234567", 8);
		assert_memory_equal(machine->next, "01234567", 8);
		fill(machine->next, 8, way);
		assert_int_equal(used_slots(pool), 0);
	}
	end_pool(machine, pool);
}

static void iova_state_link__refuses_what_may_not_be_copied(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range;
	struct dmacore_bounce_pool *pool;

	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 2 * PAGE, &pool);
	reserve(machine, &range, LOW_BASE, 8 * PAGE);
	assert_fails(dmacore_iova_state_link(&range, 8, LOW_BASE + 8, 8, 0, DMACORE_ATTR_MMIO),
		     ERANGE);
	assert_fails(dmacore_iova_state_link(&range, 8, LOW_BASE + 8, 8, 0,
					     DMACORE_ATTR_REQUIRE_COHERENT),
		     EOPNOTSUPP);
	assert_ok(dmacore_iova_state_link(&range, 0, LOW_BASE, PAGE, 0,
					  DMACORE_ATTR_REQUIRE_COHERENT));
	/* The pool has two pages: both, or none, and the links there are stay. */
	assert_ok(link_at(&range, PAGE, LOW_BASE + PAGE, 8));
	assert_fails(link_at(&range, 2 * PAGE + 8, LOW_BASE + 8, 2 * PAGE), ENOSPC);
	assert_int_equal(used_slots(pool), 2);
	assert_hole(machine, &range, 2 * PAGE + 8);
	assert_leads(machine, &range, 0, LOW_BASE, PAGE);
	assert_ok(dmacore_iova_state_unlink(&range, PAGE, 8));
	assert_ok(link_at(&range, 2 * PAGE + 8, LOW_BASE + 8, 2 * PAGE));
	assert_ok(dmacore_iova_state_destroy(&range));
	end_pool(machine, pool);
}

static void iova_state_reserve__keeps_pages_for_bounced_ends(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iova_state range = DMACORE_IOVA_STATE_EMPTY;
	struct dmacore_iova_state other = DMACORE_IOVA_STATE_EMPTY;
	struct dmacore_iova_state_options options = DMACORE_IOVA_STATE_OPTIONS_INIT;
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };
	struct dmacore_bounce_pool *pool;

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 4 * PAGE, &pool);
	options.links = 2;
	options.bounced_pages = 3;
	options.flags = DMACORE_IOVA_STATE_PAGE_TABLES;
	assert_ok(
		dmacore_iova_state_reserve(machine->device, LOW_BASE, 16 * PAGE, &options, &range));
	assert_int_equal(used_slots(pool), 6);
	assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
	assert_int_equal(statistics.copied_to_pool, 0);
	/* There are not so many any more; and nothing is left of what failed. */
	assert_fails(
		dmacore_iova_state_reserve(machine->device, LOW_BASE, 16 * PAGE, &options, &other),
		ENOSPC);
	assert_empty(&other);
	assert_int_equal(used_slots(pool), 6);
	for (unsigned round = 0; round < 3; round++) {
		/* Two of the three, and the third with one of the pool's. */
		assert_ok(link_at(&range, 8, LOW_BASE + 8, PAGE));
		assert_int_equal(used_slots(pool), 6);
		assert_ok(link_at(&range, 4 * PAGE + 9, HIGH_BASE + 9, PAGE));
		assert_int_equal(used_slots(pool), 8);
		assert_fails(link_at(&range, 8 * PAGE, HIGH_BASE, 1), ENOSPC);
		assert_int_equal(used_slots(pool), 8);
		assert_ok(dmacore_view_write(machine->view, dmacore_iova_state_address(&range) + 20,
					     "xyz", 3));
		assert_ok(dmacore_iova_state_unlink(&range, 8, PAGE));
		assert_memory_equal(machine->low + 20, "xyz", 3);
		fill(machine->low, PAGE, round);
		assert_ok(dmacore_iova_state_unlink(&range, 4 * PAGE + 9, PAGE));
		assert_int_equal(used_slots(pool), 6);
	}
	assert_ok(dmacore_iova_state_destroy(&range));
	assert_int_equal(used_slots(pool), 0);
	end_pool(machine, pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, iova_state_reserve__says_where_addresses_mean_nothing),
		test_on(IDENTITY, iova_state_reserve__says_where_addresses_mean_nothing),
		test_on(FLAT | TRACKED, iova_state_reserve__says_where_addresses_mean_nothing),
		test_on_translated(iova_state_reserve__does_not_in_a_hybrid_domain_that_bypasses),
		test_on_translated(iova_state_reserve__checks_its_arguments),
		{ "iova_state_reserve__refuses_who_may_not_map (blocked)",
		  iova_state_reserve__refuses_who_may_not_map, blocked_setup, machine_teardown,
		  (void *)(uintptr_t)TRANSLATED },
		{ "iova_state_reserve__refuses_who_may_not_map (unmanaged)",
		  iova_state_reserve__refuses_who_may_not_map, unmanaged_setup, machine_teardown,
		  (void *)(uintptr_t)TRANSLATED },
		test_on_translated(iova_state_reserve__keeps_the_domain),
		test_on_translated(iova_state_link__maps_at_the_offset_and_leaves_holes),
		test_on_translated(iova_state_link__checks_bounds_overlap_and_congruence),
		test_on_translated(iova_state_link__permits_what_the_direction_says),
		test_on_translated(iova_state_link__finds_room_for_many),
		test_on_translated(iova_state_sync__demands_that_all_bytes_are_linked),
		test_on_translated(iova_state_unlink__takes_whole_links),
		test_on_translated(iova_state_destroy__frees_what_was_reserved),
		test_on_translated(iova_state__is_no_single_mapping),
		test_on_translated(iova_state_destroy__is_lazy_where_the_domain_is),
		test_on_translated(iova_state__ends_with_the_drivers_mappings),
		test_on(TRANSLATED, iova_state__is_refused_when_the_driver_has_gone),
		test_on_translated(iova_state_link__bounces_what_the_device_may_not_have_whole),
		test_on_translated(
			iova_state_link__bounces_at_the_same_place_whatever_the_alignment),
		test_on_translated(iova_state_link__copies_back_what_may_be_written_alone),
		test_on_translated(iova_state_link__refuses_what_may_not_be_copied),
		test_on_translated(iova_state_reserve__keeps_pages_for_bounced_ends),
	};

	return run_group("two-step mapping", tests);
}
