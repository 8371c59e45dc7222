/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Hybrid and nested domains, and IOMMUs with a backend, with every allocation failing in turn. */

#include "support/oom.h"

#include "support/hardware.h"
#include "support/nested.h"

/* A device in one of two hybrid domains, whose tables are on the heap like all else. */
struct stage {
	struct machine machine;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domains[2];
	struct dmacore_device *device;
};

/* Where memory comes and goes so that something changes. */
#define ELSEWHERE (UINT64_C(1) << 38)

static const struct dmacore_domain_options hybrid = {
	.struct_size = sizeof(hybrid),
	.type = DMACORE_DOMAIN_HYBRID,
};

static void stage_start(struct stage *stage)
{
	struct dmacore_device_options options;

	memset(stage, 0, sizeof(*stage));
	machine_start(&stage->machine, DIRECT);
	assert_ok(dmacore_iommu_create(stage->machine.system, NULL, &stage->iommu));
	for (unsigned i = 0; i < 2; i++)
		assert_ok(dmacore_domain_create(stage->iommu, &hybrid, &stage->domains[i]));
	options = device_options(&stage->machine);
	options.iommu = stage->iommu;
	assert_ok(dmacore_device_create(stage->machine.system, &options, &stage->device));
	assert_ok(dmacore_domain_attach(stage->domains[0], stage->device));
}

static void stage_stop(struct stage *stage)
{
	dmacore_device_destroy(stage->device);
	for (unsigned i = 0; i < 2; i++)
		dmacore_domain_destroy(stage->domains[i]);
	dmacore_iommu_destroy(stage->iommu);
	machine_stop(&stage->machine);
}

static void hybrid_domain_create__unwinds_every_failed_allocation(void **state)
{
	unsigned live = oom.live_count;
	static struct stage stage;
	struct dmacore_domain *domain;

	(void)state;
	stage_start(&stage);
	assert_creates_after_failures(dmacore_domain_create(stage.iommu, &hybrid, &domain), domain);
	assert_true(is_in_window(domain, LOW_BASE));
	assert_true(is_in_window(domain, HIGH_BASE + RAM_SIZE - 1));
	assert_needs_no_memory(dmacore_domain_destroy(domain));
	stage_stop(&stage);
	assert_int_equal(oom.live_count, live);
}

/* Adds memory, while so many allocations succeed. */
static int add(struct stage *stage, uint64_t base, long permitted)
{
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	int error;

	region.backing = DMACORE_MEMORY_HOST;
	region.base = base;
	region.size = RAM_SIZE;
	region.host = stage->machine.arena + (base == ELSEWHERE ? 3 : 1) * RAM_SIZE;
	oom.left = permitted;
	error = dmacore_memory_add(stage->machine.system, &region);
	oom.left = -1;
	return error;
}

/* Memory has its own address for the device if its domain had memory for that, and else another. */
static void assert_mapped_as_window_says(struct stage *stage, uint64_t base)
{
	bool is_direct = is_in_window(stage->domains[0], base);
	dmacore_dma_t dma;

	assert_ok(dmacore_map_phys(stage->device, base, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma == base, is_direct);
	assert_ok(dmacore_unmap(stage->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
}

/*
 * Adds memory while so many allocations succeed. Returns how many of the domains have had none for its
 * addresses, or -1 when there was none for the region itself.
 */
static int check_memory_add(struct stage *stage, uint64_t base, long permitted)
{
	struct dmacore_system *system = stage->machine.system;
	unsigned live = oom.live_count;
	int missing = 0, error = add(stage, base, permitted);

	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(oom.live_count, live);
		assert_false(is_in_window(stage->domains[0], base));
		return -1;
	}
	for (unsigned i = 0; i < 2; i++)
		missing += !is_in_window(stage->domains[i], base);
	assert_mapped_as_window_says(stage, base);
	/* With the next change of the memory map it is in both, as there is memory again. */
	assert_ok(add(stage, ELSEWHERE, -1));
	for (unsigned i = 0; i < 2; i++)
		assert_true(is_in_window(stage->domains[i], base));
	assert_mapped_as_window_says(stage, base);
	assert_ok(dmacore_memory_remove(system, ELSEWHERE, RAM_SIZE));
	assert_ok(dmacore_memory_remove(system, base, RAM_SIZE));
	for (unsigned i = 0; i < 2; i++)
		assert_false(is_in_window(stage->domains[i], base));
	return missing;
}

static void memory_add__beside_hybrid_domains_needs_none_of_their_memory(void **state)
{
	const uint64_t base = UINT64_C(1) << 40;
	static struct stage stage;

	(void)state;
	/* Where there has been memory before, and where not. */
	for (unsigned has_been = 0; has_been < 2; has_been++) {
		bool seen[3] = { false };

		for (long permitted = 0; !seen[0]; permitted++) {
			unsigned live = oom.live_count;
			int missing;

			assert_true(permitted < 100);
			stage_start(&stage);
			if (has_been)
				assert_int_equal(check_memory_add(&stage, base, -1), 0);
			missing = check_memory_add(&stage, base, permitted);
			if (missing >= 0)
				seen[missing] = true;
			stage_stop(&stage);
			assert_int_equal(oom.live_count, live);
		}
		assert_true(has_been || (seen[1] && seen[2]));
	}
}

/* Whether each of these leads to itself, as a bit of the result. */
static unsigned parts_of_window(struct stage *stage, const uint64_t *bases, unsigned count)
{
	unsigned parts = 0;

	for (unsigned i = 0; i < count; i++)
		parts |= (unsigned)is_in_window(stage->domains[0], bases[i]) << i;
	return parts;
}

/*
 * Memory that has come while bypass was off has no pieces of the window yet. Bypass is on even so, and what is
 * missing comes when it is turned on once more.
 */
static void set_bypass__without_memory_is_on_and_fills_the_window_later(void **state)
{
	const uint64_t bases[] = { LOW_BASE, HIGH_BASE, UINT64_C(1) << 40, ELSEWHERE };
	unsigned live = oom.live_count, seen = 0;
	static struct stage stage;
	int error = -ENOMEM;

	(void)state;
	for (long permitted = 0; error; permitted++) {
		unsigned parts;

		assert_true(permitted < 100);
		stage_start(&stage);
		assert_int_equal(parts_of_window(&stage, bases, 4), 3);
		assert_needs_no_memory(
			assert_ok(dmacore_domain_set_bypass(stage.domains[0], false)));
		for (unsigned i = 2; i < 4; i++)
			assert_ok(add(&stage, bases[i], -1));
		assert_int_equal(parts_of_window(&stage, bases, 4), 0);
		oom.left = permitted;
		error = dmacore_domain_set_bypass(stage.domains[0], true);
		oom.left = -1;
		assert_true(error == 0 || error == -ENOMEM);
		parts = parts_of_window(&stage, bases, 4);
		assert_int_equal(error == 0, parts == 15);
		seen |= 1U << parts;
		for (unsigned i = 0; i < 4; i++)
			assert_mapped_as_window_says(&stage, bases[i]);
		assert_int_equal(parts_of_window(&stage, bases, 4), parts);
		assert_ok(dmacore_domain_set_bypass(stage.domains[0], true));
		for (unsigned i = 0; i < 4; i++) {
			assert_true(is_in_window(stage.domains[0], bases[i]));
			assert_mapped_as_window_says(&stage, bases[i]);
		}
		/* Whatever there was no memory for at first, all of it goes. */
		assert_needs_no_memory(
			assert_ok(dmacore_domain_set_bypass(stage.domains[0], false)));
		assert_int_equal(parts_of_window(&stage, bases, 4), 0);
		for (unsigned i = 2; i < 4; i++)
			assert_ok(dmacore_memory_remove(stage.machine.system, bases[i], RAM_SIZE));
		stage_stop(&stage);
		assert_int_equal(oom.live_count, live);
	}
	/* All of the new memory was missing, and nothing, and only a part. The old needs none. */
	assert_int_equal(seen, 1U << 3 | 1U << 11 | 1U << 15);
}

#define SCATTERED 200

/* Regions of a page each, with as large holes, so that keeping them takes memory. */
static void add_scattered(struct stage *stage, bool is_odd)
{
	static uint8_t memory[2 * SCATTERED * PAGE] __attribute__((aligned(PAGE)));

	for (unsigned i = is_odd; i < 2 * SCATTERED; i += 2)
		add_host_region(stage->machine.system, ELSEWHERE + i * PAGE, PAGE,
				memory + i * PAGE, 0);
}

/* To which a device comes that may have direct mappings without a record. */
static void assert_replace_survives_failures(uint32_t type)
{
	const struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	unsigned live = oom.live_count;
	unsigned long failed = oom.failures;
	static struct stage stage;
	struct dmacore_domain *domain;
	struct dmacore_group *group;
	dmacore_dma_t dma;

	stage_start(&stage);
	domain = make_domain(&(struct machine){ .iommu = stage.iommu }, type, ELSEWHERE,
			     ELSEWHERE + 2 * SCATTERED * PAGE - 1);
	if (type == DMACORE_DOMAIN_HYBRID)
		assert_ok(dmacore_domain_set_bypass(domain, false));
	add_scattered(&stage, false);
	assert_survives_failures(dmacore_domain_replace(domain, stage.device), {
		assert_ok(dmacore_map_phys(stage.device, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, &dma));
		assert_int_equal(dma, LOW_BASE);
		assert_ok(dmacore_unmap(stage.device, dma, 1, DMACORE_TO_DEVICE, 0));
	});
	assert_true(oom.failures > failed);
	assert_ok(dmacore_map_phys(stage.device, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_true((dma - ELSEWHERE) / PAGE % 2 == 1);
	assert_ok(dmacore_unmap(stage.device, dma, 1, DMACORE_TO_DEVICE, 0));

	/* Memory that comes while the group is owned is kept when it goes back, or that waits. */
	assert_ok(dmacore_device_group(stage.device, &group));
	assert_needs_no_memory(assert_ok(dmacore_group_claim_dma_owner(group, &owner)));
	add_scattered(&stage, true);
	oom.left = 0;
	assert_fails(dmacore_group_release_dma_owner(group, &owner), EBUSY);
	oom.left = -1;
	assert_ok(dmacore_group_release_dma_owner(group, &owner));
	assert_fails(dmacore_map_phys(stage.device, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, &dma),
		     ENOSPC);
	dmacore_group_destroy(group);
	if (type == DMACORE_DOMAIN_HYBRID) {
		assert_ok(dmacore_domain_set_bypass(domain, true));
		assert_true(is_in_window(domain, ELSEWHERE + PAGE));
	}
	assert_needs_no_memory({
		assert_ok(dmacore_domain_detach(domain, stage.device));
		dmacore_domain_destroy(domain);
	});
	stage_stop(&stage);
	assert_int_equal(oom.live_count, live);
}

static void domain_replace__by_a_dma_domain_survives_every_failed_allocation(void **state)
{
	(void)state;
	assert_replace_survives_failures(DMACORE_DOMAIN_DMA);
}

static void domain_replace__by_a_hybrid_domain_survives_every_failed_allocation(void **state)
{
	(void)state;
	assert_replace_survives_failures(DMACORE_DOMAIN_HYBRID);
}

static void iommu_create__with_a_backend_unwinds_every_failed_allocation(void **state)
{
	const uint32_t types[] = { DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
				   DMACORE_DOMAIN_DMA_LAZY, DMACORE_DOMAIN_UNMANAGED,
				   DMACORE_DOMAIN_HYBRID };
	unsigned live = oom.live_count;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_domain_options wish = DMACORE_DOMAIN_OPTIONS_INIT;
	static struct machine machine;
	static struct hardware hardware;
	struct dmacore_domain *domain;
	struct dmacore_iommu *iommu;

	(void)state;
	machine_start(&machine, DIRECT);
	hardware_start(&hardware);
	options.backend = &hardware.ops;
	options.backend_opaque = &hardware;
	assert_creates_after_failures(dmacore_iommu_create(machine.system, &options, &iommu),
				      iommu);
	assert_int_equal(hardware.release_count, 0);
	/* What the backend was told of before memory ran out it was told the end of. */
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		wish.type = types[i];
		assert_creates_after_failures(dmacore_domain_create(iommu, &wish, &domain), domain);
		assert_int_equal(hardware.state.domains[0].type, types[i]);
		assert_needs_no_memory(dmacore_domain_destroy(domain));
		assert_false(hardware.state.domains[0].is_alive);
	}
	assert_needs_no_memory(dmacore_iommu_destroy(iommu));
	assert_int_equal(hardware.release_count, 1);
	assert_ok(dmacore_iommu_announce(machine.system, &iommu));
	assert_survives_failures(dmacore_iommu_start(iommu, &options),
				 assert_int_equal(hardware.release_count, 1));
	assert_needs_no_memory(dmacore_iommu_destroy(iommu));
	assert_int_equal(hardware.release_count, 2);
	assert_int_equal(hardware.wrong, 0);
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

/* What was mapped for the hardware and finds no memory afterwards is unmapped there. */
static void map__with_a_backend_changes_nothing_when_an_allocation_fails(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	static struct hardware hardware;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_iommu_options iommu_options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_device_options device_options_;
	struct dmacore_domain *domain;
	struct dmacore_iommu *iommu;
	struct dmacore_device *device;
	dmacore_dma_t dma;

	(void)state;
	machine_start(&machine, DIRECT);
	hardware_start(&hardware);
	iommu_options.backend = &hardware.ops;
	iommu_options.backend_opaque = &hardware;
	assert_ok(dmacore_iommu_create(machine.system, &iommu_options, &iommu));
	options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_domain_create(iommu, &options, &domain));
	assert_survives_failures(dmacore_domain_map(domain, PAGE, LOW_BASE, PAGE, BOTH),
				 assert_int_equal(hardware.state.domains[0].run_count, 0));
	assert_int_equal(hardware.state.domains[0].run_count, 1);
	assert_needs_no_memory(assert_ok(dmacore_domain_unmap(domain, PAGE, PAGE, 0, NULL)));
	dmacore_domain_destroy(domain);
	options.type = DMACORE_DOMAIN_DMA;
	assert_ok(dmacore_domain_create(iommu, &options, &domain));
	device_options_ = device_options(&machine);
	device_options_.iommu = iommu;
	assert_ok(dmacore_device_create(machine.system, &device_options_, &device));
	assert_needs_no_memory(assert_ok(dmacore_domain_attach(domain, device)));
	assert_survives_failures(
		dmacore_map_single(device, machine.low, PAGE, DMACORE_TO_DEVICE, 0, &dma),
		assert_int_equal(hardware.state.domains[0].run_count, 0));
	assert_int_equal(hardware.state.domains[0].run_count, 1);
	assert_needs_no_memory({
		assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
		dmacore_device_destroy(device);
		dmacore_domain_destroy(domain);
		dmacore_iommu_destroy(iommu);
	});
	assert_int_equal(hardware.wrong, 0);
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

static void view_map__through_a_nested_domain_unwinds_every_failed_allocation(void **state)
{
	const uint64_t data = GUEST_BASE + GUEST_TABLES * PAGE, spot = UINT64_C(0x12345000);
	unsigned live = oom.live_count;
	static struct guest guest;
	struct dmacore_view_mapping *mapping;
	const struct dmacore_view_segment *segments;
	size_t count;

	(void)state;
	guest_start(&guest);
	guest_map(&guest, spot, data, 2 * PAGE, BOTH);
	guest_map(&guest, spot + 2 * PAGE, GUEST_HIGH, 2 * PAGE, BOTH);
	guest_map(&guest, spot + 4 * PAGE, data, PAGE, BOTH);
	assert_creates_after_failures(dmacore_view_map(guest.machine.view, spot + 5, 5 * PAGE - 9,
						       BOTH, &mapping, &segments, &count),
				      mapping);
	assert_int_equal(count, 3);
	/* None of those that failed holds anything: the one mapping does. */
	assert_ok(dmacore_domain_unmap(guest.parent, GUEST_HIGH, PAGE, DMACORE_UNMAP_SPLIT, NULL));
	assert_reported(&guest.machine, DMACORE_REPORT_WARNING);
	assert_needs_no_memory(dmacore_view_unmap(mapping));
	assert_ok(dmacore_domain_unmap(guest.parent, GUEST_HIGH + PAGE, PAGE, DMACORE_UNMAP_SPLIT,
				       NULL));
	assert_no_reports(&guest.machine.reports);
	assert_ok(dmacore_memory_remove(guest.machine.system, HIGH_BASE, RAM_SIZE));
	guest_stop(&guest);
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hybrid_domain_create__unwinds_every_failed_allocation),
		cmocka_unit_test(memory_add__beside_hybrid_domains_needs_none_of_their_memory),
		cmocka_unit_test(set_bypass__without_memory_is_on_and_fills_the_window_later),
		cmocka_unit_test(domain_replace__by_a_dma_domain_survives_every_failed_allocation),
		cmocka_unit_test(
			domain_replace__by_a_hybrid_domain_survives_every_failed_allocation),
		cmocka_unit_test(iommu_create__with_a_backend_unwinds_every_failed_allocation),
		cmocka_unit_test(map__with_a_backend_changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(view_map__through_a_nested_domain_unwinds_every_failed_allocation),
	};

	return run_oom_group("oom domains", tests, NULL);
}
