/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

static void system_create__takes_defaults_without_options(void **state)
{
	struct dmacore_system *system;
	void *host;

	(void)state;
	assert_ok(dmacore_system_create(NULL, &system));
	assert_non_null(system);
	/* Not flat, and no memory. */
	assert_fails(dmacore_memory_phys_to_host(system, PAGE, 1, &host), EFAULT);
	dmacore_system_destroy(system);
}

static void system_create__rejects_null_out(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;

	(void)state;
	assert_fails(dmacore_system_create(&options, NULL), EINVAL);
	assert_fails(dmacore_system_create(NULL, NULL), EINVAL);
}

static void system_create__rejects_unknown_flags_and_types(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_system *system;

	(void)state;
	for (unsigned bit = 1; bit < 32; bit++) {
		options.flags = UINT32_C(1) << bit;
		assert_creates_nothing(dmacore_system_create(&options, &system), EINVAL, system);
	}
	options.flags = 0;
	for (unsigned type = DMACORE_DOMAIN_BLOCKED; type < 40; type++) {
		if (type == DMACORE_DOMAIN_DMA_LAZY || type == DMACORE_DOMAIN_HYBRID)
			continue;
		options.default_domain = type;
		assert_creates_nothing(dmacore_system_create(&options, &system), EINVAL, system);
	}
}

static void system_create__checks_the_size_of_its_options(void **state)
{
	struct dmacore_system_options good = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_system *system;

	(void)state;
	check_struct_size(struct dmacore_system_options, good,
			  dmacore_system_create(options, &system), system, dmacore_system_destroy);
}

static void system_create__checks_the_size_of_the_allocator(void **state)
{
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct coherent_pool pool = { .bytes = NULL };
	struct dmacore_memory_allocator good = DMACORE_MEMORY_ALLOCATOR_INIT;
	struct dmacore_system *system;

	(void)state;
	good.allocate = coherent_pool_allocate;
	good.free = coherent_pool_free;
	good.opaque = &pool;
	check_struct_size(struct dmacore_memory_allocator, good,
			  (system_options.memory_allocator = options,
			   dmacore_system_create(&system_options, &system)),
			  system, dmacore_system_destroy);
}

static void system_create__rejects_an_allocator_without_a_function(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_memory_allocator allocator = DMACORE_MEMORY_ALLOCATOR_INIT;
	struct dmacore_system *system;

	(void)state;
	options.memory_allocator = &allocator;
	assert_creates_nothing(dmacore_system_create(&options, &system), EINVAL, system);
	allocator.allocate = coherent_pool_allocate;
	assert_creates_nothing(dmacore_system_create(&options, &system), EINVAL, system);
	allocator.allocate = NULL;
	allocator.free = coherent_pool_free;
	assert_creates_nothing(dmacore_system_create(&options, &system), EINVAL, system);
}

static void system_create__copies_the_allocator(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	/* The library was given a pointer to this structure and may not look at it any more. */
	memset(&machine->pool.allocator, 0xff, sizeof(machine->pool.allocator));
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
}

static void system_create__makes_systems_that_share_nothing(void **state)
{
	static uint8_t one[PAGE], two[PAGE];
	struct dmacore_system *first, *second;
	void *host;

	(void)state;
	assert_ok(dmacore_system_create(NULL, &first));
	assert_ok(dmacore_system_create(NULL, &second));
	add_host_region(first, PAGE, PAGE, one, 0);
	assert_fails(dmacore_memory_phys_to_host(second, PAGE, 1, &host), EFAULT);
	add_host_region(second, PAGE, PAGE, two, 0);
	assert_ok(dmacore_memory_phys_to_host(first, PAGE, 1, &host));
	assert_ptr_equal(host, one);
	dmacore_system_destroy(first);
	assert_ok(dmacore_memory_phys_to_host(second, PAGE, 1, &host));
	assert_ptr_equal(host, two);
	dmacore_system_destroy(second);
}

static void system_destroy__accepts_null(void **state)
{
	(void)state;
	dmacore_system_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(system_create__takes_defaults_without_options),
		cmocka_unit_test(system_create__rejects_null_out),
		cmocka_unit_test(system_create__rejects_unknown_flags_and_types),
		cmocka_unit_test(system_create__checks_the_size_of_its_options),
		cmocka_unit_test(system_create__checks_the_size_of_the_allocator),
		cmocka_unit_test(system_create__rejects_an_allocator_without_a_function),
		test_on(DIRECT, system_create__copies_the_allocator),
		cmocka_unit_test(system_create__makes_systems_that_share_nothing),
		cmocka_unit_test(system_destroy__accepts_null),
	};

	return run_group("system", tests);
}
