/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Mapping functions of the caller's: what they are asked, what is made of what they say. */

#include "support/grants.h"

#include <errno.h>

struct stage {
	struct machine machine;
	struct grants grants;
};

static void stage_start(struct stage *stage, enum path path)
{
	machine_start(&stage->machine, path);
	grants_start(&stage->grants, &stage->machine);
	grants_use(&stage->grants, grants_options(&stage->grants));
}

static void stage_stop(struct stage *stage)
{
	machine_stop(&stage->machine);
	grants_stop(&stage->grants);
}

static int stage_setup(void **state)
{
	struct stage *stage = malloc(sizeof(*stage));

	assert_non_null(stage);
	stage_start(stage, (enum path)(uintptr_t)*state);
	*state = stage;
	return 0;
}

static int stage_teardown(void **state)
{
	stage_stop(*state);
	free(*state);
	return 0;
}

#define test_with(path, function)                                                \
	{                                                                        \
#function " (" #path ")", function, stage_setup, stage_teardown, \
			(void *)(uintptr_t)(path)                                \
	}

static dmacore_dma_t map_low(struct stage *stage, uint64_t offset, uint64_t size,
			     uint32_t direction)
{
	return map_for(&stage->machine, stage->machine.low + offset, size, direction);
}

static void unmap(struct stage *stage, dmacore_dma_t dma, uint64_t size, uint32_t direction)
{
	assert_ok(dmacore_unmap(stage->machine.device, dma, size, direction, 0));
}

static struct dmacore_explanation explain(struct stage *stage, uint64_t phys, uint64_t size,
					  uint32_t kind, uint32_t attributes)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };

	assert_ok(dmacore_device_explain(stage->machine.device, phys, size, kind, attributes,
					 &explanation));
	return explanation;
}

static void assert_explained(struct stage *stage, uint64_t phys, uint64_t size, uint32_t kind,
			     uint32_t path, uint32_t reasons)
{
	struct dmacore_explanation found = explain(stage, phys, size, kind, 0);

	assert_int_equal(found.path, path);
	assert_int_equal(found.reasons, DMACORE_REASON_OPS | reasons);
	assert_int_equal(found.error, 0);
}

static struct dmacore_mapping_info info_of(struct stage *stage, dmacore_dma_t dma)
{
	struct dmacore_mapping_info info;
	size_t count;

	assert_ok(dmacore_device_list_mappings(stage->machine.device, dma, dma, &info, 1, &count));
	assert_int_equal(count, 1);
	return info;
}

/* The physical address of the machine's first region of memory, wherever that is. */
static uint64_t low_phys(struct stage *stage)
{
	return stage->machine.path & FLAT ? (uintptr_t)stage->machine.low : LOW_BASE;
}

/* That a view moves bytes both ways between an address and memory. */
static void assert_reaches(struct stage *stage, dmacore_dma_t dma, uint8_t *memory, uint64_t size)
{
	uint8_t bytes[64];

	assert_true(size <= sizeof(bytes));
	fill(memory, size, dma);
	assert_ok(dmacore_view_read(stage->machine.view, dma, bytes, size));
	assert_memory_equal(bytes, memory, size);
	fill(bytes, size, dma + 1);
	assert_ok(dmacore_view_write(stage->machine.view, dma, bytes, size));
	assert_memory_equal(bytes, memory, size);
}

static void assert_unreached(struct stage *stage, dmacore_dma_t dma)
{
	uint8_t byte = 0;

	assert_fails(dmacore_view_read(stage->machine.view, dma, &byte, 1), ENOENT);
	assert_faulted(&stage->machine, DMACORE_FAULT_NOT_MAPPED, dma, dma, DMACORE_ACCESS_READ);
}

static void set_masks(struct stage *stage, unsigned streaming, unsigned coherent)
{
	assert_ok(dmacore_device_set_streaming_mask(stage->machine.device,
						    DMACORE_BIT_MASK(streaming), NULL));
	assert_ok(dmacore_device_set_coherent_mask(stage->machine.device,
						   DMACORE_BIT_MASK(coherent), NULL));
}

/* Mapping and undoing */

static void map__goes_by_the_functions(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct grants *grants = &stage->grants;
	struct dmacore_mapping_info info;
	dmacore_dma_t dma;

	for (uint32_t direction = 0; direction < 3; direction++) {
		uint32_t attributes = direction ? DMACORE_ATTR_WEAK_ORDERING : DMACORE_ATTR_MMIO;

		assert_ok(dmacore_map_phys(machine->device, low_phys(stage) + 5, 2 * PAGE,
					   direction, attributes, &dma));
		assert_int_equal(dma, GRANT_BASE + low_phys(stage) % PAGE + 5);
		assert_int_equal(grants->mapped.phys, low_phys(stage) + 5);
		assert_int_equal(grants->mapped.size, 2 * PAGE);
		assert_int_equal(grants->mapped.direction, direction);
		assert_int_equal(grants->mapped.attributes, attributes);
		assert_int_equal(grants->mapped.kind, DMACORE_STREAMING);
		assert_int_equal(grants->mapped.limit, DMACORE_BIT_MASK(32));
		assert_int_equal(grants->mapped.align_mask, PAGE - 1);
		info = info_of(stage, dma + PAGE);
		assert_int_equal(info.path, DMACORE_PATH_OPS);
		assert_int_equal(info.first, dma);
		assert_int_equal(info.last, dma + 2 * PAGE - 1);
		/* With all that it was made with, or not at all. */
		assert_misuse(machine,
			      dmacore_unmap(machine->device, dma, PAGE, direction, attributes));
		assert_misuse(machine, dmacore_unmap(machine->device, dma, 2 * PAGE, direction, 0));
		assert_int_equal(grants->unmap_count, direction);
		assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, direction, attributes));
		assert_int_equal(grants->unmap_count, direction + 1);
		assert_misuse(machine,
			      dmacore_unmap(machine->device, dma, 2 * PAGE, direction, attributes));
		assert_int_equal(grants->unmap_count, direction + 1);
	}
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_int_equal(device_statistics(machine->device).map_total, 3);
	assert_true(dmacore_need_unmap(machine->device));
}

static void map__tells_the_device_s_limits(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	dmacore_dma_t dma;

	limits.min_align_mask = 0xffff;
	assert_ok(dmacore_device_set_limits(stage->machine.device, &limits));
	assert_ok(dmacore_device_set_bus_limit(stage->machine.device, DMACORE_BIT_MASK(24), NULL));
	dma = map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(stage->grants.mapped.limit, DMACORE_BIT_MASK(24));
	assert_int_equal(stage->grants.mapped.align_mask, 0xffff);
	unmap(stage, dma, PAGE, DMACORE_TO_DEVICE);
	/* Which are held against what is said. */
	assert_fails_untouched(dmacore_map_single(stage->machine.device, stage->machine.low + PAGE,
						  PAGE, DMACORE_TO_DEVICE, 0, &dma),
			       EIO, dma);
	assert_reported(&stage->machine, DMACORE_REPORT_ERROR);
	assert_fails_untouched(dmacore_map_single(stage->machine.device, stage->machine.low + PAGE,
						  PAGE, DMACORE_TO_DEVICE, DMACORE_ATTR_NO_WARN,
						  &dma),
			       EIO, dma);
	assert_no_reports(&stage->machine.reports);
}

static void view__reaches_what_is_mapped_alone(void **state)
{
	struct stage *stage = *state;
	struct dmacore_translation translation = { 0 };
	struct dmacore_block block;
	dmacore_dma_t both = map_low(stage, PAGE + 5, 100, DMACORE_BIDIRECTIONAL);
	dmacore_dma_t read = map_low(stage, 3 * PAGE, PAGE, DMACORE_TO_DEVICE);
	uint8_t byte = 1;

	assert_reaches(stage, both, stage->machine.low + PAGE + 5, 50);
	assert_reaches(stage, both + 99, stage->machine.low + PAGE + 104, 1);
	assert_unreached(stage, both - 1);
	assert_unreached(stage, both + 100);
	assert_ok(dmacore_view_translate(stage->machine.view, both + 7, DMACORE_ACCESS_READ,
					 &translation));
	assert_int_equal(translation.first, both);
	assert_int_equal(translation.last, both + 99);
	assert_int_equal(translation.target, low_phys(stage) + PAGE + 5);
	assert_ok(dmacore_view_translate_block(stage->machine.view, read + 7, DMACORE_ACCESS_READ,
					       &block));
	assert_int_equal(block.phys + (read + 7 - block.first), low_phys(stage) + 3 * PAGE + 7);
	assert_ok(dmacore_view_read(stage->machine.view, read, &byte, 1));
	assert_fails(dmacore_view_write(stage->machine.view, read, &byte, 1), EACCES);
	assert_faulted(&stage->machine, DMACORE_FAULT_DENIED, read, read, DMACORE_ACCESS_WRITE);
	/* Not by the memory's own addresses. */
	assert_unreached(stage, low_phys(stage) + PAGE + 5);
	unmap(stage, both, 100, DMACORE_BIDIRECTIONAL);
	assert_unreached(stage, both);
	unmap(stage, read, PAGE, DMACORE_TO_DEVICE);
}

static void view__holds_what_is_unmapped(void **state)
{
	struct stage *stage = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *held;
	dmacore_dma_t dma = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	size_t count;

	assert_ok(dmacore_view_map(stage->machine.view, dma, PAGE, DMACORE_ACCESS_READ, &held,
				   &segments, &count));
	assert_int_equal(count, 1);
	assert_ptr_equal(segments[0].host, stage->machine.low);
	unmap(stage, dma, PAGE, DMACORE_BIDIRECTIONAL);
	assert_reported(&stage->machine, DMACORE_REPORT_WARNING);
	assert_int_equal(stage->grants.unmap_count, 1);
	dmacore_view_unmap(held);
}

static void sync__goes_by_the_functions(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct grants *grants = &stage->grants;
	dmacore_dma_t dma = map_low(stage, 5, 100, DMACORE_FROM_DEVICE);

	assert_ok(dmacore_sync_for_cpu(machine->device, dma + 10, 20, DMACORE_FROM_DEVICE));
	assert_true(grants->is_for_cpu);
	assert_int_equal(grants->synced.dma, dma + 10);
	assert_int_equal(grants->synced.phys, low_phys(stage) + 15);
	assert_int_equal(grants->synced.size, 20);
	assert_int_equal(grants->synced.direction, DMACORE_FROM_DEVICE);
	assert_ok(dmacore_sync_for_device(machine->device, dma, 100, DMACORE_FROM_DEVICE));
	assert_false(grants->is_for_cpu);
	assert_int_equal(grants->sync_count, 2);
	assert_true(dmacore_need_sync(machine->device, dma));
	assert_false(dmacore_need_sync(machine->device, dma + 100));
	/* Not what is in no mapping. */
	assert_misuse(machine,
		      dmacore_sync_for_cpu(machine->device, dma, 101, DMACORE_FROM_DEVICE));
	assert_misuse(machine, dmacore_sync_for_cpu(machine->device, dma, 1, DMACORE_TO_DEVICE));
	assert_int_equal(grants->sync_count, 2);
	/* What they fail with is the call's. */
	grants->sync_result = -EAGAIN;
	assert_fails(dmacore_sync_for_cpu(machine->device, dma, 1, DMACORE_FROM_DEVICE), EAGAIN);
	assert_fails(dmacore_sync_for_device(machine->device, dma, 1, DMACORE_FROM_DEVICE), EAGAIN);
	grants->sync_result = 1;
	assert_fails(dmacore_sync_for_device(machine->device, dma, 1, DMACORE_FROM_DEVICE), EIO);
	unmap(stage, dma, 100, DMACORE_FROM_DEVICE);
}

static void sync__is_nothing_where_there_is_no_function(void **state)
{
	struct stage *stage = *state;
	dmacore_dma_t dma;

	stage->grants.ops.sync = NULL;
	grants_use(&stage->grants, grants_options(&stage->grants));
	dma = map_low(stage, 0, 100, DMACORE_BIDIRECTIONAL);
	assert_false(dmacore_need_sync(stage->machine.device, dma));
	assert_ok(dmacore_sync_for_cpu(stage->machine.device, dma, 100, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_device(stage->machine.device, dma, 100, DMACORE_BIDIRECTIONAL));
	assert_misuse(&stage->machine,
		      dmacore_sync_for_cpu(stage->machine.device, dma, 101, DMACORE_BIDIRECTIONAL));
	unmap(stage, dma, 100, DMACORE_BIDIRECTIONAL);
}

static void map__fails_as_the_functions_do(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	const int results[] = { -EAGAIN, -ENOSPC, -ENODEV, 1, INT32_MIN };
	const int errors[] = { EAGAIN, ENOSPC, ENODEV, EIO, EIO };
	struct snapshot before = take_snapshot(machine), after;
	dmacore_dma_t dma;
	void *cpu;

	for (unsigned i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
		stage->grants.map_result = results[i];
		assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 100,
							  DMACORE_TO_DEVICE, 0, &dma),
				       errors[i], dma);
		assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma),
				       errors[i], dma);
	}
	after = take_snapshot(machine);
	assert_memory_equal(&before, &after, sizeof(after));
	assert_int_equal(stage->grants.unmap_count, 0);
}

static void map__refuses_addresses_that_there_may_not_be(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct grants *grants = &stage->grants;
	dmacore_dma_t live = map_low(stage, 0, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	const dmacore_dma_t wrong[] = {
		/* Above the mask, by the last byte; wraps; is not aligned as the memory. */
		DMACORE_BIT_MASK(32) - 98,
		UINT64_MAX - 98 - 1,
		UINT64_C(0x500001),
		/* Another's: its first byte, its last one, all around it. */
		live,
		live + PAGE,
	};
	dmacore_dma_t dma;
	unsigned count = 0;

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint64_t offset = i == 0 ? wrong[0] % PAGE : i == 1 ? wrong[1] % PAGE : 0;
		struct snapshot before = take_snapshot(machine), after;

		grants->address = wrong[i];
		assert_fails_untouched(dmacore_map_single(machine->device,
							  machine->low + 4 * PAGE + offset, 100,
							  DMACORE_TO_DEVICE, 0, &dma),
				       EIO, dma);
		assert_reported(machine, DMACORE_REPORT_ERROR);
		/* It has been undone, as what it was. */
		assert_int_equal(grants->unmap_count, ++count);
		assert_int_equal(grants->unmapped.dma, wrong[i]);
		after = take_snapshot(machine);
		assert_memory_equal(&before, &after, sizeof(after));
	}
	grants->address = live - PAGE;
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 4 * PAGE,
						  DMACORE_TO_DEVICE, 0, &dma),
			       EIO, dma);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	/* Beside it there is room, up to the limit. */
	grants->address = live + 2 * PAGE;
	dma = map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	unmap(stage, dma, PAGE, DMACORE_TO_DEVICE);
	grants->address = DMACORE_BIT_MASK(32) - PAGE + 1;
	dma = map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	unmap(stage, dma, PAGE, DMACORE_TO_DEVICE);
	assert_reaches(stage, live, machine->low, 64);
	unmap(stage, live, 2 * PAGE, DMACORE_BIDIRECTIONAL);
}

/* What is not configured */

static void empty_table__refuses_each_entry_point_alike(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_mapping_ops empty = DMACORE_MAPPING_OPS_INIT;
	struct dmacore_coherent_pool_options pool_options = DMACORE_COHERENT_POOL_OPTIONS_INIT;
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };
	const struct dmacore_memory_segment *segments;
	struct dmacore_coherent_pool *pool;
	struct dmacore_explanation explanation;
	char text[256];
	size_t count;

	options.mapping_ops = &empty;
	/* Masks that it is made with, and none. */
	for (unsigned i = 0; i < 2; i++) {
		dmacore_dma_t dma;
		void *cpu;

		options.streaming_mask = options.coherent_mask = i ? DMACORE_BIT_MASK(64) : 0;
		grants_use(&stage->grants, options);
		assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 1,
							  DMACORE_TO_DEVICE, 0, &dma),
				       EPERM, dma);
		assert_fails(dmacore_map_phys(machine->device, low_phys(stage), 1,
					      DMACORE_TO_DEVICE, 0, &dma),
			     EPERM);
		assert_fails(dmacore_map_resource(machine->device, low_phys(stage), 1,
						  DMACORE_TO_DEVICE, 0, &dma),
			     EPERM);
		assert_fails(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EPERM);
		assert_fails(dmacore_alloc_noncontiguous(machine->device, PAGE, DMACORE_TO_DEVICE,
							 0, &dma, &segments, &count),
			     EPERM);
		pool_options.size = 64;
		assert_ok(dmacore_coherent_pool_create(machine->device, &pool_options, &pool));
		assert_fails(dmacore_coherent_pool_alloc(pool, &cpu, &dma), EPERM);
		dmacore_coherent_pool_destroy(pool);
		assert_fails(dmacore_device_set_mask(machine->device, UINT32_MAX, NULL), EPERM);
		assert_fails(dmacore_device_set_streaming_mask(machine->device, 1, NULL), EPERM);
		assert_fails(dmacore_device_set_coherent_mask(machine->device, 1, NULL), EPERM);
		assert_ok(dmacore_device_set_mask(machine->device, 0, NULL));
		explanation = explain(stage, low_phys(stage), 1, DMACORE_STREAMING, 0);
		assert_int_equal(explanation.path, DMACORE_PATH_REFUSED);
		assert_int_equal(explanation.error, EPERM);
		assert_int_equal(explanation.reasons,
				 DMACORE_REASON_OPS | DMACORE_REASON_NOT_CONFIGURED);
		assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
		assert_string_equal(text, "refused with error 1 because the device has mapping "
					  "functions, nobody has configured the device");
		assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
		assert_int_equal(limits.max_size, 0);
		assert_misuse(machine, dmacore_unmap(machine->device, 0, 1, DMACORE_TO_DEVICE, 0));
		assert_misuse(machine,
			      dmacore_sync_for_cpu(machine->device, 0, 1, DMACORE_TO_DEVICE));
		assert_unreached(stage, low_phys(stage));
	}
}

static void device_create__refuses_what_does_not_go_together(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct dmacore_device_options good = grants_options(&stage->grants), options;
	struct dmacore_dma_range range = { 0, 0, PAGE };
	struct dmacore_bounce_pool_options pool_options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_mapping_ops ops;
	struct dmacore_bounce_pool *pool;
	struct dmacore_iommu *iommu;
	struct dmacore_device *device;

	stage->grants.device = NULL;
#define check_refused()                                                                           \
	do {                                                                                      \
		options.mapping_ops = &ops;                                                       \
		assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), \
				       EINVAL, device);                                           \
		options = good;                                                                   \
		ops = stage->grants.ops;                                                          \
	} while (0)
	options = good;
	ops = stage->grants.ops;
	assert_ok(dmacore_iommu_create(machine->system, NULL, &iommu));
	options.iommu = iommu;
	check_refused();
	options.ranges = &range;
	options.range_count = 1;
	check_refused();
	pool_options.size = PAGE;
	assert_ok(dmacore_bounce_pool_create(machine->system, &pool_options, &pool));
	options.bounce_pool = pool;
	check_refused();
	options.flags = DMACORE_DEVICE_FORCE_BOUNCE;
	check_refused();
	options.flags = DMACORE_DEVICE_UNTRUSTED;
	check_refused();
	ops.flags = 2;
	check_refused();
	ops.reserved = 1;
	check_refused();
	ops.map = NULL;
	check_refused();
	ops.unmap = NULL;
	check_refused();
	ops.alloc = grants_alloc;
	check_refused();
	ops.free = grants_free;
	check_refused();
	/* Nothing but an empty table has no map. */
	for (unsigned i = 0; i < 6; i++) {
		ops = (struct dmacore_mapping_ops)DMACORE_MAPPING_OPS_INIT;
		ops.flags = i == 0 ? DMACORE_OPS_BYPASS : 0;
		ops.sync = i == 1 ? grants_sync : NULL;
		ops.supported = i == 2 ? grants_supported : NULL;
		ops.required_mask = i == 3 ? grants_required_mask : NULL;
		ops.limits = i == 4 ? grants_limits : NULL;
		ops.alloc = i == 5 ? grants_alloc : NULL;
		ops.free = i == 5 ? grants_free : NULL;
		check_refused();
	}
#undef check_refused
	/* An untrusted one that bypasses nothing. */
	ops.flags = 0;
	options.flags = DMACORE_DEVICE_UNTRUSTED;
	options.mapping_ops = &ops;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	dmacore_device_destroy(device);
	dmacore_bounce_pool_destroy(pool);
	dmacore_iommu_destroy(iommu);
	/* Ranges cannot come later either. */
	assert_fails(dmacore_device_set_ranges(machine->device, &range, 1), EINVAL);
	assert_fails(dmacore_device_set_ranges(machine->device, NULL, 0), EINVAL);
}

static int create_with(struct stage *stage, const struct dmacore_mapping_ops *ops,
		       struct dmacore_device **out)
{
	struct dmacore_device_options options = grants_options(&stage->grants);

	options.mapping_ops = ops;
	stage->grants.device = NULL;
	return dmacore_device_create(stage->machine.system, &options, out);
}

static void device_create__checks_the_size_of_the_table(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device *device;

	check_struct_size(struct dmacore_mapping_ops, stage->grants.ops,
			  create_with(stage, options, &device), device, dmacore_device_destroy);
}

/* Masks, as those who set them do */

static void mask__is_asked_about_when_it_is_set(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device *device = stage->machine.device;
	struct grants *grants = &stage->grants;

	/* Of each kind that it was made with. */
	assert_int_equal(grants->supported_count, 2);
	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(40), NULL));
	assert_int_equal(grants->supported_count, 3);
	assert_int_equal(grants->kind, DMACORE_STREAMING);
	assert_int_equal(grants->mask, DMACORE_BIT_MASK(40));
	assert_ok(dmacore_device_set_coherent_mask(device, DMACORE_BIT_MASK(41), NULL));
	assert_int_equal(grants->kind, DMACORE_COHERENT);
	assert_int_equal(grants->mask, DMACORE_BIT_MASK(41));
	assert_ok(dmacore_device_set_mask(device, DMACORE_BIT_MASK(42), NULL));
	assert_int_equal(grants->supported_count, 6);
	/* None is none, and the bus is not theirs. */
	assert_ok(dmacore_device_set_mask(device, 0, NULL));
	assert_ok(dmacore_device_set_bus_limit(device, DMACORE_BIT_MASK(20), NULL));
	assert_int_equal(grants->supported_count, 6);
	assert_int_equal(explain(stage, 0, 1, DMACORE_STREAMING, 0).error, ENXIO);
	assert_int_equal(explain(stage, 0, 1, DMACORE_STREAMING, 0).reasons,
			 DMACORE_REASON_NO_MASK);
}

static void mask__that_is_refused_changes_nothing(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device *device = stage->machine.device;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	struct grants *grants = &stage->grants;

	set_masks(stage, 64, 64);
	for (unsigned kind = 0; kind < 2; kind++) {
		grants->supported_result[kind] = -ENODEV;
		grants->supported_result[!kind] = 0;
		/* The other kind's window would be gone, if it were obeyed. */
		assert_fails(dmacore_device_set_mask(device, DMACORE_BIT_MASK(32), &beyond),
			     ENODEV);
		assert_fails((kind ? dmacore_device_set_coherent_mask :
				     dmacore_device_set_streaming_mask)(device, 1, NULL),
			     ENODEV);
		for (unsigned i = 0; i < 2; i++) {
			assert_explained(stage, LOW_BASE, PAGE, i, DMACORE_PATH_DIRECT,
					 DMACORE_REASON_IN_WINDOW);
			assert_int_equal(explain(stage, LOW_BASE, 1, i, 0).limit, UINT64_MAX);
		}
	}
	grants->supported_result[1] = 7;
	assert_fails(dmacore_device_set_mask(device, DMACORE_BIT_MASK(32), NULL), EIO);
}

static void device_create__fails_as_the_mask_does(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device *device;

	for (unsigned kind = 0; kind < 2; kind++) {
		stage->grants.supported_result[kind] = -ENOTSUP;
		assert_creates_nothing(create_with(stage, &stage->grants.ops, &device), ENOTSUP,
				       device);
		stage->grants.supported_result[kind] = 0;
	}
	assert_ok(create_with(stage, &stage->grants.ops, &device));
	dmacore_device_destroy(device);
}

static void window__that_is_none_is_refused(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device *device = stage->machine.device;

	stage->grants.window_offset = WINDOW_OFFSET + 1;
	assert_fails(dmacore_device_set_mask(device, UINT64_MAX, NULL), EIO);
	assert_explained(stage, LOW_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_NO_BYPASS);
	/* One that ends before it starts has no memory, and one that would wrap only what does not. */
	stage->grants.window_offset = WINDOW_OFFSET;
	stage->grants.window_limit = 1;
	assert_ok(dmacore_device_set_mask(device, UINT64_MAX, NULL));
	assert_explained(stage, LOW_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_OUTSIDE_WINDOW);
	stage->grants.window_offset = 0 - LOW_BASE - PAGE;
	stage->grants.window_limit = 0;
	assert_ok(dmacore_device_set_mask(device, UINT64_MAX, NULL));
	assert_explained(stage, LOW_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	assert_explained(stage, LOW_BASE, PAGE + 1, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_OUTSIDE_WINDOW);
	assert_explained(stage, LOW_BASE + PAGE, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_OUTSIDE_WINDOW);
}

static void mask_32__goes_by_the_functions(void **state)
{
	struct stage *stage = *state;
	dmacore_dma_t dma;

	assert_explained(stage, LOW_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_NO_BYPASS);
	/* What they reach needs no room below the mask. */
	dma = map_for(&stage->machine, stage->machine.high, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(dma, GRANT_BASE);
	assert_reaches(stage, dma, stage->machine.high, 64);
	unmap(stage, dma, PAGE, DMACORE_BIDIRECTIONAL);
}

static void mask_64__goes_by_the_window(void **state)
{
	struct stage *stage = *state;
	dmacore_dma_t dma;

	set_masks(stage, 64, 64);
	assert_explained(stage, LOW_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	dma = map_for(&stage->machine, stage->machine.high + 5, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(dma, WINDOW_OFFSET + HIGH_BASE + 5);
	assert_int_equal(info_of(stage, dma).path, DMACORE_PATH_DIRECT);
	assert_reaches(stage, dma, stage->machine.high + 5, 64);
	assert_unreached(stage, HIGH_BASE + 5);
	assert_unreached(stage, dma + PAGE);
	/* There is nothing to sync, and nothing to undo. */
	assert_false(dmacore_need_sync(stage->machine.device, dma));
	assert_ok(dmacore_sync_for_cpu(stage->machine.device, dma, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_device(stage->machine.device, dma, PAGE, DMACORE_BIDIRECTIONAL));
	unmap(stage, dma, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(
		stage->grants.map_count + stage->grants.unmap_count + stage->grants.sync_count, 0);
}

/* A buffer may be mapped directly as often as wanted. */
static void window__has_memory_twice(void **state)
{
	struct stage *stage = *state;
	dmacore_dma_t first, second, part;

	set_masks(stage, 64, 64);
	first = map_low(stage, 0, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	second = map_low(stage, 0, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	part = map_low(stage, PAGE + 1, 2 * PAGE, DMACORE_TO_DEVICE);
	assert_true(first == second && part == first + PAGE + 1);
	unmap(stage, first, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_reaches(stage, second, stage->machine.low, 64);
	unmap(stage, second, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	unmap(stage, part, 2 * PAGE, DMACORE_TO_DEVICE);
}

static void back_to_32__leaves_direct_mappings_what_they_are(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	dmacore_dma_t direct, other;

	set_masks(stage, 64, 64);
	direct = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_device_set_mask(machine->device, DMACORE_BIT_MASK(32), &beyond));
	assert_int_equal(beyond.count, 1);
	assert_int_equal(beyond.first, WINDOW_OFFSET + LOW_BASE);
	assert_int_equal(beyond.is_complete, 1);
	other = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(other, GRANT_BASE);
	assert_reaches(stage, direct, machine->low, 64);
	assert_reaches(stage, other, machine->low, 64);
	assert_ok(dmacore_sync_for_cpu(machine->device, direct, PAGE, DMACORE_BIDIRECTIONAL));
	assert_int_equal(stage->grants.sync_count, 0);
	unmap(stage, direct, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(stage->grants.unmap_count, 0);
	unmap(stage, other, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(stage->grants.unmap_count, 1);
}

static void on_to_64__leaves_mappings_of_the_functions_theirs(void **state)
{
	struct stage *stage = *state;
	dmacore_dma_t old = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL), new;

	set_masks(stage, 64, 64);
	new = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(new, WINDOW_OFFSET + LOW_BASE);
	assert_reaches(stage, old, stage->machine.low, 64);
	assert_ok(dmacore_sync_for_cpu(stage->machine.device, old, PAGE, DMACORE_BIDIRECTIONAL));
	assert_int_equal(stage->grants.sync_count, 1);
	unmap(stage, old, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(stage->grants.unmap_count, 1);
	unmap(stage, new, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(stage->grants.unmap_count, 1);
}

static void streaming_is_direct__with_coherent_by_the_functions(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	dmacore_dma_t dma, queue;
	void *cpu;

	set_masks(stage, 64, 32);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &queue));
	assert_int_equal(queue, GRANT_BASE);
	assert_int_equal(stage->grants.mapped.kind, DMACORE_COHERENT);
	assert_int_equal(info_of(stage, queue).path, DMACORE_PATH_OPS);
	dma = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(dma, WINDOW_OFFSET + LOW_BASE);
	assert_reaches(stage, queue, cpu, 64);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, queue));
	assert_int_equal(stage->grants.unmap_count, 1);
	unmap(stage, dma, PAGE, DMACORE_BIDIRECTIONAL);
}

static void coherent_is_direct__with_streaming_by_the_functions(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	const struct dmacore_memory_segment *segments;
	dmacore_dma_t dma, queue, frame;
	size_t count;
	void *cpu;

	set_masks(stage, 32, 64);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &queue));
	assert_int_equal(info_of(stage, queue).path, DMACORE_PATH_DIRECT);
	assert_true(queue > WINDOW_OFFSET);
	assert_reaches(stage, queue, cpu, 64);
	dma = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(dma, GRANT_BASE);
	/* That is under the streaming mask. */
	assert_ok(dmacore_alloc_noncontiguous(machine->device, 3 * PAGE, DMACORE_BIDIRECTIONAL, 0,
					      &frame, &segments, &count));
	assert_int_equal(count, 1);
	assert_int_equal(info_of(stage, frame).path, DMACORE_PATH_OPS);
	assert_reaches(stage, frame + PAGE, (uint8_t *)segments[0].cpu + PAGE, 64);
	assert_ok(dmacore_sync_for_cpu(machine->device, frame + PAGE, PAGE, DMACORE_BIDIRECTIONAL));
	assert_int_equal(stage->grants.synced.phys, segments[0].phys + PAGE);
	assert_ok(dmacore_free_noncontiguous(machine->device, 3 * PAGE, frame));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, queue));
	unmap(stage, dma, PAGE, DMACORE_BIDIRECTIONAL);
}

/* Wide for one controller, narrow for what is attached to it, with what was allocated before alive. */
static void masks__go_up_and_down_under_what_lives(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	dmacore_dma_t queue[3], dma[3];
	void *cpu[3];

	for (unsigned i = 0; i < 3; i++) {
		set_masks(stage, i == 1 ? 64 : 32, i == 0 ? 32 : 64);
		assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu[i], &queue[i]));
		dma[i] = map_low(stage, i * PAGE, PAGE, DMACORE_BIDIRECTIONAL);
		assert_int_equal(queue[i] > WINDOW_OFFSET, i > 0);
		assert_int_equal(dma[i] > WINDOW_OFFSET, i == 1);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_reaches(stage, queue[i], cpu[i], 64);
		assert_reaches(stage, dma[i], machine->low + i * PAGE, 64);
		assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu[i], queue[i]));
		unmap(stage, dma[i], PAGE, DMACORE_BIDIRECTIONAL);
	}
	assert_int_equal(stage->grants.unmap_count, 3);
}

static void window__is_obeyed_for_each_range(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	dmacore_dma_t low, high;

	/* One bank of memory is in it, and the other is not. */
	stage->grants.window_limit = WINDOW_OFFSET + HIGH_BASE + PAGE - 1;
	set_masks(stage, 64, 64);
	low = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	high = map_for(machine, machine->high + PAGE, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(low, WINDOW_OFFSET + LOW_BASE);
	assert_int_equal(high, GRANT_BASE);
	assert_reaches(stage, high, machine->high + PAGE, 64);
	/* Up to the last byte. */
	assert_explained(stage, HIGH_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	assert_explained(stage, HIGH_BASE + 1, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_OUTSIDE_WINDOW);
	/* The mask and the bus limit are obeyed as well. */
	assert_ok(dmacore_device_set_streaming_mask(machine->device, WINDOW_OFFSET + LOW_BASE + 99,
						    NULL));
	assert_explained(stage, LOW_BASE, 100, DMACORE_STREAMING, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	assert_explained(stage, LOW_BASE, 101, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_ABOVE_LIMIT);
	assert_ok(
		dmacore_device_set_bus_limit(machine->device, WINDOW_OFFSET + LOW_BASE + 49, NULL));
	assert_explained(stage, LOW_BASE, 50, DMACORE_STREAMING, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	assert_explained(stage, LOW_BASE, 51, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_ABOVE_LIMIT);
	assert_ok(dmacore_device_set_bus_limit(machine->device, 0, NULL));
	/* It keeps all bits but those of its offset. */
	limits.min_align_mask = (WINDOW_OFFSET & -WINDOW_OFFSET) - 1;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	assert_explained(stage, LOW_BASE, 50, DMACORE_STREAMING, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	limits.min_align_mask = 2 * limits.min_align_mask + 1;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	assert_explained(stage, LOW_BASE, 50, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_MISALIGNED);
	assert_explained(stage, LOW_BASE, 50, DMACORE_COHERENT, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	/* Registers are in no window. */
	assert_int_equal(explain(stage, LOW_BASE, 1, DMACORE_STREAMING, DMACORE_ATTR_MMIO).reasons,
			 DMACORE_REASON_OPS | DMACORE_REASON_OUTSIDE_WINDOW);
	unmap(stage, low, PAGE, DMACORE_BIDIRECTIONAL);
	unmap(stage, high, PAGE, DMACORE_BIDIRECTIONAL);
}

static void functions__map_whole_pages_alone_for_an_untrusted_device(void **state)
{
	struct stage *stage = *state;
	struct dmacore_device_options options;
	struct dmacore_explanation found;
	dmacore_dma_t dma;

	stage->grants.ops.flags = 0;
	options = grants_options(&stage->grants);
	options.flags |= DMACORE_DEVICE_UNTRUSTED;
	grants_use(&stage->grants, options);
	set_masks(stage, 64, 64);
	found = explain(stage, LOW_BASE + 5, 8, DMACORE_STREAMING, 0);
	assert_int_equal(found.path, DMACORE_PATH_REFUSED);
	assert_int_equal(found.reasons, DMACORE_REASON_OPS | DMACORE_REASON_UNTRUSTED_PAGE |
						DMACORE_REASON_NO_POOL);
	assert_fails(dmacore_map_phys(stage->machine.device, LOW_BASE + 5, 8, DMACORE_TO_DEVICE, 0,
				      &dma),
		     ERANGE);
	dma = map_low(stage, PAGE, PAGE, DMACORE_TO_DEVICE);
	unmap(stage, dma, PAGE, DMACORE_TO_DEVICE);
}

static void window__is_nowhere_without_the_flag(void **state)
{
	struct stage *stage = *state;

	stage->grants.ops.flags = 0;
	grants_use(&stage->grants, grants_options(&stage->grants));
	set_masks(stage, 64, 64);
	assert_explained(stage, LOW_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_NO_BYPASS);
}

static void window__is_all_memory_where_nobody_is_asked(void **state)
{
	struct stage *stage = *state;
	dmacore_dma_t low, high;

	stage->grants.ops.supported = NULL;
	grants_use(&stage->grants, grants_options(&stage->grants));
	low = map_low(stage, 5, PAGE, DMACORE_BIDIRECTIONAL);
	high = map_for(&stage->machine, stage->machine.high, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(low, LOW_BASE + 5);
	assert_int_equal(high, GRANT_BASE);
	assert_reaches(stage, low, stage->machine.low + 5, 64);
	assert_explained(stage, HIGH_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_ABOVE_LIMIT);
	unmap(stage, low, PAGE, DMACORE_BIDIRECTIONAL);
	unmap(stage, high, PAGE, DMACORE_BIDIRECTIONAL);
}

static void window__is_not_where_another_mapping_is(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	dmacore_dma_t live, dma;

	/* A window over an address that the functions have given. */
	stage->grants.address = LOW_BASE + PAGE;
	live = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	stage->grants.window_offset = 0;
	set_masks(stage, 64, 64);
	assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 2 * PAGE,
						  DMACORE_TO_DEVICE, 0, &dma),
			       EIO, dma);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	assert_int_equal(stage->grants.unmap_count, 0);
	dma = map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	assert_reaches(stage, live, machine->low, 64);
	unmap(stage, dma, PAGE, DMACORE_TO_DEVICE);
	/* And one that has moved, over what was direct in it. */
	dma = map_low(stage, 3 * PAGE, PAGE, DMACORE_TO_DEVICE);
	stage->grants.window_offset = PAGE;
	set_masks(stage, 64, 64);
	assert_fails(dmacore_map_single(machine->device, machine->low + 2 * PAGE, PAGE,
					DMACORE_TO_DEVICE, 0, &live),
		     EIO);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	unmap(stage, dma, PAGE, DMACORE_TO_DEVICE);
	unmap(stage, LOW_BASE + PAGE, PAGE, DMACORE_BIDIRECTIONAL);
}

/* Coherent memory */

static void use_alloc(struct stage *stage)
{
	stage->grants.ops.alloc = grants_alloc;
	stage->grants.ops.free = grants_free;
	grants_use(&stage->grants, grants_options(&stage->grants));
}

static void alloc__has_memory_from_the_functions(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct grants *grants = &stage->grants;
	uint8_t zeroes[PAGE] = { 0 };
	uint64_t phys;
	dmacore_dma_t dma;
	void *cpu;

	use_alloc(stage);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE + 1, &cpu, &dma));
	assert_int_equal(grants->alloc_count, 1);
	assert_int_equal(grants->map_count, 0);
	assert_int_equal(grants->mapped.size, 2 * PAGE);
	assert_int_equal(grants->mapped.limit, DMACORE_BIT_MASK(32));
	assert_int_equal(dma, GRANT_BASE);
	assert_memory_equal(cpu, zeroes, PAGE);
	assert_reaches(stage, dma + PAGE, (uint8_t *)cpu + PAGE, 64);
	assert_int_equal(info_of(stage, dma).path, DMACORE_PATH_OPS);
	assert_int_equal(info_of(stage, dma).kind, DMACORE_COHERENT);
	/* It is the system's meanwhile. */
	assert_ok(dmacore_memory_host_to_phys(machine->system, cpu, PAGE, &phys));
	assert_fails(dmacore_memory_remove(machine->system, POOL_HIGH_BASE, POOL_PAGES * PAGE),
		     EBUSY);
	assert_misuse(machine,
		      dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_ok(dmacore_free_coherent(machine->device, PAGE + 1, cpu, dma));
	assert_int_equal(grants->free_count, 1);
	assert_int_equal(grants->unmap_count, 0);
	assert_ptr_equal(grants->freed.cpu, cpu);
	assert_int_equal(grants->freed.phys, phys);
	assert_ok(dmacore_memory_remove(machine->system, POOL_HIGH_BASE, POOL_PAGES * PAGE));
}

static void alloc__that_fails_leaves_nothing(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct grants *grants = &stage->grants;
	uint8_t *foreign = aligned_alloc(PAGE, PAGE);
	dmacore_dma_t dma;
	void *cpu;

	use_alloc(stage);
	grants->alloc_result = -ENOSPC;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ENOSPC,
			       dma);
	assert_int_equal(grants->free_count, 0);
	grants->alloc_result = 0;
	/* No memory, none of the system's, not whole pages. */
	void *const wrong[] = { NULL, foreign, machine->low + 5 };

	for (unsigned i = 0; i < 3; i++) {
		grants->memory = wrong[i];
		assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma),
				       EFAULT, dma);
		assert_int_equal(grants->free_count, i + 1);
		assert_ptr_equal(grants->freed.cpu, wrong[i]);
	}
	grants->memory = (void *)(uintptr_t)UNTOUCHED;
	/* Addresses that it may not have. */
	const dmacore_dma_t addresses[] = { GRANT_BASE + 8, UINT64_C(1) << 32 };

	for (unsigned i = 0; i < 2; i++) {
		grants->address = addresses[i];
		assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma),
				       EIO, dma);
		assert_reported(machine, DMACORE_REPORT_ERROR);
		assert_int_equal(grants->free_count, i + 4);
	}
	grants->address = GRANT_BASE;
	dma = map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	assert_fails(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EIO);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	assert_int_equal(grants->free_count, 6);
	assert_int_equal(grants->unmap_count, 0);
	unmap(stage, GRANT_BASE, PAGE, DMACORE_TO_DEVICE);
	free(foreign);
}

static void alloc__is_for_what_nothing_else_has(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct grants *grants = &stage->grants;
	const struct dmacore_memory_segment *segments;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	use_alloc(stage);
	/* Not for what is mapped like a buffer. */
	assert_ok(dmacore_alloc_noncontiguous(machine->device, 2 * PAGE, DMACORE_TO_DEVICE, 0, &dma,
					      &segments, &count));
	assert_int_equal(grants->map_count, 1);
	assert_ok(dmacore_free_noncontiguous(machine->device, 2 * PAGE, dma));
	assert_int_equal(grants->unmap_count, 1);
	/* Nor for what is in the window, as long as there is memory there. */
	grants->window_limit = WINDOW_OFFSET + DMACORE_BIT_MASK(32);
	set_masks(stage, 64, 64);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_int_equal(info_of(stage, dma).path, DMACORE_PATH_DIRECT);
	assert_int_equal(machine->pool.limit, DMACORE_BIT_MASK(32));
	assert_int_equal(grants->alloc_count, 0);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	machine->pool.left = 0;
	stage->grants.memory = machine->low;
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ptr_equal(cpu, machine->low);
	assert_int_equal(grants->alloc_count, 1);
	/* The harness knows no physical address of memory that a test gives. */
	grants->slots[0].mapping.phys = LOW_BASE;
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	machine->pool.left = -1;
	/* Nor where memory is declared. */
	set_masks(stage, 32, 32);
	assert_ok(dmacore_declare_coherent_memory(machine->device, NEXT_BASE, PAGE));
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ptr_equal(cpu, machine->next);
	assert_int_equal(grants->map_count, 2);
	assert_reaches(stage, dma, cpu, 64);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	assert_ok(dmacore_release_coherent_memory(machine->device));
	assert_int_equal(grants->alloc_count, 1);
}

static void coherent__is_mapped_where_no_function_allocates(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	dmacore_dma_t dma;
	void *cpu;

	/* From anywhere: it is the functions that reach it. */
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_int_equal(stage->grants.map_count, 1);
	assert_int_equal(stage->grants.mapped.kind, DMACORE_COHERENT);
	assert_reaches(stage, dma, cpu, 64);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	assert_int_equal(stage->grants.unmap_count, 1);
	/* With a window that the memory turns out not to be in. */
	set_masks(stage, 64, 64);
	stage->grants.window_limit = WINDOW_OFFSET + PAGE - 1;
	set_masks(stage, 64, 64);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_int_equal(info_of(stage, dma).path, DMACORE_PATH_OPS);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
}

static void coherent_pool__has_pages_from_the_functions(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct dmacore_coherent_pool_options options = DMACORE_COHERENT_POOL_OPTIONS_INIT;
	struct dmacore_coherent_pool *pool;
	dmacore_dma_t dma[65];
	void *cpu[65];

	use_alloc(stage);
	options.size = 64;
	assert_ok(dmacore_coherent_pool_create(machine->device, &options, &pool));
	for (unsigned i = 0; i < 65; i++) {
		assert_ok(dmacore_coherent_pool_alloc(pool, &cpu[i], &dma[i]));
		assert_reaches(stage, dma[i], cpu[i], 64);
	}
	assert_int_equal(stage->grants.alloc_count, 2);
	for (unsigned i = 0; i < 65; i++)
		assert_ok(dmacore_coherent_pool_free(pool, cpu[i], dma[i]));
	dmacore_coherent_pool_destroy(pool);
	assert_int_equal(stage->grants.free_count, 2);
}

/* Ends */

static void device_destroy__undoes_what_lives_by_its_record(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	dmacore_dma_t dma;
	void *cpu;

	use_alloc(stage);
	(void)map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	set_masks(stage, 64, 64);
	(void)map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_int_equal(stage->grants.unmap_count, 1);
	assert_int_equal(stage->grants.free_count, 1);
}

static int probe(struct dmacore_device *device, void *opaque)
{
	struct stage *stage = opaque;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_map_single(device, stage->machine.low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_alloc_coherent(device, PAGE, &cpu, &dma));
	return 0;
}

static void driver__that_leaves_mappings_leaves_none_to_the_functions(void **state)
{
	struct stage *stage = *state;
	struct dmacore_driver driver = { .struct_size = sizeof(driver) };

	use_alloc(stage);
	driver.name = "disk";
	driver.probe = probe;
	driver.opaque = stage;
	assert_ok(dmacore_device_bind(stage->machine.device, &driver));
	assert_int_equal(grants_live(&stage->grants), 2);
	assert_ok(dmacore_device_unbind(stage->machine.device));
	assert_reported(&stage->machine, DMACORE_REPORT_WARNING);
	assert_int_equal(grants_live(&stage->grants), 0);
}

static void free__is_never_called_for_what_is_held(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *held;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	use_alloc(stage);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_view_map(machine->view, dma, PAGE, DMACORE_ACCESS_READ, &held, &segments,
				   &count));
	assert_ptr_equal(segments[0].host, cpu);
	assert_fails(dmacore_free_coherent(machine->device, PAGE, cpu, dma), EBUSY);
	assert_int_equal(stage->grants.free_count, 0);
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_int_equal(reports_take(&machine->reports)->level, DMACORE_REPORT_WARNING);
	reports_forget(&machine->reports);
	assert_int_equal(stage->grants.free_count, 0);
	dmacore_view_unmap(held);
	/* It is lost, as the report says. */
	grants_free((struct dmacore_device *)(uintptr_t)stage->grants.device,
		    &(struct dmacore_ops_mapping){ .struct_size = sizeof(stage->grants.freed),
						   .dma = dma,
						   .phys = stage->grants.slots[0].mapping.phys,
						   .size = PAGE,
						   .cpu = cpu,
						   .kind = DMACORE_COHERENT },
		    &stage->grants);
}

/* What they say */

static void limits__are_what_the_functions_say(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct grants *grants = &stage->grants;
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };

	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.max_size, UINT64_MAX);
	assert_int_equal(limits.optimal_size, UINT64_MAX);
	assert_int_equal(limits.merge_boundary_mask, 0);
	assert_int_equal(limits.required_mask, UINT32_MAX);
	assert_int_equal(limits.is_addressing_limited, 0);
	grants->ops.limits = grants_limits;
	grants->ops.required_mask = grants_required_mask;
	grants->limits.max_size = 64 * PAGE;
	grants->limits.optimal_size = 4 * PAGE;
	grants->limits.merge_boundary_mask = PAGE - 1;
	grants->required_mask = DMACORE_BIT_MASK(24);
	grants_use(grants, grants_options(grants));
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.max_size, 64 * PAGE);
	assert_int_equal(limits.optimal_size, 4 * PAGE);
	assert_int_equal(limits.merge_boundary_mask, PAGE - 1);
	assert_int_equal(limits.required_mask, DMACORE_BIT_MASK(24));
	/* What makes no sense does not come through. */
	grants->limits.optimal_size = 65 * PAGE;
	grants->limits.merge_boundary_mask = PAGE;
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.optimal_size, 64 * PAGE);
	assert_int_equal(limits.merge_boundary_mask, 0);
	grants->limits.optimal_size = 0;
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.optimal_size, 64 * PAGE);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, 0, NULL));
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.max_size, 0);
}

static void explanation__is_in_words(void **state)
{
	struct stage *stage = *state;
	struct dmacore_explanation explanation;
	char text[256];

	explanation = explain(stage, LOW_BASE, 1, DMACORE_STREAMING, 0);
	assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
	assert_string_equal(text, "as the device's mapping functions say because bypass is turned "
				  "off, or not offered, the device has mapping functions");
	set_masks(stage, 64, 64);
	explanation = explain(stage, LOW_BASE, 1, DMACORE_STREAMING, 0);
	assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
	assert_string_equal(text, "direct because the memory is in the window of what bypasses, "
				  "the device has mapping functions");
}

static struct dmacore_device *other_device;

/* Maps for another device. */
static void map_other(struct grants *grants, char what)
{
	struct machine *machine = grants->machine;
	dmacore_dma_t dma;

	(void)what;
	assert_ok(dmacore_map_single(other_device, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_sync_for_cpu(other_device, dma, PAGE, DMACORE_TO_DEVICE));
	assert_ok(dmacore_unmap(other_device, dma, PAGE, DMACORE_TO_DEVICE, 0));
}

static void functions__may_call_the_library(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	dmacore_dma_t dma, queue;
	void *cpu;

	use_alloc(stage);
	other_device = make_device(machine);
	stage->grants.hook = map_other;
	dma = map_low(stage, 0, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_sync_for_cpu(machine->device, dma, PAGE, DMACORE_TO_DEVICE));
	unmap(stage, dma, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &queue));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, queue));
	stage->grants.hook = NULL;
	dmacore_device_destroy(other_device);
}

/* Caches */

static char events[32];

static void note(char what)
{
	size_t length = strlen(events);

	assert_true(length + 1 < sizeof(events));
	events[length] = what;
	events[length + 1] = '\0';
}

static void note_call(struct grants *grants, char what)
{
	(void)grants;
	note(what);
}

static void note_cache(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
		       void *opaque)
{
	(void)phys;
	(void)size;
	(void)direction;
	(void)opaque;
	note(is_for_cpu ? 'C' : 'D');
}

#define assert_events(expected)                        \
	do {                                           \
		assert_string_equal(events, expected); \
		events[0] = '\0';                      \
	} while (0)

static void caches__are_maintained_between_cpu_and_functions(void **state)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;
	struct machine machine = { 0 };
	struct grants grants;
	uint8_t *memory = aligned_alloc(PAGE, PAGE);
	dmacore_dma_t dma;

	(void)state;
	grants_start(&grants, &machine);
	grants.hook = note_call;
	system.cache = note_cache;
	assert_ok(dmacore_system_create(&system, &machine.system));
	add_host_region(machine.system, LOW_BASE, PAGE, memory, 0);
	options.mapping_ops = &grants.ops;
	options.mapping_ops_opaque = &grants;
	options.flags = DMACORE_DEVICE_NONCOHERENT;
	options.streaming_mask = DMACORE_BIT_MASK(32);
	assert_ok(dmacore_device_create(machine.system, &options, &device));
	assert_ok(dmacore_map_single(device, memory, PAGE, DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_events("mD");
	assert_ok(dmacore_sync_for_cpu(device, dma, 1, DMACORE_BIDIRECTIONAL));
	assert_events("cC");
	assert_ok(dmacore_sync_for_device(device, dma, 1, DMACORE_BIDIRECTIONAL));
	assert_events("Dd");
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_events("uC");
	/* What is direct is maintained, and no more. */
	assert_ok(dmacore_device_set_mask(device, UINT64_MAX, NULL));
	assert_ok(dmacore_map_single(device, memory, PAGE, DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_ok(dmacore_sync_for_cpu(device, dma, 1, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_device(device, dma, 1, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_events("DCDC");
	assert_fails(dmacore_map_single(device, memory, PAGE, DMACORE_BIDIRECTIONAL,
					DMACORE_ATTR_REQUIRE_COHERENT, &dma),
		     EOPNOTSUPP);
	assert_events("");
	dmacore_device_destroy(device);
	dmacore_system_destroy(machine.system);
	grants_stop(&grants);
	free(memory);
}

/* Peers */

static void peer__s_bus_addresses_are_no_others(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	struct dmacore_peer_options options = DMACORE_PEER_OPTIONS_INIT;
	struct dmacore_peer *peer;
	dmacore_dma_t dma;

	/* The device provides memory itself: by bus address, and then nothing else has that. */
	options.phys = NEXT_BASE;
	options.size = PAGE;
	options.bus = LOW_BASE;
	assert_ok(dmacore_peer_create(machine->device, &options, &peer));
	dma = map_for(machine, machine->next, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(dma, LOW_BASE);
	assert_int_equal(info_of(stage, dma).path, DMACORE_PATH_BUS_ADDRESS);
	assert_reaches(stage, dma, machine->next, 64);
	unmap(stage, dma, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(stage->grants.map_count + stage->grants.unmap_count, 0);
	stage->grants.address = LOW_BASE;
	assert_fails(
		dmacore_map_single(machine->device, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma),
		EIO);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	stage->grants.address = LOW_BASE + PAGE;
	dma = map_low(stage, 0, PAGE, DMACORE_BIDIRECTIONAL);
	assert_reaches(stage, dma, machine->low, 64);
	unmap(stage, dma, PAGE, DMACORE_BIDIRECTIONAL);
	/* Nor has a window. */
	stage->grants.address = UNTOUCHED;
	stage->grants.window_offset = 0;
	stage->grants.window_limit = 0;
	set_masks(stage, 64, 64);
	assert_explained(stage, LOW_BASE, PAGE, DMACORE_STREAMING, DMACORE_PATH_OPS,
			 DMACORE_REASON_OUTSIDE_WINDOW | DMACORE_REASON_PEER);
	assert_explained(stage, LOW_BASE + PAGE, PAGE, DMACORE_STREAMING, DMACORE_PATH_DIRECT,
			 DMACORE_REASON_IN_WINDOW);
	dmacore_peer_destroy(peer);
}

/* Where there is no memory: below 4 GiB, and above. */
#define PEER_BUS UINT64_C(0xc0000000)
#define PEER_BUS_HIGH (UINT64_C(1) << 33)

/* What a client has been told about a page of a peer, is what it gets. */
static void assert_mapped_as_explained(struct stage *stage, dmacore_phys_t phys, uint32_t path,
				       uint32_t reasons, dmacore_dma_t dma)
{
	struct dmacore_explanation found = explain(stage, phys, PAGE, DMACORE_STREAMING, 0);
	unsigned map_count = stage->grants.map_count;
	dmacore_dma_t got;

	assert_int_equal(found.path, path);
	assert_int_equal(found.reasons, reasons);
	assert_ok(dmacore_map_phys(stage->machine.device, phys, PAGE, DMACORE_BIDIRECTIONAL, 0,
				   &got));
	assert_int_equal(got, dma);
	assert_int_equal(info_of(stage, got).path, path);
	assert_int_equal(stage->grants.map_count - map_count, path == DMACORE_PATH_OPS);
	assert_reaches(stage, got, memory_at(&stage->machine, phys), 64);
	unmap(stage, got, PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(stage->grants.unmap_count, stage->grants.map_count);
}

/* The functions are not asked either. */
static void assert_refused_as_explained(struct stage *stage, dmacore_phys_t phys, uint32_t reasons,
					int error)
{
	struct dmacore_explanation found = explain(stage, phys, PAGE, DMACORE_STREAMING, 0);
	unsigned map_count = stage->grants.map_count;
	dmacore_dma_t dma;

	assert_int_equal(found.path, DMACORE_PATH_REFUSED);
	assert_int_equal(found.reasons, reasons);
	assert_int_equal(found.error, error);
	assert_fails_untouched(
		dmacore_map_phys(stage->machine.device, phys, PAGE, DMACORE_BIDIRECTIONAL, 0, &dma),
		error, dma);
	assert_int_equal(stage->grants.map_count, map_count);
}

/* A page of memory, and behind it one of a peer that the device reaches by bus address. */
static void assert_list_goes_both_ways(struct stage *stage, uint32_t path, dmacore_dma_t dma)
{
	struct machine *machine = &stage->machine;
	struct dmacore_sg list[2];
	size_t count;

	dmacore_sg_init(list, 2);
	dmacore_sg_set(&list[0], LOW_BASE, PAGE, 0);
	dmacore_sg_set(&list[1], NEXT_BASE, PAGE, 0);
	assert_ok(dmacore_map_list(machine->device, list, 2, DMACORE_BIDIRECTIONAL, 0, 0, &count));
	assert_int_equal(count, 2);
	assert_int_equal(list[0].dma, dma);
	assert_int_equal(info_of(stage, list[0].dma).path, path);
	assert_int_equal(list[1].dma, PEER_BUS);
	assert_int_equal(info_of(stage, list[1].dma).path, DMACORE_PATH_BUS_ADDRESS);
	assert_reaches(stage, list[0].dma, machine->low, 64);
	assert_reaches(stage, list[1].dma, machine->next, 64);
	assert_ok(dmacore_unmap_list(machine->device, list, 2, DMACORE_BIDIRECTIONAL, 0));
}

/*
 * Whether a client with functions may have a peer's memory is the route's to say, and how it has it is the
 * path's: not whether there are functions, nor whether a window is offered that all of it lies in.
 */
static void peer__is_mapped_by_the_path_that_is_taken(void **state)
{
	struct stage *stage = *state;
	struct machine *machine = &stage->machine;
	const uint32_t isolates = DMACORE_BRIDGE_ISOLATES;
	struct dmacore_bridge *hub = make_bridge(machine, NULL, 0);
	struct dmacore_bridge *across =
		make_bridge(machine, NULL, isolates | DMACORE_BRIDGE_HOST_PASSES_ACROSS);
	struct dmacore_bridge *over =
		make_bridge(machine, NULL, isolates | DMACORE_BRIDGE_HOST_PASSES_ACROSS);
	struct dmacore_bridge *plain = make_bridge(machine, NULL, isolates);
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_peer_options memory = DMACORE_PEER_OPTIONS_INIT;
	struct dmacore_device *provider, *twin;
	struct dmacore_peer *peers[2];
	uint32_t route;
	dmacore_dma_t dma;

	/* By bus address, as another client beside it has it, which has no functions. */
	options.bridge = hub;
	assert_ok(dmacore_device_create(machine->system, &options, &provider));
	assert_ok(dmacore_device_create(machine->system, &options, &twin));
	memory.phys = NEXT_BASE;
	memory.size = PAGE;
	memory.bus = PEER_BUS;
	assert_ok(dmacore_peer_create(provider, &memory, &peers[0]));
	memory.phys = HIGH_BASE;
	memory.bus = PEER_BUS_HIGH;
	assert_ok(dmacore_peer_create(provider, &memory, &peers[1]));
	options = grants_options(&stage->grants);
	options.bridge = hub;
	grants_use(&stage->grants, options);
	assert_ok(dmacore_peer_route(peers[0], machine->device, &route, NULL));
	assert_int_equal(route, DMACORE_PEER_BUS_ADDRESS);
	/* Under 32 bits, without a window, and with one, which both pages lie in. */
	for (unsigned i = 0; i < 4; i++) {
		set_masks(stage, i % 2 ? 64 : 32, i % 2 ? 64 : 32);
		assert_int_equal(explain(stage, LOW_BASE, PAGE, DMACORE_STREAMING, 0).path,
				 i % 2 ? DMACORE_PATH_DIRECT : DMACORE_PATH_OPS);
		assert_mapped_as_explained(stage, NEXT_BASE, DMACORE_PATH_BUS_ADDRESS,
					   DMACORE_REASON_PEER, PEER_BUS);
		assert_ok(dmacore_map_phys(twin, NEXT_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma));
		assert_int_equal(dma, PEER_BUS);
		assert_ok(dmacore_unmap(twin, dma, PAGE, DMACORE_TO_DEVICE, 0));
		if (i % 2)
			assert_mapped_as_explained(stage, HIGH_BASE, DMACORE_PATH_BUS_ADDRESS,
						   DMACORE_REASON_PEER, PEER_BUS_HIGH);
		else
			assert_refused_as_explained(
				stage, HIGH_BASE, DMACORE_REASON_PEER | DMACORE_REASON_ABOVE_LIMIT,
				ERANGE);
		assert_list_goes_both_ways(stage, i % 2 ? DMACORE_PATH_DIRECT : DMACORE_PATH_OPS,
					   i % 2 ? WINDOW_OFFSET + LOW_BASE : GRANT_BASE);
	}

	/* Not at all: neither by the window nor by functions that would map it. */
	options.bridge = plain;
	grants_use(&stage->grants, options);
	for (unsigned i = 0; i < 2; i++) {
		set_masks(stage, i ? 64 : 32, i ? 64 : 32);
		assert_refused_as_explained(stage, NEXT_BASE, DMACORE_REASON_PEER_UNREACHABLE,
					    EREMOTEIO);
	}
	dmacore_device_destroy(twin);
	dmacore_peer_destroy(peers[0]);
	dmacore_peer_destroy(peers[1]);
	dmacore_device_destroy(provider);

	/* Through the host bridge. */
	options = device_options(machine);
	options.bridge = across;
	assert_ok(dmacore_device_create(machine->system, &options, &provider));
	memory.phys = NEXT_BASE;
	memory.bus = PEER_BUS;
	assert_ok(dmacore_peer_create(provider, &memory, &peers[0]));
	options = grants_options(&stage->grants);
	options.bridge = over;
	grants_use(&stage->grants, options);
	assert_ok(dmacore_peer_route(peers[0], machine->device, &route, NULL));
	assert_int_equal(route, DMACORE_PEER_HOST_BRIDGE);
	assert_mapped_as_explained(
		stage, NEXT_BASE, DMACORE_PATH_OPS,
		DMACORE_REASON_OPS | DMACORE_REASON_NO_BYPASS | DMACORE_REASON_PEER, GRANT_BASE);
	/* Unless the functions refuse. */
	stage->grants.map_result = -EREMOTEIO;
	assert_fails_untouched(
		dmacore_map_phys(machine->device, NEXT_BASE, PAGE, DMACORE_BIDIRECTIONAL, 0, &dma),
		EREMOTEIO, dma);
	stage->grants.map_result = 0;
	dmacore_peer_destroy(peers[0]);
	dmacore_device_destroy(provider);
	grants_use(&stage->grants, grants_options(&stage->grants));
	dmacore_bridge_destroy(plain);
	dmacore_bridge_destroy(over);
	dmacore_bridge_destroy(across);
	dmacore_bridge_destroy(hub);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with(DIRECT, map__goes_by_the_functions),
		test_with(FLAT, map__goes_by_the_functions),
		test_with(DIRECT, map__tells_the_device_s_limits),
		test_with(DIRECT, view__reaches_what_is_mapped_alone),
		test_with(FLAT, view__reaches_what_is_mapped_alone),
		test_with(DIRECT, view__holds_what_is_unmapped),
		test_with(FLAT, view__holds_what_is_unmapped),
		test_with(DIRECT, sync__goes_by_the_functions),
		test_with(FLAT, sync__goes_by_the_functions),
		test_with(DIRECT, sync__is_nothing_where_there_is_no_function),
		test_with(DIRECT, map__fails_as_the_functions_do),
		test_with(FLAT, map__fails_as_the_functions_do),
		test_with(DIRECT, map__refuses_addresses_that_there_may_not_be),
		test_with(DIRECT, empty_table__refuses_each_entry_point_alike),
		test_with(FLAT, empty_table__refuses_each_entry_point_alike),
		test_with(DIRECT, device_create__refuses_what_does_not_go_together),
		test_with(DIRECT, device_create__checks_the_size_of_the_table),
		test_with(DIRECT, mask__is_asked_about_when_it_is_set),
		test_with(DIRECT, mask__that_is_refused_changes_nothing),
		test_with(DIRECT, device_create__fails_as_the_mask_does),
		test_with(DIRECT, window__that_is_none_is_refused),
		test_with(DIRECT, mask_32__goes_by_the_functions),
		test_with(DIRECT, mask_64__goes_by_the_window),
		test_with(DIRECT, window__has_memory_twice),
		test_with(DIRECT, back_to_32__leaves_direct_mappings_what_they_are),
		test_with(DIRECT, on_to_64__leaves_mappings_of_the_functions_theirs),
		test_with(DIRECT, streaming_is_direct__with_coherent_by_the_functions),
		test_with(DIRECT, coherent_is_direct__with_streaming_by_the_functions),
		test_with(DIRECT, masks__go_up_and_down_under_what_lives),
		test_with(DIRECT, window__is_obeyed_for_each_range),
		test_with(DIRECT, functions__map_whole_pages_alone_for_an_untrusted_device),
		test_with(DIRECT, window__is_nowhere_without_the_flag),
		test_with(DIRECT, window__is_all_memory_where_nobody_is_asked),
		test_with(DIRECT, window__is_not_where_another_mapping_is),
		test_with(DIRECT, alloc__has_memory_from_the_functions),
		test_with(DIRECT, alloc__that_fails_leaves_nothing),
		test_with(DIRECT, alloc__is_for_what_nothing_else_has),
		test_with(DIRECT, coherent__is_mapped_where_no_function_allocates),
		test_with(DIRECT, coherent_pool__has_pages_from_the_functions),
		test_with(DIRECT, device_destroy__undoes_what_lives_by_its_record),
		test_with(DIRECT, driver__that_leaves_mappings_leaves_none_to_the_functions),
		test_with(DIRECT, free__is_never_called_for_what_is_held),
		test_with(DIRECT, limits__are_what_the_functions_say),
		test_with(DIRECT, explanation__is_in_words),
		test_with(DIRECT, functions__may_call_the_library),
		cmocka_unit_test(caches__are_maintained_between_cpu_and_functions),
		test_with(DIRECT, peer__s_bus_addresses_are_no_others),
		test_with(DIRECT, peer__is_mapped_by_the_path_that_is_taken),
	};

	return run_group("mapping_ops", tests);
}
