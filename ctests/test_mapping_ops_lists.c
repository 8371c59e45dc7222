/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Lists by mapping functions, which are told where one begins and ends, to do all of it at once. */

#include "support/grants.h"

#include <errno.h>

#define ENTRIES 3

/* Grant tables that take effect when a list ends. */
struct stage {
	struct machine machine;
	struct grants grants;
	/* What was called, a letter each: B and E about mapping, b and e about unmapping. */
	char calls[64];
	size_t call_count;
	int end_result;
	/* Mappings after so many fail. */
	unsigned most;
	struct dmacore_sg list[ENTRIES];
};

static struct stage *stage_of(struct grants *grants)
{
	return (struct stage *)((char *)grants - offsetof(struct stage, grants));
}

static void note(struct stage *stage, char call)
{
	assert_true(stage->call_count < sizeof(stage->calls) - 1);
	stage->calls[stage->call_count++] = call;
	stage->calls[stage->call_count] = 0;
}

static void on_call(struct grants *grants, char what)
{
	struct stage *stage = stage_of(grants);

	note(stage, what);
	if (what == 'm')
		grants->map_result = grants->map_count > stage->most ? -ENOSPC : 0;
}

static void begin_list(struct dmacore_device *device, bool is_mapping, void *opaque)
{
	struct grants *grants = opaque;

	grants->wrong += device != grants->device;
	note(stage_of(grants), is_mapping ? 'B' : 'b');
}

static int end_list(struct dmacore_device *device, bool is_mapping, void *opaque)
{
	struct grants *grants = opaque;

	grants->wrong += device != grants->device;
	note(stage_of(grants), is_mapping ? 'E' : 'e');
	return stage_of(grants)->end_result;
}

/* What has been called since the last time. */
#define assert_called(stage, expected)                         \
	do {                                                   \
		assert_string_equal((stage)->calls, expected); \
		(stage)->call_count = 0;                       \
		(stage)->calls[0] = 0;                         \
	} while (0)

static int stage_setup(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	struct dmacore_device_options options;

	assert_non_null(stage);
	machine_start(&stage->machine, DIRECT);
	grants_start(&stage->grants, &stage->machine);
	stage->grants.ops.begin_list = begin_list;
	stage->grants.ops.end_list = end_list;
	stage->grants.hook = on_call;
	stage->most = UINT32_MAX;
	options = grants_options(&stage->grants);
	grants_use(&stage->grants, options);
	dmacore_sg_init(stage->list, ENTRIES);
	dmacore_sg_set(&stage->list[0], LOW_BASE, PAGE, 0);
	dmacore_sg_set(&stage->list[1], NEXT_BASE + 100, 1000, 0);
	dmacore_sg_set(&stage->list[2], HIGH_BASE, 2 * PAGE, 0);
	*state = stage;
	return 0;
}

static int stage_teardown(void **state)
{
	struct stage *stage = *state;

	machine_stop(&stage->machine);
	grants_stop(&stage->grants);
	free(stage);
	return 0;
}

static int map_list(struct stage *stage, size_t most, size_t *out_count)
{
	return dmacore_map_list(stage->machine.device, stage->list, ENTRIES, DMACORE_BIDIRECTIONAL,
				0, most, out_count);
}

/* Nothing is mapped, and the list is as it was. */
static void assert_restored(struct stage *stage, const struct dmacore_sg *before)
{
	assert_int_equal(device_statistics(stage->machine.device).mapping_count, 0);
	assert_memory_equal(stage->list, before, sizeof(stage->list));
}

static void list__begins_and_ends_around_its_ranges(void **state)
{
	struct stage *stage = *state;
	uint8_t bytes[2] = { 1, 2 };
	size_t count;

	assert_ok(map_list(stage, 0, &count));
	assert_int_equal(count, ENTRIES);
	assert_called(stage, "BmmmE");
	for (unsigned i = 0; i < ENTRIES; i++) {
		uint8_t *memory = memory_at(&stage->machine, stage->list[i].phys);

		assert_ok(dmacore_view_write(stage->machine.view, stage->list[i].dma, bytes, 2));
		assert_memory_equal(memory, bytes, 2);
	}
	assert_ok(dmacore_unmap_list(stage->machine.device, stage->list, ENTRIES,
				     DMACORE_BIDIRECTIONAL, 0));
	assert_called(stage, "buuue");
}

static void transfer__begins_and_ends_likewise(void **state)
{
	const struct dmacore_phys_range ranges[] = {
		{ .phys = LOW_BASE, .size = PAGE },
		{ .phys = HIGH_BASE + 5, .size = 10 },
	};
	struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;
	struct stage *stage = *state;
	struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;

	request.ranges = ranges;
	request.count = 2;
	request.direction = DMACORE_TO_DEVICE;
	assert_ok(dmacore_transfer_map(stage->machine.device, &request, &transfer));
	assert_called(stage, "BmmE");
	assert_ok(dmacore_transfer_unmap(stage->machine.device, &transfer));
	assert_called(stage, "buue");
}

static void single_mapping__is_no_list(void **state)
{
	struct stage *stage = *state;
	dmacore_dma_t dma = map_for(&stage->machine, stage->machine.low, 5, DMACORE_TO_DEVICE);

	assert_ok(dmacore_unmap(stage->machine.device, dma, 5, DMACORE_TO_DEVICE, 0));
	assert_called(stage, "mu");
}

static void end_that_fails__undoes_the_list(void **state)
{
	struct stage *stage = *state;
	struct dmacore_sg before[ENTRIES];
	size_t count;

	memcpy(before, stage->list, sizeof(before));
	stage->end_result = -EAGAIN;
	assert_fails(map_list(stage, 0, &count), EAGAIN);
	assert_called(stage, "BmmmEuuu");
	assert_restored(stage, before);
	stage->end_result = 1;
	assert_fails(map_list(stage, 0, &count), EIO);
	assert_called(stage, "BmmmEuuu");
	assert_restored(stage, before);
	/* And it may be tried again. What the end of unmapping returns changes nothing. */
	stage->end_result = 0;
	assert_ok(map_list(stage, 0, &count));
	stage->end_result = -EIO;
	assert_ok(dmacore_unmap_list(stage->machine.device, stage->list, ENTRIES,
				     DMACORE_BIDIRECTIONAL, 0));
	assert_called(stage, "BmmmEbuuue");
}

static void list_that_fails__ends_when_it_is_undone(void **state)
{
	struct stage *stage = *state;
	struct dmacore_sg before[ENTRIES];
	size_t count;

	memcpy(before, stage->list, sizeof(before));
	stage->most = 2;
	stage->end_result = -EAGAIN;
	assert_fails(map_list(stage, 0, &count), ENOSPC);
	assert_called(stage, "BmmmuuE");
	assert_restored(stage, before);
	/* More segments than the caller wants. */
	stage->most = UINT32_MAX;
	assert_fails(map_list(stage, 2, &count), E2BIG);
	assert_called(stage, "BmmmuuuE");
	assert_restored(stage, before);
}

static void list_of_which_nothing_is_mapped__does_not_begin(void **state)
{
	struct stage *stage = *state;
	size_t count;

	assert_fails(dmacore_map_list(stage->machine.device, stage->list, ENTRIES, 7, 0, 0, &count),
		     EINVAL);
	assert_ok(dmacore_device_set_streaming_mask(stage->machine.device, 0, NULL));
	assert_fails(map_list(stage, 0, &count), ENXIO);
	/* One that was never mapped. */
	stage->list[0].dma = GRANT_BASE;
	stage->list[0].dma_size = 5;
	stage->list[0].path = DMACORE_PATH_OPS;
	assert_misuse(&stage->machine, dmacore_unmap_list(stage->machine.device, stage->list,
							  ENTRIES, DMACORE_TO_DEVICE, 0));
	assert_called(stage, "");
}

static void part_of_a_list__may_bypass_them(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device_options options = grants_options(&stage->grants);
	size_t count;

	stage->grants.ops.flags = DMACORE_OPS_BYPASS;
	stage->grants.window_mask = 0;
	stage->grants.window_offset = 0;
	stage->grants.window_limit = DMACORE_BIT_MASK(32);
	grants_use(&stage->grants, options);
	assert_called(stage, "");
	assert_ok(map_list(stage, 0, &count));
	assert_called(stage, "BmE");
	assert_int_equal(stage->list[0].path, DMACORE_PATH_DIRECT);
	assert_int_equal(stage->list[2].path, DMACORE_PATH_OPS);
	assert_ok(dmacore_unmap_list(stage->machine.device, stage->list, ENTRIES,
				     DMACORE_BIDIRECTIONAL, 0));
	assert_called(stage, "bue");
}

static void device_create__wants_both_or_neither(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device_options options = grants_options(&stage->grants);
	struct dmacore_mapping_ops alone = DMACORE_MAPPING_OPS_INIT;
	struct dmacore_device *device;

	stage->grants.ops.end_list = NULL;
	assert_fails(dmacore_device_create(stage->machine.system, &options, &device), EINVAL);
	stage->grants.ops.end_list = end_list;
	stage->grants.ops.begin_list = NULL;
	assert_fails(dmacore_device_create(stage->machine.system, &options, &device), EINVAL);
	alone.begin_list = begin_list;
	alone.end_list = end_list;
	options.mapping_ops = &alone;
	assert_fails(dmacore_device_create(stage->machine.system, &options, &device), EINVAL);
}

#define test_of(function) cmocka_unit_test_setup_teardown(function, stage_setup, stage_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_of(list__begins_and_ends_around_its_ranges),
		test_of(transfer__begins_and_ends_likewise),
		test_of(single_mapping__is_no_list),
		test_of(end_that_fails__undoes_the_list),
		test_of(list_that_fails__ends_when_it_is_undone),
		test_of(list_of_which_nothing_is_mapped__does_not_begin),
		test_of(part_of_a_list__may_bypass_them),
		test_of(device_create__wants_both_or_neither),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
