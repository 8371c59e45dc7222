/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_PAGETABLE_H
#define DMACORE_BENCH_PAGETABLE_H

/* What the benchmarks of page tables share: a range, the tables that it is mapped in, and loops. */

#include <dmacore/pagetable.h>

#include "bench.h"

#define PAGE (UINT64_C(1) << 12)
#define MIB2 (UINT64_C(1) << 21)
#define GIB (UINT64_C(1) << 30)
/* The first input address of a table of each level. */
#define IOVA (UINT64_C(1) << 40)
/* Turns of some ten milliseconds each. */
#define TURNS 25
#define ACCESS (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE)

/* A range, and the size of the leaves that it is mapped by. */
struct job {
	uint64_t first;
	uint64_t size;
	uint64_t leaf_size;
	uint64_t phys;
	/*
	 * How many tables the range covers. Unmapping retires them, and a pair ends with a reclaim;
	 * Linux keeps its own.
	 */
	uint64_t covered_count;
	struct dmacore_pagetable *table;
	struct linux_pagetable linux_table;
};

/* Makes our table, with default options if @options is NULL, and Linux's if there is one. */
void bench_open_job(struct job *job, const struct dmacore_pagetable_options *options,
		    const struct linux_peer *linux_peer);
void bench_close_job(struct job *job, const struct linux_peer *linux_peer);

/* Maps the range of a job in our table, in all tables, and unmaps it in ours. */
void bench_map(const struct job *job);
void bench_map_all(const struct job *job);
void bench_unmap(const struct job *job);

/*
 * Maps a leaf before the range and one after it, so that the tables that the range lies in, but
 * does not cover, are there and stay; and checks that they do, and that the range is mapped by
 * such leaves as the job says, so that what is timed is what is meant.
 */
void bench_prepare_pairs(const struct job *job);

/* Map the range and unmap it. */
void bench_run_pairs(void *context, uint64_t count);
void bench_run_linux_pairs(void *context, uint64_t count);

/* Translate random addresses of the range, which is mapped; the time includes the random number. */
void bench_run_translate(void *context, uint64_t count);

struct dmacore_pagetable_statistics bench_table_statistics(const struct job *job);

/* The areas of page tables. */
void bench_pagetable_formats(void);
void bench_pagetable_threads(const struct linux_peer *linux_peer);

#endif /* DMACORE_BENCH_PAGETABLE_H */
