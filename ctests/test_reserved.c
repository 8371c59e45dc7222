/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/drivers.h"

/* Where the party's DMA domains give out addresses: 16 pages, of which these are parts. */
#define LOW_FIRST PARTY_FIRST
#define HIGH_LAST PARTY_LAST

static struct dmacore_reserved_region region(uint64_t first, uint64_t pages, uint32_t type)
{
	struct dmacore_reserved_region region = { first, first + pages * PAGE - 1, type, 0 };

	return region;
}

/* Puts a device with these regions into the group of a party. */
static int make_reserved(struct party *party, struct dmacore_group *group,
			 const struct dmacore_reserved_region *regions, size_t count,
			 struct dmacore_device **out_device)
{
	struct dmacore_device_options options = device_options(&party->machine);

	options.name = "odd";
	options.group = group;
	options.reserved_regions = regions;
	options.reserved_region_count = count;
	return dmacore_device_create(party->machine.system, &options, out_device);
}

static struct dmacore_domain *make_for(struct party *party, uint32_t type)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	options.type = type;
	options.group = party->group;
	if (type == DMACORE_DOMAIN_DMA) {
		options.first = PARTY_FIRST;
		options.last = PARTY_LAST;
	}
	assert_ok(dmacore_domain_create(party->machine.iommu, &options, &domain));
	return domain;
}

static int setup(void **state)
{
	struct party *party = malloc(sizeof(*party));

	assert_non_null(party);
	party_start(party, 0);
	*state = party;
	return 0;
}

static int teardown(void **state)
{
	party_stop(*state);
	free(*state);
	return 0;
}

static void assert_regions(const struct dmacore_reserved_region *found,
			   const struct dmacore_reserved_region *expected, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(found[i].first, expected[i].first);
		assert_int_equal(found[i].last, expected[i].last);
		assert_int_equal(found[i].type, expected[i].type);
		assert_int_equal(found[i].reserved, 0);
	}
}

static void device_create__rejects_bad_reserved_regions(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region good = region(LOW_FIRST, 1, DMACORE_RESERVED_MSI),
				       bad = good;
	struct dmacore_reserved_region many[DMACORE_RESERVED_REGIONS_MAX + 1];
	struct dmacore_device *device;

	for (size_t i = 0; i <= DMACORE_RESERVED_REGIONS_MAX; i++)
		many[i] = region(LOW_FIRST + 2 * i * PAGE, 1, DMACORE_RESERVED_NEVER);
	assert_creates_nothing(
		make_reserved(party, party->group, many, DMACORE_RESERVED_REGIONS_MAX + 1, &device),
		EINVAL, device);
	assert_creates_nothing(make_reserved(party, party->group, many, SIZE_MAX, &device), EINVAL,
			       device);
	assert_creates_nothing(make_reserved(party, party->group, NULL, 1, &device), EINVAL,
			       device);
	bad.first++;
	assert_creates_nothing(make_reserved(party, party->group, &bad, 1, &device), EINVAL,
			       device);
	bad = good;
	bad.last--;
	assert_creates_nothing(make_reserved(party, party->group, &bad, 1, &device), EINVAL,
			       device);
	bad = good;
	bad.first = bad.last + 1;
	assert_creates_nothing(make_reserved(party, party->group, &bad, 1, &device), EINVAL,
			       device);
	bad = good;
	bad.reserved = 1;
	assert_creates_nothing(make_reserved(party, party->group, &bad, 1, &device), EINVAL,
			       device);
	bad = good;
	for (unsigned i = 0; i < 2; i++) {
		bad.type = i ? DMACORE_RESERVED_SW_MSI + 1 : 0;
		assert_creates_nothing(make_reserved(party, party->group, &bad, 1, &device), EINVAL,
				       device);
	}
	assert_ok(make_reserved(party, party->group, many, DMACORE_RESERVED_REGIONS_MAX, &device));
	dmacore_device_destroy(device);
}

static void reserved_regions__of_one_type_that_belong_together_are_one(void **state)
{
	struct party *party = *state;
	/* Out of order; overlapping, adjoining, contained, up to both ends of the addresses. */
	const struct dmacore_reserved_region given[] = {
		region(0x9000, 2, DMACORE_RESERVED_MSI),
		region(0x5000, 1, DMACORE_RESERVED_NEVER),
		{ 0xfffffffffffff000, UINT64_MAX, DMACORE_RESERVED_NEVER, 0 },
		region(0x3000, 2, DMACORE_RESERVED_NEVER),
		region(0x4000, 3, DMACORE_RESERVED_MSI),
		{ 0, UINT64_MAX, DMACORE_RESERVED_SW_MSI, 0 },
		region(0x4000, 1, DMACORE_RESERVED_NEVER),
	};
	const struct dmacore_reserved_region merged[] = {
		{ 0, UINT64_MAX, DMACORE_RESERVED_SW_MSI, 0 },
		region(0x3000, 3, DMACORE_RESERVED_NEVER),
		region(0x4000, 3, DMACORE_RESERVED_MSI),
		region(0x9000, 2, DMACORE_RESERVED_MSI),
		{ 0xfffffffffffff000, UINT64_MAX, DMACORE_RESERVED_NEVER, 0 },
	};
	struct dmacore_reserved_region found[8];
	struct dmacore_device *device;
	size_t count;

	assert_ok(make_reserved(party, party->group, given, 7, &device));
	assert_ok(dmacore_device_reserved_regions(device, found, 8, &count));
	assert_int_equal(count, 5);
	assert_regions(found, merged, 5);
	/* What does not fit is counted. */
	memset(found, 0x5a, sizeof(found));
	assert_ok(dmacore_device_reserved_regions(device, found, 2, &count));
	assert_int_equal(count, 5);
	assert_regions(found, merged, 2);
	assert_int_equal(found[2].type, 0x5a5a5a5a);
	assert_ok(dmacore_device_reserved_regions(device, NULL, 0, &count));
	assert_int_equal(count, 5);
	assert_fails(dmacore_device_reserved_regions(NULL, found, 8, &count), EINVAL);
	assert_fails(dmacore_device_reserved_regions(device, NULL, 1, &count), EINVAL);
	assert_fails(dmacore_device_reserved_regions(device, found, 8, NULL), EINVAL);
	dmacore_device_destroy(device);
}

static void group_reserved_regions__are_those_of_all_devices(void **state)
{
	struct party *party = *state;
	const struct dmacore_reserved_region one[] = { region(0x5000, 2, DMACORE_RESERVED_NEVER),
						       region(0xa000, 1, DMACORE_RESERVED_MSI) };
	const struct dmacore_reserved_region two[] = { region(0x3000, 2, DMACORE_RESERVED_NEVER),
						       region(0xa000, 1, DMACORE_RESERVED_NEVER) };
	const struct dmacore_reserved_region merged[] = {
		region(0x3000, 4, DMACORE_RESERVED_NEVER),
		region(0xa000, 1, DMACORE_RESERVED_NEVER),
		region(0xa000, 1, DMACORE_RESERVED_MSI),
	};
	struct dmacore_reserved_region found[4];
	struct dmacore_device *devices[2];
	size_t count;

	assert_ok(dmacore_group_reserved_regions(party->group, found, 4, &count));
	assert_int_equal(count, 0);
	assert_ok(make_reserved(party, party->group, one, 2, &devices[0]));
	assert_ok(make_reserved(party, party->group, two, 2, &devices[1]));
	assert_ok(dmacore_group_reserved_regions(party->group, found, 4, &count));
	assert_int_equal(count, 3);
	assert_regions(found, merged, 3);
	assert_fails(dmacore_group_reserved_regions(NULL, found, 4, &count), EINVAL);
	assert_fails(dmacore_group_reserved_regions(party->group, NULL, 4, &count), EINVAL);
	assert_fails(dmacore_group_reserved_regions(party->group, found, 4, NULL), EINVAL);
	dmacore_device_destroy(devices[1]);
	assert_ok(dmacore_group_reserved_regions(party->group, found, 4, &count));
	assert_int_equal(count, 2);
	assert_regions(found, one, 2);
	dmacore_device_destroy(devices[0]);
}

/* A page of each type in the addresses of a DMA domain, the direct ones where the machine has memory. */
static size_t one_of_each(struct dmacore_reserved_region *regions, bool with_direct)
{
	size_t count = 0;

	regions[count++] = region(PARTY_FIRST, 1, DMACORE_RESERVED_MSI);
	regions[count++] = region(PARTY_FIRST, 2, DMACORE_RESERVED_NEVER);
	regions[count++] = region(PARTY_FIRST + 4 * PAGE, 2, DMACORE_RESERVED_SW_MSI);
	regions[count++] = region(PARTY_LAST + 1 - PAGE, 4, DMACORE_RESERVED_NEVER);
	regions[count++] = region(PARTY_FIRST + 7 * PAGE, 2, DMACORE_RESERVED_RELAXABLE);
	regions[count++] = region(LOW_BASE, 2, DMACORE_RESERVED_RELAXABLE);
	if (with_direct)
		regions[count++] = region(LOW_BASE + PAGE, 3, DMACORE_RESERVED_DIRECT);
	return count;
}

static void dma_domain__gives_out_no_reserved_address(void **state)
{
	static const bool is_free[16] = {
		[2] = true,  [3] = true,  [6] = true,  [9] = true, [10] = true,
		[11] = true, [12] = true, [13] = true, [14] = true
	};
	struct party *party = *state;
	struct dmacore_reserved_region regions[8];
	size_t count = one_of_each(regions, true);
	struct dmacore_translation found;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	dmacore_dma_t dma[16];
	unsigned mapped = 0;

	assert_ok(make_reserved(party, party->group, regions, count, &device));
	domain = make_for(party, DMACORE_DOMAIN_DMA);
	assert_ok(dmacore_domain_attach(domain, device));
	while (!dmacore_map_single(device, party->machine.low, PAGE, DMACORE_TO_DEVICE, 0,
				   &dma[mapped]))
		mapped++;
	assert_int_equal(mapped, 9);
	for (unsigned i = 0; i < mapped; i++) {
		assert_true(is_free[(dma[i] - PARTY_FIRST) / PAGE]);
		assert_ok(dmacore_unmap(device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	}
	/* Both kinds that are to be mapped 1:1 are, in one run, and nothing else is. */
	assert_ok(dmacore_domain_translate(domain, LOW_BASE + 2 * PAGE, DMACORE_ACCESS_WRITE,
					   &found));
	assert_int_equal(found.target + (LOW_BASE - found.first), LOW_BASE);
	assert_ok(dmacore_domain_translate(domain, PARTY_FIRST + 7 * PAGE, DMACORE_ACCESS_READ,
					   &found));
	assert_int_equal(found.target - found.first, 0);
	assert_int_equal(domain_statistics(domain).mapped_bytes, 6 * PAGE);
	assert_fails(dmacore_domain_translate(domain, LOW_BASE + 4 * PAGE, 0, &found), ENOENT);
	assert_fails(dmacore_domain_translate(domain, PARTY_FIRST, 0, &found), ENOENT);
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
}

static void unmanaged_domain__maps_no_reserved_address(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region regions[8];
	size_t count = one_of_each(regions, false);
	struct dmacore_domain *domain;
	struct dmacore_device *device;

	assert_ok(make_reserved(party, party->group, regions, count, &device));
	domain = make_for(party, DMACORE_DOMAIN_UNMANAGED);
	assert_ok(dmacore_device_claim_dma_owner(device, &party->a));
	assert_ok(dmacore_device_attach(device, domain, &party->a));
	for (unsigned page = 0; page < 6; page++) {
		int error = dmacore_domain_map(domain, PARTY_FIRST + page * PAGE, LOW_BASE, PAGE,
					       DMACORE_ACCESS_READ);

		assert_result(error, page == 2 || page == 3 ? 0 : -EPERM);
	}
	assert_fails(dmacore_domain_map(domain, 0, 0, UINT64_C(1) << 40, DMACORE_ACCESS_READ),
		     EPERM);
	/* A relaxable region is nothing to an owner. */
	assert_ok(dmacore_domain_map(domain, LOW_BASE, HIGH_BASE, PAGE, DMACORE_ACCESS_READ));
	assert_int_equal(domain_statistics(domain).mapped_bytes, 3 * PAGE);
	assert_ok(dmacore_device_release_dma_owner(device, &party->a));
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
}

static void domain__that_was_made_for_no_group_is_refused_to_reserved_regions(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region regions[8];
	size_t count = one_of_each(regions, false);
	struct dmacore_device *device;

	assert_ok(make_reserved(party, party->group, regions, count, &device));
	assert_fails(dmacore_domain_attach(party->domains[FALLBACK], device), EPERM);
	assert_fails(dmacore_domain_replace(party->domains[FALLBACK], device), EPERM);
	assert_ok(dmacore_device_claim_dma_owner(device, &party->a));
	assert_fails(dmacore_device_attach(device, party->domains[OWN], &party->a), EPERM);
	assert_fails(dmacore_device_attach(device, party->domains[OTHER], &party->a), EPERM);
	assert_ok(dmacore_device_release_dma_owner(device, &party->a));
	assert_string_equal(description(party), "free (1 device); attached to no domain");
	dmacore_device_destroy(device);
}

static void device_create__joins_no_domain_that_does_not_honour_its_regions(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region regions[8], part = region(0, 1, DMACORE_RESERVED_NEVER);
	struct dmacore_reserved_region direct = region(LOW_BASE, 1, DMACORE_RESERVED_DIRECT);
	size_t count = one_of_each(regions, false);
	struct dmacore_device *device, *other;
	struct dmacore_domain *domain;

	assert_ok(make_reserved(party, party->group, regions, count, &device));
	domain = make_for(party, DMACORE_DOMAIN_DMA);
	assert_ok(dmacore_domain_attach(domain, device));
	/* A part of what the domain honours, but of the same type. */
	part.first = regions[1].first + PAGE;
	part.last = part.first + PAGE - 1;
	assert_ok(make_reserved(party, party->group, &part, 1, &other));
	dmacore_device_destroy(other);
	part.type = DMACORE_RESERVED_MSI;
	assert_creates_nothing(make_reserved(party, party->group, &part, 1, &other), EPERM, other);
	/* Also if it is the default domain, and the group is in another. */
	assert_ok(dmacore_device_claim_dma_owner(device, &party->a));
	assert_creates_nothing(make_reserved(party, party->group, &part, 1, &other), EPERM, other);
	assert_creates_nothing(make_reserved(party, party->group, &direct, 1, &other), EPERM,
			       other);
	assert_ok(dmacore_device_release_dma_owner(device, &party->a));
	assert_int_equal(domain_statistics(domain).device_count, 1);
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
}

static void device_create__joins_no_pasid_whose_domain_does_not_honour_its_regions(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region never = region(PARTY_FIRST, 1, DMACORE_RESERVED_NEVER);
	struct dmacore_device *odd;

	assert_ok(join(party));
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_ok(dmacore_device_attach_pasid(party->devices[0], PARTY_PASID, party->domains[OWN],
					      &party->a));
	assert_creates_nothing(make_reserved(party, party->group, &never, 1, &odd), EPERM, odd);
	/* An owner's domain need not honour a relaxable one. */
	never.type = DMACORE_RESERVED_RELAXABLE;
	assert_ok(make_reserved(party, party->group, &never, 1, &odd));
	dmacore_device_destroy(odd);
	never.type = DMACORE_RESERVED_NEVER;
	assert_ok(dmacore_device_detach_pasid(party->devices[0], PARTY_PASID, &party->a));
	assert_ok(make_reserved(party, party->group, &never, 1, &odd));
	/* From then on the PASID gets no such domain. */
	assert_fails(dmacore_device_attach_pasid(party->devices[0], PARTY_PASID,
						 party->domains[OWN], &party->a),
		     EPERM);
	dmacore_device_destroy(odd);
	assert_ok(dmacore_device_release_dma_owner(party->devices[0], &party->a));
}

static void direct_region__keeps_the_group_where_it_is_mapped(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region direct = region(LOW_BASE, 1, DMACORE_RESERVED_DIRECT);
	struct dmacore_domain *blocked, *identity, *unmanaged, *domain;
	struct dmacore_dma_owner user = party->a;
	const struct report_record *report;
	struct dmacore_device *device;
	struct dmacore_view *view;
	uint8_t byte = 1;

	user.kind = DMACORE_OWNER_USER;
	assert_ok(make_reserved(party, party->group, &direct, 1, &device));
	assert_ok(dmacore_view_create(device, &view));
	blocked = make_for(party, DMACORE_DOMAIN_BLOCKED);
	identity = make_for(party, DMACORE_DOMAIN_IDENTITY);
	unmanaged = make_for(party, DMACORE_DOMAIN_UNMANAGED);
	domain = make_for(party, DMACORE_DOMAIN_DMA);
	assert_fails(dmacore_domain_attach(blocked, device), EPERM);
	assert_fails(dmacore_domain_attach(unmanaged, device), EPERM);
	assert_ok(dmacore_domain_attach(identity, device));
	assert_ok(dmacore_domain_replace(domain, device));
	assert_ok(dmacore_view_write(view, LOW_BASE, &byte, 1));
	assert_fails(dmacore_domain_detach(domain, device), EPERM);
	assert_fails(dmacore_domain_replace(blocked, device), EPERM);
	assert_fails(dmacore_device_claim_dma_owner(device, &user), EPERM);
	report = reports_take(&party->machine.reports);
	assert_int_equal(report->level, DMACORE_REPORT_ERROR);
	assert_int_equal(report->error, EPERM);
	assert_string_equal(report->object, "odd");
	assert_string_equal(report->text, "its group cannot be owned: the device must reach "
					  "0x80000000 to 0x80000fff at all times");
	assert_fails(dmacore_group_claim_dma_owner(party->group, &party->b), EPERM);
	assert_reported(&party->machine, DMACORE_REPORT_ERROR);
	assert_ok(dmacore_view_write(view, LOW_BASE, &byte, 1));
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
	dmacore_domain_destroy(unmanaged);
	dmacore_domain_destroy(identity);
	dmacore_domain_destroy(blocked);
}

static void device_bind__chooses_a_domain_that_honours_the_regions(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region direct = region(LOW_BASE, 1, DMACORE_RESERVED_DIRECT);
	struct dmacore_device *device;
	struct test_driver driver;
	struct dmacore_view *view;
	uint8_t byte = 1;

	test_driver_init(&driver, "nvme", 0);
	assert_ok(make_reserved(party, party->group, &direct, 1, &device));
	assert_ok(dmacore_view_create(device, &view));
	assert_ok(dmacore_device_bind(device, &driver.descriptor));
	assert_ok(dmacore_view_write(view, LOW_BASE, &byte, 1));
	assert_ok(dmacore_device_unbind(device));
	assert_ok(dmacore_group_set_default_type(party->group, DMACORE_DOMAIN_IDENTITY));
	assert_ok(dmacore_group_set_default_type(party->group, DMACORE_DOMAIN_DMA));
	assert_ok(dmacore_view_write(view, LOW_BASE, &byte, 1));
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

static void domain_create__refuses_direct_regions_that_tables_cannot_have(void **state)
{
	struct party *party = *state;
	struct dmacore_reserved_region regions[] = {
		region(UINT64_C(1) << 60, 1, DMACORE_RESERVED_NEVER),
		region(UINT64_C(1) << 61, 1, DMACORE_RESERVED_DIRECT),
	};
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_system *system;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_group *group;

	options.group = party->group;
	assert_ok(make_reserved(party, party->group, regions, 2, &device));
	assert_creates_nothing(dmacore_domain_create(party->machine.iommu, &options, &domain),
			       ERANGE, domain);
	dmacore_device_destroy(device);
	assert_ok(make_reserved(party, party->group, regions, 1, &device));
	assert_ok(dmacore_domain_create(party->machine.iommu, &options, &domain));
	assert_ok(dmacore_domain_attach(domain, device));
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
	/* A group of another system. */
	assert_ok(dmacore_system_create(NULL, &system));
	assert_ok(dmacore_group_create(system, &group));
	options.group = group;
	assert_creates_nothing(dmacore_domain_create(party->machine.iommu, &options, &domain),
			       EINVAL, domain);
	dmacore_group_destroy(group);
	dmacore_system_destroy(system);
}

#define test(function)                                     \
	{                                                  \
#function, function, setup, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(device_create__rejects_bad_reserved_regions),
		test(reserved_regions__of_one_type_that_belong_together_are_one),
		test(group_reserved_regions__are_those_of_all_devices),
		test(dma_domain__gives_out_no_reserved_address),
		test(unmanaged_domain__maps_no_reserved_address),
		test(domain__that_was_made_for_no_group_is_refused_to_reserved_regions),
		test(device_create__joins_no_domain_that_does_not_honour_its_regions),
		test(device_create__joins_no_pasid_whose_domain_does_not_honour_its_regions),
		test(direct_region__keeps_the_group_where_it_is_mapped),
		test(device_bind__chooses_a_domain_that_honours_the_regions),
		test(domain_create__refuses_direct_regions_that_tables_cannot_have),
	};

	return run_group("reserved", tests);
}
