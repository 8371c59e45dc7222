/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/space.h"

#include "support/iova_twin.h"

#include <pthread.h>

/* How much is left out where a run takes long: under valgrind all but one part of this many. */
static unsigned thinned(unsigned usual, unsigned under_valgrind_)
{
	return under_valgrind() ? under_valgrind_ : usual;
}

static struct dmacore_iova_space *make_twins(struct twin *twin, bool has_caches, uint64_t granule,
					     uint64_t first, uint64_t last)
{
	*twin = (struct twin){
		.granule = granule,
		.start = first,
		.end = (wide)last + 1,
		.has_caches = has_caches,
	};
	return make_space_with(has_caches ? 0 : DMACORE_IOVA_SPACE_CHECKED, granule, first, last);
}

static void assert_right(const char *wrong)
{
	if (wrong)
		fail_msg("%s", wrong);
}

/* Allocates on both sides. Whether there was a place. */
static bool allocate_twice(struct twin *twin, struct dmacore_iova_space *space, uint64_t size,
			   const struct dmacore_iova_constraints *constraints)
{
	dmacore_iova_t iova = UNTOUCHED;
	int result = dmacore_iova_space_allocate_with(space, size, constraints, &iova);
	const char *wrong = twin_allocate(twin, size, constraints, result, iova);

	if (wrong)
		fail_msg("%s: %#lx bytes, placement %u, alignment %#lx, skew %#lx, boundary %#lx, "
			 "%#lx to %#lx gave %d and %#lx",
			 wrong, (unsigned long)size, constraints->placement,
			 (unsigned long)constraints->alignment, (unsigned long)constraints->skew,
			 (unsigned long)constraints->boundary, (unsigned long)constraints->first,
			 (unsigned long)constraints->last, result, (unsigned long)iova);
	if (result)
		assert_true(iova == UNTOUCHED);
	return !result;
}

static void free_twice(struct twin *twin, struct dmacore_iova_space *space, size_t index)
{
	struct twin_range range = twin->ranges[index];
	uint64_t first = (uint64_t)(range.start * twin->granule);
	uint64_t size = (uint64_t)((range.end - range.start) * twin->granule);

	if (range.is_reserved) {
		assert_ok(twin_unreserve(twin, first, first + size - 1));
		assert_ok(dmacore_iova_space_unreserve(space, first, first + size - 1));
	} else {
		assert_ok(twin_free(twin, first, size));
		assert_ok(dmacore_iova_space_free(space, first, size));
	}
}

static void reserve_twice(struct twin *twin, struct dmacore_iova_space *space, uint64_t first,
			  uint64_t last)
{
	assert_result(dmacore_iova_space_reserve(space, first, last),
		      twin_reserve(twin, first, last));
}

static void compare(const struct twin *twin, struct dmacore_iova_space *space)
{
	struct dmacore_iova_space_statistics statistics = read_statistics(space);

	assert_right(twin_compare(twin, &statistics));
}

/* Eight granules in every way that they can be in use, and everything that can be asked for. */

#define SMALL 8

/* Whether there is a place at all: every one is tried. */
static bool has_place(const struct twin *twin, uint64_t size,
		      const struct dmacore_iova_constraints *constraints)
{
	wide base = twin->start / PAGE;

	for (wide place = base; place + size <= base + SMALL; place++) {
		wide last = (place + size) * PAGE - 1;
		wide alignment = constraints->alignment / PAGE;
		wide boundary = constraints->boundary / PAGE;

		if (twin_has_free(twin, place, place + size) &&
		    place % alignment == constraints->skew / PAGE &&
		    (boundary == 0 || place / boundary == (place + size - 1) / boundary) &&
		    place * PAGE >= constraints->first && last <= constraints->last &&
		    (constraints->placement != DMACORE_IOVA_EXACT ||
		     place * PAGE == constraints->first))
			return true;
	}
	return false;
}

static void try_everything(struct twin *twin, struct dmacore_iova_space *space, unsigned *turn,
			   unsigned kept)
{
	struct dmacore_iova_constraints c = DMACORE_IOVA_CONSTRAINTS_INIT;
	const size_t used = twin->count;

	for (uint64_t size = 1; size <= SMALL; size++)
		for (c.alignment = PAGE; c.alignment <= 2 * SMALL * PAGE; c.alignment *= 2)
			for (c.skew = 0; c.skew < c.alignment; c.skew += PAGE)
				for (uint64_t boundary = 0; boundary <= 2 * SMALL;
				     boundary = boundary ? 2 * boundary : 1)
					for (unsigned ends = 0; ends < SMALL * SMALL * 4; ends++) {
						unsigned low = ends / 4 % SMALL;
						unsigned high = ends / 4 / SMALL;

						/* The stride is prime to all numbers of cases. */
						if (++*turn % kept || high < low ||
						    (boundary && boundary < size))
							continue;
						c.boundary = boundary * PAGE;
						c.placement = ends % 4;
						c.first = (uint64_t)twin->start + low * PAGE;
						c.last = (uint64_t)twin->start + high * PAGE +
							 PAGE - 1;
						/* Ends inside granules that do not count then. */
						if (*turn & 64 && low && ends % 4 < 3)
							c.first -= PAGE - 1;
						if (*turn & 128 && high + 1 < SMALL)
							c.last += PAGE - 1;
						bool found = allocate_twice(twin, space,
									    size * PAGE, &c);

						if (found)
							for (size_t i = 0; i < twin->count; i++)
								if (!twin->ranges[i].is_reserved)
									free_twice(twin, space, i);
						assert_int_equal(twin->count, used);
						assert_true(found == has_place(twin, size, &c));
					}
}

static void iova_space_allocate_with__is_right_in_every_small_space(void **state)
{
	const uint64_t bases[] = { 0, 3 * PAGE, (uint64_t)0 - SMALL * PAGE };
	unsigned turn = 0;

	(void)state;
	for (unsigned pattern = 0; pattern < 1 << SMALL; pattern++)
		for (unsigned i = 0; i < 3; i++) {
			struct twin twin;
			struct dmacore_iova_space *space = make_twins(&twin, false, PAGE, bases[i],
								      bases[i] + SMALL * PAGE - 1);

			for (unsigned n = 0; n < SMALL; n++)
				if (pattern >> n & 1)
					reserve_twice(&twin, space, bases[i] + n * PAGE,
						      bases[i] + n * PAGE + PAGE - 1);
			try_everything(&twin, space, &turn, thinned(31, 1009));
			compare(&twin, space);
			dmacore_iova_space_destroy(space);
		}
}

/* Every short history. */

#define STEPS 10
#define STEP_PAGES 16

/* Half of the space lies below 4 GiB. */
#define STEP_BASE (4 * GIB - STEP_PAGES / 2 * PAGE)

static void take_step(struct twin *twin, struct dmacore_iova_space *space, unsigned step)
{
	const uint64_t first = STEP_BASE + 6 * PAGE, last = first + 3 * PAGE - 1;
	size_t allocated = 0;

	switch (step) {
	case 0:
		allocate_twice(twin, space, PAGE, CONSTRAINTS(UINT64_MAX, .alignment = 0));
		break;
	case 1:
		allocate_twice(twin, space, 2 * PAGE, CONSTRAINTS(UINT32_MAX, .skew = 0));
		break;
	case 2:
		allocate_twice(twin, space, 3 * PAGE, CONSTRAINTS(UINT64_MAX, .alignment = 0));
		break;
	case 3:
		allocate_twice(twin, space, 4 * PAGE,
			       CONSTRAINTS(UINT64_MAX, .alignment = 4 * PAGE));
		break;
	case 4:
		allocate_twice(twin, space, 2 * PAGE,
			       CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_BOTTOM_UP,
					   .skew = PAGE, .alignment = 4 * PAGE,
					   .boundary = 4 * PAGE));
		break;
	case 5:
		allocate_twice(twin, space, 2 * PAGE,
			       CONSTRAINTS(UINT64_MAX, .placement = DMACORE_IOVA_EXACT,
					   .first = STEP_BASE + 5 * PAGE));
		break;
	case 6:
	case 7:
		/* The lowest one that was allocated, or the highest. */
		for (size_t i = 0; i < twin->count; i++)
			if (!twin->ranges[i].is_reserved && (step == 7 || allocated == 0))
				allocated = i + 1;
		if (allocated)
			free_twice(twin, space, allocated - 1);
		break;
	case 8:
		assert_ok(dmacore_iova_space_drain(space));
		break;
	default:
		if (twin_unreserve(twin, first, last))
			reserve_twice(twin, space, first, last);
		else
			assert_ok(dmacore_iova_space_unreserve(space, first, last));
		break;
	}
}

static void check_histories(bool has_caches)
{
	unsigned length = thinned(6, 3), histories = 1;
	struct dmacore_iova_space *space;
	struct twin twin;

	for (unsigned i = 0; i < length; i++)
		histories *= STEPS;
	space = make_twins(&twin, has_caches, PAGE, STEP_BASE, STEP_BASE + STEP_PAGES * PAGE - 1);
	for (unsigned history = 0; history < histories; history++) {
		unsigned rest = history;

		for (unsigned i = 0; i < length; i++, rest /= STEPS)
			take_step(&twin, space, rest % STEPS);
		compare(&twin, space);
		/* To make a space takes longer than to empty one. */
		while (twin.count)
			free_twice(&twin, space, 0);
		assert_ok(dmacore_iova_space_drain(space));
	}
	assert_int_equal(read_statistics(space).refused_frees, 0);
	dmacore_iova_space_destroy(space);
}

static void iova_space_allocate__is_right_after_every_short_history(void **state)
{
	(void)state;
	check_histories(false);
}

static void iova_space_allocate__is_valid_after_every_short_history_of_caches(void **state)
{
	(void)state;
	check_histories(true);
}

/* Whatever came and went, the space holds as much as before. */

#define FULL_PAGES 2048

struct filled {
	struct dmacore_iova_space *space;
	uint64_t size;
	unsigned count;
	dmacore_iova_t iova[FULL_PAGES];
	/* How many frees were refused. */
	unsigned wrong;
};

static void fill_up(struct filled *filled)
{
	int error;

	filled->count = 0;
	while ((error = dmacore_iova_space_allocate(filled->space, filled->size, 0, UINT64_MAX,
						    &filled->iova[filled->count])) == 0)
		if (++filled->count == FULL_PAGES)
			break;
	assert_true(filled->count == FULL_PAGES || error == -ENOSPC);
	assert_int_equal(filled->count, FULL_PAGES * PAGE / filled->size);
	assert_allocates_nothing(filled->space, filled->size, 0, UINT64_MAX, ENOSPC);
}

static int by_address(const void *a, const void *b)
{
	dmacore_iova_t left = *(const dmacore_iova_t *)a, right = *(const dmacore_iova_t *)b;

	return (left > right) - (left < right);
}

/* Orders: up, down, at random, and in strides. */
#define ORDERS 4

static void put_in_order(struct filled *filled, unsigned order, uint64_t seed)
{
	static dmacore_iova_t sorted[FULL_PAGES];
	unsigned count = filled->count;

	qsort(filled->iova, count, sizeof(*filled->iova), by_address);
	memcpy(sorted, filled->iova, sizeof(sorted));
	for (unsigned i = 0; order == 1 && i < count; i++)
		filled->iova[i] = sorted[count - 1 - i];
	for (unsigned i = 0; order == 2 && i < count; i++) {
		unsigned j = random_next(&seed) % (i + 1);

		filled->iova[i] = filled->iova[j];
		filled->iova[j] = sorted[i];
	}
	for (unsigned start = 0, i = 0; order == 3 && start < 7; start++)
		for (unsigned at = start; at < count; at += 7)
			filled->iova[i++] = sorted[at];
}

static void *free_all(void *opaque)
{
	struct filled *filled = opaque;

	for (unsigned i = 0; i < filled->count; i++)
		filled->wrong +=
			dmacore_iova_space_free(filled->space, filled->iova[i], filled->size) != 0;
	return NULL;
}

static void check_conservation(uint32_t flags, bool has_thread)
{
	static struct filled filled;

	memset(&filled, 0, sizeof(filled));
	filled.space = make_space_with(flags, PAGE, 4 * GIB - FULL_PAGES / 4 * PAGE,
				       4 * GIB + FULL_PAGES / 4 * 3 * PAGE - 1);
	for (unsigned round = 0; round < 4 * ORDERS; round++) {
		/* Of all sizes but one caches hold what the next round needs for another. */
		filled.size = PAGE << round / ORDERS;
		fill_up(&filled);
		put_in_order(&filled, round % ORDERS, round);
		if (has_thread) {
			pthread_t thread;

			assert_int_equal(pthread_create(&thread, NULL, free_all, &filled), 0);
			assert_int_equal(pthread_join(thread, NULL), 0);
		} else {
			free_all(&filled);
		}
		assert_int_equal(filled.wrong, 0);
		assert_int_equal(read_statistics(filled.space).allocated_count, 0);
		assert_int_equal(read_statistics(filled.space).free_bytes, FULL_PAGES * PAGE);
	}
	/* And all of it at once. */
	assert_allocates(filled.space, FULL_PAGES * PAGE, 0, UINT64_MAX,
			 4 * GIB - FULL_PAGES / 4 * PAGE);
	assert_int_equal(read_statistics(filled.space).refused_frees, 0);
	dmacore_iova_space_destroy(filled.space);
}

static void iova_space_free__conserves_the_space(void **state)
{
	(void)state;
	check_conservation(DMACORE_IOVA_SPACE_CHECKED, false);
}

static void iova_space_free__conserves_the_space_through_caches(void **state)
{
	(void)state;
	check_conservation(0, false);
}

static void iova_space_free__conserves_the_space_from_other_threads(void **state)
{
	(void)state;
	check_conservation(DMACORE_IOVA_SPACE_CHECKED, true);
	check_conservation(0, true);
}

/* Long random runs beside the twin. */

static void random_allocation(struct twin *twin, struct dmacore_iova_space *space, uint64_t *seed)
{
	struct dmacore_iova_constraints c = DMACORE_IOVA_CONSTRAINTS_INIT;
	const uint64_t granule = (uint64_t)twin->granule;
	const wide granules = (twin->end - twin->start) / granule;
	uint64_t random = random_next(seed), count;

	count = random % 3 ? UINT64_C(1) << (random >> 8) % 4 : 1 + (random >> 8) % 24;
	random = random_next(seed);
	if (random % 4 == 0)
		c.alignment = granule << (random >> 4) % 6;
	if (random % 16 == 0 && c.alignment > granule)
		c.skew = ((random >> 8) * granule) & (c.alignment - 1);
	if (random % 16 == 1)
		for (c.boundary = granule; c.boundary < count * granule;)
			c.boundary *= 2;
	if (random % 16 < 3)
		c.placement = (random >> 16) % 4;
	random = random_next(seed);
	/* Half of all may go anywhere; a quarter is of a device of 32 bits, or has other ends. */
	if (random % 4 == 0)
		c.last = random & 16 ? UINT32_MAX :
				       (uint64_t)twin->start +
					       (random >> 8) % (uint64_t)granules * granule +
					       (random >> 5) % 2;
	if (random % 16 == 1 || c.placement == DMACORE_IOVA_EXACT)
		c.first = (uint64_t)twin->start + random_next(seed) % (uint64_t)granules * granule;
	if (c.first > c.last)
		c.last = UINT64_MAX;
	allocate_twice(twin, space, count * granule - (random >> 60) % granule, &c);
}

static void run_random(bool has_caches, uint64_t granule, uint64_t first, uint64_t last,
		       uint64_t seed, unsigned steps)
{
	struct twin twin;
	struct dmacore_iova_space *space = make_twins(&twin, has_caches, granule, first, last);
	unsigned most = 0;

	print_message("seed %#lx: %u steps, caches: %d, %#lx to %#lx\n", (unsigned long)seed, steps,
		      has_caches, (unsigned long)first, (unsigned long)last);
	for (unsigned step = 0; step < steps; step++) {
		unsigned choice = random_next(&seed) % 64;

		/* Phases of growth and of shrinking, so that the space is full at times. */
		if (step % 512 == 0)
			most = 8 + random_next(&seed) % 128;
		if (choice == 0 && twin.count < TWIN_MAX) {
			uint64_t from = (uint64_t)(twin.start + random_next(&seed) % 64 * granule);

			reserve_twice(&twin, space, from,
				      from + (random_next(&seed) % 4 + 1) * granule - 1);
		} else if (choice == 1) {
			assert_ok(dmacore_iova_space_drain(space));
			compare(&twin, space);
		} else if (choice < 36 && twin.count < most) {
			random_allocation(&twin, space, &seed);
		} else if (twin.count) {
			free_twice(&twin, space, random_next(&seed) % twin.count);
		}
		if (step % 64 == 0)
			compare(&twin, space);
	}
	while (twin.count)
		free_twice(&twin, space, twin.count - 1);
	compare(&twin, space);
	assert_int_equal(read_statistics(space).refused_frees, 0);
	dmacore_iova_space_destroy(space);
}

static void check_random_runs(bool has_caches)
{
	const unsigned steps = thinned(125000, 1500);

	for (uint64_t seed = 1; seed <= 4; seed++) {
		run_random(has_caches, PAGE, 0, (UINT64_C(1) << 48) - 1, seed, steps);
		run_random(has_caches, PAGE, 4 * GIB - 64 * PAGE, 4 * GIB + 128 * PAGE - 1, seed,
			   steps);
		run_random(has_caches, PAGE, 16 * PAGE, 112 * PAGE - 1, seed, steps);
		/* The top of the 64-bit space, in bytes and in large granules. */
		run_random(has_caches, 1, UINT64_MAX - 95, UINT64_MAX, seed, steps / 2);
		run_random(has_caches, UINT64_C(1) << 56, UINT64_C(160) << 56, UINT64_MAX, seed,
			   steps / 2);
	}
}

static void iova_space_allocate__agrees_with_a_naive_twin(void **state)
{
	(void)state;
	check_random_runs(false);
}

static void iova_space_allocate__is_valid_for_a_naive_twin_through_caches(void **state)
{
	(void)state;
	check_random_runs(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space_allocate_with__is_right_in_every_small_space),
		cmocka_unit_test(iova_space_allocate__is_right_after_every_short_history),
		cmocka_unit_test(iova_space_allocate__is_valid_after_every_short_history_of_caches),
		cmocka_unit_test(iova_space_free__conserves_the_space),
		cmocka_unit_test(iova_space_free__conserves_the_space_through_caches),
		cmocka_unit_test(iova_space_free__conserves_the_space_from_other_threads),
		cmocka_unit_test(iova_space_allocate__agrees_with_a_naive_twin),
		cmocka_unit_test(iova_space_allocate__is_valid_for_a_naive_twin_through_caches),
	};

	return run_group("iova exhaustive", tests);
}
