/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * What the bus passes, and where, changes under live mappings: those are synced and unmapped as they were
 * made, to the bytes that they were made of.
 */

#include "support/grants.h"
#include "support/pools.h"

#define LOW_BUS UINT64_C(0x20000000)
#define POOL_BUS UINT64_C(0x10000000)
#define POOL_SIZE (POOL_PAGES * PAGE)

/* Where the bus has memory and pool: as first, elsewhere, and the one where the other was. */
static const struct dmacore_dma_range buses[][2] = {
	{ { POOL_BUS, POOL_LOW_BASE, POOL_SIZE }, { LOW_BUS, LOW_BASE, RAM_SIZE } },
	{ { 0x50000000, POOL_LOW_BASE, POOL_SIZE }, { 0x60000000, LOW_BASE, RAM_SIZE } },
	{ { LOW_BUS, POOL_LOW_BASE, POOL_SIZE }, { POOL_BUS, LOW_BASE, RAM_SIZE } },
};

#define BUSES (sizeof(buses) / sizeof(buses[0]))

#define NO_RANGES BUSES

static void use_bus(struct machine *machine, unsigned bus)
{
	assert_ok(dmacore_device_set_ranges(machine->device, bus < BUSES ? buses[bus] : NULL,
					    bus < BUSES ? 2 : 0));
}

struct buffer {
	uint64_t offset, size;
	uint32_t direction;
	dmacore_dma_t dma;
};

/* Less than a slot, a page, several pages; in each direction. */
static const struct buffer shapes[] = {
	{ 5, 100, DMACORE_BIDIRECTIONAL, 0 },
	{ PAGE + 9, 300, DMACORE_TO_DEVICE, 0 },
	{ 2 * PAGE, PAGE, DMACORE_FROM_DEVICE, 0 },
	{ 4 * PAGE + 3, 3 * PAGE + 50, DMACORE_BIDIRECTIONAL, 0 },
	{ 9 * PAGE, PAGE + 1, DMACORE_TO_DEVICE, 0 },
	{ 12 * PAGE + 1, 2 * PAGE, DMACORE_FROM_DEVICE, 0 },
};

#define BUFFERS (sizeof(shapes) / sizeof(shapes[0]))

static void assert_reads(struct machine *machine, dmacore_dma_t dma, const void *expected,
			 uint64_t size)
{
	static uint8_t bytes[RAM_SIZE];

	assert_ok(dmacore_view_read(machine->view, dma, bytes, size));
	assert_memory_equal(bytes, expected, size);
}

/* In no range; or without ranges, where there is no memory. */
static void assert_unreached(struct machine *machine, dmacore_dma_t dma, bool has_ranges)
{
	uint8_t byte = 0;

	assert_fails(dmacore_view_read(machine->view, dma, &byte, 1), has_ranges ? ENOENT : EFAULT);
	assert_faulted(machine, has_ranges ? DMACORE_FAULT_NOT_MAPPED : DMACORE_FAULT_NO_MEMORY,
		       dma, dma, DMACORE_ACCESS_READ);
}

/*
 * Copies are made by one bus. By another the device does not find them at their addresses, but syncing and
 * unmapping do.
 */
static void set_ranges__leaves_copies_what_they_are(void **state)
{
	static uint8_t given[BUFFERS][RAM_SIZE], expected[RAM_SIZE];
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;

	use_device(machine, 0, DMACORE_BIT_MASK(32), 32 * PAGE, &pool);
	for (unsigned round = 0; round < 3; round++) {
		/* What each is undone by: the bus it was made by, and others. */
		static const unsigned others[] = { 0, 1, NO_RANGES };
		const unsigned other = others[round];
		struct buffer buffers[BUFFERS];

		memcpy(buffers, shapes, sizeof(shapes));
		use_bus(machine, 0);
		fill(machine->high, RAM_SIZE, other + 1);
		memcpy(expected, machine->high, RAM_SIZE);
		for (unsigned i = 0; i < BUFFERS; i++) {
			struct buffer *buffer = &buffers[i];

			buffer->dma = map_for(machine, machine->high + buffer->offset, buffer->size,
					      buffer->direction);
			assert_in_range(buffer->dma, POOL_BUS, POOL_BUS + POOL_SIZE - buffer->size);
			if (buffer->direction != DMACORE_FROM_DEVICE)
				assert_reads(machine, buffer->dma, machine->high + buffer->offset,
					     buffer->size);
			if (buffer->direction == DMACORE_TO_DEVICE)
				continue;
			fill(given[i], buffer->size, 100 * other + i);
			assert_ok(dmacore_view_write(machine->view, buffer->dma, given[i],
						     buffer->size));
		}
		use_bus(machine, other);
		if (other == 1 || other == NO_RANGES)
			assert_unreached(machine, buffers[0].dma, other != NO_RANGES);
		for (unsigned i = 0; i < BUFFERS; i++) {
			struct buffer *buffer = &buffers[i];
			uint8_t *memory = machine->high + buffer->offset;
			uint64_t half = buffer->size / 2;

			/* One half for the CPU, which no other byte is changed for. */
			assert_true(dmacore_need_sync(machine->device, buffer->dma));
			assert_ok(dmacore_sync_for_cpu(machine->device, buffer->dma, half,
						       buffer->direction));
			if (buffer->direction != DMACORE_TO_DEVICE)
				memcpy(expected + buffer->offset, given[i], half);
			assert_memory_equal(machine->high, expected, RAM_SIZE);
			/* What the CPU writes there goes to the device, who finds it by the old bus. */
			if (buffer->direction != DMACORE_FROM_DEVICE) {
				fill(memory, half, 1000 + i);
				memcpy(expected + buffer->offset, memory, half);
				memcpy(given[i], memory, half);
			}
			assert_ok(dmacore_sync_for_device(machine->device, buffer->dma, half,
							  buffer->direction));
			use_bus(machine, 0);
			if (buffer->direction != DMACORE_FROM_DEVICE)
				assert_reads(machine, buffer->dma, memory, half);
			use_bus(machine, other);
		}
		for (unsigned i = BUFFERS; i-- > 0;) {
			struct buffer *buffer = &buffers[i];

			assert_ok(dmacore_unmap(machine->device, buffer->dma, buffer->size,
						buffer->direction, 0));
			if (buffer->direction != DMACORE_TO_DEVICE)
				memcpy(expected + buffer->offset, given[i], buffer->size);
			assert_memory_equal(machine->high, expected, RAM_SIZE);
		}
		assert_int_equal(used_slots(pool), 0);
		assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	}
	end_pool(machine, pool);
}

/* Who maps that memory would have the address of a copy. */
static void set_ranges__puts_no_memory_where_live_copies_are(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	dmacore_dma_t copy, more;
	uint8_t bytes[PAGE];

	use_device(machine, 0, DMACORE_BIT_MASK(32), 32 * PAGE, &pool);
	use_bus(machine, 0);
	copy = map_for(machine, machine->high, PAGE, DMACORE_FROM_DEVICE);
	assert_in_range(copy, POOL_BUS, POOL_BUS + POOL_SIZE - PAGE);
	assert_fails(dmacore_device_set_ranges(machine->device, buses[2], 2), EBUSY);
	fill(bytes, PAGE, 1);
	assert_ok(dmacore_view_write(machine->view, copy, bytes, PAGE));
	/* Whichever bus there was in between. */
	use_bus(machine, 1);
	assert_fails(dmacore_device_set_ranges(machine->device, buses[2], 2), EBUSY);
	assert_ok(dmacore_unmap(machine->device, copy, PAGE, DMACORE_FROM_DEVICE, 0));
	assert_memory_equal(machine->high, bytes, PAGE);
	use_bus(machine, 2);
	assert_int_equal(map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE), POOL_BUS);
	/* What may be mapped there now keeps copies from there. */
	use_bus(machine, 0);
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&more),
		     ERANGE);
	assert_ok(dmacore_unmap(machine->device, POOL_BUS, PAGE, DMACORE_TO_DEVICE, 0));
	end_pool(machine, pool);
}

/* Copies stay where they are when the system has another pool. */
static void set_ranges__looks_at_copies_in_former_pools(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_bounce_pool *pool;
	dmacore_dma_t copy;

	options.size = options.size_max = 8 * PAGE;
	options.limit = DMACORE_BIT_MASK(32);
	assert_ok(dmacore_bounce_pool_create(machine->system, &options, &pool));
	assert_ok(dmacore_system_set_bounce_pool(machine->system, pool));
	assert_ok(dmacore_device_set_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
	use_bus(machine, 0);
	copy = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_in_range(copy, POOL_BUS, POOL_BUS + POOL_SIZE - PAGE);
	assert_ok(dmacore_system_set_bounce_pool(machine->system, NULL));
	assert_fails(dmacore_device_set_ranges(machine->device, buses[2], 2), EBUSY);
	assert_ok(dmacore_unmap(machine->device, copy, PAGE, DMACORE_TO_DEVICE, 0));
	use_bus(machine, 2);
	dmacore_bounce_pool_destroy(pool);
}

/* Nothing but their address is known of them, which is one of a bus that is no longer. */
static void set_ranges__leaves_untracked_direct_mappings(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t first[BUFFERS], second;

	fill_memory(machine);
	fill(machine->pool.bytes, RAM_SIZE, 4);
	for (unsigned other = 1; other <= BUSES; other++) {
		uint8_t byte = 0;

		use_bus(machine, 0);
		for (unsigned i = 0; i < BUFFERS; i++) {
			uint8_t *memory = machine->low + shapes[i].offset;

			first[i] = map_for(machine, memory, shapes[i].size, shapes[i].direction);
			assert_int_equal(first[i], LOW_BUS + shapes[i].offset);
			assert_reads(machine, first[i], memory, shapes[i].size);
		}
		use_bus(machine, other);
		/* The same memory again, by the bus that there is now. */
		second = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
		assert_int_equal(second, other < BUSES ? buses[other][1].bus : LOW_BASE);
		assert_reads(machine, second, machine->low, PAGE);
		byte = (uint8_t)~machine->low[77];
		assert_ok(dmacore_view_write(machine->view, second + 77, &byte, 1));
		assert_int_equal(machine->low[77], byte);
		/* Where the old ones were is nothing, or the pool's memory. */
		if (other != 2)
			assert_unreached(machine, first[0], other != NO_RANGES);
		else
			assert_reads(machine, first[0], machine->pool.bytes + shapes[0].offset,
				     shapes[0].size);
		for (unsigned i = 0; i < BUFFERS; i++) {
			assert_ok(dmacore_sync_for_cpu(machine->device, first[i], shapes[i].size,
						       shapes[i].direction));
			assert_ok(dmacore_sync_for_device(machine->device, first[i], shapes[i].size,
							  shapes[i].direction));
			assert_ok(dmacore_unmap(machine->device, first[i], shapes[i].size,
						shapes[i].direction, 0));
		}
		assert_reads(machine, second, machine->low, PAGE);
		use_bus(machine, 0);
		/* Data is where it was, once the bus is. */
		assert_reads(machine, first[0], machine->low + shapes[0].offset, shapes[0].size);
		assert_ok(dmacore_unmap(machine->device, second, PAGE, DMACORE_BIDIRECTIONAL, 0));
	}
}

/* Limits */

struct way {
	const char *name;
	enum path path;
	/* Another type of domain. */
	uint32_t domain;
	uint64_t streaming_mask;
	bool has_pool, has_functions;
	/* Whether a record is kept of all mappings. */
	bool is_complete;
};

static const struct way ways[] = {
	{ "direct", DIRECT, 0, UINT64_MAX, false, false, false },
	{ "direct, tracked", TRACKED, 0, UINT64_MAX, false, false, true },
	{ "bounced", DIRECT, 0, DMACORE_BIT_MASK(32), true, false, false },
	{ "bounced, tracked", TRACKED, 0, DMACORE_BIT_MASK(32), true, false, true },
	{ "DMA", TRANSLATED, 0, DMACORE_BIT_MASK(32), false, false, true },
	{ "DMA, small mappings without records", TRANSLATED | HEAP_TABLES, 0, UINT64_MAX, false,
	  false, true },
	{ "hybrid", TRANSLATED, DMACORE_DOMAIN_HYBRID, DMACORE_BIT_MASK(32), false, false, false },
	{ "hybrid, tracked", TRANSLATED | TRACKED, DMACORE_DOMAIN_HYBRID, UINT64_MAX, false, false,
	  true },
	{ "functions", DIRECT, 0, UINT64_MAX, false, true, true },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

#define SIZE (PAGE + 100)
#define LIVE 5

struct live {
	uint8_t *memory;
	dmacore_dma_t dma;
	bool is_recorded;
};

/* Bytes go both ways, through a copy too if there is one. */
static void assert_works(struct machine *machine, const struct live *live, uint64_t seed)
{
	uint8_t bytes[SIZE];

	fill(live->memory, SIZE, seed);
	assert_ok(dmacore_sync_for_device(machine->device, live->dma, SIZE, DMACORE_BIDIRECTIONAL));
	assert_reads(machine, live->dma, live->memory, SIZE);
	fill(bytes, SIZE, seed + 1);
	assert_ok(dmacore_view_write(machine->view, live->dma, bytes, SIZE));
	assert_ok(dmacore_sync_for_cpu(machine->device, live->dma, SIZE, DMACORE_BIDIRECTIONAL));
	assert_memory_equal(live->memory, bytes, SIZE);
}

static void assert_beyond(struct machine *machine, const struct way *way, const struct live *live,
			  dmacore_dma_t limit)
{
	struct dmacore_beyond found = DMACORE_BEYOND_INIT;
	uint64_t count = 0, first = 0, last = 0;

	for (unsigned i = 0; i < LIVE; i++) {
		uint64_t end = live[i].dma + SIZE - 1;

		if (!live[i].is_recorded || (end <= limit || limit == 0))
			continue;
		if (count == 0 || live[i].dma < first)
			first = live[i].dma;
		if (count == 0 || end > last)
			last = end;
		count++;
	}
	assert_ok(dmacore_device_set_bus_limit(machine->device, limit, &found));
	if (found.count != count || found.first != first || found.last != last ||
	    found.is_complete != way->is_complete)
		fail_msg("%s: %ju beyond %#jx, from %#jx to %#jx, complete %u, instead of %ju, "
			 "from %#jx to %#jx",
			 way->name, (uintmax_t)found.count, (uintmax_t)limit,
			 (uintmax_t)found.first, (uintmax_t)found.last, found.is_complete,
			 (uintmax_t)count, (uintmax_t)first, (uintmax_t)last);
}

static bool is_listed(struct machine *machine, dmacore_dma_t dma)
{
	struct dmacore_mapping_info info;
	size_t count;

	assert_ok(dmacore_device_list_mappings(machine->device, dma, dma, &info, 1, &count));
	return count > 0;
}

static void set_bus_limit__tells_what_lies_beyond_and_leaves_it(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WAYS; i++) {
		const struct way *way = &ways[i];
		struct dmacore_bounce_pool *pool = NULL;
		struct machine machine;
		struct grants grants;
		struct live live[LIVE];
		unsigned recorded = 0;

		machine_start(&machine, way->path);
		if (way->domain)
			machine_use(&machine, way->domain);
		grants_start(&grants, &machine);
		if (way->has_functions)
			grants_use(&grants, grants_options(&grants));
		else
			use_device(&machine, 0, way->streaming_mask, way->has_pool ? 32 * PAGE : 0,
				   &pool);
		for (unsigned j = 0; j < LIVE; j++) {
			/* Of functions the odd ones are in the window. */
			if (way->has_functions)
				assert_ok(dmacore_device_set_mask(
					machine.device, DMACORE_BIT_MASK(j % 2 ? 64 : 32), NULL));
			live[j].memory = (j < 2 ? machine.low : machine.high) + 3 * j * PAGE + 7;
			live[j].dma =
				map_for(&machine, live[j].memory, SIZE, DMACORE_BIDIRECTIONAL);
			live[j].is_recorded = is_listed(&machine, live[j].dma);
			recorded += live[j].is_recorded;
		}
		assert_true(way->is_complete ? recorded == LIVE : recorded < LIVE);
		/* At each end, one byte before it, below all and above all. */
		for (unsigned j = 0; j < LIVE; j++) {
			assert_beyond(&machine, way, live, live[j].dma + SIZE - 1);
			assert_beyond(&machine, way, live, live[j].dma + SIZE - 2);
			for (unsigned k = 0; k < LIVE; k++)
				assert_works(&machine, &live[k], 10 * j + k);
		}
		assert_beyond(&machine, way, live, UINT64_MAX);
		assert_beyond(&machine, way, live, 0);
		assert_beyond(&machine, way, live, 1);
		/* Nothing new comes above it. */
		assert_int_not_equal(dmacore_map_single(machine.device, machine.next, SIZE,
							DMACORE_BIDIRECTIONAL, DMACORE_ATTR_NO_WARN,
							&(dmacore_dma_t){ 0 }),
				     0);
		for (unsigned j = 0; j < LIVE; j++) {
			uint8_t bytes[SIZE];
			const struct live *next = &live[(2 * j + 1) % LIVE];

			assert_works(&machine, next, 100 + j);
			fill(bytes, SIZE, 200 + j);
			assert_ok(dmacore_view_write(machine.view, next->dma, bytes, SIZE));
			assert_ok(dmacore_unmap(machine.device, next->dma, SIZE,
						DMACORE_BIDIRECTIONAL, 0));
			assert_memory_equal(next->memory, bytes, SIZE);
		}
		assert_int_equal(device_statistics(machine.device).mapping_count, 0);
		assert_no_faults(&machine);
		if (pool) {
			assert_int_equal(used_slots(pool), 0);
			end_pool(&machine, pool);
		}
		machine_stop(&machine);
		grants_stop(&grants);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, set_ranges__leaves_copies_what_they_are),
		test_on(TRACKED, set_ranges__leaves_copies_what_they_are),
		test_on(IDENTITY, set_ranges__leaves_copies_what_they_are),
		test_on(IDENTITY | TRACKED, set_ranges__leaves_copies_what_they_are),
		test_on(DIRECT, set_ranges__puts_no_memory_where_live_copies_are),
		test_on(TRACKED, set_ranges__puts_no_memory_where_live_copies_are),
		test_on(IDENTITY, set_ranges__puts_no_memory_where_live_copies_are),
		test_on(DIRECT, set_ranges__looks_at_copies_in_former_pools),
		test_on(DIRECT, set_ranges__leaves_untracked_direct_mappings),
		test_on(IDENTITY, set_ranges__leaves_untracked_direct_mappings),
		cmocka_unit_test(set_bus_limit__tells_what_lies_beyond_and_leaves_it),
	};

	return run_group("bus_changes", tests);
}
