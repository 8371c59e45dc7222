/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Hardware notes in any word of a run what was written through all of it. A split looked at the word
 * at the border alone, and forgot what another one said.
 */

#include "support/tables.h"

/* Of a leaf of stage 1: the bit that hardware clears when it notes a write. */
#define READ_ONLY (UINT64_C(1) << 7)

static struct table_pool pool;

/* The word for an output, of those that the tables have. */
static uint64_t *find_word(uint64_t phys)
{
	for (unsigned i = 0; i < TABLE_POOL_PAGES * PAGE / 8; i++) {
		uint64_t *word = (uint64_t *)(void *)pool.bytes + i;

		if (pool.used[i * 8 / PAGE] && (*word & UINT64_C(0xfffffffff000)) == phys)
			return word;
	}
	fail_msg("no word leads to %#lx", phys);
	return NULL;
}

static void split__knows_what_any_word_of_a_run_says(void **state)
{
	const uint64_t phys = UINT64_C(0x80000000);

	(void)state;
	for (unsigned written = 0; written < 16; written++) {
		struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
		struct dmacore_pagetable *table;
		uint64_t bits = 0;

		table_pool_start(&pool);
		options.format = DMACORE_PAGETABLE_ARM64_STAGE1;
		options.features = DMACORE_PAGETABLE_RUNS | DMACORE_PAGETABLE_DIRTY;
		options.allocator = &pool.allocator;
		assert_ok(dmacore_pagetable_create(&options, &table));
		assert_ok(dmacore_pagetable_map(table, 0, phys, 16 * PAGE,
						DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE));
		*find_word(phys + written * PAGE) &= ~READ_ONLY;
		assert_ok(dmacore_pagetable_unmap(table, 5 * PAGE, 3 * PAGE, DMACORE_UNMAP_SPLIT,
						  NULL));
		assert_ok(dmacore_pagetable_read_dirty(table, 0, 16 * PAGE, 0, &bits));
		assert_int_equal(bits, 0xff1f);
		dmacore_pagetable_destroy(table);
		table_pool_stop(&pool);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split__knows_what_any_word_of_a_run_says),
	};

	return run_group("split of a dirty run", tests);
}
