/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What an IOMMU says of the domains that it can have. */

#include "support/dirty.h"

/* What nothing but hardware could lack. */
#define SOFTWARE \
	(DMACORE_IOMMU_DEFERRED_FLUSH | DMACORE_IOMMU_PASIDS | DMACORE_IOMMU_ENFORCED_COHERENCY)

static struct dmacore_iommu_capabilities capabilities(struct dmacore_iommu *iommu)
{
	struct dmacore_iommu_capabilities found = { sizeof(found), 0, 0, 0, 0, 0, 0 };

	assert_ok(dmacore_iommu_capabilities(iommu, &found));
	assert_int_equal(found.struct_size, sizeof(found));
	return found;
}

static void iommu_capabilities__are_those_of_the_format(void **state)
{
	struct machine *machine = *state;

	for (unsigned i = 0; i < DIRTY_FORMAT_COUNT; i++) {
		const struct dirty_format *format = &dirty_formats[i];

		for (unsigned n = 0; n < 2; n++) {
			struct dmacore_iommu_capabilities found;
			uint32_t dirty = n ? DMACORE_PAGETABLE_DIRTY : 0;

			dirty_use(machine, format, dirty, DMACORE_DOMAIN_UNMANAGED);
			found = capabilities(machine->iommu);
			if (found.leaf_sizes != format->leaf_sizes)
				print_message("%s: %#lx\n", format->name, found.leaf_sizes);
			assert_int_equal(found.leaf_sizes, format->leaf_sizes);
			assert_int_equal(found.granule, PAGE);
			assert_int_equal(found.last_input, format->last_input);
			assert_int_equal(found.last_output, format->last_output);
			assert_int_equal(found.access, format->access);
			assert_int_equal(found.flags,
					 format->flags | SOFTWARE | DMACORE_IOMMU_DMA_DOMAINS |
						 (n ? DMACORE_IOMMU_DIRTY_TRACKING : 0));
		}
	}
}

static void iommu_capabilities__follow_the_widths_and_the_granule(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_capabilities found;
	struct dmacore_iommu *iommu;

	options.pagetable = &tables;
	tables.allocator = &machine->tables.allocator;
	tables.input_bits = 32;
	tables.output_bits = 40;
	tables.format = DMACORE_PAGETABLE_AMD_V1;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	found = capabilities(iommu);
	/* No leaf is larger than all of the input. */
	assert_int_equal(found.leaf_sizes, DMACORE_BIT_MASK(33) & ~DMACORE_BIT_MASK(12));
	assert_int_equal(found.last_input, DMACORE_BIT_MASK(32));
	assert_int_equal(found.last_output, DMACORE_BIT_MASK(40));
	dmacore_iommu_destroy(iommu);

	tables = (struct dmacore_pagetable_options)DMACORE_PAGETABLE_OPTIONS_INIT;
	tables.format = DMACORE_PAGETABLE_ARM64_STAGE1;
	tables.granule = 65536;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	found = capabilities(iommu);
	assert_int_equal(found.granule, 65536);
	assert_int_equal(found.leaf_sizes & DMACORE_BIT_MASK(42),
			 UINT64_C(1) << 16 | UINT64_C(1) << 29);
	assert_int_equal(found.flags, SOFTWARE);
	dmacore_iommu_destroy(iommu);
}

static void iommu_capabilities__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_capabilities found = { sizeof(found), 1, 2, 3, 4, 5, 6 }, before;

	before = found;
	assert_fails(dmacore_iommu_capabilities(NULL, &found), EINVAL);
	assert_memory_equal(&found, &before, sizeof(found));
	assert_fails(dmacore_iommu_capabilities(machine->iommu, NULL), EINVAL);
}

static void iommu_capabilities__fills_as_much_as_there_is_room_for(void **state)
{
	struct machine *machine = *state;

	check_statistics_size(struct dmacore_iommu_capabilities,
			      dmacore_iommu_capabilities(machine->iommu, options));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(iommu_capabilities__are_those_of_the_format),
		test_on_translated(iommu_capabilities__follow_the_widths_and_the_granule),
		test_on_translated(iommu_capabilities__rejects_null),
		test_on_translated(iommu_capabilities__fills_as_much_as_there_is_room_for),
	};

	return run_group("capabilities", tests);
}
