/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The IOVA allocator, beside Linux's and beside a search from end to end. */

#include <dmacore/iova.h>

#include "bench.h"

#include <stdlib.h>

#define PAGE_SHIFT 12
#define PAGE (UINT64_C(1) << PAGE_SHIFT)
#define LIMIT DMACORE_BIT_MASK(48)
#define LIMIT_32 DMACORE_BIT_MASK(32)

static struct dmacore_iova_space *create_space(uint64_t last)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	options.first = PAGE;
	options.last = last;
	BENCH_CHECK(dmacore_iova_space_create(&options, &space) == 0);
	return space;
}

/*
 * Ranges in use: a space of ours or of a peer's, and what is allocated there. Peers count addresses
 * in pages.
 */
struct range {
	uint64_t first;
	uint64_t pages;
};

struct live {
	struct dmacore_iova_space *space;
	const struct linux_iova *linux_iova;
	struct iova_domain *domain;
	const struct gtree_peer *gtree;
	struct gtree_space *tree;
	uint64_t random;
	uint64_t count;
	struct range *ranges;
};

static void open_live(struct live *live, uint64_t count)
{
	*live = (struct live){ .random = BENCH_SEED, .count = count };
	live->ranges = calloc(count, sizeof(live->ranges[0]));
	BENCH_CHECK(live->ranges != NULL);
}

static int compare_ranges(const void *left, const void *right)
{
	const struct range *a = left, *b = right;

	return (a->first > b->first) - (a->first < b->first);
}

/* Checks that no two ranges overlap and that none leaves the space; a page is @unit addresses. */
static void close_live(struct live *live, uint64_t unit)
{
	uint64_t end = unit;

	qsort(live->ranges, live->count, sizeof(live->ranges[0]), compare_ranges);
	for (uint64_t i = 0; i < live->count; i++) {
		BENCH_CHECK(live->ranges[i].first % unit == 0);
		BENCH_CHECK(live->ranges[i].first >= end);
		end = live->ranges[i].first + live->ranges[i].pages * unit;
	}
	BENCH_CHECK(end - 1 <= LIMIT);
	free(live->ranges);
}

/* One page at a time while 64 are in flight, as a ring of requests has them. */

#define IN_FLIGHT 64

static void run_ring(void *context, uint64_t count)
{
	struct live *live = context;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		struct range *range = &live->ranges[i % IN_FLIGHT];

		errors |= dmacore_iova_space_free(live->space, range->first, PAGE);
		errors |= dmacore_iova_space_allocate(live->space, PAGE, 0, LIMIT, &range->first);
	}
	BENCH_CHECK(errors == 0);
}

static void run_linux_ring(void *context, uint64_t count)
{
	struct live *live = context;

	for (uint64_t i = 0; i < count; i++) {
		struct range *range = &live->ranges[i % IN_FLIGHT];

		live->linux_iova->free_iova_fast(live->domain, range->first, 1);
		range->first = live->linux_iova->alloc_iova_fast(live->domain, 1,
								 LIMIT >> PAGE_SHIFT, true);
	}
}

static double time_ring(uint64_t count)
{
	struct live live;
	double time;

	open_live(&live, IN_FLIGHT);
	live.space = create_space(LIMIT);
	for (int i = 0; i < IN_FLIGHT; i++) {
		live.ranges[i].pages = 1;
		BENCH_CHECK(dmacore_iova_space_allocate(live.space, PAGE, 0, LIMIT,
							&live.ranges[i].first) == 0);
	}
	time = bench_time(run_ring, &live, count);
	dmacore_iova_space_destroy(live.space);
	close_live(&live, PAGE);
	return time;
}

static double time_linux_ring(const struct linux_iova *linux_iova, uint64_t count)
{
	struct live live;
	double time;

	open_live(&live, IN_FLIGHT);
	live.linux_iova = linux_iova;
	live.domain = linux_iova->create();
	for (int i = 0; i < IN_FLIGHT; i++) {
		live.ranges[i].pages = 1;
		live.ranges[i].first =
			linux_iova->alloc_iova_fast(live.domain, 1, LIMIT >> PAGE_SHIFT, true);
	}
	time = bench_time(run_linux_ring, &live, count);
	linux_iova->destroy(live.domain);
	close_live(&live, 1);
	return time;
}

static void measure_ring(const struct linux_peer *linux_peer)
{
	uint64_t count = bench_count(2000000, 200);

	if (!bench_wants("iova.alloc_free.4k"))
		return;
	bench_row_linux("iova.alloc_free.4k", "ns", time_ring(count),
			linux_peer ? time_linux_ring(&linux_peer->iova, count) : 0, 9);
}

/*
 * Ranges of 256 to 319 pages: a random one is freed, another one allocated. The longer this goes on
 * the slower Linux gets; it is measured while it is young.
 */

static uint64_t random_pages(struct live *live)
{
	return 256 + bench_random(&live->random) % 64;
}

static struct range *random_range(struct live *live)
{
	return &live->ranges[bench_random(&live->random) % live->count];
}

static void run_churn(void *context, uint64_t count)
{
	struct live *live = context;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		struct range *range = random_range(live);

		errors |= dmacore_iova_space_free(live->space, range->first,
						  range->pages << PAGE_SHIFT);
		range->pages = random_pages(live);
		errors |= dmacore_iova_space_allocate(live->space, range->pages << PAGE_SHIFT, 0,
						      LIMIT, &range->first);
	}
	BENCH_CHECK(errors == 0);
}

/* Unaligned, which is what we are asked for too, and Linux's caches end below this size anyway. */
static uint64_t linux_allocate(struct live *live, uint64_t pages)
{
	struct iova *iova =
		live->linux_iova->alloc_iova(live->domain, pages, LIMIT >> PAGE_SHIFT, false);

	return live->linux_iova->first(iova);
}

static void run_linux_churn(void *context, uint64_t count)
{
	struct live *live = context;

	for (uint64_t i = 0; i < count; i++) {
		struct range *range = random_range(live);

		live->linux_iova->free_iova(live->domain, range->first);
		range->pages = random_pages(live);
		range->first = linux_allocate(live, range->pages);
	}
}

static void run_gtree_churn(void *context, uint64_t count)
{
	struct live *live = context;
	bool has_failed = false;

	for (uint64_t i = 0; i < count; i++) {
		struct range *range = random_range(live);

		live->gtree->free(live->tree, range->first);
		range->pages = random_pages(live);
		has_failed |= !live->gtree->allocate(live->tree, range->pages, &range->first);
	}
	BENCH_CHECK(!has_failed);
}

static double time_churn(uint64_t live_count, uint64_t count)
{
	struct live live;
	double time;

	open_live(&live, live_count);
	live.space = create_space(LIMIT);
	for (uint64_t i = 0; i < live_count; i++) {
		live.ranges[i].pages = random_pages(&live);
		BENCH_CHECK(dmacore_iova_space_allocate(live.space,
							live.ranges[i].pages << PAGE_SHIFT, 0,
							LIMIT, &live.ranges[i].first) == 0);
	}
	time = bench_time(run_churn, &live, count);
	dmacore_iova_space_destroy(live.space);
	close_live(&live, PAGE);
	return time;
}

static double time_linux_churn(const struct linux_iova *linux_iova, uint64_t live_count,
			       uint64_t count)
{
	struct live live;
	double time;

	open_live(&live, live_count);
	live.linux_iova = linux_iova;
	live.domain = linux_iova->create();
	for (uint64_t i = 0; i < live_count; i++) {
		live.ranges[i].pages = random_pages(&live);
		live.ranges[i].first = linux_allocate(&live, live.ranges[i].pages);
	}
	time = bench_time(run_linux_churn, &live, count);
	linux_iova->destroy(live.domain);
	close_live(&live, 1);
	return time;
}

static double time_gtree_churn(const struct gtree_peer *gtree, uint64_t live_count, uint64_t count)
{
	struct live live;
	uint64_t first = 1;
	double time;

	open_live(&live, live_count);
	live.gtree = gtree;
	live.tree = gtree->create(LIMIT >> PAGE_SHIFT);
	/* Packed by hand: its search would take minutes to get there. */
	for (uint64_t i = 0; i < live_count; i++) {
		live.ranges[i] = (struct range){ first, random_pages(&live) };
		gtree->insert(live.tree, first, live.ranges[i].pages);
		first += live.ranges[i].pages;
	}
	time = bench_time(run_gtree_churn, &live, count);
	gtree->destroy(live.tree);
	close_live(&live, 1);
	return time;
}

static void measure_churn(const struct linux_peer *linux_peer, const char *name,
			  uint64_t live_count, double known_value)
{
	const struct gtree_peer *gtree = bench_gtree();
	/* Linear searches, so fewer of them the longer they are. */
	uint64_t peer_count = bench_count(100000000 / (live_count + 1000), 10);

	if (!bench_wants(name))
		return;
	live_count = bench_count(live_count, live_count / 100);
	bench_row_linux(name, "ns", time_churn(live_count, bench_count(1000000, 100)),
			linux_peer ? time_linux_churn(&linux_peer->iova, live_count, peer_count) :
				     0,
			known_value);
	if (gtree != NULL)
		bench_note("a GLib tree searched from its lowest key: %.4g ns",
			   time_gtree_churn(gtree, live_count, peer_count / 10));
}

/*
 * A 32-bit space in which every second run of 64 pages is free is asked for 128. One page is freed
 * before and allocated after each attempt: Linux remembers what did not fit until something is
 * freed, and would answer from memory.
 */

#define RUN_PAGES 64
#define PAGES_32 ((LIMIT_32 + 1) >> PAGE_SHIFT)

struct fragmented {
	struct dmacore_iova_space *space;
	const struct linux_iova *linux_iova;
	struct iova_domain *domain;
	uint64_t page;
};

static void run_fragmented(void *context, uint64_t count)
{
	struct fragmented *fragmented = context;
	uint64_t found = 0;
	dmacore_iova_t iova;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_iova_space_free(fragmented->space, fragmented->page, PAGE);
		found += dmacore_iova_space_allocate(fragmented->space, 2 * RUN_PAGES * PAGE, 0,
						     LIMIT_32, &iova) == 0;
		errors |= dmacore_iova_space_allocate(fragmented->space, PAGE, 0, LIMIT_32,
						      &fragmented->page);
	}
	BENCH_CHECK(errors == 0 && found == 0);
}

static uint64_t linux_allocate_page(struct fragmented *fragmented)
{
	const struct linux_iova *linux_iova = fragmented->linux_iova;

	return linux_iova->first(
		linux_iova->alloc_iova(fragmented->domain, 1, PAGES_32 - 1, false));
}

static void run_linux_fragmented(void *context, uint64_t count)
{
	struct fragmented *fragmented = context;
	const struct linux_iova *linux_iova = fragmented->linux_iova;
	uint64_t found = 0;

	for (uint64_t i = 0; i < count; i++) {
		linux_iova->free_iova(fragmented->domain, fragmented->page);
		found += linux_iova->alloc_iova(fragmented->domain, 2 * RUN_PAGES, PAGES_32 - 1,
						false) != NULL;
		fragmented->page = linux_allocate_page(fragmented);
	}
	BENCH_CHECK(found == 0);
}

static double time_fragmented(uint64_t count)
{
	struct fragmented fragmented = { .space = create_space(LIMIT_32) };
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };
	double time;
	int errors = 0;

	for (uint64_t first = RUN_PAGES; first < PAGES_32; first += 2 * RUN_PAGES)
		errors |= dmacore_iova_space_reserve(fragmented.space, first << PAGE_SHIFT,
						     ((first + RUN_PAGES) << PAGE_SHIFT) - 1);
	errors |=
		dmacore_iova_space_allocate(fragmented.space, PAGE, 0, LIMIT_32, &fragmented.page);
	BENCH_CHECK(errors == 0);
	time = bench_time(run_fragmented, &fragmented, count);
	BENCH_CHECK(dmacore_iova_space_statistics(fragmented.space, &statistics) == 0);
	BENCH_CHECK(statistics.largest_free_bytes == RUN_PAGES * PAGE);
	BENCH_CHECK(statistics.reserved_count == PAGES_32 / (2 * RUN_PAGES));
	dmacore_iova_space_destroy(fragmented.space);
	return time;
}

static double time_linux_fragmented(const struct linux_iova *linux_iova, uint64_t count)
{
	struct fragmented fragmented = { .linux_iova = linux_iova, .domain = linux_iova->create() };
	double time;

	/* All but the lowest run, then every second one of them is freed. */
	for (uint64_t i = 1; i < PAGES_32 / RUN_PAGES; i++)
		BENCH_CHECK(linux_iova->alloc_iova(fragmented.domain, RUN_PAGES, PAGES_32 - 1,
						   false) != NULL);
	for (uint64_t first = RUN_PAGES; first < PAGES_32; first += 2 * RUN_PAGES)
		linux_iova->free_iova(fragmented.domain, first);
	fragmented.page = linux_allocate_page(&fragmented);
	time = bench_time(run_linux_fragmented, &fragmented, count);
	linux_iova->destroy(fragmented.domain);
	return time;
}

static void measure_fragmented(const struct linux_peer *linux_peer)
{
	if (!bench_wants("iova.fail.fragmented_32bit"))
		return;
	bench_row_linux(
		"iova.fail.fragmented_32bit", "ns", time_fragmented(bench_count(500000, 100)),
		linux_peer ? time_linux_fragmented(&linux_peer->iova, bench_count(2000, 1)) : 0,
		38300);
}

void bench_iova(void)
{
	const struct linux_peer *linux_peer = bench_linux();

	measure_ring(linux_peer);
	measure_churn(linux_peer, "iova.churn.live_1k", 1000, 881);
	measure_churn(linux_peer, "iova.churn.live_10k", 10000, 6837);
	measure_churn(linux_peer, "iova.churn.live_100k", 100000, 66900);
	measure_fragmented(linux_peer);
}
