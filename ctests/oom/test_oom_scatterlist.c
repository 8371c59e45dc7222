/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/lists.h"

/* More than there is room for without memory, so that the call needs some to work with. */
#define MANY 300

static struct dmacore_sg many[MANY], before[MANY];

/* Maps a list with every allocation failing in turn, and ends it without needing any. */
static void check_list(struct machine *machine, size_t entries, uint64_t stride, uint32_t direction)
{
	struct snapshot left = take_snapshot(machine);
	size_t count = 7;

	dmacore_sg_init(many, entries);
	for (size_t i = 0; i < entries; i++)
		dmacore_sg_set(&many[i], LOW_BASE + 5 + i * stride % RAM_SIZE, 8, 0);
	memcpy(before, many, sizeof(before));
	assert_survives_failures(
		dmacore_map_list(machine->device, many, entries, direction, 0, 0, &count), {
			struct snapshot now = take_snapshot(machine);

			assert_int_equal(count, 7);
			assert_memory_equal(before, many, sizeof(before));
			assert_int_equal(left.device.mapping_count, now.device.mapping_count);
			assert_int_equal(left.domain.mapping_count, now.domain.mapping_count);
			assert_int_equal(left.domain.mapped_bytes, now.domain.mapped_bytes);
		});
	assert_int_equal(count, entries);
	assert_needs_no_memory({
		assert_ok(
			dmacore_sync_list_for_cpu(machine->device, many, entries, 0, 0, direction));
		assert_ok(dmacore_sync_list_for_device(machine->device, many, entries, 1, 9,
						       direction));
		assert_ok(dmacore_unmap_list(machine->device, many, entries, direction, 0));
	});
}

static void map_list__changes_nothing_when_an_allocation_fails(void **state)
{
	const enum path paths[] = { DIRECT, TRACKED, IDENTITY | TRACKED, TRANSLATED };
	unsigned live = oom.live_count;
	static struct machine machine;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		machine_start(&machine, paths[i]);
		check_list(&machine, 3, 3 * PAGE, DMACORE_BIDIRECTIONAL);
		check_list(&machine, MANY, 3 * PAGE + 8, DMACORE_TO_DEVICE);
		check_list(&machine, 20, 9, DMACORE_FROM_DEVICE);
		machine_stop(&machine);
	}
	assert_int_equal(oom.live_count, live);
}

/* All of it, or the pages that a list does not fill. */
static void map_list__gives_copies_back_when_an_allocation_fails(void **state)
{
	const enum path paths[] = { DIRECT, TRANSLATED };
	unsigned live = oom.live_count;
	static struct machine machine;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
		struct dmacore_bounce_pool_statistics statistics = { .struct_size =
									     sizeof(statistics) };
		struct dmacore_device_options device;
		struct dmacore_bounce_pool *pool;

		machine_start(&machine, paths[i]);
		options.size = PAGE;
		options.size_max = 80 * PAGE;
		assert_ok(dmacore_bounce_pool_create(machine.system, &options, &pool));
		device = device_options(&machine);
		device.flags |= i ? DMACORE_DEVICE_UNTRUSTED : DMACORE_DEVICE_FORCE_BOUNCE;
		device.bounce_pool = pool;
		dmacore_view_destroy(machine.view);
		dmacore_device_destroy(machine.device);
		assert_ok(dmacore_device_create(machine.system, &device, &machine.device));
		if (machine.domain)
			assert_ok(dmacore_domain_attach(machine.domain, machine.device));
		assert_ok(dmacore_view_create(machine.device, &machine.view));
		check_list(&machine, 3, 3 * PAGE, DMACORE_BIDIRECTIONAL);
		check_list(&machine, 30, 3 * PAGE + 16, DMACORE_FROM_DEVICE);
		assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
		assert_int_equal(statistics.used_count, 0);
		assert_needs_no_memory({
			dmacore_view_destroy(machine.view);
			dmacore_device_destroy(machine.device);
			machine.view = NULL;
			machine.device = NULL;
			dmacore_bounce_pool_destroy(pool);
			machine_stop(&machine);
		});
	}
	assert_int_equal(oom.live_count, live);
}

/* What a device may map at once needs none, but for what a single mapping needs. */
static void map_list__needs_no_memory_of_its_own(void **state)
{
	static struct machine machine;
	size_t count;

	(void)state;
	machine_start(&machine, DIRECT);
	dmacore_sg_init(many, 32);
	for (size_t i = 0; i < 32; i++)
		dmacore_sg_set(&many[i], LOW_BASE + i * 16, 8, 0);
	/* A record's cells come by the chunk. */
	assert_fails(dmacore_map_list(machine.device, many, 1, 0, 0, 0, &count), EINVAL);
	assert_needs_no_memory({
		assert_ok(dmacore_map_list(machine.device, many, 32, 0, 0, 0, &count));
		assert_ok(dmacore_unmap_list(machine.device, many, 32, 0, 0));
	});
	assert_int_equal(count, 32);
	machine_stop(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_list__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(map_list__gives_copies_back_when_an_allocation_fails),
		cmocka_unit_test(map_list__needs_no_memory_of_its_own),
	};

	return run_oom_group("oom scatterlist", tests, NULL);
}
