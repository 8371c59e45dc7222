/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/drivers.h"

/* Drivers are bound to devices of a group, or to one behind an IOMMU that is announced. */
struct desk {
	struct party party;
	struct test_driver driver;
	struct test_driver other;
	/* Manages DMA itself. */
	struct test_driver own;
	/* Announced, and a device behind it, with a view. */
	struct dmacore_iommu *iommu;
	struct dmacore_device *late;
	struct dmacore_view *view;
};

static struct dmacore_device *disk(struct desk *desk, unsigned index)
{
	return desk->party.devices[index];
}

/* The next report, which is of that level. */
static const struct report_record *take_report(struct machine *machine, uint32_t level)
{
	const struct report_record *report = reports_take(&machine->reports);

	assert_int_equal(report->level, level);
	return report;
}

static struct dmacore_device *make_behind(struct desk *desk, struct dmacore_iommu *iommu,
					  const char *name, uint32_t flags)
{
	struct dmacore_device_options options = device_options(&desk->party.machine);
	struct dmacore_device *device;

	options.name = name;
	options.iommu = iommu;
	options.flags = flags;
	assert_ok(dmacore_device_create(desk->party.machine.system, &options, &device));
	return device;
}

static int desk_setup(void **state)
{
	struct desk *desk = calloc(1, sizeof(*desk));

	assert_non_null(desk);
	party_start(&desk->party, (unsigned)(uintptr_t)*state);
	test_driver_init(&desk->driver, "nvme", 0);
	test_driver_init(&desk->other, "ahci", 0);
	test_driver_init(&desk->own, "gpu", DMACORE_DRIVER_MANAGES_DMA);
	desk->driver.party = desk->other.party = desk->own.party = &desk->party;
	assert_ok(dmacore_iommu_announce(desk->party.machine.system, &desk->iommu));
	desk->late = make_behind(desk, desk->iommu, "late", 0);
	assert_ok(dmacore_view_create(desk->late, &desk->view));
	*state = desk;
	return 0;
}

static int desk_teardown(void **state)
{
	struct desk *desk = *state;

	dmacore_view_destroy(desk->view);
	dmacore_device_destroy(desk->late);
	dmacore_iommu_destroy(desk->iommu);
	party_stop(&desk->party);
	free(desk);
	return 0;
}

/* A test on a group of so many devices, free and without a domain. */
#define test_of(count, function)                                                \
	{                                                                       \
#function " (" #count ")", function, desk_setup, desk_teardown, \
			(void *)(uintptr_t)(count)                              \
	}

static void start(struct desk *desk)
{
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;

	assert_ok(dmacore_iommu_start(desk->iommu, &options));
}

/* Bind. */

static void device_bind__rejects_null_and_bad_drivers(void **state)
{
	struct desk *desk = *state;
	struct dmacore_driver *driver = &desk->driver.descriptor;
	struct dmacore_driver good = *driver;
	char name[DMACORE_OWNER_NAME_SIZE + 1];

	assert_fails(dmacore_device_bind(NULL, driver), EINVAL);
	assert_fails(dmacore_device_bind(disk(desk, 0), NULL), EINVAL);
	driver->probe = NULL;
	assert_fails(dmacore_device_bind(disk(desk, 0), driver), EINVAL);
	*driver = good;
	driver->name = NULL;
	assert_fails(dmacore_device_bind(disk(desk, 0), driver), EINVAL);
	memset(name, 'n', sizeof(name));
	name[DMACORE_OWNER_NAME_SIZE] = 0;
	driver->name = name;
	assert_fails(dmacore_device_bind(disk(desk, 0), driver), EINVAL);
	*driver = good;
	for (unsigned bit = 1; bit < 32; bit++) {
		driver->flags = UINT32_C(1) << bit;
		assert_fails(dmacore_device_bind(disk(desk, 0), driver), EINVAL);
	}
	*driver = good;
	driver->domain_type = DMACORE_DOMAIN_UNMANAGED;
	assert_fails(dmacore_device_bind(disk(desk, 0), driver), EINVAL);
	*driver = good;
	driver->struct_size--;
	assert_fails(dmacore_device_bind(disk(desk, 0), driver), EINVAL);
	assert_int_equal(desk->driver.probes, 0);
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_UNBOUND);
	*driver = good;
	assert_fails(dmacore_device_unbind(NULL), EINVAL);
	assert_fails(dmacore_device_driver(NULL, &driver->flags, NULL), EINVAL);
	assert_fails(dmacore_device_driver(disk(desk, 0), NULL, NULL), EINVAL);
	assert_string_equal(description(&desk->party), "free (1 device); attached to no domain");
}

/* It is configured when probe is called: it can map, and nobody can claim it. */
static void check_configured(struct test_driver *driver, struct dmacore_device *device)
{
	struct party *party = driver->party;
	dmacore_dma_t dma;

	assert_int_equal(state_of(device), DMACORE_DEVICE_PROBING);
	assert_ptr_equal(driver_of(device), &driver->descriptor);
	assert_fails(dmacore_device_claim_dma_owner(device, &party->a), EBUSY);
	assert_ok(dmacore_map_single(device, party->machine.low, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_fails(dmacore_device_bind(device, &driver->descriptor), EBUSY);
	assert_fails(dmacore_device_unbind(device), EBUSY);
}

static void device_bind__configures_before_probe(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_probe = check_configured;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_int_equal(desk->driver.probes, 1);
	assert_ptr_equal(desk->driver.device, disk(desk, 0));
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_BOUND);
	assert_string_equal(description(&desk->party),
			    "in use by the DMA API, 1 use since dmacore_device_bind(disk0) by "
			    "nvme; in a DMA domain");
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->other.descriptor), EBUSY);
	assert_fails(dmacore_device_claim_dma_owner(disk(desk, 1), &desk->party.a), EBUSY);
	assert_fails(dmacore_device_unuse_default_domain(disk(desk, 0)), EPERM);
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_int_equal(desk->driver.removes, 1);
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_UNBOUND);
	assert_null(driver_of(disk(desk, 0)));
	assert_fails(dmacore_device_unbind(disk(desk, 0)), ENOENT);
	assert_ok(dmacore_device_claim_dma_owner(disk(desk, 1), &desk->party.a));
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 1), &desk->party.a));
}

static void device_bind__keeps_the_default_domain_that_somebody_attached(void **state)
{
	struct desk *desk = *state;

	assert_ok(dmacore_domain_attach(desk->party.domains[FALLBACK], disk(desk, 0)));
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_int_equal(where(&desk->party), FALLBACK);
	/* It is not for a driver to replace that. */
	desk->other.descriptor.domain_type = DMACORE_DOMAIN_IDENTITY;
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_fails(dmacore_device_bind(disk(desk, 1), &desk->other.descriptor), EBUSY);
	assert_int_equal(desk->other.probes, 0);
	assert_int_equal(where(&desk->party), FALLBACK);
}

static void device_bind__is_refused_while_the_group_is_owned(void **state)
{
	struct desk *desk = *state;

	assert_ok(dmacore_device_claim_dma_owner(disk(desk, 1), &desk->party.a));
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), EBUSY);
	assert_int_equal(desk->driver.probes, 0);
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_UNBOUND);
	/* A driver that has its own domain does not mind. */
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->own.descriptor));
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 1), &desk->party.a));
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
}

static void device_bind__is_refused_while_mappings_live(void **state)
{
	struct desk *desk = *state;

	assert_ok(dmacore_domain_attach(desk->party.domains[FALLBACK], disk(desk, 0)));
	map_live(&desk->party, 0);
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), EBUSY);
	unmap_live(&desk->party, 0);
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
}

static void leave_mapping(struct test_driver *driver, struct dmacore_device *device)
{
	dmacore_dma_t dma;

	assert_ok(dmacore_map_single(device, driver->party->machine.low, PAGE, DMACORE_TO_DEVICE, 0,
				     &dma));
}

static void device_bind__undoes_everything_when_probe_fails(void **state)
{
	struct desk *desk = *state;
	const struct report_record *report;

	desk->driver.in_probe = leave_mapping;
	desk->driver.result = -EIO;
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), EIO);
	report = take_report(&desk->party.machine, DMACORE_REPORT_WARNING);
	assert_string_equal(report->object, "disk0");
	assert_string_equal(report->text, "left by driver nvme with 1 live mapping of 4096 bytes, "
					  "which are unmapped now");
	assert_int_equal(desk->driver.removes, 0);
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_UNBOUND);
	assert_int_equal(device_statistics(disk(desk, 0)).mapping_count, 0);
	assert_ok(dmacore_device_claim_dma_owner(disk(desk, 0), &desk->party.a));
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 0), &desk->party.a));
}

static void device_bind__takes_odd_results_of_probe_for_failures(void **state)
{
	static const int odd[] = { 1, INT32_MAX, INT32_MIN, -4096 };
	struct desk *desk = *state;

	for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		desk->driver.result = odd[i];
		assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), EINVAL);
	}
	desk->driver.result = -4095;
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), 4095);
}

static void device_unbind__ends_what_the_driver_left(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_probe = leave_mapping;
	desk->driver.in_remove = leave_mapping;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_string_equal(take_report(&desk->party.machine, DMACORE_REPORT_WARNING)->text,
			    "left by driver nvme with 2 live mappings of 8192 bytes, which are "
			    "unmapped now");
	assert_int_equal(device_statistics(disk(desk, 0)).mapping_count, 0);
}

static void device_destroy__unbinds_first(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_remove = leave_mapping;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	leave(&desk->party, 0);
	assert_int_equal(desk->driver.removes, 1);
	take_report(&desk->party.machine, DMACORE_REPORT_WARNING);
	/* The group is free for the device that is left. */
	assert_ok(dmacore_device_claim_dma_owner(disk(desk, 1), &desk->party.a));
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 1), &desk->party.a));
}

static void destroy_it(struct test_driver *driver, struct dmacore_device *device)
{
	(void)device;
	leave(driver->party, 0);
}

/* It ends when probe has returned. */
static void device_destroy__in_probe_leaves_no_driver(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_probe = destroy_it;
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), ENODEV);
	reports_forget(&desk->party.machine.reports);
	assert_string_equal(description(&desk->party), "free (1 device); in a DMA domain");
}

/* Deferral. */

static void device_bind__is_deferred_until_the_iommu_starts(void **state)
{
	struct desk *desk = *state;

	assert_fails(dmacore_device_bind(desk->late, &desk->driver.descriptor), EAGAIN);
	assert_int_equal(state_of(desk->late), DMACORE_DEVICE_DEFERRED);
	assert_ptr_equal(driver_of(desk->late), &desk->driver.descriptor);
	assert_int_equal(desk->driver.probes, 0);
	assert_fails(dmacore_device_bind(desk->late, &desk->driver.descriptor), EBUSY);
	desk->driver.in_probe = check_configured;
	start(desk);
	assert_int_equal(desk->driver.probes, 1);
	assert_int_equal(state_of(desk->late), DMACORE_DEVICE_BOUND);
	assert_fails(dmacore_iommu_start(desk->iommu, NULL), EEXIST);
}

static void device_bind__of_a_driver_that_manages_dma_waits_for_the_iommu_too(void **state)
{
	struct desk *desk = *state;

	assert_fails(dmacore_device_bind(desk->late, &desk->own.descriptor), EAGAIN);
	start(desk);
	assert_int_equal(state_of(desk->late), DMACORE_DEVICE_BOUND);
}

static void iommu_announce__has_no_domains_until_it_starts(void **state)
{
	struct desk *desk = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_iommu *other;
	struct dmacore_group *group;
	struct dmacore_domain *domain;
	uint8_t byte;

	for (options.type = DMACORE_DOMAIN_IDENTITY; options.type <= DMACORE_DOMAIN_UNMANAGED;
	     options.type++)
		assert_creates_nothing(dmacore_domain_create(desk->iommu, &options, &domain),
				       EAGAIN, domain);
	assert_fails(dmacore_view_read(desk->view, SPOT, &byte, 1), EPERM);
	desk->party.machine.faults.count = 0;
	assert_ok(dmacore_device_group(desk->late, &group));
	assert_fails(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA), EAGAIN);
	dmacore_group_destroy(group);
	assert_fails(dmacore_device_use_default_domain(desk->late), ENODEV);
	assert_creates_nothing(dmacore_iommu_announce(NULL, &other), EINVAL, other);
	assert_fails(dmacore_iommu_announce(desk->party.machine.system, NULL), EINVAL);
	assert_fails(dmacore_iommu_start(NULL, NULL), EINVAL);
}

static void device_unbind__gives_a_deferred_bind_up(void **state)
{
	struct desk *desk = *state;

	assert_fails(dmacore_device_bind(desk->late, &desk->driver.descriptor), EAGAIN);
	assert_ok(dmacore_device_unbind(desk->late));
	assert_int_equal(state_of(desk->late), DMACORE_DEVICE_UNBOUND);
	start(desk);
	assert_int_equal(desk->driver.probes, 0);
	assert_int_equal(desk->driver.removes, 0);
}

static void device_destroy__gives_a_deferred_bind_up(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device *devices[3];

	for (unsigned i = 0; i < 3; i++) {
		devices[i] = make_behind(desk, desk->iommu, "later", 0);
		assert_fails(dmacore_device_bind(devices[i], &desk->driver.descriptor), EAGAIN);
	}
	dmacore_device_destroy(devices[1]);
	dmacore_device_destroy(devices[0]);
	start(desk);
	assert_int_equal(desk->driver.probes, 1);
	assert_ptr_equal(desk->driver.device, devices[2]);
	dmacore_device_destroy(devices[2]);
	assert_int_equal(desk->driver.removes, 1);
}

static void device_bind__that_probe_defers_is_retried_when_another_succeeds(void **state)
{
	struct desk *desk = *state;

	desk->driver.result = -EAGAIN;
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), EAGAIN);
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_DEFERRED);
	/* A deferred driver does not use the group. */
	assert_ok(dmacore_device_claim_dma_owner(disk(desk, 1), &desk->party.a));
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 1), &desk->party.a));
	assert_ok(dmacore_device_bind(disk(desk, 1), &desk->other.descriptor));
	assert_int_equal(desk->driver.probes, 2);
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_DEFERRED);
	assert_ok(dmacore_device_unbind(disk(desk, 1)));
	desk->driver.result = 0;
	assert_ok(dmacore_device_bind(disk(desk, 1), &desk->other.descriptor));
	assert_int_equal(desk->driver.probes, 3);
	assert_int_equal(state_of(disk(desk, 0)), DMACORE_DEVICE_BOUND);
}

static void device_bind__that_fails_when_retried_is_reported(void **state)
{
	struct desk *desk = *state;
	const struct report_record *report;

	assert_fails(dmacore_device_bind(desk->late, &desk->driver.descriptor), EAGAIN);
	desk->driver.result = -EIO;
	start(desk);
	report = take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	assert_int_equal(report->error, EIO);
	assert_string_equal(report->object, "late");
	assert_string_equal(report->text, "the deferred bind to driver nvme failed");
	assert_int_equal(state_of(desk->late), DMACORE_DEVICE_UNBOUND);
}

static void start_it(struct test_driver *driver, struct dmacore_device *device)
{
	struct desk *desk = (struct desk *)driver->party;

	(void)device;
	/* Something comes while probe finds that it is missing. */
	if (driver->probes == 1)
		start(desk);
	else
		driver->result = 0;
}

static void device_bind__misses_nothing_that_comes_while_it_probes(void **state)
{
	struct desk *desk = *state;

	desk->driver.in_probe = start_it;
	desk->driver.result = -EAGAIN;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_int_equal(desk->driver.probes, 2);
}

/* Drivers with a domain of their own. */

static void claim_and_attach(struct test_driver *driver, struct dmacore_device *device)
{
	struct party *party = driver->party;

	assert_ok(dmacore_device_claim_dma_owner(device, &party->a));
	assert_ok(dmacore_device_attach(device, party->domains[OWN], &party->a));
}

/* The device works in the driver's domain, and the mapping calls say why they refuse. */
static void check_own(struct desk *desk)
{
	dmacore_dma_t dma;

	assert_int_equal(where(&desk->party), OWN);
	assert_fails(dmacore_map_single(disk(desk, 0), desk->party.machine.low, PAGE,
					DMACORE_TO_DEVICE, 0, &dma),
		     EPERM);
	assert_string_equal(take_report(&desk->party.machine, DMACORE_REPORT_ERROR)->text,
			    "a mapping call is refused: the device is attached to a domain "
			    "in which its owner maps by itself");
}

static void driver_that_manages_dma__may_attach_before_it_is_bound(void **state)
{
	struct desk *desk = *state;

	claim_and_attach(&desk->own, disk(desk, 0));
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->own.descriptor));
	check_own(desk);
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 0), &desk->party.a));
}

static void driver_that_manages_dma__may_attach_in_probe(void **state)
{
	struct desk *desk = *state;

	desk->own.in_probe = claim_and_attach;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->own.descriptor));
	check_own(desk);
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 0), &desk->party.a));
}

static void driver_that_manages_dma__may_attach_after_it_is_bound(void **state)
{
	struct desk *desk = *state;

	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->own.descriptor));
	assert_string_equal(description(&desk->party), "free (2 devices); attached to no domain");
	claim_and_attach(&desk->own, disk(desk, 0));
	check_own(desk);
	/* A sibling cannot get the DMA API meanwhile. */
	assert_fails(dmacore_device_bind(disk(desk, 1), &desk->driver.descriptor), EBUSY);
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 0), &desk->party.a));
}

static void driver_that_manages_dma__does_not_take_the_group_from_a_sibling(void **state)
{
	struct desk *desk = *state;

	assert_ok(dmacore_device_bind(disk(desk, 1), &desk->driver.descriptor));
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->own.descriptor));
	assert_fails(dmacore_device_claim_dma_owner(disk(desk, 0), &desk->party.a), EBUSY);
}

/* Default domains. */

static uint32_t default_type(struct desk *desk)
{
	const char *text = description(&desk->party);

	return strstr(text, "in an identity domain") ? DMACORE_DOMAIN_IDENTITY :
	       strstr(text, "in a DMA domain")	     ? DMACORE_DOMAIN_DMA :
						       0;
}

static void default_domain__is_what_the_driver_asks_for(void **state)
{
	struct desk *desk = *state;

	desk->driver.descriptor.domain_type = DMACORE_DOMAIN_IDENTITY;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_int_equal(default_type(desk), DMACORE_DOMAIN_IDENTITY);
	/* Who does not mind takes what is there. */
	assert_ok(dmacore_device_bind(disk(desk, 1), &desk->other.descriptor));
	assert_int_equal(default_type(desk), DMACORE_DOMAIN_IDENTITY);
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_ok(dmacore_device_unbind(disk(desk, 1)));
	/* A free group changes what it has chosen itself. */
	desk->other.descriptor.domain_type = DMACORE_DOMAIN_DMA;
	assert_ok(dmacore_device_bind(disk(desk, 1), &desk->other.descriptor));
	assert_int_equal(default_type(desk), DMACORE_DOMAIN_DMA);
}

static void default_domain__of_contradicting_drivers_is_the_first_ones(void **state)
{
	struct desk *desk = *state;
	const struct report_record *report;

	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->other.descriptor));
	desk->driver.descriptor.domain_type = DMACORE_DOMAIN_IDENTITY;
	assert_fails(dmacore_device_bind(disk(desk, 1), &desk->driver.descriptor), EBUSY);
	report = take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	assert_string_equal(report->object, "disk1");
	assert_string_equal(report->text,
			    "driver nvme asks for an identity domain, and disk0, which "
			    "has the same, uses the one that is");
	assert_int_equal(desk->driver.probes, 0);
	assert_int_equal(default_type(desk), DMACORE_DOMAIN_DMA);
}

static void default_domain__of_the_system_is_for_drivers_that_do_not_mind(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct desk *desk = *state;
	char text[DMACORE_DESCRIPTION_SIZE];
	struct dmacore_system *system;
	struct dmacore_device *device;
	struct dmacore_group *group;
	struct dmacore_iommu *iommu;

	options.default_domain = DMACORE_DOMAIN_IDENTITY;
	assert_ok(dmacore_system_create(&options, &system));
	assert_ok(dmacore_iommu_create(system, NULL, &iommu));
	device_options.iommu = iommu;
	assert_ok(dmacore_device_create(system, &device_options, &device));
	assert_ok(dmacore_device_bind(device, &desk->driver.descriptor));
	assert_ok(dmacore_device_group(device, &group));
	assert_ok(dmacore_group_describe(group, text, sizeof(text)));
	assert_non_null(strstr(text, "in an identity domain"));
	dmacore_group_destroy(group);
	dmacore_device_destroy(device);
	dmacore_iommu_destroy(iommu);
	dmacore_system_destroy(system);
}

static void untrusted_device__never_has_an_identity_domain(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device_options options = device_options(&desk->party.machine);
	struct dmacore_domain *identity;
	struct dmacore_device *guest;
	const struct report_record *report;

	options.name = "guest";
	options.group = desk->party.group;
	options.flags = DMACORE_DEVICE_UNTRUSTED;
	identity = make_domain(&desk->party.machine, DMACORE_DOMAIN_IDENTITY, 0, 0);
	desk->driver.descriptor.domain_type = DMACORE_DOMAIN_IDENTITY;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	/* It does not join one. */
	assert_creates_nothing(dmacore_device_create(desk->party.machine.system, &options, &guest),
			       EPERM, guest);
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_ok(dmacore_group_set_default_type(desk->party.group, DMACORE_DOMAIN_DMA));
	assert_ok(dmacore_device_create(desk->party.machine.system, &options, &guest));
	/* Nobody gives it one. */
	assert_fails(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor), EPERM);
	report = take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	assert_string_equal(report->object, "disk0");
	assert_string_equal(report->text,
			    "driver nvme asks for an identity domain, and guest, which "
			    "has the same, is not trusted");
	assert_fails(dmacore_domain_replace(identity, guest), EPERM);
	assert_fails(dmacore_group_set_default_type(desk->party.group, DMACORE_DOMAIN_IDENTITY),
		     EPERM);
	take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	assert_ok(dmacore_device_claim_dma_owner(guest, &desk->party.a));
	assert_fails(dmacore_device_attach(guest, identity, &desk->party.a), EPERM);
	assert_ok(dmacore_device_release_dma_owner(guest, &desk->party.a));
	dmacore_device_destroy(guest);
	dmacore_domain_destroy(identity);
}

static void untrusted_device__is_not_bound_where_nothing_contains_it(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device *guest = make_behind(desk, NULL, "guest", DMACORE_DEVICE_UNTRUSTED);

	assert_fails(dmacore_device_bind(guest, &desk->driver.descriptor), ENODEV);
	assert_fails(dmacore_device_bind(guest, &desk->own.descriptor), ENODEV);
	assert_int_equal(state_of(guest), DMACORE_DEVICE_UNBOUND);
	dmacore_device_destroy(guest);
}

static void device_bind__needs_no_iommu(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device *device = make_behind(desk, NULL, "plain", 0);
	dmacore_dma_t dma;

	assert_ok(dmacore_device_bind(device, &desk->driver.descriptor));
	assert_ok(dmacore_map_single(device, desk->party.machine.low, PAGE, DMACORE_TO_DEVICE, 0,
				     &dma));
	assert_int_equal(dma, LOW_BASE);
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_device_destroy(device);
}

static void group_set_default_type__changes_a_free_group_only(void **state)
{
	struct desk *desk = *state;
	struct dmacore_group *group = desk->party.group;
	const struct report_record *report;

	assert_fails(dmacore_group_set_default_type(NULL, DMACORE_DOMAIN_DMA), EINVAL);
	assert_fails(dmacore_group_set_default_type(group, 0), EINVAL);
	assert_fails(dmacore_group_set_default_type(group, DMACORE_DOMAIN_BLOCKED), EINVAL);
	assert_fails(dmacore_group_set_default_type(group, 99), EINVAL);
	assert_int_equal(default_type(desk), 0);
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_IDENTITY));
	assert_int_equal(default_type(desk), DMACORE_DOMAIN_IDENTITY);
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_IDENTITY));
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_fails(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA), EBUSY);
	report = take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	assert_int_equal(report->error, EBUSY);
	assert_string_equal(report->object, "group");
	assert_string_equal(
		report->text,
		"its default domain stays as it is; the group is in use by the DMA API, 1 "
		"use since dmacore_device_bind(disk0) by nvme; in an identity domain");
	assert_int_equal(default_type(desk), DMACORE_DOMAIN_IDENTITY);
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_ok(dmacore_device_claim_dma_owner(disk(desk, 0), &desk->party.a));
	assert_fails(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA), EPERM);
	assert_string_equal(
		take_report(&desk->party.machine, DMACORE_REPORT_ERROR)->text,
		"its default domain stays as it is; the group is owned by anne (a "
		"driver), 1 claim since dmacore_device_claim_dma_owner(disk0); attached "
		"to no domain");
	assert_ok(dmacore_device_release_dma_owner(disk(desk, 0), &desk->party.a));
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA));
	assert_int_equal(default_type(desk), DMACORE_DOMAIN_DMA);
	map_live(&desk->party, 0);
	assert_fails(dmacore_group_set_default_type(group, DMACORE_DOMAIN_IDENTITY), EBUSY);
	take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	unmap_live(&desk->party, 0);
}

static void group_set_default_type__makes_a_chosen_domain_lazy_or_strict_at_any_time(void **state)
{
	struct desk *desk = *state;
	struct dmacore_group *group = desk->party.group;
	struct dmacore_device_options options = device_options(&desk->party.machine);
	struct dmacore_device *guest;

	desk->driver.descriptor.domain_type = DMACORE_DOMAIN_DMA_LAZY;
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_non_null(strstr(description(&desk->party), "in a lazy DMA domain"));
	map_live(&desk->party, 0);
	/* In use and with mappings. */
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA));
	assert_non_null(strstr(description(&desk->party), "in a DMA domain"));
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA_LAZY));
	assert_non_null(strstr(description(&desk->party), "in a lazy DMA domain"));
	unmap_live(&desk->party, 0);
	/* Another driver is as content with it as with a strict one. */
	desk->other.descriptor.domain_type = DMACORE_DOMAIN_DMA;
	assert_ok(dmacore_device_bind(disk(desk, 1), &desk->other.descriptor));
	/* A device that is not trusted joins no lazy domain, and then keeps it from becoming one. */
	options.name = "guest";
	options.group = group;
	options.flags = DMACORE_DEVICE_UNTRUSTED;
	assert_creates_nothing(dmacore_device_create(desk->party.machine.system, &options, &guest),
			       EPERM, guest);
	assert_ok(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA));
	assert_ok(dmacore_device_create(desk->party.machine.system, &options, &guest));
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_ok(dmacore_device_unbind(disk(desk, 1)));
	assert_fails(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA_LAZY), EPERM);
	take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	assert_non_null(strstr(description(&desk->party), "in a DMA domain"));
	/* What a driver asks for is strict for it too. */
	assert_ok(dmacore_device_bind(guest, &desk->driver.descriptor));
	assert_non_null(strstr(description(&desk->party), "in a DMA domain"));
	dmacore_device_destroy(guest);
}

static void
group_set_default_type__of_a_domain_that_somebody_attached_needs_a_free_group(void **state)
{
	struct desk *desk = *state;

	assert_ok(dmacore_domain_attach(desk->party.domains[FALLBACK], disk(desk, 0)));
	assert_ok(dmacore_device_bind(disk(desk, 0), &desk->driver.descriptor));
	assert_fails(dmacore_group_set_default_type(desk->party.group, DMACORE_DOMAIN_DMA_LAZY),
		     EBUSY);
	take_report(&desk->party.machine, DMACORE_REPORT_ERROR);
	assert_int_equal(where(&desk->party), FALLBACK);
	assert_ok(dmacore_device_unbind(disk(desk, 0)));
	assert_ok(dmacore_group_set_default_type(desk->party.group, DMACORE_DOMAIN_DMA_LAZY));
	assert_non_null(strstr(description(&desk->party), "in a lazy DMA domain"));
	assert_int_equal(members_in(&desk->party, FALLBACK), 0);
}

static void group_set_default_type__needs_a_device_behind_an_iommu(void **state)
{
	struct desk *desk = *state;
	struct dmacore_device *device = make_behind(desk, NULL, "plain", 0);
	struct dmacore_group *group;

	assert_fails(dmacore_group_set_default_type(desk->party.group, DMACORE_DOMAIN_DMA), ENODEV);
	assert_ok(dmacore_device_group(device, &group));
	assert_fails(dmacore_group_set_default_type(group, DMACORE_DOMAIN_DMA), ENODEV);
	dmacore_group_destroy(group);
	dmacore_device_destroy(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_of(1, device_bind__rejects_null_and_bad_drivers),
		test_of(2, device_bind__configures_before_probe),
		test_of(2, device_bind__keeps_the_default_domain_that_somebody_attached),
		test_of(2, device_bind__is_refused_while_the_group_is_owned),
		test_of(1, device_bind__is_refused_while_mappings_live),
		test_of(1, device_bind__undoes_everything_when_probe_fails),
		test_of(1, device_bind__takes_odd_results_of_probe_for_failures),
		test_of(1, device_bind__needs_no_iommu),
		test_of(1, device_unbind__ends_what_the_driver_left),
		test_of(2, device_destroy__unbinds_first),
		test_of(2, device_destroy__in_probe_leaves_no_driver),
		test_of(0, device_bind__is_deferred_until_the_iommu_starts),
		test_of(0, device_bind__of_a_driver_that_manages_dma_waits_for_the_iommu_too),
		test_of(0, iommu_announce__has_no_domains_until_it_starts),
		test_of(0, device_unbind__gives_a_deferred_bind_up),
		test_of(0, device_destroy__gives_a_deferred_bind_up),
		test_of(2, device_bind__that_probe_defers_is_retried_when_another_succeeds),
		test_of(0, device_bind__that_fails_when_retried_is_reported),
		test_of(1, device_bind__misses_nothing_that_comes_while_it_probes),
		test_of(2, driver_that_manages_dma__may_attach_before_it_is_bound),
		test_of(2, driver_that_manages_dma__may_attach_in_probe),
		test_of(2, driver_that_manages_dma__may_attach_after_it_is_bound),
		test_of(2, driver_that_manages_dma__does_not_take_the_group_from_a_sibling),
		test_of(2, default_domain__is_what_the_driver_asks_for),
		test_of(2, default_domain__of_contradicting_drivers_is_the_first_ones),
		test_of(1, default_domain__of_the_system_is_for_drivers_that_do_not_mind),
		test_of(1, untrusted_device__never_has_an_identity_domain),
		test_of(1, untrusted_device__is_not_bound_where_nothing_contains_it),
		test_of(1, group_set_default_type__changes_a_free_group_only),
		test_of(2,
			group_set_default_type__makes_a_chosen_domain_lazy_or_strict_at_any_time),
		test_of(1,
			group_set_default_type__of_a_domain_that_somebody_attached_needs_a_free_group),
		test_of(0, group_set_default_type__needs_a_device_behind_an_iommu),
	};

	return run_group("driver", tests);
}
