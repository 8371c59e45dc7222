/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

/* The objects of a machine, and who holds on to whom. */
enum object { MAPPING, VIEW, DEVICE, DOMAIN, IOMMU, SYSTEM, OBJECT_COUNT };

static const unsigned holders[OBJECT_COUNT] = {
	[DEVICE] = 1U << MAPPING | 1U << VIEW,
	/* A device only while it is not destroyed; a zero-copy mapping only where it translates. */
	[DOMAIN] = 1U << DEVICE | 1U << MAPPING,
	[IOMMU] = 1U << DOMAIN | 1U << DEVICE,
	[SYSTEM] = 1U << IOMMU | 1U << DEVICE,
};

/* Whether an object is held by one that is alive, or by one that is held itself. */
static bool is_held(enum object object, enum path path, unsigned alive)
{
	unsigned now = alive;

	/* Holders come before what they hold. */
	for (unsigned i = 0; i < OBJECT_COUNT; i++) {
		unsigned by = holders[i] & now;

		if (i == DOMAIN)
			by &= path & TRANSLATED ? alive : alive & ~(1U << MAPPING);
		if (i == object)
			return by;
		if (by)
			now |= 1U << i;
	}
	return false;
}

static void destroy_object(struct machine *machine, struct dmacore_view_mapping *mapping,
			   enum object object)
{
	switch (object) {
	case MAPPING:
		dmacore_view_unmap(mapping);
		break;
	case VIEW:
		dmacore_view_destroy(machine->view);
		machine->view = NULL;
		break;
	case DEVICE:
		dmacore_device_destroy(machine->device);
		machine->device = NULL;
		break;
	case DOMAIN:
		dmacore_domain_destroy(machine->domain);
		machine->domain = NULL;
		break;
	case IOMMU:
		dmacore_iommu_destroy(machine->iommu);
		machine->iommu = NULL;
		break;
	default:
		dmacore_system_destroy(machine->system);
		machine->system = NULL;
		break;
	}
}

/*
 * One machine, destroyed in one order. Each object that is held when it is destroyed is reported;
 * at the end nothing is left: machine_stop() counts, and a checker of memory leaks sees the rest.
 */
static void destroy_in_order(enum path path, const enum object *order, bool live)
{
	static struct machine machine;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	unsigned alive = 0;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	machine_start(&machine, path);
	dma = map_for(&machine, machine.low, PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_map(machine.view, dma, PAGE, DMACORE_ACCESS_READ, &mapping,
				   &segments, &count));
	if (live) {
		assert_ok(dmacore_alloc_coherent(machine.device, PAGE, &cpu, &dma));
	} else {
		assert_ok(dmacore_unmap(machine.device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
		assert_reported(&machine, DMACORE_REPORT_WARNING);
	}
	for (unsigned i = 0; i < OBJECT_COUNT; i++)
		alive |= 1U << i;
	if (!machine.iommu)
		alive &= ~(1U << IOMMU | 1U << DOMAIN);
	for (unsigned i = 0; i < OBJECT_COUNT; i++) {
		bool held = is_held(order[i], path, alive);

		if (!(alive & 1U << order[i]))
			continue;
		reports_forget(&machine.reports);
		destroy_object(&machine, mapping, order[i]);
		alive &= ~(1U << order[i]);
		if (!live)
			assert_int_equal(machine.reports.count, held);
		for (unsigned n = 0; n < machine.reports.count; n++)
			assert_int_equal(machine.reports.at[n].level, DMACORE_REPORT_WARNING);
	}
	reports_forget(&machine.reports);
	machine_stop(&machine);
}

static void destroy_in_every_order(enum path path, bool live)
{
	enum object order[OBJECT_COUNT];
	unsigned orders = 0;

	/* Every number below 6^6 whose digits differ is an order. */
	for (unsigned number = 0; number < 46656; number++) {
		unsigned seen = 0;

		for (unsigned i = 0, rest = number; i < OBJECT_COUNT; i++, rest /= OBJECT_COUNT) {
			order[i] = rest % OBJECT_COUNT;
			seen |= 1U << order[i];
		}
		if (seen != (1U << OBJECT_COUNT) - 1)
			continue;
		destroy_in_order(path, order, live);
		orders++;
	}
	assert_int_equal(orders, 720);
}

static void destroy__in_any_order_frees_everything_through_an_iommu(void **state)
{
	(void)state;
	destroy_in_every_order(TRANSLATED, false);
}

static void destroy__in_any_order_frees_everything_on_the_direct_path(void **state)
{
	(void)state;
	destroy_in_every_order(IDENTITY | TRACKED, false);
	destroy_in_every_order(DIRECT | TRACKED, false);
}

static void destroy__in_any_order_ends_what_is_live(void **state)
{
	(void)state;
	destroy_in_every_order(TRANSLATED, true);
	destroy_in_every_order(TRACKED, true);
}

static void destroy__takes_effect_with_the_last_holder(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	uint8_t byte = 0;

	dmacore_system_destroy(machine->system);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_domain_destroy(machine->domain);
	assert_int_equal(machine->reports.count, machine->iommu ? 3 : 1);
	machine->system = NULL;
	machine->iommu = NULL;
	machine->domain = NULL;
	reports_forget(&machine->reports);

	/* The device has all that it needs. */
	machine->low[0] = 71;
	dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_view_read(machine->view, dma, &byte, 1));
	assert_int_equal(byte, 71);
	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
}

static void device_destroy__leaves_a_view_that_reaches_nothing(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	uint8_t byte = 71;
	int error;

	machine->low[0] = 72;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	/* Once for the view, and once for the mapping that was still there. */
	assert_int_equal(machine->reports.count, 2);
	error = dmacore_view_read(machine->view, dma, &byte, 1);
	assert_true(error == -ENOENT || error == -EPERM);
	assert_int_equal(byte, 71);
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	assert_int_equal(machine->reports.count, 2);
	reports_forget(&machine->reports);
}

static void device_destroy__lets_the_report_callback_use_the_device(void **state)
{
	struct machine *machine = *state;

	map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	machine->reports.watched = machine->device;
	dmacore_device_destroy(machine->device);
	machine->reports.watched = NULL;
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
}

static void domain_destroy__is_completed_by_the_last_holder(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *domain = machine->domain;

	assert_int_equal(machine->tables.live, 1);
	dmacore_domain_destroy(domain);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_int_equal(machine->tables.live, 1);
	machine->domain = NULL;
	dmacore_device_destroy(machine->device);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	machine->device = NULL;
	assert_int_equal(machine->tables.live, 0);
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	assert_no_reports(&machine->reports);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(destroy__in_any_order_frees_everything_through_an_iommu),
		cmocka_unit_test(destroy__in_any_order_frees_everything_on_the_direct_path),
		cmocka_unit_test(destroy__in_any_order_ends_what_is_live),
		test_on_translated(destroy__takes_effect_with_the_last_holder),
		test_on(IDENTITY, destroy__takes_effect_with_the_last_holder),
		test_on(TRACKED, destroy__takes_effect_with_the_last_holder),
		test_on_recorded(device_destroy__leaves_a_view_that_reaches_nothing),
		test_on_recorded(device_destroy__lets_the_report_callback_use_the_device),
		test_on(TRANSLATED, domain_destroy__is_completed_by_the_last_holder),
	};

	return run_group("lifetime", tests);
}
