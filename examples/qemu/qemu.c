/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "qemu.h"

unsigned qemu_aborts;

/* The region's model hears which kinds of events anybody wants, when that changes. */
static int update_flags(IOMMUMemoryRegion *region)
{
	IOMMUNotifierFlag flags = IOMMU_NOTIFIER_NONE;
	IOMMUNotifier *n;
	int error = 0;

	IOMMU_NOTIFIER_FOREACH(n, region)
	flags |= n->notifier_flags;
	if (flags != region->notify_flags)
		error = region->class->notify_flag_changed(region, region->notify_flags, flags);
	if (!error)
		region->notify_flags = flags;
	return error;
}

static void take_out(IOMMUMemoryRegion *region, IOMMUNotifier *notifier)
{
	IOMMUNotifier **link = &region->notifiers;

	while (*link != notifier)
		link = &(*link)->next;
	*link = notifier->next;
}

int memory_region_register_iommu_notifier(IOMMUMemoryRegion *region, IOMMUNotifier *notifier)
{
	int error;

	notifier->next = region->notifiers;
	region->notifiers = notifier;
	error = update_flags(region);
	if (error)
		take_out(region, notifier);
	return error;
}

void memory_region_unregister_iommu_notifier(IOMMUMemoryRegion *region, IOMMUNotifier *notifier)
{
	take_out(region, notifier);
	if (update_flags(region))
		qemu_aborts++;
}

void memory_region_iommu_replay(IOMMUMemoryRegion *region, IOMMUNotifier *notifier)
{
	region->class->replay(region, notifier);
}

void memory_region_notify_iommu_one(IOMMUNotifier *notifier, IOMMUTLBEvent *event)
{
	IOMMUTLBEntry *entry = &event->entry;
	hwaddr last = entry->iova | entry->addr_mask;

	if ((entry->addr_mask & (entry->addr_mask + 1)) || (entry->iova & entry->addr_mask) ||
	    (event->type == IOMMU_NOTIFIER_UNMAP && entry->perm != IOMMU_NONE))
		qemu_aborts++;
	if (notifier->start > last || notifier->end < entry->iova)
		return;
	if (entry->iova < notifier->start || last > notifier->end)
		qemu_aborts++;
	if (event->type & notifier->notifier_flags)
		notifier->notify(notifier, entry);
}
