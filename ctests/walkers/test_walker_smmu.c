/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* AArch64 stage 1 tables, judged by QEMU's SMMUv3. */

#include "support/walker_smmu.h"
#include "support/walker_tables.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

/* Tables that the test writes by hand are in the walker's own pages from here on, 64 KiB each. */
#define HAND_PAGE WALKER_HAND_PAGE
#define HAND_STEP 16

/*
 * Arm ARM D8.3.1: bits 1:0 say table, or page at the last level, or block; AF is bit 10, AP[2:1]
 * are bits 7:6, of which the upper is read-only; APTable[1], bit 62, makes all below read-only.
 */
#define ARM_TABLE UINT64_C(3)
#define ARM_PAGE UINT64_C(3)
#define ARM_BLOCK UINT64_C(1)
#define ARM_AF (UINT64_C(1) << 10)
#define ARM_USER (UINT64_C(1) << 6)
#define ARM_READ_ONLY (UINT64_C(1) << 7)
#define ARM_TABLE_READ_ONLY (UINT64_C(1) << 62)

static struct walker walker;
static struct edu edu;

static int start(void **state)
{
	(void)state;
	if (!walker_is_ready(&walker))
		smmu_start(&walker, &edu);
	return 0;
}

static uint64_t hand_table(unsigned table)
{
	return walker_page(&walker, HAND_PAGE + table * HAND_STEP);
}

static volatile uint64_t *hand_word(unsigned table, unsigned index)
{
	return qemu_word(&walker.qemu, hand_table(table) + index * 8);
}

/* One table a level, the last one for pages; index 0 leads on. */
static void load_hand_tables(const struct walker_geometry *geometry)
{
	for (unsigned i = 0; i + 1 < geometry->levels; i++)
		*hand_word(i, 0) = hand_table(i + 1) | ARM_TABLE;
	walker.load(&walker, hand_table(0), geometry);
}

static void check_leads(uint64_t iova, uint64_t phys, uint32_t access)
{
	assert_reaches(&walker, iova, READ, phys);
	if (access & WRITE)
		assert_reaches(&walker, iova, WRITE, phys);
	else
		assert_reaches_nothing(&walker, iova, WRITE, WALK_DENIED, SMMU_F_PERMISSION, phys);
}

static void check_absent(uint64_t iova, uint64_t phys)
{
	assert_reaches_nothing(&walker, iova, READ, WALK_ABSENT, SMMU_F_TRANSLATION, phys);
	assert_reaches_nothing(&walker, iova, WRITE, WALK_ABSENT, SMMU_F_TRANSLATION, phys);
}

static void check_beyond(uint64_t iova, uint64_t phys)
{
	assert_reaches_nothing(&walker, iova, READ, WALK_BEYOND, SMMU_F_TRANSLATION, phys);
	assert_reaches_nothing(&walker, iova, WRITE, WALK_BEYOND, SMMU_F_TRANSLATION, phys);
}

/* Arm ARM D8.2, tables of translation levels: where pages and blocks are, by the granule. */
static void walker_smmu__reads_leaves_of_every_level(void **state)
{
	const struct {
		struct walker_geometry geometry;
		/* Sizes of leaves at the last level and above. */
		uint64_t sizes[4];
	} cases[] = {
		{ WALKER_GEOMETRY(3, 39, 4096), { PAGE, 2 * MIB, GIB } },
		{ WALKER_GEOMETRY(4, 48, 4096), { PAGE, 2 * MIB, GIB } },
		{ WALKER_GEOMETRY(4, 42, 4096), { PAGE, 2 * MIB, GIB } },
		{ WALKER_GEOMETRY(2, 30, 4096), { PAGE, 2 * MIB } },
		{ WALKER_GEOMETRY(3, 47, 16384), { 16384, 32 * MIB } },
		{ WALKER_GEOMETRY(4, 48, 16384), { 16384, 32 * MIB } },
		{ WALKER_GEOMETRY(2, 36, 16384), { 16384, 32 * MIB } },
		{ WALKER_GEOMETRY(3, 48, 65536), { 65536, 512 * MIB } },
		{ WALKER_GEOMETRY(2, 42, 65536), { 65536, 512 * MIB } },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct walker_geometry *geometry = &cases[i].geometry;

		load_hand_tables(geometry);
		for (unsigned level = 0; cases[i].sizes[level]; level++) {
			const uint64_t size = cases[i].sizes[level];
			const uint64_t phys = SMMU_TARGET_FIRST + GIB;
			const uint64_t leaf =
				phys | ARM_AF | ARM_USER | (level ? ARM_BLOCK : ARM_PAGE);
			volatile uint64_t *word = hand_word(geometry->levels - 1 - level, 1);

			*word = leaf;
			check_leads(size, phys, BOTH);
			check_leads(2 * size - 8, phys + size - 8, BOTH);
			*word = leaf | ARM_READ_ONLY;
			check_leads(size, phys, READ);
			if (geometry->levels - level > 1)
				check_absent(2 * size, phys);
			for (unsigned bit = geometry->input_bits; bit < SMMU_INPUT_BITS; bit++)
				check_beyond(size | UINT64_C(1) << bit, phys);
			*word = leaf & ~UINT64_C(1);
			check_absent(size, phys);
			*word = 0;
			check_absent(size, phys);
		}
	}
}

/* Arm ARM D8.3.1.1: there is no block at the last level, nor above the sizes in the tables. */
static void walker_smmu__refuses_blocks_where_none_are(void **state)
{
	const struct walker_geometry geometry = WALKER_GEOMETRY(4, 48, 4096);

	(void)state;
	load_hand_tables(&geometry);
	*hand_word(3, 1) = SMMU_TARGET_FIRST | ARM_AF | ARM_USER | ARM_BLOCK;
	check_absent(PAGE, SMMU_TARGET_FIRST);
}

static void walker_smmu__combines_permissions(void **state)
{
	const struct walker_geometry geometry = WALKER_GEOMETRY(3, 39, 4096);
	const uint64_t phys = SMMU_TARGET_FIRST;

	(void)state;
	load_hand_tables(&geometry);
	*hand_word(2, 1) = phys | ARM_AF | ARM_USER | ARM_PAGE;
	check_leads(PAGE, phys, BOTH);
	*hand_word(1, 0) |= ARM_TABLE_READ_ONLY;
	check_leads(PAGE, phys, READ);
}

/*
 * Tables of the library, of every granule and in widths whose roots are full, nearly empty and in
 * between. QEMU takes the words of a run one by one, and does not look at what it does not judge:
 * privilege, instructions and kinds of memory, of which there are some so that they disturb nothing.
 */
static void for_tables(void (*check)(struct walker *walker, const struct walker_tables *tables))
{
	const struct {
		const char *name;
		unsigned levels, input_bits;
		uint64_t granule;
		uint32_t features;
		uint64_t leaves[6];
	} cases[] = {
		{ "ARM, 4 KiB, 36 bits", 3, 36, 4096, 0, { PAGE, 2 * MIB, GIB } },
		{ "ARM, 4 KiB, 39 bits, runs",
		  3,
		  39,
		  4096,
		  DMACORE_PAGETABLE_RUNS,
		  { PAGE, 16 * PAGE, 2 * MIB, 32 * MIB, GIB } },
		{ "ARM, 4 KiB, 40 bits", 4, 40, 4096, 0, { PAGE, 2 * MIB, GIB } },
		{ "ARM, 4 KiB, 48 bits, runs",
		  4,
		  48,
		  4096,
		  DMACORE_PAGETABLE_RUNS,
		  { PAGE, 16 * PAGE, 2 * MIB, 32 * MIB, GIB } },
		{ "ARM, 16 KiB, 36 bits", 2, 36, 16384, 0, { 16384, 32 * MIB } },
		{ "ARM, 16 KiB, 37 bits, runs",
		  3,
		  37,
		  16384,
		  DMACORE_PAGETABLE_RUNS,
		  { 16384, 2 * MIB, 32 * MIB, GIB } },
		{ "ARM, 16 KiB, 47 bits", 3, 47, 16384, 0, { 16384, 32 * MIB } },
		{ "ARM, 16 KiB, 48 bits, runs",
		  4,
		  48,
		  16384,
		  DMACORE_PAGETABLE_RUNS,
		  { 16384, 2 * MIB, 32 * MIB, GIB } },
		{ "ARM, 64 KiB, 36 bits", 2, 36, 65536, 0, { 65536, 512 * MIB } },
		{ "ARM, 64 KiB, 42 bits, runs",
		  2,
		  42,
		  65536,
		  DMACORE_PAGETABLE_RUNS,
		  { 65536, 2 * MIB, 512 * MIB } },
		{ "ARM, 64 KiB, 48 bits, runs",
		  3,
		  48,
		  65536,
		  DMACORE_PAGETABLE_RUNS,
		  { 65536, 2 * MIB, 512 * MIB } },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct walker_tables tables = {
			.name = cases[i].name,
			.format = DMACORE_PAGETABLE_ARM64_STAGE1,
			.geometry = { .levels = cases[i].levels,
				      .input_bits = cases[i].input_bits,
				      .granule = cases[i].granule,
				      .features = cases[i].features },
			.accesses = { READ, BOTH, READ | DMACORE_ACCESS_EXECUTE,
				      BOTH | DMACORE_ACCESS_PRIVILEGED,
				      READ | DMACORE_ACCESS_CACHEABLE, BOTH | DMACORE_ACCESS_MMIO },
			.target_first = SMMU_TARGET_FIRST,
			.target_last = SMMU_TARGET_LAST,
			/* What QEMU does not see. */
			.hole_first = UINT64_C(1) << SMMU_INPUT_BITS,
			.hole_last = UINT64_MAX,
			.table_count = 40,
		};

		memcpy(tables.leaves, cases[i].leaves, sizeof(cases[i].leaves));
		check(&walker, &tables);
	}
}

static void walker_smmu__reaches_leaves_of_every_kind(void **state)
{
	(void)state;
	for_tables(walker_check_leaves);
}

static void walker_smmu__agrees_on_random_tables(void **state)
{
	(void)state;
	for_tables(walker_run_tables);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(walker_smmu__reads_leaves_of_every_level, start),
		cmocka_unit_test_setup(walker_smmu__refuses_blocks_where_none_are, start),
		cmocka_unit_test_setup(walker_smmu__combines_permissions, start),
		cmocka_unit_test_setup(walker_smmu__reaches_leaves_of_every_kind, start),
		cmocka_unit_test_setup(walker_smmu__agrees_on_random_tables, start),
	};
	int status;

	if (!qemu_is_installed("qemu-system-aarch64"))
		return EXIT_SKIPPED;
	status = run_group("walker_smmu", tests);
	walker_stop(&walker);
	return status;
}
