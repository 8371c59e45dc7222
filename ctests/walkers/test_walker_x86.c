/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* x86-64 tables, judged by QEMU's CPU. */

#include "support/walker_tables.h"
#include "support/walker_x86.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)
#define EXECUTE WALK_EXECUTE
#define USER WALK_USER
#define PRIVILEGED DMACORE_ACCESS_PRIVILEGED

/* SDM 4.5.4: P, R/W, U/S and PS of an entry; XD. */
#define X86_PRESENT UINT64_C(0x1)
#define X86_WRITABLE UINT64_C(0x2)
#define X86_USER UINT64_C(0x4)
#define X86_LARGE UINT64_C(0x80)
#define X86_NO_EXECUTE (UINT64_C(1) << 63)
#define X86_TABLE (X86_PRESENT | X86_WRITABLE | X86_USER)

/* Tables that the test writes by hand are in the walker's own pages from here on. */
#define HAND_PAGE WALKER_HAND_PAGE

static struct walker walker;
static struct cpu cpu;

static int start(void **state)
{
	(void)state;
	if (!walker_is_ready(&walker))
		x86_start(&walker, &cpu);
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
		*hand_word(i, 0) = walker_page(&walker, HAND_PAGE + i + 1) | X86_TABLE;
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

static void walker_x86__reads_leaves_of_every_size(void **state)
{
	const uint64_t sizes[] = { PAGE, 2 * MIB, GIB };
	const uint64_t phys = UINT64_C(0x3fffc0000000);

	(void)state;
	for (unsigned levels = 4; levels <= 5; levels++) {
		load_hand_tables(levels);
		for (unsigned level = 0; level < 3; level++) {
			const uint64_t size = sizes[level];
			const uint64_t leaf = phys | X86_PRESENT | (level ? X86_LARGE : 0);
			volatile uint64_t *word = hand_word(levels - 1 - level, 5);

			*word = leaf;
			check_leads(5 * size, phys, READ | EXECUTE);
			check_leads(6 * size - 1, phys + size - 1, READ | EXECUTE);
			check_absent(5 * size - 1);
			check_absent(6 * size);
			*word = leaf | X86_WRITABLE | X86_NO_EXECUTE;
			check_leads(5 * size, phys, BOTH);
			*word = leaf | X86_USER;
			check_leads(5 * size, phys, READ | EXECUTE | USER);
			*word = leaf & ~X86_PRESENT;
			check_absent(5 * size);
			*word = 0;
			check_absent(5 * size);
		}
	}
}

/* SDM 3.3.7.1: bits above those that are translated repeat the highest that is. */
static void walker_x86__wants_canonical_addresses(void **state)
{
	(void)state;
	for (unsigned levels = 4; levels <= 5; levels++) {
		const unsigned bits = 12 + 9 * levels;
		const uint64_t phys = UINT64_C(0x123456789000);

		load_hand_tables(levels);
		*hand_word(0, 511) = *hand_word(0, 0);
		*hand_word(levels - 1, 1) = phys | X86_TABLE;
		check_leads(PAGE, phys, BOTH | EXECUTE | USER);
		/* The upper half, as the table knows it and as the CPU does. */
		check_leads(UINT64_C(511) << (bits - 9) | PAGE, phys,
			    READ | WRITE | EXECUTE | USER);
		check_leads(~UINT64_C(0) << (bits - 9) | PAGE, phys, READ | WRITE | EXECUTE | USER);
		for (unsigned bit = bits; bit < 64; bit++)
			check_absent(UINT64_C(1) << bit | PAGE);
	}
}

/* SDM 4.6: the permissions of a walk are those of all entries on the way. */
static void walker_x86__combines_permissions(void **state)
{
	const uint64_t phys = UINT64_C(0x5000);

	(void)state;
	load_hand_tables(4);
	*hand_word(3, 1) = phys | X86_TABLE;
	for (unsigned i = 0; i < 3; i++) {
		*hand_word(i, 0) &= ~X86_WRITABLE;
		check_leads(PAGE, phys, READ | EXECUTE | USER);
		*hand_word(i, 0) ^= X86_WRITABLE | X86_USER;
		check_leads(PAGE, phys, BOTH | EXECUTE);
		*hand_word(i, 0) |= X86_USER;
		check_leads(PAGE, phys, BOTH | EXECUTE | USER);
	}
}

/*
 * VT-d 9.8: an entry of the second stage that permits reading has the bits of a CPU's entry, with R
 * for P. So the CPU judges such tables too, also those of 5 levels, which QEMU's VT-d refuses.
 */
static void for_second_stage(void (*check)(struct walker *walker,
					   const struct walker_tables *tables))
{
	for (unsigned levels = 4; levels <= 5; levels++) {
		const unsigned bits = 12 + 9 * levels;
		struct walker_tables tables = {
			.name = levels == 4 ? "second stage by CPU, 4 levels" :
					      "second stage by CPU, 5 levels",
			.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE,
			.geometry = WALKER_GEOMETRY(levels, bits, PAGE),
			.leaves = { PAGE, 2 * MIB, GIB },
			.accesses = { READ, BOTH },
			.target_first = 0,
			.target_last = X86_LISTED_PHYS,
			.hole_first = ~UINT64_C(0) << (bits - 1),
			.hole_last = UINT64_MAX,
			.table_count = 80,
		};

		check(&walker, &tables);
	}
}

static void walker_x86__reaches_second_stage_leaves_of_every_kind(void **state)
{
	(void)state;
	for_second_stage(walker_check_leaves);
}

static void walker_x86__agrees_on_random_second_stage_tables(void **state)
{
	(void)state;
	for_second_stage(walker_run_tables);
}

/* Tables of the library with and without the upper half of the CPU's addresses. */
static void for_tables(void (*check)(struct walker *walker, const struct walker_tables *tables))
{
	const char *const names[] = { "x86-64, 4 levels", "x86-64, 4 levels, signed",
				      "x86-64, 5 levels", "x86-64, 5 levels, signed" };

	for (unsigned i = 0; i < 4; i++) {
		const unsigned levels = 4 + i / 2;
		const bool is_signed = i % 2;
		struct walker_tables tables = {
			.name = names[i],
			.format = DMACORE_PAGETABLE_X86_64,
			.geometry = { .levels = levels,
				      .input_bits = 11 + 9 * levels + is_signed,
				      .granule = PAGE,
				      .features = is_signed ? DMACORE_PAGETABLE_SIGNED_INPUT : 0,
				      .is_signed = is_signed },
			.leaves = { PAGE, 2 * MIB, GIB },
			.accesses = { READ, BOTH, READ | EXECUTE, BOTH | EXECUTE, READ | PRIVILEGED,
				      BOTH | PRIVILEGED, READ | EXECUTE | PRIVILEGED,
				      BOTH | EXECUTE | PRIVILEGED, BOTH | DMACORE_ACCESS_MMIO },
			.wanted = { READ, WRITE, EXECUTE, USER, BOTH | USER },
			.target_first = 0,
			.target_last = DMACORE_BIT_MASK(52),
			.table_count = 80,
		};

		check(&walker, &tables);
	}
}

static void walker_x86__reaches_leaves_of_every_kind(void **state)
{
	(void)state;
	for_tables(walker_check_leaves);
}

static void walker_x86__agrees_on_random_tables(void **state)
{
	(void)state;
	for_tables(walker_run_tables);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(walker_x86__reads_leaves_of_every_size, start),
		cmocka_unit_test_setup(walker_x86__wants_canonical_addresses, start),
		cmocka_unit_test_setup(walker_x86__combines_permissions, start),
		cmocka_unit_test_setup(walker_x86__reaches_second_stage_leaves_of_every_kind,
				       start),
		cmocka_unit_test_setup(walker_x86__agrees_on_random_second_stage_tables, start),
		cmocka_unit_test_setup(walker_x86__reaches_leaves_of_every_kind, start),
		cmocka_unit_test_setup(walker_x86__agrees_on_random_tables, start),
	};
	int status;

	if (!qemu_is_installed("qemu-system-x86_64"))
		return EXIT_SKIPPED;
	status = run_group("walker_x86", tests);
	walker_stop(&walker);
	return status;
}
