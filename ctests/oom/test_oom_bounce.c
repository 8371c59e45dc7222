/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/machine.h"

static void pool_create__unwinds_every_failed_allocation(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	struct dmacore_bounce_pool *pool;
	enum path paths[] = { DIRECT, FLAT };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;

		options.size = 4 * PAGE;
		machine_start(&machine, paths[i]);
		assert_creates_after_failures(
			dmacore_bounce_pool_create(machine.system, &options, &pool), pool);
		assert_needs_no_memory({
			assert_ok(dmacore_system_set_bounce_pool(machine.system, pool));
			assert_ok(dmacore_system_set_bounce_pool(machine.system, NULL));
			dmacore_bounce_pool_destroy(pool);
			machine_stop(&machine);
		});
	}
	assert_int_equal(oom.live_count, live);
}

/* Maps so much that the pool grows again and again, with every allocation failing in turn. */
static void check_map(enum path path, uint32_t flags)
{
	enum { COUNT = 20 };
	unsigned live = oom.live_count;
	static struct machine machine;
	struct dmacore_bounce_pool_options pool_options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };
	struct dmacore_device_options options;
	struct dmacore_bounce_pool *pool;
	dmacore_dma_t dma[COUNT];
	unsigned long failures;

	machine_start(&machine, path);
	options = device_options(&machine);
	dmacore_view_destroy(machine.view);
	dmacore_device_destroy(machine.device);
	pool_options.size = PAGE;
	pool_options.size_max = 3 * COUNT * PAGE;
	assert_ok(dmacore_bounce_pool_create(machine.system, &pool_options, &pool));
	options.flags |= flags;
	options.bounce_pool = pool;
	assert_ok(dmacore_device_create(machine.system, &options, &machine.device));
	if (machine.domain)
		assert_ok(dmacore_domain_attach(machine.domain, machine.device));
	assert_ok(dmacore_view_create(machine.device, &machine.view));
	failures = oom.failures;
	for (unsigned i = 0; i < COUNT; i++) {
		struct snapshot before = take_snapshot(&machine);

		dma[i] = UNTOUCHED;
		assert_survives_failures(
			dmacore_map_single(machine.device, machine.low + 5, PAGE + i,
					   DMACORE_BIDIRECTIONAL, 0, &dma[i]),
			{
				struct snapshot after = take_snapshot(&machine);

				assert_true(dma[i] == UNTOUCHED);
				assert_memory_equal(&before, &after, sizeof(after));
				assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
				assert_true(i > 0 || statistics.used_count == 0);
			});
	}
	assert_true(oom.failures > failures);
	assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
	assert_true(statistics.chunk_count > COUNT / 2);
	assert_needs_no_memory({
		for (unsigned i = 0; i < COUNT; i++) {
			assert_ok(dmacore_sync_for_cpu(machine.device, dma[i], PAGE,
						       DMACORE_BIDIRECTIONAL));
			assert_ok(dmacore_sync_for_device(machine.device, dma[i], PAGE,
							  DMACORE_BIDIRECTIONAL));
			assert_ok(dmacore_unmap(machine.device, dma[i], PAGE + i,
						DMACORE_BIDIRECTIONAL, 0));
		}
		assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
		assert_int_equal(statistics.used_count, 0);
		dmacore_bounce_pool_destroy(pool);
		reports_forget(&machine.reports);
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

static void map_single__bounced_changes_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	check_map(TRACKED, DMACORE_DEVICE_FORCE_BOUNCE);
	check_map(DIRECT, DMACORE_DEVICE_FORCE_BOUNCE);
	check_map(FLAT | TRACKED, DMACORE_DEVICE_FORCE_BOUNCE);
	check_map(TRANSLATED, DMACORE_DEVICE_UNTRUSTED);
	check_map(FLAT | TRANSLATED, DMACORE_DEVICE_UNTRUSTED);
}

static void map_single__gives_its_slots_back_when_the_tables_run_out(void **state)
{
	static struct machine machine;
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };
	struct dmacore_bounce_pool_options pool_options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_device_options options;
	struct dmacore_bounce_pool *pool;
	dmacore_dma_t dma = UNTOUCHED;

	(void)state;
	machine_start(&machine, TRANSLATED);
	options = device_options(&machine);
	pool_options.size = 8 * PAGE;
	assert_ok(dmacore_bounce_pool_create(machine.system, &pool_options, &pool));
	dmacore_view_destroy(machine.view);
	dmacore_device_destroy(machine.device);
	options.flags |= DMACORE_DEVICE_UNTRUSTED;
	options.bounce_pool = pool;
	assert_ok(dmacore_device_create(machine.system, &options, &machine.device));
	assert_ok(dmacore_domain_attach(machine.domain, machine.device));
	assert_ok(dmacore_view_create(machine.device, &machine.view));
	for (int left = 0;; left++) {
		int error;

		machine.tables.left = left;
		error = dmacore_map_single(machine.device, machine.low + 5, 3 * PAGE,
					   DMACORE_BIDIRECTIONAL, 0, &dma);
		machine.tables.left = -1;
		if (!error)
			break;
		assert_int_equal(error, -ENOMEM);
		assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
		assert_int_equal(statistics.used_count, 0);
		assert_int_equal(domain_statistics(machine.domain).mapping_count, 0);
		assert_int_equal(domain_statistics(machine.domain).mapped_bytes, 0);
	}
	assert_ok(dmacore_unmap(machine.device, dma, 3 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	dmacore_bounce_pool_destroy(pool);
	reports_forget(&machine.reports);
	machine_stop(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pool_create__unwinds_every_failed_allocation),
		cmocka_unit_test(map_single__bounced_changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(map_single__gives_its_slots_back_when_the_tables_run_out),
	};

	return run_oom_group("oom_bounce", tests, NULL);
}
