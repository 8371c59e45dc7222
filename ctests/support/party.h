/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_PARTY_H
#define SUPPORT_PARTY_H

/*
 * A group of devices on a machine whose own device is not of it, and domains for it in each of which
 * one address leads elsewhere, so that a look-up tells where a device is.
 */

#include "machine.h"

/* The addresses that DMA domains of these tests give out, and the first of them that is taken. */
#define PARTY_FIRST UINT64_C(0x10000)
#define PARTY_LAST UINT64_C(0x1ffff)
#define SPOT (PARTY_LAST + 1 - PAGE)

#define DEVICES_MAX 3

/* What a group can be attached to. In each domain SPOT leads elsewhere. */
enum place { NOWHERE, FALLBACK, OTHER, OWN, SPARE, PLACE_COUNT };

static const uint64_t place_targets[PLACE_COUNT] = {
	[FALLBACK] = LOW_BASE,
	[OTHER] = NEXT_BASE,
	[OWN] = HIGH_BASE,
	[SPARE] = HIGH_BASE + PAGE,
};

/* A PASID that the devices can send. */
#define PARTY_PASID 7

/* FALLBACK and OTHER are DMA domains, OWN and SPARE are unmanaged ones. */
struct party {
	struct machine machine;
	struct dmacore_group *group;
	struct dmacore_device *devices[DEVICES_MAX];
	struct dmacore_view *views[DEVICES_MAX];
	struct dmacore_view *pasid_views[DEVICES_MAX];
	unsigned device_count;
	struct dmacore_domain *domains[PLACE_COUNT];
	/* What a device outside of the group has mapped in OTHER. */
	struct dmacore_device *helper;
	dmacore_dma_t helped;
	/* A live mapping of a page of each device; 0: none. */
	dmacore_dma_t live[DEVICES_MAX];
	struct dmacore_dma_owner a;
	struct dmacore_dma_owner b;
};

/* Puts one more device, disk0, disk1 or disk2, into the group. */
static inline int join(struct party *party)
{
	struct dmacore_device_options options = device_options(&party->machine);
	unsigned index = party->device_count;
	char name[] = "disk0";
	int error;

	name[4] += index;
	options.name = name;
	options.group = party->group;
	options.pasid_count = PARTY_PASID + 1;
	error = dmacore_device_create(party->machine.system, &options, &party->devices[index]);
	if (error)
		return error;
	assert_ok(dmacore_view_create(party->devices[index], &party->views[index]));
	assert_ok(dmacore_view_create_pasid(party->devices[index], PARTY_PASID,
					    &party->pasid_views[index]));
	party->device_count++;
	return 0;
}

static inline void leave(struct party *party, unsigned index)
{
	dmacore_view_destroy(party->views[index]);
	dmacore_view_destroy(party->pasid_views[index]);
	dmacore_device_destroy(party->devices[index]);
	party->views[index] = NULL;
	party->pasid_views[index] = NULL;
	party->devices[index] = NULL;
}

static inline void map_live(struct party *party, unsigned index)
{
	assert_ok(dmacore_map_single(party->devices[index], party->machine.high, PAGE,
				     DMACORE_TO_DEVICE, 0, &party->live[index]));
}

static inline void unmap_live(struct party *party, unsigned index)
{
	assert_ok(dmacore_unmap(party->devices[index], party->live[index], PAGE, DMACORE_TO_DEVICE,
				0));
	party->live[index] = 0;
}

static inline void party_start(struct party *party, unsigned device_count)
{
	struct machine *machine = &party->machine;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;

	memset(party, 0, sizeof(*party));
	machine_start(machine, TRANSLATED);
	machine_narrow(machine, PARTY_FIRST, PARTY_LAST);
	party->domains[FALLBACK] = machine->domain;
	party->domains[OTHER] = make_domain(machine, DMACORE_DOMAIN_DMA, PARTY_FIRST, PARTY_LAST);
	for (enum place own = OWN; own <= SPARE; own++) {
		party->domains[own] = make_domain(machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
		assert_ok(dmacore_domain_map(party->domains[own], SPOT, place_targets[own], PAGE,
					     DMACORE_ACCESS_READ));
	}

	assert_int_equal(map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE), SPOT);
	party->helper = make_device(machine);
	assert_ok(dmacore_domain_attach(party->domains[OTHER], party->helper));
	assert_ok(dmacore_map_single(party->helper, machine->next, PAGE, DMACORE_TO_DEVICE, 0,
				     &party->helped));
	assert_int_equal(party->helped, SPOT);

	party->a = owner;
	party->a.name = "anne";
	party->b = owner;
	party->b.name = "bert";
	assert_ok(dmacore_group_create(machine->system, &party->group));
	for (unsigned i = 0; i < device_count; i++)
		assert_ok(join(party));
}

/* Gives everything back, in whatever state the group is. */
static inline void party_stop(struct party *party)
{
	struct machine *machine = &party->machine;

	for (unsigned i = 0; i < party->device_count; i++) {
		if (party->live[i])
			unmap_live(party, i);
		leave(party, i);
	}
	dmacore_group_destroy(party->group);
	assert_ok(dmacore_unmap(party->helper, SPOT, PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, SPOT, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_device_destroy(party->helper);
	/* The group has let go of all domains: this frees all their tables. */
	dmacore_domain_destroy(party->domains[OTHER]);
	dmacore_domain_destroy(party->domains[OWN]);
	dmacore_domain_destroy(party->domains[SPARE]);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = NULL;
	assert_int_equal(machine->tables.live, 0);
	machine_stop(machine);
}

/* How many devices of the group a domain has. */
static inline uint64_t members_in(struct party *party, enum place place)
{
	uint64_t count = domain_statistics(party->domains[place]).device_count;

	return place == FALLBACK || place == OTHER ? count - 1 : count;
}

static inline const char *description(struct party *party)
{
	static char text[DMACORE_DESCRIPTION_SIZE];

	assert_ok(dmacore_group_describe(party->group, text, sizeof(text)));
	return text;
}

/* Where a view leads. */
static inline enum place seen_through(struct dmacore_view *view)
{
	struct dmacore_translation found;
	int error = dmacore_view_translate(view, SPOT, 0, &found);

	for (enum place place = FALLBACK; place < PLACE_COUNT; place++)
		if (!error && found.target == place_targets[place])
			return place;
	assert_fails(error, EPERM);
	return NOWHERE;
}

/* Where one view of each device of the group leads: all of them there, or the test fails. */
static inline enum place seen_through_all(struct party *party, struct dmacore_view *const *views,
					  unsigned *out_count)
{
	enum place place = NOWHERE;

	*out_count = 0;
	for (unsigned i = 0; i < party->device_count; i++) {
		enum place own;

		if (!party->devices[i])
			continue;
		own = seen_through(views[i]);
		assert_true(*out_count == 0 || own == place);
		place = own;
		++*out_count;
	}
	return place;
}

/* Where the devices of the group are. */
static inline enum place where(struct party *party)
{
	unsigned count;
	enum place place = seen_through_all(party, party->views, &count);

	for (enum place other = FALLBACK; other < PLACE_COUNT; other++)
		assert_int_equal(members_in(party, other), other == place ? count : 0);
	return place;
}

/* Where their requests with PARTY_PASID lead. */
static inline enum place where_pasid(struct party *party)
{
	unsigned count;

	return seen_through_all(party, party->pasid_views, &count);
}

#endif /* SUPPORT_PARTY_H */
