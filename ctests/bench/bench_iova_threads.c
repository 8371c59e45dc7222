/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The IOVA allocator with two threads, each on a processor of its own. */

#include "bench_iova.h"

#include <sched.h>
#include <stdatomic.h>

/* Two rings of requests on one space, of 64 pages in flight each. */

struct two_rings {
	/* Has the space, and the ranges of both. */
	struct live whole;
	/* A line apart, because each is written by its own thread. */
	struct {
		struct live live __attribute__((aligned(BENCH_LINE)));
	} parts[2];
};

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

static void measure_two_rings(const struct linux_peer *linux_peer)
{
	static struct two_rings ours, peers;
	struct bench_two our_two = {
		.run = bench_run_ring,
		.contexts = { &ours.parts[0].live, &ours.parts[1].live },
	};
	struct bench_two peer_two = {
		.run = bench_run_linux_ring,
		.contexts = { &peers.parts[0].live, &peers.parts[1].live },
	};

	if (!bench_wants("iova.alloc_free.4k.threads2"))
		return;
	open_two_rings(&ours, NULL);
	if (linux_peer != NULL)
		open_two_rings(&peers, linux_peer);
	bench_row_two("iova.alloc_free.4k.threads2", &our_two,
		      linux_peer == NULL ? NULL : &peer_two, bench_count(2000000, 200), BENCH_RUNS);
	bench_close_live(&ours.whole);
	if (linux_peer != NULL)
		bench_close_live(&peers.whole);
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
	_Alignas(BENCH_LINE) _Atomic uint64_t produced;
	_Alignas(BENCH_LINE) _Atomic uint64_t consumed;
	_Alignas(BENCH_LINE) uint64_t entries[QUEUE_SIZE];
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
	bench_start_second(work, handover, count);
}

static void run_handover(void *context, uint64_t count)
{
	start_consumer(context, run_consumer, count);
	BENCH_CHECK(produce(context, count, allocate_ours));
	bench_wait_for_second();
}

static void run_linux_handover(void *context, uint64_t count)
{
	start_consumer(context, run_linux_consumer, count);
	BENCH_CHECK(produce(context, count, allocate_linux_fast));
	bench_wait_for_second();
}

static void run_queue(void *context, uint64_t count)
{
	start_consumer(context, run_queue_consumer, count);
	BENCH_CHECK(produce(context, count, allocate_nothing));
	bench_wait_for_second();
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
	if (bench_open_second(linux_peer)) {
		measure_two_rings(linux_peer);
		measure_handover(linux_peer);
	} else {
		bench_note("no second processor: iova.alloc_free with two threads is left out");
	}
	bench_close_second();
}
