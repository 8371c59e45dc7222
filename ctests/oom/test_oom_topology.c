/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"
#include "support/party.h"

/* Memory runs out where devices have places, reserved regions and PASIDs. */

static const struct dmacore_reserved_region regions[] = {
	{ LOW_BASE, LOW_BASE + PAGE - 1, DMACORE_RESERVED_RELAXABLE, 0 },
	{ PARTY_FIRST, PARTY_FIRST + PAGE - 1, DMACORE_RESERVED_NEVER, 0 },
};

static const uint32_t ids[] = { 0x100, 0x200 };

static void device_create__with_a_place_leaves_none_when_an_allocation_fails(void **state)
{
	struct dmacore_bridge_options bridge_options = DMACORE_BRIDGE_OPTIONS_INIT;
	struct dmacore_device_options options;
	struct dmacore_bridge *bridge;
	struct dmacore_device *device, *other;
	struct dmacore_group *group, *same;
	static struct machine machine;
	unsigned live = oom.live_count;

	(void)state;
	machine_start(&machine, TRANSLATED);
	assert_creates_after_failures(
		dmacore_bridge_create(machine.system, &bridge_options, &bridge), bridge);
	options = device_options(&machine);
	options.bridge = bridge;
	options.ids = ids;
	options.id_count = 2;
	options.reserved_regions = regions;
	options.reserved_region_count = 2;
	assert_creates_after_failures(dmacore_device_create(machine.system, &options, &device),
				      device);
	/* Devices that were not made are in nobody's way: this one finds the first. */
	options.bridge = NULL;
	assert_creates_after_failures(dmacore_device_create(machine.system, &options, &other),
				      other);
	assert_ok(dmacore_device_group(device, &group));
	assert_ok(dmacore_device_group(other, &same));
	assert_ptr_equal(group, same);
	dmacore_group_destroy(same);
	dmacore_group_destroy(group);
	assert_needs_no_memory({
		assert_ok(dmacore_bridge_set_isolation(bridge, true));
		assert_ok(dmacore_bridge_set_isolation(bridge, false));
		dmacore_device_destroy(other);
		dmacore_device_destroy(device);
		dmacore_bridge_destroy(bridge);
	});
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

static void domain_create__for_a_group_unwinds_every_failed_allocation(void **state)
{
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_reserved_region found[4];
	struct dmacore_device_options options;
	struct dmacore_device *device;
	struct dmacore_domain *domain;
	static struct machine machine;
	unsigned live = oom.live_count;
	size_t count = 0;

	(void)state;
	machine_start(&machine, TRANSLATED);
	assert_ok(dmacore_group_create(machine.system, &domain_options.group));
	options = device_options(&machine);
	options.group = domain_options.group;
	options.reserved_regions = regions;
	options.reserved_region_count = 2;
	assert_ok(dmacore_device_create(machine.system, &options, &device));
	assert_survives_failures(dmacore_group_reserved_regions(options.group, found, 4, &count),
				 assert_int_equal(count, 0));
	assert_int_equal(count, 2);
	for (unsigned type = DMACORE_DOMAIN_IDENTITY; type <= DMACORE_DOMAIN_DMA_LAZY; type++) {
		domain_options.type = type;
		assert_creates_after_failures(
			dmacore_domain_create(machine.iommu, &domain_options, &domain), domain);
		dmacore_domain_destroy(domain);
	}
	dmacore_group_destroy(options.group);
	dmacore_device_destroy(device);
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

static void pasid_calls__change_nothing_when_an_allocation_fails(void **state)
{
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_device_options options;
	struct dmacore_device *device;
	struct dmacore_domain *domain, *other;
	struct dmacore_translation found;
	struct dmacore_view *view;
	static struct machine machine;
	unsigned live = oom.live_count;

	(void)state;
	machine_start(&machine, TRANSLATED);
	options = device_options(&machine);
	options.pasid_count = 16;
	assert_ok(dmacore_device_create(machine.system, &options, &device));
	domain = make_domain(&machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	other = make_domain(&machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	assert_ok(dmacore_domain_map(domain, SPOT, LOW_BASE, PAGE, DMACORE_ACCESS_READ));
	assert_ok(dmacore_device_claim_dma_owner(device, &owner));
	assert_creates_after_failures(dmacore_view_create_pasid(device, 7, &view), view);
	/* The PASID is known by now; another is not. */
	assert_needs_no_memory(assert_ok(dmacore_device_attach_pasid(device, 7, domain, &owner)));
	assert_survives_failures(
		dmacore_device_attach_pasid(device, 8, domain, &owner),
		assert_fails(dmacore_device_replace_pasid(device, 9, other, &owner), ENOENT));
	assert_ok(dmacore_view_translate(view, SPOT, 0, &found));
	assert_needs_no_memory({
		assert_ok(dmacore_device_replace_pasid(device, 8, other, &owner));
		assert_ok(dmacore_device_detach_pasid(device, 7, &owner));
		assert_ok(dmacore_device_release_dma_owner(device, &owner));
		dmacore_view_destroy(view);
		dmacore_device_destroy(device);
	});
	dmacore_domain_destroy(domain);
	dmacore_domain_destroy(other);
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_create__with_a_place_leaves_none_when_an_allocation_fails),
		cmocka_unit_test(domain_create__for_a_group_unwinds_every_failed_allocation),
		cmocka_unit_test(pasid_calls__change_nothing_when_an_allocation_fails),
	};

	return run_oom_group("oom topology", tests, NULL);
}
