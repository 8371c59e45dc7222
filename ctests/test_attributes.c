/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What attributes of mapping calls do, and who needs to sync and unmap. */

#include "support/pools.h"

static unsigned maintained;

static void cache_count(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
			void *opaque)
{
	(void)phys, (void)size, (void)direction, (void)is_for_cpu, (void)opaque;
	maintained++;
}

/* A device that does not see the caches, of a system of its own. */
static struct dmacore_device *make_noncoherent(struct dmacore_system **out_system)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;

	system.flags = DMACORE_SYSTEM_FLAT;
	system.cache = cache_count;
	assert_ok(dmacore_system_create(&system, out_system));
	options.flags = DMACORE_DEVICE_NONCOHERENT;
	options.streaming_mask = UINT64_MAX;
	assert_ok(dmacore_device_create(*out_system, &options, &device));
	maintained = 0;
	return device;
}

static void attributes__are_those_that_the_mapping_was_made_with(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	assert_ok(dmacore_map_single(machine->device, machine->low, 100, DMACORE_TO_DEVICE,
				     DMACORE_ATTR_WEAK_ORDERING, &dma));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE,
				DMACORE_ATTR_WEAK_ORDERING));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE,
					     DMACORE_ATTR_WEAK_ORDERING));
}

static void attributes__that_only_hint_change_nothing(void **state)
{
	struct machine *machine = *state;
	const uint32_t hints = DMACORE_ATTR_WEAK_ORDERING | DMACORE_ATTR_NO_WARN |
			       DMACORE_ATTR_SKIP_CPU_SYNC | DMACORE_ATTR_REQUIRE_COHERENT;
	char bytes[4];
	dmacore_dma_t dma;

	memcpy(machine->low, "here", 4);
	assert_ok(dmacore_map_single(machine->device, machine->low, 4, DMACORE_TO_DEVICE, hints,
				     &dma));
	assert_ok(dmacore_view_read(machine->view, dma, bytes, 4));
	assert_memory_equal(bytes, "here", 4);
	assert_ok(dmacore_unmap(machine->device, dma, 4, DMACORE_TO_DEVICE, hints));
}

static void map_resource__is_map_phys_of_registers(void **state)
{
	struct machine *machine = *state;
	dmacore_phys_t phys;
	dmacore_dma_t dma, expected;
	uint32_t byte = 0;

	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->low, 1, &phys));
	assert_ok(
		dmacore_map_resource(machine->device, phys + 4, 4, DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_ok(dmacore_view_write(machine->view, dma, &byte, 4));
	assert_misuse(machine, dmacore_unmap(machine->device, dma, 4, DMACORE_BIDIRECTIONAL, 0));
	assert_ok(dmacore_unmap(machine->device, dma, 4, DMACORE_BIDIRECTIONAL, DMACORE_ATTR_MMIO));
	assert_ok(dmacore_map_phys(machine->device, phys + 4, 4, DMACORE_BIDIRECTIONAL,
				   DMACORE_ATTR_MMIO, &expected));
	assert_int_equal(expected, dma);
	assert_ok(dmacore_unmap(machine->device, dma, 4, DMACORE_BIDIRECTIONAL, DMACORE_ATTR_MMIO));
	dma = 7;
	assert_fails_untouched(
		dmacore_map_resource(machine->device, phys, 0, DMACORE_TO_DEVICE, 0, &dma), EINVAL,
		dma);
	assert_fails_untouched(
		dmacore_map_resource(machine->device, phys, 4, DMACORE_TO_DEVICE, 1, &dma), EINVAL,
		dma);
	assert_fails_untouched(dmacore_map_resource(NULL, phys, 4, DMACORE_TO_DEVICE, 0, &dma),
			       EINVAL, dma);
	assert_fails(dmacore_map_resource(machine->device, phys, 4, DMACORE_TO_DEVICE, 0, NULL),
		     EINVAL);
}

static void map_single__knows_no_registers(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	assert_fails_untouched(dmacore_map_single(machine->device, machine->low, 4,
						  DMACORE_TO_DEVICE, DMACORE_ATTR_MMIO, &dma),
			       EINVAL, dma);
}

/* The x86-64 format can say neither, which is no reason to refuse. */
static void attributes__that_a_page_table_cannot_say_are_left_out(void **state)
{
	struct machine *machine = *state;
	const uint32_t attributes = DMACORE_ATTR_PRIVILEGED | DMACORE_ATTR_MMIO;
	dmacore_phys_t phys;
	dmacore_dma_t dma;

	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->low, 1, &phys));
	assert_ok(
		dmacore_map_phys(machine->device, phys, 4, DMACORE_FROM_DEVICE, attributes, &dma));
	assert_ok(dmacore_unmap(machine->device, dma, 4, DMACORE_FROM_DEVICE, attributes));
}

/* That of a table that can say it: requests without privilege are denied. */
static void privileged_mapping__is_for_requests_with_privilege(void **state)
{
	struct dmacore_pagetable_options pagetable = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct machine *machine = *state;
	struct dmacore_translation found;
	struct dmacore_device_options of_device;
	struct dmacore_domain_options of_domain = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_iommu *iommu;
	dmacore_dma_t dma;

	pagetable.format = DMACORE_PAGETABLE_ARM64_STAGE1;
	options.pagetable = &pagetable;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	of_domain.type = DMACORE_DOMAIN_DMA;
	assert_ok(dmacore_domain_create(iommu, &of_domain, &domain));
	of_device = device_options(machine);
	of_device.iommu = iommu;
	assert_ok(dmacore_device_create(machine->system, &of_device, &device));
	assert_ok(dmacore_domain_attach(domain, device));
	for (unsigned i = 0; i < 2; i++) {
		uint32_t attributes = i ? DMACORE_ATTR_PRIVILEGED : 0;

		assert_ok(dmacore_map_single(device, machine->low, PAGE, DMACORE_BIDIRECTIONAL,
					     attributes, &dma));
		assert_ok(dmacore_domain_translate(domain, dma, 0, &found));
		assert_int_equal(!!(found.access & DMACORE_ACCESS_PRIVILEGED), i);
		assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_BIDIRECTIONAL, attributes));
	}
	assert_ok(dmacore_map_resource(device, 0x1000, PAGE, DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_ok(dmacore_domain_translate(domain, dma, 0, &found));
	assert_true(found.access & DMACORE_ACCESS_MMIO);
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_BIDIRECTIONAL, DMACORE_ATTR_MMIO));
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(iommu);
}

static void skip_cpu_sync__leaves_the_caches_to_the_caller(void **state)
{
	struct dmacore_system *system;
	struct dmacore_device *device = make_noncoherent(&system);
	uint8_t byte[64];
	dmacore_dma_t dma;

	(void)state;
	assert_ok(dmacore_map_single(device, byte, 64, DMACORE_BIDIRECTIONAL,
				     DMACORE_ATTR_SKIP_CPU_SYNC, &dma));
	assert_int_equal(maintained, 0);
	assert_ok(dmacore_sync_for_cpu(device, dma, 64, DMACORE_BIDIRECTIONAL));
	assert_int_equal(maintained, 1);
	assert_ok(
		dmacore_unmap(device, dma, 64, DMACORE_BIDIRECTIONAL, DMACORE_ATTR_SKIP_CPU_SYNC));
	assert_int_equal(maintained, 1);
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

static void registers__have_no_caches(void **state)
{
	struct dmacore_system *system;
	struct dmacore_device *device = make_noncoherent(&system);
	dmacore_dma_t dma;

	(void)state;
	assert_ok(dmacore_map_resource(device, 0x1000, 64, DMACORE_BIDIRECTIONAL, 0, &dma));
	assert_ok(dmacore_unmap(device, dma, 64, DMACORE_BIDIRECTIONAL, DMACORE_ATTR_MMIO));
	assert_int_equal(maintained, 0);
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

static void require_coherent__refuses_a_device_that_is_not(void **state)
{
	struct dmacore_system *system;
	struct dmacore_device *device = make_noncoherent(&system);
	uint8_t byte;
	dmacore_dma_t dma;

	(void)state;
	assert_fails_untouched(dmacore_map_single(device, &byte, 1, DMACORE_TO_DEVICE,
						  DMACORE_ATTR_REQUIRE_COHERENT, &dma),
			       EOPNOTSUPP, dma);
	assert_int_equal(maintained, 0);
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

static void no_warn__keeps_a_refusal_quiet(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_memory_segment *segments;
	size_t count;
	dmacore_dma_t dma;

	assert_fails(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma),
		EPERM);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	assert_fails(dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE,
					DMACORE_ATTR_NO_WARN, &dma),
		     EPERM);
	assert_fails(dmacore_alloc_noncontiguous(machine->device, PAGE, DMACORE_TO_DEVICE,
						 DMACORE_ATTR_NO_WARN, &dma, &segments, &count),
		     EPERM);
	assert_no_reports(&machine->reports);
}

static void need_sync__is_for_devices_past_the_caches(void **state)
{
	struct machine *machine = *state;
	struct dmacore_system *system;
	struct dmacore_device *device = make_noncoherent(&system);
	dmacore_dma_t dma = map_for(machine, machine->low, 1, DMACORE_TO_DEVICE);

	assert_false(dmacore_need_sync(machine->device, dma));
	assert_true(dmacore_need_sync(device, 0));
	assert_false(dmacore_need_sync(NULL, 0));
	assert_ok(dmacore_unmap(machine->device, dma, 1, DMACORE_TO_DEVICE, 0));
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

static void need_unmap__is_false_where_nothing_is_kept(void **state)
{
	struct machine *machine = *state;
	struct dmacore_system *system;
	struct dmacore_device *device = make_noncoherent(&system);
	bool is_kept = machine->path & (TRACKED | TRANSLATED);

	assert_int_equal(dmacore_need_unmap(machine->device), is_kept);
	assert_true(dmacore_need_unmap(device));
	assert_false(dmacore_need_unmap(NULL));
	dmacore_device_destroy(device);
	dmacore_system_destroy(system);
}

static void set_limits__takes_powers_of_two_less_one(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct {
		struct dmacore_device_limits known;
		uint64_t more;
	} longer = { DMACORE_DEVICE_LIMITS_INIT, 0 };

	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	limits.max_segment_size = 1;
	limits.segment_boundary_mask = limits.min_align_mask = UINT64_MAX;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	limits.segment_boundary_mask = 4096;
	assert_fails(dmacore_device_set_limits(machine->device, &limits), EINVAL);
	limits.segment_boundary_mask = 4095;
	limits.min_align_mask = 2;
	assert_fails(dmacore_device_set_limits(machine->device, &limits), EINVAL);
	limits.min_align_mask = 1;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	assert_fails(dmacore_device_set_limits(NULL, &limits), EINVAL);
	assert_fails(dmacore_device_set_limits(machine->device, NULL), EINVAL);
	limits.struct_size--;
	assert_fails(dmacore_device_set_limits(machine->device, &limits), EINVAL);
	longer.known.struct_size = sizeof(longer);
	assert_ok(dmacore_device_set_limits(machine->device, &longer.known));
	longer.more = 1;
	assert_fails(dmacore_device_set_limits(machine->device, &longer.known), E2BIG);
}

/* Copies have to be made at its ends, and nothing has where it has all of its pages. */
static void need_sync__is_for_what_is_copied_behind_an_iommu(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct dmacore_mapping_info info;
	dmacore_dma_t part, whole;
	size_t count;

	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 8 * PAGE, &pool);
	whole = map_for(machine, machine->low + 8 * PAGE, PAGE, DMACORE_BIDIRECTIONAL);
	assert_false(dmacore_need_sync(machine->device, whole));
	part = map_for(machine, machine->low + 100, 3 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_device_list_mappings(machine->device, part, part, &info, 1, &count));
	assert_int_equal(count, 1);
	assert_int_equal(info.path, DMACORE_PATH_IOMMU_BOUNCED);
	/* It is one mapping, whichever byte is asked about. */
	for (uint64_t i = 0; i < 3 * PAGE; i += PAGE / 2)
		assert_true(dmacore_need_sync(machine->device, part + i));
	assert_true(dmacore_need_sync(machine->device, part + 3 * PAGE - 1));
	/* The other's answer stays what it was. */
	assert_ok(dmacore_device_list_mappings(machine->device, whole, whole, &info, 1, &count));
	assert_int_equal(info.path, DMACORE_PATH_IOMMU);
	assert_false(dmacore_need_sync(machine->device, whole));
	assert_ok(dmacore_unmap(machine->device, part, 3 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_false(dmacore_need_sync(machine->device, part));
	assert_ok(dmacore_unmap(machine->device, whole, PAGE, DMACORE_BIDIRECTIONAL, 0));
	end_pool(machine, pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_recorded(attributes__are_those_that_the_mapping_was_made_with),
		test_on(DIRECT, attributes__that_only_hint_change_nothing),
		test_on_recorded(attributes__that_only_hint_change_nothing),
		test_on_recorded(map_resource__is_map_phys_of_registers),
		test_on_all(map_single__knows_no_registers),
		test_on_translated(attributes__that_a_page_table_cannot_say_are_left_out),
		test_on(DIRECT, privileged_mapping__is_for_requests_with_privilege),
		cmocka_unit_test(skip_cpu_sync__leaves_the_caches_to_the_caller),
		cmocka_unit_test(registers__have_no_caches),
		cmocka_unit_test(require_coherent__refuses_a_device_that_is_not),
		cmocka_unit_test_prestate_setup_teardown(no_warn__keeps_a_refusal_quiet,
							 unmanaged_setup, machine_teardown,
							 (void *)(uintptr_t)TRANSLATED),
		test_on_all(need_sync__is_for_devices_past_the_caches),
		test_on_all(need_unmap__is_false_where_nothing_is_kept),
		test_on(DIRECT, set_limits__takes_powers_of_two_less_one),
		test_on_translated(need_sync__is_for_what_is_copied_behind_an_iommu),
	};

	return run_group("attributes", tests);
}
