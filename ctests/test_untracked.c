/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Direct mappings whose only record is their address: nothing else gets it while the device lives,
 * whatever becomes of domain and ranges.
 */

#include "support/pools.h"

/* A domain that has little else than the machine's low memory. */
#define FREE_PAGES 8
#define NARROW_FIRST (LOW_BASE - FREE_PAGES * PAGE)
#define NARROW_LAST (NEXT_BASE + RAM_SIZE - 1)

/* That memory there has its own addresses in a hybrid domain. */
static void assert_in_window(struct dmacore_domain *domain, uint64_t first, uint64_t size)
{
	for (uint64_t at = first; at < first + size; at += PAGE)
		assert_true(is_in_window(domain, at));
}

/* Maps all that there are addresses for, none of which is of memory. */
static void assert_keeps_clear(struct machine *machine)
{
	dmacore_dma_t dma[FREE_PAGES], more;

	for (unsigned i = 0; i < FREE_PAGES; i++) {
		dma[i] = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
		assert_in_range(dma[i], NARROW_FIRST, LOW_BASE - PAGE);
	}
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&more),
		     ENOSPC);
	for (unsigned i = 0; i < FREE_PAGES; i++)
		assert_ok(dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
}

/* With all that is mapped for it, which is reported. */
static void end_device(struct machine *machine)
{
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	reports_forget(&machine->reports);
}

static void assert_gives_out_all(struct machine *machine)
{
	uint64_t size = FREE_PAGES * PAGE + 2 * RAM_SIZE;
	dmacore_dma_t dma;

	assert_ok(dmacore_map_resource(machine->device, 0, size, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, NARROW_FIRST);
	assert_ok(dmacore_unmap(machine->device, dma, size, DMACORE_TO_DEVICE, DMACORE_ATTR_MMIO));
}

static void dma_domain__keeps_clear_of_direct_mappings_of_before(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t direct = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	struct dmacore_domain *domain;

	assert_int_equal(direct, LOW_BASE);
	domain = make_domain(machine, DMACORE_DOMAIN_DMA, NARROW_FIRST, NARROW_LAST);
	assert_ok(dmacore_domain_replace(domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = domain;
	assert_keeps_clear(machine);
	/* It has ended with its domain, and takes nothing with it that was mapped since. */
	assert_misuse(machine,
		      dmacore_unmap(machine->device, direct, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void domains_in_between__make_no_difference(void **state)
{
	struct machine *machine = *state;

	map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	machine_use(machine, DMACORE_DOMAIN_UNMANAGED);
	machine_use(machine, DMACORE_DOMAIN_BLOCKED);
	machine_narrow(machine, NARROW_FIRST, NARROW_LAST);
	assert_keeps_clear(machine);
	/* The same domain again, which is clear already. */
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_keeps_clear(machine);
}

static void owners_domains__keep_clear_too(void **state)
{
	struct machine *machine = *state;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_domain *own, *fallback;
	struct dmacore_group *group;

	assert_ok(dmacore_device_group(machine->device, &group));
	map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_group_claim_dma_owner(group, &owner));
	own = make_domain(machine, DMACORE_DOMAIN_DMA, NARROW_FIRST, NARROW_LAST);
	assert_ok(dmacore_group_attach(group, own, &owner));
	assert_keeps_clear(machine);
	assert_ok(dmacore_group_detach(group, &owner));
	assert_ok(dmacore_group_release_dma_owner(group, &owner));
	dmacore_domain_destroy(own);

	/* What the devices go back to. */
	fallback = make_domain(machine, DMACORE_DOMAIN_DMA, NARROW_FIRST, NARROW_LAST);
	assert_ok(dmacore_domain_replace(fallback, machine->device));
	assert_ok(dmacore_group_claim_dma_owner(group, &owner));
	add_host_region(machine->system, NARROW_FIRST, PAGE, machine->arena + RAM_SIZE, 0);
	assert_ok(dmacore_group_release_dma_owner(group, &owner));
	for (unsigned i = 1; i < FREE_PAGES; i++)
		map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(domain_statistics(fallback).mapping_count, FREE_PAGES - 1);
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&(dmacore_dma_t){ 0 }),
		     ENOSPC);
	end_device(machine);
	dmacore_domain_destroy(fallback);
	dmacore_group_destroy(group);
}

static void default_domain_of_another_type__keeps_clear_too(void **state)
{
	struct machine *machine = *state;
	struct dmacore_group *group;
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_device_group(machine->device, &group));
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_IDENTITY));
	assert_int_equal(map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE), LOW_BASE);
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA));
	assert_ok(dmacore_device_set_bus_limit(machine->device, LOW_BASE + PAGE - 1, NULL));
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(dma, LOW_BASE - PAGE);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_group_destroy(group);
}

static void attach__waits_until_addresses_of_memory_are_free(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *domain =
		make_domain(machine, DMACORE_DOMAIN_DMA, LOW_BASE, LOW_BASE + PAGE - 1);
	struct dmacore_device *other = make_device(machine);
	dmacore_dma_t dma;

	map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_domain_attach(domain, other));
	assert_ok(dmacore_map_single(other, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_fails(dmacore_domain_replace(domain, machine->device), EBUSY);
	assert_int_equal(map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE), LOW_BASE);
	assert_ok(dmacore_unmap(other, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_domain_replace(domain, machine->device));
	assert_fails(dmacore_map_single(other, machine->low, PAGE, DMACORE_TO_DEVICE, 0, &dma),
		     ENOSPC);
	dmacore_device_destroy(other);
	dmacore_domain_destroy(machine->domain);
	machine->domain = domain;
}

/* What is queued there is free before that is looked at. */
static void attach__to_a_lazy_domain_flushes_it(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_device *other = make_device(machine);
	struct dmacore_domain *domain;
	dmacore_dma_t dma;

	options.type = DMACORE_DOMAIN_DMA_LAZY;
	options.first = LOW_BASE;
	options.last = LOW_BASE + 2 * PAGE - 1;
	options.flush_age = UINT32_MAX;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &domain));
	assert_ok(dmacore_domain_attach(domain, other));
	assert_ok(dmacore_map_single(other, machine->low, 2 * PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_unmap(other, dma, 2 * PAGE, DMACORE_TO_DEVICE, 0));
	assert_int_equal(domain_statistics(domain).queued_count, 1);
	assert_ok(dmacore_domain_replace(domain, machine->device));
	assert_int_equal(domain_statistics(domain).queued_count, 0);
	dmacore_device_destroy(other);
	dmacore_domain_destroy(machine->domain);
	machine->domain = domain;
}

/* Memory that came while its addresses were given out is not in the window. */
static void hybrid_domain__keeps_clear_of_direct_mappings_of_before(void **state)
{
	const uint64_t base = LOW_BASE - 2 * PAGE;
	struct machine *machine = *state;
	struct dmacore_domain *domain =
		make_domain(machine, DMACORE_DOMAIN_HYBRID, base, NARROW_LAST);
	struct dmacore_device *other = make_device(machine);
	dmacore_dma_t taken;

	assert_ok(dmacore_device_set_mask(other, DMACORE_BIT_MASK(32), NULL));
	assert_ok(dmacore_domain_attach(domain, other));
	assert_ok(dmacore_map_single(other, machine->high, PAGE, DMACORE_TO_DEVICE, 0, &taken));
	assert_int_equal(taken, LOW_BASE - PAGE);
	add_host_region(machine->system, base, 2 * PAGE, machine->arena + RAM_SIZE, 0);
	assert_int_equal(map_for(machine, machine->arena + RAM_SIZE, 2 * PAGE, DMACORE_TO_DEVICE),
			 base);
	assert_fails(dmacore_domain_replace(domain, machine->device), EBUSY);
	assert_ok(dmacore_unmap(other, taken, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_domain_replace(domain, machine->device));
	assert_fails(dmacore_map_single(other, machine->high, PAGE, DMACORE_TO_DEVICE, 0, &taken),
		     ENOSPC);
	/* What is kept is the window's when it looks for memory again. */
	assert_ok(dmacore_domain_set_bypass(domain, true));
	assert_in_window(domain, base, 2 * PAGE);
	dmacore_device_destroy(other);
	dmacore_domain_destroy(machine->domain);
	machine->domain = domain;
	end_device(machine);
	assert_ok(dmacore_memory_remove(machine->system, base, 2 * PAGE));
}

/* Memory that came while bypass was off is not in the window. */
static void hybrid_domain_without_bypass__keeps_clear_too(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *domain =
		make_domain(machine, DMACORE_DOMAIN_HYBRID, NARROW_FIRST, NARROW_LAST);
	uint8_t *memory = machine->arena + RAM_SIZE;
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_set_bypass(domain, false));
	add_host_region(machine->system, NARROW_FIRST, FREE_PAGES * PAGE, memory, 0);
	assert_int_equal(map_for(machine, memory, PAGE, DMACORE_TO_DEVICE), NARROW_FIRST);
	assert_ok(dmacore_domain_replace(domain, machine->device));
	assert_fails(dmacore_map_single(machine->device, memory, PAGE, DMACORE_TO_DEVICE, 0, &dma),
		     ENOSPC);
	assert_ok(dmacore_domain_set_bypass(domain, true));
	assert_in_window(domain, NARROW_FIRST, FREE_PAGES * PAGE);
	assert_int_equal(map_for(machine, memory, PAGE, DMACORE_TO_DEVICE), NARROW_FIRST);
	dmacore_domain_destroy(machine->domain);
	machine->domain = domain;
	end_device(machine);
	assert_ok(dmacore_memory_remove(machine->system, NARROW_FIRST, FREE_PAGES * PAGE));
}

static int read_nothing(uint64_t offset, void *bytes, size_t size, void *opaque)
{
	(void)offset;
	(void)opaque;
	memset(bytes, 0, size);
	return 0;
}

/* Which no window has. */
static void memory_of_callbacks__is_kept_clear_of_too(void **state)
{
	const uint32_t types[] = { DMACORE_DOMAIN_DMA, DMACORE_DOMAIN_HYBRID };
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct machine *machine = *state;
	struct dmacore_domain *identity = machine->domain;
	dmacore_dma_t dma;

	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.flags = DMACORE_MEMORY_READ_ONLY;
	region.base = NARROW_FIRST;
	region.size = (FREE_PAGES - 1) * PAGE;
	region.read = read_nothing;
	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(
		dmacore_map_phys(machine->device, NARROW_FIRST, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_int_equal(dma, NARROW_FIRST);
	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_domain *domain =
			make_domain(machine, types[i], NARROW_FIRST, LOW_BASE - 1);

		assert_ok(dmacore_domain_replace(domain, machine->device));
		assert_ok(dmacore_device_set_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
		dma = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
		assert_int_equal(dma, LOW_BASE - PAGE);
		assert_fails(dmacore_map_single(machine->device, machine->high, PAGE,
						DMACORE_TO_DEVICE, 0, &(dmacore_dma_t){ 0 }),
			     ENOSPC);
		assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
		assert_ok(dmacore_domain_replace(identity, machine->device));
		dmacore_domain_destroy(domain);
	}
	end_device(machine);
	assert_ok(dmacore_memory_remove(machine->system, NARROW_FIRST, region.size));
}

#define REGISTERS UINT64_C(0x30000000)

/* A resource, an entry of a list, or a range of a transfer. */
static void map_registers(struct dmacore_device *device, unsigned way)
{
	const struct dmacore_phys_range range = { REGISTERS + 5 * PAGE + 8, 16, DMACORE_RANGE_MMIO,
						  0 };
	struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;
	struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
	struct dmacore_sg list[2];
	dmacore_dma_t dma;
	size_t count;

	switch (way) {
	case 0:
		assert_ok(dmacore_map_resource(device, REGISTERS + 3 * PAGE + 8, 4,
					       DMACORE_TO_DEVICE, 0, &dma));
		assert_int_equal(dma, REGISTERS + 3 * PAGE + 8);
		break;
	case 1:
		dmacore_sg_init(list, 2);
		dmacore_sg_set(&list[0], LOW_BASE, PAGE, 0);
		dmacore_sg_set(&list[1], REGISTERS + PAGE, 4, DMACORE_SG_MMIO);
		assert_ok(dmacore_map_list(device, list, 2, DMACORE_TO_DEVICE, 0, 0, &count));
		break;
	default:
		request.ranges = &range;
		request.count = 1;
		request.direction = DMACORE_TO_DEVICE;
		assert_ok(dmacore_transfer_map(device, &request, &transfer));
	}
}

/* And what lies between those that a device has mapped. */
static void registers__are_kept_clear_of_too(void **state)
{
	static const struct {
		uint64_t first, last;
	} kept[] = { { 3, 3 }, { 1, 3 }, { 1, 5 } };
	struct machine *machine = *state;
	struct dmacore_domain *identity = machine->domain;

	for (unsigned way = 0; way < 3; way++) {
		struct dmacore_domain *domain = make_domain(machine, DMACORE_DOMAIN_DMA, REGISTERS,
							    REGISTERS + 8 * PAGE - 1);
		dmacore_dma_t dma[8];
		unsigned count = 0;

		map_registers(machine->device, way);
		assert_ok(dmacore_domain_replace(domain, machine->device));
		while (dmacore_map_single(machine->device, machine->low, PAGE, DMACORE_TO_DEVICE, 0,
					  &dma[count]) == 0) {
			uint64_t page = (dma[count++] - REGISTERS) / PAGE;

			assert_false(page >= kept[way].first && page <= kept[way].last);
		}
		assert_int_equal(count, 7 - (kept[way].last - kept[way].first));
		while (count-- > 0)
			assert_ok(dmacore_unmap(machine->device, dma[count], PAGE,
						DMACORE_TO_DEVICE, 0));
		assert_ok(dmacore_domain_replace(identity, machine->device));
		dmacore_domain_destroy(domain);
	}
	end_device(machine);
}

static void tracked_mappings__are_in_the_way_themselves(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t direct = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);

	assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	assert_ok(dmacore_unmap(machine->device, direct, PAGE, DMACORE_TO_DEVICE, 0));
	machine_narrow(machine, NARROW_FIRST, NARROW_LAST);
	assert_gives_out_all(machine);
}

static void device_that_never_was_direct__may_have_all_addresses(void **state)
{
	struct machine *machine = *state;

	machine_narrow(machine, NARROW_FIRST, NARROW_LAST);
	assert_gives_out_all(machine);
}

/* By bus addresses, of all ranges that the device has had. */
static void dma_domain__keeps_clear_of_bus_addresses(void **state)
{
	const struct dmacore_dma_range ranges[] = {
		{ .bus = NARROW_FIRST, .phys = NEXT_BASE + 4 * PAGE, .size = 2 * PAGE },
		{ .bus = HIGH_BASE, .phys = HIGH_BASE, .size = RAM_SIZE },
	};
	struct machine *machine = *state;
	dmacore_dma_t dma;

	assert_ok(dmacore_device_set_ranges(machine->device, ranges, 2));
	assert_int_equal(map_for(machine, machine->next + 4 * PAGE, 1, DMACORE_TO_DEVICE),
			 NARROW_FIRST);
	assert_ok(dmacore_device_set_ranges(machine->device, NULL, 0));
	machine_narrow(machine, NARROW_FIRST, NARROW_LAST);
	for (unsigned i = 2; i < FREE_PAGES; i++) {
		dma = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
		assert_in_range(dma, NARROW_FIRST + 2 * PAGE, LOW_BASE - PAGE);
	}
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&dma),
		     ENOSPC);
	end_device(machine);
}

static const struct dmacore_dma_range pool_at_low_memory = {
	.bus = LOW_BASE,
	.phys = POOL_LOW_BASE,
	.size = POOL_PAGES * PAGE,
};

static void bounce_pool__keeps_clear_when_ranges_change(void **state)
{
	const struct dmacore_dma_range elsewhere = {
		.bus = 0x40000000,
		.phys = POOL_LOW_BASE,
		.size = POOL_PAGES * PAGE,
	};
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	dmacore_dma_t direct, copy, more;

	use_device(machine, 0, DMACORE_BIT_MASK(32), PAGE, &pool);
	direct = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(direct, LOW_BASE);
	assert_ok(dmacore_device_set_ranges(machine->device, &pool_at_low_memory, 1));
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&copy),
		     ERANGE);
	assert_int_equal(used_slots(pool), 0);
	assert_ok(dmacore_device_set_ranges(machine->device, &elsewhere, 1));
	copy = map_for(machine, machine->high, PAGE, DMACORE_TO_DEVICE);
	assert_in_range(copy, elsewhere.bus, elsewhere.bus + elsewhere.size - PAGE);
	/* Nor once the first ones are back: memory may have been anywhere meanwhile. */
	assert_ok(dmacore_unmap(machine->device, direct, PAGE, DMACORE_TO_DEVICE, 0));
	assert_int_equal(used_slots(pool), 2);
	assert_ok(dmacore_device_set_ranges(machine->device, &pool_at_low_memory, 1));
	assert_fails(dmacore_map_single(machine->device, machine->high, PAGE, DMACORE_TO_DEVICE, 0,
					&more),
		     ERANGE);
	assert_ok(dmacore_unmap(machine->device, copy, PAGE, DMACORE_TO_DEVICE, 0));
	assert_int_equal(used_slots(pool), 0);
	end_pool(machine, pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(IDENTITY, dma_domain__keeps_clear_of_direct_mappings_of_before),
		test_on(IDENTITY, domains_in_between__make_no_difference),
		test_on(IDENTITY, owners_domains__keep_clear_too),
		test_on(IDENTITY, default_domain_of_another_type__keeps_clear_too),
		test_on(IDENTITY, attach__waits_until_addresses_of_memory_are_free),
		test_on(IDENTITY | HEAP_TABLES, attach__waits_until_addresses_of_memory_are_free),
		test_on(IDENTITY, attach__to_a_lazy_domain_flushes_it),
		test_on(IDENTITY, hybrid_domain__keeps_clear_of_direct_mappings_of_before),
		test_on(IDENTITY, hybrid_domain_without_bypass__keeps_clear_too),
		test_on(IDENTITY, memory_of_callbacks__is_kept_clear_of_too),
		test_on(IDENTITY, registers__are_kept_clear_of_too),
		test_on(IDENTITY | TRACKED, tracked_mappings__are_in_the_way_themselves),
		test_on(TRANSLATED, device_that_never_was_direct__may_have_all_addresses),
		test_on(IDENTITY, dma_domain__keeps_clear_of_bus_addresses),
		test_on(DIRECT, bounce_pool__keeps_clear_when_ranges_change),
		test_on(IDENTITY, bounce_pool__keeps_clear_when_ranges_change),
		test_on(TRACKED, bounce_pool__keeps_clear_when_ranges_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
