/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/drivers.h"

#include <pthread.h>

/* What happens to a device and to what waits while a driver's functions run. */

#define LATE_COUNT 4

struct desk {
	struct party party;
	struct test_driver driver;
	/* Announced, and devices behind it. */
	struct dmacore_iommu *iommu;
	struct dmacore_device *late[LATE_COUNT];
	/* Behind no IOMMU. */
	struct dmacore_device *children[LATE_COUNT];
	/* Those that were probed, in this order. */
	struct dmacore_device *probed[2 * LATE_COUNT];
	unsigned probed_count;
};

static struct desk *desk_of(struct test_driver *driver)
{
	return (struct desk *)driver->party;
}

static struct dmacore_device *disk(struct desk *desk)
{
	return desk->party.devices[0];
}

static int desk_setup(void **state)
{
	struct desk *desk = calloc(1, sizeof(*desk));
	struct dmacore_device_options options;

	assert_non_null(desk);
	party_start(&desk->party, 2);
	test_driver_init(&desk->driver, "nvme", 0);
	desk->driver.party = &desk->party;
	assert_ok(dmacore_iommu_announce(desk->party.machine.system, &desk->iommu));
	options = device_options(&desk->party.machine);
	options.iommu = desk->iommu;
	for (unsigned i = 0; i < LATE_COUNT; i++)
		assert_ok(dmacore_device_create(desk->party.machine.system, &options,
						&desk->late[i]));
	*state = desk;
	return 0;
}

static int desk_teardown(void **state)
{
	struct desk *desk = *state;

	for (unsigned i = 0; i < LATE_COUNT; i++)
		dmacore_device_destroy(desk->late[i]);
	dmacore_iommu_destroy(desk->iommu);
	party_stop(&desk->party);
	free(desk);
	return 0;
}

static int bind_to(struct desk *desk, struct dmacore_device *device)
{
	return dmacore_device_bind(device, &desk->driver.descriptor);
}

static void leave_mapping(struct test_driver *driver, struct dmacore_device *device)
{
	dmacore_dma_t dma;

	assert_ok(dmacore_map_single(device, driver->party->machine.low, PAGE, DMACORE_TO_DEVICE, 0,
				     &dma));
}

static void *destroy_on_thread(void *device)
{
	dmacore_device_destroy(device);
	return NULL;
}

/* Another thread destroys the device, while probe or remove goes on with it. */
static void destroy_beside(struct test_driver *driver, struct dmacore_device *device)
{
	struct desk *desk = desk_of(driver);
	pthread_t thread;

	if (device == disk(desk)) {
		dmacore_view_destroy(desk->party.views[0]);
		desk->party.views[0] = NULL;
		desk->party.devices[0] = NULL;
	} else {
		desk->late[0] = NULL;
	}
	assert_int_equal(pthread_create(&thread, NULL, destroy_on_thread, device), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	leave_mapping(driver, device);
	assert_fails(dmacore_device_unbind(device), EBUSY);
}

/* What was left is unmapped, and remove was called if probe was, and had taken the device over. */
static void check_gone(struct desk *desk, unsigned removes)
{
	assert_int_equal(desk->driver.removes, removes);
	reports_forget(&desk->party.machine.reports);
	assert_string_equal(description(&desk->party), "free (1 device); in a DMA domain");
}

static void device_destroy__beside_probe_is_done_when_probe_has_returned(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_probe = destroy_beside;
	assert_fails(bind_to(desk, disk(desk)), ENODEV);
	check_gone(desk, 1);
}

static void device_destroy__beside_a_probe_that_fails_is_done_afterwards(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_probe = destroy_beside;
	desk->driver.result = -EIO;
	assert_fails(bind_to(desk, disk(desk)), EIO);
	check_gone(desk, 0);
}

static void device_destroy__beside_a_probe_that_defers_leaves_nothing_waiting(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_probe = destroy_beside;
	desk->driver.result = -EAGAIN;
	assert_fails(bind_to(desk, disk(desk)), ENODEV);
	check_gone(desk, 0);
	desk->driver.in_probe = NULL;
	assert_ok(dmacore_iommu_start(desk->iommu, NULL));
	assert_int_equal(desk->driver.probes, 1);
}

static void device_destroy__beside_a_retry_is_done_when_probe_has_returned(void **state)
{
	struct desk *desk = *state;

	assert_fails(bind_to(desk, desk->late[0]), EAGAIN);
	desk->driver.in_probe = destroy_beside;
	assert_ok(dmacore_iommu_start(desk->iommu, NULL));
	assert_int_equal(desk->driver.removes, 1);
	reports_forget(&desk->party.machine.reports);
}

static void device_destroy__beside_remove_is_done_when_remove_has_returned(void **state)
{
	struct desk *desk = *state;

	assert_ok(bind_to(desk, disk(desk)));
	desk->driver.in_remove = destroy_beside;
	assert_ok(dmacore_device_unbind(disk(desk)));
	check_gone(desk, 1);
}

static void count_probe(struct test_driver *driver, struct dmacore_device *device)
{
	struct desk *desk = desk_of(driver);

	desk->probed[desk->probed_count++] = device;
}

static void deferred_binds__are_retried_in_the_order_in_which_they_came(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device **late = desk->late;

	for (unsigned i = 0; i < 3; i++)
		assert_fails(bind_to(desk, late[i]), EAGAIN);
	/* The last, the first, and one in the middle leave. */
	assert_ok(dmacore_device_unbind(late[2]));
	assert_fails(bind_to(desk, late[3]), EAGAIN);
	assert_ok(dmacore_device_unbind(late[0]));
	assert_fails(bind_to(desk, late[2]), EAGAIN);
	assert_ok(dmacore_device_unbind(late[3]));
	assert_fails(bind_to(desk, late[0]), EAGAIN);
	desk->driver.in_probe = count_probe;
	assert_ok(dmacore_iommu_start(desk->iommu, NULL));
	assert_int_equal(desk->probed_count, 3);
	assert_ptr_equal(desk->probed[0], late[1]);
	assert_ptr_equal(desk->probed[1], late[2]);
	assert_ptr_equal(desk->probed[2], late[0]);
	/* None is left, and one more waits by itself. */
	assert_ok(dmacore_device_unbind(late[1]));
	desk->driver.result = -EAGAIN;
	assert_fails(bind_to(desk, late[1]), EAGAIN);
	assert_ok(dmacore_device_unbind(late[1]));
	desk->driver.result = 0;
}

static void find_first(struct test_driver *driver, struct dmacore_device *device)
{
	struct desk *desk = desk_of(driver);

	count_probe(driver, device);
	/* All but the last need the last. */
	driver->result = device == desk->late[LATE_COUNT - 1] || desk->probed_count > LATE_COUNT ?
				 0 :
				 -EAGAIN;
}

/* One that succeeds is asked for by those that were tried before it. */
static void deferred_binds__are_retried_again_when_one_succeeds(void **state)
{
	struct desk *desk = *state;

	for (unsigned i = 0; i < LATE_COUNT; i++)
		assert_fails(bind_to(desk, desk->late[i]), EAGAIN);
	desk->driver.in_probe = find_first;
	assert_ok(dmacore_iommu_start(desk->iommu, NULL));
	for (unsigned i = 0; i < LATE_COUNT; i++)
		assert_int_equal(state_of(desk->late[i]), DMACORE_DEVICE_BOUND);
	assert_int_equal(desk->driver.probes, 2 * LATE_COUNT - 1);
}

static unsigned depth, depth_max;

static void bind_child(struct test_driver *driver, struct dmacore_device *device)
{
	static struct test_driver leaf;
	struct desk *desk = desk_of(driver);
	unsigned i = 0;

	depth++;
	depth_max = depth > depth_max ? depth : depth_max;
	test_driver_init(&leaf, "leaf", 0);
	while (desk->late[i] != device)
		i++;
	assert_ok(dmacore_device_bind(desk->children[i], &leaf.descriptor));
	depth--;
}

/* However many wait, each of which binds another: the stack does not get deeper. */
static void deferred_binds__are_not_retried_in_each_other(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;

	for (unsigned i = 0; i < LATE_COUNT; i++) {
		assert_ok(dmacore_device_create(desk->party.machine.system, &options,
						&desk->children[i]));
		assert_fails(bind_to(desk, desk->late[i]), EAGAIN);
	}
	depth = depth_max = 0;
	desk->driver.in_probe = bind_child;
	assert_ok(dmacore_iommu_start(desk->iommu, NULL));
	assert_int_equal(depth_max, 1);
	for (unsigned i = 0; i < LATE_COUNT; i++) {
		assert_int_equal(state_of(desk->late[i]), DMACORE_DEVICE_BOUND);
		dmacore_device_destroy(desk->children[i]);
	}
}

/* What somebody has mapped meanwhile would be taken for the driver's. */
static void deferred_bind__fails_when_the_device_has_mappings_by_then(void **state)
{
	struct desk *desk = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	const struct report_record *report;

	desk->driver.result = -EAGAIN;
	assert_fails(bind_to(desk, disk(desk)), EAGAIN);
	map_live(&desk->party, 0);
	assert_ok(dmacore_iommu_start(desk->iommu, &options));
	report = reports_take(&desk->party.machine.reports);
	assert_int_equal(report->error, EBUSY);
	assert_string_equal(report->text, "the deferred bind to driver nvme failed");
	assert_int_equal(desk->driver.probes, 1);
	assert_int_equal(device_statistics(disk(desk)).mapping_count, 1);
	assert_int_equal(state_of(disk(desk)), DMACORE_DEVICE_UNBOUND);
}

/* It contains the device as well as a DMA domain does. */
static void untrusted_device__is_bound_in_the_domain_that_somebody_attached(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device_options options = device_options(&desk->party.machine);
	struct dmacore_device *guest;

	options.flags = DMACORE_DEVICE_UNTRUSTED;
	assert_ok(dmacore_device_create(desk->party.machine.system, &options, &guest));
	assert_ok(dmacore_domain_attach(desk->party.domains[OWN], guest));
	assert_ok(bind_to(desk, guest));
	assert_int_equal(domain_statistics(desk->party.domains[OWN]).device_count, 1);
	dmacore_device_destroy(guest);
}

static void device_unbind__undoes_what_bind_did_whatever_the_flags_say_by_then(void **state)
{
	const uint32_t flags[] = { 0, DMACORE_DRIVER_MANAGES_DMA };
	struct desk *desk = *state;

	for (unsigned i = 0; i < 2; i++) {
		desk->driver.descriptor.flags = flags[i];
		assert_ok(bind_to(desk, disk(desk)));
		desk->driver.descriptor.flags = flags[1 - i];
		assert_ok(dmacore_device_unbind(disk(desk)));
		assert_string_equal(description(&desk->party), "free (2 devices); in a DMA domain");
	}
}

/* Sees what state a device is in when its bind is reported, and may end all of its system. */
struct witness {
	struct dmacore_device *device;
	struct test_driver driver;
	struct dmacore_iommu *iommu;
	struct dmacore_system *system;
	uint32_t state;
	unsigned reports;
};

static void note_state(const struct dmacore_report *report, void *opaque)
{
	struct witness *witness = opaque;

	if (strstr(report->text, "the deferred bind") == NULL)
		return;
	witness->state = state_of(witness->device);
	witness->reports++;
}

static void witness_start(struct witness *witness, uint32_t flags, uint32_t default_domain)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;

	memset(witness, 0, sizeof(*witness));
	options.report = note_state;
	options.default_domain = default_domain;
	options.report_opaque = witness;
	test_driver_init(&witness->driver, "nvme", 0);
	assert_ok(dmacore_system_create(&options, &witness->system));
	assert_ok(dmacore_iommu_announce(witness->system, &witness->iommu));
	device.iommu = witness->iommu;
	device.flags = flags;
	assert_ok(dmacore_device_create(witness->system, &device, &witness->device));
	assert_fails(dmacore_device_bind(witness->device, &witness->driver.descriptor), EAGAIN);
}

static void untrusted_device__does_not_get_the_default_domain_of_the_system(void **state)
{
	struct witness witness;
	struct dmacore_view *view;
	uint8_t byte;

	(void)state;
	witness_start(&witness, DMACORE_DEVICE_UNTRUSTED, DMACORE_DOMAIN_IDENTITY);
	assert_ok(dmacore_iommu_start(witness.iommu, NULL));
	assert_int_equal(state_of(witness.device), DMACORE_DEVICE_BOUND);
	assert_ok(dmacore_view_create(witness.device, &view));
	assert_fails(dmacore_view_read(view, LOW_BASE, &byte, 1), ENOENT);
	dmacore_view_destroy(view);
	dmacore_device_destroy(witness.device);
	dmacore_iommu_destroy(witness.iommu);
	dmacore_system_destroy(witness.system);
}

/* So that nobody can have unbound the device and freed the driver by then. */
static void deferred_bind__that_fails_is_reported_while_the_driver_is_there(void **state)
{
	struct witness witness;

	(void)state;
	witness_start(&witness, 0, 0);
	witness.driver.result = -EIO;
	assert_ok(dmacore_iommu_start(witness.iommu, NULL));
	assert_int_equal(witness.reports, 1);
	assert_int_equal(witness.state, DMACORE_DEVICE_PROBING);
	assert_int_equal(state_of(witness.device), DMACORE_DEVICE_UNBOUND);
	dmacore_device_destroy(witness.device);
	dmacore_iommu_destroy(witness.iommu);
	dmacore_system_destroy(witness.system);
}

static struct witness *ending;

static void destroy_all(struct test_driver *driver, struct dmacore_device *device)
{
	(void)driver;
	dmacore_iommu_destroy(ending->iommu);
	dmacore_system_destroy(ending->system);
	dmacore_device_destroy(device);
}

/* What runs holds what it uses; memcheck sees if it does not. */
static void iommu_start__outlives_all_that_a_probe_destroys(void **state)
{
	struct witness witness;

	(void)state;
	witness_start(&witness, 0, 0);
	ending = &witness;
	witness.driver.in_probe = destroy_all;
	assert_ok(dmacore_iommu_start(witness.iommu, NULL));
	assert_int_equal(witness.driver.removes, 1);
	assert_int_equal(witness.reports, 0);
}

#define test_at_desk(function) cmocka_unit_test_setup_teardown(function, desk_setup, desk_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_at_desk(device_destroy__beside_probe_is_done_when_probe_has_returned),
		test_at_desk(device_destroy__beside_a_probe_that_fails_is_done_afterwards),
		test_at_desk(device_destroy__beside_a_probe_that_defers_leaves_nothing_waiting),
		test_at_desk(device_destroy__beside_a_retry_is_done_when_probe_has_returned),
		test_at_desk(device_destroy__beside_remove_is_done_when_remove_has_returned),
		test_at_desk(deferred_binds__are_retried_in_the_order_in_which_they_came),
		test_at_desk(deferred_binds__are_retried_again_when_one_succeeds),
		test_at_desk(deferred_binds__are_not_retried_in_each_other),
		test_at_desk(deferred_bind__fails_when_the_device_has_mappings_by_then),
		test_at_desk(untrusted_device__is_bound_in_the_domain_that_somebody_attached),
		test_at_desk(device_unbind__undoes_what_bind_did_whatever_the_flags_say_by_then),
		cmocka_unit_test(untrusted_device__does_not_get_the_default_domain_of_the_system),
		cmocka_unit_test(deferred_bind__that_fails_is_reported_while_the_driver_is_there),
		cmocka_unit_test(iommu_start__outlives_all_that_a_probe_destroys),
	};

	return run_group("driver life", tests);
}
