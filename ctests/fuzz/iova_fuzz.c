/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One IOVA space against a naive twin: a sorted array of ranges, searched from end to end. Of a
 * checked space the two must agree on every result, every address and every number. Of one with
 * caches the twin tells which results may be; there no wrong free goes into a cache.
 */

#include "../support/iova_twin.h"
#include "fuzz.h"

#include <inttypes.h>
#include <stdio.h>

/* canary_fuzz.c sets it and thereby makes the twin forget that it freed ranges of this size. */
#ifndef FORGETTABLE_GRANULES
#define FORGETTABLE_GRANULES 0
#endif

static void check_right(const char *wrong)
{
	if (wrong != NULL)
		fuzz_fail(__FILE__, __LINE__, wrong);
}

static int forgetful_free(struct twin *twin, uint64_t iova, uint64_t size)
{
	wide length = rule_round_up(size, twin->granule);

	if (length == FORGETTABLE_GRANULES * twin->granule && length != 0)
		return 0;
	return twin_free(twin, iova, size);
}

/* Whether a cache may take it, so that a wrong one would not be refused at once. */
static bool is_cacheable(const struct twin *twin, uint64_t iova, uint64_t size)
{
	wide length = rule_round_up(size, twin->granule);

	return twin->has_caches && rule_is_power(length) && (iova & (length - 1)) == 0 &&
	       iova >= twin->start && iova + length <= twin->end;
}

static bool is_allocated(const struct twin *twin, uint64_t iova, uint64_t size)
{
	struct twin copy = *twin;

	return twin_free(&copy, iova, size) == 0;
}

static void check_statistics(const struct twin *twin, struct dmacore_iova_space *space)
{
	struct dmacore_iova_space_statistics got = { .struct_size = sizeof(got) };

	CHECK(dmacore_iova_space_statistics(space, &got) == 0);
	check_right(twin_compare(twin, &got));
}

/* A visit, which must show what the twin has. */
struct visit {
	const struct twin *twin;
	/* The range that comes next, and the granule at which the visit is. */
	size_t index;
	wide at;
	unsigned int left;
};

static bool check_range(dmacore_iova_t first, dmacore_iova_t last, uint32_t use, void *opaque)
{
	struct visit *visit = opaque;
	const struct twin *twin = visit->twin;
	wide start = first / twin->granule, end = ((wide)last + 1) / twin->granule;

	CHECK(start == visit->at && first % twin->granule == 0);
	CHECK(end > start && ((wide)last + 1) % twin->granule == 0);
	if (use == DMACORE_IOVA_FREE) {
		CHECK(visit->index == twin->count ? end * twin->granule == twin->end :
						    end == twin->ranges[visit->index].start);
	} else {
		const struct twin_range *range = &twin->ranges[visit->index++];

		CHECK(visit->index <= twin->count);
		CHECK(range->start == start && range->end == end);
		CHECK(use == (range->is_reserved ? DMACORE_IOVA_RESERVED : DMACORE_IOVA_ALLOCATED));
	}
	visit->at = end;
	return --visit->left != 0;
}

static void check_visit(const struct twin *twin, struct dmacore_iova_space *space,
			unsigned int most)
{
	struct visit visit = { twin, 0, twin->start / twin->granule, most };

	CHECK(dmacore_iova_space_visit(space, check_range, &visit) == 0);
	CHECK(visit.left == 0 || visit.at * twin->granule == twin->end);
	CHECK(visit.left == 0 || visit.index == twin->count);
}

static void check_line(const char *line, void *opaque)
{
	(void)opaque;
	CHECK(strlen(line) < 256 && strchr(line, '\n') == NULL);
}

static void check_report(const struct dmacore_report *report, void *opaque)
{
	unsigned int *count = opaque;

	CHECK(report->level == DMACORE_REPORT_ERROR && report->error == EINVAL);
	++*count;
}

/* An address near something: an end of a range, an end of the space, or anywhere. */
static uint64_t take_address(struct program *program, const struct twin *twin)
{
	uint8_t how = take8(program);
	wide granules = (how >> 3) * twin->granule;
	const struct twin_range *range;

	switch (how & 7) {
	case 0:
	case 1:
	case 2:
		if (twin->count != 0) {
			range = &twin->ranges[take8(program) % twin->count];
			return (uint64_t)((how & 1) != 0 ? range->end * twin->granule + granules :
							   range->start * twin->granule - granules);
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

/* Constraints of every kind, most of which make sense. */
static struct dmacore_iova_constraints take_constraints(struct program *program,
							const struct twin *twin)
{
	struct dmacore_iova_constraints constraints = DMACORE_IOVA_CONSTRAINTS_INIT;
	uint8_t how = take8(program), shifts = take8(program);

	constraints.placement = how & 3;
	if ((how & 4) != 0)
		constraints.alignment = (uint64_t)(twin->granule << (shifts & 7));
	if ((how & 8) != 0)
		constraints.skew =
			(uint64_t)((take8(program) * twin->granule) & (constraints.alignment - 1));
	if ((how & 16) != 0)
		constraints.boundary = (uint64_t)(twin->granule << (shifts >> 4 & 15));
	if ((how & 32) != 0 || constraints.placement == DMACORE_IOVA_EXACT)
		constraints.first = take_address(program, twin);
	if ((how & 64) != 0)
		constraints.last = take_address(program, twin) - 1;
	if ((how & 128) != 0) {
		/* Anything. */
		switch (take8(program) & 3) {
		case 0:
			constraints.alignment = take_number(program);
			break;
		case 1:
			constraints.skew = take_number(program);
			break;
		case 2:
			constraints.boundary = take_number(program);
			break;
		default:
			constraints.placement = take8(program);
			break;
		}
	}
	return constraints;
}

static struct dmacore_iova_space *make_space(struct program *program, struct twin *twin,
					     unsigned int *reports)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space = NULL;
	uint8_t kind = take8(program);

	options.granule = kind & 1 ? UINT64_C(1) << (take8(program) & 63) : 0;
	options.flags = kind & 8 ? 0 : DMACORE_IOVA_SPACE_CHECKED;
	options.report = check_report;
	options.report_opaque = reports;
	twin->granule = options.granule == 0 ? 4096 : options.granule;
	twin->has_caches = options.flags == 0;
	twin->start = 0;
	twin->end = (wide)UINT64_MAX + 1;
	/* A small window makes full and fragmented spaces likely. */
	wide small = (1 + take8(program)) * twin->granule;

	if ((kind & 2) != 0 && small < twin->end) {
		const wide zone = (wide)1 << 32;

		if ((kind & 4) != 0)
			twin->start = twin->end - small;
		else
			twin->end = small;
		/* Around 4 GiB. */
		if ((kind & 16) != 0 && twin->granule <= zone >> 3) {
			twin->start = zone - (kind >> 5) * twin->granule;
			twin->end = twin->start + small;
		}
	}
	options.first = (uint64_t)twin->start;
	options.last = (uint64_t)(twin->end - 1);
	/* A space of the byte at 0 alone cannot be asked for: 0 stands for all of it. */
	if (options.last == 0)
		twin->end = (wide)UINT64_MAX + 1;
	twin->count = 0;
	fuzz_trace("create(granule %#" PRIx64 ", %#" PRIx64 " to %#" PRIx64 ", flags %u)",
		   options.granule, options.first, options.last, options.flags);
	CHECK(dmacore_iova_space_create(&options, &space) == 0);
	return space;
}

/* The call is made with memory that may fail; @got is its result. */
static bool has_run_out(struct twin *twin, const struct twin *before, int got)
{
	if (!allocation_has_failed() || got != -ENOMEM)
		return false;
	*twin = *before;
	return true;
}

static void allocate(struct program *program, struct twin *twin, struct dmacore_iova_space *space,
		     uint8_t call)
{
	const uint64_t untouched = 0x5a5a5a5a5a5a5a5a;
	struct dmacore_iova_constraints constraints = DMACORE_IOVA_CONSTRAINTS_INIT;
	uint64_t size = take_size(program, twin), iova = untouched;
	bool has_failed;
	int got;

	if ((call & 7) < 2) {
		constraints = take_constraints(program, twin);
		got = dmacore_iova_space_allocate_with(space, size, &constraints, &iova);
	} else {
		constraints.alignment = call & 8 ? take_number(program) : 0;
		constraints.last = call & 16 ? take_address(program, twin) - 1 : UINT64_MAX;
		got = dmacore_iova_space_allocate(space, size, constraints.alignment,
						  constraints.last, &iova);
	}
	fuzz_trace("allocate(%#" PRIx64 ", placement %u, alignment %#" PRIx64 ", skew %#" PRIx64
		   ", boundary %#" PRIx64 ", %#" PRIx64 " to %#" PRIx64 ") = %d at %#" PRIx64,
		   size, constraints.placement, constraints.alignment, constraints.skew,
		   constraints.boundary, constraints.first, constraints.last, got, iova);
	has_failed = allocation_has_failed();
	CHECK(got == 0 || iova == untouched);
	if (!has_failed || got != -ENOMEM)
		check_right(twin_allocate(twin, size, &constraints, got, iova));
}

static void release(struct program *program, struct twin *twin, struct dmacore_iova_space *space,
		    uint8_t call, unsigned int *reports)
{
	uint64_t first = take_address(program, twin), size = take_size(program, twin);
	unsigned int reported = *reports;
	int expected, got;

	if (((call & 8) != 0 || twin->has_caches) && twin->count != 0) {
		const struct twin_range *range = &twin->ranges[take8(program) % twin->count];

		first = (uint64_t)(range->start * twin->granule);
		size = (uint64_t)((range->end - range->start) * twin->granule);
	}
	if (is_cacheable(twin, first, size) && !is_allocated(twin, first, size))
		return;
	expected = forgetful_free(twin, first, size);
	got = dmacore_iova_space_free(space, first, size);
	fuzz_trace("free(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", first, size, got,
		   expected);
	CHECK(got == expected);
	CHECK(*reports == reported + (got != 0));
}

/* What changes nothing. */
static void look(struct program *program, const struct twin *twin, struct dmacore_iova_space *space)
{
	uint64_t first, last, bytes;

	switch (take8(program) & 3) {
	case 0:
		fuzz_trace("drain()");
		CHECK(dmacore_iova_space_drain(space) == 0);
		break;
	case 1:
		fuzz_trace("visit()");
		check_visit(twin, space, take8(program));
		break;
	case 2:
		fuzz_trace("dump()");
		CHECK(dmacore_iova_space_dump(space, check_line, NULL) == 0);
		break;
	default:
		first = take_address(program, twin);
		last = take_address(program, twin) - 1;
		fuzz_trace("largest_free(%#" PRIx64 ", %#" PRIx64 ")", first, last);
		CHECK(dmacore_iova_space_drain(space) == 0);
		if (first > last) {
			CHECK(dmacore_iova_space_largest_free(space, first, last, &bytes) ==
			      -EINVAL);
			break;
		}
		CHECK(dmacore_iova_space_largest_free(space, first, last, &bytes) == 0);
		CHECK(bytes == twin_largest_free(twin, first, last));
		break;
	}
}

/* Makes the same call on both sides and compares. */
static void step(struct program *program, struct twin *twin, struct dmacore_iova_space *space,
		 unsigned int *reports)
{
	uint8_t call = take8(program);
	struct twin before = *twin;
	uint64_t first, last;
	int expected, got;

	if ((call & 0xc0) == 0xc0)
		allocation_fail_after(call >> 4 & 3);
	switch (call & 7) {
	default:
		allocate(program, twin, space, call);
		break;
	case 4:
	case 5:
		release(program, twin, space, call, reports);
		break;
	case 6:
		first = take_address(program, twin);
		last = call & 8 ? take_address(program, twin) - 1 :
				  first + take_size(program, twin) - 1;
		expected = twin_reserve(twin, first, last);
		got = dmacore_iova_space_reserve(space, first, last);
		fuzz_trace("reserve(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", first, last,
			   got, expected);
		CHECK(has_run_out(twin, &before, got) || got == expected);
		break;
	case 7:
		if ((call & 8) != 0) {
			look(program, twin, space);
			break;
		}
		first = take_address(program, twin);
		last = first + take_size(program, twin) - 1;
		expected = twin_unreserve(twin, first, last);
		got = dmacore_iova_space_unreserve(space, first, last);
		fuzz_trace("unreserve(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", first, last,
			   got, expected);
		CHECK(got == expected);
		break;
	}
	(void)allocation_has_failed();
	check_statistics(twin, space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct program program = { data, data + size };
	struct dmacore_iova_space *space;
	unsigned int reports = 0;
	struct twin twin;

	allocation_begin();
	space = make_space(&program, &twin, &reports);
	while (!program_is_over(&program) && twin.count < TWIN_MAX)
		step(&program, &twin, space, &reports);
	check_visit(&twin, space, UINT32_MAX);
	dmacore_iova_space_destroy(space);
	CHECK(allocation_end() == 0);
	return 0;
}
