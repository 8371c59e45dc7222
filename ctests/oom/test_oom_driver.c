/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/drivers.h"

/* Binding, starting and choosing a default domain while memory runs out; their undoing needs none. */

struct site {
	struct party party;
	struct test_driver driver;
	unsigned live;
};

static void site_start(struct site *site)
{
	memset(site, 0, sizeof(*site));
	site->live = oom.live_count;
	party_start(&site->party, 2);
	test_driver_init(&site->driver, "nvme", 0);
	site->driver.party = &site->party;
}

static void site_stop(struct site *site)
{
	party_stop(&site->party);
	assert_int_equal(oom.live_count, site->live);
}

static struct dmacore_device *disk(struct site *site, unsigned index)
{
	return site->party.devices[index];
}

/* Nothing is bound, chosen or lost. */
static void check_untouched(struct site *site, unsigned live, unsigned tables, const char *text)
{
	assert_int_equal(oom.live_count, live);
	assert_int_equal(site->party.machine.tables.live, tables);
	assert_int_equal(state_of(disk(site, 0)), DMACORE_DEVICE_UNBOUND);
	assert_null(driver_of(disk(site, 0)));
	assert_int_equal(site->driver.probes, 0);
	assert_string_equal(description(&site->party), text);
	assert_no_reports(&site->party.machine.reports);
}

#define NO_DOMAIN "free (2 devices); attached to no domain"

static void device_bind__changes_nothing_when_an_allocation_fails(void **state)
{
	const uint32_t types[] = { 0, DMACORE_DOMAIN_DMA, DMACORE_DOMAIN_IDENTITY };
	static struct site site;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		unsigned live, tables;

		site_start(&site);
		site.driver.descriptor.domain_type = types[i];
		live = oom.live_count;
		tables = site.party.machine.tables.live;
		oom.failures = 0;
		assert_survives_failures(
			dmacore_device_bind(disk(&site, 0), &site.driver.descriptor),
			check_untouched(&site, live, tables, NO_DOMAIN));
		assert_true(oom.failures > 0);
		assert_int_equal(site.driver.probes, 1);
		assert_needs_no_memory({
			/* The default domain is there for everybody else. */
			assert_ok(dmacore_device_bind(disk(&site, 1), &site.driver.descriptor));
			assert_ok(dmacore_device_unbind(disk(&site, 0)));
			leave(&site.party, 1);
			assert_ok(dmacore_device_bind(disk(&site, 0), &site.driver.descriptor));
			leave(&site.party, 0);
		});
		site_stop(&site);
	}
}

static void device_bind__changes_nothing_when_there_is_no_table(void **state)
{
	static struct site site;
	unsigned live, tables;

	(void)state;
	site_start(&site);
	live = oom.live_count;
	tables = site.party.machine.tables.live;
	site.party.machine.tables.left = 0;
	assert_fails(dmacore_device_bind(disk(&site, 0), &site.driver.descriptor), ENOMEM);
	check_untouched(&site, live, tables, NO_DOMAIN);
	assert_fails(dmacore_group_set_default_type(site.party.group, DMACORE_DOMAIN_DMA), ENOMEM);
	check_untouched(&site, live, tables, NO_DOMAIN);
	/* An identity domain has none. */
	assert_ok(dmacore_group_set_default_type(site.party.group, DMACORE_DOMAIN_IDENTITY));
	site.driver.descriptor.domain_type = DMACORE_DOMAIN_DMA;
	live = oom.live_count;
	assert_fails(dmacore_device_bind(disk(&site, 0), &site.driver.descriptor), ENOMEM);
	check_untouched(&site, live, tables, "free (2 devices); in an identity domain");
	site.party.machine.tables.left = -1;
	assert_ok(dmacore_device_bind(disk(&site, 0), &site.driver.descriptor));
	site_stop(&site);
}

static void device_bind__needs_no_memory_of_its_own(void **state)
{
	static struct site site;
	struct dmacore_iommu *iommu;
	struct dmacore_device_options options;
	struct dmacore_device *late, *plain;

	(void)state;
	site_start(&site);
	options = device_options(&site.party.machine);
	options.iommu = NULL;
	assert_ok(dmacore_device_create(site.party.machine.system, &options, &plain));
	assert_ok(dmacore_iommu_announce(site.party.machine.system, &iommu));
	options.iommu = iommu;
	assert_ok(dmacore_device_create(site.party.machine.system, &options, &late));
	assert_ok(dmacore_domain_attach(site.party.domains[FALLBACK], disk(&site, 0)));
	assert_needs_no_memory({
		/* With a default domain, without an IOMMU, and deferred. */
		assert_ok(dmacore_device_bind(disk(&site, 0), &site.driver.descriptor));
		assert_ok(dmacore_device_bind(plain, &site.driver.descriptor));
		assert_fails(dmacore_device_bind(late, &site.driver.descriptor), EAGAIN);
		assert_ok(dmacore_device_unbind(late));
		assert_fails(dmacore_device_bind(late, &site.driver.descriptor), EAGAIN);
		dmacore_device_destroy(late);
		dmacore_device_destroy(plain);
		assert_ok(dmacore_device_unbind(disk(&site, 0)));
		dmacore_iommu_destroy(iommu);
	});
	site_stop(&site);
}

static void leave_mapping(struct test_driver *driver, struct dmacore_device *device)
{
	dmacore_dma_t dma;

	assert_ok(dmacore_map_single(device, driver->party->machine.low, PAGE, DMACORE_TO_DEVICE, 0,
				     &dma));
}

static void device_unbind__needs_no_memory_to_end_what_was_left(void **state)
{
	static struct site site;

	(void)state;
	site_start(&site);
	site.driver.in_probe = leave_mapping;
	assert_ok(dmacore_device_bind(disk(&site, 0), &site.driver.descriptor));
	assert_needs_no_memory(assert_ok(dmacore_device_unbind(disk(&site, 0))));
	assert_reported(&site.party.machine, DMACORE_REPORT_WARNING);
	assert_ok(dmacore_device_bind(disk(&site, 0), &site.driver.descriptor));
	assert_needs_no_memory(leave(&site.party, 0));
	assert_reported(&site.party.machine, DMACORE_REPORT_WARNING);
	site_stop(&site);
}

static void iommu_announce__unwinds_every_failed_allocation(void **state)
{
	static struct site site;
	struct dmacore_iommu *iommu;

	(void)state;
	site_start(&site);
	assert_creates_after_failures(dmacore_iommu_announce(site.party.machine.system, &iommu),
				      iommu);
	assert_needs_no_memory(dmacore_iommu_destroy(iommu));
	site_stop(&site);
}

/* Without memory to start, what waits goes on waiting; without any for its domain it has failed. */
static void iommu_start__starts_nothing_when_an_allocation_fails(void **state)
{
	static struct site site;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_device_options options;
	struct dmacore_device *late;
	bool was_bound = false;

	(void)state;
	domain_options.type = DMACORE_DOMAIN_IDENTITY;
	for (long permitted = 0; !was_bound; permitted++) {
		struct dmacore_domain *domain;
		struct dmacore_iommu *iommu;
		unsigned live;
		int error;

		assert_true(permitted < 100);
		site_start(&site);
		assert_ok(dmacore_iommu_announce(site.party.machine.system, &iommu));
		options = device_options(&site.party.machine);
		options.iommu = iommu;
		assert_ok(dmacore_device_create(site.party.machine.system, &options, &late));
		assert_fails(dmacore_device_bind(late, &site.driver.descriptor), EAGAIN);
		live = oom.live_count;
		oom.left = permitted;
		error = dmacore_iommu_start(iommu, NULL);
		oom.left = -1;
		if (error) {
			assert_int_equal(error, -ENOMEM);
			assert_int_equal(oom.live_count, live);
			assert_int_equal(state_of(late), DMACORE_DEVICE_DEFERRED);
			assert_fails(dmacore_domain_create(iommu, &domain_options, &domain),
				     EAGAIN);
			assert_ok(dmacore_iommu_start(iommu, NULL));
			assert_int_equal(state_of(late), DMACORE_DEVICE_BOUND);
		} else if (state_of(late) == DMACORE_DEVICE_UNBOUND) {
			const struct report_record *report =
				reports_take(&site.party.machine.reports);

			assert_int_equal(report->error, ENOMEM);
			assert_int_equal(oom.live_count, live + 1);
			assert_int_equal(site.driver.probes, 0);
			assert_ok(dmacore_device_bind(late, &site.driver.descriptor));
		} else {
			was_bound = true;
			assert_true(permitted > 3);
		}
		dmacore_device_destroy(late);
		dmacore_iommu_destroy(iommu);
		site_stop(&site);
	}
}

static void group_set_default_type__changes_nothing_when_an_allocation_fails(void **state)
{
	static struct site site;
	unsigned live, tables;

	(void)state;
	site_start(&site);
	live = oom.live_count;
	tables = site.party.machine.tables.live;
	assert_survives_failures(
		dmacore_group_set_default_type(site.party.group, DMACORE_DOMAIN_IDENTITY),
		check_untouched(&site, live, tables, NO_DOMAIN));
	live = oom.live_count;
	assert_survives_failures(
		dmacore_group_set_default_type(site.party.group, DMACORE_DOMAIN_DMA),
		check_untouched(&site, live, tables, "free (2 devices); in an identity domain"));
	assert_true(site.party.machine.tables.live > tables);
	/* It is of that type: nothing is to be made. */
	assert_needs_no_memory(
		assert_ok(dmacore_group_set_default_type(site.party.group, DMACORE_DOMAIN_DMA)));
	/* The old one goes. */
	assert_ok(dmacore_group_set_default_type(site.party.group, DMACORE_DOMAIN_IDENTITY));
	assert_int_equal(site.party.machine.tables.live, tables);
	site_stop(&site);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_bind__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(device_bind__changes_nothing_when_there_is_no_table),
		cmocka_unit_test(device_bind__needs_no_memory_of_its_own),
		cmocka_unit_test(device_unbind__needs_no_memory_to_end_what_was_left),
		cmocka_unit_test(iommu_announce__unwinds_every_failed_allocation),
		cmocka_unit_test(iommu_start__starts_nothing_when_an_allocation_fails),
		cmocka_unit_test(group_set_default_type__changes_nothing_when_an_allocation_fails),
	};

	return run_oom_group("oom driver", tests, NULL);
}
