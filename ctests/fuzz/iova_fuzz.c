/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One IOVA space against a naive twin: a sorted array of ranges, searched from end to end. The two
 * must agree on every result, every address and every number.
 */

#include <dmacore/iova.h>

#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define RANGES_MAX 256

/* canary_fuzz.c sets it and thereby makes the twin forget that it freed ranges of this size. */
#ifndef FORGETTABLE_GRANULES
#define FORGETTABLE_GRANULES 0
#endif

/* Holds 2^64, which spares the twin every thought about overflow. */
__extension__ typedef unsigned __int128 wide;

struct range {
	wide start;
	wide end;
	bool is_reserved;
};

struct twin {
	wide granule;
	wide start;
	wide end;
	size_t count;
	/* Sorted by address; no two overlap. */
	struct range ranges[RANGES_MAX];
};

static bool is_power_of_two(wide value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

static wide round_up(wide value, wide multiple)
{
	return (value + multiple - 1) / multiple * multiple;
}

static uint64_t saturated(wide value)
{
	return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

static void twin_insert(struct twin *twin, wide start, wide end, bool is_reserved)
{
	size_t index = twin->count++;

	for (; index > 0 && twin->ranges[index - 1].start > start; index--)
		twin->ranges[index] = twin->ranges[index - 1];
	twin->ranges[index] = (struct range){ start, end, is_reserved };
}

static bool twin_remove(struct twin *twin, wide start, wide end, bool is_reserved)
{
	for (size_t i = 0; i < twin->count; i++) {
		struct range *range = &twin->ranges[i];

		if (range->start != start || range->end != end || range->is_reserved != is_reserved)
			continue;
		twin->count--;
		memmove(range, range + 1, (twin->count - i) * sizeof(*range));
		return true;
	}
	return false;
}

/* The free ranges, from the top down; @index counts from 0 to the number of ranges in use. */
static void twin_hole(const struct twin *twin, size_t index, wide *out_start, wide *out_end)
{
	size_t above = twin->count - index;

	*out_end = above == twin->count ? twin->end : twin->ranges[above].start;
	*out_start = above == 0 ? twin->start : twin->ranges[above - 1].end;
}

static int twin_allocate(struct twin *twin, uint64_t size, uint64_t alignment, uint64_t limit,
			 uint64_t *out_iova)
{
	wide length = round_up(size, twin->granule);
	wide multiple = alignment > twin->granule ? alignment : twin->granule;

	if (size == 0 || length > UINT64_MAX || (alignment != 0 && !is_power_of_two(alignment)))
		return -EINVAL;
	for (size_t i = 0; i <= twin->count; i++) {
		wide start, end;

		twin_hole(twin, i, &start, &end);
		if (end > (wide)limit + 1)
			end = (wide)limit + 1;
		if (end < start + length)
			continue;
		wide place = (end - length) / multiple * multiple;

		if (place < start)
			continue;
		twin_insert(twin, place, place + length, false);
		*out_iova = (uint64_t)place;
		return 0;
	}
	return -ENOSPC;
}

static int twin_free(struct twin *twin, uint64_t iova, uint64_t size)
{
	wide length = round_up(size, twin->granule);

	if (length == FORGETTABLE_GRANULES * twin->granule && length != 0)
		return 0;
	return twin_remove(twin, iova, iova + length, false) ? 0 : -EINVAL;
}

static int twin_reserve(struct twin *twin, uint64_t first, uint64_t last)
{
	wide start = first;
	wide end = (wide)last + 1;

	if (end <= start || start % twin->granule != 0 || end % twin->granule != 0)
		return -EINVAL;
	if (start < twin->start || end > twin->end)
		return -ERANGE;
	for (size_t i = 0; i < twin->count; i++)
		if (twin->ranges[i].start < end && start < twin->ranges[i].end)
			return -EBUSY;
	twin_insert(twin, start, end, true);
	return 0;
}

static void check_statistics(const struct twin *twin, struct dmacore_iova_space *space)
{
	struct dmacore_iova_space_statistics got = { .struct_size = sizeof(got) };
	uint64_t counts[2] = { 0, 0 };
	wide bytes[2] = { 0, 0 };
	wide largest = 0;

	for (size_t i = 0; i < twin->count; i++) {
		counts[twin->ranges[i].is_reserved]++;
		bytes[twin->ranges[i].is_reserved] += twin->ranges[i].end - twin->ranges[i].start;
	}
	for (size_t i = 0; i <= twin->count; i++) {
		wide start, end;

		twin_hole(twin, i, &start, &end);
		if (end - start > largest)
			largest = end - start;
	}
	CHECK(dmacore_iova_space_statistics(space, &got) == 0);
	CHECK(got.allocated_count == counts[0]);
	CHECK(got.allocated_bytes == saturated(bytes[0]));
	CHECK(got.reserved_count == counts[1]);
	CHECK(got.reserved_bytes == saturated(bytes[1]));
	CHECK(got.free_bytes == saturated(twin->end - twin->start - bytes[0] - bytes[1]));
	CHECK(got.largest_free_bytes == saturated(largest));
}

/* An address near something: an end of a range, an end of the space, or anywhere. */
static uint64_t take_address(struct program *program, const struct twin *twin)
{
	uint8_t how = take8(program);
	wide granules = (how >> 3) * twin->granule;
	const struct range *range;

	switch (how & 7) {
	case 0:
	case 1:
	case 2:
		if (twin->count != 0) {
			range = &twin->ranges[take8(program) % twin->count];
			return (uint64_t)((how & 1) != 0 ? range->end + granules :
							   range->start - granules);
		}
		return (uint64_t)(twin->start + granules);
	case 3:
	case 4:
		return (uint64_t)(twin->start + take8(program) * twin->granule);
	case 5:
	case 6:
		return (uint64_t)(twin->end - take8(program) * twin->granule);
	default:
		return take_number(program);
	}
}

static uint64_t take_size(struct program *program, const struct twin *twin)
{
	uint8_t how = take8(program);

	switch (how >> 6) {
	case 0:
	case 1:
		return (uint64_t)((how & 15) * twin->granule);
	case 2:
		/* Rounded up to the granule by both sides. */
		return (uint64_t)((how & 15) * twin->granule) - take8(program);
	default:
		return take_number(program);
	}
}

static struct dmacore_iova_space *make_space(struct program *program, struct twin *twin)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space = NULL;
	uint8_t kind = take8(program);

	options.granule = kind & 1 ? UINT64_C(1) << (take8(program) & 63) : 0;
	twin->granule = options.granule == 0 ? 4096 : options.granule;
	twin->start = 0;
	twin->end = (wide)UINT64_MAX + 1;
	/* A small window makes full and fragmented spaces likely. */
	wide small = (1 + take8(program)) * twin->granule;

	if ((kind & 2) != 0 && small < twin->end) {
		if ((kind & 4) != 0)
			twin->start = twin->end - small;
		else
			twin->end = small;
	}
	options.first = (uint64_t)twin->start;
	options.last = (uint64_t)(twin->end - 1);
	/* A space of the byte at 0 alone cannot be asked for: 0 stands for all of it. */
	if (options.last == 0)
		twin->end = (wide)UINT64_MAX + 1;
	twin->count = 0;
	fuzz_trace("create(granule %#" PRIx64 ", %#" PRIx64 " to %#" PRIx64 ")", options.granule,
		   options.first, options.last);
	CHECK(dmacore_iova_space_create(&options, &space) == 0);
	return space;
}

/* Makes the same call on both sides and compares. */
static void step(struct program *program, struct twin *twin, struct dmacore_iova_space *space)
{
	const uint64_t untouched = 0x5a5a5a5a5a5a5a5a;
	uint64_t first, last, size, alignment, limit;
	uint64_t expected_iova = untouched, iova = untouched;
	uint8_t call = take8(program);
	struct twin before;
	int expected, got;

	if ((call & 0xc0) == 0xc0) {
		before = *twin;
		allocation_fail_after(call >> 4 & 3);
	}
	switch (call & 7) {
	default:
		size = take_size(program, twin);
		alignment = call & 8 ? take_number(program) : 0;
		limit = call & 16 ? take_address(program, twin) - 1 : UINT64_MAX;
		expected = twin_allocate(twin, size, alignment, limit, &expected_iova);
		got = dmacore_iova_space_allocate(space, size, alignment, limit, &iova);
		fuzz_trace("allocate(%#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ") = %d at %#" PRIx64
			   ", expected %d at %#" PRIx64,
			   size, alignment, limit, got, iova, expected, expected_iova);
		break;
	case 4:
	case 5:
		first = take_address(program, twin);
		size = take_size(program, twin);
		if ((call & 8) != 0 && twin->count != 0) {
			const struct range *range = &twin->ranges[take8(program) % twin->count];

			first = (uint64_t)range->start;
			size = (uint64_t)(range->end - range->start);
		}
		expected = twin_free(twin, first, size);
		got = dmacore_iova_space_free(space, first, size);
		fuzz_trace("free(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", first, size, got,
			   expected);
		break;
	case 6:
		first = take_address(program, twin);
		last = call & 8 ? take_address(program, twin) - 1 :
				  first + take_size(program, twin) - 1;
		expected = twin_reserve(twin, first, last);
		got = dmacore_iova_space_reserve(space, first, last);
		fuzz_trace("reserve(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", first, last,
			   got, expected);
		break;
	case 7:
		first = take_address(program, twin);
		last = first + take_size(program, twin) - 1;
		expected = twin_remove(twin, first, (wide)last + 1, true) ? 0 : -EINVAL;
		got = dmacore_iova_space_unreserve(space, first, last);
		fuzz_trace("unreserve(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", first, last,
			   got, expected);
		break;
	}
	if (allocation_has_failed() && got == -ENOMEM) {
		*twin = before;
		CHECK(iova == untouched);
	} else {
		CHECK(got == expected);
		CHECK(iova == expected_iova);
	}
	check_statistics(twin, space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct program program = { data, data + size };
	struct dmacore_iova_space *space;
	struct twin twin;

	allocation_begin();
	space = make_space(&program, &twin);
	while (!program_is_over(&program) && twin.count < RANGES_MAX)
		step(&program, &twin, space);
	dmacore_iova_space_destroy(space);
	CHECK(allocation_end() == 0);
	return 0;
}
