/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * In other allocators an allocation fails while the caches of processors, or of threads that have
 * ended, hold what it needs. The rule: every cache, whoever filled it, gives back what it has before
 * an allocation or a reservation fails.
 */
#include "support/space.h"

#include <pthread.h>

#define THREADS 8
#define PAGES 64

struct part {
	struct dmacore_iova_space *space;
	dmacore_iova_t iova[PAGES];
	unsigned wrong;
};

static void *free_part(void *opaque)
{
	struct part *part = opaque;

	for (unsigned i = 0; i < PAGES; i++)
		part->wrong += dmacore_iova_space_free(part->space, part->iova[i], PAGE) != 0;
	return NULL;
}

static void iova_space_allocate__gets_back_what_ended_threads_freed(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, THREADS * PAGES * PAGE - 1);
	static struct part parts[THREADS];

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		pthread_t threads[THREADS];

		for (unsigned i = 0; i < THREADS; i++) {
			parts[i].space = space;
			for (unsigned n = 0; n < PAGES; n++)
				parts[i].iova[n] = allocate(space, PAGE, 0, UINT64_MAX);
		}
		for (unsigned i = 0; i < THREADS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, free_part, &parts[i]),
					 0);
		for (unsigned i = 0; i < THREADS; i++) {
			assert_int_equal(pthread_join(threads[i], NULL), 0);
			assert_int_equal(parts[i].wrong, 0);
		}
		if (round % 2) {
			assert_allocates(space, THREADS * PAGES * PAGE, 0, UINT64_MAX, 0);
			assert_ok(dmacore_iova_space_free(space, 0, THREADS * PAGES * PAGE));
		} else {
			assert_ok(dmacore_iova_space_reserve(space, 0, THREADS * PAGES * PAGE - 1));
			assert_ok(
				dmacore_iova_space_unreserve(space, 0, THREADS * PAGES * PAGE - 1));
		}
	}
	dmacore_iova_space_destroy(space);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_allocate__gets_back_what_ended_threads_freed),
	};

	return run_group("iova_caches_of_ended_threads", tests);
}
