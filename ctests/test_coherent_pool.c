/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

#define OBJECTS_MAX 1024

static struct dmacore_coherent_pool_options pool_options(uint64_t size, uint64_t alignment,
							 uint64_t boundary)
{
	struct dmacore_coherent_pool_options options = DMACORE_COHERENT_POOL_OPTIONS_INIT;

	options.size = size;
	options.alignment = alignment;
	options.boundary = boundary;
	return options;
}

static struct dmacore_coherent_pool *make_pool(struct machine *machine, uint64_t size,
					       uint64_t alignment, uint64_t boundary)
{
	struct dmacore_coherent_pool_options options = pool_options(size, alignment, boundary);
	struct dmacore_coherent_pool *pool;

	assert_ok(dmacore_coherent_pool_create(machine->device, &options, &pool));
	return pool;
}

struct object {
	uint8_t *cpu;
	dmacore_dma_t dma;
};

static struct object take(struct dmacore_coherent_pool *pool)
{
	struct object object;
	void *cpu;

	assert_ok(dmacore_coherent_pool_alloc(pool, &cpu, &object.dma));
	object.cpu = cpu;
	return object;
}

static void put(struct dmacore_coherent_pool *pool, struct object object)
{
	assert_ok(dmacore_coherent_pool_free(pool, object.cpu, object.dma));
}

static void coherent_pool_create__refuses_what_is_no_pool(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_coherent_pool_options good = pool_options(64, 0, 0);
	const struct {
		uint64_t size, alignment, boundary;
	} bad[] = {
		{ 0, 0, 0 },	      { 4097, 0, 0 },	 { UINT64_MAX, 0, 0 },
		{ 64, 3, 0 },	      { 64, 8192, 0 },	 { 64, UINT64_C(1) << 63, 0 },
		{ 64, 0, 65 },	      { 64, 0, 96 },	 { 64, 0, 32 },
		{ 64, 0, 1 },	      { 4096, 0, 2048 }, { 1, UINT64_MAX, 0 },
		{ 1, 0, UINT64_MAX },
	};
	struct dmacore_coherent_pool_options options;
	struct dmacore_coherent_pool *pool;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		options = pool_options(bad[i].size, bad[i].alignment, bad[i].boundary);
		assert_creates_nothing(
			dmacore_coherent_pool_create(machine->device, &options, &pool), EINVAL,
			pool);
	}
	options = good;
	options.flags = 1;
	assert_creates_nothing(dmacore_coherent_pool_create(machine->device, &options, &pool),
			       EINVAL, pool);
	options = good;
	options.reserved = 1;
	assert_creates_nothing(dmacore_coherent_pool_create(machine->device, &options, &pool),
			       EINVAL, pool);
	assert_creates_nothing(dmacore_coherent_pool_create(machine->device, NULL, &pool), EINVAL,
			       pool);
	assert_creates_nothing(dmacore_coherent_pool_create(NULL, &good, &pool), EINVAL, pool);
	assert_fails(dmacore_coherent_pool_create(machine->device, &good, NULL), EINVAL);
	check_struct_size(struct dmacore_coherent_pool_options, good,
			  dmacore_coherent_pool_create(machine->device, options, &pool), pool,
			  dmacore_coherent_pool_destroy);
	dmacore_coherent_pool_destroy(NULL);
	assert_int_equal(machine->pool.calls, 0);
}

/* All objects of some pages, of each shape: where they may be, apart from each other, and full of zeroes. */
static void coherent_pool_alloc__gives_zeroed_objects_of_the_shape(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint64_t size, alignment, boundary;
		/* Objects of a page. */
		unsigned count;
	} shapes[] = {
		{ 1, 0, 0, 512 },	 { 8, 8, 0, 512 },     { 9, 0, 0, 256 },
		{ 64, 64, 64, 64 },	 { 64, 4096, 0, 1 },   { 24, 8, 32, 128 },
		{ 24, 8, 64, 128 },	 { 24, 8, 128, 160 },  { 100, 0, 0, 39 },
		{ 100, 16, 256, 32 },	 { 1, 1, 1, 512 },     { 4, 32, 4, 128 },
		{ 1500, 0, 0, 2 },	 { 1500, 0, 2048, 2 }, { 4096, 0, 0, 1 },
		{ 4096, 4096, 4096, 1 }, { 2049, 0, 4096, 1 }, { 48, 0, UINT64_C(1) << 63, 85 },
		{ 2040, 16, 4096, 2 },
	};
	static struct object objects[OBJECTS_MAX];

	for (unsigned i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		uint64_t size = shapes[i].size, boundary = shapes[i].boundary;
		uint64_t alignment = shapes[i].alignment < 8 ? 8 : shapes[i].alignment;
		unsigned count = 2 * shapes[i].count;
		struct dmacore_coherent_pool *pool =
			make_pool(machine, size, shapes[i].alignment, boundary);

		assert_true(count <= OBJECTS_MAX);
		assert_int_equal(device_statistics(machine->device).mapping_count, 0);
		for (unsigned n = 0; n < count; n++) {
			struct object object = objects[n] = take(pool);
			uint64_t last = object.dma + size - 1;

			assert_int_equal(device_statistics(machine->device).mapping_count,
					 n / shapes[i].count + 1);
			assert_int_equal(object.dma % alignment, 0);
			assert_int_equal((uintptr_t)object.cpu % alignment, 0);
			if (boundary)
				assert_true(object.dma / boundary == last / boundary);
			for (uint64_t at = 0; at < size; at++)
				assert_int_equal(object.cpu[at], 0);
			/* Whoever gets a byte of it too finds this. */
			memset(object.cpu, 0xee, size);
		}
		for (unsigned n = 0; n < count; n++)
			put(pool, objects[n]);
		/* The pages stay, and what was written in the objects goes. */
		assert_int_equal(device_statistics(machine->device).mapping_count, 2);
		for (unsigned n = 0; n < count; n++) {
			objects[n] = take(pool);
			for (uint64_t at = 0; at < size; at++)
				assert_int_equal(objects[n].cpu[at], 0);
			memset(objects[n].cpu, 0xee, size);
		}
		assert_int_equal(device_statistics(machine->device).mapping_count, 2);
		for (unsigned n = count; n-- > 0;)
			put(pool, objects[n]);
		dmacore_coherent_pool_destroy(pool);
		assert_int_equal(device_statistics(machine->device).mapping_count, 0);
		assert_int_equal(machine->pool.live, 0);
	}
}

static void coherent_pool_alloc__lets_both_sides_see_each_others_bytes(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 100, 0, 0);
	struct object one = take(pool), two = take(pool);
	uint8_t bytes[100];

	fill(one.cpu, 100, 1);
	fill(two.cpu, 100, 2);
	assert_ok(dmacore_view_read(machine->view, one.dma, bytes, 100));
	assert_memory_equal(bytes, one.cpu, 100);
	fill(bytes, 100, 3);
	assert_ok(dmacore_view_write(machine->view, two.dma, bytes, 100));
	assert_memory_equal(bytes, two.cpu, 100);

	/* What the device writes to an object that is free is gone when it is taken. */
	put(pool, two);
	assert_ok(dmacore_view_write(machine->view, two.dma, bytes, 100));
	two = take(pool);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(two.cpu[i], 0);
	put(pool, one);
	put(pool, two);
	dmacore_coherent_pool_destroy(pool);
	/* The pool kept the device's memory, and the device is kept out of it now. */
	assert_fails(dmacore_view_read(machine->view, one.dma, bytes, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, one.dma, one.dma, DMACORE_ACCESS_READ);
}

static void coherent_pool_alloc__refuses_nulls(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 64, 0, 0);
	dmacore_dma_t dma;
	void *cpu;

	assert_fails_untouched(dmacore_coherent_pool_alloc(NULL, &cpu, &dma), EINVAL, dma);
	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, NULL, &dma), EINVAL, dma);
	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, &cpu, NULL), EINVAL, cpu);
	assert_int_equal(machine->pool.calls, 0);
	dmacore_coherent_pool_destroy(pool);
}

/* What an allocation of a page fails with. */
static void coherent_pool_alloc__fails_as_alloc_coherent_does(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	struct dmacore_coherent_pool *pool = make_pool(machine, 4096, 0, 0);
	struct object object;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_device_set_coherent_mask(device, 0, NULL));
	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, &cpu, &dma), ENXIO, dma);
	assert_ok(dmacore_device_set_coherent_mask(device, PAGE - 1, NULL));
	machine->pool.ignores_limit = true;
	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, &cpu, &dma), ERANGE, dma);
	machine->pool.ignores_limit = false;
	assert_ok(dmacore_device_set_coherent_mask(device, UINT64_MAX, NULL));
	machine->pool.left = 0;
	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, &cpu, &dma), ENOMEM, dma);
	machine->pool.left = -1;
	assert_int_equal(device_statistics(device).mapping_count, 0);

	/* What is there is given whatever the mask is. */
	object = take(pool);
	put(pool, object);
	assert_ok(dmacore_device_set_coherent_mask(device, 0, NULL));
	put(pool, take(pool));
	dmacore_coherent_pool_destroy(pool);
}

static void coherent_pool_alloc__is_refused_while_the_device_is_blocked(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 64, 0, 0);
	dmacore_dma_t dma;
	void *cpu;

	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, &cpu, &dma), EPERM, dma);
	dmacore_coherent_pool_destroy(pool);
}

static void coherent_pool_free__refuses_what_is_not_out(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 64, 0, 0);
	struct dmacore_coherent_pool *other = make_pool(machine, 64, 0, 0);
	struct object one = take(pool), two = take(pool), others = take(other);
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	memset(one.cpu, 7, 64);
	memset(two.cpu, 8, 64);
	assert_fails(dmacore_coherent_pool_free(NULL, one.cpu, one.dma), EINVAL);
	assert_fails(dmacore_coherent_pool_free(pool, NULL, one.dma), EINVAL);
	assert_no_reports(&machine->reports);
	assert_misuse(machine, dmacore_coherent_pool_free(pool, one.cpu + 8, one.dma + 8));
	assert_misuse(machine, dmacore_coherent_pool_free(pool, one.cpu + 1, one.dma + 1));
	assert_misuse(machine, dmacore_coherent_pool_free(pool, one.cpu, two.dma));
	assert_misuse(machine, dmacore_coherent_pool_free(pool, one.cpu, one.dma ^ PAGE));
	assert_misuse(machine, dmacore_coherent_pool_free(pool, one.cpu, 0));
	assert_misuse(machine, dmacore_coherent_pool_free(pool, one.cpu, UINT64_MAX));
	assert_misuse(machine, dmacore_coherent_pool_free(pool, others.cpu, others.dma));
	assert_misuse(machine, dmacore_coherent_pool_free(pool, cpu, dma));
	/* One that nobody has taken yet. */
	assert_misuse(machine, dmacore_coherent_pool_free(pool, two.cpu + 64, two.dma + 64));
	/* Twice; also when others are out. */
	put(pool, one);
	assert_misuse(machine, dmacore_coherent_pool_free(pool, one.cpu, one.dma));
	assert_int_equal(two.cpu[0], 8);
	put(pool, two);
	put(other, others);
	assert_misuse(machine, dmacore_coherent_pool_free(other, others.cpu, others.dma));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	dmacore_coherent_pool_destroy(pool);
	dmacore_coherent_pool_destroy(other);
}

/* Or it would be given to somebody else while the pool cuts it up. */
static void free_coherent__refuses_a_page_of_a_pool(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 4096, 0, 0);
	struct object object = take(pool);

	assert_misuse(machine,
		      dmacore_free_coherent(machine->device, PAGE, object.cpu, object.dma));
	assert_misuse(machine,
		      dmacore_unmap(machine->device, object.dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
	put(pool, object);
	assert_misuse(machine,
		      dmacore_free_coherent(machine->device, PAGE, object.cpu, object.dma));
	dmacore_coherent_pool_destroy(pool);
}

static void coherent_pool_destroy__keeps_and_reports_what_is_out(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 2048, 0, 0);
	struct object objects[4];
	const struct report_record *report;
	uint8_t byte = 5;

	for (unsigned i = 0; i < 4; i++)
		objects[i] = take(pool);
	put(pool, objects[1]);
	put(pool, objects[2]);
	put(pool, objects[3]);
	dmacore_coherent_pool_destroy(pool);
	report = reports_take(&machine->reports);
	assert_int_equal(report->level, DMACORE_REPORT_WARNING);
	assert_string_equal(report->object, "disk0");
	assert_string_equal(report->text,
			    "a coherent pool is destroyed, and of its objects are not free: 1; "
			    "pages in use stay the device's");
	assert_no_reports(&machine->reports);
	/* The page of the first, and that alone; the CPU and the device may go on using it. */
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	objects[0].cpu[0] = 1;
	assert_ok(dmacore_view_write(machine->view, objects[0].dma, &byte, 1));
	assert_int_equal(objects[0].cpu[0], 5);
	assert_misuse(machine, dmacore_free_coherent(machine->device, PAGE,
						     (void *)((uintptr_t)objects[0].cpu & ~4095),
						     objects[0].dma & ~UINT64_C(4095)));
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_int_equal(machine->pool.live, 0);
}

static void coherent_pool_destroy__keeps_pages_that_a_view_holds(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 4096, 0, 0);
	struct object one = take(pool), two = take(pool);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	assert_ok(dmacore_view_map(machine->view, one.dma, 10, DMACORE_ACCESS_WRITE, &mapping,
				   &segments, &count));
	put(pool, one);
	put(pool, two);
	dmacore_coherent_pool_destroy(pool);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	memset(segments[0].host, 9, 10);
	assert_int_equal(one.cpu[9], 9);
	dmacore_view_unmap(mapping);
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_int_equal(machine->pool.live, 0);
}

static void coherent_pool__ends_with_its_device(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 64, 0, 0);
	struct dmacore_coherent_pool *empty = make_pool(machine, 64, 0, 0);
	struct object object = take(pool);
	dmacore_dma_t dma;
	void *cpu;

	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	/* What is live, and that the pools hold it. */
	assert_int_equal(machine->reports.count, 2);
	reports_forget(&machine->reports);
	assert_int_equal(machine->pool.live, 0);
	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, &cpu, &dma), ENODEV, dma);
	assert_fails_untouched(dmacore_coherent_pool_alloc(empty, &cpu, &dma), ENODEV, dma);
	assert_fails(dmacore_coherent_pool_free(pool, object.cpu, object.dma), ENODEV);
	dmacore_coherent_pool_destroy(pool);
	dmacore_coherent_pool_destroy(empty);
}

static int probe_nothing(struct dmacore_device *device, void *opaque)
{
	(void)device, (void)opaque;
	return 0;
}

static void coherent_pool__ends_with_the_driver(void **state)
{
	struct machine *machine = *state;
	struct dmacore_driver driver = { .struct_size = sizeof(driver) };
	struct dmacore_coherent_pool *pool, *next;
	struct object object;
	dmacore_dma_t dma;
	void *cpu;

	driver.name = "nvme";
	driver.flags = DMACORE_DRIVER_MANAGES_DMA;
	driver.probe = probe_nothing;
	assert_ok(dmacore_device_bind(machine->device, &driver));
	pool = make_pool(machine, 64, 0, 0);
	object = take(pool);
	assert_ok(dmacore_device_unbind(machine->device));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	next = make_pool(machine, 64, 0, 0);
	assert_fails_untouched(dmacore_coherent_pool_alloc(pool, &cpu, &dma), ENODEV, dma);
	assert_fails(dmacore_coherent_pool_free(pool, object.cpu, object.dma), ENODEV);
	/* Its page may be another pool's by now. */
	object = take(next);
	dmacore_coherent_pool_destroy(pool);
	assert_no_reports(&machine->reports);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	put(next, object);
	dmacore_coherent_pool_destroy(next);
}

static void coherent_pool__keeps_the_domain_and_the_region_in_place(void **state)
{
	struct machine *machine = *state;
	struct dmacore_coherent_pool *pool = make_pool(machine, 64, 0, 0);
	const uint64_t size = POOL_PAGES * PAGE;

	put(pool, take(pool));
	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	assert_fails(dmacore_memory_remove(machine->system, POOL_HIGH_BASE, size), EBUSY);
	dmacore_coherent_pool_destroy(pool);
	assert_ok(dmacore_memory_remove(machine->system, POOL_HIGH_BASE, size));
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, coherent_pool_create__refuses_what_is_no_pool),
		test_on_translated(coherent_pool_create__refuses_what_is_no_pool),
		test_on_all(coherent_pool_alloc__gives_zeroed_objects_of_the_shape),
		test_on_recorded(coherent_pool_alloc__lets_both_sides_see_each_others_bytes),
		test_on_all(coherent_pool_alloc__refuses_nulls),
		test_on(TRACKED, coherent_pool_alloc__fails_as_alloc_coherent_does),
		test_on_translated(coherent_pool_alloc__fails_as_alloc_coherent_does),
		{ "coherent_pool_alloc__is_refused_while_the_device_is_blocked",
		  coherent_pool_alloc__is_refused_while_the_device_is_blocked, blocked_setup,
		  machine_teardown, (void *)TRANSLATED },
		test_on_all(coherent_pool_free__refuses_what_is_not_out),
		test_on_recorded(free_coherent__refuses_a_page_of_a_pool),
		test_on_recorded(coherent_pool_destroy__keeps_and_reports_what_is_out),
		test_on_recorded(coherent_pool_destroy__keeps_pages_that_a_view_holds),
		test_on_all(coherent_pool__ends_with_its_device),
		test_on_all(coherent_pool__ends_with_the_driver),
		test_on_translated(coherent_pool__keeps_the_domain_and_the_region_in_place),
		test_on(IDENTITY, coherent_pool__keeps_the_domain_and_the_region_in_place),
	};

	return run_group("coherent_pool", tests);
}
