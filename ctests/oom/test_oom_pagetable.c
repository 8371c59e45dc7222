/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"
#include "support/tables.h"

static struct dmacore_pagetable_statistics read_statistics(struct dmacore_pagetable *table)
{
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_pagetable_statistics(table, &statistics));
	return statistics;
}

/*
 * Ranges that need tables at every level, some of them many. The last one needs more than the library
 * takes from the heap at once.
 */
static const struct {
	uint64_t iova;
	uint64_t size;
	uint64_t skew;
} ranges[] = {
	{ 0, PAGE, 0 },
	{ GIB - PAGE, 2 * PAGE, 0 },
	{ 512 * GIB - 2 * MIB - PAGE, 4 * MIB + 2 * PAGE, 0 },
	{ 700 * GIB, GIB + PAGE, 0 },
	{ (UINT64_C(1) << 48) - PAGE, PAGE, 0 },
	{ 300 * GIB, GIB, PAGE },
};

#define RANGE_COUNT (sizeof(ranges) / sizeof(*ranges))

/* Maps every range under failures of the library's allocations, or of its caller's hook. */
static void map_all(struct dmacore_pagetable *table, struct table_pool *pool)
{
	for (unsigned i = 0; i < RANGE_COUNT - (pool ? 1 : 0); i++) {
		uint64_t iova = ranges[i].iova, size = ranges[i].size;
		uint64_t phys = iova + ranges[i].skew;
		uint64_t mapped = read_statistics(table).mapped_bytes;
		struct dmacore_translation found;

		for (int left = 0; pool && left < 100; left++) {
			int error;

			pool->left = left;
			error = dmacore_pagetable_map(table, iova, phys, size, DMACORE_ACCESS_READ);
			pool->left = -1;
			if (!error) {
				assert_ok(dmacore_pagetable_unmap(table, iova, size, 0, NULL));
				break;
			}
			assert_int_equal(error, -ENOMEM);
			assert_int_equal(read_statistics(table).mapped_bytes, mapped);
			assert_int_equal(read_statistics(table).table_count, pool->live);
		}
		assert_survives_failures(
			dmacore_pagetable_map(table, iova, phys, size, DMACORE_ACCESS_READ), {
				assert_int_equal(read_statistics(table).mapped_bytes, mapped);
				assert_fails(dmacore_pagetable_translate(table, iova, 0, &found),
					     ENOENT);
				assert_fails(dmacore_pagetable_translate(table, iova + size - 1, 0,
									 &found),
					     ENOENT);
			});
		assert_int_equal(read_statistics(table).mapped_bytes, mapped + size);
	}
}

static void unmap_all(struct dmacore_pagetable *table, unsigned count)
{
	struct dmacore_translation found;

	assert_needs_no_memory({
		for (unsigned i = 0; i < count; i++) {
			uint64_t unmapped = 0;

			assert_ok(dmacore_pagetable_translate(table, ranges[i].iova, 0, &found));
			assert_ok(dmacore_pagetable_unmap(table, ranges[i].iova, ranges[i].size, 0,
							  &unmapped));
			assert_int_equal(unmapped, ranges[i].size);
		}
		assert_ok(dmacore_pagetable_reclaim(table));
		dmacore_pagetable_destroy(table);
	});
}

static void pagetable_create__unwinds_every_failed_allocation(void **state)
{
	struct dmacore_pagetable *table;
	unsigned live = oom.live_count;

	(void)state;
	assert_creates_after_failures(dmacore_pagetable_create(NULL, &table), table);
	assert_needs_no_memory(dmacore_pagetable_destroy(table));
	assert_int_equal(oom.live_count, live);
}

static void pagetable_create__unwinds_with_a_hook(void **state)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;
	unsigned live = oom.live_count;
	struct table_pool pool;

	(void)state;
	table_pool_start(&pool);
	options.allocator = &pool.allocator;
	assert_creates_after_failures(dmacore_pagetable_create(&options, &table), table);
	dmacore_pagetable_destroy(table);
	/* What is the library's own is freed as well when the hook fails. */
	pool.left = 0;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), ENOMEM, table);
	assert_int_equal(oom.live_count, live);
	table_pool_stop(&pool);
}

static void pagetable_map__changes_nothing_when_an_allocation_fails(void **state)
{
	struct dmacore_pagetable *table;
	unsigned live = oom.live_count;
	unsigned long failures;

	(void)state;
	assert_ok(dmacore_pagetable_create(NULL, &table));
	failures = oom.failures;
	map_all(table, NULL);
	assert_true(oom.failures > failures);
	unmap_all(table, RANGE_COUNT);
	assert_int_equal(oom.live_count, live);
}

static void pagetable_map__changes_nothing_when_the_hook_fails(void **state)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;
	unsigned live = oom.live_count;
	struct table_pool pool;

	(void)state;
	table_pool_start(&pool);
	options.allocator = &pool.allocator;
	assert_ok(dmacore_pagetable_create(&options, &table));
	map_all(table, &pool);
	unmap_all(table, RANGE_COUNT - 1);
	table_pool_stop(&pool);
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pagetable_create__unwinds_every_failed_allocation),
		cmocka_unit_test(pagetable_create__unwinds_with_a_hook),
		cmocka_unit_test(pagetable_map__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(pagetable_map__changes_nothing_when_the_hook_fails),
	};

	return run_oom_group("oom pagetable", tests, NULL);
}
