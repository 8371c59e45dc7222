/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

static void domain_create__takes_defaults_without_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *domain;
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_create(machine->iommu, NULL, &domain));
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_domain_attach(domain, machine->device));
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	/* From the top of what four levels translate. */
	assert_int_equal(dma, DMACORE_BIT_MASK(48) - PAGE + 1);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_domain_detach(domain, machine->device));
	dmacore_domain_destroy(domain);
}

static void domain_create__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	assert_creates_nothing(dmacore_domain_create(NULL, &options, &domain), EINVAL, domain);
	assert_fails(dmacore_domain_create(machine->iommu, &options, NULL), EINVAL);
	assert_fails(dmacore_domain_create(machine->iommu, NULL, NULL), EINVAL);
}

static void domain_create__rejects_bad_options(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint32_t type;
		uint32_t flags;
		uint64_t first;
		uint64_t last;
		int error;
	} wrong[] = {
		{ 0, 0, 0, 0, EINVAL },
		{ 6, 0, 0, 0, EINVAL },
		{ UINT32_MAX, 0, 0, 0, EINVAL },
		{ DMACORE_DOMAIN_DMA, 1, 0, 0, EINVAL },
		{ DMACORE_DOMAIN_DMA, UINT32_C(1) << 31, 0, 0, EINVAL },
		{ DMACORE_DOMAIN_IDENTITY, 1, 0, 0, EINVAL },
		{ DMACORE_DOMAIN_DMA, 0, 1, 0, EINVAL },
		{ DMACORE_DOMAIN_DMA, 0, 0x1800, 0, EINVAL },
		{ DMACORE_DOMAIN_DMA, 0, 0, 0x10000, EINVAL },
		{ DMACORE_DOMAIN_DMA, 0, 0, 0xfffe, EINVAL },
		{ DMACORE_DOMAIN_DMA, 0, 0x3000, 0x2fff, EINVAL },
		{ DMACORE_DOMAIN_DMA, 0, 0x3000, 0x1fff, EINVAL },
		/* The default of the first address is above this last one. */
		{ DMACORE_DOMAIN_DMA, 0, 0, 0xfff, EINVAL },
		{ DMACORE_DOMAIN_IDENTITY, 0, 0x1000, 0, EINVAL },
		{ DMACORE_DOMAIN_IDENTITY, 0, 0, 0xffff, EINVAL },
		{ DMACORE_DOMAIN_BLOCKED, 1, 0, 0, EINVAL },
		{ DMACORE_DOMAIN_BLOCKED, 0, 0x1000, 0, EINVAL },
		{ DMACORE_DOMAIN_UNMANAGED, 1, 0, 0, EINVAL },
		{ DMACORE_DOMAIN_UNMANAGED, 0, 0, 0xffff, EINVAL },
		{ DMACORE_DOMAIN_DMA, 0, 0, DMACORE_BIT_MASK(48) + PAGE, ERANGE },
		{ DMACORE_DOMAIN_DMA, 0, 0, UINT64_MAX, ERANGE },
	};
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	unsigned live = machine->tables.live;

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		options.type = wrong[i].type;
		options.flags = wrong[i].flags;
		options.first = wrong[i].first;
		options.last = wrong[i].last;
		assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain),
				       wrong[i].error, domain);
		assert_int_equal(machine->tables.live, live);
	}
}

static void domain_create__checks_the_size_of_its_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options good = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	check_struct_size(struct dmacore_domain_options, good,
			  dmacore_domain_create(machine->iommu, options, &domain), domain,
			  dmacore_domain_destroy);
}

static void domain_create__reports_an_empty_table_allocator(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *domain;

	machine->tables.left = 0;
	assert_creates_nothing(dmacore_domain_create(machine->iommu, NULL, &domain), ENOMEM,
			       domain);
	machine->tables.left = -1;
}

static void domain_create__gives_out_addresses_between_its_ends(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma[2], none;

	machine_narrow(machine, 0x5000, 0x6fff);
	dma[0] = map_for(machine, machine->low, 1, DMACORE_TO_DEVICE);
	dma[1] = map_for(machine, machine->low, 1, DMACORE_TO_DEVICE);
	assert_int_equal(dma[0], 0x6000);
	assert_int_equal(dma[1], 0x5000);
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &none),
		ENOSPC, none);
	assert_ok(dmacore_unmap(machine->device, dma[0], 1, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, dma[1], 1, DMACORE_TO_DEVICE, 0));
}

static void domain_create__never_gives_address_zero_by_default(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma, none;

	machine_narrow(machine, 0, 0x1fff);
	dma = map_for(machine, machine->low, 1, DMACORE_TO_DEVICE);
	assert_int_equal(dma, 0x1000);
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &none),
		ENOSPC, none);
	assert_ok(dmacore_unmap(machine->device, dma, 1, DMACORE_TO_DEVICE, 0));
}

static void domain_create__stays_inside_the_width_of_the_table(void **state)
{
	struct machine *machine = *state;
	struct dmacore_pagetable_options table = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_device_options device_options_ = device_options(machine);
	const unsigned widths[] = { 39, 48, 57 };

	options.pagetable = &table;
	for (unsigned i = 0; i < 3; i++) {
		struct dmacore_iommu *iommu;
		struct dmacore_domain *domain;
		struct dmacore_device *device;
		dmacore_dma_t dma;

		table.levels = 3 + i;
		assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
		assert_ok(dmacore_domain_create(iommu, NULL, &domain));
		device_options_.iommu = iommu;
		assert_ok(dmacore_device_create(machine->system, &device_options_, &device));
		assert_ok(dmacore_domain_attach(domain, device));
		assert_ok(
			dmacore_map_single(device, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
		assert_int_equal(dma, DMACORE_BIT_MASK(widths[i]) - PAGE + 1);
		assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
		dmacore_device_destroy(device);
		dmacore_domain_destroy(domain);
		dmacore_iommu_destroy(iommu);
	}
}

static void domain_destroy__accepts_null(void **state)
{
	(void)state;
	dmacore_domain_destroy(NULL);
}

static void domain_attach__rejects_what_does_not_belong_together(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *none, *other;
	struct dmacore_iommu *iommu;

	options.iommu = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &none));
	assert_ok(dmacore_iommu_create(machine->system, NULL, &iommu));
	options.iommu = iommu;
	assert_ok(dmacore_device_create(machine->system, &options, &other));

	assert_fails(dmacore_domain_attach(NULL, machine->device), EINVAL);
	assert_fails(dmacore_domain_attach(machine->domain, NULL), EINVAL);
	assert_fails(dmacore_domain_attach(machine->domain, none), EINVAL);
	assert_fails(dmacore_domain_attach(machine->domain, other), EINVAL);
	assert_int_equal(domain_statistics(machine->domain).device_count, 1);

	dmacore_device_destroy(none);
	dmacore_device_destroy(other);
	dmacore_iommu_destroy(iommu);
}

static void domain_attach__refuses_a_device_that_is_attached(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *other = make_domain(machine, DMACORE_DOMAIN_IDENTITY, 0, 0);

	assert_fails(dmacore_domain_attach(machine->domain, machine->device), EBUSY);
	assert_fails(dmacore_domain_attach(other, machine->device), EBUSY);
	assert_int_equal(domain_statistics(machine->domain).device_count, 1);
	assert_int_equal(domain_statistics(other).device_count, 0);

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_domain_attach(other, machine->device));
	assert_fails(dmacore_domain_attach(machine->domain, machine->device), EBUSY);
	assert_ok(dmacore_domain_detach(other, machine->device));
	dmacore_domain_destroy(other);
}

static void domain_attach__takes_many_devices(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *second = make_device(machine);
	struct dmacore_view *view;
	dmacore_dma_t dma;
	uint8_t byte = 0;

	assert_ok(dmacore_domain_attach(machine->domain, second));
	assert_int_equal(domain_statistics(machine->domain).device_count, 2);
	assert_ok(dmacore_view_create(second, &view));

	/* One address space: what is mapped for one is there for the other, and is not its own. */
	machine->low[3] = 77;
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_view_read(view, dma + 3, &byte, 1));
	assert_int_equal(byte, 77);
	assert_misuse(machine, dmacore_unmap(second, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_sync_for_cpu(second, dma, PAGE, DMACORE_TO_DEVICE));
	assert_int_equal(device_statistics(second).mapping_count, 0);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));

	dmacore_view_destroy(view);
	dmacore_device_destroy(second);
	assert_int_equal(domain_statistics(machine->domain).device_count, 1);
}

static void domain_detach__blocks_the_device(void **state)
{
	struct machine *machine = *state;
	struct dmacore_translation translation;
	uint8_t bytes[8];

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_int_equal(domain_statistics(machine->domain).device_count, 0);
	assert_fails(dmacore_view_translate(machine->view, LOW_BASE, 0, &translation), EPERM);
	assert_fails(dmacore_view_read(machine->view, LOW_BASE, bytes, 8), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, LOW_BASE, LOW_BASE + 7, DMACORE_ACCESS_READ);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_int_equal(domain_statistics(machine->domain).device_count, 1);
}

static void domain_detach__rejects_a_domain_that_is_not_the_devices(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *other = make_domain(machine, DMACORE_DOMAIN_DMA, 0, 0);

	assert_fails(dmacore_domain_detach(NULL, machine->device), EINVAL);
	assert_fails(dmacore_domain_detach(machine->domain, NULL), EINVAL);
	assert_fails(dmacore_domain_detach(other, machine->device), EINVAL);
	assert_int_equal(domain_statistics(machine->domain).device_count, 1);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EINVAL);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	dmacore_domain_destroy(other);
}

static void domain_detach__refuses_while_mappings_live(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, 10, DMACORE_TO_DEVICE), queue;
	uint8_t bytes[10];
	void *cpu;

	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 10));
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &queue));
	assert_ok(dmacore_unmap(machine->device, dma, 10, DMACORE_TO_DEVICE, 0));
	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, queue));
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

struct detaching {
	struct machine *machine;
	struct dmacore_domain *domain;
	int detached;
};

/* A table allocator in the middle of a mapping call, under no lock of the library. */
static int detach_and_allocate(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	struct detaching *detaching = opaque;

	if (detaching->domain)
		detaching->detached =
			dmacore_domain_detach(detaching->domain, detaching->machine->device);
	return table_pool_allocate(size, out_page, &detaching->machine->tables);
}

static void free_page(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	struct detaching *detaching = opaque;

	table_pool_free(page, size, &detaching->machine->tables);
}

static void domain_detach__refuses_while_a_mapping_call_runs(void **state)
{
	struct machine *machine = *state;
	struct detaching detaching = { .machine = machine };
	struct dmacore_table_allocator allocator = machine->tables.allocator;
	struct dmacore_pagetable_options table = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_device_options device = device_options(machine);
	struct dmacore_iommu *iommu;
	dmacore_dma_t dma;

	allocator.allocate = detach_and_allocate;
	allocator.free = free_page;
	allocator.opaque = &detaching;
	table.allocator = &allocator;
	options.pagetable = &table;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	assert_ok(dmacore_domain_create(iommu, NULL, &detaching.domain));
	device.iommu = iommu;
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	assert_ok(dmacore_device_create(machine->system, &device, &machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
	assert_ok(dmacore_domain_attach(detaching.domain, machine->device));

	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(detaching.detached, -EBUSY);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_domain_detach(detaching.domain, machine->device));
	dmacore_domain_destroy(detaching.domain);
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	dmacore_iommu_destroy(iommu);
}

/* Without a record there is nothing to refuse by. */
static void domain_detach__ends_direct_mappings_without_a_record(void **state)
{
	struct machine *machine = *state;

	(void)map_for(machine, machine->low, 10, DMACORE_TO_DEVICE);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

static void domain_statistics__counts_mappings_and_tables(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_statistics statistics = domain_statistics(machine->domain);
	dmacore_dma_t one, two;

	assert_int_equal(statistics.device_count, 1);
	assert_int_equal(statistics.mapping_count, 0);
	assert_int_equal(statistics.iova_bytes, 0);
	assert_int_equal(statistics.mapped_bytes, 0);
	assert_int_equal(statistics.table_count, 1);
	assert_int_equal(statistics.table_bytes, PAGE);

	/* Two bytes in two pages, and 5000 bytes in two pages. */
	one = map_for(machine, machine->low + PAGE - 1, 2, DMACORE_TO_DEVICE);
	two = map_for(machine, machine->low, 5000, DMACORE_FROM_DEVICE);
	statistics = domain_statistics(machine->domain);
	assert_int_equal(statistics.mapping_count, 2);
	assert_int_equal(statistics.iova_bytes, 4 * PAGE);
	assert_int_equal(statistics.mapped_bytes, 4 * PAGE);
	assert_int_equal(statistics.table_count, machine->tables.live);
	assert_int_equal(statistics.table_bytes, machine->tables.live * PAGE);

	assert_ok(dmacore_unmap(machine->device, one, 2, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, two, 5000, DMACORE_FROM_DEVICE, 0));
	statistics = domain_statistics(machine->domain);
	assert_int_equal(statistics.mapping_count, 0);
	assert_int_equal(statistics.iova_bytes, 0);
	assert_int_equal(statistics.mapped_bytes, 0);
}

static void domain_statistics__are_zero_in_an_identity_domain(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	struct dmacore_domain_statistics statistics = domain_statistics(machine->domain);

	assert_int_equal(statistics.device_count, 1);
	assert_int_equal(statistics.mapping_count, 0);
	assert_int_equal(statistics.iova_bytes, 0);
	assert_int_equal(statistics.mapped_bytes, 0);
	assert_int_equal(statistics.table_count, 0);
	assert_int_equal(statistics.table_bytes, 0);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
}

static void domain_statistics__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_fails(dmacore_domain_statistics(NULL, &statistics), EINVAL);
	assert_fails(dmacore_domain_statistics(machine->domain, NULL), EINVAL);
}

static void domain_statistics__checks_the_size_of_the_structure(void **state)
{
	struct machine *machine = *state;

	check_statistics_size(struct dmacore_domain_statistics,
			      dmacore_domain_statistics(machine->domain, options));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(domain_create__takes_defaults_without_options),
		test_on_translated(domain_create__rejects_null),
		test_on_translated(domain_create__rejects_bad_options),
		test_on_translated(domain_create__checks_the_size_of_its_options),
		test_on(TRANSLATED, domain_create__reports_an_empty_table_allocator),
		test_on_translated(domain_create__gives_out_addresses_between_its_ends),
		test_on_translated(domain_create__never_gives_address_zero_by_default),
		test_on(DIRECT, domain_create__stays_inside_the_width_of_the_table),
		cmocka_unit_test(domain_destroy__accepts_null),
		test_on_translated(domain_attach__rejects_what_does_not_belong_together),
		test_on_translated(domain_attach__refuses_a_device_that_is_attached),
		test_on(IDENTITY, domain_attach__refuses_a_device_that_is_attached),
		test_on_translated(domain_attach__takes_many_devices),
		test_on_translated(domain_detach__blocks_the_device),
		test_on(IDENTITY, domain_detach__blocks_the_device),
		test_on(IDENTITY | TRACKED, domain_detach__blocks_the_device),
		test_on_translated(domain_detach__rejects_a_domain_that_is_not_the_devices),
		test_on_translated(domain_detach__refuses_while_mappings_live),
		test_on(IDENTITY | TRACKED, domain_detach__refuses_while_mappings_live),
		test_on(DIRECT, domain_detach__refuses_while_a_mapping_call_runs),
		test_on(IDENTITY, domain_detach__ends_direct_mappings_without_a_record),
		test_on(TRANSLATED, domain_statistics__counts_mappings_and_tables),
		test_on(IDENTITY, domain_statistics__are_zero_in_an_identity_domain),
		test_on(IDENTITY | TRACKED, domain_statistics__are_zero_in_an_identity_domain),
		test_on_translated(domain_statistics__rejects_null),
		test_on_translated(domain_statistics__checks_the_size_of_the_structure),
	};

	return run_group("domain", tests);
}
