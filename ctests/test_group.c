/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/party.h"

static int party_setup(void **state)
{
	struct party *party = malloc(sizeof(*party));

	assert_non_null(party);
	party_start(party, (unsigned)(uintptr_t)*state);
	*state = party;
	return 0;
}

static int party_teardown(void **state)
{
	party_stop(*state);
	free(*state);
	return 0;
}

/* A test on a group of so many devices, free and without a domain; the party is in *state. */
#define test_of(count, function)                                                  \
	{                                                                         \
#function " (" #count ")", function, party_setup, party_teardown, \
			(void *)(uintptr_t)(count)                                \
	}

static void attach_fallback(struct party *party)
{
	assert_ok(dmacore_domain_attach(party->domains[FALLBACK], party->devices[0]));
	assert_int_equal(where(party), FALLBACK);
}

/* A blocked access is a fault of its device, which the machine must not take for an unexpected one. */
static void assert_reads(struct party *party, unsigned index, int expected, uint8_t value)
{
	struct faults *faults = &party->machine.faults;
	unsigned count = faults->count;
	uint8_t byte = 0;

	assert_result(dmacore_view_read(party->views[index], SPOT, &byte, 1), expected);
	if (expected) {
		assert_int_equal(faults->count, count + 1);
		assert_true(faults->device == party->devices[index]);
		assert_int_equal(faults->at[count].reason, DMACORE_FAULT_BLOCKED);
		faults->count = count;
	} else {
		assert_int_equal(byte, value);
	}
}

/* Groups and devices. */

static void group_create__rejects_null(void **state)
{
	struct party *party = *state;
	struct dmacore_group *group;

	assert_creates_nothing(dmacore_group_create(NULL, &group), EINVAL, group);
	assert_fails(dmacore_group_create(party->machine.system, NULL), EINVAL);
}

static void group_create__makes_a_free_group_without_devices(void **state)
{
	struct party *party = *state;

	assert_string_equal(description(party), "free (0 devices); attached to no domain");
}

static void group_create__holds_on_to_the_system(void **state)
{
	struct dmacore_system *system;
	struct dmacore_group *group;

	(void)state;
	assert_ok(dmacore_system_create(NULL, &system));
	assert_ok(dmacore_group_create(system, &group));
	dmacore_system_destroy(system);
	/* A checker of memory sees whether the system is still there. */
	dmacore_group_destroy(group);
}

static void group_destroy__accepts_null(void **state)
{
	(void)state;
	dmacore_group_destroy(NULL);
}

static void group_destroy__leaves_the_group_to_its_devices(void **state)
{
	struct party *party = *state;

	dmacore_group_destroy(party->group);
	party->group = NULL;
	assert_ok(dmacore_domain_attach(party->domains[FALLBACK], party->devices[1]));
	assert_int_equal(where(party), FALLBACK);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_int_equal(where(party), NOWHERE);
}

static void device_group__gives_the_group_of_the_device(void **state)
{
	struct party *party = *state;
	struct dmacore_group *group;

	for (unsigned i = 0; i < 2; i++) {
		assert_ok(dmacore_device_group(party->devices[i], &group));
		assert_ptr_equal(group, party->group);
		dmacore_group_destroy(group);
	}
	/* A device that was given none has one to itself. */
	assert_ok(dmacore_device_group(party->machine.device, &group));
	assert_ptr_not_equal(group, party->group);
	dmacore_group_destroy(group);
}

/* The group that a device was made with is one that others can be put into. */
static void device_group__lets_others_join_a_group_that_was_not_made_by_hand(void **state)
{
	struct party *party = *state;
	struct dmacore_device_options options = device_options(&party->machine);
	struct dmacore_device *device;

	assert_ok(dmacore_device_group(party->machine.device, &options.group));
	assert_ok(dmacore_device_create(party->machine.system, &options, &device));
	dmacore_group_destroy(options.group);
	assert_int_equal(domain_statistics(party->domains[FALLBACK]).device_count, 2);
	dmacore_device_destroy(device);
	assert_int_equal(domain_statistics(party->domains[FALLBACK]).device_count, 1);
}

static void device_group__rejects_null(void **state)
{
	struct party *party = *state;
	struct dmacore_group *group;

	assert_creates_nothing(dmacore_device_group(NULL, &group), EINVAL, group);
	assert_fails(dmacore_device_group(party->devices[0], NULL), EINVAL);
}

static void device_group__outlives_the_devices(void **state)
{
	struct party *party = *state;
	struct dmacore_group *group;
	char text[DMACORE_DESCRIPTION_SIZE];

	assert_ok(dmacore_device_group(party->devices[0], &group));
	dmacore_group_destroy(party->group);
	party->group = NULL;
	leave(party, 0);
	assert_ok(dmacore_group_describe(group, text, sizeof(text)));
	assert_string_equal(text, "free (0 devices); attached to no domain");
	dmacore_group_destroy(group);
}

static void device_create__joins_what_the_group_is_attached_to(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	assert_ok(join(party));
	assert_int_equal(where(party), FALLBACK);
	assert_int_equal(members_in(party, FALLBACK), 2);
	map_live(party, 1);
}

static void device_create__joins_the_owners_domain(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_ok(join(party));
	assert_int_equal(where(party), NOWHERE);
	assert_reads(party, 1, -EPERM, 0);
	assert_ok(dmacore_device_attach(party->devices[0], party->domains[OWN], &party->a));
	assert_ok(join(party));
	assert_int_equal(where(party), OWN);
	assert_int_equal(members_in(party, OWN), 3);
	/* The newcomer can do what the device could that the claim was made through. */
	assert_ok(dmacore_device_release_dma_owner(party->devices[2], &party->a));
	assert_int_equal(where(party), FALLBACK);
}

static void device_create__refuses_a_group_of_another_iommu_or_system(void **state)
{
	struct party *party = *state;
	struct dmacore_device_options options = device_options(&party->machine);
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_device *device;
	struct dmacore_group *group;

	assert_ok(dmacore_iommu_create(party->machine.system, NULL, &iommu));
	options.group = party->group;
	options.iommu = iommu;
	assert_creates_nothing(dmacore_device_create(party->machine.system, &options, &device),
			       EINVAL, device);
	options.iommu = NULL;
	assert_creates_nothing(dmacore_device_create(party->machine.system, &options, &device),
			       EINVAL, device);
	dmacore_iommu_destroy(iommu);

	assert_ok(dmacore_system_create(NULL, &system));
	assert_creates_nothing(dmacore_device_create(system, &options, &device), EINVAL, device);
	/* Also where no device of the group could tell. */
	assert_ok(dmacore_group_create(system, &group));
	options.group = group;
	assert_creates_nothing(dmacore_device_create(party->machine.system, &options, &device),
			       EINVAL, device);
	dmacore_group_destroy(group);
	dmacore_system_destroy(system);
	assert_string_equal(description(party), "free (1 device); attached to no domain");
}

static void device_create__takes_a_group_that_was_left_behind_another_iommu(void **state)
{
	struct party *party = *state;
	struct dmacore_device_options options = device_options(&party->machine);
	struct dmacore_iommu *iommu;
	struct dmacore_device *device;

	leave(party, 0);
	assert_ok(dmacore_iommu_create(party->machine.system, NULL, &iommu));
	options.group = party->group;
	options.iommu = iommu;
	assert_ok(dmacore_device_create(party->machine.system, &options, &device));
	assert_string_equal(description(party), "free (1 device); attached to no domain");
	/* And its devices are now behind that one. */
	assert_fails(dmacore_domain_attach(party->domains[FALLBACK], device), EINVAL);
	dmacore_device_destroy(device);
	dmacore_iommu_destroy(iommu);
}

static void device_destroy__ends_the_uses_of_the_device(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_device_use_default_domain(party->devices[0]));
	assert_ok(dmacore_device_use_default_domain(party->devices[1]));
	leave(party, 0);
	assert_non_null(strstr(description(party), "in use by the DMA API, 1 use since"));
	assert_fails(dmacore_device_claim_dma_owner(party->devices[1], &party->a), EBUSY);
	assert_ok(dmacore_device_unuse_default_domain(party->devices[1]));
	assert_ok(dmacore_device_claim_dma_owner(party->devices[1], &party->a));
}

/* The owner's claims are the group's, not those of the device that they were made through. */
static void device_destroy__leaves_claims_to_the_other_devices(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_ok(dmacore_device_attach(party->devices[0], party->domains[OWN], &party->a));
	leave(party, 0);
	assert_int_equal(where(party), OWN);
	assert_ok(dmacore_device_release_dma_owner(party->devices[1], &party->a));
	assert_int_equal(where(party), OWN);
	assert_ok(dmacore_device_release_dma_owner(party->devices[1], &party->a));
	assert_int_equal(where(party), FALLBACK);
}

/* Any of three: the first, the last or one between. */
static void device_destroy__takes_any_device_out(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	for (unsigned i = 0; i < DEVICES_MAX; i++) {
		struct dmacore_device_options options = device_options(&party->machine);
		struct dmacore_device *others[DEVICES_MAX];

		options.group = party->group;
		for (unsigned k = 0; k < DEVICES_MAX; k++)
			assert_ok(
				dmacore_device_create(party->machine.system, &options, &others[k]));
		dmacore_device_destroy(others[i]);
		assert_int_equal(members_in(party, FALLBACK), DEVICES_MAX);
		for (unsigned k = 0; k < DEVICES_MAX; k++)
			if (k != i)
				dmacore_device_destroy(others[k]);
		assert_int_equal(where(party), FALLBACK);
	}
}

static void device_destroy__of_the_last_device_makes_the_group_free(void **state)
{
	struct party *party = *state;
	uint64_t held = party->machine.tables.live;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_ok(dmacore_device_attach(party->devices[0], party->domains[OWN], &party->a));
	leave(party, 0);
	assert_non_null(strstr(description(party), "owned by anne"));
	leave(party, 1);
	assert_string_equal(description(party), "free (0 devices); attached to no domain");
	assert_int_equal(members_in(party, OWN), 0);

	/* Without a default domain, too: nobody held it but the group. */
	assert_ok(join(party));
	assert_string_equal(description(party), "free (1 device); attached to no domain");
	assert_fails(dmacore_device_use_default_domain(party->devices[2]), ENODEV);
	assert_fails(dmacore_device_release_dma_owner(party->devices[2], &party->a), EPERM);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[2], &party->b));
	assert_int_equal(party->machine.tables.live, held);
}

static void device_destroy__of_the_last_device_lets_go_of_the_default_domain(void **state)
{
	struct party *party = *state;
	unsigned live = party->machine.tables.live;
	struct dmacore_domain *domain = make_domain(&party->machine, DMACORE_DOMAIN_DMA, 0, 0);

	assert_ok(dmacore_domain_attach(domain, party->devices[0]));
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	/* No device is attached to it now, but the group goes back to it one day. */
	assert_int_equal(domain_statistics(domain).device_count, 0);
	dmacore_domain_destroy(domain);
	assert_reported(&party->machine, DMACORE_REPORT_WARNING);
	assert_int_equal(party->machine.tables.live, live + 1);
	leave(party, 0);
	assert_int_equal(party->machine.tables.live, live + 1);
	leave(party, 1);
	assert_int_equal(party->machine.tables.live, live);
}

/* The default domain, of all devices or of none. */

static void domain_replace__rejects_what_does_not_belong_together(void **state)
{
	struct party *party = *state;
	struct machine *machine = &party->machine;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *none;
	struct dmacore_domain *foreign;
	struct dmacore_iommu *iommu;

	assert_ok(dmacore_iommu_create(machine->system, NULL, &iommu));
	assert_ok(dmacore_domain_create(iommu, NULL, &foreign));
	options.iommu = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &none));
	attach_fallback(party);
	assert_fails(dmacore_domain_replace(NULL, party->devices[0]), EINVAL);
	assert_fails(dmacore_domain_replace(party->domains[OTHER], NULL), EINVAL);
	assert_fails(dmacore_domain_replace(foreign, party->devices[0]), EINVAL);
	assert_fails(dmacore_domain_replace(party->domains[OTHER], none), EINVAL);
	assert_int_equal(where(party), FALLBACK);
	assert_int_equal(domain_statistics(foreign).device_count, 0);
	dmacore_device_destroy(none);
	dmacore_domain_destroy(foreign);
	dmacore_iommu_destroy(iommu);
}

static void domain_replace__takes_the_default_domain_itself(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	assert_ok(dmacore_domain_replace(party->domains[FALLBACK], party->devices[1]));
	assert_int_equal(where(party), FALLBACK);
	/* No change that a mapping could stand against. */
	map_live(party, 0);
	assert_ok(dmacore_domain_replace(party->domains[FALLBACK], party->devices[1]));
	assert_int_equal(members_in(party, FALLBACK), 2);
	unmap_live(party, 0);
	assert_ok(dmacore_domain_detach(party->domains[FALLBACK], party->devices[0]));
	assert_int_equal(where(party), NOWHERE);
}

static void domain_attach__takes_domains_of_every_type(void **state)
{
	struct party *party = *state;
	const uint32_t types[] = { DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
				   DMACORE_DOMAIN_BLOCKED, DMACORE_DOMAIN_UNMANAGED };
	const char *const words[] = {
		"free (2 devices); in an identity domain",
		"free (2 devices); in a DMA domain",
		"free (2 devices); in a blocked domain",
		"free (2 devices); in an unmanaged domain",
	};

	for (unsigned i = 0; i < 4; i++) {
		struct dmacore_domain *domain = make_domain(&party->machine, types[i], 0, 0);

		assert_ok(dmacore_domain_replace(domain, party->devices[i % 2]));
		assert_int_equal(domain_statistics(domain).device_count, 2);
		assert_string_equal(description(party), words[i]);
		/* Whatever it is, it is the default domain. */
		assert_ok(dmacore_device_use_default_domain(party->devices[0]));
		assert_ok(dmacore_device_unuse_default_domain(party->devices[0]));
		assert_ok(dmacore_domain_detach(domain, party->devices[0]));
		dmacore_domain_destroy(domain);
	}
}

/* Each of the three may be the one that stands against it. */
static void group__stays_whole_when_one_device_has_a_live_mapping(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	for (unsigned busy = 0; busy < DEVICES_MAX; busy++) {
		map_live(party, busy);
		for (unsigned i = 0; i < DEVICES_MAX; i++) {
			struct dmacore_device *device = party->devices[i];

			assert_fails(dmacore_domain_replace(party->domains[OTHER], device), EBUSY);
			assert_fails(dmacore_domain_detach(party->domains[FALLBACK], device),
				     EBUSY);
			assert_fails(dmacore_device_claim_dma_owner(device, &party->a), EBUSY);
			assert_int_equal(where(party), FALLBACK);
		}
		/* The others can map at once. */
		for (unsigned i = 0; i < DEVICES_MAX; i++)
			if (i != busy) {
				map_live(party, i);
				unmap_live(party, i);
			}
		unmap_live(party, busy);
	}
	assert_ok(dmacore_domain_replace(party->domains[OTHER], party->devices[2]));
	assert_int_equal(where(party), OTHER);
}

static void group_attach__is_that_of_its_devices(void **state)
{
	struct party *party = *state;
	struct dmacore_group *group = party->group;

	attach_fallback(party);
	assert_fails(dmacore_group_attach(NULL, party->domains[OWN], &party->a), EINVAL);
	assert_fails(dmacore_group_attach(group, NULL, &party->a), EINVAL);
	assert_fails(dmacore_group_attach(group, party->domains[OWN], NULL), EINVAL);
	assert_fails(dmacore_group_detach(NULL, &party->a), EINVAL);
	assert_fails(dmacore_group_detach(group, NULL), EINVAL);
	/* Nobody owns it. */
	assert_fails(dmacore_group_attach(group, party->domains[OWN], &party->a), EPERM);
	assert_fails(dmacore_group_detach(group, &party->a), EPERM);
	assert_int_equal(where(party), FALLBACK);

	assert_ok(dmacore_group_claim_dma_owner(group, &party->a));
	assert_ok(dmacore_group_attach(group, party->domains[OWN], &party->a));
	assert_ok(dmacore_group_attach(group, party->domains[OWN], &party->a));
	assert_int_equal(where(party), OWN);
	assert_fails(dmacore_group_attach(group, party->domains[OTHER], &party->b), EPERM);
	assert_fails(dmacore_group_attach(group, party->domains[FALLBACK], &party->a), EPERM);
	assert_fails(dmacore_group_detach(group, &party->b), EPERM);
	assert_int_equal(where(party), OWN);
	assert_ok(dmacore_group_attach(group, party->domains[OTHER], &party->a));
	assert_int_equal(where(party), OTHER);
	map_live(party, 1);
	assert_fails(dmacore_group_attach(group, party->domains[OWN], &party->a), EBUSY);
	assert_fails(dmacore_group_detach(group, &party->a), EBUSY);
	unmap_live(party, 1);
	assert_ok(dmacore_group_detach(group, &party->a));
	assert_ok(dmacore_group_detach(group, &party->a));
	assert_int_equal(where(party), NOWHERE);
	assert_ok(dmacore_group_release_dma_owner(group, &party->a));
	assert_int_equal(where(party), FALLBACK);
}

static void group_without_devices__has_no_owner_to_attach_it(void **state)
{
	struct party *party = *state;
	struct dmacore_group *group;

	assert_ok(dmacore_group_create(party->machine.system, &group));
	assert_fails(dmacore_group_attach(group, party->domains[OWN], &party->a), EPERM);
	assert_fails(dmacore_group_detach(group, &party->a), EPERM);
	dmacore_group_destroy(group);
}

static void group__stays_whole_when_the_owners_domain_has_a_live_mapping(void **state)
{
	struct party *party = *state;
	struct dmacore_device **devices = party->devices;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->a));
	assert_ok(dmacore_device_attach(devices[1], party->domains[OTHER], &party->a));
	for (unsigned busy = 0; busy < DEVICES_MAX; busy++) {
		map_live(party, busy);
		assert_fails(dmacore_device_detach(devices[0], &party->a), EBUSY);
		assert_fails(dmacore_device_attach(devices[0], party->domains[OWN], &party->a),
			     EBUSY);
		assert_fails(dmacore_device_release_dma_owner(devices[0], &party->a), EBUSY);
		assert_int_equal(where(party), OTHER);
		for (unsigned i = 0; i < DEVICES_MAX; i++)
			if (i != busy) {
				map_live(party, i);
				unmap_live(party, i);
			}
		unmap_live(party, busy);
	}
	assert_ok(dmacore_device_release_dma_owner(devices[2], &party->a));
	assert_int_equal(where(party), FALLBACK);
}

/* A table allocator that changes the group of the device that it allocates for. */
struct meddling {
	struct table_pool *tables;
	struct dmacore_device *device;
	struct dmacore_domain *domains[2];
	struct dmacore_dma_owner owner;
	bool is_owned;
	/* Calls that were made, and those of them that were not refused. */
	unsigned calls;
	unsigned wrong;
};

static int meddle_and_allocate(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	struct meddling *meddling = opaque;
	struct dmacore_device *device = meddling->device;
	struct dmacore_dma_owner *owner = &meddling->owner;

	meddling->calls += device != NULL;
	if (device && meddling->is_owned) {
		meddling->wrong += dmacore_device_release_dma_owner(device, owner) != -EBUSY;
		meddling->wrong += dmacore_device_detach(device, owner) != -EBUSY;
	} else if (device) {
		meddling->wrong += dmacore_device_claim_dma_owner(device, owner) != -EBUSY;
		meddling->wrong += dmacore_domain_detach(meddling->domains[0], device) != -EBUSY;
		meddling->wrong += dmacore_domain_replace(meddling->domains[1], device) != -EBUSY;
	}
	return table_pool_allocate(size, out_page, meddling->tables);
}

static void free_meddled(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	struct meddling *meddling = opaque;

	table_pool_free(page, size, meddling->tables);
}

static void group__stays_as_it_is_while_a_mapping_call_of_a_sibling_runs(void **state)
{
	struct machine *machine = *state;
	struct meddling meddling = { .tables = &machine->tables };
	struct dmacore_table_allocator allocator = machine->tables.allocator;
	struct dmacore_pagetable_options pagetable = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options iommu_options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *devices[2];
	dmacore_dma_t dma;

	meddling.owner = (struct dmacore_dma_owner)DMACORE_DMA_OWNER_INIT;
	allocator.allocate = meddle_and_allocate;
	allocator.free = free_meddled;
	allocator.opaque = &meddling;
	pagetable.allocator = &allocator;
	iommu_options.pagetable = &pagetable;
	assert_ok(dmacore_iommu_create(machine->system, &iommu_options, &options.iommu));
	assert_ok(dmacore_group_create(machine->system, &options.group));
	for (unsigned i = 0; i < 2; i++) {
		assert_ok(dmacore_domain_create(options.iommu, NULL, &meddling.domains[i]));
		assert_ok(dmacore_device_create(machine->system, &options, &devices[i]));
	}
	for (unsigned owned = 0; owned < 2; owned++) {
		/* Each domain is new to its mappings, so that they need tables. */
		if (owned) {
			assert_ok(dmacore_device_claim_dma_owner(devices[0], &meddling.owner));
			assert_ok(dmacore_device_attach(devices[0], meddling.domains[1],
							&meddling.owner));
			meddling.is_owned = true;
		} else {
			assert_ok(dmacore_domain_attach(meddling.domains[0], devices[0]));
		}
		meddling.calls = 0;
		meddling.device = devices[0];
		assert_ok(dmacore_map_phys(devices[1], 0, PAGE, DMACORE_TO_DEVICE, 0, &dma));
		meddling.device = NULL;
		assert_true(meddling.calls > 0);
		assert_int_equal(meddling.wrong, 0);
		assert_ok(dmacore_unmap(devices[1], dma, PAGE, DMACORE_TO_DEVICE, 0));
	}
	assert_ok(dmacore_device_release_dma_owner(devices[1], &meddling.owner));
	for (unsigned i = 0; i < 2; i++)
		dmacore_device_destroy(devices[i]);
	for (unsigned i = 0; i < 2; i++)
		dmacore_domain_destroy(meddling.domains[i]);
	dmacore_group_destroy(options.group);
	dmacore_iommu_destroy(options.iommu);
}

/* Use by the DMA API. */

static void device_use_default_domain__rejects_null(void **state)
{
	(void)state;
	assert_fails(dmacore_device_use_default_domain(NULL), EINVAL);
	assert_fails(dmacore_device_unuse_default_domain(NULL), EINVAL);
}

static void device_use_default_domain__is_counted_for_each_device(void **state)
{
	struct party *party = *state;
	struct dmacore_device **devices = party->devices;

	attach_fallback(party);
	assert_ok(dmacore_device_use_default_domain(devices[1]));
	assert_ok(dmacore_device_use_default_domain(devices[1]));
	assert_ok(dmacore_device_use_default_domain(devices[0]));
	assert_string_equal(description(party),
			    "in use by the DMA API, 3 uses "
			    "since dmacore_device_use_default_domain(disk1); in a DMA domain");
	assert_ok(dmacore_device_unuse_default_domain(devices[0]));
	/* The uses that are left are another device's. */
	assert_fails(dmacore_device_unuse_default_domain(devices[0]), EPERM);
	assert_ok(dmacore_device_unuse_default_domain(devices[1]));
	assert_fails(dmacore_device_claim_dma_owner(devices[0], &party->a), EBUSY);
	assert_ok(dmacore_device_unuse_default_domain(devices[1]));
	assert_fails(dmacore_device_unuse_default_domain(devices[1]), EPERM);
	assert_string_equal(description(party), "free (2 devices); in a DMA domain");
}

static void device_use_default_domain__needs_no_domain_without_an_iommu(void **state)
{
	struct party *party = *state;
	struct dmacore_device *device;
	struct dmacore_device_options options = device_options(&party->machine);

	options.iommu = NULL;
	assert_ok(dmacore_device_create(party->machine.system, &options, &device));
	assert_ok(dmacore_device_use_default_domain(device));
	assert_ok(dmacore_device_unuse_default_domain(device));
	assert_fails(dmacore_device_unuse_default_domain(device), EPERM);
	dmacore_device_destroy(device);
}

/* A sibling's driver would find its mappings gone. */
static void device_use_default_domain__keeps_other_domains_from_under_a_sibling(void **state)
{
	struct party *party = *state;
	struct dmacore_device **devices = party->devices;

	attach_fallback(party);
	assert_ok(dmacore_device_use_default_domain(devices[1]));
	assert_fails(dmacore_device_claim_dma_owner(devices[0], &party->a), EBUSY);
	assert_fails(dmacore_device_attach(devices[0], party->domains[OWN], &party->a), EPERM);
	assert_fails(dmacore_domain_replace(party->domains[OWN], devices[0]), EBUSY);
	assert_fails(dmacore_domain_detach(party->domains[FALLBACK], devices[0]), EBUSY);
	assert_int_equal(where(party), FALLBACK);

	/* Nor does one use the default domain while the other is in the owner's. */
	assert_ok(dmacore_device_unuse_default_domain(devices[1]));
	assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->a));
	assert_fails(dmacore_device_use_default_domain(devices[1]), EBUSY);
	assert_ok(dmacore_device_attach(devices[0], party->domains[OWN], &party->a));
	assert_fails(dmacore_device_use_default_domain(devices[1]), EBUSY);
	assert_int_equal(where(party), OWN);
}

/* Owners. */

static void device_claim_dma_owner__rejects_null(void **state)
{
	struct party *party = *state;

	assert_fails(dmacore_device_claim_dma_owner(NULL, &party->a), EINVAL);
	assert_fails(dmacore_device_claim_dma_owner(party->devices[0], NULL), EINVAL);
	assert_string_equal(description(party), "free (1 device); attached to no domain");
}

static void device_claim_dma_owner__rejects_bad_owners(void **state)
{
	struct party *party = *state;
	static const char long_name[] = "12345678901234567890123456789012";
	const struct {
		uint32_t kind;
		uint32_t reserved;
		const char *name;
	} wrong[] = {
		{ 0, 0, NULL },
		{ 3, 0, NULL },
		{ UINT32_MAX, 0, NULL },
		{ DMACORE_OWNER_DRIVER, 1, NULL },
		{ DMACORE_OWNER_USER, UINT32_C(1) << 31, NULL },
		{ DMACORE_OWNER_DRIVER, 0, long_name },
	};

	assert_int_equal(strlen(long_name), DMACORE_OWNER_NAME_SIZE);
	attach_fallback(party);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		party->a.kind = wrong[i].kind;
		party->a.reserved = wrong[i].reserved;
		party->a.name = wrong[i].name;
		assert_fails(dmacore_device_claim_dma_owner(party->devices[0], &party->a), EINVAL);
		assert_int_equal(where(party), FALLBACK);
	}
	/* The longest that fits. */
	party->a = (struct dmacore_dma_owner)DMACORE_DMA_OWNER_INIT;
	party->a.name = long_name + 1;
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_non_null(strstr(description(party), long_name + 1));
	/* A further claim is looked at as the first was. */
	party->a.kind = 0;
	assert_fails(dmacore_device_claim_dma_owner(party->devices[0], &party->a), EINVAL);
	assert_non_null(strstr(description(party), "1 claim "));
}

static void device_claim_dma_owner__checks_the_size_of_the_structure(void **state)
{
	struct party *party = *state;
	struct dmacore_device *device = party->devices[0];
	LATER(struct dmacore_dma_owner) later = { .known = party->a };
	const struct dmacore_dma_owner *owner = &later.known;

	later.known.struct_size = 0;
	assert_fails(dmacore_device_claim_dma_owner(device, owner), EINVAL);
	later.known.struct_size = sizeof(*owner) - 1;
	assert_fails(dmacore_device_claim_dma_owner(device, owner), EINVAL);
	later.known.struct_size = sizeof(later);
	later.unknown = 1;
	assert_fails(dmacore_device_claim_dma_owner(device, owner), E2BIG);
	later.known.struct_size = SIZE_MAX;
	later.unknown = 0;
	assert_fails(dmacore_device_claim_dma_owner(device, owner), E2BIG);
	assert_string_equal(description(party), "free (1 device); attached to no domain");
	later.known.struct_size = sizeof(later);
	assert_ok(dmacore_device_claim_dma_owner(device, owner));
	/* Only the address counts from here on. */
	memset(&later, 0xff, sizeof(later));
	assert_ok(dmacore_device_attach(device, party->domains[OWN], owner));
	assert_ok(dmacore_device_detach(device, owner));
	assert_ok(dmacore_device_release_dma_owner(device, owner));
}

static void device_claim_dma_owner__copies_the_name(void **state)
{
	struct party *party = *state;
	char name[] = "vm3";

	party->a.name = name;
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	memset(name, 'x', 3);
	assert_non_null(strstr(description(party), "owned by vm3 (a driver)"));
	assert_ok(dmacore_device_release_dma_owner(party->devices[0], &party->a));
	/* An owner without a name after one that had a longer one. */
	party->b.name = NULL;
	party->b.kind = DMACORE_OWNER_USER;
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->b));
	assert_non_null(strstr(description(party), "owned by owner (user space)"));
}

static void device_claim_dma_owner__refuses_a_device_that_nothing_could_block(void **state)
{
	struct party *party = *state;
	struct dmacore_device *device;
	struct dmacore_device_options options = device_options(&party->machine);

	options.iommu = NULL;
	assert_ok(dmacore_device_create(party->machine.system, &options, &device));
	assert_fails(dmacore_device_claim_dma_owner(device, &party->a), ENODEV);
	dmacore_device_destroy(device);
}

static void device_claim_dma_owner__is_counted_through_any_device(void **state)
{
	struct party *party = *state;
	struct dmacore_device **devices = party->devices;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->a));
	assert_ok(dmacore_device_claim_dma_owner(devices[1], &party->a));
	assert_ok(dmacore_device_attach(devices[1], party->domains[OWN], &party->a));
	assert_ok(dmacore_device_release_dma_owner(devices[0], &party->a));
	/* What was attached stays until the last. */
	assert_int_equal(where(party), OWN);
	assert_fails(dmacore_device_claim_dma_owner(devices[0], &party->b), EPERM);
	assert_ok(dmacore_device_release_dma_owner(devices[0], &party->a));
	assert_int_equal(where(party), FALLBACK);
	assert_fails(dmacore_device_release_dma_owner(devices[0], &party->a), EPERM);
}

/* Two owners that look alike are two. */
static void device_claim_dma_owner__knows_owners_by_their_address(void **state)
{
	struct party *party = *state;

	party->b = party->a;
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_fails(dmacore_device_claim_dma_owner(party->devices[0], &party->b), EPERM);
	assert_fails(dmacore_device_release_dma_owner(party->devices[0], &party->b), EPERM);
	assert_fails(dmacore_device_attach(party->devices[0], party->domains[OWN], &party->b),
		     EPERM);
	assert_fails(dmacore_device_detach(party->devices[0], &party->b), EPERM);
	assert_non_null(strstr(description(party), "1 claim "));
}

/* One owner of two groups: each has its claims. */
static void device_claim_dma_owner__is_for_one_group(void **state)
{
	struct party *party = *state;
	struct dmacore_device *other = make_device(&party->machine);

	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_fails(dmacore_device_release_dma_owner(other, &party->a), EPERM);
	assert_ok(dmacore_device_claim_dma_owner(other, &party->a));
	assert_ok(dmacore_device_attach(party->devices[0], party->domains[OWN], &party->a));
	assert_ok(dmacore_device_attach(other, party->domains[OWN], &party->a));
	assert_int_equal(members_in(party, OWN), 2);
	assert_ok(dmacore_device_release_dma_owner(other, &party->a));
	assert_int_equal(where(party), OWN);
	dmacore_device_destroy(other);
}

static void device_release_dma_owner__rejects_null(void **state)
{
	struct party *party = *state;

	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_fails(dmacore_device_release_dma_owner(NULL, &party->a), EINVAL);
	assert_fails(dmacore_device_release_dma_owner(party->devices[0], NULL), EINVAL);
	assert_non_null(strstr(description(party), "owned by anne"));
}

static void device_release_dma_owner__leaves_a_group_without_a_default_domain_blocked(void **state)
{
	struct party *party = *state;

	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_ok(dmacore_device_attach(party->devices[0], party->domains[OWN], &party->a));
	assert_ok(dmacore_device_release_dma_owner(party->devices[1], &party->a));
	assert_string_equal(description(party), "free (2 devices); attached to no domain");
	assert_int_equal(where(party), NOWHERE);
}

static void group_claim_dma_owner__counts_with_the_claims_of_devices(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	assert_fails(dmacore_group_release_dma_owner(party->group, &party->a), EPERM);
	assert_ok(dmacore_group_claim_dma_owner(party->group, &party->a));
	assert_string_equal(description(party),
			    "owned by anne (a driver), 1 claim since "
			    "dmacore_group_claim_dma_owner(); attached to no domain");
	assert_fails(dmacore_group_claim_dma_owner(party->group, &party->b), EPERM);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_fails(dmacore_group_release_dma_owner(party->group, &party->b), EPERM);
	assert_ok(dmacore_group_release_dma_owner(party->group, &party->a));
	assert_int_equal(where(party), NOWHERE);
	assert_ok(dmacore_device_release_dma_owner(party->devices[1], &party->a));
	assert_int_equal(where(party), FALLBACK);
}

static void group_claim_dma_owner__rejects_null_and_groups_that_nothing_could_block(void **state)
{
	struct party *party = *state;
	struct dmacore_group *empty;

	assert_fails(dmacore_group_claim_dma_owner(NULL, &party->a), EINVAL);
	assert_fails(dmacore_group_claim_dma_owner(party->group, NULL), EINVAL);
	assert_fails(dmacore_group_release_dma_owner(NULL, &party->a), EINVAL);
	assert_fails(dmacore_group_release_dma_owner(party->group, NULL), EINVAL);
	assert_ok(dmacore_group_create(party->machine.system, &empty));
	assert_fails(dmacore_group_claim_dma_owner(empty, &party->a), ENODEV);
	dmacore_group_destroy(empty);
}

static void device_attach__rejects_null_and_foreign_domains(void **state)
{
	struct party *party = *state;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *foreign;

	assert_ok(dmacore_iommu_create(party->machine.system, NULL, &iommu));
	assert_ok(dmacore_domain_create(iommu, NULL, &foreign));
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_fails(dmacore_device_attach(NULL, party->domains[OWN], &party->a), EINVAL);
	assert_fails(dmacore_device_attach(party->devices[0], NULL, &party->a), EINVAL);
	assert_fails(dmacore_device_attach(party->devices[0], party->domains[OWN], NULL), EINVAL);
	assert_fails(dmacore_device_attach(party->devices[0], foreign, &party->a), EINVAL);
	assert_fails(dmacore_device_detach(NULL, &party->a), EINVAL);
	assert_fails(dmacore_device_detach(party->devices[0], NULL), EINVAL);
	assert_int_equal(where(party), NOWHERE);
	assert_int_equal(domain_statistics(foreign).device_count, 0);
	dmacore_domain_destroy(foreign);
	dmacore_iommu_destroy(iommu);
}

static void device_attach__gives_user_space_no_physical_addresses(void **state)
{
	struct party *party = *state;
	const struct {
		uint32_t type;
		bool is_permitted;
	} domains[] = {
		{ DMACORE_DOMAIN_IDENTITY, false },
		{ DMACORE_DOMAIN_DMA, false },
		{ DMACORE_DOMAIN_BLOCKED, true },
		{ DMACORE_DOMAIN_UNMANAGED, true },
	};

	for (unsigned kind = DMACORE_OWNER_DRIVER; kind <= DMACORE_OWNER_USER; kind++) {
		party->a.kind = kind;
		assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
		/* What the owner says later does not count. */
		party->a.kind = DMACORE_OWNER_DRIVER;
		for (unsigned i = 0; i < 4; i++) {
			bool is_permitted = kind == DMACORE_OWNER_DRIVER || domains[i].is_permitted;
			struct dmacore_domain *domain =
				make_domain(&party->machine, domains[i].type, 0, 0);

			assert_result(dmacore_device_attach(party->devices[0], domain, &party->a),
				      is_permitted ? 0 : -EPERM);
			assert_int_equal(domain_statistics(domain).device_count,
					 is_permitted ? 2 : 0);
			assert_ok(dmacore_device_detach(party->devices[0], &party->a));
			dmacore_domain_destroy(domain);
		}
		assert_ok(dmacore_device_release_dma_owner(party->devices[0], &party->a));
	}
}

/* What the DMA API has mapped there is not the owner's, whoever that is. */
static void device_attach__refuses_the_default_domain(void **state)
{
	struct party *party = *state;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_fails(dmacore_device_attach(party->devices[0], party->domains[FALLBACK], &party->a),
		     EPERM);
	assert_int_equal(where(party), NOWHERE);
	assert_ok(dmacore_device_release_dma_owner(party->devices[0], &party->a));
	assert_int_equal(members_in(party, FALLBACK), 2);
}

static void device_attach__lets_accesses_reach_what_the_owner_mapped(void **state)
{
	struct party *party = *state;
	struct machine *machine = &party->machine;
	struct dmacore_device **devices = party->devices;

	machine->low[0] = 1;
	machine->next[0] = 2;
	machine->high[0] = 3;
	attach_fallback(party);
	for (unsigned i = 0; i < 2; i++)
		assert_reads(party, i, 0, 1);
	assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->a));
	for (unsigned i = 0; i < 2; i++)
		assert_reads(party, i, -EPERM, 0);
	assert_ok(dmacore_device_attach(devices[1], party->domains[OWN], &party->a));
	for (unsigned i = 0; i < 2; i++)
		assert_reads(party, i, 0, 3);
	/* What is mapped while they are attached is there too. */
	assert_ok(dmacore_domain_unmap(party->domains[OWN], SPOT, PAGE, 0, NULL));
	assert_ok(dmacore_domain_map(party->domains[OWN], SPOT, NEXT_BASE, PAGE,
				     DMACORE_ACCESS_READ));
	for (unsigned i = 0; i < 2; i++)
		assert_reads(party, i, 0, 2);
	assert_ok(dmacore_device_detach(devices[0], &party->a));
	for (unsigned i = 0; i < 2; i++)
		assert_reads(party, i, -EPERM, 0);
	assert_ok(dmacore_device_release_dma_owner(devices[0], &party->a));
	for (unsigned i = 0; i < 2; i++) {
		assert_reads(party, i, 0, 1);
		map_live(party, i);
	}
}

static void device_attach__keeps_mapping_calls_out(void **state)
{
	struct party *party = *state;
	dmacore_dma_t dma;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_fails_untouched(dmacore_map_single(party->devices[1], party->machine.high, PAGE,
						  DMACORE_TO_DEVICE, 0, &dma),
			       EPERM, dma);
	/* Nobody maps there; here the owner does, and the driver is told so. */
	assert_no_reports(&party->machine.reports);
	assert_ok(dmacore_device_attach(party->devices[0], party->domains[OWN], &party->a));
	assert_fails_untouched(dmacore_map_single(party->devices[1], party->machine.high, PAGE,
						  DMACORE_TO_DEVICE, 0, &dma),
			       EPERM, dma);
	assert_reported(&party->machine, DMACORE_REPORT_ERROR);
}

static void domain_destroy__leaves_the_domain_to_the_group(void **state)
{
	struct party *party = *state;
	struct machine *machine = &party->machine;
	unsigned live = machine->tables.live;
	struct dmacore_translation found;
	struct dmacore_domain *domain;

	attach_fallback(party);
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	/* What ends it: another domain, a detach, the release. */
	for (unsigned i = 0; i < 3; i++) {
		domain = make_domain(machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
		assert_ok(
			dmacore_domain_map(domain, 0, LOW_BASE + PAGE, PAGE, DMACORE_ACCESS_READ));
		assert_int_equal(machine->tables.live, live + 4);
		assert_ok(dmacore_device_attach(party->devices[0], domain, &party->a));
		dmacore_domain_destroy(domain);
		assert_reported(machine, DMACORE_REPORT_WARNING);
		for (unsigned k = 0; k < 2; k++) {
			assert_ok(dmacore_view_translate(party->views[k], 0, 0, &found));
			assert_int_equal(found.target, LOW_BASE + PAGE);
		}
		assert_int_equal(machine->tables.live, live + 4);
		if (i == 0)
			assert_ok(dmacore_device_attach(party->devices[1], party->domains[OWN],
							&party->a));
		else if (i == 1)
			assert_ok(dmacore_device_detach(party->devices[1], &party->a));
		else
			assert_ok(dmacore_device_release_dma_owner(party->devices[1], &party->a));
		assert_int_equal(machine->tables.live, live);
	}
	assert_int_equal(where(party), FALLBACK);
}

static void domain_destroy__leaves_the_default_domain_to_the_group(void **state)
{
	struct party *party = *state;
	struct machine *machine = &party->machine;
	unsigned live = machine->tables.live;
	struct dmacore_domain *domain = make_domain(machine, DMACORE_DOMAIN_DMA, 0, 0);

	assert_ok(dmacore_domain_attach(domain, party->devices[0]));
	dmacore_domain_destroy(domain);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	map_live(party, 0);
	unmap_live(party, 0);
	/* It lives on also while an owner has the group, and comes back. */
	assert_ok(dmacore_device_claim_dma_owner(party->devices[0], &party->a));
	assert_ok(dmacore_device_release_dma_owner(party->devices[0], &party->a));
	map_live(party, 1);
	unmap_live(party, 1);
	assert_ok(dmacore_domain_replace(party->domains[OTHER], party->devices[0]));
	assert_int_equal(machine->tables.live, live);
	assert_int_equal(where(party), OTHER);
}

/* Descriptions. */

static void group_describe__rejects_null(void **state)
{
	struct party *party = *state;
	char text[2] = "x";

	assert_fails(dmacore_group_describe(NULL, text, sizeof(text)), EINVAL);
	assert_fails(dmacore_group_describe(party->group, NULL, sizeof(text)), EINVAL);
	assert_fails(dmacore_group_describe(party->group, text, 0), EINVAL);
	assert_string_equal(text, "x");
}

static void group_describe__cuts_off_what_does_not_fit(void **state)
{
	struct party *party = *state;
	static const char whole[] = "free (2 devices); attached to no domain";
	char text[2 * DMACORE_DESCRIPTION_SIZE];

	for (size_t size = 1; size <= sizeof(text); size++) {
		size_t length = size < sizeof(whole) ? size - 1 : sizeof(whole) - 1;

		memset(text, 'x', sizeof(text));
		assert_ok(dmacore_group_describe(party->group, text, size));
		assert_memory_equal(text, whole, length);
		assert_int_equal(text[length], 0);
		/* Nothing is written behind the end. */
		for (size_t i = length + 1; i < sizeof(text); i++)
			assert_int_equal(text[i], 'x');
	}
	/* More than there is: it is the buffer's size that is bounded by the text, not the reverse. */
	assert_ok(dmacore_group_describe(party->group, text, SIZE_MAX));
	assert_string_equal(text, whole);
}

/* The longest names, and mappings of so many devices that they do not all fit. */
static void group_describe__stays_inside_its_longest_text(void **state)
{
	enum { COUNT = 8 };
	struct party *party = *state;
	struct dmacore_device_options options = device_options(&party->machine);
	struct dmacore_device *devices[COUNT];
	dmacore_dma_t dma[COUNT];
	char text[2 * DMACORE_DESCRIPTION_SIZE];

	options.name = "1234567890123456789012345678901";
	options.group = party->group;
	attach_fallback(party);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_ok(dmacore_device_create(party->machine.system, &options, &devices[i]));
		assert_ok(dmacore_map_single(devices[i], party->machine.high, 1, DMACORE_TO_DEVICE,
					     0, &dma[i]));
	}
	memset(text, 'x', sizeof(text));
	assert_ok(dmacore_group_describe(party->group, text, sizeof(text)));
	assert_int_equal(strlen(text), DMACORE_DESCRIPTION_SIZE - 1);
	assert_int_equal(text[DMACORE_DESCRIPTION_SIZE], 'x');
	assert_null(strchr(text, '\n'));
	for (unsigned i = 0; i < COUNT; i++) {
		assert_ok(dmacore_unmap(devices[i], dma[i], 1, DMACORE_TO_DEVICE, 0));
		dmacore_device_destroy(devices[i]);
	}
}

static void group_describe__counts_the_live_mappings_of_each_device(void **state)
{
	struct party *party = *state;
	dmacore_dma_t dma;

	attach_fallback(party);
	map_live(party, 0);
	map_live(party, 1);
	assert_ok(dmacore_map_single(party->devices[1], party->machine.high, PAGE,
				     DMACORE_TO_DEVICE, 0, &dma));
	assert_non_null(strstr(description(party), "1 live mapping of disk0"));
	assert_non_null(strstr(description(party), "2 live mappings of disk1"));
	assert_ok(dmacore_unmap(party->devices[1], dma, PAGE, DMACORE_TO_DEVICE, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_of(0, group_create__rejects_null),
		test_of(0, group_create__makes_a_free_group_without_devices),
		cmocka_unit_test(group_create__holds_on_to_the_system),
		cmocka_unit_test(group_destroy__accepts_null),
		test_of(2, group_destroy__leaves_the_group_to_its_devices),
		test_of(2, device_group__gives_the_group_of_the_device),
		test_of(0, device_group__lets_others_join_a_group_that_was_not_made_by_hand),
		test_of(1, device_group__rejects_null),
		test_of(1, device_group__outlives_the_devices),
		test_of(1, device_create__joins_what_the_group_is_attached_to),
		test_of(1, device_create__joins_the_owners_domain),
		test_of(1, device_create__refuses_a_group_of_another_iommu_or_system),
		test_of(1, device_create__takes_a_group_that_was_left_behind_another_iommu),
		test_of(2, device_destroy__ends_the_uses_of_the_device),
		test_of(2, device_destroy__leaves_claims_to_the_other_devices),
		test_of(1, device_destroy__takes_any_device_out),
		test_of(2, device_destroy__of_the_last_device_makes_the_group_free),
		test_of(2, device_destroy__of_the_last_device_lets_go_of_the_default_domain),
		test_of(2, domain_replace__rejects_what_does_not_belong_together),
		test_of(2, domain_replace__takes_the_default_domain_itself),
		test_of(2, domain_attach__takes_domains_of_every_type),
		test_of(3, group__stays_whole_when_one_device_has_a_live_mapping),
		test_of(3, group__stays_whole_when_the_owners_domain_has_a_live_mapping),
		test_of(3, group_attach__is_that_of_its_devices),
		test_of(1, group_without_devices__has_no_owner_to_attach_it),
		test_on(DIRECT, group__stays_as_it_is_while_a_mapping_call_of_a_sibling_runs),
		cmocka_unit_test(device_use_default_domain__rejects_null),
		test_of(2, device_use_default_domain__is_counted_for_each_device),
		test_of(0, device_use_default_domain__needs_no_domain_without_an_iommu),
		test_of(2, device_use_default_domain__keeps_other_domains_from_under_a_sibling),
		test_of(1, device_claim_dma_owner__rejects_null),
		test_of(1, device_claim_dma_owner__rejects_bad_owners),
		test_of(1, device_claim_dma_owner__checks_the_size_of_the_structure),
		test_of(1, device_claim_dma_owner__copies_the_name),
		test_of(0, device_claim_dma_owner__refuses_a_device_that_nothing_could_block),
		test_of(2, device_claim_dma_owner__is_counted_through_any_device),
		test_of(1, device_claim_dma_owner__knows_owners_by_their_address),
		test_of(1, device_claim_dma_owner__is_for_one_group),
		test_of(1, device_release_dma_owner__rejects_null),
		test_of(2,
			device_release_dma_owner__leaves_a_group_without_a_default_domain_blocked),
		test_of(1, device_attach__rejects_null_and_foreign_domains),
		test_of(2, device_attach__gives_user_space_no_physical_addresses),
		test_of(2, device_attach__refuses_the_default_domain),
		test_of(2, device_attach__lets_accesses_reach_what_the_owner_mapped),
		test_of(2, device_attach__keeps_mapping_calls_out),
		test_of(2, domain_destroy__leaves_the_domain_to_the_group),
		test_of(2, domain_destroy__leaves_the_default_domain_to_the_group),
		test_of(2, group_claim_dma_owner__counts_with_the_claims_of_devices),
		test_of(1, group_claim_dma_owner__rejects_null_and_groups_that_nothing_could_block),
		test_of(0, group_describe__rejects_null),
		test_of(2, group_describe__cuts_off_what_does_not_fit),
		test_of(1, group_describe__stays_inside_its_longest_text),
		test_of(2, group_describe__counts_the_live_mappings_of_each_device),
	};

	return run_group("group", tests);
}
