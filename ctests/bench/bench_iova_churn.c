/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The IOVA allocator where caches do not help: a random range is freed, another one allocated.
 * Which one and how large stands in an array that is made before and is the same for all sides, so
 * that the loop costs little beside the calls. The longer this goes on the slower Linux gets; it
 * is measured while it is young.
 */

#include "bench_iova.h"

#include <stdio.h>
#include <stdlib.h>

/* A request under the 32-bit limit that finds nothing goes without that limit. */
INLINE bool allocate_step(struct live *live, const struct step *step, struct range *range,
			  allocate_fn allocate)
{
	range->pages = step->pages;
	range->is_low = step->is_low;
	range->first = allocate(live, range->pages, range->is_low);
	if (range->first == 0 && range->is_low) {
		live->refused_count++;
		range->is_low = false;
		range->first = allocate(live, range->pages, false);
	}
	return range->first != 0;
}

INLINE bool churn_once(struct live *live, const struct step *step, allocate_fn allocate,
		       free_fn free_range)
{
	struct range *range = &live->ranges[step->index];
	bool is_fine = free_range(live, range);

	return allocate_step(live, step, range, allocate) && is_fine;
}

INLINE const struct step *next_step(struct live *live)
{
	/* The benchmark's own array shall not be what is waited for. */
	uint64_t ahead = (live->position + 8) & live->step_mask;

	__builtin_prefetch(&live->ranges[live->steps[ahead].index], 1);
	return &live->steps[live->position++ & live->step_mask];
}

INLINE void churn(struct live *live, uint64_t count, allocate_fn allocate, free_fn free_range)
{
	bool is_fine = true;

	for (uint64_t i = 0; i < count; i++)
		is_fine &= churn_once(live, next_step(live), allocate, free_range);
	BENCH_CHECK(is_fine);
}

static void run_churn(void *context, uint64_t count)
{
	churn(context, count, allocate_ours, free_ours);
}

static void run_linux_churn(void *context, uint64_t count)
{
	churn(context, count, allocate_linux, free_linux);
}

static void run_gtree_churn(void *context, uint64_t count)
{
	churn(context, count, allocate_gtree, free_gtree);
}

enum churn_kind {
	/* 256 to 319 pages. Linux caches nothing of that size. */
	CHURN_UNCACHED,
	/* 1 to 512 pages, a third of them under the 32-bit limit. */
	CHURN_MIXED,
};

static struct step *make_steps(uint64_t step_count, uint64_t live_count, enum churn_kind kind)
{
	struct step *steps = calloc(step_count, sizeof(steps[0]));
	uint64_t random = BENCH_SEED;

	BENCH_CHECK(steps != NULL);
	for (uint64_t i = 0; i < step_count; i++) {
		steps[i].index = (uint32_t)(bench_random(&random) % live_count);
		if (kind == CHURN_UNCACHED) {
			steps[i].pages = (uint16_t)(256 + bench_random(&random) % 64);
		} else {
			steps[i].pages = (uint16_t)(1 + bench_random(&random) % 512);
			steps[i].is_low = bench_random(&random) % 3 == 0;
		}
	}
	return steps;
}

/* A space of each side, and one array of steps. */
struct sides {
	struct step *steps;
	uint64_t step_mask;
	const struct linux_peer *linux_peer;
	const struct gtree_peer *gtree;
	struct live ours;
	struct live peers;
	struct live tree;
};

static void open_steps(struct sides *sides, uint64_t live_count, enum churn_kind kind)
{
	/* Enough to reach each of 100000 ranges ten times before they repeat. */
	uint64_t wanted = bench_count(1 << 20, 1 << 8), step_count = 1;

	while (step_count < wanted)
		step_count *= 2;
	sides->steps = make_steps(step_count, live_count, kind);
	sides->step_mask = step_count - 1;
}

static void open_side(struct sides *sides, struct live *live, uint64_t live_count,
		      const struct linux_peer *linux_peer)
{
	bool is_fine = true;

	bench_open_live(live, live_count, linux_peer, NULL);
	live->steps = sides->steps;
	live->step_mask = sides->step_mask;
	for (uint64_t i = 0; i < live_count; i++) {
		const struct step *step = &live->steps[i & live->step_mask];

		is_fine &= linux_peer == NULL ?
				   allocate_step(live, step, &live->ranges[i], allocate_ours) :
				   allocate_step(live, step, &live->ranges[i], allocate_linux);
	}
	BENCH_CHECK(is_fine);
	live->refused_count = 0;
}

/* Packed by hand: its search would take minutes to get there. */
static void open_tree(struct sides *sides, uint64_t live_count)
{
	struct live *live = &sides->tree;
	uint64_t first = 1;

	bench_open_live(live, live_count, NULL, sides->gtree);
	live->steps = sides->steps;
	live->step_mask = sides->step_mask;
	for (uint64_t i = 0; i < live_count; i++) {
		uint32_t pages = live->steps[i & live->step_mask].pages;

		live->ranges[i] = (struct range){ .first = first, .pages = pages };
		sides->gtree->insert(live->tree, first, pages);
		first += pages;
	}
}

static void open_sides(struct sides *sides, uint64_t live_count, enum churn_kind kind)
{
	open_steps(sides, live_count, kind);
	open_side(sides, &sides->ours, live_count, NULL);
	if (sides->linux_peer != NULL)
		open_side(sides, &sides->peers, live_count, sides->linux_peer);
	if (sides->gtree != NULL)
		open_tree(sides, live_count);
}

static void close_sides(struct sides *sides)
{
	bench_close_live(&sides->ours);
	if (sides->linux_peer != NULL)
		bench_close_live(&sides->peers);
	if (sides->gtree != NULL)
		bench_close_live(&sides->tree);
	free(sides->steps);
}

/* Linear searches, so fewer of them the longer they are. */
static uint64_t linux_count(uint64_t live_count)
{
	return bench_count(100000000 / (live_count + 1000), 10);
}

/*
 * The time of single pairs. All of the runs go into one array, of which the 99.9th percentile is
 * taken. What reading the clock costs is measured too, and is not in them.
 */

struct samples {
	uint32_t *nanoseconds;
	uint64_t count;
	uint64_t clock_cost;
};

struct percentiles {
	double median;
	double p999;
	double maximum;
};

static int compare_samples(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

static void open_samples(struct samples *samples, uint64_t count_max)
{
	uint32_t costs[1001];

	*samples = (struct samples){ .nanoseconds = calloc(count_max, sizeof(uint32_t)) };
	BENCH_CHECK(samples->nanoseconds != NULL);
	/* In place before the clock starts: a page fault would be one of the slowest pairs. */
	for (uint64_t i = 0; i < count_max; i++)
		samples->nanoseconds[i] = UINT32_MAX;
	for (int i = 0; i < 1001; i++) {
		uint64_t start = bench_clock();

		costs[i] = (uint32_t)(bench_clock() - start);
	}
	qsort(costs, 1001, sizeof(costs[0]), compare_samples);
	samples->clock_cost = costs[500];
}

static struct percentiles close_samples(struct samples *samples)
{
	struct percentiles percentiles;
	uint64_t count = samples->count;

	qsort(samples->nanoseconds, count, sizeof(samples->nanoseconds[0]), compare_samples);
	percentiles.median = samples->nanoseconds[count / 2];
	percentiles.p999 = samples->nanoseconds[count - 1 - count / 1000];
	percentiles.maximum = samples->nanoseconds[count - 1];
	free(samples->nanoseconds);
	return percentiles;
}

INLINE void sample_churn(struct live *live, struct samples *samples, uint64_t count,
			 allocate_fn allocate, free_fn free_range)
{
	bool is_fine = true;

	for (uint64_t i = 0; i < count; i++) {
		const struct step *step = next_step(live);
		uint64_t start = bench_clock(), time;

		is_fine &= churn_once(live, step, allocate, free_range);
		time = bench_clock() - start;
		time = time > samples->clock_cost ? time - samples->clock_cost : 0;
		samples->nanoseconds[samples->count++] =
			time < UINT32_MAX ? (uint32_t)time : UINT32_MAX;
	}
	BENCH_CHECK(is_fine);
}

static void note_percentiles(const char *side, const struct percentiles *percentiles)
{
	bench_note("%s: median %.4g ns, slowest %.4g ns", side, percentiles->median,
		   percentiles->maximum);
}

static void measure_percentiles(struct sides *sides, const char *name, uint64_t live_count)
{
	uint64_t count = bench_count(200000, 100), peer_count = linux_count(live_count);
	struct percentiles ours, peers = { 0 };
	struct samples our_samples, peer_samples;

	open_samples(&our_samples, BENCH_RUNS * count);
	open_samples(&peer_samples, BENCH_RUNS * peer_count);
	for (int turn = 0; turn < BENCH_RUNS; turn++) {
		/* As bench_time_turns() does: the other side leaves a cold cache. */
		run_churn(&sides->ours, count / 8);
		sample_churn(&sides->ours, &our_samples, count, allocate_ours, free_ours);
		if (sides->linux_peer == NULL)
			continue;
		run_linux_churn(&sides->peers, peer_count / 8);
		sample_churn(&sides->peers, &peer_samples, peer_count, allocate_linux, free_linux);
	}
	ours = close_samples(&our_samples);
	if (sides->linux_peer != NULL)
		peers = close_samples(&peer_samples);
	else
		free(peer_samples.nanoseconds);
	bench_row_linux(name, "ns", ours.p999, peers.p999, 0);
	note_percentiles("dmacore", &ours);
	if (sides->linux_peer != NULL)
		note_percentiles("Linux", &peers);
}

static void measure_mean(struct sides *sides, const char *name, uint64_t live_count,
			 double known_value)
{
	struct bench_run runs[] = {
		{ .run = run_churn, .context = &sides->ours, .count = bench_count(1000000, 100) },
		{ .run = sides->linux_peer == NULL ? NULL : run_linux_churn,
		  .context = &sides->peers,
		  .count = linux_count(live_count) },
		{ .run = sides->gtree == NULL ? NULL : run_gtree_churn,
		  .context = &sides->tree,
		  .count = linux_count(live_count) / 10 + 1 },
	};

	bench_time_turns(runs, 3);
	bench_row_linux(name, "ns", runs[0].time, runs[1].time, known_value);
	if (sides->gtree != NULL)
		bench_note("a GLib tree searched from its lowest key: %.4g ns", runs[2].time);
}

/* After churn, and for the ranges that are live then. */
static void measure_metadata(struct sides *sides)
{
	double bytes = (double)bench_statistics(&sides->ours).metadata_bytes;

	bench_row_linux("iova.metadata.live_100k", "bytes", bytes / (double)sides->ours.count,
			sides->linux_peer == NULL ? 0 : (double)sides->linux_peer->iova.range_bytes,
			0);
}

static void measure_churn(const struct linux_peer *linux_peer, uint64_t thousands,
			  double known_value)
{
	struct sides sides = { .linux_peer = linux_peer, .gtree = bench_gtree() };
	uint64_t live_count = bench_count(thousands * 1000, thousands * 10);
	bool has_metadata = thousands == 100 && bench_wants("iova.metadata.live_100k");
	char name[40], p999_name[48];

	snprintf(name, sizeof(name), "iova.churn.live_%uk", (unsigned int)thousands);
	snprintf(p999_name, sizeof(p999_name), "%s.p999", name);
	if (!bench_wants(name) && !has_metadata)
		return;
	open_sides(&sides, live_count, CHURN_UNCACHED);
	if (bench_wants(name))
		measure_mean(&sides, name, live_count, known_value);
	else
		run_churn(&sides.ours, bench_count(1000000, 100));
	if (bench_wants(p999_name))
		measure_percentiles(&sides, p999_name, live_count);
	if (has_metadata)
		measure_metadata(&sides);
	close_sides(&sides);
}

/*
 * Of everything. A third of 100000 ranges of 1 MiB on average is more than the 4 GiB below the
 * 32-bit limit hold: these are full all the time, and most requests for them find nothing and then
 * take a range without that limit. A pair is the free, the attempt that fails, and the one that
 * does not. We cache the ranges that happen to be a power of two long; Linux is asked past its
 * caches.
 */

static void note_refused(const char *side, const struct live *live)
{
	bench_note("%s: %.3g %% of the pairs found nothing below 4 GiB", side,
		   100.0 * (double)live->refused_count / (double)live->position);
}

static void measure_mixed(const struct linux_peer *linux_peer)
{
	struct sides sides = { .linux_peer = linux_peer };
	uint64_t live_count = bench_count(100000, 1000);
	struct bench_run runs[] = {
		{ .run = run_churn, .context = &sides.ours, .count = bench_count(500000, 100) },
		{ .run = linux_peer == NULL ? NULL : run_linux_churn,
		  .context = &sides.peers,
		  .count = linux_count(live_count) },
	};

	if (!bench_wants("iova.churn.mixed.live_100k"))
		return;
	open_sides(&sides, live_count, CHURN_MIXED);
	bench_time_turns(runs, 2);
	bench_row_linux("iova.churn.mixed.live_100k", "ns", runs[0].time, runs[1].time, 0);
	note_refused("dmacore", &sides.ours);
	if (linux_peer != NULL)
		note_refused("Linux", &sides.peers);
	close_sides(&sides);
}

/*
 * How much slower churn is where caches are full of ranges that nobody asks for any more: with
 * 10000 live ranges, beside the same in a fresh space. Ours empty themselves meanwhile, so they
 * are filled before each run, and a run is short enough to end before that does; the note says
 * what is left. Linux's stay as they are, so they are filled once.
 */

/* Of 4 to 64 KiB. */
#define IDLE_CLASSES 5

/*
 * Bursts, each some magazines longer than the one before: our caches grow by a few magazines with
 * a burst. Linux's are full after 4318 ranges of a size, for two processors. We have as many
 * bursts as make the caches grow: what they do not take would only make them give back other
 * sizes.
 */
#define BURST 508
#define BURSTS 10
#define BURSTS_MAX 200

INLINE void burst(const struct live *live, struct range *ranges, uint64_t count,
		  allocate_fn allocate, free_fn free_range)
{
	bool is_fine = true;

	for (uint32_t pages = 1; pages < 1 << IDLE_CLASSES; pages *= 2) {
		for (uint64_t i = 0; i < count; i++) {
			ranges[i] = (struct range){ .pages = pages };
			ranges[i].first = allocate(live, pages, false);
			is_fine &= ranges[i].first != 0;
		}
		for (uint64_t i = 0; i < count; i++)
			is_fine &= ranges[i].first != 0 && free_range(live, &ranges[i]);
	}
	BENCH_CHECK(is_fine);
}

static struct range *open_bursts(void)
{
	struct range *ranges = calloc(BURST * BURSTS_MAX, sizeof(ranges[0]));

	BENCH_CHECK(ranges != NULL);
	return ranges;
}

static void fill_our_caches(void *context)
{
	struct range *ranges = open_bursts();
	struct live *live = context;
	uint64_t most = bench_count(BURSTS_MAX, 1), before = 0, after;

	/* The option --percent may want more than the array holds. */
	for (uint64_t i = 1; i <= most && i <= BURSTS_MAX; i++, before = after) {
		burst(live, ranges, i * BURST, allocate_ours, free_ours);
		after = bench_statistics(live).cached_count;
		if (after <= before)
			break;
	}
	free(ranges);
}

static void fill_linux_caches(const struct live *live)
{
	struct range *ranges = open_bursts();

	for (uint64_t i = 1; i <= BURSTS; i++)
		burst(live, ranges, i * BURST, allocate_linux_fast, free_linux_fast);
	free(ranges);
}

static void measure_aging(const struct linux_peer *linux_peer)
{
	struct sides fresh = { .linux_peer = linux_peer }, aged = { .linux_peer = linux_peer };
	uint64_t live_count = bench_count(10000, 100), count = bench_count(6000, 100);
	uint64_t peer_count = bench_count(2000, 10), filled_count, left_count;
	double settled;
	struct bench_run runs[] = {
		{ .run = run_churn, .context = &fresh.ours, .count = count },
		{ .run = run_churn,
		  .prepare = fill_our_caches,
		  .context = &aged.ours,
		  .count = count },
		{ .context = &fresh.peers, .count = peer_count },
		{ .context = &aged.peers, .count = peer_count },
	};

	if (!bench_wants("iova.aging"))
		return;
	open_sides(&fresh, live_count, CHURN_UNCACHED);
	open_sides(&aged, live_count, CHURN_UNCACHED);
	fill_our_caches(&aged.ours);
	filled_count = bench_statistics(&aged.ours).cached_count;
	if (linux_peer != NULL) {
		fill_linux_caches(&aged.peers);
		runs[2].run = runs[3].run = run_linux_churn;
	}
	bench_time_turns(runs, 4);
	left_count = bench_statistics(&aged.ours).cached_count;
	run_churn(&aged.ours, bench_count(200000, 100));
	settled = bench_time(run_churn, &aged.ours, count);
	bench_row_linux("iova.aging", "x", runs[1].time / runs[0].time,
			linux_peer == NULL ? 0 : runs[3].time / runs[2].time, 0);
	bench_note("fresh: %.4g ns, aged: %.4g ns, once they are empty: %.4g ns", runs[0].time,
		   runs[1].time, settled);
	bench_note("cached: %u ranges before a run, %u after it", (unsigned int)filled_count,
		   (unsigned int)left_count);
	if (linux_peer != NULL)
		bench_note("Linux: fresh: %.4g ns, aged: %.4g ns", runs[2].time, runs[3].time);
	close_sides(&fresh);
	close_sides(&aged);
}

void bench_iova_churn(const struct linux_peer *linux_peer)
{
	measure_churn(linux_peer, 1, 881);
	measure_churn(linux_peer, 10, 6837);
	measure_churn(linux_peer, 100, 66900);
	measure_mixed(linux_peer);
	measure_aging(linux_peer);
}
