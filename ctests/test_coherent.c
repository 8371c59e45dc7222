/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

static void alloc_coherent__gives_zeroed_pages_aligned_on_both_sides(void **state)
{
	struct machine *machine = *state;
	const uint64_t sizes[] = { 1, PAGE, PAGE + 1, 4 * PAGE };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint64_t pages = (sizes[i] + PAGE - 1) / PAGE;
		dmacore_dma_t dma = UNTOUCHED;
		uint8_t *bytes;
		void *cpu;

		assert_ok(dmacore_alloc_coherent(machine->device, sizes[i], &cpu, &dma));
		assert_int_equal((uintptr_t)cpu % PAGE, 0);
		assert_int_equal(dma % PAGE, 0);
		bytes = cpu;
		for (uint64_t n = 0; n < pages * PAGE; n++)
			assert_int_equal(bytes[n], 0);
		/* Not zero any more, for whoever gets it next. */
		memset(cpu, 0xee, pages * PAGE);
		assert_ok(dmacore_free_coherent(machine->device, sizes[i], cpu, dma));
	}
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void alloc_coherent__lets_both_sides_see_each_others_bytes(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[2 * PAGE];
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, 2 * PAGE, &cpu, &dma));
	fill(cpu, 2 * PAGE, 1);
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 2 * PAGE));
	assert_memory_equal(cpu, bytes, 2 * PAGE);
	fill(bytes, 2 * PAGE, 2);
	assert_ok(dmacore_view_write(machine->view, dma, bytes, 2 * PAGE));
	assert_memory_equal(cpu, bytes, 2 * PAGE);
	assert_ok(dmacore_free_coherent(machine->device, 2 * PAGE, cpu, dma));

	/* Afterwards the device is kept out. */
	assert_fails(dmacore_view_read(machine->view, dma, bytes, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma, dma, DMACORE_ACCESS_READ);
}

static void alloc_coherent__is_recorded_on_every_path(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, 5000, &cpu, &dma));
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	assert_misuse(machine, dmacore_free_coherent(machine->device, 1, cpu, dma));
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	assert_ok(dmacore_free_coherent(machine->device, 5000, cpu, dma));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_misuse(machine, dmacore_free_coherent(machine->device, 5000, cpu, dma));
}

static void alloc_coherent__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = UNTOUCHED;
	void *cpu;

	assert_fails_untouched(dmacore_alloc_coherent(NULL, 1, &cpu, &dma), EINVAL, cpu);
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 1, NULL, &dma), EINVAL, dma);
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 1, &cpu, NULL), EINVAL, cpu);
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 0, &cpu, &dma), EINVAL, cpu);
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, UINT64_MAX, &cpu, &dma),
			       EINVAL, cpu);
	assert_fails_untouched(
		dmacore_alloc_coherent(machine->device, UINT64_MAX - 4094, &cpu, &dma), EINVAL,
		cpu);
	assert_true(dma == UNTOUCHED);
	assert_int_equal(machine->pool.calls, 0);
}

static void alloc_coherent__needs_an_allocator_where_memory_is_not_the_process(void **state)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_system *system;
	struct dmacore_device *device;
	dmacore_dma_t dma;
	void *cpu;

	(void)state;
	assert_ok(dmacore_system_create(NULL, &system));
	options.coherent_mask = DMACORE_BIT_MASK(64);
	assert_ok(dmacore_device_create(system, &options, &device));
	assert_fails_untouched(dmacore_alloc_coherent(device, 1, &cpu, &dma), EOPNOTSUPP, dma);
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

static void alloc_coherent__gives_foreign_memory_back(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_statistics before = device_statistics(machine->device), after;
	static uint8_t foreign[2 * PAGE] __attribute__((aligned(4096)));
	dmacore_dma_t dma;
	void *cpu;

	machine->pool.foreign = foreign;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EFAULT,
			       dma);
	assert_int_equal(machine->pool.live, 0);
	/* Inside a region at first, and out of it with the second page. */
	machine->pool.foreign = machine->low + RAM_SIZE - PAGE;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 2 * PAGE, &cpu, &dma),
			       EFAULT, dma);
	assert_int_equal(machine->pool.live, 0);
	machine->pool.foreign = NULL;
	after = device_statistics(machine->device);
	assert_memory_equal(&before, &after, sizeof(before));
}

/* In a region, but not as the device could use it: not whole pages there, or not to be written. */
static void alloc_coherent__gives_unusable_memory_back(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[4 * PAGE] __attribute__((aligned(4096)));
	const uint64_t base = UINT64_C(0x30000000);
	dmacore_dma_t dma;
	void *cpu;

	machine->pool.foreign = machine->low + 16;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EFAULT,
			       dma);
	assert_int_equal(machine->pool.live, 0);

	/* Pages of the process that are none of physical memory. */
	add_host_region(machine->system, base + 16, 2 * PAGE, bytes, 0);
	machine->pool.foreign = bytes;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EFAULT,
			       dma);
	assert_int_equal(machine->pool.live, 0);

	add_host_region(machine->system, base + 4 * PAGE, 2 * PAGE, bytes + 2 * PAGE,
			DMACORE_MEMORY_READ_ONLY);
	machine->pool.foreign = bytes + 2 * PAGE;
	bytes[2 * PAGE] = 5;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EFAULT,
			       dma);
	assert_int_equal(machine->pool.live, 0);
	assert_int_equal(bytes[2 * PAGE], 5);
	machine->pool.foreign = NULL;
}

static void alloc_coherent__keeps_its_region_in_place(void **state)
{
	struct machine *machine = *state;
	const uint64_t size = POOL_PAGES * PAGE;
	dmacore_dma_t one, two;
	void *cpus[2];

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpus[0], &one));
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpus[1], &two));
	assert_fails(dmacore_memory_remove(machine->system, POOL_HIGH_BASE, size), EBUSY);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpus[0], one));
	assert_fails(dmacore_memory_remove(machine->system, POOL_HIGH_BASE, size), EBUSY);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpus[1], two));
	assert_ok(dmacore_memory_remove(machine->system, POOL_HIGH_BASE, size));
}

static void alloc_coherent__tells_the_allocator_its_needs(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, 5000, &cpu, &dma));
	assert_int_equal(machine->pool.size, 2 * PAGE);
	assert_true(machine->pool.alignment >= PAGE);
	assert_ok(dmacore_free_coherent(machine->device, 5000, cpu, dma));
}

static void alloc_coherent__keeps_to_the_mask_on_the_direct_path(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_true(dma >= POOL_HIGH_BASE);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));

	assert_ok(dmacore_device_set_coherent_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_int_equal(machine->pool.limit, DMACORE_BIT_MASK(32));
	assert_true(dma >= POOL_LOW_BASE && dma <= DMACORE_BIT_MASK(32) - PAGE + 1);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));

	/* An allocator that has nothing under the limit, and one that does not look. */
	assert_ok(
		dmacore_device_set_coherent_mask(machine->device, POOL_LOW_BASE + PAGE - 2, NULL));
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ENOMEM,
			       dma);
	machine->pool.ignores_limit = true;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ERANGE,
			       dma);
	assert_int_equal(machine->pool.live, 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void alloc_coherent__keeps_to_the_mask_on_a_flat_system(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	/* The heap of a process lies far above its first page. */
	assert_ok(dmacore_device_set_coherent_mask(machine->device, PAGE - 1, NULL));
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 1, &cpu, &dma), ERANGE, dma);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void alloc_coherent__keeps_to_the_mask_through_an_iommu(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	dmacore_dma_t dma, none;
	void *cpu, *nothing;

	assert_ok(dmacore_device_set_coherent_mask(device, 0x10000 + PAGE, NULL));
	assert_ok(dmacore_alloc_coherent(device, PAGE, &cpu, &dma));
	assert_int_equal(dma, 0x10000);
	assert_ok(dmacore_free_coherent(device, PAGE, cpu, dma));

	assert_ok(dmacore_device_set_coherent_mask(device, 2 * PAGE - 1, NULL));
	assert_ok(dmacore_alloc_coherent(device, 1, &cpu, &dma));
	assert_int_equal(dma, PAGE);
	assert_fails_untouched(dmacore_alloc_coherent(device, 1, &nothing, &none), ENOSPC, none);
	assert_ok(dmacore_free_coherent(device, 1, cpu, dma));

	assert_ok(dmacore_device_set_coherent_mask(device, PAGE - 1, NULL));
	assert_fails_untouched(dmacore_alloc_coherent(device, 1, &nothing, &none), ERANGE, none);
	assert_int_equal(machine->pool.live, 0);
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
}

static void alloc_coherent__without_memory_changes_nothing(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_statistics before = device_statistics(machine->device), after;
	dmacore_dma_t dma;
	void *cpu;

	machine->pool.left = 0;
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), ENOMEM,
			       dma);
	machine->pool.left = -1;
	if (machine->path & TRANSLATED) {
		machine->tables.left = 0;
		assert_fails_untouched(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma),
				       ENOMEM, dma);
		machine->tables.left = -1;
		assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
		assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
	}
	assert_int_equal(machine->pool.live, 0);
	after = device_statistics(machine->device);
	assert_memory_equal(&before, &after, sizeof(before));
}

static void alloc_coherent__of_more_than_there_is_fails(void **state)
{
	struct machine *machine = *state;
	const uint64_t sizes[] = { UINT64_C(1) << 62, UINT64_C(1) << 63,
				   UINT64_MAX - 2 * PAGE + 1 };
	dmacore_dma_t dma;
	void *cpu;

	for (unsigned i = 0; i < 3; i++)
		assert_fails_untouched(
			dmacore_alloc_coherent(machine->device, sizes[i], &cpu, &dma), ENOMEM, dma);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void free_coherent__refuses_what_was_not_allocated_so(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	struct dmacore_device_statistics before, after;
	dmacore_dma_t dma, streaming;
	uint8_t *bytes;
	void *cpu;

	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, other));
	assert_ok(dmacore_alloc_coherent(machine->device, 2 * PAGE, &cpu, &dma));
	streaming = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	bytes = cpu;
	bytes[0] = 88;
	before = device_statistics(machine->device);

	assert_fails(dmacore_free_coherent(NULL, 2 * PAGE, cpu, dma), EINVAL);
	assert_fails(dmacore_free_coherent(machine->device, 2 * PAGE, NULL, dma), EINVAL);
	reports_forget(&machine->reports);
	assert_misuse(machine, dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	assert_misuse(machine, dmacore_free_coherent(machine->device, 3 * PAGE, cpu, dma));
	assert_misuse(machine, dmacore_free_coherent(machine->device, 2 * PAGE, bytes + PAGE, dma));
	assert_misuse(machine, dmacore_free_coherent(machine->device, 2 * PAGE, cpu, dma + PAGE));
	assert_misuse(machine, dmacore_free_coherent(machine->device, 2 * PAGE, cpu, streaming));
	assert_misuse(machine, dmacore_free_coherent(other, 2 * PAGE, cpu, dma));
	/* The two kinds of mapping are not undone by each other's call. */
	assert_misuse(machine,
		      dmacore_free_coherent(machine->device, PAGE, machine->low, streaming));
	assert_misuse(machine,
		      dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	after = device_statistics(machine->device);
	assert_memory_equal(&before, &after, sizeof(before));
	assert_int_equal(bytes[0], 88);

	assert_ok(dmacore_unmap(machine->device, streaming, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_ok(dmacore_free_coherent(machine->device, 2 * PAGE, cpu, dma));
	dmacore_device_destroy(other);
}

static void free_coherent__waits_for_zero_copy_mappings(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct dmacore_device_statistics before, after;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, 2 * PAGE, &cpu, &dma));
	assert_ok(dmacore_view_map(machine->view, dma + PAGE + 5, 10, DMACORE_ACCESS_WRITE,
				   &mapping, &segments, &count));
	assert_ptr_equal(segments[0].host, (uint8_t *)cpu + PAGE + 5);
	before = device_statistics(machine->device);
	assert_fails(dmacore_free_coherent(machine->device, 2 * PAGE, cpu, dma), EBUSY);
	after = device_statistics(machine->device);
	assert_memory_equal(&before, &after, sizeof(before));
	memset(segments[0].host, 9, 10);
	assert_int_equal(((uint8_t *)cpu)[PAGE + 5], 9);
	dmacore_view_unmap(mapping);
	reports_forget(&machine->reports);
	assert_ok(dmacore_free_coherent(machine->device, 2 * PAGE, cpu, dma));
}

/* Another device of the domain reaches the memory too, and its view may hold it. */
static void free_coherent__waits_for_views_of_the_whole_domain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct dmacore_view *view;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	assert_ok(dmacore_domain_attach(machine->domain, other));
	assert_ok(dmacore_view_create(other, &view));
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_view_map(view, dma, 1, DMACORE_ACCESS_READ, &mapping, &segments, &count));
	assert_fails(dmacore_free_coherent(machine->device, PAGE, cpu, dma), EBUSY);
	dmacore_view_unmap(mapping);
	reports_forget(&machine->reports);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	dmacore_view_destroy(view);
	dmacore_device_destroy(other);
}

/* Nobody is left who could say when it may be freed, so that it never is. */
static void device_destroy__keeps_coherent_memory_that_a_view_holds(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_view_map(machine->view, dma, PAGE, DMACORE_ACCESS_WRITE, &mapping,
				   &segments, &count));
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_true(machine->reports.count >= 1);
	for (unsigned i = 0; i < machine->reports.count; i++)
		assert_int_equal(machine->reports.at[i].level, DMACORE_REPORT_WARNING);
	reports_forget(&machine->reports);
	assert_int_equal(machine->pool.live, 1);
	memset(segments[0].host, 3, PAGE);
	dmacore_view_unmap(mapping);
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	assert_int_equal(machine->pool.live, 1);
	coherent_pool_free(cpu, PAGE, &machine->pool);
}

static void free_coherent__works_whatever_the_mask_has_become(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_device_set_coherent_mask(machine->device, 0, NULL));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, alloc_coherent__gives_zeroed_pages_aligned_on_both_sides),
		test_on(FLAT, alloc_coherent__gives_zeroed_pages_aligned_on_both_sides),
		test_on_recorded(alloc_coherent__gives_zeroed_pages_aligned_on_both_sides),
		test_on_recorded(alloc_coherent__lets_both_sides_see_each_others_bytes),
		test_on_all(alloc_coherent__is_recorded_on_every_path),
		test_on_all(alloc_coherent__rejects_bad_arguments),
		cmocka_unit_test(
			alloc_coherent__needs_an_allocator_where_memory_is_not_the_process),
		test_on(DIRECT, alloc_coherent__gives_foreign_memory_back),
		test_on_translated(alloc_coherent__gives_foreign_memory_back),
		test_on(DIRECT, alloc_coherent__gives_unusable_memory_back),
		test_on_translated(alloc_coherent__gives_unusable_memory_back),
		test_on(DIRECT, alloc_coherent__keeps_its_region_in_place),
		test_on(TRACKED, alloc_coherent__keeps_its_region_in_place),
		test_on_translated(alloc_coherent__keeps_its_region_in_place),
		test_on(DIRECT, alloc_coherent__tells_the_allocator_its_needs),
		test_on_translated(alloc_coherent__tells_the_allocator_its_needs),
		test_on(DIRECT, alloc_coherent__keeps_to_the_mask_on_the_direct_path),
		test_on(IDENTITY, alloc_coherent__keeps_to_the_mask_on_the_direct_path),
		test_on(TRACKED, alloc_coherent__keeps_to_the_mask_on_the_direct_path),
		test_on(FLAT, alloc_coherent__keeps_to_the_mask_on_a_flat_system),
		test_on(FLAT | TRACKED, alloc_coherent__keeps_to_the_mask_on_a_flat_system),
		test_on_translated(alloc_coherent__keeps_to_the_mask_through_an_iommu),
		test_on(DIRECT, alloc_coherent__without_memory_changes_nothing),
		test_on(TRACKED, alloc_coherent__without_memory_changes_nothing),
		test_on(TRANSLATED, alloc_coherent__without_memory_changes_nothing),
		test_on(DIRECT, alloc_coherent__of_more_than_there_is_fails),
		test_on_recorded(alloc_coherent__of_more_than_there_is_fails),
		test_on_recorded(free_coherent__refuses_what_was_not_allocated_so),
		test_on_recorded(free_coherent__waits_for_zero_copy_mappings),
		test_on_translated(free_coherent__waits_for_views_of_the_whole_domain),
		test_on(TRACKED, device_destroy__keeps_coherent_memory_that_a_view_holds),
		test_on_translated(device_destroy__keeps_coherent_memory_that_a_view_holds),
		test_on_all(free_coherent__works_whatever_the_mask_has_become),
	};

	return run_group("coherent", tests);
}
