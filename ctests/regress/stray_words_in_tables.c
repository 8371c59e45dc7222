/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One word that somebody else wrote to a table page, where nothing was mapped, made every later
 * map call fail: the page was asked whether the addresses were free, not the IOVA space. Fixed by
 * "core: Hold the promises of unmap, free and destroy under races".
 */
#include "support/machine.h"

static void map_single__passes_over_words_that_somebody_else_wrote(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t first = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	dmacore_dma_t second;
	uint8_t byte = 0;

	/* A leaf in every entry of every table that has nothing yet. */
	for (unsigned i = 0; i < TABLE_POOL_PAGES; i++) {
		uint64_t *words = (uint64_t *)(machine->tables.bytes + i * PAGE);

		for (unsigned n = 0; machine->tables.used[i] && n < PAGE / 8; n++)
			if (words[n] == 0)
				words[n] = HIGH_BASE | 0x83;
	}
	machine->next[0] = 42;
	second = map_for(machine, machine->next, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_view_read(machine->view, second, &byte, 1));
	assert_int_equal(byte, 42);
	assert_ok(dmacore_unmap(machine->device, second, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, first, PAGE, DMACORE_TO_DEVICE, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(map_single__passes_over_words_that_somebody_else_wrote),
	};

	return run_group("stray_words_in_tables", tests);
}
