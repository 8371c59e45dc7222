/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* RISC-V tables, judged by QEMU's CPU. */

#include "support/walker_riscv.h"
#include "support/walker_tables.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)
#define EXECUTE WALK_EXECUTE
#define USER WALK_USER
#define PRIVILEGED DMACORE_ACCESS_PRIVILEGED

/* Privileged, Sv39: V, R, W, X, U, A and D of an entry; the output from bit 10; N, bit 63. */
#define RISCV_VALID 0x1
#define RISCV_READ 0x2
#define RISCV_WRITE 0x4
#define RISCV_EXECUTE 0x8
#define RISCV_USER 0x10
#define RISCV_USED 0xc0
#define RISCV_NAPOT (UINT64_C(1) << 63)
#define RISCV_OUTPUT(phys) ((uint64_t)(phys) >> 12 << 10)

/* Tables that the test writes by hand are in the walker's own pages from here on. */
#define HAND_PAGE WALKER_HAND_PAGE

static struct walker walker;
static struct cpu cpu;

static int start(void **state)
{
	(void)state;
	if (!walker_is_ready(&walker))
		riscv_start(&walker, &cpu);
	return 0;
}

static volatile uint64_t *hand_word(unsigned page, unsigned index)
{
	return qemu_word(&walker.qemu, walker_page(&walker, HAND_PAGE + page) + index * 8);
}

/* One table a level, the last one for pages; index 0 leads on. */
static void load_hand_tables(unsigned levels)
{
	for (unsigned i = 0; i + 1 < levels; i++)
		*hand_word(i, 0) =
			RISCV_OUTPUT(walker_page(&walker, HAND_PAGE + i + 1)) | RISCV_VALID;
	walker.load(&walker, walker_page(&walker, HAND_PAGE),
		    &(struct walker_geometry)WALKER_GEOMETRY(levels, 12 + 9 * levels, PAGE));
}

static void check_leads(uint64_t iova, uint64_t phys, uint32_t rights)
{
	const uint32_t accesses[] = { READ, WRITE, EXECUTE, USER };

	for (unsigned i = 0; i < 4; i++) {
		if (rights & accesses[i])
			assert_reaches(&walker, iova, accesses[i], phys);
		else
			assert_reaches_nothing(&walker, iova, accesses[i], WALK_DENIED, 0, phys);
	}
}

static void check_absent(uint64_t iova)
{
	assert_reaches_nothing(&walker, iova, READ, WALK_ABSENT, 0, WALK_NOWHERE);
}

static void walker_riscv__reads_leaves_of_every_size(void **state)
{
	const uint64_t phys = UINT64_C(0xfe000000000000);
	const struct {
		uint64_t bits;
		uint32_t rights;
	} rights[] = {
		{ RISCV_READ, READ },
		{ RISCV_READ | RISCV_WRITE, BOTH },
		{ RISCV_EXECUTE, EXECUTE },
		{ RISCV_READ | RISCV_EXECUTE | RISCV_USER, READ | EXECUTE | USER },
		{ RISCV_READ | RISCV_WRITE | RISCV_EXECUTE | RISCV_USER, BOTH | EXECUTE | USER },
	};

	(void)state;
	for (unsigned levels = 3; levels <= 5; levels++) {
		load_hand_tables(levels);
		for (unsigned level = 0; level < levels; level++) {
			const uint64_t size = PAGE << (9 * level);
			volatile uint64_t *word = hand_word(levels - 1 - level, 5);

			for (unsigned i = 0; i < sizeof(rights) / sizeof(*rights); i++) {
				*word = RISCV_OUTPUT(phys) | RISCV_VALID | RISCV_USED |
					rights[i].bits;
				check_leads(5 * size, phys, rights[i].rights);
				check_leads(6 * size - 1, phys + size - 1, rights[i].rights);
				check_absent(5 * size - 1);
				check_absent(6 * size);
			}
			*word &= ~(uint64_t)RISCV_VALID;
			check_absent(5 * size);
			*word = 0;
			check_absent(5 * size);
		}
	}
}

/* Privileged, Sv39: bits above those that are translated repeat the highest that is. */
static void walker_riscv__wants_canonical_addresses(void **state)
{
	const uint64_t phys = UINT64_C(0x123456789000);

	(void)state;
	for (unsigned levels = 3; levels <= 5; levels++) {
		const unsigned bits = 12 + 9 * levels;

		load_hand_tables(levels);
		*hand_word(0, 511) = *hand_word(0, 0);
		*hand_word(levels - 1, 1) =
			RISCV_OUTPUT(phys) | RISCV_VALID | RISCV_READ | RISCV_USED;
		check_leads(PAGE, phys, READ);
		/* The upper half, as the table knows it and as the CPU does. */
		check_leads(UINT64_C(511) << (bits - 9) | PAGE, phys, READ);
		check_leads(~UINT64_C(0) << (bits - 9) | PAGE, phys, READ);
		for (unsigned bit = bits; bit < 64; bit++)
			check_absent(UINT64_C(1) << bit | PAGE);
	}
}

/* Privileged, Svnapot: 64 KiB, by sixteen entries that are the same but for what is ignored. */
static void walker_riscv__reads_contiguous_pages(void **state)
{
	const uint64_t phys = UINT64_C(0x123456780000);

	(void)state;
	load_hand_tables(3);
	for (unsigned i = 16; i < 32; i++)
		*hand_word(2, i) = RISCV_OUTPUT(phys | 8 * PAGE) | RISCV_NAPOT | RISCV_VALID |
				   RISCV_READ | RISCV_WRITE | RISCV_USED;
	for (unsigned i = 0; i < 16; i++)
		check_leads((16 + i) * PAGE + i, phys + i * PAGE + i, BOTH);
	check_absent(15 * PAGE);
	check_absent(32 * PAGE);
}

/*
 * Tables of the library, with runs and without. The list gives no outputs for runs, nor for memory
 * types, so there all leaves can be read.
 */
static void for_tables(void (*check)(struct walker *walker, const struct walker_tables *tables))
{
	const char *const names[] = { "RISC-V, Sv39", "RISC-V, Sv39, runs",
				      "RISC-V, Sv48", "RISC-V, Sv48, runs",
				      "RISC-V, Sv57", "RISC-V, Sv57, runs" };
	const struct walker_tables plain = {
		.format = DMACORE_PAGETABLE_RISCV_FIRST_STAGE,
		.leaves = { PAGE, 2 * MIB, GIB, 512 * GIB, 262144 * GIB },
		.accesses = { READ, BOTH, EXECUTE, READ | EXECUTE, BOTH | EXECUTE,
			      READ | PRIVILEGED, BOTH | PRIVILEGED, EXECUTE | PRIVILEGED,
			      BOTH | EXECUTE | PRIVILEGED },
		.wanted = { READ, WRITE, EXECUTE, USER, BOTH | USER },
	};
	const struct walker_tables runs = {
		.format = DMACORE_PAGETABLE_RISCV_FIRST_STAGE,
		.leaves = { PAGE, 16 * PAGE, 2 * MIB, GIB, 512 * GIB, 262144 * GIB },
		.accesses = { READ, BOTH, READ | EXECUTE, BOTH | EXECUTE, READ | PRIVILEGED,
			      BOTH | PRIVILEGED, BOTH | EXECUTE | PRIVILEGED,
			      BOTH | DMACORE_ACCESS_MMIO },
		.wanted = { READ, WRITE, EXECUTE, USER, BOTH | USER },
	};

	for (unsigned i = 0; i < 6; i++) {
		const unsigned levels = 3 + i / 2, has_runs = i % 2;
		struct walker_tables tables = has_runs ? runs : plain;

		tables.name = names[i];
		tables.geometry.levels = levels;
		tables.geometry.input_bits = 12 + 9 * levels;
		tables.geometry.granule = PAGE;
		tables.geometry.is_signed = true;
		if (has_runs)
			tables.geometry.features =
				DMACORE_PAGETABLE_RUNS | DMACORE_PAGETABLE_MEMORY_TYPES;
		/* As many sizes as levels, and the runs. */
		tables.leaves[levels + has_runs] = 0;
		tables.target_last = DMACORE_BIT_MASK(56);
		tables.table_count = 80;
		check(&walker, &tables);
	}
}

static void walker_riscv__reaches_leaves_of_every_kind(void **state)
{
	(void)state;
	for_tables(walker_check_leaves);
}

static void walker_riscv__agrees_on_random_tables(void **state)
{
	(void)state;
	for_tables(walker_run_tables);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(walker_riscv__reads_leaves_of_every_size, start),
		cmocka_unit_test_setup(walker_riscv__wants_canonical_addresses, start),
		cmocka_unit_test_setup(walker_riscv__reads_contiguous_pages, start),
		cmocka_unit_test_setup(walker_riscv__reaches_leaves_of_every_kind, start),
		cmocka_unit_test_setup(walker_riscv__agrees_on_random_tables, start),
	};
	int status;

	if (!qemu_is_installed("qemu-system-riscv64"))
		return EXIT_SKIPPED;
	status = run_group("walker_riscv", tests);
	walker_stop(&walker);
	return status;
}
