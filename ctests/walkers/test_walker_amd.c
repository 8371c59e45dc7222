/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* AMD's v1 tables, judged by QEMU's AMD IOMMU. */

#include "support/walker_amd.h"
#include "support/walker_tables.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

/* Tables that the test writes by hand are in the walker's own pages from here on. */
#define HAND_PAGE WALKER_HAND_PAGE

static struct walker walker;
static struct edu edu;

static int start(void **state)
{
	(void)state;
	if (!walker_is_ready(&walker))
		amd_start(&walker, &edu);
	return 0;
}

static volatile uint64_t *hand_word(unsigned page, unsigned index)
{
	return qemu_word(&walker.qemu, walker_page(&walker, HAND_PAGE + page) + index * 8);
}

static uint64_t hand_table(unsigned page, unsigned level)
{
	return walker_page(&walker, HAND_PAGE + page) | AMD_PRESENT | AMD_NEXT_LEVEL(level) |
	       AMD_BOTH;
}

/* From a root of @levels levels, one table a level; index 0 leads on. */
static void load_hand_tables(unsigned levels)
{
	for (unsigned i = 0; i + 1 < levels; i++)
		*hand_word(i, 0) = hand_table(i + 1, levels - 1 - i);
	walker.load(&walker, walker_page(&walker, HAND_PAGE),
		    &(struct walker_geometry){ .levels = levels });
}

/* Both kinds of access to an address that leads to @phys, by permissions of @access. */
static void check_leads(uint64_t iova, uint64_t phys, uint32_t access)
{
	for (uint32_t wanted = READ; wanted <= WRITE; wanted++) {
		if (access & wanted)
			assert_reaches(&walker, iova, wanted, phys);
		else
			assert_reaches_nothing(&walker, iova, wanted, WALK_DENIED, AMD_SILENT,
					       phys);
	}
}

static void check_absent(uint64_t iova, uint32_t reason)
{
	assert_reaches_nothing(&walker, iova, READ, WALK_ABSENT, reason, PC_HIGH_FIRST);
	assert_reaches_nothing(&walker, iova, WRITE, WALK_ABSENT, reason, PC_HIGH_FIRST);
}

/* AMD 2.2.3: an entry of next level 0 is a leaf as large as what its level translates. */
static void walker_amd__reads_leaves_of_every_level(void **state)
{
	const uint64_t permissions[] = { AMD_READ, AMD_WRITE, AMD_BOTH };

	(void)state;
	for (unsigned levels = 3; levels <= 6; levels++) {
		load_hand_tables(levels);
		for (unsigned level = 1; level <= 3; level++) {
			const uint64_t size = PAGE << (9 * (level - 1));
			const uint64_t phys = PC_HIGH_FIRST + GIB;

			for (unsigned i = 0; i < 3; i++) {
				*hand_word(levels - level, 5) = phys | permissions[i] | AMD_PRESENT;
				check_leads(5 * size, phys, i + 1);
				check_leads(6 * size - 8, phys + size - 8, i + 1);
			}
			check_absent(6 * size, AMD_SILENT);
			*hand_word(levels - level, 5) = 0;
			check_absent(5 * size, AMD_SILENT);
		}
	}
}

/*
 * AMD 2.2.3, table of page sizes: next level 7 says that the size is in the address, by the lowest
 * bit from bit 12 that is 0. The entry is repeated in all that the page spans.
 */
static void walker_amd__reads_sizes_between_levels(void **state)
{
	(void)state;
	load_hand_tables(4);
	for (unsigned shift = 13; shift < 30; shift++) {
		const uint64_t size = UINT64_C(1) << shift, phys = PC_HIGH_FIRST + GIB;
		const unsigned level = shift > 21 ? 2 : 1, page = 4 - level;
		const uint64_t step = PAGE << (9 * (level - 1));

		/* Where the table of next level 7 begins, or 8 MiB into it. */
		for (unsigned i = 0; i < size / step && i < 512; i++)
			*hand_word(page, i) = phys | (size / 2 - PAGE) | AMD_NEXT_LEVEL(7) |
					      AMD_BOTH | AMD_PRESENT;
		check_leads(0, phys, BOTH);
		check_leads(size - 8, phys + size - 8, BOTH);
		check_leads(size / 2, phys + size / 2, BOTH);
		if (size / step < 512)
			check_absent(size, AMD_SILENT);
		for (unsigned i = 0; i < 512; i++)
			*hand_word(page, i) = 0;
		load_hand_tables(4);
	}
}

/* AMD 2.2.3: the permissions of a walk are those of all entries on the way. */
static void walker_amd__combines_permissions(void **state)
{
	(void)state;
	load_hand_tables(3);
	*hand_word(2, 0) = PC_HIGH_FIRST | AMD_PRESENT | AMD_BOTH;
	check_leads(0, PC_HIGH_FIRST, BOTH);
	*hand_word(1, 0) &= ~AMD_WRITE;
	assert_reaches(&walker, 0, READ, PC_HIGH_FIRST);
	assert_reaches_nothing(&walker, 0, WRITE, WALK_DENIED, AMD_PAGE_FAULT, PC_HIGH_FIRST);
	*hand_word(1, 0) &= ~AMD_PRESENT;
	check_absent(0, AMD_PAGE_FAULT);
}

/* Tables of the library: of as many levels as they are made with, and such that grow from 3 to 6. */
static void for_tables(void (*check)(struct walker *walker, const struct walker_tables *tables))
{
	const char *const names[] = { "AMD, 3 levels", "AMD, 4 levels", "AMD, 5 levels",
				      "AMD, 6 levels", "AMD, growing" };

	for (unsigned i = 0; i < 5; i++) {
		const bool grows = i == 4;
		const unsigned levels = grows ? 3 : 3 + i;
		struct walker_tables tables = {
			.name = names[i],
			.format = DMACORE_PAGETABLE_AMD_V1,
			.geometry = WALKER_GEOMETRY(
				levels, grows || levels == 6 ? 64 : 12 + 9 * levels, PAGE),
			.accesses = { READ, WRITE, BOTH },
			.target_first = PC_HIGH_FIRST,
			.target_last = PC_HIGH_LAST,
			.wraps = true,
			.hole_first = AMD_INTERRUPT_FIRST,
			.hole_last = AMD_INTERRUPT_LAST,
			.table_count = 80,
		};

		/* The largest is what the memory at its own multiple holds. */
		for (unsigned shift = 12; shift <= 32; shift++)
			tables.leaves[shift - 12] = UINT64_C(1) << shift;
		check(&walker, &tables);
	}
}

static void walker_amd__reaches_leaves_of_every_kind(void **state)
{
	(void)state;
	for_tables(walker_check_leaves);
}

static void walker_amd__agrees_on_random_tables(void **state)
{
	(void)state;
	for_tables(walker_run_tables);
}

/*
 * A table gets a root above the one it has when something is mapped that has no place below it. The
 * old root stays in use: so a walker that was not yet told still finds what it found.
 */
static void walker_amd__follows_a_root_that_grows(void **state)
{
	struct walker_geometry geometry = WALKER_GEOMETRY(3, 64, PAGE);
	struct dmacore_pagetable *table =
		walker_make_table(&walker, DMACORE_PAGETABLE_AMD_V1, &geometry);
	const uint64_t phys = PC_HIGH_FIRST + 3 * PAGE;
	dmacore_phys_t root, before;

	(void)state;
	assert_ok(dmacore_pagetable_map(table, 0, phys, PAGE, READ));
	check_leads(0, phys, READ);
	for (unsigned levels = 4; levels <= 6; levels++) {
		/* The last page below what the new root translates, and the first beyond the old one. */
		const uint64_t last =
			DMACORE_BIT_MASK(levels == 6 ? 64 : 12 + 9 * levels) - PAGE + 1;
		const uint64_t first = UINT64_C(1) << (3 + 9 * levels);

		assert_ok(dmacore_pagetable_root(table, &before));
		assert_ok(dmacore_pagetable_map(table, last, phys + levels * PAGE, PAGE, BOTH));
		assert_ok(dmacore_pagetable_root(table, &root));
		assert_true(root != before);
		check_leads(0, phys, READ);

		walker_load(&walker, table, &geometry);
		assert_int_equal(geometry.levels, levels);
		check_leads(0, phys, READ);
		check_leads(last, phys + levels * PAGE, BOTH);
		check_absent(first, AMD_SILENT);
		assert_ok(dmacore_pagetable_map(table, first, phys + 2 * MIB, PAGE, WRITE));
		assert_ok(dmacore_pagetable_root(table, &before));
		assert_true(root == before);
		check_leads(first, phys + 2 * MIB, WRITE);
		assert_ok(dmacore_pagetable_reclaim(table));
		check_leads(0, phys, READ);
	}
	dmacore_pagetable_destroy(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(walker_amd__reads_leaves_of_every_level, start),
		cmocka_unit_test_setup(walker_amd__reads_sizes_between_levels, start),
		cmocka_unit_test_setup(walker_amd__combines_permissions, start),
		cmocka_unit_test_setup(walker_amd__reaches_leaves_of_every_kind, start),
		cmocka_unit_test_setup(walker_amd__follows_a_root_that_grows, start),
		cmocka_unit_test_setup(walker_amd__agrees_on_random_tables, start),
	};
	int status;

	if (!qemu_is_installed("qemu-system-x86_64"))
		return EXIT_SKIPPED;
	status = run_group("walker_amd", tests);
	walker_stop(&walker);
	return status;
}
