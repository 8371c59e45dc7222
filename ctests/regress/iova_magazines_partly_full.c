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

static void iova_space_free__keeps_a_magazine_that_is_partly_full(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, PAGE, HIGH_LIMIT);
	dmacore_iova_t low[2 * MAGAZINE], high[MAGAZINE];

	(void)state;
	stay_here();
	for (unsigned i = 0; i < 2 * MAGAZINE; i++)
		low[i] = allocate(space, PAGE, 0, LOW_LIMIT);
	for (unsigned i = 0; i < MAGAZINE; i++)
		high[i] = allocate(space, PAGE, 0, HIGH_LIMIT);
	/* One magazine full of low ranges, behind one with some high ones. */
	for (unsigned i = 0; i < MAGAZINE; i++)
		assert_ok(dmacore_iova_space_free(space, low[i], PAGE));
	for (unsigned i = 0; i < MAGAZINE / 2; i++)
		assert_ok(dmacore_iova_space_free(space, high[i], PAGE));
	low[0] = allocate(space, PAGE, 0, LOW_LIMIT);
	/* More than there is room for in both. */
	for (unsigned i = MAGAZINE; i < 2 * MAGAZINE; i++)
		assert_ok(dmacore_iova_space_free(space, low[i], PAGE));
	for (unsigned i = MAGAZINE / 2; i < MAGAZINE; i++)
		assert_ok(dmacore_iova_space_free(space, high[i], PAGE));
	assert_int_equal(read_statistics(space).allocated_count, 1);
	assert_ok(dmacore_iova_space_drain(space));
	assert_int_equal(read_statistics(space).refused_frees, 0);
	assert_int_equal(read_statistics(space).allocated_count, 1);
	assert_ok(dmacore_iova_space_free(space, low[0], PAGE));
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
