/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The page table, beside Linux's for ARM: both have four levels of 512 entries of 8 bytes. */

#include <dmacore/pagetable.h>

#include "bench.h"
#include "peers/arena.h"

#include <errno.h>

#define PAGE (UINT64_C(1) << 12)
#define MIB2 (UINT64_C(1) << 21)
#define GIB (UINT64_C(1) << 30)
#define IOVA (UINT64_C(1) << 40)
#define ACCESS (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE)

/* A range, and the size of the leaves that it is mapped by. */
struct job {
	uint64_t size;
	uint64_t leaf_size;
	uint64_t phys;
	struct dmacore_pagetable *table;
	struct linux_pagetable linux_table;
};

static void map(const struct job *job)
{
	BENCH_CHECK(dmacore_pagetable_map(job->table, IOVA, job->phys, job->size, ACCESS) == 0);
}

static void unmap(const struct job *job)
{
	uint64_t unmapped;

	BENCH_CHECK(dmacore_pagetable_unmap(job->table, IOVA, job->size, 0, &unmapped) == 0);
	BENCH_CHECK(unmapped == job->size);
}

static void run_pairs(void *context, uint64_t count)
{
	const struct job *job = context;
	uint64_t unmapped, sum = 0;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_pagetable_map(job->table, IOVA, job->phys, job->size, ACCESS);
		errors |= dmacore_pagetable_unmap(job->table, IOVA, job->size, 0, &unmapped);
		/* Tables that an unmapped range covers; the peer keeps them. */
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
		if (table->map_pages(table->ops, IOVA + done, job->phys + done, job->leaf_size,
				     (job->size - done) / job->leaf_size, table->access, 0,
				     &done) != 0)
			return;
}

static size_t linux_unmap(const struct job *job)
{
	const struct linux_pagetable *table = &job->linux_table;
	size_t done = 0, step = 1;

	while (done < job->size && step != 0) {
		step = table->unmap_pages(table->ops, IOVA + done, job->leaf_size,
					  (job->size - done) / job->leaf_size, table->gather);
		done += step;
	}
	return done;
}

static void run_linux_pairs(void *context, uint64_t count)
{
	const struct job *job = context;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < count; i++) {
		linux_map(job);
		sum += linux_unmap(job);
	}
	BENCH_CHECK(sum == count * job->size);
}

/* Checks one address in the middle on both sides, so that what is timed is what is meant. */
static void check_job(const struct job *job)
{
	uint64_t iova = IOVA + job->size / 2 + 42;
	uint64_t phys = job->phys + job->size / 2 + 42;
	struct dmacore_translation got;

	map(job);
	BENCH_CHECK(dmacore_pagetable_translate(job->table, iova, ACCESS, &got) == 0);
	BENCH_CHECK(got.last - got.first + 1 == job->leaf_size);
	BENCH_CHECK(got.target + (iova - got.first) == phys);
	unmap(job);
	BENCH_CHECK(dmacore_pagetable_translate(job->table, iova, 0, &got) != 0);
	if (job->linux_table.ops == NULL)
		return;
	linux_map(job);
	BENCH_CHECK(job->linux_table.iova_to_phys(job->linux_table.ops, iova) == phys);
	BENCH_CHECK(linux_unmap(job) == job->size);
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

static void open_job(struct job *job, const struct linux_peer *linux_peer)
{
	static struct arena arena = { .cell_size = PAGE };
	struct dmacore_table_allocator allocator = DMACORE_TABLE_ALLOCATOR_INIT;
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;

	allocator.allocate = allocate_table;
	allocator.free = free_table;
	allocator.opaque = &arena;
	options.allocator = &allocator;
	BENCH_CHECK(dmacore_pagetable_create(&options, &job->table) == 0);
	if (linux_peer != NULL)
		BENCH_CHECK(linux_peer->open_pagetable(&job->linux_table));
}

static void close_job(struct job *job, const struct linux_peer *linux_peer)
{
	dmacore_pagetable_destroy(job->table);
	if (linux_peer != NULL)
		linux_peer->close_pagetable(&job->linux_table);
}

static void measure_pairs(const struct linux_peer *linux_peer, const char *name, struct job job,
			  uint64_t count, double known_value)
{
	double time, peer = 0;

	if (!bench_wants(name))
		return;
	open_job(&job, linux_peer);
	/* Also puts the tables in place, which both then keep. */
	check_job(&job);
	time = bench_time(run_pairs, &job, count);
	if (linux_peer != NULL)
		peer = bench_time(run_linux_pairs, &job, count);
	bench_row_linux(name, "ns", time, peer, known_value);
	close_job(&job, linux_peer);
}

static void run_translate(void *context, uint64_t count)
{
	const struct job *job = context;
	struct dmacore_translation got;
	uint64_t random = BENCH_SEED, wrong = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t offset = bench_random(&random) & (job->size - 1);
		int error = dmacore_pagetable_translate(job->table, IOVA + offset,
							DMACORE_ACCESS_READ, &got);

		wrong |= (uint64_t)error;
		wrong |= (got.target - job->phys) ^ (offset & ~(PAGE - 1));
	}
	BENCH_CHECK(wrong == 0);
}

static void run_linux_translate(void *context, uint64_t count)
{
	const struct job *job = context;
	const struct linux_pagetable *table = &job->linux_table;
	uint64_t random = BENCH_SEED, wrong = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t offset = bench_random(&random) & (job->size - 1);

		wrong |= (table->iova_to_phys(table->ops, IOVA + offset) - job->phys) ^ offset;
	}
	BENCH_CHECK(wrong == 0);
}

/* A random page of a range that 4 KiB leaves map; the time includes the random number. */
static void measure_translate(const struct linux_peer *linux_peer, const char *name, uint64_t size,
			      double known_value)
{
	uint64_t count = bench_count(5000000, 100);
	struct job job = { .size = size, .leaf_size = PAGE, .phys = PAGE };
	double time, peer = 0;

	if (!bench_wants(name))
		return;
	open_job(&job, linux_peer);
	map(&job);
	time = bench_time(run_translate, &job, count);
	if (linux_peer != NULL) {
		linux_map(&job);
		peer = bench_time(run_linux_translate, &job, count);
	}
	bench_row_linux(name, "ns", time, peer, known_value);
	close_job(&job, linux_peer);
}

void bench_pagetable(void)
{
	const struct linux_peer *linux_peer = bench_linux();
	/* An output address that is one page off keeps larger leaves from fitting. */
	const struct job page = { .size = PAGE, .leaf_size = PAGE, .phys = PAGE };
	const struct job pages16 = { .size = 16 * PAGE, .leaf_size = PAGE, .phys = PAGE };
	const struct job pages512 = { .size = 512 * PAGE, .leaf_size = PAGE, .phys = PAGE };
	const struct job large = { .size = MIB2, .leaf_size = MIB2, .phys = GIB };
	const struct job many = { .size = GIB, .leaf_size = PAGE, .phys = PAGE };

	measure_pairs(linux_peer, "pagetable.map_unmap.4k", page, bench_count(2000000, 100), 28.8);
	measure_pairs(linux_peer, "pagetable.map_unmap.16x4k", pages16, bench_count(1000000, 100),
		      59.8);
	measure_pairs(linux_peer, "pagetable.map_unmap.512x4k", pages512, bench_count(50000, 10),
		      1152);
	measure_pairs(linux_peer, "pagetable.map_unmap.2m", large, bench_count(2000000, 100), 25.7);
	measure_pairs(linux_peer, "pagetable.map_unmap.1g_as_4k", many, bench_count(100, 1),
		      321000 + 297000);
	measure_translate(linux_peer, "pagetable.translate.1m", UINT64_C(1) << 20, 9.3);
	measure_translate(linux_peer, "pagetable.translate.1g", GIB, 12.4);
}
