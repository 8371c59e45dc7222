/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SHADOW_H
#define SHADOW_H

/*
 * What a device that is passed through would have in the host's IOMMU: a map that is kept by
 * notifications alone.
 */

#include "qemu.h"

#define SHADOW_MAX 256

struct shadow_range {
	hwaddr first;
	hwaddr last;
	hwaddr phys;
	IOMMUAccessFlags perm;
};

struct shadow {
	/* First, so that the notifier is the shadow. */
	IOMMUNotifier notifier;
	struct shadow_range ranges[SHADOW_MAX];
	unsigned count;
	/* Since the last look. */
	unsigned maps;
	unsigned unmaps;
	/* There was no room, or something was mapped that is mapped. */
	unsigned wrong;
};

void shadow_init(struct shadow *shadow, hwaddr start, hwaddr end);

/* Where an address leads; NULL: nowhere. */
const struct shadow_range *shadow_find(const struct shadow *shadow, hwaddr addr);

#endif /* SHADOW_H */
