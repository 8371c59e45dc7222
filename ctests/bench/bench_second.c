/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The second thread of the benchmarks that need one. */

#include "bench.h"

#include <pthread.h>

static struct {
	pthread_t thread;
	pthread_barrier_t start;
	pthread_barrier_t end;
	const struct linux_peer *linux_peer;
	bool is_pinned;
	/* What the second thread does next; NULL: it ends. */
	void (*work)(void *context, uint64_t count);
	void *context;
	uint64_t count;
} second;

static void *run_second(void *opaque)
{
	second.is_pinned = bench_pin(1);
	if (second.linux_peer != NULL)
		second.linux_peer->iova.set_processor(1);
	pthread_barrier_wait(&second.end);
	for (;;) {
		pthread_barrier_wait(&second.start);
		if (second.work == NULL)
			return opaque;
		second.work(second.context, second.count);
		pthread_barrier_wait(&second.end);
	}
}

void bench_start_second(void (*work)(void *context, uint64_t count), void *context, uint64_t count)
{
	second.work = work;
	second.context = context;
	second.count = count;
	pthread_barrier_wait(&second.start);
}

void bench_wait_for_second(void)
{
	pthread_barrier_wait(&second.end);
}

bool bench_open_second(const struct linux_peer *linux_peer)
{
	second.linux_peer = linux_peer;
	BENCH_CHECK(pthread_barrier_init(&second.start, NULL, 2) == 0);
	BENCH_CHECK(pthread_barrier_init(&second.end, NULL, 2) == 0);
	BENCH_CHECK(pthread_create(&second.thread, NULL, run_second, NULL) == 0);
	bench_wait_for_second();
	return second.is_pinned;
}

void bench_close_second(void)
{
	bench_start_second(NULL, NULL, 0);
	BENCH_CHECK(pthread_join(second.thread, NULL) == 0);
	pthread_barrier_destroy(&second.start);
	pthread_barrier_destroy(&second.end);
}

static void run_one(void *context, uint64_t count)
{
	struct bench_two *two = context;

	two->run(two->contexts[0], count);
}

static void run_two(void *context, uint64_t count)
{
	struct bench_two *two = context;

	bench_start_second(two->run, two->contexts[1], count);
	two->run(two->contexts[0], count);
	bench_wait_for_second();
}

/* Shares nothing and needs no memory: what it gains by two threads the machine grants at best. */
static void run_arithmetic(void *context, uint64_t count)
{
	uint64_t random = BENCH_SEED;

	for (uint64_t i = 0; i < 4 * count; i++)
		(void)bench_random(&random);
	*(uint64_t *)context = random;
}

static double speedup(const struct bench_run *one, const struct bench_run *two)
{
	return two->time == 0 ? 0 : 2 * one->time / two->time;
}

void bench_row_two(const char *name, struct bench_two *two, struct bench_two *linux_two,
		   uint64_t count, size_t turn_count)
{
	uint64_t results[2];
	struct bench_two arithmetic = { run_arithmetic, { &results[0], &results[1] } };
	bool has_linux = linux_two != NULL;
	struct bench_run runs[] = {
		{ .run = run_one, .context = two, .count = count },
		{ .run = run_two, .context = two, .count = count },
		{ .run = has_linux ? run_one : NULL, .context = linux_two, .count = count },
		{ .run = has_linux ? run_two : NULL, .context = linux_two, .count = count },
		{ .run = run_one, .context = &arithmetic, .count = count },
		{ .run = run_two, .context = &arithmetic, .count = count },
	};

	bench_time_many_turns(runs, 6, turn_count);
	BENCH_CHECK(results[0] == results[1]);
	bench_row_linux(name, "x", speedup(&runs[0], &runs[1]), speedup(&runs[2], &runs[3]), 0);
	bench_note("one thread: %.4g ns, each of two: %.4g ns", runs[0].time, runs[1].time);
	if (has_linux)
		bench_note("Linux: one thread: %.4g ns, each of two: %.4g ns", runs[2].time,
			   runs[3].time);
	bench_note("arithmetic alone, as the machine is: %.4g x", speedup(&runs[4], &runs[5]));
}
