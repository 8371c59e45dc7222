/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_DRIVER_H
#define DMACORE_DRIVER_H

/**
 * DOC: Drivers, and a device's life
 *
 * Before a driver may touch a device, what the device's addresses mean must be settled, and it must
 * stay so until the driver has gone. Binding a driver to a device does that:
 *
 *	extern int nvme_probe(struct dmacore_device *device, void *opaque);
 *	static const struct dmacore_driver nvme = {
 *		.struct_size = sizeof(nvme), .name = "nvme", .probe = nvme_probe,
 *	};
 *
 *	error = dmacore_device_bind(device, &nvme);
 *	... the driver maps and unmaps ...
 *	error = dmacore_device_unbind(device);
 *
 * The device is configured first: its IOMMU must be there, its group gets its default domain (by the
 * rules below) if it has none, and the group is in use by the DMA API as long as the driver is bound.
 * Then the driver's probe is called. Whatever fails, all of that is undone in the reverse order, but a
 * default domain that was chosen stays.
 *
 *	              bind                            probe returned 0
 *	  unbound ------------->  being probed  ------------------------>  bound
 *	   ^  |  ^                 ^      |                                  |
 *	   |  |  |                 |      |  configuring or probe failed     |  unbind, destroy
 *	   |  |  +-----------------|------+                                  v
 *	   |  |                    |      |  -EAGAIN                       being removed
 *	   |  |  bind: -EAGAIN     |      v                                  |
 *	   |  +------------------> deferred                                  |
 *	   |        unbind           |                                       |
 *	   +-------------------------+---------------------------------------+
 *
 * Deferred. If the device's IOMMU was announced and is not there (dmacore_iommu_announce()), or if probe
 * returns -EAGAIN, the bind is deferred: the driver waits for the device. It is tried again when an
 * IOMMU of the system starts, and when another bind of the system succeeds: by the call that does that,
 * or by one that is just trying others, in another thread or around it. If it fails then, that is
 * reported (DMACORE_REPORT_ERROR), and the device is unbound. What comes while probe runs counts too: a
 * probe that binds another device, or starts an IOMMU, must not return
 * -EAGAIN afterwards, or it is called again and again.
 *
 * Drivers that manage DMA themselves (DMACORE_DRIVER_MANAGES_DMA) have a domain of their own: for them
 * the group is neither given a default domain nor used. They own it (dmacore_device_claim_dma_owner())
 * and attach their domain, before they are bound, in probe or later, and meanwhile the mapping calls
 * refuse.
 *
 * The default domain of a group is chosen when the first driver that uses the DMA API is bound to a
 * device of it: a strict DMA domain, if a device of the group is not trusted
 * (DMACORE_DEVICE_UNTRUSTED); else what the driver asks for (@domain_type); else what the system says
 * (struct dmacore_system_options); and if somebody has attached one, that one. Demands that contradict
 * each other are refused, and a report (DMACORE_REPORT_ERROR) names both devices.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;

enum dmacore_driver_flags {
	/* The driver maps in a domain of its own: its bind does not use the default domain. */
	DMACORE_DRIVER_MANAGES_DMA = 1,
};

enum dmacore_device_state {
	DMACORE_DEVICE_UNBOUND = 0,
	/* A bind waits for the device's IOMMU, or for what probe misses. */
	DMACORE_DEVICE_DEFERRED = 1,
	DMACORE_DEVICE_PROBING = 2,
	DMACORE_DEVICE_BOUND = 3,
	DMACORE_DEVICE_REMOVING = 4,
};

/**
 * struct dmacore_driver - what drives a kind of devices
 * @struct_size: sizeof(struct dmacore_driver)
 * @flags: bits of enum dmacore_driver_flags
 * @domain_type: what the default domain of its devices' groups must be: DMACORE_DOMAIN_IDENTITY;
 *   DMACORE_DOMAIN_HYBRID; or DMACORE_DOMAIN_DMA or DMACORE_DOMAIN_DMA_LAZY, of which one will do for the
 *   other (and unmaps are strict behind an IOMMU that cannot defer flushes); 0: anything
 * @name: what people are told, less than DMACORE_OWNER_NAME_SIZE bytes long
 * @probe: takes a device over; returns 0, -EAGAIN to be called again later, or another negated errno
 *   (any other number counts as -EINVAL)
 * @remove: gives a device back for which probe returned 0; NULL: nothing to do
 * @opaque: passed to both
 *
 * The structure and @name stay where they are until no device has to do with the driver
 * (dmacore_device_driver()). Both functions are called under no lock; they may call everything, but
 * bind and unbind refuse the same device, and destroying it takes effect when they have returned. If
 * probe returns 0 then, remove is called.
 */
struct dmacore_driver {
	size_t struct_size;
	uint32_t flags;
	uint32_t domain_type;
	const char *name;
	int (*probe)(struct dmacore_device *device, void *opaque);
	void (*remove)(struct dmacore_device *device, void *opaque);
	void *opaque;
};

/**
 * dmacore_device_bind() - give a device to a driver
 * @device: the device
 * @driver: the driver
 *
 * Configures the device and calls probe, see above.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; bindings, rank 11; windows,
 *   rank 14), not while probe runs; may wait for accesses in flight to end; calls probe of this driver
 *   and, on success, of those that are deferred; may call the table allocator, the devices'
 *   page_response and the report callback.
 * Ownership: @driver stays the caller's, see struct dmacore_driver.
 * Return: 0 when the device is bound; or, with the device unbound as it was unless it is deferred,
 *   -EINVAL  a pointer, the name or probe is NULL, a flag or the domain type is unknown, the name is
 *            too long, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -EAGAIN  the bind is deferred. It is retried without being asked for; see above.
 *   -EBUSY   the device has a driver, or one is deferred for it, or it has live mappings that a record
 *            is kept of, which would be taken for the driver's; or the group
 *            is owned, or in use with a default domain of another type than @driver asks for. Succeeds
 *            once that has ended.
 *   -EPERM   the driver asks for an identity or a hybrid domain, and a device of the group is not
 *            trusted. Never.
 *   -ENODEV  the device is not trusted and behind no IOMMU that could contain it, or was destroyed
 *            meanwhile. Never.
 *   -EOPNOTSUPP  the IOMMU's page tables cannot have DMA domains, or @driver asks for a hybrid one on a
 *            flat system. Never.
 *   -ERANGE  they are too narrow for a region that must be mapped 1:1. Never.
 *   -ENOMEM  no memory. May succeed later.
 *   or what probe returned.
 */
DMACORE_MUST_CHECK
int dmacore_device_bind(struct dmacore_device *device, const struct dmacore_driver *driver);

/**
 * dmacore_device_unbind() - take a device from its driver
 * @device: the device
 *
 * Calls remove. Mappings and coherent allocations that the driver has left are ended then, and
 * reported (DMACORE_REPORT_WARNING), as by dmacore_device_destroy(). Then the group is one use less in
 * use. A bind that is deferred is given up; remove is not called for it.
 *
 * Context: any thread, while no other thread makes a mapping call for @device; locked (group, rank 3;
 *   device mappings, rank 4; bindings, rank 11; windows, rank 14), not while remove runs; waits for
 *   accesses in flight to end if mappings were left; calls remove, and may call the report callback,
 *   the memory allocator, the table allocator and the domain's notifiers (rank 13).
 * Ownership: the driver's structure is the caller's alone again.
 * Return: 0, or
 *   -EINVAL  @device is NULL. Never succeeds if retried.
 *   -ENOENT  the device has no driver, and none is deferred for it. Never, until it is bound.
 *   -EBUSY   probe or remove is running for it. Succeeds once that has ended.
 */
DMACORE_MUST_CHECK
int dmacore_device_unbind(struct dmacore_device *device);

/**
 * dmacore_device_driver() - where a device is in its life
 * @device: the device
 * @out_state: receives one of enum dmacore_device_state
 * @out_driver: receives the driver that it is bound to, or that is deferred, probing or being removed;
 *   NULL if there is none; may be NULL
 *
 * Context: any thread; locked (bindings, rank 11); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @device or @out_state is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_device_driver(struct dmacore_device *device, uint32_t *out_state,
			  const struct dmacore_driver **out_driver);

DMACORE_END_DECLS

#endif /* DMACORE_DRIVER_H */
