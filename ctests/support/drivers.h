/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_DRIVERS_H
#define SUPPORT_DRIVERS_H

/* Drivers that do what a test tells them to, and note what was asked of them. */

#include "party.h"

struct test_driver {
	struct dmacore_driver descriptor;
	/* What probe returns. */
	int result;
	/* Called by probe and remove, if they are there. */
	void (*in_probe)(struct test_driver *driver, struct dmacore_device *device);
	void (*in_remove)(struct test_driver *driver, struct dmacore_device *device);
	struct party *party;
	unsigned probes;
	unsigned removes;
	/* The last device that it was asked for. */
	struct dmacore_device *device;
};

static inline int test_driver_probe(struct dmacore_device *device, void *opaque)
{
	struct test_driver *driver = opaque;

	driver->probes++;
	driver->device = device;
	if (driver->in_probe)
		driver->in_probe(driver, device);
	return driver->result;
}

static inline void test_driver_remove(struct dmacore_device *device, void *opaque)
{
	struct test_driver *driver = opaque;

	driver->removes++;
	driver->device = device;
	if (driver->in_remove)
		driver->in_remove(driver, device);
}

/* Where the driver is stays fixed: the library is told. */
static inline void test_driver_init(struct test_driver *driver, const char *name, uint32_t flags)
{
	memset(driver, 0, sizeof(*driver));
	driver->descriptor.struct_size = sizeof(driver->descriptor);
	driver->descriptor.flags = flags;
	driver->descriptor.name = name;
	driver->descriptor.probe = test_driver_probe;
	driver->descriptor.remove = test_driver_remove;
	driver->descriptor.opaque = driver;
}

static inline uint32_t state_of(struct dmacore_device *device)
{
	uint32_t state = UINT32_MAX;

	assert_ok(dmacore_device_driver(device, &state, NULL));
	return state;
}

static inline const struct dmacore_driver *driver_of(struct dmacore_device *device)
{
	const struct dmacore_driver *driver = NULL;
	uint32_t state;

	assert_ok(dmacore_device_driver(device, &state, &driver));
	return driver;
}

#endif /* SUPPORT_DRIVERS_H */
