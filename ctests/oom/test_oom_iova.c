/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/space.h"

#define COUNT 400

static void assert_unchanged(struct dmacore_iova_space *space,
			     const struct dmacore_iova_space_statistics *before)
{
	struct dmacore_iova_space_statistics after = read_statistics(space);

	assert_same_state(before, &after);
}

static void iova_space_create__unwinds_every_failed_allocation(void **state)
{
	struct dmacore_iova_space *space;
	unsigned live = oom.live_count;

	(void)state;
	assert_creates_after_failures(dmacore_iova_space_create(NULL, &space), space);
	assert_needs_no_memory(dmacore_iova_space_destroy(space));
	assert_int_equal(oom.live_count, live);
}

static void iova_space_allocate__changes_nothing_when_an_allocation_fails(void **state)
{
	struct dmacore_iova_space *space;
	dmacore_iova_t iova[COUNT];
	unsigned live = oom.live_count;
	unsigned long failures;

	(void)state;
	assert_ok(dmacore_iova_space_create(NULL, &space));
	failures = oom.failures;
	for (unsigned i = 0; i < COUNT; i++) {
		struct dmacore_iova_space_statistics before = read_statistics(space);

		iova[i] = UNTOUCHED;
		assert_survives_failures(
			dmacore_iova_space_allocate(space, PAGE, 0, UINT32_MAX, &iova[i]), {
				assert_true(iova[i] == UNTOUCHED);
				assert_unchanged(space, &before);
			});
		/* No failure has cost an address. */
		assert_int_equal(iova[i], UINT32_MAX - (i + 1) * PAGE + 1);
	}
	assert_true(oom.failures > failures);
	assert_needs_no_memory({
		for (unsigned i = 0; i < COUNT; i++)
			assert_ok(dmacore_iova_space_free(space, iova[i * 7 % COUNT], PAGE));
		dmacore_iova_space_destroy(space);
	});
	assert_int_equal(oom.live_count, live);
}

static void iova_space_reserve__changes_nothing_when_an_allocation_fails(void **state)
{
	struct dmacore_iova_space *space;
	unsigned live = oom.live_count;
	unsigned long failures;

	(void)state;
	assert_ok(dmacore_iova_space_create(NULL, &space));
	failures = oom.failures;
	for (unsigned i = 0; i < COUNT; i++) {
		struct dmacore_iova_space_statistics before = read_statistics(space);
		uint64_t first = i * 2 * PAGE;

		assert_survives_failures(dmacore_iova_space_reserve(space, first, first + PAGE - 1),
					 assert_unchanged(space, &before));
	}
	assert_true(oom.failures > failures);
	assert_needs_no_memory({
		for (uint64_t i = 0; i < COUNT; i++)
			assert_ok(dmacore_iova_space_unreserve(space, i * 2 * PAGE,
							       i * 2 * PAGE + PAGE - 1));
		dmacore_iova_space_destroy(space);
	});
	assert_int_equal(oom.live_count, live);
}

static void iova_space_allocate_with__changes_nothing_when_an_allocation_fails(void **state)
{
	const struct dmacore_iova_constraints *constraints[] = {
		CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_BOTTOM_UP),
		CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_TOP_DOWN),
		CONSTRAINTS(UINT32_MAX, .alignment = 4 * PAGE, .skew = PAGE),
		CONSTRAINTS(UINT32_MAX, .boundary = 4 * PAGE),
		CONSTRAINTS(GIB, .first = GIB / 2),
	};
	const unsigned count = sizeof(constraints) / sizeof(*constraints);

	(void)state;
	for (unsigned checked = 0; checked < 2; checked++) {
		struct dmacore_iova_space *space = make_space_with(checked, PAGE, 0, 0);
		unsigned live = oom.live_count;
		unsigned long failures = oom.failures;
		dmacore_iova_t iova[COUNT];

		for (unsigned i = 0; i < COUNT; i++) {
			struct dmacore_iova_space_statistics before = read_statistics(space);

			iova[i] = UNTOUCHED;
			assert_survives_failures(
				dmacore_iova_space_allocate_with(space, 3 * PAGE,
								 constraints[i % count], &iova[i]),
				{
					assert_true(iova[i] == UNTOUCHED);
					assert_unchanged(space, &before);
				});
		}
		/* The tree has been split many times. */
		assert_true(oom.failures > failures + 10);
		assert_true(oom.live_count > live + 10);
		assert_needs_no_memory({
			for (unsigned i = 0; i < COUNT; i++)
				assert_ok(dmacore_iova_space_free(space, iova[i * 7 % COUNT],
								  3 * PAGE));
		});
		assert_int_equal(read_statistics(space).free_bytes, UINT64_MAX);
		assert_needs_no_memory(dmacore_iova_space_destroy(space));
	}
}

/* An allocation that finds its place in what the caches give back. */
static void iova_space_allocate__changes_nothing_when_it_fails_with_caches_emptied(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, COUNT * PAGE - 1);
	struct dmacore_iova_space_statistics before;
	dmacore_iova_t iova[COUNT], whole = UNTOUCHED;

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < COUNT; i++)
			iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
		for (unsigned i = 0; i < COUNT; i++)
			assert_ok(dmacore_iova_space_free(space, iova[i], PAGE));
		before = read_statistics(space);
		if (round == 0) {
			assert_survives_failures(dmacore_iova_space_allocate(space, COUNT * PAGE, 0,
									     UINT64_MAX, &whole),
						 assert_unchanged(space, &before));
			assert_int_equal(whole, 0);
			assert_ok(dmacore_iova_space_free(space, 0, COUNT * PAGE));
		} else {
			assert_survives_failures(
				dmacore_iova_space_reserve(space, 0, COUNT * PAGE - 1),
				assert_unchanged(space, &before));
			assert_ok(dmacore_iova_space_unreserve(space, 0, COUNT * PAGE - 1));
		}
	}
	dmacore_iova_space_destroy(space);
}

/* Caching is an advantage and no condition. */
static void iova_space_allocate__does_without_magazines(void **state)
{
	enum { FEW = 8 };
	dmacore_iova_t iova[FEW];
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0);

	(void)state;
	/* What the tree needs is there; magazines are not. */
	for (unsigned i = 0; i < FEW; i++) {
		iova[i] = allocate(space, 3 * PAGE, 0, UINT64_MAX);
		assert_ok(dmacore_iova_space_free(space, iova[i], 3 * PAGE));
	}
	oom.left = 0;
	for (unsigned i = 0; i < FEW; i++) {
		unsigned long failed = oom.failures;

		iova[i] = UNTOUCHED;
		assert_ok(dmacore_iova_space_allocate(space, PAGE, 0, UINT64_MAX, &iova[i]));
		assert_true(oom.failures > failed);
	}
	oom.left = -1;
	/* Without one the store takes them. */
	assert_needs_no_memory({
		for (unsigned i = 0; i < FEW; i++)
			assert_ok(dmacore_iova_space_free(space, iova[i], PAGE));
	});
	assert_int_equal(read_statistics(space).cached_count, 0);
	assert_int_equal(read_statistics(space).store_frees, 2 * FEW);
	assert_int_equal(read_statistics(space).free_bytes, UINT64_MAX);
	dmacore_iova_space_destroy(space);
}

static bool go_on(dmacore_iova_t first, dmacore_iova_t last, uint32_t use, void *opaque)
{
	(void)first;
	(void)last;
	(void)use;
	(void)opaque;
	return true;
}

static void iova_space_drain__needs_no_memory(void **state)
{
	unsigned live = oom.live_count;
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0);
	dmacore_iova_t iova[COUNT];
	uint64_t bytes;

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < COUNT; i++)
			iova[i] = allocate(space, PAGE << i % 3, 0, UINT64_MAX);
		assert_needs_no_memory({
			for (unsigned i = 0; i < COUNT; i++)
				assert_ok(dmacore_iova_space_free(space, iova[i], PAGE << i % 3));
			if (round == 0)
				assert_ok(dmacore_iova_space_drain(space));
			else
				assert_ok(dmacore_iova_space_visit(space, go_on, NULL));
			assert_int_equal(read_statistics(space).cached_count, 0);
			assert_ok(dmacore_iova_space_largest_free(space, 0, UINT64_MAX, &bytes));
		});
	}
	/* Ranges and caches that are left go with the space. */
	for (unsigned i = 0; i < COUNT; i++)
		iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
	for (unsigned i = 0; i < COUNT / 2; i++)
		assert_ok(dmacore_iova_space_free(space, iova[i], PAGE));
	assert_needs_no_memory(dmacore_iova_space_destroy(space));
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_create__unwinds_every_failed_allocation),
		cmocka_unit_test(iova_space_allocate__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(iova_space_reserve__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(
			iova_space_allocate_with__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(
			iova_space_allocate__changes_nothing_when_it_fails_with_caches_emptied),
		cmocka_unit_test(iova_space_allocate__does_without_magazines),
		cmocka_unit_test(iova_space_drain__needs_no_memory),
	};

	return run_oom_group("oom iova", tests, NULL);
}
