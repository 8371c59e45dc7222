/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Memory that is declared a device's own: coherent.h. */

#include "support/machine.h"

#define OWN_PAGES 8
#define OWN_SIZE (OWN_PAGES * PAGE)

/* Where the machine has memory for this: its address, and where it is in the process. */
static dmacore_phys_t own(struct machine *machine)
{
	dmacore_phys_t phys;

	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->low, OWN_SIZE, &phys));
	return phys;
}

static void declare(struct machine *machine)
{
	memset(machine->low, 0xa5, OWN_SIZE);
	assert_ok(dmacore_declare_coherent_memory(machine->device, own(machine), OWN_SIZE));
}

struct memory {
	uint8_t *cpu;
	dmacore_dma_t dma;
};

static struct memory allocate(struct machine *machine, uint64_t size)
{
	struct memory memory;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, size, &cpu, &memory.dma));
	memory.cpu = cpu;
	return memory;
}

static void release(struct machine *machine, uint64_t size, struct memory memory)
{
	assert_ok(dmacore_free_coherent(machine->device, size, memory.cpu, memory.dma));
}

static void declare_coherent_memory__is_where_allocations_come_from(void **state)
{
	struct machine *machine = *state;
	struct memory pages[OWN_PAGES], two;
	bool is_seen[OWN_PAGES] = { false };
	dmacore_dma_t dma;
	void *cpu;

	declare(machine);
	for (unsigned i = 0; i < OWN_PAGES; i++) {
		uint64_t offset;

		pages[i] = allocate(machine, 1);
		offset = pages[i].cpu - machine->low;
		assert_true(offset % PAGE == 0 && offset < OWN_SIZE && !is_seen[offset / PAGE]);
		is_seen[offset / PAGE] = true;
		if (!(machine->path & TRANSLATED))
			assert_int_equal(pages[i].dma, own(machine) + offset);
		for (unsigned n = 0; n < PAGE; n++)
			assert_int_equal(pages[i].cpu[n], 0);
		memset(pages[i].cpu, 0xee, PAGE);
	}
	/* And from nowhere else. */
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 1, &cpu, &dma), ENOMEM, dma);
	assert_int_equal(machine->pool.calls, 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, OWN_PAGES);
	for (unsigned i = 0; i < OWN_PAGES; i++)
		release(machine, 1, pages[i]);
	/* All in a row is one again. */
	two = allocate(machine, OWN_SIZE);
	assert_ptr_equal(two.cpu, machine->low);
	for (unsigned n = 0; n < OWN_SIZE; n++)
		assert_int_equal(two.cpu[n], 0);
	release(machine, OWN_SIZE, two);
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, OWN_SIZE + 1, &cpu, &dma),
			       ENOMEM, dma);
	assert_int_equal(machine->pool.calls, 0);
	assert_ok(dmacore_release_coherent_memory(machine->device));
}

static void declare_coherent_memory__is_reached_by_the_device(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[100];
	struct memory memory;

	declare(machine);
	memory = allocate(machine, PAGE);
	fill(memory.cpu, 100, 1);
	assert_ok(dmacore_view_read(machine->view, memory.dma, bytes, 100));
	assert_memory_equal(bytes, memory.cpu, 100);
	fill(bytes, 100, 2);
	assert_ok(dmacore_view_write(machine->view, memory.dma, bytes, 100));
	assert_memory_equal(bytes, memory.cpu, 100);
	release(machine, PAGE, memory);
	assert_fails(dmacore_view_read(machine->view, memory.dma, bytes, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, memory.dma, memory.dma,
		       DMACORE_ACCESS_READ);
	assert_ok(dmacore_release_coherent_memory(machine->device));
}

static void declare_coherent_memory__is_for_pools_and_not_for_noncontiguous_memory(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool_options options = DMACORE_COHERENT_POOL_OPTIONS_INIT;
	const struct dmacore_memory_segment *segments;
	struct dmacore_coherent_pool *pool;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	declare(machine);
	options.size = PAGE;
	assert_ok(dmacore_coherent_pool_create(machine->device, &options, &pool));
	for (unsigned i = 0; i < OWN_PAGES; i++) {
		assert_ok(dmacore_coherent_pool_alloc(pool, &cpu, &dma));
		assert_true((uint64_t)((uint8_t *)cpu - machine->low) < OWN_SIZE);
		assert_int_equal(((uint8_t *)cpu)[PAGE - 1], 0);
	}
	assert_fails(dmacore_coherent_pool_alloc(pool, &cpu, &dma), ENOMEM);
	assert_ok(
		dmacore_alloc_noncontiguous(machine->device, PAGE, 0, 0, &dma, &segments, &count));
	assert_true((uint64_t)((uint8_t *)segments[0].cpu - machine->low) >= OWN_SIZE);
	assert_ok(dmacore_free_noncontiguous(machine->device, PAGE, dma));
	assert_fails(dmacore_release_coherent_memory(machine->device), EBUSY);
	dmacore_coherent_pool_destroy(pool);
	reports_forget(&machine->reports);
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	reports_forget(&machine->reports);
}

static void declare_coherent_memory__leaves_what_lives_as_it_is(void **state)
{
	struct machine *machine = *state;
	struct memory before = allocate(machine, PAGE), own;

	declare(machine);
	own = allocate(machine, PAGE);
	release(machine, PAGE, before);
	assert_int_equal(machine->pool.live, 0);
	assert_fails(dmacore_release_coherent_memory(machine->device), EBUSY);
	release(machine, PAGE, own);
	assert_ok(dmacore_release_coherent_memory(machine->device));
	before = allocate(machine, PAGE);
	assert_true((uint64_t)(before.cpu - machine->low) >= OWN_SIZE);
	release(machine, PAGE, before);
}

static void declare_coherent_memory__is_one_a_device(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device, *other = make_device(machine);

	assert_fails(dmacore_release_coherent_memory(device), ENOENT);
	assert_fails(dmacore_release_coherent_memory(NULL), EINVAL);
	declare(machine);
	assert_fails(dmacore_declare_coherent_memory(device, own(machine), PAGE), EBUSY);
	assert_fails(dmacore_release_coherent_memory(other), ENOENT);
	/* Who gives two devices the same knows why. */
	assert_ok(dmacore_declare_coherent_memory(other, own(machine), PAGE));
	assert_ok(dmacore_release_coherent_memory(device));
	assert_fails(dmacore_release_coherent_memory(device), ENOENT);
	declare(machine);
	assert_ok(dmacore_release_coherent_memory(device));
	dmacore_device_destroy(other);
}

static int region_read(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	(void)offset, (void)opaque;
	memset(buffer, 0, size);
	return 0;
}

static int region_write(uint64_t offset, const void *buffer, size_t size, void *opaque)
{
	(void)offset, (void)buffer, (void)size, (void)opaque;
	return 0;
}

static void declare_coherent_memory__refuses_what_is_none(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	const uint64_t base = UINT64_C(0x30000000);
	const struct {
		uint64_t phys, size;
	} bad[] = {
		{ LOW_BASE, 0 },
		{ LOW_BASE + 1, PAGE },
		{ LOW_BASE, PAGE - 1 },
		{ LOW_BASE + 2048, 2 * PAGE },
		{ UINT64_MAX - PAGE + 1, 2 * PAGE },
		{ PAGE, UINT64_MAX },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_fails(dmacore_declare_coherent_memory(device, bad[i].phys, bad[i].size),
			     EINVAL);
	assert_fails(dmacore_declare_coherent_memory(NULL, LOW_BASE, PAGE), EINVAL);
	/* Nowhere, in two regions, behind the end of one. */
	assert_fails(dmacore_declare_coherent_memory(device, base, PAGE), EFAULT);
	assert_fails(dmacore_declare_coherent_memory(device, LOW_BASE, RAM_SIZE + PAGE), EFAULT);
	assert_fails(dmacore_declare_coherent_memory(device, HIGH_BASE + RAM_SIZE - PAGE, 2 * PAGE),
		     EFAULT);
	assert_fails(dmacore_declare_coherent_memory(device, UINT64_MAX - PAGE + 1, PAGE), EFAULT);
	/* Memory that devices may not write, and that is not whole pages of the process. */
	add_host_region(machine->system, base, PAGE, machine->arena + RAM_SIZE,
			DMACORE_MEMORY_READ_ONLY);
	assert_fails(dmacore_declare_coherent_memory(device, base, PAGE), EFAULT);
	add_host_region(machine->system, base + PAGE, PAGE, machine->arena + RAM_SIZE + PAGE + 8,
			0);
	assert_fails(dmacore_declare_coherent_memory(device, base + PAGE, PAGE), EFAULT);
	region.base = base + 2 * PAGE;
	region.size = PAGE;
	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.read = region_read;
	region.write = region_write;
	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_fails(dmacore_declare_coherent_memory(device, base + 2 * PAGE, PAGE), EOPNOTSUPP);
	assert_fails(dmacore_release_coherent_memory(device), ENOENT);
	/* Nothing of that holds a region. */
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_memory_remove(machine->system, base + i * PAGE, PAGE));
}

static void declare_coherent_memory__keeps_its_region_in_place(void **state)
{
	struct machine *machine = *state;

	declare(machine);
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE), EBUSY);
	release(machine, PAGE, allocate(machine, PAGE));
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE), EBUSY);
	assert_ok(dmacore_release_coherent_memory(machine->device));
	assert_ok(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE));
}

static void declare_coherent_memory__ends_with_the_device(void **state)
{
	struct machine *machine = *state;
	struct dmacore_view_mapping *mapping;
	const struct dmacore_view_segment *segments;
	struct memory memory;
	size_t count;

	declare(machine);
	(void)allocate(machine, PAGE);
	memory = allocate(machine, PAGE);
	assert_ok(dmacore_view_map(machine->view, memory.dma, 1, DMACORE_ACCESS_WRITE, &mapping,
				   &segments, &count));
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	/* It was live, and views hold it. */
	assert_true(machine->reports.count >= 1);
	reports_forget(&machine->reports);
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE), EBUSY);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE));
}

static int probe_nothing(struct dmacore_device *device, void *opaque)
{
	(void)device, (void)opaque;
	return 0;
}

static void declare_coherent_memory__outlives_the_driver(void **state)
{
	struct machine *machine = *state;
	struct dmacore_driver driver = { .struct_size = sizeof(driver) };

	driver.name = "nvme";
	driver.flags = DMACORE_DRIVER_MANAGES_DMA;
	driver.probe = probe_nothing;
	declare(machine);
	assert_ok(dmacore_device_bind(machine->device, &driver));
	(void)allocate(machine, OWN_SIZE);
	assert_fails(dmacore_release_coherent_memory(machine->device), EBUSY);
	assert_ok(dmacore_device_unbind(machine->device));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	release(machine, OWN_SIZE, allocate(machine, OWN_SIZE));
	assert_int_equal(machine->pool.calls, 0);
	assert_ok(dmacore_release_coherent_memory(machine->device));
}

static void declare_coherent_memory__keeps_to_the_mask(void **state)
{
	struct machine *machine = *state;
	struct memory memory;
	dmacore_dma_t dma;
	void *cpu;

	declare(machine);
	assert_ok(dmacore_device_set_coherent_mask(machine->device, LOW_BASE + 2 * PAGE - 1, NULL));
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 3 * PAGE, &cpu, &dma),
			       ENOMEM, dma);
	memory = allocate(machine, 2 * PAGE);
	assert_int_equal(memory.dma, LOW_BASE);
	release(machine, 2 * PAGE, memory);
	assert_ok(dmacore_device_set_coherent_mask(machine->device, LOW_BASE - 1, NULL));
	assert_fails_untouched(dmacore_alloc_coherent(machine->device, 1, &cpu, &dma), ENOMEM, dma);
	assert_ok(dmacore_release_coherent_memory(machine->device));
}

/* A device that has memory on its board at 1 MiB. */
static void declare_coherent_memory__is_where_the_bus_has_it(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_dma_range range = { 0x100000, LOW_BASE, OWN_SIZE };
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	dmacore_dma_t dma;
	void *cpu;

	options.ranges = &range;
	options.range_count = 1;
	options.coherent_mask = DMACORE_BIT_MASK(24);
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_declare_coherent_memory(device, LOW_BASE, OWN_SIZE));
	assert_ok(dmacore_alloc_coherent(device, OWN_SIZE, &cpu, &dma));
	assert_int_equal(dma, 0x100000);
	assert_ptr_equal(cpu, machine->low);
	assert_ok(dmacore_free_coherent(device, OWN_SIZE, cpu, dma));
	assert_ok(dmacore_release_coherent_memory(device));
	dmacore_device_destroy(device);
}

/* Then nobody else need say where coherent memory comes from. */
static void declare_coherent_memory__needs_no_allocator(void **state)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct machine *machine = *state;
	struct dmacore_system *system;
	struct dmacore_device *device;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_system_create(NULL, &system));
	add_host_region(system, LOW_BASE, RAM_SIZE, machine->low, 0);
	options.coherent_mask = DMACORE_BIT_MASK(64);
	assert_ok(dmacore_device_create(system, &options, &device));
	assert_ok(dmacore_declare_coherent_memory(device, LOW_BASE, PAGE));
	assert_ok(dmacore_alloc_coherent(device, 1, &cpu, &dma));
	assert_ok(dmacore_free_coherent(device, 1, cpu, dma));
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_all(declare_coherent_memory__is_where_allocations_come_from),
		test_on_recorded(declare_coherent_memory__is_reached_by_the_device),
		test_on_recorded(
			declare_coherent_memory__is_for_pools_and_not_for_noncontiguous_memory),
		test_on_all(declare_coherent_memory__leaves_what_lives_as_it_is),
		test_on_all(declare_coherent_memory__is_one_a_device),
		test_on(DIRECT, declare_coherent_memory__refuses_what_is_none),
		test_on_translated(declare_coherent_memory__refuses_what_is_none),
		test_on(DIRECT, declare_coherent_memory__keeps_its_region_in_place),
		test_on_translated(declare_coherent_memory__keeps_its_region_in_place),
		test_on(TRACKED, declare_coherent_memory__ends_with_the_device),
		test_on_translated(declare_coherent_memory__ends_with_the_device),
		test_on_all(declare_coherent_memory__outlives_the_driver),
		test_on(DIRECT, declare_coherent_memory__keeps_to_the_mask),
		test_on(TRACKED, declare_coherent_memory__keeps_to_the_mask),
		test_on(DIRECT, declare_coherent_memory__is_where_the_bus_has_it),
		test_on(TRACKED, declare_coherent_memory__is_where_the_bus_has_it),
		test_on(DIRECT, declare_coherent_memory__needs_no_allocator),
	};

	return run_group("declared_memory", tests);
}
