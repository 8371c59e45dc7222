/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/machine.h"

/* Coherent pools, noncontiguous memory and declared memory, with every allocation failing in turn. */

static const enum path paths[] = { DIRECT,     TRACKED,	       IDENTITY | TRACKED,
				   TRANSLATED, FLAT | TRACKED, FLAT | TRANSLATED };

#define PATH_COUNT (sizeof(paths) / sizeof(*paths))

static void assert_unchanged(struct machine *machine, const struct snapshot *before)
{
	struct snapshot after = take_snapshot(machine);

	assert_memory_equal(before, &after, sizeof(after));
	assert_no_reports(&machine->reports);
}

static void check_pool(enum path path)
{
	enum { OBJECTS = 40 };
	struct dmacore_coherent_pool_options options = DMACORE_COHERENT_POOL_OPTIONS_INIT;
	unsigned live = oom.live_count;
	static struct machine machine;
	struct dmacore_coherent_pool *pool;
	dmacore_dma_t dma[OBJECTS];
	void *cpu[OBJECTS];
	unsigned long failures;

	machine_start(&machine, path);
	options.size = 1024;
	assert_creates_after_failures(dmacore_coherent_pool_create(machine.device, &options, &pool),
				      pool);
	failures = oom.failures;
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct snapshot before = take_snapshot(&machine);

		dma[i] = UNTOUCHED;
		assert_survives_failures(dmacore_coherent_pool_alloc(pool, &cpu[i], &dma[i]), {
			assert_true(dma[i] == UNTOUCHED);
			assert_int_equal(machine.pool.live, path & FLAT ? 0 : (i + 3) / 4);
			assert_unchanged(&machine, &before);
		});
	}
	assert_true(oom.failures > failures);
	assert_needs_no_memory({
		for (unsigned i = 0; i < OBJECTS; i++)
			assert_ok(dmacore_coherent_pool_free(pool, cpu[i], dma[i]));
		/* Out of the pages that it has. */
		assert_ok(dmacore_coherent_pool_alloc(pool, &cpu[0], &dma[0]));
		assert_ok(dmacore_coherent_pool_free(pool, cpu[0], dma[0]));
		dmacore_coherent_pool_destroy(pool);
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

static void coherent_pool__changes_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PATH_COUNT; i++)
		check_pool(paths[i]);
}

/* Every second page is in use, so that it comes page by page, where it may. */
static void check_noncontiguous(enum path path)
{
	const struct dmacore_memory_segment *segments;
	const uint64_t size = 7 * PAGE;
	unsigned live = oom.live_count;
	static struct machine machine;
	struct snapshot before;
	dmacore_dma_t dma = UNTOUCHED;
	unsigned long failures;
	size_t count = 0;

	machine_start(&machine, path);
	for (unsigned i = 0; path == TRANSLATED && i < 2 * POOL_PAGES; i += 2)
		machine.pool.used[i] = true;
	before = take_snapshot(&machine);
	failures = oom.failures;
	assert_survives_failures(dmacore_alloc_noncontiguous(machine.device, size,
							     DMACORE_BIDIRECTIONAL, 0, &dma,
							     &segments, &count),
				 {
					 assert_true(dma == UNTOUCHED && count == 0);
					 assert_int_equal(machine.pool.live, 0);
					 assert_unchanged(&machine, &before);
				 });
	assert_true(oom.failures > failures);
	assert_int_equal(count, path == TRANSLATED ? 7 : 1);
	assert_needs_no_memory({
		assert_ok(dmacore_sync_for_cpu(machine.device, dma, size, DMACORE_BIDIRECTIONAL));
		assert_ok(dmacore_free_noncontiguous(machine.device, size, dma));
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

static void alloc_noncontiguous__changes_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PATH_COUNT; i++)
		check_noncontiguous(paths[i]);
}

static void check_declared(enum path path)
{
	enum { ALLOCATIONS = 12 };
	unsigned live = oom.live_count;
	static struct machine machine;
	dmacore_dma_t dma[ALLOCATIONS];
	void *cpu[ALLOCATIONS];
	dmacore_phys_t phys;

	machine_start(&machine, path);
	assert_ok(dmacore_memory_host_to_phys(machine.system, machine.low, RAM_SIZE, &phys));
	assert_survives_failures(
		dmacore_declare_coherent_memory(machine.device, phys, RAM_SIZE),
		assert_fails(dmacore_release_coherent_memory(machine.device), ENOENT));
	for (unsigned i = 0; i < ALLOCATIONS; i++) {
		struct snapshot before = take_snapshot(&machine);

		dma[i] = UNTOUCHED;
		assert_survives_failures(
			dmacore_alloc_coherent(machine.device, PAGE, &cpu[i], &dma[i]), {
				assert_true(dma[i] == UNTOUCHED);
				assert_unchanged(&machine, &before);
			});
	}
	assert_needs_no_memory({
		for (unsigned i = 0; i < ALLOCATIONS; i++)
			assert_ok(dmacore_free_coherent(machine.device, PAGE, cpu[i], dma[i]));
	});
	/* What failed has let go of it. */
	assert_needs_no_memory({
		assert_ok(dmacore_release_coherent_memory(machine.device));
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

static void declare_coherent_memory__changes_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PATH_COUNT; i++)
		check_declared(paths[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(coherent_pool__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(alloc_noncontiguous__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(declare_coherent_memory__changes_nothing_when_an_allocation_fails),
	};

	return run_oom_group("oom_coherent", tests, NULL);
}
