/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Bypass in hybrid domains, turned off and on with mappings in flight. */

#include "support/listener.h"
#include "support/machine.h"

#include <pthread.h>
#include <stdatomic.h>

#define BOTH (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE)

static int setup(void **state)
{
	struct machine *machine = malloc(sizeof(*machine));

	assert_non_null(machine);
	machine_start(machine, (enum path)(uintptr_t)*state);
	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	*state = machine;
	return 0;
}

/* With a record of direct mappings, and without. */
#define test_bypass(function)                                              \
	{ #function " (untracked)", function, setup, machine_teardown,     \
	  (void *)(uintptr_t)TRANSLATED },                                 \
	{                                                                  \
#function " (tracked)", function, setup, machine_teardown, \
			(void *)(uintptr_t)(TRANSLATED | TRACKED)          \
	}

static void assert_reads(struct machine *machine, dmacore_dma_t dma, uint8_t expected)
{
	uint8_t byte = ~expected;

	assert_ok(dmacore_view_read(machine->view, dma, &byte, 1));
	assert_int_equal(byte, expected);
}

static void live_direct_mappings__stay_until_they_are_unmapped(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t first, second, translated;

	machine->low[0] = 1;
	first = map_for(machine, machine->low, 100, DMACORE_BIDIRECTIONAL);
	second = map_for(machine, machine->low, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_int_equal(first, LOW_BASE);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	/* Its piece is still there, and those that nobody uses are not. */
	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_false(is_in_window(machine->domain, NEXT_BASE));
	assert_false(is_in_window(machine->domain, HIGH_BASE));
	assert_reads(machine, first, 1);
	assert_ok(dmacore_sync_for_cpu(machine->device, first, 100, DMACORE_BIDIRECTIONAL));
	/* What is mapped now is translated. */
	translated = map_for(machine, machine->low, 100, DMACORE_BIDIRECTIONAL);
	assert_int_not_equal(translated, LOW_BASE);
	assert_reads(machine, translated, 1);
	assert_ok(dmacore_unmap(machine->device, first, 100, DMACORE_BIDIRECTIONAL, 0));
	assert_reads(machine, second, 1);
	/* The window's leftovers go with the last one. */
	assert_ok(dmacore_unmap(machine->device, second, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_false(is_in_window(machine->domain, LOW_BASE));
	assert_misuse(machine,
		      dmacore_unmap(machine->device, second, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_reads(machine, translated, 1);
	assert_ok(dmacore_unmap(machine->device, translated, 100, DMACORE_BIDIRECTIONAL, 0));
}

static void bypass__may_come_back_with_mappings_of_both_kinds(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t direct, translated, again;

	machine->low[9] = 3;
	direct = map_for(machine, machine->low, 10, DMACORE_TO_DEVICE);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	translated = map_for(machine, machine->low, 10, DMACORE_TO_DEVICE);
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_true(is_in_window(machine->domain, NEXT_BASE));
	assert_true(is_in_window(machine->domain, HIGH_BASE));
	again = map_for(machine, machine->low, 10, DMACORE_TO_DEVICE);
	assert_int_equal(again, direct);
	assert_int_not_equal(translated, direct);
	assert_reads(machine, direct + 9, 3);
	assert_reads(machine, translated + 9, 3);
	assert_ok(dmacore_unmap(machine->device, direct, 10, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, translated, 10, DMACORE_TO_DEVICE, 0));
	assert_reads(machine, again + 9, 3);
	assert_ok(dmacore_unmap(machine->device, again, 10, DMACORE_TO_DEVICE, 0));
	assert_true(is_in_window(machine->domain, LOW_BASE));
}

/* Of which nobody has unmapped what it had: nobody else is to reach that. */
static void leftovers__go_with_the_last_device(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	struct dmacore_domain *next = make_domain(machine, DMACORE_DOMAIN_DMA, 0, 0);
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_attach(machine->domain, other));
	map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	map_for(machine, machine->next, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_map_single(other, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	/* While another is there nobody knows whose they are. */
	dmacore_device_destroy(other);
	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_true(is_in_window(machine->domain, NEXT_BASE));
	assert_ok(dmacore_domain_replace(next, machine->device));
	assert_false(is_in_window(machine->domain, LOW_BASE));
	assert_false(is_in_window(machine->domain, NEXT_BASE));
	/* With bypass they are the window's again, and as if nothing had been. */
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	assert_ok(dmacore_domain_replace(machine->domain, machine->device));
	assert_int_equal(map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE), LOW_BASE);
	assert_ok(dmacore_domain_replace(next, machine->device));
	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	assert_false(is_in_window(machine->domain, LOW_BASE));
	dmacore_domain_destroy(machine->domain);
	machine->domain = next;
}

/* One mapping in two pieces is a user of both, and counts once. */
static void mapping_of_two_regions__keeps_both(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	assert_ok(
		dmacore_map_phys(machine->device, NEXT_BASE - 10, 20, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, NEXT_BASE - 10);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_true(is_in_window(machine->domain, NEXT_BASE));
	assert_false(is_in_window(machine->domain, HIGH_BASE));
	assert_ok(dmacore_unmap(machine->device, dma, 20, DMACORE_TO_DEVICE, 0));
	assert_false(is_in_window(machine->domain, LOW_BASE));
	assert_false(is_in_window(machine->domain, NEXT_BASE));
}

static void coherent_memory__keeps_its_piece_too(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_true(dma >= POOL_HIGH_BASE);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	*(uint8_t *)cpu = 6;
	assert_reads(machine, dma, 6);
	/* It is nothing that is unmapped, which would take its piece away. */
	assert_misuse(machine, dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma + 8, 8, DMACORE_TO_DEVICE, 0));
	assert_reads(machine, dma, 6);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	assert_false(is_in_window(machine->domain, dma));
}

/* A wrong unmap of a direct mapping is found even without a record, where no direct mapping is left. */
static void unmap__of_nothing_is_found(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	assert_misuse(machine, dmacore_unmap(machine->device, LOW_BASE, 10, DMACORE_TO_DEVICE, 0));
	dma = map_for(machine, machine->low, 10, DMACORE_TO_DEVICE);
	/* It is no user of the other piece, and the first one keeps its own. */
	assert_misuse(machine,
		      dmacore_unmap(machine->device, NEXT_BASE - 10, 20, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine,
		      dmacore_sync_for_cpu(machine->device, HIGH_BASE, 10, DMACORE_TO_DEVICE));
	assert_ok(dmacore_unmap(machine->device, dma, 10, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 10, DMACORE_TO_DEVICE, 0));
}

static void memory__that_comes_while_bypass_is_off_waits_for_it(void **state)
{
	struct machine *machine = *state;
	const uint64_t base = UINT64_C(0x40000000);
	uint8_t *more = aligned_alloc(PAGE, PAGE);

	assert_non_null(more);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	add_host_region(machine->system, base, PAGE, more, 0);
	assert_false(is_in_window(machine->domain, base));
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	assert_true(is_in_window(machine->domain, base));
	assert_ok(dmacore_memory_remove(machine->system, base, PAGE));
	assert_false(is_in_window(machine->domain, base));
	free(more);
}

static void set_bypass__wants_a_hybrid_domain(void **state)
{
	struct machine *machine = *state;

	assert_fails(dmacore_domain_set_bypass(NULL, true), EINVAL);
	machine_use(machine, DMACORE_DOMAIN_DMA);
	assert_fails(dmacore_domain_set_bypass(machine->domain, true), EOPNOTSUPP);
	machine_use(machine, DMACORE_DOMAIN_IDENTITY);
	assert_fails(dmacore_domain_set_bypass(machine->domain, false), EOPNOTSUPP);
}

/* Turning it on is what may take memory; trying again finishes it. */
static void set_bypass__without_tables_leaves_memory_to_be_translated(void **state)
{
	struct machine *machine = *state;
	const uint64_t base = UINT64_C(0x4000000000);
	uint8_t *more = aligned_alloc(PAGE, PAGE);

	assert_non_null(more);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	machine->tables.left = 0;
	add_host_region(machine->system, base, PAGE, more, 0);
	assert_fails(dmacore_domain_set_bypass(machine->domain, true), ENOMEM);
	assert_true(is_in_window(machine->domain, LOW_BASE));
	assert_false(is_in_window(machine->domain, base));
	machine->tables.left = -1;
	assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	assert_true(is_in_window(machine->domain, base));
	assert_ok(dmacore_memory_remove(machine->system, base, PAGE));
	free(more);
}

struct toggler {
	struct machine *machine;
	atomic_bool is_over;
};

static void *toggle(void *opaque)
{
	struct toggler *toggler = opaque;

	for (unsigned i = 0; !atomic_load(&toggler->is_over); i++)
		if (dmacore_domain_set_bypass(toggler->machine->domain, i % 2))
			abort();
	return NULL;
}

/* No mapping is lost, whatever another thread does to the window. */
static void mappings__are_good_while_bypass_comes_and_goes(void **state)
{
	struct machine *machine = *state;
	struct toggler toggler = { machine, false };
	unsigned directs = 0, total = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, toggle, &toggler), 0);
	for (; total < 20000; total++) {
		uint8_t *buffer = total % 2 ? machine->low : machine->high;
		dmacore_dma_t dma;

		buffer[total % 100] = (uint8_t)total;
		dma = map_for(machine, buffer, 100, DMACORE_TO_DEVICE);
		directs += dma == LOW_BASE || dma == HIGH_BASE;
		assert_reads(machine, dma + total % 100, (uint8_t)total);
		assert_ok(dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE, 0));
	}
	atomic_store(&toggler.is_over, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(directs <= total);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	assert_false(is_in_window(machine->domain, LOW_BASE));
	assert_false(is_in_window(machine->domain, HIGH_BASE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		{ "leftovers__go_with_the_last_device", leftovers__go_with_the_last_device, setup,
		  machine_teardown, (void *)(uintptr_t)TRANSLATED },
		test_bypass(live_direct_mappings__stay_until_they_are_unmapped),
		test_bypass(bypass__may_come_back_with_mappings_of_both_kinds),
		test_bypass(mapping_of_two_regions__keeps_both),
		test_bypass(coherent_memory__keeps_its_piece_too),
		test_bypass(unmap__of_nothing_is_found),
		test_bypass(memory__that_comes_while_bypass_is_off_waits_for_it),
		test_bypass(set_bypass__wants_a_hybrid_domain),
		test_bypass(set_bypass__without_tables_leaves_memory_to_be_translated),
		test_bypass(mappings__are_good_while_bypass_comes_and_goes),
	};

	return run_group("bypass", tests);
}
