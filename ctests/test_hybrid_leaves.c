/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The window of a hybrid domain is in the largest leaves that fit, so that it costs few tables and misses. */

#include "support/machine.h"

#include <sys/mman.h>

#define LARGE (2 * MIB)
#define HUGE GIB
/* Where nothing else is: in tables of its own but for the uppermost. */
#define BASE(number) (UINT64_C(0x8000000000) * (number))

static int setup(void **state)
{
	machine_setup(state);
	machine_use(*state, DMACORE_DOMAIN_HYBRID);
	return 0;
}

/* Addresses of the process's own for so many bytes, of which none is touched. */
static uint8_t *reserve(uint64_t size)
{
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(memory != MAP_FAILED);
	return memory;
}

struct run {
	/* From the region's base, in this size of leaf. */
	uint64_t first, leaf;
};

struct shape {
	uint64_t base, size;
	struct run runs[5];
	unsigned run_count;
	/* Below the one that all have, in a format of 512 entries a table. */
	unsigned tables;
};

static const struct shape shapes[] = {
	/* One leaf in a table of each level above it. */
	{ BASE(1), LARGE, { { 0, LARGE } }, 1, 2 },
	{ BASE(2), HUGE, { { 0, HUGE } }, 1, 1 },
	{ BASE(3) + HUGE, 3 * HUGE, { { 0, HUGE } }, 1, 1 },
	{ BASE(4) + 5 * LARGE, 7 * LARGE, { { 0, LARGE } }, 1, 2 },
	/* Smaller ones up to where a larger one may start, and behind the last of those. */
	{ BASE(5) + LARGE - 2 * PAGE,
	  2 * LARGE + 3 * PAGE,
	  { { 0, PAGE }, { 2 * PAGE, LARGE }, { 2 * PAGE + 2 * LARGE, PAGE } },
	  3,
	  4 },
	{ BASE(6) + HUGE - LARGE - PAGE,
	  HUGE + 2 * LARGE + 2 * PAGE,
	  { { 0, PAGE },
	    { PAGE, LARGE },
	    { PAGE + LARGE, HUGE },
	    { PAGE + LARGE + HUGE, LARGE },
	    { PAGE + 2 * LARGE + HUGE, PAGE } },
	  5,
	  5 },
	/* Not at such a place, so that none fits. */
	{ BASE(7) + PAGE, LARGE, { { 0, PAGE } }, 1, 4 },
};

static void assert_leaves(struct machine *machine, const struct shape *shape)
{
	for (unsigned i = 0; i < shape->run_count; i++) {
		const struct run *run = &shape->runs[i];
		const uint64_t leaf = run->leaf;
		const uint64_t last =
			shape->base + (i + 1 < shape->run_count ? run[1].first : shape->size) - 1;
		const uint64_t places[] = { shape->base + run->first,
					    shape->base + run->first + leaf - 1, last };

		for (unsigned j = 0; j < 3; j++) {
			struct dmacore_translation found;

			assert_ok(dmacore_domain_translate(
				machine->domain, places[j],
				DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE, &found));
			assert_int_equal(found.first, places[j] & ~(leaf - 1));
			assert_int_equal(found.last, places[j] | (leaf - 1));
			assert_int_equal(found.target, found.first);
		}
	}
}

static void window__is_in_the_largest_leaves(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_capabilities capabilities = { .struct_size = sizeof(capabilities) };
	const uint64_t first = domain_statistics(machine->domain).table_count;

	assert_ok(dmacore_iommu_capabilities(machine->iommu, &capabilities));
	assert_int_equal(capabilities.leaf_sizes, PAGE | LARGE | HUGE);
	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct shape *shape = &shapes[i];
		uint64_t tables = domain_statistics(machine->domain).table_count;
		uint8_t *memory = reserve(shape->size);
		struct dmacore_translation none;
		struct dmacore_domain *later;
		dmacore_dma_t dma;
		uint8_t byte = 7;

		add_host_region(machine->system, shape->base, shape->size, memory, 0);
		assert_leaves(machine, shape);
		assert_int_equal(domain_statistics(machine->domain).table_count,
				 tables + shape->tables);
		/* It is all one to mapping calls, as far as the region goes. */
		assert_ok(dmacore_map_phys(machine->device, shape->base, shape->size,
					   DMACORE_BIDIRECTIONAL, 0, &dma));
		assert_int_equal(dma, shape->base);
		assert_ok(dmacore_view_write(machine->view, dma + shape->size - 1, &byte, 1));
		assert_int_equal(memory[shape->size - 1], 7);
		assert_ok(
			dmacore_unmap(machine->device, dma, shape->size, DMACORE_BIDIRECTIONAL, 0));
		/* A domain that comes when the memory is there is no other. */
		later = make_domain(machine, DMACORE_DOMAIN_HYBRID, 0, 0);
		assert_int_equal(domain_statistics(later).table_count, first + shape->tables);
		dmacore_domain_destroy(later);
		assert_ok(dmacore_memory_remove(machine->system, shape->base, shape->size));
		assert_fails(dmacore_domain_translate(machine->domain, shape->base, 0, &none),
			     ENOENT);
		assert_int_equal(munmap(memory, shape->size), 0);
	}
}

/* A large leaf is whole again when bypass has been off. */
static void bypass__comes_back_in_the_same_leaves(void **state)
{
	struct machine *machine = *state;
	const struct shape *shape = &shapes[5];
	uint8_t *memory = reserve(shape->size);
	struct dmacore_translation none;

	add_host_region(machine->system, shape->base, shape->size, memory, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_leaves(machine, shape);
		assert_ok(dmacore_domain_set_bypass(machine->domain, false));
		assert_fails(dmacore_domain_translate(machine->domain, shape->base, 0, &none),
			     ENOENT);
		assert_ok(dmacore_domain_set_bypass(machine->domain, true));
	}
	assert_leaves(machine, shape);
	assert_ok(dmacore_memory_remove(machine->system, shape->base, shape->size));
	assert_int_equal(munmap(memory, shape->size), 0);
}

#define test(path, function)                                                 \
	{                                                                    \
#function " (" #path ")", function, setup, machine_teardown, \
			(void *)(uintptr_t)(path)                            \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(TRANSLATED, window__is_in_the_largest_leaves),
		test(TRANSLATED | HEAP_TABLES, window__is_in_the_largest_leaves),
		test(TRANSLATED, bypass__comes_back_in_the_same_leaves),
	};

	return run_group("hybrid_leaves", tests);
}
