/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Other allocators compute the end of a range, which for the last one is 2^64 and wraps to 0. The
 * rule: the last address of the 64-bit space is one like any other.
 */
#include "support/space.h"

static void check_last(uint32_t flags, uint64_t granule)
{
	struct dmacore_iova_space *space = make_space_with(flags, granule, 0, 0);
	const dmacore_iova_t last = UINT64_MAX - granule + 1;
	const struct dmacore_iova_constraints *exact =
		CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_EXACT, .first = last);

	/* Allocated, freed, and allocated again, from a cache if there is one. */
	for (unsigned i = 0; i < 3; i++) {
		assert_allocates(space, granule, 0, UINT64_MAX, last);
		assert_ok(dmacore_iova_space_free(space, last, granule));
	}
	assert_ok(dmacore_iova_space_drain(space));
	assert_allocates_with(space, granule, exact, last);
	assert_allocates_nothing_with(space, granule, exact, ENOSPC);
	assert_fails(dmacore_iova_space_reserve(space, last, UINT64_MAX), EBUSY);
	assert_ok(dmacore_iova_space_free(space, last, granule));
	/* Reserved while it is cached. */
	assert_ok(dmacore_iova_space_reserve(space, last, UINT64_MAX));
	assert_allocates_nothing_with(space, granule, exact, ENOSPC);
	assert_ok(dmacore_iova_space_unreserve(space, last, UINT64_MAX));
	/* From the bottom up, with nothing but the last granule left. */
	assert_ok(dmacore_iova_space_reserve(space, 0, last - 1));
	assert_allocates_with(space, granule,
			      CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_BOTTOM_UP), last);
	assert_allocates_nothing(space, granule, 0, UINT64_MAX, ENOSPC);
	assert_ok(dmacore_iova_space_free(space, last, granule));
	assert_allocates_with(space, granule,
			      CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_BOTTOM_UP,
					  .first = last, .boundary = granule),
			      last);
	assert_ok(dmacore_iova_space_free(space, last, granule));
	assert_ok(dmacore_iova_space_unreserve(space, 0, last - 1));
	/* Sizes that wrap. */
	assert_fails(dmacore_iova_space_free(space, last, 2 * granule), EINVAL);
	assert_fails(dmacore_iova_space_free(space, last, UINT64_MAX), EINVAL);
	assert_ok(dmacore_iova_space_drain(space));
	assert_int_equal(read_statistics(space).allocated_count, 0);
	assert_int_equal(read_statistics(space).free_bytes, UINT64_MAX);
	assert_int_equal(read_statistics(space).largest_free_bytes, UINT64_MAX);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__knows_the_last_address(void **state)
{
	(void)state;
	for (uint32_t flags = 0; flags <= DMACORE_IOVA_SPACE_CHECKED; flags++) {
		check_last(flags, 1);
		check_last(flags, PAGE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_allocate__knows_the_last_address),
	};

	return run_group("iova_last_address", tests);
}
