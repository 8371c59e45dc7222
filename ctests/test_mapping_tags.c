/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Small mappings of a DMA domain, which are told apart without records where the tables allow. */

#define _GNU_SOURCE

#include "support/machine.h"

#include <pthread.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIVE 24
#define STEPS 4000

static void unmap__ends_no_mapping_of_another_device_in_the_domain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_attach(machine->domain, other));
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_misuse(machine, dmacore_unmap(other, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_sync_for_cpu(other, dma, PAGE, DMACORE_TO_DEVICE));
	assert_int_equal(device_statistics(other).mapping_count, 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	/* The one that has nothing may go elsewhere. */
	assert_ok(dmacore_domain_detach(machine->domain, other));
	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_device_destroy(other);
}

static uint64_t random_below(uint64_t *state, uint64_t bound)
{
	return random_next(state) % bound;
}

struct live {
	dmacore_dma_t dma;
	uint64_t size;
	uint32_t direction;
	uint32_t attributes;
};

static void assert_listed(struct machine *machine, const struct live *live, unsigned count)
{
	struct dmacore_mapping_info infos[LIVE];
	uint64_t found, bytes = 0;

	assert_ok(
		dmacore_device_list_mappings(machine->device, 0, UINT64_MAX, infos, LIVE, &found));
	assert_int_equal(found, count);
	for (unsigned i = 0; i < count; i++) {
		unsigned n = 0;

		assert_true(i == 0 || infos[i - 1].last < infos[i].first);
		while (n < LIVE && !(live[n].size && live[n].dma == infos[i].first))
			n++;
		assert_true(n < LIVE);
		assert_int_equal(infos[i].last - infos[i].first + 1, live[n].size);
		assert_int_equal(infos[i].direction, live[n].direction);
		assert_int_equal(infos[i].attributes, live[n].attributes);
		bytes += live[n].size;
	}
	assert_int_equal(device_statistics(machine->device).mapping_count, count);
	assert_int_equal(device_statistics(machine->device).mapping_bytes, bytes);
}

/* Everything but what was said when it was mapped is refused; some of it is too large for a tag. */
static void mappings__are_known_by_all_that_was_said_of_them(void **state)
{
	struct machine *machine = *state;
	const uint32_t attributes[] = { 0,
					DMACORE_ATTR_WEAK_ORDERING,
					DMACORE_ATTR_SKIP_CPU_SYNC,
					DMACORE_ATTR_NO_WARN,
					DMACORE_ATTR_PRIVILEGED,
					DMACORE_ATTR_REQUIRE_COHERENT };
	struct live live[LIVE] = { { 0 } };
	uint64_t random = 1;
	unsigned count = 0;

	for (unsigned step = 0; step < STEPS; step++) {
		struct live *one = &live[random_below(&random, LIVE)];

		if (one->size == 0) {
			uint64_t phys = LOW_BASE + random_below(&random, 3 * PAGE);

			one->size = 1 + random_below(&random, step % 8 ? 3 * PAGE : 80 * PAGE);
			one->direction = (uint32_t)random_below(&random, 3);
			one->attributes = attributes[random_below(&random, 6)];
			assert_ok(dmacore_map_phys(machine->device, phys, one->size, one->direction,
						   one->attributes, &one->dma));
			assert_int_equal(one->dma % PAGE, phys % PAGE);
			count++;
			continue;
		}
		if (one->size > 1) {
			uint64_t at = random_below(&random, one->size);

			assert_ok(dmacore_sync_for_cpu(machine->device, one->dma + at,
						       one->size - at, one->direction));
			assert_misuse(machine,
				      dmacore_sync_for_device(machine->device, one->dma + at,
							      one->size - at + 1, one->direction));
			assert_misuse(machine,
				      dmacore_unmap(machine->device, one->dma, one->size - 1,
						    one->direction, one->attributes));
		}
		assert_misuse(machine, dmacore_unmap(machine->device, one->dma, one->size,
						     (one->direction + 1) % 3, one->attributes));
		assert_misuse(machine,
			      dmacore_unmap(machine->device, one->dma, one->size, one->direction,
					    one->attributes ^ DMACORE_ATTR_WEAK_ORDERING));
		assert_ok(dmacore_unmap(machine->device, one->dma, one->size, one->direction,
					one->attributes));
		assert_misuse(machine, dmacore_unmap(machine->device, one->dma, one->size,
						     one->direction, one->attributes));
		one->size = 0;
		count--;
		/* Room for the next. */
		machine->reports.count = machine->reports.taken = 0;
		if (step % 16 == 0)
			assert_listed(machine, live, count);
	}
	for (unsigned i = 0; i < LIVE; i++)
		if (live[i].size)
			assert_ok(dmacore_unmap(machine->device, live[i].dma, live[i].size,
						live[i].direction, live[i].attributes));
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
}

static void map_phys__finds_the_addresses_that_single_pages_had(void **state)
{
	enum { PAGES = 40 };
	struct machine *machine = *state;
	dmacore_dma_t pages[PAGES], all;

	machine_narrow(machine, PAGE, (PAGES + 1) * PAGE - 1);
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < PAGES; i++)
			assert_ok(dmacore_map_phys(machine->device, LOW_BASE, PAGE,
						   DMACORE_TO_DEVICE, 0, &pages[i]));
		assert_fails(dmacore_map_phys(machine->device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0,
					      &all),
			     ENOSPC);
		for (unsigned i = 0; i < PAGES; i++)
			assert_ok(dmacore_unmap(machine->device, pages[i], PAGE, DMACORE_TO_DEVICE,
						0));
		assert_ok(dmacore_map_phys(machine->device, LOW_BASE, PAGES * PAGE,
					   DMACORE_TO_DEVICE, 0, &all));
		assert_int_equal(all, PAGE);
		assert_ok(dmacore_unmap(machine->device, all, PAGES * PAGE, DMACORE_TO_DEVICE, 0));
	}
}

static dmacore_dma_t map_and_unmap(struct machine *machine, uint64_t phys)
{
	dmacore_dma_t dma;

	assert_ok(dmacore_map_phys(machine->device, phys, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	return dma;
}

/* So that low addresses are left to those that reach no others. */
static void map_phys__gives_high_pages_to_who_reaches_them(void **state)
{
	struct machine *machine = *state;

	for (unsigned turn = 0; turn < 3; turn++) {
		assert_ok(dmacore_device_set_streaming_mask(machine->device, DMACORE_BIT_MASK(32),
							    NULL));
		for (unsigned i = 0; i < 5; i++)
			assert_true(map_and_unmap(machine, LOW_BASE) <= UINT32_MAX);
		assert_ok(dmacore_device_set_streaming_mask(machine->device, DMACORE_BIT_MASK(40),
							    NULL));
		for (unsigned i = 0; i < 5; i++)
			assert_in_range(map_and_unmap(machine, LOW_BASE), UINT32_MAX,
					DMACORE_BIT_MASK(40));
	}
}

static void map_phys__keeps_the_bits_that_the_device_wants_kept(void **state)
{
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct machine *machine = *state;

	for (unsigned turn = 0; turn < 3; turn++) {
		limits.min_align_mask = 0;
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		for (unsigned i = 0; i < 5; i++)
			(void)map_and_unmap(machine, LOW_BASE);
		limits.min_align_mask = 16 * PAGE - 1;
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		for (unsigned i = 0; i < 5; i++)
			assert_int_equal(map_and_unmap(machine, LOW_BASE + i * PAGE) % (16 * PAGE),
					 (LOW_BASE + i * PAGE) % (16 * PAGE));
	}
}

static void set_ranges__leaves_pages_at_hand_that_the_bus_lacks(void **state)
{
	const struct dmacore_dma_range range = { .bus = 64 * PAGE, .size = 4 * PAGE };
	struct machine *machine = *state;

	for (unsigned i = 0; i < 5; i++)
		assert_true(map_and_unmap(machine, LOW_BASE) > 68 * PAGE);
	assert_ok(dmacore_device_set_ranges(machine->device, &range, 1));
	for (unsigned i = 0; i < 5; i++)
		assert_in_range(map_and_unmap(machine, LOW_BASE), 64 * PAGE, 67 * PAGE);
}

static void set_streaming_mask__needs_no_domain(void **state)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct machine *machine = *state;

	(void)map_and_unmap(machine, LOW_BASE);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
	options.type = DMACORE_DOMAIN_DMA;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &machine->domain));
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	for (unsigned i = 0; i < 5; i++)
		assert_true(map_and_unmap(machine, LOW_BASE) <= UINT32_MAX);
}

/* Whether addresses are at hand or not. */
static void map_phys__refuses_memory_that_the_page_table_cannot_lead_to(void **state)
{
	struct machine *machine = *state;

	for (uint64_t size = PAGE; size <= 3 * PAGE; size += PAGE) {
		for (unsigned i = 0; i < 3; i++) {
			dmacore_dma_t dma;

			assert_fails(dmacore_map_phys(machine->device, UINT64_C(1) << 62, size,
						      DMACORE_TO_DEVICE, DMACORE_ATTR_NO_WARN,
						      &dma),
				     ERANGE);
			assert_ok(dmacore_map_phys(machine->device, LOW_BASE, size,
						   DMACORE_TO_DEVICE, 0, &dma));
			assert_ok(dmacore_unmap(machine->device, dma, size, DMACORE_TO_DEVICE, 0));
		}
	}
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
}

static void unmap__reports_no_zero_copy_mapping_of_what_was_there_before(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	dmacore_dma_t held, dma[3];
	bool is_met = false;
	size_t count;

	get_ready(machine);
	held = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_view_map(machine->view, held, PAGE, DMACORE_ACCESS_READ, &mapping,
				   &segments, &count));
	assert_ok(dmacore_unmap(machine->device, held, PAGE, DMACORE_TO_DEVICE, 0));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	for (int i = 0; i < 3; i++) {
		dma[i] = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
		is_met = is_met || dma[i] == held;
	}
	assert_true(is_met);
	for (int i = 0; i < 3; i++)
		assert_ok(dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	assert_no_reports(&machine->reports);
	dmacore_view_unmap(mapping);
}

static void device_destroy__ends_small_mappings_too(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_attach(machine->domain, other));
	for (unsigned i = 1; i <= 3; i++)
		assert_ok(dmacore_map_phys(other, LOW_BASE, i * 40 * PAGE, DMACORE_TO_DEVICE, 0,
					   &dma));
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	dmacore_device_destroy(other);
	assert_true(strstr(reports_take(&machine->reports)->text, "3 live mappings of 983040 "));
	assert_no_reports(&machine->reports);
	/* Those of others stay. */
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, PAGE);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
}

static void *map_many(void *argument)
{
	struct machine *machine = argument;

	for (unsigned i = 0; i < STEPS; i++) {
		dmacore_dma_t dma;

		if (dmacore_map_single(machine->device, machine->low, PAGE, DMACORE_TO_DEVICE, 0,
				       &dma) ||
		    dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0))
			return machine;
	}
	return NULL;
}

/* From now on the kernel does not tell the thread which processor it is on. */
static void *map_many_untold(void *argument)
{
	struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);

	/* That fails where it has not told it before either. */
	(void)syscall(SYS_rseq, area, sizeof(*area), RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
	if ((int32_t)area->cpu_id >= 0)
		return area;
	return map_many(argument);
}

static void map_single__works_in_threads_whose_processor_nobody_knows(void **state)
{
	struct machine *machine = *state;
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++)
		assert_ok(pthread_create(&threads[i], NULL, i % 2 ? map_many_untold : map_many,
					 machine));
	for (unsigned i = 0; i < 4; i++) {
		void *failed;

		assert_ok(pthread_join(threads[i], &failed));
		assert_null(failed);
	}
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(unmap__ends_no_mapping_of_another_device_in_the_domain),
		test_on_translated(mappings__are_known_by_all_that_was_said_of_them),
		test_on_translated(map_phys__finds_the_addresses_that_single_pages_had),
		test_on_translated(map_phys__gives_high_pages_to_who_reaches_them),
		test_on_translated(map_phys__keeps_the_bits_that_the_device_wants_kept),
		test_on_translated(set_ranges__leaves_pages_at_hand_that_the_bus_lacks),
		test_on_translated(set_streaming_mask__needs_no_domain),
		test_on_translated(map_phys__refuses_memory_that_the_page_table_cannot_lead_to),
		test_on_translated(unmap__reports_no_zero_copy_mapping_of_what_was_there_before),
		test_on(FLAT | TRANSLATED | HEAP_TABLES,
			unmap__reports_no_zero_copy_mapping_of_what_was_there_before),
		test_on_translated(device_destroy__ends_small_mappings_too),
		test_on_translated(map_single__works_in_threads_whose_processor_nobody_knows),
		test_on(FLAT | TRANSLATED | HEAP_TABLES,
			map_single__works_in_threads_whose_processor_nobody_knows),
	};

	return run_group("mapping_tags", tests);
}
