/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/grants.h"

/* A device with mapping functions, with every allocation failing in turn. */

#define COUNT 20

static void device_create__unwinds_every_failed_allocation(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	static struct grants grants;
	struct dmacore_device_options options;
	struct dmacore_device *device;

	(void)state;
	machine_start(&machine, DIRECT);
	grants_start(&grants, &machine);
	options = grants_options(&grants);
	assert_creates_after_failures(dmacore_device_create(machine.system, &options, &device),
				      device);
	/* Nor when the functions fail. */
	grants.supported_result[1] = -EAGAIN;
	{
		struct dmacore_device *other;

		assert_creates_nothing(dmacore_device_create(machine.system, &options, &other),
				       EAGAIN, other);
	}
	assert_needs_no_memory({
		grants.supported_result[1] = 0;
		assert_ok(dmacore_device_set_mask(device, UINT64_MAX, NULL));
		dmacore_device_destroy(device);
		machine_stop(&machine);
		grants_stop(&grants);
	});
	assert_int_equal(oom.live_count, live);
}

static void check_calls(enum path path, unsigned mask_bits, bool is_allocating)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	static struct grants grants;
	const struct dmacore_memory_segment *segments;
	struct dmacore_device_options options;
	dmacore_dma_t dma[COUNT], queue[4], frame = UNTOUCHED;
	unsigned long failures;
	size_t count;
	void *cpu[4];

	machine_start(&machine, path);
	grants_start(&grants, &machine);
	if (is_allocating) {
		grants.ops.alloc = grants_alloc;
		grants.ops.free = grants_free;
	}
	options = grants_options(&grants);
	options.streaming_mask = options.coherent_mask = DMACORE_BIT_MASK(mask_bits);
	grants_use(&grants, options);
	failures = oom.failures;
#define check_survives(call, output)                                         \
	do {                                                                 \
		struct snapshot before = take_snapshot(&machine);            \
		unsigned granted = grants_live(&grants);                     \
		unsigned from_pool = machine.pool.live;                      \
                                                                             \
		(output) = UNTOUCHED;                                        \
		assert_survives_failures(call, {                             \
			struct snapshot after = take_snapshot(&machine);     \
                                                                             \
			assert_true((output) == UNTOUCHED);                  \
			assert_memory_equal(&before, &after, sizeof(after)); \
			assert_int_equal(grants_live(&grants), granted);     \
			assert_int_equal(machine.pool.live, from_pool);      \
		});                                                          \
	} while (0)
	for (unsigned i = 0; i < COUNT; i++)
		check_survives(dmacore_map_single(machine.device, machine.low + i, 100,
						  DMACORE_BIDIRECTIONAL, 0, &dma[i]),
			       dma[i]);
	for (unsigned i = 0; i < 4; i++)
		check_survives(dmacore_alloc_coherent(machine.device, PAGE, &cpu[i], &queue[i]),
			       queue[i]);
	check_survives(dmacore_alloc_noncontiguous(machine.device, 3 * PAGE, DMACORE_TO_DEVICE, 0,
						   &frame, &segments, &count),
		       frame);
#undef check_survives
	assert_true(oom.failures > failures);
	assert_needs_no_memory({
		for (unsigned i = 0; i < COUNT; i++) {
			assert_ok(dmacore_sync_for_cpu(machine.device, dma[i], 10,
						       DMACORE_BIDIRECTIONAL));
			assert_ok(dmacore_unmap(machine.device, dma[i], 100, DMACORE_BIDIRECTIONAL,
						0));
		}
		for (unsigned i = 0; i < 3; i++)
			assert_ok(dmacore_free_coherent(machine.device, PAGE, cpu[i], queue[i]));
		assert_ok(dmacore_free_noncontiguous(machine.device, 3 * PAGE, frame));
		/* One is left for the device's end. */
		dmacore_view_destroy(machine.view);
		dmacore_device_destroy(machine.device);
		machine.view = NULL;
		machine.device = NULL;
		assert_reported(&machine, DMACORE_REPORT_WARNING);
		machine_stop(&machine);
		grants_stop(&grants);
	});
	assert_int_equal(oom.live_count, live);
}

static void calls__change_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	for (unsigned bits = 32; bits <= 64; bits += 32) {
		check_calls(DIRECT, bits, false);
		check_calls(DIRECT, bits, true);
		check_calls(FLAT, bits, false);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_create__unwinds_every_failed_allocation),
		cmocka_unit_test(calls__change_nothing_when_an_allocation_fails),
	};

	return run_oom_group("oom_mapping_ops", tests, NULL);
}
