/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef QEMU_H
#define QEMU_H

/*
 * A small stand-in for QEMU's IOMMU memory regions, so that the glue can be built and tried without
 * QEMU: the names and contracts are those of QEMU's include/exec/memory.h, the code is not.
 */

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t hwaddr;

typedef enum {
	IOMMU_NONE = 0,
	IOMMU_RO = 1,
	IOMMU_WO = 2,
	IOMMU_RW = 3,
} IOMMUAccessFlags;

typedef enum {
	IOMMU_NOTIFIER_NONE = 0,
	IOMMU_NOTIFIER_UNMAP = 1,
	IOMMU_NOTIFIER_MAP = 2,
	IOMMU_NOTIFIER_DEVIOTLB_UNMAP = 4,
} IOMMUNotifierFlag;

typedef struct AddressSpace AddressSpace;
typedef struct IOMMUMemoryRegion IOMMUMemoryRegion;
typedef struct IOMMUNotifier IOMMUNotifier;

struct AddressSpace {
	const char *name;
};

/* What an aligned block of addresses leads to. No permission: nowhere. */
typedef struct IOMMUTLBEntry {
	AddressSpace *target_as;
	hwaddr iova;
	hwaddr translated_addr;
	hwaddr addr_mask;
	IOMMUAccessFlags perm;
} IOMMUTLBEntry;

typedef struct IOMMUTLBEvent {
	IOMMUNotifierFlag type;
	IOMMUTLBEntry entry;
} IOMMUTLBEvent;

/* Who wants to know of changes from @start to @end, which are both inside. */
struct IOMMUNotifier {
	void (*notify)(IOMMUNotifier *notifier, IOMMUTLBEntry *entry);
	IOMMUNotifierFlag notifier_flags;
	hwaddr start;
	hwaddr end;
	IOMMUNotifier *next;
};

/* What the model of an IOMMU provides: the hooks of QEMU's IOMMUMemoryRegionClass that matter here. */
typedef struct IOMMUMemoryRegionClass {
	IOMMUTLBEntry (*translate)(IOMMUMemoryRegion *iommu, hwaddr addr, IOMMUAccessFlags flag,
				   int iommu_idx);
	int (*notify_flag_changed)(IOMMUMemoryRegion *iommu, IOMMUNotifierFlag old_flags,
				   IOMMUNotifierFlag new_flags);
	void (*replay)(IOMMUMemoryRegion *iommu, IOMMUNotifier *notifier);
} IOMMUMemoryRegionClass;

struct IOMMUMemoryRegion {
	const IOMMUMemoryRegionClass *class;
	IOMMUNotifier *notifiers;
	IOMMUNotifierFlag notify_flags;
};

#define IOMMU_NOTIFIER_FOREACH(n, mr) for ((n) = (mr)->notifiers; (n); (n) = (n)->next)

/* Returns 0 or, with nothing changed, the negated errno value of the region's hook. */
int memory_region_register_iommu_notifier(IOMMUMemoryRegion *region, IOMMUNotifier *notifier);
void memory_region_unregister_iommu_notifier(IOMMUMemoryRegion *region, IOMMUNotifier *notifier);
void memory_region_iommu_replay(IOMMUMemoryRegion *region, IOMMUNotifier *notifier);

/*
 * Tells one notifier, if it wants to know. QEMU aborts on an event that reaches out of the notifier's
 * range or is no aligned block; here such events are counted.
 */
void memory_region_notify_iommu_one(IOMMUNotifier *notifier, IOMMUTLBEvent *event);

extern unsigned qemu_aborts;

#endif /* QEMU_H */
