/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * In other allocators the limit less the size underflows for a limit below the size, and any cached
 * range then looks low enough. The rule: no byte of a range lies above the limit, however small the
 * limit is and whatever the caches hold.
 */
#include "support/space.h"

static void check_limits(uint64_t first, uint64_t granule)
{
	struct dmacore_iova_space *space = make_space_with(0, granule, first, 0);
	const unsigned orders = 4;

	for (unsigned order = 0; order < orders; order++) {
		uint64_t size = granule << order;
		dmacore_iova_t low = allocate(space, size, 0, UINT32_MAX);
		dmacore_iova_t high = allocate(space, size, 0, UINT64_MAX);

		assert_ok(dmacore_iova_space_free(space, low, size));
		assert_ok(dmacore_iova_space_free(space, high, size));
	}
	assert_true(read_statistics(space).cached_count > 0);
	for (unsigned order = 0; order < orders; order++) {
		uint64_t size = granule << order;

		/* Too low for any range. */
		assert_allocates_nothing(space, size, 0, 0, ENOSPC);
		assert_allocates_nothing(space, size, 0, first + size - 2, ENOSPC);
		assert_allocates_nothing_with(space, size, CONSTRAINTS(0, .first = 0), ENOSPC);
		assert_allocates_nothing_with(space, size, CONSTRAINTS(first + size - 2, .skew = 0),
					      ENOSPC);
		/* The lowest range, and the limit is its last byte. */
		assert_allocates(space, size, 0, first + size - 1, first);
		assert_ok(dmacore_iova_space_free(space, first, size));
		/* It is cached now, and still above these. */
		assert_allocates_nothing(space, size, 0, first + size - 2, ENOSPC);
	}
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__keeps_limits_that_are_less_than_the_size(void **state)
{
	(void)state;
	check_limits(8 * PAGE, PAGE);
	check_limits(8, 1);
	/* At address 0 itself, a size less 2 is a limit that no range has. */
	check_limits(0, PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_allocate__keeps_limits_that_are_less_than_the_size),
	};

	return run_group("iova_limit_below_the_size", tests);
}
