/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_H
#define DMACORE_BENCH_H

/*
 * What the benchmarks share. A benchmark is a function that runs an operation a number of times and
 * afterwards checks what came out; bench_time() runs it once to warm up, then several times with a
 * clock around it, and takes the median. A row of the result is our time and, where there is one,
 * that of a peer that did the same work in the same run.
 *
 * The library is called as any program calls it, through its shared object; so are the peers.
 */

#include "peers/gtree.h"
#include "peers/linux.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ends the process with a message unless @condition holds. */
#define BENCH_CHECK(condition) bench_check((condition), #condition, __FILE__, __LINE__)

void bench_check(bool condition, const char *text, const char *file, int line);

/*
 * How often: @count, or with --tiny, where the point is that the benchmark works, @tiny_count. The
 * option --percent scales the former.
 */
uint64_t bench_count(uint64_t count, uint64_t tiny_count);

/* Whether a row of this name, or any row whose name starts so, is wanted: see the option --only. */
bool bench_wants(const char *name);

/* Runs the benchmark and returns the median of the time of one operation, in nanoseconds. */
double bench_time(void (*run)(void *context, uint64_t count), void *context, uint64_t count);

/*
 * One of several that are timed in turns. @prepare, where there is one, comes before each time that
 * @run is called, and the clock does not see it. @time receives the median of the time of one
 * operation, in nanoseconds; without @run, which is how a peer is left out, it receives 0.
 */
struct bench_run {
	void (*run)(void *context, uint64_t count);
	void (*prepare)(void *context);
	void *context;
	uint64_t count;
	double time;
};

/*
 * Runs several benchmarks in turns, A B A B, and sets the median of each: a machine that gets
 * slower or faster meanwhile does so for all of them. Each is run once to warm up, and an eighth
 * of it again before the clock starts for its turn, because the others leave it a cold cache.
 */
void bench_time_turns(struct bench_run *runs, size_t run_count);

/* How often each is timed. */
#define BENCH_RUNS 5

/*
 * The same with more turns, which the caller makes shorter: a machine whose speed changes within a
 * turn then makes less of a difference between the runs.
 */
void bench_time_many_turns(struct bench_run *runs, size_t run_count, size_t turn_count);

/* The time of a monotonic clock in nanoseconds. */
uint64_t bench_clock(void);

/* Reports a row; @peer is NULL where there is none to compare with. */
void bench_row(const char *name, const char *unit, double value, const char *peer,
	       double peer_value);

/*
 * Reports a row beside Linux; @peer_value is 0 where Linux could not be built. @known_value is what
 * it is known to take on a fast machine: where it takes more than twice that, the table says that
 * the row does not count, because it tells more of this machine, or of how Linux was built, than of
 * us. 0: it is not known.
 */
void bench_row_linux(const char *name, const char *unit, double value, double peer_value,
		     double known_value);

/* A line under the row above, but not with --tiny. */
__attribute__((format(printf, 1, 2))) void bench_note(const char *format, ...);

/* What a peer's shared object has, or NULL where it could not be built; always NULL with --tiny. */
const struct linux_peer *bench_linux(void);
const struct gtree_peer *bench_gtree(void);

/* The name of a file beside the benchmarks. */
const char *bench_file(const char *name);

/* Puts this thread on the n-th processor that the process may use. False if there is none. */
bool bench_pin(unsigned int index);

/*
 * A second thread, on the second processor that the process may use. It exists all the time and
 * sleeps at a barrier between the runs, so that no run pays for starting it, and so that it is in
 * nobody's way while one thread is measured alone. bench_open_second() says whether there is a
 * processor for it; bench_close_second() ends it either way.
 */
bool bench_open_second(const struct linux_peer *linux_peer);
void bench_close_second(void);

/* Lets it work, and waits until it has. */
void bench_start_second(void (*work)(void *context, uint64_t count), void *context, uint64_t count);
void bench_wait_for_second(void);

/* What two threads run, each with a context of its own; one thread alone has the first. */
struct bench_two {
	void (*run)(void *context, uint64_t count);
	void *contexts[2];
};

/*
 * Reports how much more two threads get done than one, beside Linux, of which @linux_two is NULL
 * where it could not be built, and notes what arithmetic gains: on a machine that others use that
 * is less than 2. Takes @turn_count turns. Needs the second thread.
 */
void bench_row_two(const char *name, struct bench_two *two, struct bench_two *linux_two,
		   uint64_t count, size_t turn_count);

/* What lies a line of the cache apart is in no other thread's way. */
#define BENCH_LINE 64

/* A sequence of numbers that is the same in each run: xorshift of 64 bits. */
static inline uint64_t bench_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#define BENCH_SEED UINT64_C(0x9e3779b97f4a7c15)

/* The areas, in the order of the table. */
void bench_mapping(void);
void bench_group(void);
void bench_iova(void);
void bench_pagetable(void);
void bench_view(void);
void bench_library(void);

#endif /* DMACORE_BENCH_H */
