/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Devices whose bus has memory at addresses of its own, or some of it alone. */

#include "support/machine.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

#define MAX DMACORE_DMA_RANGES_MAX

/* Where the bus of the tests has the memory of a machine. */
#define BUS_LOW UINT64_C(0x10000)
#define BUS_HIGH (BUS_LOW + RAM_SIZE)
#define BUS_NEXT UINT64_C(0x40000000)
#define BUS_POOL UINT64_C(0x50000000)
#define BUS_POOL_HIGH (UINT64_C(1) << 40)

#define POOL_SIZE (POOL_PAGES * PAGE)

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static uint64_t phys_of(struct machine *machine, void *host)
{
	dmacore_phys_t phys;

	assert_ok(dmacore_memory_host_to_phys(machine->system, host, 1, &phys));
	return phys;
}

/* Replaces the machine's device and its view by one with these DMA ranges. */
static void use_ranges(struct machine *machine, const struct dmacore_dma_range *ranges,
		       size_t count)
{
	struct dmacore_device_options options = device_options(machine);

	options.ranges = ranges;
	options.range_count = count;
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	assert_ok(dmacore_device_create(machine->system, &options, &machine->device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

/*
 * The ranges of most tests, in no order. The low memory is two ranges that adjoin on both sides; the
 * high memory adjoins it on the bus alone, and the next memory in physical addresses alone.
 */
static void use_memory(struct machine *machine)
{
	struct dmacore_dma_range ranges[] = {
		{ BUS_NEXT, phys_of(machine, machine->next), RAM_SIZE },
		{ BUS_LOW + RAM_SIZE / 2, phys_of(machine, machine->low) + RAM_SIZE / 2,
		  RAM_SIZE / 2 },
		{ BUS_HIGH, phys_of(machine, machine->high), RAM_SIZE },
		{ BUS_POOL_HIGH, phys_of(machine, machine->pool.bytes + POOL_SIZE), POOL_SIZE },
		{ BUS_LOW, phys_of(machine, machine->low), RAM_SIZE / 2 },
		{ BUS_POOL, phys_of(machine, machine->pool.bytes), POOL_SIZE },
	};

	use_ranges(machine, ranges, COUNT(ranges));
	/* They were copied. */
	memset(ranges, 0xff, sizeof(ranges));
}

static dmacore_dma_t map(struct machine *machine, uint64_t phys, uint64_t size, uint32_t direction)
{
	dmacore_dma_t dma;

	assert_ok(dmacore_map_phys(machine->device, phys, size, direction, 0, &dma));
	return dma;
}

static void assert_unreachable(struct machine *machine, uint64_t phys, uint64_t size)
{
	dmacore_dma_t dma;

	assert_fails_untouched(
		dmacore_map_phys(machine->device, phys, size, DMACORE_BIDIRECTIONAL, 0, &dma),
		ERANGE, dma);
}

static struct dmacore_translation look_up(struct machine *machine, uint64_t dma)
{
	struct dmacore_translation found;

	assert_ok(dmacore_view_translate(machine->view, dma, 0, &found));
	return found;
}

static void assert_reads(struct machine *machine, uint64_t dma, const void *expected, size_t size)
{
	uint8_t bytes[2 * PAGE];

	assert_true(size <= sizeof(bytes));
	assert_ok(dmacore_view_read(machine->view, dma, bytes, size));
	assert_memory_equal(bytes, expected, size);
}

/* Nothing is mapped from @first to @last, of a read that starts and ends there. */
static void assert_hole(struct machine *machine, uint64_t first, uint64_t last)
{
	struct dmacore_translation found;
	static uint8_t bytes[16 * PAGE];

	assert_true(last - first < sizeof(bytes));
	assert_fails(dmacore_view_read(machine->view, first, bytes, last - first + 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, first, last, READ);
	assert_fails(dmacore_view_translate(machine->view, first, 0, &found), ENOENT);
}

/* Making. */

static void device_create__refuses_ranges_that_are_none(void **state)
{
	static const uint64_t end = UINT64_MAX - PAGE + 1;
	static const struct dmacore_dma_range good = { 16 * PAGE, 32 * PAGE, 4 * PAGE };
	const struct dmacore_dma_range bad[] = {
		/* Empty, not aligned, wrapping. */
		{ 0, 0, 0 },
		{ 1, 0, PAGE },
		{ 0, PAGE / 2, PAGE },
		{ 0, 0, PAGE - 1 },
		{ 0, 0, PAGE + 1 },
		{ end, 0, 2 * PAGE },
		{ 0, end, 2 * PAGE },
		{ PAGE, 0, end },
		{ 0, 0, UINT64_MAX },
		/* Overlapping a good one, on the bus and in memory: its first and last page, all of it. */
		{ 15 * PAGE, 0, 2 * PAGE },
		{ 19 * PAGE, 0, PAGE },
		{ 0, 0, 24 * PAGE },
		{ 0, 31 * PAGE, 2 * PAGE },
		{ 0, 35 * PAGE, PAGE },
		{ 0, 16 * PAGE, 64 * PAGE },
		{ 16 * PAGE, 32 * PAGE, 4 * PAGE },
	};
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;

	for (size_t i = 0; i < COUNT(bad); i++)
		for (unsigned order = 0; order < 2; order++) {
			struct dmacore_dma_range both[2];

			both[order] = bad[i];
			both[1 - order] = good;
			options.ranges = both;
			options.range_count = 2;
			assert_creates_nothing(
				dmacore_device_create(machine->system, &options, &device), EINVAL,
				device);
		}
}

static void device_create__takes_at_most_64_ranges(void **state)
{
	static const size_t wrong[] = { MAX + 1, SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 2 + 1 };
	struct dmacore_dma_range ranges[MAX + 1];
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;

	/* One after the other on both sides, in reverse on the bus: nothing is in a row. */
	for (size_t i = 0; i <= MAX; i++)
		ranges[i] = (struct dmacore_dma_range){ (2 * MAX - i) * PAGE, i * PAGE, PAGE };
	options.ranges = ranges;
	for (size_t i = 0; i < COUNT(wrong); i++) {
		options.range_count = wrong[i];
		assert_creates_nothing(dmacore_device_create(machine->system, &options, &device),
				       EINVAL, device);
	}
	options.ranges = NULL;
	options.range_count = 1;
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);

	use_ranges(machine, ranges, MAX);
	for (size_t i = 0; i < MAX; i++) {
		dmacore_dma_t dma = map(machine, i * PAGE + i, 7, DMACORE_TO_DEVICE);

		assert_int_equal(dma, (2 * MAX - i) * PAGE + i);
		assert_ok(dmacore_unmap(machine->device, dma, 7, DMACORE_TO_DEVICE, 0));
		if (i > 0)
			assert_unreachable(machine, i * PAGE - 1, 2);
	}
	assert_unreachable(machine, MAX * PAGE, 1);
}

static void device_create__takes_no_ranges_as_all_of_memory(void **state)
{
	struct machine *machine = *state;

	/* The pointer is not looked at. */
	use_ranges(machine, (void *)(uintptr_t)1, 0);
	assert_int_equal(map(machine, UINT64_MAX, 1, DMACORE_TO_DEVICE), UINT64_MAX);
	assert_ok(dmacore_unmap(machine->device, UINT64_MAX, 1, DMACORE_TO_DEVICE, 0));
}

static void map_phys__reaches_both_ends_of_the_address_space(void **state)
{
	static const uint64_t end = UINT64_MAX - PAGE + 1;
	static const struct dmacore_dma_range ranges[] = { { end, 0, PAGE }, { 0, end, PAGE } };
	struct machine *machine = *state;
	dmacore_dma_t dma;

	use_ranges(machine, ranges, 2);
	dma = map(machine, 0, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, end);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dma = map(machine, UINT64_MAX, 1, DMACORE_TO_DEVICE);
	assert_int_equal(dma, PAGE - 1);
	assert_ok(dmacore_unmap(machine->device, dma, 1, DMACORE_TO_DEVICE, 0));
	assert_unreachable(machine, end - 1, 2);
	assert_unreachable(machine, PAGE - 1, 2);
	assert_unreachable(machine, 0, UINT64_MAX);
	assert_hole(machine, PAGE, 2 * PAGE);
	assert_hole(machine, end - PAGE, end - 1);
}

/* The direct path. */

static void map__gives_bus_addresses(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[PAGE];
	dmacore_dma_t dma;

	use_memory(machine);
	dma = map_for(machine, machine->next + 5, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(dma, BUS_NEXT + 5);
	fill(machine->next, RAM_SIZE, 1);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma + 1, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_device(machine->device, dma + 1, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));

	dma = map(machine, phys_of(machine, machine->high) + 100, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(dma, BUS_HIGH + 100);
	if (!(machine->path & FLAT) || machine->path & TRACKED) {
		fill(machine->high, RAM_SIZE, 2);
		assert_reads(machine, dma, machine->high + 100, PAGE);
		fill(bytes, PAGE, 3);
		assert_ok(dmacore_view_write(machine->view, dma, bytes, PAGE));
		assert_memory_equal(machine->high + 100, bytes, PAGE);
		assert_int_equal(look_up(machine, dma).target + (dma - look_up(machine, dma).first),
				 phys_of(machine, machine->high) + 100);
	}
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void map__takes_what_lies_in_one_range_or_in_several_in_a_row(void **state)
{
	const uint64_t low_end = LOW_BASE + RAM_SIZE;
	struct machine *machine = *state;
	dmacore_dma_t dma;

	use_memory(machine);
	dma = map(machine, LOW_BASE, RAM_SIZE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, BUS_LOW);
	assert_ok(dmacore_unmap(machine->device, dma, RAM_SIZE, DMACORE_TO_DEVICE, 0));
	/* The memory goes on, and the bus does not. */
	assert_unreachable(machine, low_end - 1, 2);
	/* The bus goes on, and the memory does not; or neither. */
	assert_unreachable(machine, HIGH_BASE + RAM_SIZE - 1, 2);
	assert_unreachable(machine, HIGH_BASE - 1, 2);
	assert_unreachable(machine, LOW_BASE - 1, 1);
	assert_unreachable(machine, LOW_BASE - 1, RAM_SIZE + 2);
	assert_unreachable(machine, 0, UINT64_MAX);
	/* A bus address is no physical one. */
	assert_unreachable(machine, BUS_LOW, 1);
}

static void map__compares_limits_with_bus_addresses(void **state)
{
	struct machine *machine = *state;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	dmacore_dma_t low, high;

	use_memory(machine);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, BUS_HIGH + 99, NULL));
	low = map(machine, LOW_BASE, RAM_SIZE, DMACORE_TO_DEVICE);
	high = map(machine, HIGH_BASE, 100, DMACORE_TO_DEVICE);
	assert_unreachable(machine, HIGH_BASE, 101);
	/* Below the mask as a physical address, and above it on the bus. */
	assert_ok(dmacore_device_set_streaming_mask(machine->device, BUS_NEXT - 1, NULL));
	assert_unreachable(machine, NEXT_BASE, 1);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, BUS_HIGH - 1, &beyond));
	assert_int_equal(beyond.count, machine->path & TRACKED ? 1 : 0);
	assert_ok(dmacore_unmap(machine->device, low, RAM_SIZE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, high, 100, DMACORE_TO_DEVICE, 0));
}

static void map__compares_the_bus_limit_with_bus_addresses(void **state)
{
	static const struct dmacore_dma_range range = { BUS_LOW, HIGH_BASE, RAM_SIZE };
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	dmacore_dma_t dma;

	options.ranges = &range;
	options.range_count = 1;
	options.bus_limit = BUS_LOW + PAGE - 1;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_map_phys(device, HIGH_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, BUS_LOW);
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_fails(dmacore_map_phys(device, HIGH_BASE, PAGE + 1, DMACORE_TO_DEVICE, 0, &dma),
		     ERANGE);
	dmacore_device_destroy(device);
}

static void map__bounces_what_the_bus_moves_off_the_bits_that_are_to_be_kept(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_dma_range ranges[] = {
		{ BUS_LOW + PAGE, LOW_BASE, RAM_SIZE },
		{ BUS_POOL, phys_of(machine, machine->pool.bytes), POOL_SIZE },
	};
	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct dmacore_bounce_pool *pool;
	struct dmacore_sg list[2];
	dmacore_dma_t dma;
	size_t count;

	use_ranges(machine, ranges, COUNT(ranges));
	limits.min_align_mask = 0xffff;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	assert_unreachable(machine, LOW_BASE + 3 * PAGE, PAGE);
	options.size = options.size_max = 32 * PAGE;
	options.limit = UINT32_MAX;
	assert_ok(dmacore_bounce_pool_create(machine->system, &options, &pool));
	assert_ok(dmacore_system_set_bounce_pool(machine->system, pool));
	assert_ok(dmacore_device_explain(machine->device, LOW_BASE + 3 * PAGE, PAGE,
					 DMACORE_STREAMING, 0, &explanation));
	assert_int_equal(explanation.path, DMACORE_PATH_BOUNCED);
	assert_true(explanation.reasons & DMACORE_REASON_MISALIGNED);
	fill(machine->low, RAM_SIZE, 1);
	dma = map(machine, LOW_BASE + 3 * PAGE, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal((dma ^ (LOW_BASE + 3 * PAGE)) & 0xffff, 0);
	assert_reads(machine, dma, machine->low + 3 * PAGE, PAGE);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_sg_init(list, 2);
	dmacore_sg_set(&list[0], LOW_BASE + 5 * PAGE, 100, 0);
	dmacore_sg_set(&list[1], LOW_BASE + 7 * PAGE + 10, 100, 0);
	assert_ok(dmacore_map_list(machine->device, list, 2, DMACORE_TO_DEVICE, 0, 0, &count));
	assert_int_equal(count, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal((list[i].dma ^ list[i].phys) & 0xffff, 0);
		assert_reads(machine, list[i].dma, machine->low + (list[i].phys - LOW_BASE), 100);
	}
	assert_ok(dmacore_unmap_list(machine->device, list, 2, DMACORE_TO_DEVICE, 0));
	/* Below a page the bus keeps them. */
	limits.min_align_mask = PAGE - 1;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	dma = map(machine, LOW_BASE + 3, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, BUS_LOW + PAGE + 3);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_system_set_bounce_pool(machine->system, NULL));
	dmacore_bounce_pool_destroy(pool);
}

static void view__finds_nothing_mapped_in_holes(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t low = 0, high = 0;
	uint8_t bytes[2 * PAGE];

	use_memory(machine);
	if (machine->path & TRACKED) {
		low = map(machine, phys_of(machine, machine->low), RAM_SIZE, DMACORE_BIDIRECTIONAL);
		high = map(machine, phys_of(machine, machine->high), RAM_SIZE,
			   DMACORE_BIDIRECTIONAL);
	}
	fill(machine->low, RAM_SIZE, 1);
	fill(machine->high, RAM_SIZE, 2);
	assert_hole(machine, BUS_LOW - 9, BUS_LOW - 1);
	assert_hole(machine, 0, 0);
	assert_hole(machine, UINT64_MAX - 1, UINT64_MAX);
	/* Out of memory into a hole: no byte moves, and the fault is where the hole begins. */
	memset(bytes, 0x77, sizeof(bytes));
	assert_fails(dmacore_view_read(machine->view, BUS_HIGH + RAM_SIZE - 5, bytes, 10), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, BUS_HIGH + RAM_SIZE,
		       BUS_HIGH + RAM_SIZE + 4, READ);
	assert_int_equal(bytes[0], 0x77);
	/* Out of a hole into memory: the fault ends there. */
	assert_fails(dmacore_view_write(machine->view, BUS_LOW - 5, bytes, 10), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, BUS_LOW - 5, BUS_LOW - 1, WRITE);
	/* Where ranges adjoin on the bus alone, an access goes on in the other memory. */
	memcpy(bytes, machine->low + RAM_SIZE - PAGE, PAGE);
	memcpy(bytes + PAGE, machine->high, PAGE);
	assert_reads(machine, BUS_HIGH - PAGE, bytes, 2 * PAGE);
	if (machine->path & TRACKED) {
		assert_ok(dmacore_unmap(machine->device, low, RAM_SIZE, DMACORE_BIDIRECTIONAL, 0));
		assert_ok(dmacore_unmap(machine->device, high, RAM_SIZE, DMACORE_BIDIRECTIONAL, 0));
		assert_hole(machine, BUS_LOW, BUS_LOW + 9);
	}
}

static void view_translate__ends_with_the_range(void **state)
{
	struct machine *machine = *state;
	struct dmacore_translation found;

	use_memory(machine);
	for (unsigned i = 0; i < 2; i++) {
		/* Two ranges that adjoin on both sides are one. */
		found = look_up(machine, i ? BUS_HIGH - 1 : BUS_LOW);
		assert_int_equal(found.first, BUS_LOW);
		assert_int_equal(found.last, BUS_HIGH - 1);
		assert_int_equal(found.target, LOW_BASE);
		assert_int_equal(found.access, BOTH);
	}
	found = look_up(machine, BUS_HIGH);
	assert_int_equal(found.first, BUS_HIGH);
	assert_int_equal(found.last, BUS_HIGH + RAM_SIZE - 1);
	assert_int_equal(found.target, HIGH_BASE);
}

/* Coherent memory. */

static void alloc_coherent__asks_for_memory_that_the_bus_has(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	use_memory(machine);
	assert_ok(dmacore_alloc_coherent(machine->device, 5, &cpu, &dma));
	assert_ptr_equal(cpu, machine->pool.bytes + POOL_SIZE);
	assert_int_equal(dma, BUS_POOL_HIGH);
	assert_int_equal(machine->pool.limit, POOL_HIGH_BASE + POOL_SIZE - 1);
	memset(cpu, 0x33, PAGE);
	assert_reads(machine, dma, cpu, PAGE);
	assert_ok(dmacore_free_coherent(machine->device, 5, cpu, dma));

	/* The limit is that of the memory whose bus addresses lie under the mask. */
	assert_ok(dmacore_device_set_coherent_mask(machine->device, BUS_POOL_HIGH - 1, NULL));
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_int_equal(machine->pool.limit, HIGH_BASE + RAM_SIZE - 1);
	assert_int_equal(dma, BUS_POOL);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	/* Memory under it, whose bus address is not. */
	assert_ok(dmacore_device_set_coherent_mask(machine->device, BUS_POOL - 1, NULL));
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ERANGE,
			       dma);
	assert_int_equal(machine->pool.live, 0);
	assert_ok(dmacore_device_set_coherent_mask(machine->device, BUS_HIGH + PAGE, NULL));
	machine->pool.left = 0;
	assert_fails(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ENOMEM);
	assert_int_equal(machine->pool.limit, HIGH_BASE + PAGE);
	assert_ok(dmacore_device_set_coherent_mask(machine->device, BUS_HIGH - 1, NULL));
	assert_fails(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ENOMEM);
	assert_int_equal(machine->pool.limit, LOW_BASE + RAM_SIZE - 1);
	machine->pool.left = -1;
	/* The bus has nothing there, so that nobody is asked. */
	machine->pool.calls = 0;
	assert_ok(dmacore_device_set_coherent_mask(machine->device, BUS_LOW - 1, NULL));
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ERANGE,
			       dma);
	assert_int_equal(machine->pool.calls, 0);
}

static void alloc_coherent__refuses_memory_that_the_bus_lacks(void **state)
{
	struct machine *machine = *state;
	struct dmacore_dma_range range = { BUS_LOW, POOL_LOW_BASE, POOL_SIZE };
	dmacore_dma_t dma;
	void *cpu;

	use_ranges(machine, &range, 1);
	assert_ok(dmacore_alloc_coherent(machine->device, 2 * PAGE, &cpu, &dma));
	assert_ptr_equal(cpu, machine->pool.bytes);
	assert_int_equal(dma, BUS_LOW);
	assert_ok(dmacore_free_coherent(machine->device, 2 * PAGE, cpu, dma));
	machine->pool.foreign = machine->low;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ERANGE,
			       dma);
	machine->pool.foreign = NULL;
	assert_int_equal(machine->pool.live, 0);
}

/* Zero-copy. */

static void view_map__holds_bus_addresses(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	dmacore_dma_t low, high;
	size_t count;

	use_memory(machine);
	low = map_for(machine, machine->low, RAM_SIZE, DMACORE_BIDIRECTIONAL);
	high = map_for(machine, machine->high, RAM_SIZE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(low + RAM_SIZE, high);
	assert_ok(
		dmacore_view_map(machine->view, high - 7, 10, WRITE, &mapping, &segments, &count));
	assert_int_equal(count, 2);
	assert_ptr_equal(segments[0].host, machine->low + RAM_SIZE - 7);
	assert_int_equal(segments[0].size, 7);
	assert_ptr_equal(segments[1].host, machine->high);
	assert_int_equal(segments[1].size, 3);
	assert_ok(dmacore_unmap(machine->device, low, RAM_SIZE, DMACORE_BIDIRECTIONAL, 0));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_unmap(machine->device, high, RAM_SIZE, DMACORE_BIDIRECTIONAL, 0));

	assert_fails(
		dmacore_view_map(machine->view, BUS_LOW - 1, 2, READ, &mapping, &segments, &count),
		ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, BUS_LOW - 1, BUS_LOW, READ);
}

static void free_coherent__finds_a_view_by_its_bus_address(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	use_memory(machine);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_view_map(machine->view, dma, 4, READ, &mapping, &segments, &count));
	assert_ptr_equal(segments[0].host, cpu);
	assert_fails(dmacore_free_coherent(machine->device, PAGE, cpu, dma), EBUSY);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
}

/* Behind an IOMMU. */

static const struct dmacore_dma_range windows[] = {
	{ 64 * PAGE, 0, 4 * PAGE },
	/* What the bus adds to addresses makes no difference, and these two are one row of addresses. */
	{ UINT64_C(1) << 32, UINT64_C(7) << 50, 2 * PAGE },
	{ (UINT64_C(1) << 32) + 2 * PAGE, (UINT64_C(7) << 50) + 2 * PAGE, 2 * PAGE },
};

static void map__takes_addresses_that_the_bus_passes_from_the_highest_down(void **state)
{
	struct machine *machine = *state;
	uint64_t all = 0;
	dmacore_dma_t dma[8];

	use_ranges(machine, windows, COUNT(windows));
	for (unsigned i = 0; i < 8; i++) {
		uint64_t first = i < 4 ? windows[1].bus : windows[0].bus;

		fill(machine->low + i * PAGE, PAGE, i);
		dma[i] = map_for(machine, machine->low + i * PAGE, PAGE, DMACORE_BIDIRECTIONAL);
		assert_true(dma[i] >= first && dma[i] < first + 4 * PAGE);
		assert_reads(machine, dma[i], machine->low + i * PAGE, PAGE);
		all |= UINT64_C(1) << ((dma[i] - first) / PAGE + (i < 4 ? 0 : 4));
	}
	assert_int_equal(all, 0xff);
	/* Full; and more than ever fits in a row. */
	assert_fails(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma[0]),
		ENOSPC);
	assert_unreachable(machine, LOW_BASE, 5 * PAGE);
	for (unsigned i = 0; i < 8; i++)
		assert_ok(dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_BIDIRECTIONAL, 0));
	/* All that was freed is there again, in whatever pieces it was. */
	for (unsigned i = 0; i < 2; i++) {
		dma[i] = map(machine, LOW_BASE + i, 4 * PAGE - 1, DMACORE_TO_DEVICE);
		assert_int_equal(dma[i], windows[1 - i].bus + i);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_ok(
			dmacore_unmap(machine->device, dma[i], 4 * PAGE - 1, DMACORE_TO_DEVICE, 0));
}

static void map__passes_over_ranges_above_the_limits(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	use_ranges(machine, windows, COUNT(windows));
	assert_ok(dmacore_device_set_streaming_mask(machine->device, windows[1].bus - 1, NULL));
	assert_int_equal(map(machine, LOW_BASE, 4 * PAGE, DMACORE_TO_DEVICE), windows[0].bus);
	assert_ok(dmacore_unmap(machine->device, windows[0].bus, 4 * PAGE, DMACORE_TO_DEVICE, 0));
	/* A part of a range. */
	assert_ok(dmacore_device_set_streaming_mask(machine->device, windows[1].bus + PAGE - 1,
						    NULL));
	assert_int_equal(map(machine, LOW_BASE, PAGE, DMACORE_TO_DEVICE), windows[1].bus);
	assert_ok(dmacore_unmap(machine->device, windows[1].bus, PAGE, DMACORE_TO_DEVICE, 0));
	assert_int_equal(map(machine, LOW_BASE, 3 * PAGE, DMACORE_TO_DEVICE),
			 windows[0].bus + PAGE);
	assert_ok(dmacore_unmap(machine->device, windows[0].bus + PAGE, 3 * PAGE, DMACORE_TO_DEVICE,
				0));
	assert_ok(dmacore_device_set_streaming_mask(machine->device, windows[0].bus - 1, NULL));
	assert_unreachable(machine, LOW_BASE, 1);
	/* Coherent memory lies anywhere. */
	assert_ok(dmacore_alloc_coherent(machine->device, 3 * PAGE, &cpu, &dma));
	assert_int_equal(machine->pool.limit, UINT64_MAX);
	assert_true(dma >= windows[1].bus);
	assert_reads(machine, dma, cpu, PAGE);
	assert_ok(dmacore_free_coherent(machine->device, 3 * PAGE, cpu, dma));
}

static void map__needs_no_more_of_a_range_than_is_mapped(void **state)
{
	struct machine *machine = *state;

	use_ranges(machine, windows, COUNT(windows));
	assert_ok(dmacore_device_set_streaming_mask(machine->device, windows[1].bus + 3 * PAGE - 1,
						    NULL));
	assert_int_equal(map(machine, LOW_BASE, 3 * PAGE, DMACORE_TO_DEVICE), windows[1].bus);
	assert_ok(dmacore_unmap(machine->device, windows[1].bus, 3 * PAGE, DMACORE_TO_DEVICE, 0));
}

static void map__refuses_a_domain_that_has_no_address_of_the_bus(void **state)
{
	struct machine *machine = *state;

	use_ranges(machine, windows, COUNT(windows));
	machine_narrow(machine, 68 * PAGE, windows[1].bus - 1);
	assert_unreachable(machine, LOW_BASE, 1);
	machine_narrow(machine, 66 * PAGE, 70 * PAGE - 1);
	assert_unreachable(machine, LOW_BASE, 3 * PAGE);
	assert_int_equal(map(machine, LOW_BASE, 2 * PAGE, DMACORE_TO_DEVICE), 66 * PAGE);
	assert_ok(dmacore_unmap(machine->device, 66 * PAGE, 2 * PAGE, DMACORE_TO_DEVICE, 0));
}

static void view__passes_no_address_to_an_iommu_that_the_bus_lacks(void **state)
{
	static const struct dmacore_dma_range odd[] = {
		{ GIB + PAGE, 0, 2 * PAGE },
		{ GIB + 4 * PAGE, 16 * PAGE, PAGE },
	};
	struct machine *machine = *state;
	struct dmacore_translation found;
	uint8_t bytes[4 * PAGE];

	machine_use(machine, DMACORE_DOMAIN_UNMANAGED);
	use_ranges(machine, odd, 2);
	/* One large leaf over ranges and holes. */
	assert_ok(dmacore_domain_map(machine->domain, GIB, GIB * 2, GIB, BOTH));
	found = look_up(machine, GIB + PAGE + 5);
	assert_int_equal(found.first, GIB + PAGE);
	assert_int_equal(found.last, GIB + 3 * PAGE - 1);
	assert_int_equal(found.target, 2 * GIB + PAGE);
	assert_int_equal(found.access, BOTH);
	/* The domain has all of it. */
	assert_ok(dmacore_domain_translate(machine->domain, GIB, BOTH, &found));
	assert_int_equal(found.last, 2 * GIB - 1);
	fill(machine->low, RAM_SIZE, 1);
	assert_reads(machine, GIB + PAGE, machine->low + PAGE, 2 * PAGE);
	assert_reads(machine, GIB + 4 * PAGE, machine->low + 4 * PAGE, PAGE);
	assert_hole(machine, GIB, GIB + PAGE - 1);
	assert_hole(machine, GIB + 3 * PAGE, GIB + 4 * PAGE - 1);
	assert_hole(machine, GIB + 5 * PAGE, GIB + 6 * PAGE);
	assert_fails(dmacore_view_write(machine->view, GIB + 2 * PAGE, bytes, 4 * PAGE), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, GIB + 3 * PAGE, GIB + 4 * PAGE - 1,
		       WRITE);
	/* A fault in the domain ends with the range, unless its reason goes on behind it. */
	assert_ok(dmacore_domain_unmap(machine->domain, GIB, GIB, 0, NULL));
	assert_hole(machine, GIB + 2 * PAGE, GIB + 5 * PAGE);
	assert_ok(dmacore_domain_map(machine->domain, GIB, GIB * 2, GIB, READ));
	assert_fails(dmacore_view_write(machine->view, GIB + 2 * PAGE, bytes, 3 * PAGE), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, GIB + 2 * PAGE, GIB + 3 * PAGE - 1, WRITE);
}

static void view__of_a_blocked_device_is_blocked_in_holes_too(void **state)
{
	struct machine *machine = *state;
	uint8_t byte;

	use_ranges(machine, windows, COUNT(windows));
	machine_use(machine, DMACORE_DOMAIN_BLOCKED);
	assert_fails(dmacore_view_read(machine->view, 0, &byte, 1), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, 0, 0, READ);
	assert_fails(dmacore_view_read(machine->view, windows[0].bus, &byte, 1), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, windows[0].bus, windows[0].bus, READ);
}

static void ranges__are_those_of_each_device_of_a_group(void **state)
{
	static const struct dmacore_dma_range other = { 128 * PAGE, 0, PAGE };
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	struct dmacore_view *view;
	dmacore_dma_t first, second;
	uint8_t byte;

	use_ranges(machine, windows, COUNT(windows));
	assert_ok(dmacore_device_group(machine->device, &options.group));
	options.ranges = &other;
	options.range_count = 1;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	dmacore_group_destroy(options.group);
	assert_ok(dmacore_view_create(device, &view));
	assert_ok(dmacore_map_single(device, machine->low, 1, DMACORE_TO_DEVICE, 0, &second));
	assert_int_equal(second, other.bus);
	first = map_for(machine, machine->next, 1, DMACORE_TO_DEVICE);
	assert_int_equal(first & ~(4 * PAGE - 1), windows[1].bus);
	assert_ok(dmacore_view_read(view, second, &byte, 1));
	assert_ok(dmacore_view_read(machine->view, first, &byte, 1));
	/* Mapped, and on the other's bus alone. */
	assert_hole(machine, second, second);
	assert_ok(dmacore_unmap(machine->device, first, 1, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(device, second, 1, DMACORE_TO_DEVICE, 0));
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

/* A block says what a translation says, up to the ends of the range. */
static void view_translate_block__stays_in_the_range(void **state)
{
	struct machine *machine = *state;
	struct dmacore_translation found;
	struct dmacore_block block;
	dmacore_dma_t dma;

	use_memory(machine);
	dma = map(machine, phys_of(machine, machine->high), PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_translate(machine->view, dma, READ, &found));
	assert_ok(dmacore_view_translate_block(machine->view, dma, READ, &block));
	assert_int_equal(block.access, found.access);
	assert_int_equal(block.phys + (dma - block.first), found.target + (dma - found.first));
	assert_true(block.first >= BUS_LOW && block.first + block.mask < BUS_HIGH + RAM_SIZE);
	/* Between two ranges, and below and above all. */
	assert_ok(dmacore_view_translate_block(machine->view, BUS_HIGH + RAM_SIZE, READ, &block));
	assert_int_equal(block.access, 0);
	assert_true(block.first + block.mask < BUS_NEXT);
	assert_ok(dmacore_view_translate_block(machine->view, 0, READ, &block));
	assert_int_equal(block.access, 0);
	assert_true(block.mask < BUS_LOW);
	assert_ok(dmacore_view_translate_block(machine->view, UINT64_MAX, READ, &block));
	assert_int_equal(block.access, 0);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

/* On every path on which addresses are the bus's. */
#define test_on_bus(function)                                                               \
	test_on(DIRECT, function), test_on(IDENTITY, function), test_on(TRACKED, function), \
		test_on(IDENTITY | TRACKED, function)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, device_create__refuses_ranges_that_are_none),
		test_on_translated(device_create__refuses_ranges_that_are_none),
		test_on_bus(device_create__takes_at_most_64_ranges),
		test_on_bus(device_create__takes_no_ranges_as_all_of_memory),
		test_on_bus(map_phys__reaches_both_ends_of_the_address_space),
		test_on_bus(map__gives_bus_addresses),
		test_on(FLAT, map__gives_bus_addresses),
		test_on(FLAT | TRACKED, map__gives_bus_addresses),
		test_on_bus(map__takes_what_lies_in_one_range_or_in_several_in_a_row),
		test_on_bus(map__compares_limits_with_bus_addresses),
		test_on_bus(map__compares_the_bus_limit_with_bus_addresses),
		test_on_bus(map__bounces_what_the_bus_moves_off_the_bits_that_are_to_be_kept),
		test_on_bus(view__finds_nothing_mapped_in_holes),
		test_on(FLAT | TRACKED, view__finds_nothing_mapped_in_holes),
		test_on(DIRECT, view_translate__ends_with_the_range),
		test_on(IDENTITY, view_translate__ends_with_the_range),
		test_on_bus(view_translate_block__stays_in_the_range),
		test_on_bus(alloc_coherent__asks_for_memory_that_the_bus_has),
		test_on_bus(alloc_coherent__refuses_memory_that_the_bus_lacks),
		test_on(TRACKED, view_map__holds_bus_addresses),
		test_on(IDENTITY | TRACKED, view_map__holds_bus_addresses),
		test_on(FLAT | TRACKED, view_map__holds_bus_addresses),
		test_on_bus(free_coherent__finds_a_view_by_its_bus_address),
		test_on_translated(map__takes_addresses_that_the_bus_passes_from_the_highest_down),
		test_on_translated(map__passes_over_ranges_above_the_limits),
		test_on_translated(map__needs_no_more_of_a_range_than_is_mapped),
		test_on_translated(map__refuses_a_domain_that_has_no_address_of_the_bus),
		test_on_translated(view__passes_no_address_to_an_iommu_that_the_bus_lacks),
		test_on_translated(view__of_a_blocked_device_is_blocked_in_holes_too),
		test_on_translated(ranges__are_those_of_each_device_of_a_group),
	};

	return run_group("dma ranges", tests);
}
