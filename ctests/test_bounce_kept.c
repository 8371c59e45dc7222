/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Copies of a page or less on a flat system. They are kept at their slots, without a record, and slots that
 * were given back stay at hand: neither may be seen from outside.
 */

#include "support/machine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define SLOT UINT64_C(2048)

/* Memory below 4 GiB, where the buffers of a machine are not. */
struct low_memory {
	struct dmacore_memory_allocator allocator;
	atomic_uint live;
};

static void *low_allocate(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque)
{
	struct low_memory *low = opaque;
	static atomic_uintptr_t next = 0x20000000;
	void *memory = mmap((void *)atomic_fetch_add(&next, (size + 0xfffff) & ~UINT64_C(0xfffff)),
			    size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)alignment;
	if (memory == MAP_FAILED)
		return NULL;
	if ((uintptr_t)memory + size - 1 > limit || (uintptr_t)memory + size > UINT32_MAX) {
		munmap(memory, size);
		return NULL;
	}
	atomic_fetch_add(&low->live, 1);
	return memory;
}

static void low_free(void *memory, uint64_t size, void *opaque)
{
	struct low_memory *low = opaque;

	assert_ok(munmap(memory, size));
	atomic_fetch_sub(&low->live, 1);
}

/* A flat machine whose device reaches the lowest 4 GiB, where its pool is and its buffers are not. */
struct bench {
	struct machine machine;
	struct low_memory low;
	struct dmacore_bounce_pool *pool;
	/* The buffers, page-aligned. */
	uint8_t *buffer;
};

enum { OWN = 1 << 16, FORCED = 1 << 17, ROOMY = 1 << 18 };

static int bench_setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct machine *machine = &bench->machine;
	unsigned how = (unsigned)(uintptr_t)*state;
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_device_options device;

	assert_non_null(bench);
	machine_start(machine, FLAT | (how & IDENTITY));
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->domain);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
	bench->low.allocator = (struct dmacore_memory_allocator)DMACORE_MEMORY_ALLOCATOR_INIT;
	bench->low.allocator.allocate = low_allocate;
	bench->low.allocator.free = low_free;
	bench->low.allocator.opaque = &bench->low;
	system.flags = DMACORE_SYSTEM_FLAT;
	system.report = reports_record;
	system.report_opaque = &machine->reports;
	system.memory_allocator = &bench->low.allocator;
	assert_ok(dmacore_system_create(&system, &machine->system));
	machine->iommu = NULL;
	machine->domain = NULL;
	if (how & IDENTITY) {
		assert_ok(dmacore_iommu_create(machine->system, NULL, &machine->iommu));
		machine->domain = make_domain(machine, DMACORE_DOMAIN_IDENTITY, 0, 0);
	}
	pool.size = pool.size_max = how & ROOMY ? 64 * PAGE : 4 * PAGE;
	assert_ok(dmacore_bounce_pool_create(machine->system, &pool, &bench->pool));
	if (!(how & OWN))
		assert_ok(dmacore_system_set_bounce_pool(machine->system, bench->pool));
	device = device_options(machine);
	device.streaming_mask = DMACORE_BIT_MASK(how & FORCED ? 64 : 32);
	device.flags |= how & FORCED ? DMACORE_DEVICE_FORCE_BOUNCE : 0;
	device.bounce_pool = how & OWN ? bench->pool : NULL;
	assert_ok(dmacore_device_create(machine->system, &device, &machine->device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
	/* Wherever the heap is. */
	bench->buffer = mmap((void *)UINT64_C(0x800000000), RAM_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(bench->buffer != MAP_FAILED && (uintptr_t)bench->buffer > UINT32_MAX);
	*state = bench;
	return 0;
}

/* When the device and the system have let go of the pool, its memory is given back. */
static int bench_teardown(void **state)
{
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;

	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	assert_ok(dmacore_system_set_bounce_pool(machine->system, NULL));
	dmacore_bounce_pool_destroy(bench->pool);
	machine_stop(machine);
	assert_int_equal(bench->low.live, 0);
	assert_ok(munmap(bench->buffer, RAM_SIZE));
	free(bench);
	return 0;
}

static struct dmacore_bounce_pool_statistics numbers(struct dmacore_bounce_pool *pool)
{
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
	return statistics;
}

static void unmap(struct bench *bench, dmacore_dma_t dma, uint64_t size, uint32_t direction)
{
	assert_ok(dmacore_unmap(bench->machine.device, dma, size, direction, 0));
}

/* What the device finds at an address, where that is one of the process. */
static uint8_t *at(dmacore_dma_t dma)
{
	return (uint8_t *)(uintptr_t)dma;
}

static void map__copies_whatever_was_at_hand_before(void **state)
{
	struct bench *bench = *state;
	const uint64_t sizes[] = { 1, 60, 2048, 2049, 4095, 4096 };

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			uint64_t offset = sizes[i] == PAGE ? 0 : 7;
			dmacore_dma_t dma;

			memset(bench->buffer, (int)(16 * round + i + 1), 3 * PAGE);
			dma = map_for(&bench->machine, bench->buffer + offset, sizes[i],
				      DMACORE_BIDIRECTIONAL);
			assert_true(dma < UINT32_MAX);
			assert_memory_equal(at(dma), bench->buffer + offset, sizes[i]);
			memset(at(dma), 0xee, sizes[i]);
			unmap(bench, dma, sizes[i], DMACORE_BIDIRECTIONAL);
			for (uint64_t j = 0; j < 2 * PAGE; j++)
				assert_int_equal(bench->buffer[j],
						 j >= offset && j < offset + sizes[i] ?
							 0xee :
							 16 * round + i + 1);
		}
	}
}

static void unmap__copies_back_what_the_device_may_write_alone(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	dmacore_dma_t dma;

	memset(bench->buffer, 1, PAGE);
	dma = map_for(&bench->machine, bench->buffer, 100, DMACORE_TO_DEVICE);
	memset(at(dma), 2, 100);
	unmap(bench, dma, 100, DMACORE_TO_DEVICE);
	assert_int_equal(bench->buffer[50], 1);
	assert_ok(dmacore_map_single(device, bench->buffer, 100, DMACORE_FROM_DEVICE,
				     DMACORE_ATTR_SKIP_CPU_SYNC, &dma));
	assert_int_equal(*at(dma), 1);
	memset(at(dma), 2, 100);
	assert_ok(dmacore_unmap(device, dma, 100, DMACORE_FROM_DEVICE, DMACORE_ATTR_SKIP_CPU_SYNC));
	assert_int_equal(bench->buffer[50], 1);
	dma = map_for(&bench->machine, bench->buffer, 100, DMACORE_FROM_DEVICE);
	memset(at(dma), 2, 50);
	unmap(bench, dma, 100, DMACORE_FROM_DEVICE);
	assert_int_equal(bench->buffer[49], 2);
	assert_int_equal(bench->buffer[50], 1);
}

static void sync__copies_its_part(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	dmacore_dma_t dma;

	memset(bench->buffer, 1, PAGE);
	dma = map_for(&bench->machine, bench->buffer + 5, 3000, DMACORE_BIDIRECTIONAL);
	memset(at(dma), 2, 3000);
	assert_ok(dmacore_sync_for_cpu(device, dma + 2500, 10, DMACORE_BIDIRECTIONAL));
	for (unsigned i = 0; i < PAGE; i++)
		assert_int_equal(bench->buffer[i], i >= 2505 && i < 2515 ? 2 : 1);
	bench->buffer[5] = bench->buffer[3004] = 3;
	assert_ok(dmacore_sync_for_device(device, dma, 1, DMACORE_BIDIRECTIONAL));
	assert_int_equal(*at(dma), 3);
	assert_int_equal(*at(dma + 2999), 2);
	assert_ok(dmacore_sync_for_device(device, dma + 2999, 1, DMACORE_BIDIRECTIONAL));
	assert_int_equal(*at(dma + 2999), 3);
	assert_int_equal(numbers(bench->pool).copied_to_pool, 3002);
	assert_int_equal(numbers(bench->pool).copied_from_pool, 10);
	assert_misuse(&bench->machine,
		      dmacore_sync_for_cpu(device, dma, 3001, DMACORE_BIDIRECTIONAL));
	assert_misuse(&bench->machine, dmacore_sync_for_cpu(device, dma, 1, DMACORE_TO_DEVICE));
	unmap(bench, dma, 3000, DMACORE_BIDIRECTIONAL);
}

static void unmap__ends_a_mapping_once_and_as_it_was_made(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	dmacore_dma_t dma = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_FROM_DEVICE);

#define misuse(dma_, size, direction, attributes) \
	assert_misuse(&bench->machine, dmacore_unmap(device, dma_, size, direction, attributes))
	misuse(dma, PAGE - 1, DMACORE_FROM_DEVICE, 0);
	misuse(dma, 2 * PAGE, DMACORE_FROM_DEVICE, 0);
	misuse(dma + 1, PAGE - 1, DMACORE_FROM_DEVICE, 0);
	misuse(dma + SLOT, SLOT, DMACORE_FROM_DEVICE, 0);
	misuse(dma, PAGE, DMACORE_TO_DEVICE, 0);
	misuse(dma, PAGE, DMACORE_FROM_DEVICE, DMACORE_ATTR_SKIP_CPU_SYNC);
	assert_true(dmacore_need_sync(device, dma + 1));
	assert_true(dmacore_need_unmap(device));
	assert_int_equal(numbers(bench->pool).used_count, 2);
	unmap(bench, dma, PAGE, DMACORE_FROM_DEVICE);
	assert_false(dmacore_need_sync(device, dma + 1));
	assert_int_equal(numbers(bench->pool).used_count, 0);
}

/* Of a device whose mappings are all bounced there is always a record, so that this is seen. */
static void unmap__of_what_was_unmapped_is_found(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	dmacore_dma_t dma = map_for(&bench->machine, bench->buffer, 9, DMACORE_TO_DEVICE);

	unmap(bench, dma, 9, DMACORE_TO_DEVICE);
	misuse(dma, 9, DMACORE_TO_DEVICE, 0);
#undef misuse
	assert_int_equal(numbers(bench->pool).used_count, 0);
}

static void statistics__count_what_is_at_hand_as_free(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	struct dmacore_bounce_pool_statistics statistics;
	dmacore_dma_t page, small;

	page = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	small = map_for(&bench->machine, bench->buffer, 100, DMACORE_FROM_DEVICE);
	assert_int_equal(device_statistics(device).mapping_count, 2);
	assert_int_equal(device_statistics(device).mapping_bytes, PAGE + 100);
	unmap(bench, page, PAGE, DMACORE_TO_DEVICE);
	unmap(bench, small, 100, DMACORE_FROM_DEVICE);
	assert_int_equal(device_statistics(device).mapping_count, 0);
	assert_int_equal(device_statistics(device).mapping_bytes, 0);
	assert_int_equal(device_statistics(device).map_total, 2);
	statistics = numbers(bench->pool);
	assert_int_equal(statistics.used_count, 0);
	assert_int_equal(statistics.used_count_max, 3);
	assert_int_equal(statistics.copied_to_pool, PAGE + 100);
	assert_int_equal(statistics.copied_from_pool, 100);
	assert_ok(dmacore_bounce_pool_reset_high_water(bench->pool));
	assert_int_equal(numbers(bench->pool).used_count_max, 0);
	page = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(numbers(bench->pool).used_count, 2);
	assert_int_equal(numbers(bench->pool).used_count_max, 2);
	unmap(bench, page, PAGE, DMACORE_TO_DEVICE);
	page = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(numbers(bench->pool).used_count, 2);
	assert_int_equal(numbers(bench->pool).used_count_max, 2);
	assert_int_equal(numbers(bench->pool).copied_to_pool, 3 * PAGE + 100);
	unmap(bench, page, PAGE, DMACORE_TO_DEVICE);
}

static void map__finds_slots_that_are_at_hand_elsewhere(void **state)
{
	struct bench *bench = *state;
	dmacore_dma_t small[8], all;

	/* All slots of the pool are at hand for single slots, or for pages. */
	for (unsigned i = 0; i < 8; i++)
		small[i] = map_for(&bench->machine, bench->buffer, SLOT, DMACORE_TO_DEVICE);
	assert_fails(dmacore_map_single(bench->machine.device, bench->buffer, 1, DMACORE_TO_DEVICE,
					0, &all),
		     ENOSPC);
	assert_int_equal(numbers(bench->pool).full_count, 1);
	for (unsigned i = 0; i < 8; i++)
		unmap(bench, small[i], SLOT, DMACORE_TO_DEVICE);
	all = map_for(&bench->machine, bench->buffer, 4 * PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(numbers(bench->pool).used_count, 8);
	unmap(bench, all, 4 * PAGE, DMACORE_TO_DEVICE);
	for (unsigned i = 0; i < 4; i++)
		small[i] = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	for (unsigned i = 0; i < 4; i++)
		unmap(bench, small[i], PAGE, DMACORE_TO_DEVICE);
	for (unsigned i = 0; i < 8; i++)
		small[i] = map_for(&bench->machine, bench->buffer, 1, DMACORE_TO_DEVICE);
	assert_int_equal(numbers(bench->pool).used_count, 8);
	assert_int_equal(numbers(bench->pool).full_count, 1);
	for (unsigned i = 0; i < 8; i++)
		unmap(bench, small[i], 1, DMACORE_TO_DEVICE);
}

static void mappings__are_listed_and_reported_beyond_a_mask(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	struct dmacore_mapping_info found[4];
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	dmacore_dma_t page = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	dmacore_dma_t small = map_for(&bench->machine, bench->buffer, 99, DMACORE_FROM_DEVICE);
	size_t count;

	assert_ok(dmacore_device_list_mappings(device, 0, UINT64_MAX, found, 4, &count));
	assert_int_equal(count, 2);
	for (unsigned i = 0; i < 2; i++) {
		bool is_page = found[i].first == page;

		assert_true(found[i].first == (is_page ? page : small));
		assert_true(found[i].last == (is_page ? page + PAGE - 1 : small + 98));
		assert_int_equal(found[i].path, DMACORE_PATH_BOUNCED);
		assert_int_equal(found[i].direction,
				 is_page ? DMACORE_TO_DEVICE : DMACORE_FROM_DEVICE);
	}
	assert_true(found[0].first < found[1].first);
	/* One that reaches into the range, and none but that. */
	assert_ok(dmacore_device_list_mappings(device, page + PAGE - 1, page + PAGE - 1, found, 4,
					       &count));
	assert_int_equal(count, 1);
	assert_true(found[0].first == page);
	assert_ok(dmacore_device_list_mappings(device, small + 99, small + 99, found, 4, &count));
	assert_int_equal(count, 0);
	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(20), &beyond));
	assert_int_equal(beyond.count, 2);
	assert_true(beyond.first == (page < small ? page : small));
	unmap(bench, page, PAGE, DMACORE_TO_DEVICE);
	unmap(bench, small, 99, DMACORE_FROM_DEVICE);
	/* What is at hand is out of reach now. */
	assert_fails(dmacore_map_single(device, bench->buffer, 99, DMACORE_TO_DEVICE, 0, &page),
		     ERANGE);
}

static void map__keeps_the_bits_of_the_devices_mask(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	dmacore_dma_t dma;

	limits.min_align_mask = PAGE - 1;
	assert_ok(dmacore_device_set_limits(device, &limits));
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t offset = 1; offset < PAGE; offset += 501) {
			for (uint64_t size = 1; size <= PAGE; size += 1365) {
				dmacore_dma_t dma = map_for(&bench->machine, bench->buffer + offset,
							    size, DMACORE_TO_DEVICE);

				assert_int_equal(dma % PAGE, offset);
				unmap(bench, dma, size, DMACORE_TO_DEVICE);
			}
		}
	}
	/* Wherever it starts in its slot, it crosses a boundary there, as its memory does. */
	limits.min_align_mask = 511;
	limits.segment_boundary_mask = 1023;
	assert_ok(dmacore_device_set_limits(device, &limits));
	dma = map_for(&bench->machine, bench->buffer + 88, 1000, DMACORE_TO_DEVICE);
	assert_int_equal(dma % 512, 88);
	unmap(bench, dma, 1000, DMACORE_TO_DEVICE);
	dma = map_for(&bench->machine, bench->buffer + 88, 900, DMACORE_TO_DEVICE);
	assert_int_equal(dma / 1024, (dma + 899) / 1024);
	unmap(bench, dma, 900, DMACORE_TO_DEVICE);
}

static void set_ranges__has_copies_where_the_bus_has_them(void **state)
{
	const struct dmacore_dma_range range = { .bus = PAGE,
						 .phys = 0x20000000,
						 .size = 0x80000000 };
	struct bench *bench = *state;
	dmacore_dma_t dma;

	for (unsigned i = 0; i < 5; i++) {
		dma = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
		unmap(bench, dma, PAGE, DMACORE_TO_DEVICE);
	}
	fill(bench->buffer, PAGE, 1);
	assert_ok(dmacore_device_set_ranges(bench->machine.device, &range, 1));
	dma = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	assert_in_range(dma, range.bus, range.bus + range.size - PAGE);
	assert_memory_equal(at(dma - range.bus + range.phys), bench->buffer, PAGE);
	unmap(bench, dma, PAGE, DMACORE_TO_DEVICE);
}

static void unmap__beside_what_is_copied_needs_no_record(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	uint8_t *reached = low_allocate(PAGE, PAGE, UINT32_MAX, &bench->low);
	dmacore_dma_t copied, direct;

	assert_non_null(reached);
	copied = map_for(&bench->machine, bench->buffer, PAGE, DMACORE_FROM_DEVICE);
	direct = map_for(&bench->machine, reached, PAGE, DMACORE_FROM_DEVICE);
	assert_true(direct == (uintptr_t)reached);
	assert_int_equal(device_statistics(device).mapping_count, 1);
	assert_false(dmacore_need_sync(device, direct));
	assert_ok(dmacore_sync_for_cpu(device, direct, 1, DMACORE_FROM_DEVICE));
	unmap(bench, direct, PAGE, DMACORE_FROM_DEVICE);
	unmap(bench, copied, PAGE, DMACORE_FROM_DEVICE);
	assert_false(dmacore_need_unmap(device));
	assert_ok(dmacore_sync_for_cpu(device, direct, 1, DMACORE_FROM_DEVICE));
	unmap(bench, direct, PAGE, DMACORE_FROM_DEVICE);
	low_free(reached, PAGE, &bench->low);
}

static void set_bounce_pool__leaves_mappings_in_theirs(void **state)
{
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;
	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_bounce_pool *other;
	dmacore_dma_t first, second, third;

	options.size = options.size_max = PAGE;
	assert_ok(dmacore_bounce_pool_create(machine->system, &options, &other));
	bench->buffer[5] = 1;
	first = map_for(machine, bench->buffer, PAGE, DMACORE_BIDIRECTIONAL);
	second = map_for(machine, bench->buffer + PAGE, 10, DMACORE_BIDIRECTIONAL);
	unmap(bench, second, 10, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_system_set_bounce_pool(machine->system, other));
	dmacore_bounce_pool_destroy(bench->pool);
	bench->pool = other;
	reports_forget(&machine->reports);
	assert_int_equal(bench->low.live, 2);
	third = map_for(machine, bench->buffer + PAGE, PAGE, DMACORE_BIDIRECTIONAL);
	*at(first + 5) = 2;
	assert_ok(dmacore_sync_for_cpu(machine->device, first + 5, 1, DMACORE_BIDIRECTIONAL));
	assert_int_equal(bench->buffer[5], 2);
	*at(first + 5) = 3;
	assert_true(dmacore_need_sync(machine->device, first));
	unmap(bench, first, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(bench->buffer[5], 3);
	/* It was the last of its pool. */
	assert_int_equal(bench->low.live, 1);
	unmap(bench, third, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_ok(dmacore_system_set_bounce_pool(machine->system, NULL));
	assert_fails(
		dmacore_map_single(machine->device, bench->buffer, 1, DMACORE_TO_DEVICE, 0, &first),
		ERANGE);
}

static void device_destroy__gives_slots_back_and_copies_nothing(void **state)
{
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;
	dmacore_dma_t dma = map_for(machine, bench->buffer, PAGE, DMACORE_FROM_DEVICE);
	const struct report_record *report;

	(void)map_for(machine, bench->buffer + PAGE, 4, DMACORE_TO_DEVICE);
	*at(dma) = 1;
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	report = reports_take(&machine->reports);
	assert_non_null(strstr(report->text, "2 live mappings of 4100 bytes"));
	assert_int_equal(bench->buffer[0], 0);
	assert_int_equal(numbers(bench->pool).used_count, 0);
}

static void attach__waits_for_mappings_to_end(void **state)
{
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;
	dmacore_dma_t dma = map_for(machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);

	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	unmap(bench, dma, PAGE, DMACORE_TO_DEVICE);
	machine_use(machine, DMACORE_DOMAIN_DMA);
	dma = map_for(machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(numbers(bench->pool).used_count, 0);
	unmap(bench, dma, PAGE, DMACORE_TO_DEVICE);
	machine_use(machine, DMACORE_DOMAIN_BLOCKED);
	assert_fails(
		dmacore_map_single(machine->device, bench->buffer, 1, DMACORE_TO_DEVICE, 0, &dma),
		EPERM);
	machine_use(machine, DMACORE_DOMAIN_IDENTITY);
	dma = map_for(machine, bench->buffer, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(numbers(bench->pool).used_count, 2);
	unmap(bench, dma, PAGE, DMACORE_TO_DEVICE);
}

static void mapping__of_registers_or_without_syncing_is_refused(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->machine.device;
	dmacore_dma_t dma = map_for(&bench->machine, bench->buffer, 8, DMACORE_TO_DEVICE);

	unmap(bench, dma, 8, DMACORE_TO_DEVICE);
	assert_fails(dmacore_map_single(device, bench->buffer, 8, DMACORE_TO_DEVICE,
					DMACORE_ATTR_REQUIRE_COHERENT, &dma),
		     EOPNOTSUPP);
	assert_fails(dmacore_map_phys(device, (uintptr_t)bench->buffer, 8, DMACORE_TO_DEVICE,
				      DMACORE_ATTR_MMIO, &dma),
		     ERANGE);
	assert_fails(dmacore_map_single(device, bench->buffer, 0, DMACORE_TO_DEVICE, 0, &dma),
		     EINVAL);
	assert_fails(dmacore_map_single(device, bench->buffer, 8, 3, 0, &dma), EINVAL);
	assert_fails(dmacore_map_single(device, bench->buffer, 8, DMACORE_TO_DEVICE, 1 << 30, &dma),
		     EINVAL);
	assert_fails(dmacore_map_single(device, bench->buffer, 8, DMACORE_TO_DEVICE, 0, NULL),
		     EINVAL);
	assert_fails(dmacore_map_phys(device, UINT64_MAX - 3, 8, DMACORE_TO_DEVICE, 0, &dma),
		     EINVAL);
	assert_ok(dmacore_device_set_mask(device, 0, NULL));
	assert_fails(dmacore_map_single(device, bench->buffer, 8, DMACORE_TO_DEVICE, 0, &dma),
		     ENXIO);
	assert_int_equal(numbers(bench->pool).used_count, 0);
}

struct worker {
	pthread_t thread;
	struct bench *bench;
	uint8_t *buffer;
	atomic_bool *stop;
	unsigned index;
	atomic_uint rounds;
	unsigned wrong;
};

/* Maps a few buffers at once and looks that each comes back as the device left it. */
static void *map_and_unmap(void *opaque)
{
	struct worker *worker = opaque;
	struct dmacore_device *device = worker->bench->machine.device;

	while (!atomic_load(worker->stop)) {
		enum { COUNT = 3 };
		dmacore_dma_t dma[COUNT];

		for (unsigned i = 0; i < COUNT; i++) {
			uint64_t size = (worker->rounds + i) % 2 ? PAGE : 300;

			memset(worker->buffer + i * PAGE, (int)(worker->rounds & 63), size);
			if (dmacore_map_single(device, worker->buffer + i * PAGE, size,
					       DMACORE_BIDIRECTIONAL, 0, &dma[i]) != 0) {
				worker->wrong++;
				return NULL;
			}
			for (uint64_t j = 0; j < size; j += 299)
				worker->wrong += at(dma[i])[j] != (worker->rounds & 63);
			memset(at(dma[i]), (int)(64 + 32 * i + worker->index), size);
		}
		for (unsigned i = 0; i < COUNT; i++) {
			uint64_t size = (worker->rounds + i) % 2 ? PAGE : 300;

			worker->wrong +=
				dmacore_unmap(device, dma[i], size, DMACORE_BIDIRECTIONAL, 0) != 0;
			for (uint64_t j = 0; j < size; j += 299)
				worker->wrong +=
					worker->buffer[i * PAGE + j] != 64 + 32 * i + worker->index;
		}
		worker->rounds++;
	}
	return NULL;
}

static void threads__get_their_own_copies_while_pools_come_and_go(void **state)
{
	enum { THREADS = 4 };
	struct bench *bench = *state;
	struct machine *machine = &bench->machine;
	struct worker workers[THREADS];
	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_bounce_pool *other;
	atomic_bool stop = false;
	dmacore_dma_t dma;

	options.size = options.size_max = 64 * PAGE;
	assert_ok(dmacore_bounce_pool_create(machine->system, &options, &other));
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .bench = bench,
					      .buffer = bench->buffer + 3 * i * PAGE,
					      .stop = &stop,
					      .index = i };
		assert_ok(pthread_create(&workers[i].thread, NULL, map_and_unmap, &workers[i]));
	}
	for (unsigned i = 0, slowest = 0; i < 200 || slowest < 20; i++) {
		slowest = workers[0].rounds;
		for (unsigned j = 1; j < THREADS; j++)
			slowest = workers[j].rounds < slowest ? workers[j].rounds : slowest;
		assert_ok(dmacore_system_set_bounce_pool(machine->system,
							 i % 2 ? bench->pool : other));
		assert_true(numbers(other).used_count <= 128);
		assert_ok(dmacore_bounce_pool_reset_high_water(other));
		/* So much is found only when what is at hand is looked at. */
		if (dmacore_map_single(machine->device, bench->buffer, 12 * PAGE, DMACORE_TO_DEVICE,
				       0, &dma) == 0)
			unmap(bench, dma, 12 * PAGE, DMACORE_TO_DEVICE);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++) {
		assert_ok(pthread_join(workers[i].thread, NULL));
		assert_int_equal(workers[i].wrong, 0);
	}
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_int_equal(numbers(other).used_count, 0);
	assert_int_equal(numbers(bench->pool).used_count, 0);
	assert_ok(dmacore_system_set_bounce_pool(machine->system, bench->pool));
	dmacore_bounce_pool_destroy(other);
}

#define test_by(how, function)                                                  \
	{                                                                       \
#function " (" #how ")", function, bench_setup, bench_teardown, \
			(void *)(uintptr_t)(how)                                \
	}

/* By a pool of the system or of the device, and by a mask or because all is. */
#define test_by_all(function)                                                    \
	test_by(0, function), test_by(OWN, function), test_by(FORCED, function), \
		test_by(OWN | FORCED, function), test_by(IDENTITY | OWN, function)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_by_all(map__copies_whatever_was_at_hand_before),
		test_by_all(unmap__copies_back_what_the_device_may_write_alone),
		test_by_all(sync__copies_its_part),
		test_by_all(unmap__ends_a_mapping_once_and_as_it_was_made),
		test_by(FORCED, unmap__of_what_was_unmapped_is_found),
		test_by_all(statistics__count_what_is_at_hand_as_free),
		test_by_all(map__finds_slots_that_are_at_hand_elsewhere),
		test_by_all(mappings__are_listed_and_reported_beyond_a_mask),
		test_by_all(map__keeps_the_bits_of_the_devices_mask),
		test_by_all(set_ranges__has_copies_where_the_bus_has_them),
		test_by(0, unmap__beside_what_is_copied_needs_no_record),
		test_by(IDENTITY, unmap__beside_what_is_copied_needs_no_record),
		test_by(0, set_bounce_pool__leaves_mappings_in_theirs),
		test_by(FORCED, set_bounce_pool__leaves_mappings_in_theirs),
		test_by_all(device_destroy__gives_slots_back_and_copies_nothing),
		test_by(IDENTITY, attach__waits_for_mappings_to_end),
		test_by_all(mapping__of_registers_or_without_syncing_is_refused),
		test_by(ROOMY, threads__get_their_own_copies_while_pools_come_and_go),
		test_by(ROOMY | FORCED, threads__get_their_own_copies_while_pools_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
