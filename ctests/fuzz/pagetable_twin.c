/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pagetable.h"

#include <errno.h>
#include <string.h>

/* All that enum dmacore_access has, and those of them that permit something. */
#define ACCESS_BITS 63u
#define TRANSFERS (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE | DMACORE_ACCESS_EXECUTE)

void twin_start(struct twin *twin, const struct shape *shape)
{
	twin->shape = *shape;
	twin->is_signed = shape_is_signed(shape);
	twin->low_last = shape_low_last(shape);
	twin->leaf_sizes = shape_leaf_sizes(shape);
	twin->reach_last = shape_reach_last(shape, shape->levels);
	twin->count = 0;
}

size_t twin_index(const struct twin *twin, uint64_t iova)
{
	size_t index = 0;

	while (index < twin->count && twin->leaves[index].last < iova)
		index++;
	return index;
}

struct leaf *twin_find(struct twin *twin, uint64_t iova)
{
	size_t index = twin_index(twin, iova);

	if (index == twin->count || twin->leaves[index].first > iova)
		return NULL;
	return &twin->leaves[index];
}

bool leaf_permits(const struct leaf *leaf, uint32_t wanted)
{
	if ((wanted & ~leaf->access & ~(uint32_t)DMACORE_ACCESS_PRIVILEGED) != 0)
		return false;
	return (leaf->access & DMACORE_ACCESS_PRIVILEGED) == 0 ||
	       (wanted & DMACORE_ACCESS_PRIVILEGED) != 0 || (wanted & TRANSFERS) == 0;
}

uint64_t twin_mapped_bytes(const struct twin *twin)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < twin->count; i++)
		bytes += twin->leaves[i].last - twin->leaves[i].first + 1;
	return bytes;
}

static bool is_aligned(const struct twin *twin, uint64_t value)
{
	return value % twin->shape.granule == 0;
}

/* Whether a range of at least a byte lies in one half of the inputs. */
static bool is_inside(const struct twin *twin, uint64_t first, uint64_t last)
{
	if (last < first)
		return false;
	return last <= twin->low_last || (twin->is_signed && first >= ~twin->low_last);
}

int twin_check_range(const struct twin *twin, uint64_t iova, uint64_t size)
{
	if (size == 0 || !is_aligned(twin, iova | size))
		return -EINVAL;
	return is_inside(twin, iova, iova + (size - 1)) ? 0 : -ERANGE;
}

int twin_trim(const struct twin *twin, uint64_t first, uint64_t last)
{
	if (last < first || !is_aligned(twin, first | (last + 1)))
		return -EINVAL;
	return is_inside(twin, first, last) ? 0 : -ERANGE;
}

void twin_grow(struct twin *twin, uint64_t last)
{
	for (unsigned int levels = 1; twin->reach_last < last && last <= twin->low_last; levels++)
		if (shape_reach_last(&twin->shape, levels) >= last)
			twin->reach_last = shape_reach_last(&twin->shape, levels);
}

/* Whether the levels that there are have leaves of a size. */
static bool has_leaves(const struct twin *twin, uint64_t size)
{
	return (twin->leaf_sizes & size) != 0 &&
	       (size <= twin->reach_last || twin->reach_last == twin->low_last);
}

/* The largest leaf that both addresses and the size allow. */
static uint64_t leaf_size(const struct twin *twin, uint64_t iova, uint64_t phys, uint64_t size)
{
	uint64_t best = twin->shape.granule;

	for (uint64_t leaf = best; leaf <= size && leaf <= twin->leaf_sizes; leaf *= 2)
		if (has_leaves(twin, leaf) && (iova | phys) % leaf == 0)
			best = leaf;
	return best;
}

/*
 * The leaves of a range, behind the first @count of the array. Returns how many there are then, or
 * LEAVES_MAX + 1 if they do not fit.
 */
static size_t make_leaves(const struct twin *twin, struct leaf *leaves, size_t count,
			  struct leaf range)
{
	uint64_t size = range.last - range.first + 1;

	while (size != 0) {
		uint64_t step = leaf_size(twin, range.first, range.target, size);

		if (count == LEAVES_MAX)
			return LEAVES_MAX + 1;
		leaves[count] = range;
		leaves[count++].last = range.first + (step - 1);
		range.first += step;
		range.target += step;
		size -= step;
	}
	return count;
}

/* Puts @count leaves in place of @gone others. False if there is no room for them. */
static bool put_leaves(struct twin *twin, size_t index, size_t gone, const struct leaf *leaves,
		       size_t count)
{
	struct leaf *place = &twin->leaves[index];

	if (count > LEAVES_MAX || twin->count - gone + count > LEAVES_MAX)
		return false;
	memmove(place + count, place + gone, (twin->count - index - gone) * sizeof(*place));
	memcpy(place, leaves, count * sizeof(*place));
	twin->count = twin->count - gone + count;
	return true;
}

int twin_map(struct twin *twin, uint64_t iova, uint64_t phys, uint64_t size, uint32_t access)
{
	static struct leaf added[LEAVES_MAX];
	const uint64_t last = iova + (size - 1);
	const uint64_t output_last = DMACORE_BIT_MASK(twin->shape.output_bits);
	size_t index = twin_index(twin, iova);
	const uint64_t reach_last = twin->reach_last;
	size_t count;

	if (size == 0 || !is_aligned(twin, iova | phys | size) || (access & TRANSFERS) == 0 ||
	    access > ACCESS_BITS)
		return -EINVAL;
	if (!shape_can_express(&twin->shape, access))
		return -EOPNOTSUPP;
	if (!is_inside(twin, iova, last) || size - 1 > output_last ||
	    phys > output_last - (size - 1))
		return -ERANGE;
	if (index < twin->count && twin->leaves[index].first <= last)
		return -EEXIST;
	twin_grow(twin, last);
	count = make_leaves(twin, added, 0, (struct leaf){ iova, last, phys, access, false });
	if (put_leaves(twin, index, 0, added, count))
		return 0;
	twin->reach_last = reach_last;
	return -1;
}

/*
 * Makes the leaf that reaches over @border into the largest that do not. False if the twin does not
 * hold them.
 */
static bool split(struct twin *twin, uint64_t border)
{
	static struct leaf pieces[LEAVES_MAX];
	size_t index = twin_index(twin, border), count;
	struct leaf low, high;

	if (index == twin->count || twin->leaves[index].first >= border)
		return true;
	low = twin->leaves[index];
	high = low;
	low.last = border - 1;
	high.first = border;
	high.target += border - low.first;
	count = make_leaves(twin, pieces, 0, low);
	if (count <= LEAVES_MAX)
		count = make_leaves(twin, pieces, count, high);
	return put_leaves(twin, index, 1, pieces, count);
}

int twin_unmap(struct twin *twin, uint64_t iova, uint64_t size, uint32_t flags, uint64_t *out_size)
{
	static struct twin before;
	const uint64_t last = iova + (size - 1);
	const struct leaf *tail;
	size_t index, end;
	int error = twin_check_range(twin, iova, size);

	if (error != 0)
		return error;
	if ((flags & DMACORE_UNMAP_SPLIT) != 0) {
		before = *twin;
		if (!split(twin, iova) || !split(twin, last + 1)) {
			*twin = before;
			return -1;
		}
	}
	index = twin_index(twin, iova);
	tail = twin_find(twin, last);
	if ((index < twin->count && twin->leaves[index].first < iova) ||
	    (tail != NULL && tail->last > last))
		return -EOPNOTSUPP;
	*out_size = 0;
	for (end = index; end < twin->count && twin->leaves[end].last <= last; end++) {
		const struct leaf *leaf = &twin->leaves[end];

		if (leaf->first != iova && (flags & DMACORE_UNMAP_CROSS_HOLES) == 0)
			break;
		*out_size += leaf->last - leaf->first + 1;
		iova = leaf->last + 1;
	}
	put_leaves(twin, index, end - index, twin->leaves, 0);
	return 0;
}
