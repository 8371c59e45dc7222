/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Translations by aligned blocks, on each path. */

#include "support/machine.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

static int detached_setup(void **state)
{
	struct machine *machine;

	machine_setup(state);
	machine = *state;
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	return 0;
}

#define test_in(type, function)                                                     \
	{                                                                           \
#function " (" #type ")", function, type##_setup, machine_teardown, \
			(void *)(uintptr_t)TRANSLATED                               \
	}

/* A look-up, whose answer must be a block around the address. */
static struct dmacore_block block_at(struct machine *machine, uint64_t dma, uint32_t access)
{
	uint64_t faults = device_statistics(machine->device).fault_total;
	struct dmacore_block block;

	memset(&block, 0x5a, sizeof(block));
	assert_ok(dmacore_view_translate_block(machine->view, dma, access, &block));
	assert_int_equal(block.mask & (block.mask + 1), 0);
	assert_int_equal(block.first, dma & ~block.mask);
	assert_int_equal(block.phys & block.mask, 0);
	assert_int_equal(block.reserved, 0);
	if (!block.access)
		assert_int_equal(block.phys, 0);
	assert_int_equal(device_statistics(machine->device).fault_total, faults);
	return block;
}

#define assert_block(machine, dma, access_, first_, size_, phys_, permitted_)  \
	do {                                                                   \
		struct dmacore_block block_ = block_at(machine, dma, access_); \
                                                                               \
		assert_int_equal(block_.first, first_);                        \
		assert_int_equal(block_.mask, (uint64_t)(size_)-1);            \
		assert_int_equal(block_.phys, phys_);                          \
		assert_int_equal(block_.access, permitted_);                   \
	} while (0)

#define assert_nowhere(machine, dma, access, first, size) \
	assert_block(machine, dma, access, first, size, 0, 0)

static void map(struct machine *machine, uint64_t iova, uint64_t phys, uint64_t size,
		uint32_t access)
{
	assert_ok(dmacore_domain_map(machine->domain, iova, phys, size, access));
}

static void view_translate_block__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	struct dmacore_block block, before;

	memset(&block, 0x5a, sizeof(block));
	before = block;
	assert_fails(dmacore_view_translate_block(NULL, 0, 0, &block), EINVAL);
	assert_fails(dmacore_view_translate_block(machine->view, 0, 0, NULL), EINVAL);
	assert_fails(dmacore_view_translate_block(machine->view, 0, 4, &block), EINVAL);
	assert_fails(dmacore_view_translate_block(machine->view, 0, UINT32_MAX, &block), EINVAL);
	assert_memory_equal(&block, &before, sizeof(block));
}

static void view_translate_block__is_a_leaf_of_the_table(void **state)
{
	struct machine *machine = *state;

	map(machine, 0x10000, LOW_BASE + 0x3000, PAGE, BOTH);
	map(machine, 2 * MIB, 8 * MIB, 2 * MIB, READ);
	map(machine, GIB, 3 * GIB, GIB, WRITE);
	/* Many leaves, though contiguous. */
	map(machine, 0x20000, 0x20000, 8 * PAGE, BOTH);
	map(machine, (UINT64_C(1) << 48) - PAGE, PAGE, PAGE, BOTH);
	for (uint32_t access = 0; access <= BOTH; access++)
		assert_block(machine, 0x10123, access, 0x10000, PAGE, LOW_BASE + 0x3000, BOTH);
	assert_block(machine, 2 * MIB, READ, 2 * MIB, 2 * MIB, 8 * MIB, READ);
	assert_block(machine, 4 * MIB - 1, 0, 2 * MIB, 2 * MIB, 8 * MIB, READ);
	assert_block(machine, 2 * GIB - 1, WRITE, GIB, GIB, 3 * GIB, WRITE);
	assert_block(machine, 0x23fff, READ, 0x23000, PAGE, 0x23000, BOTH);
	assert_block(machine, (UINT64_C(1) << 48) - 1, READ, (UINT64_C(1) << 48) - PAGE, PAGE, PAGE,
		     BOTH);
	/* What is not permitted leads nowhere, leaf by leaf. */
	assert_nowhere(machine, 2 * MIB + 5, WRITE, 2 * MIB, 2 * MIB);
	assert_nowhere(machine, 2 * MIB + 5, BOTH, 2 * MIB, 2 * MIB);
	assert_nowhere(machine, GIB, READ, GIB, GIB);
}

static void view_translate_block__is_a_hole_as_far_as_an_entry_goes(void **state)
{
	struct machine *machine = *state;

	/* An entry of the root, and all addresses that the table has not. */
	assert_nowhere(machine, 5, READ, 0, 512 * GIB);
	assert_nowhere(machine, 600 * GIB, 0, 512 * GIB, 512 * GIB);
	assert_nowhere(machine, UINT64_C(1) << 48, READ, UINT64_C(1) << 48, UINT64_C(1) << 48);
	assert_nowhere(machine, UINT64_MAX, READ, UINT64_C(1) << 63, UINT64_C(1) << 63);
	map(machine, 0x10000, 0, PAGE, READ);
	assert_nowhere(machine, 0x11fff, READ, 0x11000, PAGE);
	assert_nowhere(machine, 2 * MIB, READ, 2 * MIB, 2 * MIB);
	assert_nowhere(machine, GIB, BOTH, GIB, GIB);
}

static void view_translate_block__agrees_with_translate(void **state)
{
	struct machine *machine = *state;
	uint64_t seed = 1;

	for (unsigned i = 0; i < 64; i++) {
		uint64_t size = (1 + random_next(&seed) % 700) * PAGE;

		/* Those that meet another are refused. */
		(void)!dmacore_domain_map(machine->domain, random_next(&seed) % 8192 * PAGE,
					  random_next(&seed) % 8192 * PAGE, size,
					  1 + random_next(&seed) % 3);
	}
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t dma = random_next(&seed) % (40 * MIB), ends[2];
		uint32_t access = random_next(&seed) % 4;
		struct dmacore_block block = block_at(machine, dma, access);

		ends[0] = block.first;
		ends[1] = block.first | block.mask;
		for (unsigned j = 0; j < 3; j++) {
			uint64_t at = j == 2 ? dma : ends[j];
			struct dmacore_translation found;
			int error = dmacore_view_translate(machine->view, at, access, &found);

			assert_int_equal(!error, block.access != 0);
			if (error)
				continue;
			assert_int_equal(found.access, block.access);
			assert_int_equal(found.target + (at - found.first),
					 block.phys + (at - block.first));
		}
	}
}

static void view_translate_block__is_of_mapping_calls_too(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 0x100, PAGE, DMACORE_TO_DEVICE);

	assert_block(machine, dma, READ, dma & ~(PAGE - 1), PAGE, LOW_BASE, READ);
	assert_block(machine, dma + PAGE, 0, (dma & ~(PAGE - 1)) + PAGE, PAGE, LOW_BASE + PAGE,
		     READ);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_int_equal(block_at(machine, dma, READ).access, 0);
}

/* Runs of leaves, which one look-up reports whole. */
static void view_translate_block__is_a_run_of_leaves(void **state)
{
	struct machine *machine = *state;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_domain_options kind = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_device_options device = device_options(machine);
	struct machine other = *machine;

	tables.format = DMACORE_PAGETABLE_ARM64_STAGE1;
	tables.features = DMACORE_PAGETABLE_RUNS;
	options.pagetable = &tables;
	kind.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_iommu_create(machine->system, &options, &other.iommu));
	assert_ok(dmacore_domain_create(other.iommu, &kind, &other.domain));
	device.iommu = other.iommu;
	assert_ok(dmacore_device_create(machine->system, &device, &other.device));
	assert_ok(dmacore_domain_attach(other.domain, other.device));
	assert_ok(dmacore_view_create(other.device, &other.view));
	map(&other, 0x10000, 0x50000, 16 * PAGE, BOTH);
	assert_block(&other, 0x17fff, READ, 0x10000, 16 * PAGE, 0x50000, BOTH);
	dmacore_view_destroy(other.view);
	dmacore_device_destroy(other.device);
	dmacore_domain_destroy(other.domain);
	dmacore_iommu_destroy(other.iommu);
}

static void view_translate_block__of_a_blocked_device_is_all_addresses(void **state)
{
	struct machine *machine = *state;

	assert_nowhere(machine, 0, 0, 0, 0);
	assert_nowhere(machine, UINT64_MAX, BOTH, 0, 0);
}

static void view_translate_block__without_records_is_all_addresses(void **state)
{
	struct machine *machine = *state;

	/* In memory, and where there is none. */
	assert_block(machine, LOW_BASE, 0, 0, 0, 0, BOTH);
	assert_block(machine, UINT64_MAX, BOTH, 0, 0, 0, BOTH);
}

static void view_translate_block__of_records_is_a_part_of_one(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 0x801, 2 * PAGE, DMACORE_TO_DEVICE);
	uint64_t base = dma - 0x801;

	assert_block(machine, dma, READ, dma, 1, dma, READ);
	assert_block(machine, dma + 1, 0, dma + 1, 2, dma + 1, READ);
	assert_block(machine, base + PAGE, READ, base + PAGE, PAGE, base + PAGE, READ);
	assert_block(machine, base + 2 * PAGE + 0x7ff, READ, base + 2 * PAGE, 0x800,
		     base + 2 * PAGE, READ);
	assert_block(machine, base + 2 * PAGE + 0x800, READ, base + 2 * PAGE + 0x800, 1,
		     base + 2 * PAGE + 0x800, READ);
	/* Below, between and above. */
	assert_nowhere(machine, base, READ, base, 0x800);
	assert_nowhere(machine, base + 0x800, READ, base + 0x800, 1);
	assert_nowhere(machine, base + PAGE, WRITE, base + PAGE, PAGE);
	assert_nowhere(machine, base + 2 * PAGE + 0x802, 0, base + 2 * PAGE + 0x802, 2);
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_TO_DEVICE, 0));
	assert_nowhere(machine, 0, READ, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(view_translate_block__rejects_bad_arguments),
		test_in(unmanaged, view_translate_block__is_a_leaf_of_the_table),
		test_in(unmanaged, view_translate_block__is_a_hole_as_far_as_an_entry_goes),
		test_in(unmanaged, view_translate_block__agrees_with_translate),
		test_on_translated(view_translate_block__is_of_mapping_calls_too),
		test_on_translated(view_translate_block__is_a_run_of_leaves),
		test_in(blocked, view_translate_block__of_a_blocked_device_is_all_addresses),
		test_in(detached, view_translate_block__of_a_blocked_device_is_all_addresses),
		test_on(DIRECT, view_translate_block__without_records_is_all_addresses),
		test_on(IDENTITY, view_translate_block__without_records_is_all_addresses),
		test_on(FLAT | DIRECT, view_translate_block__without_records_is_all_addresses),
		test_on(TRACKED, view_translate_block__of_records_is_a_part_of_one),
		test_on(IDENTITY | TRACKED, view_translate_block__of_records_is_a_part_of_one),
	};

	return cmocka_run_group_tests_name("view blocks", tests, NULL, NULL);
}
