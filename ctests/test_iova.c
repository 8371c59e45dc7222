/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/check.h"

static struct dmacore_iova_space *make_space(uint64_t granule, uint64_t first, uint64_t last)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	options.granule = granule;
	options.first = first;
	options.last = last;
	assert_ok(dmacore_iova_space_create(&options, &space));
	return space;
}

static struct dmacore_iova_space_statistics read_statistics(struct dmacore_iova_space *space)
{
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_iova_space_statistics(space, &statistics));
	return statistics;
}

#define assert_allocates(space, size, alignment, limit, expected)                              \
	do {                                                                                   \
		dmacore_iova_t iova_ = UNTOUCHED;                                              \
                                                                                               \
		assert_ok(dmacore_iova_space_allocate(space, size, alignment, limit, &iova_)); \
		assert_int_equal(iova_, expected);                                             \
	} while (0)

#define assert_allocates_nothing(space, size, alignment, limit, error)                             \
	do {                                                                                       \
		struct dmacore_iova_space_statistics before_ = read_statistics(space), after_;     \
		dmacore_iova_t iova_;                                                              \
                                                                                                   \
		assert_fails_untouched(                                                            \
			dmacore_iova_space_allocate(space, size, alignment, limit, &iova_), error, \
			iova_);                                                                    \
		after_ = read_statistics(space);                                                   \
		assert_memory_equal(&before_, &after_, sizeof(before_));                           \
	} while (0)

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
		assert_memory_equal(&before_, &after_, sizeof(before_));                       \
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
	assert_memory_equal(&before, &after, sizeof(before));
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

/*
 * A naive twin: one letter per granule, and every search by looking everywhere. Random calls must
 * give the same results and the same numbers on both.
 */

#define TWIN_COUNT 96

enum { FREE = 0, RESERVED = -1 };

struct twin {
	struct dmacore_iova_space *space;
	uint64_t granule;
	/* Index of the space's first granule. */
	uint64_t base;
	/* FREE, RESERVED or the number of the range, from 1. */
	int owner[TWIN_COUNT];
	struct {
		unsigned index;
		unsigned count;
		bool reserved;
	} ranges[TWIN_COUNT + 1];
	int live[TWIN_COUNT];
	unsigned live_count;
	uint64_t seed;
};

/* The highest place, or -1. */
static int twin_search(const struct twin *twin, unsigned count, uint64_t alignment, uint64_t limit)
{
	for (int index = TWIN_COUNT - (int)count; index >= 0; index--) {
		uint64_t first = (twin->base + (unsigned)index) * twin->granule;
		unsigned free = 0;

		while (free < count && twin->owner[(unsigned)index + free] == FREE)
			free++;
		if (free == count && first % alignment == 0 &&
		    first + (count * twin->granule - 1) <= limit)
			return index;
	}
	return -1;
}

static void twin_add(struct twin *twin, unsigned index, unsigned count, bool reserved)
{
	int id = 1;

	while (twin->ranges[id].count)
		id++;
	twin->ranges[id].index = index;
	twin->ranges[id].count = count;
	twin->ranges[id].reserved = reserved;
	twin->live[twin->live_count++] = id;
	for (unsigned i = 0; i < count; i++)
		twin->owner[index + i] = reserved ? RESERVED : id;
}

static void twin_allocate(struct twin *twin)
{
	unsigned count = 1 + random_next(&twin->seed) % (random_next(&twin->seed) % 4 ? 4 : 24);
	uint64_t alignment = twin->granule << random_next(&twin->seed) % 5;
	uint64_t limit =
		random_next(&twin->seed) % 2 ?
			UINT64_MAX :
			(twin->base + random_next(&twin->seed) % TWIN_COUNT) * twin->granule +
				random_next(&twin->seed) % twin->granule;
	int index = twin_search(twin, count, alignment, limit);
	dmacore_iova_t iova = UNTOUCHED;

	assert_result(dmacore_iova_space_allocate(twin->space, count * twin->granule, alignment,
						  limit, &iova),
		      index < 0 ? -ENOSPC : 0);
	if (index < 0) {
		assert_true(iova == UNTOUCHED);
		return;
	}
	assert_int_equal(iova, (twin->base + (unsigned)index) * twin->granule);
	twin_add(twin, (unsigned)index, count, false);
}

static void twin_reserve(struct twin *twin)
{
	unsigned index = random_next(&twin->seed) % TWIN_COUNT;
	unsigned count = 1 + random_next(&twin->seed) % 3;
	uint64_t first = (twin->base + index) * twin->granule;
	uint64_t last = first + (count * twin->granule - 1);
	bool busy = false;

	if (index + count > TWIN_COUNT) {
		/* Past the end of the space, or of the whole 64 bits. */
		assert_result(dmacore_iova_space_reserve(twin->space, first, last),
			      last < first ? -EINVAL : -ERANGE);
		return;
	}
	for (unsigned i = 0; i < count; i++)
		busy |= twin->owner[index + i] != FREE;
	assert_result(dmacore_iova_space_reserve(twin->space, first, last), busy ? -EBUSY : 0);
	if (!busy)
		twin_add(twin, index, count, true);
}

static void twin_release(struct twin *twin)
{
	unsigned place;
	int id;
	uint64_t first, size;

	if (twin->live_count == 0)
		return;
	place = random_next(&twin->seed) % twin->live_count;
	id = twin->live[place];
	first = (twin->base + twin->ranges[id].index) * twin->granule;
	size = twin->ranges[id].count * twin->granule;
	if (twin->ranges[id].reserved)
		assert_ok(dmacore_iova_space_unreserve(twin->space, first, first + (size - 1)));
	else
		assert_ok(dmacore_iova_space_free(twin->space, first, size));
	for (unsigned i = 0; i < twin->ranges[id].count; i++)
		twin->owner[twin->ranges[id].index + i] = FREE;
	twin->ranges[id].count = 0;
	twin->live[place] = twin->live[--twin->live_count];
}

static void twin_compare(const struct twin *twin)
{
	struct dmacore_iova_space_statistics statistics = read_statistics(twin->space);
	uint64_t counts[2] = { 0, 0 }, granules[2] = { 0, 0 }, free = 0, run = 0, longest = 0;

	for (unsigned i = 0; i < TWIN_COUNT; i++) {
		run = twin->owner[i] == FREE ? run + 1 : 0;
		free += twin->owner[i] == FREE;
		longest = run > longest ? run : longest;
	}
	for (unsigned i = 0; i < twin->live_count; i++) {
		bool reserved = twin->ranges[twin->live[i]].reserved;

		counts[reserved]++;
		granules[reserved] += twin->ranges[twin->live[i]].count;
	}
	assert_int_equal(statistics.allocated_count, counts[0]);
	assert_int_equal(statistics.allocated_bytes, granules[0] * twin->granule);
	assert_int_equal(statistics.reserved_count, counts[1]);
	assert_int_equal(statistics.reserved_bytes, granules[1] * twin->granule);
	assert_int_equal(statistics.free_bytes, free * twin->granule);
	assert_int_equal(statistics.largest_free_bytes, longest * twin->granule);
}

static void twin_run(uint64_t granule, uint64_t base, uint64_t seed)
{
	static struct twin twin;

	memset(&twin, 0, sizeof(twin));
	twin.granule = granule;
	twin.base = base;
	twin.seed = seed;
	twin.space = make_space(granule, base * granule, (base + TWIN_COUNT) * granule - 1);
	for (unsigned step = 0; step < 4000; step++) {
		/* Phases of growth and of shrinking, so that the space is full at times. */
		unsigned choice = random_next(&twin.seed) % 8;
		bool growing = step / 256 % 2 == 0;

		if (choice == 0)
			twin_reserve(&twin);
		else if (choice < (growing ? 6 : 3))
			twin_allocate(&twin);
		else
			twin_release(&twin);
		twin_compare(&twin);
	}
	while (twin.live_count)
		twin_release(&twin);
	twin_compare(&twin);
	dmacore_iova_space_destroy(twin.space);
}

static void iova_space_allocate__agrees_with_a_naive_twin(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++) {
		twin_run(4096, 16, seed);
		twin_run(1, 0, seed);
		/* The top of the 64-bit space, in bytes and in large granules. */
		twin_run(1, UINT64_MAX - TWIN_COUNT + 1, seed);
		twin_run(UINT64_C(1) << 56, 256 - TWIN_COUNT, seed);
	}
}

/* Whatever came and went, the space holds as much as before. */
static void iova_space_free__conserves_the_space(void **state)
{
	enum { COUNT = 512 };
	struct dmacore_iova_space *space = make_space(4096, 0, COUNT * PAGE - 1);
	dmacore_iova_t iova;
	uint64_t seed = 7;

	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		unsigned order[COUNT];

		for (unsigned i = 0; i < COUNT; i++) {
			order[i] = i;
			assert_ok(dmacore_iova_space_allocate(space, PAGE, 0, UINT64_MAX, &iova));
		}
		assert_allocates_nothing(space, 1, 0, UINT64_MAX, ENOSPC);
		for (unsigned i = COUNT; i-- > 0;) {
			unsigned j = random_next(&seed) % (i + 1);
			unsigned page = order[j];

			order[j] = order[i];
			assert_ok(dmacore_iova_space_free(space, page * PAGE, PAGE));
		}
		assert_int_equal(read_statistics(space).largest_free_bytes, COUNT * PAGE);
		assert_allocates(space, COUNT * PAGE, 0, UINT64_MAX, 0);
		assert_ok(dmacore_iova_space_free(space, 0, COUNT * PAGE));
	}
	dmacore_iova_space_destroy(space);
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
		cmocka_unit_test(iova_space_allocate__agrees_with_a_naive_twin),
		cmocka_unit_test(iova_space_free__takes_the_size_that_was_asked_for),
		cmocka_unit_test(iova_space_free__refuses_what_is_not_allocated),
		cmocka_unit_test(iova_space_free__conserves_the_space),
		cmocka_unit_test(iova_space_reserve__keeps_a_range_from_allocation),
		cmocka_unit_test(iova_space_reserve__takes_both_ends_of_the_space),
		cmocka_unit_test(iova_space_reserve__rejects_bad_arguments),
		cmocka_unit_test(iova_space_reserve__refuses_what_is_in_use),
		cmocka_unit_test(iova_space_unreserve__wants_exactly_what_was_reserved),
		cmocka_unit_test(iova_space_statistics__says_what_is_there),
		cmocka_unit_test(iova_space_statistics__says_the_whole_space_as_the_highest_number),
		cmocka_unit_test(iova_space_statistics__rejects_null),
		cmocka_unit_test(iova_space_statistics__checks_the_size_of_the_structure),
	};

	return run_group("iova", tests);
}
