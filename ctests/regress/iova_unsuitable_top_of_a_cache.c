/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Other allocators look at the top of a cache alone, and at what is below it only in some of their
 * magazines. The rule: a cached range above the limit hides none below it, wherever in a cache they
 * are, and the space is not given up before all were looked at.
 */
#include "support/space.h"

#define PAGES 300

static void iova_space_allocate__finds_a_suitable_range_below_unsuitable_ones(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, PAGES * PAGE - 1);
	dmacore_iova_t iova[PAGES];

	(void)state;
	/* The lowest page is freed first, in the middle, or last. */
	for (unsigned place = 0; place < PAGES; place += PAGES / 4) {
		unsigned lowest = 0;

		for (unsigned i = 0; i < PAGES; i++) {
			iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
			if (iova[i] < iova[lowest])
				lowest = i;
		}
		assert_int_equal(iova[lowest], 0);
		iova[lowest] = iova[place];
		iova[place] = 0;
		for (unsigned i = 0; i < PAGES; i++)
			assert_ok(dmacore_iova_space_free(space, iova[i], PAGE));
		assert_true(read_statistics(space).cached_count > 0);
		assert_allocates(space, PAGE, 0, PAGE - 1, 0);
		assert_allocates_nothing(space, PAGE, 0, PAGE - 1, ENOSPC);
		assert_ok(dmacore_iova_space_free(space, 0, PAGE));
	}
	dmacore_iova_space_destroy(space);
}

/* The ranges that were passed over are still there, each once. */
static void iova_space_allocate__loses_none_of_the_ranges_that_it_passes_over(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, PAGES * PAGE - 1);
	bool is_taken[PAGES] = { false };

	(void)state;
	for (unsigned i = PAGES; i-- > 0;)
		assert_allocates(space, PAGE, 0, (i + 1) * PAGE - 1, i * PAGE);
	for (unsigned i = 0; i < PAGES; i++)
		assert_ok(dmacore_iova_space_free(space, i * PAGE, PAGE));
	for (uint64_t limit = PAGE - 1; limit < PAGES * PAGE; limit += PAGE) {
		dmacore_iova_t got = allocate(space, PAGE, 0, limit);

		assert_true(got < limit);
		assert_false(is_taken[got / PAGE]);
		is_taken[got / PAGE] = true;
	}
	assert_allocates_nothing(space, PAGE, 0, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_allocate__finds_a_suitable_range_below_unsuitable_ones),
		cmocka_unit_test(iova_space_allocate__loses_none_of_the_ranges_that_it_passes_over),
	};

	return run_group("iova_unsuitable_top_of_a_cache", tests);
}
