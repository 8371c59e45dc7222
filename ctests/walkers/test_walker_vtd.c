/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Second-stage tables of the library, judged by QEMU's VT-d, which has no five levels. */

#include "support/walker_tables.h"
#include "support/walker_vtd.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

static struct walker walker;
static struct edu edu;

/* The width of QEMU's VT-d, and with it the number of levels that it can walk. */
static unsigned levels_max;

static int start(void **state)
{
	unsigned width = (uintptr_t)*state;

	if (levels_max != (width - 12) / 9)
		walker_stop(&walker);
	levels_max = (width - 12) / 9;
	if (!walker_is_ready(&walker))
		vtd_start(&walker, &edu, width);
	return 0;
}

static struct walker_geometry geometry_of(unsigned levels)
{
	return (struct walker_geometry)WALKER_GEOMETRY(levels, 12 + 9 * levels, PAGE);
}

static struct dmacore_pagetable *make_table(unsigned levels)
{
	struct walker_geometry geometry = geometry_of(levels);

	return walker_make_table(&walker, DMACORE_PAGETABLE_VTD_SECOND_STAGE, &geometry);
}

static void map(struct dmacore_pagetable *table, uint64_t iova, uint64_t phys, uint64_t size,
		uint32_t access)
{
	assert_ok(dmacore_pagetable_map(table, iova, phys, size, access));
}

static void unmap(struct dmacore_pagetable *table, uint64_t iova, uint64_t size)
{
	uint64_t unmapped;

	assert_ok(dmacore_pagetable_unmap(table, iova, size, 0, &unmapped));
	assert_int_equal(unmapped, size);
}

/* Both kinds of access to an address that leads to @phys, by permissions of @access. */
static void check_leads(uint64_t iova, uint64_t phys, uint32_t access)
{
	if (access & READ)
		assert_reaches(&walker, iova, READ, phys);
	else
		assert_reaches_nothing(&walker, iova, READ, WALK_DENIED, VTD_NO_READ, phys);
	if (access & WRITE)
		assert_reaches(&walker, iova, WRITE, phys);
	else
		assert_reaches_nothing(&walker, iova, WRITE, WALK_DENIED, VTD_NO_WRITE, phys);
}

static void check_absent(uint64_t iova, uint64_t phys)
{
	assert_reaches_nothing(&walker, iova, READ, WALK_ABSENT, VTD_NO_READ, phys);
	assert_reaches_nothing(&walker, iova, WRITE, WALK_ABSENT, VTD_NO_WRITE, phys);
}

static void check_beyond(uint64_t iova, uint64_t phys)
{
	assert_reaches_nothing(&walker, iova, READ, WALK_BEYOND, VTD_BEYOND, phys);
	assert_reaches_nothing(&walker, iova, WRITE, WALK_BEYOND, VTD_BEYOND, phys);
}

/* Leaves of each size, with each set of permissions, at both ends of the width. */
static void check_leaves(unsigned levels)
{
	const uint64_t sizes[] = { PAGE, 2 * MIB, GIB };
	const uint64_t end = UINT64_C(1) << (12 + 9 * levels);
	struct dmacore_pagetable *table = make_table(levels);

	for (unsigned i = 0; i < 3; i++) {
		const uint64_t size = sizes[i], iovas[] = { 0, end - size };

		for (uint32_t access = READ; access <= BOTH; access++) {
			for (unsigned n = 0; n < 2; n++) {
				const uint64_t phys = PC_HIGH_FIRST + GIB;

				map(table, iovas[n], phys, size, access);
				check_leads(iovas[n], phys, access);
				check_leads(iovas[n] + size - 8, phys + size - 8, access);
				if (n == 0)
					check_absent(size, phys);
				else
					check_absent(iovas[n] - 8, phys);
				unmap(table, iovas[n], size);
				check_absent(iovas[n], phys);
			}
		}
	}
	dmacore_pagetable_destroy(table);
}

static void walker_vtd__reaches_leaves_of_every_size(void **state)
{
	(void)state;
	for (unsigned levels = 3; levels <= levels_max; levels++)
		check_leaves(levels);
}

/* A range whose ends allow small leaves only has all three sizes inside. */
static void walker_vtd__reaches_leaves_of_all_sizes_in_a_row(void **state)
{
	const uint64_t first = GIB - 2 * MIB - PAGE, size = GIB + 4 * MIB + 2 * PAGE;
	const uint64_t shift = PC_HIGH_FIRST;
	const uint64_t steps[] = { 0, PAGE, 2 * MIB + PAGE, GIB + 2 * MIB + PAGE,
				   GIB + 4 * MIB + PAGE };

	(void)state;
	for (unsigned levels = 3; levels <= levels_max; levels++) {
		struct dmacore_pagetable *table = make_table(levels);

		map(table, first, first + shift, size, BOTH);
		for (unsigned i = 0; i < 5; i++) {
			uint64_t iova = first + steps[i];

			check_leads(iova, iova + shift, BOTH);
			if (i > 0)
				check_leads(iova - 8, iova - 8 + shift, BOTH);
		}
		check_absent(first - 8, first - 8 + shift);
		check_absent(first + size, first + size + shift);
		dmacore_pagetable_destroy(table);
	}
}

/* Low bits that lead somewhere must not, once a higher one is set. */
static void check_width(unsigned levels)
{
	struct dmacore_pagetable *table = make_table(levels);

	map(table, 0, PC_HIGH_FIRST, GIB, BOTH);
	for (unsigned bit = 12 + 9 * levels; bit < 64; bit++)
		check_beyond(UINT64_C(1) << bit | PAGE, PC_HIGH_FIRST + PAGE);
	for (unsigned bit = 30; bit < 12 + 9 * levels; bit++)
		check_absent(UINT64_C(1) << bit | PAGE, PC_HIGH_FIRST + PAGE);
	dmacore_pagetable_destroy(table);
}

static void walker_vtd__refuses_what_is_beyond_the_width(void **state)
{
	(void)state;
	for (unsigned levels = 3; levels <= levels_max; levels++)
		check_width(levels);
}

/* Unmapping one page of many, and mapping a large leaf where small ones were. */
static void walker_vtd__follows_changes(void **state)
{
	const uint64_t phys = PC_HIGH_FIRST + 8 * MIB;

	(void)state;
	for (unsigned levels = 3; levels <= levels_max; levels++) {
		struct dmacore_pagetable *table = make_table(levels);

		map(table, 4 * MIB, phys + PAGE, 2 * MIB, BOTH);
		unmap(table, 4 * MIB + 7 * PAGE, PAGE);
		check_leads(4 * MIB + 6 * PAGE, phys + 7 * PAGE, BOTH);
		check_absent(4 * MIB + 7 * PAGE, phys + 8 * PAGE);
		check_leads(4 * MIB + 8 * PAGE, phys + 9 * PAGE, BOTH);
		unmap(table, 4 * MIB, 7 * PAGE);
		unmap(table, 4 * MIB + 8 * PAGE, 2 * MIB - 8 * PAGE);
		check_absent(4 * MIB + 8 * PAGE, phys + 9 * PAGE);
		map(table, 4 * MIB, phys, 2 * MIB, READ);
		check_leads(4 * MIB + 7 * PAGE, phys + 7 * PAGE, READ);
		assert_ok(dmacore_pagetable_reclaim(table));
		check_leads(4 * MIB + 9 * PAGE, phys + 9 * PAGE, READ);
		dmacore_pagetable_destroy(table);
	}
}

/*
 * That the judge sees it when one bit of a leaf is wrong: VT-d 9.8, second-stage paging entries:
 * bits 1:0 are write and read, bit 7 is page size, 51:12 the address.
 */
static void walker_vtd__notices_a_flipped_bit(void **state)
{
	struct dmacore_pagetable *table = make_table(3);
	const uint64_t phys = PC_HIGH_FIRST + 64 * MIB;
	volatile uint64_t *leaf;
	dmacore_phys_t root;
	struct walk walk;

	(void)state;
	map(table, 2 * MIB, phys, 2 * MIB, BOTH);
	assert_ok(dmacore_pagetable_root(table, &root));
	leaf = qemu_word(&walker.qemu, (*qemu_word(&walker.qemu, root) & ~(PAGE - 1)) + 8);
	check_leads(2 * MIB, phys, BOTH);
	*leaf ^= 1;
	check_leads(2 * MIB, phys, WRITE);
	*leaf ^= 3;
	check_leads(2 * MIB, phys, READ);
	*leaf ^= 2;
	*leaf ^= 1 << 21;
	check_leads(2 * MIB, phys ^ 1 << 21, BOTH);
	walk = walker_walk(&walker, 2 * MIB, READ, phys);
	assert_false(walk_is(&walk, WALK_REACHED, phys));
	/* A bit that must be zero in a large leaf. */
	*leaf ^= 1 << 21 | 1 << 12;
	assert_reaches_nothing(&walker, 2 * MIB, READ, WALK_MALFORMED, VTD_RESERVED_BITS, phys);
	*leaf ^= 1 << 12;
	check_leads(2 * MIB, phys, BOTH);
	dmacore_pagetable_destroy(table);
}

static void walker_vtd__agrees_on_random_tables(void **state)
{
	(void)state;
	for (unsigned levels = 3; levels <= levels_max; levels++) {
		struct walker_tables tables = {
			.name = levels == 3 ? "VT-d, 3 levels" : "VT-d, 4 levels",
			.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE,
			.geometry = geometry_of(levels),
			.leaves = { PAGE, 2 * MIB, GIB },
			.accesses = { READ, WRITE, BOTH },
			.target_first = PC_HIGH_FIRST,
			.target_last = PC_HIGH_LAST,
			.hole_first = VTD_INTERRUPT_FIRST,
			.hole_last = VTD_INTERRUPT_LAST,
			.table_count = 80,
		};

		walker_run_tables(&walker, &tables);
	}
}

#define test_with(width, function)                                                                \
	{                                                                                         \
#function " (" #width " bits)", function, start, NULL, (void *)(uintptr_t)(width) \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with(39, walker_vtd__reaches_leaves_of_every_size),
		test_with(39, walker_vtd__reaches_leaves_of_all_sizes_in_a_row),
		test_with(39, walker_vtd__refuses_what_is_beyond_the_width),
		test_with(39, walker_vtd__agrees_on_random_tables),
		/* Another QEMU. */
		test_with(48, walker_vtd__reaches_leaves_of_every_size),
		test_with(48, walker_vtd__reaches_leaves_of_all_sizes_in_a_row),
		test_with(48, walker_vtd__refuses_what_is_beyond_the_width),
		test_with(48, walker_vtd__follows_changes),
		test_with(48, walker_vtd__notices_a_flipped_bit),
		test_with(48, walker_vtd__agrees_on_random_tables),
	};
	int status;

	if (!qemu_is_installed("qemu-system-x86_64"))
		return EXIT_SKIPPED;
	status = run_group("walker_vtd", tests);
	walker_stop(&walker);
	return status;
}
