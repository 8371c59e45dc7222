/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Masks that change under live mappings. Whatever they become, the device reads and writes through each
 * mapping what it was made for, and each is undone as it was made.
 */

#include "support/grants.h"
#include "support/pools.h"

/* What begins at one page and ends on the next, so that all may be bounced that can be. */
#define OFFSET 7
#define SIZE (PAGE + 100)

enum stage_number { NARROW, WIDE, AGAIN, STAGES };

/* In each stage memory below 4 GiB, memory above, and memory that is allocated. */
enum what { BELOW, ABOVE, QUEUE, WHATS };

#define LIVE (STAGES * WHATS)

struct way {
	const char *name;
	enum path path;
	/* Another type of domain. */
	uint32_t domain;
	bool has_pool, has_functions;
	/* Whether a record is kept of what is direct. */
	bool is_recorded;
	uint32_t paths[STAGES][WHATS];
};

#define DIRECT_ DMACORE_PATH_DIRECT
#define BOUNCED_ DMACORE_PATH_BOUNCED
#define IOMMU_ DMACORE_PATH_IOMMU
#define OPS_ DMACORE_PATH_OPS

static const struct way ways[] = {
	{ "no IOMMU", DIRECT, .has_pool = true,
	  .paths = { { DIRECT_, BOUNCED_, DIRECT_ },
		     { DIRECT_, DIRECT_, DIRECT_ },
		     { DIRECT_, BOUNCED_, DIRECT_ } } },
	{ "no IOMMU, tracked", TRACKED, .has_pool = true, .is_recorded = true,
	  .paths = { { DIRECT_, BOUNCED_, DIRECT_ },
		     { DIRECT_, DIRECT_, DIRECT_ },
		     { DIRECT_, BOUNCED_, DIRECT_ } } },
	{ "identity", IDENTITY, .has_pool = true,
	  .paths = { { DIRECT_, BOUNCED_, DIRECT_ },
		     { DIRECT_, DIRECT_, DIRECT_ },
		     { DIRECT_, BOUNCED_, DIRECT_ } } },
	{ "DMA", TRANSLATED, .is_recorded = true,
	  .paths = { { IOMMU_, IOMMU_, IOMMU_ },
		     { IOMMU_, IOMMU_, IOMMU_ },
		     { IOMMU_, IOMMU_, IOMMU_ } } },
	{ "DMA, small mappings without records", TRANSLATED | HEAP_TABLES, .is_recorded = true,
	  .paths = { { IOMMU_, IOMMU_, IOMMU_ },
		     { IOMMU_, IOMMU_, IOMMU_ },
		     { IOMMU_, IOMMU_, IOMMU_ } } },
	{ "hybrid", TRANSLATED, DMACORE_DOMAIN_HYBRID,
	  .paths = { { DIRECT_, IOMMU_, IOMMU_ },
		     { DIRECT_, DIRECT_, DIRECT_ },
		     { DIRECT_, IOMMU_, DIRECT_ } } },
	{ "hybrid, tracked", TRANSLATED | TRACKED | HEAP_TABLES, DMACORE_DOMAIN_HYBRID,
	  .is_recorded = true,
	  .paths = { { DIRECT_, IOMMU_, IOMMU_ },
		     { DIRECT_, DIRECT_, DIRECT_ },
		     { DIRECT_, IOMMU_, DIRECT_ } } },
	{ "functions", DIRECT, .has_functions = true, .is_recorded = true,
	  .paths = { { OPS_, OPS_, OPS_ },
		     { DIRECT_, DIRECT_, DIRECT_ },
		     { OPS_, OPS_, DIRECT_ } } },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

struct live {
	bool is_there;
	bool is_queue;
	uint32_t path;
	dmacore_dma_t dma;
	uint8_t *memory;
	uint64_t size;
};

struct scene {
	const struct way *way;
	struct machine machine;
	struct grants grants;
	struct dmacore_bounce_pool *pool;
	struct live live[LIVE];
	uint64_t seed;
};

static void scene_start(struct scene *scene, const struct way *way)
{
	memset(scene, 0, sizeof(*scene));
	scene->way = way;
	machine_start(&scene->machine, way->path);
	if (way->domain)
		machine_use(&scene->machine, way->domain);
	fill_memory(&scene->machine);
	grants_start(&scene->grants, &scene->machine);
	if (way->has_functions)
		grants_use(&scene->grants, grants_options(&scene->grants));
	else
		use_device(&scene->machine, 0, 0, way->has_pool ? 16 * PAGE : 0, &scene->pool);
	assert_ok(dmacore_device_set_mask(scene->machine.device, 0, NULL));
}

/* Nothing is left, and machine_stop() looks that nothing was reported and nothing faulted. */
static void scene_stop(struct scene *scene)
{
	struct machine *machine = &scene->machine;

	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	if (machine->domain)
		assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
	assert_no_faults(machine);
	if (scene->pool) {
		assert_int_equal(used_slots(scene->pool), 0);
		end_pool(machine, scene->pool);
	}
	machine_stop(machine);
	grants_stop(&scene->grants);
	assert_int_equal(scene->grants.map_count, scene->grants.unmap_count);
}

static uint32_t listed_path(struct scene *scene, dmacore_dma_t dma)
{
	struct dmacore_mapping_info info;
	size_t count;

	assert_ok(dmacore_device_list_mappings(scene->machine.device, dma, dma, &info, 1, &count));
	return count > 0 ? info.path : DMACORE_PATH_REFUSED;
}

/* What a mapping promises: bytes go both ways, where there is a copy not before they are synced. */
static void assert_promised(struct scene *scene, const struct live *live)
{
	struct dmacore_device *device = scene->machine.device;
	struct dmacore_view *view = scene->machine.view;
	uint8_t bytes[SIZE], before[SIZE];
	const bool is_copied = live->path == DMACORE_PATH_BOUNCED;

	fill(live->memory, live->size, ++scene->seed);
	if (!live->is_queue)
		assert_ok(dmacore_sync_for_device(device, live->dma, live->size,
						  DMACORE_BIDIRECTIONAL));
	memcpy(before, live->memory, live->size);
	assert_ok(dmacore_view_read(view, live->dma, bytes, live->size));
	assert_memory_equal(bytes, before, live->size);
	fill(bytes, live->size, ++scene->seed);
	assert_ok(dmacore_view_write(view, live->dma, bytes, live->size));
	assert_memory_equal(live->memory, is_copied ? before : bytes, live->size);
	if (!live->is_queue)
		assert_ok(
			dmacore_sync_for_cpu(device, live->dma, live->size, DMACORE_BIDIRECTIONAL));
	assert_memory_equal(live->memory, bytes, live->size);
}

static void assert_all_promised(struct scene *scene)
{
	for (unsigned i = 0; i < LIVE; i++)
		if (scene->live[i].is_there)
			assert_promised(scene, &scene->live[i]);
}

static void assert_made(struct scene *scene, const struct live *live, uint64_t mask)
{
	uint32_t listed = listed_path(scene, live->dma);

	assert_true(live->dma + (live->size - 1) <= mask);
	if (listed != live->path && (scene->way->is_recorded || live->path != DMACORE_PATH_DIRECT ||
				     listed != DMACORE_PATH_REFUSED))
		fail_msg("%s: mapping %zu has path %u instead of %u", scene->way->name,
			 live - scene->live, listed, live->path);
}

/* Maps by the masks that there are now. */
static void map_stage(struct scene *scene, enum stage_number stage, uint64_t streaming,
		      uint64_t coherent)
{
	struct machine *machine = &scene->machine;
	struct live *live = &scene->live[stage * WHATS];
	void *cpu;

	for (unsigned what = 0; what < WHATS; what++) {
		uint8_t *memory = what == BELOW ? machine->low : machine->high;

		live[what].is_there = true;
		live[what].is_queue = what == QUEUE;
		live[what].path = scene->way->paths[stage][what];
		if (what == QUEUE) {
			live[what].size = PAGE;
			assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu,
							 &live[what].dma));
			live[what].memory = cpu;
		} else {
			live[what].size = SIZE;
			live[what].memory = memory + stage * 3 * PAGE + OFFSET;
			live[what].dma =
				map_for(machine, live[what].memory, SIZE, DMACORE_BIDIRECTIONAL);
		}
		assert_made(scene, &live[what], what == QUEUE ? coherent : streaming);
		assert_all_promised(scene);
	}
}

static void end_live(struct scene *scene, struct live *live)
{
	struct machine *machine = &scene->machine;
	uint8_t bytes[SIZE];

	fill(bytes, live->size, ++scene->seed);
	assert_ok(dmacore_view_write(machine->view, live->dma, bytes, live->size));
	if (live->is_queue) {
		assert_memory_equal(live->memory, bytes, live->size);
		assert_ok(dmacore_free_coherent(machine->device, live->size, live->memory,
						live->dma));
	} else {
		assert_ok(dmacore_unmap(machine->device, live->dma, live->size,
					DMACORE_BIDIRECTIONAL, 0));
		assert_memory_equal(live->memory, bytes, live->size);
	}
	live->is_there = false;
}

/* The order of a controller that is wide and whose devices are not: 32 bits, 64, and 32 for buffers. */
static void masks__go_up_and_down_for_buffers_alone(void **state)
{
	/* Each goes once around all of them, in an order of its own. */
	static const unsigned strides[] = { 1, LIVE - 1, 2, 4, 5 };
	const uint64_t narrow = DMACORE_BIT_MASK(32), wide = DMACORE_BIT_MASK(64);
	struct scene *scene = malloc(sizeof(*scene));

	(void)state;
	assert_non_null(scene);
	for (unsigned i = 0; i < WAYS * 5; i++) {
		struct dmacore_device *device;

		scene_start(scene, &ways[i / 5]);
		device = scene->machine.device;
		assert_ok(dmacore_device_set_mask(device, narrow, NULL));
		map_stage(scene, NARROW, narrow, narrow);
		assert_ok(dmacore_device_set_mask(device, wide, NULL));
		assert_all_promised(scene);
		map_stage(scene, WIDE, wide, wide);
		assert_ok(dmacore_device_set_streaming_mask(device, narrow, NULL));
		assert_all_promised(scene);
		map_stage(scene, AGAIN, narrow, wide);
		/* What is undone does not depend on the masks that there are then. */
		if (i % 2)
			assert_ok(dmacore_device_set_mask(device, 0, NULL));
		for (unsigned j = 0; j < LIVE; j++) {
			end_live(scene, &scene->live[(j + 3) * strides[i % 5] % LIVE]);
			assert_all_promised(scene);
		}
		for (unsigned j = 0; j < LIVE; j++)
			assert_false(scene->live[j].is_there);
		scene_stop(scene);
	}
	free(scene);
}

/* Buffers have their own addresses where queues have not, and both are live. */
static void buffers_are_direct__beside_queues_that_are_not(void **state)
{
	static const struct way both[] = {
		{ "hybrid", TRANSLATED, DMACORE_DOMAIN_HYBRID, .is_recorded = false },
		{ "hybrid, tracked", TRANSLATED | TRACKED | HEAP_TABLES, DMACORE_DOMAIN_HYBRID,
		  .is_recorded = true },
		{ "functions", DIRECT, .has_functions = true, .is_recorded = true },
	};
	struct scene *scene = malloc(sizeof(*scene));

	(void)state;
	assert_non_null(scene);
	for (unsigned i = 0; i < 3; i++) {
		struct live *buffer = &scene->live[0], *queue = &scene->live[1];
		uint64_t offset = both[i].has_functions ? WINDOW_OFFSET : 0;
		struct machine *machine = &scene->machine;
		void *cpu;

		scene_start(scene, &both[i]);
		assert_ok(dmacore_device_set_streaming_mask(machine->device, UINT64_MAX, NULL));
		/* Covers none of the machine's memory. */
		assert_ok(dmacore_device_set_coherent_mask(machine->device, DMACORE_BIT_MASK(31),
							   NULL));
		*buffer = (struct live){ .is_there = true,
					 .path = DMACORE_PATH_DIRECT,
					 .memory = machine->high + OFFSET,
					 .size = SIZE };
		*queue = (struct live){ .is_there = true,
					.is_queue = true,
					.path = i < 2 ? DMACORE_PATH_IOMMU : DMACORE_PATH_OPS,
					.size = PAGE };
		buffer->dma = map_for(machine, buffer->memory, SIZE, DMACORE_BIDIRECTIONAL);
		assert_int_equal(buffer->dma, HIGH_BASE + OFFSET + offset);
		assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &queue->dma));
		queue->memory = cpu;
		assert_made(scene, buffer, UINT64_MAX);
		assert_made(scene, queue, DMACORE_BIT_MASK(31));
		assert_all_promised(scene);
		assert_false(dmacore_need_sync(machine->device, buffer->dma));
		assert_ok(dmacore_sync_for_cpu(machine->device, buffer->dma + 11, 50,
					       DMACORE_BIDIRECTIONAL));
		assert_ok(dmacore_sync_for_device(machine->device, buffer->dma + 11, 50,
						  DMACORE_BIDIRECTIONAL));
		/* A queue is no buffer that changes hands. */
		assert_misuse(machine, dmacore_sync_for_cpu(machine->device, queue->dma + 11, 50,
							    DMACORE_BIDIRECTIONAL));
		assert_misuse(machine, dmacore_sync_for_device(machine->device, queue->dma + 11, 50,
							       DMACORE_BIDIRECTIONAL));
		assert_int_equal(scene->grants.sync_count, 0);
		assert_all_promised(scene);
		/* The one that came first goes first, and the other stays. */
		end_live(scene, buffer);
		assert_all_promised(scene);
		end_live(scene, queue);
		scene_stop(scene);
	}
	free(scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(masks__go_up_and_down_for_buffers_alone),
		cmocka_unit_test(buffers_are_direct__beside_queues_that_are_not),
	};

	return run_group("masks", tests);
}
