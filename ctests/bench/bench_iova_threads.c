/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The IOVA allocator with two threads, each on a processor of its own. The second one exists all
 * the time and sleeps at a barrier between the runs, so that no run pays for starting it, and so
 * that it is in nobody's way while one thread is measured alone.
 */

#include "bench_iova.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define LINE 64

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

static void start_second(void (*work)(void *context, uint64_t count), void *context, uint64_t count)
{
	second.work = work;
	second.context = context;
	second.count = count;
	pthread_barrier_wait(&second.start);
}

static void wait_for_second(void)
{
	pthread_barrier_wait(&second.end);
}

/* Whether there is a processor for it. */
static bool open_second(const struct linux_peer *linux_peer)
{
	second.linux_peer = linux_peer;
	BENCH_CHECK(pthread_barrier_init(&second.start, NULL, 2) == 0);
	BENCH_CHECK(pthread_barrier_init(&second.end, NULL, 2) == 0);
	BENCH_CHECK(pthread_create(&second.thread, NULL, run_second, NULL) == 0);
	wait_for_second();
	return second.is_pinned;
}

static void close_second(void)
{
	start_second(NULL, NULL, 0);
	BENCH_CHECK(pthread_join(second.thread, NULL) == 0);
	pthread_barrier_destroy(&second.start);
	pthread_barrier_destroy(&second.end);
}

/* Two rings of requests on one space, of 64 pages in flight each. */

struct two_rings {
	/* Has the space, and the ranges of both. */
	struct live whole;
	/* A line apart, because each is written by its own thread. */
	struct {
		struct live live __attribute__((aligned(LINE)));
	} parts[2];
};

static void run_one(void *context, uint64_t count)
{
	struct two_rings *rings = context;

	bench_run_ring(&rings->parts[0].live, count);
}

static void run_two(void *context, uint64_t count)
{
	struct two_rings *rings = context;

	start_second(bench_run_ring, &rings->parts[1].live, count);
	bench_run_ring(&rings->parts[0].live, count);
	wait_for_second();
}

static void run_linux_one(void *context, uint64_t count)
{
	struct two_rings *rings = context;

	bench_run_linux_ring(&rings->parts[0].live, count);
}

static void run_linux_two(void *context, uint64_t count)
{
	struct two_rings *rings = context;

	start_second(bench_run_linux_ring, &rings->parts[1].live, count);
	bench_run_linux_ring(&rings->parts[0].live, count);
	wait_for_second();
}

static void open_two_rings(struct two_rings *rings, const struct linux_peer *linux_peer)
{
	bench_open_live(&rings->whole, 2 * IN_FLIGHT, linux_peer, NULL);
	bench_fill_ring(&rings->whole, 1);
	for (int i = 0; i < 2; i++) {
		struct live *part = &rings->parts[i].live;

		*part = rings->whole;
		part->count = IN_FLIGHT;
		part->ranges += i * IN_FLIGHT;
	}
}

/* How much more two threads get done than one, from the times of a run. */
static double speedup(const struct bench_run *one, const struct bench_run *two)
{
	return two->time == 0 ? 0 : 2 * one->time / two->time;
}

static void measure_two_rings(const struct linux_peer *linux_peer)
{
	uint64_t count = bench_count(2000000, 200);
	static struct two_rings ours, peers;
	struct bench_run runs[] = {
		{ .run = run_one, .context = &ours, .count = count },
		{ .run = run_two, .context = &ours, .count = count },
		{ .context = &peers, .count = count },
		{ .context = &peers, .count = count },
	};

	if (!bench_wants("iova.alloc_free.4k.threads2"))
		return;
	open_two_rings(&ours, NULL);
	if (linux_peer != NULL) {
		open_two_rings(&peers, linux_peer);
		runs[2].run = run_linux_one;
		runs[3].run = run_linux_two;
	}
	bench_time_turns(runs, 4);
	bench_close_live(&ours.whole);
	if (linux_peer != NULL)
		bench_close_live(&peers.whole);
	bench_row_linux("iova.alloc_free.4k.threads2", "x", speedup(&runs[0], &runs[1]),
			speedup(&runs[2], &runs[3]), 0);
	bench_note("one thread: %.4g ns, each of two: %.4g ns", runs[0].time, runs[1].time);
	if (linux_peer != NULL)
		bench_note("Linux: one thread: %.4g ns, each of two: %.4g ns", runs[2].time,
			   runs[3].time);
}

/*
 * One thread allocates pages, the other frees them, as a driver does that submits here and
 * completes there. They pass through a queue of one producer and one consumer, which tell each
 * other how far they are every BATCH entries only: what the queue costs is measured by passing
 * numbers alone.
 */

#define QUEUE_SIZE 1024
#define BATCH 32

struct queue {
	_Alignas(LINE) _Atomic uint64_t produced;
	_Alignas(LINE) _Atomic uint64_t consumed;
	_Alignas(LINE) uint64_t entries[QUEUE_SIZE];
};

/* A space, and the queue from the thread that allocates to the one that frees. */
struct handover {
	struct live live;
	struct queue queue;
};

/*
 * Waits until @counter is more than @value. Pairs, by acquire, with the release in publish(). After
 * a while the thread lets others run: the one it waits for may have been kept from running.
 */
static uint64_t wait_above(_Atomic uint64_t *counter, uint64_t value)
{
	uint64_t seen;

	for (unsigned int i = 1;; i++) {
		seen = atomic_load_explicit(counter, memory_order_acquire);
		if (seen > value)
			return seen;
		if (i % 4096 == 0)
			sched_yield();
	}
}

static void publish(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_store_explicit(counter, value, memory_order_release);
}

/* Produces @count entries, starting with an empty queue, whose counters are zero. */
INLINE bool produce(struct handover *handover, uint64_t count, allocate_fn allocate)
{
	struct queue *queue = &handover->queue;
	uint64_t room = QUEUE_SIZE;
	bool is_fine = true;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t first = allocate(&handover->live, 1, false);

		is_fine &= first != 0;
		if (i == room)
			room = wait_above(&queue->consumed, i - QUEUE_SIZE) + QUEUE_SIZE;
		queue->entries[i % QUEUE_SIZE] = first;
		if ((i + 1) % BATCH == 0)
			publish(&queue->produced, i + 1);
	}
	publish(&queue->produced, count);
	return is_fine;
}

INLINE bool consume(struct handover *handover, uint64_t count, free_fn free_range)
{
	struct queue *queue = &handover->queue;
	uint64_t there = 0;
	bool is_fine = true;

	for (uint64_t i = 0; i < count; i++) {
		struct range range = { .pages = 1 };

		if (i == there)
			there = wait_above(&queue->produced, i);
		range.first = queue->entries[i % QUEUE_SIZE];
		if ((i + 1) % BATCH == 0)
			publish(&queue->consumed, i + 1);
		is_fine &= free_range(&handover->live, &range);
	}
	return is_fine;
}

static uint64_t allocate_nothing(const struct live *live, uint64_t pages, bool is_low)
{
	(void)live, (void)is_low;
	return pages;
}

static bool free_nothing(const struct live *live, const struct range *range)
{
	(void)live;
	return range->first == range->pages;
}

static void run_consumer(void *context, uint64_t count)
{
	BENCH_CHECK(consume(context, count, free_ours));
}

static void run_linux_consumer(void *context, uint64_t count)
{
	BENCH_CHECK(consume(context, count, free_linux_fast));
}

static void run_queue_consumer(void *context, uint64_t count)
{
	BENCH_CHECK(consume(context, count, free_nothing));
}

/* The second thread sleeps meanwhile. */
static void start_consumer(struct handover *handover, void (*work)(void *context, uint64_t count),
			   uint64_t count)
{
	publish(&handover->queue.produced, 0);
	publish(&handover->queue.consumed, 0);
	start_second(work, handover, count);
}

static void run_handover(void *context, uint64_t count)
{
	start_consumer(context, run_consumer, count);
	BENCH_CHECK(produce(context, count, allocate_ours));
	wait_for_second();
}

static void run_linux_handover(void *context, uint64_t count)
{
	start_consumer(context, run_linux_consumer, count);
	BENCH_CHECK(produce(context, count, allocate_linux_fast));
	wait_for_second();
}

static void run_queue(void *context, uint64_t count)
{
	start_consumer(context, run_queue_consumer, count);
	BENCH_CHECK(produce(context, count, allocate_nothing));
	wait_for_second();
}

/* Everything is freed; what is allocated now comes from the caches, and must be there once. */
static void close_handover(struct handover *handover)
{
	if (handover->live.space != NULL)
		BENCH_CHECK(bench_statistics(&handover->live).allocated_count == 0);
	bench_fill_ring(&handover->live, 1);
	bench_close_live(&handover->live);
}

static void measure_handover(const struct linux_peer *linux_peer)
{
	uint64_t count = bench_count(2000000, 2000);
	static struct handover ours, peers;
	struct bench_run runs[] = {
		{ .run = run_handover, .context = &ours, .count = count },
		{ .context = &peers, .count = count },
		{ .run = run_queue, .context = &ours, .count = count },
	};

	if (!bench_wants("iova.alloc_free.remote"))
		return;
	bench_open_live(&ours.live, 2 * QUEUE_SIZE, NULL, NULL);
	if (linux_peer != NULL) {
		bench_open_live(&peers.live, 2 * QUEUE_SIZE, linux_peer, NULL);
		runs[1].run = run_linux_handover;
	}
	bench_time_turns(runs, 3);
	close_handover(&ours);
	if (linux_peer != NULL)
		close_handover(&peers);
	bench_row_linux("iova.alloc_free.remote", "ns", runs[0].time, runs[1].time, 0);
	bench_note("the queue alone: %.4g ns", runs[2].time);
}

void bench_iova_threads(const struct linux_peer *linux_peer)
{
	if (!bench_wants("iova.alloc_free.4k.threads2") && !bench_wants("iova.alloc_free.remote"))
		return;
	if (open_second(linux_peer)) {
		measure_two_rings(linux_peer);
		measure_handover(linux_peer);
	} else {
		bench_note("no second processor: iova.alloc_free with two threads is left out");
	}
	close_second();
}
