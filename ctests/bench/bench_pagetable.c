/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The page table, beside Linux's for ARM: both have four levels of 512 entries of 8 bytes. Ours
 * takes table pages from the library's own heap, as it does by default, and Linux's from an arena:
 * both give out again what was freed last, and ask nobody. The arena may lie in large pages.
 */

#include "bench_pagetable.h"
#include "peers/arena.h"
#include "peers/bare.h"

#include <errno.h>

struct dmacore_pagetable_statistics bench_table_statistics(const struct job *job)
{
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };

	BENCH_CHECK(dmacore_pagetable_statistics(job->table, &statistics) == 0);
	return statistics;
}

void bench_map(const struct job *job)
{
	BENCH_CHECK(dmacore_pagetable_map(job->table, job->first, job->phys, job->size, ACCESS) ==
		    0);
}

void bench_unmap(const struct job *job)
{
	uint64_t unmapped;

	BENCH_CHECK(dmacore_pagetable_unmap(job->table, job->first, job->size, 0, &unmapped) == 0);
	BENCH_CHECK(unmapped == job->size);
}

void bench_run_pairs(void *context, uint64_t count)
{
	const struct job *job = context;
	uint64_t unmapped, sum = 0;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |=
			dmacore_pagetable_map(job->table, job->first, job->phys, job->size, ACCESS);
		errors |= dmacore_pagetable_unmap(job->table, job->first, job->size, 0, &unmapped);
		if (job->covered_count != 0)
			errors |= dmacore_pagetable_reclaim(job->table);
		sum += unmapped;
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(sum == count * job->size);
}

/* Linux's callers go on where a call ended, at the end of a table. */
static void linux_map(const struct job *job)
{
	const struct linux_pagetable *table = &job->linux_table;
	size_t done = 0;

	while (done < job->size)
		if (table->map_pages(table->ops, job->first + done, job->phys + done,
				     job->leaf_size, (job->size - done) / job->leaf_size,
				     table->access, 0, &done) != 0)
			return;
}

static size_t linux_unmap(const struct job *job)
{
	const struct linux_pagetable *table = &job->linux_table;
	size_t done = 0, step = 1;

	while (done < job->size && step != 0) {
		step = table->unmap_pages(table->ops, job->first + done, job->leaf_size,
					  (job->size - done) / job->leaf_size, table->gather);
		done += step;
	}
	return done;
}

void bench_run_linux_pairs(void *context, uint64_t count)
{
	const struct job *job = context;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < count; i++) {
		linux_map(job);
		sum += linux_unmap(job);
	}
	BENCH_CHECK(sum == count * job->size);
}

void bench_map_all(const struct job *job)
{
	bench_map(job);
	if (job->linux_table.ops != NULL)
		linux_map(job);
}

/* Maps the range and unmaps it, and checks an address in the middle on both sides. */
static void check_range(const struct job *job)
{
	uint64_t iova = job->first + job->size / 2 + 42;
	uint64_t phys = job->phys + job->size / 2 + 42;
	struct dmacore_translation got;

	bench_map_all(job);
	BENCH_CHECK(dmacore_pagetable_translate(job->table, iova, ACCESS, &got) == 0);
	BENCH_CHECK(got.last - got.first + 1 == job->leaf_size);
	BENCH_CHECK(got.target + (iova - got.first) == phys);
	bench_unmap(job);
	BENCH_CHECK(dmacore_pagetable_translate(job->table, iova, 0, &got) != 0);
	if (job->linux_table.ops == NULL)
		return;
	BENCH_CHECK(job->linux_table.iova_to_phys(job->linux_table.ops, iova) == phys);
	BENCH_CHECK(linux_unmap(job) == job->size);
	BENCH_CHECK(job->linux_table.iova_to_phys(job->linux_table.ops, iova) == 0);
}

void bench_prepare_pairs(const struct job *job)
{
	struct job before = *job, after = *job;
	struct dmacore_pagetable_statistics statistics;
	uint64_t table_count;

	before.size = after.size = job->leaf_size;
	before.first -= job->leaf_size;
	before.phys -= job->leaf_size;
	after.first += job->size;
	after.phys += job->size;
	bench_map_all(&before);
	bench_map_all(&after);
	table_count = bench_table_statistics(job).table_count;
	check_range(job);
	statistics = bench_table_statistics(job);
	BENCH_CHECK(statistics.retired_count == job->covered_count);
	BENCH_CHECK(statistics.table_count == table_count + job->covered_count);
	BENCH_CHECK(dmacore_pagetable_reclaim(job->table) == 0);
}

void bench_open_job(struct job *job, const struct dmacore_pagetable_options *options,
		    const struct linux_peer *linux_peer)
{
	BENCH_CHECK(dmacore_pagetable_create(options, &job->table) == 0);
	if (linux_peer != NULL)
		BENCH_CHECK(linux_peer->open_pagetable(&job->linux_table));
}

void bench_close_job(struct job *job, const struct linux_peer *linux_peer)
{
	dmacore_pagetable_destroy(job->table);
	if (linux_peer != NULL)
		linux_peer->close_pagetable(&job->linux_table);
}

static void measure_pairs(const struct linux_peer *linux_peer, const char *name, struct job job,
			  const struct dmacore_pagetable_options *options, uint64_t count,
			  double known_value)
{
	struct bench_run runs[] = {
		{ .run = bench_run_pairs, .context = &job, .count = count },
		{ .context = &job, .count = count },
	};

	if (!bench_wants(name))
		return;
	bench_open_job(&job, options, linux_peer);
	bench_prepare_pairs(&job);
	if (linux_peer != NULL)
		runs[1].run = bench_run_linux_pairs;
	bench_time_many_turns(runs, 2, TURNS);
	bench_row_linux(name, "ns", runs[0].time, runs[1].time, known_value);
	bench_close_job(&job, linux_peer);
}

static int allocate_table(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	(void)size;
	out_page->host = arena_allocate(opaque);
	out_page->phys = (uintptr_t)out_page->host;
	return out_page->host == NULL ? -ENOMEM : 0;
}

static void free_table(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	(void)size;
	arena_free(opaque, page->host);
}

/* With an allocator of the caller's, which has an arena as Linux's tables have. */
static void measure_callers(const struct linux_peer *linux_peer, const char *name, struct job job,
			    uint64_t count, double known_value)
{
	struct arena arena = { .cell_size = PAGE };
	struct dmacore_table_allocator allocator = DMACORE_TABLE_ALLOCATOR_INIT;
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;

	allocator.allocate = allocate_table;
	allocator.free = free_table;
	allocator.opaque = &arena;
	options.allocator = &allocator;
	measure_pairs(linux_peer, name, job, &options, count, known_value);
	free(arena.memory);
}

/*
 * The random pages of a range whose size is a power of two: the high bits of a multiplicative
 * congruence, which takes one instruction, so that what is timed is the translation.
 */
struct pages {
	uint64_t random;
	uint64_t first;
	uint64_t mask;
	int shift;
};

static struct pages open_pages(const struct job *job)
{
	return (struct pages){ .random = BENCH_SEED,
			       .first = job->first,
			       .mask = ~(job->leaf_size - 1),
			       .shift = __builtin_clzll(job->size) + 1 };
}

static inline uint64_t next_page(struct pages *pages)
{
	/* A multiplier of Steele and Vigna's for 64 bits. */
	pages->random *= UINT64_C(0xd1342543de82ef95);
	return pages->first + (pages->random >> pages->shift & pages->mask);
}

void bench_run_translate(void *context, uint64_t count)
{
	const struct job *job = context;
	struct dmacore_pagetable *table = job->table;
	struct pages pages = open_pages(job);
	struct dmacore_translation got;
	uint64_t sum = 0;
	int errors = 0;

	for (uint64_t left = count; left > 0; left--) {
		uint64_t iova = next_page(&pages);

		errors |= dmacore_pagetable_translate(table, iova, DMACORE_ACCESS_READ, &got);
		sum += got.target - iova;
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(sum == count * (job->phys - job->first));
}

static void run_linux_translate(void *context, uint64_t count)
{
	const struct job *job = context;
	const struct linux_pagetable *table = &job->linux_table;
	struct pages pages = open_pages(job);
	uint64_t sum = 0;

	for (uint64_t left = count; left > 0; left--) {
		uint64_t iova = next_page(&pages);

		sum += table->iova_to_phys(table->ops, iova) - iova;
	}
	BENCH_CHECK(sum == count * (job->phys - job->first));
}

/* The lowest tables of a range of at most 1 GiB at a multiple of that. */
struct bare {
	const struct job *job;
	uint64_t *words;
	const uint64_t *tables[GIB / MIB2];
};

static void open_bare(struct bare *bare, const struct job *job)
{
	uint64_t count = job->size / PAGE;

	bare->job = job;
	bare->words = aligned_alloc(PAGE, (count * sizeof(uint64_t) + PAGE - 1) & ~(PAGE - 1));
	BENCH_CHECK(bare->words != NULL);
	for (uint64_t i = 0; i < count; i++)
		bare->words[i] = (job->phys + i * PAGE) | ACCESS;
	for (uint64_t i = 0; i < GIB / MIB2; i++)
		bare->tables[i] = bare->words + (i * 512 < count ? i * 512 : 0);
}

static void run_bare_translate(void *context, uint64_t count)
{
	const struct bare *bare = context;
	struct pages pages = open_pages(bare->job);
	struct dmacore_translation got;
	uint64_t sum = 0;
	int errors = 0;

	for (uint64_t left = count; left > 0; left--) {
		uint64_t iova = next_page(&pages);

		errors |= bare_translate(bare->tables, iova, DMACORE_ACCESS_READ, &got);
		sum += got.target - iova;
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(sum == count * (bare->job->phys - bare->job->first));
}

/* Pages of a range that 4 KiB leaves map. */
static void measure_translate(const struct linux_peer *linux_peer, const char *name, uint64_t size,
			      double known_value)
{
	uint64_t count = bench_count(500000, 100);
	struct job job = { .first = IOVA, .size = size, .leaf_size = PAGE, .phys = PAGE };
	struct bare bare;
	struct bench_run runs[] = {
		{ .run = bench_run_translate, .context = &job, .count = count },
		{ .context = &job, .count = count },
		{ .run = run_bare_translate, .context = &bare, .count = count },
	};

	if (!bench_wants(name))
		return;
	bench_open_job(&job, NULL, linux_peer);
	bench_map_all(&job);
	open_bare(&bare, &job);
	if (linux_peer != NULL)
		runs[1].run = run_linux_translate;
	bench_time_many_turns(runs, 3, TURNS);
	bench_row_linux(name, "ns", runs[0].time, runs[1].time, known_value);
	bench_note("two loads that check nothing: %.4g ns", runs[2].time);
	free(bare.words);
	bench_close_job(&job, linux_peer);
}

/* What tables take for each page that @job maps beside what is mapped already. */
static double map_and_weigh(const struct job *job, uint64_t bytes_before)
{
	struct dmacore_pagetable_statistics statistics;

	bench_map(job);
	statistics = bench_table_statistics(job);
	return (double)(statistics.table_bytes - bytes_before) / (double)(job->size / PAGE);
}

/*
 * Unmaps what is mapped and checks that no table is left but the root. Unmapping retires the tables
 * that the range covers, and trimming those above them.
 */
static void unmap_and_trim(const struct job *job)
{
	struct dmacore_pagetable_statistics statistics;

	bench_unmap(job);
	BENCH_CHECK(dmacore_pagetable_trim(job->table, 0, DMACORE_BIT_MASK(48)) == 0);
	BENCH_CHECK(dmacore_pagetable_reclaim(job->table) == 0);
	statistics = bench_table_statistics(job);
	BENCH_CHECK(statistics.table_count == 1);
	BENCH_CHECK(statistics.mapped_bytes == 0);
}

/*
 * Bytes of tables for each page of a GiB, beside the 8 bytes of its entry. They are 512 lowest
 * tables and the three that lead there, two of which could lead to more. Only tables in use count,
 * and not what the library has taken from the heap for later.
 */
static void measure_memory(void)
{
	struct job job = { .first = IOVA, .size = GIB, .leaf_size = PAGE, .phys = PAGE };
	struct job page = { .first = IOVA + GIB, .size = PAGE, .leaf_size = PAGE, .phys = PAGE };

	if (!bench_wants("pagetable.memory.1g"))
		return;
	bench_open_job(&job, NULL, NULL);
	bench_row("pagetable.memory.1g", "bytes", map_and_weigh(&job, 0), "entry alone", 8);
	unmap_and_trim(&job);
	page.table = job.table;
	bench_map(&page);
	bench_note("for a GiB more: %.5g bytes",
		   map_and_weigh(&job, bench_table_statistics(&page).table_bytes));
	bench_close_job(&job, NULL);
}

void bench_pagetable(void)
{
	const struct linux_peer *linux_peer = bench_linux();
	/*
	 * Ranges start one leaf into a table, which has room for a neighbour then. That makes 512
	 * pages span two tables and cover none. An output address that is one page off keeps larger
	 * leaves from fitting.
	 */
	const struct job page = {
		.first = IOVA + PAGE, .size = PAGE, .leaf_size = PAGE, .phys = 2 * PAGE
	};
	struct job pages16 = page, pages512 = page;
	const struct job large = {
		.first = IOVA + MIB2, .size = MIB2, .leaf_size = MIB2, .phys = GIB
	};
	/* Aligned, so that no neighbour keeps any of its tables: 512, and one that leads there. */
	const struct job many = {
		.first = IOVA + GIB,
		.size = GIB,
		.leaf_size = PAGE,
		.phys = GIB + PAGE,
		.covered_count = 512 + 1,
	};

	pages16.size = 16 * PAGE;
	pages512.size = 512 * PAGE;
	measure_pairs(linux_peer, "pagetable.map_unmap.4k", page, NULL, bench_count(200000, 100),
		      28.8);
	measure_callers(linux_peer, "pagetable.map_unmap.4k.callers", page,
			bench_count(200000, 100), 28.8);
	measure_pairs(linux_peer, "pagetable.map_unmap.16x4k", pages16, NULL,
		      bench_count(100000, 100), 59.8);
	measure_pairs(linux_peer, "pagetable.map_unmap.512x4k", pages512, NULL,
		      bench_count(10000, 10), 1152);
	measure_pairs(linux_peer, "pagetable.map_unmap.2m", large, NULL, bench_count(200000, 100),
		      25.7);
	measure_pairs(linux_peer, "pagetable.map_unmap.1g_as_4k", many, NULL, bench_count(20, 1),
		      321000 + 297000);
	measure_translate(linux_peer, "pagetable.translate.1m", UINT64_C(1) << 20, 9.3);
	measure_translate(linux_peer, "pagetable.translate.1g", GIB, 12.4);
	bench_pagetable_formats();
	bench_pagetable_threads(linux_peer);
	measure_memory();
}
