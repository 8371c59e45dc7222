/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Devices that do not see the caches of the processors: for what, and for nothing else, caches and memory
 * are made to agree.
 */

#include "support/machine.h"

struct call {
	dmacore_phys_t phys;
	uint64_t size;
	uint32_t direction;
	bool is_for_cpu;
};

struct cache {
	struct call at[16];
	unsigned count;
	unsigned taken;
};

/* A system of its own, because the machine's has nothing to maintain. */
struct stage {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct cache cache;
	uint8_t *memory;
	bool is_used;
	/* Memory for a bounce pool, if there is one. */
	uint8_t *copies;
	struct dmacore_bounce_pool *pool;
};

#define COPIES_BASE UINT64_C(0x10000000)
#define COPIES_SIZE (32 * PAGE)

static void cache_record(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
			 void *opaque)
{
	struct cache *cache = opaque;

	cache->at[cache->count++ % 16] = (struct call){ phys, size, direction, is_for_cpu };
}

static void *pool_allocate(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque)
{
	struct stage *stage = opaque;

	(void)limit;
	assert_int_equal(alignment, PAGE);
	/* A bounce pool's, all at once. */
	if (size == COPIES_SIZE)
		return stage->copies;
	assert_true(size == PAGE && !stage->is_used);
	stage->is_used = true;
	return stage->memory + RAM_SIZE - PAGE;
}

static void pool_free(void *host, uint64_t size, void *opaque)
{
	struct stage *stage = opaque;

	(void)host;
	if (size == PAGE)
		stage->is_used = false;
}

static void stage_start(struct stage *stage, uint32_t type, bool has_ranges)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_memory_allocator allocator = DMACORE_MEMORY_ALLOCATOR_INIT;
	struct dmacore_domain_options domain = DMACORE_DOMAIN_OPTIONS_INIT;
	const struct dmacore_dma_range range = { 0x100000, LOW_BASE, RAM_SIZE };

	memset(stage, 0, sizeof(*stage));
	allocator.allocate = pool_allocate;
	allocator.free = pool_free;
	allocator.opaque = stage;
	system.memory_allocator = &allocator;
	system.cache = cache_record;
	system.cache_opaque = &stage->cache;
	assert_ok(dmacore_system_create(&system, &stage->system));
	stage->memory = aligned_alloc(PAGE, RAM_SIZE);
	assert_non_null(stage->memory);
	add_host_region(stage->system, LOW_BASE, RAM_SIZE, stage->memory, 0);
	device.flags = DMACORE_DEVICE_NONCOHERENT;
	device.streaming_mask = device.coherent_mask = UINT64_MAX;
	if (has_ranges) {
		device.ranges = &range;
		device.range_count = 1;
	}
	if (type) {
		assert_ok(dmacore_iommu_create(stage->system, NULL, &stage->iommu));
		device.iommu = stage->iommu;
		domain.type = type;
		assert_ok(dmacore_domain_create(stage->iommu, &domain, &stage->domain));
	}
	assert_ok(dmacore_device_create(stage->system, &device, &stage->device));
	if (type)
		assert_ok(dmacore_domain_attach(stage->domain, stage->device));
}

static void stage_stop(struct stage *stage)
{
	assert_int_equal(stage->cache.taken, stage->cache.count);
	dmacore_device_destroy(stage->device);
	dmacore_domain_destroy(stage->domain);
	dmacore_iommu_destroy(stage->iommu);
	dmacore_system_destroy(stage->system);
	free(stage->memory);
}

/* Exactly one call, with just this. */
static void assert_maintained(struct stage *stage, uint64_t offset, uint64_t size,
			      uint32_t direction, bool is_for_cpu)
{
	const struct call *call = &stage->cache.at[stage->cache.taken % 16];

	assert_int_equal(stage->cache.count, ++stage->cache.taken);
	assert_int_equal(call->phys, LOW_BASE + offset);
	assert_int_equal(call->size, size);
	assert_int_equal(call->direction, direction);
	assert_int_equal(call->is_for_cpu, is_for_cpu);
}

static void assert_nothing_maintained(struct stage *stage)
{
	assert_int_equal(stage->cache.count, stage->cache.taken);
}

/* The paths that a device may have: a type of domain, or 0 for no IOMMU. */
static const uint32_t paths[] = { 0, DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
				  DMACORE_DOMAIN_DMA_LAZY, DMACORE_DOMAIN_HYBRID };

static void caches__are_maintained_where_a_buffer_changes_hands(void **state)
{
	(void)state;
	for (unsigned way = 0; way < 10; way++) {
		struct stage stage;
		const uint64_t offset = PAGE + 100;

		stage_start(&stage, paths[way / 2], way % 2);
		for (uint32_t direction = 0; direction < 3; direction++) {
			bool writes = direction != DMACORE_TO_DEVICE;
			dmacore_dma_t dma;

			assert_ok(dmacore_map_single(stage.device, stage.memory + offset, 2 * PAGE,
						     direction, 0, &dma));
			assert_maintained(&stage, offset, 2 * PAGE, direction, false);
			/* A part is maintained in part. */
			assert_ok(dmacore_sync_for_cpu(stage.device, dma + PAGE, 10, direction));
			if (writes)
				assert_maintained(&stage, offset + PAGE, 10, direction, true);
			assert_nothing_maintained(&stage);
			assert_ok(dmacore_sync_for_device(stage.device, dma + 7, 9, direction));
			assert_maintained(&stage, offset + 7, 9, direction, false);
			assert_ok(dmacore_unmap(stage.device, dma, 2 * PAGE, direction, 0));
			if (writes)
				assert_maintained(&stage, offset, 2 * PAGE, direction, true);
			assert_nothing_maintained(&stage);
		}
		stage_stop(&stage);
	}
}

/* Each of these bytes once, for just this, and no others. */
static void assert_ranges_maintained(struct stage *stage, const struct dmacore_phys_range *ranges,
				     size_t count, uint32_t direction, bool is_for_cpu)
{
	static uint8_t marks[RAM_SIZE];

	memset(marks, 0, sizeof(marks));
	assert_true(stage->cache.count - stage->cache.taken <= 16);
	for (; stage->cache.taken < stage->cache.count; stage->cache.taken++) {
		const struct call *call = &stage->cache.at[stage->cache.taken % 16];

		assert_int_equal(call->direction, direction);
		assert_int_equal(call->is_for_cpu, is_for_cpu);
		for (uint64_t i = 0; i < call->size; i++)
			marks[call->phys - LOW_BASE + i]++;
	}
	for (size_t i = 0; i < count; i++) {
		for (uint64_t j = 0; j < ranges[i].size; j++)
			assert_int_equal(marks[ranges[i].phys - LOW_BASE + j]--, 1);
	}
	for (size_t i = 0; i < RAM_SIZE; i++)
		assert_int_equal(marks[i], 0);
}

/* As single mappings: all of it, what is synced of it, and all that the device may have written. */
static void caches__are_maintained_where_a_transfer_changes_hands(void **state)
{
	(void)state;
	for (unsigned way = 0; way < 40; way++) {
		const bool meets = way / 10 % 2 == 0;
		struct dmacore_phys_range ranges[3] = {
			{ LOW_BASE + 2 * PAGE - 100, 100, 0, 0 },
			{ LOW_BASE + 4 * PAGE, 2 * PAGE, 0, 0 },
			{ LOW_BASE + 9 * PAGE, meets ? 77 : 7, 0, 0 },
		};
		struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;
		struct stage stage;

		/* What does not meet at pages; and a registration, which has to. */
		if (!meets && way < 20)
			ranges[1].phys += 8;
		request.ranges = ranges;
		request.count = 3;
		request.flags = way >= 20 ? DMACORE_TRANSFER_REPLACEABLE : 0;
		stage_start(&stage, paths[way / 2 % 5], way % 2);
		for (uint32_t direction = 0; direction < 3; direction++) {
			struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
			const bool writes = direction != DMACORE_TO_DEVICE;
			const struct dmacore_phys_range part[2] = {
				{ ranges[0].phys + 93, 7, 0, 0 },
				{ ranges[1].phys, 5, 0, 0 },
			};

			request.direction = direction;
			assert_ok(dmacore_transfer_map(stage.device, &request, &transfer));
			assert_ranges_maintained(&stage, ranges, 3, direction, false);
			assert_ok(dmacore_transfer_sync_for_cpu(stage.device, &transfer, 93, 12));
			assert_ranges_maintained(&stage, part, writes ? 2 : 0, direction, true);
			assert_ok(
				dmacore_transfer_sync_for_device(stage.device, &transfer, 93, 12));
			assert_ranges_maintained(&stage, part, 2, direction, false);
			assert_ok(dmacore_transfer_unmap(stage.device, &transfer));
			assert_ranges_maintained(&stage, ranges, writes ? 3 : 0, direction, true);
			/* Nothing is, if the caller says that it syncs by itself. */
			request.attributes = DMACORE_ATTR_SKIP_CPU_SYNC;
			assert_ok(dmacore_transfer_map(stage.device, &request, &transfer));
			assert_ok(dmacore_transfer_unmap(stage.device, &transfer));
			assert_nothing_maintained(&stage);
			request.attributes = 0;
		}
		stage_stop(&stage);
	}
}

static void caches__are_maintained_for_what_is_replaced(void **state)
{
	(void)state;
	for (unsigned way = 0; way < 10; way++) {
		struct dmacore_phys_range ranges[3] = {
			{ LOW_BASE + PAGE, PAGE, 0, 0 },
			{ LOW_BASE + 4 * PAGE, PAGE, 0, 0 },
			{ LOW_BASE + 9 * PAGE, PAGE, 0, 0 },
		};
		struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;
		struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
		struct stage stage;

		request.ranges = ranges;
		request.count = 3;
		request.direction = DMACORE_TO_DEVICE;
		request.flags = DMACORE_TRANSFER_REPLACEABLE;
		stage_start(&stage, paths[way / 2], way % 2);
		assert_ok(dmacore_transfer_map(stage.device, &request, &transfer));
		assert_ranges_maintained(&stage, ranges, 3, DMACORE_TO_DEVICE, false);
		ranges[1].phys = LOW_BASE + 6 * PAGE;
		assert_ok(dmacore_transfer_replace(stage.device, &transfer, PAGE, ranges[1].phys,
						   PAGE));
		assert_maintained(&stage, 6 * PAGE, PAGE, DMACORE_TO_DEVICE, false);
		assert_ok(dmacore_transfer_unmap(stage.device, &transfer));
		request.direction = DMACORE_FROM_DEVICE;
		assert_ok(dmacore_transfer_map(stage.device, &request, &transfer));
		assert_ranges_maintained(&stage, ranges, 3, DMACORE_FROM_DEVICE, false);
		assert_ok(dmacore_transfer_replace(stage.device, &transfer, PAGE,
						   LOW_BASE + 4 * PAGE, PAGE));
		/* The old memory is the CPU's again, before the new is the device's. */
		assert_int_equal(stage.cache.count, stage.cache.taken + 2);
		assert_true(stage.cache.at[stage.cache.taken % 16].is_for_cpu);
		assert_int_equal(stage.cache.at[stage.cache.taken++ % 16].phys,
				 LOW_BASE + 6 * PAGE);
		assert_maintained(&stage, 4 * PAGE, PAGE, DMACORE_FROM_DEVICE, false);
		ranges[1].phys = LOW_BASE + 4 * PAGE;
		assert_ok(dmacore_transfer_unmap(stage.device, &transfer));
		assert_ranges_maintained(&stage, ranges, 3, DMACORE_FROM_DEVICE, true);
		stage_stop(&stage);
	}
}

/* A device that has copies: of all that is not whole pages, or of what lies above a mask. */
static void bouncing_start(struct stage *stage, uint32_t type, uint64_t mask)
{
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;

	stage_start(stage, type, false);
	dmacore_device_destroy(stage->device);
	stage->copies = aligned_alloc(PAGE, COPIES_SIZE);
	assert_non_null(stage->copies);
	add_host_region(stage->system, COPIES_BASE, COPIES_SIZE, stage->copies, 0);
	pool.size = pool.size_max = COPIES_SIZE;
	assert_ok(dmacore_bounce_pool_create(stage->system, &pool, &stage->pool));
	options.iommu = stage->iommu;
	options.flags = DMACORE_DEVICE_NONCOHERENT;
	if (mask == UINT64_MAX)
		options.flags |= DMACORE_DEVICE_FORCE_BOUNCE;
	options.streaming_mask = mask;
	options.bounce_pool = stage->pool;
	assert_ok(dmacore_device_create(stage->system, &options, &stage->device));
	if (type)
		assert_ok(dmacore_domain_attach(stage->domain, stage->device));
	assert_nothing_maintained(stage);
}

static void bouncing_stop(struct stage *stage)
{
	assert_int_equal(device_statistics(stage->device).mapping_count, 0);
	dmacore_device_destroy(stage->device);
	stage->device = NULL;
	dmacore_bounce_pool_destroy(stage->pool);
	stage_stop(stage);
	free(stage->copies);
}

#define SPANS_MAX 16

/* Runs of memory that a device's addresses lead to. */
struct spans {
	struct dmacore_phys_range at[SPANS_MAX];
	unsigned count;
};

static uint64_t phys_of(struct stage *stage, dmacore_dma_t dma)
{
	struct dmacore_translation found;

	if (!stage->domain || dmacore_domain_translate(stage->domain, dma, 0, &found) == -ENOENT)
		return dma;
	return found.target + (dma - found.first);
}

/* Those of a mapping or of a segment, which go on where the last ones ended only if they are of it too. */
static void add_spans(struct stage *stage, struct spans *spans, dmacore_dma_t dma, uint64_t size)
{
	bool is_first = true;

	while (size > 0) {
		uint64_t part = PAGE - dma % PAGE < size ? PAGE - dma % PAGE : size;
		uint64_t phys = phys_of(stage, dma);
		struct dmacore_phys_range *last = &spans->at[spans->count - 1];

		if (!is_first && last->phys + last->size == phys) {
			last->size += part;
		} else {
			assert_true(spans->count < SPANS_MAX);
			spans->at[spans->count++] = (struct dmacore_phys_range){ phys, part, 0, 0 };
		}
		is_first = false;
		dma += part;
		size -= part;
	}
}

/* One call for each run, in any order, and no other. */
static void assert_spans_maintained(struct stage *stage, const struct spans *spans,
				    uint32_t direction, bool is_for_cpu)
{
	assert_int_equal(stage->cache.count - stage->cache.taken, spans->count);
	for (unsigned i = 0; i < spans->count; i++) {
		unsigned found = 0;

		for (unsigned j = stage->cache.taken; j < stage->cache.count; j++) {
			const struct call *call = &stage->cache.at[j % 16];

			assert_int_equal(call->direction, direction);
			assert_int_equal(call->is_for_cpu, is_for_cpu);
			found += call->phys == spans->at[i].phys && call->size == spans->at[i].size;
		}
		assert_int_equal(found, 1);
	}
	stage->cache.taken = stage->cache.count;
}

static bool is_in_copies(uint64_t phys)
{
	return phys - COPIES_BASE < COPIES_SIZE;
}

/*
 * Makes one of calls each of which goes on where the one before ended: what a list has without copies is
 * seen to leaf by leaf.
 */
static void join_calls(struct stage *stage)
{
	unsigned end = stage->cache.taken;

	for (unsigned j = stage->cache.taken; j < stage->cache.count; j++) {
		struct call call = stage->cache.at[j % 16];
		struct call *last = &stage->cache.at[(end - 1) % 16];

		if (end > stage->cache.taken && last->phys + last->size == call.phys &&
		    !is_in_copies(call.phys))
			last->size += call.size;
		else
			stage->cache.at[end++ % 16] = call;
	}
	stage->cache.count = end;
}

static const struct spans nothing;

/* What the device gets with a mapping: of a page that is copied in part, the zeroes too. */
static struct spans given(uint32_t type, const struct spans *spans)
{
	const bool is_by_pages = type != 0 && type != DMACORE_DOMAIN_IDENTITY;
	struct spans all = *spans;

	for (unsigned i = 0; is_by_pages && i < all.count; i++) {
		if (!is_in_copies(all.at[i].phys))
			continue;
		all.at[i].phys &= ~(uint64_t)(PAGE - 1);
		all.at[i].size = PAGE;
	}
	return all;
}

/* The device works on the copy, and processors alone on the original. */
static void caches__are_maintained_for_copies_and_not_for_originals(void **state)
{
	static const struct {
		uint32_t type;
		uint64_t mask;
		/* Of the three pages that it lies in: how many runs there are. */
		unsigned spans;
	} cases[] = {
		{ 0, UINT64_MAX, 1 },
		{ 0, LOW_BASE - 1, 1 },
		{ DMACORE_DOMAIN_IDENTITY, UINT64_MAX, 1 },
		{ DMACORE_DOMAIN_IDENTITY, LOW_BASE - 1, 1 },
		/* The ends, and the page between them that is not copied. */
		{ DMACORE_DOMAIN_DMA, UINT64_MAX, 3 },
		{ DMACORE_DOMAIN_DMA_LAZY, UINT64_MAX, 3 },
		{ DMACORE_DOMAIN_HYBRID, UINT64_MAX, 3 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stage stage;
		const uint64_t offset = PAGE + 100, size = 2 * PAGE + 5;

		bouncing_start(&stage, cases[i].type, cases[i].mask);
		for (uint32_t direction = 0; direction < 3; direction++) {
			const bool writes = direction != DMACORE_TO_DEVICE;
			struct spans all = { .count = 0 }, part = { .count = 0 }, pages;
			dmacore_dma_t dma;

			assert_ok(dmacore_map_single(stage.device, stage.memory + offset, size,
						     direction, 0, &dma));
			add_spans(&stage, &all, dma, size);
			assert_int_equal(all.count, cases[i].spans);
			for (unsigned j = 0; j < all.count; j++)
				assert_int_equal(is_in_copies(all.at[j].phys), j != 1);
			pages = given(cases[i].type, &all);
			assert_spans_maintained(&stage, &pages, direction, false);
			/* The last bytes of the first page and the first ones of the next. */
			add_spans(&stage, &part, dma + PAGE - 107, 20);
			assert_int_equal(part.count, cases[i].spans == 1 ? 1 : 2);
			assert_ok(dmacore_sync_for_cpu(stage.device, dma + PAGE - 107, 20,
						       direction));
			assert_spans_maintained(&stage, writes ? &part : &nothing, direction, true);
			assert_ok(dmacore_sync_for_device(stage.device, dma + PAGE - 107, 20,
							  direction));
			assert_spans_maintained(&stage, &part, direction, false);
			assert_ok(dmacore_unmap(stage.device, dma, size, direction, 0));
			assert_spans_maintained(&stage, writes ? &all : &nothing, direction, true);
			/* A copy in one page, too. */
			all.count = 0;
			assert_ok(dmacore_map_single(stage.device, stage.memory + 9, 50, direction,
						     0, &dma));
			add_spans(&stage, &all, dma, 50);
			assert_true(all.count == 1 && is_in_copies(all.at[0].phys));
			pages = given(cases[i].type, &all);
			assert_spans_maintained(&stage, &pages, direction, false);
			assert_ok(dmacore_unmap(stage.device, dma, 50, direction, 0));
			assert_spans_maintained(&stage, writes ? &all : &nothing, direction, true);
		}
		bouncing_stop(&stage);
	}
}

/* Some of its entries are in reach and some are copied, or their ends are: each byte is seen to once. */
static void caches__are_maintained_for_lists_that_are_copied_in_part(void **state)
{
	static const struct {
		uint32_t type;
		uint64_t mask;
		unsigned copied, direct;
	} cases[] = {
		{ 0, UINT64_MAX, 3, 0 },
		{ 0, LOW_BASE + 8 * PAGE - 1, 1, 2 },
		{ DMACORE_DOMAIN_IDENTITY, LOW_BASE + 8 * PAGE - 1, 1, 2 },
		/* Pages of which the list has all are not copied. */
		{ DMACORE_DOMAIN_DMA, UINT64_MAX, 3, 2 },
		{ DMACORE_DOMAIN_HYBRID, UINT64_MAX, 3, 2 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stage stage;

		bouncing_start(&stage, cases[i].type, cases[i].mask);
		for (uint32_t direction = 0; direction < 3; direction++) {
			const bool writes = direction != DMACORE_TO_DEVICE;
			struct spans all = { .count = 0 }, pages;
			struct dmacore_sg list[4];
			unsigned copied = 0;
			size_t count;

			dmacore_sg_init(list, 4);
			dmacore_sg_set(&list[0], LOW_BASE + PAGE + 100, 200, 0);
			dmacore_sg_set(&list[1], LOW_BASE + 4 * PAGE, 2 * PAGE, 0);
			/* A page, and parts of the pages beside it. */
			dmacore_sg_set(&list[2], LOW_BASE + 10 * PAGE - 50, PAGE + 100, 0);
			assert_ok(dmacore_map_list(stage.device, list, 4, direction, 0, 0, &count));
			for (size_t j = 0; j < count; j++)
				add_spans(&stage, &all, list[j].dma, list[j].dma_size);
			for (unsigned j = 0; j < all.count; j++)
				copied += is_in_copies(all.at[j].phys);
			assert_int_equal(copied, cases[i].copied);
			assert_int_equal(all.count - copied, cases[i].direct);
			join_calls(&stage);
			pages = given(cases[i].type, &all);
			assert_spans_maintained(&stage, &pages, direction, false);
			assert_ok(
				dmacore_sync_list_for_cpu(stage.device, list, 4, 0, 0, direction));
			join_calls(&stage);
			assert_spans_maintained(&stage, writes ? &all : &nothing, direction, true);
			assert_ok(dmacore_sync_list_for_device(stage.device, list, 4, 0, 0,
							       direction));
			join_calls(&stage);
			assert_spans_maintained(&stage, &all, direction, false);
			assert_ok(dmacore_unmap_list(stage.device, list, 4, direction, 0));
			join_calls(&stage);
			assert_spans_maintained(&stage, writes ? &all : &nothing, direction, true);
		}
		bouncing_stop(&stage);
	}
}

static void caches__are_not_maintained_by_a_call_that_fails(void **state)
{
	struct stage stage;
	dmacore_dma_t dma;

	(void)state;
	stage_start(&stage, DMACORE_DOMAIN_DMA, false);
	assert_fails(dmacore_map_single(stage.device, stage.memory, 0, DMACORE_TO_DEVICE, 0, &dma),
		     EINVAL);
	assert_fails(dmacore_unmap(stage.device, 0x5000, PAGE, DMACORE_FROM_DEVICE, 0), EINVAL);
	assert_fails(dmacore_sync_for_device(stage.device, 0x5000, PAGE, DMACORE_FROM_DEVICE),
		     EINVAL);
	assert_ok(dmacore_device_set_streaming_mask(stage.device, 0, NULL));
	assert_fails(dmacore_map_single(stage.device, stage.memory, 1, DMACORE_TO_DEVICE, 0, &dma),
		     ENXIO);
	assert_nothing_maintained(&stage);
	stage_stop(&stage);
}

static void coherent_memory__is_maintained_once(void **state)
{
	(void)state;
	for (unsigned way = 0; way < 5; way++) {
		struct stage stage;
		dmacore_dma_t dma;
		void *cpu;

		stage_start(&stage, paths[way], false);
		assert_ok(dmacore_alloc_coherent(stage.device, PAGE, &cpu, &dma));
		assert_maintained(&stage, RAM_SIZE - PAGE, PAGE, DMACORE_BIDIRECTIONAL, false);
		assert_ok(dmacore_free_coherent(stage.device, PAGE, cpu, dma));
		assert_nothing_maintained(&stage);
		stage_stop(&stage);
	}
}

static void coherent_devices__need_nothing(void **state)
{
	struct stage stage;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;
	dmacore_dma_t dma;

	(void)state;
	stage_start(&stage, 0, false);
	options.streaming_mask = UINT64_MAX;
	assert_ok(dmacore_device_create(stage.system, &options, &device));
	assert_ok(dmacore_map_single(device, stage.memory, PAGE, DMACORE_FROM_DEVICE, 0, &dma));
	assert_ok(dmacore_sync_for_cpu(device, dma, PAGE, DMACORE_FROM_DEVICE));
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_FROM_DEVICE, 0));
	assert_nothing_maintained(&stage);
	dmacore_device_destroy(device);
	stage_stop(&stage);
}

static void device_create__needs_who_maintains_caches(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;

	options.flags |= DMACORE_DEVICE_NONCOHERENT;
	assert_fails(dmacore_device_create(machine->system, &options, &device), EINVAL);
	assert_null(device);
}

/* The heap is cached, so that nothing coherent can come from it. */
static void alloc_coherent__needs_an_allocator_for_devices_that_are_not_coherent(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options description = DMACORE_DEVICE_OPTIONS_INIT;
	struct cache cache = { .count = 0 };
	struct dmacore_system *system;
	struct dmacore_device *device;
	dmacore_dma_t dma;
	void *cpu;

	(void)state;
	options.flags = DMACORE_SYSTEM_FLAT;
	options.cache = cache_record;
	options.cache_opaque = &cache;
	assert_ok(dmacore_system_create(&options, &system));
	description.coherent_mask = UINT64_MAX;
	description.flags = DMACORE_DEVICE_NONCOHERENT;
	assert_ok(dmacore_device_create(system, &description, &device));
	assert_fails(dmacore_alloc_coherent(device, PAGE, &cpu, &dma), EOPNOTSUPP);
	assert_int_equal(cache.count, 0);
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(caches__are_maintained_where_a_buffer_changes_hands),
		cmocka_unit_test(caches__are_maintained_where_a_transfer_changes_hands),
		cmocka_unit_test(caches__are_maintained_for_what_is_replaced),
		cmocka_unit_test(caches__are_maintained_for_copies_and_not_for_originals),
		cmocka_unit_test(caches__are_maintained_for_lists_that_are_copied_in_part),
		cmocka_unit_test(caches__are_not_maintained_by_a_call_that_fails),
		cmocka_unit_test(coherent_memory__is_maintained_once),
		cmocka_unit_test(coherent_devices__need_nothing),
		test_on(DIRECT, device_create__needs_who_maintains_caches),
		cmocka_unit_test(
			alloc_coherent__needs_an_allocator_for_devices_that_are_not_coherent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
