/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_RESERVED_H
#define DMACORE_RESERVED_H

/**
 * DOC: Reserved regions
 *
 * Some addresses of a device are not free to be mapped: firmware goes on using them, or the hardware
 * takes them for something else. A device is made with a list of them (device.h), and every domain that
 * it is attached to honours the list.
 *
 * - DMACORE_RESERVED_DIRECT: mapped 1:1, at all times. Its group is in an identity or a DMA domain and
 *   nothing else, so that nobody can own it.
 * - DMACORE_RESERVED_RELAXABLE: mapped 1:1 in DMA domains; of no interest in a domain of an owner's.
 * - DMACORE_RESERVED_NEVER: never mapped.
 * - DMACORE_RESERVED_MSI: never mapped, as writes there are interrupts.
 * - DMACORE_RESERVED_SW_MSI: not for mappings, as software puts the interrupt controller there.
 *
 * In a DMA domain no mapping call is given such an address. In an unmanaged domain
 * dmacore_domain_map() refuses them, but for relaxable ones. Identity domains honour all.
 *
 * A domain knows from its start which regions it honours: the group that it is made for (struct
 * dmacore_domain_options) says so. The default domains that groups choose themselves (driver.h) are
 * made so. A device joins no group whose domain does not honour its regions.
 *
 *	struct dmacore_reserved_region regions[16];
 *	size_t count;
 *
 *	error = dmacore_device_reserved_regions(device, regions, 16, &count);
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_group;

/* The most reserved regions that a device can be made with. */
#define DMACORE_RESERVED_REGIONS_MAX 32

enum dmacore_reserved_type {
	DMACORE_RESERVED_DIRECT = 1,
	DMACORE_RESERVED_RELAXABLE = 2,
	DMACORE_RESERVED_NEVER = 3,
	DMACORE_RESERVED_MSI = 4,
	DMACORE_RESERVED_SW_MSI = 5,
};

/**
 * struct dmacore_reserved_region - addresses that are not free to be mapped
 * @first: lowest address, a multiple of 4096
 * @last: highest address, inclusive, one less than a multiple of 4096
 * @type: one of enum dmacore_reserved_type
 * @reserved: zero
 */
struct dmacore_reserved_region {
	dmacore_dma_t first;
	dmacore_dma_t last;
	uint32_t type;
	uint32_t reserved;
};

/**
 * dmacore_device_reserved_regions() - list the reserved regions of a device
 * @device: the device
 * @regions: receives as many as fit, by address and then type; may be NULL if @capacity is 0
 * @capacity: how many there is room for
 * @out_count: receives how many there are
 *
 * Regions of one type that overlap or adjoin are one. Regions of different types may overlap.
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_device_reserved_regions(struct dmacore_device *device,
				    struct dmacore_reserved_region *regions, size_t capacity,
				    size_t *out_count);

/**
 * dmacore_group_reserved_regions() - list the reserved regions of all devices of a group
 * @group: the group
 * @regions: as above
 * @capacity: as above
 * @out_count: as above
 *
 * As dmacore_device_reserved_regions(), with the regions of all devices as if they were one's.
 *
 * Context: any thread; locked (group, rank 3); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -ENOMEM  no memory to merge them in. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_group_reserved_regions(struct dmacore_group *group,
				   struct dmacore_reserved_region *regions, size_t capacity,
				   size_t *out_count);

DMACORE_END_DECLS

#endif /* DMACORE_RESERVED_H */
