/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Other allocators remember that a size has failed, to fail sooner the next time, and forget to
 * forget it when room comes by another way, such as a cache. The rule: whether an allocation fails
 * depends on what is free, and on nothing that happened before.
 */
#include "support/space.h"

#define PAGES 64

static void fill_zone(struct dmacore_iova_space *space, uint64_t limit, dmacore_iova_t iova[PAGES])
{
	for (unsigned i = 0; i < PAGES; i++)
		iova[i] = allocate(space, PAGE, 0, limit);
}

static void check_space(uint32_t flags)
{
	struct dmacore_iova_space *space =
		make_space_with(flags, PAGE, 4 * GIB - PAGES * PAGE, 4 * GIB + PAGES * PAGE - 1);
	dmacore_iova_t high[PAGES], low[PAGES];

	fill_zone(space, UINT64_MAX, high);
	fill_zone(space, UINT32_MAX, low);
	for (unsigned i = 0; i < 10; i++) {
		assert_allocates_nothing(space, PAGE, 0, UINT64_MAX, ENOSPC);
		assert_allocates_nothing(space, PAGE, 0, UINT32_MAX, ENOSPC);
		assert_allocates_nothing(space, 2 * PAGE, 0, UINT64_MAX, ENOSPC);
		/* What is freed above is no room for 32 bits, and room for 64. */
		assert_ok(dmacore_iova_space_free(space, high[i], PAGE));
		assert_allocates_nothing(space, PAGE, 0, UINT32_MAX, ENOSPC);
		assert_allocates(space, PAGE, 0, UINT64_MAX, high[i]);
		/* What is freed below is room for both. */
		assert_ok(dmacore_iova_space_free(space, low[i], PAGE));
		assert_allocates(space, PAGE, 0, UINT32_MAX, low[i]);
		assert_ok(dmacore_iova_space_free(space, low[i], PAGE));
		assert_allocates(space, PAGE, 0, UINT64_MAX, low[i]);
	}
	/* Two pages beside each other, of which caches make no range of two by themselves. */
	assert_allocates_nothing(space, 2 * PAGE, 0, UINT32_MAX, ENOSPC);
	for (unsigned i = 0; i < PAGES; i++)
		if (low[i] == 4 * GIB - 2 * PAGE || low[i] == 4 * GIB - PAGE)
			assert_ok(dmacore_iova_space_free(space, low[i], PAGE));
	assert_allocates(space, 2 * PAGE, 0, UINT32_MAX, 4 * GIB - 2 * PAGE);
	assert_allocates_nothing(space, PAGE, 0, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);
}

/* Room that unreserving makes. */
static void check_unreserved(uint32_t flags)
{
	struct dmacore_iova_space *space = make_space_with(flags, PAGE, 0, 4 * PAGE - 1);

	assert_ok(dmacore_iova_space_reserve(space, 0, 4 * PAGE - 1));
	assert_allocates_nothing(space, PAGE, 0, UINT64_MAX, ENOSPC);
	assert_ok(dmacore_iova_space_unreserve(space, 0, 4 * PAGE - 1));
	assert_allocates(space, 4 * PAGE, 0, UINT64_MAX, 0);
	assert_fails(dmacore_iova_space_reserve(space, 0, PAGE - 1), EBUSY);
	assert_ok(dmacore_iova_space_free(space, 0, 4 * PAGE));
	assert_ok(dmacore_iova_space_reserve(space, 0, PAGE - 1));
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__succeeds_as_soon_as_there_is_room(void **state)
{
	(void)state;
	for (uint32_t flags = 0; flags <= DMACORE_IOVA_SPACE_CHECKED; flags++) {
		check_space(flags);
		check_unreserved(flags);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_allocate__succeeds_as_soon_as_there_is_room),
	};

	return run_group("iova_failure_that_sticks", tests);
}
