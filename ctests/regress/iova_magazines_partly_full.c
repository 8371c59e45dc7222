/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A cache that had passed over ranges above a limit kept a magazine that was neither full nor empty,
 * and later handed it on as a full one, with addresses in it that were nobody's. The rule: what goes
 * through the caches is what was freed, whatever the order.
 */
#define _GNU_SOURCE
#include "support/space.h"

#include <sched.h>

#define MAGAZINE 127
#define LOW_LIMIT DMACORE_BIT_MASK(33)
#define HIGH_LIMIT DMACORE_BIT_MASK(48)

/* The caches are those of a processor. */
static void stay_here(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((unsigned)sched_getcpu(), &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static void free_all(struct dmacore_iova_space *space, const dmacore_iova_t *iova, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_ok(dmacore_iova_space_free(space, iova[i], PAGE));
}

static void iova_space_free__keeps_a_magazine_that_is_partly_full(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, PAGE, HIGH_LIMIT);
	const struct dmacore_iova_constraints top = {
		.struct_size = sizeof(top),
		.placement = DMACORE_IOVA_TOP_DOWN,
		.last = HIGH_LIMIT,
	};
	struct dmacore_iova_space_statistics statistics;
	dmacore_iova_t low[3 * MAGAZINE], high[MAGAZINE], got;

	(void)state;
	stay_here();
	for (unsigned i = 0; i < 3 * MAGAZINE; i++)
		low[i] = allocate(space, PAGE, 0, LOW_LIMIT);
	for (unsigned i = 0; i < MAGAZINE; i++)
		assert_ok(dmacore_iova_space_allocate_with(space, PAGE, &top, &high[i]));
	assert_true(high[MAGAZINE - 1] > LOW_LIMIT);
	/* Low ranges fill one magazine; some high ones lie in the next, which is in front of it. */
	free_all(space, low, MAGAZINE);
	free_all(space, high, MAGAZINE / 2);
	/* Takes a low one, and leaves the magazine with the high ones behind the other. */
	got = allocate(space, PAGE, 0, LOW_LIMIT);
	assert_true(got <= LOW_LIMIT);
	/* Fills the one in front, and asks for room. */
	free_all(space, low + MAGAZINE, 2);
	statistics = read_statistics(space);
	assert_int_equal(statistics.cached_count, MAGAZINE + MAGAZINE / 2 - 1 + 2);
	assert_ok(dmacore_iova_space_drain(space));
	statistics = read_statistics(space);
	assert_int_equal(statistics.refused_frees, 0);
	assert_int_equal(statistics.cached_count, 0);
	/* What was counted is not lost with the caches. */
	assert_int_equal(statistics.cache_allocations, 1);
	assert_int_equal(statistics.cache_frees, MAGAZINE + MAGAZINE / 2 + 2);
	assert_int_equal(statistics.allocated_count,
			 4 * MAGAZINE - MAGAZINE - MAGAZINE / 2 + 1 - 2);
	dmacore_iova_space_destroy(space);
}

/* Destroying a space freed magazines twice while the ranges of another one were going back. */
static void iova_space_destroy__may_come_while_a_magazine_is_retired(void **state)
{
	(void)state;
	for (unsigned operations = 0; operations < 2000; operations += 100) {
		struct dmacore_iova_space *space = make_space_with(0, PAGE, PAGE, HIGH_LIMIT);
		dmacore_iova_t iova[4 * MAGAZINE];

		for (unsigned round = 0; round < 4; round++) {
			for (unsigned i = 0; i < 4 * MAGAZINE; i++)
				iova[i] = allocate(space, PAGE, 0, HIGH_LIMIT);
			for (unsigned i = 0; i < 4 * MAGAZINE; i++)
				assert_ok(dmacore_iova_space_free(space, iova[i], PAGE));
		}
		/* No cache has this size, so each of these may retire some of the others. */
		for (unsigned i = 0; i < operations; i++) {
			iova[0] = allocate(space, 3 * PAGE, 0, HIGH_LIMIT);
			assert_ok(dmacore_iova_space_free(space, iova[0], 3 * PAGE));
		}
		dmacore_iova_space_destroy(space);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_free__keeps_a_magazine_that_is_partly_full),
		cmocka_unit_test(iova_space_destroy__may_come_while_a_magazine_is_retired),
	};

	return run_group("iova_magazines_partly_full", tests);
}
