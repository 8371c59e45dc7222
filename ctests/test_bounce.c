/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Bounce pools, and mappings that are copied to them. */

#include "support/machine.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE

#define SLOT UINT64_C(2048)
#define POOL_SIZE (POOL_PAGES * PAGE)
#define LOW_MASK DMACORE_BIT_MASK(32)

static struct dmacore_bounce_pool *make_pool(struct machine *machine, uint64_t size,
					     uint64_t size_max)
{
	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_bounce_pool *pool;

	options.size = size;
	options.size_max = size_max;
	options.limit = machine->path & FLAT ? 0 : LOW_MASK;
	assert_ok(dmacore_bounce_pool_create(machine->system, &options, &pool));
	return pool;
}

/* A pool of the system, which alone holds on to it. */
static void use_pool(struct machine *machine, uint64_t size, uint64_t size_max)
{
	struct dmacore_bounce_pool *pool = make_pool(machine, size, size_max);

	assert_ok(dmacore_system_set_bounce_pool(machine->system, pool));
	dmacore_bounce_pool_destroy(pool);
	assert_reported(machine, DMACORE_REPORT_WARNING);
}

static struct dmacore_bounce_pool_statistics pool_statistics(struct dmacore_bounce_pool *pool)
{
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
	return statistics;
}

/* Replaces the machine's device and its view. */
static void use_device(struct machine *machine, const struct dmacore_device_options *options)
{
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	assert_ok(dmacore_device_create(machine->system, options, &machine->device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

/* A device that does not reach the high memory. */
static void use_narrow(struct machine *machine, uint32_t flags, struct dmacore_bounce_pool *pool)
{
	struct dmacore_device_options options = device_options(machine);

	options.flags |= flags;
	options.streaming_mask =
		machine->path & (FLAT | TRANSLATED) ? DMACORE_BIT_MASK(64) : LOW_MASK;
	options.bounce_pool = pool;
	use_device(machine, &options);
}

static void unmap(struct machine *machine, dmacore_dma_t dma, uint64_t size, uint32_t direction)
{
	assert_ok(dmacore_unmap(machine->device, dma, size, direction, 0));
}

static bool is_in_pool(dmacore_dma_t dma, uint64_t size)
{
	return dma >= POOL_LOW_BASE && dma + size <= POOL_LOW_BASE + POOL_SIZE;
}

#define assert_bytes(bytes, value, size)                                         \
	do {                                                                     \
		for (size_t i_ = 0; i_ < (size); i_++)                           \
			assert_int_equal(((const uint8_t *)(bytes))[i_], value); \
	} while (0)

/* Pools. */

static void pool_create__gets_its_memory_and_gives_it_back(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool = make_pool(machine, 4 * PAGE, 4 * PAGE);
	struct dmacore_bounce_pool_statistics statistics = pool_statistics(pool);

	assert_int_equal(machine->pool.live, 1);
	assert_int_equal(machine->pool.size, 4 * PAGE);
	assert_true(machine->pool.limit == LOW_MASK);
	assert_int_equal(statistics.slot_count, 8);
	assert_int_equal(statistics.chunk_count, 1);
	assert_int_equal(statistics.used_count, 0);
	assert_int_equal(statistics.used_count_max, 0);
	assert_int_equal(statistics.full_count, 0);
	assert_int_equal(statistics.copied_to_pool, 0);
	assert_int_equal(statistics.copied_from_pool, 0);
	dmacore_bounce_pool_destroy(pool);
	assert_int_equal(machine->pool.live, 0);
	dmacore_bounce_pool_destroy(NULL);
}

static void pool_create__has_defaults(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;

	assert_ok(dmacore_bounce_pool_create(machine->system, NULL, &pool));
	assert_int_equal(pool_statistics(pool).slot_count, (1 << 20) / SLOT);
	dmacore_bounce_pool_destroy(pool);
}

static void pool_create__refuses_what_is_wrong(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool_options good = DMACORE_BOUNCE_POOL_OPTIONS_INIT, options;
	struct dmacore_bounce_pool *pool;

#define refuse(member, value, error)                                                         \
	do {                                                                                 \
		options = good;                                                              \
		options.member = (value);                                                    \
		assert_creates_nothing(                                                      \
			dmacore_bounce_pool_create(machine->system, &options, &pool), error, \
			pool);                                                               \
	} while (0)

	good.size = good.size_max = 2 * PAGE;
	assert_creates_nothing(dmacore_bounce_pool_create(NULL, &good, &pool), EINVAL, pool);
	assert_fails(dmacore_bounce_pool_create(machine->system, &good, NULL), EINVAL);
	refuse(flags, 1, EINVAL);
	refuse(reserved, 1, EINVAL);
	refuse(size, PAGE + 1, EINVAL);
	refuse(size_max, 2 * PAGE + SLOT, EINVAL);
	refuse(size, 3 * PAGE, EINVAL);
	refuse(size_max, PAGE, EINVAL);
	refuse(size_max, (UINT64_C(1) << 41) + PAGE, EINVAL);
	refuse(size_max, UINT64_MAX & ~(PAGE - 1), EINVAL);
	assert_int_equal(machine->pool.calls, 0);
	check_struct_size(struct dmacore_bounce_pool_options, good,
			  dmacore_bounce_pool_create(machine->system, options, &pool), pool,
			  dmacore_bounce_pool_destroy);
}

static void pool_create__fails_with_its_memory(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_system *system;
	struct dmacore_bounce_pool *pool;

	options.size = PAGE;
	options.limit = LOW_MASK;
	machine->pool.left = 0;
	assert_creates_nothing(dmacore_bounce_pool_create(machine->system, &options, &pool), ENOMEM,
			       pool);
	machine->pool.left = -1;
	machine->pool.ignores_limit = true;
	assert_creates_nothing(dmacore_bounce_pool_create(machine->system, &options, &pool), ERANGE,
			       pool);
	machine->pool.foreign = machine->arena + RAM_SIZE;
	assert_creates_nothing(dmacore_bounce_pool_create(machine->system, &options, &pool), EFAULT,
			       pool);
	assert_int_equal(machine->pool.live, 0);
	assert_ok(dmacore_system_create(NULL, &system));
	assert_creates_nothing(dmacore_bounce_pool_create(system, &options, &pool), EOPNOTSUPP,
			       pool);
	dmacore_system_destroy(system);
}

static void pool_statistics__follow_the_rule_of_sizes(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool = make_pool(machine, PAGE, 0);
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_fails(dmacore_bounce_pool_statistics(NULL, &statistics), EINVAL);
	assert_fails(dmacore_bounce_pool_statistics(pool, NULL), EINVAL);
	check_statistics_size(struct dmacore_bounce_pool_statistics,
			      dmacore_bounce_pool_statistics(pool, options));
	assert_fails(dmacore_bounce_pool_reset_high_water(NULL), EINVAL);
	dmacore_bounce_pool_destroy(pool);
}

static void pool_statistics__count_slots_and_bytes(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool = make_pool(machine, 8 * PAGE, 8 * PAGE);
	struct dmacore_bounce_pool_statistics statistics;
	dmacore_dma_t first, second;

	use_narrow(machine, 0, pool);
	first = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	second = map_for(machine, machine->high + PAGE, 100, DMACORE_FROM_DEVICE);
	statistics = pool_statistics(pool);
	assert_int_equal(statistics.used_count, 3);
	assert_int_equal(statistics.used_count_max, 3);
	assert_int_equal(statistics.copied_to_pool, PAGE + 100);
	unmap(machine, first, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_sync_for_cpu(machine->device, second + 10, 20, DMACORE_FROM_DEVICE));
	assert_ok(dmacore_sync_for_device(machine->device, second + 10, 30, DMACORE_FROM_DEVICE));
	statistics = pool_statistics(pool);
	assert_int_equal(statistics.used_count, 1);
	assert_int_equal(statistics.used_count_max, 3);
	assert_int_equal(statistics.copied_to_pool, PAGE + 130);
	assert_int_equal(statistics.copied_from_pool, 20);
	assert_ok(dmacore_bounce_pool_reset_high_water(pool));
	assert_int_equal(pool_statistics(pool).used_count_max, 1);
	unmap(machine, second, 100, DMACORE_FROM_DEVICE);
	statistics = pool_statistics(pool);
	assert_int_equal(statistics.used_count, 0);
	assert_int_equal(statistics.used_count_max, 1);
	assert_int_equal(statistics.copied_from_pool, 120);
	assert_int_equal(statistics.full_count, 0);
	dmacore_bounce_pool_destroy(pool);
	assert_reported(machine, DMACORE_REPORT_WARNING);
}

static void pools__are_those_of_their_system(void **state)
{
	struct machine *machine = *state;
	struct dmacore_system_options flat = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_bounce_pool *pool;
	struct dmacore_device *device;
	struct dmacore_system *system;

	flat.flags = DMACORE_SYSTEM_FLAT;
	assert_ok(dmacore_system_create(&flat, &system));
	assert_ok(dmacore_bounce_pool_create(system, NULL, &pool));
	assert_fails(dmacore_system_set_bounce_pool(machine->system, pool), EINVAL);
	assert_fails(dmacore_system_set_bounce_pool(NULL, pool), EINVAL);
	assert_fails(dmacore_system_set_bounce_pool(NULL, NULL), EINVAL);
	options.bounce_pool = pool;
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);
	/* A system's pool does not keep it. */
	assert_ok(dmacore_system_set_bounce_pool(system, pool));
	assert_ok(dmacore_system_set_bounce_pool(system, pool));
	dmacore_bounce_pool_destroy(pool);
	dmacore_system_destroy(system);
}

static void set_bounce_pool__leaves_mappings_in_theirs(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	uint8_t byte;
	dmacore_dma_t dma;

	use_narrow(machine, 0, NULL);
	use_pool(machine, PAGE, PAGE);
	machine->high[5] = 7;
	dma = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_system_set_bounce_pool(machine->system, NULL));
	assert_int_equal(machine->pool.live, 1);
	assert_fails(
		dmacore_map_single(machine->device, machine->high, 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE);
	pool = make_pool(machine, PAGE, PAGE);
	assert_ok(dmacore_system_set_bounce_pool(machine->system, pool));
	assert_ok(dmacore_view_read(machine->view, dma + 5, &byte, 1));
	assert_int_equal(byte, 7);
	byte = 8;
	assert_ok(dmacore_view_write(machine->view, dma + 5, &byte, 1));
	unmap(machine, dma, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(machine->high[5], 8);
	assert_int_equal(machine->pool.live, 1);
	assert_ok(dmacore_system_set_bounce_pool(machine->system, NULL));
	dmacore_bounce_pool_destroy(pool);
}

/* Mapped directly. */

static void map__copies_what_the_device_does_not_reach(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[5000], written[3000];
	dmacore_dma_t dma, other;

	use_narrow(machine, 0, NULL);
	use_pool(machine, 8 * PAGE, 8 * PAGE);
	fill(machine->high, 2 * PAGE, 1);
	dma = map_for(machine, machine->high + 100, 5000, DMACORE_BIDIRECTIONAL);
	assert_true(is_in_pool(dma, 5000));
	assert_int_equal(dma % PAGE, 100);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 5000));
	assert_memory_equal(bytes, machine->high + 100, 5000);
	/* Each side sees its own until it is synced. */
	fill(written, sizeof(written), 2);
	assert_ok(dmacore_view_write(machine->view, dma + 1000, written, 3000));
	assert_memory_equal(machine->high + 100, bytes, 5000);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma + 1500, 700, DMACORE_BIDIRECTIONAL));
	memcpy(bytes + 1500, written + 500, 700);
	assert_memory_equal(machine->high + 100, bytes, 5000);
	machine->high[100 + 4000] ^= 1;
	machine->high[100 + 4001] ^= 1;
	assert_ok(dmacore_sync_for_device(machine->device, dma + 4000, 1, DMACORE_BIDIRECTIONAL));
	/* What is in reach stays where it is. */
	other = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(other, LOW_BASE);
	unmap(machine, other, PAGE, DMACORE_BIDIRECTIONAL);
	unmap(machine, dma, 5000, DMACORE_BIDIRECTIONAL);
	memcpy(bytes + 1000, written, 3000);
	bytes[4000] ^= 1;
	assert_memory_equal(machine->high + 100, bytes, 5000);
}

static void map__keeps_what_the_device_does_not_write(void **state)
{
	struct machine *machine = *state;
	uint8_t before[PAGE], byte = 0x55;
	dmacore_dma_t dma;

	use_narrow(machine, 0, NULL);
	use_pool(machine, PAGE, PAGE);
	fill(machine->high, PAGE, 3);
	memcpy(before, machine->high, PAGE);
	dma = map_for(machine, machine->high, PAGE, DMACORE_FROM_DEVICE);
	assert_ok(dmacore_view_write(machine->view, dma + 77, &byte, 1));
	unmap(machine, dma, PAGE, DMACORE_FROM_DEVICE);
	before[77] = byte;
	assert_memory_equal(machine->high, before, PAGE);
	/* What the processor writes between syncs too. */
	dma = map_for(machine, machine->high, PAGE, DMACORE_FROM_DEVICE);
	machine->high[3] = before[3] = 0x66;
	assert_ok(dmacore_sync_for_device(machine->device, dma, 10, DMACORE_FROM_DEVICE));
	unmap(machine, dma, PAGE, DMACORE_FROM_DEVICE);
	assert_memory_equal(machine->high, before, PAGE);
}

static void unmap__copies_nothing_back_that_the_device_only_reads(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	use_narrow(machine, 0, NULL);
	use_pool(machine, PAGE, PAGE);
	machine->high[0] = 1;
	dma = map_for(machine, machine->high, 10, DMACORE_TO_DEVICE);
	machine->high[0] = 2;
	assert_ok(dmacore_sync_for_cpu(machine->device, dma, 10, DMACORE_TO_DEVICE));
	assert_int_equal(machine->high[0], 2);
	unmap(machine, dma, 10, DMACORE_TO_DEVICE);
	assert_int_equal(machine->high[0], 2);
	/* Nor what the caller syncs by itself. */
	assert_ok(dmacore_map_single(machine->device, machine->high, 10, DMACORE_FROM_DEVICE,
				     DMACORE_ATTR_SKIP_CPU_SYNC, &dma));
	machine->high[0] = 3;
	assert_ok(dmacore_unmap(machine->device, dma, 10, DMACORE_FROM_DEVICE,
				DMACORE_ATTR_SKIP_CPU_SYNC));
	assert_int_equal(machine->high[0], 3);
}

static void map__fails_without_a_pool_in_reach(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	dmacore_dma_t dma = UNTOUCHED;

	use_narrow(machine, 0, NULL);
#define assert_out_of_reach()                                                                    \
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, \
					0, &dma),                                                \
		     ERANGE)
	assert_out_of_reach();
	use_pool(machine, PAGE, 2 * PAGE);
	options.streaming_mask = POOL_LOW_BASE - 1;
	use_device(machine, &options);
	/* It may grow, but not to where there is memory for it. */
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&dma),
		     ENOMEM);
	machine->pool.ignores_limit = true;
	assert_out_of_reach();
	assert_int_equal(machine->pool.live, 1);
	machine->pool.ignores_limit = false;
	use_pool(machine, PAGE, PAGE);
	assert_out_of_reach();
	assert_true(dma == UNTOUCHED);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void map__grows_the_pool_up_to_its_limit(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool = make_pool(machine, 2 * PAGE, 9 * PAGE);
	struct dmacore_bounce_pool_statistics statistics;
	dmacore_dma_t dma[8], more = UNTOUCHED;

	use_narrow(machine, 0, pool);
	dma[0] = map_for(machine, machine->high, 5 * PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(pool_statistics(pool).slot_count, 14);
	for (unsigned i = 1; i < 5; i++)
		dma[i] = map_for(machine, machine->high + i * PAGE, PAGE, DMACORE_TO_DEVICE);
	statistics = pool_statistics(pool);
	assert_int_equal(statistics.slot_count, 18);
	assert_int_equal(statistics.chunk_count, 3);
	assert_int_equal(statistics.used_count, 18);
	assert_fails(
		dmacore_map_single(machine->device, machine->high, 1, DMACORE_TO_DEVICE, 0, &more),
		ENOSPC);
	assert_true(more == UNTOUCHED);
	statistics = pool_statistics(pool);
	assert_int_equal(statistics.used_count, 18);
	assert_int_equal(statistics.full_count, 1);
	unmap(machine, dma[0], 5 * PAGE, DMACORE_TO_DEVICE);
	dma[0] = map_for(machine, machine->high, 5 * PAGE, DMACORE_TO_DEVICE);
	unmap(machine, dma[0], 5 * PAGE, DMACORE_TO_DEVICE);
	for (unsigned i = 1; i < 5; i++)
		unmap(machine, dma[i], PAGE, DMACORE_TO_DEVICE);
	/* Larger than it can get. */
	assert_fails(dmacore_map_single(machine->device, machine->high, 10 * PAGE,
					DMACORE_TO_DEVICE, 0, &more),
		     ENOSPC);
	assert_fails(dmacore_map_phys(machine->device, 0, UINT64_MAX, DMACORE_TO_DEVICE, 0, &more),
		     ENOSPC);
	assert_int_equal(pool_statistics(pool).used_count, 0);
	dmacore_bounce_pool_destroy(pool);
	assert_reported(machine, DMACORE_REPORT_WARNING);
}

static void map__uses_the_devices_own_pool_alone(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool = make_pool(machine, PAGE, PAGE);
	dmacore_dma_t dma, more;

	use_pool(machine, PAGE, PAGE);
	use_narrow(machine, 0, pool);
	dma = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(pool_statistics(pool).used_count, 2);
	assert_fails(
		dmacore_map_single(machine->device, machine->high, 1, DMACORE_TO_DEVICE, 0, &more),
		ENOSPC);
	unmap(machine, dma, PAGE, DMACORE_TO_DEVICE);
	dmacore_bounce_pool_destroy(pool);
	assert_reported(machine, DMACORE_REPORT_WARNING);
}

static void map__never_copies_registers_or_what_must_not_be_synced(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	use_narrow(machine, DMACORE_DEVICE_FORCE_BOUNCE, NULL);
	use_pool(machine, PAGE, PAGE);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t phys = i ? HIGH_BASE : LOW_BASE;

		assert_fails(
			dmacore_map_resource(machine->device, phys, 1, DMACORE_TO_DEVICE, 0, &dma),
			ERANGE);
		assert_fails(dmacore_map_phys(machine->device, phys, 1, DMACORE_TO_DEVICE,
					      DMACORE_ATTR_REQUIRE_COHERENT, &dma),
			     EOPNOTSUPP);
	}
	use_narrow(machine, 0, NULL);
	assert_ok(dmacore_map_resource(machine->device, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, LOW_BASE);
	assert_ok(dmacore_unmap(machine->device, dma, 1, DMACORE_TO_DEVICE, DMACORE_ATTR_MMIO));
}

static void map__forced_to_bounce_copies_what_is_in_reach(void **state)
{
	struct machine *machine = *state;
	uint8_t byte = 9;
	dmacore_dma_t dma;

	use_narrow(machine, DMACORE_DEVICE_FORCE_BOUNCE, NULL);
	assert_fails(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE);
	use_pool(machine, PAGE, PAGE);
	dma = map_for(machine, machine->low, PAGE, DMACORE_FROM_DEVICE);
	assert_true(is_in_pool(dma, PAGE));
	assert_ok(dmacore_view_write(machine->view, dma, &byte, 1));
	assert_int_equal(machine->low[0], 0);
	unmap(machine, dma, PAGE, DMACORE_FROM_DEVICE);
	assert_int_equal(machine->low[0], 9);
}

static void map__coherent_memory_is_never_copied(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	use_narrow(machine, DMACORE_DEVICE_FORCE_BOUNCE, NULL);
	use_pool(machine, PAGE, PAGE);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	memset(cpu, 3, PAGE);
	for (unsigned i = 0; i < PAGE; i += 64) {
		uint8_t byte;

		assert_ok(dmacore_view_read(machine->view, dma + i, &byte, 1));
		assert_int_equal(byte, 3);
	}
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
}

static void map__keeps_the_bits_of_the_devices_mask(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	static const uint64_t masks[] = { 0, 63, 2047, 4095, 8191, 65535 };
	static const uint64_t offsets[] = { 0, 1, 63, 2049, 4095, 5 * PAGE + 17 };

	use_narrow(machine, 0, NULL);
	use_pool(machine, 32 * PAGE, 32 * PAGE);
	for (unsigned i = 0; i < sizeof(masks) / sizeof(*masks); i++) {
		limits.min_align_mask = masks[i];
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		for (unsigned j = 0; j < sizeof(offsets) / sizeof(*offsets); j++) {
			for (uint64_t size = 1; size < 3 * PAGE; size = size * 5 + 1) {
				dmacore_dma_t dma = map_for(machine, machine->high + offsets[j],
							    size, DMACORE_TO_DEVICE);
				uint64_t kept = masks[i] | (size >= PAGE ? PAGE - 1 : 0);

				assert_true(((dma ^ (HIGH_BASE + offsets[j])) & kept) == 0);
				unmap(machine, dma, size, DMACORE_TO_DEVICE);
			}
		}
	}
}

static void map__crosses_no_boundary_of_the_device(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	dmacore_dma_t dma[8];

	use_narrow(machine, 0, NULL);
	use_pool(machine, 16 * PAGE, 16 * PAGE);
	limits.segment_boundary_mask = 2 * PAGE - 1;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	for (unsigned i = 0; i < 5; i++) {
		dma[i] = map_for(machine, machine->high, 3 * SLOT, DMACORE_TO_DEVICE);
		assert_true(dma[i] / (2 * PAGE) == (dma[i] + 3 * SLOT - 1) / (2 * PAGE));
	}
	for (unsigned i = 0; i < 5; i++)
		unmap(machine, dma[i], 3 * SLOT, DMACORE_TO_DEVICE);
}

/* A copy that has to keep low bits with which any place crosses a boundary crosses it as its memory does. */
static void map__crosses_a_boundary_where_kept_bits_do(void **state)
{
	const uint64_t boundaries[] = { 1023, PAGE - 1, 2 * PAGE - 1, 4 * PAGE - 1 };
	const uint64_t masks[] = { 0, 511, PAGE - 1, 4 * PAGE - 1 };
	struct machine *machine = *state;

	use_narrow(machine, 0, NULL);
	use_pool(machine, 16 * PAGE, 16 * PAGE);
	for (unsigned i = 0; i < 16; i++) {
		struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
		uint64_t boundary = boundaries[i / 4];

		limits.segment_boundary_mask = boundary;
		limits.min_align_mask = masks[i % 4];
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		for (uint64_t size = 256; size <= 2 * PAGE; size *= 2) {
			for (uint64_t offset = 0; offset < 4 * PAGE; offset += 700) {
				uint64_t kept = masks[i % 4] | (size >= PAGE ? PAGE - 1 : 0);
				uint64_t low = (HIGH_BASE + offset) & kept & boundary;
				dmacore_dma_t dma = map_for(machine, machine->high + offset, size,
							    DMACORE_TO_DEVICE);

				assert_true(((dma ^ (HIGH_BASE + offset)) & kept) == 0);
				if (low + size - 1 <= boundary)
					assert_true((dma & boundary) + size - 1 <= boundary);
				unmap(machine, dma, size, DMACORE_TO_DEVICE);
			}
		}
	}
}

static void map__copies_as_much_as_the_pool_holds(void **state)
{
	struct machine *machine = *state;
	uint64_t size = RAM_SIZE - 10;
	dmacore_dma_t dma;

	use_narrow(machine, 0, NULL);
	use_pool(machine, 17 * PAGE, 17 * PAGE);
	fill(machine->high, RAM_SIZE, 9);
	dma = map_for(machine, machine->high + 5, size, DMACORE_BIDIRECTIONAL);
	memcpy(machine->low, machine->high, RAM_SIZE);
	memset(machine->high, 0, RAM_SIZE);
	unmap(machine, dma, size, DMACORE_BIDIRECTIONAL);
	assert_memory_equal(machine->high + 5, machine->low + 5, size);
	assert_bytes(machine->high, 0, 5);
	assert_bytes(machine->high + RAM_SIZE - 5, 0, 5);
}

static void unmap__finds_misuse_of_what_is_copied(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	dmacore_dma_t dma;

	use_narrow(machine, 0, NULL);
	device = machine->device;
	use_pool(machine, 2 * PAGE, 2 * PAGE);
	dma = map_for(machine, machine->high, PAGE, DMACORE_FROM_DEVICE);
	assert_misuse(machine, dmacore_unmap(device, dma, PAGE - 1, DMACORE_FROM_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(device, dma + 1, PAGE - 1, DMACORE_FROM_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(device, dma, PAGE, DMACORE_FROM_DEVICE,
					     DMACORE_ATTR_SKIP_CPU_SYNC));
	assert_misuse(machine, dmacore_sync_for_cpu(device, dma, PAGE + 1, DMACORE_FROM_DEVICE));
	assert_misuse(machine, dmacore_sync_for_device(device, dma, PAGE, DMACORE_TO_DEVICE));
	assert_true(dmacore_need_sync(device, dma + 1));
	assert_true(dmacore_need_unmap(device));
	unmap(machine, dma, PAGE, DMACORE_FROM_DEVICE);
	assert_false(dmacore_need_sync(device, dma + 1));
	assert_int_equal(dmacore_need_unmap(device), machine->path & TRACKED ? true : false);
}

static void unmap__beside_what_is_copied_needs_no_record(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t copied, direct;

	use_narrow(machine, 0, NULL);
	use_pool(machine, 2 * PAGE, 2 * PAGE);
	copied = map_for(machine, machine->high, PAGE, DMACORE_FROM_DEVICE);
	direct = map_for(machine, machine->low, PAGE, DMACORE_FROM_DEVICE);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	assert_ok(dmacore_sync_for_cpu(machine->device, direct, 1, DMACORE_FROM_DEVICE));
	unmap(machine, direct, PAGE, DMACORE_FROM_DEVICE);
	unmap(machine, copied, PAGE, DMACORE_FROM_DEVICE);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void device_destroy__gives_slots_back_and_copies_nothing(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool = make_pool(machine, PAGE, PAGE);
	uint8_t byte = 1;
	dmacore_dma_t dma;

	use_narrow(machine, 0, pool);
	dma = map_for(machine, machine->high, PAGE, DMACORE_FROM_DEVICE);
	assert_ok(dmacore_view_write(machine->view, dma, &byte, 1));
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_int_equal(machine->high[0], 0);
	assert_int_equal(pool_statistics(pool).used_count, 0);
	dmacore_bounce_pool_destroy(pool);
}

static void unmap__leaves_memory_alone_that_is_gone(void **state)
{
	struct machine *machine = *state;
	uint8_t byte = 1;
	dmacore_dma_t dma, none;

	use_narrow(machine, 0, NULL);
	use_pool(machine, 4 * PAGE, 4 * PAGE);
	memset(machine->high, 5, PAGE);
	/* Half of it is not there to begin with, and reads as zeroes. */
	assert_ok(dmacore_map_phys(machine->device, HIGH_BASE - PAGE, 2 * PAGE,
				   DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_ok(dmacore_view_read(machine->view, dma + PAGE - 1, &byte, 1));
	assert_int_equal(byte, 0);
	assert_ok(dmacore_view_read(machine->view, dma + PAGE, &byte, 1));
	assert_int_equal(byte, 5);
	byte = 6;
	assert_ok(dmacore_view_write(machine->view, dma + PAGE, &byte, 1));
	assert_ok(dmacore_view_write(machine->view, dma, &byte, 1));
	assert_ok(dmacore_memory_remove(machine->system, HIGH_BASE, RAM_SIZE));
	assert_ok(dmacore_sync_for_cpu(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_device(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_view_read(machine->view, dma + PAGE + 1, &byte, 1));
	assert_int_equal(byte, 0);
	unmap(machine, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(machine->high[0], 5);
	assert_ok(dmacore_map_phys(machine->device, HIGH_BASE, PAGE, DMACORE_TO_DEVICE, 0, &none));
	unmap(machine, none, PAGE, DMACORE_TO_DEVICE);
	/* What may not be written is read alone. */
	add_host_region(machine->system, HIGH_BASE, RAM_SIZE, machine->high,
			DMACORE_MEMORY_READ_ONLY);
	dma = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_read(machine->view, dma, &byte, 1));
	assert_int_equal(byte, 5);
	byte = 6;
	assert_ok(dmacore_view_write(machine->view, dma, &byte, 1));
	unmap(machine, dma, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(machine->high[0], 5);
}

struct registers {
	uint8_t bytes[2 * PAGE];
	int error;
};

static int registers_read(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	struct registers *registers = opaque;

	memcpy(buffer, registers->bytes + offset, size);
	return registers->error;
}

static int registers_write(uint64_t offset, const void *buffer, size_t size, void *opaque)
{
	struct registers *registers = opaque;

	memcpy(registers->bytes + offset, buffer, size);
	return registers->error;
}

static void map__copies_what_callbacks_serve(void **state)
{
	struct machine *machine = *state;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	static struct registers registers;
	uint64_t base = HIGH_BASE + RAM_SIZE, size = 2 * PAGE;
	uint8_t bytes[4 * PAGE], byte = 0x77;
	dmacore_dma_t dma;

	registers.error = 0;
	fill(registers.bytes, size, 4);
	fill(machine->high, RAM_SIZE, 5);
	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.base = base;
	region.size = size;
	region.read = registers_read;
	region.write = registers_write;
	region.opaque = &registers;
	assert_ok(dmacore_memory_add(machine->system, &region));
	use_narrow(machine, 0, NULL);
	use_pool(machine, 8 * PAGE, 8 * PAGE);
	/* From the memory before it, and past its end. */
	assert_ok(dmacore_map_phys(machine->device, base - PAGE, 4 * PAGE, DMACORE_BIDIRECTIONAL, 0,
				   &dma));
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 4 * PAGE));
	assert_memory_equal(bytes, machine->high + RAM_SIZE - PAGE, PAGE);
	assert_memory_equal(bytes + PAGE, registers.bytes, size);
	assert_bytes(bytes + 3 * PAGE, 0, PAGE);
	assert_ok(dmacore_view_write(machine->view, dma + PAGE + 3, &byte, 1));
	assert_ok(dmacore_sync_for_cpu(machine->device, dma + PAGE + 3, 1, DMACORE_BIDIRECTIONAL));
	assert_int_equal(registers.bytes[3], 0x77);
	registers.error = -EIO;
	assert_fails(dmacore_sync_for_cpu(machine->device, dma + PAGE, 1, DMACORE_BIDIRECTIONAL),
		     EIO);
	assert_fails(dmacore_sync_for_device(machine->device, dma + PAGE, 1, DMACORE_BIDIRECTIONAL),
		     EIO);
	unmap(machine, dma, 4 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_fails(dmacore_map_phys(machine->device, base, 1, DMACORE_TO_DEVICE, 0, &dma), EIO);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	/* With nothing lost. */
	registers.error = 0;
	assert_ok(
		dmacore_map_phys(machine->device, HIGH_BASE, 8 * PAGE, DMACORE_TO_DEVICE, 0, &dma));
	unmap(machine, dma, 8 * PAGE, DMACORE_TO_DEVICE);
}

static void map__copies_to_where_the_devices_bus_has_memory(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	const struct dmacore_dma_range range = { 0x4000, POOL_LOW_BASE, POOL_SIZE };
	uint8_t bytes[PAGE];
	dmacore_dma_t dma;

	options.ranges = &range;
	options.range_count = 1;
	options.streaming_mask = LOW_MASK;
	use_device(machine, &options);
	use_pool(machine, 4 * PAGE, 4 * PAGE);
	fill(machine->low, PAGE, 8);
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_true(dma >= 0x4000 && dma + PAGE <= 0x4000 + POOL_SIZE && dma % PAGE == 0);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, PAGE));
	assert_memory_equal(bytes, machine->low, PAGE);
	unmap(machine, dma, PAGE, DMACORE_TO_DEVICE);
}

static void map__copies_on_a_flat_system(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[5000];
	dmacore_dma_t dma;

	use_narrow(machine, DMACORE_DEVICE_FORCE_BOUNCE, NULL);
	use_pool(machine, 4 * PAGE, 4 * PAGE);
	fill(machine->low, 2 * PAGE, 8);
	dma = map_for(machine, machine->low + 9, 5000, DMACORE_BIDIRECTIONAL);
	assert_true(dma != (uintptr_t)machine->low + 9);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 5000));
	assert_memory_equal(bytes, machine->low + 9, 5000);
	memset(bytes, 1, 5000);
	assert_ok(dmacore_view_write(machine->view, dma, bytes, 5000));
	unmap(machine, dma, 5000, DMACORE_BIDIRECTIONAL);
	assert_memory_equal(bytes, machine->low + 9, 5000);
}

/* Through an IOMMU. */

static void map__hides_the_neighbours_of_a_buffer(void **state)
{
	struct machine *machine = *state;
	static const struct {
		uint64_t offset;
		uint64_t size;
	} buffers[] = { { 0, PAGE },	     { 100, 200 },	   { 0, 10 },
			{ PAGE - 10, 10 },   { PAGE - 10, 20 },	   { 10, 2 * PAGE - 10 },
			{ 0, 2 * PAGE - 1 }, { 7, 3 * PAGE + 20 }, { 1, 5 * PAGE - 2 },
			{ PAGE, 3 * PAGE } };
	uint8_t bytes[6 * PAGE];

	use_narrow(machine, DMACORE_DEVICE_UNTRUSTED, NULL);
	use_pool(machine, 2 * PAGE, 2 * PAGE);
	for (unsigned i = 0; i < sizeof(buffers) / sizeof(*buffers); i++) {
		uint64_t offset = buffers[i].offset, size = buffers[i].size;
		uint64_t first = offset & ~(PAGE - 1);
		uint64_t end = (offset + size + PAGE - 1) & ~(PAGE - 1);
		uint8_t *buffer = machine->low + offset;
		dmacore_dma_t dma, pages;

		fill(machine->low, RAM_SIZE, i);
		memcpy(machine->next, machine->low, RAM_SIZE);
		dma = map_for(machine, buffer, size, DMACORE_BIDIRECTIONAL);
		assert_int_equal(dma % PAGE, offset % PAGE);
		pages = dma - (offset - first);
		assert_ok(dmacore_view_read(machine->view, pages, bytes, end - first));
		assert_bytes(bytes, 0, offset - first);
		assert_memory_equal(bytes + (offset - first), buffer, size);
		assert_bytes(bytes + (offset - first) + size, 0, end - offset - size);
		/* Whatever the device writes, it writes to the buffer alone. */
		fill(bytes, end - first, 100 + i);
		assert_ok(dmacore_view_write(machine->view, pages, bytes, end - first));
		assert_ok(dmacore_sync_for_cpu(machine->device, dma, size, DMACORE_BIDIRECTIONAL));
		memcpy(machine->next + offset, bytes + (offset - first), size);
		assert_memory_equal(machine->low, machine->next, RAM_SIZE);
		fill(buffer, size, 200 + i);
		assert_ok(
			dmacore_sync_for_device(machine->device, dma, size, DMACORE_BIDIRECTIONAL));
		memcpy(machine->next + offset, buffer, size);
		unmap(machine, dma, size, DMACORE_BIDIRECTIONAL);
		assert_memory_equal(machine->low, machine->next, RAM_SIZE);
	}
}

static void map__bounces_all_of_an_untrusted_device_behind_no_iommu(void **state)
{
	struct machine *machine = *state;
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };
	uint8_t *buffers[] = { machine->low + 5, machine->low + PAGE };
	dmacore_dma_t dma;

	use_narrow(machine, DMACORE_DEVICE_UNTRUSTED, NULL);
	for (unsigned i = 0; i < 2; i++)
		assert_fails(dmacore_map_single(machine->device, buffers[i], PAGE,
						DMACORE_TO_DEVICE, 0, &dma),
			     ERANGE);
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.max_size, 0);
	use_pool(machine, 2 * PAGE, 5 * PAGE);
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.max_size, PAGE + 1);
	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
		dmacore_phys_t phys;

		assert_ok(dmacore_memory_host_to_phys(machine->system, buffers[i], 1, &phys));
		assert_ok(dmacore_device_explain(machine->device, phys, PAGE, DMACORE_STREAMING, 0,
						 &explanation));
		assert_int_equal(explanation.path, DMACORE_PATH_BOUNCED);
		assert_int_equal(explanation.reasons,
				 DMACORE_REASON_NO_IOMMU | DMACORE_REASON_FORCED_BOUNCE);
		fill(buffers[i], PAGE, i);
		dma = map_for(machine, buffers[i], PAGE, DMACORE_TO_DEVICE);
		assert_true(dma != phys);
		if (!(machine->path & FLAT))
			assert_true(is_in_pool(dma, PAGE));
		unmap(machine, dma, PAGE, DMACORE_TO_DEVICE);
	}
}

static void sync__copies_exactly_its_part_of_the_ends(void **state)
{
	struct machine *machine = *state;
	uint64_t size = 3 * PAGE;
	uint8_t bytes[4 * PAGE];
	dmacore_dma_t dma;

	use_narrow(machine, DMACORE_DEVICE_UNTRUSTED, NULL);
	use_pool(machine, 2 * PAGE, 2 * PAGE);
	dma = map_for(machine, machine->low + 100, size, DMACORE_FROM_DEVICE);
	memset(bytes, 1, sizeof(bytes));
	assert_ok(dmacore_view_write(machine->view, dma, bytes, size));
	/* The pages between the ends are the buffer's own. */
	assert_bytes(machine->low, 0, PAGE);
	assert_bytes(machine->low + PAGE, 1, 2 * PAGE);
	assert_bytes(machine->low + 3 * PAGE, 0, PAGE);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma + 50, 10, DMACORE_FROM_DEVICE));
	assert_bytes(machine->low, 0, 150);
	assert_bytes(machine->low + 150, 1, 10);
	assert_bytes(machine->low + 160, 0, PAGE - 160);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma + PAGE, PAGE, DMACORE_FROM_DEVICE));
	assert_ok(dmacore_sync_for_cpu(machine->device, dma + size - 1, 1, DMACORE_FROM_DEVICE));
	assert_bytes(machine->low + 3 * PAGE, 0, 99);
	assert_bytes(machine->low + 3 * PAGE + 99, 1, 1);
	unmap(machine, dma, size, DMACORE_FROM_DEVICE);
	assert_bytes(machine->low, 0, 100);
	assert_bytes(machine->low + 100, 1, size);
	assert_bytes(machine->low + 100 + size, 0, PAGE);
}

static void map__refuses_an_untrusted_device_what_cannot_be_hidden(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_statistics before;
	dmacore_dma_t dma, whole;

	use_narrow(machine, DMACORE_DEVICE_UNTRUSTED, NULL);
	assert_fails(
		dmacore_map_single(machine->device, machine->low, 100, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE);
	whole = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	use_pool(machine, PAGE, PAGE);
	before = domain_statistics(machine->domain);
	assert_fails(dmacore_map_single(machine->device, machine->low + 1, PAGE, DMACORE_TO_DEVICE,
					0, &dma),
		     ENOSPC);
	assert_fails(
		dmacore_map_resource(machine->device, LOW_BASE + 1, 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE);
	assert_fails(dmacore_map_phys(machine->device, LOW_BASE + 1, 1, DMACORE_TO_DEVICE,
				      DMACORE_ATTR_REQUIRE_COHERENT, &dma),
		     EOPNOTSUPP);
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, before.iova_bytes);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, before.mapped_bytes);
	dma = map_for(machine, machine->low + 1, 1, DMACORE_TO_DEVICE);
	unmap(machine, dma, 1, DMACORE_TO_DEVICE);
	unmap(machine, whole, PAGE, DMACORE_TO_DEVICE);
}

static void map__copies_nothing_for_a_device_that_is_trusted(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool = make_pool(machine, PAGE, PAGE);
	dmacore_dma_t dma;

	use_narrow(machine, 0, pool);
	dma = map_for(machine, machine->high + 1, 100, DMACORE_TO_DEVICE);
	assert_int_equal(pool_statistics(pool).used_count, 0);
	unmap(machine, dma, 100, DMACORE_TO_DEVICE);
	use_narrow(machine, DMACORE_DEVICE_FORCE_BOUNCE, pool);
	dma = map_for(machine, machine->high + 1, 100, DMACORE_TO_DEVICE);
	assert_int_equal(pool_statistics(pool).used_count, 2);
	unmap(machine, dma, 100, DMACORE_TO_DEVICE);
	dmacore_bounce_pool_destroy(pool);
	assert_reported(machine, DMACORE_REPORT_WARNING);
}

static void map__keeps_more_bits_than_a_page_has(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	dmacore_dma_t dma, more;

	for (unsigned i = 0; i < 2; i++) {
		use_narrow(machine, i ? DMACORE_DEVICE_UNTRUSTED : 0, NULL);
		if (i)
			use_pool(machine, 2 * PAGE, 2 * PAGE);
		limits.min_align_mask = 65535;
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		for (uint64_t offset = 5; offset < RAM_SIZE - 3 * PAGE; offset += 2 * PAGE + 77) {
			dma = map_for(machine, machine->high + offset, 2 * PAGE, DMACORE_TO_DEVICE);
			assert_true(dma % 65536 == offset % 65536);
			unmap(machine, dma, 2 * PAGE, DMACORE_TO_DEVICE);
		}
	}
	/* All of them, which one mapping can have. */
	limits.min_align_mask = UINT64_MAX;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	dma = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, HIGH_BASE);
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&more),
		     ENOSPC);
	unmap(machine, dma, PAGE, DMACORE_TO_DEVICE);
}

static void unmap__reports_a_zero_copy_mapping_of_a_copy(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;
	dmacore_dma_t dma;

	use_narrow(machine, DMACORE_DEVICE_FORCE_BOUNCE, NULL);
	use_pool(machine, 2 * PAGE, 2 * PAGE);
	dma = map_for(machine, machine->low + 3, 20, DMACORE_FROM_DEVICE);
	assert_ok(dmacore_view_map(machine->view, dma, 20, WRITE, &mapping, &segments, &count));
	assert_int_equal(count, 1);
	memset(segments->host, 4, 20);
	unmap(machine, dma, 20, DMACORE_FROM_DEVICE);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_bytes(machine->low + 3, 4, 20);
	dmacore_view_unmap(mapping);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, pool_create__gets_its_memory_and_gives_it_back),
		test_on(FLAT, pool_create__has_defaults),
		test_on(DIRECT, pool_create__refuses_what_is_wrong),
		test_on(DIRECT, pool_create__fails_with_its_memory),
		test_on(DIRECT, pool_statistics__follow_the_rule_of_sizes),
		test_on(DIRECT, pool_statistics__count_slots_and_bytes),
		test_on(DIRECT, pools__are_those_of_their_system),
		test_on(DIRECT, set_bounce_pool__leaves_mappings_in_theirs),
		test_on(DIRECT, map__bounces_all_of_an_untrusted_device_behind_no_iommu),
		test_on(FLAT, map__bounces_all_of_an_untrusted_device_behind_no_iommu),
		test_on(DIRECT, map__copies_what_the_device_does_not_reach),
		test_on(TRACKED, map__copies_what_the_device_does_not_reach),
		test_on(IDENTITY, map__copies_what_the_device_does_not_reach),
		test_on(TRACKED, map__keeps_what_the_device_does_not_write),
		test_on(DIRECT, unmap__copies_nothing_back_that_the_device_only_reads),
		test_on(DIRECT, map__fails_without_a_pool_in_reach),
		test_on(TRACKED, map__grows_the_pool_up_to_its_limit),
		test_on(DIRECT, map__uses_the_devices_own_pool_alone),
		test_on(DIRECT, map__never_copies_registers_or_what_must_not_be_synced),
		test_on(IDENTITY, map__forced_to_bounce_copies_what_is_in_reach),
		test_on(DIRECT, map__coherent_memory_is_never_copied),
		test_on_translated(map__coherent_memory_is_never_copied),
		test_on(DIRECT, map__keeps_the_bits_of_the_devices_mask),
		test_on(DIRECT, map__crosses_no_boundary_of_the_device),
		test_on(DIRECT, map__crosses_a_boundary_where_kept_bits_do),
		test_on(TRACKED, map__copies_as_much_as_the_pool_holds),
		test_on(DIRECT, unmap__finds_misuse_of_what_is_copied),
		test_on(TRACKED, unmap__finds_misuse_of_what_is_copied),
		test_on(DIRECT, unmap__beside_what_is_copied_needs_no_record),
		test_on(TRACKED, device_destroy__gives_slots_back_and_copies_nothing),
		test_on(TRACKED, unmap__leaves_memory_alone_that_is_gone),
		test_on(TRACKED, map__copies_what_callbacks_serve),
		test_on(TRACKED, map__copies_to_where_the_devices_bus_has_memory),
		test_on(DIRECT, map__copies_to_where_the_devices_bus_has_memory),
		test_on(FLAT | TRACKED, map__copies_on_a_flat_system),
		test_on_translated(map__hides_the_neighbours_of_a_buffer),
		test_on(FLAT | TRANSLATED, map__hides_the_neighbours_of_a_buffer),
		test_on_translated(sync__copies_exactly_its_part_of_the_ends),
		test_on_translated(map__refuses_an_untrusted_device_what_cannot_be_hidden),
		test_on_translated(map__copies_nothing_for_a_device_that_is_trusted),
		test_on_translated(map__keeps_more_bits_than_a_page_has),
		test_on(TRACKED, unmap__reports_a_zero_copy_mapping_of_a_copy),
		test_on_translated(unmap__reports_a_zero_copy_mapping_of_a_copy),
	};

	return run_group("bounce", tests);
}
