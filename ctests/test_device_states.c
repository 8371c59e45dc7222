/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/drivers.h"

/*
 * Every state of a device, and every call that may change it, against a table. The device, disk0,
 * shares a group with disk1; their IOMMU was announced, and has started but in two states.
 */

enum state {
	UNBOUND,
	/* The IOMMU has not started. */
	UNBOUND_LATE,
	/* Unbound, in a default domain that somebody has attached. */
	UNBOUND_ATTACHED,
	/* Unbound, used by nobody, with a mapping. */
	UNBOUND_MAPPED,
	DEFERRED_LATE,
	DEFERRED_BY_PROBE,
	PROBING,
	BOUND,
	BOUND_MAPPED,
	BOUND_IDENTITY,
	/* To a driver that manages DMA; the group is free. */
	BOUND_OWN,
	/* And here the driver owns it and has attached its domain. */
	BOUND_OWN_HELD,
	/* To a PASID too. */
	BOUND_OWN_PASID,
	REMOVING,
	/* By somebody else. */
	OWNED,
	/* Who has attached a domain to the PASID. */
	OWNED_PASID,
	SIBLING_BOUND,
	STATE_COUNT,
};

enum transition {
	BIND,
	/* To a driver that asks for an identity domain. */
	BIND_IDENTITY,
	/* To one that manages DMA. */
	BIND_OWN,
	/* To one whose probe fails, or defers. */
	BIND_BROKEN,
	BIND_SHY,
	BIND_SIBLING,
	UNBIND,
	START,
	CLAIM,
	RELEASE,
	ATTACH,
	DETACH,
	/* By anne, as all calls of an owner are: in some states somebody else has the group. */
	ATTACH_PASID,
	REPLACE_PASID,
	DETACH_PASID,
	USE,
	UNUSE,
	DOMAIN_ATTACH,
	DOMAIN_REPLACE,
	DOMAIN_DETACH,
	SET_DMA,
	SET_IDENTITY,
	JOIN,
	JOIN_UNTRUSTED,
	DESTROY,
	TRANSITION_COUNT,
};

enum driver { NVME, GFX, VFIO, BROKEN, SHY, AHCI, DRIVER_COUNT };

static struct world {
	struct machine machine;
	struct dmacore_iommu *iommu;
	bool has_started;
	struct dmacore_group *group;
	/* disk2 has joined if it is there. */
	struct dmacore_device *disks[3];
	struct dmacore_view *view;
	/* Of requests of disk0 and disk1 that carry the PASID. */
	struct dmacore_view *pasid_views[2];
	/* The default domain that is attached, and two of the owner's; until the IOMMU starts, another's. */
	struct dmacore_domain *fallback;
	struct dmacore_domain *own;
	struct dmacore_domain *spare;
	struct test_driver drivers[DRIVER_COUNT];
	struct dmacore_dma_owner anne;
	struct dmacore_dma_owner bert;
	dmacore_dma_t live;
	/* What probe or remove of disk0 does, and what comes of it. */
	enum state state;
	enum transition transition;
} world;

/* What most states answer, in which a driver has the device or the group is in use. */
static const char *const usual[TRANSITION_COUNT] = {
	[BIND] = "EBUSY",	   [BIND_IDENTITY] = "EBUSY",  [BIND_OWN] = "EBUSY",
	[BIND_BROKEN] = "EBUSY",   [BIND_SHY] = "EBUSY",       [UNBIND] = "ENOENT",
	[START] = "EEXIST",	   [CLAIM] = "EBUSY",	       [RELEASE] = "EPERM",
	[ATTACH] = "EPERM",	   [DETACH] = "EPERM",	       [UNUSE] = "EPERM",
	[ATTACH_PASID] = "EPERM",  [REPLACE_PASID] = "EPERM",  [DETACH_PASID] = "EPERM",
	[DOMAIN_ATTACH] = "EBUSY", [DOMAIN_REPLACE] = "EBUSY", [DOMAIN_DETACH] = "EINVAL",
	[SET_DMA] = "EBUSY",	   [SET_IDENTITY] = "EBUSY",
};

/*
 * What comes of each other transition: an errno, if it fails, and what can be seen then, if that is not
 * what was seen before. Of disk0 its state and driver, who has the group, what the group is attached to,
 * and its PASID, if to anything; then whether disk0 has a mapping, whether disk1 has a driver, and whether
 * disk2 is there.
 */
static const char *const table[STATE_COUNT][TRANSITION_COUNT] = {
	[UNBOUND] = {
		[BIND] = "bound nvme, 1 use, dma",
		[BIND_IDENTITY] = "bound gfx, 1 use, identity",
		[BIND_OWN] = "bound vfio, free, nowhere",
		[BIND_BROKEN] = "EIO: unbound, free, dma",
		[BIND_SHY] = "EAGAIN: deferred shy, free, dma",
		[BIND_SIBLING] = "unbound, 1 use, dma, disk1 bound",
		[CLAIM] = "unbound, anne, nowhere",
		[USE] = "ENODEV",
		[DOMAIN_ATTACH] = "unbound, free, fallback",
		[DOMAIN_REPLACE] = "unbound, free, fallback",
		[SET_DMA] = "unbound, free, dma",
		[SET_IDENTITY] = "unbound, free, identity",
		[JOIN] = "unbound, free, nowhere, disk2",
		[JOIN_UNTRUSTED] = "unbound, free, nowhere, disk2",
		[DESTROY] = "gone, free, nowhere",
	},
	[UNBOUND_LATE] = {
		[BIND] = "EAGAIN: deferred nvme, free, nowhere",
		[BIND_IDENTITY] = "EAGAIN: deferred gfx, free, nowhere",
		[BIND_OWN] = "EAGAIN: deferred vfio, free, nowhere",
		[BIND_BROKEN] = "EAGAIN: deferred broken, free, nowhere",
		[BIND_SHY] = "EAGAIN: deferred shy, free, nowhere",
		[BIND_SIBLING] = "EAGAIN: unbound, free, nowhere, disk1 deferred",
		[START] = "unbound, free, nowhere",
		[CLAIM] = "unbound, anne, nowhere",
		[USE] = "ENODEV",
		[DOMAIN_ATTACH] = "EINVAL",
		[DOMAIN_REPLACE] = "EINVAL",
		[SET_DMA] = "EAGAIN",
		[SET_IDENTITY] = "EAGAIN",
		[JOIN] = "unbound, free, nowhere, disk2",
		[JOIN_UNTRUSTED] = "unbound, free, nowhere, disk2",
		[DESTROY] = "gone, free, nowhere",
	},
	[UNBOUND_ATTACHED] = {
		[BIND] = "bound nvme, 1 use, fallback",
		[BIND_OWN] = "bound vfio, free, fallback",
		[BIND_BROKEN] = "EIO",
		[BIND_SHY] = "EAGAIN: deferred shy, free, fallback",
		[BIND_SIBLING] = "unbound, 1 use, fallback, disk1 bound",
		[CLAIM] = "unbound, anne, nowhere",
		[USE] = "unbound, 1 use, fallback",
		[DOMAIN_REPLACE] = "unbound, free, fallback",
		[DOMAIN_DETACH] = "unbound, free, nowhere",
		[SET_DMA] = "unbound, free, fallback",
		[SET_IDENTITY] = "unbound, free, identity",
		[JOIN] = "unbound, free, fallback, disk2",
		[JOIN_UNTRUSTED] = "unbound, free, fallback, disk2",
		[DESTROY] = "gone, free, elsewhere",
	},
	[UNBOUND_MAPPED] = {
		[BIND_SIBLING] = "unbound, 1 use, fallback, mapped, disk1 bound",
		[USE] = "unbound, 1 use, fallback, mapped",
		[DOMAIN_REPLACE] = "unbound, free, fallback, mapped",
		[DOMAIN_DETACH] = "EBUSY",
		[SET_DMA] = "unbound, free, fallback, mapped",
		[JOIN] = "unbound, free, fallback, mapped, disk2",
		[JOIN_UNTRUSTED] = "unbound, free, fallback, mapped, disk2",
		[DESTROY] = "gone, free, elsewhere",
	},
	[DEFERRED_LATE] = {
		[BIND_SIBLING] = "EAGAIN: deferred nvme, free, nowhere, disk1 deferred",
		[UNBIND] = "unbound, free, nowhere",
		[START] = "bound nvme, 1 use, dma",
		[CLAIM] = "deferred nvme, anne, nowhere",
		[USE] = "ENODEV",
		[DOMAIN_ATTACH] = "EINVAL",
		[DOMAIN_REPLACE] = "EINVAL",
		[SET_DMA] = "EAGAIN",
		[SET_IDENTITY] = "EAGAIN",
		[JOIN] = "deferred nvme, free, nowhere, disk2",
		[JOIN_UNTRUSTED] = "deferred nvme, free, nowhere, disk2",
		[DESTROY] = "gone, free, nowhere",
	},
	[DEFERRED_BY_PROBE] = {
		[BIND_SIBLING] = "deferred shy, 1 use, dma, disk1 bound",
		[UNBIND] = "unbound, free, dma",
		[CLAIM] = "deferred shy, anne, nowhere",
		[USE] = "deferred shy, 1 use, dma",
		[DOMAIN_REPLACE] = "deferred shy, free, fallback",
		[SET_DMA] = "deferred shy, free, dma",
		[SET_IDENTITY] = "deferred shy, free, identity",
		[JOIN] = "deferred shy, free, dma, disk2",
		[JOIN_UNTRUSTED] = "deferred shy, free, dma, disk2",
		[DESTROY] = "gone, free, elsewhere",
	},
	[PROBING] = {
		[BIND_SIBLING] = "probing nvme, 2 use, dma, disk1 bound",
		[UNBIND] = "EBUSY",
		[USE] = "probing nvme, 2 use, dma",
		[SET_DMA] = "probing nvme, 1 use, dma",
		[JOIN] = "probing nvme, 1 use, dma, disk2",
		[JOIN_UNTRUSTED] = "probing nvme, 1 use, dma, disk2",
		[DESTROY] = "gone, 1 use, elsewhere",
	},
	[BOUND] = {
		[BIND_SIBLING] = "bound nvme, 2 use, dma, disk1 bound",
		[UNBIND] = "unbound, free, dma",
		[USE] = "bound nvme, 2 use, dma",
		[SET_DMA] = "bound nvme, 1 use, dma",
		[JOIN] = "bound nvme, 1 use, dma, disk2",
		[JOIN_UNTRUSTED] = "bound nvme, 1 use, dma, disk2",
		[DESTROY] = "gone, free, elsewhere",
	},
	[BOUND_MAPPED] = {
		[BIND_SIBLING] = "bound nvme, 2 use, dma, mapped, disk1 bound",
		[UNBIND] = "unbound, free, dma",
		[USE] = "bound nvme, 2 use, dma, mapped",
		[SET_DMA] = "bound nvme, 1 use, dma, mapped",
		[JOIN] = "bound nvme, 1 use, dma, mapped, disk2",
		[JOIN_UNTRUSTED] = "bound nvme, 1 use, dma, mapped, disk2",
		[DESTROY] = "gone, free, elsewhere",
	},
	[BOUND_IDENTITY] = {
		[BIND_SIBLING] = "bound gfx, 2 use, identity, disk1 bound",
		[UNBIND] = "unbound, free, identity",
		[USE] = "bound gfx, 2 use, identity",
		[SET_IDENTITY] = "bound gfx, 1 use, identity",
		[JOIN] = "bound gfx, 1 use, identity, disk2",
		[JOIN_UNTRUSTED] = "EPERM",
		[DESTROY] = "gone, free, elsewhere",
	},
	[BOUND_OWN] = {
		[BIND_SIBLING] = "bound vfio, 1 use, dma, disk1 bound",
		[UNBIND] = "unbound, free, nowhere",
		[CLAIM] = "bound vfio, anne, nowhere",
		[USE] = "ENODEV",
		[DOMAIN_ATTACH] = "bound vfio, free, fallback",
		[DOMAIN_REPLACE] = "bound vfio, free, fallback",
		[SET_DMA] = "bound vfio, free, dma",
		[SET_IDENTITY] = "bound vfio, free, identity",
		[JOIN] = "bound vfio, free, nowhere, disk2",
		[JOIN_UNTRUSTED] = "bound vfio, free, nowhere, disk2",
		[DESTROY] = "gone, free, nowhere",
	},
	[BOUND_OWN_HELD] = {
		[BIND_SIBLING] = "EBUSY",
		[UNBIND] = "unbound, anne, own",
		[CLAIM] = "bound vfio, anne, own",
		[RELEASE] = "bound vfio, free, nowhere",
		[ATTACH] = "bound vfio, anne, own",
		[DETACH] = "bound vfio, anne, nowhere",
		[ATTACH_PASID] = "bound vfio, anne, own, pasid own",
		[REPLACE_PASID] = "ENOENT",
		[DETACH_PASID] = "bound vfio, anne, own",
		[USE] = "EBUSY",
		[DOMAIN_ATTACH] = "EPERM",
		[DOMAIN_REPLACE] = "EPERM",
		[SET_DMA] = "EPERM",
		[SET_IDENTITY] = "EPERM",
		[JOIN] = "bound vfio, anne, own, disk2",
		[JOIN_UNTRUSTED] = "bound vfio, anne, own, disk2",
		[DESTROY] = "gone, anne, elsewhere",
	},
	[BOUND_OWN_PASID] = {
		[BIND_SIBLING] = "EBUSY",
		[UNBIND] = "unbound, anne, own, pasid own",
		[CLAIM] = "bound vfio, anne, own, pasid own",
		[RELEASE] = "bound vfio, free, nowhere",
		[ATTACH] = "bound vfio, anne, own, pasid own",
		[DETACH] = "bound vfio, anne, nowhere, pasid own",
		[ATTACH_PASID] = "EBUSY",
		[REPLACE_PASID] = "bound vfio, anne, own, pasid spare",
		[DETACH_PASID] = "bound vfio, anne, own",
		[USE] = "EBUSY",
		[DOMAIN_ATTACH] = "EPERM",
		[DOMAIN_REPLACE] = "EPERM",
		[SET_DMA] = "EPERM",
		[SET_IDENTITY] = "EPERM",
		[JOIN] = "bound vfio, anne, own, pasid own, disk2",
		[JOIN_UNTRUSTED] = "bound vfio, anne, own, pasid own, disk2",
		[DESTROY] = "gone, anne, elsewhere, pasid own",
	},
	[REMOVING] = {
		[BIND_SIBLING] = "removing nvme, 2 use, dma, disk1 bound",
		[UNBIND] = "EBUSY",
		[USE] = "removing nvme, 2 use, dma",
		[SET_DMA] = "removing nvme, 1 use, dma",
		[JOIN] = "removing nvme, 1 use, dma, disk2",
		[JOIN_UNTRUSTED] = "removing nvme, 1 use, dma, disk2",
		[DESTROY] = "gone, 1 use, elsewhere",
	},
	[OWNED] = {
		[BIND_OWN] = "bound vfio, bert, nowhere",
		[BIND_SIBLING] = "EBUSY",
		[CLAIM] = "EPERM",
		[USE] = "EBUSY",
		[DOMAIN_ATTACH] = "EPERM",
		[DOMAIN_REPLACE] = "EPERM",
		[SET_DMA] = "EPERM",
		[SET_IDENTITY] = "EPERM",
		[JOIN] = "unbound, bert, nowhere, disk2",
		[JOIN_UNTRUSTED] = "unbound, bert, nowhere, disk2",
		[DESTROY] = "gone, bert, nowhere",
	},
	[OWNED_PASID] = {
		[BIND_OWN] = "bound vfio, bert, nowhere, pasid own",
		[BIND_SIBLING] = "EBUSY",
		[CLAIM] = "EPERM",
		[USE] = "EBUSY",
		[DOMAIN_ATTACH] = "EPERM",
		[DOMAIN_REPLACE] = "EPERM",
		[SET_DMA] = "EPERM",
		[SET_IDENTITY] = "EPERM",
		[JOIN] = "unbound, bert, nowhere, pasid own, disk2",
		[JOIN_UNTRUSTED] = "unbound, bert, nowhere, pasid own, disk2",
		[DESTROY] = "gone, bert, nowhere, pasid own",
	},
	[SIBLING_BOUND] = {
		[BIND] = "bound nvme, 2 use, dma, disk1 bound",
		[BIND_OWN] = "bound vfio, 1 use, dma, disk1 bound",
		[BIND_BROKEN] = "EIO",
		[BIND_SHY] = "EAGAIN: deferred shy, 1 use, dma, disk1 bound",
		[BIND_SIBLING] = "EBUSY",
		[USE] = "unbound, 2 use, dma, disk1 bound",
		[SET_DMA] = "unbound, 1 use, dma, disk1 bound",
		[JOIN] = "unbound, 1 use, dma, disk1 bound, disk2",
		[JOIN_UNTRUSTED] = "unbound, 1 use, dma, disk1 bound, disk2",
		[DESTROY] = "gone, 1 use, elsewhere, disk1 bound",
	},
};

static const char *errno_name(int result)
{
	switch (-result) {
#define NAME(error)   \
	case (error): \
		return #error;
		NAME(EAGAIN)
		NAME(EBUSY)
		NAME(EEXIST)
		NAME(EINVAL)
		NAME(EIO)
		NAME(ENODEV)
		NAME(ENOENT)
		NAME(EPERM)
#undef NAME
	default:
		return result == 0 ? "" : "?";
	}
}

static const char *described(void)
{
	static char text[DMACORE_DESCRIPTION_SIZE];

	assert_ok(dmacore_group_describe(world.group, text, sizeof(text)));
	return text;
}

/* Where its requests with the PASID lead, and those of disk1 as well. */
static const char *place_of_pasid(void)
{
	const char *place = "";

	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_translation found;
		const char *other = "";
		int error;

		if (!world.disks[i])
			continue;
		error = dmacore_view_translate(world.pasid_views[i], LOW_BASE, 0, &found);
		if (error)
			assert_fails(error, EPERM);
		else
			other = found.target == HIGH_BASE ? ", pasid own" : ", pasid spare";
		assert_true(i == 0 || !world.disks[0] || !strcmp(place, other));
		place = other;
	}
	assert_int_equal(!!strstr(described(), ", 1 PASID in another"), *place != 0);
	return place;
}

/* Where disk0 is; the group must say the same. */
static const char *place(void)
{
	const char *text = described();
	struct dmacore_translation found;
	int error;

	if (!world.disks[0])
		return strstr(text, "no domain") ? "nowhere" : "elsewhere";
	error = dmacore_view_translate(world.view, LOW_BASE, 0, &found);
	if (error == -EPERM) {
		assert_non_null(strstr(text, "attached to no domain"));
		return "nowhere";
	}
	if (!error && found.target == found.first) {
		assert_non_null(strstr(text, "in an identity domain"));
		return "identity";
	}
	if (!error && found.target == HIGH_BASE) {
		assert_non_null(strstr(text, "in an unmanaged domain"));
		return "own";
	}
	assert_non_null(strstr(text, "in a DMA domain"));
	return domain_statistics(world.fallback).device_count ? "fallback" : "dma";
}

static void see(char *text, size_t size)
{
	static const char *const states[] = { "unbound", "deferred", "probing", "bound",
					      "removing" };
	const struct dmacore_driver *driver = NULL;
	char device[64] = "gone", holder[64];
	const char *words = described();
	uint32_t state;

	if (world.disks[0]) {
		assert_ok(dmacore_device_driver(world.disks[0], &state, &driver));
		assert_true((state == DMACORE_DEVICE_UNBOUND) == !driver);
		snprintf(device, sizeof(device), "%s%s%s", states[state], driver ? " " : "",
			 driver ? driver->name : "");
	}
	if (sscanf(words, "owned by %63[^,]", holder) != 1)
		snprintf(holder, sizeof(holder), "%.*s", (int)strcspn(words, ";("), words);
	if (strstr(words, "in use"))
		snprintf(holder, sizeof(holder), "%c use", *(strchr(words, ',') + 2));
	if (strstr(words, "free"))
		snprintf(holder, sizeof(holder), "free");
	*strchrnul(holder, '(') = 0;
	if (holder[strlen(holder) - 1] == ' ')
		holder[strlen(holder) - 1] = 0;
	snprintf(text, size, "%s, %s, %s%s%s%s%s", device, holder, place(), place_of_pasid(),
		 world.disks[0] && device_statistics(world.disks[0]).mapping_count ? ", mapped" :
										     "",
		 state_of(world.disks[1]) == DMACORE_DEVICE_UNBOUND  ? "" :
		 state_of(world.disks[1]) == DMACORE_DEVICE_DEFERRED ? ", disk1 deferred" :
								       ", disk1 bound",
		 world.disks[2] ? ", disk2" : "");
}

/* All of which an expected failure changes nothing. */
static void see_everything(char *text, size_t size)
{
	size_t length;

	see(text, size);
	length = strlen(text);
	snprintf(text + length, size - length, "; %s; %llu; %llu; %u removes", described(),
		 (unsigned long long)domain_statistics(world.own).device_count,
		 (unsigned long long)domain_statistics(world.spare).device_count,
		 world.drivers[NVME].removes + world.drivers[GFX].removes +
			 world.drivers[VFIO].removes);
}

static int join_group(unsigned index, uint32_t flags)
{
	struct dmacore_device_options options = device_options(&world.machine);
	char name[] = "disk0";

	name[4] += index;
	options.name = name;
	options.iommu = world.iommu;
	options.group = world.group;
	options.flags = flags;
	options.pasid_count = PARTY_PASID + 1;
	return dmacore_device_create(world.machine.system, &options, &world.disks[index]);
}

/* The domains, which the IOMMU has when it has started. */
static void make_domains(struct dmacore_iommu *iommu)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;

	dmacore_domain_destroy(world.fallback);
	dmacore_domain_destroy(world.own);
	dmacore_domain_destroy(world.spare);
	options.type = DMACORE_DOMAIN_DMA;
	assert_ok(dmacore_domain_create(iommu, &options, &world.fallback));
	options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_domain_create(iommu, &options, &world.own));
	assert_ok(dmacore_domain_map(world.own, LOW_BASE, HIGH_BASE, PAGE, DMACORE_ACCESS_READ));
	assert_ok(dmacore_domain_create(iommu, &options, &world.spare));
	assert_ok(dmacore_domain_map(world.spare, LOW_BASE, NEXT_BASE, PAGE, DMACORE_ACCESS_READ));
}

static int start(void)
{
	struct dmacore_pagetable_options pagetable = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	int error;

	pagetable.allocator = &world.machine.tables.allocator;
	options.pagetable = &pagetable;
	error = dmacore_iommu_start(world.iommu, &options);
	if (!error)
		make_domains(world.iommu);
	return error;
}

static int bind_to(enum driver driver)
{
	return dmacore_device_bind(world.disks[0], &world.drivers[driver].descriptor);
}

static int make_transition(enum transition transition)
{
	struct dmacore_device *device = world.disks[0];

	switch (transition) {
	case BIND:
		return bind_to(NVME);
	case BIND_IDENTITY:
		return bind_to(GFX);
	case BIND_OWN:
		return bind_to(VFIO);
	case BIND_BROKEN:
		return bind_to(BROKEN);
	case BIND_SHY:
		return bind_to(SHY);
	case BIND_SIBLING:
		return dmacore_device_bind(world.disks[1], &world.drivers[AHCI].descriptor);
	case UNBIND:
		return dmacore_device_unbind(device);
	case START:
		return start();
	case CLAIM:
		return dmacore_device_claim_dma_owner(device, &world.anne);
	case RELEASE:
		return dmacore_device_release_dma_owner(device, &world.anne);
	case ATTACH:
		return dmacore_device_attach(device, world.own, &world.anne);
	case DETACH:
		return dmacore_device_detach(device, &world.anne);
	case ATTACH_PASID:
		return dmacore_device_attach_pasid(device, PARTY_PASID, world.own, &world.anne);
	case REPLACE_PASID:
		return dmacore_device_replace_pasid(device, PARTY_PASID, world.spare, &world.anne);
	case DETACH_PASID:
		return dmacore_device_detach_pasid(device, PARTY_PASID, &world.anne);
	case USE:
		return dmacore_device_use_default_domain(device);
	case UNUSE:
		return dmacore_device_unuse_default_domain(device);
	case DOMAIN_ATTACH:
		return dmacore_domain_attach(world.fallback, device);
	case DOMAIN_REPLACE:
		return dmacore_domain_replace(world.fallback, device);
	case DOMAIN_DETACH:
		return dmacore_domain_detach(world.fallback, device);
	case SET_DMA:
		return dmacore_group_set_default_type(world.group, DMACORE_DOMAIN_DMA);
	case SET_IDENTITY:
		return dmacore_group_set_default_type(world.group, DMACORE_DOMAIN_IDENTITY);
	case JOIN:
		return join_group(2, 0);
	case JOIN_UNTRUSTED:
		return join_group(2, DMACORE_DEVICE_UNTRUSTED);
	default:
		dmacore_device_destroy(device);
		world.disks[0] = NULL;
		return 0;
	}
}

static void try_transition(void)
{
	const char *other = table[world.state][world.transition];
	const char *expected = other ? other : usual[world.transition];
	char before[512], after[512], got[600], text[512];
	int result;

	see_everything(before, sizeof(before));
	result = make_transition(world.transition);
	see_everything(after, sizeof(after));
	see(text, sizeof(text));
	snprintf(got, sizeof(got), "%s%s%s", errno_name(result),
		 result && strcmp(before, after) ? ": " : "",
		 result && !strcmp(before, after) ? "" : text);
	if (strcmp(got, expected))
		fail_msg("state %d, transition %d: %s, and not %s", world.state, world.transition,
			 got, expected);
}

static void try_in_callback(struct test_driver *driver, struct dmacore_device *device)
{
	(void)device;
	driver->in_probe = driver->in_remove = NULL;
	try_transition();
}

static void world_start(enum state state)
{
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct test_driver *drivers = world.drivers;

	memset(&world, 0, sizeof(world));
	machine_start(&world.machine, TRANSLATED);
	world.anne = world.bert = owner;
	world.anne.name = "anne";
	world.bert.name = "bert";
	test_driver_init(&drivers[NVME], "nvme", 0);
	test_driver_init(&drivers[GFX], "gfx", 0);
	drivers[GFX].descriptor.domain_type = DMACORE_DOMAIN_IDENTITY;
	test_driver_init(&drivers[VFIO], "vfio", DMACORE_DRIVER_MANAGES_DMA);
	test_driver_init(&drivers[BROKEN], "broken", 0);
	drivers[BROKEN].result = -EIO;
	test_driver_init(&drivers[SHY], "shy", 0);
	drivers[SHY].result = -EAGAIN;
	test_driver_init(&drivers[AHCI], "ahci", 0);
	assert_ok(dmacore_iommu_announce(world.machine.system, &world.iommu));
	assert_ok(dmacore_group_create(world.machine.system, &world.group));
	assert_ok(join_group(0, 0));
	assert_ok(join_group(1, 0));
	assert_ok(dmacore_view_create(world.disks[0], &world.view));
	for (unsigned i = 0; i < 2; i++)
		assert_ok(dmacore_view_create_pasid(world.disks[i], PARTY_PASID,
						    &world.pasid_views[i]));
	make_domains(world.machine.iommu);
	if (state != UNBOUND_LATE && state != DEFERRED_LATE)
		assert_ok(start());
	world.state = state;
}

static void bring_into(enum state state)
{
	struct dmacore_device *device = world.disks[0];

	switch (state) {
	case UNBOUND_ATTACHED:
	case UNBOUND_MAPPED:
		assert_ok(dmacore_domain_attach(world.fallback, device));
		break;
	case DEFERRED_LATE:
		assert_fails(bind_to(NVME), EAGAIN);
		break;
	case DEFERRED_BY_PROBE:
		assert_fails(bind_to(SHY), EAGAIN);
		break;
	case BOUND:
	case BOUND_MAPPED:
	case REMOVING:
		assert_ok(bind_to(NVME));
		break;
	case BOUND_IDENTITY:
		assert_ok(bind_to(GFX));
		break;
	case BOUND_OWN:
	case BOUND_OWN_HELD:
	case BOUND_OWN_PASID:
		assert_ok(bind_to(VFIO));
		break;
	case OWNED:
	case OWNED_PASID:
		assert_ok(dmacore_device_claim_dma_owner(device, &world.bert));
		break;
	case SIBLING_BOUND:
		assert_ok(make_transition(BIND_SIBLING));
		break;
	default:
		break;
	}
	if (state == BOUND_OWN_HELD || state == BOUND_OWN_PASID) {
		assert_ok(dmacore_device_claim_dma_owner(device, &world.anne));
		assert_ok(dmacore_device_attach(device, world.own, &world.anne));
	}
	if (state == BOUND_OWN_PASID || state == OWNED_PASID)
		assert_ok(dmacore_device_attach_pasid(device, PARTY_PASID, world.own,
						      state == OWNED_PASID ? &world.bert :
									     &world.anne));
	if (state == BOUND_MAPPED || state == UNBOUND_MAPPED)
		assert_ok(dmacore_map_single(device, world.machine.high, PAGE, DMACORE_TO_DEVICE, 0,
					     &world.live));
}

/* Probe or remove makes the transition; afterwards the bind or the unbind goes on. */
static void try_within(enum state state)
{
	struct test_driver *driver = &world.drivers[NVME];
	struct dmacore_device *device = world.disks[0];
	int result;

	if (state == PROBING) {
		driver->in_probe = try_in_callback;
		result = bind_to(NVME);
	} else {
		driver->in_remove = try_in_callback;
		result = dmacore_device_unbind(device);
	}
	if (world.transition == DESTROY) {
		assert_result(result, state == PROBING ? -ENODEV : 0);
		assert_int_equal(driver->removes, 1);
		assert_string_equal(described(), "free (1 device); in a DMA domain");
		return;
	}
	assert_ok(result);
	assert_int_equal(state_of(device),
			 state == PROBING ? DMACORE_DEVICE_BOUND : DMACORE_DEVICE_UNBOUND);
	assert_int_equal(driver->removes, state == REMOVING);
}

static void world_stop(void)
{
	dmacore_view_destroy(world.view);
	dmacore_view_destroy(world.pasid_views[0]);
	dmacore_view_destroy(world.pasid_views[1]);
	for (unsigned i = 0; i < 3; i++)
		dmacore_device_destroy(world.disks[i]);
	assert_string_equal(described(), "free (0 devices); attached to no domain");
	for (unsigned i = 0; i < DRIVER_COUNT; i++)
		if (world.drivers[i].result == 0)
			assert_int_equal(world.drivers[i].probes, world.drivers[i].removes);
	dmacore_group_destroy(world.group);
	dmacore_domain_destroy(world.fallback);
	dmacore_domain_destroy(world.own);
	dmacore_domain_destroy(world.spare);
	dmacore_iommu_destroy(world.iommu);
	reports_forget(&world.machine.reports);
	machine_stop(&world.machine);
}

static void device__makes_each_transition_or_changes_nothing(void **unused)
{
	(void)unused;
	for (enum state state = 0; state < STATE_COUNT; state++) {
		for (enum transition transition = 0; transition < TRANSITION_COUNT; transition++) {
			world_start(state);
			world.transition = transition;
			bring_into(state);
			if (state == PROBING || state == REMOVING)
				try_within(state);
			else
				try_transition();
			world_stop();
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device__makes_each_transition_or_changes_nothing),
	};

	return run_group("device states", tests);
}
