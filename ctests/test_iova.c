/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/space.h"

/* Creation. */

static void iova_space_create__takes_defaults_without_options(void **state)
{
	struct dmacore_iova_space *space;

	(void)state;
	assert_ok(dmacore_iova_space_create(NULL, &space));
	assert_allocates(space, 1, 0, UINT64_MAX, UINT64_MAX - 4095);
	assert_int_equal(read_statistics(space).allocated_bytes, 4096);
	dmacore_iova_space_destroy(space);
}

static void iova_space_create__rejects_null_out(void **state)
{
	(void)state;
	assert_fails(dmacore_iova_space_create(NULL, NULL), EINVAL);
}

static void iova_space_create__rejects_ends_and_granules_that_do_not_fit(void **state)
{
	const struct {
		uint64_t granule;
		uint64_t first;
		uint64_t last;
	} wrong[] = {
		{ 3, 0, 0 },
		{ 4097, 0, 0 },
		{ UINT64_MAX, 0, 0 },
		{ 0, 1, 0 },
		{ 0, 4095, 0 },
		{ 0, 0, 4096 },
		{ 0, 0, 4094 },
		{ 0, 0, UINT64_MAX - 1 },
		{ 0, 8192, 8191 },
		{ 0, 8192, 4095 },
		{ 16, 8, 1023 },
		{ 1, 5, 4 },
		{ UINT64_C(1) << 63, 1, 0 },
	};
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		options.granule = wrong[i].granule;
		options.first = wrong[i].first;
		options.last = wrong[i].last;
		assert_creates_nothing(dmacore_iova_space_create(&options, &space), EINVAL, space);
	}
}

static void iova_space_create__rejects_flags_and_reserved_members(void **state)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	(void)state;
	for (unsigned bit = 0; bit < 32; bit++) {
		options.flags = UINT32_C(1) << bit;
		if (options.flags == DMACORE_IOVA_SPACE_CHECKED)
			continue;
		assert_creates_nothing(dmacore_iova_space_create(&options, &space), EINVAL, space);
	}
	options.flags = 0;
	options.reserved = 1;
	assert_creates_nothing(dmacore_iova_space_create(&options, &space), EINVAL, space);
}

static void iova_space_create__checks_the_size_of_its_options(void **state)
{
	struct dmacore_iova_space_options good = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	(void)state;
	check_struct_size(struct dmacore_iova_space_options, good,
			  dmacore_iova_space_create(options, &space), space,
			  dmacore_iova_space_destroy);
}

static void iova_space_create__makes_a_space_of_one_granule(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 4095);

	(void)state;
	assert_allocates(space, 4096, 0, UINT64_MAX, 0);
	assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
	assert_ok(dmacore_iova_space_free(space, 0, 4096));
	dmacore_iova_space_destroy(space);

	space = make_space(1, UINT64_MAX, UINT64_MAX);
	assert_allocates(space, 1, 0, UINT64_MAX, UINT64_MAX);
	assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);
}

static void iova_space_create__takes_every_power_of_two_as_granule(void **state)
{
	(void)state;
	for (unsigned shift = 0; shift < 64; shift++) {
		uint64_t granule = UINT64_C(1) << shift;
		struct dmacore_iova_space *space = make_space(granule, 0, 0);

		assert_allocates(space, 1, 0, UINT64_MAX, UINT64_MAX - granule + 1);
		assert_allocates(space, granule, 0, UINT64_MAX, UINT64_MAX - 2 * granule + 1);
		/* Two granules of 2^63 bytes are all there is, and more than a number can say. */
		assert_int_equal(read_statistics(space).allocated_bytes,
				 shift < 63 ? 2 * granule : UINT64_MAX);
		if (shift == 63)
			assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
		dmacore_iova_space_destroy(space);
	}
}

static void iova_space_destroy__accepts_null_and_spaces_in_use(void **state)
{
	struct dmacore_iova_space *space = make_space(0, 0, 0);

	(void)state;
	assert_allocates(space, 4096, 0, UINT64_MAX, UINT64_MAX - 4095);
	assert_ok(dmacore_iova_space_reserve(space, 0, 4095));
	dmacore_iova_space_destroy(space);
	dmacore_iova_space_destroy(NULL);
}

/* Allocation. */

static void iova_space_allocate__goes_from_the_top_down(void **state)
{
	struct dmacore_iova_space *space = make_space(0, 0x10000, 0x1ffff);

	(void)state;
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0x1f000);
	assert_allocates(space, 0x2000, 0, UINT64_MAX, 0x1d000);
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0x1c000);
	/* A gap that fits is taken before what lies below it. */
	assert_ok(dmacore_iova_space_free(space, 0x1d000, 0x2000));
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0x1e000);
	assert_allocates(space, 0x2000, 0, UINT64_MAX, 0x1a000);
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0x1d000);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__rounds_up_to_the_granule(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);

	(void)state;
	assert_allocates(space, 1, 0, UINT64_MAX, 0xf000);
	assert_allocates(space, 4097, 0, UINT64_MAX, 0xd000);
	assert_int_equal(read_statistics(space).allocated_bytes, 3 * 4096);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__aligns(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xfffff);

	(void)state;
	assert_allocates(space, 0x1000, 0x10000, UINT64_MAX, 0xf0000);
	assert_allocates(space, 0x1000, 0x10000, UINT64_MAX, 0xe0000);
	/* What alignment skipped is still free. */
	assert_allocates(space, 0xf000, 0, UINT64_MAX, 0xf1000);
	/* Less than the granule asks for nothing more. */
	assert_allocates(space, 0x1000, 1, UINT64_MAX, 0xef000);
	assert_allocates(space, 0x1000, 4096, UINT64_MAX, 0xee000);
	/* The alignment is that of the space's addresses, not of its first one. */
	assert_allocates(space, 0x1000, 0x80000, UINT64_MAX, 0x80000);
	assert_allocates(space, 0x1000, 0x80000, UINT64_MAX, 0);
	assert_allocates_nothing(space, 0x1000, 0x80000, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);

	space = make_space(4096, 0x1000, 0);
	assert_allocates(space, 0x1000, UINT64_C(1) << 63, UINT64_MAX, UINT64_C(1) << 63);
	assert_allocates_nothing(space, 0x1000, UINT64_C(1) << 63, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__keeps_every_byte_under_the_limit(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x1000, 0xfffff);

	(void)state;
	assert_allocates(space, 0x1000, 0, 0xffff, 0xf000);
	/* A granule that the limit cuts does not count. */
	assert_allocates(space, 0x1000, 0, 0xeffe, 0xd000);
	assert_allocates(space, 0x1000, 0, 0x1fff, 0x1000);
	assert_allocates_nothing(space, 0x1000, 0, 0x1fff, ENOSPC);
	assert_allocates_nothing(space, 0x1000, 0, 0xfff, ENOSPC);
	assert_allocates_nothing(space, 0x1000, 0, 0, ENOSPC);
	assert_allocates(space, 0x2000, 0x4000, 0x7fff, 0x4000);
	/* Above the space's end the end counts. */
	assert_allocates(space, 0x1000, 0, 0x7fffffff, 0xff000);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__rejects_bad_arguments(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0);
	dmacore_iova_t iova;

	(void)state;
	assert_fails_untouched(dmacore_iova_space_allocate(NULL, 1, 0, UINT64_MAX, &iova), EINVAL,
			       iova);
	assert_fails(dmacore_iova_space_allocate(space, 1, 0, UINT64_MAX, NULL), EINVAL);
	assert_allocates_nothing(space, 0, 0, UINT64_MAX, EINVAL);
	assert_allocates_nothing(space, 1, 3, UINT64_MAX, EINVAL);
	assert_allocates_nothing(space, 1, UINT64_MAX, UINT64_MAX, EINVAL);
	assert_allocates_nothing(space, UINT64_MAX, 0, UINT64_MAX, EINVAL);
	assert_allocates_nothing(space, UINT64_MAX - 4094, 0, UINT64_MAX, EINVAL);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__serves_sizes_up_to_the_space(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0);

	(void)state;
	assert_allocates(space, UINT64_MAX - 8191, 0, UINT64_MAX, 8192);
	assert_int_equal(read_statistics(space).free_bytes, 8192);
	assert_ok(dmacore_iova_space_free(space, 8192, UINT64_MAX - 8191));
	assert_allocates(space, UINT64_C(1) << 63, 0, UINT64_MAX, UINT64_C(1) << 63);
	assert_allocates(space, UINT64_C(1) << 63, 0, UINT64_MAX, 0);
	assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);

	space = make_space(4096, 0, 0xffff);
	assert_allocates_nothing(space, 0x10001, 0, UINT64_MAX, ENOSPC);
	assert_allocates(space, 0x10000, 0, UINT64_MAX, 0);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__finds_the_last_hole(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xfffff);

	(void)state;
	for (unsigned i = 256; i-- > 0;)
		assert_allocates(space, 4096, 0, UINT64_MAX, i * PAGE);
	assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
	assert_int_equal(read_statistics(space).largest_free_bytes, 0);

	/* Two halves of a hole that do not touch serve no range of both. */
	assert_ok(dmacore_iova_space_free(space, 17 * PAGE, PAGE));
	assert_ok(dmacore_iova_space_free(space, 19 * PAGE, PAGE));
	assert_allocates_nothing(space, 2 * PAGE, 0, UINT64_MAX, ENOSPC);
	assert_ok(dmacore_iova_space_free(space, 18 * PAGE, PAGE));
	assert_allocates_nothing(space, 2 * PAGE, 4 * PAGE, UINT64_MAX, ENOSPC);
	assert_allocates(space, 2 * PAGE, 2 * PAGE, UINT64_MAX, 18 * PAGE);
	assert_allocates(space, PAGE, 0, UINT64_MAX, 17 * PAGE);
	assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);
}

/* Allocation under constraints. */

static void iova_space_allocate_with__takes_any_place_without_constraints(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);
	const struct dmacore_iova_constraints none = DMACORE_IOVA_CONSTRAINTS_INIT;

	(void)state;
	assert_allocates_with(space, 1, NULL, 0xf000);
	assert_allocates_with(space, 0x2000, &none, 0xd000);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate_with__aligns_and_skews(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x1000, 0xfffff);

	(void)state;
	assert_allocates_with(space, 0x1000, CONSTRAINTS(UINT64_MAX, .alignment = 0x10000),
			      0xf0000);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .alignment = 0x10000, .skew = 0x3000),
			      0xe3000);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .alignment = 0x10000, .skew = 0xf000),
			      0xdf000);
	/* What is smaller than the granule asks for nothing more. */
	assert_allocates_with(space, 0x1000, CONSTRAINTS(UINT64_MAX, .alignment = 1), 0xff000);
	/* The skew is that of addresses, not of the way from the space's first one. */
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .alignment = 0x80000, .skew = 0x1000),
			      0x81000);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .alignment = 0x80000, .skew = 0x1000),
			      0x1000);
	assert_allocates_nothing_with(space, 0x1000,
				      CONSTRAINTS(UINT64_MAX, .alignment = 0x80000, .skew = 0x1000),
				      ENOSPC);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate_with__crosses_no_boundary(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0x3ffff);

	(void)state;
	/* Moved down from the boundary that it would cross, which the range may touch. */
	assert_allocates_with(space, 0x1000, NULL, 0x3f000);
	assert_allocates_with(space, 0x3000, CONSTRAINTS(UINT64_MAX, .boundary = 0x4000), 0x3c000);
	assert_allocates_with(space, 0x3000, CONSTRAINTS(UINT64_MAX, .boundary = 0x4000), 0x39000);
	assert_allocates_with(space, 0x3000, CONSTRAINTS(UINT64_MAX, .boundary = 0x4000), 0x35000);
	assert_allocates_with(space, 0x1000, CONSTRAINTS(UINT64_MAX, .boundary = 0x4000), 0x38000);
	/* As long as the stretch. */
	assert_allocates_with(space, 0x4000, CONSTRAINTS(UINT64_MAX, .boundary = 0x4000), 0x30000);
	/* With an alignment above the boundary all places lie alike. */
	assert_allocates_with(
		space, 0x3000,
		CONSTRAINTS(UINT64_MAX, .boundary = 0x4000, .alignment = 0x10000, .skew = 0x1000),
		0x21000);
	assert_allocates_with(space, 0x2000, CONSTRAINTS(UINT64_MAX, .boundary = UINT64_C(1) << 63),
			      0x34000 - 0x6000);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate_with__keeps_between_first_and_last(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);

	(void)state;
	assert_allocates_with(space, 0x1000, CONSTRAINTS(0x17fff, .first = 0x17000), 0x17000);
	assert_allocates_nothing_with(space, 0x1000, CONSTRAINTS(0x17fff, .first = 0x17000),
				      ENOSPC);
	/* A granule that one of them cuts does not count. */
	assert_allocates_nothing_with(space, 0x1000, CONSTRAINTS(0x15ffe, .first = 0x14001),
				      ENOSPC);
	assert_allocates_with(space, 0x1000, CONSTRAINTS(0x15fff, .first = 0x14001), 0x15000);
	/* Both may lie outside of the space, and one byte lies in no granule. */
	assert_allocates_with(space, 0x1000, CONSTRAINTS(0x10fff, .first = 0), 0x10000);
	assert_allocates_with(space, 0x1000, CONSTRAINTS(0x2ffff, .first = 0x1f000), 0x1f000);
	assert_allocates_nothing_with(space, 1, CONSTRAINTS(0xffff, .first = 0), ENOSPC);
	assert_allocates_nothing_with(space, 1, CONSTRAINTS(UINT64_MAX, .first = 0x20000), ENOSPC);
	assert_allocates_nothing_with(space, 1, CONSTRAINTS(UINT64_MAX, .first = UINT64_MAX),
				      ENOSPC);
	assert_allocates_nothing_with(space, 1, CONSTRAINTS(0x18000, .first = 0x18000), ENOSPC);
	assert_allocates_nothing_with(space, 1, CONSTRAINTS(0, .first = 0), ENOSPC);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate_with__goes_the_way_that_it_is_told(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);
	const uint32_t up = DMACORE_IOVA_BOTTOM_UP, down = DMACORE_IOVA_TOP_DOWN;

	(void)state;
	assert_allocates_with(space, 0x1000, CONSTRAINTS(UINT64_MAX, .placement = up), 0x10000);
	assert_allocates_with(space, 0x1000, CONSTRAINTS(UINT64_MAX, .placement = down), 0x1f000);
	assert_allocates_with(space, 0x1000, CONSTRAINTS(UINT64_MAX, .placement = up), 0x11000);
	assert_allocates_with(space, 0x2000, CONSTRAINTS(UINT64_MAX, .placement = down), 0x1d000);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .placement = up, .alignment = 0x4000),
			      0x14000);
	assert_allocates_with(
		space, 0x1000,
		CONSTRAINTS(UINT64_MAX, .placement = up, .alignment = 0x4000, .skew = 0x2000),
		0x16000);
	assert_allocates_with(space, 0x3000,
			      CONSTRAINTS(UINT64_MAX, .placement = up, .boundary = 0x4000),
			      0x18000);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .placement = up, .first = 0x1b001), 0x1c000);
	dmacore_iova_space_destroy(space);
}

/* Where size and alignment certainly find room goes before where they happen to. */
static void iova_space_allocate_with__prefers_a_gap_that_surely_holds_it(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0x3ffff);
	const uint32_t up = DMACORE_IOVA_BOTTOM_UP, down = DMACORE_IOVA_TOP_DOWN;

	(void)state;
	/* Gaps of three granules at both ends, aligned to two, and a long one between them. */
	assert_ok(dmacore_iova_space_reserve(space, 0x3000, 0xffff));
	assert_ok(dmacore_iova_space_reserve(space, 0x30000, 0x3bfff));
	assert_ok(dmacore_iova_space_reserve(space, 0x3f000, 0x3ffff));
	assert_allocates_with(space, 0x3000,
			      CONSTRAINTS(UINT64_MAX, .placement = down, .alignment = 0x2000),
			      0x2c000);
	assert_allocates_with(space, 0x3000,
			      CONSTRAINTS(UINT64_MAX, .placement = up, .alignment = 0x2000),
			      0x10000);
	/* Without the long one the others do. */
	assert_ok(dmacore_iova_space_reserve(space, 0x13000, 0x2bfff));
	assert_allocates_with(space, 0x3000,
			      CONSTRAINTS(UINT64_MAX, .placement = down, .alignment = 0x2000),
			      0x3c000);
	assert_allocates_with(space, 0x3000,
			      CONSTRAINTS(UINT64_MAX, .placement = up, .alignment = 0x2000), 0);
	assert_true(read_statistics(space).searched_gaps > 0);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate_with__takes_the_exact_place_or_none(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);
	const uint32_t exact = DMACORE_IOVA_EXACT;

	(void)state;
	assert_allocates_with(space, 0x1800,
			      CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0x14000),
			      0x14000);
	for (uint64_t first = 0x13000; first <= 0x15000; first += 0x1000)
		assert_allocates_nothing_with(
			space, 0x2000, CONSTRAINTS(UINT64_MAX, .placement = exact, .first = first),
			ENOSPC);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(0x1ffff, .placement = exact, .first = 0x1f000), 0x1f000);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0x10000),
			      0x10000);
	/* Out of the space, over its end, or over the constraints' own. */
	assert_allocates_nothing_with(
		space, 1, CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0xf000), ENOSPC);
	assert_allocates_nothing_with(space, 0x3000,
				      CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0x1e000),
				      ENOSPC);
	assert_allocates_nothing_with(
		space, 0x2000, CONSTRAINTS(0x18fff, .placement = exact, .first = 0x18000), ENOSPC);
	assert_allocates_nothing_with(
		space, 1, CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0x18001), EINVAL);
	/* What else is said counts too. */
	assert_allocates_nothing_with(
		space, 0x1000,
		CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0x1a000, .alignment = 0x4000),
		ENOSPC);
	assert_allocates_nothing_with(
		space, 0x2000,
		CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0x1b000, .boundary = 0x4000),
		ENOSPC);
	assert_allocates_with(space, 0x1000,
			      CONSTRAINTS(UINT64_MAX, .placement = exact, .first = 0x1a000,
					  .alignment = 0x4000, .skew = 0x2000),
			      0x1a000);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate_with__finds_no_room_for_contradictions(void **state)
{
	const struct dmacore_iova_constraints contradictions[] = {
		/* Every place crosses a boundary. */
		{ 0, 0, 0, 0x4000, 0x2000, 0x4000, 0, UINT64_MAX },
		{ 0, 0, 0, 0x10000, 0x3000, 0x4000, 0, UINT64_MAX },
		{ 0, DMACORE_IOVA_BOTTOM_UP, 0, 0x10000, 0xe000, 0x4000, 0, UINT64_MAX },
		/* No room between the ends, or no place of this alignment. */
		{ 0, 0, 0, 0, 0, 0, 0x4000, 0x5fff },
		{ 0, 0, 0, 0x10000, 0, 0, 0x4000, 0xffff },
		{ 0, DMACORE_IOVA_EXACT, 0, 0x10000, 0, 0, 0x4000, 0xffff },
	};

	(void)state;
	for (unsigned checked = 0; checked < 2; checked++) {
		struct dmacore_iova_space *space = make_space_with(checked, 4096, 0, 0);

		for (unsigned i = 0; i < sizeof(contradictions) / sizeof(*contradictions); i++) {
			struct dmacore_iova_constraints constraints = contradictions[i];

			constraints.struct_size = sizeof(constraints);
			assert_allocates_nothing_with(space, 0x3000, &constraints, ENOSPC);
		}
		dmacore_iova_space_destroy(space);
	}
}

static void iova_space_allocate_with__rejects_bad_arguments(void **state)
{
	const struct dmacore_iova_constraints wrong[] = {
		{ 0, 4, 0, 0, 0, 0, 0, UINT64_MAX },
		{ 0, UINT32_MAX, 0, 0, 0, 0, 0, UINT64_MAX },
		{ 0, 0, 1, 0, 0, 0, 0, UINT64_MAX },
		{ 0, 0, 0, 3, 0, 0, 0, UINT64_MAX },
		{ 0, 0, 0, 0x3000, 0, 0, 0, UINT64_MAX },
		{ 0, 0, 0, UINT64_MAX, 0, 0, 0, UINT64_MAX },
		/* Smaller than the granule, beside other constraints. */
		{ 0, 0, 0, 3, 0, 0x10000, 0, UINT64_MAX },
		{ 0, DMACORE_IOVA_BOTTOM_UP, 0, 5, 0, 0, 0, UINT64_MAX },
		/* No skew but 0 is below the granule. */
		{ 0, 0, 0, 0, 0x1000, 0, 0, UINT64_MAX },
		{ 0, 0, 0, 1, 1, 0, 0, UINT64_MAX },
		{ 0, 0, 0, 0x4000, 0x4000, 0, 0, UINT64_MAX },
		{ 0, 0, 0, 0x4000, 0x800, 0, 0, UINT64_MAX },
		{ 0, 0, 0, 0x4000, UINT64_MAX - 0xfff, 0, 0, UINT64_MAX },
		{ 0, 0, 0, 0, 0, 0x3000, 0, UINT64_MAX },
		{ 0, 0, 0, 0, 0, 0x1000, 0, UINT64_MAX },
		{ 0, 0, 0, 0, 0, 1, 0, UINT64_MAX },
		{ 0, 0, 0, 0, 0, 0, 0x5000, 0x4fff },
		{ 0, 0, 0, 0, 0, 0, UINT64_MAX, 0 },
		{ 0, DMACORE_IOVA_EXACT, 0, 0, 0, 0, 0x5001, UINT64_MAX },
		{ 0, DMACORE_IOVA_EXACT, 0, 0, 0, 0, UINT64_MAX, UINT64_MAX },
	};
	const struct dmacore_iova_constraints good = DMACORE_IOVA_CONSTRAINTS_INIT;
	dmacore_iova_t iova;

	(void)state;
	for (unsigned checked = 0; checked < 2; checked++) {
		struct dmacore_iova_space *space = make_space_with(checked, 4096, 0, 0);

		for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
			struct dmacore_iova_constraints constraints = wrong[i];

			constraints.struct_size = sizeof(constraints);
			iova = UNTOUCHED;
			if (dmacore_iova_space_allocate_with(space, 0x2000, &constraints, &iova) !=
			    -EINVAL)
				fail_msg("constraints %u were accepted", i);
			assert_true(iova == UNTOUCHED);
		}
		assert_allocates_nothing_with(space, 0, &good, EINVAL);
		assert_allocates_nothing_with(space, UINT64_MAX, &good, EINVAL);
		assert_allocates_nothing_with(space, UINT64_MAX - 4094, NULL, EINVAL);
		assert_fails_untouched(dmacore_iova_space_allocate_with(NULL, 1, &good, &iova),
				       EINVAL, iova);
		assert_fails(dmacore_iova_space_allocate_with(space, 1, &good, NULL), EINVAL);
		dmacore_iova_space_destroy(space);
	}
}

static void iova_space_allocate_with__checks_the_size_of_its_constraints(void **state)
{
	LATER(struct dmacore_iova_constraints)
	later = { .known = DMACORE_IOVA_CONSTRAINTS_INIT, .unknown = 0 };
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);

	(void)state;
	later.known.struct_size = 0;
	assert_allocates_nothing_with(space, 1, &later.known, EINVAL);
	later.known.struct_size = sizeof(later.known) - 1;
	assert_allocates_nothing_with(space, 1, &later.known, EINVAL);
	later.known.struct_size = sizeof(later);
	later.unknown = UINT64_C(1) << 63;
	assert_allocates_nothing_with(space, 1, &later.known, E2BIG);
	later.unknown = 0;
	later.known.struct_size = SIZE_MAX;
	assert_allocates_nothing_with(space, 1, &later.known, E2BIG);
	later.known.struct_size = sizeof(later);
	assert_allocates_with(space, 1, &later.known, 0xf000);
	dmacore_iova_space_destroy(space);
}

/* Freeing. */

static void iova_space_free__takes_the_size_that_was_asked_for(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);

	(void)state;
	assert_allocates(space, 5000, 0, UINT64_MAX, 0xe000);
	assert_ok(dmacore_iova_space_free(space, 0xe000, 5000));
	assert_allocates(space, 5000, 0, UINT64_MAX, 0xe000);
	assert_ok(dmacore_iova_space_free(space, 0xe000, 8192));
	assert_int_equal(read_statistics(space).allocated_count, 0);
	dmacore_iova_space_destroy(space);
}

#define assert_frees_nothing(space, iova, size)                                                \
	do {                                                                                   \
		struct dmacore_iova_space_statistics before_ = read_statistics(space), after_; \
                                                                                               \
		assert_fails(dmacore_iova_space_free(space, iova, size), EINVAL);              \
		after_ = read_statistics(space);                                               \
		assert_same_state(&before_, &after_);                                          \
		assert_int_equal(after_.refused_frees, before_.refused_frees + 1);             \
	} while (0)

static void iova_space_free__refuses_what_is_not_allocated(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0);

	(void)state;
	assert_frees_nothing(space, 0, 4096);
	assert_allocates(space, 0x3000, 0, 0xfffff, 0xfd000);
	assert_ok(dmacore_iova_space_reserve(space, 0x5000, 0x5fff));

	assert_fails(dmacore_iova_space_free(NULL, 0xfd000, 0x3000), EINVAL);
	assert_frees_nothing(space, 0xfd000, 0);
	assert_frees_nothing(space, 0xfd000, 0x2000);
	assert_frees_nothing(space, 0xfd000, 0x3001);
	assert_frees_nothing(space, 0xfd000, UINT64_MAX);
	assert_frees_nothing(space, 0xfd001, 0x3000);
	assert_frees_nothing(space, 0xfe000, 0x2000);
	assert_frees_nothing(space, 0xfc000, 0x4000);
	assert_frees_nothing(space, 0xfc000, 0x1000);
	assert_frees_nothing(space, 0x5000, 0x1000);
	assert_frees_nothing(space, UINT64_MAX, 1);
	assert_frees_nothing(space, UINT64_MAX - 4095, 4096);

	assert_ok(dmacore_iova_space_free(space, 0xfd000, 0x3000));
	assert_frees_nothing(space, 0xfd000, 0x3000);
	dmacore_iova_space_destroy(space);
}

static void iova_space_free__reports_what_it_refuses(void **state)
{
	struct reports reports;
	struct dmacore_iova_space *space =
		make_reporting_space(DMACORE_IOVA_SPACE_CHECKED, 0, 0xfffff, &reports);

	(void)state;
	assert_allocates(space, 0x3000, 0, UINT64_MAX, 0xfd000);
	assert_fails(dmacore_iova_space_free(space, 0xfc000, 0x3000), EINVAL);
	assert_int_equal(reports.count, 1);
	assert_refusal(&reports, 0);
	/* It says which one. */
	assert_non_null(strstr(reports.seen[0].text, "0xfc000"));
	assert_non_null(strstr(reports.seen[0].text, "12288"));
	assert_fails(dmacore_iova_space_free(space, 0x1000000, 0x1000), EINVAL);
	assert_fails(dmacore_iova_space_free(space, 0xfd000, 0), EINVAL);
	assert_ok(dmacore_iova_space_free(space, 0xfd000, 0x3000));
	assert_fails(dmacore_iova_space_free(space, 0xfd000, 0x3000), EINVAL);
	assert_int_equal(reports.count, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_refusal(&reports, i);
	assert_int_equal(read_statistics(space).refused_frees, 4);
	dmacore_iova_space_destroy(space);
	assert_int_equal(reports.count, 4);
}

/* Reserving. */

static void iova_space_reserve__keeps_a_range_from_allocation(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);

	(void)state;
	assert_ok(dmacore_iova_space_reserve(space, 0xf000, 0xffff));
	assert_ok(dmacore_iova_space_reserve(space, 0, 0xbfff));
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0xe000);
	assert_allocates(space, 0x2000, 0, UINT64_MAX, 0xc000);
	assert_allocates_nothing(space, 0x1000, 0, UINT64_MAX, ENOSPC);
	dmacore_iova_space_destroy(space);
}

static void iova_space_reserve__takes_both_ends_of_the_space(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0);

	(void)state;
	assert_ok(dmacore_iova_space_reserve(space, UINT64_MAX - 4095, UINT64_MAX));
	assert_ok(dmacore_iova_space_reserve(space, 0, 4095));
	assert_allocates(space, 4096, 0, UINT64_MAX, UINT64_MAX - 8191);
	assert_ok(dmacore_iova_space_unreserve(space, UINT64_MAX - 4095, UINT64_MAX));
	assert_ok(dmacore_iova_space_unreserve(space, 0, 4095));
	assert_ok(dmacore_iova_space_free(space, UINT64_MAX - 8191, 4096));

	/* All 2^64 bytes, which no size can say. */
	assert_ok(dmacore_iova_space_reserve(space, 0, UINT64_MAX));
	assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
	assert_int_equal(read_statistics(space).free_bytes, 0);
	assert_int_equal(read_statistics(space).reserved_bytes, UINT64_MAX);
	assert_ok(dmacore_iova_space_unreserve(space, 0, UINT64_MAX));
	assert_int_equal(read_statistics(space).reserved_bytes, 0);
	assert_int_equal(read_statistics(space).free_bytes, UINT64_MAX);
	dmacore_iova_space_destroy(space);
}

/* All 2^64 granules of one byte, whose number no size of 64 bits can say. */
static void iova_space_reserve__takes_all_granules_only_when_all_are_free(void **state)
{
	struct dmacore_iova_space *space = make_space(1, 0, 0);

	(void)state;
	assert_ok(dmacore_iova_space_reserve(space, 0, UINT64_MAX));
	assert_fails(dmacore_iova_space_reserve(space, 0, UINT64_MAX), EBUSY);
	assert_ok(dmacore_iova_space_unreserve(space, 0, UINT64_MAX));
	for (unsigned i = 0; i < 3; i++) {
		assert_allocates(space, 1, 0, UINT64_MAX, UINT64_MAX - i);
		assert_fails(dmacore_iova_space_reserve(space, 0, UINT64_MAX), EBUSY);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_ok(dmacore_iova_space_free(space, UINT64_MAX - i, 1));
		if (i < 2)
			assert_fails(dmacore_iova_space_reserve(space, 0, UINT64_MAX), EBUSY);
	}
	assert_ok(dmacore_iova_space_reserve(space, 0, 0));
	assert_fails(dmacore_iova_space_reserve(space, 0, UINT64_MAX), EBUSY);
	assert_ok(dmacore_iova_space_unreserve(space, 0, 0));
	assert_ok(dmacore_iova_space_reserve(space, 0, UINT64_MAX));
	dmacore_iova_space_destroy(space);
}

static void iova_space_reserve__rejects_bad_arguments(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);

	(void)state;
	assert_fails(dmacore_iova_space_reserve(NULL, 0x10000, 0x10fff), EINVAL);
	assert_fails(dmacore_iova_space_reserve(space, 0x10001, 0x10fff), EINVAL);
	assert_fails(dmacore_iova_space_reserve(space, 0x10000, 0x11000), EINVAL);
	assert_fails(dmacore_iova_space_reserve(space, 0x12000, 0x11fff), EINVAL);
	assert_fails(dmacore_iova_space_reserve(space, 0x12000, 0x10fff), EINVAL);
	assert_fails(dmacore_iova_space_reserve(space, 0xf000, 0x10fff), ERANGE);
	assert_fails(dmacore_iova_space_reserve(space, 0x1f000, 0x20fff), ERANGE);
	assert_fails(dmacore_iova_space_reserve(space, 0, 0xfff), ERANGE);
	assert_fails(dmacore_iova_space_reserve(space, 0, UINT64_MAX), ERANGE);
	assert_int_equal(read_statistics(space).reserved_count, 0);
	dmacore_iova_space_destroy(space);
}

static void iova_space_reserve__refuses_what_is_in_use(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);
	struct dmacore_iova_space_statistics before, after;

	(void)state;
	assert_allocates(space, 0x2000, 0, 0x9fff, 0x8000);
	assert_ok(dmacore_iova_space_reserve(space, 0x4000, 0x4fff));
	before = read_statistics(space);
	assert_fails(dmacore_iova_space_reserve(space, 0x8000, 0x9fff), EBUSY);
	assert_fails(dmacore_iova_space_reserve(space, 0x7000, 0x8fff), EBUSY);
	assert_fails(dmacore_iova_space_reserve(space, 0x9000, 0xafff), EBUSY);
	assert_fails(dmacore_iova_space_reserve(space, 0x4000, 0x4fff), EBUSY);
	assert_fails(dmacore_iova_space_reserve(space, 0x3000, 0x5fff), EBUSY);
	assert_fails(dmacore_iova_space_reserve(space, 0, 0xffff), EBUSY);
	after = read_statistics(space);
	assert_same_state(&before, &after);
	/* What adjoins is free. */
	assert_ok(dmacore_iova_space_reserve(space, 0xa000, 0xafff));
	assert_ok(dmacore_iova_space_reserve(space, 0x5000, 0x7fff));
	dmacore_iova_space_destroy(space);
}

static void iova_space_unreserve__wants_exactly_what_was_reserved(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);

	(void)state;
	assert_ok(dmacore_iova_space_reserve(space, 0x4000, 0x5fff));
	assert_ok(dmacore_iova_space_reserve(space, 0x6000, 0x6fff));
	assert_allocates(space, 0x1000, 0, 0x8fff, 0x8000);
	assert_fails(dmacore_iova_space_unreserve(NULL, 0x4000, 0x5fff), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0x4000, 0x4fff), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0x5000, 0x5fff), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0x4000, 0x6fff), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0x4001, 0x5fff), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0x5fff, 0x4000), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0, 0xfff), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0x8000, 0x8fff), EINVAL);
	assert_fails(dmacore_iova_space_unreserve(space, 0, UINT64_MAX), EINVAL);
	assert_int_equal(read_statistics(space).reserved_count, 2);

	assert_ok(dmacore_iova_space_unreserve(space, 0x4000, 0x5fff));
	assert_fails(dmacore_iova_space_unreserve(space, 0x4000, 0x5fff), EINVAL);
	assert_allocates(space, 0x2000, 0x2000, 0x7fff, 0x4000);
	dmacore_iova_space_destroy(space);
}

/* Statistics. */

static void iova_space_statistics__says_what_is_there(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);
	struct dmacore_iova_space_statistics statistics;

	(void)state;
	statistics = read_statistics(space);
	assert_int_equal(statistics.allocated_count, 0);
	assert_int_equal(statistics.allocated_bytes, 0);
	assert_int_equal(statistics.reserved_count, 0);
	assert_int_equal(statistics.reserved_bytes, 0);
	assert_int_equal(statistics.free_bytes, 0x10000);
	assert_int_equal(statistics.largest_free_bytes, 0x10000);

	assert_allocates(space, 0x2000, 0, UINT64_MAX, 0x1e000);
	assert_ok(dmacore_iova_space_reserve(space, 0x14000, 0x14fff));
	statistics = read_statistics(space);
	assert_int_equal(statistics.allocated_count, 1);
	assert_int_equal(statistics.allocated_bytes, 0x2000);
	assert_int_equal(statistics.reserved_count, 1);
	assert_int_equal(statistics.reserved_bytes, 0x1000);
	assert_int_equal(statistics.free_bytes, 0xd000);
	assert_int_equal(statistics.largest_free_bytes, 0x9000);
	dmacore_iova_space_destroy(space);
}

static void iova_space_statistics__says_the_whole_space_as_the_highest_number(void **state)
{
	struct dmacore_iova_space *space = make_space(1, 0, 0);
	struct dmacore_iova_space_statistics statistics = read_statistics(space);

	(void)state;
	assert_int_equal(statistics.free_bytes, UINT64_MAX);
	assert_int_equal(statistics.largest_free_bytes, UINT64_MAX);
	assert_ok(dmacore_iova_space_reserve(space, 0, 0));
	statistics = read_statistics(space);
	assert_int_equal(statistics.free_bytes, UINT64_MAX);
	assert_ok(dmacore_iova_space_reserve(space, 1, 1));
	statistics = read_statistics(space);
	assert_int_equal(statistics.free_bytes, UINT64_MAX - 1);
	assert_int_equal(statistics.largest_free_bytes, UINT64_MAX - 1);
	dmacore_iova_space_destroy(space);
}

static void iova_space_statistics__rejects_null(void **state)
{
	struct dmacore_iova_space *space = make_space(0, 0, 0);
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };

	(void)state;
	assert_fails(dmacore_iova_space_statistics(NULL, &statistics), EINVAL);
	assert_fails(dmacore_iova_space_statistics(space, NULL), EINVAL);
	dmacore_iova_space_destroy(space);
}

static void iova_space_statistics__checks_the_size_of_the_structure(void **state)
{
	struct dmacore_iova_space *space = make_space(0, 0, 0xffff);

	(void)state;
	check_statistics_size(struct dmacore_iova_space_statistics,
			      dmacore_iova_space_statistics(space, options));
	dmacore_iova_space_destroy(space);
}

static void iova_space_statistics__counts_what_was_done(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);
	struct dmacore_iova_space_statistics statistics;

	(void)state;
	assert_allocates(space, 0x2000, 0, UINT64_MAX, 0x1e000);
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0x1d000);
	assert_ok(dmacore_iova_space_reserve(space, 0x10000, 0x13fff));
	assert_ok(dmacore_iova_space_free(space, 0x1e000, 0x2000));
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0x1f000);
	assert_fails(dmacore_iova_space_free(space, 0x1e000, 0x1000), EINVAL);
	statistics = read_statistics(space);
	assert_int_equal(statistics.store_allocations, 3);
	assert_int_equal(statistics.store_frees, 1);
	assert_int_equal(statistics.refused_frees, 1);
	/* What is reserved is not taken. */
	assert_int_equal(statistics.taken_count_max, 2);
	assert_int_equal(statistics.taken_bytes_max, 0x3000);
	assert_int_equal(statistics.cached_count, 0);
	assert_int_equal(statistics.cached_bytes, 0);
	assert_int_equal(statistics.cache_allocations, 0);
	assert_int_equal(statistics.cache_frees, 0);
	assert_int_equal(statistics.drains, 0);
	assert_int_equal(statistics.searched_gaps, 0);
	assert_true(statistics.metadata_bytes > 0);
	dmacore_iova_space_destroy(space);
}

/* Besides a fixed part, at most 40 bytes for each range in use. */
static void iova_space_statistics__says_how_little_memory_a_range_takes(void **state)
{
	enum { COUNT = 20000 };
	struct dmacore_iova_space *space = make_space(4096, 0, 0);
	uint64_t fixed = read_statistics(space).metadata_bytes;

	(void)state;
	for (unsigned i = 0; i < COUNT; i++)
		allocate(space, (1 + i % 3) * PAGE, 0, UINT64_MAX);
	assert_in_range(read_statistics(space).metadata_bytes, 1, fixed + 40 * COUNT + 16384);
	dmacore_iova_space_destroy(space);
}

/* The longest free range. */

#define assert_largest_free(space, first, last, expected)                                \
	do {                                                                             \
		uint64_t bytes_ = UNTOUCHED;                                             \
                                                                                         \
		assert_ok(dmacore_iova_space_largest_free(space, first, last, &bytes_)); \
		assert_int_equal(bytes_, expected);                                      \
	} while (0)

static void iova_space_largest_free__looks_between_two_addresses(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);

	(void)state;
	assert_largest_free(space, 0, UINT64_MAX, 0x10000);
	assert_ok(dmacore_iova_space_reserve(space, 0x14000, 0x14fff));
	assert_largest_free(space, 0, UINT64_MAX, 0xb000);
	assert_largest_free(space, 0, 0x15fff, 0x4000);
	assert_largest_free(space, 0x13000, 0x16fff, 0x2000);
	assert_largest_free(space, 0x14000, 0x14fff, 0);
	/* Whole granules. */
	assert_largest_free(space, 0x11001, 0x12ffe, 0);
	assert_largest_free(space, 0x11001, 0x12fff, 0x1000);
	assert_largest_free(space, 0x11000, 0x12ffe, 0x1000);
	assert_largest_free(space, 0x18000, 0x18000, 0);
	/* Outside. */
	assert_largest_free(space, 0, 0xffff, 0);
	assert_largest_free(space, 0x20000, UINT64_MAX, 0);
	assert_largest_free(space, UINT64_MAX, UINT64_MAX, 0);
	assert_largest_free(space, 0, 0, 0);
	dmacore_iova_space_destroy(space);
}

static void iova_space_largest_free__knows_all_addresses(void **state)
{
	struct dmacore_iova_space *space = make_space(1, 0, 0);

	(void)state;
	assert_largest_free(space, 0, UINT64_MAX, UINT64_MAX);
	assert_largest_free(space, 1, UINT64_MAX, UINT64_MAX);
	assert_largest_free(space, UINT64_MAX, UINT64_MAX, 1);
	assert_largest_free(space, 0, 0, 1);
	assert_ok(dmacore_iova_space_reserve(space, 0, UINT64_MAX));
	assert_largest_free(space, 0, UINT64_MAX, 0);
	dmacore_iova_space_destroy(space);
	space = make_space(4096, 0, 0);
	assert_largest_free(space, UINT64_MAX - 4095, UINT64_MAX, 4096);
	assert_largest_free(space, UINT64_MAX - 4094, UINT64_MAX, 0);
	assert_largest_free(space, UINT64_MAX, UINT64_MAX, 0);
	assert_largest_free(space, 1, UINT64_MAX, UINT64_MAX - 4095);
	dmacore_iova_space_destroy(space);
}

static void iova_space_largest_free__rejects_bad_arguments(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0);
	uint64_t bytes;

	(void)state;
	assert_fails_untouched(dmacore_iova_space_largest_free(NULL, 0, 1, &bytes), EINVAL, bytes);
	assert_fails(dmacore_iova_space_largest_free(space, 0, 1, NULL), EINVAL);
	assert_fails_untouched(dmacore_iova_space_largest_free(space, 2, 1, &bytes), EINVAL, bytes);
	dmacore_iova_space_destroy(space);
}

static void iova_space_drain__does_nothing_in_a_checked_space(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);

	(void)state;
	assert_fails(dmacore_iova_space_drain(NULL), EINVAL);
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0xf000);
	assert_ok(dmacore_iova_space_drain(space));
	assert_int_equal(read_statistics(space).drains, 0);
	assert_int_equal(read_statistics(space).allocated_count, 1);
	dmacore_iova_space_destroy(space);
}

/* Visits and dumps. */

struct visit {
	struct dmacore_iova_space *space;
	unsigned count;
	/* Returns false once it has seen so many. */
	unsigned most;
	struct {
		dmacore_iova_t first;
		dmacore_iova_t last;
		uint32_t use;
	} seen[16];
};

static bool note_range(dmacore_iova_t first, dmacore_iova_t last, uint32_t use, void *opaque)
{
	struct visit *visit = opaque;

	assert_true(visit->count < 16);
	visit->seen[visit->count].first = first;
	visit->seen[visit->count].last = last;
	visit->seen[visit->count].use = use;
	return ++visit->count < visit->most;
}

static void iova_space_visit__covers_the_space_in_order(void **state)
{
	const struct {
		dmacore_iova_t first;
		dmacore_iova_t last;
		uint32_t use;
	} expected[] = {
		{ 0x10000, 0x11fff, DMACORE_IOVA_FREE },
		{ 0x12000, 0x12fff, DMACORE_IOVA_RESERVED },
		{ 0x13000, 0x14fff, DMACORE_IOVA_RESERVED },
		{ 0x15000, 0x1cfff, DMACORE_IOVA_FREE },
		{ 0x1d000, 0x1dfff, DMACORE_IOVA_ALLOCATED },
		{ 0x1e000, 0x1ffff, DMACORE_IOVA_ALLOCATED },
	};
	struct dmacore_iova_space *space = make_space(4096, 0x10000, 0x1ffff);
	struct visit visit = { .most = 16 };

	(void)state;
	assert_ok(dmacore_iova_space_reserve(space, 0x13000, 0x14fff));
	assert_ok(dmacore_iova_space_reserve(space, 0x12000, 0x12fff));
	assert_allocates(space, 0x2000, 0, UINT64_MAX, 0x1e000);
	assert_allocates(space, 0x1000, 0, UINT64_MAX, 0x1d000);
	assert_ok(dmacore_iova_space_visit(space, note_range, &visit));
	assert_int_equal(visit.count, 6);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(visit.seen[i].first, expected[i].first);
		assert_int_equal(visit.seen[i].last, expected[i].last);
		assert_int_equal(visit.seen[i].use, expected[i].use);
	}
	/* It ends when it is told to. */
	for (unsigned most = 1; most <= 6; most++) {
		visit = (struct visit){ .most = most };
		assert_ok(dmacore_iova_space_visit(space, note_range, &visit));
		assert_int_equal(visit.count, most);
	}
	dmacore_iova_space_destroy(space);
}

static void iova_space_visit__reaches_the_last_address(void **state)
{
	(void)state;
	for (unsigned shift = 0; shift < 64; shift += 9) {
		struct dmacore_iova_space *space = make_space(UINT64_C(1) << shift, 0, 0);
		struct visit visit = { .most = 16 };

		assert_ok(dmacore_iova_space_visit(space, note_range, &visit));
		assert_int_equal(visit.count, 1);
		assert_int_equal(visit.seen[0].first, 0);
		assert_int_equal(visit.seen[0].last, UINT64_MAX);
		assert_int_equal(visit.seen[0].use, DMACORE_IOVA_FREE);
		assert_ok(dmacore_iova_space_reserve(space, 0, UINT64_MAX));
		visit.count = 0;
		assert_ok(dmacore_iova_space_visit(space, note_range, &visit));
		assert_int_equal(visit.count, 1);
		assert_int_equal(visit.seen[0].last, UINT64_MAX);
		assert_int_equal(visit.seen[0].use, DMACORE_IOVA_RESERVED);
		dmacore_iova_space_destroy(space);
	}
}

/* Frees what is allocated and allocates elsewhere. */
static bool change_while_visiting(dmacore_iova_t first, dmacore_iova_t last, uint32_t use,
				  void *opaque)
{
	struct visit *visit = opaque;

	assert_true(visit->count == 0 || first == visit->seen[0].last + 1);
	visit->count++;
	visit->seen[0].last = last;
	if (use == DMACORE_IOVA_ALLOCATED)
		assert_ok(dmacore_iova_space_free(visit->space, first, last - first + 1));
	else if (use == DMACORE_IOVA_FREE && visit->count < 8)
		allocate(visit->space, 0x1000, 0, UINT64_MAX);
	return true;
}

static void iova_space_visit__lets_its_callback_change_the_space(void **state)
{
	struct visit visit = { .space = make_space(4096, 0, 0xffff) };

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		allocate(visit.space, 0x2000, 0, UINT64_MAX);
	assert_ok(dmacore_iova_space_visit(visit.space, change_while_visiting, &visit));
	assert_int_equal(visit.seen[0].last, 0xffff);
	dmacore_iova_space_destroy(visit.space);
}

static void iova_space_visit__rejects_null(void **state)
{
	struct dmacore_iova_space *space = make_space(4096, 0, 0xffff);
	struct visit visit = { .most = 16 };

	(void)state;
	assert_fails(dmacore_iova_space_visit(NULL, note_range, &visit), EINVAL);
	assert_fails(dmacore_iova_space_visit(space, NULL, &visit), EINVAL);
	assert_int_equal(visit.count, 0);
	dmacore_iova_space_destroy(space);
}

/* The text is for people, and no test says what it is. */
static void note_line(const char *line, void *opaque)
{
	unsigned *count = opaque;

	assert_true(strlen(line) < 256);
	assert_null(strchr(line, '\n'));
	++*count;
}

static void iova_space_dump__gives_lines(void **state)
{
	unsigned count = 0, again = 0;

	(void)state;
	for (unsigned checked = 0; checked < 2; checked++) {
		struct dmacore_iova_space *space = make_space_with(checked, 4096, 0, 0);

		assert_ok(dmacore_iova_space_dump(space, note_line, &count));
		for (unsigned i = 0; i < 1000; i++)
			allocate(space, (1 + i % 7) * PAGE, 0, i % 2 ? UINT32_MAX : UINT64_MAX);
		assert_ok(dmacore_iova_space_reserve(space, 0, 0xffff));
		assert_ok(dmacore_iova_space_dump(space, note_line, &again));
		assert_fails(dmacore_iova_space_dump(NULL, note_line, &count), EINVAL);
		assert_fails(dmacore_iova_space_dump(space, NULL, &count), EINVAL);
		dmacore_iova_space_destroy(space);
	}
	assert_true(count == 0 || again > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_create__takes_defaults_without_options),
		cmocka_unit_test(iova_space_create__rejects_null_out),
		cmocka_unit_test(iova_space_create__rejects_ends_and_granules_that_do_not_fit),
		cmocka_unit_test(iova_space_create__rejects_flags_and_reserved_members),
		cmocka_unit_test(iova_space_create__checks_the_size_of_its_options),
		cmocka_unit_test(iova_space_create__makes_a_space_of_one_granule),
		cmocka_unit_test(iova_space_create__takes_every_power_of_two_as_granule),
		cmocka_unit_test(iova_space_destroy__accepts_null_and_spaces_in_use),
		cmocka_unit_test(iova_space_allocate__goes_from_the_top_down),
		cmocka_unit_test(iova_space_allocate__rounds_up_to_the_granule),
		cmocka_unit_test(iova_space_allocate__aligns),
		cmocka_unit_test(iova_space_allocate__keeps_every_byte_under_the_limit),
		cmocka_unit_test(iova_space_allocate__rejects_bad_arguments),
		cmocka_unit_test(iova_space_allocate__serves_sizes_up_to_the_space),
		cmocka_unit_test(iova_space_allocate__finds_the_last_hole),
		cmocka_unit_test(iova_space_allocate_with__takes_any_place_without_constraints),
		cmocka_unit_test(iova_space_allocate_with__aligns_and_skews),
		cmocka_unit_test(iova_space_allocate_with__crosses_no_boundary),
		cmocka_unit_test(iova_space_allocate_with__keeps_between_first_and_last),
		cmocka_unit_test(iova_space_allocate_with__goes_the_way_that_it_is_told),
		cmocka_unit_test(iova_space_allocate_with__prefers_a_gap_that_surely_holds_it),
		cmocka_unit_test(iova_space_allocate_with__takes_the_exact_place_or_none),
		cmocka_unit_test(iova_space_allocate_with__finds_no_room_for_contradictions),
		cmocka_unit_test(iova_space_allocate_with__rejects_bad_arguments),
		cmocka_unit_test(iova_space_allocate_with__checks_the_size_of_its_constraints),
		cmocka_unit_test(iova_space_free__takes_the_size_that_was_asked_for),
		cmocka_unit_test(iova_space_free__refuses_what_is_not_allocated),
		cmocka_unit_test(iova_space_free__reports_what_it_refuses),
		cmocka_unit_test(iova_space_reserve__keeps_a_range_from_allocation),
		cmocka_unit_test(iova_space_reserve__takes_both_ends_of_the_space),
		cmocka_unit_test(iova_space_reserve__takes_all_granules_only_when_all_are_free),
		cmocka_unit_test(iova_space_reserve__rejects_bad_arguments),
		cmocka_unit_test(iova_space_reserve__refuses_what_is_in_use),
		cmocka_unit_test(iova_space_unreserve__wants_exactly_what_was_reserved),
		cmocka_unit_test(iova_space_statistics__says_what_is_there),
		cmocka_unit_test(iova_space_statistics__says_the_whole_space_as_the_highest_number),
		cmocka_unit_test(iova_space_statistics__rejects_null),
		cmocka_unit_test(iova_space_statistics__checks_the_size_of_the_structure),
		cmocka_unit_test(iova_space_statistics__counts_what_was_done),
		cmocka_unit_test(iova_space_statistics__says_how_little_memory_a_range_takes),
		cmocka_unit_test(iova_space_largest_free__looks_between_two_addresses),
		cmocka_unit_test(iova_space_largest_free__knows_all_addresses),
		cmocka_unit_test(iova_space_largest_free__rejects_bad_arguments),
		cmocka_unit_test(iova_space_drain__does_nothing_in_a_checked_space),
		cmocka_unit_test(iova_space_visit__covers_the_space_in_order),
		cmocka_unit_test(iova_space_visit__reaches_the_last_address),
		cmocka_unit_test(iova_space_visit__lets_its_callback_change_the_space),
		cmocka_unit_test(iova_space_visit__rejects_null),
		cmocka_unit_test(iova_space_dump__gives_lines),
	};

	return run_group("iova", tests);
}
