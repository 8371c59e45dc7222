/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

static void iommu_create__takes_defaults_without_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct dmacore_iommu *iommu;

	assert_ok(dmacore_iommu_create(machine->system, NULL, &iommu));
	assert_non_null(iommu);
	/* Four levels: 48 bits. */
	options.last = DMACORE_BIT_MASK(48);
	assert_ok(dmacore_domain_create(iommu, &options, &domain));
	dmacore_domain_destroy(domain);
	options.last = DMACORE_BIT_MASK(49);
	assert_creates_nothing(dmacore_domain_create(iommu, &options, &domain), ERANGE, domain);
	dmacore_iommu_destroy(iommu);
}

static void iommu_create__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_iommu *iommu;

	assert_creates_nothing(dmacore_iommu_create(NULL, &options, &iommu), EINVAL, iommu);
	assert_fails(dmacore_iommu_create(machine->system, &options, NULL), EINVAL);
	assert_fails(dmacore_iommu_create(machine->system, NULL, NULL), EINVAL);
}

static void iommu_create__rejects_flags_and_reserved_members(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_iommu *iommu;

	for (unsigned bit = 0; bit < 32; bit++) {
		options.flags = UINT32_C(1) << bit;
		assert_creates_nothing(dmacore_iommu_create(machine->system, &options, &iommu),
				       EINVAL, iommu);
	}
	options.flags = 0;
	options.reserved = 1;
	assert_creates_nothing(dmacore_iommu_create(machine->system, &options, &iommu), EINVAL,
			       iommu);
}

static void iommu_create__checks_the_size_of_every_structure(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_options good = DMACORE_IOMMU_OPTIONS_INIT, iommu_options = good;
	struct dmacore_pagetable_options table = DMACORE_PAGETABLE_OPTIONS_INIT, outer = table;
	struct dmacore_iommu *iommu;

	check_struct_size(struct dmacore_iommu_options, good,
			  dmacore_iommu_create(machine->system, options, &iommu), iommu,
			  dmacore_iommu_destroy);
	check_struct_size(struct dmacore_pagetable_options, table,
			  (iommu_options.pagetable = options,
			   dmacore_iommu_create(machine->system, &iommu_options, &iommu)),
			  iommu, dmacore_iommu_destroy);
	iommu_options.pagetable = &outer;
	check_struct_size(struct dmacore_table_allocator, machine->tables.allocator,
			  (outer.allocator = options,
			   dmacore_iommu_create(machine->system, &iommu_options, &iommu)),
			  iommu, dmacore_iommu_destroy);
}

static void iommu_create__rejects_wrong_page_table_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_pagetable_options table = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_table_allocator allocator = DMACORE_TABLE_ALLOCATOR_INIT;
	struct dmacore_iommu *iommu;

	options.pagetable = &table;
	table.format = 0;
	assert_creates_nothing(dmacore_iommu_create(machine->system, &options, &iommu), EINVAL,
			       iommu);
	table.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE;
	table.levels = 6;
	assert_creates_nothing(dmacore_iommu_create(machine->system, &options, &iommu), EINVAL,
			       iommu);
	table.levels = 3;
	table.output_bits = 64;
	assert_creates_nothing(dmacore_iommu_create(machine->system, &options, &iommu), EINVAL,
			       iommu);
	table.output_bits = 0;
	table.allocator = &allocator;
	assert_creates_nothing(dmacore_iommu_create(machine->system, &options, &iommu), EINVAL,
			       iommu);
	table.allocator = NULL;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	dmacore_iommu_destroy(iommu);
}

static void iommu_create__copies_its_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_pagetable_options table = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_table_allocator allocator = machine->tables.allocator;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct dmacore_iommu *iommu;
	unsigned live;

	options.pagetable = &table;
	table.levels = 3;
	table.allocator = &allocator;
	live = machine->tables.live;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	/* An IOMMU has no table; its domains have. */
	assert_int_equal(machine->tables.live, live);
	memset(&options, 0xff, sizeof(options));
	memset(&table, 0xff, sizeof(table));
	memset(&allocator, 0xff, sizeof(allocator));

	domain_options.last = DMACORE_BIT_MASK(39);
	assert_ok(dmacore_domain_create(iommu, &domain_options, &domain));
	assert_int_equal(machine->tables.live, live + 1);
	dmacore_domain_destroy(domain);
	assert_int_equal(machine->tables.live, live);
	domain_options.last = DMACORE_BIT_MASK(40);
	assert_creates_nothing(dmacore_domain_create(iommu, &domain_options, &domain), ERANGE,
			       domain);
	dmacore_iommu_destroy(iommu);
}

static void iommu_destroy__accepts_null(void **state)
{
	(void)state;
	dmacore_iommu_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, iommu_create__takes_defaults_without_options),
		test_on(DIRECT, iommu_create__rejects_null),
		test_on(DIRECT, iommu_create__rejects_flags_and_reserved_members),
		test_on(DIRECT, iommu_create__checks_the_size_of_every_structure),
		test_on(DIRECT, iommu_create__rejects_wrong_page_table_options),
		test_on_translated(iommu_create__copies_its_options),
		cmocka_unit_test(iommu_destroy__accepts_null),
	};

	return run_group("iommu", tests);
}
