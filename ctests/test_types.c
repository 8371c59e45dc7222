/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

static void bit_mask__is_the_highest_address_that_fits(void **state)
{
	(void)state;
	assert_true(DMACORE_BIT_MASK(0) == 0);
	assert_true(DMACORE_BIT_MASK(1) == 1);
	assert_true(DMACORE_BIT_MASK(32) == UINT32_MAX);
	assert_true(DMACORE_BIT_MASK(63) == UINT64_MAX >> 1);
	assert_true(DMACORE_BIT_MASK(64) == UINT64_MAX);
}

static void init__macros_set_the_size_of_their_structure(void **state)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_memory_allocator memory = DMACORE_MEMORY_ALLOCATOR_INIT;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct dmacore_iova_space_options space = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_table_allocator tables = DMACORE_TABLE_ALLOCATOR_INIT;
	struct dmacore_pagetable_options pagetable = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options iommu = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_domain_options domain = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;

	(void)state;
	assert_int_equal(system.struct_size, sizeof(system));
	assert_int_equal(memory.struct_size, sizeof(memory));
	assert_int_equal(region.struct_size, sizeof(region));
	assert_int_equal(space.struct_size, sizeof(space));
	assert_int_equal(tables.struct_size, sizeof(tables));
	assert_int_equal(pagetable.struct_size, sizeof(pagetable));
	assert_int_equal(iommu.struct_size, sizeof(iommu));
	assert_int_equal(domain.struct_size, sizeof(domain));
	assert_int_equal(device.struct_size, sizeof(device));
}

static void report__names_the_device_the_error_and_the_level(void **state)
{
	struct machine *machine = *state;
	const struct report_record *report;

	assert_fails(dmacore_unmap(machine->device, PAGE, PAGE, DMACORE_TO_DEVICE, 0), EINVAL);
	report = reports_take(&machine->reports);
	assert_int_equal(report->level, DMACORE_REPORT_ERROR);
	assert_int_equal(report->error, EINVAL);
	assert_string_equal(report->object, "disk0");
	/* reports_record() has looked at the rest: sizes, line ends, bounds. */
	assert_int_equal(machine->reports.malformed, 0);
}

static void report__callback_may_be_absent(void **state)
{
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_system *system;
	struct dmacore_device *device;

	(void)state;
	system_options.flags = DMACORE_SYSTEM_FLAT;
	device_options.flags = DMACORE_DEVICE_TRACK_DIRECT;
	assert_ok(dmacore_system_create(&system_options, &system));
	assert_ok(dmacore_device_create(system, &device_options, &device));
	assert_fails(dmacore_unmap(device, PAGE, PAGE, DMACORE_TO_DEVICE, 0), EINVAL);
	dmacore_system_destroy(system);
	dmacore_device_destroy(device);
}

struct reentry {
	struct machine *machine;
	dmacore_dma_t dma;
	unsigned calls;
	int unmapped;
};

/* Mends the misuse that it is told of: this needs every lock that unmap takes. */
static void unmap_correctly(const struct dmacore_report *report, void *opaque)
{
	struct reentry *reentry = opaque;

	(void)report;
	reentry->calls++;
	reentry->unmapped =
		dmacore_unmap(reentry->machine->device, reentry->dma, 100, DMACORE_TO_DEVICE, 0);
}

static void report__callback_may_call_the_library(void **state)
{
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct machine machine = { 0 };
	struct reentry reentry = { .machine = &machine, .unmapped = 1 };
	char buffer[100];

	(void)state;
	system_options.flags = DMACORE_SYSTEM_FLAT;
	system_options.report = unmap_correctly;
	system_options.report_opaque = &reentry;
	device_options.flags = DMACORE_DEVICE_TRACK_DIRECT;
	device_options.streaming_mask = DMACORE_BIT_MASK(64);
	assert_ok(dmacore_system_create(&system_options, &machine.system));
	assert_ok(dmacore_device_create(machine.system, &device_options, &machine.device));

	reentry.dma = map_for(&machine, buffer, 100, DMACORE_TO_DEVICE);
	assert_fails(dmacore_unmap(machine.device, reentry.dma, 101, DMACORE_TO_DEVICE, 0), EINVAL);
	assert_int_equal(reentry.calls, 1);
	assert_int_equal(reentry.unmapped, 0);
	assert_int_equal(device_statistics(machine.device).mapping_count, 0);

	dmacore_device_destroy(machine.device);
	dmacore_system_destroy(machine.system);
	assert_int_equal(reentry.calls, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bit_mask__is_the_highest_address_that_fits),
		cmocka_unit_test(init__macros_set_the_size_of_their_structure),
		test_on_translated(report__names_the_device_the_error_and_the_level),
		test_on(TRACKED, report__names_the_device_the_error_and_the_level),
		cmocka_unit_test(report__callback_may_be_absent),
		cmocka_unit_test(report__callback_may_call_the_library),
	};

	return run_group("types", tests);
}
