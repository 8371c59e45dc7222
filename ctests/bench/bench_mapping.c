/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The mapping calls and coherent memory, on a flat system. */

#include <dmacore.h>

#include "bench.h"
#include "peers/bare.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096

/* One device and its path; the domain is NULL on the direct path. */
struct path {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	void *buffer;
};

/* @type is that of the domain of an IOMMU, or 0 for none. */
static struct path open_path(uint32_t type)
{
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct path path = { .buffer = aligned_alloc(PAGE, PAGE) };

	BENCH_CHECK(path.buffer != NULL);
	system_options.flags = DMACORE_SYSTEM_FLAT;
	BENCH_CHECK(dmacore_system_create(&system_options, &path.system) == 0);
	if (type != 0) {
		domain_options.type = type;
		BENCH_CHECK(dmacore_iommu_create(path.system, NULL, &path.iommu) == 0);
		BENCH_CHECK(dmacore_domain_create(path.iommu, &domain_options, &path.domain) == 0);
	}
	device_options.iommu = path.iommu;
	device_options.streaming_mask = DMACORE_BIT_MASK(64);
	device_options.coherent_mask = DMACORE_BIT_MASK(64);
	BENCH_CHECK(dmacore_device_create(path.system, &device_options, &path.device) == 0);
	if (type != 0)
		BENCH_CHECK(dmacore_domain_attach(path.domain, path.device) == 0);
	return path;
}

static void close_path(struct path *path)
{
	dmacore_device_destroy(path->device);
	dmacore_domain_destroy(path->domain);
	dmacore_iommu_destroy(path->iommu);
	dmacore_system_destroy(path->system);
	free(path->buffer);
}

static uint64_t live_mappings(const struct path *path)
{
	struct dmacore_device_statistics statistics = { .struct_size = sizeof(statistics) };

	BENCH_CHECK(dmacore_device_statistics(path->device, &statistics) == 0);
	return statistics.mapping_count;
}

static void run_empty_pairs(void *context, uint64_t count)
{
	uint64_t dma = 0;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= empty_map(context, context, PAGE, DMACORE_TO_DEVICE, 0, &dma);
		errors |= empty_unmap(context, dma, PAGE, DMACORE_TO_DEVICE, 0);
	}
	BENCH_CHECK(errors == 0);
}

static void run_pairs(void *context, uint64_t count)
{
	struct path *path = context;
	dmacore_dma_t dma = 0;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_map_single(path->device, path->buffer, PAGE, DMACORE_TO_DEVICE, 0,
					     &dma);
		errors |= dmacore_unmap(path->device, dma, PAGE, DMACORE_TO_DEVICE, 0);
	}
	BENCH_CHECK(errors == 0);
	if (path->domain == NULL)
		BENCH_CHECK(dma == (uintptr_t)path->buffer);
	else
		BENCH_CHECK(dma != 0 && dma % PAGE == 0);
}

/* As run_pairs, where the address is nobody's to know. */
static void run_bounced(void *context, uint64_t count)
{
	struct path *path = context;
	dmacore_dma_t dma = 0;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_map_single(path->device, path->buffer, PAGE, DMACORE_TO_DEVICE, 0,
					     &dma);
		errors |= dmacore_unmap(path->device, dma, PAGE, DMACORE_TO_DEVICE, 0);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(dma != (uintptr_t)path->buffer && memcmp((void *)dma, path->buffer, PAGE) == 0);
}

/* As run_bounced, with BURST pages mapped at once: more than a processor has slots at hand for. */
#define BURST 64

static void run_bounced_bursts(void *context, uint64_t count)
{
	struct path *path = context;
	dmacore_dma_t dma[BURST];
	uint8_t *pages = path->buffer;
	int errors = 0;

	for (uint64_t i = 0; i < count; i += BURST) {
		for (unsigned int j = 0; j < BURST; j++)
			errors |= dmacore_map_single(path->device, pages + j * PAGE, PAGE,
						     DMACORE_TO_DEVICE, 0, &dma[j]);
		for (unsigned int j = 0; j < BURST; j++)
			errors |= dmacore_unmap(path->device, dma[j], PAGE, DMACORE_TO_DEVICE, 0);
	}
	BENCH_CHECK(errors == 0);
}

struct copies {
	uint8_t *from;
	uint8_t *to;
	unsigned int pages;
};

static void run_copies(void *context, uint64_t count)
{
	/* That of libc: a compiler that knows the size may put something slower in its place. */
	void *(*volatile copy)(void *to, const void *from, size_t size) = memcpy;
	struct copies *copies = context;
	uint64_t end = copies->pages * PAGE;

	for (uint64_t i = 0, offset = 0; i < count; i++, offset += PAGE) {
		if (offset == end)
			offset = 0;
		copy(copies->to + offset, copies->from + offset, PAGE);
	}
}

static void measure_translated(const char *name, uint32_t type, uint64_t count)
{
	struct path path;

	if (!bench_wants(name))
		return;
	path = open_path(type);
	bench_row(name, "ns", bench_time(run_pairs, &path, count), NULL, 0);
	BENCH_CHECK(live_mappings(&path) == 0);
	close_path(&path);
}

static void measure_pairs(void)
{
	uint64_t count = bench_count(2000000, 100);
	double empty = bench_time(run_empty_pairs, &count, count);
	struct path path;

	if (bench_wants("call.empty_pair"))
		bench_row("call.empty_pair", "ns", empty, NULL, 0);
	if (bench_wants("mapping.direct")) {
		path = open_path(0);
		bench_row("mapping.direct", "ns", bench_time(run_pairs, &path, count),
			  "two empty calls", empty);
		close_path(&path);
	}
	measure_translated("mapping.iommu.strict", DMACORE_DOMAIN_DMA, count);
	measure_translated("mapping.iommu.lazy", DMACORE_DOMAIN_DMA_LAZY, count);
}

/* A device whose mappings are all copied, to a pool of which @percent are in use, at random places. */
static double time_bounced(void (*run)(void *context, uint64_t count), unsigned int percent,
			   uint64_t count)
{
	enum { PAGES = 1024 };
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_bounce_pool_options pool_options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_bounce_pool *pool;
	struct path path = { .buffer = aligned_alloc(PAGE, BURST * PAGE) };
	dmacore_dma_t *live = calloc(PAGES, sizeof(*live));
	uint64_t random = 1;
	double time;

	BENCH_CHECK(path.buffer != NULL && live != NULL);
	memset(path.buffer, 1, BURST * PAGE);
	system_options.flags = DMACORE_SYSTEM_FLAT;
	pool_options.size = pool_options.size_max = PAGES * PAGE;
	BENCH_CHECK(dmacore_system_create(&system_options, &path.system) == 0);
	BENCH_CHECK(dmacore_bounce_pool_create(path.system, &pool_options, &pool) == 0);
	device_options.flags = DMACORE_DEVICE_FORCE_BOUNCE;
	device_options.streaming_mask = DMACORE_BIT_MASK(64);
	device_options.bounce_pool = pool;
	BENCH_CHECK(dmacore_device_create(path.system, &device_options, &path.device) == 0);
	for (unsigned int i = 0; percent > 0 && i < PAGES; i++)
		BENCH_CHECK(dmacore_map_single(path.device, path.buffer, PAGE, DMACORE_TO_DEVICE, 0,
					       &live[i]) == 0);
	for (unsigned int left = PAGES; percent > 0 && left > PAGES / 100 * percent;) {
		unsigned int i = bench_random(&random) % PAGES;

		if (live[i] == 0)
			continue;
		BENCH_CHECK(dmacore_unmap(path.device, live[i], PAGE, DMACORE_TO_DEVICE, 0) == 0);
		live[i] = 0;
		left--;
	}
	time = bench_time(run, &path, count);
	for (unsigned int i = 0; i < PAGES; i++)
		if (live[i] != 0)
			BENCH_CHECK(dmacore_unmap(path.device, live[i], PAGE, DMACORE_TO_DEVICE,
						  0) == 0);
	dmacore_device_destroy(path.device);
	dmacore_bounce_pool_destroy(pool);
	dmacore_system_destroy(path.system);
	free(path.buffer);
	free(live);
	return time;
}

static void measure_bounced(void)
{
	uint64_t count = bench_count(1000000, 100);
	uint8_t *pages = aligned_alloc(PAGE, 2 * BURST * PAGE);
	struct copies copies = { .from = pages, .to = pages + BURST * PAGE, .pages = 1 };
	double copy;

	BENCH_CHECK(pages != NULL);
	memset(pages, 1, 2 * BURST * PAGE);
	copy = bench_time(run_copies, &copies, count);
	if (bench_wants("mapping.bounce.4k"))
		bench_row("mapping.bounce.4k", "ns", time_bounced(run_bounced, 0, count), "memcpy",
			  copy);
	if (bench_wants("mapping.bounce.4k.full90"))
		bench_row("mapping.bounce.4k.full90", "ns", time_bounced(run_bounced, 90, count),
			  "memcpy", copy);
	copies.pages = BURST;
	copy = bench_time(run_copies, &copies, count);
	if (bench_wants("mapping.bounce.4k.burst"))
		bench_row("mapping.bounce.4k.burst", "ns",
			  time_bounced(run_bounced_bursts, 0, count), "memcpy", copy);
	free(pages);
}

/* Two threads that map for one device, as the queues of one network card do. */
static void measure_threads(const char *name, uint32_t type)
{
	struct path path;
	struct bench_two two = { run_pairs, { &path, &path } };

	if (!bench_wants(name))
		return;
	path = open_path(type);
	if (bench_open_second(NULL))
		bench_row_two(name, &two, NULL, bench_count(1000000, 100), BENCH_RUNS);
	bench_close_second();
	BENCH_CHECK(live_mappings(&path) == 0);
	close_path(&path);
}

/* A device that reads one page all the time, through a view of its own. */
struct reading {
	struct path path;
	pthread_t thread;
	atomic_bool is_over;
};

static void *read_all_the_time(void *opaque)
{
	struct reading *reading = opaque;
	struct dmacore_view *view;
	static uint8_t bytes[PAGE];
	dmacore_dma_t dma;

	(void)bench_pin(1);
	BENCH_CHECK(dmacore_view_create(reading->path.device, &view) == 0);
	BENCH_CHECK(dmacore_map_single(reading->path.device, reading->path.buffer, PAGE,
				       DMACORE_TO_DEVICE, 0, &dma) == 0);
	while (!atomic_load(&reading->is_over))
		BENCH_CHECK(dmacore_view_read(view, dma, bytes, PAGE) == 0);
	BENCH_CHECK(dmacore_unmap(reading->path.device, dma, PAGE, DMACORE_TO_DEVICE, 0) == 0);
	dmacore_view_destroy(view);
	return NULL;
}

static double time_beside_reader(uint32_t type, uint64_t count)
{
	struct reading reading = { .path = open_path(type) };
	double time;

	BENCH_CHECK(pthread_create(&reading.thread, NULL, read_all_the_time, &reading) == 0);
	time = bench_time(run_pairs, &reading.path, count);
	atomic_store(&reading.is_over, true);
	BENCH_CHECK(pthread_join(reading.thread, NULL) == 0);
	close_path(&reading.path);
	return time;
}

static void measure_beside_reader(void)
{
	uint64_t count = bench_count(200000, 100);

	if (bench_wants("mapping.iommu.reader"))
		bench_row("mapping.iommu.reader", "ns",
			  time_beside_reader(DMACORE_DOMAIN_DMA_LAZY, count), "strict",
			  time_beside_reader(DMACORE_DOMAIN_DMA, count));
}

struct live {
	struct path path;
	dmacore_dma_t *dma;
	uint64_t count;
	uint64_t random;
};

/* Any of those that are live goes, and another one comes: most of what that touches is in no near cache. */
static void run_random_live(void *context, uint64_t count)
{
	struct live *live = context;
	struct dmacore_device *device = live->path.device;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		dmacore_dma_t *dma = &live->dma[bench_random(&live->random) % live->count];

		errors |= dmacore_unmap(device, *dma, PAGE, DMACORE_TO_DEVICE, 0);
		errors |= dmacore_map_single(device, live->path.buffer, PAGE, DMACORE_TO_DEVICE, 0,
					     dma);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(live_mappings(&live->path) == live->count);
}

static void measure_live(void)
{
	struct live live = { .count = bench_count(100000, 100), .random = BENCH_SEED };
	uint64_t count = bench_count(500000, 100);
	double alone;

	if (!bench_wants("mapping.live_100k"))
		return;
	live.path = open_path(DMACORE_DOMAIN_DMA);
	live.dma = calloc(live.count, sizeof(live.dma[0]));
	BENCH_CHECK(live.dma != NULL);
	alone = bench_time(run_pairs, &live.path, count);
	for (uint64_t i = 0; i < live.count; i++)
		BENCH_CHECK(dmacore_map_single(live.path.device, live.path.buffer, PAGE,
					       DMACORE_TO_DEVICE, 0, &live.dma[i]) == 0);
	bench_row("mapping.live_100k", "ns", bench_time(run_pairs, &live.path, count), "none live",
		  alone);
	bench_row("mapping.live_100k.random", "ns", bench_time(run_random_live, &live, count),
		  "none live", alone);
	for (uint64_t i = 0; i < live.count; i++)
		BENCH_CHECK(dmacore_unmap(live.path.device, live.dma[i], PAGE, DMACORE_TO_DEVICE,
					  0) == 0);
	free(live.dma);
	close_path(&live.path);
}

static void run_coherent(void *context, uint64_t count)
{
	struct path *path = context;
	dmacore_dma_t dma = 0;
	void *cpu = NULL;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_alloc_coherent(path->device, PAGE, &cpu, &dma);
		errors |= dmacore_free_coherent(path->device, PAGE, cpu, dma);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK((uintptr_t)cpu % PAGE == 0 && dma % PAGE == 0);
}

static void measure_coherent(void)
{
	struct path path;

	if (!bench_wants("coherent.alloc_free.4k"))
		return;
	path = open_path(DMACORE_DOMAIN_DMA);
	bench_row("coherent.alloc_free.4k", "ns",
		  bench_time(run_coherent, &path, bench_count(500000, 100)), NULL, 0);
	BENCH_CHECK(live_mappings(&path) == 0);
	close_path(&path);
}

struct objects {
	struct path path;
	struct dmacore_coherent_pool *pool;
};

#define OBJECT_SIZE 64

static void run_pool(void *context, uint64_t count)
{
	struct objects *objects = context;
	dmacore_dma_t dma = 0;
	void *cpu = NULL;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_coherent_pool_alloc(objects->pool, &cpu, &dma);
		errors |= dmacore_coherent_pool_free(objects->pool, cpu, dma);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK((uintptr_t)cpu % OBJECT_SIZE == 0 && dma % OBJECT_SIZE == 0);
}

static void run_malloc(void *context, uint64_t count)
{
	void *volatile memory;

	(void)context;
	for (uint64_t i = 0; i < count; i++) {
		memory = malloc(OBJECT_SIZE);
		memset(memory, 0, OBJECT_SIZE);
		free(memory);
	}
}

static void measure_pool(void)
{
	struct dmacore_coherent_pool_options options = DMACORE_COHERENT_POOL_OPTIONS_INIT;
	uint64_t count = bench_count(2000000, 100);
	struct objects objects;
	struct bench_run runs[] = { { run_pool, NULL, &objects, count, 0 },
				    { run_malloc, NULL, NULL, count, 0 } };

	if (!bench_wants("coherent_pool.alloc_free.64"))
		return;
	objects.path = open_path(DMACORE_DOMAIN_DMA);
	options.size = OBJECT_SIZE;
	options.alignment = OBJECT_SIZE;
	BENCH_CHECK(dmacore_coherent_pool_create(objects.path.device, &options, &objects.pool) ==
		    0);
	bench_time_turns(runs, 2);
	bench_row("coherent_pool.alloc_free.64", "ns", runs[0].time, "malloc", runs[1].time);
	dmacore_coherent_pool_destroy(objects.pool);
	BENCH_CHECK(live_mappings(&objects.path) == 0);
	close_path(&objects.path);
}

/* A list of @entries pages, @stride bytes from one to the next, for a device that takes segments of any size. */
struct listed {
	struct path path;
	uint8_t *memory;
	struct dmacore_sg *list;
	size_t entries;
	/* How many segments it is to become. */
	size_t segments;
};

static void open_listed(struct listed *listed, uint32_t type, size_t entries, size_t stride)
{
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;

	listed->path = open_path(type);
	limits.max_segment_size = UINT64_MAX;
	BENCH_CHECK(dmacore_device_set_limits(listed->path.device, &limits) == 0);
	listed->memory = aligned_alloc(PAGE, entries * stride);
	listed->list = calloc(entries, sizeof(*listed->list));
	BENCH_CHECK(listed->memory != NULL && listed->list != NULL);
	listed->entries = entries;
	dmacore_sg_init(listed->list, entries);
	/* Backwards, so that through an IOMMU nothing but its addresses is in a row. */
	for (size_t i = 0; i < entries; i++) {
		size_t place = stride == PAGE ? i : entries - 1 - i;

		dmacore_sg_set(&listed->list[i], (uintptr_t)listed->memory + place * stride, PAGE,
			       0);
	}
}

static void close_listed(struct listed *listed)
{
	BENCH_CHECK(live_mappings(&listed->path) == 0);
	free(listed->memory);
	free(listed->list);
	close_path(&listed->path);
}

static void run_lists(void *context, uint64_t count)
{
	struct listed *listed = context;
	struct dmacore_device *device = listed->path.device;
	size_t segments = 0;
	int errors = 0;

	for (uint64_t i = 0; i < count; i += listed->entries) {
		errors |= dmacore_map_list(device, listed->list, listed->entries, DMACORE_TO_DEVICE,
					   0, 0, &segments);
		errors |= dmacore_unmap_list(device, listed->list, listed->entries,
					     DMACORE_TO_DEVICE, 0);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(segments == listed->segments);
}

static void measure_lists(void)
{
	struct listed listed = { .segments = 1 };
	uint64_t count = bench_count(2000000, 100);

	if (bench_wants("mapping.sg.16x4k")) {
		open_listed(&listed, DMACORE_DOMAIN_DMA_LAZY, 16, 2 * PAGE);
		bench_row("mapping.sg.16x4k", "ns", bench_time(run_lists, &listed, count),
			  "one page", bench_time(run_pairs, &listed.path, count));
		close_listed(&listed);
	}
	/* No power of two. */
	if (bench_wants("mapping.sg.15x4k")) {
		open_listed(&listed, DMACORE_DOMAIN_DMA_LAZY, 15, 2 * PAGE);
		bench_row("mapping.sg.15x4k", "ns", bench_time(run_lists, &listed, count),
			  "one page", bench_time(run_pairs, &listed.path, count));
		close_listed(&listed);
	}
	if (bench_wants("mapping.sg.coalesce")) {
		open_listed(&listed, 0, 512, PAGE);
		bench_row("mapping.sg.coalesce", "ns", bench_time(run_lists, &listed, 50 * count),
			  NULL, 0);
		close_listed(&listed);
	}
}

/* Two-step mapping. */

#define LINKS 64

struct linked {
	struct path path;
	struct dmacore_iova_state state;
};

/* Links of a page, 64 of them for each sync and unlink. */
static void run_links(void *context, uint64_t count)
{
	struct linked *linked = context;
	const uint64_t phys = (uintptr_t)linked->path.buffer;
	int errors = 0;

	for (uint64_t i = 0; i < count; i += LINKS) {
		for (uint64_t page = 0; page < LINKS; page++)
			errors |= dmacore_iova_state_link(&linked->state, page * PAGE, phys, PAGE,
							  DMACORE_TO_DEVICE, 0);
		errors |= dmacore_iova_state_sync(&linked->state, 0, LINKS * PAGE);
		errors |= dmacore_iova_state_unlink(&linked->state, 0, LINKS * PAGE);
	}
	BENCH_CHECK(errors == 0);
}

static void measure_links(void)
{
	struct dmacore_iova_state_options options = DMACORE_IOVA_STATE_OPTIONS_INIT;
	struct linked linked = { .state = DMACORE_IOVA_STATE_EMPTY };
	uint64_t count = bench_count(2000000, 100) / LINKS * LINKS + LINKS;

	if (!bench_wants("twostep.link_unlink.64x4k"))
		return;
	options.links = LINKS;
	options.flags = DMACORE_IOVA_STATE_PAGE_TABLES;
	linked.path = open_path(DMACORE_DOMAIN_DMA_LAZY);
	BENCH_CHECK(dmacore_iova_state_reserve(linked.path.device, (uintptr_t)linked.path.buffer,
					       LINKS * PAGE, &options, &linked.state) == 0);
	BENCH_CHECK(dmacore_iova_state_is_reserved(&linked.state));
	bench_row("twostep.link_unlink.64x4k", "ns", bench_time(run_links, &linked, count),
		  "one page", bench_time(run_pairs, &linked.path, count));
	BENCH_CHECK(dmacore_iova_state_destroy(&linked.state) == 0);
	close_path(&linked.path);
}

/* Pages of requests of 128 KiB and, where there is no IOMMU, of 1 MiB, no two of which adjoin. */
#define PAGES 32
#define PAGES_MAX 256

struct request {
	struct path path;
	uint8_t *memory;
	struct dmacore_phys_range ranges[PAGES_MAX];
	struct dmacore_transfer_request request;
	/* Of an NVMe command: the addresses of the pages. */
	uint64_t prps[PAGES_MAX];
};

static void open_request(struct request *request, uint32_t type, size_t pages)
{
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;

	request->path = open_path(type);
	limits.max_segment_size = UINT64_C(1) << 31;
	BENCH_CHECK(dmacore_device_set_limits(request->path.device, &limits) == 0);
	request->memory = aligned_alloc(PAGE, 2 * pages * PAGE);
	BENCH_CHECK(request->memory != NULL);
	for (size_t i = 0; i < pages; i++) {
		request->ranges[i].phys = (uintptr_t)request->memory + i * 13 % pages * 2 * PAGE;
		request->ranges[i].size = PAGE;
		request->ranges[i].flags = 0;
		request->ranges[i].reserved = 0;
	}
	request->request = (struct dmacore_transfer_request)DMACORE_TRANSFER_REQUEST_INIT;
	request->request.ranges = request->ranges;
	request->request.count = pages;
	request->request.direction = DMACORE_TO_DEVICE;
}

static void close_request(struct request *request)
{
	BENCH_CHECK(live_mappings(&request->path) == 0);
	close_path(&request->path);
	free(request->memory);
}

/* @count pages, by transfers. */
static void run_transfers(void *context, uint64_t count)
{
	struct request *request = context;
	struct dmacore_device *device = request->path.device;
	int errors = 0;

	for (uint64_t i = 0; i < count; i += request->request.count) {
		struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
		struct dmacore_transfer_iterator iterator;
		struct dmacore_segment segments[PAGES_MAX];
		size_t made = 0, pages = 0;

		errors |= dmacore_transfer_map(device, &request->request, &transfer);
		errors |=
			dmacore_transfer_begin(device, &request->request, &transfer, 0, &iterator);
		errors |= dmacore_transfer_next(&iterator, segments, PAGES_MAX, &made);
		if (made == request->request.count) {
			for (; pages < made; pages++)
				request->prps[pages] = segments[pages].dma;
		}
		for (size_t j = 0; pages < request->request.count && j < made; j++) {
			for (uint64_t at = 0; at < segments[j].size; at += PAGE)
				request->prps[pages++] = segments[j].dma + at;
		}
		errors |= pages != request->request.count;
		errors |= dmacore_transfer_unmap(device, &transfer);
	}
	BENCH_CHECK(errors == 0);
}

/* The same by a mapping of each page. */
static void run_page_mappings(void *context, uint64_t count)
{
	struct request *request = context;
	struct dmacore_device *device = request->path.device;
	int errors = 0;

	for (uint64_t i = 0; i < count; i += request->request.count) {
		for (size_t j = 0; j < request->request.count; j++)
			errors |= dmacore_map_phys(device, request->ranges[j].phys, PAGE,
						   DMACORE_TO_DEVICE, 0, &request->prps[j]);
		for (size_t j = 0; j < request->request.count; j++)
			errors |=
				dmacore_unmap(device, request->prps[j], PAGE, DMACORE_TO_DEVICE, 0);
	}
	BENCH_CHECK(errors == 0);
}

static void measure_transfer(const char *name, uint32_t type, size_t pages, double unit)
{
	struct request request;
	struct bench_run runs[2] = {
		{ .run = run_transfers, .context = &request },
		{ .run = run_page_mappings, .context = &request },
	};

	if (!bench_wants(name))
		return;
	runs[0].count = runs[1].count = bench_count(2000000, 100) / pages * pages + pages;
	open_request(&request, type, pages);
	bench_time_turns(runs, 2);
	bench_row(name, "ns", runs[0].time * unit, "pages alone", runs[1].time * unit);
	close_request(&request);
}

static void measure_transfers(void)
{
	measure_transfer("transfer.nvme.128k", DMACORE_DOMAIN_DMA, PAGES, PAGES);
	measure_transfer("transfer.nvme.128k.lazy", DMACORE_DOMAIN_DMA_LAZY, PAGES, PAGES);
	/* A segment. */
	measure_transfer("transfer.direct", 0, PAGES_MAX, 1);
}

void bench_mapping(void)
{
	measure_pairs();
	measure_bounced();
	measure_threads("mapping.iommu.threads2", DMACORE_DOMAIN_DMA);
	measure_threads("mapping.iommu.threads2.lazy", DMACORE_DOMAIN_DMA_LAZY);
	measure_beside_reader();
	measure_live();
	measure_coherent();
	measure_pool();
	measure_lists();
	measure_links();
	measure_transfers();
}
