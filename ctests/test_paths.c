/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The same driver over every path, with the same results. Beside it runs a model of who owns each byte,
 * the CPU or a mapping's device, and what the byte holds: whoever owns one sees what the other has left.
 *
 * Of a device that does not see the caches, the CPU works on a copy of memory that is its cache, and the
 * two agree only where the library has said so.
 */

#include "support/grants.h"

#define SIZE (8 * PAGE)
#define LIVE_MAX 8
#define STEPS 1500
/* Of a list, half of them for segments that are more than its parts. */
#define ENTRIES 8

enum { CPU = -1 };

struct stage {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_view *view;
	uint8_t *memory;
	struct dmacore_bounce_pool *pool;
	uint8_t *pool_memory;
	struct grants grants;
	/* What the CPU sees: the memory, or its cache. */
	uint8_t *cpu;
};

/* With mapping functions; beside the flags of devices. */
#define BY_FUNCTIONS (UINT32_C(1) << 31)

struct way {
	const char *name;
	/* A type of domain, or 0 for no IOMMU. */
	uint32_t domain;
	uint32_t flags;
	unsigned mask_bits;
	bool has_ranges;
	bool has_pool;
	/* Which each mapping takes; of ends that are bounced, what has no ends is not. */
	uint32_t path;
};

static const struct way ways[] = {
	{ "direct", 0, 0, 64, false, false, DMACORE_PATH_DIRECT },
	{ "direct, tracked", 0, DMACORE_DEVICE_TRACK_DIRECT, 64, false, false,
	  DMACORE_PATH_DIRECT },
	{ "direct, by ranges", 0, 0, 31, true, false, DMACORE_PATH_DIRECT },
	{ "direct, past the caches", 0, DMACORE_DEVICE_NONCOHERENT, 64, false, false,
	  DMACORE_PATH_DIRECT },
	{ "direct, by ranges, past the caches", 0, DMACORE_DEVICE_NONCOHERENT, 31, true, false,
	  DMACORE_PATH_DIRECT },
	{ "identity", DMACORE_DOMAIN_IDENTITY, 0, 64, false, false, DMACORE_PATH_DIRECT },
	{ "IOMMU", DMACORE_DOMAIN_DMA, 0, 32, false, false, DMACORE_PATH_IOMMU },
	{ "IOMMU, past the caches", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_NONCOHERENT, 32, false,
	  false, DMACORE_PATH_IOMMU },
	{ "IOMMU, lazy", DMACORE_DOMAIN_DMA_LAZY, 0, 48, false, false, DMACORE_PATH_IOMMU },
	{ "hybrid", DMACORE_DOMAIN_HYBRID, 0, 64, false, false, DMACORE_PATH_DIRECT },
	{ "hybrid, out of reach", DMACORE_DOMAIN_HYBRID, 0, 31, false, false, DMACORE_PATH_IOMMU },
	{ "hybrid, tracked", DMACORE_DOMAIN_HYBRID, DMACORE_DEVICE_TRACK_DIRECT, 64, false, false,
	  DMACORE_PATH_DIRECT },
	{ "hybrid, past the caches", DMACORE_DOMAIN_HYBRID, DMACORE_DEVICE_NONCOHERENT, 64, false,
	  false, DMACORE_PATH_DIRECT },
	{ "bounced", 0, 0, 32, false, true, DMACORE_PATH_BOUNCED },
	{ "bounced by force", 0, DMACORE_DEVICE_FORCE_BOUNCE, 64, false, true,
	  DMACORE_PATH_BOUNCED },
	{ "IOMMU, bounced ends", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_UNTRUSTED, 32, false, true,
	  DMACORE_PATH_IOMMU_BOUNCED },
	{ "functions", 0, BY_FUNCTIONS, 32, false, false, DMACORE_PATH_OPS },
	{ "functions, in the window", 0, BY_FUNCTIONS, 64, false, false, DMACORE_PATH_DIRECT },
	{ "functions, past the caches", 0, BY_FUNCTIONS | DMACORE_DEVICE_NONCOHERENT, 32, false,
	  false, DMACORE_PATH_OPS },
	{ "functions, in the window, past the caches", 0, BY_FUNCTIONS | DMACORE_DEVICE_NONCOHERENT,
	  64, false, false, DMACORE_PATH_DIRECT },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void cache_maintain(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
			   void *opaque)
{
	struct stage *stage = opaque;
	uint64_t offset = phys - HIGH_BASE;

	(void)direction;
	assert_true(offset < SIZE && size <= SIZE - offset);
	if (is_for_cpu)
		memcpy(stage->cpu + offset, stage->memory + offset, size);
	else
		memcpy(stage->memory + offset, stage->cpu + offset, size);
}

#define POOL_SIZE (128 * PAGE)

/* All of the pool at once. */
static void *pool_allocate(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque)
{
	struct stage *stage = opaque;

	assert_true(size == POOL_SIZE && alignment == PAGE && limit >= LOW_BASE + POOL_SIZE - 1);
	return stage->pool_memory;
}

static void pool_free(void *host, uint64_t size, void *opaque)
{
	struct stage *stage = opaque;

	assert_true(host == stage->pool_memory && size == POOL_SIZE);
}

static void pool_start(struct stage *stage)
{
	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;

	stage->pool_memory = aligned_alloc(PAGE, POOL_SIZE);
	assert_non_null(stage->pool_memory);
	add_host_region(stage->system, LOW_BASE, POOL_SIZE, stage->pool_memory, 0);
	options.size = options.size_max = POOL_SIZE;
	assert_ok(dmacore_bounce_pool_create(stage->system, &options, &stage->pool));
	assert_ok(dmacore_system_set_bounce_pool(stage->system, stage->pool));
}

static void stage_start(struct stage *stage, const struct way *way)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_domain_options domain = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_memory_allocator allocator = DMACORE_MEMORY_ALLOCATOR_INIT;
	const struct dmacore_dma_range range = { 0x40000000, HIGH_BASE, SIZE };

	memset(stage, 0, sizeof(*stage));
	allocator.allocate = pool_allocate;
	allocator.free = pool_free;
	allocator.opaque = stage;
	system.memory_allocator = &allocator;
	system.cache = cache_maintain;
	system.cache_opaque = stage;
	assert_ok(dmacore_system_create(&system, &stage->system));
	stage->memory = aligned_alloc(PAGE, SIZE);
	assert_non_null(stage->memory);
	memset(stage->memory, 0, SIZE);
	stage->cpu = stage->memory;
	if (way->flags & DMACORE_DEVICE_NONCOHERENT) {
		stage->cpu = calloc(1, SIZE);
		assert_non_null(stage->cpu);
	}
	add_host_region(stage->system, HIGH_BASE, SIZE, stage->memory, 0);
	if (way->has_pool)
		pool_start(stage);
	device.flags = way->flags & ~BY_FUNCTIONS;
	device.streaming_mask = device.coherent_mask = DMACORE_BIT_MASK(way->mask_bits);
	device.ranges = &range;
	device.range_count = way->has_ranges;
	if (way->flags & BY_FUNCTIONS) {
		grants_start(&stage->grants, NULL);
		device.mapping_ops = &stage->grants.ops;
		device.mapping_ops_opaque = &stage->grants;
	}
	if (way->domain) {
		assert_ok(dmacore_iommu_create(stage->system, NULL, &stage->iommu));
		device.iommu = stage->iommu;
		domain.type = way->domain;
		assert_ok(dmacore_domain_create(stage->iommu, &domain, &stage->domain));
	}
	assert_ok(dmacore_device_create(stage->system, &device, &stage->device));
	if (way->domain)
		assert_ok(dmacore_domain_attach(stage->domain, stage->device));
	assert_ok(dmacore_view_create(stage->device, &stage->view));
}

static void stage_stop(struct stage *stage)
{
	dmacore_view_destroy(stage->view);
	dmacore_device_destroy(stage->device);
	grants_stop(&stage->grants);
	dmacore_domain_destroy(stage->domain);
	dmacore_iommu_destroy(stage->iommu);
	if (stage->pool)
		assert_ok(dmacore_system_set_bounce_pool(stage->system, NULL));
	dmacore_bounce_pool_destroy(stage->pool);
	dmacore_system_destroy(stage->system);
	free(stage->pool_memory);
	if (stage->cpu != stage->memory)
		free(stage->cpu);
	free(stage->memory);
}

struct mapped {
	bool is_live;
	uint64_t offset;
	uint64_t size;
	uint32_t direction;
	dmacore_dma_t dma;
	/* A list instead, of parts of the memory in any order. */
	bool is_list;
	struct dmacore_sg list[ENTRIES];
};

struct driver {
	struct stage stage;
	const struct way *way;
	const char *name;
	uint64_t random;
	/* Who owns each byte, a mapping's number or CPU, and what it holds. */
	int owners[SIZE];
	uint8_t values[SIZE];
	struct mapped live[LIVE_MAX];
	/* Over everything that was read. */
	uint64_t digest;
	unsigned device_reads, device_writes, cpu_reads, cpu_writes, lists;
};

static uint64_t draw(struct driver *driver, uint64_t below)
{
	return (random_next(&driver->random) >> 16) % below;
}

static void digest(struct driver *driver, uint8_t byte)
{
	driver->digest = (driver->digest ^ byte) * UINT64_C(0x100000001b3);
}

/* A part of a range, of any size up to two pages and a bit. */
static void draw_part(struct driver *driver, uint64_t *offset, uint64_t *size)
{
	uint64_t skip = draw(driver, *size);
	uint64_t most = UINT64_C(1) << draw(driver, 14);

	*offset += skip;
	*size -= skip;
	if (*size > most)
		*size = most;
}

static void check_byte(struct driver *driver, uint64_t place, uint8_t found, const char *who)
{
	if (found != driver->values[place])
		fail_msg("%s: %s reads %#x at %#jx, where %#x was left", driver->name, who, found,
			 (uintmax_t)place, driver->values[place]);
	digest(driver, found);
}

/* That a part takes the way's path, or has no ends to be bounced. */
static void check_path(struct driver *driver, uint32_t found, uint64_t offset, uint64_t size)
{
	uint32_t expected = driver->way->path;

	if (expected == DMACORE_PATH_IOMMU_BOUNCED && (offset | size) % PAGE == 0)
		expected = DMACORE_PATH_IOMMU;
	if (found != expected)
		fail_msg("%s: %#jx bytes at %#jx take path %u instead of %u", driver->name,
			 (uintmax_t)size, (uintmax_t)offset, found, expected);
}

/* What is explained, and what a record says of it if there is one. */
static void check_mapping(struct driver *driver, const struct mapped *mapped)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	struct dmacore_device *device = driver->stage.device;
	struct dmacore_mapping_info infos[LIVE_MAX * ENTRIES];
	size_t count;
	bool is_listed = false;

	assert_ok(dmacore_device_explain(device, HIGH_BASE + mapped->offset, mapped->size,
					 DMACORE_STREAMING, 0, &explanation));
	check_path(driver, explanation.path, mapped->offset, mapped->size);
	assert_ok(dmacore_device_list_mappings(device, mapped->dma, mapped->dma, infos,
					       LIVE_MAX * ENTRIES, &count));
	for (size_t i = 0; i < count && i < LIVE_MAX * ENTRIES; i++) {
		if (infos[i].first != mapped->dma ||
		    infos[i].last != mapped->dma + mapped->size - 1)
			continue;
		check_path(driver, infos[i].path, mapped->offset, mapped->size);
		is_listed = true;
	}
	assert_true(is_listed || driver->way->path == DMACORE_PATH_DIRECT);
}

/* Cuts a part into up to four, of which each is an entry. */
static void map_list(struct driver *driver, struct mapped *mapped)
{
	unsigned order = (unsigned)draw(driver, 4);
	uint64_t next = mapped->offset, end = mapped->offset + mapped->size;
	size_t count;

	dmacore_sg_init(mapped->list, ENTRIES);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t size = i < 3 ? draw(driver, end - next + 1) : end - next;

		if (size > 0 && draw(driver, 2) == 0 && (next + size) % PAGE < size)
			size -= (next + size) % PAGE;
		if (i == 3)
			size = end - next;
		dmacore_sg_set(&mapped->list[i ^ order], HIGH_BASE + next, size, 0);
		next += size;
	}
	assert_ok(dmacore_map_list(driver->stage.device, mapped->list, ENTRIES, mapped->direction,
				   0, 0, &count));
	/* A list's parts may have no ends where it has some. */
	for (size_t i = 0; i < count; i++)
		assert_true(mapped->list[i].path == driver->way->path ||
			    (driver->way->path == DMACORE_PATH_IOMMU_BOUNCED &&
			     mapped->list[i].path == DMACORE_PATH_IOMMU));
	driver->lists++;
}

/* Where a byte lies in a list. */
static uint64_t list_offset(const struct mapped *mapped, uint64_t place)
{
	uint64_t offset = 0;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t inside = HIGH_BASE + place - mapped->list[i].phys;

		if (inside < mapped->list[i].size)
			return offset + inside;
		offset += mapped->list[i].size;
	}
	fail_msg("%#jx is in no entry", (uintmax_t)place);
	return 0;
}

/* The device's address of a byte. */
static dmacore_dma_t dma_of(const struct mapped *mapped, uint64_t place)
{
	uint64_t offset;
	unsigned i = 0;

	if (!mapped->is_list)
		return mapped->dma + (place - mapped->offset);
	offset = list_offset(mapped, place);
	while (offset >= mapped->list[i].dma_size) {
		assert_true(mapped->list[i].dma_size > 0 && i < ENTRIES);
		offset -= mapped->list[i++].dma_size;
	}
	return mapped->list[i].dma + offset;
}

/* Syncs memory of a list: as much at once as lies in it in a row. */
static void sync_list(struct driver *driver, struct mapped *mapped, uint64_t place, uint64_t size,
		      bool is_for_cpu)
{
	while (size > 0) {
		uint64_t offset = list_offset(mapped, place), run = 1;

		while (run < size && list_offset(mapped, place + run) == offset + run)
			run++;
		assert_ok((is_for_cpu ? dmacore_sync_list_for_cpu : dmacore_sync_list_for_device)(
			driver->stage.device, mapped->list, ENTRIES, offset, run,
			mapped->direction));
		place += run;
		size -= run;
	}
}

static void map_part(struct driver *driver, unsigned number, uint64_t offset, uint64_t size,
		     uint32_t direction)
{
	struct mapped *mapped = &driver->live[number];

	for (uint64_t i = offset; i < offset + size; i++)
		for (unsigned j = 0; j < LIVE_MAX; j++) {
			const struct mapped *other = &driver->live[j];

			if (other->is_live && i - other->offset < other->size)
				return;
		}
	*mapped = (struct mapped){
		.is_live = true, .offset = offset, .size = size, .direction = direction
	};
	mapped->is_list = draw(driver, 3) == 0;
	if (mapped->is_list) {
		map_list(driver, mapped);
	} else {
		assert_ok(dmacore_map_single(driver->stage.device, driver->stage.memory + offset,
					     size, direction, 0, &mapped->dma));
		check_mapping(driver, mapped);
	}
	for (uint64_t i = offset; i < offset + size; i++)
		driver->owners[i] = (int)number;
}

/* Hands over what of a part is the other's; what one has already must not be handed to one again. */
static void sync_part(struct driver *driver, unsigned number, uint64_t offset, uint64_t size,
		      bool is_for_cpu)
{
	struct mapped *mapped = &driver->live[number];
	int from = is_for_cpu ? (int)number : CPU, to = is_for_cpu ? CPU : (int)number;
	uint64_t end = offset + size;

	while (offset < end) {
		dmacore_dma_t dma = mapped->dma + (offset - mapped->offset);

		for (size = 0; offset + size < end && driver->owners[offset + size] == from; size++)
			driver->owners[offset + size] = to;
		if (size == 0) {
			offset++;
			continue;
		}
		if (mapped->is_list)
			sync_list(driver, mapped, offset, size, is_for_cpu);
		else
			assert_ok((is_for_cpu ? dmacore_sync_for_cpu : dmacore_sync_for_device)(
				driver->stage.device, dma, size, mapped->direction));
		offset += size;
	}
}

static void unmap_part(struct driver *driver, unsigned number)
{
	struct mapped *mapped = &driver->live[number];

	/* What the CPU wrote is the device's first: an unmap takes back what the device has. */
	sync_part(driver, number, mapped->offset, mapped->size, false);
	if (mapped->is_list)
		assert_ok(dmacore_unmap_list(driver->stage.device, mapped->list, ENTRIES,
					     mapped->direction, 0));
	else
		assert_ok(dmacore_unmap(driver->stage.device, mapped->dma, mapped->size,
					mapped->direction, 0));
	mapped->is_live = false;
	for (uint64_t i = mapped->offset; i < mapped->offset + mapped->size; i++)
		driver->owners[i] = CPU;
}

static void access_by_device(struct driver *driver, unsigned number, uint64_t offset, uint64_t size)
{
	struct mapped *mapped = &driver->live[number];
	uint8_t bytes[64];

	if (size > sizeof(bytes))
		size = sizeof(bytes);
	for (uint64_t i = offset; i < offset + size; i++)
		if (driver->owners[i] != (int)number)
			return;
	if (mapped->direction != DMACORE_FROM_DEVICE) {
		/* Two bytes beside each other in memory may be anywhere in a list. */
		for (uint64_t i = 0; mapped->is_list && i < size; i++)
			assert_ok(dmacore_view_read(driver->stage.view, dma_of(mapped, offset + i),
						    bytes + i, 1));
		if (!mapped->is_list)
			assert_ok(dmacore_view_read(driver->stage.view, dma_of(mapped, offset),
						    bytes, size));
		for (uint64_t i = 0; i < size; i++)
			check_byte(driver, offset + i, bytes[i], "the device");
		driver->device_reads++;
	}
	if (mapped->direction != DMACORE_TO_DEVICE) {
		for (uint64_t i = 0; i < size; i++)
			bytes[i] = driver->values[offset + i] = (uint8_t)draw(driver, 256);
		for (uint64_t i = 0; mapped->is_list && i < size; i++)
			assert_ok(dmacore_view_write(driver->stage.view, dma_of(mapped, offset + i),
						     bytes + i, 1));
		if (!mapped->is_list)
			assert_ok(dmacore_view_write(driver->stage.view, dma_of(mapped, offset),
						     bytes, size));
		driver->device_writes++;
	}
}

/* The direction of the mapping that a byte is in; the CPU does not write what it gets from a device. */
static bool is_from_device(struct driver *driver, uint64_t place)
{
	for (unsigned i = 0; i < LIVE_MAX; i++) {
		const struct mapped *mapped = &driver->live[i];

		if (mapped->is_live && place - mapped->offset < mapped->size)
			return mapped->direction == DMACORE_FROM_DEVICE;
	}
	return false;
}

static void access_by_cpu(struct driver *driver, uint64_t offset, uint64_t size)
{
	for (uint64_t i = offset; i < offset + size && i < offset + 64; i++) {
		if (driver->owners[i] != CPU)
			continue;
		check_byte(driver, i, driver->stage.cpu[i], "the CPU");
		driver->cpu_reads++;
		if (is_from_device(driver, i))
			continue;
		driver->stage.cpu[i] = driver->values[i] = (uint8_t)draw(driver, 256);
		driver->cpu_writes++;
	}
}

static void step(struct driver *driver)
{
	unsigned number = (unsigned)draw(driver, LIVE_MAX);
	const struct mapped *mapped = &driver->live[number];
	uint32_t direction = (uint32_t)draw(driver, 3);
	uint64_t choice = draw(driver, 8);
	uint64_t offset = 0, size = SIZE;

	if (!mapped->is_live) {
		draw_part(driver, &offset, &size);
		if (choice < 5)
			map_part(driver, number, offset, size, direction);
		else
			access_by_cpu(driver, offset, size);
		return;
	}
	offset = mapped->offset;
	size = mapped->size;
	draw_part(driver, &offset, &size);
	switch (choice) {
	case 0:
		unmap_part(driver, number);
		break;
	case 1:
	case 2:
		sync_part(driver, number, offset, size, true);
		break;
	case 3:
		sync_part(driver, number, offset, size, false);
		break;
	case 4:
		access_by_cpu(driver, offset, size);
		break;
	default:
		access_by_device(driver, number, offset, size);
		break;
	}
}

static uint64_t run(const struct way *way, uint64_t seed)
{
	struct driver *driver = calloc(1, sizeof(*driver));
	uint64_t result;

	assert_non_null(driver);
	stage_start(&driver->stage, way);
	driver->way = way;
	driver->name = way->name;
	driver->random = seed;
	for (unsigned i = 0; i < SIZE; i++)
		driver->owners[i] = CPU;
	for (unsigned i = 0; i < STEPS; i++)
		step(driver);
	for (unsigned i = 0; i < LIVE_MAX; i++)
		if (driver->live[i].is_live)
			unmap_part(driver, i);
	for (uint64_t i = 0; i < SIZE; i++)
		check_byte(driver, i, driver->stage.cpu[i], "the CPU");
	/* What happened seldom was hardly tested. */
	assert_true(driver->device_reads > 20 && driver->device_writes > 20);
	assert_true(driver->cpu_reads > 500 && driver->cpu_writes > 300 && driver->lists > 10);
	result = driver->digest;
	stage_stop(&driver->stage);
	free(driver);
	return result;
}

static void driver__sees_the_same_over_every_path(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		uint64_t expected = run(&ways[0], seed);

		for (unsigned i = 1; i < WAYS; i++)
			if (run(&ways[i], seed) != expected)
				fail_msg("%s: not as %s, seed %ju", ways[i].name, ways[0].name,
					 (uintmax_t)seed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(driver__sees_the_same_over_every_path),
	};

	return run_group("paths", tests);
}
