/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE

static void assert_unchanged(struct machine *machine, const struct snapshot *before)
{
	struct snapshot after = take_snapshot(machine);

	assert_memory_equal(before, &after, sizeof(after));
}

static dmacore_phys_t phys_of(struct machine *machine, const void *host)
{
	dmacore_phys_t phys;

	assert_ok(dmacore_memory_host_to_phys(machine->system, host, 1, &phys));
	return phys;
}

static void unmap_for(struct machine *machine, dmacore_dma_t dma, uint64_t size, uint32_t direction)
{
	assert_ok(dmacore_unmap(machine->device, dma, size, direction, 0));
}

/* Mapping. */

static void map_single__lets_the_device_read_and_write(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint64_t offset;
		uint64_t size;
	} buffers[] = { { 0, PAGE }, { 5, 1 }, { 4095, 2 }, { 100, 10000 }, { 0, RAM_SIZE } };
	static uint8_t bytes[RAM_SIZE];

	for (unsigned i = 0; i < sizeof(buffers) / sizeof(*buffers); i++) {
		uint8_t *buffer = machine->low + buffers[i].offset;
		uint64_t size = buffers[i].size;
		dmacore_dma_t dma;

		fill(machine->low, RAM_SIZE, i);
		dma = map_for(machine, buffer, size, DMACORE_TO_DEVICE);
		assert_ok(dmacore_view_read(machine->view, dma, bytes, size));
		assert_memory_equal(bytes, buffer, size);
		unmap_for(machine, dma, size, DMACORE_TO_DEVICE);

		fill(bytes, size, ~(uint64_t)i);
		dma = map_for(machine, buffer, size, DMACORE_FROM_DEVICE);
		assert_ok(dmacore_view_write(machine->view, dma, bytes, size));
		unmap_for(machine, dma, size, DMACORE_FROM_DEVICE);
		assert_memory_equal(bytes, buffer, size);
	}
}

static void map_single__tells_the_physical_address_on_the_direct_path(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->next + 17, 100, DMACORE_TO_DEVICE);

	assert_int_equal(dma, phys_of(machine, machine->next + 17));
	unmap_for(machine, dma, 100, DMACORE_TO_DEVICE);
}

static void map_single__keeps_the_offset_in_the_page_through_an_iommu(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 4000, 200, DMACORE_TO_DEVICE);

	assert_int_equal(dma % PAGE, 4000);
	/* Two pages for bytes on both sides of a boundary. */
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 2 * PAGE);
	unmap_for(machine, dma, 200, DMACORE_TO_DEVICE);
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
}

static void map_single__grants_what_the_direction_says(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint32_t direction;
		bool reads;
		bool writes;
	} rules[] = {
		{ DMACORE_TO_DEVICE, true, false },
		{ DMACORE_FROM_DEVICE, false, true },
		{ DMACORE_BIDIRECTIONAL, true, true },
	};

	for (unsigned i = 0; i < 3; i++) {
		dmacore_dma_t dma = map_for(machine, machine->low, PAGE, rules[i].direction);
		uint8_t byte = 1;

		machine->low[7] = 2;
		assert_result(dmacore_view_read(machine->view, dma + 7, &byte, 1),
			      rules[i].reads ? 0 : -EACCES);
		assert_int_equal(byte, rules[i].reads ? 2 : 1);
		if (!rules[i].reads)
			assert_faulted(machine, DMACORE_FAULT_DENIED, dma + 7, dma + 7, READ);
		byte = 3;
		assert_result(dmacore_view_write(machine->view, dma + 7, &byte, 1),
			      rules[i].writes ? 0 : -EACCES);
		assert_int_equal(machine->low[7], rules[i].writes ? 3 : 2);
		if (!rules[i].writes)
			assert_faulted(machine, DMACORE_FAULT_DENIED, dma + 7, dma + 7, WRITE);
		unmap_for(machine, dma, PAGE, rules[i].direction);
	}
}

static void map_single__rejects_null(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	get_ready(machine);

	assert_fails_untouched(
		dmacore_map_single(NULL, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma), EINVAL, dma);
	assert_fails_untouched(
		dmacore_map_single(machine->device, NULL, 1, DMACORE_TO_DEVICE, 0, &dma), EINVAL,
		dma);
	assert_fails(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, NULL),
		EINVAL);
	assert_fails_untouched(dmacore_map_phys(NULL, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, &dma),
			       EINVAL, dma);
	assert_fails(dmacore_map_phys(machine->device, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, NULL),
		     EINVAL);
}

static void map_single__rejects_zero_size_and_wrapping_ranges(void **state)
{
	struct machine *machine = *state;
	struct snapshot before;
	void *top = (void *)UINTPTR_MAX;
	dmacore_phys_t phys = phys_of(machine, machine->low);
	dmacore_dma_t dma;

	get_ready(machine);
	before = take_snapshot(machine);
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 0, DMACORE_TO_DEVICE, 0, &dma),
		EINVAL, dma);
	assert_fails_untouched(
		dmacore_map_single(machine->device, top, 2, DMACORE_TO_DEVICE, 0, &dma), EINVAL,
		dma);
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low, UINT64_MAX,
						  DMACORE_TO_DEVICE, 0, &dma),
			       EINVAL, dma);
	assert_fails_untouched(
		dmacore_map_phys(machine->device, phys, 0, DMACORE_TO_DEVICE, 0, &dma), EINVAL,
		dma);
	assert_fails_untouched(
		dmacore_map_phys(machine->device, UINT64_MAX, 2, DMACORE_TO_DEVICE, 0, &dma),
		EINVAL, dma);
	assert_fails_untouched(
		dmacore_map_phys(machine->device, phys, UINT64_MAX, DMACORE_TO_DEVICE, 0, &dma),
		EINVAL, dma);
	assert_unchanged(machine, &before);
}

static void map_single__rejects_unknown_directions_and_attributes(void **state)
{
	struct machine *machine = *state;
	struct snapshot before;
	const uint32_t directions[] = { 3, 4, UINT32_MAX };
	dmacore_phys_t phys = phys_of(machine, machine->low);
	dmacore_dma_t dma;

	get_ready(machine);
	before = take_snapshot(machine);
	for (unsigned i = 0; i < 3; i++) {
		assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 1,
							  directions[i], 0, &dma),
				       EINVAL, dma);
		assert_fails_untouched(
			dmacore_map_phys(machine->device, phys, 1, directions[i], 0, &dma), EINVAL,
			dma);
	}
	for (unsigned bit = 0; bit < 32; bit++) {
		uint32_t attributes = UINT32_C(1) << bit;

		if (attributes & ATTRIBUTES)
			continue;
		assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 1,
							  DMACORE_TO_DEVICE, attributes, &dma),
				       EINVAL, dma);
		assert_fails_untouched(dmacore_map_phys(machine->device, phys, 1, DMACORE_TO_DEVICE,
							attributes, &dma),
				       EINVAL, dma);
	}
	assert_unchanged(machine, &before);
}

static void map_single__wants_a_buffer_inside_one_region(void **state)
{
	struct machine *machine = *state;
	struct snapshot before = take_snapshot(machine);
	dmacore_dma_t dma;
	char outside;

	assert_fails_untouched(
		dmacore_map_single(machine->device, &outside, 1, DMACORE_TO_DEVICE, 0, &dma),
		EFAULT, dma);
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low + RAM_SIZE - 1, 2,
						  DMACORE_TO_DEVICE, 0, &dma),
			       EFAULT, dma);
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low - 1, 2,
						  DMACORE_TO_DEVICE, 0, &dma),
			       EFAULT, dma);
	assert_unchanged(machine, &before);
}

static void map_single__is_refused_to_a_device_that_is_attached_to_nothing(void **state)
{
	struct machine *machine = *state;
	dmacore_phys_t phys = phys_of(machine, machine->low);
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma),
		EPERM, dma);
	assert_fails_untouched(
		dmacore_map_phys(machine->device, phys, 1, DMACORE_TO_DEVICE, 0, &dma), EPERM, dma);
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 1, &cpu, &dma), EPERM, dma);
	assert_int_equal(machine->pool.live, 0);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

/* Sets both masks, or neither and the bus limit of another device in the machine's place. */
static void limit_device(struct machine *machine, bool by_bus, uint64_t limit)
{
	struct dmacore_device_options options = device_options(machine);

	if (!by_bus) {
		assert_ok(dmacore_device_set_streaming_mask(machine->device, limit, NULL));
		assert_ok(dmacore_device_set_coherent_mask(machine->device, limit, NULL));
		return;
	}
	options.bus_limit = limit;
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	assert_ok(dmacore_device_create(machine->system, &options, &machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

static void check_direct_limit(struct machine *machine, bool by_bus)
{
	struct snapshot before;
	dmacore_dma_t dma;

	limit_device(machine, by_bus, LOW_BASE + PAGE + 9);
	before = take_snapshot(machine);
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->high, 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE, dma);
	/* The last byte counts. */
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low + PAGE, 11,
						  DMACORE_TO_DEVICE, 0, &dma),
			       ERANGE, dma);
	assert_fails_untouched(dmacore_map_phys(machine->device, LOW_BASE + PAGE + 10, 1,
						DMACORE_TO_DEVICE, 0, &dma),
			       ERANGE, dma);
	assert_unchanged(machine, &before);
	dma = map_for(machine, machine->low + PAGE, 10, DMACORE_TO_DEVICE);
	unmap_for(machine, dma, 10, DMACORE_TO_DEVICE);
}

static void map_single__keeps_to_the_mask_on_the_direct_path(void **state)
{
	check_direct_limit(*state, false);
}

static void map_single__keeps_to_the_bus_limit_on_the_direct_path(void **state)
{
	check_direct_limit(*state, true);
}

static void check_translated_limit(struct machine *machine, bool by_bus)
{
	const uint64_t limit = 0x10000 + PAGE + 9;
	dmacore_dma_t dma, none;

	limit_device(machine, by_bus, limit);
	/* Memory above the limit is reached through an address below it. */
	machine->high[0] = 55;
	dma = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, 0x10000);
	assert_ok(dmacore_view_read(machine->view, dma, &none, 1));
	assert_int_equal(*(uint8_t *)&none, 55);
	unmap_for(machine, dma, PAGE, DMACORE_TO_DEVICE);

	/* The lowest page that the domain gives out is page 1. */
	limit_device(machine, by_bus, 2 * PAGE - 1);
	dma = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, PAGE);
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &none),
		ENOSPC, none);
	unmap_for(machine, dma, PAGE, DMACORE_TO_DEVICE);
	limit_device(machine, by_bus, PAGE - 1);
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &none),
		ERANGE, none);
	assert_fails_untouched(
		dmacore_map_phys(machine->device, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, &none), ERANGE,
		none);
}

static void map_single__keeps_to_the_mask_through_an_iommu(void **state)
{
	check_translated_limit(*state, false);
}

static void map_single__keeps_to_the_bus_limit_through_an_iommu(void **state)
{
	check_translated_limit(*state, true);
}

static void map_phys__takes_the_lower_of_mask_and_bus_limit(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	limit_device(machine, true, LOW_BASE + 9);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, LOW_BASE + 4, NULL));
	assert_fails(dmacore_map_phys(machine->device, LOW_BASE + 5, 1, DMACORE_TO_DEVICE, 0, &dma),
		     ERANGE);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, UINT64_MAX, NULL));
	assert_ok(dmacore_map_phys(machine->device, LOW_BASE + 9, 1, DMACORE_TO_DEVICE, 0, &dma));
	unmap_for(machine, dma, 1, DMACORE_TO_DEVICE);
	assert_fails(
		dmacore_map_phys(machine->device, LOW_BASE + 10, 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE);
}

static void map_phys__reaches_physical_memory(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[4 * PAGE];
	dmacore_dma_t dma;

	/* Over the seam of two regions, which no pointer could describe. */
	fill(machine->low, RAM_SIZE, 1);
	fill(machine->next, RAM_SIZE, 2);
	assert_ok(dmacore_map_phys(machine->device, NEXT_BASE - 2 * PAGE + 11, 4 * PAGE,
				   DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 4 * PAGE));
	assert_memory_equal(bytes, machine->low + RAM_SIZE - 2 * PAGE + 11, 2 * PAGE - 11);
	assert_memory_equal(bytes + 2 * PAGE - 11, machine->next, 2 * PAGE + 11);
	unmap_for(machine, dma, 4 * PAGE, DMACORE_TO_DEVICE);
}

static void map_phys__maps_what_is_no_memory(void **state)
{
	struct machine *machine = *state;
	const uint64_t phys = UINT64_C(0x500000000000) + 8;
	dmacore_dma_t dma;
	uint8_t bytes[16];

	assert_ok(dmacore_map_phys(machine->device, phys, 100, DMACORE_TO_DEVICE, 0, &dma));
	assert_fails(dmacore_view_read(machine->view, dma, bytes, 16), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, dma, dma + 15, READ);
	unmap_for(machine, dma, 100, DMACORE_TO_DEVICE);
}

static void map_phys__rejects_what_is_too_wide_for_the_page_table(void **state)
{
	struct machine *machine = *state;
	struct snapshot before = take_snapshot(machine);
	const uint64_t end = UINT64_C(1) << 52;
	dmacore_dma_t dma;

	assert_fails_untouched(
		dmacore_map_phys(machine->device, end, 1, DMACORE_TO_DEVICE, 0, &dma), ERANGE, dma);
	assert_fails_untouched(
		dmacore_map_phys(machine->device, end - 1, 2, DMACORE_TO_DEVICE, 0, &dma), ERANGE,
		dma);
	assert_fails_untouched(
		dmacore_map_phys(machine->device, UINT64_MAX, 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE, dma);
	assert_unchanged(machine, &before);
	assert_ok(dmacore_map_phys(machine->device, end - 1, 1, DMACORE_TO_DEVICE, 0, &dma));
	unmap_for(machine, dma, 1, DMACORE_TO_DEVICE);
}

static void map_phys__maps_the_last_byte_of_the_space_directly(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	assert_ok(dmacore_map_phys(machine->device, UINT64_MAX, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, UINT64_MAX);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma, 1, DMACORE_TO_DEVICE));
	unmap_for(machine, dma, 1, DMACORE_TO_DEVICE);
	assert_ok(dmacore_map_phys(machine->device, 0, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, 0);
	unmap_for(machine, dma, 1, DMACORE_TO_DEVICE);
}

static void map_phys__uses_large_leaves_where_they_fit(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	/* Two leaves and three tables; 4 KiB pages would need two tables more. */
	assert_ok(dmacore_map_phys(machine->device, GIB, 4 * MIB, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma % (2 * MIB), 0);
	assert_int_equal(domain_statistics(machine->domain).table_count, 3);
	unmap_for(machine, dma, 4 * MIB, DMACORE_TO_DEVICE);
}

static void map_phys__frees_the_tables_that_large_leaves_replace(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t small, large;
	uint64_t tables;

	/* Room for one leaf of 2 MiB and nothing else. */
	machine_narrow(machine, 2 * MIB, 4 * MIB - 1);
	small = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	tables = domain_statistics(machine->domain).table_count;
	unmap_for(machine, small, PAGE, DMACORE_TO_DEVICE);
	for (unsigned i = 0; i < 200; i++) {
		assert_ok(dmacore_map_phys(machine->device, GIB, 2 * MIB, DMACORE_TO_DEVICE, 0,
					   &large));
		assert_int_equal(large, 2 * MIB);
		unmap_for(machine, large, 2 * MIB, DMACORE_TO_DEVICE);
		small = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
		unmap_for(machine, small, PAGE, DMACORE_TO_DEVICE);
	}
	/* Some wait, as it costs to find out that no view is inside. */
	assert_in_range(machine->tables.live, tables - 1, tables + 64);
}

static void map_single__without_room_changes_nothing(void **state)
{
	struct machine *machine = *state;
	struct snapshot before;
	dmacore_dma_t dma[4], none;

	machine_narrow(machine, 0x1000, 0x4fff);
	for (unsigned i = 0; i < 4; i++)
		dma[i] = map_for(machine, machine->low + i * PAGE, PAGE, DMACORE_TO_DEVICE);
	before = take_snapshot(machine);
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &none),
		ENOSPC, none);
	assert_unchanged(machine, &before);
	unmap_for(machine, dma[2], PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE), dma[2]);
	for (unsigned i = 0; i < 4; i++)
		unmap_for(machine, dma[i], PAGE, DMACORE_TO_DEVICE);
}

static void map_single__of_more_than_the_domain_has_is_refused(void **state)
{
	struct machine *machine = *state;
	struct snapshot before;
	dmacore_dma_t dma;

	machine_narrow(machine, 0x1000, 0x4fff);
	before = take_snapshot(machine);
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 5 * PAGE,
						  DMACORE_TO_DEVICE, 0, &dma),
			       ERANGE, dma);
	/* A byte more than four pages hold, at this place in its page. */
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low + 1, 4 * PAGE,
						  DMACORE_TO_DEVICE, 0, &dma),
			       ERANGE, dma);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, 0x2fff, NULL));
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 3 * PAGE,
						  DMACORE_TO_DEVICE, 0, &dma),
			       ERANGE, dma);
	assert_unchanged(machine, &before);
	dma = map_for(machine, machine->low, 2 * PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, 0x1000);
	unmap_for(machine, dma, 2 * PAGE, DMACORE_TO_DEVICE);
}

static void map_single__without_tables_changes_nothing(void **state)
{
	struct machine *machine = *state;
	struct snapshot before = take_snapshot(machine);
	dmacore_dma_t dma;

	/* Three tables are missing. */
	for (int left = 0; left < 3; left++) {
		machine->tables.left = left;
		assert_fails_untouched(dmacore_map_single(machine->device, machine->low, PAGE,
							  DMACORE_TO_DEVICE, 0, &dma),
				       ENOMEM, dma);
		machine->tables.left = -1;
		assert_unchanged(machine, &before);
	}
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	/* The failures cost no address: the first one was still free. */
	assert_int_equal(dma, DMACORE_BIT_MASK(48) - PAGE + 1);
	unmap_for(machine, dma, PAGE, DMACORE_TO_DEVICE);
}

static void map_single__maps_the_same_buffer_many_times(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint64_t size;
		uint32_t direction;
	} maps[] = {
		{ 100, DMACORE_TO_DEVICE },   { 200, DMACORE_TO_DEVICE },
		{ 100, DMACORE_FROM_DEVICE }, { 100, DMACORE_TO_DEVICE },
		{ 1, DMACORE_BIDIRECTIONAL },
	};
	enum { COUNT = sizeof(maps) / sizeof(*maps) };
	uint64_t seed = 3;

	for (unsigned round = 0; round < 20; round++) {
		dmacore_dma_t dma[COUNT];
		unsigned order[COUNT];

		for (unsigned i = 0; i < COUNT; i++) {
			order[i] = i;
			dma[i] = map_for(machine, machine->low, maps[i].size, maps[i].direction);
		}
		assert_int_equal(device_statistics(machine->device).mapping_count, COUNT);
		/* Each goes by what it was made with, in any order. */
		for (unsigned i = COUNT; i-- > 0;) {
			unsigned j = random_next(&seed) % (i + 1);
			unsigned which = order[j];

			order[j] = order[i];
			unmap_for(machine, dma[which], maps[which].size, maps[which].direction);
			assert_int_equal(device_statistics(machine->device).mapping_count, i);
		}
		assert_misuse(machine, dmacore_unmap(machine->device, dma[0], maps[0].size,
						     maps[0].direction, 0));
	}
}

/* On the recorded direct path mappings overlap; the device may do what one of them permits. */
static void map_single__overlapping_records_permit_what_any_of_them_does(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t base, whole;
	uint8_t bytes[300];

	base = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	whole = map_for(machine, machine->low, 300, DMACORE_TO_DEVICE);
	(void)map_for(machine, machine->low + 50, 100, DMACORE_FROM_DEVICE);

	assert_ok(dmacore_view_read(machine->view, base, bytes, 300));
	assert_ok(dmacore_view_write(machine->view, base + 50, bytes, 100));
	assert_fails(dmacore_view_write(machine->view, base, bytes, 300), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, base, base + 49, WRITE);

	unmap_for(machine, whole, 300, DMACORE_TO_DEVICE);
	assert_ok(dmacore_view_read(machine->view, base, bytes, 100));
	/* 100 to 149 may be written only; behind it nothing is mapped. */
	assert_fails(dmacore_view_read(machine->view, base, bytes, 300), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, base + 100, base + 149, READ);
	unmap_for(machine, base, 100, DMACORE_TO_DEVICE);
	assert_fails(dmacore_view_read(machine->view, base, bytes, 10), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, base, base + 9, READ);
	assert_ok(dmacore_view_write(machine->view, base + 50, bytes, 100));
	unmap_for(machine, base + 50, 100, DMACORE_FROM_DEVICE);
}

/* Unmapping. */

static void unmap__refuses_what_was_not_mapped_so(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	dmacore_dma_t dma;
	struct snapshot before;
	uint8_t bytes[100];

	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, other));
	fill(machine->low, PAGE, 1);
	dma = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	before = take_snapshot(machine);

	assert_misuse(machine, dmacore_unmap(machine->device, dma + 1, 100, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma + 1, 99, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine,
		      dmacore_unmap(machine->device, dma - PAGE, 100, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 99, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 101, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 100, DMACORE_FROM_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 100, DMACORE_BIDIRECTIONAL, 0));
	assert_misuse(machine, dmacore_unmap(other, dma, 100, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, 0, 1, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, UINT64_MAX, 1, DMACORE_TO_DEVICE, 0));
	assert_fails(dmacore_unmap(NULL, dma, 100, DMACORE_TO_DEVICE, 0), EINVAL);

	assert_unchanged(machine, &before);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 100));
	assert_memory_equal(bytes, machine->low, 100);

	unmap_for(machine, dma, 100, DMACORE_TO_DEVICE);
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE, 0));
	dmacore_device_destroy(other);
}

/* What no mapping can have is refused on every path. */
static void unmap__rejects_what_is_impossible(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);

	assert_fails(dmacore_unmap(machine->device, dma, 0, DMACORE_TO_DEVICE, 0), EINVAL);
	assert_fails(dmacore_unmap(machine->device, dma, UINT64_MAX, DMACORE_TO_DEVICE, 0), EINVAL);
	assert_fails(dmacore_unmap(machine->device, UINT64_MAX, 2, DMACORE_TO_DEVICE, 0), EINVAL);
	assert_fails(dmacore_unmap(machine->device, dma, 100, 3, 0), EINVAL);
	assert_fails(dmacore_unmap(machine->device, dma, 100, UINT32_MAX, 0), EINVAL);
	for (unsigned bit = 0; bit < 32; bit++)
		if (!((UINT32_C(1) << bit) & ATTRIBUTES))
			assert_fails(dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE,
						   UINT32_C(1) << bit),
				     EINVAL);
	/* Whether such a call is reported too is not promised. */
	reports_forget(&machine->reports);
	unmap_for(machine, dma, 100, DMACORE_TO_DEVICE);
}

static void unmap__without_a_record_checks_what_is_possible_alone(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);

	unmap_for(machine, dma, 99, DMACORE_TO_DEVICE);
	unmap_for(machine, dma, 100, DMACORE_FROM_DEVICE);
	unmap_for(machine, dma, 100, DMACORE_TO_DEVICE);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma, 100, DMACORE_FROM_DEVICE));
	assert_ok(dmacore_sync_for_device(machine->device, dma, 200, DMACORE_TO_DEVICE));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void unmap__ends_the_devices_access(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 5, 100, DMACORE_BIDIRECTIONAL);
	struct dmacore_translation translation;
	uint8_t bytes[100];

	assert_ok(dmacore_view_read(machine->view, dma, bytes, 100));
	unmap_for(machine, dma, 100, DMACORE_BIDIRECTIONAL);
	assert_fails(dmacore_view_translate(machine->view, dma, 0, &translation), ENOENT);
	assert_fails(dmacore_view_read(machine->view, dma, bytes, 100), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma, dma + 99, READ);
	assert_fails(dmacore_view_write(machine->view, dma + 99, bytes, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma + 99, dma + 99, WRITE);
}

static void unmap__frees_the_address_for_the_next(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t first = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);

	for (unsigned i = 0; i < 1000; i++) {
		unmap_for(machine, first, PAGE, DMACORE_TO_DEVICE);
		assert_int_equal(map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE), first);
	}
	unmap_for(machine, first, PAGE, DMACORE_TO_DEVICE);
}

/* Syncing. */

typedef int (*sync_fn)(struct dmacore_device *device, dmacore_dma_t dma, uint64_t size,
		       uint32_t direction);

static const sync_fn syncs[] = { dmacore_sync_for_cpu, dmacore_sync_for_device };

static void sync__takes_every_part_of_one_mapping(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 4000, 5000, DMACORE_FROM_DEVICE);

	for (unsigned i = 0; i < 2; i++) {
		assert_ok(syncs[i](machine->device, dma, 5000, DMACORE_FROM_DEVICE));
		assert_ok(syncs[i](machine->device, dma, 1, DMACORE_FROM_DEVICE));
		assert_ok(syncs[i](machine->device, dma + 4999, 1, DMACORE_FROM_DEVICE));
		assert_ok(syncs[i](machine->device, dma + 1, 4998, DMACORE_FROM_DEVICE));
	}
	unmap_for(machine, dma, 5000, DMACORE_FROM_DEVICE);
}

static void sync__lends_bytes_that_both_sides_see(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	uint8_t byte = 11;

	assert_ok(dmacore_view_write(machine->view, dma + 9, &byte, 1));
	assert_ok(dmacore_sync_for_cpu(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL));
	assert_int_equal(machine->low[9], 11);
	machine->low[9] = 22;
	assert_ok(dmacore_sync_for_device(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_view_read(machine->view, dma + 9, &byte, 1));
	assert_int_equal(byte, 22);
	unmap_for(machine, dma, PAGE, DMACORE_BIDIRECTIONAL);
}

static void sync__refuses_what_lies_in_no_mapping(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	dmacore_dma_t dma = map_for(machine, machine->low, 100, DMACORE_FROM_DEVICE);
	struct snapshot before;

	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, other));
	before = take_snapshot(machine);
	for (unsigned i = 0; i < 2; i++) {
		sync_fn sync = syncs[i];

		assert_misuse(machine, sync(machine->device, dma, 101, DMACORE_FROM_DEVICE));
		assert_misuse(machine, sync(machine->device, dma + 100, 1, DMACORE_FROM_DEVICE));
		assert_misuse(machine, sync(machine->device, dma + 99, 2, DMACORE_FROM_DEVICE));
		assert_misuse(machine, sync(machine->device, dma - 1, 2, DMACORE_FROM_DEVICE));
		assert_misuse(machine, sync(machine->device, dma, 100, DMACORE_TO_DEVICE));
		assert_misuse(machine, sync(machine->device, dma, 100, DMACORE_BIDIRECTIONAL));
		assert_misuse(machine, sync(other, dma, 100, DMACORE_FROM_DEVICE));
	}
	assert_unchanged(machine, &before);
	unmap_for(machine, dma, 100, DMACORE_FROM_DEVICE);
	for (unsigned i = 0; i < 2; i++)
		assert_misuse(machine, syncs[i](machine->device, dma, 100, DMACORE_FROM_DEVICE));
	dmacore_device_destroy(other);
}

static void sync__rejects_what_is_impossible(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);

	for (unsigned i = 0; i < 2; i++) {
		assert_fails(syncs[i](NULL, dma, 100, DMACORE_TO_DEVICE), EINVAL);
		assert_fails(syncs[i](machine->device, dma, 0, DMACORE_TO_DEVICE), EINVAL);
		assert_fails(syncs[i](machine->device, dma, UINT64_MAX, DMACORE_TO_DEVICE), EINVAL);
		assert_fails(syncs[i](machine->device, UINT64_MAX, 2, DMACORE_TO_DEVICE), EINVAL);
		assert_fails(syncs[i](machine->device, dma, 100, 3), EINVAL);
		assert_fails(syncs[i](machine->device, dma, 100, UINT32_MAX), EINVAL);
	}
	reports_forget(&machine->reports);
	unmap_for(machine, dma, 100, DMACORE_TO_DEVICE);
}

static void sync__does_not_join_mappings(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t low, high;

	/* Two pages and no other: they adjoin. */
	machine_narrow(machine, 0x1000, 0x2fff);
	high = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	low = map_for(machine, machine->low + PAGE, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(low + PAGE, high);
	assert_misuse(machine,
		      dmacore_sync_for_cpu(machine->device, low, PAGE + 1, DMACORE_TO_DEVICE));
	assert_misuse(machine, dmacore_unmap(machine->device, low, 2 * PAGE, DMACORE_TO_DEVICE, 0));
	unmap_for(machine, low, PAGE, DMACORE_TO_DEVICE);
	unmap_for(machine, high, PAGE, DMACORE_TO_DEVICE);
}

/* One of the mappings that live over one buffer, on the direct path. */
struct overlap {
	/* By dmacore_map_phys(), or by dmacore_map_single(). */
	bool is_by_phys;
	uint64_t first;
	uint64_t size;
	uint32_t direction;
	bool is_live;
};

/* The buffer starts here in the memory, so that there is some before it. */
#define OVERLAP_AT PAGE

static const struct overlap overlaps[] = {
	{ false, 0, 100, DMACORE_TO_DEVICE, false },
	{ true, 0, 5000, DMACORE_FROM_DEVICE, false },
	{ false, 0, 9000, DMACORE_TO_DEVICE, false },
	/* As the first one, but for the call. */
	{ true, 0, 100, DMACORE_TO_DEVICE, false },
	{ false, 0, 100, DMACORE_BIDIRECTIONAL, false },
	/* Inside of others, and over an end of others. */
	{ true, 4000, 200, DMACORE_BIDIRECTIONAL, false },
	{ false, 4990, 20, DMACORE_FROM_DEVICE, false },
	{ true, 8999, 1000, DMACORE_TO_DEVICE, false },
	{ false, 3, 1, DMACORE_FROM_DEVICE, false },
};

enum { OVERLAPS = sizeof(overlaps) / sizeof(*overlaps) };

static bool is_in_one(const struct overlap *at, uint64_t first, uint64_t last, uint32_t direction)
{
	for (unsigned i = 0; i < OVERLAPS; i++)
		if (at[i].is_live && at[i].direction == direction && first >= at[i].first &&
		    last < at[i].first + at[i].size)
			return true;
	return false;
}

/* Syncs between any two of these places: what lies in one of the mappings is found, nothing else is. */
static void assert_synced_over_whole_ranges(struct machine *machine, const struct overlap *at,
					    dmacore_dma_t dma)
{
	/* The ends of all, the bytes beside those, and some in the middle. */
	const uint64_t places[] = { 0,	  1,	2,    3,    4,	  50,	99,   100,  101,
				    3999, 4000, 4100, 4199, 4200, 4989, 4990, 4999, 5000,
				    5009, 5010, 8998, 8999, 9000, 9500, 9998, 9999 };
	enum { PLACES = sizeof(places) / sizeof(*places) };

	for (unsigned i = 0; i < PLACES; i++)
		for (unsigned j = i; j < PLACES; j++)
			for (uint32_t direction = 0; direction < 3; direction++)
				for (unsigned k = 0; k < 2; k++) {
					bool is_found =
						is_in_one(at, places[i], places[j], direction);

					assert_result(syncs[k](machine->device, dma + places[i],
							       places[j] - places[i] + 1,
							       direction),
						      is_found ? 0 : -EINVAL);
					assert_int_equal(machine->reports.count, !is_found);
					reports_forget(&machine->reports);
				}
	assert_misuse(machine,
		      dmacore_sync_for_cpu(machine->device, dma - 1, 2, DMACORE_TO_DEVICE));
	reports_forget(&machine->reports);
}

static void mappings_of_one_buffer__are_each_known_over_their_whole_ranges(void **state)
{
	struct machine *machine = *state;
	uint8_t *buffer = machine->low + OVERLAP_AT;
	dmacore_dma_t dma = phys_of(machine, buffer);
	uint64_t seed = 5;

	for (unsigned round = 0; round < 5; round++) {
		struct overlap at[OVERLAPS];
		unsigned order[OVERLAPS];

		memcpy(at, overlaps, sizeof(at));
		for (unsigned i = 0; i < OVERLAPS; i++) {
			dmacore_dma_t got = 0;

			order[i] = i;
			if (at[i].is_by_phys)
				assert_ok(dmacore_map_phys(machine->device, dma + at[i].first,
							   at[i].size, at[i].direction, 0, &got));
			else
				got = map_for(machine, buffer + at[i].first, at[i].size,
					      at[i].direction);
			assert_int_equal(got, dma + at[i].first);
			at[i].is_live = true;
		}
		assert_synced_over_whole_ranges(machine, at, dma);
		/* In any order, and in none does one end another. */
		for (unsigned i = OVERLAPS; i-- > 0;) {
			unsigned j = random_next(&seed) % (i + 1);
			struct overlap *which = &at[order[j]];

			order[j] = order[i];
			unmap_for(machine, dma + which->first, which->size, which->direction);
			which->is_live = false;
			assert_int_equal(device_statistics(machine->device).mapping_count, i);
			assert_no_reports(&machine->reports);
			assert_synced_over_whole_ranges(machine, at, dma);
		}
		for (unsigned i = 0; i < OVERLAPS; i++)
			assert_misuse(machine, dmacore_unmap(machine->device, dma + at[i].first,
							     at[i].size, at[i].direction, 0));
		reports_forget(&machine->reports);
	}
}

/* Any number, and at any byte: not the first few, nor by where they start alone. */
static void overlaps__of_mappings_are_found_wherever_they_are(void **state)
{
	enum { COUNT = 20, SIZE = 5000, STEP = 200 };
	struct machine *machine = *state;
	dmacore_dma_t dma = phys_of(machine, machine->low + 60);

	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(map_for(machine, machine->low + 60 + i * STEP, SIZE, i % 3),
				 dma + i * STEP);
	for (uint64_t at = 0; at < COUNT * STEP + SIZE; at += 40) {
		struct dmacore_mapping_info found[COUNT];
		size_t expected = 0, count;

		for (unsigned i = 0; i < COUNT; i++)
			expected += at >= i * STEP && at < i * STEP + SIZE;
		assert_ok(dmacore_device_list_mappings(machine->device, dma + at, dma + at, found,
						       COUNT, &count));
		assert_int_equal(count, expected);
		for (size_t i = 0; i < count; i++)
			assert_true(found[i].first <= dma + at && found[i].last >= dma + at);
	}
	for (unsigned i = 0; i < COUNT; i++)
		unmap_for(machine, dma + i * STEP, SIZE, i % 3);
}

/*
 * A random history of one device: many mappings come and go, each is read back through the view,
 * and at the end nothing is left.
 */
static void unmap__leaves_nothing_after_a_random_history(void **state)
{
	struct machine *machine = *state;
	enum { COUNT = 48 };
	struct {
		dmacore_dma_t dma;
		uint64_t offset;
		uint64_t size;
		uint32_t direction;
	} live[COUNT];
	static uint8_t bytes[RAM_SIZE];
	unsigned count = 0;
	uint64_t seed = 5;

	fill(machine->low, RAM_SIZE, 1);
	for (unsigned step = 0; step < 2000; step++) {
		unsigned i = count ? random_next(&seed) % count : 0;

		if (count < COUNT && random_next(&seed) % 2) {
			i = count++;
			live[i].offset = random_next(&seed) % RAM_SIZE;
			live[i].size = 1 + random_next(&seed) % (RAM_SIZE - live[i].offset);
			live[i].direction =
				random_next(&seed) % 2 ? DMACORE_TO_DEVICE : DMACORE_BIDIRECTIONAL;
			live[i].dma = map_for(machine, machine->low + live[i].offset, live[i].size,
					      live[i].direction);
		} else if (count) {
			assert_ok(
				dmacore_view_read(machine->view, live[i].dma, bytes, live[i].size));
			assert_memory_equal(bytes, machine->low + live[i].offset, live[i].size);
			unmap_for(machine, live[i].dma, live[i].size, live[i].direction);
			live[i] = live[--count];
		}
		assert_int_equal(device_statistics(machine->device).mapping_count, count);
	}
	while (count-- > 0)
		unmap_for(machine, live[count].dma, live[count].size, live[count].direction);
	assert_int_equal(device_statistics(machine->device).mapping_bytes, 0);
	if (machine->path & TRANSLATED) {
		assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
		assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
	}
}

/*
 * The caller owns the pages of the tables and writes anything to them: the device's accesses go
 * astray or fault, and nothing else happens. No record is kept there, so the driver's side works.
 */
static void unmap__survives_scribbling_over_the_tables(void **state)
{
	struct machine *machine = *state;
	uint64_t seed = 9;

	for (unsigned round = 0; round < 200; round++) {
		const struct dmacore_view_segment *segments;
		struct dmacore_view_mapping *mapping = NULL;
		struct dmacore_translation found;
		static uint8_t bytes[4 * PAGE];
		dmacore_dma_t dma;
		size_t count;

		/* Stray words are in no mapping's way. */
		dma = map_for(machine, machine->low, 4 * PAGE, DMACORE_BIDIRECTIONAL);
		for (unsigned i = 0; i < TABLE_POOL_PAGES; i++) {
			uint64_t *words = (uint64_t *)(void *)(machine->tables.bytes + i * PAGE);

			for (unsigned n = 0; n < 512 && machine->tables.used[i]; n++)
				if (random_next(&seed) % 8 == 0)
					words[n] =
						random_next(&seed) % 4 ?
							LOW_BASE | (random_next(&seed) & 0x7fff) :
							random_next(&seed);
		}
		(void)!dmacore_view_translate(machine->view, dma, 0, &found);
		(void)!dmacore_view_write(machine->view, dma, bytes, sizeof(bytes));
		(void)!dmacore_view_read(machine->view, dma, bytes, sizeof(bytes));
		if (!dmacore_view_map(machine->view, dma, sizeof(bytes), READ, &mapping, &segments,
				      &count))
			dmacore_view_unmap(mapping);
		unmap_for(machine, dma, 4 * PAGE, DMACORE_BIDIRECTIONAL);
		assert_int_equal(device_statistics(machine->device).mapping_count, 0);
		assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
	}
	/* Which accesses faulted is of no matter. */
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, map_single__lets_the_device_read_and_write),
		test_on(IDENTITY, map_single__lets_the_device_read_and_write),
		test_on_recorded(map_single__lets_the_device_read_and_write),
		test_on(DIRECT, map_single__tells_the_physical_address_on_the_direct_path),
		test_on(IDENTITY, map_single__tells_the_physical_address_on_the_direct_path),
		test_on(TRACKED, map_single__tells_the_physical_address_on_the_direct_path),
		test_on(FLAT, map_single__tells_the_physical_address_on_the_direct_path),
		test_on_translated(map_single__keeps_the_offset_in_the_page_through_an_iommu),
		test_on_recorded(map_single__grants_what_the_direction_says),
		test_on_all(map_single__rejects_null),
		test_on_all(map_single__rejects_zero_size_and_wrapping_ranges),
		test_on_all(map_single__rejects_unknown_directions_and_attributes),
		test_on(DIRECT, map_single__wants_a_buffer_inside_one_region),
		test_on(TRACKED, map_single__wants_a_buffer_inside_one_region),
		test_on_translated(map_single__wants_a_buffer_inside_one_region),
		test_on_translated(map_single__is_refused_to_a_device_that_is_attached_to_nothing),
		test_on(IDENTITY, map_single__is_refused_to_a_device_that_is_attached_to_nothing),
		test_on(IDENTITY | TRACKED,
			map_single__is_refused_to_a_device_that_is_attached_to_nothing),
		test_on(DIRECT, map_single__keeps_to_the_mask_on_the_direct_path),
		test_on(TRACKED, map_single__keeps_to_the_mask_on_the_direct_path),
		test_on(IDENTITY | TRACKED, map_single__keeps_to_the_mask_on_the_direct_path),
		test_on(DIRECT, map_single__keeps_to_the_bus_limit_on_the_direct_path),
		test_on(TRACKED, map_single__keeps_to_the_bus_limit_on_the_direct_path),
		test_on_translated(map_single__keeps_to_the_mask_through_an_iommu),
		test_on_translated(map_single__keeps_to_the_bus_limit_through_an_iommu),
		test_on_translated(map_single__without_room_changes_nothing),
		test_on_translated(map_single__of_more_than_the_domain_has_is_refused),
		test_on(TRANSLATED, map_single__without_tables_changes_nothing),
		test_on_recorded(map_single__maps_the_same_buffer_many_times),
		test_on(TRACKED, map_single__overlapping_records_permit_what_any_of_them_does),
		test_on(FLAT | TRACKED,
			map_single__overlapping_records_permit_what_any_of_them_does),
		test_on(DIRECT, map_phys__takes_the_lower_of_mask_and_bus_limit),
		test_on(TRACKED, map_phys__takes_the_lower_of_mask_and_bus_limit),
		test_on(DIRECT, map_phys__reaches_physical_memory),
		test_on(TRACKED, map_phys__reaches_physical_memory),
		test_on_translated(map_phys__reaches_physical_memory),
		test_on(DIRECT, map_phys__maps_what_is_no_memory),
		test_on(TRACKED, map_phys__maps_what_is_no_memory),
		test_on_translated(map_phys__maps_what_is_no_memory),
		test_on_translated(map_phys__rejects_what_is_too_wide_for_the_page_table),
		test_on(DIRECT, map_phys__maps_the_last_byte_of_the_space_directly),
		test_on(TRACKED, map_phys__maps_the_last_byte_of_the_space_directly),
		test_on_translated(map_phys__uses_large_leaves_where_they_fit),
		test_on(TRANSLATED, map_phys__frees_the_tables_that_large_leaves_replace),
		test_on_recorded(unmap__refuses_what_was_not_mapped_so),
		test_on_all(unmap__rejects_what_is_impossible),
		test_on(DIRECT, unmap__without_a_record_checks_what_is_possible_alone),
		test_on(IDENTITY, unmap__without_a_record_checks_what_is_possible_alone),
		test_on(FLAT, unmap__without_a_record_checks_what_is_possible_alone),
		test_on_recorded(unmap__ends_the_devices_access),
		test_on_translated(unmap__frees_the_address_for_the_next),
		test_on_recorded(unmap__leaves_nothing_after_a_random_history),
		test_on_translated(unmap__survives_scribbling_over_the_tables),
		test_on_recorded(sync__takes_every_part_of_one_mapping),
		test_on_recorded(sync__lends_bytes_that_both_sides_see),
		test_on_recorded(sync__refuses_what_lies_in_no_mapping),
		test_on_all(sync__rejects_what_is_impossible),
		test_on_translated(sync__does_not_join_mappings),
		test_on(TRACKED, mappings_of_one_buffer__are_each_known_over_their_whole_ranges),
		test_on(TRACKED, overlaps__of_mappings_are_found_wherever_they_are),
		test_on(IDENTITY | TRACKED,
			mappings_of_one_buffer__are_each_known_over_their_whole_ranges),
		test_on(FLAT | TRACKED,
			mappings_of_one_buffer__are_each_known_over_their_whole_ranges),
	};

	return run_group("mapping", tests);
}
