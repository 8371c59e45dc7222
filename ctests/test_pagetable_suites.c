/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Cases that Linux tests its page tables with, for all formats of the library: the self-tests of its
 * ARM tables, and the suite that its generic page table runs on every format. The cases and their
 * numbers are Linux's. The library means to answer some of them otherwise:
 *
 * - A range of which some is mapped is -EEXIST, and nothing of the call stays. Linux says -EADDRINUSE
 *   and how far it came; ARM's tables say -EEXIST, but let a block take the place of live pages.
 * - Unmapping a part of a leaf is -EOPNOTSUPP, or splits the leaf if that is asked for. Linux unmaps
 *   the whole leaf and returns its size.
 * - What permits writing alone is -EOPNOTSUPP in a first stage, whose hardware permits reading too.
 *   Linux maps it as both. Such cases ask for both here.
 * - Tables stay in use when they are empty, until they are trimmed. So tables are counted after that.
 * - ARM's first and second stage mark contiguous runs, which Linux does not.
 */

#include "support/check.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <time.h>

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)
#define CACHEABLE DMACORE_ACCESS_CACHEABLE

#define RUNS DMACORE_PAGETABLE_RUNS
#define SIGNED DMACORE_PAGETABLE_SIGNED_INPUT

#define BIT(n) (UINT64_C(1) << (n))
#define SIZES_OF_3 (BIT(12) | BIT(21) | BIT(30))

struct format {
	const char *name;
	uint32_t format;
	uint32_t features;
	uint32_t levels;
	uint32_t input_bits;
	uint32_t output_bits;
	uint32_t granule;
	/* The sizes of leaves, a bit each. */
	uint64_t sizes;
	bool is_signed;
};

static const struct format formats[] = {
	{ "VT-d, 39 bits", DMACORE_PAGETABLE_VTD_SECOND_STAGE, 0, 3, 39, 52, 4096, SIZES_OF_3,
	  false },
	{ "VT-d, 48 bits", DMACORE_PAGETABLE_VTD_SECOND_STAGE, 0, 4, 48, 52, 4096, SIZES_OF_3,
	  false },
	{ "VT-d, 57 bits", DMACORE_PAGETABLE_VTD_SECOND_STAGE, 0, 5, 57, 52, 4096, SIZES_OF_3,
	  false },
	{ "x86-64, 47 bits", DMACORE_PAGETABLE_X86_64, 0, 4, 47, 52, 4096, SIZES_OF_3, false },
	{ "x86-64, 48 bits", DMACORE_PAGETABLE_X86_64, SIGNED, 4, 48, 52, 4096, SIZES_OF_3, true },
	{ "x86-64, 56 bits", DMACORE_PAGETABLE_X86_64, 0, 5, 56, 52, 4096, SIZES_OF_3, false },
	{ "x86-64, 57 bits", DMACORE_PAGETABLE_X86_64, SIGNED, 5, 57, 52, 4096, SIZES_OF_3, true },
	/* Each power of two but 512 GiB. */
	{ "AMD v1", DMACORE_PAGETABLE_AMD_V1, 0, 3, 64, 52, 4096, (BIT(52) - BIT(12)) & ~BIT(39),
	  false },
	{ "ARM stage 1, 4 KiB", DMACORE_PAGETABLE_ARM64_STAGE1, 0, 3, 39, 48, 4096, SIZES_OF_3,
	  false },
	{ "ARM stage 1, 4 KiB, runs", DMACORE_PAGETABLE_ARM64_STAGE1, RUNS, 4, 48, 48, 4096,
	  SIZES_OF_3 | BIT(16) | BIT(25) | BIT(34), false },
	{ "ARM stage 1, 16 KiB, runs", DMACORE_PAGETABLE_ARM64_STAGE1, RUNS, 4, 48, 48, 16384,
	  BIT(14) | BIT(21) | BIT(25) | BIT(30), false },
	{ "ARM stage 1, 64 KiB, runs", DMACORE_PAGETABLE_ARM64_STAGE1, RUNS, 3, 52, 52, 65536,
	  BIT(16) | BIT(21) | BIT(29) | BIT(34) | BIT(42), false },
	/* Two tables side by side are the root, and so are those of 16 KiB. */
	{ "ARM stage 2, 4 KiB", DMACORE_PAGETABLE_ARM64_STAGE2, 0, 3, 40, 40, 4096, SIZES_OF_3,
	  false },
	{ "ARM stage 2, 4 KiB, runs", DMACORE_PAGETABLE_ARM64_STAGE2, RUNS, 4, 48, 48, 4096,
	  SIZES_OF_3 | BIT(16) | BIT(25) | BIT(34), false },
	{ "ARM stage 2, 16 KiB, runs", DMACORE_PAGETABLE_ARM64_STAGE2, RUNS, 3, 48, 48, 16384,
	  BIT(14) | BIT(21) | BIT(25) | BIT(30), false },
	{ "ARM stage 2, 64 KiB", DMACORE_PAGETABLE_ARM64_STAGE2, 0, 3, 48, 48, 65536,
	  BIT(16) | BIT(29), false },
	{ "RISC-V, Sv39, runs", DMACORE_PAGETABLE_RISCV_FIRST_STAGE, RUNS, 3, 39, 56, 4096,
	  SIZES_OF_3 | BIT(16), true },
	{ "RISC-V, Sv48", DMACORE_PAGETABLE_RISCV_FIRST_STAGE, 0, 4, 48, 56, 4096,
	  SIZES_OF_3 | BIT(39), true },
	{ "RISC-V, Sv57, runs", DMACORE_PAGETABLE_RISCV_FIRST_STAGE, RUNS, 5, 57, 56, 4096,
	  SIZES_OF_3 | BIT(16) | BIT(39) | BIT(48), true },
	{ "RISC-V, Sv39x4", DMACORE_PAGETABLE_RISCV_SECOND_STAGE, 0, 3, 41, 56, 4096, SIZES_OF_3,
	  false },
	{ "RISC-V, Sv48x4, runs", DMACORE_PAGETABLE_RISCV_SECOND_STAGE, RUNS, 4, 50, 56, 4096,
	  SIZES_OF_3 | BIT(16) | BIT(39), false },
};

#define FORMAT_COUNT (sizeof(formats) / sizeof(*formats))

/* Table pages from the heap, which are counted. */

static unsigned live_pages;

/* At addresses that fit in 32 bits, which are what the narrowest format has for them. */
static void *map_low(size_t size)
{
	char *room = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	size_t before;

	if (room == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)room & (size - 1);
	if (before)
		munmap(room, before);
	munmap(room + before + size, size - before);
	return room + before;
}

static int allocate_page(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	void *bytes = map_low(size);

	(void)opaque;
	if (!bytes)
		return -ENOMEM;
	memset(bytes, 0xff, size);
	live_pages++;
	out_page->host = bytes;
	out_page->phys = (uintptr_t)bytes;
	return 0;
}

static void free_page(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	(void)opaque;
	live_pages--;
	munmap(page->host, size);
}

static struct dmacore_pagetable *make_table(const struct format *format, uint32_t more_features)
{
	static const struct dmacore_table_allocator allocator = {
		.struct_size = sizeof(allocator),
		.allocate = allocate_page,
		.free = free_page,
	};
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;

	live_pages = 0;
	options.format = format->format;
	options.features = format->features | more_features;
	options.levels = format->levels;
	options.input_bits = format->input_bits;
	options.output_bits = format->output_bits;
	options.granule = format->granule;
	options.allocator = &allocator;
	assert_ok(dmacore_pagetable_create(&options, &table));
	return table;
}

/* Nothing may be left: no mapping, no table but the root, and then no page at all. */
static void end_table(struct dmacore_pagetable *table, uint64_t last)
{
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_pagetable_trim(table, 0, last));
	assert_ok(dmacore_pagetable_reclaim(table));
	assert_ok(dmacore_pagetable_statistics(table, &statistics));
	assert_int_equal(statistics.mapped_bytes, 0);
	assert_int_equal(statistics.retired_count, 0);
	assert_int_equal(statistics.table_count, 1);
	assert_int_equal(live_pages, 1);
	dmacore_pagetable_destroy(table);
	assert_int_equal(live_pages, 0);
}

static uint64_t mapped_bytes(struct dmacore_pagetable *table)
{
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_pagetable_statistics(table, &statistics));
	return statistics.mapped_bytes;
}

/* The highest input, or that of the lower half. */
static uint64_t last_input(const struct format *format)
{
	return DMACORE_BIT_MASK(format->input_bits - format->is_signed);
}

static uint64_t smallest(const struct format *format)
{
	return format->sizes & -format->sizes;
}

static uint64_t largest(const struct format *format)
{
	return BIT(63 - __builtin_clzll(format->sizes));
}

/* The next larger leaf; 0: there is none. */
static uint64_t larger(const struct format *format, uint64_t size)
{
	uint64_t rest = format->sizes & ~(2 * size - 1);

	return rest & -rest;
}

#define assert_unmaps(table, iova, size, flags, expected)                                 \
	do {                                                                              \
		uint64_t unmapped_ = UNTOUCHED;                                           \
                                                                                          \
		assert_ok(dmacore_pagetable_unmap(table, iova, size, flags, &unmapped_)); \
		assert_int_equal(unmapped_, expected);                                    \
	} while (0)

static struct dmacore_translation translate(struct dmacore_pagetable *table, uint64_t iova)
{
	struct dmacore_translation found;

	assert_ok(dmacore_pagetable_translate(table, iova, READ, &found));
	return found;
}

static uint64_t phys_of(struct dmacore_pagetable *table, uint64_t iova)
{
	struct dmacore_translation found = translate(table, iova);

	return found.target + (iova - found.first);
}

static void check_absent(struct dmacore_pagetable *table, uint64_t iova)
{
	struct dmacore_translation found;

	assert_fails(dmacore_pagetable_translate(table, iova, 0, &found), ENOENT);
}

static void check_leaf(struct dmacore_pagetable *table, uint64_t iova, uint64_t phys, uint64_t size)
{
	struct dmacore_translation found = translate(table, iova);

	assert_int_equal(found.first, iova);
	assert_int_equal(found.last, iova + size - 1);
	assert_int_equal(found.target, phys);
}

/* Counts the leaves of a range that is all mapped and leads to @phys. */
static unsigned count_leaves(struct dmacore_pagetable *table, uint64_t first, uint64_t last,
			     uint64_t phys, uint64_t *sizes, unsigned max)
{
	unsigned count = 0;

	for (uint64_t next = first; next - 1 != last; count++) {
		struct dmacore_translation found = translate(table, next);

		assert_int_equal(found.first, next);
		assert_int_equal(found.target, phys + (next - first));
		assert_true(found.last <= last && count < max);
		sizes[count] = found.last - found.first + 1;
		next = found.last + 1;
	}
	return count;
}

/* The largest leaf that both addresses and what is left of a range allow. */
static uint64_t best_leaf(const struct format *format, uint64_t iova, uint64_t phys, uint64_t size)
{
	uint64_t best = 0;

	for (uint64_t leaf = smallest(format); leaf; leaf = larger(format, leaf)) {
		if (leaf <= size && ((iova | phys) & (leaf - 1)) == 0)
			best = leaf;
	}
	return best;
}

/* The self-tests of Linux's ARM tables. */

static void check_arm(const struct format *format)
{
	struct dmacore_pagetable *table = make_table(format, 0);
	const bool is_first = format->format == DMACORE_PAGETABLE_ARM64_STAGE1;
	const uint64_t end = BIT(format->input_bits);
	uint64_t iova = 0, size = largest(format);

	check_absent(table, 42);
	check_absent(table, GIB + 42);
	check_absent(table, 2 * GIB + 42);

	/* Distinct mappings of each size. */
	for (uint64_t leaf = smallest(format); leaf; leaf = larger(format, leaf)) {
		assert_ok(dmacore_pagetable_map(table, iova, iova, leaf, BOTH | CACHEABLE));
		assert_fails(
			dmacore_pagetable_map(table, iova, iova + leaf, leaf, READ | CACHEABLE),
			EEXIST);
		assert_int_equal(phys_of(table, iova + 42), iova + 42);
		check_leaf(table, iova, iova, leaf);
		iova += GIB;
	}

	/* Full unmaps, and the same again with other permissions. */
	iova = 0;
	for (uint64_t leaf = smallest(format); leaf; leaf = larger(format, leaf)) {
		const uint32_t access = is_first ? BOTH : WRITE;
		struct dmacore_translation found;

		assert_unmaps(table, iova, leaf, 0, leaf);
		check_absent(table, iova + 42);
		assert_ok(dmacore_pagetable_map(table, iova, iova, leaf, access));
		assert_ok(dmacore_pagetable_translate(table, iova + 42, access, &found));
		assert_int_equal(found.target + (iova + 42 - found.first), iova + 42);
		assert_int_equal(found.access, access);
		assert_unmaps(table, iova, leaf, 0, leaf);
		iova += GIB;
	}

	/* The last large leaf of the input. */
	assert_ok(dmacore_pagetable_map(table, end - size, end - size, size, BOTH));
	check_leaf(table, end - size, end - size, size);
	assert_int_equal(phys_of(table, end - 1), end - 1);
	assert_unmaps(table, end - size, size, 0, size);
	check_absent(table, end - size + 42);
	end_table(table, end - 1);
}

static void pagetable_suites__arm_self_tests(void **state)
{
	const uint32_t widths[] = { 32, 36, 40, 42, 44, 48 };
	const uint32_t stages[] = { DMACORE_PAGETABLE_ARM64_STAGE1,
				    DMACORE_PAGETABLE_ARM64_STAGE2 };
	const uint64_t sizes[] = { SIZES_OF_3, BIT(14) | BIT(25), BIT(16) | BIT(29) };
	unsigned count = 0;

	(void)state;
	for (unsigned i = 0; i < 3 * 6 * 6 * 2; i++) {
		struct format format = {
			.format = stages[i % 2],
			.input_bits = widths[i / 2 % 6],
			.output_bits = widths[i / 12 % 6],
			.granule = sizes[i / 72] & -sizes[i / 72],
			.sizes = sizes[i / 72],
		};

		if (format.input_bits > format.output_bits)
			continue;
		check_arm(&format);
		count++;
	}
	assert_int_equal(count, 3 * 21 * 2);
}

/* The suite of Linux's generic page table. */

/* A page at each power of two, up to the highest input: the levels come as they are needed. */
static void increase_level(void **state)
{
	const struct format *format = *state;
	const bool grows = format->format == DMACORE_PAGETABLE_AMD_V1;
	const uint64_t page = format->granule, last = last_input(format);
	struct dmacore_pagetable *table = make_table(format, 0);
	unsigned changes = 0, bits = __builtin_ctzll(page);
	uint64_t iova = 0, before = 0;
	dmacore_phys_t root, old;

	assert_ok(dmacore_pagetable_root(table, &old));
	while (true) {
		assert_ok(dmacore_pagetable_map(table, iova, iova & DMACORE_BIT_MASK(48), page,
						BOTH));
		assert_ok(dmacore_pagetable_root(table, &root));
		changes += root != old;
		/* Another root at the first page that the one before does not reach, and not later. */
		assert_true((root != old) == (grows && iova >= BIT(39) && (bits - 12) % 9 == 0));
		old = root;
		check_leaf(table, 0, 0, page);
		check_leaf(table, before, before & DMACORE_BIT_MASK(48), page);
		check_leaf(table, iova, iova & DMACORE_BIT_MASK(48), page);
		if (iova && iova > last / 2)
			break;
		before = iova;
		iova = iova ? 2 * iova : page;
		bits = __builtin_ctzll(iova);
	}
	assert_int_equal(changes, grows ? 3 : 0);
	for (uint64_t at = iova; at >= page; at /= 2)
		assert_unmaps(table, at, page, 0, page);
	assert_unmaps(table, 0, page, DMACORE_UNMAP_CROSS_HOLES, page);
	assert_int_equal(mapped_bytes(table), 0);
	/* What grew stays, but what is below the root goes. */
	end_table(table, last);
}

static void map_simple(void **state)
{
	const struct format *format = *state;
	struct dmacore_pagetable *table = make_table(format, 0);

	for (uint64_t size = smallest(format); size; size = larger(format, size)) {
		const uint64_t base = (256 * format->granule + size - 1) & -size;
		const uint64_t phys = size == BIT(51) ? 0 : size;
		uint64_t found;

		assert_ok(dmacore_pagetable_map(table, base, phys, size, BOTH));
		assert_int_equal(count_leaves(table, base, base + size - 1, phys, &found, 1), 1);
		assert_int_equal(found, size);
		assert_int_equal(mapped_bytes(table), size);
		check_absent(table, base - 1);
		check_absent(table, base + size);
		assert_unmaps(table, base, size, 0, size);
		check_absent(table, base);
		assert_int_equal(mapped_bytes(table), 0);
	}
	end_table(table, last_input(format));
}

/* So many leaves of one size make one of another, at most; more cost much time. */
#define FILL_MAX 4096

static void check_fill(struct dmacore_pagetable *table, uint64_t small, uint64_t large)
{
	/* No output is above the largest leaf of all. */
	const uint64_t base = large, phys = large == BIT(51) ? 0 : large;

	for (uint64_t offset = 0; offset < large; offset += small) {
		assert_ok(dmacore_pagetable_map(table, base + offset, phys + offset, small, BOTH));
		check_leaf(table, base + offset, phys + offset, small);
	}
	for (uint64_t offset = 0; offset < large; offset += small)
		check_leaf(table, base + offset, phys + offset, small);
	assert_int_equal(mapped_bytes(table), large);
	assert_fails(dmacore_pagetable_map(table, base, phys, large, BOTH), EEXIST);
	assert_unmaps(table, base, large / 2, 0, large / 2);
	check_absent(table, base + large / 2 - 1);
	check_leaf(table, base + large / 2, phys + large / 2, small);
	assert_fails(dmacore_pagetable_map(table, base, phys, large, BOTH), EEXIST);
	assert_int_equal(mapped_bytes(table), large / 2);
	assert_unmaps(table, base + large / 2, large / 2, 0, large / 2);
	assert_ok(dmacore_pagetable_map(table, base, phys, large, BOTH));
	check_leaf(table, base, phys, large);
	assert_ok(dmacore_pagetable_reclaim(table));
	check_leaf(table, base, phys, large);
	assert_unmaps(table, base, large, 0, large);
}

static void map_table_to_oa(void **state)
{
	const struct format *format = *state;
	struct dmacore_pagetable *table = make_table(format, 0);

	for (uint64_t small = smallest(format); small; small = larger(format, small)) {
		for (uint64_t large = larger(format, small); large && large / small <= FILL_MAX;
		     large = larger(format, large))
			check_fill(table, small, large);
	}
	end_table(table, last_input(format));
}

static void check_split(struct dmacore_pagetable *table, uint64_t small, uint64_t large)
{
	const uint64_t base = 2 * large;
	uint64_t unmapped;

	assert_ok(dmacore_pagetable_map(table, base, 0, large, BOTH));
	assert_ok(dmacore_pagetable_map(table, base + large, large, large, BOTH));
	assert_fails_untouched(dmacore_pagetable_unmap(table, base, small, 0, &unmapped),
			       EOPNOTSUPP, unmapped);
	assert_fails_untouched(
		dmacore_pagetable_unmap(table, base + large - small, 2 * small, 0, &unmapped),
		EOPNOTSUPP, unmapped);
	check_leaf(table, base, 0, large);
	check_leaf(table, base + large, large, large);

	assert_unmaps(table, base, small, DMACORE_UNMAP_SPLIT, small);
	check_absent(table, base + small - 1);
	assert_int_equal(phys_of(table, base + small), small);
	assert_int_equal(phys_of(table, base + large - 1), large - 1);
	check_leaf(table, base + large, large, large);
	assert_int_equal(mapped_bytes(table), 2 * large - small);
	/* Both leaves at once: the end of what is left of the first, and the head of the second. */
	assert_unmaps(table, base + large - small, 2 * small, DMACORE_UNMAP_SPLIT, 2 * small);
	check_absent(table, base + large - small);
	check_absent(table, base + large + small - 1);
	if (large > 2 * small)
		assert_int_equal(phys_of(table, base + large - small - 1), large - small - 1);
	assert_int_equal(phys_of(table, base + large + small), large + small);
	assert_unmaps(table, base, 2 * large, DMACORE_UNMAP_CROSS_HOLES, 2 * large - 3 * small);
}

static void unmap_split(void **state)
{
	const struct format *format = *state;
	struct dmacore_pagetable *table = make_table(format, 0);

	for (uint64_t small = smallest(format); small; small = larger(format, small)) {
		for (uint64_t large = larger(format, small); large; large = larger(format, large))
			check_split(table, small, large);
	}
	end_table(table, last_input(format));
}

/* Intervals in no order: a model that nobody needs to test. */

#define INTERVALS_MAX 512

struct interval {
	uint64_t first, last;
};

struct intervals {
	struct interval at[INTERVALS_MAX];
	unsigned count;
};

static bool intervals_meet(const struct intervals *intervals, uint64_t first, uint64_t last)
{
	for (unsigned i = 0; i < intervals->count; i++) {
		if (intervals->at[i].first <= last && first <= intervals->at[i].last)
			return true;
	}
	return false;
}

static void check_point(struct dmacore_pagetable *table, const struct format *format,
			const struct intervals *intervals, uint64_t iova)
{
	if (intervals_meet(intervals, iova, iova))
		assert_int_equal(phys_of(table, iova),
				 iova & DMACORE_BIT_MASK(format->output_bits));
	else
		check_absent(table, iova);
}

/* Ranges of all magnitudes in a window of 1 GiB, each leading to itself, as far as outputs reach. */
static void check_window(struct dmacore_pagetable *table, const struct format *format,
			 uint64_t window, uint64_t *random)
{
	const uint64_t granule = format->granule;
	struct intervals intervals = { .count = 0 };
	uint64_t mapped = 0;

	for (unsigned i = 0; i < 1000; i++) {
		uint64_t size = (GIB >> random_next(random) % 18) / granule;
		uint64_t first, last;
		unsigned chosen;

		size = (1 + random_next(random) % (size > 0 ? size : 1)) * granule;
		first = window + random_next(random) % ((GIB - size) / granule + 1) * granule;
		last = first + size - 1;
		if (random_next(random) % 4 && intervals.count < INTERVALS_MAX) {
			const bool meets = intervals_meet(&intervals, first, last);

			assert_result(
				dmacore_pagetable_map(table, first,
						      first & DMACORE_BIT_MASK(format->output_bits),
						      size, BOTH),
				meets ? -EEXIST : 0);
			if (!meets) {
				intervals.at[intervals.count++] = (struct interval){ first, last };
				mapped += size;
			}
		} else if (intervals.count > 0) {
			chosen = random_next(random) % intervals.count;
			first = intervals.at[chosen].first;
			last = intervals.at[chosen].last;
			assert_unmaps(table, first, last - first + 1, 0, last - first + 1);
			intervals.at[chosen] = intervals.at[--intervals.count];
			mapped -= last - first + 1;
		}
		check_point(table, format, &intervals, first);
		check_point(table, format, &intervals, last);
		if (first > window)
			check_point(table, format, &intervals, first - 1);
		if (last < window + (GIB - 1))
			check_point(table, format, &intervals, last + 1);
		check_point(table, format, &intervals, window + random_next(random) % GIB);
	}
	assert_int_equal(mapped_bytes(table), mapped);
	assert_unmaps(table, window, GIB, DMACORE_UNMAP_CROSS_HOLES, mapped);
}

/* DMACORE_SEED repeats a run. */
static uint64_t seed(void)
{
	const char *text = getenv("DMACORE_SEED");
	struct timespec now;
	uint64_t seed;

	if (text && *text)
		return strtoull(text, NULL, 0);
	clock_gettime(CLOCK_REALTIME, &now);
	seed = now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
	return random_next(&seed);
}

static void random_map(void **state)
{
	const struct format *format = *state;
	struct dmacore_pagetable *table = make_table(format, 0);
	const uint64_t last = last_input(format), start = seed();
	uint64_t random = start;

	print_message("%s: DMACORE_SEED=0x%" PRIx64 "\n", format->name, start);
	check_window(table, format, 0, &random);
	check_window(table, format, random_next(&random) % (last / GIB) * GIB, &random);
	check_window(table, format, last - (GIB - 1), &random);
	if (format->is_signed) {
		check_window(table, format, ~last, &random);
		check_window(table, format, -GIB, &random);
		assert_ok(dmacore_pagetable_trim(table, ~last, UINT64_MAX));
	}
	end_table(table, last);
}

static void pgsize_boundary(void **state)
{
	const struct format *format = *state;
	const uint64_t iova = 0xfef80000, size = 0x20000, phys = UINT64_C(0x208b95d000);
	struct dmacore_pagetable *table = make_table(format, 0);
	uint64_t sizes[32];

	/* Outputs at multiples of 4 KiB alone. */
	if (format->granule != PAGE) {
		assert_fails(dmacore_pagetable_map(table, iova, phys, size, BOTH), EINVAL);
	} else {
		assert_ok(dmacore_pagetable_map(table, iova, phys, size, BOTH));
		assert_int_equal(count_leaves(table, iova, iova + size - 1, phys, sizes, 32), 32);
		check_absent(table, iova - 1);
		check_absent(table, iova + size);
		assert_unmaps(table, iova, size, 0, size);
	}
	end_table(table, last_input(format));
}

static void mixed(void **state)
{
	const struct format *format = *state;
	const uint64_t first = UINT64_C(0x3fe400000), end = UINT64_C(0x4c0600000);
	struct dmacore_pagetable *table = make_table(format, 0);
	uint64_t next = first, sizes[1024];
	unsigned count;

	assert_ok(dmacore_pagetable_map(table, first, first, end - first, BOTH));
	count = count_leaves(table, first, end - 1, first, sizes, 1024);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(sizes[i], best_leaf(format, next, next, end - next));
		next += sizes[i];
	}
	/* 14 of 2 MiB, 3 of 1 GiB, 3 of 2 MiB, where there is nothing between these sizes. */
	if ((format->sizes & (2 * GIB - 2 * MIB)) == (BIT(21) | BIT(30))) {
		assert_int_equal(count, 20);
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(sizes[i], i < 14 || i >= 17 ? 2 * MIB : GIB);
	}
	assert_unmaps(table, first, end - first, 0, end - first);
	end_table(table, last_input(format));
}

/* The word of a table that leads an input on, in a table on whose way no root grew. */
static uint64_t *find_word(struct dmacore_pagetable *table, const struct format *format,
			   uint64_t iova, uint64_t size)
{
	const bool is_riscv = format->format == DMACORE_PAGETABLE_RISCV_FIRST_STAGE ||
			      format->format == DMACORE_PAGETABLE_RISCV_SECOND_STAGE;
	const unsigned page_shift = __builtin_ctz(format->granule), bits = page_shift - 3;
	const unsigned leaf_level = (__builtin_ctzll(size) - page_shift) / bits;
	dmacore_phys_t phys;

	assert_ok(dmacore_pagetable_root(table, &phys));
	for (unsigned level = format->levels - 1;; level--) {
		uint64_t index = iova >> (page_shift + level * bits), *words, address;

		words = (uint64_t *)(uintptr_t)phys;
		/* The root may be wider. */
		if (level < format->levels - 1)
			index &= BIT(bits) - 1;
		if (level == leaf_level)
			return words + index;
		address = is_riscv ? words[index] >> 10 << 12 : words[index];
		phys = address & (BIT(48) - format->granule);
	}
}

/* What hardware does to a leaf that permits writing and that something is written through. */
static void note_write(const struct format *format, uint64_t *word)
{
	switch (format->format) {
	case DMACORE_PAGETABLE_VTD_SECOND_STAGE:
		*word |= BIT(9);
		break;
	case DMACORE_PAGETABLE_ARM64_STAGE1:
		/* AP[2], read-only, which DBM in bit 51 lets hardware clear. */
		assert_true((*word & BIT(51)) && (*word & BIT(7)));
		*word &= ~BIT(7);
		break;
	case DMACORE_PAGETABLE_ARM64_STAGE2:
		/* S2AP[1], writable. */
		assert_true((*word & BIT(51)) && !(*word & BIT(7)));
		*word |= BIT(7);
		break;
	case DMACORE_PAGETABLE_RISCV_FIRST_STAGE:
	case DMACORE_PAGETABLE_RISCV_SECOND_STAGE:
		*word |= BIT(7);
		break;
	default:
		/* x86-64 and AMD v1. */
		*word |= BIT(6);
		break;
	}
}

/* Leaves up to this size, whose granules make a bitmap of 64 KiB. */
#define DIRTY_SIZE_MAX (BIT(31))

/* Whether exactly the bits from @first on are set, @count of them. */
static bool only_set(const uint64_t *bitmap, uint64_t all, uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < all; i++) {
		if ((bitmap[i / 64] >> (i % 64) & 1) != (i - first < count))
			return false;
	}
	return true;
}

static void check_dirty(struct dmacore_pagetable *table, const struct format *format, uint64_t size)
{
	const unsigned bits = __builtin_ctz(format->granule) - 3;
	const uint64_t count = size / format->granule, base = 2 * size;
	const unsigned level = (__builtin_ctzll(size) - bits - 3) / bits;
	const uint64_t word_count = count >> (level * bits);
	uint64_t *bitmap = calloc(3 * count / 64 + 1, 8);

	assert_non_null(bitmap);
	/* A leaf between two others. */
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_pagetable_map(table, base + i * size, i * size, size, BOTH));
	assert_ok(dmacore_pagetable_read_dirty(table, base, 3 * size, 0, bitmap));
	assert_true(only_set(bitmap, 3 * count, 0, 0));
	/* Any word of a run says it for all of the run. */
	for (uint64_t word = 0; word < word_count; word = word ? 2 * word + 1 : 1) {
		const unsigned flags[] = { 0, DMACORE_DIRTY_CLEAR };

		note_write(format, find_word(table, format, base + size, size) + word);
		for (unsigned i = 0; i < 2; i++) {
			memset(bitmap, 0, (3 * count / 64 + 1) * 8);
			assert_ok(dmacore_pagetable_read_dirty(table, base, 3 * size, flags[i],
							       bitmap));
			assert_true(only_set(bitmap, 3 * count, count, count));
		}
		memset(bitmap, 0, (3 * count / 64 + 1) * 8);
		assert_ok(dmacore_pagetable_read_dirty(table, base, 3 * size, 0, bitmap));
		assert_true(only_set(bitmap, 3 * count, 0, 0));
	}
	for (unsigned i = 0; i < 3; i++) {
		check_leaf(table, base + i * size, i * size, size);
		assert_int_equal(translate(table, base + i * size).access, BOTH);
	}
	assert_unmaps(table, base, 3 * size, 0, 3 * size);
	free(bitmap);
}

static void dirty(void **state)
{
	const struct format *format = *state;
	struct dmacore_pagetable *table = make_table(format, DMACORE_PAGETABLE_DIRTY);

	for (uint64_t size = smallest(format); size && size <= DIRTY_SIZE_MAX;
	     size = larger(format, size))
		check_dirty(table, format, size);
	end_table(table, last_input(format));
}

int main(void)
{
	const struct {
		const char *name;
		CMUnitTestFunction function;
	} suite[] = {
		{ "increase_level", increase_level },
		{ "map_simple", map_simple },
		{ "map_table_to_oa", map_table_to_oa },
		{ "unmap_split", unmap_split },
		{ "random_map", random_map },
		{ "pgsize_boundary", pgsize_boundary },
		{ "mixed", mixed },
		{ "dirty", dirty },
	};
	static struct CMUnitTest tests[1 + 8 * FORMAT_COUNT];
	static char names[8 * FORMAT_COUNT][96];

	tests[0] = (struct CMUnitTest)cmocka_unit_test(pagetable_suites__arm_self_tests);
	for (unsigned i = 0; i < 8 * FORMAT_COUNT; i++) {
		const struct format *format = &formats[i / 8];

		snprintf(names[i], sizeof(names[i]), "pagetable_suites__%s (%s)", suite[i % 8].name,
			 format->name);
		tests[1 + i] = (struct CMUnitTest){ names[i], suite[i % 8].function, NULL, NULL,
						    (void *)(uintptr_t)format };
	}
	return run_group("pagetable_suites", tests);
}
