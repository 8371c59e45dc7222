/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One page table and two threads, each on a processor of its own and in a lowest table of its own,
 * below the same upper tables. Nothing is allocated, as all tables are there.
 */

#include "bench_pagetable.h"

#include <stdatomic.h>

/* Two pages of one table, 2 MiB apart. */
static void open_two(struct job jobs[2], const struct linux_peer *linux_peer)
{
	const struct job page = {
		.first = IOVA + PAGE, .size = PAGE, .leaf_size = PAGE, .phys = 2 * PAGE
	};

	jobs[0] = page;
	bench_open_job(&jobs[0], NULL, linux_peer);
	jobs[1] = jobs[0];
	jobs[1].first += MIB2;
	for (int i = 0; i < 2; i++)
		bench_prepare_pairs(&jobs[i]);
}

static void measure_two(const struct linux_peer *linux_peer)
{
	struct job jobs[2];
	struct bench_two two = { bench_run_pairs, { &jobs[0], &jobs[1] } };
	struct bench_two linux_two = { bench_run_linux_pairs, { &jobs[0], &jobs[1] } };

	if (!bench_wants("pagetable.threads2"))
		return;
	open_two(jobs, linux_peer);
	bench_row_two("pagetable.threads2", &two, linux_peer == NULL ? NULL : &linux_two,
		      bench_count(1000000, 100), TURNS);
	bench_close_job(&jobs[0], linux_peer);
}

/*
 * A reader of 1 MiB, and a writer that maps and unmaps a page until the reader is done: in the same
 * table, or in another one, where the two share nothing but what the machine has their processors
 * share.
 */
struct beside {
	struct job reader;
	struct job writer;
	struct job elsewhere;
	bool is_elsewhere;
	_Alignas(BENCH_LINE) atomic_bool has_read;
};

static void run_reader(void *context, uint64_t count)
{
	struct beside *beside = context;

	bench_run_translate(&beside->reader, count);
}

/* Relaxed, here and below: nothing is read that the other one wrote but the flag itself. */
static void run_writer(void *context, uint64_t count)
{
	struct beside *beside = context;

	do
		bench_run_pairs(beside->is_elsewhere ? &beside->elsewhere : &beside->writer, count);
	while (!atomic_load_explicit(&beside->has_read, memory_order_relaxed));
}

/* The writer sees that it is to end after some pairs only, to do little but pairs. */
static void run_reader_beside(struct beside *beside, bool is_elsewhere, uint64_t count)
{
	beside->is_elsewhere = is_elsewhere;
	atomic_store_explicit(&beside->has_read, false, memory_order_relaxed);
	bench_start_second(run_writer, beside, 64);
	bench_run_translate(&beside->reader, count);
	atomic_store_explicit(&beside->has_read, true, memory_order_relaxed);
	bench_wait_for_second();
}

static void run_reader_in_same(void *context, uint64_t count)
{
	run_reader_beside(context, false, count);
}

static void run_reader_in_other(void *context, uint64_t count)
{
	run_reader_beside(context, true, count);
}

static void measure_reader(void)
{
	uint64_t count = bench_count(2000000, 100);
	struct beside beside;
	struct job jobs[2], others[2];
	struct bench_run runs[] = {
		{ .run = run_reader, .context = &beside, .count = count },
		{ .run = run_reader_in_same, .context = &beside, .count = count },
		{ .run = run_reader_in_other, .context = &beside, .count = count },
	};

	if (!bench_wants("pagetable.reader_beside_writer"))
		return;
	open_two(jobs, NULL);
	open_two(others, NULL);
	beside.writer = jobs[1];
	beside.elsewhere = others[1];
	beside.reader = jobs[0];
	beside.reader.first = IOVA + MIB2 / 2;
	beside.reader.size = MIB2 / 2;
	bench_map(&beside.reader);
	bench_time_many_turns(runs, 3, TURNS);
	bench_row("pagetable.reader_beside_writer", "ns", runs[1].time, "reader alone",
		  runs[0].time);
	bench_note("beside a writer of another table: %.4g ns", runs[2].time);
	bench_close_job(&jobs[0], NULL);
	bench_close_job(&others[0], NULL);
}

void bench_pagetable_threads(const struct linux_peer *linux_peer)
{
	if (!bench_wants("pagetable.threads2") && !bench_wants("pagetable.reader_beside_writer"))
		return;
	if (bench_open_second(linux_peer)) {
		measure_two(linux_peer);
		measure_reader();
	} else {
		bench_note("no second processor: page tables with two threads are left out");
	}
	bench_close_second();
}
