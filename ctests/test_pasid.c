/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/party.h"

/*
 * Two devices that can send PASIDs below 16, one that can send those below 8, and one that can send none,
 * in one group; and a view of PASID 7 of each of the first three.
 */
struct bench {
	struct party party;
	struct dmacore_device *devices[4];
	struct dmacore_view *views[3];
	/* Unmanaged domains in which SPOT leads to the low and the next region. */
	struct dmacore_domain *low;
	struct dmacore_domain *next;
};

static const uint32_t pasid_counts[] = { 16, 16, 8, 0 };

static struct dmacore_domain *make_unmanaged(struct bench *bench, uint64_t phys)
{
	struct dmacore_domain *domain =
		make_domain(&bench->party.machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);

	assert_ok(dmacore_domain_map(domain, SPOT, phys, PAGE,
				     DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE));
	return domain;
}

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct dmacore_device_options options;

	assert_non_null(bench);
	party_start(&bench->party, 0);
	options = device_options(&bench->party.machine);
	options.group = bench->party.group;
	for (unsigned i = 0; i < 4; i++) {
		options.pasid_count = pasid_counts[i];
		assert_ok(dmacore_device_create(bench->party.machine.system, &options,
						&bench->devices[i]));
		if (i < 3)
			assert_ok(
				dmacore_view_create_pasid(bench->devices[i], 7, &bench->views[i]));
	}
	bench->low = make_unmanaged(bench, LOW_BASE);
	bench->next = make_unmanaged(bench, NEXT_BASE);
	*state = bench;
	return 0;
}

static void leave_all(struct bench *bench)
{
	for (unsigned i = 0; i < 4; i++) {
		if (i < 3) {
			dmacore_view_destroy(bench->views[i]);
			bench->views[i] = NULL;
		}
		dmacore_device_destroy(bench->devices[i]);
		bench->devices[i] = NULL;
	}
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	leave_all(bench);
	dmacore_domain_destroy(bench->low);
	dmacore_domain_destroy(bench->next);
	party_stop(&bench->party);
	free(bench);
	return 0;
}

/* Where SPOT leads with PASID 7: for each device alike. */
static uint64_t target(struct bench *bench)
{
	uint64_t phys = 0;

	for (unsigned i = 0; i < 3; i++) {
		struct dmacore_translation found;
		int error;

		if (!bench->views[i])
			continue;
		error = dmacore_view_translate(bench->views[i], SPOT, 0, &found);
		if (error)
			assert_fails(error, EPERM);
		assert_true(i == 0 || phys == (error ? 0 : found.target));
		phys = error ? 0 : found.target;
	}
	return phys;
}

static void claim(struct bench *bench)
{
	assert_ok(dmacore_device_claim_dma_owner(bench->devices[0], &bench->party.a));
}

static void release(struct bench *bench)
{
	assert_ok(dmacore_device_release_dma_owner(bench->devices[0], &bench->party.a));
}

static int attach(struct bench *bench, unsigned index, uint32_t pasid,
		  struct dmacore_domain *domain)
{
	return dmacore_device_attach_pasid(bench->devices[index], pasid, domain, &bench->party.a);
}

static int replace(struct bench *bench, unsigned index, uint32_t pasid,
		   struct dmacore_domain *domain)
{
	return dmacore_device_replace_pasid(bench->devices[index], pasid, domain, &bench->party.a);
}

static int detach(struct bench *bench, uint32_t pasid)
{
	return dmacore_device_detach_pasid(bench->devices[0], pasid, &bench->party.a);
}

static void pasid_calls__reject_null(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->devices[0];
	struct dmacore_dma_owner *owner = &bench->party.a;
	struct dmacore_view *view;

	claim(bench);
	assert_fails(dmacore_device_attach_pasid(NULL, 7, bench->low, owner), EINVAL);
	assert_fails(dmacore_device_attach_pasid(device, 7, NULL, owner), EINVAL);
	assert_fails(dmacore_device_attach_pasid(device, 7, bench->low, NULL), EINVAL);
	assert_fails(dmacore_device_replace_pasid(NULL, 7, bench->low, owner), EINVAL);
	assert_fails(dmacore_device_replace_pasid(device, 7, NULL, owner), EINVAL);
	assert_fails(dmacore_device_replace_pasid(device, 7, bench->low, NULL), EINVAL);
	assert_fails(dmacore_device_detach_pasid(NULL, 7, owner), EINVAL);
	assert_fails(dmacore_device_detach_pasid(device, 7, NULL), EINVAL);
	assert_creates_nothing(dmacore_view_create_pasid(NULL, 7, &view), EINVAL, view);
	assert_fails(dmacore_view_create_pasid(device, 7, NULL), EINVAL);
	release(bench);
}

static void device_create__rejects_pasids_of_more_than_20_bits(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device_options options = device_options(&bench->party.machine);
	struct dmacore_view *view;
	struct dmacore_device *device;

	options.pasid_count = (1 << 20) + 1;
	assert_creates_nothing(
		dmacore_device_create(bench->party.machine.system, &options, &device), EINVAL,
		device);
	options.pasid_count = 1 << 20;
	assert_ok(dmacore_device_create(bench->party.machine.system, &options, &device));
	assert_ok(dmacore_view_create_pasid(device, (1 << 20) - 1, &view));
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

static void view_create_pasid__needs_a_pasid_that_the_device_can_send(void **state)
{
	struct bench *bench = *state;
	struct dmacore_view *view;

	assert_creates_nothing(dmacore_view_create_pasid(bench->devices[0], 0, &view), EINVAL,
			       view);
	assert_creates_nothing(dmacore_view_create_pasid(bench->devices[0], 16, &view), EINVAL,
			       view);
	assert_creates_nothing(dmacore_view_create_pasid(bench->devices[2], 8, &view), EINVAL,
			       view);
	assert_creates_nothing(dmacore_view_create_pasid(bench->devices[3], 1, &view), EINVAL,
			       view);
	assert_creates_nothing(dmacore_view_create_pasid(bench->devices[0], UINT32_MAX, &view),
			       EINVAL, view);
}

static void pasid__leads_where_its_domain_says(void **state)
{
	struct bench *bench = *state;
	struct dmacore_view *other, *plain;
	struct dmacore_translation found;
	uint8_t byte = 0;

	claim(bench);
	assert_int_equal(target(bench), 0);
	assert_ok(attach(bench, 0, 7, bench->low));
	assert_int_equal(target(bench), LOW_BASE);
	bench->party.machine.low[0] = 42;
	assert_ok(dmacore_view_read(bench->views[1], SPOT, &byte, 1));
	assert_int_equal(byte, 42);
	/* Not another PASID, and not requests without one. */
	assert_ok(dmacore_view_create_pasid(bench->devices[0], 6, &other));
	assert_fails(dmacore_view_translate(other, SPOT, 0, &found), EPERM);
	assert_ok(dmacore_view_create(bench->devices[0], &plain));
	assert_fails(dmacore_view_translate(plain, SPOT, 0, &found), EPERM);
	/* They have their own domains. */
	assert_ok(dmacore_device_attach(bench->devices[0], bench->next, &bench->party.a));
	assert_ok(attach(bench, 2, 6, bench->next));
	assert_ok(dmacore_view_translate(other, SPOT, 0, &found));
	assert_int_equal(found.target, NEXT_BASE);
	assert_ok(dmacore_view_translate(plain, SPOT, 0, &found));
	assert_int_equal(found.target, NEXT_BASE);
	assert_int_equal(target(bench), LOW_BASE);
	assert_string_equal(
		description(&bench->party),
		"owned by anne (a driver), 1 claim since "
		"dmacore_device_claim_dma_owner(disk0); in an unmanaged domain, 2 PASIDs "
		"in others");
	assert_ok(detach(bench, 7));
	assert_int_equal(target(bench), 0);
	assert_ok(detach(bench, 7));
	assert_ok(dmacore_view_translate(other, SPOT, 0, &found));
	dmacore_view_destroy(plain);
	dmacore_view_destroy(other);
	release(bench);
}

static void pasid__is_replaced_only_if_it_has_a_domain_and_attached_only_if_not(void **state)
{
	struct bench *bench = *state;

	claim(bench);
	assert_fails(replace(bench, 0, 7, bench->low), ENOENT);
	assert_ok(attach(bench, 0, 7, bench->low));
	assert_fails(attach(bench, 1, 7, bench->next), EBUSY);
	assert_int_equal(target(bench), LOW_BASE);
	assert_ok(replace(bench, 1, 7, bench->next));
	assert_int_equal(target(bench), NEXT_BASE);
	assert_ok(replace(bench, 1, 7, bench->next));
	assert_int_equal(target(bench), NEXT_BASE);
	release(bench);
}

static void pasid__is_its_owners_alone(void **state)
{
	struct bench *bench = *state;
	struct dmacore_device *device = bench->devices[0];

	assert_fails(attach(bench, 0, 7, bench->low), EPERM);
	claim(bench);
	assert_fails(dmacore_device_attach_pasid(device, 7, bench->low, &bench->party.b), EPERM);
	assert_int_equal(target(bench), 0);
	assert_ok(attach(bench, 0, 7, bench->low));
	assert_fails(dmacore_device_replace_pasid(device, 7, bench->next, &bench->party.b), EPERM);
	assert_fails(dmacore_device_detach_pasid(device, 7, &bench->party.b), EPERM);
	assert_int_equal(target(bench), LOW_BASE);
	release(bench);
	/* The last release takes the domain away. */
	assert_int_equal(target(bench), 0);
	assert_fails(detach(bench, 7), EPERM);
	/* Also from a driver of the DMA API no PASID is to be had. */
	assert_ok(dmacore_domain_attach(bench->party.domains[FALLBACK], device));
	assert_ok(dmacore_device_use_default_domain(device));
	assert_fails(attach(bench, 0, 7, bench->low), EPERM);
	assert_ok(dmacore_device_unuse_default_domain(device));
}

static void attach_pasid__refuses_pasids_that_a_device_cannot_send(void **state)
{
	struct bench *bench = *state;

	claim(bench);
	assert_fails(attach(bench, 0, 0, bench->low), EINVAL);
	assert_fails(attach(bench, 0, 16, bench->low), EINVAL);
	/* Device 2 cannot. */
	assert_fails(attach(bench, 0, 8, bench->low), EINVAL);
	assert_fails(attach(bench, 3, 7, bench->low), EINVAL);
	dmacore_view_destroy(bench->views[2]);
	bench->views[2] = NULL;
	dmacore_device_destroy(bench->devices[2]);
	bench->devices[2] = NULL;
	assert_ok(attach(bench, 0, 8, bench->low));
	release(bench);
}

static void attach_pasid__takes_domains_of_a_callers_own(void **state)
{
	struct bench *bench = *state;
	struct dmacore_domain *identity =
		make_domain(&bench->party.machine, DMACORE_DOMAIN_IDENTITY, 0, 0);
	struct dmacore_domain *blocked =
		make_domain(&bench->party.machine, DMACORE_DOMAIN_BLOCKED, 0, 0);
	struct dmacore_iommu *iommu;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *foreign;

	claim(bench);
	assert_fails(attach(bench, 0, 7, identity), EPERM);
	assert_fails(attach(bench, 0, 7, bench->party.domains[OTHER]), EPERM);
	assert_ok(dmacore_iommu_create(bench->party.machine.system, NULL, &iommu));
	options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_domain_create(iommu, &options, &foreign));
	assert_fails(attach(bench, 0, 7, foreign), EINVAL);
	assert_ok(attach(bench, 0, 7, blocked));
	assert_int_equal(target(bench), 0);
	assert_fails(attach(bench, 0, 7, bench->low), EBUSY);
	release(bench);
	dmacore_domain_destroy(foreign);
	dmacore_iommu_destroy(iommu);
	dmacore_domain_destroy(blocked);
	dmacore_domain_destroy(identity);
}

static void pasid__keeps_its_domain_until_it_is_detached(void **state)
{
	struct bench *bench = *state;
	unsigned live;

	claim(bench);
	assert_ok(attach(bench, 0, 7, bench->low));
	assert_ok(attach(bench, 0, 6, bench->low));
	live = bench->party.machine.tables.live;
	dmacore_domain_destroy(bench->low);
	bench->low = NULL;
	reports_forget(&bench->party.machine.reports);
	assert_int_equal(target(bench), LOW_BASE);
	assert_ok(replace(bench, 0, 7, bench->next));
	assert_int_equal(bench->party.machine.tables.live, live);
	assert_ok(detach(bench, 6));
	assert_true(bench->party.machine.tables.live < live);
	release(bench);
}

static void device_destroy__takes_the_pasids_with_the_last_device(void **state)
{
	struct bench *bench = *state;
	struct dmacore_view *view = bench->views[0];
	struct dmacore_translation found;

	claim(bench);
	assert_ok(attach(bench, 0, 7, bench->low));
	bench->views[0] = NULL;
	dmacore_device_destroy(bench->devices[0]);
	bench->devices[0] = NULL;
	reports_forget(&bench->party.machine.reports);
	/* The view of the device that has gone reaches nothing; the others' views do. */
	assert_fails(dmacore_view_translate(view, SPOT, 0, &found), EPERM);
	assert_ok(dmacore_view_translate(bench->views[1], SPOT, 0, &found));
	leave_all(bench);
	assert_string_equal(description(&bench->party), "free (0 devices); attached to no domain");
	dmacore_view_destroy(view);
}

static void fault__names_the_pasid_and_the_time(void **state)
{
	struct bench *bench = *state;
	struct dmacore_fault fault;
	uint8_t byte;
	size_t count;

	assert_ok(dmacore_system_tick(bench->party.machine.system, 1234));
	assert_fails(dmacore_view_read(bench->views[1], SPOT, &byte, 1), EPERM);
	assert_ok(dmacore_fault_take(bench->devices[1], &fault, 1, &count, NULL));
	assert_int_equal(count, 1);
	assert_int_equal(fault.pasid, 7);
	assert_int_equal(fault.time, 1234);
	assert_int_equal(fault.reason, DMACORE_FAULT_BLOCKED);
	assert_int_equal(fault.stage, 0);
	bench->party.machine.faults.count = 0;
}

static void zero_copy__of_a_pasid_holds_its_domain(void **state)
{
	struct bench *bench = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	claim(bench);
	assert_ok(attach(bench, 0, 7, bench->low));
	assert_ok(dmacore_view_map(bench->views[0], SPOT, PAGE, DMACORE_ACCESS_WRITE, &mapping,
				   &segments, &count));
	assert_int_equal(count, 1);
	assert_ptr_equal(segments[0].host, bench->party.machine.low);
	assert_ok(dmacore_domain_unmap(bench->low, SPOT, PAGE, 0, NULL));
	assert_reported(&bench->party.machine, DMACORE_REPORT_WARNING);
	dmacore_view_unmap(mapping);
	release(bench);
}

#define test(function)                                     \
	{                                                  \
#function, function, setup, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(pasid_calls__reject_null),
		test(device_create__rejects_pasids_of_more_than_20_bits),
		test(view_create_pasid__needs_a_pasid_that_the_device_can_send),
		test(pasid__leads_where_its_domain_says),
		test(pasid__is_replaced_only_if_it_has_a_domain_and_attached_only_if_not),
		test(pasid__is_its_owners_alone),
		test(attach_pasid__refuses_pasids_that_a_device_cannot_send),
		test(attach_pasid__takes_domains_of_a_callers_own),
		test(pasid__keeps_its_domain_until_it_is_detached),
		test(device_destroy__takes_the_pasids_with_the_last_device),
		test(fault__names_the_pasid_and_the_time),
		test(zero_copy__of_a_pasid_holds_its_domain),
	};

	return run_group("pasid", tests);
}
