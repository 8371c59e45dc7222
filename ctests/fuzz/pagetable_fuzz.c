/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One page table of any format against three judges: a naive twin, which is a sorted array of leaves,
 * says what must be mapped; dmacore_pagetable_walk() says what hardware finds in the words; and so does
 * for VT-d a walker written from the specification alone.
 *
 * The first byte of an input chooses the shape of the table, the second its features, and the third
 * where its pages come from and how it ends.
 */

#include "pagetable.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Reads of dirty bits and reservations are of so many tables of the lowest level at the most. */
#define RESERVED_MAX 64
#define DIRTY_MAX 16

/* Of the largest tables. */
#define BITMAP_WORDS (DIRTY_MAX * 8192 / 64)

/* Steps from one count of what is mapped to the next: it reads all tables, which may be large. */
#define STATISTICS_INTERVAL 8

/* What the entries of the lowest levels span; less where the input has no room for eight. */
static uint64_t span(const struct twin *twin, unsigned int level)
{
	uint64_t size = shape_span(&twin->shape, level);

	return size <= twin->low_last / 8 ? size : twin->low_last / 8 + 1;
}

/* One of the sizes of leaves. */
static uint64_t take_leaf_size(struct program *program, const struct twin *twin)
{
	uint64_t sizes = twin->leaf_sizes;
	int number = take8(program) % __builtin_popcountll(sizes);

	for (; number > 0; number--)
		sizes &= sizes - 1;
	return sizes & -sizes;
}

/* An input address in one of a few places, which makes calls meet; seldom anything. */
static uint64_t take_input(struct run *run)
{
	struct program *program = &run->program;
	const struct twin *twin = &run->twin;
	uint8_t how = take8(program);
	uint64_t place, border, unit;

	if (how >= 0xf8)
		return take_number(program);
	if ((how & 0xc0) == 0x80 && twin->count != 0)
		return twin->leaves[take8(program) % twin->count].first;
	switch (how >> 4 & 3) {
	case 0:
		place = 0;
		break;
	case 1:
		/* So that ranges cross from one entry of the fourth level to the next. */
		border = shape_span(&twin->shape, 3);
		place = (border <= twin->low_last ? border : twin->low_last + 1) -
			2 * span(twin, 2);
		break;
	case 2:
		/* So that ranges end at the last byte. */
		place = twin->low_last + 1 - 4 * span(twin, 2);
		break;
	default:
		place = 3 * span(twin, 2);
		break;
	}
	if ((how & 0xc0) == 0x40) {
		unit = take_leaf_size(program, twin);
		place = (place & -unit) + (how & 7) * unit;
	} else {
		place += (how & 3) * span(twin, 2);
		if ((how & 4) != 0)
			place += (take8(program) & 15) * span(twin, 1);
	}
	if ((how & 8) != 0)
		place += take8(program) * (uint64_t)twin->shape.granule;
	/* The same place of the upper half. */
	return twin->is_signed && how >= 0xc0 ? place | ~twin->low_last : place;
}

static uint64_t take_size(struct run *run)
{
	struct program *program = &run->program;
	const struct twin *twin = &run->twin;
	const uint64_t granule = twin->shape.granule;
	uint8_t how = take8(program);
	uint64_t size = 0;

	if (how >= 0xf8)
		return take_number(program);
	if ((how & 0xc0) == 0)
		return (how & 15) * granule;
	if ((how & 0xe0) == 0x60) {
		size = (1 + (how & 3)) * take_leaf_size(program, twin);
		if ((how & 4) != 0)
			size += take8(program) * granule;
		return size - ((how & 8) != 0 ? granule : 0);
	}
	if ((how & 1) != 0)
		size += (how >> 1 & 3) * span(twin, 2);
	if ((how & 8) != 0)
		size += (take8(program) & 15) * span(twin, 1);
	if ((how & 16) != 0)
		size += take8(program) * granule;
	return size;
}

/* Mostly as far from a large boundary as the input is, so that large leaves fit. */
static uint64_t take_output(struct run *run, uint64_t iova, bool is_near)
{
	const struct twin *twin = &run->twin;
	uint8_t how;
	uint64_t unit;

	if (!is_near)
		return take_number(&run->program);
	how = take8(&run->program);
	unit = (how & 0x20) != 0 ? take_leaf_size(&run->program, twin) : span(twin, 2);
	return (iova + (how & 0x1f) * unit) & DMACORE_BIT_MASK(twin->shape.output_bits);
}

/* A range can be out of range and something else be wrong; which of the two is told is not promised. */
static bool is_as_expected(int got, int expected)
{
	return got == expected ||
	       (got == -ERANGE && (expected == -EINVAL || expected == -EOPNOTSUPP));
}

static void starve_some(struct run *run)
{
	unsigned int page_count = take8(&run->program) & 3;

	starve(run, page_count, take8(&run->program) & 7);
}

static void map(struct run *run, uint8_t how, bool has_more_access)
{
	struct twin *twin = &run->twin;
	const uint64_t reach_last = twin->reach_last;
	uint64_t iova = take_input(run), size = take_size(run), unmapped;
	uint64_t phys = take_output(run, iova, (how & 1) != 0);
	uint32_t access = how >> 1 & 7;
	int expected, got;

	if (has_more_access) {
		uint32_t more = take8(&run->program);

		/* Seldom what there is not. */
		access |= (more < 0xf8 ? more & 7 : more) << 3;
	}
	expected = twin_map(twin, iova, phys, size, access);
	if (expected == -1)
		return;
	(void)was_starved(run);
	if ((how & 0x10) != 0)
		starve_some(run);
	got = dmacore_pagetable_map(run->table, iova, phys, size, access);
	fuzz_trace("map(%#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ", %u) = %d, expected %d", iova,
		   phys, size, access, got, expected);
	check_growth(run, reach_last, got);
	if (was_starved(run) && got == -ENOMEM) {
		/* What the twin has just mapped is not there. */
		CHECK(expected != 0 || twin_unmap(twin, iova, size, 0, &unmapped) == 0);
	} else {
		CHECK(is_as_expected(got, expected));
	}
	check_around(run, iova, size);
}

static void unmap(struct run *run, uint8_t how)
{
	static struct twin before;
	struct twin *twin = &run->twin;
	uint64_t iova = take_input(run), size = take_size(run);
	uint64_t expected_size = 0x5a5a, got_size = 0x5a5a;
	uint32_t flags = how & 3;
	int expected, got;

	if (flags >= DMACORE_UNMAP_SPLIT)
		before = *twin;
	expected = twin_unmap(twin, iova, size, flags, &expected_size);
	if (expected == -1)
		return;
	(void)was_starved(run);
	if ((how & 0x1c) == 0x1c)
		starve_some(run);
	got = dmacore_pagetable_unmap(run->table, iova, size, flags, &got_size);
	fuzz_trace("unmap(%#" PRIx64 ", %#" PRIx64 ", %u) = %d of %#" PRIx64
		   ", expected %d of %#" PRIx64,
		   iova, size, flags, got, got_size, expected, expected_size);
	if (was_starved(run) && got == -ENOMEM) {
		CHECK(flags >= DMACORE_UNMAP_SPLIT && got_size == 0x5a5a);
		*twin = before;
	} else {
		CHECK(is_as_expected(got, expected));
		CHECK(got_size == expected_size);
	}
	check_around(run, iova, size);
}

/* What is reserved is mapped without any memory. */
static void reserve(struct run *run, uint8_t how)
{
	struct twin *twin = &run->twin;
	const uint64_t reach_last = twin->reach_last;
	uint64_t iova = take_input(run);
	uint64_t size = take_size(run) % (RESERVED_MAX * shape_span(&twin->shape, 1));
	uint64_t phys = take_output(run, iova, true);
	int expected = twin_check_range(twin, iova, size), got;

	(void)was_starved(run);
	if ((how & 1) != 0)
		starve_some(run);
	got = dmacore_pagetable_reserve(run->table, iova, size);
	fuzz_trace("reserve(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", iova, size, got,
		   expected);
	if (got == 0)
		twin_grow(twin, iova + (size - 1));
	check_growth(run, reach_last, got);
	if (was_starved(run) && got == -ENOMEM)
		return;
	CHECK(is_as_expected(got, expected));
	if (got != 0)
		return;
	expected = twin_map(twin, iova, phys, size, DMACORE_ACCESS_READ);
	if (expected == -1)
		return;
	starve(run, 0, 0);
	got = dmacore_pagetable_map(run->table, iova, phys, size, DMACORE_ACCESS_READ);
	fuzz_trace("map(%#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ", 1) = %d, expected %d", iova, phys,
		   size, got, expected);
	CHECK(!was_starved(run));
	CHECK(is_as_expected(got, expected));
	check_around(run, iova, size);
}

static void trim(struct run *run)
{
	uint64_t first = take_input(run), last = first + take_size(run) - 1;
	int expected = twin_trim(&run->twin, first, last);
	int got = dmacore_pagetable_trim(run->table, first, last);

	fuzz_trace("trim(%#" PRIx64 ", %#" PRIx64 ") = %d, expected %d", first, last, got,
		   expected);
	CHECK(is_as_expected(got, expected));
	check_around(run, first, last - first + 1);
}

/* What calls about dirty bits must return. */
static int expect_dirty(const struct twin *twin, uint64_t iova, uint64_t size)
{
	int expected = twin_check_range(twin, iova, size);

	if (expected != -EINVAL && (twin->shape.features & DMACORE_PAGETABLE_DIRTY) == 0)
		return -EOPNOTSUPP;
	return expected;
}

/* The granules of a leaf that lie in a range are all dirty, or none is. */
static void check_leaf_dirty(struct run *run, const struct leaf *leaf, uint64_t first,
			     uint64_t last, const uint64_t *bitmap)
{
	const uint64_t granule = run->twin.shape.granule;
	uint64_t from = leaf->first > first ? leaf->first : first;
	uint64_t to = leaf->last < last ? leaf->last : last;

	/* As in check_dirty. */
	if (leaf->is_dirty && (leaf->access & DMACORE_ACCESS_WRITE) == 0)
		return;
	for (uint64_t i = (from - first) / granule; i <= (to - first) / granule; i++)
		CHECK((bitmap[i / 64] >> i % 64 & 1) == leaf->is_dirty);
}

static void read_dirty(struct run *run, uint32_t flags)
{
	static uint64_t bitmap[BITMAP_WORDS];
	struct twin *twin = &run->twin;
	const uint64_t granule = twin->shape.granule;
	uint64_t iova = take_input(run), next = iova;
	uint64_t size = take_size(run) % (DIRTY_MAX * shape_span(&twin->shape, 1));
	uint64_t last = iova + size - 1;
	int expected = expect_dirty(twin, iova, size), got;

	memset(bitmap, 0, (size / granule + 63) / 64 * 8);
	got = dmacore_pagetable_read_dirty(run->table, iova, size, flags, bitmap);
	fuzz_trace("read_dirty(%#" PRIx64 ", %#" PRIx64 ", %u) = %d, expected %d", iova, size,
		   flags, got, expected);
	CHECK(is_as_expected(got, expected));
	if (got != 0)
		return;
	for (size_t i = twin_index(twin, iova); i < twin->count; i++) {
		struct leaf *leaf = &twin->leaves[i];

		if (leaf->first > last)
			break;
		/* In the hole before it nothing is. */
		for (; next < leaf->first; next += granule)
			CHECK((bitmap[(next - iova) / granule / 64] >>
				       (next - iova) / granule % 64 &
			       1) == 0);
		check_leaf_dirty(run, leaf, iova, last, bitmap);
		next = leaf->last + 1;
		leaf->is_dirty &= flags == 0;
	}
}

static void track_dirty(struct run *run, bool is_tracked)
{
	struct twin *twin = &run->twin;
	uint64_t iova = take_input(run), size = take_size(run);
	int expected = expect_dirty(twin, iova, size);
	int got = dmacore_pagetable_track_dirty(run->table, iova, size, is_tracked);

	fuzz_trace("track_dirty(%#" PRIx64 ", %#" PRIx64 ", %d) = %d, expected %d", iova, size,
		   is_tracked, got, expected);
	CHECK(is_as_expected(got, expected));
	if (got != 0)
		return;
	for (size_t i = twin_index(twin, iova); i < twin->count; i++)
		if (twin->leaves[i].first <= iova + size - 1)
			twin->leaves[i].is_dirty = !is_tracked;
	check_around(run, iova, size);
}

static void reclaim(struct run *run)
{
	fuzz_trace("reclaim()");
	CHECK(dmacore_pagetable_reclaim(run->table) == 0);
	check_statistics(run, true);
}

static void step(struct run *run)
{
	uint8_t call = take8(&run->program), how = call >> 3;
	uint32_t access;
	uint64_t iova;

	switch (call & 7) {
	default:
		map(run, how, false);
		break;
	case 3:
		map(run, how, true);
		break;
	case 4:
	case 5:
		unmap(run, how);
		break;
	case 6:
		access = how;
		iova = take_input(run) + take16(&run->program);
		fuzz_trace("translate(%#" PRIx64 ", %u)", iova, access);
		check_translation(run, iova, access);
		break;
	case 7:
		switch (how & 7) {
		case 0:
		case 1:
			reserve(run, how);
			break;
		case 2:
			trim(run);
			break;
		case 3:
			read_dirty(run, how >> 3 & 1);
			break;
		case 4:
		case 5:
			track_dirty(run, how & 1);
			break;
		default:
			reclaim(run);
			break;
		}
		break;
	}
}

/* Unmaps everything, in two halves, because a size of 2^64 cannot be said. */
static void unmap_half(struct run *run, uint64_t first)
{
	const uint64_t size = run->twin.low_last / 2 + 1;

	for (unsigned int i = 0; i < 2; i++, first += size) {
		/* A leaf may lie in both. */
		CHECK(dmacore_pagetable_unmap(run->table, first, size,
					      DMACORE_UNMAP_CROSS_HOLES | DMACORE_UNMAP_SPLIT,
					      NULL) == 0);
		CHECK(dmacore_pagetable_trim(run->table, first, first + (size - 1)) == 0);
	}
}

/* Then no table is left but the root, which may be another than it was. */
static void empty(struct run *run)
{
	struct dmacore_pagetable_statistics got = { .struct_size = sizeof(got) };
	const struct twin *twin = &run->twin;

	reclaim(run);
	unmap_half(run, 0);
	if (twin->is_signed)
		unmap_half(run, ~twin->low_last);
	CHECK(dmacore_pagetable_trim(run->table, 0, twin->low_last) == 0);
	CHECK(dmacore_pagetable_reclaim(run->table) == 0);
	CHECK(dmacore_pagetable_statistics(run->table, &got) == 0);
	CHECK(got.mapped_bytes == 0);
	CHECK(got.retired_count == 0);
	CHECK(got.table_count == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct run run;
	struct shape shape;
	uint8_t how;

	run.program = (struct program){ data, data + size };
	shape = take_shape(&run.program);
	how = take8(&run.program);
	twin_start(&run.twin, &shape);
	memset(&run.pages, 0, sizeof(run.pages));
	allocation_begin();
	create_table(&run, (how & 1) != 0);
	for (unsigned int i = 1; !program_is_over(&run.program); i++) {
		step(&run);
		if (i % STATISTICS_INTERVAL == 0)
			check_statistics(&run, false);
	}
	check_statistics(&run, false);
	for (size_t i = 0; i < run.twin.count; i++)
		check_translation(&run, run.twin.leaves[i].first, 0);
	if ((how & 2) != 0)
		empty(&run);
	dmacore_pagetable_destroy(run.table);
	CHECK(run.pages.count == 0);
	CHECK(run.pages.bytes == 0);
	CHECK(allocation_end() == 0);
	return 0;
}
