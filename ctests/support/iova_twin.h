/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_IOVA_TWIN_H
#define SUPPORT_IOVA_TWIN_H

/*
 * A naive twin of an IOVA space, which the tests and the fuzzers compare the library with: a sorted
 * array of ranges, and free ranges that are looked at from end to end. Of a checked space it tells
 * every result and every address; of one with caches it tells whether a result may be.
 */

#include <dmacore/iova.h>

#include <errno.h>
#include <string.h>

/* Holds 2^64, which spares the rule every thought about overflow. */
__extension__ typedef unsigned __int128 wide;

/* Free granules, of which @end is the first that is not. */
struct rule_gap {
	wide start;
	wide end;
};

/* What a call asks for, in granules, and the part of the space that it may lie in. */
struct rule_request {
	wide size;
	wide alignment;
	wide skew;
	/* 0: none. */
	wide boundary;
	wide start;
	wide end;
	uint32_t placement;
};

static inline bool rule_is_power(wide value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

/* All multiples are of powers of two here. */
static inline wide rule_round_up(wide value, wide multiple)
{
	return (value + multiple - 1) & ~(multiple - 1);
}

/* The request of a call in a space of the bytes @start up to @end, or a negated errno value. */
static inline int rule_request(wide granule, wide start, wide end, uint64_t size,
			       const struct dmacore_iova_constraints *constraints,
			       struct rule_request *request)
{
	wide length = rule_round_up(size, granule);
	wide alignment = constraints->alignment > granule ? constraints->alignment : granule;
	wide first = constraints->first, stop = (wide)constraints->last + 1;

	if (size == 0 || length > UINT64_MAX || !rule_is_power(alignment) ||
	    (constraints->alignment != 0 && !rule_is_power(constraints->alignment)) ||
	    constraints->skew >= alignment || constraints->skew % granule != 0 ||
	    (constraints->boundary != 0 &&
	     (!rule_is_power(constraints->boundary) || constraints->boundary < length)) ||
	    constraints->first > constraints->last || constraints->placement > DMACORE_IOVA_EXACT ||
	    (constraints->placement == DMACORE_IOVA_EXACT && first % granule != 0))
		return -EINVAL;
	if (constraints->placement == DMACORE_IOVA_EXACT) {
		if (stop - first < length)
			return -ENOSPC;
		stop = first + length;
	}
	first = first > start ? first : start;
	stop = stop < end ? stop : end;
	*request = (struct rule_request){
		.size = length / granule,
		.alignment = alignment / granule,
		.skew = constraints->skew / granule,
		.boundary = constraints->boundary / granule,
		.start = rule_round_up(first, granule) / granule,
		.end = stop / granule,
		.placement = constraints->placement,
	};
	return request->end >= request->start + request->size ? 0 : -ENOSPC;
}

/* Whether a place fulfils the request, whatever is in use. */
static inline bool rule_permits(const struct rule_request *request, wide place)
{
	wide last = place + request->size - 1;

	if (place < request->start || last >= request->end)
		return false;
	if ((place & (request->alignment - 1)) != request->skew)
		return false;
	return request->boundary == 0 || ((place ^ last) & ~(request->boundary - 1)) == 0;
}

/* The best place in a gap. */
static inline bool rule_place(const struct rule_request *request, struct rule_gap gap, wide *out)
{
	wide start = gap.start > request->start ? gap.start : request->start;
	wide end = gap.end < request->end ? gap.end : request->end;
	bool is_bottom_up = request->placement == DMACORE_IOVA_BOTTOM_UP;

	/* A boundary that is in the way is stepped over once: the next is a stretch away. */
	for (int step = 0; step < 3; step++) {
		wide place, last;

		if (end < start + request->size)
			return false;
		place = is_bottom_up ?
				start + ((request->skew - start) & (request->alignment - 1)) :
				end - request->size -
					((end - request->size - request->skew) &
					 (request->alignment - 1));
		/* Modulo 2^128, below 0 is far above. */
		if (place < start || place > end - request->size)
			return false;
		if (rule_permits(request, place)) {
			*out = place;
			return true;
		}
		last = place + request->size - 1;
		if (is_bottom_up)
			start = last & ~(request->boundary - 1);
		else
			end = last & ~(request->boundary - 1);
	}
	return false;
}

static inline bool rule_holds_block(struct rule_gap gap, wide size)
{
	return rule_round_up(gap.start, size) + size <= gap.end;
}

/* Whether the size and the alignment find room in a gap whichever way it lies. */
static inline bool rule_is_sure(const struct rule_request *request, struct rule_gap gap)
{
	wide boundary = request->alignment > request->boundary ? 0 : request->boundary;
	wide sure = request->size + request->alignment - 1, block = 1;

	if (request->alignment == 1 && request->boundary == 0)
		return gap.end - gap.start >= request->size;
	if (request->alignment == request->size && request->skew == 0)
		return rule_holds_block(gap, request->size);
	if (boundary != 0)
		sure = 2 * sure < 2 * boundary - 1 ? 2 * sure : 2 * boundary - 1;
	while (block < request->size || block < request->alignment)
		block *= 2;
	return gap.end - gap.start >= sure || (request->skew == 0 && rule_holds_block(gap, block));
}

/* The place of a request among gaps, sorted from the lowest up: 0, or -ENOSPC. */
static inline int rule_find(const struct rule_request *request, const struct rule_gap *gaps,
			    size_t count, wide *out)
{
	bool is_bottom_up = request->placement == DMACORE_IOVA_BOTTOM_UP;

	for (int must_be_sure = 1; must_be_sure >= 0; must_be_sure--) {
		for (size_t i = 0; i < count; i++) {
			struct rule_gap gap = gaps[is_bottom_up ? i : count - 1 - i];

			if ((!must_be_sure || rule_is_sure(request, gap)) &&
			    rule_place(request, gap, out))
				return 0;
		}
	}
	return -ENOSPC;
}

/* Ranges in use at most. */
#define TWIN_MAX 256

struct twin_range {
	/* Granules. */
	wide start;
	wide end;
	bool is_reserved;
};

struct twin {
	/* Bytes. */
	wide granule;
	wide start;
	wide end;
	bool has_caches;
	size_t count;
	/* Sorted by address; no two overlap. */
	struct twin_range ranges[TWIN_MAX];
};

static inline void twin_insert(struct twin *twin, wide start, wide end, bool is_reserved)
{
	size_t index = twin->count++;

	for (; index > 0 && twin->ranges[index - 1].start > start; index--)
		twin->ranges[index] = twin->ranges[index - 1];
	twin->ranges[index] = (struct twin_range){ start, end, is_reserved };
}

/* Takes out the range of exactly these bytes, if it is there. */
static inline bool twin_remove(struct twin *twin, wide start, wide end, bool is_reserved)
{
	for (size_t i = 0; i < twin->count; i++) {
		struct twin_range *range = &twin->ranges[i];

		if (range->start * twin->granule != start || range->end * twin->granule != end ||
		    range->is_reserved != is_reserved)
			continue;
		twin->count--;
		memmove(range, range + 1, (twin->count - i) * sizeof(*range));
		return true;
	}
	return false;
}

static inline size_t twin_gaps(const struct twin *twin, struct rule_gap gaps[TWIN_MAX + 1])
{
	wide start = twin->start / twin->granule;
	size_t count = 0;

	for (size_t i = 0; i < twin->count; i++) {
		if (twin->ranges[i].start > start)
			gaps[count++] = (struct rule_gap){ start, twin->ranges[i].start };
		start = twin->ranges[i].end;
	}
	if (twin->end / twin->granule > start)
		gaps[count++] = (struct rule_gap){ start, twin->end / twin->granule };
	return count;
}

static inline bool twin_has_free(const struct twin *twin, wide start, wide end)
{
	if (start < twin->start / twin->granule || end > twin->end / twin->granule)
		return false;
	for (size_t i = 0; i < twin->count; i++)
		if (twin->ranges[i].start < end && start < twin->ranges[i].end)
			return false;
	return true;
}

/* Whether a request that reaches above 4 GiB, for any place, was given what is kept for others. */
static inline bool twin_is_wasteful(const struct twin *twin, const struct rule_request *request,
				    const struct rule_gap *gaps, size_t count, wide place)
{
	const wide zone = (wide)1 << 32;
	struct rule_request high = *request;
	wide other;

	if (request->placement != DMACORE_IOVA_ANYWHERE || place * twin->granule >= zone)
		return false;
	high.start = rule_round_up(zone, twin->granule) / twin->granule;
	if (high.start < request->start)
		high.start = request->start;
	return rule_find(&high, gaps, count, &other) == 0;
}

/*
 * Makes an allocation that has given @result and @iova here as well, and returns NULL, or what is
 * wrong with it.
 */
static inline const char *twin_allocate(struct twin *twin, uint64_t size,
					const struct dmacore_iova_constraints *constraints,
					int result, uint64_t iova)
{
	struct rule_gap gaps[TWIN_MAX + 1];
	struct rule_request request;
	size_t count = 0;
	wide place = 0;
	int expected =
		rule_request(twin->granule, twin->start, twin->end, size, constraints, &request);

	if (expected == 0) {
		count = twin_gaps(twin, gaps);
		expected = rule_find(&request, gaps, count, &place);
	}
	if (result != expected)
		return "the result is another";
	if (result != 0)
		return NULL;
	if (!twin->has_caches && place * twin->granule != iova)
		return "the place is another";
	if (iova % twin->granule != 0)
		return "the place is inside a granule";
	place = iova / twin->granule;
	if (!rule_permits(&request, place))
		return "the place is against the constraints";
	if (!twin_has_free(twin, place, place + request.size))
		return "the place is in use";
	if (twin->has_caches && twin_is_wasteful(twin, &request, gaps, count, place))
		return "the place is below 4 GiB, with room above";
	twin_insert(twin, place, place + request.size, false);
	return NULL;
}

/* What a free gives; one that a cache would take must be right. */
static inline int twin_free(struct twin *twin, uint64_t iova, uint64_t size)
{
	wide length = rule_round_up(size, twin->granule);

	return twin_remove(twin, iova, iova + length, false) ? 0 : -EINVAL;
}

static inline int twin_reserve(struct twin *twin, uint64_t first, uint64_t last)
{
	wide end = (wide)last + 1;

	if (end <= first || first % twin->granule != 0 || end % twin->granule != 0)
		return -EINVAL;
	if (first < twin->start || end > twin->end)
		return -ERANGE;
	if (!twin_has_free(twin, first / twin->granule, end / twin->granule))
		return -EBUSY;
	twin_insert(twin, first / twin->granule, end / twin->granule, true);
	return 0;
}

static inline int twin_unreserve(struct twin *twin, uint64_t first, uint64_t last)
{
	return twin_remove(twin, first, (wide)last + 1, true) ? 0 : -EINVAL;
}

static inline uint64_t twin_saturated(wide value)
{
	return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

/* The longest part of a gap between two addresses, both inside. */
static inline uint64_t twin_largest_free(const struct twin *twin, uint64_t first, uint64_t last)
{
	wide start = rule_round_up(first, twin->granule) / twin->granule;
	wide end = ((wide)last + 1) / twin->granule, longest = 0;
	struct rule_gap gaps[TWIN_MAX + 1];
	size_t count = twin_gaps(twin, gaps);

	for (size_t i = 0; i < count; i++) {
		wide from = gaps[i].start > start ? gaps[i].start : start;
		wide to = gaps[i].end < end ? gaps[i].end : end;

		if (to > from && to - from > longest)
			longest = to - from;
	}
	return twin_saturated(longest * twin->granule);
}

/* What the numbers of a space say that is not so, or NULL. */
static inline const char *twin_compare(const struct twin *twin,
				       const struct dmacore_iova_space_statistics *got)
{
	uint64_t counts[2] = { 0, 0 };
	wide granules[2] = { 0, 0 };
	uint64_t largest;

	for (size_t i = 0; i < twin->count; i++) {
		counts[twin->ranges[i].is_reserved]++;
		granules[twin->ranges[i].is_reserved] +=
			twin->ranges[i].end - twin->ranges[i].start;
	}
	if (got->allocated_count != counts[0] ||
	    got->allocated_bytes != twin_saturated(granules[0] * twin->granule))
		return "the numbers of what is allocated";
	if (got->reserved_count != counts[1] ||
	    got->reserved_bytes != twin_saturated(granules[1] * twin->granule))
		return "the numbers of what is reserved";
	if (got->free_bytes !=
	    twin_saturated(twin->end - twin->start - (granules[0] + granules[1]) * twin->granule))
		return "the number of free bytes";
	largest = twin_largest_free(twin, 0, UINT64_MAX);
	if (got->cached_count == 0 ? got->largest_free_bytes != largest :
				     got->largest_free_bytes > largest)
		return "the number of the largest free range";
	if (!twin->has_caches && got->cached_count + got->cached_bytes + got->cache_allocations +
						 got->cache_frees + got->drains !=
					 0)
		return "the numbers of caches that are not there";
	return NULL;
}

#endif /* SUPPORT_IOVA_TWIN_H */
