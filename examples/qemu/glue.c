/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "glue.h"

#include <errno.h>
#include <stddef.h>

/*
 * QEMU adds one to a mask in 64 bits, and would come to a size of 0 for all addresses: half of them are
 * the largest block that it is given.
 */
#define MASK_MAX (UINT64_MAX >> 1)

static struct glue *glue_of(IOMMUMemoryRegion *region)
{
	return (struct glue *)((char *)region - offsetof(struct glue, region));
}

/* DMACORE_ACCESS_READ and WRITE are QEMU's bits. */
static IOMMUAccessFlags permission(uint32_t access)
{
	return (IOMMUAccessFlags)(access & IOMMU_RW);
}

/*
 * What is permitted is told whatever is wanted, so that an answer holds for reads and writes. QEMU
 * compares by itself, and an access that fails so is no fault of dmacore's.
 */
static IOMMUTLBEntry translate(IOMMUMemoryRegion *region, hwaddr addr, IOMMUAccessFlags flag,
			       int iommu_idx)
{
	struct glue *glue = glue_of(region);
	IOMMUTLBEntry entry = { .target_as = glue->target_as, .iova = addr };
	struct dmacore_block block;

	(void)flag;
	(void)iommu_idx;
	/* It fails for arguments that are not given here. */
	if (dmacore_view_translate_block(glue->view, addr, 0, &block))
		return entry;
	entry.addr_mask = block.mask & MASK_MAX;
	entry.iova = addr & ~entry.addr_mask;
	entry.perm = permission(block.access);
	if (entry.perm != IOMMU_NONE)
		entry.translated_addr = block.phys + (entry.iova - block.first);
	return entry;
}

/* Tells one of QEMU's notifiers of what lies in its range, by aligned blocks as QEMU wants them. */
static void tell(struct glue *glue, IOMMUNotifier *n, const struct dmacore_notifier_event *event)
{
	hwaddr first = event->first > n->start ? event->first : n->start;
	hwaddr last = event->last < n->end ? event->last : n->end;
	bool is_map = event->type == DMACORE_NOTIFY_MAP;

	if (event->first > n->end || event->last < n->start)
		return;
	while (1) {
		hwaddr phys = is_map ? event->phys + (first - event->first) : 0;
		hwaddr mask = MASK_MAX;
		IOMMUTLBEvent told = { is_map ? IOMMU_NOTIFIER_MAP : IOMMU_NOTIFIER_UNMAP,
				       { .target_as = glue->target_as,
					 .iova = first,
					 .translated_addr = phys,
					 .perm = permission(event->access) } };

		while (((first | phys) & mask) || mask > last - first)
			mask >>= 1;
		told.entry.addr_mask = mask;
		memory_region_notify_iommu_one(n, &told);
		if (last - first == mask)
			return;
		first += mask + 1;
	}
}

static void on_event(const struct dmacore_notifier_event *event, void *opaque)
{
	struct glue *glue = opaque;
	IOMMUNotifier *n;

	IOMMU_NOTIFIER_FOREACH(n, &glue->region)
	tell(glue, n, event);
}

/* Listens to the domain for what QEMU's notifiers want, instead of what they wanted before. */
static int listen(struct glue *glue, IOMMUNotifierFlag flags)
{
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
	struct dmacore_notifier *old = glue->notifier, *notifier = NULL;
	int error;

	options.flags = (flags & IOMMU_NOTIFIER_MAP ? DMACORE_NOTIFY_MAP : 0) |
			(flags & IOMMU_NOTIFIER_UNMAP ? DMACORE_NOTIFY_UNMAP : 0);
	options.notify = on_event;
	options.opaque = glue;
	if (options.flags && glue->domain) {
		error = dmacore_notifier_create(glue->domain, &options, &notifier);
		if (error)
			return error;
	}
	glue->notifier = notifier;
	/* No event is under way, because maps and unmaps hold QEMU's big lock. */
	dmacore_notifier_destroy(old);
	return 0;
}

static int notify_flag_changed(IOMMUMemoryRegion *region, IOMMUNotifierFlag old_flags,
			       IOMMUNotifierFlag new_flags)
{
	(void)old_flags;
	/* There are no translations that a device keeps by itself. */
	if (new_flags & IOMMU_NOTIFIER_DEVIOTLB_UNMAP)
		return -ENOTSUP;
	return listen(glue_of(region), new_flags);
}

/* A replay for one of QEMU's notifiers alone. */
struct replay {
	struct glue *glue;
	IOMMUNotifier *notifier;
};

static void on_replay(const struct dmacore_notifier_event *event, void *opaque)
{
	struct replay *replay = opaque;

	tell(replay->glue, replay->notifier, event);
}

static int replay_one(struct glue *glue, IOMMUNotifier *n)
{
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
	struct replay replay = { glue, n };
	struct dmacore_notifier *notifier;
	int error;

	if (!glue->domain || !(n->notifier_flags & IOMMU_NOTIFIER_MAP))
		return 0;
	options.flags = DMACORE_NOTIFY_MAP;
	options.first = n->start;
	options.last = n->end;
	options.notify = on_replay;
	options.opaque = &replay;
	error = dmacore_notifier_create(glue->domain, &options, &notifier);
	if (error)
		return error;
	error = dmacore_notifier_replay(notifier);
	dmacore_notifier_destroy(notifier);
	return error;
}

static void replay(IOMMUMemoryRegion *region, IOMMUNotifier *notifier)
{
	/* QEMU's hook cannot fail. Without memory the notifier knows less than there is. */
	(void)replay_one(glue_of(region), notifier);
}

static const IOMMUMemoryRegionClass region_class = { translate, notify_flag_changed, replay };

int glue_init(struct glue *glue, AddressSpace *target_as, struct dmacore_device *device,
	      struct dmacore_domain *domain)
{
	*glue = (struct glue){ .region = { .class = &region_class },
			       .target_as = target_as,
			       .domain = domain };
	return dmacore_view_create(device, &glue->view);
}

void glue_fini(struct glue *glue)
{
	dmacore_notifier_destroy(glue->notifier);
	dmacore_view_destroy(glue->view);
}

int glue_switch(struct glue *glue, struct dmacore_domain *domain)
{
	static const struct dmacore_notifier_event everything = { .type = DMACORE_NOTIFY_UNMAP,
								  .last = UINT64_MAX };
	struct dmacore_domain *old = glue->domain;
	IOMMUNotifier *n;
	int error;

	glue->domain = domain;
	error = listen(glue, glue->region.notify_flags);
	if (error) {
		glue->domain = old;
		return error;
	}
	on_event(&everything, glue);
	IOMMU_NOTIFIER_FOREACH(n, &glue->region)
	{
		int failed = replay_one(glue, n);

		error = error ? error : failed;
	}
	return error;
}
