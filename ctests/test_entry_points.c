/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Whichever call it is that maps or allocates, a device without a mask and one that nobody has configured
 * are refused alike, with nothing changed.
 */

#include "support/grants.h"
#include "support/pools.h"

#define SIZE (PAGE + 100)
#define PLACE (LOW_BASE + 2 * PAGE)

struct entry {
	const char *name;
	/* Which mask it goes by. */
	uint32_t kind;
	/* Makes the call, looks that outputs are as they were if it fails, and undoes it if not. */
	int (*call)(struct machine *machine);
	/* Which are not copied. */
	bool is_of_registers;
};

static int undo(struct machine *machine, int result, dmacore_dma_t dma, uint32_t attributes)
{
	if (result == 0)
		assert_ok(dmacore_unmap(machine->device, dma, SIZE, DMACORE_BIDIRECTIONAL,
					attributes));
	else
		assert_true(dma == UNTOUCHED);
	return result;
}

static int call_map_single(struct machine *machine)
{
	dmacore_dma_t dma = UNTOUCHED;
	int result = dmacore_map_single(machine->device, machine->low + 2 * PAGE, SIZE,
					DMACORE_BIDIRECTIONAL, 0, &dma);

	return undo(machine, result, dma, 0);
}

static int call_map_phys(struct machine *machine)
{
	dmacore_dma_t dma = UNTOUCHED;
	int result = dmacore_map_phys(machine->device, PLACE, SIZE, DMACORE_BIDIRECTIONAL, 0, &dma);

	return undo(machine, result, dma, 0);
}

static int call_map_phys_of_registers(struct machine *machine)
{
	dmacore_dma_t dma = UNTOUCHED;
	int result = dmacore_map_phys(machine->device, PLACE, SIZE, DMACORE_BIDIRECTIONAL,
				      DMACORE_ATTR_MMIO, &dma);

	return undo(machine, result, dma, DMACORE_ATTR_MMIO);
}

static int call_map_resource(struct machine *machine)
{
	dmacore_dma_t dma = UNTOUCHED;
	int result =
		dmacore_map_resource(machine->device, PLACE, SIZE, DMACORE_BIDIRECTIONAL, 0, &dma);

	return undo(machine, result, dma, DMACORE_ATTR_MMIO);
}

static int call_map_list(struct machine *machine)
{
	struct dmacore_sg list[2], before[2];
	size_t count = UNTOUCHED;
	int result;

	/* Bytes between the members are compared too. */
	memset(list, 0, sizeof(list));
	dmacore_sg_init(list, 2);
	dmacore_sg_set(&list[0], PLACE, SIZE, 0);
	dmacore_sg_set(&list[1], PLACE + 4 * PAGE, PAGE, 0);
	memcpy(before, list, sizeof(list));
	result = dmacore_map_list(machine->device, list, 2, DMACORE_BIDIRECTIONAL, 0, 0, &count);
	if (result == 0) {
		assert_ok(dmacore_unmap_list(machine->device, list, 2, DMACORE_BIDIRECTIONAL, 0));
		return 0;
	}
	assert_memory_equal(list, before, sizeof(list));
	assert_true(count == (size_t)UNTOUCHED);
	return result;
}

static int transfer(struct machine *machine, uint32_t flags)
{
	const struct dmacore_phys_range ranges[] = { { PLACE, PAGE, 0, 0 },
						     { PLACE + 4 * PAGE, PAGE, 0, 0 } };
	const struct dmacore_transfer empty = DMACORE_TRANSFER_EMPTY;
	struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;
	struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
	int result;

	request.ranges = ranges;
	request.count = 2;
	request.direction = DMACORE_BIDIRECTIONAL;
	request.flags = flags;
	result = dmacore_transfer_map(machine->device, &request, &transfer);
	if (result == 0)
		assert_ok(dmacore_transfer_unmap(machine->device, &transfer));
	assert_memory_equal(&transfer, &empty, sizeof(empty));
	return result;
}

static int call_transfer_map(struct machine *machine)
{
	return transfer(machine, 0);
}

static int call_transfer_map_replaceable(struct machine *machine)
{
	return transfer(machine, DMACORE_TRANSFER_REPLACEABLE);
}

static int call_iova_state_reserve(struct machine *machine)
{
	const struct dmacore_iova_state empty = DMACORE_IOVA_STATE_EMPTY;
	struct dmacore_iova_state range = DMACORE_IOVA_STATE_EMPTY;
	int result = dmacore_iova_state_reserve(machine->device, PLACE, SIZE, NULL, &range);

	if (result == 0)
		assert_ok(dmacore_iova_state_free(&range));
	assert_memory_equal(&range, &empty, sizeof(empty));
	return result;
}

static int call_iova_state_reserve_with_options(struct machine *machine)
{
	struct dmacore_iova_state_options options = DMACORE_IOVA_STATE_OPTIONS_INIT;
	const struct dmacore_iova_state empty = DMACORE_IOVA_STATE_EMPTY;
	struct dmacore_iova_state range = DMACORE_IOVA_STATE_EMPTY;
	int result;

	options.links = 4;
	options.flags = DMACORE_IOVA_STATE_PAGE_TABLES;
	result = dmacore_iova_state_reserve(machine->device, PLACE, SIZE, &options, &range);
	if (result == 0)
		assert_ok(dmacore_iova_state_free(&range));
	assert_memory_equal(&range, &empty, sizeof(empty));
	return result;
}

static int call_alloc_coherent(struct machine *machine)
{
	dmacore_dma_t dma = UNTOUCHED;
	void *cpu = machine;
	int result = dmacore_alloc_coherent(machine->device, SIZE, &cpu, &dma);

	if (result == 0)
		assert_ok(dmacore_free_coherent(machine->device, SIZE, cpu, dma));
	else
		assert_true(dma == UNTOUCHED && cpu == machine);
	return result;
}

static int call_alloc_noncontiguous(struct machine *machine)
{
	const struct dmacore_memory_segment *segments = NULL;
	dmacore_dma_t dma = UNTOUCHED;
	size_t count = UNTOUCHED;
	int result = dmacore_alloc_noncontiguous(machine->device, SIZE, DMACORE_BIDIRECTIONAL, 0,
						 &dma, &segments, &count);

	if (result == 0)
		assert_ok(dmacore_free_noncontiguous(machine->device, SIZE, dma));
	else
		assert_true(dma == UNTOUCHED && !segments && count == (size_t)UNTOUCHED);
	return result;
}

static int call_coherent_pool_alloc(struct machine *machine)
{
	struct dmacore_coherent_pool_options options = DMACORE_COHERENT_POOL_OPTIONS_INIT;
	struct dmacore_coherent_pool *pool;
	dmacore_dma_t dma = UNTOUCHED;
	void *cpu = machine;
	int result;

	options.size = 64;
	assert_ok(dmacore_coherent_pool_create(machine->device, &options, &pool));
	result = dmacore_coherent_pool_alloc(pool, &cpu, &dma);
	if (result == 0)
		assert_ok(dmacore_coherent_pool_free(pool, cpu, dma));
	else
		assert_true(dma == UNTOUCHED && cpu == machine);
	dmacore_coherent_pool_destroy(pool);
	return result;
}

#define STREAMING(function)                                   \
	{                                                     \
#function, DMACORE_STREAMING, function, false \
	}
#define REGISTERS(function)                                  \
	{                                                    \
#function, DMACORE_STREAMING, function, true \
	}
#define COHERENT(function)                                   \
	{                                                    \
#function, DMACORE_COHERENT, function, false \
	}

static const struct entry entries[] = {
	STREAMING(call_map_single),
	STREAMING(call_map_phys),
	REGISTERS(call_map_phys_of_registers),
	REGISTERS(call_map_resource),
	STREAMING(call_map_list),
	STREAMING(call_transfer_map),
	STREAMING(call_transfer_map_replaceable),
	STREAMING(call_iova_state_reserve),
	STREAMING(call_iova_state_reserve_with_options),
	COHERENT(call_alloc_coherent),
	STREAMING(call_alloc_noncontiguous),
	COHERENT(call_coherent_pool_alloc),
};

#define ENTRIES (sizeof(entries) / sizeof(entries[0]))

struct scene {
	struct machine machine;
	struct grants grants;
	struct dmacore_bounce_pool *pool;
};

struct way {
	const char *name;
	enum path path;
	/* Another type of domain. */
	uint32_t domain;
	uint32_t flags;
	bool has_pool;
	bool has_functions;
};

static const struct way ways[] = {
	{ "no IOMMU", DIRECT, 0, 0, false, false },
	{ "no IOMMU, tracked", TRACKED, 0, 0, false, false },
	{ "bounced", DIRECT, 0, DMACORE_DEVICE_FORCE_BOUNCE, true, false },
	{ "identity", IDENTITY, 0, 0, false, false },
	{ "DMA", TRANSLATED, 0, 0, false, false },
	{ "DMA, without records", TRANSLATED | HEAP_TABLES, 0, 0, false, false },
	{ "DMA, lazy", TRANSLATED, DMACORE_DOMAIN_DMA_LAZY, 0, false, false },
	{ "DMA, untrusted", TRANSLATED, 0, DMACORE_DEVICE_UNTRUSTED, true, false },
	{ "hybrid", TRANSLATED, DMACORE_DOMAIN_HYBRID, 0, false, false },
	{ "hybrid, tracked", TRANSLATED | TRACKED, DMACORE_DOMAIN_HYBRID, 0, false, false },
	{ "functions", DIRECT, 0, 0, false, true },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void scene_start(struct scene *scene, const struct way *way)
{
	memset(scene, 0, sizeof(*scene));
	machine_start(&scene->machine, way->path);
	if (way->domain)
		machine_use(&scene->machine, way->domain);
	grants_start(&scene->grants, &scene->machine);
	if (way->has_functions)
		grants_use(&scene->grants, grants_options(&scene->grants));
	else
		use_device(&scene->machine, way->flags, UINT64_MAX, way->has_pool ? 16 * PAGE : 0,
			   &scene->pool);
}

static void scene_stop(struct scene *scene)
{
	struct dmacore_bounce_pool *pool = scene->pool;

	if (pool) {
		assert_int_equal(used_slots(pool), 0);
		end_pool(&scene->machine, pool);
	}
	machine_stop(&scene->machine);
	grants_stop(&scene->grants);
}

/* All that a call may have changed. */
struct everything {
	struct snapshot snapshot;
	unsigned allocator_calls;
	unsigned asked;
	uint64_t slots;
};

static struct everything look(struct scene *scene)
{
	struct everything all;

	memset(&all, 0, sizeof(all));
	all.snapshot = take_snapshot(&scene->machine);
	all.allocator_calls = scene->machine.pool.calls;
	all.asked = scene->grants.map_count + scene->grants.unmap_count + scene->grants.sync_count +
		    scene->grants.supported_count;
	all.slots = scene->pool ? used_slots(scene->pool) : 0;
	return all;
}

static void assert_refused(struct scene *scene, const char *way, const struct entry *entry,
			   int error)
{
	struct everything before = look(scene), after;
	int result = entry->call(&scene->machine);

	if (result != -error)
		fail_msg("%s: %s gave %d instead of %d", way, entry->name, result, -error);
	after = look(scene);
	assert_memory_equal(&before, &after, sizeof(after));
	assert_no_reports(&scene->machine.reports);
}

static void set_masks(struct scene *scene, uint64_t streaming, uint64_t coherent)
{
	struct dmacore_device *device = scene->machine.device;

	assert_ok(dmacore_device_set_streaming_mask(device, streaming, NULL));
	assert_ok(dmacore_device_set_coherent_mask(device, coherent, NULL));
}

static void no_mask__is_refused_by_each_entry_point_alike(void **state)
{
	struct scene *scene = malloc(sizeof(*scene));

	(void)state;
	assert_non_null(scene);
	for (unsigned i = 0; i < WAYS; i++) {
		scene_start(scene, &ways[i]);
		for (unsigned j = 0; j < ENTRIES; j++) {
			const struct entry *entry = &entries[j];
			const bool is_streaming = entry->kind == DMACORE_STREAMING;
			int result;

			set_masks(scene, 0, 0);
			assert_refused(scene, ways[i].name, entry, ENXIO);
			/* One mask does not stand for the other. */
			set_masks(scene, is_streaming ? 0 : UINT64_MAX,
				  is_streaming ? UINT64_MAX : 0);
			assert_refused(scene, ways[i].name, entry, ENXIO);
			/* Nothing else was wrong with the call. */
			set_masks(scene, is_streaming ? UINT64_MAX : 0,
				  is_streaming ? 0 : UINT64_MAX);
			result = entry->call(&scene->machine);
			if (result != (entry->is_of_registers && ways[i].has_pool ? -ERANGE : 0))
				fail_msg("%s: %s gave %d with a mask", ways[i].name, entry->name,
					 result);
		}
		scene_stop(scene);
	}
	free(scene);
}

/* What is reserved and registered lives on without a mask, and nothing new comes into either. */
static void no_mask__leaves_what_is_reserved_and_registered(void **state)
{
	const struct dmacore_phys_range range = { PLACE, PAGE, 0, 0 };
	struct scene *scene = malloc(sizeof(*scene));

	(void)state;
	assert_non_null(scene);
	for (unsigned i = 0; i < WAYS; i++) {
		struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;
		struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
		struct dmacore_iova_state reserved = DMACORE_IOVA_STATE_EMPTY;
		struct dmacore_transfer_iterator iterator;
		struct dmacore_segment segment;
		struct machine *machine = &scene->machine;
		struct everything before, after;
		uint8_t byte = 0;
		size_t count;

		scene_start(scene, &ways[i]);
		request.ranges = &range;
		request.count = 1;
		request.direction = DMACORE_BIDIRECTIONAL;
		request.flags = DMACORE_TRANSFER_REPLACEABLE;
		machine->low[2 * PAGE + 7] = 77;
		assert_ok(dmacore_transfer_map(machine->device, &request, &transfer));
		assert_ok(
			dmacore_iova_state_reserve(machine->device, PLACE, PAGE, NULL, &reserved));
		assert_int_equal(dmacore_iova_state_is_reserved(&reserved),
				 ways[i].path & TRANSLATED &&
					 ways[i].domain != DMACORE_DOMAIN_HYBRID);
		set_masks(scene, 0, 0);
		before = look(scene);
		assert_fails(dmacore_transfer_replace(machine->device, &transfer, 0,
						      PLACE + 4 * PAGE, PAGE),
			     ENXIO);
		after = look(scene);
		assert_memory_equal(&before, &after, sizeof(after));
		assert_ok(
			dmacore_transfer_begin(machine->device, &request, &transfer, 0, &iterator));
		assert_ok(dmacore_transfer_next(&iterator, &segment, 1, &count));
		assert_int_equal(count, 1);
		assert_ok(dmacore_view_read(machine->view, segment.dma + 7, &byte, 1));
		assert_int_equal(byte, 77);
		if (dmacore_iova_state_is_reserved(&reserved)) {
			assert_fails(dmacore_iova_state_link(&reserved, 0, PLACE, PAGE,
							     DMACORE_BIDIRECTIONAL, 0),
				     ENXIO);
			after = look(scene);
			assert_memory_equal(&before, &after, sizeof(after));
			/* The range is good for as long as it is reserved. */
			set_masks(scene, UINT64_MAX, 0);
			assert_ok(dmacore_iova_state_link(&reserved, 0, PLACE, PAGE,
							  DMACORE_BIDIRECTIONAL, 0));
			set_masks(scene, 0, 0);
			byte = 0;
			assert_ok(dmacore_view_read(machine->view,
						    dmacore_iova_state_address(&reserved) + 7,
						    &byte, 1));
			assert_int_equal(byte, 77);
		}
		assert_ok(dmacore_iova_state_destroy(&reserved));
		assert_ok(dmacore_transfer_unmap(machine->device, &transfer));
		scene_stop(scene);
	}
	free(scene);
}

/* With masks and without: nobody has said what they mean. */
static void empty_table__is_refused_by_each_entry_point_alike(void **state)
{
	static const struct dmacore_mapping_ops empty = DMACORE_MAPPING_OPS_INIT;
	struct scene *scene = malloc(sizeof(*scene));

	(void)state;
	assert_non_null(scene);
	for (unsigned has_mask = 0; has_mask < 2; has_mask++) {
		struct dmacore_device_options options;

		scene_start(scene, &ways[WAYS - 1]);
		options = grants_options(&scene->grants);
		options.mapping_ops = &empty;
		options.streaming_mask = options.coherent_mask = has_mask ? UINT64_MAX : 0;
		grants_use(&scene->grants, options);
		for (unsigned j = 0; j < ENTRIES; j++)
			assert_refused(scene, "empty table", &entries[j], EPERM);
		scene_stop(scene);
	}
	free(scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_mask__is_refused_by_each_entry_point_alike),
		cmocka_unit_test(no_mask__leaves_what_is_reserved_and_registered),
		cmocka_unit_test(empty_table__is_refused_by_each_entry_point_alike),
	};

	return run_group("entry_points", tests);
}
