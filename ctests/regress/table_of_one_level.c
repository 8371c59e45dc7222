/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * In a page table that has one level the address 2 led to a table on the next level, of which there is
 * none: looking it up, or mapping or unmapping a byte there, read through a null pointer.
 */
#include "support/check.h"

#include <dmacore.h>

static void pagetable__of_one_level_has_nothing_on_the_next(void **state)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_translation found;
	struct dmacore_pagetable *table;

	(void)state;
	options.format = DMACORE_PAGETABLE_AMD_V1;
	options.input_bits = 21;
	assert_ok(dmacore_pagetable_create(&options, &table));
	for (uint64_t iova = 0; iova < 16; iova++) {
		assert_fails(dmacore_pagetable_translate(table, iova, 0, &found), ENOENT);
		assert_fails(dmacore_pagetable_map(table, iova, 0, 1, DMACORE_ACCESS_READ), EINVAL);
		assert_fails(dmacore_pagetable_unmap(table, iova, 1, 0, NULL), EINVAL);
	}
	assert_ok(dmacore_pagetable_map(table, 0, PAGE, PAGE, DMACORE_ACCESS_READ));
	assert_ok(dmacore_pagetable_translate(table, 2, 0, &found));
	assert_int_equal(found.target, PAGE);
	dmacore_pagetable_destroy(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pagetable__of_one_level_has_nothing_on_the_next),
	};

	return run_group("table of one level", tests);
}
