/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

static void view_create__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_view *view;

	assert_creates_nothing(dmacore_view_create(NULL, &view), EINVAL, view);
	assert_fails(dmacore_view_create(machine->device, NULL), EINVAL);
}

static void view_create__makes_views_of_one_address_space(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	struct dmacore_view *second;
	uint8_t byte = 31;

	assert_ok(dmacore_view_create(machine->device, &second));
	assert_ok(dmacore_view_write(machine->view, dma, &byte, 1));
	byte = 0;
	assert_ok(dmacore_view_read(second, dma, &byte, 1));
	assert_int_equal(byte, 31);
	dmacore_view_destroy(second);
	assert_ok(dmacore_view_read(machine->view, dma, &byte, 1));
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void view_destroy__accepts_null(void **state)
{
	(void)state;
	dmacore_view_destroy(NULL);
	dmacore_view_unmap(NULL);
}

/* Translation. */

static void view_translate__finds_the_way_through_an_iommu(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->next + 100, 3 * PAGE, DMACORE_TO_DEVICE);

	for (uint64_t offset = 0; offset < 3 * PAGE; offset += 1000) {
		struct dmacore_translation found;

		memset(&found, 0xff, sizeof(found));
		assert_ok(dmacore_view_translate(machine->view, dma + offset, READ, &found));
		assert_true(found.first <= dma + offset && dma + offset <= found.last);
		assert_int_equal(found.target + (dma + offset - found.first),
				 NEXT_BASE + 100 + offset);
		assert_int_equal(found.access, READ);
		assert_int_equal(found.reserved, 0);
	}
	assert_ok(dmacore_unmap(machine->device, dma, 3 * PAGE, DMACORE_TO_DEVICE, 0));
}

static void view_translate__finds_the_recorded_range_on_the_direct_path(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->next + 100, 300, DMACORE_FROM_DEVICE);
	struct dmacore_translation found;

	assert_ok(dmacore_view_translate(machine->view, dma + 299, WRITE, &found));
	assert_int_equal(found.first, dma);
	assert_int_equal(found.last, dma + 299);
	assert_int_equal(found.target, dma);
	assert_int_equal(found.access, WRITE);
	assert_fails(dmacore_view_translate(machine->view, dma + 300, 0, &found), ENOENT);
	assert_fails(dmacore_view_translate(machine->view, dma - 1, 0, &found), ENOENT);
	assert_ok(dmacore_unmap(machine->device, dma, 300, DMACORE_FROM_DEVICE, 0));
}

static void view_translate__is_the_identity_without_records(void **state)
{
	struct machine *machine = *state;
	const uint64_t addresses[] = { 0, LOW_BASE + 5, UINT64_C(1) << 60, UINT64_MAX };

	for (unsigned i = 0; i < 4; i++) {
		struct dmacore_translation found;

		assert_ok(dmacore_view_translate(machine->view, addresses[i], BOTH, &found));
		assert_true(found.first <= addresses[i] && addresses[i] <= found.last);
		assert_int_equal(found.target, found.first);
		assert_int_equal(found.access, BOTH);
	}
}

static void view_translate__tells_a_miss_from_a_denial_and_records_neither(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t readable = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	dmacore_dma_t writable =
		map_for(machine, machine->low + 4 * PAGE, PAGE, DMACORE_FROM_DEVICE);
	const struct {
		uint64_t dma;
		uint32_t access;
		int error;
	} cases[] = {
		{ readable, WRITE, EACCES }, { readable, BOTH, EACCES },
		{ writable, READ, EACCES },  { 0, 0, ENOENT },
		{ 0, READ, ENOENT },	     { UINT64_MAX, BOTH, ENOENT },
		{ readable, 4, EINVAL },     { readable, UINT32_C(1) << 31, EINVAL },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct dmacore_translation found, before;

		memset(&found, 0x5a, sizeof(found));
		before = found;
		assert_fails(dmacore_view_translate(machine->view, cases[i].dma, cases[i].access,
						    &found),
			     cases[i].error);
		assert_memory_equal(&found, &before, sizeof(found));
	}
	assert_int_equal(device_statistics(machine->device).fault_total, 0);
	assert_ok(dmacore_unmap(machine->device, readable, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, writable, PAGE, DMACORE_FROM_DEVICE, 0));
}

static void view_translate__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_translation found;

	assert_fails(dmacore_view_translate(NULL, LOW_BASE, READ, &found), EINVAL);
	assert_fails(dmacore_view_translate(machine->view, LOW_BASE, READ, NULL), EINVAL);
}

/* Reading and writing. */

static void view_read__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	uint8_t bytes[16] = { 0 };

	assert_fails(dmacore_view_read(NULL, dma, bytes, 1), EINVAL);
	assert_fails(dmacore_view_read(machine->view, dma, NULL, 1), EINVAL);
	assert_fails(dmacore_view_read(machine->view, UINT64_MAX, bytes, 2), EINVAL);
	assert_fails(dmacore_view_read(machine->view, dma, bytes, SIZE_MAX), EINVAL);
	assert_fails(dmacore_view_write(NULL, dma, bytes, 1), EINVAL);
	assert_fails(dmacore_view_write(machine->view, dma, NULL, 1), EINVAL);
	assert_fails(dmacore_view_write(machine->view, UINT64_MAX, bytes, 2), EINVAL);
	assert_fails(dmacore_view_write(machine->view, dma, bytes, SIZE_MAX), EINVAL);
	/* None of that is the device's fault. */
	assert_int_equal(device_statistics(machine->device).fault_total, 0);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void view_read__of_nothing_succeeds_anywhere(void **state)
{
	struct machine *machine = *state;
	uint8_t byte = 3;

	assert_ok(dmacore_view_read(machine->view, 0, &byte, 0));
	assert_ok(dmacore_view_read(machine->view, UINT64_MAX, &byte, 0));
	assert_ok(dmacore_view_write(machine->view, 0, &byte, 0));
	assert_int_equal(byte, 3);
	assert_int_equal(device_statistics(machine->device).fault_total, 0);
}

static void view_read__faults_at_both_ends_of_the_space(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[16];

	assert_fails(dmacore_view_read(machine->view, 0, bytes, 16), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, 0, 15, READ);
	assert_fails(dmacore_view_write(machine->view, UINT64_MAX - 15, bytes, 16), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, UINT64_MAX - 15, UINT64_MAX, WRITE);
	assert_fails(dmacore_view_read(machine->view, UINT64_MAX, bytes, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, UINT64_MAX, UINT64_MAX, READ);
}

static void view_read__is_refused_on_a_flat_system_that_keeps_no_record(void **state)
{
	struct machine *machine = *state;
	uint64_t dma = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	uint8_t byte = 0;
	size_t count;

	assert_fails(dmacore_view_read(machine->view, dma, &byte, 1), EOPNOTSUPP);
	assert_fails(dmacore_view_write(machine->view, dma, &byte, 1), EOPNOTSUPP);
	assert_creates_nothing(
		dmacore_view_map(machine->view, dma, 1, READ, &mapping, &segments, &count),
		EOPNOTSUPP, mapping);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

/*
 * Two mappings side by side in the device's addresses and apart in memory: the domain has two
 * pages and no more.
 */
struct pair {
	dmacore_dma_t first;
	uint8_t *one;
	uint8_t *two;
	dmacore_dma_t dma[2];
	uint32_t directions[2];
};

static struct pair make_pair(struct machine *machine, uint32_t one, uint32_t two)
{
	struct pair pair = { .directions = { one, two } };

	machine_narrow(machine, 0x1000, 0x2fff);
	/* Addresses are given out from the top. */
	pair.two = machine->high + 5 * PAGE;
	pair.dma[1] = map_for(machine, pair.two, PAGE, two);
	pair.one = machine->low + 3 * PAGE;
	pair.dma[0] = map_for(machine, pair.one, PAGE, one);
	pair.first = pair.dma[0];
	assert_int_equal(pair.dma[1], pair.first + PAGE);
	return pair;
}

static void end_pair(struct machine *machine, const struct pair *pair)
{
	for (unsigned i = 0; i < 2; i++)
		assert_ok(
			dmacore_unmap(machine->device, pair->dma[i], PAGE, pair->directions[i], 0));
}

static void view_read__crosses_pages_that_are_apart_in_memory(void **state)
{
	struct machine *machine = *state;
	struct pair pair = make_pair(machine, DMACORE_BIDIRECTIONAL, DMACORE_BIDIRECTIONAL);
	static uint8_t bytes[2 * PAGE];

	fill(pair.one, PAGE, 1);
	fill(pair.two, PAGE, 2);
	assert_ok(dmacore_view_read(machine->view, pair.first, bytes, 2 * PAGE));
	assert_memory_equal(bytes, pair.one, PAGE);
	assert_memory_equal(bytes + PAGE, pair.two, PAGE);

	fill(bytes, 100, 3);
	assert_ok(dmacore_view_write(machine->view, pair.first + PAGE - 40, bytes, 100));
	assert_memory_equal(pair.one + PAGE - 40, bytes, 40);
	assert_memory_equal(pair.two, bytes + 40, 60);
	end_pair(machine, &pair);
}

static void view_write__that_is_refused_moves_no_byte(void **state)
{
	struct machine *machine = *state;
	struct pair pair = make_pair(machine, DMACORE_BIDIRECTIONAL, DMACORE_TO_DEVICE);
	static uint8_t bytes[2 * PAGE], zeroes[2 * PAGE];

	memset(bytes, 0xcc, sizeof(bytes));
	assert_fails(dmacore_view_write(machine->view, pair.first + 8, bytes, 2 * PAGE - 8),
		     EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, pair.first + PAGE, pair.first + 2 * PAGE - 1,
		       WRITE);
	assert_memory_equal(pair.one, zeroes, PAGE);
	assert_memory_equal(pair.two, zeroes, PAGE);

	assert_ok(dmacore_unmap(machine->device, pair.dma[1], PAGE, DMACORE_TO_DEVICE, 0));
	assert_fails(dmacore_view_write(machine->view, pair.first + PAGE - 1, bytes, 2), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, pair.first + PAGE, pair.first + PAGE,
		       WRITE);
	assert_memory_equal(pair.one, zeroes, PAGE);
	memset(pair.one, 0x11, PAGE);
	assert_fails(dmacore_view_read(machine->view, pair.first, zeroes, 2 * PAGE), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, pair.first + PAGE,
		       pair.first + 2 * PAGE - 1, READ);
	assert_int_equal(zeroes[0], 0);
	pair.dma[1] = map_for(machine, pair.two, PAGE, DMACORE_TO_DEVICE);
	end_pair(machine, &pair);
}

/* What a fault's range says, over six pages of which each is mapped in a way of its own. */
static void view_read__faults_tell_the_exact_range(void **state)
{
	struct machine *machine = *state;
	const char kinds[] = { 'b', '-', '-', 'w', 'w', 'r', 'b', '-' };
	enum { COUNT = sizeof(kinds) };
	dmacore_dma_t dma[COUNT], first = PAGE;
	static uint8_t bytes[COUNT * PAGE];

	machine_narrow(machine, first, first + COUNT * PAGE - 1);
	for (unsigned i = COUNT; i-- > 0;) {
		uint32_t direction = kinds[i] == 'r' ? DMACORE_TO_DEVICE :
				     kinds[i] == 'w' ? DMACORE_FROM_DEVICE :
						       DMACORE_BIDIRECTIONAL;

		dma[i] = map_for(machine, machine->low + i * PAGE, PAGE, direction);
		assert_int_equal(dma[i], first + i * PAGE);
	}
	for (unsigned i = 0; i < COUNT; i++)
		if (kinds[i] == '-')
			assert_ok(dmacore_unmap(machine->device, dma[i], PAGE,
						DMACORE_BIDIRECTIONAL, 0));

	/* The first refusal counts, to the end of its row or of the access. */
	assert_fails(dmacore_view_read(machine->view, first, bytes, COUNT * PAGE), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, first + PAGE, first + 3 * PAGE - 1, READ);
	assert_fails(dmacore_view_read(machine->view, first + PAGE - 1, bytes, PAGE + 3), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, first + PAGE, first + 2 * PAGE + 1, READ);
	assert_fails(dmacore_view_read(machine->view, first + PAGE + 7, bytes, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, first + PAGE + 7, first + PAGE + 7, READ);
	assert_fails(dmacore_view_read(machine->view, first + 3 * PAGE + 9, bytes, 4 * PAGE),
		     EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, first + 3 * PAGE + 9, first + 5 * PAGE - 1,
		       READ);
	assert_fails(dmacore_view_write(machine->view, first + 3 * PAGE, bytes, 4 * PAGE), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, first + 5 * PAGE, first + 6 * PAGE - 1,
		       WRITE);
	/* The last page, and on past the end of the domain. */
	assert_fails(dmacore_view_read(machine->view, first + 6 * PAGE, bytes, 2 * PAGE), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, first + 7 * PAGE, first + 8 * PAGE - 1,
		       READ);

	for (unsigned i = 0; i < COUNT; i++)
		if (kinds[i] != '-')
			assert_ok(dmacore_unmap(machine->device, dma[i], PAGE,
						kinds[i] == 'r' ? DMACORE_TO_DEVICE :
						kinds[i] == 'w' ? DMACORE_FROM_DEVICE :
								  DMACORE_BIDIRECTIONAL,
						0));
}

static void view_read__misses_the_byte_behind_a_recorded_direct_mapping(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 100, 50, DMACORE_TO_DEVICE);
	uint8_t bytes[60];

	assert_ok(dmacore_view_read(machine->view, dma, bytes, 50));
	assert_fails(dmacore_view_read(machine->view, dma, bytes, 51), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma + 50, dma + 50, READ);
	assert_fails(dmacore_view_read(machine->view, dma - 1, bytes, 51), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma - 1, dma - 1, READ);
	assert_ok(dmacore_unmap(machine->device, dma, 50, DMACORE_TO_DEVICE, 0));
}

static void view_read__reaches_whole_pages_through_an_iommu(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 100, 50, DMACORE_TO_DEVICE);
	static uint8_t bytes[PAGE + 1];

	fill(machine->low, PAGE, 4);
	assert_ok(dmacore_view_read(machine->view, dma - 100, bytes, PAGE));
	assert_memory_equal(bytes, machine->low, PAGE);
	assert_fails(dmacore_view_read(machine->view, dma - 101, bytes, 2), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma - 101, dma - 101, READ);
	assert_ok(dmacore_unmap(machine->device, dma, 50, DMACORE_TO_DEVICE, 0));
}

static void view_read__tells_where_there_is_no_memory(void **state)
{
	struct machine *machine = *state;
	const uint64_t gap = NEXT_BASE + RAM_SIZE;
	static uint8_t bytes[3 * PAGE];
	dmacore_dma_t dma;

	/* One page of memory and two of nothing. */
	assert_ok(dmacore_map_phys(machine->device, gap - PAGE, 3 * PAGE, DMACORE_BIDIRECTIONAL, 0,
				   &dma));
	assert_ok(dmacore_view_read(machine->view, dma, bytes, PAGE));
	fill(machine->next, RAM_SIZE, 1);
	memset(bytes, 0, sizeof(bytes));
	assert_fails(dmacore_view_read(machine->view, dma + 5, bytes, 3 * PAGE - 5), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, dma + PAGE, dma + 3 * PAGE - 1, READ);
	assert_int_equal(bytes[0], 0);
	assert_int_equal(bytes[1], 0);
	memset(bytes, 0xdd, sizeof(bytes));
	assert_fails(dmacore_view_write(machine->view, dma + PAGE - 1, bytes, 2), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, dma + PAGE, dma + PAGE, WRITE);
	assert_int_not_equal(machine->next[RAM_SIZE - 2], 0xdd);
	assert_ok(dmacore_unmap(machine->device, dma, 3 * PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void view_read__crosses_regions(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[4 * PAGE];
	dmacore_dma_t dma;

	fill(machine->low, RAM_SIZE, 1);
	fill(machine->next, RAM_SIZE, 2);
	assert_ok(dmacore_map_phys(machine->device, NEXT_BASE - 2 * PAGE, 4 * PAGE,
				   DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_ok(dmacore_view_read(machine->view, dma + 1, bytes, 4 * PAGE - 1));
	assert_memory_equal(bytes, machine->low + RAM_SIZE - 2 * PAGE + 1, 2 * PAGE - 1);
	assert_memory_equal(bytes + 2 * PAGE - 1, machine->next, 2 * PAGE);
	fill(bytes, 20, 3);
	assert_ok(dmacore_view_write(machine->view, dma + 2 * PAGE - 10, bytes, 20));
	assert_memory_equal(machine->low + RAM_SIZE - 10, bytes, 10);
	assert_memory_equal(machine->next, bytes + 10, 10);
	assert_ok(dmacore_unmap(machine->device, dma, 4 * PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void view_read__moves_large_ranges(void **state)
{
	struct machine *machine = *state;
	const size_t size = 3 * MIB + 12345;
	uint8_t *memory = aligned_alloc(2 * MIB, 6 * MIB), *bytes = malloc(size);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	uint8_t *buffer = memory + 777;
	dmacore_dma_t dma;
	size_t count;

	assert_non_null(memory);
	assert_non_null(bytes);
	if (!(machine->path & FLAT))
		add_host_region(machine->system, 4 * GIB + 2 * MIB, 6 * MIB, memory, 0);
	fill(buffer, size, 1);
	dma = map_for(machine, buffer, size, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, size));
	assert_memory_equal(bytes, buffer, size);
	fill(bytes, size, 2);
	assert_ok(dmacore_view_write(machine->view, dma, bytes, size));
	assert_memory_equal(bytes, buffer, size);
	assert_ok(dmacore_view_map(machine->view, dma + 1, size - 1, READ, &mapping, &segments,
				   &count));
	assert_int_equal(count, 1);
	assert_ptr_equal(segments[0].host, buffer + 1);
	assert_int_equal(segments[0].size, size - 1);
	dmacore_view_unmap(mapping);

	/* A refusal behind the last byte of many moves none of them. */
	memset(bytes, 0, size);
	assert_ok(dmacore_unmap(machine->device, dma, size, DMACORE_BIDIRECTIONAL, 0));
	dma = map_for(machine, buffer, size - PAGE, DMACORE_BIDIRECTIONAL);
	assert_fails(dmacore_view_write(machine->view, dma, bytes, size), ENOENT);
	assert_int_equal(faults_take(machine).last, dma + size - 1);
	assert_int_not_equal(buffer[0] | buffer[1] | buffer[2] | buffer[3], 0);
	assert_ok(dmacore_unmap(machine->device, dma, size - PAGE, DMACORE_BIDIRECTIONAL, 0));
	if (!(machine->path & FLAT))
		assert_ok(dmacore_memory_remove(machine->system, 4 * GIB + 2 * MIB, 6 * MIB));
	free(memory);
	free(bytes);
}

/* Sizes that no buffer has: what counts is the first address that is refused. */
static void view_read__of_nearly_the_whole_space_is_refused(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	uint8_t bytes[1];
	dmacore_dma_t dma;
	size_t count;

	assert_ok(dmacore_map_phys(machine->device, 1, UINT64_MAX, DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_int_equal(dma, 1);
	assert_fails(dmacore_view_read(machine->view, 1, bytes, SIZE_MAX >> 1), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, 1, LOW_BASE - 1, READ);
	assert_creates_nothing(dmacore_view_map(machine->view, NEXT_BASE + RAM_SIZE - 1,
						UINT64_C(1) << 63, READ, &mapping, &segments,
						&count),
			       EFAULT, mapping);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, NEXT_BASE + RAM_SIZE, POOL_LOW_BASE - 1,
		       READ);
	assert_ok(dmacore_unmap(machine->device, 1, UINT64_MAX, DMACORE_BIDIRECTIONAL, 0));
}

/* On a flat system nothing tells that there is no such memory. */
static void view_map__takes_more_than_half_the_space(void **state)
{
	struct machine *machine = *state;
	const uint64_t size = (UINT64_C(1) << 63) + PAGE;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	dmacore_dma_t dma;
	size_t count;

	assert_ok(dmacore_map_phys(machine->device, PAGE, size, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_view_map(machine->view, dma, size, READ, &mapping, &segments, &count));
	assert_int_equal(count, 1);
	assert_int_equal(segments[0].size, size);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_unmap(machine->device, dma, size, DMACORE_TO_DEVICE, 0));
}

static void view_read__is_blocked_while_attached_to_nothing(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_translation found;
	struct dmacore_view_mapping *mapping;
	uint8_t bytes[10];
	size_t count;

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_fails(dmacore_view_translate(machine->view, LOW_BASE, 0, &found), EPERM);
	assert_no_faults(machine);
	assert_fails(dmacore_view_read(machine->view, LOW_BASE, bytes, 10), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, LOW_BASE, LOW_BASE + 9, READ);
	assert_fails(dmacore_view_write(machine->view, UINT64_MAX, bytes, 1), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, UINT64_MAX, UINT64_MAX, WRITE);
	assert_creates_nothing(
		dmacore_view_map(machine->view, LOW_BASE, 10, BOTH, &mapping, &segments, &count),
		EPERM, mapping);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, LOW_BASE, LOW_BASE + 9, BOTH);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

/* Zero copy. */

static void view_map__hands_the_bytes_themselves_out(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 100, 3 * PAGE, DMACORE_BIDIRECTIONAL);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	assert_ok(dmacore_view_map(machine->view, dma + 5, 2 * PAGE, BOTH, &mapping, &segments,
				   &count));
	/* Contiguous memory is one segment, however many pages map it. */
	assert_int_equal(count, 1);
	assert_ptr_equal(segments[0].host, machine->low + 105);
	assert_int_equal(segments[0].size, 2 * PAGE);
	dmacore_view_unmap(mapping);
	assert_no_reports(&machine->reports);
	assert_ok(dmacore_unmap(machine->device, dma, 3 * PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void view_map__makes_as_few_segments_as_can_be(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct pair pair;
	dmacore_dma_t dma;
	size_t count;

	/* Two pages apart in memory. */
	pair = make_pair(machine, DMACORE_BIDIRECTIONAL, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_map(machine->view, pair.first + 10, 2 * PAGE - 20, READ, &mapping,
				   &segments, &count));
	assert_int_equal(count, 2);
	assert_ptr_equal(segments[0].host, pair.one + 10);
	assert_int_equal(segments[0].size, PAGE - 10);
	assert_ptr_equal(segments[1].host, pair.two);
	assert_int_equal(segments[1].size, PAGE - 10);
	dmacore_view_unmap(mapping);
	end_pair(machine, &pair);

	/* Two mappings, side by side on both sides. */
	pair.dma[1] = map_for(machine, machine->low + PAGE, PAGE, DMACORE_BIDIRECTIONAL);
	pair.dma[0] = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_map(machine->view, pair.first, 2 * PAGE, READ, &mapping, &segments,
				   &count));
	assert_int_equal(count, 1);
	assert_ptr_equal(segments[0].host, machine->low);
	assert_int_equal(segments[0].size, 2 * PAGE);
	dmacore_view_unmap(mapping);
	end_pair(machine, &pair);

	/* Two regions. */
	assert_ok(dmacore_map_phys(machine->device, NEXT_BASE - PAGE, 2 * PAGE, DMACORE_TO_DEVICE,
				   0, &dma));
	assert_ok(
		dmacore_view_map(machine->view, dma, 2 * PAGE, READ, &mapping, &segments, &count));
	assert_int_equal(count, 2);
	assert_ptr_equal(segments[0].host, machine->low + RAM_SIZE - PAGE);
	assert_ptr_equal(segments[1].host, machine->next);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_TO_DEVICE, 0));
}

/* Pages in an order of no run: as many segments as pages, all in their place. */
static void view_map__serves_many_segments(void **state)
{
	struct machine *machine = *state;
	enum { COUNT = 16 };
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	dmacore_dma_t dma[COUNT];
	uint64_t total = 0;
	size_t count;

	machine_narrow(machine, PAGE, COUNT * PAGE + PAGE - 1);
	for (unsigned i = COUNT; i-- > 0;)
		dma[i] = map_for(machine, machine->low + i * 5 % COUNT * PAGE, PAGE,
				 DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_map(machine->view, dma[0] + 1, COUNT * PAGE - 2, BOTH, &mapping,
				   &segments, &count));
	assert_int_equal(count, COUNT);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_ptr_equal(segments[i].host, machine->low + i * 5 % COUNT * PAGE + (i == 0));
		total += segments[i].size;
	}
	assert_int_equal(total, COUNT * PAGE - 2);
	dmacore_view_unmap(mapping);
	for (unsigned i = 0; i < COUNT; i++)
		assert_ok(dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_BIDIRECTIONAL, 0));
}

#define assert_maps_nothing(view_, dma_, size_, access_, error_)                                   \
	do {                                                                                       \
		const struct dmacore_view_segment *segments_ = (const void *)(uintptr_t)UNTOUCHED; \
		struct dmacore_view_mapping *mapping_;                                             \
		size_t count_ = UNTOUCHED;                                                         \
                                                                                                   \
		assert_creates_nothing(dmacore_view_map(view_, dma_, size_, access_, &mapping_,    \
							&segments_, &count_),                      \
				       error_, mapping_);                                          \
		assert_true(segments_ == (const void *)(uintptr_t)UNTOUCHED);                      \
		assert_true(count_ == UNTOUCHED);                                                  \
	} while (0)

static void view_map__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	const struct dmacore_view_segment *segments = NULL;
	struct dmacore_view_mapping *mapping = NULL;
	size_t count = 0;

	assert_maps_nothing(NULL, dma, 1, READ, EINVAL);
	assert_fails(dmacore_view_map(machine->view, dma, 1, READ, NULL, &segments, &count),
		     EINVAL);
	assert_creates_nothing(
		dmacore_view_map(machine->view, dma, 1, READ, &mapping, NULL, &count), EINVAL,
		mapping);
	assert_creates_nothing(
		dmacore_view_map(machine->view, dma, 1, READ, &mapping, &segments, NULL), EINVAL,
		mapping);
	assert_maps_nothing(machine->view, dma, 0, READ, EINVAL);
	assert_maps_nothing(machine->view, dma, UINT64_MAX, READ, EINVAL);
	assert_maps_nothing(machine->view, UINT64_MAX, 2, READ, EINVAL);
	assert_maps_nothing(machine->view, dma, 1, 0, EINVAL);
	for (unsigned bit = 2; bit < 32; bit++)
		assert_maps_nothing(machine->view, dma, 1, READ | UINT32_C(1) << bit, EINVAL);
	assert_int_equal(device_statistics(machine->device).fault_total, 0);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void view_map__faults_as_read_and_write_do(void **state)
{
	struct machine *machine = *state;
	struct pair pair = make_pair(machine, DMACORE_BIDIRECTIONAL, DMACORE_TO_DEVICE);
	dmacore_dma_t dma;

	assert_maps_nothing(machine->view, pair.first, 2 * PAGE, WRITE, EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, pair.first + PAGE, pair.first + 2 * PAGE - 1,
		       WRITE);
	assert_maps_nothing(machine->view, pair.first + PAGE + 1, 2, BOTH, EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, pair.first + PAGE + 1, pair.first + PAGE + 2,
		       BOTH);
	assert_maps_nothing(machine->view, pair.first, 3 * PAGE, READ, ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, pair.first + 2 * PAGE,
		       pair.first + 3 * PAGE - 1, READ);
	end_pair(machine, &pair);

	assert_ok(dmacore_map_phys(machine->device, NEXT_BASE + RAM_SIZE - PAGE, 2 * PAGE,
				   DMACORE_TO_DEVICE, 0, &dma));
	assert_maps_nothing(machine->view, dma, 2 * PAGE, READ, EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, dma + PAGE, dma + 2 * PAGE - 1, READ);
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_TO_DEVICE, 0));
}

static int read_nothing(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	(void)offset;
	(void)opaque;
	memset(buffer, 0, size);
	return 0;
}

static void view_map__hands_out_nothing_behind_callbacks(void **state)
{
	struct machine *machine = *state;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	uint64_t base = NEXT_BASE + RAM_SIZE;
	dmacore_dma_t dma;
	uint8_t bytes[2];

	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.flags = DMACORE_MEMORY_READ_ONLY;
	region.base = base;
	region.size = PAGE;
	region.read = read_nothing;
	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(dmacore_map_phys(machine->device, base - PAGE, 2 * PAGE, DMACORE_TO_DEVICE, 0,
				   &dma));
	assert_ok(dmacore_view_read(machine->view, dma + PAGE - 1, bytes, 2));
	assert_maps_nothing(machine->view, dma + PAGE, 1, READ, EOPNOTSUPP);
	assert_maps_nothing(machine->view, dma, 2 * PAGE, READ, EOPNOTSUPP);
	/* A failed mapping pins nothing. */
	assert_ok(dmacore_memory_remove(machine->system, NEXT_BASE, RAM_SIZE));
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_TO_DEVICE, 0));
}

static void view_map__outlives_the_drivers_unmap_which_is_reported(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	dmacore_dma_t other = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	uint8_t byte;
	size_t count;

	assert_ok(
		dmacore_view_map(machine->view, dma + PAGE, 16, BOTH, &mapping, &segments, &count));
	/* One that is not concerned goes without a word. */
	assert_ok(dmacore_unmap(machine->device, other, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_no_reports(&machine->reports);
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_reported(machine, DMACORE_REPORT_WARNING);

	memcpy(segments[0].host, "still good bytes", 16);
	assert_memory_equal(machine->low + PAGE, "still good bytes", 16);
	assert_fails(dmacore_view_read(machine->view, dma + PAGE, &byte, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma + PAGE, dma + PAGE, READ);
	dmacore_view_unmap(mapping);
}

static void view_map__pins_its_regions_alone(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	assert_ok(dmacore_view_map(machine->view, dma, 1, READ, &mapping, &segments, &count));
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE), EBUSY);
	assert_ok(dmacore_memory_remove(machine->system, NEXT_BASE, RAM_SIZE));
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	reports_forget(&machine->reports);
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE), EBUSY);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE));
}

static void view_map__outlives_its_view(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	machine->low[0] = 61;
	assert_ok(dmacore_view_map(machine->view, dma, PAGE, READ, &mapping, &segments, &count));
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	assert_int_equal(*(uint8_t *)segments[0].host, 61);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, view_create__rejects_null),
		test_on_recorded(view_create__makes_views_of_one_address_space),
		cmocka_unit_test(view_destroy__accepts_null),
		test_on_translated(view_translate__finds_the_way_through_an_iommu),
		test_on(TRACKED, view_translate__finds_the_recorded_range_on_the_direct_path),
		test_on(IDENTITY | TRACKED,
			view_translate__finds_the_recorded_range_on_the_direct_path),
		test_on(DIRECT, view_translate__is_the_identity_without_records),
		test_on(IDENTITY, view_translate__is_the_identity_without_records),
		test_on_recorded(view_translate__tells_a_miss_from_a_denial_and_records_neither),
		test_on_translated(view_translate__rejects_null),
		test_on_recorded(view_read__rejects_bad_arguments),
		test_on_recorded(view_read__of_nothing_succeeds_anywhere),
		test_on_recorded(view_read__faults_at_both_ends_of_the_space),
		test_on(FLAT, view_read__is_refused_on_a_flat_system_that_keeps_no_record),
		test_on_translated(view_read__crosses_pages_that_are_apart_in_memory),
		test_on_translated(view_read__faults_tell_the_exact_range),
		test_on(TRACKED, view_read__misses_the_byte_behind_a_recorded_direct_mapping),
		test_on(FLAT | TRACKED,
			view_read__misses_the_byte_behind_a_recorded_direct_mapping),
		test_on_translated(view_read__reaches_whole_pages_through_an_iommu),
		test_on(DIRECT, view_read__tells_where_there_is_no_memory),
		test_on(TRACKED, view_read__tells_where_there_is_no_memory),
		test_on(IDENTITY, view_read__tells_where_there_is_no_memory),
		test_on_translated(view_read__tells_where_there_is_no_memory),
		test_on(DIRECT, view_read__crosses_regions),
		test_on(TRACKED, view_read__crosses_regions),
		test_on_translated(view_read__crosses_regions),
		test_on_recorded(view_read__moves_large_ranges),
		test_on(TRACKED, view_read__of_nearly_the_whole_space_is_refused),
		test_on_translated(view_read__is_blocked_while_attached_to_nothing),
		test_on(IDENTITY, view_read__is_blocked_while_attached_to_nothing),
		test_on(IDENTITY | TRACKED, view_read__is_blocked_while_attached_to_nothing),
		test_on_translated(view_write__that_is_refused_moves_no_byte),
		test_on(DIRECT, view_map__hands_the_bytes_themselves_out),
		test_on(IDENTITY, view_map__hands_the_bytes_themselves_out),
		test_on_recorded(view_map__hands_the_bytes_themselves_out),
		test_on_translated(view_map__makes_as_few_segments_as_can_be),
		test_on(FLAT | TRACKED, view_map__takes_more_than_half_the_space),
		test_on_translated(view_map__serves_many_segments),
		test_on_recorded(view_map__rejects_bad_arguments),
		test_on_translated(view_map__faults_as_read_and_write_do),
		test_on(DIRECT, view_map__hands_out_nothing_behind_callbacks),
		test_on_translated(view_map__hands_out_nothing_behind_callbacks),
		test_on_recorded(view_map__outlives_the_drivers_unmap_which_is_reported),
		test_on(TRACKED, view_map__pins_its_regions_alone),
		test_on_translated(view_map__pins_its_regions_alone),
		test_on_recorded(view_map__outlives_its_view),
	};

	return run_group("view", tests);
}
