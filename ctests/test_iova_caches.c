/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/space.h"

#include <sched.h>

/* Spaces with caches. The program stays on one processor, so that there is one cache to look at. */

static cpu_set_t processors;
static int home;

static void stay_on(int processor)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static int stay_here(void **state)
{
	(void)state;
	home = sched_getcpu();
	if (home < 0 || sched_getaffinity(0, sizeof(processors), &processors) != 0)
		return -1;
	stay_on(home);
	return 0;
}

/* Another processor that the program may run on, or this one if there is none. */
static int elsewhere(void)
{
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (i != home && CPU_ISSET(i, &processors))
			return i;
	return home;
}

/* A space of so many pages on each side of 4 GiB. */
static struct dmacore_iova_space *make_zones(uint64_t pages)
{
	return make_space_with(0, PAGE, 4 * GIB - pages * PAGE, 4 * GIB + pages * PAGE - 1);
}

static void free_range(struct dmacore_iova_space *space, dmacore_iova_t iova, uint64_t size)
{
	assert_ok(dmacore_iova_space_free(space, iova, size));
}

/* What is kept, and for whom. */

static void iova_space_free__keeps_a_range_for_the_next(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0xfffff);
	struct dmacore_iova_space_statistics statistics;
	dmacore_iova_t iova = allocate(space, PAGE, 0, UINT64_MAX);

	(void)state;
	free_range(space, iova, PAGE);
	statistics = read_statistics(space);
	assert_int_equal(statistics.cached_count, 1);
	assert_int_equal(statistics.cached_bytes, PAGE);
	assert_int_equal(statistics.cache_frees, 1);
	assert_int_equal(statistics.store_frees, 0);
	/* It is free for everybody, and yet not part of a longer one. */
	assert_int_equal(statistics.allocated_count, 0);
	assert_int_equal(statistics.allocated_bytes, 0);
	assert_int_equal(statistics.free_bytes, 0x100000);
	assert_int_equal(statistics.largest_free_bytes, 0xff000);
	for (unsigned i = 0; i < 100; i++) {
		assert_allocates(space, PAGE, 0, UINT64_MAX, iova);
		free_range(space, iova, PAGE);
	}
	assert_allocates(space, PAGE, 0, UINT64_MAX, iova);
	statistics = read_statistics(space);
	assert_int_equal(statistics.cached_count, 0);
	assert_int_equal(statistics.cached_bytes, 0);
	assert_int_equal(statistics.cache_allocations, 101);
	assert_int_equal(statistics.cache_frees, 101);
	assert_int_equal(statistics.store_allocations, 1);
	assert_int_equal(statistics.allocated_count, 1);
	assert_int_equal(statistics.taken_count_max, 1);
	assert_int_equal(statistics.taken_bytes_max, PAGE);
	dmacore_iova_space_destroy(space);
}

static void iova_space_free__keeps_each_power_of_two_apart(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0);
	dmacore_iova_t iova[8];

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		iova[i] = allocate(space, PAGE << i, 0, UINT64_MAX);
	for (unsigned i = 0; i < 8; i++)
		free_range(space, iova[i], PAGE << i);
	assert_true(read_statistics(space).cached_count > 0);
	for (unsigned i = 8; i-- > 0;) {
		uint64_t hits = read_statistics(space).cache_allocations;
		dmacore_iova_t got = allocate(space, PAGE << i, 0, UINT64_MAX);

		if (read_statistics(space).cache_allocations > hits)
			assert_int_equal(got, iova[i]);
	}
	assert_true(read_statistics(space).cache_allocations > 0);
	dmacore_iova_space_destroy(space);
}

static void iova_space_free__keeps_nothing_but_powers_of_two(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0);
	dmacore_iova_t page = allocate(space, PAGE, 0, UINT64_MAX);

	(void)state;
	for (uint64_t pages = 3; pages < 16; pages++) {
		dmacore_iova_t iova;

		if ((pages & (pages - 1)) == 0)
			continue;
		iova = allocate(space, pages * PAGE, 0, UINT64_MAX);
		free_range(space, iova, pages * PAGE);
		assert_int_equal(read_statistics(space).cached_count, 0);
	}
	free_range(space, page, PAGE);
	dmacore_iova_space_destroy(space);
}

static void iova_space_free__keeps_many_ranges(void **state)
{
	enum { COUNT = 600 };
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0);
	static dmacore_iova_t iova[COUNT];
	struct dmacore_iova_space_statistics before, after;

	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		before = read_statistics(space);
		for (unsigned i = 0; i < COUNT; i++)
			iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
		for (unsigned i = 0; i < COUNT; i++)
			free_range(space, iova[i], PAGE);
		after = read_statistics(space);
		assert_int_equal(after.allocated_count, 0);
		assert_int_equal(after.refused_frees, 0);
		assert_true(after.cached_count <= COUNT);
	}
	/* What the caches hold serves all but those that went to the store for want of room. */
	assert_int_equal(after.cache_allocations - before.cache_allocations +
				 after.store_allocations - before.store_allocations,
			 COUNT);
	assert_true(after.cache_allocations > before.cache_allocations);
	dmacore_iova_space_destroy(space);
}

/* Addresses below 4 GiB. */

static void iova_space_allocate__keeps_low_addresses_while_there_are_others(void **state)
{
	enum { PAGES = 64 };
	struct dmacore_iova_space *space = make_zones(PAGES);
	dmacore_iova_t iova[PAGES], low[PAGES];

	(void)state;
	/* Cached low ranges are kept as well. */
	for (unsigned i = 0; i < PAGES; i++) {
		low[i] = allocate(space, PAGE, 0, UINT32_MAX);
		assert_true(low[i] < 4 * GIB);
	}
	for (unsigned i = 0; i < PAGES; i++)
		free_range(space, low[i], PAGE);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < PAGES; i++) {
			iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
			assert_true(iova[i] >= 4 * GIB);
		}
		/* The last resort. */
		low[0] = allocate(space, PAGE, 0, UINT64_MAX);
		assert_true(low[0] < 4 * GIB);
		free_range(space, low[0], PAGE);
		for (unsigned i = 0; i < PAGES; i++)
			free_range(space, iova[i], PAGE);
	}
	/* What caches hold above is above, for whoever wants it in one piece. */
	assert_true(read_statistics(space).cached_count > 0);
	assert_allocates(space, PAGES * PAGE, 0, UINT64_MAX, 4 * GIB);
	low[0] = allocate(space, 3 * PAGE, 0, UINT64_MAX);
	assert_true(low[0] < 4 * GIB);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__takes_cached_addresses_above_before_low_ones(void **state)
{
	enum { PAGES = 32 };
	struct dmacore_iova_space *space = make_zones(PAGES);
	dmacore_iova_t iova[PAGES];

	(void)state;
	for (unsigned i = 0; i < PAGES; i++)
		iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
	for (unsigned i = 0; i < PAGES; i++)
		free_range(space, iova[i], PAGE);
	/* Nothing above is left but cached pages, of which three make a range. */
	assert_true(allocate(space, 3 * PAGE, 0, UINT64_MAX) >= 4 * GIB);
	dmacore_iova_space_destroy(space);

	space = make_zones(PAGES);
	for (unsigned i = 0; i < PAGES; i++)
		iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
	for (unsigned i = 0; i < PAGES; i++)
		free_range(space, iova[i], PAGE);
	/* So it is at natural alignment. */
	assert_true(allocate(space, 16 * PAGE, 0, UINT64_MAX) >= 4 * GIB);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__gives_cached_ranges_above_to_no_device_of_32_bits(void **state)
{
	enum { PAGES = 16 };
	struct dmacore_iova_space *space = make_zones(PAGES);
	dmacore_iova_t iova[PAGES];

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < PAGES; i++)
			iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
		for (unsigned i = 0; i < PAGES; i++)
			free_range(space, iova[i], PAGE);
		for (unsigned i = 0; i < PAGES; i++) {
			iova[i] = allocate(space, PAGE, 0, UINT32_MAX);
			assert_true(iova[i] < 4 * GIB);
		}
		assert_allocates_nothing(space, PAGE, 0, UINT32_MAX, ENOSPC);
		for (unsigned i = 0; i < PAGES; i++)
			free_range(space, iova[i], PAGE);
	}
	dmacore_iova_space_destroy(space);
}

/* Doing without. */

static void iova_space_allocate__empties_all_caches_before_it_fails(void **state)
{
	enum { PAGES = 256 };
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, PAGES * PAGE - 1);
	dmacore_iova_t iova[PAGES];

	(void)state;
	for (unsigned i = 0; i < PAGES; i++)
		iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
	/* Here, and on another processor. */
	for (unsigned i = 0; i < PAGES; i++) {
		stay_on(i % 2 ? elsewhere() : home);
		free_range(space, iova[i], PAGE);
	}
	stay_on(home);
	assert_true(read_statistics(space).cached_count > 0);
	assert_allocates(space, PAGES * PAGE, 0, UINT64_MAX, 0);
	assert_true(read_statistics(space).drains > 0);
	assert_int_equal(read_statistics(space).cached_count, 0);
	assert_allocates_nothing(space, PAGE, 0, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate_with__empties_all_caches_before_it_fails(void **state)
{
	const struct dmacore_iova_constraints *constraints[] = {
		CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_EXACT, .first = 5 * PAGE),
		CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_BOTTOM_UP),
		CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_TOP_DOWN),
		CONSTRAINTS(UINT64_MAX, .boundary = 4 * PAGE),
		CONSTRAINTS(UINT64_MAX, .alignment = 4 * PAGE, .skew = PAGE),
		CONSTRAINTS(9 * PAGE - 1, .first = 5 * PAGE),
	};
	/* The last is aligned to its size, so that it can be cached when it is freed. */
	const dmacore_iova_t expected[] = { 5, 0, 14, 14, 13, 6 };

	(void)state;
	for (unsigned n = 0; n < sizeof(constraints) / sizeof(*constraints); n++) {
		struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 16 * PAGE - 1);
		dmacore_iova_t iova[16];

		for (unsigned i = 0; i < 16; i++)
			iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
		for (unsigned i = 0; i < 16; i++)
			free_range(space, iova[i], PAGE);
		assert_true(read_statistics(space).cached_count > 0);
		assert_allocates_with(space, 2 * PAGE, constraints[n], expected[n] * PAGE);
		dmacore_iova_space_destroy(space);
	}
}

static void iova_space_allocate_with__looks_at_cached_ranges_last(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 16 * PAGE - 1);
	const struct dmacore_iova_constraints *down =
		CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_TOP_DOWN);

	(void)state;
	assert_allocates(space, PAGE, 0, UINT64_MAX, 15 * PAGE);
	free_range(space, 15 * PAGE, PAGE);
	assert_int_equal(read_statistics(space).cached_count, 1);
	for (unsigned i = 15; i-- > 0;)
		assert_allocates_with(space, PAGE, down, i * PAGE);
	assert_allocates_with(space, PAGE, down, 15 * PAGE);
	assert_allocates_nothing_with(space, PAGE, down, ENOSPC);
	dmacore_iova_space_destroy(space);
}

static void iova_space_reserve__empties_all_caches_before_it_fails(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0xfffff);
	dmacore_iova_t iova = allocate(space, PAGE, 0, UINT64_MAX);

	(void)state;
	free_range(space, iova, PAGE);
	assert_int_equal(read_statistics(space).cached_count, 1);
	assert_ok(dmacore_iova_space_reserve(space, iova, iova + PAGE - 1));
	assert_int_equal(read_statistics(space).cached_count, 0);
	assert_fails(dmacore_iova_space_reserve(space, iova, iova + PAGE - 1), EBUSY);
	assert_ok(dmacore_iova_space_unreserve(space, iova, iova + PAGE - 1));
	assert_ok(dmacore_iova_space_reserve(space, 0, 0xfffff));
	dmacore_iova_space_destroy(space);
}

static void iova_space_drain__gives_ranges_and_memory_back(void **state)
{
	enum { COUNT = 1000 };
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0);
	uint64_t metadata = read_statistics(space).metadata_bytes;
	struct dmacore_iova_space_statistics statistics;
	static dmacore_iova_t iova[COUNT];

	(void)state;
	for (unsigned i = 0; i < COUNT; i++)
		iova[i] = allocate(space, PAGE, 0, i % 2 ? UINT32_MAX : UINT64_MAX);
	for (unsigned i = 0; i < COUNT; i++)
		free_range(space, iova[i], PAGE);
	statistics = read_statistics(space);
	assert_true(statistics.cached_count > 0);
	/* Each magazine is of a KiB. */
	assert_true(statistics.metadata_bytes >= metadata + 1024);
	assert_ok(dmacore_iova_space_drain(space));
	assert_true(read_statistics(space).metadata_bytes < statistics.metadata_bytes);
	statistics = read_statistics(space);
	assert_int_equal(statistics.cached_count, 0);
	assert_int_equal(statistics.cached_bytes, 0);
	assert_int_equal(statistics.allocated_count, 0);
	assert_int_equal(statistics.largest_free_bytes, UINT64_MAX);
	assert_int_equal(statistics.drains, 1);
	/* No magazine is left. What the tree does not need any more goes with the next calls. */
	for (unsigned i = 0; i < 100; i++)
		free_range(space, allocate(space, 3 * PAGE, 0, UINT64_MAX), 3 * PAGE);
	assert_in_range(read_statistics(space).metadata_bytes, 0, metadata + 8192);
	assert_ok(dmacore_iova_space_drain(space));
	assert_int_equal(read_statistics(space).drains, 2);
	assert_int_equal(read_statistics(space).refused_frees, 0);
	dmacore_iova_space_destroy(space);
}

static bool count_allocated(dmacore_iova_t first, dmacore_iova_t last, uint32_t use, void *opaque)
{
	unsigned *count = opaque;

	(void)first;
	(void)last;
	*count += use == DMACORE_IOVA_ALLOCATED;
	return true;
}

static void iova_space_visit__shows_what_is_cached_as_free(void **state)
{
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0xfffff);
	dmacore_iova_t iova = allocate(space, PAGE, 0, UINT64_MAX);
	unsigned count = 0;

	(void)state;
	free_range(space, iova, PAGE);
	assert_int_equal(read_statistics(space).cached_count, 1);
	assert_ok(dmacore_iova_space_visit(space, count_allocated, &count));
	assert_int_equal(count, 0);
	assert_int_equal(read_statistics(space).cached_count, 0);
	dmacore_iova_space_destroy(space);
}

/* A size that is not used any more goes back while others are, and serves them in the end. */
static void iova_space_allocate__retires_caches_that_nobody_uses(void **state)
{
	enum { COUNT = 400 };
	struct dmacore_iova_space *space = make_space_with(0, PAGE, 0, 0);
	static dmacore_iova_t iova[COUNT];
	unsigned operations = 0;

	(void)state;
	for (unsigned i = 0; i < COUNT; i++)
		iova[i] = allocate(space, PAGE, 0, UINT64_MAX);
	for (unsigned i = 0; i < COUNT; i++)
		free_range(space, iova[i], PAGE);
	assert_true(read_statistics(space).cached_count > 0);
	while (read_statistics(space).cached_count > 0) {
		dmacore_iova_t other = allocate(space, 3 * PAGE, 0, UINT64_MAX);

		free_range(space, other, 3 * PAGE);
		assert_true(++operations < 20000);
	}
	assert_int_equal(read_statistics(space).refused_frees, 0);
	assert_int_equal(read_statistics(space).drains, 0);
	assert_int_equal(read_statistics(space).largest_free_bytes, UINT64_MAX);
	dmacore_iova_space_destroy(space);
}

/* Wrong frees. */

static void iova_space_free__refuses_at_once_what_no_cache_takes(void **state)
{
	struct reports reports;
	struct dmacore_iova_space *space = make_reporting_space(0, 0, 0xfffff, &reports);
	dmacore_iova_t iova = allocate(space, 3 * PAGE, 0, UINT64_MAX);

	(void)state;
	assert_fails(dmacore_iova_space_free(space, iova, 5 * PAGE), EINVAL);
	assert_fails(dmacore_iova_space_free(space, iova, 0), EINVAL);
	assert_fails(dmacore_iova_space_free(space, iova + 1, 3 * PAGE), EINVAL);
	assert_fails(dmacore_iova_space_free(space, 0x100000, PAGE), EINVAL);
	assert_fails(dmacore_iova_space_free(space, 0x1000, 2 * PAGE), EINVAL);
	assert_fails(dmacore_iova_space_free(space, UINT64_MAX, 1), EINVAL);
	assert_int_equal(reports.count, 6);
	for (unsigned i = 0; i < 6; i++)
		assert_refusal(&reports, i);
	assert_int_equal(read_statistics(space).refused_frees, 6);
	assert_int_equal(read_statistics(space).allocated_count, 1);
	free_range(space, iova, 3 * PAGE);
	assert_fails(dmacore_iova_space_free(space, iova, 3 * PAGE), EINVAL);
	assert_int_equal(reports.count, 7);
	dmacore_iova_space_destroy(space);
}

static void iova_space_free__is_refused_a_range_twice_when_it_comes_back(void **state)
{
	struct reports reports;
	struct dmacore_iova_space *space = make_reporting_space(0, 0, 0xfffff, &reports);
	dmacore_iova_t iova = allocate(space, PAGE, 0, UINT64_MAX);

	(void)state;
	free_range(space, iova, PAGE);
	/* The cache does not look. */
	free_range(space, iova, PAGE);
	assert_int_equal(reports.count, 0);
	assert_ok(dmacore_iova_space_drain(space));
	assert_int_equal(reports.count, 1);
	assert_refusal(&reports, 0);
	assert_int_equal(read_statistics(space).refused_frees, 1);
	assert_int_equal(read_statistics(space).allocated_count, 0);
	assert_int_equal(read_statistics(space).free_bytes, 0x100000);
	assert_allocates(space, 0x100000, 0, UINT64_MAX, 0);
	dmacore_iova_space_destroy(space);
}

static void iova_space_free__harms_nobody_with_ranges_that_were_never_allocated(void **state)
{
	struct reports reports;
	struct dmacore_iova_space *space = make_reporting_space(0, 0, 0xfffff, &reports);
	dmacore_iova_t whole = allocate(space, 4 * PAGE, 0, UINT64_MAX);
	dmacore_iova_t page = allocate(space, PAGE, 0, UINT64_MAX);

	(void)state;
	assert_ok(dmacore_iova_space_reserve(space, 0x2000, 0x2fff));
	/* Free, a part of another range, reserved: whatever the result, nothing comes of it. */
	(void)!dmacore_iova_space_free(space, 0x8000, PAGE);
	(void)!dmacore_iova_space_free(space, whole + PAGE, PAGE);
	(void)!dmacore_iova_space_free(space, 0x2000, PAGE);
	(void)!dmacore_iova_space_free(space, page & ~(2 * PAGE - 1), 2 * PAGE);
	assert_ok(dmacore_iova_space_drain(space));
	assert_int_equal(reports.count, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_refusal(&reports, i);
	assert_int_equal(read_statistics(space).refused_frees, 4);
	assert_int_equal(read_statistics(space).allocated_bytes, 5 * PAGE);
	assert_int_equal(read_statistics(space).reserved_bytes, PAGE);
	free_range(space, whole, 4 * PAGE);
	free_range(space, page, PAGE);
	assert_ok(dmacore_iova_space_unreserve(space, 0x2000, 0x2fff));
	assert_allocates(space, 0x100000, 0, UINT64_MAX, 0);
	assert_int_equal(reports.count, 4);
	dmacore_iova_space_destroy(space);
}

static void iova_space_free__counts_every_refusal_and_reports_some(void **state)
{
	struct reports reports;
	struct dmacore_iova_space *space = make_reporting_space(0, 0, 0xfffff, &reports);
	dmacore_iova_t iova = allocate(space, PAGE, 0, UINT64_MAX);

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		free_range(space, iova, PAGE);
	assert_ok(dmacore_iova_space_drain(space));
	assert_int_equal(read_statistics(space).refused_frees, 99);
	assert_in_range(reports.count, 1, 8);
	for (unsigned i = 0; i < reports.count; i++)
		assert_refusal(&reports, i);
	dmacore_iova_space_destroy(space);
}

/* A callback that uses the space, as it may: no lock is held. */
static void use_space(const struct dmacore_report *report, void *opaque)
{
	struct dmacore_iova_space *space = *(struct dmacore_iova_space **)opaque;

	(void)report;
	free_range(space, allocate(space, 3 * PAGE, 0, UINT64_MAX), 3 * PAGE);
	assert_ok(dmacore_iova_space_drain(space));
}

static void iova_space_free__reports_with_no_lock_held(void **state)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;
	dmacore_iova_t iova;

	(void)state;
	options.report = use_space;
	options.report_opaque = &space;
	assert_ok(dmacore_iova_space_create(&options, &space));
	iova = allocate(space, PAGE, 0, UINT64_MAX);
	free_range(space, iova, PAGE);
	free_range(space, iova, PAGE);
	assert_ok(dmacore_iova_space_drain(space));
	assert_fails(dmacore_iova_space_free(space, iova, 3 * PAGE), EINVAL);
	assert_int_equal(read_statistics(space).refused_frees, 2);
	dmacore_iova_space_destroy(space);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_free__keeps_a_range_for_the_next),
		cmocka_unit_test(iova_space_free__keeps_each_power_of_two_apart),
		cmocka_unit_test(iova_space_free__keeps_nothing_but_powers_of_two),
		cmocka_unit_test(iova_space_free__keeps_many_ranges),
		cmocka_unit_test(iova_space_allocate__keeps_low_addresses_while_there_are_others),
		cmocka_unit_test(iova_space_allocate__takes_cached_addresses_above_before_low_ones),
		cmocka_unit_test(
			iova_space_allocate__gives_cached_ranges_above_to_no_device_of_32_bits),
		cmocka_unit_test(iova_space_allocate__empties_all_caches_before_it_fails),
		cmocka_unit_test(iova_space_allocate_with__empties_all_caches_before_it_fails),
		cmocka_unit_test(iova_space_allocate_with__looks_at_cached_ranges_last),
		cmocka_unit_test(iova_space_reserve__empties_all_caches_before_it_fails),
		cmocka_unit_test(iova_space_drain__gives_ranges_and_memory_back),
		cmocka_unit_test(iova_space_visit__shows_what_is_cached_as_free),
		cmocka_unit_test(iova_space_allocate__retires_caches_that_nobody_uses),
		cmocka_unit_test(iova_space_free__refuses_at_once_what_no_cache_takes),
		cmocka_unit_test(iova_space_free__is_refused_a_range_twice_when_it_comes_back),
		cmocka_unit_test(
			iova_space_free__harms_nobody_with_ranges_that_were_never_allocated),
		cmocka_unit_test(iova_space_free__counts_every_refusal_and_reports_some),
		cmocka_unit_test(iova_space_free__reports_with_no_lock_held),
	};

	return cmocka_run_group_tests_name("iova caches", tests, stay_here, NULL) != 0;
}
