/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "shadow.h"

#include <stddef.h>

static void add(struct shadow *shadow, struct shadow_range range)
{
	if (shadow->count == SHADOW_MAX)
		shadow->wrong++;
	else
		shadow->ranges[shadow->count++] = range;
}

/* Takes out what lies from @first to @last. What is left of a range on either side stays. */
static void cut(struct shadow *shadow, hwaddr first, hwaddr last)
{
	for (unsigned i = 0; i < shadow->count;) {
		struct shadow_range range = shadow->ranges[i], above = range;

		if (range.last < first || range.first > last) {
			i++;
			continue;
		}
		shadow->ranges[i] = shadow->ranges[--shadow->count];
		if (range.last > last) {
			above.first = last + 1;
			above.phys += above.first - range.first;
			add(shadow, above);
		}
		if (range.first < first) {
			range.last = first - 1;
			add(shadow, range);
		}
	}
}

static void notify(IOMMUNotifier *notifier, IOMMUTLBEntry *entry)
{
	struct shadow *shadow = (struct shadow *)notifier;
	struct shadow_range range = { entry->iova, entry->iova | entry->addr_mask,
				      entry->translated_addr, entry->perm };

	if (entry->perm == IOMMU_NONE) {
		shadow->unmaps++;
		cut(shadow, range.first, range.last);
		return;
	}
	shadow->maps++;
	/* As VFIO, which refuses to map over something. */
	for (unsigned i = 0; i < shadow->count; i++)
		shadow->wrong += shadow->ranges[i].first <= range.last &&
				 shadow->ranges[i].last >= range.first;
	add(shadow, range);
}

void shadow_init(struct shadow *shadow, hwaddr start, hwaddr end)
{
	*shadow = (struct shadow){
		.notifier = { .notify = notify,
			      .notifier_flags = IOMMU_NOTIFIER_MAP | IOMMU_NOTIFIER_UNMAP,
			      .start = start,
			      .end = end },
	};
}

const struct shadow_range *shadow_find(const struct shadow *shadow, hwaddr addr)
{
	for (unsigned i = 0; i < shadow->count; i++)
		if (shadow->ranges[i].first <= addr && addr <= shadow->ranges[i].last)
			return &shadow->ranges[i];
	return NULL;
}
