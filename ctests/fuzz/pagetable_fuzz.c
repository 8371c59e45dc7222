/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One page table against two judges: a naive twin, which is a sorted array of leaves, says what
 * must be mapped, and a walker of the format's words, written from the VT-d specification alone,
 * says what hardware would find.
 */

#include <dmacore/pagetable.h>

#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PAGE UINT64_C(4096)
#define LEAVES_MAX 2048

struct leaf {
	uint64_t first;
	uint64_t last;
	uint64_t target;
	uint32_t access;
};

struct twin {
	unsigned int levels;
	size_t count;
	/* Sorted by address; no two overlap. */
	struct leaf leaves[LEAVES_MAX];
};

/* The table pages that the library holds. Their physical address is that of the process plus an
 * offset, so that a walker that takes one for the other is found out. */
struct pages {
	uint64_t phys_offset;
	unsigned int count;
	/* Allocations until one fails; 0: none will. */
	unsigned int countdown;
	bool has_failed;
};

static int allocate_page(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	struct pages *pages = opaque;

	if (pages->countdown != 0 && --pages->countdown == 0) {
		pages->has_failed = true;
		return -EIO;
	}
	if (posix_memalign(&out_page->host, size, size) != 0) {
		pages->has_failed = true;
		return -ENOMEM;
	}
	memset(out_page->host, 0xff, size);
	out_page->phys = (uintptr_t)out_page->host + pages->phys_offset;
	pages->count++;
	return 0;
}

static void free_page(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	struct pages *pages = opaque;

	CHECK(size == PAGE);
	CHECK(page->phys == (uintptr_t)page->host + pages->phys_offset);
	pages->count--;
	free(page->host);
}

static uint64_t input_last(const struct twin *twin)
{
	return (UINT64_C(1) << (12 + 9 * twin->levels)) - 1;
}

static bool is_page_aligned(uint64_t value)
{
	return value % PAGE == 0;
}

/* The index of the first leaf that ends at @iova or above. */
static size_t twin_index(const struct twin *twin, uint64_t iova)
{
	size_t index = 0;

	while (index < twin->count && twin->leaves[index].last < iova)
		index++;
	return index;
}

/* The leaf that @iova lies in, or NULL. */
static const struct leaf *twin_find(const struct twin *twin, uint64_t iova)
{
	size_t index = twin_index(twin, iova);

	if (index == twin->count || twin->leaves[index].first > iova)
		return NULL;
	return &twin->leaves[index];
}

/* The largest leaf that both addresses and the size allow. */
static uint64_t leaf_size(uint64_t iova, uint64_t phys, uint64_t size)
{
	for (uint64_t leaf = PAGE << 18; leaf > PAGE; leaf >>= 9)
		if ((iova | phys) % leaf == 0 && size >= leaf)
			return leaf;
	return PAGE;
}

/* What a map call must return; -1 for one that succeeds with more leaves than the twin holds. */
static int twin_map(struct twin *twin, uint64_t iova, uint64_t phys, uint64_t size, uint32_t access)
{
	static struct leaf added[LEAVES_MAX];
	const uint64_t output_last = (UINT64_C(1) << 52) - 1;
	size_t index = twin_index(twin, iova);
	struct leaf *place = &twin->leaves[index];
	size_t count = 0;

	if (size == 0 || !is_page_aligned(iova | phys | size) || access == 0)
		return -EINVAL;
	/* Execution cannot be told from reading. */
	if (access > 3)
		return -EOPNOTSUPP;
	if (size - 1 > input_last(twin) || iova > input_last(twin) - (size - 1) ||
	    size - 1 > output_last || phys > output_last - (size - 1))
		return -ERANGE;
	if (index < twin->count && place->first <= iova + size - 1)
		return -EEXIST;
	while (size != 0) {
		uint64_t step = leaf_size(iova, phys, size);

		if (twin->count + count == LEAVES_MAX)
			return -1;
		added[count++] = (struct leaf){ iova, iova + step - 1, phys, access };
		iova += step;
		phys += step;
		size -= step;
	}
	memmove(place + count, place, (twin->count - index) * sizeof(*place));
	memcpy(place, added, count * sizeof(*place));
	twin->count += count;
	return 0;
}

/*
 * Makes the leaf that reaches over @border into the largest that do not. False if the twin does not
 * hold them.
 */
static bool twin_split(struct twin *twin, uint64_t border)
{
	static struct leaf pieces[LEAVES_MAX];
	size_t index = twin_index(twin, border), count = 0;
	struct leaf *place = &twin->leaves[index];
	struct leaf whole = *place;

	if (index == twin->count || whole.first >= border || whole.last < border)
		return true;
	for (uint64_t iova = whole.first; iova - 1 != whole.last;) {
		uint64_t end = iova < border ? border : whole.last + 1;
		uint64_t phys = whole.target + (iova - whole.first);
		uint64_t step = leaf_size(iova, phys, end - iova);

		if (twin->count + count == LEAVES_MAX)
			return false;
		pieces[count++] = (struct leaf){ iova, iova + step - 1, phys, whole.access };
		iova += step;
	}
	memmove(place + count, place + 1, (twin->count - index - 1) * sizeof(*place));
	memcpy(place, pieces, count * sizeof(*place));
	twin->count += count - 1;
	return true;
}

/* What an unmap call must return; -1 for one that splits into more leaves than the twin holds. */
static int twin_unmap(struct twin *twin, uint64_t iova, uint64_t size, uint32_t flags,
		      uint64_t *out_size)
{
	uint64_t last = iova + size - 1;
	size_t index;
	struct leaf *start, *end;
	const struct leaf *tail;

	if (size == 0 || !is_page_aligned(iova | size))
		return -EINVAL;
	if (size - 1 > input_last(twin) || iova > input_last(twin) - (size - 1))
		return -ERANGE;
	if ((flags & DMACORE_UNMAP_SPLIT) != 0 &&
	    (!twin_split(twin, iova) || !twin_split(twin, last + 1)))
		return -1;
	index = twin_index(twin, iova);
	start = &twin->leaves[index];
	end = start;
	tail = twin_find(twin, last);
	if ((index < twin->count && start->first < iova) || (tail != NULL && tail->last > last))
		return -EOPNOTSUPP;
	*out_size = 0;
	for (; end < twin->leaves + twin->count && end->last <= last; end++) {
		if (end->first != iova && (flags & DMACORE_UNMAP_CROSS_HOLES) == 0)
			break;
		*out_size += end->last - end->first + 1;
		iova = end->last + 1;
	}
	memmove(start, end, (size_t)(twin->leaves + twin->count - end) * sizeof(*start));
	twin->count -= (size_t)(end - start);
	return 0;
}

/*
 * VT-d 5.0, section 9.8, second-stage paging entries: bits 0 and 1 are read and write permission,
 * neither: not present; bit 7 at the levels of 2 MiB and 1 GiB: a leaf; bits 51 to 12: the address.
 */
static bool walk(const struct twin *twin, const struct pages *pages, uint64_t root, uint64_t iova,
		 struct leaf *out_leaf)
{
	const uint64_t address_bits = ((UINT64_C(1) << 52) - 1) & ~(PAGE - 1);

	for (unsigned int level = twin->levels - 1;; level--) {
		const uint64_t *table = (const uint64_t *)(uintptr_t)(root - pages->phys_offset);
		unsigned int shift = 12 + 9 * level;
		uint64_t word = table[iova >> shift & 511];

		if ((word & 3) == 0)
			return false;
		if (level == 0 || (word & 1 << 7) != 0) {
			uint64_t size = UINT64_C(1) << shift;

			CHECK(level <= 2);
			CHECK((word & address_bits) % size == 0);
			out_leaf->first = iova & ~(size - 1);
			out_leaf->last = out_leaf->first + (size - 1);
			out_leaf->target = word & address_bits;
			out_leaf->access = word & 3;
			return true;
		}
		CHECK((word & 3) == 3);
		root = word & address_bits;
	}
}

/* @leaf is where @iova must lead, or NULL. */
static void check_translation(const struct twin *twin, const struct leaf *leaf,
			      const struct pages *pages, struct dmacore_pagetable *table,
			      uint64_t iova, uint32_t access)
{
	struct dmacore_translation got;
	struct leaf walked;
	uint64_t root;
	int expected = 0;

	memset(&got, 0x5a, sizeof(got));
	if (leaf == NULL)
		expected = -ENOENT;
	else if ((leaf->access & access) != access)
		expected = -EACCES;
	CHECK(dmacore_pagetable_translate(table, iova, access, &got) == expected);
	if (expected == 0) {
		CHECK(got.first == leaf->first);
		CHECK(got.last == leaf->last);
		CHECK(got.target == leaf->target);
		CHECK(got.access == leaf->access);
		CHECK(got.reserved == 0);
	} else {
		CHECK(got.first == UINT64_C(0x5a5a5a5a5a5a5a5a));
	}
	if (iova > input_last(twin))
		return;
	CHECK(dmacore_pagetable_root(table, &root) == 0);
	if (walk(twin, pages, root, iova, &walked)) {
		CHECK(leaf != NULL);
		CHECK(walked.first == leaf->first);
		CHECK(walked.last == leaf->last);
		CHECK(walked.target == leaf->target);
		CHECK(walked.access == leaf->access);
	} else {
		CHECK(leaf == NULL);
	}
}

/* The ends of a range that a call was about, and the addresses beside it. */
static void check_around(const struct twin *twin, const struct pages *pages,
			 struct dmacore_pagetable *table, uint64_t iova, uint64_t size)
{
	const uint64_t probes[] = { iova - 1, iova, iova + size - 1, iova + size };

	for (uint32_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++)
		check_translation(twin, twin_find(twin, probes[i]), pages, table, probes[i], i);
}

static void check_statistics(const struct twin *twin, const struct pages *pages,
			     struct dmacore_pagetable *table, bool is_reclaimed)
{
	struct dmacore_pagetable_statistics got = { .struct_size = sizeof(got) };
	uint64_t mapped = 0;

	for (size_t i = 0; i < twin->count; i++)
		mapped += twin->leaves[i].last - twin->leaves[i].first + 1;
	CHECK(dmacore_pagetable_statistics(table, &got) == 0);
	CHECK(got.mapped_bytes == mapped);
	CHECK(got.table_count == pages->count);
	CHECK(got.table_bytes == got.table_count * PAGE);
	CHECK(got.retired_count < got.table_count);
	if (is_reclaimed)
		CHECK(got.retired_count == 0);
}

/* An input address in one of a few places, which makes calls meet; seldom anything. */
static uint64_t take_input(struct program *program, const struct twin *twin)
{
	uint8_t how = take8(program);
	uint64_t place, offset;

	if (how >= 0xf8)
		return take_number(program);
	if ((how & 0xc0) == 0x80 && twin->count != 0)
		return twin->leaves[take8(program) % twin->count].first;
	switch (how >> 4 & 3) {
	case 0:
		place = 0;
		break;
	case 1:
		/* So that ranges cross from one entry of the second highest level to the next. */
		place = (UINT64_C(1) << 39) - (PAGE << 19);
		break;
	case 2:
		/* So that ranges end at the last byte. */
		place = input_last(twin) + 1 - (PAGE << 20);
		break;
	default:
		place = UINT64_C(3) << 30;
		break;
	}
	offset = (uint64_t)(how & 3) << 30;
	if ((how & 4) != 0)
		offset += (uint64_t)(take8(program) & 15) << 21;
	if ((how & 8) != 0)
		offset += take8(program) * PAGE;
	return place + offset;
}

static uint64_t take_size(struct program *program)
{
	uint8_t how = take8(program);
	uint64_t size = 0;

	if (how >= 0xf8)
		return take_number(program);
	if ((how & 0xc0) == 0)
		return (how & 15) * PAGE;
	if ((how & 1) != 0)
		size += (uint64_t)(how >> 1 & 3) << 30;
	if ((how & 8) != 0)
		size += (uint64_t)(take8(program) & 15) << 21;
	if ((how & 16) != 0)
		size += take8(program) * PAGE;
	return size;
}

/* A range can be out of range and something else be wrong; which of the two is told is not promised. */
static bool is_as_expected(int got, int expected)
{
	return got == expected ||
	       (got == -ERANGE && (expected == -EINVAL || expected == -EOPNOTSUPP));
}

static void map(struct program *program, struct twin *twin, struct pages *pages,
		struct dmacore_pagetable *table, uint8_t how)
{
	uint64_t iova = take_input(program, twin), size = take_size(program), unmapped;
	/* Mostly as far from a large boundary as the input is, so that large leaves fit. */
	uint64_t phys = (how & 1) != 0 ? iova + ((uint64_t)(take8(program) & 0x1f) << 30) :
					 take_number(program);
	uint32_t access = how >> 1 & 7;
	int expected = twin_map(twin, iova, phys, size, access), got;

	if (expected == -1)
		return;
	pages->has_failed = false;
	if ((how & 0x10) != 0) {
		pages->countdown = 1 + (take8(program) & 3);
		allocation_fail_after(take8(program) & 7);
	}
	got = dmacore_pagetable_map(table, iova, phys, size, access);
	fuzz_trace("map(%#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ", %u) = %d, expected %d", iova,
		   phys, size, access, got, expected);
	pages->countdown = 0;
	pages->has_failed |= allocation_has_failed();
	if (got == -ENOMEM) {
		CHECK(pages->has_failed);
		/* What the twin has just mapped is not there. */
		CHECK(expected != 0 || twin_unmap(twin, iova, size, 0, &unmapped) == 0);
	} else {
		CHECK(is_as_expected(got, expected));
	}
	check_around(twin, pages, table, iova, size);
}

static void unmap(struct program *program, struct twin *twin, const struct pages *pages,
		  struct dmacore_pagetable *table, uint32_t flags)
{
	uint64_t iova = take_input(program, twin), size = take_size(program);
	uint64_t expected_size = 0x5a5a, got_size = 0x5a5a;
	int expected = twin_unmap(twin, iova, size, flags, &expected_size);
	int got;

	/* The twin may have split a leaf, and not the other: it is of no use any more. */
	if (expected == -1) {
		CHECK(dmacore_pagetable_unmap(table, 0, input_last(twin) + 1,
					      DMACORE_UNMAP_CROSS_HOLES, NULL) == 0);
		twin->count = 0;
		return;
	}
	got = dmacore_pagetable_unmap(table, iova, size, flags, &got_size);

	fuzz_trace("unmap(%#" PRIx64 ", %#" PRIx64 ", %u) = %d of %#" PRIx64
		   ", expected %d of %#" PRIx64,
		   iova, size, flags, got, got_size, expected, expected_size);
	CHECK(is_as_expected(got, expected));
	CHECK(got_size == expected_size);
	check_around(twin, pages, table, iova, size);
}

static void step(struct program *program, struct twin *twin, struct pages *pages,
		 struct dmacore_pagetable *table)
{
	uint8_t call = take8(program);
	uint64_t iova;

	switch (call & 7) {
	default:
		map(program, twin, pages, table, call >> 3);
		break;
	case 4:
	case 5:
		unmap(program, twin, pages, table, call >> 3 & 3);
		break;
	case 6:
		iova = take_input(program, twin) + take16(program);
		fuzz_trace("translate(%#" PRIx64 ", %u)", iova, call >> 3 & 7u);
		check_translation(twin, twin_find(twin, iova), pages, table, iova, call >> 3 & 7);
		break;
	case 7:
		fuzz_trace("reclaim()");
		CHECK(dmacore_pagetable_reclaim(table) == 0);
		break;
	}
	check_statistics(twin, pages, table, (call & 7) == 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct program program = { data, data + size };
	struct dmacore_table_allocator allocator = DMACORE_TABLE_ALLOCATOR_INIT;
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;
	struct pages pages = { .phys_offset = UINT64_C(1) << 50 };
	static struct twin twin;

	allocation_begin();
	twin.levels = 3 + take8(&program) % 3;
	twin.count = 0;
	allocator.allocate = allocate_page;
	allocator.free = free_page;
	allocator.opaque = &pages;
	options.levels = twin.levels;
	options.allocator = &allocator;
	fuzz_trace("create(%u levels)", twin.levels);
	CHECK(dmacore_pagetable_create(&options, &table) == 0);
	while (!program_is_over(&program))
		step(&program, &twin, &pages, table);
	for (size_t i = 0; i < twin.count; i++)
		check_translation(&twin, &twin.leaves[i], &pages, table, twin.leaves[i].first, 0);
	dmacore_pagetable_destroy(table);
	CHECK(pages.count == 0);
	CHECK(allocation_end() == 0);
	return 0;
}
