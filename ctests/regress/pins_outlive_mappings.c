/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A zero-copy mapping holds addresses that the driver may have unmapped and that are given out
 * anew. It was taken for one of the new mapping. And it was not seen when it held a part of the
 * mapping's pages beside the buffer. Fixed by "core: Hold the promises of unmap, free and destroy
 * under races".
 */
#include "support/machine.h"

static struct dmacore_view_mapping *hold(struct machine *machine, dmacore_dma_t dma, uint64_t size)
{
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	assert_ok(dmacore_view_map(machine->view, dma, size, DMACORE_ACCESS_READ, &mapping,
				   &segments, &count));
	return mapping;
}

static void unmap__of_a_later_mapping_at_held_addresses_says_nothing(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	struct dmacore_view_mapping *mapping = hold(machine, dma, PAGE);

	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	/* The same addresses, of other memory. */
	assert_int_equal(map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE), dma);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_no_reports(&machine->reports);
	dmacore_view_unmap(mapping);
}

static void free_coherent__of_memory_at_held_addresses_succeeds(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	struct dmacore_view_mapping *mapping = hold(machine, dma, PAGE);
	dmacore_dma_t again;
	void *cpu;

	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &again));
	assert_int_equal(again, dma);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, again));
	dmacore_view_unmap(mapping);
}

static void unmap__reports_a_hold_on_its_pages_beside_the_buffer(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, 256, DMACORE_TO_DEVICE);
	struct dmacore_view_mapping *mapping = hold(machine, dma + 1024, 64);

	assert_ok(dmacore_unmap(machine->device, dma, 256, DMACORE_TO_DEVICE, 0));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	dmacore_view_unmap(mapping);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(unmap__of_a_later_mapping_at_held_addresses_says_nothing),
		test_on(TRANSLATED, free_coherent__of_memory_at_held_addresses_succeeds),
		test_on_translated(unmap__reports_a_hold_on_its_pages_beside_the_buffer),
	};

	return run_group("pins_outlive_mappings", tests);
}
