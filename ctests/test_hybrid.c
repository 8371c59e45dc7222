/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Hybrid domains: memory at its own addresses, and others for what a device does not reach there. */

#include "support/hardware.h"
#include "support/listener.h"

#include <pthread.h>
#include <stdatomic.h>

#define BOTH (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE)

/* The device of the machine is behind an IOMMU, in a hybrid domain that gives out 4 KiB and up. */
static int setup(void **state)
{
	struct machine *machine = malloc(sizeof(*machine));

	assert_non_null(machine);
	machine_start(machine, TRANSLATED);
	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	*state = machine;
	return 0;
}

static void set_masks(struct machine *machine, uint64_t streaming, uint64_t coherent)
{
	assert_ok(dmacore_device_set_streaming_mask(machine->device, streaming, NULL));
	assert_ok(dmacore_device_set_coherent_mask(machine->device, coherent, NULL));
}

/* That a byte goes both ways between an address and memory. */
static void assert_reaches(struct machine *machine, dmacore_dma_t dma, uint8_t *memory)
{
	uint8_t byte = 0;

	*memory = (uint8_t)(dma + 1);
	assert_ok(dmacore_view_read(machine->view, dma, &byte, 1));
	assert_int_equal(byte, (uint8_t)(dma + 1));
	byte = (uint8_t)(dma + 2);
	assert_ok(dmacore_view_write(machine->view, dma, &byte, 1));
	assert_int_equal(*memory, (uint8_t)(dma + 2));
}

static void hybrid_domain__maps_memory_to_itself(void **state)
{
	struct machine *machine = *state;
	struct dmacore_translation found;
	uint8_t byte = 0;

	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_true(is_in_window(machine->domain, NEXT_BASE + RAM_SIZE - 1));
	assert_true(is_in_window(machine->domain, HIGH_BASE));
	assert_fails(dmacore_domain_translate(machine->domain, LOW_BASE - 1, 0, &found), ENOENT);
	assert_fails(dmacore_domain_translate(machine->domain, HIGH_BASE + RAM_SIZE, 0, &found),
		     ENOENT);
	machine->next[0] = 7;
	assert_ok(dmacore_view_read(machine->view, NEXT_BASE, &byte, 1));
	assert_int_equal(byte, 7);
}

static void map__is_direct_where_the_device_reaches_the_memory(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->high + 8, 100, DMACORE_TO_DEVICE);

	assert_int_equal(dma, HIGH_BASE + 8);
	/* No record is kept of it. */
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma, 50, DMACORE_TO_DEVICE));
	assert_ok(dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE, 0));
	/* Two regions that adjoin are one piece of memory for the device. */
	assert_ok(
		dmacore_map_phys(machine->device, NEXT_BASE - 10, 20, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, NEXT_BASE - 10);
	assert_ok(dmacore_unmap(machine->device, dma, 20, DMACORE_TO_DEVICE, 0));
}

/* Its first byte and its last one are memory like all others. */
static void window__has_both_ends(void **state)
{
	struct machine *machine = *state;
	const uint64_t bytes[] = { LOW_BASE, NEXT_BASE - 1, NEXT_BASE, NEXT_BASE + RAM_SIZE - 1 };
	dmacore_dma_t dma;

	for (unsigned i = 0; i < 4; i++) {
		assert_ok(
			dmacore_map_phys(machine->device, bytes[i], 1, DMACORE_TO_DEVICE, 0, &dma));
		assert_int_equal(dma, bytes[i]);
		assert_ok(dmacore_sync_for_device(machine->device, dma, 1, DMACORE_TO_DEVICE));
		assert_ok(dmacore_unmap(machine->device, dma, 1, DMACORE_TO_DEVICE, 0));
	}
	assert_ok(dmacore_map_phys(machine->device, bytes[0], 2 * RAM_SIZE, DMACORE_TO_DEVICE, 0,
				   &dma));
	assert_int_equal(dma, LOW_BASE);
	assert_ok(dmacore_unmap(machine->device, dma, 2 * RAM_SIZE, DMACORE_TO_DEVICE, 0));
	/* One byte more is not. */
	assert_ok(dmacore_map_phys(machine->device, bytes[3], 2, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_not_equal(dma, bytes[3]);
	assert_ok(dmacore_unmap(machine->device, dma, 2, DMACORE_TO_DEVICE, 0));
}

/* Of several banks, those that the device reaches are direct and the others are not. */
static void map__is_decided_for_each_range(void **state)
{
	struct machine *machine = *state;
	uint8_t byte = 0;
	dmacore_dma_t low, high;

	set_masks(machine, DMACORE_BIT_MASK(32), DMACORE_BIT_MASK(32));
	low = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	high = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(low, LOW_BASE);
	assert_true(high < UINT64_C(1) << 32 && high != HIGH_BASE);
	assert_false(is_in_window(machine->domain, high));
	machine->high[3] = 9;
	assert_ok(dmacore_view_read(machine->view, high + 3, &byte, 1));
	assert_int_equal(byte, 9);
	assert_ok(dmacore_unmap(machine->device, high, PAGE, DMACORE_TO_DEVICE, 0));
	assert_fails(dmacore_view_read(machine->view, high, &byte, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, high, high, DMACORE_ACCESS_READ);
	assert_ok(dmacore_unmap(machine->device, low, PAGE, DMACORE_TO_DEVICE, 0));
	/* Memory in no region has no address of its own. */
	assert_ok(dmacore_map_phys(machine->device, UINT64_C(0x70000000), PAGE, DMACORE_TO_DEVICE,
				   0, &low));
	assert_int_not_equal(low, UINT64_C(0x70000000));
	assert_ok(dmacore_unmap(machine->device, low, PAGE, DMACORE_TO_DEVICE, 0));
}

/* The streaming mask covers memory and the coherent one does not: both kinds of address are live. */
static void streaming_direct_with_coherent_translated(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t streaming, coherent;
	void *cpu;

	/* The allocator takes memory above 4 GiB first. */
	set_masks(machine, DMACORE_BIT_MASK(64), DMACORE_BIT_MASK(31));
	streaming = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(streaming, HIGH_BASE);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &coherent));
	assert_true(coherent < UINT64_C(1) << 31);
	assert_reaches(machine, coherent, cpu);
	assert_reaches(machine, streaming, machine->high);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, coherent));
	assert_ok(dmacore_unmap(machine->device, streaming, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

/* 64 bits, 32 bits and back, with mappings of each time alive: each is undone as it was made. */
static void masks_may_change_with_live_mappings(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t wide, narrow, again;

	wide = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	set_masks(machine, DMACORE_BIT_MASK(32), DMACORE_BIT_MASK(32));
	narrow = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	set_masks(machine, DMACORE_BIT_MASK(64), DMACORE_BIT_MASK(64));
	again = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(wide, HIGH_BASE);
	assert_int_not_equal(narrow, HIGH_BASE);
	assert_int_equal(again, HIGH_BASE);
	set_masks(machine, DMACORE_BIT_MASK(32), DMACORE_BIT_MASK(32));
	/* One page of memory, by three addresses of which two are alike. */
	assert_reaches(machine, wide, machine->high);
	assert_reaches(machine, narrow, machine->high);
	assert_ok(dmacore_sync_for_device(machine->device, wide, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_unmap(machine->device, wide, PAGE, DMACORE_BIDIRECTIONAL, 0));
	set_masks(machine, DMACORE_BIT_MASK(64), DMACORE_BIT_MASK(64));
	assert_reaches(machine, narrow, machine->high);
	assert_reaches(machine, again, machine->high);
	assert_ok(dmacore_unmap(machine->device, narrow, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_ok(dmacore_unmap(machine->device, again, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
}

static void window__is_given_to_no_mapping(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma[8];

	machine_replace_domain(machine, DMACORE_DOMAIN_HYBRID, LOW_BASE - 4 * PAGE,
			       NEXT_BASE + RAM_SIZE + 4 * PAGE - 1);
	set_masks(machine, DMACORE_BIT_MASK(32), DMACORE_BIT_MASK(32));
	for (unsigned i = 0; i < 8; i++) {
		dma[i] = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
		assert_true(dma[i] < LOW_BASE || dma[i] >= NEXT_BASE + RAM_SIZE);
	}
	{
		dmacore_dma_t none;

		assert_fails(dmacore_map_single(machine->device, machine->high, PAGE,
						DMACORE_TO_DEVICE, 0, &none),
			     ENOSPC);
	}
	for (unsigned i = 0; i < 8; i++)
		assert_ok(dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
}

static void window__follows_memory(void **state)
{
	struct machine *machine = *state;
	uint64_t base = UINT64_C(0x300000000);
	uint8_t *memory = aligned_alloc(PAGE, RAM_SIZE);
	struct listener listener;
	dmacore_dma_t dma;

	assert_non_null(memory);
	listener_start_all(&listener, machine);
	assert_false(is_in_window(machine->domain, base));
	for (unsigned i = 0; i < 3; i++) {
		add_host_region(machine->system, base, RAM_SIZE, memory, 0);
		assert_true(is_in_window(machine->domain, base));
		assert_int_equal(listener_take(&listener).phys, base);
		dma = map_for(machine, memory, PAGE, DMACORE_TO_DEVICE);
		assert_int_equal(dma, base);
		assert_ok(dmacore_memory_remove(machine->system, base, RAM_SIZE));
		assert_false(is_in_window(machine->domain, base));
		assert_int_equal(listener_take(&listener).type, DMACORE_NOTIFY_UNMAP);
		/* What is direct stays valid until it is unmapped. */
		assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	}
	listener_stop(&listener);
	free(memory);
}

/* Memory that comes back smaller, larger, or in two; unless what was there is mapped still. */
static void window__follows_memory_of_other_ends(void **state)
{
	static const uint64_t ends[][2] = { { 0, 8 }, { 0, 4 }, { 0, 8 }, { 2, 6 }, { 0, 16 } };
	struct machine *machine = *state;
	uint64_t base = UINT64_C(0x300000000);
	uint8_t *memory = aligned_alloc(PAGE, 16 * PAGE);
	dmacore_dma_t dma, live;

	assert_non_null(memory);
	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		uint64_t first = ends[i][0] * PAGE, size = ends[i][1] * PAGE - first;

		add_host_region(machine->system, base + first, size, memory + first, 0);
		for (uint64_t page = 0; page < 16 * PAGE; page += PAGE)
			assert_int_equal(is_in_window(machine->domain, base + page),
					 page - first < size);
		assert_ok(dmacore_map_phys(machine->device, base + first, size, DMACORE_TO_DEVICE,
					   0, &dma));
		assert_int_equal(dma, base + first);
		assert_ok(dmacore_unmap(machine->device, dma, size, DMACORE_TO_DEVICE, 0));
		assert_ok(dmacore_memory_remove(machine->system, base + first, size));
	}
	add_host_region(machine->system, base, 2 * PAGE, memory, 0);
	add_host_region(machine->system, base + 2 * PAGE, 6 * PAGE, memory + 2 * PAGE, 0);
	assert_ok(dmacore_map_phys(machine->device, base + PAGE, 2 * PAGE, DMACORE_TO_DEVICE, 0,
				   &live));
	assert_int_equal(live, base + PAGE);
	assert_ok(dmacore_memory_remove(machine->system, base, 2 * PAGE));
	assert_ok(dmacore_memory_remove(machine->system, base + 2 * PAGE, 6 * PAGE));
	add_host_region(machine->system, base, 8 * PAGE, memory, 0);
	assert_false(is_in_window(machine->domain, base));
	dma = map_for(machine, memory, PAGE, DMACORE_TO_DEVICE);
	assert_int_not_equal(dma, base);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, live, 2 * PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	assert_true(is_in_window(machine->domain, base));
	dma = map_for(machine, memory, 8 * PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, base);
	assert_ok(dmacore_unmap(machine->device, dma, 8 * PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine,
		      dmacore_unmap(machine->device, live, 2 * PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_memory_remove(machine->system, base, 8 * PAGE));
	free(memory);
}

#define SPARE_BASE UINT64_C(0x300000000)

/* Undoes once what it is told of. */
static void contradict(struct listener *listener, const struct dmacore_notifier_event *event)
{
	struct machine *machine = listener->machine;

	listener->react = NULL;
	if (event->type == DMACORE_NOTIFY_MAP)
		assert_ok(dmacore_memory_remove(machine->system, SPARE_BASE, RAM_SIZE));
	else
		add_host_region(machine->system, SPARE_BASE, RAM_SIZE, listener->other, 0);
}

/* Of two listeners the one that is told first changes memory again: the other must not end up with what
 * was before. */
static void last_event_of_a_window__says_what_is_there(void **state)
{
	struct machine *machine = *state;
	uint8_t *memory = aligned_alloc(PAGE, RAM_SIZE);
	struct listener listeners[2];

	assert_non_null(memory);
	for (unsigned i = 0; i < 2; i++) {
		/* In whichever order they are told. */
		for (unsigned j = 0; j < 2; j++)
			listener_start_all(&listeners[j], machine);
		listeners[i].react = contradict;
		add_host_region(machine->system, SPARE_BASE, RAM_SIZE, memory, 0);
		assert_false(is_in_window(machine->domain, SPARE_BASE));
		for (unsigned j = 0; j < 2; j++) {
			struct listener *listener = &listeners[j];

			assert_int_equal(listener->at[listener->count - 1].type,
					 DMACORE_NOTIFY_UNMAP);
			listener->taken = listener->count;
		}
		add_host_region(machine->system, SPARE_BASE, RAM_SIZE, memory, 0);
		listeners[i].react = contradict;
		listeners[i].other = memory;
		assert_ok(dmacore_memory_remove(machine->system, SPARE_BASE, RAM_SIZE));
		assert_true(is_in_window(machine->domain, SPARE_BASE));
		for (unsigned j = 0; j < 2; j++) {
			struct listener *listener = &listeners[j];
			struct dmacore_notifier_event last = listener->at[listener->count - 1];

			assert_int_equal(last.type, DMACORE_NOTIFY_MAP);
			assert_int_equal(last.first, SPARE_BASE);
			assert_int_equal(last.last, SPARE_BASE + RAM_SIZE - 1);
			assert_int_equal(last.phys, SPARE_BASE);
			assert_int_equal(last.access, BOTH);
			listener->taken = listener->count;
			listener_stop(listener);
		}
		assert_ok(dmacore_memory_remove(machine->system, SPARE_BASE, RAM_SIZE));
	}
	free(memory);
}

/* Lets other memory come where it is told that memory has gone. */
static void supersede(struct listener *listener, const struct dmacore_notifier_event *event)
{
	assert_int_equal(event->type, DMACORE_NOTIFY_UNMAP);
	listener->react = NULL;
	add_host_region(listener->machine->system, SPARE_BASE, RAM_SIZE, listener->other,
			DMACORE_MEMORY_READ_ONLY);
}

/* One window is told of the end of a region when another region is there already: it is not the same. */
static void window__takes_no_memory_for_what_was_there_before(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *mine = machine->domain, *newer;
	uint8_t *memory = aligned_alloc(PAGE, 2 * RAM_SIZE);
	struct listener listener, changer;
	struct dmacore_translation found;

	assert_non_null(memory);
	listener_start_all(&listener, machine);
	newer = make_domain(machine, DMACORE_DOMAIN_HYBRID, 0, 0);
	add_host_region(machine->system, SPARE_BASE, RAM_SIZE, memory, 0);
	assert_told_map(&listener, SPARE_BASE, RAM_SIZE, SPARE_BASE, BOTH);
	/* Whichever of the two domains follows first. */
	for (unsigned i = 0; i < 2; i++) {
		machine->domain = i ? mine : newer;
		listener_start_all(&changer, machine);
		changer.react = supersede;
		changer.other = memory + RAM_SIZE;
		assert_ok(dmacore_memory_remove(machine->system, SPARE_BASE, RAM_SIZE));
		for (unsigned j = 0; j < 2; j++)
			assert_fails(dmacore_domain_translate(j ? mine : newer, SPARE_BASE, BOTH,
							      &found),
				     EACCES);
		assert_int_equal(listener.at[listener.count - 2].type, DMACORE_NOTIFY_UNMAP);
		assert_int_equal(listener.at[listener.count - 1].type, DMACORE_NOTIFY_MAP);
		assert_int_equal(listener.at[listener.count - 1].access, DMACORE_ACCESS_READ);
		changer.taken = changer.count;
		listener.taken = listener.count;
		listener_stop(&changer);
		assert_ok(dmacore_memory_remove(machine->system, SPARE_BASE, RAM_SIZE));
		add_host_region(machine->system, SPARE_BASE, RAM_SIZE, memory, 0);
		listener.taken = listener.count;
	}
	machine->domain = mine;
	assert_ok(dmacore_memory_remove(machine->system, SPARE_BASE, RAM_SIZE));
	listener.taken = listener.count;
	listener_stop(&listener);
	dmacore_domain_destroy(newer);
	free(memory);
}

static void memory_at_addresses_in_use__is_mapped_elsewhere(void **state)
{
	struct machine *machine = *state;
	uint64_t base = LOW_BASE - 16 * PAGE;
	uint8_t *memory = aligned_alloc(PAGE, 16 * PAGE);
	dmacore_dma_t taken, dma;

	assert_non_null(memory);
	machine_replace_domain(machine, DMACORE_DOMAIN_HYBRID, base, base + PAGE - 1);
	set_masks(machine, DMACORE_BIT_MASK(32), DMACORE_BIT_MASK(32));
	taken = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(taken, base);
	add_host_region(machine->system, base, 16 * PAGE, memory, 0);
	assert_false(is_in_window(machine->domain, base + PAGE));
	assert_false(is_in_window(machine->domain, base));
	assert_ok(dmacore_unmap(machine->device, taken, PAGE, DMACORE_TO_DEVICE, 0));
	dma = map_for(machine, memory, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	/* They are free for the window now, and it for memory. */
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	assert_true(is_in_window(machine->domain, base));
	assert_ok(dmacore_memory_remove(machine->system, base, 16 * PAGE));
	free(memory);
}

/* Where some of it has none, what is free stays free for other mappings. */
static void memory_beside_addresses_in_use__takes_none_away(void **state)
{
	struct machine *machine = *state;
	uint64_t base = LOW_BASE - 16 * PAGE;
	uint8_t *memory = aligned_alloc(PAGE, 4 * PAGE);
	dmacore_dma_t taken, dma[3];

	assert_non_null(memory);
	machine_replace_domain(machine, DMACORE_DOMAIN_HYBRID, base, base + 4 * PAGE - 1);
	set_masks(machine, DMACORE_BIT_MASK(32), DMACORE_BIT_MASK(32));
	taken = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(taken, base + 3 * PAGE);
	add_host_region(machine->system, base, 4 * PAGE, memory, 0);
	for (unsigned i = 0; i < 3; i++)
		dma[i] = map_for(machine, memory, PAGE, DMACORE_TO_DEVICE);
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, taken, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	for (unsigned i = 0; i < 4; i++)
		assert_true(is_in_window(machine->domain, base + i * PAGE));
	assert_ok(dmacore_memory_remove(machine->system, base, 4 * PAGE));
	free(memory);
}

static void window__has_whole_pages_alone(void **state)
{
	struct machine *machine = *state;
	uint64_t base = UINT64_C(0x300000000);
	uint8_t *memory = aligned_alloc(PAGE, 4 * PAGE);

	assert_non_null(memory);
	add_host_region(machine->system, base + 1, 3 * PAGE, memory, 0);
	assert_false(is_in_window(machine->domain, base + 1));
	assert_true(is_in_window(machine->domain, base + PAGE));
	assert_true(is_in_window(machine->domain, base + 3 * PAGE - 1));
	assert_false(is_in_window(machine->domain, base + 3 * PAGE));
	assert_ok(dmacore_memory_remove(machine->system, base + 1, 3 * PAGE));
	/* Not one page is whole. */
	add_host_region(machine->system, base + 1, PAGE, memory, 0);
	assert_false(is_in_window(machine->domain, base + 1));
	assert_ok(dmacore_memory_remove(machine->system, base + 1, PAGE));
	/* Nor in the last page of all. */
	add_host_region(machine->system, UINT64_MAX - 8, 9, memory, 0);
	assert_ok(dmacore_memory_remove(machine->system, UINT64_MAX - 8, 9));
	add_host_region(machine->system, UINT64_MAX - PAGE + 1, PAGE, memory, 0);
	assert_ok(dmacore_memory_remove(machine->system, UINT64_MAX - PAGE + 1, PAGE));
	add_host_region(machine->system, 0, PAGE - 1, memory, 0);
	assert_false(is_in_window(machine->domain, 0));
	assert_ok(dmacore_memory_remove(machine->system, 0, PAGE - 1));
	add_host_region(machine->system, 0, PAGE, memory, 0);
	assert_true(is_in_window(machine->domain, 0));
	assert_ok(dmacore_memory_remove(machine->system, 0, PAGE));
	free(memory);
}

/* Also where rounding would go around the end of the numbers. Nothing else is in the way. */
static void parts_of_pages__are_in_no_window(void **state)
{
	static uint8_t bytes[PAGE];
	const struct {
		uint64_t base;
		uint64_t size;
	} parts[] = {
		{ 0, PAGE - 1 }, { UINT64_MAX - 8, 9 }, { UINT64_MAX - PAGE + 1, PAGE },
		{ 1, 1 },	 { PAGE + 1, PAGE },
	};

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
		struct dmacore_system *system;
		struct dmacore_iommu *iommu;
		struct dmacore_domain *domain;

		assert_ok(dmacore_system_create(NULL, &system));
		assert_ok(dmacore_iommu_create(system, NULL, &iommu));
		add_host_region(system, parts[i].base, parts[i].size, bytes, 0);
		options.type = DMACORE_DOMAIN_HYBRID;
		assert_ok(dmacore_domain_create(iommu, &options, &domain));
		assert_int_equal(domain_statistics(domain).mapped_bytes, 0);
		assert_ok(dmacore_memory_remove(system, parts[i].base, parts[i].size));
		dmacore_domain_destroy(domain);
		dmacore_iommu_destroy(iommu);
		dmacore_system_destroy(system);
	}
}

static void memory_that_may_not_be_written__is_not_in_the_window_either(void **state)
{
	struct machine *machine = *state;
	uint64_t base = UINT64_C(0x300000000);
	uint8_t *memory = aligned_alloc(PAGE, PAGE);
	struct dmacore_translation found;

	assert_non_null(memory);
	add_host_region(machine->system, base, PAGE, memory, DMACORE_MEMORY_READ_ONLY);
	assert_ok(dmacore_domain_translate(machine->domain, base, 0, &found));
	assert_int_equal(found.access & BOTH, DMACORE_ACCESS_READ);
	assert_ok(dmacore_memory_remove(machine->system, base, PAGE));
	free(memory);
}

static int read_zeroes(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	(void)offset;
	(void)opaque;
	memset(buffer, 0, size);
	return 0;
}

/* They would be there for a device to read; a driver has no bytes there to map. */
static void region_of_callbacks__is_not_in_the_window(void **state)
{
	struct machine *machine = *state;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	uint64_t base = UINT64_C(0x300000000);

	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.flags = DMACORE_MEMORY_READ_ONLY;
	region.base = base;
	region.size = PAGE;
	region.read = read_zeroes;
	assert_ok(dmacore_memory_add(machine->system, &region));
	/* What comes behind it is. */
	add_host_region(machine->system, base + PAGE, PAGE, machine->arena + RAM_SIZE, 0);
	assert_fails(dmacore_domain_translate(machine->domain, base, 0,
					      &(struct dmacore_translation){ .first = 1 }),
		     ENOENT);
	assert_true(is_in_window(machine->domain, base + PAGE));
	assert_ok(dmacore_memory_remove(machine->system, base + PAGE, PAGE));
}

/* Memory on both sides of what the page table can translate, and can lead to. */
static void window__ends_where_the_page_table_does(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint32_t format;
		uint32_t levels;
		uint64_t end;
	} tables[] = { { DMACORE_PAGETABLE_VTD_SECOND_STAGE, 3, UINT64_C(1) << 39 },
		       { DMACORE_PAGETABLE_AMD_V1, 6, UINT64_C(1) << 52 } };

	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
		struct dmacore_pagetable_options table = DMACORE_PAGETABLE_OPTIONS_INIT;
		struct dmacore_domain_options wish = DMACORE_DOMAIN_OPTIONS_INIT;
		struct dmacore_domain *old = machine->domain;
		uint64_t base = tables[i].end - 2 * PAGE;
		struct dmacore_iommu *iommu;

		table.format = tables[i].format;
		table.levels = tables[i].levels;
		table.allocator = &machine->tables.allocator;
		options.pagetable = &table;
		assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
		wish.type = DMACORE_DOMAIN_HYBRID;
		assert_ok(dmacore_domain_create(iommu, &wish, &machine->domain));
		add_host_region(machine->system, base, 4 * PAGE, machine->arena + RAM_SIZE, 0);
		assert_true(is_in_window(machine->domain, LOW_BASE));
		assert_true(is_in_window(machine->domain, base));
		assert_true(is_in_window(machine->domain, tables[i].end - 1));
		assert_false(is_in_window(machine->domain, tables[i].end));
		assert_ok(dmacore_memory_remove(machine->system, base, 4 * PAGE));
		assert_false(is_in_window(machine->domain, base));
		dmacore_domain_destroy(machine->domain);
		dmacore_iommu_destroy(iommu);
		machine->domain = old;
	}
}

#define MOVING_BASE UINT64_C(0x300000000)

/* Brings back a part of what is gone, before all domains have followed that. */
static void bring_back_a_part(struct listener *listener, const struct dmacore_notifier_event *event)
{
	struct machine *machine = listener->machine;
	const uint64_t *part = listener->other;

	if (event->type != DMACORE_NOTIFY_UNMAP || listener->count > 1)
		return;
	add_host_region(machine->system, MOVING_BASE + part[0], part[1],
			machine->arena + RAM_SIZE + part[0], 0);
}

static void window__follows_memory_that_comes_back_smaller_meanwhile(void **state)
{
	struct machine *machine = *state;
	const uint64_t parts[][2] = { { 0, PAGE }, { PAGE, PAGE } };
	struct dmacore_domain *older = machine->domain;

	for (unsigned i = 0; i < 2; i++) {
		struct listener listener;
		struct dmacore_translation found;

		add_host_region(machine->system, MOVING_BASE, 2 * PAGE, machine->arena + RAM_SIZE,
				0);
		/* The newest domain follows first. */
		machine->domain = make_domain(machine, DMACORE_DOMAIN_HYBRID, 0, 0);
		listener_start_all(&listener, machine);
		listener.react = bring_back_a_part;
		listener.other = (void *)(uintptr_t)parts[i];
		assert_ok(dmacore_memory_remove(machine->system, MOVING_BASE, 2 * PAGE));
		assert_int_equal(listener.count, 2);
		assert_int_equal(listener.at[1].type, DMACORE_NOTIFY_MAP);
		listener.taken = listener.count;
		/* Of other ends than before, and in both windows. */
		for (unsigned page = 0; page < 2; page++) {
			uint64_t address = MOVING_BASE + page * PAGE;
			bool is_there = parts[i][0] == page * PAGE;

			assert_int_equal(dmacore_domain_translate(older, address, 0, &found),
					 is_there ? 0 : -ENOENT);
			assert_int_equal(is_in_window(machine->domain, address), is_there);
		}
		listener_stop(&listener);
		assert_ok(dmacore_memory_remove(machine->system, MOVING_BASE + parts[i][0],
						parts[i][1]));
		dmacore_domain_destroy(machine->domain);
		machine->domain = older;
	}
}

/* In whatever order they go, those that are left follow. */
static void windows_that_are_left__follow_memory(void **state)
{
	static const unsigned orders[][4] = {
		{ 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 2, 0, 3 }, { 2, 1, 3, 0 }
	};
	struct machine *machine = *state;
	struct dmacore_translation found;
	uint64_t base = MOVING_BASE;

	for (unsigned order = 0; order < 4; order++) {
		struct dmacore_domain *domains[4];

		for (unsigned i = 0; i < 4; i++)
			domains[i] = make_domain(machine, DMACORE_DOMAIN_HYBRID, 0, 0);
		for (unsigned gone = 0; gone < 4; gone++) {
			dmacore_domain_destroy(domains[orders[order][gone]]);
			domains[orders[order][gone]] = NULL;
			add_host_region(machine->system, base, PAGE, machine->arena + RAM_SIZE, 0);
			for (unsigned i = 0; i < 4; i++)
				if (domains[i])
					assert_ok(dmacore_domain_translate(domains[i], base, BOTH,
									   &found));
			assert_true(is_in_window(machine->domain, base));
			assert_ok(dmacore_memory_remove(machine->system, base, PAGE));
			for (unsigned i = 0; i < 4; i++)
				if (domains[i])
					assert_fails(dmacore_domain_translate(domains[i], base, 0,
									      &found),
						     ENOENT);
			base += PAGE;
		}
	}
}

static void hybrid_domain__is_not_for_devices_whose_regions_it_does_not_honour(void **state)
{
	struct machine *machine = *state;
	const uint32_t types[] = { DMACORE_RESERVED_NEVER, DMACORE_RESERVED_DIRECT };

	for (unsigned i = 0; i < 2; i++) {
		const struct dmacore_reserved_region region = { LOW_BASE, LOW_BASE + PAGE - 1,
								types[i], 0 };
		struct dmacore_device_options options = device_options(machine);
		struct dmacore_device *device;

		options.reserved_regions = &region;
		options.reserved_region_count = 1;
		assert_ok(dmacore_device_create(machine->system, &options, &device));
		assert_fails(dmacore_domain_attach(machine->domain, device), EPERM);
		dmacore_device_destroy(device);
	}
}

static void reserved_regions__are_not_in_the_window(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_reserved_region regions[] = {
		{ LOW_BASE + PAGE, LOW_BASE + 2 * PAGE - 1, DMACORE_RESERVED_NEVER, 0 },
		{ LOW_BASE + 4 * PAGE, LOW_BASE + 5 * PAGE - 1, DMACORE_RESERVED_DIRECT, 0 },
		{ NEXT_BASE + RAM_SIZE - PAGE, NEXT_BASE + RAM_SIZE + PAGE - 1,
		  DMACORE_RESERVED_NEVER, 0 },
	};
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_domain_options wish = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *old = machine->domain;
	struct dmacore_group *group;
	struct dmacore_device *device;
	dmacore_dma_t dma;

	assert_ok(dmacore_group_create(machine->system, &group));
	options.group = group;
	options.reserved_regions = regions;
	options.reserved_region_count = 3;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	wish.type = DMACORE_DOMAIN_HYBRID;
	wish.group = group;
	assert_ok(dmacore_domain_create(machine->iommu, &wish, &machine->domain));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_false(is_in_window(machine->domain, LOW_BASE + PAGE));
	assert_true(is_in_window(machine->domain, LOW_BASE + 2 * PAGE));
	/* Because it must always be. */
	assert_true(is_in_window(machine->domain, LOW_BASE + 4 * PAGE));
	assert_true(is_in_window(machine->domain, NEXT_BASE));
	assert_false(is_in_window(machine->domain, NEXT_BASE + RAM_SIZE - PAGE));
	assert_ok(dmacore_map_phys(device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, LOW_BASE);
	assert_ok(dmacore_map_phys(device, LOW_BASE, 2 * PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_not_equal(dma, LOW_BASE);
	assert_ok(dmacore_unmap(device, dma, 2 * PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_device_destroy(device);
	dmacore_group_destroy(group);
	dmacore_domain_destroy(machine->domain);
	machine->domain = old;
}

/* A device that keeps records of direct mappings has them of these too. */
static void tracked_direct_mappings__are_checked(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	dmacore_dma_t dma;

	options.flags = DMACORE_DEVICE_TRACK_DIRECT;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_map_single(device, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, LOW_BASE);
	assert_int_equal(device_statistics(device).mapping_count, 1);
	assert_ok(dmacore_sync_for_cpu(device, dma, PAGE, DMACORE_TO_DEVICE));
	assert_misuse(machine, dmacore_sync_for_cpu(device, dma, PAGE, DMACORE_FROM_DEVICE));
	assert_misuse(machine, dmacore_sync_for_cpu(device, dma + PAGE, 1, DMACORE_TO_DEVICE));
	assert_misuse(machine, dmacore_unmap(device, dma, PAGE, DMACORE_FROM_DEVICE, 0));
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_true(is_in_window(machine->domain, LOW_BASE));
	dmacore_device_destroy(device);
}

/* What is direct maps nothing and unmaps nothing, so that a copy of the domain stays as it is. */
static void direct_mappings__make_no_events(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct listener listener;
	struct dmacore_device *device;
	dmacore_dma_t dma;
	void *cpu;

	options.flags = DMACORE_DEVICE_TRACK_DIRECT;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	listener_start_all(&listener, machine);
	assert_ok(dmacore_map_single(device, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_silent(&listener);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_true(is_in_window(machine->domain, dma));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	assert_true(is_in_window(machine->domain, dma));
	listener_stop(&listener);
	dmacore_device_destroy(device);
}

static void unmap_outside_of_the_window__is_checked(void **state)
{
	struct machine *machine = *state;

	assert_misuse(machine,
		      dmacore_unmap(machine->device, LOW_BASE - PAGE, PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine,
		      dmacore_sync_for_device(machine->device, LOW_BASE - 1, 2, DMACORE_TO_DEVICE));
	assert_misuse(machine, dmacore_unmap(machine->device, NEXT_BASE + RAM_SIZE - PAGE, 2 * PAGE,
					     DMACORE_TO_DEVICE, 0));
}

/* The device's bus moves memory: an address of its own would lead elsewhere. */
static void device_with_dma_ranges__is_translated(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_dma_range range = { 0, LOW_BASE, UINT64_C(1) << 40 };
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	dmacore_dma_t dma;

	options.ranges = &range;
	options.range_count = 1;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_map_single(device, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_not_equal(dma, LOW_BASE);
	assert_int_equal(device_statistics(device).mapping_count, 1);
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_device_destroy(device);
}

static void hybrid_domain__is_not_for_devices_that_are_not_trusted(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;

	options.flags = DMACORE_DEVICE_UNTRUSTED;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_fails(dmacore_domain_attach(machine->domain, device), EPERM);
	dmacore_device_destroy(device);
}

static void hybrid_domain__is_not_for_owners_in_user_space_nor_for_pasids(void **state)
{
	struct machine *machine = *state;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;

	options.pasid_count = 8;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	owner.kind = DMACORE_OWNER_USER;
	assert_ok(dmacore_device_claim_dma_owner(device, &owner));
	assert_fails(dmacore_device_attach(device, machine->domain, &owner), EPERM);
	assert_fails(dmacore_device_attach_pasid(device, 3, machine->domain, &owner), EPERM);
	assert_ok(dmacore_device_release_dma_owner(device, &owner));
	dmacore_device_destroy(device);
}

static void domain_create__makes_no_hybrid_domain_of_a_flat_system(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	options.type = DMACORE_DOMAIN_HYBRID;
	assert_fails(dmacore_domain_create(machine->iommu, &options, &domain), EOPNOTSUPP);
	assert_null(domain);
}

static void system_create__promises_no_hybrid_domains_on_a_flat_system(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_system *system;

	(void)state;
	options.default_domain = DMACORE_DOMAIN_HYBRID;
	options.flags = DMACORE_SYSTEM_FLAT;
	assert_creates_nothing(dmacore_system_create(&options, &system), EOPNOTSUPP, system);
	options.flags = 0;
	assert_ok(dmacore_system_create(&options, &system));
	dmacore_system_destroy(system);
}

static int probe(struct dmacore_device *device, void *opaque)
{
	dmacore_dma_t *out_dma = opaque;

	return dmacore_map_phys(device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0, out_dma);
}

static void group__may_choose_a_hybrid_default_domain(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = 0;
	const struct dmacore_driver driver = {
		.struct_size = sizeof(driver),
		.name = "bypasser",
		.probe = probe,
		.domain_type = DMACORE_DOMAIN_HYBRID,
		.opaque = &dma,
	};
	struct dmacore_device *device = make_device(machine);
	struct dmacore_group *group;
	char text[DMACORE_DESCRIPTION_SIZE];

	assert_ok(dmacore_device_bind(device, &driver));
	assert_int_equal(dma, LOW_BASE);
	assert_ok(dmacore_device_group(device, &group));
	assert_ok(dmacore_group_describe(group, text, sizeof(text)));
	assert_non_null(strstr(text, "in a hybrid domain"));
	assert_ok(dmacore_device_unbind(device));
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA));
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_HYBRID));
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA_LAZY));
	dmacore_group_destroy(group);
	dmacore_device_destroy(device);
}

/* What is in the window is told to hardware, and a part that it refuses is mapped elsewhere. */
static void backend__is_told_of_the_window(void **state)
{
	struct machine *machine = *state;
	struct hardware hardware;
	struct dmacore_iommu *iommu;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct dmacore_translation found;
	uint64_t base = UINT64_C(0x300000000);

	hardware_start(&hardware);
	iommu = hardware_iommu(&hardware, machine);
	options.type = DMACORE_DOMAIN_HYBRID;
	for (int left = 0; left < 6; left++) {
		hardware.left = left;
		assert_fails(dmacore_domain_create(iommu, &options, &domain), EIO);
		assert_null(domain);
		assert_false(hardware.state.domains[0].is_alive);
	}
	hardware.left = -1;
	assert_ok(dmacore_domain_create(iommu, &options, &domain));
	assert_int_equal(hardware.state.domains[0].run_count, 5);
	hardware.left = 0;
	hardware.flush_count = 0;
	add_host_region(machine->system, base, RAM_SIZE, machine->arena + RAM_SIZE, 0);
	assert_true(hardware.has_failed);
	/* Hardware that walks the pages may have seen what was there for a moment. */
	assert_int_equal(hardware.flush_count, 1);
	assert_int_equal(hardware.flushed_first, base);
	assert_int_equal(hardware.flushed_last, base + RAM_SIZE - 1);
	assert_fails(dmacore_domain_translate(domain, base, 0, &found), ENOENT);
	assert_int_equal(hardware.state.domains[0].run_count, 5);
	assert_ok(dmacore_memory_remove(machine->system, base, RAM_SIZE));
	add_host_region(machine->system, base, RAM_SIZE, machine->arena + RAM_SIZE, 0);
	assert_int_equal(hardware.state.domains[0].run_count, 6);
	assert_ok(dmacore_memory_remove(machine->system, base, RAM_SIZE));
	assert_int_equal(hardware.state.domains[0].run_count, 5);
	assert_false(hardware_is_stale(&hardware));
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(iommu);
	assert_int_equal(hardware.wrong, 0);
}

struct crowd {
	struct machine *machine;
	uint8_t *memory;
	atomic_bool is_over;
};

#define HOT_BASE UINT64_C(0x300000000)

static void *come_and_go(void *opaque)
{
	struct crowd *crowd = opaque;

	for (unsigned i = 0; i < 300; i++) {
		add_host_region(crowd->machine->system, HOT_BASE, RAM_SIZE, crowd->memory, 0);
		/* A removal is refused while a zero-copy mapping is there; none is. */
		assert_ok(dmacore_memory_remove(crowd->machine->system, HOT_BASE, RAM_SIZE));
	}
	atomic_store(&crowd->is_over, true);
	return NULL;
}

static void *make_and_destroy(void *opaque)
{
	struct crowd *crowd = opaque;

	while (!atomic_load(&crowd->is_over)) {
		struct dmacore_domain *domain =
			make_domain(crowd->machine, DMACORE_DOMAIN_HYBRID, 0, 0);
		struct dmacore_translation found;

		assert_ok(dmacore_domain_translate(domain, LOW_BASE, 0, &found));
		dmacore_domain_destroy(domain);
	}
	return NULL;
}

static void domains_may_come_and_go_beside_memory(void **state)
{
	struct machine *machine = *state;
	struct crowd crowd = { .machine = machine };
	struct dmacore_translation found;
	pthread_t threads[3];
	uint8_t byte;

	crowd.memory = aligned_alloc(PAGE, RAM_SIZE);
	assert_non_null(crowd.memory);
	memset(crowd.memory, 3, RAM_SIZE);
	assert_int_equal(pthread_create(&threads[0], NULL, come_and_go, &crowd), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, make_and_destroy, &crowd), 0);
	while (!atomic_load(&crowd.is_over)) {
		int error = dmacore_view_read(machine->view, HOT_BASE, &byte, 1);

		/* Not mapped, or mapped and no memory for a moment. */
		assert_true(error == 0 || error == -ENOENT || error == -EFAULT);
		assert_true(error != 0 || byte == 3);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_fails(dmacore_domain_translate(machine->domain, HOT_BASE, 0, &found), ENOENT);
	while (machine->faults.taken < machine->faults.count) {
		struct dmacore_fault fault;
		size_t count;

		assert_ok(dmacore_fault_take(machine->device, &fault, 1, &count, NULL));
		machine->faults.taken = machine->faults.count;
		while (count)
			assert_ok(dmacore_fault_take(machine->device, &fault, 1, &count, NULL));
	}
	free(crowd.memory);
}

#define test(function) cmocka_unit_test_setup_teardown(function, setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(hybrid_domain__maps_memory_to_itself),
		test(map__is_direct_where_the_device_reaches_the_memory),
		test(window__has_both_ends),
		test(map__is_decided_for_each_range),
		test(streaming_direct_with_coherent_translated),
		test(masks_may_change_with_live_mappings),
		test(window__is_given_to_no_mapping),
		test(window__follows_memory),
		test(window__follows_memory_of_other_ends),
		test(last_event_of_a_window__says_what_is_there),
		test(window__takes_no_memory_for_what_was_there_before),
		test(memory_at_addresses_in_use__is_mapped_elsewhere),
		test(memory_beside_addresses_in_use__takes_none_away),
		test(window__has_whole_pages_alone),
		cmocka_unit_test(parts_of_pages__are_in_no_window),
		test(memory_that_may_not_be_written__is_not_in_the_window_either),
		test(region_of_callbacks__is_not_in_the_window),
		test(window__ends_where_the_page_table_does),
		test(window__follows_memory_that_comes_back_smaller_meanwhile),
		test(windows_that_are_left__follow_memory),
		test(hybrid_domain__is_not_for_devices_whose_regions_it_does_not_honour),
		test(reserved_regions__are_not_in_the_window),
		test(tracked_direct_mappings__are_checked),
		test(direct_mappings__make_no_events),
		test(unmap_outside_of_the_window__is_checked),
		test(device_with_dma_ranges__is_translated),
		test(hybrid_domain__is_not_for_devices_that_are_not_trusted),
		test(hybrid_domain__is_not_for_owners_in_user_space_nor_for_pasids),
		test_on(FLAT | TRANSLATED, domain_create__makes_no_hybrid_domain_of_a_flat_system),
		cmocka_unit_test(system_create__promises_no_hybrid_domains_on_a_flat_system),
		test(group__may_choose_a_hybrid_default_domain),
		test(backend__is_told_of_the_window),
		test(domains_may_come_and_go_beside_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
