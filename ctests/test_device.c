/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

static void device_create__takes_defaults_without_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device;
	dmacore_dma_t dma;

	assert_ok(dmacore_device_create(machine->system, NULL, &device));
	assert_non_null(device);
	/* The defaults leave it without a mask. */
	assert_fails(dmacore_map_single(device, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma),
		     ENXIO);
	dmacore_device_destroy(device);
}

static void device_create__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;

	assert_creates_nothing(dmacore_device_create(NULL, &options, &device), EINVAL, device);
	assert_fails(dmacore_device_create(machine->system, &options, NULL), EINVAL);
	assert_fails(dmacore_device_create(machine->system, NULL, NULL), EINVAL);
}

static void device_create__rejects_bad_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;
	char name[DMACORE_DEVICE_NAME_SIZE + 1];

	for (unsigned bit = 5; bit < 32; bit++) {
		options.flags = UINT32_C(1) << bit;
		assert_creates_nothing(dmacore_device_create(machine->system, &options, &device),
				       EINVAL, device);
	}
	options.flags = 0;
	options.fault_capacity = 65537;
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);
	options.fault_capacity = UINT32_MAX;
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);
	options.fault_capacity = 65536;
	memset(name, 'n', sizeof(name));
	name[DMACORE_DEVICE_NAME_SIZE] = 0;
	options.name = name;
	assert_creates_nothing(dmacore_device_create(machine->system, &options, &device), EINVAL,
			       device);
	name[DMACORE_DEVICE_NAME_SIZE - 1] = 0;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	dmacore_device_destroy(device);
}

static void device_create__rejects_an_iommu_of_another_system(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_system *other;
	struct dmacore_device *device;

	assert_ok(dmacore_system_create(NULL, &other));
	options.iommu = machine->iommu;
	assert_creates_nothing(dmacore_device_create(other, &options, &device), EINVAL, device);
	dmacore_system_destroy(other);
}

static void device_create__checks_the_size_of_its_options(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options good = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;

	check_struct_size(struct dmacore_device_options, good,
			  dmacore_device_create(machine->system, options, &device), device,
			  dmacore_device_destroy);
}

static void device_create__copies_the_name_for_reports(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	char name[] = "a-name-of-thirty-one-characters";

	assert_int_equal(sizeof(name), DMACORE_DEVICE_NAME_SIZE);
	options.name = name;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	memset(name, 0, sizeof(name));
	assert_fails(dmacore_unmap(device, PAGE, 1, DMACORE_TO_DEVICE, 0), EINVAL);
	assert_string_equal(reports_take(&machine->reports)->object,
			    "a-name-of-thirty-one-characters");
	dmacore_device_destroy(device);

	options.name = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_fails(dmacore_unmap(device, PAGE, 1, DMACORE_TO_DEVICE, 0), EINVAL);
	assert_string_equal(reports_take(&machine->reports)->object, "device");
	dmacore_device_destroy(device);
}

static void device_destroy__accepts_null(void **state)
{
	(void)state;
	dmacore_device_destroy(NULL);
}

static void device_destroy__undoes_and_reports_what_is_live(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	(void)map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	(void)map_for(machine, machine->low, 3, DMACORE_FROM_DEVICE);
	assert_ok(dmacore_alloc_coherent(machine->device, 3 * PAGE, &cpu, &dma));

	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_true(machine->reports.count >= 1);
	for (unsigned i = 0; i < machine->reports.count; i++) {
		assert_int_equal(machine->reports.at[i].level, DMACORE_REPORT_WARNING);
		assert_string_equal(machine->reports.at[i].object, "disk0");
	}
	reports_forget(&machine->reports);
	assert_int_equal(machine->pool.live, 0);
	if (machine->domain && machine->path & TRANSLATED) {
		struct dmacore_domain_statistics statistics = domain_statistics(machine->domain);

		assert_int_equal(statistics.device_count, 0);
		assert_int_equal(statistics.mapping_count, 0);
		assert_int_equal(statistics.iova_bytes, 0);
		assert_int_equal(statistics.mapped_bytes, 0);
	}
}

static void device_destroy__says_nothing_when_nothing_is_live(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);

	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	assert_no_reports(&machine->reports);
}

/* Masks. */

static void device_set_mask__rejects_null(void **state)
{
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;

	(void)state;
	assert_fails(dmacore_device_set_streaming_mask(NULL, 1, &beyond), EINVAL);
	assert_fails(dmacore_device_set_coherent_mask(NULL, 1, &beyond), EINVAL);
}

/*
 * A driver begins with 32 bits, goes to 64 and back to 32: what was mapped under one mask is
 * synced and unmapped under another, and the mask's change tells how much lies beyond it.
 */
static void device_set_streaming_mask__leaves_live_mappings_as_they_were_made(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	dmacore_dma_t narrow, wide[2], again;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;

	machine->low[0] = 1;
	machine->high[0] = 2;
	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(32), &beyond));
	assert_int_equal(beyond.count, 0);
	narrow = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	assert_true(narrow + PAGE - 1 <= DMACORE_BIT_MASK(32));

	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(64), &beyond));
	assert_int_equal(beyond.count, 0);
	wide[0] = map_for(machine, machine->high, PAGE, DMACORE_BIDIRECTIONAL);
	wide[1] = map_for(machine, machine->high + PAGE, 100, DMACORE_BIDIRECTIONAL);
	assert_true(wide[0] > DMACORE_BIT_MASK(32));
	assert_true(wide[1] > DMACORE_BIT_MASK(32));

	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(32), &beyond));
	assert_int_equal(beyond.count, 2);
	again = map_for(machine, machine->low + PAGE, PAGE, DMACORE_BIDIRECTIONAL);
	assert_true(again + PAGE - 1 <= DMACORE_BIT_MASK(32));

	/* No mask at all: nothing can be mapped, everything can be undone. */
	assert_ok(dmacore_device_set_streaming_mask(device, 0, NULL));
	for (unsigned i = 0; i < 2; i++) {
		dmacore_dma_t dma = i ? wide[0] : narrow;
		uint8_t byte = 0;

		assert_ok(dmacore_sync_for_cpu(device, dma, PAGE, DMACORE_BIDIRECTIONAL));
		assert_ok(dmacore_sync_for_device(device, dma, PAGE, DMACORE_BIDIRECTIONAL));
		assert_ok(dmacore_view_read(machine->view, dma, &byte, 1));
		assert_int_equal(byte, 1 + i);
		byte = 11 + i;
		assert_ok(dmacore_view_write(machine->view, dma, &byte, 1));
		assert_int_equal(i ? machine->high[0] : machine->low[0], 11 + i);
	}
	assert_ok(dmacore_unmap(device, wide[0], PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(32), &beyond));
	assert_int_equal(beyond.count, 1);
	assert_ok(dmacore_unmap(device, narrow, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_ok(dmacore_unmap(device, wide[1], 100, DMACORE_BIDIRECTIONAL, 0));
	assert_ok(dmacore_unmap(device, again, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void device_set_streaming_mask__counts_mappings_that_cross_it(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;

	assert_ok(dmacore_device_set_streaming_mask(machine->device, dma + 99, &beyond));
	assert_int_equal(beyond.count, 0);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, dma + 98, &beyond));
	assert_int_equal(beyond.count, 1);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, 0, &beyond));
	assert_int_equal(beyond.count, 1);
	assert_ok(dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_device_set_streaming_mask(machine->device, 0, &beyond));
	assert_int_equal(beyond.count, 0);
}

static void device_set_mask__counts_each_kind_by_its_own_mask(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	dmacore_dma_t dma, queue;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	void *cpu;

	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_device_set_coherent_mask(device, 1, &beyond));
	assert_int_equal(beyond.count, 0);
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));

	assert_ok(dmacore_device_set_coherent_mask(device, DMACORE_BIT_MASK(64), NULL));
	assert_ok(dmacore_alloc_coherent(device, PAGE, &cpu, &queue));
	assert_ok(dmacore_device_set_streaming_mask(device, 1, &beyond));
	assert_int_equal(beyond.count, 0);
	assert_ok(dmacore_device_set_coherent_mask(device, queue + PAGE - 1, &beyond));
	assert_int_equal(beyond.count, 0);
	assert_ok(dmacore_device_set_coherent_mask(device, queue + PAGE - 2, &beyond));
	assert_int_equal(beyond.count, 1);
	assert_ok(dmacore_device_set_coherent_mask(device, 0, &beyond));
	assert_int_equal(beyond.count, 1);
	assert_ok(dmacore_free_coherent(device, PAGE, cpu, queue));
}

/* Every entry point alike, whatever the path. */
static void device_set_mask__without_a_mask_nothing_can_be_mapped(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	dmacore_phys_t phys;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->low, 1, &phys));
	assert_ok(dmacore_device_set_streaming_mask(device, 0, NULL));
	assert_ok(dmacore_device_set_coherent_mask(device, 0, NULL));
	for (uint32_t direction = 0; direction < 3; direction++) {
		assert_fails_untouched(
			dmacore_map_single(device, machine->low, 1, direction, 0, &dma), ENXIO,
			dma);
		assert_fails_untouched(dmacore_map_phys(device, phys, 1, direction, 0, &dma), ENXIO,
				       dma);
	}
	assert_fails_untouched(dmacore_alloc_coherent(device, 1, &cpu, &dma), ENXIO, dma);

	/* One mask does not stand for the other. */
	assert_ok(dmacore_device_set_coherent_mask(device, DMACORE_BIT_MASK(64), NULL));
	assert_fails(dmacore_map_single(device, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma),
		     ENXIO);
	assert_fails(dmacore_map_phys(device, phys, 1, DMACORE_TO_DEVICE, 0, &dma), ENXIO);
	assert_ok(dmacore_alloc_coherent(device, 1, &cpu, &dma));
	assert_ok(dmacore_free_coherent(device, 1, cpu, dma));
	assert_ok(dmacore_device_set_coherent_mask(device, 0, NULL));
	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(64), NULL));
	assert_fails(dmacore_alloc_coherent(device, 1, &cpu, &dma), ENXIO);
	dma = map_for(machine, machine->low, 1, DMACORE_TO_DEVICE);
	assert_ok(dmacore_unmap(device, dma, 1, DMACORE_TO_DEVICE, 0));
	assert_int_equal(machine->pool.live, 0);
}

static void device_statistics__counts_what_is_live_and_what_was(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_statistics statistics = device_statistics(machine->device);
	dmacore_dma_t one, two, queue;
	uint8_t byte;
	void *cpu;

	assert_int_equal(statistics.mapping_count, 0);
	assert_int_equal(statistics.map_total, 0);
	one = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	two = map_for(machine, machine->low + PAGE, 5000, DMACORE_FROM_DEVICE);
	assert_ok(dmacore_alloc_coherent(machine->device, 2 * PAGE, &cpu, &queue));
	statistics = device_statistics(machine->device);
	assert_int_equal(statistics.mapping_count, 3);
	assert_int_equal(statistics.mapping_bytes, 100 + 5000 + 2 * PAGE);
	assert_int_equal(statistics.map_total, 3);
	assert_ok(dmacore_unmap(machine->device, one, 100, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_free_coherent(machine->device, 2 * PAGE, cpu, queue));
	statistics = device_statistics(machine->device);
	assert_int_equal(statistics.mapping_count, 1);
	assert_int_equal(statistics.mapping_bytes, 5000);
	assert_int_equal(statistics.map_total, 3);
	assert_ok(dmacore_unmap(machine->device, two, 5000, DMACORE_FROM_DEVICE, 0));

	assert_fails(dmacore_view_read(machine->view, 8, &byte, 1), ENOENT);
	statistics = device_statistics(machine->device);
	assert_int_equal(statistics.fault_total, 1);
	assert_int_equal(statistics.fault_lost, 0);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, 8, 8, DMACORE_ACCESS_READ);
}

static void device_statistics__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_fails(dmacore_device_statistics(NULL, &statistics), EINVAL);
	assert_fails(dmacore_device_statistics(machine->device, NULL), EINVAL);
}

static void device_statistics__checks_the_size_of_the_structure(void **state)
{
	struct machine *machine = *state;

	check_statistics_size(struct dmacore_device_statistics,
			      dmacore_device_statistics(machine->device, options));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, device_create__takes_defaults_without_options),
		test_on(DIRECT, device_create__rejects_null),
		test_on(DIRECT, device_create__rejects_bad_options),
		test_on_translated(device_create__rejects_an_iommu_of_another_system),
		test_on_translated(device_create__checks_the_size_of_its_options),
		test_on(TRACKED, device_create__copies_the_name_for_reports),
		cmocka_unit_test(device_destroy__accepts_null),
		test_on_recorded(device_destroy__undoes_and_reports_what_is_live),
		test_on_recorded(device_destroy__says_nothing_when_nothing_is_live),
		cmocka_unit_test(device_set_mask__rejects_null),
		test_on(TRACKED, device_set_streaming_mask__leaves_live_mappings_as_they_were_made),
		test_on(IDENTITY | TRACKED,
			device_set_streaming_mask__leaves_live_mappings_as_they_were_made),
		test_on_translated(
			device_set_streaming_mask__leaves_live_mappings_as_they_were_made),
		test_on_recorded(device_set_streaming_mask__counts_mappings_that_cross_it),
		test_on_recorded(device_set_mask__counts_each_kind_by_its_own_mask),
		test_on_all(device_set_mask__without_a_mask_nothing_can_be_mapped),
		test_on_recorded(device_statistics__counts_what_is_live_and_what_was),
		test_on_translated(device_statistics__rejects_null),
		test_on_translated(device_statistics__checks_the_size_of_the_structure),
	};

	return run_group("device", tests);
}
