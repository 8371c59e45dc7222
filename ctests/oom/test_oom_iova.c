/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#define COUNT 400

static struct dmacore_iova_space_statistics read_statistics(struct dmacore_iova_space *space)
{
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_iova_space_statistics(space, &statistics));
	return statistics;
}

static void assert_unchanged(struct dmacore_iova_space *space,
			     const struct dmacore_iova_space_statistics *before)
{
	struct dmacore_iova_space_statistics after = read_statistics(space);

	assert_memory_equal(before, &after, sizeof(after));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_create__unwinds_every_failed_allocation),
		cmocka_unit_test(iova_space_allocate__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(iova_space_reserve__changes_nothing_when_an_allocation_fails),
	};

	return run_oom_group("oom iova", tests, NULL);
}
