/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef GLUE_H
#define GLUE_H

/*
 * An IOMMU memory region of QEMU whose translations are those of a dmacore device. All is called with
 * QEMU's big lock held, but for translate.
 */

#include <dmacore.h>

#include "qemu.h"

struct glue {
	/* First, so that the region is the glue. */
	IOMMUMemoryRegion region;
	AddressSpace *target_as;
	struct dmacore_view *view;
	/* What the device is attached to; NULL: nothing. */
	struct dmacore_domain *domain;
	/* Of the domain, while somebody wants to know of changes. */
	struct dmacore_notifier *notifier;
};

/*
 * The domain is the one that the device is attached to. Each function that returns a number returns 0
 * or a negated errno value.
 */
int glue_init(struct glue *glue, AddressSpace *target_as, struct dmacore_device *device,
	      struct dmacore_domain *domain);
void glue_fini(struct glue *glue);

/*
 * Tells that the device has been attached to another domain, or to none: who mirrors the old one is told
 * that all is unmapped, and then what is mapped in the new one.
 */
int glue_switch(struct glue *glue, struct dmacore_domain *domain);

#endif /* GLUE_H */
