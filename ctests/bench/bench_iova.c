/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The IOVA allocator, beside Linux's and beside a search from end to end. */

#include "bench_iova.h"

#include <stdio.h>
#include <stdlib.h>

struct dmacore_iova_space *bench_create_space(uint64_t last)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	options.first = PAGE;
	options.last = last;
	BENCH_CHECK(dmacore_iova_space_create(&options, &space) == 0);
	return space;
}

void bench_open_live(struct live *live, uint64_t count, const struct linux_peer *linux_peer,
		     const struct gtree_peer *gtree)
{
	/* On a line of the cache, so that two threads can have a part each; 16 bytes a range. */
	size_t size = (count * sizeof(live->ranges[0]) + 63) / 64 * 64;

	*live = (struct live){ .unit = 1, .count = count };
	live->ranges = aligned_alloc(64, size);
	BENCH_CHECK(live->ranges != NULL);
	if (linux_peer != NULL) {
		live->linux_iova = &linux_peer->iova;
		live->domain = live->linux_iova->create();
	} else if (gtree != NULL) {
		live->gtree = gtree;
		live->tree = gtree->create(LIMIT >> PAGE_SHIFT);
	} else {
		live->space = bench_create_space(LIMIT);
		live->unit = PAGE;
	}
}

struct dmacore_iova_space_statistics bench_statistics(const struct live *live)
{
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };

	BENCH_CHECK(dmacore_iova_space_statistics(live->space, &statistics) == 0);
	return statistics;
}

static int compare_ranges(const void *left, const void *right)
{
	const struct range *a = left, *b = right;

	return (a->first > b->first) - (a->first < b->first);
}

static void check_ranges(struct live *live)
{
	uint64_t end = live->unit;

	qsort(live->ranges, live->count, sizeof(live->ranges[0]), compare_ranges);
	for (uint64_t i = 0; i < live->count; i++) {
		const struct range *range = &live->ranges[i];

		BENCH_CHECK(range->first % live->unit == 0);
		BENCH_CHECK(live->pages == 0 || range->first % (live->pages * live->unit) == 0);
		BENCH_CHECK(range->first >= end);
		end = range->first + range->pages * live->unit;
		BENCH_CHECK((end - 1) / live->unit <= (range->is_low ? LIMIT_32 : LIMIT) >>
			    PAGE_SHIFT);
	}
}

void bench_close_live(struct live *live)
{
	check_ranges(live);
	if (live->linux_iova != NULL) {
		live->linux_iova->destroy(live->domain);
	} else if (live->gtree != NULL) {
		live->gtree->destroy(live->tree);
	} else {
		/* A wrong free that a cache took is refused when it comes back. */
		BENCH_CHECK(dmacore_iova_space_drain(live->space) == 0);
		BENCH_CHECK(bench_statistics(live).allocated_count == live->count);
		BENCH_CHECK(bench_statistics(live).refused_frees == 0);
		dmacore_iova_space_destroy(live->space);
	}
	free(live->ranges);
}

void bench_run_ring(void *context, uint64_t count)
{
	BENCH_CHECK(ring(context, count, allocate_ours, free_ours));
}

void bench_run_linux_ring(void *context, uint64_t count)
{
	BENCH_CHECK(ring(context, count, allocate_linux_fast, free_linux_fast));
}

void bench_fill_ring(struct live *live, uint64_t pages)
{
	live->pages = pages;
	for (uint64_t i = 0; i < live->count; i++) {
		struct range *range = &live->ranges[i];

		*range = (struct range){ .pages = (uint32_t)pages };
		range->first = live->space != NULL ? allocate_ours(live, pages, false) :
						     allocate_linux_fast(live, pages, false);
		BENCH_CHECK(range->first != 0);
	}
}

/* Ours and Linux's ring of ranges of one size. */
struct rings {
	struct live ours;
	struct live peers;
};

static void open_rings(struct rings *rings, struct bench_run *runs, uint64_t pages,
		       const struct linux_peer *linux_peer, uint64_t count)
{
	bench_open_live(&rings->ours, IN_FLIGHT, NULL, NULL);
	bench_fill_ring(&rings->ours, pages);
	runs[0] = (struct bench_run){ .run = bench_run_ring,
				      .context = &rings->ours,
				      .count = count };
	runs[1] = (struct bench_run){ .context = &rings->peers, .count = count };
	if (linux_peer == NULL)
		return;
	bench_open_live(&rings->peers, IN_FLIGHT, linux_peer, NULL);
	bench_fill_ring(&rings->peers, pages);
	runs[1].run = bench_run_linux_ring;
}

static void close_rings(struct rings *rings, const struct linux_peer *linux_peer)
{
	bench_close_live(&rings->ours);
	if (linux_peer != NULL)
		bench_close_live(&rings->peers);
}

/* One page at a time while 64 are in flight, as a ring of requests has them. */

static void measure_ring(const struct linux_peer *linux_peer)
{
	struct bench_run runs[2];
	struct rings rings;

	if (!bench_wants("iova.alloc_free.4k"))
		return;
	open_rings(&rings, runs, 1, linux_peer, bench_count(2000000, 200));
	bench_time_turns(runs, 2);
	close_rings(&rings, linux_peer);
	bench_row_linux("iova.alloc_free.4k", "ns", runs[0].time, runs[1].time, 9);
}

/*
 * The same for every size from 4 KiB to 64 MiB, all in turns, so that they can be compared with
 * each other too. Linux caches up to 128 KiB; 64 ranges are few enough for its tree to be no
 * burden.
 */

#define CLASSES 15

static void report_classes(const struct bench_run runs[CLASSES][2])
{
	double least[2], most[2];

	for (int i = 0; i < CLASSES; i++) {
		char name[40];

		snprintf(name, sizeof(name), "iova.alloc_free.class_%u", 4u << i);
		if (bench_wants(name))
			bench_row_linux(name, "ns", runs[i][0].time, runs[i][1].time, 0);
		for (int side = 0; side < 2; side++) {
			double time = runs[i][side].time;

			least[side] = i == 0 || time < least[side] ? time : least[side];
			most[side] = i == 0 || time > most[side] ? time : most[side];
		}
	}
	if (bench_wants("iova.alloc_free.class_ratio"))
		bench_row_linux("iova.alloc_free.class_ratio", "x", most[0] / least[0],
				least[1] == 0 ? 0 : most[1] / least[1], 0);
}

static void measure_classes(const struct linux_peer *linux_peer)
{
	static struct rings rings[CLASSES];
	struct bench_run runs[CLASSES][2];

	/* One class cannot be had alone: the ratio is theirs. */
	if (!bench_wants("iova.alloc_free.class_"))
		return;
	for (int i = 0; i < CLASSES; i++)
		open_rings(&rings[i], runs[i], UINT64_C(1) << i, linux_peer,
			   bench_count(300000, 200));
	bench_time_turns(&runs[0][0], 2 * CLASSES);
	for (int i = 0; i < CLASSES; i++)
		close_rings(&rings[i], linux_peer);
	report_classes(runs);
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

static void open_fragmented(struct fragmented *fragmented)
{
	int errors = 0;

	*fragmented = (struct fragmented){ .space = bench_create_space(LIMIT_32) };
	for (uint64_t first = RUN_PAGES; first < PAGES_32; first += 2 * RUN_PAGES)
		errors |= dmacore_iova_space_reserve(fragmented->space, first << PAGE_SHIFT,
						     ((first + RUN_PAGES) << PAGE_SHIFT) - 1);
	errors |= dmacore_iova_space_allocate(fragmented->space, PAGE, 0, LIMIT_32,
					      &fragmented->page);
	BENCH_CHECK(errors == 0);
}

static void close_fragmented(struct fragmented *fragmented)
{
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };

	BENCH_CHECK(dmacore_iova_space_statistics(fragmented->space, &statistics) == 0);
	BENCH_CHECK(statistics.largest_free_bytes == RUN_PAGES * PAGE);
	BENCH_CHECK(statistics.reserved_count == PAGES_32 / (2 * RUN_PAGES));
	dmacore_iova_space_destroy(fragmented->space);
}

static void open_linux_fragmented(struct fragmented *fragmented,
				  const struct linux_iova *linux_iova)
{
	*fragmented =
		(struct fragmented){ .linux_iova = linux_iova, .domain = linux_iova->create() };
	/* All but the lowest run, then every second one of them is freed. */
	for (uint64_t i = 1; i < PAGES_32 / RUN_PAGES; i++)
		BENCH_CHECK(linux_iova->alloc_iova(fragmented->domain, RUN_PAGES, PAGES_32 - 1,
						   false) != NULL);
	for (uint64_t first = RUN_PAGES; first < PAGES_32; first += 2 * RUN_PAGES)
		linux_iova->free_iova(fragmented->domain, first);
	fragmented->page = linux_allocate_page(fragmented);
}

static void measure_fragmented(const struct linux_peer *linux_peer)
{
	struct fragmented ours, peers;
	struct bench_run runs[] = {
		{ .run = run_fragmented, .context = &ours, .count = bench_count(500000, 100) },
		{ .context = &peers, .count = bench_count(2000, 1) },
	};

	if (!bench_wants("iova.fail.fragmented_32bit"))
		return;
	open_fragmented(&ours);
	if (linux_peer != NULL) {
		open_linux_fragmented(&peers, &linux_peer->iova);
		runs[1].run = run_linux_fragmented;
	}
	bench_time_turns(runs, 2);
	close_fragmented(&ours);
	if (linux_peer != NULL)
		linux_peer->iova.destroy(peers.domain);
	bench_row_linux("iova.fail.fragmented_32bit", "ns", runs[0].time, runs[1].time, 38300);
}

void bench_iova(void)
{
	const struct linux_peer *linux_peer = bench_linux();

	measure_ring(linux_peer);
	bench_iova_threads(linux_peer);
	measure_classes(linux_peer);
	bench_iova_churn(linux_peer);
	measure_fragmented(linux_peer);
}
