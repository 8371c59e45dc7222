/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "capi.h"

#include <errno.h>

bool may_end_things(void)
{
	/* In other callbacks a call of the object may be under way. Drivers' are called by none. */
	return world.depth == world.driver_depth;
}

static struct dmacore_device **find_bound(const struct dmacore_device *device)
{
	for (size_t i = 0; i < OBJECTS_MAX; i++)
		if (world.bound[i] == device)
			return &world.bound[i];
	return NULL;
}

static void look_at_device(struct dmacore_device *device, uint32_t expected)
{
	const struct dmacore_driver *driver = NULL;
	uint32_t state = 99;

	CHECK(dmacore_device_driver(device, &state, &driver) == 0);
	CHECK(state == expected);
	CHECK((driver == NULL) == (state == DMACORE_DEVICE_UNBOUND));
}

static void call_back_in(void)
{
	if (world.depth == 2 || !may_end_things())
		return;
	world.depth++;
	world.driver_depth++;
	for (unsigned int i = byte() % 4; i > 0; i--) {
		fuzz_trace("  from a driver:");
		step();
	}
	world.depth--;
	world.driver_depth--;
}

static int probe_quietly(struct dmacore_device *device, void *opaque)
{
	static const int results[] = { 0, 0, 0, 0, 0, -EAGAIN, -EAGAIN, -EIO };
	unsigned long events = world.events;
	int result;

	CHECK(opaque == &world && device != NULL);
	look_at_device(device, DMACORE_DEVICE_PROBING);
	call_back_in();
	result = results[byte() % 8];
	/* What a driver does after such an event it must do at once. */
	if (result == -EAGAIN && events != world.events)
		result = 1 << byte() % 31;
	fuzz_trace("  probe gives %d", result);
	if (result != 0)
		forget_mappings(device);
	return result;
}

static int probe(struct dmacore_device *device, void *opaque)
{
	int result;

	CHECK(find_bound(device) == NULL);
	result = probe_quietly(device, opaque);
	CHECK(find_bound(device) == NULL);
	if (result == 0)
		*find_bound(NULL) = device;
	return result;
}

static void give_back(struct dmacore_device *device, void *opaque)
{
	CHECK(opaque == &world && device != NULL);
	look_at_device(device, DMACORE_DEVICE_REMOVING);
	CHECK(find_bound(device) != NULL);
	*find_bound(device) = NULL;
	fuzz_trace("  remove");
	call_back_in();
	forget_mappings(device);
}

#define DRIVER(flags, domain_type, name, probe, remove)                                        \
	{                                                                                      \
		sizeof(struct dmacore_driver), flags, domain_type, name, probe, remove, &world \
	}

/* They stay where they are. The last ones are refused. */
static const struct dmacore_driver drivers[] = {
	DRIVER(0, 0, "nvme", probe, give_back),
	DRIVER(0, 0, "ahci", probe, give_back),
	DRIVER(0, DMACORE_DOMAIN_DMA, "xhci", probe, give_back),
	DRIVER(0, DMACORE_DOMAIN_IDENTITY, "gfx", probe, give_back),
	DRIVER(DMACORE_DRIVER_MANAGES_DMA, 0, "vfio", probe, give_back),
	DRIVER(0, 0, "", probe_quietly, NULL),
	DRIVER(0, DMACORE_DOMAIN_UNMANAGED, "wish", probe, give_back),
	DRIVER(2, 0, "flag", probe, give_back),
	DRIVER(0, 0, NULL, probe, give_back),
	DRIVER(0, 0, "a name that is longer than it may be", probe, give_back),
	DRIVER(0, 0, "idle", NULL, give_back),
};

#define GOOD_COUNT 6

static const struct dmacore_driver *pick_driver(void)
{
	static union storage odd;
	uint8_t how = byte();

	if (how < 0xe0)
		return &drivers[how % GOOD_COUNT];
	if (how < 0xf0)
		return &drivers[how % (sizeof(drivers) / sizeof(drivers[0]))];
	/* One that is of another length stays unbound, for its name is too long, too. */
	structure(&odd, sizeof(odd.driver));
	odd.driver.name = drivers[9].name;
	odd.driver.probe = probe;
	return how < 0xf8 ? &odd.driver : NULL;
}

/* A device behind an IOMMU that is to come, in a group or alone. */
static void create_late(void)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct object *system = pick_object(SYSTEM);
	struct dmacore_device *device;
	uint8_t how = byte();

	if (world.depth != 0 || count_objects(NOTHING) < 3)
		return;
	(void)RESULT(dmacore_iommu_announce(system->handle, &options.iommu), EINVAL, ENOMEM);
	keep(IOMMU, options.iommu, system->is_flat);
	options.flags = (how & 1 ? DMACORE_DEVICE_UNTRUSTED : 0) |
			(how & 2 ? DMACORE_DEVICE_TRACK_DIRECT : 0);
	options.group = how & 4 ? pick(GROUP) : NULL;
	options.streaming_mask = UINT64_MAX;
	options.coherent_mask = UINT64_MAX;
	(void)RESULT(dmacore_device_create(system->handle, &options, &device), EINVAL, EPERM,
		     ENOMEM);
	keep(DEVICE, device, system->is_flat);
}

static void start(void)
{
	struct dmacore_iommu *iommu = pick(IOMMU);
	union storage options;

	structure(&options, sizeof(options.iommu));
	options.iommu.flags = one_in(64);
	options.iommu.pagetable = one_in(2) ? table_options() : NULL;
	if (may_end_things() && RESULT(dmacore_iommu_start(iommu, &options.iommu), EINVAL, EEXIST,
				       E2BIG, EOPNOTSUPP, ENOMEM) == 0)
		world.events++;
}

static void look_at(struct dmacore_device *device)
{
	const struct dmacore_driver *driver = NULL;
	uint32_t state = DMACORE_DEVICE_UNBOUND;

	if (RESULT(dmacore_device_driver(device, OUT(&state), &driver), EINVAL) != 0)
		return;
	CHECK((driver == NULL) == (state == DMACORE_DEVICE_UNBOUND));
	CHECK(driver == NULL || (driver >= drivers && driver < drivers + GOOD_COUNT));
	if (driver != NULL && driver->remove == NULL)
		return;
	if (world.depth == 0)
		CHECK(state != DMACORE_DEVICE_PROBING && state != DMACORE_DEVICE_REMOVING);
	CHECK((state == DMACORE_DEVICE_BOUND) == (find_bound(device) != NULL) || world.depth != 0);
}

void call_driver(void)
{
	struct dmacore_device *device = pick(DEVICE);
	uint8_t how = byte();

	switch (how % 8) {
	case 0:
		create_late();
		break;
	case 1:
		start();
		break;
	case 2:
	case 3:
	case 4: {
		const struct dmacore_driver *driver = pick_driver();

		if (may_end_things() &&
		    RESULT(dmacore_device_bind(device, driver), EINVAL, E2BIG, EAGAIN, EBUSY, EPERM,
			   ENODEV, EOPNOTSUPP, ERANGE, ENOMEM, EIO) == 0)
			world.events++;
		break;
	}
	case 5:
		if (may_end_things() &&
		    RESULT(dmacore_device_unbind(device), EINVAL, ENOENT, EBUSY) == 0)
			forget_mappings(device);
		break;
	case 6:
		(void)RESULT(dmacore_group_set_default_type(pick(GROUP),
							    one_in(16) ? byte() : 1 + how / 128),
			     EINVAL, ENODEV, EAGAIN, EBUSY, EPERM, EOPNOTSUPP, ERANGE, ENOMEM);
		break;
	default:
		look_at(device);
		break;
	}
}
